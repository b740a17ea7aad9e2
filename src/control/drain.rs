//! Draining: the node makes no new rooms, and those it has go on until they end or a deadline.
//!
//! Owned by [`Control`]. Begun by the first SIGTERM and by operators, who may call theirs off; one
//! task watches a drain and ends with it. Invariants: while a drain is on, no room is made, and
//! everything in the rooms that there are stays possible, joining them included; a room that the
//! drain ends is told to its readers and outlets as `room-closed` for `draining`. It ends no
//! process: who runs the server waits for [`Control::drained`].

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{Notify, watch};
use tracing::info;
use utoipa::ToSchema;

use super::error::ControlError;
use super::registry::{Effects, Totals};
use super::service::{Closing, Control, Inner, State, now};
use crate::id::RoomId;
use crate::limits::{
    DRAIN_CLOSES_PER_TURN, DRAIN_LOG_PERIOD, ROOMS_STOP_PACE, ROOMS_STOP_WAIT_MAX,
};

/// Why the rooms end that a drain ends.
const REASON: &str = "draining";

/// Why those end that are left when the process ends at once.
const STOPPING: &str = "stopping";

/// What follows a drain; each asks for more than the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum After {
    /// The node stays, without rooms, until it is told more.
    #[default]
    Stay,
    /// The process ends.
    Exit,
    /// The process ends, and nobody may call it off: whoever supervises it waits for that.
    Stop,
}

/// A drain as it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainRequest {
    /// How long rooms may go on, from the begin of the drain; `None`: as the drain under way has
    /// it, else as configured.
    pub deadline: Option<Duration>,
    /// What follows; a drain under way keeps what it had if that is more.
    pub after: After,
}

/// What the node does about calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// New ones begin.
    Serving,
    /// No new ones begin; those there are go on.
    Draining,
    /// All end.
    Stopping,
}

/// How far a drain is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainView {
    /// What the node does about calls.
    pub state: Phase,
    /// When the drain began, ISO 8601.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When rooms that are left are closed, ISO 8601.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// How long that is, 0 once it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// The process ends with the drain.
    pub exits: bool,
    /// A signal asked for it, and it is not called off.
    pub signalled: bool,
    /// Rooms left.
    pub rooms: usize,
    /// Peers left.
    pub peers: usize,
}

/// A drain that is on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    since: Instant,
    deadline: Instant,
    after: After,
    /// What the log was told last, and when.
    told: (Totals, Instant),
    /// Once it ends rooms: for how long these wait for outlets.
    outlets_until: Option<Instant>,
}

/// What a drain's task waits for, and who waits for the drain.
#[derive(Debug)]
pub(super) struct Drains {
    /// Rooms may go on for this long unless something else is said.
    timeout: Duration,
    /// A room has ended, or the drain is another one.
    changed: Arc<Notify>,
    /// The drain is over, and the process is to end.
    over: watch::Sender<bool>,
}

impl Drains {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, changed: Arc::default(), over: watch::Sender::new(false) }
    }

    /// A room has ended during a drain.
    pub(super) fn room_ended(&self) {
        self.changed.notify_one();
    }
}

/// What a drain's task does next.
enum Next {
    /// It ends: there is no drain.
    End,
    /// Nothing before a change, or this moment.
    Wait(Option<Instant>),
    /// It sees to these closes, lets outlets catch up until then at the latest, and goes on.
    Close(Closing, Instant),
}

impl Control {
    /// Begins a drain, or changes the one that is on; answers how far it is. Rooms that nobody has
    /// joined end at once: their calls had better begin on another node.
    pub fn drain(&self, request: DrainRequest) -> DrainView {
        let (view, closing) = self.inner.state.with(|state| {
            let now = now();
            let effects = self.begin_or_change_drain(state, request, now);
            let closing = self.settle(state, effects);
            if !state.drain_watched {
                state.drain_watched = true;
                self.watch_drain();
            }
            (self.drain_view(state, now), closing)
        });
        closing.finish_later();
        self.inner.drains.changed.notify_one();
        view
    }

