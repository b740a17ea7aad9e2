//! When a shard listens for datagrams, and when it lets them gather first.
//!
//! A wake costs as much as a dozen packets. Many clients that each send something now and then wake a
//! shard for every single datagram; so after two wakes that lay close together it does not listen for
//! some time (as network cards hold interrupts back), then takes everything that came. Datagrams that
//! reach a shard with little to do are read at once, and a shard that never sleeps gathers nothing.
//!
//! Owned by a shard, pure: the times go in.

use std::time::{Duration, Instant};

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
}

impl Gathering {
    pub(super) fn new(now: Instant, span: Duration) -> Self {
        Self { span, woken: now, is_crowded: false, until: None }
    }

    /// How long datagrams may gather; what has to be done at a time may be that much later.
    pub(super) fn span(&self) -> Duration {
        self.span
    }

    /// The shard goes to sleep: until when it is not to listen for datagrams, if they are to gather.
    pub(super) fn take_until(&mut self, now: Instant) -> Option<Instant> {
        self.until.take().filter(|until| *until > now)
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
}
