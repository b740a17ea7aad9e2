//! The results of a run: figures, validity, verdict. What `--json` writes is this, versioned.
//!
//! Pure: made by `main` from what the workers counted and what the probes saw. `schema.md`, which
//! the crate's documentation shows, explains every key; a test holds the two together.

use serde::Serialize;

use crate::args::{Args, Scenario};
use crate::clock::SECOND;
use crate::findings::Findings;
use crate::host::Host;
use crate::probe::{Busiest, Usage};
use crate::scrape::ServerSays;
use crate::series::{Moment, float};
use crate::session::Observed;
use crate::slo::{Figure, Slo};
use crate::tally::{Counts, Stage, Times};

/// The form of the JSON; raised with every change that a reader could stumble over.
pub(crate) const SCHEMA: &str = "ringcast-loadtest/3";

/// Bursts may be late by this at the 99th percentile, µs; more, and the load was not the one asked
/// for.
pub(crate) const LATENESS_P99_US_MAX: f64 = 2_000.0;

/// Share of its CPUs beyond which the generator is what is measured.
const GENERATOR_BUSY_MAX: f64 = 0.95;

/// Percentiles of durations, µs; none when there was no duration.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Percentiles {
    /// How many durations.
    pub(crate) count: u64,
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// 99.9th percentile.
    #[serde(rename = "p99.9")]
    pub p999: Option<f64>,
    /// The longest.
    pub(crate) max: Option<f64>,
}

impl From<&Times> for Percentiles {
    fn from(times: &Times) -> Self {
        let known = |us: f64| (times.count() > 0).then_some(us);
        Self {
            count: times.count(),
            p50: known(times.quantile_us(0.5)),
            p90: known(times.quantile_us(0.9)),
            p99: known(times.quantile_us(0.99)),
            p999: known(times.quantile_us(0.999)),
            max: known(times.max_us()),
        }
    }
}

/// A point of the latency distribution.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Point {
    /// Percent of the packets.
    pub(crate) percentile: f64,
    /// Their latency is at most this, µs.
    pub(crate) us: f64,
}

/// The distribution at evenly spaced distances from its end, as far as its count carries.
fn curve(times: &Times) -> Vec<Point> {
    let count = float(times.count());
    let steps = (0..=28_i32).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 4.0));
    // Beyond one packet of all there is nothing to tell.
    let known = steps.filter(|quantile| (1.0 - quantile) * count >= 1.0);
    let points = known.chain((count > 0.0).then_some(1.0));
    points
        .map(|quantile| Point { percentile: 100.0 * quantile, us: times.quantile_us(quantile) })
        .collect()
}

/// Who ran what, when and where: the head of every result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Head {
    /// [`SCHEMA`].
    pub(crate) schema: &'static str,
    /// `run` or `limit`.
    pub(crate) kind: &'static str,
    /// This program's version.
    pub(crate) version: &'static str,
    /// The commit it was built from; `unknown` outside git, with `-changed` after local changes.
    pub(crate) commit: &'static str,
    /// The form of the scenario: raised when the same arguments and seed begin to play another load.
    pub(crate) scenario_version: u32,
    /// When the run began, UTC.
    pub(crate) date: String,
    /// The same, seconds since 1970.
    pub(crate) began_unix: u64,
    /// What was typed, without the token.
    pub(crate) command: Vec<String>,
    /// The arguments, defaults included.
    pub(crate) arguments: Args,
    /// Where it ran.
    pub(crate) host: Host,
}

impl Head {
    /// The head of a result of a kind.
    pub(crate) fn new(kind: &'static str, arguments: Args, host: Host, began_unix: u64) -> Self {
        Self {
            schema: SCHEMA,
            kind,
            version: env!("CARGO_PKG_VERSION"),
            commit: env!("LOADTEST_COMMIT"),
            scenario_version: arguments.scenario.version(),
            date: date(began_unix),
            began_unix,
            command: without_token(std::env::args()),
            arguments,
            host,
        }
    }
}

