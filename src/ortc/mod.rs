//! Capabilities and parameters: pure functions with exactly mediasoup's semantics.
//!
//! Owns what a room can carry ([`router_capabilities`]), what a client may say
//! ([`parse_rtp_parameters`], [`parse_rtp_capabilities`]), and every step from a producer's numbers
//! to a consumer's: [`normalise_producer`] → [`producer_type`] → [`producer_mapping`] →
//! [`consumable_parameters`] → [`can_consume`] → [`consumer_parameters`].
//!
//! Called by the control thread, once per `produce` and `consume`; the engine uses [`scalability`],
//! [`uri`] and [`codec`]. Invariants: no state, no clock, no randomness (SSRCs are arguments), no
//! panic on any input; equal inputs give equal outputs. The rules are those of mediasoup 3.27, and
//! recorded outputs of it (`tests/data`) must come out equal. What this server can do beyond that is
//! named in [`Menu`]; the free functions know nothing of it.
//!
//! Deliberately not here: uniqueness across producers or consumers of a transport (SSRC, MID, RID),
//! the choice of a CNAME and the numbering of MIDs. They need state and belong to the caller.

pub mod codec;
pub mod scalability;
pub mod types;
pub mod uri;

mod codec_match;
mod consumable;
mod consumer;
mod error;
mod h264;
mod json;
mod menu;
mod parse;
mod pipe;
mod producer;
mod renumber;
mod router_caps;

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod property_tests;

pub use codec_match::capability_of;
pub use consumable::consumable_parameters;
pub(crate) use consumer::unusable_feedback;
pub use consumer::{ConsumerRequest, can_consume, consumer_parameters};
pub use error::OrtcError;
pub use menu::{Menu, VideoCodec, default_media_codecs};
pub use parse::{parse_rtp_capabilities, parse_rtp_parameters};
pub use pipe::{PipeRequest, pipe_consumer_parameters};
pub use producer::{normalise_producer, producer_mapping, producer_type};
pub use renumber::{ClientNumbers, renumber};
pub use router_caps::router_capabilities;
