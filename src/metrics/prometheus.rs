//! Prometheus text (exposition format 0.0.4).
//!
//! Pure: values in, text out. Names begin with `ringcast_`; counters end with `_total`.

use std::fmt::{Display, Write};

use super::HttpCounts;
use crate::control::{NodeView, ShardView};
use crate::engine::report::Report;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything about the node.
#[must_use]
pub fn text(node: &NodeView, http: &HttpCounts) -> String {
    let mut out = Text::default();
    out.family("build_info", "gauge");
    out.line("build_info", &[("version", node.version)], 1);
    let totals = node.totals;
    for (name, value) in [
        ("rooms", totals.rooms),
        ("peers", totals.peers),
        ("transports", totals.transports),
        ("producers", totals.producers),
        ("consumers", totals.consumers),
        ("event_readers", node.event_readers),
    ] {
        out.family(name, "gauge");
        out.line(name, &[], value);
    }
    out.family("uptime_seconds", "gauge");
    out.line("uptime_seconds", &[], node.uptime.as_secs_f64());
    out.family("http_requests_total", "counter");
    for (route, class, count) in http.all() {
        let status = format!("{class}xx");
        out.line("http_requests_total", &[("route", &route), ("status", &status)], count);
    }
    shards(&mut out, &node.shards);
    out.0
}

fn shards(out: &mut Text, shards: &[ShardView]) {
    let known: Vec<(String, &Report)> = shards
        .iter()
        .filter_map(|shard| Some((shard.shard.to_string(), shard.report.as_deref()?)))
        .collect();
    out.family("shard_up", "gauge");
    for shard in shards {
        out.line("shard_up", &[("shard", &shard.shard.to_string())], u8::from(shard.alive));
    }
    out.family("shard_busy_ratio", "gauge");
    out.family_lines("shard_busy_ratio", &known, |report| report.busy);
    out.family("shard_on_glommio", "gauge");
    out.family_lines("shard_on_glommio", &known, |report| u8::from(report.on_glommio));
    out.family("shard_steering", "gauge");
    out.family_lines("shard_steering", &known, |report| u8::from(report.steering));
    out.table(&known, "counter", |report| {
        let counters = report.counters.iter().chain(report.io.iter());
        counters.map(|(name, value)| (format!("shard_{name}_total"), value)).collect()
    });
    out.table(&known, "gauge", gauges);
    trains(out, &known);
    out.family("shard_discards_total", "counter");
    for (shard, report) in &known {
        for (reason, count) in report.discards.iter() {
            let labels = [("shard", shard.as_str()), ("reason", reason)];
            out.line("shard_discards_total", &labels, count);
        }
    }
}

/// Datagrams per message: what segmentation by the kernel saves.
fn trains(out: &mut Text, shards: &[(String, &Report)]) {
    out.family("shard_train_segments", "histogram");
    for (shard, report) in shards {
        let (mut count, mut sum) = (0, 0);
        for (segments, messages) in report.trains.iter() {
            count += messages;
            sum += segments as u64 * messages;
            let labels = [("shard", shard.as_str()), ("le", &segments.to_string())];
            out.line("shard_train_segments_bucket", &labels, count);
        }
        let shard = ("shard", shard.as_str());
        out.line("shard_train_segments_bucket", &[shard, ("le", "+Inf")], count);
        out.line("shard_train_segments_sum", &[shard], sum);
        out.line("shard_train_segments_count", &[shard], count);
    }
}

fn gauges(report: &Report) -> Vec<(String, u64)> {
    let gauges = report.gauges;
    [
        ("transports", gauges.transports),
        ("transports_connected", gauges.transports_connected),
        ("producers", gauges.producers),
        ("mirrors", gauges.mirrors),
        ("streams", gauges.streams),
        ("consumers", gauges.consumers),
        ("tuples", gauges.tuples),
        ("ring_bytes", gauges.ring_bytes),
    ]
    .into_iter()
    .map(|(name, value)| (format!("shard_{name}"), u64::try_from(value).unwrap_or(u64::MAX)))
    .collect()
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str) {
        self.write(format_args!("# TYPE ringcast_{name} {kind}\n"));
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.write(format_args!("ringcast_{name}"));
        for (position, (label, text)) in labels.iter().enumerate() {
            let open = if position == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.write(format_args!("{open}{label}=\"{text}\""));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        self.write(format_args!("{close} {value}\n"));
    }

    fn family_lines<V: Display>(
        &mut self,
        name: &str,
        shards: &[(String, &Report)],
        value: impl Fn(&Report) -> V,
    ) {
        for (shard, report) in shards {
            self.line(name, &[("shard", shard)], value(report));
        }
    }

    /// One family per value that `values` names, each with a line per shard.
    fn table(
        &mut self,
        shards: &[(String, &Report)],
        kind: &str,
        values: impl Fn(&Report) -> Vec<(String, u64)>,
    ) {
        let columns: Vec<_> =
            shards.iter().map(|(shard, report)| (shard, values(report))).collect();
        let Some((_, first)) = columns.first() else { return };
        for (position, (name, _)) in first.iter().enumerate() {
            self.family(name, kind);
            for (shard, values) in &columns {
                if let Some((name, value)) = values.get(position) {
                    self.line(name, &[("shard", shard)], value);
                }
            }
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into a string does not fail.
        let _ = self.0.write_fmt(text);
    }
}