/// The words of a command line, the token's hidden.
fn without_token(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut hide = false;
    words
        .map(|word| {
            if std::mem::replace(&mut hide, word == "--token") {
                "…".to_owned()
            } else if word.starts_with("--token=") {
                "--token=…".to_owned()
            } else {
                word
            }
        })
        .collect()
}

/// Seconds since 1970 as RFC 3339 has them, UTC.
fn date(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    // Days since 0000-03-01, in eras of 400 years: leap days then end each year.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// What the server's process used during the window.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Server {
    /// As the kernel tells it.
    pub(crate) usage: Usage,
    /// Share of one core.
    pub(crate) cores: f64,
    /// CPU per delivered packet, ns; none when none was.
    pub(crate) cpu_ns_per_packet: Option<f64>,
    /// Of it in user space.
    pub(crate) user_ns_per_packet: Option<f64>,
    /// Of it in the kernel.
    pub(crate) system_ns_per_packet: Option<f64>,
    /// The thread that used the most.
    pub(crate) busiest_thread: Option<Busiest>,
}

/// What the generator itself used during the window.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Generator {
    /// Threads.
    pub(crate) threads: usize,
    /// Share of one core of the whole process: sending, receiving, the API's calls, and looking.
    pub(crate) cores: f64,
    /// Of it, what the threads that send and receive used.
    pub(crate) worker_cores: f64,
    /// CPU of the whole process per delivered packet, ns; none when none was.
    pub(crate) cpu_ns_per_packet: Option<f64>,
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
    /// `<=` or `>=`.
    pub(crate) sign: &'static str,
    /// Its limit, in the figure's unit.
    pub(crate) limit: f64,
    /// That unit.
    pub(crate) unit: &'static str,
    /// What was measured; none when it could not be.
    pub(crate) measured: Option<f64>,
    /// Whether it was kept.
    pub(crate) kept: bool,
}

/// The results of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    /// Who, what, when, where.
    #[serde(flatten)]
    pub(crate) head: Head,
    /// False when the numbers say more about the generator than about the server.
    pub(crate) valid: bool,
    /// Why it is not valid.
    pub(crate) invalid_because: Vec<String>,
    /// How it is known that the server ended in the window; none when it did not.
    pub(crate) server_ended: Option<String>,
    /// Transports that were lost in it, by reasons.
    pub(crate) transports_lost: Vec<String>,
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
    /// The same, as a curve.
    pub(crate) latency_curve: Vec<Point>,
    /// Join stages.
    pub(crate) join: Vec<StageTimes>,
    /// Protections agreed on.
    pub(crate) protection: Vec<&'static str>,
    /// The server, with `--server-pid`.
    pub(crate) server: Option<Server>,
    /// The server's own view, where it has `/metrics`.
    pub(crate) server_says: Option<ServerSays>,
    /// This program.
    pub(crate) generator: Generator,
    /// Percent of the host's time that the hypervisor gave to others.
    pub(crate) stolen_percent: f64,
    /// The window second by second.
    pub(crate) series: Vec<Moment>,
    /// What else there is to say.
    #[serde(flatten)]
    pub(crate) findings: Findings,
}

impl Outcome {
    /// Computes all figures and judges them.
    pub(crate) fn new(head: Head, observed: &Observed) -> Self {
        let Observed { tally, window, .. } = observed;
        let counts = tally.counts;
        let seconds = float(*window) / float(SECOND);
        let per_packet = |nanoseconds: u64| {
            (counts.delivered > 0).then(|| float(nanoseconds) / float(counts.delivered))
        };
        let server = observed.server.map(|usage| Server {
            usage,
            cores: float(usage.cpu_ns()) / float(*window),
            cpu_ns_per_packet: per_packet(usage.cpu_ns()),
            user_ns_per_packet: per_packet(usage.user_ns),
            system_ns_per_packet: per_packet(usage.system_ns),
            busiest_thread: observed.busiest.clone(),
        });
        let generator = Generator {
            threads: observed.threads,
            cores: float(observed.own_cpu) / float(*window),
            worker_cores: float(tally.cpu) / float(*window),
            cpu_ns_per_packet: per_packet(observed.own_cpu),
            lateness_us: (&tally.lateness).into(),
        };
        let join = Stage::ALL.into_iter().filter_map(|stage| {
            let us = tally.stages.of(stage)?.into();
            Some(StageTimes { stage: stage.name(), us })
        });
        let lost = counts.expected.saturating_sub(counts.delivered);
        let scenario = head.arguments.scenario;
        let mut outcome = Self {
            head,
            valid: true,
            invalid_because: observed.failures.clone(),
            server_ended: server_ended(observed),
            transports_lost: by_reasons(&observed.lost),
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
            latency_curve: curve(&tally.latency),
            join: join.collect(),
            protection: tally.profiles.clone(),
            server,
            server_says: observed.says.clone(),
            generator,
            stolen_percent: observed.stolen_percent,
            series: observed.series.clone(),
            findings: Findings::new(scenario, observed.repairs, tally, &observed.seen),
        };
        outcome.judge(tally.gro_refused);
        outcome
    }

