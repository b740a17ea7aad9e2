//! JSON of a client → checked [`RtpParameters`] or [`RtpCapabilities`].
//!
//! Called by the control thread on `produce` and `consume` with a body that was bounded before. As
//! lenient as mediasoup where an honest client could differ (absent lists, feedback or parameters of
//! a wrong type become empty), stricter where a number could not travel on the wire; every list and
//! string has its bound in [`crate::limits`]. What one producer's fields mean *together* is checked
//! by [`super::normalise_producer`].
//!
//! Fields that are not known are dropped, except scalars of an encoding, which applications use.

use serde_json::{Map, Value};

use super::error::OrtcError;
use super::json::{At, Object, number, string};
use super::router_caps::PAYLOAD_TYPE_MAX;
use super::types::{
    Direction, MediaKind, RtcpFeedback, RtcpParameters, RtpCapabilities, RtpCodecCapability,
    RtpCodecParameters, RtpEncodingParameters, RtpHeaderExtension, RtpHeaderExtensionParameters,
    RtpParameters, RtxEncoding,
};
use crate::limits::{
    CNAME_CHARS_MAX, CODEC_PARAMETERS_MAX, CODECS_MAX, ENCODINGS_PER_PRODUCER_MAX,
    EXTENSION_URI_CHARS_MAX, HEADER_EXTENSIONS_MAX, MID_CHARS_MAX, MIME_CHARS_MAX, MSID_CHARS_MAX,
    PARAMETER_CHARS_MAX, RTCP_FEEDBACK_MAX, SCALABILITY_MODE_CHARS_MAX,
};

/// RTP parameters of a producer, as a client sent them in `rtpParameters`.
///
/// # Errors
/// `Invalid`, naming the first field that is missing, mistyped or out of bounds.
pub fn parse_rtp_parameters(value: Value) -> Result<RtpParameters, OrtcError> {
    let object = Object::of(At::root("rtpParameters"), &value)?;
    Ok(RtpParameters {
        mid: object.string("mid", MID_CHARS_MAX)?,
        codecs: object.mandatory_list("codecs", CODECS_MAX, codec_parameters)?,
        header_extensions: object.list(
            "headerExtensions",
            HEADER_EXTENSIONS_MAX,
            header_extension_parameters,
        )?,
        encodings: object.list("encodings", ENCODINGS_PER_PRODUCER_MAX, encoding)?,
        rtcp: rtcp(&object)?,
        msid: object.string("msid", MSID_CHARS_MAX)?,
    })
}

/// What a client can receive, as it sent it in `rtpCapabilities`.
///
/// # Errors
/// `Invalid`, naming the first field that is missing, mistyped or out of bounds.
pub fn parse_rtp_capabilities(value: Value) -> Result<RtpCapabilities, OrtcError> {
    let object = Object::of(At::root("rtpCapabilities"), &value)?;
    Ok(RtpCapabilities {
        codecs: object.list("codecs", CODECS_MAX, codec_capability)?,
        header_extensions: object.list(
            "headerExtensions",
            HEADER_EXTENSIONS_MAX,
            header_extension,
        )?,
    })
}

fn codec_capability(codec: &Object<'_>) -> Result<RtpCodecCapability, OrtcError> {
    let (mime_type, kind) = mime_type(codec)?;
    let preferred_payload_type = match codec.map.get("preferredPayloadType") {
        None | Some(Value::Null) => None,
        Some(_) => Some(payload_type(codec, "preferredPayloadType")?),
    };
    Ok(RtpCodecCapability {
        kind,
        mime_type,
        preferred_payload_type,
        clock_rate: clock_rate(codec)?,
        channels: channels(codec, kind)?,
        parameters: parameters(codec)?,
        rtcp_feedback: rtcp_feedback(codec)?,
    })
}

fn codec_parameters(codec: &Object<'_>) -> Result<RtpCodecParameters, OrtcError> {
    let (mime_type, kind) = mime_type(codec)?;
    Ok(RtpCodecParameters {
        mime_type,
        payload_type: payload_type(codec, "payloadType")?,
        clock_rate: clock_rate(codec)?,
        channels: channels(codec, kind)?,
        parameters: parameters(codec)?,
        rtcp_feedback: rtcp_feedback(codec)?,
    })
}

