//! Continuity of what one consumer receives: sequence numbers without gaps over dropped packets and
//! switches, timestamps that never run backwards.
//!
//! A consumer owns one [`SeqRewriter`] and one [`TimestampRewriter`] and calls them for each packet
//! on the shard's thread. Both are of fixed size and allocate nothing.
//!
//! Invariants: a number goes out at most once (with AES-GCM a second packet of the same number
//! would break the cipher); packets lost on the way to us leave a gap, so that the receiver asks
//! for them and a late one gets its own number. Which packets to drop and when to switch is decided
//! elsewhere (`layer`, `consumer`).

use std::time::{Duration, Instant};

use super::source_clock::{ClockPoint, ticks_between};
use crate::limits::{
    SEQ_DROPOUT_MAX, SEQ_INSERT_SPAN, SEQ_WINDOW, TIMESTAMP_ALIGN_ERROR_MAX, TIMESTAMP_EXTRA_MAX,
    TIMESTAMP_STEP,
};

/// Words of a [`Window`].
const WINDOW_WORDS: usize = 16;

const _: () = assert!(SEQ_WINDOW == 64 * 16, "one bit for each number of the window");

/// A set of the last [`SEQ_WINDOW`] sequence numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Window([u64; WINDOW_WORDS]);

impl Window {
    fn word_and_bit(seq: u64) -> (usize, u64) {
        let slot = seq % SEQ_WINDOW;
        (usize::try_from(slot / 64).unwrap_or_default(), 1 << (slot % 64))
    }

    fn has(&self, seq: u64) -> bool {
        let (word, bit) = Self::word_and_bit(seq);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    fn insert(&mut self, seq: u64) {
        let (word, bit) = Self::word_and_bit(seq);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    fn remove(&mut self, seq: u64) {
        let (word, bit) = Self::word_and_bit(seq);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }

    /// How many of `from..=to`, at most a window apart, are in the set.
    fn count(&self, from: u64, to: u64) -> u64 {
        let mut sum = 0;
        let mut seq = from;
        while seq <= to {
            let (word, bit) = Self::word_and_bit(seq);
            if bit == 1 && to - seq >= 63 {
                sum += self.0.get(word).map_or(0, |word| u64::from(word.count_ones()));
                seq += 64;
            } else {
                sum += u64::from(self.has(seq));
                seq += 1;
            }
        }
        sum
    }
}

/// Sequence numbers of one consumer.
///
/// In and out are extended (64 bits that never wrap), so the SRTP index of what goes out is exact;
/// the wire has the lowest 16. A *run* is what comes from one stream without a switch: inside it,
/// out = in − (in − out at its end) + packets dropped since.
#[derive(Debug, Clone)]
pub struct SeqRewriter {
    /// The number after the highest one sent.
    next: u64,
    run: Option<Run>,
}

#[derive(Debug, Clone)]
struct Run {
    /// First number in; earlier ones belong to what was before the switch.
    base: u64,
    /// Highest number in, sent or dropped.
    highest: u64,
    /// The number that `highest` went out with, or, when it was dropped, would have.
    out: u64,
    /// Sent or dropped.
    seen: Window,
    /// Dropped, and the numbers behind closed up.
    dropped: Window,
}

impl Run {
    fn starting_at(base: u64, out: u64) -> Self {
        let (seen, dropped) = (Window::default(), Window::default());
        Self { base, highest: base, out, seen, dropped }
    }

    /// True for a number that is ahead, or remembered and not dealt with.
    fn is_open(&self, seq: u64) -> bool {
        // What lies ahead shares its bits with what lies a window behind.
        seq > self.highest
            || (seq >= self.base && seq + SEQ_WINDOW > self.highest && !self.seen.has(seq))
    }

    /// Moves on to a higher number and gives back what it goes out with.
    fn advance(&mut self, seq: u64) -> u64 {
        let ahead = seq - self.highest;
        let closed = u64::from(self.dropped.has(self.highest));
        if ahead > SEQ_DROPOUT_MAX {
            // The sender began anew. The receiver must see a loss, but one its SRTP can follow.
            *self = Self::starting_at(seq, self.out + SEQ_WINDOW);
            return self.out;
        }
        for skipped in (seq - ahead.min(SEQ_WINDOW) + 1)..=seq {
            self.seen.remove(skipped);
            self.dropped.remove(skipped);
        }
        self.highest = seq;
        self.out += ahead - closed;
        self.out
    }

    /// The number of a late packet: every drop between it and the highest moved the others.
    fn out_of(&self, seq: u64) -> u64 {
        let closed = match self.highest.checked_sub(1) {
            Some(last) if seq < self.highest => self.dropped.count(seq, last),
            _ => 0,
        };
        self.out + closed - (self.highest - seq)
    }
}

impl SeqRewriter {
    /// The highest number sent; before the first one, the one before it.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.next.wrapping_sub(1)
    }

    /// A consumer whose first packet will go out as `first`.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self { next: first, run: None }
    }

