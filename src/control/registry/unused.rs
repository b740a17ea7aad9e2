//! Transports that nobody uses: made, and never connected.
//!
//! A client of mediasoup's makes its transports when it joins, and connects each with its first
//! producer or consumer: who is alone in a room, or only listens, has one that waits. So it stays for
//! as long as its peer uses another, and for [`UNUSED_TRANSPORT_MAX`] in any case; but it must neither
//! keep others out nor hold up a drain, nor keep a peer in its room whose client was lost. From the
//! moment its client is told to connect its shard looks after it.

use std::time::Instant;

use super::{Effects, Registry, Transport};
use crate::control::command::{CloseReason, IceState};
use crate::id::{PeerId, RoomId, TransportId};
use crate::limits::{CONNECT_TIMEOUT, Limit, TRANSPORTS_PER_SHARD_MAX, UNUSED_TRANSPORT_MAX};

impl Transport {
    /// True as long as its client was not told to come: what comes nevertheless is of no use.
    fn is_unused(&self) -> bool {
        !self.expects && self.session.is_none()
    }
}

impl Registry {
    /// Closes the transports that were unused for too long; `hurries` while the node drains.
    pub fn close_unused(&mut self, now: Instant, hurries: bool) -> Effects {
        let given_up = |transport: &Transport| {
            let since = transport.since.filter(|_| transport.ready && transport.is_unused());
            let age = since.map(|since| now.saturating_duration_since(since)).unwrap_or_default();
            let is_long =
                hurries || age >= UNUSED_TRANSPORT_MAX || self.is_crowded(&transport.room);
            age >= CONNECT_TIMEOUT
                && ((is_long && !self.uses_another(transport)) || self.is_scarce(transport))
        };
        let all = self.transports.iter();
        let given_up: Vec<_> =
            all.filter(|(_, transport)| given_up(transport)).map(|(id, _)| *id).collect();
        let mut effects = Effects::default();
        for id in given_up {
            let closed = self.close_transport(id, CloseReason::NeverConnected.label(), now);
            effects.append(closed.unwrap_or_default());
        }
        effects
    }

    /// The client of a transport was lost. One that nobody uses is no sign that its peer is still
    /// there: without any other, the peer has its grace to come back.
    pub fn note_lost(&mut self, room: &RoomId, peer: &PeerId, now: Instant) {
        let peer = self.rooms.get_mut(room).and_then(|room| room.peers.get_mut(peer));
        let Some(peer) = peer else { return };
        let mut left = peer.transports.iter().filter_map(|id| self.transports.get(id));
        if left.all(Transport::is_unused) {
            peer.idle_since.get_or_insert(now);
        }
    }

    /// The shard looks after a transport's client since `asked`: only from then on it may come, and
    /// its peer is there.
    pub fn expect_client(&mut self, id: TransportId, asked: Instant) {
        let Some(transport) = self.transports.get_mut(&id) else { return };
        transport.expects = true;
        if transport.ice == IceState::New {
            transport.since = Some(asked);
        }
        let room = self.rooms.get_mut(&transport.room);
        if let Some(peer) = room.and_then(|room| room.peers.get_mut(&transport.peer)) {
            peer.idle_since = None;
        }
    }

    /// True when the peer of an unused transport has one that it uses.
    fn uses_another(&self, unused: &Transport) -> bool {
        let peer = self.rooms.get(&unused.room).and_then(|room| room.peers.get(&unused.peer));
        let transports = peer.into_iter().flat_map(|peer| &peer.transports);
        transports.filter_map(|id| self.transports.get(id)).any(|it| !it.is_unused())
    }

    /// True when a peer that uses nothing may keep others out: a limit that it counts for is reached.
    fn is_crowded(&self, room: &RoomId) -> bool {
        let peers = self.rooms.get(room).map_or(0, |room| room.peers.len());
        self.limits.check(Limit::RoomPeers, peers).is_err()
            || self.limits.check(Limit::Peers, self.peers).is_err()
            || self.limits.check(Limit::Rooms, self.rooms.len()).is_err()
    }

    /// True when it may keep others out itself: a limit that it counts for is reached.
    fn is_scarce(&self, unused: &Transport) -> bool {
        let room = self.rooms.get(&unused.room);
        let of_room = room.map_or(0, |room| room.transports.values().sum());
        let peer = room.and_then(|room| room.peers.get(&unused.peer));
        let of_peer = peer.map_or(0, |peer| peer.transports.len());
        self.census(unused.shard).transports >= TRANSPORTS_PER_SHARD_MAX
            || self.limits.check(Limit::Transports, self.transports.len()).is_err()
            || self.limits.check(Limit::RoomTransports, of_room).is_err()
            || self.limits.check(Limit::PeerTransports, of_peer).is_err()
    }
}
