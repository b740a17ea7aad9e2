//! The header of a packet that leaves: a template per consumer, patched per packet.
//!
//! Forwarding writes one header per receiver and packet, so what does not change is prepared once:
//! first bytes, SSRC, MID, and the slots of abs-send-time and the transport-wide number. A packet
//! costs one copy of fixed size, four patches, and what the packet itself carries.

use super::bytes::{Writer, low_24};
use super::extension::{Extension, ExtensionIds, Extensions, Token};

/// Bytes of an egress header at most: the two-byte form with every extension and a dependency
/// descriptor of 255 bytes. The one-byte form stays below 96.
pub const EGRESS_HEADER_BYTES_MAX: usize = 336;

/// Fixed header 12, block header 4, abs-send-time 4, transport-wide number 3, MID 17.
const TEMPLATE_BYTES: usize = 40;
/// Where the elements of the extension block begin.
const BLOCK_START: usize = 16;
const ONE_BYTE_FORM: [u8; 2] = 0xbede_u16.to_be_bytes();
const TWO_BYTE_FORM: [u8; 2] = 0x1000_u16.to_be_bytes();
/// Data of one element of the one-byte form at most.
const ONE_BYTE_DATA_MAX: usize = 16;
const EXTENSION_BIT: u8 = 0x10;

/// What differs from packet to packet in a consumer's header.
#[derive(Debug, Clone, Copy)]
pub struct EgressFields<'a> {
    /// The room's payload type, 0–127.
    pub payload_type: u8,
    /// The marker bit.
    pub marker: bool,
    /// The consumer's sequence number.
    pub seq: u16,
    /// The consumer's timestamp.
    pub timestamp: u32,
    /// 24 bits of 6.18 s; written if negotiated.
    pub abs_send_time: u32,
    /// The transport's next number; written if negotiated.
    pub transport_cc: u16,
    /// As the packet came. Audio level, orientation, transmission offset, capture time and playout
    /// delay are passed on where negotiated; everything else here is ignored.
    pub carried: &'a Extensions,
    /// The packet's dependency descriptor, 0–255 bytes; written if negotiated and not empty.
    pub dependency_descriptor: &'a [u8],
}

/// Writes the headers of one outgoing stream (media or RTX).
#[derive(Debug, Clone, Copy)]
pub struct EgressHeader {
    template: [u8; TEMPLATE_BYTES],
    /// Bytes of the template in use.
    template_len: u8,
    /// Where abs-send-time's data lies; 0 = not negotiated.
    abs_send_time_at: u8,
    /// Where the transport-wide number lies; 0 = not negotiated.
    transport_cc_at: u8,
    /// True when an id above 14 was negotiated, which the one-byte form cannot carry.
    two_byte: bool,
    mid: Option<Token>,
    ids: ExtensionIds,
}

// A thousand consumers of one burst should find theirs in L2.
const _: () = assert!(size_of::<EgressHeader>() <= 96);

impl EgressHeader {
    /// A template for the stream `ssrc`, whose receiver negotiated `ids`. A MID is written if
    /// negotiated.
    #[must_use]
    pub fn new(ssrc: u32, ids: &ExtensionIds, mid: Option<Token>) -> Self {
        let mut header = Self {
            template: [0; TEMPLATE_BYTES],
            template_len: 0,
            abs_send_time_at: 0,
            transport_cc_at: 0,
            two_byte: ids.largest() > 14,
            mid,
            ids: *ids,
        };
        header.prepare(ssrc).expect("TEMPLATE_BYTES holds the one-byte form of these elements");
        header
    }

    fn prepare(&mut self, ssrc: u32) -> Option<()> {
        let mut template = [0; TEMPLATE_BYTES];
        let mut writer = Writer::at(&mut template, 0);
        writer.put([0x80 | EXTENSION_BIT, 0, 0, 0, 0, 0, 0, 0])?;
        writer.put_u32(ssrc)?;
        writer.put(ONE_BYTE_FORM)?;
        writer.put([0, 0])?;
        if !self.two_byte {
            let id = self.ids.id_of(Extension::AbsSendTime);
            if id != 0 {
                self.abs_send_time_at = u8::try_from(writer.len() + 1).ok()?;
                put(&mut writer, Form::One, id, [0; 3])?;
            }
            let id = self.ids.id_of(Extension::TransportCc);
            if id != 0 {
                self.transport_cc_at = u8::try_from(writer.len() + 1).ok()?;
                put(&mut writer, Form::One, id, [0; 2])?;
            }
            self.put_mid(&mut writer, Form::One)?;
        }
        self.template_len = u8::try_from(writer.len()).ok()?;
        self.template = template;
        Some(())
    }

