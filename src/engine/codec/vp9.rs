//! The VP9 payload descriptor (RFC 9628 §4.2).
//!
//! Pure views over bytes; see the parent module for who calls them.

use super::{PayloadInfo, PictureNumbers};

/// Layer indices of a VP9 packet (L bit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerIndices {
    /// TID: temporal layer.
    pub temporal: u8,
    /// U: from here on no later frame of this temporal layer refers to one before.
    pub switching_up: bool,
    /// SID: spatial layer.
    pub spatial: u8,
    /// D: predicted from the spatial layer below.
    pub inter_layer: bool,
    /// TL0PICIDX, in non-flexible mode.
    pub tl0_picture_index: Option<u8>,
}

/// A parsed VP9 payload descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// I: picture id (7 or 15 bits), if present.
    pub picture_id: Option<u16>,
    /// M: the picture id has 15 bits.
    pub long_picture_id: bool,
    /// P: predicted from earlier pictures.
    pub inter_picture: bool,
    /// L: layer indices, if present.
    pub layers: Option<LayerIndices>,
    /// F: flexible mode, references are listed.
    pub flexible: bool,
    /// B: a frame (of one spatial layer) begins with this packet.
    pub frame_start: bool,
    /// E: a frame (of one spatial layer) ends with this packet.
    pub frame_end: bool,
    /// Spatial layers according to the scalability structure (V bit), if present.
    pub spatial_layers: Option<u8>,
    /// Z: no frame of a higher spatial layer refers to this one.
    pub not_for_inter_layer: bool,
    /// Bytes of the descriptor: where the VP9 payload begins.
    pub len: usize,
}

impl Descriptor {
    /// Reads the descriptor; `None` when it is cut short.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (&first, mut rest) = payload.split_first()?;
        let flexible = first & 0x10 != 0;
        let inter_picture = first & 0x40 != 0;
        let mut picture_id = None;
        if first & 0x80 != 0 {
            (picture_id, rest) = picture_id_of(rest)?;
        }
        let mut layers = None;
        if first & 0x20 != 0 {
            (layers, rest) = layer_indices_of(rest, flexible)?;
        }
        if flexible && inter_picture {
            rest = skip_references(rest)?;
        }
        let mut spatial_layers = None;
        if first & 0x02 != 0 {
            (spatial_layers, rest) = skip_scalability_structure(rest)?;
        }
        Some(Self {
            picture_id,
            long_picture_id: picture_id.is_some() && payload.get(1)? & 0x80 != 0,
            inter_picture,
            layers,
            flexible,
            frame_start: first & 0x08 != 0,
            frame_end: first & 0x04 != 0,
            spatial_layers,
            not_for_inter_layer: first & 0x01 != 0,
            len: payload.len() - rest.len(),
        })
    }

    /// What a forwarder needs of it.
    ///
    /// A key frame begins where the base spatial layer of a picture without reference to earlier
    /// pictures begins. The higher layers of that picture refer to the base one and follow it, so
    /// they are no place to start but one to go up.
    #[must_use]
    pub fn info(&self) -> PayloadInfo {
        let (spatial, temporal) = self.layers.map_or((0, 0), |l| (l.spatial, l.temporal));
        let intra = !self.inter_picture;
        PayloadInfo {
            key_frame: self.frame_start && intra && spatial == 0,
            frame_start: self.frame_start,
            frame_end: self.frame_end,
            spatial,
            temporal,
            temporal_sync: temporal == 0 || self.layers.is_some_and(|l| l.switching_up),
            intra,
            inter_layer: self.layers.is_some_and(|l| l.inter_layer),
            for_upper: !self.not_for_inter_layer,
            picture: self.numbers(),
            ..PayloadInfo::default()
        }
    }

    /// The numbers of its picture. The id stands behind the first byte, TL0PICIDX behind the layer
    /// indices that follow (RFC 9628 §4.2).
    fn numbers(&self) -> PictureNumbers {
        let tl0 = self.layers.and_then(|layers| layers.tl0_picture_index);
        let id_bytes = u8::from(self.picture_id.is_some()) + u8::from(self.long_picture_id);
        PictureNumbers {
            id: self.picture_id.unwrap_or(0),
            tl0: tl0.unwrap_or(0),
            id_at: u8::from(self.picture_id.is_some()),
            tl0_at: tl0.map_or(0, |_| 2 + id_bytes),
            long: self.long_picture_id,
            dense: false,
        }
    }
}

fn picture_id_of(bytes: &[u8]) -> Option<(Option<u16>, &[u8])> {
    let (&high, rest) = bytes.split_first()?;
    if high & 0x80 == 0 {
        return Some((Some(u16::from(high)), rest));
    }
    let (&low, rest) = rest.split_first()?;
    Some((Some(u16::from_be_bytes([high & 0x7f, low])), rest))
}

