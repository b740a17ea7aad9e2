//! Capabilities and parameters: pure functions with exactly mediasoup's semantics.
pub mod types;
