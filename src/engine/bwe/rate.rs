//! The rate that delay allows: additive or multiplicative increase, multiplicative decrease
//! (draft-ietf-rmcat-gcc-02 §5.5).
//!
//! Pure. Differs from the draft where a sender of whole layers needs it: without a queue that
//! stands there is no decrease (trains make delay without congestion), and when the queue has gone
//! the rate goes back to what the path just delivered.

use super::Usage;

/// Part of what was delivered that is sent on overuse (draft §5.5); less when much is queued, so
/// that it is gone within this time, and at least that part.
const DECREASE: f64 = 0.85;
const DRAIN_US: f64 = 2_000_000.0;
const DECREASE_LEAST: f64 = 0.4;

/// Part of the capacity measured on overuse that is taken when its queue is gone.
const RESUME: f64 = 0.93;
const DRAINED_US: i64 = 15_000;

/// Growth a second far from the capacity (draft §5.5).
const GROWTH: f64 = 0.08;

/// Bits of the packet by which the rate grows each response time near the capacity.
const STEP_BITS: f64 = 9_600.0;
const STEP_BPS_MIN: f64 = 4_000.0;

/// Beyond so many times what is delivered (and a little) the rate does not grow unproven
/// (draft §5.5 has 1.5: with whole layers that is a layer too many; probes prove more).
const PROVED: f64 = 1.2;
const PROVED_EXTRA_BPS: f64 = 10_000.0;

/// How long a measured capacity is believed in.
const CAPACITY_AGE_US: u64 = 20_000_000;

/// What the path showed in one feedback.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) usage: Usage,
    /// What arrives, over the last half second, and over the last fifth.
    pub(super) delivered_bps: Option<f64>,
    pub(super) lately_bps: Option<f64>,
    /// Much less is sent than may be.
    pub(super) is_app_limited: bool,
    pub(super) standing_us: i64,
    pub(super) round_trip_us: u64,
    /// Loss holds growth back.
    pub(super) is_held: bool,
}

/// The mean of what was delivered on overuse, with its deviation (draft §5.5).
#[derive(Debug, Clone, Copy)]
struct Capacity {
    mean_kbps: f64,
    /// Squared deviation relative to the mean, in kbit/s.
    spread_kbps: f64,
    at_us: u64,
}

impl Capacity {
    const WEIGHT: f64 = 0.05;

    fn follow(before: Option<Self>, now_us: u64, bps: f64) -> Self {
        let kbps = bps / 1e3;
        let Some(Self { mean_kbps, spread_kbps, .. }) = before else {
            return Self { mean_kbps: kbps, spread_kbps: 0.4, at_us: now_us };
        };
        let mean = (1.0 - Self::WEIGHT) * mean_kbps + Self::WEIGHT * kbps;
        let error = kbps - mean;
        let spread =
            (1.0 - Self::WEIGHT) * spread_kbps + Self::WEIGHT * error * error / mean.max(1.0);
        Self { mean_kbps: mean, spread_kbps: spread.clamp(0.4, 2.5), at_us: now_us }
    }

    fn reach_bps(&self) -> f64 {
        3e3 * (self.spread_kbps * self.mean_kbps).sqrt()
    }

    fn least_bps(&self) -> f64 {
        self.mean_kbps * 1e3 - self.reach_bps()
    }

    fn most_bps(&self) -> f64 {
        self.mean_kbps * 1e3 + self.reach_bps()
    }
}

/// The delay-based rate.
#[derive(Debug)]
pub(super) struct Rate {
    bps: f64,
    capacity: Option<Capacity>,
    updated_us: u64,
    decreased_us: Option<u64>,
    /// A decrease whose queue has not gone yet, and what was delivered then.
    draining_bps: Option<f64>,
}

impl Rate {
    pub(super) fn new(now_us: u64, bps: f64) -> Self {
        Self { bps, capacity: None, updated_us: now_us, decreased_us: None, draining_bps: None }
    }

    pub(super) fn bps(&self) -> f64 {
        self.bps
    }

    /// What was delivered at a decrease whose queue has not gone yet.
    pub(super) fn draining_bps(&self) -> Option<f64> {
        self.draining_bps
    }

    /// When it last decreased because of delay.
    pub(super) fn decreased_us(&self) -> Option<u64> {
        self.decreased_us
    }

    /// Takes a rate that was measured otherwise: by a probe, or by loss.
    pub(super) fn set(&mut self, now_us: u64, bps: f64) {
        self.bps = bps;
        self.updated_us = now_us;
        self.draining_bps = None;
        if self.capacity.is_some_and(|capacity| bps > capacity.most_bps()) {
            self.capacity = None;
        }
    }

    /// Stays within limits.
    pub(super) fn clamp(&mut self, min_bps: f64, max_bps: f64) {
        self.bps = self.bps.min(max_bps).max(min_bps);
    }

    /// Goes on with what a feedback showed. Returns whether the rate decreased.
    pub(super) fn handle(&mut self, now_us: u64, seen: &Seen) -> bool {
        let passed_s = (now_us.saturating_sub(self.updated_us)).min(1_000_000) as f64 / 1e6;
        self.updated_us = now_us;
        match seen.usage {
            Usage::Over => return self.decrease(now_us, seen),
            Usage::Under => {}
            Usage::Normal => self.increase(now_us, passed_s, seen),
        }
        false
    }

