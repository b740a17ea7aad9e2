//! RTP header extensions (RFC 8285): which id means what, and what one packet carries.

use super::bytes::{Reader, signed_24, unsigned_24};
use super::view::RtpView;
use crate::ortc::types::RtpHeaderExtensionParameters;
use std::fmt;

/// The header extensions this server reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extension {
    /// Media id (RFC 9143).
    Mid,
    /// RTP stream id of a simulcast encoding (RFC 8852).
    Rid,
    /// The stream id that a retransmission repairs (RFC 8852).
    RepairedRid,
    /// When the packet left its sender, 24 bits of 6.18 s.
    AbsSendTime,
    /// The transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportCc,
    /// Audio level and voice activity (RFC 6464).
    AudioLevel,
    /// AV1's dependency descriptor, also used with other codecs.
    DependencyDescriptor,
    /// Coordination of video orientation (3GPP TS 26.114 §7.4.5).
    VideoOrientation,
    /// Transmission time offset (RFC 5450).
    Toffset,
    /// When the media was captured.
    AbsCaptureTime,
    /// The playout delay limits that the sender wishes.
    PlayoutDelay,
}

const COUNT: usize = 11;

impl Extension {
    /// All of them, in order.
    pub const ALL: [Self; COUNT] = [
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::AbsSendTime,
        Self::TransportCc,
        Self::AudioLevel,
        Self::DependencyDescriptor,
        Self::VideoOrientation,
        Self::Toffset,
        Self::AbsCaptureTime,
        Self::PlayoutDelay,
    ];

    /// The name by which it is negotiated.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::TransportCc => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::DependencyDescriptor => {
                concat!(
                    "https://aomediacodec.github.io/av1-rtp-spec/",
                    "#dependency-descriptor-rtp-header-extension"
                )
            }
            Self::VideoOrientation => "urn:3gpp:video-orientation",
            Self::Toffset => "urn:ietf:params:rtp-hdrext:toffset",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
        }
    }

    /// The extension of that name, if it is one of ours.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.uri() == uri)
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// Which wire id each extension has on one side: a producer's, the room's, a consumer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionIds {
    /// By extension; 0 = absent.
    ids: [u8; COUNT],
    /// The ids of the one-byte form, for one look-up per element; larger ids are rare and scanned.
    by_id: [Option<Extension>; 15],
}

impl ExtensionIds {
    /// From negotiated parameters. Unknown names and id 0 are passed over; of two entries with one
    /// name or one id the first counts.
    #[must_use]
    pub fn new(negotiated: &[RtpHeaderExtensionParameters]) -> Self {
        let mut table = Self::default();
        for parameters in negotiated {
            if let Some(extension) = Extension::from_uri(&parameters.uri) {
                table.insert(extension, parameters.id);
            }
        }
        table
    }

    /// The same table with one more entry, unless its extension or its id has one already.
    #[must_use]
    pub fn with(mut self, extension: Extension, id: u8) -> Self {
        self.insert(extension, id);
        self
    }

    fn insert(&mut self, extension: Extension, id: u8) {
        if id == 0 || self.id_of(extension) != 0 || self.extension_of(id).is_some() {
            return;
        }
        if let Some(slot) = self.ids.get_mut(extension.index()) {
            *slot = id;
        }
        if let Some(slot) = self.by_id.get_mut(usize::from(id)) {
            *slot = Some(extension);
        }
    }

    /// The wire id, 0 when the extension was not negotiated.
    #[inline]
    #[must_use]
    pub fn id_of(&self, extension: Extension) -> u8 {
        self.ids.get(extension.index()).copied().unwrap_or(0)
    }

    /// True when the extension was negotiated.
    #[must_use]
    pub fn has(&self, extension: Extension) -> bool {
        self.id_of(extension) != 0
    }

    /// What a wire id means.
    #[inline]
    #[must_use]
    pub fn extension_of(&self, id: u8) -> Option<Extension> {
        if let Some(known) = self.by_id.get(usize::from(id)) {
            return *known;
        }
        Extension::ALL.into_iter().find(|extension| self.id_of(*extension) == id)
    }

    /// The largest id; above 14 only the two-byte form can carry it.
    #[must_use]
    pub fn largest(&self) -> u8 {
        self.ids.into_iter().max().unwrap_or(0)
    }
}

/// The extension block of one packet, as it lies there.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtensionBlock<'a> {
    /// 0xBEDE: one-byte form; 0x1000–0x100F: two-byte form; anything else is not RFC 8285.
    pub profile: u16,
    /// Where [`bytes`](Self::bytes) begin in the packet.
    pub start: usize,
    /// The block without its first four bytes.
    pub bytes: &'a [u8],
}

