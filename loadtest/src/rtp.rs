//! RTP headers: those that publishers write and those that subscribers read (RFC 3550, RFC 8285).
//!
//! Pure functions over bytes. Reading keeps nothing that a forwarder may not change; writing
//! produces the header extensions that browsers send: mid, absolute send time, transport-wide
//! sequence number and, for audio, the level.

/// Bytes of an RTP header without extensions.
const FIXED_BYTES: usize = 12;

/// Bytes of a header as [`write()`] makes it.
pub(crate) const HEADER_BYTES: usize = 28;

/// What a received header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header<'a> {
    /// The stream.
    pub(crate) ssrc: u32,
    /// Its sequence number.
    pub(crate) sequence: u16,
    /// Its RTP time stamp.
    pub(crate) timestamp: u32,
    /// Last packet of a frame.
    pub(crate) marker: bool,
    /// Bytes before the payload.
    pub(crate) bytes: usize,
    extension_form: u16,
    extensions: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads a header; `None` for what is not an RTP packet with a whole header.
    pub(crate) fn read(packet: &'a [u8]) -> Option<Self> {
        let ([first, second, high, low, t0, t1, t2, t3, ssrc @ ..], rest) =
            packet.split_first_chunk::<FIXED_BYTES>()?;
        if first >> 6 != 2 {
            return None;
        }
        let csrc_bytes = 4 * usize::from(first & 0x0F);
        let mut bytes = FIXED_BYTES + csrc_bytes;
        let (mut extension_form, mut extensions) = (0, [].as_slice());
        let rest = rest.get(csrc_bytes..)?;
        if first & 0x10 != 0 {
            let ([a, b, c, d], rest) = rest.split_first_chunk::<4>()?;
            let length = 4 * usize::from(u16::from_be_bytes([*c, *d]));
            extension_form = u16::from_be_bytes([*a, *b]);
            extensions = rest.get(..length)?;
            bytes += 4 + length;
        }
        let sequence = u16::from_be_bytes([*high, *low]);
        let ssrc = u32::from_be_bytes(*ssrc);
        let timestamp = u32::from_be_bytes([*t0, *t1, *t2, *t3]);
        let marker = second & 0x80 != 0;
        Some(Self { ssrc, sequence, timestamp, marker, bytes, extension_form, extensions })
    }

    /// The value of a header extension in either form of RFC 8285.
    pub(crate) fn extension(&self, id: u8) -> Option<&'a [u8]> {
        let two_bytes = self.extension_form & 0xFFF0 == 0x1000;
        if !two_bytes && self.extension_form != 0xBEDE {
            return None;
        }
        let mut rest = self.extensions;
        while let Some((&first, after)) = rest.split_first() {
            if first == 0 {
                rest = after;
                continue;
            }
            let (found, length, after) = if two_bytes {
                let (&length, after) = after.split_first()?;
                (first, usize::from(length), after)
            } else {
                (first >> 4, usize::from(first & 0x0F) + 1, after)
            };
            let (value, after) = after.split_at_checked(length)?;
            if found == id {
                return Some(value);
            }
            rest = after;
        }
        None
    }
}

/// True for RTCP, given that the datagram is RTP or RTCP (RFC 5761 §4).
pub(crate) fn is_rtcp(packet: &[u8]) -> bool {
    packet.get(1).is_some_and(|kind| (192..=223).contains(kind))
}

/// True for SRTP and SRTCP (RFC 7983 §7).
pub(crate) fn is_media(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| (128..=191).contains(first))
}

/// The ids that our publishers announce for their header extensions.
pub(crate) mod extension_id {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`
    pub(crate) const MID: u8 = 4;
    /// `abs-send-time`
    pub(crate) const SEND_TIME: u8 = 2;
    /// Transport-wide congestion control.
    pub(crate) const TRANSPORT_CC: u8 = 3;
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level`
    pub(crate) const AUDIO_LEVEL: u8 = 1;
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id`
    pub(crate) const RID: u8 = 10;
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id`
    pub(crate) const REPAIRED_RID: u8 = 11;
}

/// A header extension of one byte that not all packets have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extra {
    /// Audio level, for audio.
    Level(u8),
    /// The encoding, one letter.
    Rid(u8),
    /// The encoding that a repair belongs to, one letter.
    RepairedRid(u8),
}

impl Extra {
    fn element(self) -> [u8; 2] {
        let (id, value) = match self {
            Self::Level(level) => (extension_id::AUDIO_LEVEL, level),
            Self::Rid(rid) => (extension_id::RID, rid),
            Self::RepairedRid(rid) => (extension_id::REPAIRED_RID, rid),
        };
        [id << 4, value]
    }
}

