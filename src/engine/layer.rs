//! Which stream of a simulcast producer a consumer should be fed with: the highest that is really
//! arriving.
//!
//! Pure. An incoming stream owns an [`Activity`] and tells it each packet; a consumer calls
//! [`target`] now and then, on the shard's thread. The consumer goes over to the target only with a
//! key frame of it. Bandwidth has no say here.

use std::time::{Duration, Instant};

use crate::limits::{
    RELAY_PULSE_INTERVAL, STREAM_APART_MAX, STREAM_INACTIVE, STREAM_INACTIVE_DTX,
    STREAM_INACTIVE_SLOW, STREAM_PAUSE_FIRST, STREAM_PAUSE_MAX, STREAM_RESUMES_FOR,
    STREAM_SLOW_FOR, STREAM_SLOW_GAP, STREAM_YOUNG,
};

/// Since when one incoming stream is arriving.
#[derive(Debug, Clone, Copy)]
pub struct Activity {
    dtx: bool,
    /// Added to every silence: what is heard of the stream comes so late.
    late: Duration,
    /// What was heard of it.
    span: Option<Span>,
    /// When pictures last came slowly, without a silence between.
    slow: Option<Instant>,
    /// Since when another stream of its producer is heard and this one is not.
    missed: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    /// First packet since it was left behind by the other streams.
    since: Instant,
    /// First packet after the last silence.
    awake: Instant,
    /// The newest packet.
    last: Instant,
    /// The longest pause of late between two pictures, and when the last one was over.
    pause: (Duration, Instant),
}

impl Span {
    /// One that begins.
    fn new(now: Instant) -> Self {
        Self { since: now, awake: now, last: now, pause: (STREAM_PAUSE_FIRST, now) }
    }

    /// The pause that another one may be as long as: the last one counts until pictures have come
    /// without any for as long as it was.
    fn pause(&self) -> Option<Duration> {
        let (pause, over) = self.pause;
        Some(pause).filter(|pause| self.last.saturating_duration_since(over) <= *pause)
    }

    /// A packet came at `now`.
    fn go_on(mut self, now: Instant) -> Self {
        let gap = now.saturating_duration_since(self.last);
        if gap >= STREAM_SLOW_GAP {
            // A longer one is forgotten little by little.
            let before = self.pause().unwrap_or_default() / 4 * 3;
            self.pause = (gap.max(before), now);
        }
        self.last = now;
        self
    }
}

impl Activity {
    /// A stream of which nothing came yet; with DTX its silences may be longer.
    #[must_use]
    pub fn new(dtx: bool) -> Self {
        Self { dtx, late: Duration::ZERO, span: None, slow: None, missed: None }
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
        let newest = self.span.map(|span| span.last);
        let ahead = told.span.zip(newest).is_some_and(|(told, newest)| newest > told.last);
        self.span = told.span.map(|told| Span {
            last: newest.map_or(told.last, |newest| newest.max(told.last)),
            ..told
        });
        self.slow = told.slow;
        self.missed = if ahead { self.missed } else { told.missed };
    }

    /// Takes the arrival of one media packet (padding does not count).
    pub fn handle_packet(&mut self, now: Instant) {
        let span = match self.span {
            Some(span) if self.is_active(now) => {
                if now.saturating_duration_since(span.last) >= STREAM_SLOW_GAP {
                    self.slow = Some(now);
                }
                span.go_on(now)
            }
            // It may have been slow rather than silent: the next gap will not be taken for an end.
            Some(span) => {
                let gap = now.saturating_duration_since(span.last);
                self.slow = (gap < STREAM_INACTIVE_SLOW).then_some(now).or(self.slow);
                let since = if self.is_left_behind(now) { now } else { span.since };
                Span { since, awake: now, ..span.go_on(now) }
            }
            None => Span::new(now),
        };
        self.span = Some(span);
        self.missed = None;
    }

    /// Compares it with the other streams of its producer. One that is silent is missed from the
    /// moment on at which another one is clearly heard: where all are silent there is nothing to
    /// show, and the picture after that may reach us in one encoding before the others.
    pub fn compare(&mut self, now: Instant, others: impl Iterator<Item = Self>) {
        let Some(Span { last, .. }) = self.span.filter(|_| !self.is_active(now)) else { return };
        if self.missed.is_some() {
            return;
        }
        let apart = STREAM_APART_MAX + self.late;
        self.missed = others
            .filter(|other| other.is_active(now))
            .filter_map(|other| other.span)
            .filter(|other| other.last.saturating_duration_since(last) >= apart)
            .map(|other| other.awake.max(last))
            .min();
    }

