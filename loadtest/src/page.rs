//! `--html`: the results as one self-contained page, to be shown to a colleague. Pure.
//!
//! No script, no request: the style sheet and all drawings are inside. Every text that came from
//! outside (arguments, host, server) is escaped.

use crate::display::{grouped, nanoseconds};
use crate::limit::{Limit, RanOut, Step};
use crate::outcome::{Head, Judged, Outcome, Percentiles, Server};
use crate::plot::{Line, Plot, Scale, escaped};
use crate::report;
use crate::run::Results;
use crate::series::Moment;
use crate::slo::{Figure, Slo};

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(crate) fn page(results: &Results) -> String {
    let (head, body) = match results {
        Results::Run(outcome) => (&outcome.head, of_run(outcome)),
        Results::Limit(limit) => (&limit.head, of_limit(limit)),
    };
    let title = escaped(&title(head));
    let origin = fingerprint(head);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style></head>\n<body><main>\n{body}{origin}</main></body></html>\n"
    )
}

fn title(head: &Head) -> String {
    let what = if head.kind == "limit" { "highest rate of " } else { "" };
    format!("{what}{:?}, {}", head.arguments.scenario, head.date).to_lowercase()
}

fn of_run(outcome: &Outcome) -> String {
    let (class, word) = match (outcome.valid, outcome.slo.is_empty(), outcome.status()) {
        (.., 1) if outcome.lost().count() > 0 => ("bad", "lost"),
        (false, ..) => ("warn", "INVALID"),
        (true, true, _) => ("good", "valid"),
        (true, false, 0) => ("good", "objectives kept"),
        (true, false, _) => ("bad", "objectives broken"),
    };
    let about = format!(
        "{} streams, {:.0} seconds measured, {}",
        outcome.subscriptions,
        outcome.seconds,
        outcome.protection.join(" + "),
    );
    let reasons = outcome
        .lost()
        .chain(&outcome.invalid_because)
        .map(|reason| item(reason))
        .collect::<String>();
    let reasons = if reasons.is_empty() {
        String::new()
    } else {
        section(
            "wide",
            "What to know of these numbers",
            &format!("<ul class=\"warn\">{reasons}</ul>"),
        )
    };
    [
        header(&outcome.head, (class, word), &about),
        tiles(&run_tiles(outcome)),
        reasons,
        judged(&outcome.slo),
        run_plots(outcome),
        tables(outcome),
    ]
    .concat()
}

fn header(head: &Head, (class, word): (&str, &str), about: &str) -> String {
    let scenario = format!("{:?}", head.arguments.scenario).to_lowercase();
    let what = if head.kind == "limit" { "Highest rate" } else { "Load test" };
    format!(
        "<header><h1>{what}: {}</h1><span class=\"verdict {class}\">{}</span><p>{}. {}, {}</p>\
         </header>\n",
        escaped(&scenario),
        escaped(word),
        escaped(about),
        escaped(&head.host.cpu),
        escaped(&head.date),
    )
}

fn tiles(all: &[(String, String)]) -> String {
    let tile = |(number, name): &(String, String)| {
        format!(
            "<div class=\"tile\"><b>{}</b><span>{}</span></div>",
            escaped(number),
            escaped(name)
        )
    };
    format!("<div class=\"tiles\">{}</div>\n", all.iter().map(tile).collect::<String>())
}

