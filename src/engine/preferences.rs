//! What clients may change about transports and consumers that are there: wishes, limits, ICE.
//!
//! Called by `commands`, one function per command, under its rules: each happens whole or is refused
//! with nothing changed.

use std::time::Instant;

use crate::control::command::{BitrateChange, BitrateLimits, Layers, Refusal, Reply};
use crate::engine::Engine;
use crate::engine::transport::ice::IceCredentials;
use crate::id::{ConsumerId, TransportId};
use crate::limits::{BITRATE_LIMIT_MAX_BPS, BITRATE_LIMIT_MIN_BPS};

impl Engine {
    /// The highest layers that a consumer is to get from now on.
    pub(super) fn set_preferred_layers(
        &mut self,
        now: Instant,
        id: ConsumerId,
        layers: Layers,
    ) -> Result<Reply, Refusal> {
        let key = self.consumer_key(id)?;
        let consumer = self.consumers.get_mut(key).ok_or(Refusal::NoConsumer)?;
        let Layers { spatial, temporal } = layers;
        let wanted = (usize::from(spatial), temporal);
        if (consumer.preferred_spatial, consumer.preferred_temporal) != wanted {
            (consumer.preferred_spatial, consumer.preferred_temporal) = wanted;
            let producer = consumer.producer;
            self.note_demand(producer);
            self.change_share(now, key);
        }
        Ok(Reply::Done)
    }

    /// How much a consumer counts from now on.
    pub(super) fn set_priority(
        &mut self,
        now: Instant,
        id: ConsumerId,
        priority: u8,
    ) -> Result<Reply, Refusal> {
        let key = self.consumer_key(id)?;
        let consumer = self.consumers.get_mut(key).ok_or(Refusal::NoConsumer)?;
        let priority = priority.max(1);
        if std::mem::replace(&mut consumer.priority, priority) != priority {
            self.change_share(now, key);
        }
        Ok(Reply::Done)
    }

    /// Changes a transport's limits; all of them as they are then.
    ///
    /// # Errors
    /// [`Refusal::Contradiction`] when the least would be above the most.
    pub(super) fn set_bitrates(
        &mut self,
        now: Instant,
        id: TransportId,
        change: BitrateChange,
    ) -> Result<Reply, Refusal> {
        let key = self.transport_key(id)?;
        let transport = self.transports.get_mut(key).ok_or(Refusal::NoTransport)?;
        let limits = changed(transport.limits, change);
        if let (Some(least), Some(most)) = (limits.min_outgoing_bps, limits.max_outgoing_bps)
            && least > most
        {
            let what = "minOutgoingBitrate must not be above maxOutgoingBitrate";
            return Err(Refusal::Contradiction(what));
        }
        self.limit_outgoing(now, key, limits);
        Ok(Reply::Bitrates(limits))
    }

    /// Gives a transport further ICE credentials. They lead to the same shard and transport.
    pub(super) fn restart_ice(&mut self, id: TransportId) -> Result<Reply, Refusal> {
        let key = self.transport_key(id)?;
        let transport = self.transports.get_mut(key).ok_or(Refusal::NoTransport)?;
        let ufrag = self
            .demux
            .renew(transport.connection.credentials().ufrag(), &mut self.rng)
            .ok_or(Refusal::NoTransport)?;
        let fresh = IceCredentials::new(ufrag, &mut self.rng);
        let reply = Reply::IceRestarted {
            ufrag: fresh.ufrag().as_str().to_owned(),
            password: fresh.password().to_owned(),
        };
        transport.connection.restart_ice(fresh);
        Ok(reply)
    }
}

/// Limits after a change: what is absent stays, 0 ends a limit, the rest is brought into its range.
fn changed(limits: BitrateLimits, change: BitrateChange) -> BitrateLimits {
    let next = |now: Option<u64>, change: Option<u64>, least: u64| match change {
        None => now,
        Some(0) => None,
        Some(bps) => Some(bps.clamp(least, BITRATE_LIMIT_MAX_BPS)),
    };
    let least = BITRATE_LIMIT_MIN_BPS;
    BitrateLimits {
        max_incoming_bps: next(limits.max_incoming_bps, change.max_incoming_bps, least),
        max_outgoing_bps: next(limits.max_outgoing_bps, change.max_outgoing_bps, least),
        min_outgoing_bps: next(limits.min_outgoing_bps, change.min_outgoing_bps, least),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_not_named_stay_and_zero_ends_one() {
        let all = BitrateLimits {
            max_incoming_bps: Some(1_000_000),
            max_outgoing_bps: Some(2_000_000),
            min_outgoing_bps: Some(100_000),
        };
        assert_eq!(changed(all, BitrateChange::default()), all);
        let change = BitrateChange {
            max_incoming_bps: Some(0),
            max_outgoing_bps: Some(7),
            min_outgoing_bps: Some(u64::MAX),
        };
        let limits = BitrateLimits {
            max_incoming_bps: None,
            max_outgoing_bps: Some(BITRATE_LIMIT_MIN_BPS),
            min_outgoing_bps: Some(BITRATE_LIMIT_MAX_BPS),
        };
        assert_eq!(changed(all, change), limits);
    }
}
