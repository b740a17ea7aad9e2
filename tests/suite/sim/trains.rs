//! Packets of one frame leave as one train, equal in size by padding that no decoder sees.

use ringcast::control::command::Command;
use ringcast::engine::rtcp::RtcpWriter;
use ringcast::engine::srtp::SrtpProfile;

use super::media::Codec;
use super::raw::{RawHeard, RawPacket};
use super::room::{Camera, Feed, Peer, Room, View, ms};

const AES_128: SrtpProfile = SrtpProfile::AeadAes128Gcm;

/// As libwebrtc splits a frame of 5,508 bytes: the smaller packets first.
const UNEVEN: [usize; 5] = [1101, 1101, 1102, 1102, 1102];

/// A key frame of packets with payloads of `sizes` arrives in one batch; gives the payloads.
fn key_frame(room: &mut Room, peer: Peer, feed: &Feed, sizes: &[usize]) -> Vec<Vec<u8>> {
    let ssrc = room.source(feed, 0).setup.ssrc;
    let last = sizes.len() - 1;
    let payloads: Vec<Vec<u8>> = (0_u8..)
        .zip(sizes)
        .map(|(number, size)| {
            let begins =
                if number == 0 { [0x90, 0x80, 0x80, 1, 0x10] } else { [0x80, 0x80, 0x80, 1, 0x11] };
            let mut payload = vec![number; *size];
            payload[..5].copy_from_slice(&begins);
            payload
        })
        .collect();
    let burst: Vec<Vec<u8>> = (2000..)
        .zip(&payloads)
        .enumerate()
        .map(|(place, (index, payload))| {
            room.seats[peer.0].raw().seal(&RawPacket {
                ssrc,
                payload_type: 96,
                marker: place == last,
                index,
                timestamp: 90_000,
                mid: Some(b'0'),
                transport_seq: None,
                padding: 0,
                payload,
            })
        })
        .collect();
    let path = room.seats[peer.0].path();
    room.trains.clear();
    room.inject_all(path, &burst);
    payloads
}

/// The packets of a view, with their datagrams.
fn heard<'a>(room: &'a Room, view: &View) -> Vec<&'a RawHeard> {
    let all = &room.seats[view.peer.0].raw().heard;
    all.iter().filter(|heard| heard.ssrc == view.ssrc).collect()
}

/// What a decoder gets of a packet.
fn decoded(heard: &RawHeard) -> &[u8] {
    let padding = if heard.wire[0] & 0x20 == 0 { 0 } else { *heard.payload.last().unwrap() };
    &heard.payload[..heard.payload.len() - usize::from(padding)]
}

#[test]
fn a_frame_of_uneven_packets_leaves_as_one_train_for_each_receiver() {
    let mut room = Room::new(301);
    let alice = room.raw_peer(AES_128);
    let listeners: Vec<Peer> = (0..3).map(|_| room.raw_peer(AES_128)).collect();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let views: Vec<_> = listeners.iter().map(|peer| room.consume(*peer, &camera)).collect();
    let payloads = key_frame(&mut room, alice, &camera, &UNEVEN);
    assert_eq!(room.trains, [5, 5, 5]);
    assert_eq!(room.counters().padding_bytes, 3 * 2);
    room.run_for(ms(100));
    for view in views {
        let heard = heard(&room, &view);
        assert_eq!(heard.iter().copied().map(decoded).collect::<Vec<_>>(), payloads);
        let padded = heard.iter().filter(|heard| heard.wire[0] & 0x20 != 0).count();
        assert_eq!(padded, 2, "only what differs is padded");
    }
}

#[test]
fn a_frame_whose_tail_is_short_wastes_nothing_on_it() {
    let mut room = Room::new(302);
    let alice = room.raw_peer(AES_128);
    let bob = room.raw_peer(AES_128);
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let picture = room.consume(bob, &camera);
    key_frame(&mut room, alice, &camera, &[1200, 1200, 300]);
    assert_eq!(room.trains, [3]);
    assert_eq!(room.counters().padding_bytes, 0);
    room.run_for(ms(100));
    assert_eq!(room.heard(&picture).len(), 3);
}

#[test]
fn a_padded_packet_is_repeated_byte_for_byte_and_over_rtx_without_its_padding() {
    for rtx in [false, true] {
        let mut room = Room::new(303);
        let alice = room.raw_peer(AES_128);
        let bob = room.raw_peer(AES_128);
        let camera = room.produce(alice, &Camera::new(Codec::Vp8));
        let mut capabilities = room.capabilities.clone();
        capabilities.codecs.retain(|codec| rtx || !codec.codec().is_rtx());
        let picture = room.consume_as(bob, &camera, &capabilities, false);
        let payloads = key_frame(&mut room, alice, &camera, &UNEVEN);
        room.run_for(ms(100));
        let first = heard(&room, &picture)[0].clone();
        let mut space = [0; 200];
        let mut writer = RtcpWriter::new(&mut space);
        assert_eq!(writer.nack(77, picture.ssrc, &[first.seq]), 1);
        let plain = writer.as_bytes().to_vec();
        let raw = room.seat(bob).raw_mut();
        let sealed = raw.seal_rtcp(&plain);
        raw.send(sealed);
        let refused = room.seats[bob.0].raw().refused;
        room.run_for(ms(200));
        assert_eq!(room.counters().retransmitted, 1);
        let seat = room.seats[bob.0].raw();
        if rtx {
            let again = seat.heard.iter().find(|h| Some(h.ssrc) == picture.rtx_ssrc).unwrap();
            assert_eq!(again.wire[0] & 0x20, 0);
            assert_eq!(again.payload[2..], payloads[0][..]);
        } else {
            // The receiver's replay window refuses the same packet; another one it would open.
            assert_eq!(seat.refused, refused + 1);
        }
    }
}

#[test]
fn a_paused_consumer_gets_no_train_and_its_neighbour_the_whole_one() {
    let mut room = Room::new(304);
    let alice = room.raw_peer(AES_128);
    let (bob, carol) = (room.raw_peer(AES_128), room.raw_peer(AES_128));
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let (of_bob, of_carol) = (room.consume(bob, &camera), room.consume(carol, &camera));
    room.command(Command::PauseConsumer(of_bob.id, true));
    key_frame(&mut room, alice, &camera, &UNEVEN);
    assert_eq!(room.trains, [5]);
    room.run_for(ms(100));
    assert_eq!((room.heard(&of_bob).len(), room.heard(&of_carol).len()), (0, 5));
}
