//! `loadtest compare`: whether new results are worse than old ones, with confidence. Pure but for
//! reading the files.
//!
//! With four runs a side or more each run is one value ([`crate::rank`]). With fewer, the seconds of
//! the runs stand in, averaged into blocks; they lie close together in time and know nothing of what
//! differs from run to run, so that verdict is weaker and says so. What is in proportion is compared
//! as ratio (through logarithms), loss as difference.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::Value;

use crate::outcome::SCHEMA;
use crate::rank::{EXACT_MAX, Shift, median, paired, unpaired};

/// Percentage points of loss, and of time without a new frame, that are always tolerated.
const LOSS_TOLERANCE: f64 = 0.05;

/// Percentage points of failed joins that are always tolerated: joins are fewer than packets.
const JOINS_TOLERANCE: f64 = 0.5;

/// Arguments that may differ: they name a place or a sample, not a load.
const MAY_DIFFER: [&str; 6] = ["url", "ca", "insecure", "server_pid", "seed", "slo"];

/// Where results must agree to be comparable, besides the arguments.
const MUST_AGREE: [&str; 10] = [
    "/schema",
    "/kind",
    "/scenario_version",
    "/protection",
    "/host/cpu",
    "/host/kernel",
    "/host/online_cpus",
    "/host/usable_cpus",
    "/host/server_cpus",
    "/host/mitigations",
];

/// Compare results that --json wrote.
///
/// With more than one run a side: `loadtest compare base1.json base2.json … -- new1.json new2.json …`;
/// from four a side on, runs are compared, below that only their seconds.
///
/// Exit status: 0 no regression was seen; 1 there is one beyond --tolerance, with 95 % confidence; 2 the
/// command line is wrong; 3 the results cannot be read or compared; 4 one of them is INVALID.
#[derive(Debug, Parser)]
#[command(name = "loadtest compare", version)]
pub(crate) struct Args {
    /// Base results; without `--`, one base and one new.
    #[arg(required = true, value_name = "BASE")]
    base: Vec<PathBuf>,
    /// New results, after `--`.
    #[arg(last = true, value_name = "NEW")]
    new: Vec<PathBuf>,
    /// How much worse counts as a regression.
    #[arg(long, default_value = "5%", value_parser = percent)]
    tolerance: f64,
    /// The runs were taken in turn (base, new, base, new, …): compare each with its neighbour.
    #[arg(long)]
    paired: bool,
    /// Compare other scenarios, arguments, protections or hosts all the same.
    #[arg(long)]
    force: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').ok_or("a percentage such as 5%")?;
    let number: f64 = number.trim().parse().map_err(|_| "not a number of percent")?;
    if (0.0..=1_000.0).contains(&number) { Ok(number / 100.0) } else { Err("0% to 1000%".into()) }
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    Lower,
    Higher,
}

/// A figure that is compared.
#[derive(Debug, Clone, Copy)]
struct Metric {
    name: &'static str,
    /// Where a result has it.
    pointer: &'static str,
    /// Where a second has it; empty when it has not.
    in_series: &'static str,
    /// What the table divides by.
    unit: f64,
    better: Better,
    /// Compared as difference, in its own unit, of which so much is always tolerated; none for what
    /// is compared as ratio.
    absolute: Option<f64>,
}

const fn ratio(
    name: &'static str,
    pointer: &'static str,
    in_series: &'static str,
    unit: f64,
) -> Metric {
    Metric { name, pointer, in_series, unit, better: Better::Lower, absolute: None }
}

/// Percentage points: of these the lower are the better, and zero is usual.
const fn points(name: &'static str, pointer: &'static str, tolerated: f64) -> Metric {
    Metric { absolute: Some(tolerated), ..ratio(name, pointer, "", 1.0) }
}

