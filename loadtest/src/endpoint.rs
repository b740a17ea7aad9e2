//! One client transport: a socket, its ICE and DTLS, its keys and the streams over it.
//!
//! Owned by a worker and used on its thread. Behaves as a browser does: sender reports each second,
//! receiver reports each second, transport-wide feedback each 100 ms, key frames when asked. Nothing
//! is asked for again and nothing is sent again, so that loss is seen as it is.

use std::ops::Range;

use crate::agent::{Agent, Progress, Remote};
use crate::clock::{Clock, MILLISECOND, SECOND};
use crate::dtls::Identity;
use crate::plan::Publication;
use crate::rng::Rng;
use crate::rtcp::{self, Arrivals, Item};
use crate::rtp::{Header, is_media, is_rtcp};
use crate::schedule::Pace;
use crate::socket::{Message, Socket, SocketOptions};
use crate::srtp::Srtp;
use crate::stream::{Context, Incoming, Outgoing, Subscription};
use crate::tally::{Stage, Tally};

/// How often receivers report what arrived.
const FEEDBACK_EVERY: u64 = 100 * MILLISECOND;

/// How often senders and receivers report.
const REPORT_EVERY: u64 = SECOND;

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
    /// Reused for outgoing ICE and DTLS.
    pub(crate) datagrams: Vec<Vec<u8>>,
    /// Reused for outgoing bursts.
    pub(crate) packets: Vec<Vec<u8>>,
    /// Reused for outgoing RTCP.
    pub(crate) report: Vec<u8>,
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
    /// It will not work, or works no longer.
    Failed,
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
    agent: Agent,
    state: State,
    cname: String,
    outgoing: Vec<Outgoing>,
    incoming: Vec<Incoming>,
    last_hit: usize,
    arrivals: Arrivals,
    transport_sequence: u16,
    feedback_at: u64,
    report_at: u64,
    report_ssrc: u32,
    drops_told: u32,
}

impl Endpoint {
    /// An endpoint that begins to look for the server when first driven.
    pub(crate) fn open(
        remote: &Remote,
        cname: String,
        identity: &Identity,
        options: SocketOptions,
        around: &mut Surroundings,
    ) -> Result<Self, String> {
        let now = around.clock.now();
        let socket = Socket::connect(remote.address, options).map_err(|error| error.to_string())?;
        around.tally.gro_refused |= options.gro && !socket.has_gro();
        let local = socket.local_address().map_err(|error| error.to_string())?;
        let agent = Agent::start(identity, around.clock.instant(now), local, remote)?;
        Ok(Self {
            socket,
            agent,
            state: State::Checking { since: now },
            cname,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            last_hit: 0,
            arrivals: Arrivals::default(),
            transport_sequence: 1,
            // Not all in step.
            feedback_at: now + around.rng.below(FEEDBACK_EVERY),
            report_at: now + around.rng.below(REPORT_EVERY),
            report_ssrc: around.rng.next_u32() | 1,
            drops_told: 0,
        })
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// True while media may flow.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected(_))
    }

    /// Adds a stream to send; returns its place.
    pub(crate) fn publish(&mut self, publication: Publication) -> usize {
        self.outgoing.push(Outgoing::new(publication));
        self.outgoing.len() - 1
    }

    /// Adds a stream to receive.
    pub(crate) fn subscribe(&mut self, subscription: Subscription) {
        self.incoming.push(Incoming::new(subscription));
    }

    /// The streams it sends.
    pub(crate) fn outgoing(&self) -> &[Outgoing] {
        &self.outgoing
    }

    /// Sets the measured window of all its streams.
    pub(crate) fn measure(&mut self, from: u64, until: u64, tally: &mut Tally) {
        self.outgoing.iter_mut().for_each(|stream| stream.measure(from, until, tally));
        self.incoming.iter_mut().for_each(|stream| stream.measure(from, until, tally));
    }

    /// Changes the rate of its streams.
    pub(crate) fn pace(&mut self, pace: Pace) {
        self.outgoing.iter_mut().for_each(|stream| stream.pace(pace));
        self.incoming.iter_mut().for_each(|stream| stream.pace(pace));
    }

