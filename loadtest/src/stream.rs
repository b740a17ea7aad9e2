//! One received stream: what a client makes of it, and what it counts.
//!
//! Owned by an endpoint, used on its worker's thread; no I/O. It opens a random sample of packets:
//! each gives the offset between the forwarder's numbering and the publisher's counter, and with it
//! every other packet is identified by its readable sequence number alone. The publisher says which
//! counters belong to the measured window ([`Marks`]). A stream that may change its encoding, or that
//! comes and goes within the window, has no such numbering: it is opened in full, or counted by the
//! gaps in its own sequence numbers.

use std::ops::Range;
use std::sync::Arc;

use crate::clock::SECOND;
use crate::marks::{GRACE, Marks};
use crate::parameters::Received;
use crate::payload::{self, Kind};
use crate::picture::{FrameClock, Jitter};
use crate::repair::Missing;
use crate::rng::Rng;
use crate::rtcp::{ReportBlock, unwrap};
use crate::rtp::Header;
use crate::srtp::{Srtp, TAG_BYTES};
use crate::tally::{Arrival, Counts, Seen, Tally};

/// What an [`Incoming`] is made of.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    /// The wire, as the server described it.
    pub(crate) received: Received,
    /// The numbers of the encodings behind it.
    pub(crate) numbers: Range<u32>,
    /// Their kind.
    pub(crate) kind: Kind,
    /// The window of the one encoding behind it; none for a stream that is counted by its gaps.
    pub(crate) marks: Option<Arc<Marks>>,
    /// It comes and goes while the run goes on.
    pub(crate) transient: bool,
    /// When the server answered, ns of the run.
    pub(crate) since: u64,
}

/// What an incoming stream needs of its surroundings.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// The transport's keys.
    pub(crate) srtp: &'a Srtp,
    /// Where to count.
    pub(crate) tally: &'a mut Tally,
    /// Sampling gaps.
    pub(crate) rng: &'a mut Rng,
    /// One of how many packets is opened; not zero.
    pub(crate) sample: u64,
    /// The measured window, ns of the run.
    pub(crate) window: Range<u64>,
}

/// A packet's readable part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// Its sequence number.
    pub(crate) sequence: u16,
    /// Its RTP time stamp.
    pub(crate) timestamp: u32,
    /// Last of its frame.
    pub(crate) marker: bool,
    /// Bytes before its payload.
    pub(crate) bytes: usize,
    /// When it arrived, ns of the run.
    pub(crate) arrival: u64,
}

impl Head {
    /// What a header says of a packet that arrived then.
    pub(crate) fn new(header: &Header<'_>, arrival: u64) -> Self {
        let Header { sequence, timestamp, marker, bytes, .. } = *header;
        Self { sequence, timestamp, marker, bytes, arrival }
    }
}

/// A stream that a client receives.
#[derive(Debug)]
pub(crate) struct Incoming {
    subscription: Subscription,
    highest: Option<i64>,
    first: i64,
    packets: u64,
    reported: (u64, u64),
    last_report: Option<(u32, u64)>,
    offset: Option<i64>,
    until_sample: u64,
    measured: bool,
    in_window: u64,
    span: Option<(u64, u64)>,
    /// When the last packet of the window arrived.
    last_arrival: u64,
    /// The stillness at the end of the window is still to be counted.
    watched: bool,
    seen: Box<Seen>,
    jitter: Jitter,
    frames: FrameClock,
    missing: Option<Missing>,
    repair_highest: Option<i64>,
    layer: Option<u32>,
}

impl Incoming {
    /// A stream of which nothing has arrived. With `repair`, what is missing of video is asked for.
    pub(crate) fn new(subscription: Subscription, repair: bool) -> Self {
        let missing = (repair && subscription.kind == Kind::Video).then(Missing::default);
        Self {
            subscription,
            highest: None,
            first: 0,
            packets: 0,
            reported: (0, 0),
            last_report: None,
            offset: None,
            until_sample: 0,
            measured: false,
            in_window: 0,
            span: None,
            last_arrival: 0,
            watched: false,
            seen: Box::default(),
            jitter: Jitter::default(),
            frames: FrameClock::default(),
            missing,
            repair_highest: None,
            layer: None,
        }
    }

