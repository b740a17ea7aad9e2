//! What transport-wide feedback says of one path, and the rate that follows.
//!
//! Made when the first numbered packet leaves. One feedback runs through once: each packet told of
//! goes to delay, throughput, loss and probing; then the rate is decided.

mod told;

use super::delay::Delay;
use super::history::{SentHistory, Told};
use super::loss::{Loss, Rates, Verdict};
use super::probe::{Probing, Wish};
use super::rate::{Rate, Seen};
use super::throughput::{Throughput, WINDOW_US};
use super::{Fate, Probe, Usage};
use crate::engine::rtcp::TransportCc;

/// Time of one tick of the arrival clock, and ticks of one unit of the reference time.
const TICK_US: i64 = 250;
const REFERENCE_TICKS: i64 = 256;

/// A queue below this is none: bursts of other traffic, a radio's turn, and our own trains.
const STANDING_MIN_US: i64 = 12_000;

/// A queue that stands above this is congestion, whatever the trend says.
const STANDING_MAX_US: i64 = 80_000;

/// Behind a queue of this, so much less passing than is sent is no burst.
const OUTRUN_QUEUE_US: i64 = 50_000;
const OUTRUN: f64 = 0.7;

/// What is delivered over this shows the path while a queue stands.
const LATELY_US: i64 = 200_000;

/// Less than this part of the rate is sent: the application limits, not the path.
const APP_LIMITED: f64 = 0.8;

/// Probing waits this long after a decrease.
const SETTLE_US: u64 = 1_500_000;

/// With nothing on its way and nothing told for so long, what was queued has gone.
const IDLE_US: u64 = 500_000;

/// Decreases that left the standing queue as it was, before it counts as a longer path.
const STUCK_MAX: u8 = 3;

/// A rate that a probe raised and that falls again within this was not what the path carries.
const PROOF_US: u64 = 4_000_000;
const PROOF_PART: f64 = 0.8;

/// A cluster that arrives for so long has what it shares the path with in between.
const SHARED_SPAN_US: f64 = 60_000.0;

/// One that fills the path for so long shows what that carries, and not only that it is not more.
const TELLING_SPAN_US: f64 = 40_000.0;

/// A rise of so many times deserves another look soon.
const FAR: f64 = 1.5;

/// By no more than this is a rate lowered for one probe that is no use of it.
const UNUSED_PART: f64 = 0.8;

/// Less time than this behind a queue may be a burst of somebody, and no narrower path, unless the
/// queue is longer than bursts are.
const OUTRUN_US: i64 = 150_000;
const OUTRUN_QUEUE_MAX_US: i64 = 200_000;
/// Behind the longest burst more than this passes.
const OUTRUN_FAR: f64 = 0.3;

/// Loss below this is nothing that a rate could be blamed for.
const LITTLE_LOSS: f64 = 0.03;

/// A round trip that nobody measured yet.
const ROUND_TRIP_US: u64 = 200_000;

/// Feedback is missed after this and three round trips; then the rate falls by that each time.
const SILENCE_US: u64 = 600_000;
const SILENCE_PART: f64 = 0.7;

/// Limits and wishes that others set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) min_bps: f64,
    pub(super) max_bps: f64,
    pub(super) demand_bps: f64,
    /// What is sent beside that no feedback tells of.
    pub(super) untold_bps: f64,
}

/// A rate that a probe raised.
#[derive(Debug, Clone, Copy)]
struct Raise {
    at_us: u64,
    from_bps: f64,
    to_bps: f64,
    /// Hardly anything was lost before it.
    was_clean: bool,
    /// Nothing that was known then was lost before it.
    was_lossless: bool,
    /// It did not hold.
    is_refuted: bool,
}

/// One path.
#[derive(Debug)]
pub(super) struct Model {
    history: SentHistory,
    delay: Delay,
    received: Throughput,
    sent: Throughput,
    pub(super) rate: Rate,
    pub(super) loss: Loss,
    probing: Probing,
    /// The newest reference time, unwrapped, and as it was on the wire.
    reference: Option<(i64, u32)>,
    pub(super) round_trip_us: Option<u64>,
    /// The first packet that left since the last feedback, or since the rate last fell for silence.
    unanswered_us: Option<u64>,
    told_us: u64,
    /// Departure of the newest packet told of.
    pub(super) told_until_us: u64,
    answered: bool,
    /// Who has told nothing until then will perhaps never do.
    pub(super) silent_from_us: u64,
    /// A probe has shown something.
    is_checked: bool,
    /// The path was last seen to carry no more than this.
    pub(super) is_bounded: bool,
    raise: Option<Raise>,
    stuck: u8,
    stuck_us: i64,
}