    /// A value of each line of it, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        let [first, ..] = self.template;
        usize::from(first) + usize::from(self.template_len) + usize::from(self.mid.is_some())
    }

    /// Writes one header and returns its length; `None` when `out` is too short.
    ///
    /// Needs 40 bytes even where the header is shorter (the template is copied whole).
    #[inline]
    pub fn write(&self, out: &mut [u8], fields: &EgressFields<'_>) -> Option<usize> {
        let [seq_high, seq_low] = fields.seq.to_be_bytes();
        let [ts0, ts1, ts2, ts3] = fields.timestamp.to_be_bytes();
        let fixed = out.first_chunk_mut::<TEMPLATE_BYTES>()?;
        *fixed = self.template;
        fixed[1] = u8::from(fields.marker) << 7 | (fields.payload_type & 0x7f);
        fixed[2] = seq_high;
        fixed[3] = seq_low;
        fixed[4] = ts0;
        fixed[5] = ts1;
        fixed[6] = ts2;
        fixed[7] = ts3;

        let long_descriptor = fields.dependency_descriptor.len() > ONE_BYTE_DATA_MAX
            && self.ids.has(Extension::DependencyDescriptor);
        if self.two_byte || long_descriptor {
            return self.write_two_byte(out, fields);
        }
        let mut writer = Writer::at(out, usize::from(self.template_len));
        if self.abs_send_time_at != 0 {
            writer.patch(usize::from(self.abs_send_time_at), low_24(fields.abs_send_time))?;
        }
        if self.transport_cc_at != 0 {
            writer.patch(usize::from(self.transport_cc_at), fields.transport_cc.to_be_bytes())?;
        }
        self.put_carried(&mut writer, Form::One, fields)?;
        finish(writer)
    }

    /// All elements one by one: for ids above 14 and long descriptors.
    fn write_two_byte(&self, out: &mut [u8], fields: &EgressFields<'_>) -> Option<usize> {
        let mut writer = Writer::at(out, BLOCK_START);
        writer.patch(BLOCK_START - 4, TWO_BYTE_FORM)?;
        let id = self.ids.id_of(Extension::AbsSendTime);
        put(&mut writer, Form::Two, id, low_24(fields.abs_send_time))?;
        let id = self.ids.id_of(Extension::TransportCc);
        put(&mut writer, Form::Two, id, fields.transport_cc.to_be_bytes())?;
        self.put_mid(&mut writer, Form::Two)?;
        self.put_carried(&mut writer, Form::Two, fields)?;
        finish(writer)
    }

    fn put_mid(&self, writer: &mut Writer<'_>, form: Form) -> Option<()> {
        let mid = self.mid.as_ref().map(Token::as_bytes).unwrap_or_default();
        put_bytes(writer, form, self.ids.id_of(Extension::Mid), mid)
    }

    #[inline]
    fn put_carried(
        &self,
        writer: &mut Writer<'_>,
        form: Form,
        fields: &EgressFields<'_>,
    ) -> Option<()> {
        let carried = fields.carried;
        if let Some(level) = carried.audio_level {
            put(writer, form, self.ids.id_of(Extension::AudioLevel), [level])?;
        }
        if let Some(orientation) = carried.video_orientation {
            put(writer, form, self.ids.id_of(Extension::VideoOrientation), [orientation])?;
        }
        if let Some(toffset) = carried.toffset {
            let id = self.ids.id_of(Extension::Toffset);
            put(writer, form, id, low_24(toffset.cast_unsigned()))?;
        }
        if let Some(delay) = carried.playout_delay {
            put(writer, form, self.ids.id_of(Extension::PlayoutDelay), delay)?;
        }
        if let Some(time) = carried.abs_capture_time {
            let id = self.ids.id_of(Extension::AbsCaptureTime);
            match time.clock_offset {
                None => put(writer, form, id, time.timestamp.to_be_bytes())?,
                Some(offset) => {
                    let both =
                        u128::from(time.timestamp) << 64 | u128::from(offset.cast_unsigned());
                    put(writer, form, id, both.to_be_bytes())?;
                }
            }
        }
        let id = self.ids.id_of(Extension::DependencyDescriptor);
        put_bytes(writer, form, id, fields.dependency_descriptor)
    }
}

/// The two forms of RFC 8285.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    One,
    Two,
}

