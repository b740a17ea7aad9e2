//! What operators and their machines read about the node.
//!
//! Owned by the control thread. [`prometheus`] writes a [`NodeView`](crate::control::NodeView) as
//! Prometheus text; [`HttpCounts`] counts requests, [`connections`] what carries them. Shards hand their numbers over by value, so
//! reading costs them nothing; of [`latency`], the recorder is a shard's.

pub mod connections;
mod http;
pub mod latency;
pub mod prometheus;

pub use http::HttpCounts;
