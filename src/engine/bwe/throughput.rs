//! How many bits a second passed lately, by the packets' own times.
//!
//! Two per transport: one over arrivals (what the path delivered), one over departures (what was
//! asked of it). Pure and of fixed size. Invariant: the window is as long as needed for enough
//! packets, between what the caller asks and one second.

/// Buckets of the longest window.
const BUCKETS: usize = 40;
const BUCKETS_SIGNED: i64 = 40;
const BUCKET_US: i64 = 25_000;

const _: () = assert!(BUCKETS_SIGNED.unsigned_abs() == BUCKETS as u64);

/// Packets a window should hold: fewer say little about a rate (libwebrtc's robust estimator).
const PACKETS_ENOUGH: u32 = 20;

/// Fewer packets say nothing of a rate.
const PACKETS_LEAST: u32 = 6;

/// Less time than this gives no rate: two or three trains.
const SPAN_MIN_US: i64 = 80_000;

/// The usual shortest window (libwebrtc's): three frames at 6 frames/s.
pub(super) const WINDOW_US: i64 = 500_000;

/// Bytes and packets by time.
#[derive(Debug, Clone)]
pub(super) struct Throughput {
    bytes: [u32; BUCKETS],
    packets: [u16; BUCKETS],
    /// The number of the newest bucket.
    newest: i64,
    newest_us: i64,
    /// The first packet since the beginning, or since more than a window was empty.
    first_us: Option<i64>,
    first_bytes: u32,
    /// Where the newest bucket is kept.
    newest_place: u8,
}

/// When the bucket ends that holds what passes at this time.
pub(super) fn bucket_end_us(at_us: i64) -> i64 {
    (at_us.div_euclid(BUCKET_US) + 1) * BUCKET_US
}

impl Throughput {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; BUCKETS],
            packets: [0; BUCKETS],
            newest: 0,
            newest_us: 0,
            first_us: None,
            first_bytes: 0,
            newest_place: 0,
        }
    }

    /// Counts a packet; one that is a window older than the newest is not counted.
    #[inline]
    pub(super) fn add(&mut self, at_us: i64, bytes: u32) {
        self.add_all(at_us, bytes, 1);
    }

    /// Counts packets of one bucket, the newest of them at `at_us`. The first of all counts alone.
    #[inline]
    pub(super) fn add_all(&mut self, at_us: i64, bytes: u32, packets: u16) {
        // Mostly the bucket is the one of the packet before: found without a division.
        let within = at_us - self.newest * BUCKET_US;
        let place = usize::from(self.newest_place);
        if (0..BUCKET_US).contains(&within)
            && self.first_us.is_some()
            && let (Some(total), Some(count)) =
                (self.bytes.get_mut(place), self.packets.get_mut(place))
        {
            self.newest_us = self.newest_us.max(at_us);
            *total = total.saturating_add(bytes);
            *count = count.saturating_add(packets);
        } else {
            self.add_elsewhere(at_us, bytes, packets);
        }
    }

    fn add_elsewhere(&mut self, at_us: i64, bytes: u32, more: u16) {
        let number = at_us.div_euclid(BUCKET_US);
        let ahead = number - self.newest;
        if self.first_us.is_none() || ahead >= BUCKETS_SIGNED {
            *self = Self::new();
            self.newest_us = at_us;
            self.first_us = Some(at_us);
            self.first_bytes = bytes;
            self.newest = number;
        } else if ahead > 0 {
            for number in self.newest + 1..=number {
                self.put(number, |_, _| (0, 0));
            }
            self.newest = number;
        } else if ahead <= -(BUCKETS_SIGNED) {
            return;
        }
        self.newest_us = self.newest_us.max(at_us);
        self.newest_place = u8::try_from(place(self.newest)).unwrap_or_default();
        self.put(number, |total, packets| {
            (total.saturating_add(bytes), packets.saturating_add(more))
        });
    }

    /// Bits per second over the last `span_us`, longer while there are few packets; `None` until
    /// enough time has passed.
    pub(super) fn bps(&self, span_us: i64) -> Option<f64> {
        let first_us = self.first_us?;
        let (mut bytes, mut packets) = (0u64, 0u32);
        let oldest_us = (self.newest - BUCKETS_SIGNED + 1) * BUCKET_US;
        let mut from_us = self.newest * BUCKET_US;
        for (more, count) in self.newest_first() {
            bytes += u64::from(more);
            packets += u32::from(count);
            let whole = from_us <= first_us;
            let span = self.newest_us - from_us.max(first_us);
            let enough = span >= span_us && packets >= PACKETS_ENOUGH;
            if whole || enough || from_us <= oldest_us {
                // The first packet ends the time before the window, which is not known.
                let bytes = if whole { bytes - u64::from(self.first_bytes) } else { bytes };
                return (span >= SPAN_MIN_US).then(|| bytes as f64 * 8e6 / span as f64);
            }
            from_us -= BUCKET_US;
        }
        None
    }

    /// Bits per second since a moment, over a window at most; `None` until that is long enough.
    pub(super) fn bps_since(&self, since_us: i64) -> Option<f64> {
        let first_us = self.first_us?;
        let from_us = since_us.max(self.newest_us - WINDOW_US).max(first_us + 1);
        let first = from_us.div_euclid(BUCKET_US) + 1;
        let span = self.newest_us - first * BUCKET_US;
        if span < SPAN_MIN_US {
            return None;
        }
        let (mut bytes, mut packets) = (0u64, 0u32);
        let buckets = usize::try_from(self.newest - first + 1).unwrap_or_default();
        for (more, count) in self.newest_first().take(buckets) {
            bytes += u64::from(more);
            packets += u32::from(count);
        }
        (packets >= PACKETS_LEAST).then(|| bytes as f64 * 8e6 / span as f64)
    }

    /// Bytes and packets of all buckets, back from the newest.
    fn newest_first(&self) -> impl Iterator<Item = (u32, u16)> {
        let wrap = (usize::from(self.newest_place) + 1).min(BUCKETS);
        let (bytes, older_bytes) = self.bytes.split_at(wrap);
        let (packets, older_packets) = self.packets.split_at(wrap);
        let bytes = bytes.iter().rev().chain(older_bytes.iter().rev());
        let packets = packets.iter().rev().chain(older_packets.iter().rev());
        bytes.copied().zip(packets.copied())
    }

    fn put(&mut self, number: i64, change: impl FnOnce(u32, u16) -> (u32, u16)) {
        let place = place(number);
        if let (Some(bytes), Some(packets)) =
            (self.bytes.get_mut(place), self.packets.get_mut(place))
        {
            (*bytes, *packets) = change(*bytes, *packets);
        }
    }
}

