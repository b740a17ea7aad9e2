//! What time does to rooms: transports that nobody uses close, peers without transports leave, rooms
//! without peers end, old events go.

use std::sync::{Arc, Weak};

use super::service::{Control, Inner, now};
use crate::limits::HOUSEKEEPING_PERIOD;

impl Control {
    /// Starts the housekeeping task; it ends with the last handle.
    pub(super) fn keep_house(&self) {
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(HOUSEKEEPING_PERIOD).await;
                let Some(inner) = Weak::<Inner>::upgrade(&inner) else { return };
                Self { inner }.sweep();
            }
        });
    }

    fn sweep(&self) {
        let now = now();
        let closing = self.inner.state.with(|state| {
            let mut effects = state.registry.close_unused(now, state.drain.is_some());
            effects.append(state.registry.expire(now));
            state.logs.values_mut().for_each(|log| log.prune(now));
            self.settle(state, effects)
        });
        closing.finish_later();
    }
}
