//! Whole shards over real sockets, with a machine that echoes.

use std::collections::{HashSet, VecDeque};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::command::{CallId, CloseReason, Command, Event, FromShard, Refusal, Reply};
use crate::engine::io::{Path, Received, TransmitBatch};
use crate::engine::machine::Machine;
use crate::engine::report::{Counters, Discard, DiscardCounts, Gauges, Report};
use crate::id::{ConsumerId, ProducerId, ShardId, TransportId};
use crate::limits::{EVENT_LANE_CAPACITY, TCP_WRITE_BYTES_MAX};
use crate::node::{Node, NodeError, NodeSetup, Runtime, ShardLinks, ShardMessage};

const PATIENCE: Duration = Duration::from_secs(10);

/// First bytes of requests that are not STUN.
const ECHO: u8 = 128;
const TRAIN: u8 = 129;
const LATER: u8 = 130;
const EVENTS: u8 = 131;
const PANIC: u8 = 132;

/// "STUN" validates its path; the rest is answered only from validated paths. Answers begin with
/// the shard.
struct Echo {
    shard: ShardId,
    owned: HashSet<Path>,
    out: VecDeque<(Path, Vec<u8>)>,
    later: Option<(Instant, Path)>,
    events: usize,
    discards: DiscardCounts,
}

fn echo(shard: ShardId) -> Echo {
    Echo {
        shard,
        owned: HashSet::new(),
        out: VecDeque::new(),
        later: None,
        events: 0,
        discards: DiscardCounts::default(),
    }
}

