//! H.265 payloads (RFC 7798): single NAL units, aggregation packets and fragmentation units.
//!
//! Pure views over bytes; see the parent module for who calls them. Decoding order numbers
//! (`sprop-max-don-diff` above 0) are not offered by the router and tell nothing here, nor are PACI
//! packets.

use super::PayloadInfo;

/// Temporal sub-layer access: sub-layers up to this one may be taken from here on (H.265 §7.4.2.2).
const SUB_LAYER_ACCESS: std::ops::RangeInclusive<u8> = 2..=5;
/// Random access pictures: BLA, IDR and CRA, and the types reserved for more.
const RANDOM_ACCESS: std::ops::RangeInclusive<u8> = 16..=23;
/// The last type of a slice.
const SLICE_MAX: u8 = 31;
const VIDEO_PARAMETERS: u8 = 32;
const SEQUENCE_PARAMETERS: u8 = 33;
/// Picture parameters, delimiter, … up to prefix SEI.
const BEFORE_A_PICTURE: [u8; 3] = [34, 35, 39];
const AGGREGATE: u8 = 48;
const FRAGMENT: u8 = 49;

/// Looks into one packet.
///
/// A key frame begins with the video or sequence parameters, which WebRTC senders put before every
/// random access picture. The picture alone is no beginning, for the reason that
/// [`h264`](super::h264::inspect) gives: the packet with the parameters may be lost, and comes
/// again. The temporal layer stands in every packet, in the clear of its NAL unit header.
#[must_use]
pub fn inspect(payload: &[u8]) -> PayloadInfo {
    let Some((header, rest)) = payload.split_first_chunk::<2>() else {
        return PayloadInfo::default();
    };
    let mut begins = Begins::default();
    match unit_type(*header) {
        AGGREGATE => begins.handle_aggregate(rest),
        FRAGMENT => {
            let Some((&fragment, body)) = rest.split_first() else {
                return PayloadInfo::default();
            };
            let kind = fragment & 0x3f;
            begins.access = SUB_LAYER_ACCESS.contains(&kind) || RANDOM_ACCESS.contains(&kind);
            if fragment & 0x80 != 0 {
                begins.handle_unit(kind, body);
            }
        }
        kind => begins.handle_unit(kind, rest),
    }
    // The temporal id is written plus one; 0 is forbidden.
    let temporal = (header[1] & 0x07).saturating_sub(1);
    PayloadInfo {
        key_frame: begins.key_frame,
        frame_start: begins.frame,
        temporal,
        temporal_sync: temporal == 0 || begins.access,
        intra: begins.key_frame,
        ..PayloadInfo::default()
    }
}

fn unit_type(header: [u8; 2]) -> u8 {
    header[0] >> 1 & 0x3f
}

/// What begins in a packet.
#[derive(Debug, Default)]
struct Begins {
    frame: bool,
    key_frame: bool,
    /// A picture from which on its temporal layer may be taken.
    access: bool,
}

impl Begins {
    fn handle_unit(&mut self, kind: u8, body: &[u8]) {
        // A slice header opens with first_slice_segment_in_pic_flag.
        let first_slice = body.first().is_some_and(|byte| byte & 0x80 != 0);
        self.access |= SUB_LAYER_ACCESS.contains(&kind) || RANDOM_ACCESS.contains(&kind);
        match kind {
            0..=SLICE_MAX => self.frame |= first_slice,
            VIDEO_PARAMETERS | SEQUENCE_PARAMETERS => {
                self.frame = true;
                self.key_frame = true;
            }
            kind => self.frame |= BEFORE_A_PICTURE.contains(&kind),
        }
    }

    /// Units of an aggregation packet, each after its length (RFC 7798 §4.4.2).
    fn handle_aggregate(&mut self, mut bytes: &[u8]) {
        while let Some((&length, rest)) = bytes.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(length));
            let Some((unit, tail)) = rest.split_at_checked(length) else { return };
            if let Some((&header, body)) = unit.split_first_chunk::<2>() {
                self.handle_unit(unit_type(header), body);
            }
            bytes = tail;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A NAL unit header of a type, of the lowest temporal layer.
    const fn unit(kind: u8) -> u8 {
        kind << 1
    }

    #[test]
    fn key_frames_and_frame_starts_are_found_in_every_packetization() {
        let fragment = unit(FRAGMENT);
        let aggregate = unit(AGGREGATE);
        let table: [(&str, &[u8], bool, bool); 18] = [
            ("nothing", &[], false, false),
            ("half a header", &[unit(32)], false, false),
            ("vps", &[unit(32), 1, 0x0c], true, true),
            ("sps", &[unit(33), 1, 0x01], true, true),
            ("pps", &[unit(34), 1, 0xc0], false, true),
            ("delimiter", &[unit(35), 1, 0x50], false, true),
            ("sei", &[unit(39), 1, 0x05], false, true),
            ("idr, first slice", &[unit(19), 1, 0xaf], false, true),
            ("idr, later slice", &[unit(20), 1, 0x2f], false, false),
            ("cra, first slice", &[unit(21), 1, 0xaf], false, true),
            ("trail, first slice", &[unit(1), 1, 0xd0], false, true),
            ("idr, cut", &[unit(19), 1], false, false),
            ("fragment, idr starts", &[fragment, 1, 0x80 | 19, 0xaf], false, true),
            ("fragment, idr goes on", &[fragment, 1, 19, 0xaf], false, false),
            ("fragment, sps starts", &[fragment, 1, 0x80 | 33, 0x01], true, true),
            ("fragment, cut", &[fragment, 1], false, false),
            (
                "aggregate of vps and pps",
                &[aggregate, 1, 0, 3, unit(32), 1, 0x0c, 0, 3, unit(34), 1, 0xc0],
                true,
                true,
            ),
            ("aggregate beyond its end", &[aggregate, 1, 0, 9, unit(32), 1, 0x0c], false, false),
        ];
        for (name, bytes, key_frame, frame_start) in table {
            let info = inspect(bytes);
            assert_eq!((info.key_frame, info.frame_start), (key_frame, frame_start), "{name}");
        }
    }

    #[test]
    fn a_temporal_layer_is_entered_where_the_picture_allows() {
        // (type, temporal id plus one, layer, sync)
        for (kind, temporal_plus_one, layer, sync) in [
            (1, 1, 0, true),
            (1, 3, 2, false),
            (0, 2, 1, false),
            (2, 3, 2, true),
            (5, 2, 1, true),
            (19, 1, 0, true),
            (1, 0, 0, true),
        ] {
            for bytes in [
                vec![unit(kind), temporal_plus_one, 0x80],
                vec![unit(FRAGMENT), temporal_plus_one, kind, 0],
            ] {
                let info = inspect(&bytes);
                assert_eq!((info.temporal, info.temporal_sync), (layer, sync), "{bytes:02x?}");
            }
        }
    }
}
