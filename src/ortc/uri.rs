//! URIs of the RTP header extensions that a router knows. Constants only; used by `ortc` to
//! negotiate and by the engine to find ids. Extensions not named here are never negotiated.

/// Media id of the m-section (RFC 9143 §15).
pub const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
/// RTP stream id of a simulcast encoding (RFC 8852 §4.1).
pub const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
/// RTP stream id of the encoding that a retransmission repairs (RFC 8852 §4.2).
pub const RRID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
/// Instant of sending, 24 bits of 6.18 fixed-point seconds.
pub const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
/// Transport-wide sequence number.
pub const TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
/// Audio level of the packet, sender to mixer (RFC 6464).
pub const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// AV1 dependency descriptor (also carried with other codecs).
pub const DEPENDENCY_DESCRIPTOR: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
/// Coordination of video orientation (3GPP TS 26.114).
pub const VIDEO_ORIENTATION: &str = "urn:3gpp:video-orientation";
/// Transmission time offset (RFC 5450).
pub const TOFFSET: &str = "urn:ietf:params:rtp-hdrext:toffset";
/// Absolute capture time of the first frame in the packet.
pub const ABS_CAPTURE_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
/// Least and greatest playout delay wanted by the sender.
pub const PLAYOUT_DELAY: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
/// mediasoup's own packet number.
pub const PACKET_ID: &str = "urn:mediasoup:params:rtp-hdrext:packet-id";
