//! The boundary between the control thread and a shard: one enum per direction.
//!
//! The control thread sends a [`Command`] into a shard's command lane and gets exactly one
//! [`Reply`] or [`Refusal`] back. A shard tells what happened by itself with an [`Event`], and how
//! it is doing with a [`Report`] once a second. Ids, names and negotiated parameters are checked
//! before a command is built; a shard refuses only what it alone can know.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::stats::{ConsumerNumbers, StreamNumbers, TransportNumbers};
use crate::engine::report::Report;
use crate::engine::transport::rtc::RemoteDtls;
use crate::engine::voice::LevelWindow;
use crate::id::{ConsumerId, PeerId, ProducerId, RoomId, ShardId, TransportId};
use crate::ortc::types::{CodecMapping, MediaKind, ProducerType, RtpMapping, RtpParameters};

/// What the control thread may ask of a shard.
#[derive(Debug)]
pub enum Command {
    /// Make a WebRTC transport. Answer: [`Reply::TransportCreated`].
    CreateTransport(CreateTransport),
    /// Give a transport its client's DTLS parameters. Answer: [`Reply::Done`].
    ConnectTransport(ConnectTransport),
    /// Close a transport with all it carries; no event follows. Answer: [`Reply::Done`], also when
    /// it is unknown.
    CloseTransport(TransportId),
    /// Receive one media source over a transport. Answer: [`Reply::Done`].
    CreateProducer(Box<CreateProducer>),
    /// Stop or resume forwarding of a producer; to its own shard and to each that has a mirror of
    /// it. Answer: [`Reply::Done`].
    PauseProducer(ProducerId, bool),
    /// Close a producer, or a shard's mirror of it; its consumers there close with it, without
    /// events. To its own shard and to each that has a mirror of it, also when its transport closed
    /// by itself. Answer: [`Reply::Done`], also when it is unknown.
    CloseProducer(ProducerId),
    /// Send a producer's media over a transport. Answer: [`Reply::Done`].
    CreateConsumer(Box<CreateConsumer>),
    /// Stop or resume forwarding to one consumer. Answer: [`Reply::Done`].
    PauseConsumer(ConsumerId, bool),
    /// Ask the producer for a key frame on behalf of a consumer. Answer: [`Reply::Done`].
    RequestKeyFrame(ConsumerId),
    /// The highest layers that a consumer wants from now on. Answer: [`Reply::Done`].
    SetPreferredLayers(ConsumerId, Layers),
    /// How much a consumer counts among those of its transport, 1–255. Answer: [`Reply::Done`].
    SetPriority(ConsumerId, u8),
    /// Change some of a transport's limits. Answer: [`Reply::Bitrates`].
    SetBitrates(TransportId, BitrateChange),
    /// Give a transport further ICE credentials; those in use hold until the client uses the new
    /// ones. Answer: [`Reply::IceRestarted`].
    RestartIce(TransportId),
    /// Tell how a transport does. Answer: [`Reply::TransportStats`].
    TransportStats(TransportId),
    /// Tell how a producer's streams arrive; to its own shard. Answer: [`Reply::ProducerStats`].
    ProducerStats(ProducerId),
    /// Tell how a consumer's stream is sent. Answer: [`Reply::ConsumerStats`].
    ConsumerStats(ConsumerId),
    /// Close a consumer. Answer: [`Reply::Done`], also when it is unknown.
    CloseConsumer(ConsumerId),
    /// List what is alive, after events were lost. Answer: [`Reply::Inventory`]; what was told of
    /// demand is told again.
    Inventory,
    /// Panic inside one transport's `Rtc`, to prove that only that transport ends. Tests only: no
    /// route leads here. Answer: [`Reply::Done`].
    InjectPanic(TransportId),
}

/// A transport to make.
#[derive(Debug, Clone)]
pub struct CreateTransport {
    /// Its name from now on.
    pub transport: TransportId,
    /// For logs.
    pub room: RoomId,
    /// For logs.
    pub peer: PeerId,
}

/// The client's part of DTLS.
#[derive(Debug, Clone)]
pub struct ConnectTransport {
    /// Which transport.
    pub transport: TransportId,
    /// What its client's side of the handshake must be.
    pub remote: RemoteDtls,
}

/// A producer to make; parameters are normalised by `ortc`.
#[derive(Debug, Clone)]
pub struct CreateProducer {
    /// Where it arrives.
    pub transport: TransportId,
    /// Its name from now on.
    pub producer: ProducerId,
    /// Audio or video.
    pub kind: MediaKind,
    /// How its encodings relate.
    pub producer_type: ProducerType,
    /// As the client sends: its payload types, extension ids, SSRCs or RIDs.
    pub rtp: RtpParameters,
    /// From the client's numbers to the room's.
    pub mapping: RtpMapping,
    /// The room's view: codecs with room payload types, extensions with room ids.
    pub consumable: RtpParameters,
    /// Starts paused.
    pub paused: bool,
    /// Least time between two key-frame requests beyond the throttle's own; zero if not given.
    pub key_frame_request_delay: Duration,
}

