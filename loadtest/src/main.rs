//! Black-box load test: speaks the REST contract and real ICE/DTLS/SRTP; never links the server.
mod agent;
mod clock;
mod dtls;
mod payload;
mod rng;
mod rtcp;
mod rtp;
mod schedule;
mod socket;
mod srtp;
fn main() {}
