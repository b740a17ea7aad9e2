//! Consumers: one copy of a producer's media on one transport.

use super::{Close, Effects, Happening, Registry};
use crate::control::ControlError;
use crate::events::RoomEvent;
use crate::id::{ConsumerId, ProducerId, TransportId};
use crate::limits::CONSUMERS_PER_TRANSPORT_MAX;

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
}

/// One copy of a producer's media.
#[derive(Debug)]
pub struct Consumer {
    /// Where it is sent.
    pub transport: TransportId,
    /// What it copies.
    pub producer: ProducerId,
    /// SSRCs it is sent with.
    pub ssrcs: Vec<u32>,
    /// Paused.
    pub paused: bool,
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
        if transport.consumers.len() >= CONSUMERS_PER_TRANSPORT_MAX {
            return Err(ControlError::LimitReached("consumers of a transport"));
        }
        transport.consumers.insert(id);
        transport.ssrcs.extend(&new.ssrcs);
        producer.consumers.insert(id);
        let NewConsumer { transport, producer, ssrcs, paused } = new;
        self.consumers.insert(id, Consumer { transport, producer, ssrcs, paused, ready: false });
        Ok(())
    }

    /// The shard has made it.
    ///
    /// # Errors
    /// [`ControlError::ProducerNotFound`] when its producer or transport closed in between.
    pub fn commit_consumer(&mut self, id: ConsumerId) -> Result<(), ControlError> {
        let consumer = self.consumers.get_mut(&id).ok_or(ControlError::ProducerNotFound)?;
        consumer.ready = true;
        Ok(())
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

    /// Takes a consumer out of every place that names it.
    pub(super) fn forget_consumer(&mut self, id: ConsumerId) -> Option<Consumer> {
        let consumer = self.consumers.remove(&id)?;
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
