//! The results of a run: figures, validity, verdict. What `--json` writes is this, versioned.
//!
//! Pure: made by `main` from what the workers counted and what the probes saw.

use serde::Serialize;

use crate::args::Args;
use crate::clock::SECOND;
use crate::findings::{Findings, Seen};
use crate::probe::{Host, Usage};
use crate::slo::Figure;
use crate::tally::{Counts, Stage, Tally, Times};

/// The form of the JSON; raised with every change that a reader could stumble over.
pub(crate) const SCHEMA: &str = "ringcast-loadtest/1";

/// Bursts may be late by this at the 99th percentile, µs; more, and the load was not the one asked
/// for.
const LATENESS_P99_US_MAX: f64 = 2_000.0;

/// Share of its CPUs beyond which the generator is what is measured.
const GENERATOR_BUSY_MAX: f64 = 0.95;

/// Percentiles of durations, µs.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Percentiles {
    /// How many durations.
    pub(crate) count: u64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// The longest.
    pub(crate) max: f64,
}

impl From<&Times> for Percentiles {
    fn from(times: &Times) -> Self {
        Self {
            count: times.count(),
            p50: times.quantile_us(0.5),
            p90: times.quantile_us(0.9),
            p99: times.quantile_us(0.99),
            p999: times.quantile_us(0.999),
            max: times.max_us(),
        }
    }
}

/// What the server's process used during the window.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Server {
    /// As the kernel tells it.
    pub(crate) usage: Usage,
    /// Share of one core.
    pub(crate) cores: f64,
    /// CPU per delivered packet, ns.
    pub(crate) cpu_ns_per_packet: f64,
    /// Of it in user space.
    pub(crate) user_ns_per_packet: f64,
    /// Of it in the kernel.
    pub(crate) system_ns_per_packet: f64,
}

/// What the generator itself used during the window.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Generator {
    /// Threads.
    pub(crate) threads: usize,
    /// Share of one core.
    pub(crate) cores: f64,
    /// CPU per delivered packet, publishers included, ns.
    pub(crate) cpu_ns_per_packet: f64,
    /// How late bursts were handed to the kernel, µs.
    pub(crate) lateness_us: Percentiles,
}

/// A join stage's durations, µs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StageTimes {
    /// Which.
    pub(crate) stage: &'static str,
    /// How long.
    pub(crate) us: Percentiles,
}

/// An objective and what became of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Judged {
    /// The figure's name.
    pub(crate) figure: &'static str,
    /// Its limit: percent, µs or ns.
    pub(crate) limit: f64,
    /// What was measured; none when it could not be.
    pub(crate) measured: Option<f64>,
    /// Whether it was kept.
    pub(crate) kept: bool,
}

/// The results of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    /// [`SCHEMA`].
    pub(crate) schema: &'static str,
    /// This program's version.
    pub(crate) version: &'static str,
    /// When the run began, seconds since 1970.
    pub(crate) began_unix: u64,
    /// The arguments.
    pub(crate) arguments: Args,
    /// Where it ran.
    pub(crate) host: Host,
    /// False when the numbers say more about the generator than about the server.
    pub(crate) valid: bool,
    /// Why it is not valid.
    pub(crate) invalid_because: Vec<String>,
    /// Objectives, when there are any.
    pub(crate) slo: Vec<Judged>,
    /// Streams that were to be delivered.
    pub(crate) subscriptions: usize,
    /// Seconds measured.
    pub(crate) seconds: f64,
    /// Packets per second that publishers were due to send.
    pub(crate) offered_pps: f64,
    /// Packets per second that subscribers should have received.
    pub(crate) expected_pps: f64,
    /// Packets per second that they did receive.
    pub(crate) delivered_pps: f64,
    /// RTP bits per second that they received.
    pub(crate) delivered_bps: f64,
    /// Lost packets, percent.
    pub(crate) loss_percent: f64,
    /// Counters.
    pub(crate) counts: Counts,
    /// Due time to arrival, µs.
    pub(crate) latency_us: Percentiles,
    /// Join stages.
    pub(crate) join: Vec<StageTimes>,
    /// Protections agreed on.
    pub(crate) protection: Vec<&'static str>,
    /// The server, with `--server-pid`.
    pub(crate) server: Option<Server>,
    /// This program.
    pub(crate) generator: Generator,
    /// What else there is to say.
    #[serde(flatten)]
    pub(crate) findings: Findings,
}

