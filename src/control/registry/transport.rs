//! Transports: reserved, then made by their shard, then closed with all they carry.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::time::Instant;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Close, Effects, Happening, Peer, Registry};
use crate::control::ControlError;
use crate::control::command::{DtlsState, IceState};
use crate::events::RoomEvent;
use crate::id::{ConsumerId, PeerId, ProducerId, RoomId, ShardId, TransportId};
use crate::limits::{Limit, WHEP_GRACE};
use crate::sdp::Session;

/// What the client means to do with a transport; information only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The client sends.
    Send,
    /// The client receives.
    Recv,
}

/// Which way the media of an SDP session flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SdpProtocol {
    /// The client publishes (RFC 9725).
    Whip,
    /// The client plays (draft-ietf-wish-whep).
    Whep,
}

/// A WHIP or WHEP session, which is one transport.
#[derive(Debug, Clone)]
pub struct SdpSession {
    /// By which of them it was made.
    pub protocol: SdpProtocol,
    /// What names its present ICE session, for `If-Match`: our user name fragment.
    pub tag: String,
    /// What its fragments are made of.
    pub sdp: Session,
    /// Since when it is known to play nothing. SDP cannot bring it anything else.
    pub spent_since: Option<Instant>,
}

impl SdpSession {
    /// True when it has played nothing for longer than its grace, as far as `expire` has looked.
    fn is_spent(&mut self, plays: bool, now: Instant) -> bool {
        if plays || self.protocol == SdpProtocol::Whip {
            self.spent_since = None;
            return false;
        }
        let since = *self.spent_since.get_or_insert(now);
        now.saturating_duration_since(since) >= WHEP_GRACE
    }
}

/// A transport to reserve.
#[derive(Debug, Clone)]
pub struct NewTransport {
    /// Where.
    pub room: RoomId,
    /// For whom; joins the room if it is new there.
    pub peer: PeerId,
    /// What the client means to do with it.
    pub direction: Direction,
}

/// Mids are decimal numbers of at most 8 digits: the header extension has 8 bytes.
const MID_MAX: u32 = 99_999_999;

/// One ICE and DTLS association with a client.
#[derive(Debug)]
pub struct Transport {
    /// Whose room.
    pub room: RoomId,
    /// Whose.
    pub peer: PeerId,
    /// Where it lives.
    pub shard: ShardId,
    /// What the client means to do with it.
    pub direction: Direction,
    /// Its shard has made it.
    pub ready: bool,
    /// Its shard was told whom to expect.
    pub expects: bool,
    /// ICE as its shard last told.
    pub ice: IceState,
    /// DTLS as its shard last told.
    pub dtls: DtlsState,
    /// The client's selected address, and whether it is TCP.
    pub remote: Option<(SocketAddr, bool)>,
    /// The CNAME of all its producers: the first one given, or made.
    pub cname: Option<String>,
    /// When the present stage of joining began: it was made, reached, or keyed.
    pub since: Option<Instant>,
    /// What it was made by, where that was an SDP offer.
    pub session: Option<SdpSession>,
    pub(super) next_mid: u32,
    pub(super) ssrcs: HashSet<u32>,
    pub(super) producers: BTreeSet<ProducerId>,
    pub(super) consumers: BTreeSet<ConsumerId>,
}

impl Transport {
    /// What arrives over it, also what is still being made.
    pub fn producers(&self) -> impl Iterator<Item = ProducerId> {
        self.producers.iter().copied()
    }

    /// What is sent over it, also what is still being made.
    pub fn consumers(&self) -> impl Iterator<Item = ConsumerId> {
        self.consumers.iter().copied()
    }

    /// The next consumer's mid, in `0..=99999999` and then from 0 again.
    pub fn take_mid(&mut self) -> String {
        let mid = self.next_mid;
        self.next_mid = if mid >= MID_MAX { 0 } else { mid + 1 };
        mid.to_string()
    }

    /// True when no consumer of this transport is sent with `ssrc`.
    #[must_use]
    pub fn is_ssrc_free(&self, ssrc: u32) -> bool {
        !self.ssrcs.contains(&ssrc)
    }
}

impl Registry {
    /// Reserves a transport's place on a shard, and its peer's in the room if it has none yet.
    ///
    /// # Errors
    /// [`ControlError::RoomNotFound`], [`ControlError::LimitReached`].
    pub fn reserve_transport(
        &mut self,
        id: TransportId,
        new: NewTransport,
        shard: ShardId,
    ) -> Result<(), ControlError> {
        let room = self.rooms.get_mut(&new.room).ok_or(ControlError::RoomNotFound)?;
        let limits = &self.limits;
        match room.peers.get(&new.peer) {
            Some(peer) => limits.check(Limit::PeerTransports, peer.transports.len())?,
            None => {
                limits.check(Limit::RoomPeers, room.peers.len())?;
                limits.check(Limit::Peers, self.peers)?;
            }
        }
        limits.check(Limit::RoomTransports, room.transports.values().sum())?;
        limits.check(Limit::Transports, self.transports.len())?;
        let peer = room.peers.entry(new.peer.clone()).or_insert_with(|| {
            self.peers += 1;
            Peer::default()
        });
        peer.transports.insert(id);
        peer.idle_since = None;
        room.empty_since = None;
        *room.transports.entry(shard).or_default() += 1;
        let NewTransport { room, peer, direction } = new;
        let transport = Transport {
            room,
            peer,
            shard,
            direction,
            ready: false,
            expects: false,
            ice: IceState::New,
            dtls: DtlsState::New,
            remote: None,
            cname: None,
            since: None,
            session: None,
            next_mid: 0,
            ssrcs: HashSet::new(),
            producers: BTreeSet::new(),
            consumers: BTreeSet::new(),
        };
        self.transports.insert(id, transport);
        self.census_mut(shard).transports += 1;
        Ok(())
    }

