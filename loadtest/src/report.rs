//! The table that a person reads at the end of a run or of a search.

use std::fmt::Write;

use crate::display::{grouped, nanoseconds};
use crate::limit::{Limit, Step};
use crate::outcome::{Head, Outcome, Percentiles};
use crate::run::Results;

/// The whole table.
pub(crate) fn table(results: &Results) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = match results {
        Results::Run(outcome) => write(outcome, &mut text),
        Results::Limit(limit) => write_limit(limit, &mut text),
    };
    text
}

/// The table of one run.
pub(crate) fn table_of_run(outcome: &Outcome) -> String {
    let mut text = String::new();
    let _ = write(outcome, &mut text);
    text
}

fn write_head(
    text: &mut String,
    head: &Head,
    subscriptions: usize,
    protection: &[&str],
) -> std::fmt::Result {
    let (arguments, host) = (&head.arguments, &head.host);
    writeln!(
        text,
        "{:?}, seed {}, {subscriptions} streams, {:.1} s, {}",
        arguments.scenario,
        arguments.seed,
        arguments.duration,
        protection.join(" + "),
    )?;
    writeln!(
        text,
        "{} · Linux {} · load {} · loadtest {}",
        host.cpu, host.kernel, host.load_average, head.commit,
    )?;
    writeln!(text)
}

/// One step of a search in a line.
pub(crate) fn step(number: usize, step: &Step) -> String {
    let known = |value: Option<f64>, digits: usize, unit: f64| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{:.digits$}", value / unit))
    };
    let word = if step.holds { "holds" } else { "BREAKS" };
    let reasons: Vec<_> = step.ran_out.iter().map(crate::limit::RanOut::words).collect();
    format!(
        "{number:>3} {:<8}{:>11} {:>11} {:>8.3} {:>8} {:>8} {:>7} {:>7} {:>6.0}  {word} {}",
        step.phase.name(),
        grouped(step.expected_pps),
        grouped(step.delivered_pps),
        step.loss_percent,
        known(step.p50_us, 2, 1e3),
        known(step.p99_us, 2, 1e3),
        known(step.server_ns_per_packet, 0, 1.0),
        known(step.server_cores, 0, 0.01),
        100.0 * step.generator_cores,
        reasons.join("; "),
    )
    .trim_end()
    .to_owned()
}

fn write_limit(limit: &Limit, text: &mut String) -> std::fmt::Result {
    write_head(text, &limit.head, limit.subscriptions, &limit.protection)?;
    writeln!(
        text,
        "    step     asked pps   delivered   loss %   p50 ms   p99 ms  ns/pkt server%  gen. %"
    )?;
    for (number, one) in (1..).zip(&limit.steps) {
        writeln!(text, "{}", step(number, one))?;
    }
    writeln!(text)?;
    for line in conclusion(limit) {
        writeln!(text, "{line}")?;
    }
    Ok(())
}

/// What a search found, in sentences.
pub(crate) fn conclusion(limit: &Limit) -> Vec<String> {
    let mut lines = Vec::new();
    let at_least = if limit.lower_bound { "at least " } else { "" };
    lines.push(match (limit.limit_pps, limit.limit_bps) {
        (Some(pps), Some(bps)) => format!(
            "limit     {at_least}{} packets/s delivered ({:.1} Mbit/s) with {}{}",
            grouped(pps),
            bps / 1e6,
            limit.objectives,
            if limit.confirmed { ", held twice" } else { ", NOT confirmed" },
        ),
        _ => format!("limit     no rate that was tried keeps {}", limit.objectives),
    });
    for reason in &limit.ran_out {
        lines.push(format!("ran out   {}", reason.words()));
    }
    if limit.lower_bound {
        lines.push(
            "          The generator, not the server, fell short above this rate: it is a LOWER \
             BOUND."
                .to_owned(),
        );
    }
    if let Some(reason) = &limit.ended_because {
        lines.push(format!("ended     {reason}"));
    }
    lines
}

