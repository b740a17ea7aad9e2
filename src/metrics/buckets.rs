//! Histograms of a few fixed buckets, cheap enough to be kept where things happen.
//!
//! A shard keeps some and hands them over by value, the control thread others. Recording is a walk
//! over at most [`BUCKETS_MAX`] bounds: no allocation, no clock.

use std::marker::PhantomData;

/// Most bounds of a [`Scale`].
pub const BUCKETS_MAX: usize = 15;

/// What a histogram measures, and with which bounds.
pub trait Scale {
    /// Upper bounds of the buckets, in the unit that is recorded, ascending; at most
    /// [`BUCKETS_MAX`].
    const BOUNDS: &'static [u64];
    /// How many of that unit make one base unit of Prometheus (seconds, bytes).
    const PER_BASE: f64;
}

/// How long turns of a shard last: recorded in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnLength;

impl Scale for TurnLength {
    const BOUNDS: &'static [u64] = &[
        10_000,
        20_000,
        50_000,
        100_000,
        200_000,
        500_000,
        1_000_000,
        2_000_000,
        5_000_000,
        10_000_000,
        20_000_000,
        50_000_000,
        100_000_000,
        500_000_000,
    ];
    const PER_BASE: f64 = 1e9;
}

/// What transports can be sent, as estimated: recorded in bytes per second. The bounds are 64, 128,
/// 256 … kbit/s and 1, 2, 4 … Mbit/s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate;

impl Scale for Estimate {
    const BOUNDS: &'static [u64] = &[
        8_000, 16_000, 32_000, 64_000, 125_000, 250_000, 500_000, 1_000_000, 2_000_000, 4_000_000,
        8_000_000,
    ];
    const PER_BASE: f64 = 1.0;
}

/// How long a stage of joining takes: recorded in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JoinStage;

impl Scale for JoinStage {
    const BOUNDS: &'static [u64] = &[
        1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
        2_000_000, 5_000_000, 10_000_000, 30_000_000,
    ];
    const PER_BASE: f64 = 1e6;
}

/// How long an HTTP request takes: recorded in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestTime;

impl Scale for RequestTime {
    const BOUNDS: &'static [u64] = &[
        500, 1_000, 2_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 5_000_000,
    ];
    const PER_BASE: f64 = 1e6;
}

/// How often each range of values occurred, and their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Buckets<S> {
    counts: [u64; BUCKETS_MAX + 1],
    sum: u64,
    scale: PhantomData<S>,
}

impl<S: Scale> Buckets<S> {
    const FITS: () = assert!(S::BOUNDS.len() <= BUCKETS_MAX, "more bounds than places");

    /// Counts one value, in the scale's unit.
    #[inline]
    pub fn record(&mut self, value: u64) {
        let () = Self::FITS;
        let place = S::BOUNDS.iter().position(|bound| value <= *bound);
        if let Some(count) = self.counts.get_mut(place.unwrap_or(S::BOUNDS.len())) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All values together, in base units.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum as f64 / S::PER_BASE
    }

    /// Each bound, in base units, with how many values were not above it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = S::BOUNDS.iter().map(|bound| *bound as f64 / S::PER_BASE);
        bounds.zip(self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_its_bucket_and_all_above() {
        let mut buckets = Buckets::<JoinStage>::default();
        for us in [0, 1_000, 1_001, 40_000, 30_000_000, 30_000_001] {
            buckets.record(us);
        }
        let counts: Vec<_> = buckets.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5]);
        assert_eq!(buckets.count(), 6);
        assert!((buckets.sum() - 60.042_002).abs() < 1e-9, "{}", buckets.sum());
        assert_eq!(buckets.cumulative().next().map(|(bound, _)| bound), Some(0.001));
    }

    #[test]
    fn bounds_ascend() {
        for bounds in [TurnLength::BOUNDS, Estimate::BOUNDS, JoinStage::BOUNDS, RequestTime::BOUNDS]
        {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        }
    }
}
