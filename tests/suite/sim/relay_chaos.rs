//! Pauses, joins and full lanes between shards in any order.

use std::time::Duration;

use rand::Rng;
use ringcast::control::command::Command;
use ringcast::engine::machine::Machine;

use super::media::Codec;
use super::relay::{HERE, THERE, call, joined};
use super::relay_lanes::assert_whole_runs;
use super::room::{Camera, Feed, Peer, Room, View, ms, secs};
use super::shards::Freight;

/// Lanes that are sometimes full.
const WAYS: [(usize, usize, Freight); 3] =
    [(HERE, THERE, Freight::Video), (HERE, THERE, Freight::Pulse), (THERE, HERE, Freight::Wish)];

/// A room in which anything may happen.
struct Chaos {
    room: Room,
    feed: Feed,
    paused: bool,
    /// Viewers there, and whether they paused.
    first: (View, bool),
    second: Option<(View, bool)>,
    second_peer: Peer,
}

impl Chaos {
    fn toggle(&mut self, which: usize) {
        let viewer = if which == 0 { Some(&mut self.first) } else { self.second.as_mut() };
        let Some((view, paused)) = viewer else { return };
        *paused = !*paused;
        let command = Command::PauseConsumer(view.id, *paused);
        self.room.command(command);
    }

    /// The mirror hears of it later than the origin.
    fn pause_producer(&mut self) {
        self.paused = !self.paused;
        for shard in [HERE, THERE] {
            let (now, command) = (self.room.now, Command::PauseProducer(self.feed.id, self.paused));
            self.room.shards.engines[shard].handle_command(now, command).unwrap();
            let between = self.room.rng.random_range(0..30);
            self.room.run_for(ms(between));
        }
    }

    fn step(&mut self) {
        match self.room.rng.random_range(0..8) {
            which @ 0..2 => {
                for _ in 0..self.room.rng.random_range(1..5) {
                    self.toggle(which);
                    let span = self.room.rng.random_range(0..50);
                    self.room.run_for(ms(span));
                }
            }
            2 => self.pause_producer(),
            3 => match self.second.take() {
                Some((view, _)) => drop(self.room.command(Command::CloseConsumer(view.id))),
                None => {
                    self.second = Some((self.room.consume(self.second_peer, &self.feed), false));
                }
            },
            4 | 5 => {
                let way = WAYS[self.room.rng.random_range(0..WAYS.len())];
                let blocked = &mut self.room.shards.lanes.blocked;
                if !blocked.remove(&way) {
                    blocked.insert(way);
                }
            }
            _ => {}
        }
        let longest = [1, 20, 400][self.room.rng.random_range(0..3)];
        let span = self.room.rng.random_range(0..longest);
        self.room.run_for(ms(span));
    }

    fn calm_down(&mut self) {
        self.room.shards.lanes.blocked.clear();
        if self.paused {
            self.pause_producer();
        }
        for (which, paused) in
            [self.first.1, self.second.as_ref().is_some_and(|s| s.1)].into_iter().enumerate()
        {
            if paused {
                self.toggle(which);
            }
        }
        self.room.run_for(secs(5));
    }
}

#[test]
fn pauses_joins_and_full_lanes_never_cost_a_gap_nor_time() {
    for seed in 350..362 {
        let layered = Camera { rids: vec!["q", "h", "f"], ..Camera::new(Codec::Vp8) };
        let camera = if seed % 3 == 0 { layered } else { Camera::new(Codec::Vp8) };
        let (mut room, _, _, feed, view) = call(seed, &camera);
        let second_peer = joined(&mut room, THERE);
        room.shards.lanes.delay = Duration::from_micros([50, 3_000, 40_000][(seed % 3) as usize]);
        room.run_for(ms(500));
        let first = (view, false);
        let mut chaos = Chaos { room, feed, paused: false, first, second: None, second_peer };
        for _ in 0..100 {
            chaos.step();
        }
        chaos.calm_down();
        let Chaos { room, feed, first, second, .. } = &chaos;
        for (view, _) in [Some(first), second.as_ref()].into_iter().flatten() {
            assert_whole_runs(room, view, feed, seed);
            for pair in room.heard(view).windows(2) {
                let ahead = pair[1].timestamp.wrapping_sub(pair[0].timestamp).cast_signed();
                assert!(ahead >= 0, "{seed}: back by {ahead} ticks");
            }
        }
    }
}
