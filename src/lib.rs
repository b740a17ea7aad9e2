//! # ringcast
//!
//! A WebRTC selective forwarding unit: one binary, one UDP port, every core.

pub mod api;
pub mod config;
pub mod control;
pub mod engine;
pub mod events;
pub mod id;
pub mod lane;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod node;
pub mod ortc;
pub mod server;
pub mod shard;
