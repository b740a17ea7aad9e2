//! The rate that loss allows, when it is congestion that loses and not chance.
//!
//! In the spirit of libwebrtc's second loss-based estimator, with fewer means: loss that is more
//! than tolerated, beyond what chance explains, limits the rate to what was delivered. The limit is
//! then the experiment. If the loss goes with it, it was congestion (a policer, a short queue), and
//! growth is held for a while, longer each time it happens again. If the same loss stays although
//! clearly less is sent, it does not depend on the rate: the limit is lifted and that much is
//! tolerated. Where not less was sent the limit was no experiment: it is lowered further. Less than
//! what is tolerated is congestion too where clearly less is lost at lower rates.
//!
//! Congestion that lost without a queue is a policer. It lets bursts pass, so a probe shows what is
//! not there; only what was sent shows its rate, at the price of a picture. What it let pass is a
//! ceiling, therefore, for longer than growth is held otherwise. It is measured between losses, where
//! nothing is saved for a burst. Heavy loss right after a probe raised the rate is not pondered: the
//! limit is well below what was before, so that a key frame gets through, until it is known what
//! passes. Pure.

use super::tally::{Bands, Count};

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
/// What is sent is measured over this meanwhile.
const KEPT_SPAN_US: f64 = 300_000.0;

/// Right after a rise so much loss, of so many packets, is congestion without a doubt.
const LOSING: f64 = 0.2;
const LOSING_PACKETS: u32 = 8;
/// Part that is kept then, until it is known what passes: a key frame has to get through.
const LOSING_KEPT: f64 = 0.7;

/// How long growth is held, first and at most; quiet for twice as long makes it forget.
const HOLD_US: u64 = 15_000_000;
const HOLD_MAX_US: u64 = 60_000_000;

/// Chance and congestion have to foretell losses so far apart for an experiment to tell them.
const APART: f64 = 0.1;

/// A policer loses in so many runs at least: a radio's fade is one.
const POLICED_RUNS: u32 = 4;
/// How long its rate is a ceiling, first and at most; twice as long when it is found again within
/// so many times that.
const CEILING_US: u64 = 60_000_000;
const CEILING_MAX_US: u64 = 300_000_000;
const CEILING_AGAIN: u64 = 2;
/// What is let pass is known by a second or less of packets; between losses well.
const CEILING_MARGIN: f64 = 1.1;
const CEILING_MARGIN_MEASURED: f64 = 1.02;

/// A limit that was set, and why.
#[derive(Debug, Clone, Copy)]
struct Trial {
    since_us: u64,
    /// The rate before, and the limit.
    before_bps: f64,
    limit_bps: f64,
    /// What passed of the rate that lost.
    passed_bps: f64,
    /// Packets waited before they were lost: no policer.
    is_queued: bool,
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
    /// Packets waited lately.
    pub(super) is_queued: bool,
    /// What it was until a probe raised it a moment ago, if nothing was known to be lost then; or 0.
    pub(super) raised_from_bps: f64,
}

/// What a policer lets pass.
#[derive(Debug, Clone, Copy)]
struct Ceiling {
    bps: f64,
    until_us: u64,
    span_us: u64,
}

/// What loss asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// No more than this may be sent.
    Limit(f64),
    /// The last limit did not help: back to the rate before it. Or more passes than was thought.
    Restore(f64),
}

/// Judges loss.
#[derive(Debug)]
pub(super) struct Loss {
    current: Count,
    before: Count,
    /// Since the last raise, or some seconds; during an experiment also what led to it.
    long: Count,
    in_run: bool,
    bands: Bands,
    tolerated: f64,
    trial: Option<Trial>,
    hold_us: u64,
    ceiling: Option<Ceiling>,
}

impl Loss {
    pub(super) fn new() -> Self {
        Self {
            current: Count::default(),
            before: Count::default(),
            long: Count::default(),
            in_run: false,
            bands: Bands::new(),
            tolerated: TOLERATED,
            trial: None,
            hold_us: HOLD_US,
            ceiling: None,
        }
    }

    /// No more than this passes, whatever a probe says; infinite where nothing is known.
    pub(super) fn ceiling_bps(&self, now_us: u64) -> f64 {
        let ceiling = self.ceiling.filter(|ceiling| now_us < ceiling.until_us);
        ceiling.map_or(f64::INFINITY, |ceiling| ceiling.bps)
    }

