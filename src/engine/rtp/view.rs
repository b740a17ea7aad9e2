//! A view over one RTP packet, protected or not.

use super::bytes::Reader;
use super::extension::ExtensionBlock;

/// The header of an RTP packet (RFC 3550 §5.1) and where its parts lie.
///
/// SRTP leaves the header in the clear, so a protected packet is viewed as well: then
/// [`body`](Self::body) is ciphertext and tag.
#[derive(Debug, Clone, Copy)]
pub struct RtpView<'a> {
    /// The marker bit.
    pub marker: bool,
    /// The padding bit; it speaks of the plaintext, see [`unpadded_payload`].
    pub has_padding: bool,
    /// 0–127.
    pub payload_type: u8,
    /// How many contributing sources the header lists, 0–15.
    pub csrc_count: u8,
    /// The sequence number.
    pub seq: u16,
    /// The media timestamp, in the codec's clock.
    pub timestamp: u32,
    /// The synchronisation source.
    pub ssrc: u32,
    header_len: usize,
    extension: ExtensionBlock<'a>,
    bytes: &'a [u8],
}

impl<'a> RtpView<'a> {
    /// Reads the header; `None` when it is not version 2 or longer than the packet.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let [first, second] = reader.array()?;
        if first >> 6 != 2 {
            return None;
        }
        let seq = reader.u16()?;
        let timestamp = reader.u32()?;
        let ssrc = reader.u32()?;
        let csrc_count = first & 0x0f;
        reader.take(4 * usize::from(csrc_count))?;
        let mut extension = ExtensionBlock::default();
        if first & 0x10 != 0 {
            let profile = reader.u16()?;
            let words = usize::from(reader.u16()?);
            let start = bytes.len() - reader.rest().len();
            extension = ExtensionBlock { profile, start, bytes: reader.take(4 * words)? };
        }
        Some(Self {
            marker: second & 0x80 != 0,
            has_padding: first & 0x20 != 0,
            payload_type: second & 0x7f,
            csrc_count,
            seq,
            timestamp,
            ssrc,
            header_len: bytes.len() - reader.rest().len(),
            extension,
            bytes,
        })
    }

    /// Bytes of the header, CSRCs and extension block included: what SRTP authenticates and does
    /// not encrypt.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// The header's bytes.
    #[must_use]
    pub fn header(&self) -> &'a [u8] {
        self.bytes.get(..self.header_len).unwrap_or_default()
    }

    /// Everything behind the header: payload and padding, or ciphertext and tag.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(self.header_len..).unwrap_or_default()
    }

    /// The extension block; an empty one when the packet has none.
    #[must_use]
    pub fn extension_block(&self) -> ExtensionBlock<'a> {
        self.extension
    }
}

/// The payload without RTP padding (RFC 3550 §5.1), of a packet's decrypted body.
///
/// May be empty: probes consist of padding only. `None` when the count in the last byte is zero or
/// exceeds the body.
#[must_use]
pub fn unpadded_payload(plain: &[u8], padding_bit: bool) -> Option<&[u8]> {
    if !padding_bit {
        return Some(plain);
    }
    let count = usize::from(*plain.last()?);
    if count == 0 {
        return None;
    }
    plain.get(..plain.len().checked_sub(count)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 3550 §5.1: V=2, P, X, CC=2, M, PT 96, seq 0x1234, two CSRCs, a block of one word.
    const FULL: [u8; 32] = [
        0xb2, 0xe0, 0x12, 0x34, 0, 0, 0x03, 0xe8, 0xde, 0xad, 0xbe, 0xef, // fixed
        0, 0, 0, 1, 0, 0, 0, 2, // CSRCs
        0xbe, 0xde, 0, 1, 0x10, b'0', 0, 0, // extension block
        7, 7, 0, 2, // payload and two bytes of padding
    ];

    #[test]
    fn every_field_of_a_header_with_csrcs_and_extensions_is_read() {
        let view = RtpView::parse(&FULL).unwrap();
        assert!(view.marker && view.has_padding);
        assert_eq!((view.payload_type, view.csrc_count, view.seq), (96, 2, 0x1234));
        assert_eq!((view.timestamp, view.ssrc), (1000, 0xdead_beef));
        assert_eq!((view.header_len(), view.body().len()), (28, 4));
        assert_eq!(view.header().len(), 28);
        assert_eq!(view.extension_block().profile, 0xbede);
        assert_eq!(view.extension_block().bytes, [0x10, b'0', 0, 0]);
        assert_eq!(unpadded_payload(view.body(), view.has_padding), Some(&[7u8, 7][..]));
    }

    #[test]
    fn a_header_that_does_not_fit_its_packet_is_refused() {
        for len in 0..28 {
            assert!(RtpView::parse(&FULL[..len]).is_none(), "{len} bytes");
        }
        assert!(RtpView::parse(&FULL[..28]).is_some(), "an empty body is allowed");
        let mut other_version = FULL;
        other_version[0] = 0x72;
        assert!(RtpView::parse(&other_version).is_none());
    }

    #[test]
    fn padding_is_removed_or_refused() {
        for (plain, bit, wanted) in [
            (&[1, 2, 3][..], false, Some(&[1u8, 2, 3][..])),
            (&[1, 2, 1], true, Some(&[1, 2])),
            (&[1, 0, 3], true, Some(&[])),
            (&[1, 0, 4], true, None),
            (&[1, 0, 0], true, None),
            (&[], true, None),
            (&[], false, Some(&[])),
        ] {
            assert_eq!(unpadded_payload(plain, bit), wanted, "{plain:?} {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive_and_parts_stay_inside(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Some(view) = RtpView::parse(&bytes) {
                prop_assert_eq!(view.header().len() + view.body().len(), bytes.len());
                let block = view.extension_block();
                prop_assert!(block.start + block.bytes.len() <= view.header_len());
                if let Some(payload) = unpadded_payload(view.body(), view.has_padding) {
                    prop_assert!(payload.len() <= view.body().len());
                }
            }
        }
    }
}
