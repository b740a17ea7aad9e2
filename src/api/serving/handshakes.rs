//! Whose TLS handshake goes on: each costs the control thread up to a millisecond, and those of one
//! address must not take that time from everybody else's requests.
//!
//! Shared by the connections. Invariants: [`API_HANDSHAKES`] at a time, [`API_HANDSHAKES_PER_ADDRESS`]
//! of one address but loopback; others wait in the order in which they came, and not longer than a
//! handshake may take. A client that begins one and is silent keeps its turn for
//! [`API_HANDSHAKE_TURN`](crate::limits::API_HANDSHAKE_TURN) while others wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::admission::counted;
use crate::control::guarded::Guarded;
use crate::limits::{API_HANDSHAKES, API_HANDSHAKES_PER_ADDRESS};

/// Who waits for a turn, and who has one.
#[derive(Debug)]
pub(super) struct Handshakes {
    all: Queue,
    of_address: Guarded<HashMap<IpAddr, Arc<Queue>>>,
}

/// Some turns, and how many wait for one of them.
#[derive(Debug)]
struct Queue {
    turns: Semaphore,
    waiting: AtomicUsize,
}

impl Queue {
    fn of(turns: usize) -> Self {
        Self { turns: Semaphore::new(turns), waiting: AtomicUsize::new(0) }
    }

    /// Takes a turn, to be given back.
    async fn take(&self) {
        let waits = Waits::among(&self.waiting);
        // Nobody closes it.
        if let Ok(permit) = self.turns.acquire().await {
            permit.forget();
        }
        drop(waits);
    }

    fn give_back(&self) {
        self.turns.add_permits(1);
    }

    fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

impl Default for Handshakes {
    fn default() -> Self {
        Self { all: Queue::of(API_HANDSHAKES), of_address: Guarded::default() }
    }
}

impl Handshakes {
    /// Waits for a turn, which ends when it is dropped.
    pub(super) async fn turn(&self, address: IpAddr) -> Turn<'_> {
        let share = match counted(address) {
            Some(address) => Some(self.share(address).await),
            None => None,
        };
        self.all.take().await;
        Turn { handshakes: self, share }
    }

    async fn share(&self, address: IpAddr) -> Share<'_> {
        let queue = self.of_address.with(|all| {
            let new = || Arc::new(Queue::of(API_HANDSHAKES_PER_ADDRESS));
            Arc::clone(all.entry(address).or_insert_with(new))
        });
        let mut share = Share { handshakes: self, address, queue, taken: false };
        share.queue.take().await;
        share.taken = true;
        share
    }
}

/// One handshake's turn.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    handshakes: &'a Handshakes,
    share: Option<Share<'a>>,
}

impl Turn<'_> {
    /// True while somebody else could have it.
    pub(super) fn is_waited_for(&self) -> bool {
        let of_address = self.share.as_ref().is_some_and(|share| share.queue.is_waited_for());
        of_address || self.handshakes.all.is_waited_for()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.handshakes.all.give_back();
    }
}

/// One of an address' turns, or the wait for it.
#[derive(Debug)]
struct Share<'a> {
    handshakes: &'a Handshakes,
    address: IpAddr,
    queue: Arc<Queue>,
    taken: bool,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        if self.taken {
            self.queue.give_back();
        }
        self.handshakes.of_address.with(|all| {
            // The table's and this one.
            if Arc::strong_count(&self.queue) <= 2 {
                all.remove(&self.address);
            }
        });
    }
}

/// Counts one who waits.
#[derive(Debug)]
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn among(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    /// A turn, if there is one now.
    async fn turn<'a>(handshakes: &'a Handshakes, address: &str) -> Option<Turn<'a>> {
        let turn = handshakes.turn(address.parse().unwrap());
        tokio::time::timeout(SOON, turn).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_its_share_of_turns_and_nobody_else_waits_for_it() {
        let handshakes = Handshakes::default();
        let mut turns = Vec::new();
        for _ in 0..API_HANDSHAKES_PER_ADDRESS {
            turns.push(turn(&handshakes, "192.0.2.1").await.unwrap());
        }
        let other = turn(&handshakes, "192.0.2.2").await.unwrap();
        assert!(turn(&handshakes, "127.0.0.1").await.is_some());
        let mut late = std::pin::pin!(handshakes.turn("192.0.2.1".parse().unwrap()));
        assert!(tokio::time::timeout(SOON, &mut late).await.is_err());
        assert!(turns[0].is_waited_for() && !other.is_waited_for());
        turns.pop();
        let late = late.await;
        assert!(!turns[0].is_waited_for());
        drop((turns, other, late));
        assert!(handshakes.of_address.with(|all| all.is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn all_together_have_theirs_and_who_gives_up_waiting_is_not_waited_for() {
        let handshakes = Handshakes::default();
        let mut turns = Vec::new();
        for number in 0..API_HANDSHAKES {
            let address = format!("192.0.2.{}", number % 250);
            turns.push(turn(&handshakes, &address).await.unwrap());
        }
        assert!(!turns[0].is_waited_for());
        {
            let mut late = std::pin::pin!(handshakes.turn("203.0.113.1".parse().unwrap()));
            assert!(tokio::time::timeout(SOON, &mut late).await.is_err());
            assert!(turns[0].is_waited_for());
        }
        assert!(!turns[0].is_waited_for());
        turns.pop();
        assert!(turn(&handshakes, "203.0.113.1").await.is_some());
    }
}
