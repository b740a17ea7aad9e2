//! Making, pausing and closing consumers.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::control::command::{Command, CreateConsumer, Layers, Refusal, Reply};
use crate::control::dispatcher::Pending;
use crate::control::error::ControlError;
use crate::control::negotiation;
use crate::control::registry::{Close, NewConsumer, Transport};
use crate::control::service::{Control, State, whole};
use crate::control::stats::Score;
use crate::id::{ConsumerId, PeerId, ProducerId, RoomId, ShardId, TransportId};
use crate::ortc::types::{MediaKind, ProducerType, RtpCapabilities, RtpParameters};
use crate::ortc::{self, ClientNumbers};

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
    /// The client has numbered everything itself, in an SDP offer; otherwise the room numbers.
    pub numbers: Option<ClientNumbers>,
    /// Packets of Opus that only say that there is silence (DTX) are left out.
    pub ignore_dtx: bool,
}

/// The layers that a consumer wants at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayersReply {
    /// What was asked for, or the highest there is where that was higher; absent where there is one
    /// layer only, of which nothing can be left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_layers: Option<Layers>,
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
        let (shard, pending, mut reply) =
            self.inner.state.with(|state| self.plan_consumer(state, &request))?;
        let answer = pending.answer().await;
        self.inner.state.with(|state| {
            if let Err(refusal) = answer {
                state.registry.abandon_consumer(reply.id);
                return Err(self.give_up(state, refusal, (shard, Close::Consumer(reply.id))));
            }
            // When its producer or transport closed in between, the shard closed it with that.
            let told = state.registry.commit_consumer(reply.id)?;
            self.settle(state, told).finish_later();
            let producer = state.registry.producer(request.producer)?;
            reply.producer_paused = producer.paused;
            reply.score = state.registry.score_of(reply.id)?;
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
    ) -> Result<(ShardId, Pending, ConsumerReply), ControlError> {
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
        let mut reply = ConsumerReply {
            id,
            producer_id: *producer,
            kind: source.kind,
            rtp_parameters: rtp.clone(),
            producer_type: source.producer_type,
            paused: request.paused,
            producer_paused: source.paused,
            score: Score::default(),
            preferred_layers: layers,
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
            mime_type: rtp.codecs.first().map(|c| c.mime_type.clone()).unwrap_or_default(),
            highest: negotiation::highest_layers(source.producer_type, &rtp),
        };
        state.registry.reserve_consumer(id, new)?;
        let mut renumbered = Vec::new();
        match &request.numbers {
            Some(numbers) => renumbered = ortc::renumber(&mut rtp, capabilities, numbers),
            None => rtp.mid = state.registry.transport_mut(*on).map(Transport::take_mid),
        }
        reply.rtp_parameters = rtp.clone();
        let mirror = state.registry.producer_mut(*producer).and_then(|made| made.mirror_on(shard));
        let command = CreateConsumer {
            transport: *on,
            consumer: id,
            producer: *producer,
            mirror,
            rtp,
            renumbered,
            paused: request.paused,
            preferred_layers: layers.map(|layers| (layers.spatial, Some(layers.temporal))),
            ignore_dtx: request.ignore_dtx,
        };
        let pending =
            self.inner.dispatcher.submit(shard, Command::CreateConsumer(Box::new(command)));
        Ok((shard, pending, reply))
    }

    /// Stops or resumes forwarding to one consumer; repeating it changes nothing. What the shard was
    /// told holds from then on, as for [`pause_producer`](Self::pause_producer).
    ///
    /// # Errors
    /// [`ControlError::ConsumerNotFound`], [`ControlError::Overloaded`].
    pub async fn pause_consumer(&self, id: ConsumerId, paused: bool) -> Result<(), ControlError> {
        let control = self.clone();
        whole(async move {
            let pending = control.inner.state.with(|state| {
                let on = state.registry.consumer(id)?.transport;
                let shard = state.registry.transport(on)?.shard;
                let command = Command::PauseConsumer(id, paused);
                let pending = control.inner.dispatcher.submit(shard, command);
                if pending.is_on_its_way() {
                    state.registry.pause_consumer(id, paused)?;
                }
                Ok::<_, ControlError>(pending)
            })?;
            pending.answer().await.map(drop).map_err(Refusal::into)
        })
        .await
    }

    /// Asks for a key frame on behalf of a consumer.
    ///
    /// # Errors
    /// [`ControlError::ConsumerNotFound`], [`ControlError::Overloaded`].
    pub async fn request_key_frame(&self, id: ConsumerId) -> Result<(), ControlError> {
        self.ask_consumer(id, Command::RequestKeyFrame(id)).await.map(drop)
    }

    /// The highest layers that a consumer wants from now on: a temporal one that is not given is the
    /// highest, as is what is beyond it.
    ///
    /// # Errors
    /// [`ControlError::ConsumerNotFound`], [`ControlError::Overloaded`].
    pub async fn set_preferred_layers(
        &self,
        id: ConsumerId,
        (spatial, temporal): (u8, Option<u8>),
    ) -> Result<LayersReply, ControlError> {
        let highest = self.inner.state.with(|state| {
            let consumer = state.registry.consumer(id)?;
            Ok::<_, ControlError>(consumer.highest)
        })?;
        let Some(highest) = highest else { return Ok(LayersReply { preferred_layers: None }) };
        let layers = negotiation::clamped(highest, Some((spatial, temporal)));
        self.ask_consumer(id, Command::SetPreferredLayers(id, layers)).await?;
        Ok(LayersReply { preferred_layers: Some(layers) })
    }

    /// How much a consumer counts among those of its transport from now on, 1–255.
    ///
    /// # Errors
    /// [`ControlError::ConsumerNotFound`], [`ControlError::Overloaded`].
    pub async fn set_priority(&self, id: ConsumerId, priority: u8) -> Result<(), ControlError> {
        self.ask_consumer(id, Command::SetPriority(id, priority)).await.map(drop)
    }

    /// Asks the shard of a consumer.
    pub(super) async fn ask_consumer(
        &self,
        id: ConsumerId,
        command: Command,
    ) -> Result<Reply, ControlError> {
        let pending = self.inner.state.with(|state| {
            let on = state.registry.consumer(id)?.transport;
            let shard = state.registry.transport(on)?.shard;
            Ok::<_, ControlError>(self.inner.dispatcher.submit(shard, command))
        })?;
        pending.answer().await.map_err(Refusal::into)
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
