//! Which shard a new room starts on, and which one each of its transports goes to.
//!
//! Owned by [`Control`](super::Control). Pure: counts and reports go in, a shard comes out. It does
//! not move what already lives somewhere.
//!
//! # The rule
//!
//! A room starts on the least loaded shard. Each transport of it then
//!
//! 1. **stays** with the room: on the shard that has most of the room, among those the room uses
//!    that are below [`BUSY_TOGETHER_MAX`] and hold fewer than [`TRANSPORTS_TOGETHER_MAX`] of its
//!    transports;
//! 2. else is **spread**: to the least busy shard of all, by tenths; among equals to one that holds
//!    few of the room, best one that the room uses already; then to the least occupied.
//!
//! Staying keeps producers and consumers on one shard, where nothing has to cross. The count in it
//! spreads a big room even when everybody joins before media flows, which no measurement could. In
//! a room that was spread, each further shard costs one copy of every packet that is watched there,
//! against [`TRANSPORTS_TOGETHER_MAX`] copies and more that it sends.

use crate::id::ShardId;
use crate::limits::TRANSPORTS_PER_SHARD_MAX;

/// Share of a shard that a transport placed since its last report is taken to cost, until the next
/// report says what it really costs: a peer of a call of four that gets three cameras and
/// microphones (450 packets/s at 6 µs).
const BUSY_PER_NEW_TRANSPORT: f64 = 0.0025;

/// Transports that a room placed since the last report is expected to get: a call of four.
const TRANSPORTS_PER_NEW_ROOM: usize = 8;

/// Steps in which business is compared; what differs by less is noise of the last second.
const BUSY_STEPS: f64 = 10.0;

/// A shard busier than this takes no more of a room that could go elsewhere: what is there may
/// still grow by half (cameras that come on, key frames) before its packets wait.
const BUSY_TOGETHER_MAX: f64 = 0.6;

/// Transports of one room on one shard, from which on it is spread: a room of 24 peers with two
/// transports each. One relayed copy is then a fiftieth of what its shard sends of it.
const TRANSPORTS_TOGETHER_MAX: usize = 48;

/// How loaded one shard is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Rooms that started on it.
    pub rooms: usize,
    /// Transports on it, of any room.
    pub transports: usize,
    /// Part of the last second that it was not waiting, 0–1.
    pub busy: f64,
    /// Rooms placed on it since it said so.
    pub rooms_since_report: usize,
    /// Transports placed on it since it said so.
    pub transports_since_report: usize,
}

/// What one shard has of a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Presence {
    /// Transports of the room.
    pub transports: usize,
    /// The room started here.
    pub is_home: bool,
}

impl Presence {
    fn is_used(self) -> bool {
        self.is_home || self.transports > 0
    }

    /// Transports of the room, where they are too many to stay together.
    fn crowd(self) -> usize {
        if self.transports < TRANSPORTS_TOGETHER_MAX { 0 } else { self.transports }
    }
}

impl Load {
    /// As measured, and what was placed since.
    fn busy(&self) -> f64 {
        let expected = self.rooms_since_report.saturating_mul(TRANSPORTS_PER_NEW_ROOM);
        let fresh = u32::try_from(expected.max(self.transports_since_report)).unwrap_or(u32::MAX);
        self.busy + f64::from(fresh) * BUSY_PER_NEW_TRANSPORT
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates, and a NaN becomes 0"
    )]
    fn busy_steps(&self) -> u32 {
        (self.busy() * BUSY_STEPS) as u32
    }

    fn occupants(&self) -> usize {
        self.rooms + self.transports
    }

    fn is_full(&self) -> bool {
        self.transports >= TRANSPORTS_PER_SHARD_MAX
    }

    /// Takes more of a room of which it has so much.
    fn keeps(&self, presence: Presence) -> bool {
        let has_room = !self.is_full() && self.busy() < BUSY_TOGETHER_MAX;
        presence.is_used() && presence.crowd() == 0 && has_room
    }
}

/// The least loaded shard: least busy by tenths, then fewest rooms and transports, then the first.
#[must_use]
pub fn least_loaded(loads: &[Load]) -> Option<ShardId> {
    let rank = |load: &Load| (load.is_full(), load.busy_steps(), load.occupants());
    let (index, _) = loads.iter().enumerate().min_by_key(|(_, load)| rank(load))?;
    u16::try_from(index).ok().map(ShardId)
}

