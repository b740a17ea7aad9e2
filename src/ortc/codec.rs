//! The codecs this server looks into, by name.
//!
//! Pure; called by `ortc` and by engines when a producer is made.

/// A codec whose payload this server understands, or knows to leave alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// audio/opus.
    Opus,
    /// audio/multiopus.
    MultiOpus,
    /// video/VP8.
    Vp8,
    /// video/VP9.
    Vp9,
    /// video/H264.
    H264,
    /// video/AV1.
    Av1,
    /// Retransmissions (RFC 4588) of another codec.
    Rtx,
    /// Anything else: forwarded without looking into it.
    Other,
}

impl Codec {
    /// The codec of a MIME type, compared without case.
    #[must_use]
    pub fn of(mime: &str) -> Self {
        let name = mime.split_once('/').map_or(mime, |(_, name)| name);
        [
            ("opus", Self::Opus),
            ("multiopus", Self::MultiOpus),
            ("VP8", Self::Vp8),
            ("VP9", Self::Vp9),
            ("H264", Self::H264),
            ("AV1", Self::Av1),
            ("rtx", Self::Rtx),
        ]
        .into_iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map_or(Self::Other, |(_, codec)| codec)
    }
}
