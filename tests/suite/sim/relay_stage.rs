//! A raw publisher on one engine, raw receivers on another, and lanes without delay between: what a
//! counting allocator looks at.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use ringcast::control::command::{
    Command, CreateConsumer, CreateProducer, CreateTransport, Mirror, Reply,
};
use ringcast::engine::dtls::DtlsIdentity;
use ringcast::engine::io::{Path, Protocol, Received, TransmitBatch};
use ringcast::engine::machine::Machine;
use ringcast::engine::relay::{RelayItem, RelayLanes, RelayPacket};
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
const ORIGIN: ShardId = ShardId(0);
const THERE: ShardId = ShardId(1);

/// Lanes that take everything, and boxes that came back.
struct Lanes {
    now: Instant,
    items: VecDeque<RelayItem>,
    empties: VecDeque<Box<RelayPacket>>,
    pulses: u64,
}

impl RelayLanes for Lanes {
    fn empty(&mut self, _to: ShardId) -> Box<RelayPacket> {
        self.empties.pop_front().unwrap_or_else(|| RelayPacket::empty(self.now))
    }

    fn send(&mut self, _to: ShardId, item: RelayItem) -> Result<(), RelayItem> {
        self.pulses += u64::from(matches!(item, RelayItem::Pulse(_)));
        self.items.push_back(item);
        Ok(())
    }
}

pub(crate) struct RelayStage {
    origin: Engine,
    there: Engine,
    now: Instant,
    batch: TransmitBatch,
    publisher: (Path, RawClient),
    lanes: Lanes,
    next_index: u64,
}

#[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
fn beginning() -> Instant {
    Instant::now()
}

fn transport(number: usize) -> TransportId {
    TransportId(Uuid::from_u128(number as u128))
}

/// Makes a connected transport.
fn join(
    engine: &mut Engine,
    now: Instant,
    number: usize,
    profile: SrtpProfile,
) -> (Path, RawClient) {
    let create = CreateTransport {
        transport: transport(number),
        room: RoomId::try_from("stage").unwrap(),
        peer: PeerId::try_from("peer").unwrap(),
    };
    let reply = engine.handle_command(now, Command::CreateTransport(create)).unwrap();
    let Reply::TransportCreated(created) = reply else { panic!("{reply:?}") };
    let mut rng = StdRng::seed_from_u64(number as u64);
    let client = RawClient::new(now, profile, &created, &mut rng);
    assert!(engine.install_keys(now, transport(number), &client.server_keys));
    let [.., high, low] = number.to_be_bytes();
    let remote = SocketAddr::from(([198, 51, high, low], 5000));
    let local = SocketAddr::from(([203, 0, 113, 1], 0)).ip();
    let path = Path { protocol: Protocol::Udp, remote, local };
    let check = client.ice_check();
    engine.handle_datagrams(
        now,
        &mut std::iter::once(Received { path, arrival: now, bytes: &check }),
    );
    (path, client)
}

