//! Rare orders of events that a reviewer thought of: each of these once went wrong.

use ringcast::control::command::{Command, Event};
use ringcast::engine::io::Path;
use ringcast::engine::machine::Machine;
use ringcast::engine::srtp::SrtpProfile;

use super::media::Codec;
use super::raw::RawPacket;
use super::room::{Camera, Feed, Peer, Room, View, ms, secs};

fn asked(room: &Room, feed: &Feed, since: std::time::Instant) -> usize {
    room.seats[feed.peer.0].stock().asked.iter().filter(|(at, ..)| *at >= since).count()
}

#[test]
fn nobody_asks_for_key_frames_of_an_encoding_that_was_given_up() {
    let mut room = Room::new(201);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera { rids: vec!["q", "h"], ..Camera::new(Codec::Vp8) });
    let picture = room.consume(bob, &camera);
    // The higher encoding never answers a request, and ends while it is waited for.
    room.source_mut(&camera, 1).deaf_for = usize::MAX;
    room.start(&camera);
    room.run_for(secs(6));
    room.stop(&camera, 1);
    room.run_for(secs(3));
    let since = room.now;
    room.run_for(secs(5));
    assert!(room.heard(&picture).len() > 100);
    assert_eq!(asked(&room, &camera, since), 0);
}

/// One packet by hand: VP8 with a frame of its own, named by its last byte.
struct ByHand {
    ssrc: u32,
    index: u64,
    timestamp: u32,
    begins_key_frame: bool,
    name: u8,
}

impl ByHand {
    fn arrive(&self, room: &mut Room, peer: Peer) {
        let partition = if self.begins_key_frame { 0x90 } else { 0x80 };
        let frame = if self.begins_key_frame { 0x10 } else { 0x11 };
        let packet = RawPacket {
            ssrc: self.ssrc,
            payload_type: 96,
            marker: false,
            index: self.index,
            timestamp: self.timestamp,
            mid: Some(b'0'),
            transport_seq: None,
            padding: 0,
            payload: &[partition, 0x80, 0x80, 1, frame, self.name],
        };
        let bytes = room.seats[peer.0].raw().seal(&packet);
        let path = room.seats[peer.0].path();
        room.inject(path, &bytes);
    }
}

fn names(room: &Room, view: &View) -> Vec<u8> {
    room.heard(view).iter().map(|heard| *heard.payload.last().unwrap()).collect()
}

const AES_128: SrtpProfile = SrtpProfile::AeadAes128Gcm;

#[test]
fn a_stream_whose_first_packet_has_an_unknown_payload_type_is_still_heard() {
    let mut room = Room::new(202);
    let alice = room.raw_peer(AES_128);
    let bob = room.raw_peer(AES_128);
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let picture = room.consume(bob, &camera);
    let ssrc = room.source(&camera, 0).setup.ssrc;
    let packet = RawPacket {
        ssrc,
        payload_type: 126,
        marker: false,
        index: 999,
        timestamp: 0,
        mid: None,
        transport_seq: None,
        padding: 0,
        payload: &[1],
    };
    let bytes = room.seats[alice.0].raw().seal(&packet);
    let path = room.seats[alice.0].path();
    room.inject(path, &bytes);
    room.start(&camera);
    room.run_for(secs(1));
    assert!(room.heard(&picture).len() > 30);
}

#[test]
fn a_consumer_made_while_its_transport_has_no_address_begins_when_there_is_one() {
    let mut room = Room::new(203);
    let alice = room.raw_peer(AES_128);
    let bob = room.raw_peer(AES_128);
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let microphone = room.produce(alice, &Camera::new(Codec::Opus));
    room.start(&camera);
    room.start(&microphone);
    room.run_for(secs(1));
    // As when a TCP connection ends, before the client has made another.
    let path = room.seats[bob.0].path();
    let now = room.now;
    room.engine().handle_path_closed(now, path);
    let picture = room.consume(bob, &camera);
    let sound = room.consume(bob, &microphone);
    room.run_for(secs(5));
    // What its PLI would do; a raw client sends none.
    room.source_mut(&camera, 0).wants_key = true;
    room.run_for(secs(2));
    assert!(room.heard(&picture).len() > 30);
    assert!(room.heard(&sound).len() > 30);
}

#[test]
fn a_straggler_from_an_address_that_was_left_does_not_bring_it_back() {
    let mut room = Room::new(204);
    let alice = room.raw_peer(AES_128);
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    room.start(&camera);
    room.run_for(secs(1));
    let left: Path = room.seats[alice.0].path();
    room.seat(alice).public.set_port(6000);
    let check = room.seats[alice.0].raw().ice_check();
    room.seat(alice).raw_mut().send(check);
    room.run_for(secs(1));
    let straggler = room.seat(alice).raw_mut().seal_rtcp(&[0x80, 201, 0, 1, 0, 0, 0, 1]);
    let since = room.now;
    room.inject(left, &straggler);
    room.run_for(secs(1));
    let moves = room
        .events
        .iter()
        .filter(|(at, event)| *at >= since && matches!(event, Event::IceState { .. }));
    assert_eq!(moves.count(), 0, "media still comes from the new address");
}