    /// A packet was told of for the first time.
    pub(super) fn handle_packet(&mut self, at_us: u64, bytes: u32, lost: bool) {
        let age_us = at_us.saturating_sub(self.current.first_us);
        let is_full = age_us >= WINDOW_US && self.current.packets >= WINDOW_PACKETS;
        if self.current.packets > 0 && (is_full || age_us >= WINDOW_US_MAX) {
            self.bands.add(at_us, &self.current);
            self.before = std::mem::take(&mut self.current);
        }
        let in_run = std::mem::replace(&mut self.in_run, lost);
        if let Some(trial) = &mut self.trial {
            if !trial.decided {
                self.long.add(at_us, bytes, lost, in_run);
            }
            if at_us <= trial.since_us {
                // What was on its way then met the rate before.
                return;
            }
            if !trial.decided {
                trial.count.add(at_us, bytes, lost, in_run);
                self.current.add(at_us, bytes, lost, in_run);
                return;
            }
        }
        self.current.add(at_us, bytes, lost, in_run);
        if at_us.saturating_sub(self.long.first_us) > LONG_US {
            self.long = Count::default();
        }
        self.long.add(at_us, bytes, lost, in_run);
    }

    /// Whether the next packet of that time may begin another window.
    pub(super) fn is_turning(&self, at_us: u64) -> bool {
        at_us.saturating_sub(self.current.first_us) >= WINDOW_US
    }