impl Model {
    pub(super) fn new(now_us: u64, first: u16, bps: f64) -> Self {
        Self {
            history: SentHistory::new(first),
            delay: Delay::new(),
            received: Throughput::new(),
            sent: Throughput::new(),
            rate: Rate::new(now_us, bps),
            loss: Loss::new(),
            probing: Probing::new(now_us),
            reference: None,
            round_trip_us: None,
            unanswered_us: None,
            told_us: now_us,
            told_until_us: 0,
            answered: false,
            silent_from_us: u64::MAX,
            is_checked: false,
            is_bounded: false,
            raise: None,
            stuck: 0,
            stuck_us: 0,
        }
    }

    pub(super) fn warm(&self) -> usize {
        usize::from(self.probing.sending()) + usize::from(self.unanswered_us.is_some())
    }

    pub(super) fn warm_history(&self, seq: u16) -> usize {
        self.history.warm(seq)
    }

    #[inline]
    pub(super) fn note_sent(&mut self, now_us: u64, seq: u16, bytes: u16, cluster: u8) {
        let sending = self.probing.sending();
        let cluster = if sending == 0 { cluster } else { sending };
        if cluster != 0 {
            self.probing.handle_sent(now_us, cluster, u32::from(bytes));
        }
        if self.unanswered_us.is_none() {
            self.unanswered_us = Some(now_us);
        }
        self.history.note(now_us, seq, bytes, cluster);
    }

    /// Some transport-wide feedback has come: the receiver answers.
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    pub(super) fn handle_feedback(
        &mut self,
        now_us: u64,
        feedback: &TransportCc<'_>,
        bounds: &Bounds,
    ) {
        let shift = self.unwrap_reference(feedback.reference_time);
        let mut newest_us = None;
        let mut followers = None;
        for (seq, ticks) in feedback.arrivals() {
            let Some(told) = self.history.tell(now_us, seq, ticks.is_some()) else { continue };
            let arrival_us = ticks.map_or(0, |ticks| (ticks + shift) * TICK_US);
            if let Told::Received(packet) = told {
                newest_us = newest_us.max(Some(packet.at_us));
            }
            followers = self.handle_told(told, arrival_us, followers);
        }
        self.handle_followers(followers);
        let Some(newest_us) = newest_us else { return };
        let round_trip_us = now_us.saturating_sub(newest_us);
        let before = self.round_trip_us.unwrap_or(round_trip_us);
        // Downwards at once, upwards slowly: what is wanted is the path, not its queue.
        self.round_trip_us = Some(round_trip_us.min(before + before / 32 + 100));
        self.answered = true;
        self.unanswered_us = None;
        self.told_us = now_us;
        self.decide(now_us, bounds);
        self.handle_probe(now_us, bounds);
        if self.delay.spacing.is_close(self.rate.bps(), self.probing.has_lied()) {
            self.probing.handle_hint(now_us);
        }
        self.plan(now_us, bounds);
    }

    /// Time passed: feedback may be missing, and a probe may be due.
    pub(super) fn handle_timeout(&mut self, now_us: u64, bounds: &Bounds) {
        if self.silence_us().is_some_and(|at| now_us >= at) {
            self.rate.set(now_us, self.rate.bps() * SILENCE_PART);
            self.rate.clamp(bounds.min_bps, bounds.max_bps);
            self.probing.handle_drop(now_us, false);
            // From the next packet on: of a path that carries nothing silence says nothing.
            self.unanswered_us = None;
        }
        self.plan(now_us, bounds);
    }

    pub(super) fn next_us(&self) -> Option<u64> {
        match (self.silence_us(), self.probing.next_us()) {
            (Some(silence), Some(probe)) => Some(silence.min(probe)),
            (silence, probe) => silence.or(probe),
        }
    }

    pub(super) fn is_unsure(&self, now_us: u64) -> bool {
        !self.probing.has_looked() && (self.answered || now_us < self.silent_from_us)
    }

    pub(super) fn fate(&self, first: u16, last: u16) -> Fate {
        self.history.fate(first, last, self.told_until_us)
    }

    pub(super) fn poll_probe(&mut self, now_us: u64) -> Option<Probe> {
        self.probing.poll(now_us)
    }

    pub(super) fn plan(&mut self, now_us: u64, bounds: &Bounds) {
        let rested =
            self.rate.decreased_us().is_none_or(|at| now_us.saturating_sub(at) >= SETTLE_US);
        let empty =
            self.delay.usage() != Usage::Over && self.delay.standing_us() <= 2 * STANDING_MIN_US;
        let quiet = (empty || self.is_idle(now_us)) && !self.loss.is_held(now_us);
        let wish = Wish {
            estimate_bps: self.rate.bps(),
            demand_bps: bounds.demand_bps,
            max_bps: bounds.max_bps.min(self.loss.ceiling_bps(now_us)),
            untold_bps: bounds.untold_bps,
            was_full: self.rate.has_capacity(),
            is_settled: rested && quiet,
        };
        self.probing.plan(now_us, self.round_trip(), &wish);
    }

