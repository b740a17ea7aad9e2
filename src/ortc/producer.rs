//! A producer's own parameters: contradictions refused, defaults filled in, its type, and the
//! mapping of its numbers to the room's. Pure; called by the control thread on `produce`.
//!
//! Clashes with *other* producers of the transport are the shard's to find; clashes inside one
//! producer are found here. The transport's CNAME rule is the caller's.

use super::codec::Codec;
use super::codec_match::same_codec_and_profile;
use super::error::OrtcError;
use super::menu::Menu;
use super::router_caps::rtx_codec_of;
use super::types::{
    CodecMapping, EncodingMapping, MediaKind, ProducerType, RtpCapabilities, RtpCodecParameters,
    RtpEncodingParameters, RtpMapping, RtpParameters,
};

/// Parameters that mediasoup's worker would take for a producer of that kind, with its defaults: one
/// empty encoding if there is none, and reduced-size RTCP always.
///
/// Normalising a second time changes nothing.
///
/// # Errors
/// `Invalid` when codecs are missing, of the other kind or share a payload type, when RTX repairs no
/// media codec, when an encoding cannot be told from others, or when SSRCs or RIDs repeat.
pub fn normalise_producer(
    kind: MediaKind,
    mut parameters: RtpParameters,
) -> Result<RtpParameters, OrtcError> {
    check_codecs(kind, &parameters)?;
    if parameters.encodings.is_empty() {
        parameters.encodings.push(RtpEncodingParameters::default());
    }
    check_encodings(&parameters)?;
    parameters.rtcp.reduced_size = true;
    Ok(parameters)
}

fn check_codecs(kind: MediaKind, parameters: &RtpParameters) -> Result<(), OrtcError> {
    if parameters.media_codec().is_none() {
        return Err(OrtcError::Invalid(
            "rtpParameters.codecs must contain a media codec".to_owned(),
        ));
    }
    let mut seen = 0u128;
    for (index, codec) in parameters.codecs.iter().enumerate() {
        if MediaKind::of(&codec.mime_type) != Some(kind) {
            return Err(OrtcError::Invalid(format!(
                "rtpParameters.codecs[{index}].mimeType must be of kind {}",
                kind.label()
            )));
        }
        let bit = 1u128.checked_shl(codec.payload_type.into()).ok_or_else(|| {
            OrtcError::Invalid(format!(
                "rtpParameters.codecs[{index}].payloadType must be from 0 to 127"
            ))
        })?;
        if seen & bit != 0 {
            return Err(OrtcError::Invalid(format!(
                "rtpParameters.codecs[{index}].payloadType {} is duplicated",
                codec.payload_type
            )));
        }
        seen |= bit;
        if codec.codec().is_rtx() {
            repaired_by(codec, parameters)?;
        }
    }
    Ok(())
}

fn check_encodings(parameters: &RtpParameters) -> Result<(), OrtcError> {
    let encodings = &parameters.encodings;
    let named = |encoding: &RtpEncodingParameters| encoding.ssrc.is_some() || has_rid(encoding);
    if encodings.len() > 1 && !encodings.iter().all(named) {
        return Err(OrtcError::Invalid(
            "rtpParameters.encodings must have an ssrc or rid each, when more than one".to_owned(),
        ));
    }
    let has_mid = parameters.mid.as_ref().is_some_and(|mid| !mid.is_empty());
    if !has_mid && !encodings.iter().all(named) {
        return Err(OrtcError::Invalid(
            "rtpParameters.encodings[0] must have an ssrc or rid, when there is no mid".to_owned(),
        ));
    }
    check_repetitions(encodings)?;
    for (index, encoding) in encodings.iter().enumerate() {
        let Some(payload_type) = encoding.codec_payload_type else { continue };
        let names_media = parameters
            .codecs
            .iter()
            .any(|codec| codec.payload_type == payload_type && !codec.codec().is_rtx());
        if !names_media {
            return Err(OrtcError::Invalid(format!(
                "rtpParameters.encodings[{index}].codecPayloadType {payload_type} \
                 names no media codec"
            )));
        }
    }
    Ok(())
}