    /// Packets arrived that left at that time, behind one that was told of; no window ends with them.
    pub(super) fn handle_followers(&mut self, at_us: u64, bytes: u32, packets: u32) {
        let (mut is_current, mut is_long) = (true, true);
        if let Some(trial) = &mut self.trial {
            is_current = at_us > trial.since_us;
            is_long = !trial.decided || is_current;
            if is_current && !trial.decided {
                trial.count.add_arrived(at_us, bytes, packets);
            }
        }
        if is_current {
            self.current.add_arrived(at_us, bytes, packets);
        }
        if is_long {
            self.long.add_arrived(at_us, bytes, packets);
        }
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

    /// Hardly anything was lost lately.
    pub(super) fn is_lossless(&self) -> bool {
        self.ratio() < RISEN_MIN
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

    /// Much is being lost, and a limit was set for it a moment ago.
    pub(super) fn is_losing(&self) -> bool {
        self.trial.is_some_and(|trial| !trial.decided && trial.ratio >= LOSING)
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
        if let Some(verdict) = self.decide(now_us, round_trip_us) {
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
        // A queue says itself what passes. Where there is none, bursts passed before the first loss.
        let is_queued = rates.is_queued;
        let is_raised = rates.raised_from_bps > 0.0 && !is_queued;
        let is_losing = is_raised && both.lost >= LOSING_PACKETS && both.ratio() >= LOSING;
        let exceeds = |count: &Count| count.exceeds(self.tolerated, DEVIATIONS);
        let tolerated = !is_losing && !exceeds(&self.current) && !exceeds(&both);
        if usual.is_none() && tolerated {
            return None;
        }
        let usual = usual.unwrap_or_default();
        let passed_bps = match both.lossy_bps().filter(|_| !is_queued) {
            Some(bps) => rates.delivered_bps.min(bps),
            // What a probe showed and does not pass ends at once, whatever does.
            None if is_losing => rates.raised_from_bps.min(rates.delivered_bps),
            None if !is_queued && both.is_new() => return None,
            None => rates.delivered_bps,
        };
        let limit_bps = match is_losing {
            true => LOSING_KEPT * passed_bps,
            false => (KEPT * passed_bps / (1.0 - usual)).max(rates.proved_bps),
        };
        if self.trial.is_some() && quiet_us > self.hold_us {
            self.hold_us = (self.hold_us * 2).min(HOLD_MAX_US);
        }
        self.trial = Some(Trial {
            // What is on its way met the rate before.
            since_us: now_us + round_trip_us.min(500_000) / 2,
            before_bps: rates.allowed_bps,
            limit_bps,
            passed_bps,
            is_queued,
            ratio: both.ratio().max(self.long.ratio()),
            run_length: both.run_length(),
            usual,
            count: Count::default(),
            decided: false,
        });
        self.bands.add(now_us, &self.current);
        self.begin_anew();
        self.long = both;
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

    /// What was counted belongs to another rate.
    fn begin_anew(&mut self) {
        self.current = Count::default();
        self.before = Count::default();
    }

    /// Whether the last limit helped, once that can be said.
    fn decide(&mut self, now_us: u64, round_trip_us: u64) -> Option<Verdict> {
        let mut trial = self.trial.filter(|trial| !trial.decided)?;
        let count = trial.count;
        // The sender may need some time to keep to the limit.
        if count.sent_bps().is_some_and(|bps| bps > KEPT_TO * trial.limit_bps) {
            trial.decided = now_us.saturating_sub(trial.since_us) > KEPT_TO_US;
            if trial.decided || count.span_us().is_some_and(|us| us > KEPT_SPAN_US) {
                trial.count = Count::default();
                self.begin_anew();
            }
            if trial.decided {
                self.long = Count::default();
            }
            self.trial = Some(trial);
            return None;
        }
        let expected = f64::from(count.packets) * trial.ratio;
        if count.packets < DECIDE_PACKETS || expected < DECIDE_LOSSES * trial.run_length {
            return None;
        }
        let ratio = count.ratio();
        let congested = 1.0 - trial.passed_bps / count.sent_bps()?.max(trial.passed_bps);
        let congested = congested.max(trial.usual);
        let is_less = ratio < congested + 0.6 * (trial.ratio - congested) || ratio < RISEN_MIN;
        let is_told = trial.ratio - congested > APART;
        if ratio > trial.usual.max(self.tolerated) && (is_less || !is_told) {
            // Congestion, and not yet less than what passes.
            let passed_bps = count.lossy_bps().unwrap_or(trial.passed_bps).min(trial.passed_bps);
            trial.passed_bps = passed_bps;
            trial.limit_bps = (KEPT * passed_bps / (1.0 - trial.usual)).min(trial.limit_bps);
            trial.since_us = now_us + round_trip_us.min(500_000) / 2;
            trial.count = Count::default();
            self.trial = Some(trial);
            self.begin_anew();
            return Some(Verdict::Limit(trial.limit_bps));
        }
        let before = std::mem::take(&mut self.long);
        if is_less {
            trial.decided = true;
            self.trial = Some(trial);
            if trial.is_queued || before.runs < POLICED_RUNS {
                return None;
            }
            let passed_bps = before.between_losses_bps();
            trial.passed_bps = passed_bps.unwrap_or(trial.passed_bps);
            self.trial = Some(trial);
            let margin = match passed_bps {
                Some(_) => CEILING_MARGIN_MEASURED,
                None => CEILING_MARGIN,
            };
            self.note_policer(now_us, margin * trial.limit_bps.max(trial.passed_bps));
            return passed_bps.map(|bps| Verdict::Restore(KEPT * bps));
        }
        self.trial = None;
        self.tolerated = (ratio * TOLERATED_MARGIN).clamp(self.tolerated, TOLERATED_MAX);
        Some(Verdict::Restore(trial.before_bps))
    }

    /// What a policer let pass is a ceiling.
    fn note_policer(&mut self, now_us: u64, bps: f64) {
        let again = |before: &Ceiling| {
            now_us < before.until_us.saturating_add(CEILING_AGAIN * before.span_us)
        };
        let span_us = match self.ceiling.filter(again) {
            Some(before) => (2 * before.span_us).min(CEILING_MAX_US),
            None => CEILING_US,
        };
        self.ceiling = Some(Ceiling { bps, until_us: now_us + span_us, span_us });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::bwe::whole;

    const RATES: Rates = Rates {
        allowed_bps: 1.6e6,
        delivered_bps: 1.6e6,
        proved_bps: 0.0,
        is_queued: false,
        raised_from_bps: 0.0,
    };

    /// Packets of 1,000 bytes every 5 ms (1.6 Mbit/s), or as the last limit allows, of which `lost` of
    /// 20 are lost; judged every 100 ms. Returns what was asked for, and when.
    fn run(loss: &mut Loss, from_ms: u64, to_ms: u64, lost: u64) -> Vec<(u64, Verdict)> {
        let mut verdicts = Vec::new();
        let mut allowed_bps = 1.6e6;
        let (mut at_us, mut sent) = (from_ms * 1_000, 0);
        let mut judged_ms = from_ms;
        while at_us < to_ms * 1_000 {
            // 7 is prime to 20: the losses are spread.
            loss.handle_packet(at_us, 1_000, sent * 7 % 20 < lost);
            (at_us, sent) = (at_us + whole(8e9 / allowed_bps), sent + 1);
            if at_us >= (judged_ms + 100) * 1_000 {
                judged_ms += 100;
                let verdict = loss.judge(at_us, &RATES, 100_000);
                match verdict {
                    Some(Verdict::Limit(bps)) => allowed_bps = bps,
                    Some(Verdict::Restore(_)) => allowed_bps = 1.6e6,
                    None => continue,
                }
                verdicts.extend(verdict.map(|verdict| (judged_ms, verdict)));
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
        let verdicts = run(&mut loss, 0, 250, 8);
        let [(_, Verdict::Limit(bps))] = verdicts[..] else { panic!("{verdicts:?}") };
        assert!((0.8e6..1.1e6).contains(&bps), "{bps}: 12 of 20 passed");
        assert_eq!(run(&mut loss, 250, 10_000, 0), []);
        assert!(loss.is_held(10_000_000) && !loss.is_held(16_000_000));
        // When it comes again after the hold, the hold is longer.
        assert_eq!(run(&mut loss, 10_000, 17_000, 0), []);
        assert_eq!(run(&mut loss, 17_000, 17_450, 8).len(), 1);
        assert_eq!(run(&mut loss, 17_450, 40_000, 0), []);
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

    /// 1.8 Mbit/s, or what is let, through a policer of 1 Mbit/s and 30 KB; judged every 100 ms.
    /// Returns what may be sent in the end.
    fn run_policed(loss: &mut Loss, from_ms: u64, to_ms: u64) -> f64 {
        let (mut allowed_bps, mut tokens, mut at_us) = (6e6, 30_000.0, from_ms * 1_000);
        let mut judged_us = at_us;
        while at_us < to_ms * 1_000 {
            let gap_us = whole(8e9 / f64::min(allowed_bps, 1.8e6));
            at_us += gap_us;
            tokens = f64::min(tokens + gap_us as f64 / 8.0, 30_000.0);
            let passes = tokens >= 1e3;
            tokens -= if passes { 1e3 } else { 0.0 };
            loss.handle_packet(at_us, 1_000, !passes);
            if at_us - judged_us >= 100_000 {
                judged_us = at_us;
                let rates = Rates { allowed_bps, delivered_bps: 1.7e6, ..RATES };
                match loss.judge(at_us, &rates, 50_000) {
                    Some(Verdict::Limit(bps)) => allowed_bps = bps.min(allowed_bps),
                    // More passes than was thought at first.
                    Some(Verdict::Restore(bps)) => allowed_bps = bps.max(allowed_bps),
                    None => {}
                }
            }
        }
        allowed_bps
    }

    #[test]
    fn a_policer_is_found_behind_its_burst_and_is_a_ceiling_for_longer_each_time() {
        let mut loss = Loss::new();
        assert_eq!(loss.ceiling_bps(0), f64::INFINITY);
        let bps = run_policed(&mut loss, 0, 6_000);
        assert!((0.8e6..1e6).contains(&bps), "{bps}");
        let ceiling = loss.ceiling_bps(6_000_000);
        assert!((0.95e6..1.25e6).contains(&ceiling), "{ceiling}");
        assert_eq!(loss.ceiling_bps(70_000_000), f64::INFINITY);
        run_policed(&mut loss, 70_000, 75_000);
        assert!(loss.ceiling_bps(180_000_000) < 1.25e6);
        assert_eq!(loss.ceiling_bps(200_000_000), f64::INFINITY);
    }

    #[test]
    fn what_a_queue_loses_is_no_ceiling() {
        let mut loss = Loss::new();
        (0..40).for_each(|n| loss.handle_packet(n * 5_000, 1_000, n % 3 == 0));
        let rates = Rates { is_queued: true, ..RATES };
        assert!(matches!(loss.judge(200_000, &rates, 50_000), Some(Verdict::Limit(_))));
        assert_eq!(run(&mut loss, 230, 2_000, 0), []);
        assert!(loss.is_held(2_000_000));
        assert_eq!(loss.ceiling_bps(2_000_000), f64::INFINITY);
    }

    #[test]
    fn what_arrives_late_was_not_lost() {
        let mut loss = Loss::new();
        (0..100).for_each(|n| loss.handle_packet(n * 1_000, 1_000, n < 50));
        (0..50).for_each(|n| loss.handle_late(n * 1_000));
        assert_eq!(loss.ratio(), 0.0);
        assert_eq!(loss.judge(100_000, &RATES, 50_000), None);
    }

    #[test]
    fn what_a_rise_brought_upon_a_policer_ends_at_once_and_what_passes_is_taken_then() {
        let mut loss = Loss::new();
        (0..40).for_each(|n| loss.handle_packet(n * 10_000, 1_000, false));
        loss.handle_raise();
        // Of 8 Mbit/s every second packet passes, behind a burst.
        let sends = |loss: &mut Loss, from: u64, to: u64| {
            for n in from..to {
                loss.handle_packet(400_000 + n * 1_000, 1_000, n > 30 && n % 2 != 0);
            }
        };
        sends(&mut loss, 0, 90);
        let raised = Rates { raised_from_bps: 6e5, ..RATES };
        assert_eq!(loss.judge(490_000, &RATES, 100_000), None, "nobody can say what passes");
        let verdict = loss.judge(490_000, &raised, 100_000);
        assert_eq!(verdict, Some(Verdict::Limit(LOSING_KEPT * 6e5)));
        assert!(loss.is_losing());
        // What was on its way says it; then nothing is lost any more.
        sends(&mut loss, 90, 141);
        (0..60).for_each(|n| loss.handle_packet(545_000 + n * 20_000, 1_000, false));
        let verdict = loss.judge(1_800_000, &RATES, 100_000);
        let Some(Verdict::Restore(bps)) = verdict else { panic!("{verdict:?}") };
        assert!((3.6e6..3.9e6).contains(&bps), "{bps}");
        assert!((3.9e6..4.5e6).contains(&loss.ceiling_bps(1_800_000)));
        assert!(!loss.is_losing() && loss.is_held(1_800_000));
    }
}