    /// A value of each line of it that a packet needs, to read it ahead of time.
    pub(crate) fn touch(&self) -> usize {
        usize::from(self.highest.is_some())
            + usize::from(self.packets == 0)
            + usize::from(self.subscription.marks.is_some())
            + usize::from(self.subscription.received.repair_ssrc.is_some())
            + usize::from(self.measured)
            + usize::from(self.span.is_some())
            + usize::from(self.missing.is_some())
            + usize::from(self.repair_highest.is_some())
            + usize::from(self.frames.is_waiting())
    }

    /// The same of what lies behind that.
    pub(crate) fn touch_seen(&self) -> usize {
        self.seen.touch()
    }

    /// What the server said about it.
    pub(crate) fn received(&self) -> Received {
        self.subscription.received
    }

    /// How long ago it was subscribed to.
    pub(crate) fn waited(&self, now: u64) -> u64 {
        now.saturating_sub(self.subscription.since)
    }

    /// True until its first packet.
    pub(crate) fn is_silent(&self) -> bool {
        self.packets == 0
    }

    /// The packets that are missing; none without repair.
    pub(crate) fn missing(&mut self) -> Option<&mut Missing> {
        self.missing.as_mut()
    }

    /// Begins to measure a window.
    pub(crate) fn measure(&mut self) {
        (self.measured, self.in_window, self.span) = (true, 0, None);
        self.watched = self.subscription.kind == Kind::Video && !self.subscription.transient;
    }

    /// Closes the books of a window, ns of the run.
    pub(crate) fn finish(&mut self, window: &Range<u64>, tally: &mut Tally) {
        if !std::mem::take(&mut self.measured) {
            return;
        }
        tally.counts.video_streams += u64::from(self.watched_all(window, tally));
        let expected = match &self.subscription.marks {
            Some(marks) => marks.count(),
            None => self.span.map_or(0, |(first, last)| last - first + 1),
        };
        tally.counts.expected += expected;
        let by_gaps = self.subscription.marks.is_none();
        let due = expected > 0 || by_gaps && !self.subscription.transient;
        if self.in_window == 0 && due {
            tally.counts.silent_streams += 1;
        }
        tally.counts.stopped_streams += u64::from(self.has_stopped(window));
        if self.packets > 1 {
            tally.jitter.record(self.jitter.nanoseconds(self.subscription.kind.clock_rate()));
        }
    }

    /// True when packets came in the window, but none at its end: none for a second, nor for three
    /// times what lies between two frames.
    fn has_stopped(&self, window: &Range<u64>) -> bool {
        let quiet = window.end.saturating_sub(self.last_arrival);
        let usual = self.frames.mean().saturating_mul(3).max(SECOND);
        self.in_window > 0 && !self.subscription.transient && quiet > usual
    }

    /// Counts the stillness at the end of the window, once; true for a picture that was to be seen
    /// all the time.
    fn watched_all(&mut self, window: &Range<u64>, tally: &mut Tally) -> bool {
        if std::mem::take(&mut self.watched) {
            let still = self.frames.still(window);
            tally.counts.freezes += still.freezes;
            tally.counts.frozen_ns += still.frozen;
        }
        self.subscription.kind == Kind::Video && !self.subscription.transient
    }

