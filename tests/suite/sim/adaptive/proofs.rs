//! The instruments themselves: encoders keep their rates, viewers show what they can, and each judge
//! finds what it is there to find.

use std::collections::BTreeMap;
use std::time::Instant;

use ringcast::engine::codec::{vp8, vp9};

use super::super::media::{Codec, Encode};
use super::super::room::{beginning, ms, secs};
use super::encoder::{Encoder, Encoding, Mark};
use super::judge::{Outcome, Phase, changes, longest_gap, usual_layer};
use super::plan::{
    PLAIN, Plan, SCALABLE, SCALABLE_KEY, SIMULCAST, SIMULCAST_T1, SIMULCAST_T3, Show,
};
use super::scene::Scene;
use super::screen::{Screen, Shown};

/// What a packet's descriptor says agrees with its mark.
fn assert_told(show: &Show, payload: &[u8], mark: &Mark) {
    let info = if show.codec() == Codec::Vp9 {
        let descriptor = vp9::Descriptor::parse(payload).expect("a descriptor");
        let layers = descriptor.layers.expect("layers");
        assert_eq!(layers.inter_layer, mark.inter_layer);
        assert_eq!(descriptor.inter_picture, mark.back > 0);
        descriptor.info()
    } else {
        vp8::Descriptor::parse(payload).expect("a descriptor").info()
    };
    assert_eq!((info.temporal, info.spatial), (mark.temporal, mark.spatial));
    assert_eq!(info.frame_start, mark.index == 0);
    assert_eq!(info.key_frame, mark.key && mark.index == 0);
}

/// Bytes of each layer in half a minute with a key frame every ten seconds.
fn made(show: &Show, encoding: &Encoding, number: u8) -> BTreeMap<(u8, u8), usize> {
    let mut encoder = Encoder::new(*encoding, number, 3);
    let mut bytes = BTreeMap::new();
    for picture in 0..30 * encoding.fps {
        for payload in encoder.picture(picture % (10 * encoding.fps) == 0) {
            let mark = Mark::read(&payload).expect("a mark");
            assert_told(show, &payload, &mark);
            *bytes.entry((mark.spatial, mark.temporal)).or_insert(0) += payload.len();
        }
    }
    bytes
}

#[test]
fn encoders_keep_their_rates_and_say_what_they_make() {
    for show in [SIMULCAST, SIMULCAST_T1, SIMULCAST_T3, SCALABLE, SCALABLE_KEY] {
        for (number, encoding) in (0..).zip(show.encodings) {
            let bytes = made(&show, encoding, number);
            let bits = |layers: &dyn Fn(u8, u8) -> bool| {
                let of =
                    bytes.iter().filter(|((spatial, temporal), _)| layers(*spatial, *temporal));
                of.map(|(_, bytes)| *bytes as f64 * 8.0 / 30.0).sum::<f64>()
            };
            for spatial in 0..encoding.bps.len() {
                for temporal in 0..encoding.temporal {
                    let made = bits(&|s, t| usize::from(s) <= spatial && t <= temporal);
                    let due = encoding.rate_up_to(spatial, temporal) as f64;
                    let name = show.name;
                    assert!((made / due - 1.0).abs() < 0.1, "{name}: {made} of {due} bits/s");
                }
            }
        }
    }
}

/// Packets of pictures without layers above the base, two each, by picture.
fn packets(picture: u32, back: u8) -> [((u64, u32, bool), Mark); 2] {
    [0, 1].map(|index| {
        let number = u64::from(picture) * 2 + u64::from(index);
        let mark = Mark {
            encoding: 0,
            picture,
            spatial: 0,
            temporal: 0,
            index,
            count: 2,
            key: back == 0,
            back,
            inter_layer: false,
        };
        ((number, picture * 3_000, index == 1), mark)
    })
}

#[test]
fn a_screen_shows_what_is_whole_and_refers_to_what_was_shown() {
    let now = beginning();
    let mut screen = Screen::default();
    let mut play = |picture: u32, back: u8, which: &[usize], missing: u64| {
        for index in which {
            let (place, mark) = packets(picture, back)[*index];
            screen.handle_packet(now, place, mark, missing);
        }
        (screen.shown.len(), screen.broken)
    };
    assert_eq!(play(1, 0, &[0], 3), (0, 0), "half a picture");
    assert_eq!(play(1, 0, &[1], 4), (1, 0));
    assert_eq!(play(2, 1, &[1, 0], 6), (2, 0), "in any order");
    assert_eq!(play(4, 1, &[0, 1], 6), (2, 0), "what it refers to may still come");
    assert_eq!(play(3, 1, &[0], 7), (2, 0), "half of that");
    assert_eq!(play(3, 1, &[1], 10), (4, 0), "and then both are shown");
    assert_eq!(play(6, 1, &[0, 1], 14), (4, 1), "what it refers to will never come");
    assert_eq!(play(7, 3, &[0, 1], 16), (5, 1), "another reference is there");
    assert_eq!(play(5, 1, &[0, 1], 16), (5, 1), "too late");
    assert_eq!(play(9, 0, &[0, 1], 16), (6, 1), "a key frame needs nothing");
}

