//! Which layers of a stream arrive, and how many bits each of them takes.
//!
//! Owned by an incoming stream and told each of its packets, on the shard's thread; read by its
//! consumers for each packet, and by whoever shares out bandwidth a few times a second. A stream
//! without layers costs one look at a packet and no memory. Allocates once, with the first packet
//! of an upper layer.
//!
//! What a mirror takes is counted here too, but a mirror's rates are those its origin tells: it
//! knows streams that nobody takes here.

use std::time::{Duration, Instant};

use super::LayerTarget;
use crate::engine::codec::{PayloadInfo, SPATIAL_LAYERS_MAX, TEMPORAL_LAYERS_MAX, Targets};
use crate::limits::{LAYER_PICTURES_MISSED_MAX, STREAM_INACTIVE};

const SPATIAL: usize = SPATIAL_LAYERS_MAX as usize;
const TEMPORAL: usize = TEMPORAL_LAYERS_MAX as usize;

/// Complete spans that a rate is measured over, and the one being filled.
const SPANS: usize = 5;
const SPANS_KEPT: usize = SPANS + 1;
/// Time of one span: the rate of a layer is known a second after it begins, and followed in steps
/// of this.
const SPAN: Duration = Duration::from_millis(200);
/// Spans without a packet behind which no packet of an older picture is to come: three seconds.
const SILENCE_SPANS: u64 = 15;

/// How soon what a layer took of its stream counts for half.
const LATELY_PICTURES: u32 = 8;

/// bits/s of a stream's layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerRates {
    /// What goes out for each pair of highest layers.
    bps: [[u32; TEMPORAL]; SPATIAL],
    /// Pictures in ten seconds up to each temporal layer.
    pictures: [u16; TEMPORAL],
    /// The highest layers that arrive.
    highest: LayerTarget,
}

impl LayerRates {
    /// Of a stream without layers.
    #[must_use]
    pub fn single(bps: u64) -> Self {
        let mut rates = Self::default();
        let [[first, ..], ..] = &mut rates.bps;
        *first = u32::try_from(bps).unwrap_or(u32::MAX);
        rates
    }

    /// The highest layers that arrive.
    #[must_use]
    pub fn highest(&self) -> LayerTarget {
        self.highest
    }

    /// bits/s of all that goes out for `target`; of the highest that arrive, where it is above.
    #[must_use]
    pub fn bps(&self, target: LayerTarget) -> u64 {
        let LayerTarget { spatial, temporal } = target.min_each(self.highest);
        let layer = self.bps.get(usize::from(spatial));
        layer.and_then(|row| row.get(usize::from(temporal))).copied().map_or(0, u64::from)
    }

    /// bits/s of a spatial layer with what it needs of those below, up to each of its temporal
    /// layers that arrive, the lowest first.
    pub fn cumulative(&self, spatial: u8) -> impl Iterator<Item = u64> + '_ {
        (0..=self.highest.temporal).map(move |temporal| self.bps(LayerTarget { spatial, temporal }))
    }

    /// Pictures a second up to a temporal layer, in tenths; 0 where a stream has no layers.
    #[must_use]
    pub fn decipictures(&self, temporal: u8) -> u16 {
        let temporal = temporal.min(self.highest.temporal);
        self.pictures.get(usize::from(temporal)).copied().unwrap_or(0)
    }
}

/// The layers of one stream.
#[derive(Debug, Default)]
pub struct StreamLayers {
    /// Highest spatial layer that arrives.
    top_spatial: u8,
    /// Highest temporal layer that ever came.
    top_temporal: u8,
    /// A spatial layer above the lowest ever came, or is made according to a descriptor.
    spatial: bool,
    /// One bit for each spatial layer that came and comes no more.
    gone: u8,
    /// Silences behind which it went on, modulo 256.
    silences: u8,
    seen: Option<Box<Seen>>,
    /// What the origin told of a mirror's stream.
    told: Option<Box<LayerRates>>,
}

