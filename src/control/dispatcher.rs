//! Numbers calls to shards and pairs them with their answers.
//!
//! Owned by [`Control`](super::Control), used on the control thread only. Each accepted call gets
//! exactly one answer; calls of one shard are answered in the order in which they were submitted.
//! It never waits for room in a lane: a full one refuses the call. Nor does it wait for ever: an
//! answer that is late is nobody's, and whoever asked for something to be made has it closed again.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::command::{CallId, Command, Refusal, Reply};
use super::guarded::Guarded;
use crate::id::ShardId;
use crate::limits::{CALLS_OUTSTANDING_MAX, SHARD_ANSWER_TIMEOUT};

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
    sent: u64,
    refused: u64,
    late: u64,
}

/// What became of the calls to shards since the start, and how many are under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Put into a shard's lane.
    pub sent: u64,
    /// Refused: the lane was full, or too many calls were under way.
    pub refused: u64,
    /// Answered when nobody waited any more.
    pub late: u64,
    /// Without an answer so far.
    pub waiting: usize,
}

/// Calls under way to all shards.
pub struct Dispatcher {
    links: Vec<Box<dyn ShardLink>>,
    /// How long an answer may take.
    patience: Duration,
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
pub struct Pending(Result<(oneshot::Receiver<Answer>, Instant), Refusal>);

impl Pending {
    fn refused() -> Self {
        Self(Err(Refusal::Overloaded))
    }

    /// True when the command is in the shard's lane: it will be carried out, behind those before it,
    /// even if its answer comes too late.
    #[must_use]
    pub fn is_on_its_way(&self) -> bool {
        self.0.is_ok()
    }

    /// Waits for the shard's answer, until [`SHARD_ANSWER_TIMEOUT`] after the call.
    ///
    /// # Errors
    /// The shard's refusal, [`Refusal::Overloaded`] when the call never reached it, or
    /// [`Refusal::NoAnswer`] when it did and the shard may still carry it out.
    pub async fn answer(self) -> Answer {
        let (answered, deadline) = self.0?;
        match timeout_at(deadline, answered).await {
            Ok(answer) => answer.unwrap_or(Err(Refusal::Overloaded)),
            Err(_) => Err(Refusal::NoAnswer),
        }
    }
}

impl Dispatcher {
    /// A dispatcher over one link per shard, in the shards' order.
    #[must_use]
    pub fn new(links: Vec<Box<dyn ShardLink>>) -> Self {
        Self { links, patience: SHARD_ANSWER_TIMEOUT, calls: Guarded::default() }
    }

    /// Puts a command into the shard's lane now; the answer is awaited apart.
    pub fn submit(&self, shard: ShardId, command: Command) -> Pending {
        let Some(link) = self.links.get(shard.index()) else { return Pending::refused() };
        let (answer, answered) = oneshot::channel();
        let number = self.calls.with(|calls| {
            if calls.closed || calls.waiting.len() >= CALLS_OUTSTANDING_MAX {
                calls.refused += 1;
                return None;
            }
            calls.last += 1;
            let number = CallId(calls.last);
            calls.waiting.insert(number, answer);
            Some(number)
        });
        let Some(number) = number else { return Pending::refused() };
        if link.send(number, command).is_err() {
            self.calls.with(|calls| {
                calls.waiting.remove(&number);
                calls.refused += 1;
            });
            return Pending::refused();
        }
        self.calls.with(|calls| calls.sent += 1);
        Pending(Ok((answered, Instant::now() + self.patience)))
    }

    /// Asks a shard and waits for its answer.
    ///
    /// # Errors
    /// As [`Pending::answer`].
    pub async fn call(&self, shard: ShardId, command: Command) -> Answer {
        self.submit(shard, command).answer().await
    }

    /// Hands a shard's answer to whoever waits for it; an unknown number is ignored.
    pub fn handle_answer(&self, call: CallId, answer: Answer) {
        if let Some(waiting) = self.calls.with(|calls| calls.waiting.remove(&call)) {
            // Whoever asked may have given up.
            if waiting.send(answer).is_err() {
                self.calls.with(|calls| calls.late += 1);
            }
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

    /// What became of the calls.
    #[must_use]
    pub fn counts(&self) -> CallCounts {
        self.calls.with(|calls| CallCounts {
            sent: calls.sent,
            refused: calls.refused,
            late: calls.late,
            waiting: calls.waiting.len(),
        })
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.links.len()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::id::TransportId;

    /// A shard that takes everything and answers nothing.
    pub(in crate::control) struct Mute;

    impl ShardLink for Mute {
        fn send(&self, _: CallId, _: Command) -> Result<(), LaneFull> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_shard_that_does_not_answer_in_time_is_not_waited_for() {
        let mut dispatcher = Dispatcher::new(vec![Box::new(Mute)]);
        dispatcher.patience = Duration::ZERO;
        let close = Command::CloseTransport(TransportId::random());
        let pending = dispatcher.submit(ShardId(0), close);
        assert!(matches!(pending.answer().await, Err(Refusal::NoAnswer)));
        // What comes late is nobody's; what came in time is taken even when it is looked at late.
        dispatcher.handle_answer(CallId(1), Ok(Reply::Done));
        let pending = dispatcher.submit(ShardId(0), Command::Inventory);
        dispatcher.handle_answer(CallId(2), Ok(Reply::Done));
        assert!(matches!(pending.answer().await, Ok(Reply::Done)));
        let counts = CallCounts { sent: 2, refused: 0, late: 1, waiting: 0 };
        assert_eq!(dispatcher.counts(), counts);
        dispatcher.close();
        assert!(matches!(
            dispatcher.call(ShardId(0), Command::Inventory).await,
            Err(Refusal::Overloaded)
        ));
        assert_eq!(dispatcher.counts(), CallCounts { refused: 1, ..counts });
    }
}