/// What a run left to be judged.
#[derive(Debug)]
pub(crate) struct Observed {
    /// When it began, seconds since 1970.
    pub(crate) began_unix: u64,
    /// Nanoseconds measured.
    pub(crate) window: u64,
    /// Streams in the plan.
    pub(crate) subscriptions: usize,
    /// Threads.
    pub(crate) threads: usize,
    /// What all workers counted.
    pub(crate) tally: Tally,
    /// What the server used.
    pub(crate) server: Option<Usage>,
    /// Lost packets were asked for.
    pub(crate) repairs: bool,
    /// What [`Findings`] need besides.
    pub(crate) seen: Seen,
    /// What failed while it ran.
    pub(crate) failures: Vec<String>,
}

impl Outcome {
    /// Computes all figures and judges them.
    pub(crate) fn new(arguments: Args, host: Host, observed: &Observed) -> Self {
        let Observed { tally, window, .. } = observed;
        let counts = tally.counts;
        let seconds = float(*window) / float(SECOND);
        let per_packet = |nanoseconds: u64| float(nanoseconds) / float(counts.delivered.max(1));
        let server = observed.server.map(|usage| Server {
            usage,
            cores: float(usage.cpu_ns()) / float(*window),
            cpu_ns_per_packet: per_packet(usage.cpu_ns()),
            user_ns_per_packet: per_packet(usage.user_ns),
            system_ns_per_packet: per_packet(usage.system_ns),
        });
        let generator = Generator {
            threads: observed.threads,
            cores: float(tally.cpu) / float(*window),
            cpu_ns_per_packet: per_packet(tally.cpu),
            lateness_us: (&tally.lateness).into(),
        };
        let join = Stage::ALL.into_iter().filter_map(|stage| {
            let us = tally.stages.of(stage)?.into();
            Some(StageTimes { stage: stage.name(), us })
        });
        let lost = counts.expected.saturating_sub(counts.delivered);
        let mut outcome = Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            began_unix: observed.began_unix,
            valid: true,
            invalid_because: observed.failures.clone(),
            slo: Vec::new(),
            subscriptions: observed.subscriptions,
            seconds,
            offered_pps: float(counts.offered) / seconds,
            expected_pps: float(counts.expected) / seconds,
            delivered_pps: float(counts.delivered) / seconds,
            delivered_bps: float(counts.delivered_bytes) * 8.0 / seconds,
            loss_percent: 100.0 * float(lost) / float(counts.expected.max(1)),
            counts,
            latency_us: (&tally.latency).into(),
            join: join.collect(),
            protection: tally.profiles.clone(),
            server,
            generator,
            findings: Findings::new(arguments.scenario, observed.repairs, tally, &observed.seen),
            arguments,
            host,
        };
        outcome.judge(tally.gro_refused);
        outcome
    }

    fn judge(&mut self, gro_refused: bool) {
        let (counts, generator) = (self.counts, self.generator);
        let cpus = float(u64::try_from(self.host.usable_cpus.min(generator.threads)).unwrap_or(1));
        let reasons = [
            (generator.lateness_us.p99 > LATENESS_P99_US_MAX).then(|| {
                format!("the generator was late: p99 {:.0} µs", generator.lateness_us.p99)
            }),
            (counts.send_failures > 0)
                .then(|| format!("{} datagrams were not sent", counts.send_failures)),
            (counts.sent != counts.offered)
                .then(|| format!("{} of {} packets were sent", counts.sent, counts.offered)),
            (counts.receive_drops > 0).then(|| {
                format!("{} datagrams dropped in the generator's sockets", counts.receive_drops)
            }),
            (generator.cores > GENERATOR_BUSY_MAX * cpus)
                .then(|| format!("the generator used {:.2} of {cpus} cores", generator.cores)),
            (counts.expected == 0 && counts.joins_begun == 0 && self.findings.idle.is_none())
                .then(|| "nothing was expected".to_owned()),
            gro_refused.then(|| "the kernel refused UDP_GRO (see --no-gro)".to_owned()),
        ];
        self.invalid_because.extend(reasons.into_iter().flatten());
        self.valid = self.invalid_because.is_empty();
        let objectives = self.arguments.slo.iter().flat_map(|slo| slo.objectives.clone());
        self.slo = objectives
            .map(|objective| {
                let measured = self.figure(objective.figure);
                let kept = measured.is_some_and(|measured| measured <= objective.limit);
                Judged { figure: objective.name(), limit: objective.limit, measured, kept }
            })
            .collect();
    }

    /// A figure by name; `None` when it was not measured.
    fn figure(&self, figure: Figure) -> Option<f64> {
        let latency = |value: f64| (self.latency_us.count > 0).then_some(value);
        match figure {
            Figure::Loss => (self.counts.expected > 0).then_some(self.loss_percent),
            Figure::P50 => latency(self.latency_us.p50),
            Figure::P90 => latency(self.latency_us.p90),
            Figure::P99 => latency(self.latency_us.p99),
            Figure::P999 => latency(self.latency_us.p999),
            Figure::Max => latency(self.latency_us.max),
            Figure::Cpu => self.server.map(|server| server.cpu_ns_per_packet),
        }
    }

    /// The exit status: 0 kept, 1 broken, 4 invalid.
    pub(crate) fn status(&self) -> u8 {
        match (self.valid, self.slo.iter().all(|judged| judged.kept)) {
            (false, _) => 4,
            (true, false) => 1,
            (true, true) => 0,
        }
    }
}

