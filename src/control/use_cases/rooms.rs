//! Making, listing, leaving and ending rooms.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use crate::control::error::ControlError;
use crate::control::service::{Control, now, whole};
use crate::control::view::{ProducerView, RoomSummary, RoomView, RoomsPage};
use crate::id::{PeerId, RoomId};
use crate::limits::ROOMS_PAGE_MAX;
use crate::ortc::types::RtpCapabilities;

/// A room, as its clients need it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomReply {
    /// Its name.
    #[schema(value_type = String)]
    pub room_id: RoomId,
    /// What it can carry, for `Device.load`.
    #[schema(value_type = Object)]
    pub router_rtp_capabilities: Arc<RtpCapabilities>,
}

impl Control {
    /// The room of that name, made if there is none.
    ///
    /// # Errors
    /// [`ControlError::LimitReached`], [`ControlError::Overloaded`]; [`ControlError::Draining`]
    /// when it would have to be made during a drain.
    pub fn create_room(
        &self,
        room: &RoomId,
        initiator: Option<PeerId>,
    ) -> Result<RoomReply, ControlError> {
        self.inner.state.with(|state| {
            if state.stopping {
                return Err(ControlError::Overloaded);
            }
            if !state.registry.renew_room(room, now()) {
                if state.drain.is_some() {
                    return Err(ControlError::Draining);
                }
                let shard = state.place_room()?;
                let effects = state.registry.add_room(room, shard, initiator, now())?;
                self.settle(state, effects).finish_later();
            }
            Ok(())
        })?;
        Ok(RoomReply {
            room_id: room.clone(),
            router_rtp_capabilities: Arc::clone(&self.inner.capabilities),
        })
    }

    /// What is sent in a room, in order of its making, without what `exclude` sends. An unknown
    /// room has nothing.
    #[must_use]
    pub fn producers_of(&self, room: &RoomId, exclude: Option<&PeerId>) -> Vec<ProducerView> {
        self.inner.state.with(|state| {
            let Ok(room) = state.registry.room(room) else {
                return Vec::new();
            };
            room.producers()
                .filter_map(|id| Some((id, state.registry.producer(id).ok()?)))
                .filter(|(_, producer)| Some(&producer.peer) != exclude)
                .map(|(id, producer)| ProducerView::of(id, producer))
                .collect()
        })
    }

    /// Takes a peer out of a room with all it had; unknown names are no error.
    ///
    /// # Errors
    /// [`ControlError::Overloaded`] when the node is stopping.
    pub async fn leave(&self, room: RoomId, peer: PeerId) -> Result<(), ControlError> {
        let control = self.clone();
        whole(async move {
            let closing = control.inner.state.with(|state| {
                let effects = state.registry.leave(&room, &peer, "left").unwrap_or_default();
                control.settle(state, effects)
            });
            closing.finish().await;
            Ok(())
        })
        .await
    }

    /// Ends a room for everybody.
    ///
    /// # Errors
    /// [`ControlError::RoomNotFound`].
    pub async fn delete_room(&self, room: RoomId) -> Result<(), ControlError> {
        let control = self.clone();
        whole(async move {
            let closing = control.inner.state.with(|state| {
                let effects = state.registry.close_room(&room, "deleted")?;
                Ok::<_, ControlError>(control.settle(state, effects))
            })?;
            closing.finish().await;
            Ok(())
        })
        .await
    }

    /// At most `limit` rooms by name, beginning after `cursor`.
    #[must_use]
    pub fn rooms(&self, cursor: Option<&RoomId>, limit: usize) -> RoomsPage {
        let limit = limit.clamp(1, ROOMS_PAGE_MAX);
        self.inner.state.with(|state| {
            let mut following = state.registry.rooms_after(cursor);
            let rooms: Vec<RoomSummary> = following
                .by_ref()
                .take(limit)
                .map(|(id, room)| RoomSummary::of(id, room, self.inner.clock))
                .collect();
            let more = following.next().is_some();
            let next_cursor = rooms.last().filter(|_| more).map(|room| room.room_id.clone());
            RoomsPage { rooms, next_cursor }
        })
    }

    /// Everything in one room.
    ///
    /// # Errors
    /// [`ControlError::RoomNotFound`].
    pub fn room(&self, room: &RoomId) -> Result<RoomView, ControlError> {
        self.inner.state.with(|state| RoomView::of(room, &state.registry, self.inner.clock))
    }
}