fn run_tiles(outcome: &Outcome) -> Vec<(String, String)> {
    let tile = |number: String, name: &str| (number, name.to_owned());
    let latency =
        |us: Option<f64>| us.map_or_else(|| "–".to_owned(), |us| format!("{:.2} ms", us / 1e3));
    let findings = &outcome.findings;
    if let Some(idle) = &findings.idle {
        let known = |value: Option<f64>, unit: &str| {
            value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1} {unit}"))
        };
        let kib = idle.bytes_per_transport.map(|bytes| bytes / 1_024.0);
        return vec![
            tile(idle.transports.to_string(), "idle transports"),
            tile(known(idle.server_cpu_percent, "%"), "of a core used by the server"),
            tile(known(kib, "KiB"), "server memory each"),
        ];
    }
    let mut all = vec![
        tile(grouped(outcome.delivered_pps), "packets/s delivered"),
        tile(format!("{:.1}", outcome.delivered_bps / 1e6), "Mbit/s delivered"),
        tile(format!("{:.3} %", outcome.loss_percent), "loss"),
        tile(latency(outcome.latency_us.p50), "latency, median"),
        tile(latency(outcome.latency_us.p99), "latency, p99"),
    ];
    if let Some(cpu) = outcome.server.as_ref().and_then(|server| server.cpu_ns_per_packet) {
        let cpu = format!("{:.2} µs", cpu / 1e3);
        all.push(tile(cpu, "server CPU per packet"));
    }
    if let Some(joins) = &findings.joins {
        all.push(tile(format!("{:.1}", joins.per_s), "joins per second"));
    }
    all
}

fn judged(all: &[Judged]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let row = |judged: &Judged| {
        let (class, word) = if judged.kept { ("good", "kept") } else { ("bad", "broken") };
        let measured = judged.measured.map_or_else(|| "not measured".into(), |m| format!("{m:.3}"));
        format!(
            "<tr><td>{} {} {} {}</td><td>{measured}</td><td class=\"{class}\">{word}</td></tr>",
            judged.figure,
            escaped(judged.sign),
            judged.limit,
            judged.unit,
        )
    };
    let rows: String = all.iter().map(row).collect();
    let head = "<tr><th>objective</th><th>measured</th><th></th></tr>";
    section("wide", "Objectives", &format!("<table>{head}{rows}</table>"))
}

fn run_plots(outcome: &Outcome) -> String {
    let series = &outcome.series;
    let over = |value: fn(&Moment) -> Option<f64>| -> Vec<(f64, f64)> {
        series.iter().filter_map(|moment| Some((moment.at, value(moment)?))).collect()
    };
    let limit = p99_limit(outcome.head.arguments.slo.as_ref());
    let time = |up, up_scale, lines, limit| Plot {
        across: "seconds",
        up,
        across_scale: Scale::Linear,
        up_scale,
        lines,
        limit,
    };
    let latency = vec![
        Line::new("p50", 1, over(|m| m.p50_us.map(|us| us / 1e3))),
        Line::new("p99", 2, over(|m| m.p99_us.map(|us| us / 1e3))),
        Line::new("generator late, p99", 4, over(|m| m.lateness_p99_us.map(|us| us / 1e3)))
            .dashed(),
        Line::new("server's own, p99", 3, over(|m| m.server_says_p99_us.map(|us| us / 1e3)))
            .dashed(),
    ];
    let told = |line: &Line| !line.points.is_empty();
    // The highest of n packets stands at the percentile that n packets can tell.
    let last = 100.0 * (1.0 - 1.0 / crate::series::float(outcome.latency_us.count.max(1)));
    let points = outcome.latency_curve.iter();
    let curve = points.map(|p| (p.percentile.min(last), p.us / 1e3)).collect();
    let distribution = Plot {
        across: "percentile",
        up: "latency, ms",
        across_scale: Scale::Percentile,
        up_scale: Scale::Logarithmic,
        lines: vec![Line::new("latency", 1, curve)],
        limit: None,
    };
    let rates = vec![
        Line::new("delivered", 1, over(|m| Some(m.delivered_pps))),
        Line::new("expected", 2, over(|m| m.expected_pps)).dashed(),
    ];
    let latency = latency.into_iter().filter(told).collect();
    let rates = rates.into_iter().filter(told).collect();
    let mut cpu = vec![Line::new("generator", 4, over(|m| Some(100.0 * m.generator_cores)))];
    if outcome.server.is_some() {
        cpu.insert(0, Line::new("server", 3, over(|m| m.server_cores.map(|c| 100.0 * c))));
    }
    pairs(&[
        ("Latency over time", time("latency, ms", Scale::Logarithmic, latency, limit)),
        ("Latency distribution", distribution),
        ("Delivered and expected", time("packets/s", Scale::Linear, rates, None)),
        ("CPU", time("percent of a core", Scale::Linear, cpu, None)),
    ])
}

