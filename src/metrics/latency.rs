//! How long forwarded packets were on their way through a shard: from the kernel's receive time to
//! the send call that took their copy.
//!
//! A shard owns a [`LatencyRecorder`] and hands over what it gathered, by value, with each report
//! ([`LatencyInterval`]); the control thread owns a [`LatencyHistory`] per shard. Every packet that
//! leaves for a receiver for the first time counts once, whatever its way in. Repairs do not, nor
//! does what a late joiner catches up with: those waited for their receiver.
//!
//! Values are microseconds in HDR histograms of two digits: exact up to 256 µs, then within 0.8 %,
//! up to [`LATENCY_MAX`]; what took longer counts as that long. 9 KB per shard; on the control
//! thread 19 KB for each, and for each of the last ten seconds 16 bytes for every value that
//! occurred, 37 KB at most.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::{Counter, Histogram};

use crate::limits::{LATENCY_MAX, LATENCY_WINDOW};

/// Significant decimal digits.
const DIGITS: u8 = 2;

/// Intervals kept for the last [`LATENCY_WINDOW`]: shards report every second.
const INTERVALS_MAX: usize = 10;

/// Upper bounds of the Prometheus histogram's buckets.
pub const BUCKETS_US: [u64; 14] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000,
];

fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000) + u64::from(duration.subsec_micros())
}

fn histogram<T: Counter>() -> Histogram<T> {
    Histogram::new_with_bounds(1, micros(LATENCY_MAX), DIGITS).expect("constants within its bounds")
}

/// Gathers latencies on a shard's thread; recording costs some nanoseconds and no allocation.
#[derive(Debug)]
pub struct LatencyRecorder {
    histogram: Histogram<u32>,
    sum_us: u64,
    max_us: u64,
}

impl Default for LatencyRecorder {
    fn default() -> Self {
        Self { histogram: histogram(), sum_us: 0, max_us: 0 }
    }
}

impl LatencyRecorder {
    /// Counts `count` packets that took `latency`.
    #[inline]
    pub fn record(&mut self, latency: Duration, count: u32) {
        let us = micros(latency);
        self.histogram.saturating_record_n(us, count);
        self.sum_us = self.sum_us.saturating_add(us.saturating_mul(u64::from(count)));
        self.max_us = self.max_us.max(us);
    }

    /// What was recorded since the last call.
    pub fn take(&mut self) -> LatencyInterval {
        let counts = self.histogram.iter_recorded();
        let counts = counts.map(|step| (step.value_iterated_to(), step.count_at_value()));
        let interval =
            LatencyInterval { counts: counts.collect(), sum_us: self.sum_us, max_us: self.max_us };
        self.histogram.reset();
        (self.sum_us, self.max_us) = (0, 0);
        interval
    }
}

/// The latencies of one interval, compact: only what occurred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LatencyInterval {
    /// A value of the histogram and how many packets had it.
    counts: Vec<(u64, u32)>,
    sum_us: u64,
    max_us: u64,
}

impl LatencyInterval {
    /// How many packets.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|(_, count)| u64::from(*count)).sum()
    }
}

/// Latencies of a longer time or of more than one shard.
#[derive(Debug, Clone)]
pub struct LatencyCounts {
    histogram: Histogram<u64>,
    sum_us: u64,
    max_us: u64,
}

impl Default for LatencyCounts {
    fn default() -> Self {
        Self { histogram: histogram(), sum_us: 0, max_us: 0 }
    }
}

impl LatencyCounts {
    /// Adds an interval.
    pub fn add(&mut self, interval: &LatencyInterval) {
        for (us, count) in &interval.counts {
            self.histogram.saturating_record_n(*us, u64::from(*count));
        }
        self.sum_us = self.sum_us.saturating_add(interval.sum_us);
        self.max_us = self.max_us.max(interval.max_us);
    }

    /// Adds what another shard counted.
    pub fn merge(&mut self, other: &Self) {
        let added = self.histogram.add(&other.histogram);
        debug_assert!(added.is_ok(), "all histograms have the same bounds");
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    /// How many packets.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// All their latencies together, in seconds.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_micros(self.sum_us).as_secs_f64()
    }

    /// Each of [`BUCKETS_US`], in seconds, with how many packets took no longer.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        BUCKETS_US.into_iter().map(|us| {
            let seconds = Duration::from_micros(us).as_secs_f64();
            (seconds, self.histogram.count_between(0, us))
        })
    }

    /// What a person reads.
    #[must_use]
    pub fn summary(&self) -> LatencySummary {
        // No quantile lies above the greatest value, as the bound of its histogram bucket may.
        let at = |quantile| self.histogram.value_at_quantile(quantile).min(self.max_us);
        LatencySummary {
            count: self.count(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.max_us,
        }
    }
}

