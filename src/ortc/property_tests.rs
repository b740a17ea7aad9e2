//! Whatever a client sends is refused or accepted, and what was accepted keeps the invariants.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::codec::Codec;
use super::types::{MediaKind, RtpCapabilities, RtpCodecCapability};
use super::*;

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u64..300).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        prop_oneof![
            Just("audio/opus"),
            Just("video/VP8"),
            Just("video/rtx"),
            Just("L3T3_KEY"),
            Just("video/H264"),
            Just("video"),
            Just("1"),
            Just("42e01f"),
            Just("sendonly"),
        ]
        .prop_map(Value::from),
    ]
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("codecs"),
        Just("headerExtensions"),
        Just("encodings"),
        Just("rtcp"),
        Just("mid"),
        Just("mimeType"),
        Just("payloadType"),
        Just("clockRate"),
        Just("parameters"),
        Just("apt"),
        Just("rtcpFeedback"),
        Just("type"),
        Just("uri"),
        Just("id"),
        Just("ssrc"),
        Just("rid"),
        Just("rtx"),
        Just("kind"),
        Just("preferredId"),
        Just("preferredPayloadType"),
        Just("other"),
    ]
    .prop_map(str::to_owned)
}

fn any_json() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((field(), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Every place in a document, as JSON pointers.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                pointers(value, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                pointers(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// A good document with some of its places overwritten.
fn damaged(good: Value) -> impl Strategy<Value = Value> {
    let mut places = Vec::new();
    pointers(&good, "", &mut places);
    prop::collection::vec((prop::sample::select(places), any_json()), 0..4).prop_map(
        move |changes| {
            let mut document = good.clone();
            for (pointer, value) in changes {
                if let Some(place) = document.pointer_mut(&pointer) {
                    *place = value;
                }
            }
            document
        },
    )
}

fn recorded(pointer: &str) -> Value {
    let recording: Value =
        serde_json::from_str(include_str!("../../tests/data/ortc-golden-3.27.1.json")).unwrap();
    recording.pointer(pointer).unwrap().clone()
}

fn damaged_parameters() -> impl Strategy<Value = Value> {
    let good =
        |name: &str| damaged(recorded(&format!("/cases/{name}/producerRtpParameters_normalised")));
    prop_oneof![good("opus"), good("vp8sim"), good("h264"), good("vp9svc"), any_json()]
}

fn damaged_capabilities() -> impl Strategy<Value = Value> {
    prop_oneof![damaged(recorded("/remoteRtpCapabilities_example")), any_json()]
}

/// One codec of the menu, maybe with a payload type of its own.
fn menu_codec() -> impl Strategy<Value = RtpCodecCapability> {
    let codecs = menu::supported_codecs(Menu::EXTENDED);
    (prop::sample::select(codecs), prop::option::of(0u8..=140)).prop_map(|(codec, preferred)| {
        RtpCodecCapability { preferred_payload_type: preferred, ..codec }
    })
}

fn assert_closed(caps: &RtpCapabilities) {
    let mut seen = Vec::new();
    for codec in &caps.codecs {
        let payload_type = codec.preferred_payload_type.expect("a router codec has one");
        assert!(payload_type <= 127);
        assert!(!seen.contains(&payload_type), "{payload_type} twice");
        seen.push(payload_type);
        if codec.codec() == Codec::Rtx {
            let apt = codec.apt().expect("RTX names what it repairs");
            assert!(caps.codecs.iter().any(|media| {
                media.preferred_payload_type == Some(apt) && media.codec() != Codec::Rtx
            }));
        }
    }
}

proptest! {
    #[test]
    fn router_payload_types_are_unique_and_apt_is_closed(
        codecs in prop::collection::vec(menu_codec(), 0..24)
    ) {
        if let Ok(caps) = Menu::EXTENDED.router_capabilities(&codecs) {
            assert_closed(&caps);
            prop_assert_eq!(caps.codecs.iter().filter(|codec| !codec.codec().is_rtx()).count(),
                            codecs.len());
        }
    }

    #[test]
    fn any_json_is_refused_or_accepted_and_then_keeps_its_meaning(
        sent in damaged_parameters(), video: bool, capabilities in damaged_capabilities(),
        ssrc: u32, enable_rtx: Option<bool>, pipe: bool,
    ) {
        let kind = if video { MediaKind::Video } else { MediaKind::Audio };
        let remote = parse_rtp_capabilities(capabilities);
        let Ok(parsed) = parse_rtp_parameters(sent) else { return Ok(()) };
        let again = parse_rtp_parameters(serde_json::to_value(&parsed).unwrap());
        prop_assert_eq!(again.as_ref(), Ok(&parsed), "parsing is idempotent");
        let Ok(producer) = normalise_producer(kind, parsed) else { return Ok(()) };
        let again = normalise_producer(kind, producer.clone());
        prop_assert_eq!(again.as_ref(), Ok(&producer), "normalising is idempotent");
        let _ = producer_type(&producer);
        let caps = router_capabilities(&default_media_codecs()).unwrap();
        let Ok(mapping) = producer_mapping(&producer, &caps, ssrc) else { return Ok(()) };
        prop_assert_eq!(mapping.codecs.len(), producer.codecs.len());
        prop_assert_eq!(mapping.encodings.len(), producer.encodings.len());
        let consumable = consumable_parameters(kind, &producer, &caps, &mapping);
        prop_assert_eq!(consumable.encodings.len(), producer.encodings.len());
        for rtx in consumable.codecs.iter().filter(|codec| codec.codec() == Codec::Rtx) {
            prop_assert!(consumable.codecs.iter().any(|codec| Some(codec.payload_type) == rtx.apt()));
        }
        let piped = pipe_consumer_parameters(PipeRequest {
            consumable: &consumable, enable_rtx: video, ssrc,
        });
        prop_assert!(piped.header_extensions.is_sorted_by_key(|extension| extension.id));
        let Ok(remote) = remote else { return Ok(()) };
        let can = can_consume(&consumable, &remote);
        let consumer = consumer_parameters(ConsumerRequest {
            consumable: &consumable, remote: &remote, kind, enable_rtx, ssrc,
            mid: Some("7".to_owned()), pipe,
        });
        prop_assert!(consumer.is_ok() || !can, "what can be consumed has parameters");
        if let Ok(consumer) = consumer {
            prop_assert_eq!(consumer.mid.is_none(), pipe);
            prop_assert!(!consumer.codecs[0].codec().is_rtx());
            prop_assert_eq!(consumer.encodings.len(), if pipe { producer.encodings.len() } else { 1 });
        }
    }
}

#[test]
fn an_honest_client_gets_through_the_whole_walk() {
    // Guards the property above against passing by refusing everything.
    let sent = recorded("/cases/vp8sim/producerRtpParameters_normalised");
    let producer = parse_rtp_parameters(sent).unwrap();
    let producer = normalise_producer(MediaKind::Video, producer).unwrap();
    let caps = router_capabilities(&default_media_codecs()).unwrap();
    let mapping = producer_mapping(&producer, &caps, 1).unwrap();
    let consumable = consumable_parameters(MediaKind::Video, &producer, &caps, &mapping);
    let remote = parse_rtp_capabilities(recorded("/remoteRtpCapabilities_example")).unwrap();
    let piped = consumer_parameters(ConsumerRequest {
        consumable: &consumable,
        remote: &remote,
        kind: MediaKind::Video,
        enable_rtx: None,
        ssrc: 1000,
        mid: None,
        pipe: true,
    })
    .unwrap();
    let ssrcs: Vec<_> = piped
        .encodings
        .iter()
        .map(|encoding| (encoding.ssrc, encoding.rtx.map(|rtx| rtx.ssrc)))
        .collect();
    assert_eq!(
        ssrcs,
        [(Some(1000), Some(1003)), (Some(1001), Some(1004)), (Some(1002), Some(1005)),]
    );
    assert_eq!(json!(piped.encodings[0].scalability_mode), json!("L1T3"));
}