    pub(super) fn delivered_bps(&self) -> Option<f64> {
        self.received.bps(WINDOW_US)
    }

    /// What arrives since a queue stands is what the path carries, even if that is not long.
    fn lately_bps(&self) -> Option<f64> {
        let queued = self.delay.queued_since_us().and_then(|since| self.received.bps_since(since));
        queued.or_else(|| self.received.bps(LATELY_US))
    }

    pub(super) fn sent_bps(&self) -> Option<f64> {
        self.sent.bps(WINDOW_US)
    }

    pub(super) fn standing_us(&self) -> i64 {
        self.delay.standing_us()
    }

    pub(super) fn is_app_limited(&self) -> bool {
        self.sent_bps().is_none_or(|sent| sent < APP_LIMITED * self.rate.bps())
    }

    /// What the delay says, a queue that stands included.
    pub(super) fn usage(&self) -> Usage {
        if self.is_outrun() {
            return Usage::Over;
        }
        let standing_us = self.delay.standing_us();
        match self.delay.usage() {
            Usage::Over if standing_us < STANDING_MIN_US => Usage::Normal,
            Usage::Normal if standing_us > STANDING_MAX_US && !self.delay.is_falling() => {
                Usage::Over
            }
            usage => usage,
        }
    }

    /// Much less passes since a queue stands than is sent: the path became narrower. To wait for a
    /// trend would fill its buffer meanwhile.
    fn is_outrun(&self) -> bool {
        let Some(since_us) = self.delay.queued_since_us() else { return false };
        let queue_us = self.delay.queue_us();
        let is_long = self.delay.newest_us() - since_us > OUTRUN_US;
        let is_no_burst = is_long || queue_us > OUTRUN_QUEUE_MAX_US;
        let part = if is_no_burst { OUTRUN } else { OUTRUN_FAR };
        let passes = self.received.bps_since(since_us);
        queue_us > OUTRUN_QUEUE_US
            && self.delay.is_at_peak()
            && passes.zip(self.sent_bps()).is_some_and(|(passes, sent)| passes < part * sent)
    }

    fn decide(&mut self, now_us: u64, bounds: &Bounds) {
        let before_bps = self.rate.bps();
        let seen = Seen {
            usage: self.usage(),
            delivered_bps: self.delivered_bps(),
            lately_bps: self.lately_bps(),
            is_app_limited: self.is_app_limited(),
            standing_us: self.delay.standing_us(),
            is_outrun: self.is_outrun(),
            round_trip_us: self.round_trip(),
            is_held: self.loss.is_held(now_us),
        };
        let mut fell = self.rate.handle(now_us, &seen);
        if fell {
            self.watch_standing(seen.standing_us);
        }
        let delivered = seen.delivered_bps.unwrap_or(before_bps);
        let rates = Rates {
            allowed_bps: before_bps,
            delivered_bps: seen.lately_bps.map_or(delivered, |lately| lately.max(delivered)),
            proved_bps: self.raise.filter(|r| r.was_clean).map_or(0.0, |r| r.from_bps),
            is_queued: self.delay.was_queued(),
            raised_from_bps: self.raise.filter(|r| r.was_lossless).map_or(0.0, |r| r.from_bps),
        };
        match self.loss.judge(now_us, &rates, self.round_trip()) {
            Some(Verdict::Limit(bps)) if bps < self.rate.bps() => {
                fell = true;
                self.rate.set(now_us, bps);
            }
            Some(Verdict::Restore(bps)) => self.rate.set(now_us, bps.max(self.rate.bps())),
            _ => {}
        }
        self.clamp(now_us, bounds);
        if fell {
            self.is_bounded = true;
            self.delay.spacing.note_drop(self.rate.bps());
            self.probing.handle_drop(now_us, self.rate.bps() < 0.67 * before_bps);
        }
        self.watch_raise(now_us);
    }

    /// Whether what a probe showed holds.
    fn watch_raise(&mut self, now_us: u64) {
        let Some(raise) = &mut self.raise else { return };
        if !raise.is_refuted && self.rate.bps() < PROOF_PART * raise.to_bps {
            raise.is_refuted = true;
            self.probing.handle_lie(now_us);
            self.delay.spacing.note_found(self.rate.bps());
        }
        if now_us.saturating_sub(raise.at_us) > PROOF_US {
            if !raise.is_refuted {
                self.probing.handle_proof();
            }
            self.raise = None;
        }
    }

