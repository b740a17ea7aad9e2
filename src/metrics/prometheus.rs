//! Prometheus text (exposition format 0.0.4).
//!
//! Pure: values in, text out. Names begin with `ringcast_`; counters end with `_total`.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use super::HttpCounts;
use crate::control::{LatencyView, NodeView, Phase, ShardView};
use crate::engine::report::Report;
use crate::events::outlet::{OutletCounts, OutletView};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything about the node; `latencies` are of its shards, in order of their ids.
#[must_use]
pub fn text(node: &NodeView, latencies: &[LatencyView], http: &HttpCounts) -> String {
    let mut out = Text::default();
    out.family("build_info", "gauge", "The version that runs; always 1.");
    out.line("build_info", &[("version", node.version)], 1);
    let totals = node.totals;
    for (name, help, value) in [
        ("rooms", "Rooms.", totals.rooms),
        ("peers", "Peers in rooms.", totals.peers),
        ("transports", "Transports.", totals.transports),
        ("producers", "Producers.", totals.producers),
        ("consumers", "Consumers.", totals.consumers),
        ("event_readers", "Readers of room events that are connected.", node.event_readers),
    ] {
        out.family(name, "gauge", help);
        out.line(name, &[], value);
    }
    out.family("draining", "gauge", "1 while the node makes no new rooms because it is to end.");
    out.line("draining", &[], u8::from(node.drain.state != Phase::Serving));
    out.family("uptime_seconds", "gauge", "Time since the node started.");
    out.line("uptime_seconds", &[], node.uptime.as_secs_f64());
    out.family("http_requests_total", "counter", "HTTP requests answered.");
    for (route, class, count) in http.all() {
        let status = format!("{class}xx");
        out.line("http_requests_total", &[("route", &route), ("status", &status)], count);
    }
    out.family("api_refused_total", "counter", "Requests refused because a limit is reached.");
    for (limit, count) in http.refused() {
        out.line("api_refused_total", &[("limit", limit)], count);
    }
    for outlet in &node.outlets {
        outlet_counts(&mut out, outlet);
    }
    shards(&mut out, &node.shards);
    forward_latency(&mut out, latencies);
    out.0
}

fn shards(out: &mut Text, shards: &[ShardView]) {
    let known: Vec<(String, &Report)> = shards
        .iter()
        .filter_map(|shard| Some((shard.shard.to_string(), shard.report.as_deref()?)))
        .collect();
    out.family("shard_up", "gauge", "1 while the shard turns.");
    for shard in shards {
        out.line("shard_up", &[("shard", &shard.shard.to_string())], u8::from(shard.alive));
    }
    let help = "Part of the last second that the shard was not waiting, 0 to 1.";
    out.family("shard_busy_ratio", "gauge", help);
    out.family_lines("shard_busy_ratio", &known, |report| report.busy);
    let help = "1 on glommio, 0 on a plain thread because io_uring is refused.";
    out.family("shard_on_glommio", "gauge", help);
    out.family_lines("shard_on_glommio", &known, |report| u8::from(report.on_glommio));
    let help = "1 when the kernel steers datagrams to their shards, 0 when shards hand them over.";
    out.family("shard_steering", "gauge", help);
    out.family_lines("shard_steering", &known, |report| u8::from(report.steering));
    out.table(&known, "counter", |report| {
        let counters = report.counters.iter().chain(report.io.iter());
        counters.map(|(name, help, value)| (format!("shard_{name}_total"), help, value)).collect()
    });
    out.table(&known, "gauge", gauges);
    let help = "What all clients together can be sent, in bits/s, as estimated.";
    out.family("shard_estimate_bps", "gauge", help);
    out.family_lines("shard_estimate_bps", &known, |report| report.gauges.estimate_bps);
    trains(out, &known);
    let help = "Datagrams and packets that were let go, by reason.";
    out.family("shard_discards_total", "counter", help);
    for (shard, report) in &known {
        for (reason, count) in report.discards.iter() {
            let labels = [("shard", shard.as_str()), ("reason", reason)];
            out.line("shard_discards_total", &labels, count);
        }
    }
}

