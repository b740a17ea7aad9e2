//! What senders do that no textbook call does.

use ringcast::control::command::Command;
use ringcast::engine::report::Discard;
use ringcast::engine::rtcp::{RtcpItem, parse};
use ringcast::engine::srtp::SrtpProfile;
use ringcast::id::ProducerId;
use uuid::Uuid;

use super::media::Codec;
use super::raw::RawPacket;
use super::room::{Camera, Peer, Room, View, ms, secs};

/// A VP8 packet: one frame each.
fn frame(key: bool, number: u64) -> Vec<u8> {
    let mut payload = vec![0x90, 0x80, 0x80, 1, u8::from(!key)];
    payload.extend(number.to_be_bytes());
    payload.resize(200, 7);
    payload
}

fn send(room: &mut Room, peer: Peer, packet: &RawPacket<'_>) {
    let raw = room.seat(peer).raw_mut();
    let sealed = raw.seal(packet);
    raw.send(sealed);
}

fn numbers(room: &Room, view: &View) -> Vec<(u16, u32, Vec<u8>)> {
    room.heard(view).into_iter().map(|h| (h.seq, h.timestamp, h.payload)).collect()
}

#[test]
fn padding_of_a_publisher_is_left_out_and_leaves_no_gap() {
    let mut room = Room::new(101);
    let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let bob = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let camera = room.prepare(alice, &Camera::new(Codec::Vp8));
    room.announce(&camera);
    let picture = room.consume(bob, &camera);
    let ssrc = room.source(&camera, 0).setup.ssrc;
    let mut expected = Vec::new();
    for index in 1..=200_u64 {
        let padding_only = index % 5 == 3;
        let payload = if padding_only { Vec::new() } else { frame(index == 1, index) };
        if !padding_only {
            expected.push(payload.clone());
        }
        let packet = RawPacket {
            ssrc,
            payload_type: 96,
            marker: true,
            index,
            timestamp: u32::try_from(index * 3000).unwrap(),
            mid: None,
            transport_seq: None,
            payload: &payload,
            // Padding behind media is cut off too.
            padding: if padding_only { 100 } else { u8::try_from(index % 3).unwrap() * 8 },
        };
        send(&mut room, alice, &packet);
        room.run_for(ms(10));
    }
    room.run_for(secs(1));
    let heard = numbers(&room, &picture);
    assert_eq!(heard.len(), expected.len());
    for (pair, payloads) in heard.windows(2).zip(expected.windows(2)) {
        assert_eq!(pair[1].0, pair[0].0.wrapping_add(1));
        assert!(pair[0].2 == payloads[0]);
    }
}

