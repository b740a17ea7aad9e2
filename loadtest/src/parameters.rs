//! RTP parameters and capabilities in mediasoup's form: what our clients announce and understand.
//!
//! Pure functions over JSON.

use serde_json::{Value, json};

use crate::payload::Kind;
use crate::plan::{Encoding, Publication};
use crate::rtp::extension_id;

const URI_MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const URI_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
const URI_TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const URI_AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const URI_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const URI_REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";

/// What a publication's packets have as payload type.
pub(crate) fn payload_type(kind: Kind) -> u8 {
    match kind {
        Kind::Audio => 111,
        Kind::Video => 96,
    }
}

/// What a publication's repairs have as payload type (RFC 4588).
pub(crate) fn repair_payload_type(kind: Kind) -> u8 {
    payload_type(kind) + 1
}

/// The `encodings`, as mediasoup-client gives them: one by its sources, several by their rids.
fn encodings(publication: &Publication) -> Vec<Value> {
    let one = |encoding: &Encoding| match (encoding.rid, publication.kind) {
        (Some(rid), _) => {
            json!({ "rid": char::from(rid).to_string(), "maxBitrate": encoding.bitrate })
        }
        (None, Kind::Audio) => json!({ "ssrc": encoding.ssrc }),
        (None, Kind::Video) => {
            json!({ "ssrc": encoding.ssrc, "rtx": { "ssrc": encoding.repair_ssrc() } })
        }
    };
    publication.encodings.iter().map(one).collect()
}

/// The `rtpParameters` of a producer, as Chrome's would be.
pub(crate) fn of_publication(publication: &Publication, cname: &str) -> Value {
    let payload_type = payload_type(publication.kind);
    let mut extensions = vec![
        json!({ "uri": URI_MID, "id": extension_id::MID }),
        json!({ "uri": URI_SEND_TIME, "id": extension_id::SEND_TIME }),
        json!({ "uri": URI_TRANSPORT_CC, "id": extension_id::TRANSPORT_CC }),
    ];
    let codecs = match publication.kind {
        Kind::Audio => {
            extensions.push(json!({ "uri": URI_AUDIO_LEVEL, "id": extension_id::AUDIO_LEVEL }));
            let opus = json!({
                "mimeType": "audio/opus", "payloadType": payload_type, "clockRate": 48_000,
                "channels": 2, "parameters": { "minptime": 10, "useinbandfec": 1 },
                "rtcpFeedback": [{ "type": "transport-cc", "parameter": "" }],
            });
            json!([opus])
        }
        Kind::Video => {
            let vp8 = json!({
                "mimeType": "video/VP8", "payloadType": payload_type, "clockRate": 90_000,
                "parameters": {},
                "rtcpFeedback": [
                    { "type": "goog-remb", "parameter": "" },
                    { "type": "transport-cc", "parameter": "" },
                    { "type": "ccm", "parameter": "fir" },
                    { "type": "nack", "parameter": "" },
                    { "type": "nack", "parameter": "pli" },
                ],
            });
            let rtx = json!({
                "mimeType": "video/rtx", "payloadType": repair_payload_type(publication.kind),
                "clockRate": 90_000, "parameters": { "apt": payload_type }, "rtcpFeedback": [],
            });
            if publication.encodings.iter().any(|encoding| encoding.rid.is_some()) {
                let repaired = extension_id::REPAIRED_RID;
                extensions.push(json!({ "uri": URI_RID, "id": extension_id::RID }));
                extensions.push(json!({ "uri": URI_REPAIRED_RID, "id": repaired }));
            }
            json!([vp8, rtx])
        }
    };
    json!({
        "mid": char::from(publication.mid).to_string(),
        "codecs": codecs,
        "headerExtensions": extensions,
        "encodings": encodings(publication),
        "rtcp": { "cname": cname, "reducedSize": true },
    })
}

/// What our subscribers can receive, out of what the router has: VP8 with RTX, Opus, and the header
/// extensions that they read.
pub(crate) fn of_subscriber(router: &Value) -> Value {
    let list = |name: &str| router.get(name).and_then(Value::as_array).into_iter().flatten();
    let is = |codec: &Value, name: &str| {
        let mime = codec.get("mimeType").and_then(Value::as_str);
        mime.is_some_and(|mime| mime.eq_ignore_ascii_case(name))
    };
    let media: Vec<_> =
        list("codecs").filter(|codec| is(codec, "video/VP8") || is(codec, "audio/opus")).collect();
    let repairs = list("codecs").filter(|codec| {
        let apt = codec.pointer("/parameters/apt");
        let repaired = |media: &&&Value| media.get("preferredPayloadType") == apt;
        is(codec, "video/rtx") && apt.is_some() && media.iter().any(|media| repaired(&media))
    });
    let codecs: Vec<_> = media.iter().copied().chain(repairs).collect();
    let known = [URI_MID, URI_SEND_TIME, URI_TRANSPORT_CC, URI_AUDIO_LEVEL];
    let extensions: Vec<_> = list("headerExtensions")
        .filter(|one| one.get("uri").and_then(Value::as_str).is_some_and(|u| known.contains(&u)))
        .collect();
    json!({ "codecs": codecs, "headerExtensions": extensions })
}

