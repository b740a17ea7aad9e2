//! Whether delay grows: a line through the last groups, against a threshold that adapts to the
//! path's own noise (draft-ietf-rmcat-gcc-02 §5.3–5.4 with libwebrtc's trendline for the filter).

use super::Usage;

/// Groups of the line.
const WINDOW: usize = 20;

/// Weight of what was before in the smoothed delay (libwebrtc).
const SMOOTHING: f64 = 0.9;

/// Makes a slope comparable with the threshold (libwebrtc).
const GAIN: f64 = 4.0;

/// Groups after which the slope counts fully.
const GROUPS_FULL: u32 = 60;

/// The threshold in milliseconds: at first, at least and at most (libwebrtc).
const THRESHOLD_MS: f64 = 12.5;
const THRESHOLD_MIN_MS: f64 = 6.0;
const THRESHOLD_MAX_MS: f64 = 600.0;

/// How fast the threshold follows upwards and downwards, per millisecond (draft §5.4).
const FOLLOW_UP: f64 = 0.0087;
const FOLLOW_DOWN: f64 = 0.039;

/// A trend beyond the threshold by more than this is no noise to adapt to.
const OUTLIER_MS: f64 = 15.0;

/// How long the trend has to stay beyond the threshold (draft: 10 ms).
const OVERUSE_MS: f64 = 10.0;

const _: () = assert!(WINDOW.is_multiple_of(4));

/// What a line through points is made of.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Sums {
    fn add(&mut self, x: f64, y: f64) {
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.xy += x * y;
    }

    fn with(self, other: Self) -> Self {
        Self {
            x: self.x + other.x,
            y: self.y + other.y,
            xx: self.xx + other.xx,
            xy: self.xy + other.xy,
        }
    }
}

/// A trendline and its detector.
#[derive(Debug)]
pub(super) struct Trendline {
    /// Arrival and smoothed delay in milliseconds, a ring.
    points: [(f64, f64); WINDOW],
    next: usize,
    count: u32,
    first_us: i64,
    first_delay_us: i64,
    smoothed_ms: f64,
    slope: f64,
    threshold_ms: f64,
    beyond_ms: f64,
    beyond_count: u32,
    updated_ms: f64,
    usage: Usage,
}

impl Trendline {
    pub(super) fn new() -> Self {
        Self {
            points: [(0.0, 0.0); WINDOW],
            next: 0,
            count: 0,
            first_us: 0,
            first_delay_us: 0,
            smoothed_ms: 0.0,
            slope: 0.0,
            threshold_ms: THRESHOLD_MS,
            beyond_ms: 0.0,
            beyond_count: 0,
            updated_ms: 0.0,
            usage: Usage::Normal,
        }
    }

    /// A group arrived with this delay.
    pub(super) fn add(&mut self, at_us: i64, delay_us: i64) {
        if self.count == 0 {
            self.first_us = at_us;
            self.first_delay_us = delay_us;
        }
        let at_ms = (at_us - self.first_us) as f64 / 1e3;
        let delay_ms = (delay_us - self.first_delay_us) as f64 / 1e3;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * delay_ms;
        if let Some(point) = self.points.get_mut(self.next) {
            *point = (at_ms, self.smoothed_ms);
        }
        self.next = (self.next + 1) % WINDOW;
        self.count = self.count.saturating_add(1);
        let before = self.slope;
        if self.count as usize >= WINDOW {
            self.slope = self.fit().unwrap_or(self.slope);
        }
        self.detect(at_ms, before);
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Milliseconds of delay per millisecond.
    pub(super) fn slope(&self) -> f64 {
        self.slope
    }

    /// Least squares; `None` when all points have one time. In four lanes, because it is done for
    /// every group and a sum waits for the sum before it.
    fn fit(&self) -> Option<f64> {
        let (x_first, y_first) = self.points.first().copied()?;
        let mut lanes = [Sums::default(); 4];
        for points in self.points.chunks_exact(4) {
            for (lane, (x, y)) in lanes.iter_mut().zip(points) {
                lane.add(x - x_first, y - y_first);
            }
        }
        let [a, b, c, d] = lanes;
        let sums = a.with(b).with(c.with(d));
        let n = WINDOW as f64;
        let over = sums.xy - sums.x * sums.y / n;
        let under = sums.xx - sums.x * sums.x / n;
        (under > 1e-6).then(|| over / under)
    }

    fn detect(&mut self, at_ms: f64, slope_before: f64) {
        let trend_ms = f64::from(self.count.min(GROUPS_FULL)) * self.slope * GAIN;
        let passed_ms = (at_ms - self.updated_ms).clamp(0.0, 100.0);
        if trend_ms > self.threshold_ms {
            self.beyond_ms += passed_ms;
            self.beyond_count += 1;
            let lasting = self.beyond_ms > OVERUSE_MS && self.beyond_count > 1;
            if lasting && self.slope >= slope_before {
                self.usage = Usage::Over;
                self.beyond_ms = 0.0;
                self.beyond_count = 0;
            }
        } else {
            self.beyond_ms = 0.0;
            self.beyond_count = 0;
            self.usage = if trend_ms < -self.threshold_ms { Usage::Under } else { Usage::Normal };
        }
        self.updated_ms = at_ms;
        if trend_ms.abs() <= self.threshold_ms + OUTLIER_MS {
            let follow = if trend_ms.abs() < self.threshold_ms { FOLLOW_DOWN } else { FOLLOW_UP };
            self.threshold_ms += follow * (trend_ms.abs() - self.threshold_ms) * passed_ms;
            self.threshold_ms = self.threshold_ms.clamp(THRESHOLD_MIN_MS, THRESHOLD_MAX_MS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds groups every 10 ms whose delay grows by `slope`; returns what was seen.
    fn run(trend: &mut Trendline, from: i64, count: i64, slope: f64) -> Vec<Usage> {
        (from..from + count)
            .map(|n| {
                let grown = (n - from) as f64 * 10_000.0 * slope;
                trend.add(n * 10_000, crate::engine::bwe::whole(1e6 + grown).cast_signed());
                trend.usage()
            })
            .collect()
    }

    #[test]
    fn a_level_delay_is_normal_a_growing_one_over_and_a_falling_one_under() {
        let mut trend = Trendline::new();
        assert!(run(&mut trend, 0, 100, 0.0).iter().all(|usage| *usage == Usage::Normal));
        let grown = run(&mut trend, 100, 30, 0.2);
        assert!(grown.iter().position(|usage| *usage == Usage::Over).unwrap() < 15);
        assert!(run(&mut trend, 130, 60, -0.02).contains(&Usage::Under));
    }

    #[test]
    fn noise_without_a_trend_is_not_overuse() {
        let mut trend = Trendline::new();
        let mut seed = 1u64;
        let over = (0..3_000)
            .filter(|n| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                trend.add(n * 10_000, i64::try_from(seed >> 51).unwrap());
                trend.usage() == Usage::Over
            })
            .count();
        assert!(over < 30, "{over} of 3,000");
    }
}