#[test]
fn a_sender_that_takes_another_ssrc_goes_on_without_a_gap_whatever_comes_late_of_the_old_one() {
    for late in [0, 5] {
        let mut room = Room::new(102);
        let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        let bob = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        let camera = room.prepare(alice, &Camera { by_mid: true, ..Camera::new(Codec::Vp8) });
        room.announce(&camera);
        let picture = room.consume(bob, &camera);
        let mut held_back = Vec::new();
        let mut last_of_old = 0;
        for step in 1..=200_u64 {
            let second = step > 100;
            let index = if second { step - 100 } else { 40_000 + step };
            let key = step == 1 || index == 1 || index == 20;
            let payload = frame(key, step);
            let packet = RawPacket {
                ssrc: if second { 2222 } else { 1111 },
                payload_type: 96,
                marker: true,
                index,
                timestamp: u32::try_from(step * 3000).unwrap() + if second { 9_000_000 } else { 0 },
                mid: Some(b'0'),
                transport_seq: None,
                payload: &payload,
                padding: 0,
            };
            if !second && step > 100 - late {
                let sealed = room.seat(alice).raw_mut().seal(&packet);
                held_back.push(sealed);
            } else {
                send(&mut room, alice, &packet);
                last_of_old = if second { last_of_old } else { step };
            }
            if index == 10 && second {
                for sealed in held_back.drain(..) {
                    room.seat(alice).raw_mut().send(sealed);
                }
            }
            room.run_for(ms(33));
        }
        room.run_for(secs(1));
        let heard = numbers(&room, &picture);
        for pair in heard.windows(2) {
            assert_eq!(pair[1].0, pair[0].0.wrapping_add(1), "{late} late: a gap");
            let ahead = pair[1].1.wrapping_sub(pair[0].1).cast_signed();
            assert!(ahead > 0 && ahead < 90_000, "{late} late: {ahead} ticks");
        }
        let steps: Vec<u64> = heard
            .iter()
            .map(|(_, _, payload)| u64::from_be_bytes(payload[5..13].try_into().unwrap()))
            .collect();
        assert!(steps.contains(&last_of_old), "all of the old one that came in time");
        assert_eq!(steps.last(), Some(&200), "{late} late");
        // At most until the second key frame.
        let of_new = steps.iter().filter(|step| **step > 100).count();
        assert!(of_new >= 80, "{late} late: {of_new} of 100 of the new one");
        assert_eq!(steps.iter().filter(|step| **step > last_of_old && **step <= 100).count(), 0);
    }
}

#[test]
fn a_producer_that_is_closed_can_be_made_again_from_the_same_stream() {
    let mut room = Room::new(103);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera { first_seq: 65_400, ..Camera::new(Codec::Vp8) });
    let first = room.consume(bob, &camera);
    room.start(&camera);
    room.run_for(secs(2));
    room.command(Command::CloseProducer(camera.id));
    assert_eq!((room.gauges().producers, room.gauges().consumers), (0, 0));
    let before = room.heard(&first).len();
    // The client goes on sending, over the wrap of its numbers.
    room.run_for(secs(1));
    assert!(room.heard(&first).len() <= before + 10);
    let mut again = camera.clone();
    again.id = ProducerId(Uuid::from_u128(999_999));
    room.announce(&again);
    let second = room.consume(bob, &again);
    room.run_for(secs(2));
    let heard = room.heard(&second);
    assert!(heard.len() > 100);
    super::verdicts::assert_same(&heard, &room.source(&camera, 0).sent);
    room.assert_numbers(&heard, &second);
}

#[test]
fn a_consumer_made_before_its_transport_is_connected_begins_when_it_is() {
    let mut room = Room::new(104);
    let alice = room.publisher();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let microphone = room.produce(alice, &Camera::new(Codec::Opus));
    room.start(&camera);
    room.start(&microphone);
    room.run_for(secs(3));
    let numbers = room.room_numbers();
    let bob = room.arrive(&numbers, None);
    let picture = room.consume(bob, &camera);
    let sound = room.consume(bob, &microphone);
    let asked = room.now;
    room.run_for(secs(3));
    for (view, feed) in [(&picture, &camera), (&sound, &microphone)] {
        let heard = room.heard(view);
        assert!(heard[0].at - asked < secs(1), "{:?}", heard[0].at - asked);
        super::verdicts::assert_same(&heard, &room.source(feed, 0).sent);
        room.assert_numbers(&heard, view);
    }
}

#[test]
fn transport_wide_numbers_rise_by_one_over_all_that_a_receiver_gets() {
    let mut room = Room::new(105);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let screen = room.produce(alice, &Camera::new(Codec::H264));
    for feed in [&camera, &screen] {
        room.consume(bob, feed);
        room.start(feed);
    }
    room.run_for(secs(1));
    // Repairs are numbered as well.
    let mut count = 0;
    room.seat(bob).lose_down = Some(Box::new(move |_, bytes| {
        let media = bytes[0] >= 128 && !(192..=223).contains(&bytes[1]);
        count += u64::from(media);
        media && count % 50 == 0
    }));
    room.run_for(secs(5));
    assert!(room.counters().retransmitted > 5);
    let mut numbers: Vec<u16> =
        room.seats[bob.0].stock().heard.iter().filter_map(|heard| heard.transport_seq).collect();
    numbers.sort_unstable();
    let lost = numbers.windows(2).map(|pair| u64::from(pair[1] - pair[0]) - 1).sum::<u64>();
    assert!(numbers.windows(2).all(|pair| pair[1] > pair[0]), "a number twice");
    assert!(lost <= room.counters().nacks_received, "{lost} numbers were never sent");
}