fn mime_type(codec: &Object<'_>) -> Result<(String, MediaKind), OrtcError> {
    let mime_type = codec.mandatory_string("mimeType", MIME_CHARS_MAX)?;
    let kind = MediaKind::of(&mime_type)
        .ok_or_else(|| codec.at.key("mimeType").must("be audio/… or video/…"))?;
    Ok((mime_type, kind))
}

fn payload_type(object: &Object<'_>, name: &str) -> Result<u8, OrtcError> {
    Ok(u8_of(object.number(name, 0..=PAYLOAD_TYPE_MAX.into())?))
}

fn clock_rate(codec: &Object<'_>) -> Result<u32, OrtcError> {
    Ok(u32_of(codec.number("clockRate", 0..=u32::MAX.into())?))
}

/// One for audio unless a number is given; none for video whatever is given.
fn channels(codec: &Object<'_>, kind: MediaKind) -> Result<Option<u8>, OrtcError> {
    match (kind, codec.map.get("channels")) {
        (MediaKind::Video, _) => Ok(None),
        (MediaKind::Audio, Some(Value::Number(_))) => {
            codec.number("channels", 1..=u8::MAX.into()).map(|channels| Some(u8_of(channels)))
        }
        (MediaKind::Audio, _) => Ok(Some(1)),
    }
}

/// Strings and numbers by name; empty when there is no object.
fn parameters(object: &Object<'_>) -> Result<Map<String, Value>, OrtcError> {
    let at = object.at.key("parameters");
    let Some(Value::Object(map)) = object.truthy("parameters") else { return Ok(Map::new()) };
    if map.len() > CODEC_PARAMETERS_MAX {
        return Err(at.must(format_args!("have at most {CODEC_PARAMETERS_MAX} entries")));
    }
    for (name, value) in map {
        check_name(&at, name)?;
        let at = at.key(name);
        match value {
            Value::Number(_) if name == "apt" => {
                number(&at, value, 0..=PAYLOAD_TYPE_MAX.into())?;
            }
            _ if name == "apt" => return Err(at.must("be a number")),
            Value::Number(_) => {}
            Value::String(_) => {
                string(&at, value, PARAMETER_CHARS_MAX)?;
            }
            _ => return Err(at.must("be a string or number")),
        }
    }
    Ok(map.clone())
}

fn check_name(at: &At<'_>, name: &str) -> Result<(), OrtcError> {
    if name.chars().nth(PARAMETER_CHARS_MAX).is_some() {
        return Err(at.must(format_args!("have names of at most {PARAMETER_CHARS_MAX} characters")));
    }
    Ok(())
}

/// Empty when there is no list, as in mediasoup.
fn rtcp_feedback(codec: &Object<'_>) -> Result<Vec<RtcpFeedback>, OrtcError> {
    if !matches!(codec.map.get("rtcpFeedback"), Some(Value::Array(_))) {
        return Ok(Vec::new());
    }
    codec.list("rtcpFeedback", RTCP_FEEDBACK_MAX, |feedback| {
        let parameter = match feedback.map.get("parameter") {
            Some(Value::String(_)) => feedback.string("parameter", PARAMETER_CHARS_MAX)?,
            _ => None,
        };
        Ok(RtcpFeedback {
            kind: feedback.mandatory_string("type", PARAMETER_CHARS_MAX)?,
            parameter: parameter.unwrap_or_default(),
        })
    })
}

fn header_extension(extension: &Object<'_>) -> Result<RtpHeaderExtension, OrtcError> {
    let kind = match extension.map.get("kind").and_then(Value::as_str) {
        Some("audio") => MediaKind::Audio,
        Some("video") => MediaKind::Video,
        _ => return Err(extension.at.key("kind").must("be audio or video")),
    };
    let direction = match extension.truthy("direction") {
        None => Direction::Sendrecv,
        Some(value) => match value.as_str() {
            Some("sendrecv") => Direction::Sendrecv,
            Some("sendonly") => Direction::Sendonly,
            Some("recvonly") => Direction::Recvonly,
            Some("inactive") => Direction::Inactive,
            _ => {
                let directions = "be sendrecv, sendonly, recvonly or inactive";
                return Err(extension.at.key("direction").must(directions));
            }
        },
    };
    Ok(RtpHeaderExtension {
        kind,
        uri: extension.mandatory_string("uri", EXTENSION_URI_CHARS_MAX)?,
        preferred_id: extension_id(extension, "preferredId")?,
        preferred_encrypt: extension.boolean("preferredEncrypt")?,
        direction,
    })
}

