//! When a shard listens for datagrams, and when it lets them gather first.
//!
//! A wake costs as much as a dozen packets. Many clients that each send something now and then wake a
//! shard for every single datagram; so after two wakes that lay close together it does not listen for
//! some time (as network cards hold interrupts back), then takes everything that came. Datagrams that
//! reach a shard with little to do are read at once, and a shard that never sleeps gathers nothing.
//!
//! A message to the kernel costs little more for several datagrams to one receiver than for one. Where
//! single datagrams go to many receivers each (the sound of many speakers), the one that wakes a shard
//! therefore waits two thirds longer for the next, so that both leave in one message. Measured with 10
//! speakers and 50 listeners: 1.5 datagrams a message, a quarter less CPU, 1.3 ms at the median.
//!
//! Owned by a shard, pure: the times go in.

use std::time::{Duration, Instant};

/// One datagram in, this many out: there are many receivers.
const FAN_OUT: u64 = 8;

/// Messages of fewer datagrams on average than this gain by another.
const THIN: u64 = 4;

/// Turns of single datagrams to many receivers that are further apart than this many spans have
/// nothing to wait for.
const APART: u32 = 8;

/// What a shard remembers of its wakes.
#[derive(Debug)]
pub(super) struct Gathering {
    /// How long datagrams may gather, from the wake on that brought some; zero: never.
    span: Duration,
    /// When it last woke.
    woken: Instant,
    /// It woke twice in a short time, and found datagrams at each wake since.
    is_crowded: bool,
    /// Until then it does not listen for datagrams.
    until: Option<Instant>,
    /// When it last sent a few datagrams each to many receivers.
    fanned: Instant,
    /// How far such turns lie apart: a moving mean.
    apart: Duration,
}

/// What went in and out over UDP in one turn.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    /// Datagrams received.
    pub(super) received: u64,
    /// Datagrams sent.
    pub(super) sent: u64,
    /// Messages to the kernel that carried those.
    pub(super) messages: u64,
}

impl Traffic {
    /// Few datagrams each went to many receivers.
    fn is_thin(self) -> bool {
        let Self { received, sent, messages } = self;
        sent >= FAN_OUT.saturating_mul(received.max(1)) && sent < messages.saturating_mul(THIN)
    }
}

impl Gathering {
    pub(super) fn new(now: Instant, span: Duration) -> Self {
        let apart = span * (2 * APART);
        Self { span, woken: now, is_crowded: false, until: None, fanned: now, apart }
    }

    /// How long datagrams may gather; what has to be done at a time may be that much later.
    pub(super) fn span(&self) -> Duration {
        self.span
    }

    /// The shard goes to sleep: until when it is not to listen for datagrams, if they are to gather.
    pub(super) fn take_until(&mut self, now: Instant) -> Option<Instant> {
        self.until.take().filter(|until| *until > now)
    }

    /// It slept from `start` to `now` and finds datagrams: until when they are to wait for more.
    pub(super) fn hold(&self, start: Instant, now: Instant) -> Option<Instant> {
        let is_fresh = now.saturating_duration_since(self.fanned) <= self.span * (2 * APART);
        // What was there before it slept has waited for it already.
        let has_slept = now.saturating_duration_since(start) >= self.span / 8;
        let is_worth_it = self.apart <= self.span * APART && is_fresh && has_slept;
        (is_worth_it && !self.span.is_zero()).then(|| now + self.span * 5 / 3)
    }

    /// What the turn that began at `now` took in and sent.
    pub(super) fn note_traffic(&mut self, now: Instant, traffic: Traffic) {
        if traffic.is_thin() {
            let apart = now.saturating_duration_since(self.fanned).min(self.span * (2 * APART));
            self.apart = (self.apart * 7 + apart) / 8;
            self.fanned = now;
        }
    }

    /// It took what came while the datagram that woke it waited.
    pub(super) fn note_held(&mut self, now: Instant) {
        self.is_crowded = false;
        self.woken = now;
    }

    /// It woke; `gathered` if it did not listen for datagrams.
    pub(super) fn note_wake(&mut self, now: Instant, gathered: bool) {
        // A wake for what has gathered tells nothing of the pace at which datagrams come.
        if !gathered {
            self.is_crowded = now.saturating_duration_since(self.woken) < self.span / 2;
        }
        self.woken = now;
    }