/// What became of the events that go to Kafka or a webhook.
fn outlet_counts(out: &mut Text, outlet: &OutletView) {
    let OutletView { name, counts } = outlet;
    for (counter, help, value) in counts.counters() {
        let family = format!("{name}_{counter}_total");
        out.family(&family, "counter", help);
        out.line(&family, &[], value);
    }
    let waiting = OutletCounts::of(&counts.waiting);
    let spooled = OutletCounts::of(&counts.spooled_bytes);
    let up = u64::from(counts.up.load(Ordering::Relaxed));
    for (gauge, help, value) in [
        ("waiting", "Messages accepted and neither delivered nor given up.", waiting),
        ("spooled_bytes", "Bytes of messages on disk.", spooled),
        ("up", "1 while the destination takes messages, 0 also before the first one.", up),
    ] {
        let family = format!("{name}_{gauge}");
        out.family(&family, "gauge", help);
        out.line(&family, &[], value);
    }
}

fn forward_latency(out: &mut Text, latencies: &[LatencyView]) {
    let help = "From the kernel's receive time of a packet to the send call of each of its copies.";
    out.family("forward_latency_seconds", "histogram", help);
    for (shard, latency) in latencies.iter().enumerate() {
        let shard = shard.to_string();
        let total = &latency.total;
        let (name, of) = ("forward_latency_seconds_bucket", ("shard", shard.as_str()));
        for (bound, count) in total.buckets() {
            out.line(name, &[of, ("le", &bound.to_string())], count);
        }
        out.line(name, &[of, ("le", "+Inf")], total.count());
        out.line("forward_latency_seconds_sum", &[of], total.sum_seconds());
        out.line("forward_latency_seconds_count", &[of], total.count());
    }
}

/// Datagrams per message: what segmentation by the kernel saves.
fn trains(out: &mut Text, shards: &[(String, &Report)]) {
    let help = "Datagrams of each message given to the kernel.";
    out.family("shard_train_segments", "histogram", help);
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

fn gauges(report: &Report) -> Vec<(String, &'static str, u64)> {
    let gauges = report.gauges;
    [
        ("transports", "Transports.", gauges.transports),
        (
            "transports_connected",
            "Transports whose DTLS is connected.",
            gauges.transports_connected,
        ),
        ("producers", "Producers whose transports live here.", gauges.producers),
        ("mirrors", "Mirrors of other shards' producers.", gauges.mirrors),
        ("streams", "Incoming RTP streams, without mirrors'.", gauges.streams),
        ("consumers", "Consumers.", gauges.consumers),
        (
            "consumers_stopped",
            "Consumers that are sent nothing for want of bandwidth.",
            gauges.consumers_stopped,
        ),
        ("tuples", "Addresses of clients that ICE has validated.", gauges.tuples),
        ("ring_bytes", "Memory of the packets kept for repair.", gauges.ring_bytes),
    ]
    .into_iter()
    .map(|(name, help, value)| {
        (format!("shard_{name}"), help, u64::try_from(value).unwrap_or(u64::MAX))
    })
    .collect()
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.trim();
        self.write(format_args!("# HELP ringcast_{name} {help}\n# TYPE ringcast_{name} {kind}\n"));
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
        values: impl Fn(&Report) -> Vec<(String, &'static str, u64)>,
    ) {
        let columns: Vec<_> =
            shards.iter().map(|(shard, report)| (shard, values(report))).collect();
        let Some((_, first)) = columns.first() else { return };
        for (position, (name, help, _)) in first.iter().enumerate() {
            self.family(name, kind, help);
            for (shard, values) in &columns {
                if let Some((name, _, value)) = values.get(position) {
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
