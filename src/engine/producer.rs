//! One media source of a peer: its streams, and who listens.
//!
//! Owned by the engine. Media does not pass through here: packets go from a stream's ring to the
//! consumers listed here. Invariant: `streams` has one entry per encoding, lowest first, all alive
//! as long as the producer is.

use std::time::Duration;

use crate::engine::codec_table::CodecTable;
use crate::engine::demand::DemandNews;
use crate::engine::relay::{Mirrored, Relay};
use crate::engine::{ConsumerKey, StreamKey, TransportKey};
use crate::id::ProducerId;
use crate::ortc::types::{MediaKind, ProducerType};

/// Where media comes from; `M` is what is kept where that is another shard.
#[derive(Debug)]
pub enum Source<M> {
    /// A transport of this shard.
    Local(TransportKey),
    /// The shard on which it arrives: this is a mirror.
    Relayed(M),
}

impl<M> Source<M> {
    /// The transport, unless it is a mirror.
    pub fn transport(&self) -> Option<TransportKey> {
        match self {
            Self::Local(key) => Some(*key),
            Self::Relayed(_) => None,
        }
    }

    /// What a mirror keeps.
    pub fn relayed(&self) -> Option<&M> {
        match self {
            Self::Local(_) => None,
            Self::Relayed(relayed) => Some(relayed),
        }
    }

    /// What a mirror keeps, to be changed.
    pub fn relayed_mut(&mut self) -> Option<&mut M> {
        match self {
            Self::Local(_) => None,
            Self::Relayed(relayed) => Some(relayed),
        }
    }
}

/// A producer.
#[derive(Debug)]
pub struct Producer {
    /// Its name.
    pub id: ProducerId,
    /// Where it arrives.
    pub source: Source<Mirrored>,
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
    /// A media packet has arrived (and was told of, which a mirror's is by its origin).
    pub started: bool,
    /// The shards with a mirror of it that has consumers.
    pub relays: Vec<Relay>,
    /// What its application was told of who wants which layers; only of video that arrives here.
    pub demand: Option<Box<DemandNews>>,
    /// SSRC and score of each encoding, as the control thread knows them; `None` before its first
    /// packet.
    pub scores_told: Vec<Option<(u32, u8)>>,
}

impl Producer {
    /// True when its consumers may be sent less than all of it.
    #[must_use]
    pub fn is_layered(&self) -> bool {
        self.producer_type != ProducerType::Simple
    }
}