/// The p99 limit of objectives, ms.
fn p99_limit(slo: Option<&Slo>) -> Option<f64> {
    let mut objectives = slo?.objectives.iter();
    objectives.find(|objective| objective.figure == Figure::P99).map(|o| o.limit / 1e3)
}

fn pairs(plots: &[(&str, Plot)]) -> String {
    let all: String = plots
        .iter()
        .map(|(name, plot)| section("", name, &format!("{}{}", plot.legend(), plot.svg())))
        .collect();
    format!("<div class=\"pair\">{all}</div>\n")
}

fn tables(outcome: &Outcome) -> String {
    let row = |name: &str, times: &Percentiles| {
        let cells: String = [times.p50, times.p90, times.p99, times.p999, times.max]
            .map(|us| format!("<td>{}</td>", us.map_or_else(|| "–".into(), grouped)))
            .concat();
        let count = grouped(crate::series::float(times.count));
        format!("<tr><td>{}</td>{cells}<td>{count}</td></tr>", escaped(name))
    };
    let mut rows = row("latency", &outcome.latency_us);
    rows.push_str(&row("generator late", &outcome.generator.lateness_us));
    rows.push_str(&row("jitter", &outcome.findings.jitter_us));
    rows.extend(outcome.join.iter().map(|stage| row(&format!("join: {}", stage.stage), &stage.us)));
    let head = "<tr><th>µs</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th>\
                <th>count</th></tr>";
    let times = section(
        "wide",
        "Times",
        &format!("<div class=\"scroll\"><table>{head}{rows}</table></div>"),
    );
    let text = report::table_of_run(outcome);
    let text = format!(
        "<section class=\"wide\"><details><summary>As on the terminal</summary><pre>{}</pre>\
         </details></section>\n",
        escaped(&text),
    );
    let costs = section("wide", "Costs and counts", &format!("<dl>{}</dl>", costs(outcome)));
    costs + &times + &text
}

/// What the server cost, as names and texts.
fn server_costs(server: &Server) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let usage = &server.usage;
    all.push((
        "server CPU",
        format!(
            "{} ns per packet: {} user and {} system; {:.1} % of a core",
            nanoseconds(server.cpu_ns_per_packet),
            nanoseconds(server.user_ns_per_packet),
            nanoseconds(server.system_ns_per_packet),
            100.0 * server.cores,
        ),
    ));
    if let Some(thread) = &server.busiest_thread {
        all.push((
            "its busiest thread",
            format!(
                "{} ran {:.1} % of the time and waited {:.1} % for its core",
                thread.name,
                100.0 * thread.cores,
                100.0 * thread.waited,
            ),
        ));
    }
    all.push((
        "server memory",
        format!("{:.1} MiB resident", crate::series::float(usage.resident_bytes) / 1_048_576.0,),
    ));
    all.push((
        "context switches",
        format!(
            "{} voluntary, {} involuntary, over {} threads",
            usage.voluntary_switches, usage.involuntary_switches, usage.threads,
        ),
    ));
    all
}

