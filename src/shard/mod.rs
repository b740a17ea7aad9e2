//! A shard: one thread that gives an engine time, datagrams, commands and what other shards relay,
//! and sends what it makes.
//!
//! Built inside its thread from a `ShardSetup` (it is `!Send`), run until the node stops it.
//! Invariants: it waits for nothing but its descriptors and its machine's deadline; `now` is read
//! once per turn; every part of a turn is bounded, so that no input starves another. The driver
//! uses no io_uring itself: the same loop runs as a task on glommio and, where io_uring is refused,
//! on a plain thread (`run`). It decides nothing about media; it never blocks on a full lane: a
//! command is taken only while its answer has room, events that have none are counted and told
//! later.

mod bpf;
mod control_message;
mod gather;
pub(crate) mod handoff;
mod inside;
pub(crate) mod relay;
pub(crate) mod run;
mod slots;
pub(crate) mod socket;
pub(crate) mod steer;
pub(crate) mod tcp;
#[cfg(test)]
mod tests;

use std::io;
use std::marker::PhantomData;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::gather::{Gathering, Traffic};
use self::handoff::{Handoff, Misdirected, Note, ShardPeer, StunOwner};
use self::inside::Inside;
use self::relay::{Relay, RelayEnds, RelayPeer};
use self::run::Ready;
use self::slots::{ReceiveSlots, SendSlots};
use self::socket::UdpSocket;
use self::steer::{FlowMap, Flows};
use self::tcp::TcpConnections;
use crate::control::command::{CallId, Command, Event, FromShard};
use crate::engine::io::{Protocol, Train, TransmitBatch};
use crate::engine::machine::Machine;
use crate::engine::report::{Discard, IoCounters, Report, TrainSizes, TurnLengths};
use crate::id::ShardId;
use crate::lane::{LaneReceiver, LaneSender, Waker};
use crate::limits::{
    COMMANDS_PER_TURN_MAX, DATAGRAMS_SENT_PER_TURN_MAX, EVENT_LANE_CAPACITY, EVENT_WAKE_DELAY,
    HANDOFF_PATH_IDLE, HANDOFFS_PER_TURN_MAX, NOTES_PER_TURN_MAX, PATH_CHANGES_PER_TURN_MAX,
    RECEIVE_BATCHES_PER_TURN_MAX, SEGMENTS_PER_TRAIN_MAX, TCP_TURNS, TRAINS_PER_BATCH_MAX,
    TRANSMIT_BATCH_BYTES,
};
use crate::metrics::latency::LatencyRecorder;

/// How often a shard reports and looks for what is idle.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Handed-off datagrams given to the machine at once.
const HANDOFF_BATCH: usize = 32;

/// One call of the control thread, answered by [`FromShard::Answer`] with the same number.
#[derive(Debug)]
pub struct ShardMessage {
    /// The number of the call.
    pub call: CallId,
    /// What is asked.
    pub command: Command,
}

/// All that a shard's thread needs to build its shard.
pub(crate) struct ShardSetup {
    /// Which shard.
    pub(crate) id: ShardId,
    /// Its socket in the port's group.
    pub(crate) udp: UdpSocket,
    /// Its ICE-TCP listener in the port's group.
    pub(crate) tcp: Option<TcpListener>,
    /// Wakes this shard.
    pub(crate) waker: Waker,
    /// From the control thread.
    pub(crate) commands: LaneReceiver<ShardMessage>,
    /// To the control thread; no other shard sends into this lane.
    pub(crate) control: LaneSender<FromShard>,
    /// Into every shard, in order of their ids.
    pub(crate) peers: Vec<ShardPeer>,
    /// From the other shards.
    pub(crate) datagrams: LaneReceiver<Misdirected>,
    /// From the other shards.
    pub(crate) notes: LaneReceiver<Note>,
    /// How long datagrams may gather behind those that woke it, when they come close together.
    pub(crate) coalesce: Duration,
    /// Over which machines relay into every shard, in order of their ids.
    pub(crate) relay_peers: Vec<RelayPeer>,
    /// Over which the other shards' machines relay.
    pub(crate) relay: RelayEnds,
    /// Reads a STUN request's owner.
    pub(crate) stun_owner: StunOwner,
    /// Where the kernel steers by; `None` when it does not.
    pub(crate) flows: Option<FlowMap>,
    /// Raised by the node to end the shard.
    pub(crate) stop: Arc<AtomicBool>,
}