/// What [`write()`] puts into a header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    /// Last packet of a frame.
    pub(crate) marker: bool,
    /// Payload type.
    pub(crate) payload_type: u8,
    /// Sequence number.
    pub(crate) sequence: u16,
    /// RTP time stamp.
    pub(crate) timestamp: u32,
    /// The stream.
    pub(crate) ssrc: u32,
    /// One digit: the mid.
    pub(crate) mid: u8,
    /// Nanoseconds of any clock, for absolute send time.
    pub(crate) sent: u64,
    /// Transport-wide sequence number.
    pub(crate) transport_sequence: u16,
    /// What else is said.
    pub(crate) extra: Option<Extra>,
}

/// Writes a header and returns its length; `None` when `out` is shorter than [`HEADER_BYTES`].
pub(crate) fn write(fields: &Fields, out: &mut [u8]) -> Option<usize> {
    let [sequence_high, sequence_low] = fields.sequence.to_be_bytes();
    let [transport_high, transport_low] = fields.transport_sequence.to_be_bytes();
    // 24 bits of seconds in 6.18 fixed point.
    let ticks = (u128::from(fields.sent) << 18) / 1_000_000_000;
    let [.., a, b, c] = ticks.to_be_bytes();
    let mut extensions = [0_u8; 12];
    let written = [
        extension_id::MID << 4,
        fields.mid,
        extension_id::SEND_TIME << 4 | 2,
        a,
        b,
        c,
        extension_id::TRANSPORT_CC << 4 | 1,
        transport_high,
        transport_low,
    ];
    let extra = fields.extra.map(Extra::element);
    let all = written.into_iter().chain(extra.into_iter().flatten());
    for (to, from) in extensions.iter_mut().zip(all) {
        *to = from;
    }
    let head = [0x90, u8::from(fields.marker) << 7 | fields.payload_type];
    let bytes = head
        .into_iter()
        .chain([sequence_high, sequence_low])
        .chain(fields.timestamp.to_be_bytes())
        .chain(fields.ssrc.to_be_bytes())
        .chain([0xBE, 0xDE, 0, 3])
        .chain(extensions);
    let mut length = 0;
    for (to, from) in out.get_mut(..HEADER_BYTES)?.iter_mut().zip(bytes) {
        *to = from;
        length += 1;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields {
            marker: true,
            payload_type: 96,
            sequence: 0x1234,
            timestamp: 5,
            ssrc: 0xDEAD_BEEF,
            mid: b'1',
            sent: 1_500_000_000,
            transport_sequence: 0xABCD,
            extra: Some(Extra::Level(0x85)),
        }
    }

    #[test]
    fn a_written_header_is_read_back() {
        let cases = [
            (None, extension_id::RID),
            (Some(Extra::Level(0x85)), extension_id::AUDIO_LEVEL),
            (Some(Extra::Rid(0x85)), extension_id::RID),
            (Some(Extra::RepairedRid(0x85)), extension_id::REPAIRED_RID),
        ];
        for (extra, id) in cases {
            let mut out = [0; HEADER_BYTES];
            let length = write(&Fields { extra, ..fields() }, &mut out).unwrap();
            let header = Header::read(&out[..length]).unwrap();
            assert_eq!((header.ssrc, header.sequence), (0xDEAD_BEEF, 0x1234));
            assert_eq!((header.timestamp, header.marker), (5, true));
            assert_eq!(header.bytes, length);
            assert_eq!(header.extension(extension_id::TRANSPORT_CC), Some(&[0xAB, 0xCD][..]));
            assert_eq!(header.extension(extension_id::MID), Some(&b"1"[..]));
            assert_eq!(header.extension(extension_id::SEND_TIME), Some(&[0x06, 0, 0][..]));
            assert_eq!(header.extension(id).map(<[u8]>::to_vec), extra.map(|_| vec![0x85]));
            assert_eq!(header.extension(9), None);
        }
        assert!(write(&fields(), &mut [0; 20]).is_none());
    }

    #[test]
    fn two_byte_extensions_are_read() {
        let mut packet = vec![0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0x10, 0x00, 0, 2];
        packet.extend([5, 0, 3, 2, 9, 8, 0, 0]);
        let header = Header::read(&packet).unwrap();
        assert_eq!(header.extension(5), Some(&[][..]));
        assert_eq!(header.extension(3), Some(&[9, 8][..]));
    }

    #[test]
    fn any_truncation_of_a_header_is_survived() {
        let mut out = [0; HEADER_BYTES];
        let length = write(&fields(), &mut out).unwrap();
        for cut in 0..length {
            assert_eq!(Header::read(&out[..cut]), None, "{cut}");
        }
        for seed in 0..2_000 {
            let mut rng = crate::rng::Rng::new(seed);
            let mut bytes = out;
            let place = usize::from(rng.next_u16()) % length;
            bytes[place] = rng.next_u64().to_be_bytes()[0];
            if let Some(header) = Header::read(&bytes) {
                for id in 0..=16 {
                    assert!(header.extension(id).is_none_or(|value| value.len() <= 16));
                }
            }
        }
    }
}
