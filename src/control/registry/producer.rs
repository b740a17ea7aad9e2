//! Producers: one media source of a peer, named by kind and source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::{Close, Effects, Happening, Registry};
use crate::control::ControlError;
use crate::control::command::{CreateProducer, Layers, Mirror};

use crate::control::stats::EncodingScore;
use crate::events::RoomEvent;
use crate::id::{ConsumerId, PeerId, ProducerId, RoomId, ShardId, TransportId};
use crate::limits::Limit;
use crate::ortc::types::{MediaKind, ProducerType, RtpParameters};

/// A producer to reserve.
#[derive(Debug)]
pub struct NewProducer {
    /// As its shard is told.
    pub made_of: Arc<CreateProducer>,
    /// Camera, screen …: the client's word.
    pub source: String,
    /// The client's own data.
    pub app_data: Value,
    /// A producer of the same peer is closed when this one is made, and so does not count.
    pub replaces_one: bool,
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
    /// As its shard was told; whether it is paused may have changed since.
    pub made_of: Arc<CreateProducer>,
    /// Paused.
    pub paused: bool,
    /// The client's own data.
    pub app_data: Value,
    /// The highest layers wanted of each encoding, as they were told; empty until then.
    pub demand: Vec<Option<Layers>>,
    /// Its shard has made it.
    pub ready: bool,
    /// When it was made.
    pub made_at: Option<Instant>,
    /// Its first packet has come.
    pub heard: bool,
    /// SSRC and score of each encoding that has begun, as its shard last told.
    pub(super) scores: Vec<Option<(u32, u8)>>,
    /// Other shards that were told to mirror it, until it closes; true while one could not be told
    /// that it is paused or not, and that is tried again.
    pub(super) mirrors: BTreeMap<ShardId, bool>,
    pub(super) order: u64,
    pub(super) consumers: BTreeSet<ConsumerId>,
}

impl Producer {
    /// The room's view of it.
    #[must_use]
    pub fn consumable(&self) -> &RtpParameters {
        &self.made_of.consumable
    }

    /// How well each of its encodings arrives; 0 for one that has not begun.
    #[must_use]
    pub fn scores(&self) -> Vec<u8> {
        let encodings = 0..self.made_of.rtp.encodings.len();
        let score = |encoding: usize| self.scores.get(encoding).copied().flatten();
        encodings.map(|encoding| score(encoding).map_or(0, |(_, score)| score)).collect()
    }

    /// The same of those that have begun, by name.
    #[must_use]
    pub fn encoding_scores(&self) -> Vec<EncodingScore> {
        let encodings = self.made_of.rtp.encodings.iter().zip(&self.scores).enumerate();
        encodings
            .filter_map(|(encoding_idx, (encoding, score))| {
                let (ssrc, score) = (*score)?;
                Some(EncodingScore { encoding_idx, ssrc, rid: encoding.rid.clone(), score })
            })
            .collect()
    }

    fn score_event(&self, producer: ProducerId) -> RoomEvent {
        RoomEvent::ProducerScore {
            producer,
            peer: self.peer.clone(),
            scores: self.encoding_scores(),
        }
    }

    /// Other shards that were told to mirror it.
    pub fn mirrors(&self) -> impl Iterator<Item = ShardId> {
        self.mirrors.keys().copied()
    }

    /// Notes whether a mirror has still to be told that it is paused or not; what was noted before.
    pub fn note_pause_due(&mut self, shard: ShardId, due: bool) -> bool {
        self.mirrors.get_mut(&shard).is_some_and(|noted| std::mem::replace(noted, due))
    }

    /// What a consumer on `shard` needs besides the producer, which is noted to be mirrored there;
    /// nothing where it lives itself. The mirror stays until the producer closes, also when the
    /// consumer is refused.
    pub fn mirror_on(&mut self, shard: ShardId) -> Option<Mirror> {
        if shard == self.shard {
            return None;
        }
        self.mirrors.entry(shard).or_default();
        let source = Arc::clone(&self.made_of);
        Some(Mirror { origin: self.shard, source, paused: self.paused })
    }

