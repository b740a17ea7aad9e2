//! The sans-I/O heart of one shard: bytes, commands and `now` go in; datagrams, events and the next
//! deadline come out.
//!
//! Called by its shard on the shard's thread (in tests and benches by whoever made it). It never
//! reads a clock, a socket or randomness that was not handed to it.
//!
//! A batch of datagrams goes through [`Demux`] to its transport and through SRTP into the rings of
//! its streams (`ingress`); then the consumers of all streams that brought something become due
//! (`router`); then, receiver by receiver, what is due is sealed into the batch that the shard lends
//! (`egress`). Requests and reports travel beside that (`feedback`), commands change what is there
//! (`commands`).

pub mod allocation;
pub mod bwe;
pub mod codec;
pub mod codec_table;
mod commands;
pub mod consumer;
pub mod demux;
pub mod dtls;
mod egress;
pub mod equalise;
mod feedback;
pub mod incoming_rate;
mod ingress;
pub mod io;
pub mod keyframe;
pub mod layer;
pub mod listener;
pub mod machine;
pub mod nack;
pub mod outgoing;
pub mod packet;
mod padding;
mod preferences;
pub mod producer;
pub mod reception;
pub mod relay;
mod repair;
pub mod report;
pub mod rewrite;
pub mod ring;
mod router;
pub mod rtcp;
pub mod rtcp_queue;
pub mod rtp;
pub mod score;
pub mod select;
pub mod sent;
mod sharing;
mod shed;
pub mod source_clock;
pub mod srtp;
mod stats;
pub mod stream;
mod switch;
pub mod tally;
pub mod timer;
pub mod transport;
pub mod twcc;
pub mod wall;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;
use slotmap::SlotMap;

use crate::control::command::{Command, Event, IceState, Refusal, Reply};
use crate::engine::allocation::Claim;
use crate::engine::consumer::Consumer;
use crate::engine::demux::{Demux, PacketClass, ufrag_of};
use crate::engine::dtls::{DtlsIdentity, TappedKeys};
use crate::engine::io::{Path, PathChange, Protocol, Received, TransmitBatch};
use crate::engine::machine::Machine;
use crate::engine::producer::Producer;
use crate::engine::relay::{RelayItem, RelayLanes, RelayPacket, Relaying};
use crate::engine::report::{Counters, Discard, DiscardCounts, Gauges};
use crate::engine::ring::SLOT_BYTES;
use crate::engine::rtcp::{Arrival, ReportBlock};
use crate::engine::srtp::SrtpKeys;
use crate::engine::stream::Stream;
use crate::engine::timer::Timers;
use crate::engine::transport::Transport;
use crate::engine::transport::connection::ConnectionEvent;
use crate::engine::wall::WallClock;
use crate::id::{ConsumerId, ProducerId, ShardId, TransportId};
use crate::limits::{EVENTS_QUEUED_MAX, PATH_CHANGES_QUEUED_MAX, TIMERS_PER_TURN_MAX};

slotmap::new_key_type! {
    /// A transport inside its shard.
    pub struct TransportKey;
    /// A producer inside its shard.
    pub struct ProducerKey;
    /// An incoming stream inside its shard.
    pub struct StreamKey;
    /// A consumer inside its shard.
    pub struct ConsumerKey;
}

/// Who waits for time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum TimerKey {
    /// Connection, reports and feedback of a transport.
    Transport(TransportKey),
    /// Requests of a stream.
    Stream(StreamKey),
    /// The choice among a simulcast producer's streams.
    Layers(ProducerKey),
    /// Estimate, probes and sharing of what a transport can send.
    Outgoing(TransportKey),
    /// What found a full lane to another shard: the turn itself tries it again.
    Relay,
}

/// What an engine is made of.
#[derive(Debug, Clone)]
pub struct EngineSetup {
    /// Its shard, named in every ufrag.
    pub shard: ShardId,
    /// The node's certificate.
    pub identity: Arc<DtlsIdentity>,
    /// The node's wall clock.
    pub wall: WallClock,
    /// Seed of all randomness: from the system in production, a constant in simulations.
    pub seed: [u8; 32],
}

