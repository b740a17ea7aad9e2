//! What operators and their machines read about the node.
//!
//! Owned by the control thread. [`prometheus`] writes a [`NodeView`](crate::control::NodeView) as
//! Prometheus text, `shards` its part about shards and `process` what the kernel says about the
//! process; [`HttpCounts`] counts requests, [`Refusals`] those that a limit refused,
//! [`connections`] what carries them. Shards hand their numbers over by value, so reading
//! costs them nothing; of [`latency`], the recorder is a shard's, and of [`buckets`] some are.
//!
//! No label grows with rooms, peers or what clients send: shards, stages, reasons, kinds, states and
//! the routes' templates are all there are.

pub mod buckets;
pub mod connections;
mod exposition;
mod http;
pub mod latency;
mod process;
pub mod prometheus;
mod refusals;
mod shards;

pub use http::{HttpCounts, RouteCounts};
pub use refusals::Refusals;
