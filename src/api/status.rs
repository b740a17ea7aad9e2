//! What operators ask: the node at one moment.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::reply::{Answer, Success, ok};
use crate::control::{Control, DrainView, LatencyView, ShardView};
use crate::metrics::latency::LatencySummary;

/// The node, its shards and their load.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    version: &'static str,
    uptime_seconds: u64,
    healthy: bool,
    ready: bool,
    /// Whether it takes new calls, and how far a drain is.
    drain: DrainView,
    rooms: usize,
    peers: usize,
    transports: usize,
    producers: usize,
    consumers: usize,
    event_readers: usize,
    /// All shards' together.
    forward_latency: ForwardLatency,
    shards: Vec<ShardStatus>,
}

/// How long forwarded packets took from the kernel's receive time to the send call, repairs aside.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ForwardLatency {
    last_10_seconds: Latencies,
    since_start: Latencies,
}

impl From<&LatencyView> for ForwardLatency {
    fn from(view: &LatencyView) -> Self {
        Self {
            last_10_seconds: view.recent.summary().into(),
            since_start: view.total.summary().into(),
        }
    }
}

/// Quantiles in microseconds, within 1 %; all 0 when no packet was forwarded.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Latencies {
    /// Packets forwarded.
    count: u64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    /// The 99.9th percentile.
    p999_us: u64,
    max_us: u64,
}

impl From<LatencySummary> for Latencies {
    fn from(summary: LatencySummary) -> Self {
        let LatencySummary { count, p50_us, p90_us, p99_us, p999_us, max_us } = summary;
        Self { count, p50_us, p90_us, p99_us, p999_us, max_us }
    }
}

/// One shard and its load.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShardStatus {
    shard: u16,
    /// Turned within 2 seconds.
    alive: bool,
    /// Part of the last second that it was not waiting, 0–1.
    busy: f64,
    /// On glommio; false: on a plain thread because `io_uring` is refused.
    on_glommio: bool,
    /// The kernel steers datagrams to their shard; false: shards hand them to each other, because
    /// there is one, `--steer off` is set, or BPF is refused.
    steering: bool,
    /// That started here.
    rooms: usize,
    transports: usize,
    transports_connected: usize,
    /// Whose transports live here.
    producers: usize,
    /// Incoming RTP streams: one for each encoding of each producer.
    streams: usize,
    /// Mirrors of producers of other shards.
    mirrors: usize,
    consumers: usize,
    /// Addresses of clients that ICE has validated.
    tuples: usize,
    /// Memory of the packets kept for repair.
    ring_bytes: usize,
    packets_in: u64,
    packets_out: u64,
    forward_latency: ForwardLatency,
}

impl ShardStatus {
    fn new(view: &ShardView, latency: &LatencyView) -> Self {
        let report = view.report.as_deref();
        let gauges = report.map(|report| report.gauges).unwrap_or_default();
        let counters = report.map(|report| report.counters).unwrap_or_default();
        Self {
            shard: view.shard.0,
            alive: view.alive,
            busy: report.map_or(0.0, |report| report.busy),
            on_glommio: report.is_some_and(|report| report.on_glommio),
            steering: report.is_some_and(|report| report.steering),
            rooms: view.census.rooms,
            transports: view.census.transports,
            transports_connected: gauges.transports_connected,
            producers: gauges.producers,
            streams: gauges.streams,
            mirrors: gauges.mirrors,
            consumers: gauges.consumers,
            tuples: gauges.tuples,
            ring_bytes: gauges.ring_bytes,
            packets_in: counters.packets_in,
            packets_out: counters.packets_out,
            forward_latency: latency.into(),
        }
    }
}

/// The node, its shards and their load.
#[utoipa::path(get, path = "/admin/status",
    operation_id = "adminStatus", tag = "operators", responses(
    (status = 200, body = Success<Status>)))]
pub(super) async fn status(State(control): State<Control>) -> Answer {
    let (node, latencies) = (control.node(), control.latencies());
    let shards = node.shards.iter().zip(&latencies);
    ok(Status {
        version: node.version,
        uptime_seconds: node.uptime.as_secs(),
        healthy: node.is_healthy(),
        ready: node.is_ready(),
        drain: node.drain.clone(),
        rooms: node.totals.rooms,
        peers: node.totals.peers,
        transports: node.totals.transports,
        producers: node.totals.producers,
        consumers: node.totals.consumers,
        event_readers: node.event_readers,
        forward_latency: (&LatencyView::merged(&latencies)).into(),
        shards: shards.map(|(view, latency)| ShardStatus::new(view, latency)).collect(),
    })
}
