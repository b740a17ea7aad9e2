//! What a consumer sent lately: from its own sequence number back to the packet in the ring.
//!
//! Owned by a consumer; told of every packet sent, read when a receiver asks again. Packets of one
//! stream mostly leave in the order they came and under numbers without a gap, so what is kept is a
//! *run*: telling of the next packet counts one number up, in memory that sending touches anyhow (an
//! entry per packet cost a cold cache line each, and 56 KiB per consumer). Invariants: an answer is
//! only given for a number that was sent; no payload is kept here (the stream's ring has it, or it is
//! gone).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::engine::StreamKey;
use crate::engine::ring::PacketIndex;
use crate::engine::select::Edit;
use crate::limits::{REPAIR_INTERVAL_MIN, SENT_RUNS_MAX};

/// One packet sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The consumer's extended sequence number.
    pub seq: u64,
    /// Which stream's ring has the packet.
    pub stream: StreamKey,
    /// Where in the ring.
    pub index: PacketIndex,
    /// Its timestamp in the stream's terms and this give the one it was sent with.
    pub timestamp_offset: u32,
    /// What its payload and marker differ by.
    pub edit: Edit,
}

/// What has to be known of a packet, besides its place, to send the same bytes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verbatim {
    /// The abs-send-time it was sent with.
    pub abs_send_time: u32,
    /// The transport-wide number it was sent with.
    pub transport_seq: u16,
    /// It was sent with the padding that makes trains.
    pub padded: bool,
}

/// Packets of consecutive numbers and places.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: Sent,
    len: u64,
}

impl Run {
    /// The packet of that number.
    fn at(&self, seq: u64) -> Option<Sent> {
        let ahead = seq.checked_sub(self.first.seq).filter(|ahead| *ahead < self.len)?;
        let index = PacketIndex::new(self.first.index.number() + ahead);
        Some(Sent { seq, index, ..self.first })
    }

    /// The number after its last.
    fn end(&self) -> u64 {
        self.first.seq + self.len
    }

    /// The packet that would lengthen it.
    fn next(&self) -> Sent {
        let index = PacketIndex::new(self.first.index.number() + self.len);
        Sent { seq: self.end(), index, ..self.first }
    }
}

/// A packet that is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// For the first time (as far as is remembered).
    First,
    /// Once more.
    Further,
}

/// The last packets sent.
#[derive(Debug, Default)]
pub struct SentLog {
    /// The run being told of.
    current: Option<Run>,
    /// Those before it, the newest last.
    earlier: VecDeque<Run>,
    /// Where packets are repeated byte for byte, by the lower bits of their number.
    verbatim: Vec<Option<(u64, Verbatim)>>,
    /// When a number was last repeated, by its lower bits; empty until the first.
    repeated: Vec<Option<(u64, Instant)>>,
}

impl SentLog {
    /// Notes a packet.
    pub fn note(&mut self, sent: Sent) {
        match &mut self.current {
            Some(run) if run.next() == sent => run.len += 1,
            current => {
                if let Some(run) = current.replace(Run { first: sent, len: 1 }) {
                    if self.earlier.len() >= SENT_RUNS_MAX {
                        self.earlier.pop_front();
                    }
                    self.earlier.push_back(run);
                }
            }
        }
    }

