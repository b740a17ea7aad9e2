//! Whole shards over real sockets, with a machine that echoes.

mod connections;
mod datagrams;
mod nodes;
mod relays;
mod turns;

use std::collections::{HashSet, VecDeque};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{CapabilitySet, capabilities};

use crate::control::command::{CallId, CloseReason, Command, Event, FromShard, Refusal, Reply};
use crate::engine::demux::{Ufrag, stun_owner};
use crate::engine::io::{Path, PathChange, Protocol, Received, TransmitBatch};
use crate::engine::machine::Machine;
use crate::engine::relay::{RelayItem, RelayLanes, RelayPacket};
use crate::engine::report::{Counters, Discard, DiscardCounts, Gauges, Report};
use crate::engine::transport::stun::{RequestOptions, request};
use crate::id::{ConsumerId, ProducerId, ShardId, TransportId};
use crate::limits::{EVENT_LANE_CAPACITY, TCP_WRITE_BYTES_MAX};
use crate::node::{Node, NodeError, NodeSetup, Runtime, ShardLinks, ShardMessage};
use crate::ortc::types::MediaKind;

const PATIENCE: Duration = Duration::from_secs(10);

/// First bytes of requests that are not STUN.
const ECHO: u8 = 128;
const TRAIN: u8 = 129;
const LATER: u8 = 130;
const EVENTS: u8 = 131;
const PANIC: u8 = 132;
const FLOOD: u8 = 133;
const RELAY: u8 = 134;
const FAN: u8 = 135;

/// "STUN" validates its path; the rest is answered only from validated paths. Answers begin with
/// the shard.
struct Echo {
    shard: ShardId,
    owned: HashSet<Path>,
    out: VecDeque<(Path, Vec<u8>)>,
    /// When the echoes among them came, in order.
    echoed: VecDeque<Instant>,
    later: Option<(Instant, Path)>,
    changes: VecDeque<PathChange>,
    /// Who is sent without end.
    flooded: Option<Path>,
    events: usize,
    /// How many datagrams of this batch went to everyone.
    fanned: u8,
    /// Video packets to relay to each shard.
    relays: Vec<(ShardId, u16)>,
    counters: Counters,
    discards: DiscardCounts,
}

fn echo(shard: ShardId) -> Echo {
    Echo {
        shard,
        owned: HashSet::new(),
        out: VecDeque::new(),
        echoed: VecDeque::new(),
        later: None,
        changes: VecDeque::new(),
        flooded: None,
        events: 0,
        fanned: 0,
        relays: Vec::new(),
        counters: Counters::default(),
        discards: DiscardCounts::default(),
    }
}

/// True when this thread may load BPF programs.
pub(super) fn may_steer() -> bool {
    let effective = capabilities(None).unwrap().effective;
    effective.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN)
}

/// A STUN request as clients send them: the kernel steers these.
fn stun(owner: u8, n: u8) -> Vec<u8> {
    let ufrag = Ufrag::new(ShardId(owner.into()), 0, 0, &mut StdRng::seed_from_u64(n.into()));
    let username = format!("{ufrag}:them");
    let options = RequestOptions { username: Some(&username), ..RequestOptions::default() };
    request(&[n; 12], &options, None)
}

/// "STUN" is STUN, or 0, the owner, anything that is none: the kernel cannot steer these.
fn second_byte(bytes: &[u8]) -> Option<ShardId> {
    match bytes {
        [0, 1, _, _, 0x21, 0x12, 0xa4, 0x42, ..] => stun_owner(bytes),
        [0, owner, ..] => Some(ShardId(u16::from(*owner))),
        _ => None,
    }
}

fn event() -> Event {
    let transport = TransportId(uuid::Uuid::nil());
    Event::TransportClosed { transport, reason: CloseReason::ConsentLost }
}

impl Echo {
    fn handle(&mut self, now: Instant, received: Received<'_>) {
        let (path, bytes) = (received.path, received.bytes);
        if second_byte(bytes) == Some(self.shard) {
            if self.owned.insert(path) && path.protocol == Protocol::Udp {
                self.changes.push_back(PathChange::Added(path));
            }
        } else if !self.owned.contains(&path) {
            return self.discards.add(Discard::UnknownAddress);
        }
        let shard = u8::try_from(self.shard.0).unwrap();
        match bytes {
            [TRAIN, count, ..] => {
                for n in 0..*count {
                    self.out.push_back((path, [&[shard, n][..], &[n; 998]].concat()));
                }
            }
            [FLOOD, ..] => self.flooded = Some(path),
            [PANIC, ..] => panic!("as asked"),
            [LATER, ..] => self.later = Some((now + Duration::from_millis(20), path)),
            [RELAY, to, high, low, ..] => {
                let count = u16::from_be_bytes([*high, *low]);
                self.relays.push((ShardId(u16::from(*to)), count));
            }
            [EVENTS, high, low, ..] => {
                self.events = usize::from(u16::from_be_bytes([*high, *low]));
                self.out.push_back((path, vec![shard, EVENTS]));
            }
            [FAN, ..] => {
                let told = vec![shard, FAN, self.fanned];
                self.out.extend(self.owned.iter().map(|path| (*path, told.clone())));
                self.fanned += 1;
            }
            [ECHO, ..] => {
                self.out.push_back((path, [&[shard], bytes].concat()));
                self.echoed.push_back(received.arrival);
            }
            _ => self.out.push_back((path, [&[shard], bytes].concat())),
        }
    }
}

