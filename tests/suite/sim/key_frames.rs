//! Where a receiver begins, and what its publisher is asked for.

use ringcast::engine::rtcp::{RtcpItem, parse};
use ringcast::engine::srtp::SrtpProfile;

use super::media::Codec;
use super::raw::RawPacket;
use super::room::{Camera, Feed, Room, ms, secs};

/// When the feed's client was asked for key frames, in ms since `since`.
fn asked(room: &Room, feed: &Feed, since: std::time::Instant) -> Vec<u128> {
    let asked = &room.seats[feed.peer.0].stock().asked;
    asked.iter().filter(|(at, ..)| *at >= since).map(|(at, ..)| (*at - since).as_millis()).collect()
}

#[test]
fn a_late_joiner_begins_with_a_key_frame_that_is_asked_for_at_once() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264] {
        let mut room = Room::new(11);
        let alice = room.publisher();
        let camera = room.produce(alice, &Camera::new(codec));
        room.start(&camera);
        room.run_for(secs(5));
        let bob = room.subscriber();
        let joined = room.now;
        let picture = room.consume(bob, &camera);
        room.run_for(secs(2));
        assert_eq!(asked(&room, &camera, joined), [10], "{codec:?}");
        let heard = room.heard(&picture);
        // To the publisher and back, and one frame.
        assert!(heard[0].at - joined <= ms(10 + 10 + 40 + 10), "{codec:?}");
        super::verdicts::assert_same(&heard, &room.source(&camera, 0).sent);
        room.assert_numbers(&heard, &picture);
    }
}

#[test]
fn a_joiner_right_after_a_key_frame_is_served_without_asking() {
    let mut room = Room::new(12);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    room.start(&camera);
    room.run_for(ms(200));
    let joined = room.now;
    let picture = room.consume(bob, &camera);
    room.run_for(secs(1));
    assert_eq!(asked(&room, &camera, joined), [0; 0]);
    let heard = room.heard(&picture);
    assert!(heard[0].at - joined <= ms(10));
    super::verdicts::assert_same(&heard, &room.source(&camera, 0).sent);
}

#[test]
fn many_joiners_cost_a_burst_of_three_key_frames_and_then_one_a_second() {
    let mut room = Room::new(13);
    let alice = room.publisher();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    room.start(&camera);
    let joiners: Vec<_> = (0..40).map(|_| room.subscriber()).collect();
    room.run_for(secs(5));
    let begun = room.now;
    let mut pictures = Vec::new();
    // Far enough apart that no key frame is recent enough to serve the next one.
    for joiner in joiners.iter().take(10) {
        pictures.push(room.consume(*joiner, &camera));
        room.run_for(ms(400));
    }
    // And all at once.
    for joiner in joiners.iter().skip(10) {
        pictures.push(room.consume(*joiner, &camera));
    }
    room.run_for(secs(3));
    let asked = asked(&room, &camera, begun);
    assert!(asked.len() >= 3, "{asked:?}");
    for burst in asked.windows(4) {
        assert!(burst[3] - burst[0] >= 1000, "{asked:?}");
    }
    for count in 4..=asked.len() {
        let span = asked[count - 1] - asked[0];
        assert!(count as u128 <= 3 + span / 1000, "{count} in {span} ms: {asked:?}");
    }
    for picture in &pictures {
        super::verdicts::assert_same(&room.heard(picture), &room.source(&camera, 0).sent);
    }
}

#[test]
fn a_key_frame_is_asked_for_until_it_arrives() {
    // Either the first requests are lost on their way, or the key frames are.
    for lose_requests in [true, false] {
        let mut room = Room::new(14);
        let alice = room.publisher();
        let camera = room.produce(alice, &Camera::new(Codec::Vp8));
        room.start(&camera);
        room.run_for(secs(3));
        let bob = room.subscriber();
        let joined = room.now;
        if lose_requests {
            let mut left = 3;
            room.seat(alice).lose_down = Some(Box::new(move |_, bytes| {
                let is_feedback = bytes[0] >= 128 && bytes[1] == 206;
                left -= i32::from(is_feedback && left > 0);
                is_feedback && left > 0
            }));
        } else {
            room.source_mut(&camera, 0).deaf_for = 3;
        }
        let picture = room.consume(bob, &camera);
        room.run_for(secs(5));
        let heard = room.heard(&picture);
        assert!(!heard.is_empty(), "lose requests: {lose_requests}");
        let waited = heard[0].at - joined;
        // At least two repeats, which come as soon as round trip and throttle allow.
        assert!(waited > ms(600) && waited < ms(4500), "{waited:?}");
        super::verdicts::assert_same(&heard, &room.source(&camera, 0).sent);
        let until_then = room.counters().plis_sent;
        room.run_for(secs(5));
        assert_eq!(room.counters().plis_sent, until_then, "asked on although it is there");
    }
}

