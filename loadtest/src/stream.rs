//! One published and one received stream: what they send, and what they count.
//!
//! Owned by an endpoint, used on its worker's thread; no I/O. An [`Incoming`] knows its publication's
//! schedule, so it knows which counters belong to the measured window. It opens a random sample of
//! packets: each gives the offset between the forwarder's numbering and the publisher's counter, and
//! with it every other packet is identified by its readable sequence number alone.

use std::ops::Range;

use crate::clock::SECOND;
use crate::parameters::{self, Received};
use crate::payload::{self, Kind, Place, Stamp};
use crate::plan::Publication;
use crate::rng::Rng;
use crate::rtcp::{ReportBlock, SenderInfo, unwrap};
use crate::rtp::{self, Fields, HEADER_BYTES, Header};
use crate::schedule::{Pace, Schedule, Timetable};
use crate::srtp::{Srtp, TAG_BYTES};
use crate::tally::{Arrival, Seen, Tally};

/// A stream that a client publishes.
#[derive(Debug)]
pub(crate) struct Outgoing {
    publication: Publication,
    timetable: Timetable,
    index: u64,
    packets: u32,
    bytes: u32,
    key_frame: bool,
    window: Range<u64>,
}

impl Outgoing {
    /// A stream that begins with a key frame.
    pub(crate) fn new(publication: Publication) -> Self {
        let index = u64::from(publication.sequence);
        let timetable = publication.schedule.into();
        Self { publication, timetable, index, packets: 0, bytes: 0, key_frame: true, window: 0..0 }
    }

    /// When its packets are due.
    pub(crate) fn schedule(&self) -> Timetable {
        self.timetable
    }

    /// Changes its rate, when it is meant.
    pub(crate) fn pace(&mut self, pace: Pace) {
        if pace.kind == self.publication.kind {
            self.timetable = self.timetable.paced(pace, self.publication.schedule.pps);
        }
    }

    /// Its RTP synchronisation source.
    pub(crate) fn ssrc(&self) -> u32 {
        self.publication.ssrc
    }

    /// Sets the measured window.
    pub(crate) fn measure(&mut self, from: u64, until: u64, tally: &mut Tally) {
        self.window = self.schedule().counters(from, until);
        tally.counts.offered += self.window.end - self.window.start;
    }

    /// True when the burst belongs to the measured window.
    pub(crate) fn measures(&self, burst: u64) -> bool {
        self.window.contains(&(burst * self.publication.schedule.burst))
    }

    /// Makes the next frame a key frame.
    pub(crate) fn request_key_frame(&mut self) {
        self.key_frame = true;
    }

    /// Writes and seals a burst into `packets`, reusing their memory.
    pub(crate) fn write_burst(
        &mut self,
        burst: u64,
        srtp: &Srtp,
        transport_sequence: &mut u16,
        packets: &mut Vec<Vec<u8>>,
    ) {
        let schedule = self.publication.schedule;
        let due = self.timetable.burst_due(burst);
        let key_frame = std::mem::take(&mut self.key_frame);
        packets.resize_with(usize::try_from(schedule.burst).unwrap_or(1), Vec::new);
        for (place, packet) in (0..).zip(packets) {
            let counter = burst * schedule.burst + place;
            let kind = self.publication.kind;
            let last = place + 1 == schedule.burst;
            let fields = Fields {
                marker: kind == Kind::Video && last,
                payload_type: parameters::payload_type(kind),
                sequence: low_16(self.index),
                timestamp: timestamp(kind, due),
                ssrc: self.publication.ssrc,
                mid: self.publication.mid,
                sent: due,
                transport_sequence: *transport_sequence,
                // Voice at -20 dBov.
                level: (kind == Kind::Audio).then_some(0x80 | 20),
            };
            *transport_sequence = transport_sequence.wrapping_add(1);
            packet.resize(self.publication.packet_bytes + TAG_BYTES, 0);
            let place = Place { key_frame, first: place == 0, picture: burst };
            let stamp = Stamp { publication: self.publication.number, counter, due };
            let sealed = self.seal(srtp, &fields, place, stamp, packet);
            debug_assert!(sealed.is_some(), "the command line bounds packet sizes");
            self.index += 1;
            self.packets = self.packets.wrapping_add(1);
            let bytes = self.publication.packet_bytes - HEADER_BYTES;
            self.bytes = self.bytes.wrapping_add(u32::try_from(bytes).unwrap_or(0));
        }
    }

    fn seal(
        &self,
        srtp: &Srtp,
        fields: &Fields,
        place: Place,
        stamp: Stamp,
        packet: &mut [u8],
    ) -> Option<()> {
        rtp::write(fields, packet)?;
        let (header, body) = packet.split_at_mut_checked(HEADER_BYTES)?;
        let room = body.len().checked_sub(TAG_BYTES)?;
        payload::write(self.publication.kind, place, stamp, body.get_mut(..room)?).then_some(())?;
        srtp.seal_rtp(fields.ssrc, self.index, header, body).ok()
    }

