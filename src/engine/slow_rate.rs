//! How many bits a second a stream takes that brings few pictures: a shared screen's.
//!
//! Owned by a stream and told each of its packets, on its shard's thread. Pure, of fixed size. What
//! came within the last second says nothing of one picture in five: it is too much with the
//! picture, and nothing before the next. So what comes together is a burst, and bursts are measured
//! by the time between them; what is known of a stream stays while it brings nothing.

use std::time::{Duration, Instant};

use crate::limits::{SLOW_BURST, SLOW_BURSTS};

/// Bursts that begin within so long of each other are what [`RateMeter`] measures.
///
/// [`RateMeter`]: super::incoming_rate::RateMeter
const SPAN_MIN: Duration = Duration::from_secs(1);

/// The last bursts of a stream: what came within [`SLOW_BURST`].
#[derive(Debug, Clone, Default)]
pub struct SlowMeter {
    /// When each began and its bytes so far, the newest first.
    bursts: [Option<(Instant, u64)>; SLOW_BURSTS],
}

impl SlowMeter {
    /// Counts `bytes`.
    #[inline]
    pub fn add(&mut self, now: Instant, bytes: usize) {
        let bytes = bytes as u64;
        if let Some(Some((began, sum))) = self.bursts.first_mut()
            && now.saturating_duration_since(*began) < SLOW_BURST
        {
            *sum += bytes;
            return;
        }
        self.bursts.rotate_right(1);
        if let Some(newest) = self.bursts.first_mut() {
            *newest = Some((now, bytes));
        }
    }

    /// The sender began anew.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Bits per second of the last bursts but the newest, over the time until that began; of an only
    /// one as if the next were due now. `None` where the last second says it better.
    #[must_use]
    pub fn bitrate_bps(&self, now: Instant) -> Option<u64> {
        let (newest, last) = self.bursts.first().copied()??;
        let (first, _) = self.bursts.iter().rev().find_map(|burst| *burst)?;
        let until = if newest > first { newest } else { now };
        let span = until.saturating_duration_since(first);
        if span < SPAN_MIN {
            return None;
        }
        let before: u64 = self.bursts.iter().skip(1).flatten().map(|(_, bytes)| *bytes).sum();
        let bytes = if newest > first { before } else { last };
        u64::try_from(u128::from(bytes) * 8_000_000 / span.as_micros().max(1)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::test_instant;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn few_pictures_are_measured_by_the_time_between_them_and_stay_known() {
        let start = test_instant();
        // ms from picture to picture, pictures that come together, bits/s.
        for (interval, together, expected) in [
            (33, 1, None),
            (300, 1, None),
            (500, 1, Some(48_000)),
            (5_000, 1, Some(4_800)),
            (5_000, 4, Some(19_200)),
        ] {
            let mut meter = SlowMeter::default();
            assert_eq!(meter.bitrate_bps(start), None);
            let mut now = start;
            for picture in 0..20 {
                now = start + ms(picture * interval);
                for packet in 0..together * 3 {
                    meter.add(now + ms(packet * 20), 1_000);
                }
            }
            // Behind the last one nothing comes, and nothing is forgotten.
            for silence in [0, 300, 60_000] {
                assert_eq!(meter.bitrate_bps(now + ms(silence)), expected, "{interval}");
            }
        }
    }

    #[test]
    fn an_only_picture_counts_less_the_longer_it_is_the_only_one() {
        let start = test_instant();
        let mut meter = SlowMeter::default();
        meter.add(start, 100_000);
        assert_eq!(meter.bitrate_bps(start + ms(999)), None);
        assert_eq!(meter.bitrate_bps(start + ms(1_000)), Some(800_000));
        assert_eq!(meter.bitrate_bps(start + ms(4_000)), Some(200_000));
        meter.reset();
        assert_eq!(meter.bitrate_bps(start + ms(4_000)), None);
    }
}
