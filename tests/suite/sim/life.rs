//! How transports end, and what they survive.

use ringcast::control::command::{CloseReason, Command, Event};

use super::media::Codec;
use super::room::{Camera, Peer, Room, ms, secs};

fn closed(room: &Room, peer: Peer) -> Option<(std::time::Instant, CloseReason)> {
    let id = room.seats[peer.0].transport;
    room.events.iter().find_map(|(at, event)| match event {
        Event::TransportClosed { transport, reason } if *transport == id => Some((*at, *reason)),
        _ => None,
    })
}

#[test]
fn a_client_whose_address_changes_loses_less_than_a_second_of_media() {
    for seed in [71, 72, 73] {
        for publisher_moves in [true, false] {
            let mut room = Room::new(seed);
            let alice = room.publisher();
            let bob = room.subscriber();
            let camera = room.produce(alice, &Camera::new(Codec::Vp8));
            let microphone = room.produce(alice, &Camera::new(Codec::Opus));
            let picture = room.consume(bob, &camera);
            let sound = room.consume(bob, &microphone);
            room.start(&camera);
            room.start(&microphone);
            room.run_for(secs(6) + ms(137 * (seed - 70)));
            let moved = room.now;
            let mover = if publisher_moves { alice } else { bob };
            room.seat(mover).public.set_port(6000);
            room.run_for(secs(10));
            for view in [&picture, &sound] {
                let heard = room.heard(view);
                let last = heard.iter().filter(|h| h.at <= moved).next_back().unwrap();
                let next = heard.iter().find(|h| h.at > moved + ms(20)).expect("goes on");
                let silence = next.at - last.at;
                assert!(silence < secs(1), "{silence:?}, publisher moves: {publisher_moves}");
            }
            assert_eq!(closed(&room, mover), None);
        }
    }
}

#[test]
fn a_client_that_falls_silent_is_closed_after_thirty_seconds_with_all_it_carried() {
    let mut room = Room::new(74);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    room.run_for(secs(5));
    let gone = room.now;
    room.seat(alice).gone = true;
    room.run_for(secs(25));
    assert_eq!(closed(&room, alice), None);
    assert_eq!(room.gauges().producers, 1);
    room.run_for(secs(10));
    let (at, reason) = closed(&room, alice).expect("closed");
    assert_eq!(reason, CloseReason::ConsentLost);
    assert!(at - gone <= secs(30) && at - gone > secs(25), "{:?}", at - gone);
    let inventory = room.inventory();
    assert_eq!(inventory.transports, [room.seats[bob.0].transport]);
    assert!(inventory.producers.is_empty() && inventory.consumers.is_empty());
    let gauges = room.gauges();
    assert_eq!((gauges.streams, gauges.consumers, gauges.ring_bytes), (0, 0, 0));
    assert_eq!(closed(&room, bob), None, "the other one stays");
    assert!(!room.heard(&picture).is_empty());
}

#[test]
fn who_never_connects_is_reaped_after_thirty_seconds() {
    let mut room = Room::new(75);
    let numbers = room.room_numbers();
    let ghost = room.arrive(&numbers, None);
    room.seat(ghost).gone = true;
    room.run_for(secs(29));
    assert_eq!(closed(&room, ghost), None);
    room.run_for(secs(2));
    let (at, reason) = closed(&room, ghost).expect("reaped");
    assert_eq!((at - room.start, reason), (secs(30), CloseReason::NeverConnected));
    assert_eq!(room.gauges().transports, 0);
    assert_eq!(room.engine_deadline(), None, "nothing is left to wait for");
}

#[test]
fn another_certificate_than_announced_closes_the_transport() {
    let mut room = Room::new(76);
    let numbers = room.room_numbers();
    let mallory = room.arrive(&numbers, Some([7; 32]));
    room.run_for(secs(2));
    assert_eq!(closed(&room, mallory).map(|(_, reason)| reason), Some(CloseReason::DtlsFailed));
    assert_eq!(room.counters().dtls_connected, 0);
    assert_eq!(room.gauges().transports, 0);
}

#[test]
fn a_client_that_says_good_bye_is_closed_at_once() {
    let mut room = Room::new(77);
    let alice = room.publisher();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    room.start(&camera);
    room.run_for(secs(1));
    room.stop(&camera, 0);
    room.seat(alice).stock_mut().say_good_bye();
    room.run_for(ms(100));
    assert_eq!(closed(&room, alice).map(|(_, reason)| reason), Some(CloseReason::DtlsClosed));
    assert_eq!(room.gauges().producers, 0);
}

#[test]
fn a_panic_inside_one_rtc_ends_that_transport_and_no_other() {
    let mut room = Room::new(78);
    let alice = room.publisher();
    let bob = room.subscriber();
    let carol = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let of_bob = room.consume(bob, &camera);
    let of_carol = room.consume(carol, &camera);
    room.start(&camera);
    room.run_for(secs(2));
    let transport = room.seats[carol.0].transport;
    room.command(Command::InjectPanic(transport));
    // The next time anything touches that `Rtc` it panics.
    room.seat(carol).stock_mut().say_good_bye();
    room.run_for(secs(3));
    assert_eq!(closed(&room, carol).map(|(_, reason)| reason), Some(CloseReason::Fault));
    assert_eq!(room.counters().faults, 1);
    assert_eq!((closed(&room, alice), closed(&room, bob)), (None, None));
    room.assert_all_arrived(&of_bob, &camera);
    assert!(room.heard(&of_carol).len() < room.heard(&of_bob).len());
    assert_eq!(room.gauges().consumers, 1);
}

#[test]
fn two_hundred_joins_and_leaves_leave_nothing_behind() {
    let mut room = Room::new(79);
    let alice = room.publisher();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    room.start(&camera);
    room.run_for(secs(1));
    let before = room.gauges();
    for round in 0..200 {
        let bob = room.subscriber();
        let picture = room.consume(bob, &camera);
        room.run_for(ms(100));
        if round % 2 == 0 {
            let transport = room.seats[bob.0].transport;
            room.command(Command::CloseTransport(transport));
        } else {
            room.command(Command::CloseConsumer(picture.id));
            room.seat(bob).stock_mut().say_good_bye();
        }
        room.run_for(ms(100));
        room.seat(bob).gone = true;
    }
    room.run_for(secs(2));
    let after = room.gauges();
    assert_eq!(
        (after.transports, after.consumers, after.streams, after.tuples),
        (before.transports, before.consumers, before.streams, before.tuples)
    );
}
