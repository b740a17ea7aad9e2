//! The origin's side: demand and key-frame requests that come, packets and pulses that go.
//!
//! A tap reads its stream's ring as a consumer does, and does not hold on to what a lane refuses.
//!
//! ```text
//!            begin(video)              key frame found
//!   (none) ──────────────► waiting ───────────────────► pouring
//!            begin(audio): pouring        ▲ lane full (video), ring went round (video),
//!                                         └──── the sender began anew, producer resumed
//! ```

use std::time::Instant;

use crate::control::command::Layers;
use crate::engine::producer::Source;
use crate::engine::relay::{Continuity, RelayItem, RelayLanes, RelayPacket, RelayPulse};
use crate::engine::report::Counters;
use crate::engine::ring::PacketIndex;
use crate::engine::source_clock::SenderClock;
use crate::engine::stream::Stream;
use crate::engine::{Engine, ProducerKey, StreamKey};
use crate::id::{ProducerId, ShardId};
use crate::limits::{RELAY_PACKETS_PER_TURN_MAX, RELAY_PULSE_INTERVAL, SHARDS_MAX};
use crate::ortc::types::MediaKind;

/// A shard with a mirror of a producer of ours.
#[derive(Debug)]
pub struct Relay {
    /// Which shard.
    to: ShardId,
    /// One per encoding, lowest first.
    streams: Vec<RelayedTo>,
    /// The highest layers that consumers there prefer.
    preferred: Option<Layers>,
}

/// What a shard has of one stream.
#[derive(Debug, Clone, Copy, Default)]
struct RelayedTo {
    /// When it was last told of it.
    pulsed: Option<Instant>,
    /// The stream's `seq_base` of the last packet it got, as long as no tap knows.
    base: Option<u64>,
}

/// A reader of one stream for one shard.
#[derive(Debug)]
pub struct Tap {
    to: ShardId,
    /// The next packet to look at.
    next: PacketIndex,
    /// A key frame is waited for.
    waiting: bool,
    /// The next packet sent does not follow the last one.
    opening: bool,
    /// The number with which the stream goes on.
    from: u64,
    /// The stream's `seq_base` of the last packet sent.
    base: Option<u64>,
    /// Timestamp of a frame that was not sent whole: it is no beginning.
    torn: Option<u32>,
}

/// Why a tap stopped pouring.
enum Stop {
    /// Nothing is left.
    Empty,
    /// The turn has done enough.
    Budget,
    /// A hole: video waits for its next key frame.
    Cut,
}

/// What one stream is relayed with.
struct Way<'a> {
    now: Instant,
    producer: ProducerId,
    encoding: u8,
    kind: MediaKind,
    lanes: &'a mut dyn RelayLanes,
    spare: &'a mut Option<Box<RelayPacket>>,
    counters: &'a mut Counters,
    /// Packets that this turn may still copy.
    left: &'a mut usize,
}

impl Way<'_> {
    /// Copies one packet and sends it; false when the lane is full.
    fn send(
        &mut self,
        to: ShardId,
        stream: &Stream,
        at: PacketIndex,
        continuity: Continuity,
    ) -> bool {
        let Some((meta, payload)) = stream.ring.get(at) else { return true };
        let mut packet = self.spare.take().unwrap_or_else(|| self.lanes.empty(to));
        let (len, Some(space)) = (
            u16::try_from(payload.len()).unwrap_or_default(),
            packet.bytes.get_mut(..payload.len()),
        ) else {
            return true;
        };
        space.copy_from_slice(payload);
        packet.producer = self.producer;
        packet.encoding = self.encoding;
        packet.continuity = continuity;
        packet.arrival = stream.ring.arrival(at).unwrap_or(self.now);
        packet.meta = *meta;
        packet.len = len;
        match self.lanes.send(to, RelayItem::Media(self.kind, packet)) {
            Ok(()) => {
                self.counters.relayed_out += 1;
                true
            }
            Err(refused) => {
                self.counters.relay_dropped += 1;
                if let RelayItem::Media(_, packet) = refused {
                    *self.spare = Some(packet);
                }
                false
            }
        }
    }
}