/// The media state machine of one shard.
#[derive(Debug)]
pub struct Engine {
    shard: ShardId,
    identity: Arc<DtlsIdentity>,
    wall: WallClock,
    rng: StdRng,
    transports: SlotMap<TransportKey, Transport>,
    producers: SlotMap<ProducerKey, Producer>,
    streams: SlotMap<StreamKey, Stream>,
    consumers: SlotMap<ConsumerKey, Consumer>,
    transport_ids: HashMap<TransportId, TransportKey>,
    producer_ids: HashMap<ProducerId, ProducerKey>,
    consumer_ids: HashMap<ConsumerId, ConsumerKey>,
    demux: Demux<TransportKey>,
    timers: Timers<TimerKey>,
    /// Transports with something to send, each once.
    due: VecDeque<TransportKey>,
    /// Streams that brought something in this turn, each once.
    dirty: Vec<StreamKey>,
    events: VecDeque<Event>,
    events_lost: u64,
    /// UDP paths that came or went, for the shard.
    path_changes: VecDeque<PathChange>,
    counters: Counters,
    discards: DiscardCounts,
    scratch: Box<[u8; SLOT_BYTES]>,
    nack_list: Vec<u16>,
    blocks: Vec<ReportBlock>,
    arrivals: Vec<Arrival>,
    claims: Vec<Claim>,
    /// What goes to and comes from other shards.
    relaying: Relaying,
    /// What transports that are gone still say to their clients (DTLS close_notify).
    farewells: VecDeque<(Path, Vec<u8>)>,
}

impl Engine {
    /// An engine with nothing in it.
    #[must_use]
    pub fn new(setup: EngineSetup) -> Self {
        let mut rng = StdRng::from_seed(setup.seed);
        Self {
            shard: setup.shard,
            identity: setup.identity,
            wall: setup.wall,
            demux: Demux::new(setup.shard, &mut rng),
            rng,
            transports: SlotMap::with_key(),
            producers: SlotMap::with_key(),
            streams: SlotMap::with_key(),
            consumers: SlotMap::with_key(),
            transport_ids: HashMap::new(),
            producer_ids: HashMap::new(),
            consumer_ids: HashMap::new(),
            timers: Timers::default(),
            due: VecDeque::new(),
            dirty: Vec::new(),
            events: VecDeque::new(),
            events_lost: 0,
            path_changes: VecDeque::new(),
            counters: Counters::default(),
            discards: DiscardCounts::default(),
            scratch: Box::new([0; SLOT_BYTES]),
            nack_list: Vec::new(),
            blocks: Vec::new(),
            arrivals: Vec::new(),
            claims: Vec::new(),
            relaying: Relaying::default(),
            farewells: VecDeque::new(),
        }
    }

    fn handle_datagram(&mut self, now: Instant, received: Received<'_>) -> Result<(), Discard> {
        let Received { path, bytes, .. } = received;
        let class = PacketClass::of(bytes);
        let key = match class {
            PacketClass::Stun => {
                let ufrag = ufrag_of(bytes).ok_or(Discard::StunMalformed)?;
                self.demux.transport_named(ufrag).ok_or(Discard::StunUnknownUfrag)?
            }
            PacketClass::Other => return Err(Discard::UnknownProtocol),
            _ => self.demux.transport_at(&path).ok_or(Discard::UnknownAddress)?,
        };
        match class {
            PacketClass::Rtp => {
                let arrived = self.handle_rtp(now, key, &received);
                self.follow_address(now, key, path, ingress::is_authentic(&arrived));
                self.note_arrival(now, arrived?);
                Ok(())
            }
            PacketClass::Rtcp => {
                let handled = self.handle_rtcp(now, key, bytes);
                self.follow_address(now, key, path, handled.is_ok());
                handled
            }
            PacketClass::Stun | PacketClass::Dtls | PacketClass::Other => {
                let transport = self.transports.get_mut(key).ok_or(Discard::UnknownAddress)?;
                let handled = if class == PacketClass::Stun {
                    transport.connection.handle_stun(now, path, bytes)
                } else {
                    transport.connection.handle_dtls(now, path, bytes)
                };
                match (&handled, class) {
                    (Ok(()), PacketClass::Stun) => self.counters.stun_in += 1,
                    (Ok(()), _) => self.counters.dtls_in += 1,
                    _ => {}
                }
                self.settle_transport(now, key);
                if handled.is_ok() {
                    self.keep_path(path, key);
                }
                handled
            }
        }
    }

    /// An address whose owner was heard on it by ICE is its own, even if another transport took it
    /// in between (a NAT gave it away and back, or somebody forged it).
    fn keep_path(&mut self, path: Path, key: TransportKey) {
        if self.demux.transport_at(&path) != Some(key)
            && self.transports.get(key).is_some_and(|t| t.connection.is_validated(&path))
        {
            self.demux.insert_path(path, key);
        }
    }

