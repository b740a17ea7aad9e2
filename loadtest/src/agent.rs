//! ICE and DTLS of one client: a full, controlling ICE agent that is the DTLS client.
//!
//! Owned by an endpoint, on its worker's thread. Media never goes through it: whatever looks like
//! SRTP or SRTCP is neither fed in nor let out. It does no I/O; datagrams to send are pushed into the
//! caller's list.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Instant;

use str0m::config::Fingerprint;
use str0m::ice::IceCreds;
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcError};

use crate::dtls::{Identity, Tap};
use crate::rtp::is_media;
use crate::srtp::Srtp;

/// What the server says about its end of a transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    /// ICE user name fragment.
    pub(crate) ufrag: String,
    /// ICE password.
    pub(crate) password: String,
    /// The first UDP candidate.
    pub(crate) address: SocketAddr,
    /// Hash name and hexadecimal digest, `sha-256 AB:CD:…`.
    pub(crate) fingerprint: String,
}

/// What changed since the agent was last driven.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// ICE has a working pair.
    pub(crate) ice_connected: bool,
    /// The handshake is through; media may flow.
    pub(crate) srtp: Option<Srtp>,
    /// Why it will never connect, or is no longer.
    pub(crate) failure: Option<String>,
}

/// One client's ICE and DTLS.
pub(crate) struct Agent {
    rtc: Rtc,
    tap: Tap,
    local: SocketAddr,
    remote: SocketAddr,
    deadline: Instant,
    has_keys: bool,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Agent {
    /// An agent that will connect from `local` once it is driven.
    pub(crate) fn start(
        identity: &Identity,
        now: Instant,
        local: SocketAddr,
        remote: &Remote,
    ) -> Result<Self, String> {
        let (mut rtc, tap) = identity.agent(now).ok_or("str0m built no DTLS instance")?;
        let candidate = |address| Candidate::host(address, "udp").map_err(|e| e.to_string());
        rtc.add_local_candidate(candidate(local)?);
        rtc.add_remote_candidate(candidate(remote.address)?);
        let fingerprint = Fingerprint::from_str(&remote.fingerprint)
            .map_err(|error| format!("fingerprint {:?}: {error}", remote.fingerprint))?;
        let mut api = rtc.direct_api();
        api.set_ice_controlling(true);
        api.set_remote_ice_credentials(IceCreds {
            ufrag: remote.ufrag.clone(),
            pass: remote.password.clone(),
        });
        api.set_remote_fingerprint(fingerprint);
        api.start_dtls(true).map_err(|error| error.to_string())?;
        let remote = remote.address;
        Ok(Self { rtc, tap, local, remote, deadline: now, has_keys: false })
    }

    /// Its own ICE user name fragment.
    pub(crate) fn local_ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.deadline
    }

