//! The rooms of a node as a table: found, sorted and cut into pages here, so that what is answered
//! is as small for a hundred thousand rooms as for ten.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use futures_util::{StreamExt, stream};
use serde::Serialize;
use utoipa::ToSchema;

use crate::control::registry::{Registry, Room};
use crate::control::service::{Control, now};
use crate::id::{RoomId, ShardId, TransportId};
use crate::limits::{
    OVERVIEW_CALLS_MAX, OVERVIEW_PATIENCE, OVERVIEW_ROOMS_MAX, ROOM_STATS_CALLS_MAX,
};

/// What rooms are sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RoomsBy {
    /// Their names.
    #[default]
    Name,
    /// How many peers they have.
    Peers,
    /// How many producers they have.
    Producers,
    /// How many consumers they have.
    Consumers,
    /// How long they have been there.
    Age,
}

/// Which rooms are wanted, in which order.
#[derive(Debug, Clone, Default)]
pub struct RoomsQuery {
    /// A part of their names, in small letters or capitals.
    pub contains: Option<String>,
    /// What they are sorted by; equal ones by their names.
    pub by: RoomsBy,
    /// The greatest, the oldest or the last first.
    pub descending: bool,
    /// How many of them are left out at the begin.
    pub offset: usize,
    /// How many are told at most.
    pub limit: usize,
}

/// A room and its load.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomLoad {
    /// Its name.
    #[schema(value_type = String)]
    pub room_id: RoomId,
    /// How many peers it has.
    pub peers: usize,
    /// How many producers it has.
    pub producers: usize,
    /// How many consumers it has.
    pub consumers: usize,
    /// How long it has been there.
    pub age_seconds: u64,
    /// Where its transports live; where it began while there are none.
    #[schema(value_type = Vec<u16>)]
    pub shards: BTreeSet<ShardId>,
    /// What its peers send, in bits/s; absent for a room of very many transports, and when shards
    /// take long to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recv_bitrate: Option<u64>,
    /// What its peers are sent, in bits/s; absent as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_bitrate: Option<u64>,
}

/// A part of the rooms.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RoomsOverview {
    /// In the order that was asked for.
    pub rooms: Vec<RoomLoad>,
    /// How many there are of which these are a part.
    pub total: usize,
}

/// A room among those that are sorted.
struct Candidate<'a> {
    key: u64,
    id: &'a RoomId,
    room: &'a Room,
}

impl Control {
    /// The rooms that are wanted with their load, at most [`OVERVIEW_ROOMS_MAX`].
    pub async fn rooms_overview(&self, query: &RoomsQuery) -> RoomsOverview {
        let (mut overview, transports) = self.inner.state.with(|state| {
            let registry = &state.registry;
            let (page, total) = found(registry, query, |room| self.key(registry, query.by, room));
            let mut budget = OVERVIEW_CALLS_MAX;
            let mut rooms = Vec::new();
            let mut transports = Vec::new();
            for (place, Candidate { id, room, .. }) in page.into_iter().enumerate() {
                rooms.push(load_of(registry, id, room));
                let of_room = room.peers.values().flat_map(|peer| &peer.transports);
                let of_room: Vec<TransportId> = of_room.copied().take(budget + 1).collect();
                if of_room.len() <= budget {
                    budget -= of_room.len();
                    transports.push((place, of_room));
                }
            }
            (RoomsOverview { rooms, total }, transports)
        });
        let bitrates = self.bitrates(transports);
        if let Ok(bitrates) = tokio::time::timeout(OVERVIEW_PATIENCE, bitrates).await {
            for (place, (recv, send)) in bitrates {
                if let Some(room) = overview.rooms.get_mut(place) {
                    (room.recv_bitrate, room.send_bitrate) = (Some(recv), Some(send));
                }
            }
        }
        overview
    }

    fn key(&self, registry: &Registry, by: RoomsBy, room: &Room) -> u64 {
        let count = match by {
            RoomsBy::Name => 0,
            RoomsBy::Peers => room.peers.values().filter(|peer| peer.joined).count(),
            RoomsBy::Producers => room.producers().count(),
            RoomsBy::Consumers => registry.consumers_in(room),
            RoomsBy::Age => {
                let age = now().saturating_duration_since(room.created);
                return u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
            }
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// What is received and sent over these transports, by the place of their room. One that is gone
    /// or does not answer counts nothing.
    async fn bitrates(
        &self,
        transports: Vec<(usize, Vec<TransportId>)>,
    ) -> HashMap<usize, (u64, u64)> {
        let mut sums: HashMap<usize, (u64, u64)> =
            transports.iter().map(|(place, _)| (*place, (0, 0))).collect();
        let apart = transports.into_iter().flat_map(|(place, of_room)| {
            of_room.into_iter().map(move |transport| (place, transport))
        });
        let apart: Vec<(usize, TransportId)> = apart.collect();
        let asked = stream::iter(apart).map(|(place, transport)| self.bitrate(place, transport));
        let mut told = std::pin::pin!(asked.buffer_unordered(ROOM_STATS_CALLS_MAX));
        while let Some((place, recv, send)) = told.next().await {
            let (all_recv, all_send) = sums.entry(place).or_default();
            *all_recv += recv;
            *all_send += send;
        }
        sums
    }

    async fn bitrate(&self, place: usize, transport: TransportId) -> (usize, u64, u64) {
        let _turn = self.inner.stats_turns.acquire().await;
        let told = self.transport_stats(transport).await;
        told.map_or((place, 0, 0), |told| {
            (place, told.traffic.recv_bitrate, told.traffic.send_bitrate)
        })
    }
}

/// The wanted page, sorted, and of how many it is a part.
fn found<'a>(
    registry: &'a Registry,
    query: &RoomsQuery,
    key: impl Fn(&Room) -> u64,
) -> (Vec<Candidate<'a>>, usize) {
    let wanted = query.contains.as_deref().map(str::to_lowercase);
    let matches = |id: &RoomId| {
        wanted.as_deref().is_none_or(|part| id.as_str().to_lowercase().contains(part))
    };
    let rooms = registry.rooms().filter(|(id, _)| matches(id));
    let mut all: Vec<Candidate<'a>> =
        rooms.map(|(id, room)| Candidate { key: key(room), id, room }).collect();
    let total = all.len();
    let order = |a: &Candidate<'_>, b: &Candidate<'_>| -> Ordering {
        let keys = a.key.cmp(&b.key).then_with(|| match query.by {
            RoomsBy::Name => a.id.cmp(b.id),
            _ => Ordering::Equal,
        });
        let keys = if query.descending { keys.reverse() } else { keys };
        keys.then_with(|| a.id.cmp(b.id))
    };
    let end = query.offset.saturating_add(query.limit.clamp(1, OVERVIEW_ROOMS_MAX));
    if end < total {
        // Only what is told has to be in order.
        all.select_nth_unstable_by(end, order);
        all.truncate(end);
    }
    all.sort_unstable_by(order);
    all.drain(..query.offset.min(all.len()));
    (all, total)
}

fn load_of(registry: &Registry, id: &RoomId, room: &Room) -> RoomLoad {
    let shards = room.shards();
    RoomLoad {
        room_id: id.clone(),
        peers: room.peers.values().filter(|peer| peer.joined).count(),
        producers: room.producers().count(),
        consumers: registry.consumers_in(room),
        age_seconds: now().saturating_duration_since(room.created).as_secs(),
        shards: if shards.is_empty() { BTreeSet::from([room.shard]) } else { shards },
        recv_bitrate: None,
        send_bitrate: None,
    }
}
