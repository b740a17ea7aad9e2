//! Rooms, peers and their objects, and the boundary to the shards.
//!
//! Each transport has its own shard; what it carries lives there. A consumer on another shard than
//! its producer brings its shard a mirror of that producer, and whoever mirrors a producer is told
//! when it pauses and closes.
//!
//! Owned by the control thread. The API calls [`Control`], one method per use case; nothing here is
//! on the path of a packet. Invariants: the registry changes only under one lock that is never held
//! across an await; what a shard must do is reserved first, asked for, then committed or rolled
//! back; commands reach a shard in the order in which the registry changed. It knows neither HTTP
//! nor sockets.

pub mod addresses;
pub mod command;
pub mod counts;
pub mod dispatcher;
pub mod drain;
pub mod error;
pub mod guarded;
mod housekeeping;
mod journal;
mod negotiation;
mod node_view;
pub mod placement;
pub mod registry;
pub mod service;
mod shard_events;
pub mod speakers;
pub mod stats;
mod use_cases;
pub mod view;

pub use crate::engine::dtls::PeerCertificate;
pub use dispatcher::{LaneFull, ShardLink};
pub use drain::{After, DrainRequest, DrainView, Phase};
pub use error::ControlError;
pub use node_view::{LatencyView, NodeView, ShardView};
pub use service::{Control, ControlConfig};
pub use use_cases::{
    ConsumerReply, ConsumerRequest, DtlsFingerprint, DtlsParameters, DtlsRequest, IceParameters,
    IceReply, LayersReply, NoCursor, Owned, Patched, PlayRequest, Played, Precondition,
    ProducerRequest, PublishRequest, RoomLoad, RoomReply, RoomsBy, RoomsOverview, RoomsQuery,
    StatsCursor, TransportReply, TransportRequest,
};
