//! When two codecs are the same codec. Pure; called by every step that pairs a codec list with
//! another. Follows JavaScript's typing on purpose: a parameter `"1"` is not the number 1, because
//! clients and this server must come to the same verdict.

use serde_json::{Map, Value};

use super::codec::Codec;
use super::h264;
use super::types::{RtpCapabilities, RtpCodecCapability, RtpCodecParameters};

/// What matching looks at, whichever list the codec stands in.
#[derive(Debug, Clone, Copy)]
pub(super) struct CodecView<'a> {
    mime_type: &'a str,
    clock_rate: u32,
    channels: Option<u8>,
    parameters: &'a Map<String, Value>,
}

impl<'a> From<&'a RtpCodecCapability> for CodecView<'a> {
    fn from(codec: &'a RtpCodecCapability) -> Self {
        Self {
            mime_type: &codec.mime_type,
            clock_rate: codec.clock_rate,
            channels: codec.channels,
            parameters: &codec.parameters,
        }
    }
}

impl<'a> From<&'a RtpCodecParameters> for CodecView<'a> {
    fn from(codec: &'a RtpCodecParameters) -> Self {
        Self {
            mime_type: &codec.mime_type,
            clock_rate: codec.clock_rate,
            channels: codec.channels,
            parameters: &codec.parameters,
        }
    }
}

/// True when both name the same codec, without a look at profiles: for the menu of codecs.
pub(super) fn same_codec<'a, 'b>(a: impl Into<CodecView<'a>>, b: impl Into<CodecView<'b>>) -> bool {
    let (a, b) = (a.into(), b.into());
    a.mime_type.eq_ignore_ascii_case(b.mime_type)
        && a.clock_rate == b.clock_rate
        && a.channels == b.channels
        && match Codec::of(a.mime_type) {
            Codec::MultiOpus => ["num_streams", "coupled_streams"]
                .into_iter()
                .all(|name| same_value(a.parameters.get(name), b.parameters.get(name))),
            _ => true,
        }
}

/// True when both name the same codec and profile.
///
/// RTX matches by name and clock rate alone; its `apt` is not compared.
pub(super) fn same_codec_and_profile<'a, 'b>(
    a: impl Into<CodecView<'a>>,
    b: impl Into<CodecView<'b>>,
) -> bool {
    let (a, b) = (a.into(), b.into());
    same_codec(a, b)
        && match Codec::of(a.mime_type) {
            Codec::H264 => {
                same_or_zero(a, b, "packetization-mode")
                    && h264::answer(a.parameters, b.parameters).is_some()
            }
            Codec::Vp9 => same_or_zero(a, b, "profile-id"),
            Codec::H265 => H265_DEFAULTS.iter().all(|(name, default)| {
                let value = |view: CodecView<'_>| as_text(view.parameters.get(*name), default);
                value(a).eq_ignore_ascii_case(&value(b))
            }),
            _ => true,
        }
}

/// What of `caps` a codec in use is, profile included.
#[must_use]
pub fn capability_of<'a>(
    caps: &'a RtpCapabilities,
    codec: &RtpCodecParameters,
) -> Option<&'a RtpCodecCapability> {
    caps.codecs.iter().find(|known| same_codec_and_profile(*known, codec))
}

/// What H265 compares, and what an absent parameter means (RFC 7798 §7.1): Main profile, Main tier,
/// one stream.
const H265_DEFAULTS: [(&str, &str); 3] =
    [("profile-id", "1"), ("tier-flag", "0"), ("tx-mode", "SRST")];

