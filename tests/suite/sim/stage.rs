//! One raw publisher, many raw receivers and nothing between them but the engine: what a bench and a
//! counting allocator look at.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use ringcast::control::command::{
    Command, CreateConsumer, CreateProducer, CreateTransport, Reply, TransportCreated,
};
use ringcast::engine::dtls::DtlsIdentity;
use ringcast::engine::io::{Path, Protocol, Received, TransmitBatch};
use ringcast::engine::machine::Machine;
use ringcast::engine::rtp::NtpTime;
use ringcast::engine::srtp::SrtpProfile;
use ringcast::engine::wall::WallClock;
use ringcast::engine::{Engine, EngineSetup};
use ringcast::id::{ConsumerId, PeerId, ProducerId, RoomId, ShardId, TransportId};
use uuid::Uuid;

use super::media::Codec;
use super::params::{Offer, room_capabilities};
use super::raw::{RawClient, RawPacket};

const SSRC: u32 = 1_000_000;
const CHECKS_EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Stage {
    engine: Engine,
    now: Instant,
    batch: TransmitBatch,
    publisher: (Path, RawClient),
    receivers: Vec<(Path, RawClient)>,
    checked: Instant,
    next_index: u64,
}

fn path(number: usize) -> Path {
    let [.., high, low] = number.to_be_bytes();
    let remote = SocketAddr::from(([198, 51, high, low], 5000));
    Path { protocol: Protocol::Udp, remote, local: SocketAddr::from(([203, 0, 113, 1], 0)).ip() }
}

#[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
fn beginning() -> Instant {
    Instant::now()
}

impl Stage {
    /// A video publisher and its receivers, all with keys of one profile and ready for media.
    pub(crate) fn new(profile: SrtpProfile, receivers: usize) -> Self {
        let now = beginning();
        let wall = WallClock { anchor: now, ntp: NtpTime::from_unix(Duration::from_secs(1)) };
        let identity = Arc::new(DtlsIdentity::generate().unwrap());
        let setup = EngineSetup { shard: ShardId(0), identity, wall, seed: [7; 32] };
        let mut engine = Engine::new(setup);
        let mut rng = StdRng::seed_from_u64(7);
        let mut clients: Vec<_> =
            (0..=receivers).map(|n| join(&mut engine, now, n, profile, &mut rng)).collect();
        let (publisher_path, publisher) = clients.remove(0);
        let room = room_capabilities();
        let offer = Offer {
            codec: Codec::Vp8,
            mid: "0".into(),
            ssrcs: vec![SSRC],
            rids: Vec::new(),
            by_mid: false,
            rtx: true,
            transport_cc: true,
        };
        let produced = offer.negotiate(&room, 100_000_000);
        let producer = ProducerId(Uuid::from_u128(1));
        let create = CreateProducer {
            transport: transport(0),
            producer,
            kind: Codec::Vp8.kind(),
            producer_type: produced.producer_type,
            rtp: produced.rtp.clone(),
            mapping: produced.mapping.clone(),
            consumable: produced.consumable.clone(),
            paused: false,
            key_frame_request_delay: Duration::ZERO,
        };
        engine.handle_command(now, Command::CreateProducer(Box::new(create))).unwrap();
        for number in 1..=receivers {
            let ssrc = 500_000_000 + 2 * u32::try_from(number).unwrap();
            let create = CreateConsumer {
                transport: transport(number),
                consumer: ConsumerId(Uuid::from_u128(number as u128)),
                producer,
                mirror: None,
                rtp: produced.consume(Codec::Vp8, &room, ssrc, "0"),
                paused: false,
                preferred_layers: None,
            };
            engine.handle_command(now, Command::CreateConsumer(Box::new(create))).unwrap();
        }
        let batch = TransmitBatch::new(256 * 1024, 64, 8);
        let publisher = (publisher_path, publisher);
        let mut stage =
            Self { engine, now, batch, publisher, receivers: clients, checked: now, next_index: 1 };
        stage.flush();
        stage
    }

