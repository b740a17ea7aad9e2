//! A room's log over HTTP.

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::HeaderMap;
use axum::response::Response;

use super::caller::Caller;
use super::error::{ApiError, Failure};
use super::path::{Of, Parameters};
use crate::control::Control;
use crate::events::{NoPosition, Position, sse, ws};
use crate::id::RoomId;
use crate::limits::EVENT_READER_SAYS_MAX;

/// Follows a room's events (SSE): after `Last-Event-ID` or `after`, else from a snapshot on. Each
/// has the entry's `id` and its type as `event`; its `data` is a `RoomEntry`.
#[utoipa::path(get, path = "/media/room/{roomId}/events",
    operation_id = "followRoom", tag = "events", params(
    ("roomId" = String, Path), ("after" = Option<String>, Query)), responses(
    (status = 200, content_type = "text/event-stream", body = String),
    (status = "4XX", body = Failure), (status = 503, body = Failure)))]
pub(super) async fn follow(
    State(control): State<Control>,
    caller: Caller,
    Of(room): Of<RoomId>,
    headers: HeaderMap,
    query: Parameters,
) -> Result<Response, ApiError> {
    // A browser that reconnects keeps the URL, so the header is the newer position.
    let after = match headers.get("last-event-id").filter(|value| !value.is_empty()) {
        Some(value) => {
            let told = value.to_str().map_err(|_| NoPosition).and_then(str::parse);
            Some(told.map_err(|wrong| ApiError::invalid("Last-Event-ID", &wrong.to_string()))?)
        }
        None => after(&query)?,
    };
    let (subscription, first) = control.follow(&room, after, caller.peer())?;
    Ok(sse::response(subscription, first))
}

/// Follows a room's events (WebSocket, one text message each, a `RoomEntry`): after `after`, else
/// from a snapshot on.
#[utoipa::path(get, path = "/media/room/{roomId}/ws",
    operation_id = "followRoomOverWebSocket", tag = "events", params(
    ("roomId" = String, Path), ("after" = Option<String>, Query)), responses(
    (status = 101, description = "The events follow."),
    (status = "4XX", body = Failure), (status = 503, body = Failure)))]
pub(super) async fn follow_over_web_socket(
    State(control): State<Control>,
    caller: Caller,
    Of(room): Of<RoomId>,
    query: Parameters,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let after = after(&query)?;
    let upgrade = upgrade
        .map_err(|_| ApiError::invalid("Upgrade", "must be a WebSocket handshake (RFC 6455)"))?;
    let (subscription, first) = control.follow(&room, after, caller.peer())?;
    // The defaults keep 256 KiB for each reader.
    let upgrade = upgrade
        .max_message_size(EVENT_READER_SAYS_MAX)
        .max_frame_size(EVENT_READER_SAYS_MAX)
        .read_buffer_size(EVENT_READER_SAYS_MAX)
        .write_buffer_size(0);
    let runtime = control.readers_runtime();
    Ok(upgrade.on_upgrade(|socket| async move {
        // It ends by itself.
        drop(runtime.spawn(ws::serve(socket, subscription, first)));
    }))
}

fn after(query: &Parameters) -> Result<Option<Position>, ApiError> {
    let after = query.text("after").map(str::parse).transpose();
    after.map_err(|wrong: NoPosition| ApiError::invalid("after", &wrong.to_string()))
}
