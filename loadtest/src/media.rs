//! The media of one client transport: its streams both ways, their reports, feedback and repair.
//!
//! Owned by an endpoint, used on its worker's thread once keys are there. It behaves as a browser
//! does: sender and receiver reports each second, transport-wide feedback each 100 ms, key frames
//! when asked; with repair also requests for lost packets, and answers to the server's. Where the
//! run asks for it, a [`Shim`] stands in each direction and makes the network bad.

use std::ops::Range;
use std::sync::Arc;

use crate::clock::{MILLISECOND, SECOND};
use crate::endpoint::Surroundings;
use crate::marks::Marks;
use crate::outgoing::Outgoing;
use crate::plan::{Conduct, Encoding, Publication};
use crate::rng::Rng;
use crate::rtcp::{self, Arrivals, Item};
use crate::rtp::{Header, is_rtcp};
use crate::schedule::Pace;
use crate::shim::{Fate, Shim};
use crate::socket::Socket;
use crate::srtp::Srtp;
use crate::stream::{Context, Head, Incoming, Subscription};
use crate::tally::{Stage, Tally};

/// How often receivers report what arrived.
const FEEDBACK_EVERY: u64 = 100 * MILLISECOND;

/// How often senders and receivers report.
const REPORT_EVERY: u64 = SECOND;

/// How often receivers look whether to ask again (libwebrtc's NACK timer).
const NACK_EVERY: u64 = 20 * MILLISECOND;

/// The way out of a transport.
#[derive(Debug)]
pub(crate) struct Wire<'a> {
    /// Its keys.
    pub(crate) srtp: &'a mut Srtp,
    /// Its socket.
    pub(crate) socket: &'a Socket,
}

/// The streams of one transport.
#[derive(Debug)]
pub(crate) struct Media {
    cname: String,
    transient: bool,
    /// The wait for first packets is recorded.
    times: bool,
    repair: bool,
    outgoing: Vec<Outgoing>,
    incoming: Vec<Incoming>,
    last_hit: usize,
    arrivals: Arrivals,
    transport_sequence: u16,
    feedback_at: u64,
    report_at: u64,
    nack_at: u64,
    report_ssrc: u32,
    up: Option<Shim>,
    down: Option<Shim>,
    indexes: Vec<i64>,
}

impl Media {
    /// The media of a peer, by its canonical name, that does not send or receive yet; `transient`
    /// when it joins during the run.
    pub(crate) fn new(
        (cname, transient): (String, bool),
        conduct: &Conduct,
        now: u64,
        rng: &mut Rng,
    ) -> Self {
        let mut shim = |conditions: crate::shim::Conditions| {
            conditions.are_bad().then(|| Shim::new(conditions, Rng::new(rng.next_u64())))
        };
        let (up, down) = (shim(conduct.up), shim(conduct.down));
        Self {
            cname,
            transient,
            times: transient || !conduct.churns,
            repair: conduct.repair,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            last_hit: 0,
            arrivals: Arrivals::default(),
            transport_sequence: 1,
            // Not all in step.
            feedback_at: now + rng.below(FEEDBACK_EVERY),
            report_at: now + rng.below(REPORT_EVERY),
            nack_at: u64::MAX,
            report_ssrc: rng.next_u32() | 1,
            up,
            down,
            indexes: Vec::new(),
        }
    }

    /// Adds an encoding to send; returns its place.
    pub(crate) fn publish(
        &mut self,
        publication: &Publication,
        encoding: Encoding,
        marks: Arc<Marks>,
    ) -> usize {
        self.outgoing.push(Outgoing::new(publication, encoding, marks, self.repair));
        self.outgoing.len() - 1
    }

    /// Adds a stream to receive.
    pub(crate) fn subscribe(&mut self, subscription: Subscription, measured: bool) {
        let mut stream = Incoming::new(subscription, self.repair);
        if measured {
            stream.measure();
        }
        self.incoming.push(stream);
    }

    /// The encodings it sends.
    pub(crate) fn outgoing(&self) -> &[Outgoing] {
        &self.outgoing
    }

    /// True while nothing has arrived.
    pub(crate) fn is_silent(&self) -> bool {
        self.incoming.iter().all(Incoming::is_silent)
    }

    /// How many streams have begun to arrive.
    pub(crate) fn begun(&self) -> u32 {
        let begun = self.incoming.iter().filter(|stream| !stream.is_silent()).count();
        u32::try_from(begun).unwrap_or(u32::MAX)
    }

    /// Sets the measured window of all its streams.
    pub(crate) fn measure(&mut self, from: u64, until: u64) {
        self.outgoing.iter_mut().for_each(|stream| stream.measure(from, until));
        self.incoming.iter_mut().for_each(Incoming::measure);
    }

    /// Changes the rate of what it sends.
    pub(crate) fn pace(&mut self, pace: Pace) {
        self.outgoing.iter_mut().for_each(|stream| stream.pace(pace));
    }

    /// The window is over: nothing of it is sent any more.
    pub(crate) fn close_window(&self) {
        self.outgoing.iter().for_each(Outgoing::close_window);
    }

