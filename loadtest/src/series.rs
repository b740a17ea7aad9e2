//! The measured window second by second, for plots, for live progress and for `compare`.
//!
//! A packet is counted in the second in which it arrived, and expected in the second in which it was
//! due: at the edges of a second the two differ by what is on its way, so the loss of one second is
//! an indication, and only that of the window is exact.

use serde::{Deserialize, Serialize};

use crate::clock::SECOND;
use crate::flows::Due;
use crate::scrape::ServerLatency;
use crate::tally::Brief;

/// One second of the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// When it ended, seconds from the window's begin.
    pub(crate) at: f64,
    /// How long it was, seconds: one, several in windows beyond ten minutes; the last may be
    /// shorter.
    pub(crate) seconds: f64,
    /// Packets per second that publishers were due to send; none where the plan does not tell.
    pub(crate) offered_pps: Option<f64>,
    /// Packets per second that subscribers should have received; none where the plan does not tell.
    pub(crate) expected_pps: Option<f64>,
    /// Packets per second that arrived.
    pub(crate) delivered_pps: f64,
    /// RTP bits per second that arrived.
    pub(crate) delivered_bps: f64,
    /// Percent of the window so far that has not arrived, packets on their way included; none where
    /// the plan does not tell what should have.
    pub(crate) missing_percent: Option<f64>,
    /// Median latency of what arrived, µs; none when nothing was sampled.
    pub(crate) p50_us: Option<f64>,
    /// 99th percentile, µs.
    pub(crate) p99_us: Option<f64>,
    /// 99th percentile of how late bursts were handed to the kernel, µs.
    pub(crate) lateness_p99_us: Option<f64>,
    /// Server CPU, cores.
    pub(crate) server_cores: Option<f64>,
    /// Server CPU per delivered packet, ns.
    pub(crate) server_ns_per_packet: Option<f64>,
    /// Server memory, bytes.
    pub(crate) server_resident_bytes: Option<u64>,
    /// Generator CPU, cores.
    pub(crate) generator_cores: f64,
    /// Percent of the host's time that the hypervisor gave to others.
    pub(crate) stolen_percent: f64,
    /// Median of the server's own latency, receive to send, µs, as [`ServerLatency`] has it; none
    /// where the server was not asked while it was measured, or did not say.
    pub(crate) server_says_p50_us: Option<f64>,
    /// Its 99th percentile, µs.
    pub(crate) server_says_p99_us: Option<f64>,
}

/// What a [`Moment`] is computed from, besides what the workers counted in it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Surrounding {
    /// When it ended, ns from the window's begin.
    pub(crate) at: u64,
    /// How long it was, ns.
    pub(crate) elapsed: u64,
    /// Packets due in it; none where the plan does not tell.
    pub(crate) due: Option<Due>,
    /// Packets due at subscribers since the window began.
    pub(crate) expected_so_far: Option<u64>,
    /// Packets that arrived since the window began.
    pub(crate) delivered_so_far: u64,
    /// Server CPU in it, ns.
    pub(crate) server_cpu: Option<u64>,
    /// CPU of this process in it, ns.
    pub(crate) own_cpu: u64,
    /// Server memory at its end, bytes.
    pub(crate) server_resident: Option<u64>,
    /// Percent of the host's time that the hypervisor gave to others.
    pub(crate) stolen_percent: f64,
    /// The server's own latency lately.
    pub(crate) says: Option<ServerLatency>,
}

impl Moment {
    /// What the workers counted, in rates.
    pub(crate) fn new(brief: &Brief, around: &Surrounding) -> Self {
        let seconds = float(around.elapsed.max(1)) / float(SECOND);
        let counts = &brief.counts;
        let missing = |expected: u64| {
            let missing = expected.saturating_sub(around.delivered_so_far);
            100.0 * float(missing) / float(expected.max(1))
        };
        let per_packet = |cpu: u64| float(cpu) / float(counts.delivered);
        Self {
            at: float(around.at) / float(SECOND),
            seconds,
            offered_pps: around.due.map(|due| float(due.offered) / seconds),
            expected_pps: around.due.map(|due| float(due.expected) / seconds),
            delivered_pps: float(counts.delivered) / seconds,
            delivered_bps: float(counts.delivered_bytes) * 8.0 / seconds,
            missing_percent: around.expected_so_far.map(missing),
            p50_us: brief.latency.quantile_us(0.5),
            p99_us: brief.latency.quantile_us(0.99),
            lateness_p99_us: brief.lateness.quantile_us(0.99),
            server_cores: around.server_cpu.map(|cpu| float(cpu) / float(around.elapsed.max(1))),
            server_ns_per_packet: around
                .server_cpu
                .filter(|_| counts.delivered > 0)
                .map(per_packet),
            server_resident_bytes: around.server_resident,
            generator_cores: float(around.own_cpu) / float(around.elapsed.max(1)),
            stolen_percent: around.stolen_percent,
            server_says_p50_us: around.says.and_then(|says| says.p50),
            server_says_p99_us: around.says.and_then(|says| says.p99),
        }
    }
}

/// Numbers here are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "figures are read to a few digits")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Tally;

    #[test]
    fn a_moment_is_in_rates_and_tells_what_is_unknown() {
        let mut tally = Tally::default();
        tally.counts.delivered = 500;
        tally.counts.delivered_bytes = 500 * 1_000;
        (0..100).for_each(|n| tally.latency.record(n * 1_000));
        let around = Surrounding {
            at: 3 * SECOND / 2,
            elapsed: SECOND / 2,
            due: Some(Due { offered: 51, expected: 510 }),
            expected_so_far: Some(2_000),
            delivered_so_far: 1_900,
            server_cpu: Some(SECOND / 20),
            own_cpu: SECOND / 4,
            ..Surrounding::default()
        };
        let moment = Moment::new(&tally.take_brief(SECOND / 4), &around);
        assert!((moment.at - 1.5).abs() < 1e-9 && (moment.delivered_pps - 1_000.0).abs() < 1e-9);
        assert!((moment.delivered_bps - 8e6).abs() < 1e-3);
        assert!((moment.missing_percent.unwrap() - 5.0).abs() < 1e-9);
        assert_eq!((moment.offered_pps, moment.expected_pps), (Some(102.0), Some(1_020.0)));
        assert!((moment.server_ns_per_packet.unwrap() - 100_000.0).abs() < 1e-9);
        assert!((moment.generator_cores - 0.5).abs() < 1e-9);
        assert_eq!((moment.lateness_p99_us, moment.server_resident_bytes), (None, None));
        let untold = Surrounding { due: None, expected_so_far: None, ..around };
        let untold = Moment::new(&tally.take_brief(0), &untold);
        assert_eq!(
            (untold.offered_pps, untold.expected_pps, untold.missing_percent),
            (None, None, None)
        );
        let text = serde_json::to_string(&moment).unwrap();
        assert_eq!(serde_json::from_str::<Moment>(&text).unwrap(), moment);
    }
}
