//! What the packets carry: a VP8-shaped or Opus-shaped payload with a stamp inside.
//!
//! Publishers write, subscribers read after opening. The stamp lies in the encrypted part and holds
//! the *intended* send time, so that a generator or a server that falls behind shows up as latency
//! (no coordinated omission). The bytes before the stamp are what an SFU looks at: the VP8 payload
//! descriptor with a 15-bit picture id (RFC 7741 §4.2) and a frame header (§4.3), or Opus' TOC byte
//! (RFC 6716 §3.1). What follows is filler; nothing decodes it.

/// Marks a stamp; a payload without it was changed on the way.
const MAGIC: [u8; 4] = *b"rcLT";

/// Bytes of a stamp: magic, publication, counter, due time.
pub(crate) const STAMP_BYTES: usize = 24;

/// Bytes of the VP8 payload descriptor that we write.
const VP8_DESCRIPTOR_BYTES: usize = 4;

/// Bytes of the VP8 frame header with start code and dimensions, kept in every packet so that the
/// stamp never moves.
const VP8_FRAME_BYTES: usize = 10;

/// Opus: SILK-only wide band, 20 ms, mono, one frame (RFC 6716 §3.1, configuration 9).
const OPUS_TOC: u8 = 9 << 3;

/// What kind of media a publication has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Opus-shaped.
    Audio,
    /// VP8-shaped.
    Video,
}

impl Kind {
    /// The name in the REST contract.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }

    /// RTP clock, Hz.
    pub(crate) fn clock_rate(self) -> u64 {
        match self {
            Self::Audio => 48_000,
            Self::Video => 90_000,
        }
    }

    /// Where the stamp begins in a payload as we write it.
    fn stamp_offset(self) -> usize {
        match self {
            Self::Audio => 1,
            Self::Video => VP8_DESCRIPTOR_BYTES + VP8_FRAME_BYTES,
        }
    }

    /// Bytes of the smallest payload that holds a stamp.
    #[cfg(test)]
    pub(crate) fn payload_bytes_min(self) -> usize {
        self.stamp_offset() + STAMP_BYTES
    }
}

/// Who sent a packet, which one it is and when it was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The publication's number in the plan.
    pub(crate) publication: u32,
    /// The packet's number in its publication's schedule.
    pub(crate) counter: u64,
    /// When it was due, ns of the run.
    pub(crate) due: u64,
}

/// A packet's place in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The frame can be decoded by itself.
    pub(crate) key_frame: bool,
    /// First packet of the frame.
    pub(crate) first: bool,
    /// The frame's number.
    pub(crate) picture: u64,
    /// Picture height; the width is sixteen ninths of it.
    pub(crate) height: u16,
}

/// Writes the head of a payload; what it does not cover stays as it is. Returns false when `out` is
/// too short for a stamp.
pub(crate) fn write(kind: Kind, place: Place, stamp: Stamp, out: &mut [u8]) -> bool {
    let Some((head, rest)) = out.split_at_mut_checked(kind.stamp_offset()) else { return false };
    match kind {
        Kind::Audio => head.fill(OPUS_TOC),
        Kind::Video => head.copy_from_slice(&vp8_head(place)),
    }
    let Some(out) = rest.first_chunk_mut::<STAMP_BYTES>() else { return false };
    let mut bytes = [0; STAMP_BYTES];
    let fields = MAGIC
        .into_iter()
        .chain(stamp.publication.to_be_bytes())
        .chain(stamp.counter.to_be_bytes())
        .chain(stamp.due.to_be_bytes());
    for (to, from) in bytes.iter_mut().zip(fields) {
        *to = from;
    }
    *out = bytes;
    true
}

fn vp8_head(place: Place) -> [u8; VP8_DESCRIPTOR_BYTES + VP8_FRAME_BYTES] {
    let start = if place.first { 0x10 } else { 0 };
    let [.., high, low] = place.picture.to_be_bytes();
    // X and S; I; M and fifteen bits of picture id.
    let descriptor = [0x80 | start, 0x80, 0x80 | high, low];
    // Frame tag: P is zero for a key frame; version 0, shown, first partition of 0x100 bytes.
    let tag = [0x10 | u8::from(!place.key_frame), 0x20, 0x00];
    // Start code, then width and height, little end first (RFC 6386 §9.1).
    let [width_low, width_high] = (place.height / 9 * 16).to_le_bytes();
    let [height_low, height_high] = place.height.to_le_bytes();
    let rest = [0x9D, 0x01, 0x2A, width_low, width_high, height_low, height_high];
    let mut head = [0; VP8_DESCRIPTOR_BYTES + VP8_FRAME_BYTES];
    for (to, from) in head.iter_mut().zip(descriptor.into_iter().chain(tag).chain(rest)) {
        *to = from;
    }
    head
}

/// Reads the stamp of an opened payload; `None` when there is none where one was written.
pub(crate) fn read(kind: Kind, payload: &[u8]) -> Option<Stamp> {
    let bytes = payload.get(kind.stamp_offset()..)?.first_chunk::<STAMP_BYTES>()?;
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (publication, rest) = rest.split_first_chunk::<4>()?;
    let (counter, rest) = rest.split_first_chunk::<8>()?;
    (*magic == MAGIC).then_some(Stamp {
        publication: u32::from_be_bytes(*publication),
        counter: u64::from_be_bytes(*counter),
        due: u64::from_be_bytes(*rest.first_chunk()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { publication: 7, counter: 1 << 40, due: 123_456_789 };

    #[test]
    fn a_stamp_is_read_back_from_either_kind() {
        for kind in [Kind::Audio, Kind::Video] {
            let mut payload = vec![0; kind.payload_bytes_min() + 20];
            let place = Place { key_frame: false, first: true, picture: 1, height: 360 };
            assert!(write(kind, place, STAMP, &mut payload));
            assert_eq!(read(kind, &payload), Some(STAMP));
            payload[kind.stamp_offset()] ^= 1;
            assert_eq!(read(kind, &payload), None);
        }
    }

    #[test]
    fn a_payload_without_room_for_a_stamp_is_refused() {
        for kind in [Kind::Audio, Kind::Video] {
            let place = Place { key_frame: true, first: true, picture: 1, height: 360 };
            let mut payload = vec![0; kind.payload_bytes_min() - 1];
            assert!(!write(kind, place, STAMP, &mut payload));
            assert_eq!(read(kind, &payload), None);
        }
    }

    #[test]
    fn the_vp8_head_says_what_rfc_7741_and_rfc_6386_ask() {
        let cases = [(true, true, 0x90, 0), (false, true, 0x90, 1), (true, false, 0x80, 0)];
        for (key_frame, first, descriptor, inter) in cases {
            let head = vp8_head(Place { key_frame, first, picture: 0x1_8123, height: 360 });
            assert_eq!(head[0], descriptor, "S only on a frame's first packet");
            assert_eq!(head[1], 0x80, "only a picture id follows");
            assert_eq!(head[2..4], [0x81, 0x23], "fifteen bits with M set");
            assert_eq!(head[4] & 1, inter, "P is zero on a key frame");
            assert_eq!(head[7..], [0x9D, 0x01, 0x2A, 0x80, 0x02, 0x68, 0x01], "640 by 360");
        }
    }
}