    /// Closes the books of a window, ns of the run.
    pub(crate) fn finish(&mut self, window: &Range<u64>, tally: &mut Tally) {
        self.outgoing.iter_mut().for_each(|stream| stream.finish(tally));
        self.incoming.iter_mut().for_each(|stream| stream.finish(window, tally));
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn poll_timeout(&self) -> u64 {
        let feedback = if self.incoming.is_empty() { u64::MAX } else { self.feedback_at };
        self.report_at.min(feedback).min(self.nack_at)
    }

    /// Lets time pass: reports, feedback, requests.
    pub(crate) fn handle_timeout(
        &mut self,
        now: u64,
        wire: &mut Wire<'_>,
        around: &mut Surroundings,
    ) {
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
        if now >= self.nack_at {
            self.write_requests(now, around);
        }
        self.send_report(wire, around);
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

    /// Asks for what is missing, and for a key frame where something has been given up.
    fn write_requests(&mut self, now: u64, around: &mut Surroundings) {
        let mut all_there = true;
        for stream in &mut self.incoming {
            let media = stream.received().ssrc;
            let Some(missing) = stream.missing() else { continue };
            self.indexes.clear();
            let asked = missing.ask(now, &mut self.indexes);
            all_there &= missing.is_empty();
            if !self.indexes.is_empty() {
                rtcp::write_nack(&mut around.report, self.report_ssrc, media, &self.indexes);
            }
            if asked.given_up > 0 {
                rtcp::write_pli(&mut around.report, self.report_ssrc, media);
            }
            if around.window.contains(&now) {
                let counts = &mut around.tally.counts;
                counts.asked += u64::try_from(self.indexes.len()).unwrap_or(0);
                counts.given_up += asked.given_up;
            }
        }
        self.nack_at = if all_there { u64::MAX } else { now + NACK_EVERY };
    }

    /// Seals and sends what was written; a compound packet per kind would only cost more.
    fn send_report(&mut self, wire: &mut Wire<'_>, around: &mut Surroundings) {
        if around.report.is_empty() || wire.srtp.seal_rtcp(&mut around.report).is_err() {
            return;
        }
        if self.up.as_mut().is_some_and(|shim| shim.fate() == Fate::Drop) {
            return;
        }
        if !wire.socket.send(&around.report) {
            around.tally.counts.send_failures += 1;
        }
    }

    /// Takes a received SRTP or SRTCP datagram; returns how many streams began with it.
    pub(crate) fn handle_datagram(
        &mut self,
        datagram: &mut [u8],
        arrival: u64,
        wire: &mut Wire<'_>,
        around: &mut Surroundings,
    ) -> u32 {
        let Some(shim) = &mut self.down else {
            return self.handle_media(datagram, arrival, wire, around);
        };
        match shim.fate() {
            Fate::Drop => {
                let counts = !is_rtcp(datagram) && around.window.contains(&arrival);
                around.tally.counts.lost_down += u64::from(counts);
                0
            }
            Fate::Hold => {
                shim.hold(datagram);
                0
            }
            Fate::Pass => {
                let mut begun = self.handle_media(datagram, arrival, wire, around);
                while let Some(mut held) = self.down.as_mut().and_then(Shim::release) {
                    begun += self.handle_media(&mut held, arrival, wire, around);
                }
                begun
            }
        }
    }

    /// A value of each line of it that a datagram needs, to read it ahead of time.
    pub(crate) fn touch(&self) -> usize {
        self.incoming.get(self.last_hit).map_or(0, Incoming::touch)
            + usize::from(self.repair)
            + usize::from(self.nack_at == u64::MAX)
    }

    /// The same of what lies behind that.
    pub(crate) fn touch_stream(&self) -> usize {
        self.incoming.get(self.last_hit).map_or(0, Incoming::touch_seen) + self.arrivals.touch()
    }

    fn handle_media(
        &mut self,
        datagram: &mut [u8],
        arrival: u64,
        wire: &mut Wire<'_>,
        around: &mut Surroundings,
    ) -> u32 {
        if is_rtcp(datagram) {
            self.handle_rtcp(datagram, arrival, wire, around);
            0
        } else {
            self.handle_rtp(datagram, arrival, wire, around)
        }
    }

    fn handle_rtp(
        &mut self,
        packet: &mut [u8],
        arrival: u64,
        wire: &mut Wire<'_>,
        around: &mut Surroundings,
    ) -> u32 {
        let Some(header) = Header::read(packet) else { return 0 };
        let ssrc = header.ssrc;
        let hit = |stream: &Incoming| stream.received().ssrc == ssrc;
        let is_repair = |stream: &Incoming| stream.received().repair_ssrc == Some(ssrc);
        if !self.incoming.get(self.last_hit).is_some_and(hit) {
            let Some(place) = self.incoming.iter().position(|one| hit(one) || is_repair(one))
            else {
                // Before the window, or its stay, it is a server faster than its own answer.
                let counts = around.window.contains(&arrival) && !self.transient;
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
        let head = Head::new(&header, arrival);
        let Surroundings { tally, rng, sample, window, .. } = around;
        let (sample, window) = (*sample, window.clone());
        let mut context = Context { srtp: &*wire.srtp, tally, rng, sample, window };
        if is_repair(stream) {
            stream.handle_repair(packet, head, &mut context);
            return 0;
        }
        let begins = stream.is_silent();
        if begins && self.times {
            context.tally.stages.record(Stage::FirstPacket, stream.waited(arrival));
        }
        stream.handle_packet(packet, head, &mut context);
        if self.nack_at == u64::MAX && stream.missing().is_some_and(|missing| !missing.is_empty()) {
            self.nack_at = arrival;
        }
        u32::from(begins)
    }

    fn handle_rtcp(
        &mut self,
        packet: &mut [u8],
        now: u64,
        wire: &mut Wire<'_>,
        around: &mut Surroundings,
    ) {
        let Ok(compound) = wire.srtp.open_rtcp(packet) else {
            around.tally.counts.undecryptable += 1;
            return;
        };
        let (outgoing, incoming) = (&mut self.outgoing, &mut self.incoming);
        let counts = &mut around.tally.counts;
        let mut asked = Vec::new();
        rtcp::read(compound, |item| match item {
            Item::KeyFrameRequest { ssrc } => {
                if let Some(stream) = outgoing.iter_mut().find(|stream| stream.ssrc() == ssrc) {
                    stream.request_key_frame();
                    counts.key_frame_requests += 1;
                }
            }
            Item::Nack { ssrc, sequence, mask } => {
                counts.nacked += u64::from(1 + mask.count_ones());
                if let Some(place) = outgoing.iter().position(|stream| stream.ssrc() == ssrc) {
                    asked.push((place, sequence));
                    let behind = (0..16_u16).filter(|bit| mask >> bit & 1 == 1);
                    asked.extend(behind.map(|bit| (place, sequence.wrapping_add(bit + 1))));
                }
            }
            Item::SenderReport { ssrc, ntp_middle } => {
                let mut all = incoming.iter_mut();
                if let Some(stream) = all.find(|stream| stream.received().ssrc == ssrc) {
                    stream.handle_report(ntp_middle, now);
                }
            }
        });
        for (place, sequence) in asked {
            self.send_repair(place, sequence, wire, around);
        }
    }

    /// Sends a packet again, when it is remembered.
    fn send_repair(
        &mut self,
        place: usize,
        sequence: u16,
        wire: &mut Wire<'_>,
        around: &mut Surroundings,
    ) {
        let Some(stream) = self.outgoing.get_mut(place) else { return };
        let mut packet = Vec::new();
        let transport = self.transport_sequence;
        if stream.write_repair(sequence, wire.srtp, transport, &mut packet).is_none() {
            return;
        }
        self.transport_sequence = transport.wrapping_add(1);
        around.tally.counts.resent += 1;
        let (taken, lost) = self.send(std::slice::from_ref(&packet), wire.socket);
        around.tally.counts.send_failures += u64::from(taken == 0);
        around.tally.counts.lost_up += lost;
    }

    /// Sends a frame of one of its encodings; `now` is the time just before.
    pub(crate) fn send_burst(
        &mut self,
        (place, burst): (usize, u64),
        now: u64,
        wire: &mut Wire<'_>,
        around: &mut Surroundings,
    ) {
        let Some(stream) = self.outgoing.get_mut(place) else { return };
        let mut packets = std::mem::take(&mut around.packets);
        stream.write_burst(burst, wire.srtp, &mut self.transport_sequence, &mut packets);
        let measured = stream.measures(burst);
        let late = now.saturating_sub(stream.schedule().burst_due(burst));
        let (taken, lost) = self.send(&packets, wire.socket);
        let all = u64::try_from(packets.len()).unwrap_or(0);
        around.tally.counts.send_failures += all - taken;
        if measured {
            around.tally.counts.sent += taken;
            around.tally.counts.lost_up += lost;
            around.tally.lateness.record(late);
        }
        around.packets = packets;
    }

    /// Sends packets through the network of the way up: how many were taken, by the kernel or by
    /// that network, and how many it lost.
    fn send(&mut self, packets: &[Vec<u8>], socket: &Socket) -> (u64, u64) {
        let Some(shim) = &mut self.up else {
            let taken = socket.send_all(packets.iter().map(Vec::as_slice));
            return (u64::try_from(taken).unwrap_or(0), 0);
        };
        let (mut taken, mut lost) = (0, 0);
        for packet in packets {
            match shim.fate() {
                Fate::Drop => (taken, lost) = (taken + 1, lost + 1),
                Fate::Hold => {
                    shim.hold(packet);
                    taken += 1;
                }
                Fate::Pass => {
                    taken += u64::from(socket.send(packet));
                    while let Some(held) = shim.release() {
                        // It was counted when it was held.
                        let _ = socket.send(&held);
                    }
                }
            }
        }
        (taken, lost)
    }
}