    /// Begins anew with `seq` of the same or another stream: it will follow what was sent so far
    /// without a gap, and what came before it is refused from now on.
    pub fn sync(&mut self, seq: u64) {
        self.run = Some(Run::starting_at(seq, self.next));
    }

    /// The number with which `seq` goes out. `None` when it must not: it was sent or dropped
    /// before, belongs before the last switch, or is too old to tell.
    pub fn forward(&mut self, seq: u64) -> Option<u64> {
        let next = self.next;
        let run = self.run.get_or_insert_with(|| Run::starting_at(seq, next));
        if !run.is_open(seq) {
            return None;
        }
        let out = if seq > run.highest { run.advance(seq) } else { run.out_of(seq) };
        run.seen.insert(seq);
        self.next = self.next.max(out + 1);
        Some(out)
    }

    /// A value of each line of it that the next packet needs, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        let Some(run) = &self.run else { return 0 };
        let next = run.highest + 1;
        usize::from(run.seen.has(next)) + usize::from(run.dropped.has(next))
    }

    /// Leaves `seq` out on purpose, so that those behind it close up.
    ///
    /// One behind which packets were sent cannot be closed up any more: its number is given back,
    /// for the caller to fill with a packet of padding only (else the receiver asks in vain).
    pub fn drop(&mut self, seq: u64) -> Option<u64> {
        let next = self.next;
        let run = self.run.get_or_insert_with(|| Run::starting_at(seq, next));
        if !run.is_open(seq) {
            return None;
        }
        if seq < run.highest {
            run.seen.insert(seq);
            let out = run.out_of(seq);
            if out < next {
                return Some(out);
            }
            // All behind it were dropped too: nothing went out that would have to move.
            run.dropped.insert(seq);
            run.out -= 1;
            return None;
        }
        if seq > run.highest {
            run.advance(seq);
        }
        run.seen.insert(seq);
        run.dropped.insert(seq);
        None
    }
}

impl SeqRewriter {
    /// A number for a packet of our own behind all that was sent; what came before it is refused from
    /// now on. `None` while something is missing that may still come: its number would be taken.
    pub fn insert(&mut self) -> Option<u64> {
        if let Some(run) = &mut self.run {
            let from = run.base.max(run.highest.saturating_sub(SEQ_INSERT_SPAN - 1));
            let is_new = run.highest == run.base && !run.seen.has(run.base);
            if !is_new && run.seen.count(from, run.highest) <= run.highest - from {
                return None;
            }
            let base = if is_new { run.base } else { run.highest + 1 };
            *run = Run::starting_at(base, self.next + 1);
        }
        self.next += 1;
        Some(self.next - 1)
    }
}

/// What to do with the key frame of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Send it; timestamps continue from here.
    Accepted,
    /// Its capture time lies too far before what was sent: drop it and ask for another one.
    AskAgain,
}

/// Timestamps of one consumer: what comes in plus an offset that changes only at switches.
#[derive(Debug, Clone)]
pub struct TimestampRewriter {
    clock_rate: u32,
    offset: u32,
    /// The offset without what was added to keep time from running backwards.
    aligned: u32,
    /// Highest timestamp out and when it went.
    highest: Option<(u32, Instant)>,
    asked: bool,
}

