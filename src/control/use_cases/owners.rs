//! Whose something is.

use crate::control::error::ControlError;
use crate::control::service::Control;
use crate::id::{ConsumerId, PeerId, ProducerId, RoomId, TransportId};

/// Something that a peer has in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owned {
    /// A transport.
    Transport(TransportId),
    /// A WHIP or WHEP session.
    Session(TransportId),
    /// A producer.
    Producer(ProducerId),
    /// A consumer.
    Consumer(ConsumerId),
}

impl Owned {
    /// What is answered when there is none of that name, or none that the caller may know of.
    #[must_use]
    pub fn not_found(self) -> ControlError {
        match self {
            Self::Transport(_) => ControlError::TransportNotFound,
            Self::Session(_) => ControlError::SessionNotFound,
            Self::Producer(_) => ControlError::ProducerNotFound,
            Self::Consumer(_) => ControlError::ConsumerNotFound,
        }
    }
}

impl Control {
    /// The room and the peer that something belongs to, which never change.
    ///
    /// # Errors
    /// [`Owned::not_found`].
    pub fn owner(&self, owned: Owned) -> Result<(RoomId, PeerId), ControlError> {
        self.inner.state.with(|state| {
            let registry = &state.registry;
            let of_transport = |id| {
                let transport = registry.transport(id).map_err(|_| owned.not_found())?;
                Ok((transport.room.clone(), transport.peer.clone()))
            };
            match owned {
                Owned::Transport(id) | Owned::Session(id) => of_transport(id),
                Owned::Producer(id) => {
                    let producer = registry.producer(id)?;
                    Ok((producer.room.clone(), producer.peer.clone()))
                }
                Owned::Consumer(id) => of_transport(registry.consumer(id)?.transport),
            }
        })
    }
}
