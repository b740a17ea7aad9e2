//! The registry as operators and clients see it: plain values, taken at one moment.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::ControlError;
use super::registry::{Direction, Producer, Registry, Room};
use crate::events::RoomEvent;
use crate::events::timestamp::WallAnchor;
use crate::id::{PeerId, ProducerId, RoomId, ShardId, TransportId};
use crate::ortc::types::{MediaKind, ProducerType};

/// A producer in a list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProducerView {
    /// Its name.
    #[schema(value_type = String, format = "uuid")]
    pub producer_id: ProducerId,
    /// Whose it is.
    #[schema(value_type = String)]
    pub peer_id: PeerId,
    /// `audio` or `video`.
    #[schema(value_type = String)]
    pub kind: MediaKind,
    /// Camera, screen …: the client's word.
    pub source: String,
    /// `simple`, `simulcast` or `svc`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub producer_type: ProducerType,
    /// True while nothing of it is forwarded.
    pub paused: bool,
    /// The layers wanted of each encoding, as `producer-demand` told them last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub demand: Vec<Value>,
    /// The client's own data.
    pub app_data: Value,
}

impl ProducerView {
    /// The producer as it is now.
    #[must_use]
    pub fn of(id: ProducerId, producer: &Producer) -> Self {
        Self {
            producer_id: id,
            peer_id: producer.peer.clone(),
            kind: producer.kind,
            source: producer.source.clone(),
            producer_type: producer.producer_type,
            paused: producer.paused,
            demand: producer.demand.iter().map(RoomEvent::demand).collect(),
            app_data: producer.app_data.clone(),
        }
    }
}

/// A transport in a room's view.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransportView {
    /// Its name.
    #[schema(value_type = String, format = "uuid")]
    pub id: TransportId,
    /// What the client means to do with it.
    pub direction: Direction,
    /// `new`, `connected`, `completed` or `disconnected`.
    pub ice_state: &'static str,
    /// `new`, `connecting`, `connected`, `failed` or `closed`.
    pub dtls_state: &'static str,
    /// Where it lives.
    #[schema(value_type = u16)]
    pub shard: ShardId,
}

/// A peer in a room's view.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerView {
    /// Its name.
    #[schema(value_type = String)]
    pub peer_id: PeerId,
    /// Its transports.
    pub transports: Vec<TransportView>,
}

/// Everything in one room.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomView {
    /// Its name.
    #[schema(value_type = String)]
    pub room_id: RoomId,
    /// Where it started; its transports tell where they live.
    #[schema(value_type = u16)]
    pub shard: ShardId,
    /// When it was made, ISO 8601.
    pub created_at: String,
    /// Its peers, by name.
    pub peers: Vec<PeerView>,
    /// Its producers, in order of their making.
    pub producers: Vec<ProducerView>,
    /// The producer of who spoke last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub active_speaker: Option<ProducerId>,
}

impl RoomView {
    /// The room as it is now.
    ///
    /// # Errors
    /// [`ControlError::RoomNotFound`].
    pub fn of(id: &RoomId, registry: &Registry, clock: WallAnchor) -> Result<Self, ControlError> {
        let room = registry.room(id)?;
        let peers = room
            .peers
            .iter()
            .filter(|(_, peer)| peer.joined)
            .map(|(peer_id, peer)| PeerView {
                peer_id: peer_id.clone(),
                transports: peer
                    .transports
                    .iter()
                    .filter_map(|id| TransportView::of(*id, registry))
                    .collect(),
            })
            .collect();
        let producers = room
            .producers()
            .filter_map(|id| Some(ProducerView::of(id, registry.producer(id).ok()?)))
            .collect();
        Ok(Self {
            room_id: id.clone(),
            shard: room.shard,
            created_at: clock.iso(room.created),
            peers,
            producers,
            active_speaker: room.speaker(),
        })
    }
}

impl TransportView {
    fn of(id: TransportId, registry: &Registry) -> Option<Self> {
        let transport = registry.transport(id).ok()?;
        Some(Self {
            id,
            direction: transport.direction,
            ice_state: transport.ice.label(),
            dtls_state: transport.dtls.label(),
            shard: transport.shard,
        })
    }
}

/// A room in the list of rooms.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomSummary {
    /// Its name.
    #[schema(value_type = String)]
    pub room_id: RoomId,
    /// Where it started; its transports tell where they live.
    #[schema(value_type = u16)]
    pub shard: ShardId,
    /// When it was made, ISO 8601.
    pub created_at: String,
    /// How many peers it has.
    pub peers: usize,
    /// How many producers it has.
    pub producers: usize,
}

impl RoomSummary {
    /// The room as it is now.
    #[must_use]
    pub fn of(id: &RoomId, room: &Room, clock: WallAnchor) -> Self {
        Self {
            room_id: id.clone(),
            shard: room.shard,
            created_at: clock.iso(room.created),
            peers: room.peers.values().filter(|peer| peer.joined).count(),
            producers: room.producers().count(),
        }
    }
}

/// A page of the list of rooms.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomsPage {
    /// Rooms by name.
    pub rooms: Vec<RoomSummary>,
    /// Give it as `cursor` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub next_cursor: Option<RoomId>,
}
