//! RTCP as bytes: an iterator over compound packets that arrive, a writer for those that leave.
//!
//! Owns the wire format of reports, source descriptions, goodbyes (RFC 3550 §6), feedback (RFC
//! 4585, RFC 5104, REMB, transport-wide congestion control) and extended reports (RFC 3611).
//! Called by the engine on its shard's thread with plaintext.
//!
//! Invariants: nothing here allocates or reads a clock; any bytes are survived; a packet that was
//! written halfway is taken back, so that what a writer holds can always be sent.
//!
//! It deliberately decides nothing: when to report, what to repair and whom to believe is for its
//! callers. Reduced-size packets (RFC 5506) are accepted and can be written: nobody checks that a
//! compound begins with a report.

mod feedback;
mod item;
mod report;
mod transport_cc;
mod transport_cc_writer;
mod writer;
mod xr;

pub use feedback::{Fir, FirEntries, FirEntry, Nack, NackPairs, NackSeqs, Remb, Ssrcs};
pub use item::{Compound, RtcpItem, parse};
pub use report::{
    Bye, ReceiverReport, ReportBlock, ReportBlocks, Sdes, SdesCnames, SenderInfo, SenderReport,
};
pub use transport_cc::{Arrival, Arrivals, PacketStatuses, TransportCc};
pub use transport_cc_writer::FeedbackHead;
pub use writer::RtcpWriter;
pub use xr::{DlrrEntries, DlrrEntry, Xr, XrBlock, XrBlocks};

/// Report blocks, or sources, of one packet at most: a five-bit count.
pub const BLOCKS_MAX: usize = 31;

/// Packet types and, for feedback, formats.
mod kind {
    pub(super) const SENDER_REPORT: u8 = 200;
    pub(super) const RECEIVER_REPORT: u8 = 201;
    pub(super) const SDES: u8 = 202;
    pub(super) const BYE: u8 = 203;
    pub(super) const TRANSPORT_FEEDBACK: u8 = 205;
    pub(super) const PAYLOAD_FEEDBACK: u8 = 206;
    pub(super) const XR: u8 = 207;

    /// Of transport feedback (RFC 4585 §6.2.1).
    pub(super) const NACK: u8 = 1;
    /// Of transport feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
    pub(super) const TRANSPORT_CC: u8 = 15;
    /// Of payload feedback (RFC 4585 §6.3.1).
    pub(super) const PLI: u8 = 1;
    /// Of payload feedback (RFC 5104 §4.3.1).
    pub(super) const FIR: u8 = 4;
    /// Of payload feedback: application layer (RFC 4585 §6.4), where REMB lives.
    pub(super) const APPLICATION: u8 = 15;
}