/// SSRCs of media and RTX share one table; RIDs have another.
fn check_repetitions(encodings: &[RtpEncodingParameters]) -> Result<(), OrtcError> {
    let mut ssrcs = Vec::with_capacity(encodings.len() * 2);
    let mut rids = Vec::with_capacity(encodings.len());
    for (index, encoding) in encodings.iter().enumerate() {
        let media = encoding.ssrc.map(|ssrc| ("ssrc", ssrc));
        let rtx = encoding.rtx.map(|rtx| ("rtx.ssrc", rtx.ssrc));
        for (name, ssrc) in [media, rtx].into_iter().flatten() {
            if ssrcs.contains(&ssrc) {
                return Err(OrtcError::Invalid(format!(
                    "rtpParameters.encodings[{index}].{name} {ssrc} is duplicated"
                )));
            }
            ssrcs.push(ssrc);
        }
        let Some(rid) = encoding.rid.as_deref().filter(|rid| !rid.is_empty()) else { continue };
        if rids.contains(&rid) {
            return Err(OrtcError::Invalid(format!(
                "rtpParameters.encodings[{index}].rid is duplicated"
            )));
        }
        rids.push(rid);
    }
    Ok(())
}

fn has_rid(encoding: &RtpEncodingParameters) -> bool {
    encoding.rid.as_ref().is_some_and(|rid| !rid.is_empty())
}

/// How the encodings relate, and whether the codec can do that.
///
/// # Errors
/// `Invalid` for a codec that cannot be sent that way, and for simulcast of spatial layers.
pub fn producer_type(parameters: &RtpParameters) -> Result<ProducerType, OrtcError> {
    Menu::MEDIASOUP.producer_type(parameters)
}

impl Menu {
    /// The same, with what this menu allows.
    ///
    /// # Errors
    /// Those of [`producer_type`].
    pub fn producer_type(self, parameters: &RtpParameters) -> Result<ProducerType, OrtcError> {
        type_of(parameters, self)
    }
}

fn type_of(parameters: &RtpParameters, menu: Menu) -> Result<ProducerType, OrtcError> {
    let producer_type = match parameters.encodings.as_slice() {
        [] => ProducerType::Simple,
        [only] if only.scalability().is_layered() => ProducerType::Svc,
        [_] => ProducerType::Simple,
        [_, ..] => ProducerType::Simulcast,
    };
    for encoding in &parameters.encodings {
        let codec = codec_of(encoding, parameters).ok_or_else(|| {
            OrtcError::Invalid("rtpParameters.codecs must contain a media codec".to_owned())
        })?;
        let spatial = encoding.scalability().spatial;
        if producer_type == ProducerType::Simulcast && spatial > 1 {
            return Err(OrtcError::Invalid(
                "simulcast encodings with more than one spatial layer are not supported".to_owned(),
            ));
        }
        if !allows(menu, codec.codec(), producer_type, spatial) {
            return Err(OrtcError::Invalid(format!(
                "{} codec not supported for {}",
                codec.mime_type,
                producer_type.label()
            )));
        }
    }
    Ok(producer_type)
}

/// The media codec an encoding is sent with: the one it names, else the first.
fn codec_of<'a>(
    encoding: &RtpEncodingParameters,
    parameters: &'a RtpParameters,
) -> Option<&'a RtpCodecParameters> {
    match encoding.codec_payload_type {
        Some(payload_type) => parameters
            .codecs
            .iter()
            .find(|codec| codec.payload_type == payload_type && !codec.codec().is_rtx()),
        None => parameters.media_codec(),
    }
}

fn allows(menu: Menu, codec: Codec, producer_type: ProducerType, spatial: u8) -> bool {
    match (producer_type, codec) {
        (ProducerType::Simple, _)
        | (ProducerType::Simulcast, Codec::Vp8 | Codec::H264)
        | (ProducerType::Svc, Codec::Vp9 | Codec::Av1) => true,
        (ProducerType::Svc, Codec::Vp8 | Codec::H264) => spatial == 1,
        (ProducerType::Simulcast, Codec::Vp9 | Codec::Av1) => menu.vp9_av1_simulcast,
        (ProducerType::Simulcast, Codec::H265) => menu.h265,
        (ProducerType::Svc, Codec::H265) => menu.h265 && spatial == 1,
        _ => false,
    }
}

