//! Room events on their way out of the node: what Kafka and webhooks get while they fail, hang and
//! come back.
//!
//! [`calls`] lets rooms happen, [`cluster`] is librdkafka's mock of Kafka with a reader of its own,
//! [`receiver`] is a webhook's receiver. Nothing sleeps: what is waited for is a message or a
//! condition, with [`calls::PATIENCE`] as its end.

pub(crate) mod calls;
mod cluster;
pub(crate) mod receiver;

mod kafka;
mod webhook;