impl StreamLayers {
    /// Takes the arrival of one media packet of `len` bytes.
    #[inline]
    pub fn handle_packet(&mut self, now: Instant, timestamp: u32, len: usize, info: &PayloadInfo) {
        let upper = info.targets.active & !Targets::bit(0, 0) != 0;
        if self.seen.is_none() && info.spatial == 0 && info.temporal == 0 && !upper {
            return;
        }
        self.handle_layered(now, timestamp, len, info);
    }

    fn handle_layered(&mut self, now: Instant, timestamp: u32, len: usize, info: &PayloadInfo) {
        let seen = self.seen.get_or_insert_with(|| Box::new(Seen::new(now, timestamp)));
        // A repaired packet of the last picture comes behind a silence, and does not end it.
        let goes_on = timestamp != seen.newest && seen.resumes(now);
        self.silences = self.silences.wrapping_add(u8::from(goes_on));
        seen.handle_packet(now, timestamp, len, info);
        self.top_temporal = self.top_temporal.max(info.temporal);
        let lowest = (1 << TEMPORAL_LAYERS_MAX) - 1;
        self.spatial |= info.spatial > 0 || info.targets.active & !lowest != 0;
        if info.targets.active != 0 && info.key_frame {
            // What the sender says it will make has not come yet.
            seen.forgive();
        }
        self.gone = seen.gone(now);
        self.top_spatial = seen.top(self.gone);
    }

    /// The sender began anew.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Takes over what a mirror's origin measured.
    pub fn adopt(&mut self, told: &LayerRates) {
        **self.told.get_or_insert_default() = *told;
    }

    /// The rates of the layers, where there are some or the origin told.
    #[must_use]
    pub fn rates(&self, now: Instant) -> Option<LayerRates> {
        if let Some(told) = &self.told {
            return Some(**told);
        }
        let highest = LayerTarget { spatial: self.top_spatial, temporal: self.top_temporal };
        Some(self.seen.as_ref()?.rates(now, highest))
    }

    /// The same for a stream that takes so many bits/s in all, as the layers shared them lately.
    #[must_use]
    pub fn rates_of(&self, bps: u64) -> Option<LayerRates> {
        let highest = LayerTarget { spatial: self.top_spatial, temporal: self.top_temporal };
        Some(self.seen.as_ref()?.rates_of(bps, highest))
    }

    /// Highest spatial layer that arrives.
    #[must_use]
    pub fn top_spatial(&self) -> u8 {
        self.top_spatial
    }

    /// Changes whenever a layered stream goes on behind a silence of some seconds: what came before
    /// says nothing of the order of what comes now.
    #[must_use]
    pub fn silences(&self) -> u8 {
        self.silences
    }

    /// Highest temporal layer that came since the sender began.
    #[must_use]
    pub fn top_temporal(&self) -> u8 {
        self.top_temporal
    }

    /// True when a spatial layer above the lowest has come, or is made as the sender says.
    #[must_use]
    pub fn has_spatial(&self) -> bool {
        self.spatial
    }

    /// True when that spatial layer came and comes no more.
    #[must_use]
    pub fn is_gone(&self, spatial: u8) -> bool {
        self.gone.checked_shr(spatial.into()).is_some_and(|bits| bits & 1 == 1)
    }
}

/// Bytes of one span, by spatial and temporal layer.
#[derive(Debug, Clone, Copy, Default)]
struct Bytes {
    /// All of the layer.
    own: [[u32; TEMPORAL]; SPATIAL],
    /// What of it higher spatial layers need.
    for_upper: [[u32; TEMPORAL]; SPATIAL],
    pictures: [u16; TEMPORAL],
}

#[derive(Debug)]
struct Seen {
    /// Timestamp of the newest picture.
    newest: u32,
    /// How many came.
    pictures: u32,
    /// When each spatial layer last came, and in which picture.
    last: [Option<(Instant, u32)>; SPATIAL],
    began: Instant,
    /// Number of the span being filled.
    span: u64,
    spans: [Bytes; SPANS_KEPT],
    /// Of the last pictures, whenever they came; older ones count for less and less.
    lately: Bytes,
}

