//! ICE as a lite agent: verifies and answers requests, selects the address, keeps consent.
//!
//! Owned by a [`Connection`](super::connection::Connection), on its shard's thread. It answers STUN
//! without help from the `Rtc`, so that the keep-alive of an idle transport costs two HMACs and no
//! walk over its 37 KiB.
//!
//! ```text
//!            verified            nominated
//!     New ───────────▶ Connected ─────────▶ Completed
//!                        ▲  │ last tuple gone   │
//!               verified │  ▼                   │
//!                     Disconnected ◀────────────┘
//! ```
//!
//! The rules are mediasoup's (always controlled; 400, 401 and 487; the highest NOMINATION wins),
//! with one more: a client behind a NAT that rebinds does not know that its address changed, and a
//! browser that renominates does not nominate again in its keep-alives. So the selection also
//! follows the client when the selected address fell silent and it is heard elsewhere.
//!
//! Deliberately not here: checks of our own (a lite agent sends none, so the client's password is
//! never needed), timers (the connection asks for [`IceLite::consent_until`]).

use std::time::Instant;

use rand::{CryptoRng, Rng};

use super::stun::{BindingRequest, ErrorCode, IntegrityKey, StunError, error, success};
use super::tuples::{TupleChanges, Tuples};
use crate::control::command::IceState;
use crate::engine::demux::Ufrag;
use crate::engine::io::Path;
use crate::engine::report::Discard;
use crate::limits::{CONSENT_TIMEOUT, FOLLOW_MEDIA_AFTER, FOLLOW_STUN_AFTER};

/// Characters of a password: 32 × 5 bits, above the 128 bits of RFC 8445 §5.3.
const PASSWORD_CHARS: usize = 32;

/// A user name fragment with its password.
#[derive(Clone)]
pub struct IceCredentials {
    ufrag: Ufrag,
    password: String,
    key: IntegrityKey,
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("IceCredentials").field(&self.ufrag).finish()
    }
}

impl IceCredentials {
    /// Credentials with a password drawn from `rng`.
    #[must_use]
    pub fn new<R: CryptoRng + ?Sized>(ufrag: Ufrag, rng: &mut R) -> Self {
        let password: String = (0..PASSWORD_CHARS).map(|_| Ufrag::char_of(rng.random())).collect();
        let key = IntegrityKey::new(&password);
        Self { ufrag, password, key }
    }

    /// The user name fragment.
    #[must_use]
    pub fn ufrag(&self) -> &Ufrag {
        &self.ufrag
    }

    /// The password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }
}

/// What became of a well-formed binding request.
#[derive(Debug)]
pub enum Verdict {
    /// It was authentic: its answer, and what it did.
    Accepted {
        /// The success response.
        answer: Vec<u8>,
        /// Addresses that came and went.
        changes: TupleChanges,
        /// State or selected address are not what they were.
        moved: bool,
    },
    /// It was refused: the error response.
    Refused(Vec<u8>),
}

/// The ICE-lite agent of one transport.
#[derive(Debug)]
pub struct IceLite {
    /// What the client was told last.
    current: IceCredentials,
    /// What it was told before, valid until it uses `current`.
    previous: Option<IceCredentials>,
    tuples: Tuples,
    /// The highest nomination seen (since the last restart).
    nomination: u32,
    state: IceState,
    consent_until: Option<Instant>,
}

impl IceLite {
    /// An agent that nobody has reached yet.
    #[must_use]
    pub fn new(credentials: IceCredentials) -> Self {
        Self {
            current: credentials,
            previous: None,
            tuples: Tuples::default(),
            nomination: 0,
            state: IceState::New,
            consent_until: None,
        }
    }

    /// What the client must use from now on.
    #[must_use]
    pub fn credentials(&self) -> &IceCredentials {
        &self.current
    }

    /// The state, in mediasoup's words.
    #[must_use]
    pub fn state(&self) -> IceState {
        self.state
    }

    /// Validated and selected addresses.
    #[must_use]
    pub fn tuples(&self) -> &Tuples {
        &self.tuples
    }

    /// When consent ends unless another request or media packet comes; `None` before the first.
    #[must_use]
    pub fn consent_until(&self) -> Option<Instant> {
        self.consent_until
    }

    /// Replaces the credentials. Those in use stay valid until the client uses the new ones; of
    /// several restarts that the client has not followed only the last counts.
    pub fn restart(&mut self, fresh: IceCredentials) {
        let replaced = std::mem::replace(&mut self.current, fresh);
        self.previous.get_or_insert(replaced);
    }

