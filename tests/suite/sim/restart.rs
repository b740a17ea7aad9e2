//! ICE restarts: media goes on over the old address until the client uses what it was told.

use std::time::Duration;

use ringcast::control::command::{Command, Event, IceState, Reply};
use ringcast::engine::demux::{stun_owner, ufrag_of};
use ringcast::engine::report::Discard;
use ringcast::engine::srtp::SrtpProfile;
use ringcast::id::ShardId;

use super::clients::Heard;
use super::media::Codec;
use super::room::{Camera, Peer, Room, ms, secs};

fn restart(room: &mut Room, peer: Peer) -> (String, String) {
    let transport = room.seats[peer.0].transport;
    match room.command(Command::RestartIce(transport)) {
        Reply::IceRestarted { ufrag, password } => (ufrag, password),
        other => panic!("{other:?}"),
    }
}

/// The longest time between two packets.
fn longest_silence(heard: &[Heard]) -> Duration {
    heard.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap()
}

#[test]
fn media_goes_on_over_a_restart_of_either_side_and_moves_with_the_first_new_request() {
    for publisher_restarts in [true, false] {
        let mut room = Room::with_shards(101, 2);
        // Both live on the second shard: its characters must survive.
        room.shard = 1;
        let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        let bob = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        let camera = room.produce(alice, &Camera::new(Codec::Vp8));
        let picture = room.consume(bob, &camera);
        room.start(&camera);
        room.run_for(secs(2));
        let mover = if publisher_restarts { alice } else { bob };
        let old_check = room.seat(mover).raw().ice_check();
        let (ufrag, password) = restart(&mut room, mover);
        let old_ufrag = ufrag_of(&old_check).unwrap().to_owned();
        assert_ne!(ufrag, old_ufrag);
        assert_eq!(
            ufrag.as_bytes()[..10],
            old_ufrag.as_bytes()[..10],
            "shard, slot and epoch stay"
        );

        // Two of its old checks are answered meanwhile.
        let refused = room.shards.discarded_on(1, Discard::StunRefused);
        room.run_for(secs(11));
        assert_eq!(room.shards.discarded_on(1, Discard::StunRefused), refused);

        let now = room.now;
        let raw = room.seat(mover).raw_mut();
        raw.restart(now, &ufrag, &password);
        let new_check = raw.ice_check();
        assert_eq!(stun_owner(&new_check), Some(ShardId(1)));
        room.seat(mover).public.set_port(6000);
        room.run_for(secs(40));
        let heard = room.heard(&picture);
        let silence = longest_silence(&heard);
        assert!(silence <= ms(100), "{silence:?}, publisher: {publisher_restarts}");
        assert!(heard.last().unwrap().at + ms(100) > room.now, "and goes on");
        let transport = room.seats[mover.0].transport;
        let (moved, closed) =
            room.events.iter().fold((false, false), |(moved, closed), (_, e)| match e {
                Event::IceState { transport: t, state, remote: Some(remote), .. } => {
                    let here = *t == transport && remote.port() == 6000;
                    (moved || here && *state == IceState::Completed, closed)
                }
                Event::TransportClosed { .. } => (moved, true),
                _ => (moved, closed),
            });
        assert!(moved && !closed);

        // The old credentials hold no longer, whoever has them.
        let path = room.seats[mover.0].path();
        room.shards.inject(room.now, 1, path, &old_check);
        assert_eq!(room.shards.discarded_on(1, Discard::StunRefused), refused + 1);
    }
}

#[test]
fn of_several_restarts_the_last_one_counts_and_the_first_credentials_hold_until_then() {
    let mut room = Room::new(102);
    let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let bob = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    let (skipped, skipped_password) = restart(&mut room, bob);
    let (last, last_password) = restart(&mut room, bob);
    room.run_for(secs(6));
    let refused = room.discarded(Discard::StunRefused);
    assert_eq!(refused, 0, "the first ones hold");
    let now = room.now;
    room.seat(bob).raw_mut().restart(now, &skipped, &skipped_password);
    room.run_for(secs(1));
    assert_eq!(room.discarded(Discard::StunRefused), 1, "nobody was to use these any more");
    let now = room.now;
    room.seat(bob).raw_mut().restart(now, &last, &last_password);
    room.run_for(secs(40));
    assert_eq!(room.discarded(Discard::StunRefused), 1);
    assert!(longest_silence(&room.heard(&picture)) <= ms(100));
    assert!(room.events.iter().all(|(_, e)| !matches!(e, Event::TransportClosed { .. })));
}
