//! What one transport can send, as its receiver tells, and when that is shared anew.
//!
//! A transport has an [`Outgoing`] from the moment on at which the first consumer starts whose
//! receiver tells what arrives (transport-wide feedback, or REMB where only that was negotiated), or
//! whose transport has a limit: one that never sends video pays nothing. Owned by its transport,
//! called on the shard's thread: packets are noted as they leave, feedback moves the estimate, and
//! a few times a second, when the estimate leaves what was shared, and when a consumer comes, goes
//! or wants something else, the estimate is shared anew (`sharing`).
//!
//! Not here: the estimate itself (`bwe`), who gets what (`allocation`), packets (`egress`,
//! `padding`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::control::command::{BitrateLimits, Layers};
use crate::engine::allocation::{
    Allocator, Budget, Claim, Ladder, Reason, WhyLayer, demand_bps, granted_bps,
};
use crate::engine::bwe::{Estimator, Probe, ProbeCluster};
use crate::engine::pacing::Pacer;
use crate::engine::padding::Fill;
use crate::engine::rtcp::TransportCc;
use crate::limits::{
    BANDWIDTH_NEWS_INTERVAL, BANDWIDTH_NEWS_PERCENT, EMPTYING_MAX, ESTIMATE_NOISE_PERCENT,
    ESTIMATOR_REST, PRICE_SPAN, RAISE_RESERVE_PERCENT, REPAIR_BURST, REPAIR_BURST_BITS_MIN,
    REPAIR_PERCENT, REPORT_INTERVAL, SHARE_INTERVAL, SHARE_REST,
};

/// How a receiver tells what it can take; the later one counts where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Telling {
    /// Not at all.
    Nothing,
    /// By REMB.
    Remb,
    /// By transport-wide feedback.
    TransportCc,
}

/// What one transport can send.
#[derive(Debug)]
pub struct Outgoing {
    estimator: Estimator,
    telling: Telling,
    allocator: Allocator,
    /// The limit that was set; without an estimate it is the budget.
    max_bps: Option<u64>,
    /// What the last sharing had.
    budget: Budget,
    /// What was sent whatever the estimate, at the last sharing.
    fixed_bps: u64,
    /// What was sent without being told of.
    untold_bps: u64,
    /// What the layered videos were granted in the last sharing.
    granted_bps: u64,
    /// When it was last shared.
    shared: Option<Instant>,
    /// When it is shared next; `None` while nothing is sent.
    next_share: Option<Instant>,
    /// What a probe still wants to be sent.
    probe: Option<Probe>,
    /// Bytes of all probes.
    probed_bytes: u64,
    /// The estimator was asked a moment ago, and had nothing to send: it is not asked before this.
    rests_until: Option<Instant>,
    /// The estimate that the control thread knows, and since when.
    news: Option<(Instant, u64)>,
    /// Bits that repairs may use; below zero after the last one used more. And as of when.
    repairs: (i64, Instant),
    /// It begins with the smallest sizes: what there is has not been looked for yet.
    is_shy: bool,
    /// What a slow link still has to carry, and who waits for that.
    pub(super) pacer: Pacer,
    /// Wishes for key frames wait for what will be told (`under_way`).
    pub(super) has_wishes: bool,
}

/// What one consumer gets of its transport; apart from what every packet needs.
#[derive(Debug, Default)]
pub struct Share {
    /// Since when it gets nothing for want of bandwidth.
    pub stopped: Option<Instant>,
    /// Why it gets what it gets.
    pub why: WhyLayer,
    /// The layers that the control thread knows it is sent.
    pub told: Option<Layers>,
    /// The padding packets of its media stream that were sent last.
    pub(super) fills: VecDeque<Fill>,
    /// What its ladder costs on average, and when that was worked out.
    prices: Option<Box<(Ladder, Instant)>>,
}

impl Share {
    /// Levels the prices of a ladder: a key frame, and the lull behind it, are no reason to go over
    /// to other layers, which costs another key frame.
    pub fn level(&mut self, now: Instant, ladder: &mut Ladder) {
        let Some(top) = ladder.top().filter(|top| top.bps > 0) else {
            self.prices = None;
            return;
        };
        let prices = self.prices.get_or_insert_with(|| Box::new((*ladder, now)));
        let (before, at) = prices.as_ref();
        if before.top().is_some_and(|before| before.layers == top.layers) {
            let whole = PRICE_SPAN.as_millis();
            let part = now.saturating_duration_since(*at).as_millis().min(whole);
            ladder.level(before, part, whole);
        }
        **prices = (*ladder, now);
    }
}

