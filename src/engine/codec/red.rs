//! Redundant audio data (RFC 2198): one packet with the newest block of sound and copies of those
//! before it, each with the payload type that it would have by itself.
//!
//! Called once per packet where it arrives ([`Sight::enter`]), on the shard's thread: the payload types
//! inside become the room's, and where the newest block lies is kept beside the packet. Consumers
//! that know RED get all of it; others get the newest block alone, in its own payload type
//! ([`Primary`]), which is what the sender would have sent without RED. Lost packets are not made up
//! from later copies here: receivers that can do that negotiate RED. What is encrypted end to end
//! goes as it came to those who know RED, and to nobody else.
//!
//! ```text
//!  0                   1                   2                   3
//! |1|  block PT   |     timestamp offset      |   block length    |   for each copy
//! |0|  block PT   |                                                   for the newest block
//! ```

use crate::limits::RED_READ_MIN;

/// Blocks of one packet at most: browsers send one or two copies, and the time of 16 Opus frames is
/// longer than any receiver waits.
const BLOCKS_MAX: usize = 16;

/// Bytes of Opus that say nothing but that there is silence: a table of contents and, with more than
/// one frame, their number (RFC 6716 §3.1; mediasoup's rule for `ignoreDtx`, too).
const OPUS_DTX_BYTES_MAX: usize = 2;

/// The newest block of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Primary {
    /// Its payload type in the room's terms.
    pub payload_type: u8,
    /// Where it begins; it ends with the payload.
    pub start: u16,
}

impl Primary {
    /// Its bytes of a payload (with whatever padding follows).
    #[must_use]
    pub fn of(self, payload: &[u8]) -> &[u8] {
        payload.get(usize::from(self.start)..).unwrap_or_default()
    }
}

/// What is written over in a packet's block headers: where each is, and its payload type.
struct Blocks {
    types: [(usize, u8); BLOCKS_MAX],
    len: usize,
}

/// The blocks of a packet in the room's payload types; `None` when it is cut short or has a payload
/// type that `room` does not know.
fn read(payload: &[u8], room: impl Fn(u8) -> Option<u8>) -> Option<(Primary, Blocks)> {
    let mut blocks = Blocks { types: [(0, 0); BLOCKS_MAX], len: 0 };
    let (mut at, mut copies) = (0, 0);
    loop {
        let header = *payload.get(at)?;
        let payload_type = room(header & 0x7f)?;
        *blocks.types.get_mut(blocks.len)? = (at, payload_type);
        blocks.len += 1;
        if header & 0x80 == 0 {
            break;
        }
        let length = u16::from_be_bytes([*payload.get(at + 2)?, *payload.get(at + 3)?]);
        copies += usize::from(length & 0x03ff);
        at += 4;
    }
    let start = at + 1 + copies;
    let (_, primary) = *blocks.types.get(blocks.len - 1)?;
    let primary = Primary { payload_type: primary, start: u16::try_from(start).ok()? };
    payload.get(start..)?;
    Some((primary, blocks))
}

/// Whether what seems to be a packet's block headers is what it seems. End-to-end encryption
/// (insertable streams) covers them, too; bytes that look like headers by chance must not be written
/// over then. A sender that encrypts shows it with nearly every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Packets in a row that could be read.
    read: u8,
}

impl Default for Sight {
    fn default() -> Self {
        Self { read: RED_READ_MIN }
    }
}

impl Sight {
    /// Puts the room's payload types into a packet's block headers, and finds its newest block.
    /// `None`, and the payload unchanged, when it cannot be read or the ones before it could not:
    /// then it is for those alone who know what is inside.
    pub fn enter(
        &mut self,
        payload: &mut [u8],
        room: impl Fn(u8) -> Option<u8>,
    ) -> Option<Primary> {
        let Some((primary, blocks)) = read(payload, room) else {
            self.read = 0;
            return None;
        };
        if self.read < RED_READ_MIN {
            self.read += 1;
            return None;
        }
        for (at, payload_type) in blocks.types.iter().take(blocks.len) {
            if let Some(header) = payload.get_mut(*at) {
                *header = *header & 0x80 | payload_type;
            }
        }
        Some(primary)
    }
}

