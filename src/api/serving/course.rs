//! Where a connection stands between its client and the API, and until when the client may take.
//!
//! ```text
//!   Head ──request──► Request ──answer──► Answer | Stream ──ends──► Answer, the last
//!     ▲                                     │ whole
//!     └──first byte── Idle ◄──flushed── Whole
//! ```
//!
//! One per connection, shared by its socket ([`Patient`](super::patience::Patient)), the body that
//! it reads and the answer that it writes. Nothing waits here.

use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::admission::Place;
use crate::control::guarded::Guarded;
use crate::limits::{
    API_ANSWER_TIMEOUT, API_BODY_TIMEOUT, API_HANDSHAKE_TIMEOUT, API_HEAD_TIMEOUT, API_SILENCE_MAX,
};
use crate::metrics::connections::{ConnectionCounts, TimedOut};

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) handshake: Duration,
    pub(super) head: Duration,
    pub(super) body: Duration,
    pub(super) answer: Duration,
    /// Between two bytes of anything, and between two requests.
    pub(super) silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            handshake: API_HANDSHAKE_TIMEOUT,
            head: API_HEAD_TIMEOUT,
            body: API_BODY_TIMEOUT,
            answer: API_ANSWER_TIMEOUT,
            silence: API_SILENCE_MAX,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// The head has to be whole by then.
    Head(Instant),
    /// The API has it; the body looks after itself.
    Request,
    /// The answer has to be taken by then.
    Answer(Instant),
    /// The answer goes on for as long as it is read.
    Stream,
    /// All of the answer waits to be taken, by then.
    Whole(Instant),
    /// The next request has to begin by then.
    Idle(Instant),
}

/// One connection's way from request to request.
#[derive(Debug)]
pub(super) struct Course {
    stage: Guarded<Stage>,
    /// Given back when the connection has ended.
    place: Option<Place>,
    /// Where it began, and on which thread that runs.
    home: (Handle, ThreadId),
    pub(super) patience: Patience,
    counts: Arc<ConnectionCounts>,
}

impl Course {
    /// A connection that begins now.
    pub(super) fn new(place: Place, patience: Patience, counts: Arc<ConnectionCounts>) -> Self {
        counts.opened();
        let stage = Guarded::new(Stage::Head(Instant::now() + patience.head));
        let home = (Handle::current(), std::thread::current().id());
        Self { stage, place: Some(place), home, patience, counts }
    }

    /// TLS is spoken from now on: the first head's time begins.
    pub(super) fn secured(&self) {
        self.goes_to(Stage::Head(Instant::now() + self.patience.head));
    }

    /// Bytes came.
    pub(super) fn heard(&self) {
        self.stage.with(|stage| {
            if matches!(stage, Stage::Idle(_)) {
                *stage = Stage::Head(Instant::now() + self.patience.head);
            }
        });
    }

    /// A head is whole, and its body too unless it `has_body`.
    pub(super) fn requested(&self, has_body: bool) {
        self.goes_to(Stage::Request);
        if !has_body {
            self.has_body();
        }
    }

    /// The body is whole.
    pub(super) fn has_body(&self) {
        self.place.iter().for_each(Place::is_busy);
    }

    /// An answer begins.
    pub(super) fn answers(&self, streams: bool) {
        self.place.iter().for_each(Place::is_busy);
        self.goes_to(match streams {
            true => Stage::Stream,
            false => Stage::Answer(Instant::now() + self.patience.answer),
        });
    }

    /// There is no more of the answer.
    pub(super) fn answered(&self) {
        let end = || Instant::now() + self.patience.answer;
        self.goes_to(match self.stage.with(|stage| *stage) {
            Stage::Answer(end) => Stage::Whole(end),
            // Nothing comes behind it.
            Stage::Stream => Stage::Answer(end()),
            _ => Stage::Whole(end()),
        });
    }

    /// Nothing is left to be written for now.
    pub(super) fn flushed(&self) {
        if let Stage::Whole(_) = self.stage.with(|stage| *stage) {
            self.goes_to(Stage::Idle(Instant::now() + self.patience.silence));
            self.place.iter().for_each(Place::waits);
        }
    }

    /// Until when the client may take, unless only silence counts; and over what.
    pub(super) fn end(&self) -> Option<(Instant, TimedOut)> {
        match self.stage.with(|stage| *stage) {
            Stage::Head(end) => Some((end, TimedOut::Head)),
            Stage::Answer(end) | Stage::Whole(end) => Some((end, TimedOut::Answer)),
            Stage::Idle(end) => Some((end, TimedOut::Idle)),
            Stage::Request | Stage::Stream => None,
        }
    }

    /// The client took too long.
    pub(super) fn timed_out(&self, over: TimedOut) {
        self.counts.timed_out(over);
    }

    fn goes_to(&self, next: Stage) {
        self.stage.with(|stage| *stage = next);
    }
}

impl Drop for Course {
    /// Its place is given back where it was taken: the readers' thread could be kept waiting in the
    /// middle of that, and whoever connects would wait for it.
    fn drop(&mut self) {
        self.counts.closed();
        let (home, thread) = &self.home;
        if let Some(place) = self.place.take()
            && std::thread::current().id() != *thread
        {
            home.spawn(async move { drop(place) });
        }
    }
}