    /// A value of it, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        self.earlier.len() + usize::from(self.current.is_some())
    }

    /// Makes room to note how the last `slots` packets looked, a power of two; never less than before.
    pub fn keep_verbatim(&mut self, slots: usize) {
        grow(&mut self.verbatim, slots);
    }

    /// Notes how the packet of that number looked.
    pub fn note_verbatim(&mut self, seq: u64, looked: Verbatim) {
        put(&mut self.verbatim, (seq, looked));
    }

    /// The packet that a receiver names with 16 bits.
    #[must_use]
    pub fn find(&self, seq: u16) -> Option<Sent> {
        let runs = || self.current.iter().chain(self.earlier.iter().rev());
        let highest = runs().map(Run::end).max()?.checked_sub(1)?;
        let behind = crate::engine::rtp::seq_diff(low_16(highest), seq);
        let seq = highest.checked_sub(u64::try_from(behind).ok()?)?;
        runs().find_map(|run| run.at(seq))
    }

    /// A packet that left so many before the newest, if they left in a row.
    #[must_use]
    pub fn recent(&self, back: u64) -> Option<Sent> {
        let run = self.current?;
        run.at(run.end().checked_sub(1 + back)?)
    }

    /// How the packet of that number looked.
    #[must_use]
    pub fn verbatim(&self, seq: u64) -> Option<Verbatim> {
        found(&self.verbatim, seq)
    }

    /// Whether the packet of that number may be sent again at `now`, which it then counts as: it
    /// was not within the last round trip (or [`REPAIR_INTERVAL_MIN`]: what round trip a receiver
    /// reports must not make us repeat without bound). The first time is never early: a round trip
    /// that has just become shorter must not cost one. The last `slots` (a power of two) are
    /// remembered.
    pub fn take_repeat(
        &mut self,
        seq: u64,
        now: Instant,
        round_trip: Duration,
        slots: usize,
    ) -> Option<Repeat> {
        grow(&mut self.repeated, slots);
        let least = round_trip.max(REPAIR_INTERVAL_MIN);
        let repeat = match found(&self.repeated, seq) {
            None => Repeat::First,
            Some(at) if now.saturating_duration_since(at) >= least => Repeat::Further,
            Some(_) => return None,
        };
        put(&mut self.repeated, (seq, now));
        Some(repeat)
    }
}

fn grow<T: Copy>(entries: &mut Vec<Option<(u64, T)>>, slots: usize) {
    if slots > entries.len() {
        let fewer = std::mem::replace(entries, vec![None; slots]);
        fewer.into_iter().flatten().for_each(|entry| put(entries, entry));
    }
}

fn put<T>(entries: &mut [Option<(u64, T)>], entry: (u64, T)) {
    if let Some(place) = place(entry.0, entries.len()).and_then(|at| entries.get_mut(at)) {
        *place = Some(entry);
    }
}

fn found<T: Copy>(entries: &[Option<(u64, T)>], seq: u64) -> Option<T> {
    let (of, value) = entries.get(place(seq, entries.len())?)?.as_ref()?;
    (*of == seq).then_some(*value)
}

/// The place of a number among `slots`, a power of two.
fn place(seq: u64, slots: usize) -> Option<usize> {
    let mask = u64::try_from(slots).ok()?.checked_sub(1)?;
    usize::try_from(seq & mask).ok()
}

