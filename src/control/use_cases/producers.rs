//! Making, pausing and closing producers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::control::command::{Command, CreateProducer, Refusal};
use crate::control::dispatcher::Pending;
use crate::control::error::ControlError;
use crate::control::negotiation;
use crate::control::registry::{Close, Effects, NewProducer};
use crate::control::service::{Control, Inner, State, now, whole};
use crate::id::{PeerId, ProducerId, RoomId, ShardId, TransportId};
use crate::limits::CLOSE_RETRY_DELAY;
use crate::ortc::types::{MediaKind, RtpParameters};

/// A producer to make.
#[derive(Debug, Clone)]
pub struct ProducerRequest {
    /// Where.
    pub room: RoomId,
    /// Whose.
    pub peer: PeerId,
    /// Where it arrives.
    pub transport: TransportId,
    /// Audio or video.
    pub kind: MediaKind,
    /// Camera, screen …; one producer per kind and source.
    pub source: String,
    /// As the client sends.
    pub rtp: RtpParameters,
    /// Starts paused.
    pub paused: bool,
    /// Least time between two key-frame requests.
    pub key_frame_request_delay: Duration,
    /// The client's own data.
    pub app_data: Value,
}

/// What a request to produce leads to.
enum Plan {
    /// The peer sends it already, on the same transport.
    Existing(ProducerId),
    /// Its shard is making it; `replaced` closes when that is done.
    New { id: ProducerId, shard: ShardId, pending: Pending, replaced: Option<ProducerId> },
}

impl Control {
    /// Makes a producer, or returns the one that the peer already sends on that transport with the
    /// same kind and source. One on another transport of the peer is replaced.
    ///
    /// # Errors
    /// Unknown names, [`ControlError::Invalid`] and [`ControlError::Unsupported`] parameters,
    /// [`ControlError::AlreadyExists`], [`ControlError::LimitReached`],
    /// [`ControlError::Overloaded`].
    pub async fn create_producer(
        &self,
        request: ProducerRequest,
    ) -> Result<ProducerId, ControlError> {
        let control = self.clone();
        whole(async move { control.create_producer_whole(request).await }).await
    }

    async fn create_producer_whole(
        &self,
        request: ProducerRequest,
    ) -> Result<ProducerId, ControlError> {
        let turn = self.inner.state.with(|state| {
            let (room, peer) = (&request.room, &request.peer);
            state.registry.transport_of(room, peer, request.transport)?;
            let member = state.registry.room(room)?.peers.get(peer);
            Ok::<_, ControlError>(Arc::clone(
                &member.ok_or(ControlError::PeerNotFound)?.produce_turn,
            ))
        })?;
        let _turn = turn.lock_owned().await;
        match self.inner.state.with(|state| self.plan_producer(state, request))? {
            Plan::Existing(id) => Ok(id),
            Plan::New { id, shard, pending, replaced } => {
                let answer = pending.answer().await;
                let closing = self.inner.state.with(|state| {
                    if let Err(refusal) = answer {
                        // A shard that refused has nothing to close.
                        let _taken_back = state.registry.close_producer(id, "refused");
                        return Err(self.give_up(state, refusal, (shard, Close::Producer(id))));
                    }
                    // When its transport closed in between, the shard was told with it.
                    let added = state.registry.commit_producer(id)?;
                    if let Some(producer) = state.registry.producer_mut(id) {
                        producer.made_at = Some(now());
                    }
                    let mut effects = Effects::default();
                    if let Some(old) = replaced {
                        let closed = state.registry.close_producer(old, "replaced");
                        effects.append(closed.unwrap_or_default());
                    }
                    effects.append(added);
                    Ok(self.settle(state, effects))
                })?;
                closing.finish().await;
                Ok(id)
            }
        }
    }

