//! What can be asked of the control plane: one method of [`Control`](super::Control) per use case,
//! one file per object.
//!
//! Called by the API's handlers with arguments already parsed. Each method that a shard takes part
//! in reserves, asks, then commits or rolls back, as a whole even when its caller goes away.

mod consumers;
mod events;
mod overview;
mod owners;
mod producers;
mod rooms;
mod sessions;
mod stats;
mod transports;

pub use consumers::{ConsumerReply, ConsumerRequest, LayersReply};
pub use overview::{RoomLoad, RoomsBy, RoomsOverview, RoomsQuery};
pub use owners::Owned;
pub use producers::ProducerRequest;
pub use rooms::RoomReply;
pub use sessions::{Patched, PlayRequest, Played, Precondition, PublishRequest};
pub use stats::{NoCursor, StatsCursor};
pub use transports::{
    DtlsFingerprint, DtlsParameters, DtlsRequest, IceParameters, IceReply, TransportReply,
    TransportRequest,
};