    /// Sealed datagrams of the publisher, `burst` of `bytes` payload each; the first begins a key
    /// frame, once.
    pub(crate) fn prepare(
        &mut self,
        bursts: usize,
        burst: usize,
        bytes: usize,
    ) -> Vec<Vec<Vec<u8>>> {
        let mut payload = vec![0x5a; bytes];
        (0..bursts)
            .map(|_| {
                let datagrams = (0..burst).map(|place| {
                    let key = self.next_index == 1;
                    let start = if place == 0 { 0x90 } else { 0x80 };
                    payload[..5].copy_from_slice(&[start, 0x80, 0x80, 1, u8::from(!key)]);
                    let index = self.next_index;
                    self.next_index += 1;
                    let [.., a, b, c, d] = (index / burst as u64 * 3000).to_be_bytes();
                    let [.., high, low] = index.to_be_bytes();
                    self.publisher.1.seal(&RawPacket {
                        ssrc: SSRC,
                        payload_type: 96,
                        marker: place + 1 == burst,
                        index,
                        timestamp: u32::from_be_bytes([a, b, c, d]),
                        mid: None,
                        transport_seq: Some((3, u16::from_be_bytes([high, low]))),
                        payload: &payload,
                        padding: 0,
                    })
                });
                datagrams.collect()
            })
            .collect()
    }

    /// One turn of a shard: a burst in, what is due out; `step` later the next. Returns how many
    /// datagrams of media left.
    pub(crate) fn forward(&mut self, datagrams: &[Vec<u8>], step: Duration) -> usize {
        self.now += step;
        let path = self.publisher.0;
        let mut batch = datagrams.iter().map(|bytes| Received { path, bytes });
        self.engine.handle_datagrams(self.now, &mut batch);
        self.flush()
    }

    /// What passes besides media: timers, reports and ICE checks. Allocates.
    pub(crate) fn keep_alive(&mut self) {
        if self.engine.poll_timeout().is_some_and(|at| at <= self.now) {
            self.engine.handle_timeout(self.now);
        }
        if self.now - self.checked > CHECKS_EVERY {
            self.checked = self.now;
            for (path, client) in self.receivers.iter().chain([&self.publisher]) {
                let check = client.ice_check();
                let received = Received { path: *path, bytes: &check };
                self.engine.handle_datagrams(self.now, &mut std::iter::once(received));
            }
        }
        self.flush();
    }

    fn flush(&mut self) -> usize {
        let mut media = 0;
        loop {
            let more = self.engine.poll_transmit(self.now, &mut self.batch);
            for train in self.batch.trains() {
                if self.batch.bytes(train).first().is_some_and(|first| *first >= 128) {
                    media += train.segments();
                }
            }
            self.batch.clear();
            if !more {
                return media;
            }
        }
    }
}

fn transport(number: usize) -> TransportId {
    TransportId(Uuid::from_u128(number as u128))
}

fn join(
    engine: &mut Engine,
    now: Instant,
    number: usize,
    profile: SrtpProfile,
    rng: &mut StdRng,
) -> (Path, RawClient) {
    let create = CreateTransport {
        transport: transport(number),
        room: RoomId::try_from("stage").unwrap(),
        peer: PeerId::try_from("peer").unwrap(),
    };
    let reply = engine.handle_command(now, Command::CreateTransport(create)).unwrap();
    let created: TransportCreated = match reply {
        Reply::TransportCreated(created) => created,
        other => panic!("{other:?}"),
    };
    let client = RawClient::new(now, profile, &created, rng);
    assert!(engine.install_keys(now, transport(number), &client.server_keys));
    let check = client.ice_check();
    let path = path(number);
    engine.handle_datagrams(now, &mut std::iter::once(Received { path, bytes: &check }));
    (path, client)
}
