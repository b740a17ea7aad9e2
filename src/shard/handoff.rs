//! Datagrams that the kernel gave to the wrong shard, and how they reach the right one.
//!
//! The kernel spreads clients over the shards' sockets by a hash of addresses; a STUN request names
//! its owner in the ufrag. Each shard owns one [`Handoff`], used on its thread. A STUN request for
//! another shard is copied into that shard's lane; when ICE there has validated the address, the
//! owner answers with a claim, and from then on this shard hands over everything from that path.
//!
//! Invariants: only an owner's claim enters the map, so strangers can neither fill it nor evict
//! from it; it is bounded, and what is idle is forgotten; strangers fill half of a lane at most; no
//! allocation per datagram. It does not decide who owns what: the machine does.

use std::collections::HashMap;
use std::net::TcpStream;
use std::time::Instant;

use crate::engine::io::{Path, Received};
use crate::id::ShardId;
use crate::lane::LaneSender;
use crate::limits::{HANDOFF_BYTES_MAX, HANDOFF_PATH_IDLE, HANDOFF_PATHS_MAX};

/// Reads the owning shard out of a STUN request's ufrag; `None` when it names none.
pub type StunOwner = fn(&[u8]) -> Option<ShardId>;

/// A datagram on its way to the shard that owns it.
pub(crate) struct Misdirected {
    /// Who received it.
    pub(crate) from: ShardId,
    path: Path,
    arrival: Instant,
    len: u16,
    bytes: [u8; HANDOFF_BYTES_MAX],
}

impl Misdirected {
    fn new(from: ShardId, received: &Received<'_>) -> Option<Self> {
        let mut bytes = [0; HANDOFF_BYTES_MAX];
        bytes.get_mut(..received.bytes.len())?.copy_from_slice(received.bytes);
        let len = u16::try_from(received.bytes.len()).ok()?;
        Some(Self { from, path: received.path, arrival: received.arrival, len, bytes })
    }

    /// The datagram as it arrived.
    pub(crate) fn received(&self) -> Received<'_> {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        Received { path: self.path, arrival: self.arrival, bytes }
    }
}

/// What shards tell each other about paths.
pub(crate) enum Note {
    /// `owner` has validated the path: hand over all that comes from it.
    Claim {
        /// The path.
        path: Path,
        /// The shard to hand to.
        owner: ShardId,
    },
    /// `owner` does not (any longer) own the path.
    Disown {
        /// The path.
        path: Path,
        /// The shard that says so.
        owner: ShardId,
    },
    /// An ICE-TCP connection whose first frame names the receiver of this note.
    Connection(Box<Adoption>),
}

/// A connection that changes shards with the bytes already read from it.
pub(crate) struct Adoption {
    /// The connection, non-blocking.
    pub(crate) stream: TcpStream,
    /// What was read: at least one whole frame.
    pub(crate) bytes: Vec<u8>,
}

/// The lanes into one other shard.
#[derive(Clone)]
pub(crate) struct ShardPeer {
    /// Misdirected datagrams.
    pub(crate) datagrams: LaneSender<Misdirected>,
    /// Claims, disclaims, connections.
    pub(crate) notes: LaneSender<Note>,
}

/// What a shard knows of paths that other shards own, and its lanes to them.
pub(crate) struct Handoff {
    shard: ShardId,
    peers: Vec<ShardPeer>,
    stun_owner: StunOwner,
    owners: HashMap<Path, Remembered>,
    /// Peers that were sent something since the last [`wake_peers`](Self::wake_peers).
    to_wake: Vec<ShardId>,
    /// Datagrams handed off.
    pub(crate) handed_off: u64,
    /// Datagrams whose owner's lane had no room for them, or that were too long to be media.
    pub(crate) dropped: u64,
}

struct Remembered {
    owner: ShardId,
    heard: Instant,
}

/// First byte of STUN (RFC 7983).
fn is_stun(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| *first <= 3)
}

impl Handoff {
    /// For `shard`, with the lanes of all shards in order of their ids.
    pub(crate) fn new(shard: ShardId, peers: Vec<ShardPeer>, stun_owner: StunOwner) -> Self {
        Self {
            shard,
            peers,
            stun_owner,
            owners: HashMap::new(),
            to_wake: Vec::new(),
            handed_off: 0,
            dropped: 0,
        }
    }

