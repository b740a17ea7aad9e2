//! A path to one receiver in virtual time: capacity, queue, policer, loss, delay, jitter.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How packets are lost by chance.
#[derive(Debug, Clone, Copy)]
pub(super) enum Chance {
    /// Each by itself.
    Each(f64),
    /// In runs of this mean length.
    Runs(f64, f64),
}

/// What a path is like.
#[derive(Debug, Clone)]
pub(super) struct Path {
    /// Bits per second from which second on.
    pub(super) capacity: Vec<(u64, f64)>,
    pub(super) round_trip_ms: u64,
    /// The longest queue, at the capacity of the moment.
    pub(super) queue_ms: u64,
    /// What may pass at once after a pause, in time at the capacity.
    pub(super) bucket_ms: u64,
    /// Drops what exceeds the bucket instead of queueing it.
    pub(super) polices: bool,
    pub(super) chance: Chance,
    /// The receiver's network hands over what came within this much time in one go.
    pub(super) jitter_ms: u64,
}

impl Path {
    pub(super) fn of(kbps: f64) -> Self {
        Self {
            capacity: vec![(0, kbps * 1e3)],
            round_trip_ms: 60,
            queue_ms: 300,
            bucket_ms: 0,
            polices: false,
            chance: Chance::Each(0.0),
            jitter_ms: 0,
        }
    }

    pub(super) fn capacity_at(&self, at_us: u64) -> f64 {
        let begun = self.capacity.iter().rev().find(|(from_s, _)| from_s * 1_000_000 <= at_us);
        begun.expect("a capacity from the beginning").1
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passage {
    /// When it arrives, if it does.
    pub(super) arrival_us: Option<u64>,
    /// How long it waited.
    pub(super) queued_us: u64,
}

/// A path in use.
pub(super) struct Link {
    pub(super) path: Path,
    rng: StdRng,
    /// When all that was accepted would have been sent at the capacity.
    busy_until_us: f64,
    last_arrival_us: u64,
    in_run: bool,
}

impl Link {
    pub(super) fn new(path: Path, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { path, rng, busy_until_us: 0.0, last_arrival_us: 0, in_run: false }
    }

    pub(super) fn send(&mut self, at_us: u64, bytes: usize) -> Passage {
        let at = at_us as f64;
        let start_us = self.busy_until_us.max(at);
        let bps = self.path.capacity_at(super::super::whole(start_us));
        let bucket_us = self.path.bucket_ms as f64 * 1e3;
        let done_us = start_us + bytes as f64 * 8e6 / bps;
        let leaves_us = (done_us - bucket_us).max(at);
        let most_us = if self.path.polices { 0.0 } else { self.path.queue_ms as f64 * 1e3 };
        // A queue holds at least a packet or two, however slow the link is.
        let fits =
            leaves_us - at <= most_us.max(if self.path.polices { 0.0 } else { 3e7 * 8e2 / bps });
        let queued_us = super::super::whole(leaves_us - at);
        if !fits {
            return Passage { arrival_us: None, queued_us };
        }
        self.busy_until_us = done_us;
        if self.is_lost() {
            return Passage { arrival_us: None, queued_us };
        }
        let mut arrival_us = super::super::whole(leaves_us) + self.path.round_trip_ms * 500;
        if self.path.jitter_ms > 0 {
            let every_us = self.path.jitter_ms * 1_000;
            arrival_us = arrival_us.div_ceil(every_us) * every_us;
            arrival_us += self.rng.random_range(0..every_us / 4);
        }
        self.last_arrival_us = self.last_arrival_us.max(arrival_us);
        Passage { arrival_us: Some(self.last_arrival_us), queued_us }
    }

    fn is_lost(&mut self) -> bool {
        match self.path.chance {
            Chance::Each(part) => self.rng.random::<f64>() < part,
            Chance::Runs(part, length) => {
                let change = if self.in_run { 1.0 / length } else { part / length / (1.0 - part) };
                if self.rng.random::<f64>() < change {
                    self.in_run = !self.in_run;
                }
                self.in_run
            }
        }
    }
}