impl<'a> ExtensionBlock<'a> {
    /// The elements up to the first malformed one.
    #[must_use]
    pub fn elements(&self) -> Elements<'a> {
        let (two_byte, bytes) = match self.profile {
            0xbede => (false, self.bytes),
            0x1000..=0x100f => (true, self.bytes),
            _ => (false, Default::default()),
        };
        Elements { two_byte, end: self.start + bytes.len(), reader: Reader::new(bytes) }
    }
}

/// One element of an extension block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// The wire id, never 0.
    pub id: u8,
    /// Where the data begins in the packet.
    pub start: usize,
    /// The value; may be empty in the two-byte form.
    pub data: &'a [u8],
}

/// Iterates the elements of an extension block (RFC 8285 §4.2 and §4.3).
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    two_byte: bool,
    /// Where the block ends in the packet.
    end: usize,
    reader: Reader<'a>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        loop {
            let first = self.reader.u8()?;
            if first == 0 {
                continue; // padding, in both forms
            }
            let (id, len) = if self.two_byte {
                (first, usize::from(self.reader.u8()?))
            } else {
                (first >> 4, usize::from(first & 0x0f) + 1)
            };
            // One-byte form: id 15 ends the block (§4.2); so does id 0 with a length, which is
            // neither padding nor an element.
            let reserved = !self.two_byte && (id == 0 || id == 15);
            let start = self.end - self.reader.rest().len();
            let data = if reserved { None } else { self.reader.take(len) };
            let Some(data) = data else {
                self.reader = Reader::new(&[]);
                return None;
            };
            return Some(Element { id, start, data });
        }
    }
}

/// Bytes of a [`Token`]: what the one-byte form can carry.
const TOKEN_BYTES_MAX: usize = 16;

/// A MID or RID: 1–16 bytes, held inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    len: u8,
    bytes: [u8; TOKEN_BYTES_MAX],
}

impl Token {
    /// From the wire or from parameters, up to the first NUL (some senders pad their slot);
    /// `None` when nothing or more than 16 bytes remain.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Self> {
        let text = text.split(|byte| *byte == 0).next()?;
        let len = u8::try_from(text.len()).ok().filter(|len| *len > 0)?;
        let mut bytes = [0; TOKEN_BYTES_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self { len, bytes })
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The text; `None` when it is not UTF-8, which no negotiated token is.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        str::from_utf8(self.as_bytes()).ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

/// The abs-capture-time extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsCaptureTime {
    /// NTP time of the capture, in the capturer's clock (32.32).
    pub timestamp: u64,
    /// What to add to get the sender's clock (signed 32.32), if the sender says.
    pub clock_offset: Option<i64>,
}

/// Where bytes lie in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: u16,
    len: u16,
}

impl Span {
    fn new(start: usize, len: usize) -> Option<Self> {
        Some(Self { start: u16::try_from(start).ok()?, len: u16::try_from(len).ok()? })
    }

    /// Those bytes of the packet in which they were found.
    #[must_use]
    pub fn of(self, packet: &[u8]) -> Option<&[u8]> {
        packet.get(usize::from(self.start)..)?.get(..usize::from(self.len))
    }
}

/// What the extensions of one packet say. A value of the wrong length counts as absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extensions {
    /// Media id.
    pub mid: Option<Token>,
    /// Stream id of the encoding.
    pub rid: Option<Token>,
    /// Stream id that this retransmission repairs.
    pub repaired_rid: Option<Token>,
    /// 24 bits, 6.18 s.
    pub abs_send_time: Option<u32>,
    /// Transport-wide sequence number.
    pub transport_cc: Option<u16>,
    /// V bit and level as on the wire (RFC 6464 §3).
    pub audio_level: Option<u8>,
    /// Camera, flip and rotation bits as on the wire.
    pub video_orientation: Option<u8>,
    /// Transmission offset in the media clock, 24 bits signed.
    pub toffset: Option<i32>,
    /// Capture time.
    pub abs_capture_time: Option<AbsCaptureTime>,
    /// Minimum and maximum, 12 bits each in 10 ms, as on the wire.
    pub playout_delay: Option<[u8; 3]>,
    /// Where the dependency descriptor lies in the packet.
    pub dependency_descriptor: Option<Span>,
}

// Kept beside every packet of a ring: two cache lines.
const _: () = assert!(size_of::<Extensions>() <= 128);

impl Extensions {
    /// Reads what `ids` names. Of several elements with one id the last counts.
    #[must_use]
    pub fn parse(view: &RtpView<'_>, ids: &ExtensionIds) -> Self {
        let mut values = Self::default();
        for element in view.extension_block().elements() {
            if let Some(extension) = ids.extension_of(element.id) {
                values.set(extension, element);
            }
        }
        values
    }

