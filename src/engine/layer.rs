//! Which stream of a simulcast producer a consumer should be fed with: the highest that is really
//! arriving.
//!
//! Pure. An incoming stream owns an [`Activity`] and tells it each packet; a consumer calls
//! [`target`] now and then, on the shard's thread. The consumer goes over to the target only with a
//! key frame of it. Bandwidth has no say here.

use std::time::{Duration, Instant};

use crate::limits::{
    RELAY_PULSE_INTERVAL, STREAM_INACTIVE, STREAM_INACTIVE_DTX, STREAM_INACTIVE_SLOW,
    STREAM_SLOW_FOR, STREAM_SLOW_GAP, STREAM_YOUNG,
};

/// Since when one incoming stream is arriving.
#[derive(Debug, Clone, Copy)]
pub struct Activity {
    dtx: bool,
    /// Added to every silence: what is heard of the stream comes so late.
    late: Duration,
    /// First packet after the last silence, and the newest packet.
    span: Option<(Instant, Instant)>,
    /// When pictures last came slowly, without a silence between.
    slow: Option<Instant>,
}

impl Activity {
    /// A stream of which nothing came yet; with DTX its silences may be longer.
    #[must_use]
    pub fn new(dtx: bool) -> Self {
        Self { dtx, late: Duration::ZERO, span: None, slow: None }
    }

    /// A value of it, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        usize::from(self.slow.is_some())
    }

    /// The same for a mirror's stream, which hears of what it does not take by pulses.
    #[must_use]
    pub fn mirrored(dtx: bool) -> Self {
        Self { late: RELAY_PULSE_INTERVAL, ..Self::new(dtx) }
    }

    /// Takes over what the origin's told; packets that came since count on.
    pub fn adopt(&mut self, told: &Self) {
        let newest = self.span.map(|(_, last)| last);
        self.span = told.span.map(|(since, last)| (since, newest.map_or(last, |at| at.max(last))));
        self.slow = told.slow;
    }

    /// Takes the arrival of one media packet (padding does not count).
    pub fn handle_packet(&mut self, now: Instant) {
        let since = match self.span {
            Some((since, last)) if self.is_active(now) => {
                if now.saturating_duration_since(last) >= STREAM_SLOW_GAP {
                    self.slow = Some(now);
                }
                since
            }
            // It may have been slow rather than silent: the next gap will not be taken for an end.
            Some((_, last)) => {
                let gap = now.saturating_duration_since(last);
                self.slow = (gap < STREAM_INACTIVE_SLOW).then_some(now).or(self.slow);
                now
            }
            None => now,
        };
        self.span = Some((since, now));
    }

    /// The sender was paused or began anew: what came before does not count.
    pub fn reset(&mut self) {
        self.span = None;
        self.slow = None;
    }

    /// True when the last packet is recent.
    #[must_use]
    pub fn is_active(&self, now: Instant) -> bool {
        self.span.is_some_and(|(_, last)| {
            now.saturating_duration_since(last) < self.inactive_after(last)
        })
    }

    /// The silence behind a packet at `last` that is an end.
    fn inactive_after(&self, last: Instant) -> Duration {
        let slow = self.slow.is_some_and(|at| last.saturating_duration_since(at) < STREAM_SLOW_FOR);
        let own = match (self.dtx, slow) {
            (true, _) => STREAM_INACTIVE_DTX,
            (false, true) => STREAM_INACTIVE_SLOW,
            (false, false) => STREAM_INACTIVE,
        };
        own + self.late
    }

    /// How long the stream has been arriving without a silence; zero when it is not.
    #[must_use]
    pub fn active_for(&self, now: Instant) -> Duration {
        let since = self.span.filter(|_| self.is_active(now)).map_or(now, |(since, _)| since);
        now.saturating_duration_since(since)
    }

    /// When time alone changes what [`target`] makes of this stream: it stops being young, or
    /// falls silent.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let (since, last) = self.span.filter(|_| self.is_active(now))?;
        let silent = last + self.inactive_after(last);
        Some(
            [since + STREAM_YOUNG, silent]
                .into_iter()
                .filter(|at| *at > now)
                .fold(silent, Instant::min),
        )
    }
}

/// One stream as a consumer sees it, in the order of the producer's encodings (lowest first).
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Its arrival.
    pub activity: Activity,
    /// A sender report told its capture times, so that switching to it keeps the picture in time.
    pub has_sender_report: bool,
}

