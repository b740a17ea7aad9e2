//! What any consumer of a producer may get, in the room's numbers. Pure; computed once per
//! producer. Looks at no consumer.

use serde_json::{Map, Value};

use super::codec::Codec;
use super::h264;
use super::producer::mapped_payload_type;
use super::router_caps::{codec_of, rtx_codec_of};
use super::types::{
    Direction, MediaKind, RtcpParameters, RtpCapabilities, RtpCodecCapability, RtpCodecParameters,
    RtpEncodingParameters, RtpHeaderExtensionParameters, RtpMapping, RtpParameters,
};
use super::uri;

/// The producer as the room sees it.
///
/// Codecs carry the room's payload types and feedback with the *producer's* parameters, each
/// followed by the room's RTX codec even when the producer has none. A codec that `mapping` or
/// `caps` do not know is left out; with the mapping of the same producer and room there is none.
#[must_use]
pub fn consumable_parameters(
    kind: MediaKind,
    parameters: &RtpParameters,
    caps: &RtpCapabilities,
    mapping: &RtpMapping,
) -> RtpParameters {
    RtpParameters {
        mid: None,
        codecs: codecs(parameters, caps, mapping),
        header_extensions: header_extensions(kind, parameters, caps),
        encodings: parameters
            .encodings
            .iter()
            .zip(&mapping.encodings)
            .map(|(encoding, mapped)| RtpEncodingParameters {
                ssrc: Some(mapped.mapped_ssrc),
                rid: None,
                codec_payload_type: None,
                rtx: None,
                ..encoding.clone()
            })
            .collect(),
        rtcp: RtcpParameters { cname: parameters.rtcp.cname.clone(), reduced_size: true },
        msid: parameters.msid.clone(),
    }
}

fn codecs(
    parameters: &RtpParameters,
    caps: &RtpCapabilities,
    mapping: &RtpMapping,
) -> Vec<RtpCodecParameters> {
    let mut codecs = Vec::with_capacity(parameters.codecs.len());
    for codec in parameters.codecs.iter().filter(|codec| !codec.codec().is_rtx()) {
        let Some(payload_type) = mapped_payload_type(&mapping.codecs, codec.payload_type) else {
            continue;
        };
        let Some(router_codec) = codec_of(caps, payload_type) else { continue };
        let negotiated = match codec.codec() {
            Codec::Red => redundancy_parameters(parameters, mapping),
            _ => negotiated_parameters(codec, router_codec),
        };
        codecs.push(in_use(router_codec, payload_type, negotiated));
        if let Some(rtx) = rtx_codec_of(caps, payload_type)
            && let Some(rtx_payload_type) = rtx.preferred_payload_type
        {
            codecs.push(in_use(rtx, rtx_payload_type, rtx.parameters.clone()));
        }
    }
    codecs
}

fn in_use(
    router_codec: &RtpCodecCapability,
    payload_type: u8,
    parameters: Map<String, Value>,
) -> RtpCodecParameters {
    RtpCodecParameters {
        mime_type: router_codec.mime_type.clone(),
        payload_type,
        clock_rate: router_codec.clock_rate,
        channels: router_codec.channels,
        parameters,
        rtcp_feedback: router_codec.rtcp_feedback.clone(),
    }
}

/// The payload types inside RED in the room's terms, as browsers write them: a parameter without a
/// name, with the type of each block (RFC 2198 §5). One copy of Opus is what they send.
fn redundancy_parameters(parameters: &RtpParameters, mapping: &RtpMapping) -> Map<String, Value> {
    let opus = parameters.codecs.iter().find(|codec| codec.codec() == Codec::Opus);
    let inner = opus.and_then(|opus| mapped_payload_type(&mapping.codecs, opus.payload_type));
    let list = inner.map(|inner| (String::new(), Value::String(format!("{inner}/{inner}"))));
    list.into_iter().collect()
}

/// The producer's parameters; H264 with the `profile-level-id` that answers the room's.
fn negotiated_parameters(
    codec: &RtpCodecParameters,
    router_codec: &RtpCodecCapability,
) -> Map<String, Value> {
    const NAME: &str = "profile-level-id";
    let mut parameters = codec.parameters.clone();
    if codec.codec() == Codec::H264 {
        match h264::answer(&codec.parameters, &router_codec.parameters) {
            Some(Some(id)) => {
                parameters.insert(NAME.to_owned(), Value::String(id));
            }
            Some(None) => {
                parameters.remove(NAME);
            }
            // Not the codec it was mapped to: the caller mixed two rooms, nothing to compute.
            None => {}
        }
    }
    parameters
}

