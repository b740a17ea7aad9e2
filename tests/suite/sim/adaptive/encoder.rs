//! Encoders as browsers have them: bit rates, frame rates, sizes of key frames, layers. What a packet
//! is stands at the end of its payload, where no forwarder changes it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::media::Encode;
use super::descriptor::Structure;

/// Payload of a packet at most, as Chromium sends.
const PAYLOAD_MAX: usize = 1_160;
/// A key frame holds what the rate carries in so many ms: libvpx allows up to 300.
const KEY_FRAME_MS: usize = 230;
/// After a key frame frames are smaller by so many percent, until what it took is back.
const THRIFT_PERCENT: usize = 30;
const MARK_BYTES: usize = 16;
const MAGIC: u16 = 0x51ab;

/// One packet's place in what the encoder made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Which RTP stream of the publisher, lowest first.
    pub(crate) encoding: u8,
    pub(crate) picture: u32,
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    /// This packet's place among those of the frame (a picture's part of one spatial layer).
    pub(crate) index: u8,
    pub(crate) count: u8,
    /// Refers to nothing before.
    pub(crate) key: bool,
    /// Refers to the same spatial layer of so many pictures before; 0 = to none.
    pub(crate) back: u8,
    /// Refers to the spatial layer below.
    pub(crate) inter_layer: bool,
}

impl Mark {
    fn write(self) -> [u8; MARK_BYTES] {
        let [a, b, c, d] = self.picture.to_be_bytes();
        let [high, low] = MAGIC.to_be_bytes();
        let flags = u8::from(self.key) | u8::from(self.inter_layer) << 1;
        let (s, t) = (self.spatial, self.temporal);
        [
            self.encoding,
            a,
            b,
            c,
            d,
            s,
            t,
            self.index,
            self.count,
            flags,
            self.back,
            0,
            0,
            0,
            high,
            low,
        ]
    }

    /// Of a payload; `None` when it is not one of ours.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; MARK_BYTES] = payload.last_chunk()?;
        let [encoding, a, b, c, d, spatial, temporal, index, count, flags, back, .., high, low] =
            *bytes;
        (u16::from_be_bytes([high, low]) == MAGIC).then_some(Self {
            encoding,
            picture: u32::from_be_bytes([a, b, c, d]),
            spatial,
            temporal,
            index,
            count,
            key: flags & 1 != 0,
            back,
            inter_layer: flags & 2 != 0,
        })
    }
}

/// What the payloads look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// With picture ids and, with temporal layers, TL0PICIDX and TID.
    Vp8,
    /// In non-flexible mode; with spatial layers that refer to each other always, or (`_KEY`) in key
    /// pictures only.
    Vp9 { key_only: bool },
    /// With dependency descriptors; `key_only` as for VP9.
    Av1 { key_only: bool },
}

impl Format {
    /// Spatial layers refer to each other in key pictures only.
    pub(crate) fn is_key_only(self) -> bool {
        matches!(self, Self::Vp9 { key_only: true } | Self::Av1 { key_only: true })
    }
}

/// What an encoder is told to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoding {
    /// Of each spatial layer, lowest first.
    pub(crate) bps: &'static [u32],
    pub(crate) fps: u32,
    /// Temporal layers, 1–3.
    pub(crate) temporal: u8,
    pub(crate) format: Format,
}

/// Temporal layer, how many pictures back it refers, and its size in percent of the mean.
pub(crate) type Step = (u8, u8, u32);

impl Encoding {
    /// The pattern that repeats, as libwebrtc allots it (shares of the rate: 0.6 and 0.4, or 0.4, 0.2
    /// and 0.4).
    pub(crate) fn pattern(&self) -> &'static [Step] {
        match self.temporal {
            1 => &[(0, 1, 100)],
            2 => &[(0, 2, 120), (1, 1, 80)],
            _ => &[(0, 4, 160), (2, 1, 80), (1, 2, 80), (2, 1, 80)],
        }
    }

    /// Bits/s of payload of the layers up to these.
    pub(crate) fn rate_up_to(&self, spatial: usize, temporal: u8) -> u64 {
        let pattern = self.pattern();
        let percent =
            pattern.iter().filter(|step| step.0 <= temporal).map(|step| u64::from(step.2));
        let bps: u32 = self.bps.iter().take(spatial + 1).sum();
        u64::from(bps) * percent.sum::<u64>() / (100 * pattern.len() as u64)
    }
}

/// One encoding's encoder.
#[derive(Debug)]
pub(crate) struct Encoder {
    encoding: Encoding,
    number: u8,
    rng: StdRng,
    picture: u32,
    /// Place in the pattern.
    step: usize,
    /// TL0PICIDX.
    base: u8,
    /// Bytes that the last key frames took too much, of each spatial layer.
    debts: Vec<usize>,
    /// Pictures since the last key picture.
    since_key: usize,
    /// What its dependency descriptors say, if it has some.
    structure: Option<Structure>,
    /// Of the packets of the last picture.
    descriptors: Vec<Vec<u8>>,
}

