//! How much may be sent to a receiver: an estimate from what it tells of the packets sent.
//!
//! One [`Estimator`] per transport that sends, called by its transport on the shard's thread. Pure:
//! time, packets, feedback and wishes go in; an estimate, probes to send and a deadline come out,
//! the same for the same input. Congestion control as browsers do it towards us
//! (draft-ietf-rmcat-gcc-02 and what libwebrtc made of it), with differences that whole layers and
//! unpaced trains ask for; each module says its own.
//!
//! ```text
//! note_sent ──► history ◄── handle_feedback
//!                  │ packets told of
//!     ┌────────────┼───────────┬───────────┐
//!   delay      throughput     loss       probe ──► poll_probe
//!     ├─ trend     │           │           │
//!     ├─ spacing ──┼───────────┼────────►  │
//!            rate ◄┴───────────┴───────────┘ ──► estimate_bps
//! ```
//!
//! Invariants: the estimate is within the limits that were set; it does not grow beyond 1.2 times
//! what arrives unless a probe arrived faster; it does not fall while no queue stands, no more than
//! tolerated is lost and no probe filled the path with less. A transport that never numbers a packet has nothing but this value of
//! fixed size; one that does allocates when the first leaves and as its history grows, and not
//! after that.
//!
//! Receivers without transport-wide feedback are believed ([`handle_remb`](Estimator::handle_remb),
//! [`handle_receiver_report`](Estimator::handle_receiver_report)). What to do with the estimate is
//! not decided here.

mod delay;
mod history;
mod loss;
mod model;
mod probe;
mod rate;
mod reported;
mod spacing;
mod tally;
mod throughput;
mod trend;

use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use self::model::{Bounds, Model};
use self::reported::Reported;
use crate::engine::rtcp::TransportCc;
use crate::limits::{BWE_LEAST_BPS, BWE_START_BPS, START_SILENCE};

/// What the delay says of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// A queue grows or stands.
    Over,
    /// Neither.
    Normal,
    /// A queue empties.
    Under,
}

/// What limits the estimate now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Basis {
    /// Nothing was told yet: the start value.
    Start,
    /// Transport-wide feedback, by delay and probes.
    Delay,
    /// Transport-wide feedback, by loss.
    Loss,
    /// The receiver's own estimate, or its reports.
    Reported,
}

/// What became of some packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Nothing is known to be lost, and not everything to be there.
    UnderWay,
    /// All of them arrived.
    Arrived,
    /// One is lost, or was passed over in what the receiver told.
    Lost,
}

/// Packets that are sent together as a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProbeCluster(NonZeroU8);

/// What a probe asks to be sent now: padding, or repeats of recent packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// For [`note_sent`](Estimator::note_sent).
    pub cluster: ProbeCluster,
    /// Bytes on the wire, in as many packets as are convenient; a little more does no harm.
    pub bytes: usize,
}

/// What an estimator knows, for statistics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// As [`Estimator::estimate_bps`].
    pub estimate_bps: u64,
    /// What it rests on.
    pub basis: Basis,
    /// What the delay says.
    pub usage: Usage,
    /// What is wanted, as set.
    pub demand_bps: u64,
    /// What arrived lately; `None` while that is not known.
    pub delivered_bps: Option<u64>,
    /// What was sent at the time of that.
    pub sent_bps: Option<u64>,
    /// Part of the packets lost lately, 0 to 1.
    pub loss: f64,
    /// The queue that stands.
    pub queueing: Duration,
    /// From departure to feedback, without queues; or as receiver reports have it.
    pub round_trip: Option<Duration>,
    /// Less is sent than may be.
    pub is_app_limited: bool,
}

/// Estimates what one transport may send. See the [module](self).
#[derive(Debug)]
pub struct Estimator {
    epoch: Instant,
    min_bps: u64,
    max_bps: u64,
    demand_bps: u64,
    untold_bps: u64,
    estimate_bps: u64,
    reported: Reported,
    model: Option<Box<Model>>,
}

const _: () = assert!(size_of::<Estimator>() <= 160, "an idle transport has one");
const _: () = assert!(size_of::<Model>() <= 2304, "a transport that sends has one");

