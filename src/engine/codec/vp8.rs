//! The VP8 payload descriptor (RFC 7741 §4.2) and the one bit of the payload header that matters.
//!
//! Pure views over bytes; see the parent module for who calls them.

use super::{PayloadInfo, PictureNumbers};

/// A picture id as it stands in the descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureId {
    /// 7 bits.
    Short(u8),
    /// 15 bits.
    Long(u16),
}

/// A parsed VP8 payload descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// N: no other frame depends on this one.
    pub non_reference: bool,
    /// S: a partition begins with this packet.
    pub partition_start: bool,
    /// PID: which partition.
    pub partition: u8,
    /// Picture id, if present.
    pub picture_id: Option<PictureId>,
    /// TL0PICIDX: counts frames of the base temporal layer, if present.
    pub tl0_picture_index: Option<u8>,
    /// TID: temporal layer, if present.
    pub temporal: Option<u8>,
    /// Y: depends only on the base layer; false when the layer is not given.
    pub layer_sync: bool,
    /// KEYIDX, if present.
    pub key_index: Option<u8>,
    /// Bytes of the descriptor: where the VP8 payload begins.
    pub len: usize,
    /// A key frame begins with this packet.
    pub key_frame: bool,
}

impl Descriptor {
    /// Reads the descriptor; `None` when it is cut short or nothing follows it.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (&first, mut rest) = payload.split_first()?;
        let mut descriptor = Self {
            non_reference: first & 0x20 != 0,
            partition_start: first & 0x10 != 0,
            partition: first & 0x07,
            picture_id: None,
            tl0_picture_index: None,
            temporal: None,
            layer_sync: false,
            key_index: None,
            len: 0,
            key_frame: false,
        };
        if first & 0x80 != 0 {
            rest = descriptor.parse_extension(rest)?;
        }
        // RFC 7741 §4.3: the inverse key frame flag is the lowest bit of the frame's first byte.
        let &header = rest.first()?;
        descriptor.len = payload.len() - rest.len();
        descriptor.key_frame = descriptor.frame_start() && header & 0x01 == 0;
        Some(descriptor)
    }

    /// Reads what the X bit announces and returns what follows it.
    fn parse_extension<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (&flags, mut rest) = bytes.split_first()?;
        if flags & 0x80 != 0 {
            let (&high, tail) = rest.split_first()?;
            rest = tail;
            self.picture_id = Some(if high & 0x80 == 0 {
                PictureId::Short(high)
            } else {
                let (&low, tail) = rest.split_first()?;
                rest = tail;
                PictureId::Long(u16::from_be_bytes([high & 0x7f, low]))
            });
        }
        if flags & 0x40 != 0 {
            let (&index, tail) = rest.split_first()?;
            rest = tail;
            self.tl0_picture_index = Some(index);
        }
        // One byte holds TID, Y and KEYIDX; T and K say which of its fields mean something.
        if flags & 0x30 != 0 {
            let (&byte, tail) = rest.split_first()?;
            rest = tail;
            if flags & 0x20 != 0 {
                self.temporal = Some(byte >> 6);
                self.layer_sync = byte & 0x20 != 0;
            }
            self.key_index = (flags & 0x10 != 0).then_some(byte & 0x1f);
        }
        Some(rest)
    }

    /// A frame begins with this packet.
    #[must_use]
    pub fn frame_start(&self) -> bool {
        self.partition_start && self.partition == 0
    }

    /// What a forwarder needs of it.
    #[must_use]
    pub fn info(&self) -> PayloadInfo {
        let temporal = self.temporal.unwrap_or(0);
        PayloadInfo {
            key_frame: self.key_frame,
            frame_start: self.frame_start(),
            temporal,
            temporal_sync: temporal == 0 || self.layer_sync,
            intra: self.key_frame,
            picture: self.numbers(),
            ..PayloadInfo::default()
        }
    }

    /// The numbers of its picture. X, I and L put them behind the first two bytes (RFC 7741 §4.2).
    #[must_use]
    pub fn numbers(&self) -> PictureNumbers {
        let (id, id_bytes) = match self.picture_id {
            None => (0, 0),
            Some(PictureId::Short(id)) => (u16::from(id), 1),
            Some(PictureId::Long(id)) => (id, 2),
        };
        PictureNumbers {
            id,
            tl0: self.tl0_picture_index.unwrap_or(0),
            id_at: if id_bytes > 0 { 2 } else { 0 },
            tl0_at: self.tl0_picture_index.map_or(0, |_| 2 + id_bytes),
            long: id_bytes == 2,
            dense: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn descriptors_of_every_shape_are_read() {
        let none = Descriptor {
            non_reference: false,
            partition_start: true,
            partition: 0,
            picture_id: None,
            tl0_picture_index: None,
            temporal: None,
            layer_sync: false,
            key_index: None,
            len: 1,
            key_frame: false,
        };
        let table: [(&[u8], Option<Descriptor>); 11] = [
            (&[], None),
            (&[0x10], None),
            (&[0x10, 0x01], Some(none)),
            (&[0x10, 0x00], Some(Descriptor { key_frame: true, ..none })),
            // A later partition and a continuation are no key frame, whatever their first byte.
            (&[0x11, 0x00], Some(Descriptor { partition: 1, ..none })),
            (
                &[0x20, 0x00],
                Some(Descriptor { non_reference: true, partition_start: false, ..none }),
            ),
            (
                &[0x90, 0x80, 0x7f, 0x00],
                Some(Descriptor {
                    picture_id: Some(PictureId::Short(0x7f)),
                    len: 3,
                    key_frame: true,
                    ..none
                }),
            ),
            (&[0x90, 0x80, 0x80], None),
            (&[0x90, 0xf0, 0x92, 0x34, 0x56], None),
            (
                &[0x90, 0xf0, 0x92, 0x34, 0x56, 0xa3, 0x01],
                Some(Descriptor {
                    picture_id: Some(PictureId::Long(0x1234)),
                    tl0_picture_index: Some(0x56),
                    temporal: Some(2),
                    layer_sync: true,
                    key_index: Some(3),
                    len: 6,
                    ..none
                }),
            ),
            // K without T: the temporal bits mean nothing.
            (&[0x90, 0x10, 0xe7, 0x01], Some(Descriptor { key_index: Some(7), len: 3, ..none })),
        ];
        for (bytes, expected) in table {
            assert_eq!(Descriptor::parse(bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn temporal_layers_and_their_sync_points_are_told() {
        // flags T, then TID and Y.
        for (byte, temporal, sync) in [(0x00, 0, true), (0x40, 1, false), (0xa0, 2, true)] {
            let info = Descriptor::parse(&[0x90, 0x20, byte, 0x01]).expect("complete").info();
            assert_eq!((info.temporal, info.temporal_sync), (temporal, sync), "{byte:02x}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_and_the_payload_never_begins_beyond_them(
            bytes in proptest::collection::vec(any::<u8>(), 0..16),
        ) {
            if let Some(descriptor) = Descriptor::parse(&bytes) {
                prop_assert!(descriptor.len < bytes.len());
            }
        }
    }
}
