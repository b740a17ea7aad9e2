//! Rooms over several shards: publishers live on one, viewers on others.

use std::time::Instant;

use ringcast::control::command::Command;
use ringcast::engine::layer::Activity;
use ringcast::engine::machine::Machine;
use ringcast::engine::relay::{Continuity, RelayItem, RelayPacket, RelayPulse};
use ringcast::engine::report::Discard;
use ringcast::engine::select::LayerRates;
use ringcast::engine::source_clock::{SenderClock, StreamClock};
use ringcast::engine::srtp::SrtpProfile;
use ringcast::id::{ProducerId, ShardId};
use ringcast::ortc::types::MediaKind;

use super::clients::Heard;
use super::media::{Codec, picture_of};
use super::network::Link;
use super::raw::RawPacket;
use super::reports::assert_together;
use super::room::{Camera, Feed, Peer, Room, View, ms, secs};
use super::shards::{Freight, Told};
use super::verdicts::assert_same;

/// The shards of most stories: where a publisher is, and where its viewers are.
pub(super) const HERE: usize = 0;
pub(super) const THERE: usize = 1;

pub(super) fn joined(room: &mut Room, shard: usize) -> Peer {
    room.shard = shard;
    let peer = room.subscriber();
    room.shard = HERE;
    peer
}

/// A camera here and a viewer there, from the first packet on.
pub(super) fn call(seed: u64, camera: &Camera) -> (Room, Peer, Peer, Feed, View) {
    let mut room = Room::with_shards(seed, 2);
    let alice = room.publisher();
    let bob = joined(&mut room, THERE);
    let feed = room.produce(alice, camera);
    let view = room.consume(bob, &feed);
    room.start(&feed);
    (room, alice, bob, feed, view)
}

/// A viewer who wants one encoding and none above it.
fn consume_layer(room: &mut Room, peer: Peer, feed: &Feed, layer: u8) -> View {
    room.preferred_layers = Some((layer, None));
    let view = room.consume(peer, feed);
    room.preferred_layers = None;
    view
}

/// How often the feed's client was asked for a key frame since `since`.
pub(super) fn asked(room: &Room, feed: &Feed, since: Instant) -> usize {
    let asked = &room.seats[feed.peer.0].stock().asked;
    asked.iter().filter(|(at, ..)| *at >= since).count()
}

/// The sequence numbers relayed to a shard since `since`, of one kind.
pub(super) fn relayed(room: &Room, to: usize, freight: Freight, since: Instant) -> Vec<(u8, u64)> {
    let sent = room.shards.sent(to, freight, since);
    sent.iter()
        .filter_map(|sent| match sent.told {
            Told::Packet { encoding, seq } => Some((encoding, seq)),
            _ => None,
        })
        .collect()
}

/// What the mirrors asked of a shard since `since`.
pub(super) fn wishes(room: &Room, to: usize, since: Instant) -> Vec<Told> {
    room.shards.sent(to, Freight::Wish, since).into_iter().map(|sent| sent.told).collect()
}

#[test]
fn a_viewer_on_another_shard_gets_every_packet_without_a_gap() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::Vp9Svc, Codec::H264, Codec::Opus] {
        let (mut room, _, _, feed, view) = call(301, &Camera::new(codec));
        let begun = room.start;
        room.run_for(secs(5));
        room.assert_all_arrived(&view, &feed);
        let heard = room.heard(&view);
        assert_eq!(heard[0].payload, *room.source(&feed, 0).sent[0].payload, "from the first on");
        assert_eq!(wishes(&room, HERE, begun), [Told::Demand { encodings: Some(1) }], "{codec:?}");
        let origin = room.counters_of(HERE);
        assert_eq!((origin.relay_dropped, origin.relay_cuts), (0, 0));
        assert_eq!(origin.relayed_out, room.counters_of(THERE).relayed_in);
        assert_eq!(origin.packets_out, 0, "nobody listens here");
        assert!(room.shards.lanes.made <= 8, "{} boxes made", room.shards.lanes.made);
    }
}

#[test]
fn viewers_here_and_there_see_the_same() {
    let (mut room, _, _, feed, there) = call(302, &Camera::new(Codec::Vp8));
    let carol = room.subscriber();
    let here = room.consume(carol, &feed);
    room.run_for(secs(4));
    room.assert_all_arrived(&there, &feed);
    let landed = room.heard(&here);
    assert!(landed.len() > 200);
    assert_same(&landed, &room.source(&feed, 0).sent);
    room.assert_numbers(&landed, &here);
}

