//! Statistics of transports, streams and consumers: values that shards tell, and what clients read.
//!
//! A shard fills in the `…Numbers`; the control thread adds names and times and gives the `…Stats`
//! out. Fields are named as mediasoup's, with their units: bitrates in bits/s over about the last
//! second, `byteCount` whole RTP packets before protection, times in milliseconds.
//! Plain data, made when somebody asks; nothing here is kept.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use utoipa::ToSchema;

use super::command::{BitrateLimits, DtlsState, IceState, Layers};
use super::registry::Direction;
use super::view::RoomSummary;
use crate::id::{ConsumerId, PeerId, ProducerId, RoomId, ShardId, TransportId};
use crate::ortc::types::{MediaKind, ProducerType};

/// One RTP stream, as its shard counts it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamNumbers {
    /// SSRC of the media.
    pub ssrc: u32,
    /// SSRC of its retransmissions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtx_ssrc: Option<u32>,
    /// Packets lost on the way, whatever was repaired; negative after duplicates.
    pub packets_lost: i64,
    /// Part of the packets lost in the last second, in 1/256.
    pub fraction_lost: u8,
    /// Packets let go: an inbound stream's that were malformed, forged or repeated; an outbound
    /// one's that had waited too long for their turn.
    pub packets_discarded: u64,
    /// Packets sent again.
    pub packets_retransmitted: u64,
    /// Packets that made up for lost ones.
    pub packets_repaired: u64,
    /// Requests for lost packets, of the receiving side.
    pub nack_count: u64,
    /// Packets that they named.
    pub nack_packet_count: u64,
    /// Key frames asked for by PLI, by the receiving side.
    pub pli_count: u64,
    /// Key frames asked for by FIR, by the receiving side.
    pub fir_count: u64,
    /// How well the stream arrives, 0–10.
    pub score: u8,
    /// To the other side and back, in ms; absent while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_time: Option<f64>,
    /// Retransmissions that nobody needed; of inbound streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtx_packets_discarded: Option<u64>,
    /// Interarrival jitter in timestamp units; of inbound streams, and of outbound ones as their
    /// receiver tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<u32>,
    /// Packets, retransmissions included.
    pub packet_count: u64,
    /// Bytes of them.
    pub byte_count: u64,
    /// bits/s.
    pub bitrate: u64,
    /// bits/s of each layer with all that it needs, by `spatial.temporal`; of inbound streams with
    /// layers inside.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bitrate_by_layer: BTreeMap<String, u64>,
}

/// The addresses over which a transport sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SelectedTuple {
    /// Ours.
    #[schema(value_type = String)]
    pub local_address: IpAddr,
    /// Ours.
    pub local_port: u16,
    /// The client's.
    #[schema(value_type = String)]
    pub remote_ip: IpAddr,
    /// The client's.
    pub remote_port: u16,
    /// `udp` or `tcp`.
    pub protocol: &'static str,
}

/// A transport, as its shard counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportNumbers {
    /// ICE's state.
    pub ice: IceState,
    /// DTLS' state.
    pub dtls: DtlsState,
    /// Where it sends: our address, the client's, and whether it is TCP.
    pub selected: Option<(IpAddr, SocketAddr, bool)>,
    /// What it carried.
    pub traffic: Traffic,
    /// What its client can be sent, in bits/s, as estimated.
    pub available_outgoing_bps: Option<u64>,
    /// What its client is told that it may send, in bits/s.
    pub available_incoming_bps: Option<u64>,
    /// Its limits.
    pub limits: BitrateLimits,
}

/// What a transport carried so far, and how fast. STUN and DTLS are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// Bytes received: RTP and RTCP.
    pub bytes_received: u64,
    /// bits/s.
    pub recv_bitrate: u64,
    /// Bytes sent: RTP and RTCP.
    pub bytes_sent: u64,
    /// bits/s.
    pub send_bitrate: u64,
    /// Bytes of media received.
    pub rtp_bytes_received: u64,
    /// bits/s.
    pub rtp_recv_bitrate: u64,
    /// Bytes of media sent.
    pub rtp_bytes_sent: u64,
    /// bits/s.
    pub rtp_send_bitrate: u64,
    /// Bytes of retransmissions received.
    pub rtx_bytes_received: u64,
    /// bits/s.
    pub rtx_recv_bitrate: u64,
    /// Bytes of retransmissions sent.
    pub rtx_bytes_sent: u64,
    /// bits/s.
    pub rtx_send_bitrate: u64,
    /// Bytes sent to see whether more would pass.
    pub probation_bytes_sent: u64,
    /// bits/s.
    pub probation_send_bitrate: u64,
}

/// A consumer, as its shard counts it.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerNumbers {
    /// What it sends.
    pub stream: StreamNumbers,
    /// The encoding of its producer that it is being fed with.
    pub encoding: Option<u8>,
    /// Only of layered ones: what is sent, what is aimed at, what is wanted at most.
    pub layers: LayersNow,
    /// 1–255.
    pub priority: u8,
}

/// The layers of a consumer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayersNow {
    /// What is sent; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_layers: Option<Layers>,
    /// What is aimed at; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_layers: Option<Layers>,
    /// The highest wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_layers: Option<Layers>,
    /// Why these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<WhyLayers>,
}

