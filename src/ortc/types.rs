//! RTP capabilities and parameters as they travel in JSON (mediasoup's shapes).
//!
//! Owns the data types and questions about one value; rules between values live in the sibling
//! modules. Used by the control thread and, inside commands, by every shard. A value that came
//! from a client is made by [`super::parse_rtp_parameters`] or [`super::parse_rtp_capabilities`],
//! which check and bound it; `Deserialize` alone does neither.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::codec::Codec;
use super::scalability::Scalability;

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

impl MediaKind {
    /// `audio` or `video`, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }

    /// The kind of a MIME type such as `video/VP8`; `None` unless it is `audio/…` or `video/…`.
    #[must_use]
    pub fn of(mime: &str) -> Option<Self> {
        let (kind, name) = mime.split_once('/')?;
        match kind {
            _ if name.is_empty() => None,
            _ if kind.eq_ignore_ascii_case("audio") => Some(Self::Audio),
            _ if kind.eq_ignore_ascii_case("video") => Some(Self::Video),
            _ => None,
        }
    }
}

/// The payload type that an RTX codec's `apt` parameter names (RFC 4588 §8.1).
fn apt(parameters: &Map<String, Value>) -> Option<u8> {
    parameters.get("apt").and_then(Value::as_u64).and_then(|apt| u8::try_from(apt).ok())
}

/// Direction of a header extension, seen from the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Accepted from producers and given to consumers.
    #[default]
    Sendrecv,
    /// Given to consumers only.
    Sendonly,
    /// Accepted from producers only.
    Recvonly,
    /// Neither.
    Inactive,
}

/// One RTCP feedback mechanism, for instance `nack` with parameter `pli`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RtcpFeedback {
    /// `nack`, `ccm`, `goog-remb` or `transport-cc`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `""`, `pli`, `fir`.
    #[serde(default)]
    pub parameter: String,
}

/// A codec that a router or client is able to handle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpCodecCapability {
    /// Audio or video.
    pub kind: MediaKind,
    /// For instance `video/VP8`.
    pub mime_type: String,
    /// Preferred RTP payload type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_payload_type: Option<u8>,
    /// Hz.
    pub clock_rate: u32,
    /// Audio channels; absent for video.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    /// Codec parameters (fmtp): strings or numbers.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// RTCP feedback mechanisms.
    #[serde(default)]
    pub rtcp_feedback: Vec<RtcpFeedback>,
}

impl RtpCodecCapability {
    /// The codec that the MIME type names.
    #[must_use]
    pub fn codec(&self) -> Codec {
        Codec::of(&self.mime_type)
    }

    /// For RTX: the payload type of the media it repairs.
    #[must_use]
    pub fn apt(&self) -> Option<u8> {
        apt(&self.parameters)
    }
}

/// A header extension that a router or client is able to handle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpHeaderExtension {
    /// Audio or video.
    pub kind: MediaKind,
    /// The extension's URI.
    pub uri: String,
    /// The preferred numeric id, 1–14 here.
    pub preferred_id: u8,
    /// Always false here.
    #[serde(default)]
    pub preferred_encrypt: bool,
    /// Seen from the router.
    #[serde(default)]
    pub direction: Direction,
}

/// What a router or client is able to receive.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpCapabilities {
    /// Codecs, RTX among them.
    #[serde(default)]
    pub codecs: Vec<RtpCodecCapability>,
    /// Header extensions.
    #[serde(default)]
    pub header_extensions: Vec<RtpHeaderExtension>,
}

/// A codec in use, with its payload type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpCodecParameters {
    /// For instance `video/VP8`, `video/rtx`.
    pub mime_type: String,
    /// RTP payload type.
    pub payload_type: u8,
    /// Hz.
    pub clock_rate: u32,
    /// Audio channels; absent for video.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    /// Codec parameters (fmtp): strings or numbers. RTX has `apt`.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// RTCP feedback mechanisms.
    #[serde(default)]
    pub rtcp_feedback: Vec<RtcpFeedback>,
}

impl RtpCodecParameters {
    /// The codec that the MIME type names.
    #[must_use]
    pub fn codec(&self) -> Codec {
        Codec::of(&self.mime_type)
    }

