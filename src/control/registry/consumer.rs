//! Consumers: one copy of a producer's media on one transport.

use super::{Close, Effects, Happening, Producer, Registry};
use crate::control::ControlError;
use crate::control::command::Layers;
use crate::control::stats::Score;
use crate::events::RoomEvent;
use crate::id::{ConsumerId, PeerId, ProducerId, RoomId, TransportId};
use crate::limits::Limit;
use crate::ortc::types::MediaKind;

/// A consumer to reserve.
#[derive(Debug)]
pub struct NewConsumer {
    /// Where it is sent.
    pub transport: TransportId,
    /// What it copies.
    pub producer: ProducerId,
    /// SSRCs it is sent with.
    pub ssrcs: Vec<u32>,
    /// Starts paused.
    pub paused: bool,
    /// Of its first codec.
    pub mime_type: String,
    /// Its highest layers; `None` where there is but one.
    pub highest: Option<Layers>,
}

/// The score of a consumer of which nothing was reported yet (mediasoup's).
const SCORE_FIRST: u8 = 10;

/// One copy of a producer's media.
#[derive(Debug)]
pub struct Consumer {
    /// Whose room.
    pub(super) room: RoomId,
    /// Whose.
    pub(super) peer: PeerId,
    /// Where it is sent.
    pub transport: TransportId,
    /// What it copies.
    pub producer: ProducerId,
    /// Audio or video.
    pub kind: MediaKind,
    /// SSRCs it is sent with.
    pub ssrcs: Vec<u32>,
    /// Paused.
    pub paused: bool,
    /// Of its first codec.
    pub mime_type: String,
    /// Its highest layers; `None` where there is but one.
    pub highest: Option<Layers>,
    /// What it is sent, as its shard last told.
    pub layers: Option<Layers>,
    /// How well that arrives, as its shard last told.
    pub score: u8,
    /// Its shard has made it.
    pub ready: bool,
}

impl Registry {
    /// Reserves a consumer's place and its SSRCs.
    ///
    /// # Errors
    /// [`ControlError::TransportNotFound`], [`ControlError::ProducerNotFound`],
    /// [`ControlError::LimitReached`].
    pub fn reserve_consumer(
        &mut self,
        id: ConsumerId,
        new: NewConsumer,
    ) -> Result<(), ControlError> {
        let transport =
            self.transports.get_mut(&new.transport).ok_or(ControlError::TransportNotFound)?;
        let producer =
            self.producers.get_mut(&new.producer).ok_or(ControlError::ProducerNotFound)?;
        let room = self.rooms.get_mut(&transport.room).ok_or(ControlError::RoomNotFound)?;
        let peer = room.peers.get_mut(&transport.peer).ok_or(ControlError::PeerNotFound)?;
        let limits = &self.limits;
        limits.check(Limit::TransportConsumers, transport.consumers.len())?;
        limits.check(Limit::PeerConsumers, peer.consumers)?;
        limits.check(Limit::RoomConsumers, room.consumers)?;
        limits.check(Limit::Consumers, self.consumers.len())?;
        peer.consumers += 1;
        room.consumers += 1;
        transport.consumers.insert(id);
        transport.ssrcs.extend(&new.ssrcs);
        let (room, peer) = (transport.room.clone(), transport.peer.clone());
        producer.consumers.insert(id);
        let kind = producer.kind;
        let NewConsumer { transport, producer, ssrcs, paused, mime_type, highest } = new;
        let consumer = Consumer {
            room,
            peer,
            transport,
            producer,
            kind,
            ssrcs,
            paused,
            mime_type,
            highest,
            layers: None,
            score: SCORE_FIRST,
            ready: false,
        };
        *self.alive.consumers.of(kind) += 1;
        self.consumers.insert(id, consumer);
        Ok(())
    }

    /// The shard has made it. What it is sent already is told, as nobody was told before; its score
    /// is the caller's to tell.
    ///
    /// # Errors
    /// [`ControlError::ProducerNotFound`] when its producer or transport closed in between.
    pub fn commit_consumer(&mut self, id: ConsumerId) -> Result<Effects, ControlError> {
        let consumer = self.consumers.get_mut(&id).ok_or(ControlError::ProducerNotFound)?;
        consumer.ready = true;
        let layers = consumer.layers;
        Ok(layers.map(|layers| self.tell_layers(id, Some(layers))).unwrap_or_default())
    }

    /// Takes back a reservation that its shard refused.
    pub fn abandon_consumer(&mut self, id: ConsumerId) {
        self.forget_consumer(id);
    }

