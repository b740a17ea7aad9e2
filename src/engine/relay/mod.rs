//! Media from the shard on which it arrives to the shards on which it is wanted.
//!
//! A producer lives on its transport's shard, its *origin*. A shard with consumers of it has a
//! *mirror* of it: the same id and streams, with rings of its own that the origin feeds with
//! plaintext packets, once per shard. Sealing, numbering, repair and the choice among layers are the
//! mirror's shard's own; only packets and pulses go down, only demand and key-frame requests go up.
//!
//! ```text
//!   origin's shard                          mirror's shard
//!   ring ──► tap (one for each shard   ───► ring ──► consumers
//!            and demanded stream)  Media
//!   clock, activity ───────────────────►    clock, activity
//!                                  Pulse
//!   taps  ◄─────────────────────────────    streams that a consumer takes
//!                                  Demand
//!   throttle ◄──────────────────────────    throttle
//!                                  KeyFrame
//! ```
//!
//! Called by the engine's shard on its thread: [`Machine::handle_relay`] for each item that a lane
//! brought, [`Machine::poll_relay`] once a turn behind all input. It knows no lane, only
//! [`RelayLanes`].
//!
//! Invariants:
//! * A tap sends packets in the order of its ring, and says at the first one behind a hole it made
//!   that there is one ([`Continuity`]). Video goes on with a key frame.
//! * Behind a hole a consumer's numbers go on without a gap. Only a packet that was overtaken on its
//!   way to the origin, and then met the full lane, stays missing, as if it had been lost there.
//! * Demand is a state that is told anew until it was taken, so a full lane loses none of it.
//! * A mirror never relays on: nothing that arrives makes a tap on one.
//! * Nothing is allocated for a packet besides what [`RelayLanes::empty`] does; it is copied once
//!   into its box and once into the mirror's ring.
//!
//! Not here: which shards a room uses, who may consume what, and closing a mirror whose producer is
//! gone: the control thread does that, with commands.
//!
//! [`Machine::handle_relay`]: crate::engine::machine::Machine::handle_relay
//! [`Machine::poll_relay`]: crate::engine::machine::Machine::poll_relay

mod mirror;
mod origin;

use std::collections::VecDeque;
use std::time::Instant;

pub use self::mirror::{Mirrored, MirroredStream};
pub use self::origin::{Relay, Tap};

use crate::control::command::Layers;
use crate::engine::layer::Activity;
use crate::engine::packet::PacketMeta;
use crate::engine::ring::SLOT_BYTES;
use crate::engine::select::LayerRates;
use crate::engine::source_clock::{SenderClock, StreamClock};
use crate::engine::{Engine, ProducerKey, StreamKey, TimerKey};
use crate::id::{ProducerId, ShardId};
use crate::limits::RELAY_RETRY;
use crate::ortc::types::MediaKind;

/// How a relayed packet goes on from the one relayed before it on the same stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// It is the next one in the origin's ring.
    Continues,
    /// Packets between were not relayed. The stream goes on with the extended sequence number
    /// `from`, of a key frame if it is video; no packet before that number follows, but this one
    /// may lie behind it (packets of one frame may have arrived in another order). Of a stream that
    /// was demanded anew at once, the same may have been relayed before.
    Cut {
        /// The first extended sequence number of what follows.
        from: u64,
    },
    /// As a cut, and the sender has begun anew: nothing that was relayed before belongs to it.
    Restarted,
}

/// A media packet on its way to another shard, in plaintext. Always boxed; boxes are used again.
#[derive(Debug)]
pub struct RelayPacket {
    /// Whose it is.
    pub producer: ProducerId,
    /// Which of the producer's encodings, 0 is the lowest.
    pub encoding: u8,
    /// How it goes on from the one before.
    pub continuity: Continuity,
    /// When it arrived at the origin.
    pub arrival: Instant,
    /// What is known of it.
    pub meta: PacketMeta,
    /// Bytes of the payload.
    pub len: u16,
    /// The payload and behind it what an older packet left.
    pub bytes: [u8; SLOT_BYTES],
}

impl RelayPacket {
    /// A packet of nobody, to be filled.
    #[must_use]
    pub fn empty(now: Instant) -> Box<Self> {
        Box::new(Self {
            producer: ProducerId(uuid::Uuid::nil()),
            encoding: 0,
            continuity: Continuity::Continues,
            arrival: now,
            meta: PacketMeta::default(),
            len: 0,
            bytes: [0; SLOT_BYTES],
        })
    }

