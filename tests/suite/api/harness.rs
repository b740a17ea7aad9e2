//! A control plane over scripted shards, and a client that calls its router without a socket.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt;
use ringcast::api::{ApiOptions, router};
use ringcast::control::addresses::MediaAddresses;
use ringcast::control::command::{
    BitrateLimits, CallId, Command, DtlsState, Event, FromShard, IceState, Inventory, Layers,
    Refusal, Reply, TransportCreated,
};
use ringcast::control::guarded::Guarded;
use ringcast::control::stats::{
    ConsumerNumbers, LayersNow, StreamNumbers, Traffic, TransportNumbers,
};
use ringcast::control::{Control, ControlConfig, LaneFull, ShardLink};
use ringcast::engine::report::{
    Counters, DiscardCounts, Estimates, Gauges, IoCounters, Report, TrainSizes, TurnLengths,
};
use ringcast::events::outlet::Outlets;
use ringcast::events::timestamp::WallAnchor;
use ringcast::id::ShardId;
use ringcast::metrics::latency::LatencyRecorder;
use ringcast::ortc::VideoCodec;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tower::ServiceExt;

/// What a shard was told, and how it is to answer.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) commands: Vec<Command>,
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) inventory: Inventory,
    pub(crate) holding: bool,
    pub(crate) held: Vec<(CallId, Result<Reply, Refusal>)>,
    pub(crate) lane_full: bool,
    /// Every command of that name is refused.
    pub(crate) refuse_name: Option<(&'static str, Refusal)>,
}

#[derive(Clone)]
pub(crate) struct Shard {
    id: ShardId,
    script: Arc<Guarded<Script>>,
    heard: Arc<Notify>,
}

struct Link {
    shard: Shard,
    lane: mpsc::UnboundedSender<(CallId, Command)>,
}

impl ShardLink for Link {
    fn send(&self, call: CallId, command: Command) -> Result<(), LaneFull> {
        if self.shard.script.with(|script| script.lane_full) {
            return Err(LaneFull);
        }
        self.lane.send((call, command)).map_err(|_| LaneFull)
    }
}

impl Shard {
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut Script) -> R) -> R {
        self.script.with(look)
    }

    /// The next command is refused.
    pub(crate) fn refuses(&self, refusal: Refusal) {
        self.with(|script| script.refusals.insert(0, refusal));
    }

    /// Answers wait until `release`.
    pub(crate) fn hold(&self) {
        self.with(|script| script.holding = true);
    }

    /// Gives all held answers, in order.
    pub(crate) fn release(&self, control: &Control) {
        let held = self.with(|script| {
            script.holding = false;
            std::mem::take(&mut script.held)
        });
        for (call, answer) in held {
            control.handle_from_shard(self.id, FromShard::Answer(call, answer));
        }
    }

    /// Names of the commands it got, in order.
    pub(crate) fn told(&self) -> Vec<String> {
        self.with(|script| {
            let names = script.commands.iter().map(|command| format!("{command:?}"));
            names.map(|text| text.split('(').next().unwrap().to_owned()).collect()
        })
    }

    /// Waits until it got the command of that name.
    pub(crate) async fn hears(&self, name: &str) {
        let heard = async {
            while self.count(name) == 0 {
                self.heard.notified().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), heard).await;
        assert!(in_time.is_ok(), "no {name} among {:?}", self.told());
    }

    /// How often it got the command of that name.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.told().iter().filter(|told| *told == name).count()
    }

    fn answer(&self, command: Command) -> Result<Reply, Refusal> {
        self.with(|script| {
            let reply = match &command {
                Command::CreateTransport(_) => Reply::TransportCreated(TransportCreated {
                    ice_ufrag: "aaufrag".to_owned(),
                    ice_password: "password".to_owned(),
                    fingerprint: [0xab; 32],
                }),
                Command::Inventory => Reply::Inventory(script.inventory.clone()),
                Command::RestartIce(_) => {
                    Reply::IceRestarted { ufrag: "aafresh".to_owned(), password: "new".to_owned() }
                }
                Command::SetBitrates(_, change) => Reply::Bitrates(BitrateLimits {
                    max_incoming_bps: change.max_incoming_bps,
                    max_outgoing_bps: change.max_outgoing_bps,
                    min_outgoing_bps: change.min_outgoing_bps,
                }),
                Command::TransportStats(_) => Reply::TransportStats(Box::new(transport_numbers())),
                Command::ProducerStats(_) => Reply::ProducerStats(vec![(0, stream_numbers(7))]),
                Command::ConsumerStats(_) => Reply::ConsumerStats(Box::new(consumer_numbers())),
                _ => Reply::Done,
            };
            let name = format!("{command:?}");
            script.commands.push(command);
            if let Some((refused, refusal)) = &script.refuse_name
                && name.starts_with(refused)
            {
                return Err(refusal.clone());
            }
            script.refusals.pop().map_or(Ok(reply), Err)
        })
    }

    async fn run(self, control: Control, mut lane: mpsc::UnboundedReceiver<(CallId, Command)>) {
        while let Some((call, command)) = lane.recv().await {
            let answer = self.answer(command);
            self.heard.notify_one();
            if self.with(|script| script.holding) {
                self.with(|script| script.held.push((call, answer)));
            } else {
                control.handle_from_shard(self.id, FromShard::Answer(call, answer));
            }
        }
    }
}