impl Seen {
    fn new(now: Instant, timestamp: u32) -> Self {
        Self {
            // One before, so that the first packet begins a picture.
            newest: timestamp.wrapping_sub(1),
            pictures: 0,
            last: [None; SPATIAL],
            began: now,
            span: 0,
            spans: [Bytes::default(); SPANS_KEPT],
            lately: Bytes::default(),
        }
    }

    fn number(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.began).as_millis() / SPAN.as_millis();
        u64::try_from(age).unwrap_or(u64::MAX)
    }

    /// True behind a silence: nothing old is under way any more.
    fn resumes(&self, now: Instant) -> bool {
        self.number(now).saturating_sub(self.span) >= SILENCE_SPANS
    }

    fn handle_packet(&mut self, now: Instant, timestamp: u32, len: usize, info: &PayloadInfo) {
        // A sender whose timestamps went elsewhere meanwhile would seem to send but one picture, for
        // hours.
        let resumes = self.resumes(now);
        let number = self.number(now).max(self.span);
        for span in (self.span + 1..=number).take(SPANS_KEPT) {
            if let Some(bytes) = self.spans.get_mut(place(span)) {
                *bytes = Bytes::default();
            }
        }
        self.span = number;
        let spatial = usize::from(info.spatial).min(SPATIAL - 1);
        let temporal = usize::from(info.temporal).min(TEMPORAL - 1);
        let ahead = timestamp.wrapping_sub(self.newest).cast_signed();
        let begins = ahead > 0 || (resumes && ahead != 0);
        if begins {
            self.newest = timestamp;
            self.pictures = self.pictures.wrapping_add(1);
            if self.pictures.is_multiple_of(LATELY_PICTURES) {
                self.lately.halve();
            }
        }
        if let Some(last) = self.last.get_mut(spatial) {
            *last = Some((now, self.pictures));
        }
        let layer = (spatial, temporal);
        for bytes in self.spans.get_mut(place(number)).into_iter().chain([&mut self.lately]) {
            bytes.count(layer, len, info.for_upper, begins);
        }
    }

    /// Gives those that did not come lately another chance.
    fn forgive(&mut self) {
        for last in self.last.iter_mut().flatten() {
            last.1 = self.pictures;
        }
    }

    fn gone(&self, now: Instant) -> u8 {
        let mut gone = 0;
        for (spatial, last) in self.last.iter().enumerate() {
            let Some((at, picture)) = last else { continue };
            let missed = self.pictures.wrapping_sub(*picture);
            let silent = missed > 1 && now.saturating_duration_since(*at) >= STREAM_INACTIVE;
            if missed > LAYER_PICTURES_MISSED_MAX || silent {
                gone |= 1 << spatial;
            }
        }
        gone
    }

    fn top(&self, gone: u8) -> u8 {
        let arrives = |spatial: &u8| {
            let came = self.last.get(usize::from(*spatial)).is_some_and(Option::is_some);
            came && gone >> *spatial & 1 == 0
        };
        (0..SPATIAL_LAYERS_MAX).rev().find(arrives).unwrap_or(0)
    }

    fn rates(&self, now: Instant, highest: LayerTarget) -> LayerRates {
        let number = self.number(now).max(self.span);
        // Complete ones, as far as it has been counted for so long.
        let spans = u64::try_from(SPANS).unwrap_or(u64::MAX).min(number).max(1);
        let complete = number.saturating_sub(spans)..number.max(1);
        let mut sum = Bytes::default();
        for span in complete.filter(|span| *span <= self.span) {
            if let Some(bytes) = self.spans.get(place(span)) {
                sum.add(bytes);
            }
        }
        let millis = spans * u64::try_from(SPAN.as_millis()).unwrap_or(1);
        let rate = |bytes: u64| u32::try_from(bytes * 8000 / millis).unwrap_or(u32::MAX);
        let mut rates = LayerRates { highest, ..LayerRates::default() };
        for (spatial, row) in rates.bps.iter_mut().enumerate() {
            for (temporal, bps) in row.iter_mut().enumerate() {
                *bps = rate(sum.up_to(spatial, temporal));
            }
        }
        let mut pictures = 0;
        for (to, from) in rates.pictures.iter_mut().zip(sum.pictures) {
            pictures += u64::from(from) * 10_000 / millis;
            *to = u16::try_from(pictures).unwrap_or(u16::MAX);
        }
        rates
    }

    fn rates_of(&self, bps: u64, highest: LayerTarget) -> LayerRates {
        let sum = &self.lately;
        let all: u64 = sum.own.iter().flatten().map(|bytes| u64::from(*bytes)).sum();
        let rate = |bytes: u64| {
            let part = u128::from(bps) * u128::from(bytes) / u128::from(all.max(1));
            u32::try_from(part).unwrap_or(u32::MAX)
        };
        let mut rates = LayerRates { highest, ..LayerRates::default() };
        for (spatial, row) in rates.bps.iter_mut().enumerate() {
            for (temporal, bps) in row.iter_mut().enumerate() {
                *bps = rate(sum.up_to(spatial, temporal));
            }
        }
        rates
    }
}

