//! Extended reports (RFC 3611): the round trip of those who only receive.

use crate::engine::rtp::NtpTime;
use crate::engine::rtp::bytes::Reader;
use std::slice;

/// Block types (RFC 3611 §4).
pub(super) const RRTR: u8 = 4;
pub(super) const DLRR: u8 = 5;

/// An extended report.
#[derive(Debug, Clone)]
pub struct Xr<'a> {
    /// Who reports.
    pub ssrc: u32,
    /// Its blocks, up to the first malformed one.
    pub blocks: XrBlocks<'a>,
}

impl<'a> Xr<'a> {
    pub(super) fn parse(mut reader: Reader<'a>) -> Option<Self> {
        Some(Self { ssrc: reader.u32()?, blocks: XrBlocks { reader } })
    }
}

/// One block of an extended report.
#[derive(Debug, Clone)]
pub enum XrBlock<'a> {
    /// When the receiver sent this (RFC 3611 §4.4).
    Rrtr {
        /// Its clock.
        ntp: NtpTime,
    },
    /// How long ago such blocks arrived here (RFC 3611 §4.5).
    Dlrr(DlrrEntries<'a>),
    /// Another type, or one of ours with an impossible length.
    Unknown {
        /// As on the wire.
        block_type: u8,
    },
}

/// Iterates the blocks of an extended report.
#[derive(Debug, Clone)]
pub struct XrBlocks<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for XrBlocks<'a> {
    type Item = XrBlock<'a>;

    fn next(&mut self) -> Option<XrBlock<'a>> {
        let [block_type, _] = self.reader.array()?;
        let words = usize::from(self.reader.u16()?);
        let Some(body) = self.reader.take(4 * words) else {
            self.reader = Reader::new(&[]);
            return None;
        };
        Some(match (block_type, <&[u8; 8]>::try_from(body)) {
            (RRTR, Ok(ntp)) => XrBlock::Rrtr { ntp: NtpTime::from_bits(u64::from_be_bytes(*ntp)) },
            (DLRR, _) => XrBlock::Dlrr(DlrrEntries { entries: body.as_chunks().0.iter() }),
            _ => XrBlock::Unknown { block_type },
        })
    }
}

/// What one receiver learns from a DLRR block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DlrrEntry {
    /// The receiver that sent an RRTR.
    pub ssrc: u32,
    /// The middle bits of its clock then.
    pub lrr: u32,
    /// Since that arrived, in 1/65,536 s.
    pub dlrr: u32,
}

/// Iterates the entries of a DLRR block.
#[derive(Debug, Clone)]
pub struct DlrrEntries<'a> {
    entries: slice::Iter<'a, [u8; 12]>,
}

impl Iterator for DlrrEntries<'_> {
    type Item = DlrrEntry;
    fn next(&mut self) -> Option<DlrrEntry> {
        let mut reader = Reader::new(self.entries.next()?);
        Some(DlrrEntry { ssrc: reader.u32()?, lrr: reader.u32()?, dlrr: reader.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RtcpItem, RtcpWriter, parse};
    use super::*;

    #[test]
    fn blocks_are_read_in_order_and_unknown_ones_passed_over() {
        let bytes = [
            0x80, 207, 0, 11, 0, 0, 0, 1, // XR of source 1
            4, 0, 0, 2, 0, 0, 0, 5, 0x80, 0, 0, 0, // RRTR, 5.5 s
            9, 0, 0, 0, // unknown and empty
            5, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 8, // DLRR of one entry
            4, 0, 0, 2, 1, 2, 3, 4, // cut short
        ];
        let Some(RtcpItem::Xr(mut xr)) = parse(&bytes).next() else { panic!("an XR") };
        assert_eq!(xr.ssrc, 1);
        let ntp = NtpTime::from_bits(0x5_8000_0000);
        assert!(matches!(xr.blocks.next(), Some(XrBlock::Rrtr { ntp: read }) if read == ntp));
        assert!(matches!(xr.blocks.next(), Some(XrBlock::Unknown { block_type: 9 })));
        let Some(XrBlock::Dlrr(entries)) = xr.blocks.next() else { panic!("a DLRR") };
        assert_eq!(entries.collect::<Vec<_>>(), [DlrrEntry { ssrc: 6, lrr: 7, dlrr: 8 }]);
        assert!(xr.blocks.next().is_none());
    }

    #[test]
    fn written_blocks_are_these_bytes() {
        let mut out = [0; 64];
        let mut writer = RtcpWriter::new(&mut out);
        assert!(writer.xr_rrtr(1, NtpTime::from_bits(0x5_8000_0000)));
        assert!(writer.xr_dlrr(2, &[DlrrEntry { ssrc: 6, lrr: 7, dlrr: 8 }]));
        let wanted = [
            0x80, 207, 0, 4, 0, 0, 0, 1, 4, 0, 0, 2, 0, 0, 0, 5, 0x80, 0, 0, 0, //
            0x80, 207, 0, 5, 0, 0, 0, 2, 5, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 8,
        ];
        assert_eq!(writer.as_bytes(), wanted);
    }
}
