//! One WebRTC transport: the way between one client and this node.
//!
//! Owned by the engine, on its shard's thread. [`connection`] makes the way (ICE-lite, DTLS, keys);
//! the others are its parts, each usable and tested alone.

pub mod connection;
pub mod ice;
pub mod rtc;
pub mod stun;
pub mod tuples;
