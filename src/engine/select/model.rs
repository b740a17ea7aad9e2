//! Publishers with layers, and a decoder that knows what each frame refers to: whatever targets come
//! in whatever order, what the selection lets out can be decoded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use slotmap::SlotMap;

use super::{Edit, LayerTarget, Selector, StreamLayers};
use crate::engine::StreamKey;
use crate::engine::codec::{PayloadInfo, PictureNumbers, Targets};
use crate::engine::packet::PacketMeta;
use crate::engine::rewrite::SeqRewriter;
use crate::engine::test_instant;

/// How a publisher encodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Vp8,
    /// Every picture's layers refer to each other.
    Vp9Full,
    /// Only a key picture's do.
    Vp9Key,
    Av1Full,
    Av1Key,
}

const MODES: [Mode; 5] = [Mode::Vp8, Mode::Vp9Full, Mode::Vp9Key, Mode::Av1Full, Mode::Av1Key];

/// Temporal layers of eight pictures, and which of them refer to the lowest layer only.
const PATTERN: [(u8, bool); 8] =
    [(0, true), (2, true), (1, true), (2, false), (0, true), (2, false), (1, false), (2, false)];

/// A frame's name: picture and spatial layer.
type Frame = (u64, u8);

#[derive(Debug, Clone)]
struct Packet {
    meta: PacketMeta,
    frame: Frame,
    refers_to: Vec<Frame>,
}

struct Publisher {
    mode: Mode,
    /// Spatial layers that are on.
    spatial: u8,
    /// Those that were on in the last picture.
    spatial_before: u8,
    picture: u64,
    since_key: usize,
    /// The newest frame of each spatial and temporal layer.
    newest: BTreeMap<(u8, u8), Frame>,
    seq: u64,
    first_id: u16,
    tl0: u8,
}

impl Publisher {
    fn new(mode: Mode, first_id: u16) -> Self {
        let spatial = if mode == Mode::Vp8 { 1 } else { 3 };
        Self {
            mode,
            spatial,
            spatial_before: spatial,
            picture: 0,
            since_key: 0,
            newest: BTreeMap::new(),
            seq: 1000,
            first_id,
            tl0: 200,
        }
    }

    fn is_key_mode(&self) -> bool {
        matches!(self.mode, Mode::Vp9Key | Mode::Av1Key)
    }

    fn is_av1(&self) -> bool {
        matches!(self.mode, Mode::Av1Full | Mode::Av1Key)
    }

    /// The packets of the next picture, two a frame.
    fn picture(&mut self, key: bool) -> Vec<Packet> {
        // A layer that comes back begins with a key picture, or, in full SVC, from the one below.
        let comes_back = self.spatial > self.spatial_before;
        let key = key || self.picture == 0 || (comes_back && (self.is_key_mode() || self.is_av1()));
        if key {
            self.since_key = 0;
            self.newest.clear();
        }
        let (temporal, sync) = PATTERN[self.since_key % 8];
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        let mut packets = Vec::new();
        for spatial in 0..self.spatial {
            let frame = (self.picture, spatial);
            let linked = spatial > 0 && (key || !self.is_key_mode());
            let begins = key || spatial >= self.spatial_before;
            let mut refers_to = Vec::new();
            if linked {
                refers_to.push((self.picture, spatial - 1));
            }
            if !begins {
                // VP9 and AV1 refer to lower temporal layers only; VP8 to its own, too.
                let own = self.mode == Mode::Vp8 && !sync;
                let highest = if sync { 0 } else { temporal.saturating_sub(u8::from(!own)) };
                refers_to
                    .extend((0..=highest).filter_map(|t| self.newest.get(&(spatial, t)).copied()));
            }
            // Only VP8's refer to upper temporal layers over a picture of the lowest.
            if begins || (temporal == 0 && self.mode != Mode::Vp8) {
                self.newest.retain(|(s, _), _| *s != spatial);
            }
            self.newest.insert((spatial, temporal), frame);
            let info = self.info(spatial, temporal, key, begins, linked);
            let info = PayloadInfo { temporal_sync: self.syncs(temporal, sync), ..info };
            for part in 0..2 {
                let last = part == 1;
                let info = PayloadInfo {
                    key_frame: info.key_frame && !last,
                    frame_start: !last,
                    frame_end: last && self.mode != Mode::Vp8,
                    ..info
                };
                let marker = last && spatial + 1 == self.spatial;
                let timestamp = u32::try_from(self.picture * 3000).unwrap().wrapping_sub(50_000);
                let meta =
                    PacketMeta { seq: self.seq, timestamp, marker, info, ..PacketMeta::default() };
                packets.push(Packet { meta, frame, refers_to: refers_to.clone() });
                self.seq += 1;
            }
        }
        self.spatial_before = self.spatial;
        self.picture += 1;
        self.since_key += 1;
        packets
    }

