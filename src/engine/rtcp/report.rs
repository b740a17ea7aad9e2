//! Reports, source descriptions and goodbyes (RFC 3550 §6.4–6.6).

use super::feedback::Ssrcs;
use crate::engine::rtp::NtpTime;
use crate::engine::rtp::bytes::{Reader, Writer, low_24, signed_24};
use std::slice;

const BLOCK_BYTES: usize = 24;
const SDES_CNAME: u8 = 1;
const SDES_END: u8 = 0;

/// What one receiver says of one source (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// Packets lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning; duplicates make it negative. 24 bits: written saturated.
    pub cumulative_lost: i32,
    /// Turns of the sequence number, then the highest one received.
    pub highest_seq: u32,
    /// Interarrival jitter in the source's clock.
    pub jitter: u32,
    /// Middle bits of the last sender report's NTP time, 0 before the first.
    pub lsr: u32,
    /// Since that report arrived, in 1/65,536 s.
    pub dlsr: u32,
}

impl ReportBlock {
    fn read(bytes: &[u8; BLOCK_BYTES]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self {
            ssrc: reader.u32()?,
            fraction_lost: reader.u8()?,
            cumulative_lost: signed_24(reader.array()?),
            highest_seq: reader.u32()?,
            jitter: reader.u32()?,
            lsr: reader.u32()?,
            dlsr: reader.u32()?,
        })
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) -> Option<()> {
        let lost = self.cumulative_lost.clamp(-(1 << 23), (1 << 23) - 1);
        writer.put_u32(self.ssrc)?;
        writer.put([self.fraction_lost])?;
        writer.put(low_24(lost.cast_unsigned()))?;
        for value in [self.highest_seq, self.jitter, self.lsr, self.dlsr] {
            writer.put_u32(value)?;
        }
        Some(())
    }
}

/// Iterates report blocks, at most 31.
#[derive(Debug, Clone)]
pub struct ReportBlocks<'a> {
    blocks: slice::Iter<'a, [u8; BLOCK_BYTES]>,
}

impl<'a> ReportBlocks<'a> {
    /// `None` when fewer than `count` follow. What follows them is a profile's extension, ignored.
    fn parse(count: u8, mut reader: Reader<'a>) -> Option<Self> {
        let bytes = reader.take(BLOCK_BYTES * usize::from(count))?;
        Some(Self { blocks: bytes.as_chunks().0.iter() })
    }
}

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;
    fn next(&mut self) -> Option<ReportBlock> {
        ReportBlock::read(self.blocks.next()?)
    }
}

/// What a sender says of itself (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderInfo {
    /// The source.
    pub ssrc: u32,
    /// When the report was sent.
    pub ntp: NtpTime,
    /// The same moment in the source's clock.
    pub rtp_timestamp: u32,
    /// Packets sent, wrapping.
    pub packets: u32,
    /// Payload bytes sent, wrapping.
    pub octets: u32,
}

/// A sender report.
#[derive(Debug, Clone)]
pub struct SenderReport<'a> {
    /// Of the sender itself.
    pub info: SenderInfo,
    /// Of the sources it receives.
    pub reports: ReportBlocks<'a>,
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(count: u8, mut reader: Reader<'a>) -> Option<Self> {
        let info = SenderInfo {
            ssrc: reader.u32()?,
            ntp: NtpTime::from_bits(reader.u64()?),
            rtp_timestamp: reader.u32()?,
            packets: reader.u32()?,
            octets: reader.u32()?,
        };
        Some(Self { info, reports: ReportBlocks::parse(count, reader)? })
    }
}

/// A receiver report.
#[derive(Debug, Clone)]
pub struct ReceiverReport<'a> {
    /// Who reports.
    pub ssrc: u32,
    /// Of the sources it receives.
    pub reports: ReportBlocks<'a>,
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(count: u8, mut reader: Reader<'a>) -> Option<Self> {
        Some(Self { ssrc: reader.u32()?, reports: ReportBlocks::parse(count, reader)? })
    }
}

/// Sources that end.
#[derive(Debug, Clone)]
pub struct Bye<'a> {
    /// Which, at most 31.
    pub ssrcs: Ssrcs<'a>,
}

impl<'a> Bye<'a> {
    pub(super) fn parse(count: u8, mut reader: Reader<'a>) -> Option<Self> {
        Some(Self { ssrcs: Ssrcs::new(reader.take(4 * usize::from(count))?) })
    }
}

/// Source descriptions; of their items only the canonical name is read.
#[derive(Debug, Clone)]
pub struct Sdes<'a> {
    chunks: u8,
    body: &'a [u8],
}

impl<'a> Sdes<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Self {
        Self { chunks: count, body }
    }

    /// Every source with its canonical name, in order, up to the first malformed chunk.
    #[must_use]
    pub fn cnames(&self) -> SdesCnames<'a> {
        SdesCnames { chunks: self.chunks, reader: Reader::new(self.body) }
    }

    /// The canonical name of one source.
    #[must_use]
    pub fn cname_of(&self, ssrc: u32) -> Option<&'a [u8]> {
        self.cnames().find(|(source, _)| *source == ssrc).map(|(_, name)| name)
    }
}

/// Iterates sources and their canonical names; chunks without one are passed over.
#[derive(Debug, Clone)]
pub struct SdesCnames<'a> {
    chunks: u8,
    reader: Reader<'a>,
}