/// "STUN" is 0, the owner, anything.
fn second_byte(bytes: &[u8]) -> Option<ShardId> {
    match bytes {
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
            self.owned.insert(path);
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
            [PANIC, ..] => panic!("as asked"),
            [LATER, ..] => self.later = Some((now + Duration::from_millis(20), path)),
            [EVENTS, high, low, ..] => {
                self.events = usize::from(u16::from_be_bytes([*high, *low]));
                self.out.push_back((path, vec![shard, EVENTS]));
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
    fn poll_transmit(&mut self, _now: Instant, batch: &mut TransmitBatch) -> bool {
        while let Some((path, bytes)) = self.out.front() {
            let Some(slot) = batch.slot(bytes.len()) else { return true };
            slot.copy_from_slice(bytes);
            batch.commit(*path, bytes.len());
            self.out.pop_front();
        }
        false
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
    fn report(&self) -> (Counters, DiscardCounts, Gauges) {
        (Counters::default(), self.discards.clone(), Gauges::default())
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

#[test]
fn every_client_reaches_the_shard_its_stun_names_whatever_socket_the_kernel_chose() {
    for (shards, runtime, listen) in [
        (1, Runtime::Plain, Some("127.0.0.1")),
        (2, Runtime::Plain, Some("::1")),
        (5, Runtime::Plain, None),
        (3, Runtime::Glommio, Some("127.0.0.1")),
    ] {
        let listen = listen.map(|ip| ip.parse().unwrap());
        let rig = rig(NodeSetup { runtime, listen, ..setup(shards) });
        let clients: Vec<_> = (0..32_u8).map(|_| rig.udp()).collect();
        for (n, client) in (0_u8..).zip(&clients) {
            let owner = n % u8::try_from(shards).unwrap();
            assert_eq!(ask(client, &[0, owner, n]), [owner, 0, owner, n]);
            for round in 0..3 {
                assert_eq!(ask(client, &[ECHO, n, round]), [owner, ECHO, n, round], "{shards}");
            }
        }
        let reports: Vec<_> = (0..shards).map(|shard| rig.report(shard)).collect();
        let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
        assert_eq!(sum(|r| r.io.handed_off), sum(|r| r.io.taken_over));
        assert_eq!(sum(|r| r.io.handed_off) > 0, shards > 1, "32 clients do not all fall right");
        assert_eq!(sum(|r| r.io.datagrams_in), 32 * 4);
        assert_eq!(sum(|r| r.io.datagrams_out), 32 * 4);
        assert_eq!(sum(|r| r.discards.count(Discard::UnknownAddress)), 0);
        rig.stop();
    }
}

#[test]
fn a_client_that_moves_to_another_shard_is_followed_from_the_same_address() {
    let rig = rig(setup(4));
    let client = rig.udp();
    for owner in [0, 1, 2, 3, 2, 0] {
        assert_eq!(ask(&client, &[0, owner, 9]), [owner, 0, owner, 9]);
        let answer = ask(&client, &[ECHO, 1]);
        // The echoes never give up a path, so a shard that owned it before may answer itself.
        assert_eq!(&answer[1..], [ECHO, 1]);
    }
    rig.stop();
}

#[test]
fn strangers_are_discarded_and_not_remembered() {
    let rig = rig(setup(2));
    for n in 0..20 {
        rig.udp().send(&[ECHO, n]).unwrap();
    }
    let known = rig.udp();
    assert_eq!(ask(&known, &[0, 1, 1]), [1, 0, 1, 1]);
    let reports = [rig.report(0), rig.report(1)];
    let discards = reports.iter().map(|r| r.discards.count(Discard::UnknownAddress));
    assert_eq!(discards.sum::<u64>(), 20);
    assert!(reports.iter().map(|r| r.io.handed_off).sum::<u64>() <= 1);
    rig.stop();
}

#[test]
fn a_train_arrives_as_separate_datagrams_in_order() {
    let rig = rig(setup(2));
    let client = rig.udp();
    ask(&client, &[0, 1]);
    client.send(&[TRAIN, 50]).unwrap();
    for n in 0..50 {
        let datagram = listen(&client);
        assert_eq!((datagram.len(), &datagram[..3]), (1000, &[1, n, n][..]));
    }
    let report = rig.report(1);
    assert_eq!(report.io.datagrams_out, 51);
    // One answer and 50 datagrams in trains of at most 8; one by one where there is no GSO.
    assert!([8, 51].contains(&report.io.messages_out), "{:?}", report.io);
    rig.stop();
}

#[test]
fn a_deadline_of_the_machine_is_met_without_traffic() {
    for runtime in [Runtime::Plain, Runtime::Glommio] {
        let rig = rig(NodeSetup { runtime, ..setup(1) });
        let client = rig.udp();
        ask(&client, &[0, 0]);
        assert_eq!(ask(&client, &[LATER]), [LATER, 0], "late perhaps, early never");
        rig.stop();
    }
}

#[test]
fn commands_are_answered_in_order_with_the_number_of_their_call() {
    for runtime in [Runtime::Plain, Runtime::Glommio] {
        let rig = rig(NodeSetup { runtime, ..setup(2) });
        for call in 0..200 {
            let command = if call % 2 == 0 {
                Command::CloseProducer(ProducerId(uuid::Uuid::nil()))
            } else {
                Command::RequestKeyFrame(ConsumerId(uuid::Uuid::nil()))
            };
            let message = ShardMessage { call: CallId(call), command };
            assert!(rig.links.senders[1].try_send(message).is_ok());
        }
        let mut call = 0;
        while call < 200 {
            if let FromShard::Answer(id, answer) = rig.next(1) {
                assert_eq!(id, CallId(call));
                assert_eq!(answer.is_ok(), call % 2 == 0);
                call += 1;
            }
        }
        rig.stop();
    }
}

#[test]
fn events_that_find_the_lane_full_are_counted_and_told() {
    let rig = rig(setup(1));
    let client = rig.udp();
    ask(&client, &[0, 0]);
    let extra = 1000_u64;
    let events = u16::try_from(EVENT_LANE_CAPACITY).unwrap() + 1000;
    let [high, low] = events.to_be_bytes();
    assert_eq!(ask(&client, &[EVENTS, high, low]), [0, EVENTS]);
    // The answer leaves before the events are told: another round lets them be.
    ask(&client, &[ECHO]);
    let (mut told, mut lost) = (0, 0);
    while told + lost < u64::from(events) {
        match rig.next(0) {
            FromShard::Event(Event::Lost(count)) => lost += count,
            FromShard::Event(_) => told += 1,
            _ => {}
        }
    }
    assert_eq!(told + lost, u64::from(events));
    assert!(lost >= extra.saturating_sub(1), "{lost} lost of {events}");
    let report = rig.report(0);
    assert_eq!(report.counters.events_lost, lost);
    rig.stop();
}

#[test]
fn a_tcp_connection_goes_to_the_shard_its_first_frame_names() {
    for (shards, runtime) in [(1, Runtime::Plain), (4, Runtime::Plain), (2, Runtime::Glommio)] {
        let rig = rig(NodeSetup { runtime, ..setup(shards) });
        for n in 0..12_u8 {
            let owner = n % u8::try_from(shards).unwrap();
            let mut stream = rig.tcp();
            // Both in one segment: the second must not be lost on the way to the owner.
            stream.write_all(&[0, 3, 0, owner, n, 0, 2, ECHO, n]).unwrap();
            assert_eq!(read_frame(&mut stream), [owner, 0, owner, n]);
            assert_eq!(read_frame(&mut stream), [owner, ECHO, n]);
            // One byte at a time.
            for byte in [0, 3, ECHO, 7, 8] {
                stream.write_all(&[byte]).unwrap();
            }
            assert_eq!(read_frame(&mut stream), [owner, ECHO, 7, 8]);
        }
        rig.stop();
    }
}

#[test]
fn a_dual_stack_listener_takes_tcp_over_both_families() {
    let rig = rig(NodeSetup { listen: None, ..setup(2) });
    let port = rig.node.media_address().port();
    for ip in ["127.0.0.1", "::1"] {
        let mut stream = TcpStream::connect((ip.parse::<IpAddr>().unwrap(), port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write_frame(&mut stream, &[0, 1, 5]);
        assert_eq!(read_frame(&mut stream), [1, 0, 1, 5]);
    }
    rig.stop();
}

#[test]
fn a_connection_whose_first_frame_is_no_stun_for_a_shard_of_ours_is_closed() {
    let rig = rig(setup(2));
    let long = [&[0xff, 0xff][..], &[0; 100]].concat();
    for first in [&[0, 2, ECHO, 1][..], &[0, 2, 0, 77], b"GET / HTTP/1.1\r\n\r\n", &long] {
        let mut stream = rig.tcp();
        stream.write_all(first).unwrap();
        assert!(is_closed(&mut stream), "{first:?}");
    }
    rig.stop();
}

#[test]
fn an_overlong_frame_ends_its_connection_and_the_machine_is_told() {
    let rig = rig(setup(1));
    let mut stream = rig.tcp();
    write_frame(&mut stream, &[0, 0]);
    assert_eq!(read_frame(&mut stream), [0, 0, 0]);
    stream.write_all(&[0xff, 0xff]).unwrap();
    assert!(is_closed(&mut stream));
    while !matches!(rig.next(0), FromShard::Event(Event::TransportClosed { .. })) {}
    rig.stop();
}

#[test]
fn a_tcp_client_that_does_not_read_loses_whole_frames_and_nothing_else() {
    let rig = rig(setup(1));
    let mut stream = rig.tcp();
    write_frame(&mut stream, &[0, 0]);
    assert_eq!(read_frame(&mut stream), [0, 0, 0]);
    let asked = 40 * 255;
    for _ in 0..40 {
        write_frame(&mut stream, &[TRAIN, 255]);
    }
    // A datagram client is served meanwhile: the shard does not block.
    let client = rig.udp();
    ask(&client, &[0, 0]);
    let failed = loop {
        let io = rig.report(0).io;
        if io.datagrams_out + io.send_failed >= asked + 2 {
            break io.send_failed;
        }
    };
    assert!(failed > 0, "more than buffers hold: {} and the kernel's", TCP_WRITE_BYTES_MAX);
    for _ in 0..asked - failed {
        let frame = read_frame(&mut stream);
        assert_eq!(frame.len(), 1000, "no frame is cut");
        assert!(frame[1] == frame[2] && frame[2] == frame[999]);
    }
    write_frame(&mut stream, &[ECHO, 5]);
    assert_eq!(read_frame(&mut stream), [0, ECHO, 5]);
    rig.stop();
}

#[test]
fn many_strangers_do_not_keep_others_out() {
    let rig = rig(setup(1));
    let strangers: Vec<_> = (0..300).map(|_| rig.tcp()).collect();
    let mut stream = rig.tcp();
    write_frame(&mut stream, &[0, 0, 1]);
    assert_eq!(read_frame(&mut stream), [0, 0, 0, 1]);
    drop(strangers);
    rig.stop();
}

#[test]
fn a_second_node_cannot_join_the_first_ones_port_and_can_have_it_afterwards() {
    let first = rig(setup(2));
    let media_port = first.node.media_address().port();
    let again = NodeSetup { media_port, ..setup(2) };
    let refused = Node::start(again.clone()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, NodeError::Bind { .. }), "{refused}");
    first.stop();
    let second = rig(again);
    assert_eq!(second.node.media_address().port(), media_port);
    assert_eq!(ask(&second.udp(), &[0, 1]), [1, 0, 1]);
    second.stop();
}

#[test]
fn a_node_without_shards_is_refused() {
    assert!(matches!(Node::start(setup(0)), Err(NodeError::Shards(0))));
}

#[test]
fn a_report_says_what_runs_the_shard() {
    let plain = rig(setup(1));
    assert!(!plain.node.is_on_glommio() && !plain.report(0).on_glommio);
    plain.stop();
    let glommio = rig(NodeSetup { runtime: Runtime::Glommio, ..setup(1) });
    let report = glommio.report(0);
    assert_eq!(report.on_glommio, glommio.node.is_on_glommio());
    assert!(report.busy < 0.9, "an idle shard waits: {}", report.busy);
    assert!(report.io.sleeps < 1000, "and does not spin: {:?}", report.io);
    glommio.stop();
}

/// Runs one of the ignored tests below in a process of its own; returns its exit code.
fn in_a_process(limit: &str, test: &str) -> Option<i32> {
    let this = std::env::current_exe().unwrap();
    let script = format!("{limit} exec \"$0\" --exact shard::tests::{test} --ignored");
    let output = std::process::Command::new("sh").args(["-c", &script]).arg(this).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("running 1 test"), "{text}");
    output.status.code()
}

#[test]
fn where_io_uring_is_refused_a_shard_runs_on_a_plain_thread() {
    let code = in_a_process("ulimit -l 64;", "a_shard_with_little_locked_memory_serves");
    assert_eq!(code, Some(0));
}

#[test]
#[ignore = "started by the test above, which limits locked memory"]
fn a_shard_with_little_locked_memory_serves() {
    let rig = rig(NodeSetup { runtime: Runtime::Glommio, ..setup(2) });
    assert!(!rig.node.is_on_glommio());
    assert_eq!(ask(&rig.udp(), &[0, 1, 7]), [1, 0, 1, 7]);
    assert!(!rig.report(1).on_glommio);
    rig.stop();
}

#[test]
fn a_panic_on_a_shards_thread_ends_the_process() {
    assert_eq!(in_a_process("", "a_shard_that_panics"), Some(70));
}

#[test]
#[ignore = "started by the test above: it ends its process"]
fn a_shard_that_panics() {
    let rig = rig(setup(2));
    let client = rig.udp();
    assert_eq!(ask(&client, &[0, 1]), [1, 0, 1]);
    client.send(&[PANIC]).unwrap();
    listen(&client);
}