/// What the scripted shards say of every transport.
fn transport_numbers() -> TransportNumbers {
    TransportNumbers {
        ice: IceState::Completed,
        dtls: DtlsState::Connected,
        selected: Some(("192.0.2.7".parse().unwrap(), "198.51.100.4:5000".parse().unwrap(), false)),
        traffic: Traffic { bytes_received: 1000, rtp_send_bitrate: 64_000, ..Traffic::default() },
        available_outgoing_bps: Some(600_000),
        available_incoming_bps: None,
        limits: BitrateLimits { max_incoming_bps: Some(9), ..BitrateLimits::default() },
    }
}

fn stream_numbers(score: u8) -> StreamNumbers {
    StreamNumbers { ssrc: 1_111_111, score, packet_count: 50, ..StreamNumbers::default() }
}

/// What they say of every consumer.
fn consumer_numbers() -> ConsumerNumbers {
    ConsumerNumbers {
        stream: stream_numbers(8),
        encoding: Some(0),
        layers: LayersNow {
            current_layers: Some(Layers { spatial: 0, temporal: 1 }),
            ..LayersNow::default()
        },
        priority: 3,
    }
}

/// A node without media, and who calls it.
#[derive(Clone)]
pub(crate) struct Node {
    /// The key or token of every request that brings none.
    pub(crate) bearer: Option<String>,
    pub(crate) app: Router,
    pub(crate) control: Control,
    pub(crate) shards: Vec<Shard>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Answered {
    pub(crate) fn data(&self) -> &Value {
        assert_eq!(self.body["success"], true, "{self:?}");
        &self.body["data"]
    }

    pub(crate) fn code(&self) -> &str {
        assert_eq!(self.body["success"], false, "{self:?}");
        assert!(self.body["data"].is_string(), "{self:?}");
        self.body["code"].as_str().unwrap()
    }

    pub(crate) fn id(&self, name: &str) -> String {
        self.data()[name].as_str().unwrap_or_else(|| panic!("no {name} in {self:?}")).to_owned()
    }
}

impl Node {
    pub(crate) fn start(shards: u16) -> Self {
        Self::start_with(shards, &ApiOptions::default())
    }

    pub(crate) fn start_with(shards: u16, options: &ApiOptions) -> Self {
        Self::start_carrying(&VideoCodec::ALL, shards, options)
    }

    pub(crate) fn start_carrying(videos: &[VideoCodec], shards: u16, options: &ApiOptions) -> Self {
        let shards: Vec<Shard> = (0..shards)
            .map(|id| Shard { id: ShardId(id), script: Arc::default(), heard: Arc::default() })
            .collect();
        let mut links: Vec<Box<dyn ShardLink>> = Vec::new();
        let mut lanes = Vec::new();
        for shard in &shards {
            let (sender, receiver) = mpsc::unbounded_channel();
            links.push(Box::new(Link { shard: shard.clone(), lane: sender }));
            lanes.push(receiver);
        }
        let config = ControlConfig {
            media: MediaAddresses {
                addresses: vec!["192.0.2.7".to_owned()],
                port: 10_000,
                udp: true,
                tcp: true,
            },
            clock: WallAnchor {
                wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
                at: tokio::time::Instant::now().into_std(),
            },
            outlets: Outlets::default(),
            limits: options.limits.clone(),
            readers: tokio::runtime::Handle::current(),
            drain_timeout: Duration::from_secs(600),
            video_codecs: videos.to_vec(),
        };
        let control = Control::start(links, config).unwrap();
        for (shard, lane) in shards.iter().zip(lanes) {
            tokio::spawn(shard.clone().run(control.clone(), lane));
        }
        let app = router::router(control.clone(), options).unwrap();
        Self { bearer: None, app, control, shards }
    }

    /// The same node, called with other credentials.
    pub(crate) fn called_with(&self, bearer: &str) -> Self {
        Self { bearer: Some(bearer.to_owned()), ..self.clone() }
    }

    pub(crate) fn shard(&self) -> &Shard {
        &self.shards[0]
    }

    pub(crate) fn happens(&self, event: Event) {
        self.happens_on(0, event);
    }

    pub(crate) fn happens_on(&self, shard: u16, event: Event) {
        self.control.handle_from_shard(ShardId(shard), FromShard::Event(event));
    }

