//! Probing: some bytes sent faster than the estimate show whether the path carries more.
//!
//! One cluster at a time: it is sent in steps (asked for by `poll`), whatever else leaves meanwhile
//! counts for it, and when the receiver has told of all of it, departures are compared with
//! arrivals (libwebrtc's probe bitrate estimator). Planned at the start, while demand exceeds the
//! estimate, and after drops; less often when it was in vain. Pure.

use std::num::NonZeroU8;

use super::{Probe, ProbeCluster, whole};

/// How long a cluster is sent; longer by so much, and at most, after each in vain: a path that hands
/// over packets in one go, or lets some pass at once, shows what it carries only to a longer one.
const CLUSTER_US: f64 = 20_000.0;
const CLUSTER_US_MORE: f64 = 20_000.0;
const CLUSTER_US_MAX: f64 = 60_000.0;
/// The same for some time after one that showed what was not there: it had fallen between the pictures
/// of somebody on the same path, and three of them are an average.
const CLUSTER_US_LIED: f64 = 100_000.0;

/// Bytes of a cluster at least: five packets of padding.
const CLUSTER_BYTES_MIN: f64 = 1_400.0;

/// Fewer packets of a cluster say nothing: pictures that serve as one are large.
const CLUSTER_PACKETS_MIN: u32 = 4;

/// What is sent ahead of time, in time and in bytes: a train.
const STEP_US: f64 = 5_000.0;
const STEP_BYTES_MIN: f64 = 280.0;

/// A cluster that could not be sent is given up after this.
const SEND_US_MAX: u64 = 300_000;
/// The receiver has to tell of it within this and two round trips.
const TELL_US_MAX: u64 = 1_000_000;

/// The first cluster checks the start value, unless only this part of it is wanted.
const FIRST_DEMAND: f64 = 0.25;

/// It waits for the first picture; where none can be sent, that is given up.
const FIRST_UNSENT_MAX: u8 = 4;

/// When one is due and the path is not settled, that is looked at again after this.
const RETRY_US: u64 = 100_000;

/// How much faster than the estimate: first, and after that, and a cluster that lasts long: it must
/// not fill a short queue.
const FACTOR_FIRST: f64 = 3.0;
const FACTOR: f64 = 2.0;
const FACTOR_LONG: f64 = 1.5;

/// Demand is looked for with this margin, and is enough with that.
const REACH: f64 = 1.45;
const ENOUGH: f64 = 1.3;

/// A cluster that arrived slower than this part of how it left has filled the path; then a little
/// less than what arrived is taken (libwebrtc).
const SATURATED: f64 = 0.9;
const TAKEN: f64 = 0.95;

/// A cluster that lost this much more of itself than what is sent otherwise met a policer or a
/// short queue: what arrived of it is no rate.
const LOST_MORE: f64 = 0.25;

/// Time between clusters: least, and most after several in vain.
const INTERVAL_US: u64 = 2_500_000;
const INTERVAL_MAX_US: u64 = 8_000_000;

/// Where what arrives tells of another path one may follow another after this, and after twice as long
/// each time until what such a one showed has held, or none has been told of for some time.
const HINT_US: u64 = 1_000_000;
const HINT_FORGOTTEN_US: u64 = 60_000_000;

/// After a cluster that showed what was not there: the next waits this long, longer each time, and
/// for some time one that showed more is followed by the next only when that has held for a moment.
/// A link that was opened right after a lie is found out within this and three such moments.
const LIE_US: u64 = 9_000_000;
const LIE_STEP_US: u64 = 1_000_000;
const LIE_US_MAX: u64 = 60_000_000;
const LIE_FORGOTTEN_US: u64 = 120_000_000;

/// How what left compares with what arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outcome {
    /// What the path carried.
    pub(super) bps: f64,
    /// It would not have carried more.
    pub(super) is_saturated: bool,
    /// By so much of its rate it arrived slower than it left: the part of what others sent meanwhile
    /// that it took the place of.
    pub(super) displaced: f64,
    /// For so long it arrived.
    pub(super) span_us: f64,
    /// All of it arrived.
    pub(super) is_whole: bool,
}