const METRICS: [Metric; 18] = [
    ratio("server ns/packet", "/server/cpu_ns_per_packet", "server_ns_per_packet", 1.0),
    ratio("latency p50 ms", "/latency_us/p50", "p50_us", 1e3),
    ratio("latency p99 ms", "/latency_us/p99", "p99_us", 1e3),
    ratio("latency p99.9 ms", "/latency_us/p99.9", "", 1e3),
    points("loss %", "/loss_percent", LOSS_TOLERANCE),
    points("frozen %", "/picture/frozen_percent", LOSS_TOLERANCE),
    Metric {
        better: Better::Higher,
        ..ratio("delivered pps", "/delivered_pps", "delivered_pps", 1.0)
    },
    ratio("server RSS MiB", "/server/usage/resident_bytes", "server_resident_bytes", 1_048_576.0),
    ratio("first packet p50 ms", "first_packet/p50", "", 1e3),
    ratio("first packet p99 ms", "first_packet/p99", "", 1e3),
    ratio("join p50 ms", "join/p50", "", 1e3),
    ratio("join p99 ms", "join/p99", "", 1e3),
    points("joins failed %", "/joins/failed_percent", JOINS_TOLERANCE),
    Metric { better: Better::Higher, ..ratio("joins per CPU second", "/joins/per_cpu_s", "", 1.0) },
    ratio("jitter p99 ms", "/jitter_us/p99", "", 1e3),
    ratio("idle CPU %", "/idle/server_cpu_percent", "", 1.0),
    ratio("idle KiB each", "/idle/bytes_per_transport", "", 1_024.0),
    Metric { better: Better::Higher, ..ratio("limit pps", "/limit_pps", "", 1.0) },
];

/// What was found about a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Regression,
    WithinTolerance,
    NoDifference,
    Better,
    TooFew,
    /// All base results have it, and a new one has not: as bad as it can be.
    Gone,
    /// Zero on a side, where lower is better: there is no ratio.
    Zero,
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Self::Regression => "REGRESSION",
            Self::WithinTolerance => "worse, within tolerance",
            Self::NoDifference => "no difference seen",
            Self::Better => "better",
            Self::TooFew => "too few to say",
            Self::Gone => "REGRESSION: was measured, is not",
            Self::Zero => "zero has no ratio",
        }
    }

    /// Judges a shift: of logarithms, or of the figure itself.
    fn of(shift: &Shift, metric: &Metric, tolerance: f64) -> Self {
        let Some((low, high)) = shift.interval else { return Self::TooFew };
        // Turned so that up is worse.
        let (low, high) = match metric.better {
            Better::Lower => (low, high),
            Better::Higher => (-high, -low),
        };
        // A tolerance of 5 % is a factor of 1.05 up, or of 1/1.05 down.
        let tolerated = metric.absolute.unwrap_or_else(|| tolerance.ln_1p());
        match (low, high) {
            (low, _) if low > tolerated => Self::Regression,
            (low, _) if low > 0.0 => Self::WithinTolerance,
            (_, high) if high < 0.0 => Self::Better,
            _ => Self::NoDifference,
        }
    }
}

/// One line of the comparison.
#[derive(Debug)]
struct Row {
    metric: &'static Metric,
    base: f64,
    /// None when a result lacks it.
    new: Option<f64>,
    /// None when it cannot be said.
    shift: Option<Shift>,
    /// From seconds instead of runs.
    weaker: bool,
    verdict: Verdict,
}

/// Why nothing is compared, and the exit status for it.
type Refusal = (u8, String);

