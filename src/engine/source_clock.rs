//! Time of a producer: which RTP timestamp was captured when, and what the sender's clock shows.
//!
//! A transport owns one [`SenderClock`], an incoming stream one [`StreamClock`]; both are fed with
//! the sender reports of the peer (RFC 3550 §6.4.1) on the shard's thread, and read when sender
//! reports of consumers are written.
//!
//! Invariants: all streams of a peer are translated by the same offset, so the difference between
//! its sound and its picture is never touched; the offset moves so slowly that two reports written
//! within a second of each other differ by less than a quarter of a millisecond.
//!
//! NTP times are 64-bit fixed point, 32 bits of seconds and 32 of fraction, and wrap (2036). Not
//! done here: estimating the one-way delay, which a common offset makes unnecessary for lip-sync.

use std::time::{Duration, Instant};

use crate::engine::rtp::AbsCaptureTime;
use crate::limits::{CLOCK_JUMP, CLOCK_SLEW_PPM, CLOCK_WINDOW};

/// One instant in a sender's clock and the RTP timestamp that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockPoint {
    /// NTP time, 32.32.
    pub ntp: u64,
    /// RTP timestamp.
    pub rtp: u32,
}

/// A span in units of 32.32 NTP time.
#[must_use]
pub fn ntp_span(span: Duration) -> u64 {
    let fraction = (u64::from(span.subsec_nanos()) << 32) / 1_000_000_000;
    (span.as_secs() << 32).wrapping_add(fraction)
}

/// The lower half.
pub(crate) fn low_u32(value: u64) -> u32 {
    let [_, _, _, _, a, b, c, d] = value.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// From `from` to `to` in ticks of `clock_rate`, rounded, modulo 2^32.
///
/// Right as long as both lie within 68 years (half the range of NTP time) of each other.
#[must_use]
pub fn ticks_between(from: u64, to: u64, clock_rate: u32) -> u32 {
    let span = i128::from(to.wrapping_sub(from).cast_signed());
    let ticks = (span * i128::from(clock_rate) + (1 << 31)) >> 32;
    // Modulo 2^64 first: RTP time wraps anyway.
    let [.., a, b, c, d] = ticks.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// The capture clock of one incoming stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamClock {
    clock_rate: u32,
    point: Option<ClockPoint>,
}

impl StreamClock {
    /// A stream of `clock_rate` Hz (0 counts as 1) that has not reported yet.
    #[must_use]
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate: clock_rate.max(1), point: None }
    }

    /// Takes a sender report of this stream. One older than the last is ignored.
    pub fn handle_sender_report(&mut self, point: ClockPoint) {
        // A sender without a wall clock says 0 (RFC 3550 §6.4.1).
        if point.ntp == 0 {
            return;
        }
        let late = self.point.is_some_and(|last| {
            let back = last.ntp.wrapping_sub(point.ntp).cast_signed();
            // A sender whose clock was set back by more than this is followed.
            (0..ntp_span(CLOCK_WINDOW).cast_signed()).contains(&back)
        });
        if !late {
            self.point = Some(point);
        }
    }

    /// The last sender report's instant.
    #[must_use]
    pub fn point(&self) -> Option<ClockPoint> {
        self.point
    }

    /// The RTP timestamp captured at `ntp` of the sender's clock.
    #[must_use]
    pub fn rtp_at(&self, ntp: u64) -> Option<u32> {
        let point = self.point?;
        Some(point.rtp.wrapping_add(ticks_between(point.ntp, ntp, self.clock_rate)))
    }

    /// When, by the sender's clock, the RTP timestamp `rtp` was captured: the instant nearest to
    /// the last report (timestamps wrap after 13 hours at 90 kHz).
    #[must_use]
    pub fn ntp_at(&self, rtp: u32) -> Option<u64> {
        let point = self.point?;
        let ticks = i128::from(rtp.wrapping_sub(point.rtp).cast_signed());
        let rate = i128::from(self.clock_rate);
        let span = ((ticks << 32) + rate / 2).div_euclid(rate);
        // |ticks| < 2^31 and rate ≥ 1: the span fits 64 bits.
        Some(point.ntp.wrapping_add(i64::try_from(span).ok()?.cast_unsigned()))
    }

    /// What to report to a consumer at `local` of our clock: the source's RTP timestamp then, to
    /// which the consumer adds its own offset.
    #[must_use]
    pub fn rtp_at_local(&self, clock: &SenderClock, local: u64) -> Option<u32> {
        self.rtp_at(clock.to_source(local)?)
    }
}

/// The smallest sample of a span of time.
#[derive(Debug, Clone, Copy)]
struct Window {
    since: Instant,
    least: i64,
    before: Option<i64>,
}