impl Bytes {
    /// One packet of a layer; `begins` a picture.
    fn count(
        &mut self,
        (spatial, temporal): (usize, usize),
        len: usize,
        for_upper: bool,
        begins: bool,
    ) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let add = |cells: &mut [[u32; TEMPORAL]; SPATIAL]| {
            if let Some(cell) = cells.get_mut(spatial).and_then(|row| row.get_mut(temporal)) {
                *cell = cell.saturating_add(len);
            }
        };
        add(&mut self.own);
        if for_upper {
            add(&mut self.for_upper);
        }
        if let Some(pictures) = self.pictures.get_mut(temporal).filter(|_| begins) {
            *pictures = pictures.saturating_add(1);
        }
    }

    fn halve(&mut self) {
        for row in self.own.iter_mut().chain(&mut self.for_upper) {
            row.iter_mut().for_each(|bytes| *bytes /= 2);
        }
    }

    fn add(&mut self, other: &Self) {
        let rows = self.own.iter_mut().chain(&mut self.for_upper);
        for (to, from) in rows.zip(other.own.iter().chain(&other.for_upper)) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = to.saturating_add(*from);
            }
        }
        for (to, from) in self.pictures.iter_mut().zip(other.pictures) {
            *to = to.saturating_add(from);
        }
    }

    /// What goes out for a pair of highest layers.
    fn up_to(&self, spatial: usize, temporal: usize) -> u64 {
        let lower = self.for_upper.iter().take(spatial);
        let rows = self.own.get(spatial).into_iter().chain(lower);
        rows.flat_map(|row| row.iter().take(temporal + 1)).map(|bytes| u64::from(*bytes)).sum()
    }
}