/// Where the next transport of a room goes, by the [rule](self#the-rule); each shard with what it
/// has of that room, in order of their ids.
#[must_use]
pub fn shard_for(shards: &[(Load, Presence)]) -> Option<ShardId> {
    let numbered = || shards.iter().enumerate();
    let stay = numbered()
        .filter(|(_, (load, presence))| load.keeps(*presence))
        .min_by_key(|(_, (load, has))| (usize::MAX - has.transports, load.occupants()));
    let spread = |(load, has): &(Load, Presence)| {
        (load.is_full(), load.busy_steps(), has.crowd(), !has.is_used(), load.occupants())
    };
    let (index, _) = stay.or_else(|| numbered().min_by_key(|(_, shard)| spread(shard)))?;
    u16::try_from(index).ok().map(ShardId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(busy: f64, rooms: usize, transports: usize) -> Load {
        Load { rooms, transports, busy, ..Load::default() }
    }

    /// A shard that is so busy and has so many of the room.
    fn shard(busy: f64, of_room: usize) -> (Load, Presence) {
        (load(busy, 1, of_room), Presence { transports: of_room, is_home: false })
    }

    /// The same shard, and the room started there.
    fn home((load, presence): (Load, Presence)) -> (Load, Presence) {
        (load, Presence { is_home: true, ..presence })
    }

    /// A node on which rooms are made and joined.
    struct Stage(Vec<Load>);

    impl Stage {
        fn idle(shards: usize) -> Self {
            Self(vec![Load::default(); shards])
        }

        /// Makes a room and lets so many transports join; how many each shard then has of it.
        /// Every `report_every` joins the shards report, busy by `busy_each` for each transport.
        fn fill(&mut self, joins: usize, report_every: usize, busy_each: f64) -> Vec<usize> {
            let started = least_loaded(&self.0).unwrap().index();
            self.0[started].rooms += 1;
            self.0[started].rooms_since_report += 1;
            let mut of_room = vec![0; self.0.len()];
            for n in 1..=joins {
                let presence = of_room.iter().enumerate();
                let presence =
                    presence.map(|(at, has)| Presence { transports: *has, is_home: at == started });
                let shards: Vec<_> = self.0.iter().copied().zip(presence).collect();
                let chosen = shard_for(&shards).unwrap().index();
                of_room[chosen] += 1;
                self.0[chosen].transports += 1;
                self.0[chosen].transports_since_report += 1;
                if n % report_every == 0 {
                    self.report(busy_each);
                }
            }
            of_room
        }

        fn report(&mut self, busy_each: f64) {
            for load in &mut self.0 {
                let transports = u32::try_from(load.transports).unwrap();
                *load = self::load(
                    (f64::from(transports) * busy_each).min(1.0),
                    load.rooms,
                    load.transports,
                );
            }
        }
    }

    #[test]
    fn a_room_goes_to_the_least_loaded_shard() {
        for (loads, expected) in [
            (vec![], None),
            (vec![load(0.0, 0, 0), load(0.0, 0, 0)], Some(0)),
            (vec![load(0.0, 1, 4), load(0.0, 1, 2)], Some(1)),
            (vec![load(0.55, 0, 0), load(0.25, 9, 40)], Some(1)),
            (vec![load(0.31, 1, 0), load(0.39, 0, 0)], Some(1)),
            (vec![load(f64::NAN, 3, 0), load(f64::INFINITY, 0, 0)], Some(0)),
            (vec![load(0.0, 0, TRANSPORTS_PER_SHARD_MAX), load(0.9, 9, 9)], Some(1)),
        ] {
            assert_eq!(least_loaded(&loads), expected.map(ShardId), "{loads:?}");
        }
    }

    #[test]
    fn rooms_made_between_two_reports_spread_over_shards_that_are_equally_busy() {
        let mut loads = [Load::default(); 4];
        for _ in 0..40 {
            let shard = least_loaded(&loads).unwrap();
            let chosen = &mut loads[shard.index()];
            chosen.rooms += 1;
            chosen.rooms_since_report += 1;
        }
        assert!(loads.iter().all(|load| load.rooms == 10), "{loads:?}");
    }

    #[test]
    fn a_transport_stays_with_its_room_unless_that_is_loaded_or_big() {
        let full = TRANSPORTS_TOGETHER_MAX;
        for (what, shards, expected) in [
            ("no shards", vec![], None),
            ("the first one goes home", vec![shard(0.0, 0), home(shard(0.5, 0))], Some(1)),
            ("to the others", vec![shard(0.0, 0), home(shard(0.5, 7))], Some(1)),
            ("to most of the others", vec![home(shard(0.0, 2)), shard(0.5, 7)], Some(1)),
            ("not where it is busy", vec![home(shard(0.61, 7)), shard(0.1, 0)], Some(1)),
            ("rather to fewer of them", vec![home(shard(0.61, 7)), shard(0.5, 1)], Some(1)),
            ("than to a strange shard", vec![shard(0.0, 0), shard(0.59, 1)], Some(1)),
            ("together when all are busy", vec![shard(0.71, 0), home(shard(0.78, 7))], Some(1)),
            ("unless one is less so", vec![shard(0.65, 0), home(shard(0.78, 7))], Some(0)),
            ("not where the room is big", vec![home(shard(0.0, full)), shard(0.0, 0)], Some(1)),
            ("nor if all is idle", vec![home(shard(0.0, full - 1)), shard(0.0, 0)], Some(0)),
            ("evenly when big everywhere", vec![shard(0.0, 60), home(shard(0.0, 61))], Some(0)),
            ("by load when big", vec![home(shard(0.4, 60)), shard(0.15, 61)], Some(1)),
            ("by load, first of all", vec![shard(0.35, 0), home(shard(0.22, full))], Some(1)),
            ("nonsense is idle", vec![shard(f64::NAN, 0), home(shard(f64::NAN, 1))], Some(1)),
        ] {
            assert_eq!(shard_for(&shards), expected.map(ShardId), "{what}");
        }
    }

    #[test]
    fn a_full_shard_gives_way_to_any_other() {
        let full = (load(0.0, 1, TRANSPORTS_PER_SHARD_MAX), Presence::default());
        assert_eq!(shard_for(&[home(full), shard(0.95, 0)]), Some(ShardId(1)));
        assert_eq!(shard_for(&[home(full), (full.0, Presence::default())]), Some(ShardId(0)));
    }

    #[test]
    fn small_rooms_stay_together_and_are_spread_as_wholes() {
        for joins in [1, 2, 8, 40] {
            let mut of_room = Stage::idle(4).fill(joins, usize::MAX, 0.0);
            of_room.sort_unstable();
            assert_eq!(of_room, [0, 0, 0, joins]);
        }
        let mut stage = Stage::idle(4);
        for room in 0..100 {
            let used = stage.fill(8, 50, 0.001).iter().filter(|has| **has > 0).count();
            assert_eq!(used, 1, "room {room}");
        }
        let transports: Vec<usize> = stage.0.iter().map(|load| load.transports).collect();
        assert!(transports.iter().all(|n| (160..=240).contains(n)), "{transports:?}");
    }

    #[test]
    fn a_big_room_is_spread_evenly_whether_or_not_media_flows_yet() {
        for (shards, joins) in [(2, 201), (2, 402), (4, 1001), (4, 300), (8, 1001), (16, 1001)] {
            for report_every in [usize::MAX, 1000, 100, 33, 5] {
                for busy_each in [0.0, 0.0005, 0.00115, 0.003] {
                    let of_room = Stage::idle(shards).fill(joins, report_every, busy_each);
                    let even = joins / shards;
                    let fair = even * 4 / 5..=even * 6 / 5;
                    assert!(
                        of_room.iter().all(|has| fair.contains(has)),
                        "{joins} over {shards}, {report_every} {busy_each}: {of_room:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_big_room_goes_around_a_shard_that_others_keep_busy() {
        let mut stage = Stage::idle(2);
        stage.0[1] = load(0.55, 20, 160);
        let of_room = stage.fill(150, usize::MAX, 0.0);
        assert!(of_room[0] > of_room[1], "{of_room:?}");
    }
}