    /// Answers one binding request (RFC 8445 §7.3, mediasoup's checks in mediasoup's order).
    pub fn handle_request(
        &mut self,
        now: Instant,
        path: Path,
        bytes: &[u8],
    ) -> Result<Verdict, Discard> {
        let request = BindingRequest::parse(bytes).map_err(|error| match error {
            StunError::Malformed => Discard::StunMalformed,
            StunError::NotABindingRequest => Discard::StunUnexpected,
        })?;
        let refuse = |code, key| Verdict::Refused(error(&request.transaction, code, key));
        let complete = request.has_fingerprint
            && request.has_integrity()
            && request.local_ufrag().is_some()
            && request.priority != 0;
        if !complete {
            return Ok(refuse(ErrorCode::BadRequest, None));
        }
        let Some(credentials) = self.author(&request) else {
            return Ok(refuse(ErrorCode::Unauthorized, None));
        };
        if request.controlled {
            return Ok(refuse(ErrorCode::RoleConflict, Some(&credentials.key)));
        }
        let answer = success(&request.transaction, path.remote, &credentials.key);
        if self.previous.is_some() && credentials.ufrag == self.current.ufrag {
            self.previous = None;
            self.nomination = 0;
        }
        self.consent_until = now.checked_add(CONSENT_TIMEOUT);
        let (changes, moved) = self.verified(now, path, &request);
        Ok(Verdict::Accepted { answer, changes, moved })
    }