    fn handle_probe(&mut self, now_us: u64, bounds: &Bounds) {
        let usual = self.loss.ratio();
        let Some(mut outcome) = self.probing.poll_outcome(now_us, usual) else { return };
        if outcome.is_saturated {
            // A short cluster leaves behind what it shares the path with; a fast one has more of it
            // than its share.
            let short = (1.0 - outcome.span_us / SHARED_SPAN_US).max(outcome.displaced);
            outcome.bps = (outcome.bps - short * bounds.untold_bps).max(bounds.min_bps);
        }
        self.is_bounded = outcome.is_saturated;
        let is_first = !std::mem::replace(&mut self.is_checked, true);
        if is_first && outcome.is_saturated && outcome.bps < self.rate.bps() {
            // The start value rests on nothing: here is the first that is known.
            self.rate.set(now_us, outcome.bps);
            self.rate.clamp(bounds.min_bps, bounds.max_bps);
            return;
        }
        let is_telling = outcome.is_whole && outcome.span_us >= TELLING_SPAN_US;
        if outcome.is_saturated && is_telling {
            self.rate.note_capacity(now_us, outcome.bps);
            let used_bps = self.delivered_bps().unwrap_or(0.0).max(UNUSED_PART * self.rate.bps());
            let bps = outcome.bps.max(used_bps);
            if bps < self.rate.bps() {
                self.rate.set(now_us, bps);
            }
        }
        outcome.bps = self.rate.believed_bps(now_us, outcome.bps, bounds.untold_bps);
        if outcome.bps > self.rate.bps() && self.usage() != Usage::Over {
            if outcome.bps > FAR * self.rate.bps() {
                self.probing.handle_rise(now_us);
            }
            let raise = Raise {
                at_us: now_us,
                from_bps: self.rate.bps(),
                to_bps: outcome.bps,
                was_clean: self.loss.is_clean(),
                was_lossless: self.loss.is_lossless(),
                is_refuted: false,
            };
            let (at_us, to_bps, is_refuted) = (now_us, outcome.bps, false);
            let first = self.raise.unwrap_or(raise);
            self.raise = Some(Raise { at_us, to_bps, is_refuted, ..first });
            self.loss.handle_raise();
            self.rate.set(now_us, outcome.bps);
            self.clamp(now_us, bounds);
            if !outcome.is_saturated {
                self.delay.spacing.forget();
                self.probing.go_on(now_us);
                return;
            }
        }
        self.delay.spacing.note_found(self.rate.bps());
    }

    /// Keeps within what was set and what is known of the path.
    fn clamp(&mut self, now_us: u64, bounds: &Bounds) {
        let most_bps = bounds.max_bps.min(self.loss.ceiling_bps(now_us));
        self.rate.clamp(bounds.min_bps, most_bps);
    }

    /// A queue that no decrease makes smaller is a longer path.
    fn watch_standing(&mut self, standing_us: i64) {
        let same = (standing_us - self.stuck_us).abs() < self.stuck_us / 10;
        if !same || self.loss.ratio() > LITTLE_LOSS {
            self.stuck = 0;
            self.stuck_us = standing_us;
            return;
        }
        self.stuck += 1;
        if self.stuck >= STUCK_MAX {
            self.stuck = 0;
            self.delay.accept_standing();
        }
    }

    /// Nothing leaves: the queue seen last is no more, and without a probe nobody would tell so.
    fn is_idle(&self, now_us: u64) -> bool {
        let age_us = now_us.saturating_sub(self.told_us);
        self.unanswered_us.is_none() && age_us >= IDLE_US + self.round_trip()
    }

    fn round_trip(&self) -> u64 {
        self.round_trip_us.unwrap_or(ROUND_TRIP_US)
    }

    /// When feedback will be missed.
    fn silence_us(&self) -> Option<u64> {
        let since = self.unanswered_us.filter(|_| self.answered)?;
        Some(since + SILENCE_US + 3 * self.round_trip())
    }

    /// Ticks to add to this feedback's arrivals, so that time goes on where its 24 bits wrap.
    fn unwrap_reference(&mut self, wire: u32) -> i64 {
        let (unwrapped, before) = self.reference.unwrap_or_else(|| (i64::from(wire), wire));
        let ahead = (wire.wrapping_sub(before) << 8).cast_signed() >> 8;
        let unwrapped = unwrapped + i64::from(ahead);
        self.reference = Some((unwrapped, wire));
        (unwrapped - i64::from(wire)) * REFERENCE_TICKS
    }
}

fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}
