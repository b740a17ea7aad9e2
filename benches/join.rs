//! What the engine spends on one receiver's joining: its transport, ICE, DTLS, one consumer, and the
//! first packet.
//!
//! Cases: `create` (the command that makes the transport), `ice` (its client's DTLS parameters and
//! the first authenticated request, answered), `dtls` (the handshake, to SRTP keys), `consume` (the
//! command that makes the consumer), `first packet` (a key frame of one packet of 1,200 bytes in, and
//! sealed out), `close`, and `whole`, the sum of all but the last.
//!
//! The client is a stock str0m on the same thread; only calls of the engine are timed, by the
//! thread's CPU time, less what looking at it costs. Certificates are made before; the cipher is
//! what the two agree on (AES-256-GCM). Control thread and kernel are not in it: joins over the API
//! are the load test's.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "shares the simulator's parts; a bench that cannot go on should stop"
)]

#[path = "gauge/cpu.rs"]
mod cpu;
mod gauge;
#[path = "gauge/sim.rs"]
mod sim;

use std::net::SocketAddr;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use gauge::settings;
use ringcast::control::command::{Command, ConnectTransport, Reply};
use ringcast::engine::Engine;
use ringcast::engine::demux::PacketClass;
use ringcast::engine::dtls::PeerCertificate;
use ringcast::engine::io::{Path, Protocol, Received};
use ringcast::engine::machine::Machine;
use ringcast::engine::srtp::SrtpProfile;
use ringcast::engine::transport::rtc::RemoteDtls;
use sim::params::{BROWSER_CODECS, browser_extensions};
use sim::stage::{Stage, create, created, transport};
use sim::stock::{Numbers, SERVER, StockClient};

/// What one join cost, in the order of happening.
const STEPS: [&str; 6] = ["create", "ice", "dtls", "consume", "first packet", "close"];
const CREATE: usize = 0;
const ICE: usize = 1;
const DTLS: usize = 2;
const CONSUME: usize = 3;
const FIRST_PACKET: usize = 4;
const CLOSE: usize = 5;
/// Joins that one sample counts at most: each takes a client's CPU time, too.
const JOINS_MAX: u64 = 40;

/// A room with a publisher, for one receiver after the other.
struct Lobby {
    stage: Stage,
    joined: usize,
    spent: [Duration; STEPS.len()],
    /// What looking at the clock twice costs.
    looking: Duration,
}

impl Lobby {
    fn new() -> Self {
        let looks = 1_000;
        let begun = cpu::cpu_time();
        for _ in 0..looks {
            std::hint::black_box(cpu::cpu_time());
        }
        let looking = (cpu::cpu_time() - begun) / looks;
        let stage = Stage::new(SrtpProfile::AeadAes256Gcm, 0);
        Self { stage, joined: 0, spent: [Duration::ZERO; STEPS.len()], looking }
    }

    /// One call of the engine, on the bill of a step.
    fn call<T>(&mut self, step: usize, call: impl FnOnce(&mut Engine) -> T) -> T {
        let begun = cpu::cpu_time();
        let result = call(&mut self.stage.engine);
        self.spent[step] += (cpu::cpu_time() - begun).saturating_sub(self.looking);
        result
    }

    fn command(&mut self, step: usize, command: Command) -> Reply {
        let now = self.stage.now;
        self.call(step, |engine| engine.handle_command(now, command)).unwrap()
    }

    /// All that the engine has to send: the datagrams for `path`.
    fn sent_to(&mut self, step: usize, path: Path) -> Vec<Vec<u8>> {
        let (now, mut sent) = (self.stage.now, Vec::new());
        loop {
            let begun = cpu::cpu_time();
            let more = self.stage.engine.poll_transmit(now, &mut self.stage.batch);
            self.spent[step] += (cpu::cpu_time() - begun).saturating_sub(self.looking);
            let batch = &mut self.stage.batch;
            for train in batch.trains().iter().filter(|train| train.path == path) {
                sent.extend(batch.bytes(train).chunks(train.segment()).map(<[u8]>::to_vec));
            }
            batch.clear();
            if !more {
                return sent;
            }
        }
    }