/// What decides about the next cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) estimate_bps: f64,
    pub(super) demand_bps: f64,
    pub(super) max_bps: f64,
    /// What is sent beside that no feedback tells of.
    pub(super) untold_bps: f64,
    /// The path was full before: what a short cluster shows is perhaps but a gap between the
    /// packets of others.
    pub(super) was_full: bool,
    /// No queue stands, and nothing holds growth back.
    pub(super) is_settled: bool,
}

#[derive(Debug, Clone, Copy)]
struct Cluster {
    id: u8,
    bps: f64,
    bytes: f64,
    started_us: u64,
    /// When it will have failed.
    ends_us: u64,
    /// Bytes asked for or sent, whichever is more.
    planned: f64,
    sending: bool,
    first_sent_us: u64,
    last_sent_us: u64,
    sent_bytes: u32,
    /// Of these, sent at `last_sent_us`.
    last_bytes: u32,
    sent: u32,
    told: u32,
    received: u32,
    received_bytes: u32,
    first_received_bytes: u32,
    first_arrival_us: i64,
    last_arrival_us: i64,
}

/// Plans, sends and measures clusters.
#[derive(Debug)]
pub(super) struct Probing {
    cluster: Option<Cluster>,
    last_id: u8,
    /// When the next may begin.
    next_us: u64,
    /// When to look again whether it may.
    retry_us: u64,
    interval_us: u64,
    /// When the last one ended.
    ended_us: Option<u64>,
    /// When what arrived last told of another path, and what to wait the next time.
    hinted_us: u64,
    hint_wait_us: u64,
    /// How long the next cluster is sent.
    cluster_us: f64,
    /// When a cluster last showed what was not there, and how long to wait after the next time.
    lied_us: Option<u64>,
    lie_wait_us: u64,
    first: bool,
    /// Clusters before the first that was sent for which there was nothing to send.
    unsent: u8,
    /// A cluster was told of, or lost.
    looked: bool,
    /// More is wanted than the estimate.
    wanted: bool,
}

impl Probing {
    pub(super) fn new(now_us: u64) -> Self {
        Self {
            cluster: None,
            last_id: 0,
            next_us: now_us,
            retry_us: now_us,
            interval_us: INTERVAL_US,
            ended_us: None,
            hinted_us: 0,
            hint_wait_us: HINT_US,
            cluster_us: CLUSTER_US,
            lied_us: None,
            lie_wait_us: LIE_US,
            first: true,
            unsent: 0,
            looked: false,
            wanted: false,
        }
    }

    /// The cluster that what leaves now is part of; 0 = none.
    #[inline]
    pub(super) fn sending(&self) -> u8 {
        self.cluster.as_ref().filter(|cluster| cluster.sending).map_or(0, |cluster| cluster.id)
    }