    /// The sender began anew: what came before does not count.
    pub fn reset(&mut self) {
        self.span = None;
        self.slow = None;
        self.missed = None;
    }

    /// True when the last packet is recent.
    #[must_use]
    pub fn is_active(&self, now: Instant) -> bool {
        self.span.is_some_and(|Span { last, .. }| {
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

    /// When a silent stream that is missed counts as left behind.
    fn left_behind_at(&self) -> Option<Instant> {
        Some(self.missed? + STREAM_APART_MAX + self.late)
    }

    /// True when it is silent and others have been heard for long enough without it.
    fn is_left_behind(&self, now: Instant) -> bool {
        !self.is_active(now) && self.left_behind_at().is_some_and(|at| at <= now)
    }

    /// True when it is one of those that a picture may come in: it was heard, and was not left
    /// behind by the others.
    #[must_use]
    pub fn arrives(&self, now: Instant) -> bool {
        self.span.is_some() && !self.is_left_behind(now)
    }

    /// True while nothing comes and the next picture is not due either: it has been silent for much
    /// longer than between two pictures of late.
    #[must_use]
    pub fn rests(&self, now: Instant) -> bool {
        self.span.is_none_or(|span| {
            let pause = span.pause().map_or(Duration::ZERO, |pause| pause.saturating_mul(3));
            let after = pause.min(STREAM_PAUSE_MAX).max(self.inactive_after(span.last));
            now.saturating_duration_since(span.last) >= after
        })
    }

    /// True when its next picture may come at any moment, and is missed if it does not.
    #[must_use]
    pub fn is_alive(&self, now: Instant) -> bool {
        self.arrives(now) && !self.rests(now)
    }

    /// True when it is heard again after a silence, for too short a time to know what it takes now.
    #[must_use]
    pub fn resumes(&self, now: Instant) -> bool {
        self.span.is_some_and(|span| {
            span.awake > span.since
                && now.saturating_duration_since(span.awake) < STREAM_RESUMES_FOR
        })
    }

    /// How long the stream has been arriving without having been left behind by the others of its
    /// producer; zero when it is not arriving.
    #[must_use]
    pub fn active_for(&self, now: Instant) -> Duration {
        let span = self.span.filter(|_| self.arrives(now));
        now.saturating_duration_since(span.map_or(now, |span| span.since))
    }

    /// When time alone changes what [`target`] makes of this stream: it stops being young, falls
    /// silent, or is left behind.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let span = self.span?;
        let young = span.since + STREAM_YOUNG;
        let silent = span.last + self.inactive_after(span.last);
        let left = self.left_behind_at();
        [Some(young), Some(silent), left].into_iter().flatten().filter(|at| *at > now).min()
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

/// The stream to aim at among `streams`, or `None` when nothing was ever heard.
///
/// `preferred` is the highest index wanted, `current` the one being forwarded. In this order:
/// 1. a stream that was left behind by the others, or never heard, is never taken;
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
        .filter(|(_, stream)| stream.activity.arrives(now))
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

    /// As they are when each was compared with the others.
    fn compared(now: Instant, streams: &[Candidate]) -> Vec<Candidate> {
        let mut compared = streams.to_vec();
        for (index, candidate) in compared.iter_mut().enumerate() {
            let others = streams.iter().enumerate().filter(|(other, _)| *other != index);
            candidate.activity.compare(now, others.map(|(_, other)| other.activity));
        }
        compared
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
        let table: [Case<'_>; 16] = [
            ("nothing was heard", &[none, none], 9, None, None),
            ("of what is silent together nothing is left", &[silent, silent], 9, None, Some(1)),
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
            assert_eq!(target(now, compared(now, streams), preferred, current), expected, "{name}");
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
        assert_eq!(activity.active_for(start + ms(3_100)), ms(3_100));
        // Fast again for ten seconds.
        run(&mut activity, start, 3_100..=12_900);
        assert!(activity.is_active(start + ms(14_000)));
        run(&mut activity, start, 13_000..=13_100);
        assert!(!activity.is_active(start + ms(13_800)));
    }

    #[test]
    fn a_stream_that_was_left_behind_is_young_again() {
        let start = origin();
        let (mut activity, mut other) = (Activity::new(false), Activity::new(false));
        run(&mut activity, start, 0..=1_000);
        assert_eq!(activity.active_for(start + ms(1_100)), ms(1_100));
        assert!(activity.is_active(start + ms(1_699)));
        assert!(!activity.is_active(start + ms(1_700)));
        run(&mut other, start, 0..=1_700);
        activity.compare(start + ms(1_700), [other].into_iter());
        assert!(!activity.arrives(start + ms(1_700)));
        assert_eq!(activity.active_for(start + ms(1_700)), Duration::ZERO);
        activity.handle_packet(start + ms(3_000));
        assert_eq!(activity.active_for(start + ms(3_100)), ms(100));
        activity.reset();
        assert!(!activity.is_active(start + ms(3_100)));
    }

    #[test]
    fn streams_that_are_silent_together_stay_what_they_were() {
        let start = origin();
        let mut streams = [Activity::new(false); 3];
        let compare = |streams: &mut [Activity; 3], now| {
            let others = *streams;
            for (index, activity) in streams.iter_mut().enumerate() {
                let others = others.iter().enumerate().filter(|(other, _)| *other != index);
                activity.compare(now, others.map(|(_, other)| *other));
            }
        };
        // One picture every three seconds, of which the encodings come 20 ms after each other.
        for picture in 0..4 {
            for (index, apart) in [0, 20, 40].into_iter().enumerate() {
                let now = start + ms(3_000 * picture + apart);
                streams[index].handle_packet(now);
                compare(&mut streams, now);
                assert!(streams.iter().all(|s| picture == 0 || s.arrives(now)), "{picture}");
            }
            for later in (100..3_000).step_by(100) {
                let now = start + ms(3_000 * picture + later);
                compare(&mut streams, now);
                assert!(streams.iter().all(|stream| stream.arrives(now)), "{picture} {later}");
            }
        }
        let last = start + ms(11_900);
        assert!(streams.iter().all(|stream| stream.active_for(last) >= ms(11_800)));
        // The third comes no more.
        let fifth = start + ms(12_000);
        streams[..2].iter_mut().for_each(|stream| stream.handle_packet(fifth));
        compare(&mut streams, fifth);
        assert_eq!(streams[2].next_deadline(fifth), Some(fifth + STREAM_APART_MAX));
        assert!(streams[2].arrives(fifth + STREAM_APART_MAX - ms(1)));
        assert!(!streams[2].arrives(fifth + STREAM_APART_MAX));
        streams[2].handle_packet(fifth + ms(3_000));
        assert_eq!(streams[2].active_for(fifth + ms(3_000)), Duration::ZERO);
    }

    #[test]
    fn a_stream_rests_when_its_next_picture_is_long_overdue() {
        let start = origin();
        let mut activity = Activity::new(false);
        assert!(activity.rests(start));
        activity.handle_packet(start);
        assert!(!activity.rests(start + STREAM_PAUSE_FIRST));
        run(&mut activity, start, 0..=10_000);
        assert!(!activity.rests(start + ms(10_699)));
        assert!(activity.rests(start + ms(10_700)));
        // One picture in four seconds or somewhat less, of some packets each.
        for picture in 4..10 {
            run(&mut activity, start, picture * 4_000 - picture * 10..=picture * 4_000);
        }
        assert!(!activity.rests(start + ms(40_000)) && activity.rests(start + ms(52_000)));
        assert!(activity.is_alive(start + ms(40_000)) && activity.resumes(start + ms(36_900)));
        assert!(!activity.resumes(start + ms(36_911)));
        // It moves for as long as it paused.
        run(&mut activity, start, 40_000..=44_200);
        assert!(!activity.rests(start + ms(44_899)) && activity.rests(start + ms(45_700)));
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
            let streams = compared(now, &streams);
            let chosen = target(now, streams.iter().copied(), preferred, current);
            let active =
                |index: usize| streams.get(index).is_some_and(|s| s.activity.arrives(now));
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