    fn receive(&mut self, step: usize, path: Path, bytes: &[u8]) {
        let now = self.stage.now;
        let received = Received { path, arrival: now, bytes };
        self.call(step, |engine| engine.handle_datagrams(now, &mut std::iter::once(received)));
    }

    fn join(&mut self) {
        self.joined += 1;
        let number = self.joined;
        self.stage.keep_alive();
        let server = created(self.command(CREATE, create(number)));
        let [.., high, low] = number.to_be_bytes();
        let home = SocketAddr::from(([192, 0, high, low], 6000));
        let codecs = BROWSER_CODECS.to_vec();
        let numbers = Numbers { codecs, extensions: browser_extensions() };
        let mut client = StockClient::new(self.stage.now, home, &numbers);
        let connect = ConnectTransport {
            transport: transport(number),
            remote: RemoteDtls {
                fingerprint: client.fingerprint(),
                is_client: true,
                certificate: PeerCertificate::Ecdsa,
            },
        };
        client.connect(&server);
        self.command(ICE, Command::ConnectTransport(connect));
        let path = Path { protocol: Protocol::Udp, remote: home, local: SERVER.ip() };
        self.connect(&mut client, path);
        let consume = self.stage.consume(number);
        self.command(CONSUME, consume);
        self.stage.wants_key = true;
        let frame = self.stage.prepare_frame(&[1200]);
        let publisher = self.stage.publisher_path();
        self.receive(FIRST_PACKET, publisher, &frame[0]);
        let heard = self.sent_to(FIRST_PACKET, path);
        assert!(heard.iter().any(|bytes| PacketClass::of(bytes) == PacketClass::Rtp), "no media");
        self.command(CLOSE, Command::CloseTransport(transport(number)));
        self.sent_to(CLOSE, path);
        while self.stage.engine.poll_event().is_some() {}
    }

    /// Client and engine by themselves, without a network's delay.
    fn connect(&mut self, client: &mut StockClient, path: Path) {
        while !client.connected {
            assert!(!client.closed, "the client gave up");
            let mut moved = false;
            while let Some(bytes) = client.poll_transmit() {
                moved = true;
                let step = if PacketClass::of(&bytes) == PacketClass::Stun { ICE } else { DTLS };
                self.receive(step, path, &bytes);
                for answer in self.sent_to(step, path) {
                    client.handle_datagram(self.stage.now, &answer);
                }
            }
            if !moved {
                let engine = self.stage.engine.poll_timeout();
                let next = client.poll_timeout().into_iter().chain(engine).min().unwrap();
                self.stage.now = self.stage.now.max(next);
                let now = self.stage.now;
                self.call(DTLS, |engine| engine.handle_timeout(now));
                client.handle_timeout(now);
                for answer in self.sent_to(DTLS, path) {
                    client.handle_datagram(now, &answer);
                }
            }
        }
    }

    /// CPU time of some joins, by step.
    fn joins(&mut self, count: u64) -> [Duration; STEPS.len()] {
        self.spent = [Duration::ZERO; STEPS.len()];
        (0..count).for_each(|_| self.join());
        self.spent
    }
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("join");
    let mut lobby = Lobby::new();
    let steps = STEPS.iter().enumerate().map(|(step, name)| (*name, step..step + 1));
    for (name, bill) in steps.chain([("whole", CREATE..CLOSE)]) {
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                let joins = iterations.min(JOINS_MAX);
                let spent: Duration = lobby.joins(joins)[bill.clone()].iter().sum();
                spent.mul_f64(iterations as f64 / joins as f64)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = all;
    config = settings();
    targets = benches
}
criterion_main!(all);
