//! Following a room's log.

use std::sync::Arc;

use crate::control::error::ControlError;
use crate::control::service::{Control, now};
use crate::control::view::RoomView;
use crate::events::{Entry, Position, Start, Subscription};
use crate::id::{PeerId, RoomId};

impl Control {
    /// Follows a room's log after a position, or from a snapshot on, for a peer where it is known who
    /// reads; answers also with what the reader gets first. A snapshot is of the room as it is, or as
    /// it was up to [`SNAPSHOT_AGE_MAX`](crate::limits::SNAPSHOT_AGE_MAX) ago with what happened since.
    ///
    /// # Errors
    /// [`ControlError::RoomNotFound`], [`ControlError::LimitReached`].
    pub fn follow(
        &self,
        room: &RoomId,
        after: Option<Position>,
        reader: Option<PeerId>,
    ) -> Result<(Subscription, Vec<Arc<Entry>>), ControlError> {
        self.inner.state.with(|state| {
            if state.stopping {
                return Err(ControlError::Overloaded);
            }
            let log = state.logs.get_mut(room).ok_or(ControlError::RoomNotFound)?;
            let mut subscription =
                log.subscribe(after, (&self.inner.readers, reader), &self.inner.limits)?;
            let first = match &mut subscription.start {
                Start::Snapshot { .. } => match log.young_snapshot(now()) {
                    Some(first) => first,
                    None => {
                        let view = RoomView::of(room, &state.registry, self.inner.clock)?;
                        let view = serde_json::to_value(view).unwrap_or_default();
                        vec![log.snapshot(now(), self.inner.clock, view)]
                    }
                },
                Start::Entries(entries) => std::mem::take(entries),
            };
            Ok((subscription, first))
        })
    }
}