fn write(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    let (counts, generator) = (&outcome.counts, &outcome.generator);
    write_head(text, &outcome.head, outcome.subscriptions, &outcome.protection)?;
    writeln!(text, "offered     {:>12.0} packets/s from publishers", outcome.offered_pps)?;
    writeln!(
        text,
        "delivered   {:>12.0} packets/s of {:.0}, {:.1} Mbit/s",
        outcome.delivered_pps,
        outcome.expected_pps,
        outcome.delivered_bps / 1e6,
    )?;
    writeln!(
        text,
        "loss        {:>12.4} %   duplicates {}   reordered {}   silent streams {}",
        outcome.loss_percent, counts.duplicates, counts.reordered, counts.silent_streams,
    )?;
    if counts.stopped_streams > 0 {
        let stopped = counts.stopped_streams;
        writeln!(text, "            {stopped:>12} streams STOPPED before the end of the window")?;
    }
    for (name, count) in [
        ("undecryptable", counts.undecryptable),
        ("without stamp", counts.unstamped),
        ("renumbered", counts.renumbered),
        ("unknown streams", counts.unknown_streams),
        ("asked of publishers again", counts.nacked),
        ("sent again by publishers", counts.resent),
        ("lost on the way up", counts.lost_up),
        ("lost on the way down", counts.lost_down),
        ("asked for again", counts.asked),
        ("repairs received", counts.repairs),
        ("delivered by repair", counts.repaired),
        ("given up", counts.given_up),
    ] {
        if count > 0 {
            writeln!(text, "            {count:>12} packets {name}")?;
        }
    }
    outcome.findings.write(outcome.head.arguments.scenario, text)?;
    writeln!(text)?;
    writeln!(text, "µs               p50       p90       p99     p99.9       max     count")?;
    row(text, "latency", &outcome.latency_us)?;
    row(text, "lateness", &generator.lateness_us)?;
    row(text, "jitter", &outcome.findings.jitter_us)?;
    for stage in &outcome.join {
        row(text, stage.stage, &stage.us)?;
    }
    writeln!(text)?;
    write_costs(outcome, text)?;
    write_verdict(outcome, text)
}

fn write_costs(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    let generator = &outcome.generator;
    if let Some(server) = &outcome.server {
        writeln!(
            text,
            "server      {:>8} ns/packet ({} user + {} system), {:.1} % of a core",
            nanoseconds(server.cpu_ns_per_packet),
            nanoseconds(server.user_ns_per_packet),
            nanoseconds(server.system_ns_per_packet),
            100.0 * server.cores,
        )?;
        writeln!(
            text,
            "            {:>8} KiB resident, {} threads, {} + {} context switches",
            server.usage.resident_bytes / 1024,
            server.usage.threads,
            server.usage.voluntary_switches,
            server.usage.involuntary_switches,
        )?;
        if let Some(thread) = &server.busiest_thread {
            writeln!(
                text,
                "            busiest thread {}: ran {:.1} %, waited {:.1} % for its core",
                thread.name,
                100.0 * thread.cores,
                100.0 * thread.waited,
            )?;
        }
    }
    write_says(outcome, text)?;
    writeln!(
        text,
        "generator   {:>8} ns/packet, {:.1} % of a core",
        nanoseconds(generator.cpu_ns_per_packet),
        100.0 * generator.cores,
    )?;
    writeln!(text)
}

/// What the server says about itself.
fn write_says(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    let Some(says) = &outcome.server_says else { return Ok(()) };
    if let Some(ratio) = says.segments_per_message {
        writeln!(
            text,
            "            {ratio:.2} datagrams per message to the kernel, by its own metrics",
        )?;
    }
    if let Some(latency) = &says.latency_us {
        let bound = |us: Option<f64>| us.map_or_else(|| "beyond".into(), |us| format!("{us:.0}"));
        writeln!(
            text,
            "            its own latency, receive to send: p50 {}, p90 {}, p99 {} µs of {}",
            bound(latency.p50),
            bound(latency.p90),
            bound(latency.p99),
            latency.count,
        )?;
    }
    if says.kernel_dropped > 0 {
        writeln!(text, "            {} datagrams dropped on receive", says.kernel_dropped)?;
    }
    Ok(())
}

fn write_verdict(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    for judged in &outcome.slo {
        let word = if judged.kept { "kept" } else { "BROKEN" };
        let measured =
            judged.measured.map_or_else(|| "not measured".to_owned(), |m| format!("{m:.3}"));
        writeln!(
            text,
            "{word:<8} {} {measured} {} {} {}",
            judged.figure, judged.sign, judged.limit, judged.unit
        )?;
    }
    for reason in outcome.lost() {
        writeln!(text, "LOST     {reason}")?;
    }
    for reason in &outcome.invalid_because {
        writeln!(text, "INVALID  {reason}")?;
    }
    if outcome.valid {
        writeln!(text, "valid")?;
    }
    Ok(())
}

fn row(text: &mut String, name: &str, times: &Percentiles) -> std::fmt::Result {
    let [p50, p90, p99, p999, max] = [times.p50, times.p90, times.p99, times.p999, times.max]
        .map(|us| us.map_or_else(|| "–".to_owned(), |us| format!("{us:.0}")));
    let count = times.count;
    writeln!(text, "{name:<12}{p50:>8} {p90:>9} {p99:>9} {p999:>9} {max:>9} {count:>9}")
}
