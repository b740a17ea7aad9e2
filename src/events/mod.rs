//! What happened in a room, as one numbered log, and its readers.
//!
//! Owned by the control thread. The control plane appends; readers follow ([`sse`], [`ws`]) on a
//! [thread of theirs](ReaderThread), and [`outlet`]s carry events to Kafka and webhooks on theirs.
//! Invariants: a room's entries are numbered from 1 without gaps and in order of happening, and no two entries of any
//! rooms have the same id; a reader sees every entry after its position exactly once or is
//! disconnected. Nothing ever waits for a reader or an outlet.

mod chat;
mod gauges;
mod kafka;
mod log;
pub mod outlet;

mod position;
mod readers;
mod room_event;
pub mod sse;
pub mod timestamp;
mod webhook;
pub mod ws;

pub use gauges::GaugeOf;
pub use log::{Entry, RoomLog, Start, Subscription};
pub use position::{EntryId, NoPosition, Position};
pub use readers::{ReaderThread, Readers, Seat};
pub use room_event::RoomEvent;
