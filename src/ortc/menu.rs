//! What a router could carry at all, and what rooms carry by default. Tables only; called by
//! [`super::router_caps`] once per room kind. Numbers are mediasoup's, so that captures and recorded
//! vectors compare. Never looked at per packet.
//!
//! [`Menu`] names what goes beyond mediasoup 3.27. Deliberately not among it: the dependency
//! descriptor stays `recvonly`, as in mediasoup. It is taken from producers (it tells layers and key
//! frames, also of what is encrypted end to end), but its frame numbers would have to be rewritten
//! over switches and drops for consumers, and browsers decode every codec without it.

use serde_json::{Map, Value, json};

use super::types::{Direction, MediaKind, RtcpFeedback, RtpCodecCapability, RtpHeaderExtension};
use super::uri;

/// What is on offer: mediasoup's menu, or more.
///
/// The server offers [`Menu::EXTENDED`]. Every extension appears behind what mediasoup offers, so
/// that the numbers of the rest, and what `mediasoup-client` makes of them, stay as they are; the
/// recorded vectors of mediasoup are checked against [`Menu::MEDIASOUP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Menu {
    /// Simulcast of VP9 and AV1 is accepted, each encoding of one spatial layer. mediasoup refuses
    /// it; browsers offer it since Chromium 113. Nothing of it shows in capabilities.
    pub vp9_av1_simulcast: bool,
    /// `audio/red` (RFC 2198) around Opus. A producer has to state the Opus inside, too, as WHIP
    /// clients do; `mediasoup-client` states one codec alone, so that its page must add the Opus to
    /// what `produce` hands it. Consumers that know only Opus get the newest block alone, unless it is
    /// encrypted end to end: then they get nothing. Listed behind all others: clients choose the
    /// first codec of a kind unless told otherwise, so nobody sends it by accident.
    pub red: bool,
    /// `video/H265` (RFC 7798), which mediasoup 3.16.6 gave up. Listed behind all others, too.
    pub h265: bool,
    /// Rooms carry H264 of further profiles than the replaced service's constrained baseline, each
    /// listed as a codec of its own behind all others: encoders send Main or High unless told
    /// otherwise, and Chromium decodes both.
    pub h264_profiles: bool,
}

impl Menu {
    /// mediasoup 3.27's.
    pub const MEDIASOUP: Self =
        Self { vp9_av1_simulcast: false, red: false, h265: false, h264_profiles: false };

    /// With every extension of this server.
    pub const EXTENDED: Self =
        Self { vp9_av1_simulcast: true, red: true, h265: true, h264_profiles: true };

    /// The codecs of a room: mediasoup's [`default_media_codecs`], then the extensions.
    #[must_use]
    pub fn media_codecs(self) -> Vec<RtpCodecCapability> {
        let mut codecs = default_media_codecs();
        if self.red {
            codecs.push(audio(RED, 48_000, 2, NO_FEEDBACK));
        }
        if self.h265 {
            codecs.push(RtpCodecCapability {
                rtcp_feedback: Vec::new(),
                ..video(H265, json!({"profile-id": 1, "tier-flag": 0, "tx-mode": "SRST"}))
            });
        }
        if self.h264_profiles {
            codecs.extend(H264_PROFILES.map(h264));
        }
        codecs
    }

    /// The same with these videos alone, in this order: a client sends the first that it can, unless
    /// its page chooses another. Further profiles of one come behind all first ones, as above.
    #[must_use]
    pub fn media_codecs_with(self, videos: &[VideoCodec]) -> Vec<RtpCodecCapability> {
        let all = self.media_codecs();
        let (mut chosen, mut further) = (Vec::new(), all.clone());
        for video in videos {
            let at = further.iter().position(|codec| video.is(codec));
            chosen.extend(at.map(|at| further.remove(at)));
        }
        further.retain(|codec| videos.iter().any(|video| video.is(codec)));
        let mut chosen = chosen.into_iter().chain(further);
        let places = all.into_iter().map(|codec| match codec.kind {
            MediaKind::Audio => Some(codec),
            MediaKind::Video => chosen.next(),
        });
        places.flatten().collect()
    }
}

/// A codec of pictures that rooms may carry; in this order they do unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoCodec {
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// RFC 6184, in each profile that rooms carry.
    H264,
    /// AV1.
    Av1,
    /// RFC 7798, Main.
    H265,
}

