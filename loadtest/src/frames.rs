//! How large a frame is and how it is cut into packets: a pure function of its number.
//!
//! Two profiles. *Fixed*: each frame is the same number of equal packets, which any forwarder likes
//! best. *Varied*: what libwebrtc makes of an encoder's output: a frame is 20 % larger or smaller
//! than the mean, a key frame four times as large, and a frame of F bytes becomes ⌈F / max⌉ packets
//! whose sizes differ by one byte at most, the larger ones last (its `SplitAboutEqually`).

use crate::rng::Rng;
use crate::rtp::HEADER_BYTES;

/// Varied frames are within this of their mean, percent.
const SPREAD_PERCENT: u64 = 20;

/// A varied key frame is this many times as large as the others.
const KEY_FRAME_TIMES: u64 = 4;

/// The frames of one encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frames {
    /// All alike.
    Fixed {
        /// Packets of a frame; not zero.
        packets: usize,
        /// Bytes of each, without SRTP's tag.
        packet_bytes: usize,
    },
    /// As an encoder and libwebrtc's packetizer make them.
    Varied {
        /// Whose numbers vary them.
        seed: u64,
        /// Payload bytes of a frame that is no key frame, on average.
        mean_bytes: u64,
        /// Bytes of a packet at most, without SRTP's tag.
        packet_bytes_max: usize,
    },
}

impl Frames {
    /// The packets of a frame: RTP bytes of each, without SRTP's tag, into `sizes`.
    pub(crate) fn split(&self, frame: u64, key_frame: bool, sizes: &mut Vec<usize>) {
        sizes.clear();
        match self {
            Self::Fixed { packets, packet_bytes } => sizes.resize(*packets, *packet_bytes),
            Self::Varied { seed, mean_bytes, packet_bytes_max } => {
                let bytes = varied(*seed, *mean_bytes, frame, key_frame);
                let payload_max = packet_bytes_max.saturating_sub(HEADER_BYTES).max(1);
                about_equally(usize::try_from(bytes).unwrap_or(payload_max), payload_max, sizes);
                sizes.iter_mut().for_each(|size| *size += HEADER_BYTES);
            }
        }
    }

    /// Packets of a frame on average, rounded up; key frames left out.
    pub(crate) fn packets_mean(&self) -> u64 {
        match self {
            Self::Fixed { packets, .. } => u64::try_from(*packets).unwrap_or(1),
            Self::Varied { mean_bytes, packet_bytes_max, .. } => {
                let payload = packet_bytes_max.saturating_sub(HEADER_BYTES).max(1);
                mean_bytes.div_ceil(u64::try_from(payload).unwrap_or(1))
            }
        }
    }
}

/// Bytes of a varied frame.
fn varied(seed: u64, mean_bytes: u64, frame: u64, key_frame: bool) -> u64 {
    let mut rng = Rng::new(seed ^ frame.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let percent = 100 - SPREAD_PERCENT + rng.below(2 * SPREAD_PERCENT + 1);
    let times = if key_frame { KEY_FRAME_TIMES } else { 1 };
    mean_bytes.saturating_mul(percent).saturating_mul(times) / 100
}

/// Cuts `total` into as few parts of at most `most` as there must be, alike to a byte.
fn about_equally(total: usize, most: usize, parts: &mut Vec<usize>) {
    let count = total.div_ceil(most).max(1);
    let (small, larger) = (total / count, total % count);
    parts.extend((0..count).map(|place| small + usize::from(place >= count - larger)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(frames: &Frames, frame: u64, key_frame: bool) -> Vec<usize> {
        let mut sizes = vec![1, 2, 3];
        frames.split(frame, key_frame, &mut sizes);
        sizes
    }

    #[test]
    fn a_frame_is_cut_as_libwebrtc_cuts_it() {
        let cases: [(usize, usize, &[usize]); 6] = [
            (1, 1_000, &[1]),
            (1_000, 1_000, &[1_000]),
            (1_001, 1_000, &[500, 501]),
            (3_000, 1_000, &[1_000; 3]),
            (3_500, 1_000, &[875; 4]),
            (3_503, 1_000, &[875, 876, 876, 876]),
        ];
        for (total, most, expected) in cases {
            let mut parts = Vec::new();
            about_equally(total, most, &mut parts);
            assert_eq!(parts, expected, "{total} by {most}");
        }
    }

    #[test]
    fn fixed_frames_are_all_alike() {
        let frames = Frames::Fixed { packets: 3, packet_bytes: 900 };
        assert_eq!(split(&frames, 0, true), [900; 3]);
        assert_eq!(split(&frames, 9, false), [900; 3]);
    }

    #[test]
    fn varied_frames_keep_their_mean_their_bounds_and_their_seed() {
        let frames = Frames::Varied { seed: 5, mean_bytes: 5_000, packet_bytes_max: 1_200 };
        let (mut all, mut counts) = (0, std::collections::BTreeSet::new());
        for frame in 0..10_000 {
            let sizes = split(&frames, frame, false);
            let payload: usize = sizes.iter().map(|size| size - HEADER_BYTES).sum();
            assert!((4_000..=6_000).contains(&payload));
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            assert!(sizes.iter().all(|size| *size <= 1_200));
            assert_eq!(sizes, split(&frames, frame, false));
            let key: usize = split(&frames, frame, true).iter().map(|s| s - HEADER_BYTES).sum();
            assert_eq!(key, 4 * payload);
            all += payload;
            counts.insert(sizes.len());
        }
        assert!(all.abs_diff(10_000 * 5_000) < 10_000 * 50, "{all}");
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [4, 5, 6]);
        assert_eq!(frames.packets_mean(), 5);
    }
}
