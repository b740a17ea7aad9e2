//! AV1 with layers, of which only the dependency descriptor tells: whoever receives some of them can
//! decode all that comes.

use std::collections::BTreeSet;

use ringcast::control::command::{Command, Layers};
use ringcast::engine::codec::Targets;
use ringcast::engine::codec::dependency_descriptor::TemplateStructure;

use super::super::media::Encode;
use super::super::room::{ms, secs};
use super::encoder::{Encoder, Mark};
use super::judge::{Phase, longest_gap, usual_layer};
use super::plan::{AV1_SCALABLE, AV1_SCALABLE_KEY, AV1_TEMPORAL, Layer, PLAIN, Plan, Show};
use super::scene::Scene;
use super::sharing::limit;

const SHOWS: [Show; 3] = [AV1_TEMPORAL, AV1_SCALABLE, AV1_SCALABLE_KEY];

#[test]
fn descriptors_say_what_the_encoder_makes() {
    for show in SHOWS {
        let mut encoder = Encoder::new(show.encodings[0], 0, 3);
        let mut structure = TemplateStructure::default();
        let layers = show.encodings[0].bps.len();
        for picture in 0..100_u32 {
            let key = picture.is_multiple_of(37);
            let payloads = encoder.picture(key);
            let descriptors = encoder.take_descriptors();
            assert_eq!(payloads.len(), descriptors.len());
            for (payload, descriptor) in payloads.iter().zip(&descriptors) {
                let mark = Mark::read(payload).expect("a mark");
                let told = structure.read(descriptor).expect("a descriptor");
                let layer = told.layer.expect("a known template");
                assert_eq!((layer.spatial, layer.temporal), (mark.spatial, mark.temporal));
                let begins = mark.key && mark.index == 0;
                assert_eq!(
                    (told.structure_attached, told.start_of_frame),
                    (begins, mark.index == 0)
                );
                assert_eq!(told.end_of_frame, mark.index + 1 == mark.count);
                // Of its own layers it is always a part, of higher ones where they refer to it.
                let bit = Targets::bit(mark.spatial, mark.temporal);
                assert_ne!(layer.targets.present & bit, 0);
                let above = Targets::bit(mark.spatial + 1, mark.temporal);
                let linked = key || !show.encodings[0].format.is_key_only();
                let expected = linked && usize::from(mark.spatial) + 1 < layers;
                assert_eq!(layer.targets.present & above != 0, expected, "{}", show.name);
            }
        }
        assert_eq!(usize::from(structure.spatial_layers()), layers);
    }
}

/// The layers of the last seconds.
fn layer(scene: &Scene, span: u64) -> Option<Layer> {
    let now = scene.room.now;
    usual_layer(&scene.incoming(&scene.watched[0].picture).screen.shown, now - secs(span), now)
}

#[test]
fn every_layer_that_is_preferred_is_seen_within_a_second_and_nothing_else() {
    for show in SHOWS {
        let plan = Plan { show, steps: &[(0, 8_000)], ..PLAIN };
        let mut scene = Scene::new(&plan, 1);
        scene.play(secs(15));
        let picture = scene.watched[0].picture.clone();
        let spatials = u8::try_from(show.encodings[0].bps.len()).unwrap();
        assert_eq!(layer(&scene, 2), Some((spatials - 1, 2)), "{}", show.name);
        for wanted in [(2, 1), (0, 0), (0, 2), (1, 1), (2, 2), (1, 0), (2, 0), (0, 1), (2, 2)] {
            let (spatial, temporal) = wanted;
            let layers = Layers { spatial: spatial.min(spatials - 1), temporal };
            scene.room.command(Command::SetPreferredLayers(picture.id, layers));
            scene.play(secs(1));
            let from = scene.room.now;
            scene.play(secs(2));
            let stream = scene.incoming(&picture);
            let shown = || stream.screen.shown.iter().filter(|it| it.at >= from);
            let seen: BTreeSet<u8> = shown().map(|it| it.temporal).collect();
            assert!(shown().all(|it| it.spatial == layers.spatial), "{} {wanted:?}", show.name);
            assert!(seen.iter().copied().eq(0..=temporal), "{} {wanted:?}: {seen:?}", show.name);
            let expected = [15, 30, 60][usize::from(temporal)];
            assert!(shown().count().abs_diff(expected) <= 2, "{} {}", show.name, shown().count());
            let gap = longest_gap(&stream.screen.shown, scene.room.now - secs(3), scene.room.now);
            assert!(gap <= ms(500), "{} {wanted:?}: {gap:?}", show.name);
        }
        // Whatever went out referred only to what had gone out before.
        let stream = scene.incoming(&picture);
        assert_eq!((stream.gaps, stream.screen.broken), (0, 0), "{}", show.name);
    }
}

#[test]
fn a_link_that_narrows_and_widens_takes_layers_away_and_gives_them_back() {
    for show in SHOWS {
        for seed in [1, 2] {
            let plan = Plan { show, steps: &[(0, 4_000), (20, 800), (50, 4_000)], ..PLAIN };
            let mut scene = Scene::new(&plan, seed);
            let phases = Phase::of(&Plan { secs: 90, ..plan }, scene.began);
            for (phase, span) in phases.iter().zip([20, 30, 40]) {
                scene.play(secs(span));
                let (least, most) = plan.fitting(phase.bps);
                let seen = layer(&scene, 5);
                assert!(seen >= least && seen <= most, "{} {seed}: {seen:?}", show.name);
                let lost = scene.watched[0]
                    .sound
                    .as_ref()
                    .map(|sound| scene.incoming(sound).lost_between(phase.from, scene.room.now));
                assert!(lost.is_some_and(|lost| lost <= 15), "{} {seed}: {lost:?}", show.name);
            }
            scene.assert_whole();
        }
    }
}

#[test]
fn losses_are_repaired_and_leave_hardly_anything_that_cannot_be_decoded() {
    for show in SHOWS {
        let plan = Plan { show, steps: &[(0, 5_000)], loss: 0.02, ..PLAIN };
        let mut scene = Scene::new(&plan, 3);
        // What is made of losses is not the subject here.
        limit(&mut scene, 4_000_000, 0);
        scene.play(secs(40));
        let from = scene.room.now - secs(20);
        let stream = scene.incoming(&scene.watched[0].picture);
        let shown = stream.screen.shown.iter().filter(|it| it.at >= from).count();
        assert!(stream.gaps > 50, "{}: {} gaps", show.name, stream.gaps);
        assert!(shown >= 20 * 28, "{}: {shown} pictures in 20 s", show.name);
        assert!(stream.screen.broken <= 20, "{}: {}", show.name, stream.screen.broken);
    }
}