    /// Closes a consumer and tells its shard.
    ///
    /// # Errors
    /// [`ControlError::ConsumerNotFound`].
    pub fn close_consumer(
        &mut self,
        id: ConsumerId,
        reason: &'static str,
    ) -> Result<Effects, ControlError> {
        let consumer = self.forget_consumer(id).ok_or(ControlError::ConsumerNotFound)?;
        let mut effects = Effects::default();
        if let Some(transport) = self.transports.get(&consumer.transport) {
            effects.closes.push((transport.shard, Close::Consumer(id)));
            let event = RoomEvent::ConsumerClosed {
                consumer: id,
                producer: consumer.producer,
                peer: transport.peer.clone(),
                reason,
            };
            effects.events.push(Happening {
                room: transport.room.clone(),
                shard: transport.shard,
                event,
            });
        }
        Ok(effects)
    }

    /// Notes that a consumer is paused or not.
    ///
    /// # Errors
    /// [`ControlError::ConsumerNotFound`].
    pub fn pause_consumer(&mut self, id: ConsumerId, paused: bool) -> Result<(), ControlError> {
        let consumer = self.consumers.get_mut(&id).ok_or(ControlError::ConsumerNotFound)?;
        consumer.paused = paused;
        Ok(())
    }

    /// How well a consumer's streams arrive.
    ///
    /// # Errors
    /// [`ControlError::ConsumerNotFound`].
    pub fn score_of(&self, id: ConsumerId) -> Result<Score, ControlError> {
        let consumer = self.consumers.get(&id).ok_or(ControlError::ConsumerNotFound)?;
        let producer = self.producers.get(&consumer.producer);
        let producer_scores = producer.map(Producer::scores).unwrap_or_default();
        let fed = consumer.layers.filter(|_| producer_scores.len() > 1);
        let producer_score = match fed {
            Some(layers) => producer_scores.get(usize::from(layers.spatial)).copied(),
            None => producer_scores.iter().copied().max(),
        };
        let producer_score = producer_score.unwrap_or_default();
        Ok(Score { score: consumer.score, producer_score, producer_scores })
    }

    /// Notes how well a consumer's stream arrives; tells its room.
    pub fn note_consumer_score(&mut self, id: ConsumerId, score: u8) -> Effects {
        let Some(consumer) = self.consumers.get_mut(&id) else { return Effects::default() };
        consumer.score = score;
        let Ok(score) = self.score_of(id) else { return Effects::default() };
        self.tell_of_consumer(id, |consumer, producer, peer| RoomEvent::ConsumerScore {
            consumer,
            producer,
            peer,
            score,
        })
    }

    /// Notes what a consumer is sent; tells its room.
    pub fn note_consumer_layers(&mut self, id: ConsumerId, layers: Option<Layers>) -> Effects {
        let Some(consumer) = self.consumers.get_mut(&id) else { return Effects::default() };
        consumer.layers = layers;
        self.tell_layers(id, layers)
    }

    fn tell_layers(&self, id: ConsumerId, layers: Option<Layers>) -> Effects {
        self.tell_of_consumer(id, |consumer, producer, peer| RoomEvent::ConsumerLayers {
            consumer,
            producer,
            peer,
            layers,
        })
    }

    /// Tells the room of a consumer that its client knows.
    fn tell_of_consumer(
        &self,
        id: ConsumerId,
        event: impl FnOnce(ConsumerId, ProducerId, PeerId) -> RoomEvent,
    ) -> Effects {
        let ready = self.consumers.get(&id).filter(|consumer| consumer.ready);
        let found = ready.and_then(|c| Some((c.producer, self.transports.get(&c.transport)?)));
        let Some((producer, on)) = found else { return Effects::default() };
        Effects::event(&on.room, on.shard, event(id, producer, on.peer.clone()))
    }

    /// Takes a consumer out of every place that names it.
    pub(super) fn forget_consumer(&mut self, id: ConsumerId) -> Option<Consumer> {
        let consumer = self.take_consumer(id)?;
        if let Some(room) = self.rooms.get_mut(&consumer.room) {
            room.consumers -= 1;
            if let Some(peer) = room.peers.get_mut(&consumer.peer) {
                peer.consumers -= 1;
            }
        }
        if let Some(transport) = self.transports.get_mut(&consumer.transport) {
            transport.consumers.remove(&id);
            for ssrc in &consumer.ssrcs {
                transport.ssrcs.remove(ssrc);
            }
        }
        if let Some(producer) = self.producers.get_mut(&consumer.producer) {
            producer.consumers.remove(&id);
        }
        Some(consumer)
    }
}
