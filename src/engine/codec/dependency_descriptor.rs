//! The dependency descriptor header extension (RTP Payload Format for AV1 v1.0, appendix A).
//!
//! Owns what has to be remembered of a stream: the templates that its last key frame attached.
//! Called by a producer once per packet that carries the extension, on the shard's thread.
//! Frame references and chains are skipped, not kept: a forwarder chooses by decode targets.
//! Templates are at most 64 and decode targets at most 32 by their fields' widths, so the state has
//! a fixed size whatever arrives.

use super::Targets;

/// Templates a structure may have: template ids have 6 bits.
const TEMPLATES_MAX: usize = 64;

/// Decode targets a structure may have: their count has 5 bits.
const TARGETS_MAX: usize = 32;

/// How a frame relates to a decode target: it may be switched to here.
const INDICATION_SWITCH: u64 = 2;

/// The layer of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLayer {
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// A receiver may switch to the decode target of exactly this layer with this frame.
    pub switch: bool,
    /// The decode targets of which the frame is a part.
    pub targets: Targets,
}

/// What one packet's descriptor tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DependencyDescriptor {
    /// The packet is the first of its frame.
    pub start_of_frame: bool,
    /// The packet is the last of its frame.
    pub end_of_frame: bool,
    /// The template that the frame follows, as on the wire.
    pub template_id: u8,
    /// Number of the frame, wrapping.
    pub frame_number: u16,
    /// The packet brings the templates along: it belongs to a key frame.
    pub structure_attached: bool,
    /// Decode targets that the sender makes, one bit each, where the packet says so.
    pub active_targets: Option<u32>,
    /// The frame's layer; `None` while its template is unknown.
    pub layer: Option<FrameLayer>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Template {
    spatial: u8,
    temporal: u8,
    /// Two bits for each decode target, the first in the lowest.
    indications: u64,
}

/// The templates of a stream's current coded sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateStructure {
    offset: u8,
    templates: [Template; TEMPLATES_MAX],
    templates_len: usize,
    /// Highest spatial and temporal layer of each decode target.
    targets: [(u8, u8); TARGETS_MAX],
    targets_len: usize,
    /// Decode targets that the sender makes, one bit each: told when it changes.
    active: u32,
    spatial_layers: u8,
}

impl Default for TemplateStructure {
    fn default() -> Self {
        Self {
            offset: 0,
            templates: [Template::default(); TEMPLATES_MAX],
            templates_len: 0,
            targets: [(0, 0); TARGETS_MAX],
            targets_len: 0,
            active: 0,
            spatial_layers: 0,
        }
    }
}

impl TemplateStructure {
    /// Reads a packet's descriptor and learns the templates it attaches; `None` (and nothing
    /// learned) when it is cut short.
    pub fn read(&mut self, bytes: &[u8]) -> Option<DependencyDescriptor> {
        let mut bits = Bits::new(bytes);
        let mut descriptor = DependencyDescriptor {
            start_of_frame: bits.flag()?,
            end_of_frame: bits.flag()?,
            template_id: bits.byte(6)?,
            frame_number: u16::from_be_bytes([bits.byte(8)?, bits.byte(8)?]),
            structure_attached: false,
            active_targets: None,
            layer: None,
        };
        if bytes.len() == 3 {
            descriptor.layer = self.layer_of(descriptor.template_id, None);
            return Some(descriptor);
        }
        descriptor.structure_attached = bits.flag()?;
        let active_present = bits.flag()?;
        let custom_indications = bits.flag()?;
        // Custom frame differences and chains follow the indications and are not needed.
        bits.take(2)?;
        if descriptor.structure_attached {
            *self = Self::parse(&mut bits)?;
            descriptor.active_targets = Some(u32::MAX >> (TARGETS_MAX - self.targets_len));
        }
        if active_present {
            descriptor.active_targets = Some(bits.take(self.targets_len)?);
        }
        let custom = if custom_indications { Some(bits.pairs(self.targets_len)?) } else { None };
        self.active = descriptor.active_targets.unwrap_or(self.active);
        descriptor.layer = self.layer_of(descriptor.template_id, custom);
        Some(descriptor)
    }

    /// Spatial layers of the structure; 0 while none was attached.
    #[must_use]
    pub fn spatial_layers(&self) -> u8 {
        self.spatial_layers
    }

    /// Highest spatial and temporal layer of each decode target.
    #[must_use]
    pub fn targets(&self) -> &[(u8, u8)] {
        self.targets.get(..self.targets_len).unwrap_or_default()
    }

