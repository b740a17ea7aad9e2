//! What happened in a room, as one numbered log, and its readers.
//!
//! Owned by the control thread. The control plane appends; readers (SSE here) follow. Invariants:
//! a room's entries are numbered from 1 without gaps and in order of happening; a reader sees every
//! entry after its position exactly once or is disconnected. Nothing ever waits for a reader.

mod log;
mod room_event;
pub mod sse;
pub mod timestamp;

pub use log::{Entry, RoomLog, Start, Subscription};
pub use room_event::RoomEvent;