impl Tap {
    fn new(to: ShardId, base: Option<u64>) -> Self {
        Self {
            to,
            next: PacketIndex::default(),
            waiting: true,
            opening: true,
            from: 0,
            base,
            torn: None,
        }
    }

    /// Begins with what arrives from now on, video with a key frame: one that came just now, or the
    /// next, which is asked for. Nothing is asked for while the producer is paused.
    fn begin(&mut self, now: Instant, kind: MediaKind, stream: &mut Stream) {
        self.opening = true;
        self.waiting = kind == MediaKind::Video;
        self.torn = None;
        self.next = stream.ring.head();
        if self.waiting {
            match stream.recent_key_frame(now) {
                Some(recent) => self.next = recent,
                None if !stream.paused => stream.key_frames.request(now),
                None => {}
            }
        }
    }

    /// Sends what its stream brought; true when the turn had no time for all of it.
    fn feed(&mut self, stream: &mut Stream, way: &mut Way<'_>) -> bool {
        loop {
            if self.waiting && !self.find_key_frame(stream) {
                return false;
            }
            match self.pour(stream, way) {
                Stop::Empty => return false,
                Stop::Budget => return true,
                Stop::Cut => {
                    self.waiting = true;
                    self.opening = true;
                    way.counters.relay_cuts += 1;
                    stream.key_frames.request(way.now);
                }
            }
        }
    }

    /// Goes to the beginning of the next key frame, if it is there.
    fn find_key_frame(&mut self, stream: &Stream) -> bool {
        self.next = self.next.max(stream.oldest());
        while self.next < stream.ring.head() {
            let at = self.next;
            self.next = at.next();
            let Some((meta, _)) = stream.ring.get(at) else { continue };
            if !meta.info.key_frame || self.torn == Some(meta.timestamp) {
                continue;
            }
            self.from = meta.seq;
            self.next = stream.first_of_key_frame(at, meta.seq);
            self.waiting = false;
            self.torn = None;
            return true;
        }
        false
    }

    fn pour(&mut self, stream: &Stream, way: &mut Way<'_>) -> Stop {
        if self.next < stream.ring.oldest() {
            way.counters.ring_overruns += stream.ring.oldest().number() - self.next.number();
            self.next = stream.ring.oldest();
            if way.kind == MediaKind::Video {
                return Stop::Cut;
            }
        }
        while self.next < stream.ring.head() {
            let Some(left) = way.left.checked_sub(1) else { return Stop::Budget };
            *way.left = left;
            let at = self.next;
            self.next = at.next();
            let Some((meta, _)) = stream.ring.get(at) else { continue };
            let continuity = match self.base {
                _ if !self.opening => Continuity::Continues,
                Some(base) if base != stream.seq_base => Continuity::Restarted,
                _ if way.kind == MediaKind::Audio => Continuity::Cut { from: meta.seq },
                _ => Continuity::Cut { from: self.from },
            };
            if way.send(self.to, stream, at, continuity) {
                self.opening = false;
                self.base = Some(stream.seq_base);
            } else if way.kind == MediaKind::Video {
                self.torn = Some(meta.timestamp);
                return Stop::Cut;
            }
        }
        Stop::Empty
    }
}

impl Engine {
    /// A producer that lives here. A mirror is none: it never relays on.
    fn own_producer(&self, id: ProducerId) -> Option<ProducerKey> {
        let key = self.producer_ids.get(&id).copied()?;
        self.producers.get(key)?.source.transport()?;
        Some(key)
    }