impl TimestampRewriter {
    /// A consumer of a `clock_rate` Hz stream; `offset` (random or zero) is added to timestamps.
    #[must_use]
    pub fn new(clock_rate: u32, offset: u32) -> Self {
        Self { clock_rate, offset, aligned: offset, highest: None, asked: false }
    }

    /// What the sender report of this consumer adds to the source's timestamps.
    #[must_use]
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// The highest timestamp that went out; 0 before the first.
    #[must_use]
    pub fn latest(&self) -> u32 {
        self.highest.map_or(0, |(highest, _)| highest)
    }

    /// The timestamp with which a packet of the current stream goes out.
    pub fn rewrite(&mut self, now: Instant, rtp: u32) -> u32 {
        let out = rtp.wrapping_add(self.offset);
        if self.highest.is_none_or(|(highest, _)| is_after(out, highest)) {
            self.highest = Some((out, now));
        }
        out
    }

    /// Goes over to another stream, whose key frame has the timestamp `rtp`.
    ///
    /// `old` and `new` are the last sender reports of the stream left and of the one entered: with
    /// both, equal capture times keep equal timestamps; without, the time since the last packet
    /// sent is what passes. If the first timestamp were not above all sent, it is put one frame
    /// (33 ms) behind them; if that is more than 75 ms of stretching, another key frame is asked
    /// for once, and the second taken just behind what was sent.
    pub fn switch(
        &mut self,
        now: Instant,
        rtp: u32,
        old: Option<ClockPoint>,
        new: Option<ClockPoint>,
    ) -> Switch {
        let Some((highest, sent_at)) = self.highest else {
            // Nothing sent yet: nothing to continue.
            return Switch::Accepted;
        };
        let elapsed = self.ticks(now.saturating_duration_since(sent_at));
        let by_clock = highest.wrapping_add(elapsed.max(1)).wrapping_sub(rtp);
        let aligned = match (old, new) {
            (Some(old), Some(new)) => {
                let new_then =
                    new.rtp.wrapping_add(ticks_between(new.ntp, old.ntp, self.clock_rate));
                let aligned = old.rtp.wrapping_add(self.aligned).wrapping_sub(new_then);
                let error = aligned.wrapping_sub(by_clock).cast_signed().unsigned_abs();
                if error > self.ticks(TIMESTAMP_ALIGN_ERROR_MAX) { by_clock } else { aligned }
            }
            _ => by_clock,
        };
        let first = rtp.wrapping_add(aligned);
        let mut extra = 0;
        if !is_after(first, highest) {
            let behind = highest.wrapping_sub(first);
            extra = behind.saturating_add(self.ticks(TIMESTAMP_STEP));
            if extra > self.ticks(TIMESTAMP_EXTRA_MAX) {
                if !self.asked {
                    self.asked = true;
                    return Switch::AskAgain;
                }
                extra = behind.saturating_add(1);
            }
        }
        self.aligned = aligned;
        self.offset = aligned.wrapping_add(extra);
        self.asked = false;
        Switch::Accepted
    }

    fn ticks(&self, span: Duration) -> u32 {
        let ticks = span.as_nanos() * u128::from(self.clock_rate) / 1_000_000_000;
        // Modulo 2^32, as timestamps are.
        let [.., a, b, c, d] = ticks.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

/// Serial number comparison (RFC 1982) of timestamps.
fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; only differences matter")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// One step of a story: what is asked and what must come back.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Forward(u64, Option<u64>),
        Drop(u64, Option<u64>),
        Sync(u64),
    }
    use Step::{Drop, Forward, Sync};

    fn tell(first: u64, steps: &[Step]) {
        let mut rewriter = SeqRewriter::new(first);
        for (at, step) in steps.iter().enumerate() {
            match *step {
                Forward(seq, out) => assert_eq!(rewriter.forward(seq), out, "step {at}: {step:?}"),
                Drop(seq, hole) => assert_eq!(rewriter.drop(seq), hole, "step {at}: {step:?}"),
                Sync(seq) => rewriter.sync(seq),
            }
        }
    }