impl RelayStage {
    pub(crate) fn new(profile: SrtpProfile, receivers: usize) -> Self {
        let now = beginning();
        let wall = WallClock { anchor: now, ntp: NtpTime::from_unix(Duration::from_secs(1)) };
        let identity = Arc::new(DtlsIdentity::generate().unwrap());
        let engine = |shard: ShardId| {
            let identity = Arc::clone(&identity);
            Engine::new(EngineSetup { shard, identity, wall, seed: [7; 32] })
        };
        let (mut origin, mut there) = (engine(ORIGIN), engine(THERE));
        let publisher = join(&mut origin, now, 0, profile);
        let room = room_capabilities();
        let offer = Offer {
            codec: Codec::Vp8,
            mid: "0".into(),
            ssrcs: vec![SSRC],
            rids: Vec::new(),
            by_mid: false,
            rtx: true,
            transport_cc: true,
            mode: None,
        };
        let produced = offer.negotiate(&room, 100_000_000);
        let source = Arc::new(CreateProducer {
            transport: transport(0),
            producer: ProducerId(Uuid::from_u128(1)),
            kind: Codec::Vp8.kind(),
            producer_type: produced.producer_type,
            rtp: produced.rtp.clone(),
            mapping: produced.mapping.clone(),
            consumable: produced.consumable.clone(),
            paused: false,
            key_frame_request_delay: Duration::ZERO,
        });
        let create = Command::CreateProducer(Box::new((*source).clone()));
        origin.handle_command(now, create).unwrap();
        for number in 1..=receivers {
            join(&mut there, now, number, profile);
            let ssrc = 500_000_000 + 2 * u32::try_from(number).unwrap();
            let source = Arc::clone(&source);
            let create = CreateConsumer {
                transport: transport(number),
                consumer: ConsumerId(Uuid::from_u128(number as u128)),
                producer: source.producer,
                mirror: Some(Mirror { origin: ORIGIN, source, paused: false }),
                rtp: produced.consume(Codec::Vp8, &room, ssrc, "0"),
                renumbered: Vec::new(),
                paused: false,
                preferred_layers: None,
                ignore_dtx: false,
            };
            there.handle_command(now, Command::CreateConsumer(Box::new(create))).unwrap();
        }
        let lanes = Lanes {
            now,
            items: VecDeque::with_capacity(1024),
            empties: VecDeque::with_capacity(1024),
            pulses: 0,
        };
        let batch = TransmitBatch::new(256 * 1024, 64, 8);
        let mut stage = Self { origin, there, now, batch, publisher, lanes, next_index: 1 };
        stage.turn();
        stage
    }

    /// Sealed datagrams of the publisher, five of 1,200 bytes each.
    pub(crate) fn prepare(&mut self, bursts: usize) -> Vec<Vec<Vec<u8>>> {
        let mut payload = vec![0x5a; 1_200];
        let mut datagram = |place: u32| {
            let index = self.next_index;
            self.next_index += 1;
            let start = if place == 0 { 0x90 } else { 0x80 };
            payload[..5].copy_from_slice(&[start, 0x80, 0x80, 1, u8::from(index != 1)]);
            self.publisher.1.seal(&RawPacket {
                ssrc: SSRC,
                payload_type: 96,
                marker: place == 4,
                index,
                timestamp: u32::try_from(index / 5 * 3_000).unwrap(),
                mid: None,
                transport_seq: None,
                payload: &payload,
                padding: 0,
            })
        };
        (0..bursts).map(|_| (0..5).map(&mut datagram).collect()).collect()
    }

    /// One turn of both shards; returns how many datagrams of media left, and how many pulses so far.
    pub(crate) fn forward(&mut self, datagrams: &[Vec<u8>], step: Duration) -> (usize, u64) {
        self.now += step;
        let path = self.publisher.0;
        let now = self.now;
        let mut batch = datagrams.iter().map(|bytes| Received { path, arrival: now, bytes });
        self.origin.handle_datagrams(self.now, &mut batch);
        (self.turn(), self.lanes.pulses)
    }

    fn turn(&mut self) -> usize {
        let (now, lanes) = (self.now, &mut self.lanes);
        self.there.poll_relay(now, lanes);
        while let Some(item) = lanes.items.pop_front() {
            lanes.empties.extend(self.origin.handle_relay(now, THERE, item));
        }
        self.origin.poll_relay(now, lanes);
        while let Some(item) = lanes.items.pop_front() {
            lanes.empties.extend(self.there.handle_relay(now, ORIGIN, item));
        }
        self.there.poll_relay(now, lanes);
        let mut media = 0;
        for engine in [&mut self.origin, &mut self.there] {
            loop {
                let more = engine.poll_transmit(now, &mut self.batch);
                for train in self.batch.trains() {
                    if self.batch.bytes(train).first().is_some_and(|first| *first >= 128) {
                        media += train.segments();
                    }
                }
                self.batch.clear();
                if !more {
                    break;
                }
            }
        }
        media
    }
}