/// Steps of a call that [`frame`] wrote into what was heard.
fn steps_heard(room: &Room, view: &View) -> Vec<u64> {
    let heard = numbers(room, view);
    heard.iter().map(|(.., p)| u64::from_be_bytes(p[5..13].try_into().unwrap())).collect()
}

/// A publisher of raw packets, and who looks at them.
fn raw_call(seed: u64) -> (Room, Peer, View) {
    let mut room = Room::new(seed);
    let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let bob = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let camera = room.prepare(alice, &Camera { by_mid: true, ..Camera::new(Codec::Vp8) });
    room.announce(&camera);
    let picture = room.consume(bob, &camera);
    (room, alice, picture)
}

/// The media packet of a step, one frame each.
fn media(ssrc: u32, index: u64, step: u64, payload: &[u8]) -> RawPacket<'_> {
    RawPacket {
        ssrc,
        payload_type: 96,
        marker: true,
        index,
        timestamp: u32::try_from(step * 3000).unwrap(),
        mid: Some(b'0'),
        transport_seq: None,
        payload,
        padding: 0,
    }
}

/// The same again over RTX: packet `number` of `ssrc`.
fn repair(room: &mut Room, peer: Peer, (ssrc, number): (u32, u64), (index, step): (u64, u64)) {
    let mut payload = u16::try_from(index).unwrap().to_be_bytes().to_vec();
    payload.extend(frame(false, step));
    let packet = RawPacket { payload_type: 97, ..media(ssrc, number, step, &payload) };
    send(room, peer, &packet);
}

#[test]
fn lost_packets_are_repaired_whatever_numbers_the_ssrc_before_had() {
    // The old one's numbers in the upper half, in the lower, and among those of the new one.
    for (old, new) in [(40_000, 300), (20_000, 300), (100, 280)] {
        let (mut room, alice, picture) = raw_call(106);
        for step in 1..=400_u64 {
            let (ssrc, index) =
                if step > 200 { (2222, step - 200 + new) } else { (1111, old + step) };
            let payload = frame(step == 1 || step == 201, step);
            let lost = [100, 195, 215, 300].contains(&step);
            if !lost {
                send(&mut room, alice, &media(ssrc, index, step, &payload));
            }
            match step {
                103 => repair(&mut room, alice, (3333, 1), (old + 100, 100)),
                // Too late: where the numbers are alike it would be taken for 215.
                217 => repair(&mut room, alice, (3333, 2), (old + 195, 195)),
                218 => repair(&mut room, alice, (4444, 1), (new + 15, 215)),
                303 => repair(&mut room, alice, (4444, 2), (new + 100, 300)),
                _ => {}
            }
            room.run_for(ms(33));
        }
        room.run_for(secs(1));
        let mut steps = steps_heard(&room, &picture);
        steps.sort_unstable();
        let expected: Vec<u64> = (1..=400).filter(|step| *step != 195).collect();
        assert_eq!(steps, expected, "numbers from {old}, then from {new}");
    }
}

