//! What comes and goes while a room uses several shards.

use ringcast::control::command::Command;
use ringcast::engine::machine::Machine;

use super::media::Codec;
use super::relay::{HERE, THERE, asked, call, joined, relayed, wishes};
use super::room::{Camera, Room, ms, secs};
use super::shards::{Freight, Told};
use super::verdicts::{assert_same, assert_same_pictures};

#[test]
fn a_paused_producer_crosses_no_more_and_comes_back_with_one_key_frame() {
    for codec in [Codec::Vp8, Codec::Opus] {
        let (mut room, _, _, feed, view) = call(318, &Camera::new(codec));
        let lane = if codec == Codec::Opus { Freight::Audio } else { Freight::Video };
        room.run_for(secs(5));
        room.command(Command::PauseProducer(feed.id, true));
        room.run_for(ms(20));
        let paused = room.now;
        let before = room.heard(&view).len();
        room.run_for(secs(3));
        assert_eq!(relayed(&room, THERE, lane, paused), [], "{codec:?}");
        assert_eq!(room.heard(&view).len(), before);
        assert_eq!(asked(&room, &feed, paused), 0);
        let resumed = room.now;
        room.command(Command::PauseProducer(feed.id, false));
        room.run_for(secs(3));
        let heard = room.heard(&view);
        room.assert_numbers(&heard, &view);
        let first = heard.iter().find(|heard| heard.at > resumed).expect("it goes on");
        assert!(first.at - resumed < ms(100), "{codec:?}");
        assert_eq!(asked(&room, &feed, resumed), usize::from(codec == Codec::Vp8));
        let packet = room.source(&feed, 0).sent.iter().find(|p| *p.payload == *first.payload);
        assert!(packet.unwrap().key || codec == Codec::Opus);
    }
}

#[test]
fn a_mirror_of_a_paused_producer_is_paused() {
    let mut room = Room::with_shards(319, 2);
    let alice = room.publisher();
    let bob = joined(&mut room, THERE);
    let feed = room.produce(alice, &Camera::new(Codec::Vp8));
    room.start(&feed);
    room.run_for(secs(2));
    room.command(Command::PauseProducer(feed.id, true));
    let since = room.now;
    let view = room.consume(bob, &feed);
    room.run_for(secs(2));
    assert_eq!(relayed(&room, THERE, Freight::Video, since), []);
    assert_eq!(asked(&room, &feed, since), 0);
    room.command(Command::PauseProducer(feed.id, false));
    room.run_for(secs(2));
    let heard = room.heard(&view);
    assert!(heard.len() > 100);
    assert_same(&heard, &room.source(&feed, 0).sent);
}

#[test]
fn nothing_crosses_once_the_last_viewer_there_is_gone() {
    for hang_up in [false, true] {
        let (mut room, _, bob, feed, view) = call(320, &Camera::new(Codec::Vp8));
        let carol = joined(&mut room, THERE);
        let other = room.consume(carol, &feed);
        room.run_for(secs(3));
        room.command(Command::CloseConsumer(other.id));
        room.run_for(ms(100));
        assert!(room.gauges_of(THERE).ring_bytes > 0);
        let gone = room.now;
        if hang_up {
            let transport = room.seat(bob).transport;
            room.command(Command::CloseTransport(transport));
        } else {
            room.command(Command::CloseConsumer(view.id));
        }
        room.run_for(ms(10));
        assert_eq!(wishes(&room, HERE, gone), [Told::Demand { encodings: None }]);
        let since = room.now;
        room.run_for(secs(2));
        assert_eq!(relayed(&room, THERE, Freight::Video, since), []);
        assert!(room.shards.sent(THERE, Freight::Pulse, since).is_empty());
        assert_eq!((room.gauges_of(THERE).ring_bytes, room.gauges_of(THERE).consumers), (0, 0));

        let again = joined(&mut room, THERE);
        let view = room.consume(again, &feed);
        room.run_for(secs(2));
        let heard = room.heard(&view);
        assert!(heard.len() > 100);
        assert_same(&heard, &room.source(&feed, 0).sent);
        assert_eq!(room.gauges_of(THERE).mirrors, 1, "the same mirror");
    }
}

#[test]
fn a_paused_viewer_costs_no_crossing() {
    let (mut room, _, _, feed, view) = call(321, &Camera::new(Codec::Vp8));
    room.run_for(secs(3));
    room.command(Command::PauseConsumer(view.id, true));
    room.run_for(ms(10));
    let since = room.now;
    room.run_for(secs(3));
    assert_eq!(relayed(&room, THERE, Freight::Video, since), []);
    assert!(!room.shards.sent(THERE, Freight::Pulse, since).is_empty(), "it may come back");
    assert_eq!(room.gauges_of(THERE).ring_bytes, 0, "nothing is kept for repeats any more");
    let resumed = room.now;
    room.command(Command::PauseConsumer(view.id, false));
    room.run_for(secs(2));
    assert_eq!(asked(&room, &feed, resumed), 1);
    let heard = room.heard(&view);
    room.assert_numbers(&heard, &view);
    let first = heard.iter().find(|heard| heard.at > resumed).expect("it goes on");
    assert!(first.at - resumed < ms(100));
}