    fn layer_of(&self, template_id: u8, custom: Option<u64>) -> Option<FrameLayer> {
        let index = usize::from(template_id.wrapping_sub(self.offset) & 0x3f);
        let template = self.templates.get(..self.templates_len)?.get(index)?;
        let indications = custom.unwrap_or(template.indications);
        let layer = (template.spatial, template.temporal);
        let mut switch = false;
        let mut targets = Targets::default();
        for (index, (spatial, temporal)) in self.targets().iter().enumerate() {
            let indication = (indications >> (2 * index)) & 0x03;
            let switches = indication == INDICATION_SWITCH;
            switch |= switches && (*spatial, *temporal) == layer;
            let bit = Targets::bit(*spatial, *temporal);
            targets.present |= if indication == 0 { 0 } else { bit };
            targets.switch |= if switches { bit } else { 0 };
            targets.active |= if self.active >> index & 1 == 0 { 0 } else { bit };
        }
        Some(FrameLayer { spatial: template.spatial, temporal: template.temporal, switch, targets })
    }

    fn parse(bits: &mut Bits<'_>) -> Option<Self> {
        let mut structure = Self { offset: bits.byte(6)?, ..Self::default() };
        structure.targets_len = usize::from(bits.byte(5)?) + 1;
        structure.parse_layers(bits)?;
        let targets_len = structure.targets_len;
        for template in structure.templates.iter_mut().take(structure.templates_len) {
            template.indications = bits.pairs(targets_len)?;
        }
        for _ in 0..structure.templates_len {
            while bits.flag()? {
                bits.take(4)?;
            }
        }
        structure.skip_chains(bits)?;
        structure.derive_targets();
        if bits.flag()? {
            for _ in 0..structure.spatial_layers {
                bits.take(32)?;
            }
        }
        Some(structure)
    }

    fn parse_layers(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let (mut spatial, mut temporal) = (0_u8, 0_u8);
        loop {
            // A 65th template is refused here.
            let slot = self.templates.get_mut(self.templates_len)?;
            *slot = Template { spatial, temporal, indications: 0 };
            self.templates_len += 1;
            match bits.take(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => break,
            }
            // Layer ids have 3 bits (spatial: 2) in AV1.
            if temporal > 7 || spatial > 7 {
                return None;
            }
        }
        self.spatial_layers = spatial + 1;
        Some(())
    }

    fn skip_chains(&self, bits: &mut Bits<'_>) -> Option<()> {
        let chains = bits.non_symmetric(self.targets_len + 1)?;
        if chains == 0 {
            return Some(());
        }
        for _ in 0..self.targets_len {
            bits.non_symmetric(chains)?;
        }
        for _ in 0..self.templates_len * chains {
            bits.take(4)?;
        }
        Some(())
    }

    /// A decode target's layer is the highest among the templates that are present in it.
    fn derive_targets(&mut self) {
        let templates = self.templates.iter().take(self.templates_len);
        for template in templates {
            for (index, target) in self.targets.iter_mut().take(self.targets_len).enumerate() {
                if (template.indications >> (2 * index)) & 0x03 != 0 {
                    target.0 = target.0.max(template.spatial);
                    target.1 = target.1.max(template.temporal);
                }
            }
        }
    }
}

