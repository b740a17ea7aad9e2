//! Transport-wide feedback as it arrives (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).

use crate::engine::rtp::bytes::{Reader, unsigned_24};
use crate::limits::FEEDBACK_STATUSES_MAX;

/// Ticks of 250 µs in one unit of the reference time, 64 ms.
pub(super) const TICKS_PER_REFERENCE: u32 = 256;

/// When one packet arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its transport-wide sequence number.
    pub seq: u16,
    /// In 250 µs since any fixed moment of the receiver's.
    pub ticks: u64,
}

/// What a symbol of a status chunk says of one packet (§3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    NotReceived,
    /// Received; its delta is one unsigned byte.
    Small,
    /// Received; its delta is two signed bytes.
    Large,
}

impl Status {
    /// `None` for the reserved symbol.
    fn of(symbol: u16) -> Option<Self> {
        match symbol {
            0 => Some(Self::NotReceived),
            1 => Some(Self::Small),
            2 => Some(Self::Large),
            _ => None,
        }
    }

    pub(super) fn symbol(self) -> u16 {
        match self {
            Self::NotReceived => 0,
            Self::Small => 1,
            Self::Large => 2,
        }
    }

    pub(super) fn delta_bytes(self) -> usize {
        usize::from(self.symbol())
    }
}

/// One status chunk, read symbol by symbol (§3.1.3 and §3.1.4).
#[derive(Debug, Clone, Copy, Default)]
struct Chunk {
    /// The symbols still to come, from the top; for a run the one symbol, in the top two bits.
    symbols: u16,
    /// Bits per symbol; 0 = a run, which repeats its symbol.
    width: u32,
    left: u16,
}

impl Chunk {
    fn new(word: u16) -> Self {
        match word >> 14 {
            0b10 => Self { symbols: word << 2, width: 1, left: 14 },
            0b11 => Self { symbols: word << 2, width: 2, left: 7 },
            _ => Self { symbols: word << 1, width: 0, left: word & 0x1fff },
        }
    }

    fn next(&mut self) -> Option<Status> {
        self.left = self.left.checked_sub(1)?;
        let symbol = if self.width == 1 { self.symbols >> 15 } else { self.symbols >> 14 };
        self.symbols <<= self.width;
        Status::of(symbol)
    }

    /// Bytes of the deltas of its first `count` symbols; `None` when one is reserved.
    fn delta_bytes(mut self, count: u16) -> Option<usize> {
        if self.width == 0 {
            return Some(Status::of(self.symbols >> 14)?.delta_bytes() * usize::from(count));
        }
        (0..count).map(|_| Some(self.next()?.delta_bytes())).sum()
    }
}

/// Which packets of a range arrived, and when.
#[derive(Debug, Clone)]
pub struct TransportCc<'a> {
    /// Who received them.
    pub sender_ssrc: u32,
    /// One of the sources received; means nothing.
    pub media_ssrc: u32,
    /// The first packet told of.
    pub base_seq: u16,
    /// How many packets are told of, as claimed; see [`statuses`](Self::statuses).
    pub status_count: u16,
    /// What the first delta counts from: 24 bits in 64 ms of the receiver's clock.
    pub reference_time: u32,
    /// Raised with each feedback; a gap says that one was lost.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportCc<'a> {
    /// `None` unless chunks and deltas are there for all packets told of.
    pub(super) fn parse(mut reader: Reader<'a>) -> Option<Self> {
        let sender_ssrc = reader.u32()?;
        let media_ssrc = reader.u32()?;
        let base_seq = reader.u16()?;
        let status_count = reader.u16()?;
        let reference_time = unsigned_24(reader.array()?);
        let feedback_count = reader.u8()?;
        let chunks = reader.rest();
        let mut left = status_count;
        let mut delta_bytes = 0;
        while left > 0 {
            let chunk = Chunk::new(reader.u16()?);
            let told = chunk.left.min(left);
            delta_bytes += chunk.delta_bytes(told)?;
            left -= told;
        }
        let deltas = reader.take(delta_bytes)?;
        Some(Self {
            sender_ssrc,
            media_ssrc,
            base_seq,
            status_count,
            reference_time,
            feedback_count,
            chunks,
            deltas,
        })
    }

    /// Each packet with the 250 µs between it and the received one before it (the first: since the
    /// reference time); `None` = not received. At most the first 8,192 packets.
    #[must_use]
    pub fn statuses(&self) -> PacketStatuses<'a> {
        PacketStatuses {
            seq: self.base_seq,
            left: self.status_count.min(FEEDBACK_STATUSES_MAX),
            chunk: Chunk::default(),
            chunks: Reader::new(self.chunks),
            deltas: Reader::new(self.deltas),
        }
    }

    /// Each packet with its arrival, in 250 µs of the receiver's clock; `None` = not received.
    ///
    /// The clock wraps with the reference time, every 12 days: only differences mean anything.
    #[must_use]
    pub fn arrivals(&self) -> Arrivals<'a> {
        Arrivals {
            ticks: i64::from(self.reference_time) * i64::from(TICKS_PER_REFERENCE),
            statuses: self.statuses(),
        }
    }
}