    /// Closes the books of a window.
    pub(crate) fn finish(&mut self, tally: &mut Tally) {
        self.incoming.iter().for_each(|stream| stream.finish(tally));
        let drops = self.socket.drops();
        tally.counts.receive_drops += u64::from(drops.wrapping_sub(self.drops_told));
        self.drops_told = drops;
        if let State::Connected(srtp) = &self.state {
            tally.profiles.push(srtp.profile().name());
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn poll_timeout(&self, clock: &Clock) -> u64 {
        match self.state {
            State::Failed => u64::MAX,
            State::Connected(_) => {
                let agent = clock.at(self.agent.poll_timeout());
                let feedback = if self.incoming.is_empty() { u64::MAX } else { self.feedback_at };
                agent.min(self.report_at).min(feedback)
            }
            _ => clock.at(self.agent.poll_timeout()),
        }
    }

    /// Lets time pass: ICE, DTLS, reports.
    pub(crate) fn handle_timeout(&mut self, now: u64, around: &mut Surroundings) -> Option<Change> {
        let instant = around.clock.instant(now);
        let mut change = None;
        if instant >= self.agent.poll_timeout() && !matches!(self.state, State::Failed) {
            let progress = self.agent.handle_timeout(instant, &mut around.datagrams);
            change = self.advance(progress, now, around);
        }
        if !self.is_connected() {
            return change;
        }
        around.report.clear();
        if now >= self.feedback_at {
            self.feedback_at = (self.feedback_at + FEEDBACK_EVERY).max(now);
            let media = self.incoming.first().map_or(0, |stream| stream.received().ssrc);
            self.arrivals.write(&mut around.report, self.report_ssrc, media);
        }
        if now >= self.report_at {
            self.report_at = (self.report_at + REPORT_EVERY).max(now);
            self.write_reports(now, around);
        }
        self.send_report(around);
        change
    }

    fn write_reports(&mut self, now: u64, around: &mut Surroundings) {
        let unix = around.unix_origin + now;
        for stream in &self.outgoing {
            let info = stream.report(now, unix);
            rtcp::write_sender_report(&mut around.report, &info, &self.cname);
        }
        let blocks: Vec<_> =
            self.incoming.iter_mut().filter_map(|stream| stream.report(now)).collect();
        if !blocks.is_empty() {
            rtcp::write_receiver_report(&mut around.report, self.report_ssrc, &blocks);
        }
    }

    /// Seals and sends what was written; a compound packet per kind would only cost more.
    fn send_report(&mut self, around: &mut Surroundings) {
        let State::Connected(srtp) = &mut self.state else { return };
        if around.report.is_empty() || srtp.seal_rtcp(&mut around.report).is_err() {
            return;
        }
        if !self.socket.send(&around.report) {
            around.tally.counts.send_failures += 1;
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
            self.state = State::Failed;
            return Some(Change::Failed(reason));
        }
        if progress.ice_connected
            && let State::Checking { since } = self.state
        {
            around.tally.stages.record(Stage::Ice, now - since);
            self.state = State::Handshaking { since: now };
        }
        let srtp = progress.srtp?;
        if let State::Handshaking { since } | State::Checking { since } = self.state {
            around.tally.stages.record(Stage::Dtls, now - since);
        }
        self.state = State::Connected(srtp);
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
                let instant = around.clock.instant(now);
                let progress = self.agent.handle_datagram(instant, datagram, &mut around.datagrams);
                change = self.advance(progress, now, around).or(change);
            } else if is_rtcp(datagram) {
                self.handle_rtcp(datagram, now, around);
            } else {
                begun += self.handle_rtp(datagram, arrival, around);
            }
        }
        (change, begun)
    }

    fn handle_rtp(&mut self, packet: &mut [u8], arrival: u64, around: &mut Surroundings) -> u32 {
        let State::Connected(srtp) = &self.state else { return 0 };
        let Some(header) = Header::read(packet) else { return 0 };
        let (ssrc, sequence) = (header.ssrc, header.sequence);
        let hit = |stream: &Incoming| stream.received().ssrc == ssrc;
        if !self.incoming.get(self.last_hit).is_some_and(hit) {
            let Some(place) = self.incoming.iter().position(hit) else {
                // Before the window it is a server that was faster than its own answer.
                let counts = around.window.contains(&arrival);
                around.tally.counts.unknown_streams += u64::from(counts);
                return 0;
            };
            self.last_hit = place;
        }
        let Some(stream) = self.incoming.get_mut(self.last_hit) else { return 0 };
        let id = stream.received().transport_cc;
        let transport = id.and_then(|id| header.extension(id)?.first_chunk().copied());
        if let Some(bytes) = transport {
            self.arrivals.push(u16::from_be_bytes(bytes), arrival);
        }
        let begins = stream.is_silent();
        if begins {
            around.tally.stages.record(Stage::FirstPacket, stream.waited(arrival));
        }
        let Surroundings { tally, rng, sample, .. } = around;
        let mut context = Context { srtp, tally, rng, sample: *sample };
        stream.handle_packet(sequence, packet, arrival, &mut context);
        u32::from(begins)
    }

    fn handle_rtcp(&mut self, packet: &mut [u8], now: u64, around: &mut Surroundings) {
        let State::Connected(srtp) = &self.state else { return };
        let Ok(compound) = srtp.open_rtcp(packet) else {
            around.tally.counts.undecryptable += 1;
            return;
        };
        let (outgoing, incoming) = (&mut self.outgoing, &mut self.incoming);
        let counts = &mut around.tally.counts;
        rtcp::read(compound, |item| match item {
            Item::KeyFrameRequest { ssrc } => {
                if let Some(stream) = outgoing.iter_mut().find(|stream| stream.ssrc() == ssrc) {
                    stream.request_key_frame();
                    counts.key_frame_requests += 1;
                }
            }
            Item::Nack { packets } => counts.nacked += u64::from(packets),
            Item::SenderReport { ssrc, ntp_middle } => {
                let mut all = incoming.iter_mut();
                if let Some(stream) = all.find(|stream| stream.received().ssrc == ssrc) {
                    stream.handle_report(ntp_middle, now);
                }
            }
        });
    }

    /// Sends a burst of one of its streams; `now` is the time just before.
    pub(crate) fn send_burst(
        &mut self,
        place: usize,
        burst: u64,
        now: u64,
        around: &mut Surroundings,
    ) {
        let State::Connected(srtp) = &self.state else { return };
        let Some(stream) = self.outgoing.get_mut(place) else { return };
        let packets = &mut around.packets;
        stream.write_burst(burst, srtp, &mut self.transport_sequence, packets);
        let taken = self.socket.send_all(packets.iter().map(Vec::as_slice));
        let taken = u64::try_from(taken).unwrap_or(0);
        let all = u64::try_from(packets.len()).unwrap_or(0);
        around.tally.counts.send_failures += all - taken;
        if stream.measures(burst) {
            around.tally.counts.sent += taken;
            let late = now.saturating_sub(stream.schedule().burst_due(burst));
            around.tally.lateness.record(late);
        }
    }
}
