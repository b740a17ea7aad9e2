//! Consumers: create, pause, resume, ask for a key frame, choose, look at, close.

use axum::extract::State;
use serde_json::Value;
use utoipa::ToSchema;

use super::body::{Body, FromFields};
use super::caller::Subject;
use super::error::{ApiError, Failure};
use super::fields::Fields;
use super::path::{Of, Segment};
use super::reply::{Answer, Done, Success, created, ok};
use crate::control::stats::ConsumerStats;
use crate::control::{ConsumerReply, ConsumerRequest, Control, LayersReply};
use crate::id::{ConsumerId, PeerId, ProducerId, RoomId, TransportId};
use crate::ortc;
use crate::ortc::types::RtpCapabilities;

/// Body of `POST /media/consumer`.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct CreateConsumer {
    /// Where.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    room_id: RoomId,
    /// Whose.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    peer_id: PeerId,
    /// Where it is sent; the peer's own.
    #[schema(value_type = String, format = "uuid")]
    transport_id: TransportId,
    /// What it copies; of the same room.
    #[schema(value_type = String, format = "uuid")]
    producer_id: ProducerId,
    /// What the client can receive.
    #[schema(value_type = Object)]
    rtp_capabilities: RtpCapabilities,
    /// Starts paused.
    #[schema(value_type = Option<bool>)]
    paused: bool,
    /// `{spatialLayer, temporalLayer?}`: the highest wanted.
    #[schema(value_type = Option<Object>)]
    preferred_layers: Option<(u8, Option<u8>)>,
    /// Retransmissions; by default for video only.
    enable_rtx: Option<bool>,
    /// Leaves out the packets of Opus that only say that there is silence.
    #[schema(value_type = Option<bool>)]
    ignore_dtx: bool,
}

impl FromFields for CreateConsumer {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        let (room_id, peer_id) = (fields.room()?, fields.peer()?);
        let transport_id = TransportId::read(&fields.string("transportId")?);
        let producer_id = ProducerId::read(&fields.string("producerId")?);
        let rtp_capabilities = ortc::parse_rtp_capabilities(fields.required("rtpCapabilities")?)?;
        let paused = fields.optional_bool("paused")?.unwrap_or(false);
        let preferred_layers = fields.optional("preferredLayers").map(layers).transpose()?;
        let enable_rtx = fields.optional_bool("enableRtx")?;
        let ignore_dtx = fields.optional_bool("ignoreDtx")?.unwrap_or(false);
        Ok(Self {
            room_id,
            peer_id,
            // Unknown names are told only after everything malformed.
            transport_id: transport_id?,
            producer_id: producer_id?,
            rtp_capabilities,
            paused,
            preferred_layers,
            enable_rtx,
            ignore_dtx,
        })
    }

    fn subject(&self) -> Subject<'_> {
        Subject { room: Some(&self.room_id), peer: Some(&self.peer_id) }
    }
}

fn layers(value: Value) -> Result<(u8, Option<u8>), ApiError> {
    let Value::Object(map) = value else {
        return Err(ApiError::invalid("preferredLayers", "must be an object"));
    };
    let mut fields = Fields::new(map);
    let mut layer = |name| {
        fields.optional_layer(name).map_err(|error| {
            ApiError::new(error.code, format!("preferredLayers.{}", error.message))
        })
    };
    let spatial =
        layer("spatialLayer")?.ok_or_else(|| ApiError::missing("preferredLayers.spatialLayer"))?;
    Ok((spatial, layer("temporalLayer")?))
}

