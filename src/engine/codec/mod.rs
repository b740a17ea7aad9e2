//! What a forwarder must know of a payload: does a key frame begin here, which layer is it.
//!
//! Owns nothing but the views in its submodules. Called by a producer once per packet received, on
//! the shard's thread. Every function is pure, allocates nothing, and takes any bytes: a payload
//! that does not parse is one of which nothing is known. It does not decode, does not join packets
//! to frames, and changes no payload.

pub mod av1;
pub mod dependency_descriptor;
pub mod h264;
pub mod h265;
pub mod red;
pub mod vp8;
pub mod vp9;

use self::dependency_descriptor::DependencyDescriptor;
use crate::ortc::codec::Codec;

/// Spatial layers told apart: no codec sends more, and AV1 has no more ids.
pub const SPATIAL_LAYERS_MAX: u8 = 4;

/// Temporal layers told apart; higher ones count as the highest of these.
pub const TEMPORAL_LAYERS_MAX: u8 = 4;

/// The numbers that a payload descriptor gives its picture (VP8, VP9), and where they stand in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PictureNumbers {
    /// Picture id: 15 bits, or 7 where it is not `long`.
    pub id: u16,
    /// TL0PICIDX: counts pictures of the lowest temporal layer.
    pub tl0: u8,
    /// First byte of the picture id in the payload; 0 = it has none.
    pub id_at: u8,
    /// Where TL0PICIDX is in the payload; 0 = it has none.
    pub tl0_at: u8,
    /// The picture id takes two bytes.
    pub long: bool,
    /// A receiver takes a hole among the ids for a loss, also where a whole layer is left out (VP8;
    /// VP9's references are distances between ids, which must stay).
    pub dense: bool,
}

impl PictureNumbers {
    /// Writes the numbers over those that stand in a payload with the same descriptor.
    pub fn write(&self, payload: &mut [u8]) {
        let [high, low] = self.id.to_be_bytes();
        let at = usize::from(self.id_at);
        if self.id_at != 0 {
            if self.long
                && let Some(id) = payload.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>)
            {
                *id = [high | 0x80, low];
            } else if let Some(id) = payload.get_mut(at).filter(|_| !self.long) {
                *id = low & 0x7f;
            }
        }
        if self.tl0_at != 0
            && let Some(tl0) = payload.get_mut(usize::from(self.tl0_at))
        {
            *tl0 = self.tl0;
        }
    }
}

/// The layer combinations (decode targets) that a dependency descriptor tells of: one bit for each,
/// as [`bit`](Self::bit) places it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Targets {
    /// Those of which the frame is a part.
    pub present: u16,
    /// Those to which a receiver may go over with the frame, if it can decode the frame.
    pub switch: u16,
    /// Those that the sender makes.
    pub active: u16,
}

impl Targets {
    /// The bit of a combination.
    #[must_use]
    pub fn bit(spatial: u8, temporal: u8) -> u16 {
        let spatial = spatial.min(SPATIAL_LAYERS_MAX - 1);
        let temporal = temporal.min(TEMPORAL_LAYERS_MAX - 1);
        1 << (spatial * TEMPORAL_LAYERS_MAX + temporal)
    }

    /// True when no descriptor told of any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.present | self.active == 0
    }
}

/// What one packet's payload tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PayloadInfo {
    /// A decoder that has seen nothing before may start with this packet. True for every packet of
    /// a codec without prediction between packets (audio), and for *one or more* packets at the
    /// beginning of a key frame (H.264 may carry its parameter sets in packets of their own).
    pub key_frame: bool,
    /// A frame (of one spatial layer) begins with this packet, as far as the payload tells.
    pub frame_start: bool,
    /// A frame (of one spatial layer) ends with this packet, as far as the payload tells; where it
    /// tells nothing (VP8, H.264), the marker bit of the RTP header does.
    pub frame_end: bool,
    /// Spatial layer inside the stream, 0 is the lowest.
    pub spatial: u8,
    /// Temporal layer, 0 is the lowest.
    pub temporal: u8,
    /// A receiver of only the temporal layers below may begin to take this one here.
    pub temporal_sync: bool,
    /// Its frame refers to no earlier picture, as far as each packet of it tells (VP9).
    pub intra: bool,
    /// Its frame refers to the spatial layer below, in the same picture.
    pub inter_layer: bool,
    /// A frame of a higher spatial layer, in the same picture, may refer to its frame.
    pub for_upper: bool,
    /// The numbers of its picture.
    pub picture: PictureNumbers,
    /// What a dependency descriptor told; empty without one.
    pub targets: Targets,
}

