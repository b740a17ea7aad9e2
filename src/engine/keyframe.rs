//! When to ask a sender for a key frame.
//!
//! One throttle per incoming video stream, owned by it and asked on the shard's thread. All wishes
//! between two key frames are one; a wish is sent as soon as the throttle lets it, sent again until
//! a key frame arrives, and never forgotten. It knows no RTCP and no consumer.
//!
//! ```text
//!            request               poll → true
//!   Idle ───────────────► Wanted ─────────────► Asked ──┐
//!    ▲                      │                     │ ▲   │ poll → true after `repeated_after`
//!    └──────────────────────┴─────────────────────┘ └───┘
//!               handle_key_frame, cancel
//! ```

use std::time::{Duration, Instant};

use crate::limits::{
    KEY_FRAME_BURST, KEY_FRAME_REFILL, KEY_FRAME_RETRY_FIRST, KEY_FRAME_RETRY_MAX,
    KEY_FRAME_RETRY_MIN, KEY_FRAME_RETRY_SILENT_MAX, KEY_FRAME_SPACING_MAX, KEY_FRAME_SPACING_MIN,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Wanted { since: Instant },
    Asked { at: Instant },
}

/// The key-frame requests of one incoming stream.
#[derive(Debug, Clone)]
pub struct KeyFrameThrottle {
    state: State,
    /// Least time between two requests (`keyFrameRequestDelay`).
    spacing: Duration,
    retry_after: Duration,
    last_sent: Option<Instant>,
    /// When the bucket is full again: each request moves it by one refill.
    full_at: Option<Instant>,
    /// Requests since the stream last brought anything.
    unheard: u32,
}

impl KeyFrameThrottle {
    /// A throttle that keeps `spacing` between requests besides its own burst and refill, and
    /// neither less than [`KEY_FRAME_SPACING_MIN`] nor more than [`KEY_FRAME_SPACING_MAX`].
    #[must_use]
    pub fn new(spacing: Duration) -> Self {
        let spacing = spacing.clamp(KEY_FRAME_SPACING_MIN, KEY_FRAME_SPACING_MAX);
        let retry_after = KEY_FRAME_RETRY_FIRST;
        Self {
            state: State::Idle,
            spacing,
            retry_after,
            last_sent: None,
            full_at: None,
            unheard: 0,
        }
    }

    /// Somebody needs a key frame.
    pub fn request(&mut self, now: Instant) {
        if self.state == State::Idle {
            self.state = State::Wanted { since: now };
        }
    }

    /// A key frame arrived: every wish so far is served.
    pub fn handle_key_frame(&mut self) {
        self.state = State::Idle;
    }

    /// The stream brought a packet: its sender makes pictures, and an unanswered request was lost.
    #[inline]
    pub fn handle_packet(&mut self) {
        self.unheard = 0;
    }

    /// Nobody needs it any more.
    pub fn cancel(&mut self) {
        self.state = State::Idle;
    }

    /// A request is lost with its packet: it is repeated when a round trip and the encoding of a
    /// frame should be over, not earlier than 300 ms and not later than 1 s; less and less often
    /// while the stream brings nothing at all.
    pub fn handle_round_trip(&mut self, round_trip: Duration) {
        let expected = round_trip.saturating_mul(2).saturating_add(KEY_FRAME_RETRY_MIN);
        self.retry_after = expected.min(KEY_FRAME_RETRY_MAX);
    }

    /// True when a request is to be sent now; the caller sends it.
    pub fn poll(&mut self, now: Instant) -> bool {
        if self.next_deadline().is_none_or(|due| due > now) {
            return false;
        }
        self.state = State::Asked { at: now };
        self.last_sent = Some(now);
        self.unheard = self.unheard.saturating_add(1);
        self.full_at = Some(self.full_at.map_or(now, |at| at.max(now)) + KEY_FRAME_REFILL);
        true
    }

    fn repeated_after(&self) -> Duration {
        let times = 1_u32.checked_shl(self.unheard.saturating_sub(1)).unwrap_or(u32::MAX);
        let patient = self.retry_after.saturating_mul(times);
        patient.min(KEY_FRAME_RETRY_SILENT_MAX).max(self.retry_after)
    }

