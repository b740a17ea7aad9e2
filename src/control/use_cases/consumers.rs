//! Making, pausing and closing consumers.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::control::command::{Command, CreateConsumer, Refusal};
use crate::control::dispatcher::Pending;
use crate::control::error::ControlError;
use crate::control::negotiation;
use crate::control::registry::NewConsumer;
use crate::control::service::{Control, State, whole};
use crate::id::{ConsumerId, PeerId, ProducerId, RoomId, TransportId};
use crate::ortc;
use crate::ortc::types::{MediaKind, ProducerType, RtpCapabilities, RtpParameters};

/// The score of a stream without losses; scoring by loss is not done yet, and clients read 10 as
/// "fine".
const SCORE_MAX: u8 = 10;

/// A consumer to make.
#[derive(Debug, Clone)]
pub struct ConsumerRequest {
    /// Where.
    pub room: RoomId,
    /// Whose.
    pub peer: PeerId,
    /// Where it is sent.
    pub transport: TransportId,
    /// What it copies.
    pub producer: ProducerId,
    /// What the client can receive.
    pub capabilities: RtpCapabilities,
    /// Starts paused.
    pub paused: bool,
    /// Highest spatial and temporal layer wanted.
    pub preferred_layers: Option<(u8, Option<u8>)>,
    /// Retransmissions; by default for video only.
    pub enable_rtx: Option<bool>,
    /// Packets of Opus that only say that there is silence (DTX) are left out.
    pub ignore_dtx: bool,
}

/// How well streams arrive, 0–10.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Score {
    /// Of the consumer's stream.
    pub score: u8,
    /// Of the producer's stream that is forwarded.
    pub producer_score: u8,
    /// Of each of the producer's streams.
    pub producer_scores: Vec<u8>,
}

/// Layers of a simulcast or SVC stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Layers {
    /// From 0.
    pub spatial_layer: u8,
    /// From 0.
    pub temporal_layer: u8,
}

/// What a client needs to receive a consumer, and mediasoup's additions.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerReply {
    /// Its name.
    #[schema(value_type = String, format = "uuid")]
    pub id: ConsumerId,
    /// What it copies.
    #[schema(value_type = String, format = "uuid")]
    pub producer_id: ProducerId,
    /// `audio` or `video`.
    #[schema(value_type = String)]
    pub kind: MediaKind,
    /// For the client's `consume()`.
    #[schema(value_type = Object)]
    pub rtp_parameters: RtpParameters,
    /// `simple`, `simulcast` or `svc`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub producer_type: ProducerType,
    /// This consumer is paused.
    pub paused: bool,
    /// Its producer is paused.
    pub producer_paused: bool,
    /// How well its streams arrive.
    pub score: Score,
    /// Only for simulcast and SVC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_layers: Option<Layers>,
    /// The producer's.
    pub app_data: Value,
}

impl Control {
    /// Makes a consumer of a producer in the same room.
    ///
    /// # Errors
    /// Unknown names, [`ControlError::Unsupported`] when the client can decode nothing of it,
    /// [`ControlError::LimitReached`], [`ControlError::Overloaded`].
    pub async fn create_consumer(
        &self,
        request: ConsumerRequest,
    ) -> Result<ConsumerReply, ControlError> {
        let control = self.clone();
        whole(async move { control.create_consumer_whole(request).await }).await
    }

    async fn create_consumer_whole(
        &self,
        request: ConsumerRequest,
    ) -> Result<ConsumerReply, ControlError> {
        let (pending, mut reply) =
            self.inner.state.with(|state| self.plan_consumer(state, &request))?;
        let answer = pending.answer().await;
        self.inner.state.with(|state| {
            if let Err(refusal) = answer {
                state.registry.abandon_consumer(reply.id);
                return Err(refusal.into());
            }
            // When its producer or transport closed in between, the shard closed it with that.
            state.registry.commit_consumer(reply.id)?;
            let producer = state.registry.producer(request.producer)?;
            reply.producer_paused = producer.paused;
            let shard = state.registry.transport(request.transport)?.shard;
            tracing::info!(
                room.id = %request.room, peer.id = %request.peer,
                transport.id = %request.transport, shard.id = %shard,
                consumer.id = %reply.id, producer.id = %reply.producer_id,
                producer.peer.id = %producer.peer, producer.shard.id = %producer.shard,
                kind = reply.kind.label(), "peer consumes"
            );
            Ok(reply)
        })
    }