/// Why a consumer is sent the layers that it is sent, with the numbers behind that, in bits/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhyLayers {
    /// `preferred`: it gets all that it wants; `bandwidth`: the next step up does not fit;
    /// `settling`: it would, but did not a moment ago; `not-arriving`, `young`: what it wants above
    /// does not arrive, or has only just begun to; `paused`, `not-connected`.
    pub reason: &'static str,
    /// What the layers that it may be sent take.
    pub granted_bitrate: u64,
    /// What the layered consumers of its transport would take in all with its next step up; absent
    /// where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed_bitrate: Option<u64>,
    /// What there is for them; absent where nothing bounds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bitrate: Option<u64>,
}

/// How well a producer's encoding arrives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EncodingScore {
    /// Its place among the encodings.
    pub encoding_idx: usize,
    /// Its SSRC.
    pub ssrc: u32,
    /// Its RID, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rid: Option<String>,
    /// 0–10.
    pub score: u8,
}

/// How well a consumer's streams arrive, each 0–10.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Score {
    /// Of what it is sent, at its client.
    pub score: u8,
    /// Of the producer's encoding that it is fed with, or would be; 0 where none arrives.
    pub producer_score: u8,
    /// Of each of the producer's encodings.
    pub producer_scores: Vec<u8>,
}

/// One transport, as `getStats()` of mediasoup tells.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransportStats {
    /// Always `webrtc-transport`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its name.
    #[schema(value_type = String, format = "uuid")]
    pub transport_id: TransportId,
    /// Whose.
    #[schema(value_type = String)]
    pub peer_id: PeerId,
    /// What its client means to do with it.
    pub direction: Direction,
    /// Where it lives.
    #[schema(value_type = u16)]
    pub shard: ShardId,
    /// ms since 1970.
    pub timestamp: u64,
    /// Always `controlled`.
    pub ice_role: &'static str,
    /// `new`, `connected`, `completed` or `disconnected`.
    pub ice_state: &'static str,
    /// Where it sends; absent while nobody is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ice_selected_tuple: Option<SelectedTuple>,
    /// `new`, `connecting`, `connected`, `failed` or `closed`.
    pub dtls_state: &'static str,
    /// What it carried.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// What its client can be sent, in bits/s, as estimated; absent where nothing is estimated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_outgoing_bitrate: Option<u64>,
    /// What its client is told that it may send, in bits/s; absent where it is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_incoming_bitrate: Option<u64>,
    /// Its limits.
    #[serde(flatten)]
    pub limits: BitrateLimits,
}

/// One RTP stream, as `getStats()` of mediasoup tells.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RtpStreamStats {
    /// `inbound-rtp` from a producer, `outbound-rtp` to a consumer.
    #[serde(rename = "type")]
    pub direction: &'static str,
    /// ms since 1970.
    pub timestamp: u64,
    /// `audio` or `video`.
    #[schema(value_type = String)]
    pub kind: MediaKind,
    /// Of its first codec.
    pub mime_type: String,
    /// RID of its encoding, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rid: Option<String>,
    /// What was counted.
    #[serde(flatten)]
    pub numbers: StreamNumbers,
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProducerStats {
    /// Its name.
    #[schema(value_type = String, format = "uuid")]
    pub producer_id: ProducerId,
    /// Whose.
    #[schema(value_type = String)]
    pub peer_id: PeerId,
    /// What it arrives over.
    #[schema(value_type = String, format = "uuid")]
    pub transport_id: TransportId,
    /// `audio` or `video`.
    #[schema(value_type = String)]
    pub kind: MediaKind,
    /// Camera, screen …: the client's word.
    pub source: String,
    /// `simple`, `simulcast` or `svc`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub producer_type: ProducerType,
    /// True while nothing of it is forwarded.
    pub paused: bool,
    /// How well each encoding that has begun arrives.
    pub score: Vec<EncodingScore>,
    /// Each encoding that has begun: what mediasoup's `getStats()` gives.
    pub stats: Vec<RtpStreamStats>,
}

/// One consumer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerStats {
    /// Its name.
    #[schema(value_type = String, format = "uuid")]
    pub consumer_id: ConsumerId,
    /// What it copies.
    #[schema(value_type = String, format = "uuid")]
    pub producer_id: ProducerId,
    /// Whose that is.
    #[schema(value_type = String)]
    pub producer_peer_id: PeerId,
    /// What that is: camera, screen …
    pub source: String,
    /// Whose.
    #[schema(value_type = String)]
    pub peer_id: PeerId,
    /// What it is sent over.
    #[schema(value_type = String, format = "uuid")]
    pub transport_id: TransportId,
    /// It is paused itself.
    pub paused: bool,
    /// Its producer is paused.
    pub producer_paused: bool,
    /// Only of simulcast and SVC.
    #[serde(flatten)]
    pub layers: LayersNow,
    /// How much it counts among the consumers of its transport, 1–255.
    pub priority: u8,
    /// How well its streams arrive.
    pub score: Score,
    /// What it is sent, then (unless it is one of a room's) the producer's encoding that it is fed
    /// with: what mediasoup's `getStats()` gives.
    pub stats: Vec<RtpStreamStats>,
}

/// A page of everything in a room.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomStats {
    /// Its name.
    #[schema(value_type = String)]
    pub room_id: RoomId,
    /// The whole of it.
    pub room: RoomSummary,
    /// Who spoke last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub speaker: Option<PeerId>,
    /// Transports, by name.
    pub transports: Vec<TransportStats>,
    /// Producers, by name; after the last transport.
    pub producers: Vec<ProducerStats>,
    /// Consumers, by name; after the last producer.
    pub consumers: Vec<ConsumerStats>,
    /// Give it as `cursor` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