impl Estimator {
    /// An estimator for a transport that begins at `now`, without limits or demand.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            min_bps: BWE_LEAST_BPS,
            max_bps: u64::MAX,
            demand_bps: 0,
            untold_bps: 0,
            estimate_bps: BWE_START_BPS,
            reported: Reported::new(),
            model: None,
        }
    }

    /// The estimate stays within these from now on. `max_bps` wins; the least is
    /// [`BWE_LEAST_BPS`].
    pub fn set_limits(&mut self, now: Instant, min_bps: u64, max_bps: u64) {
        self.max_bps = max_bps.max(BWE_LEAST_BPS);
        self.min_bps = min_bps.max(BWE_LEAST_BPS).min(self.max_bps);
        self.wish_changed(now);
    }

    /// What could be sent if the path allowed it; probes look for this much and a margin. 0 = there
    /// is nothing to look for.
    pub fn set_demand(&mut self, now: Instant, bps: u64) {
        if self.demand_bps != bps {
            self.demand_bps = bps;
            self.wish_changed(now);
        }
    }

    /// So much is sent beside what has transport-wide numbers: it is not in the estimate, and takes
    /// its part of the path.
    pub fn set_untold(&mut self, bps: u64) {
        self.untold_bps = bps;
    }

    /// A packet with transport-wide number `seq` left with `bytes` on the wire; `probe` if it was
    /// asked for by one. Costs a few nanoseconds; allocates when it is the first.
    #[inline]
    pub fn note_sent(&mut self, now: Instant, seq: u16, bytes: usize, probe: Option<ProbeCluster>) {
        let now_us = self.us(now);
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        match &mut self.model {
            Some(model) => {
                model.note_sent(now_us, seq, bytes, probe.map_or(0, |probe| probe.0.get()));
            }
            None => self.begin(now_us, seq, bytes),
        }
    }

    /// A value of each line of its model that sending needs, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        self.model.as_ref().map_or(0, |model| model.warm())
    }

    /// The same of what lies behind that, when the next packet is number `seq`.
    pub(in crate::engine) fn warm_history(&self, seq: u16) -> usize {
        self.model.as_ref().map_or(0, |model| model.warm_history(seq))
    }

    /// The receiver told of packets.
    pub fn handle_feedback(&mut self, now: Instant, feedback: &TransportCc<'_>) {
        let (now_us, bounds) = (self.us(now), self.bounds());
        if let Some(model) = &mut self.model {
            model.handle_feedback(now_us, feedback, &bounds);
            self.estimate(now);
        }
    }

    /// A receiver reported: the part of all its streams' packets that were lost since its last
    /// report, in 1/256, and the round trip if it is known. Once per report, not per stream.
    pub fn handle_receiver_report(
        &mut self,
        now: Instant,
        fraction_lost: u8,
        round_trip: Option<Duration>,
    ) {
        self.reported.round_trip = round_trip.or(self.reported.round_trip);
        let most = (1.3 * self.demand_bps as f64).max(BWE_START_BPS as f64);
        self.reported.handle_report(now, f64::from(fraction_lost) / 256.0, most);
        self.estimate(now);
    }

    /// A receiver told its own estimate: the estimate where there is no transport-wide feedback,
    /// and a limit for some seconds where there is.
    pub fn handle_remb(&mut self, now: Instant, bps: u64) {
        self.reported.handle_remb(now, bps as f64);
        self.estimate(now);
    }

    /// Time passed; to be called at [`next_deadline`](Self::next_deadline), harmless at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        let (now_us, bounds) = (self.us(now), self.bounds());
        if let Some(model) = &mut self.model {
            model.handle_timeout(now_us, &bounds);
            self.estimate(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) and [`poll_probe`](Self::poll_probe) are to
    /// be called next; changes with every call. `None` while there is nothing to wait for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let us = self.model.as_ref()?.next_us()?;
        self.epoch.checked_add(Duration::from_micros(us))
    }

    /// True while the estimate is but a hope: the first probe has not shown anything yet. Over when
    /// a receiver tells nothing for [`START_SILENCE`] at its beginning.
    #[must_use]
    pub fn is_unsure(&self, now: Instant) -> bool {
        let now_us = self.us(now);
        self.model.as_ref().is_none_or(|model| model.is_unsure(now_us))
    }

    /// True once the path has shown, or its receiver told, that it carries no more than about the
    /// estimate; false while that is only as much as was looked for.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.answering().map_or_else(|| self.reported.is_bounded(), |model| model.is_bounded)
    }

    /// The receiver has told what became of everything that left before this.
    #[must_use]
    pub fn told_until(&self) -> Option<Instant> {
        let us = self.answering()?.told_until_us;
        self.epoch.checked_add(Duration::from_micros(us))
    }

    /// What became of the packets numbered `first` to `last`, as far as their receiver has told.
    #[must_use]
    pub fn fate(&self, first: u16, last: u16) -> Fate {
        self.answering().map_or(Fate::UnderWay, |model| model.fate(first, last))
    }

    /// bits/s that the path delivered when its queue was last too long, while that queue empties and
    /// the estimate leaves room for it to do so.
    #[must_use]
    pub fn emptying_bps(&self) -> Option<u64> {
        self.answering().and_then(|model| model.rate.draining_bps()).map(whole)
    }

    /// True while much is being lost of what left before the estimate fell for it: pictures of that
    /// are not whole.
    #[must_use]
    pub fn is_losing(&self) -> bool {
        self.answering().is_some_and(|model| model.loss.is_losing())
    }

    /// What a probe wants to be sent now; to be called until there is none. What is sent for it
    /// is told to [`note_sent`](Self::note_sent). A probe that cannot be sent is simply not sent:
    /// it is given up by itself.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Probe> {
        let now_us = self.us(now);
        self.model.as_mut()?.poll_probe(now_us)
    }

    /// Bits per second that may be sent, counted as [`note_sent`](Self::note_sent) counts them.
    #[must_use]
    pub fn estimate_bps(&self) -> u64 {
        self.estimate_bps
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let model = self.answering();
        let round_trip = model.and_then(|model| model.round_trip_us).map(Duration::from_micros);
        let standing = model.map_or(0, |model| model.standing_us().unsigned_abs());
        Snapshot {
            estimate_bps: self.estimate_bps,
            basis: self.basis(),
            usage: model.map_or(Usage::Normal, Model::usage),
            demand_bps: self.demand_bps,
            delivered_bps: model.and_then(Model::delivered_bps).map(whole),
            sent_bps: model.and_then(Model::sent_bps).map(whole),
            loss: model.map_or(self.reported.loss, |model| model.loss.ratio()),
            queueing: Duration::from_micros(standing),
            round_trip: round_trip.or(self.reported.round_trip),
            is_app_limited: model.is_some_and(Model::is_app_limited),
        }
    }

    fn basis(&self) -> Basis {
        match self.answering() {
            Some(model) if model.rate.bps() > self.estimate_bps as f64 + 1.0 => Basis::Reported,
            Some(model) if model.loss.is_limiting() => Basis::Loss,
            Some(_) => Basis::Delay,
            None if self.reported.is_empty() => Basis::Start,
            None => Basis::Reported,
        }
    }

    /// The first numbered packet leaves.
    #[cold]
    fn begin(&mut self, now_us: u64, seq: u16, bytes: u16) {
        let mut model = Box::new(Model::new(now_us, seq, self.estimate_bps as f64));
        model.silent_from_us = now_us.saturating_add(whole(START_SILENCE.as_secs_f64() * 1e6));
        model.note_sent(now_us, seq, bytes, 0);
        model.plan(now_us, &self.bounds());
        self.model = Some(model);
    }

    fn wish_changed(&mut self, now: Instant) {
        let (now_us, bounds) = (self.us(now), self.bounds());
        if let Some(model) = &mut self.model {
            model.rate.clamp(bounds.min_bps, bounds.max_bps);
            model.plan(now_us, &bounds);
        }
        self.estimate(now);
    }

    fn answering(&self) -> Option<&Model> {
        self.model.as_deref().filter(|model| model.is_answered())
    }

    fn estimate(&mut self, now: Instant) {
        let bps = match self.answering() {
            Some(model) => {
                let limit = self.reported.limit_bps(now).unwrap_or(f64::INFINITY);
                model.rate.bps().min(limit)
            }
            None => self.reported.bps(),
        };
        self.estimate_bps = whole(bps).clamp(self.min_bps, self.max_bps);
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            min_bps: self.min_bps as f64,
            max_bps: self.max_bps as f64,
            demand_bps: self.demand_bps as f64,
            untold_bps: self.untold_bps as f64,
        }
    }

    fn us(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
    }
}

/// The whole part; 0 for what is no positive number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from floating point saturates"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests;
