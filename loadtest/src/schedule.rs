//! When each packet of a publication is meant to be sent: a pure function of its counter.
//!
//! The load is an open loop: packet `n` is due at a time that does not depend on when packet
//! `n - 1` left.

use std::ops::Range;

use crate::clock::SECOND;
use crate::payload::Kind;

/// The send times of one publication: bursts at a fixed rate from a phase on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// When burst 0 is due, ns of the run.
    pub(crate) phase: u64,
    /// Packets per second; not zero.
    pub(crate) pps: u64,
    /// Packets sent together, all with the same due time; not zero.
    pub(crate) burst: u64,
}

impl Schedule {
    /// When the packet with this counter is due.
    #[cfg(test)]
    pub(crate) fn due(&self, counter: u64) -> u64 {
        self.burst_due(counter / self.burst.max(1))
    }

    /// When a burst is due.
    pub(crate) fn burst_due(&self, burst: u64) -> u64 {
        let nanoseconds = u128::from(burst) * u128::from(self.burst) * u128::from(SECOND)
            / u128::from(self.pps.max(1));
        self.phase.saturating_add(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// The first burst that is due at `at` or later.
    pub(crate) fn burst_from(&self, at: u64) -> u64 {
        let since = u128::from(at.saturating_sub(self.phase)) * u128::from(self.pps.max(1));
        let per_burst = u128::from(self.burst.max(1)) * u128::from(SECOND);
        let burst = u64::try_from(since / per_burst).unwrap_or(u64::MAX);
        // The division may land one short of the first burst, never beyond it.
        if self.burst_due(burst) < at { burst + 1 } else { burst }
    }

    /// The counters that are due in `[from, until)`.
    #[cfg(test)]
    pub(crate) fn counters(&self, from: u64, until: u64) -> Range<u64> {
        self.burst_from(from) * self.burst..self.burst_from(until) * self.burst
    }
}

/// An order to change rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// The first burst due at this time of the run or later is the first at the new rate.
    pub(crate) at: u64,
    /// Which streams.
    pub(crate) kind: Kind,
    /// The new rate in millionths of the one in the plan.
    pub(crate) millionths: u64,
}

impl Pace {
    /// What becomes of a planned rate; never less than one packet per second.
    pub(crate) fn rate(self, planned_pps: u64) -> u64 {
        let pps = u128::from(planned_pps) * u128::from(self.millionths) / 1_000_000;
        u64::try_from(pps).unwrap_or(u64::MAX).max(1)
    }
}

/// A schedule whose rate may change while it runs, with counters that go on without a gap.
///
/// Publisher and `main` apply the same [`Pace`] and so agree on every due time. It remembers the
/// rate before the last change, for what is due until then and for what is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timetable {
    before: Piece,
    current: Piece,
}

/// Bursts from a number on; burst `first` is burst 0 of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    first: u64,
    schedule: Schedule,
}

impl From<Schedule> for Timetable {
    fn from(schedule: Schedule) -> Self {
        let piece = Piece { first: 0, schedule };
        Self { before: piece, current: piece }
    }
}

impl Timetable {
    /// The same with another rate from a time on.
    pub(crate) fn paced(self, pace: Pace, planned_pps: u64) -> Self {
        let first = self.burst_from(pace.at);
        let phase = self.burst_due(first);
        let pps = pace.rate(planned_pps);
        let schedule = Schedule { phase, pps, ..self.current.schedule };
        // Bursts that an earlier change moved beyond this one never come.
        let before = if first > self.current.first { self.current } else { self.before };
        Self { before, current: Piece { first, schedule } }
    }

    /// When a burst is due.
    pub(crate) fn burst_due(&self, burst: u64) -> u64 {
        let piece = if burst >= self.current.first { self.current } else { self.before };
        piece.schedule.burst_due(burst.saturating_sub(piece.first))
    }

    /// The first burst that is due at `at` or later.
    pub(crate) fn burst_from(&self, at: u64) -> u64 {
        let Self { before, current } = self;
        if at > current.schedule.phase {
            current.first + current.schedule.burst_from(at)
        } else {
            (before.first + before.schedule.burst_from(at)).min(current.first)
        }
    }

    /// The counters that are due in `[from, until)`.
    pub(crate) fn counters(&self, from: u64, until: u64) -> Range<u64> {
        let burst = self.current.schedule.burst;
        self.burst_from(from) * burst..self.burst_from(until) * burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLISECOND;

    const CASES: [Schedule; 4] = [
        Schedule { phase: 0, pps: 500, burst: 5 },
        Schedule { phase: 1_234_567, pps: 50, burst: 1 },
        Schedule { phase: 7, pps: 333, burst: 10 },
        Schedule { phase: 999, pps: 100_000, burst: 3 },
    ];

    #[test]
    fn a_burst_is_due_at_one_moment_and_bursts_are_evenly_spaced() {
        let schedule = CASES[0];
        assert_eq!((0..5).map(|n| schedule.due(n)).collect::<Vec<_>>(), [0; 5]);
        assert_eq!(schedule.due(5), 10 * MILLISECOND);
        assert_eq!(schedule.due(500), SECOND);
        assert_eq!(schedule.due(5_000_000), 10_000 * SECOND);
    }

    #[test]
    fn rounding_never_accumulates() {
        for schedule in CASES {
            let a_day = schedule.pps * 86_400 / schedule.burst * schedule.burst;
            let drift = (schedule.due(a_day) - schedule.phase).abs_diff(86_400 * SECOND);
            assert!(drift <= SECOND * schedule.burst / schedule.pps, "{schedule:?}: {drift}");
        }
    }

    #[test]
    fn the_first_burst_from_a_time_is_due_then_or_later_and_the_one_before_is_not() {
        for schedule in CASES {
            for at in [0, 1, 6, 7, 8, 998, 20 * MILLISECOND, 3 * SECOND + 17] {
                let burst = schedule.burst_from(at);
                assert!(schedule.burst_due(burst) >= at);
                assert!(burst == 0 || schedule.burst_due(burst - 1) < at, "{schedule:?} at {at}");
            }
        }
    }

    #[test]
    fn adjoining_windows_share_no_counter_and_leave_none_out() {
        for schedule in CASES {
            let (a, b) =
                (schedule.counters(SECOND, 2 * SECOND), schedule.counters(2 * SECOND, 9 * SECOND));
            assert_eq!(a.end, b.start);
            assert!((b.end - b.start).abs_diff(schedule.pps * 7) <= schedule.burst);
        }
    }

    #[test]
    fn a_change_of_rate_leaves_no_gap_and_moves_nothing_that_was_due_before() {
        for schedule in CASES {
            let mut timetable = Timetable::from(schedule);
            let changes = [(2, 1_500_000), (3, 300_000), (4, 7_000_000), (6, 1)];
            for (second, millionths) in changes {
                let pace = Pace { at: second * SECOND, kind: Kind::Video, millionths };
                let paced = timetable.paced(pace, schedule.pps);
                let first = timetable.burst_from(pace.at);
                for burst in first.saturating_sub(3)..=first {
                    assert_eq!(paced.burst_due(burst), timetable.burst_due(burst));
                    assert_eq!(paced.burst_from(paced.burst_due(burst)), burst);
                }
                for burst in first..first + 20 {
                    assert!(paced.burst_due(burst) < paced.burst_due(burst + 1));
                }
                let pps = paced.counters(pace.at + SECOND, pace.at + 2 * SECOND);
                let wanted = pace.rate(schedule.pps);
                assert!((pps.end - pps.start).abs_diff(wanted) <= schedule.burst, "{wanted}");
                timetable = paced;
            }
        }
    }
}