/// The lower 16 bits: what travels of an extended sequence number.
#[must_use]
pub fn low_16(seq: u64) -> u16 {
    let [.., a, b] = seq.to_be_bytes();
    u16::from_be_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use slotmap::SlotMap;

    use super::*;

    fn stream() -> StreamKey {
        let mut streams: SlotMap<StreamKey, ()> = SlotMap::with_key();
        streams.insert(())
    }

    fn sent(seq: u64, index: u64) -> Sent {
        let (stream, index) = (stream(), PacketIndex::new(index));
        Sent { seq, stream, index, timestamp_offset: 9, edit: Edit::default() }
    }

    #[test]
    fn a_packet_is_found_by_its_number_over_wraps_gaps_and_late_ones() {
        let mut log = SentLog::default();
        assert_eq!(log.find(1), None);
        let numbers = (65_530..65_540).chain(65_541..65_546).chain([65_540, 65_546]);
        for (index, seq) in numbers.enumerate() {
            log.note(sent(seq, 700 + index as u64));
        }
        assert_eq!(log.earlier.len(), 3, "four runs");
        for (seq, index) in [
            (65_529, None),
            (65_530, Some(700)),
            (65_539, Some(709)),
            (65_540, Some(715)),
            (65_541, Some(710)),
            (65_545, Some(714)),
            (65_546, Some(716)),
            (65_547, None),
        ] {
            let found = log.find(low_16(seq));
            assert_eq!(found, index.map(|index| sent(seq, index)), "{seq}");
        }
    }

    #[test]
    fn another_stream_or_time_begins_a_run() {
        let mut log = SentLog::default();
        let mut streams: SlotMap<StreamKey, ()> = SlotMap::with_key();
        let (low, high) = (streams.insert(()), streams.insert(()));
        let steps = [(1, low, 0), (2, low, 0), (3, high, 0), (4, high, 5)];
        let all = steps.map(|(seq, stream, timestamp_offset)| {
            let (index, edit) = (PacketIndex::new(seq), Edit::default());
            let sent = Sent { seq, stream, index, timestamp_offset, edit };
            log.note(sent);
            sent
        });
        assert_eq!(log.earlier.len(), 2);
        for sent in all {
            assert_eq!(log.find(low_16(sent.seq)), Some(sent));
        }
    }

    #[test]
    fn a_repeat_waits_for_the_round_trip_but_the_first() {
        let start = crate::engine::test_instant();
        let mut log = SentLog::default();
        let mut ask = |seq, ms| {
            let now = start + Duration::from_millis(ms);
            log.take_repeat(seq, now, Duration::from_millis(30), 8)
        };
        assert_eq!(ask(5, 40), Some(Repeat::First));
        assert_eq!(ask(5, 60), None, "20 ms ago");
        assert_eq!(ask(6, 60), Some(Repeat::First), "another");
        assert_eq!(ask(5, 80), Some(Repeat::Further));
        assert_eq!(ask(13, 81), Some(Repeat::First), "takes the place of 5");
        assert_eq!(ask(5, 82), Some(Repeat::First));
    }

    #[test]
    fn how_a_packet_looked_is_known_until_another_takes_its_place() {
        let mut log = SentLog::default();
        let looks = |seq| Verbatim { abs_send_time: seq, transport_seq: 7, padded: true };
        log.note_verbatim(0, looks(0));
        assert_eq!(log.verbatim(0), None, "no room was made");
        log.keep_verbatim(8);
        for seq in 0..10 {
            log.note_verbatim(u64::from(seq), looks(seq));
        }
        assert_eq!((log.verbatim(1), log.verbatim(2)), (None, Some(looks(2))));
        log.keep_verbatim(32);
        log.note_verbatim(10, looks(10));
        log.keep_verbatim(16);
        log.note_verbatim(11, looks(11));
        assert_eq!(log.verbatim.len(), 32);
        for seq in [3, 9, 10, 11] {
            assert_eq!(log.verbatim(u64::from(seq)), Some(looks(seq)), "{seq}");
        }
    }

    proptest! {
        #[test]
        fn every_packet_of_the_last_runs_is_found(
            steps in proptest::collection::vec((0_u64..4, 1_u64..3), 1..400),
        ) {
            // Numbers go on, skip, or step back to what was skipped; places only go on.
            let mut log = SentLog::default();
            let (mut next, mut index) = (100_u64, 0_u64);
            let mut skipped = Vec::new();
            let mut all = HashMap::new();
            for (kind, by) in steps {
                let seq = match kind {
                    0 => {
                        skipped.extend(next..next + by);
                        next += by + 1;
                        next - 1
                    }
                    1 => skipped.pop().unwrap_or_else(|| { next += 1; next - 1 }),
                    _ => { next += 1; next - 1 }
                };
                index += by;
                log.note(sent(seq, index));
                all.insert(seq, index);
            }
            prop_assert!(log.earlier.len() <= SENT_RUNS_MAX);
            let known: u64 = log.earlier.iter().chain(&log.current).map(|run| run.len).sum();
            let mut answered = 0;
            for (seq, index) in &all {
                if let Some(found) = log.find(low_16(*seq)) {
                    prop_assert_eq!(found, sent(*seq, *index));
                    answered += 1;
                }
            }
            prop_assert_eq!(answered, known);
            for seq in skipped {
                prop_assert!(log.find(low_16(seq)).is_none());
            }
        }
    }
}
