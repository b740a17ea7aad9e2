//! Layers inside a stream: a viewer gets those it wants, in a stream that hides the others.

use std::collections::BTreeSet;

use ringcast::engine::codec::{self, PayloadInfo};
use ringcast::engine::srtp::SrtpProfile;
use ringcast::ortc::codec::Codec as Mime;
use ringcast::ortc::types::RtpHeaderExtensionParameters;
use ringcast::ortc::uri::DEPENDENCY_DESCRIPTOR;
use serde_json::json;

use super::clients::Heard;
use super::media::{Codec, Packet, picture_of};
use super::network::Link;
use super::params::browser_payload_type;
use super::raw::RawPacket;
use super::room::{Camera, Feed, Room, View, ms, secs};

fn info(codec: Codec, payload: &[u8]) -> PayloadInfo {
    let mime = if codec == Codec::Vp8T3 { Mime::Vp8 } else { Mime::Vp9 };
    codec::inspect(mime, payload, None)
}

/// A viewer that wants some layers of a publisher, who is on the air.
fn call(seed: u64, codec: Codec, wanted: (u8, Option<u8>)) -> (Room, Feed, View) {
    let mut room = Room::new(seed);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera::new(codec));
    room.preferred_layers = Some(wanted);
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    (room, camera, picture)
}

/// A packet as it was sent that came as `payload`.
fn original<'a>(room: &'a Room, feed: &Feed, payload: &[u8]) -> &'a Packet {
    let sent = &room.source(feed, 0).sent;
    let of = |packet: &&Packet| picture_of(&packet.payload) == picture_of(payload);
    sent.iter().find(of).expect("known bytes")
}

/// What a viewer heard, by picture: the descriptors of its packets.
fn pictures(heard: &[Heard], codec: Codec) -> Vec<(u32, Vec<(PayloadInfo, bool)>)> {
    let mut pictures: Vec<(u32, Vec<(PayloadInfo, bool)>)> = Vec::new();
    for heard in heard {
        let packet = (info(codec, &heard.payload), heard.marker);
        match pictures.last_mut() {
            Some((timestamp, packets)) if *timestamp == heard.timestamp => packets.push(packet),
            _ => pictures.push((heard.timestamp, vec![packet])),
        }
    }
    pictures
}

#[test]
fn a_viewer_of_fewer_pictures_sees_a_stream_that_never_had_more() {
    for (seed, wanted) in [(601, 0), (602, 1), (603, 2)] {
        let (mut room, camera, picture) = call(seed, Codec::Vp8T3, (0, Some(wanted)));
        room.run_for(secs(4));
        let heard = room.heard(&picture);
        room.assert_numbers(&heard, &picture);
        let pictures = pictures(&heard, Codec::Vp8T3);
        let expected = [25, 50, 100][usize::from(wanted)];
        assert!(pictures.len() >= expected - 4, "{} of {expected} pictures", pictures.len());
        for pair in pictures.windows(2) {
            let [before, after] = [0, 1].map(|at| pair[at].1[0].0);
            assert_eq!(after.picture.id & 0x7fff, (before.picture.id + 1) & 0x7fff);
            let lowest = u8::from(after.temporal == 0);
            assert_eq!(after.picture.tl0, before.picture.tl0.wrapping_add(lowest));
        }
        for (_, packets) in &pictures[..pictures.len() - 1] {
            assert!(packets.iter().all(|(info, _)| info.temporal <= wanted));
            assert!(packets.last().unwrap().1, "the last packet has the marker");
        }
        for heard in &heard {
            let sent = original(&room, &camera, &heard.payload);
            assert_eq!(heard.payload[5..], sent.payload[5..], "only numbers were rewritten");
        }
    }
}

#[test]
fn a_viewer_of_a_smaller_picture_sees_it_end_with_its_own_marker() {
    for codec in [Codec::Vp9L3T3, Codec::Vp9L3T3Key] {
        for (seed, wanted) in [(611, (0, 2)), (612, (1, 1)), (613, (1, 2)), (614, (2, 0))] {
            let (mut room, _, picture) = call(seed, codec, (wanted.0, Some(wanted.1)));
            room.run_for(secs(4));
            let heard = room.heard(&picture);
            room.assert_numbers(&heard, &picture);
            let pictures = pictures(&heard, codec);
            let expected = [25, 50, 100][usize::from(wanted.1)];
            assert!(pictures.len() >= expected - 4, "{} of {expected}", pictures.len());
            for (at, (_, packets)) in pictures[..pictures.len() - 1].iter().enumerate() {
                let layers: BTreeSet<u8> = packets.iter().map(|(info, _)| info.spatial).collect();
                let lowest = if codec == Codec::Vp9L3T3 || at == 0 { 0 } else { wanted.0 };
                assert!(layers.iter().copied().eq(lowest..=wanted.0), "{at}: {layers:?}");
                assert!(packets.iter().all(|(info, _)| info.temporal <= wanted.1));
                let marked = packets.iter().map(|(_, marker)| *marker);
                let expected = (1..=packets.len()).map(|number| number == packets.len());
                assert!(marked.eq(expected), "only the last packet ends the picture");
            }
        }
    }
}

