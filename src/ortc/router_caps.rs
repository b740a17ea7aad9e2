//! What a room tells its clients it can carry. Pure; called when the room kinds of a node are
//! decided, and again whenever someone asks. Payload types come out unique and every `apt` names a
//! media codec of the list. Rooms with equal codec lists get equal numbers, also after a restart.

use super::codec::Codec;
use super::codec_match::same_codec;
use super::error::OrtcError;
use super::menu::{Menu, supported_codecs, supported_header_extensions};
use super::types::{MediaKind, RtpCapabilities, RtpCodecCapability};

/// Payload types given out in turn: 100–127 first, then 96–99 (all dynamic, RFC 3551 §6).
const DYNAMIC_PAYLOAD_TYPES: [std::ops::RangeInclusive<u8>; 2] = [100..=127, 96..=99];

/// Largest payload type (7 bits, RFC 3550 §5.1).
pub(super) const PAYLOAD_TYPE_MAX: u8 = 127;

/// The capabilities of a room made of `media_codecs`, RTX added to each video codec, from mediasoup's
/// menu.
///
/// Feedback comes from the menu; parameters are the menu's, overlaid with the given ones.
///
/// # Errors
/// `Unsupported` for a codec that is not on the menu; `Invalid` for a MIME type of neither kind, a
/// payload type above 127 or used twice, or when payload types run out.
pub fn router_capabilities(
    media_codecs: &[RtpCodecCapability],
) -> Result<RtpCapabilities, OrtcError> {
    Menu::MEDIASOUP.router_capabilities(media_codecs)
}

impl Menu {
    /// The same from this menu.
    ///
    /// # Errors
    /// Those of [`router_capabilities`].
    pub fn router_capabilities(
        self,
        media_codecs: &[RtpCodecCapability],
    ) -> Result<RtpCapabilities, OrtcError> {
        capabilities_of(media_codecs, &supported_codecs(self))
    }
}

fn capabilities_of(
    media_codecs: &[RtpCodecCapability],
    menu: &[RtpCodecCapability],
) -> Result<RtpCapabilities, OrtcError> {
    let mut payload_types = PayloadTypes::default();
    let mut codecs = Vec::with_capacity(media_codecs.len() * 2);
    for wanted in media_codecs {
        let wanted = with_defaults(wanted)?;
        let mut codec =
            menu.iter().find(|entry| same_codec(*entry, &wanted)).cloned().ok_or_else(|| {
                OrtcError::Unsupported(format!(
                    "media codec not supported [mimeType:{}]",
                    wanted.mime_type
                ))
            })?;
        let preferred = wanted.preferred_payload_type.or(codec.preferred_payload_type);
        let payload_type = payload_types.take(preferred)?;
        codec.preferred_payload_type = Some(payload_type);
        codec.parameters.extend(wanted.parameters);
        let rtx = match codec.kind {
            MediaKind::Audio => None,
            MediaKind::Video => {
                Some(rtx_for(payload_type, codec.clock_rate, payload_types.take(None)?))
            }
        };
        codecs.push(codec);
        codecs.extend(rtx);
    }
    Ok(RtpCapabilities { codecs, header_extensions: supported_header_extensions() })
}

/// The kind that the MIME type says, one channel for audio unless told, none for video.
fn with_defaults(codec: &RtpCodecCapability) -> Result<RtpCodecCapability, OrtcError> {
    let kind = MediaKind::of(&codec.mime_type)
        .ok_or_else(|| OrtcError::Invalid("invalid codec.mimeType".to_owned()))?;
    let channels = match kind {
        MediaKind::Audio => Some(codec.channels.unwrap_or(1)),
        MediaKind::Video => None,
    };
    Ok(RtpCodecCapability { kind, channels, ..codec.clone() })
}

