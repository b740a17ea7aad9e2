//! A room's log as server-sent events.
//!
//! One stream per reader, polled by the HTTP server on the readers' thread. The event's id is the
//! entry's, so that a browser's `EventSource` reconnects where it was. Invariant: all readers are
//! given the same bytes, so one that never reads costs its place in the log's queues, and what the
//! HTTP server holds for it are references.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::log::{Entry, Subscription};
use crate::limits::EVENT_KEEP_ALIVE;

/// A comment: something to read for proxies that cut idle streams.
const ALIVE: Bytes = Bytes::from_static(b": alive\n\n");

/// The answer that a subscription streams; `first` is what the reader gets before what happens
/// from now on.
pub fn response(subscription: Subscription, first: Vec<Arc<Entry>>) -> Response {
    let head = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // nginx, and what is built on it, else keeps events back until they fill a buffer.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let first = stream::iter(first).map(|entry| entry.sse());
    let events = first.chain(live(subscription)).map(Ok::<_, Infallible>);
    (head, Body::from_stream(events)).into_response()
}

/// What happens, with a comment whenever nothing does; ends with the subscription.
fn live(subscription: Subscription) -> impl Stream<Item = Bytes> + Send + use<> {
    // The reader's place is held by its stream.
    stream::unfold(subscription, |mut subscription| async {
        let next = tokio::time::timeout(EVENT_KEEP_ALIVE, subscription.live.recv()).await;
        match next {
            Ok(Some(entry)) => Some((entry.sse(), subscription)),
            Ok(None) => None,
            Err(_) => Some((ALIVE, subscription)),
        }
    })
}
