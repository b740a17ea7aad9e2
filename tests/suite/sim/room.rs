//! A node's engines (one, if not said otherwise), their clients, and the time between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use ringcast::control::command::{
    Command, ConnectTransport, CreateConsumer, CreateProducer, CreateTransport, Event, Reply,
    TransportCreated,
};
use ringcast::engine::dtls::{DtlsIdentity, PeerCertificate};
use ringcast::engine::io::TransmitBatch;
use ringcast::engine::rtp::NtpTime;
use ringcast::engine::srtp::SrtpProfile;
use ringcast::engine::transport::rtc::RemoteDtls;
use ringcast::engine::wall::WallClock;
use ringcast::engine::{Engine, EngineSetup};
use ringcast::id::{ConsumerId, PeerId, ProducerId, RoomId, ShardId, TransportId};
use ringcast::ortc::types::RtpCapabilities;
use ringcast::ortc::uri;
use uuid::Uuid;

use super::adaptive::viewer::{Habits, Viewer};
use super::clients::{Party, Seat, codec_of_mime};
use super::media::{Codec, Source, SourceSetup};
use super::network::{Link, Network};
use super::overload::Capacity;
use super::params::{
    BROWSER_CODECS, Offer, Produced, browser_extensions, browser_payload_type, room_capabilities,
};
use super::raw::RawClient;
use super::shards::Shards;
use super::stock::{Numbers, StockClient};

/// A transport's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) usize);

/// A producer: a camera or microphone of a peer.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    pub(crate) peer: Peer,
    pub(crate) id: ProducerId,
    pub(crate) codec: Codec,
    pub(crate) produced: Produced,
    /// One per encoding, in the peer's sources.
    pub(crate) sources: Vec<usize>,
}

/// A consumer: what a peer receives of a feed.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) peer: Peer,
    pub(crate) id: ConsumerId,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
    pub(crate) mid: String,
    pub(crate) payload_type: u8,
}

/// What a publisher offers.
#[derive(Debug, Clone)]
pub(crate) struct Camera {
    pub(crate) codec: Codec,
    pub(crate) rids: Vec<&'static str>,
    pub(crate) rtx: bool,
    pub(crate) transport_cc: bool,
    pub(crate) by_mid: bool,
    pub(crate) first_seq: u64,
    /// How many, where they are named by SSRC.
    pub(crate) encodings: u32,
    /// Layers within each encoding.
    pub(crate) mode: Option<&'static str>,
}

impl Camera {
    pub(crate) fn new(codec: Codec) -> Self {
        Self {
            codec,
            rids: Vec::new(),
            rtx: true,
            transport_cc: true,
            by_mid: false,
            first_seq: 1000,
            encodings: 1,
            mode: codec.mode(),
        }
    }
}

pub(crate) struct Room {
    pub(crate) shards: Shards,
    /// Where transports made from now on live.
    pub(crate) shard: usize,
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) rng: StdRng,
    pub(crate) seats: Vec<Seat>,
    pub(crate) events: Vec<(Instant, Event)>,
    pub(crate) capabilities: RtpCapabilities,
    /// Of consumers made from now on.
    pub(crate) preferred_layers: Option<(u8, Option<u8>)>,
    /// Of links made from now on.
    pub(crate) link: Link,
    pub(super) network: Network,
    pub(crate) batch: TransmitBatch,
    /// Segments of each train of media that left.
    pub(crate) trains: Vec<usize>,
    /// What the shard can send; `None` is all there is.
    pub(crate) capacity: Option<Capacity>,
    named: u32,
}

