//! One log line per thing an operator wants to follow; called where it happens, on the control
//! thread. None of these lines comes at a sender's rate.

use tracing::info;

use super::registry::Happening;
use crate::events::RoomEvent;

/// Writes the line of what happened in a room.
pub(super) fn note(happening: &Happening) {
    let Happening { room, shard, event } = happening;
    match event {
        RoomEvent::RoomCreated { initiator } => {
            let initiator = initiator.as_ref().map(tracing::field::display);
            info!(room.id = %room, shard.id = %shard, initiator.id = initiator, "room created");
        }
        RoomEvent::RoomClosed { reason } => {
            info!(room.id = %room, shard.id = %shard, reason, "room closed");
        }
        RoomEvent::PeerJoined { peer } => {
            info!(room.id = %room, peer.id = %peer, shard.id = %shard, "peer joined");
        }
        RoomEvent::PeerLeft { peer, reason } => {
            info!(room.id = %room, peer.id = %peer, shard.id = %shard, reason, "peer left");
        }
        RoomEvent::ProducerAdded { .. } | RoomEvent::ProducerClosed { .. } => {
            note_producer(happening);
        }
        RoomEvent::TransportClosed { transport, peer, reason } => info!(
            room.id = %room, peer.id = %peer, transport.id = %transport, shard.id = %shard,
            reason, "transport closed"
        ),
        RoomEvent::ProducerPaused { .. }
        | RoomEvent::ProducerScore { .. }
        | RoomEvent::ConsumerClosed { .. }
        | RoomEvent::ConsumerLayers { .. }
        | RoomEvent::ConsumerScore { .. }
        | RoomEvent::Bandwidth { .. }
        | RoomEvent::TransportIceState { .. }
        | RoomEvent::TransportDtlsState { .. }
        | RoomEvent::ActiveSpeaker { .. }
        | RoomEvent::ProducerDemand { .. } => {
            tracing::debug!(
                room.id = %room, shard.id = %shard, event = event.name(), data = %event.data(),
                "room event"
            );
        }
        // It comes twice a second.
        RoomEvent::AudioLevels { .. } => {}
    }
}

fn note_producer(happening: &Happening) {
    let Happening { room, shard, event } = happening;
    match event {
        RoomEvent::ProducerAdded { producer, peer, kind, source, producer_type, .. } => info!(
            room.id = %room, peer.id = %peer, producer.id = %producer, shard.id = %shard,
            kind = kind.label(), source, producer.type = producer_type.label(), "peer produces"
        ),
        RoomEvent::ProducerClosed { producer, peer, kind, source, reason } => info!(
            room.id = %room, peer.id = %peer, producer.id = %producer, shard.id = %shard,
            kind = kind.label(), source, reason, "producer closed"
        ),
        _ => {}
    }
}