    /// Bytes that what a forwarder passes on takes in the one-byte form, before padding to words.
    #[must_use]
    pub fn carried_bytes(&self) -> usize {
        let capture_time = self
            .abs_capture_time
            .map_or(0, |time| if time.clock_offset.is_some() { 17 } else { 9 });
        usize::from(self.audio_level.is_some()) * 2
            + usize::from(self.video_orientation.is_some()) * 2
            + usize::from(self.toffset.is_some()) * 4
            + usize::from(self.playout_delay.is_some()) * 4
            + capture_time
    }

    #[inline]
    fn set(&mut self, extension: Extension, element: Element<'_>) {
        let data = element.data;
        match extension {
            Extension::Mid => self.mid = Token::new(data),
            Extension::Rid => self.rid = Token::new(data),
            Extension::RepairedRid => self.repaired_rid = Token::new(data),
            Extension::AbsSendTime => self.abs_send_time = exact(data).map(unsigned_24),
            Extension::TransportCc => {
                // Version 2 of the extension appends two bytes of feedback request.
                self.transport_cc = data.first_chunk().map(|seq| u16::from_be_bytes(*seq));
            }
            Extension::AudioLevel => self.audio_level = exact(data).map(u8::from_be_bytes),
            Extension::VideoOrientation => {
                self.video_orientation = exact(data).map(u8::from_be_bytes);
            }
            Extension::Toffset => self.toffset = exact(data).map(signed_24),
            Extension::AbsCaptureTime => self.abs_capture_time = capture_time(data),
            Extension::PlayoutDelay => self.playout_delay = exact(data),
            Extension::DependencyDescriptor => {
                self.dependency_descriptor = Span::new(element.start, data.len());
            }
        }
    }
}

fn exact<const N: usize>(data: &[u8]) -> Option<[u8; N]> {
    data.try_into().ok()
}