    /// A packet of the cluster left.
    pub(super) fn handle_sent(&mut self, now_us: u64, id: u8, bytes: u32) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.id == id) else {
            return;
        };
        if cluster.sent == 0 {
            cluster.first_sent_us = now_us;
        }
        if now_us > cluster.last_sent_us {
            cluster.last_sent_us = now_us;
            cluster.last_bytes = 0;
        }
        cluster.sent += 1;
        cluster.sent_bytes += bytes;
        cluster.last_bytes += bytes;
        cluster.planned = cluster.planned.max(f64::from(cluster.sent_bytes));
        if f64::from(cluster.sent_bytes) >= cluster.bytes {
            cluster.sending = cluster.wants_packets();
        }
    }

    /// The receiver told of a packet of the cluster.
    pub(super) fn handle_told(&mut self, id: u8, bytes: u32, arrival_us: Option<i64>) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.id == id) else {
            return;
        };
        cluster.told += 1;
        let Some(arrival_us) = arrival_us else { return };
        if cluster.received == 0 {
            cluster.first_arrival_us = arrival_us;
            cluster.last_arrival_us = arrival_us;
            cluster.first_received_bytes = bytes;
        }
        cluster.received += 1;
        cluster.received_bytes += bytes;
        cluster.first_arrival_us = cluster.first_arrival_us.min(arrival_us);
        cluster.last_arrival_us = cluster.last_arrival_us.max(arrival_us);
    }

    /// What a cluster showed, once all of it was told of; this part of what is sent is lost usually.
    pub(super) fn poll_outcome(&mut self, now_us: u64, usual_loss: f64) -> Option<Outcome> {
        let cluster = self.cluster.filter(|c| !c.sending && c.told >= c.sent)?;
        self.cluster = None;
        self.looked = true;
        self.pause(now_us);
        let lost = 1.0 - f64::from(cluster.received) / f64::from(cluster.sent.max(1));
        if lost > usual_loss + LOST_MORE { None } else { cluster.outcome() }
    }

    /// A cluster showed more than the estimate, and perhaps not all there is: the next may follow
    /// at once, or soon.
    pub(super) fn go_on(&mut self, now_us: u64) {
        self.interval_us = INTERVAL_US;
        if self.lied_us.is_none() {
            self.cluster_us = CLUSTER_US;
            self.next_us = now_us;
        } else {
            self.next_us = self.next_us.min(now_us + LIE_STEP_US);
        }
    }

    /// A cluster showed far more than the estimate: what little of it there was is no measure of so
    /// much.
    pub(super) fn handle_rise(&mut self, now_us: u64) {
        self.interval_us = INTERVAL_US;
        if self.lied_us.is_none() {
            self.next_us = self.next_us.min(now_us + INTERVAL_US);
        }
    }

    /// A cluster has shown what was not there, not long ago: others use the path.
    pub(super) fn has_lied(&self) -> bool {
        self.lied_us.is_some()
    }

    /// What arrives tells of another path than the last cluster met: the next does not wait for long.
    pub(super) fn handle_hint(&mut self, now_us: u64) {
        let Some(ended_us) = self.ended_us.filter(|_| self.cluster.is_none()) else { return };
        if now_us.saturating_sub(self.hinted_us) > HINT_FORGOTTEN_US {
            self.hint_wait_us = HINT_US;
        }
        let at_us = now_us.max(ended_us + self.hint_wait_us);
        if at_us < self.next_us {
            self.next_us = at_us;
            self.hinted_us = at_us;
            self.hint_wait_us *= 2;
        }
    }

    /// What a cluster showed has held.
    pub(super) fn handle_proof(&mut self) {
        self.hint_wait_us = HINT_US;
    }

    /// What the last cluster showed did not hold; nor would what the next shows, if that is on its way.
    pub(super) fn handle_lie(&mut self, now_us: u64) {
        self.cluster = None;
        self.next_us = now_us + self.lie_wait_us;
        self.lie_wait_us = (2 * self.lie_wait_us).min(LIE_US_MAX);
        self.lied_us = Some(now_us);
        self.cluster_us = CLUSTER_US_MAX;
    }

    /// The estimate fell: wait, then see whether that was all.
    pub(super) fn handle_drop(&mut self, now_us: u64, is_large: bool) {
        if is_large {
            self.interval_us = INTERVAL_US;
        }
        self.next_us = self.next_us.max(now_us + self.interval_us);
    }

    /// True once the first cluster is over, whatever it showed, or cannot be sent, and while too
    /// little is wanted for one.
    pub(super) fn has_looked(&self) -> bool {
        self.looked || self.unsent >= FIRST_UNSENT_MAX || (self.first && !self.wanted)
    }

    /// Begins a cluster if one is due, and gives up one that fails.
    pub(super) fn plan(&mut self, now_us: u64, round_trip_us: u64, wish: &Wish) {
        if let Some(cluster) = &self.cluster {
            let age_us = now_us.saturating_sub(cluster.started_us);
            let unsent = cluster.sending && age_us > SEND_US_MAX;
            if unsent && !self.looked && self.unsent < FIRST_UNSENT_MAX {
                // The first picture is not there yet.
                self.cluster = None;
                self.unsent += 1;
                self.first = true;
                self.next_us = now_us;
            } else if unsent || now_us >= cluster.ends_us {
                self.cluster = None;
                self.looked = true;
                self.pause(now_us);
            }
        }
        if self.lied_us.is_some_and(|at| now_us.saturating_sub(at) > LIE_FORGOTTEN_US) {
            self.lied_us = None;
            self.lie_wait_us = LIE_US;
        }
        let most = wish.max_bps.min(REACH * wish.demand_bps + wish.untold_bps);
        // The start value rests on nothing.
        let is_unknown = self.first && wish.demand_bps > FIRST_DEMAND * wish.estimate_bps;
        self.wanted = is_unknown || wish.estimate_bps < wish.max_bps.min(ENOUGH * wish.demand_bps);
        if !self.wanted || self.cluster.is_some() || now_us < self.next_us {
            return;
        }
        if !wish.is_settled {
            if self.retry_us <= now_us {
                self.retry_us = now_us + RETRY_US;
            }
            return;
        }
        let span_us = match wish.was_full {
            true if self.lied_us.is_some() => CLUSTER_US_LIED,
            true => CLUSTER_US_MAX,
            false => self.cluster_us,
        };
        let factor = match self.first {
            true => FACTOR_FIRST,
            false if span_us > CLUSTER_US => FACTOR_LONG,
            false => FACTOR,
        };
        let bps = (factor * (wish.estimate_bps + wish.untold_bps)).min(most);
        self.first = false;
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let mut cluster = Cluster::new(self.last_id, now_us, bps, span_us);
        cluster.ends_us += 2 * round_trip_us;
        self.cluster = Some(cluster);
    }

    /// What is to be sent now.
    pub(super) fn poll(&mut self, now_us: u64) -> Option<Probe> {
        let cluster = self.cluster.as_mut().filter(|cluster| cluster.sending)?;
        if now_us < cluster.next_us() {
            return None;
        }
        if cluster.planned >= cluster.bytes {
            cluster.sending = cluster.wants_packets();
            if !cluster.sending {
                return None;
            }
            cluster.bytes = cluster.planned + STEP_BYTES_MIN;
        }
        let passed_us = now_us.saturating_sub(cluster.started_us) as f64;
        let ahead = cluster.bps * (passed_us + STEP_US) / 8e6;
        let left = cluster.bytes - cluster.planned;
        let bytes = (ahead - cluster.planned).max(STEP_BYTES_MIN).min(left);
        cluster.planned += bytes;
        let cluster = ProbeCluster(NonZeroU8::new(cluster.id)?);
        Some(Probe { cluster, bytes: usize::try_from(whole(bytes)).unwrap_or_default() })
    }

    /// When [`poll`](Self::poll) or [`plan`](Self::plan) has something to do by itself.
    pub(super) fn next_us(&self) -> Option<u64> {
        match &self.cluster {
            Some(cluster) if cluster.sending => Some(cluster.next_us()),
            Some(cluster) => Some(cluster.ends_us),
            None => self.wanted.then_some(self.next_us.max(self.retry_us)),
        }
    }

    fn pause(&mut self, now_us: u64) {
        self.ended_us = Some(now_us);
        self.next_us = now_us + self.interval_us;
        self.interval_us = (self.interval_us * 3 / 2).min(INTERVAL_MAX_US);
        self.cluster_us = (self.cluster_us + CLUSTER_US_MORE).min(CLUSTER_US_MAX);
    }
}

