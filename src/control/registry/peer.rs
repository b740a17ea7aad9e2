//! Peers: they join with their first transport and leave on request or when they have none left.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::{Effects, Registry};
use crate::control::ControlError;
use crate::events::RoomEvent;
use crate::id::{PeerId, RoomId, TransportId};
use crate::limits::PEER_GRACE;

/// Someone in a room.
#[derive(Debug, Default)]
pub struct Peer {
    /// Its transports, also those still being made.
    pub transports: BTreeSet<TransportId>,
    /// How many producers it has on all of them, also those still being made.
    pub(super) producers: usize,
    /// How many consumers it has on all of them, also those still being made.
    pub(super) consumers: usize,
    /// True once its first transport was made and the room was told.
    pub joined: bool,
    /// Since when it has no transport, or lost the last that it used.
    pub(super) idle_since: Option<Instant>,
    /// Taken by a `produce` for its whole length: what a peer already sends must not change
    /// between looking and answering.
    pub produce_turn: Arc<tokio::sync::Mutex<()>>,
}

impl Peer {
    /// True when its grace without a transport is over.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.idle_since.is_some_and(|since| now.saturating_duration_since(since) >= PEER_GRACE)
    }
}

impl Registry {
    /// Takes a peer out of its room with all it had; the last one ends the room.
    ///
    /// # Errors
    /// [`ControlError::RoomNotFound`], [`ControlError::PeerNotFound`].
    pub fn leave(
        &mut self,
        room_id: &RoomId,
        peer_id: &PeerId,
        reason: &'static str,
    ) -> Result<Effects, ControlError> {
        let room = self.rooms.get_mut(room_id).ok_or(ControlError::RoomNotFound)?;
        let peer = room.peers.remove(peer_id).ok_or(ControlError::PeerNotFound)?;
        let shard = room.shard;
        self.peers -= 1;
        let mut effects = Effects::default();
        for transport in peer.transports {
            effects.append(self.drop_transport(transport, "peer_left"));
        }
        if peer.joined {
            let event = RoomEvent::PeerLeft { peer: peer_id.clone(), reason };
            effects.append(Effects::event(room_id, shard, event));
        }
        effects.append(self.close_room_if_empty(room_id));
        Ok(effects)
    }

    /// Takes a peer out of its room when it has no transport left.
    pub fn leave_if_idle(&mut self, room_id: &RoomId, peer_id: &PeerId) -> Effects {
        let peer = self.rooms.get(room_id).and_then(|room| room.peers.get(peer_id));
        if peer.is_some_and(|peer| peer.transports.is_empty()) {
            return self.leave(room_id, peer_id, "left").unwrap_or_default();
        }
        Effects::default()
    }
}