impl PayloadInfo {
    /// What holds for every packet of a codec whose packets stand alone.
    const ALONE: Self = Self {
        key_frame: true,
        frame_start: true,
        frame_end: true,
        spatial: 0,
        temporal: 0,
        temporal_sync: true,
        intra: true,
        inter_layer: false,
        for_upper: false,
        picture: PictureNumbers { id: 0, tl0: 0, id_at: 0, tl0_at: 0, long: false, dense: false },
        targets: Targets { present: 0, switch: 0, active: 0 },
    };

    /// The same with the layers that a dependency descriptor names.
    fn layered_by(mut self, descriptor: &DependencyDescriptor) -> Self {
        self.frame_start = descriptor.start_of_frame;
        self.frame_end = descriptor.end_of_frame;
        if let Some(layer) = descriptor.layer {
            self.spatial = layer.spatial;
            self.temporal = layer.temporal;
            self.temporal_sync = layer.switch;
            self.targets = layer.targets;
            // In one of a higher spatial layer, too.
            let own = u16::MAX >> (16 - 4 * (u16::from(layer.spatial.min(3)) + 1));
            self.for_upper = layer.targets.present & !own != 0;
        }
        self
    }

    /// The same, but a key frame begins where a dependency descriptor of a known structure says so,
    /// whatever the payload seems to say.
    fn keyed_by(self, descriptor: &DependencyDescriptor) -> Self {
        if !descriptor.structure_attached && descriptor.layer.is_none() {
            return self;
        }
        let key_frame = descriptor.structure_attached && descriptor.start_of_frame;
        Self { key_frame, intra: self.intra || key_frame, ..self }
    }
}

