//! Iteration over a compound packet.

use super::feedback::{Fir, Nack, Remb};
use super::kind;
use super::report::{Bye, ReceiverReport, Sdes, SenderReport};
use super::transport_cc::TransportCc;
use super::xr::Xr;
use crate::engine::rtp::bytes::Reader;

/// One RTCP packet of a compound.
#[derive(Debug, Clone)]
pub enum RtcpItem<'a> {
    /// What a sender sent so far, and what it receives (RFC 3550 §6.4.1).
    SenderReport(SenderReport<'a>),
    /// What a receiver receives (RFC 3550 §6.4.2).
    ReceiverReport(ReceiverReport<'a>),
    /// Names of sources (RFC 3550 §6.5).
    Sdes(Sdes<'a>),
    /// Sources that end (RFC 3550 §6.6).
    Bye(Bye<'a>),
    /// Packets to send again (RFC 4585 §6.2.1).
    Nack(Nack<'a>),
    /// A key frame is wanted (RFC 4585 §6.3.1).
    Pli {
        /// Who wants it.
        sender_ssrc: u32,
        /// Of which source.
        media_ssrc: u32,
    },
    /// A key frame is wanted, with a sequence number against repeats (RFC 5104 §4.3.1).
    Fir(Fir<'a>),
    /// The receiver's estimate of its bandwidth (draft-alvestrand-rmcat-remb-03).
    Remb(Remb<'a>),
    /// Arrival times (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportCc(TransportCc<'a>),
    /// Extended reports (RFC 3611).
    Xr(Xr<'a>),
    /// Anything else that is framed well.
    Unknown {
        /// 0–255.
        packet_type: u8,
        /// Count, subtype or feedback format, 0–31.
        format: u8,
    },
}

/// Iterates the packets of a compound (RFC 3550 §6.1) or reduced-size (RFC 5506) datagram.
#[must_use]
pub fn parse(bytes: &[u8]) -> Compound<'_> {
    Compound { reader: Reader::new(bytes), malformed: false }
}

/// The packets of one datagram, in order. See [`parse`].
///
/// A packet framed well whose content is not is passed over; one framed badly ends the iteration.
/// Both are told by [`is_malformed`](Self::is_malformed).
#[derive(Debug, Clone)]
pub struct Compound<'a> {
    reader: Reader<'a>,
    malformed: bool,
}

impl<'a> Compound<'a> {
    /// True once something malformed was met; final only after the iteration has ended.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.malformed
    }

    /// The next framed packet: format, packet type and body without padding.
    fn frame(&mut self) -> Option<(u8, u8, &'a [u8])> {
        let [first, packet_type] = self.reader.array()?;
        let words = usize::from(self.reader.u16()?);
        let body = self.reader.take(4 * words)?;
        if first >> 6 != 2 {
            return None;
        }
        let body = if first & 0x20 == 0 {
            body
        } else {
            let padding = usize::from(*body.last()?);
            if padding == 0 {
                return None;
            }
            body.get(..body.len().checked_sub(padding)?)?
        };
        Some((first & 0x1f, packet_type, body))
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = RtcpItem<'a>;

    fn next(&mut self) -> Option<RtcpItem<'a>> {
        while !self.reader.rest().is_empty() {
            let Some((format, packet_type, body)) = self.frame() else {
                self.malformed = true;
                self.reader = Reader::new(&[]);
                return None;
            };
            let item = content(format, packet_type, body);
            if item.is_some() {
                return item;
            }
            self.malformed = true;
        }
        None
    }
}

fn content(format: u8, packet_type: u8, body: &[u8]) -> Option<RtcpItem<'_>> {
    let reader = Reader::new(body);
    Some(match (packet_type, format) {
        (kind::SENDER_REPORT, count) => RtcpItem::SenderReport(SenderReport::parse(count, reader)?),
        (kind::RECEIVER_REPORT, count) => {
            RtcpItem::ReceiverReport(ReceiverReport::parse(count, reader)?)
        }
        (kind::SDES, count) => RtcpItem::Sdes(Sdes::parse(count, body)),
        (kind::BYE, count) => RtcpItem::Bye(Bye::parse(count, reader)?),
        (kind::TRANSPORT_FEEDBACK, kind::NACK) => RtcpItem::Nack(Nack::parse(reader)?),
        (kind::TRANSPORT_FEEDBACK, kind::TRANSPORT_CC) => {
            RtcpItem::TransportCc(TransportCc::parse(reader)?)
        }
        (kind::PAYLOAD_FEEDBACK, kind::PLI) => pli(reader)?,
        (kind::PAYLOAD_FEEDBACK, kind::FIR) => RtcpItem::Fir(Fir::parse(reader)?),
        (kind::PAYLOAD_FEEDBACK, kind::APPLICATION) => match Remb::parse(reader) {
            Some(remb) => RtcpItem::Remb(remb),
            None if Remb::is_named(body) => return None,
            None => RtcpItem::Unknown { packet_type, format },
        },
        (kind::XR, _) => RtcpItem::Xr(Xr::parse(reader)?),
        _ => RtcpItem::Unknown { packet_type, format },
    })
}

fn pli(mut reader: Reader<'_>) -> Option<RtcpItem<'_>> {
    Some(RtcpItem::Pli { sender_ssrc: reader.u32()?, media_ssrc: reader.u32()? })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::xr::XrBlock;
    use super::*;
    use proptest::prelude::*;

    /// Walks everything that can be iterated; returns the number of items.
    pub(in crate::engine::rtcp) fn walk(bytes: &[u8]) -> usize {
        let mut items = 0;
        for item in parse(bytes) {
            items += 1;
            let steps = match item {
                RtcpItem::SenderReport(report) => report.reports.count(),
                RtcpItem::ReceiverReport(report) => report.reports.count(),
                RtcpItem::Sdes(sdes) => {
                    let _ = sdes.cname_of(1);
                    sdes.cnames().count()
                }
                RtcpItem::Bye(bye) => bye.ssrcs.count(),
                RtcpItem::Nack(nack) => nack.seqs().count(),
                RtcpItem::Fir(fir) => fir.entries.count(),
                RtcpItem::Remb(remb) => remb.ssrcs.count(),
                RtcpItem::TransportCc(feedback) => {
                    feedback.arrivals().count() + feedback.statuses().count()
                }
                RtcpItem::Xr(xr) => xr
                    .blocks
                    .map(|block| match block {
                        XrBlock::Dlrr(entries) => entries.count(),
                        _ => 1,
                    })
                    .sum(),
                RtcpItem::Pli { .. } | RtcpItem::Unknown { .. } => 0,
            };
            assert!(steps <= 17 * bytes.len().max(1) + 65_536, "bounded by the datagram");
        }
        items
    }

    #[test]
    fn a_compound_is_read_in_order_up_to_what_is_framed_badly() {
        let pli = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        let app = [0x85, 204, 0, 2, 0, 0, 0, 1, b'n', b'a', b'm', b'e'];
        let mut bytes = [pli, app, pli].concat();
        let mut compound = parse(&bytes);
        let kinds: Vec<bool> =
            compound.by_ref().map(|item| matches!(item, RtcpItem::Pli { .. })).collect();
        assert_eq!(kinds, [true, false, true]);
        assert!(!compound.is_malformed());

        bytes[24 + 3] = 3; // the last claims a word more than there is
        let mut compound = parse(&bytes);
        assert_eq!(compound.by_ref().count(), 2);
        assert!(compound.is_malformed());

        bytes[24 + 3] = 2;
        bytes[0] = 0x41; // the first is of another version
        let mut compound = parse(&bytes);
        assert_eq!(compound.by_ref().count(), 0);
        assert!(compound.is_malformed());
    }

    #[test]
    fn a_packet_of_bad_content_is_passed_over_and_told() {
        let short = [0x81, 206, 0, 1, 0, 0, 0, 1]; // a PLI without its media source
        let pli = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        let bytes = [&short[..], &pli[..]].concat();
        let mut compound = parse(&bytes);
        assert!(matches!(compound.next(), Some(RtcpItem::Pli { sender_ssrc: 1, media_ssrc: 2 })));
        assert!(compound.is_malformed() && compound.next().is_none());
    }

    #[test]
    fn padding_is_cut_off_and_must_fit() {
        for (count, fits) in [(4, true), (12, true), (13, false), (0, false)] {
            let bye = [0xa0, 203, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, count];
            let pli = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
            let bytes = [&bye[..], &pli[..]].concat();
            let mut compound = parse(&bytes);
            assert_eq!(compound.by_ref().count(), if fits { 2 } else { 0 }, "{count}");
            assert_eq!(compound.is_malformed(), !fits);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            walk(&bytes);
        }

        #[test]
        fn any_well_framed_content_survives(
            format in 0u8..32, packet_type in 192u8..224, padded in any::<bool>(),
            mut body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            body.truncate(body.len() / 4 * 4);
            let words = u16::try_from(body.len() / 4).unwrap().to_be_bytes();
            let first = 0x80 | u8::from(padded) << 5 | format;
            let mut bytes = vec![first, packet_type, words[0], words[1]];
            bytes.extend(body);
            walk(&bytes);
        }
    }
}
