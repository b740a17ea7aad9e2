//! How long a command takes from the control thread to a shard and back, in real time.
//!
//! Cases, over the real lanes to a real shard (one, pinned, on glommio where it may run), with a
//! command that finds nothing to do, so that the way is what is measured:
//! * `shard/awake`: the shard is at work on datagrams (of nobody, sent just before);
//! * `shard/waiting`: it waits with `ppoll`, as between two packets; the wake is in it;
//! * `shard/parked`: it has been idle for longer than `IDLE_BEFORE_PARK`, and sleeps in its
//!   executor;
//! * `shard/64 at once`: per command, of as many as a shard takes in a turn.
//!
//! Through a whole server and one HTTP connection that is kept open, the client's part included:
//! * `api/room`: a request that no shard hears of;
//! * `api/pause`: a producer paused and resumed in turn, each a round trip API → shard → API.
//!
//! Real time is at the mercy of a shared machine: on two noisy cores, look at the lowest of several
//! runs.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "shares the end-to-end tests' parts; a bench that cannot go on should stop"
)]

mod gauge;
#[path = "../tests/suite/e2e/http.rs"]
#[expect(dead_code, reason = "the end-to-end tests use more of it")]
mod http;
#[path = "../tests/suite/e2e/media.rs"]
#[expect(dead_code, reason = "the end-to-end tests use more of it")]
mod media;
#[path = "../tests/suite/e2e/servers.rs"]
#[expect(dead_code, reason = "the end-to-end tests use more of it")]
mod servers;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use gauge::settings;
use media::{Kind, Source};
use ringcast::control::command::{CallId, Command, FromShard, Refusal};
use ringcast::engine::demux::stun_owner;
use ringcast::engine::dtls::DtlsIdentity;
use ringcast::engine::rtp::NtpTime;
use ringcast::engine::wall::WallClock;
use ringcast::engine::{Engine, EngineSetup};
use ringcast::id::{ConsumerId, ShardId};
use ringcast::limits::{COMMANDS_PER_TURN_MAX, IDLE_BEFORE_PARK};
use ringcast::node::{Node, NodeSetup, Runtime, ShardLinks, ShardMessage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use servers::{Hosted, clock};

/// Datagrams that keep a shard busy while a command is on its way to it.
const BUSY_DATAGRAMS: usize = 64;
/// Round trips to a parked shard in a sample: each costs the time until it parks.
const PARKED_MAX: u64 = 40;

/// One shard and the control side of its lanes.
struct Rig {
    node: Node,
    links: ShardLinks,
    calls: u64,
}

impl Rig {
    fn new() -> Self {
        let wall = WallClock { anchor: clock(), ntp: NtpTime::from_unix(Duration::from_secs(1)) };
        let identity = Arc::new(DtlsIdentity::generate().unwrap());
        let setup = NodeSetup {
            shards: 1,
            listen: Some(IpAddr::from([127, 0, 0, 1])),
            media_port: 0,
            tcp: true,
            pin: true,
            runtime: Runtime::Glommio,
            steer: false,
            coalesce: Duration::ZERO,
            stun_owner,
            machine: move |shard: ShardId| {
                let identity = Arc::clone(&identity);
                Engine::new(EngineSetup { shard, identity, wall, seed: [7; 32] })
            },
        };
        let (node, links) = Node::start(setup).unwrap();
        Self { node, links, calls: 0 }
    }

    fn submit(&mut self) {
        self.calls += 1;
        let command = Command::RequestKeyFrame(ConsumerId(uuid::Uuid::nil()));
        let message = ShardMessage { call: CallId(self.calls), command };
        self.links.senders[0].try_send(message).unwrap();
    }

    /// The next answer, waited for as the control thread does.
    fn answer(&self) {
        let (lane, waker) = (&self.links.from_shards[0], &self.links.waker);
        loop {
            match lane.try_recv() {
                Some(FromShard::Answer(_, answer)) => {
                    assert_eq!(answer.unwrap_err(), Refusal::NoConsumer);
                    return;
                }
                Some(_) => continue,
                None => {}
            }
            waker.prepare_sleep();
            if lane.is_empty() {
                let ready = poll(&mut [PollFd::new(waker, PollFlags::IN)], Some(&seconds(10)));
                assert_eq!(ready, Ok(1), "no answer");
            }
            waker.awake();
            waker.drain();
        }
    }

    fn round_trip(&mut self) {
        self.submit();
        self.answer();
    }
}

fn seconds(seconds: i64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: 0 }
}