impl<'a> SdesCnames<'a> {
    /// One chunk: its source and, if given, the name (RFC 3550 §6.5).
    fn chunk(&mut self) -> Option<(u32, Option<&'a [u8]>)> {
        let before = self.reader.rest().len();
        let ssrc = self.reader.u32()?;
        let mut name = None;
        loop {
            match self.reader.u8()? {
                SDES_END => break,
                item => {
                    let len = usize::from(self.reader.u8()?);
                    let text = self.reader.take(len)?;
                    if item == SDES_CNAME {
                        name = Some(text);
                    }
                }
            }
        }
        // The list ends with one to four zeroes, on a multiple of four.
        let read = before - self.reader.rest().len();
        self.reader.take(read.next_multiple_of(4) - read)?;
        Some((ssrc, name))
    }
}

impl<'a> Iterator for SdesCnames<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<(u32, &'a [u8])> {
        while self.chunks > 0 {
            self.chunks -= 1;
            let Some((ssrc, name)) = self.chunk() else {
                self.chunks = 0;
                return None;
            };
            if let Some(name) = name {
                return Some((ssrc, name));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RtcpItem, RtcpWriter, parse};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sender_report_is_these_bytes() {
        // RFC 3550 §6.4.1: length 12 words, one block with two packets gained.
        let bytes = [
            0x81, 200, 0, 12, 0, 0, 0, 1, // header, source
            0, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, // sender info
            0, 0, 0, 6, 0x40, 0xff, 0xff, 0xfe, 0, 1, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 10,
        ];
        let info = SenderInfo {
            ssrc: 1,
            ntp: NtpTime::from_bits((2 << 32) | 0x8000_0000),
            rtp_timestamp: 3,
            packets: 4,
            octets: 5,
        };
        let block = ReportBlock {
            ssrc: 6,
            fraction_lost: 64,
            cumulative_lost: -2,
            highest_seq: 0x1_0007,
            jitter: 8,
            lsr: 9,
            dlsr: 10,
        };
        let mut out = [0; 100];
        let mut writer = RtcpWriter::new(&mut out);
        assert!(writer.sender_report(&info, &[block]));
        assert_eq!(writer.as_bytes(), bytes);
        let Some(RtcpItem::SenderReport(report)) = parse(&bytes).next() else {
            panic!("a sender report");
        };
        assert_eq!(report.info, info);
        assert_eq!(report.reports.collect::<Vec<_>>(), [block]);
    }

    #[test]
    fn a_report_that_promises_more_blocks_than_it_has_is_malformed() {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&[0x82, 201, 0, 7]);
        let mut compound = parse(&bytes);
        assert!(compound.next().is_none() && compound.is_malformed());
    }

    #[test]
    fn names_are_found_among_other_items_and_chunks() {
        let bytes = [
            0x83, 202, 0, 9, // three chunks
            0, 0, 0, 1, 2, 1, b'n', 1, 2, b'a', b'b',
            0, // NAME, CNAME "ab", end on the boundary
            0, 0, 0, 2, 0, 0, 0, 0, // no items
            0, 0, 0, 3, 1, 3, b'x', b'y', b'z', 0, 0, 0, // CNAME "xyz", three zeroes
            9, 9, 9, 9,
        ];
        let Some(RtcpItem::Sdes(sdes)) = parse(&bytes).next() else { panic!("an SDES") };
        assert_eq!(sdes.cname_of(1), Some(&b"ab"[..]));
        assert_eq!(sdes.cname_of(2), None);
        assert_eq!(sdes.cname_of(3), Some(&b"xyz"[..]));
        assert_eq!(sdes.cnames().count(), 2);
    }

    fn any_block() -> impl Strategy<Value = ReportBlock> {
        (any::<(u32, u8, u32, u32, u32, u32)>(), -(1i32 << 23)..1 << 23).prop_map(
            |((ssrc, fraction_lost, highest_seq, jitter, lsr, dlsr), cumulative_lost)| {
                ReportBlock { ssrc, fraction_lost, cumulative_lost, highest_seq, jitter, lsr, dlsr }
            },
        )
    }

    proptest! {
        #[test]
        fn reports_with_any_number_of_blocks_are_read_back(
            blocks in proptest::collection::vec(any_block(), 0..80),
            ssrc in any::<u32>(), ntp in any::<u64>(), rest in any::<(u32, u32, u32)>(),
            as_sender in any::<bool>(),
        ) {
            let info = SenderInfo {
                ssrc,
                ntp: NtpTime::from_bits(ntp),
                rtp_timestamp: rest.0,
                packets: rest.1,
                octets: rest.2,
            };
            let mut out = [0; 2200];
            let mut writer = RtcpWriter::new(&mut out);
            if as_sender {
                prop_assert!(writer.sender_report(&info, &blocks));
            } else {
                prop_assert!(writer.receiver_report(ssrc, &blocks));
            }
            let mut read = Vec::new();
            for item in parse(writer.as_bytes()) {
                match item {
                    RtcpItem::SenderReport(report) => {
                        prop_assert_eq!(report.info, info);
                        read.extend(report.reports);
                    }
                    RtcpItem::ReceiverReport(report) => {
                        prop_assert_eq!(report.ssrc, ssrc);
                        read.extend(report.reports);
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert_eq!(read, blocks);
        }
    }
}
