//! Producers: create, pause, resume, look at, close.

use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::body::{Body, FromFields};
use super::caller::Subject;
use super::error::{ApiError, Failure};
use super::fields::{self, Fields};
use super::path::{Of, Segment};
use super::reply::{Answer, Done, Success, created, ok};
use crate::control::stats::ProducerStats;
use crate::control::{Control, ProducerRequest};
use crate::id::{PeerId, ProducerId, RoomId, TransportId};
use crate::limits::{APP_DATA_BYTES_MAX, KEY_FRAME_REQUEST_DELAY_MAX};
use crate::ortc;
use crate::ortc::types::{MediaKind, RtpParameters};

/// Body of `POST /media/producer`.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct CreateProducer {
    /// Where.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    room_id: RoomId,
    /// Whose.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    peer_id: PeerId,
    /// Where it arrives; the peer's own.
    #[schema(value_type = String, format = "uuid")]
    transport_id: TransportId,
    /// `audio` or `video`.
    #[schema(value_type = String, pattern = "^(audio|video)$")]
    kind: MediaKind,
    /// As `mediasoup-client` gives them.
    #[schema(value_type = Object)]
    rtp_parameters: RtpParameters,
    /// Camera, screen …; one producer per kind and source. By default the kind.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    source: String,
    /// Starts paused.
    #[schema(value_type = Option<bool>)]
    paused: bool,
    /// Milliseconds between two key-frame requests, at least.
    #[schema(value_type = Option<u64>, maximum = 10000)]
    key_frame_request_delay: Duration,
    /// Any object, or list, of at most 4 KiB of JSON, given back in lists and events.
    #[schema(value_type = Option<Object>)]
    app_data: Value,
}

impl FromFields for CreateProducer {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        let (room_id, peer_id) = (fields.room()?, fields.peer()?);
        let transport_id = TransportId::read(&fields.string("transportId")?);
        let kind = match fields.string("kind")?.as_str() {
            "audio" => MediaKind::Audio,
            "video" => MediaKind::Video,
            _ => return Err(ApiError::invalid("kind", "must be audio or video")),
        };
        let rtp_parameters = ortc::parse_rtp_parameters(fields.required("rtpParameters")?)?;
        let source = source(fields, kind)?;
        let paused = fields.optional_bool("paused")?.unwrap_or(false);
        let delay = fields.optional_u64("keyFrameRequestDelay")?.unwrap_or(0);
        let key_frame_request_delay = Duration::from_millis(delay);
        if key_frame_request_delay > KEY_FRAME_REQUEST_DELAY_MAX {
            return Err(ApiError::invalid("keyFrameRequestDelay", "must be at most 10000"));
        }
        let app_data = app_data(fields)?;
        Ok(Self {
            room_id,
            peer_id,
            // An unknown name is told only after everything malformed.
            transport_id: transport_id?,
            kind,
            rtp_parameters,
            source,
            paused,
            key_frame_request_delay,
            app_data,
        })
    }

    fn subject(&self) -> Subject<'_> {
        Subject { room: Some(&self.room_id), peer: Some(&self.peer_id) }
    }
}

fn source(fields: &mut Fields, kind: MediaKind) -> Result<String, ApiError> {
    let Some(source) = fields.optional_string("source")? else {
        return Ok(kind.label().to_owned());
    };
    fields::source(source)
}

fn app_data(fields: &mut Fields) -> Result<Value, ApiError> {
    let app_data =
        fields.optional("appData").unwrap_or_else(|| Value::Object(serde_json::Map::default()));
    // mediasoup-client takes no other of a consumer, and that gets it.
    if !app_data.is_object() && !app_data.is_array() {
        return Err(ApiError::invalid("appData", "must be an object"));
    }
    if app_data.to_string().len() > APP_DATA_BYTES_MAX {
        let must = format!("must be at most {APP_DATA_BYTES_MAX} bytes of JSON");
        return Err(ApiError::invalid("appData", &must));
    }
    Ok(app_data)
}

/// A new producer's name.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProducerReply {
    /// Its name.
    #[schema(value_type = String, format = "uuid")]
    producer_id: ProducerId,
}

/// Sends something new, or returns the producer that is that already.
#[utoipa::path(post, path = "/media/producer",
    operation_id = "createProducer", tag = "calls", request_body = CreateProducer,
    responses((status = 201, body = Success<ProducerReply>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn create(
    State(control): State<Control>,
    Body(body): Body<CreateProducer>,
) -> Answer {
    let request = ProducerRequest {
        room: body.room_id,
        peer: body.peer_id,
        transport: body.transport_id,
        kind: body.kind,
        source: body.source,
        rtp: body.rtp_parameters,
        paused: body.paused,
        key_frame_request_delay: body.key_frame_request_delay,
        app_data: body.app_data,
    };
    created(ProducerReply { producer_id: control.create_producer(request).await? })
}

/// Stops forwarding of a producer to everybody.
#[utoipa::path(post, path = "/media/producer/{producerId}/pause",
    operation_id = "pauseProducer", tag = "calls",
    params(("producerId" = String, Path)), responses(
    (status = 201, body = Success<Done>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn pause(State(control): State<Control>, Of(producer): Of<ProducerId>) -> Answer {
    control.pause_producer(producer, true).await?;
    created(Done::YES)
}

/// Resumes forwarding of a producer.
#[utoipa::path(post, path = "/media/producer/{producerId}/resume",
    operation_id = "resumeProducer", tag = "calls",
    params(("producerId" = String, Path)), responses(
    (status = 201, body = Success<Done>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn resume(State(control): State<Control>, Of(producer): Of<ProducerId>) -> Answer {
    control.pause_producer(producer, false).await?;
    created(Done::YES)
}

/// Tells how a producer's streams arrive.
#[utoipa::path(get, path = "/media/producer/{producerId}/stats",
    operation_id = "producerStats", tag = "statistics",
    params(("producerId" = String, Path)), responses(
    (status = 200, body = Success<ProducerStats>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn stats(State(control): State<Control>, Of(producer): Of<ProducerId>) -> Answer {
    ok(control.producer_stats(producer).await?)
}

/// Closes a producer and with it its consumers.
#[utoipa::path(delete, path = "/media/producer/{producerId}",
    operation_id = "closeProducer", tag = "calls",
    params(("producerId" = String, Path)), responses(
    (status = 200, body = Success<Done>), (status = "4XX", body = Failure)))]
pub(super) async fn delete(State(control): State<Control>, Of(producer): Of<ProducerId>) -> Answer {
    control.close_producer(producer).await?;
    ok(Done::YES)
}
