//! Networks that lose, reorder and duplicate.

use std::collections::{BTreeMap, HashSet};

use ringcast::engine::srtp::SrtpProfile;
use str0m::rtp::rtcp::Rtcp;

use super::bottleneck::{Bottleneck, Excess};
use super::media::Codec;
use super::network::Link;
use super::params::browser_payload_type;
use super::raw::RawPacket;
use super::room::{Camera, Feed, Peer, Room, View, beginning, ms, secs};

const SEEDS: [u64; 4] = [21, 22, 23, 24];

/// A call of a camera and one viewer, both connected over a clean network before `link_up` (of the
/// publisher) and `link_down` (of the viewer) take hold.
fn call(seed: u64, up: Link, down: Link) -> (Room, Peer, Peer, Feed, View) {
    let mut room = Room::new(seed);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let picture = room.consume(bob, &camera);
    room.seat(alice).up = up;
    room.seat(bob).down = down;
    room.start(&camera);
    (room, alice, bob, camera, picture)
}

#[test]
fn losses_on_the_way_in_are_repaired_before_they_reach_a_viewer() {
    for seed in SEEDS {
        for loss in [0.05, 0.10] {
            let up = Link { loss, ..Link::new(15) };
            let (mut room, _, _, camera, picture) = call(seed, up, Link::new(10));
            room.run_for(secs(12));
            let counters = room.counters();
            assert!(counters.nacks_sent > 10, "{}", counters.nacks_sent);
            room.assert_played_from_key_frame(&picture, &camera);
        }
    }
}

#[test]
fn losses_on_the_way_out_are_repaired_through_rtx() {
    for seed in SEEDS {
        for loss in [0.05, 0.10] {
            let down = Link { loss, ..Link::new(15) };
            let (mut room, _, bob, camera, picture) = call(seed, Link::new(10), down);
            room.run_for(secs(12));
            let counters = room.counters();
            assert!(counters.nacks_received > 10 && counters.retransmitted > 10);
            assert_eq!(counters.retransmit_missed, 0);
            room.assert_played_from_key_frame(&picture, &camera);
            let repairs = room.seats[bob.0].stock().heard.iter();
            let repairs = repairs.filter(|heard| Some(heard.ssrc) == picture.rtx_ssrc).count();
            assert!(repairs > 10, "repairs travel on the RTX stream");
            let heard = room.heard(&picture);
            let numbers: HashSet<u16> = heard.iter().map(|heard| heard.seq).collect();
            assert_eq!(numbers.len(), heard.len(), "no number twice on the media stream");
        }
    }
}

/// A sender that probes its way with copies of packets may repeat one before anybody knows that it
/// was lost.
#[test]
fn a_copy_that_comes_before_its_loss_is_known_stands_for_the_original() {
    let mut room = Room::new(25);
    let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let picture = room.consume(bob, &camera);
    let ssrc = room.source(&camera, 0).setup.ssrc;
    let (payload_type, repair_type) = browser_payload_type(Codec::Vp8);
    let media = |seq: u8| [0x90, 0x80, 0x80, 1, u8::from(seq != 1), seq];
    let sent = [(1, false), (2, false), (3, true), (3, true), (4, false), (5, false)];
    for (index, (seq, repeated)) in (1..).zip(sent) {
        let copy = [&[0, seq], &media(seq)[..]].concat();
        let packet = RawPacket {
            ssrc: ssrc + u32::from(repeated),
            payload_type: if repeated { repair_type.unwrap() } else { payload_type },
            marker: true,
            index: if repeated { index } else { u64::from(seq) },
            timestamp: 3_000 * u32::from(seq),
            mid: None,
            padding: 0,
            transport_seq: None,
            payload: if repeated { &copy } else { &copy[2..] },
        };
        let raw = room.seat(alice).raw_mut();
        let sealed = raw.seal(&packet);
        raw.send(sealed);
        room.run_for(ms(33));
    }
    room.run_for(secs(1));
    let heard: Vec<u8> = room.heard(&picture).iter().map(|heard| heard.payload[5]).collect();
    assert_eq!(heard, [1, 2, 3, 4, 5]);
    assert_eq!(room.counters().nacks_sent, 0);
}