#[test]
fn a_late_joiner_there_begins_with_one_key_frame_that_is_asked_for_at_once() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264] {
        let mut room = Room::with_shards(303, 2);
        let alice = room.publisher();
        let feed = room.produce(alice, &Camera::new(codec));
        room.start(&feed);
        room.run_for(secs(5));
        for fed_already in [false, true] {
            let bob = joined(&mut room, THERE);
            let since = room.now;
            let view = room.consume(bob, &feed);
            room.run_for(secs(3));
            assert_eq!(asked(&room, &feed, since), 1, "{codec:?}, fed already: {fed_already}");
            let heard = room.heard(&view);
            assert!(heard[0].at - since <= ms(10 + 10 + 40 + 10 + 2), "{codec:?}");
            assert_same(&heard, &room.source(&feed, 0).sent);
            room.assert_numbers(&heard, &view);
            let wished = wishes(&room, HERE, since).contains(&Told::KeyFrame { encoding: 0 });
            assert_eq!(wished, fed_already, "a demand alone brings the first key frame");
        }
    }
}

#[test]
fn a_joiner_right_after_a_key_frame_is_served_without_asking() {
    let mut room = Room::with_shards(304, 2);
    let alice = room.publisher();
    let bob = joined(&mut room, THERE);
    let feed = room.produce(alice, &Camera::new(Codec::Vp8));
    room.start(&feed);
    room.run_for(ms(200));
    let since = room.now;
    let view = room.consume(bob, &feed);
    room.run_for(secs(1));
    assert_eq!(asked(&room, &feed, since), 0);
    let heard = room.heard(&view);
    assert!(heard[0].at - since <= ms(12));
    assert_same(&heard, &room.source(&feed, 0).sent);
}

#[test]
fn a_viewers_losses_are_repaired_on_its_own_shard() {
    for seed in [305, 306, 307] {
        let (mut room, _, bob, feed, view) = call(seed, &Camera::new(Codec::Vp8));
        room.seat(bob).down = Link { loss: 0.08, ..Link::new(15) };
        let begun = room.start;
        room.run_for(secs(12));
        let there = room.counters_of(THERE);
        assert!(there.nacks_received > 10 && there.retransmitted > 10);
        assert_eq!(there.retransmit_missed, 0);
        room.assert_played_from_key_frame(&view, &feed);
        let here = room.counters_of(HERE);
        assert_eq!((here.nacks_received, here.nacks_sent), (0, 0));
        let mut numbers = relayed(&room, THERE, Freight::Video, begun);
        let all = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), all, "nothing crosses twice");
    }
}

#[test]
fn losses_before_the_origin_are_repaired_for_viewers_there() {
    for seed in [308, 309] {
        let (mut room, alice, _, feed, view) = call(seed, &Camera::new(Codec::Vp8));
        room.run_for(secs(1));
        room.seat(alice).up = Link { loss: 0.08, jitter: ms(5), ..Link::new(15) };
        room.run_for(secs(10));
        assert!(room.counters_of(HERE).nacks_sent > 10);
        assert_eq!(room.counters_of(THERE).nacks_sent, 0);
        room.assert_played_from_key_frame(&view, &feed);
    }
}

#[test]
fn a_packet_crosses_once_for_each_shard_however_many_listen_there() {
    let mut room = Room::with_shards(310, 3);
    let alice = room.publisher();
    let feed = room.produce(alice, &Camera::new(Codec::Vp8));
    let sound = room.produce(alice, &Camera::new(Codec::Opus));
    let mut views = Vec::new();
    for shard in [1, 2] {
        for _ in 0..20 {
            let peer = joined(&mut room, shard);
            views.push((room.consume(peer, &feed), room.consume(peer, &sound)));
        }
    }
    let begun = room.now;
    room.start(&feed);
    room.start(&sound);
    room.run_for(secs(3));
    for (picture, tone) in &views {
        room.assert_all_arrived(picture, &feed);
        room.assert_all_arrived(tone, &sound);
    }
    for shard in [1, 2] {
        for (freight, feed) in [(Freight::Video, &feed), (Freight::Audio, &sound)] {
            let crossed = relayed(&room, shard, freight, begun).len();
            let sent = room.source(feed, 0).sent.len();
            assert!(crossed <= sent && crossed + 10 > sent, "{crossed} of {sent}");
        }
        assert_eq!(room.gauges_of(shard).mirrors, 2);
        assert_eq!((room.gauges_of(shard).producers, room.gauges_of(shard).streams), (0, 0));
    }
    assert_eq!((room.gauges_of(HERE).mirrors, room.gauges_of(HERE).producers), (0, 2));
    let pulses = room.shards.sent(1, Freight::Pulse, begun).len();
    assert!((16..=28).contains(&pulses), "{pulses} pulses of two streams in 3 s");
}

