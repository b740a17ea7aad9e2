//! One copy of a producer's media for one receiver: which stream it takes, and in which numbers it
//! goes out.
//!
//! Owned by the engine, on the shard's thread. Packets are read from the stream's ring, burst by
//! burst, when the transport's turn to send comes; nothing is queued here.
//!
//! ```text
//!            start(video)                key frame of the target
//!   Idle ───────────────► awaiting ─────────────────────────────► playing
//!    ▲   start(audio): playing at once                             │  target changes:
//!    └──── pause, producer's pause, transport not connected ◄──────┘  awaiting beside playing
//! ```
//!
//! Invariants: a video consumer's first packet, and the first after any switch or pause, begins a
//! key frame; its numbers have no gap but for packets lost on the way to us.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::control::command::{CreateConsumer, Layers, Refusal};
use crate::engine::outgoing::Share;
use crate::engine::rewrite::{SeqRewriter, TimestampRewriter};
use crate::engine::ring::PacketIndex;
use crate::engine::rtp::{EgressHeader, Extension, ExtensionIds, Token};
use crate::engine::select::{LayerTarget, Selector};
use crate::engine::sent::SentLog;
use crate::engine::source_clock::ClockPoint;
use crate::engine::stream::Stream;
use crate::engine::tally::OutgoingTally;
use crate::engine::under_way::SentKeyFrame;
use crate::engine::{ProducerKey, StreamKey, TransportKey};
use crate::id::ConsumerId;
use crate::limits::REPAIRS_QUEUED_MAX;
use crate::ortc::codec::Codec;
use crate::ortc::scalability::Scalability;
use crate::ortc::types::{CodecMapping, MediaKind, RtpParameters};

/// What a consumer counts unless its client says otherwise (mediasoup's).
pub const PRIORITY_DEFAULT: u8 = 1;

/// A place in a stream's ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Which stream.
    pub stream: StreamKey,
    /// The next packet to look at.
    pub next: PacketIndex,
}

/// A key frame of `stream` is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awaiting {
    /// Which stream.
    pub stream: StreamKey,
    /// The next packet to look at.
    pub next: PacketIndex,
    /// What came before this packet was there before it was waited for.
    pub since: PacketIndex,
}

/// The retransmission stream of a consumer (RFC 4588).
#[derive(Debug)]
pub struct RtxStream {
    /// Its SSRC.
    pub ssrc: u32,
    /// Its header.
    pub header: EgressHeader,
    /// The next extended sequence number.
    pub next: u64,
}

/// A payload type that may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendCodec {
    /// The media's payload type, as the room knows it.
    pub payload_type: u8,
    /// The media's payload type, as the receiver knows it.
    pub sent_as: u8,
    /// The payload type of its retransmissions, as the receiver knows it, if negotiated.
    pub rtx_payload_type: Option<u8>,
    /// The receiver may ask for lost packets.
    pub nack: bool,
}

/// How a consumer waits for a slow link (`pacing`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Hold {
    /// Since when it has had to, with all that it has not sent.
    pub since: Option<Instant>,
    /// It waits for its link now, and for nothing else.
    pub is_on: bool,
}

/// A consumer.
#[derive(Debug)]
pub struct Consumer {
    /// Its name.
    pub id: ConsumerId,
    /// Where it is sent.
    pub transport: TransportKey,
    /// What it copies.
    pub producer: ProducerKey,
    /// Audio or video.
    pub kind: MediaKind,
    /// Its media SSRC.
    pub ssrc: u32,
    /// Canonical name of its source.
    pub cname: String,
    /// Its payload types.
    pub codecs: Vec<SendCodec>,
    /// Its media header.
    pub header: EgressHeader,
    /// Its retransmissions, if negotiated.
    pub rtx: Option<RtxStream>,
    /// Its packets carry transport-wide numbers.
    pub numbered: bool,
    /// The receiver may ask for lost packets.
    pub repairable: bool,
    /// Some of its packets are repeated as they were, not over RTX.
    pub repeats_verbatim: bool,
    /// The receiver paused it.
    pub paused: bool,
    /// Packets of Opus that only say that there is silence are left out.
    pub ignore_dtx: bool,
    /// The highest layers there may be, as its scalability mode tells.
    pub highest: Layers,
    /// Highest spatial layer wanted.
    pub preferred_spatial: usize,
    /// Highest temporal layer wanted.
    pub preferred_temporal: u8,
    /// How much it counts among those of its transport, 1–255.
    pub priority: u8,
    /// What the sharing of its transport's bits allows it; `None`: nothing, or not shared yet.
    pub allowed: Option<LayerTarget>,
    /// What it gets of its transport.
    pub share: Box<Share>,
    /// Its receiver tells by REMB what it can take.
    pub remb: bool,
    /// The highest layers to send, as the allocation decided; all if it did not. For simulcast,
    /// `temporal` is for the encoding that `spatial` names.
    pub target: LayerTarget,
    /// Simulcast: the highest temporal layer of the encoding being played while another one is
    /// waited for. To be set with each change of `target.spatial`: lower at once where bits have to
    /// be saved before the key frame of the lower encoding is there.
    pub meanwhile: u8,
    /// It goes over to a lower stream for want of bandwidth: the other one ends with its own next key
    /// frame.
    pub goes_down: bool,
    /// Its producer has several encodings: going from one to another is not the selection's.
    pub simulcast: bool,
    /// What goes out of the stream being played.
    pub select: Selector,
    /// What it is being fed with.
    pub playing: Option<Cursor>,
    /// What it will be fed with, once a key frame is there.
    pub awaiting: Option<Awaiting>,
    /// What the stream being played brought before this packet was caught up with, if it was sent
    /// at all: the time it waited for this consumer says nothing about the shard.
    pub live_from: PacketIndex,
    /// True until the first packet after a start was sent.
    pub fresh: bool,
    /// A sender report of the stream that is played, or that was when something was: the one known
    /// when it was entered. A newer one is taken where the stream still has it when it is left.
    pub left: Option<ClockPoint>,
    /// Its sequence numbers.
    pub seq: SeqRewriter,
    /// Its timestamps.
    pub time: TimestampRewriter,
    /// What it sent lately.
    pub sent: SentLog,
    /// Packets that the receiver asked for again, by their number.
    pub repairs: VecDeque<u16>,
    /// Already among its transport's due consumers.
    pub due: bool,
    /// When it last became due.
    pub due_since: Option<Instant>,
    /// How it waits for its link.
    pub hold: Hold,
    /// The newest key frame sent over a link that has to be heeded.
    pub key_frame: Option<SentKeyFrame>,
    /// Its next packet follows the last one sent, whatever was skipped in between.
    pub closes_up: bool,
    /// Media packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub octets: u32,
    /// Bytes of the media packets sent, before protection.
    pub bytes: u64,
    /// As the receiver's reports tell.
    pub round_trip: Duration,
    /// What is counted for statistics; apart, because packets do not need it.
    pub tally: Box<OutgoingTally>,
}

