//! Why the control plane says no. The API maps each variant to one status and one stable code.

use crate::control::command::Refusal;
use crate::limits::Limit;

/// A request that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No room of that name.
    #[error("room not found")]
    RoomNotFound,
    /// No peer of that name in the room.
    #[error("peer not found")]
    PeerNotFound,
    /// No such transport, or not this peer's.
    #[error("transport not found")]
    TransportNotFound,
    /// No such producer, or not in this room.
    #[error("producer not found")]
    ProducerNotFound,
    /// No such consumer.
    #[error("consumer not found")]
    ConsumerNotFound,
    /// No such WHIP or WHEP session.
    #[error("session not found")]
    SessionNotFound,
    /// Nothing is sent that could be played on what was offered.
    #[error("nothing to play yet")]
    NothingToPlay,
    /// A change of an ICE session must say which one it means.
    #[error("If-Match is missing")]
    PreconditionRequired,
    /// The ICE session that was meant is not the present one.
    #[error("If-Match names another ICE session")]
    PreconditionFailed,
    /// The transport has its client's DTLS parameters already.
    #[error("connect() already called")]
    AlreadyConnected,
    /// A name or stream is in use.
    #[error("{0}")]
    AlreadyExists(String),
    /// Parameters that contradict themselves or miss something.
    #[error("{0}")]
    Invalid(String),
    /// A codec or capability that this server does not carry.
    #[error("{0}")]
    Unsupported(String),
    /// There is as much of something as there may be.
    #[error("{} limit reached ({})", .0.what(), .0.name())]
    LimitReached(Limit),
    /// No new rooms are made here, and this would be one. Worth another try, elsewhere.
    #[error("server is draining: no new rooms begin here, try another server")]
    Draining,
    /// The process is about to end, and that is not called off.
    #[error("the process is to end, which cannot be called off")]
    Ending,
    /// A shard's lane is full, a shard does not answer, or the node is stopping. Worth another try.
    #[error("server is overloaded, try again")]
    Overloaded,
}

impl From<Limit> for ControlError {
    fn from(limit: Limit) -> Self {
        Self::LimitReached(limit)
    }
}

impl From<Refusal> for ControlError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoTransport => Self::TransportNotFound,
            Refusal::NoProducer => Self::ProducerNotFound,
            Refusal::NoConsumer => Self::ConsumerNotFound,
            Refusal::AlreadyConnected => Self::AlreadyConnected,
            Refusal::AlreadyExists | Refusal::StreamInUse(_) => {
                Self::AlreadyExists(refusal.to_string())
            }
            Refusal::Unsupported(what) => Self::Unsupported(what),
            Refusal::Contradiction(what) => Self::Invalid(what.to_owned()),
            Refusal::Full(_) => Self::LimitReached(Limit::Shard),
            Refusal::Overloaded | Refusal::NoAnswer => Self::Overloaded,
        }
    }
}
