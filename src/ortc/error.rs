//! Why parameters are refused: the two classes that mediasoup throws, so that the API can answer
//! with two statuses. Made by every function of this folder; holds only its sentence.

/// Why `ortc` says no. The text is for the caller and names the field or codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrtcError {
    /// Malformed or contradictory parameters (mediasoup's `TypeError`): status 400.
    #[error("{0}")]
    Invalid(String),
    /// Well-formed, but nothing this room can carry (mediasoup's `UnsupportedError`): status 422.
    #[error("{0}")]
    Unsupported(String),
}

impl OrtcError {
    /// True when the request was well-formed and only the room cannot carry it.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported(_))
    }
}
