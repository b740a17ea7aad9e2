//! RTP parameters as a browser states them and as the control plane derives the others from them.

use ringcast::ortc::types::{ProducerType, RtpCapabilities, RtpMapping, RtpParameters};
use ringcast::ortc::{self, Menu};
use serde_json::{Value, json};

use super::media::Codec;

/// What a publisher negotiates for one camera or microphone.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) codec: Codec,
    pub(crate) mid: String,
    /// With their RTX.
    pub(crate) ssrcs: Vec<u32>,
    /// Named by its MID only.
    pub(crate) by_mid: bool,
    /// Named by RID and not by SSRC.
    pub(crate) rids: Vec<String>,
    pub(crate) rtx: bool,
    pub(crate) transport_cc: bool,
    /// Layers within each encoding.
    pub(crate) mode: Option<&'static str>,
}

/// One producer in everybody's terms.
#[derive(Debug, Clone)]
pub(crate) struct Produced {
    pub(crate) rtp: RtpParameters,
    pub(crate) mapping: RtpMapping,
    pub(crate) consumable: RtpParameters,
    pub(crate) producer_type: ProducerType,
}

pub(crate) fn room_capabilities() -> RtpCapabilities {
    ortc::router_capabilities(&ortc::default_media_codecs()).unwrap()
}

/// A browser's own payload types: codec, media, RTX.
pub(crate) const BROWSER_CODECS: [(Codec, u8, Option<u8>); 5] = [
    (Codec::Opus, 111, None),
    (Codec::Vp8, 96, Some(97)),
    (Codec::Vp9, 98, Some(99)),
    (Codec::H264, 102, Some(103)),
    (Codec::Av1, 45, Some(46)),
];

/// A browser's own extension ids, all other than the room's.
pub(crate) fn browser_extensions() -> Vec<(String, u8)> {
    use ortc::uri;
    let table = [
        (uri::ABS_SEND_TIME, 2),
        (uri::TRANSPORT_CC, 3),
        (uri::MID, 4),
        (uri::RID, 10),
        (uri::RRID, 11),
    ];
    table.map(|(uri, id)| (uri.to_owned(), id)).to_vec()
}

/// What a browser's microphones have besides that.
pub(crate) const LEVEL: (&str, u8) = (ortc::uri::AUDIO_LEVEL, 1);

/// What a browser's cameras of AV1 have besides that.
pub(crate) const DESCRIPTOR: (&str, u8) = (ortc::uri::DEPENDENCY_DESCRIPTOR, 12);

pub(crate) fn browser_payload_type(codec: Codec) -> (u8, Option<u8>) {
    let codec = match codec {
        Codec::Vp8T3 => Codec::Vp8,
        Codec::Vp9Svc | Codec::Vp9L3T3 | Codec::Vp9L3T3Key => Codec::Vp9,
        plain => plain,
    };
    let (_, media, rtx) = BROWSER_CODECS.into_iter().find(|(c, ..)| *c == codec).unwrap();
    (media, rtx)
}

impl Offer {
    fn json(&self) -> Value {
        let (payload_type, rtx) = browser_payload_type(self.codec);
        let mut feedback = vec![json!({"type": "goog-remb"})];
        if self.transport_cc {
            feedback.push(json!({"type": "transport-cc"}));
        }
        let (mime, parameters) = match self.codec {
            Codec::Opus => ("audio/opus", json!({"useinbandfec": 1})),
            Codec::Vp8 | Codec::Vp8T3 => ("video/VP8", json!({})),
            Codec::Vp9 | Codec::Vp9Svc | Codec::Vp9L3T3 | Codec::Vp9L3T3Key => {
                ("video/VP9", json!({"profile-id": 0}))
            }
            Codec::Av1 => ("video/AV1", json!({})),
            Codec::H264 => (
                "video/H264",
                json!({"packetization-mode": 1, "profile-level-id": "42e01f",
                       "level-asymmetry-allowed": 1}),
            ),
        };
        let mut codec = json!({"mimeType": mime, "payloadType": payload_type,
            "clockRate": self.codec.clock_rate(), "parameters": parameters});
        let mut codecs = Vec::new();
        if self.codec == Codec::Opus {
            codec["channels"] = json!(2);
        } else {
            feedback.extend([
                json!({"type": "nack"}),
                json!({"type": "nack", "parameter": "pli"}),
                json!({"type": "ccm", "parameter": "fir"}),
            ]);
        }
        codec["rtcpFeedback"] = Value::Array(feedback);
        codecs.push(codec);
        if let Some(rtx) = rtx.filter(|_| self.rtx) {
            codecs.push(json!({"mimeType": "video/rtx", "payloadType": rtx, "clockRate": 90_000,
                "parameters": {"apt": payload_type}}));
        }
        let extensions: Vec<Value> = browser_extensions()
            .into_iter()
            .filter(|(uri, _)| self.transport_cc || uri != ortc::uri::TRANSPORT_CC)
            .chain((self.codec == Codec::Opus).then(|| (LEVEL.0.to_owned(), LEVEL.1)))
            .chain((self.codec == Codec::Av1).then(|| (DESCRIPTOR.0.to_owned(), DESCRIPTOR.1)))
            .map(|(uri, id)| json!({"uri": uri, "id": id}))
            .collect();
        json!({"mid": self.mid, "codecs": codecs, "headerExtensions": extensions,
            "encodings": self.encodings(), "rtcp": {"cname": "studio", "reducedSize": true}})
    }

    fn encodings(&self) -> Vec<Value> {
        if !self.rids.is_empty() {
            return self.rids.iter().map(|rid| json!({"rid": rid})).collect();
        }
        if self.by_mid {
            return vec![json!({})];
        }
        let encoding = |ssrc: &u32| {
            let mut encoding = json!({"ssrc": ssrc});
            if self.rtx && self.codec != Codec::Opus {
                encoding["rtx"] = json!({"ssrc": ssrc + 1});
            }
            if let Some(mode) = self.mode {
                encoding["scalabilityMode"] = json!(mode);
            }
            encoding
        };
        self.ssrcs.iter().map(encoding).collect()
    }

    /// What the control plane makes of it.
    pub(crate) fn negotiate(&self, room: &RtpCapabilities, first_mapped_ssrc: u32) -> Produced {
        let kind = self.codec.kind();
        let rtp = ortc::parse_rtp_parameters(self.json()).unwrap();
        let rtp = ortc::normalise_producer(kind, rtp).unwrap();
        let producer_type = Menu::EXTENDED.producer_type(&rtp).unwrap();
        let mapping = ortc::producer_mapping(&rtp, room, first_mapped_ssrc).unwrap();
        let consumable = ortc::consumable_parameters(kind, &rtp, room, &mapping);
        Produced { rtp, mapping, consumable, producer_type }
    }
}

impl Produced {
    /// What a consumer of that client gets.
    pub(crate) fn consume(
        &self,
        codec: Codec,
        client: &RtpCapabilities,
        ssrc: u32,
        mid: &str,
    ) -> RtpParameters {
        ortc::consumer_parameters(ortc::ConsumerRequest {
            consumable: &self.consumable,
            remote: client,
            kind: codec.kind(),
            enable_rtx: None,
            ssrc,
            mid: Some(mid.to_owned()),
            pipe: false,
        })
        .unwrap()
    }
}
