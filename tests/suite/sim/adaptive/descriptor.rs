//! Dependency descriptors (RTP Payload Format for AV1 v1.0, appendix A) of an encoder's pictures, with
//! templates, indications, differences and chains as libwebrtc's structures have them.

use super::encoder::{Encoding, Mark};

/// How a frame relates to a decode target.
const NOT_PRESENT: u32 = 0;
const DISCARDABLE: u32 = 1;
const SWITCH: u32 = 2;
const REQUIRED: u32 = 3;

/// Frames of one kind: so many pictures after a key picture, of one spatial layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// 0 is the key picture, then the pattern from its second picture to its first.
    place: usize,
    spatial: usize,
    temporal: u8,
}

/// What an encoder's descriptors say.
#[derive(Debug)]
pub(crate) struct Structure {
    encoding: Encoding,
    /// In the order of their templates.
    kinds: Vec<Kind>,
    /// The first template's id: another one with each key frame.
    offset: usize,
}

/// Bits, highest first.
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn put(&mut self, value: u32, count: usize) {
        self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    }

    /// A value below `bound` in the non-symmetric code ns(n).
    fn put_below(&mut self, value: u32, bound: u32) {
        let width = bound.ilog2() + 1;
        let short = (1 << width) - bound;
        let (value, width) =
            if value < short { (value, width - 1) } else { (value + short, width) };
        self.put(value, width as usize);
    }

    fn into_bytes(self) -> Vec<u8> {
        let byte = |bits: &[bool]| {
            let places = bits.iter().zip((0..8).rev());
            places.fold(0, |byte, (bit, place)| byte | u8::from(*bit) << place)
        };
        self.0.chunks(8).map(byte).collect()
    }
}

impl Structure {
    pub(crate) fn new(encoding: Encoding) -> Self {
        let pattern = encoding.pattern();
        let places = 0..=pattern.len();
        let mut kinds: Vec<Kind> = places
            .flat_map(|place| (0..encoding.bps.len()).map(move |spatial| (place, spatial)))
            .map(|(place, spatial)| Kind {
                place,
                spatial,
                temporal: pattern[place % pattern.len()].0,
            })
            .collect();
        kinds.sort_by_key(|kind| (kind.spatial, kind.temporal, kind.place));
        Self { encoding, kinds, offset: 0 }
    }

    /// Of a packet of the picture that comes so many behind its key picture.
    pub(crate) fn describe(&mut self, mark: &Mark, since_key: usize) -> Vec<u8> {
        let layers = self.encoding.bps.len();
        let period = self.encoding.pattern().len();
        let place = if since_key == 0 { 0 } else { (since_key - 1) % period + 1 };
        let spatial = usize::from(mark.spatial);
        let is_kind = |kind: &Kind| (kind.place, kind.spatial) == (place, spatial);
        let template = self.kinds.iter().position(is_kind).expect("a kind of frame");
        let begins = mark.key && mark.index == 0;
        if begins {
            self.offset += self.kinds.len();
        }
        let mut bits = Bits::default();
        bits.put(u32::from(mark.index == 0), 1);
        bits.put(u32::from(mark.index + 1 == mark.count), 1);
        bits.put(u32::try_from((self.offset + template) % 64).unwrap(), 6);
        let number = mark.picture as usize * layers + spatial;
        bits.put(u32::try_from(number & 0xffff).unwrap(), 16);
        if begins {
            // The structure is attached, nothing is custom.
            bits.put(0b10000, 5);
            self.write_structure(&mut bits);
        }
        bits.into_bytes()
    }

    fn targets(&self) -> impl Iterator<Item = (usize, u8)> {
        let temporals = self.encoding.temporal;
        (0..self.encoding.bps.len()).flat_map(move |s| (0..temporals).map(move |t| (s, t)))
    }

    fn write_structure(&self, bits: &mut Bits) {
        let count = u32::try_from(self.targets().count()).unwrap();
        bits.put(u32::try_from(self.offset % 64).unwrap(), 6);
        bits.put(count - 1, 5);
        for pair in self.kinds.windows(2) {
            let next =
                match (pair[1].spatial > pair[0].spatial, pair[1].temporal > pair[0].temporal) {
                    (true, _) => 2,
                    (false, true) => 1,
                    (false, false) => 0,
                };
            bits.put(next, 2);
        }
        bits.put(3, 2);
        for kind in &self.kinds {
            for target in self.targets() {
                bits.put(self.indication(kind, target), 2);
            }
        }
        for kind in &self.kinds {
            for difference in self.differences(kind) {
                bits.put(1, 1);
                bits.put(u32::try_from(difference - 1).unwrap(), 4);
            }
            bits.put(0, 1);
        }
        let chains = self.encoding.bps.len();
        let chain_count = u32::try_from(chains).unwrap();
        bits.put_below(chain_count, count + 1);
        for (spatial, _) in self.targets() {
            bits.put_below(u32::try_from(spatial).unwrap(), chain_count);
        }
        for kind in &self.kinds {
            for chain in 0..chains {
                bits.put(u32::try_from(self.chain_difference(kind, chain)).unwrap(), 4);
            }
        }
        // Resolutions, each twice the one below.
        bits.put(1, 1);
        for spatial in 0..chains {
            bits.put((160 << spatial) - 1, 16);
            bits.put((90 << spatial) - 1, 16);
        }
    }

    fn is_linked(&self, kind: &Kind) -> bool {
        kind.place == 0 || !self.encoding.format.is_key_only()
    }

    fn indication(&self, kind: &Kind, (spatial, temporal): (usize, u8)) -> u32 {
        let is_above = spatial > kind.spatial && self.is_linked(kind);
        if temporal < kind.temporal || !(spatial == kind.spatial || is_above) {
            NOT_PRESENT
        } else if is_above {
            if kind.place == 0 { SWITCH } else { REQUIRED }
        } else if temporal > kind.temporal || temporal == 0 {
            SWITCH
        } else {
            DISCARDABLE
        }
    }

    /// Frames before it to which it refers, as distances.
    fn differences(&self, kind: &Kind) -> Vec<usize> {
        let pattern = self.encoding.pattern();
        let below = (kind.spatial > 0 && self.is_linked(kind)).then_some(1);
        let before = (kind.place > 0)
            .then(|| usize::from(pattern[kind.place % pattern.len()].1) * self.encoding.bps.len());
        below.into_iter().chain(before).collect()
    }

    /// The distance to the last frame of a chain: frames of the lowest temporal layer without which
    /// that spatial layer cannot be decoded. 0 where a chain begins.
    fn chain_difference(&self, kind: &Kind, chain: usize) -> usize {
        let layers = self.encoding.bps.len();
        let links = |spatial: usize| {
            if self.is_linked(kind) { spatial <= chain } else { spatial == chain }
        };
        if kind.temporal == 0
            && let Some(within) = (0..kind.spatial).rev().find(|spatial| links(*spatial))
        {
            return kind.spatial - within;
        }
        if kind.place == 0 { 0 } else { kind.place * layers + kind.spatial - chain }
    }
}
