//! Appends RTCP packets to a datagram.

use super::feedback::{FirEntry, REMB_NAME};
use super::report::{ReportBlock, SenderInfo};
use super::xr::{DLRR, DlrrEntry, RRTR};
use super::{BLOCKS_MAX, kind};
use crate::engine::rtp::NtpTime;
use crate::engine::rtp::bytes::{Writer, low_24};

/// Version 2, no padding.
const VERSION: u8 = 0x80;
const SDES_CNAME: u8 = 1;

/// Writes a compound or reduced-size packet into borrowed bytes.
///
/// Each method appends one packet (reports: as many as their blocks need) or, when it does not fit,
/// nothing: then it says so, and what was written before can be sent.
#[derive(Debug)]
pub struct RtcpWriter<'a> {
    writer: Writer<'a>,
}

impl<'a> RtcpWriter<'a> {
    /// Writes from the beginning of `out`.
    #[must_use]
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { writer: Writer::at(out, 0) }
    }

    /// Bytes written, always a multiple of four.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writer.len()
    }

    /// True when nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.writer.room()
    }

    /// What was written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.writer.written()
    }

    /// One packet; `content` appends its body, a multiple of four bytes.
    pub(super) fn packet(
        &mut self,
        kind: u8,
        format: u8,
        content: impl FnOnce(&mut Writer<'_>) -> Option<()>,
    ) -> bool {
        let start = self.writer.len();
        let written = packet(&mut self.writer, [VERSION | format, kind], content);
        if written.is_none() {
            self.writer.rewind(start);
        }
        written.is_some()
    }

    /// Sets the padding bit of the packet that begins at `start`.
    pub(super) fn mark_padded(&mut self, start: usize, format: u8) {
        let patched = self.writer.patch(start, [VERSION | 0x20 | format]);
        debug_assert!(patched.is_some(), "the packet was written");
    }

    /// A sender report; blocks beyond 31 follow in receiver reports (RFC 3550 §6.4.1).
    #[must_use]
    pub fn sender_report(&mut self, info: &SenderInfo, blocks: &[ReportBlock]) -> bool {
        let start = self.len();
        let (first, more) = blocks.split_at_checked(BLOCKS_MAX).unwrap_or((blocks, &[]));
        let written = self.packet(kind::SENDER_REPORT, count(first.len()), |w| {
            w.put_u32(info.ssrc)?;
            w.put_u64(info.ntp.bits())?;
            w.put_u32(info.rtp_timestamp)?;
            w.put_u32(info.packets)?;
            w.put_u32(info.octets)?;
            first.iter().try_for_each(|block| block.write(w))
        });
        let written = written && (more.is_empty() || self.receiver_report(info.ssrc, more));
        if !written {
            self.writer.rewind(start);
        }
        written
    }

    /// Receiver reports, 31 blocks each; one empty report where there are no blocks.
    #[must_use]
    pub fn receiver_report(&mut self, ssrc: u32, blocks: &[ReportBlock]) -> bool {
        let start = self.len();
        let mut rest = blocks;
        loop {
            let (first, more) = rest.split_at_checked(BLOCKS_MAX).unwrap_or((rest, &[]));
            let written = self.packet(kind::RECEIVER_REPORT, count(first.len()), |w| {
                w.put_u32(ssrc)?;
                first.iter().try_for_each(|block| block.write(w))
            });
            if !written {
                self.writer.rewind(start);
                return false;
            }
            if more.is_empty() {
                return true;
            }
            rest = more;
        }
    }

    /// A source description with nothing but a canonical name, of at most 255 bytes.
    #[must_use]
    pub fn sdes_cname(&mut self, ssrc: u32, cname: &[u8]) -> bool {
        self.packet(kind::SDES, 1, |w| {
            w.put_u32(ssrc)?;
            w.put([SDES_CNAME, u8::try_from(cname.len()).ok()?])?;
            w.put_slice(cname)?;
            w.put([0])?; // the end of the items, at least one zero
            w.align()
        })
    }

    /// Sources that end, at most 31.
    #[must_use]
    pub fn bye(&mut self, ssrcs: &[u32]) -> bool {
        ssrcs.len() <= BLOCKS_MAX
            && self.packet(kind::BYE, count(ssrcs.len()), |w| {
                ssrcs.iter().try_for_each(|ssrc| w.put_u32(*ssrc))
            })
    }

    /// The wish for a key frame.
    #[must_use]
    pub fn pli(&mut self, sender_ssrc: u32, media_ssrc: u32) -> bool {
        self.packet(kind::PAYLOAD_FEEDBACK, kind::PLI, |w| {
            w.put_u32(sender_ssrc)?;
            w.put_u32(media_ssrc)
        })
    }

    /// Wishes for key frames, numbered.
    #[must_use]
    pub fn fir(&mut self, sender_ssrc: u32, entries: &[FirEntry]) -> bool {
        self.packet(kind::PAYLOAD_FEEDBACK, kind::FIR, |w| {
            w.put_u32(sender_ssrc)?;
            w.put_u32(0)?;
            entries.iter().try_for_each(|entry| {
                w.put_u32(entry.ssrc)?;
                w.put([entry.seq, 0, 0, 0])
            })
        })
    }

    /// The wish for `seqs` again, ascending (across the wrap). Returns how many of them it covers,
    /// from the first: fewer than given when space ends, 0 when nothing was written.
    #[must_use]
    pub fn nack(&mut self, sender_ssrc: u32, media_ssrc: u32, seqs: &[u16]) -> usize {
        let mut rest = seqs;
        let written = self.packet(kind::TRANSPORT_FEEDBACK, kind::NACK, |w| {
            w.put_u32(sender_ssrc)?;
            w.put_u32(media_ssrc)?;
            while let Some((pid, mask, more)) = nack_pair(rest)
                && w.room() >= 4
            {
                w.put_u16(pid)?;
                w.put_u16(mask)?;
                rest = more;
            }
            (rest.len() < seqs.len()).then_some(())
        });
        if written { seqs.len() - rest.len() } else { 0 }
    }

    /// An estimate over `ssrcs` (at most 255), rounded down to 18 significant bits.
    #[must_use]
    pub fn remb(&mut self, sender_ssrc: u32, bitrate_bps: u64, ssrcs: &[u32]) -> bool {
        self.packet(kind::PAYLOAD_FEEDBACK, kind::APPLICATION, |w| {
            let exponent = (64 - bitrate_bps.leading_zeros()).saturating_sub(18);
            let mantissa = u32::try_from(bitrate_bps >> exponent).ok()?;
            w.put_u32(sender_ssrc)?;
            w.put_u32(0)?;
            w.put(REMB_NAME)?;
            w.put([u8::try_from(ssrcs.len()).ok()?])?;
            w.put(low_24(exponent << 18 | mantissa))?;
            ssrcs.iter().try_for_each(|ssrc| w.put_u32(*ssrc))
        })
    }

    /// The clock of one who only receives (RFC 3611 §4.4).
    #[must_use]
    pub fn xr_rrtr(&mut self, ssrc: u32, ntp: NtpTime) -> bool {
        self.packet(kind::XR, 0, |w| {
            w.put_u32(ssrc)?;
            w.put([RRTR, 0, 0, 2])?;
            w.put_u64(ntp.bits())
        })
    }

    /// Answers to such clocks (RFC 3611 §4.5).
    #[must_use]
    pub fn xr_dlrr(&mut self, ssrc: u32, entries: &[DlrrEntry]) -> bool {
        self.packet(kind::XR, 0, |w| {
            w.put_u32(ssrc)?;
            w.put([DLRR, 0])?;
            w.put_u16(u16::try_from(entries.len().checked_mul(3)?).ok()?)?;
            entries.iter().try_for_each(|entry| {
                w.put_u32(entry.ssrc)?;
                w.put_u32(entry.lrr)?;
                w.put_u32(entry.dlrr)
            })
        })
    }
}