/// Compares as the command line says; returns the table and the exit status.
pub(crate) fn run(args: &Args) -> Result<(String, u8), Refusal> {
    let (base, new) = match (args.base.as_slice(), args.new.as_slice()) {
        ([base, new], []) => (vec![read(base)?], vec![read(new)?]),
        (_, []) => {
            let reason = "two results, or several on each side of `--`";
            return Err((2, reason.into()));
        }
        (base, new) => (read_all(base)?, read_all(new)?),
    };
    if args.paired && base.len() != new.len() {
        return Err((2, "--paired: as many new results as base ones".into()));
    }
    let differ = differences(base.iter().chain(&new));
    if !differ.is_empty() && !args.force {
        let reason = format!("not comparable without --force: {}", differ.join("; "));
        return Err((3, reason));
    }
    let rows = rows(&base, &new, args);
    let text = table(&rows, (base.len(), new.len()), args, &differ);
    let regressed =
        rows.iter().any(|row| matches!(row.verdict, Verdict::Regression | Verdict::Gone));
    Ok((text, u8::from(regressed)))
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<Value>, Refusal> {
    paths.iter().map(|path| read(path)).collect()
}

/// A result that may be compared.
fn read(path: &Path) -> Result<Value, Refusal> {
    let refuse = |status, reason: String| (status, format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(3, error.to_string()))?;
    let result: Value =
        serde_json::from_str(&text).map_err(|error| refuse(3, error.to_string()))?;
    match result.get("schema").and_then(Value::as_str) {
        Some(SCHEMA) => {}
        Some(other) => return Err(refuse(3, format!("schema {other:?}, this reads {SCHEMA:?}"))),
        None => return Err(refuse(3, "not a result of loadtest --json".into())),
    }
    let invalid = result.get("valid") == Some(&Value::Bool(false));
    let blind = result.get("lower_bound") == Some(&Value::Bool(true));
    match (invalid, blind) {
        (true, _) => {
            let reasons = result.get("invalid_because").map(Value::to_string);
            Err(refuse(4, format!("INVALID: {}", reasons.unwrap_or_default())))
        }
        (_, true) => Err(refuse(4, "the generator was its limit: a lower bound".into())),
        _ => Ok(result),
    }
}

/// In what results differ that must not.
fn differences<'a>(mut all: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let Some(first) = all.next() else { return Vec::new() };
    let mut found = Vec::new();
    for other in all {
        for pointer in MUST_AGREE {
            if first.pointer(pointer) != other.pointer(pointer) {
                found.push(pointer.trim_start_matches('/').replace('/', "."));
            }
        }
        let arguments = |result: &'a Value| result.get("arguments").and_then(Value::as_object);
        let (Some(ours), Some(theirs)) = (arguments(first), arguments(other)) else {
            found.push("arguments".into());
            continue;
        };
        let names = ours.keys().chain(theirs.keys()).filter(|n| !MAY_DIFFER.contains(&n.as_str()));
        let differing = names.filter(|name| ours.get(*name) != theirs.get(*name));
        found.extend(differing.map(|name| format!("--{}", name.replace('_', "-"))));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// A figure of a result; none when it was not measured.
fn figure(result: &Value, metric: &Metric) -> Option<f64> {
    match metric.pointer.split_once('/') {
        Some(("", _)) => result.pointer(metric.pointer)?.as_f64(),
        Some((stage, percentile)) => {
            let mut stages = result.get("join")?.as_array()?.iter();
            let times = stages.find(|times| times.get("stage") == Some(&Value::from(stage)))?;
            times.get("us")?.get(percentile)?.as_f64()
        }
        None => None,
    }
}

/// A figure second by second, over all results of a side, in at most [`EXACT_MAX`] blocks.
fn blocks(results: &[Value], metric: &Metric) -> Vec<f64> {
    let seconds = |result: &Value| -> Vec<f64> {
        let series = result.get("series").and_then(Value::as_array).into_iter().flatten();
        series.filter_map(|moment| moment.get(metric.in_series)?.as_f64()).collect()
    };
    let all: Vec<f64> = results.iter().flat_map(seconds).collect();
    let size = all.len().div_ceil(EXACT_MAX).max(1);
    all.chunks(size).map(median).collect()
}

fn rows(base: &[Value], new: &[Value], args: &Args) -> Vec<Row> {
    METRICS.iter().filter_map(|metric| row(metric, base, new, args)).collect()
}

/// A line about a metric; none when a base result has not got it.
fn row(metric: &'static Metric, base: &[Value], new: &[Value], args: &Args) -> Option<Row> {
    let of = |results: &[Value]| -> Option<Vec<f64>> {
        results.iter().map(|result| figure(result, metric)).collect()
    };
    let of_base = of(base)?;
    let of_new = of(new);
    let told = |verdict| {
        let (base, new) = (median(&of_base), of_new.as_deref().map(median));
        Some(Row { metric, base, new, shift: None, weaker: false, verdict })
    };
    let scaled_base = scaled(&of_base, metric);
    let Some(of_new) = &of_new else { return told(Verdict::Gone) };
    let Some((scaled_base, scaled_new)) = scaled_base.clone().zip(scaled(of_new, metric)) else {
        // What was zero before cannot have got lost.
        let gone = scaled_base.is_some() && metric.better == Better::Higher;
        return told(if gone { Verdict::Gone } else { Verdict::Zero });
    };
    let compare = if args.paired { paired } else { unpaired };
    let mut shift = compare(&scaled_base, &scaled_new)?;
    let mut weaker = false;
    if shift.interval.is_none() && !metric.in_series.is_empty() {
        let (base, new) = (blocks(base, metric), blocks(new, metric));
        if let Some(by_seconds) = scaled(&base, metric)
            .zip(scaled(&new, metric))
            .and_then(|(base, new)| unpaired(&base, &new))
        {
            (shift, weaker) = (by_seconds, true);
        }
    }
    let verdict = Verdict::of(&shift, metric, args.tolerance);
    let (base, new) = (median(&of_base), Some(median(of_new)));
    Some(Row { metric, base, new, shift: Some(shift), weaker, verdict })
}

/// Values as they are compared; none where a ratio cannot be.
fn scaled(values: &[f64], metric: &Metric) -> Option<Vec<f64>> {
    if metric.absolute.is_some() {
        return Some(values.to_vec());
    }
    values.iter().map(|value| (*value > 0.0).then(|| value.ln())).collect()
}

fn table(rows: &[Row], runs: (usize, usize), args: &Args, differ: &[String]) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write_table(&mut text, rows, runs, args, differ);
    text
}

fn write_table(
    text: &mut String,
    rows: &[Row],
    (base, new): (usize, usize),
    args: &Args,
    differ: &[String],
) -> std::fmt::Result {
    let test = if args.paired { "Wilcoxon signed-rank" } else { "Mann-Whitney" };
    writeln!(text, "{base} base and {new} new runs; exact {test} intervals, 95 %")?;
    if !differ.is_empty() {
        writeln!(text, "FORCED although these differ: {}", differ.join("; "))?;
    }
    writeln!(text)?;
    writeln!(
        text,
        "{:<20}{:>12}{:>12}{:>9}  {:<18} verdict",
        "", "base", "new", "change", "95 % interval",
    )?;
    for row in rows {
        let (unit, absolute) = (row.metric.unit, row.metric.absolute.is_some());
        let shown =
            |by: f64| if absolute { format!("{by:+.3}") } else { format!("{:.3}", by.exp()) };
        let interval = row.shift.as_ref().and_then(|shift| shift.interval);
        let interval = interval.map_or_else(
            || "–".to_owned(),
            |(low, high)| format!("{} … {}", shown(low), shown(high)),
        );
        let mark = if row.weaker { " *" } else { "" };
        writeln!(
            text,
            "{:<20}{:>12.3}{:>12}{:>9}  {interval:<18} {}{mark}",
            row.metric.name,
            row.base / unit,
            row.new.map_or_else(|| "–".to_owned(), |new| format!("{:.3}", new / unit)),
            row.shift.as_ref().map_or_else(|| "–".to_owned(), |shift| shown(shift.by)),
            row.verdict.words(),
        )?;
    }
    if rows.iter().any(|row| row.weaker) {
        writeln!(
            text,
            "\n* from the seconds within the runs: too few runs for their own spread, which may be \
             larger.\n  Weaker than it looks; take at least {} runs a side{}.",
            if args.paired { 6 } else { 4 },
            if args.paired { "" } else { ", in turn" },
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::outcome::tests::{measured, outcome_of};

    /// A result with another CPU per packet and latency.
    fn result(cpu: f64, p99: f64) -> Value {
        let mut value = serde_json::to_value(outcome_of(measured(), |_| {})).unwrap();
        value["server"]["cpu_ns_per_packet"] = json!(cpu);
        value["latency_us"]["p99"] = json!(p99);
        for (second, moment) in (0..).zip(value["series"].as_array_mut().unwrap()) {
            moment["server_ns_per_packet"] = json!(cpu + f64::from(second));
            moment["p99_us"] = json!(p99);
        }
        value
    }

    fn args(line: &str) -> Args {
        Args::try_parse_from(line.split(' ')).unwrap()
    }

    fn verdict(name: &str, base: &[f64], new: &[f64], line: &str) -> (Verdict, bool) {
        let side =
            |values: &[f64]| values.iter().map(|cpu| result(*cpu, 900.0)).collect::<Vec<_>>();
        let rows = rows(&side(base), &side(new), &args(line));
        let row = rows.iter().find(|row| row.metric.name == name).unwrap();
        (row.verdict, row.weaker)
    }

    #[test]
    fn a_regression_needs_confidence_and_size() {
        let cpu =
            |base: &[f64], new: &[f64], line: &str| verdict("server ns/packet", base, new, line);
        let base = [2_500.0, 2_575.0, 2_750.0, 2_800.0, 2_810.0];
        let times = |factor: f64| base.map(|value| value * factor);
        let line = "compare a b";
        assert_eq!(cpu(&base, &times(1.3), line), (Verdict::Regression, false));
        assert_eq!(cpu(&base, &times(1.01), line), (Verdict::NoDifference, false));
        assert_eq!(cpu(&base, &times(0.7), line), (Verdict::Better, false));
        assert_eq!(
            cpu(&base, &times(1.3), "compare a b --tolerance 50%").0,
            Verdict::WithinTolerance
        );
        assert_eq!(cpu(&base[..1], &times(1.3)[..1], line), (Verdict::Regression, true));
        let six = [2_500.0, 2_600.0, 2_700.0, 2_800.0, 2_900.0, 3_000.0];
        let paired = cpu(&six, &six.map(|v| v * 1.07), "compare --paired a b");
        assert_eq!(paired, (Verdict::Regression, false));
        let unpaired = cpu(&six, &six.map(|v| v * 1.07), line);
        assert_eq!(unpaired, (Verdict::NoDifference, false));
        assert_eq!(verdict("loss %", &base[..1], &base[..1], line), (Verdict::TooFew, false));
        assert_eq!(verdict("loss %", &base, &base, line), (Verdict::NoDifference, false));
    }

    #[test]
    fn a_total_outage_is_a_regression_and_not_left_out() {
        let good = result(2_500.0, 900.0);
        let mut dead = good.clone();
        dead["server"]["cpu_ns_per_packet"] = Value::Null;
        dead["delivered_pps"] = json!(0.0);
        dead["loss_percent"] = json!(100.0);
        for name in ["p50", "p90", "p99", "p99.9", "max"] {
            dead["latency_us"][name] = Value::Null;
        }
        let line = args("compare a b");
        let rows = rows(std::slice::from_ref(&good), std::slice::from_ref(&dead), &line);
        for name in ["server ns/packet", "latency p50 ms", "latency p99.9 ms", "delivered pps"] {
            let row = rows.iter().find(|row| row.metric.name == name).unwrap();
            assert_eq!(row.verdict, Verdict::Gone, "{name}");
        }
        let text = table(&rows, (1, 1), &line, &[]);
        assert!(text.contains("REGRESSION: was measured, is not"), "{text}");
        let back = super::rows(&[dead], &[good], &line);
        assert!(back.iter().all(|row| row.verdict != Verdict::Gone));
    }

    #[test]
    fn joins_that_fail_are_compared_by_their_share() {
        let with = |failed: f64| {
            let mut value = result(2_500.0, 900.0);
            value["joins"] = json!({ "failed_percent": failed });
            value
        };
        let side = |shares: [f64; 4]| shares.map(with);
        let verdict = |base: [f64; 4], new: [f64; 4]| {
            let rows = rows(&side(base), &side(new), &args("compare a b"));
            rows.iter().find(|row| row.metric.name == "joins failed %").unwrap().verdict
        };
        let none = [0.0; 4];
        assert_eq!(verdict(none, [50.0, 49.0, 51.0, 50.0]), Verdict::Regression);
        assert_eq!(verdict(none, [0.3, 0.2, 0.3, 0.4]), Verdict::WithinTolerance);
        assert_eq!(verdict(none, none), Verdict::NoDifference);
    }

    #[test]
    fn a_cost_that_is_zero_is_shown_and_is_no_regression() {
        let with = |percent: f64| {
            let mut value = result(2_500.0, 900.0);
            value["idle"] = json!({ "server_cpu_percent": percent });
            value
        };
        let rows = rows(&[with(1.0)], &[with(0.0)], &args("compare a b"));
        let row = rows.iter().find(|row| row.metric.name == "idle CPU %").unwrap();
        assert_eq!((row.verdict, row.new), (Verdict::Zero, Some(0.0)));
    }

    #[test]
    fn higher_is_better_where_it_is() {
        let metric = METRICS.iter().find(|metric| metric.name == "delivered pps").unwrap();
        let shift = |low, high| Shift { by: (low + high) / 2.0, interval: Some((low, high)) };
        assert_eq!(Verdict::of(&shift(-0.3, -0.2), metric, 0.05), Verdict::Regression);
        assert_eq!(Verdict::of(&shift(0.2, 0.3), metric, 0.05), Verdict::Better);
    }

    #[test]
    fn other_loads_and_other_hosts_are_named() {
        let one = result(1.0, 1.0);
        let mut other = one.clone();
        assert!(differences([&one, &other].into_iter()).is_empty());
        other["arguments"]["seed"] = json!(99);
        other["arguments"]["server_pid"] = json!(99);
        assert!(differences([&one, &other].into_iter()).is_empty());
        other["arguments"]["no_gro"] = json!(true);
        other["protection"] = json!(["other"]);
        other["host"]["kernel"] = json!("6.0");
        let found = differences([&one, &one, &other].into_iter());
        assert_eq!(found, ["--no-gro", "host.kernel", "protection"]);
    }

    #[test]
    fn the_command_line_is_read_or_refused_naming_its_fault() {
        let both = args("compare a b -- c d");
        assert_eq!((both.base.len(), both.new.len()), (2, 2));
        for line in ["compare", "compare a b --tolerance 5", "compare a b --tolerance x%"] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        assert_eq!(run(&args("compare a b c")).unwrap_err().0, 2);
        assert_eq!(run(&args("compare --paired /nowhere/a -- /nowhere/b /c")).unwrap_err().0, 3);
    }

    #[test]
    fn files_are_compared_and_invalid_ones_refused() {
        let write = |name: &str, value: &Value| {
            let name = format!("loadtest-compare-{}-{name}.json", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, value.to_string()).unwrap();
            path.display().to_string()
        };
        let mut invalid = result(2_000.0, 900.0);
        invalid["valid"] = json!(false);
        let mut foreign = result(2_000.0, 900.0);
        foreign["schema"] = json!("other/1");
        let mut elsewhere = result(2_000.0, 900.0);
        elsewhere["host"]["cpu"] = json!("another");
        let good = write("good", &result(2_000.0, 900.0));
        let worse = write("worse", &result(3_000.0, 900.0));
        let cases = [(write("invalid", &invalid), 4), (write("foreign", &foreign), 3)];
        let elsewhere = write("elsewhere", &elsewhere);
        let status = |line: String| run(&args(&line)).map(|(_, s)| s).map_err(|(s, _)| s);
        assert_eq!(status(format!("compare {good} {good}")), Ok(0));
        assert_eq!(status(format!("compare {good} {worse}")), Ok(1));
        assert_eq!(status(format!("compare {worse} {good}")), Ok(0));
        assert_eq!(status(format!("compare {good} {elsewhere}")), Err(3));
        assert_eq!(status(format!("compare {good} {elsewhere} --force")), Ok(0));
        for (path, refused) in &cases {
            assert_eq!(status(format!("compare {good} {path} --force")), Err(*refused));
        }
        let all = [good, worse, elsewhere].into_iter().chain(cases.into_iter().map(|(p, _)| p));
        all.for_each(|path| std::fs::remove_file(path).unwrap());
    }
}
