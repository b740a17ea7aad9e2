//! Calls in virtual time: engines, stock str0m clients, and a seeded network between them.
//!
//! [`room`] is the harness: it advances time to the next of {packet arrival, engine deadline, client
//! deadline, camera frame}. Seeds are constants. Handshakes draw their own randomness, so runs are
//! equal in what the network does to the n-th datagram, not bit for bit.

mod adaptive;
mod bottleneck;
mod clients;
mod media;
mod network;
mod params;
mod passage;
mod raw;
mod room;
mod shards;
mod stock;
mod studio;
mod verdicts;

mod calls;
mod demand;
mod hostile;
mod key_frames;
mod layers;
mod life;
mod loss;
mod oddities;
mod overload;
mod pause;
mod relay;
mod relay_chaos;
mod relay_lanes;
mod relay_life;
mod reports;
mod restart;
mod review;
mod sealed_frames;
mod sequence;
mod simulcast;
mod sound;
mod statistics;
mod trains;
mod wires;