    /// Takes what a connection has to tell, and makes sure that it is called again in time.
    fn settle_transport(&mut self, now: Instant, key: TransportKey) {
        while let Some(transport) = self.transports.get_mut(key)
            && let Some(event) = transport.connection.poll_event()
        {
            self.handle_connection_event(now, key, event);
        }
        self.mark_due(key);
        self.arm_transport(key);
    }

    fn handle_connection_event(&mut self, now: Instant, key: TransportKey, event: ConnectionEvent) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let id = transport.id;
        match event {
            ConnectionEvent::IceState(state, selected) => {
                if transport.ice_news.is_told(now, state) {
                    self.tell_ice(key, state, selected);
                }
                self.start_idle_consumers(now, key);
            }
            ConnectionEvent::DtlsState(state, cipher) => {
                self.tell(Event::DtlsState { transport: id, state, cipher });
            }
            ConnectionEvent::Keys(tapped) => {
                let TappedKeys { profile, material, local_is_client } = &tapped;
                let keys = SrtpKeys::from_dtls(*profile, material, *local_is_client);
                debug_assert!(keys.is_some(), "DTLS exports what its profile needs");
                if let Some(keys) = keys {
                    self.counters.dtls_connected += 1;
                    self.start_media(now, key, &keys);
                }
            }
            ConnectionEvent::TupleAdded(path) => {
                if self.demux.insert_path(path, key) {
                    self.tell_path(path, PathChange::Added);
                }
            }
            ConnectionEvent::TupleRemoved(path) => self.forget_path(path, key),
            ConnectionEvent::Closed(reason) => {
                if reason == crate::control::command::CloseReason::Fault {
                    self.counters.faults += 1;
                }
                self.tell(Event::TransportClosed { transport: id, reason });
                self.remove_transport(now, key);
            }
        }
    }

    /// Gives a transport its SRTP keys without a handshake, for simulations that must be equal bit
    /// for bit and for benches that name their cipher. ICE still has to select an address; consent
    /// still ends it. No command leads here. False when there is no such transport.
    pub fn install_keys(&mut self, now: Instant, id: TransportId, keys: &SrtpKeys) -> bool {
        let Some(key) = self.transport_ids.get(&id).copied() else { return false };
        if let Some(transport) = self.transports.get_mut(key) {
            transport.connection.connect_without_dtls();
        }
        self.start_media(now, key, keys);
        self.arm_transport(key);
        true
    }

    fn start_media(&mut self, now: Instant, key: TransportKey, keys: &SrtpKeys) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        transport.key(keys);
        transport.connected = true;
        let consumers = transport.consumers.clone();
        self.start_consumers(now, &consumers);
    }

    /// What could not begin for want of an address (all TCP connections had ended) begins now.
    fn start_idle_consumers(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get(key).filter(|t| t.can_send()) else { return };
        let is_idle = |key: &ConsumerKey| {
            let consumer = self.consumers.get(*key);
            consumer.is_some_and(|c| c.playing.is_none() && c.awaiting.is_none())
        };
        let idle: Vec<_> = transport.consumers.iter().copied().filter(is_idle).collect();
        self.start_consumers(now, &idle);
    }

    /// An authentic media packet of the client: from another validated address than the selected
    /// one it may tell of a move, from the selected one that there was none.
    fn follow_address(&mut self, now: Instant, key: TransportKey, path: Path, authentic: bool) {
        let Some(transport) = self.transports.get_mut(key).filter(|_| authentic) else { return };
        let elsewhere = transport.connection.selected() != Some(path);
        // Only a selected address that fell silent is left; a refusal says it is not validated,
        // which the demultiplexer excludes.
        let _ = transport.connection.handle_media_path(now, &path);
        if elsewhere {
            self.settle_transport(now, key);
        }
    }

    fn arm_transport(&mut self, key: TransportKey) {
        if let Some(deadline) = self.transports.get(key).and_then(Transport::next_deadline) {
            self.timers.arm(TimerKey::Transport(key), deadline);
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < EVENTS_QUEUED_MAX {
            self.events.push_back(event);
        } else {
            self.events_lost += 1;
            self.counters.events_lost += 1;
        }
    }

    fn tell_ice(&mut self, key: TransportKey, state: IceState, selected: Option<Path>) {
        let Some(transport) = self.transports.get(key) else { return };
        self.tell(Event::IceState {
            transport: transport.id,
            state,
            remote: selected.map(|path| path.remote),
            tcp: selected.is_some_and(|path| path.protocol == Protocol::Tcp),
        });
    }

    fn forget_path(&mut self, path: Path, key: TransportKey) {
        if self.demux.remove_path(&path, key) {
            self.tell_path(path, PathChange::Removed);
        }
    }

    fn tell_path(&mut self, path: Path, change: fn(Path) -> PathChange) {
        // The bound is out of reach of a shard that takes them (`PATH_CHANGES_PER_TURN_MAX`); in
        // simulations nobody does.
        if path.protocol == Protocol::Udp && self.path_changes.len() < PATH_CHANGES_QUEUED_MAX {
            self.path_changes.push_back(change(path));
        }
    }

    fn fire(&mut self, now: Instant, timer: TimerKey) {
        match timer {
            TimerKey::Transport(key) => {
                if let Some(transport) = self.transports.get_mut(key) {
                    transport.connection.handle_timeout(now);
                    if transport.ice_news.is_due(now) {
                        let connection = &transport.connection;
                        let (state, selected) = (connection.ice_state(), connection.selected());
                        self.tell_ice(key, state, selected);
                    }
                }
                // Before the next deadline is looked for: else it would be this one once more.
                self.handle_transport_reports(now, key);
                self.settle_transport(now, key);
            }
            TimerKey::Stream(key) => self.handle_stream_deadline(now, key),
            TimerKey::Layers(key) => self.choose_layers(now, key),
            TimerKey::Outgoing(key) => self.handle_outgoing_deadline(now, key),
            TimerKey::Relay => {}
        }
    }
}

