//! Pausing at either end.

use ringcast::control::command::{Command, Event, Layers};

use super::media::Codec;
use super::room::{Camera, Feed, Room, View, ms, secs};

/// Between which packets heard more than half a second passed, and what came behind it.
fn after_silence(room: &Room, view: &View) -> Vec<usize> {
    let heard = room.heard(view);
    (1..heard.len()).filter(|index| heard[*index].at - heard[*index - 1].at > ms(500)).collect()
}

fn assert_resumed_cleanly(room: &Room, view: &View, feed: &Feed) {
    let heard = room.heard(view);
    room.assert_numbers(&heard, view);
    let silences = after_silence(room, view);
    assert_eq!(silences.len(), 1, "one pause is heard");
    let sent = &room.source(feed, 0).sent;
    let resumed = &heard[silences[0]];
    let packet = sent.iter().find(|packet| *packet.payload == *resumed.payload).unwrap();
    assert!(packet.key || feed.codec == Codec::Opus, "begins again with a key frame");
    assert!(resumed.timestamp.wrapping_sub(heard[silences[0] - 1].timestamp) < 1 << 31);
    let last = sent.iter().rev().find(|p| p.at + ms(100) < room.now).unwrap();
    assert!(heard.iter().rev().take(50).any(|h| *h.payload == *last.payload), "and goes on");
}

#[test]
fn a_paused_consumer_gets_nothing_and_goes_on_with_a_key_frame_and_no_gap() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Opus] {
        let mut room = Room::new(41);
        let alice = room.publisher();
        let bob = room.subscriber();
        let feed = room.produce(alice, &Camera::new(codec));
        let view = room.consume(bob, &feed);
        let carol = room.subscriber();
        let other = room.consume(carol, &feed);
        room.start(&feed);
        room.run_for(secs(4));
        room.command(Command::PauseConsumer(view.id, true));
        room.run_for(ms(50));
        let before = room.heard(&view).len();
        room.run_for(secs(3));
        assert_eq!(room.heard(&view).len(), before, "{codec:?} while paused");
        let resumed = room.now;
        room.command(Command::PauseConsumer(view.id, false));
        room.run_for(secs(3));
        let first = room.heard(&view).into_iter().find(|heard| heard.at > resumed).unwrap();
        assert!(first.at - resumed < ms(100), "{codec:?}");
        assert_resumed_cleanly(&room, &view, &feed);
        room.assert_all_arrived(&other, &feed);
    }
}

#[test]
fn a_paused_producer_reaches_nobody_and_comes_back_with_a_key_frame_for_all() {
    for codec in [Codec::Vp8, Codec::Opus] {
        let mut room = Room::new(42);
        let alice = room.publisher();
        let feed = room.produce(alice, &Camera::new(codec));
        let views: Vec<_> = (0..3)
            .map(|_| {
                let peer = room.subscriber();
                room.consume(peer, &feed)
            })
            .collect();
        room.start(&feed);
        room.run_for(secs(4));
        room.command(Command::PauseProducer(feed.id, true));
        room.run_for(ms(50));
        let before = room.counters().packets_out;
        let asked = room.counters().plis_sent;
        room.run_for(secs(3));
        assert_eq!(room.counters().packets_out, before, "{codec:?} while paused");
        assert_eq!(room.counters().plis_sent, asked, "no key frame is wanted while paused");
        let resumed = room.now;
        room.command(Command::PauseProducer(feed.id, false));
        room.run_for(secs(3));
        for view in &views {
            let first = room.heard(view).into_iter().find(|heard| heard.at > resumed).unwrap();
            assert!(first.at - resumed < ms(100), "{codec:?}");
            assert_resumed_cleanly(&room, view, &feed);
        }
    }
}

#[test]
fn a_consumer_made_paused_begins_when_it_is_resumed() {
    let mut room = Room::new(43);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let capabilities = room.capabilities.clone();
    let view = room.consume_as(bob, &camera, &capabilities, true);
    room.start(&camera);
    room.run_for(secs(2));
    assert!(room.heard(&view).is_empty());
    room.command(Command::PauseConsumer(view.id, false));
    room.run_for(secs(2));
    let heard = room.heard(&view);
    super::verdicts::assert_same(&heard, &room.source(&camera, 0).sent);
    room.assert_numbers(&heard, &view);
}

/// What was told of the layers of a view, in order.
fn layers_told(room: &Room, view: &View) -> Vec<Option<Layers>> {
    let told = room.events.iter().filter_map(|(_, event)| match event {
        Event::ConsumerLayers { consumer, layers } if *consumer == view.id => Some(*layers),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_pause_at_either_end_is_told_as_no_layers_and_its_end_as_some() {
    for (seed, shards, silent) in [(44, 1, false), (45, 2, false), (46, 1, true)] {
        let mut room = Room::with_shards(seed, shards);
        let alice = room.publisher();
        let feed = Camera { rids: vec!["q", "h"], ..Camera::new(Codec::Vp8) };
        let feed = room.produce(alice, &feed);
        room.shard = shards - 1;
        let bob = room.subscriber();
        let mut capabilities = room.capabilities.clone();
        if silent {
            // Its client does not tell what arrives.
            capabilities.header_extensions.clear();
            capabilities.codecs.iter_mut().for_each(|codec| codec.rtcp_feedback.clear());
        }
        let view = room.consume_as(bob, &feed, &capabilities, false);
        room.start(&feed);
        room.run_for(secs(6));
        let before = layers_told(&room, &view);
        assert!(before.last().is_some_and(Option::is_some), "{seed}: {before:?}");
        for ends in ["receiver", "publisher"] {
            for paused in [true, false] {
                if ends == "receiver" {
                    room.command(Command::PauseConsumer(view.id, paused));
                } else {
                    for shard in 0..shards {
                        room.shard = shard;
                        room.command(Command::PauseProducer(feed.id, paused));
                    }
                }
                let told = layers_told(&room, &view);
                assert_eq!(told.last(), Some(&None), "{seed}: {ends} at once, or still");
                room.run_for(secs(3));
                let told = layers_told(&room, &view);
                assert_eq!(told.last().unwrap().is_none(), paused, "{seed}: {ends} {told:?}");
            }
        }
    }
}
