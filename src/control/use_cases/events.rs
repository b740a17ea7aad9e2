//! Following a room's log.

use serde_json::{Value, json};

use crate::control::error::ControlError;
use crate::control::service::{Control, now};
use crate::control::view::RoomView;
use crate::events::{Start, Subscription};
use crate::id::RoomId;

impl Control {
    /// Follows a room's log after entry `after`, or from a snapshot on; answers also with the
    /// snapshot (`null` where the subscription does not start with one).
    ///
    /// # Errors
    /// [`ControlError::RoomNotFound`], [`ControlError::LimitReached`].
    pub fn follow(
        &self,
        room: &RoomId,
        after: Option<u64>,
    ) -> Result<(Subscription, Value), ControlError> {
        self.inner.state.with(|state| {
            if state.stopping {
                return Err(ControlError::Overloaded);
            }
            let log = state.logs.get_mut(room).ok_or(ControlError::RoomNotFound)?;
            let subscription = log.subscribe(after, &self.inner.readers)?;
            let snapshot = match subscription.start {
                Start::Snapshot { seq } => {
                    let view = RoomView::of(room, &state.registry, self.inner.clock)?;
                    let time = self.inner.clock.iso(now());
                    json!({
                        "seq": seq, "time": time, "roomId": room, "type": "snapshot", "data": view,
                    })
                }
                Start::Entries(_) => Value::Null,
            };
            Ok((subscription, snapshot))
        })
    }
}