fn header_extension_parameters(
    extension: &Object<'_>,
) -> Result<RtpHeaderExtensionParameters, OrtcError> {
    Ok(RtpHeaderExtensionParameters {
        uri: extension.mandatory_string("uri", EXTENSION_URI_CHARS_MAX)?,
        id: extension_id(extension, "id")?,
        encrypt: extension.boolean("encrypt")?,
        parameters: parameters(extension)?,
    })
}

/// 0 is padding on the wire, and two-byte headers end at 255 (RFC 8285 §4.2, §4.3).
fn extension_id(extension: &Object<'_>, name: &str) -> Result<u8, OrtcError> {
    Ok(u8_of(extension.number(name, 1..=u8::MAX.into())?))
}

fn encoding(encoding: &Object<'_>) -> Result<RtpEncodingParameters, OrtcError> {
    let ssrc = match encoding.truthy("ssrc") {
        None => None,
        Some(_) => Some(u32_of(encoding.number("ssrc", 1..=u32::MAX.into())?)),
    };
    let codec_payload_type = match encoding.map.get("codecPayloadType") {
        None | Some(Value::Null) => None,
        Some(_) => Some(payload_type(encoding, "codecPayloadType")?),
    };
    let rtx = match encoding.truthy("rtx") {
        None => None,
        Some(value) => {
            let at = encoding.at.key("rtx");
            let rtx = Object::of(at, value)?;
            Some(RtxEncoding { ssrc: u32_of(rtx.number("ssrc", 1..=u32::MAX.into())?) })
        }
    };
    Ok(RtpEncodingParameters {
        ssrc,
        rid: encoding.string("rid", MID_CHARS_MAX)?,
        codec_payload_type,
        rtx,
        dtx: Some(encoding.map.get("dtx") == Some(&Value::Bool(true))),
        scalability_mode: encoding.string("scalabilityMode", SCALABILITY_MODE_CHARS_MAX)?,
        max_bitrate: max_bitrate(encoding)?,
        extra: extra(encoding)?,
    })
}

/// bits/s; a fraction, which applications compute, is cut off.
fn max_bitrate(encoding: &Object<'_>) -> Result<Option<u64>, OrtcError> {
    let at = encoding.at.key("maxBitrate");
    match encoding.map.get("maxBitrate") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => number
            .as_u64()
            .or_else(|| number.as_f64().and_then(whole))
            .map(Some)
            .ok_or_else(|| at.must("not be negative or too large")),
        Some(_) => Err(at.must("be a number")),
    }
}

fn whole(number: f64) -> Option<u64> {
    /// Up to here a double holds every whole number.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to lie between 0 and 2^53; the fraction is meant to go"
    )]
    (0.0..=EXACT_MAX).contains(&number).then_some(number as u64)
}

/// The scalars of an encoding that this server does not read.
fn extra(encoding: &Object<'_>) -> Result<Map<String, Value>, OrtcError> {
    const READ: [&str; 7] =
        ["ssrc", "rid", "codecPayloadType", "rtx", "dtx", "scalabilityMode", "maxBitrate"];
    if encoding.map.len() > CODEC_PARAMETERS_MAX {
        return Err(encoding.at.must(format_args!("have at most {CODEC_PARAMETERS_MAX} entries")));
    }
    let mut extra = Map::new();
    for (name, value) in encoding.map {
        if READ.contains(&name.as_str()) {
            continue;
        }
        check_name(&encoding.at, name)?;
        match value {
            Value::Array(_) | Value::Object(_) => continue,
            Value::String(_) => {
                string(&encoding.at.key(name), value, PARAMETER_CHARS_MAX)?;
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        extra.insert(name.clone(), value.clone());
    }
    Ok(extra)
}

/// Reduced size always, even if the client says no: compound-only senders are understood anyway.
fn rtcp(parameters: &Object<'_>) -> Result<RtcpParameters, OrtcError> {
    let cname = match parameters.truthy("rtcp") {
        None => None,
        Some(value) => {
            Object::of(parameters.at.key("rtcp"), value)?.string("cname", CNAME_CHARS_MAX)?
        }
    };
    Ok(RtcpParameters { cname, reduced_size: true })
}

/// The number was read with a range that ends at or below `u8::MAX`.
fn u8_of(number: u64) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// The number was read with a range that ends at or below `u32::MAX`.
fn u32_of(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
