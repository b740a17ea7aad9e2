//! Recorded outputs of mediasoup 3.27.1's own functions, compared as JSON; its random SSRCs are
//! taken from the recording.

use serde_json::{Value, json};

use super::types::{MediaKind, ProducerType, RtpCapabilities, RtpMapping, RtpParameters};
use super::*;

const RECORDING: &str = include_str!("../../tests/data/ortc-golden-3.27.1.json");

const CASES: [(&str, MediaKind, ProducerType); 4] = [
    ("opus", MediaKind::Audio, ProducerType::Simple),
    ("vp8sim", MediaKind::Video, ProducerType::Simulcast),
    ("h264", MediaKind::Video, ProducerType::Simple),
    ("vp9svc", MediaKind::Video, ProducerType::Svc),
];

fn recording() -> Value {
    serde_json::from_str(RECORDING).unwrap()
}

fn caps_without_av1() -> RtpCapabilities {
    let mut codecs = default_media_codecs();
    let av1 = codecs.pop().unwrap();
    assert_eq!(av1.mime_type, "video/AV1");
    router_capabilities(&codecs).unwrap()
}

fn ssrc(value: &Value, pointer: &str) -> u32 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap().try_into().unwrap()
}

fn json_of(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

/// A case walked up to the consumable parameters.
struct Walk {
    expected: Value,
    kind: MediaKind,
    producer: RtpParameters,
    producer_type: ProducerType,
    mapping: RtpMapping,
    consumable: RtpParameters,
    remote: RtpCapabilities,
}

fn walk(name: &str, kind: MediaKind) -> Walk {
    let recording = recording();
    let expected = recording["cases"][name].clone();
    let caps = caps_without_av1();
    let sent = expected["producerRtpParameters_normalised"].clone();
    let producer = normalise_producer(kind, parse_rtp_parameters(sent).unwrap()).unwrap();
    let first = ssrc(&expected, "/rtpMapping/encodings/0/mappedSsrc");
    let mapping = producer_mapping(&producer, &caps, first).unwrap();
    Walk {
        producer_type: producer_type(&producer).unwrap(),
        consumable: consumable_parameters(kind, &producer, &caps, &mapping),
        remote: parse_rtp_capabilities(recording["remoteRtpCapabilities_example"].clone()).unwrap(),
        expected,
        kind,
        producer,
        mapping,
    }
}

#[test]
fn the_capabilities_of_the_replaced_services_room_are_mediasoups() {
    assert_eq!(json_of(caps_without_av1()), recording()["routerRtpCapabilities"]);
}

#[test]
fn av1_leaves_every_other_number_as_it_was() {
    let caps = json_of(router_capabilities(&default_media_codecs()).unwrap());
    let recorded = recording();
    let four = recorded["routerRtpCapabilities"]["codecs"].as_array().unwrap();
    assert_eq!(&caps["codecs"].as_array().unwrap()[..four.len()], four.as_slice());
    assert_eq!(caps["headerExtensions"], recorded["routerRtpCapabilities"]["headerExtensions"]);
}

#[test]
fn parsing_changes_nothing_in_what_mediasoup_normalised() {
    let recorded = recording();
    for key in ["routerRtpCapabilities", "remoteRtpCapabilities_example"] {
        let parsed = parse_rtp_capabilities(recorded[key].clone()).unwrap();
        assert_eq!(json_of(parsed), recorded[key], "{key}");
    }
    for (name, kind, producer_type) in CASES {
        let walk = walk(name, kind);
        assert_eq!(
            json_of(&walk.producer),
            walk.expected["producerRtpParameters_normalised"],
            "{name}"
        );
        assert_eq!(walk.producer_type, producer_type, "{name}");
    }
}

#[test]
fn mapping_and_consumable_parameters_are_mediasoups() {
    for (name, kind, _) in CASES {
        let walk = walk(name, kind);
        assert_eq!(json_of(&walk.mapping), walk.expected["rtpMapping"], "{name}");
        assert_eq!(json_of(&walk.consumable), walk.expected["consumableRtpParameters"], "{name}");
    }
}

#[test]
fn consumer_parameters_are_mediasoups() {
    for (name, kind, _) in CASES {
        let walk = walk(name, kind);
        let expected = &walk.expected["consumerRtpParameters"];
        assert_eq!(json!(can_consume(&walk.consumable, &walk.remote)), walk.expected["canConsume"]);
        let consumer = consumer_parameters(ConsumerRequest {
            consumable: &walk.consumable,
            remote: &walk.remote,
            kind: walk.kind,
            enable_rtx: None,
            ssrc: ssrc(expected, "/encodings/0/ssrc"),
            mid: None,
            pipe: false,
        });
        assert_eq!(&json_of(consumer.unwrap()), expected, "{name}");
    }
}

#[test]
fn pipe_consumer_parameters_are_mediasoups() {
    for (name, kind, _) in CASES {
        let walk = walk(name, kind);
        let expected = &walk.expected["pipeConsumerRtpParameters"];
        let piped = pipe_consumer_parameters(PipeRequest {
            consumable: &walk.consumable,
            enable_rtx: false,
            ssrc: ssrc(expected, "/encodings/0/ssrc"),
        });
        assert_eq!(&json_of(piped), expected, "{name}");
    }
}
