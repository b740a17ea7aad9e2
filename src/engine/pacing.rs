//! How a burst leaves for a slow link: not all at once, so that sound does not wait behind it, no
//! short buffer overflows, and the estimate sees no queue that is only our own haste.
//!
//! Called by `egress`, on the shard's thread. What was sent is counted as a queue that empties
//! faster than the estimate ([`PACE_PERCENT`]). While less than [`PACE_AHEAD`] of it is left,
//! everything leaves at once; then pictures wait until [`PACE_REST`] is left, so that what leaves is
//! still trains. Whoever waits is *held*: it keeps its place in its stream's ring, from where it is
//! read when its turn comes, so nothing is copied, no number is given before the packet leaves, and
//! whatever stops a consumer, or makes it go over to another stream, empties its queue.
//!
//! * Only estimates below [`PACED_LARGE_BPS_MAX`] are kept to, and only where the path has shown that
//!   it carries no more: what any other link is sent costs one comparison a turn. From
//!   [`PACED_BPS_MAX`] on more leaves at once ([`PACE_AHEAD_LARGE`]): there only a key picture of all
//!   layers is so much that a short buffer would overflow.
//! * Before anything is known of a link, the first key frame leaves at once, and what follows it for
//!   [`START_AHEAD`]; the rest waits for the first that the receiver tells.
//! * Sound is counted and never waits. Probes are counted and do not wait, and while one wants
//!   something to be sent, pictures that are held leave for it.
//! * A picture that would wait for more than [`PACED_AGE_MAX`] leaves at once: a video without lower
//!   layers that is too much for its link is not to be late besides.
//! * Who asks for a key frame while one is on its way is answered by [`under_way`].
//!
//! [`under_way`]: crate::engine::under_way

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use slotmap::SlotMap;

use crate::engine::consumer::{Consumer, Cursor};
use crate::engine::egress::Way;
use crate::engine::outgoing::{Outgoing, Telling};
use crate::engine::stream::Stream;
use crate::engine::{ConsumerKey, StreamKey};
use crate::limits::{
    PACE_AHEAD, PACE_AHEAD_LARGE, PACE_PERCENT, PACE_REST, PACED_AGE_MAX, PACED_BPS_MAX,
    PACED_LARGE_BPS_MAX, PACED_LOOK, START_AHEAD, START_LOOK,
};
use crate::ortc::types::MediaKind;

/// What leaves together once it may, in time on the link.
const PACE_TRAIN: Duration = PACE_AHEAD.saturating_sub(PACE_REST);

/// What a link still has to carry of what was sent over it, in time. Pure.
#[derive(Debug)]
pub struct Pacer {
    /// When all of it has passed at the pace.
    pub(super) clear_at: Instant,
    /// Nothing more leaves before this.
    closed_until: Option<Instant>,
    /// When the first packet left.
    began: Option<Instant>,
    /// Nothing is known of the link yet.
    is_unsure: bool,
    /// Consumers that wait for it, each once, in the order of their turns.
    held: VecDeque<ConsumerKey>,
    /// When they are looked at whatever the link carries: some pictures may have waited too long.
    look_at: Option<Instant>,
}

impl Pacer {
    /// Of a link over which nothing was sent.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            clear_at: now,
            closed_until: None,
            began: None,
            is_unsure: true,
            held: VecDeque::new(),
            look_at: None,
        }
    }

    /// True when a packet more may leave now, of which as much leaves without waiting as takes
    /// `at_once` on the link; otherwise [`opens_at`](Self::opens_at) tells when.
    pub fn is_open(&mut self, now: Instant, at_once: Duration) -> bool {
        if self.closed_until.is_some_and(|until| now < until) {
            return false;
        }
        let ahead = self.clear_at.saturating_duration_since(now);
        let rest = at_once.saturating_sub(PACE_TRAIN);
        self.closed_until = self.clear_at.checked_sub(rest).filter(|_| ahead >= at_once);
        self.closed_until.is_none()
    }

    /// When it is to be asked again, if it said no.
    #[must_use]
    pub fn opens_at(&self) -> Option<Instant> {
        self.closed_until
    }

    /// So many bytes left, for a link of so many bits/s. What left although it was too much is
    /// forgotten beyond [`PACED_AGE_MAX`]: what comes behind it does not wait for longer.
    pub fn note_sent(&mut self, now: Instant, bytes: usize, bps: u64) {
        let pace_bps = bps.saturating_mul(PACE_PERCENT) / 100;
        let us = (bytes as u64).saturating_mul(8_000_000) / pace_bps.max(1);
        let clear_at = self.clear_at.max(now) + Duration::from_micros(us);
        self.clear_at = clear_at.min(now + PACED_AGE_MAX);
        self.began.get_or_insert(now);
    }
}