/// From the producer's payload types and encodings to the room's.
///
/// Encoding `i` is known in the room by SSRC `first_mapped_ssrc + i`; the caller draws the first
/// (mediasoup draws from 100,000,000 to 999,999,998).
///
/// # Errors
/// `Unsupported` when the room lacks one of the codecs; `Invalid` when RTX repairs no media codec.
pub fn producer_mapping(
    parameters: &RtpParameters,
    caps: &RtpCapabilities,
    first_mapped_ssrc: u32,
) -> Result<RtpMapping, OrtcError> {
    check_redundancy(parameters)?;
    let mut codecs = Vec::with_capacity(parameters.codecs.len());
    for codec in parameters.codecs.iter().filter(|codec| !codec.codec().is_rtx()) {
        let mapped_payload_type = caps
            .codecs
            .iter()
            .find(|router_codec| same_codec_and_profile(codec, *router_codec))
            .and_then(|router_codec| router_codec.preferred_payload_type)
            .ok_or_else(|| {
                OrtcError::Unsupported(format!(
                    "unsupported codec [mimeType:{}, payloadType:{}]",
                    codec.mime_type, codec.payload_type
                ))
            })?;
        codecs.push(CodecMapping { payload_type: codec.payload_type, mapped_payload_type });
    }
    for rtx in parameters.codecs.iter().filter(|codec| codec.codec().is_rtx()) {
        let repaired = repaired_by(rtx, parameters)?.payload_type;
        let mapped = mapped_payload_type(&codecs, repaired);
        let mapped_payload_type = mapped
            .and_then(|mapped| rtx_codec_of(caps, mapped))
            .and_then(|router_rtx| router_rtx.preferred_payload_type)
            .ok_or_else(|| {
                let number = mapped.unwrap_or(repaired);
                OrtcError::Unsupported(format!("no RTX codec for capability codec PT {number}"))
            })?;
        codecs.push(CodecMapping { payload_type: rtx.payload_type, mapped_payload_type });
    }
    let encodings = parameters
        .encodings
        .iter()
        .zip(0u32..)
        .map(|(encoding, index)| EncodingMapping {
            ssrc: encoding.ssrc,
            rid: encoding.rid.clone(),
            mapped_ssrc: first_mapped_ssrc.wrapping_add(index),
        })
        .collect();
    Ok(RtpMapping { codecs, encodings })
}

/// What is wrapped in RED must be there by itself: consumers that do not know RED get that.
fn check_redundancy(parameters: &RtpParameters) -> Result<(), OrtcError> {
    let has = |wanted| parameters.codecs.iter().any(|codec| codec.codec() == wanted);
    if has(Codec::Red) && !has(Codec::Opus) {
        let missing = "audio/red without the audio/opus that it carries";
        return Err(OrtcError::Unsupported(missing.to_owned()));
    }
    Ok(())
}

/// The room's number for a producer's payload type.
pub(super) fn mapped_payload_type(codecs: &[CodecMapping], payload_type: u8) -> Option<u8> {
    codecs
        .iter()
        .find(|mapping| mapping.payload_type == payload_type)
        .map(|mapping| mapping.mapped_payload_type)
}

