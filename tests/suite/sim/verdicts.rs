//! What the server counted and what a peer heard, and what must be true of it.

use std::time::Instant;

use ringcast::control::command::{Command, Inventory, Reply};
use ringcast::engine::Engine;
use ringcast::engine::machine::Machine;
use ringcast::engine::report::{Counters, Discard, Gauges};
use ringcast::engine::rtp::RtpView;

use super::clients::{Heard, Party};
use super::media::{Packet, picture_of};
use super::room::{Feed, Room, View};

impl Room {
    /// The first shard's engine.
    pub(crate) fn engine(&mut self) -> &mut Engine {
        &mut self.shards.engines[0]
    }

    pub(crate) fn counters(&self) -> Counters {
        self.shards.engines[0].report().0
    }

    pub(crate) fn counters_of(&self, shard: usize) -> Counters {
        self.shards.engines[shard].report().0
    }

    pub(crate) fn gauges_of(&self, shard: usize) -> Gauges {
        self.shards.engines[shard].report().2
    }

    pub(crate) fn discarded(&self, reason: Discard) -> u64 {
        self.shards.engines[0].report().1.count(reason)
    }

    pub(crate) fn gauges(&self) -> Gauges {
        self.shards.engines[0].report().2
    }

    pub(crate) fn engine_deadline(&self) -> Option<Instant> {
        self.shards.engines[0].poll_timeout()
    }

    pub(crate) fn inventory(&mut self) -> Inventory {
        match self.command(Command::Inventory) {
            Reply::Inventory(inventory) => inventory,
            other => panic!("{other:?}"),
        }
    }

    /// What arrived of a view on its media SSRC, in the order of arrival.
    pub(crate) fn heard(&self, view: &View) -> Vec<Heard> {
        match &self.seats[view.peer.0].party {
            Party::Stock(client) => {
                client.heard.iter().filter(|h| h.ssrc == view.ssrc).cloned().collect()
            }
            Party::Viewer(_) => panic!("a viewer keeps no packets"),
            Party::Raw(client) => client
                .heard
                .iter()
                .filter(|heard| heard.ssrc == view.ssrc)
                .map(|heard| Heard {
                    at: heard.at,
                    ssrc: heard.ssrc,
                    payload_type: heard.payload_type,
                    marker: heard.marker,
                    seq: heard.seq,
                    timestamp: heard.timestamp,
                    mid: None,
                    abs_send_time: false,
                    transport_seq: None,
                    header_len: RtpView::parse(&heard.wire).unwrap().header_len(),
                    payload: heard.payload.clone(),
                })
                .collect(),
        }
    }

    /// What a stock client's application gets of a view, by number: no duplicates, repaired.
    pub(crate) fn played(&self, view: &View) -> Vec<(u64, u32, Vec<u8>)> {
        let client = self.seats[view.peer.0].stock();
        let of_view = client.played.iter().filter(|(_, ssrc, ..)| *ssrc == view.ssrc);
        let mut played: Vec<_> = of_view
            .map(|(_, _, seq, timestamp, payload)| (*seq, *timestamp, payload.clone()))
            .collect();
        played.sort();
        played
    }

    /// Everything that the feed's first source sent arrived once, in order, from its first key frame
    /// (audio: from its first packet), without a gap in numbers, in the view's numbers.
    pub(crate) fn assert_all_arrived(&self, view: &View, feed: &Feed) {
        let sent = &self.source(feed, 0).sent;
        let heard = self.heard(view);
        // The last packets may still be under way.
        let landed = sent.iter().filter(|p| p.at + super::room::ms(100) < self.now).count();
        assert!(heard.len() >= landed && landed > 50, "{} of {landed} heard", heard.len());
        assert_same(&heard, sent);
        self.assert_numbers(&heard, view);
    }

    /// Numbers rise by one, and every packet has the view's SSRC, payload type and extensions.
    pub(crate) fn assert_numbers(&self, heard: &[Heard], view: &View) {
        for pair in heard.windows(2) {
            assert_eq!(pair[1].seq, pair[0].seq.wrapping_add(1), "a gap in the numbers");
        }
        for packet in heard {
            assert_eq!((packet.ssrc, packet.payload_type), (view.ssrc, view.payload_type));
            assert_eq!(packet.mid.as_deref(), Some(view.mid.as_str()));
            assert!(packet.abs_send_time, "abs-send-time is missing");
        }
    }

    /// Every picture that was played is whole and in order from the first key frame on: the
    /// payloads played are a run of what was sent, without a hole but at the end.
    pub(crate) fn assert_played_from_key_frame(&self, view: &View, feed: &Feed) {
        let sent = &self.source(feed, 0).sent;
        let played = self.played(view);
        let first = sent.iter().position(|p| *p.payload == *played[0].2).expect("known bytes");
        // Its very first packets may have been lost: a receiver cannot miss what it has never seen.
        let key = sent.iter().find(|p| p.key && p.timestamp == sent[first].timestamp);
        assert!(key.is_some(), "begins with a key frame");
        let landed = sent.iter().filter(|p| p.at + super::room::ms(800) < self.now).count();
        assert!(played.len() >= landed - first, "{} of {}", played.len(), landed - first);
        for (index, (seq, timestamp, payload)) in played.iter().take(landed - first).enumerate() {
            let packet = &sent[first + index];
            assert!(
                *payload == *packet.payload,
                "packet {} of {landed} did not come",
                first + index
            );
            assert_eq!(*seq - played[0].0, index as u64, "a gap in the numbers");
            let since = |first: u32, now: u32| now.wrapping_sub(first);
            assert_eq!(
                since(played[0].1, *timestamp),
                since(sent[first].timestamp, packet.timestamp)
            );
        }
    }
}

/// The same of what is told apart of their payloads: where picture numbers were rewritten.
pub(crate) fn assert_same_pictures(heard: &[Heard], sent: &[Packet]) {
    let mut heard = heard.to_vec();
    let mut sent = sent.to_vec();
    heard.iter_mut().for_each(|heard| heard.payload = picture_of(&heard.payload).to_vec());
    sent.iter_mut().for_each(|packet| packet.payload = picture_of(&packet.payload).into());
    assert_same(&heard, &sent);
}

/// `heard` is `sent` from the first packet heard on: bytes, markers and distances in time.
pub(crate) fn assert_same(heard: &[Heard], sent: &[Packet]) {
    let first = sent.iter().position(|p| *p.payload == *heard[0].payload).expect("known bytes");
    let audio = sent.iter().all(|packet| !packet.key);
    assert!(audio || sent[first].key, "begins with a key frame");
    for (index, (heard_one, packet)) in heard.iter().zip(&sent[first..]).enumerate() {
        assert!(*heard_one.payload == *packet.payload, "packet {index} has other bytes");
        assert_eq!(heard_one.marker, packet.marker);
        assert_eq!(
            heard_one.timestamp.wrapping_sub(heard[0].timestamp),
            packet.timestamp.wrapping_sub(sent[first].timestamp)
        );
    }
}
