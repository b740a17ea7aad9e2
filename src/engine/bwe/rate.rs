//! The rate that delay allows: additive or multiplicative increase, multiplicative decrease
//! (draft-ietf-rmcat-gcc-02 §5.5).
//!
//! Pure. Differs from the draft where a sender of whole layers needs it: without a queue that
//! stands there is no decrease (trains make delay without congestion), and when the queue has gone
//! the rate goes back to what the path just delivered. A capacity that was measured, on overuse or
//! by a probe that filled the path, is remembered, longer each time the same is found again: layers
//! are not to be tried once more for what a probe shows within its noise.

use super::Usage;

/// Part of what was delivered that is sent on overuse (draft §5.5); less when much is queued, so
/// that it is gone within this time, and at least that part.
const DECREASE: f64 = 0.85;
const DRAIN_US: f64 = 2_000_000.0;
const DECREASE_LEAST: f64 = 0.4;
/// The same behind a queue as short as this, which may be somebody else's burst; the part above is
/// for one as long as that.
const DECREASE_SHORT: f64 = 0.95;
const SHORT_US: f64 = 15_000.0;
const LONG_US: f64 = 50_000.0;

/// Part of the capacity measured on overuse that is taken when its queue is gone.
const RESUME: f64 = 0.93;
const DRAINED_US: i64 = 15_000;

/// Growth a second far from the capacity (draft §5.5).
const GROWTH: f64 = 0.08;

/// Bits of the packet by which the rate grows each response time near the capacity.
const STEP_BITS: f64 = 9_600.0;
const STEP_BPS_MIN: f64 = 4_000.0;
/// A frame of a slow path is a smaller packet (libwebrtc: at 30 frames/s).
const FRAMES_S: f64 = 30.0;

/// Beyond so many times what is delivered (and a little) the rate does not grow unproven
/// (draft §5.5 has 1.5: with whole layers that is a layer too many; probes prove more).
const PROVED: f64 = 1.2;
const PROVED_EXTRA_BPS: f64 = 10_000.0;
/// The same near a known capacity: there is hardly more to be had.
const PROVED_NEAR: f64 = 1.08;

/// How long a measured capacity is believed in, first and at most; twice as long when the same is
/// found again within so many times that.
const CAPACITY_AGE_US: u64 = 20_000_000;
const CAPACITY_AGE_MAX_US: u64 = 160_000_000;
const CAPACITY_AGAIN: u64 = 3;

/// A probe that shows so much more than a known capacity shows another; less is the probe's noise.
const PROBE_NOISE: f64 = 1.15;

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
    /// Much less passes than is sent: the path became narrower.
    pub(super) is_outrun: bool,
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
    /// For so long it is believed in.
    age_us: u64,
}

impl Capacity {
    /// Of what is measured on overuse, and of what a probe shows (libwebrtc).
    const WEIGHT: f64 = 0.05;
    const WEIGHT_PROBED: f64 = 0.5;