impl Form {
    /// What stands before an element's data; `None` when the form cannot carry it.
    #[inline]
    fn head(self, id: u8, len: u8) -> Option<([u8; 2], usize)> {
        match self {
            Self::One => {
                let fits = id <= 14 && (1..=16).contains(&len);
                fits.then(|| ([id << 4 | (len - 1), 0], 1))
            }
            Self::Two => Some(([id, len], 2)),
        }
    }
}

/// One element of known length; nothing when the id says "not negotiated".
#[inline]
fn put<const N: usize>(w: &mut Writer<'_>, form: Form, id: u8, data: [u8; N]) -> Option<()> {
    if id == 0 {
        return Some(());
    }
    let ([first, second], head) = form.head(id, u8::try_from(N).ok()?)?;
    w.put([first])?;
    if head == 2 {
        w.put([second])?;
    }
    w.put(data)
}

/// One element of any length; nothing when it is empty or the id says "not negotiated".
#[inline]
fn put_bytes(w: &mut Writer<'_>, form: Form, id: u8, data: &[u8]) -> Option<()> {
    if id == 0 || data.is_empty() {
        return Some(());
    }
    let (head, head_len) = form.head(id, u8::try_from(data.len()).ok()?)?;
    w.put_slice(head.get(..head_len)?)?;
    w.put_slice(data)
}

/// Ends the block: padding, its length in words, or no block at all when it is empty.
#[inline]
fn finish(mut writer: Writer<'_>) -> Option<usize> {
    if writer.len() == BLOCK_START {
        writer.patch(0, [0x80])?;
        return Some(BLOCK_START - 4);
    }
    writer.align()?;
    let words = u16::try_from((writer.len() - BLOCK_START) / 4).ok()?;
    writer.patch(BLOCK_START - 2, words.to_be_bytes())?;
    Some(writer.len())
}

#[cfg(test)]
mod tests {
    use super::super::extension::AbsCaptureTime;
    use super::super::view::RtpView;
    use super::*;
    use proptest::prelude::*;

