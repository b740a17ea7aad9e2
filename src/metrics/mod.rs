//! What operators and their machines read about the node.
//!
//! Owned by the control thread. [`prometheus`] writes a [`NodeView`](crate::control::NodeView) as
//! Prometheus text; [`HttpCounts`] counts requests. Shards hand their numbers over by value, so
//! reading costs them nothing.

mod http;
pub mod prometheus;

pub use http::HttpCounts;
