//! The rate that loss allows, when it is congestion that loses and not chance.
//!
//! In the spirit of libwebrtc's second loss-based estimator, with fewer means: loss that is more
//! than tolerated, beyond what chance explains, limits the rate to what was delivered. The limit is
//! then the experiment. If the loss goes with it, it was congestion (a policer, a short queue), and
//! growth is held for a while, longer each time it happens again. If the same loss stays, it does
//! not depend on the rate: the limit is lifted and that much is tolerated. Less than what is
//! tolerated is congestion too where clearly less is lost at lower rates. Pure.

use super::whole;

/// Loss that no rate is lowered for: repair copes with it, and radio links have it.
const TOLERATED: f64 = 0.1;

/// Loss of chance is tolerated with this margin, and up to so much of it.
const TOLERATED_MARGIN: f64 = 1.3;
const TOLERATED_MAX: f64 = 0.4;

/// A window lasts at least this long, and longer while it has few packets.
const WINDOW_US: u64 = 500_000;
const WINDOW_US_MAX: u64 = 2_000_000;
const WINDOW_PACKETS: u32 = 60;
/// What is compared with lower rates may need longer.
const LONG_US: u64 = 6_000_000;

/// Fewer packets say nothing.
const PACKETS_MIN: u32 = 10;
/// Packets and losses to be expected before an experiment is decided.
const DECIDE_PACKETS: u32 = 50;
const DECIDE_LOSSES: f64 = 5.0;

/// Standard deviations beyond which it is not chance: against what is tolerated, and against what
/// was lost at lower rates.
const DEVIATIONS: f64 = 3.0;
const DEVIATIONS_RISEN: f64 = 4.0;
/// Packets at lower rates to compare with, and the least difference.
const COMPARED_MIN: f64 = 60.0;
const RISEN_MIN: f64 = 0.03;

/// Part of the delivered rate that is kept.
const KEPT: f64 = 0.95;

/// The experiment counts while no more than so many times the limit is sent, and is over when more
/// is sent for this long.
const KEPT_TO: f64 = 1.15;
const KEPT_TO_US: u64 = 5_000_000;

/// How long growth is held, first and at most; quiet for twice as long makes it forget.
const HOLD_US: u64 = 15_000_000;
const HOLD_MAX_US: u64 = 60_000_000;

/// Rates by half octaves from 32 kbit/s on, to compare losses of.
const BANDS: usize = 22;
/// What is remembered of a band fades by this part in this time.
const FADE: f32 = 0.8;
const FADE_US: u64 = 10_000_000;

/// What became of the packets of a window.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    packets: u32,
    lost: u32,
    /// Losses without a packet between them are one.
    runs: u32,
    bytes: u64,
    first_us: u64,
    last_us: u64,
}

impl Count {
    fn add(&mut self, at_us: u64, bytes: u32, lost: bool, in_run: bool) {
        if self.packets == 0 {
            self.first_us = at_us;
        }
        self.last_us = self.last_us.max(at_us);
        self.packets += 1;
        self.bytes += u64::from(bytes);
        if lost {
            self.lost += 1;
            self.runs += u32::from(!in_run);
        }
    }

    fn with(&self, other: &Self) -> Self {
        if other.packets == 0 {
            return *self;
        }
        Self {
            packets: self.packets + other.packets,
            lost: self.lost + other.lost,
            runs: self.runs + other.runs,
            bytes: self.bytes + other.bytes,
            first_us: other.first_us,
            last_us: self.last_us.max(other.last_us),
        }
    }

    fn ratio(&self) -> f64 {
        f64::from(self.lost) / f64::from(self.packets.max(1))
    }

    /// Losses come in runs of this length, which makes chance coarser.
    fn run_length(&self) -> f64 {
        (f64::from(self.lost) / f64::from(self.runs.max(1))).max(1.0)
    }

    /// Loses more than `ratio` of its packets, by what chance does not explain.
    fn exceeds(&self, ratio: f64, deviations: f64) -> bool {
        let packets = f64::from(self.packets);
        let spread = packets * ratio * (1.0 - ratio) * self.run_length();
        let most = packets * ratio + deviations * spread.sqrt() + 1.0;
        self.packets >= PACKETS_MIN && f64::from(self.lost) > most
    }

    fn span_us(&self) -> Option<f64> {
        let span_us = self.last_us.saturating_sub(self.first_us);
        (span_us >= 100_000).then_some(span_us as f64)
    }

    fn sent_bps(&self) -> Option<f64> {
        self.span_us().map(|span_us| self.bytes as f64 * 8e6 / span_us)
    }
}

/// What was lost at which rate, fading.
#[derive(Debug)]
struct Bands {
    /// Packets and losses.
    bands: [(f32, f32); BANDS],
    faded_us: u64,
}