    pub(crate) fn reports(&self, shard: u16, busy: f64) {
        self.reports_latencies(shard, busy, &mut LatencyRecorder::default());
    }

    pub(crate) fn reports_latencies(&self, shard: u16, busy: f64, recorder: &mut LatencyRecorder) {
        let counters = Counters { packets_in: 7, ..Counters::default() };
        let mut trains = TrainSizes::default();
        trains.add(1);
        trains.add(5);
        let mut turns = TurnLengths::default();
        turns.record(30_000);
        let mut estimates = Estimates::default();
        estimates.record(75_000);
        let report = Report {
            shard: ShardId(shard),
            counters,
            io: IoCounters::default(),
            trains,
            turns,
            discards: DiscardCounts::default(),
            gauges: Gauges {
                streams: 3,
                estimate_bps: 600_000,
                estimates,
                transports_connected: 2,
                ..Gauges::default()
            },
            latency: recorder.take(),
            cpu: Duration::from_millis(1500),
            busy,
            on_glommio: true,
            steering: true,
        };
        self.control.handle_from_shard(ShardId(shard), FromShard::Report(Box::new(report)));
    }

    pub(crate) async fn send(&self, mut request: Request<Body>) -> Response {
        if let Some(bearer) = &self.bearer {
            let value = format!("Bearer {bearer}").parse().unwrap();
            request.headers_mut().entry(header::AUTHORIZATION).or_insert(value);
        }
        self.app.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Answered {
        let response = self.send(request).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| panic!("{status}: {:?}", String::from_utf8_lossy(&bytes)));
        Answered { status, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answered {
        self.ask(bare(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answered {
        self.ask(bare(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answered {
        self.ask(json_post(path, body.to_string())).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answered {
        self.ask(json_request(Method::PUT, path, body.to_string())).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answered {
        self.ask(json_request(Method::PATCH, path, body.to_string())).await
    }

    pub(crate) async fn room(&self, room: &str) -> Answered {
        self.post("/media/room", json!({ "roomId": room })).await
    }

    pub(crate) async fn transport(&self, room: &str, peer: &str) -> String {
        let body = json!({ "peerId": peer, "direction": "send" });
        let made = self.post(&format!("/media/transport/{room}"), body).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.id("id")
    }

    pub(crate) async fn producer(&self, room: &str, peer: &str, transport: &str) -> String {
        let made = self.post("/media/producer", opus(room, peer, transport)).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.id("producerId")
    }

    pub(crate) async fn consume(
        &self,
        (room, peer): (&str, &str),
        transport: &str,
        producer: &str,
    ) -> Answered {
        let capabilities = self.room(room).await.data()["routerRtpCapabilities"].clone();
        let body = json!({
            "roomId": room, "peerId": peer, "transportId": transport, "producerId": producer,
            "rtpCapabilities": capabilities,
        });
        self.post("/media/consumer", body).await
    }
}

pub(crate) fn bare(method: Method, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
}

pub(crate) fn json_post(path: &str, body: impl Into<Body>) -> Request<Body> {
    json_request(Method::POST, path, body)
}

pub(crate) fn json_request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

/// A request to send a camera in three encodings of three temporal layers each.
pub(crate) fn simulcast(room: &str, peer: &str, transport: &str) -> Value {
    let encodings = ["r0", "r1", "r2"].map(|rid| json!({ "rid": rid, "scalabilityMode": "L1T3" }));
    json!({
        "roomId": room, "peerId": peer, "transportId": transport, "kind": "video",
        "rtpParameters": {
            "mid": "1",
            "codecs": [{
                "mimeType": "video/VP8", "payloadType": 96, "clockRate": 90_000,
                "parameters": {}, "rtcpFeedback": [],
            }],
            "headerExtensions": [],
            "encodings": encodings,
            "rtcp": {},
        },
    })
}

/// A request to send a microphone.
pub(crate) fn opus(room: &str, peer: &str, transport: &str) -> Value {
    json!({
        "roomId": room, "peerId": peer, "transportId": transport, "kind": "audio",
        "rtpParameters": {
            "mid": "0",
            "codecs": [{
                "mimeType": "audio/opus", "payloadType": 111, "clockRate": 48_000, "channels": 2,
                "parameters": { "useinbandfec": 1 }, "rtcpFeedback": [],
            }],
            "headerExtensions": [],
            "encodings": [{ "ssrc": 1_111_111 }],
            "rtcp": { "cname": "alice-cname" },
        },
    })
}

/// A client's DTLS parameters.
pub(crate) fn dtls() -> Value {
    let value = vec!["AB"; 32].join(":");
    json!({ "dtlsParameters": {
        "role": "client", "fingerprints": [{ "algorithm": "sha-256", "value": value }],
    }})
}

/// Lets every other task run until it waits.
pub(crate) async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}