    /// When [`poll`](Self::poll) will next be true (possibly in the past); `None` when idle.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let wish = match self.state {
            State::Idle => return None,
            State::Wanted { since } => since,
            State::Asked { at } => at + self.repeated_after(),
        };
        let spaced = self.last_sent.map(|at| at + self.spacing);
        // A bucket of `n` has a request to give until it is `n − 1` refills from full.
        let filled = self
            .full_at
            .and_then(|at| at.checked_sub(KEY_FRAME_REFILL * KEY_FRAME_BURST.saturating_sub(1)));
        [spaced, filled].into_iter().flatten().chain([wish]).max()
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

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Milliseconds at which requests go out until `end`, waking only at deadlines, of a stream that
    /// brings packets all the time.
    fn sent_until(
        throttle: &mut KeyFrameThrottle,
        start: Instant,
        from: u64,
        end: u64,
    ) -> Vec<u64> {
        let mut sent = Vec::new();
        let mut now = start + ms(from);
        while now <= start + ms(end) {
            if throttle.poll(now) {
                sent.push(u64::try_from((now - start).as_millis()).expect("small"));
                throttle.handle_packet();
            }
            let Some(due) = throttle.next_deadline() else { break };
            now = due.max(now);
        }
        sent
    }

    #[test]
    fn wishes_are_one_until_a_key_frame_arrives() {
        let start = origin();
        let mut throttle = KeyFrameThrottle::new(Duration::ZERO);
        assert!(!throttle.poll(start));
        throttle.request(start);
        assert!(throttle.poll(start));
        throttle.request(start + ms(10));
        assert!(!throttle.poll(start + ms(10)));
        throttle.handle_key_frame();
        assert_eq!(throttle.next_deadline(), None);
        throttle.request(start + ms(20));
        assert_eq!(sent_until(&mut throttle, start, 20, 800), [330], "not where it is ignored");
    }

    #[test]
    fn an_unanswered_request_is_repeated_soon_and_then_every_second() {
        let start = origin();
        let mut throttle = KeyFrameThrottle::new(Duration::ZERO);
        throttle.request(start);
        assert_eq!(
            sent_until(&mut throttle, start, 0, 3_500),
            [0, 500, 1_000, 1_500, 2_000, 3_000]
        );
    }

    #[test]
    fn a_stream_that_brings_nothing_is_asked_less_and_less_until_it_does() {
        let start = origin();
        let mut throttle = KeyFrameThrottle::new(Duration::ZERO);
        throttle.request(start);
        let mut sent = Vec::new();
        for at in 0..20_000 {
            if at == 18_700 {
                throttle.handle_packet();
            }
            if throttle.poll(start + ms(at)) {
                sent.push(at);
            }
        }
        assert_eq!(sent, [0, 500, 1_500, 3_500, 7_500, 12_500, 17_500, 18_700, 19_200]);
    }

    #[test]
    fn with_a_known_round_trip_the_burst_is_used_and_then_one_a_second() {
        let start = origin();
        let mut throttle = KeyFrameThrottle::new(Duration::ZERO);
        throttle.handle_round_trip(ms(20));
        throttle.request(start);
        assert_eq!(sent_until(&mut throttle, start, 0, 3_500), [0, 340, 680, 1_020, 2_000, 3_000]);
    }

    #[test]
    fn a_burst_of_three_is_served_and_a_fourth_is_kept_for_later() {
        let start = origin();
        let mut throttle = KeyFrameThrottle::new(Duration::ZERO);
        for at in [0, 330, 660] {
            throttle.request(start + ms(at));
            assert!(throttle.poll(start + ms(at)), "{at}");
            throttle.handle_key_frame();
        }
        throttle.request(start + ms(661));
        assert!(!throttle.poll(start + ms(661)));
        assert_ne!(throttle.state, State::Idle);
        assert_eq!(sent_until(&mut throttle, start, 661, 1_400), [1_000]);
    }

    #[test]
    fn the_requested_spacing_is_kept() {
        let start = origin();
        let mut throttle = KeyFrameThrottle::new(ms(5_000));
        throttle.request(start);
        assert_eq!(sent_until(&mut throttle, start, 0, 11_000), [0, 5_000, 10_000]);
    }

    #[test]
    fn an_absurd_spacing_is_cut() {
        let start = origin();
        let mut throttle = KeyFrameThrottle::new(Duration::MAX);
        throttle.request(start);
        assert!(throttle.poll(start));
        assert_eq!(throttle.next_deadline(), Some(start + KEY_FRAME_SPACING_MAX));
    }

    #[test]
    fn a_cancelled_wish_is_not_sent() {
        let start = origin();
        let mut throttle = KeyFrameThrottle::new(Duration::ZERO);
        throttle.request(start);
        throttle.cancel();
        assert!(!throttle.poll(start + ms(5_000)));
    }

    proptest! {
        #[test]
        fn never_more_than_a_burst_and_one_a_second_and_no_wish_is_lost(
            steps in proptest::collection::vec((0_u64..700, any::<bool>(), any::<bool>()), 1..200),
            spacing in 0_u64..3_000,
            round_trip in 0_u64..2_000,
        ) {
            let start = origin();
            let mut throttle = KeyFrameThrottle::new(ms(spacing));
            throttle.handle_round_trip(ms(round_trip));
            let (mut now, mut sent) = (start, Vec::new());
            for (wait, wish, frame) in steps {
                now += ms(wait);
                if frame {
                    throttle.handle_key_frame();
                }
                if wish {
                    throttle.request(now);
                    prop_assert_ne!(throttle.state, State::Idle);
                }
                if throttle.poll(now) {
                    sent.push(now);
                }
                if let Some(due) = throttle.next_deadline() {
                    prop_assert!(due > now, "due wishes are sent when polled");
                    prop_assert!(due <= now + ms(spacing) + KEY_FRAME_RETRY_SILENT_MAX);
                }
            }
            for pair in sent.windows(2) {
                prop_assert!(pair[1] - pair[0] >= ms(spacing));
            }
            for burst in sent.windows(4) {
                prop_assert!(burst[3] - burst[0] >= ms(1_000));
            }
        }
    }
}
