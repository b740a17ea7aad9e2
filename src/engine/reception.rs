//! What a receiver knows of one incoming stream: highest sequence number, loss, jitter, and the
//! round trip at the sending side.
//!
//! Owned by an incoming stream, fed with each packet on the shard's thread, read when a receiver
//! report is written (RFC 3550 §6.4.1, appendices A.1, A.3 and A.8). Sequence numbers come already
//! extended by SRTP, which also removed repeated packets. Packets restored from RTX are not fed
//! here: a report tells what the network lost, not what repair made of it.

use std::time::{Duration, Instant};

use super::rtp::NtpTime;
use super::source_clock::low_u32;
use crate::limits::SEQ_DROPOUT_MAX;

/// One report block without its SSRC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// Part of the packets lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning, clamped to the 24 signed bits of the wire.
    pub cumulative_lost: i32,
    /// Extended highest sequence number received.
    pub highest_seq: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time, 0 when there was none.
    pub last_sender_report: u32,
    /// Time since that report arrived, in 1/65,536 s.
    pub delay_since_last_sender_report: u32,
}

/// Reception statistics of one stream.
#[derive(Debug, Clone)]
pub struct Reception {
    clock_rate: u32,
    seqs: Option<Seqs>,
    jitter: Jitter,
    last_sender_report: Option<(u32, Instant)>,
    /// As the last report told.
    fraction_lost: u8,
}

#[derive(Debug, Clone, Copy)]
struct Seqs {
    base: u64,
    highest: u64,
    received: u64,
    /// Lost, and received, before the sender jumped in its numbers.
    lost_before: i64,
    received_before: u64,
    expected_prior: u64,
    received_prior: u64,
}

impl Seqs {
    fn starting_at(seq: u64, (lost_before, received_before): (i64, u64)) -> Self {
        Self {
            base: seq,
            highest: seq,
            received: 1,
            lost_before,
            received_before,
            expected_prior: 0,
            received_prior: 0,
        }
    }

    fn handle_packet(&mut self, seq: u64) {
        if seq > self.highest.saturating_add(SEQ_DROPOUT_MAX) {
            // The sender began anew (A.1): what lies between was never sent.
            *self = Self::starting_at(seq, (self.lost(), self.received_before + self.received));
            return;
        }
        if self.base > seq {
            if self.base - seq > SEQ_DROPOUT_MAX {
                return;
            }
            self.base = seq;
        }
        self.highest = self.highest.max(seq);
        self.received += 1;
    }

    fn expected(&self) -> u64 {
        self.highest - self.base + 1
    }

    fn lost(&self) -> i64 {
        let lost = self.expected().cast_signed() - self.received.cast_signed();
        self.lost_before.saturating_add(lost)
    }

    /// Part lost since the last call, in 1/256 (A.3).
    fn fraction_since_last(&mut self) -> u8 {
        let expected = self.expected().saturating_sub(self.expected_prior);
        let received = self.received.saturating_sub(self.received_prior);
        self.expected_prior = self.expected();
        self.received_prior = self.received;
        let lost = expected.saturating_sub(received);
        let fraction = (lost << 8).checked_div(expected).unwrap_or(0);
        u8::try_from(fraction).unwrap_or(u8::MAX)
    }
}

/// Interarrival jitter (A.8), kept with four fractional bits.
#[derive(Debug, Clone, Copy, Default)]
struct Jitter {
    last: Option<(Instant, u32)>,
    scaled: u64,
}

impl Jitter {
    /// Packets of one video frame share a timestamp and leave the sender paced: only the first of
    /// each timestamp counts, else the measure would be of frame sizes.
    fn handle_packet(&mut self, now: Instant, rtp: u32, clock_rate: u32) {
        if let Some((at, last)) = self.last {
            if last == rtp {
                return;
            }
            let elapsed = ticks(now.saturating_duration_since(at), clock_rate);
            let step = i64::from(rtp.wrapping_sub(last).cast_signed());
            let deviation = elapsed.saturating_sub(step).unsigned_abs();
            // A pause or a new timestamp base is no jitter.
            if deviation < u64::from(clock_rate) * 5 {
                self.scaled = self.scaled + deviation - ((self.scaled + 8) >> 4).min(self.scaled);
            }
        }
        self.last = Some((now, rtp));
    }
}