    fn follow(before: Option<Self>, now_us: u64, bps: f64, weight: f64) -> Self {
        let before = before.filter(|it| (it.least_bps()..=it.most_bps()).contains(&bps));
        let kbps = bps / 1e3;
        let Some(Self { mean_kbps, spread_kbps, at_us, age_us }) = before else {
            let age_us = CAPACITY_AGE_US;
            return Self { mean_kbps: kbps, spread_kbps: 0.4, at_us: now_us, age_us };
        };
        let age_us = match now_us.saturating_sub(at_us) {
            since if since <= age_us => age_us,
            since if since <= CAPACITY_AGAIN * age_us => (2 * age_us).min(CAPACITY_AGE_MAX_US),
            _ => CAPACITY_AGE_US,
        };
        let mean = (1.0 - weight) * mean_kbps + weight * kbps;
        let error = kbps - mean;
        let spread = (1.0 - weight) * spread_kbps + weight * error * error / mean.max(1.0);
        Self { mean_kbps: mean, spread_kbps: spread.clamp(0.4, 2.5), at_us: now_us, age_us }
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

    fn is_known(&self, now_us: u64) -> bool {
        now_us.saturating_sub(self.at_us) <= self.age_us
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

    /// The path was full at a rate that nothing has exceeded since.
    pub(super) fn has_capacity(&self) -> bool {
        self.capacity.is_some()
    }

    /// A probe filled the path.
    pub(super) fn note_capacity(&mut self, now_us: u64, bps: f64) {
        let weight = Capacity::WEIGHT_PROBED;
        self.capacity = Some(Capacity::follow(self.capacity, now_us, bps, weight));
    }

    /// What of a probe's outcome is believed: near a known capacity a probe is too coarse to say that
    /// there is more. So much is sent beside that the probe may have passed without.
    pub(super) fn believed_bps(&self, now_us: u64, probed_bps: f64, untold_bps: f64) -> f64 {
        let Some(capacity) = self.capacity.filter(|capacity| capacity.is_known(now_us)) else {
            return probed_bps;
        };
        let mean_bps = 1e3 * capacity.mean_kbps;
        if probed_bps > capacity.most_bps().max(PROBE_NOISE * (mean_bps + untold_bps)) {
            probed_bps
        } else {
            probed_bps.min(mean_bps)
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
        let standing_us = seen.standing_us as f64;
        let lately = seen.lately_bps.unwrap_or(delivered);
        let is_short = standing_us < LONG_US && !seen.is_outrun;
        let measured = if is_short { lately.max(delivered) } else { lately };
        let response_us = seen.round_trip_us.clamp(50_000, 500_000) + 100_000;
        let waited = self.decreased_us.is_none_or(|at| now_us.saturating_sub(at) >= response_us);
        if !waited && measured > 0.5 * self.bps {
            return false;
        }
        self.capacity = Some(Capacity::follow(self.capacity, now_us, measured, Capacity::WEIGHT));
        let drains = 1.0 - standing_us / DRAIN_US;
        let short = ((LONG_US - standing_us) / (LONG_US - SHORT_US)).clamp(0.0, 1.0);
        let more = if is_short { short * (DECREASE_SHORT - DECREASE) } else { 0.0 };
        let most = DECREASE + more;
        let part = drains.clamp(DECREASE_LEAST, most);
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
        if self.capacity.is_some_and(|capacity| delivered > capacity.most_bps()) {
            self.capacity = None;
        }
        let is_near =
            |capacity: &Capacity| capacity.is_known(now_us) && self.bps >= capacity.least_bps();
        let is_near = self.capacity.as_ref().is_some_and(is_near);
        let (grown, proved) = if is_near {
            let response_s = (seen.round_trip_us as f64 / 1e6) + 0.1;
            let step = STEP_BITS.min(self.bps / FRAMES_S);
            (self.bps + (step / response_s).max(STEP_BPS_MIN) * passed_s, PROVED_NEAR)
        } else {
            (self.bps + (self.bps * GROWTH * passed_s).max(1e3 * passed_s), PROVED)
        };
        let most = proved * delivered + PROVED_EXTRA_BPS;
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
        is_outrun: false,
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

    #[test]
    fn near_a_known_capacity_a_probe_is_noise_until_it_shows_clearly_more() {
        let mut rate = Rate::new(0, 5e5);
        assert_eq!(rate.believed_bps(0, 7e5, 0.0), 7e5);
        rate.note_capacity(0, 6e5);
        for (probed, untold, believed) in [
            (5e5, 0.0, 5e5),
            (6.6e5, 0.0, 6e5),
            (8e5, 0.0, 8e5),
            // It may have had the place of what is sent beside.
            (8e5, 1e5, 6e5),
            (9e5, 1e5, 9e5),
        ] {
            assert_eq!(rate.believed_bps(19_000_000, probed, untold), believed, "{probed}");
        }
        assert_eq!(rate.believed_bps(21_000_000, 6.6e5, 0.0), 6.6e5, "it may have grown since");
        // Found again: it is believed for twice as long.
        rate.note_capacity(21_000_000, 6.1e5);
        assert!(rate.believed_bps(60_000_000, 6.6e5, 0.0) < 6.1e5);
        assert_eq!(rate.believed_bps(62_000_000, 6.6e5, 0.0), 6.6e5);
        rate.set(62_000_000, 9e5);
        assert_eq!(rate.believed_bps(62_000_000, 9.1e5, 0.0), 9.1e5, "another path");
    }

    #[test]
    fn near_a_known_capacity_it_grows_little_beyond_what_is_used() {
        let mut rate = Rate::new(0, 1e6);
        rate.note_capacity(0, 1e6);
        run(&mut rate, 100, 10_000, &SEEN);
        assert_eq!(rate.bps(), 1.09e6);
        run(&mut rate, 10_000, 40_000, &SEEN);
        assert_eq!(rate.bps(), 1.21e6, "when that is long ago");
    }
}
