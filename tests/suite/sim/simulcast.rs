//! Publishers with several encodings or layers: one clean stream for each viewer.

use std::collections::HashMap;

use ringcast::control::command::{Command, Layers};
use ringcast::engine::rtp::RtpView;
use ringcast::engine::srtp::SrtpProfile;
use ringcast::ortc::types::RtpHeaderExtensionParameters;
use ringcast::ortc::uri::ABS_CAPTURE_TIME;
use serde_json::json;

use super::clients::Heard;
use super::media::{Codec, Packet, picture_of};
use super::raw::RawPacket;
use super::room::{Camera, Feed, Room, View, ms, secs};

fn layered(rids: &[&'static str]) -> Camera {
    Camera { rids: rids.to_vec(), ..Camera::new(Codec::Vp8) }
}

/// A packet heard with the encoding it came from and whether it begins a key frame.
struct Origin {
    heard: Heard,
    encoding: usize,
    key: bool,
}

fn origins(room: &Room, view: &View, feed: &Feed) -> Vec<Origin> {
    let mut known = HashMap::new();
    for encoding in 0..feed.sources.len() {
        for packet in &room.source(feed, encoding).sent {
            known.insert(picture_of(&packet.payload).to_vec(), (encoding, packet.key));
        }
    }
    room.heard(view)
        .into_iter()
        .map(|heard| {
            let (encoding, key) = known[picture_of(&heard.payload)];
            Origin { heard, encoding, key }
        })
        .collect()
}

/// Numbers without gaps, time that never runs backwards nor away, changes at key frames only.
/// Returns the encodings in the order in which they were seen.
fn assert_clean(room: &Room, view: &View, feed: &Feed) -> Vec<usize> {
    let origins = origins(room, view, feed);
    let heard: Vec<Heard> = origins.iter().map(|origin| origin.heard.clone()).collect();
    room.assert_numbers(&heard, view);
    assert!(origins[0].key, "begins with a key frame");
    let mut seen = vec![origins[0].encoding];
    for pair in origins.windows(2) {
        let ahead = pair[1].heard.timestamp.wrapping_sub(pair[0].heard.timestamp).cast_signed();
        assert!(ahead >= 0, "time runs backwards");
        let id = |origin: &Origin| {
            // Behind the flags, of which VP8 has a byte more.
            let id = &origin.heard.payload[if feed.codec == Codec::Vp8 { 2 } else { 1 }..];
            u16::from_be_bytes([id[0] & 0x7f, id[1]])
        };
        let next = id(&pair[1]).wrapping_sub(id(&pair[0])) & 0x7fff;
        assert_eq!(next, u16::from(ahead > 0), "picture ids go on");
        if pair[1].encoding != pair[0].encoding {
            assert!(pair[1].key, "changes in the middle of a frame");
            assert!(ahead > 0, "two pictures at one time");
            seen.push(pair[1].encoding);
        }
    }
    let (first, last) = (&heard[0], &heard[heard.len() - 1]);
    let media = f64::from(last.timestamp.wrapping_sub(first.timestamp)) / 90_000.0;
    let clock = (last.at - first.at).as_secs_f64();
    assert!((media - clock).abs() < 0.2, "{media} s of media in {clock} s");
    seen
}

#[test]
fn a_viewer_climbs_to_the_highest_encoding_and_leaves_it_when_it_stops() {
    for (seed, codec) in [(51, Codec::Vp8), (52, Codec::Vp8), (53, Codec::Vp8), (58, Codec::Vp9)] {
        let mut room = Room::new(seed);
        let alice = room.publisher();
        let bob = room.subscriber();
        let camera = room.produce(alice, &Camera { codec, ..layered(&["q", "h", "f"]) });
        let picture = room.consume(bob, &camera);
        room.start(&camera);
        room.run_for(secs(8));
        let climbed = assert_clean(&room, &picture, &camera);
        assert_eq!(climbed.last(), Some(&2), "{climbed:?}");
        room.stop(&camera, 2);
        room.run_for(secs(4));
        let fallen = assert_clean(&room, &picture, &camera);
        assert_eq!(fallen.last(), Some(&1), "{fallen:?}");
        room.stop(&camera, 1);
        room.run_for(secs(4));
        let lowest = assert_clean(&room, &picture, &camera);
        assert_eq!(lowest.last(), Some(&0), "{lowest:?}");
        for encoding in [1, 2] {
            let now = room.now;
            room.source_mut(&camera, encoding).next_at = Some(now);
        }
        room.run_for(secs(8));
        let back = assert_clean(&room, &picture, &camera);
        assert_eq!(back.last(), Some(&2), "{back:?}");
        assert!(back.len() <= climbed.len() + 4, "no flapping: {back:?}");
    }
}

#[test]
fn a_late_viewer_of_a_layered_publisher_begins_at_once_with_the_highest() {
    let mut room = Room::new(54);
    let alice = room.publisher();
    let camera = room.produce(alice, &layered(&["q", "h", "f"]));
    room.start(&camera);
    room.run_for(secs(10));
    let bob = room.subscriber();
    let joined = room.now;
    let picture = room.consume(bob, &camera);
    room.run_for(secs(3));
    assert_eq!(assert_clean(&room, &picture, &camera), [2]);
    assert!(room.heard(&picture)[0].at - joined < ms(100));
}

#[test]
fn losses_of_any_encoding_are_repaired_through_its_own_rtx() {
    for seed in [55, 56, 57] {
        let mut room = Room::new(seed);
        let alice = room.publisher();
        let bob = room.subscriber();
        let camera = room.produce(alice, &layered(&["q", "h", "f"]));
        let picture = room.consume(bob, &camera);
        room.start(&camera);
        room.run_for(secs(1));
        room.seat(alice).up.loss = 0.05;
        room.run_for(secs(12));
        assert!(room.counters().nacks_sent > 50);
        let played = room.played(&picture);
        let landed = played.len().saturating_sub(80);
        for pair in played[..landed].windows(2) {
            assert_eq!(pair[1].0, pair[0].0 + 1, "a packet never came");
        }
        let last = &played[landed - 1].2;
        let highest = &room.source(&camera, 2).sent;
        let plays = |packet: &Packet| picture_of(&packet.payload) == picture_of(last);
        assert!(highest.iter().any(plays), "plays the highest");
    }
}

#[test]
fn layers_within_one_stream_are_forwarded_whole() {
    for seed in [58, 59] {
        let mut room = Room::new(seed);
        let alice = room.publisher();
        let bob = room.subscriber();
        let camera = room.produce(alice, &Camera::new(Codec::Vp9Svc));
        let picture = room.consume(bob, &camera);
        room.start(&camera);
        room.run_for(secs(3));
        room.assert_all_arrived(&picture, &camera);
    }
}

/// mediasoup 3.27 shows nothing of such a publisher's simulcast.
#[test]
fn a_publisher_that_tells_when_pictures_were_taken_is_seen_and_so_is_that() {
    const CAPTURED: u8 = 13;
    // The time alone, and with the offset of the camera's clock.
    for (seed, bytes) in [(60, 8_u8), (61, 16)] {
        let mut room = Room::new(seed);
        let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        let mut camera = room.prepare(alice, &Camera { encodings: 3, ..Camera::new(Codec::Vp8) });
        let extensions = &room.capabilities.header_extensions;
        let known = extensions.iter().find(|extension| extension.uri == ABS_CAPTURE_TIME);
        let id = known.expect("the room carries it").preferred_id;
        let produced = &mut camera.produced;
        for (side, id) in [(&mut produced.rtp, CAPTURED), (&mut produced.consumable, id)] {
            let extension = json!({"uri": ABS_CAPTURE_TIME, "id": id});
            let stated: RtpHeaderExtensionParameters = serde_json::from_value(extension).unwrap();
            side.header_extensions.push(stated);
        }
        room.announce(&camera);
        let captured: Vec<u8> = (0xa0..0xa0 + bytes).collect();
        for encoding in 0..3 {
            let source = room.source_mut(&camera, encoding);
            source.extension = Some((CAPTURED, captured.clone()));
        }
        let (bob, carol) = (room.subscriber(), room.raw_peer(SrtpProfile::AeadAes128Gcm));
        let (picture, other) = (room.consume(bob, &camera), room.consume(carol, &camera));
        room.start(&camera);
        room.run_for(secs(10));
        let seen = assert_clean(&room, &picture, &camera);
        assert_eq!(seen.last(), Some(&2), "{seen:?}");
        let heard = room.heard(&picture);
        assert!(heard.windows(2).all(|pair| pair[1].at - pair[0].at < ms(500)), "never dark");
        let raw = room.seats[carol.0].raw();
        let wires: Vec<_> = raw.heard.iter().filter(|heard| heard.ssrc == other.ssrc).collect();
        assert!(wires.len() > 500, "{}", wires.len());
        let mut offsets = Vec::new();
        for heard in wires {
            let view = RtpView::parse(&heard.wire).unwrap();
            let mut elements = view.extension_block().elements();
            let carried = elements.find(|element| element.id == id).expect("carried").data;
            let (time, offset) = carried.split_first_chunk::<8>().unwrap();
            assert_eq!(time[..], captured[..8]);
            // As it came until the camera's first report, then the offset to our clock.
            if offset == &captured[8..] {
                assert!(heard.at - room.start < secs(3), "the camera has reported since");
                continue;
            }
            let offset = i64::from_be_bytes(offset.try_into().unwrap());
            let known = captured[8..].try_into().map_or(0, i64::from_be_bytes);
            offsets.push(offset.wrapping_sub(known));
        }
        assert!(offsets.len() > 300);
        let (least, most) = (offsets.iter().min().unwrap(), offsets.iter().max().unwrap());
        // The camera's clock stands at 1.7 billion seconds, ours at 1.79: so many of 2^-32 s are to
        // be added to ours.
        assert!((-90_000_002..-90_000_000).contains(&(least >> 32)), "{least}");
        assert!(most - least < 1 << 22, "by a millisecond at most: {}", most - least);
    }
}

#[test]
fn a_screen_that_changes_seldom_is_seen_in_full_and_asked_for_nothing() {
    // One picture in so many ms, of which the encodings come so many ms after each other.
    for (interval, apart) in [(1_000, 20), (2_000, 0), (2_000, 20), (5_000, 20), (5_000, 100)] {
        let mut room = Room::new(59);
        let alice = room.publisher();
        let bob = room.subscriber();
        let camera = room.produce(alice, &layered(&["q", "h", "f"]));
        let picture = room.consume(bob, &camera);
        room.start(&camera);
        for encoding in 0..3 {
            let at = room.now + ms(apart * encoding);
            let source = room.source_mut(&camera, usize::try_from(encoding).unwrap());
            source.interval = ms(interval);
            source.next_at = Some(at);
        }
        room.run_for(secs(30));
        let carol = room.subscriber();
        let late = room.consume(carol, &camera);
        room.run_for(secs(12));
        let before = room.counters();
        let (seen, joined) = (room.heard(&picture).len(), room.heard(&late).len());
        room.run_for(secs(60));
        let after = room.counters();
        let name = format!("every {interval} ms, {apart} ms apart");
        assert_eq!(
            (after.plis_sent, after.layer_switches),
            (before.plis_sent, before.layer_switches)
        );
        for (view, before) in [(&picture, seen), (&late, joined)] {
            assert_eq!(assert_clean(&room, view, &camera).last(), Some(&2), "{name}");
            let heard = &room.heard(view)[before..];
            let mut pictures: Vec<u32> = heard.iter().map(|packet| packet.timestamp).collect();
            pictures.dedup();
            assert_eq!(pictures.len() as u64, 60_000 / interval, "{name}");
        }
        // The largest stops: the next picture shows that.
        room.stop(&camera, 2);
        room.run_for(ms(3 * interval));
        for view in [&picture, &late] {
            assert_eq!(assert_clean(&room, view, &camera).last(), Some(&1), "{name}");
        }
    }
}

#[test]
fn going_over_keeps_to_capture_times_however_far_the_clocks_ran_apart() {
    let mut room = Room::new(60);
    let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let bob = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let camera = room.prepare(alice, &Camera { encodings: 2, ..Camera::new(Codec::Vp8) });
    room.announce(&camera);
    room.preferred_layers = Some((0, None));
    let picture = room.consume(bob, &camera);
    let ssrcs = [0, 1].map(|encoding| room.source(&camera, encoding).setup.ssrc);
    // The first one's clock is one in a thousand too fast, as seen in the peer's reports.
    let timestamp = |encoding: usize, ms: u64| {
        let ticks = if encoding == 0 { ms * 90 + ms * 90 / 1_000 } else { 5_000_000 + ms * 90 };
        u32::try_from(ticks).unwrap()
    };
    for step in 1..=2_400_u64 {
        let captured = step * 33;
        for (encoding, ssrc) in ssrcs.into_iter().enumerate() {
            let payload = [0x90, 0x80, 0x80, 1, u8::from(step % 30 != 1), 7, 7, 7];
            let packet = RawPacket {
                ssrc,
                payload_type: 96,
                marker: true,
                index: step,
                timestamp: timestamp(encoding, captured),
                mid: None,
                transport_seq: None,
                payload: &payload,
                padding: 0,
            };
            let now = room.now;
            let raw = room.seat(alice).raw_mut();
            let sealed = raw.seal(&packet);
            raw.send(sealed);
            if step % 30 == 5 {
                raw.send_report(now, ssrc, packet.timestamp);
            }
        }
        if step == 2_000 {
            let layers = Layers { spatial: 1, temporal: 0 };
            room.command(Command::SetPreferredLayers(picture.id, layers));
        }
        room.run_for(ms(33));
    }
    assert_eq!(room.counters().layer_switches, 1);
    let heard = room.heard(&picture);
    let apart: Vec<i32> = heard
        .windows(2)
        .map(|pair| pair[1].timestamp.wrapping_sub(pair[0].timestamp).cast_signed())
        .collect();
    assert!(apart.len() > 2_300);
    // 33 ms between any two pictures, also where it went over; a millisecond for the fast clock.
    assert!(apart.iter().all(|ticks| (ticks - 2_970).abs() <= 90 + 3), "{:?}", apart.iter().max());
}
