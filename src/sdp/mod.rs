//! SDP for WHIP and WHEP: offers in, answers out, and ICE fragments both ways (RFC 8866, RFC 9429,
//! RFC 8840). Pure; called by the API on the control thread, once per request.
//!
//! [`Offer::parse`] makes bounded, checked m-sections of a client's text; [`publish`](mod@publish)
//! and [`play`](mod@play) say what of them the rooms can carry, in the words of
//! [`ortc`](crate::ortc), so that what speaks SDP and what speaks ORTC meet in the same producers
//! and consumers; [`Answer`] writes what came of it. Invariants: no text panics or takes more than
//! its length to read; nothing that a client wrote can begin a line of an answer. It keeps the rules
//! of a WHIP endpoint: one BUNDLE group, RTP and RTCP on one port, ICE-lite with every candidate in
//! the answer. It does not negotiate codecs itself and knows no data channels.

mod answer;
mod codecs;
mod error;
mod fragment;
mod lines;
mod offer;
pub mod play;
pub mod publish;
mod section;

#[cfg(test)]
mod tests;

pub use answer::{Answer, Line};
pub use error::SdpError;
pub use fragment::{Fragment, Session};
pub use offer::{Offer, Setup, fingerprint_bytes};
pub use section::{Flow, Section};