/// A parameter as text: clients write these as numbers or as strings.
fn as_text(value: Option<&Value>, default: &str) -> String {
    match value {
        None => default.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn same_or_zero(a: CodecView<'_>, b: CodecView<'_>, name: &str) -> bool {
    let zero = Value::from(0);
    let value = |view: CodecView<'_>| match view.parameters.get(name) {
        Some(value) if !is_falsy(value) => value.clone(),
        _ => zero.clone(),
    };
    same_value(Some(&value(a)), Some(&value(b)))
}

/// JavaScript's `===` for the values that parameters may have.
fn same_value(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

/// JavaScript's idea of a value that is as good as absent.
pub(super) fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn codec(mime: &str, clock_rate: u32, channels: Option<u8>, parameters: &Value) -> Value {
        json!({
            "mimeType": mime, "payloadType": 96, "clockRate": clock_rate,
            "channels": channels, "parameters": parameters,
        })
    }

    fn verdicts(a: Value, b: Value) -> (bool, bool) {
        let a: RtpCodecParameters = serde_json::from_value(a).unwrap();
        let b: RtpCodecParameters = serde_json::from_value(b).unwrap();
        (same_codec(&a, &b), same_codec_and_profile(&a, &b))
    }

    #[test]
    fn mime_clock_and_channels_decide_for_plain_codecs() {
        let empty = json!({});
        let opus = || codec("audio/opus", 48_000, Some(2), &empty);
        let table = [
            (opus(), codec("AUDIO/Opus", 48_000, Some(2), &json!({"minptime": 10})), true),
            (opus(), codec("audio/opus", 48_000, Some(1), &empty), false),
            (opus(), codec("audio/opus", 16_000, Some(2), &empty), false),
            (opus(), codec("audio/G722", 48_000, Some(2), &empty), false),
            (
                codec("video/rtx", 90_000, None, &json!({"apt": 96})),
                codec("video/rtx", 90_000, None, &json!({"apt": 98})),
                true,
            ),
            (
                codec("video/AV1", 90_000, None, &json!({"profile": 0})),
                codec("video/AV1", 90_000, None, &json!({"profile": 1})),
                true,
            ),
        ];
        for (a, b, expected) in table {
            let label = format!("{a} / {b}");
            assert_eq!(verdicts(a, b), (expected, expected), "{label}");
        }
    }

    #[test]
    fn h264_compares_mode_and_profile_only_when_strict() {
        let h264 = |parameters: Value| codec("video/H264", 90_000, None, &parameters);
        let table = [
            (json!({}), json!({}), true),
            (json!({}), json!({"packetization-mode": 0}), true),
            (json!({}), json!({"packetization-mode": ""}), true),
            (json!({"packetization-mode": 1}), json!({"packetization-mode": 1.0}), true),
            (json!({"packetization-mode": "1"}), json!({"packetization-mode": "1"}), true),
            (json!({"packetization-mode": "1"}), json!({"packetization-mode": 1}), false),
            (json!({"packetization-mode": "0"}), json!({}), false),
            (json!({"packetization-mode": 1}), json!({}), false),
            (json!({"profile-level-id": "42e01f"}), json!({"profile-level-id": "42e034"}), true),
            (json!({"profile-level-id": "42e01f"}), json!({"profile-level-id": "64001f"}), false),
            (json!({"profile-level-id": "42e01f"}), json!({}), true),
        ];
        for (a, b, strict) in table {
            let label = format!("{a} / {b}");
            assert_eq!(verdicts(h264(a), h264(b)), (true, strict), "{label}");
        }
    }

    #[test]
    fn vp9_compares_the_profile_only_when_strict() {
        let vp9 = |parameters: Value| codec("video/VP9", 90_000, None, &parameters);
        let table = [
            (json!({}), json!({"profile-id": 0}), true),
            (json!({"profile-id": 2}), json!({"profile-id": 2}), true),
            (json!({"profile-id": 2}), json!({"profile-id": "2"}), false),
            (json!({"profile-id": 2}), json!({}), false),
        ];
        for (a, b, strict) in table {
            let label = format!("{a} / {b}");
            assert_eq!(verdicts(vp9(a), vp9(b)), (true, strict), "{label}");
        }
    }

    #[test]
    fn h265_compares_profile_tier_and_streams_however_they_are_written() {
        let h265 = |parameters: Value| codec("video/H265", 90_000, None, &parameters);
        let table = [
            (json!({}), json!({"profile-id": 1, "tier-flag": "0", "tx-mode": "srst"}), true),
            (json!({"level-id": 93}), json!({"level-id": "180"}), true),
            (json!({"profile-id": "1"}), json!({"profile-id": 2}), false),
            (json!({"tier-flag": 1}), json!({}), false),
            (json!({"tx-mode": "MRST"}), json!({}), false),
        ];
        for (a, b, strict) in table {
            let label = format!("{a} / {b}");
            assert_eq!(verdicts(h265(a), h265(b)), (true, strict), "{label}");
        }
    }

    #[test]
    fn multiopus_compares_its_streams_always() {
        let multi = |parameters: Value| codec("audio/multiopus", 48_000, Some(4), &parameters);
        let table = [
            (json!({"num_streams": 2, "coupled_streams": 2}), true),
            (json!({"num_streams": 2, "coupled_streams": 2, "channel_mapping": "x"}), true),
            (json!({"num_streams": "2", "coupled_streams": 2}), false),
            (json!({"num_streams": 4, "coupled_streams": 2}), false),
            (json!({"num_streams": 2}), false),
        ];
        for (parameters, expected) in table {
            let label = parameters.to_string();
            let menu = multi(json!({"num_streams": 2, "coupled_streams": 2}));
            assert_eq!(verdicts(menu, multi(parameters)), (expected, expected), "{label}");
        }
    }
}
