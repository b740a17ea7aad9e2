//! One raw publisher, many raw receivers and nothing between them but the engine: what a bench and a
//! counting allocator look at.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use ringcast::control::command::{
    BitrateChange, Command, CreateConsumer, CreateProducer, CreateTransport, Reply,
    TransportCreated,
};
use ringcast::engine::demux::PacketClass;
use ringcast::engine::dtls::DtlsIdentity;
use ringcast::engine::io::{Path, Protocol, Received, TransmitBatch};
use ringcast::engine::machine::Machine;
use ringcast::engine::rtcp::{Arrival, FeedbackHead, RtcpWriter};
use ringcast::engine::rtp::{NtpTime, RtpView};
use ringcast::engine::srtp::SrtpProfile;
use ringcast::engine::wall::WallClock;
use ringcast::engine::{Engine, EngineSetup};
use ringcast::id::{ConsumerId, PeerId, ProducerId, RoomId, ShardId, TransportId};
use ringcast::limits::{SEGMENTS_PER_TRAIN_MAX, TRAINS_PER_BATCH_MAX, TRANSMIT_BATCH_BYTES};
use ringcast::ortc::types::RtpCapabilities;
use uuid::Uuid;

use super::media::Codec;
use super::params::{LEVEL, Offer, Produced, browser_payload_type, room_capabilities};
use super::raw::{RawClient, RawPacket};

const SSRC: u32 = 1_000_000;
const PRODUCER: ProducerId = ProducerId(Uuid::from_u128(1));
const CHECKS_EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Stage {
    pub(crate) engine: Engine,
    pub(crate) now: Instant,
    pub(crate) batch: TransmitBatch,
    publisher: (Path, RawClient),
    receivers: Vec<(Path, RawClient)>,
    codec: Codec,
    produced: Produced,
    checked: Instant,
    next_index: u64,
    frames: u32,
    /// The next frame begins a key frame.
    pub(crate) wants_key: bool,
    adaptive: Option<Adaptive>,
    /// What receivers understand.
    understood: RtpCapabilities,
    /// Messages with media that left so far: each may hold several datagrams.
    pub(crate) trains: u64,
}

/// How often receivers tell what arrived.
const ANSWER_EVERY: Duration = Duration::from_millis(100);
/// What each of their links carries at least.
const LINK_BPS: u64 = 200_000_000;
/// A feedback's clock begins later than zero.
const TICKS_ZERO: u64 = 1 << 20;

/// Three temporal layers on one side, on the other receivers who tell what arrives.
struct Adaptive {
    /// Extension id of transport-wide numbers.
    number_id: u8,
    /// Of all consumers.
    preferred: Option<(u8, Option<u8>)>,
    /// The next number of each receiver, once it got one.
    next: Vec<Option<u16>>,
    /// First and last number that each receiver has not told of.
    heard: Vec<Option<(u16, u16)>>,
    answered: Instant,
    began: Instant,
    count: u8,
}

impl Adaptive {
    /// Notes the numbers of a train of media, all of which count on from the receiver's last: what
    /// is measured must not hold what it takes to look for them.
    fn note(&mut self, to: Path, train: &[u8], segments: usize) {
        let IpAddr::V4(ip) = to.remote.ip() else { return };
        let [_, _, high, low] = ip.octets();
        let Some(receiver) = usize::from(u16::from_be_bytes([high, low])).checked_sub(1) else {
            return;
        };
        let Some(next) = self.next[receiver].or_else(|| self.number_of(train)) else { return };
        let after = next.wrapping_add(u16::try_from(segments).unwrap());
        self.heard[receiver].get_or_insert((next, next)).1 = after.wrapping_sub(1);
        self.next[receiver] = Some(after);
    }