    /// Feeds a mirror with what it wants from now on.
    pub(super) fn take_demand(
        &mut self,
        now: Instant,
        from: ShardId,
        id: ProducerId,
        encodings: Option<u8>,
    ) {
        if from == self.shard || usize::from(from.0) >= SHARDS_MAX {
            return;
        }
        let Some(key) = self.own_producer(id) else { return };
        let Some(producer) = self.producers.get_mut(key) else { return };
        let place = producer.relays.iter().position(|relay| relay.to == from);
        let relay = match (place, encodings) {
            (None, None) => return,
            (Some(place), _) => producer.relays.get_mut(place),
            (None, Some(_)) => {
                let streams = vec![RelayedTo::default(); producer.streams.len()];
                producer.relays.push(Relay { to: from, streams, preferred: None });
                producer.relays.last_mut()
            }
        };
        let Some(relay) = relay else { return };
        for (place, stream_key) in producer.streams.iter().enumerate() {
            let Some(stream) = self.streams.get_mut(*stream_key) else { continue };
            let Some(relayed) = relay.streams.get_mut(place) else { continue };
            let wanted = encodings.unwrap_or(0).checked_shr(u32::try_from(place).unwrap_or(8));
            let wanted = wanted.is_some_and(|bits| bits & 1 == 1);
            let tap = stream.taps.iter().position(|tap| tap.to == from);
            match tap {
                Some(tap) if !wanted => relayed.base = stream.taps.swap_remove(tap).base,
                None if wanted => {
                    let mut tap = Tap::new(from, relayed.base);
                    tap.begin(now, producer.kind, stream);
                    stream.taps.push(tap);
                }
                _ => {}
            }
            // A key frame that is there already, and the first pulse.
            if !stream.relay_due {
                stream.relay_due = true;
                self.relaying.due.push_back(*stream_key);
            }
        }
        if encodings.is_none() {
            producer.relays.retain(|relay| relay.to != from);
        }
        self.cancel_unwanted_key_frames(key);
    }

    /// Notes what the consumers of a mirror prefer.
    pub(super) fn take_preference(
        &mut self,
        from: ShardId,
        id: ProducerId,
        preferred: Option<Layers>,
    ) {
        let Some(key) = self.own_producer(id) else { return };
        let Some(producer) = self.producers.get_mut(key) else { return };
        if let Some(relay) = producer.relays.iter_mut().find(|relay| relay.to == from) {
            relay.preferred = preferred;
        }
        self.note_demand(key);
    }

    /// A mirror that is being fed needs a key frame.
    pub(super) fn take_key_frame_wish(
        &mut self,
        now: Instant,
        from: ShardId,
        id: ProducerId,
        encoding: u8,
    ) {
        let Some(producer) = self.own_producer(id).and_then(|key| self.producers.get(key)) else {
            return;
        };
        let Some(key) = producer.streams.get(usize::from(encoding)).copied() else { return };
        let Some(stream) = self.streams.get_mut(key) else { return };
        if !stream.paused && stream.taps.iter().any(|tap| tap.to == from) {
            stream.key_frames.request(now);
            self.arm_stream(key);
        }
    }

    /// A stream's sender began anew, or its producer was paused or resumed: so do its taps.
    pub(in crate::engine) fn restart_taps(&mut self, now: Instant, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(producer) = self.producers.get_mut(stream.producer) else { return };
        let mut taps = std::mem::take(&mut stream.taps);
        for tap in &mut taps {
            tap.begin(now, producer.kind, stream);
            if !tap.waiting {
                // The ring was cleared: all that is in it is new.
                tap.next = stream.ring.oldest();
            }
        }
        stream.taps = taps;
        // What a mirror knows of its clock is void.
        for relay in &mut producer.relays {
            if let Some(relayed) = relay.streams.get_mut(stream.encoding) {
                relayed.pulsed = None;
            }
        }
        self.arm_stream(key);
    }

    /// [`restart_taps`](Self::restart_taps) for all streams of a producer.
    pub(in crate::engine) fn restart_taps_of(&mut self, now: Instant, key: ProducerKey) {
        let streams = self.producers.get(key).map(|p| p.streams.clone()).unwrap_or_default();
        for stream in streams {
            self.restart_taps(now, stream);
        }
    }

