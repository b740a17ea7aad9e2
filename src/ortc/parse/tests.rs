use super::*;
use serde_json::json;

fn parameters_json() -> Value {
    json!({
        "mid": "0",
        "codecs": [
            {"mimeType": "video/VP8", "payloadType": 96, "clockRate": 90000,
             "parameters": {"x": 1, "y": "z"},
             "rtcpFeedback": [{"type": "nack"}, {"type": "nack", "parameter": "pli"}]},
            {"mimeType": "video/rtx", "payloadType": 97, "clockRate": 90000,
             "parameters": {"apt": 96}, "rtcpFeedback": []},
        ],
        "headerExtensions": [{"uri": "urn:x", "id": 1, "encrypt": false, "parameters": {}}],
        "encodings": [{"ssrc": 11, "rtx": {"ssrc": 12}, "scalabilityMode": "L1T3"}],
        "rtcp": {"cname": "c", "reducedSize": true},
        "msid": "s t",
    })
}

fn capabilities_json() -> Value {
    json!({
        "codecs": [{"kind": "audio", "mimeType": "audio/opus", "preferredPayloadType": 100,
                    "clockRate": 48000, "channels": 2, "parameters": {}, "rtcpFeedback": []}],
        "headerExtensions": [{"kind": "audio", "uri": "urn:x", "preferredId": 1,
                              "preferredEncrypt": false, "direction": "sendrecv"}],
    })
}

fn replaced(mut document: Value, pointer: &str, value: &Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Object(map) => {
            map.insert(name.to_owned(), value.clone());
        }
        Value::Array(list) => list[name.parse::<usize>().unwrap()] = value.clone(),
        other => panic!("no container at {parent}: {other}"),
    }
    document
}

fn sentence(error: &OrtcError) -> String {
    assert!(!error.is_unsupported());
    error.to_string()
}

fn assert_parameters_refused(table: impl IntoIterator<Item = (&'static str, Value, &'static str)>) {
    for (pointer, value, expected) in table {
        let document = replaced(parameters_json(), pointer, &value);
        let error = parse_rtp_parameters(document).expect_err(pointer);
        assert_eq!(sentence(&error), format!("rtpParameters{expected}"));
    }
}

#[test]
fn bad_codecs_are_refused_with_the_name_of_the_field() {
    let long = "x".repeat(PARAMETER_CHARS_MAX + 1);
    let many = Value::Array(vec![json!({}); CODECS_MAX + 1]);
    let crowded: Map<String, Value> =
        (0..=CODEC_PARAMETERS_MAX).map(|index| (index.to_string(), json!(1))).collect();
    assert_parameters_refused([
        ("/codecs", Value::Null, ".codecs must be an array"),
        ("/codecs", json!({}), ".codecs must be an array"),
        ("/codecs", many, ".codecs must have at most 256 elements"),
        ("/codecs/0", json!("VP8"), ".codecs[0] must be an object"),
        ("/codecs/0/mimeType", json!(8), ".codecs[0].mimeType must be a string"),
        ("/codecs/0/mimeType", json!(""), ".codecs[0].mimeType must not be empty"),
        ("/codecs/0/mimeType", json!("video/"), ".codecs[0].mimeType must be audio/… or video/…"),
        ("/codecs/0/mimeType", json!("text/VP8"), ".codecs[0].mimeType must be audio/… or video/…"),
        ("/codecs/0/mimeType", json!(long), ".codecs[0].mimeType must have at most 64 characters"),
        ("/codecs/1/payloadType", Value::Null, ".codecs[1].payloadType must be a number"),
        ("/codecs/1/payloadType", json!("97"), ".codecs[1].payloadType must be a number"),
        (
            "/codecs/1/payloadType",
            json!(128),
            ".codecs[1].payloadType must be a whole number from 0 to 127",
        ),
        (
            "/codecs/1/payloadType",
            json!(-1),
            ".codecs[1].payloadType must be a whole number from 0 to 127",
        ),
        (
            "/codecs/1/payloadType",
            json!(96.5),
            ".codecs[1].payloadType must be a whole number from 0 to 127",
        ),
        ("/codecs/0/clockRate", json!("90000"), ".codecs[0].clockRate must be a number"),
        (
            "/codecs/0/clockRate",
            json!(1u64 << 32),
            ".codecs[0].clockRate must be a whole number from 0 to 4294967295",
        ),
        (
            "/codecs/0/parameters/x",
            json!([1]),
            ".codecs[0].parameters.x must be a string or number",
        ),
        (
            "/codecs/0/parameters/x",
            Value::Null,
            ".codecs[0].parameters.x must be a string or number",
        ),
        (
            "/codecs/0/parameters/x",
            json!(long),
            ".codecs[0].parameters.x must have at most 1024 characters",
        ),
        (
            "/codecs/0/parameters",
            json!(crowded),
            ".codecs[0].parameters must have at most 64 entries",
        ),
        ("/codecs/1/parameters/apt", json!("96"), ".codecs[1].parameters.apt must be a number"),
        (
            "/codecs/1/parameters/apt",
            json!(300),
            ".codecs[1].parameters.apt must be a whole number from 0 to 127",
        ),
        (
            "/codecs/0/rtcpFeedback/1/type",
            json!(7),
            ".codecs[0].rtcpFeedback[1].type must be a string",
        ),
    ]);
}