#[test]
fn only_what_is_watched_crosses_and_the_demand_moves_with_the_viewers() {
    let layered = Camera { rids: vec!["q", "h", "f"], ..Camera::new(Codec::Vp8) };
    let mut room = Room::with_shards(311, 2);
    let alice = room.publisher();
    let feed = room.produce(alice, &layered);
    room.start(&feed);
    room.run_for(secs(10));
    let (bob, carol) = (joined(&mut room, THERE), joined(&mut room, THERE));
    let since = room.now;
    let low = consume_layer(&mut room, bob, &feed, 0);
    room.run_for(secs(3));
    let crossed = relayed(&room, THERE, Freight::Video, since);
    assert!(crossed.len() > 100 && crossed.iter().all(|(encoding, _)| *encoding == 0));
    assert_eq!(wishes(&room, HERE, since).last(), Some(&Told::Demand { encodings: Some(0b001) }));
    let pulsed = room.shards.sent(THERE, Freight::Pulse, since);
    assert!(pulsed.iter().any(|sent| sent.told == Told::Pulse { encoding: 2 }), "of all streams");

    let since = room.now;
    let high = consume_layer(&mut room, carol, &feed, 2);
    room.run_for(secs(3));
    assert_eq!(wishes(&room, HERE, since), [Told::Demand { encodings: Some(0b101) }]);
    let heard = room.heard(&high);
    assert!(heard[0].at - since < ms(100), "the highest at once, as on its own shard");
    assert_same(&heard, &room.source(&feed, 2).sent);
    room.assert_numbers(&heard, &high);

    room.command(Command::CloseConsumer(low.id));
    room.run_for(ms(10));
    let since = room.now;
    room.run_for(secs(2));
    let crossed = relayed(&room, THERE, Freight::Video, since);
    assert!(crossed.len() > 50 && crossed.iter().all(|(encoding, _)| *encoding == 2));

    // The stream that is watched stops: the viewer goes down, and the demand with it.
    room.stop(&feed, 2);
    room.run_for(secs(4));
    let since = room.now;
    room.run_for(secs(1));
    let crossed = relayed(&room, THERE, Freight::Video, since);
    assert!(crossed.len() > 50 && crossed.iter().all(|(encoding, _)| *encoding == 1));
    let heard = room.heard(&high);
    room.assert_numbers(&heard, &high);
    assert!(heard.iter().any(|heard| plays(&room, &feed, 1, &heard.payload)));
}

/// True when a payload was sent by one of a feed's encodings.
fn plays(room: &Room, feed: &Feed, encoding: usize, payload: &[u8]) -> bool {
    let sent = &room.source(feed, encoding).sent;
    sent.iter().any(|packet| picture_of(&packet.payload) == picture_of(payload))
}

/// What is left on the way up crosses no more as soon as the next one plays.
#[test]
fn a_viewer_there_climbs_and_what_it_left_crosses_no_more() {
    let layered = Camera { rids: vec!["q", "h", "f"], ..Camera::new(Codec::Vp8) };
    let (mut room, _, _, feed, view) = call(327, &layered);
    let begun = room.now;
    room.run_for(secs(8));
    let heard = room.heard(&view);
    room.assert_numbers(&heard, &view);
    let of = |encoding: usize| {
        let of = |heard: &&Heard| plays(&room, &feed, encoding, &heard.payload);
        heard.iter().find(of).map(|heard| heard.at)
    };
    let (low, high) = (of(0).expect("begins low"), of(2).expect("climbs"));
    assert!(low < high);
    let crossed = room.shards.sent(THERE, Freight::Video, begun);
    let late = crossed
        .iter()
        .filter(|sent| sent.at > high && matches!(sent.told, Told::Packet { encoding: 0, .. }));
    assert_eq!(late.count(), 0);
    assert!(heard.last().unwrap().at + ms(60) > room.now);
}

