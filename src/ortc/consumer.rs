//! What one consumer gets: the consumable parameters cut down to what its client understands.
//! Pure; called by the control thread on `consume`. SSRC and MID are arguments: whether they are
//! free on the transport is the caller's to know.

use super::codec::Codec;
use super::codec_match::same_codec_and_profile;
use super::error::OrtcError;
use super::scalability::Scalability;
use super::types::{
    MediaKind, RtcpFeedback, RtpCapabilities, RtpCodecCapability, RtpCodecParameters,
    RtpEncodingParameters, RtpHeaderExtensionParameters, RtpParameters, RtxEncoding,
};
use super::uri;

/// A consumer that a client asks for.
#[derive(Debug, Clone)]
pub struct ConsumerRequest<'a> {
    /// What the producer offers, from [`super::consumable_parameters`].
    pub consumable: &'a RtpParameters,
    /// What the client can receive.
    pub remote: &'a RtpCapabilities,
    /// Audio or video, for the default of `enable_rtx`.
    pub kind: MediaKind,
    /// Retransmissions wanted; `None` is yes for video and no for audio.
    pub enable_rtx: Option<bool>,
    /// SSRC of the consumer; RTX gets the next one. With `pipe`, encoding `i` gets `ssrc + i`, and
    /// the RTX SSRCs follow the last of them.
    pub ssrc: u32,
    /// Media id on the consumer's transport; ignored with `pipe`.
    pub mid: Option<String>,
    /// All encodings instead of one, and no MID.
    pub pipe: bool,
}

/// True when the client can decode something of what the producer offers.
#[must_use]
pub fn can_consume(consumable: &RtpParameters, caps: &RtpCapabilities) -> bool {
    consumable
        .codecs
        .iter()
        .find(|codec| remote_codec_of(codec, caps).is_some())
        .is_some_and(|first| !first.codec().is_rtx())
}

fn remote_codec_of<'a>(
    codec: &RtpCodecParameters,
    caps: &'a RtpCapabilities,
) -> Option<&'a RtpCodecCapability> {
    caps.codecs.iter().find(|remote| same_codec_and_profile(*remote, codec))
}

/// The parameters of a new consumer, in the room's payload types and extension ids.
///
/// # Errors
/// `Unsupported` when the client can decode nothing of it.
pub fn consumer_parameters(request: ConsumerRequest<'_>) -> Result<RtpParameters, OrtcError> {
    let ConsumerRequest { consumable, remote, kind, enable_rtx, ssrc, mid, pipe } = request;
    let enable_rtx = enable_rtx.unwrap_or(kind == MediaKind::Video);
    let mut codecs = codecs(consumable, remote, enable_rtx);
    if codecs.first().is_none_or(|first| first.codec().is_rtx()) {
        return Err(OrtcError::Unsupported("no compatible media codecs".to_owned()));
    }
    let has_rtx = codecs.iter().any(|codec| codec.codec().is_rtx());
    let header_extensions = header_extensions(consumable, remote);
    reduce_feedback(&mut codecs, &header_extensions);
    let encodings = if pipe {
        all_encodings(&consumable.encodings, ssrc, has_rtx)
    } else {
        vec![single_encoding(&consumable.encodings, ssrc, has_rtx)]
    };
    Ok(RtpParameters {
        mid: mid.filter(|_| !pipe),
        codecs,
        header_extensions,
        encodings,
        rtcp: consumable.rtcp.clone(),
        msid: consumable.msid.clone(),
    })
}

/// The consumable codecs that the client knows, with the client's feedback; RTX only beside its
/// media codec.
fn codecs(
    consumable: &RtpParameters,
    remote: &RtpCapabilities,
    enable_rtx: bool,
) -> Vec<RtpCodecParameters> {
    let mut codecs: Vec<RtpCodecParameters> = consumable
        .codecs
        .iter()
        .filter(|codec| enable_rtx || !codec.codec().is_rtx())
        .filter_map(|codec| {
            let mut feedback = remote_codec_of(codec, remote)?.rtcp_feedback.clone();
            feedback.retain(|feedback| enable_rtx || !is_plain_nack(feedback));
            Some(RtpCodecParameters { rtcp_feedback: feedback, ..codec.clone() })
        })
        .collect();
    let media: Vec<u8> = codecs
        .iter()
        .filter(|codec| !codec.codec().is_rtx())
        .map(|codec| codec.payload_type)
        .collect();
    // Redundancy of what the client cannot decode is of no use to it.
    if !codecs.iter().any(|codec| codec.codec() == Codec::Opus) {
        codecs.retain(|codec| codec.codec() != Codec::Red);
    }
    codecs.retain(|codec| {
        !codec.codec().is_rtx() || codec.apt().is_some_and(|apt| media.contains(&apt))
    });
    codecs
}