fn layer_indices_of(bytes: &[u8], flexible: bool) -> Option<(Option<LayerIndices>, &[u8])> {
    let (&byte, mut rest) = bytes.split_first()?;
    let mut indices = LayerIndices {
        temporal: byte >> 5,
        switching_up: byte & 0x10 != 0,
        spatial: (byte >> 1) & 0x07,
        inter_layer: byte & 0x01 != 0,
        tl0_picture_index: None,
    };
    if !flexible {
        let (&index, tail) = rest.split_first()?;
        rest = tail;
        indices.tl0_picture_index = Some(index);
    }
    Some((Some(indices), rest))
}

/// P_DIFF (7 bits) with N (another follows), at most three.
fn skip_references(mut bytes: &[u8]) -> Option<&[u8]> {
    for _ in 0..3 {
        let (&byte, rest) = bytes.split_first()?;
        bytes = rest;
        if byte & 0x01 == 0 {
            return Some(bytes);
        }
    }
    // RFC 9628 §4.2: a fourth reference is not allowed.
    None
}

/// The scalability structure (§4.2.1): resolutions, then a description of a group of pictures.
fn skip_scalability_structure(bytes: &[u8]) -> Option<(Option<u8>, &[u8])> {
    let (&byte, mut rest) = bytes.split_first()?;
    let spatial_layers = (byte >> 5) + 1;
    if byte & 0x10 != 0 {
        rest = rest.get(4 * usize::from(spatial_layers)..)?;
    }
    if byte & 0x08 != 0 {
        let (&pictures, tail) = rest.split_first()?;
        rest = tail;
        for _ in 0..pictures {
            let (&picture, tail) = rest.split_first()?;
            rest = tail.get(usize::from((picture >> 2) & 0x03)..)?;
        }
    }
    Some((Some(spatial_layers), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Descriptor = Descriptor {
        picture_id: None,
        long_picture_id: false,
        inter_picture: false,
        layers: None,
        flexible: false,
        frame_start: false,
        frame_end: false,
        spatial_layers: None,
        not_for_inter_layer: false,
        len: 1,
    };

    #[test]
    fn descriptors_of_every_shape_are_read() {
        let indices = LayerIndices {
            temporal: 2,
            switching_up: true,
            spatial: 1,
            inter_layer: true,
            tl0_picture_index: Some(9),
        };
        let table: [(&[u8], Option<Descriptor>); 10] = [
            (&[], None),
            (&[0x0c], Some(Descriptor { frame_start: true, frame_end: true, ..PLAIN })),
            (&[0x80], None),
            (&[0x80, 0x05], Some(Descriptor { picture_id: Some(5), len: 2, ..PLAIN })),
            (
                &[0x80, 0x92, 0x34],
                Some(Descriptor {
                    picture_id: Some(0x1234),
                    long_picture_id: true,
                    len: 3,
                    ..PLAIN
                }),
            ),
            (&[0x20, 0x53, 0x09], Some(Descriptor { layers: Some(indices), len: 3, ..PLAIN })),
            // Flexible mode: no TL0PICIDX; references end with N = 0.
            (
                &[0x71, 0x53, 0x03, 0x02],
                Some(Descriptor {
                    inter_picture: true,
                    flexible: true,
                    not_for_inter_layer: true,
                    layers: Some(LayerIndices { tl0_picture_index: None, ..indices }),
                    len: 4,
                    ..PLAIN
                }),
            ),
            (&[0x50, 0x03, 0x03, 0x03, 0x02], None),
            // Two spatial layers with resolutions, a group of two pictures: one reference, none.
            (
                &[0x02, 0x38, 1, 2, 3, 4, 5, 6, 7, 8, 2, 0x04, 0x01, 0x00],
                Some(Descriptor { spatial_layers: Some(2), len: 14, ..PLAIN }),
            ),
            (&[0x02, 0x38, 1, 2, 3, 4, 5, 6, 7], None),
        ];
        for (bytes, expected) in table {
            assert_eq!(Descriptor::parse(bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn only_the_base_layer_of_an_intra_picture_is_a_key_frame() {
        // (first byte, layer byte, key frame, refers to no earlier picture)
        for (first, layer, key, sync) in [
            (0x28, 0x00, true, true),
            (0x28, 0x03, false, true),
            (0x68, 0x00, false, false),
            (0x20, 0x00, false, true),
        ] {
            let info = Descriptor::parse(&[first, layer, 0]).expect("complete").info();
            assert_eq!((info.key_frame, info.intra), (key, sync), "{first:02x} {layer:02x}");
        }
        assert!(Descriptor::parse(&[0x08]).expect("complete").info().key_frame);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_and_the_payload_never_begins_beyond_them(
            bytes in proptest::collection::vec(any::<u8>(), 0..48),
        ) {
            if let Some(descriptor) = Descriptor::parse(&bytes) {
                prop_assert!(descriptor.len <= bytes.len());
            }
        }
    }
}