/// Iterates packets and their deltas. See [`TransportCc::statuses`].
#[derive(Debug, Clone)]
pub struct PacketStatuses<'a> {
    seq: u16,
    left: u16,
    chunk: Chunk,
    chunks: Reader<'a>,
    deltas: Reader<'a>,
}

impl Iterator for PacketStatuses<'_> {
    type Item = (u16, Option<i16>);

    fn next(&mut self) -> Option<(u16, Option<i16>)> {
        self.left = self.left.checked_sub(1)?;
        while self.chunk.left == 0 {
            self.chunk = Chunk::new(self.chunks.u16()?);
        }
        let delta = match self.chunk.next()? {
            Status::NotReceived => None,
            Status::Small => Some(i16::from(self.deltas.u8()?)),
            Status::Large => Some(self.deltas.u16()?.cast_signed()),
        };
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        Some((seq, delta))
    }
}

/// Iterates packets and their arrivals. See [`TransportCc::arrivals`].
#[derive(Debug, Clone)]
pub struct Arrivals<'a> {
    ticks: i64,
    statuses: PacketStatuses<'a>,
}

impl Iterator for Arrivals<'_> {
    type Item = (u16, Option<i64>);

    fn next(&mut self) -> Option<(u16, Option<i64>)> {
        let (seq, delta) = self.statuses.next()?;
        let ticks = delta.map(|delta| {
            self.ticks += i64::from(delta);
            self.ticks
        });
        Some((seq, ticks))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RtcpItem, parse};
    use super::*;

    fn feedback(count: u16, tail: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff];
        bytes.extend(count.to_be_bytes());
        bytes.extend([0, 0, 2, 9]); // reference time 128 ms, ninth feedback
        bytes.extend(tail);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes[3] = u8::try_from(bytes.len() / 4 - 1).unwrap();
        bytes
    }

    #[test]
    fn runs_and_vectors_are_read_with_their_deltas() {
        // §3.1.3: run of 3 small = 0x2003. §3.1.4: one-bit vector 10…, two-bit vector 10 00 01.
        let tail = [
            0x20, 0x03, 0xa0, 0x00, 0xe1, 0x00, // chunks: 3 + 14 + 7 symbols
            1, 2, 3, 4, 0xff, 0xfe, 5, // deltas
        ];
        let bytes = feedback(20, &tail);
        let Some(RtcpItem::TransportCc(feedback)) = parse(&bytes).next() else {
            panic!("a transport-wide feedback");
        };
        assert_eq!((feedback.sender_ssrc, feedback.media_ssrc), (1, 2));
        assert_eq!((feedback.base_seq, feedback.status_count), (0xffff, 20));
        assert_eq!((feedback.reference_time, feedback.feedback_count), (2, 9));
        let received: Vec<(u16, i64)> =
            feedback.arrivals().filter_map(|(seq, ticks)| Some((seq, ticks?))).collect();
        let wanted = [(0xffff, 513), (0, 515), (1, 518), (2, 522), (16, 520), (18, 525)];
        assert_eq!(received, wanted);
        assert_eq!(feedback.statuses().count(), 20);
    }

    #[test]
    fn missing_chunks_missing_deltas_and_the_reserved_symbol_are_malformed() {
        for (count, tail, good) in [
            (3, &[0x20, 0x03, 1, 2, 3, 0][..], true),
            (3, &[0x20, 0x03, 1, 2][..], false),
            (4, &[0x20, 0x03][..], false),
            (1, &[0x60, 0x01, 0, 0][..], false),
            (7, &[0xc0, 0x03, 0, 0][..], false),
            (6, &[0xc0, 0x03, 0, 0][..], true),
            (0, &[][..], true),
            (1, &[0x00, 0x00, 0x20, 0x01, 7, 0][..], true),
        ] {
            let bytes = feedback(count, tail);
            let mut compound = parse(&bytes);
            assert_eq!(compound.next().is_some(), good, "{count} {tail:?}");
            assert_eq!(compound.is_malformed(), !good);
        }
    }

    #[test]
    fn a_small_packet_that_claims_a_lot_costs_a_bounded_number_of_steps() {
        let chunks = [[0x1f, 0xff]; 9].concat();
        let bytes = feedback(65_535, &chunks);
        let Some(RtcpItem::TransportCc(feedback)) = parse(&bytes).next() else {
            panic!("a transport-wide feedback");
        };
        assert_eq!(feedback.statuses().count(), usize::from(FEEDBACK_STATUSES_MAX));
    }
}