impl Window {
    fn least(&self) -> i64 {
        self.before.map_or(self.least, |before| before.min(self.least))
    }
}

/// A peer's wall clock against ours: what to add to its NTP times to get ours.
///
/// Each report's arrival gives one sample, too large by the way it took; the least of the last
/// seconds is the truest. The offset in use follows it by [`CLOCK_SLEW_PPM`], or at once when the
/// peer's clock was set.
#[derive(Debug, Clone, Copy, Default)]
pub struct SenderClock {
    state: Option<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    window: Window,
    offset: i64,
    moved_at: Instant,
}

impl SenderClock {
    /// Takes the NTP time of a sender report of any stream of the peer, arrived at `now`, which is
    /// `local` in our NTP time.
    pub fn handle_sender_report(&mut self, now: Instant, local: u64, ntp: u64) {
        if ntp == 0 {
            return;
        }
        let sample = local.wrapping_sub(ntp).cast_signed();
        let Some(state) = &mut self.state else {
            let window = Window { since: now, least: sample, before: None };
            self.state = Some(State { window, offset: sample, moved_at: now });
            return;
        };
        if now.saturating_duration_since(state.window.since) >= CLOCK_WINDOW {
            let before = Some(state.window.least);
            state.window = Window { since: now, least: sample, before };
        } else {
            state.window.least = state.window.least.min(sample);
        }
        state.follow(now);
    }

    /// Our NTP time at `ntp` of the peer's clock.
    #[must_use]
    pub fn to_local(&self, ntp: u64) -> Option<u64> {
        Some(ntp.wrapping_add(self.state?.offset.cast_unsigned()))
    }

    /// Makes what a peer tells of a capture good for those who know our clock only, from our sender
    /// reports: the time stays, and the offset, once it is known, is what to add to our clock to get
    /// the one that it was captured by (Capture NTP Clock = Sender NTP Clock + Capture Clock Offset).
    pub fn relate(&self, captured: &mut AbsCaptureTime) {
        if let Some(state) = &self.state {
            let from_peer = captured.clock_offset.unwrap_or(0);
            captured.clock_offset = Some(from_peer.wrapping_sub(state.offset));
        }
    }

    /// The peer's clock at our NTP time `local`.
    #[must_use]
    pub fn to_source(&self, local: u64) -> Option<u64> {
        Some(local.wrapping_sub(self.state?.offset.cast_unsigned()))
    }
}

impl State {
    fn follow(&mut self, now: Instant) {
        let error = self.window.least().saturating_sub(self.offset);
        let elapsed = now.saturating_duration_since(self.moved_at);
        self.moved_at = now.max(self.moved_at);
        if error.unsigned_abs() > ntp_span(CLOCK_JUMP) {
            // Set, not drifted: what was measured before belongs to another clock.
            self.window.before = None;
            self.window.least = self.offset.saturating_add(error);
            self.offset = self.window.least;
            return;
        }
        let step = ntp_span(elapsed.min(CLOCK_WINDOW)) / 1_000_000 * CLOCK_SLEW_PPM;
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        self.offset = self.offset.saturating_add(error.clamp(-step, step));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1 << 32;

    fn millis(ms: u64) -> u64 {
        ntp_span(Duration::from_millis(ms))
    }

    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; only differences matter")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn timestamps_and_times_map_both_ways_over_wraps() {
        let ntp = 0xffff_ffff_8000_0000;
        // (rtp of the report, seconds later ×2, rtp then) at 90 kHz.
        for (rtp, halves, then) in
            [(1_000, 0_u64, 1_000_u32), (1_000, 1, 46_000), (u32::MAX, 2, 89_999), (0, 3, 135_000)]
        {
            let mut clock = StreamClock::new(90_000);
            clock.handle_sender_report(ClockPoint { ntp, rtp });
            let later = ntp.wrapping_add(halves * SECOND / 2);
            assert_eq!(clock.rtp_at(later), Some(then));
            assert_eq!(clock.ntp_at(then), Some(later));
        }
        let mut clock = StreamClock::new(48_000);
        clock.handle_sender_report(ClockPoint { ntp: 10 * SECOND, rtp: 100 });
        assert_eq!(clock.rtp_at(9 * SECOND), Some(100_u32.wrapping_sub(48_000)));
        assert_eq!(clock.ntp_at(100_u32.wrapping_sub(48_000)), Some(9 * SECOND));
    }