    fn decrease(&mut self, now_us: u64, seen: &Seen) -> bool {
        let Some(delivered) = seen.delivered_bps.or(seen.lately_bps) else { return false };
        // While the queue stands the last moments show the path's capacity, before them perhaps
        // what we sent.
        let measured = seen.lately_bps.unwrap_or(delivered);
        let response_us = seen.round_trip_us.clamp(50_000, 500_000) + 100_000;
        let waited = self.decreased_us.is_none_or(|at| now_us.saturating_sub(at) >= response_us);
        if !waited && measured > 0.5 * self.bps {
            return false;
        }
        if self.capacity.is_some_and(|capacity| measured < capacity.least_bps()) {
            self.capacity = None;
        }
        self.capacity = Some(Capacity::follow(self.capacity, now_us, measured));
        let drains = 1.0 - seen.standing_us as f64 / DRAIN_US;
        let part = drains.clamp(DECREASE_LEAST, DECREASE);
        let bps = part * measured;
        self.decreased_us = Some(now_us);
        self.draining_bps = Some(measured);
        let decreased = bps < self.bps;
        self.bps = self.bps.min(bps);
        decreased
    }

    fn increase(&mut self, now_us: u64, passed_s: f64, seen: &Seen) {
        if seen.standing_us <= DRAINED_US
            && let Some(measured) = self.draining_bps.take()
        {
            self.bps = self.bps.max(RESUME * measured);
        }
        if seen.is_held || seen.is_app_limited {
            return;
        }
        let Some(delivered) = seen.delivered_bps else { return };
        let aged = |capacity: &Capacity| now_us.saturating_sub(capacity.at_us) > CAPACITY_AGE_US;
        if self.capacity.is_some_and(|c| delivered > c.most_bps() || aged(&c)) {
            self.capacity = None;
        }
        let grown = if self.capacity.is_some_and(|capacity| self.bps >= capacity.least_bps()) {
            let response_s = (seen.round_trip_us as f64 / 1e6) + 0.1;
            self.bps + (STEP_BITS / response_s).max(STEP_BPS_MIN) * passed_s
        } else {
            self.bps + (self.bps * GROWTH * passed_s).max(1e3 * passed_s)
        };
        let most = PROVED * delivered + PROVED_EXTRA_BPS;
        self.bps = grown.min(most).max(self.bps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Seen = Seen {
        usage: Usage::Normal,
        delivered_bps: Some(1e6),
        lately_bps: Some(1e6),
        is_app_limited: false,
        standing_us: 0,
        round_trip_us: 100_000,
        is_held: false,
    };

    /// A feedback every 100 ms; returns the rate after each.
    fn run(rate: &mut Rate, from_ms: u64, to_ms: u64, seen: &Seen) -> Vec<f64> {
        let each = |at_ms: u64| {
            rate.handle(at_ms * 1_000, seen);
            rate.bps()
        };
        (from_ms..to_ms).step_by(100).map(each).collect()
    }

    #[test]
    fn it_grows_by_a_part_up_to_what_is_proved() {
        let mut rate = Rate::new(0, 1e6);
        let grown = run(&mut rate, 100, 1_100, &SEEN);
        assert!(grown.is_sorted() && (1.08e6..1.09e6).contains(&grown[9]), "{grown:?}");
        run(&mut rate, 1_100, 30_000, &SEEN);
        assert_eq!(rate.bps(), 1.21e6);
    }

    #[test]
    fn it_neither_grows_nor_falls_while_little_is_sent() {
        for seen in [
            Seen { is_app_limited: true, ..SEEN },
            Seen { is_held: true, ..SEEN },
            Seen { delivered_bps: None, ..SEEN },
            Seen { usage: Usage::Under, ..SEEN },
        ] {
            let mut rate = Rate::new(0, 1.4e6);
            run(&mut rate, 100, 10_000, &seen);
            assert_eq!(rate.bps(), 1.4e6, "{seen:?}");
        }
    }

    #[test]
    fn overuse_leaves_room_for_the_queue_to_go_then_takes_the_capacity_and_creeps() {
        let mut rate = Rate::new(0, 2e6);
        let over = Seen { usage: Usage::Over, standing_us: 50_000, ..SEEN };
        let fallen = run(&mut rate, 100, 400, &over);
        assert!(fallen.iter().all(|bps| *bps == 0.85e6), "{fallen:?}");
        let back = run(&mut rate, 400, 1_400, &SEEN);
        assert!((0.93e6..1e6).contains(&back[0]) && back[9] < 1.02e6, "{back:?}");
        let deep = Seen { usage: Usage::Over, standing_us: 500_000, ..SEEN };
        assert!(rate.handle(1_500_000, &deep));
        assert_eq!(rate.bps(), 0.75e6);
        assert!(rate.handle(1_900_000, &Seen { standing_us: 5_000_000, ..deep }));
        assert_eq!(rate.bps(), 0.4e6);
        rate.set(1_600_000, 5e6);
        assert_eq!(rate.bps(), 5e6);
        rate.clamp(3e4, 4e6);
        assert_eq!(rate.bps(), 4e6);
    }
}