/// A consumer to make; parameters come from `ortc` and are what the client was (or will be) told.
#[derive(Debug, Clone)]
pub struct CreateConsumer {
    /// Where it is sent.
    pub transport: TransportId,
    /// Its name from now on.
    pub consumer: ConsumerId,
    /// What it copies.
    pub producer: ProducerId,
    /// Given when the producer lives on another shard: makes a mirror of it here, unless there is
    /// one. Ignored when the producer itself lives here.
    pub mirror: Option<Mirror>,
    /// The consumer's negotiated parameters: one encoding with `ssrc` (+ `rtx.ssrc`), a `mid`.
    pub rtp: RtpParameters,
    /// From the room's payload types of media to those in `rtp`, where a client that speaks SDP
    /// chose its own. What is not named here is sent under the room's.
    pub renumbered: Vec<CodecMapping>,
    /// Starts paused.
    pub paused: bool,
    /// Highest spatial and temporal layer wanted; `None` is the highest there is.
    pub preferred_layers: Option<(u8, Option<u8>)>,
    /// Packets of Opus that only say that there is silence (DTX) are left out.
    pub ignore_dtx: bool,
}

/// A producer of another shard, to be mirrored.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Where it lives.
    pub origin: ShardId,
    /// What it was made of.
    pub source: Arc<CreateProducer>,
    /// It is paused now, whatever `source` says.
    pub paused: bool,
}

/// Layers of a simulcast or SVC stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
pub struct Layers {
    /// From 0.
    #[serde(rename = "spatialLayer")]
    pub spatial: u8,
    /// From 0.
    #[serde(rename = "temporalLayer")]
    pub temporal: u8,
}

/// Limits of a transport, in bits/s; what is absent is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BitrateLimits {
    /// What its client may send.
    #[serde(rename = "maxIncomingBitrate", skip_serializing_if = "Option::is_none")]
    pub max_incoming_bps: Option<u64>,
    /// What its client is sent, whatever the estimate; at least [`BITRATE_LIMIT_MIN_BPS`].
    ///
    /// [`BITRATE_LIMIT_MIN_BPS`]: crate::limits::BITRATE_LIMIT_MIN_BPS
    #[serde(rename = "maxOutgoingBitrate", skip_serializing_if = "Option::is_none")]
    pub max_outgoing_bps: Option<u64>,
    /// What the estimate does not fall below.
    #[serde(rename = "minOutgoingBitrate", skip_serializing_if = "Option::is_none")]
    pub min_outgoing_bps: Option<u64>,
}

/// New limits of a transport, in bits/s: what is absent stays, 0 ends a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BitrateChange {
    /// What its client may send.
    pub max_incoming_bps: Option<u64>,
    /// What its client is sent, whatever the estimate.
    pub max_outgoing_bps: Option<u64>,
    /// What the estimate does not fall below.
    pub min_outgoing_bps: Option<u64>,
}

/// A shard's answer to a command it carried out.
#[derive(Debug)]
pub enum Reply {
    /// Nothing to tell.
    Done,
    /// What the client needs to reach the new transport.
    TransportCreated(TransportCreated),
    /// A transport's limits from now on.
    Bitrates(BitrateLimits),
    /// What the client must use from now on.
    IceRestarted {
        /// ICE user name fragment; begins with the shard.
        ufrag: String,
        /// ICE password.
        password: String,
    },
    /// How a transport does.
    TransportStats(Box<TransportNumbers>),
    /// How each stream of a producer that has begun arrives, with the place of its encoding.
    ProducerStats(Vec<(u8, StreamNumbers)>),
    /// How a consumer's stream is sent.
    ConsumerStats(Box<ConsumerNumbers>),
    /// All that is alive on the shard.
    Inventory(Inventory),
}

/// What the client needs to reach a transport, besides candidates (which `config` knows).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportCreated {
    /// ICE user name fragment; begins with the shard.
    pub ice_ufrag: String,
    /// ICE password.
    pub ice_password: String,
    /// SHA-256 of the node's certificate.
    pub fingerprint: [u8; 32],
}

/// Everything alive on a shard, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Transports.
    pub transports: Vec<TransportId>,
    /// Producers, without mirrors.
    pub producers: Vec<ProducerId>,
    /// Consumers.
    pub consumers: Vec<ConsumerId>,
}

