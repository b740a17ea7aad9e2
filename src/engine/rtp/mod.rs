//! RTP as bytes: views over packets that arrive, headers written into packets that leave.
//!
//! Owns the wire format of RTP (RFC 3550 §5.1), its header extensions (RFC 8285), the arithmetic of
//! sequence numbers and timestamps that wrap, and NTP time. Called by the engine on its shard's
//! thread, for every packet.
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

pub use egress::{EGRESS_HEADER_BYTES_MAX, EgressFields, EgressHeader, set_padding};
pub use extension::{
    AbsCaptureTime, Element, Elements, Extension, ExtensionBlock, ExtensionIds, Extensions, Span,
    Token,
};
pub use ntp::{NtpTime, abs_send_time_diff, short_to_duration};
pub use seq::{SeqExtender, seq_diff, seq_is_newer, timestamp_diff, timestamp_is_newer};
pub use view::{FIXED_HEADER_BYTES, RtpView, is_rtcp, unpadded_payload};