    #[test]
    fn drops_close_up_and_losses_stay_open() {
        tell(
            1,
            &[
                Forward(100, Some(1)),
                Drop(101, None),
                Drop(102, None),
                Forward(103, Some(2)),
                // 104 is late, 105 dropped.
                Drop(105, None),
                Forward(106, Some(4)),
                Forward(104, Some(3)),
                // Once only, and not what was dropped.
                Forward(104, None),
                Forward(105, None),
                Forward(106, None),
            ],
        );
    }

    #[test]
    fn a_first_packet_that_is_dropped_takes_no_number() {
        tell(7, &[Drop(1, None), Drop(2, None), Forward(3, Some(7)), Forward(2, None)]);
    }

    #[test]
    fn a_late_drop_gives_back_its_number_unless_nothing_was_sent_behind() {
        tell(
            1,
            &[
                Forward(1, Some(1)),
                Forward(3, Some(3)),
                Drop(2, Some(2)),
                Drop(2, None),
                // 4 is late, and behind it all is dropped: it closes up.
                Drop(5, None),
                Drop(4, None),
                Forward(6, Some(4)),
                Forward(1, None),
            ],
        );
    }

    #[test]
    fn a_switch_continues_the_numbers_and_refuses_what_was_before() {
        tell(
            10,
            &[
                Forward(60_000, Some(10)),
                // 60,001 is lost and 60,002 dropped at the end of the run: no gap is left.
                Drop(60_002, None),
                Sync(500),
                Forward(500, Some(11)),
                Forward(499, None),
                Forward(502, Some(13)),
                Forward(501, Some(12)),
                Sync(60_010),
                Forward(60_010, Some(14)),
            ],
        );
    }

    #[test]
    fn what_is_too_old_is_refused() {
        tell(
            0,
            &[
                Forward(0, Some(0)),
                Forward(2_000, Some(2_000)),
                Forward(2_000 - SEQ_WINDOW, None),
                Forward(2_001 - SEQ_WINDOW, Some(2_001 - SEQ_WINDOW)),
            ],
        );
    }

    #[test]
    fn a_long_stream_goes_on_over_many_windows_and_a_wrap() {
        let mut rewriter = SeqRewriter::new(65_000);
        let mut expected = 65_000;
        for seq in 65_500..75_500_u64 {
            if seq % 3 == 1 {
                assert_eq!(rewriter.drop(seq), None);
            } else {
                assert_eq!(rewriter.forward(seq), Some(expected), "{seq}");
                expected += 1;
            }
        }
    }

    #[test]
    fn a_sender_that_begins_anew_leaves_a_gap_that_srtp_can_follow() {
        tell(
            0,
            &[
                Forward(0, Some(0)),
                Forward(1 << 40, Some(SEQ_WINDOW)),
                Forward(1, None),
                Forward((1 << 40) + 1, Some(SEQ_WINDOW + 1)),
            ],
        );
    }

