//! How transports end, and what they survive.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use ringcast::control::command::{CloseReason, Command, Event};
use ringcast::engine::io::{Path, PathChange};
use ringcast::engine::machine::Machine;

use super::media::Codec;
use super::room::{Camera, Peer, Room, ms, secs};

fn closed(room: &Room, peer: Peer) -> Option<(Instant, CloseReason)> {
    let id = room.seats[peer.0].transport;
    room.events.iter().find_map(|(at, event)| match event {
        Event::TransportClosed { transport, reason } if *transport == id => Some((*at, *reason)),
        _ => None,
    })
}

#[test]
fn a_client_whose_address_changes_loses_media_only_until_its_next_check() {
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
            let checked = Rc::new(Cell::new(None));
            let check = Rc::clone(&checked);
            // What the stock client does not know, it does not check at once.
            room.seat(mover).lose_up = Some(Box::new(move |now, bytes| {
                if now > moved && bytes[0] < 4 && check.get().is_none() {
                    check.set(Some(now));
                }
                false
            }));
            room.seat(mover).public.set_port(6000);
            room.run_for(secs(10));
            let checked: Instant = checked.get().expect("checks come every three seconds");
            for view in [&picture, &sound] {
                let heard = room.heard(view);
                let next = heard.iter().find(|h| h.at > checked).expect("goes on");
                let late = next.at - checked;
                assert!(late < ms(100), "{late:?}, publisher moves: {publisher_moves}");
                let tail = heard.iter().rev().take(200).rev().collect::<Vec<_>>();
                for pair in tail.windows(2) {
                    assert!(pair[1].at - pair[0].at < ms(100), "and goes on");
                }
            }
            assert_eq!(closed(&room, mover), None);
            let remote = room.seats[mover.0].public;
            let transport = room.seats[mover.0].transport;
            assert!(
                room.events.iter().any(|(_, event)| matches!(event,
                Event::IceState { transport: t, remote: Some(r), .. }
                    if *t == transport && *r == remote)),
                "the move is told"
            );
        }
    }
}

#[test]
fn a_client_that_checks_from_its_new_address_at_once_loses_next_to_nothing() {
    use ringcast::engine::srtp::SrtpProfile;
    for publisher_moves in [true, false] {
        let mut room = Room::new(70);
        let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        let bob = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        let camera = room.produce(alice, &Camera::new(Codec::Vp8));
        let picture = room.consume(bob, &camera);
        room.start(&camera);
        room.run_for(secs(3));
        let mover = if publisher_moves { alice } else { bob };
        let raw = room.seat(mover).raw_mut();
        let check = raw.ice_check();
        raw.send(check);
        room.seat(mover).public.set_port(6000);
        room.run_for(secs(3));
        let heard = room.heard(&picture);
        for pair in heard.windows(2) {
            assert!(pair[1].at - pair[0].at <= ms(100), "{:?}", pair[1].at - pair[0].at);
        }
        assert!(heard.last().unwrap().at + ms(100) > room.now);
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
    // What it sent last was under way for a moment.
    assert!(at - gone <= secs(30) + ms(200) && at - gone > secs(29), "{:?}", at - gone);
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

/// Carries over what the engine tells of its paths, and sees that it contradicts nothing.
fn follow(room: &mut Room, steered: &mut BTreeSet<Path>) -> Vec<SocketAddr> {
    while let Some(change) = room.engine().poll_path() {
        let is_new = match change {
            PathChange::Added(path) => steered.insert(path),
            PathChange::Removed(path) => steered.remove(&path),
        };
        assert!(is_new, "{change:?} was told before");
    }
    assert!(steered.iter().all(|path| room.engine().owns(path)));
    assert_eq!(steered.len(), room.gauges().tuples);
    steered.iter().map(|path| path.remote).collect()
}

#[test]
fn paths_are_told_when_they_come_and_when_their_transport_goes() {
    let mut room = Room::new(79);
    let mut steered = BTreeSet::new();
    let none: [SocketAddr; 0] = [];
    assert_eq!(follow(&mut room, &mut steered), none);
    let (alice, bob) = (room.publisher(), room.subscriber());
    room.run_for(secs(3));
    let [a, b] = [alice, bob].map(|peer| room.seats[peer.0].public);
    assert_eq!(follow(&mut room, &mut steered), [a, b]);
    room.seat(alice).public.set_port(6000);
    let moved = room.seats[alice.0].public;
    room.run_for(secs(10));
    assert_eq!(follow(&mut room, &mut steered), [a, moved, b]);
    room.command(Command::CloseTransport(room.seats[alice.0].transport));
    assert_eq!(follow(&mut room, &mut steered), [b]);
    room.seat(bob).gone = true;
    room.run_for(secs(40));
    assert_eq!(follow(&mut room, &mut steered), none);
}

#[test]
fn an_address_that_another_shard_has_validated_since_is_left_until_it_is_validated_here_again() {
    let mut room = Room::new(80);
    let (alice, bob) = (room.publisher(), room.subscriber());
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    room.run_for(secs(3));
    let told = std::iter::from_fn(|| room.engine().poll_path()).collect::<Vec<_>>();
    let public = room.seats[alice.0].public;
    let at = |change: &PathChange| match change {
        PathChange::Added(path) if path.remote == public => Some(*path),
        _ => None,
    };
    let path = told.iter().find_map(at).expect("told when it came");
    room.engine().handle_path_taken(&path);
    assert!(!room.engine().owns(&path));
    assert_eq!(room.engine().poll_path(), None, "whoever has it is not to lose it");
    let taken = room.now;
    room.run_for(secs(10));
    assert!(room.engine().owns(&path), "the client's next check");
    assert_eq!(room.engine().poll_path(), Some(PathChange::Added(path)));
    let heard = room.heard(&picture);
    let silence = heard.windows(2).filter(|pair| pair[0].at < taken + ms(200));
    assert!(silence.map(|pair| pair[1].at - pair[0].at).max().unwrap() > ms(200));
    assert!(heard.last().unwrap().at + ms(200) > room.now, "and goes on");
}

#[test]
fn a_publisher_that_checks_no_more_lives_on_what_it_sends() {
    use ringcast::engine::srtp::SrtpProfile;
    let mut room = Room::new(81);
    let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let bob = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let microphone = room.produce(alice, &Camera::new(Codec::Opus));
    let sound = room.consume(bob, &microphone);
    room.start(&microphone);
    room.run_for(secs(2));
    room.seat(alice).raw_mut().check_no_more();
    room.run_for(secs(90));
    assert_eq!(closed(&room, alice), None);
    assert!(room.heard(&sound).last().unwrap().at + ms(200) > room.now);
    let gone = room.now;
    room.seat(alice).gone = true;
    room.run_for(secs(31));
    let (at, reason) = closed(&room, alice).expect("closed");
    assert_eq!(reason, CloseReason::ConsentLost);
    assert!(at - gone > secs(29), "{:?}", at - gone);
}
