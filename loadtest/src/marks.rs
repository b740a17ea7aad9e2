//! Which counters of an encoding belong to the measured window, told by who sends to who receives.
//!
//! The number of packets of a frame is known only when it is sent (a key frame that somebody asked
//! for is larger), so the window's ends cannot be computed from the schedule. The publisher's thread
//! writes each end before it sends the first packet beyond it; whoever holds such a packet therefore
//! finds the end written. Two words, no lock.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::SECOND;

/// How long packets of a window may still arrive after it, ns.
pub(crate) const GRACE: u64 = SECOND / 2;

/// Not written yet.
const OPEN: u64 = u64::MAX;

/// The window of one encoding, in counters.
#[derive(Debug)]
pub(crate) struct Marks {
    first: AtomicU64,
    after: AtomicU64,
}

impl Default for Marks {
    fn default() -> Self {
        Self { first: OPEN.into(), after: OPEN.into() }
    }
}

impl Marks {
    /// Forgets the window, for another one.
    pub(crate) fn reset(&self) {
        self.first.store(OPEN, Ordering::Release);
        self.after.store(OPEN, Ordering::Release);
    }

    /// The window begins with this counter; later calls change nothing.
    pub(crate) fn begin(&self, counter: u64) {
        if self.first.load(Ordering::Relaxed) == OPEN {
            self.first.store(counter, Ordering::Release);
        }
    }

    /// The window ends before this counter; later calls change nothing.
    pub(crate) fn end(&self, counter: u64) {
        self.begin(counter);
        if self.after.load(Ordering::Relaxed) == OPEN {
            self.after.store(counter, Ordering::Release);
        }
    }

    /// True when a packet that was sent belongs to the window.
    pub(crate) fn contains(&self, counter: u64) -> bool {
        counter >= self.first.load(Ordering::Acquire)
            && counter < self.after.load(Ordering::Acquire)
    }

    /// From the first counter to the one after the last; none before both are known.
    pub(crate) fn range(&self) -> Option<Range<u64>> {
        match (self.first.load(Ordering::Acquire), self.after.load(Ordering::Acquire)) {
            (OPEN, _) | (_, OPEN) => None,
            (first, after) => Some(first..after),
        }
    }

    /// Packets of the window; zero until it has ended.
    pub(crate) fn count(&self) -> u64 {
        self.range().map_or(0, |range| range.end - range.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_what_was_sent_between_its_ends() {
        let marks = Marks::default();
        assert!(!marks.contains(0) && !marks.contains(OPEN) && marks.count() == 0);
        marks.begin(10);
        marks.begin(20);
        assert!(!marks.contains(9) && marks.contains(10) && marks.contains(1_000));
        assert_eq!(marks.count(), 0, "not over");
        marks.end(15);
        marks.end(99);
        assert!(marks.contains(14) && !marks.contains(15));
        assert_eq!(marks.count(), 5);
        marks.reset();
        assert!(!marks.contains(14) && marks.count() == 0);
        marks.begin(30);
        assert!(marks.contains(30));
    }

    #[test]
    fn a_stream_that_never_began_has_an_empty_window() {
        let marks = Marks::default();
        marks.end(7);
        assert!(marks.count() == 0 && !marks.contains(7));
    }
}