    fn begin_or_change_drain(
        &self,
        state: &mut State,
        request: DrainRequest,
        now: Instant,
    ) -> Effects {
        let totals = state.registry.totals();
        if let Some(drain) = &mut state.drain {
            let before = (drain.deadline, drain.after);
            drain.after = drain.after.max(request.after);
            if let Some(deadline) = request.deadline {
                drain.deadline = drain.since + deadline;
            }
            if before != (drain.deadline, drain.after) {
                let deadline = self.inner.clock.iso(drain.deadline);
                let exits = drain.after > After::Stay;
                info!(%deadline, exits, rooms = totals.rooms, "drain changed");
            }
            return Effects::default();
        }
        let deadline = now + request.deadline.unwrap_or(self.inner.drains.timeout);
        let after = request.after;
        let told = (totals, now);
        state.drain = Some(Drain { since: now, deadline, after, told, outlets_until: None });
        info!(
            deadline = %self.inner.clock.iso(deadline), exits = after > After::Stay,
            rooms = totals.rooms, peers = totals.peers, "draining: no new rooms"
        );
        let mut effects = Effects::default();
        let unused = state.registry.rooms().filter(|(_, room)| room.peers.is_empty());
        let unused: Vec<RoomId> = unused.map(|(id, _)| id.clone()).collect();
        for room in unused {
            effects.append(state.registry.close_room(&room, REASON).unwrap_or_default());
        }
        effects
    }

    /// Calls the drain off, if one is on: new rooms are made again.
    ///
    /// # Errors
    /// [`ControlError::Ending`] when the process is to end for good.
    pub fn cancel_drain(&self) -> Result<DrainView, ControlError> {
        let view = self.inner.state.with(|state| {
            if state.stopping || state.drain.is_some_and(|drain| drain.after == After::Stop) {
                return Err(ControlError::Ending);
            }
            if state.drain.take().is_some() {
                info!(rooms = state.registry.totals().rooms, "drain called off: rooms are made");
            }
            Ok(self.drain_view(state, now()))
        });
        self.inner.drains.changed.notify_one();
        view
    }

    pub(super) fn drain_view(&self, state: &State, now: Instant) -> DrainView {
        let totals = state.registry.totals();
        let drain = state.drain.as_ref();
        let phase = if state.stopping {
            Phase::Stopping
        } else if drain.is_some() {
            Phase::Draining
        } else {
            Phase::Serving
        };
        let clock = self.inner.clock;
        DrainView {
            state: phase,
            since: drain.map(|drain| clock.iso(drain.since)),
            deadline: drain.map(|drain| clock.iso(drain.deadline)),
            seconds_left: drain
                .map(|drain| drain.deadline.saturating_duration_since(now).as_secs()),
            exits: state.stopping || drain.is_some_and(|drain| drain.after > After::Stay),
            signalled: drain.is_some_and(|drain| drain.after == After::Stop),
            rooms: totals.rooms,
            peers: totals.peers,
        }
    }

    /// Completes once a drain is over that the process is to end with.
    pub async fn drained(&self) {
        // The sender lives as long as this handle.
        let _ = self.inner.drains.over.subscribe().wait_for(|over| *over).await;
    }

    /// Ends all rooms because the process ends, so that readers and outlets hear of it; none is made
    /// from now on. Waits for the shards, which tell clients, for as long as `patience`, and for
    /// outlets that are behind for [`ROOMS_STOP_WAIT_MAX`]; then only for readers to have their turn.
    pub async fn end_rooms(&self, patience: Duration) {
        let until = tokio::time::Instant::now() + patience;
        let outlets_until = now() + ROOMS_STOP_WAIT_MAX;
        loop {
            let closing = self.inner.state.with(|state| {
                state.stopping = true;
                let effects = close_some(state, STOPPING);
                effects.map(|effects| self.settle(state, effects))
            });
            let Some(closing) = closing else { return };
            // What the shards did not answer in time ends with them.
            let _ = tokio::time::timeout_at(until, closing.finish()).await;
            tokio::time::sleep(ROOMS_STOP_PACE).await;
            self.let_outlets_catch_up(outlets_until).await;
        }
    }

    /// Waits while an outlet is behind, so that it refuses none of the events that follow.
    async fn let_outlets_catch_up(&self, until: Instant) {
        while self.inner.outlets.are_behind() && now() < until {
            tokio::time::sleep(ROOMS_STOP_PACE).await;
        }
    }