    /// The shard named by a STUN request, when it is one of ours.
    pub(crate) fn named_by(&self, bytes: &[u8]) -> Option<ShardId> {
        (self.stun_owner)(bytes).filter(|owner| owner.index() < self.peers.len())
    }

    /// True when no datagram can be anybody else's.
    pub(crate) fn is_alone(&self) -> bool {
        self.peers.len() <= 1
    }

    /// The other shard that owns a datagram received here. `is_ours` tells whether the machine here
    /// has validated a path; it is asked only about remembered ones.
    pub(crate) fn owner_of(
        &mut self,
        now: Instant,
        received: &Received<'_>,
        is_ours: impl FnOnce(&Path) -> bool,
    ) -> Option<ShardId> {
        if is_stun(received.bytes) {
            // Never by the map: the client may be about to move to another shard's transport.
            return self.named_by(received.bytes).filter(|owner| *owner != self.shard);
        }
        if self.owners.is_empty() {
            return None;
        }
        let remembered = self.owners.get_mut(&received.path)?;
        if is_ours(&received.path) {
            self.owners.remove(&received.path);
            return None;
        }
        remembered.heard = now;
        Some(remembered.owner)
    }

    /// Copies a datagram into its owner's lane, or counts it as dropped.
    ///
    /// STUN may be anybody's until the owner has claimed the path that it came from, and a ufrag that
    /// names a shard costs nothing to make up: such requests leave half of the lane to clients that
    /// are known.
    pub(crate) fn hand_off(&mut self, owner: ShardId, received: &Received<'_>) {
        let claimed = |path| self.owners.get(path).is_some_and(|known| known.owner == owner);
        let may_be_anybodys = is_stun(received.bytes) && !claimed(&received.path);
        let lane = self.peers.get(owner.index()).map(|peer| &peer.datagrams);
        let lane = lane.filter(|lane| !may_be_anybodys || lane.has_much_room());
        let misdirected = Misdirected::new(self.shard, received);
        let pushed = lane.zip(misdirected).is_some_and(|(lane, item)| lane.push(item).is_ok());
        if pushed {
            self.handed_off += 1;
            self.note_wake(owner);
        } else {
            self.dropped += 1;
        }
    }

    /// Answers for a datagram taken over: claims its path after a STUN request, disclaims it when
    /// other traffic comes from a path that is not ours.
    pub(crate) fn answer(&mut self, taken: &Misdirected, is_ours: bool) {
        let (path, owner) = (taken.path, self.shard);
        let note = match (is_stun(taken.received().bytes), is_ours) {
            (true, true) => Note::Claim { path, owner },
            (false, false) => Note::Disown { path, owner },
            _ => return,
        };
        // A lost note is made good by the next datagram of its kind.
        let _ = self.send_note(taken.from, note);
    }

    /// Sends a note to another shard.
    ///
    /// # Errors
    /// The note, when the lane is full.
    pub(crate) fn send_note(&mut self, to: ShardId, note: Note) -> Result<(), Note> {
        match self.peers.get(to.index()) {
            Some(peer) => peer.notes.push(note)?,
            None => return Err(note),
        }
        self.note_wake(to);
        Ok(())
    }

    /// Claims a path from every other shard: one that the kernel should steer here and cannot. STUN
    /// is steered all the same, so none of them would ever hand one over and be told.
    pub(crate) fn claim_from_all(&mut self, path: Path) {
        let (peers, owner) = (u16::try_from(self.peers.len()).unwrap_or(u16::MAX), self.shard);
        for shard in (0..peers).map(ShardId).filter(|shard| *shard != owner) {
            // A lost note is made good by the next try.
            let _ = self.send_note(shard, Note::Claim { path, owner });
        }
    }

    /// Remembers a claim; the newest wins. A full map refuses: its members are all alive.
    pub(crate) fn claimed(&mut self, now: Instant, path: Path, owner: ShardId) {
        if owner != self.shard
            && (self.owners.len() < HANDOFF_PATHS_MAX || self.owners.contains_key(&path))
        {
            self.owners.insert(path, Remembered { owner, heard: now });
        }
    }

    /// Forgets a path if it is remembered as `owner`'s.
    pub(crate) fn disowned(&mut self, path: &Path, owner: ShardId) {
        if self.owners.get(path).is_some_and(|remembered| remembered.owner == owner) {
            self.owners.remove(path);
        }
    }

