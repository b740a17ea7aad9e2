//! What publishers are asked for: only what somebody wants, and no more than they may send.

use ringcast::control::command::{Command, Event};
use ringcast::engine::demand::WantedLayers;

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
    let mut room = Room::with_shards(612, 2);
    let alice = room.publisher();
    let feed = room.produce(alice, &Camera::new(Codec::Vp9Svc));
    let bob = joined(&mut room, THERE);
    room.preferred_layers = Some((1, Some(0)));
    room.consume(bob, &feed);
    room.start(&feed);
    room.run_for(secs(6));
    let last = room.events.iter().rev().find_map(|(_, event)| match event {
        Event::ProducerDemand { encodings, .. } => Some(encodings.clone()),
        _ => None,
    });
    assert_eq!(last, Some(vec![Some(WantedLayers { spatial: 1, temporal: 0 })]));
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