#[test]
fn losses_both_ways_at_once_are_repaired() {
    for seed in SEEDS {
        let lossy = Link { loss: 0.05, jitter: ms(5), ..Link::new(20) };
        let (mut room, alice, bob, camera, picture) = call(seed, lossy.clone(), lossy.clone());
        room.seat(alice).down = lossy.clone();
        room.seat(bob).up = lossy;
        room.run_for(secs(12));
        room.assert_played_from_key_frame(&picture, &camera);
    }
}

#[test]
fn without_rtx_a_packet_is_repeated_byte_for_byte() {
    let whole = (u8::MAX, None);
    let shows = [(Codec::Vp8, whole), (Codec::Vp8T3, (0, Some(1))), (Codec::Vp9L3T3, (1, Some(1)))];
    for (seed, (codec, wanted)) in SEEDS.into_iter().zip(shows) {
        let mut room = Room::new(seed);
        let alice = room.publisher();
        let carol = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        let camera = room.produce(alice, &Camera::new(codec));
        room.preferred_layers = Some(wanted);
        let mut capabilities = room.capabilities.clone();
        capabilities.codecs.retain(|codec| !codec.codec().is_rtx());
        let picture = room.consume_as(carol, &camera, &capabilities, false);
        assert_eq!(picture.rtx_ssrc, None);
        let wires = std::rc::Rc::new(std::cell::RefCell::new(Vec::<Vec<u8>>::new()));
        let tap = std::rc::Rc::clone(&wires);
        room.seat(carol).lose_down = Some(Box::new(move |_, bytes| {
            tap.borrow_mut().push(bytes.to_vec());
            false
        }));
        room.start(&camera);
        room.run_for(secs(1));
        let asked: Vec<u16> = room.heard(&picture).iter().rev().take(5).map(|h| h.seq).collect();
        let mut space = [0; 200];
        let mut writer = ringcast::engine::rtcp::RtcpWriter::new(&mut space);
        assert_eq!(writer.nack(77, picture.ssrc, &asked), 5);
        let plain = writer.as_bytes().to_vec();
        let raw = room.seat(carol).raw_mut();
        let sealed = raw.seal_rtcp(&plain);
        raw.send(sealed);
        room.run_for(secs(1));
        assert_eq!(room.counters().retransmitted, 5);
        let of_view = |seq: u16| {
            let wires = wires.borrow();
            let matches = wires.iter().filter(|wire| {
                wire[0] >= 128
                    && wire[8..12] == picture.ssrc.to_be_bytes()
                    && wire[2..4] == seq.to_be_bytes()
            });
            matches.cloned().collect::<Vec<_>>()
        };
        for seq in asked {
            let copies = of_view(seq);
            assert_eq!(copies.len(), 2, "sent and sent again");
            assert_eq!(copies[0], copies[1], "another packet of the same number");
        }
    }
}

#[test]
fn reordering_and_duplication_come_out_in_numbers_of_their_own() {
    for seed in SEEDS {
        let mut room = Room::new(seed);
        let alice = room.publisher();
        // A stock client takes nothing that is older than what it got first: this one takes all.
        let carol = room.raw_peer(SrtpProfile::AeadAes256Gcm);
        let camera = room.produce(alice, &Camera::new(Codec::Vp8));
        let picture = room.consume(carol, &camera);
        room.seat(alice).up = Link { jitter: ms(8), duplication: 0.2, ..Link::new(10) };
        room.start(&camera);
        room.run_for(secs(8));
        let heard = &room.seats[carol.0].raw().heard;
        let numbers: BTreeMap<u64, &[u8]> =
            heard.iter().map(|heard| (heard.index, heard.payload.as_slice())).collect();
        assert_eq!(numbers.len(), heard.len(), "a number went out twice");
        assert_eq!(room.seats[carol.0].raw().refused, 0);
        let begin = *numbers.keys().next().unwrap();
        let sent = room.source(&camera, 0).sent.iter();
        for (packet, expected) in sent.zip(begin..) {
            if packet.at + ms(100) < room.now {
                assert!(*numbers[&expected] == *packet.payload, "{expected}");
            }
        }
        assert_eq!(picture.ssrc, heard[0].ssrc);
    }
}

