//! H.264 payloads (RFC 6184): single NAL units, STAP-A and FU-A.
//!
//! Pure views over bytes; see the parent module for who calls them. Interleaved packetization
//! (STAP-B, MTAP, FU-B) is not offered by the router and tells nothing here.

use super::PayloadInfo;

const SLICE: u8 = 1;
const IDR: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const DELIMITER: u8 = 9;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Looks into one packet.
///
/// A key frame begins with a sequence parameter set, which WebRTC senders put before every IDR
/// picture. The picture alone is no beginning: where the packet with the set was lost or is late, a
/// receiver that started with the picture could not decode it (mediasoup's rule, too).
#[must_use]
pub fn inspect(payload: &[u8]) -> PayloadInfo {
    let Some((&indicator, rest)) = payload.split_first() else { return PayloadInfo::default() };
    let mut begins = Begins::default();
    match indicator & 0x1f {
        STAP_A => begins.handle_aggregate(rest),
        FU_A => {
            let Some((&header, body)) = rest.split_first() else {
                return PayloadInfo::default();
            };
            if header & 0x80 != 0 {
                begins.handle_unit(header & 0x1f, body);
            }
        }
        kind => begins.handle_unit(kind, rest),
    }
    PayloadInfo {
        key_frame: begins.key_frame,
        frame_start: begins.frame,
        temporal_sync: true,
        intra: begins.key_frame,
        ..PayloadInfo::default()
    }
}

/// What begins in a packet.
#[derive(Debug, Default)]
struct Begins {
    frame: bool,
    key_frame: bool,
}

impl Begins {
    fn handle_unit(&mut self, kind: u8, body: &[u8]) {
        // A slice header opens with first_mb_in_slice as an Exp-Golomb code: a leading 1 is zero,
        // so this slice is the picture's first.
        let first_slice = body.first().is_some_and(|byte| byte & 0x80 != 0);
        match kind {
            SLICE | IDR => self.frame |= first_slice,
            SPS => {
                self.frame = true;
                self.key_frame = true;
            }
            SEI..=DELIMITER => self.frame = true,
            _ => {}
        }
    }

    /// Units of a STAP-A, each after its length (RFC 6184 §5.7.1).
    fn handle_aggregate(&mut self, mut bytes: &[u8]) {
        while let Some((&length, rest)) = bytes.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(length));
            let Some((unit, tail)) = rest.split_at_checked(length) else { return };
            if let Some((&header, body)) = unit.split_first() {
                self.handle_unit(header & 0x1f, body);
            }
            bytes = tail;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_frames_and_frame_starts_are_found_in_every_packetization() {
        let table: [(&str, &[u8], bool, bool); 17] = [
            ("nothing", &[], false, false),
            ("sps", &[0x67, 0x42], true, true),
            ("pps", &[0x68, 0xce], false, true),
            ("sei", &[0x06, 0x05], false, true),
            ("delimiter", &[0x09, 0x10], false, true),
            ("idr, first slice", &[0x65, 0x88], false, true),
            ("idr, later slice", &[0x65, 0x08], false, false),
            ("idr, cut", &[0x65], false, false),
            ("slice, first", &[0x41, 0x9a], false, true),
            ("slice, later", &[0x41, 0x1a], false, false),
            ("fu-a idr start", &[0x7c, 0x85, 0x88], false, true),
            ("fu-a idr middle", &[0x7c, 0x05, 0x88], false, false),
            ("fu-a slice start", &[0x5c, 0x81, 0x9a], false, true),
            ("fu-a cut", &[0x7c], false, false),
            ("stap-a sps pps", &[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce], true, true),
            ("stap-a pps idr", &[0x78, 0, 1, 0x68, 0, 2, 0x65, 0x88], false, true),
            ("stap-a length beyond the end", &[0x78, 0, 9, 0x67, 0x42], false, false),
        ];
        for (name, bytes, key_frame, frame_start) in table {
            let info = inspect(bytes);
            assert_eq!((info.key_frame, info.frame_start), (key_frame, frame_start), "{name}");
        }
    }

    #[test]
    fn units_of_length_zero_end_nothing() {
        assert!(inspect(&[0x78, 0, 0, 0, 0, 0, 2, 0x67, 0x42]).key_frame);
    }
}
