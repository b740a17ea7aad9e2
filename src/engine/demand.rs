//! Which layers of a producer anybody wants, so that its application may switch off those that
//! nobody does.
//!
//! What is wanted is what consumers *prefer*, not what they get: one that takes the lowest encoding
//! because its link is bad must find the others when it is better. So an encoding is wanted while
//! an unpaused consumer prefers it or a higher one (it may have to go down to it), or is fed with it.
//! Mirrors tell their consumers' preference with their demand; the origin's shard adds up.
//!
//! Owned by a producer of video, on its origin's shard, looked at once a turn when something that
//! matters changed. More is told at once, less when it lasted [`DEMAND_LINGER`]: layers are not
//! switched off and on again with everyone who comes and goes.
//!
//! A producer begins as wanted with all it has, and its application sends all of it; the first news
//! of one without consumers comes after [`DEMAND_LINGER`].
//!
//! An application that was told less waits to be told more, so this news must not be lost: when the
//! control thread missed events, every producer of which something was told is told again.

use std::cmp::Ordering;
use std::time::Instant;

use crate::control::command::{Event, Layers};
use crate::engine::producer::Producer;
use crate::engine::{Engine, ProducerKey, TimerKey};
use crate::limits::{DEMAND_LINGER, EVENTS_QUEUED_MAX};
use crate::ortc::scalability::Scalability;

impl Layers {
    /// All that an encoding has.
    fn all(of: Scalability) -> Self {
        Self { spatial: of.spatial.saturating_sub(1), temporal: of.temporal.saturating_sub(1) }
    }

    /// No more than the encoding has.
    fn at_most(self, all: Self) -> Self {
        Self { spatial: self.spatial.min(all.spatial), temporal: self.temporal.min(all.temporal) }
    }

    /// What satisfies both.
    fn with(self, other: Self) -> Self {
        Self {
            spatial: self.spatial.max(other.spatial),
            temporal: self.temporal.max(other.temporal),
        }
    }
}

/// What satisfies both; `None` is nobody.
fn both(one: Option<Layers>, other: Option<Layers>) -> Option<Layers> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.with(other)),
        (one, other) => one.or(other),
    }
}

/// What the encodings of a producer are wanted for when its consumers prefer at most `highest`
/// (spatial, then temporal layer, counted over all encodings) and are fed with the encodings `fed`,
/// a bit each. Who is fed with an encoding above its preference has no other.
fn wanted(encodings: &[Scalability], highest: Option<Layers>, fed: u8) -> Vec<Option<Layers>> {
    let simulcast = encodings.len() > 1;
    let of = |(place, has): (usize, &Scalability)| {
        let all = Layers::all(*has);
        let is_fed = fed.checked_shr(u32::try_from(place).unwrap_or(8)).unwrap_or(0) & 1 == 1;
        let preferred = highest.and_then(|highest| {
            // One above all there are means the highest.
            let top = usize::from(highest.spatial).min(encodings.len() - 1);
            match place.cmp(&top) {
                Ordering::Less => Some(all),
                Ordering::Equal => Some(highest.at_most(all)),
                Ordering::Greater => None,
            }
        });
        both(preferred, (is_fed && simulcast).then_some(all))
    };
    encodings.iter().enumerate().map(of).collect()
}

/// What the application was told of one encoding.
#[derive(Debug, Clone, Copy)]
struct Told {
    wanted: Option<Layers>,
    /// Since when less than that is wanted, and the most that was since.
    less: Option<(Instant, Option<Layers>)>,
}

impl Told {
    /// Compares what is wanted now with what was told; true when there is news.
    fn update(&mut self, now: Instant, current: Option<Layers>) -> bool {
        let before = self.wanted;
        self.wanted = both(before, current);
        if current == self.wanted {
            self.less = None;
        } else {
            let (since, most) = self.less.map_or((now, current), |(at, m)| (at, both(m, current)));
            self.less = Some((since, most));
            if now >= since + DEMAND_LINGER {
                self.wanted = most;
                self.less = (current != most).then_some((now, current));
            }
        }
        self.wanted != before
    }
}

/// What the application of one producer was told.
#[derive(Debug)]
pub struct DemandNews {
    encodings: Vec<(Scalability, Told)>,
    /// Among the producers to be looked at in this turn.
    queued: bool,
    /// Something was told already.
    is_told: bool,
    /// To be told again, news or not: it may have been lost.
    again: bool,
}

