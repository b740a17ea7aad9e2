//! The lanes over which engines relay media: into each shard one for video, one for audio, one for
//! signals, and one by which the boxes that its own packets travelled in come back.
//!
//! Owned by the shard, used on its thread; the engine sees it as [`RelayLanes`]. Invariants: a send
//! never waits, a full lane gives the item back; items of one kind from one shard arrive in order;
//! an emptied box goes to the shard that filled it, or is freed when that has enough, so boxes never
//! outnumber what the lanes hold; a peer is woken once a turn, and boxes that come back wake nobody.
//! It decides nothing about media: what to send, and what a full lane means, is the engine's.

use std::time::Instant;

use super::Shard;
use crate::engine::machine::Machine;
use crate::engine::relay::{RelayItem, RelayLanes, RelayPacket};
use crate::id::ShardId;
use crate::lane::{LaneReceiver, LaneSender, Waker, lane};
use crate::limits::{
    RELAY_AUDIO_LANE_CAPACITY, RELAY_AUDIO_PER_TURN_MAX, RELAY_BOXES_RETURNED_MAX,
    RELAY_SIGNAL_LANE_CAPACITY, RELAY_SIGNALS_PER_TURN_MAX, RELAY_VIDEO_LANE_CAPACITY,
    RELAY_VIDEO_PER_TURN_MAX,
};
use crate::ortc::types::MediaKind;

/// An item with the shard that sent it.
#[derive(Debug)]
pub(crate) struct Relayed {
    from: ShardId,
    item: RelayItem,
}

/// The sending ends of the lanes into one shard.
#[derive(Debug, Clone)]
pub(crate) struct RelayPeer {
    video: LaneSender<Relayed>,
    audio: LaneSender<Relayed>,
    signals: LaneSender<Relayed>,
    emptied: LaneSender<Box<RelayPacket>>,
}

/// The receiving ends of the lanes into one shard.
#[derive(Debug)]
pub(crate) struct RelayEnds {
    video: LaneReceiver<Relayed>,
    audio: LaneReceiver<Relayed>,
    signals: LaneReceiver<Relayed>,
    emptied: LaneReceiver<Box<RelayPacket>>,
}

/// The lanes into the thread of `waker`.
pub(crate) fn relay_lanes(waker: &Waker) -> (RelayPeer, RelayEnds) {
    let (video, video_end) = lane(RELAY_VIDEO_LANE_CAPACITY, waker);
    let (audio, audio_end) = lane(RELAY_AUDIO_LANE_CAPACITY, waker);
    let (signals, signals_end) = lane(RELAY_SIGNAL_LANE_CAPACITY, waker);
    let (emptied, emptied_end) = lane(RELAY_BOXES_RETURNED_MAX, waker);
    let ends = RelayEnds {
        video: video_end,
        audio: audio_end,
        signals: signals_end,
        emptied: emptied_end,
    };
    (RelayPeer { video, audio, signals, emptied }, ends)
}

/// One shard's lanes to and from all others.
pub(super) struct Relay {
    shard: ShardId,
    peers: Vec<RelayPeer>,
    ends: RelayEnds,
    /// Peers that were sent something since the last [`wake_peers`](Self::wake_peers).
    to_wake: Vec<ShardId>,
    now: Instant,
    /// A packet was sent since the last [`sweep`](Self::sweep).
    is_used: bool,
    /// Signals whose lane was full.
    pub(super) refused: u64,
    /// Boxes made because none had come back.
    pub(super) boxes: u64,
}

impl Relay {
    /// For `shard`, with the lanes into all shards in order of their ids, and out of its own.
    pub(super) fn new(
        shard: ShardId,
        peers: Vec<RelayPeer>,
        ends: RelayEnds,
        now: Instant,
    ) -> Self {
        let to_wake = Vec::with_capacity(peers.len());
        Self { shard, peers, ends, to_wake, now, is_used: false, refused: 0, boxes: 0 }
    }

