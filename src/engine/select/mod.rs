//! Which packets of the stream that a consumer plays go out for the layers it should get, and what
//! their payload descriptors and markers then say.
//!
//! Pure, sans I/O. A consumer owns a [`Selector`] and asks it for each packet, in the order in which
//! they arrived, on the shard's thread. A stream owns [`StreamLayers`], which knows what arrives.
//!
//! ```text
//!   packet of the ring ──► Selector::verdict ──► None: left out, later numbers close up
//!   LayerTarget ────────────────┘     └────────► Edit: goes out, with these numbers and marker
//! ```
//!
//! * **Temporal layers** (VP8, VP9, H.264 and AV1 with a dependency descriptor): down with the next
//!   picture, up at a picture that is said to be a switching point, at once with a key frame.
//! * **Spatial layers inside a stream**: VP9 goes down with the next picture if the lower layer was
//!   sent all the time (full SVC), otherwise (`_KEY`, and always up) with a key frame, for which the
//!   selector wishes; a layer whose first frame refers to the layer below only is taken at once. AV1
//!   goes where the descriptor indicates a switch from what is being sent. While the way down is
//!   waited for, only the lowest temporal layer goes out.
//! * **Without either** (AV1 and H.264 without a descriptor) a stream is one layer.
//!
//! What is decided holds for all packets of a frame, those that come late too: the last
//! [`PICTURES_REMEMBERED`] pictures are remembered, by timestamp.
//!
//! Invariants, as far as no packet was lost on its way to us: what goes out refers only to what went
//! out; VP8 picture ids have no hole, VP9's keep their distances, both go on over a change of the
//! stream; a picture's last packet has the marker. A stream of which everything goes out costs a few
//! comparisons; nothing is allocated until something is left out, then once.
//!
//! Not here: which layers a consumer should get (`allocation`), sequence numbers and timestamps
//! (`rewrite`), and going over to another stream of simulcast (`router`, `egress`).

mod arriving;
mod history;
#[cfg(test)]
mod model;

pub use self::arriving::{LayerRates, StreamLayers};
use self::history::{History, Picture};
use crate::engine::StreamKey;
use crate::engine::codec::{
    PayloadInfo, PictureNumbers, SPATIAL_LAYERS_MAX, TEMPORAL_LAYERS_MAX, Targets,
};
use crate::engine::packet::PacketMeta;
use crate::limits::{LAYER_SWITCH_PICTURES_MAX, LAYER_SYNC_PICTURES_MAX, PICTURES_REMEMBERED};

/// A pair of highest layers.
///
/// `spatial` counts the encodings of a simulcast producer, or the spatial layers inside the only
/// stream of any other; `temporal` the layers inside whichever stream is played.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct LayerTarget {
    /// Highest spatial layer, 0 is the lowest.
    pub spatial: u8,
    /// Highest temporal layer, 0 is the lowest.
    pub temporal: u8,
}

impl LayerTarget {
    /// All that there is.
    pub const HIGHEST: Self = Self { spatial: u8::MAX, temporal: u8::MAX };

    /// The lower of both, layer by layer.
    #[must_use]
    pub fn min_each(self, other: Self) -> Self {
        Self {
            spatial: self.spatial.min(other.spatial),
            temporal: self.temporal.min(other.temporal),
        }
    }

    fn bit(self) -> u16 {
        Targets::bit(self.spatial, self.temporal)
    }
}

/// How a packet that goes out differs from the one that came. The same for most packets in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Edit {
    /// Taken from picture ids.
    id_offset: u16,
    /// Taken from TL0PICIDX.
    tl0_offset: u8,
    /// The spatial layer with which pictures end for this receiver, plus one; 0 = as they came.
    ends_with: u8,
}

impl Edit {
    /// The numbers to write over those of the payload; `None` when it goes out as it came.
    #[inline]
    #[must_use]
    pub fn numbers(&self, info: &PayloadInfo) -> Option<PictureNumbers> {
        let PictureNumbers { id, tl0, id_at, tl0_at, .. } = info.picture;
        if (self.id_offset, self.tl0_offset) == (0, 0) || (id_at, tl0_at) == (0, 0) {
            return None;
        }
        let id = id.wrapping_sub(self.id_offset);
        let tl0 = tl0.wrapping_sub(self.tl0_offset);
        Some(PictureNumbers { id, tl0, ..info.picture })
    }

