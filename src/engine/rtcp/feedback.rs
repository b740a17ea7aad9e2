//! Feedback on single sources: NACK (RFC 4585), FIR (RFC 5104) and REMB.

use crate::engine::rtp::bytes::{Reader, unsigned_24};
use std::slice;

/// Iterates sources.
#[derive(Debug, Clone)]
pub struct Ssrcs<'a> {
    ssrcs: slice::Iter<'a, [u8; 4]>,
}

impl<'a> Ssrcs<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { ssrcs: bytes.as_chunks().0.iter() }
    }
}

impl Iterator for Ssrcs<'_> {
    type Item = u32;
    fn next(&mut self) -> Option<u32> {
        self.ssrcs.next().copied().map(u32::from_be_bytes)
    }
}

/// Packets that a receiver misses (RFC 4585 §6.2.1).
#[derive(Debug, Clone)]
pub struct Nack<'a> {
    /// Who misses them.
    pub sender_ssrc: u32,
    /// Of which source.
    pub media_ssrc: u32,
    /// As on the wire: a first number, and bits for the sixteen after it.
    pub pairs: NackPairs<'a>,
}

impl<'a> Nack<'a> {
    pub(super) fn parse(mut reader: Reader<'a>) -> Option<Self> {
        let sender_ssrc = reader.u32()?;
        let media_ssrc = reader.u32()?;
        let pairs = NackPairs { pairs: reader.rest().as_chunks().0.iter() };
        Some(Self { sender_ssrc, media_ssrc, pairs })
    }

    /// The sequence numbers asked for, in wire order. A datagram of 1,472 bytes can ask for 6,188,
    /// repeats included: the caller bounds what it answers.
    #[must_use]
    pub fn seqs(&self) -> NackSeqs<'a> {
        NackSeqs { pairs: self.pairs.clone(), pid: 0, bits: 0 }
    }
}

/// Iterates (first sequence number, bitmask of the following sixteen).
#[derive(Debug, Clone)]
pub struct NackPairs<'a> {
    pairs: slice::Iter<'a, [u8; 4]>,
}

impl Iterator for NackPairs<'_> {
    type Item = (u16, u16);
    fn next(&mut self) -> Option<(u16, u16)> {
        let [a, b, c, d] = *self.pairs.next()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
}

/// Iterates the sequence numbers of a NACK.
#[derive(Debug, Clone)]
pub struct NackSeqs<'a> {
    pairs: NackPairs<'a>,
    pid: u16,
    /// Bit i set: `pid + i` is still to be told.
    bits: u32,
}

impl Iterator for NackSeqs<'_> {
    type Item = u16;
    fn next(&mut self) -> Option<u16> {
        if self.bits == 0 {
            let (pid, mask) = self.pairs.next()?;
            self.pid = pid;
            self.bits = u32::from(mask) << 1 | 1;
        }
        let offset = u16::try_from(self.bits.trailing_zeros()).ok()?;
        self.bits &= self.bits - 1;
        Some(self.pid.wrapping_add(offset))
    }
}

/// One wish of a [`Fir`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirEntry {
    /// Of which source a key frame is wanted.
    pub ssrc: u32,
    /// Raised with each new wish; equal in repeats of one.
    pub seq: u8,
}

/// Key frames wanted (RFC 5104 §4.3.1).
#[derive(Debug, Clone)]
pub struct Fir<'a> {
    /// Who wants them.
    pub sender_ssrc: u32,
    /// Of which sources.
    pub entries: FirEntries<'a>,
}

impl<'a> Fir<'a> {
    pub(super) fn parse(mut reader: Reader<'a>) -> Option<Self> {
        let sender_ssrc = reader.u32()?;
        reader.u32()?; // the media source is unused and zero
        Some(Self {
            sender_ssrc,
            entries: FirEntries { entries: reader.rest().as_chunks().0.iter() },
        })
    }
}

