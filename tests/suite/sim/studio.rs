//! A raw publisher whose every payload and header extension is under control, with what it offers
//! beyond a stock client: RED, H265, audio levels, dependency descriptors.

use std::time::Duration;

use ringcast::control::command::{Command, CreateConsumer, CreateProducer};
use ringcast::engine::srtp::SrtpProfile;
use ringcast::id::{ConsumerId, ProducerId};
use ringcast::ortc::types::{MediaKind, RtpCapabilities};
use ringcast::ortc::{self, Menu, uri};
use serde_json::{Value, json};
use uuid::Uuid;

use super::params::Produced;
use super::raw::{RawHeard, RawPacket};
use super::room::{Peer, Room, ms};

/// The publisher's own numbers, all other than the room's.
pub(crate) const LEVEL: u8 = 1;
pub(crate) const DESCRIPTOR: u8 = 12;
pub(crate) const OPUS: u8 = 111;
pub(crate) const RED: u8 = 63;
const SSRC: u32 = 1_234_567;

/// One packet to send.
pub(crate) struct Take<'a> {
    pub(crate) payload_type: u8,
    pub(crate) payload: &'a [u8],
    pub(crate) extensions: &'a [(u8, &'a [u8])],
    pub(crate) marker: bool,
}

/// One producer of a raw peer on the first shard.
pub(crate) struct Studio {
    pub(crate) room: Room,
    pub(crate) alice: Peer,
    pub(crate) producer: ProducerId,
    pub(crate) kind: MediaKind,
    produced: Produced,
    next: u64,
    timestamp: u32,
    consumers: u32,
}

/// Opus, and RED around it.
pub(crate) fn sound() -> Value {
    let codec = |mime: &str, payload_type: u8| {
        json!({"mimeType": mime, "payloadType": payload_type, "clockRate": 48_000, "channels": 2,
               "parameters": {"useinbandfec": 1, "usedtx": 1},
               "rtcpFeedback": [{"type": "transport-cc"}, {"type": "nack"}]})
    };
    json!([codec("audio/opus", OPUS), codec("audio/red", RED)])
}

/// One codec of video, of payload type 96.
pub(crate) fn picture(mime: &str) -> Value {
    json!([{"mimeType": mime, "payloadType": 96, "clockRate": 90_000, "parameters": {},
            "rtcpFeedback": [{"type": "nack", "parameter": "pli"}, {"type": "goog-remb"}]}])
}

pub(crate) fn extended() -> RtpCapabilities {
    Menu::EXTENDED.router_capabilities(&Menu::EXTENDED.media_codecs()).unwrap()
}

impl Studio {
    pub(crate) fn new(seed: u64, kind: MediaKind, codecs: Value) -> Self {
        Self::with_extensions(seed, kind, codecs, &[])
    }

    /// With header extensions besides the usual.
    pub(crate) fn with_extensions(
        seed: u64,
        kind: MediaKind,
        codecs: Value,
        extensions: &[(&str, u8)],
    ) -> Self {
        let mut room = Room::with_shards(seed, 2);
        room.capabilities = extended();
        let alice = room.raw_peer(SrtpProfile::AeadAes128Gcm);
        let usual = [(uri::AUDIO_LEVEL, LEVEL), (uri::DEPENDENCY_DESCRIPTOR, DESCRIPTOR)];
        let extensions: Vec<Value> =
            usual.iter().chain(extensions).map(|(uri, id)| json!({"uri": uri, "id": id})).collect();
        let rtp = json!({"codecs": codecs, "headerExtensions": extensions,
            "encodings": [{"ssrc": SSRC}], "rtcp": {"cname": "studio"}});
        let rtp = ortc::normalise_producer(kind, ortc::parse_rtp_parameters(rtp).unwrap()).unwrap();
        let producer_type = Menu::EXTENDED.producer_type(&rtp).unwrap();
        let mapping = ortc::producer_mapping(&rtp, &room.capabilities, 100_000_000).unwrap();
        let consumable = ortc::consumable_parameters(kind, &rtp, &room.capabilities, &mapping);
        let produced = Produced { rtp, mapping, consumable, producer_type };
        let producer = ProducerId(Uuid::from_u128(7_000_000));
        let create = CreateProducer {
            transport: room.seats[alice.0].transport,
            producer,
            kind,
            producer_type,
            rtp: produced.rtp.clone(),
            mapping: produced.mapping.clone(),
            consumable: produced.consumable.clone(),
            paused: false,
            key_frame_request_delay: Duration::ZERO,
        };
        room.command(Command::CreateProducer(Box::new(create)));
        Self { room, alice, producer, kind, produced, next: 1000, timestamp: 0, consumers: 0 }
    }

