//! How well a stream arrives, 0–10, from what its last reports tell of loss and repair.
//!
//! Pure; one [`ScoreKeeper`] for each incoming stream and each consumer, told what was counted once a
//! report (a second). The rule is mediasoup's, since clients show it to people: the part of the
//! packets that arrived or was repaired, to the fourth power, of the last [`SCORE_REPORTS`] reports,
//! of which later ones weigh more. Nothing is said of delay or picture quality.

use crate::limits::SCORE_REPORTS;

/// The best score: nothing is missing.
pub const SCORE_MAX: u8 = 10;

/// What was counted of a stream since its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets on their way: an incoming stream's that arrived or were lost, a consumer's that were
    /// sent. Without retransmissions.
    pub expected: u64,
    /// Packets of those that did not arrive at first.
    pub lost: u64,
    /// Packets of those that were made up for later.
    pub repaired: u64,
    /// Retransmissions, of which each repaired one may have taken several.
    pub retransmitted: u64,
}

impl Totals {
    /// What came since `before`; all of it where the counts began anew.
    fn since(self, before: Self) -> Self {
        if self.expected < before.expected {
            return self;
        }
        Self {
            expected: self.expected - before.expected,
            lost: self.lost.saturating_sub(before.lost),
            repaired: self.repaired.saturating_sub(before.repaired),
            retransmitted: self.retransmitted.saturating_sub(before.retransmitted),
        }
    }

    /// The score of these counts alone.
    fn score(self) -> u8 {
        if self.expected == 0 {
            return SCORE_MAX;
        }
        let expected = as_float(self.expected);
        let lost = as_float(self.lost.min(self.expected));
        let repaired = as_float(self.repaired).min(lost);
        // A repair is worth less the more of the stream is repaired, and the more often one packet
        // had to be sent again: that takes time, and the link's.
        let mut worth = (1.0 / (repaired / expected + 1.0)).powi(4);
        if self.retransmitted > 0 {
            worth *= (repaired / as_float(self.retransmitted)).min(1.0);
        }
        let delivered = (expected - (lost - repaired * worth)) / expected;
        rounded(delivered.powi(4) * f64::from(SCORE_MAX))
    }
}

/// The score of one stream.
#[derive(Debug, Clone)]
pub struct ScoreKeeper {
    /// Scores of single reports, the oldest first once all places are taken.
    history: [u8; SCORE_REPORTS],
    /// Places taken.
    len: u8,
    /// Where the oldest is, once all places are taken.
    oldest: u8,
    score: u8,
    before: Totals,
}

impl Default for ScoreKeeper {
    /// A stream that has not begun: 0.
    fn default() -> Self {
        Self { history: [0; SCORE_REPORTS], len: 0, oldest: 0, score: 0, before: Totals::default() }
    }
}

impl ScoreKeeper {
    /// A stream that has begun: 10.
    #[must_use]
    pub fn begun() -> Self {
        Self { score: SCORE_MAX, ..Self::default() }
    }

    /// The score now.
    #[must_use]
    pub fn score(&self) -> u8 {
        self.score
    }

    /// The stream arrives (again): what was before does not count. Nothing changes for one that
    /// arrives already.
    pub fn begin(&mut self) {
        if self.score == 0 && self.len == 0 {
            self.score = SCORE_MAX;
        }
    }

    /// The stream does not arrive.
    pub fn cease(&mut self) {
        let before = self.before;
        *self = Self { before, ..Self::default() };
    }

    /// Takes a report's counts.
    pub fn handle_report(&mut self, totals: Totals) {
        let single = totals.since(std::mem::replace(&mut self.before, totals)).score();
        let place = if usize::from(self.len) < SCORE_REPORTS {
            self.len += 1;
            self.len - 1
        } else {
            let oldest = self.oldest;
            self.oldest = if usize::from(oldest) + 1 < SCORE_REPORTS { oldest + 1 } else { 0 };
            oldest
        };
        if let Some(entry) = self.history.get_mut(usize::from(place)) {
            *entry = single;
        }
        self.score = self.mean();
    }

    /// The mean of the history, in which each report weighs one more than the one before.
    fn mean(&self) -> u8 {
        let (newer, older) =
            self.history.split_at_checked(usize::from(self.oldest)).unwrap_or((&[], &self.history));
        let in_order = older.iter().chain(newer).take(usize::from(self.len));
        let (mut sum, mut weights) = (0_u32, 0_u32);
        for (weight, score) in (1..).zip(in_order) {
            sum += weight * u32::from(*score);
            weights += weight;
        }
        rounded(f64::from(sum) / f64::from(weights.max(1)))
    }
}