/// Quantiles in microseconds; all zero when there is nothing to tell of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LatencySummary {
    /// How many packets.
    pub count: u64,
    /// Half of them took at most this.
    pub p50_us: u64,
    /// 90 %.
    pub p90_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// 99.9 %.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// What one shard told so far.
#[derive(Debug, Clone, Default)]
pub struct LatencyHistory {
    total: LatencyCounts,
    /// The last intervals and when they were told.
    recent: VecDeque<(Instant, LatencyInterval)>,
}

impl LatencyHistory {
    /// Adds what the shard told at `now`.
    pub fn add(&mut self, now: Instant, interval: LatencyInterval) {
        self.total.add(&interval);
        if self.recent.len() == INTERVALS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((now, interval));
    }

    /// Since the start.
    #[must_use]
    pub fn total(&self) -> &LatencyCounts {
        &self.total
    }

    /// Of the last [`LATENCY_WINDOW`] before `now`.
    #[must_use]
    pub fn recent(&self, now: Instant) -> LatencyCounts {
        let mut counts = LatencyCounts::default();
        for (at, interval) in &self.recent {
            if now.saturating_duration_since(*at) < LATENCY_WINDOW {
                counts.add(interval);
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::test_instant;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    fn interval(latencies: &[(u64, u32)]) -> LatencyInterval {
        let mut recorder = LatencyRecorder::default();
        for (latency, count) in latencies {
            recorder.record(us(*latency), *count);
        }
        recorder.take()
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut counts = LatencyCounts::default();
        assert_eq!(counts.summary(), LatencySummary::default());
        counts.add(&interval(&[(0, 1), (40, 898), (200, 91), (3_000, 9), (70_001, 1)]));
        let summary = counts.summary();
        assert_eq!((summary.count, summary.p50_us, summary.p90_us), (1000, 40, 200));
        assert_eq!(summary.p99_us, 200);
        assert!(summary.p999_us.abs_diff(3_000) <= 24, "{summary:?}");
        assert_eq!(summary.max_us, 70_001, "exact");
        let sum = (40 * 898 + 200 * 91 + 3_000 * 9 + 70_001) as f64 / 1e6;
        assert!((counts.sum_seconds() - sum).abs() < 1e-9);
    }

    #[test]
    fn what_takes_longer_than_can_be_told_counts_as_the_longest() {
        let mut counts = LatencyCounts::default();
        counts.add(&interval(&[(500_000_000, 3)]));
        let summary = counts.summary();
        assert_eq!((summary.count, summary.max_us), (3, 500_000_000));
        let longest = micros(LATENCY_MAX);
        assert!((longest..=longest + longest / 100).contains(&summary.p50_us), "{summary:?}");
    }

    #[test]
    fn an_interval_is_taken_once() {
        let mut recorder = LatencyRecorder::default();
        recorder.record(us(5), 2);
        assert_eq!(recorder.take().count(), 2);
        assert_eq!(recorder.take(), LatencyInterval::default());
    }

    #[test]
    fn buckets_grow_and_hold_all_that_is_not_longer() {
        let mut counts = LatencyCounts::default();
        counts.add(&interval(&[(10, 1), (50, 2), (51, 4), (1_900, 8), (5_000_000, 16)]));
        let buckets: Vec<_> = counts.buckets().map(|(_, count)| count).collect();
        assert_eq!(buckets, [3, 7, 7, 7, 7, 15, 15, 15, 15, 15, 15, 15, 15, 15]);
        assert_eq!(counts.count(), 31);
        assert_eq!(counts.buckets().next().map(|(le, _)| le), Some(0.000_05));
    }

    #[test]
    fn what_is_recent_falls_out_of_the_window_and_stays_in_the_total() {
        let start = test_instant();
        let mut history = LatencyHistory::default();
        for second in 0..20_u32 {
            let at = start + Duration::from_secs(second.into());
            history.add(at, interval(&[(u64::from(second), 1)]));
        }
        let end = start + Duration::from_secs(19);
        let recent = history.recent(end).summary();
        assert_eq!((recent.count, recent.p50_us, recent.max_us), (10, 14, 19));
        assert_eq!(history.recent(end + Duration::from_secs(5)).count(), 5);
        assert_eq!(history.recent(end + LATENCY_WINDOW).count(), 0);
        assert_eq!(history.total().count(), 20);
        let mut node = history.total().clone();
        node.merge(&history.recent(end));
        assert_eq!((node.count(), node.summary().max_us), (30, 19));
    }
}
