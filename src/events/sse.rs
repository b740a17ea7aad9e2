//! A room's log as server-sent events.
//!
//! One stream per reader, polled by the HTTP server on the control thread. The event's id is the
//! entry's number, so that a browser's `EventSource` reconnects where it was.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};
use serde_json::Value;
use tokio_stream::wrappers::ReceiverStream;

use super::log::{Entry, Start, Subscription};
use crate::limits::EVENT_KEEP_ALIVE;

/// The stream of a subscription; `snapshot` is the room's state at the time of subscribing, told
/// first where the subscription starts with it.
pub fn stream(
    subscription: Subscription,
    snapshot: &Value,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<>> {
    let Subscription { start, live, place } = subscription;
    let first: Vec<Event> = match start {
        Start::Entries(entries) => entries.iter().map(entry_event).collect(),
        Start::Snapshot { seq } => vec![message(seq, "snapshot", &snapshot.to_string())],
    };
    let live = ReceiverStream::new(live).map(move |entry| {
        // The reader's place is held by its stream.
        let _held = &place;
        entry_event(&entry)
    });
    let events = stream::iter(first).chain(live).map(Ok);
    Sse::new(events).keep_alive(KeepAlive::new().interval(EVENT_KEEP_ALIVE).text("alive"))
}

fn entry_event(entry: &Arc<Entry>) -> Event {
    message(entry.seq, entry.kind, &entry.text)
}

/// JSON text has no raw line breaks, so it is one `data` line.
fn message(seq: u64, kind: &str, data: &str) -> Event {
    Event::default().id(seq.to_string()).event(kind).data(data)
}
