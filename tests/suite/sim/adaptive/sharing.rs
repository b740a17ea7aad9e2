//! Several pictures over one narrow link: nobody is left out and who counts more gets more.
//! Layers that come and go.

use std::time::Duration;

use ringcast::control::command::{BitrateChange, Command, Event, Layers};
use ringcast::id::ConsumerId;

use super::super::room::{ms, secs};
use super::judge::{longest_gap, queue_p95, usual_layer};
use super::plan::{PLAIN, Plan};
use super::scene::Scene;

/// Two cameras seen by one receiver over 1 Mbit/s, after both have settled.
fn two_cameras(seed: u64) -> Scene {
    let plan = Plan { steps: &[(0, 1_000)], cameras: 2, ..PLAIN };
    let mut scene = Scene::new(&plan, seed);
    scene.play(secs(30));
    scene
}

/// Bits/s of each picture in the last seconds.
fn shares(scene: &Scene, span: u64) -> Vec<u64> {
    let from = scene.room.now - secs(span);
    let pictures = scene.watched.iter().map(|watched| scene.incoming(&watched.picture));
    pictures.map(|stream| stream.bytes_since(from) * 8 / span).collect()
}

fn assert_no_freeze(scene: &Scene, span: Duration) {
    for watched in &scene.watched {
        let shown = &scene.incoming(&watched.picture).screen.shown;
        let gap = longest_gap(shown, scene.room.now - span, scene.room.now);
        assert!(gap <= ms(500), "a standstill of {gap:?}");
    }
}

#[test]
fn two_pictures_on_one_narrow_link_both_keep_moving() {
    for seed in [1, 2, 3] {
        let scene = two_cameras(seed);
        assert_no_freeze(&scene, secs(20));
        let shares = shares(&scene, 10);
        assert!(shares.iter().all(|bps| *bps > 100_000), "{shares:?}");
        assert!(queue_p95(&scene, scene.began, scene.room.now) <= ms(200));
    }
}

#[test]
fn raising_the_priority_of_one_moves_bandwidth_to_it_within_three_seconds() {
    for seed in [1, 2, 3] {
        let mut scene = two_cameras(seed);
        for raised in [0, 1, 0] {
            let before = shares(&scene, 5);
            for number in [0, 1] {
                let priority = if number == raised { 255 } else { 1 };
                let consumer = scene.watched[number].picture.id;
                scene.room.command(Command::SetPriority(consumer, priority));
            }
            scene.play(secs(3));
            // What is measured begins three seconds after the command.
            scene.play(secs(5));
            let after = shares(&scene, 5);
            let moved = [&before, &after];
            assert!(after[raised] > after[1 - raised] * 12 / 10, "{raised}: {moved:?}");
            scene.play(secs(7));
            assert_no_freeze(&scene, secs(15));
        }
    }
}

/// What was told of a consumer's layers, in order.
fn told(scene: &Scene, of: ConsumerId) -> Vec<Option<Layers>> {
    let events = scene.room.events.iter().filter_map(|(_, event)| match event {
        Event::ConsumerLayers { consumer, layers } if *consumer == of => Some(*layers),
        _ => None,
    });
    events.collect()
}

#[test]
fn a_picture_that_does_not_fit_is_stopped_and_told_of_and_sound_goes_on() {
    for seed in [1, 2] {
        let plan = Plan { steps: &[(0, 1_000), (20, 110)], ..PLAIN };
        let mut scene = Scene::new(&plan, seed);
        scene.play(secs(20));
        let picture = scene.watched[0].picture.id;
        assert!(told(&scene, picture).iter().all(Option::is_some), "a picture from the beginning");
        scene.play(secs(40));
        assert_eq!(told(&scene, picture).last(), Some(&None), "it is told of");
        let shown = &scene.incoming(&scene.watched[0].picture).screen.shown;
        let dark = shown.iter().filter(|shown| shown.at > scene.room.now - secs(20)).count();
        assert_eq!(dark, 0, "stopped");
        let sound = scene.incoming(scene.watched[0].sound.as_ref().unwrap());
        let lost = sound.lost_between(scene.room.now - secs(30), scene.room.now);
        assert!(lost < 15, "{lost} of 1,500 packets of sound lost");
    }
}