    fn plan_consumer(
        &self,
        state: &mut State,
        request: &ConsumerRequest,
    ) -> Result<(Pending, ConsumerReply), ControlError> {
        let ConsumerRequest { room, peer, transport: on, producer, capabilities, .. } = request;
        let transport = state.registry.transport_of(room, peer, *on)?;
        let source = state.registry.producer(*producer)?;
        if source.room != *room {
            return Err(ControlError::ProducerNotFound);
        }
        if !ortc::can_consume(source.consumable(), capabilities) {
            let what = "rtpCapabilities cannot decode any codec of this producer".to_owned();
            return Err(ControlError::Unsupported(what));
        }
        let (shard, ssrc) = (transport.shard, negotiation::free_ssrc(transport)?);
        let mut rtp = ortc::consumer_parameters(ortc::ConsumerRequest {
            consumable: source.consumable(),
            remote: capabilities,
            kind: source.kind,
            enable_rtx: request.enable_rtx,
            ssrc,
            mid: None,
            pipe: false,
        })?;
        let id = ConsumerId::random();
        let layers =
            negotiation::preferred_layers(source.producer_type, &rtp, request.preferred_layers);
        let scores = vec![SCORE_MAX; source.consumable().encodings.len()];
        let mut reply = ConsumerReply {
            id,
            producer_id: *producer,
            kind: source.kind,
            rtp_parameters: rtp.clone(),
            producer_type: source.producer_type,
            paused: request.paused,
            producer_paused: source.paused,
            score: Score { score: SCORE_MAX, producer_score: SCORE_MAX, producer_scores: scores },
            preferred_layers: layers
                .map(|(spatial_layer, temporal_layer)| Layers { spatial_layer, temporal_layer }),
            app_data: source.app_data.clone(),
        };
        let new = NewConsumer {
            transport: *on,
            producer: *producer,
            ssrcs: rtp
                .encodings
                .iter()
                .flat_map(|encoding| [encoding.ssrc, encoding.rtx.map(|rtx| rtx.ssrc)])
                .flatten()
                .collect(),
            paused: request.paused,
        };
        state.registry.reserve_consumer(id, new)?;
        rtp.mid =
            state.registry.transport_mut(*on).map(super::super::registry::Transport::take_mid);
        reply.rtp_parameters.mid.clone_from(&rtp.mid);
        let mirror = state.registry.producer_mut(*producer).and_then(|made| made.mirror_on(shard));
        let command = CreateConsumer {
            transport: *on,
            consumer: id,
            producer: *producer,
            mirror,
            rtp,
            paused: request.paused,
            preferred_layers: layers.map(|(spatial, temporal)| (spatial, Some(temporal))),
            ignore_dtx: request.ignore_dtx,
        };
        let pending =
            self.inner.dispatcher.submit(shard, Command::CreateConsumer(Box::new(command)));
        Ok((pending, reply))
    }

    /// Stops or resumes forwarding to one consumer; repeating it changes nothing.
    ///
    /// # Errors
    /// [`ControlError::ConsumerNotFound`], [`ControlError::Overloaded`].
    pub async fn pause_consumer(&self, id: ConsumerId, paused: bool) -> Result<(), ControlError> {
        let control = self.clone();
        whole(async move {
            control.ask_consumer(id, Command::PauseConsumer(id, paused)).await?;
            control.inner.state.with(|state| state.registry.pause_consumer(id, paused))
        })
        .await
    }

    /// Asks for a key frame on behalf of a consumer.
    ///
    /// # Errors
    /// [`ControlError::ConsumerNotFound`], [`ControlError::Overloaded`].
    pub async fn request_key_frame(&self, id: ConsumerId) -> Result<(), ControlError> {
        self.ask_consumer(id, Command::RequestKeyFrame(id)).await
    }

    async fn ask_consumer(&self, id: ConsumerId, command: Command) -> Result<(), ControlError> {
        let pending = self.inner.state.with(|state| {
            let on = state.registry.consumer(id)?.transport;
            let shard = state.registry.transport(on)?.shard;
            Ok::<_, ControlError>(self.inner.dispatcher.submit(shard, command))
        })?;
        pending.answer().await.map(drop).map_err(Refusal::into)
    }

    /// Closes a consumer.
    ///
    /// # Errors
    /// [`ControlError::ConsumerNotFound`].
    pub async fn close_consumer(&self, id: ConsumerId) -> Result<(), ControlError> {
        let control = self.clone();
        whole(async move {
            let closing = control.inner.state.with(|state| {
                state.registry.consumer(id)?;
                let effects = state.registry.close_consumer(id, "closed")?;
                Ok::<_, ControlError>(control.settle(state, effects))
            })?;
            closing.finish().await;
            Ok(())
        })
        .await
    }
}