    fn judge(&mut self, gro_refused: bool) {
        let (counts, generator) = (self.counts, self.generator);
        let reasons = [
            generator
                .lateness_us
                .p99
                .filter(|p99| *p99 > LATENESS_P99_US_MAX)
                .map(|p99| format!("the generator was late: p99 {p99:.0} µs")),
            (counts.send_failures > 0)
                .then(|| format!("{} datagrams were not sent", counts.send_failures)),
            (counts.sent != counts.offered)
                .then(|| format!("{} of {} packets were sent", counts.sent, counts.offered)),
            (counts.receive_drops > 0).then(|| {
                format!("{} datagrams dropped in the generator's sockets", counts.receive_drops)
            }),
            self.generator_is_busy().then(|| {
                let (cpus, threads) = (self.head.host.usable_cpus, generator.threads);
                format!(
                    "the generator used {:.2} of {cpus} cores, {:.2} of them in its {threads} \
                     threads of packets",
                    generator.cores, generator.worker_cores,
                )
            }),
            (counts.joins_unstarted > 0).then(|| {
                let (unstarted, due) = (counts.joins_unstarted, counts.joins_begun);
                format!(
                    "{unstarted} of {due} joins were not begun in time, all threads were waiting \
                     for answers: more --joiners"
                )
            }),
            (counts.expected == 0 && counts.joins_begun == 0 && self.findings.idle.is_none())
                .then(|| "nothing was expected".to_owned()),
            gro_refused.then(|| "the kernel refused UDP_GRO (see --no-gro)".to_owned()),
        ];
        self.invalid_because.extend(reasons.into_iter().flatten());
        self.valid = self.invalid_because.is_empty();
        self.slo = self.head.arguments.slo.as_ref().map(|slo| self.judged(slo)).unwrap_or_default();
    }

    /// True when the generator used up its CPUs, or its threads of packets theirs.
    pub(crate) fn generator_is_busy(&self) -> bool {
        let (generator, cpus) = (&self.generator, self.head.host.usable_cpus);
        let most = |count: usize| GENERATOR_BUSY_MAX * float(u64::try_from(count).unwrap_or(1));
        generator.cores > most(cpus) || generator.worker_cores > most(cpus.min(generator.threads))
    }

    /// What becomes of objectives.
    pub(crate) fn judged(&self, slo: &Slo) -> Vec<Judged> {
        let judged = slo.objectives.iter().map(|objective| {
            let measured = self.figure(objective.figure);
            let kept = measured.is_some_and(|measured| objective.is_kept_by(measured));
            let (figure, unit) = (objective.figure.name(), objective.figure.unit());
            Judged { figure, sign: objective.sign(), limit: objective.limit, unit, measured, kept }
        });
        judged.collect()
    }

    /// False where streams are counted by their gaps and one of them fell silent: nobody knows what
    /// it would have brought.
    fn loss_is_known(&self) -> bool {
        let by_gaps = self.head.arguments.scenario == Scenario::Simulcast;
        let counts = &self.counts;
        counts.expected > 0 && !(by_gaps && counts.silent_streams + counts.stopped_streams > 0)
    }