    /// Notes a packet, and opens it when it belongs to the sample.
    pub(crate) fn handle_packet(
        &mut self,
        packet: &mut [u8],
        head: Head,
        context: &mut Context<'_>,
    ) {
        let index = match self.highest {
            Some(highest) => unwrap(highest, head.sequence),
            None => {
                self.first = i64::from(head.sequence);
                self.first
            }
        };
        self.note_order(index, head, context.tally);
        self.packets += 1;
        let mut due = None;
        let layered = self.subscription.numbers.len() > 1;
        if self.offset.is_none() || self.until_sample == 0 || layered {
            // One to 2n - 1, so n on average, and never in step with the bursts.
            self.until_sample = 1 + context.rng.below(2 * context.sample - 1);
            due = self.open(index, packet, head, context);
        }
        self.until_sample -= u64::from(self.until_sample > 0);
        let bytes = packet.len().saturating_sub(TAG_BYTES);
        // A server may begin with what it kept since a key frame: that was due before it was asked.
        let due = due.filter(|due| *due >= self.subscription.since);
        if self.count(index, bytes, head.arrival, context)
            && let Some(due) = due
        {
            context.tally.counts.sampled += 1;
            context.tally.latency.record(head.arrival.saturating_sub(due));
        }
        if self.subscription.kind == Kind::Video {
            self.note_picture(head.marker.then_some(index), head.arrival, context);
        }
    }

    /// What the order of arrival says: gaps, jitter.
    fn note_order(&mut self, index: i64, head: Head, tally: &mut Tally) {
        let Some(highest) = self.highest.filter(|highest| index <= *highest) else {
            if let (Some(missing), Some(highest)) = (&mut self.missing, self.highest)
                && index > highest + 1
            {
                tally.counts.given_up += missing.note(highest + 1, index, head.arrival);
            }
            self.highest = Some(index);
            let clock_rate = self.subscription.kind.clock_rate();
            self.jitter.note(head.timestamp, head.arrival, clock_rate);
            return;
        };
        debug_assert!(index <= highest);
        if let Some(missing) = &mut self.missing {
            // It was late, not lost.
            missing.fill(index);
        }
    }

    /// Counts a packet that belongs to the window; true when it is the first of its number.
    fn count(&mut self, index: i64, bytes: usize, arrival: u64, context: &mut Context<'_>) -> bool {
        let number = match &self.subscription.marks {
            Some(marks) => self
                .offset
                .and_then(|offset| u64::try_from(index + offset).ok())
                .filter(|counter| marks.contains(*counter) && arrival < context.window.end + GRACE),
            None => u64::try_from(index).ok().filter(|_| context.window.contains(&arrival)),
        };
        let Some(number) = number.filter(|_| self.measured) else { return false };
        let counts = &mut context.tally.counts;
        match self.seen.insert(number) {
            Arrival::Next => {}
            Arrival::Reordered => counts.reordered += 1,
            Arrival::Duplicate => {
                counts.duplicates += 1;
                return false;
            }
            Arrival::TooOld => {
                counts.too_old += 1;
                return false;
            }
        }
        let (first, last) = self.span.unwrap_or((number, number));
        self.span = Some((first.min(number), last.max(number)));
        self.in_window += 1;
        self.last_arrival = arrival;
        counts.delivered += 1;
        counts.delivered_bytes += u64::try_from(bytes).unwrap_or(0);
        true
    }

    /// Opens a packet: learns the numbering and returns when it was due.
    fn open(
        &mut self,
        index: i64,
        packet: &mut [u8],
        head: Head,
        context: &mut Context<'_>,
    ) -> Option<u64> {
        let (header, body) = packet.split_at_mut_checked(head.bytes)?;
        let ssrc = self.subscription.received.ssrc;
        let rtp_index = u64::try_from(index).ok()?;
        let counts = &mut context.tally.counts;
        let Ok(payload) = context.srtp.open_rtp(ssrc, rtp_index, header, body) else {
            counts.undecryptable += 1;
            return None;
        };
        self.learn(index, payload, head.arrival, context)
    }