    /// Sees the drain through; the task ends with it, or with the last handle.
    fn watch_drain(&self) {
        let weak = Arc::downgrade(&self.inner);
        let changed = Arc::clone(&self.inner.drains.changed);
        tokio::spawn(async move {
            loop {
                let Some(inner) = Weak::<Inner>::upgrade(&weak) else { return };
                match (Self { inner }).drain_on() {
                    Next::End => return,
                    Next::Close(closing, outlets_until) => {
                        closing.finish().await;
                        let Some(inner) = Weak::<Inner>::upgrade(&weak) else { return };
                        (Self { inner }).let_outlets_catch_up(outlets_until).await;
                    }
                    Next::Wait(None) => changed.notified().await,
                    Next::Wait(Some(until)) => tokio::select! {
                        () = changed.notified() => {}
                        () = tokio::time::sleep_until(until.into()) => {}
                    },
                }
            }
        });
    }

    /// One step of a drain.
    fn drain_on(&self) -> Next {
        let now = now();
        self.inner.state.with(|state| {
            let totals = state.registry.totals();
            let Some(drain) = state.drain.as_mut().filter(|_| !state.stopping) else {
                state.drain_watched = false;
                return Next::End;
            };
            let (told, at) = drain.told;
            let log_at = at + DRAIN_LOG_PERIOD;
            if totals != told && (totals.rooms == 0 || now >= log_at) {
                info!(rooms = totals.rooms, peers = totals.peers, "draining: rooms left");
                drain.told = (totals, now);
            }
            if totals.rooms == 0 {
                if drain.after > After::Stay {
                    state.stopping = true;
                    self.inner.drains.over.send_replace(true);
                }
                return Next::Wait(None);
            }
            if now < drain.deadline {
                let log_at = if log_at > now { log_at } else { now + DRAIN_LOG_PERIOD };
                return Next::Wait(Some(drain.deadline.min(log_at)));
            }
            let outlets_until = *drain.outlets_until.get_or_insert(now + ROOMS_STOP_WAIT_MAX);
            let effects = close_some(state, REASON).unwrap_or_default();
            Next::Close(self.settle(state, effects), outlets_until)
        })
    }
}

/// Closes as many rooms as may be closed together; `None` when there is none.
fn close_some(state: &mut State, reason: &'static str) -> Option<Effects> {
    let rooms = state.registry.rooms().take(DRAIN_CLOSES_PER_TURN);
    let rooms: Vec<RoomId> = rooms.map(|(id, _)| id.clone()).collect();
    let mut effects = Effects::default();
    for room in &rooms {
        effects.append(state.registry.close_room(room, reason).unwrap_or_default());
    }
    (!rooms.is_empty()).then_some(effects)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::control::addresses::MediaAddresses;
    use crate::control::dispatcher::tests::Mute;
    use crate::control::service::ControlConfig;
    use crate::events::outlet::{OutletCounts, tests::played};
    use crate::events::timestamp::WallAnchor;
    use crate::limits::{Limits, OUTLET_QUEUE};

    #[tokio::test(start_paused = true)]
    async fn rooms_that_end_wait_for_an_outlet_and_none_of_their_events_is_refused() {
        let (outlets, intake) = played();
        let counts = outlets.views().remove(0).counts;
        let media = MediaAddresses { addresses: Vec::new(), port: 1, udp: true, tcp: false };
        let clock = WallAnchor { wall: SystemTime::UNIX_EPOCH, at: now() };
        let config = ControlConfig {
            media,
            clock,
            outlets,
            limits: Limits::default(),
            readers: tokio::runtime::Handle::current(),
            drain_timeout: Duration::ZERO,
            video_codecs: Vec::new(),
        };
        let control = Control::start(vec![Box::new(Mute)], config).unwrap();
        let rooms = OUTLET_QUEUE + OUTLET_QUEUE / 4;
        for number in 0..rooms {
            let room = RoomId::try_from(format!("room-{number}").as_str()).unwrap();
            control.create_room(&room, None).unwrap();
            assert_eq!(intake.discard(), 1);
        }
        // Its receiver takes 3 s over one request.
        let takes = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let mut taken = 0;
            while taken < rooms {
                taken += intake.discard();
                tokio::time::sleep(ROOMS_STOP_PACE).await;
            }
        };
        let begun = now();
        tokio::join!(control.end_rooms(Duration::from_millis(500)), takes);
        assert_eq!(OutletCounts::of(&counts.refused), 0);
        assert!(now() - begun < ROOMS_STOP_WAIT_MAX);
    }
}