fn rtx_for(apt: u8, clock_rate: u32, payload_type: u8) -> RtpCodecCapability {
    RtpCodecCapability {
        kind: MediaKind::Video,
        mime_type: "video/rtx".to_owned(),
        preferred_payload_type: Some(payload_type),
        clock_rate,
        channels: None,
        parameters: [("apt".to_owned(), apt.into())].into_iter().collect(),
        rtcp_feedback: Vec::new(),
    }
}

/// Payload types in use, one bit each.
#[derive(Debug, Default)]
struct PayloadTypes(u128);

impl PayloadTypes {
    /// The preferred one, or the next free dynamic one.
    fn take(&mut self, preferred: Option<u8>) -> Result<u8, OrtcError> {
        let payload_type = match preferred {
            Some(preferred) if preferred > PAYLOAD_TYPE_MAX => {
                return Err(OrtcError::Invalid("invalid codec.preferredPayloadType".to_owned()));
            }
            Some(preferred) if self.has(preferred) => {
                return Err(OrtcError::Invalid("duplicated codec.preferredPayloadType".to_owned()));
            }
            Some(preferred) => preferred,
            None => DYNAMIC_PAYLOAD_TYPES
                .into_iter()
                .flatten()
                .find(|&payload_type| !self.has(payload_type))
                .ok_or_else(|| {
                    OrtcError::Invalid(
                        "cannot allocate more dynamic codec payload types".to_owned(),
                    )
                })?,
        };
        self.0 |= 1 << payload_type;
        Ok(payload_type)
    }

    fn has(&self, payload_type: u8) -> bool {
        self.0 & (1 << payload_type) != 0
    }
}

/// The router's codec with that payload type.
pub(super) fn codec_of(caps: &RtpCapabilities, payload_type: u8) -> Option<&RtpCodecCapability> {
    caps.codecs.iter().find(|codec| codec.preferred_payload_type == Some(payload_type))
}