fn place(span: u64) -> usize {
    usize::try_from(span % SPANS_KEPT as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::test_instant;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(spatial: u8, temporal: u8) -> LayerTarget {
        LayerTarget { spatial, temporal }
    }

    /// One packet of 1,000 bytes for each frame: three spatial, two temporal layers, 20 pictures a
    /// second. Lower spatial layers are needed above in every picture, or in none.
    fn run(layers: &mut StreamLayers, millis: std::ops::Range<u64>, tops: u8, for_upper: bool) {
        let start = test_instant();
        for picture in millis.start / 50..millis.end / 50 {
            let temporal = u8::from(picture % 2 == 1);
            for spatial in 0..tops {
                let for_upper = for_upper && spatial < 2;
                let info = PayloadInfo { spatial, temporal, for_upper, ..PayloadInfo::default() };
                let timestamp = u32::try_from(picture * 4500).unwrap();
                layers.handle_packet(start + ms(picture * 50), timestamp, 1000, &info);
            }
        }
    }

    #[test]
    fn rates_are_those_of_what_goes_out_for_a_target() {
        let now = test_instant() + ms(3000);
        // 20 frames of 1,000 bytes a second are 160 kbit/s.
        for (for_upper, expected) in
            [(true, [[80, 160], [160, 320], [240, 480]]), (false, [[80, 160]; 3])]
        {
            let mut layers = StreamLayers::default();
            run(&mut layers, 0..3000, 3, for_upper);
            let rates = layers.rates(now).expect("layered");
            assert_eq!(rates.highest(), at(2, 1));
            for (spatial, row) in (0..).zip(expected) {
                let kbps: Vec<u64> = rates.cumulative(spatial).map(|bps| bps / 1000).collect();
                assert_eq!(kbps, row, "{for_upper} {spatial}");
            }
            assert_eq!(rates.bps(at(9, 9)), rates.bps(at(2, 1)));
            assert_eq!((rates.decipictures(0), rates.decipictures(9)), (100, 200));
            let later = layers.rates(now + ms(1300)).expect("layered");
            assert_eq!(later.bps(at(2, 1)), 0, "nothing came any more");
        }
    }

    #[test]
    fn a_stream_without_layers_costs_nothing() {
        let mut layers = StreamLayers::default();
        run(&mut layers, 0..49, 1, false);
        assert!(layers.seen.is_none() && layers.rates(test_instant()).is_none());
        assert_eq!(LayerRates::single(5_000).bps(at(3, 3)), 5_000);
        assert_eq!(LayerRates::single(5_000).cumulative(0).collect::<Vec<_>>(), [5_000]);
    }

    #[test]
    fn a_layer_that_comes_no_more_is_left_within_some_pictures_and_found_again() {
        let mut layers = StreamLayers::default();
        run(&mut layers, 0..1000, 3, true);
        assert_eq!(layers.top_spatial(), 2);
        run(&mut layers, 1000..1400, 2, true);
        assert_eq!((layers.top_spatial(), layers.is_gone(2)), (2, false));
        run(&mut layers, 1400..1450, 2, true);
        assert_eq!((layers.top_spatial(), layers.is_gone(2)), (1, true));
        run(&mut layers, 1450..1500, 3, true);
        assert_eq!((layers.top_spatial(), layers.is_gone(2)), (2, false));
    }

    #[test]
    fn layers_are_counted_on_when_timestamps_go_elsewhere_in_a_silence() {
        let start = test_instant();
        let second = |layers: &mut StreamLayers, from: u64, timestamp: u32, tops: u8| {
            for picture in 0..20_u32 {
                for spatial in 0..tops {
                    let now = start + ms(from + 50 * u64::from(picture));
                    let info = PayloadInfo { spatial, ..PayloadInfo::default() };
                    let timestamp = timestamp.wrapping_add(picture * 4500);
                    layers.handle_packet(now, timestamp, 1000, &info);
                }
            }
        };
        // Hours back, and so far ahead that it seems to be back.
        for elsewhere in [(90_000_u32 * 3 * 3600).wrapping_neg(), 90_000 * 8 * 3600] {
            let mut layers = StreamLayers::default();
            second(&mut layers, 0, 0, 3);
            second(&mut layers, 5_000, elsewhere, 2);
            assert_eq!((layers.top_spatial(), layers.is_gone(2)), (1, true));
            let rates = layers.rates(start + ms(6_000)).expect("layered");
            assert_eq!(rates.decipictures(0), 200);
        }
    }

    #[test]
    fn a_mirror_goes_by_what_its_origin_tells() {
        let mut layers = StreamLayers::default();
        run(&mut layers, 0..1000, 3, true);
        layers.adopt(&LayerRates::single(7_000));
        assert_eq!(layers.rates(test_instant()), Some(LayerRates::single(7_000)));
    }
}
