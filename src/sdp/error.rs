//! Why an offer or a fragment is refused: the two classes that WHIP answers with 400 and 422.

/// Why SDP is refused. The text is for the caller and says where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// It is no SDP, contradicts itself, or is larger than any honest one.
    #[error("{0}")]
    Malformed(String),
    /// Well-formed, but nothing this server can do.
    #[error("{0}")]
    Unsupported(String),
}

impl SdpError {
    pub(super) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }

    pub(super) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported(what.into())
    }
}
