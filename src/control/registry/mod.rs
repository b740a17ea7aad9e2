//! Everything that is alive, by name: rooms, peers, transports, producers, consumers.
//!
//! Owned by [`Control`](super::Control) on the control thread. Plain data: ids and times are
//! arguments, and what a change entails comes out as [`Effects`]. Invariants: a peer is in its
//! room, a transport's peer exists, a producer's and a consumer's transport exists, a consumer's
//! producer exists; closing one closes what hangs on it; an object is invisible to requests until
//! it is ready (its shard has made it), but is closed with the rest; every shard that was told to
//! mirror a producer is told that it closes. It does no I/O and no negotiation.

mod consumer;
mod peer;
mod producer;
mod room;
mod speakers;
mod transport;
mod unused;

use std::collections::{BTreeMap, HashMap};

use super::command::Command;
use super::error::ControlError;
use crate::events::RoomEvent;
use crate::id::{ConsumerId, PeerId, ProducerId, RoomId, ShardId, TransportId};
use crate::limits::Limits;
use crate::ortc::types::MediaKind;

pub use consumer::{Consumer, NewConsumer};
pub use peer::Peer;
pub use producer::{NewProducer, Producer};
pub use room::Room;
pub use transport::{Direction, NewTransport, SdpProtocol, SdpSession, Transport};

/// Something that happened in a room.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// Which room.
    pub room: RoomId,
    /// Where it happened.
    pub shard: ShardId,
    /// What happened.
    pub event: RoomEvent,
}

/// Something that a shard must close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// A transport with all it carries.
    Transport(TransportId),
    /// A producer with its consumers.
    Producer(ProducerId),
    /// A consumer.
    Consumer(ConsumerId),
}

impl From<Close> for Command {
    fn from(close: Close) -> Self {
        match close {
            Close::Transport(id) => Self::CloseTransport(id),
            Close::Producer(id) => Self::CloseProducer(id),
            Close::Consumer(id) => Self::CloseConsumer(id),
        }
    }
}

/// What a change entails: what happened in rooms, and what shards must be told.
#[derive(Debug, Default)]
#[must_use = "events must be logged and closes sent"]
pub struct Effects {
    /// In order of happening.
    pub events: Vec<Happening>,
    /// Closes for shards, in order.
    pub closes: Vec<(ShardId, Close)>,
}

impl Effects {
    /// One event and nothing for shards.
    pub fn event(room: &RoomId, shard: ShardId, event: RoomEvent) -> Self {
        let happening = Happening { room: room.clone(), shard, event };
        Self { events: vec![happening], closes: Vec::new() }
    }

    /// Adds what another change entails.
    pub fn append(&mut self, mut other: Self) {
        self.events.append(&mut other.events);
        self.closes.append(&mut other.closes);
    }
}

/// All that is alive on this node.
#[derive(Debug, Default)]
pub struct Registry {
    rooms: BTreeMap<RoomId, Room>,
    transports: HashMap<TransportId, Transport>,
    producers: HashMap<ProducerId, Producer>,
    consumers: HashMap<ConsumerId, Consumer>,
    peers: usize,
    alive: Alive,
    census: BTreeMap<ShardId, Census>,
    limits: Limits,
}

/// How much lives on one shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Rooms that started there.
    pub rooms: usize,
    /// Transports of any room, also those still being made.
    pub transports: usize,
}

/// How many of something there are of each kind of media.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Audio.
    pub audio: usize,
    /// Video.
    pub video: usize,
}

impl Kinds {
    fn of(&mut self, kind: MediaKind) -> &mut usize {
        match kind {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
        }
    }
}

/// Kept with every change, so that nobody has to go through all to count them.
#[derive(Debug, Default)]
struct Alive {
    producers: Kinds,
    consumers: Kinds,
}

/// How much is alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rooms.
    pub rooms: usize,
    /// Peers of all rooms.
    pub peers: usize,
    /// Transports of all peers.
    pub transports: usize,
    /// Producers of all transports.
    pub producers: usize,
    /// Consumers of all transports.
    pub consumers: usize,
    /// Producers by kind.
    pub producers_by_kind: Kinds,
    /// Consumers by kind.
    pub consumers_by_kind: Kinds,
}