#[test]
fn an_rtx_stream_that_stays_when_the_media_takes_another_ssrc_goes_on_repairing() {
    let (mut room, alice, picture) = raw_call(107);
    for step in 1..=400_u64 {
        let ssrc = if step > 200 { 2222 } else { 1111 };
        let payload = frame(step == 1 || step == 201, step);
        if step != 100 && step != 300 {
            send(&mut room, alice, &media(ssrc, 500 + step, step, &payload));
        }
        if step == 103 || step == 303 {
            repair(&mut room, alice, (3333, step), (500 + step - 3, step - 3));
        }
        room.run_for(ms(33));
    }
    room.run_for(secs(1));
    let mut steps = steps_heard(&room, &picture);
    steps.sort_unstable();
    assert_eq!(steps, (1..=400).collect::<Vec<_>>());
}

#[test]
fn a_sender_that_takes_a_new_ssrc_hundreds_of_times_is_still_heard() {
    let (mut room, alice, picture) = raw_call(108);
    let mut step = 0;
    for change in 0..300_u32 {
        for index in 1..=3 {
            step += 1;
            let payload = frame(index == 1, step);
            send(&mut room, alice, &media(10_000 + change, index, step, &payload));
            if index == 3 {
                repair(&mut room, alice, (20_000 + change, 1), (2, step - 1));
            }
            room.run_for(ms(33));
        }
    }
    room.run_for(secs(1));
    assert_eq!(steps_heard(&room, &picture), (1..=step).collect::<Vec<_>>());
    assert_eq!(room.discarded(Discard::TooManyStreams), 0);
}

#[test]
fn the_first_packet_that_a_producer_takes_keeps_its_own_number() {
    let mut room = Room::new(109);
    let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let bob = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let camera = room.prepare(alice, &Camera { by_mid: true, ..Camera::new(Codec::Vp8) });
    let say = |room: &mut Room, step: u64| {
        let payload = frame(step == 3, step);
        send(room, alice, &media(1111, step, step, &payload));
        room.run_for(ms(33));
    };
    // Nobody wants these yet; 3 took longer.
    [1, 2, 4].into_iter().for_each(|step| say(&mut room, step));
    room.announce(&camera);
    let picture = room.consume(bob, &camera);
    [3, 5, 6].into_iter().for_each(|step| say(&mut room, step));
    room.run_for(secs(1));
    assert_eq!(steps_heard(&room, &picture), [3, 5, 6]);
    let heard = numbers(&room, &picture);
    assert_eq!(heard[1].0.wrapping_sub(heard[0].0), 2, "there is one between them");
}

#[test]
fn a_late_report_of_the_ssrc_that_was_left_does_not_move_the_picture_in_time() {
    let (mut room, alice, picture) = raw_call(110);
    for step in 1..=400_u64 {
        let (ssrc, base) = if step > 200 { (2222, 9_000_000) } else { (1111, 0) };
        let payload = frame(step == 1 || step == 201, step);
        let packet = media(ssrc, step, step, &payload);
        let packet = RawPacket { timestamp: packet.timestamp + base, ..packet };
        send(&mut room, alice, &packet);
        let now = room.now;
        if step % 30 == 0 {
            room.seat(alice).raw_mut().send_report(now, ssrc, packet.timestamp);
        } else if step > 200 && step % 30 == 1 {
            room.seat(alice).raw_mut().send_report(now, 1111, packet.timestamp - base);
        }
        room.run_for(ms(33));
    }
    let (mut told, mut seen) = (0, 0);
    let heard = room.heard(&picture);
    for (at, compound) in &room.seats[picture.peer.0].raw().rtcp {
        for item in parse(compound) {
            let RtcpItem::SenderReport(report) = item else { continue };
            seen += 1;
            // A second after the change, with the first report of the new one.
            let newest = heard.iter().rev().find(|packet| packet.at <= *at).unwrap();
            let apart = report.info.rtp_timestamp.wrapping_sub(newest.timestamp).cast_signed();
            assert!(apart.abs() < 90_000 / 4, "{apart} ticks between report and picture");
            told += u64::from(report.info.ssrc == picture.ssrc);
        }
    }
    assert!(told >= 10 && told == seen, "{told} of {seen}");
}