    fn plan_producer(
        &self,
        state: &mut State,
        request: ProducerRequest,
    ) -> Result<Plan, ControlError> {
        let ProducerRequest { room, peer, transport: on, kind, source, rtp, paused, .. } = request;
        let transport = state.registry.transport_of(&room, &peer, on)?;
        let existing = state.registry.producer_like(&room, &peer, kind, &source);
        if let Some((id, _)) = existing.filter(|(_, arrives)| *arrives == on) {
            return Ok(Plan::Existing(id));
        }
        let produced = negotiation::produce(kind, rtp, &self.inner.capabilities, transport)?;
        let shard = transport.shard;
        let id = ProducerId::random();
        let create = CreateProducer {
            transport: on,
            producer: id,
            kind,
            producer_type: produced.producer_type,
            rtp: produced.rtp,
            mapping: produced.mapping,
            consumable: produced.consumable,
            paused,
            key_frame_request_delay: request.key_frame_request_delay,
        };
        // Kept for the shards that will mirror it.
        let made_of = Arc::new(create.clone());
        let (app_data, replaces_one) = (request.app_data, existing.is_some());
        let new = NewProducer { made_of, source, app_data, replaces_one };
        state.registry.reserve_producer(id, new)?;
        if let Some(transport) = state.registry.transport_mut(on) {
            transport.cname = Some(produced.cname);
        }
        let pending =
            self.inner.dispatcher.submit(shard, Command::CreateProducer(Box::new(create)));
        Ok(Plan::New { id, shard, pending, replaced: existing.map(|(old, _)| old) })
    }

    /// Stops or resumes forwarding of a producer to everybody; repeating it changes nothing. What
    /// its shard was told holds from then on, even if the answer is late: a shard carries out all
    /// that is in its lane, in order, so that the last word here is the last one there.
    ///
    /// # Errors
    /// [`ControlError::ProducerNotFound`], [`ControlError::Overloaded`].
    pub async fn pause_producer(&self, id: ProducerId, paused: bool) -> Result<(), ControlError> {
        let control = self.clone();
        whole(async move {
            let (pending, mirrors) = control.inner.state.with(|state| {
                let shard = state.registry.producer(id)?.shard;
                let command = Command::PauseProducer(id, paused);
                let pending = control.inner.dispatcher.submit(shard, command);
                let mut mirrors = Vec::new();
                if pending.is_on_its_way() {
                    let effects = state.registry.pause_producer(id, paused)?;
                    control.settle(state, effects).finish_later();
                    mirrors.extend(state.registry.producer(id)?.mirrors());
                }
                Ok::<_, ControlError>((pending, mirrors))
            })?;
            for shard in mirrors {
                let telling = Arc::clone(&control.inner);
                tokio::spawn(async move { pause_mirror(&telling, shard, id).await });
            }
            pending.answer().await.map(drop).map_err(ControlError::from)
        })
        .await
    }

    /// Closes a producer and with it its consumers.
    ///
    /// # Errors
    /// [`ControlError::ProducerNotFound`].
    pub async fn close_producer(&self, id: ProducerId) -> Result<(), ControlError> {
        let control = self.clone();
        whole(async move {
            let closing = control.inner.state.with(|state| {
                state.registry.producer(id)?;
                let effects = state.registry.close_producer(id, "closed")?;
                Ok::<_, ControlError>(control.settle(state, effects))
            })?;
            closing.finish().await;
            Ok(())
        })
        .await
    }
}

/// Tells a shard with a mirror whether the producer is paused, as it is when the lane takes it:
/// whatever was tried before, what is told last is true. A mirror made later is made so. However
/// often that changes, one task per mirror waits for a lane with room.
async fn pause_mirror(inner: &Inner, shard: ShardId, id: ProducerId) {
    let mut waited = false;
    loop {
        let told = inner.state.with(|state| {
            let producer = state.registry.producer_mut(id)?;
            if producer.note_pause_due(shard, false) && !waited {
                // Another task waits, and will tell.
                producer.note_pause_due(shard, true);
                return None;
            }
            let command = Command::PauseProducer(id, producer.paused);
            Some(inner.dispatcher.submit(shard, command))
        });
        // Closed in between: the mirror closes too.
        let Some(told) = told else { return };
        if !matches!(told.answer().await, Err(Refusal::Overloaded)) {
            return;
        }
        let others_wait = inner.state.with(|state| {
            let producer = state.registry.producer_mut(id)?;
            Some(producer.note_pause_due(shard, true))
        });
        if others_wait != Some(false) || inner.dispatcher.is_closed() {
            return;
        }
        tokio::time::sleep(CLOSE_RETRY_DELAY).await;
        waited = true;
    }
}
