//! How many bits a second arrived (or left) during the last second.
//!
//! Owned by whoever counts (a producer stream, a transport), on its shard's thread. Pure, of fixed
//! size; adding is O(1). Invariant: never reports more than was added within the last window, nor
//! less than within the last window but one bucket. Does not smooth or predict.

use std::time::{Duration, Instant};

/// Buckets of the window: the error of the window's edge is one of them.
const BUCKETS: usize = 20;

/// Time of one bucket.
const BUCKET: Duration = Duration::from_millis(50);

/// A bitrate over a sliding window of one second.
///
/// In its first second it reports less than the rate: the bits so far, as if nothing followed.
#[derive(Debug, Clone)]
pub struct RateMeter {
    epoch: Instant,
    /// Bytes by bucket number modulo [`BUCKETS`].
    buckets: [u32; BUCKETS],
    /// The number of the newest bucket since the epoch.
    newest: u64,
}

impl RateMeter {
    /// A meter that counts from `now` on.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, buckets: [0; BUCKETS], newest: 0 }
    }

    /// A value of it, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        usize::from(self.newest == 0)
    }

    /// Counts `bytes` at `now`; an instant before the newest counts as the newest.
    pub fn add(&mut self, now: Instant, bytes: usize) {
        let number = self.number(now);
        if number > self.newest {
            let skipped = (number - self.newest).min(BUCKETS as u64);
            for number in number + 1 - skipped..=number {
                if let Some(bucket) = self.buckets.get_mut(place(number)) {
                    *bucket = 0;
                }
            }
            self.newest = number;
        }
        if let Some(bucket) = self.buckets.get_mut(place(self.newest)) {
            *bucket = bucket.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// Bits per second over the second that ends at `now`.
    #[must_use]
    pub fn bitrate_bps(&self, now: Instant) -> u64 {
        let number = self.number(now).max(self.newest);
        let oldest = (number + 1).saturating_sub(BUCKETS as u64);
        let bytes: u64 = (oldest..=self.newest)
            .filter_map(|number| self.buckets.get(place(number)))
            .map(|bucket| u64::from(*bucket))
            .sum();
        bytes * 8
    }

    fn number(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.epoch);
        u64::try_from(age.as_millis() / BUCKET.as_millis()).unwrap_or(u64::MAX)
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number % BUCKETS as u64).unwrap_or_default()
}

const _: () = assert!(BUCKETS as u128 * BUCKET.as_millis() == 1000);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::test_instant as epoch;

    #[test]
    fn a_steady_stream_is_measured_and_its_end_is_seen_within_a_second() {
        let t = epoch();
        let ms = Duration::from_millis;
        let mut meter = RateMeter::new(t);
        for at in 0..3000 {
            meter.add(t + ms(at), 125);
        }
        assert_eq!(meter.bitrate_bps(t + ms(2999)), 1_000_000);
        assert_eq!(meter.bitrate_bps(t + ms(3499)), 500_000);
        assert_eq!(meter.bitrate_bps(t + ms(3950)), 0);
        assert_eq!(meter.bitrate_bps(t + Duration::from_secs(1 << 40)), 0);
        meter.add(t + Duration::from_secs(1 << 30), 1000);
        assert_eq!(meter.bitrate_bps(t + Duration::from_secs(1 << 30)), 8000);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list_of_all_packets(
            packets in prop::collection::vec((0u64..400, 0usize..1500), 1..200),
            pause in 0u64..1500,
        ) {
            let t = epoch();
            let mut meter = RateMeter::new(t);
            let mut at = 0;
            let mut all = Vec::new();
            for (interval, bytes) in packets {
                at += interval;
                meter.add(t + Duration::from_millis(at), bytes);
                all.push((at, bytes as u64 * 8));
            }
            let end = at + pause;
            let within = |window| -> u64 {
                all.iter().filter(|(at, _)| at + window > end).map(|(_, bits)| bits).sum()
            };
            let measured = meter.bitrate_bps(t + Duration::from_millis(end));
            prop_assert!(measured <= within(1000));
            prop_assert!(measured >= within(950));
        }
    }
}