#[test]
fn losses_are_repaired_with_the_numbers_that_were_lost() {
    for (seed, codec, wanted) in [
        (621, Codec::Vp8T3, (0, Some(1))),
        (622, Codec::Vp8T3, (0, Some(0))),
        (623, Codec::Vp9L3T3, (1, Some(1))),
        (624, Codec::Vp9L3T3Key, (1, Some(2))),
    ] {
        let (mut room, camera, picture) = call(seed, codec, wanted);
        room.run_for(ms(500));
        let lossy = Link { loss: 0.05, jitter: ms(5), ..Link::new(20) };
        room.seat(camera.peer).up = lossy.clone();
        room.seat(picture.peer).down = lossy;
        room.run_for(secs(10));
        assert!(room.counters().retransmitted > 5, "{}", room.counters().retransmitted);
        // All that is wanted came, also what was lost on either way.
        let wanted = |packet: &&Packet| {
            let info = info(codec, &packet.payload);
            let linked = codec != Codec::Vp9L3T3Key || info.intra;
            let spatial = if linked { info.spatial <= wanted.0 } else { info.spatial == wanted.0 };
            spatial && info.temporal <= wanted.1.unwrap() && packet.at + secs(1) < room.now
        };
        let played = room.played(&picture);
        let played: Vec<&[u8]> = played.iter().map(|(.., payload)| picture_of(payload)).collect();
        let sent = room.source(&camera, 0).sent.iter().filter(wanted);
        for (number, packet) in sent.enumerate() {
            let came = played.contains(&picture_of(&packet.payload));
            assert!(came, "{seed}: packet {number} of those wanted never came");
        }
    }
}

/// Bits, highest first, as bytes.
fn packed(fields: &[(u32, usize)]) -> Vec<u8> {
    let bits: Vec<bool> = fields
        .iter()
        .flat_map(|(value, count)| (0..*count).rev().map(move |bit| value >> bit & 1 == 1))
        .collect();
    let byte = |bits: &[bool]| {
        let places = bits.iter().zip((0..8).rev());
        places.fold(0, |byte, (bit, place)| byte | u8::from(*bit) << place)
    };
    bits.chunks(8).map(byte).collect()
}

/// The dependency descriptor of one frame in one packet, in L1T3; a key frame brings the structure.
fn descriptor(frame: u32, template: u32, key: bool) -> Vec<u8> {
    let mandatory = [(0b11, 2), (template, 6), (frame, 16)];
    if !key {
        return packed(&mandatory);
    }
    let structure = [
        // The structure is attached; its first template has id 0; three decode targets.
        (0b10000, 5),
        (0, 6),
        (2, 5),
        // Layers: T0, T0 again, T1, T2.
        (0, 2),
        (1, 2),
        (1, 2),
        (3, 2),
        // Indications: "SSS", "SSS", "-DS", "--D".
        (0b10_10_10, 6),
        (0b10_10_10, 6),
        (0b00_01_10, 6),
        (0b00_00_01, 6),
        // No differences, no chains, no resolutions.
        (0, 4),
        (0, 2),
        (0, 1),
    ];
    packed(&[&mandatory[..], &structure[..]].concat())
}

/// H.264 tells nothing of layers by itself.
#[test]
fn a_dependency_descriptor_tells_which_pictures_may_be_left_out() {
    const DESCRIPTOR: u8 = 12;
    for (seed, wanted, expected) in [(631, 0, 50), (632, 1, 100), (633, 2, 200)] {
        let mut room = Room::new(seed);
        let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        let bob = room.subscriber();
        let mut camera = room.prepare(alice, &Camera::new(Codec::H264));
        let extension = json!({"uri": DEPENDENCY_DESCRIPTOR, "id": DESCRIPTOR});
        let extension: RtpHeaderExtensionParameters = serde_json::from_value(extension).unwrap();
        camera.produced.rtp.header_extensions.push(extension);
        room.announce(&camera);
        room.preferred_layers = Some((0, Some(wanted)));
        let picture = room.consume(bob, &camera);
        let ssrc = room.source(&camera, 0).setup.ssrc;
        for frame in 0..200_u8 {
            let (key, template) = (frame == 0, [1, 3, 2, 3][usize::from(frame % 4)]);
            let template = if key { 0 } else { template };
            let slice = if key { 0x67 } else { 0x41 };
            let packet = RawPacket {
                ssrc,
                payload_type: browser_payload_type(Codec::H264).0,
                marker: true,
                index: 1 + u64::from(frame),
                timestamp: 3_000 * u32::from(frame),
                mid: None,
                transport_seq: None,
                payload: &[slice, 0x9a, frame],
                padding: 0,
            };
            let raw = room.seat(alice).raw_mut();
            let described = descriptor(frame.into(), template, key);
            let sealed = raw.seal_with(&packet, DESCRIPTOR, &described);
            raw.send(sealed);
            room.run_for(ms(33));
        }
        room.run_for(ms(200));
        let heard = room.heard(&picture);
        room.assert_numbers(&heard, &picture);
        let step = 200 / expected;
        let frames: Vec<u8> = heard.iter().map(|heard| heard.payload[2]).collect();
        assert!(frames.iter().copied().eq((0..200).step_by(step)), "{wanted}: {frames:?}");
    }
}