/// Numbers here are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "figures are read to a few digits")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn outcome(slo: &str, change: impl FnOnce(&mut Observed)) -> Outcome {
        let counts = Counts {
            offered: 1_000,
            sent: 1_000,
            expected: 10_000,
            delivered: 9_990,
            ..Counts::default()
        };
        let mut tally = Tally { counts, ..Tally::default() };
        tally.lateness.record(50_000);
        (1..=100).for_each(|n| tally.latency.record(n * 10_000));
        let server = Some(Usage { user_ns: 9_990_000, system_ns: 9_990_000, ..Usage::default() });
        let (threads, subscriptions, failures) = (1, 10, vec![]);
        let (began_unix, window) = (0, 10 * SECOND);
        let (repairs, seen) = (false, Seen::default());
        let mut observed = Observed {
            began_unix,
            window,
            subscriptions,
            threads,
            tally,
            server,
            repairs,
            seen,
            failures,
        };
        change(&mut observed);
        let args = Args::parse_from(["loadtest", "livestream", "--slo", slo]);
        Outcome::new(args, Host::look(None), &observed)
    }

    #[test]
    fn the_exit_status_is_the_verdict() {
        let cases = [
            ("loss<=0.1%,p99<=1ms", 0),
            ("loss<=0.05%", 1),
            ("p99<=900us", 1),
            ("cpu<=2001ns", 0),
            ("cpu<=1.9us", 1),
        ];
        for (slo, status) in cases {
            assert_eq!(outcome(slo, |_| {}).status(), status, "{slo}");
        }
    }

    #[test]
    fn a_generator_that_fell_short_makes_the_run_invalid_whatever_the_figures() {
        let faults: [fn(&mut Observed); 7] = [
            |o| (0..5).for_each(|_| o.tally.lateness.record(3_000_000)),
            |o| o.tally.counts.send_failures = 1,
            |o| o.tally.counts.sent -= 1,
            |o| o.tally.counts.receive_drops = 1,
            |o| o.tally.cpu = o.window,
            |o| o.tally.gro_refused = true,
            |o| o.failures.push("ICE disconnected".into()),
        ];
        for fault in faults {
            let outcome = outcome("loss<=5%", fault);
            assert_eq!(outcome.status(), 4);
            assert_eq!(outcome.invalid_because.len(), 1, "{:?}", outcome.invalid_because);
        }
    }

    #[test]
    fn an_objective_that_was_not_measured_is_broken() {
        assert_eq!(outcome("cpu<=9us", |o| o.server = None).status(), 1);
    }

    #[test]
    fn figures_are_per_second_and_per_delivered_packet() {
        let outcome = outcome("loss<=1%", |_| {});
        assert!((outcome.delivered_pps - 999.0).abs() < 1e-9);
        assert!((outcome.loss_percent - 0.1).abs() < 1e-9);
        assert!((outcome.server.unwrap().cpu_ns_per_packet - 2_000.0).abs() < 1e-9);
        let json = serde_json::to_value(&outcome).unwrap();
        assert_eq!(json["schema"], SCHEMA);
        assert_eq!(json["latency_us"]["p99.9"], json["latency_us"]["max"]);
        assert_eq!(json["arguments"]["slo"], "loss<=1%");
    }
}
