//! The table that a person reads at the end of a run.

use std::fmt::Write;

use crate::outcome::{Outcome, Percentiles};

/// The whole table.
pub(crate) fn table(outcome: &Outcome) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write(outcome, &mut text);
    text
}

fn write(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    let (counts, generator) = (&outcome.counts, &outcome.generator);
    writeln!(
        text,
        "{:?}, seed {}, {} streams, {:.1} s, {}",
        outcome.arguments.scenario,
        outcome.arguments.seed,
        outcome.subscriptions,
        outcome.seconds,
        outcome.protection.join(" + "),
    )?;
    writeln!(text, "{} · Linux {}", outcome.host.cpu, outcome.host.kernel)?;
    writeln!(text)?;
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
    outcome.findings.write(text)?;
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
            "server      {:>8.0} ns/packet ({:.0} user + {:.0} system), {:.1} % of a core",
            server.cpu_ns_per_packet,
            server.user_ns_per_packet,
            server.system_ns_per_packet,
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
    }
    writeln!(
        text,
        "generator   {:>8.0} ns/packet, {:.1} % of a core",
        generator.cpu_ns_per_packet,
        100.0 * generator.cores,
    )?;
    writeln!(text)
}

fn write_verdict(outcome: &Outcome, text: &mut String) -> std::fmt::Result {
    for judged in &outcome.slo {
        let word = if judged.kept { "kept" } else { "BROKEN" };
        let measured =
            judged.measured.map_or_else(|| "not measured".to_owned(), |m| format!("{m:.3}"));
        writeln!(text, "{word:<8} {} {measured} <= {}", judged.figure, judged.limit)?;
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
    let Percentiles { count, p50, p90, p99, p999, max } = times;
    writeln!(text, "{name:<12}{p50:>8.0} {p90:>9.0} {p99:>9.0} {p999:>9.0} {max:>9.0} {count:>9}")
}