    /// Lets time pass.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) -> Progress {
        let handled = self.rtc.handle_input(Input::Timeout(now));
        self.drain(handled, out)
    }

    /// Feeds a datagram of the server; media and what is none of ICE and DTLS is let go.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        datagram: &[u8],
        out: &mut Vec<Vec<u8>>,
    ) -> Progress {
        if is_media(datagram) {
            return Progress::default();
        }
        let Ok(contents) = DatagramRecv::try_from(datagram) else { return Progress::default() };
        let (source, destination) = (self.remote, self.local);
        let received = Receive { proto: Protocol::Udp, source, destination, contents };
        let handled = self.rtc.handle_input(Input::Receive(now, received));
        self.drain(handled, out)
    }

    fn drain(&mut self, handled: Result<(), RtcError>, out: &mut Vec<Vec<u8>>) -> Progress {
        let mut progress = Progress::default();
        if let Err(error) = handled {
            progress.failure = Some(error.to_string());
            return progress;
        }
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(deadline)) => {
                    self.deadline = deadline;
                    break;
                }
                Ok(Output::Transmit(transmit)) => {
                    if !is_media(&transmit.contents) {
                        out.push(transmit.contents.into());
                    }
                }
                Ok(Output::Event(Event::IceConnectionStateChange(state))) => match state {
                    IceConnectionState::Connected | IceConnectionState::Completed => {
                        progress.ice_connected = true;
                    }
                    IceConnectionState::Disconnected => {
                        progress.failure = Some("ICE disconnected".into());
                    }
                    _ => {}
                },
                Ok(Output::Event(Event::Closed)) => {
                    progress.failure = Some("the server closed DTLS".into());
                }
                Ok(Output::Event(_)) => {}
                Err(error) => {
                    progress.failure = Some(error.to_string());
                    break;
                }
            }
        }
        if !self.has_keys
            && let Some(srtp) = self.tap.srtp()
        {
            self.has_keys = true;
            match srtp {
                Ok(srtp) => progress.srtp = Some(srtp),
                Err(reason) => progress.failure = Some(reason),
            }
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, MILLISECOND};
    use crate::srtp::TAG_BYTES;

    /// An ICE-lite server made of a stock `Rtc` with the same tap.
    struct Server {
        rtc: Rtc,
        tap: Tap,
        address: SocketAddr,
    }

    impl Server {
        fn new(clock: Clock, fingerprint: &str, address: SocketAddr) -> (Self, Remote) {
            let identity = Identity::generate().unwrap();
            let (mut rtc, tap) = identity.agent(clock.instant(0)).unwrap();
            rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
            let mut api = rtc.direct_api();
            api.set_ice_lite(true);
            api.set_ice_controlling(false);
            api.set_remote_fingerprint(
                Fingerprint::from_str(&format!("sha-256 {fingerprint}")).unwrap(),
            );
            let credentials = api.local_ice_credentials();
            api.start_dtls(false).unwrap();
            let remote = Remote {
                ufrag: credentials.ufrag,
                password: credentials.pass,
                address,
                fingerprint: format!("sha-256 {}", identity.fingerprint()),
            };
            (Self { rtc, tap, address }, remote)
        }

        fn drain(&mut self) -> Vec<Vec<u8>> {
            let mut out = Vec::new();
            loop {
                match self.rtc.poll_output().unwrap() {
                    Output::Timeout(_) => return out,
                    Output::Transmit(transmit) => out.push(transmit.contents.into()),
                    Output::Event(_) => {}
                }
            }
        }

        fn deliver(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) {
            let contents = datagram.try_into().unwrap();
            let destination = self.address;
            let proto = Protocol::Udp;
            let received = Receive { proto, source, destination, contents };
            self.rtc.handle_input(Input::Receive(now, received)).unwrap();
        }
    }

    #[test]
    fn an_agent_connects_to_an_ice_lite_server_and_both_hold_the_same_keys() {
        let clock = Clock::start();
        let identity = Identity::generate().unwrap();
        let address = "127.0.0.1:4000".parse().unwrap();
        let local = "127.0.0.1:5000".parse().unwrap();
        let (mut server, remote) = Server::new(clock, identity.fingerprint(), address);
        let mut agent = Agent::start(&identity, clock.instant(0), local, &remote).unwrap();
        // The server learns the client's credentials from signalling in stock str0m.
        let credentials = agent.rtc.direct_api().local_ice_credentials();
        server.rtc.direct_api().set_remote_ice_credentials(credentials);
        let (mut ice, mut srtp) = (false, None);
        for step in 0..2_000 {
            let now = clock.instant(step * 5 * MILLISECOND);
            let mut out = Vec::new();
            let mut all = vec![agent.handle_timeout(now, &mut out)];
            server.rtc.handle_input(Input::Timeout(now)).unwrap();
            for datagram in out {
                server.deliver(now, local, &datagram);
                for answer in server.drain() {
                    let mut more = Vec::new();
                    all.push(agent.handle_datagram(now, &answer, &mut more));
                    for datagram in more {
                        server.deliver(now, local, &datagram);
                    }
                }
            }
            for answer in server.drain() {
                all.push(agent.handle_datagram(now, &answer, &mut Vec::new()));
            }
            for progress in all {
                assert_eq!(progress.failure, None);
                ice |= progress.ice_connected;
                srtp = srtp.or(progress.srtp);
            }
            if srtp.is_some() {
                break;
            }
        }
        assert!(ice);
        let (ours, theirs) = (srtp.unwrap(), server.tap.srtp().unwrap().unwrap());
        assert_eq!(ours.profile(), theirs.profile());
        let mut body = vec![1; 8 + TAG_BYTES];
        ours.seal_rtp(1, 2, b"header", &mut body).unwrap();
        assert_eq!(theirs.open_rtp(1, 2, b"header", &mut body).unwrap(), [1; 8]);
    }

    #[test]
    fn nothing_that_looks_like_media_reaches_the_agent() {
        let clock = Clock::start();
        let identity = Identity::generate().unwrap();
        let (_server, remote) =
            Server::new(clock, identity.fingerprint(), "127.0.0.1:4000".parse().unwrap());
        let local = "127.0.0.1:5000".parse().unwrap();
        let mut agent = Agent::start(&identity, clock.instant(0), local, &remote).unwrap();
        for first in 128..=191 {
            let mut out = Vec::new();
            let progress = agent.handle_datagram(clock.instant(0), &[first; 64], &mut out);
            assert!(progress.failure.is_none() && out.is_empty());
        }
    }
}