impl Consumer {
    /// From a command, for a transport and producer that exist. `first_seq` is random below 2^15:
    /// a receiver that misses the first packets must not take a wrap of the number for none.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] when the parameters have no encoding with an SSRC or no codec.
    pub fn new(
        command: &CreateConsumer,
        producer: ProducerKey,
        transport: TransportKey,
        first_seq: (u16, u16),
    ) -> Result<Self, Refusal> {
        let rtp = &command.rtp;
        let unsupported = |what: &str| Refusal::Unsupported(format!("rtpParameters: {what}"));
        let encoding = rtp.encodings.first().ok_or_else(|| unsupported("no encoding"))?;
        let ssrc = encoding.ssrc.ok_or_else(|| unsupported("encodings[0].ssrc is missing"))?;
        let first = rtp.codecs.first().ok_or_else(|| unsupported("no codec"))?;
        let ids = ExtensionIds::new(&rtp.header_extensions);
        let mid = rtp.mid.as_deref().and_then(|mid| Token::new(mid.as_bytes()));
        let codecs = send_codecs(rtp, &command.renumbered);
        let repairable = codecs.iter().any(|codec| codec.nack);
        let repairs_possible = codecs.iter().any(|codec| codec.rtx_payload_type.is_some());
        let rtx = encoding.rtx.filter(|_| repairs_possible).map(|rtx| RtxStream {
            ssrc: rtx.ssrc,
            header: EgressHeader::new(rtx.ssrc, &ids, mid),
            next: u64::from(first_seq.1 & 0x7fff),
        });
        let codec_is_opus = matches!(first.codec(), Codec::Opus | Codec::Red);
        let kind = if first.mime_type.to_ascii_lowercase().starts_with("audio/") {
            MediaKind::Audio
        } else {
            MediaKind::Video
        };
        Ok(Self {
            id: command.consumer,
            transport,
            producer,
            kind,
            ssrc,
            cname: rtp.rtcp.cname.clone().unwrap_or_default(),
            repeats_verbatim: codecs
                .iter()
                .any(|codec| codec.nack && (rtx.is_none() || codec.rtx_payload_type.is_none())),
            codecs,
            header: EgressHeader::new(ssrc, &ids, mid),
            rtx,
            numbered: ids.has(Extension::TransportCc),
            repairable,
            paused: command.paused,
            ignore_dtx: command.ignore_dtx && codec_is_opus,
            highest: highest_layers(encoding.scalability_mode.as_deref()),
            preferred_spatial: command.preferred_layers.map_or(usize::MAX, |(s, _)| usize::from(s)),
            preferred_temporal: command.preferred_layers.and_then(|(_, t)| t).unwrap_or(u8::MAX),
            priority: PRIORITY_DEFAULT,
            allowed: None,
            share: Box::default(),
            remb: first.rtcp_feedback.iter().any(|feedback| feedback.kind == "goog-remb"),
            target: first_target(command),
            meanwhile: u8::MAX,
            goes_down: false,
            simulcast: false,
            select: Selector::default(),
            playing: None,
            awaiting: None,
            live_from: PacketIndex::default(),
            fresh: true,
            left: None,
            seq: SeqRewriter::new(u64::from(first_seq.0 & 0x7fff)),
            time: TimestampRewriter::new(first.clock_rate, 0),
            sent: SentLog::default(),
            repairs: VecDeque::new(),
            due: false,
            due_since: None,
            hold: Hold::default(),
            key_frame: None,
            closes_up: false,
            packets: 0,
            octets: 0,
            bytes: 0,
            round_trip: Duration::ZERO,
            tally: Box::default(),
        })
    }