#[test]
fn an_address_that_another_transport_took_comes_back_with_its_owners_next_check() {
    let mut room = Room::new(205);
    let alice = room.raw_peer(AES_128);
    let bob = room.raw_peer(AES_128);
    let eve = room.raw_peer(AES_128);
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    room.run_for(secs(1));
    let check = room.seats[eve.0].raw().ice_check();
    let path = room.seats[alice.0].path();
    room.inject(path, &check);
    room.run_for(secs(6));
    room.source_mut(&camera, 0).wants_key = true;
    room.run_for(secs(1));
    let last = room.heard(&picture).last().unwrap().at;
    assert!(room.now - last < ms(100), "silent for {:?}", room.now - last);
}

#[test]
fn a_sender_that_takes_another_ssrc_right_after_a_key_frame_is_not_heard_twice() {
    let mut room = Room::new(206);
    let alice = room.raw_peer(AES_128);
    let bob = room.raw_peer(AES_128);
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let picture = room.consume(bob, &camera);
    let first = room.source(&camera, 0).setup.ssrc;
    for (ssrc, index, name, key) in [(first, 1000_u64, 0_u8, 0_u8), (first + 77, 5, 100, 2)] {
        for place in 0..5_u8 {
            ByHand {
                ssrc,
                index: index + u64::from(place),
                timestamp: 3000 * u32::from(place),
                begins_key_frame: place == key,
                name: name + place,
            }
            .arrive(&mut room, alice);
            room.run_for(ms(20));
        }
    }
    assert_eq!(names(&room, &picture), [0, 1, 2, 3, 4, 102, 103, 104]);
    let numbers: Vec<u16> = room.heard(&picture).iter().map(|heard| heard.seq).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "{numbers:?}");
}

#[test]
fn a_producer_resumed_right_after_a_key_frame_begins_with_a_new_one() {
    let mut room = Room::new(207);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    room.run_for(ms(100));
    room.command(Command::PauseProducer(camera.id, true));
    room.run_for(ms(60));
    let resumed = room.now;
    room.command(Command::PauseProducer(camera.id, false));
    room.run_for(secs(1));
    assert_eq!(asked(&room, &camera, resumed), 1, "what was sent in between is missing");
    let heard = room.heard(&picture);
    room.assert_numbers(&heard, &picture);
    let since: Vec<_> = heard.into_iter().filter(|heard| heard.at >= resumed).collect();
    assert!(since.len() > 30);
    super::verdicts::assert_same(&since, &room.source(&camera, 0).sent);
}

#[test]
fn a_joiner_gets_all_of_a_key_frame_whose_first_packet_comes_late() {
    let mut room = Room::new(208);
    let alice = room.raw_peer(AES_128);
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let ssrc = room.source(&camera, 0).setup.ssrc;
    let packet = |place: u8| ByHand {
        ssrc,
        index: 1000 + u64::from(place),
        timestamp: 3000,
        begins_key_frame: place == 0,
        name: place,
    };
    for place in 1..6 {
        packet(place).arrive(&mut room, alice);
    }
    let bob = room.raw_peer(AES_128);
    let picture = room.consume(bob, &camera);
    packet(0).arrive(&mut room, alice);
    room.run_for(ms(100));
    let mut heard = names(&room, &picture);
    heard.sort_unstable();
    assert_eq!(heard, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_packet_that_is_not_authentic_is_not_told_in_feedback() {
    let mut room = Room::new(209);
    let alice = room.raw_peer(AES_128);
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    room.start(&camera);
    room.run_for(ms(200));
    let ssrc = room.source(&camera, 0).setup.ssrc.to_be_bytes();
    let mut forged = vec![0x90, 126, 0, 1, 0, 0, 0, 0];
    forged.extend(ssrc);
    forged.extend([0xbe, 0xde, 0, 1, 3 << 4 | 1, 0, 7, 0]);
    forged.extend([0; 40]);
    let path = room.seats[alice.0].path();
    room.inject(path, &forged);
    room.run_for(secs(1));
    let feedback = room.seats[alice.0]
        .raw()
        .rtcp
        .iter()
        .filter(|(_, rtcp)| [rtcp[0] & 0x1f, rtcp[1]] == [15, 205]);
    assert_eq!(feedback.count(), 0);
}
