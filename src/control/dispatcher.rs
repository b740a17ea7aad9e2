//! Numbers calls to shards and pairs them with their answers.
//!
//! Owned by [`Control`](super::Control), used on the control thread only. Each accepted call gets
//! exactly one answer; calls of one shard are answered in the order in which they were submitted.
//! It never waits for room in a lane: a full one refuses the call.

use std::collections::HashMap;
use std::fmt;

use tokio::sync::oneshot;

use super::command::{CallId, Command, Refusal, Reply};
use super::guarded::Guarded;
use crate::id::ShardId;
use crate::limits::CALLS_OUTSTANDING_MAX;

/// The shard's command lane has no room, or its other end is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("command lane full")]
pub struct LaneFull;

/// The way into one shard: a lane in production, a script in tests.
pub trait ShardLink: Send + Sync + 'static {
    /// Puts a command into the shard's lane without waiting.
    ///
    /// # Errors
    /// [`LaneFull`] when there is no room.
    fn send(&self, call: CallId, command: Command) -> Result<(), LaneFull>;
}

/// What a shard answered.
type Answer = Result<Reply, Refusal>;

#[derive(Default)]
struct Calls {
    last: u64,
    waiting: HashMap<CallId, oneshot::Sender<Answer>>,
    closed: bool,
}

/// Calls under way to all shards.
pub struct Dispatcher {
    links: Vec<Box<dyn ShardLink>>,
    calls: Guarded<Calls>,
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.calls.with(|calls| calls.waiting.len());
        f.debug_struct("Dispatcher")
            .field("shards", &self.links.len())
            .field("waiting", &waiting)
            .finish()
    }
}

/// An answer that will come.
#[derive(Debug)]
#[must_use = "the shard's answer says whether it was done"]
pub struct Pending(Result<oneshot::Receiver<Answer>, Refusal>);

impl Pending {
    /// Waits for the shard's answer.
    ///
    /// # Errors
    /// The shard's refusal, or [`Refusal::Overloaded`] when the call never reached it.
    pub async fn answer(self) -> Answer {
        self.0?.await.unwrap_or(Err(Refusal::Overloaded))
    }
}

impl Dispatcher {
    /// A dispatcher over one link per shard, in the shards' order.
    #[must_use]
    pub fn new(links: Vec<Box<dyn ShardLink>>) -> Self {
        Self { links, calls: Guarded::default() }
    }

    /// Puts a command into the shard's lane now; the answer is awaited apart.
    pub fn submit(&self, shard: ShardId, command: Command) -> Pending {
        let Some(link) = self.links.get(shard.index()) else {
            return Pending(Err(Refusal::Overloaded));
        };
        let (answer, answered) = oneshot::channel();
        let number = self.calls.with(|calls| {
            if calls.closed || calls.waiting.len() >= CALLS_OUTSTANDING_MAX {
                return None;
            }
            calls.last += 1;
            let number = CallId(calls.last);
            calls.waiting.insert(number, answer);
            Some(number)
        });
        let Some(number) = number else {
            return Pending(Err(Refusal::Overloaded));
        };
        if link.send(number, command).is_err() {
            self.calls.with(|calls| calls.waiting.remove(&number));
            return Pending(Err(Refusal::Overloaded));
        }
        Pending(Ok(answered))
    }

    /// Asks a shard and waits for its answer.
    ///
    /// # Errors
    /// The shard's refusal, or [`Refusal::Overloaded`] when its lane is full.
    pub async fn call(&self, shard: ShardId, command: Command) -> Answer {
        self.submit(shard, command).answer().await
    }

    /// Hands a shard's answer to whoever waits for it; an unknown number is ignored.
    pub fn handle_answer(&self, call: CallId, answer: Answer) {
        if let Some(waiting) = self.calls.with(|calls| calls.waiting.remove(&call)) {
            // Whoever asked may have given up.
            let _ = waiting.send(answer);
        }
    }

    /// Refuses all calls under way and all later ones: the shards are stopping.
    pub fn close(&self) {
        self.calls.with(|calls| {
            calls.closed = true;
            calls.waiting.clear();
        });
    }

    /// True once [`close`](Self::close) was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.calls.with(|calls| calls.closed)
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.links.len()
    }
}
