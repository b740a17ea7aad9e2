//! What publishers are asked for: only what somebody wants, and no more than they may send.

use std::time::Instant;

use ringcast::control::command::{BitrateChange, Command, Event, Layers};
use ringcast::engine::rtcp::{RtcpItem, parse};
use ringcast::engine::srtp::SrtpProfile;

use super::media::Codec;
use super::relay::{HERE, THERE, joined};
use super::room::{Camera, Feed, Room, ms, secs};

fn layered() -> Camera {
    Camera { rids: vec!["q", "h", "f"], ..Camera::new(Codec::Vp8) }
}

/// Which encodings were told to be wanted, in order of telling.
fn told(room: &Room, feed: &Feed) -> Vec<[bool; 3]> {
    let told = room.events.iter().filter_map(|(_, event)| match event {
        Event::ProducerDemand { producer, encodings } if *producer == feed.id => {
            let wanted: Vec<_> = encodings.iter().map(Option::is_some).collect();
            Some(wanted.try_into().expect("three encodings"))
        }
        _ => None,
    });
    told.collect()
}

#[test]
fn the_highest_encoding_that_anybody_wants_is_told_whichever_shard_they_are_on() {
    for shard in [HERE, THERE] {
        let mut room = Room::with_shards(611, 2);
        let alice = room.publisher();
        let feed = room.produce(alice, &layered());
        room.start(&feed);
        room.run_for(secs(4));
        assert_eq!(told(&room, &feed), [[false; 3]; 0], "somebody may be about to come");
        room.run_for(secs(2));
        assert_eq!(told(&room, &feed), [[false, false, false]]);

        let bob = joined(&mut room, shard);
        room.preferred_layers = Some((1, None));
        let low = room.consume(bob, &feed);
        room.run_for(ms(10));
        assert_eq!(told(&room, &feed)[1..], [[true, true, false]], "at once");
        room.preferred_layers = None;
        let carol = joined(&mut room, HERE);
        let high = room.consume(carol, &feed);
        room.run_for(ms(10));
        assert_eq!(told(&room, &feed)[2..], [[true, true, true]]);

        // Nobody takes the lowest; but both may have to go down to it.
        room.run_for(secs(20));
        assert_eq!(told(&room, &feed).len(), 3);
        room.command(Command::PauseConsumer(high.id, true));
        room.run_for(secs(4));
        assert_eq!(told(&room, &feed).len(), 3, "not for a moment's sake");
        room.run_for(secs(2));
        assert_eq!(told(&room, &feed)[3..], [[true, true, false]]);
        room.command(Command::CloseConsumer(high.id));
        room.command(Command::CloseConsumer(low.id));
        room.run_for(secs(6));
        assert_eq!(told(&room, &feed)[4..], [[false, false, false]]);
    }
}

#[test]
fn layers_of_one_stream_are_told_by_their_numbers() {
    let last = |room: &Room| {
        room.events.iter().rev().find_map(|(_, event)| match event {
            Event::ProducerDemand { encodings, .. } => Some(encodings.clone()),
            _ => None,
        })
    };
    let layers = |spatial| Some(vec![Some(Layers { spatial, temporal: 0 })]);
    for shard in [HERE, THERE] {
        let mut room = Room::with_shards(612, 2);
        let alice = room.publisher();
        let feed = room.produce(alice, &Camera::new(Codec::Vp9Svc));
        let bob = joined(&mut room, shard);
        room.preferred_layers = Some((1, Some(0)));
        let view = room.consume(bob, &feed);
        room.start(&feed);
        room.run_for(secs(6));
        assert_eq!(last(&room), layers(1));
        let prefer =
            |spatial| Command::SetPreferredLayers(view.id, Layers { spatial, temporal: 0 });
        room.command(prefer(2));
        room.run_for(ms(10));
        assert_eq!(last(&room), layers(2), "at once");
        room.command(prefer(0));
        room.run_for(secs(6));
        assert_eq!(last(&room), layers(0));
    }
}

/// What a publisher was told by REMB since `since`, bits/s.
fn limits(room: &Room, feed: &Feed, since: Instant) -> Vec<u64> {
    let rtcp = room.seats[feed.peer.0].raw().rtcp.iter().filter(|(at, _)| *at >= since);
    let told = rtcp.flat_map(|(_, bytes)| {
        let told = parse(bytes).filter_map(|item| match item {
            RtcpItem::Remb(remb) => Some(remb.bitrate_bps),
            _ => None,
        });
        told.collect::<Vec<_>>()
    });
    told.collect()
}

#[test]
fn a_publisher_is_told_what_it_may_send_whatever_it_offers_and_when_that_ends() {
    for transport_cc in [true, false] {
        let mut room = Room::new(614);
        let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        let feed = room.produce(alice, &Camera { transport_cc, ..Camera::new(Codec::Vp8) });
        room.start(&feed);
        room.run_for(secs(3));
        let before = limits(&room, &feed, room.start);
        assert_eq!(before.is_empty(), transport_cc, "it estimates by itself: {before:?}");

        let transport = room.seats[alice.0].transport;
        let limit = |bps| {
            let change = BitrateChange { max_incoming_bps: Some(bps), ..BitrateChange::default() };
            Command::SetBitrates(transport, change)
        };
        let limit_bps = 200_000;
        room.command(limit(limit_bps));
        // What was under way has arrived.
        room.run_for(ms(100));
        let since = room.now;
        room.run_for(secs(5));
        let told = limits(&room, &feed, since);
        assert!(told.len() >= 4, "{told:?}");
        // The mantissa has 18 bits.
        assert!(told.iter().all(|bps| limit_bps - bps < 2), "{told:?}");

        room.command(limit(0));
        room.run_for(ms(100));
        let since = room.now;
        room.run_for(secs(8));
        let told = limits(&room, &feed, since);
        assert!(told.iter().all(|bps| *bps > limit_bps), "{told:?}");
        assert!(told.len() >= 4 && (told.len() == 4) == transport_cc, "{told:?}");
    }
}

#[test]
fn encodings_that_nobody_consumes_are_not_asked_for_key_frames() {
    for shard in [HERE, THERE] {
        let mut room = Room::with_shards(613, 2);
        let alice = room.publisher();
        let feed = room.produce(alice, &layered());
        room.start(&feed);
        // Until it has settled: before that the lowest that arrives may be another.
        room.run_for(secs(5));
        let bob = joined(&mut room, shard);
        room.preferred_layers = Some((0, None));
        let since = room.now;
        room.consume(bob, &feed);
        room.run_for(secs(5));
        let asked = &room.seats[alice.0].stock().asked;
        let rids: Vec<_> = asked.iter().filter(|(at, ..)| *at >= since).map(|a| &a.2).collect();
        assert!(!rids.is_empty(), "a viewer needs a key frame");
        assert!(rids.iter().all(|rid| rid.as_deref() == Some("q")), "{rids:?}");
    }
}