    /// True when nothing waits in any lane. Boxes that came back wait for the next packet.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.audio.is_empty() && self.ends.signals.is_empty() && self.ends.video.is_empty()
    }

    /// Wakes the shards that something was sent to, once each.
    pub(super) fn wake_peers(&mut self) {
        for shard in self.to_wake.drain(..) {
            if let Some(peer) = self.peers.get(shard.index()) {
                peer.signals.wake();
            }
        }
    }

    /// Once a second: frees the boxes when nothing was relayed since the last time.
    pub(super) fn sweep(&mut self) {
        if !std::mem::take(&mut self.is_used) {
            // Those still under way come back later, and go the next time.
            while self.ends.emptied.try_recv().is_some() {}
        }
    }

    /// Hands over what other shards sent: sound first, then what must not wait behind pictures.
    /// True when more may be waiting.
    fn take(&self, mut handle: impl FnMut(ShardId, RelayItem) -> Option<Box<RelayPacket>>) -> bool {
        let mut more = false;
        for (lane, portion) in [
            (&self.ends.audio, RELAY_AUDIO_PER_TURN_MAX),
            (&self.ends.signals, RELAY_SIGNALS_PER_TURN_MAX),
            (&self.ends.video, RELAY_VIDEO_PER_TURN_MAX),
        ] {
            let waiting = std::iter::from_fn(|| lane.try_recv());
            for Relayed { from, item } in waiting.take(portion) {
                if let Some(emptied) = handle(from, item) {
                    self.give_back(from, emptied);
                }
            }
            more |= !lane.is_empty();
        }
        more
    }

    /// Gives an emptied box back to the shard that filled it; one that has enough frees it.
    fn give_back(&self, to: ShardId, packet: Box<RelayPacket>) {
        if let Some(peer) = self.peers.get(to.index()) {
            drop(peer.emptied.push(packet));
        }
    }
}

impl RelayLanes for Relay {
    fn empty(&mut self, _to: ShardId) -> Box<RelayPacket> {
        self.ends.emptied.try_recv().unwrap_or_else(|| {
            self.boxes += 1;
            RelayPacket::empty(self.now)
        })
    }

    fn send(&mut self, to: ShardId, item: RelayItem) -> Result<(), RelayItem> {
        let Some(peer) = self.peers.get(to.index()) else { return Err(item) };
        let (lane, is_signal) = match &item {
            RelayItem::Media(MediaKind::Video, _) => (&peer.video, false),
            RelayItem::Media(MediaKind::Audio, _) => (&peer.audio, false),
            RelayItem::Pulse(_) | RelayItem::Demand { .. } | RelayItem::KeyFrame { .. } => {
                (&peer.signals, true)
            }
        };
        if let Err(back) = lane.push(Relayed { from: self.shard, item }) {
            self.refused += u64::from(is_signal);
            return Err(back.item);
        }
        self.is_used |= !is_signal;
        if !self.to_wake.contains(&to) {
            self.to_wake.push(to);
        }
        Ok(())
    }
}

impl<M: Machine> Shard<M> {
    /// Gives the machine what other shards sent; true when more may be waiting.
    pub(super) fn take_relayed(&mut self, now: Instant) -> bool {
        let Self { machine, relay, .. } = self;
        relay.take(|from, item| machine.handle_relay(now, from, item))
    }