impl Machine for Echo {
    fn handle_datagrams<'a>(
        &mut self,
        now: Instant,
        batch: &mut dyn Iterator<Item = Received<'a>>,
    ) {
        self.fanned = 0;
        batch.for_each(|received| self.handle(now, received));
    }
    fn handle_command(&mut self, _now: Instant, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::RequestKeyFrame(_) => Err(Refusal::NoConsumer),
            _ => Ok(Reply::Done),
        }
    }
    fn handle_path_closed(&mut self, _now: Instant, path: Path) {
        self.owned.remove(&path);
        self.events += 1;
    }
    fn handle_timeout(&mut self, now: Instant) {
        if let Some((due, path)) = self.later.take() {
            let early = u8::from(now < due);
            self.out.push_back((path, vec![LATER, early]));
        }
    }
    fn handle_relay(
        &mut self,
        _now: Instant,
        _from: ShardId,
        item: RelayItem,
    ) -> Option<Box<RelayPacket>> {
        match item {
            RelayItem::Media(_, packet) => {
                self.counters.relayed_in += 1;
                self.events += 1;
                Some(packet)
            }
            _ => None,
        }
    }
    fn poll_relay(&mut self, _now: Instant, lanes: &mut dyn RelayLanes) -> bool {
        for (to, count) in self.relays.drain(..) {
            for _ in 0..count {
                let packet = lanes.empty(to);
                match lanes.send(to, RelayItem::Media(MediaKind::Video, packet)) {
                    Ok(()) => self.counters.relayed_out += 1,
                    Err(_) => self.counters.relay_dropped += 1,
                }
            }
        }
        false
    }
    fn poll_transmit(&mut self, _now: Instant, batch: &mut TransmitBatch) -> bool {
        while let Some((path, bytes)) = self.out.front() {
            let Some(slot) = batch.slot(bytes.len()) else { return true };
            slot.copy_from_slice(bytes);
            batch.commit(*path, bytes.len());
            if bytes.get(1) == Some(&ECHO)
                && let Some(arrival) = self.echoed.pop_front()
            {
                batch.note_forwarded(arrival);
            }
            self.out.pop_front();
        }
        let Some(path) = self.flooded else { return false };
        while batch.slot(500).is_some() {
            batch.commit(path, 500);
        }
        true
    }
    fn poll_event(&mut self) -> Option<Event> {
        self.events = self.events.checked_sub(1)?;
        Some(event())
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.later.map(|(due, _)| due)
    }
    fn owns(&self, path: &Path) -> bool {
        self.owned.contains(path)
    }
    fn handle_path_taken(&mut self, path: &Path) {
        self.owned.remove(path);
    }
    fn poll_path(&mut self) -> Option<PathChange> {
        self.changes.pop_front()
    }
    fn report(&self) -> (Counters, DiscardCounts, Gauges) {
        (self.counters, self.discards.clone(), Gauges::default())
    }
    fn discard(&mut self, reason: Discard) {
        self.discards.add(reason);
    }
}

/// A node of echoes with the control side of its lanes.
struct Rig {
    node: Node,
    links: ShardLinks,
    ip: IpAddr,
}

fn setup(shards: usize) -> NodeSetup<fn(ShardId) -> Echo> {
    NodeSetup {
        shards,
        listen: Some(IpAddr::from([127, 0, 0, 1])),
        media_port: 0,
        tcp: true,
        pin: true,
        runtime: Runtime::Plain,
        steer: true,
        coalesce: Duration::ZERO,
        stun_owner: second_byte,
        machine: echo,
    }
}

fn rig(setup: NodeSetup<fn(ShardId) -> Echo>) -> Rig {
    let (node, links) = Node::start(setup).unwrap();
    let ip = node.media_address().ip();
    let ip = if ip.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { ip };
    Rig { node, links, ip }
}

impl Rig {
    fn at(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.node.media_address().port())
    }

    fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind((self.ip, 0)).unwrap();
        socket.connect(self.at()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.at()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The next thing a shard tells, waiting as the control thread does.
    fn next(&self, shard: usize) -> FromShard {
        loop {
            if let Some(told) = self.links.from_shards[shard].try_recv() {
                return told;
            }
            let waker = &self.links.waker;
            waker.prepare_sleep();
            if self.links.from_shards[shard].is_empty() {
                let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
                let ready = poll(&mut [PollFd::new(waker, PollFlags::IN)], Some(&timeout));
                assert_eq!(ready, Ok(1), "shard {shard} has nothing to tell");
            }
            waker.awake();
            waker.drain();
        }
    }

    /// A report made after this call.
    fn report(&self, shard: usize) -> Report {
        let mut seen = 0;
        loop {
            if let FromShard::Report(report) = self.next(shard) {
                seen += 1;
                if seen == 2 {
                    return *report;
                }
            }
        }
    }

    fn stop(self) {
        self.node.stop().unwrap();
    }
}

fn ask(socket: &UdpSocket, request: &[u8]) -> Vec<u8> {
    socket.send(request).unwrap();
    listen(socket)
}

fn listen(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer).expect("an answer in time");
    buffer[..len].to_vec()
}

fn write_frame(stream: &mut TcpStream, frame: &[u8]) {
    let length = u16::try_from(frame.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, frame].concat()).unwrap();
}

fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a frame in time");
    let mut frame = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut frame).unwrap();
    frame
}

/// True when the other side closes without sending anything.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}