/// The media codec whose packets an RTX codec repeats.
fn repaired_by<'a>(
    rtx: &RtpCodecParameters,
    parameters: &'a RtpParameters,
) -> Result<&'a RtpCodecParameters, OrtcError> {
    parameters
        .codecs
        .iter()
        .find(|codec| !codec.codec().is_rtx() && Some(codec.payload_type) == rtx.apt())
        .ok_or_else(|| {
            OrtcError::Invalid(format!("missing media codec found for RTX PT {}", rtx.payload_type))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ortc::{default_media_codecs, parse_rtp_parameters, router_capabilities};
    use serde_json::{Value, json};

    fn vp8() -> Value {
        json!({
            "mid": "0",
            "codecs": [
                {"mimeType": "video/VP8", "payloadType": 96, "clockRate": 90000},
                {"mimeType": "video/rtx", "payloadType": 97, "clockRate": 90000,
                 "parameters": {"apt": 96}},
            ],
            "encodings": [{"ssrc": 11, "rtx": {"ssrc": 12}}],
        })
    }

    fn vp8_with(pointer: &str, value: Value) -> RtpParameters {
        let mut object = vp8();
        *object.pointer_mut(pointer).unwrap() = value;
        parse_rtp_parameters(object).unwrap()
    }

    #[test]
    fn a_producer_without_encodings_has_one_empty_encoding() {
        let parameters = vp8_with("/encodings", json!([]));
        let normalised = normalise_producer(MediaKind::Video, parameters).unwrap();
        assert_eq!(normalised.encodings, [RtpEncodingParameters::default()]);
        assert!(normalised.rtcp.reduced_size);
        let again = normalise_producer(MediaKind::Video, normalised.clone()).unwrap();
        assert_eq!(again, normalised);
    }

    #[test]
    fn contradictions_are_refused_with_the_field() {
        let rtx = json!({"mimeType": "video/rtx", "payloadType": 97, "clockRate": 90000,
                         "parameters": {"apt": 96}});
        let table = [
            ("/codecs", json!([]), "rtpParameters.codecs must contain a media codec"),
            ("/codecs", json!([rtx]), "rtpParameters.codecs must contain a media codec"),
            (
                "/codecs/0/mimeType",
                json!("audio/opus"),
                "rtpParameters.codecs[0].mimeType must be of kind video",
            ),
            (
                "/codecs/1/payloadType",
                json!(96),
                "rtpParameters.codecs[1].payloadType 96 is duplicated",
            ),
            ("/codecs/1/parameters", json!({"apt": 95}), "missing media codec found for RTX PT 97"),
            ("/codecs/1/parameters", json!({}), "missing media codec found for RTX PT 97"),
            ("/codecs/1/parameters", json!({"apt": 97}), "missing media codec found for RTX PT 97"),
            (
                "/encodings",
                json!([{"ssrc": 1}, {}]),
                "rtpParameters.encodings must have an ssrc or rid each, when more than one",
            ),
            (
                "/encodings",
                json!([{"ssrc": 1}, {"ssrc": 1}]),
                "rtpParameters.encodings[1].ssrc 1 is duplicated",
            ),
            (
                "/encodings",
                json!([{"ssrc": 1, "rtx": {"ssrc": 1}}]),
                "rtpParameters.encodings[0].rtx.ssrc 1 is duplicated",
            ),
            (
                "/encodings",
                json!([{"rid": "a"}, {"rid": "a"}]),
                "rtpParameters.encodings[1].rid is duplicated",
            ),
            (
                "/encodings",
                json!([{"ssrc": 1, "codecPayloadType": 97}]),
                "rtpParameters.encodings[0].codecPayloadType 97 names no media codec",
            ),
        ];
        for (pointer, value, message) in table {
            let error = normalise_producer(MediaKind::Video, vp8_with(pointer, value)).unwrap_err();
            assert_eq!(error, OrtcError::Invalid(message.to_owned()));
        }
    }

    #[test]
    fn a_lone_encoding_needs_a_name_only_without_a_mid() {
        let mut parameters = vp8_with("/encodings", json!([{}]));
        assert!(normalise_producer(MediaKind::Video, parameters.clone()).is_ok());
        parameters.mid = None;
        let error = normalise_producer(MediaKind::Video, parameters).unwrap_err();
        assert_eq!(
            error.to_string(),
            "rtpParameters.encodings[0] must have an ssrc or rid, when there is no mid"
        );
    }

    #[test]
    fn the_type_follows_from_encodings_and_modes() {
        let one = |mode: &str| json!([{"ssrc": 1, "scalabilityMode": mode}]);
        let two = |mode: &str| json!([{"rid": "a", "scalabilityMode": mode}, {"rid": "b", "scalabilityMode": mode}]);
        let refused =
            |mime: &str, what: &str| Err(format!("{mime} codec not supported for {what}"));
        let layered = "simulcast encodings with more than one spatial layer are not supported";
        let table = [
            ("video/VP8", one("L1T1"), Ok(ProducerType::Simple)),
            ("video/VP8", one("nonsense"), Ok(ProducerType::Simple)),
            ("video/VP8", one("L1T3"), Ok(ProducerType::Svc)),
            ("video/VP8", one("L2T1"), refused("video/VP8", "svc")),
            ("video/VP8", two("L1T3"), Ok(ProducerType::Simulcast)),
            ("video/VP8", two("L2T3"), Err(layered.to_owned())),
            ("video/H264", one("L1T2"), Ok(ProducerType::Svc)),
            ("video/H264", one("S2T2"), refused("video/H264", "svc")),
            ("video/h264", two("L1T1"), Ok(ProducerType::Simulcast)),
            ("video/VP9", one("L3T3_KEY"), Ok(ProducerType::Svc)),
            ("video/VP9", two("L1T1"), refused("video/VP9", "simulcast")),
            ("video/AV1", one("L3T3"), Ok(ProducerType::Svc)),
            ("video/AV1", two("L1T1"), refused("video/AV1", "simulcast")),
            ("audio/opus", one("L1T1"), Ok(ProducerType::Simple)),
            ("audio/opus", one("L1T3"), refused("audio/opus", "svc")),
            ("audio/opus", two("L1T1"), refused("audio/opus", "simulcast")),
        ];
        for (mime, encodings, expected) in table {
            let mut parameters = vp8_with("/encodings", encodings.clone());
            parameters.codecs[0].mime_type = mime.to_owned();
            let found = producer_type(&parameters).map_err(|error| error.to_string());
            assert_eq!(found, expected, "{mime} {encodings}");
        }
    }

    #[test]
    fn the_extended_menu_accepts_simulcast_of_more_codecs_but_not_of_spatial_layers() {
        let two = |mode: &str| json!([{"rid": "a", "scalabilityMode": mode}, {"rid": "b", "scalabilityMode": mode}]);
        for mime in ["video/VP9", "video/AV1", "video/H265"] {
            let mut parameters = vp8_with("/encodings", two("L1T3"));
            parameters.codecs[0].mime_type = mime.to_owned();
            assert!(producer_type(&parameters).is_err(), "{mime} in mediasoup");
            let found = Menu::EXTENDED.producer_type(&parameters);
            assert_eq!(found, Ok(ProducerType::Simulcast), "{mime}");
            let mut parameters = vp8_with("/encodings", two("L2T3"));
            parameters.codecs[0].mime_type = mime.to_owned();
            assert!(Menu::EXTENDED.producer_type(&parameters).is_err(), "{mime} of layers");
        }
    }

    #[test]
    fn red_without_its_opus_is_refused() {
        let caps = Menu::EXTENDED.router_capabilities(&Menu::EXTENDED.media_codecs()).unwrap();
        let codec = |mime: &str, payload_type: u8| {
            json!({"mimeType": mime, "payloadType": payload_type, "clockRate": 48_000,
                   "channels": 2})
        };
        let sends = |codecs: Value| {
            let sent = json!({"mid": "0", "codecs": codecs, "encodings": [{"ssrc": 1}]});
            producer_mapping(&parse_rtp_parameters(sent).unwrap(), &caps, 1)
        };
        let both = sends(json!([codec("audio/red", 63), codec("audio/opus", 111)])).unwrap();
        let mapped: Vec<_> =
            both.codecs.iter().map(|c| (c.payload_type, c.mapped_payload_type)).collect();
        assert_eq!(mapped, [(63, 109), (111, 100)]);
        assert!(sends(json!([codec("audio/red", 63)])).unwrap_err().is_unsupported());
    }

    #[test]
    fn a_codec_that_the_room_lacks_fails_the_whole_producer() {
        let caps = router_capabilities(&default_media_codecs()).unwrap();
        let parameters = vp8_with("/codecs/0/mimeType", json!("video/H265"));
        let error = producer_mapping(&parameters, &caps, 1).unwrap_err();
        assert_eq!(
            error,
            OrtcError::Unsupported(
                "unsupported codec [mimeType:video/H265, payloadType:96]".to_owned()
            )
        );
    }

    #[test]
    fn rtx_without_an_rtx_of_the_room_is_unsupported() {
        let mut caps = router_capabilities(&default_media_codecs()).unwrap();
        caps.codecs.retain(|codec| codec.codec() != Codec::Rtx);
        let parameters = parse_rtp_parameters(vp8()).unwrap();
        let error = producer_mapping(&parameters, &caps, 1).unwrap_err();
        assert_eq!(
            error,
            OrtcError::Unsupported("no RTX codec for capability codec PT 101".to_owned())
        );
    }

    #[test]
    fn mapped_ssrcs_count_up_from_the_given_one() {
        let caps = router_capabilities(&default_media_codecs()).unwrap();
        let parameters = vp8_with("/encodings", json!([{"rid": "a"}, {"rid": "b"}]));
        let mapping = producer_mapping(&parameters, &caps, u32::MAX).unwrap();
        let ssrcs: Vec<_> = mapping.encodings.iter().map(|mapped| mapped.mapped_ssrc).collect();
        assert_eq!(ssrcs, [u32::MAX, 0]);
    }
}
