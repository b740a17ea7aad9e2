//! What leaves the server, byte by byte, without handshakes.

use std::collections::BTreeMap;

use ringcast::engine::srtp::SrtpProfile;

use super::media::Codec;
use super::network::Link;
use super::room::{Camera, Room, ms, secs};

#[test]
fn every_profile_is_forwarded_to_every_other() {
    for from in SrtpProfile::ALL {
        let mut room = Room::new(91);
        let alice = room.raw_peer(from);
        let camera = room.produce(alice, &Camera::new(Codec::Vp8));
        let views: Vec<_> = SrtpProfile::ALL
            .into_iter()
            .map(|to| {
                let peer = room.raw_peer(to);
                (to, room.consume(peer, &camera))
            })
            .collect();
        room.start(&camera);
        room.run_for(secs(2));
        for (to, view) in &views {
            let sent = &room.source(&camera, 0).sent;
            let heard = room.heard(view);
            assert!(heard.len() > 100, "{from:?} to {to:?}");
            super::verdicts::assert_same(&heard, sent);
            assert_eq!(room.seats[view.peer.0].raw().refused, 0);
        }
    }
}

/// Everything that arrives at two viewers over a bad network.
fn run(seed: u64) -> Vec<Vec<u8>> {
    let mut room = Room::new(seed);
    let alice = room.raw_peer(SrtpProfile::AeadAes256Gcm);
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let microphone = room.produce(alice, &Camera::new(Codec::Opus));
    let bad = Link { loss: 0.05, jitter: ms(15), duplication: 0.02, ..Link::new(20) };
    room.seat(alice).up = bad.clone();
    let mut peers = Vec::new();
    for _ in 0..2 {
        let peer = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        room.seat(peer).down = bad.clone();
        room.consume(peer, &camera);
        room.consume(peer, &microphone);
        peers.push(peer);
    }
    room.start(&camera);
    room.start(&microphone);
    room.run_for(secs(5));
    let heard = peers.iter().flat_map(|peer| &room.seats[peer.0].raw().heard);
    heard.map(|heard| heard.wire.clone()).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in [92, 93] {
        let first = run(seed);
        assert!(first.len() > 500);
        assert!(first == run(seed), "another run, other bytes");
    }
    assert!(run(92) != run(93), "the seed is used");
}

#[test]
fn two_hundred_viewers_of_one_camera_all_get_everything() {
    let mut room = Room::new(94);
    let alice = room.publisher();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let stock = room.subscriber();
    let of_stock = room.consume(stock, &camera);
    let views: Vec<_> = (0..200)
        .map(|_| {
            let peer = room.raw_peer(SrtpProfile::AeadAes128Gcm);
            room.consume(peer, &camera)
        })
        .collect();
    room.start(&camera);
    room.run_for(secs(3));
    room.assert_all_arrived(&of_stock, &camera);
    let sent = &room.source(&camera, 0).sent;
    let mut first_at = BTreeMap::new();
    for view in &views {
        let heard = room.heard(view);
        assert!(heard.len() + 10 >= sent.len(), "{} of {}", heard.len(), sent.len());
        super::verdicts::assert_same(&heard, sent);
        *first_at.entry(heard[0].at).or_insert(0) += 1;
    }
    assert_eq!(first_at.len(), 1, "all of them in the same turn");
}