    /// Its payload type of the room's `payload_type`, if it negotiated that.
    #[must_use]
    pub fn codec(&self, payload_type: u8) -> Option<&SendCodec> {
        self.codecs.iter().find(|codec| codec.payload_type == payload_type)
    }

    /// The highest layers that its receiver wants.
    #[must_use]
    pub fn preferred(&self) -> LayerTarget {
        let spatial = u8::try_from(self.preferred_spatial).unwrap_or(u8::MAX);
        LayerTarget { spatial, temporal: self.preferred_temporal }
    }

    /// The highest layers it wants, counted over all encodings.
    #[must_use]
    pub fn preferred_layers(&self) -> Layers {
        let spatial = u8::try_from(self.preferred_spatial).unwrap_or(u8::MAX);
        Layers { spatial, temporal: self.preferred_temporal }
    }

    /// The highest layers wanted of the stream being played.
    #[must_use]
    pub fn wanted(&self) -> LayerTarget {
        let goes_over = self.goes_over();
        LayerTarget {
            spatial: if self.simulcast { u8::MAX } else { self.target.spatial },
            temporal: if goes_over { self.meanwhile } else { self.target.temporal },
        }
    }

    /// True while one stream is played and the key frame of another is waited for.
    #[must_use]
    pub fn goes_over(&self) -> bool {
        self.playing.is_some_and(|playing| {
            self.awaiting.is_some_and(|awaiting| awaiting.stream != playing.stream)
        })
    }

    /// Feeds nothing until it is started again.
    pub fn stop(&mut self) {
        self.playing = None;
        self.awaiting = None;
        self.repairs.clear();
    }

    /// Goes over to `key` with its next key frame. One that arrived just now will do for a consumer
    /// that has nothing yet (a late joiner); otherwise it is asked for.
    pub fn aim(&mut self, key: StreamKey, stream: &mut Stream, now: Instant) {
        let head = stream.ring.head();
        let recent = if self.playing.is_none() { stream.recent_key_frame(now) } else { None };
        let next = recent.unwrap_or(head);
        self.awaiting = Some(Awaiting { stream: key, next, since: head });
        if recent.is_none() {
            stream.key_frames.request(now);
        }
    }

    /// True while a key frame of `stream` is waited for.
    #[must_use]
    pub fn awaits(&self, stream: StreamKey) -> bool {
        self.awaiting.is_some_and(|awaiting| awaiting.stream == stream)
    }

    /// True when packets of `stream` concern it.
    #[must_use]
    pub fn takes(&self, stream: StreamKey) -> bool {
        self.awaits(stream) || self.playing.is_some_and(|playing| playing.stream == stream)
    }

    /// The receiver asks for a packet again; false when there is no room for another wish.
    pub fn ask_repair(&mut self, seq: u16) -> bool {
        if self.repairs.len() >= REPAIRS_QUEUED_MAX {
            return false;
        }
        if !self.repairs.contains(&seq) {
            self.repairs.push_back(seq);
        }
        true
    }
}

/// Until an allocation decides: what the receiver prefers.
fn first_target(command: &CreateConsumer) -> LayerTarget {
    let Some((spatial, temporal)) = command.preferred_layers else { return LayerTarget::HIGHEST };
    LayerTarget { spatial, temporal: temporal.unwrap_or(u8::MAX) }
}

fn highest_layers(mode: Option<&str>) -> Layers {
    let Scalability { spatial, temporal, .. } = mode.map_or(Scalability::SINGLE, Scalability::of);
    Layers { spatial: spatial.saturating_sub(1), temporal: temporal.saturating_sub(1) }
}

fn send_codecs(rtp: &RtpParameters, renumbered: &[CodecMapping]) -> Vec<SendCodec> {
    let of_room = |sent_as: u8| {
        let known = renumbered.iter().find(|mapping| mapping.mapped_payload_type == sent_as);
        known.map_or(sent_as, |mapping| mapping.payload_type)
    };
    let is_rtx = |mime: &str| Codec::of(mime) == Codec::Rtx;
    let repeats = |payload_type: u8| {
        rtp.codecs.iter().find(|codec| {
            let apt = codec.parameters.get("apt").and_then(serde_json::Value::as_u64);
            is_rtx(&codec.mime_type) && apt == Some(u64::from(payload_type))
        })
    };
    rtp.codecs
        .iter()
        .filter(|codec| !is_rtx(&codec.mime_type))
        .map(|codec| SendCodec {
            payload_type: of_room(codec.payload_type),
            sent_as: codec.payload_type,
            rtx_payload_type: repeats(codec.payload_type).map(|rtx| rtx.payload_type),
            nack: codec.rtcp_feedback.iter().any(|f| f.kind == "nack" && f.parameter.is_empty()),
        })
        .collect()
}
