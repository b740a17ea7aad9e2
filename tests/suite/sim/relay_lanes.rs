//! Lanes between shards that are full, and what that may cost a viewer.

use std::collections::HashMap;

use rand::Rng;
use ringcast::control::command::Command;

use super::media::{Codec, picture_of};
use super::relay::{HERE, THERE, asked, call, joined, wishes};
use super::room::{Camera, Feed, Room, View, ms, secs};
use super::shards::Freight;
use super::verdicts::assert_same;

#[test]
fn a_full_video_lane_costs_one_key_frame_and_no_gap_and_leaves_the_sound_alone() {
    let (mut room, alice, bob, feed, view) = call(312, &Camera::new(Codec::Vp8));
    let carol = room.subscriber();
    let here = room.consume(carol, &feed);
    let sound = room.produce(alice, &Camera::new(Codec::Opus));
    let tone = room.consume(bob, &sound);
    room.start(&sound);
    room.run_for(secs(5));
    let since = room.now;
    room.shards.lanes.blocked.insert((HERE, THERE, Freight::Video));
    // One frame and a half.
    room.run_for(ms(60));
    room.shards.lanes.blocked.clear();
    room.run_for(secs(4));
    assert_eq!(asked(&room, &feed, since), 1);
    let origin = room.counters_of(HERE);
    assert_eq!((origin.relay_cuts, origin.relay_dropped), (1, 1), "it stopped at the first");
    assert!(wishes(&room, HERE, since).is_empty(), "the origin asks by itself");
    let heard = room.heard(&view);
    room.assert_numbers(&heard, &view);
    let sent = &room.source(&feed, 0).sent;
    let places: Vec<usize> = heard
        .iter()
        .map(|heard| sent.iter().position(|p| *p.payload == *heard.payload).unwrap())
        .collect();
    let holes: Vec<_> = places.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    assert_eq!(holes.len(), 1);
    assert!(sent[holes[0][1]].key, "goes on with a key frame");
    for (heard, place) in heard.iter().zip(&places) {
        let since = heard.timestamp.wrapping_sub(heard_first(&room, &view));
        assert_eq!(since, sent[*place].timestamp.wrapping_sub(sent[0].timestamp), "time is kept");
    }
    assert!(heard.last().unwrap().at + ms(60) > room.now, "and on");
    room.assert_all_arrived(&tone, &sound);
    room.assert_numbers(&room.heard(&here), &here);
}

fn heard_first(room: &Room, view: &View) -> u32 {
    room.heard(view)[0].timestamp
}

#[test]
fn a_lane_that_stays_full_is_not_asked_to_death_and_recovers() {
    let (mut room, _, _, feed, view) = call(313, &Camera::new(Codec::Vp8));
    room.run_for(secs(5));
    let since = room.now;
    room.shards.lanes.blocked.insert((HERE, THERE, Freight::Video));
    room.run_for(secs(5));
    assert!(asked(&room, &feed, since) <= 3 + 5, "{}", asked(&room, &feed, since));
    let back = room.now;
    room.shards.lanes.blocked.clear();
    room.run_for(secs(4));
    let heard = room.heard(&view);
    room.assert_numbers(&heard, &view);
    let first = heard.iter().find(|heard| heard.at > back).expect("it goes on");
    assert!(first.at - back < ms(1200), "{:?}", first.at - back);
}

#[test]
fn a_full_audio_lane_loses_packets_and_nothing_else() {
    let (mut room, _, _, sound, tone) = call(314, &Camera::new(Codec::Opus));
    room.run_for(secs(2));
    room.shards.lanes.blocked.insert((HERE, THERE, Freight::Audio));
    room.run_for(ms(50));
    room.shards.lanes.blocked.clear();
    room.run_for(secs(2));
    let dropped = usize::try_from(room.counters_of(HERE).relay_dropped).unwrap();
    assert!((2..=3).contains(&dropped), "{dropped}");
    assert_eq!(room.counters_of(HERE).relay_cuts, 0);
    let heard = room.heard(&tone);
    let gaps: Vec<u16> = heard
        .windows(2)
        .map(|pair| pair[1].seq.wrapping_sub(pair[0].seq))
        .filter(|g| *g != 1)
        .collect();
    assert_eq!(gaps, [u16::try_from(dropped).unwrap() + 1], "the receiver conceals what it misses");
    assert!(heard.len() + dropped + 2 >= room.source(&sound, 0).sent.len());
}