impl DemandNews {
    /// Of a producer that sends all of these.
    #[must_use]
    pub fn new(encodings: &[Scalability]) -> Self {
        let told = |of: &Scalability| Told { wanted: Some(Layers::all(*of)), less: None };
        let encodings = encodings.iter().map(|of| (*of, told(of))).collect();
        Self { encodings, queued: false, is_told: false, again: false }
    }

    /// Compares what is wanted now with what was told; true when there is news.
    fn update(&mut self, now: Instant, current: &[Option<Layers>]) -> bool {
        let mut news = false;
        for ((_, told), current) in self.encodings.iter_mut().zip(current) {
            news |= told.update(now, *current);
        }
        news
    }

    /// When time alone brings news.
    fn next_deadline(&self) -> Option<Instant> {
        self.encodings.iter().filter_map(|(_, told)| Some(told.less?.0 + DEMAND_LINGER)).min()
    }

    fn told(&self) -> Vec<Option<Layers>> {
        self.encodings.iter().map(|(_, told)| told.wanted).collect()
    }
}

impl Producer {
    /// Notes that its demand is to be looked at; true the first time.
    pub(super) fn queue_demand(&mut self) -> bool {
        self.demand.as_mut().is_some_and(|news| !std::mem::replace(&mut news.queued, true))
    }
}

impl Engine {
    /// The highest layers that unpaused consumers on this shard prefer, counted over all encodings;
    /// `None` without any.
    pub(super) fn preferred_of(&self, producer: &Producer) -> Option<Layers> {
        let consumers = producer.consumers.iter().filter_map(|key| self.consumers.get(*key));
        consumers
            .filter(|consumer| !consumer.paused)
            .map(|consumer| consumer.preferred_layers())
            .reduce(Layers::with)
    }

    /// The encodings of which somebody on any shard is being fed, or is about to be: a bit each.
    fn fed_encodings(&self, producer: &Producer) -> u8 {
        let tapped = producer.streams.iter().enumerate().filter_map(|(place, key)| {
            let is_tapped = !self.streams.get(*key)?.taps.is_empty();
            1_u8.checked_shl(u32::try_from(place).ok()?).filter(|_| is_tapped)
        });
        tapped.fold(self.demand_of(producer).unwrap_or(0), |all, bit| all | bit)
    }

    /// Tells again what was told of demand, for events were lost.
    pub(super) fn tell_demands_again(&mut self) {
        for (key, producer) in &mut self.producers {
            let Some(news) = producer.demand.as_mut().filter(|news| news.is_told) else { continue };
            news.again = true;
            if producer.queue_demand() {
                self.demands.push(key);
            }
        }
    }

    /// Looks at the demand of producers of which something changed in this turn.
    pub(super) fn settle_demands(&mut self, now: Instant) {
        while let Some(key) = self.demands.pop() {
            self.settle_demand(now, key);
        }
    }

