//! A receiver that cannot ask for packets again needs another key frame when it loses a part of one;
//! what it tells of its packets comes later than its wish. And nobody gets two for one.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringcast::engine::rtcp::{RtcpItem, parse};

use super::super::room::{ms, secs};
use super::pacing::{KBPS, LARGE, SMALL, begin_key_frame};
use super::plan::{PLAIN, Plan};
use super::scene::Scene;
use super::viewer::Answer;

/// What a camera of browsers heeds, what lies between the two, and the wish's other half of the way.
const SOON: Duration = Duration::from_millis(330 + 50 + 20);

/// A receiver without NACK on the lower picture, behind a link that a key frame fills for 130 ms.
fn settled(answer: Answer, nack: bool, seed: u64) -> Scene {
    let plan = Plan { show: SMALL, steps: &[(0, KBPS)], rtx: false, nack, answer, ..PLAIN };
    let mut scene = Scene::new(&plan, seed);
    scene.play(secs(20));
    scene
}

/// When the camera was asked for key frames since.
fn asked(scene: &Scene, from: Instant) -> Vec<Instant> {
    let publisher = scene.room.seats[scene.feeds[0].peer.0].raw();
    let since = publisher.rtcp.iter().filter(|(at, _)| *at > from);
    let asks = |bytes: &[u8]| parse(bytes).any(|item| matches!(item, RtcpItem::Pli { .. }));
    since.filter(|(_, bytes)| asks(bytes)).map(|(at, _)| *at).collect()
}

fn wished(scene: &Scene) -> Option<Instant> {
    scene.incoming(&scene.watched[0].picture).wished
}

/// Pictures shown since.
fn shown(scene: &Scene, from: Instant) -> Vec<Instant> {
    let screen = &scene.incoming(&scene.watched[0].picture).screen;
    screen.shown.iter().map(|shown| shown.at).filter(|at| *at > from).collect()
}

/// The next packet on the way to the receiver that is `chosen` gets lost, and only that.
fn lose_one(scene: &mut Scene, mut chosen: impl FnMut(usize) -> bool + 'static) -> Rc<Cell<bool>> {
    let lost = Rc::new(Cell::new(false));
    let told = Rc::clone(&lost);
    let peer = scene.watched[0].peer;
    scene.room.seat(peer).lose_down = Some(Box::new(move |_, bytes| {
        let is_media = bytes.first().is_some_and(|first| *first >= 128)
            && bytes.get(1).is_some_and(|second| !(192..224).contains(second));
        let loses = !lost.get() && is_media && chosen(bytes.len());
        lost.set(lost.get() || loses);
        loses
    }));
    told
}

/// The packet of that place in the next key frame is lost; 3 is the picture behind it.
fn lose_of_key_frame(scene: &mut Scene, place: usize) -> Rc<Cell<bool>> {
    let mut passed = 0;
    lose_one(scene, move |bytes| {
        let is_of_key_frame = bytes >= LARGE;
        let is_it = if place < 3 { is_of_key_frame } else { (200..LARGE).contains(&bytes) };
        let loses = is_it && passed == place;
        passed += usize::from(is_of_key_frame);
        loses
    })
}

#[test]
fn who_lost_a_part_of_a_key_frame_gets_another_though_its_wish_overtakes_what_it_tells() {
    for seed in 1..=4 {
        for place in 0..=3 {
            let case = format!("seed {seed}, packet {place}");
            let mut scene = settled(Answer::TransportCc, false, seed);
            let lost = lose_of_key_frame(&mut scene, place);
            let from = begin_key_frame(&mut scene);
            scene.play(ms(1_500));
            assert!(lost.get(), "{case}");
            let wished = wished(&scene).filter(|at| *at > from).expect("a gap is seen");
            let asked = asked(&scene, from);
            assert_eq!(asked.len(), 1, "{case}: one wish, one key frame");
            assert!(asked[0] < wished + SOON, "{case}: {:?} later", asked[0] - wished);
            let again = shown(&scene, asked[0]);
            assert!(again[0] < asked[0] + ms(350), "{case}: {:?} later", again[0] - asked[0]);
            assert!(again.len() > 15, "{case}: {} pictures", again.len());
        }
    }
}

#[test]
fn who_tells_of_losses_with_its_reports_gets_another_with_the_next_one() {
    for place in 0..=3 {
        let mut scene = settled(Answer::Remb(170_000), false, 1);
        let lost = lose_of_key_frame(&mut scene, place);
        let from = begin_key_frame(&mut scene);
        scene.play(secs(2));
        assert!(lost.get());
        let wished = wished(&scene).filter(|at| *at > from).expect("a gap is seen");
        let asked = asked(&scene, from);
        assert_eq!(asked.len(), 1, "packet {place}: one wish, one key frame");
        assert!(asked[0] < wished + secs(1) + SOON, "{place}: {:?} later", asked[0] - wished);
        assert!(!shown(&scene, asked[0]).is_empty());
    }
}

#[test]
fn a_wish_that_meets_its_key_frame_on_the_way_gets_no_second_one() {
    for answer in [Answer::TransportCc, Answer::Remb(170_000)] {
        for (seed, nack) in [(1, false), (2, false), (3, true)] {
            let mut scene = settled(answer, nack, seed);
            let from = begin_key_frame(&mut scene);
            let now = scene.room.now;
            let picture = scene.watched[0].picture.clone();
            let viewer = scene.room.seat(picture.peer).viewer_mut();
            // Its first packet has left, and is not there yet.
            viewer.wish_key_frame(now, picture.ssrc);
            scene.play(secs(2));
            assert!(asked(&scene, from).is_empty(), "{answer:?}, seed {seed}");
            assert!(shown(&scene, from).len() > 45);
            // It is no wish for ever.
            let lost = lose_one(&mut scene, |bytes| (200..LARGE).contains(&bytes));
            let from = scene.room.now;
            scene.play(secs(1));
            assert!(lost.get());
            assert_eq!(asked(&scene, from).len(), usize::from(!nack), "{answer:?}, seed {seed}");
        }
    }
}
