//! The way to one client: ICE-lite, DTLS, and from them the selected address and the SRTP keys.
//!
//! Owned by the engine's transport, on its shard's thread; sans-I/O. After each `handle_…` the
//! owner takes all of [`poll_event`](Connection::poll_event) and
//! [`poll_transmit`](Connection::poll_transmit), then asks for
//! [`poll_timeout`](Connection::poll_timeout).
//!
//! ```text
//!  DTLS:  New ── connect() and a verified request ──▶ Connecting ──▶ Connected ──▶ Closed
//!                                                          └──▶ Failed
//! ```
//!
//! Invariants: the `Rtc` exists only once the client is reachable and has told its fingerprint, so
//! that a transport nobody uses costs a few hundred bytes; nothing but STUN is taken from an
//! address that ICE has not validated (the ClientHello race of CVE-2023-49786); after `Closed`
//! no event follows. Deliberately not here: media, the address map (`demux`, told by events),
//! which user name leads here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::ice::{IceCredentials, IceLite, Verdict};
use super::rtc::{Drained, RemoteDtls, RtcFailure, RtcHost};
use crate::control::command::{CloseReason, DtlsState, IceState, Refusal};
use crate::engine::dtls::{DtlsIdentity, TappedKeys};
use crate::engine::io::Path;
use crate::engine::report::Discard;
use crate::limits::{CONNECT_TIMEOUT, CONNECTION_OUTPUT_MAX};

/// What a connection is made from.
#[derive(Debug, Clone)]
pub struct ConnectionSetup {
    /// What the client must use.
    pub credentials: IceCredentials,
    /// The node's certificate.
    pub identity: Arc<DtlsIdentity>,
}

/// What a connection tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// ICE state or selected address changed.
    IceState(IceState, Option<Path>),
    /// DTLS state changed; with the SRTP profile's name once connected.
    DtlsState(DtlsState, Option<&'static str>),
    /// The SRTP keys; precedes `DtlsState(Connected)`, once.
    Keys(TappedKeys),
    /// ICE validated an address.
    TupleAdded(Path),
    /// An address is no longer this client's.
    TupleRemoved(Path),
    /// Nothing follows. The addresses still live are to be forgotten without events.
    Closed(CloseReason),
}

/// How far DTLS is, with what it needs there.
#[derive(Debug)]
enum Dtls {
    /// `connect` was not called.
    Unconfigured,
    /// The client's parameters are known, the client was not heard yet.
    Configured(RemoteDtls),
    /// The handshake runs or is through.
    Running(Box<RtcHost>),
    /// The connection is closed.
    Over,
}

/// ICE-lite and DTLS of one WebRTC transport.
#[derive(Debug)]
pub struct Connection {
    identity: Arc<DtlsIdentity>,
    ice: IceLite,
    dtls: Dtls,
    dtls_state: DtlsState,
    /// When to give up unless connected; `None` before `connect`, as a client may wait with that
    /// until there is something to send or to receive, and once connected.
    connect_by: Option<Instant>,
    events: VecDeque<ConnectionEvent>,
    output: VecDeque<(Path, Vec<u8>)>,
    panic_next: bool,
}

impl Connection {
    /// A connection that waits for its client.
    #[must_use]
    pub fn new(setup: ConnectionSetup) -> Self {
        Self {
            identity: setup.identity,
            ice: IceLite::new(setup.credentials),
            dtls: Dtls::Unconfigured,
            dtls_state: DtlsState::New,
            connect_by: None,
            events: VecDeque::new(),
            output: VecDeque::new(),
            panic_next: false,
        }
    }

    /// What the client must use from now on.
    #[must_use]
    pub fn credentials(&self) -> &IceCredentials {
        self.ice.credentials()
    }