/// Iterates the wishes of a FIR.
#[derive(Debug, Clone)]
pub struct FirEntries<'a> {
    entries: slice::Iter<'a, [u8; 8]>,
}

impl Iterator for FirEntries<'_> {
    type Item = FirEntry;
    fn next(&mut self) -> Option<FirEntry> {
        let [a, b, c, d, seq, ..] = *self.entries.next()?;
        Some(FirEntry { ssrc: u32::from_be_bytes([a, b, c, d]), seq })
    }
}

/// What a receiver believes it can receive (draft-alvestrand-rmcat-remb-03 §2.2).
#[derive(Debug, Clone)]
pub struct Remb<'a> {
    /// Who believes it.
    pub sender_ssrc: u32,
    /// bit/s over all sources named; saturated where the wire's 81 bits exceed 64.
    pub bitrate_bps: u64,
    /// The sources.
    pub ssrcs: Ssrcs<'a>,
}

/// The unique identifier of REMB among application-layer feedback.
pub(super) const REMB_NAME: [u8; 4] = *b"REMB";

impl<'a> Remb<'a> {
    /// True when the body of an application-layer feedback says that it is a REMB.
    pub(super) fn is_named(body: &[u8]) -> bool {
        body.get(8..12) == Some(&REMB_NAME)
    }

