//! What is kept of a packet besides its payload.

use crate::engine::codec::PayloadInfo;
use crate::engine::codec::red::Primary;
use crate::engine::rtp::Extensions;

/// A media packet in its stream's ring, in the room's terms.
#[derive(Debug, Clone, Copy, Default)]
pub struct PacketMeta {
    /// Extended sequence number of the producer's stream (rollover counter and number).
    pub seq: u64,
    /// The producer's timestamp.
    pub timestamp: u32,
    /// The room's payload type.
    pub payload_type: u8,
    /// The marker bit.
    pub marker: bool,
    /// What the payload tells.
    pub info: PayloadInfo,
    /// What the header extensions said.
    pub extensions: Extensions,
    /// The newest block, of a packet with redundant ones.
    pub primary: Option<Primary>,
}

const _: () = assert!(size_of::<PacketMeta>() <= 192, "a ring of 1,024 costs 192 KiB of these");
