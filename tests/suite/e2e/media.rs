//! Cameras and microphones: packets that look like Opus and VP8, numbered at their end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Bytes at the end of each payload: SSRC and number.
const MARK_BYTES: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Audio,
    Video,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        if self == Self::Audio { "audio" } else { "video" }
    }
}

/// One packet to be sent.
pub(crate) struct Packet {
    pub(crate) number: u64,
    pub(crate) timestamp: u32,
    pub(crate) payload: Vec<u8>,
}

/// One RTP stream of a publisher.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) kind: Kind,
    pub(crate) ssrc: u32,
    pub(crate) mid: String,
    pub(crate) wants_key: bool,
    /// When the next packet is due; `None` while it is silent.
    pub(crate) next_at: Option<Instant>,
    /// The number of the next packet.
    pub(crate) next: u64,
}

impl Source {
    pub(crate) fn new(kind: Kind, ssrc: u32, mid: &str, now: Instant) -> Self {
        let mid = mid.to_owned();
        Self { kind, ssrc, mid, wants_key: true, next_at: Some(now), next: 1000 }
    }

    pub(crate) fn payload_type(&self) -> u8 {
        if self.kind == Kind::Audio { 111 } else { 96 }
    }

    /// The packet due at `now`; a frame each.
    pub(crate) fn take(&mut self, now: Instant) -> Packet {
        let [.., high, low] = self.next.to_be_bytes();
        let mut payload = match self.kind {
            Kind::Audio => vec![0x78; 60],
            Kind::Video => {
                let key = std::mem::take(&mut self.wants_key);
                let frame = if key { 0x10 } else { 0x11 };
                [&[0x90, 0x80, high | 0x80, low, frame][..], &[7; 700]].concat()
            }
        };
        payload.extend(self.ssrc.to_be_bytes());
        payload.extend(self.next.to_be_bytes());
        let step = if self.kind == Kind::Audio { 960 } else { 3000 };
        let ticks = u32::try_from(self.next).unwrap().wrapping_mul(step);
        let packet = Packet { number: self.next, timestamp: ticks, payload };
        self.next += 1;
        self.next_at = Some(now + Duration::from_millis(10));
        packet
    }

    /// What `produce` is told.
    pub(crate) fn rtp_parameters(&self) -> Value {
        let codecs = match self.kind {
            Kind::Audio => json!([{
                "mimeType": "audio/opus", "payloadType": 111, "clockRate": 48_000, "channels": 2,
                "parameters": { "useinbandfec": 1 }, "rtcpFeedback": [],
            }]),
            Kind::Video => json!([
                {
                    "mimeType": "video/VP8", "payloadType": 96, "clockRate": 90_000,
                    "parameters": {}, "rtcpFeedback": [
                        { "type": "nack" }, { "type": "nack", "parameter": "pli" },
                    ],
                },
                {
                    "mimeType": "video/rtx", "payloadType": 97, "clockRate": 90_000,
                    "parameters": { "apt": 96 }, "rtcpFeedback": [],
                },
            ]),
        };
        let encoding = match self.kind {
            Kind::Audio => json!({ "ssrc": self.ssrc }),
            Kind::Video => json!({ "ssrc": self.ssrc, "rtx": { "ssrc": self.ssrc + 1 } }),
        };
        json!({
            "mid": self.mid, "codecs": codecs, "encodings": [encoding],
            "headerExtensions": [{ "uri": "urn:ietf:params:rtp-hdrext:sdes:mid", "id": 4 }],
            "rtcp": { "cname": "studio", "reducedSize": true },
        })
    }
}

/// SSRC and number of the source's packet with this payload.
pub(crate) fn mark(payload: &[u8]) -> (u32, u64) {
    let mark = payload.last_chunk::<MARK_BYTES>().expect("a payload of a source");
    let (ssrc, number) = mark.split_at(4);
    (u32::from_be_bytes(ssrc.try_into().unwrap()), u64::from_be_bytes(number.try_into().unwrap()))
}
