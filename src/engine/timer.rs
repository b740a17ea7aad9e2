//! The next deadline over everything in an engine that waits for time.
//!
//! Owns a heap of (deadline, owner). Called by the engine on its shard's thread. Invariant: an
//! owner that was armed fires at or before its deadline; it may fire early or once too often (the
//! owner checks its own deadlines again), never late and never without bound: one owner has at most
//! one entry that counts, and entries that no longer count are swept when they outnumber the others.
//! It deliberately does not know what a deadline is for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// Deadlines of owners `K`.
#[derive(Debug)]
pub struct Timers<K> {
    heap: BinaryHeap<Reverse<(Instant, K)>>,
    /// The earliest entry of each owner in the heap.
    armed: HashMap<K, Instant>,
}

impl<K: Copy + Ord + Hash> Default for Timers<K> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), armed: HashMap::new() }
    }
}

impl<K: Copy + Ord + Hash> Timers<K> {
    /// Makes `owner` fire at `deadline`, or earlier if it was armed for earlier.
    pub fn arm(&mut self, owner: K, deadline: Instant) {
        match self.armed.get_mut(&owner) {
            Some(armed) if *armed <= deadline => return,
            Some(armed) => *armed = deadline,
            None => {
                self.armed.insert(owner, deadline);
            }
        }
        self.heap.push(Reverse((deadline, owner)));
        if self.heap.len() > 64 && self.heap.len() > 4 * self.armed.len() {
            self.sweep();
        }
    }

    /// Forgets an owner that is gone.
    pub fn disarm(&mut self, owner: &K) {
        self.armed.remove(owner);
    }

    /// The next owner whose deadline is not after `now`; it is disarmed.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        loop {
            let &Reverse((deadline, owner)) = self.heap.peek()?;
            let counts = self.armed.get(&owner) == Some(&deadline);
            if counts && deadline > now {
                return None;
            }
            self.heap.pop();
            if counts {
                self.armed.remove(&owner);
                return Some(owner);
            }
        }
    }

    /// The earliest deadline; possibly earlier than any that counts, never later.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((deadline, _))| *deadline)
    }

    fn sweep(&mut self) {
        let armed = &self.armed;
        self.heap.retain(|Reverse((deadline, owner))| armed.get(owner) == Some(deadline));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn start() -> Instant {
        crate::engine::test_instant()
    }

    #[test]
    fn owners_fire_in_order_of_their_earliest_deadline() {
        let (now, mut timers) = (start(), Timers::default());
        let at = |ms| now + Duration::from_millis(ms);
        timers.arm('a', at(30));
        timers.arm('b', at(20));
        timers.arm('a', at(10));
        timers.arm('a', at(40));
        timers.arm('c', at(5));
        timers.disarm(&'c');
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(25)), Some('a'));
        assert_eq!(timers.pop_due(at(25)), Some('b'));
        assert_eq!(timers.pop_due(at(99)), None, "an owner fires once per arming");
        assert_eq!(timers.next(), None);
    }

    proptest! {
        #[test]
        fn the_heap_stays_in_proportion_to_its_owners(
            arms in prop::collection::vec((0_u8..8, 0_u64..1000), 0..2000)
        ) {
            let (now, mut timers) = (start(), Timers::default());
            for (owner, ms) in arms {
                timers.disarm(&owner);
                timers.arm(owner, now + Duration::from_millis(ms));
                prop_assert!(timers.heap.len() <= 65.max(4 * timers.armed.len() + 1));
            }
            let mut last = None;
            let end = now + Duration::from_secs(2);
            while let Some(owner) = timers.pop_due(end) {
                prop_assert!(last != Some(owner));
                last = Some(owner);
            }
        }
    }
}