    /// The marker bit of the packet.
    #[inline]
    #[must_use]
    pub fn marker(&self, meta: &PacketMeta) -> bool {
        let ends = meta.info.frame_end && meta.info.spatial.checked_add(1) == Some(self.ends_with);
        meta.marker || ends
    }
}

/// The numbers of the newest picture that went out.
#[derive(Debug, Clone, Copy)]
struct Newest {
    timestamp: u32,
    id: u16,
    tl0: u8,
}

/// The selection for one consumer: of the stream it plays, since it began to.
#[derive(Debug, Default)]
pub struct Selector {
    /// Of which stream.
    stream: Option<StreamKey>,
    /// The highest layers that go out now; beyond what arrives where nothing is cut.
    current: LayerTarget,
    /// What the numbers of the newest picture differ by.
    edit: Edit,
    newest: Option<Newest>,
    /// Spatial layers of which no frame was left out since the last key frame, one bit each.
    intact: u8,
    /// Pictures since something was left out.
    whole_for: u8,
    /// Pictures for which a switch has been waited for.
    waited: u8,
    /// A key frame is needed, and whether that was said.
    wish: Wish,
    /// [`StreamLayers::silences`] at the last packet.
    silences: u8,
    history: Option<Box<History>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Wish {
    #[default]
    None,
    Untold,
    Told,
}

impl Selector {
    /// Begins a run with the key frame of `stream` to which `meta` belongs. Numbers of another stream
    /// than before, or of a sender that began anew, go on from the last ones sent; after a pause the
    /// same stream's stay what they were, with a hole that a key frame allows.
    pub fn start(&mut self, stream: StreamKey, meta: &PacketMeta) {
        let PictureNumbers { id, tl0, .. } = meta.info.picture;
        let same = self.stream.replace(stream) == Some(stream);
        if let Some(newest) = self.newest {
            let ahead = id.wrapping_sub(self.edit.id_offset).wrapping_sub(newest.id) & 0x7fff;
            if !same || !(0..0x4000).contains(&ahead) {
                self.edit.id_offset = id.wrapping_sub(newest.id).wrapping_sub(1);
                self.edit.tl0_offset = tl0.wrapping_sub(newest.tl0).wrapping_sub(1);
            }
        }
        self.current = LayerTarget::HIGHEST;
        self.intact = u8::MAX;
        self.whole_for = u8::MAX;
        self.waited = 0;
        self.wish = Wish::None;
        if let Some(newest) = &mut self.newest {
            newest.timestamp = meta.timestamp.wrapping_sub(1);
        }
    }

    /// The highest layers that go out of a stream, among those that arrive.
    #[must_use]
    pub fn layers(&self, layers: &StreamLayers) -> LayerTarget {
        let top = LayerTarget { spatial: layers.top_spatial(), temporal: layers.top_temporal() };
        self.current.min_each(top)
    }

    /// True once when what is wanted can be reached with a key frame only.
    pub fn take_key_frame_wish(&mut self) -> bool {
        let untold = self.wish == Wish::Untold;
        if untold {
            self.wish = Wish::Told;
        }
        untold
    }

    /// How a packet of the stream being played goes out for `wanted`, or `None` when it is left out.
    /// A packet may be asked for again.
    #[inline]
    pub fn verdict(
        &mut self,
        meta: &PacketMeta,
        wanted: LayerTarget,
        layers: &StreamLayers,
    ) -> Option<Edit> {
        if self.silences != layers.silences() {
            self.silences = layers.silences();
            self.resume(meta);
        }
        let everything = wanted.temporal.min(self.current.temporal) >= layers.top_temporal();
        if everything && !layers.has_spatial() && usize::from(self.whole_for) >= PICTURES_REMEMBERED
        {
            self.whole_for = u8::MAX;
            // A layer that appears above is not for this receiver.
            let ends_with = wanted.spatial.saturating_add(1);
            let edit = Edit { ends_with, ..self.edit };
            self.current.spatial = wanted.spatial;
            self.note_sent(meta, edit);
            return Some(edit);
        }
        self.choose(meta, wanted, layers)
    }