impl Encoder {
    /// The publisher's encoding of that number, lowest first.
    pub(crate) fn new(encoding: Encoding, number: u8, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed * 16 + u64::from(number));
        let debts = vec![0; encoding.bps.len()];
        let described = matches!(encoding.format, Format::Av1 { .. });
        Self {
            encoding,
            number,
            rng,
            picture: 0,
            step: 0,
            base: 0,
            debts,
            since_key: 0,
            structure: described.then(|| Structure::new(encoding)),
            descriptors: Vec::new(),
        }
    }

    fn frame_bytes(&mut self, spatial: usize, key: bool, percent: u32) -> usize {
        let second = self.encoding.bps[spatial] / 8;
        let mean = second / self.encoding.fps * percent / 100;
        let noise = self.rng.random_range(80..=120);
        let noisy = |bytes: u32| usize::try_from(bytes * noise / 100).unwrap();
        let debt = &mut self.debts[spatial];
        let usual = noisy(mean);
        let bytes = if key {
            (noisy(second) * KEY_FRAME_MS / 1_000).max(usual)
        } else if *debt > 0 {
            usual * (100 - THRIFT_PERCENT) / 100
        } else {
            usual
        };
        *debt = (*debt + bytes).saturating_sub(usual);
        bytes.max(40)
    }

    /// The codec's descriptor (and for VP8 the byte behind it that tells key frames).
    fn head(&self, mark: &Mark, last_layer: bool) -> Vec<u8> {
        let [.., high, low] = self.picture.to_be_bytes();
        let picture_id = [high | 0x80, low];
        let (first, last) = (mark.index == 0, mark.index + 1 == mark.count);
        // In each of the patterns only the last frame refers to a layer that is not the base one.
        let sync = !(mark.temporal == 2 && self.step == 3);
        match self.encoding.format {
            Format::Vp8 => {
                let start = 0x80 | u8::from(first) << 4;
                let frame = 0x10 | u8::from(!(mark.key && first));
                if self.encoding.temporal == 1 {
                    return vec![start, 0x80, picture_id[0], picture_id[1], frame];
                }
                let layer = mark.temporal << 6 | u8::from(sync && mark.temporal > 0) << 5;
                vec![start, 0xe0, picture_id[0], picture_id[1], self.base, layer, frame]
            }
            // One element in each packet, a part of the frame.
            Format::Av1 { .. } => {
                let continues = u8::from(!first) << 7 | u8::from(!last) << 6;
                vec![continues | 0x10 | u8::from(mark.key && first) << 3, 0x32]
            }
            Format::Vp9 { key_only } => {
                let key_picture = mark.back == 0;
                let unused = last_layer || (key_only && !key_picture);
                let structure = key_picture && first && mark.spatial == 0;
                let flags = 0xa0
                    | u8::from(!key_picture) << 6
                    | u8::from(first) << 3
                    | u8::from(last) << 2
                    | u8::from(structure) << 1
                    | u8::from(unused);
                let layer =
                    mark.temporal << 5 | 1 << 4 | mark.spatial << 1 | u8::from(mark.inter_layer);
                let mut head = vec![flags, picture_id[0], picture_id[1], layer, self.base];
                if structure {
                    let layers = u8::try_from(self.encoding.bps.len()).unwrap();
                    head.push((layers - 1) << 5);
                }
                head
            }
        }
    }
}

impl Encode for Encoder {
    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.encoding.fps
    }

    fn picture(&mut self, key: bool) -> Vec<Vec<u8>> {
        self.step = if key { 0 } else { self.step };
        self.since_key = if key { 0 } else { self.since_key };
        self.descriptors.clear();
        let (temporal, back, percent) = self.encoding.pattern()[self.step];
        self.base = self.base.wrapping_add(u8::from(temporal == 0));
        let mut payloads = Vec::new();
        let layers = self.encoding.bps.len();
        for spatial in 0..layers {
            let bytes = self.frame_bytes(spatial, key, percent);
            let count = bytes.div_ceil(PAYLOAD_MAX);
            let always = !self.encoding.format.is_key_only();
            let mut mark = Mark {
                encoding: self.number,
                picture: self.picture,
                spatial: u8::try_from(spatial).unwrap(),
                temporal,
                index: 0,
                count: u8::try_from(count).unwrap(),
                key: key && spatial == 0,
                back: if key { 0 } else { back },
                inter_layer: spatial > 0 && (key || always),
            };
            for index in 0..count {
                mark.index = u8::try_from(index).unwrap();
                let mut payload = self.head(&mark, spatial + 1 == layers);
                payload.resize((bytes / count).max(payload.len() + MARK_BYTES) - MARK_BYTES, 0);
                payload.extend(mark.write());
                payloads.push(payload);
                if let Some(structure) = &mut self.structure {
                    self.descriptors.push(structure.describe(&mark, self.since_key));
                }
            }
        }
        self.picture += 1;
        self.since_key += 1;
        self.step = (self.step + 1) % self.encoding.pattern().len();
        payloads
    }

    fn take_descriptors(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.descriptors)
    }
}
