//! What a receiver shows: packets become frames, frames are decoded when what they refer to was.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::encoder::Mark;

/// Frames that a decoder may still refer to.
const DECODED_KEPT: usize = 64;

/// A picture that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) at: Instant,
    /// Of the encoding and, within it, of the highest spatial layer shown.
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
}

/// A picture whose packets are arriving: all packets of one timestamp.
#[derive(Debug, Default)]
struct Partial {
    /// The lowest number at which a frame begins, and whether nothing of the picture can precede it.
    first: Option<(u64, bool)>,
    last: Option<u64>,
    packets: u64,
    /// One of each frame: its first packet's.
    frames: Vec<Mark>,
}

impl Partial {
    /// All of it came. Lower spatial layers may have been left out (`_KEY`): that one frame is the
    /// first is certain when all packets before it are known.
    fn is_whole(&self, missing: u64) -> bool {
        let (Some((first, is_certain)), Some(last)) = (self.first, self.last) else {
            return false;
        };
        (is_certain || first <= missing) && last + 1 == first + self.packets
    }
}

/// Where a frame is in what the publisher made: encoding, picture, spatial layer.
type Place = (u8, u32, u8);

#[derive(Debug, Default)]
pub(crate) struct Screen {
    partial: BTreeMap<u32, Partial>,
    /// Whole pictures that were not shown yet, by the number of their first packet.
    whole: BTreeMap<u64, (u64, Vec<Mark>)>,
    decoded: VecDeque<Place>,
    /// The number of the last packet of the picture shown last.
    shown_to: Option<u64>,
    pub(crate) shown: Vec<Shown>,
    /// Pictures whose packets all came and that could not be decoded, for want of what they refer to.
    pub(crate) broken: u64,
}

impl Screen {
    /// A packet that did not come before: number, timestamp, marker. Below `missing` all packets
    /// came (or will never come).
    pub(crate) fn handle_packet(
        &mut self,
        now: Instant,
        (number, timestamp, marker): (u64, u32, bool),
        mark: Mark,
        missing: u64,
    ) {
        if self.shown_to.is_some_and(|shown| number <= shown) {
            return;
        }
        let partial = self.partial.entry(timestamp).or_default();
        partial.packets += 1;
        if mark.index == 0 {
            partial.frames.push(mark);
            if partial.first.is_none_or(|(first, _)| number < first) {
                partial.first = Some((number, mark.spatial == 0));
            }
        }
        if marker {
            partial.last = Some(number);
        }
        let whole = self.partial.extract_if(.., |_, partial| partial.is_whole(missing));
        for (_, partial) in whole {
            if let (Some((first, _)), Some(last)) = (partial.first, partial.last) {
                self.whole.insert(first, (last, partial.frames));
            }
        }
        self.decode(now, missing);
    }

    /// Shows what can be shown.
    fn decode(&mut self, now: Instant, missing: u64) {
        while let Some(first) = self.next_decodable(missing) {
            self.show(now, first);
        }
    }

    /// The first picture that can be decoded; on the way there, those that never can are let go.
    fn next_decodable(&mut self, missing: u64) -> Option<u64> {
        let decodable = self.whole.iter().find(|(_, (_, frames))| self.is_decodable(frames));
        let decodable = decodable.map(|(first, _)| *first);
        let end = decodable.unwrap_or(u64::MAX).min(missing);
        while let Some((first, _)) = self.whole.first_key_value().filter(|(at, _)| **at < end) {
            let first = *first;
            self.whole.remove(&first);
            self.broken += 1;
        }
        decodable
    }

    fn is_decodable(&self, frames: &[Mark]) -> bool {
        let is_there = |place: Place, within: &[Mark]| {
            let same = |mark: &Mark| (mark.encoding, mark.picture, mark.spatial) == place;
            self.decoded.contains(&place) || within.iter().any(same)
        };
        !frames.is_empty()
            && frames.iter().all(|mark| {
                let (encoding, picture, spatial) = (mark.encoding, mark.picture, mark.spatial);
                let before = picture.wrapping_sub(mark.back.into());
                (mark.back == 0 || is_there((encoding, before, spatial), &[]))
                    && (!mark.inter_layer
                        || is_there((encoding, picture, spatial.wrapping_sub(1)), frames))
            })
    }

    fn show(&mut self, now: Instant, first: u64) {
        let Some((last, frames)) = self.whole.remove(&first) else { return };
        for mark in &frames {
            if self.decoded.len() == DECODED_KEPT {
                self.decoded.pop_front();
            }
            self.decoded.push_back((mark.encoding, mark.picture, mark.spatial));
        }
        let top = frames.iter().max_by_key(|mark| mark.spatial).expect("is decodable");
        let spatial = top.encoding + top.spatial;
        self.shown.push(Shown { at: now, spatial, temporal: top.temporal });
        self.shown_to = Some(last);
        // Whatever comes late is not shown any more.
        self.whole = self.whole.split_off(&last);
        self.partial.retain(|_, partial| partial.last.is_none_or(|end| end > last));
    }
}