#[test]
fn demand_that_finds_its_lane_full_is_told_later() {
    let mut room = Room::with_shards(315, 2);
    let alice = room.publisher();
    let bob = joined(&mut room, THERE);
    let feed = room.produce(alice, &Camera::new(Codec::Vp8));
    room.start(&feed);
    room.shards.lanes.blocked.insert((THERE, HERE, Freight::Wish));
    let view = room.consume(bob, &feed);
    room.run_for(secs(1));
    assert!(room.heard(&view).is_empty());
    room.shards.lanes.blocked.clear();
    room.run_for(secs(1));
    let heard = room.heard(&view);
    assert_same(&heard, &room.source(&feed, 0).sent);
    assert!(heard.len() > 50);
}

/// A key frame of which the first packet was refused is no beginning, though a second one says that
/// it is; and neither is what came of one before the next.
#[test]
fn a_key_frame_that_is_torn_is_not_begun_with() {
    for refused in 0..6 {
        let (mut room, _, _, feed, view) = call(343, &Camera::new(Codec::H264));
        room.run_for(secs(5));
        room.source_mut(&feed, 0).wants_key = true;
        let mut count = 0;
        let since = room.now;
        room.shards.lanes.refuse = Some(Box::new(move |now, freight| {
            let counts = freight == Freight::Video && now > since;
            count += usize::from(counts);
            counts && count == refused + 1
        }));
        room.run_for(ms(45));
        let carol = joined(&mut room, THERE);
        let other = room.consume(carol, &feed);
        room.run_for(secs(3));
        assert_eq!(room.counters_of(HERE).relay_cuts, 1);
        assert_whole_runs(&room, &view, &feed, 343);
        assert_whole_runs(&room, &other, &feed, 343);
    }
}

/// Whatever lanes refuse, and whenever: numbers have no gap, a hole ends with a key frame, and in
/// the end all is well again.
#[test]
fn lanes_that_refuse_at_random_never_cost_a_gap() {
    for seed in 330..342 {
        let layered = Camera { rids: vec!["q", "h", "f"], ..Camera::new(Codec::Vp8) };
        let camera = if seed % 3 == 0 { layered } else { Camera::new(Codec::Vp8) };
        let (mut room, _, _, feed, view) = call(seed, &camera);
        let carol = joined(&mut room, THERE);
        room.shards.lanes.delay = ms(seed % 4);
        let ways = [
            (HERE, THERE, Freight::Video),
            (HERE, THERE, Freight::Pulse),
            (THERE, HERE, Freight::Wish),
        ];
        let mut other = None;
        for step in 0..150 {
            for way in ways {
                if room.rng.random_bool(0.3) {
                    room.shards.lanes.blocked.insert(way);
                } else {
                    room.shards.lanes.blocked.remove(&way);
                }
            }
            room.shards.lanes.capacity = room.rng.random_range(1..8);
            match step % 25 {
                5 => other = Some(room.consume(carol, &feed)),
                20 => {
                    let gone = other.take().map(|view: View| view.id);
                    room.command(Command::CloseConsumer(gone.unwrap()));
                }
                _ => {}
            }
            let span = room.rng.random_range(5..150);
            room.run_for(ms(span));
        }
        assert!(room.counters_of(HERE).relay_cuts > 5, "{seed}");
        room.shards.lanes.blocked.clear();
        room.shards.lanes.capacity = 1024;
        room.run_for(secs(5));
        assert_whole_runs(&room, &view, &feed, seed);
    }
}

/// Every hole in what was heard of a feed ends with a key frame, no number is missing or comes
/// twice, and the newest packets came.
pub(super) fn assert_whole_runs(room: &Room, view: &View, feed: &Feed, seed: u64) {
    let mut places = HashMap::new();
    for encoding in 0..feed.sources.len() {
        for (place, packet) in room.source(feed, encoding).sent.iter().enumerate() {
            places.insert(picture_of(&packet.payload).to_vec(), (encoding, place, packet.key));
        }
    }
    let mut heard = room.heard(view);
    let first = heard[0].seq;
    heard.sort_by_key(|heard| heard.seq.wrapping_sub(first).cast_signed());
    room.assert_numbers(&heard, view);
    let mut last = None;
    for heard in &heard {
        let (encoding, place, key) = places[picture_of(&heard.payload)];
        if last != Some((encoding, place.wrapping_sub(1))) {
            assert!(key, "{seed}: goes on in the middle of a picture");
        }
        last = Some((encoding, place));
    }
    assert!(heard.iter().map(|heard| heard.at).max().unwrap() + ms(80) > room.now, "{seed}");
}