    /// Behind a silence the packet is newer than all, whatever its timestamp.
    #[cold]
    fn resume(&mut self, meta: &PacketMeta) {
        let before = meta.timestamp.wrapping_sub(1);
        if let Some(newest) = &mut self.newest {
            newest.timestamp = before;
        }
        if let Some(history) = self.history.as_mut().filter(|_| self.whole_for != u8::MAX) {
            let last = history.newest();
            let id_offset = last.offset_behind();
            history.begin(Picture { timestamp: before, id_offset, closes: false, ..last });
        }
    }

    #[inline]
    fn note_sent(&mut self, meta: &PacketMeta, edit: Edit) {
        let timestamp = meta.timestamp;
        if self.newest.is_none_or(|newest| is_after(timestamp, newest.timestamp)) {
            let PictureNumbers { id, tl0, .. } = meta.info.picture;
            let id = id.wrapping_sub(edit.id_offset);
            let tl0 = tl0.wrapping_sub(edit.tl0_offset);
            self.newest = Some(Newest { timestamp, id, tl0 });
        }
    }

    /// Packet by packet, with what is remembered of pictures.
    fn choose(
        &mut self,
        meta: &PacketMeta,
        wanted: LayerTarget,
        layers: &StreamLayers,
    ) -> Option<Edit> {
        let mut history = self.history.take().unwrap_or_default();
        if self.whole_for == u8::MAX {
            // All went out so far: what comes late from then does, too.
            let before = meta.timestamp.wrapping_sub(1);
            let timestamp = self.newest.map_or(before, |newest| newest.timestamp);
            history.begin(Picture::whole(timestamp, self.edit.id_offset, self.current));
            self.whole_for = 0;
            if !meta.info.targets.is_empty() {
                self.current.spatial = u8::MAX;
            }
        }
        let info = &meta.info;
        let known = history.find(meta.timestamp);
        let live = known.is_none() && is_after(meta.timestamp, history.newest().timestamp);
        let mut picture = match known {
            Some(picture) => picture,
            None if live => self.open(meta, wanted, layers, &history),
            None => history.late(meta.timestamp),
        };
        let newest = live || history.newest().timestamp == meta.timestamp;
        let bit = 1_u8.checked_shl(info.spatial.into()).unwrap_or(0);
        if picture.decided & bit == 0 {
            let takes = if picture.whole && !newest {
                true
            } else if info.targets.is_empty() {
                self.decide_by_layer(info, &picture, layers, newest)
            } else {
                self.decide_by_target(info, &mut picture, wanted, layers, newest)
            };
            picture.decided |= bit;
            picture.taken |= if takes { bit } else { 0 };
            // One that comes late left a hole already.
            picture.closes |= live && info.picture.dense && !takes;
            history.put(picture);
            if !takes {
                self.whole_for = 0;
            }
        }
        self.history = Some(history);
        if picture.taken & bit == 0 {
            return None;
        }
        let ends_with = picture.top.saturating_add(1);
        let edit = Edit { id_offset: picture.id_offset, ends_with, ..self.edit };
        if newest {
            self.edit.id_offset = picture.id_offset;
            self.note_sent(meta, edit);
        }
        Some(edit)
    }

    /// A picture newer than all: what goes out from it on.
    fn open(
        &mut self,
        meta: &PacketMeta,
        wanted: LayerTarget,
        layers: &StreamLayers,
        history: &History,
    ) -> Picture {
        let info = &meta.info;
        self.whole_for = self.whole_for.saturating_add(1).min(u8::MAX - 1);
        if info.targets.is_empty() {
            self.move_by_layer(info, wanted, layers);
        } else {
            self.await_target(info, wanted, layers);
        }
        Picture {
            timestamp: meta.timestamp,
            id_offset: history.newest().offset_behind(),
            temporal: self.current.temporal,
            top: self.current.spatial,
            ..Picture::default()
        }
    }