/// True when this packet of Opus (without padding) only says that there is silence.
#[must_use]
pub fn is_opus_dtx(opus: &[u8]) -> bool {
    opus.len() <= OPUS_DTX_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The room's 100 for a browser's 111, and nothing else.
    fn opus(payload_type: u8) -> Option<u8> {
        (payload_type == 111).then_some(100)
    }

    /// A packet with these copies and a newest block.
    fn packet(payload_type: u8, copies: &[&[u8]], newest: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (age, copy) in copies.iter().rev().enumerate().rev() {
            let offset = u32::try_from((age + 1) * 960).unwrap();
            let word = offset << 10 | u32::try_from(copy.len()).unwrap();
            bytes.push(0x80 | payload_type);
            bytes.extend_from_slice(&word.to_be_bytes()[1..]);
        }
        bytes.push(payload_type);
        for copy in copies {
            bytes.extend_from_slice(copy);
        }
        bytes.extend_from_slice(newest);
        bytes
    }

    /// As the first packet of a sender.
    fn enter(payload: &mut [u8]) -> Option<Primary> {
        Sight::default().enter(payload, opus)
    }

    #[test]
    fn every_block_gets_the_rooms_payload_type_and_the_newest_is_found() {
        let copies: [&[&[u8]]; 4] = [&[], &[b"one"], &[b"one", b""], &[&[7; 700], &[8; 300]]];
        for copies in copies {
            let mut bytes = packet(111, copies, b"newest");
            let primary = enter(&mut bytes).expect("well-formed");
            assert_eq!(primary.payload_type, 100);
            assert_eq!(primary.of(&bytes), b"newest");
            assert_eq!(bytes, packet(100, copies, b"newest"), "nothing else changes");
        }
    }

    #[test]
    fn what_is_cut_short_or_holds_something_else_is_refused_unchanged() {
        let whole = packet(111, &[b"one", b"three"], b"");
        assert!(enter(&mut whole.clone()).is_some(), "the newest block may be empty");
        for len in 0..whole.len() {
            let mut cut = whole[..len].to_vec();
            assert_eq!(enter(&mut cut), None, "{len}");
            assert_eq!(cut, whole[..len]);
        }
        let mut other = packet(111, &[b"one"], b"newest");
        other[0] = 0x80 | 63;
        let before = other.clone();
        assert_eq!(enter(&mut other), None);
        assert_eq!(other, before);
        let many: [&[u8]; BLOCKS_MAX] = [b"x"; BLOCKS_MAX];
        assert_eq!(enter(&mut packet(111, &many, b"newest")), None);
        assert!(enter(&mut packet(111, &many[1..], b"newest")).is_some());
    }

    #[test]
    fn what_looks_like_blocks_among_what_is_encrypted_is_left_as_it_is() {
        let mut sight = Sight::default();
        let (mut sound, noise) = (packet(111, &[b"one"], b"newest"), [0xa7; 30]);
        assert_eq!(sight.enter(&mut noise.clone(), opus), None);
        for _ in 0..RED_READ_MIN {
            let mut chance = sound.clone();
            assert_eq!(sight.enter(&mut chance, opus), None);
            assert_eq!(chance, sound);
        }
        // So many in a row are no chance: somebody sent one packet of nonsense.
        assert!(sight.enter(&mut sound, opus).is_some());
    }

    #[test]
    fn two_bytes_of_opus_are_silence() {
        assert!(is_opus_dtx(&[0x78]) && is_opus_dtx(&[0x7b, 0x02]));
        assert!(!is_opus_dtx(&[0x78, 1, 2]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_and_keep_their_length(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..64), to in 0u8..128,
        ) {
            let before = bytes.clone();
            let found = Sight::default().enter(&mut bytes, |_| Some(to));
            prop_assert_eq!(bytes.len(), before.len());
            match found {
                Some(primary) => prop_assert!(usize::from(primary.start) <= bytes.len()),
                None => prop_assert_eq!(bytes, before),
            }
        }
    }
}