impl Registry {
    /// Nothing yet, and never more than `limits`.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// How much is alive.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            rooms: self.rooms.len(),
            peers: self.peers,
            transports: self.transports.len(),
            producers: self.producers.len(),
            consumers: self.consumers.len(),
            producers_by_kind: self.alive.producers,
            consumers_by_kind: self.alive.consumers,
        }
    }

    /// Takes a producer out and counts it; what names it is the caller's business.
    fn take_producer(&mut self, id: ProducerId) -> Option<Producer> {
        let producer = self.producers.remove(&id)?;
        *self.alive.producers.of(producer.kind) -= 1;
        Some(producer)
    }

    /// Takes a consumer out and counts it; what names it is the caller's business.
    fn take_consumer(&mut self, id: ConsumerId) -> Option<Consumer> {
        let consumer = self.consumers.remove(&id)?;
        *self.alive.consumers.of(consumer.kind) -= 1;
        Some(consumer)
    }

    /// How much lives on a shard.
    #[must_use]
    pub fn census(&self, shard: ShardId) -> Census {
        self.census.get(&shard).copied().unwrap_or_default()
    }

    fn census_mut(&mut self, shard: ShardId) -> &mut Census {
        self.census.entry(shard).or_default()
    }

    /// The room of that name.
    ///
    /// # Errors
    /// [`ControlError::RoomNotFound`].
    pub fn room(&self, room: &RoomId) -> Result<&Room, ControlError> {
        self.rooms.get(room).ok_or(ControlError::RoomNotFound)
    }

    /// All rooms, by name.
    pub fn rooms(&self) -> impl Iterator<Item = (&RoomId, &Room)> {
        self.rooms.iter()
    }

    /// Rooms whose name comes after `cursor`, by name.
    pub fn rooms_after(&self, cursor: Option<&RoomId>) -> impl Iterator<Item = (&RoomId, &Room)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.rooms.range::<RoomId, _>((cursor.map_or(Unbounded, Excluded), Unbounded))
    }

    /// A transport that its shard has made.
    ///
    /// # Errors
    /// [`ControlError::TransportNotFound`].
    pub fn transport(&self, id: TransportId) -> Result<&Transport, ControlError> {
        self.transports
            .get(&id)
            .filter(|transport| transport.ready)
            .ok_or(ControlError::TransportNotFound)
    }

    /// A transport that its shard has made and that is this peer's.
    ///
    /// # Errors
    /// What is unknown: the room, the peer, or the transport among that peer's.
    pub fn transport_of(
        &self,
        room: &RoomId,
        peer: &PeerId,
        id: TransportId,
    ) -> Result<&Transport, ControlError> {
        let member = self.room(room)?.peers.get(peer).ok_or(ControlError::PeerNotFound)?;
        if !member.transports.contains(&id) {
            return Err(ControlError::TransportNotFound);
        }
        self.transport(id)
    }

    /// A producer that its shard has made.
    ///
    /// # Errors
    /// [`ControlError::ProducerNotFound`].
    pub fn producer(&self, id: ProducerId) -> Result<&Producer, ControlError> {
        self.producers
            .get(&id)
            .filter(|producer| producer.ready)
            .ok_or(ControlError::ProducerNotFound)
    }

    /// A consumer that its shard has made.
    ///
    /// # Errors
    /// [`ControlError::ConsumerNotFound`].
    pub fn consumer(&self, id: ConsumerId) -> Result<&Consumer, ControlError> {
        self.consumers
            .get(&id)
            .filter(|consumer| consumer.ready)
            .ok_or(ControlError::ConsumerNotFound)
    }

    /// A transport, made or still being made.
    #[must_use]
    pub fn any_transport(&self, id: TransportId) -> Option<&Transport> {
        self.transports.get(&id)
    }

    /// True when the producer is alive or being made.
    #[must_use]
    pub fn knows_producer(&self, id: ProducerId) -> bool {
        self.producers.contains_key(&id)
    }

    /// True when the consumer is alive or being made.
    #[must_use]
    pub fn knows_consumer(&self, id: ConsumerId) -> bool {
        self.consumers.contains_key(&id)
    }

    /// Everything that is ready on a shard: what an inventory taken from now on must contain.
    #[must_use]
    pub fn ready_on(&self, shard: ShardId) -> super::command::Inventory {
        let on_shard = |id: &TransportId| self.transports.get(id).is_some_and(|t| t.shard == shard);
        super::command::Inventory {
            transports: self
                .transports
                .iter()
                .filter(|(_, transport)| transport.ready && transport.shard == shard)
                .map(|(id, _)| *id)
                .collect(),
            producers: self
                .producers
                .iter()
                .filter(|(_, producer)| producer.ready && on_shard(&producer.transport))
                .map(|(id, _)| *id)
                .collect(),
            consumers: self
                .consumers
                .iter()
                .filter(|(_, consumer)| consumer.ready && on_shard(&consumer.transport))
                .map(|(id, _)| *id)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