impl Bands {
    fn add(&mut self, now_us: u64, count: &Count) {
        if now_us.saturating_sub(self.faded_us) >= FADE_US {
            self.faded_us = now_us;
            for (packets, lost) in &mut self.bands {
                *packets *= FADE;
                *lost *= FADE;
            }
        }
        let Some(bps) = count.sent_bps() else { return };
        if let Some((packets, lost)) = self.bands.get_mut(band(bps)) {
            *packets += count.packets as f32;
            *lost += count.lost as f32;
        }
    }

    /// Packets and the part of them lost at rates clearly below `bps`.
    fn below(&self, bps: f64) -> (f64, f64) {
        let below = self.bands.iter().take(band(bps));
        let (packets, lost) = below.fold((0.0, 0.0), |(packets, lost), band| {
            (packets + f64::from(band.0), lost + f64::from(band.1))
        });
        (packets, lost / packets.max(1.0))
    }
}

fn band(bps: f64) -> usize {
    let unit = (whole(bps) >> 15).max(1);
    let octave = unit.ilog2();
    // The bit behind the first one halves the octave.
    let upper = octave > 0 && unit >> (octave - 1) & 1 == 1;
    usize::try_from(2 * octave + u32::from(upper)).unwrap_or(BANDS).min(BANDS - 1)
}

/// A limit that was set, and why.
#[derive(Debug, Clone, Copy)]
struct Trial {
    since_us: u64,
    /// The rate before, and the limit.
    before_bps: f64,
    limit_bps: f64,
    /// The loss that set it, in runs of so many.
    ratio: f64,
    run_length: f64,
    /// What was usual.
    usual: f64,
    /// What was sent since the limit took effect, until it is decided.
    count: Count,
    decided: bool,
}

/// The rates that loss is judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// What was allowed.
    pub(super) allowed_bps: f64,
    /// What arrived of it.
    pub(super) delivered_bps: f64,
    /// What was fine until the rate was raised a moment ago; 0 = it was not.
    pub(super) proved_bps: f64,
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
    /// Since the last raise, or some seconds.
    long: Count,
    in_run: bool,
    bands: Bands,
    tolerated: f64,
    trial: Option<Trial>,
    hold_us: u64,
}

impl Loss {
    pub(super) fn new() -> Self {
        Self {
            current: Count::default(),
            before: Count::default(),
            long: Count::default(),
            in_run: false,
            bands: Bands { bands: [(0.0, 0.0); BANDS], faded_us: 0 },
            tolerated: TOLERATED,
            trial: None,
            hold_us: HOLD_US,
        }
    }

    /// A packet was told of for the first time.
    pub(super) fn handle_packet(&mut self, at_us: u64, bytes: u32, lost: bool) {
        let age_us = at_us.saturating_sub(self.current.first_us);
        let is_full = age_us >= WINDOW_US && self.current.packets >= WINDOW_PACKETS;
        if self.current.packets > 0 && (is_full || age_us >= WINDOW_US_MAX) {
            self.bands.add(at_us, &self.current);
            self.before = std::mem::take(&mut self.current);
        }
        self.current.add(at_us, bytes, lost, self.in_run);
        if at_us.saturating_sub(self.long.first_us) > LONG_US {
            self.long = Count::default();
        }
        self.long.add(at_us, bytes, lost, self.in_run);
        if let Some(trial) = self.trial.as_mut().filter(|trial| !trial.decided)
            && at_us > trial.since_us
        {
            trial.count.add(at_us, bytes, lost, self.in_run);
        }
        self.in_run = lost;
    }

    /// A packet told lost arrived after all.
    pub(super) fn handle_late(&mut self, at_us: u64) {
        let counts = [&mut self.current, &mut self.before];
        if let Some(count) =
            counts.into_iter().find(|count| at_us >= count.first_us && count.lost > 0)
        {
            count.lost -= 1;
        }
    }

    /// The rate was raised: what was lost before says nothing of it.
    pub(super) fn handle_raise(&mut self) {
        self.long = Count::default();
    }

    /// The part of the packets lost within the last second or two.
    pub(super) fn ratio(&self) -> f64 {
        self.current.with(&self.before).ratio()
    }

    /// Enough packets lately, and hardly one lost.
    pub(super) fn is_clean(&self) -> bool {
        let both = self.current.with(&self.before);
        both.packets >= WINDOW_PACKETS / 2 && both.ratio() < RISEN_MIN
    }

    /// A limit was set and is not forgotten.
    pub(super) fn is_limiting(&self) -> bool {
        self.trial.is_some()
    }

    /// Growth is held.
    pub(super) fn is_held(&self, now_us: u64) -> bool {
        self.trial.is_some_and(|trial| now_us.saturating_sub(trial.since_us) < self.hold_us)
    }

