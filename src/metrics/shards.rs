//! The part of the text that tells of shards: the only labels that grow with anything, which is the
//! number of cores.

use super::exposition::Text;
use super::latency::LatencyCounts;
use crate::control::ShardView;
use crate::engine::report::{Gauges, Report};

/// The shards that have reported, by their label.
type Known<'a> = [(String, &'a Report)];

/// Name, help and value of one family.
type Column = (String, &'static str, String);

pub(super) fn shards(out: &mut Text, shards: &[ShardView]) {
    let known: Vec<(String, &Report)> = shards
        .iter()
        .filter_map(|shard| Some((shard.shard.to_string(), shard.report.as_deref()?)))
        .collect();
    out.family("shard_up", "gauge", "1 while the shard turns.");
    for shard in shards {
        out.line(&[("shard", &shard.shard.to_string())], u8::from(shard.alive));
    }
    table(out, &known, "counter", counters);
    table(out, &known, "gauge", gauges);
    states(out, &known);
    histograms(out, &known);
    discards(out, &known);
}

/// How long forwarded packets took, of all shards, in order of their ids.
pub(super) fn forward_latency(out: &mut Text, latencies: &[LatencyCounts]) {
    let help = "From the kernel's receive time of a packet to the send call of each of its copies.";
    out.family("forward_latency_seconds", "histogram", help);
    for (shard, total) in latencies.iter().enumerate() {
        let of = [("shard", &*shard.to_string())];
        out.buckets(&of, total.buckets(), total.count(), total.sum_seconds());
    }
}

/// One family per value that `values` names, each with a line per shard.
fn table(out: &mut Text, known: &Known<'_>, kind: &str, values: impl Fn(&Report) -> Vec<Column>) {
    let columns: Vec<_> = known.iter().map(|(shard, report)| (shard, values(report))).collect();
    let Some((_, first)) = columns.first() else { return };
    for (position, (name, help, _)) in first.iter().enumerate() {
        out.family(name, kind, help);
        for (shard, values) in &columns {
            if let Some((_, _, value)) = values.get(position) {
                out.line(&[("shard", shard)], value);
            }
        }
    }
}

fn counters(report: &Report) -> Vec<Column> {
    let counters = report.counters.iter().chain(report.io.iter());
    let mut all: Vec<Column> = counters
        .map(|(name, help, value)| (format!("shard_{name}_total"), help, value.to_string()))
        .collect();
    let cpu = report.cpu.as_secs_f64().to_string();
    all.push(("shard_cpu_seconds_total".to_owned(), "CPU time of the shard's thread.", cpu));
    all
}

fn gauges(report: &Report) -> Vec<Column> {
    let gauges = report.gauges;
    let flag = |flag: bool| u8::from(flag).to_string();
    let columns = [
        (
            "busy_ratio",
            "Part of the last second that the shard was not waiting, 0 to 1.",
            report.busy.to_string(),
        ),
        (
            "on_glommio",
            "1 on glommio, 0 on a plain thread because io_uring is refused.",
            flag(report.on_glommio),
        ),
        (
            "steering",
            "1 when the kernel steers datagrams to their shards, 0 when shards hand them over.",
            flag(report.steering),
        ),
        ("producers", "Producers whose transports live here.", gauges.producers.to_string()),
        ("mirrors", "Mirrors of other shards' producers.", gauges.mirrors.to_string()),
        ("streams", "Incoming RTP streams, without mirrors'.", gauges.streams.to_string()),
        ("consumers", "Consumers.", gauges.consumers.to_string()),
        (
            "consumers_stopped",
            "Consumers that are sent nothing for want of bandwidth.",
            gauges.consumers_stopped.to_string(),
        ),
        (
            "estimated_bytes_per_second",
            "What all clients together can be sent, as estimated.",
            (gauges.estimate_bps / 8).to_string(),
        ),
        ("tuples", "Addresses of clients that ICE has validated.", gauges.tuples.to_string()),
        ("ring_bytes", "Memory of the packets kept for repair.", gauges.ring_bytes.to_string()),
    ];
    columns.into_iter().map(|(name, help, value)| (format!("shard_{name}"), help, value)).collect()
}

fn states(out: &mut Text, known: &Known<'_>) {
    let help = "Transports by state: not reached yet, reached, with keys, without an address left.";
    out.family("shard_transports", "gauge", help);
    for (shard, report) in known {
        let Gauges {
            transports_new,
            transports_connecting,
            transports_connected,
            transports_disconnected,
            ..
        } = report.gauges;
        for (state, count) in [
            ("new", transports_new),
            ("connecting", transports_connecting),
            ("connected", transports_connected),
            ("disconnected", transports_disconnected),
        ] {
            out.line(&[("shard", shard), ("state", state)], count);
        }
    }
}

fn histograms(out: &mut Text, known: &Known<'_>) {
    let help = "How long a turn of the shard took: from its beginning to the next wait or turn.";
    out.family("shard_turn_seconds", "histogram", help);
    for (shard, report) in known {
        out.histogram(&[("shard", shard)], &report.turns);
    }
    let help = "What each transport can be sent, as estimated, looked at once a second.";
    out.family("shard_transport_estimate_bytes_per_second", "histogram", help);
    for (shard, report) in known {
        out.histogram(&[("shard", shard)], &report.gauges.estimates);
    }
    // Datagrams per message: what segmentation by the kernel saves.
    let help = "Datagrams of each message given to the kernel.";
    out.family("shard_train_segments", "histogram", help);
    for (shard, report) in known {
        let (mut count, mut sum) = (0, 0);
        let buckets: Vec<_> = report
            .trains
            .iter()
            .map(|(segments, messages)| {
                count += messages;
                sum += segments as u64 * messages;
                (segments, count)
            })
            .collect();
        out.buckets(&[("shard", shard)], buckets.into_iter(), count, sum);
    }
}

fn discards(out: &mut Text, known: &Known<'_>) {
    let help = "Datagrams and packets that were let go, by reason.";
    out.family("shard_discards_total", "counter", help);
    for (shard, report) in known {
        for (reason, count) in report.discards.iter() {
            out.line(&[("shard", shard), ("reason", reason)], count);
        }
    }
}
