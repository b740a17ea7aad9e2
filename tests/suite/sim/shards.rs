//! The engines of a node, joined by lanes in virtual time, with commands routed to them as the
//! control thread does.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringcast::control::command::{Command, CreateProducer, Event, Mirror, Reply};
use ringcast::engine::Engine;
use ringcast::engine::io::{Path, Received};
use ringcast::engine::machine::Machine;
use ringcast::engine::relay::{RelayItem, RelayLanes, RelayPacket};
use ringcast::engine::report::Discard;
use ringcast::id::{ConsumerId, ProducerId, ShardId, TransportId};
use ringcast::ortc::types::MediaKind;

/// What travels in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Freight {
    Audio,
    Video,
    Pulse,
    /// Demand and requests.
    Wish,
}

impl Freight {
    fn of(item: &RelayItem) -> Self {
        match item {
            RelayItem::Media(MediaKind::Audio, _) => Self::Audio,
            RelayItem::Media(MediaKind::Video, _) => Self::Video,
            RelayItem::Pulse(_) => Self::Pulse,
            RelayItem::Demand { .. } | RelayItem::KeyFrame { .. } => Self::Wish,
        }
    }
}

/// What a lane took, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Packet { encoding: u8, seq: u64 },
    Pulse { encoding: u8 },
    Demand { encodings: Option<u8> },
    KeyFrame { encoding: u8 },
}

/// One entry of the waybill.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) to: usize,
    pub(crate) freight: Freight,
    pub(crate) told: Told,
}

/// A lane: from, to, what.
type Way = (usize, usize, Freight);

/// True for an item that a lane is not to take.
pub(crate) type Refuse = Box<dyn FnMut(Instant, Freight) -> bool>;

pub(crate) struct Lanes {
    /// How long an item is under way.
    pub(crate) delay: Duration,
    /// Items that one lane holds.
    pub(crate) capacity: usize,
    /// Lanes that take nothing.
    pub(crate) blocked: HashSet<Way>,
    pub(crate) refuse: Option<Refuse>,
    under_way: HashMap<Way, VecDeque<(Instant, RelayItem)>>,
    /// Everything that was taken.
    pub(crate) log: Vec<Sent>,
    /// Boxes that came back, by the shard that fills them.
    empties: HashMap<usize, VecDeque<Box<RelayPacket>>>,
    /// Boxes made.
    pub(crate) made: usize,
}

/// The lanes as one shard sees them.
struct LanesOf<'a> {
    lanes: &'a mut Lanes,
    from: usize,
    now: Instant,
}

impl RelayLanes for LanesOf<'_> {
    fn empty(&mut self, _to: ShardId) -> Box<RelayPacket> {
        let empties = self.lanes.empties.entry(self.from).or_default();
        empties.pop_front().unwrap_or_else(|| {
            self.lanes.made += 1;
            RelayPacket::empty(self.now)
        })
    }

    fn send(&mut self, to: ShardId, item: RelayItem) -> Result<(), RelayItem> {
        let (from, to) = (self.from, usize::from(to.0));
        let freight = Freight::of(&item);
        let way = (from, to, freight);
        if self.lanes.refuse.as_mut().is_some_and(|refuse| refuse(self.now, freight)) {
            return Err(item);
        }
        let lane = self.lanes.under_way.entry(way).or_default();
        if lane.len() >= self.lanes.capacity || self.lanes.blocked.contains(&way) {
            return Err(item);
        }
        let told = match &item {
            RelayItem::Media(_, packet) => {
                Told::Packet { encoding: packet.encoding, seq: packet.meta.seq }
            }
            RelayItem::Pulse(pulse) => Told::Pulse { encoding: pulse.encoding },
            RelayItem::Demand { encodings, .. } => Told::Demand { encodings: *encodings },
            RelayItem::KeyFrame { encoding, .. } => Told::KeyFrame { encoding: *encoding },
        };
        lane.push_back((self.now + self.lanes.delay, item));
        self.lanes.log.push(Sent { at: self.now, to, freight, told });
        Ok(())
    }
}

pub(crate) struct Shards {
    pub(crate) engines: Vec<Engine>,
    pub(crate) lanes: Lanes,
    transports: HashMap<TransportId, usize>,
    consumers: HashMap<ConsumerId, usize>,
    producers: HashMap<ProducerId, Known>,
}

/// What control knows of a producer.
struct Known {
    origin: usize,
    source: Arc<CreateProducer>,
    paused: bool,
    mirrors: BTreeSet<usize>,
}

impl Shards {
    pub(crate) fn new(engines: Vec<Engine>) -> Self {
        Self {
            engines,
            lanes: Lanes {
                delay: Duration::from_micros(50),
                capacity: 1024,
                blocked: HashSet::new(),
                refuse: None,
                under_way: HashMap::new(),
                log: Vec::new(),
                empties: HashMap::new(),
                made: 0,
            },
            transports: HashMap::new(),
            consumers: HashMap::new(),
            producers: HashMap::new(),
        }
    }

    pub(crate) fn home_of(&self, transport: TransportId) -> usize {
        self.transports.get(&transport).copied().unwrap_or(0)
    }

    pub(crate) fn engine_of(&mut self, transport: TransportId) -> &mut Engine {
        let home = self.home_of(transport);
        &mut self.engines[home]
    }