    fn syncs(&self, temporal: u8, sync: bool) -> bool {
        temporal == 0 || sync || self.mode != Mode::Vp8
    }

    fn info(
        &self,
        spatial: u8,
        temporal: u8,
        key: bool,
        begins: bool,
        linked: bool,
    ) -> PayloadInfo {
        let id = self.first_id.wrapping_add(u16::try_from(self.picture).unwrap()) & 0x7fff;
        let numbers = PictureNumbers {
            id,
            tl0: self.tl0,
            id_at: 2,
            tl0_at: 4,
            long: true,
            dense: self.mode == Mode::Vp8,
        };
        let targets =
            if self.is_av1() { self.targets(spatial, temporal, key) } else { Targets::default() };
        PayloadInfo {
            key_frame: key && spatial == 0,
            spatial,
            temporal,
            intra: begins && self.mode != Mode::Vp8 || key,
            inter_layer: linked,
            for_upper: spatial < 2 && (key || !self.is_key_mode()),
            picture: if self.is_av1() { PictureNumbers::default() } else { numbers },
            targets,
            ..PayloadInfo::default()
        }
    }

    /// As libwebrtc's structures for L3T3 and L3T3_KEY indicate.
    fn targets(&self, spatial: u8, temporal: u8, key: bool) -> Targets {
        let mut targets = Targets::default();
        for s in 0..3 {
            for t in 0..3 {
                let bit = Targets::bit(s, t);
                let linked = if self.is_key_mode() && !key { s == spatial } else { s >= spatial };
                let present = linked && t >= temporal;
                let switch = present && (key || (s == spatial && (t > temporal || temporal == 0)));
                targets.present |= if present { bit } else { 0 };
                targets.switch |= if switch { bit } else { 0 };
                targets.active |= if s < self.spatial { bit } else { 0 };
            }
        }
        targets
    }
}

/// What a receiver got.
#[derive(Debug, Clone)]
struct Got {
    out: u64,
    packet: Packet,
    id: u16,
    tl0: u8,
    marker: bool,
}

struct Viewer {
    stream: StreamKey,
    streams: SlotMap<StreamKey, ()>,
    select: Selector,
    seq: SeqRewriter,
    layers: StreamLayers,
    wanted: LayerTarget,
    started: bool,
    got: Vec<Got>,
    fills: Vec<u64>,
    now: Instant,
}

impl Viewer {
    fn new(wanted: LayerTarget) -> Self {
        let mut streams = SlotMap::with_key();
        Self {
            stream: streams.insert(()),
            streams,
            select: Selector::default(),
            seq: SeqRewriter::new(77),
            layers: StreamLayers::default(),
            wanted,
            started: false,
            got: Vec::new(),
            fills: Vec::new(),
            now: test_instant(),
        }
    }

    fn switch(&mut self) {
        self.stream = self.streams.insert(());
        self.layers = StreamLayers::default();
        self.started = false;
    }

    /// One packet as it comes; true when a key frame is wished for.
    fn handle(&mut self, packet: &Packet) -> bool {
        let PacketMeta { timestamp, info, seq, .. } = packet.meta;
        self.layers.handle_packet(self.now, timestamp, 1000, &info);
        if !self.started {
            if !info.key_frame {
                return false;
            }
            self.started = true;
            self.seq.sync(seq);
            self.select.start(self.stream, &packet.meta);
        }
        let verdict = self.select.verdict(&packet.meta, self.wanted, &self.layers);
        let again = self.select.verdict(&packet.meta, self.wanted, &self.layers);
        let numbers = |edit: Option<Edit>| edit.map(|edit| edit.numbers(&info));
        assert_eq!(numbers(verdict), numbers(again), "asked twice");
        match verdict {
            Some(edit) => self.forward(packet, edit),
            None => self.fills.extend(self.seq.drop(seq)),
        }
        self.select.take_key_frame_wish()
    }

    fn forward(&mut self, packet: &Packet, edit: Edit) {
        let Some(out) = self.seq.forward(packet.meta.seq) else { return };
        let numbers = edit.numbers(&packet.meta.info).unwrap_or(packet.meta.info.picture);
        let mut payload = [0; 8];
        numbers.write(&mut payload);
        let id = u16::from_be_bytes([payload[2] & 0x7f, payload[3]]);
        let marker = edit.marker(&packet.meta);
        let packet = packet.clone();
        self.got.push(Got { out, packet, id, tl0: payload[4], marker });
    }
}

