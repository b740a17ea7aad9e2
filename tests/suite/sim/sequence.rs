//! Sequence numbers that wrap, on the way in and on the way out.

use super::media::Codec;
use super::room::{Camera, Room, ms, secs};

#[test]
fn a_stream_that_begins_just_below_the_wrap_is_followed_over_it() {
    for first_seq in [65_500, 65_530, 65_535] {
        for seed in [31, 32] {
            let mut room = Room::new(seed);
            let alice = room.publisher();
            let bob = room.subscriber();
            let camera = room.produce(alice, &Camera { first_seq, ..Camera::new(Codec::Vp8) });
            let picture = room.consume(bob, &camera);
            room.start(&camera);
            room.run_for(secs(3));
            room.assert_all_arrived(&picture, &camera);
        }
    }
}

#[test]
fn a_stream_that_begins_below_the_wrap_over_a_lossy_network_is_followed_too() {
    for seed in [33, 34, 35, 36, 37, 38] {
        let mut room = Room::new(seed);
        let alice = room.publisher();
        let bob = room.subscriber();
        let camera = room.produce(alice, &Camera { first_seq: 65_533, ..Camera::new(Codec::Vp8) });
        let picture = room.consume(bob, &camera);
        room.seat(alice).up.loss = 0.10;
        room.seat(alice).up.jitter = ms(10);
        room.start(&camera);
        room.run_for(secs(10));
        room.assert_played_from_key_frame(&picture, &camera);
    }
}

#[test]
fn two_wraps_later_early_and_late_joiners_still_open_every_packet() {
    let mut room = Room::new(39);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let early = room.consume(bob, &camera);
    {
        let source = room.source_mut(&camera, 0);
        source.packets_per_frame = 20;
        source.interval = ms(5);
        source.payload_bytes = 40;
    }
    room.start(&camera);
    // 4,000 packets a second.
    room.run_for(secs(20));
    let carol = room.subscriber();
    let late = room.consume(carol, &camera);
    room.run_for(secs(20));
    let dave = room.subscriber();
    let latest = room.consume(dave, &camera);
    room.run_for(secs(2));
    assert!(room.source(&camera, 0).sent.len() > 2 * 65_536);
    let total = room.heard(&early).len();
    assert!(total > 2 * 65_536, "{total}");
    for view in [&early, &late, &latest] {
        let heard = room.heard(view);
        assert!(heard.len() > 4_000);
        super::verdicts::assert_same(&heard, &room.source(&camera, 0).sent);
        room.assert_numbers(&heard, view);
        let last = room.source(&camera, 0).sent.iter().rev().find(|p| p.at + ms(50) < room.now);
        let last = last.expect("sent");
        assert!(heard.iter().rev().take(2_000).any(|h| *h.payload == *last.payload), "to the end");
    }
}

#[test]
fn a_sender_is_heard_again_after_more_than_half_a_turn_of_its_numbers_was_lost() {
    let mut room = Room::new(40);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera { first_seq: 64_000, ..Camera::new(Codec::Vp8) });
    let picture = room.consume(bob, &camera);
    {
        let source = room.source_mut(&camera, 0);
        source.packets_per_frame = 20;
        source.interval = ms(5);
        source.payload_bytes = 40;
    }
    room.start(&camera);
    // 4,000 packets a second: over a wrap.
    room.run_for(secs(1));
    room.seat(alice).lose_up = Some(Box::new(|_, bytes| bytes[0] >= 128));
    let before = room.source(&camera, 0).sent.len();
    room.run_for(secs(12));
    let lost = room.source(&camera, 0).sent.len() - before;
    assert!((0x8000..0x1_0000).contains(&lost), "{lost}");
    room.seat(alice).lose_up = None;
    let back = room.now;
    room.run_for(secs(1));
    // What is lost now is asked for again.
    room.seat(alice).up.loss = 0.02;
    room.run_for(secs(2));
    let heard = room.heard(&picture);
    let first = heard.iter().find(|heard| heard.at > back).expect("heard again");
    assert!(first.at < back + secs(1), "{:?}", first.at - back);
    assert!(room.counters().nacks_sent > 50, "{:?}", room.counters().nacks_sent);
}