#[test]
fn a_receivers_own_request_reaches_the_publisher() {
    let mut room = Room::new(15);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    room.run_for(secs(5));
    let since = room.now;
    room.seat(bob).stock_mut().request_key_frame(picture.ssrc);
    room.run_for(secs(1));
    let asked = asked(&room, &camera, since);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(room.source(&camera, 0).sent.iter().any(|p| p.key && p.at > since));
    room.assert_all_arrived(&picture, &camera);
}

#[test]
fn media_before_its_producer_is_dropped_and_counted_also_across_a_wrap() {
    use ringcast::engine::report::Discard;
    for first_seq in [1000, 65_500] {
        let mut room = Room::new(16);
        let alice = room.publisher();
        let bob = room.subscriber();
        let camera = room.prepare(alice, &Camera { first_seq, ..Camera::new(Codec::Vp8) });
        room.start(&camera);
        room.run_for(secs(2));
        let early = room.source(&camera, 0).sent.len() as u64;
        assert!(first_seq + early > 65_536 || first_seq == 1000, "the test crosses the wrap");
        let dropped = room.discarded(Discard::UnknownStream);
        assert!(dropped > 100 && dropped <= early, "{dropped} of {early}");
        let announced = room.now;
        room.announce(&camera);
        let picture = room.consume(bob, &camera);
        room.run_for(secs(2));
        assert!(!asked(&room, &camera, announced).is_empty());
        let heard = room.heard(&picture);
        assert!(heard.len() > 100);
        super::verdicts::assert_same(&heard, &room.source(&camera, 0).sent);
        room.assert_numbers(&heard, &picture);
    }
}

#[test]
fn a_publisher_that_knows_fir_only_is_asked_by_fir_with_a_new_number_each_time() {
    let mut room = Room::new(19);
    let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let bob = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let mut camera = room.prepare(alice, &Camera::new(Codec::Vp8));
    for codec in &mut camera.produced.rtp.codecs {
        codec.rtcp_feedback.retain(|feedback| feedback.parameter != "pli");
    }
    room.announce(&camera);
    room.consume(bob, &camera);
    let payload = [0x90, 0x80, 0x80, 1, 1, 7, 7, 7];
    for index in 1..=100_u64 {
        let packet = RawPacket {
            ssrc: room.source(&camera, 0).setup.ssrc,
            payload_type: 96,
            marker: true,
            index,
            timestamp: u32::try_from(index * 3000).unwrap(),
            mid: None,
            transport_seq: None,
            payload: &payload,
            padding: 0,
        };
        let raw = room.seat(alice).raw_mut();
        let sealed = raw.seal(&packet);
        raw.send(sealed);
        room.run_for(ms(33));
    }
    let ssrc = room.source(&camera, 0).setup.ssrc;
    let mut numbers = Vec::new();
    for item in room.seats[alice.0].raw().rtcp.iter().flat_map(|(_, compound)| parse(compound)) {
        match item {
            RtcpItem::Fir(fir) => numbers.extend(fir.entries.map(|entry| {
                assert_eq!(entry.ssrc, ssrc);
                entry.seq
            })),
            RtcpItem::Pli { .. } => panic!("it does not know PLI"),
            _ => {}
        }
    }
    assert!(numbers.len() >= 3, "asked again as long as none comes: {numbers:?}");
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    let counters = room.counters();
    assert_eq!((counters.firs_sent, counters.plis_sent), (numbers.len() as u64, 0));
}
