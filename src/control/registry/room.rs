//! Rooms: they begin on request and end with their last peer, on request, or unused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Close, Effects, Peer, Registry};
use crate::control::ControlError;
use crate::control::speakers::Speakers;
use crate::events::RoomEvent;
use crate::id::{PeerId, ProducerId, RoomId, ShardId};
use crate::limits::{Limit, ROOM_GRACE};

/// A call.
#[derive(Debug)]
pub struct Room {
    /// Where it started; its transports may live elsewhere.
    pub shard: ShardId,
    /// When it was made.
    pub created: Instant,
    /// Its peers, by name; some may still be waiting for their first transport.
    pub peers: BTreeMap<PeerId, Peer>,
    /// Its transports on each shard, also those still being made.
    pub(super) transports: BTreeMap<ShardId, usize>,
    /// Its producers in order of their making, also those still being made.
    pub(super) producers: BTreeMap<u64, ProducerId>,
    /// How many consumers its peers have, also those still being made.
    pub(super) consumers: usize,
    /// Who is heard in it.
    pub(super) speakers: Speakers,
    /// Since when nobody is in it.
    pub(super) empty_since: Option<Instant>,
}

impl Room {
    /// Its producers in order of their making, also those still being made.
    pub fn producers(&self) -> impl Iterator<Item = ProducerId> {
        self.producers.values().copied()
    }

    /// Who spoke last.
    #[must_use]
    pub fn speaker(&self) -> Option<ProducerId> {
        self.speakers.dominant()
    }

    /// Where its transports live, also those still being made.
    #[must_use]
    pub fn shards(&self) -> BTreeSet<ShardId> {
        let some = self.transports.iter().filter(|(_, count)| **count > 0);
        some.map(|(shard, _)| *shard).collect()
    }

    /// How many of its transports live on a shard, also those still being made.
    #[must_use]
    pub fn transports_on(&self, shard: ShardId) -> usize {
        self.transports.get(&shard).copied().unwrap_or_default()
    }
}

impl Registry {
    /// Makes a room that does not exist yet.
    ///
    /// # Errors
    /// [`ControlError::LimitReached`] when the node has its most rooms.
    pub fn add_room(
        &mut self,
        id: &RoomId,
        shard: ShardId,
        initiator: Option<PeerId>,
        now: Instant,
    ) -> Result<Effects, ControlError> {
        self.limits.check(Limit::Rooms, self.rooms.len())?;
        let room = Room {
            shard,
            created: now,
            peers: BTreeMap::new(),
            transports: BTreeMap::new(),
            producers: BTreeMap::new(),
            consumers: 0,
            speakers: Speakers::default(),
            empty_since: Some(now),
        };
        self.rooms.insert(id.clone(), room);
        self.census_mut(shard).rooms += 1;
        Ok(Effects::event(id, shard, RoomEvent::RoomCreated { initiator }))
    }

    /// How many consumers a room's transports have, also those still being made.
    #[must_use]
    pub fn consumers_in(&self, room: &Room) -> usize {
        let transports = room.peers.values().flat_map(|peer| &peer.transports);
        let known = transports.filter_map(|id| self.transports.get(id));
        known.map(|transport| transport.consumers.len()).sum()
    }

    /// True when there is a room of that name. One without peers gets its whole grace again:
    /// whoever asks for it is about to come.
    pub fn renew_room(&mut self, id: &RoomId, now: Instant) -> bool {
        let Some(room) = self.rooms.get_mut(id) else {
            return false;
        };
        room.empty_since = room.empty_since.map(|_| now);
        true
    }

    /// Ends a room with everything in it; only `room-closed` is told, the rest follows from it.
    ///
    /// # Errors
    /// [`ControlError::RoomNotFound`].
    pub fn close_room(
        &mut self,
        id: &RoomId,
        reason: &'static str,
    ) -> Result<Effects, ControlError> {
        let room = self.rooms.remove(id).ok_or(ControlError::RoomNotFound)?;
        self.census_mut(room.shard).rooms -= 1;
        let mut effects = Effects::event(id, room.shard, RoomEvent::RoomClosed { reason });
        for producer in room.producers() {
            if let Some(gone) = self.take_producer(producer) {
                effects.closes.extend(gone.mirror_closes(producer));
            }
        }
        for peer in room.peers.into_values() {
            self.peers -= 1;
            for transport in peer.transports {
                if let Some(gone) = self.transports.remove(&transport) {
                    for consumer in gone.consumers {
                        self.take_consumer(consumer);
                    }
                    self.census_mut(gone.shard).transports -= 1;
                    effects.closes.push((gone.shard, Close::Transport(transport)));
                }
            }
        }
        Ok(effects)
    }

    /// Ends the room if nobody is left in it.
    pub(super) fn close_room_if_empty(&mut self, id: &RoomId) -> Effects {
        match self.rooms.get(id) {
            Some(room) if room.peers.is_empty() => self.close_room(id, "empty").unwrap_or_default(),
            _ => Effects::default(),
        }
    }

    /// Ends rooms that have been without peers, lets peers leave that have been without transports,
    /// and ends viewers' sessions that have been without anything to play, for longer than their
    /// grace.
    pub fn expire(&mut self, now: Instant) -> Effects {
        let mut effects = self.end_spent_sessions(now);
        let idle: Vec<_> = self
            .rooms
            .iter()
            .flat_map(|(room, members)| members.peers.iter().map(move |peer| (room, peer)))
            .filter(|(_, (_, peer))| peer.is_expired(now))
            .map(|(room, (peer, _))| (room.clone(), peer.clone()))
            .collect();
        for (room, peer) in idle {
            effects.append(self.leave(&room, &peer, "idle").unwrap_or_default());
        }
        let unused: Vec<_> = self
            .rooms
            .iter()
            .filter(|(_, room)| {
                room.peers.is_empty()
                    && room
                        .empty_since
                        .is_some_and(|since| now.saturating_duration_since(since) >= ROOM_GRACE)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in unused {
            effects.append(self.close_room(&id, "idle").unwrap_or_default());
        }
        effects
    }
}
