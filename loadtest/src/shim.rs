//! A bad network in one direction of one transport: seeded loss, in bursts if asked for, and
//! reordering.
//!
//! Owned by an endpoint and asked for every datagram with SRTP or SRTCP in it; ICE and DTLS pass.
//! Loss is Gilbert's two-state chain with the asked mean and the asked mean burst; bursts no longer
//! than chance makes them are independent losses. A held datagram is let go behind one to three
//! later ones. No clock: the fate of the n-th datagram follows from the seed.

use std::collections::VecDeque;

use crate::rng::Rng;

/// A datagram waits for this many later ones at most.
const HELD_FOR_MAX: u64 = 3;

/// Datagrams held at a time, at most; more pass.
const HELD_MAX: usize = 64;

/// What is done to a direction.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Conditions {
    /// Share of datagrams lost, 0 to 1.
    pub(crate) loss: f64,
    /// Datagrams lost in a row, on average.
    pub(crate) burst: f64,
    /// Share of datagrams held back, 0 to 1.
    pub(crate) reorder: f64,
}

impl Conditions {
    /// True when something is done at all.
    pub(crate) fn are_bad(&self) -> bool {
        self.loss > 0.0 || self.reorder > 0.0
    }
}

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives now.
    Pass,
    /// It never arrives.
    Drop,
    /// It arrives later: give it to [`Shim::hold`].
    Hold,
}

/// One direction of one transport.
#[derive(Debug)]
pub(crate) struct Shim {
    rng: Rng,
    start: f64,
    stay: f64,
    reorder: f64,
    losing: bool,
    held: VecDeque<(u64, Vec<u8>)>,
}

impl Shim {
    /// A direction in which `conditions` hold.
    pub(crate) fn new(conditions: Conditions, rng: Rng) -> Self {
        let kept = (1.0 - conditions.loss).max(1e-6);
        // Independent losses make bursts of 1 / (1 - loss) by chance.
        let leave = 1.0 / conditions.burst.max(1.0 / kept);
        let start = (conditions.loss * leave / kept).min(1.0);
        let reorder = conditions.reorder;
        Self { rng, start, stay: 1.0 - leave, reorder, losing: false, held: VecDeque::new() }
    }

    /// The fate of the next datagram.
    pub(crate) fn fate(&mut self) -> Fate {
        let likely = if self.losing { self.stay } else { self.start };
        self.losing = self.chance(likely);
        if self.losing {
            Fate::Drop
        } else if self.held.len() < HELD_MAX && self.chance(self.reorder) {
            Fate::Hold
        } else {
            // Those in wait let one more pass.
            self.held.iter_mut().for_each(|(left, _)| *left = left.saturating_sub(1));
            Fate::Pass
        }
    }

    /// Keeps a datagram whose fate is [`Fate::Hold`].
    pub(crate) fn hold(&mut self, datagram: &[u8]) {
        let left = 1 + self.rng.below(HELD_FOR_MAX);
        self.held.push_back((left, datagram.to_vec()));
    }

    /// A held datagram whose time has come; ask after each one that passed.
    pub(crate) fn release(&mut self) -> Option<Vec<u8>> {
        let place = self.held.iter().position(|(left, _)| *left == 0)?;
        self.held.remove(place).map(|(_, datagram)| datagram)
    }

    fn chance(&mut self, likely: f64) -> bool {
        const STEPS: u32 = 1 << 24;
        let drawn = u32::try_from(self.rng.below(u64::from(STEPS))).unwrap_or(0);
        f64::from(drawn) < likely * f64::from(STEPS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Losses, and how many runs of losses, of `count` datagrams.
    fn play(conditions: Conditions, count: u32) -> (u32, u32) {
        let mut shim = Shim::new(conditions, Rng::new(7));
        let (mut lost, mut runs, mut before) = (0, 0, false);
        for _ in 0..count {
            let now = shim.fate() == Fate::Drop;
            lost += u32::from(now);
            runs += u32::from(now && !before);
            before = now;
        }
        (lost, runs)
    }

    #[test]
    fn losses_have_the_mean_and_the_bursts_that_were_asked_for() {
        for (loss, burst) in [(0.02, 1.0), (0.02, 4.0), (0.3, 1.0), (0.1, 10.0)] {
            let (lost, runs) = play(Conditions { loss, burst, reorder: 0.0 }, 400_000);
            let share = f64::from(lost) / 400_000.0;
            assert!((share / loss - 1.0).abs() < 0.1, "{loss}: {share}");
            let run = f64::from(lost) / f64::from(runs);
            let expected: f64 = f64::max(burst, 1.0 / (1.0 - loss));
            assert!((run / expected - 1.0).abs() < 0.1, "{burst}: {run}");
        }
        let extremes = [(0.0, 0), (1.0, 1_000)];
        for (loss, lost) in extremes {
            assert_eq!(play(Conditions { loss, burst: 1.0, reorder: 0.0 }, 1_000).0, lost);
        }
    }

    #[test]
    fn held_datagrams_arrive_once_behind_at_most_three_later_ones() {
        let conditions = Conditions { loss: 0.0, burst: 1.0, reorder: 0.2 };
        let mut shim = Shim::new(conditions, Rng::new(1));
        let mut arrived = Vec::new();
        for number in 0..1_000_u32 {
            match shim.fate() {
                Fate::Pass => arrived.push(number),
                Fate::Hold => shim.hold(&number.to_be_bytes()),
                Fate::Drop => panic!("nothing is lost"),
            }
            while let Some(held) = shim.release() {
                arrived.push(u32::from_be_bytes(held.try_into().unwrap()));
            }
        }
        let moved = arrived.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!(moved > 50, "{moved}");
        let mut sorted = arrived.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), arrived.len(), "none twice");
        assert!(arrived.len() > 990, "only the last ones may still be held");
    }

    #[test]
    fn a_seed_names_a_network() {
        let conditions = Conditions { loss: 0.1, burst: 3.0, reorder: 0.1 };
        let fates = |seed| {
            let mut shim = Shim::new(conditions, Rng::new(seed));
            (0..200).map(|_| shim.fate()).collect::<Vec<_>>()
        };
        assert_eq!(fates(3), fates(3));
        assert_ne!(fates(3), fates(4));
    }
}