    /// For RTX: the payload type of the media it repairs.
    #[must_use]
    pub fn apt(&self) -> Option<u8> {
        apt(&self.parameters)
    }
}

/// A header extension in use, with its id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RtpHeaderExtensionParameters {
    /// The extension's URI.
    pub uri: String,
    /// The numeric id on the wire, 1–255.
    pub id: u8,
    /// Always false here.
    #[serde(default)]
    pub encrypt: bool,
    /// Free parameters.
    #[serde(default)]
    pub parameters: Map<String, Value>,
}

/// The RTX stream of an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtxEncoding {
    /// SSRC of the retransmissions.
    pub ssrc: u32,
}

/// One encoding (simulcast stream) of a producer, or the one of a consumer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpEncodingParameters {
    /// Media SSRC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
    /// RTP stream id (RFC 8852) of a simulcast encoding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rid: Option<String>,
    /// The one codec this encoding uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec_payload_type: Option<u8>,
    /// The RTX stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtx: Option<RtxEncoding>,
    /// Discontinuous transmission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtx: Option<bool>,
    /// For instance `L1T3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scalability_mode: Option<String>,
    /// bits/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bitrate: Option<u64>,
    /// Fields this server does not read, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl RtpEncodingParameters {
    /// The layers of this encoding; a single one of each when it names no mode.
    #[must_use]
    pub fn scalability(&self) -> Scalability {
        self.scalability_mode.as_deref().map_or(Scalability::SINGLE, Scalability::of)
    }
}

/// RTCP settings of a producer or consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtcpParameters {
    /// Canonical name (RFC 3550 §6.5.1): equal for all sources of one sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cname: Option<String>,
    /// Reduced-size RTCP (RFC 5506).
    pub reduced_size: bool,
}

/// What is sent or received: one producer's or consumer's RTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpParameters {
    /// Media id (RFC 9143), at most 8 bytes on the wire here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mid: Option<String>,
    /// Codecs, RTX among them.
    pub codecs: Vec<RtpCodecParameters>,
    /// Header extensions.
    #[serde(default)]
    pub header_extensions: Vec<RtpHeaderExtensionParameters>,
    /// Encodings.
    #[serde(default)]
    pub encodings: Vec<RtpEncodingParameters>,
    /// RTCP settings.
    pub rtcp: RtcpParameters,
    /// Media stream and track id, `stream track`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msid: Option<String>,
}

impl RtpParameters {
    /// The id on the wire of the header extension with that URI, if negotiated.
    #[must_use]
    pub fn extension_id(&self, uri: &str) -> Option<u8> {
        self.header_extensions.iter().find(|extension| extension.uri == uri).map(|found| found.id)
    }

    /// The first codec that is no RTX.
    #[must_use]
    pub fn media_codec(&self) -> Option<&RtpCodecParameters> {
        self.codecs.iter().find(|codec| !codec.codec().is_rtx())
    }

    /// The RTX codec that repairs the given payload type.
    #[must_use]
    pub fn rtx_codec_of(&self, payload_type: u8) -> Option<&RtpCodecParameters> {
        self.codecs.iter().find(|codec| codec.codec().is_rtx() && codec.apt() == Some(payload_type))
    }
}

/// A producer's payload type and the room's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CodecMapping {
    /// As the producer sends it.
    pub payload_type: u8,
    /// As the room knows it.
    pub mapped_payload_type: u8,
}

/// A producer's encoding and the SSRC by which the room knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EncodingMapping {
    /// The producer's SSRC, if given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
    /// The producer's RID, if given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rid: Option<String>,
    /// The room's SSRC.
    pub mapped_ssrc: u32,
}

/// How a producer's numbers map to the room's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RtpMapping {
    /// Payload types, RTX among them.
    pub codecs: Vec<CodecMapping>,
    /// Encodings in the producer's order.
    pub encodings: Vec<EncodingMapping>,
}

/// How a producer's encodings relate (mediasoup's `type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProducerType {
    /// One encoding, one layer.
    Simple,
    /// Several encodings, one stream each.
    Simulcast,
    /// One encoding with spatial or temporal layers.
    Svc,
}

impl ProducerType {
    /// mediasoup's word, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Simulcast => "simulcast",
            Self::Svc => "svc",
        }
    }
}