    /// Closes it wherever it is mirrored.
    pub(super) fn mirror_closes(&self, id: ProducerId) -> impl Iterator<Item = (ShardId, Close)> {
        self.mirrors().map(move |shard| (shard, Close::Producer(id)))
    }
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
        let NewProducer { made_of, source, app_data, replaces_one } = new;
        let transport =
            self.transports.get_mut(&made_of.transport).ok_or(ControlError::TransportNotFound)?;
        let room = self.rooms.get_mut(&transport.room).ok_or(ControlError::RoomNotFound)?;
        let peer = room.peers.get_mut(&transport.peer).ok_or(ControlError::PeerNotFound)?;
        let limits = &self.limits;
        let stay = |count: usize| count.saturating_sub(usize::from(replaces_one));
        limits.check(Limit::TransportProducers, transport.producers.len())?;
        limits.check(Limit::PeerProducers, stay(peer.producers))?;
        limits.check(Limit::RoomProducers, stay(room.producers.len()))?;
        limits.check(Limit::Producers, stay(self.producers.len()))?;
        peer.producers += 1;
        let order = room.producers.last_key_value().map_or(0, |(last, _)| last + 1);
        room.producers.insert(order, id);
        transport.producers.insert(id);
        let producer = Producer {
            room: transport.room.clone(),
            peer: transport.peer.clone(),
            shard: transport.shard,
            transport: made_of.transport,
            kind: made_of.kind,
            source,
            producer_type: made_of.producer_type,
            paused: made_of.paused,
            made_of,
            app_data,
            demand: Vec::new(),
            ready: false,
            made_at: None,
            heard: false,
            scores: Vec::new(),
            mirrors: BTreeMap::new(),
            order,
            consumers: BTreeSet::new(),
        };
        *self.alive.producers.of(producer.kind) += 1;
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
        let mut effects = Effects::event(&producer.room, producer.shard, event);
        if producer.scores.iter().any(Option::is_some) {
            // Its first packet was quicker than this.
            let (room, shard) = (producer.room.clone(), producer.shard);
            effects.events.push(Happening { room, shard, event: producer.score_event(id) });
        }
        Ok(effects)
    }

    /// Notes how well a producer's encodings arrive; tells its room.
    pub fn note_producer_scores(
        &mut self,
        id: ProducerId,
        scores: Vec<Option<(u32, u8)>>,
    ) -> Effects {
        let Some(producer) = self.producers.get_mut(&id) else { return Effects::default() };
        producer.scores = scores;
        if !producer.ready {
            return Effects::default();
        }
        Effects::event(&producer.room, producer.shard, producer.score_event(id))
    }

    /// Closes a producer and with it its consumers, and tells all its shards. A reservation is taken
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
        let Some(producer) = self.take_producer(id) else {
            return Effects::default();
        };
        let mut effects = Effects::default();
        for consumer in &producer.consumers {
            self.forget_consumer(*consumer);
        }
        if let Some(room) = self.rooms.get_mut(&producer.room) {
            room.producers.remove(&producer.order);
            if let Some(peer) = room.peers.get_mut(&producer.peer) {
                peer.producers -= 1;
            }
            room.speakers.forget(id);
        }
        effects.closes.push((producer.shard, Close::Producer(id)));
        effects.closes.extend(producer.mirror_closes(id));
        if producer.ready {
            let Producer { room, shard, peer, kind, source, .. } = producer;
            let event = RoomEvent::ProducerClosed { producer: id, peer, kind, source, reason };
            effects.events.push(Happening { room, shard, event });
        }
        effects
    }

    /// A producer to change, made or still being made.
    pub fn producer_mut(&mut self, id: ProducerId) -> Option<&mut Producer> {
        self.producers.get_mut(&id)
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
        if paused && let Some(room) = self.rooms.get_mut(&producer.room) {
            room.speakers.forget(id);
        }
        let event = RoomEvent::ProducerPaused { producer: id, peer: producer.peer.clone(), paused };
        Ok(Effects::event(&producer.room, producer.shard, event))
    }
}