/// Receives a producer of the same room.
#[utoipa::path(post, path = "/media/consumer",
    operation_id = "createConsumer", tag = "calls", request_body = CreateConsumer,
    responses((status = 201, body = Success<ConsumerReply>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn create(
    State(control): State<Control>,
    Body(body): Body<CreateConsumer>,
) -> Answer {
    let request = ConsumerRequest {
        room: body.room_id,
        peer: body.peer_id,
        transport: body.transport_id,
        producer: body.producer_id,
        capabilities: body.rtp_capabilities,
        paused: body.paused,
        preferred_layers: body.preferred_layers,
        enable_rtx: body.enable_rtx,
        numbers: None,
        ignore_dtx: body.ignore_dtx,
    };
    created(control.create_consumer(request).await?)
}

/// Stops forwarding to one consumer.
#[utoipa::path(post, path = "/media/consumer/{consumerId}/pause",
    operation_id = "pauseConsumer", tag = "calls",
    params(("consumerId" = String, Path)), responses(
    (status = 201, body = Success<Done>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn pause(State(control): State<Control>, Of(consumer): Of<ConsumerId>) -> Answer {
    control.pause_consumer(consumer, true).await?;
    created(Done::YES)
}

/// Resumes forwarding to one consumer; video begins with a key frame.
#[utoipa::path(post, path = "/media/consumer/{consumerId}/resume",
    operation_id = "resumeConsumer", tag = "calls",
    params(("consumerId" = String, Path)), responses(
    (status = 201, body = Success<Done>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn resume(State(control): State<Control>, Of(consumer): Of<ConsumerId>) -> Answer {
    control.pause_consumer(consumer, false).await?;
    created(Done::YES)
}

/// Asks the publisher for a key frame.
#[utoipa::path(post, path = "/media/consumer/{consumerId}/keyframe",
    operation_id = "requestKeyFrame", tag = "calls",
    params(("consumerId" = String, Path)), responses(
    (status = 201, body = Success<Done>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn key_frame(
    State(control): State<Control>,
    Of(consumer): Of<ConsumerId>,
) -> Answer {
    control.request_key_frame(consumer).await?;
    created(Done::YES)
}

/// Body of `PUT /media/consumer/{consumerId}/layers`.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct SetLayers {
    /// The highest spatial layer wanted, from 0.
    spatial_layer: u8,
    /// The highest temporal layer wanted, from 0; by default the highest there is.
    temporal_layer: Option<u8>,
}

impl FromFields for SetLayers {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        let spatial_layer = fields.optional_layer("spatialLayer")?;
        Ok(Self {
            spatial_layer: spatial_layer.ok_or_else(|| ApiError::missing("spatialLayer"))?,
            temporal_layer: fields.optional_layer("temporalLayer")?,
        })
    }

    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }
}

/// Chooses the highest layers that a consumer gets; higher ones than there are count as the highest.
#[utoipa::path(put, path = "/media/consumer/{consumerId}/layers",
    operation_id = "setPreferredLayers", tag = "calls", request_body = SetLayers,
    params(("consumerId" = String, Path)), responses(
    (status = 200, body = Success<LayersReply>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn choose_layers(
    State(control): State<Control>,
    Of(consumer): Of<ConsumerId>,
    Body(body): Body<SetLayers>,
) -> Answer {
    let layers = (body.spatial_layer, body.temporal_layer);
    ok(control.set_preferred_layers(consumer, layers).await?)
}

/// Body of `PUT /media/consumer/{consumerId}/priority`.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct SetPriority {
    /// The higher, the more of a narrow link; 1 until it is set.
    #[schema(minimum = 1, maximum = 255)]
    priority: u8,
}

impl FromFields for SetPriority {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        let given = fields.required("priority")?.as_u64().and_then(|n| u8::try_from(n).ok());
        let priority = given
            .filter(|priority| *priority > 0)
            .ok_or_else(|| ApiError::invalid("priority", "must be an integer from 1 to 255"))?;
        Ok(Self { priority })
    }

    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }
}

/// Says how much a consumer counts among those of its transport when not all fits.
#[utoipa::path(put, path = "/media/consumer/{consumerId}/priority",
    operation_id = "setPriority", tag = "calls", request_body = SetPriority,
    params(("consumerId" = String, Path)), responses(
    (status = 200, body = Success<Done>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn set_priority(
    State(control): State<Control>,
    Of(consumer): Of<ConsumerId>,
    Body(body): Body<SetPriority>,
) -> Answer {
    control.set_priority(consumer, body.priority).await?;
    ok(Done::YES)
}

/// Tells how a consumer's stream is sent, and how what it is fed with arrives.
#[utoipa::path(get, path = "/media/consumer/{consumerId}/stats",
    operation_id = "consumerStats", tag = "statistics",
    params(("consumerId" = String, Path)), responses(
    (status = 200, body = Success<ConsumerStats>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn stats(State(control): State<Control>, Of(consumer): Of<ConsumerId>) -> Answer {
    ok(control.consumer_stats(consumer).await?)
}

/// Closes a consumer.
#[utoipa::path(delete, path = "/media/consumer/{consumerId}",
    operation_id = "closeConsumer", tag = "calls",
    params(("consumerId" = String, Path)), responses(
    (status = 200, body = Success<Done>), (status = "4XX", body = Failure)))]
pub(super) async fn delete(State(control): State<Control>, Of(consumer): Of<ConsumerId>) -> Answer {
    control.close_consumer(consumer).await?;
    ok(Done::YES)
}
