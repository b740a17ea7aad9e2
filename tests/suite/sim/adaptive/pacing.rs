//! A key frame for a slow link leaves bit by bit: sound passes it, and whoever is not sent it any more
//! finds nothing left of it.

use std::time::{Duration, Instant};

use ringcast::control::command::Command;

use super::super::room::{ms, secs};
use super::encoder::{Encoding, Format};
use super::plan::{PLAIN, Plan, Show};
use super::scene::Scene;

/// A key frame of the lower one has three packets, each larger than any other picture.
pub(super) const SMALL: Show = Show {
    name: "vp8 2xT1",
    mode: None,
    encodings: &[
        Encoding { bps: &[100_000], fps: 30, temporal: 1, format: Format::Vp8 },
        Encoding { bps: &[400_000], fps: 30, temporal: 1, format: Format::Vp8 },
    ],
};

/// Nothing smaller can be sent of it.
const SINGLE: Show = Show {
    name: "vp8 1xT1",
    mode: None,
    encodings: &[Encoding { bps: &[600_000], fps: 30, temporal: 1, format: Format::Vp8 }],
};

pub(super) const LARGE: usize = 700;
pub(super) const KBPS: u64 = 180;

/// A receiver who has settled on the lower picture, behind a link that a key frame fills for 130 ms.
fn settled(seed: u64) -> Scene {
    let plan = Plan { show: SMALL, steps: &[(0, KBPS)], ..PLAIN };
    let mut scene = Scene::new(&plan, seed);
    scene.play(secs(20));
    scene
}

/// What came to the link since: when, how long it took, its bytes.
fn passed(scene: &Scene, from: Instant) -> Vec<(Instant, Duration, usize)> {
    let link = scene.link.borrow();
    link.passed.iter().copied().filter(|(at, ..)| *at >= from).collect()
}

pub(super) fn large(scene: &Scene, from: Instant) -> Vec<Instant> {
    let passed = passed(scene, from).into_iter();
    passed.filter(|(.., bytes)| *bytes >= LARGE).map(|(at, ..)| at).collect()
}

/// The camera makes a key frame; it is played until its first packet has left, and no more.
pub(super) fn begin_key_frame(scene: &mut Scene) -> Instant {
    let from = scene.room.now;
    let camera = scene.feeds[0].clone();
    scene.room.source_mut(&camera, 0).wants_key = true;
    while large(scene, from).is_empty() {
        assert!(scene.room.now < from + secs(1), "a key frame within a second");
        scene.play(ms(1));
    }
    from
}

#[test]
fn sound_passes_a_key_frame_on_a_slow_link() {
    for seed in [1, 2, 3] {
        let mut scene = settled(seed);
        let shown = scene.incoming(&scene.watched[0].picture).screen.shown.len();
        let from = begin_key_frame(&mut scene);
        scene.play(secs(1));
        let key_frame = large(&scene, from);
        let [first, .., last] = key_frame[..] else { panic!("{key_frame:?}") };
        assert_eq!(key_frame.len(), 3);
        let within = passed(&scene, from).into_iter().filter(|(at, ..)| (first..last).contains(at));
        let sounds = within.filter(|(.., bytes)| *bytes < 200).count();
        assert!(sounds >= 2, "{sounds} packets of sound between {first:?} and {last:?}");
        let longest = passed(&scene, from).into_iter().map(|(_, wait, _)| wait).max();
        assert!(longest < Some(ms(130)), "a packet waited {longest:?}");
        assert!(last - first > ms(40), "it leaves bit by bit");
        let picture = scene.incoming(&scene.watched[0].picture);
        assert!(picture.screen.shown.len() > shown + 20, "the picture goes on");
        assert_eq!(picture.gaps, 0, "numbers without a gap");
        scene.assert_whole();
    }
}

#[test]
fn a_pause_in_the_middle_of_a_key_frame_ends_it_and_the_next_one_is_whole() {
    let mut scene = settled(1);
    let from = begin_key_frame(&mut scene);
    let picture = scene.watched[0].picture.clone();
    scene.room.command(Command::PauseConsumer(picture.id, true));
    scene.play(secs(1));
    assert_eq!(large(&scene, from).len(), 1, "nothing is left of it");
    let resumed = scene.room.now;
    scene.room.command(Command::PauseConsumer(picture.id, false));
    scene.play(secs(2));
    let stream = scene.incoming(&picture);
    let shown = stream.screen.shown.iter().filter(|shown| shown.at > resumed).count();
    assert!(shown > 30, "{shown} pictures in two seconds");
    assert_eq!(stream.gaps, 0, "numbers without a gap");
    scene.assert_whole();
}

#[test]
fn who_leaves_in_the_middle_of_a_key_frame_leaves_nothing_behind() {
    for whole in [false, true] {
        let mut scene = settled(2);
        let from = begin_key_frame(&mut scene);
        let picture = scene.watched[0].picture.clone();
        let transport = scene.room.seats[picture.peer.0].transport;
        if whole {
            scene.room.command(Command::CloseTransport(transport));
            scene.room.run_for(secs(1));
        } else {
            scene.room.command(Command::CloseConsumer(picture.id));
            scene.play(secs(1));
        }
        assert_eq!(large(&scene, from).len(), 1);
        let sounds = passed(&scene, scene.room.now - ms(500)).len();
        assert_eq!(sounds > 20, !whole, "{sounds} packets of sound in half a second");
    }
}

#[test]
fn a_video_that_is_too_much_for_its_link_is_late_and_no_more() {
    let plan = Plan { show: SINGLE, steps: &[(0, 150)], ..PLAIN };
    let mut scene = Scene::new(&plan, 1);
    scene.play(secs(20));
    let from = scene.room.now;
    scene.play(secs(10));
    let pictures = passed(&scene, from).into_iter().filter(|(.., bytes)| *bytes > 200);
    let at: Vec<_> = pictures.map(|(at, ..)| at).collect();
    let longest = at.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(longest < Some(ms(200)), "nothing left for {longest:?}");
    assert_eq!(scene.room.counters().ring_overruns, 0, "nothing is forgotten before it is sent");
}
