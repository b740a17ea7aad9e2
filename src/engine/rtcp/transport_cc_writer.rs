//! Transport-wide feedback as it leaves (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
//!
//! Chunks precede deltas on the wire, and how many chunks there will be is known only at the end.
//! So arrivals are walked twice: once to find how many fit, once to write them. No scratch memory.

use super::kind;
use super::transport_cc::{Arrival, Status, TICKS_PER_REFERENCE};
use super::writer::RtcpWriter;
use crate::engine::rtp::bytes::{Writer, low_24};
use crate::limits::FEEDBACK_STATUSES_MAX;

/// RTCP header, two sources, base, count, reference time, feedback count.
const HEAD_BYTES: usize = 20;

/// What stands before the statuses of a feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedbackHead {
    /// Who received the packets.
    pub sender_ssrc: u32,
    /// One of the sources received.
    pub media_ssrc: u32,
    /// The first packet told of: one behind the last that the feedback before told of.
    pub base_seq: u16,
    /// Raised by one with each feedback written, wrapping.
    pub feedback_count: u8,
}

impl RtcpWriter<'_> {
    /// One feedback over as many of `arrivals` as fit. Returns how many it tells of, from the
    /// first; 0 = nothing was written. For the rest call again, with `base_seq` behind the last one
    /// told of and the next `feedback_count`.
    ///
    /// `arrivals` ascend by sequence number (across the wrap), times in any order; numbers between
    /// them are told as not received. A feedback ends early where a delta exceeds two bytes, where
    /// numbers do not ascend, after 8,192 packets, and where space ends. Numbers before the first
    /// arrival are told as not received, unless they are as many as that.
    #[must_use]
    pub fn transport_cc(&mut self, head: &FeedbackHead, arrivals: &[Arrival]) -> usize {
        let Some(plan) = Plan::new(head.base_seq, arrivals, self.room()) else { return 0 };
        let start = self.len();
        let mut padding = 0;
        let written = self.packet(kind::TRANSPORT_FEEDBACK, kind::TRANSPORT_CC, |w| {
            w.put_u32(head.sender_ssrc)?;
            w.put_u32(head.media_ssrc)?;
            w.put_u16(plan.base_seq)?;
            w.put_u16(plan.statuses)?;
            w.put(low_24(plan.reference))?;
            w.put([head.feedback_count])?;
            plan.write_chunks(w)?;
            plan.write_deltas(w)?;
            padding = w.len().next_multiple_of(4) - w.len();
            w.put_slice([&[][..], &[1], &[0, 2], &[0, 0, 3]].get(padding)?)
        });
        if !written {
            return 0;
        }
        if padding != 0 {
            self.mark_padded(start, kind::TRANSPORT_CC);
        }
        plan.arrivals.len()
    }
}

/// What one feedback will tell of.
struct Plan<'a> {
    base_seq: u16,
    statuses: u16,
    /// 24 bits in 64 ms; more significant bits are cut off when it is written.
    reference: u32,
    /// The moment that `reference` means, in ticks.
    reference_ticks: u64,
    arrivals: &'a [Arrival],
}

impl<'a> Plan<'a> {
    /// `None` when not even the first arrival fits, or there is none.
    fn new(base_seq: u16, arrivals: &'a [Arrival], room: usize) -> Option<Self> {
        let first = arrivals.first()?;
        let lead = first.seq.wrapping_sub(base_seq);
        let base_seq = if lead < FEEDBACK_STATUSES_MAX { base_seq } else { first.seq };
        let units = first.ticks / u64::from(TICKS_PER_REFERENCE);
        let [_, _, _, _, _, a, b, c] = units.to_be_bytes();
        let mut plan = Self {
            base_seq,
            statuses: 0,
            reference: u32::from_be_bytes([0, a, b, c]),
            reference_ticks: units * u64::from(TICKS_PER_REFERENCE),
            arrivals,
        };
        plan.fit(room);
        (!plan.arrivals.is_empty()).then_some(plan)
    }

    /// Shortens `arrivals` to what `room` holds.
    fn fit(&mut self, room: usize) {
        let mut chunker = Chunker::default();
        let mut chunks = 0;
        let mut delta_bytes = 0;
        let mut fitting = 0;
        for (gap, delta) in self.steps() {
            let Some(status) = status_of(delta) else { break };
            let Some(statuses) = gap
                .checked_add(1)
                .and_then(|step| self.statuses.checked_add(step))
                .filter(|statuses| *statuses <= FEEDBACK_STATUSES_MAX)
            else {
                break;
            };
            let mut count = |_| {
                chunks += 1;
                Some(())
            };
            chunker.push_step(gap, status, &mut count);
            delta_bytes += status.delta_bytes();
            // One more chunk holds what the chunker still has.
            let bytes: usize = HEAD_BYTES + 2 * (chunks + 1) + delta_bytes;
            if bytes.next_multiple_of(4) > room {
                break;
            }
            self.statuses = statuses;
            fitting += 1;
        }
        self.arrivals = self.arrivals.get(..fitting).unwrap_or_default();
    }