/// Looks into one packet's payload (after SRTP, without padding).
///
/// `descriptor` is the packet's dependency descriptor, if it carries one and
/// [`TemplateStructure::read`](dependency_descriptor::TemplateStructure::read) understood it. It
/// says everything for AV1, the layers for H.264, and for every codec where a key frame begins: with
/// end-to-end encryption (insertable streams) the bits of VP8 and H.26x that say so are noise, and
/// only the descriptor is in the clear. VP8's and VP9's layers stand in their payload descriptors,
/// which stay in the clear, too. A payload that does not parse gives the default: no key frame,
/// lowest layer.
#[must_use]
pub fn inspect(
    codec: Codec,
    payload: &[u8],
    descriptor: Option<&DependencyDescriptor>,
) -> PayloadInfo {
    let info = match codec {
        Codec::Opus | Codec::MultiOpus | Codec::Red | Codec::Other => return PayloadInfo::ALONE,
        Codec::Rtx => return PayloadInfo::default(),
        Codec::Vp8 => vp8::Descriptor::parse(payload).map(|d| d.info()).unwrap_or_default(),
        Codec::Vp9 => vp9::Descriptor::parse(payload).map(|d| d.info()).unwrap_or_default(),
        Codec::H264 => {
            let info = h264::inspect(payload);
            descriptor.map_or(info, |d| info.layered_by(d))
        }
        Codec::H265 => h265::inspect(payload),
        Codec::Av1 => {
            let info = av1::inspect(payload);
            return descriptor.map_or(info, |d| PayloadInfo {
                key_frame: d.structure_attached && d.start_of_frame,
                ..info.layered_by(d)
            });
        }
    };
    descriptor.map_or(info, |d| info.keyed_by(d))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::dependency_descriptor::FrameLayer;
    use super::*;

    const CODECS: [Codec; 10] = [
        Codec::Opus,
        Codec::MultiOpus,
        Codec::Vp8,
        Codec::Vp9,
        Codec::H264,
        Codec::H265,
        Codec::Av1,
        Codec::Red,
        Codec::Rtx,
        Codec::Other,
    ];

    #[test]
    fn every_audio_packet_is_a_start_and_no_retransmission_is() {
        for (codec, key) in [(Codec::Opus, true), (Codec::Other, true), (Codec::Rtx, false)] {
            assert_eq!(inspect(codec, &[1, 2, 3], None).key_frame, key, "{codec:?}");
        }
    }

    #[test]
    fn an_empty_video_payload_tells_nothing() {
        for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
            assert_eq!(inspect(codec, &[], None), PayloadInfo::default(), "{codec:?}");
        }
    }

    #[test]
    fn a_dependency_descriptor_names_the_layers_of_h264_and_decides_for_av1() {
        let targets = Targets { present: 1 << 6, switch: 1 << 6, active: 1 << 6 };
        let layer = FrameLayer { spatial: 1, temporal: 2, switch: true, targets };
        let descriptor = DependencyDescriptor {
            start_of_frame: true,
            end_of_frame: false,
            template_id: 0,
            frame_number: 7,
            structure_attached: false,
            active_targets: None,
            layer: Some(layer),
        };
        let sps = inspect(Codec::H264, &[0x67, 0x42], Some(&descriptor));
        assert!(!sps.key_frame && sps.temporal_sync && !sps.frame_end);
        assert_eq!((sps.spatial, sps.temporal), (1, 2));
        // The aggregation header's N bit alone would say key frame.
        let av1 = inspect(Codec::Av1, &[0x08, 0x0a], Some(&descriptor));
        assert!(!av1.key_frame);
        let attached = DependencyDescriptor { structure_attached: true, ..descriptor };
        assert!(inspect(Codec::Av1, &[0x00, 0x0a], Some(&attached)).key_frame);
    }

    #[test]
    fn what_is_encrypted_end_to_end_is_a_key_frame_where_the_descriptor_says_so() {
        let unknown = DependencyDescriptor {
            start_of_frame: true,
            end_of_frame: true,
            template_id: 0,
            frame_number: 7,
            structure_attached: false,
            active_targets: None,
            layer: None,
        };
        let targets = Targets::default();
        let layer = Some(FrameLayer { spatial: 0, temporal: 0, switch: true, targets });
        let delta = DependencyDescriptor { layer, ..unknown };
        let key = DependencyDescriptor { structure_attached: true, ..delta };
        let later = DependencyDescriptor { start_of_frame: false, ..key };
        // The same bytes with and without what would be a key frame in the clear.
        let payloads: [(Codec, &[u8], &[u8]); 4] = [
            (Codec::Vp8, &[0x90, 0x80, 1, 0x00], &[0x90, 0x80, 1, 0xff]),
            (Codec::Vp9, &[0x8a, 1, 0], &[0xca, 1, 0]),
            (Codec::H264, &[0x67, 0x42], &[0xff, 0xff]),
            (Codec::H265, &[32 << 1, 1, 0], &[0xff, 0xff, 0xff]),
        ];
        for (codec, looks_like_key, looks_like_none) in payloads {
            for payload in [looks_like_key, looks_like_none] {
                let says = |d: &DependencyDescriptor| inspect(codec, payload, Some(d)).key_frame;
                assert!(says(&key) && !says(&delta) && !says(&later), "{codec:?} {payload:?}");
            }
            // Without a structure the descriptor tells nothing.
            for (payload, is_key) in [(looks_like_key, true), (looks_like_none, false)] {
                let info = inspect(codec, payload, Some(&unknown));
                assert_eq!(info.key_frame, is_key, "{codec:?} {payload:?}");
            }
        }
    }

    #[test]
    fn other_numbers_take_the_place_of_those_in_a_payload() {
        // Codec, payload, picture id, TL0PICIDX, payload with them.
        type Case<'a> = (Codec, &'a [u8], u16, u8, &'a [u8]);
        let table: [Case<'_>; 5] = [
            (Codec::Vp8, &[0x90, 0x80, 0x05, 1], 0x83, 9, &[0x90, 0x80, 0x03, 1]),
            (
                Codec::Vp8,
                &[0x90, 0xe0, 0x80, 5, 7, 0x20, 1],
                0x1234,
                9,
                &[0x90, 0xe0, 0x92, 0x34, 9, 0x20, 1],
            ),
            (Codec::Vp8, &[0x90, 0x60, 7, 0x20, 1], 5, 9, &[0x90, 0x60, 9, 0x20, 1]),
            (Codec::Vp9, &[0xa8, 0x80, 5, 0x20, 7, 1], 0x1234, 9, &[0xa8, 0x92, 0x34, 0x20, 9, 1]),
            // Flexible mode has no TL0PICIDX.
            (Codec::Vp9, &[0xb8, 0x05, 0x20, 7], 6, 9, &[0xb8, 0x06, 0x20, 7]),
        ];
        for (codec, payload, id, tl0, expected) in table {
            let numbers = inspect(codec, payload, None).picture;
            let mut rewritten = payload.to_vec();
            PictureNumbers { id, tl0, ..numbers }.write(&mut rewritten);
            assert_eq!(rewritten, expected, "{codec:?} {payload:02x?}");
        }
    }

    proptest! {
        #[test]
        fn any_payload_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for codec in CODECS {
                let info = inspect(codec, &bytes, None);
                prop_assert!(info.spatial < 8 && info.temporal < 8);
                let mut rewritten = bytes.clone();
                info.picture.write(&mut rewritten);
                prop_assert_eq!(&rewritten, &bytes, "its own numbers change nothing");
            }
        }
    }
}
