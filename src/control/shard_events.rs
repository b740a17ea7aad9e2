//! What shards tell without being asked: transports' states, closes, lost events, reports.

use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::time::Instant;

use super::command::{CloseReason, DtlsState, Event, FromShard, IceState, Inventory};
use super::command::{Command, Refusal, Reply};
use super::counts::{ControlCounts, Stage};
use super::registry::{Close, Effects, Registry, Transport};
use super::service::{Control, State, now};
use crate::engine::voice::LevelWindow;
use crate::events::{RoomEvent, RoomLog};
use crate::id::{ProducerId, ShardId, TransportId};
use crate::limits::CLOSE_RETRY_DELAY;

impl Control {
    /// Takes in one message of a shard. Call it on the control thread, in the lane's order.
    pub fn handle_from_shard(&self, shard: ShardId, message: FromShard) {
        match message {
            FromShard::Answer(call, answer) => self.inner.dispatcher.handle_answer(call, answer),
            FromShard::Event(event) => self.handle_event(shard, event),
            FromShard::Report(mut report) => self.inner.state.with(|state| {
                if let Some(shard) = state.shards.get_mut(shard.index()) {
                    let latency = std::mem::take(&mut report.latency);
                    shard.latency.add(now(), latency);
                    shard.report = Some((now(), report));
                    shard.rooms_since_report = 0;
                    shard.transports_since_report = 0;
                }
                self.tell_deferred(state);
            }),
        }
    }

    fn handle_event(&self, shard: ShardId, event: Event) {
        let closing = self.inner.state.with(|state| {
            let effects = match event {
                Event::IceState { transport, state: ice, remote, tcp } => {
                    let remote = remote.map(|address| (address, tcp));
                    ice_state(state, transport, ice, remote)
                }
                Event::DtlsState { transport, state: dtls, cipher } => {
                    dtls_state(state, transport, dtls, cipher)
                }
                Event::TransportClosed { transport, reason } => {
                    let mut effects = transport_closed(state, transport, reason);
                    // The shard knows; those that mirror its producers do not.
                    effects.closes.retain(|(told, _)| *told != shard);
                    effects
                }
                Event::ProducerStarted { producer } => {
                    tracing::debug!(producer.id = %producer, shard.id = %shard, "first packet");
                    note_first_packet(state, shard, producer);
                    Effects::default()
                }
                Event::AudioLevels(levels) => audio_levels(state, &levels),
                Event::ProducerDemand { producer, encodings } => {
                    state.registry.note_demand(producer, encodings)
                }
                Event::ProducerScore { producer, scores } => {
                    state.registry.note_producer_scores(producer, scores)
                }
                Event::ConsumerScore { consumer, score } => {
                    state.registry.note_consumer_score(consumer, score)
                }
                Event::ConsumerLayers { consumer, layers } => {
                    state.registry.note_consumer_layers(consumer, layers)
                }
                Event::Bandwidth { transport, estimate_bps } => {
                    bandwidth(state, transport, estimate_bps)
                }
                Event::Lost(count) => {
                    tracing::warn!(shard.id = %shard, count, "events lost, reconciling");
                    self.reconcile(shard, state);
                    Effects::default()
                }
            };
            self.settle(state, effects)
        });
        closing.finish_later();
    }

    /// Asks the shard what is alive, and closes here what it no longer has, and there what is not
    /// known here. A shard that cannot be asked now is asked later.
    fn reconcile(&self, shard: ShardId, state: &State) {
        if state.shards.get(shard.index()).is_some_and(|shard| shard.inventory_due) {
            // It is asked after this, and so knows of what was lost now.
            return;
        }
        // Taken together with the request: what becomes ready later is not in the answer.
        let expected = state.registry.ready_on(shard);
        let inventory = self.inner.dispatcher.submit(shard, Command::Inventory);
        let control = self.clone();
        tokio::spawn(async move {
            match inventory.answer().await {
                Ok(Reply::Inventory(inventory)) => control.compare(shard, &expected, &inventory),
                Err(Refusal::Overloaded | Refusal::NoAnswer) => {
                    control.reconcile_later(shard).await;
                }
                other => tracing::warn!(shard.id = %shard, ?other, "no inventory"),
            }
        });
    }

