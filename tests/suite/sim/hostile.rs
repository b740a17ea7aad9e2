//! What a stranger, or a client gone mad, may do to a call.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ringcast::engine::io::{Path, Protocol};

use super::clients::SERVER;
use super::media::Codec;
use super::room::{Camera, Room, ms, secs};

/// One of the datagrams that were really sent, mangled; or noise.
fn mangled(rng: &mut StdRng, real: &[Vec<u8>]) -> Vec<u8> {
    let original = &real[rng.random_range(0..real.len())];
    match rng.random_range(0..5) {
        0 => (0..rng.random_range(0..200)).map(|_| rng.random()).collect(),
        1 => original[..rng.random_range(0..original.len())].to_vec(),
        2 => {
            let mut bytes = original.clone();
            for _ in 0..rng.random_range(1..8) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            bytes
        }
        // A protocol's first byte before noise.
        3 => {
            let first = [0, 1, 20, 22, 23, 128, 144, 191][rng.random_range(0..8)];
            let second = [200, 201, 205, 206, 207, 96, 224, 0][rng.random_range(0..8)];
            let noise = (0..rng.random_range(0..1400)).map(|_| rng.random());
            [first, second].into_iter().chain(noise).collect()
        }
        _ => {
            let mut bytes = original.clone();
            bytes.extend((0..rng.random_range(1..300)).map(|_| rng.random::<u8>()));
            bytes
        }
    }
}

#[test]
fn a_hundred_thousand_bad_datagrams_leave_a_call_unharmed() {
    let mut room = Room::new(81);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let microphone = room.produce(alice, &Camera::new(Codec::Opus));
    let picture = room.consume(bob, &camera);
    let sound = room.consume(bob, &microphone);
    let real = Rc::new(RefCell::new(Vec::<Vec<u8>>::new()));
    for peer in [alice, bob] {
        let tap = Rc::clone(&real);
        room.seat(peer).lose_up = Some(Box::new(move |_, bytes| {
            let mut tap = tap.borrow_mut();
            if tap.len() < 5000 {
                tap.push(bytes.to_vec());
            }
            false
        }));
    }
    room.start(&camera);
    room.start(&microphone);
    room.run_for(secs(4));
    let before = room.gauges();
    let mut rng = StdRng::seed_from_u64(82);
    let paths = [room.seats[alice.0].path(), room.seats[bob.0].path()];
    for _ in 0..5_000 {
        for _ in 0..20 {
            let bytes = mangled(&mut rng, &real.borrow());
            let stranger = SocketAddr::new(
                IpAddr::V4(Ipv4Addr::from_bits(rng.random())),
                rng.random_range(1..65_535),
            );
            let path = match rng.random_range(0..3) {
                0 => Path { protocol: Protocol::Udp, remote: stranger, local: SERVER.ip() },
                known => paths[known - 1],
            };
            room.inject(path, &bytes);
        }
        room.run_for(ms(1));
    }
    room.run_for(secs(2));
    room.assert_all_arrived(&picture, &camera);
    room.assert_all_arrived(&sound, &microphone);
    let after = room.gauges();
    assert_eq!(
        (after.transports, after.producers, after.consumers, after.streams, after.tuples),
        (before.transports, before.producers, before.consumers, before.streams, before.tuples)
    );
    assert!(after.ring_bytes <= before.ring_bytes.max(4 << 20), "{}", after.ring_bytes);
    assert_eq!(room.counters().faults, 0);
}

#[test]
fn a_publisher_that_invents_streams_does_not_grow_the_server() {
    use ringcast::engine::report::Discard;
    use ringcast::engine::srtp::SrtpProfile;

    use super::raw::RawPacket;
    let mut room = Room::new(83);
    let mallory = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let camera = room.produce(mallory, &Camera::new(Codec::Vp8));
    for ssrc in 0..10_000_u32 {
        let packet = RawPacket {
            ssrc: 7_000_000 + ssrc,
            payload_type: 96,
            marker: false,
            index: u64::from(ssrc % 50_000),
            timestamp: 0,
            mid: None,
            transport_seq: None,
            payload: &[0x90, 0x80, 0x80, 0, 0x10, 1, 2, 3],
            padding: 0,
        };
        let raw = room.seat(mallory).raw_mut();
        let sealed = raw.seal(&packet);
        raw.send(sealed);
    }
    room.run_for(secs(1));
    let refused = [Discard::UnknownStream, Discard::TooManyStreams].map(|r| room.discarded(r));
    assert_eq!(refused.iter().sum::<u64>(), 10_000, "{refused:?}");
    assert_eq!(room.gauges().streams, 1);
    assert_eq!(room.gauges().ring_bytes, 0);
    // What was announced still finds room.
    let bob = room.subscriber();
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    room.run_for(secs(2));
    room.assert_all_arrived(&picture, &camera);
}