/// What happens before a picture.
#[derive(Debug, Clone)]
enum Step {
    Nothing,
    Want(u8, u8),
    /// The publisher sends so many spatial layers from now on.
    Layers(u8),
    Key,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => Just(Step::Nothing),
        2 => (0_u8..4, 0_u8..4).prop_map(|(s, t)| Step::Want(s, t)),
        1 => (1_u8..4).prop_map(Step::Layers),
        1 => Just(Step::Key),
    ]
}

/// Lets a publisher and a viewer run; a key frame comes three pictures after it was wished for.
fn run(mode: Mode, steps: &[Step], mut deliver: impl FnMut(Vec<Packet>) -> Vec<Packet>) -> Viewer {
    let mut publisher = Publisher::new(mode, 32_700);
    let mut viewer = Viewer::new(LayerTarget::HIGHEST);
    let mut key_in = None;
    for step in steps {
        match *step {
            Step::Want(spatial, temporal) => viewer.wanted = LayerTarget { spatial, temporal },
            Step::Layers(spatial) if mode != Mode::Vp8 => publisher.spatial = spatial,
            Step::Key => key_in = Some(0),
            Step::Nothing | Step::Layers(_) => {}
        }
        let key = key_in == Some(0);
        key_in = key_in.filter(|_| !key).map(|left: u8| left - 1);
        viewer.now += Duration::from_millis(33);
        for packet in deliver(publisher.picture(key)) {
            if viewer.handle(&packet) {
                key_in = key_in.or(Some(3));
            }
        }
    }
    viewer
}

/// All that a decoder relies on where nothing was lost.
fn assert_decodable(mode: Mode, viewer: &Viewer) {
    let mut have = BTreeSet::new();
    let mut last: Option<&Got> = None;
    assert!(viewer.fills.is_empty(), "everything came in order");
    for (at, got) in viewer.got.iter().enumerate() {
        let Packet { meta, frame, refers_to } = &got.packet;
        assert_eq!(got.out, 77 + at as u64, "a gap in the numbers");
        for needed in refers_to {
            assert!(have.contains(needed), "{frame:?} refers to {needed:?}, which was left out");
        }
        have.insert(*frame);
        let next = viewer.got.get(at + 1).map(|next| next.packet.frame.0);
        let ends = next.is_some_and(|next| next != frame.0);
        if mode != Mode::Vp8 && next.is_some() {
            assert_eq!(got.marker, ends, "{frame:?}: the marker ends a picture");
        }
        if let Some(last) = last.filter(|last| last.packet.frame.0 != frame.0) {
            let ids = got.id.wrapping_sub(last.id) & 0x7fff;
            let lowest = got.tl0.wrapping_sub(last.tl0);
            match mode {
                Mode::Vp8 => {
                    assert_eq!(ids, 1, "{frame:?}: a hole among picture ids");
                    assert_eq!(lowest, u8::from(meta.info.temporal == 0), "{frame:?}: TL0PICIDX");
                }
                // Distances stay, also over pictures of which nothing could go out.
                Mode::Vp9Full | Mode::Vp9Key => {
                    let before = last.packet.meta.info.picture;
                    assert_eq!(u64::from(ids), frame.0 - last.packet.frame.0, "{frame:?}");
                    assert_eq!(lowest, meta.info.picture.tl0.wrapping_sub(before.tl0), "{frame:?}");
                }
                Mode::Av1Full | Mode::Av1Key => {}
            }
        }
        last = Some(got);
    }
}

/// The layers of the last eight pictures that went out.
fn lately(viewer: &Viewer) -> LayerTarget {
    let newest = viewer.got.last().map_or(0, |got| got.packet.frame.0);
    let late = viewer.got.iter().filter(|got| got.packet.frame.0 + 8 > newest);
    late.fold(LayerTarget::default(), |highest, got| LayerTarget {
        spatial: highest.spatial.max(got.packet.meta.info.spatial),
        temporal: highest.temporal.max(got.packet.meta.info.temporal),
    })
}