    /// For each arrival: how many packets before it are missing, and the ticks since the last.
    fn steps(&self) -> impl Iterator<Item = (u16, i64)> + use<'a> {
        let mut next_seq = self.base_seq;
        let mut ticks = self.reference_ticks;
        self.arrivals.iter().map(move |arrival| {
            let gap = arrival.seq.wrapping_sub(next_seq);
            let delta = arrival.ticks.wrapping_sub(ticks).cast_signed();
            next_seq = arrival.seq.wrapping_add(1);
            ticks = arrival.ticks;
            (gap, delta)
        })
    }

    fn write_chunks(&self, writer: &mut Writer<'_>) -> Option<()> {
        let mut chunker = Chunker::default();
        let mut emit = |chunk: u16| writer.put_u16(chunk);
        for (gap, delta) in self.steps() {
            chunker.push_step(gap, status_of(delta)?, &mut emit)?;
        }
        chunker.last().map_or(Some(()), emit)
    }

    fn write_deltas(&self, writer: &mut Writer<'_>) -> Option<()> {
        for (_, delta) in self.steps() {
            match u8::try_from(delta) {
                Ok(small) => writer.put([small])?,
                Err(_) => writer.put(i16::try_from(delta).ok()?.to_be_bytes())?,
            }
        }
        Some(())
    }
}

/// How a received packet is told; `None` when its delta does not fit.
fn status_of(delta: i64) -> Option<Status> {
    if u8::try_from(delta).is_ok() {
        return Some(Status::Small);
    }
    i16::try_from(delta).is_ok().then_some(Status::Large)
}

/// Symbols of the longest vector chunk (one bit each).
const ONE_BIT_SYMBOLS: u16 = 14;
/// Symbols of the other one (two bits each).
const TWO_BIT_SYMBOLS: u16 = 7;
/// A run's length has 13 bits.
const RUN_MAX: u16 = 0x1fff;

/// Packs symbols into chunks, greedily: a run while all are equal, else the longest vector.
#[derive(Debug, Clone, Copy)]
struct Chunker {
    /// The symbols held, two bits each, the last one lowest; of a run at least the last 14.
    symbols: u32,
    len: u16,
    all_equal: bool,
    has_large: bool,
}

impl Default for Chunker {
    fn default() -> Self {
        Self { symbols: 0, len: 0, all_equal: true, has_large: false }
    }
}

impl Chunker {
    /// `gap` packets that are missing, then one that was received.
    fn push_step(
        &mut self,
        gap: u16,
        status: Status,
        emit: &mut impl FnMut(u16) -> Option<()>,
    ) -> Option<()> {
        for _ in 0..gap {
            self.push(Status::NotReceived, emit)?;
        }
        self.push(status, emit)
    }

    fn push(&mut self, status: Status, emit: &mut impl FnMut(u16) -> Option<()>) -> Option<()> {
        while !self.takes(status) {
            emit(self.close())?;
        }
        self.all_equal &= self.len == 0 || self.newest() == status.symbol();
        self.has_large |= status == Status::Large;
        self.symbols = self.symbols << 2 | u32::from(status.symbol());
        self.len += 1;
        Some(())
    }

    fn newest(&self) -> u16 {
        symbol_bits(self.symbols & 3)
    }

    fn takes(&self, status: Status) -> bool {
        let continues_run = self.all_equal && (self.len == 0 || self.newest() == status.symbol());
        if self.len < TWO_BIT_SYMBOLS {
            return true;
        }
        let one_bit_is_enough = !self.has_large && status != Status::Large;
        (self.len < ONE_BIT_SYMBOLS && one_bit_is_enough) || (self.len < RUN_MAX && continues_run)
    }

    /// The chunk to write when no more symbols fit; what it does not hold stays.
    fn close(&mut self) -> u16 {
        if self.all_equal || self.len == ONE_BIT_SYMBOLS {
            let chunk = self.whole();
            *self = Self::default();
            return chunk;
        }
        let stay = self.len - TWO_BIT_SYMBOLS;
        let chunk = 0xc000 | symbol_bits(self.symbols >> (2 * stay) & 0x3fff);
        let (symbols, mut left) = (self.symbols, Self::default());
        for index in (0..stay).rev() {
            let symbol = symbol_bits(symbols >> (2 * index) & 3);
            left.all_equal &= left.len == 0 || left.newest() == symbol;
            left.has_large |= symbol == Status::Large.symbol();
            left.symbols = left.symbols << 2 | u32::from(symbol);
            left.len += 1;
        }
        *self = left;
        chunk
    }

