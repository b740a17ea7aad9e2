//! What the control plane counts of rooms since its start, for metrics: what happened, how far
//! clients came that joined, and how long that took.
//!
//! Owned by [`Control`](super::Control)'s state, written where things happen, handed over by value.
//! Labels are words of this program: as many as there are kinds of events, reasons and stages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::command::CloseReason;
use crate::events::RoomEvent;
use crate::metrics::buckets::{Buckets, JoinStage};

/// A step of joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// A transport is asked for, and its shard makes it.
    Transport,
    /// The client reaches it: until the first verified STUN request.
    Ice,
    /// Then the DTLS handshake, until keys are there.
    Dtls,
    /// A producer's first packet, since both were there: it and its transport's keys.
    FirstPacket,
}

impl Stage {
    /// All stages, in their order.
    pub const ALL: [Self; 4] = [Self::Transport, Self::Ice, Self::Dtls, Self::FirstPacket];

    /// The label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Transport => "transport",
            Self::Ice => "ice",
            Self::Dtls => "dtls",
            Self::FirstPacket => "first_packet",
        }
    }
}

/// Counted since the start; nothing here ever falls.
#[derive(Debug, Clone)]
pub struct ControlCounts {
    stages: [Buckets<JoinStage>; Stage::ALL.len()],
    failures: [u64; Stage::ALL.len()],
    /// Events of all rooms, by name.
    events: BTreeMap<&'static str, u64>,
    /// Transports closed, by reason.
    closed: BTreeMap<&'static str, u64>,
}

impl Default for ControlCounts {
    fn default() -> Self {
        // What operators watch is told before it first happens: a rate needs a beginning.
        let events = ["room-created", "room-closed", "peer-joined", "peer-left", "producer-added"];
        let reasons = CloseReason::ALL.iter().map(|reason| reason.label());
        Self {
            stages: Default::default(),
            failures: Default::default(),
            events: events.into_iter().map(|event| (event, 0)).collect(),
            closed: reasons
                .chain(["closed", "lost", "peer_left"])
                .map(|reason| (reason, 0))
                .collect(),
        }
    }
}

impl ControlCounts {
    /// A client has passed a stage of joining, which it began at `since`.
    pub fn pass(&mut self, stage: Stage, since: Instant, now: Instant) {
        let took = now.saturating_duration_since(since);
        if let Some(buckets) = self.stages.get_mut(stage as usize) {
            buckets.record(micros(took));
        }
    }

    /// A client's joining has ended in a stage.
    pub fn fail(&mut self, stage: Stage) {
        if let Some(count) = self.failures.get_mut(stage as usize) {
            *count += 1;
        }
    }

    /// Something happened in a room.
    pub fn note(&mut self, event: &RoomEvent) {
        *self.events.entry(event.name()).or_default() += 1;
        if let RoomEvent::TransportClosed { reason, .. } = event {
            *self.closed.entry(*reason).or_default() += 1;
        }
    }

    /// How long each stage took those who passed it.
    pub fn stages(&self) -> impl Iterator<Item = (Stage, &Buckets<JoinStage>)> {
        Stage::ALL.into_iter().zip(&self.stages)
    }

    /// How many got no further than each stage.
    pub fn failures(&self) -> impl Iterator<Item = (Stage, u64)> {
        Stage::ALL.into_iter().zip(self.failures)
    }

    /// Events of all rooms, by name.
    pub fn events(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.events.iter().map(|(event, count)| (*event, *count))
    }

    /// Transports closed, by reason.
    pub fn closed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.closed.iter().map(|(reason, count)| (*reason, *count))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