    pub(super) fn parse(mut reader: Reader<'a>) -> Option<Self> {
        let sender_ssrc = reader.u32()?;
        reader.u32()?; // the media source is zero
        if reader.array()? != REMB_NAME {
            return None;
        }
        let count = usize::from(reader.u8()?);
        let word = unsigned_24(reader.array()?);
        let (exponent, mantissa) = (word >> 18, u64::from(word & 0x3_ffff));
        let fits = mantissa == 0 || exponent <= mantissa.leading_zeros();
        let bitrate_bps = if fits { mantissa << exponent } else { u64::MAX };
        Some(Self { sender_ssrc, bitrate_bps, ssrcs: Ssrcs::new(reader.take(4 * count)?) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RtcpItem, RtcpWriter, parse};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_nack_names_a_packet_and_those_whose_bits_are_set() {
        // RFC 4585 §6.2.1: bit i (least significant first) of BLP means PID + i + 1.
        let bytes = [0x81, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0x80, 0x01, 0, 9, 0, 0];
        let Some(RtcpItem::Nack(nack)) = parse(&bytes).next() else { panic!("a NACK") };
        assert_eq!((nack.sender_ssrc, nack.media_ssrc), (1, 2));
        assert_eq!(nack.pairs.clone().collect::<Vec<_>>(), [(0xffff, 0x8001), (9, 0)]);
        assert_eq!(nack.seqs().collect::<Vec<_>>(), [0xffff, 0, 15, 9]);
        let mut out = [0; 64];
        let mut writer = RtcpWriter::new(&mut out);
        assert_eq!(writer.nack(1, 2, &[0xffff, 0, 15, 16]), 4);
        assert_eq!(writer.as_bytes()[12..], [0xff, 0xff, 0x80, 0x01, 0, 16, 0, 0]);
    }

    #[test]
    fn a_nack_takes_as_many_packets_as_fit() {
        let seqs: Vec<u16> = (0..10).map(|index| index * 17).collect();
        for (room, wanted) in [(15, 0), (16, 1), (19, 1), (20, 2), (52, 10), (100, 10)] {
            let mut out = vec![0; room];
            let mut writer = RtcpWriter::new(&mut out);
            assert_eq!(writer.nack(1, 2, &seqs), wanted, "{room} bytes");
            let read: Vec<u16> = parse(writer.as_bytes())
                .flat_map(|item| match item {
                    RtcpItem::Nack(nack) => nack.seqs().collect(),
                    _ => Vec::new(),
                })
                .collect();
            assert_eq!(read, seqs[..wanted]);
        }
    }

    #[test]
    fn a_fir_is_these_bytes() {
        let bytes = [0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 7, 0, 0, 0];
        let mut out = [0; 64];
        let mut writer = RtcpWriter::new(&mut out);
        assert!(writer.fir(1, &[FirEntry { ssrc: 2, seq: 7 }]));
        assert_eq!(writer.as_bytes(), bytes);
        let Some(RtcpItem::Fir(fir)) = parse(&bytes).next() else { panic!("a FIR") };
        assert_eq!(fir.sender_ssrc, 1);
        assert_eq!(fir.entries.collect::<Vec<_>>(), [FirEntry { ssrc: 2, seq: 7 }]);
    }

    #[test]
    fn a_remb_has_eighteen_bits_of_mantissa_and_six_of_exponent() {
        let head = [0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1];
        // 1,000,000 = 250,000 << 2, and 250,000 = 0x3d090 has 18 bits.
        for (word, bitrate_bps) in [
            ([0x0b, 0xd0, 0x90], 1_000_000),
            ([0, 0, 0], 0),
            ([0xfc, 0, 0], 0),
            ([0xfc, 0, 1], 1 << 63),
            ([0xfc, 0, 2], u64::MAX),
            ([0xff, 0xff, 0xff], u64::MAX),
        ] {
            let bytes = [&head[..], &word, &[0, 0, 0, 9]].concat();
            let Some(RtcpItem::Remb(remb)) = parse(&bytes).next() else { panic!("a REMB") };
            assert_eq!(remb.bitrate_bps, bitrate_bps, "{word:?}");
            assert_eq!(remb.ssrcs.collect::<Vec<_>>(), [9]);
        }
        let mut out = [0; 64];
        let mut writer = RtcpWriter::new(&mut out);
        assert!(writer.remb(1, 1_000_000, &[9]));
        let wanted = [&head[..], &[0x0b, 0xd0, 0x90, 0, 0, 0, 9]].concat();
        assert_eq!(writer.as_bytes(), wanted);
    }

    #[test]
    fn other_application_feedback_is_unknown_and_a_short_remb_malformed() {
        let other = [0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, b'X', b'E', b'M', b'B'];
        assert!(matches!(parse(&other).next(), Some(RtcpItem::Unknown { packet_type: 206, .. })));
        let short = [0x8f, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0, 0, 0];
        let mut compound = parse(&short);
        assert!(compound.next().is_none() && compound.is_malformed());
    }

    proptest! {
        #[test]
        fn nacks_are_read_back(
            start in any::<u16>(),
            offsets in proptest::collection::btree_set(0u16..3000, 1..200),
        ) {
            let seqs: Vec<u16> = offsets.iter().map(|offset| start.wrapping_add(*offset)).collect();
            let mut out = [0; 1400];
            let mut writer = RtcpWriter::new(&mut out);
            prop_assert_eq!(writer.nack(1, 2, &seqs), seqs.len());
            let Some(RtcpItem::Nack(nack)) = parse(writer.as_bytes()).next() else {
                return Err(TestCaseError::fail("a NACK"));
            };
            prop_assert_eq!(nack.seqs().collect::<Vec<_>>(), seqs);
        }

        #[test]
        fn a_remb_never_promises_more_and_at_most_2_pow_minus_17_less(
            bitrate in any::<u64>(), ssrcs in proptest::collection::btree_set(any::<u32>(), 0..255),
        ) {
            let ssrcs: BTreeSet<u32> = ssrcs;
            let ssrcs: Vec<u32> = ssrcs.into_iter().collect();
            let mut out = [0; 1100];
            let mut writer = RtcpWriter::new(&mut out);
            prop_assert!(writer.remb(1, bitrate, &ssrcs));
            let Some(RtcpItem::Remb(remb)) = parse(writer.as_bytes()).next() else {
                return Err(TestCaseError::fail("a REMB"));
            };
            prop_assert!(remb.bitrate_bps <= bitrate);
            prop_assert!(bitrate - remb.bitrate_bps <= bitrate >> 17);
            prop_assert_eq!(remb.ssrcs.collect::<Vec<_>>(), ssrcs);
        }
    }
}