    /// The chunk for the symbols left at the end.
    fn last(&self) -> Option<u16> {
        (self.len > 0).then(|| self.whole())
    }

    /// All symbols held, in one chunk: `takes` sees to it that they fit one.
    fn whole(&self) -> u16 {
        if self.all_equal {
            return self.newest() << 13 | self.len;
        }
        if self.len <= TWO_BIT_SYMBOLS {
            let free = 2 * (TWO_BIT_SYMBOLS - self.len);
            return 0xc000 | symbol_bits(self.symbols << free & 0x3fff);
        }
        let bits = (0..self.len)
            .rev()
            .fold(0, |bits, index| bits << 1 | symbol_bits(self.symbols >> (2 * index) & 1));
        0x8000 | bits << (ONE_BIT_SYMBOLS - self.len)
    }
}

/// Bits already masked to fewer than sixteen.
fn symbol_bits(bits: u32) -> u16 {
    let [_, _, a, b] = bits.to_be_bytes();
    u16::from_be_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::super::{RtcpItem, parse};
    use super::*;
    use proptest::prelude::*;

    const HEAD: FeedbackHead =
        FeedbackHead { sender_ssrc: 1, media_ssrc: 2, base_seq: 100, feedback_count: 9 };

    /// Writes all arrivals in feedbacks of `room` bytes; returns them as told, with reference times
    /// undone, and how many feedbacks it took.
    fn round_trip(base: u16, arrivals: &[Arrival], room: usize) -> (Vec<(u16, Option<u64>)>, u8) {
        let mut head = FeedbackHead { base_seq: base, feedback_count: 0, ..HEAD };
        let mut told = Vec::new();
        let mut rest = arrivals;
        let mut out = vec![0xee; room];
        while !rest.is_empty() {
            let mut writer = RtcpWriter::new(&mut out);
            let count = writer.transport_cc(&head, rest);
            assert!(count > 0, "each feedback tells of something");
            let mut compound = parse(writer.as_bytes());
            let Some(RtcpItem::TransportCc(feedback)) = compound.next() else {
                panic!("a transport-wide feedback");
            };
            assert_eq!(feedback.feedback_count, head.feedback_count);
            let turns = rest[0].ticks >> 32 << 32;
            told.extend(
                feedback
                    .arrivals()
                    .map(|(seq, ticks)| (seq, ticks.map(|ticks| turns.wrapping_add_signed(ticks)))),
            );
            assert!(compound.next().is_none() && !compound.is_malformed());
            head.base_seq = rest[count - 1].seq.wrapping_add(1);
            head.feedback_count = head.feedback_count.wrapping_add(1);
            rest = &rest[count..];
        }
        (told, head.feedback_count)
    }

    fn arrivals(list: &[(u16, u64)]) -> Vec<Arrival> {
        list.iter().map(|(seq, ticks)| Arrival { seq: *seq, ticks: *ticks }).collect()
    }

    #[test]
    fn a_feedback_is_these_bytes() {
        let mut out = [0; 64];
        let mut writer = RtcpWriter::new(&mut out);
        // 100 is missing, 101 at 2 × 64 ms + 1 tick, 102 four ticks before it.
        assert_eq!(writer.transport_cc(&HEAD, &arrivals(&[(101, 513), (102, 509)])), 2);
        let wanted = [
            0xaf, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 100, 0, 3, 0, 0, 2, 9, //
            0xc6, 0x00, // two-bit vector 00 01 10
            1, 0xff, 0xfc, 0, 0, 3, // deltas, then three bytes of padding that say so
        ];
        assert_eq!(writer.as_bytes(), wanted);
    }

    #[test]
    fn chunks_are_the_shortest_that_greed_finds() {
        let run: Vec<_> = (0..1000).map(|index| (100 + index, u64::from(index))).collect();
        let every_other: Vec<_> = (0..7).map(|index| (100 + 2 * index, u64::from(index))).collect();
        for (list, chunks) in [
            (&run[..], &[0x23, 0xe8][..]),
            (&every_other, &[0xaa, 0xaa]),
            (&[(100, 0), (8300, 1)], &[0x20, 0x01]),
            (&[(8291, 1)], &[0x1f, 0xff, 0x20, 0x01]),
        ] {
            let mut out = [0; 1100];
            let mut writer = RtcpWriter::new(&mut out);
            assert!(writer.transport_cc(&HEAD, &arrivals(list)) > 0);
            let written = &writer.as_bytes()[20..20 + chunks.len()];
            assert_eq!(written, chunks, "{:?}", list.first());
        }
    }

    #[test]
    fn feedback_is_split_where_a_delta_does_not_fit() {
        let list = [(100, 0), (101, 32_767), (102, 65_535), (103, 10), (104, 9)];
        let (told, feedbacks) = round_trip(100, &arrivals(&list), 1200);
        let wanted: Vec<_> = list.iter().map(|(seq, ticks)| (*seq, Some(*ticks))).collect();
        assert_eq!((told, feedbacks), (wanted, 3));
    }

    #[test]
    fn a_gap_beyond_the_bound_is_not_told() {
        let list = [(100, 0), (20_000, 1), (50_000, 2)];
        let (told, feedbacks) = round_trip(90_u16, &arrivals(&list), 1200);
        let received: Vec<_> = told.iter().filter(|(_, ticks)| ticks.is_some()).collect();
        assert_eq!((told.len(), received.len(), feedbacks), (13, 3, 3));
    }

    #[test]
    fn without_space_or_arrivals_nothing_is_written() {
        for (room, list, wanted) in
            [(23, &[(100, 0)][..], 0), (24, &[(100, 0)][..], 1), (100, &[][..], 0)]
        {
            let mut out = vec![0; room];
            let mut writer = RtcpWriter::new(&mut out);
            assert_eq!(writer.transport_cc(&HEAD, &arrivals(list)), wanted, "{room}");
            assert_eq!(writer.is_empty(), wanted == 0);
        }
    }

    fn any_stream() -> impl Strategy<Value = (u16, Vec<(u16, i64)>)> {
        let step = prop_oneof![
            20 => (Just(0u16), -20i64..260),
            3 => (0u16..20, -400i64..400),
            1 => (0u16..3000, -40_000i64..40_000),
        ];
        (any::<u16>(), proptest::collection::vec(step, 1..400))
    }

    proptest! {
        #[test]
        fn losses_reordering_and_gaps_are_read_back(
            (base, steps) in any_stream(), room in 24usize..1300, start in 0u64..1 << 31,
        ) {
            let (mut seq, mut ticks) = (base, start + (1 << 26));
            let mut list = Vec::new();
            let mut wanted = Vec::new();
            for (gap, delta) in steps {
                for _ in 0..gap {
                    wanted.push((seq, None));
                    seq = seq.wrapping_add(1);
                }
                ticks = ticks.wrapping_add_signed(delta);
                wanted.push((seq, Some(ticks)));
                list.push(Arrival { seq, ticks });
                seq = seq.wrapping_add(1);
            }
            // Room for the worst gap, so that every arrival fits a feedback of its own.
            let (told, _) = round_trip(base, &list, room.max(32));
            prop_assert_eq!(told, wanted);
        }

        #[test]
        #[expect(clippy::disallowed_methods, reason = "an Instant can only be had from the clock")]
        fn another_implementation_reads_the_same((base, steps) in any_stream()) {
            let (mut seq, mut ticks) = (base, 1u64 << 26);
            let list: Vec<Arrival> = steps
                .into_iter()
                .map(|(gap, delta)| {
                    seq = seq.wrapping_add(gap + 1);
                    ticks = ticks.wrapping_add_signed(delta);
                    Arrival { seq, ticks }
                })
                .collect();
            let mut out = [0; 1200];
            let mut writer = RtcpWriter::new(&mut out);
            let count = writer.transport_cc(&FeedbackHead { base_seq: base, ..HEAD }, &list);
            prop_assert!(count > 0);
            let twcc = str0m::rtp::rtcp::Twcc::try_from(&writer.as_bytes()[4..]).unwrap();
            let zero = std::time::Instant::now();
            let read: Vec<Arrival> = twcc
                .into_iter(zero, (1 << 20 | u64::from(base)).into())
                .filter_map(|(seq, _, at)| {
                    let ticks = (at? - zero).as_micros() / 250;
                    let seq = u16::try_from(*seq % 65_536).unwrap();
                    Some(Arrival { seq, ticks: u64::try_from(ticks).unwrap() })
                })
                .collect();
            prop_assert_eq!(&read[..], &list[..count]);
        }

        #[test]
        fn any_arrivals_survive(
            list in proptest::collection::vec((any::<u16>(), any::<u64>()), 1..60),
            base in any::<u16>(),
        ) {
            let list = arrivals(&list);
            let mut head = FeedbackHead { base_seq: base, ..HEAD };
            let mut rest = &list[..];
            while let Some(first) = rest.first() {
                let mut out = [0; 64];
                let mut writer = RtcpWriter::new(&mut out);
                let count = writer.transport_cc(&head, rest);
                prop_assert!(count > 0, "{first:?}");
                head.base_seq = rest[count - 1].seq.wrapping_add(1);
                rest = &rest[count..];
            }
        }
    }
}
