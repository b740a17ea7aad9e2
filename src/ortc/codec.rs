//! Which codec a MIME type names. Pure; used by `ortc` to match and by the engine to pick the
//! payload parser. Knows names only, nothing about payloads.

/// A codec, as far as the server treats it differently from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// `audio/opus` (RFC 7587).
    Opus,
    /// `audio/multiopus`: more than two channels.
    MultiOpus,
    /// `video/VP8` (RFC 7741).
    Vp8,
    /// `video/VP9` (RFC 9628).
    Vp9,
    /// `video/H264` (RFC 6184).
    H264,
    /// `video/H265` (RFC 7798).
    H265,
    /// `video/AV1`.
    Av1,
    /// `audio/red`: sound with copies of what came before it (RFC 2198).
    Red,
    /// Retransmissions of another codec's packets (RFC 4588).
    Rtx,
    /// Anything else: forwarded without a look inside.
    Other,
}

impl Codec {
    /// The codec of a MIME type such as `video/VP8`; the letters' case does not matter.
    #[must_use]
    pub fn of(mime: &str) -> Self {
        const NAMES: [(&str, Codec); 10] = [
            ("audio/opus", Codec::Opus),
            ("audio/multiopus", Codec::MultiOpus),
            ("video/vp8", Codec::Vp8),
            ("video/vp9", Codec::Vp9),
            ("video/h264", Codec::H264),
            ("video/h265", Codec::H265),
            ("video/av1", Codec::Av1),
            ("audio/red", Codec::Red),
            ("video/rtx", Codec::Rtx),
            ("audio/rtx", Codec::Rtx),
        ];
        NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(mime))
            .map_or(Self::Other, |&(_, codec)| codec)
    }

    /// True for what is decoded: neither repeats nor wraps other payloads.
    #[must_use]
    pub fn is_media(self) -> bool {
        !matches!(self, Self::Rtx | Self::Red)
    }

    /// True for retransmissions, which are no media by themselves.
    #[must_use]
    pub fn is_rtx(self) -> bool {
        self == Self::Rtx
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mime_type_names_its_codec_in_any_case() {
        let table = [
            ("audio/opus", Codec::Opus),
            ("AUDIO/OPUS", Codec::Opus),
            ("audio/multiopus", Codec::MultiOpus),
            ("video/VP8", Codec::Vp8),
            ("video/vp9", Codec::Vp9),
            ("video/H264", Codec::H264),
            ("video/AV1", Codec::Av1),
            ("video/rtx", Codec::Rtx),
            ("audio/rtx", Codec::Rtx),
            ("audio/VP8", Codec::Other),
            ("video/H265", Codec::H265),
            ("audio/red", Codec::Red),
            ("video/red", Codec::Other),
            ("audio/PCMU", Codec::Other),
            ("", Codec::Other),
        ];
        for (mime, codec) in table {
            assert_eq!(Codec::of(mime), codec, "{mime}");
        }
    }
}