    /// What becomes of one packet: forwarded, dropped on purpose, or lost on the way to us.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Fate {
        Sent,
        Dropped,
        Lost,
    }

    fn fates() -> impl Strategy<Value = Vec<(Fate, u64)>> {
        let fate =
            prop_oneof![6 => Just(Fate::Sent), 3 => Just(Fate::Dropped), 1 => Just(Fate::Lost)];
        proptest::collection::vec((fate, prop_oneof![4 => Just(0_u64), 1 => 0_u64..60]), 1..1_500)
    }

    #[test]
    fn a_number_of_our_own_moves_what_comes_behind_it_and_waits_for_what_is_missing() {
        let mut rewriter = SeqRewriter::new(10);
        assert_eq!(rewriter.insert(), Some(10), "before anything else");
        assert_eq!(rewriter.forward(500), Some(11));
        assert_eq!(rewriter.forward(502), Some(13));
        assert_eq!(rewriter.insert(), None, "501 may still come");
        assert_eq!(rewriter.forward(501), Some(12));
        assert_eq!((rewriter.insert(), rewriter.insert()), (Some(14), Some(15)));
        assert_eq!(rewriter.forward(502), None);
        assert_eq!(rewriter.forward(504), Some(17), "503 keeps its place");
        assert_eq!(rewriter.forward(503), Some(16));
        assert_eq!(rewriter.drop(505), None);
        assert_eq!((rewriter.insert(), rewriter.forward(506)), (Some(18), Some(19)));
    }

    proptest! {
        // Fewer cases than usual, each of thousands of packets.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn no_gap_but_for_losses_and_no_repeat_over_drops_reordering_and_switches(
            runs in proptest::collection::vec((0_u64..1 << 47, fates()), 1..4),
            first in 0_u64..1 << 16,
        ) {
            let mut rewriter = SeqRewriter::new(first);
            let mut outs = BTreeSet::new();
            let mut open = 0;
            for (base, fates) in runs {
                let mut arrivals: Vec<_> = (base..).zip(fates).collect();
                // The key frame's first packet is what a run begins with.
                arrivals[0].1 = (Fate::Sent, 0);
                arrivals.sort_by_key(|(seq, (_, delay))| seq + delay);
                rewriter.sync(base);
                let next = outs.last().map_or(first, |last| last + 1);
                let mut run = BTreeMap::new();
                for (seq, (fate, _)) in arrivals {
                    match fate {
                        Fate::Lost => open += 1,
                        Fate::Dropped => open += usize::from(rewriter.drop(seq).is_some()),
                        Fate::Sent => {
                            let out = rewriter.forward(seq).expect("inside the window");
                            prop_assert!(outs.insert(out), "{} twice", out);
                            prop_assert_eq!(rewriter.forward(seq), None);
                            run.insert(seq, out);
                        }
                    }
                }
                prop_assert_eq!(run.get(&base), Some(&next), "a run follows without a gap");
                prop_assert!(run.values().is_sorted(), "order is kept");
            }
            let span = outs.last().expect("sent") - outs.first().expect("sent") + 1;
            let missing = usize::try_from(span).expect("small") - outs.len();
            prop_assert!(missing <= open, "{} missing, {} open", missing, open);
        }

        #[test]
        fn any_numbers_are_survived_without_a_repeat(
            steps in proptest::collection::vec((0_u8..9, 0_u64..1 << 48, 0_u64..5_000), 1..300),
        ) {
            let mut rewriter = SeqRewriter::new(0);
            let mut outs = BTreeSet::new();
            for (kind, far, near) in steps {
                let out = match kind {
                    0 => { rewriter.sync(far); None }
                    1 => rewriter.drop(near),
                    2 => rewriter.drop(far),
                    3 => rewriter.forward(far),
                    4 => rewriter.insert(),
                    _ => rewriter.forward(near),
                };
                if let Some(out) = out {
                    prop_assert!(outs.insert(out), "{} twice", out);
                }
            }
        }
    }

    const RATE: u32 = 90_000;
    const SECOND: u64 = 1 << 32;

    /// Switches from a stream at timestamp 90,000 sent with offset 1,000 to one whose key frame has
    /// the timestamp `rtp`, `elapsed` later.
    fn switched(
        rtp: u32,
        elapsed: u64,
        reports: Option<(ClockPoint, ClockPoint)>,
    ) -> (TimestampRewriter, Switch, Instant) {
        let start = origin();
        let mut rewriter = TimestampRewriter::new(RATE, 1_000);
        assert_eq!(rewriter.rewrite(start, 90_000), 91_000);
        let now = start + ms(elapsed);
        let (old, new) = reports.unzip();
        let switch = rewriter.switch(now, rtp, old, new);
        (rewriter, switch, now)
    }

    #[test]
    fn streams_with_reports_are_aligned_by_their_capture_times() {
        // The old stream shows 90,000 at second 100, the new one 5,000 half a second earlier.
        let old = ClockPoint { ntp: 100 * SECOND, rtp: 90_000 };
        let new = ClockPoint { ntp: 100 * SECOND - SECOND / 2, rtp: 5_000 };
        // The new stream shows 50,000 at second 100. A frame 40 ms later, sent 70 ms later.
        let (mut rewriter, switch, now) = switched(53_600, 70, Some((old, new)));
        assert_eq!(switch, Switch::Accepted);
        assert_eq!(rewriter.rewrite(now, 53_600), 91_000 + 3_600);
        assert_eq!(rewriter.offset(), 41_000);
    }

    #[test]
    fn without_reports_or_with_impossible_ones_the_time_passed_counts() {
        let old = ClockPoint { ntp: 100 * SECOND, rtp: 90_000 };
        let absurd = ClockPoint { ntp: 900 * SECOND, rtp: 7 };
        for reports in [None, Some((old, absurd))] {
            let (mut rewriter, switch, now) = switched(3_000_000_000, 70, reports);
            assert_eq!(switch, Switch::Accepted);
            assert_eq!(rewriter.rewrite(now, 3_000_000_000), 91_000 + 6_300, "{reports:?}");
        }
    }

    #[test]
    fn a_frame_captured_before_what_was_sent_is_put_33_ms_behind_it() {
        let point = ClockPoint { ntp: 100 * SECOND, rtp: 90_000 };
        // 40 ms before.
        let (mut rewriter, switch, now) = switched(86_400, 10, Some((point, point)));
        assert_eq!(switch, Switch::Accepted);
        assert_eq!(rewriter.rewrite(now, 86_400), 91_000 + 2_970);
        // The stretch is not carried into the next switch: equal clocks are back at the old offset.
        let now = now + ms(500);
        assert_eq!(rewriter.switch(now, 135_000, Some(point), Some(point)), Switch::Accepted);
        assert_eq!(rewriter.offset(), 1_000);
    }

    #[test]
    fn too_far_before_asks_for_one_more_key_frame_and_then_gives_in() {
        let point = ClockPoint { ntp: 100 * SECOND, rtp: 90_000 };
        // 50 ms before, and 33 more, is beyond 75.
        let (mut rewriter, switch, now) = switched(85_500, 10, Some((point, point)));
        assert_eq!(switch, Switch::AskAgain);
        assert_eq!(rewriter.offset(), 1_000, "nothing changed");
        assert_eq!(rewriter.switch(now, 85_500, Some(point), Some(point)), Switch::Accepted);
        assert_eq!(rewriter.rewrite(now, 85_500), 91_001);
    }

    #[test]
    fn the_first_stream_needs_no_switch() {
        let mut rewriter = TimestampRewriter::new(RATE, 5);
        assert_eq!(rewriter.switch(origin(), 100, None, None), Switch::Accepted);
        assert_eq!(rewriter.rewrite(origin(), 100), 105);
    }

    proptest! {
        #[test]
        fn an_accepted_switch_never_runs_backwards_nor_far_ahead(
            rtp in any::<u32>(), sent in any::<u32>(), offset in any::<u32>(),
            elapsed in 0_u64..100_000,
            reports in proptest::option::of(
                (any::<u64>(), any::<u32>(), any::<u64>(), any::<u32>())),
        ) {
            let start = origin();
            let mut rewriter = TimestampRewriter::new(RATE, offset);
            let before = rewriter.rewrite(start, sent);
            let now = start + ms(elapsed);
            let old = reports.map(|(ntp, rtp, _, _)| ClockPoint { ntp, rtp });
            let new = reports.map(|(_, _, ntp, rtp)| ClockPoint { ntp, rtp });
            if rewriter.switch(now, rtp, old, new) == Switch::AskAgain {
                prop_assert_eq!(rewriter.switch(now, rtp, old, new), Switch::Accepted);
            }
            let ahead = rewriter.rewrite(now, rtp).wrapping_sub(before).cast_signed();
            prop_assert!(ahead > 0);
            let most = elapsed * 90 + 3 * 90_000 + 1;
            prop_assert!(u64::from(ahead.cast_unsigned()) <= most);
        }
    }
}