/// Why a shard says no. Each maps to one status and code of the REST contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The transport is not (or no longer) on this shard.
    #[error("no such transport")]
    NoTransport,
    /// The producer is not (or no longer) on this shard.
    #[error("no such producer")]
    NoProducer,
    /// The consumer is not (or no longer) on this shard.
    #[error("no such consumer")]
    NoConsumer,
    /// `connect` was called before.
    #[error("connect() already called")]
    AlreadyConnected,
    /// The name is in use.
    #[error("already exists")]
    AlreadyExists,
    /// An SSRC, MID or RID of the producer already names another one on this transport.
    #[error("{0} already exists in RTP listener")]
    StreamInUse(&'static str),
    /// The parameters cannot be carried; the text names the field.
    #[error("{0}")]
    Unsupported(String),
    /// The parameters contradict each other or what was set before; the text names the field.
    #[error("{0}")]
    Contradiction(&'static str),
    /// A limit of this shard is reached; the text names it.
    #[error("{0} limit reached")]
    Full(&'static str),
    /// The command lane is full or the shard is stopping.
    #[error("shard is overloaded")]
    Overloaded,
    /// The shard did not answer in time. It may still carry the command out. Told by the dispatcher.
    #[error("shard does not answer")]
    NoAnswer,
}

/// Why a transport closed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// It did not connect in time.
    NeverConnected,
    /// No valid STUN request and no media for the consent time-out.
    ConsentLost,
    /// The DTLS handshake failed or the client's certificate was not the announced one.
    DtlsFailed,
    /// The client closed DTLS.
    DtlsClosed,
    /// A fault inside the transport's `Rtc`.
    Fault,
}

impl CloseReason {
    /// All reasons.
    pub const ALL: [Self; 5] =
        [Self::NeverConnected, Self::ConsentLost, Self::DtlsFailed, Self::DtlsClosed, Self::Fault];

    /// The label in logs, metrics and events.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NeverConnected => "never_connected",
            Self::ConsentLost => "consent_lost",
            Self::DtlsFailed => "dtls_failed",
            Self::DtlsClosed => "dtls_closed",
            Self::Fault => "fault",
        }
    }
}

/// ICE state of a transport (mediasoup's names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IceState {
    /// No verified request yet.
    New,
    /// A verified request arrived.
    Connected,
    /// The client nominated an address.
    Completed,
    /// Consent is gone.
    Disconnected,
}

impl IceState {
    /// mediasoup's word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Connected => "connected",
            Self::Completed => "completed",
            Self::Disconnected => "disconnected",
        }
    }
}

/// DTLS state of a transport (mediasoup's names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DtlsState {
    /// Not started.
    New,
    /// Handshake under way.
    Connecting,
    /// Keys are there.
    Connected,
    /// Handshake failed.
    Failed,
    /// Closed by the client.
    Closed,
}

impl DtlsState {
    /// mediasoup's word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Failed => "failed",
            Self::Closed => "closed",
        }
    }
}

/// What a shard tells without being asked. Never lost silently: when the event lane is full the
/// shard counts, and tells [`Event::Lost`] as soon as there is room; the control thread then asks
/// for an [`Inventory`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// ICE state changed, or another address was selected.
    IceState {
        /// Which transport.
        transport: TransportId,
        /// The state now.
        state: IceState,
        /// The client's selected address.
        remote: Option<SocketAddr>,
        /// True for ICE-TCP.
        tcp: bool,
    },
    /// DTLS state changed.
    DtlsState {
        /// Which transport.
        transport: TransportId,
        /// The state now.
        state: DtlsState,
        /// SRTP protection profile, once connected.
        cipher: Option<&'static str>,
    },
    /// The transport closed by itself, and with it all it carried.
    TransportClosed {
        /// Which transport.
        transport: TransportId,
        /// Why.
        reason: CloseReason,
    },
    /// The first media packet of a producer arrived.
    ProducerStarted {
        /// Which producer.
        producer: ProducerId,
    },
    /// How loud producers of sound were since the last such event, [`LEVEL_WINDOW`] ago: those that
    /// were audible lately, where they live. Ends with a second of silence.
    ///
    /// [`LEVEL_WINDOW`]: crate::limits::LEVEL_WINDOW
    AudioLevels(Box<[(ProducerId, LevelWindow)]>),
    /// Other layers of a producer are wanted than were told last.
    ProducerDemand {
        /// Which producer.
        producer: ProducerId,
        /// The highest layers wanted of each encoding, lowest encoding first; `None`: nobody wants
        /// it.
        encodings: Vec<Option<Layers>>,
    },
    /// How well a producer's streams arrive has changed; told by its own shard, at most once a
    /// second.
    ProducerScore {
        /// Which producer.
        producer: ProducerId,
        /// Of each encoding, lowest first: its SSRC and 0–10; `None` before its first packet.
        scores: Vec<Option<(u32, u8)>>,
    },
    /// How well a consumer's stream arrives at its client has changed; told at most once a second.
    ConsumerScore {
        /// Which consumer.
        consumer: ConsumerId,
        /// 0–10.
        score: u8,
    },
    /// A consumer is sent other layers than before.
    ConsumerLayers {
        /// Which consumer.
        consumer: ConsumerId,
        /// What it is sent now; `None`: nothing, for want of bandwidth or because nothing arrives.
        layers: Option<Layers>,
    },
    /// What a transport's client can be sent has changed noticeably.
    Bandwidth {
        /// Which transport.
        transport: TransportId,
        /// The estimate, in bits/s.
        estimate_bps: u64,
    },
    /// This many events were lost since the last one told.
    Lost(u64),
}

/// All that a shard sends to the control thread, in order of happening.
#[derive(Debug)]
pub enum FromShard {
    /// The answer to the call of that number.
    Answer(CallId, Result<Reply, Refusal>),
    /// Something happened.
    Event(Event),
    /// Once a second.
    Report(Box<Report>),
}

/// Numbers a call from the control thread to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);