impl VideoCodec {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Vp8, Self::Vp9, Self::H264, Self::Av1, Self::H265];

    /// As MIME types name it, behind `video/`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::H264 => "H264",
            Self::Av1 => "AV1",
            Self::H265 => "H265",
        }
    }

    /// The one of that name; the letters' case does not matter.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    fn is(self, codec: &RtpCodecCapability) -> bool {
        let video = codec.mime_type.strip_prefix("video/");
        video.is_some_and(|name| name.eq_ignore_ascii_case(self.name()))
    }
}

const RED: &str = "audio/red";
const H265: &str = "video/H265";

/// Constrained baseline, which every browser decodes; level 3.1.
const H264_PROFILE: &str = "42e01f";

/// Main, High and Baseline, as Chromium offers them.
const H264_PROFILES: [&str; 3] = ["4d001f", "64001f", "42001f"];

/// Feedback of a codec: type and parameter.
type Feedback = &'static [(&'static str, &'static str)];

const NACK_AND_CC: Feedback = &[("nack", ""), ("transport-cc", "")];
const CC_ONLY: Feedback = &[("transport-cc", "")];
const NO_FEEDBACK: Feedback = &[];
const VIDEO_FEEDBACK: Feedback =
    &[("nack", ""), ("nack", "pli"), ("ccm", "fir"), ("goog-remb", ""), ("transport-cc", "")];

/// Clock rate of every video codec (RFC 3551 §5).
pub(super) const VIDEO_CLOCK_RATE: u32 = 90_000;

/// Audio codecs of one channel without parameters: name, clock rate, fixed payload type, feedback.
const MONO: [(&str, u32, Option<u8>, Feedback); 17] = [
    ("audio/PCMU", 8000, Some(0), CC_ONLY),
    ("audio/PCMA", 8000, Some(8), CC_ONLY),
    ("audio/ISAC", 32_000, None, CC_ONLY),
    ("audio/ISAC", 16_000, None, CC_ONLY),
    ("audio/G722", 8000, Some(9), CC_ONLY),
    ("audio/iLBC", 8000, None, CC_ONLY),
    ("audio/SILK", 24_000, None, CC_ONLY),
    ("audio/SILK", 16_000, None, CC_ONLY),
    ("audio/SILK", 12_000, None, CC_ONLY),
    ("audio/SILK", 8000, None, CC_ONLY),
    ("audio/CN", 32_000, Some(13), NO_FEEDBACK),
    ("audio/CN", 16_000, Some(13), NO_FEEDBACK),
    ("audio/CN", 8000, Some(13), NO_FEEDBACK),
    ("audio/telephone-event", 48_000, None, NO_FEEDBACK),
    ("audio/telephone-event", 32_000, None, NO_FEEDBACK),
    ("audio/telephone-event", 16_000, None, NO_FEEDBACK),
    ("audio/telephone-event", 8000, None, NO_FEEDBACK),
];

/// Opus of more than two channels: channels, mapping, streams, coupled streams.
const MULTIOPUS: [(u8, &str, u8, u8); 3] =
    [(4, "0,1,2,3", 2, 2), (6, "0,4,1,2,3,5", 4, 2), (8, "0,6,1,2,3,4,5,7", 5, 3)];

/// Every codec a room may be made of; RTX is added to video codecs when a room is made.
pub(super) fn supported_codecs(menu: Menu) -> Vec<RtpCodecCapability> {
    let mut codecs = vec![audio("audio/opus", 48_000, 2, NACK_AND_CC)];
    for (channels, mapping, streams, coupled) in MULTIOPUS {
        codecs.push(RtpCodecCapability {
            parameters: parameters(json!({
                "channel_mapping": mapping, "num_streams": streams, "coupled_streams": coupled,
            })),
            ..audio("audio/multiopus", 48_000, channels, NACK_AND_CC)
        });
    }
    for (mime, clock_rate, payload_type, feedback) in MONO {
        codecs.push(RtpCodecCapability {
            preferred_payload_type: payload_type,
            ..audio(mime, clock_rate, 1, feedback)
        });
    }
    codecs.push(video("video/VP8", json!({})));
    codecs.push(video("video/VP9", json!({})));
    codecs.push(video("video/H264", json!({"level-asymmetry-allowed": 1})));
    codecs.push(video("video/AV1", json!({})));
    if menu.red {
        // As Opus: what is lost is asked for in the same way.
        codecs.push(audio(RED, 48_000, 2, NACK_AND_CC));
    }
    if menu.h265 {
        codecs.push(video(H265, json!({})));
    }
    codecs
}