impl Outgoing {
    /// For a transport with these limits, of which nothing was heard.
    #[must_use]
    pub fn new(now: Instant, limits: &BitrateLimits) -> Self {
        let mut outgoing = Self {
            estimator: Estimator::new(now),
            telling: Telling::Nothing,
            allocator: Allocator::default(),
            max_bps: None,
            budget: Budget::UNLIMITED,
            fixed_bps: 0,
            untold_bps: 0,
            granted_bps: 0,
            shared: None,
            next_share: Some(now),
            probe: None,
            probed_bytes: 0,
            rests_until: None,
            news: None,
            repairs: (i64::MAX, now),
            is_shy: true,
            pacer: Pacer::new(now),
            has_wishes: false,
        };
        outgoing.limit(now, limits);
        outgoing
    }

    /// Takes new limits; they hold from the next sharing on, which is due now.
    pub fn limit(&mut self, now: Instant, limits: &BitrateLimits) {
        let BitrateLimits { min_outgoing_bps, max_outgoing_bps, .. } = *limits;
        self.max_bps = max_outgoing_bps;
        let (min, max) = (min_outgoing_bps.unwrap_or(0), max_outgoing_bps.unwrap_or(u64::MAX));
        self.estimator.set_limits(now, min, max);
        self.next_share = Some(now);
    }

    /// A consumer whose receiver tells like this began: it is to be shared anew.
    pub fn open(&mut self, now: Instant, telling: Telling) {
        self.telling = self.telling.max(telling);
        self.next_share = Some(now);
    }

    /// How the receiver tells what it can take.
    #[must_use]
    pub fn telling(&self) -> Telling {
        self.telling
    }

    /// The estimator, for statistics.
    #[must_use]
    pub fn estimator(&self) -> &Estimator {
        &self.estimator
    }

    /// bits/s that its client can be sent; `None` where the client does not tell.
    #[must_use]
    pub fn estimate_bps(&self) -> Option<u64> {
        (self.telling != Telling::Nothing).then(|| self.estimator.estimate_bps())
    }

    /// bits/s that its client can be sent in all: the estimate, and what is sent without being told
    /// of (browsers number no sound for mediasoup's clients). `None` where the client does not tell.
    #[must_use]
    pub fn available_bps(&self) -> Option<u64> {
        let most = self.max_bps.unwrap_or(u64::MAX);
        let estimate = self.estimate_bps()?;
        Some(estimate.saturating_add(self.untold_bps).min(most).max(estimate))
    }

    /// So much is sent that the client does not tell of.
    pub fn set_untold(&mut self, bps: u64) {
        self.untold_bps = bps;
        self.estimator.set_untold(bps);
    }

    /// True when a video packet may be sent again now: repairs use a part of the estimate.
    pub fn may_repair(&mut self, now: Instant) -> bool {
        let Some(estimate) = self.estimate_bps() else { return true };
        let part_bps =
            i64::try_from(estimate.saturating_mul(REPAIR_PERCENT) / 100).unwrap_or(i64::MAX);
        let bits = |span: Duration| {
            let us = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
            part_bps.saturating_mul(us) / 1_000_000
        };
        let (left, since) = self.repairs;
        let earned = bits(now.saturating_duration_since(since));
        let most = bits(REPAIR_BURST).max(REPAIR_BURST_BITS_MIN);
        let left = left.saturating_add(earned).min(most);
        self.repairs = (left, now);
        left > 0
    }

    /// A video began anew, with a key frame: what of that is lost is repaired whatever went before.
    pub fn renew_repairs(&mut self) {
        self.repairs.0 = i64::MAX;
    }

    /// A video packet of so many bytes was sent again.
    pub fn note_repair(&mut self, bytes: usize) {
        let bits = i64::try_from(bytes).unwrap_or(i64::MAX).saturating_mul(8);
        self.repairs.0 = self.repairs.0.saturating_sub(bits);
    }

    /// Bytes of all probes so far.
    #[must_use]
    pub fn probed_bytes(&self) -> u64 {
        self.probed_bytes
    }

    /// A packet left under the transport-wide number `seq`.
    #[inline]
    pub fn note_sent(&mut self, now: Instant, seq: u16, bytes: usize, probe: Option<ProbeCluster>) {
        self.estimator.note_sent(now, seq, bytes, probe);
    }