/// The header, the body, and then the length in words less one (RFC 3550 §6.4.1).
fn packet(
    writer: &mut Writer<'_>,
    head: [u8; 2],
    content: impl FnOnce(&mut Writer<'_>) -> Option<()>,
) -> Option<()> {
    let start = writer.len();
    writer.put(head)?;
    writer.put_u16(0)?;
    content(writer)?;
    let bytes = writer.len() - start;
    debug_assert!(bytes.is_multiple_of(4), "a body is a multiple of four bytes");
    let words = u16::try_from(bytes / 4 - 1).ok()?;
    writer.patch(start + 2, words.to_be_bytes())
}

/// A count that its caller has bounded by [`BLOCKS_MAX`].
fn count(len: usize) -> u8 {
    debug_assert!(len <= BLOCKS_MAX, "the five bits hold it");
    u8::try_from(len).unwrap_or(0)
}

/// The pair that begins with the first of `seqs`, and what it does not cover.
fn nack_pair(seqs: &[u16]) -> Option<(u16, u16, &[u16])> {
    let (pid, mut rest) = seqs.split_first()?;
    let mut mask = 0u16;
    while let Some((seq, more)) = rest.split_first() {
        match seq.wrapping_sub(*pid) {
            0 => {}
            ahead @ 1..=16 => mask |= 1 << (ahead - 1),
            _ => break,
        }
        rest = more;
    }
    Some((*pid, mask, rest))
}

#[cfg(test)]
mod tests {
    use super::super::item::tests::walk;
    use super::super::transport_cc::Arrival;
    use super::super::transport_cc_writer::FeedbackHead;
    use super::super::{RtcpItem, parse};
    use super::*;
    use proptest::prelude::*;

    /// One of each packet; how many were written.
    fn write_all(writer: &mut RtcpWriter<'_>) -> usize {
        let blocks = [ReportBlock { ssrc: 5, cumulative_lost: -1, ..ReportBlock::default() }; 2];
        let head =
            FeedbackHead { sender_ssrc: 1, media_ssrc: 2, base_seq: 65_530, feedback_count: 3 };
        let arrivals =
            [(65_532, 1000), (2, 1300), (3, 1200)].map(|(seq, ticks)| Arrival { seq, ticks });
        [
            writer.sender_report(&SenderInfo { ssrc: 1, ..SenderInfo::default() }, &blocks),
            writer.receiver_report(1, &blocks),
            writer.sdes_cname(1, b"name"),
            writer.nack(1, 2, &[1, 2, 3, 40, 41]) > 0,
            writer.pli(1, 2),
            writer.fir(1, &[FirEntry { ssrc: 2, seq: 3 }]),
            writer.remb(1, 123_456_789, &[2, 3]),
            writer.transport_cc(&head, &arrivals) > 0,
            writer.xr_rrtr(1, NtpTime::from_bits(77)),
            writer.xr_dlrr(1, &[DlrrEntry { ssrc: 2, lrr: 3, dlrr: 4 }]),
            writer.bye(&[1, 2]),
        ]
        .into_iter()
        .filter(|written| *written)
        .count()
    }

    #[test]
    fn a_compound_of_everything_is_read_back_in_order() {
        let mut out = [0; 600];
        let mut writer = RtcpWriter::new(&mut out);
        assert!(writer.is_empty());
        assert_eq!(write_all(&mut writer), 11);
        let mut compound = parse(writer.as_bytes());
        let unknown =
            compound.by_ref().filter(|item| matches!(item, RtcpItem::Unknown { .. })).count();
        assert_eq!(unknown, 0);
        assert!(!compound.is_malformed());
        assert_eq!(walk(writer.as_bytes()), 11);
    }

    #[test]
    fn what_does_not_fit_leaves_the_rest_sendable() {
        for room in 0..400 {
            let mut out = vec![0xee; room];
            let mut writer = RtcpWriter::new(&mut out);
            let written = write_all(&mut writer);
            assert!(writer.len() <= room && writer.len().is_multiple_of(4));
            let mut compound = parse(writer.as_bytes());
            assert_eq!(compound.by_ref().count(), written, "{room} bytes");
            assert!(!compound.is_malformed());
        }
    }

    #[test]
    fn counts_beyond_the_wire_are_refused() {
        let mut out = [0; 4000];
        let mut writer = RtcpWriter::new(&mut out);
        assert!(!writer.bye(&[1; 32]));
        assert!(!writer.sdes_cname(1, &[b'a'; 256]));
        assert!(!writer.remb(1, 1, &[1; 256]));
        assert_eq!(writer.nack(1, 2, &[]), 0);
        assert!(writer.is_empty());
        assert!(writer.bye(&[1; 31]) && writer.sdes_cname(1, &[b'a'; 255]));
    }

    #[test]
    fn a_name_ends_with_zeroes_up_to_a_multiple_of_four() {
        for len in 0..9 {
            let mut out = [0xee; 64];
            let mut writer = RtcpWriter::new(&mut out);
            assert!(writer.sdes_cname(7, &[b'c'; 9][..len]));
            let Some(RtcpItem::Sdes(sdes)) = parse(writer.as_bytes()).next() else {
                panic!("an SDES");
            };
            assert_eq!(sdes.cname_of(7), Some(&[b'c'; 9][..len]));
            assert_eq!(writer.as_bytes().last(), Some(&0));
        }
    }

    proptest! {
        #[test]
        fn any_mutation_of_a_compound_survives(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut out = [0; 600];
            let mut writer = RtcpWriter::new(&mut out);
            write_all(&mut writer);
            let len = writer.len();
            for (index, byte) in changes {
                out[index.index(len)] = byte;
            }
            walk(&out[..len]);
            walk(&out[..cut.index(len)]);
        }
    }
}