impl Cluster {
    fn new(id: u8, now_us: u64, bps: f64, span_us: f64) -> Self {
        Self {
            id,
            bps,
            bytes: (bps * span_us / 8e6).max(CLUSTER_BYTES_MIN),
            started_us: now_us,
            ends_us: now_us + SEND_US_MAX + TELL_US_MAX,
            planned: 0.0,
            sending: true,
            first_sent_us: 0,
            last_sent_us: 0,
            sent_bytes: 0,
            last_bytes: 0,
            sent: 0,
            told: 0,
            received: 0,
            received_bytes: 0,
            first_received_bytes: 0,
            first_arrival_us: 0,
            last_arrival_us: 0,
        }
    }

    /// Its bytes have left in too few packets to measure by.
    fn wants_packets(&self) -> bool {
        (1..CLUSTER_PACKETS_MIN).contains(&self.sent)
    }

    /// When what was planned so far would have left at the cluster's rate.
    fn next_us(&self) -> u64 {
        self.started_us + whole(self.planned * 8e6 / self.bps)
    }

    fn outcome(&self) -> Option<Outcome> {
        if self.received < CLUSTER_PACKETS_MIN || self.received_bytes < self.sent_bytes / 2 {
            return None;
        }
        let left_us = self.last_sent_us.saturating_sub(self.first_sent_us) as f64;
        let sent_bps = if left_us < 1e3 {
            self.bps
        } else {
            f64::from(self.sent_bytes - self.last_bytes) * 8e6 / left_us
        };
        let arrived_us = (self.last_arrival_us - self.first_arrival_us).max(1_000) as f64;
        let arrived_bps =
            f64::from(self.received_bytes - self.first_received_bytes) * 8e6 / arrived_us;
        let is_saturated = arrived_bps < SATURATED * sent_bps;
        let is_whole = self.received == self.sent;
        let bps = if is_saturated { TAKEN * arrived_bps } else { arrived_bps.min(sent_bps) };
        let displaced = (1.0 - arrived_bps / sent_bps.max(1.0)).max(0.0);
        Some(Outcome { bps, is_saturated, displaced, span_us: arrived_us, is_whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish = Wish {
        estimate_bps: 6e5,
        demand_bps: 4e6,
        max_bps: f64::INFINITY,
        untold_bps: 0.0,
        was_full: false,
        is_settled: true,
    };

    /// Sends the cluster that is due as steps of `packet`-byte packets over a path of `path_bps`;
    /// all of it arrives. Returns when it was sent, and how many bytes.
    fn send(probing: &mut Probing, from_us: u64, packet: u32, path_bps: f64) -> (u64, u32) {
        let mut sent = Vec::new();
        let mut now_us = from_us;
        while probing.sending() != 0 {
            while let Some(probe) = probing.poll(now_us) {
                let id = probe.cluster.0.get();
                for _ in 0..probe.bytes.div_ceil(packet as usize) {
                    probing.handle_sent(now_us, id, packet);
                    sent.push((now_us, id));
                }
            }
            now_us = probing.next_us().unwrap().max(now_us + 1);
        }
        let mut free_us = 0.0f64;
        for (at_us, id) in &sent {
            free_us = free_us.max(*at_us as f64) + f64::from(packet) * 8e6 / path_bps;
            probing.handle_told(*id, packet, Some(whole(free_us).cast_signed()));
        }
        (sent.last().unwrap().0 - from_us, packet * u32::try_from(sent.len()).unwrap())
    }

    #[test]
    fn a_probe_shows_the_capacity_or_that_there_is_at_least_so_much() {
        for (packet, path_bps, bps, is_saturated) in [
            (280, 1e9, 1.8e6, false),
            (280, 1.2e6, 1.2e6, true),
            (280, 3e5, 3e5, true),
            (1_200, 1e9, 1.8e6, false),
            (1_200, 1e6, 1e6, true),
        ] {
            let mut probing = Probing::new(0);
            probing.plan(5_000, 50_000, &WISH);
            let (us, bytes) = send(&mut probing, 5_000, packet, path_bps);
            assert!((10_000..21_000).contains(&us) && bytes < 6_100, "{us} {bytes}");
            assert!(!probing.has_looked());
            let outcome = probing.poll_outcome(300_000, 0.0).unwrap();
            assert!(probing.has_looked());
            assert_eq!(outcome.is_saturated, is_saturated);
            let displaced = if is_saturated { 1.0 - path_bps / 1.8e6 } else { 0.0 };
            assert!((outcome.displaced - displaced).abs() < 0.2, "{outcome:?} of {displaced}");
            let ratio = outcome.bps / bps;
            assert!((0.85..1.3).contains(&ratio), "{packet} {path_bps}: {ratio}");
            assert_eq!(probing.poll_outcome(300_000, 0.0), None);
        }
    }

    #[test]
    fn a_probe_in_vain_is_repeated_ever_less_often() {
        let mut probing = Probing::new(0);
        let mut begun = Vec::new();
        for now_us in (0..60_000_000).step_by(100_000) {
            probing.plan(now_us, 50_000, &WISH);
            if probing.sending() != 0 {
                begun.push(now_us / 100_000);
                send(&mut probing, now_us, 280, 6e5);
                assert!(probing.poll_outcome(now_us, 0.0).is_some());
            }
        }
        assert!((7..=12).contains(&begun.len()), "{begun:?}");
        let gaps: Vec<u64> = begun.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.is_sorted() && gaps[0] >= 25 && gaps[gaps.len() - 1] <= 81, "{gaps:?}");
    }

    #[test]
    fn after_a_lie_a_cluster_is_long_enough_for_three_pictures_of_a_neighbour() {
        let mut probing = Probing::new(0);
        let full = Wish { was_full: true, ..WISH };
        let mut spans = Vec::new();
        for (at_us, lies) in [(10_000_000, true), (40_000_000, false), (300_000_000, false)] {
            probing.plan(at_us, 50_000, &full);
            spans.push(send(&mut probing, at_us, 280, 6e5).0);
            assert!(probing.poll_outcome(at_us, 0.0).is_some());
            if lies {
                probing.handle_lie(at_us);
            }
        }
        let [usual, lied, forgotten] = spans[..] else { panic!("{spans:?}") };
        assert!((50_000..=60_000).contains(&usual), "{spans:?}");
        assert!((90_000..=100_000).contains(&lied), "{spans:?}");
        assert!((50_000..=60_000).contains(&forgotten), "{spans:?}");
    }

    #[test]
    fn pictures_that_serve_as_a_probe_of_a_slow_path_are_made_enough_packets() {
        let slow = Wish { estimate_bps: 1e5, demand_bps: 1e6, ..WISH };
        let mut probing = Probing::new(0);
        probing.first = false;
        probing.plan(5_000_000, 50_000, &slow);
        let id = probing.sending();
        // Two packets of a picture are all that was asked for.
        (0..2).for_each(|_| probing.handle_sent(5_000_000, id, 1_200));
        let mut sent = vec![1_200; 2];
        let mut now_us = 5_000_000;
        while probing.sending() != 0 && now_us < 6_000_000 {
            now_us += 1_000;
            if let Some(probe) = probing.poll(now_us) {
                assert!(probe.bytes < 300, "{}", probe.bytes);
                probing.handle_sent(now_us, id, 280);
                sent.push(280);
            }
        }
        assert_eq!(sent, [1_200, 1_200, 280, 280]);
        let mut at_us = 5_050_000.0;
        for bytes in sent {
            at_us += f64::from(bytes) * 8e6 / 1.2e5;
            probing.handle_told(id, bytes, Some(whole(at_us).cast_signed()));
        }
        let outcome = probing.poll_outcome(5_400_000, 0.0).unwrap();
        assert!((1.05e5..1.25e5).contains(&outcome.bps), "{outcome:?}");
    }

    #[test]
    fn what_was_on_its_way_when_the_one_before_had_lied_is_not_heard() {
        let mut probing = Probing::new(0);
        probing.plan(0, 50_000, &WISH);
        let id = probing.sending();
        (0..20).for_each(|n| probing.handle_sent(n * 1_000, id, 280));
        probing.handle_lie(300_000);
        (0..20).for_each(|n| probing.handle_told(id, 280, Some(n * 1_000)));
        assert_eq!(probing.poll_outcome(310_000, 0.0), None);
        assert_eq!(probing.cluster.map(|cluster| cluster.id), None);
        probing.plan(310_000, 50_000, &WISH);
        assert_eq!((probing.sending(), probing.next_us), (0, 300_000 + LIE_US));
    }

    #[test]
    fn what_a_small_cluster_shows_far_above_the_estimate_is_looked_at_again_soon() {
        let mut probing = Probing::new(0);
        let mut at_us = 0;
        for _ in 0..4 {
            at_us += 10_000_000;
            probing.plan(at_us, 50_000, &WISH);
            send(&mut probing, at_us, 280, 6e5);
            assert!(probing.poll_outcome(at_us, 0.0).is_some());
        }
        assert!(probing.next_us() > Some(at_us + 2 * INTERVAL_US), "in vain for some time");
        probing.handle_rise(at_us);
        assert_eq!(probing.next_us(), Some(at_us + INTERVAL_US));
        probing.handle_lie(at_us);
        probing.handle_rise(at_us);
        assert_eq!(probing.next_us(), Some(at_us + LIE_US), "but not behind one that lied");
    }

    #[test]
    fn hints_shorten_the_wait_ever_less_until_one_was_right() {
        let mut probing = Probing::new(0);
        let mut at_us = 0;
        let vain = |probing: &mut Probing, at_us: u64| {
            probing.plan(at_us, 50_000, &WISH);
            send(probing, at_us, 280, 6e5);
            assert!(probing.poll_outcome(at_us, 0.0).is_some(), "{at_us}");
        };
        probing.handle_hint(0);
        assert_eq!(probing.next_us(), None, "nothing was probed yet");
        for _ in 0..4 {
            at_us += 10_000_000;
            vain(&mut probing, at_us);
        }
        for wait_us in [HINT_US, 2 * HINT_US, 4 * HINT_US] {
            probing.handle_hint(at_us + 100_000);
            assert_eq!(probing.next_us(), Some(at_us + wait_us));
            probing.handle_hint(at_us + 200_000);
            assert_eq!(probing.next_us(), Some(at_us + wait_us), "one wait has one hint");
            at_us += wait_us;
            vain(&mut probing, at_us);
        }
        probing.handle_hint(at_us);
        assert_eq!(probing.next_us(), Some(at_us + INTERVAL_MAX_US));
        probing.handle_proof();
        probing.handle_hint(at_us);
        assert_eq!(probing.next_us(), Some(at_us + HINT_US));
        at_us += HINT_US;
        vain(&mut probing, at_us);
        at_us += HINT_FORGOTTEN_US + 1;
        vain(&mut probing, at_us);
        probing.handle_hint(at_us);
        assert_eq!(probing.next_us(), Some(at_us + HINT_US), "long ago");
    }

    #[test]
    fn nothing_is_probed_without_need_or_while_unsettled() {
        for wish in [
            Wish { demand_bps: 0.0, ..WISH },
            Wish { demand_bps: 4.5e5, ..WISH },
            Wish { max_bps: 6e5, ..WISH },
        ] {
            let mut probing = Probing::new(0);
            probing.first = false;
            probing.plan(9_000_000, 50_000, &wish);
            assert_eq!((probing.sending(), probing.next_us()), (0, None), "{wish:?}");
            // The start value is looked at once, unless next to nothing is wanted.
            let mut first = Probing::new(0);
            first.plan(9_000_000, 50_000, &wish);
            assert_eq!(first.sending() != 0, wish.demand_bps > 0.0, "{wish:?}");
            assert_eq!(first.has_looked(), wish.demand_bps == 0.0, "{wish:?}");
        }
        let mut probing = Probing::new(0);
        probing.plan(9_000_000, 50_000, &Wish { is_settled: false, ..WISH });
        assert_eq!(probing.sending(), 0);
        assert!(probing.next_us().is_some());
    }

    #[test]
    fn a_cluster_that_nobody_sends_or_tells_of_is_given_up() {
        let mut probing = Probing::new(0);
        probing.plan(0, 50_000, &WISH);
        let mut asked = 0;
        let mut now_us = 0;
        while probing.sending() != 0 {
            asked += probing.poll(now_us).map_or(0, |probe| probe.bytes);
            now_us += 1_000;
        }
        assert!((4_400..5_000).contains(&asked), "{asked}");
        assert_eq!(probing.poll_outcome(now_us, 0.0), None);
        probing.plan(now_us, 50_000, &WISH);
        assert_eq!(probing.sending(), 0);

        let mut probing = Probing::new(0);
        probing.plan(0, 50_000, &WISH);
        while let Some(probe) = probing.poll(now_us) {
            for _ in 0..probe.bytes.div_ceil(280) {
                probing.handle_sent(now_us, probe.cluster.0.get(), 280);
            }
        }
        probing.plan(1_000_000, 50_000, &WISH);
        assert_eq!((probing.sending(), probing.poll_outcome(1_000_000, 0.0)), (0, None));
        probing.plan(1_500_000, 50_000, &WISH);
        probing.plan(5_000_000, 50_000, &WISH);
        assert_ne!(probing.sending(), 0);
    }
}