#[test]
fn bad_extensions_encodings_and_names_are_refused_with_the_name_of_the_field() {
    let many = Value::Array(vec![json!({}); CODECS_MAX + 1]);
    assert_parameters_refused([
        ("/headerExtensions", json!("x"), ".headerExtensions must be an array"),
        ("/headerExtensions", many, ".headerExtensions must have at most 128 elements"),
        ("/headerExtensions/0/uri", Value::Null, ".headerExtensions[0].uri must be a string"),
        ("/headerExtensions/0/id", json!("1"), ".headerExtensions[0].id must be a number"),
        (
            "/headerExtensions/0/id",
            json!(0),
            ".headerExtensions[0].id must be a whole number from 1 to 255",
        ),
        (
            "/headerExtensions/0/id",
            json!(256),
            ".headerExtensions[0].id must be a whole number from 1 to 255",
        ),
        ("/headerExtensions/0/encrypt", json!(1), ".headerExtensions[0].encrypt must be a boolean"),
        ("/encodings", json!({"a": 1}), ".encodings must be an array"),
        ("/encodings", json!(vec![json!({}); 9]), ".encodings must have at most 8 elements"),
        ("/encodings/0", json!(1), ".encodings[0] must be an object"),
        ("/encodings/0/ssrc", json!("1"), ".encodings[0].ssrc must be a number"),
        (
            "/encodings/0/ssrc",
            json!(-5),
            ".encodings[0].ssrc must be a whole number from 1 to 4294967295",
        ),
        ("/encodings/0/rid", json!(5), ".encodings[0].rid must be a string"),
        (
            "/encodings/0/rid",
            json!("r".repeat(33)),
            ".encodings[0].rid must have at most 32 characters",
        ),
        ("/encodings/0/rtx", json!(12), ".encodings[0].rtx must be an object"),
        ("/encodings/0/rtx", json!({}), ".encodings[0].rtx.ssrc must be a number"),
        (
            "/encodings/0/scalabilityMode",
            json!(3),
            ".encodings[0].scalabilityMode must be a string",
        ),
        ("/encodings/0/maxBitrate", json!("1"), ".encodings[0].maxBitrate must be a number"),
        (
            "/encodings/0/maxBitrate",
            json!(-1.5),
            ".encodings[0].maxBitrate must not be negative or too large",
        ),
        (
            "/encodings/0/codecPayloadType",
            json!(200),
            ".encodings[0].codecPayloadType must be a whole number from 0 to 127",
        ),
        ("/rtcp", json!("x"), ".rtcp must be an object"),
        ("/rtcp/cname", json!(1), ".rtcp.cname must be a string"),
        ("/mid", json!(1), ".mid must be a string"),
        ("/mid", json!("m".repeat(33)), ".mid must have at most 32 characters"),
        ("/msid", json!([]), ".msid must be a string"),
    ]);
    for value in [Value::Null, json!([]), json!("x"), json!(1)] {
        let error = parse_rtp_parameters(value).unwrap_err();
        assert_eq!(sentence(&error), "rtpParameters must be an object");
    }
}