    fn fields(carried: &Extensions) -> EgressFields<'_> {
        EgressFields {
            payload_type: 96,
            marker: true,
            seq: 0x0102,
            timestamp: 0x0304_0506,
            abs_send_time: 0xab_cdef,
            transport_cc: 0x1122,
            carried,
            dependency_descriptor: &[],
        }
    }

    fn usual_ids() -> ExtensionIds {
        ExtensionIds::default()
            .with(Extension::Mid, 1)
            .with(Extension::AbsSendTime, 4)
            .with(Extension::TransportCc, 5)
            .with(Extension::AudioLevel, 6)
    }

    #[test]
    fn a_video_header_is_these_bytes() {
        let header = EgressHeader::new(0x0708_090a, &usual_ids(), Token::new(b"7"));
        let mut out = [0xee; 64];
        let len = header.write(&mut out, &fields(&Extensions::default())).unwrap();
        let wanted = [
            0x90, 0xe0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, // X, M, PT 96
            0xbe, 0xde, 0, 3, // one-byte form, three words
            0x42, 0xab, 0xcd, 0xef, 0x51, 0x11, 0x22, 0x10, b'7', 0, 0, 0,
        ];
        assert_eq!(&out[..len], wanted);
    }

    #[test]
    fn a_header_without_elements_has_no_extension_block() {
        let header = EgressHeader::new(1, &ExtensionIds::default(), Token::new(b"7"));
        let mut out = [0xee; 40];
        let carried = Extensions { audio_level: Some(3), ..Extensions::default() };
        assert_eq!(header.write(&mut out, &fields(&carried)), Some(12));
        let view = RtpView::parse(&out[..12]).unwrap();
        assert_eq!((view.seq, view.ssrc, view.header_len()), (0x0102, 1, 12));
        let only_level = ExtensionIds::default().with(Extension::AudioLevel, 6);
        let header = EgressHeader::new(1, &only_level, None);
        assert_eq!(header.write(&mut out, &fields(&Extensions::default())), Some(12));
        assert_eq!(header.write(&mut out, &fields(&carried)), Some(20));
        assert_eq!(out[12..20], [0xbe, 0xde, 0, 1, 0x60, 3, 0, 0]);
    }

    #[test]
    fn a_long_descriptor_or_a_large_id_takes_the_two_byte_form() {
        let ids = usual_ids().with(Extension::DependencyDescriptor, 7);
        let carried = Extensions::default();
        let mut out = [0; EGRESS_HEADER_BYTES_MAX];
        for (descriptor, ids, form) in [
            (vec![9; 16], ids, [0xbe, 0xde]),
            (vec![9; 17], ids, [0x10, 0x00]),
            (vec![9; 17], usual_ids(), [0xbe, 0xde]),
            (vec![], usual_ids().with(Extension::Toffset, 15), [0x10, 0x00]),
        ] {
            let header = EgressHeader::new(1, &ids, Token::new(b"7"));
            let fields = EgressFields { dependency_descriptor: &descriptor, ..fields(&carried) };
            let len = header.write(&mut out, &fields).unwrap();
            assert_eq!(out[12..14], form);
            let packet = &out[..len];
            let values = Extensions::parse(&RtpView::parse(packet).unwrap(), &ids);
            assert_eq!(values.mid, Token::new(b"7"));
            assert_eq!(values.abs_send_time, Some(0xab_cdef));
            assert_eq!(values.transport_cc, Some(0x1122));
            if ids.has(Extension::DependencyDescriptor) {
                let span = values.dependency_descriptor.unwrap();
                assert_eq!(span.of(packet), Some(&descriptor[..]));
            }
        }
    }

    #[test]
    fn the_longest_header_fits_the_stated_maximum() {
        let ids = Extension::ALL
            .into_iter()
            .zip(200u8..)
            .fold(ExtensionIds::default(), |ids, (extension, id)| ids.with(extension, id));
        let carried = Extensions {
            audio_level: Some(1),
            video_orientation: Some(2),
            toffset: Some(-1),
            playout_delay: Some([1, 2, 3]),
            abs_capture_time: Some(AbsCaptureTime { timestamp: 1, clock_offset: Some(-1) }),
            ..Extensions::default()
        };
        let header = EgressHeader::new(1, &ids, Token::new(&[b'm'; 16]));
        let fields = EgressFields { dependency_descriptor: &[1; 255], ..fields(&carried) };
        let mut out = [0; EGRESS_HEADER_BYTES_MAX];
        let len = header.write(&mut out, &fields).unwrap();
        for short in 0..len {
            assert_eq!(header.write(&mut out[..short], &fields), None, "{short} of {len} bytes");
        }
        let too_long = EgressFields { dependency_descriptor: &[1; 256], ..fields };
        assert_eq!(header.write(&mut out, &too_long), None);
    }

    fn any_carried() -> impl Strategy<Value = Extensions> {
        (
            any::<Option<u8>>(),
            any::<Option<u8>>(),
            proptest::option::of(-(1i32 << 23)..1 << 23),
            proptest::option::of((any::<u64>(), any::<Option<i64>>())),
            any::<Option<[u8; 3]>>(),
        )
            .prop_map(
                |(audio_level, video_orientation, toffset, capture, playout_delay)| {
                    let abs_capture_time = capture.map(|(timestamp, clock_offset)| {
                        AbsCaptureTime { timestamp, clock_offset }
                    });
                    Extensions {
                        audio_level,
                        video_orientation,
                        toffset,
                        abs_capture_time,
                        playout_delay,
                        ..Extensions::default()
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            carried in any_carried(),
            mid in proptest::option::of("[a-z0-9]{1,16}"),
            first_id in 1u8..20,
            descriptor in proptest::collection::vec(any::<u8>(), 0..60),
            seq in any::<u16>(), timestamp in any::<u32>(), ssrc in any::<u32>(),
        ) {
            let ids = Extension::ALL
                .into_iter()
                .filter(|extension| !matches!(extension, Extension::Rid | Extension::RepairedRid))
                .zip(first_id..)
                .fold(ExtensionIds::default(), |ids, (extension, id)| ids.with(extension, id));
            let mid = mid.and_then(|mid| Token::new(mid.as_bytes()));
            let fields = EgressFields {
                seq, timestamp, dependency_descriptor: &descriptor, ..fields(&carried)
            };
            let mut out = [0xee; EGRESS_HEADER_BYTES_MAX];
            let len = EgressHeader::new(ssrc, &ids, mid).write(&mut out, &fields).unwrap();
            let packet = &out[..len];
            let view = RtpView::parse(packet).unwrap();
            prop_assert_eq!(view.header_len(), len);
            prop_assert_eq!((view.seq, view.timestamp, view.ssrc), (seq, timestamp, ssrc));
            prop_assert_eq!((view.payload_type, view.marker), (96, true));
            let mut values = Extensions::parse(&view, &ids);
            let span = values.dependency_descriptor.take();
            let read = span.and_then(|span| span.of(packet)).unwrap_or_default();
            prop_assert_eq!(read, &descriptor[..]);
            let wanted = Extensions {
                mid, abs_send_time: Some(0xab_cdef), transport_cc: Some(0x1122), ..carried
            };
            prop_assert_eq!(values, wanted);
        }
    }
}