/// Reads bits, highest first; `None` at the end.
#[derive(Debug)]
struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    fn flag(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.position / 8)?;
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        Some(bit == 1)
    }

    /// At most 32 bits.
    fn take(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    /// At most 8 bits.
    fn byte(&mut self, count: usize) -> Option<u8> {
        self.take(count)?.try_into().ok()
    }

    /// `count` pairs of bits, the first pair in the lowest bits.
    fn pairs(&mut self, count: usize) -> Option<u64> {
        let mut value = 0;
        for index in 0..count {
            value |= u64::from(self.take(2)?) << (2 * index);
        }
        Some(value)
    }

    /// A value below `bound` in the non-symmetric code `ns(n)` of the AV1 specification, §4.10.7.
    fn non_symmetric(&mut self, bound: usize) -> Option<usize> {
        let width = usize::try_from(usize::BITS - bound.leading_zeros()).ok()?;
        let short_codes = (1 << width) - bound;
        let value = usize::try_from(self.take(width.checked_sub(1)?)?).ok()?;
        if value < short_codes {
            return Some(value);
        }
        Some((value << 1) + usize::from(self.flag()?) - short_codes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes bits, highest first.
    #[derive(Default)]
    struct Writer(Vec<bool>);

    impl Writer {
        fn put(mut self, value: u32, count: usize) -> Self {
            self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
            self
        }

        fn bytes(&self) -> Vec<u8> {
            let pack = |bits: &[bool]| {
                bits.iter()
                    .enumerate()
                    .fold(0_u8, |byte, (at, bit)| byte | u8::from(*bit) << (7 - at))
            };
            self.0.chunks(8).map(pack).collect()
        }
    }

    /// L1T2 with two decode targets: template 0 is the key frame, 1 the base, 2 the upper layer.
    fn key_frame(offset: u32) -> Vec<u8> {
        Writer::default()
            .put(0b11, 2)
            .put(offset, 6)
            .put(100, 16)
            .put(0b10000, 5)
            .put(offset, 6)
            .put(1, 5)
            // Layers: base, base again, next temporal, end.
            .put(0, 2)
            .put(1, 2)
            .put(3, 2)
            // Indications: switch to both; switch and required; not present and switch.
            .put(0b1010, 4)
            .put(0b1011, 4)
            .put(0b0010, 4)
            // Frame differences: none; 2; 1 (a flag, the difference less one, a flag).
            .put(0, 1)
            .put(0b10_0010, 6)
            .put(0b10_0000, 6)
            // One chain, ns(3): 1 is "10"; both targets in it, ns(1): no bits.
            .put(0b10, 2)
            .put(0, 4)
            .put(2, 4)
            .put(1, 4)
            // One resolution.
            .put(1, 1)
            .put(639, 16)
            .put(359, 16)
            .bytes()
    }

    #[test]
    fn an_attached_structure_is_learned_and_names_the_layers_of_later_frames() {
        let mut structure = TemplateStructure::default();
        let bytes = key_frame(62);
        let key = structure.read(&bytes).expect("complete");
        assert!(key.structure_attached && key.start_of_frame && key.end_of_frame);
        assert_eq!((key.frame_number, key.template_id), (100, 62));
        assert_eq!(key.active_targets, Some(0b11));
        assert_eq!(structure.targets(), [(0, 0), (0, 1)]);
        assert_eq!(structure.spatial_layers(), 1);
        // Template ids wrap at 64: 62, 63, 0.
        let base = Targets { present: 0b11, switch: 0b11, active: 0b11 };
        let upper = Targets { present: 0b10, switch: 0b10, active: 0b11 };
        for (id, layer) in [
            (62, Some(FrameLayer { spatial: 0, temporal: 0, switch: true, targets: base })),
            (0, Some(FrameLayer { spatial: 0, temporal: 1, switch: true, targets: upper })),
            (1, None),
        ] {
            let later = structure.read(&[id, 0, 101]).expect("complete");
            assert_eq!((later.layer, later.structure_attached), (layer, false), "{id}");
        }
    }

    #[test]
    fn custom_indications_override_the_template() {
        let mut structure = TemplateStructure::default();
        structure.read(&key_frame(0)).expect("complete");
        let custom = Writer::default()
            .put(0b10, 2)
            .put(2, 6)
            .put(101, 16)
            .put(0b01100, 5)
            // Active targets, then indications: not present, required.
            .put(0b01, 2)
            .put(0b0011, 4)
            .bytes();
        let frame = structure.read(&custom).expect("complete");
        assert_eq!(frame.active_targets, Some(0b01));
        let targets = Targets { present: 0b10, switch: 0, active: 0b01 };
        let layer = FrameLayer { spatial: 0, temporal: 1, switch: false, targets };
        assert_eq!(frame.layer, Some(layer));
        // What is active stays so until told otherwise.
        let next = structure.read(&[0xc0, 0, 102]).expect("complete");
        assert_eq!(next.layer.map(|layer| layer.targets.active), Some(0b01));
    }

    #[test]
    fn a_structure_cut_anywhere_teaches_nothing() {
        let bytes = key_frame(0);
        for len in (0..bytes.len()).filter(|len| *len != 3) {
            let mut structure = TemplateStructure::default();
            assert_eq!(structure.read(&bytes[..len]), None, "{len}");
            assert_eq!(structure, TemplateStructure::default(), "{len}");
        }
    }

    #[test]
    fn non_symmetric_codes_follow_the_specification() {
        // ns(5): 00 01 10 110 111.
        for (code, len, value) in
            [(0b00, 2, 0), (0b01, 2, 1), (0b10, 2, 2), (0b110, 3, 3), (0b111, 3, 4)]
        {
            let bytes = Writer::default().put(code, len).bytes();
            assert_eq!(Bits::new(&bytes).non_symmetric(5), Some(value), "{code:b}");
        }
        assert_eq!(Bits::new(&[]).non_symmetric(1), Some(0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_also_after_a_structure(
            packets in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..255), 1..8),
        ) {
            let mut structure = TemplateStructure::default();
            for packet in packets {
                let _ = structure.read(&packet);
                // The same with the structure flag forced.
                let mut attached = packet;
                if let Some(flags) = attached.get_mut(3) {
                    *flags |= 0x80;
                    let _ = structure.read(&attached);
                }
                prop_assert!(structure.targets().len() <= TARGETS_MAX);
                prop_assert!(structure.spatial_layers() <= 8);
            }
        }
    }
}