/// The router's RTX codec for that payload type.
pub(super) fn rtx_codec_of(
    caps: &RtpCapabilities,
    payload_type: u8,
) -> Option<&RtpCodecCapability> {
    caps.codecs
        .iter()
        .find(|codec| codec.codec() == Codec::Rtx && codec.apt() == Some(payload_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ortc::{VideoCodec, default_media_codecs};
    use serde_json::json;

    fn codec(value: serde_json::Value) -> RtpCodecCapability {
        serde_json::from_value(value).unwrap()
    }

    fn numbers(caps: &RtpCapabilities) -> Vec<(&str, u8)> {
        caps.codecs
            .iter()
            .map(|codec| (codec.mime_type.as_str(), codec.preferred_payload_type.unwrap()))
            .collect()
    }

    #[test]
    fn default_rooms_add_av1_behind_the_replaced_services_codecs() {
        let caps = router_capabilities(&default_media_codecs()).unwrap();
        assert_eq!(
            numbers(&caps),
            [
                ("audio/opus", 100),
                ("video/VP8", 101),
                ("video/rtx", 102),
                ("video/VP9", 103),
                ("video/rtx", 104),
                ("video/H264", 105),
                ("video/rtx", 106),
                ("video/AV1", 107),
                ("video/rtx", 108),
            ]
        );
    }

    #[test]
    fn extensions_come_behind_everything_and_are_not_on_mediasoups_menu() {
        let codecs = Menu::EXTENDED.media_codecs();
        let plain = router_capabilities(&default_media_codecs()).unwrap();
        let caps = Menu::EXTENDED.router_capabilities(&codecs).unwrap();
        assert_eq!(caps.codecs[..plain.codecs.len()], plain.codecs);
        assert_eq!(caps.header_extensions, plain.header_extensions);
        let more = [("audio/red", 109), ("video/H265", 110), ("video/rtx", 111)];
        let listed = numbers(&caps);
        let (beyond, profiles) = listed[plain.codecs.len()..].split_at(more.len());
        assert_eq!(beyond, more);
        let profiles: Vec<_> = profiles.iter().filter(|(mime, _)| *mime != "video/rtx").collect();
        let h264 = [&("video/H264", 112), &("video/H264", 114), &("video/H264", 116)];
        assert_eq!(profiles, h264, "Main, High, Baseline");
        assert_eq!(Menu::MEDIASOUP.media_codecs(), default_media_codecs());
        assert_eq!(Menu::EXTENDED.media_codecs_with(&VideoCodec::ALL), codecs);
        for extra in codecs
            .iter()
            .filter(|codec| ["audio/red", "video/H265"].contains(&codec.mime_type.as_str()))
        {
            let refused = router_capabilities(std::slice::from_ref(extra)).unwrap_err();
            assert!(refused.is_unsupported(), "{refused}");
        }
    }

    #[test]
    fn fixed_and_preferred_payload_types_leave_the_pool() {
        let audio =
            |mime: &str, clock: u32| json!({"kind": "audio", "mimeType": mime, "clockRate": clock});
        let mut opus = codec(audio("audio/opus", 48_000));
        opus.channels = Some(2);
        let mut preferred = opus.clone();
        preferred.preferred_payload_type = Some(100);
        let list = [
            codec(audio("audio/PCMU", 8000)),
            preferred,
            codec(audio("audio/cn", 8000)),
            opus,
            codec(audio("audio/telephone-event", 8000)),
        ];
        let caps = router_capabilities(&list).unwrap();
        assert_eq!(
            numbers(&caps),
            [
                ("audio/PCMU", 0),
                ("audio/opus", 100),
                ("audio/CN", 13),
                ("audio/opus", 101),
                ("audio/telephone-event", 102),
            ]
        );
        assert_eq!(caps.codecs[2].channels, Some(1), "one channel unless told");
    }

    #[test]
    fn multiopus_takes_the_mapping_of_its_channels() {
        let six = codec(json!({
            "kind": "video", "mimeType": "AUDIO/multiopus", "clockRate": 48000, "channels": 6,
            "parameters": {"num_streams": 4, "coupled_streams": 2},
        }));
        let caps = router_capabilities(&[six]).unwrap();
        assert_eq!(caps.codecs[0].kind, MediaKind::Audio, "the MIME type decides");
        assert_eq!(caps.codecs[0].parameters["channel_mapping"], json!("0,4,1,2,3,5"));
        assert_eq!(caps.codecs[0].mime_type, "audio/multiopus");
    }

    #[test]
    fn what_no_room_can_carry_is_refused_with_its_name() {
        let base = json!({"kind": "video", "mimeType": "video/VP8", "clockRate": 90000});
        let with = |key: &str, value: serde_json::Value| {
            let mut object = base.clone();
            object[key] = value;
            codec(object)
        };
        let twice = with("preferredPayloadType", json!(111));
        let table = [
            (
                vec![with("mimeType", json!("video/H265"))],
                true,
                "media codec not supported [mimeType:video/H265]",
            ),
            (
                vec![with("clockRate", json!(48000))],
                true,
                "media codec not supported [mimeType:video/VP8]",
            ),
            (vec![with("mimeType", json!("text/VP8"))], false, "invalid codec.mimeType"),
            (
                vec![with("preferredPayloadType", json!(128))],
                false,
                "invalid codec.preferredPayloadType",
            ),
            (vec![twice.clone(), twice], false, "duplicated codec.preferredPayloadType"),
            (
                vec![codec(base.clone()); 17],
                false,
                "cannot allocate more dynamic codec payload types",
            ),
        ];
        for (codecs, unsupported, message) in table {
            let error = router_capabilities(&codecs).unwrap_err();
            assert_eq!(
                (error.is_unsupported(), error.to_string().as_str()),
                (unsupported, message)
            );
        }
    }

    #[test]
    fn sixteen_video_codecs_use_up_the_pool_exactly() {
        let vp8 = codec(json!({"kind": "video", "mimeType": "video/VP8", "clockRate": 90000}));
        let caps = router_capabilities(&vec![vp8; 16]).unwrap();
        let last = caps.codecs.last().unwrap();
        assert_eq!((last.preferred_payload_type, last.apt()), (Some(99), Some(98)));
    }
}
