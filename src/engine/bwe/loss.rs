//! The rate that loss allows, when it is congestion that loses and not chance.
//!
//! In the spirit of libwebrtc's second loss-based estimator, with fewer means: loss that is more
//! than tolerated, beyond what chance explains, limits the rate to what was delivered. The limit is
//! then the experiment. If the loss goes with it, it was congestion (a policer, a short queue), and
//! growth is held for a while, longer each time it happens again. If the same loss stays, it does
//! not depend on the rate: the limit is lifted and that much is tolerated. Pure.

/// Loss that no rate is lowered for: repair copes with it, and radio links have it.
const TOLERATED: f64 = 0.1;

/// Loss of chance is tolerated with this margin, and up to so much of it.
const TOLERATED_MARGIN: f64 = 1.3;
const TOLERATED_MAX: f64 = 0.4;

/// A packet is counted for one to two of these.
const WINDOW_US: u64 = 500_000;

/// Fewer packets say nothing.
const PACKETS_MIN: u32 = 10;
/// Packets after which an experiment is decided.
const PACKETS_DECIDE: u32 = 50;

/// Standard deviations beyond which it is not chance.
const DEVIATIONS: f64 = 3.0;

/// Part of the delivered rate that is kept.
const KEPT: f64 = 0.95;

/// How long growth is held, first and at most; quiet for twice as long makes it forget.
const HOLD_US: u64 = 15_000_000;
const HOLD_MAX_US: u64 = 60_000_000;

/// What became of the packets of a window.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    packets: u32,
    lost: u32,
    bytes: u64,
    lost_bytes: u64,
    first_us: u64,
    last_us: u64,
}

impl Count {
    fn add(&mut self, at_us: u64, bytes: u32, lost: bool) {
        if self.packets == 0 {
            self.first_us = at_us;
        }
        self.last_us = self.last_us.max(at_us);
        self.packets += 1;
        self.bytes += u64::from(bytes);
        self.lost += u32::from(lost);
        self.lost_bytes += if lost { u64::from(bytes) } else { 0 };
    }

    fn with(&self, other: &Self) -> Self {
        if other.packets == 0 {
            return *self;
        }
        Self {
            packets: self.packets + other.packets,
            lost: self.lost + other.lost,
            bytes: self.bytes + other.bytes,
            lost_bytes: self.lost_bytes + other.lost_bytes,
            first_us: other.first_us,
            last_us: self.last_us.max(other.last_us),
        }
    }

    fn ratio(&self) -> f64 {
        f64::from(self.lost) / f64::from(self.packets.max(1))
    }

    /// Loses more than `ratio` of its packets, beyond chance.
    fn exceeds(&self, ratio: f64) -> bool {
        let packets = f64::from(self.packets);
        let chance = DEVIATIONS * (packets * ratio * (1.0 - ratio)).sqrt();
        self.packets >= PACKETS_MIN && f64::from(self.lost) > packets * ratio + chance + 1.0
    }

    fn delivered_bps(&self) -> Option<f64> {
        let span_us = self.last_us.saturating_sub(self.first_us);
        let bytes = self.bytes - self.lost_bytes;
        (span_us >= 100_000).then(|| bytes as f64 * 8e6 / span_us as f64)
    }
}

/// A limit that was set, and why.
#[derive(Debug, Clone, Copy)]
struct Trial {
    since_us: u64,
    /// The rate before.
    before_bps: f64,
    /// The loss that set it.
    ratio: f64,
    /// What was sent since the limit took effect, until it is decided.
    count: Count,
    decided: bool,
}

/// What loss asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// No more than this may be sent.
    Limit(f64),
    /// The last limit did not help: back to the rate before it.
    Restore(f64),
}

/// Judges loss.
#[derive(Debug)]
pub(super) struct Loss {
    current: Count,
    before: Count,
    tolerated: f64,
    trial: Option<Trial>,
    hold_us: u64,
}

impl Loss {
    pub(super) fn new() -> Self {
        Self {
            current: Count::default(),
            before: Count::default(),
            tolerated: TOLERATED,
            trial: None,
            hold_us: HOLD_US,
        }
    }

    /// A packet was told of for the first time.
    pub(super) fn handle_packet(&mut self, at_us: u64, bytes: u32, lost: bool) {
        if at_us.saturating_sub(self.current.first_us) >= WINDOW_US && self.current.packets > 0 {
            self.before = std::mem::take(&mut self.current);
        }
        self.current.add(at_us, bytes, lost);
        if let Some(trial) = self.trial.as_mut().filter(|trial| !trial.decided)
            && at_us > trial.since_us
        {
            trial.count.add(at_us, bytes, lost);
        }
    }

    /// A packet told lost arrived after all.
    pub(super) fn handle_late(&mut self, at_us: u64, bytes: u32) {
        let counts = [&mut self.current, &mut self.before];
        if let Some(count) =
            counts.into_iter().find(|count| at_us >= count.first_us && count.lost > 0)
        {
            count.lost -= 1;
            count.lost_bytes = count.lost_bytes.saturating_sub(u64::from(bytes));
        }
    }

    /// The part of the packets lost within the last second.
    pub(super) fn ratio(&self) -> f64 {
        self.current.with(&self.before).ratio()
    }

    /// A limit was set and is not forgotten.
    pub(super) fn is_limiting(&self) -> bool {
        self.trial.is_some()
    }

