//! Whose TLS handshake is computed: each costs the control thread up to a millisecond, and those of
//! one address must not take that time from everybody else's requests.
//!
//! Shared by the connections. Invariants: [`API_HANDSHAKES`] at a time, [`API_HANDSHAKES_PER_ADDRESS`]
//! of one address; others wait in the order in which they came, and not longer than a handshake may
//! take. Loopback waits for nobody. No turn lasts while a client is waited for, so that clients who
//! are silent hold up nobody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::admission::counted;
use crate::control::guarded::Guarded;
use crate::limits::{API_HANDSHAKES, API_HANDSHAKES_PER_ADDRESS};

/// Who waits for a turn, and who has one.
#[derive(Debug)]
pub(super) struct Handshakes {
    all: Semaphore,
    of_address: Guarded<HashMap<IpAddr, Arc<Semaphore>>>,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self { all: Semaphore::new(API_HANDSHAKES), of_address: Guarded::default() }
    }
}

impl Handshakes {
    /// Waits for a turn, which ends when it is dropped.
    pub(super) async fn turn(&self, address: IpAddr) -> Option<Turn<'_>> {
        let share = self.share(counted(address)?).await;
        // Nobody closes it.
        let permit = self.all.acquire().await.ok();
        Some(Turn { _permit: permit, _share: share })
    }

    async fn share(&self, address: IpAddr) -> Share<'_> {
        let turns = self.of_address.with(|all| {
            let new = || Arc::new(Semaphore::new(API_HANDSHAKES_PER_ADDRESS));
            Arc::clone(all.entry(address).or_insert_with(new))
        });
        let mut share = Share { handshakes: self, address, turns, taken: false };
        if let Ok(permit) = share.turns.acquire().await {
            permit.forget();
            share.taken = true;
        }
        share
    }
}

/// One handshake's turn.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _permit: Option<SemaphorePermit<'a>>,
    _share: Share<'a>,
}

/// One of an address' turns, or the wait for it.
#[derive(Debug)]
struct Share<'a> {
    handshakes: &'a Handshakes,
    address: IpAddr,
    turns: Arc<Semaphore>,
    taken: bool,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        if self.taken {
            self.turns.add_permits(1);
        }
        self.handshakes.of_address.with(|all| {
            // The table's and this one.
            if Arc::strong_count(&self.turns) <= 2 {
                all.remove(&self.address);
            }
        });
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
        tokio::time::timeout(SOON, turn).await.ok()?
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_its_share_of_turns_and_nobody_else_waits_for_it() {
        let handshakes = Handshakes::default();
        let mut turns = Vec::new();
        for _ in 0..API_HANDSHAKES_PER_ADDRESS {
            turns.push(turn(&handshakes, "192.0.2.1").await.unwrap());
        }
        let other = turn(&handshakes, "192.0.2.2").await.unwrap();
        let mut late = std::pin::pin!(handshakes.turn("192.0.2.1".parse().unwrap()));
        assert!(tokio::time::timeout(SOON, &mut late).await.is_err());
        turns.pop();
        let late = late.await;
        drop((turns, other, late));
        assert!(handshakes.of_address.with(|all| all.is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn all_together_have_theirs_and_loopback_waits_for_nobody() {
        let handshakes = Handshakes::default();
        let mut turns = Vec::new();
        for number in 0..API_HANDSHAKES {
            let address = format!("192.0.2.{}", number % 250);
            turns.push(turn(&handshakes, &address).await.unwrap());
        }
        assert!(turn(&handshakes, "203.0.113.1").await.is_none());
        let here = handshakes.turn("127.0.0.1".parse().unwrap());
        assert!(tokio::time::timeout(SOON, here).await.is_ok());
        turns.pop();
        assert!(turn(&handshakes, "203.0.113.1").await.is_some());
    }
}