    /// Sends what streams brought to the shards that want it; true while more is waiting.
    pub(super) fn feed_taps(&mut self, now: Instant, lanes: &mut dyn RelayLanes) -> bool {
        let mut left = RELAY_PACKETS_PER_TURN_MAX;
        for _ in 0..self.relaying.due.len() {
            let Some(key) = self.relaying.due.pop_front() else { break };
            if self.feed_taps_of(now, key, &mut left, lanes) {
                self.relaying.due.push_back(key);
            } else if let Some(stream) = self.streams.get_mut(key) {
                stream.relay_due = false;
            }
            self.arm_stream(key);
        }
        !self.relaying.due.is_empty()
    }

    fn feed_taps_of(
        &mut self,
        now: Instant,
        key: StreamKey,
        left: &mut usize,
        lanes: &mut dyn RelayLanes,
    ) -> bool {
        let Some(stream) = self.streams.get_mut(key) else { return false };
        let Some(producer) = self.producers.get_mut(stream.producer) else { return false };
        let Source::Local(transport) = &producer.source else { return false };
        let Ok(encoding) = u8::try_from(stream.encoding) else { return false };
        let sender = self.transports.get(*transport).map(|t| t.clock).unwrap_or_default();
        let id = producer.id;
        if stream.ssrc.is_some() {
            for relay in &mut producer.relays {
                relay.pulse(now, id, stream, &sender, lanes);
            }
        }
        let mut way = Way {
            now,
            producer: id,
            encoding,
            kind: producer.kind,
            lanes,
            spare: &mut self.relaying.spare,
            counters: &mut self.counters,
            left,
        };
        let mut more = false;
        let mut taps = std::mem::take(&mut stream.taps);
        for tap in &mut taps {
            more |= tap.feed(stream, &mut way);
        }
        stream.taps = taps;
        more
    }
}

impl Relay {
    /// The highest layers that consumers there prefer.
    pub fn preferred(&self) -> Option<Layers> {
        self.preferred
    }