    /// Learns from an opened payload which packet of the publisher this is; returns when it was due.
    fn learn(
        &mut self,
        index: i64,
        payload: &[u8],
        arrival: u64,
        context: &mut Context<'_>,
    ) -> Option<u64> {
        let counts = &mut context.tally.counts;
        let numbers = &self.subscription.numbers;
        let stamp = payload::read(self.subscription.kind, payload)
            .filter(|stamp| numbers.contains(&stamp.publication));
        let Some(stamp) = stamp else {
            counts.unstamped += 1;
            return None;
        };
        if numbers.len() > 1 {
            let layer = stamp.publication - numbers.start;
            if context.window.contains(&arrival) {
                let moved = self.layer.is_some_and(|known| known != layer);
                counts.switches += u64::from(moved);
                note_layer(counts, layer);
            }
            self.layer = Some(layer);
            return Some(stamp.due);
        }
        let offset = i64::try_from(stamp.counter).ok()? - index;
        if self.offset.is_some_and(|known| known != offset) {
            counts.renumbered += 1;
        }
        self.offset = Some(offset);
        Some(stamp.due)
    }

    /// Takes a packet of its repair stream (RFC 4588): what it brings is no longer missing.
    pub(crate) fn handle_repair(
        &mut self,
        packet: &mut [u8],
        head: Head,
        context: &mut Context<'_>,
    ) {
        let Some(ssrc) = self.subscription.received.repair_ssrc else { return };
        let index = match self.repair_highest {
            Some(highest) => unwrap(highest, head.sequence),
            None => i64::from(head.sequence),
        };
        self.repair_highest = Some(self.repair_highest.map_or(index, |known| known.max(index)));
        let padded = packet.first().is_some_and(|first| first & 0x20 != 0);
        let Some((header, body)) = packet.split_at_mut_checked(head.bytes) else { return };
        let Ok(rtp_index) = u64::try_from(index) else { return };
        let Ok(body) = context.srtp.open_rtp(ssrc, rtp_index, header, body) else {
            context.tally.counts.undecryptable += 1;
            return;
        };
        let padding = body.last().map_or(0, |last| usize::from(*last) * usize::from(padded));
        let content = body.get(..body.len().saturating_sub(padding)).unwrap_or_default();
        // Nothing but padding probes the path.
        let Some((original, payload)) = content.split_first_chunk::<2>() else { return };
        let Some(highest) = self.highest else { return };
        let index = unwrap(highest, u16::from_be_bytes(*original));
        context.tally.counts.repairs += 1;
        let noted = self.missing.as_mut().and_then(|missing| missing.fill(index));
        let Some((noted, _)) = noted else { return };
        // All are opened, and as many count for latency as of other packets.
        let layered = self.subscription.numbers.len() > 1;
        let sampled = layered || context.rng.below(context.sample) == 0;
        let due = self.learn(index, payload, head.arrival, context);
        let due = due.filter(|due| sampled && *due >= self.subscription.since);
        let bytes = head.bytes + payload.len();
        if self.count(index, bytes, head.arrival, context) {
            if let Some(due) = due {
                context.tally.counts.sampled += 1;
                context.tally.latency.record(head.arrival.saturating_sub(due));
            }
            context.tally.counts.repaired += 1;
            context.tally.repair.record(head.arrival.saturating_sub(noted));
        }
        self.note_picture(head.marker.then_some(index), head.arrival, context);
    }

    /// Notes a frame's last packet, and which frames are whole now.
    fn note_picture(&mut self, last: Option<i64>, now: u64, context: &mut Context<'_>) {
        if let Some(index) = last {
            self.frames.note_last(index);
        } else if self.missing.is_none() || !self.frames.is_waiting() {
            return;
        }
        let oldest = self.missing.as_ref().and_then(Missing::oldest);
        let window = &context.window;
        if now >= window.end {
            // What a frame ends only now has lasted until the end.
            self.watched_all(window, context.tally);
        }
        let shown = self.frames.complete(oldest, now);
        if window.contains(&now) && !self.subscription.transient {
            let counts = &mut context.tally.counts;
            counts.frames += shown.frames;
            counts.freezes += shown.freezes;
            counts.frozen_ns += shown.frozen.min(now - window.start);
        }
    }