/// Virtual time begins later than real time, because str0m anchors its wall clock at its first use.
#[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
pub(crate) fn beginning() -> Instant {
    Instant::now() + Duration::from_secs(1000)
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Room {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_shards(seed, 1)
    }

    pub(crate) fn with_shards(seed: u64, shards: usize) -> Self {
        let start = beginning();
        let rng = StdRng::seed_from_u64(seed);
        let wall = WallClock {
            anchor: start,
            ntp: NtpTime::from_unix(Duration::from_secs(1_790_000_000)),
        };
        let identity = Arc::new(DtlsIdentity::generate().unwrap());
        let engine = |shard: usize| {
            Engine::new(EngineSetup {
                shard: ShardId(u16::try_from(shard).unwrap()),
                identity: Arc::clone(&identity),
                wall,
                seed: [u8::try_from(seed % 251).unwrap() + u8::try_from(shard).unwrap(); 32],
            })
        };
        let shards = Shards::new((0..shards).map(engine).collect());
        Self {
            shards,
            shard: 0,
            now: start,
            start,
            rng,
            seats: Vec::new(),
            events: Vec::new(),
            capabilities: room_capabilities(),
            preferred_layers: None,
            link: Link::new(10),
            network: Network::default(),
            batch: TransmitBatch::new(256 * 1024, 64, 8),
            trains: Vec::new(),
            capacity: None,
            named: 0,
        }
    }

    fn name(&mut self) -> Uuid {
        self.named += 1;
        Uuid::from_u128(u128::from(self.named))
    }

    pub(crate) fn command(&mut self, command: Command) -> Reply {
        let reply = self.shards.command(self.now, self.shard, command);
        self.flush();
        reply
    }

    fn create_transport(&mut self) -> (TransportId, TransportCreated) {
        let transport = TransportId(self.name());
        let reply = self.command(Command::CreateTransport(CreateTransport {
            transport,
            room: RoomId::try_from("lounge").unwrap(),
            peer: PeerId::try_from("somebody").unwrap(),
        }));
        let Reply::TransportCreated(created) = reply else { panic!("{reply:?}") };
        (transport, created)
    }

    fn sit(&mut self, party: Party, transport: TransportId, home: SocketAddr) -> Peer {
        self.seats.push(Seat {
            party,
            transport,
            public: home,
            up: self.link.clone(),
            down: self.link.clone(),
            lose_up: None,
            lose_down: None,
            gone: false,
            sources: Vec::new(),
            requests_seen: 0,
        });
        self.flush();
        Peer(self.seats.len() - 1)
    }

    fn home(&self) -> SocketAddr {
        let [.., high, low] = self.seats.len().to_be_bytes();
        SocketAddr::from(([198, 51, high, low], 5000))
    }

    /// A client that has not been waited for: its handshake begins with the next run. `fingerprint`
    /// lets it announce another certificate than it has.
    pub(crate) fn arrive(&mut self, numbers: &Numbers, fingerprint: Option<[u8; 32]>) -> Peer {
        let (transport, created) = self.create_transport();
        let home = self.home();
        let mut client = StockClient::new(self.now, home, numbers);
        let fingerprint = fingerprint.unwrap_or_else(|| client.fingerprint());
        client.connect(&created);
        let connect = ConnectTransport {
            transport,
            remote: RemoteDtls {
                fingerprint,
                is_client: true,
                certificate: PeerCertificate::Ecdsa,
            },
        };
        self.command(Command::ConnectTransport(connect));
        self.sit(Party::Stock(Box::new(client)), transport, home)
    }

    /// A transport to send over, with a browser's own numbers.
    pub(crate) fn publisher(&mut self) -> Peer {
        let codecs = BROWSER_CODECS.to_vec();
        let peer = self.arrive(&Numbers { codecs, extensions: browser_extensions() }, None);
        self.wait_until_connected(peer);
        peer
    }

    /// A transport to receive over, with the room's numbers.
    pub(crate) fn subscriber(&mut self) -> Peer {
        let numbers = self.room_numbers();
        let peer = self.arrive(&numbers, None);
        self.wait_until_connected(peer);
        peer
    }

    pub(crate) fn room_numbers(&self) -> Numbers {
        let media = self.capabilities.codecs.iter().filter(|codec| !codec.codec().is_rtx());
        let rtx_of = |payload_type| {
            let rtx = self.capabilities.codecs.iter().find(|codec| codec.apt() == payload_type);
            rtx.and_then(|rtx| rtx.preferred_payload_type)
        };
        let codecs = media
            .filter_map(|codec| {
                let payload_type = codec.preferred_payload_type;
                Some((codec_of_mime(&codec.mime_type)?, payload_type?, rtx_of(payload_type)))
            })
            .collect();
        let extensions = self.capabilities.header_extensions.iter();
        let extensions = extensions.map(|e| (e.uri.clone(), e.preferred_id)).collect();
        Numbers { codecs, extensions }
    }

    fn wait_until_connected(&mut self, peer: Peer) {
        for _ in 0..100 {
            if self.seats[peer.0].stock().connected {
                return;
            }
            self.run_for(ms(20));
        }
        panic!("not connected after 2 s");
    }

    /// A transport whose client has its keys from elsewhere.
    pub(crate) fn raw_peer(&mut self, profile: SrtpProfile) -> Peer {
        self.sit_keyed(profile, |client| Party::Raw(Box::new(client)))
    }

    /// The same with a browser's habits of receiving.
    pub(crate) fn viewer(&mut self, habits: Habits) -> Peer {
        let extensions = &self.capabilities.header_extensions;
        let number = extensions.iter().find(|extension| extension.uri == uri::TRANSPORT_CC);
        let number_id = number.expect("the room numbers packets").preferred_id;
        let now = self.now;
        self.sit_keyed(SrtpProfile::AeadAes128Gcm, |client| {
            Party::Viewer(Box::new(Viewer::new(now, client, number_id, habits)))
        })
    }

    fn sit_keyed(&mut self, profile: SrtpProfile, party: impl FnOnce(RawClient) -> Party) -> Peer {
        let (transport, created) = self.create_transport();
        let home = self.home();
        let client = RawClient::new(self.now, profile, &created, &mut self.rng);
        let now = self.now;
        let engine = self.shards.engine_of(transport);
        assert!(engine.install_keys(now, transport, &client.server_keys));
        let peer = self.sit(party(client), transport, home);
        self.run_for(ms(100));
        peer
    }

    /// Negotiates a producer; its cameras are off until [`start`](Self::start).
    pub(crate) fn produce(&mut self, peer: Peer, camera: &Camera) -> Feed {
        let feed = self.prepare(peer, camera);
        self.announce(&feed);
        feed
    }

    /// What the client does before the server hears of the producer.
    pub(crate) fn prepare(&mut self, peer: Peer, camera: &Camera) -> Feed {
        let id = ProducerId(self.name());
        let seat = &mut self.seats[peer.0];
        let mid =
            seat.sources.iter().map(|s| &s.setup.mid).collect::<std::collections::HashSet<_>>();
        let mid = mid.len().to_string();
        let first_ssrc = 1_000_000 * (u32::try_from(peer.0).unwrap() + 1) + 100 * self.named;
        let count = u32::try_from(camera.rids.len()).unwrap().max(camera.encodings);
        let offer = Offer {
            codec: camera.codec,
            mid: mid.clone(),
            ssrcs: (0..count).map(|index| first_ssrc + 2 * index).collect(),
            rids: camera.rids.iter().map(|rid| (*rid).to_owned()).collect(),
            rtx: camera.rtx,
            transport_cc: camera.transport_cc,
            by_mid: camera.by_mid,
            mode: camera.mode,
        };
        let produced = offer.negotiate(&self.capabilities, 100_000_000 + 100 * self.named);
        let (payload_type, _) = browser_payload_type(camera.codec);
        let mut sources = Vec::new();
        for (index, ssrc) in offer.ssrcs.iter().enumerate() {
            let setup = SourceSetup {
                codec: camera.codec,
                payload_type,
                ssrc: *ssrc,
                mid: mid.clone(),
                rid: camera.rids.get(index).map(|rid| (*rid).to_owned()),
                first_seq: camera.first_seq,
            };
            if let Party::Stock(client) = &mut seat.party {
                let rtx = camera.rtx && camera.codec != Codec::Opus;
                client.send_stream(&setup, rtx.then_some(ssrc + 1));
            }
            sources.push(seat.sources.len());
            seat.sources.push(Source::new(setup));
        }
        Feed { peer, id, codec: camera.codec, produced, sources }
    }

    /// Tells the server of a producer.
    pub(crate) fn announce(&mut self, feed: &Feed) {
        let command = CreateProducer {
            transport: self.seats[feed.peer.0].transport,
            producer: feed.id,
            kind: feed.codec.kind(),
            producer_type: feed.produced.producer_type,
            rtp: feed.produced.rtp.clone(),
            mapping: feed.produced.mapping.clone(),
            consumable: feed.produced.consumable.clone(),
            paused: false,
            key_frame_request_delay: Duration::ZERO,
        };
        self.command(Command::CreateProducer(Box::new(command)));
    }

    /// A view of a receiver that tells nothing of what arrives, and says so.
    pub(crate) fn consume(&mut self, peer: Peer, feed: &Feed) -> View {
        let capabilities = without_feedback(&self.capabilities);
        self.consume_as(peer, feed, &capabilities, false)
    }

    pub(crate) fn consume_as(
        &mut self,
        peer: Peer,
        feed: &Feed,
        capabilities: &RtpCapabilities,
        paused: bool,
    ) -> View {
        let id = ConsumerId(self.name());
        let ssrc = 500_000_000 + 10 * self.named;
        let mid = format!("c{}", self.named);
        let rtp = feed.produced.consume(feed.codec, capabilities, ssrc, &mid);
        let encoding = &rtp.encodings[0];
        let view = View {
            peer,
            id,
            ssrc: encoding.ssrc.unwrap(),
            rtx_ssrc: encoding.rtx.map(|rtx| rtx.ssrc),
            mid,
            payload_type: rtp.codecs[0].payload_type,
        };
        let seat = &mut self.seats[peer.0];
        match &mut seat.party {
            Party::Stock(client) => {
                client.expect_stream(feed.codec, &view.mid, view.ssrc, view.rtx_ssrc);
            }
            Party::Viewer(viewer) => {
                viewer.expect_stream(feed.codec != Codec::Opus, view.ssrc, view.rtx_ssrc);
            }
            Party::Raw(_) => {}
        }
        let command = CreateConsumer {
            transport: seat.transport,
            consumer: id,
            producer: feed.id,
            mirror: None,
            rtp,
            renumbered: Vec::new(),
            paused,
            preferred_layers: self.preferred_layers,
            ignore_dtx: false,
        };
        self.command(Command::CreateConsumer(Box::new(command)));
        view
    }

    /// Switches the feed's cameras on.
    pub(crate) fn start(&mut self, feed: &Feed) {
        for source in &feed.sources {
            self.seats[feed.peer.0].sources[*source].next_at = Some(self.now);
        }
    }

    /// Switches one of the feed's cameras off.
    pub(crate) fn stop(&mut self, feed: &Feed, encoding: usize) {
        self.source_mut(feed, encoding).next_at = None;
    }

    pub(crate) fn source(&self, feed: &Feed, encoding: usize) -> &Source {
        &self.seats[feed.peer.0].sources[feed.sources[encoding]]
    }

    pub(crate) fn source_mut(&mut self, feed: &Feed, encoding: usize) -> &mut Source {
        &mut self.seats[feed.peer.0].sources[feed.sources[encoding]]
    }

    pub(crate) fn seat(&mut self, peer: Peer) -> &mut Seat {
        &mut self.seats[peer.0]
    }
}

/// The same without transport-wide feedback.
pub(crate) fn without_feedback(capabilities: &RtpCapabilities) -> RtpCapabilities {
    let mut without = capabilities.clone();
    without.header_extensions.retain(|extension| extension.uri != uri::TRANSPORT_CC);
    for codec in &mut without.codecs {
        codec.rtcp_feedback.retain(|feedback| feedback.kind != "transport-cc");
    }
    without
}