    /// VP8 and VP9: to which layers the picture that begins brings the consumer.
    fn move_by_layer(&mut self, info: &PayloadInfo, wanted: LayerTarget, layers: &StreamLayers) {
        if info.key_frame || (info.intra && info.spatial == 0) {
            self.current = wanted;
            self.intact = u8::MAX;
            self.waited = 0;
            self.wish = Wish::None;
            return;
        }
        let LayerTarget { temporal, .. } = self.current.min_each(wanted);
        let up = info.temporal_sync && info.temporal == temporal.saturating_add(1);
        let up = up && info.temporal <= wanted.temporal;
        self.current.temporal = if up { info.temporal } else { temporal };
        let lacks = self.current.temporal < wanted.temporal.min(layers.top_temporal());
        self.waited = if lacks { self.waited.saturating_add(1) } else { 0 };
        let top = layers.top_spatial();
        let within = wanted.spatial.min(top);
        let is_intact = |spatial: &u8| self.intact >> *spatial & 1 == 1;
        let below = (0..=within).rev().find(is_intact);
        let best = below.or_else(|| (within + 1..SPATIAL_LAYERS_MAX).find(is_intact));
        let reached = best == Some(within);
        self.current.spatial = if reached && wanted.spatial >= top {
            // Open upwards: a layer that appears is taken.
            wanted.spatial
        } else {
            best.unwrap_or(within)
        };
        if self.current.spatial > within && !reached {
            // Bits are to be saved before the key frame of the lower layer is there.
            self.current.temporal = 0;
        }
        self.note_reached(reached && self.waited < LAYER_SYNC_PICTURES_MAX);
    }

    fn note_reached(&mut self, reached: bool) {
        if reached {
            self.wish = Wish::None;
        } else if self.wish == Wish::None {
            self.wish = Wish::Untold;
        }
    }

    /// VP8 and VP9: whether the frame of one spatial layer goes out in its picture.
    fn decide_by_layer(
        &mut self,
        info: &PayloadInfo,
        picture: &Picture,
        layers: &StreamLayers,
        newest: bool,
    ) -> bool {
        let in_time = info.temporal <= picture.temporal;
        let top = picture.top.min(layers.top_spatial());
        let begins = info.intra && info.spatial <= picture.top;
        let needed = info.spatial == top || (info.spatial < top && info.for_upper) || begins;
        let bit = 1_u8.checked_shl(info.spatial.into()).unwrap_or(0);
        let below = bit >> 1;
        let has_below = !info.inter_layer || below == 0 || picture.taken & below != 0;
        // One of which nothing came yet is on its way, or lost.
        let has_below = has_below || picture.decided & below == 0;
        let decodable = has_below && (info.intra || !newest || self.intact & bit != 0);
        let takes = in_time && needed && decodable;
        if newest && in_time {
            // Those above that refer to a frame left out are broken with it.
            let broken = if info.for_upper { !bit.saturating_sub(1) } else { bit };
            self.intact = if takes { self.intact | bit } else { self.intact & !broken };
        }
        takes
    }

    /// Dependency descriptor: a picture begins while another spatial layer is waited for.
    fn await_target(&mut self, info: &PayloadInfo, wanted: LayerTarget, layers: &StreamLayers) {
        let best = best_target(info.targets.active, wanted, layers);
        if info.key_frame {
            self.current = best;
        }
        if [best.spatial, u8::MAX].contains(&self.current.spatial) {
            self.waited = 0;
            self.note_reached(true);
            return;
        }
        self.waited = self.waited.saturating_add(1);
        // Up there is no way but a key frame in any structure in use.
        if best.spatial > self.current.spatial || self.waited > LAYER_SWITCH_PICTURES_MAX {
            self.note_reached(false);
        }
    }