fn capture_time(data: &[u8]) -> Option<AbsCaptureTime> {
    let mut reader = Reader::new(data);
    let timestamp = reader.u64()?;
    let clock_offset = match reader.rest() {
        [] => None,
        _ => Some(exact(reader.rest()).map(i64::from_be_bytes)?),
    };
    Some(AbsCaptureTime { timestamp, clock_offset })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn elements(profile: u16, bytes: &[u8]) -> Vec<(u8, usize, Vec<u8>)> {
        ExtensionBlock { profile, start: 16, bytes }
            .elements()
            .map(|element| (element.id, element.start, element.data.to_vec()))
            .collect()
    }

    fn packet(profile: u16, block: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        bytes.extend(profile.to_be_bytes());
        bytes.extend(u16::try_from(block.len() / 4).unwrap().to_be_bytes());
        bytes.extend(block);
        bytes
    }

    #[test]
    fn elements_of_the_one_byte_form_are_read_up_to_the_first_malformed_one() {
        let mid = (1, 17, vec![b'0']);
        for (bytes, wanted) in [
            // RFC 8285 §4.2: length field 0 is one byte, padding may stand between elements.
            (&[0x10, b'0', 0, 0x22, 1, 2, 3, 0][..], vec![mid.clone(), (2, 20, vec![1, 2, 3])]),
            (&[0x10, b'0', 0xf0, 9, 0x20, 1, 0, 0], vec![mid.clone()]),
            (&[0x10, b'0', 0x02, 9, 0x20, 1, 0, 0], vec![mid.clone()]),
            (&[0x10, b'0', 0x27, 9], vec![mid]),
            (&[0, 0, 0, 0], vec![]),
            (&[], vec![]),
        ] {
            assert_eq!(elements(0xbede, bytes), wanted, "{bytes:?}");
        }
    }

    #[test]
    fn elements_of_the_two_byte_form_may_have_any_id_and_be_empty() {
        let bytes = [15, 1, 7, 0, 200, 0, 0, 3, 2, 5, 6, 9];
        let wanted = [(15, 18, vec![7]), (200, 22, vec![]), (3, 25, vec![5, 6])];
        for profile in [0x1000, 0x100f] {
            assert_eq!(elements(profile, &bytes), wanted);
        }
        assert_eq!(elements(0x1010, &bytes), []);
        assert_eq!(elements(0x1000, &[3, 9, 1, 1]), []);
    }

    #[test]
    fn ids_are_found_both_ways_and_the_first_of_equal_ones_counts() {
        let list = [
            (Extension::Mid.uri(), 1),
            ("urn:example:unknown", 2),
            (Extension::AbsSendTime.uri(), 14),
            (Extension::TransportCc.uri(), 255),
            (Extension::AudioLevel.uri(), 1),
            (Extension::Mid.uri(), 3),
            (Extension::Toffset.uri(), 0),
        ]
        .map(|(uri, id)| RtpHeaderExtensionParameters {
            uri: uri.to_owned(),
            id,
            encrypt: false,
            parameters: serde_json::Map::new(),
        });
        let ids = ExtensionIds::new(&list);
        let wanted = [
            (Extension::Mid, 1),
            (Extension::AbsSendTime, 14),
            (Extension::TransportCc, 255),
            (Extension::AudioLevel, 0),
            (Extension::Toffset, 0),
        ];
        for (extension, id) in wanted {
            assert_eq!(ids.id_of(extension), id, "{extension:?}");
        }
        for id in 0..=255u8 {
            let wanted = wanted.iter().find(|(_, wire)| *wire == id && id != 0).map(|w| w.0);
            assert_eq!(ids.extension_of(id), wanted, "{id}");
        }
        assert_eq!(ids.largest(), 255);
        assert!(ids.has(Extension::Mid) && !ids.has(Extension::Rid));
    }

    #[test]
    fn every_extension_is_known_by_its_uri() {
        for extension in Extension::ALL {
            assert_eq!(Extension::from_uri(extension.uri()), Some(extension));
        }
    }

    #[test]
    fn values_are_read_by_the_ids_of_their_sender() {
        let ids = ExtensionIds::default()
            .with(Extension::Mid, 4)
            .with(Extension::Rid, 10)
            .with(Extension::AbsSendTime, 2)
            .with(Extension::TransportCc, 3)
            .with(Extension::AudioLevel, 1)
            .with(Extension::Toffset, 14)
            .with(Extension::DependencyDescriptor, 12)
            .with(Extension::PlayoutDelay, 5);
        let block = [
            0x41, b'1', b'2', 0xa1, b'h', 0, 0x22, 0x12, 0x34, 0x56, 0x31, 0xab, 0xcd, 0x10, 0xb2,
            0xe2, 0xff, 0xff, 0xfe, 0xc2, 7, 8, 9, 0x51, 1, 2, 0x60, 1,
        ];
        let packet = packet(0xbede, &block);
        let values = Extensions::parse(&RtpView::parse(&packet).unwrap(), &ids);
        assert_eq!(values.mid.unwrap().as_str(), Some("12"));
        assert_eq!(values.rid.unwrap().as_bytes(), b"h", "a NUL ends a token");
        assert_eq!(values.abs_send_time, Some(0x12_3456));
        assert_eq!(values.transport_cc, Some(0xabcd));
        assert_eq!(values.audio_level, Some(0xb2));
        assert_eq!(values.toffset, Some(-2));
        assert_eq!(values.dependency_descriptor.unwrap().of(&packet), Some(&[7u8, 8, 9][..]));
        assert_eq!(values.playout_delay, None, "two bytes are not a playout delay");
        assert_eq!(values.repaired_rid, None);
    }

    #[test]
    fn capture_time_has_eight_or_sixteen_bytes() {
        let long: Vec<u8> = (1..=7).chain([8, 255, 255, 255, 255, 255, 255, 255, 254]).collect();
        let timestamp = 0x0102_0304_0506_0708;
        for (len, wanted) in [
            (8, Some(AbsCaptureTime { timestamp, clock_offset: None })),
            (16, Some(AbsCaptureTime { timestamp, clock_offset: Some(-2) })),
            (7, None),
            (12, None),
        ] {
            assert_eq!(capture_time(&long[..len]), wanted, "{len} bytes");
        }
    }

    #[test]
    fn a_token_holds_one_to_sixteen_bytes() {
        assert_eq!(Token::new(b""), None);
        assert_eq!(Token::new(b"\0\0"), None);
        assert_eq!(Token::new(&[b'a'; 17]), None);
        assert_eq!(Token::new(&[b'a'; 16]).unwrap().as_bytes(), [b'a'; 16]);
        assert_eq!(format!("{:?}", Token::new(b"hi").unwrap()), "\"hi\"");
    }

    proptest! {
        #[test]
        fn any_block_survives_and_elements_lie_where_they_say(
            two_byte in any::<bool>(),
            block in proptest::collection::vec(any::<u8>(), 0..160),
            ids in proptest::collection::vec((0usize..COUNT, any::<u8>()), 0..16),
        ) {
            let block = &block[..block.len() / 4 * 4];
            let packet = packet(if two_byte { 0x1000 } else { 0xbede }, block);
            let view = RtpView::parse(&packet).unwrap();
            for element in view.extension_block().elements() {
                prop_assert_ne!(element.id, 0);
                prop_assert_eq!(&packet[element.start..][..element.data.len()], element.data);
            }
            let ids = ids.into_iter().fold(ExtensionIds::default(), |table, (index, id)| {
                table.with(Extension::ALL[index], id)
            });
            let values = Extensions::parse(&view, &ids);
            if let Some(span) = values.dependency_descriptor {
                prop_assert!(span.of(&packet).is_some());
            }
        }
    }
}