    /// The shard has made it: the peer joins with its first one.
    ///
    /// # Errors
    /// [`ControlError::PeerNotFound`] when the peer left in between.
    pub fn commit_transport(&mut self, id: TransportId) -> Result<Effects, ControlError> {
        let transport = self.transports.get_mut(&id).ok_or(ControlError::PeerNotFound)?;
        transport.ready = true;
        let peer = self
            .rooms
            .get_mut(&transport.room)
            .and_then(|room| room.peers.get_mut(&transport.peer))
            .ok_or(ControlError::PeerNotFound)?;
        if std::mem::replace(&mut peer.joined, true) {
            return Ok(Effects::default());
        }
        let event = RoomEvent::PeerJoined { peer: transport.peer.clone() };
        Ok(Effects::event(&transport.room, transport.shard, event))
    }

    /// Takes back a reservation that its shard refused. A peer that never joined is forgotten.
    pub fn abandon_transport(&mut self, id: TransportId, now: Instant) {
        let Some(transport) = self.transports.remove(&id) else {
            return;
        };
        self.count_out(&transport.room, transport.shard);
        self.detach_from_peer(&transport.room, &transport.peer, id, now);
        let Some(room) = self.rooms.get_mut(&transport.room) else {
            return;
        };
        let unseen = room
            .peers
            .get(&transport.peer)
            .is_some_and(|peer| !peer.joined && peer.transports.is_empty());
        if unseen {
            room.peers.remove(&transport.peer);
            self.peers -= 1;
            if room.peers.is_empty() {
                room.empty_since = Some(now);
            }
        }
    }

    /// Closes a transport with all it carries, and tells its shard.
    ///
    /// # Errors
    /// [`ControlError::TransportNotFound`].
    pub fn close_transport(
        &mut self,
        id: TransportId,
        reason: &'static str,
        now: Instant,
    ) -> Result<Effects, ControlError> {
        let transport = self.transports.get(&id).ok_or(ControlError::TransportNotFound)?;
        let (room, peer) = (transport.room.clone(), transport.peer.clone());
        self.detach_from_peer(&room, &peer, id, now);
        Ok(self.drop_transport(id, reason))
    }

    /// Ends sessions of viewers whom nothing is left to play; who has nothing else leaves.
    pub(super) fn end_spent_sessions(&mut self, now: Instant) -> Effects {
        let spent = |transport: &mut Transport| {
            let plays = !transport.consumers.is_empty();
            transport.session.as_mut().is_some_and(|session| session.is_spent(plays, now))
        };
        let spent: Vec<_> = self
            .transports
            .iter_mut()
            .filter_map(|(id, transport)| spent(transport).then_some(*id))
            .collect();
        let mut effects = Effects::default();
        for id in spent {
            let Some(transport) = self.transports.get(&id) else { continue };
            let (room, peer) = (transport.room.clone(), transport.peer.clone());
            effects.append(self.close_transport(id, "idle", now).unwrap_or_default());
            effects.append(self.leave_if_idle(&room, &peer));
        }
        effects
    }

    /// Takes a transport out with all it carries; the peer's own set is the caller's business.
    pub(super) fn drop_transport(&mut self, id: TransportId, reason: &'static str) -> Effects {
        let Some(transport) = self.transports.remove(&id) else {
            return Effects::default();
        };
        self.count_out(&transport.room, transport.shard);
        let mut effects = Effects::default();
        for consumer in &transport.consumers {
            self.forget_consumer(*consumer);
        }
        for producer in &transport.producers {
            effects.append(self.drop_producer(*producer, "transport_closed"));
        }
        // Closing a transport closes what it carries on its shard; mirrors are elsewhere.
        effects.closes.retain(|(shard, _)| *shard != transport.shard);
        effects.closes.push((transport.shard, Close::Transport(id)));
        if transport.ready {
            let Transport { room, peer, shard, .. } = transport;
            let event = RoomEvent::TransportClosed { transport: id, peer, reason };
            effects.events.push(Happening { room, shard, event });
        }
        effects
    }

    /// Counts one transport less on a shard, of its room too if that is still there.
    fn count_out(&mut self, room: &RoomId, shard: ShardId) {
        self.census_mut(shard).transports -= 1;
        let Some(room) = self.rooms.get_mut(room) else {
            return;
        };
        if let Some(count) = room.transports.get_mut(&shard) {
            *count -= 1;
        }
        room.transports.retain(|_, count| *count > 0);
    }

    fn detach_from_peer(&mut self, room: &RoomId, peer: &PeerId, id: TransportId, now: Instant) {
        let peer = self.rooms.get_mut(room).and_then(|room| room.peers.get_mut(peer));
        if let Some(peer) = peer {
            peer.transports.remove(&id);
            if peer.transports.is_empty() {
                peer.idle_since = Some(now);
            }
        }
    }

    /// A transport to change, made or still being made.
    pub fn transport_mut(&mut self, id: TransportId) -> Option<&mut Transport> {
        self.transports.get_mut(&id)
    }
}
