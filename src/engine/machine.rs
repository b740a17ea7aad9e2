//! What a shard drives: the engine's inputs and outputs as a trait.
//!
//! Implemented by the engine; by an echo in the shard's tests, so that sockets, lanes and time can
//! be tested without media. Called by its shard only, on the shard's thread. It does no I/O.

use std::time::Instant;

use crate::control::command::{Command, Event, Refusal, Reply};
use crate::engine::io::{Path, PathChange, Received, TransmitBatch};
use crate::engine::relay::{RelayItem, RelayLanes, RelayPacket};
use crate::engine::report::{Counters, Discard, DiscardCounts, Gauges};
use crate::id::ShardId;

/// A sans-I/O state machine: inputs are `handle_*`, outputs `poll_*`, and `now` never goes back.
pub trait Machine {
    /// Looks at datagrams that will be taken next, so that their memory is near by then; changes
    /// nothing, and need not be called.
    fn read_ahead<'a>(&self, _batch: &mut dyn Iterator<Item = Received<'a>>) {}

    /// Takes datagrams as they arrived; none may be kept borrowed.
    fn handle_datagrams<'a>(&mut self, now: Instant, batch: &mut dyn Iterator<Item = Received<'a>>);

    /// Carries out one command.
    ///
    /// # Errors
    /// The [`Refusal`] that the caller is told.
    fn handle_command(&mut self, now: Instant, command: Command) -> Result<Reply, Refusal>;

    /// A TCP connection ended: nothing can be sent over this path any more.
    fn handle_path_closed(&mut self, now: Instant, path: Path);

    /// The deadline of [`poll_timeout`](Self::poll_timeout) has come. Does a bounded part of what is
    /// due; while more is, `poll_timeout` still names a time that is not after `now`.
    fn handle_timeout(&mut self, now: Instant);

    /// Takes one item that the lane from shard `from` brought, in the order of that lane. Gives a
    /// packet's box back, to be returned to `from` and used again.
    fn handle_relay(
        &mut self,
        now: Instant,
        from: ShardId,
        item: RelayItem,
    ) -> Option<Box<RelayPacket>>;

    /// Sends other shards what is due to them. To be called once a turn, behind all input and
    /// timers and before [`poll_transmit`](Self::poll_transmit); true while more is waiting, which
    /// the next turn, without a sleep before it, goes on with.
    fn poll_relay(&mut self, now: Instant, lanes: &mut dyn RelayLanes) -> bool;

    /// Fills the batch with datagrams that are due; true while more is waiting (call again after
    /// sending). Never true with nothing in the batch.
    fn poll_transmit(&mut self, now: Instant, batch: &mut TransmitBatch) -> bool;

    /// The next thing to tell the control thread.
    fn poll_event(&mut self) -> Option<Event>;

    /// When [`handle_timeout`](Self::handle_timeout) is wanted next.
    fn poll_timeout(&self) -> Option<Instant>;

    /// True when the path is the validated address of a transport here.
    fn owns(&self, path: &Path) -> bool;

    /// Another shard has validated the path since: what comes over it is not for here until it is
    /// validated here once more.
    fn handle_path_taken(&mut self, path: &Path);

    /// The next UDP path that came or went, in order. To be taken before anything is sent, so that
    /// datagrams are steered to this shard before a client is told that its path is good.
    fn poll_path(&mut self) -> Option<PathChange>;

    /// What was counted since the start, and what is alive now.
    fn report(&self) -> (Counters, DiscardCounts, Gauges);

    /// Counts a datagram that the shard let go before the machine saw it.
    fn discard(&mut self, reason: Discard);
}