impl Candidate {
    /// True when a consumer may go over to it although another one is there: it has arrived for a
    /// while and its capture times are known, or the consumer is fed with it already.
    #[must_use]
    pub fn is_settled(&self, now: Instant, is_current: bool) -> bool {
        is_current || (self.has_sender_report && self.activity.active_for(now) >= STREAM_YOUNG)
    }
}

/// The stream to aim at among `streams`, or `None` when nothing arrives.
///
/// `preferred` is the highest index wanted, `current` the one being forwarded. In this order:
/// 1. a silent stream is never taken;
/// 2. one above `preferred` is taken only when none up to it arrives;
/// 3. one that is young or has no sender report yet is taken only when no settled one is there
///    (the current one counts as settled, so that nothing flaps);
/// 4. the highest of settled ones up to `preferred`; otherwise the lowest, which is the likeliest
///    to last.
pub fn target(
    now: Instant,
    streams: impl IntoIterator<Item = Candidate>,
    preferred: usize,
    current: Option<usize>,
) -> Option<usize> {
    let rank = |index: usize, stream: Candidate| {
        let settled = stream.is_settled(now, current == Some(index));
        let wanted = index <= preferred;
        let height = if wanted && settled { index } else { usize::MAX - index };
        (wanted, settled, height)
    };
    streams
        .into_iter()
        .enumerate()
        .filter(|(_, stream)| stream.activity.is_active(now))
        .max_by_key(|(index, stream)| rank(*index, *stream))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; only differences matter")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A stream that began and was last heard of so many ms before `now`, without a silence.
    fn stream(now: Instant, began: u64, last: u64, has_sender_report: bool) -> Candidate {
        let mut activity = Activity::new(false);
        for before in (last..=began).rev().step_by(100).chain([last]) {
            activity.handle_packet(now - ms(before));
        }
        Candidate { activity, has_sender_report }
    }

    #[test]
    fn the_highest_wanted_stream_that_really_arrives_is_the_target() {
        let now = origin() + ms(60_000);
        let good = stream(now, 9_000, 10, true);
        let young = stream(now, 1_000, 10, true);
        let unreported = stream(now, 9_000, 10, false);
        let silent = stream(now, 9_000, 700, true);
        let slow = stream(now, 9_000, 690, true);
        let none = Candidate { activity: Activity::new(false), has_sender_report: false };
        type Case<'a> = (&'a str, &'a [Candidate], usize, Option<usize>, Option<usize>);
        let table: [Case<'_>; 15] = [
            ("nothing arrives", &[none, silent], 9, Some(1), None),
            ("all there", &[good, good, good], 9, None, Some(2)),
            ("capped", &[good, good, good], 1, Some(2), Some(1)),
            ("the highest stopped", &[good, good, silent], 9, Some(2), Some(1)),
            ("slow is not silent", &[good, good, slow], 9, Some(1), Some(2)),
            ("a hole in the middle", &[good, silent, good], 1, None, Some(0)),
            ("young ones wait", &[good, young, young], 9, Some(0), Some(0)),
            ("at the start the lowest", &[young, young, young], 9, None, Some(0)),
            ("the current one is settled", &[young, young, young], 9, Some(1), Some(1)),
            ("a young one if there is nothing else", &[silent, young, none], 9, None, Some(1)),
            ("without a report it waits", &[good, unreported], 9, Some(0), Some(0)),
            ("without a report if alone", &[unreported], 9, None, Some(0)),
            ("above the cap only if nothing is below", &[silent, good, good], 0, None, Some(1)),
            ("a young one below the cap is better", &[young, good], 0, Some(1), Some(0)),
            ("no streams", &[], 0, None, None),
        ];
        for (name, streams, preferred, current, expected) in table {
            assert_eq!(
                target(now, streams.iter().copied(), preferred, current),
                expected,
                "{name}"
            );
        }
    }

    /// A packet every 100 ms.
    fn run(activity: &mut Activity, start: Instant, millis: std::ops::RangeInclusive<u64>) {
        millis.step_by(100).for_each(|at| activity.handle_packet(start + ms(at)));
    }

    #[test]
    fn one_with_slow_pictures_is_given_more_time() {
        let start = origin();
        let mut activity = Activity::new(false);
        run(&mut activity, start, 0..=1_000);
        // It was taken for silent once; from then on it is known to be slow.
        assert!(!activity.is_active(start + ms(2_000)));
        activity.handle_packet(start + ms(2_000));
        assert!(activity.is_active(start + ms(3_499)));
        assert!(!activity.is_active(start + ms(3_500)));
        activity.handle_packet(start + ms(3_000));
        assert_eq!(activity.active_for(start + ms(3_100)), ms(1_100));
        // Fast again for ten seconds.
        run(&mut activity, start, 3_100..=12_900);
        assert!(activity.is_active(start + ms(14_000)));
        run(&mut activity, start, 13_000..=13_100);
        assert!(!activity.is_active(start + ms(13_800)));
    }

    #[test]
    fn a_stream_that_was_silent_is_young_again() {
        let start = origin();
        let mut activity = Activity::new(false);
        run(&mut activity, start, 0..=1_000);
        assert_eq!(activity.active_for(start + ms(1_100)), ms(1_100));
        assert!(activity.is_active(start + ms(1_699)));
        assert!(!activity.is_active(start + ms(1_700)));
        assert_eq!(activity.active_for(start + ms(1_700)), Duration::ZERO);
        activity.handle_packet(start + ms(3_000));
        assert_eq!(activity.active_for(start + ms(3_100)), ms(100));
        activity.reset();
        assert!(!activity.is_active(start + ms(3_100)));
    }

    #[test]
    fn discontinuous_transmission_may_pause_for_longer() {
        let start = origin();
        let mut activity = Activity::new(true);
        activity.handle_packet(start);
        assert!(activity.is_active(start + ms(4_999)));
        assert!(!activity.is_active(start + ms(5_000)));
    }

    #[test]
    fn a_mirror_takes_over_what_its_origin_tells_and_counts_its_own_packets_on() {
        let start = origin();
        let mut told = Activity::new(false);
        let mut mirror = Activity::mirrored(false);
        mirror.adopt(&told);
        assert!(!mirror.is_active(start));
        run(&mut told, start, 0..=1_000);
        mirror.adopt(&told);
        assert_eq!(mirror.active_for(start + ms(1_100)), ms(1_100));
        // A quarter of a second may pass until the next telling.
        assert!(mirror.is_active(start + ms(1_949)));
        assert!(!mirror.is_active(start + ms(1_950)));
        mirror.handle_packet(start + ms(1_900));
        mirror.adopt(&told);
        assert_eq!(mirror.active_for(start + ms(2_500)), ms(2_500));
        told.reset();
        told.handle_packet(start + ms(3_100));
        mirror.adopt(&told);
        assert_eq!(mirror.active_for(start + ms(3_200)), ms(100));
    }

    #[test]
    fn the_next_deadline_is_the_end_of_youth_and_then_silence() {
        let start = origin();
        let mut activity = Activity::new(false);
        assert_eq!(activity.next_deadline(start), None);
        run(&mut activity, start, 0..=1_500);
        assert_eq!(activity.next_deadline(start + ms(1_500)), Some(start + ms(2_000)));
        assert_eq!(activity.next_deadline(start + ms(2_000)), Some(start + ms(2_200)));
        assert_eq!(activity.next_deadline(start + ms(2_200)), None);
    }

    proptest! {
        #[test]
        fn the_target_arrives_and_a_settled_one_is_kept_or_bettered(
            streams in proptest::collection::vec(
                (0_u64..4_000, 0_u64..2_500, any::<bool>()), 0..5),
            preferred in 0_usize..5,
            current in proptest::option::of(0_usize..5),
        ) {
            let now = origin() + ms(60_000);
            let streams: Vec<Candidate> =
                streams.iter().map(|(age, last, sr)| stream(now, age + last, *last, *sr)).collect();
            let chosen = target(now, streams.iter().copied(), preferred, current);
            let active =
                |index: usize| streams.get(index).is_some_and(|s| s.activity.is_active(now));
            prop_assert_eq!(chosen.is_some(), (0..streams.len()).any(active));
            if let Some(index) = chosen {
                prop_assert!(active(index));
                prop_assert!(index <= preferred || !(0..=preferred).any(active));
                // Asking again from there changes nothing.
                prop_assert_eq!(target(now, streams.iter().copied(), preferred, chosen), chosen);
                if let Some(old) = current.filter(|c| active(*c) && *c <= preferred) {
                    prop_assert!(index >= old, "never down from a stream that arrives");
                }
            }
        }
    }
}
