//! The `str0m::Rtc` of one transport: DTLS (later SCTP), and nothing else of str0m.
//!
//! Owned by a [`Connection`](super::connection::Connection), on its shard's thread. This is the
//! only file that names an `Rtc`, and `RtcHost::mutate` the only function that touches one: it
//! makes one change, drains all output and notes the next deadline, as str0m demands; and it holds
//! the server's one `catch_unwind`, so that a panic in there ends one transport and not a shard.
//!
//! The `Rtc` is told of one client address that does not exist, by one STUN request that we write
//! ourselves. str0m sends DTLS only to an address that ICE has nominated, and never forgets an
//! address it has seen; so it is given exactly one for life, and the connection sends what comes
//! out wherever the client is. Credentials, restarts, keep-alives and address changes stay outside.
//!
//! Invariants: no STUN, RTP or RTCP from the network goes in; only DTLS comes out. Deliberately not
//! here: when to start, what a failure means, where datagrams go (`connection`).

use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use str0m::config::Fingerprint;
use str0m::ice::IceCreds;
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Reason, Rtc, RtcError};

use super::stun::{IntegrityKey, RequestOptions, request};
use crate::engine::demux::PacketClass;
use crate::engine::dtls::{DtlsIdentity, PeerCertificate, Tap, TappedKeys, tapped};
use crate::limits::RTC_OUTPUTS_MAX;

/// The two addresses that the `Rtc` knows, of a network that exists in documents only (RFC 5737).
const OURS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);
const THEIRS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 1);
/// Its credentials never meet a network, so they need not be secret.
const UFRAG: &str = "inside";
const USERNAME: &str = "inside:outside";
const PASSWORD: &str = "no STUN from the network";

/// Why there is no `Rtc` any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RtcFailure {
    /// It panicked.
    Panicked,
    /// It refused to go on: a fatal alert, another certificate than announced, or time is up.
    Failed,
}

/// What the client's side of the handshake must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteDtls {
    /// SHA-256 of its certificate.
    pub fingerprint: [u8; 32],
    /// True when it sends the first message.
    pub is_client: bool,
    /// Of which kinds that may be.
    pub certificate: PeerCertificate,
}

/// What came out of one change.
#[derive(Debug, Default)]
pub struct Drained {
    /// DTLS datagrams for the client.
    pub datagrams: Vec<Vec<u8>>,
    /// The handshake completed.
    pub connected: bool,
    /// The client closed the association.
    pub closed: bool,
    /// The packet that went in was let go.
    pub refused: bool,
}

/// An `Rtc` with its tap and its next deadline.
pub struct RtcHost {
    rtc: Rtc,
    tap: Tap,
    deadline: Option<Instant>,
    connected: bool,
    panic_next: bool,
}

impl std::fmt::Debug for RtcHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtcHost").field("connected", &self.connected).finish_non_exhaustive()
    }
}

impl RtcHost {
    /// Builds an `Rtc` and starts its handshake. `panic_now` is for the test of what follows a
    /// panic.
    pub fn start(
        now: Instant,
        identity: &DtlsIdentity,
        remote: RemoteDtls,
        panic_now: bool,
    ) -> Result<(Box<Self>, Drained), RtcFailure> {
        let config = identity
            .rtc_config(remote.certificate)
            .set_ice_lite(true)
            .set_local_ice_credentials(IceCreds { ufrag: UFRAG.into(), pass: PASSWORD.into() });
        let (rtc, tap) = tapped(|| config.build(now)).ok_or(RtcFailure::Failed)?;
        let mut host =
            Box::new(Self { rtc, tap, deadline: None, connected: false, panic_next: panic_now });
        let drained = host.mutate(|rtc| start_dtls(rtc, now, remote))?;
        Ok((host, drained))
    }

