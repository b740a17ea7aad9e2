//! Producers: one media source of a peer, named by kind and source.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::{Close, Effects, Happening, Registry};
use crate::control::ControlError;
use crate::events::RoomEvent;
use crate::id::{ConsumerId, PeerId, ProducerId, RoomId, ShardId, TransportId};
use crate::limits::PRODUCERS_PER_TRANSPORT_MAX;
use crate::ortc::types::{MediaKind, ProducerType, RtpParameters};

/// A producer to reserve.
#[derive(Debug)]
pub struct NewProducer {
    /// Where it arrives.
    pub transport: TransportId,
    /// Audio or video.
    pub kind: MediaKind,
    /// Camera, screen …: the client's word.
    pub source: String,
    /// How its encodings relate.
    pub producer_type: ProducerType,
    /// The room's view of it.
    pub consumable: Arc<RtpParameters>,
    /// Starts paused.
    pub paused: bool,
    /// The client's own data.
    pub app_data: Value,
}

/// One media source of a peer.
#[derive(Debug)]
pub struct Producer {
    /// Whose room.
    pub room: RoomId,
    /// Whose.
    pub peer: PeerId,
    /// Where it lives.
    pub shard: ShardId,
    /// Where it arrives.
    pub transport: TransportId,
    /// Audio or video.
    pub kind: MediaKind,
    /// Camera, screen …: the client's word.
    pub source: String,
    /// How its encodings relate.
    pub producer_type: ProducerType,
    /// The room's view of it.
    pub consumable: Arc<RtpParameters>,
    /// Paused.
    pub paused: bool,
    /// The client's own data.
    pub app_data: Value,
    /// Its shard has made it.
    pub ready: bool,
    pub(super) order: u64,
    pub(super) consumers: BTreeSet<ConsumerId>,
}

impl Registry {
    /// What the peer already sends of this kind and source, with its transport.
    #[must_use]
    pub fn producer_like(
        &self,
        room: &RoomId,
        peer: &PeerId,
        kind: MediaKind,
        source: &str,
    ) -> Option<(ProducerId, TransportId)> {
        let peer = self.rooms.get(room)?.peers.get(peer)?;
        peer.transports
            .iter()
            .filter_map(|id| self.transports.get(id))
            .flat_map(|transport| transport.producers.iter())
            .filter_map(|id| self.producers.get(id).map(|producer| (*id, producer)))
            .find(|(_, producer)| {
                producer.ready && producer.kind == kind && producer.source == source
            })
            .map(|(id, producer)| (id, producer.transport))
    }

    /// Reserves a producer's place.
    ///
    /// # Errors
    /// [`ControlError::TransportNotFound`], [`ControlError::LimitReached`].
    pub fn reserve_producer(
        &mut self,
        id: ProducerId,
        new: NewProducer,
    ) -> Result<(), ControlError> {
        let transport =
            self.transports.get_mut(&new.transport).ok_or(ControlError::TransportNotFound)?;
        if transport.producers.len() >= PRODUCERS_PER_TRANSPORT_MAX {
            return Err(ControlError::LimitReached("producers of a transport"));
        }
        let room = self.rooms.get_mut(&transport.room).ok_or(ControlError::RoomNotFound)?;
        let order = room.producers.last_key_value().map_or(0, |(last, _)| last + 1);
        room.producers.insert(order, id);
        transport.producers.insert(id);
        let producer = Producer {
            room: transport.room.clone(),
            peer: transport.peer.clone(),
            shard: transport.shard,
            transport: new.transport,
            kind: new.kind,
            source: new.source,
            producer_type: new.producer_type,
            consumable: new.consumable,
            paused: new.paused,
            app_data: new.app_data,
            ready: false,
            order,
            consumers: BTreeSet::new(),
        };
        self.producers.insert(id, producer);
        Ok(())
    }

    /// The shard has made it.
    ///
    /// # Errors
    /// [`ControlError::TransportNotFound`] when its transport closed in between.
    pub fn commit_producer(&mut self, id: ProducerId) -> Result<Effects, ControlError> {
        let producer = self.producers.get_mut(&id).ok_or(ControlError::TransportNotFound)?;
        producer.ready = true;
        let event = RoomEvent::ProducerAdded {
            producer: id,
            peer: producer.peer.clone(),
            kind: producer.kind,
            source: producer.source.clone(),
            producer_type: producer.producer_type,
            paused: producer.paused,
            app_data: producer.app_data.clone(),
        };
        Ok(Effects::event(&producer.room, producer.shard, event))
    }

    /// Closes a producer and with it its consumers, and tells its shard. A reservation is taken
    /// back in the same way; the room hears only of producers that were ready.
    ///
    /// # Errors
    /// [`ControlError::ProducerNotFound`].
    pub fn close_producer(
        &mut self,
        id: ProducerId,
        reason: &'static str,
    ) -> Result<Effects, ControlError> {
        let producer = self.producers.get(&id).ok_or(ControlError::ProducerNotFound)?;
        if let Some(transport) = self.transports.get_mut(&producer.transport) {
            transport.producers.remove(&id);
        }
        Ok(self.drop_producer(id, reason))
    }

    /// Takes a producer out with its consumers; its transport's own set is the caller's business.
    pub(super) fn drop_producer(&mut self, id: ProducerId, reason: &'static str) -> Effects {
        let Some(producer) = self.producers.remove(&id) else {
            return Effects::default();
        };
        let mut effects = Effects::default();
        for consumer in &producer.consumers {
            self.forget_consumer(*consumer);
        }
        if let Some(room) = self.rooms.get_mut(&producer.room) {
            room.producers.remove(&producer.order);
        }
        effects.closes.push((producer.shard, Close::Producer(id)));
        if producer.ready {
            let Producer { room, shard, peer, kind, source, .. } = producer;
            let event = RoomEvent::ProducerClosed { producer: id, peer, kind, source, reason };
            effects.events.push(Happening { room, shard, event });
        }
        effects
    }

    /// Notes that a producer is paused or not; tells the room when that is new.
    ///
    /// # Errors
    /// [`ControlError::ProducerNotFound`].
    pub fn pause_producer(
        &mut self,
        id: ProducerId,
        paused: bool,
    ) -> Result<Effects, ControlError> {
        let producer = self.producers.get_mut(&id).ok_or(ControlError::ProducerNotFound)?;
        if std::mem::replace(&mut producer.paused, paused) == paused {
            return Ok(Effects::default());
        }
        let event = RoomEvent::ProducerPaused { producer: id, peer: producer.peer.clone(), paused };
        Ok(Effects::event(&producer.room, producer.shard, event))
    }
}