fn shown(now: Instant, of: impl Fn(u64) -> Option<(u8, u8)>) -> Vec<Shown> {
    let at = |number: u64| {
        let (spatial, temporal) = of(number)?;
        Some(Shown { at: now + ms(number * 40), spatial, temporal })
    };
    (0..250).filter_map(at).collect()
}

#[test]
fn what_was_shown_is_judged_by_layer_change_and_gap() {
    let now = beginning();
    let end = now + secs(10);
    let two_layers = |number: u64| u8::from(!number.is_multiple_of(2));
    let steady = shown(now, |number| Some((2, two_layers(number))));
    assert_eq!(usual_layer(&steady, now, end), Some((2, 1)));
    assert_eq!(changes(&steady, now, end), 0);
    assert_eq!(longest_gap(&steady, now, end), ms(40));
    let falls = shown(now, |number| Some((2 - u8::from(number >= 100), two_layers(number))));
    assert_eq!(usual_layer(&falls, now, end), Some((1, 1)));
    assert_eq!(changes(&falls, now, end), 1);
    let thins = shown(now, |number| {
        (number < 150 || number.is_multiple_of(2)).then(|| (2, two_layers(number)))
    });
    assert_eq!(usual_layer(&thins, now, end), Some((2, 1)));
    assert_eq!(usual_layer(&thins, now + secs(7), end), Some((2, 0)));
    assert_eq!(changes(&thins, now, end), 1, "a lower frame rate is one change");
    let stops = shown(now, |number| (number < 50).then_some((0, 0)));
    assert_eq!(usual_layer(&stops, now, end), None, "dark for longer than shown");
    assert_eq!(longest_gap(&stops, now, end), secs(8) + ms(40));
    assert_eq!(longest_gap(&[], now, end), secs(10));
    let late = shown(now, |number| (number >= 50).then_some((0, 0)));
    assert_eq!(longest_gap(&late, now, end), ms(40), "what has not begun does not stand still");
}

/// The faults of a run that is judged by another plan than it followed.
fn faults(played: Plan, judged: Plan, disturb: impl Fn(&mut Scene)) -> Vec<&'static str> {
    let mut scene = Scene::new(&played, 1);
    scene.play(secs(20));
    disturb(&mut scene);
    scene.play(secs(20));
    scene.plan = judged;
    Outcome::of(&scene, &Phase::of(&judged, scene.began)[0]).faults
}

#[test]
fn each_judge_finds_what_it_is_there_to_find() {
    let wide = Plan { steps: &[(0, 4_000)], ..PLAIN };
    let narrow = Plan { steps: &[(0, 400)], ..PLAIN };
    let found = faults(wide, wide, |_| {});
    assert!(found.iter().all(|fault| *fault == "estimate"), "{found:?}");
    // A link narrower than it is taken for, and a wider one.
    let found = faults(narrow, wide, |_| {});
    assert!(found.contains(&"estimate") && found.contains(&"layer"), "{found:?}");
    assert!(faults(wide, narrow, |_| {}).contains(&"layer"));
    // A camera that stands still for a second.
    let found = faults(wide, wide, |scene| {
        let feed = scene.feeds[0].clone();
        (0..3).for_each(|encoding| scene.room.stop(&feed, encoding));
        scene.play(secs(1));
        scene.room.start(&feed);
    });
    assert!(found.contains(&"freeze"), "{found:?}");
    // Something else that fills the link's buffer.
    let found = faults(wide, wide, |scene| {
        for _ in 0..200 {
            scene.play(ms(50));
            let now = scene.room.now;
            let mut link = scene.link.borrow_mut();
            let passed = (0..40).filter(|_| link.pass(now, 1_000).is_some()).count();
            assert!(passed > 0);
        }
    });
    assert!(found.contains(&"queue"), "{found:?}");
    // Losses that the plan says nothing of.
    let found = faults(Plan { loss: 0.1, ..wide }, wide, |_| {});
    assert!(found.contains(&"sound"), "{found:?}");
    let found = faults(wide, wide, |scene| {
        for _ in 0..4 {
            let highest = scene.feeds[0].clone();
            scene.room.stop(&highest, 2);
            scene.play(secs(3));
            scene.room.start(&highest);
            scene.play(secs(3));
        }
    });
    assert!(found.contains(&"changes"), "{found:?}");
}
