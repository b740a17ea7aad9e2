//! Rooms: create or get, list, look, leave, end.

use axum::extract::State;
use utoipa::ToSchema;

use super::body::{Body, FromFields};
use super::caller::Subject;
use super::error::{ApiError, Failure};
use super::fields::{self, Fields};
use super::path::{Of, Parameters};
use super::reply::{Answer, Done, Success, created, ok};
use crate::control::stats::RoomStats;
use crate::control::view::{ProducerView, RoomView, RoomsPage};
use crate::control::{Control, RoomReply, StatsCursor};
use crate::id::{PeerId, RoomId};
use crate::limits::{ROOM_STATS_PAGE_MAX, ROOMS_PAGE_MAX};

/// Rooms in a page when the request does not say.
const ROOMS_PAGE_DEFAULT: u64 = 100;

/// Objects in a page of a room's statistics when the request does not say.
const STATS_PAGE_DEFAULT: u64 = 200;

/// Body of `POST /media/room`.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct CreateRoom {
    /// 1–128 printable characters.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    room_id: RoomId,
    /// Who starts the call.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
    initiator_id: Option<PeerId>,
}

impl FromFields for CreateRoom {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        let room_id = fields.room()?;
        let initiator_id = fields
            .optional_string("initiatorId")?
            .map(|text| fields::peer_id("initiatorId", &text))
            .transpose()?;
        Ok(Self { room_id, initiator_id })
    }

    fn subject(&self) -> Subject<'_> {
        Subject { room: Some(&self.room_id), peer: self.initiator_id.as_ref() }
    }
}

/// Creates a room, or gets the one of that name.
#[utoipa::path(post, path = "/media/room",
    operation_id = "createRoom", tag = "calls", request_body = CreateRoom, responses(
    (status = 201, body = Success<RoomReply>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn create(State(control): State<Control>, Body(body): Body<CreateRoom>) -> Answer {
    created(control.create_room(&body.room_id, body.initiator_id)?)
}

/// What is sent in a room.
#[derive(Debug, serde::Serialize, ToSchema)]
pub(super) struct Producers {
    producers: Vec<ProducerView>,
}

/// Lists what is sent in a room; an unknown room has nothing.
#[utoipa::path(get, path = "/media/room/{roomId}/producers",
    operation_id = "listProducers", tag = "calls", params(
    ("roomId" = String, Path), ("excludePeerId" = Option<String>, Query)), responses(
    (status = 200, body = Success<Producers>), (status = 400, body = Failure)))]
pub(super) async fn producers(
    State(control): State<Control>,
    Of(room): Of<RoomId>,
    query: Parameters,
) -> Answer {
    let exclude = query
        .text("excludePeerId")
        .map(|text| fields::peer_id("excludePeerId", text))
        .transpose()?;
    ok(Producers { producers: control.producers_of(&room, exclude.as_ref()) })
}

/// Body of `POST /media/room/{roomId}/leave`.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Leave {
    /// Who leaves.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    peer_id: PeerId,
}

impl FromFields for Leave {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self { peer_id: fields.peer()? })
    }

    fn subject(&self) -> Subject<'_> {
        Subject { room: None, peer: Some(&self.peer_id) }
    }
}

/// Leaves a room with everything; success also when nobody of that name is there.
#[utoipa::path(post, path = "/media/room/{roomId}/leave",
    operation_id = "leaveRoom", tag = "calls", request_body = Leave,
    params(("roomId" = String, Path)), responses(
    (status = 201, body = Success<Done>), (status = "4XX", body = Failure)))]
pub(super) async fn leave(
    State(control): State<Control>,
    Of(room): Of<RoomId>,
    Body(body): Body<Leave>,
) -> Answer {
    control.leave(room, body.peer_id).await?;
    created(Done::saying("peer left the room"))
}

/// Lists rooms by name, page by page.
#[utoipa::path(get, path = "/media/rooms",
    operation_id = "listRooms", tag = "operators", params(
    ("cursor" = Option<String>, Query), ("limit" = Option<u64>, Query)), responses(
    (status = 200, body = Success<RoomsPage>), (status = 400, body = Failure)))]
pub(super) async fn list(State(control): State<Control>, query: Parameters) -> Answer {
    let cursor = query.text("cursor").map(|text| fields::room_id("cursor", text)).transpose()?;
    let limit = query.number("limit")?.unwrap_or(ROOMS_PAGE_DEFAULT);
    let limit = usize::try_from(limit).unwrap_or(ROOMS_PAGE_MAX);
    ok(control.rooms(cursor.as_ref(), limit))
}

/// Everything in one room.
#[utoipa::path(get, path = "/media/room/{roomId}",
    operation_id = "showRoom", tag = "operators",
    params(("roomId" = String, Path)), responses(
    (status = 200, body = Success<RoomView>), (status = "4XX", body = Failure)))]
pub(super) async fn show(State(control): State<Control>, Of(room): Of<RoomId>) -> Answer {
    ok(control.room(&room)?)
}

/// Tells how everything in a room does, page by page: transports, then producers, then consumers.
#[utoipa::path(get, path = "/media/room/{roomId}/stats",
    operation_id = "roomStats", tag = "statistics", params(("roomId" = String, Path),
    ("cursor" = Option<String>, Query), ("limit" = Option<u64>, Query)), responses(
    (status = 200, body = Success<RoomStats>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn stats(
    State(control): State<Control>,
    Of(room): Of<RoomId>,
    query: Parameters,
) -> Answer {
    let cursor = query
        .text("cursor")
        .map(|text| {
            let read = text.parse::<StatsCursor>();
            read.map_err(|error| ApiError::invalid("cursor", &error.to_string()))
        })
        .transpose()?;
    let limit = query.number("limit")?.unwrap_or(STATS_PAGE_DEFAULT);
    let limit = usize::try_from(limit).unwrap_or(ROOM_STATS_PAGE_MAX);
    ok(control.room_stats(&room, cursor, limit).await?)
}

/// Ends a room for everybody.
#[utoipa::path(delete, path = "/media/room/{roomId}",
    operation_id = "deleteRoom", tag = "operators",
    params(("roomId" = String, Path)), responses(
    (status = 200, body = Success<Done>), (status = "4XX", body = Failure)))]
pub(super) async fn delete(State(control): State<Control>, Of(room): Of<RoomId>) -> Answer {
    control.delete_room(room).await?;
    ok(Done::YES)
}