    /// Judges what was told of so far.
    pub(super) fn judge(
        &mut self,
        now_us: u64,
        rates: &Rates,
        round_trip_us: u64,
    ) -> Option<Verdict> {
        if let Some(verdict) = self.decide(now_us) {
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
        let usual = self.usual(&both).or_else(|| self.usual(&self.long));
        let tolerated = [self.current, both].iter().all(|c| !c.exceeds(self.tolerated, DEVIATIONS));
        if usual.is_none() && tolerated {
            return None;
        }
        let usual = usual.unwrap_or_default();
        let limit_bps = (KEPT * rates.delivered_bps / (1.0 - usual)).max(rates.proved_bps);
        if self.trial.is_some() && quiet_us > self.hold_us {
            self.hold_us = (self.hold_us * 2).min(HOLD_MAX_US);
        }
        self.trial = Some(Trial {
            // What is on its way met the rate before.
            since_us: now_us + round_trip_us.min(500_000) / 2,
            before_bps: rates.allowed_bps,
            limit_bps,
            ratio: both.ratio().max(self.long.ratio()),
            run_length: both.run_length(),
            usual,
            count: Count::default(),
            decided: false,
        });
        self.bands.add(now_us, &self.current);
        self.current = Count::default();
        self.before = Count::default();
        self.long = Count::default();
        (limit_bps < rates.allowed_bps).then_some(Verdict::Limit(limit_bps))
    }

    /// What is usually lost at lower rates, if more is lost now.
    fn usual(&self, count: &Count) -> Option<f64> {
        let (compared, usual) = self.bands.below(count.sent_bps()?);
        let (packets, lost) = (f64::from(count.packets), f64::from(count.lost));
        if compared < COMPARED_MIN || lost < packets * (usual + RISEN_MIN) {
            return None;
        }
        let mean = (lost + usual * compared) / (packets + compared);
        let spread = mean * (1.0 - mean) * packets * (1.0 + packets / compared);
        let most = packets * usual + DEVIATIONS_RISEN * (spread * count.run_length()).sqrt() + 2.0;
        (lost > most).then_some(usual)
    }

    /// Whether the last limit helped, once that can be said.
    fn decide(&mut self, now_us: u64) -> Option<Verdict> {
        let trial = self.trial.as_mut().filter(|trial| !trial.decided)?;
        let count = &trial.count;
        // The sender may need some time to keep to the limit.
        if count.sent_bps().is_some_and(|bps| bps > KEPT_TO * trial.limit_bps) {
            trial.decided = now_us.saturating_sub(trial.since_us) > KEPT_TO_US;
            trial.count = Count::default();
            return None;
        }
        let expected = f64::from(count.packets) * trial.ratio;
        if count.packets < DECIDE_PACKETS || expected < DECIDE_LOSSES * trial.run_length {
            return None;
        }
        trial.decided = true;
        let ratio = count.ratio();
        if ratio < trial.usual + 0.6 * (trial.ratio - trial.usual) || ratio < RISEN_MIN {
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

    const RATES: Rates = Rates { allowed_bps: 1.6e6, delivered_bps: 1.6e6, proved_bps: 0.0 };

    /// Packets of 1,000 bytes every 5 ms (1.6 Mbit/s), of which `lost` of 20 are lost; judged every
    /// 100 ms. Returns what was asked for, and when.
    fn run(loss: &mut Loss, from_ms: u64, to_ms: u64, lost: u64) -> Vec<(u64, Verdict)> {
        let mut verdicts = Vec::new();
        for at_ms in (from_ms..to_ms).step_by(5) {
            // 7 is prime to 20: the losses are spread.
            loss.handle_packet(at_ms * 1_000, 1_000, at_ms / 5 * 7 % 20 < lost);
            if at_ms.is_multiple_of(100)
                && let Some(verdict) = loss.judge(at_ms * 1_000, &RATES, 100_000)
            {
                verdicts.push((at_ms, verdict));
            }
        }
        verdicts
    }

    #[test]
    fn what_is_tolerated_limits_nothing() {
        for lost in [0, 1, 2] {
            let mut loss = Loss::new();
            assert_eq!(run(&mut loss, 0, 20_000, lost), []);
            assert!(!loss.is_held(20_000_000));
        }
    }

    #[test]
    fn loss_that_goes_with_the_limit_was_congestion_and_holds_growth() {
        let mut loss = Loss::new();
        let verdicts = run(&mut loss, 0, 150, 8);
        let [(100, Verdict::Limit(bps))] = verdicts[..] else { panic!("{verdicts:?}") };
        assert_eq!(bps, KEPT * 1.6e6);
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
        (0..50).for_each(|n| loss.handle_late(n * 1_000));
        assert_eq!(loss.ratio(), 0.0);
        assert_eq!(loss.judge(100_000, &RATES, 50_000), None);
    }
}