    /// A value of each of its lines that sending needs, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        usize::from(self.max_bps.is_some())
            + usize::from(self.rests_until.is_some())
            + usize::from(self.probe.is_some())
            + usize::from(self.telling == Telling::TransportCc)
            + usize::from(self.estimator.estimate_bps() == 0)
    }

    /// The receiver told which packets arrived.
    pub fn handle_feedback(&mut self, now: Instant, feedback: &TransportCc<'_>) {
        if self.telling == Telling::TransportCc {
            self.estimator.handle_feedback(now, feedback);
        }
    }

    /// The receiver told what it can take.
    pub fn handle_remb(&mut self, now: Instant, bps: u64) {
        self.estimator.handle_remb(now, bps);
    }

    /// The receiver told what part of its packets was lost, in 1/256.
    pub fn handle_report(&mut self, now: Instant, lost: u8, round_trip: Option<Duration>) {
        self.estimator.handle_receiver_report(now, lost, round_trip);
    }

    /// Time passed; true when it is to be shared anew.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        self.estimator.handle_timeout(now);
        self.rests_until = Some(now + ESTIMATOR_REST);
        self.next_share.is_some_and(|at| at <= now) || self.is_outrun(now)
    }

    /// True when the estimate has left what was shared, not just now: what a receiver tells, however
    /// often, does not make us share more often than this.
    #[must_use]
    pub fn is_outrun(&self, now: Instant) -> bool {
        if self.shared.is_some_and(|at| now.saturating_duration_since(at) < SHARE_REST) {
            return false;
        }
        let Some(estimate) = self.estimate_bps().filter(|_| self.next_share.is_some()) else {
            return false;
        };
        let before = self.budget.available_bps.saturating_add(self.fixed_bps);
        let needed = self.granted_bps + self.fixed_bps;
        estimate.saturating_add(self.budget.noise_bps) < needed
            || estimate > before.saturating_add(before / 20)
    }

    /// When [`handle_timeout`](Self::handle_timeout) and [`poll_probe`](Self::poll_probe) are to be
    /// called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let estimator = self.estimator.next_deadline();
        let estimator = estimator.map(|at| self.rests_until.map_or(at, |rests| at.max(rests)));
        [self.next_share, estimator].into_iter().flatten().min()
    }

    /// Shares what there is among `claims`, beside `fixed_bps` that are sent anyway. The next sharing
    /// is in a while, unless nothing at all is sent.
    pub fn share(&mut self, now: Instant, fixed_bps: u64, is_active: bool, claims: &mut [Claim]) {
        self.shared = Some(now);
        // What has no layers is not looked for: it is sent anyway.
        let demand = if claims.is_empty() { 0 } else { demand_bps(claims) + fixed_bps };
        self.estimator.set_demand(now, demand);
        let budget = self.budget(fixed_bps);
        self.budget = self.bounded(now, budget, fixed_bps, claims);
        self.fixed_bps = fixed_bps;
        self.allocator.share(now, self.budget, claims);
        self.granted_bps = granted_bps(claims);
        let every = if claims.is_empty() { REPORT_INTERVAL } else { SHARE_INTERVAL };
        self.next_share = is_active.then_some(now + every);
    }

    /// Whoever tells what arrives begins with the smallest sizes, until a probe has shown what there
    /// is. And where a queue empties, the fewest pictures go on if the path carries them.
    fn bounded(&mut self, now: Instant, budget: Budget, fixed: u64, claims: &[Claim]) -> Budget {
        let Budget { mut available_bps, mut proven_bps, .. } = budget;
        let with_reserve = |bps: u64| bps.saturating_mul(100 + RAISE_RESERVE_PERCENT) / 100 + 1_000;
        let is_told = self.telling == Telling::TransportCc;
        self.is_shy &= claims.is_empty() || (is_told && self.estimator.is_unsure(now));
        if self.is_shy {
            let smallest = claims.iter().map(|claim| claim.ladder.smallest_bps()).sum();
            available_bps = available_bps.min(with_reserve(smallest));
            proven_bps = proven_bps.min(available_bps);
        }
        if let Some(path) = self.estimator.emptying_bps() {
            let least: u64 = claims.iter().map(|claim| claim.ladder.least_bps()).sum();
            if fixed + with_reserve(least) <= path {
                available_bps = available_bps.max(with_reserve(least));
            }
        }
        Budget { available_bps, proven_bps, ..budget }
    }

    fn budget(&self, fixed_bps: u64) -> Budget {
        let Some(estimate) = self.estimate_bps() else {
            let most = self.max_bps.map_or(u64::MAX, |max| max.saturating_sub(fixed_bps));
            return Budget { available_bps: most, proven_bps: most, ..Budget::UNLIMITED };
        };
        // The estimate exceeds what arrives by more than this only when a probe has arrived.
        let known = self.estimator.snapshot();
        let delivered = known.delivered_bps.unwrap_or(0);
        let proven = if estimate > delivered.saturating_mul(8) / 5 { estimate } else { delivered };
        let emptying = self.estimator.emptying_bps().filter(|_| known.queueing <= EMPTYING_MAX);
        Budget {
            available_bps: estimate.saturating_sub(fixed_bps),
            proven_bps: proven.min(estimate).saturating_sub(fixed_bps),
            emptying_bps: emptying.unwrap_or(0).saturating_sub(fixed_bps),
            noise_bps: (estimate / 100 * ESTIMATE_NOISE_PERCENT)
                .min(self.max_bps.unwrap_or(u64::MAX).saturating_sub(estimate)),
        }
    }

    /// Why a claim of the last sharing got what it did.
    #[must_use]
    pub fn why(&self, now: Instant, claim: &Claim) -> WhyLayer {
        let mut why = self.allocator.why(now, self.budget, self.granted_bps, claim);
        if self.is_shy && why.reason == Reason::Bandwidth {
            why.reason = Reason::Settling;
        }
        why
    }

    /// The estimate, when it has changed by so much that the control thread should know.
    pub fn poll_news(&mut self, now: Instant) -> Option<u64> {
        let estimate = self.available_bps()?;
        if let Some((at, known)) = self.news {
            let rested = now.saturating_duration_since(at) >= BANDWIDTH_NEWS_INTERVAL;
            let changed = estimate.abs_diff(known) > known / 100 * BANDWIDTH_NEWS_PERCENT;
            if !(rested && changed) {
                return None;
            }
        }
        self.news = Some((now, estimate));
        Some(estimate)
    }

    /// Bytes that a probe wants to be sent now.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Probe> {
        if self.probe.is_none() && self.telling == Telling::TransportCc {
            self.probe = self.estimator.poll_probe(now);
            if self.probe.is_some() {
                self.rests_until = None;
            }
        }
        self.probe
    }

    /// So much of it was sent; none says that there is nothing to send it with.
    pub fn note_probe(&mut self, bytes: usize) {
        self.probed_bytes += bytes as u64;
        self.spend_probe(if bytes == 0 { usize::MAX } else { bytes });
    }

    /// So much left that serves a probe as well.
    pub(super) fn spend_probe(&mut self, bytes: usize) {
        if let Some(probe) = &mut self.probe {
            probe.bytes = probe.bytes.saturating_sub(bytes);
        }
        self.probe = self.probe.filter(|probe| probe.bytes > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::select::LayerTarget;
    use crate::engine::{ConsumerKey, test_instant};
    use crate::limits::BWE_START_BPS;

    fn ladder(bps: &[u64]) -> Ladder {
        let mut ladder = Ladder::default();
        ladder.add(0, bps, LayerTarget::HIGHEST);
        ladder
    }

    fn prices(ladder: &Ladder) -> Vec<u64> {
        ladder.rungs().iter().map(|rung| rung.bps).collect()
    }

    #[test]
    fn a_key_frame_raises_prices_little_and_other_layers_have_their_own() {
        let start = test_instant();
        let at = |ms| start + Duration::from_millis(ms);
        let mut share = Share::default();
        let mut price = |ms, bps: &[u64]| {
            let mut ladder = ladder(bps);
            share.level(at(ms), &mut ladder);
            prices(&ladder)
        };
        assert_eq!(price(0, &[100_000, 200_000]), [100_000, 200_000]);
        // Half as much again for a twenty-fifth of the span.
        assert_eq!(price(200, &[150_000, 300_000]), [102_000, 204_000]);
        assert_eq!(price(10_000, &[150_000, 300_000]), [150_000, 300_000]);
        assert_eq!(price(10_200, &[50_000]), [50_000], "another highest layer");
        assert_eq!(price(10_400, &[]), [0_u64; 0]);
        assert_eq!(price(10_600, &[80_000]), [80_000]);
    }

    fn claims(bps: &[u64]) -> [Claim; 1] {
        let mut claim = Claim::new(ConsumerKey::default(), 1, None);
        claim.ladder.add(0, &bps[..2], LayerTarget::HIGHEST);
        claim.ladder.add(1, &bps[2..], LayerTarget::HIGHEST);
        [claim]
    }

    #[test]
    fn it_begins_with_the_smallest_size_until_it_has_looked_or_nobody_tells() {
        let start = test_instant();
        let at = |ms| start + Duration::from_millis(ms);
        let granted = |outgoing: &mut Outgoing, ms: u64| {
            let mut claims = claims(&[90_000, 160_000, 300_000, 500_000]);
            outgoing.share(at(ms), 0, true, &mut claims);
            (claims[0].granted().unwrap().bps, outgoing.why(at(ms), &claims[0]).reason)
        };
        let mut silent = Outgoing::new(start, &BitrateLimits::default());
        silent.open(start, Telling::TransportCc);
        assert_eq!(granted(&mut silent, 0), (160_000, Reason::Settling));
        silent.note_sent(at(50), 7, 1_000, None);
        assert_eq!(granted(&mut silent, 400), (160_000, Reason::Settling));
        assert_eq!(granted(&mut silent, 560), (500_000, Reason::Preferred), "never told");
        let mut reporting = Outgoing::new(start, &BitrateLimits::default());
        reporting.open(start, Telling::Remb);
        assert_eq!(granted(&mut reporting, 0).0, 500_000, "there are no probes");
    }

    #[test]
    fn what_is_not_told_of_is_available_beside_the_estimate() {
        let now = test_instant();
        let mut outgoing = Outgoing::new(now, &BitrateLimits::default());
        outgoing.set_untold(40_000);
        assert_eq!(outgoing.available_bps(), None);
        outgoing.open(now, Telling::TransportCc);
        assert_eq!(outgoing.available_bps(), Some(BWE_START_BPS + 40_000));
        let max_outgoing_bps = Some(BWE_START_BPS + 10_000);
        outgoing.limit(now, &BitrateLimits { max_outgoing_bps, ..BitrateLimits::default() });
        assert_eq!(outgoing.available_bps(), max_outgoing_bps);
    }

    #[test]
    fn repairs_use_a_quarter_of_the_estimate_and_all_of_it_where_there_is_none() {
        let start = test_instant();
        let mut outgoing = Outgoing::new(start, &BitrateLimits::default());
        let repaired = |outgoing: &mut Outgoing, ms: u64| {
            let mut bytes = 0_usize;
            while bytes < 1_000_000 && outgoing.may_repair(start + Duration::from_millis(ms)) {
                outgoing.note_repair(1_250);
                bytes += 1_250;
            }
            bytes
        };
        assert_eq!(repaired(&mut outgoing, 0), 1_000_000, "nobody tells");
        outgoing.renew_repairs();
        outgoing.open(start, Telling::TransportCc);
        assert_eq!(repaired(&mut outgoing, 0), 18_750, "a second of 150 kbit/s");
        assert_eq!(repaired(&mut outgoing, 0), 0);
        assert_eq!(repaired(&mut outgoing, 200), 3_750, "a fifth of it");
        outgoing.renew_repairs();
        assert_eq!(repaired(&mut outgoing, 200), 18_750, "a key frame");
    }

    #[test]
    fn without_anybody_who_tells_only_a_limit_bounds_what_is_sent() {
        let now = test_instant();
        let limits = BitrateLimits { max_outgoing_bps: Some(500_000), ..BitrateLimits::default() };
        let mut outgoing = Outgoing::new(now, &limits);
        assert_eq!((outgoing.estimate_bps(), outgoing.poll_news(now)), (None, None));
        assert_eq!(outgoing.budget(100_000).available_bps, 400_000);
        outgoing.limit(now, &BitrateLimits::default());
        assert_eq!(outgoing.budget(100_000), Budget::UNLIMITED);
        outgoing.open(now, Telling::TransportCc);
        outgoing.open(now, Telling::Nothing);
        assert_eq!(outgoing.telling(), Telling::TransportCc);
        assert_eq!(outgoing.poll_news(now), Some(600_000));
        assert_eq!(outgoing.poll_news(now + Duration::from_secs(5)), None, "the same");
    }
}
