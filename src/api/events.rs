//! A room's log over HTTP.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, Failure};
use super::path::{Of, Parameters};
use crate::control::Control;
use crate::events::sse;
use crate::id::RoomId;

/// Follows a room's events (SSE): after `Last-Event-ID` or `after`, else from a snapshot on.
#[utoipa::path(get, path = "/media/room/{roomId}/events",
    operation_id = "followRoom", tag = "events", params(
    ("roomId" = String, Path), ("after" = Option<u64>, Query)), responses(
    (status = 200, content_type = "text/event-stream", body = String),
    (status = "4XX", body = Failure), (status = 503, body = Failure)))]
pub(super) async fn follow(
    State(control): State<Control>,
    Of(room): Of<RoomId>,
    headers: HeaderMap,
    query: Parameters,
) -> Result<Response, ApiError> {
    // A browser that reconnects keeps the URL, so the header is the newer position.
    let after = match headers.get("last-event-id").filter(|value| !value.is_empty()) {
        Some(value) => {
            let seq = value.to_str().ok().and_then(|text| text.parse().ok());
            Some(seq.ok_or_else(|| ApiError::invalid("Last-Event-ID", "must be a number"))?)
        }
        None => query.number("after")?,
    };
    let (subscription, snapshot) = control.follow(&room, after)?;
    Ok(sse::stream(subscription, &snapshot).into_response())
}