    /// Tells the shard of a stream, if it was not told lately.
    fn pulse(
        &mut self,
        now: Instant,
        producer: ProducerId,
        stream: &Stream,
        sender: &SenderClock,
        lanes: &mut dyn RelayLanes,
    ) {
        let Ok(encoding) = u8::try_from(stream.encoding) else { return };
        let Some(relayed) = self.streams.get_mut(stream.encoding) else { return };
        if relayed.pulsed.is_some_and(|at| now < at + RELAY_PULSE_INTERVAL) {
            return;
        }
        let (activity, clock) = (stream.activity, stream.clock);
        let rates = stream.layer_rates(now);
        let pulse = RelayPulse { producer, encoding, activity, clock, sender: *sender, rates };
        if lanes.send(self.to, RelayItem::Pulse(Box::new(pulse))).is_ok() {
            relayed.pulsed = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::TransportKey;
    use crate::engine::codec::PayloadInfo;
    use crate::engine::codec_table::CodecTable;
    use crate::engine::ingress::push_copy;
    use crate::engine::packet::PacketMeta;
    use crate::engine::stream::StreamSetup;

    /// A lane that refuses the packets with certain numbers, and what it took.
    #[derive(Default)]
    struct Lane {
        refused: Vec<u64>,
        took: Vec<(u64, Continuity)>,
    }

    impl RelayLanes for Lane {
        fn empty(&mut self, _to: ShardId) -> Box<RelayPacket> {
            RelayPacket::empty(crate::engine::test_instant())
        }

        fn send(&mut self, _to: ShardId, item: RelayItem) -> Result<(), RelayItem> {
            let RelayItem::Media(_, packet) = &item else { return Ok(()) };
            assert_eq!(packet.payload(), packet.meta.seq.to_be_bytes());
            if self.refused.contains(&packet.meta.seq) {
                return Err(item);
            }
            self.took.push((packet.meta.seq, packet.continuity));
            Ok(())
        }
    }

    fn stream(now: Instant, kind: MediaKind) -> Stream {
        Stream::new(StreamSetup {
            now,
            producer: ProducerKey::default(),
            source: Source::Local(TransportKey::default()),
            encoding: 0,
            codecs: &CodecTable::default(),
            kind,
            dtx: false,
            key_frame_request_delay: Duration::ZERO,
            paused: false,
        })
    }

    /// Adds packets: number, timestamp, whether a key frame begins with it.
    fn bring(now: Instant, stream: &mut Stream, packets: &[(u64, u32, bool)]) {
        for (seq, timestamp, key_frame) in packets.iter().copied() {
            let info = PayloadInfo { key_frame, ..PayloadInfo::default() };
            let meta = PacketMeta { seq, timestamp, info, ..PacketMeta::default() };
            push_copy(stream, meta, now, &seq.to_be_bytes()).unwrap();
        }
    }

    struct Rig {
        tap: Tap,
        kind: MediaKind,
        lane: Lane,
        spare: Option<Box<RelayPacket>>,
        counters: Counters,
    }

    impl Rig {
        fn new(kind: MediaKind, base: Option<u64>) -> Self {
            let (lane, spare) = (Lane::default(), None);
            Self {
                tap: Tap::new(ShardId(1), base),
                kind,
                lane,
                spare,
                counters: Counters::default(),
            }
        }

        /// Feeds with room for so many packets; true while more is waiting.
        fn feed(&mut self, now: Instant, stream: &mut Stream, mut left: usize) -> bool {
            let mut way = Way {
                now,
                producer: ProducerId(uuid::Uuid::nil()),
                encoding: 0,
                kind: self.kind,
                lanes: &mut self.lane,
                spare: &mut self.spare,
                counters: &mut self.counters,
                left: &mut left,
            };
            self.tap.feed(stream, &mut way)
        }

        fn took(&mut self) -> Vec<(u64, Continuity)> {
            std::mem::take(&mut self.lane.took)
        }
    }

    use Continuity::{Continues, Cut, Restarted};

    #[test]
    fn video_waits_for_a_key_frame_and_takes_what_of_it_came_too_early() {
        let now = crate::engine::test_instant();
        let mut stream = stream(now, MediaKind::Video);
        let mut rig = Rig::new(MediaKind::Video, None);
        rig.tap.begin(now, MediaKind::Video, &mut stream);
        assert!(stream.key_frames.poll(now), "one is asked for");
        bring(now, &mut stream, &[(7, 1, false), (9, 2, false), (8, 2, true), (10, 2, false)]);
        assert!(!rig.feed(now, &mut stream, 100));
        assert_eq!(rig.took(), [(9, Cut { from: 8 }), (8, Continues), (10, Continues)]);
    }

    #[test]
    fn a_key_frame_that_came_just_now_will_do_and_a_paused_stream_is_asked_nothing() {
        let now = crate::engine::test_instant();
        let mut stream = stream(now, MediaKind::Video);
        bring(now, &mut stream, &[(1, 1, true), (2, 1, false)]);
        let mut rig = Rig::new(MediaKind::Video, None);
        rig.tap.begin(now, MediaKind::Video, &mut stream);
        assert_eq!(stream.key_frames.next_deadline(), None);
        rig.feed(now, &mut stream, 100);
        assert_eq!(rig.took(), [(1, Cut { from: 1 }), (2, Continues)]);
        stream.ring.clear();
        stream.paused = true;
        rig.tap.begin(now, MediaKind::Video, &mut stream);
        assert_eq!(stream.key_frames.next_deadline(), None);
    }

    #[test]
    fn what_a_full_lane_tore_is_no_beginning() {
        let now = crate::engine::test_instant();
        // Parameter sets and slices of one key frame may both say that it begins there.
        let frames = [
            (1, 1, true),
            (2, 2, true),
            (3, 2, true),
            (4, 2, false),
            (5, 3, false),
            (6, 4, true),
            (7, 4, false),
        ];
        for refused in 2..=4 {
            let mut stream = stream(now, MediaKind::Video);
            let mut rig = Rig::new(MediaKind::Video, None);
            rig.tap.begin(now, MediaKind::Video, &mut stream);
            stream.key_frames.cancel();
            rig.lane.refused = vec![refused];
            bring(now, &mut stream, &frames);
            rig.feed(now, &mut stream, 100);
            let mut expected = vec![(1, Cut { from: 1 })];
            expected.extend((2..refused).map(|seq| (seq, Continues)));
            expected.extend([(6, Cut { from: 6 }), (7, Continues)]);
            assert_eq!(rig.took(), expected, "{refused}");
            let counted = (rig.counters.relay_dropped, rig.counters.relay_cuts);
            assert_eq!(counted, (1, 1));
            assert_eq!(rig.counters.relayed_out, refused + 1);
            assert!(stream.key_frames.poll(now), "and one is asked for");
        }
    }

    #[test]
    fn audio_loses_what_the_lane_refuses_and_goes_on() {
        let now = crate::engine::test_instant();
        let mut stream = stream(now, MediaKind::Audio);
        bring(now, &mut stream, &[(1, 1, true)]);
        let mut rig = Rig::new(MediaKind::Audio, None);
        rig.tap.begin(now, MediaKind::Audio, &mut stream);
        rig.lane.refused = vec![2, 4];
        bring(now, &mut stream, &[(2, 2, true), (3, 3, true), (4, 4, true), (5, 5, true)]);
        rig.feed(now, &mut stream, 100);
        assert_eq!(rig.took(), [(3, Cut { from: 3 }), (5, Continues)]);
        assert_eq!((rig.counters.relay_dropped, rig.counters.relay_cuts), (2, 0));
        assert_eq!(stream.key_frames.next_deadline(), None);
    }

    #[test]
    fn a_sender_that_began_anew_since_the_last_packet_is_told_of() {
        let now = crate::engine::test_instant();
        let mut stream = stream(now, MediaKind::Audio);
        for (base, expected) in
            [(None, Cut { from: 1 }), (Some(0), Cut { from: 1 }), (Some(5), Restarted)]
        {
            let mut rig = Rig::new(MediaKind::Audio, base);
            rig.tap.begin(now, MediaKind::Audio, &mut stream);
            bring(now, &mut stream, &[(1, 1, true), (2, 2, true)]);
            rig.feed(now, &mut stream, 100);
            assert_eq!(rig.took(), [(1, expected), (2, Continues)]);
            assert_eq!(rig.tap.base, Some(0));
        }
    }

    #[test]
    fn a_turn_stops_where_it_has_done_enough_and_the_next_goes_on_there() {
        let now = crate::engine::test_instant();
        let mut stream = stream(now, MediaKind::Video);
        let mut rig = Rig::new(MediaKind::Video, None);
        rig.tap.begin(now, MediaKind::Video, &mut stream);
        bring(now, &mut stream, &[(1, 1, true), (2, 1, false), (3, 2, false)]);
        assert!(rig.feed(now, &mut stream, 2));
        assert!(rig.feed(now, &mut stream, 0));
        assert!(!rig.feed(now, &mut stream, 2));
        let took: Vec<u64> = rig.took().into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(took, [1, 2, 3]);
    }

    #[test]
    fn a_ring_that_went_round_is_a_cut() {
        let now = crate::engine::test_instant();
        let mut stream = stream(now, MediaKind::Video);
        let mut rig = Rig::new(MediaKind::Video, None);
        rig.tap.begin(now, MediaKind::Video, &mut stream);
        bring(now, &mut stream, &[(1, 1, true)]);
        rig.feed(now, &mut stream, 100);
        stream.key_frames.cancel();
        let many: Vec<_> = (2..=1_100).map(|seq| (seq, 2, false)).collect();
        bring(now, &mut stream, &many);
        bring(now, &mut stream, &[(1_101, 3, true), (1_102, 3, false)]);
        rig.feed(now, &mut stream, 5_000);
        let expected = [(1, Cut { from: 1 }), (1_101, Cut { from: 1_101 }), (1_102, Continues)];
        assert_eq!(rig.took(), expected);
        assert_eq!((rig.counters.relay_cuts, rig.counters.relay_dropped), (1, 0));
        assert!(rig.counters.ring_overruns > 0);
    }
}