impl Machine for Engine {
    fn handle_datagrams<'a>(
        &mut self,
        now: Instant,
        batch: &mut dyn Iterator<Item = Received<'a>>,
    ) {
        for received in batch {
            if let Err(reason) = self.handle_datagram(now, received) {
                self.discards.add(reason);
            }
        }
        self.route_dirty(now);
    }

    fn handle_command(&mut self, now: Instant, command: Command) -> Result<Reply, Refusal> {
        self.carry_out(now, command)
    }

    fn handle_path_closed(&mut self, now: Instant, path: Path) {
        if let Some(key) = self.demux.transport_at(&path)
            && let Some(transport) = self.transports.get_mut(key)
        {
            transport.connection.handle_path_closed(&path);
            self.settle_transport(now, key);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..TIMERS_PER_TURN_MAX {
            let Some(timer) = self.timers.pop_due(now) else { return };
            self.fire(now, timer);
        }
    }

    fn poll_transmit(&mut self, now: Instant, batch: &mut TransmitBatch) -> bool {
        self.fill(now, batch)
    }

    fn handle_relay(
        &mut self,
        now: Instant,
        from: ShardId,
        item: RelayItem,
    ) -> Option<Box<RelayPacket>> {
        self.take_relayed(now, from, item)
    }

    fn poll_relay(&mut self, now: Instant, lanes: &mut dyn RelayLanes) -> bool {
        self.relay(now, lanes)
    }

    fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let lost = std::mem::take(&mut self.events_lost);
        (lost > 0).then_some(Event::Lost(lost))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    fn owns(&self, path: &Path) -> bool {
        self.demux.transport_at(path).is_some()
    }

    fn poll_path(&mut self) -> Option<PathChange> {
        self.path_changes.pop_front()
    }

    fn report(&self) -> (Counters, DiscardCounts, Gauges) {
        let gauges = Gauges {
            transports: self.transports.len(),
            transports_connected: self.transports.values().filter(|t| t.connected).count(),
            producers: self.producers.len() - self.relaying.mirrors,
            mirrors: self.relaying.mirrors,
            streams: self.streams.values().filter(|s| s.source.transport().is_some()).count(),
            consumers: self.consumers.len(),
            tuples: self.demux.path_count(),
            ring_bytes: self.streams.values().map(|stream| stream.ring.bytes()).sum(),
        };
        (self.counters, self.discards.clone(), gauges)
    }

    fn discard(&mut self, reason: Discard) {
        self.discards.add(reason);
    }
}

/// An instant for tests of virtual time.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
pub(crate) fn test_instant() -> Instant {
    Instant::now()
}