    /// Asks again when the lane may have room; one wait per shard, however often it told of losses.
    async fn reconcile_later(&self, shard: ShardId) {
        let due = |state: &mut State, due: bool| {
            let shard = state.shards.get_mut(shard.index());
            shard.is_some_and(|shard| std::mem::replace(&mut shard.inventory_due, due))
        };
        let waits = self.inner.state.with(|state| due(state, true));
        if waits || self.inner.dispatcher.is_closed() {
            return;
        }
        tokio::time::sleep(CLOSE_RETRY_DELAY).await;
        self.inner.state.with(|state| {
            due(state, false);
            self.reconcile(shard, state);
        });
    }

    fn compare(&self, shard: ShardId, expected: &Inventory, found: &Inventory) {
        let closing = self.inner.state.with(|state| {
            let registry = &mut state.registry;
            let mut effects = Effects::default();
            for id in missing(&expected.transports, &found.transports) {
                effects.append(lose_transport(registry, id, "lost"));
            }
            for id in missing(&expected.producers, &found.producers) {
                effects.append(registry.close_producer(id, "lost").unwrap_or_default());
            }
            for id in missing(&expected.consumers, &found.consumers) {
                effects.append(registry.close_consumer(id, "lost").unwrap_or_default());
            }
            let closes = &mut effects.closes;
            let stray = |known: bool, close| (!known).then_some((shard, close));
            closes.extend(found.transports.iter().filter_map(|id| {
                stray(registry.any_transport(*id).is_some(), Close::Transport(*id))
            }));
            closes.extend(
                found
                    .producers
                    .iter()
                    .filter_map(|id| stray(registry.knows_producer(*id), Close::Producer(*id))),
            );
            closes.extend(
                found
                    .consumers
                    .iter()
                    .filter_map(|id| stray(registry.knows_consumer(*id), Close::Consumer(*id))),
            );
            self.settle(state, effects)
        });
        closing.finish_later();
    }
}

fn audio_levels(state: &mut State, levels: &[(ProducerId, LevelWindow)]) -> Effects {
    let now = now();
    let mut rooms = BTreeSet::new();
    for (producer, window) in levels {
        rooms.extend(state.registry.hear(now, *producer, window));
    }
    let mut effects = Effects::default();
    for room in &rooms {
        let is_followed = state.logs.get(room).is_some_and(RoomLog::has_readers);
        effects.append(state.registry.tell_speakers(now, room, is_followed));
    }
    effects
}

/// Members of `expected` that are not in `found`.
fn missing<T: Copy + Eq + Hash>(expected: &[T], found: &[T]) -> Vec<T> {
    let found: HashSet<T> = found.iter().copied().collect();
    expected.iter().copied().filter(|id| !found.contains(id)).collect()
}

fn ice_state(
    state: &mut State,
    id: TransportId,
    ice: IceState,
    remote: Option<(std::net::SocketAddr, bool)>,
) -> Effects {
    let Some(transport) = state.registry.transport_mut(id) else {
        return Effects::default();
    };
    if remote.is_some() && transport.remote.is_some() && transport.remote != remote {
        tracing::info!(
            room.id = %transport.room, peer.id = %transport.peer, transport.id = %id,
            shard.id = %transport.shard, remote = ?remote, "transport changed its address"
        );
    }
    transport.remote = remote.or(transport.remote);
    let before = std::mem::replace(&mut transport.ice, ice);
    if before == ice {
        return Effects::default();
    }
    if before == IceState::New && ice != IceState::Disconnected {
        pass(&mut state.counts, Stage::Ice, &mut transport.since);
    }
    let event =
        RoomEvent::TransportIceState { transport: id, peer: transport.peer.clone(), state: ice };
    Effects::event(&transport.room, transport.shard, event)
}

