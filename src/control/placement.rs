//! Which shard a new room starts on.
//!
//! Owned by [`Control`](super::Control). Pure: counts and reports go in, a shard comes out. It does
//! not move what already lives somewhere.

use crate::id::ShardId;

/// Share of a shard that a room placed since its last report is taken to cost, until the next
/// report says what it really costs: a small call is 1–3 % of a core.
const BUSY_PER_NEW_ROOM: f64 = 0.02;

/// Steps in which business is compared; what differs by less is noise of the last second.
const BUSY_STEPS: f64 = 10.0;

/// How loaded one shard is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Rooms placed on it.
    pub rooms: usize,
    /// Transports of those rooms.
    pub transports: usize,
    /// Part of the last second that it was not waiting, 0–1.
    pub busy: f64,
    /// Rooms placed on it since it said so.
    pub rooms_since_report: usize,
}

impl Load {
    fn rank(&self) -> (u32, usize) {
        let fresh = u32::try_from(self.rooms_since_report).unwrap_or(u32::MAX);
        let busy = self.busy + f64::from(fresh) * BUSY_PER_NEW_ROOM;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float cast saturates, and a NaN becomes 0"
        )]
        let steps = (busy * BUSY_STEPS) as u32;
        (steps, self.rooms + self.transports)
    }
}

/// The least loaded shard: least busy by tenths, then fewest rooms and transports, then the first.
#[must_use]
pub fn least_loaded(loads: &[Load]) -> Option<ShardId> {
    let (index, _) = loads.iter().enumerate().min_by_key(|(_, load)| load.rank())?;
    u16::try_from(index).ok().map(ShardId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(busy: f64, rooms: usize, transports: usize) -> Load {
        Load { rooms, transports, busy, rooms_since_report: 0 }
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
}