fn shard(c: &mut Criterion) {
    let mut group = c.benchmark_group("command/shard");
    let mut rig = Rig::new();
    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    noise.connect(rig.node.media_address()).unwrap();
    group.bench_function("awake", |b| {
        b.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                for _ in 0..BUSY_DATAGRAMS {
                    noise.send(&[0x80; 100]).unwrap();
                }
                let begun = clock();
                rig.round_trip();
                spent += clock() - begun;
            }
            spent
        });
    });
    group.bench_function("waiting", |b| b.iter(|| rig.round_trip()));
    group.bench_function("parked", |b| {
        b.iter_custom(|iterations| {
            let trips = iterations.min(PARKED_MAX);
            let mut spent = Duration::ZERO;
            for _ in 0..trips {
                let idle = 2 * i64::from(IDLE_BEFORE_PARK.subsec_nanos());
                poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: idle })).unwrap();
                let begun = clock();
                rig.round_trip();
                spent += clock() - begun;
            }
            spent.mul_f64(iterations as f64 / trips as f64)
        });
    });
    group.bench_function("64 at once", |b| {
        b.iter_custom(|iterations| {
            let turns = iterations.div_ceil(COMMANDS_PER_TURN_MAX as u64);
            let begun = clock();
            for _ in 0..turns {
                (0..COMMANDS_PER_TURN_MAX).for_each(|_| rig.submit());
                (0..COMMANDS_PER_TURN_MAX).for_each(|_| rig.answer());
            }
            let done = turns * COMMANDS_PER_TURN_MAX as u64;
            (clock() - begun).mul_f64(iterations as f64 / done as f64)
        });
    });
    group.finish();
    rig.node.stop().unwrap();
}

/// One HTTP connection that stays open.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn ask(&mut self, method: &str, path: &str) {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: 0\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 20"), "{method} {path}: {line}");
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        self.0.read_exact(&mut vec![0; length]).unwrap();
    }
}

/// A room with one producer; the producer's id.
fn produce(server: &Hosted) -> String {
    let made = |path: &str, body: &Value| {
        let answer = server.api.post(path, body);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.data()
    };
    made("/media/room", &json!({ "roomId": "bench" }));
    let transport =
        made("/media/transport/bench", &json!({ "peerId": "alice", "direction": "send" }));
    let source = Source::new(Kind::Audio, 1_000, "0", clock());
    let producer = json!({
        "roomId": "bench", "peerId": "alice", "transportId": transport["id"],
        "kind": "audio", "rtpParameters": source.rtp_parameters(),
    });
    made("/media/producer", &producer)["producerId"].as_str().unwrap().to_owned()
}

fn api(c: &mut Criterion) {
    let mut group = c.benchmark_group("command/api");
    let server = Hosted::start(&["--shards=1", "--log=warn"]);
    let producer = produce(&server);
    let stream = TcpStream::connect(server.api.0).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut connection = Connection(BufReader::new(stream));
    group.bench_function("room", |b| b.iter(|| connection.ask("GET", "/media/room/bench")));
    let ways = ["pause", "resume"].map(|way| format!("/media/producer/{producer}/{way}"));
    let mut ways = ways.iter().cycle();
    group.bench_function("pause", |b| b.iter(|| connection.ask("POST", ways.next().unwrap())));
    group.finish();
    drop(connection);
    server.stop();
}

criterion_group! {
    name = all;
    config = settings();
    targets = shard, api
}
criterion_main!(all);