/// The codecs of a room: the replaced service's four, then AV1, so that the ids of the four stay.
#[must_use]
pub fn default_media_codecs() -> Vec<RtpCodecCapability> {
    vec![
        audio("audio/opus", 48_000, 2, NO_FEEDBACK),
        RtpCodecCapability {
            rtcp_feedback: Vec::new(),
            ..video("video/VP8", json!({"x-google-start-bitrate": 300}))
        },
        RtpCodecCapability { rtcp_feedback: Vec::new(), ..video("video/VP9", json!({})) },
        h264(H264_PROFILE),
        RtpCodecCapability { rtcp_feedback: Vec::new(), ..video("video/AV1", json!({})) },
    ]
}

/// Every header extension of a router, in mediasoup's order: audio before video for each URI.
///
/// `Recvonly` ones are taken from producers and never offered to consumers: a RID means nothing
/// behind an SFU, and the dependency descriptor travels only between routers.
pub(super) fn supported_header_extensions() -> Vec<RtpHeaderExtension> {
    use Direction::{Recvonly, Sendrecv};
    let table: [(&str, u8, Option<Direction>, Option<Direction>); 12] = [
        (uri::MID, 1, Some(Sendrecv), Some(Sendrecv)),
        (uri::RID, 2, None, Some(Recvonly)),
        (uri::RRID, 3, None, Some(Recvonly)),
        (uri::ABS_SEND_TIME, 4, Some(Sendrecv), Some(Sendrecv)),
        (uri::TRANSPORT_CC, 5, Some(Recvonly), Some(Sendrecv)),
        (uri::AUDIO_LEVEL, 6, Some(Sendrecv), None),
        (uri::DEPENDENCY_DESCRIPTOR, DEPENDENCY_DESCRIPTOR_ID, None, Some(Recvonly)),
        (uri::VIDEO_ORIENTATION, 8, None, Some(Sendrecv)),
        (uri::TOFFSET, 9, None, Some(Sendrecv)),
        (uri::ABS_CAPTURE_TIME, 10, Some(Sendrecv), Some(Sendrecv)),
        (uri::PLAYOUT_DELAY, 11, Some(Sendrecv), Some(Sendrecv)),
        (uri::PACKET_ID, 12, Some(Sendrecv), Some(Sendrecv)),
    ];
    let mut extensions = Vec::new();
    for (uri, preferred_id, audio, video) in table {
        for (kind, direction) in [(MediaKind::Audio, audio), (MediaKind::Video, video)] {
            if let Some(direction) = direction {
                extensions.push(RtpHeaderExtension {
                    kind,
                    uri: uri.to_owned(),
                    preferred_id,
                    preferred_encrypt: false,
                    direction,
                });
            }
        }
    }
    extensions
}

/// The router's id of the dependency descriptor: pipes carry it although consumers never see it.
pub(super) const DEPENDENCY_DESCRIPTOR_ID: u8 = 7;

fn audio(mime: &str, clock_rate: u32, channels: u8, feedback: Feedback) -> RtpCodecCapability {
    RtpCodecCapability {
        kind: MediaKind::Audio,
        mime_type: mime.to_owned(),
        preferred_payload_type: None,
        clock_rate,
        channels: Some(channels),
        parameters: Map::new(),
        rtcp_feedback: rtcp_feedback(feedback),
    }
}

fn video(mime: &str, values: Value) -> RtpCodecCapability {
    RtpCodecCapability {
        kind: MediaKind::Video,
        mime_type: mime.to_owned(),
        preferred_payload_type: None,
        clock_rate: VIDEO_CLOCK_RATE,
        channels: None,
        parameters: parameters(values),
        rtcp_feedback: rtcp_feedback(VIDEO_FEEDBACK),
    }
}

fn h264(profile_level_id: &str) -> RtpCodecCapability {
    let values = json!({
        "packetization-mode": 1,
        "profile-level-id": profile_level_id,
        "level-asymmetry-allowed": 1,
    });
    RtpCodecCapability { rtcp_feedback: Vec::new(), ..video("video/H264", values) }
}

fn parameters(values: Value) -> Map<String, Value> {
    match values {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn rtcp_feedback(feedback: Feedback) -> Vec<RtcpFeedback> {
    feedback
        .iter()
        .map(|&(kind, parameter)| RtcpFeedback {
            kind: kind.to_owned(),
            parameter: parameter.to_owned(),
        })
        .collect()
}