/// What a consumer's `rtpParameters` say about its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// The stream.
    pub(crate) ssrc: u32,
    /// The stream of its repairs, where there is one.
    pub(crate) repair_ssrc: Option<u32>,
    /// The id of the transport-wide sequence number, where there is one.
    pub(crate) transport_cc: Option<u8>,
}

impl Received {
    /// Reads them; `None` without an SSRC.
    pub(crate) fn read(parameters: &Value) -> Option<Self> {
        let source = |at| u32::try_from(parameters.pointer(at)?.as_u64()?).ok();
        let ssrc = source("/encodings/0/ssrc")?;
        let repair_ssrc = source("/encodings/0/rtx/ssrc");
        let extensions = parameters.get("headerExtensions").and_then(Value::as_array);
        let transport_cc = extensions
            .into_iter()
            .flatten()
            .find(|one| one.get("uri").and_then(Value::as_str) == Some(URI_TRANSPORT_CC))
            .and_then(|one| u8::try_from(one.get("id")?.as_u64()?).ok());
        Some(Self { ssrc, repair_ssrc, transport_cc })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;
    use crate::plan::Plan;

    #[test]
    fn subscribers_take_what_they_can_read_and_no_more() {
        let codec = |mime: &str, pt: u8| json!({ "mimeType": mime, "preferredPayloadType": pt });
        let rtx = |pt: u8, apt: u8| {
            let parameters = json!({ "apt": apt });
            json!({ "mimeType": "video/rtx", "preferredPayloadType": pt, "parameters": parameters })
        };
        let router = json!({
            "codecs": [codec("audio/opus", 100), codec("video/VP8", 101), rtx(102, 101),
                codec("video/H264", 103), rtx(104, 103)],
            "headerExtensions": [{ "uri": URI_MID, "preferredId": 1 },
                { "uri": "urn:3gpp:video-orientation", "preferredId": 8 }],
        });
        let expected = json!({
            "codecs": [codec("audio/opus", 100), codec("video/VP8", 101), rtx(102, 101)],
            "headerExtensions": [{ "uri": URI_MID, "preferredId": 1 }],
        });
        assert_eq!(of_subscriber(&router), expected);
    }

    #[test]
    fn one_encoding_is_told_by_its_sources_and_several_by_their_rids() {
        let of = |line: [&str; 2]| {
            let plan = Plan::new(&Args::parse_from(line), "x");
            let (_, _, publication) = plan.publications().next().unwrap();
            (of_publication(publication, "name"), publication.clone())
        };
        let (one, publication) = of(["loadtest", "livestream"]);
        let ssrc = publication.encodings[0].ssrc;
        let repair = publication.encodings[0].repair_ssrc();
        assert_eq!(one["encodings"], json!([{ "ssrc": ssrc, "rtx": { "ssrc": repair } }]));
        assert_eq!(one["headerExtensions"].as_array().unwrap().len(), 3);
        let (three, _) = of(["loadtest", "simulcast"]);
        let rids: Vec<_> = (0..3).map(|n| three["encodings"][n]["rid"].clone()).collect();
        assert_eq!(rids, ["q", "h", "f"]);
        let uris = three["headerExtensions"].to_string();
        assert!(uris.contains(URI_RID) && uris.contains(URI_REPAIRED_RID));
    }

    #[test]
    fn a_consumers_stream_is_read() {
        let parameters = json!({
            "encodings": [{ "ssrc": 4_000_000_000_u32, "rtx": { "ssrc": 1 } }],
            "headerExtensions": [{ "uri": URI_MID, "id": 1 }, { "uri": URI_TRANSPORT_CC, "id": 5 }],
        });
        let (ssrc, repair_ssrc, transport_cc) = (4_000_000_000, Some(1), Some(5));
        let expected = Received { ssrc, repair_ssrc, transport_cc };
        assert_eq!(Received::read(&parameters), Some(expected));
        assert_eq!(Received::read(&json!({ "encodings": [] })), None);
    }
}