fn header_extensions(
    kind: MediaKind,
    parameters: &RtpParameters,
    caps: &RtpCapabilities,
) -> Vec<RtpHeaderExtensionParameters> {
    caps.header_extensions
        .iter()
        .filter(|extension| extension.kind == kind)
        .filter(|extension| {
            matches!(extension.direction, Direction::Sendrecv | Direction::Sendonly)
        })
        // A capture time that no producer stamps cannot be passed on.
        .filter(|extension| {
            extension.uri != uri::ABS_CAPTURE_TIME
                || parameters.extension_id(uri::ABS_CAPTURE_TIME).is_some()
        })
        .map(|extension| RtpHeaderExtensionParameters {
            uri: extension.uri.clone(),
            id: extension.preferred_id,
            encrypt: false,
            parameters: Map::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ortc::{
        Menu, default_media_codecs, parse_rtp_parameters, producer_mapping, router_capabilities,
    };
    use serde_json::json;

    fn consumable(kind: MediaKind, value: Value) -> RtpParameters {
        let caps = router_capabilities(&default_media_codecs()).unwrap();
        let parameters = parse_rtp_parameters(value).unwrap();
        let mapping = producer_mapping(&parameters, &caps, 500).unwrap();
        consumable_parameters(kind, &parameters, &caps, &mapping)
    }

    #[test]
    fn capture_time_is_offered_only_when_the_producer_stamps_it() {
        let opus = |extensions: Value| {
            json!({"codecs": [{"mimeType": "audio/opus", "payloadType": 111, "clockRate": 48000,
                               "channels": 2}],
                   "headerExtensions": extensions, "encodings": [{"ssrc": 1}]})
        };
        let without = consumable(MediaKind::Audio, opus(json!([])));
        assert_eq!(without.extension_id(uri::ABS_CAPTURE_TIME), None);
        let with = opus(json!([{"uri": uri::ABS_CAPTURE_TIME, "id": 3}]));
        let with = consumable(MediaKind::Audio, with);
        assert_eq!(with.extension_id(uri::ABS_CAPTURE_TIME), Some(10));
    }

    #[test]
    fn rtx_of_the_room_is_there_even_if_the_producer_has_none() {
        let vp8 = consumable(
            MediaKind::Video,
            json!({"codecs": [{"mimeType": "video/VP8", "payloadType": 120, "clockRate": 90000}],
                   "encodings": [{"ssrc": 1, "rid": "x", "codecPayloadType": 120, "active": true,
                                  "rtx": {"ssrc": 2}}],
                   "msid": "stream track"}),
        );
        let numbers: Vec<_> =
            vp8.codecs.iter().map(|codec| (codec.payload_type, codec.apt())).collect();
        assert_eq!(numbers, [(101, None), (102, Some(101))]);
        assert_eq!(
            serde_json::to_value(&vp8.encodings).unwrap(),
            json!([{"ssrc": 500, "dtx": false, "active": true}])
        );
        assert_eq!(vp8.msid.as_deref(), Some("stream track"));
    }

    #[test]
    fn what_an_opus_sender_says_of_dtx_and_fec_reaches_every_consumer() {
        let opus = consumable(
            MediaKind::Audio,
            json!({"codecs": [{"mimeType": "audio/opus", "payloadType": 111, "clockRate": 48_000,
                               "channels": 2, "parameters": {"minptime": 10, "useinbandfec": 1,
                                                             "usedtx": 1, "sprop-stereo": 1}}],
                   "encodings": [{"ssrc": 1, "dtx": true}]}),
        );
        assert_eq!(
            Value::Object(opus.codecs[0].parameters.clone()),
            json!({"minptime": 10, "useinbandfec": 1, "usedtx": 1, "sprop-stereo": 1})
        );
        assert_eq!(opus.encodings[0].dtx, Some(true));
    }

    #[test]
    fn red_names_the_rooms_payload_types() {
        let caps = Menu::EXTENDED.router_capabilities(&Menu::EXTENDED.media_codecs()).unwrap();
        let codec = |mime: &str, payload_type: u8| {
            json!({"mimeType": mime, "payloadType": payload_type, "clockRate": 48_000,
                   "channels": 2, "parameters": {"": "111/111"}})
        };
        let sent = json!({"codecs": [codec("audio/red", 63), codec("audio/opus", 111)],
                          "encodings": [{"ssrc": 1}]});
        let parameters = parse_rtp_parameters(sent).unwrap();
        let mapping = producer_mapping(&parameters, &caps, 500).unwrap();
        let red = consumable_parameters(MediaKind::Audio, &parameters, &caps, &mapping);
        assert_eq!(Value::Object(red.codecs[0].parameters.clone()), json!({"": "100/100"}));
        assert_eq!(red.codecs[0].payload_type, 109);
    }

    #[test]
    fn h264_gets_the_level_that_answers_the_room() {
        let h264 = |parameters: Value| {
            let consumable = consumable(
                MediaKind::Video,
                json!({"codecs": [{"mimeType": "video/H264", "payloadType": 96,
                                   "clockRate": 90000, "parameters": parameters}],
                       "encodings": [{"ssrc": 1}]}),
            );
            consumable.codecs[0].parameters["profile-level-id"].clone()
        };
        let table = [
            (json!({"packetization-mode": 1, "profile-level-id": "42e034"}), "42e01f"),
            (
                json!({"packetization-mode": 1, "profile-level-id": "42e034",
                       "level-asymmetry-allowed": 1}),
                "42e034",
            ),
            (json!({"packetization-mode": 1, "profile-level-id": "42c015"}), "42e015"),
            (json!({"packetization-mode": 1}), "42e01f"),
        ];
        for (parameters, expected) in table {
            assert_eq!(h264(parameters.clone()), json!(expected), "{parameters}");
        }
    }
}