#[test]
fn a_closed_producer_takes_its_mirrors_along() {
    let (mut room, alice, _, feed, view) = call(322, &Camera::new(Codec::Vp8));
    room.run_for(secs(2));
    room.command(Command::CloseProducer(feed.id));
    let gone = room.now;
    room.run_for(secs(2));
    let there = room.gauges_of(THERE);
    assert_eq!((there.mirrors, there.consumers, there.ring_bytes), (0, 0, 0));
    assert_eq!(relayed(&room, THERE, Freight::Video, gone), []);
    let heard = room.heard(&view);
    assert!(heard.iter().all(|heard| heard.at <= gone + ms(20)));
    // The client goes on with another one.
    let feed = room.produce(alice, &Camera::new(Codec::Vp8));
    let carol = joined(&mut room, THERE);
    let view = room.consume(carol, &feed);
    room.start(&feed);
    room.run_for(secs(3));
    room.assert_all_arrived(&view, &feed);
}

#[test]
fn a_publisher_that_falls_silent_for_good_leaves_no_mirror() {
    let (mut room, alice, bob, feed, _) = call(323, &Camera::new(Codec::Vp8));
    room.run_for(secs(2));
    room.seat(alice).gone = true;
    room.stop(&feed, 0);
    room.run_for(secs(40));
    assert_eq!(room.gauges_of(HERE).transports, 0);
    let there = room.gauges_of(THERE);
    assert_eq!((there.transports, there.mirrors, there.consumers), (1, 0, 0));
    let _ = bob;
}

#[test]
fn inventories_name_each_producer_once() {
    let (mut room, _, _, feed, view) = call(324, &Camera::new(Codec::Vp8));
    assert_eq!(room.inventory().producers, [feed.id]);
    room.shard = THERE;
    let there = room.inventory();
    assert_eq!((there.producers.len(), there.consumers), (0, vec![view.id]));
}

/// The origin begins again with a key frame that the mirror still holds: it must not go out twice.
#[test]
fn a_viewer_that_pauses_and_comes_back_at_once_goes_on_in_time() {
    for (before, away) in [(30, 1), (30, 20), (70, 20), (130, 60)] {
        let (mut room, _, _, feed, view) = call(344, &Camera::new(Codec::Vp8));
        room.run_for(ms(before));
        room.command(Command::PauseConsumer(view.id, true));
        room.run_for(ms(away));
        let resumed = room.now;
        room.command(Command::PauseConsumer(view.id, false));
        room.run_for(secs(2));
        let mut heard = room.heard(&view);
        room.assert_numbers(&heard, &view);
        for pair in heard.windows(2) {
            let ahead = pair[1].timestamp.wrapping_sub(pair[0].timestamp).cast_signed();
            assert!(ahead >= 0, "{away} ms away after {before}: back by {ahead} ticks");
        }
        heard.retain(|heard| heard.at >= resumed + ms(10));
        assert!(heard.len() > 80);
        assert_same_pictures(&heard, &room.source(&feed, 0).sent);
    }
}

/// What begins the stream comes while the mirror is paused, and its demand cannot be told anew.
#[test]
fn a_mirror_that_missed_the_beginning_while_paused_goes_on() {
    for codec in [Codec::Vp8, Codec::Opus] {
        let mut room = Room::with_shards(345, 2);
        let alice = room.publisher();
        let bob = joined(&mut room, THERE);
        let feed = room.produce(alice, &Camera::new(codec));
        let view = room.consume(bob, &feed);
        room.run_for(ms(10));
        let now = room.now;
        room.shards.lanes.blocked.insert((THERE, HERE, Freight::Wish));
        let pause = |paused| Command::PauseProducer(feed.id, paused);
        room.shards.engines[THERE].handle_command(now, pause(true)).unwrap();
        room.start(&feed);
        room.run_for(secs(1));
        assert!(room.heard(&view).is_empty());
        let now = room.now;
        room.shards.engines[THERE].handle_command(now, pause(false)).unwrap();
        room.shards.lanes.blocked.clear();
        room.run_for(secs(3));
        let heard = room.heard(&view);
        assert!(heard.len() > 100, "{codec:?}: {}", heard.len());
        assert_same(&heard, &room.source(&feed, 0).sent);
        room.assert_numbers(&heard, &view);
    }
}

/// Demand that goes and comes faster than the lane brings packets: the first beginning is still under
/// way when the origin hears of the second, and makes it with the same key frame.
#[test]
fn a_stream_demanded_twice_in_a_moment_is_played_once() {
    let mut room = Room::with_shards(346, 2);
    let alice = room.publisher();
    let bob = joined(&mut room, THERE);
    let feed = room.produce(alice, &Camera::new(Codec::Vp8));
    let capabilities = room.capabilities.clone();
    let view = room.consume_as(bob, &feed, &capabilities, true);
    room.shards.lanes.delay = ms(30);
    room.start(&feed);
    room.run_for(ms(60));
    for paused in [false, true, false] {
        room.command(Command::PauseConsumer(view.id, paused));
        room.run_for(ms(20));
    }
    room.run_for(secs(2));
    let crossed = relayed(&room, THERE, Freight::Video, room.start);
    assert_eq!(crossed.iter().filter(|packet| **packet == crossed[0]).count(), 2);
    let heard = room.heard(&view);
    room.assert_numbers(&heard, &view);
    assert!(heard.len() > 80);
    assert_same(&heard, &room.source(&feed, 0).sent);
}
