//! [`Control`]: the handle through which everything on the control thread reaches the rooms.
//!
//! Owns the registry, the room logs, the dispatcher and what the shards last reported. Called by
//! the API's handlers and by whoever empties the shards' lanes, on the control thread. Invariants:
//! the state is looked at by one task at a time and never across an await; commands are put into
//! lanes in the order in which the registry changed; an operation that was begun runs to its end
//! even when its caller is gone.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::addresses::MediaAddresses;
use super::command::Refusal;
use super::counts::ControlCounts;
use super::dispatcher::{Dispatcher, Pending, ShardLink};
use super::drain::{Drain, Drains};
use super::error::ControlError;
use super::guarded::Guarded;
use super::journal;
use super::placement::{self, Load, Presence};
use super::registry::{Close, Effects, NewTransport, Registry};
use crate::engine::report::Report;
use crate::events::outlet::Outlets;
use crate::events::timestamp::WallAnchor;
use crate::events::{GaugeOf, Readers, RoomEvent, RoomLog};
use crate::id::{RoomId, ShardId, TransportId};
use crate::limits::{CLOSE_RETRY_DELAY, Limits, ROOM_STATS_CALLS_MAX};
use crate::metrics::latency::LatencyHistory;
use crate::ortc::types::RtpCapabilities;
use crate::ortc::{Menu, VideoCodec};

/// What the control plane must be told at start.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Where clients reach the media port.
    pub media: MediaAddresses,
    /// The node's wall-clock anchor.
    pub clock: WallAnchor,
    /// Where events go beside their readers.
    pub outlets: Outlets,
    /// How much there may be of everything.
    pub limits: Limits,
    /// Where readers of events are written to.
    pub readers: Handle,
    /// What rooms carry of pictures, the first one first.
    pub video_codecs: Vec<VideoCodec>,
    /// How long rooms may go on during a drain that says nothing else.
    pub drain_timeout: Duration,
}

/// A handle to the control plane; clones share it.
#[derive(Debug, Clone)]
pub struct Control {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) dispatcher: Dispatcher,
    pub(super) media: MediaAddresses,
    pub(super) clock: WallAnchor,
    pub(super) outlets: Outlets,
    pub(super) limits: Limits,
    pub(super) capabilities: Arc<RtpCapabilities>,
    pub(super) state: Guarded<State>,
    pub(super) started: Instant,
    pub(super) readers: Arc<Readers>,
    /// Of the calls to shards that rooms' statistics take.
    pub(super) stats_turns: Semaphore,
    pub(super) drains: Drains,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) registry: Registry,
    pub(super) logs: HashMap<RoomId, RoomLog>,
    /// Rooms in whose logs events wait, because there are many.
    pub(super) crowded: HashSet<RoomId>,
    /// Of the log that began last.
    pub(super) last_epoch: u64,
    pub(super) shards: Vec<ShardState>,
    pub(super) counts: ControlCounts,
    pub(super) stopping: bool,
    /// The drain that is on.
    pub(super) drain: Option<Drain>,
    /// A task watches over it.
    pub(super) drain_watched: bool,
}

impl State {
    /// How loaded each shard is, in order of their ids.
    fn loads(&self) -> impl Iterator<Item = (ShardId, Load)> {
        (0..=u16::MAX).map(ShardId).zip(&self.shards).map(|(id, shard)| {
            let census = self.registry.census(id);
            let load = Load {
                rooms: census.rooms,
                transports: census.transports,
                busy: shard.report.as_ref().map_or(0.0, |(_, report)| report.busy),
                rooms_since_report: shard.rooms_since_report,
                transports_since_report: shard.transports_since_report,
            };
            (id, load)
        })
    }

    /// The shard that a new room starts on.
    pub(super) fn place_room(&mut self) -> Result<ShardId, ControlError> {
        let loads: Vec<Load> = self.loads().map(|(_, load)| load).collect();
        let shard = placement::least_loaded(&loads).ok_or(ControlError::Overloaded)?;
        if let Some(chosen) = self.shards.get_mut(shard.index()) {
            chosen.rooms_since_report += 1;
        }
        Ok(shard)
    }