fn place(number: i64) -> usize {
    usize::try_from(number.rem_euclid(BUCKETS_SIGNED)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 1,000 bytes every `gap_us`.
    fn steady(meter: &mut Throughput, from_us: i64, count: i64, gap_us: i64) -> i64 {
        (0..count).for_each(|n| meter.add(from_us + n * gap_us, 1_000));
        from_us + count * gap_us
    }

    #[test]
    fn a_steady_rate_is_told_as_soon_as_there_is_some_time() {
        for (gap_us, bps) in [(1_000, 8e6), (10_000, 8e5), (40_000, 2e5)] {
            let mut meter = Throughput::new();
            assert_eq!(meter.bps(WINDOW_US), None);
            steady(&mut meter, -500, 80_000 / gap_us + 1, gap_us);
            let early = meter.bps(WINDOW_US).unwrap();
            assert!((early / bps - 1.0).abs() < 0.01, "{early} {bps}");
            steady(&mut meter, 200_000, 5_000_000 / gap_us, gap_us);
            let late = meter.bps(WINDOW_US).unwrap();
            assert!((late / bps - 1.0).abs() < 0.06, "{late} {bps}");
        }
    }

    #[test]
    fn a_change_shows_after_the_window_that_was_asked_for() {
        let mut meter = Throughput::new();
        let at = steady(&mut meter, 0, 2_000, 1_000);
        steady(&mut meter, at, 60, 4_000);
        let short = meter.bps(200_000).unwrap();
        let long = meter.bps(WINDOW_US).unwrap();
        assert!((1.9e6..2.2e6).contains(&short), "{short}");
        assert!((4e6..6e6).contains(&long), "{long}");
    }

    #[test]
    fn a_rate_since_a_moment_leaves_out_what_was_before() {
        let mut meter = Throughput::new();
        let at = steady(&mut meter, 0, 1_000, 1_000);
        let end = steady(&mut meter, at, 25, 8_000);
        let since = meter.bps_since(at).unwrap();
        assert!((0.95e6..1.1e6).contains(&since), "{since}");
        assert_eq!(meter.bps_since(end - 90_000), None, "too short a time");
        assert_eq!(Throughput::new().bps_since(0), None);
    }

    #[test]
    fn one_that_comes_late_counts_in_its_time_and_ends_nothing_sooner() {
        let mut meter = Throughput::new();
        steady(&mut meter, 0, 100, 10_000);
        let before = meter.bps(200_000).unwrap();
        meter.add(900_000, 1_000);
        let after = meter.bps(200_000).unwrap();
        assert!((1.0..1.06).contains(&(after / before)), "{before} {after}");
        assert_eq!(meter.newest_us, 990_000);
    }

    #[test]
    fn silence_longer_than_the_window_starts_anew() {
        let mut meter = Throughput::new();
        let at = steady(&mut meter, 0, 100, 1_000);
        meter.add(at + 2_000_000, 500);
        assert_eq!(meter.bps(WINDOW_US), None);
        meter.add(at, 500);
        assert_eq!(meter.bps(WINDOW_US), None);
    }
}
