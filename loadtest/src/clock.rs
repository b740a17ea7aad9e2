//! One time axis for the whole run: nanoseconds of `CLOCK_MONOTONIC` since the run's origin.
//!
//! Made once by `main`, copied to every thread. Publishers stamp packets with it and subscribers
//! subtract it, so both ends of a measured path read the same clock. It is the only place that
//! reads a clock; it does not wait.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds of one second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of one millisecond.
pub(crate) const MILLISECOND: u64 = 1_000_000;

/// The run's time axis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// An axis that begins now.
    #[expect(clippy::disallowed_methods, reason = "the load test's one clock")]
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Nanoseconds since the origin. About 40 ns of CPU.
    pub(crate) fn now(&self) -> u64 {
        nanoseconds(self.origin.elapsed())
    }

    /// The instant at `at` nanoseconds, as str0m wants it.
    pub(crate) fn instant(&self, at: u64) -> Instant {
        self.origin + Duration::from_nanos(at)
    }

    /// The nanosecond of an instant; zero for one before the origin.
    pub(crate) fn at(&self, instant: Instant) -> u64 {
        nanoseconds(instant.saturating_duration_since(self.origin))
    }

    /// Nanoseconds since 1970 at the origin. Steps and slews of the wall clock change it, so
    /// whoever converts kernel time stamps asks again from time to time. Of several readings the one
    /// with the least time between its two clocks counts: a thread may be preempted in between.
    pub(crate) fn unix_origin(&self) -> u64 {
        let readings = (0..5).map(|_| {
            let before = self.now();
            let unix = unix_now();
            let after = self.now();
            let between = after - before;
            (between, unix.saturating_sub(before + between / 2))
        });
        readings.min().map_or(0, |(_, origin)| origin)
    }
}

#[expect(clippy::disallowed_methods, reason = "the load test's one clock")]
fn unix_now() -> u64 {
    nanoseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