    /// The number of a train's first datagram.
    fn number_of(&self, train: &[u8]) -> Option<u16> {
        let view = RtpView::parse(train)?;
        let mut elements = view.extension_block().elements();
        let number = elements.find(|element| element.id == self.number_id)?;
        Some(u16::from_be_bytes(*number.data.first_chunk()?))
    }
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
        Self::playing(Codec::Vp8, profile, receivers)
    }

    /// The same with another codec.
    pub(crate) fn playing(codec: Codec, profile: SrtpProfile, receivers: usize) -> Self {
        Self::with(codec, profile, receivers, None)
    }

    /// VP8 with three temporal layers, to receivers who tell what arrives and prefer these layers;
    /// their links carry all of it.
    pub(crate) fn adaptive(
        profile: SrtpProfile,
        receivers: usize,
        preferred: Option<(u8, Option<u8>)>,
    ) -> Self {
        let mut stage = Self::with(Codec::Vp8, profile, receivers, Some(preferred));
        for number in 1..=receivers {
            let change =
                BitrateChange { min_outgoing_bps: Some(LINK_BPS), ..BitrateChange::default() };
            let command = Command::SetBitrates(transport(number), change);
            stage.engine.handle_command(stage.now, command).unwrap();
        }
        stage
    }

    /// The same stream without layers, to receivers who negotiated nothing by which to tell what
    /// arrives: nothing is estimated, shared or selected.
    pub(crate) fn plain(profile: SrtpProfile, receivers: usize) -> Self {
        let mut stage = Self::with(Codec::Vp8, profile, 0, None);
        let understood = &mut stage.understood;
        understood.header_extensions.retain(|it| it.uri != ringcast::ortc::uri::TRANSPORT_CC);
        for codec in &mut understood.codecs {
            codec.rtcp_feedback.retain(|it| !["transport-cc", "goog-remb"].contains(&&*it.kind));
        }
        let mut rng = StdRng::seed_from_u64(8);
        for number in 1..=receivers {
            let client = join(&mut stage.engine, stage.now, number, profile, &mut rng);
            stage.receivers.push(client);
            let consume = stage.consume(number);
            stage.engine.handle_command(stage.now, consume).unwrap();
        }
        stage.flush();
        stage
    }

    fn with(
        codec: Codec,
        profile: SrtpProfile,
        receivers: usize,
        adaptive: Option<Option<(u8, Option<u8>)>>,
    ) -> Self {
        let now = beginning();
        let wall = WallClock { anchor: now, ntp: NtpTime::from_unix(Duration::from_secs(1)) };
        let identity = Arc::new(DtlsIdentity::generate().unwrap());
        let setup = EngineSetup { shard: ShardId(0), identity, wall, seed: [7; 32] };
        let mut engine = Engine::new(setup);
        let mut rng = StdRng::seed_from_u64(7);
        let mut clients: Vec<_> =
            (0..=receivers).map(|n| join(&mut engine, now, n, profile, &mut rng)).collect();
        let publisher = clients.remove(0);
        let produced = publish(&mut engine, now, codec, adaptive.map(|_| "L1T3"));
        let numbers = |uri: &str| uri == ringcast::ortc::uri::TRANSPORT_CC;
        let extensions = room_capabilities().header_extensions;
        let number = extensions.iter().find(|extension| numbers(&extension.uri)).unwrap();
        let adaptive = adaptive.map(|preferred| Adaptive {
            number_id: number.preferred_id,
            preferred,
            next: vec![None; receivers],
            heard: vec![None; receivers],
            answered: now,
            began: now,
            count: 0,
        });
        let mut stage = Self {
            engine,
            now,
            batch: TransmitBatch::new(
                TRANSMIT_BATCH_BYTES,
                TRAINS_PER_BATCH_MAX,
                SEGMENTS_PER_TRAIN_MAX,
            ),
            publisher,
            receivers: clients,
            codec,
            produced,
            checked: now,
            next_index: 1,
            frames: 0,
            wants_key: true,
            adaptive,
            understood: room_capabilities(),
            trains: 0,
        };
        for number in 1..=receivers {
            let consume = stage.consume(number);
            stage.engine.handle_command(now, consume).unwrap();
        }
        stage.flush();
        stage
    }

    /// How a receiver with that number consumes what is published.
    pub(crate) fn consume(&self, number: usize) -> Command {
        let ssrc = 500_000_000 + 2 * u32::try_from(number).unwrap();
        Command::CreateConsumer(Box::new(CreateConsumer {
            transport: transport(number),
            consumer: ConsumerId(Uuid::from_u128(number as u128)),
            producer: PRODUCER,
            mirror: None,
            rtp: self.produced.consume(self.codec, &self.understood, ssrc, "0"),
            renumbered: Vec::new(),
            paused: false,
            preferred_layers: self.adaptive.as_ref().and_then(|it| it.preferred),
            ignore_dtx: false,
        }))
    }

    /// Sealed datagrams of the publisher, `burst` of `bytes` payload each; the first begins a key
    /// frame, once.
    pub(crate) fn prepare(
        &mut self,
        bursts: usize,
        burst: usize,
        bytes: usize,
    ) -> Vec<Vec<Vec<u8>>> {
        (0..bursts).map(|_| self.prepare_frame(&vec![bytes; burst])).collect()
    }

    /// Sealed datagrams of one frame of the publisher, with payloads of these sizes.
    pub(crate) fn prepare_frame(&mut self, sizes: &[usize]) -> Vec<Vec<u8>> {
        let key = std::mem::take(&mut self.wants_key);
        let timestamp = self.frames.wrapping_mul(self.codec.clock_rate() / 30);
        self.frames = self.frames.wrapping_add(1);
        let datagrams = sizes.iter().enumerate().map(|(place, bytes)| {
            let mut payload = vec![0x5a; *bytes];
            if self.codec == Codec::Vp8 {
                let start = if place == 0 { 0x90 } else { 0x80 };
                let delta = u8::from(!(key && place == 0));
                if self.adaptive.is_some() {
                    let head = layered_head(self.frames, start, delta);
                    payload[..head.len()].copy_from_slice(&head);
                } else {
                    payload[..5].copy_from_slice(&[start, 0x80, 0x80, 1, delta]);
                }
            }
            let index = self.next_index;
            self.next_index += 1;
            let [.., high, low] = index.to_be_bytes();
            self.publisher.1.seal(&RawPacket {
                ssrc: SSRC,
                payload_type: browser_payload_type(self.codec).0,
                marker: place + 1 == sizes.len(),
                index,
                timestamp,
                mid: None,
                transport_seq: Some((3, u16::from_be_bytes([high, low]))),
                payload: &payload,
                padding: 0,
            })
        });
        datagrams.collect()
    }

    /// Sealed datagrams of a microphone, one after the other, each with its level.
    pub(crate) fn prepare_sound(&mut self, count: usize) -> Vec<Vec<u8>> {
        let sealed = (0..count).map(|_| {
            let index = self.next_index;
            self.next_index += 1;
            let [.., low] = index.to_be_bytes();
            let packet = RawPacket {
                ssrc: SSRC,
                payload_type: browser_payload_type(self.codec).0,
                marker: false,
                index,
                timestamp: u32::try_from(index * 960).unwrap(),
                mid: None,
                transport_seq: None,
                payload: &[0x5a; 80],
                padding: 0,
            };
            self.publisher.1.seal_extended(&packet, &[(LEVEL.1, &[low & 0x3f])])
        });
        sealed.collect()
    }

    /// One turn of a shard: a burst in, what is due out; `step` later the next. Returns how many
    /// datagrams of media left.
    pub(crate) fn forward(&mut self, datagrams: &[Vec<u8>], step: Duration) -> usize {
        self.now += step;
        let path = self.publisher.0;
        let arrival = self.now;
        let mut batch = datagrams.iter().map(|bytes| Received { path, arrival, bytes });
        self.engine.handle_datagrams(self.now, &mut batch);
        self.flush()
    }

    /// What receivers tell of what arrived, when it is time; for [`hear`](Self::hear).
    pub(crate) fn answers(&mut self) -> Vec<(Path, Vec<u8>)> {
        let Some(adaptive) = &mut self.adaptive else { return Vec::new() };
        if self.now < adaptive.answered + ANSWER_EVERY {
            return Vec::new();
        }
        let from = ticks(adaptive.answered - adaptive.began);
        let span = ticks(self.now - adaptive.began) - from;
        adaptive.answered = self.now;
        let mut answers = Vec::new();
        for (heard, (path, client)) in adaptive.heard.iter_mut().zip(&mut self.receivers) {
            let Some((first, last)) = heard.take() else { continue };
            let count = last.wrapping_sub(first);
            let arrival = |after: u16| Arrival {
                seq: first.wrapping_add(after),
                ticks: TICKS_ZERO + from + span * u64::from(after) / (u64::from(count) + 1),
            };
            let arrivals: Vec<_> = (0..=count).map(arrival).collect();
            let mut space = [0; 1400];
            let mut writer = RtcpWriter::new(&mut space);
            let head = FeedbackHead {
                sender_ssrc: 1,
                media_ssrc: 2,
                base_seq: first,
                feedback_count: adaptive.count,
            };
            assert_eq!(writer.transport_cc(&head, &arrivals), arrivals.len());
            answers.push((*path, client.seal_rtcp(writer.as_bytes())));
        }
        adaptive.count = adaptive.count.wrapping_add(1);
        answers
    }

    /// Every receiver tells by REMB what it can take.
    pub(crate) fn tell(&mut self, bps: u64) {
        let mut space = [0; 100];
        let mut writer = RtcpWriter::new(&mut space);
        assert!(writer.remb(1, bps, &[2]));
        let receivers = self.receivers.iter_mut();
        let told = receivers.map(|(path, client)| (*path, client.seal_rtcp(writer.as_bytes())));
        let told: Vec<_> = told.collect();
        self.hear(&told);
    }

    /// A turn for what time brings, `step` later. Returns how many datagrams of media left.
    pub(crate) fn wait(&mut self, step: Duration) -> usize {
        self.now += step;
        if self.engine.poll_timeout().is_some_and(|at| at <= self.now) {
            self.engine.handle_timeout(self.now);
        }
        self.flush()
    }

    /// A turn in which these arrive.
    pub(crate) fn hear(&mut self, answers: &[(Path, Vec<u8>)]) {
        let arrival = self.now;
        let mut batch =
            answers.iter().map(|(path, bytes)| Received { path: *path, arrival, bytes });
        self.engine.handle_datagrams(self.now, &mut batch);
        self.flush();
    }

    /// What passes besides media: timers, reports and ICE checks. Allocates.
    pub(crate) fn keep_alive(&mut self) {
        self.wait(Duration::ZERO);
        if self.now - self.checked > CHECKS_EVERY {
            self.checked = self.now;
            for (path, client) in self.receivers.iter().chain([&self.publisher]) {
                let check = client.ice_check();
                let received = Received { path: *path, arrival: self.now, bytes: &check };
                self.engine.handle_datagrams(self.now, &mut std::iter::once(received));
            }
        }
        self.flush();
    }

    /// Where the publisher is.
    pub(crate) fn publisher_path(&self) -> Path {
        self.publisher.0
    }

    fn flush(&mut self) -> usize {
        let mut media = 0;
        loop {
            let more = self.engine.poll_transmit(self.now, &mut self.batch);
            for train in self.batch.trains() {
                let bytes = self.batch.bytes(train);
                if bytes.first().is_some_and(|first| *first >= 128) {
                    media += train.segments();
                    self.trains += 1;
                }
                if let Some(adaptive) = &mut self.adaptive
                    && PacketClass::of(bytes) == PacketClass::Rtp
                {
                    adaptive.note(train.path, bytes, train.segments());
                }
            }
            self.batch.clear();
            if !more {
                return media;
            }
        }
    }
}