    /// Its sender report at a time.
    pub(crate) fn report(&self, now: u64, unix: u64) -> SenderInfo {
        SenderInfo {
            ssrc: self.publication.ssrc,
            unix,
            timestamp: timestamp(self.publication.kind, now),
            packets: self.packets,
            bytes: self.bytes,
        }
    }
}

/// The RTP time stamp of a time of the run.
fn timestamp(kind: Kind, at: u64) -> u32 {
    let ticks = u128::from(at) * u128::from(kind.clock_rate()) / u128::from(SECOND);
    let [.., a, b, c, d] = ticks.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn low_16(number: u64) -> u16 {
    let [.., a, b] = number.to_be_bytes();
    u16::from_be_bytes([a, b])
}

/// What an [`Incoming`] is made of.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    /// The wire, as the server described it.
    pub(crate) received: Received,
    /// The publication behind it.
    pub(crate) number: u32,
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its schedule.
    pub(crate) schedule: Schedule,
    /// When the server answered, ns of the run.
    pub(crate) since: u64,
}

/// A stream that a client receives.
#[derive(Debug)]
pub(crate) struct Incoming {
    subscription: Subscription,
    timetable: Timetable,
    highest: Option<i64>,
    first: i64,
    packets: u64,
    reported: (u64, u64),
    last_report: Option<(u32, u64)>,
    offset: Option<i64>,
    until_sample: u64,
    window: Range<u64>,
    in_window: u64,
    seen: Box<Seen>,
}