    /// Lets the machine send other shards what is due to them; true when more is waiting.
    pub(super) fn relay(&mut self, now: Instant) -> bool {
        self.relay.now = now;
        self.machine.poll_relay(now, &mut self.relay)
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::id::ProducerId;
    use crate::shard::run::clock;

    const HERE: ShardId = ShardId(0);
    const THERE: ShardId = ShardId(1);

    /// Two shards' ends.
    fn pair() -> (Relay, Relay, Waker) {
        let waker = Waker::new().unwrap();
        let (here, here_ends) = relay_lanes(&Waker::new().unwrap());
        let (there, there_ends) = relay_lanes(&waker);
        let peers = vec![here, there];
        let relay = |shard, ends| Relay::new(shard, peers.clone(), ends, clock());
        (relay(HERE, here_ends), relay(THERE, there_ends), waker)
    }

    fn key_frame() -> RelayItem {
        RelayItem::KeyFrame { producer: ProducerId(uuid::Uuid::nil()), encoding: 0 }
    }

    fn packet_of(item: RelayItem) -> Option<Box<RelayPacket>> {
        match item {
            RelayItem::Media(_, packet) => Some(packet),
            _ => None,
        }
    }

    fn is_readable(waker: &Waker) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(waker, PollFlags::IN)], Some(&now)) == Ok(1)
    }

    #[test]
    fn each_kind_has_a_lane_and_a_full_one_gives_the_item_back() {
        let (mut here, there, _) = pair();
        for (kind, capacity) in [
            (MediaKind::Video, RELAY_VIDEO_LANE_CAPACITY),
            (MediaKind::Audio, RELAY_AUDIO_LANE_CAPACITY),
        ] {
            let sent = (0..=capacity).take_while(|_| {
                let packet = here.empty(THERE);
                here.send(THERE, RelayItem::Media(kind, packet)).is_ok()
            });
            assert_eq!(sent.count(), capacity, "{kind:?}");
        }
        assert_eq!(here.refused, 0, "packets are the machine's to count");
        assert!(there.ends.signals.is_empty());
        let sent = (0..=RELAY_SIGNAL_LANE_CAPACITY)
            .take_while(|_| here.send(THERE, key_frame()).is_ok())
            .count();
        assert_eq!((sent, here.refused), (RELAY_SIGNAL_LANE_CAPACITY, 1));
        assert!(here.send(ShardId(2), key_frame()).is_err(), "no such shard");
        assert!(here.is_empty() && !there.is_empty());
    }

    #[test]
    fn a_sleeping_peer_is_woken_once_a_turn_and_only_by_what_it_must_do() {
        let (mut here, mut there, waker) = pair();
        waker.prepare_sleep();
        here.send(THERE, key_frame()).unwrap();
        here.send(THERE, key_frame()).unwrap();
        assert!(!is_readable(&waker), "not before the turn is over");
        assert_eq!(here.to_wake, [THERE]);
        here.wake_peers();
        assert!(is_readable(&waker) && here.to_wake.is_empty());
        waker.awake();
        waker.drain();

        waker.prepare_sleep();
        let emptied = RelayPacket::empty(clock());
        here.give_back(THERE, emptied);
        here.wake_peers();
        assert!(!is_readable(&waker), "a box that comes back can wait");
        drop(there.empty(HERE));
        assert_eq!(there.boxes, 0);
    }

    #[test]
    fn boxes_are_used_again_and_freed_when_nothing_is_relayed() {
        let (mut here, there, _) = pair();
        let mut turn = |packets: usize| {
            for _ in 0..packets {
                let packet = here.empty(THERE);
                here.send(THERE, RelayItem::Media(MediaKind::Video, packet)).unwrap();
            }
            while there.take(|_, item| packet_of(item)) {}
            here.boxes
        };
        assert_eq!([turn(5), turn(3), turn(5), turn(6)], [5, 5, 5, 6]);
        here.sweep();
        assert!(!here.ends.emptied.is_empty(), "they were used just now");
        here.sweep();
        assert!(here.ends.emptied.is_empty());
    }

    #[test]
    fn a_turn_takes_a_portion_of_each_lane_and_sound_before_pictures() {
        let (mut here, there, _) = pair();
        for _ in 0..RELAY_VIDEO_PER_TURN_MAX + 2 {
            let packet = here.empty(THERE);
            here.send(THERE, RelayItem::Media(MediaKind::Video, packet)).unwrap();
        }
        for _ in 0..RELAY_SIGNALS_PER_TURN_MAX + 1 {
            here.send(THERE, key_frame()).unwrap();
        }
        for _ in 0..3 {
            let packet = here.empty(THERE);
            here.send(THERE, RelayItem::Media(MediaKind::Audio, packet)).unwrap();
        }
        let turn = || {
            let mut taken: Vec<(&str, usize)> = Vec::new();
            let more = there.take(|from, item| {
                assert_eq!(from, HERE);
                let kind = match &item {
                    RelayItem::Media(MediaKind::Audio, _) => "audio",
                    RelayItem::Media(MediaKind::Video, _) => "video",
                    _ => "signal",
                };
                match taken.last_mut().filter(|(last, _)| *last == kind) {
                    Some((_, count)) => *count += 1,
                    None => taken.push((kind, 1)),
                }
                packet_of(item)
            });
            (taken, more)
        };
        let portions = [
            ("audio", 3),
            ("signal", RELAY_SIGNALS_PER_TURN_MAX),
            ("video", RELAY_VIDEO_PER_TURN_MAX),
        ];
        assert_eq!(turn(), (portions.to_vec(), true));
        assert_eq!(turn(), (vec![("signal", 1), ("video", 2)], false));
        assert_eq!(turn(), (vec![], false));
    }

    #[test]
    fn a_shard_with_enough_boxes_gets_no_more() {
        let (here, there, _) = pair();
        for _ in 0..RELAY_BOXES_RETURNED_MAX + 10 {
            there.give_back(HERE, RelayPacket::empty(clock()));
        }
        let kept = std::iter::from_fn(|| here.ends.emptied.try_recv()).count();
        assert_eq!(kept, RELAY_BOXES_RETURNED_MAX);
    }

    #[test]
    fn the_lanes_into_a_shard_stay_under_half_a_megabyte() {
        let items =
            RELAY_VIDEO_LANE_CAPACITY + RELAY_AUDIO_LANE_CAPACITY + RELAY_SIGNAL_LANE_CAPACITY;
        // A slot has a stamp beside its item.
        let bytes = items * (size_of::<Relayed>() + 8) + RELAY_BOXES_RETURNED_MAX * 16;
        assert!(bytes <= 512 * 1024, "{bytes}");
    }
}