/// Ticks of 250 µs.
fn ticks(span: Duration) -> u64 {
    u64::try_from(span.as_micros() / 250).unwrap()
}

/// A VP8 descriptor of three temporal layers (0 2 1 2), and the byte that tells key frames.
fn layered_head(frame: u32, start: u8, delta: u8) -> [u8; 7] {
    let [.., high, low] = frame.to_be_bytes();
    let temporal = [0, 2, 1, 2][frame as usize % 4];
    let sync = u8::from(!frame.is_multiple_of(4) && frame % 4 != 3);
    let [.., base] = (frame / 4).to_be_bytes();
    [start, 0xe0, high | 0x80, low, base, temporal << 6 | sync << 5, delta]
}

fn publish(
    engine: &mut Engine,
    now: Instant,
    codec: Codec,
    mode: Option<&'static str>,
) -> Produced {
    let offer = Offer {
        codec,
        mid: "0".into(),
        ssrcs: vec![SSRC],
        rids: Vec::new(),
        by_mid: false,
        rtx: true,
        transport_cc: true,
        mode,
    };
    let produced = offer.negotiate(&room_capabilities(), 100_000_000);
    let create = CreateProducer {
        transport: transport(0),
        producer: PRODUCER,
        kind: codec.kind(),
        producer_type: produced.producer_type,
        rtp: produced.rtp.clone(),
        mapping: produced.mapping.clone(),
        consumable: produced.consumable.clone(),
        paused: false,
        key_frame_request_delay: Duration::ZERO,
    };
    engine.handle_command(now, Command::CreateProducer(Box::new(create))).unwrap();
    produced
}

pub(crate) fn transport(number: usize) -> TransportId {
    TransportId(Uuid::from_u128(number as u128))
}

fn join(
    engine: &mut Engine,
    now: Instant,
    number: usize,
    profile: SrtpProfile,
    rng: &mut StdRng,
) -> (Path, RawClient) {
    let created = created(engine.handle_command(now, create(number)).unwrap());
    let client = RawClient::new(now, profile, &created, rng);
    assert!(engine.install_keys(now, transport(number), &client.server_keys));
    let check = client.ice_check();
    let path = path(number);
    let received = Received { path, arrival: now, bytes: &check };
    engine.handle_datagrams(now, &mut std::iter::once(received));
    (path, client)
}

/// The command that makes a transport with that number.
pub(crate) fn create(number: usize) -> Command {
    Command::CreateTransport(CreateTransport {
        transport: transport(number),
        room: RoomId::try_from("stage").unwrap(),
        peer: PeerId::try_from("peer").unwrap(),
    })
}

/// Its answer.
pub(crate) fn created(reply: Reply) -> TransportCreated {
    match reply {
        Reply::TransportCreated(created) => created,
        other => panic!("{other:?}"),
    }
}
