//! State of the control thread that its tasks take turns on.
//!
//! Used by `control`, `api` and `metrics` on the control thread; of a connection that tells events
//! what is its own goes with it to the readers' thread. A closure sees the value, so it
//! cannot be held across an await. Shards never see one.

use std::sync::PoisonError;

/// A value that one task at a time looks at, for as long as a closure runs.
#[derive(Debug, Default)]
pub struct Guarded<T> {
    #[expect(
        clippy::disallowed_types,
        reason = "shared between connections only on the control thread, never by a shard, never across an await"
    )]
    value: std::sync::Mutex<T>,
}

impl<T> Guarded<T> {
    /// Guards `value`.
    pub fn new(value: T) -> Self {
        #[expect(
            clippy::disallowed_types,
            reason = "shared between connections only on the control thread, never by a shard, never across an await"
        )]
        let value = std::sync::Mutex::new(value);
        Self { value }
    }

    /// Lets `look` see and change the value. `look` must not call `with` on the same value.
    ///
    /// A panic in an earlier `look` does not lock everyone else out: the value stays as that left
    /// it.
    pub fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
