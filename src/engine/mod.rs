//! The sans-I/O heart of one shard: bytes, commands and `now` go in; datagrams, events and the next
//! deadline come out.
//!
//! Called by its shard on the shard's thread (in tests and benches by whoever made it). It never
//! reads a clock, a socket or randomness that was not handed to it.

pub mod incoming_rate;
pub mod io;
pub mod nack;
pub mod report;
pub mod ring;
pub mod srtp;
pub mod twcc;
