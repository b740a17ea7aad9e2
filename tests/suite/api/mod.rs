//! Request in → command out; refusal in → status out. The shards are scripted.

mod adaptive;
mod bad_requests;
mod calls;
mod credentials;
mod drain;
mod harness;
mod ice_servers;
mod limits;
mod offers;
mod operators;
mod overview;
mod races;
mod room_events;
mod sdp;
mod shards;
mod systemd;
mod tokens;
mod waiting;