#[test]
fn items_that_make_no_sense_change_nothing() {
    let (mut room, _, _, feed, view) = call(328, &Camera::new(Codec::Vp8));
    room.run_for(secs(1));
    let now = room.now;
    let nobody = ProducerId(uuid::Uuid::nil());
    for (to, from, producer, encodings) in [
        // Of nobody, of a mirror, from itself, from no shard, of no encoding.
        (HERE, 1, nobody, [0, 255]),
        (THERE, 0, nobody, [0, 255]),
        (THERE, 1, feed.id, [0, 255]),
        (HERE, 0, feed.id, [0, 255]),
        (HERE, u16::MAX, feed.id, [0, 255]),
        (THERE, 7, feed.id, [0, 255]),
        (THERE, 0, feed.id, [1, 255]),
    ] {
        for encoding in encodings {
            let mut packet = RelayPacket::empty(now);
            (packet.producer, packet.encoding, packet.len) = (producer, encoding, u16::MAX);
            packet.continuity = Continuity::Restarted;
            let pulse = RelayPulse {
                producer,
                encoding,
                activity: Activity::new(false),
                clock: StreamClock::new(0),
                sender: SenderClock::default(),
                rates: LayerRates::default(),
            };
            let media = RelayItem::Media(MediaKind::Video, packet);
            let demands = [None, Some(0), Some(0xff)];
            let demands =
                demands.map(|encodings| RelayItem::Demand { producer, encodings, preferred: None });
            let others = [
                media,
                RelayItem::Pulse(Box::new(pulse)),
                RelayItem::KeyFrame { producer, encoding },
            ];
            for item in demands.into_iter().chain(others) {
                let is_media = matches!(item, RelayItem::Media(..));
                let emptied = room.shards.engines[to].handle_relay(now, ShardId(from), item);
                assert_eq!(emptied.is_some(), is_media, "a box comes back");
            }
        }
    }
    room.run_for(secs(2));
    room.assert_all_arrived(&view, &feed);
    assert_eq!(asked(&room, &feed, now), 0);
    assert_eq!(room.counters_of(THERE).relayed_out, 0, "a mirror never relays on");
    assert_eq!(room.shards.engines[THERE].report().1.count(Discard::RelayUnknown), 8);
}

#[test]
fn a_receivers_own_request_crosses_to_the_publisher() {
    let (mut room, _, bob, feed, view) = call(316, &Camera::new(Codec::Vp8));
    room.run_for(secs(5));
    let since = room.now;
    room.seat(bob).stock_mut().request_key_frame(view.ssrc);
    room.run_for(secs(1));
    assert_eq!(asked(&room, &feed, since), 1);
    assert_eq!(wishes(&room, HERE, since), [Told::KeyFrame { encoding: 0 }]);
    assert!(room.source(&feed, 0).sent.iter().any(|p| p.key && p.at > since));
    room.assert_all_arrived(&view, &feed);
}

/// One packet, which is a frame, a key frame or not, of an application that numbers them.
fn frame(codec: Codec, key: bool, step: u8) -> Vec<u8> {
    match codec {
        Codec::Opus => vec![0x78, step],
        _ => vec![0x90, 0x80, 0x80, step, u8::from(!key), step],
    }
}

#[test]
fn a_publisher_that_begins_anew_is_followed_here_and_there() {
    for (codec, payload_type) in [(Codec::Vp8, 96), (Codec::Opus, 111)] {
        let mut room = Room::with_shards(317, 2);
        let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        let feed = room.produce(alice, &Camera { by_mid: true, ..Camera::new(codec) });
        let views = [HERE, THERE].map(|shard| {
            let bob = joined(&mut room, shard);
            room.consume(bob, &feed)
        });
        for step in 1..=200_u8 {
            let second = step > 100;
            let payload = frame(codec, step % 100 == 1, step);
            let packet = RawPacket {
                ssrc: if second { 2222 } else { 1111 },
                payload_type,
                marker: true,
                index: if second { u64::from(step) } else { 40_000 + u64::from(step) },
                timestamp: u32::from(step) * 1_800 + if second { 9_000_000 } else { 0 },
                mid: Some(b'0'),
                transport_seq: None,
                payload: &payload,
                padding: 0,
            };
            let sealed = room.seat(alice).raw_mut().seal(&packet);
            room.seat(alice).raw_mut().send(sealed);
            room.run_for(ms(20));
        }
        room.run_for(secs(1));
        for view in &views {
            let heard = room.heard(view);
            room.assert_numbers(&heard, view);
            let steps: Vec<u8> =
                heard.iter().map(|heard| heard.payload[heard.payload.len() - 1]).collect();
            assert_eq!(steps, (1..=200).collect::<Vec<u8>>(), "{codec:?}");
            for pair in heard.windows(2) {
                let ahead = pair[1].timestamp.wrapping_sub(pair[0].timestamp).cast_signed();
                assert!(ahead > 0 && ahead < 10_000, "{codec:?}: {ahead} ticks");
            }
        }
        // Nobody is asked for the key frame that begins it.
        assert!(!wishes(&room, HERE, room.start).contains(&Told::KeyFrame { encoding: 0 }));
    }
}

/// As for a viewer on the publisher's own shard.
#[test]
fn sound_and_picture_stay_together_there_to_a_millisecond() {
    for (seed, up_jitter) in [(325, 0), (326, 40)] {
        let mut room = Room::with_shards(seed, 2);
        let alice = room.publisher();
        room.seat(alice).up.jitter = ms(up_jitter);
        let bob = joined(&mut room, THERE);
        assert_together(&mut room, alice, bob, ms(10 + up_jitter).as_secs_f64());
    }
}