impl Incoming {
    /// A stream of which nothing has arrived.
    pub(crate) fn new(subscription: Subscription) -> Self {
        Self {
            timetable: subscription.schedule.into(),
            subscription,
            highest: None,
            first: 0,
            packets: 0,
            reported: (0, 0),
            last_report: None,
            offset: None,
            until_sample: 0,
            window: 0..0,
            in_window: 0,
            seen: Box::default(),
        }
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

    /// Sets the measured window.
    pub(crate) fn measure(&mut self, from: u64, until: u64, tally: &mut Tally) {
        self.window = self.timetable.counters(from, until);
        self.in_window = 0;
        tally.counts.expected += self.window.end - self.window.start;
    }

    /// Changes what is expected of it, when it is meant.
    pub(crate) fn pace(&mut self, pace: Pace) {
        if pace.kind == self.subscription.kind {
            self.timetable = self.timetable.paced(pace, self.subscription.schedule.pps);
        }
    }

    /// Closes the books.
    pub(crate) fn finish(&self, tally: &mut Tally) {
        if self.in_window == 0 && !self.window.is_empty() {
            tally.counts.silent_streams += 1;
        }
    }

    /// Notes a packet, and opens it when it belongs to the sample.
    pub(crate) fn handle_packet(
        &mut self,
        sequence: u16,
        packet: &mut [u8],
        arrival: u64,
        context: &mut Context<'_>,
    ) {
        let index = match self.highest {
            Some(highest) => unwrap(highest, sequence),
            None => {
                self.first = i64::from(sequence);
                self.first
            }
        };
        self.highest = Some(self.highest.map_or(index, |highest| highest.max(index)));
        self.packets += 1;
        let bytes = packet.len().saturating_sub(TAG_BYTES);
        let mut latency = None;
        if self.offset.is_none() || self.until_sample == 0 {
            // One to 2n - 1, so n on average, and never in step with the bursts.
            self.until_sample = 1 + context.rng.below(2 * context.sample - 1);
            latency = self.open(index, packet, arrival, context);
        }
        self.until_sample -= u64::from(self.until_sample > 0);
        let counter = self.offset.and_then(|offset| u64::try_from(index + offset).ok());
        let Some(counter) = counter.filter(|counter| self.window.contains(counter)) else { return };
        let counts = &mut context.tally.counts;
        match self.seen.insert(counter) {
            Arrival::Next => {}
            Arrival::Reordered => counts.reordered += 1,
            Arrival::Duplicate => {
                counts.duplicates += 1;
                return;
            }
            Arrival::TooOld => {
                counts.too_old += 1;
                return;
            }
        }
        self.in_window += 1;
        counts.delivered += 1;
        counts.delivered_bytes += u64::try_from(bytes).unwrap_or(0);
        if let Some(latency) = latency {
            counts.sampled += 1;
            context.tally.latency.record(latency);
        }
    }

    /// Opens a packet: learns the numbering and returns the latency.
    fn open(
        &mut self,
        index: i64,
        packet: &mut [u8],
        arrival: u64,
        context: &mut Context<'_>,
    ) -> Option<u64> {
        let counts = &mut context.tally.counts;
        let header_bytes = Header::read(packet)?.bytes;
        let (header, body) = packet.split_at_mut_checked(header_bytes)?;
        let rtp_index = u64::try_from(index).ok()?;
        let ssrc = self.subscription.received.ssrc;
        let Ok(payload) = context.srtp.open_rtp(ssrc, rtp_index, header, body) else {
            counts.undecryptable += 1;
            return None;
        };
        let stamp = payload::read(self.subscription.kind, payload)
            .filter(|stamp| stamp.publication == self.subscription.number);
        let Some(stamp) = stamp else {
            counts.unstamped += 1;
            return None;
        };
        let offset = i64::try_from(stamp.counter).ok()? - index;
        if self.offset.is_some_and(|known| known != offset) {
            counts.renumbered += 1;
        }
        self.offset = Some(offset);
        Some(arrival.saturating_sub(stamp.due))
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
            last_report,
            delay,
        })
    }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srtp::Profile;

    const SCHEDULE: Schedule = Schedule { phase: 0, pps: 500, burst: 5 };

    /// Plays bursts 0 to 99 through a forwarder that may change each packet's fate, and counts.
    fn play(sample: u64, mut forward: impl FnMut(u64, Vec<u8>) -> Vec<Vec<u8>>) -> Tally {
        let material: Vec<u8> = (0..56).collect();
        let [us, them] =
            [true, false].map(|side| Srtp::new(Profile::Gcm128, &material, side).unwrap());
        let publication = Publication {
            number: 3,
            kind: Kind::Video,
            schedule: SCHEDULE,
            packet_bytes: 300,
            ssrc: 77,
            sequence: 65_500,
            mid: b'0',
        };
        let mut outgoing = Outgoing::new(publication);
        let mut incoming = Incoming::new(Subscription {
            received: Received { ssrc: 77, transport_cc: None },
            number: 3,
            kind: Kind::Video,
            schedule: SCHEDULE,
            since: 0,
        });
        let (mut tally, mut rng) = (Tally::default(), Rng::new(1));
        outgoing.measure(0, SECOND, &mut tally);
        incoming.measure(0, SECOND, &mut tally);
        let (mut packets, mut transport_sequence) = (Vec::new(), 0);
        for burst in 0..100 {
            outgoing.write_burst(burst, &us, &mut transport_sequence, &mut packets);
            for (place, packet) in (0..).zip(&packets) {
                for mut packet in forward(burst * 5 + place, packet.clone()) {
                    let sequence = Header::read(&packet).unwrap().sequence;
                    let tally = &mut tally;
                    let mut context = Context { srtp: &them, tally, rng: &mut rng, sample };
                    let arrival = SCHEDULE.burst_due(burst) + 1_000_000;
                    incoming.handle_packet(sequence, &mut packet, arrival, &mut context);
                }
            }
        }
        incoming.finish(&mut tally);
        tally
    }

    #[test]
    fn a_perfect_forwarder_loses_nothing_and_its_latency_is_exact() {
        for sample in [1, 4, 50] {
            let tally = play(sample, |_, packet| vec![packet]);
            let counts = tally.counts;
            assert_eq!((counts.offered, counts.expected, counts.delivered), (500, 500, 500));
            assert_eq!((counts.duplicates, counts.reordered, counts.undecryptable), (0, 0, 0));
            assert_eq!(counts.delivered_bytes, 500 * 300);
            assert_eq!(tally.latency.count(), counts.sampled);
            let sampled = 500 / sample;
            assert!(counts.sampled >= sampled / 2 && counts.sampled <= sampled * 2);
            assert!((tally.latency.quantile_us(0.5) - 1_000.0).abs() < 1.0);
        }
    }

    #[test]
    fn losses_duplicates_and_reordering_are_counted_exactly() {
        let mut held = None;
        let counts = play(4, |counter, packet| match counter {
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
        assert_eq!(counts.expected - counts.delivered, 10);
        assert_eq!((counts.duplicates, counts.reordered, counts.too_old), (3, 1, 0));
    }

    #[test]
    fn packets_of_other_keys_are_counted_and_a_dead_stream_is_silent() {
        let counts = play(1, |_, mut packet| {
            packet[50] ^= 1;
            vec![packet]
        })
        .counts;
        assert_eq!((counts.delivered, counts.undecryptable), (0, 500));
        assert_eq!(counts.silent_streams, 1);
    }

    #[test]
    fn report_blocks_tell_loss_since_the_last_one_and_in_all() {
        let mut incoming = Incoming::new(Subscription {
            received: Received { ssrc: 9, transport_cc: None },
            number: 0,
            kind: Kind::Video,
            schedule: SCHEDULE,
            since: 0,
        });
        assert_eq!(incoming.report(0), None);
        let srtp = Srtp::new(Profile::Gcm128, &[0; 56], true).unwrap();
        let (mut tally, mut rng) = (Tally::default(), Rng::new(1));
        let mut context = Context { srtp: &srtp, tally: &mut tally, rng: &mut rng, sample: 4 };
        for sequence in [65_534, 65_535, 0, 3] {
            incoming.handle_packet(sequence, &mut [0; 40], 0, &mut context);
        }
        incoming.handle_report(0xABCD, SECOND);
        let block = incoming.report(SECOND + SECOND / 2).unwrap();
        assert_eq!((block.lost, block.fraction_lost), (2, 85));
        assert_eq!((block.highest, block.last_report, block.delay), (0x1_0003, 0xABCD, 32_768));
        incoming.handle_packet(4, &mut [0; 40], 0, &mut context);
        let block = incoming.report(2 * SECOND).unwrap();
        assert_eq!((block.lost, block.fraction_lost), (2, 0));
    }
}