fn is_plain_nack(feedback: &RtcpFeedback) -> bool {
    feedback.kind == "nack" && feedback.parameter.is_empty()
}

/// Those that both sides know by the same URI *and* id; the kind is not compared.
fn header_extensions(
    consumable: &RtpParameters,
    remote: &RtpCapabilities,
) -> Vec<RtpHeaderExtensionParameters> {
    consumable
        .header_extensions
        .iter()
        .filter(|extension| {
            remote
                .header_extensions
                .iter()
                .any(|known| known.preferred_id == extension.id && known.uri == extension.uri)
        })
        .cloned()
        .collect()
}

/// The kinds of bandwidth feedback that are not for a stream with these header extensions: one kind at
/// most is, the one whose extension is there.
pub(crate) fn unusable_feedback(
    extensions: &[RtpHeaderExtensionParameters],
) -> &'static [&'static str] {
    let has = |uri: &str| extensions.iter().any(|extension| extension.uri == uri);
    if has(uri::TRANSPORT_CC) {
        &["goog-remb"]
    } else if has(uri::ABS_SEND_TIME) {
        &["transport-cc"]
    } else {
        &["goog-remb", "transport-cc"]
    }
}

/// One kind of bandwidth feedback at most.
fn reduce_feedback(codecs: &mut [RtpCodecParameters], extensions: &[RtpHeaderExtensionParameters]) {
    let dropped = unusable_feedback(extensions);
    for codec in codecs {
        codec.rtcp_feedback.retain(|feedback| !dropped.contains(&feedback.kind.as_str()));
    }
}

fn single_encoding(
    encodings: &[RtpEncodingParameters],
    ssrc: u32,
    has_rtx: bool,
) -> RtpEncodingParameters {
    let mode = encodings
        .iter()
        .filter_map(|encoding| encoding.scalability_mode.as_deref())
        .find(|mode| !mode.is_empty());
    let scalability_mode = if encodings.len() > 1 {
        let temporal = mode.map_or(Scalability::SINGLE, Scalability::of).temporal;
        Some(format!("L{}T{temporal}", encodings.len()))
    } else {
        mode.map(str::to_owned)
    };
    RtpEncodingParameters {
        ssrc: Some(ssrc),
        rtx: has_rtx.then(|| RtxEncoding { ssrc: ssrc.wrapping_add(1) }),
        scalability_mode,
        max_bitrate: encodings
            .iter()
            .filter_map(|encoding| encoding.max_bitrate)
            .max()
            .filter(|&bitrate| bitrate > 0),
        ..RtpEncodingParameters::default()
    }
}