    /// There were datagrams.
    pub(super) fn note_datagrams(&mut self) {
        if self.is_crowded {
            self.until = Some(self.woken + self.span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_micros(1_000);

    struct Shard {
        start: Instant,
        gathering: Gathering,
    }

    impl Shard {
        fn new(span: Duration) -> Self {
            let start = crate::engine::test_instant();
            Self { start, gathering: Gathering::new(start, span) }
        }

        fn at(&self, us: u64) -> Instant {
            self.start + Duration::from_micros(us)
        }

        /// Wakes, and until when it does not listen after that.
        fn wake(&mut self, us: u64, gathered: bool, datagrams: bool) -> Option<u64> {
            self.gathering.note_wake(self.at(us), gathered);
            if datagrams {
                self.gathering.note_datagrams();
            }
            let until = self.gathering.take_until(self.at(us + 10))?;
            Some(u64::try_from((until - self.start).as_micros()).unwrap())
        }
    }

    #[test]
    fn datagrams_gather_once_they_come_close_together_and_while_there_are_some() {
        let mut shard = Shard::new(SPAN);
        assert_eq!(shard.wake(5_000, false, true), None, "the first for long");
        assert_eq!(shard.wake(5_499, false, true), Some(6_499));
        assert_eq!(shard.wake(6_500, true, true), Some(7_500));
        assert_eq!(shard.wake(7_500, true, false), None, "nothing had gathered");
        assert_eq!(shard.wake(8_100, false, true), None);
        assert_eq!(shard.wake(8_700, false, true), None, "now and then one");
    }

    #[test]
    fn a_shard_that_took_longer_than_that_goes_on_listening() {
        let mut shard = Shard::new(SPAN);
        shard.wake(100, false, true);
        shard.gathering.note_wake(shard.at(200), false);
        shard.gathering.note_datagrams();
        assert_eq!(shard.gathering.take_until(shard.at(1_200)), None);
        assert_eq!(shard.gathering.take_until(shard.at(0)), None, "told once");
    }

    #[test]
    fn nothing_gathers_where_that_is_off() {
        let mut shard = Shard::new(Duration::ZERO);
        assert!((1..50).all(|us| shard.wake(us, false, true).is_none()));
    }

    const SOUND: Traffic = Traffic { received: 1, sent: 50, messages: 50 };

    /// Turns of that kind so far apart, from 1 s on, until the mean is settled; when the last was.
    fn after_turns(shard: &mut Shard, apart_us: u64, traffic: Traffic) -> u64 {
        let turns = (1..=40).map(|n| 1_000_000 + n * apart_us);
        turns.fold(0, |_, at| {
            shard.gathering.note_traffic(shard.at(at), traffic);
            at
        })
    }

    /// Until when the one that wakes it is to wait, from now, after a sleep of 1 ms.
    fn hold(shard: &Shard, us: u64) -> Option<u64> {
        let until = shard.gathering.hold(shard.at(us - 1_000), shard.at(us))?;
        Some(u64::try_from((until - shard.at(us)).as_micros()).unwrap())
    }

    #[test]
    fn what_waited_for_more_is_no_sign_of_a_crowd() {
        let mut shard = Shard::new(SPAN);
        shard.wake(5_000, false, true);
        assert_eq!(shard.wake(5_499, false, true), Some(6_499));
        shard.gathering.note_held(shard.at(8_000));
        shard.gathering.note_datagrams();
        assert_eq!(shard.gathering.take_until(shard.at(8_010)), None);
    }

    #[test]
    fn single_datagrams_to_many_wait_for_the_next() {
        let mut shard = Shard::new(SPAN);
        assert_eq!(hold(&shard, 2_000), None, "nothing is known");
        let last = after_turns(&mut shard, 7_900, SOUND);
        assert_eq!(hold(&shard, last + 5_000), Some(1_666));
        assert_eq!(hold(&shard, last + 16_001), None, "they have ceased");
        let now = shard.at(last + 5_000);
        let busy = shard.gathering.hold(now - Duration::from_micros(100), now);
        assert_eq!(busy, None, "what came in its turn has waited");
    }

    #[test]
    fn nothing_waits_where_that_saves_little() {
        let few = Traffic { sent: 7, messages: 7, ..SOUND };
        let trains = Traffic { sent: 500, messages: 100, received: 5 };
        let fed_back = Traffic { received: 7, ..SOUND };
        let rare = (8_200, SOUND);
        for (apart, traffic) in [(2_000, few), (2_000, trains), (2_000, fed_back), rare] {
            let mut shard = Shard::new(SPAN);
            let last = after_turns(&mut shard, apart, traffic);
            assert_eq!(hold(&shard, last + 1_500), None, "{apart} {traffic:?}");
        }
        let mut off = Shard::new(Duration::ZERO);
        let last = after_turns(&mut off, 2_000, SOUND);
        assert_eq!(hold(&off, last + 1_500), None);
    }
}
