//! RTP as bytes: views over packets that arrive, headers written into packets that leave.
//!
//! Owns the wire format of RTP (RFC 3550 §5.1), its header extensions (RFC 8285), the arithmetic of
//! sequence numbers, which wrap, and NTP time. Called by the engine on its shard's thread, for every
//! packet.
//!
//! Invariants: nothing here allocates or reads a clock; any bytes are survived; what a view reports
//! lies inside the bytes it was given.
//!
//! It deliberately knows nothing about protection (a protected packet's header is in the clear, so
//! the same view serves), codecs, or which stream a packet belongs to.

pub(crate) mod bytes;
mod egress;
mod extension;
mod ntp;
mod seq;
mod view;

pub use egress::{EGRESS_HEADER_BYTES_MAX, EgressFields, EgressHeader};
pub use extension::{
    AbsCaptureTime, Element, Elements, Extension, ExtensionBlock, ExtensionIds, Extensions, Span,
    Token,
};
pub use ntp::NtpTime;
pub use seq::seq_diff;
pub use view::{RtpView, unpadded_payload};