    #[test]
    fn nothing_is_known_before_a_report_and_a_zero_or_late_one_tells_nothing() {
        let mut clock = StreamClock::new(90_000);
        clock.handle_sender_report(ClockPoint { ntp: 0, rtp: 5 });
        assert_eq!((clock.rtp_at(1), clock.ntp_at(1)), (None, None));
        let newest = ClockPoint { ntp: 100 * SECOND, rtp: 9 };
        clock.handle_sender_report(newest);
        clock.handle_sender_report(ClockPoint { ntp: 99 * SECOND, rtp: 1 });
        assert_eq!(clock.point(), Some(newest));
        // Set back by far: followed.
        let set_back = ClockPoint { ntp: 10 * SECOND, rtp: 2 };
        clock.handle_sender_report(set_back);
        assert_eq!(clock.point(), Some(set_back));
    }

    #[test]
    fn the_offset_is_one_for_all_streams_and_moves_slowly_towards_the_fastest_report() {
        let now = origin();
        let mut clock = SenderClock::default();
        assert_eq!(clock.to_local(5), None);
        // The first report took 40 ms, all others 10: 30 ms are made up at 200 ppm.
        let ours = 1_000 * SECOND;
        clock.handle_sender_report(now, ours + millis(40), 7 * SECOND);
        assert_eq!(clock.to_local(7 * SECOND), Some(ours + millis(40)));
        let mut last = clock.to_local(0).expect("anchored");
        for second in 1..=200_u64 {
            let at = now + Duration::from_secs(second);
            let theirs = (7 + second) * SECOND;
            clock.handle_sender_report(at, ours + second * SECOND + millis(10), theirs);
            let offset = clock.to_local(0).expect("anchored");
            assert!(last >= offset && last - offset <= millis(1) / 4, "{second}");
            last = offset;
        }
        assert_eq!(last, ours + millis(10) - 7 * SECOND);
    }

    #[test]
    fn a_clock_that_was_set_is_followed_at_once_or_after_the_window() {
        let now = origin();
        let mut clock = SenderClock::default();
        clock.handle_sender_report(now, 1_000 * SECOND, 500 * SECOND);
        // Forward: the sample is smaller than any before.
        let at = now + Duration::from_secs(1);
        clock.handle_sender_report(at, 1_001 * SECOND, 601 * SECOND);
        assert_eq!(clock.to_source(1_001 * SECOND), Some(601 * SECOND));
        // Backward: larger, as a late report's would be; believed once nothing else comes.
        for second in 2..=40_u64 {
            let at = now + Duration::from_secs(second);
            clock.handle_sender_report(at, (1_000 + second) * SECOND, (300 + second) * SECOND);
        }
        assert_eq!(clock.to_source(1_040 * SECOND), Some(340 * SECOND));
    }

    #[test]
    fn sound_and_picture_of_one_peer_stay_together_whatever_their_reports_delay() {
        let now = origin();
        let mut clock = SenderClock::default();
        let (mut audio, mut video) = (StreamClock::new(48_000), StreamClock::new(90_000));
        // Both captured from instant 0 of the peer's clock, with first timestamps 0.
        for second in 1..=30_u64 {
            let at = now + Duration::from_secs(second);
            let ntp = second * SECOND;
            let rtp = u32::try_from(second).expect("small");
            audio.handle_sender_report(ClockPoint { ntp, rtp: rtp * 48_000 });
            clock.handle_sender_report(at, 900 * SECOND + ntp + millis(second * 7 % 50), ntp);
            let heard = audio.rtp_at_local(&clock, 900 * SECOND + ntp).expect("anchored");
            video.handle_sender_report(ClockPoint { ntp, rtp: rtp * 90_000 });
            clock.handle_sender_report(at, 900 * SECOND + ntp + millis(second * 13 % 70), ntp);
            let seen = video.rtp_at_local(&clock, 900 * SECOND + ntp).expect("anchored");
            let apart = i64::from(heard.cast_signed()) * 90 / 48 - i64::from(seen.cast_signed());
            assert!(apart.abs() <= 90, "{second}: {apart} ticks of 1/90 ms");
        }
    }

    proptest! {
        #[test]
        fn any_reports_are_survived_and_maps_are_inverse(
            ntp in any::<u64>(), rtp in any::<u32>(), other in any::<u32>(), rate in any::<u32>(),
            samples in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..20),
        ) {
            let mut stream = StreamClock::new(rate);
            stream.handle_sender_report(ClockPoint { ntp, rtp });
            if let Some(at) = stream.ntp_at(other) {
                let back = stream.rtp_at(at).expect("reported");
                // NTP units are finer than any tick: the way back is exact.
                prop_assert_eq!(back, other);
            }
            let mut clock = SenderClock::default();
            let mut now = origin();
            for (local, ntp) in samples {
                now += Duration::from_millis(local % 20_000);
                clock.handle_sender_report(now, local, ntp);
                if let Some(to) = clock.to_local(ntp) {
                    prop_assert_eq!(clock.to_source(to), Some(ntp));
                }
            }
        }
    }
}
