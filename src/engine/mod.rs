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
mod connections;
pub mod consumer;
pub mod demand;
pub mod demux;
pub mod dtls;
mod egress;
pub mod equalise;
mod feedback;
pub mod incoming_limit;
pub mod incoming_rate;
mod ingress;
pub mod io;
pub mod keyframe;
pub mod layer;
pub mod listener;
pub mod machine;
pub mod nack;
pub mod outgoing;
pub mod pacing;
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
pub mod slow_rate;
mod sound;
pub mod source_clock;
pub mod srtp;
mod stats;
pub mod stream;
mod switch;
pub mod tally;
pub mod timer;
pub mod transport;
pub mod twcc;
pub mod under_way;
pub mod voice;
pub mod wall;
mod warm;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;
use slotmap::SlotMap;

use crate::control::command::{Command, Event, Refusal, Reply};
use crate::engine::allocation::Claim;
use crate::engine::consumer::Consumer;
use crate::engine::demux::{Demux, PacketClass, ufrag_of};
use crate::engine::dtls::DtlsIdentity;
use crate::engine::io::{Path, PathChange, Received, TransmitBatch};
use crate::engine::machine::Machine;
use crate::engine::producer::Producer;
use crate::engine::relay::{RelayItem, RelayLanes, RelayPacket, Relaying};
use crate::engine::report::{Counters, Discard, DiscardCounts, Estimates, Gauges};
use crate::engine::ring::SLOT_BYTES;
use crate::engine::rtcp::{Arrival, ReportBlock};
use crate::engine::stream::Stream;
use crate::engine::timer::Timers;
use crate::engine::transport::Transport;
use crate::engine::voice::Voices;
use crate::engine::wall::WallClock;
use crate::id::{ConsumerId, ProducerId, ShardId, TransportId};
use crate::limits::{EVENTS_QUEUED_MAX, TIMERS_PER_TURN_MAX};

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
    /// What is held for the slow link of a transport.
    Pace(TransportKey),
    /// What found a full lane to another shard: the turn itself tries it again.
    Relay,
    /// The end of a window of audio levels.
    Voices,
    /// What nobody wanted of a producer's layers for long enough.
    Demand(ProducerKey),
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
    /// How many of the first of these were read ahead of.
    warm: usize,
    /// Streams that brought something in this turn, each once.
    dirty: Vec<StreamKey>,
    events: VecDeque<Event>,
    events_lost: u64,
    /// UDP paths that came or went, for the shard.
    path_changes: VecDeque<PathChange>,
    counters: Counters,
    /// What transports can be sent, each once a report.
    estimates: Estimates,
    discards: DiscardCounts,
    scratch: Box<[u8; SLOT_BYTES]>,
    nack_list: Vec<u16>,
    blocks: Vec<ReportBlock>,
    arrivals: Vec<Arrival>,
    claims: Vec<Claim>,
    /// What goes to and comes from other shards.
    relaying: Relaying,
    /// Who was heard lately.
    voices: Voices,
    /// Own producers whose demand may have changed in this turn, each once.
    demands: Vec<ProducerKey>,
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
            warm: 0,
            dirty: Vec::new(),
            events: VecDeque::new(),
            events_lost: 0,
            path_changes: VecDeque::new(),
            counters: Counters::default(),
            estimates: Estimates::default(),
            discards: DiscardCounts::default(),
            scratch: Box::new([0; SLOT_BYTES]),
            nack_list: Vec::new(),
            blocks: Vec::new(),
            arrivals: Vec::new(),
            claims: Vec::new(),
            relaying: Relaying::default(),
            voices: Voices::default(),
            demands: Vec::new(),
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

    fn tell(&mut self, event: Event) {
        if self.events.len() < EVENTS_QUEUED_MAX {
            self.events.push_back(event);
        } else {
            self.events_lost += 1;
            self.counters.events_lost += 1;
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
            TimerKey::Pace(key) => self.mark_due(key),
            TimerKey::Relay => {}
            TimerKey::Voices => self.tell_voices(now),
            TimerKey::Demand(key) => self.settle_demand(now, key),
        }
    }
}

impl Machine for Engine {
    fn read_ahead<'a>(&self, batch: &mut dyn Iterator<Item = Received<'a>>) {
        self.warm_arrivals(batch);
    }

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

    fn handle_path_taken(&mut self, path: &Path) {
        if let Some(key) = self.demux.transport_at(path) {
            self.demux.remove_path(path, key);
        }
    }

    fn poll_path(&mut self) -> Option<PathChange> {
        self.path_changes.pop_front()
    }

    fn report(&self) -> (Counters, DiscardCounts, Gauges) {
        let mut gauges = Gauges {
            transports: self.transports.len(),
            producers: self.producers.len() - self.relaying.mirrors,
            mirrors: self.relaying.mirrors,
            streams: self.streams.values().filter(|s| s.source.transport().is_some()).count(),
            consumers: self.consumers.len(),
            consumers_stopped: self.transports.values().map(|t| t.tally.stopped).sum(),
            estimate_bps: self.transports.values().filter_map(Transport::available_bps).sum(),
            estimates: self.estimates,
            tuples: self.demux.path_count(),
            ring_bytes: self.streams.values().map(|stream| stream.ring.bytes()).sum(),
            ..Gauges::default()
        };
        for transport in self.transports.values() {
            *transport.state_among(&mut gauges) += 1;
        }
        (self.counters, self.discards.clone(), gauges)
    }

    fn discard(&mut self, reason: Discard) {
        self.discards.add(reason);
    }
}

/// The instant at which virtual time begins, the same in all tests however long they take.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
pub(crate) fn test_instant() -> Instant {
    static ANCHOR: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    *ANCHOR
}