/// The client has passed a stage; the next one begins.
fn pass(counts: &mut ControlCounts, stage: Stage, since: &mut Option<Instant>) {
    let now = now();
    counts.pass(stage, since.replace(now).unwrap_or(now), now);
}

/// Of the shard that the producer lives on; those that mirror it tell of their own.
fn note_first_packet(state: &mut State, shard: ShardId, id: ProducerId) {
    let Some(producer) = state.registry.producer_mut(id).filter(|it| it.shard == shard) else {
        return;
    };
    if std::mem::replace(&mut producer.heard, true) {
        return;
    }
    let (made_at, transport) = (producer.made_at, producer.transport);
    let keyed_at = state.registry.any_transport(transport).and_then(|it| it.since);
    // A packet may be quicker than the answer that its producer is made.
    if let Some(since) = made_at.max(keyed_at) {
        state.counts.pass(Stage::FirstPacket, since, now());
    }
}

/// A WHIP or WHEP client that hangs up without a DELETE has ended its session all the same.
fn transport_closed(state: &mut State, id: TransportId, reason: CloseReason) -> Effects {
    if let Some(transport) = state.registry.any_transport(id)
        && transport.dtls != DtlsState::Connected
        && reason != CloseReason::DtlsClosed
    {
        let is_reached = transport.ice != IceState::New;
        state.counts.fail(if is_reached { Stage::Dtls } else { Stage::Ice });
    }
    let hangs_up = reason == CloseReason::DtlsClosed;
    let found = state.registry.any_transport(id).filter(|it| hangs_up && it.session.is_some());
    let member = found.map(|transport| (transport.room.clone(), transport.peer.clone()));
    let mut effects = lose_transport(&mut state.registry, id, reason.label());
    if let Some((room, peer)) = member {
        effects.append(state.registry.leave_if_idle(&room, &peer));
    }
    effects
}

/// Takes out a transport that its shard has no more.
fn lose_transport(registry: &mut Registry, id: TransportId, reason: &'static str) -> Effects {
    let Some(transport) = registry.any_transport(id) else { return Effects::default() };
    let (room, peer, now) = (transport.room.clone(), transport.peer.clone(), now());
    let effects = registry.close_transport(id, reason, now).unwrap_or_default();
    registry.note_lost(&room, &peer, now);
    effects
}

fn bandwidth(state: &State, id: TransportId, estimate_bps: u64) -> Effects {
    let Ok(transport) = state.registry.transport(id) else { return Effects::default() };
    let peer = transport.peer.clone();
    let event = RoomEvent::Bandwidth { transport: id, peer, estimate_bps };
    Effects::event(&transport.room, transport.shard, event)
}

fn dtls_state(
    state: &mut State,
    id: TransportId,
    dtls: DtlsState,
    cipher: Option<&'static str>,
) -> Effects {
    let Some(transport) = state.registry.transport_mut(id) else {
        return Effects::default();
    };
    if std::mem::replace(&mut transport.dtls, dtls) == dtls {
        return Effects::default();
    }
    if dtls == DtlsState::Connected {
        note_connected(id, transport, cipher);
        pass(&mut state.counts, Stage::Dtls, &mut transport.since);
    }
    let event =
        RoomEvent::TransportDtlsState { transport: id, peer: transport.peer.clone(), state: dtls };
    let effects = Effects::event(&transport.room, transport.shard, event);
    if dtls == DtlsState::Connected {
        // It was told to connect, though whoever told it may have got no answer.
        state.registry.expect_client(id, now());
    }
    effects
}

fn note_connected(id: TransportId, transport: &Transport, cipher: Option<&'static str>) {
    let remote = transport.remote.map(|(address, _)| address.to_string());
    let tcp = transport.remote.is_some_and(|(_, tcp)| tcp);
    tracing::info!(
        room.id = %transport.room,
        peer.id = %transport.peer,
        transport.id = %id,
        shard.id = %transport.shard,
        remote = remote.as_deref(),
        protocol = if tcp { "tcp" } else { "udp" },
        cipher,
        "transport connected"
    );
}