    /// A figure by name; `None` when it was not measured.
    fn figure(&self, figure: Figure) -> Option<f64> {
        let latency = &self.latency_us;
        let server = self.server.as_ref();
        let counts = &self.counts;
        match figure {
            Figure::Loss => self.loss_is_known().then_some(self.loss_percent),
            Figure::P50 => latency.p50,
            Figure::P90 => latency.p90,
            Figure::P99 => latency.p99,
            Figure::P999 => latency.p999,
            Figure::Max => latency.max,
            Figure::Cpu => server.and_then(|server| server.cpu_ns_per_packet),
            Figure::User => server.and_then(|server| server.user_ns_per_packet),
            Figure::System => server.and_then(|server| server.system_ns_per_packet),
            Figure::Cores => server.map(|server| server.cores),
            Figure::Rss => server.map(|server| float(server.usage.resident_bytes) / 1_048_576.0),
            Figure::Switches => server.map(|server| {
                let usage = &server.usage;
                float(usage.voluntary_switches + usage.involuntary_switches) / self.seconds
            }),
            Figure::Delivered => Some(self.delivered_pps),
            Figure::Bits => Some(self.delivered_bps / 1e6),
            Figure::Reordered => Some(float(counts.reordered)),
            Figure::Duplicates => Some(float(counts.duplicates)),
            Figure::Jitter => self.findings.jitter_us.p99,
            Figure::Silent => Some(float(counts.silent_streams)),
            Figure::Stopped => Some(float(counts.stopped_streams)),
            Figure::Frozen => self.findings.picture.map(|picture| picture.frozen_percent),
            Figure::Frames => self.findings.picture.map(|picture| picture.frames_per_s),
            Figure::JoinsFailed => self.findings.joins.and_then(|joins| joins.failed_percent),
            Figure::Joins => self.findings.joins.map(|joins| joins.per_s),
            Figure::Stage(stage) => {
                let mut stages = self.join.iter();
                stages.find(|times| times.stage == stage.name())?.us.p99
            }
        }
    }

    /// What the server gave up in the window: itself, or transports.
    pub(crate) fn lost(&self) -> impl Iterator<Item = &String> {
        self.server_ended.iter().chain(&self.transports_lost)
    }

    /// The exit status: 0 kept, 1 broken or lost, 4 invalid. That the server ended is true whatever
    /// the generator did.
    pub(crate) fn status(&self) -> u8 {
        let kept = self.lost().count() == 0 && self.slo.iter().all(|judged| judged.kept);
        match (self.valid, kept) {
            _ if self.server_ended.is_some() => 1,
            (false, _) => 4,
            (true, false) => 1,
            (true, true) => 0,
        }
    }
}

/// How it is known that the server ended.
fn server_ended(observed: &Observed) -> Option<String> {
    let refused = observed.tally.counts.refused;
    if observed.process_ended {
        Some("the server's process ended".into())
    } else {
        (refused > 0)
            .then(|| format!("the server's port was closed, {refused} datagrams came back"))
    }
}