/// What it cost, as entries of a list.
fn costs(outcome: &Outcome) -> String {
    let mut all = outcome.server.as_ref().map(server_costs).unwrap_or_default();
    if let Some(ratio) = outcome.server_says.as_ref().and_then(|says| says.segments_per_message) {
        all.push(("trains", format!("{ratio:.2} datagrams per message, by the server's metrics")));
    }
    if let Some(own) = outcome.server_says.as_ref().and_then(|says| says.latency_us) {
        let bound =
            |us: Option<f64>| us.map_or_else(|| "beyond".into(), |us| format!("{us:.0} µs"));
        let (p50, p90, p99) = (bound(own.p50), bound(own.p90), bound(own.p99));
        let text = format!("p50 {p50}, p90 {p90}, p99 {p99} from receive to send, by its metrics");
        all.push(("server's own latency", text));
    }
    let scenario = outcome.head.arguments.scenario;
    let found = outcome.findings.entries(scenario).into_iter();
    all.extend(found.map(|(name, said)| (name, said.trim_start().to_owned())));
    all.push((
        "generator CPU",
        format!(
            "{} ns per packet; {:.1} % of a core on {} threads",
            nanoseconds(outcome.generator.cpu_ns_per_packet),
            100.0 * outcome.generator.cores,
            outcome.generator.threads,
        ),
    ));
    let counts = &outcome.counts;
    all.push((
        "packets",
        format!(
            "{} expected, {} delivered, {} reordered, {} duplicates; {} streams silent, {} stopped",
            counts.expected,
            counts.delivered,
            counts.reordered,
            counts.duplicates,
            counts.silent_streams,
            counts.stopped_streams,
        ),
    ));
    if outcome.stolen_percent >= 0.1 {
        let text = format!("{:.1} % of the host's time", outcome.stolen_percent);
        all.push(("given to other guests", text));
    }
    let entry = |(name, value): &(&str, String)| {
        format!("<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value))
    };
    all.iter().map(entry).collect()
}

fn of_limit(limit: &Limit) -> String {
    let verdict = match (limit.limit_pps.is_some(), limit.lower_bound, limit.confirmed) {
        (false, ..) => ("bad", "no rate holds"),
        (true, true, _) => ("warn", "a lower bound"),
        (true, false, false) => ("warn", "not confirmed"),
        (true, false, true) => ("good", "held twice"),
    };
    let about = format!(
        "{} streams, {}; a rate holds when {}",
        limit.subscriptions,
        limit.protection.join(" + "),
        limit.objectives,
    );
    let mut all = vec![(
        limit.limit_pps.map_or_else(|| "–".to_owned(), grouped),
        "packets/s delivered at the limit".to_owned(),
    )];
    if let Some(bps) = limit.limit_bps {
        all.push((format!("{:.1}", bps / 1e6), "Mbit/s".to_owned()));
    }
    let held = |step: &&Step| step.holds && Some(step.multiple) == limit.limit_multiple;
    if let Some(step) = limit.steps.iter().rev().find(held) {
        all.push((format!("{:.3} %", step.loss_percent), "loss there".to_owned()));
        if let Some(p99) = step.p99_us {
            all.push((format!("{:.2} ms", p99 / 1e3), "latency there, p99".to_owned()));
        }
        if let Some(cpu) = step.server_ns_per_packet {
            all.push((format!("{:.2} µs", cpu / 1e3), "server CPU per packet there".to_owned()));
        }
    }
    let sentence = |line: &String| match line.trim().split_once("  ") {
        Some((name, text)) => item(&format!("{name}: {}", text.trim())),
        None => item(line.trim()),
    };
    let sentences: String = report::conclusion(limit).iter().map(sentence).collect();
    [
        header(&limit.head, verdict, &about),
        tiles(&all),
        section("wide", "What was found", &format!("<ul>{sentences}</ul>")),
        limit_plots(limit),
        steps(limit),
    ]
    .concat()
}

fn limit_plots(limit: &Limit) -> String {
    let dots = |holds: bool, value: fn(&Step) -> Option<f64>| -> Vec<(f64, f64)> {
        let steps = limit.steps.iter().filter(|step| step.holds == holds);
        steps.filter_map(|step| Some((step.expected_pps, value(step)?))).collect()
    };
    let plot = |up, up_scale, value: fn(&Step) -> Option<f64>, limit| Plot {
        across: "packets/s asked",
        up,
        across_scale: Scale::Linear,
        up_scale,
        lines: vec![
            Line::new("holds", 3, dots(true, value)).dots(),
            Line::new("breaks", 2, dots(false, value)).dots(),
        ],
        limit,
    };
    let objectives = &limit.head.arguments.limit;
    let loss = objectives.objectives.iter().find(|o| o.figure == Figure::Loss).map(|o| o.limit);
    pairs(&[
        (
            "Latency against rate",
            plot(
                "p99, ms",
                Scale::Logarithmic,
                |step| step.p99_us.map(|us| us / 1e3),
                p99_limit(Some(objectives)),
            ),
        ),
        ("Loss against rate", plot("percent lost", Scale::Linear, |s| Some(s.loss_percent), loss)),
        (
            "Delivered against rate",
            plot("packets/s", Scale::Linear, |step| Some(step.delivered_pps), None),
        ),
        (
            "Server CPU against rate",
            plot("ns per packet", Scale::Linear, |step| step.server_ns_per_packet, None),
        ),
    ])
}

fn steps(limit: &Limit) -> String {
    let known = |value: Option<f64>, unit: f64, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{:.digits$}", value / unit))
    };
    let row = |(number, step): (usize, &Step)| {
        let (class, word) = if step.holds { ("good", "holds") } else { ("bad", "breaks") };
        let reasons: Vec<_> = step.ran_out.iter().map(RanOut::words).collect();
        format!(
            "<tr><td>{number} {}</td><td>{}</td><td>{}</td><td>{:.3}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td><td>{:.0}</td><td class=\"{class}\">{word}</td>\
             <td class=\"words\">{}</td></tr>",
            step.phase.name(),
            grouped(step.expected_pps),
            grouped(step.delivered_pps),
            step.loss_percent,
            known(step.p50_us, 1e3, 2),
            known(step.p99_us, 1e3, 2),
            known(step.server_ns_per_packet, 1.0, 0),
            known(step.server_cores, 0.01, 0),
            100.0 * step.generator_cores,
            escaped(&reasons.join("; ")),
        )
    };
    let rows: String = (1..).zip(&limit.steps).map(row).collect();
    let head = "<tr><th>step</th><th>asked pps</th><th>delivered</th><th>loss %</th><th>p50 ms</th>\
                <th>p99 ms</th><th>ns/packet</th><th>server %</th><th>gen. %</th><th></th>\
                <th></th></tr>";
    section("wide", "Steps", &format!("<div class=\"scroll\"><table>{head}{rows}</table></div>"))
}