    /// Dependency descriptor: whether a frame goes out, and whether it is where to switch.
    fn decide_by_target(
        &mut self,
        info: &PayloadInfo,
        picture: &mut Picture,
        wanted: LayerTarget,
        layers: &StreamLayers,
        newest: bool,
    ) -> bool {
        let Targets { present, switch, active } = info.targets;
        if newest {
            let best = best_target(active, wanted, layers);
            // Bits are to be saved before there is a way down.
            let temporal = if best.spatial < self.current.spatial { 0 } else { best.temporal };
            let lower = LayerTarget { temporal, ..self.current };
            if self.current.spatial == u8::MAX {
                // Everything went out so far.
                self.current = best;
            } else if present & self.current.bit() != 0 && switch & best.bit() != 0 {
                self.current = best;
            } else if lower.temporal < self.current.temporal && active & lower.bit() != 0 {
                self.current = lower;
            }
            (picture.temporal, picture.top) = (self.current.temporal, self.current.spatial);
        }
        present & Targets::bit(picture.top, picture.temporal) != 0
    }
}

/// The highest layers up to `wanted` that the sender makes and that arrive; spatial before temporal.
fn best_target(active: u16, wanted: LayerTarget, layers: &StreamLayers) -> LayerTarget {
    let temporals = |spatial: u8| {
        (0..TEMPORAL_LAYERS_MAX).rev().filter(move |t| active & Targets::bit(spatial, *t) != 0)
    };
    let arrives = |spatial: &u8| !layers.is_gone(*spatial) && temporals(*spatial).next().is_some();
    let within = (0..=wanted.spatial.min(SPATIAL_LAYERS_MAX - 1)).rev().find(arrives);
    let spatial = within.or_else(|| (0..SPATIAL_LAYERS_MAX).find(arrives)).unwrap_or(0);
    let within = temporals(spatial).find(|temporal| *temporal <= wanted.temporal);
    let temporal = within.or_else(|| temporals(spatial).next_back()).unwrap_or(0);
    LayerTarget { spatial, temporal }
}

/// Serial number comparison (RFC 1982) of timestamps.
fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use slotmap::SlotMap;

    use super::*;
    use crate::engine::test_instant;

    fn at(spatial: u8, temporal: u8) -> LayerTarget {
        LayerTarget { spatial, temporal }
    }

    fn stream() -> StreamKey {
        SlotMap::<StreamKey, ()>::with_key().insert(())
    }

    /// A packet of VP8: picture, temporal layer, and whether it depends on the lowest only.
    fn vp8(picture: u16, temporal: u8, temporal_sync: bool) -> PacketMeta {
        let key_frame = picture == 0;
        let numbers = PictureNumbers {
            id: 100 + picture,
            tl0: 5,
            id_at: 2,
            tl0_at: 4,
            long: true,
            dense: true,
        };
        PacketMeta {
            timestamp: u32::from(picture) * 3000,
            info: PayloadInfo {
                key_frame,
                intra: key_frame,
                temporal,
                temporal_sync,
                picture: numbers,
                ..PayloadInfo::default()
            },
            ..PacketMeta::default()
        }
    }

    /// A packet of VP9 that is a whole frame.
    fn vp9(picture: u16, spatial: u8, intra: bool, for_upper: bool) -> PacketMeta {
        PacketMeta {
            timestamp: u32::from(picture) * 3000,
            marker: spatial == 2,
            info: PayloadInfo {
                key_frame: intra && spatial == 0,
                frame_start: true,
                frame_end: true,
                intra,
                spatial,
                inter_layer: spatial > 0 && (intra || for_upper),
                for_upper: for_upper && spatial < 2,
                temporal_sync: true,
                ..PayloadInfo::default()
            },
            ..PacketMeta::default()
        }
    }

    fn ask(
        selector: &mut Selector,
        layers: &mut StreamLayers,
        meta: &PacketMeta,
        wanted: LayerTarget,
    ) -> Option<Edit> {
        layers.handle_packet(test_instant(), meta.timestamp, 100, &meta.info);
        selector.verdict(meta, wanted, layers)
    }

