//! One client transport: a socket, its ICE and DTLS, its keys and its media.
//!
//! Owned by a worker and used on its thread. What flows once keys are there is [`Media`]'s; an
//! idle transport puts its agent away then and keeps up [`Consent`] alone.

use std::ops::Range;

use crate::agent::{Agent, Progress, Remote};
use crate::clock::Clock;
use crate::consent::Consent;
use crate::dtls::Identity;
use crate::media::{Media, Wire};
use crate::plan::Conduct;
use crate::rng::Rng;
use crate::rtp::is_media;
use crate::socket::{Message, Socket, SocketOptions};
use crate::srtp::Srtp;
use crate::tally::{Stage, Tally};

/// What a worker shares between its endpoints.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// The run's time axis.
    pub(crate) clock: Clock,
    /// Nanoseconds since 1970 at its origin.
    pub(crate) unix_origin: u64,
    /// Counts of this worker.
    pub(crate) tally: Tally,
    /// The measured window, ns of the run; empty before it is known.
    pub(crate) window: Range<u64>,
    /// Sampling gaps and phases.
    pub(crate) rng: Rng,
    /// One of how many packets is opened.
    pub(crate) sample: u64,
    /// How clients behave.
    pub(crate) conduct: Conduct,
    /// Reused for outgoing ICE and DTLS.
    pub(crate) datagrams: Vec<Vec<u8>>,
    /// Reused for outgoing bursts.
    pub(crate) packets: Vec<Vec<u8>>,
    /// Reused for outgoing RTCP.
    pub(crate) report: Vec<u8>,
}

/// What an endpoint is opened with.
#[derive(Debug)]
pub(crate) struct Opening {
    /// The server's end.
    pub(crate) remote: Remote,
    /// The peer's canonical name.
    pub(crate) cname: String,
    /// When a join during the run was due, ns of the run; none for one that stays.
    pub(crate) join_due: Option<u64>,
}

/// How far an endpoint has come.
#[derive(Debug)]
enum State {
    /// ICE is looking for a pair since.
    Checking { since: u64 },
    /// DTLS shakes hands since.
    Handshaking { since: u64 },
    /// Media may flow.
    Connected(Srtp),
    /// It will not work, works no longer, or is no longer wanted.
    Over,
}

/// Who keeps the path open.
#[derive(Debug)]
enum Keeper {
    /// A whole ICE agent with DTLS.
    Agent(Box<Agent>),
    /// Consent alone.
    Consent(Consent),
}

/// What happened to an endpoint that others want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It may send and receive media.
    Connected,
    /// It never will, or no longer does.
    Failed(String),
}

/// One client transport.
#[derive(Debug)]
pub(crate) struct Endpoint {
    socket: Socket,
    keeper: Keeper,
    remote: Remote,
    state: State,
    media: Media,
    join_due: Option<u64>,
    /// The stages of its joining are recorded.
    times: bool,
}

impl Endpoint {
    /// An endpoint that begins to look for the server when first driven.
    pub(crate) fn open(
        opening: Opening,
        identity: &Identity,
        options: SocketOptions,
        around: &mut Surroundings,
    ) -> Result<Self, String> {
        let Opening { remote, cname, join_due } = opening;
        let now = around.clock.now();
        let socket = Socket::connect(remote.address, options).map_err(|error| error.to_string())?;
        around.tally.gro_refused |= options.gro && !socket.has_gro();
        let local = socket.local_address().map_err(|error| error.to_string())?;
        let agent = Agent::start(identity, around.clock.instant(now), local, &remote)?;
        let times = join_due.is_some() || !around.conduct.churns;
        Ok(Self {
            socket,
            keeper: Keeper::Agent(Box::new(agent)),
            remote,
            state: State::Checking { since: now },
            media: Media::new((cname, join_due.is_some()), &around.conduct, now, &mut around.rng),
            join_due,
            times,
        })
    }

    /// A value of each line of it that a datagram needs, to read it ahead of time.
    pub(crate) fn touch(&self) -> usize {
        usize::from(matches!(self.state, State::Connected(_)))
            + usize::from(self.socket.has_gro())
            + usize::from(self.times)
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Its streams.
    pub(crate) fn media(&self) -> &Media {
        &self.media
    }

    /// Its streams.
    pub(crate) fn media_mut(&mut self) -> &mut Media {
        &mut self.media
    }

    /// True while media may flow.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected(_))
    }

    /// True for a join during the run.
    pub(crate) fn is_transient(&self) -> bool {
        self.join_due.is_some()
    }

    /// True while it connects, or, joining during the run, waits for its first packet: the time
    /// that takes is measured.
    pub(crate) fn is_joining(&self) -> bool {
        match self.state {
            State::Checking { .. } | State::Handshaking { .. } => true,
            State::Connected(_) => self.is_transient() && self.media.is_silent(),
            State::Over => false,
        }
    }

    /// Closes the books of the window.
    pub(crate) fn finish(&mut self, around: &mut Surroundings) {
        let Surroundings { tally, window, .. } = around;
        self.media.finish(window, tally);
        tally.counts.receive_drops += u64::from(self.socket.new_drops());
        if !matches!(self.state, State::Over) {
            // Who has left may find that the server closed a port for it.
            tally.counts.refused += self.socket.new_refusals();
        }
        if let State::Connected(srtp) = &self.state {
            tally.profiles.push(srtp.profile().name());
        }
    }

