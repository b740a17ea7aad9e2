//! Prometheus text (exposition format 0.0.4).
//!
//! Values in, text out; only the process itself is looked at while writing. Names begin with
//! `ringcast_`, but for those that every program uses; counters end with `_total`, and units are
//! seconds and bytes.

use std::sync::atomic::Ordering;

use super::connections::ConnectionCounts;
use super::exposition::Text;
use super::http::RouteCounts;
use super::process::Process;
use super::shards;
use crate::control::{NodeView, Phase};
use crate::events::outlet::{OutletCounts, OutletView};
use crate::metrics::latency::LatencyCounts;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything about the node; `latencies` are of its shards, in order of their ids. It takes
/// milliseconds and reads `/proc`: not for the control thread.
#[must_use]
pub fn text(
    node: &NodeView,
    latencies: &[LatencyCounts],
    http: &[(String, &'static str, RouteCounts)],
    refusals: &[(&'static str, u64)],
) -> String {
    let mut out = Text::default();
    out.family("build_info", "gauge", "The version that runs; always 1.");
    out.line(&[("version", node.version)], 1);
    let help = "Time since the node started.";
    out.single("uptime_seconds", "gauge", help, node.uptime.as_secs_f64());
    let help = "1 while every shard turns, as /healthz says.";
    out.single("healthy", "gauge", help, u8::from(node.is_healthy()));
    let help = "1 while new calls are taken, as /readyz says.";
    out.single("ready", "gauge", help, u8::from(node.is_ready()));
    let help = "1 while the node makes no new rooms because it is to end.";
    out.single("draining", "gauge", help, u8::from(node.drain.state != Phase::Serving));
    alive(&mut out, node);
    joins(&mut out, node);
    commands(&mut out, node);
    requests(&mut out, http);
    let help = "Requests refused because a limit is reached, by limit.";
    out.family("api_refused_total", "counter", help);
    for (limit, count) in refusals {
        out.line(&[("limit", limit)], count);
    }
    for outlet in &node.outlets {
        outlet_counts(&mut out, outlet);
    }
    shards::shards(&mut out, &node.shards);
    shards::forward_latency(&mut out, latencies);
    process(&mut out, &Process::read());
    out.into_string()
}

/// About the API's connections, to be put behind [`text`].
#[must_use]
pub fn connections(counts: &ConnectionCounts) -> String {
    let mut out = Text::default();
    let (open, accepted) = counts.open_and_accepted();
    out.single("api_connections", "gauge", "Connections to the API that are open.", open);
    let help = "Connections to the API that were taken.";
    out.single("api_connections_total", "counter", help, accepted);
    let help = "Connections to the API that the server closed at once or for others, by reason.";
    out.family("api_connections_refused_total", "counter", help);
    for (reason, count) in counts.all_refused() {
        out.line(&[("reason", reason)], count);
    }
    let help = "What clients of the API took too long over.";
    out.family("api_timeouts_total", "counter", help);
    for (over, count) in counts.all_timed_out() {
        out.line(&[("over", over)], count);
    }
    if let Some(expires) = counts.expires() {
        let help = "When the API's certificate expires, in seconds since 1970.";
        out.single("tls_certificate_expires_timestamp_seconds", "gauge", help, expires);
    }
    out.into_string()
}

fn alive(out: &mut Text, node: &NodeView) {
    let totals = node.totals;
    out.single("rooms", "gauge", "Rooms.", totals.rooms);
    out.single("peers", "gauge", "Peers in rooms.", totals.peers);
    out.single("transports", "gauge", "Transports.", totals.transports);
    for (name, help, kinds) in [
        ("producers", "Producers.", totals.producers_by_kind),
        ("consumers", "Consumers.", totals.consumers_by_kind),
    ] {
        out.family(name, "gauge", help);
        out.line(&[("kind", "audio")], kinds.audio);
        out.line(&[("kind", "video")], kinds.video);
    }
    let help = "Readers of room events that are connected.";
    out.single("event_readers", "gauge", help, node.event_readers);
    let help = "Readers of room events disconnected because they were too slow.";
    out.single("event_readers_dropped_total", "counter", help, node.event_readers_dropped);
    let help = "Log lines let go because the log's reader did not keep up.";
    out.single("log_lines_lost_total", "counter", help, crate::log::lines_lost());
    out.family("room_events_total", "counter", "What happened in rooms, by type of event.");
    for (event, count) in node.counts.events() {
        out.line(&[("type", event)], count);
    }
}

fn joins(out: &mut Text, node: &NodeView) {
    let help = "How long stages of joining took: until the transport was made, then reached (ICE), \
        then keyed (DTLS), then the first packet of a producer came. Network and client included.";
    out.family("join_stage_seconds", "histogram", help);
    for (stage, buckets) in node.counts.stages() {
        out.histogram(&[("stage", stage.label())], buckets);
    }
    let help = "Transports that were given up in a stage of joining.";
    out.family("join_failures_total", "counter", help);
    for (stage, count) in node.counts.failures() {
        out.line(&[("stage", stage.label())], count);
    }
    let help = "Transports closed, by reason; those that ended with their room aside.";
    out.family("transports_closed_total", "counter", help);
    for (reason, count) in node.counts.closed() {
        out.line(&[("reason", reason)], count);
    }
}

fn commands(out: &mut Text, node: &NodeView) {
    let calls = node.calls;
    let help = "Commands that the control thread put into shards' lanes.";
    out.single("commands_total", "counter", help, calls.sent);
    let help = "Commands refused because a lane was full; whoever asked got 503.";
    out.single("commands_refused_total", "counter", help, calls.refused);
    let help = "Answers of shards that came when nobody waited any more.";
    out.single("commands_late_total", "counter", help, calls.late);
    let help = "Commands that wait for their answer.";
    out.single("commands_waiting", "gauge", help, calls.waiting);
}

fn requests(out: &mut Text, http: &[(String, &'static str, RouteCounts)]) {
    out.family("http_requests_total", "counter", "HTTP requests answered.");
    for (route, method, counts) in http {
        for (class, count) in counts.classes() {
            let status = format!("{class}xx");
            out.line(&[("route", route), ("method", method), ("status", &status)], count);
        }
    }
    let help = "Time to answer an HTTP request; of an event stream, until it began.";
    out.family("http_request_duration_seconds", "histogram", help);
    for (route, method, counts) in http {
        out.histogram(&[("route", route), ("method", method)], &counts.time);
    }
}

/// What became of the events that go to Kafka or a webhook.
fn outlet_counts(out: &mut Text, outlet: &OutletView) {
    let OutletView { name, counts } = outlet;
    for (counter, help, value) in counts.counters() {
        out.single(&format!("{name}_{counter}_total"), "counter", help, value);
    }
    let waiting = OutletCounts::of(&counts.waiting);
    let spooled = OutletCounts::of(&counts.spooled_bytes);
    let up = u64::from(counts.up.load(Ordering::Relaxed));
    for (gauge, help, value) in [
        ("waiting", "Messages accepted and neither delivered nor given up.", waiting),
        ("spooled_bytes", "Bytes of messages on disk.", spooled),
        ("up", "1 while the destination takes messages, 0 also before the first one.", up),
    ] {
        out.single(&format!("{name}_{gauge}"), "gauge", help, value);
    }
}

/// The families that every Prometheus client library has, by their usual names.
fn process(out: &mut Text, process: &Process) {
    let name = |name: &str| format!("process_{name}");
    let help = "User and system CPU time of all threads.";
    out.begin(name("cpu_seconds_total"), "counter", help);
    out.line(&[], process.cpu_seconds);
    if let Some(start) = process.start_seconds {
        out.begin(name("start_time_seconds"), "gauge", "When it started, since the Unix epoch.");
        out.line(&[], start);
    }
    for (gauge, help, value) in [
        ("resident_memory_bytes", "Memory in RAM.", process.resident_bytes),
        ("virtual_memory_bytes", "Address space.", process.virtual_bytes),
        ("open_fds", "Open file descriptors.", process.open_fds),
        ("max_fds", "Most file descriptors that may be open.", process.max_fds),
        ("threads", "Threads.", process.threads),
    ] {
        if let Some(value) = value {
            out.begin(name(gauge), "gauge", help);
            out.line(&[], value);
        }
    }
}