proptest! {
    #[test]
    fn whatever_is_wanted_what_goes_out_can_be_decoded_and_is_what_was_wanted(
        mode in proptest::sample::select(MODES.to_vec()),
        steps in proptest::collection::vec(step(), 10..150),
        (spatial, temporal) in (0_u8..4, 0_u8..4),
        sent in 1_u8..4,
    ) {
        let mut steps = steps;
        steps.extend([Step::Layers(sent), Step::Want(spatial, temporal)]);
        steps.extend(vec![Step::Nothing; 48]);
        let viewer = run(mode, &steps, |packets| packets);
        assert_decodable(mode, &viewer);
        let top = if mode == Mode::Vp8 { 0 } else { sent - 1 };
        let expected = LayerTarget { spatial: spatial.min(top), temporal: temporal.min(2) };
        prop_assert_eq!(lately(&viewer), expected);
        prop_assert_eq!(viewer.select.layers(&viewer.layers), expected);
    }

    #[test]
    fn nothing_above_the_target_goes_out_from_the_next_picture_on(
        mode in proptest::sample::select(vec![Mode::Vp8, Mode::Vp9Full]),
        steps in proptest::collection::vec(step(), 10..60),
        (spatial, temporal) in (0_u8..3, 0_u8..3),
    ) {
        let mut steps = steps;
        let before = steps.len() as u64;
        steps.extend([Step::Want(spatial, temporal), Step::Nothing, Step::Nothing]);
        let viewer = run(mode, &steps, |packets| packets);
        for got in viewer.got.iter().filter(|got| got.packet.frame.0 >= before) {
            let info = &got.packet.meta.info;
            prop_assert!(info.temporal <= temporal);
            // Down from what was sent all the time; not from what an earlier target had cut.
            prop_assert!(mode != Mode::Vp9Full || info.spatial <= spatial);
        }
    }

    #[test]
    fn losses_and_late_packets_leave_gaps_only_where_something_was_lost(
        mode in proptest::sample::select(MODES.to_vec()),
        steps in proptest::collection::vec(step(), 10..100),
        fates in proptest::collection::vec(0_u8..40, 1000),
    ) {
        let mut fates = fates.into_iter().cycle();
        let mut waiting: Vec<(usize, Packet)> = Vec::new();
        let mut lost = BTreeSet::new();
        let mut first = true;
        let viewer = run(mode, &steps, |packets| {
            let mut came = Vec::new();
            for packet in packets {
                for late in &mut waiting {
                    late.0 -= 1;
                }
                came.extend(waiting.iter().filter(|late| late.0 == 0).map(|late| late.1.clone()));
                waiting.retain(|late| late.0 > 0);
                match fates.next().unwrap() {
                    0 if !first => { lost.insert(packet.meta.seq); }
                    late @ 1..=6 if !first => waiting.push((usize::from(late) * 2, packet)),
                    _ => came.push(packet),
                }
                first = false;
            }
            came
        });
        lost.extend(waiting.iter().map(|late| late.1.meta.seq));
        let mut used: BTreeSet<u64> = viewer.fills.iter().copied().collect();
        prop_assert_eq!(used.len(), viewer.fills.len());
        let mut ids: BTreeMap<u64, u16> = BTreeMap::new();
        for got in &viewer.got {
            prop_assert!(used.insert(got.out), "a number twice");
            let (picture, _) = got.packet.frame;
            let id = *ids.entry(picture).or_insert(got.id);
            prop_assert_eq!(id, got.id, "one picture with two ids");
        }
        let highest = used.last().copied().unwrap_or(77);
        let holes = (77..=highest).filter(|out| !used.contains(out)).count();
        prop_assert!(holes <= lost.len(), "{} holes for {} losses", holes, lost.len());
        if !matches!(mode, Mode::Av1Full | Mode::Av1Key) {
            for ((before, id), (picture, next)) in ids.iter().zip(ids.iter().skip(1)) {
                let ahead = u64::from(next.wrapping_sub(*id) & 0x7fff);
                prop_assert!(ahead > 0 && ahead <= picture - before, "{} {}", before, picture);
            }
        }
    }

    #[test]
    fn numbers_go_on_over_a_change_of_the_stream(
        (first, second) in (0_u16..0x8000, 0_u16..0x8000),
        mode in proptest::sample::select(vec![Mode::Vp8, Mode::Vp9Full]),
        temporal in 0_u8..3,
        pictures in 1_usize..40,
    ) {
        let mut viewer = Viewer::new(LayerTarget { spatial: u8::MAX, temporal });
        for id in [first, second] {
            let mut publisher = Publisher::new(mode, id);
            publisher.tl0 = id.to_be_bytes()[1];
            publisher.seq = u64::from(id);
            viewer.switch();
            for _ in 0..pictures {
                for packet in publisher.picture(false) {
                    viewer.handle(&packet);
                }
            }
        }
        let second_begins = viewer.got.len() - viewer.got.iter().rev()
            .position(|got| got.packet.meta.info.key_frame).unwrap() - 1;
        let (before, after) = (&viewer.got[second_begins - 1], &viewer.got[second_begins]);
        prop_assert_eq!(after.id, (before.id + 1) & 0x7fff);
        prop_assert_eq!(after.tl0, before.tl0.wrapping_add(1));
        prop_assert_eq!(after.out, before.out + 1);
    }
}