impl Outgoing {
    /// What leaves for it is paced.
    pub(super) fn is_paced(&self) -> bool {
        let is_slow = || self.estimate_bps().is_some_and(|bps| bps < PACED_LARGE_BPS_MAX);
        self.is_unsure() || (is_slow() && self.estimator().is_bounded())
    }

    /// Nothing is known of its link, and somebody will tell.
    fn is_unsure(&self) -> bool {
        self.pacer.is_unsure && self.telling() == Telling::TransportCc
    }

    fn may_pass(&mut self, now: Instant) -> bool {
        if self.is_unsure() {
            let closed = self.pacer.began.is_some_and(|at| at + START_AHEAD <= now);
            self.pacer.closed_until = closed.then(|| now + START_LOOK);
            return !closed;
        }
        let is_slow = self.estimate_bps().is_some_and(|bps| bps < PACED_BPS_MAX);
        let at_once = if is_slow { PACE_AHEAD } else { PACE_AHEAD_LARGE };
        self.pacer.is_open(now, at_once) || self.poll_probe(now).is_some()
    }

    fn note_paced(&mut self, now: Instant, bytes: usize) {
        if let Some(bps) = self.estimate_bps() {
            self.pacer.note_sent(now, bytes, bps);
        }
    }

    /// A turn begins: puts those that were held among `due` if they may go on, the one that was
    /// interrupted last. True when what leaves is paced.
    pub(super) fn release(&mut self, now: Instant, due: &mut VecDeque<ConsumerKey>) -> bool {
        if self.is_unsure() {
            self.pacer.is_unsure = self.estimator().is_unsure(now);
        }
        let is_paced = self.is_paced();
        let is_looked_at = self.pacer.look_at.is_some_and(|at| at <= now);
        if self.pacer.held.is_empty() || (is_paced && !is_looked_at && !self.may_pass(now)) {
            return is_paced;
        }
        self.pacer.look_at = None;
        self.pacer.held.rotate_left(1);
        due.extend(self.pacer.held.drain(..));
        is_paced
    }

    /// When those that are held may go on; `None` when nobody is.
    pub(super) fn releases_at(&self) -> Option<Instant> {
        let (opens_at, look_at) = (self.pacer.opens_at(), self.pacer.look_at);
        opens_at.into_iter().chain(look_at).min().filter(|_| !self.pacer.held.is_empty())
    }

    /// A consumer is gone.
    pub(super) fn forget(&mut self, key: ConsumerKey) {
        self.pacer.held.retain(|other| *other != key);
    }
}

impl Way<'_> {
    /// A consumer is to wait until the link has carried what was sent.
    pub(super) fn hold(&mut self, key: ConsumerKey) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.pacer.held.push_back(key);
            outgoing.pacer.look_at.get_or_insert(self.now + PACED_LOOK);
        }
    }

    /// The packet just sealed takes its time on the link, if its receiver's estimate is of all that
    /// is sent or of this too.
    pub(super) fn note_paced(&mut self, numbered: bool) {
        let (now, bytes) = (self.now, self.sealed);
        let Some(outgoing) = &mut self.outgoing else { return };
        if !numbered && outgoing.telling() == Telling::TransportCc {
            return;
        }
        outgoing.note_paced(now, bytes);
        if self.probe.is_none() {
            outgoing.spend_probe(bytes);
        }
    }

    fn may_pass(&mut self) -> bool {
        let now = self.now;
        self.outgoing.as_mut().is_none_or(|outgoing| outgoing.may_pass(now))
    }

    fn is_unsure(&self) -> bool {
        self.outgoing.as_ref().is_some_and(|outgoing| outgoing.is_unsure())
    }
}

impl Consumer {
    /// Its turn has come again after it was held: what waited for its link did not wait for the
    /// shard.
    pub(super) fn go_on(&mut self, now: Instant, streams: &SlotMap<StreamKey, Stream>) {
        self.due_since = Some(now);
        if let Some(stream) = self.playing.and_then(|playing| streams.get(playing.stream)) {
            self.live_from = stream.ring.head();
        }
    }