    /// Growth is held.
    pub(super) fn is_held(&self, now_us: u64) -> bool {
        self.trial.is_some_and(|trial| now_us.saturating_sub(trial.since_us) < self.hold_us)
    }

    /// Judges what was told of so far. `bps` is the rate that was allowed meanwhile.
    pub(super) fn judge(&mut self, now_us: u64, bps: f64, round_trip_us: u64) -> Option<Verdict> {
        if let Some(verdict) = self.decide() {
            return Some(verdict);
        }
        let quiet_us = self.trial.map_or(0, |trial| now_us.saturating_sub(trial.since_us));
        if quiet_us > self.hold_us * 2 {
            self.trial = None;
            self.hold_us = HOLD_US;
        }
        if self.trial.is_some_and(|trial| !trial.decided) {
            return None;
        }
        let both = self.current.with(&self.before);
        if !self.current.exceeds(self.tolerated) && !both.exceeds(self.tolerated) {
            return None;
        }
        let delivered = both.delivered_bps()?;
        let again = self.trial.is_some_and(|_| quiet_us > self.hold_us);
        if again {
            self.hold_us = (self.hold_us * 2).min(HOLD_MAX_US);
        }
        let limit = KEPT * delivered;
        self.trial = Some(Trial {
            // What left before the receivers of the limit know of it does not count.
            since_us: now_us + round_trip_us.min(500_000) / 2,
            before_bps: bps,
            ratio: both.ratio(),
            count: Count::default(),
            decided: false,
        });
        self.current = Count::default();
        self.before = Count::default();
        (limit < bps).then_some(Verdict::Limit(limit))
    }

    /// Whether the last limit helped, once that can be said.
    fn decide(&mut self) -> Option<Verdict> {
        let trial = self.trial.as_mut().filter(|trial| !trial.decided)?;
        let count = &trial.count;
        if count.packets < PACKETS_DECIDE {
            return None;
        }
        trial.decided = true;
        let ratio = count.ratio();
        if ratio < 0.6 * trial.ratio || ratio < self.tolerated {
            return None;
        }
        let before_bps = trial.before_bps;
        self.trial = None;
        self.tolerated = (ratio * TOLERATED_MARGIN).clamp(self.tolerated, TOLERATED_MAX);
        Some(Verdict::Restore(before_bps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 1,000 bytes every 5 ms (1.6 Mbit/s), of which `lost` of 20 are lost; judged every
    /// 100 ms. Returns what was asked for, and when.
    fn run(loss: &mut Loss, from_ms: u64, to_ms: u64, lost: u64) -> Vec<(u64, Verdict)> {
        let mut verdicts = Vec::new();
        for at_ms in (from_ms..to_ms).step_by(5) {
            // 7 is prime to 20: the losses are spread.
            loss.handle_packet(at_ms * 1_000, 1_000, at_ms / 5 * 7 % 20 < lost);
            if at_ms.is_multiple_of(100)
                && let Some(verdict) = loss.judge(at_ms * 1_000, 1.6e6, 100_000)
            {
                verdicts.push((at_ms, verdict));
            }
        }
        verdicts
    }

    #[test]
    fn what_is_tolerated_limits_nothing() {
        let mut loss = Loss::new();
        for lost in [0, 1, 2] {
            assert_eq!(run(&mut loss, 0, 20_000, lost), []);
        }
        assert!(!loss.is_held(20_000_000));
    }

    #[test]
    fn loss_that_goes_with_the_limit_was_congestion_and_holds_growth() {
        let mut loss = Loss::new();
        let verdicts = run(&mut loss, 0, 150, 8);
        let [(100, Verdict::Limit(bps))] = verdicts[..] else { panic!("{verdicts:?}") };
        assert!((0.8e6..1e6).contains(&bps), "{bps}");
        assert_eq!(run(&mut loss, 150, 10_000, 0), []);
        assert!(loss.is_held(10_000_000) && !loss.is_held(16_000_000));
        // When it comes again after the hold, the hold is longer.
        assert_eq!(run(&mut loss, 10_000, 17_000, 0), []);
        assert_eq!(run(&mut loss, 17_000, 17_250, 8).len(), 1);
        assert_eq!(run(&mut loss, 17_250, 40_000, 0), []);
        assert!(loss.is_held(40_000_000) && !loss.is_held(48_000_000));
    }

    #[test]
    fn loss_that_stays_is_chance_and_tolerated_from_then_on() {
        let mut loss = Loss::new();
        let verdicts = run(&mut loss, 0, 10_000, 5);
        let [(_, Verdict::Limit(_)), (at_ms, Verdict::Restore(bps))] = verdicts[..] else {
            panic!("{verdicts:?}")
        };
        assert!(at_ms < 1_500 && bps > 1.59e6, "{at_ms} {bps}");
        assert!(!loss.is_held(10_000_000));
        assert!(!run(&mut loss, 10_000, 10_500, 16).is_empty(), "more than that is not");
    }

    #[test]
    fn what_arrives_late_was_not_lost() {
        let mut loss = Loss::new();
        (0..100).for_each(|n| loss.handle_packet(n * 1_000, 1_000, n < 50));
        (0..50).for_each(|n| loss.handle_late(n * 1_000, 1_000));
        assert_eq!(loss.ratio(), 0.0);
        assert_eq!(loss.judge(100_000, 1e6, 50_000), None);
    }
}
