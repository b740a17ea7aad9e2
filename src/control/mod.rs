//! Rooms, peers and their objects, on the control thread; and the boundary to the shards.
pub mod command;