#[test]
fn bad_capabilities_are_refused_with_the_name_of_the_field() {
    let table = [
        ("/codecs", json!("x"), ".codecs must be an array"),
        ("/codecs/0/mimeType", Value::Null, ".codecs[0].mimeType must be a string"),
        ("/codecs/0/clockRate", Value::Null, ".codecs[0].clockRate must be a number"),
        (
            "/codecs/0/preferredPayloadType",
            json!("100"),
            ".codecs[0].preferredPayloadType must be a number",
        ),
        (
            "/codecs/0/preferredPayloadType",
            json!(128),
            ".codecs[0].preferredPayloadType must be a whole number from 0 to 127",
        ),
        (
            "/codecs/0/channels",
            json!(0),
            ".codecs[0].channels must be a whole number from 1 to 255",
        ),
        ("/headerExtensions", json!(1), ".headerExtensions must be an array"),
        (
            "/headerExtensions/0/kind",
            json!("text"),
            ".headerExtensions[0].kind must be audio or video",
        ),
        ("/headerExtensions/0/kind", json!(""), ".headerExtensions[0].kind must be audio or video"),
        (
            "/headerExtensions/0/preferredId",
            json!(0),
            ".headerExtensions[0].preferredId must be a whole number from 1 to 255",
        ),
        (
            "/headerExtensions/0/preferredEncrypt",
            json!("no"),
            ".headerExtensions[0].preferredEncrypt must be a boolean",
        ),
        (
            "/headerExtensions/0/direction",
            json!("up"),
            ".headerExtensions[0].direction must be sendrecv, sendonly, recvonly or inactive",
        ),
    ];
    for (pointer, value, expected) in table {
        let document = replaced(capabilities_json(), pointer, &value);
        let error = parse_rtp_capabilities(document).expect_err(pointer);
        assert_eq!(sentence(&error), format!("rtpCapabilities{expected}"));
    }
}

#[test]
fn what_mediasoup_forgives_is_forgiven() {
    let parse = |pointer: &str, value: Value| {
        let document = replaced(parameters_json(), pointer, &value);
        serde_json::to_value(parse_rtp_parameters(document).expect(pointer)).unwrap()
    };
    let table = [
        ("/codecs/0/rtcpFeedback", json!("x"), json!([])),
        ("/codecs/0/parameters", json!(7), json!({})),
        ("/headerExtensions", Value::Null, json!([])),
        ("/encodings", Value::Null, json!([])),
        ("/rtcp", Value::Null, json!({"reducedSize": true})),
        (
            "/rtcp",
            json!({"cname": "c", "reducedSize": false}),
            json!({"cname": "c", "reducedSize": true}),
        ),
        ("/encodings", json!([{}]), json!([{"dtx": false}])),
        ("/encodings", json!([{"dtx": 1, "ssrc": 0}]), json!([{"dtx": false}])),
        ("/encodings", json!([{"dtx": true, "rid": ""}]), json!([{"dtx": true}])),
        (
            "/encodings",
            json!([{"ssrc": 1, "maxBitrate": 1000.7, "active": true, "codec": {}, "x": "y"}]),
            json!([{"ssrc": 1, "dtx": false, "maxBitrate": 1000, "active": true, "x": "y"}]),
        ),
        (
            "/codecs/0",
            json!({"mimeType": "AUDIO/opus", "payloadType": 0, "clockRate": 48000, "channels": "2",
                   "rtcpFeedback": [{"type": "nack", "parameter": 3}]}),
            json!({"mimeType": "AUDIO/opus", "payloadType": 0, "clockRate": 48000, "channels": 1,
                   "parameters": {}, "rtcpFeedback": [{"type": "nack", "parameter": ""}]}),
        ),
        (
            "/codecs/0",
            json!({"mimeType": "video/x", "payloadType": 9, "clockRate": 1, "channels": 2}),
            json!({"mimeType": "video/x", "payloadType": 9, "clockRate": 1,
                   "parameters": {}, "rtcpFeedback": []}),
        ),
    ];
    for (pointer, value, expected) in table {
        let parsed = parse(pointer, value.clone());
        assert_eq!(parsed.pointer(pointer), Some(&expected), "{pointer} {value}");
    }
    let without_mid = parse("/mid", json!(""));
    assert_eq!(without_mid.get("mid"), None);
}

#[test]
fn the_kind_of_a_capability_is_what_its_mime_type_says() {
    let document = replaced(capabilities_json(), "/codecs/0/kind", &json!("video"));
    let caps = parse_rtp_capabilities(document).unwrap();
    assert_eq!(caps.codecs[0].kind, MediaKind::Audio);
    let empty = parse_rtp_capabilities(json!({})).unwrap();
    assert_eq!(empty, RtpCapabilities::default());
}
