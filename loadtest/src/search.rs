//! Where to look next for the highest rate that holds: ramp, bisection, confirmation. Pure.
//!
//! Rates are multiples of the plan's. The ramp multiplies by [`STEP`] until a rate breaks (or divides
//! until one holds); bisection halves the gap in proportion until it is at most [`TOLERANCE`]; the
//! highest rate that held must then hold once more, or it counts as broken and the search goes on
//! below it. So one lucky window is never the answer.

use serde::Serialize;

/// Factor from one step of the ramp to the next.
pub(crate) const STEP: f64 = 1.5;

/// The answer is at most this factor below a rate that broke.
pub(crate) const TOLERANCE: f64 = 1.05;

/// Steps at most: a ramp over three decades, and a bisection that is sent back a few times.
const STEPS_MAX: usize = 40;

/// How far below the first rate the ramp looks: its division by 1.5 to this power (about 130).
const DOWN_MAX: i32 = 12;

/// Why a rate is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// No bracket yet.
    Ramp,
    /// Between one that held and one that broke.
    Bisect,
    /// The best again.
    Confirm,
}

impl Phase {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ramp => "ramp",
            Self::Bisect => "bisect",
            Self::Confirm => "confirm",
        }
    }
}

/// The state of a search.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    start: f64,
    /// Rates that held, ascending.
    held: Vec<f64>,
    /// The lowest rate that broke.
    broken: Option<f64>,
    confirmed: bool,
    steps: usize,
}

impl Search {
    /// A search that begins at a rate.
    pub(crate) fn from(start: f64) -> Self {
        Self { start, held: Vec::new(), broken: None, confirmed: false, steps: 0 }
    }

    /// What to try next; `None` when the answer is known or cannot be found.
    pub(crate) fn next(&self) -> Option<(Phase, f64)> {
        if self.steps >= STEPS_MAX || self.confirmed {
            return None;
        }
        match (self.best(), self.broken) {
            (None, None) => Some((Phase::Ramp, self.start)),
            (Some(held), None) => Some((Phase::Ramp, held * STEP)),
            (None, Some(broken)) => {
                let next = broken / STEP;
                (next > self.start / STEP.powi(DOWN_MAX)).then_some((Phase::Ramp, next))
            }
            (Some(held), Some(broken)) if broken / held > TOLERANCE => {
                Some((Phase::Bisect, (held * broken).sqrt()))
            }
            (Some(held), Some(_)) => Some((Phase::Confirm, held)),
        }
    }

    /// What became of the rate that [`next`](Self::next) named.
    pub(crate) fn note(&mut self, holds: bool) {
        let Some((phase, rate)) = self.next() else { return };
        self.steps += 1;
        match (phase, holds) {
            (Phase::Confirm, true) => self.confirmed = true,
            (Phase::Confirm, false) => {
                self.held.pop();
                self.broken = Some(rate);
            }
            (_, true) => self.held.push(rate),
            (_, false) => self.broken = Some(rate),
        }
    }

    /// The highest rate that held.
    pub(crate) fn best(&self) -> Option<f64> {
        self.held.last().copied()
    }

    /// Whether it held twice, with a rate that broke just above.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a server whose `n`-th answer at a rate is `holds(n, rate)`.
    fn search(
        start: f64,
        mut holds: impl FnMut(usize, f64) -> bool,
    ) -> (Search, Vec<(Phase, f64)>) {
        let mut search = Search::from(start);
        let mut steps = Vec::new();
        while let Some(step) = search.next() {
            search.note(holds(steps.len(), step.1));
            steps.push(step);
        }
        (search, steps)
    }

    #[test]
    fn any_limit_is_found_from_any_start_to_the_tolerance() {
        for limit in [0.1, 0.99, 1.0, 1.01, 2.0, 7.3, 63.0, 600.0] {
            for start in [0.2, 1.0, 5.0] {
                let (search, steps) = search(start, |_, rate| rate <= limit);
                let best = search.best().unwrap();
                assert!(search.is_confirmed(), "{limit} from {start}");
                assert!(best <= limit && limit <= best * TOLERANCE, "{limit} from {start}: {best}");
                assert!(steps.len() <= 28, "{limit} from {start}: {} steps", steps.len());
                assert_eq!(steps.last().unwrap().0, Phase::Confirm);
            }
        }
    }

    #[test]
    fn the_ramp_multiplies_and_then_the_gap_is_halved() {
        let (_, steps) = search(1.0, |_, rate| rate <= 2.0);
        let ramp: Vec<_> = steps.iter().take_while(|(phase, _)| *phase == Phase::Ramp).collect();
        assert_eq!(ramp.iter().map(|(_, rate)| *rate).collect::<Vec<_>>(), [1.0, 1.5, 2.25]);
        assert_eq!(steps[3].0, Phase::Bisect);
        assert!((steps[3].1 - (1.5_f64 * 2.25).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn a_best_that_does_not_hold_again_is_not_the_answer() {
        // Luck: above 2 a rate holds once, never twice.
        let mut seen = Vec::new();
        let (found, _) = search(1.0, |_, rate| {
            let again = seen.contains(&rate.to_bits());
            seen.push(rate.to_bits());
            rate <= 2.0 || (rate <= 2.2 && !again)
        });
        assert!(found.is_confirmed());
        assert!(found.best().unwrap() <= 2.0);
    }

    #[test]
    fn a_server_that_never_holds_or_never_breaks_ends_the_search() {
        let (never, steps) = search(1.0, |_, _| false);
        assert_eq!((never.best(), never.is_confirmed()), (None, false));
        assert!(steps.len() <= 13);
        let (always, steps) = search(1.0, |_, _| true);
        assert!(!always.is_confirmed());
        assert_eq!(steps.len(), STEPS_MAX);
    }
}
