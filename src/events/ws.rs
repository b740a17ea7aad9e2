//! A room's log over a WebSocket: one text message per entry, and nothing the other way.
//!
//! One task per reader, on the readers' thread. Invariants: what a reader has not taken within
//! [`EVENT_WRITE_TIMEOUT`] ends its connection, and so does anything it says but a few pings, which
//! are answered: neither silence nor chatter costs more than a task and one message.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use bytes::Bytes;
use tokio::time::Instant;

use super::log::{Entry, Subscription};
use crate::limits::{EVENT_KEEP_ALIVE, EVENT_READER_PINGS_MAX, EVENT_WRITE_TIMEOUT};

/// Tells a reader `first` and then what happens, until the room, the connection or the reader's
/// patience ends.
pub async fn serve(mut socket: WebSocket, subscription: Subscription, first: Vec<Arc<Entry>>) {
    let Subscription { mut live, seat: _seat, .. } = subscription;
    for entry in first {
        if !tell(&mut socket, message(&entry)).await {
            return;
        }
    }
    let mut chatter = Chatter::new();
    loop {
        let told = tokio::select! {
            entry = live.recv() => match entry {
                Some(entry) => message(&entry),
                None => break bye(&mut socket, close_code::AWAY, "the room or the server ends").await,
            },
            heard = socket.recv() => match heard {
                // The library answers pings.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) if chatter.is_bearable() => continue,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                    break bye(&mut socket, close_code::POLICY, "too many pings").await;
                }
                Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                    break bye(&mut socket, close_code::POLICY, "there is nothing to say here").await;
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
            () = tokio::time::sleep(EVENT_KEEP_ALIVE) => Message::Ping(Bytes::new()),
        };
        if !tell(&mut socket, told).await {
            return;
        }
    }
}

/// How often a reader makes itself heard.
struct Chatter {
    since: Instant,
    heard: u32,
}

impl Chatter {
    fn new() -> Self {
        Self { since: Instant::now(), heard: 0 }
    }

    /// Counts once more; false when that was too often.
    fn is_bearable(&mut self) -> bool {
        if self.since.elapsed() >= EVENT_KEEP_ALIVE {
            *self = Self::new();
        }
        self.heard += 1;
        self.heard <= EVENT_READER_PINGS_MAX
    }
}

fn message(entry: &Entry) -> Message {
    // JSON as serde writes it is UTF-8.
    Message::Text(Utf8Bytes::try_from(entry.text()).unwrap_or_default())
}

/// False when the reader did not take it in time.
async fn tell(socket: &mut WebSocket, message: Message) -> bool {
    within(EVENT_WRITE_TIMEOUT, socket.send(message)).await
}

async fn bye(socket: &mut WebSocket, code: u16, reason: &'static str) {
    let reason = Utf8Bytes::from_static(reason);
    // Whoever does not take it finds the connection closed instead.
    tell(socket, Message::Close(Some(CloseFrame { code, reason }))).await;
}

async fn within<T, E>(time: Duration, sending: impl Future<Output = Result<T, E>>) -> bool {
    matches!(tokio::time::timeout(time, sending).await, Ok(Ok(_)))
}