fn fingerprint(head: &Head) -> String {
    let host = &head.host;
    let list = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
    };
    let or = |text: &str, other: &str| if text.is_empty() { other.into() } else { text.to_owned() };
    let entries = [
        ("CPU", host.cpu.clone()),
        ("CPUs online", host.online_cpus.clone()),
        ("server may use", host.server_cpus.clone().unwrap_or_else(|| "unknown".into())),
        ("governor", host.governor.clone().unwrap_or_else(|| "not visible".into())),
        ("kernel", format!("Linux {}", host.kernel)),
        ("virtualisation", or(&host.virtualisation, "none seen")),
        ("mitigations", or(&list(&host.mitigations), "none needed")),
        ("sysctls", list(&host.sysctls)),
        ("load at start", host.load_average.clone()),
        ("load test", format!("{} at {}", head.version, head.commit)),
        ("scenarios", format!("version {}, seed {}", head.scenario_version, head.arguments.seed)),
    ];
    let entries: String = entries
        .iter()
        .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value)))
        .collect();
    let command = escaped(&head.command.join(" "));
    section("wide", "Command", &format!("<pre>{command}</pre>"))
        + &section("wide", "Taken on", &format!("<dl>{entries}</dl>"))
}

fn section(class: &str, name: &str, content: &str) -> String {
    format!("<section class=\"{class}\"><h2>{}</h2>{content}</section>\n", escaped(name))
}

fn item(text: &str) -> String {
    format!("<li>{}</li>", escaped(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::tests::{measured, outcome_of};

    #[test]
    fn a_page_asks_for_nothing_and_shows_what_it_was_given_escaped() {
        let mut outcome = outcome_of(measured(), |observed| {
            observed.failures.push("<script>alert(1)</script>".into());
        });
        outcome.head.command.push("--url=http://x/?a=1&b=<2>".into());
        let page = page(&Results::Run(Box::new(outcome)));
        for foreign in ["<script", "<link", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(page.contains("http://x/?a=1&amp;b=&lt;2&gt;"));
        assert!(page.contains("INVALID") && page.matches("<svg ").count() == 4);
        for tag in ["section", "table", "svg", "div", "dl", "tr"] {
            let opened = page.matches(&format!("<{tag}")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
