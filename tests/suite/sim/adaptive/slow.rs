//! A shared screen that changes seldom, in three sizes: one picture in some seconds is a stream like
//! any other, for those who are there and for those who come late.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringcast::control::command::{Event, Layers};
use ringcast::engine::srtp::SrtpProfile;

use super::super::bottleneck::{Bottleneck, Excess};
use super::super::media::{Codec, Encode};
use super::super::network::Link;
use super::super::room::{Camera, Feed, Peer, Room, View, ms, secs};
use super::encoder::{Encoder, Encoding, Format};
use super::judge::longest_gap;
use super::plan::{PLAIN, Plan};
use super::scene::Scene;
use super::screen::Shown;
use super::viewer::{Answer, Habits};

const fn size(bps: &'static [u32], temporal: u8) -> Encoding {
    Encoding { bps, fps: 1, temporal, format: Format::Vp8 }
}

/// Pictures of 7, 20 and 60 KB.
const SIZES: [Encoding; 3] = [size(&[56_000], 1), size(&[160_000], 1), size(&[480_000], 1)];
const LAYERED: [Encoding; 3] = [size(&[56_000], 2), size(&[160_000], 2), size(&[480_000], 2)];

/// One picture in so long, and nothing in between.
#[derive(Debug)]
struct Slides {
    encoder: Encoder,
    interval: Duration,
}

impl Encode for Slides {
    fn interval(&self) -> Duration {
        self.interval
    }

    fn picture(&mut self, key: bool) -> Vec<Vec<u8>> {
        self.encoder.picture(key)
    }
}

struct Joined {
    peer: Peer,
    view: View,
    at: Instant,
}

struct Talk {
    room: Room,
    screen: Feed,
    joined: Vec<Joined>,
}

impl Talk {
    /// The screen is shown from now on.
    fn new(sizes: [Encoding; 3], interval: Duration, seed: u64) -> Self {
        let mut room = Room::new(seed);
        room.link = Link::new(10);
        let peer = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        let pacer = Bottleneck::new(room.now, 8_000_000, Excess::Queued(usize::MAX));
        room.seat(peer).up = Link::new(10).through(pacer);
        let mode = (sizes[0].temporal > 1).then_some("L1T2");
        let camera = Camera { encodings: 3, mode, ..Camera::new(Codec::Vp8) };
        let screen = room.produce(peer, &camera);
        for (number, size) in (0_u8..).zip(sizes) {
            let slides = Slides { encoder: Encoder::new(size, number, seed), interval };
            room.source_mut(&screen, number.into()).encoder = Some(Box::new(slides));
        }
        room.start(&screen);
        Self { room, screen, joined: Vec::new() }
    }

    /// Somebody comes, over a link of so many kbit/s.
    fn join(&mut self, kbps: u64) {
        let room = &mut self.room;
        room.link = Link::new(25);
        let peer = room.viewer(Habits { answer: Answer::TransportCc, nack: true });
        let queue = usize::try_from(kbps * 1_000 / 8).unwrap();
        let link = Bottleneck::new(room.now, kbps * 1_000, Excess::Queued(queue));
        let bottleneck = Some(Rc::new(RefCell::new(link)));
        room.seat(peer).down = Link { bottleneck, ..Link::new(25) };
        let understood = room.capabilities.clone();
        let view = room.consume_as(peer, &self.screen, &understood, false);
        let at = room.now;
        self.joined.push(Joined { peer, view, at });
    }

    fn shown(&self, joined: &Joined) -> &[Shown] {
        &self.room.seats[joined.peer.0].viewer().streams[&joined.view.ssrc].screen.shown
    }

    fn told(&self, joined: &Joined) -> Vec<Option<Layers>> {
        let told = self.room.events.iter().filter_map(|(_, event)| match event {
            Event::ConsumerLayers { consumer, layers } if *consumer == joined.view.id => {
                Some(*layers)
            }
            _ => None,
        });
        told.collect()
    }
}

#[test]
fn whoever_joins_a_screen_that_changes_seldom_sees_it_as_large_as_the_link_carries() {
    for (sizes, every, kbps, largest) in [
        (SIZES, 2, 3_000, 2),
        (LAYERED, 2, 3_000, 2),
        (SIZES, 5, 3_000, 2),
        (LAYERED, 5, 3_000, 2),
        (SIZES, 2, 500, 2),
        (SIZES, 5, 500, 2),
        (SIZES, 2, 200, 1),
    ] {
        let name = format!("every {every} s over {kbps}k, {} layers", sizes[0].temporal);
        let mut talk = Talk::new(sizes, secs(every), every);
        for after in [100, 7_300, 12_900, 20_400] {
            talk.room.run_for(ms(after));
            talk.join(kbps);
        }
        talk.room.run_for(secs(30));
        let before = talk.room.counters();
        talk.room.run_for(secs(30));
        let after = talk.room.counters();
        assert_eq!(after.layer_switches, before.layer_switches, "{name}");
        // Receivers that see nothing new for three seconds ask for a key frame by themselves.
        let asked = after.plis_sent - before.plis_sent;
        assert!(asked <= if every > 3 { 3 * 30 / every } else { 0 }, "{name}: {asked} requests");
        for joined in &talk.joined {
            let told: Vec<_> = talk.told(joined).iter().map(|it| it.map(|it| it.spatial)).collect();
            assert_eq!(told, [Some(0), Some(largest)], "{name}");
            let shown = talk.shown(joined);
            let settled = joined.at + secs(4 * every + 1);
            let is_small = |shown: &&Shown| shown.at >= settled && shown.spatial != largest;
            assert_eq!(shown.iter().find(is_small), None, "{name}");
            let gap = longest_gap(shown, settled, talk.room.now);
            assert!(gap <= secs(every) + ms(500), "{name}: {gap:?}");
        }
    }
}

#[test]
fn a_camera_that_was_silent_for_some_seconds_goes_on_as_it_was() {
    const LINKS: [(&[(u64, u64)], u8); 2] = [(&[(0, 250)], 0), (&[(0, 3_000)], 2)];
    for (steps, layer) in LINKS {
        let kbps = steps[0].1;
        let mut scene = Scene::new(&Plan { steps, ..PLAIN }, 1);
        scene.play(secs(30));
        let camera = scene.feeds[0].clone();
        let before = scene.room.counters();
        for silence in [900, 3_000, 8_000] {
            (0..3).for_each(|encoding| scene.room.stop(&camera, encoding));
            scene.play(ms(silence));
            let now = scene.room.now;
            for encoding in 0..3 {
                let begins = now + ms(20 * encoding as u64);
                scene.room.source_mut(&camera, encoding).next_at = Some(begins);
            }
            scene.play(secs(6));
            let shown = &scene.incoming(&scene.watched[0].picture).screen.shown;
            let since: Vec<_> = shown.iter().filter(|it| it.at >= now).collect();
            assert!(since.len() > 60, "{kbps}k, {silence} ms: {} pictures", since.len());
            assert!(since.iter().all(|it| it.spatial == layer), "{kbps}k, {silence} ms");
        }
        let after = scene.room.counters();
        assert_eq!(after.layer_switches, before.layer_switches, "{kbps}k");
    }
}