    /// SHA-256 of our certificate.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.identity.fingerprint()
    }

    /// ICE's state.
    #[must_use]
    pub fn ice_state(&self) -> IceState {
        self.ice.state()
    }

    /// DTLS' state.
    #[must_use]
    pub fn dtls_state(&self) -> DtlsState {
        self.dtls_state
    }

    /// True once `Closed` was told or [`close`](Self::close) called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.dtls, Dtls::Over)
    }

    /// Where everything for the client goes.
    #[must_use]
    pub fn selected(&self) -> Option<Path> {
        self.ice.tuples().selected()
    }

    /// True when ICE validated `path`.
    #[must_use]
    pub fn is_validated(&self, path: &Path) -> bool {
        self.ice.tuples().contains(path)
    }

    /// All validated addresses, to be forgotten when the connection goes.
    pub fn paths(&self) -> impl Iterator<Item = Path> + '_ {
        self.ice.tuples().iter()
    }

    /// Takes the client's DTLS parameters. The handshake starts when the client is reachable.
    pub fn connect(&mut self, now: Instant, remote: RemoteDtls) -> Result<(), Refusal> {
        match self.dtls {
            Dtls::Unconfigured => {}
            Dtls::Configured(_) | Dtls::Running(_) => return Err(Refusal::AlreadyConnected),
            Dtls::Over => return Err(Refusal::NoTransport),
        }
        self.dtls = Dtls::Configured(remote);
        self.connect_by = now.checked_add(CONNECT_TIMEOUT);
        self.start_if_ready(now);
        Ok(())
    }

    /// Does without DTLS: the owner has keys from elsewhere (simulations and benches).
    pub fn connect_without_dtls(&mut self) {
        self.connect_by = None;
    }

    /// Replaces the ICE credentials; the old ones hold until the client uses the new.
    pub fn restart_ice(&mut self, fresh: IceCredentials) {
        self.ice.restart(fresh);
    }

    /// Takes a STUN message addressed to this transport's user name, from any address.
    pub fn handle_stun(&mut self, now: Instant, path: Path, bytes: &[u8]) -> Result<(), Discard> {
        if self.is_closed() {
            return Err(Discard::StunUnknownUfrag);
        }
        match self.ice.handle_request(now, path, bytes)? {
            Verdict::Refused(answer) => {
                self.transmit(path, answer);
                Err(Discard::StunRefused)
            }
            Verdict::Accepted { answer, changes, moved } => {
                let removed = changes.removed.into_iter().map(ConnectionEvent::TupleRemoved);
                self.events.extend(removed);
                self.events.extend(changes.added.map(ConnectionEvent::TupleAdded));
                self.tell_ice(moved);
                let queued = self.transmit(path, answer);
                self.start_if_ready(now);
                if queued { Ok(()) } else { Err(Discard::OutputFull) }
            }
        }
    }

    /// Takes a DTLS datagram.
    pub fn handle_dtls(&mut self, now: Instant, path: Path, bytes: &[u8]) -> Result<(), Discard> {
        if !self.is_validated(&path) {
            return Err(Discard::UnknownAddress);
        }
        let Dtls::Running(host) = &mut self.dtls else { return Err(Discard::Dtls) };
        let outcome = host.handle_dtls(now, bytes);
        let refused = outcome.as_ref().map_or(true, |drained| drained.refused);
        if !refused {
            let moved = self.ice.handle_packet(now, &path).unwrap_or_default();
            self.tell_ice(moved);
        }
        self.settle(outcome);
        if refused { Err(Discard::Dtls) } else { Ok(()) }
    }

    /// Notes that an authentic media packet arrived over `path`: its client is there, and the
    /// selection can follow it where its address changed. To be called after SRTP accepted the packet.
    pub fn handle_media_path(&mut self, now: Instant, path: &Path) -> Result<(), Discard> {
        if self.is_closed() {
            return Err(Discard::UnknownAddress);
        }
        let moved = self.ice.handle_media(now, path)?;
        self.tell_ice(moved);
        Ok(())
    }

    /// Notes that the TCP connection under `path` ended.
    pub fn handle_path_closed(&mut self, path: &Path) {
        if self.is_closed() {
            return;
        }
        if let Some(moved) = self.ice.handle_path_closed(path) {
            self.events.push_back(ConnectionEvent::TupleRemoved(*path));
            self.tell_ice(moved);
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if is_due(self.connect_by) {
            self.end(CloseReason::NeverConnected);
        } else if is_due(self.ice.consent_until()) {
            self.end(CloseReason::ConsentLost);
        }
        if let Dtls::Running(host) = &mut self.dtls
            && is_due(host.poll_timeout())
        {
            let outcome = host.handle_timeout(now);
            self.settle(outcome);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let rtc = match &self.dtls {
            Dtls::Running(host) => host.poll_timeout(),
            Dtls::Over => return None,
            Dtls::Unconfigured | Dtls::Configured(_) => None,
        };
        [self.connect_by, self.ice.consent_until(), rtc].into_iter().flatten().min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<(Path, Vec<u8>)> {
        self.output.pop_front()
    }

    /// A value of what an arriving packet needs, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        usize::from(self.ice.tuples().selected_heard().is_some())
    }

    /// True while [`poll_transmit`](Self::poll_transmit) has something.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<ConnectionEvent> {
        self.events.pop_front()
    }

    /// Ends the connection because its owner wants so: tells the client (`close_notify`, to be
    /// taken with `poll_transmit`), not the owner.
    pub fn close(&mut self) {
        if let Dtls::Running(host) = &mut self.dtls {
            let farewell = host.close().map(|drained| drained.datagrams).unwrap_or_default();
            self.transmit_selected(farewell);
        }
        self.over();
    }

    /// Makes the next use of the `Rtc` panic. For the proof that only this transport ends.
    pub fn inject_panic(&mut self) {
        match &mut self.dtls {
            Dtls::Running(host) => host.panic_next(),
            _ => self.panic_next = true,
        }
    }

    fn start_if_ready(&mut self, now: Instant) {
        let Dtls::Configured(remote) = self.dtls else { return };
        if self.selected().is_none() {
            return;
        }
        self.tell_dtls(DtlsState::Connecting, None);
        match RtcHost::start(now, &self.identity, remote, self.panic_next) {
            Ok((host, drained)) => {
                self.dtls = Dtls::Running(host);
                self.settle(Ok(drained));
            }
            Err(failure) => self.settle(Err(failure)),
        }
    }

    /// Draws the conclusions from what the `Rtc` did.
    fn settle(&mut self, outcome: Result<Drained, RtcFailure>) {
        match outcome {
            Ok(drained) => {
                self.transmit_selected(drained.datagrams);
                if drained.connected {
                    self.connected();
                }
                if drained.closed {
                    self.end(CloseReason::DtlsClosed);
                }
            }
            Err(RtcFailure::Panicked) => self.end(CloseReason::Fault),
            Err(RtcFailure::Failed) if self.dtls_state == DtlsState::Connected => {
                self.end(CloseReason::DtlsClosed);
            }
            Err(RtcFailure::Failed) => self.end(CloseReason::DtlsFailed),
        }
    }

    fn connected(&mut self) {
        let Dtls::Running(host) = &self.dtls else { return };
        // A client that did not offer SRTP (RFC 5764 `use_srtp`) is of no use here.
        let Some(keys) = host.keys().cloned() else { return self.end(CloseReason::DtlsFailed) };
        self.connect_by = None;
        let profile = keys.profile.label();
        self.events.push_back(ConnectionEvent::Keys(keys));
        self.tell_dtls(DtlsState::Connected, Some(profile));
    }

    /// Ends the connection and tells the owner why, once.
    fn end(&mut self, reason: CloseReason) {
        if self.is_closed() {
            return;
        }
        match reason {
            CloseReason::ConsentLost => {
                self.ice.disconnect();
                self.tell_ice(true);
            }
            CloseReason::DtlsFailed => self.tell_dtls(DtlsState::Failed, None),
            CloseReason::DtlsClosed => self.tell_dtls(DtlsState::Closed, None),
            CloseReason::NeverConnected | CloseReason::Fault => {}
        }
        self.events.push_back(ConnectionEvent::Closed(reason));
        self.over();
    }

    fn over(&mut self) {
        self.dtls = Dtls::Over;
        self.connect_by = None;
    }

    fn tell_ice(&mut self, moved: bool) {
        if moved {
            self.events.push_back(ConnectionEvent::IceState(self.ice.state(), self.selected()));
        }
    }

    fn tell_dtls(&mut self, state: DtlsState, profile: Option<&'static str>) {
        self.dtls_state = state;
        self.events.push_back(ConnectionEvent::DtlsState(state, profile));
    }

    fn transmit_selected(&mut self, datagrams: Vec<Vec<u8>>) {
        // Without an address (the last TCP connection ended) DTLS sends again later.
        let Some(path) = self.selected() else { return };
        for datagram in datagrams {
            self.transmit(path, datagram);
        }
    }

    fn transmit(&mut self, path: Path, datagram: Vec<u8>) -> bool {
        let room = self.output.len() < CONNECTION_OUTPUT_MAX;
        if room {
            self.output.push_back((path, datagram));
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use str0m::config::Fingerprint;
    use str0m::ice::IceCreds;
    use str0m::net::{DatagramRecv, Protocol as RtcProtocol, Receive};
    use str0m::{Candidate, Input, Output, Rtc};

    use super::super::stun::{IntegrityKey, RequestOptions, request};
    use super::*;
    use crate::engine::demux::{PacketClass, Ufrag};
    use crate::engine::dtls::{PeerCertificate, Tap, tapped};
    use crate::engine::io::Protocol;
    use crate::engine::srtp::SrtpProfile;
    use crate::id::ShardId;
    use crate::limits::CONSENT_TIMEOUT;

    const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4000);

    #[expect(clippy::disallowed_methods, reason = "an anchor for virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn path(port: u16) -> Path {
        let remote = SocketAddr::from(([127, 0, 0, 1], port));
        Path { protocol: Protocol::Udp, remote, local: SERVER.ip() }
    }

    fn credentials(rng: &mut StdRng) -> IceCredentials {
        IceCredentials::new(Ufrag::new(ShardId(0), 1, 1, rng), rng)
    }

    /// Each library that a connection may have, in each role of the client.
    const HANDSHAKES: [(bool, PeerCertificate); 4] = [
        (true, PeerCertificate::Ecdsa),
        (false, PeerCertificate::Ecdsa),
        (true, PeerCertificate::Any),
        (false, PeerCertificate::Any),
    ];

    /// A connection alone, with a client that only speaks STUN.
    struct Lone {
        connection: Connection,
        now: Instant,
    }

    impl Lone {
        fn new() -> Self {
            let identity = Arc::new(DtlsIdentity::generate().unwrap());
            let credentials = credentials(&mut StdRng::seed_from_u64(1));
            let now = start();
            let connection = Connection::new(ConnectionSetup { credentials, identity });
            Self { connection, now }
        }

        fn stun(&mut self, port: u16) -> Result<(), Discard> {
            let told = self.connection.credentials();
            let username = format!("{}:them", told.ufrag());
            let options = RequestOptions {
                username: Some(&username),
                priority: Some(1),
                ..RequestOptions::default()
            };
            let key = IntegrityKey::new(told.password());
            let bytes = request(&[1; 12], &options, Some(&key));
            self.connection.handle_stun(self.now, path(port), &bytes)
        }

        fn events(&mut self) -> Vec<ConnectionEvent> {
            std::iter::from_fn(|| self.connection.poll_event()).collect()
        }

        /// Wakes the connection at its own deadlines for that long.
        fn wait(&mut self, seconds: u64) {
            let end = self.now + Duration::from_secs(seconds);
            while let Some(at) = self.connection.poll_timeout().filter(|at| *at <= end) {
                self.connection.handle_timeout(at);
            }
            self.now = end;
        }
    }

    /// A stock str0m client and a connection, joined by a network of two queues.
    struct Call {
        lone: Lone,
        client: Rtc,
        client_keys: Tap,
        /// Where the network shows the client to the server.
        port: u16,
        events: Vec<ConnectionEvent>,
        /// Datagrams from the server, by class.
        sent: Vec<(Path, PacketClass)>,
        lose_answers: bool,
        /// The client says that it is connected.
        client_connected: bool,
        /// DTLS datagrams still to pass before one is lost, from the client and from the server.
        lose: [Option<usize>; 2],
    }

    /// True for the one that is to be lost.
    fn is_lost(lose: &mut Option<usize>) -> bool {
        let Some(left) = *lose else { return false };
        *lose = left.checked_sub(1);
        left == 0
    }

    impl Call {
        fn new(client_is_active: bool, certificate: PeerCertificate) -> Self {
            let mut call = Self::unconnected(client_is_active);
            let (now, fingerprint) = (call.lone.now, call.client_fingerprint());
            let remote = RemoteDtls { fingerprint, is_client: client_is_active, certificate };
            call.lone.connection.connect(now, remote).unwrap();
            call
        }

        fn unconnected(client_is_active: bool) -> Self {
            let lone = Lone::new();
            let identity = DtlsIdentity::generate().unwrap();
            let (mut client, client_keys) =
                tapped(|| identity.rtc_config(PeerCertificate::Ecdsa).build(lone.now)).unwrap();
            let home = path(5000).remote;
            client.add_local_candidate(Candidate::host(home, "udp").unwrap());
            client.add_remote_candidate(Candidate::host(SERVER, "udp").unwrap());
            let told = lone.connection.credentials();
            let mut api = client.direct_api();
            api.set_ice_controlling(true);
            api.set_remote_ice_credentials(IceCreds {
                ufrag: told.ufrag().to_string(),
                pass: told.password().to_owned(),
            });
            api.set_remote_fingerprint(Fingerprint {
                hash_func: "sha-256".into(),
                bytes: lone.connection.fingerprint().to_vec(),
            });
            api.start_dtls(client_is_active).unwrap();
            Self {
                lone,
                client,
                client_keys,
                port: 5000,
                events: Vec::new(),
                sent: Vec::new(),
                lose_answers: false,
                client_connected: false,
                lose: [None; 2],
            }
        }

        fn client_fingerprint(&mut self) -> [u8; 32] {
            let fingerprint = self.client.direct_api().local_dtls_fingerprint().bytes.clone();
            fingerprint.try_into().unwrap()
        }

        /// Runs both sides for that long, 5 ms at a time.
        fn run(&mut self, millis: u64) {
            for _ in 0..millis / 5 {
                self.turn();
                self.lone.now += Duration::from_millis(5);
            }
        }

        fn turn(&mut self) {
            let now = self.lone.now;
            self.client.handle_input(Input::Timeout(now)).unwrap();
            if self.lone.connection.poll_timeout().is_some_and(|at| at <= now) {
                self.lone.connection.handle_timeout(now);
            }
            for _ in 0..10 {
                self.client_to_server();
                self.server_to_client();
            }
            self.events.extend(self.lone.events());
        }

        fn client_to_server(&mut self) {
            let (now, path) = (self.lone.now, path(self.port));
            loop {
                match self.client.poll_output().unwrap() {
                    Output::Timeout(_) => return,
                    Output::Event(str0m::Event::Connected) => self.client_connected = true,
                    Output::Event(_) => {}
                    Output::Transmit(out) => {
                        let connection = &mut self.lone.connection;
                        let _ = match PacketClass::of(&out.contents) {
                            PacketClass::Stun => connection.handle_stun(now, path, &out.contents),
                            PacketClass::Dtls if is_lost(&mut self.lose[0]) => Ok(()),
                            PacketClass::Dtls => connection.handle_dtls(now, path, &out.contents),
                            other => panic!("{other:?} from a client without media"),
                        };
                    }
                }
            }
        }

        fn server_to_client(&mut self) {
            while let Some((path, bytes)) = self.lone.connection.poll_transmit() {
                self.sent.push((path, PacketClass::of(&bytes)));
                if path.remote.port() != self.port || self.lose_answers {
                    continue; // lost: the client is no longer there
                }
                if PacketClass::of(&bytes) == PacketClass::Dtls && is_lost(&mut self.lose[1]) {
                    continue;
                }
                let receive = Receive {
                    proto: RtcProtocol::Udp,
                    source: SERVER,
                    destination: path_home(),
                    contents: DatagramRecv::try_from(&bytes[..]).unwrap(),
                };
                self.client.handle_input(Input::Receive(self.lone.now, receive)).unwrap();
            }
        }

        fn keys(&self) -> Option<TappedKeys> {
            self.events.iter().find_map(|event| match event {
                ConnectionEvent::Keys(keys) => Some(keys.clone()),
                _ => None,
            })
        }

        fn closed(&self) -> Option<CloseReason> {
            self.events.iter().find_map(|event| match event {
                ConnectionEvent::Closed(reason) => Some(*reason),
                _ => None,
            })
        }

        fn connected(certificate: PeerCertificate) -> Self {
            let mut call = Self::new(true, certificate);
            call.run(300);
            assert_eq!(call.lone.connection.dtls_state(), DtlsState::Connected);
            call
        }
    }

    fn path_home() -> SocketAddr {
        path(5000).remote
    }

    #[test]
    fn a_stock_client_connects_in_both_roles_and_both_sides_have_the_same_keys() {
        for (client_is_active, certificate) in HANDSHAKES {
            let mut call = Call::new(client_is_active, certificate);
            call.run(300);
            let ours = call.keys().expect("keys");
            let theirs = call.client_keys.keys().expect("the client's keys");
            assert_eq!(ours.material, theirs.material);
            assert_eq!((ours.profile, ours.material.len()), (SrtpProfile::AeadAes256Gcm, 88));
            assert_eq!(ours.local_is_client, !client_is_active);
            assert_eq!(theirs.local_is_client, client_is_active);
            let states: Vec<_> = call.events.iter().filter(|e| !is_keys(e)).cloned().collect();
            let home = path(5000);
            let cipher = Some(SrtpProfile::AeadAes256Gcm.label());
            for expected in [
                ConnectionEvent::TupleAdded(home),
                ConnectionEvent::IceState(IceState::Completed, Some(home)),
                ConnectionEvent::DtlsState(DtlsState::Connecting, None),
                ConnectionEvent::DtlsState(DtlsState::Connected, cipher),
            ] {
                let times = states.iter().filter(|event| **event == expected).count();
                assert_eq!(times, 1, "{expected:?} in {states:?}");
            }
        }
    }

    fn is_keys(event: &ConnectionEvent) -> bool {
        matches!(event, ConnectionEvent::Keys(_))
    }

    #[test]
    fn connect_may_come_after_ice_and_only_once() {
        let mut call = Call::unconnected(true);
        call.run(300);
        assert_eq!(call.lone.connection.ice_state(), IceState::Completed);
        assert_eq!(call.lone.connection.dtls_state(), DtlsState::New, "early DTLS is let go");
        let (now, fingerprint) = (call.lone.now, call.client_fingerprint());
        let certificate = PeerCertificate::Ecdsa;
        let remote = RemoteDtls { fingerprint, is_client: true, certificate };
        assert_eq!(call.lone.connection.connect(now, remote), Ok(()));
        let again = call.lone.connection.connect(now, remote);
        assert_eq!(again, Err(Refusal::AlreadyConnected));
        call.run(1000);
        assert!(call.keys().is_some(), "the client sends its first flight again");
    }

    #[test]
    fn another_certificate_than_announced_fails_the_handshake() {
        for (is_client, certificate) in HANDSHAKES {
            let mut call = Call::unconnected(is_client);
            let remote = RemoteDtls { fingerprint: [7; 32], is_client, certificate };
            call.lone.connection.connect(call.lone.now, remote).unwrap();
            call.run(300);
            assert_eq!(call.closed(), Some(CloseReason::DtlsFailed));
            assert!(call.keys().is_none());
            let tail = &call.events[call.events.len() - 2..];
            assert_eq!(tail[0], ConnectionEvent::DtlsState(DtlsState::Failed, None));
        }
    }

    #[test]
    fn a_handshake_that_agrees_on_no_srtp_closes_the_connection() {
        let mut call = Call::new(true, PeerCertificate::Ecdsa);
        while !matches!(call.lone.connection.dtls, Dtls::Running(_)) {
            call.lone.now += Duration::from_millis(5);
            call.client.handle_input(Input::Timeout(call.lone.now)).unwrap();
            call.client_to_server();
        }
        let Dtls::Running(host) = &mut call.lone.connection.dtls else { unreachable!() };
        host.lose_tap();
        call.run(300);
        assert_eq!(call.closed(), Some(CloseReason::DtlsFailed));
        assert!(call.keys().is_none());
    }

    #[test]
    fn an_idle_connection_wakes_for_consent_alone_and_lives_on_its_keep_alives() {
        for certificate in [PeerCertificate::Ecdsa, PeerCertificate::Any] {
            let mut call = Call::connected(certificate);
            call.events.clear();
            call.run(60_000);
            assert_eq!(call.events, []);
            let deadline = call.lone.connection.poll_timeout().unwrap();
            assert_eq!(Some(deadline), call.lone.connection.ice.consent_until());
            assert!(deadline > call.lone.now);
        }
    }

    #[test]
    fn a_client_whose_address_changes_is_followed() {
        for certificate in [PeerCertificate::Ecdsa, PeerCertificate::Any] {
            let mut call = Call::connected(certificate);
            call.port = 6000;
            let now = call.lone.now;
            let early = call.lone.connection.handle_media_path(now, &path(6000));
            assert_eq!(early, Err(Discard::UnknownAddress));
            call.run(10_000);
            assert_eq!(call.lone.connection.selected(), Some(path(6000)));
            assert!(call.lone.connection.is_validated(&path(5000)));
            call.sent.clear();
            call.lone.connection.close();
            call.turn();
            let farewell = call.sent.iter().find(|(_, class)| *class == PacketClass::Dtls);
            assert_eq!(farewell, Some(&(path(6000), PacketClass::Dtls)));
        }
    }

    #[test]
    fn a_handshake_survives_an_address_change_in_its_middle() {
        for certificate in [PeerCertificate::Ecdsa, PeerCertificate::Any] {
            let mut call = Call::new(true, certificate);
            call.turn();
            call.port = 6000;
            call.run(5000);
            assert!(call.keys().is_some());
            assert_eq!(call.lone.connection.selected(), Some(path(6000)));
        }
    }

    #[test]
    fn dtls_from_an_address_that_ice_has_not_validated_is_let_go() {
        for certificate in [PeerCertificate::Ecdsa, PeerCertificate::Any] {
            let mut call = Call::connected(certificate);
            call.client.close().unwrap();
            let farewell = loop {
                match call.client.poll_output().unwrap() {
                    Output::Transmit(out)
                        if PacketClass::of(&out.contents) == PacketClass::Dtls =>
                    {
                        break out.contents;
                    }
                    _ => {}
                }
            };
            let (now, connection) = (call.lone.now, &mut call.lone.connection);
            let stranger = connection.handle_dtls(now, path(1), &farewell);
            assert_eq!(stranger, Err(Discard::UnknownAddress));
            assert_eq!(
                (connection.dtls_state(), connection.poll_event()),
                (DtlsState::Connected, None)
            );
            assert_eq!(connection.handle_dtls(now, path(5000), &farewell), Ok(()));
            assert_eq!(connection.dtls_state(), DtlsState::Closed);
        }
    }

    #[test]
    fn a_lost_flight_is_sent_again() {
        for (client_is_active, certificate) in HANDSHAKES {
            let mut call = Call::new(client_is_active, certificate);
            while !matches!(call.lone.connection.dtls, Dtls::Running(_)) {
                call.run(5);
            }
            call.lose_answers = true;
            call.run(20);
            call.lose_answers = false;
            call.run(1500);
            assert!(call.keys().is_some(), "client is active: {client_is_active}");
        }
        for certificate in [PeerCertificate::Ecdsa, PeerCertificate::Any] {
            let mut call = Call::new(false, certificate);
            call.lose_answers = true;
            call.run(1000);
            assert_eq!(call.lone.connection.dtls_state(), DtlsState::Connecting);
            call.lose_answers = false;
            // Both sides wait with a random part, and the client answers a repeated flight again
            // only after a wait of its own: one more doubling may pass before the two fit.
            call.run(5000);
            assert!(call.keys().is_some(), "our first flight was lost, with the first answers");
        }
    }

    #[test]
    fn whichever_datagram_of_a_handshake_is_lost_both_sides_connect() {
        for (client_is_active, certificate) in HANDSHAKES {
            for (from_server, nth) in (0..10).flat_map(|nth| [(0, nth), (1, nth)]) {
                let mut call = Call::new(client_is_active, certificate);
                call.lose[from_server] = Some(nth);
                call.run(8000);
                let case = (client_is_active, certificate, from_server, nth);
                assert!(call.keys().is_some(), "{case:?}");
                assert!(call.client_keys.keys().is_some(), "{case:?}");
                assert!(call.client_connected, "{case:?}");
            }
        }
    }

    #[test]
    fn handshake_messages_out_of_any_order_are_let_go_in_the_end_and_end_nothing() {
        let mut call = Call::new(true, PeerCertificate::Ecdsa);
        call.lose_answers = true;
        call.run(20);
        let (now, home) = (call.lone.now, path(5000));
        let outcomes: Vec<_> = (0..64_u8)
            .map(|n| {
                let record = [22, 254, 253, 0, 0, 0, 0, 0, 0, 1, n, 0, 16];
                let message = [16, 0, 0, 4, 0, 4 + n, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4];
                let bytes: Vec<u8> = record.into_iter().chain(message).collect();
                call.lone.connection.handle_dtls(now, home, &bytes)
            })
            .collect();
        assert!(outcomes.contains(&Err(Discard::Dtls)), "{outcomes:?}");
        call.turn();
        assert_eq!(call.closed(), None);
    }

    #[test]
    fn a_clients_fatal_alert_fails_the_handshake_but_not_a_connected_call() {
        let alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 99, 0, 2, 2, 40];
        let mut call = Call::connected(PeerCertificate::Ecdsa);
        let (now, home) = (call.lone.now, path(5000));
        let _ = call.lone.connection.handle_dtls(now, home, &alert);
        assert_eq!(call.lone.events(), [], "it is not encrypted: anyone may have sent it");
        let mut call = Call::new(true, PeerCertificate::Ecdsa);
        call.lose_answers = true;
        call.run(100);
        let _ = call.lone.connection.handle_dtls(call.lone.now, home, &alert);
        call.turn();
        assert_eq!(call.closed(), Some(CloseReason::DtlsFailed));
    }

    #[test]
    fn the_clients_good_bye_closes_the_connection() {
        for certificate in [PeerCertificate::Ecdsa, PeerCertificate::Any] {
            let mut call = Call::connected(certificate);
            call.client.close().unwrap();
            call.run(100);
            assert_eq!(call.closed(), Some(CloseReason::DtlsClosed));
            assert_eq!(call.lone.connection.poll_timeout(), None);
        }
    }

    #[test]
    fn a_panic_inside_the_rtc_ends_that_connection_alone() {
        let mut other = Call::connected(PeerCertificate::Ecdsa);
        let mut call = Call::connected(PeerCertificate::Ecdsa);
        call.lone.connection.inject_panic();
        let now = call.lone.now;
        let path = path(5000);
        let outcome = call.lone.connection.handle_dtls(now, path, &[23, 254, 253]);
        assert_eq!(outcome, Err(Discard::Dtls));
        call.turn();
        assert_eq!(call.closed(), Some(CloseReason::Fault));
        assert_eq!(call.lone.stun(5000), Err(Discard::StunUnknownUfrag));
        other.events.clear();
        other.run(5000);
        assert_eq!(
            (other.closed(), other.lone.connection.dtls_state()),
            (None, DtlsState::Connected)
        );
    }

    #[test]
    fn a_panic_while_the_rtc_is_made_ends_the_connection_too() {
        let mut call = Call::new(true, PeerCertificate::Ecdsa);
        call.lone.connection.inject_panic();
        call.run(100);
        assert_eq!(call.closed(), Some(CloseReason::Fault));
    }

    #[test]
    fn who_never_comes_is_given_up_after_the_connect_time_out() {
        for comes_half_way in [false, true] {
            let mut lone = Lone::new();
            // Nobody has said that it comes: mediasoup-client does with its first producer or
            // consumer, which may be a day after the transport was made.
            lone.wait(24 * 3600);
            assert_eq!((lone.connection.poll_timeout(), lone.events()), (None, vec![]));
            let (fingerprint, certificate) = ([7; 32], PeerCertificate::Ecdsa);
            let remote = RemoteDtls { fingerprint, is_client: true, certificate };
            lone.connection.connect(lone.now, remote).unwrap();
            lone.wait(CONNECT_TIMEOUT.as_secs() - 1);
            if comes_half_way {
                assert_eq!(lone.stun(1), Ok(()));
            }
            assert!(!lone.connection.is_closed());
            lone.wait(1);
            let closed = ConnectionEvent::Closed(CloseReason::NeverConnected);
            assert_eq!(lone.events().last(), Some(&closed));
            assert_eq!(lone.connection.poll_timeout(), None);
        }
    }

    #[test]
    fn consent_ends_thirty_seconds_after_the_last_request() {
        let mut call = Call::connected(PeerCertificate::Ecdsa);
        call.run(10_000);
        let last = call.lone.connection.ice.consent_until().unwrap() - CONSENT_TIMEOUT;
        assert!(call.lone.now - last < Duration::from_secs(5));
        let mut lone = call.lone;
        lone.wait(24);
        assert_eq!(lone.events(), []);
        lone.wait(6);
        let gone = ConnectionEvent::IceState(IceState::Disconnected, Some(path(5000)));
        let closed = ConnectionEvent::Closed(CloseReason::ConsentLost);
        assert_eq!(lone.events(), [gone, closed]);
    }

    #[test]
    fn a_refused_request_is_answered_but_validates_nothing() {
        let mut lone = Lone::new();
        let old = lone.connection.credentials().clone();
        lone.connection.restart_ice(credentials(&mut StdRng::seed_from_u64(2)));
        assert_eq!(lone.stun(1), Ok(()));
        lone.connection.ice = IceLite::new(old);
        let bytes = request(&[1; 12], &RequestOptions::default(), None);
        let outcome = lone.connection.handle_stun(lone.now, path(2), &bytes);
        assert_eq!(outcome, Err(Discard::StunRefused));
        let answers: Vec<_> = std::iter::from_fn(|| lone.connection.poll_transmit()).collect();
        assert_eq!(answers.iter().map(|(path, _)| *path).collect::<Vec<_>>(), [path(1), path(2)]);
        assert!(!lone.connection.is_validated(&path(2)));
    }

    #[test]
    fn output_that_nobody_takes_is_bounded() {
        let mut lone = Lone::new();
        let outcomes: Vec<_> = (0..CONNECTION_OUTPUT_MAX + 1).map(|_| lone.stun(1)).collect();
        assert!(outcomes[..CONNECTION_OUTPUT_MAX].iter().all(Result::is_ok));
        assert_eq!(outcomes.last(), Some(&Err(Discard::OutputFull)));
    }

    #[test]
    fn the_end_of_the_only_tcp_connection_disconnects_until_another_comes() {
        let mut call = Call::connected(PeerCertificate::Ecdsa);
        call.events.clear();
        call.lone.connection.handle_path_closed(&path(5000));
        let removed = ConnectionEvent::TupleRemoved(path(5000));
        let gone = ConnectionEvent::IceState(IceState::Disconnected, None);
        assert_eq!(call.lone.events(), [removed, gone]);
        call.port = 6000;
        call.run(5000);
        assert_eq!(call.lone.connection.ice_state(), IceState::Completed);
        assert_eq!(call.lone.connection.selected(), Some(path(6000)));
    }

    #[test]
    fn a_connected_call_survives_any_bytes() {
        for certificate in [PeerCertificate::Ecdsa, PeerCertificate::Any] {
            let mut call = Call::connected(certificate);
            let mut runner = proptest::test_runner::TestRunner::deterministic();
            let (now, home) = (call.lone.now, path(5000));
            let any_bytes = proptest::collection::vec(any::<u8>(), 0..300);
            for round in 0..20_000 {
                let mut bytes = any_bytes.new_tree(&mut runner).unwrap().current();
                // Half of them look like DTLS records of the current epoch, a quarter like handshakes.
                let header = [[22, 254, 253, 0, 0], [23, 254, 253, 0, 1], [21, 254, 253, 0, 0]];
                if round % 2 == 0 {
                    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
                    let sequence = [0, 0, 0, 0, 9, 9];
                    let record = header[round / 2 % 3].iter().chain(&sequence).chain(&length);
                    bytes.splice(0..0, record.copied());
                }
                let _ = call.lone.connection.handle_dtls(now, home, &bytes);
                let _ = call.lone.connection.handle_stun(now, home, &bytes);
                while call.lone.connection.poll_transmit().is_some() {}
            }
            assert_eq!(call.lone.events(), []);
            call.run(5000);
            assert_eq!(call.lone.connection.dtls_state(), DtlsState::Connected);
            call.client.close().unwrap();
            call.run(100);
            assert_eq!(call.closed(), Some(CloseReason::DtlsClosed), "DTLS itself still works");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_fresh_connection_survives_any_bytes(
            bytes in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let mut call = Call::new(true, PeerCertificate::Ecdsa);
            let now = call.lone.now;
            call.lone.stun(5000).unwrap();
            let connection = &mut call.lone.connection;
            let _ = connection.handle_stun(now, path(5000), &bytes);
            let mut dtls = vec![22, 254, 253];
            dtls.extend(&bytes);
            let _ = connection.handle_dtls(now, path(5000), &dtls);
            let _ = connection.handle_dtls(now, path(5000), &bytes);
        }
    }
}