#[test]
fn a_narrow_path_delays_and_loses_nothing() {
    let narrow = Bottleneck::new(beginning(), 1_500_000, Excess::Queued(usize::MAX));
    let (mut room, _, _, camera, picture) = call(25, Link::new(10).through(narrow), Link::new(10));
    room.run_for(secs(5));
    room.assert_all_arrived(&picture, &camera);
}

#[test]
fn an_outage_of_half_a_second_is_repaired_whole() {
    for seed in SEEDS {
        let (mut room, alice, _, camera, picture) = call(seed, Link::new(10), Link::new(10));
        room.run_for(secs(3));
        room.seat(alice).up.loss = 1.0;
        room.run_for(ms(500));
        room.seat(alice).up.loss = 0.0;
        room.run_for(secs(4));
        room.assert_played_from_key_frame(&picture, &camera);
    }
}

#[test]
fn an_outage_of_more_than_can_be_asked_for_again_ends_with_a_key_frame() {
    for seed in SEEDS {
        let (mut room, alice, _, camera, picture) = call(seed, Link::new(10), Link::new(10));
        room.source_mut(&camera, 0).packets_per_frame = 40;
        room.run_for(secs(3));
        room.seat(alice).up.loss = 1.0;
        room.run_for(ms(1500));
        room.seat(alice).up.loss = 0.0;
        let back = room.now;
        room.run_for(secs(4));
        let key = room.source(&camera, 0).sent.iter().find(|p| p.key && p.at > back).cloned();
        let key = key.expect("a key frame is asked for");
        assert!(key.at - back < ms(200), "{:?}", key.at - back);
        let heard = room.heard(&picture);
        assert!(heard.iter().any(|h| *h.payload == *key.payload), "and it arrives");
    }
}

#[test]
fn a_publisher_is_asked_for_exactly_what_is_missing() {
    let (mut room, alice, _, _, _) = call(26, Link::new(10), Link::new(10));
    let mut count = 0;
    room.seat(alice).lose_up = Some(Box::new(move |_, bytes| {
        let is_video = bytes[0] >= 128 && bytes[1] & 0x7f == 96;
        count += u64::from(is_video);
        is_video && count % 40 == 7
    }));
    room.run_for(secs(4));
    let nacks: Vec<_> = room.seats[alice.0].stock().rtcp.iter().collect();
    let asked: u32 = nacks
        .iter()
        .filter_map(|(_, rtcp)| match rtcp {
            Rtcp::Nack(nack) => {
                Some(nack.reports.iter().map(|e| 1 + e.blp.count_ones()).sum::<u32>())
            }
            _ => None,
        })
        .sum();
    let lost = room.counters().nacks_sent;
    assert_eq!(u64::from(asked), lost);
    assert!((5..=10).contains(&asked), "{asked} asked for, 7 or 8 lost");
}

#[test]
fn a_distant_publisher_is_not_asked_again_before_its_answer_can_be_here() {
    for seed in SEEDS {
        let far = Link::new(150);
        let (mut room, alice, _, _, _) = call(seed, far.clone(), Link::new(10));
        room.seat(alice).down = far.clone();
        // Long enough for the round trip to be measured.
        room.run_for(secs(4));
        room.seat(alice).up = Link { loss: 0.05, ..far };
        let before = room.counters();
        room.run_for(secs(10));
        let after = room.counters();
        let asked = after.nacks_sent - before.nacks_sent;
        let came = after.packets_in - before.packets_in;
        assert!(asked > 10, "{asked}");
        // Each packet lost is asked for once, and again where the repair was lost too.
        assert!(asked * 12 < came, "{asked} asked for while {came} came");
    }
}