/// One shard, on its own thread.
pub(crate) struct Shard<M> {
    id: ShardId,
    machine: M,
    udp: UdpSocket,
    tcp: TcpConnections,
    handoff: Handoff,
    relay: Relay,
    flows: Option<Flows>,
    waker: Waker,
    commands: LaneReceiver<ShardMessage>,
    control: LaneSender<FromShard>,
    datagrams: LaneReceiver<Misdirected>,
    notes: LaneReceiver<Note>,
    stop: Arc<AtomicBool>,
    receive_slots: ReceiveSlots,
    send_slots: SendSlots,
    batch: TransmitBatch,
    /// Which datagrams of the receive batch are for the machine here.
    ours: Vec<bool>,
    taken: Vec<Misdirected>,
    io: IoCounters,
    latency: LatencyRecorder,
    trains: TrainSizes,
    turns: TurnLengths,
    events_lost: u64,
    events_untold: u64,
    /// When the control thread is woken for events that it was not told of yet.
    wake_control_at: Option<Instant>,
    on_glommio: bool,
    last_report: Instant,
    last_expiry: Instant,
    waited: Duration,
    ready: Ready,
    gathering: Gathering,
    traffic: Traffic,
    _not_send: PhantomData<*const ()>,
}

impl<M: Machine> Shard<M> {
    /// Builds the shard on the thread that will run it.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub(crate) fn new(setup: ShardSetup, machine: M, now: Instant) -> io::Result<Self> {
        let segments = if setup.udp.has_gso() { SEGMENTS_PER_TRAIN_MAX } else { 1 };
        Ok(Self {
            id: setup.id,
            machine,
            tcp: TcpConnections::new(setup.tcp)?,
            handoff: Handoff::new(setup.id, setup.peers, setup.stun_owner),
            relay: Relay::new(setup.id, setup.relay_peers, setup.relay, now),
            flows: setup.flows.map(|map| Flows::new(map, setup.id)),
            waker: setup.waker,
            commands: setup.commands,
            control: setup.control,
            datagrams: setup.datagrams,
            notes: setup.notes,
            stop: setup.stop,
            receive_slots: ReceiveSlots::new(setup.udp.has_gro()),
            send_slots: SendSlots::new(),
            batch: TransmitBatch::new(TRANSMIT_BATCH_BYTES, TRAINS_PER_BATCH_MAX, segments),
            udp: setup.udp,
            ours: Vec::new(),
            taken: Vec::with_capacity(HANDOFF_BATCH),
            io: IoCounters::default(),
            latency: LatencyRecorder::default(),
            trains: TrainSizes::default(),
            turns: TurnLengths::default(),
            events_lost: 0,
            events_untold: 0,
            wake_control_at: None,
            on_glommio: false,
            last_report: now,
            last_expiry: now,
            waited: Duration::ZERO,
            ready: Ready::ALL,
            gathering: Gathering::new(now, setup.coalesce),
            traffic: Traffic::default(),
            _not_send: PhantomData,
        })
    }

    /// One turn: everything that is waiting, in bounded portions; true when a bound was reached and
    /// more may be waiting.
    pub(crate) fn turn(&mut self, now: Instant) -> bool {
        self.io.turns += 1;
        self.traffic = Traffic::default();
        let mut more = self.take_commands(now);
        more |= self.take_notes(now);
        more |= self.take_handoffs(now);
        let ready = std::mem::replace(&mut self.ready, Ready::BUSY);
        if ready.udp {
            more |= self.receive(now);
        }
        if ready.tcp || self.io.turns.is_multiple_of(TCP_TURNS) {
            self.ready.tcp = self.with_tcp(now, |tcp, inside| tcp.handle_ready(now, inside));
            more |= self.ready.tcp;
        }
        more |= self.take_relayed(now);
        if self.machine.poll_timeout().is_some_and(|due| due <= now) {
            self.machine.handle_timeout(now);
            more |= self.machine.poll_timeout().is_some_and(|due| due <= now);
        }
        more |= self.relay(now);
        more |= self.follow_paths();
        self.handoff.wake_peers();
        self.relay.wake_peers();
        more |= self.flush(now);
        // One by one, nothing is gained by waiting.
        if self.udp.has_gso() {
            self.gathering.note_traffic(now, self.traffic);
        }
        self.tell_events(now);
        if now.saturating_duration_since(self.last_report) >= REPORT_INTERVAL {
            self.sweep(now);
            self.report(now);
        }
        more
    }

    /// When the next turn is due without any input. What the machine has to do may wait as long as
    /// datagrams may: mostly one comes by then, and the wake is saved.
    pub(crate) fn deadline(&self) -> Instant {
        let report = self.last_report + REPORT_INTERVAL;
        let machine = self.machine.poll_timeout().map(|due| due + self.gathering.span());
        let wanted = [machine, self.wake_control_at];
        wanted.into_iter().flatten().fold(report, Instant::min)
    }

    fn take_commands(&mut self, now: Instant) -> bool {
        for _ in 0..COMMANDS_PER_TURN_MAX {
            // The answer must not be lost: no room for it, no command.
            if self.control.room() == 0 {
                return false;
            }
            let Some(message) = self.commands.try_recv() else { return false };
            let answer = self.machine.handle_command(now, message.command);
            let told = self.control.try_send(FromShard::Answer(message.call, answer));
            self.wake_control_at = None;
            // Without a control thread there is nobody to answer: the node is stopping.
            debug_assert!(told.is_ok() || self.control.room() > 0, "room was checked");
        }
        !self.commands.is_empty()
    }

    fn take_notes(&mut self, now: Instant) -> bool {
        for _ in 0..NOTES_PER_TURN_MAX {
            match self.notes.try_recv() {
                Some(Note::Claim { path, owner }) => {
                    // A client that was here and is there now, from the same address.
                    self.machine.handle_path_taken(&path);
                    self.handoff.claimed(now, path, owner);
                }
                Some(Note::Disown { path, owner }) => self.handoff.disowned(&path, owner),
                Some(Note::Connection(adoption)) => {
                    self.io.taken_over += 1;
                    self.with_tcp(now, |tcp, inside| tcp.adopt(now, *adoption, inside));
                }
                None => return false,
            }
        }
        !self.notes.is_empty()
    }

    fn take_handoffs(&mut self, now: Instant) -> bool {
        for _ in 0..HANDOFFS_PER_TURN_MAX / HANDOFF_BATCH {
            let waiting = std::iter::from_fn(|| self.datagrams.try_recv());
            self.taken.extend(waiting.take(HANDOFF_BATCH));
            if self.taken.is_empty() {
                return false;
            }
            self.io.taken_over += self.taken.len() as u64;
            let mut batch = self.taken.iter().map(Misdirected::received);
            self.machine.handle_datagrams(now, &mut batch);
            for taken in self.taken.drain(..) {
                let is_ours = self.machine.owns(&taken.received().path);
                self.handoff.answer(&taken, is_ours);
            }
        }
        !self.datagrams.is_empty()
    }

    fn receive(&mut self, now: Instant) -> bool {
        for _ in 0..RECEIVE_BATCHES_PER_TURN_MAX {
            if self.udp.recv_batch(&mut self.receive_slots) == 0 {
                return false;
            }
            self.gathering.note_datagrams();
            self.io.kernel_dropped = u64::from(self.receive_slots.kernel_dropped());
            // Between reading and routing: an owner claims before it answers, so whatever a client
            // sends after that answer finds the claim here.
            self.take_notes(now);
            for _ in 0..self.receive_slots.truncated() {
                self.machine.discard(Discard::TooLarge);
            }
            self.give_batch(now);
            if !self.receive_slots.is_full() {
                return false;
            }
        }
        true
    }

    /// Gives the machine what is its own of the receive batch, and other shards theirs.
    fn give_batch(&mut self, now: Instant) {
        self.ours.clear();
        for received in self.receive_slots.iter() {
            let owner = if self.handoff.is_alone() {
                None
            } else {
                self.handoff.owner_of(now, &received, |path| self.machine.owns(path))
            };
            if let Some(owner) = owner {
                self.handoff.hand_off(owner, &received);
            }
            self.ours.push(owner.is_none());
        }
        self.io.datagrams_in += self.ours.len() as u64;
        self.traffic.received += self.ours.len() as u64;
        let ours = || {
            let batch = self.receive_slots.iter().zip(&self.ours);
            batch.filter(|(_, ours)| **ours).map(|(received, _)| received)
        };
        self.machine.read_ahead(&mut ours());
        self.machine.handle_datagrams(now, &mut ours());
    }

    /// Has the kernel steer the paths that came, before their clients are answered, and forget
    /// those that went.
    fn follow_paths(&mut self) -> bool {
        for _ in 0..PATH_CHANGES_PER_TURN_MAX {
            let Some(change) = self.machine.poll_path() else { return false };
            if let Some(flows) = &mut self.flows
                && let Some(unsteered) = flows.follow(change)
            {
                self.handoff.claim_from_all(unsteered);
            }
        }
        true
    }

    fn with_tcp<R>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut TcpConnections, &mut Inside<'_, M>) -> R,
    ) -> R {
        let Self { tcp, machine, handoff, io, id, .. } = self;
        act(tcp, &mut Inside { now, machine, handoff, io, id: *id })
    }

    /// Sends what is due, up to the turn's bound; true when more is.
    fn flush(&mut self, now: Instant) -> bool {
        let mut sent = 0;
        while sent < DATAGRAMS_SENT_PER_TURN_MAX {
            let more = self.machine.poll_transmit(now, &mut self.batch);
            let filled = !self.batch.is_empty();
            if filled {
                sent += self.batch.trains().iter().map(Train::segments).sum::<usize>();
                self.send_batch();
            }
            debug_assert!(filled || !more, "a machine that has more fills the batch");
            if !more || !filled {
                return false;
            }
        }
        true
    }

    fn send_batch(&mut self) {
        let had_gso = self.udp.has_gso();
        let sent = self.udp.send_batch(&self.batch, &mut self.send_slots);
        self.io.datagrams_out += sent.datagrams;
        self.io.messages_out += sent.messages;
        self.traffic.sent += sent.datagrams;
        self.traffic.messages += sent.messages;
        self.io.trains_refused += sent.refused;
        self.io.send_failed += sent.failed;
        self.trains += sent.trains;
        let trains = self.batch.trains().iter();
        for train in trains.filter(|train| train.path.protocol == Protocol::Tcp) {
            if self.tcp.send(&train.path, self.batch.bytes(train)) {
                self.io.datagrams_out += 1;
                self.io.messages_out += 1;
            } else {
                self.io.send_failed += 1;
            }
        }
        self.note_latencies();
        if had_gso && !self.udp.has_gso() {
            tracing::warn!(shard.id = %self.id, "UDP segmentation refused: sending one by one");
            self.batch = TransmitBatch::new(TRANSMIT_BATCH_BYTES, TRAINS_PER_BATCH_MAX, 1);
        }
        self.batch.clear();
    }

    /// What was just sent was on its way until now.
    fn note_latencies(&mut self) {
        let forwarded = self.batch.forwarded();
        if forwarded.is_empty() {
            return;
        }
        let sent_at = run::clock();
        for run in forwarded {
            let latency = sent_at.saturating_duration_since(run.arrival);
            self.latency.record(latency, run.count);
        }
    }

    /// Tells what happened. Events of one client come in pairs and triples, some milliseconds apart:
    /// the control thread is woken for the first after [`EVENT_WAKE_DELAY`], or with an answer.
    fn tell_events(&mut self, now: Instant) {
        while let Some(event) = self.machine.poll_event() {
            if self.tell_lost() && self.control.push(FromShard::Event(event)).is_ok() {
                self.wake_control_at.get_or_insert(now + EVENT_WAKE_DELAY);
            } else {
                self.events_untold += 1;
                self.events_lost += 1;
            }
        }
        self.tell_lost();
        let crowded = self.control.room() < EVENT_LANE_CAPACITY / 2;
        if self.wake_control_at.take_if(|at| crowded || *at <= now).is_some() {
            self.control.wake();
        }
    }

    /// Tells how many events were lost, if any; false while there is no room even for that.
    fn tell_lost(&mut self) -> bool {
        if self.events_untold > 0 {
            let lost = FromShard::Event(Event::Lost(self.events_untold));
            if self.control.try_send(lost).is_err() {
                return false;
            }
            self.events_untold = 0;
        }
        true
    }

    /// Once a second: forgets and closes what is idle, and tries again what found no room.
    fn sweep(&mut self, now: Instant) {
        if let Some(flows) = &mut self.flows {
            for unsteered in flows.retry(|path| self.machine.owns(path)) {
                self.handoff.claim_from_all(unsteered);
            }
            self.handoff.wake_peers();
        }
        self.relay.sweep();
        if !self.tcp.is_empty() {
            self.with_tcp(now, |tcp, inside| tcp.sweep(now, inside));
        }
        if now.saturating_duration_since(self.last_expiry) >= HANDOFF_PATH_IDLE / 4 {
            self.last_expiry = now;
            self.handoff.expire(now);
        }
    }

    fn report(&mut self, now: Instant) {
        let interval = now.saturating_duration_since(self.last_report).as_secs_f64();
        let waited = std::mem::take(&mut self.waited).as_secs_f64();
        self.last_report = now;
        // One that finds no room is made good by the next: counters only grow, and latencies are
        // kept until they can be told.
        if self.control.room() == 0 {
            return;
        }
        self.io.handed_off = self.handoff.handed_off;
        self.io.handoff_dropped = self.handoff.dropped;
        self.io.relay_refused = self.relay.refused;
        self.io.relay_boxes = self.relay.boxes;
        let (mut counters, discards, gauges) = self.machine.report();
        counters.events_lost += self.events_lost;
        let report = Report {
            shard: self.id,
            counters,
            io: self.io,
            trains: self.trains,
            turns: self.turns,
            discards,
            gauges,
            latency: self.latency.take(),
            cpu: run::thread_cpu(),
            busy: (1.0 - waited / interval).clamp(0.0, 1.0),
            on_glommio: self.on_glommio,
            steering: self.flows.is_some(),
        };
        // Nobody else sends into this lane; without a control thread the node is stopping.
        let _ = self.control.try_send(FromShard::Report(Box::new(report)));
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// True when a lane holds something, or the node wants the shard to end.
    fn is_wanted(&self) -> bool {
        let commands = !self.commands.is_empty() && self.control.room() > 0;
        let peers = !self.notes.is_empty() || !self.datagrams.is_empty() || !self.relay.is_empty();
        commands || peers || self.is_stopping()
    }
}