/// Counts of packets are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "packet counts are far below 2^53")]
fn as_float(count: u64) -> f64 {
    count as f64
}

fn rounded(score: f64) -> u8 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0–10 before"
    )]
    let score = score.round().clamp(0.0, f64::from(SCORE_MAX)) as u8;
    score
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn totals(expected: u64, lost: u64, repaired: u64, retransmitted: u64) -> Totals {
        Totals { expected, lost, repaired, retransmitted }
    }

    #[test]
    fn one_report_is_scored_by_what_arrived_or_was_repaired() {
        // (expected, lost, repaired, retransmitted) → score
        for ((expected, lost, repaired, retransmitted), score) in [
            ((0, 0, 0, 0), 10),
            ((100, 0, 0, 0), 10),
            ((100, 1, 0, 0), 10),
            ((100, 5, 0, 0), 8),
            ((100, 10, 0, 0), 7),
            ((100, 20, 0, 0), 4),
            ((100, 50, 0, 0), 1),
            ((100, 100, 0, 0), 0),
            ((100, 10, 10, 10), 9),
            ((100, 20, 20, 20), 6),
            // Each took three attempts.
            ((100, 20, 20, 60), 5),
            // More repaired than lost, more lost than sent: what came before counts too.
            ((100, 0, 30, 30), 10),
            ((10, 90, 0, 0), 0),
        ] {
            let counted = totals(expected, lost, repaired, retransmitted);
            assert_eq!(counted.score(), score, "{counted:?}");
        }
    }

    #[test]
    fn later_reports_weigh_more_and_old_ones_are_forgotten() {
        let mut keeper = ScoreKeeper::begun();
        assert_eq!(keeper.score(), 10);
        let mut seen = Vec::new();
        let mut sum = Totals::default();
        for second in 0..80 {
            sum.expected += 100;
            // Half a minute of heavy loss, then none.
            sum.lost += if second < 30 { 50 } else { 0 };
            keeper.handle_report(sum);
            seen.push(keeper.score());
        }
        assert_eq!(seen[29], 1, "{seen:?}");
        assert!(seen[29..].is_sorted(), "{seen:?}");
        assert!(seen[36] > 4 && seen[40] < 10, "{seen:?}");
        assert_eq!(seen[29 + SCORE_REPORTS], 10, "{seen:?}");
    }

    #[test]
    fn a_stream_that_ceases_has_none_and_begins_with_the_best() {
        let mut keeper = ScoreKeeper::default();
        assert_eq!(keeper.score(), 0);
        keeper.begin();
        assert_eq!(keeper.score(), 10);
        keeper.handle_report(totals(100, 50, 0, 0));
        assert_eq!(keeper.score(), 1);
        keeper.begin();
        assert_eq!(keeper.score(), 1, "it has begun already");
        keeper.cease();
        assert_eq!(keeper.score(), 0);
        keeper.begin();
        keeper.handle_report(totals(200, 50, 0, 0));
        assert_eq!(keeper.score(), 10, "what was lost before is not lost again");
    }

    #[test]
    fn counts_that_begin_anew_are_taken_as_they_are() {
        let mut keeper = ScoreKeeper::begun();
        keeper.handle_report(totals(1000, 0, 0, 0));
        keeper.handle_report(totals(10, 10, 0, 0));
        assert_eq!(keeper.score(), 3, "10 weighs 1, 0 weighs 2");
    }

    proptest! {
        #[test]
        fn less_loss_is_never_worse(
            expected in 1_u64..2000, lost in 0_u64..2000, less in 0_u64..2000,
        ) {
            let few = totals(expected, lost.min(less), 0, 0).score();
            let many = totals(expected, lost, 0, 0).score();
            prop_assert!(few >= many && few <= SCORE_MAX);
        }

        #[test]
        fn any_counts_in_any_order_give_a_score(
            reports in proptest::collection::vec(any::<[u64; 4]>(), 0..60),
        ) {
            let mut keeper = ScoreKeeper::begun();
            for [expected, lost, repaired, retransmitted] in reports {
                keeper.handle_report(totals(expected, lost, repaired, retransmitted));
                prop_assert!(keeper.score() <= SCORE_MAX);
            }
        }
    }
}
