//! Whoever understands no RTX is probed inside the media stream, and misses nothing of it.

use super::super::room::secs;
use super::plan::{PLAIN, Plan};
use super::scene::Scene;

#[test]
fn without_rtx_probes_are_padding_between_pictures_and_lost_ones_come_again() {
    for loss in [0.0, 0.05] {
        let plan = Plan { steps: &[(0, 3_000)], rtx: false, loss, ..PLAIN };
        let mut scene = Scene::new(&plan, 1);
        let from = scene.room.now;
        scene.play(secs(20));
        // What is on its way, or asked for a moment ago.
        let to = scene.room.now - secs(2);
        let picture = &scene.watched[0].picture;
        assert_eq!(picture.rtx_ssrc, None);
        let (packets, bytes) = scene.viewer(picture.peer).padding;
        assert!(packets > 20 && bytes > 3_000, "{packets} packets of padding, {bytes} bytes");
        let stream = scene.incoming(picture);
        assert_eq!(stream.lost_between(from, to), 0, "every number came in the end");
        let last = stream.screen.shown.last().unwrap();
        assert_eq!(last.spatial, 2, "the largest picture was found");
        scene.assert_whole();
    }
}