    /// Carries out a command where it belongs; a new transport and what names nothing, on `shard`.
    pub(crate) fn command(&mut self, now: Instant, shard: usize, mut command: Command) -> Reply {
        let home = match &mut command {
            Command::CreateTransport(create) => {
                self.transports.insert(create.transport, shard);
                shard
            }
            Command::ConnectTransport(connect) => self.home_of(connect.transport),
            Command::CloseTransport(id) => {
                self.close_mirrors_of(now, *id);
                self.home_of(*id)
            }
            Command::InjectPanic(id)
            | Command::SetBitrates(id, _)
            | Command::RestartIce(id)
            | Command::TransportStats(id) => self.home_of(*id),
            Command::ProducerStats(id) => {
                self.producers.get(id).map_or(shard, |known| known.origin)
            }
            Command::CreateProducer(create) => {
                let origin = self.home_of(create.transport);
                let source = Arc::new((**create).clone());
                let (paused, mirrors) = (create.paused, BTreeSet::new());
                let known = Known { origin, source, paused, mirrors };
                self.producers.insert(create.producer, known);
                origin
            }
            Command::PauseProducer(id, paused) => {
                let known = self.producers.get_mut(id).expect("a producer");
                known.paused = *paused;
                let (origin, mirrors) = (known.origin, known.mirrors.clone());
                for mirror in mirrors {
                    let pause = Command::PauseProducer(*id, *paused);
                    self.engines[mirror].handle_command(now, pause).unwrap();
                }
                origin
            }
            Command::CloseProducer(id) => {
                let known = self.producers.remove(id);
                let (origin, mirrors) =
                    known.map_or((shard, BTreeSet::new()), |known| (known.origin, known.mirrors));
                for mirror in mirrors {
                    let close = Command::CloseProducer(*id);
                    self.engines[mirror].handle_command(now, close).unwrap();
                }
                origin
            }
            Command::CreateConsumer(create) => {
                let home = self.home_of(create.transport);
                self.consumers.insert(create.consumer, home);
                if let Some(known) = self.producers.get_mut(&create.producer)
                    && known.origin != home
                {
                    known.mirrors.insert(home);
                    create.mirror = Some(Mirror {
                        origin: ShardId(u16::try_from(known.origin).unwrap()),
                        source: Arc::clone(&known.source),
                        paused: known.paused,
                    });
                }
                home
            }
            Command::PauseConsumer(id, _)
            | Command::RequestKeyFrame(id)
            | Command::SetPreferredLayers(id, _)
            | Command::SetPriority(id, _)
            | Command::ConsumerStats(id)
            | Command::CloseConsumer(id) => self.consumers.get(id).copied().unwrap_or(shard),
            Command::Inventory => shard,
        };
        self.engines[home].handle_command(now, command).unwrap()
    }

    fn close_mirrors_of(&mut self, now: Instant, transport: TransportId) {
        let gone = self.producers.iter().filter(|(_, known)| known.source.transport == transport);
        let gone: Vec<_> = gone.map(|(id, known)| (*id, known.mirrors.clone())).collect();
        for (id, mirrors) in gone {
            self.producers.remove(&id);
            for mirror in mirrors {
                self.engines[mirror].handle_command(now, Command::CloseProducer(id)).unwrap();
            }
        }
    }

    /// When an engine or an item wants its turn.
    pub(crate) fn next(&self) -> Option<Instant> {
        let items = self.lanes.under_way.values().filter_map(|lane| Some(lane.front()?.0));
        self.engines.iter().filter_map(Machine::poll_timeout).chain(items).min()
    }

    /// Delivers what has come, and lets deadlines pass.
    pub(crate) fn turn(&mut self, now: Instant) {
        let mut ways: Vec<Way> = self.lanes.under_way.keys().copied().collect();
        // Any order is right; it must be the same in every run.
        ways.sort_by_key(|(from, to, freight)| (*from, *to, *freight as u8));
        for way in ways {
            let (from, to, _) = way;
            let sender = ShardId(u16::try_from(from).unwrap());
            while let Some(lane) = self.lanes.under_way.get_mut(&way)
                && lane.front().is_some_and(|(at, _)| *at <= now)
                && let Some((_, item)) = lane.pop_front()
            {
                let emptied = self.engines[to].handle_relay(now, sender, item);
                self.lanes.empties.entry(from).or_default().extend(emptied);
            }
        }
        for engine in &mut self.engines {
            if engine.poll_timeout().is_some_and(|at| at <= now) {
                engine.handle_timeout(now);
            }
        }
    }

    /// Gives everything that wants to another shard to the lanes.
    pub(crate) fn relay(&mut self, now: Instant) {
        for (from, engine) in self.engines.iter_mut().enumerate() {
            let mut lanes = LanesOf { lanes: &mut self.lanes, from, now };
            while engine.poll_relay(now, &mut lanes) {}
        }
    }

    /// What the engines tell, after control has drawn its conclusions.
    pub(crate) fn poll_events(&mut self, now: Instant) -> Vec<Event> {
        let mut told = Vec::new();
        for engine in &mut self.engines {
            told.extend(std::iter::from_fn(|| engine.poll_event()));
        }
        for event in &told {
            if let Event::TransportClosed { transport, .. } = event {
                self.close_mirrors_of(now, *transport);
            }
        }
        told
    }

    pub(crate) fn discarded_on(&self, shard: usize, reason: Discard) -> u64 {
        self.engines[shard].report().1.count(reason)
    }

    /// A datagram that arrives at a shard, from nowhere in particular.
    pub(crate) fn inject(&mut self, now: Instant, shard: usize, path: Path, bytes: &[u8]) {
        let received = Received { path, arrival: now, bytes };
        self.engines[shard].handle_datagrams(now, &mut std::iter::once(received));
    }

    /// What shard `to` was sent of a kind since `since`.
    pub(crate) fn sent(&self, to: usize, freight: Freight, since: Instant) -> Vec<Sent> {
        let log = self.lanes.log.iter();
        log.filter(|sent| sent.to == to && sent.freight == freight && sent.at >= since)
            .cloned()
            .collect()
    }
}