    /// Reserves a peer's next transport on the shard that is best for it.
    pub(super) fn place_transport(
        &mut self,
        id: TransportId,
        new: NewTransport,
    ) -> Result<ShardId, ControlError> {
        let room = self.registry.room(&new.room)?;
        let presence = |shard| Presence {
            transports: room.transports_on(shard),
            is_home: shard == room.shard,
        };
        let shards: Vec<(Load, Presence)> =
            self.loads().map(|(id, load)| (load, presence(id))).collect();
        let shard = placement::shard_for(&shards).ok_or(ControlError::Overloaded)?;
        self.registry.reserve_transport(id, new, shard)?;
        if let Some(chosen) = self.shards.get_mut(shard.index()) {
            chosen.transports_since_report += 1;
        }
        Ok(shard)
    }
}

/// What a shard last said about itself.
#[derive(Debug, Clone, Default)]
pub(super) struct ShardState {
    pub(super) report: Option<(Instant, Box<Report>)>,
    /// Of what it forwarded, in all its reports.
    pub(super) latency: LatencyHistory,
    pub(super) rooms_since_report: usize,
    pub(super) transports_since_report: usize,
    /// It told of lost events and could not be asked what is alive; that is tried again.
    pub(super) inventory_due: bool,
}

/// The control plane's clock: monotonic, and virtual where tokio's time is paused.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Control {
    /// Starts the control plane over one link per shard, with its housekeeping task. Must be called
    /// inside a tokio runtime. What the shards say is handed to
    /// [`handle_from_shard`](Self::handle_from_shard).
    ///
    /// # Errors
    /// [`ControlError::Unsupported`] when the room codecs contradict each other.
    pub fn start(
        links: Vec<Box<dyn ShardLink>>,
        config: ControlConfig,
    ) -> Result<Self, ControlError> {
        let menu = Menu::EXTENDED;
        let capabilities = menu
            .router_capabilities(&menu.media_codecs_with(&config.video_codecs))
            .map_err(|error| ControlError::Unsupported(error.to_string()))?;
        let shards = vec![ShardState::default(); links.len()];
        let control = Self {
            inner: Arc::new(Inner {
                dispatcher: Dispatcher::new(links),
                media: config.media,
                clock: config.clock,
                outlets: config.outlets,
                capabilities: Arc::new(capabilities),
                state: Guarded::new(State {
                    registry: Registry::new(config.limits.clone()),
                    shards,
                    ..State::default()
                }),
                limits: config.limits,
                started: now(),
                readers: Arc::new(Readers::new(config.readers)),
                stats_turns: Semaphore::new(ROOM_STATS_CALLS_MAX),
                drains: Drains::new(config.drain_timeout),
            }),
        };
        control.keep_house();
        Ok(control)
    }

    /// Refuses everything from now on, and forgets calls under way: the shards are stopping.
    pub fn stop(&self) {
        self.end_event_streams();
        self.inner.dispatcher.close();
    }

    /// Ends the event streams, and lets no new one begin nor a room be made.
    pub fn end_event_streams(&self) {
        self.inner.state.with(|state| {
            state.stopping = true;
            state.logs.values_mut().for_each(RoomLog::disconnect_readers);
        });
    }

    /// Where readers of events are written to: behind whoever calls.
    #[must_use]
    pub fn readers_runtime(&self) -> Handle {
        self.inner.readers.runtime().clone()
    }

    /// How long the control plane has been running.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        now().saturating_duration_since(self.inner.started)
    }

    /// Logs what happened and puts the closes into their lanes, all before anything else can
    /// change the registry.
    pub(super) fn settle(&self, state: &mut State, effects: Effects) -> Closing {
        let now = now();
        for happening in &effects.events {
            journal::note(happening);
            state.counts.note(&happening.event);
            let room = &happening.room;
            let epochs = &mut state.last_epoch;
            let log = state.logs.entry(room.clone()).or_insert_with(|| {
                // Two rooms may begin in one millisecond.
                *epochs = self.inner.clock.unix_ms(now).max(*epochs + 1);
                RoomLog::new(room.clone(), *epochs)
            });
            if log.defers(now, &happening.event) {
                state.crowded.insert(room.clone());
                continue;
            }
            let entry = log.append(now, self.inner.clock, &happening.event);
            self.inner.outlets.offer(room, &entry, &happening.event, log.last_to_leave());
            if matches!(happening.event, RoomEvent::RoomClosed { .. }) {
                state.logs.remove(room);
                if state.drain.is_some() {
                    self.inner.drains.room_ended();
                }
            }
        }
        let closes = effects
            .closes
            .into_iter()
            .map(|(shard, close)| (shard, close, self.inner.dispatcher.submit(shard, close.into())))
            .collect();
        Closing { inner: Arc::clone(&self.inner), closes }
    }

    /// Logs what had to wait because there was much of it, as far as that is time now; what it tells
    /// of may have ended in between. Called as often as shards report.
    pub(super) fn tell_deferred(&self, state: &mut State) {
        let now = now();
        let State { registry, logs, crowded, .. } = state;
        crowded.retain(|room| {
            let Some(log) = logs.get_mut(room) else { return false };
            while let Some((of, event)) = log.take_deferred(now) {
                let is_there = match of {
                    GaugeOf::Transport(id) => registry.transport(id).is_ok(),
                    GaugeOf::Consumer(id) => registry.consumer(id).is_ok(),
                };
                if is_there {
                    let entry = log.append(now, self.inner.clock, &event);
                    self.inner.outlets.offer(room, &entry, &event, log.last_to_leave());
                }
            }
            log.has_deferred()
        });
    }
}