    /// True when the packet at `cursor` has to wait for its link.
    pub(super) fn is_ahead(&self, cursor: Cursor, stream: &Stream, way: &mut Way<'_>) -> bool {
        let Some((meta, _)) = stream.ring.get(cursor.next) else { return false };
        let goes_on = self.key_frame.is_some_and(|sent| sent.timestamp == meta.timestamp);
        let begins = meta.info.key_frame || goes_on;
        if self.kind == MediaKind::Audio || (begins && way.is_unsure()) {
            return false;
        }
        let waited = |since| way.now.saturating_duration_since(since);
        let is_young =
            stream.ring.arrival(cursor.next).is_some_and(|at| waited(at) < PACED_AGE_MAX);
        is_young && !way.may_pass()
    }

    /// True when a repair has to wait for its link.
    pub(super) fn holds_repair(&self, way: &mut Way<'_>) -> bool {
        let waited = |since| way.now.saturating_duration_since(since);
        let is_overdue = self.hold.since.is_some_and(|since| waited(since) >= PACED_AGE_MAX);
        self.kind == MediaKind::Video && !is_overdue && !way.may_pass()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::test_instant;

    const BPS: u64 = 100_000;

    /// Sends `bytes` as soon as it may; at which ms each packet left.
    fn sent(pacer: &mut Pacer, start: Instant, from: u64, packets: &[usize]) -> Vec<u64> {
        let mut at = from;
        let mut left = Vec::new();
        for bytes in packets {
            while !pacer.is_open(start + Duration::from_millis(at), PACE_AHEAD) {
                at += 1;
            }
            pacer.note_sent(start + Duration::from_millis(at), *bytes, BPS);
            left.push(at);
        }
        left
    }

    /// ms that so many bytes take at the pace.
    fn takes(bytes: usize) -> u64 {
        bytes as u64 * 800_000 / (BPS * PACE_PERCENT)
    }

    #[test]
    fn a_burst_leaves_at_its_pace_and_what_fits_leaves_at_once() {
        let start = test_instant();
        let mut pacer = Pacer::new(start);
        assert!(pacer.is_open(start, PACE_AHEAD));
        assert_eq!(pacer.opens_at(), None);
        assert_eq!(sent(&mut pacer, start, 0, &[100; 4]), [0; 4], "less than may leave at once");
        let left = sent(&mut pacer, start, 1_000, &[1_000; 10]);
        assert_eq!(left[0], 1_000);
        let last = left[9] - 1_000;
        let whole = takes(9_000) - u64::try_from(PACE_REST.as_millis()).unwrap();
        assert!(last.abs_diff(whole) <= 2, "{last} ms of {whole}");
        assert!(left.windows(2).all(|pair| pair[1] - pair[0] <= takes(1_000) + 2), "{left:?}");
    }

    #[test]
    fn what_left_although_it_was_too_much_holds_nobody_for_long() {
        let start = test_instant();
        let mut pacer = Pacer::new(start);
        for _ in 0..1_000 {
            pacer.note_sent(start, 1_000, BPS);
        }
        assert!(!pacer.is_open(start, PACE_AHEAD));
        assert!(pacer.opens_at() <= Some(start + PACED_AGE_MAX));
        assert!(pacer.is_open(start + PACED_AGE_MAX, PACE_AHEAD));
    }

    #[test]
    fn small_packets_leave_in_trains() {
        let start = test_instant();
        let mut pacer = Pacer::new(start);
        let left = sent(&mut pacer, start, 0, &[100; 60]);
        let trains = left.chunk_by(|one, other| one == other).count();
        let train = u64::try_from((PACE_AHEAD - PACE_REST).as_millis()).unwrap();
        let expected = takes(6_000) / train;
        assert!(trains as u64 <= expected + 2, "{trains} trains: {left:?}");
    }

    proptest! {
        #[test]
        fn it_never_closes_for_good_nor_lets_more_ahead_than_it_says(
            packets in proptest::collection::vec((1_usize..1_500, 0_u64..200), 1..200),
        ) {
            let start = test_instant();
            let mut pacer = Pacer::new(start);
            let (mut now, mut longest) = (0, 0);
            for (bytes, pause) in packets {
                now = sent(&mut pacer, start, now + pause, &[bytes])[0];
                longest = longest.max(takes(bytes) + 1);
                let ahead = pacer.clear_at - (start + Duration::from_millis(now));
                prop_assert!(ahead <= PACE_AHEAD + Duration::from_millis(longest));
            }
            let clear = pacer.clear_at;
            prop_assert!(pacer.is_open(clear, PACE_AHEAD) && pacer.opens_at().is_none());
        }
    }
}