    /// A receiver on a shard that knows what `capabilities` say; returns its peer and SSRC.
    pub(crate) fn receiver(
        &mut self,
        shard: usize,
        capabilities: &RtpCapabilities,
        change: impl FnOnce(&mut CreateConsumer),
    ) -> (Peer, u32) {
        self.room.shard = shard;
        let peer = self.room.raw_peer(SrtpProfile::AeadAes128Gcm);
        self.room.shard = 0;
        self.consumers += 1;
        let ssrc = 500_000_000 + 10 * self.consumers;
        let rtp = ortc::consumer_parameters(ortc::ConsumerRequest {
            consumable: &self.produced.consumable,
            remote: capabilities,
            kind: self.kind,
            enable_rtx: Some(true),
            ssrc,
            mid: Some("0".to_owned()),
            pipe: false,
        })
        .unwrap();
        let mut create = CreateConsumer {
            transport: self.room.seats[peer.0].transport,
            consumer: ConsumerId(Uuid::from_u128(8_000_000 + u128::from(self.consumers))),
            producer: self.producer,
            mirror: None,
            rtp,
            renumbered: Vec::new(),
            paused: false,
            preferred_layers: None,
            ignore_dtx: false,
        };
        change(&mut create);
        self.room.command(Command::CreateConsumer(Box::new(create)));
        (peer, ssrc)
    }

    /// The consumer of a receiver.
    pub(crate) fn consumer(&self, (_, ssrc): (Peer, u32)) -> ConsumerId {
        ConsumerId(Uuid::from_u128(8_000_000 + u128::from(ssrc - 500_000_000) / 10))
    }

    /// Sends one packet.
    pub(crate) fn send(&mut self, take: &Take<'_>) {
        let sealed = self.seal(take);
        self.arrive(&sealed);
    }

    /// The next packet, which is still to [`arrive`](Self::arrive).
    pub(crate) fn seal(&mut self, take: &Take<'_>) -> Vec<u8> {
        let packet = RawPacket {
            ssrc: SSRC,
            payload_type: take.payload_type,
            marker: take.marker,
            index: self.next,
            timestamp: self.timestamp,
            mid: None,
            transport_seq: None,
            payload: take.payload,
            padding: 0,
        };
        self.next += 1;
        self.room.seats[self.alice.0].raw().seal_extended(&packet, take.extensions)
    }

    /// A sealed packet arrives.
    pub(crate) fn arrive(&mut self, sealed: &[u8]) {
        let path = self.room.seats[self.alice.0].path();
        self.room.inject(path, sealed);
    }

    /// Lets the time of one packet or picture pass.
    pub(crate) fn pass(&mut self, span: Duration) {
        let hertz = if self.kind == MediaKind::Audio { 48 } else { 90 };
        let ticks = u32::try_from(span.as_millis()).unwrap() * hertz;
        self.timestamp = self.timestamp.wrapping_add(ticks);
        self.room.run_for(span);
    }

    /// A sound of 20 ms.
    pub(crate) fn speak(&mut self, payload_type: u8, payload: &[u8], level: u8) {
        let extensions: [(u8, &[u8]); 1] = [(LEVEL, &[level])];
        self.send(&Take { payload_type, payload, extensions: &extensions, marker: false });
        self.pass(ms(20));
    }

    /// What a receiver heard on its SSRC.
    pub(crate) fn heard(&self, (peer, ssrc): (Peer, u32)) -> Vec<RawHeard> {
        let heard = &self.room.seats[peer.0].raw().heard;
        heard.iter().filter(|heard| heard.ssrc == ssrc).cloned().collect()
    }
}

/// Numbers that count up by one.
pub(crate) fn assert_no_gap(heard: &[RawHeard]) {
    for pair in heard.windows(2) {
        assert_eq!(pair[1].index, pair[0].index + 1, "a gap");
    }
}