impl Control {
    /// What a shard was asked to make, and refused or did not answer: one that did not answer may
    /// still make it.
    pub(super) fn give_up(
        &self,
        state: &mut State,
        refusal: Refusal,
        (shard, close): (ShardId, Close),
    ) -> ControlError {
        if refusal == Refusal::NoAnswer {
            let closes = vec![(shard, close)];
            self.settle(state, Effects { closes, ..Effects::default() }).finish_later();
        }
        refusal.into()
    }
}

/// Closes on their way to shards.
#[must_use = "a close that found its lane full must be tried again"]
pub(super) struct Closing {
    inner: Arc<Inner>,
    closes: Vec<(ShardId, Close, Pending)>,
}

impl Closing {
    /// Waits until the shards have closed what they were told to. What found a full lane is tried
    /// again in the background, and not waited for.
    pub(super) async fn finish(self) {
        for (shard, close, pending) in self.closes {
            if matches!(pending.answer().await, Err(Refusal::Overloaded)) {
                let inner = Arc::clone(&self.inner);
                tokio::spawn(async move { close_at_last(&inner, shard, close).await });
            }
        }
    }

    /// Sees to it in the background.
    pub(super) fn finish_later(self) {
        if !self.closes.is_empty() {
            tokio::spawn(self.finish());
        }
    }
}

/// Tries until the lane has room. Such tasks are as many as there were objects to close, which is
/// bounded; they end with the dispatcher.
async fn close_at_last(inner: &Inner, shard: ShardId, close: Close) {
    while !inner.dispatcher.is_closed() {
        tokio::time::sleep(CLOSE_RETRY_DELAY).await;
        let answer = inner.dispatcher.call(shard, close.into()).await;
        if !matches!(answer, Err(Refusal::Overloaded)) {
            return;
        }
    }
}

/// Runs an operation to its end even when the caller goes away in the middle of it.
pub(super) async fn whole<T: Send + 'static>(
    operation: impl Future<Output = Result<T, ControlError>> + Send + 'static,
) -> Result<T, ControlError> {
    // The task is never aborted: it fails only when the runtime stops or by a bug of ours.
    tokio::spawn(operation).await.unwrap_or(Err(ControlError::Overloaded))
}