    /// It leaves: its books are closed, and what still arrives is let go.
    pub(crate) fn retire(&mut self, around: &mut Surroundings) {
        if let Some(due) = self.join_due
            && around.window.contains(&due)
            && self.media.is_silent()
        {
            around.tally.counts.joins_failed += 1;
        }
        if around.window.contains(&around.clock.now()) {
            around.tally.counts.leaves += 1;
        }
        self.finish(around);
        self.state = State::Over;
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn poll_timeout(&self, clock: &Clock) -> u64 {
        let keeper = match &self.keeper {
            Keeper::Agent(agent) => clock.at(agent.poll_timeout()),
            Keeper::Consent(consent) => consent.poll_timeout(),
        };
        match &self.state {
            State::Over => u64::MAX,
            State::Connected(_) => keeper.min(self.media.poll_timeout()),
            _ => keeper,
        }
    }

    /// Lets time pass: ICE, DTLS, reports.
    pub(crate) fn handle_timeout(&mut self, now: u64, around: &mut Surroundings) -> Option<Change> {
        if matches!(self.state, State::Over) {
            return None;
        }
        let change = match &mut self.keeper {
            Keeper::Agent(agent) => {
                let instant = around.clock.instant(now);
                if instant >= agent.poll_timeout() {
                    let progress = agent.handle_timeout(instant, &mut around.datagrams);
                    self.advance(progress, now, around)
                } else {
                    None
                }
            }
            Keeper::Consent(consent) => match consent.handle_timeout(now, &mut around.rng) {
                Ok(request) => {
                    // Lost ones are followed by others.
                    let _ = request.is_some_and(|request| self.socket.send(&request));
                    None
                }
                Err(reason) => {
                    self.state = State::Over;
                    Some(Change::Failed(reason))
                }
            },
        };
        if let State::Connected(srtp) = &mut self.state
            && now >= self.media.poll_timeout()
        {
            self.media.handle_timeout(now, &mut Wire { srtp, socket: &self.socket }, around);
        }
        change
    }

    fn time(&self, stage: Stage, nanoseconds: u64, tally: &mut Tally) {
        if self.times {
            tally.stages.record(stage, nanoseconds);
        }
    }

    /// Takes what the agent has to say and sends what it wants sent.
    fn advance(
        &mut self,
        progress: Progress,
        now: u64,
        around: &mut Surroundings,
    ) -> Option<Change> {
        for datagram in around.datagrams.drain(..) {
            // ICE and DTLS send again by themselves.
            let _ = self.socket.send(&datagram);
        }
        if let Some(reason) = progress.failure {
            self.state = State::Over;
            return Some(Change::Failed(reason));
        }
        if progress.ice_connected
            && let State::Checking { since } = self.state
        {
            self.time(Stage::Ice, now - since, &mut around.tally);
            self.state = State::Handshaking { since: now };
        }
        let srtp = progress.srtp?;
        if let State::Handshaking { since } | State::Checking { since } = self.state {
            self.time(Stage::Dtls, now - since, &mut around.tally);
        }
        self.state = State::Connected(srtp);
        if around.conduct.idle
            && let Keeper::Agent(agent) = &mut self.keeper
        {
            let ufrag = agent.local_ufrag();
            let consent = Consent::new(&self.remote, &ufrag, now, &mut around.rng);
            self.keeper = Keeper::Consent(consent);
        }
        Some(Change::Connected)
    }

    /// Takes one received message; returns how many streams began with it.
    pub(crate) fn handle_message(
        &mut self,
        message: Message<'_>,
        now: u64,
        around: &mut Surroundings,
    ) -> (Option<Change>, u32) {
        let arrival = message
            .kernel_unix
            .map_or(now, |unix| unix.saturating_sub(around.unix_origin).min(now));
        let (mut change, mut begun) = (None, 0);
        for datagram in message.bytes.chunks_mut(message.segment) {
            if !is_media(datagram) {
                change = self.handle_setup(datagram, now, around).or(change);
            } else if let State::Connected(srtp) = &mut self.state {
                let mut wire = Wire { srtp, socket: &self.socket };
                begun += self.media.handle_datagram(datagram, arrival, &mut wire, around);
            }
        }
        if begun > 0 {
            self.note_join(begun, arrival, around);
        }
        (change, begun)
    }

    /// Takes a datagram of ICE or DTLS.
    fn handle_setup(
        &mut self,
        datagram: &[u8],
        now: u64,
        around: &mut Surroundings,
    ) -> Option<Change> {
        if matches!(self.state, State::Over) {
            return None;
        }
        match &mut self.keeper {
            Keeper::Agent(agent) => {
                let instant = around.clock.instant(now);
                let progress = agent.handle_datagram(instant, datagram, &mut around.datagrams);
                self.advance(progress, now, around)
            }
            Keeper::Consent(consent) => {
                consent.handle_datagram(datagram, now);
                None
            }
        }
    }

    /// A join during the run is done with its first packet of any stream.
    fn note_join(&mut self, begun: u32, arrival: u64, around: &mut Surroundings) {
        let Some(due) = self.join_due.filter(|_| self.media.begun() == begun) else { return };
        if around.window.contains(&due) {
            around.tally.counts.joins_done += 1;
            around.tally.stages.record(Stage::Join, arrival.saturating_sub(due));
        }
    }

    /// Sends a frame of one of its encodings; `now` is the time just before.
    pub(crate) fn send_burst(&mut self, which: (usize, u64), now: u64, around: &mut Surroundings) {
        let State::Connected(srtp) = &mut self.state else { return };
        self.media.send_burst(which, now, &mut Wire { srtp, socket: &self.socket }, around);
    }
}
