//! Capabilities and parameters: pure functions with exactly mediasoup's semantics.
pub mod codec;
pub mod types;
