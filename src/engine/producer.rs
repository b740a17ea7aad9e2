//! One media source of a peer: its streams, and who listens.
//!
//! Owned by the engine. Media does not pass through here: packets go from a stream's ring to the
//! consumers listed here. Invariant: `streams` has one entry per encoding, lowest first, all alive
//! as long as the producer is.

use std::time::Duration;

use crate::engine::codec_table::CodecTable;
use crate::engine::{ConsumerKey, StreamKey, TransportKey};
use crate::id::ProducerId;
use crate::ortc::types::{MediaKind, ProducerType};

/// A producer.
#[derive(Debug)]
pub struct Producer {
    /// Its name.
    pub id: ProducerId,
    /// Where it arrives.
    pub transport: TransportKey,
    /// Audio or video.
    pub kind: MediaKind,
    /// How its encodings relate.
    pub producer_type: ProducerType,
    /// One per encoding, lowest first.
    pub streams: Vec<StreamKey>,
    /// Who listens.
    pub consumers: Vec<ConsumerKey>,
    /// Its payload types in the room's terms.
    pub codecs: CodecTable,
    /// Nothing is forwarded while paused.
    pub paused: bool,
    /// Least time between two key-frame requests.
    pub key_frame_request_delay: Duration,
    /// A media packet has arrived.
    pub started: bool,
}