/// Equal reasons once, each with its number.
fn by_reasons(reasons: &[String]) -> Vec<String> {
    let mut counted = std::collections::BTreeMap::<&str, usize>::new();
    for reason in reasons {
        *counted.entry(reason).or_default() += 1;
    }
    counted.iter().map(|(reason, count)| format!("{count} transports lost: {reason}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;
    use crate::findings::Seen;
    use crate::tally::Tally;

    fn observed(tally: Tally, server: Option<Usage>) -> Observed {
        Observed {
            window: 10 * SECOND,
            subscriptions: 10,
            threads: 1,
            tally,
            own_cpu: 0,
            server,
            busiest: None,
            says: None,
            series: vec![Moment::default(); 10],
            stolen_percent: 0.0,
            repairs: false,
            seen: Seen::default(),
            process_ended: false,
            failures: vec![],
            lost: vec![],
        }
    }

    /// Ten seconds of a quiet run: 0.1 % lost, latencies to 1 ms, 2 µs per packet.
    pub(crate) fn measured() -> Observed {
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
        observed(tally, server)
    }

    /// The outcome of a window.
    pub(crate) fn outcome_of(
        mut observed: Observed,
        change: impl FnOnce(&mut Observed),
    ) -> Outcome {
        change(&mut observed);
        let args = Args::parse_from(["loadtest", "livestream"]);
        Outcome::new(Head::new("run", args, Host::look(None), 0), &observed)
    }

    fn outcome(slo: &str, change: impl FnOnce(&mut Observed)) -> Outcome {
        let mut observed = measured();
        change(&mut observed);
        let args = Args::parse_from(["loadtest", "livestream", "--slo", slo]);
        Outcome::new(Head::new("run", args, Host::look(None), 0), &observed)
    }

    #[test]
    fn the_exit_status_is_the_verdict() {
        let cases = [
            ("loss<=0.1%,p99<=1ms", 0),
            ("loss<=0.05%", 1),
            ("p99<=900us", 1),
            ("cpu<=2001ns", 0),
            ("cpu<=1.9us", 1),
            ("delivered>=999pps", 0),
            ("delivered>=1000pps", 1),
            ("rss<=1MiB,switches<=0/s,silent<=0,duplicates<=0,reordered<=0", 0),
            ("cores<=0.001", 1),
            ("first_packet<=1s", 1),
        ];
        for (slo, status) in cases {
            assert_eq!(outcome(slo, |_| {}).status(), status, "{slo}");
        }
    }

    #[test]
    fn a_generator_that_fell_short_makes_the_run_invalid_whatever_the_figures() {
        let faults: [fn(&mut Observed); 9] = [
            |o| (0..5).for_each(|_| o.tally.lateness.record(3_000_000)),
            |o| o.tally.counts.send_failures = 1,
            |o| o.tally.counts.sent -= 1,
            |o| o.tally.counts.receive_drops = 1,
            |o| o.tally.cpu = o.window,
            |o| o.own_cpu = 1_000 * o.window,
            |o| o.tally.counts.joins_unstarted = 1,
            |o| o.tally.gro_refused = true,
            |o| o.failures.push("too many open files".into()),
        ];
        for fault in faults {
            let outcome = outcome("loss<=5%", fault);
            assert_eq!(outcome.status(), 4);
            assert_eq!(outcome.invalid_because.len(), 1, "{:?}", outcome.invalid_because);
        }
    }

    #[test]
    fn a_server_that_stops_forwarding_breaks_what_speaks_of_it() {
        let slo = "loss<=0.1%,stopped<=0,frozen<=1%,frames>=20/s";
        let mut observed = measured();
        let counts = &mut observed.tally.counts;
        counts.expected = counts.delivered;
        (counts.frames, counts.video_streams) = (2_400, 10);
        observed.seen.window = observed.window;
        let args = || Args::parse_from(["loadtest", "simulcast", "--slo", slo]);
        let judge = |observed: &Observed| {
            let outcome = Outcome::new(Head::new("run", args(), Host::look(None), 0), observed);
            (outcome.status(), outcome.slo.iter().map(|one| one.kept).collect::<Vec<_>>())
        };
        assert_eq!(judge(&observed), (0, vec![true; 4]));
        let counts = &mut observed.tally.counts;
        (counts.stopped_streams, counts.frames) = (10, 1_200);
        (counts.freezes, counts.frozen_ns) = (10, 50 * SECOND);
        assert_eq!(judge(&observed), (1, vec![false; 4]));
    }

    #[test]
    fn a_server_that_ends_or_loses_transports_fails_the_run_and_not_the_generator() {
        let ended = outcome("loss<=5%", |o| o.process_ended = true);
        assert_eq!((ended.status(), ended.valid), (1, true));
        assert_eq!(ended.server_ended.as_deref(), Some("the server's process ended"));
        let closed = outcome("loss<=5%", |o| o.tally.counts.refused = 7);
        assert_eq!((closed.status(), closed.invalid_because.len()), (1, 0));
        assert!(closed.server_ended.unwrap().contains("7 datagrams"));
        let late = outcome("loss<=5%", |o| {
            o.process_ended = true;
            (0..5).for_each(|_| o.tally.lateness.record(3_000_000));
        });
        assert_eq!((late.status(), late.valid), (1, false), "that it ended is true all the same");
        let lost = outcome("loss<=5%", |o| o.lost = vec!["ICE disconnected".into(); 3]);
        assert_eq!((lost.status(), lost.valid), (1, true));
        assert_eq!(lost.transports_lost, ["3 transports lost: ICE disconnected"]);
    }

    #[test]
    fn an_objective_that_was_not_measured_is_broken() {
        assert_eq!(outcome("cpu<=9us", |o| o.server = None).status(), 1);
    }

    #[test]
    fn joins_that_fail_break_their_objective() {
        let words = ["loadtest", "churn", "--slo", "joins_failed<=1%,joins>=10/s"];
        let judge = |done: u64, failed: u64| {
            let mut observed = measured();
            let counts = &mut observed.tally.counts;
            (counts.joins_done, counts.joins_failed) = (done, failed);
            counts.joins_begun = done + failed;
            observed.seen.window = observed.window;
            let args = Args::parse_from(words);
            let outcome = Outcome::new(Head::new("run", args, Host::look(None), 0), &observed);
            (outcome.status(), outcome.slo.iter().map(|one| one.kept).collect::<Vec<_>>())
        };
        assert_eq!(judge(100, 1), (0, vec![true, true]));
        assert_eq!(judge(100, 100), (1, vec![false, true]));
        assert_eq!(judge(90, 0), (1, vec![true, false]));
        assert_eq!(judge(0, 0), (1, vec![false, false]), "none was due");
    }

    #[test]
    fn what_was_not_measured_is_null_in_the_json() {
        let outcome = outcome("loss<=1%", |o| o.tally = Tally::default());
        let json = serde_json::to_value(&outcome).unwrap();
        for pointer in ["/latency_us", "/jitter_us", "/generator/lateness_us"] {
            let times = json.pointer(pointer).unwrap();
            assert_eq!(times["count"], 0);
            for name in ["p50", "p90", "p99", "p99.9", "max"] {
                assert!(times[name].is_null(), "{pointer}/{name}");
            }
        }
    }

    #[test]
    fn what_delivered_nothing_has_no_cost_per_packet() {
        let outcome = outcome("cpu<=9us", |o| o.tally.counts.delivered = 0);
        assert_eq!(outcome.server.as_ref().unwrap().cpu_ns_per_packet, None);
        assert_eq!((outcome.generator.cpu_ns_per_packet, outcome.status()), (None, 1));
    }

    #[test]
    fn figures_are_per_second_and_per_delivered_packet() {
        let outcome = outcome("loss<=1%", |_| {});
        assert!((outcome.delivered_pps - 999.0).abs() < 1e-9);
        assert!((outcome.loss_percent - 0.1).abs() < 1e-9);
        let cpu = outcome.server.as_ref().unwrap().cpu_ns_per_packet.unwrap();
        assert!((cpu - 2_000.0).abs() < 1e-9);
        let json = serde_json::to_value(&outcome).unwrap();
        assert_eq!(json["schema"], SCHEMA);
        assert_eq!(json["latency_us"]["p99.9"], json["latency_us"]["max"]);
        assert_eq!(json["arguments"]["slo"], "loss<=1%");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ];
        for (unix, expected) in cases {
            assert_eq!(date(unix), expected);
        }
    }

    #[test]
    fn a_token_is_not_written_down() {
        let words = ["loadtest", "audio", "--token", "secret", "--token=secret", "--json", "a"];
        let shown = without_token(words.map(str::to_owned).into_iter());
        assert_eq!(shown, ["loadtest", "audio", "--token", "…", "--token=…", "--json", "a"]);
    }

    #[test]
    fn the_curve_ends_where_its_count_does() {
        let mut times = Times::default();
        assert!(curve(&times).is_empty());
        (1..=1_000_u64).for_each(|n| times.record(n * 1_000));
        let points = curve(&times);
        assert!(points.windows(2).all(|pair| pair[0].us <= pair[1].us));
        let last = points.last().unwrap();
        assert!((last.percentile - 100.0).abs() < 1e-9 && (last.us - 1_000.0).abs() < 1.0);
        assert!(points.iter().any(|point| (point.percentile - 99.0).abs() < 1e-9));
        assert!(points.iter().all(|p| p.percentile <= 99.91 || p.percentile > 99.99));
    }
}