#[test]
fn preferred_layers_are_kept_to_and_left_within_a_second() {
    let plan = Plan { steps: &[(0, 5_000)], ..PLAIN };
    let mut scene = Scene::new(&plan, 1);
    scene.play(secs(15));
    let picture = scene.watched[0].picture.clone();
    for wanted in [(0, 1), (2, 1), (1, 0), (1, 1), (0, 0), (2, 0), (2, 1)] {
        let (spatial, temporal) = wanted;
        let layers = Layers { spatial, temporal };
        scene.room.command(Command::SetPreferredLayers(picture.id, layers));
        scene.play(secs(1));
        let from = scene.room.now;
        scene.play(secs(2));
        let shown = &scene.incoming(&picture).screen.shown;
        assert_eq!(usual_layer(shown, from, scene.room.now), Some(wanted));
        assert!(shown.iter().filter(|it| it.at >= from).all(|it| it.spatial == spatial));
        assert_no_freeze(&scene, secs(3));
    }
}

#[test]
fn a_layer_that_stops_is_left_within_a_second_and_one_that_comes_back_is_used() {
    for seed in [1, 2] {
        let plan = Plan { steps: &[(0, 5_000)], ..PLAIN };
        let mut scene = Scene::new(&plan, seed);
        scene.play(secs(15));
        let (picture, camera) = (scene.watched[0].picture.clone(), scene.feeds[0].clone());
        let layer = |scene: &Scene| {
            let now = scene.room.now;
            usual_layer(&scene.incoming(&picture).screen.shown, now - secs(2), now)
        };
        assert_eq!(layer(&scene), Some((2, 1)));
        scene.room.stop(&camera, 2);
        let stopped = scene.room.now;
        scene.play(secs(4));
        assert_eq!(layer(&scene), Some((1, 1)));
        let shown = &scene.incoming(&picture).screen.shown;
        let gap = longest_gap(shown, stopped, scene.room.now);
        // A second to be sure, and a key frame of the other.
        assert!(gap <= ms(1_300), "{gap:?}");
        let now = scene.room.now;
        scene.room.source_mut(&camera, 2).next_at = Some(now);
        scene.play(secs(10));
        assert_eq!(layer(&scene), Some((2, 1)), "and used again");
    }
}

/// Limits of what the first viewer is sent; 0 is none.
pub(super) fn limit(scene: &mut Scene, least: u64, most: u64) {
    let transport = scene.room.seats[scene.viewers[0].0].transport;
    let change = BitrateChange {
        min_outgoing_bps: Some(least),
        max_outgoing_bps: Some(most),
        ..BitrateChange::default()
    };
    scene.room.command(Command::SetBitrates(transport, change));
}

#[test]
fn another_address_brings_nothing_back_that_does_not_fit_and_it_goes_on_there() {
    let plan = Plan { steps: &[(0, 5_000)], ..PLAIN };
    let mut scene = Scene::new(&plan, 1);
    scene.play(secs(40));
    let (picture, peer) = (scene.watched[0].picture.id, scene.viewers[0]);
    // Sound fits, and no picture.
    limit(&mut scene, 0, 60_000);
    let given_up = scene.room.now + secs(10);
    while told(&scene, picture).last() != Some(&None) {
        assert!(scene.room.now < given_up, "not stopped");
        scene.play(ms(100));
    }
    let before = (told(&scene, picture).len(), scene.room.counters().plis_sent);
    let seat = scene.room.seat(peer);
    let check = seat.viewer().client.ice_check();
    seat.public.set_port(seat.public.port() + 1);
    let elsewhere = seat.path();
    scene.room.inject(elsewhere, &check);
    scene.play(secs(3));
    let after = (told(&scene, picture).len(), scene.room.counters().plis_sent);
    assert_eq!(after, before, "nothing is told or asked for");
    limit(&mut scene, 400_000, 0);
    scene.play(secs(3));
    assert!(told(&scene, picture).last().is_some_and(Option::is_some), "it is back");
    let shown = scene.incoming(&scene.watched[0].picture).screen.shown.last();
    assert!(shown.is_some_and(|shown| shown.at + ms(500) > scene.room.now), "and seen");
}
