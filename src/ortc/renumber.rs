//! From the room's numbers to a client's own: what a client that speaks SDP has chosen in its offer
//! holds in the answer (RFC 3264 §6.1, RFC 8285 §5). Pure; called by the control thread on
//! `consume` for such a client, behind [`super::consumer_parameters`]. Clients that speak the ORTC
//! routes take the room's numbers and never come here.

use super::codec_match::same_codec_and_profile;
use super::types::{CodecMapping, RtpCapabilities, RtpHeaderExtensionParameters, RtpParameters};

/// What a client's m-section numbers, besides the payload types in its capabilities.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientNumbers {
    /// The media id of the m-section.
    pub mid: String,
    /// URI and id of each header extension that the client offered.
    pub extensions: Vec<(String, u8)>,
}

/// Puts the client's payload types, extension ids and media id into a consumer's parameters; what
/// the client has no number for is taken out. The mapping is from the room's payload types of media
/// to the client's.
pub fn renumber(
    rtp: &mut RtpParameters,
    client: &RtpCapabilities,
    numbers: &ClientNumbers,
) -> Vec<CodecMapping> {
    let mut mapping: Vec<CodecMapping> = Vec::new();
    for codec in rtp.codecs.iter().filter(|codec| !codec.codec().is_rtx()) {
        let theirs = client.codecs.iter().find(|known| same_codec_and_profile(*known, codec));
        if let Some(mapped) = theirs.and_then(|known| known.preferred_payload_type) {
            let (payload_type, mapped_payload_type) = (codec.payload_type, mapped);
            mapping.push(CodecMapping { payload_type, mapped_payload_type });
        }
    }
    let of_media = |payload_type: u8| {
        let found = mapping.iter().find(|known| known.payload_type == payload_type);
        found.map(|known| known.mapped_payload_type)
    };
    rtp.codecs.retain_mut(|codec| {
        if !codec.codec().is_rtx() {
            let Some(mapped) = of_media(codec.payload_type) else { return false };
            codec.payload_type = mapped;
            return true;
        }
        let Some(apt) = codec.apt().and_then(of_media) else { return false };
        let repairs = client.codecs.iter().find(|c| c.codec().is_rtx() && c.apt() == Some(apt));
        let Some(mapped) = repairs.and_then(|rtx| rtx.preferred_payload_type) else { return false };
        codec.payload_type = mapped;
        codec.parameters.insert("apt".to_owned(), apt.into());
        true
    });
    if !rtp.codecs.iter().any(|codec| codec.codec().is_rtx()) {
        rtp.encodings.iter_mut().for_each(|encoding| encoding.rtx = None);
    }
    let id_of = |extension: &RtpHeaderExtensionParameters| {
        let known = numbers.extensions.iter().find(|(uri, _)| *uri == extension.uri);
        known.map(|(_, id)| *id)
    };
    rtp.header_extensions.retain_mut(|extension| {
        let id = id_of(extension);
        extension.id = id.unwrap_or_default();
        id.is_some()
    });
    rtp.mid = Some(numbers.mid.clone());
    mapping
}

#[cfg(test)]
mod tests {
    use super::super::types::RtpCodecCapability;
    use super::*;
    use serde_json::{Value, json};

    fn parameters(value: Value) -> RtpParameters {
        serde_json::from_value(value).unwrap()
    }

    fn capability(value: Value) -> RtpCodecCapability {
        serde_json::from_value(value).unwrap()
    }

    fn room() -> RtpParameters {
        parameters(json!({
            "codecs": [
                { "mimeType": "video/VP8", "payloadType": 101, "clockRate": 90_000 },
                { "mimeType": "video/rtx", "payloadType": 102, "clockRate": 90_000,
                  "parameters": { "apt": 101 } },
            ],
            "headerExtensions": [{ "uri": "a", "id": 1 }, { "uri": "b", "id": 4 }],
            "encodings": [{ "ssrc": 7, "rtx": { "ssrc": 8 } }],
            "rtcp": { "reducedSize": true },
        }))
    }

    fn vp8() -> RtpCodecCapability {
        capability(json!({
            "kind": "video", "mimeType": "video/vp8", "preferredPayloadType": 96,
            "clockRate": 90_000,
        }))
    }

    fn rtx(apt: u8) -> RtpCodecCapability {
        capability(json!({
            "kind": "video", "mimeType": "video/rtx", "preferredPayloadType": 97,
            "clockRate": 90_000, "parameters": { "apt": apt },
        }))
    }

    #[test]
    fn a_consumer_wears_the_numbers_of_its_client() {
        let mut rtp = room();
        let client = RtpCapabilities { codecs: vec![vp8(), rtx(96)], ..Default::default() };
        let numbers =
            ClientNumbers { mid: "video-0".to_owned(), extensions: vec![("b".to_owned(), 9)] };
        let mapping = renumber(&mut rtp, &client, &numbers);
        assert_eq!(mapping, [CodecMapping { payload_type: 101, mapped_payload_type: 96 }]);
        let types: Vec<_> = rtp.codecs.iter().map(|c| (c.payload_type, c.apt())).collect();
        assert_eq!(types, [(96, None), (97, Some(96))]);
        let ids: Vec<_> = rtp.header_extensions.iter().map(|e| (e.uri.as_str(), e.id)).collect();
        assert_eq!(ids, [("b", 9)]);
        assert_eq!(rtp.mid.as_deref(), Some("video-0"));
        assert!(rtp.encodings[0].rtx.is_some());
    }

    #[test]
    fn a_client_without_rtx_of_that_codec_gets_none() {
        for codecs in [vec![vp8()], vec![vp8(), rtx(98)]] {
            let mut rtp = room();
            let client = RtpCapabilities { codecs, ..Default::default() };
            renumber(&mut rtp, &client, &ClientNumbers::default());
            assert_eq!(rtp.codecs.len(), 1);
            assert_eq!(rtp.encodings[0].rtx, None);
            assert_eq!(rtp.header_extensions, []);
        }
    }
}
