//! What only tells a number that statistics tell, too (a client's bandwidth, a consumer's score), in
//! bounds: every viewer of a big room makes some, and every reader of its events gets all.
//!
//! Owned by a room's log, on the control thread. Beyond a bound that falls with the number of readers,
//! such an event waits: a newer one of the same object takes its place, so that what is told in the
//! end is true, and nothing waits for what others tell. Invariant: at most one event of each object
//! waits, so that memory is bounded by the objects of the room.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::room_event::RoomEvent;
use crate::id::{ConsumerId, TransportId};
use crate::limits::{ROOM_GAUGE_DELIVERIES_PER_SECOND_MAX, ROOM_GAUGES_PER_SECOND_MAX};

const SECOND: Duration = Duration::from_secs(1);

/// Of what a number is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GaugeOf {
    /// A transport's bandwidth.
    Transport(TransportId),
    /// A consumer's score.
    Consumer(ConsumerId),
}

impl GaugeOf {
    /// What an event tells the number of; `None` for one that is never left out.
    #[must_use]
    pub fn event(event: &RoomEvent) -> Option<Self> {
        match event {
            RoomEvent::Bandwidth { transport, .. } => Some(Self::Transport(*transport)),
            RoomEvent::ConsumerScore { consumer, .. } => Some(Self::Consumer(*consumer)),
            _ => None,
        }
    }
}

/// The numbers of one room that are told soon.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    /// When the second began of which it is counted, and how many were told in it.
    told: Option<(Instant, usize)>,
    /// What waits, the one that waits longest first; its newest event stands in `newest`.
    order: VecDeque<GaugeOf>,
    newest: HashMap<GaugeOf, RoomEvent>,
}

impl Gauges {
    /// Whether an event has to wait; if so, it is kept.
    pub(super) fn defers(&mut self, now: Instant, readers: usize, event: &RoomEvent) -> bool {
        let Some(of) = GaugeOf::event(event) else { return false };
        if self.order.is_empty() && self.has_room(now, readers) {
            return false;
        }
        if self.newest.insert(of, event.clone()).is_none() {
            self.order.push_back(of);
        }
        true
    }

    /// The event that waited longest, if it may be told now.
    pub(super) fn take(&mut self, now: Instant, readers: usize) -> Option<(GaugeOf, RoomEvent)> {
        if self.order.is_empty() || !self.has_room(now, readers) {
            return None;
        }
        let of = self.order.pop_front()?;
        Some((of, self.newest.remove(&of)?))
    }

    /// True while something waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.order.is_empty()
    }

    /// True, and counted, when one more may be told in this second.
    fn has_room(&mut self, now: Instant, readers: usize) -> bool {
        let most = ROOM_GAUGE_DELIVERIES_PER_SECOND_MAX / readers.max(1);
        let most = most.clamp(1, ROOM_GAUGES_PER_SECOND_MAX);
        let (since, count) = self.told.get_or_insert((now, 0));
        if now.saturating_duration_since(*since) >= SECOND {
            (*since, *count) = (now, 0);
        }
        let has_room = *count < most;
        *count += usize::from(has_room);
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::test_instant;
    use crate::id::PeerId;

    fn bandwidth(transport: TransportId, estimate_bps: u64) -> RoomEvent {
        RoomEvent::Bandwidth { transport, peer: PeerId::try_from("peer").unwrap(), estimate_bps }
    }

    #[test]
    fn many_are_told_late_with_their_newest_number_and_in_turn() {
        let start = test_instant();
        let mut gauges = Gauges::default();
        let viewers: Vec<_> =
            (0..3 * ROOM_GAUGES_PER_SECOND_MAX).map(|_| TransportId::random()).collect();
        let told_at_once = |gauges: &mut Gauges, now, bps: u64| {
            let events = viewers.iter().map(|viewer| bandwidth(*viewer, bps));
            events.filter(|event| !gauges.defers(now, 1, event)).count()
        };
        assert_eq!(told_at_once(&mut gauges, start, 1), ROOM_GAUGES_PER_SECOND_MAX);
        assert_eq!(told_at_once(&mut gauges, start, 2), 0);
        assert_eq!(gauges.take(start, 1), None, "not in this second");
        assert_eq!(gauges.newest.len(), viewers.len(), "one of each waits");
        let mut told = Vec::new();
        for second in 1..=3 {
            let now = start + second * SECOND;
            told.extend(std::iter::from_fn(|| gauges.take(now, 1)));
            assert_eq!(told.len(), ROOM_GAUGES_PER_SECOND_MAX * second as usize);
        }
        assert!(!gauges.is_waiting());
        let (late, early) = viewers.split_at(ROOM_GAUGES_PER_SECOND_MAX);
        let expected = early.iter().chain(late);
        let expected: Vec<_> =
            expected.map(|viewer| (GaugeOf::Transport(*viewer), bandwidth(*viewer, 2))).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn the_more_read_the_fewer_are_told_and_other_events_never_wait() {
        let now = test_instant();
        for (readers, expected) in [
            (0, ROOM_GAUGES_PER_SECOND_MAX),
            (1000, ROOM_GAUGE_DELIVERIES_PER_SECOND_MAX / 1000),
            (1_000_000, 1),
        ] {
            let mut gauges = Gauges::default();
            let told = (0..100)
                .filter(|_| !gauges.defers(now, readers, &bandwidth(TransportId::random(), 1)));
            assert_eq!(told.count(), expected, "{readers}");
            assert!(!gauges.defers(now, readers, &RoomEvent::RoomClosed { reason: "deleted" }));
        }
    }
}