    /// Looks at the demand of one producer, and tells what is new.
    pub(super) fn settle_demand(&mut self, now: Instant, key: ProducerKey) {
        let Some(producer) = self.producers.get(key) else { return };
        let Some(news) = &producer.demand else { return };
        let relayed = producer.relays.iter().filter_map(|relay| relay.preferred());
        let highest = relayed.fold(self.preferred_of(producer), |all, one| both(all, Some(one)));
        let encodings: Vec<_> = news.encodings.iter().map(|(of, _)| *of).collect();
        let current = wanted(&encodings, highest, self.fed_encodings(producer));
        let Some(producer) = self.producers.get_mut(key) else { return };
        let Some(news) = &mut producer.demand else { return };
        news.queued = false;
        let is_new = news.update(now, &current);
        news.is_told |= is_new;
        // What is repeated leaves room for what is new: else it would be lost and repeated for ever.
        let is_crowded = self.events.len() >= EVENTS_QUEUED_MAX / 2;
        let is_due = is_new || (news.again && !is_crowded);
        news.again &= !is_due;
        if news.again {
            self.timers.arm(TimerKey::Demand(key), now + DEMAND_LINGER);
        }
        if let Some(deadline) = news.next_deadline() {
            self.timers.arm(TimerKey::Demand(key), deadline);
        }
        if is_due {
            let event = Event::ProducerDemand { producer: producer.id, encodings: news.told() };
            self.tell(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::test_instant;

    fn layers(spatial: u8, temporal: u8) -> Option<Layers> {
        Some(Layers { spatial, temporal })
    }

    fn modes(modes: &[&str]) -> Vec<Scalability> {
        modes.iter().map(|mode| Scalability::of(mode)).collect()
    }

    #[test]
    fn an_encoding_is_wanted_up_to_the_highest_that_anybody_prefers() {
        let simulcast = modes(&["L1T3", "L1T3", "L1T3"]);
        let svc = modes(&["L3T3"]);
        let single = modes(&["L1T1"]);
        // (encodings, highest preferred, fed, wanted)
        let all = layers(0, 2);
        let table = [
            (&simulcast, None, 0, vec![None, None, None]),
            (&simulcast, layers(0, 1), 0, vec![layers(0, 1), None, None]),
            (&simulcast, layers(1, 0), 0, vec![all, layers(0, 0), None]),
            (&simulcast, layers(2, 2), 0, vec![all, all, all]),
            (&simulcast, layers(255, 255), 0, vec![all, all, all]),
            // Only the highest arrives, and is taken for want of another.
            (&simulcast, layers(0, 2), 0b100, vec![all, None, all]),
            (&svc, None, 0, vec![None]),
            (&svc, layers(1, 0), 0, vec![layers(1, 0)]),
            (&svc, layers(255, 255), 1, vec![layers(2, 2)]),
            (&single, layers(255, 255), 0, vec![layers(0, 0)]),
        ];
        for (encodings, highest, fed, expected) in table {
            let found = wanted(encodings, highest, fed);
            assert_eq!(found, expected, "{encodings:?} {highest:?} {fed:b}");
        }
    }

    #[test]
    fn what_was_wanted_a_moment_ago_is_kept() {
        let t = test_instant();
        let at = |ms| t + Duration::from_millis(ms);
        let mut news = DemandNews::new(&modes(&["L3T3"]));
        assert!(!news.update(at(0), &[layers(1, 1)]));
        assert!(!news.update(at(4_000), &[layers(0, 2)]));
        assert!(news.update(at(5_000), &[layers(0, 0)]));
        assert_eq!(news.told(), [layers(1, 2)]);
        assert!(news.update(at(10_000), &[layers(0, 0)]));
        assert_eq!(news.told(), [layers(0, 0)]);
    }

    #[test]
    fn less_is_told_when_it_lasted_and_more_at_once() {
        let (t, short) = (test_instant(), DEMAND_LINGER / 2);
        let mut news = DemandNews::new(&modes(&["L1T1", "L1T1"]));
        let (low, both, none) = ([layers(0, 0), None], [layers(0, 0), layers(0, 0)], [None, None]);
        assert!(!news.update(t, &both), "as it began");
        assert!(!news.update(t + short, &low));
        assert_eq!(news.next_deadline(), Some(t + short + DEMAND_LINGER));
        assert!(!news.update(t + short * 2, &both), "somebody came back in time");
        assert_eq!(news.next_deadline(), None);
        assert!(!news.update(t + short * 3, &none));
        assert!(!news.update(t + short * 4, &low));
        let end = t + short * 3 + DEMAND_LINGER;
        assert!(news.update(end, &low));
        assert_eq!(news.told(), low);
        assert!(news.update(end + Duration::from_millis(1), &both));
        assert_eq!(news.told(), both);
    }

    proptest! {
        /// Nobody ever waits for what was told to be off; and what nobody wants is off in the end.
        #[test]
        fn what_is_wanted_is_always_among_what_was_told(
            steps in prop::collection::vec(
                (0u64..4000, prop::option::of((0u8..3, 0u8..3))), 1..50),
        ) {
            let mut now = test_instant();
            let mut news = DemandNews::new(&modes(&["L3T3"]));
            for (pause, preferred) in steps {
                now += Duration::from_millis(pause);
                let current = preferred.map(|(s, t)| Layers { spatial: s, temporal: t });
                news.update(now, &[current]);
                let told = news.told()[0];
                prop_assert_eq!(both(told, current), told);
                prop_assert!(news.next_deadline().is_none_or(|at| at > now));
            }
            // What was wanted within the first span may stay for another one.
            for _ in 0..3 {
                news.update(now, &[None]);
                now += DEMAND_LINGER;
            }
            prop_assert_eq!(news.told()[0], None);
            prop_assert_eq!(news.next_deadline(), None);
        }
    }
}