    /// Forgets paths that are idle.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.owners.retain(|_, remembered| {
            now.saturating_duration_since(remembered.heard) < HANDOFF_PATH_IDLE
        });
    }

    /// Wakes the shards that something was sent to, once each.
    pub(crate) fn wake_peers(&mut self) {
        for shard in self.to_wake.drain(..) {
            if let Some(peer) = self.peers.get(shard.index()) {
                peer.notes.wake();
            }
        }
    }

    fn note_wake(&mut self, shard: ShardId) {
        if !self.to_wake.contains(&shard) {
            self.to_wake.push(shard);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use super::*;
    use crate::engine::io::Protocol;
    use crate::lane::{LaneReceiver, Waker, lane};
    use crate::limits::HANDOFF_LANE_CAPACITY;

    const HERE: ShardId = ShardId(0);
    const THERE: ShardId = ShardId(1);
    const ELSEWHERE: ShardId = ShardId(2);

    /// STUN whose second byte names the owner.
    fn second_byte(bytes: &[u8]) -> Option<ShardId> {
        bytes.get(1).map(|owner| ShardId(u16::from(*owner)))
    }

    fn path(port: u16) -> Path {
        Path {
            protocol: Protocol::Udp,
            remote: SocketAddr::from(([192, 0, 2, 1], port)),
            local: IpAddr::from([127, 0, 0, 1]),
        }
    }

    fn clock() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
        Instant::now()
    }

    type Ends = (LaneReceiver<Misdirected>, LaneReceiver<Note>);

    fn handoff() -> (Handoff, Vec<Ends>) {
        let waker = Waker::new().unwrap();
        let (peers, ends) = (0..3)
            .map(|_| {
                let (datagrams, datagrams_end) = lane(4, &waker);
                let (notes, notes_end) = lane(4, &waker);
                (ShardPeer { datagrams, notes }, (datagrams_end, notes_end))
            })
            .unzip();
        (Handoff::new(HERE, peers, second_byte), ends)
    }

    fn owner(handoff: &mut Handoff, now: Instant, port: u16, bytes: &[u8]) -> Option<ShardId> {
        handoff.owner_of(now, &Received { path: path(port), arrival: now, bytes }, |_| false)
    }

    #[test]
    fn stun_goes_where_its_ufrag_says_and_all_else_where_it_was_claimed() {
        let (mut handoff, _ends) = handoff();
        let now = clock();
        let (stun, dtls) = ([0, 1], [22, 1]);
        assert_eq!(owner(&mut handoff, now, 5, &stun), Some(THERE));
        assert_eq!(owner(&mut handoff, now, 5, &[0, 0]), None, "our own");
        assert_eq!(owner(&mut handoff, now, 5, &[0, 200]), None, "no such shard: ours to refuse");
        assert_eq!(owner(&mut handoff, now, 5, &dtls), None, "not claimed yet");
        assert_eq!(owner(&mut handoff, now, 5, &[]), None);
        handoff.claimed(now, path(5), THERE);
        assert_eq!(owner(&mut handoff, now, 5, &dtls), Some(THERE));
        assert_eq!(owner(&mut handoff, now, 6, &dtls), None);
        handoff.claimed(now, path(5), ELSEWHERE);
        handoff.disowned(&path(5), THERE);
        assert_eq!(owner(&mut handoff, now, 5, &dtls), Some(ELSEWHERE), "the newest claim wins");
        handoff.disowned(&path(5), ELSEWHERE);
        assert_eq!(owner(&mut handoff, now, 5, &dtls), None);
    }

    #[test]
    fn a_path_validated_here_is_no_longer_handed_off() {
        let (mut handoff, _ends) = handoff();
        let now = clock();
        handoff.claimed(now, path(5), THERE);
        let received = Received { path: path(5), arrival: now, bytes: &[128] };
        assert_eq!(handoff.owner_of(now, &received, |_| true), None);
        assert_eq!(handoff.owner_of(now, &received, |_| false), None, "the claim is forgotten");
    }

    #[test]
    fn an_idle_path_is_forgotten_and_a_busy_one_is_not() {
        let (mut handoff, _ends) = handoff();
        let start = clock();
        handoff.claimed(start, path(5), THERE);
        handoff.claimed(start, path(6), THERE);
        let later = start + HANDOFF_PATH_IDLE - Duration::from_secs(1);
        assert_eq!(owner(&mut handoff, later, 6, &[128]), Some(THERE));
        handoff.expire(start + HANDOFF_PATH_IDLE);
        assert_eq!(owner(&mut handoff, later, 5, &[128]), None);
        assert_eq!(owner(&mut handoff, later, 6, &[128]), Some(THERE));
    }

    #[test]
    fn the_map_never_grows_beyond_its_bound() {
        let (mut handoff, _ends) = handoff();
        let now = clock();
        for n in 0..HANDOFF_PATHS_MAX + 10 {
            let mut path = path(u16::try_from(n % 60_000).unwrap());
            path.remote.set_ip(IpAddr::from([10, 0, 0, u8::try_from(n / 60_000).unwrap()]));
            handoff.claimed(now, path, THERE);
        }
        assert_eq!(handoff.owners.len(), HANDOFF_PATHS_MAX);
    }

    #[test]
    fn a_full_lane_and_an_overlong_datagram_are_counted() {
        let (mut handoff, ends) = handoff();
        let long = [128; HANDOFF_BYTES_MAX + 1];
        let arrival = clock();
        handoff.hand_off(THERE, &Received { path: path(5), arrival, bytes: &long });
        assert_eq!((handoff.handed_off, handoff.dropped), (0, 1));
        for n in 0..6 {
            handoff.hand_off(THERE, &Received { path: path(5), arrival, bytes: &[128, n] });
        }
        assert_eq!((handoff.handed_off, handoff.dropped), (4, 3));
        let first = ends[1].0.try_recv().unwrap();
        assert_eq!((first.from, first.received().bytes), (HERE, &[128, 0][..]));
        assert_eq!(first.received().arrival, arrival);
    }

    #[test]
    fn strangers_leave_half_of_a_lane_to_clients_that_are_known() {
        let (mut handoff, ends) = handoff();
        let arrival = clock();
        handoff.claimed(arrival, path(5), THERE);
        let mut hand = |port: u16, bytes: &[u8]| {
            handoff.hand_off(THERE, &Received { path: path(port), arrival, bytes });
            (handoff.handed_off, handoff.dropped)
        };
        for stranger in 100..110 {
            hand(stranger, &[0, 1]);
        }
        assert_eq!(hand(200, &[0, 1]), (2, 9), "half of four places");
        assert_eq!(hand(5, &[0, 1]), (3, 9), "a known client's check");
        assert_eq!(hand(5, &[128, 1]), (4, 9), "and its media");
        ends[1].0.try_recv().unwrap();
        assert_eq!(hand(201, &[0, 1]), (4, 10));
        for _ in 0..2 {
            ends[1].0.try_recv().unwrap();
        }
        assert_eq!(hand(201, &[0, 1]), (5, 10), "there is room again");
    }

    #[test]
    fn the_owner_claims_after_stun_and_disowns_what_it_does_not_know() {
        let (mut handoff, ends) = handoff();
        let taken = |bytes: &[u8]| {
            let received = Received { path: path(5), arrival: clock(), bytes };
            Misdirected::new(THERE, &received).unwrap()
        };
        let notes = &ends[THERE.index()].1;
        for (bytes, is_ours, expected) in [
            (&[0_u8, 0][..], true, "claim"),
            (&[0, 0], false, "nothing"),
            (&[128], true, "nothing"),
            (&[128], false, "disown"),
        ] {
            handoff.answer(&taken(bytes), is_ours);
            let told = match notes.try_recv() {
                Some(Note::Claim { owner: HERE, .. }) => "claim",
                Some(Note::Disown { owner: HERE, .. }) => "disown",
                Some(_) => "something else",
                None => "nothing",
            };
            assert_eq!(told, expected, "{bytes:?}, ours: {is_ours}");
        }
    }

    #[test]
    fn a_path_that_is_not_steered_is_claimed_from_every_other_shard() {
        let (mut handoff, ends) = handoff();
        handoff.claim_from_all(path(5));
        let claims = ends.iter().map(|(_, notes)| match notes.try_recv() {
            Some(Note::Claim { path: told, owner: HERE }) => told == path(5),
            _ => false,
        });
        assert_eq!(claims.collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn a_lane_of_misdirected_datagrams_stays_under_two_megabytes() {
        assert!(size_of::<Misdirected>() * HANDOFF_LANE_CAPACITY <= 2 * 1024 * 1024);
    }
}