    #[test]
    fn vp8_goes_down_at_once_and_up_layer_by_layer_where_it_may() {
        let (mut selector, mut layers) = (Selector::default(), StreamLayers::default());
        selector.start(stream(), &vp8(0, 0, true));
        // Temporal layer, sync, wanted, the id it goes out with.
        let story = [
            (0, true, 9, Some(100)),
            (2, true, 9, Some(101)),
            (1, true, 9, Some(102)),
            (2, false, 1, None),
            (0, true, 1, Some(103)),
            (1, false, 1, Some(104)),
            (1, false, 0, None),
            (0, true, 2, Some(105)),
            (2, true, 2, None),
            (1, false, 2, None),
            (1, true, 2, Some(106)),
            (2, false, 2, None),
            (1, false, 2, Some(107)),
            (2, true, 2, Some(108)),
            (2, false, 2, Some(109)),
        ];
        for (picture, (temporal, sync, wanted, id)) in (0..).zip(story) {
            let meta = vp8(picture, temporal, sync);
            let edit = ask(&mut selector, &mut layers, &meta, at(0, wanted));
            let numbers = edit.map(|edit| edit.numbers(&meta.info).unwrap_or(meta.info.picture));
            assert_eq!(numbers.map(|numbers| numbers.id), id, "{picture}");
            assert!(numbers.is_none_or(|numbers| numbers.tl0 == 5));
        }
        assert!(!selector.take_key_frame_wish());
        // A packet of a picture left out before comes late, and one of a picture sent.
        assert_eq!(ask(&mut selector, &mut layers, &vp8(6, 1, false), at(0, 2)), None);
        let late = vp8(7, 0, true);
        let edit = ask(&mut selector, &mut layers, &late, at(0, 2)).expect("sent");
        assert_eq!(edit.numbers(&late.info).map(|numbers| numbers.id), Some(105));
    }

    #[test]
    fn a_selection_goes_on_behind_a_silence_however_far_timestamps_went() {
        // Ticks of 90 kHz that the sender's clock went on by meanwhile: an hour; so far ahead that it
        // seems to be back; back.
        for (name, elsewhere) in [
            ("an hour", 90_000_u32 * 3_600),
            ("eight hours", 90_000 * 8 * 3_600),
            ("back", (90_000_u32 * 3_600).wrapping_neg()),
        ] {
            for wanted in [1, 9] {
                let (mut selector, mut layers) = (Selector::default(), StreamLayers::default());
                selector.start(stream(), &vp8(0, 0, true));
                let mut sent = Vec::new();
                for picture in 0..400_u16 {
                    let temporal = [0, 2, 1, 2][usize::from(picture % 4)];
                    let mut meta = vp8(picture, temporal, picture % 4 != 3);
                    if picture >= 200 {
                        meta.timestamp = meta.timestamp.wrapping_add(elsewhere);
                    }
                    let far = Duration::from_secs(if picture >= 200 { 8 * 3_600 } else { 0 });
                    let now = test_instant() + far + Duration::from_millis(33) * picture.into();
                    layers.handle_packet(now, meta.timestamp, 100, &meta.info);
                    let edit = selector.verdict(&meta, at(0, wanted), &layers);
                    let numbers =
                        edit.map(|it| it.numbers(&meta.info).unwrap_or(meta.info.picture));
                    sent.extend(numbers.map(|numbers| numbers.id));
                }
                let expected = if wanted == 1 { 200 } else { 400 };
                assert_eq!(sent.len(), expected, "{name}, {wanted}");
                assert!(
                    sent.windows(2).all(|ids| ids[1] == ids[0] + 1),
                    "{name}, {wanted}: {sent:?}"
                );
            }
        }
    }

    #[test]
    fn where_no_switching_point_comes_a_key_frame_is_wished_for_once() {
        let (mut selector, mut layers) = (Selector::default(), StreamLayers::default());
        selector.start(stream(), &vp8(0, 0, true));
        let mut wishes = Vec::new();
        for picture in 0..200 {
            let (temporal, wanted) = (picture % 2, u8::from(picture > 9));
            let meta = vp8(picture, u8::try_from(temporal).unwrap(), temporal == 0);
            let edit = ask(&mut selector, &mut layers, &meta, at(0, wanted));
            assert_eq!(edit.is_some(), temporal == 0);
            wishes.extend(selector.take_key_frame_wish().then_some(picture));
        }
        assert_eq!(wishes, [9 + u16::from(LAYER_SYNC_PICTURES_MAX)]);
        let mut key = vp8(200, 0, true);
        (key.info.key_frame, key.info.intra) = (true, true);
        assert!(ask(&mut selector, &mut layers, &key, at(0, 1)).is_some());
        assert!(ask(&mut selector, &mut layers, &vp8(201, 1, false), at(0, 1)).is_some());
    }