/// Every encoding with a new SSRC; with RTX, the RTX SSRCs follow the last media one.
pub(super) fn all_encodings(
    encodings: &[RtpEncodingParameters],
    ssrc: u32,
    has_rtx: bool,
) -> Vec<RtpEncodingParameters> {
    let ssrcs = (0..).map(|index: u32| ssrc.wrapping_add(index));
    let rtx_ssrcs = ssrcs.clone().skip(encodings.len());
    encodings
        .iter()
        .zip(ssrcs.zip(rtx_ssrcs))
        .map(|(encoding, (ssrc, rtx_ssrc))| RtpEncodingParameters {
            ssrc: Some(ssrc),
            rtx: has_rtx.then_some(RtxEncoding { ssrc: rtx_ssrc }),
            ..encoding.clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ortc::{
        consumable_parameters, default_media_codecs, normalise_producer, parse_rtp_parameters,
        producer_mapping, router_capabilities,
    };
    use serde_json::{Value, json};

    fn room() -> RtpCapabilities {
        router_capabilities(&default_media_codecs()).unwrap()
    }

    fn consumable(kind: MediaKind, mime: &str, encodings: Value) -> RtpParameters {
        let clock = if kind == MediaKind::Audio { 48_000 } else { 90_000 };
        let parameters = parse_rtp_parameters(json!({
            "mid": "0",
            "codecs": [{"mimeType": mime, "payloadType": 109, "clockRate": clock, "channels": 2}],
            "encodings": encodings,
        }));
        let parameters = normalise_producer(kind, parameters.unwrap()).unwrap();
        let mapping = producer_mapping(&parameters, &room(), 700).unwrap();
        consumable_parameters(kind, &parameters, &room(), &mapping)
    }

    fn consume(
        consumable: &RtpParameters,
        remote: &RtpCapabilities,
        kind: MediaKind,
        enable_rtx: Option<bool>,
    ) -> Result<RtpParameters, OrtcError> {
        consumer_parameters(ConsumerRequest {
            consumable,
            remote,
            kind,
            enable_rtx,
            ssrc: 5000,
            mid: Some("3".to_owned()),
            pipe: false,
        })
    }

    fn feedback(parameters: &RtpParameters) -> Vec<String> {
        parameters.codecs[0]
            .rtcp_feedback
            .iter()
            .map(|feedback| format!("{} {}", feedback.kind, feedback.parameter).trim().to_owned())
            .collect()
    }

    #[test]
    fn rtx_is_for_video_unless_said_otherwise() {
        let opus = consumable(MediaKind::Audio, "audio/opus", json!([{"ssrc": 1}]));
        let vp8 = consumable(MediaKind::Video, "video/VP8", json!([{"ssrc": 1}]));
        let audio = |enable| consume(&opus, &room(), MediaKind::Audio, enable).unwrap();
        let video = |enable| consume(&vp8, &room(), MediaKind::Video, enable).unwrap();
        assert_eq!(feedback(&audio(None)), [""; 0]);
        assert_eq!(feedback(&audio(Some(true))), ["nack"]);
        assert_eq!(feedback(&video(None)), ["nack", "nack pli", "ccm fir", "transport-cc"]);
        assert_eq!(feedback(&video(Some(false))), ["nack pli", "ccm fir", "transport-cc"]);
        assert_eq!(video(None).encodings[0].rtx, Some(RtxEncoding { ssrc: 5001 }));
        assert_eq!(video(Some(false)).encodings[0].rtx, None);
        assert_eq!(video(Some(false)).codecs.len(), 1);
        assert_eq!(video(None).mid.as_deref(), Some("3"));
    }

    #[test]
    fn a_client_without_the_codec_cannot_consume() {
        let av1 = consumable(MediaKind::Video, "video/AV1", json!([{"ssrc": 1}]));
        let mut remote = room();
        assert!(can_consume(&av1, &remote));
        remote.codecs.retain(|codec| codec.mime_type != "video/AV1");
        assert!(!can_consume(&av1, &remote), "RTX alone is nothing to decode");
        let error = consume(&av1, &remote, MediaKind::Video, None).unwrap_err();
        assert_eq!(error, OrtcError::Unsupported("no compatible media codecs".to_owned()));
        assert!(!can_consume(&av1, &RtpCapabilities::default()));
    }

    #[test]
    fn an_extension_is_shared_only_by_equal_id() {
        let vp8 = consumable(MediaKind::Video, "video/VP8", json!([{"ssrc": 1}]));
        let mut remote = room();
        for extension in &mut remote.header_extensions {
            if extension.uri == uri::TRANSPORT_CC {
                extension.preferred_id = 9;
            }
        }
        let consumer = consume(&vp8, &remote, MediaKind::Video, None).unwrap();
        assert_eq!(consumer.extension_id(uri::TRANSPORT_CC), None);
        assert_eq!(feedback(&consumer), ["nack", "nack pli", "ccm fir", "goog-remb"]);
        remote.header_extensions.clear();
        let consumer = consume(&vp8, &remote, MediaKind::Video, None).unwrap();
        assert_eq!(feedback(&consumer), ["nack", "nack pli", "ccm fir"]);
    }

    #[test]
    fn one_encoding_tells_the_layers_of_all() {
        let table = [
            (json!([{"ssrc": 1}]), None, None),
            (json!([{"ssrc": 1, "scalabilityMode": "L1T2"}]), Some("L1T2"), None),
            (
                json!([{"rid": "a", "maxBitrate": 5}, {"rid": "b", "scalabilityMode": "L1T3"},
                       {"rid": "c", "maxBitrate": 3}]),
                Some("L3T3"),
                Some(5),
            ),
            (json!([{"rid": "a", "maxBitrate": 0}, {"rid": "b"}]), Some("L2T1"), None),
        ];
        for (encodings, mode, bitrate) in table {
            let vp8 = consumable(MediaKind::Video, "video/VP8", encodings.clone());
            let consumer = consume(&vp8, &room(), MediaKind::Video, None).unwrap();
            let [encoding] = consumer.encodings.as_slice() else { panic!("{encodings}") };
            assert_eq!(encoding.scalability_mode.as_deref(), mode, "{encodings}");
            assert_eq!(encoding.max_bitrate, bitrate, "{encodings}");
        }
    }
}