    /// Feeds a DTLS datagram of the client.
    pub fn handle_dtls(&mut self, now: Instant, bytes: &[u8]) -> Result<Drained, RtcFailure> {
        // Whatever its class: the caller has looked, but RTP must never get in.
        if PacketClass::of(bytes) != PacketClass::Dtls {
            return Ok(Drained { refused: true, ..Drained::default() });
        }
        self.mutate(|rtc| receive(rtc, now, bytes))
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<Drained, RtcFailure> {
        self.mutate(|rtc| rtc.handle_input(Input::Timeout(now)))
    }

    /// Says good-bye to the client.
    pub fn close(&mut self) -> Result<Drained, RtcFailure> {
        self.mutate(Rtc::close)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// The SRTP keys, after the handshake.
    #[must_use]
    pub fn keys(&self) -> Option<&TappedKeys> {
        self.tap.keys()
    }

    /// Makes the next change panic.
    pub fn panic_next(&mut self) {
        self.panic_next = true;
    }

    /// Makes the handshake look like one that agreed on no SRTP.
    #[cfg(test)]
    pub(super) fn lose_tap(&mut self) {
        self.tap = Tap::default();
    }

    /// Changes the `Rtc` once and drains it. After an error the host must be dropped.
    fn mutate(
        &mut self,
        change: impl FnOnce(&mut Rtc) -> Result<(), RtcError>,
    ) -> Result<Drained, RtcFailure> {
        let panics = std::mem::take(&mut self.panic_next);
        let rtc = &mut self.rtc;
        // After a panic nobody looks at the `Rtc` again, so what it left half done cannot be seen.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if panics {
                #[expect(clippy::panic, reason = "only a test asks for it")]
                std::panic::panic_any("injected into an Rtc by a test");
            }
            change(rtc)?;
            drain(rtc)
        }));
        let (mut drained, deadline) = match outcome {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => {
                tracing::debug!(%error, "DTLS ended");
                return Err(RtcFailure::Failed);
            }
            Err(_) => return Err(RtcFailure::Panicked),
        };
        drained.refused = self.tap.take_refused();
        self.connected |= drained.connected;
        // A connected association without SCTP has nothing to do by itself. What remains is str0m's
        // ICE clock of 3 s, which has nothing to watch here and would cost an idle transport most.
        let idle = self.connected && self.rtc.last_timeout_reason() != Reason::DTLS;
        self.deadline = if idle { None } else { Some(deadline) };
        Ok(drained)
    }
}

fn start_dtls(rtc: &mut Rtc, now: Instant, remote: RemoteDtls) -> Result<(), RtcError> {
    if let Ok(candidate) = Candidate::host(OURS, "udp") {
        rtc.add_local_candidate(candidate);
    }
    let mut api = rtc.direct_api();
    api.set_remote_ice_credentials(IceCreds { ufrag: "outside".into(), pass: String::new() });
    api.set_remote_fingerprint(Fingerprint {
        hash_func: "sha-256".into(),
        bytes: remote.fingerprint.to_vec(),
    });
    api.start_dtls(!remote.is_client)?;
    let options = RequestOptions {
        username: Some(USERNAME),
        priority: Some(1),
        use_candidate: true,
        ..RequestOptions::default()
    };
    receive(rtc, now, &request(&[0; 12], &options, Some(&IntegrityKey::new(PASSWORD))))
}

fn receive(rtc: &mut Rtc, now: Instant, bytes: &[u8]) -> Result<(), RtcError> {
    let contents = DatagramRecv::try_from(bytes)?;
    let proto = Protocol::Udp;
    rtc.handle_input(Input::Receive(
        now,
        Receive { proto, source: THEIRS, destination: OURS, contents },
    ))
}

fn drain(rtc: &mut Rtc) -> Result<(Drained, Instant), RtcError> {
    let mut drained = Drained::default();
    for _ in 0..RTC_OUTPUTS_MAX {
        match rtc.poll_output()? {
            Output::Timeout(deadline) => return Ok((drained, deadline)),
            // Its answer to our own request stays here, and so would anything like media.
            Output::Transmit(transmit) => {
                if PacketClass::of(&transmit.contents) == PacketClass::Dtls {
                    drained.datagrams.push(transmit.contents.into());
                }
            }
            Output::Event(Event::Connected) => drained.connected = true,
            Output::Event(Event::Closed) => drained.closed = true,
            Output::Event(_) => {}
        }
    }
    Err(RtcError::Io(std::io::Error::other("output without end")))
}