    #[test]
    fn everything_of_a_stream_goes_out_as_it_came() {
        let (mut selector, mut layers) = (Selector::default(), StreamLayers::default());
        selector.start(stream(), &vp8(0, 0, true));
        for picture in 0..50 {
            let meta = vp8(picture, u8::try_from(picture % 3).unwrap(), true);
            let edit = ask(&mut selector, &mut layers, &meta, LayerTarget::HIGHEST).expect("sent");
            assert_eq!((edit.numbers(&meta.info), edit.marker(&meta)), (None, false));
        }
        assert!(selector.history.is_none(), "nothing had to be remembered");
    }

    #[test]
    fn after_a_pause_a_stream_keeps_its_numbers_and_another_one_goes_on_from_them() {
        let mut streams: SlotMap<StreamKey, ()> = SlotMap::with_key();
        let (one, two) = (streams.insert(()), streams.insert(()));
        let (mut selector, layers) = (Selector::default(), StreamLayers::default());
        let mut play = |stream, id, tl0| {
            let mut meta = vp8(0, 0, true);
            (meta.info.picture.id, meta.info.picture.tl0) = (id, tl0);
            selector.start(stream, &meta);
            let edit = selector.verdict(&meta, LayerTarget::HIGHEST, &layers).expect("sent");
            let numbers = edit.numbers(&meta.info).unwrap_or(meta.info.picture);
            (numbers.id & 0x7fff, numbers.tl0)
        };
        assert_eq!(play(one, 32_700, 250), (32_700, 250));
        assert_eq!(play(one, 30, 9), (30, 9), "ahead of what was sent");
        assert_eq!(play(two, 5, 80), (31, 10));
        assert_eq!(play(two, 9, 82), (35, 12));
        assert_eq!(play(two, 1, 0), (36, 13), "its sender began anew");
    }

    #[test]
    fn full_svc_goes_down_at_once_and_up_with_a_key_frame() {
        let (mut selector, mut layers) = (Selector::default(), StreamLayers::default());
        selector.start(stream(), &vp9(0, 0, true, true));
        // Wanted, key picture, the last frame that goes out.
        let story = [
            (9, true, 2),
            (9, false, 2),
            (1, false, 1),
            (0, false, 0),
            (1, false, 0),
            (2, false, 0),
            (2, true, 2),
            (0, false, 0),
        ];
        let mut wishes = Vec::new();
        for (picture, (wanted, key, last)) in (0..).zip(story) {
            for spatial in 0..3 {
                let meta = vp9(picture, spatial, key, true);
                let edit = ask(&mut selector, &mut layers, &meta, at(wanted, 0));
                assert_eq!(edit.is_some(), spatial <= last, "{picture} {spatial}");
                let ends = edit.is_some_and(|edit| edit.marker(&meta));
                assert_eq!(ends, spatial == last, "{picture} {spatial}");
            }
            wishes.push(selector.take_key_frame_wish());
        }
        let mut expected = vec![false; 8];
        expected[4] = true;
        assert_eq!(wishes, expected, "told once");
    }

    #[test]
    fn where_only_key_pictures_link_layers_one_layer_goes_out_between_them() {
        let (mut selector, mut layers) = (Selector::default(), StreamLayers::default());
        selector.start(stream(), &vp9(0, 0, true, true));
        // Wanted, temporal layer, key picture, the frames that go out.
        let story: [(u8, u8, bool, &[u8]); 6] = [
            (9, 0, true, &[0, 1, 2]),
            (9, 1, false, &[2]),
            (0, 1, false, &[]),
            (0, 0, false, &[2]),
            (0, 0, true, &[0]),
            (0, 1, false, &[0]),
        ];
        for (picture, (wanted, temporal, key, frames)) in (0..).zip(story) {
            let sent = (0..3_u8).filter(|spatial| {
                let mut meta = vp9(picture, *spatial, key, key);
                meta.info.temporal = temporal;
                ask(&mut selector, &mut layers, &meta, at(wanted, 1)).is_some()
            });
            assert_eq!(sent.collect::<Vec<_>>(), frames, "{picture}");
            assert_eq!(selector.take_key_frame_wish(), picture == 2);
        }
    }
}
