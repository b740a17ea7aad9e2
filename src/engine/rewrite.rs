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
    SEQ_DROPOUT_MAX, SEQ_WINDOW, TIMESTAMP_ALIGN_ERROR_MAX, TIMESTAMP_EXTRA_MAX, TIMESTAMP_STEP,
};

/// A set of the last [`SEQ_WINDOW`] sequence numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Window([u64; (SEQ_WINDOW / 64) as usize]);

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

    /// True for a number that is remembered and was not dealt with.
    fn is_open(&self, seq: u64) -> bool {
        seq >= self.base && seq + SEQ_WINDOW > self.highest && !self.seen.has(seq)
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

    /// Leaves `seq` out on purpose, so that those behind it close up.
    ///
    /// A late one cannot be closed any more: its number is given back, for the caller to fill with
    /// a packet of padding only (else the receiver asks for it in vain).
    pub fn drop(&mut self, seq: u64) -> Option<u64> {
        let next = self.next;
        let run = self.run.get_or_insert_with(|| Run::starting_at(seq, next));
        if !run.is_open(seq) {
            return None;
        }
        if seq < run.highest {
            run.seen.insert(seq);
            return Some(run.out_of(seq));
        }
        if seq > run.highest {
            run.advance(seq);
        }
        run.seen.insert(seq);
        run.dropped.insert(seq);
        None
    }

    /// Which number of the current run went out as `out`; `None` when it was not sent, or is too
    /// old to tell. Answers a NACK; costs some steps, as losses are rare.
    #[must_use]
    pub fn source_of(&self, out: u64) -> Option<u64> {
        let run = self.run.as_ref()?;
        let oldest = run.base.max(run.highest.saturating_sub(SEQ_WINDOW - 1));
        // `out_of` never falls as `seq` grows: search the window by halves.
        let (mut low, mut high) = (oldest, run.highest);
        while low < high {
            let middle = low + (high - low) / 2;
            if run.out_of(middle) < out { low = middle + 1 } else { high = middle }
        }
        // Dropped ones share the number of the one behind them.
        let found = (low..=run.highest).find(|seq| !run.dropped.has(*seq))?;
        (run.out_of(found) == out && run.seen.has(found)).then_some(found)
    }

    /// The number that the next packet in order will go out with, if nothing is lost before it.
    #[must_use]
    pub fn next_out(&self) -> u64 {
        self.next
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