    /// Its payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// What a mirror has to know of a stream besides its packets, of streams that are not demanded too.
#[derive(Debug, Clone, Copy)]
pub struct RelayPulse {
    /// Whose it is.
    pub producer: ProducerId,
    /// Which of the producer's encodings.
    pub encoding: u8,
    /// Whether it arrives.
    pub activity: Activity,
    /// NTP time of its timestamps.
    pub clock: StreamClock,
    /// Its sender's wall clock against ours.
    pub sender: SenderClock,
    /// What its layers take.
    pub rates: LayerRates,
}

/// All that travels between two shards because of media.
#[derive(Debug)]
pub enum RelayItem {
    /// One packet of a demanded stream, from the origin to a mirror. Audio and video have lanes of
    /// their own. Lost when the lane is full: counted; video then stops until its next key frame,
    /// which is asked for, audio goes on. The box goes back to the shard that sent it.
    Media(MediaKind, Box<RelayPacket>),
    /// State of one stream, from the origin to every shard that told a demand of its producer: at
    /// once when it did, then at most every [`RELAY_PULSE_INTERVAL`] while packets arrive. Lost
    /// when the lane is full, without harm: the next packet brings another.
    ///
    /// [`RELAY_PULSE_INTERVAL`]: crate::limits::RELAY_PULSE_INTERVAL
    Pulse(Box<RelayPulse>),
    /// What a mirror wants of its producer from now on, from a mirror to the origin; each replaces
    /// the one before. A stream that was not wanted before begins with a key frame, which the
    /// origin asks for. Tried again until the lane takes it; must not be lost then.
    Demand {
        /// Whose mirror.
        producer: ProducerId,
        /// A bit for each encoding that is taken, the lowest for encoding 0; may be none, and
        /// pulses come all the same. `None`: there is no consumer any more, not even pulses are
        /// wanted.
        encodings: Option<u8>,
        /// The highest layers that its unpaused consumers prefer, counted over all encodings: what
        /// the producer's application is told of (see [`demand`](crate::engine::demand)).
        preferred: Option<Layers>,
    },
    /// A mirror that is being fed needs a key frame, from a mirror to the origin. The mirror's
    /// throttle repeats it until one arrives.
    KeyFrame {
        /// Whose mirror.
        producer: ProducerId,
        /// Which encoding.
        encoding: u8,
    },
}

/// The lanes of one shard to all others, as its engine sees them.
pub trait RelayLanes {
    /// A box to fill for that shard: one that was used before, or a new one.
    fn empty(&mut self, to: ShardId) -> Box<RelayPacket>;

    /// Puts an item into the lane it belongs to, in order with all of its kind to that shard.
    ///
    /// # Errors
    /// The item itself: that lane is full.
    fn send(&mut self, to: ShardId, item: RelayItem) -> Result<(), RelayItem>;
}

/// What an engine keeps for all of its relaying, to other shards and from them.
#[derive(Debug, Default)]
pub struct Relaying {
    /// Own streams with something for other shards, each once.
    pub due: VecDeque<StreamKey>,
    /// Mirrors whose demand or requests may have to be told, each once.
    pub wishes: Vec<ProducerKey>,
    /// Producers of which a consumer took, or waits for, another stream while sending.
    pub moved: Vec<ProducerKey>,
    /// Origins that do not know yet that a mirror is gone; at most one for each mirror.
    pub partings: Vec<(ShardId, ProducerId)>,
    /// How many mirrors there are.
    pub mirrors: usize,
    /// A box that a full lane gave back.
    spare: Option<Box<RelayPacket>>,
}

impl Engine {
    /// Takes an item of another shard; gives the box of a packet back.
    pub(super) fn take_relayed(
        &mut self,
        now: Instant,
        from: ShardId,
        item: RelayItem,
    ) -> Option<Box<RelayPacket>> {
        match item {
            RelayItem::Media(_, packet) => {
                if let Err(reason) = self.take_packet(now, from, &packet) {
                    self.discards.add(reason);
                }
                return Some(packet);
            }
            RelayItem::Pulse(pulse) => self.take_pulse(now, from, &pulse),
            RelayItem::Demand { producer, encodings, preferred } => {
                self.take_demand(now, from, producer, encodings);
                self.take_preference(from, producer, preferred);
            }
            RelayItem::KeyFrame { producer, encoding } => {
                self.take_key_frame_wish(now, from, producer, encoding);
            }
        }
        None
    }

    /// Sends other shards what is due; true while more is waiting.
    pub(super) fn relay(&mut self, now: Instant, lanes: &mut dyn RelayLanes) -> bool {
        self.route_dirty(now);
        self.settle_demands(now);
        if !self.send_wishes(now, lanes) {
            self.timers.arm(TimerKey::Relay, now + RELAY_RETRY);
        }
        self.feed_taps(now, lanes)
    }
}