    /// Notes a sender report.
    pub(crate) fn handle_report(&mut self, ntp_middle: u32, now: u64) {
        self.last_report = Some((ntp_middle, now));
    }

    /// Its report block; `None` before the first packet.
    pub(crate) fn report(&mut self, now: u64) -> Option<ReportBlock> {
        let highest = self.highest?;
        let expected = u64::try_from(highest - self.first + 1).unwrap_or(0);
        let (expected_before, packets_before) = self.reported;
        self.reported = (expected, self.packets);
        let newly_expected = expected.saturating_sub(expected_before);
        let newly_lost = newly_expected.saturating_sub(self.packets - packets_before);
        let fraction = (newly_lost * 256).checked_div(newly_expected).unwrap_or(0);
        let (last_report, delay) = self.last_report.map_or((0, 0), |(ntp_middle, at)| {
            let delay = u128::from(now.saturating_sub(at)) * 65_536 / u128::from(SECOND);
            (ntp_middle, u32::try_from(delay).unwrap_or(u32::MAX))
        });
        let [.., a, b, c, d] = highest.to_be_bytes();
        Some(ReportBlock {
            ssrc: self.subscription.received.ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            lost: u32::try_from(expected.saturating_sub(self.packets)).unwrap_or(u32::MAX),
            highest: u32::from_be_bytes([a, b, c, d]),
            jitter: self.jitter.ticks(),
            last_report,
            delay,
        })
    }
}