    /// The credentials that a request names and is signed with.
    fn author(&self, request: &BindingRequest<'_>) -> Option<&IceCredentials> {
        let named = request.local_ufrag()?;
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|c| c.ufrag.as_str() == named && request.is_signed_with(&c.key))
    }

    fn verified(
        &mut self,
        now: Instant,
        path: Path,
        request: &BindingRequest<'_>,
    ) -> (TupleChanges, bool) {
        let before = (self.state, self.tuples.selected());
        let silent = self.is_silent(now, FOLLOW_STUN_AFTER);
        let changes = self.tuples.verified(now, path);
        let nominates = match request.nomination {
            Some(nomination) => nomination > self.nomination,
            None => request.use_candidate,
        };
        if nominates {
            self.nomination = request.nomination.unwrap_or(self.nomination);
            self.tuples.select(path);
            self.state = IceState::Completed;
        } else if matches!(self.state, IceState::New | IceState::Disconnected) {
            self.tuples.select(path);
            self.state = IceState::Connected;
        } else if silent {
            self.tuples.select(path);
        }
        (changes, before != (self.state, self.tuples.selected()))
    }

    fn is_silent(&self, now: Instant, limit: std::time::Duration) -> bool {
        let heard = self.tuples.selected_heard();
        heard.is_none_or(|heard| now.saturating_duration_since(heard) >= limit)
    }

    /// Notes an authentic packet that is not STUN. `Ok(true)` when the selection followed it.
    pub fn handle_packet(&mut self, now: Instant, path: &Path) -> Result<bool, Discard> {
        let elsewhere = self.tuples.selected().as_ref() != Some(path);
        let silent = elsewhere && self.is_silent(now, FOLLOW_MEDIA_AFTER);
        if !self.tuples.heard(now, path) {
            return Err(Discard::UnknownAddress);
        }
        Ok(silent && self.tuples.select(*path))
    }

    /// Notes an authentic media packet, as [`handle_packet`](Self::handle_packet) does. Its sender is
    /// there and wants this call: some send no more requests once they have an address (FFmpeg up to
    /// 8.0; libnice, unless it is told to), and must not be cut off while they are heard.
    pub fn handle_media(&mut self, now: Instant, path: &Path) -> Result<bool, Discard> {
        let moved = self.handle_packet(now, path)?;
        self.consent_until = now.checked_add(CONSENT_TIMEOUT);
        Ok(moved)
    }

    /// Forgets an address whose TCP connection ended. `None` when it was not known, else whether
    /// state or selection changed.
    pub fn handle_path_closed(&mut self, path: &Path) -> Option<bool> {
        let before = (self.state, self.tuples.selected());
        if !self.tuples.remove(path) {
            return None;
        }
        if self.tuples.is_empty() {
            self.state = IceState::Disconnected;
        }
        Some(before != (self.state, self.tuples.selected()))
    }

    /// Consent ended: the client is gone.
    pub fn disconnect(&mut self) {
        self.state = IceState::Disconnected;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::stun::{RequestOptions, TransactionId, request};
    use super::*;
    use crate::engine::io::Protocol;
    use crate::id::ShardId;
    use crate::limits::TUPLES_PER_TRANSPORT_MAX;

    const TRANSACTION: TransactionId = [9; 12];

    fn path(port: u16) -> Path {
        Path {
            protocol: Protocol::Udp,
            remote: SocketAddr::from(([198, 51, 100, 1], port)),
            local: IpAddr::from([192, 0, 2, 1]),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "an anchor for virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn credentials(seed: u64) -> IceCredentials {
        let mut rng = StdRng::seed_from_u64(seed);
        let ufrag = Ufrag::new(ShardId(1), 2, 3, &mut rng);
        IceCredentials::new(ufrag, &mut rng)
    }

    /// A client that signs with what it was told, and the agent it talks to.
    struct Pair {
        ice: IceLite,
        now: Instant,
        told: IceCredentials,
    }

    impl Pair {
        fn new() -> Self {
            let told = credentials(1);
            Self { ice: IceLite::new(told.clone()), now: start(), told }
        }

        fn send(&mut self, port: u16, change: impl Fn(&mut RequestOptions<'_>)) -> Verdict {
            let username = format!("{}:them", self.told.ufrag().as_str());
            let mut options = RequestOptions {
                username: Some(&username),
                priority: Some(1),
                ..RequestOptions::default()
            };
            change(&mut options);
            let bytes = request(&TRANSACTION, &options, Some(&self.told.key));
            self.ice.handle_request(self.now, path(port), &bytes).unwrap()
        }

        /// Sends a request that must be accepted; what it did to state and selection.
        fn accepted(&mut self, port: u16, change: impl Fn(&mut RequestOptions<'_>)) -> bool {
            match self.send(port, change) {
                Verdict::Accepted { moved, .. } => moved,
                Verdict::Refused(_) => panic!("refused"),
            }
        }

        fn wait(&mut self, millis: u64) {
            self.now += Duration::from_millis(millis);
        }

        fn selected(&self) -> Option<u16> {
            self.ice.tuples().selected().map(|path| path.remote.port())
        }
    }

    #[test]
    fn the_first_request_connects_and_a_nomination_completes() {
        let mut pair = Pair::new();
        assert_eq!((pair.ice.state(), pair.selected()), (IceState::New, None));
        assert!(pair.accepted(1, |_| {}));
        assert_eq!((pair.ice.state(), pair.selected()), (IceState::Connected, Some(1)));
        assert!(!pair.accepted(2, |_| {}), "another address does not move the selection");
        assert!(pair.accepted(2, |o| o.use_candidate = true));
        assert_eq!((pair.ice.state(), pair.selected()), (IceState::Completed, Some(2)));
    }

    #[test]
    fn the_highest_nomination_wins() {
        let mut pair = Pair::new();
        for (port, nomination, selected) in [(1, 1, 1), (2, 3, 2), (1, 2, 2), (1, 3, 2), (3, 4, 3)]
        {
            pair.accepted(port, |o| o.nomination = Some(nomination));
            assert_eq!(pair.selected(), Some(selected), "nomination {nomination} of {port}");
        }
        pair.accepted(1, |o| (o.nomination, o.use_candidate) = (Some(1), true));
        assert_eq!(pair.selected(), Some(3), "an old counter loses also with USE-CANDIDATE");
    }

    #[test]
    fn bad_requests_are_answered_with_their_code_and_change_nothing() {
        type Change = fn(&mut RequestOptions<'_>);
        let cases: [(Change, u8, u8); 6] = [
            (|o| o.controlled = true, 4, 87),
            (|o| o.username = Some("someone:them"), 4, 1),
            (|o| o.username = Some("nocolon"), 4, 0),
            (|o| o.username = None, 4, 0),
            (|o| o.priority = None, 4, 0),
            (|o| o.without_fingerprint = true, 4, 0),
        ];
        for (index, (change, hundreds, units)) in cases.into_iter().enumerate() {
            let mut pair = Pair::new();
            let Verdict::Refused(answer) = pair.send(1, change) else { panic!("accepted {index}") };
            assert_eq!(answer[26..28], [hundreds, units], "case {index}");
            assert_eq!(answer[8..20], TRANSACTION);
            assert_eq!((pair.ice.state(), pair.ice.tuples().len()), (IceState::New, 0));
            assert_eq!(pair.ice.consent_until(), None);
        }
    }

    #[test]
    fn a_wrong_password_is_unauthorized_also_after_nomination() {
        let mut pair = Pair::new();
        pair.accepted(1, |o| o.use_candidate = true);
        pair.told.key = IntegrityKey::new("guess");
        let Verdict::Refused(answer) = pair.send(1, |_| {}) else { panic!("accepted") };
        assert_eq!(answer[26..28], [4, 1]);
    }

    #[test]
    fn after_a_restart_the_old_credentials_hold_until_the_new_are_used() {
        let mut pair = Pair::new();
        pair.accepted(1, |o| o.nomination = Some(5));
        pair.ice.restart(credentials(2));
        pair.ice.restart(credentials(3));
        pair.accepted(1, |_| {});
        let old = std::mem::replace(&mut pair.told, credentials(3));
        pair.accepted(2, |o| o.nomination = Some(1));
        assert_eq!(pair.selected(), Some(2), "nominations start anew");
        pair.told = old;
        assert!(matches!(pair.send(1, |_| {}), Verdict::Refused(_)));
        pair.told = credentials(2);
        assert!(matches!(pair.send(1, |_| {}), Verdict::Refused(_)));
    }

    #[test]
    fn the_selection_follows_a_client_that_fell_silent_and_is_heard_elsewhere() {
        let mut pair = Pair::new();
        pair.accepted(1, |o| o.nomination = Some(1));
        assert_eq!(pair.ice.handle_packet(pair.now, &path(2)), Err(Discard::UnknownAddress));
        pair.wait(2500);
        assert_eq!(pair.ice.handle_packet(pair.now, &path(1)), Ok(false));
        pair.wait(100);
        pair.accepted(2, |_| {});
        assert_eq!(pair.ice.handle_packet(pair.now, &path(2)), Ok(false), "may be a straggler");
        pair.wait(100);
        assert_eq!(pair.ice.handle_packet(pair.now, &path(2)), Ok(true));
        assert_eq!(pair.selected(), Some(2));
        pair.wait(2999);
        assert!(!pair.accepted(3, |_| {}), "a healthy client checks its other addresses too");
        pair.wait(1);
        assert!(pair.accepted(3, |_| {}), "no media, but the old address misses its keep-alive");
        assert_eq!(pair.selected(), Some(3));
    }

    #[test]
    fn at_most_eight_addresses_live_and_the_selected_one_stays() {
        let mut pair = Pair::new();
        pair.accepted(1, |o| o.use_candidate = true);
        for port in 2..=20 {
            pair.wait(1);
            let Verdict::Accepted { changes, .. } = pair.send(port, |_| {}) else { panic!() };
            assert_eq!(changes.added, Some(path(port)));
            let full = usize::from(port) > TUPLES_PER_TRANSPORT_MAX;
            assert_eq!(changes.removed.len(), usize::from(full));
            assert!(pair.ice.tuples().len() <= TUPLES_PER_TRANSPORT_MAX);
        }
        assert_eq!(pair.selected(), Some(1));
        assert!(pair.ice.tuples().contains(&path(20)) && !pair.ice.tuples().contains(&path(2)));
    }

    #[test]
    fn addresses_without_consent_are_given_up() {
        let mut pair = Pair::new();
        pair.accepted(1, |o| o.use_candidate = true);
        pair.accepted(2, |_| {});
        pair.wait(30_000);
        let Verdict::Accepted { changes, .. } = pair.send(1, |_| {}) else { panic!() };
        assert_eq!(changes.removed, [path(2)]);
    }

    #[test]
    fn the_end_of_the_selected_tcp_connection_moves_on_to_another_or_disconnects() {
        let mut pair = Pair::new();
        pair.accepted(1, |_| {});
        pair.wait(1);
        pair.accepted(2, |o| o.use_candidate = true);
        assert_eq!(pair.ice.handle_path_closed(&path(3)), None);
        assert_eq!(pair.ice.handle_path_closed(&path(2)), Some(true));
        assert_eq!(pair.selected(), Some(1));
        assert_eq!(pair.ice.handle_path_closed(&path(1)), Some(true));
        assert_eq!((pair.ice.state(), pair.selected()), (IceState::Disconnected, None));
        assert!(pair.accepted(4, |_| {}));
        assert_eq!(pair.ice.state(), IceState::Connected);
    }
}