fn ticks(span: Duration, clock_rate: u32) -> i64 {
    let ticks = span.as_nanos() * u128::from(clock_rate) / 1_000_000_000;
    i64::try_from(ticks).unwrap_or(i64::MAX)
}

impl Reception {
    /// A stream of `clock_rate` Hz from which nothing came yet.
    #[must_use]
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate,
            seqs: None,
            jitter: Jitter::default(),
            last_sender_report: None,
            fraction_lost: 0,
        }
    }

    /// A value of it, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        usize::from(self.fraction_lost)
    }

    /// Takes one packet (not one restored from RTX): its arrival, extended sequence number and
    /// timestamp.
    pub fn handle_packet(&mut self, arrival: Instant, seq: u64, rtp: u32) {
        let in_order = match &mut self.seqs {
            Some(seqs) => {
                let in_order = seq > seqs.highest;
                seqs.handle_packet(seq);
                in_order
            }
            None => {
                self.seqs = Some(Seqs::starting_at(seq, (0, 0)));
                true
            }
        };
        if in_order {
            self.jitter.handle_packet(arrival, rtp, self.clock_rate);
        }
    }

    /// Takes a sender report of the stream.
    pub fn handle_sender_report(&mut self, now: Instant, ntp: u64) {
        self.last_sender_report = Some((NtpTime::from_bits(ntp).middle(), now));
    }

    /// Writes a report block and begins the next interval; `None` before the first packet.
    pub fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let seqs = self.seqs.as_mut()?;
        let lost = seqs.lost().clamp(-0x80_0000, 0x7f_ffff);
        let (last_sender_report, delay) = self.last_sender_report.map_or((0, 0), |(mid, at)| {
            let delay = (now.saturating_duration_since(at).as_nanos() << 16) / 1_000_000_000;
            (mid, u32::try_from(delay).unwrap_or(u32::MAX))
        });
        self.fraction_lost = seqs.fraction_since_last();
        Some(ReportBlock {
            fraction_lost: self.fraction_lost,
            cumulative_lost: i32::try_from(lost).unwrap_or_default(),
            highest_seq: low_u32(seqs.highest),
            jitter: u32::try_from(self.jitter.scaled >> 4).unwrap_or(u32::MAX),
            last_sender_report,
            delay_since_last_sender_report: delay,
        })
    }

    /// Packets received and lost since the beginning; duplicates make the latter negative.
    #[must_use]
    pub fn totals(&self) -> (u64, i64) {
        self.seqs.map_or((0, 0), |seqs| (seqs.received_before + seqs.received, seqs.lost()))
    }

    /// Part of the packets lost between the last two reports, in 1/256.
    #[must_use]
    pub fn fraction_lost(&self) -> u8 {
        self.fraction_lost
    }

    /// Interarrival jitter in timestamp units.
    #[must_use]
    pub fn jitter(&self) -> u32 {
        u32::try_from(self.jitter.scaled >> 4).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; only differences matter")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn report_of(seqs: &[u64]) -> ReportBlock {
        let now = origin();
        let mut reception = Reception::new(90_000);
        for seq in seqs {
            reception.handle_packet(now, *seq, 0);
        }
        reception.report(now).expect("packets came")
    }

    #[test]
    fn loss_is_expected_less_received() {
        // (seqs, cumulative, fraction, highest)
        let table: [(&[u64], i32, u8, u32); 6] = [
            (&[7], 0, 0, 7),
            (&[1, 2, 3, 4], 0, 0, 4),
            (&[1, 2, 4], 1, 64, 4),
            (&[1, 4, 2, 3], 0, 0, 4),
            // The first packet came late.
            (&[2, 3, 1], 0, 0, 3),
            (&[65_534, 65_537], 2, 128, 65_537),
        ];
        for (seqs, cumulative, fraction, highest) in table {
            let block = report_of(seqs);
            let told = (block.cumulative_lost, block.fraction_lost, block.highest_seq);
            assert_eq!(told, (cumulative, fraction, highest), "{seqs:?}");
        }
    }

    #[test]
    fn the_fraction_is_of_the_interval_and_the_sum_of_all_time() {
        let now = origin();
        let mut reception = Reception::new(90_000);
        assert_eq!(reception.report(now), None);
        for seq in [1, 2, 4] {
            reception.handle_packet(now, seq, 0);
        }
        assert_eq!(
            reception.report(now).map(|r| (r.fraction_lost, r.cumulative_lost)),
            Some((64, 1))
        );
        reception.handle_packet(now, 5, 0);
        assert_eq!(
            reception.report(now).map(|r| (r.fraction_lost, r.cumulative_lost)),
            Some((0, 1))
        );
        assert_eq!(
            reception.report(now).map(|r| (r.fraction_lost, r.cumulative_lost)),
            Some((0, 1))
        );
    }

    #[test]
    fn a_jump_of_the_sender_is_not_loss() {
        let block = report_of(&[1, 2, 4, 50_000, 50_001]);
        assert_eq!((block.cumulative_lost, block.highest_seq), (1, 50_001));
        let mut reception = Reception::new(90_000);
        assert_eq!(reception.totals(), (0, 0));
        for seq in [1, 2, 4, 50_000, 50_001] {
            reception.handle_packet(origin(), seq, 0);
        }
        assert_eq!(reception.totals(), (5, 1));
    }

    #[test]
    fn jitter_is_zero_for_a_steady_stream_and_follows_a_shaken_one() {
        let now = origin();
        for (shake_ms, least, most) in [(0_u64, 0, 0), (10, 400, 960)] {
            let mut reception = Reception::new(48_000);
            for packet in 0..200_u32 {
                let late = if packet % 2 == 0 { 0 } else { shake_ms };
                let at = now + Duration::from_millis(u64::from(packet) * 20 + late);
                reception.handle_packet(at, u64::from(packet), packet * 960);
            }
            let jitter = reception.jitter();
            assert!((least..=most).contains(&jitter), "{shake_ms} ms: {jitter}");
        }
    }

    #[test]
    fn packets_of_one_frame_do_not_shake_the_jitter() {
        let now = origin();
        let mut reception = Reception::new(90_000);
        for packet in 0..100_u64 {
            let (frame, part) = (packet / 4, packet % 4);
            let at = now + Duration::from_millis(frame * 40 + part * 5);
            let rtp = u32::try_from(frame * 3_600).expect("small");
            reception.handle_packet(at, packet, rtp);
        }
        assert_eq!(reception.jitter(), 0);
    }

    #[test]
    fn a_round_trip_is_measured_from_the_echo_of_a_sender_report() {
        let now = origin();
        let ntp = 1_000_u64 << 32;
        let mut reception = Reception::new(90_000);
        reception.handle_packet(now, 1, 0);
        // 30 ms there, 500 ms held, 20 ms back.
        reception.handle_sender_report(now + Duration::from_millis(30), ntp);
        let block = reception.report(now + Duration::from_millis(530)).expect("a packet came");
        let back = NtpTime::from_bits(ntp) + Duration::from_millis(550);
        let measured = back
            .round_trip(block.last_sender_report, block.delay_since_last_sender_report)
            .expect("a report was echoed");
        let error = measured.abs_diff(Duration::from_millis(50));
        assert!(error < Duration::from_micros(50), "{measured:?}");
    }

    proptest! {
        #[test]
        fn any_packets_are_survived(
            packets in proptest::collection::vec(
                (any::<u64>(), any::<u32>(), 0_u64..10_000), 0..50),
            rate in any::<u32>(),
        ) {
            let mut now = origin();
            let mut reception = Reception::new(rate);
            for (seq, rtp, wait) in packets {
                now += Duration::from_millis(wait);
                // The SRTP index has 48 bits.
                reception.handle_packet(now, seq >> 16, rtp);
                reception.handle_sender_report(now, seq);
                prop_assert!(reception.report(now).is_some());
            }
        }

        #[test]
        fn whatever_the_order_loss_is_what_never_came(
            kept in proptest::collection::vec(any::<bool>(), 2..200),
            seed in any::<u64>(),
        ) {
            let mut seqs: Vec<u64> =
                (0..).zip(&kept).filter(|(_, kept)| **kept).map(|(seq, _)| seq).collect();
            let (Some(first), Some(last)) = (seqs.first().copied(), seqs.last().copied()) else {
                return Ok(());
            };
            let missing = last - first + 1 - u64::try_from(seqs.len()).expect("small");
            seqs.sort_by_key(|s| s.wrapping_mul(seed | 1) >> 3);
            prop_assert_eq!(u64::from(report_of(&seqs).cumulative_lost.cast_unsigned()), missing);
        }
    }
}