/// Counts a packet of an encoding.
fn note_layer(counts: &mut Counts, layer: u32) {
    match layer {
        0 => counts.layer_0 += 1,
        1 => counts.layer_1 += 1,
        _ => counts.layer_2 += 1,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;
    use crate::outgoing::Outgoing;
    use crate::plan::Plan;
    use crate::srtp::Profile;

    const MS: u64 = 1_000_000;

    /// A publisher, a wire and a subscriber.
    struct Path {
        us: Srtp,
        them: Srtp,
        outgoing: Outgoing,
        incoming: Incoming,
        tally: Tally,
        rng: Rng,
        sample: u64,
        transport: u16,
        now: u64,
    }

    const REPAIR_SSRC: u32 = 0x8000_0000;

    impl Path {
        fn new(line: &str, sample: u64, by_gaps: bool) -> Self {
            let material: Vec<u8> = (0..56).collect();
            let [us, them] =
                [true, false].map(|side| Srtp::new(Profile::Gcm128, &material, side).unwrap());
            let plan = Plan::new(&Args::parse_from(line.split(' ')), "x");
            let (_, _, publication) = plan.publications().next().unwrap();
            let encoding = publication.encodings[0].clone();
            let marks = Arc::new(Marks::default());
            let repair = plan.conduct.repair;
            let ssrc = encoding.ssrc;
            let mut outgoing = Outgoing::new(publication, encoding, Arc::clone(&marks), repair);
            let repair_ssrc = repair.then_some(ssrc | REPAIR_SSRC);
            let subscription = Subscription {
                received: Received { ssrc, repair_ssrc, transport_cc: None },
                numbers: publication.numbers().start..publication.numbers().start + 1,
                kind: publication.kind,
                marks: (!by_gaps).then_some(marks),
                transient: by_gaps,
                since: 0,
            };
            let mut incoming = Incoming::new(subscription, repair);
            incoming.measure();
            outgoing.measure(0, 10 * SECOND);
            let (tally, rng) = (Tally::default(), Rng::new(1));
            Self { us, them, outgoing, incoming, tally, rng, sample, transport: 0, now: 0 }
        }

        fn burst(&mut self, burst: u64) -> Vec<Vec<u8>> {
            let mut packets = Vec::new();
            self.outgoing.write_burst(burst, &self.us, &mut self.transport, &mut packets);
            self.now = self.outgoing.schedule().burst_due(burst) + MS;
            packets
        }

        fn arrive(&mut self, mut packet: Vec<u8>) {
            let header = Header::read(&packet).unwrap();
            let (head, ssrc) = (Head::new(&header, self.now), header.ssrc);
            let mut context = Context {
                srtp: &self.them,
                tally: &mut self.tally,
                rng: &mut self.rng,
                sample: self.sample,
                window: 0..10 * SECOND,
            };
            if ssrc & REPAIR_SSRC == 0 {
                self.incoming.handle_packet(&mut packet, head, &mut context);
            } else {
                self.incoming.handle_repair(&mut packet, head, &mut context);
            }
        }

        fn asked(&mut self) -> Vec<i64> {
            let mut indexes = Vec::new();
            self.incoming.missing().unwrap().ask(self.now, &mut indexes);
            indexes
        }

        fn repair(&mut self, index: i64) -> Vec<u8> {
            let mut packet = Vec::new();
            let sequence = crate::rtcp::low_16(index);
            self.outgoing.write_repair(sequence, &self.us, self.transport, &mut packet).unwrap();
            packet
        }

        fn finish(mut self) -> Tally {
            self.outgoing.finish(&mut self.tally);
            self.incoming.finish(&(0..self.now), &mut self.tally);
            self.tally
        }
    }

    /// Plays bursts 0 to 99 through a forwarder that may change each packet's fate, and counts.
    fn play(
        (sample, by_gaps): (u64, bool),
        mut forward: impl FnMut(u64, Vec<u8>) -> Vec<Vec<u8>>,
    ) -> Tally {
        let mut path = Path::new("loadtest livestream --size 300", sample, by_gaps);
        for burst in 0..100 {
            for (place, packet) in (0..).zip(path.burst(burst)) {
                forward(burst * 5 + place, packet).into_iter().for_each(|one| path.arrive(one));
            }
        }
        path.finish()
    }

    #[test]
    fn a_perfect_forwarder_loses_nothing_and_its_latency_is_exact() {
        for sample in [1, 4, 50] {
            let tally = play((sample, false), |_, packet| vec![packet]);
            let counts = tally.counts;
            // The window goes on beyond what was sent: that was due as well.
            assert_eq!(counts.expected, 500);
            assert_eq!((counts.offered, counts.delivered), (5_000, 500));
            assert_eq!((counts.duplicates, counts.reordered, counts.undecryptable), (0, 0, 0));
            assert_eq!(counts.delivered_bytes, 500 * 300);
            assert_eq!(tally.latency.count(), counts.sampled);
            let sampled = 500 / sample;
            assert!(counts.sampled >= sampled / 2 && counts.sampled <= sampled * 2);
            assert!((tally.latency.quantile_us(0.5) - 1_000.0).abs() < 1.0);
            assert_eq!((counts.frames, counts.freezes), (100, 0));
            assert_eq!((tally.jitter.count(), tally.jitter.max_us() < 1.0), (1, true));
        }
    }

    #[test]
    fn losses_duplicates_and_reordering_are_counted_exactly_either_way() {
        for by_gaps in [false, true] {
            let mut held = None;
            let counts = play((4, by_gaps), |counter, packet| match counter {
                100..110 => vec![],
                200..203 => vec![packet.clone(), packet],
                300 => {
                    held = Some(packet);
                    vec![]
                }
                301 => [Some(packet), held.take()].into_iter().flatten().collect(),
                _ => vec![packet],
            })
            .counts;
            assert_eq!((counts.expected, counts.delivered), (500, 490));
            assert_eq!((counts.duplicates, counts.reordered, counts.too_old), (3, 1, 0));
        }
    }

    #[test]
    fn packets_of_other_keys_are_counted_and_a_dead_stream_is_silent() {
        let counts = play((1, false), |_, mut packet| {
            packet[50] ^= 1;
            vec![packet]
        })
        .counts;
        assert_eq!((counts.delivered, counts.undecryptable), (0, 500));
        assert_eq!(counts.silent_streams, 1);
    }

    #[test]
    fn what_is_lost_is_missed_asked_for_and_delivered_by_its_repair() {
        let mut path = Path::new("loadtest lossy --size 300", 4, false);
        for burst in 0..50 {
            for (place, packet) in path.burst(burst).into_iter().enumerate() {
                if burst != 20 || place == 4 {
                    path.arrive(packet);
                }
            }
            let asked = path.asked();
            if burst == 20 {
                assert_eq!(asked.len(), 4);
                path.now += 30 * MS;
                for (place, index) in asked.into_iter().enumerate() {
                    let repair = path.repair(index);
                    path.arrive(repair.clone());
                    if place == 0 {
                        path.now += MS;
                        path.arrive(repair);
                    }
                }
            } else {
                assert!(asked.is_empty());
            }
        }
        let tally = path.finish();
        let counts = tally.counts;
        assert_eq!((counts.expected, counts.delivered, counts.repaired), (250, 250, 4));
        assert_eq!((counts.repairs, counts.duplicates), (5, 0));
        assert_eq!(counts.frames, 50);
        assert!((tally.repair.quantile_us(0.1) - 30_000.0).abs() < 50.0);
    }

    #[test]
    fn the_latency_of_a_packet_that_a_repair_brought_contains_the_wait_for_it() {
        let mut path = Path::new("loadtest lossy --size 300", 1, false);
        for packet in path.burst(0) {
            path.arrive(packet);
        }
        let mut packets = path.burst(1);
        path.arrive(packets.pop().unwrap());
        let asked = path.asked();
        path.now += 30 * MS;
        for index in &asked {
            let repair = path.repair(*index);
            path.arrive(repair);
        }
        let tally = path.finish();
        assert_eq!((asked.len(), tally.counts.repaired), (4, 4));
        assert_eq!((tally.latency.count(), tally.counts.sampled), (10, 10));
        assert!((tally.latency.max_us() - 31_000.0).abs() < 50.0);
        assert!((tally.latency.quantile_us(0.6) - 1_000.0).abs() < 5.0);
    }

    #[test]
    fn a_late_packet_is_reordered_and_not_asked_for_again() {
        let mut path = Path::new("loadtest lossy --size 300", 4, false);
        let mut packets: Vec<_> = (0..10).flat_map(|burst| path.burst(burst)).collect();
        packets.swap(21, 22);
        packets.into_iter().for_each(|packet| path.arrive(packet));
        assert!(path.asked().is_empty());
        let counts = path.finish().counts;
        assert_eq!((counts.delivered, counts.reordered, counts.repaired), (50, 1, 0));
    }

    #[test]
    fn encodings_are_told_apart_and_their_changes_counted() {
        let line = "loadtest simulcast --publishers 1";
        let mut small = Path::new(line, 4, true);
        let plan = Plan::new(&Args::parse_from(line.split(' ')), "x");
        let (_, _, publication) = plan.publications().next().unwrap();
        // The forwarder sends the largest under the smallest one's source, as the server would.
        let large = crate::plan::Encoding {
            ssrc: publication.encodings[0].ssrc,
            sequence: publication.encodings[0].sequence,
            ..publication.encodings[2].clone()
        };
        small.incoming.subscription.numbers = publication.numbers();
        let first = small.burst(0);
        let count = first.len();
        first.into_iter().for_each(|packet| small.arrive(packet));
        let old = std::mem::replace(
            &mut small.outgoing,
            Outgoing::new(publication, large, Arc::default(), false),
        );
        // Numbering goes on: the new one's packets before these are not forwarded.
        drop(old);
        let packets = small.burst(1);
        let sent = packets.len();
        assert!(sent > count + 5);
        packets.into_iter().skip(count).for_each(|packet| small.arrive(packet));
        let counts = small.finish().counts;
        assert_eq!((counts.layer_0, counts.layer_1), (count as u64, 0));
        assert_eq!(counts.layer_2, (sent - count) as u64);
        assert_eq!(counts.switches, 1);
    }

    #[test]
    fn what_was_due_before_it_was_asked_for_arrives_without_a_latency() {
        let mut path = Path::new("loadtest churn --size 300", 1, true);
        let kept: Vec<_> = (0..10).flat_map(|burst| path.burst(burst)).collect();
        path.incoming.subscription.since = path.now;
        kept.into_iter().for_each(|packet| path.arrive(packet));
        path.burst(10).into_iter().for_each(|packet| path.arrive(packet));
        let tally = path.finish();
        assert_eq!((tally.counts.delivered, tally.counts.sampled), (55, 5));
        assert_eq!(tally.latency.count(), 5);
        assert!((tally.latency.max_us() - 1_000.0).abs() < 1.0);
    }

    #[test]
    fn a_stream_that_stops_is_said_to_have_stopped_and_its_picture_to_be_frozen() {
        for by_gaps in [false, true] {
            let mut path = Path::new("loadtest simulcast --size 300", 4, by_gaps);
            path.incoming.subscription.transient = false;
            path.incoming.measure();
            let mut burst = 0;
            while path.now < 2 * SECOND {
                path.burst(burst).into_iter().for_each(|packet| path.arrive(packet));
                burst += 1;
            }
            let last = path.now;
            path.incoming.finish(&(0..5 * SECOND), &mut path.tally);
            let counts = std::mem::take(&mut path.tally.counts);
            assert_eq!((counts.stopped_streams, counts.silent_streams), (1, 0));
            assert_eq!((counts.freezes, counts.frozen_ns), (1, 5 * SECOND - last));
            assert_eq!(counts.video_streams, 1);
            // The first frame after the window does not undo it, nor is it counted twice.
            path.incoming.measure();
            path.now = 11 * SECOND;
            path.outgoing.request_key_frame();
            let mut late = path.burst(burst);
            path.now = 11 * SECOND;
            path.arrive(late.pop().unwrap());
            path.incoming.finish(&(5 * SECOND..10 * SECOND), &mut path.tally);
            let counts = path.tally.counts;
            assert_eq!((counts.stopped_streams, counts.frames), (0, 0));
            assert_eq!(counts.freezes, 1);
            if by_gaps {
                assert_eq!(counts.silent_streams, 1);
            }
        }
    }

    #[test]
    fn a_stream_that_goes_on_to_the_end_has_not_stopped() {
        let counts = play((4, true), |_, packet| vec![packet]).counts;
        assert_eq!((counts.stopped_streams, counts.freezes, counts.frozen_ns), (0, 0, 0));
    }

    #[test]
    fn report_blocks_tell_loss_since_the_last_one_and_in_all() {
        let mut path = Path::new("loadtest livestream", 4, true);
        assert_eq!(path.incoming.report(0), None);
        for sequence in [65_534_u16, 65_535, 0, 3] {
            let mut packet = vec![0x80; 40];
            packet[2..4].copy_from_slice(&sequence.to_be_bytes());
            packet[8] = 0;
            path.arrive(packet);
        }
        path.incoming.handle_report(0xABCD, SECOND);
        let block = path.incoming.report(SECOND + SECOND / 2).unwrap();
        assert_eq!((block.lost, block.fraction_lost), (2, 85));
        assert_eq!((block.highest, block.last_report, block.delay), (0x1_0003, 0xABCD, 32_768));
        let mut packet = vec![0x80; 40];
        packet[2..4].copy_from_slice(&4_u16.to_be_bytes());
        packet[8] = 0;
        path.arrive(packet);
        let block = path.incoming.report(2 * SECOND).unwrap();
        assert_eq!((block.lost, block.fraction_lost), (2, 0));
    }
}
