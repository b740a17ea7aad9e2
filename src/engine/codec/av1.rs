//! The AV1 aggregation header (RTP Payload Format for AV1 v1.0, §4.4).
//!
//! Pure views over bytes; see the parent module for who calls them. OBUs are not read: where layers
//! matter, the dependency descriptor names them.

use super::PayloadInfo;

/// Looks into one packet that has no dependency descriptor.
///
/// Frames inside a temporal unit cannot be told apart here, so a start is where no OBU continues
/// from the packet before, and an end where none continues in the next.
#[must_use]
pub fn inspect(payload: &[u8]) -> PayloadInfo {
    let [header, _, ..] = payload else { return PayloadInfo::default() };
    let continues = header & 0x80 != 0;
    let continued = header & 0x40 != 0;
    // N: a new coded video sequence begins. The specification forbids it with Z.
    let key_frame = header & 0x08 != 0 && !continues;
    PayloadInfo {
        key_frame,
        frame_start: !continues,
        frame_end: !continued,
        temporal_sync: true,
        intra: key_frame,
        ..PayloadInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aggregation_header_tells_starts_ends_and_new_sequences() {
        // (bytes, key frame, start, end)
        let table: [(&[u8], bool, bool, bool); 6] = [
            (&[0x08], false, false, false),
            (&[0x18, 0x0a], true, true, true),
            (&[0x58, 0x0a], true, true, false),
            (&[0x88, 0x0a], false, false, true),
            (&[0xd0, 0x0a], false, false, false),
            (&[0x10, 0x0a], false, true, true),
        ];
        for (bytes, key_frame, start, end) in table {
            let info = inspect(bytes);
            assert_eq!(
                (info.key_frame, info.frame_start, info.frame_end),
                (key_frame, start, end),
                "{bytes:02x?}"
            );
        }
    }
}
