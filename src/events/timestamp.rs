//! Wall-clock time as text, from an anchor that the node hands in.

use std::time::{Duration, Instant, SystemTime};

/// What the wall clock said at one moment; every later wall-clock time is derived from it, so that
/// a step of the host's clock never makes the log go backwards.
#[derive(Debug, Clone, Copy)]
pub struct WallAnchor {
    /// The wall clock's time.
    pub wall: SystemTime,
    /// The same moment on the monotonic clock.
    pub at: Instant,
}

impl WallAnchor {
    /// Wall-clock time at `now`, as ISO 8601 in UTC with milliseconds.
    #[must_use]
    pub fn iso(&self, now: Instant) -> String {
        iso_8601(self.since_epoch(now))
    }

    /// Milliseconds since 1970 at `now`.
    #[must_use]
    pub fn unix_ms(&self, now: Instant) -> u64 {
        u64::try_from(self.since_epoch(now).as_millis()).unwrap_or(u64::MAX)
    }

    fn since_epoch(&self, now: Instant) -> Duration {
        let wall = self.wall + now.saturating_duration_since(self.at);
        wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

/// ISO 8601 in UTC with milliseconds.
fn iso_8601(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Days since 1970-01-01 to year, month and day of the Gregorian calendar. Years are counted from
/// March, so that the leap day is the last one.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_from_march + 2) / 5 + 1;
    let month = if months_from_march < 10 { months_from_march + 3 } else { months_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_iso_8601_in_utc() {
        for (seconds, millis, text) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, 7, "2000-02-29T00:00:00.007Z"),
            (951_868_800, 0, "2000-03-01T00:00:00.000Z"),
            (1_704_067_199, 999, "2023-12-31T23:59:59.999Z"),
            (1_709_164_800, 0, "2024-02-29T00:00:00.000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(iso_8601(Duration::new(seconds, millis * 1_000_000)), text);
        }
    }
}
