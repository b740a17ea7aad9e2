//! What operators ask: the node at one moment.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::reply::{Answer, Success, ok};
use crate::control::addresses::MediaAddresses;
use crate::control::{Control, DrainView, LatencyView, NodeView, ShardView};
use crate::events::outlet::{OutletCounts, OutletView};
use crate::metrics::latency::{BUCKETS_US, LatencyCounts, LatencySummary};

/// The node, its shards and their load.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    version: &'static str,
    /// What the node's clock says, ISO 8601.
    time: String,
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
    /// Where clients are told to send media to.
    media: Media,
    /// Where room events go beside their readers.
    outlets: Vec<Outlet>,
    /// Datagrams and packets that were let go since the start, by reason, where there were any.
    discards: BTreeMap<&'static str, u64>,
    /// All shards' together.
    forward_latency: ForwardLatency,
    /// The same, by length.
    latency_histogram: LatencyHistogram,
    shards: Vec<ShardStatus>,
}

/// Where clients are told to send media to.
#[derive(Debug, Serialize, ToSchema)]
struct Media {
    addresses: Vec<String>,
    port: u16,
    udp: bool,
    tcp: bool,
}

impl From<MediaAddresses> for Media {
    fn from(media: MediaAddresses) -> Self {
        let MediaAddresses { addresses, port, udp, tcp } = media;
        Self { addresses, port, udp, tcp }
    }
}

/// Kafka or a webhook, and what became of its messages.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Outlet {
    name: &'static str,
    /// It takes messages; false also before the first one.
    up: bool,
    waiting: u64,
    delivered: u64,
    /// Refused by the destination for good.
    failed: u64,
    lost: u64,
    /// Not accepted: its queue was full.
    refused: u64,
    spooled_bytes: u64,
}

impl From<&OutletView> for Outlet {
    fn from(OutletView { name, counts }: &OutletView) -> Self {
        Self {
            name,
            up: counts.up.load(Ordering::Relaxed),
            waiting: OutletCounts::of(&counts.waiting),
            delivered: OutletCounts::of(&counts.delivered),
            failed: OutletCounts::of(&counts.failed),
            lost: OutletCounts::of(&counts.lost),
            refused: OutletCounts::of(&counts.refused),
            spooled_bytes: OutletCounts::of(&counts.spooled_bytes),
        }
    }
}

/// Packets forwarded, by how long they took; what took longer than all bounds comes last.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LatencyHistogram {
    /// In microseconds.
    bounds_us: Vec<u64>,
    last_10_seconds: Vec<u64>,
    since_start: Vec<u64>,
}

impl From<&LatencyView> for LatencyHistogram {
    fn from(view: &LatencyView) -> Self {
        let apart = |counts: &LatencyCounts| {
            let up_to = counts.buckets().map(|(_, count)| count).chain([counts.count()]);
            let each = up_to.scan(0, |before, count| {
                let more = count.saturating_sub(*before);
                *before = count;
                Some(more)
            });
            each.collect()
        };
        Self {
            bounds_us: BUCKETS_US.to_vec(),
            last_10_seconds: apart(&view.recent),
            since_start: apart(&view.total),
        }
    }
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
    bytes_in: u64,
    bytes_out: u64,
    /// What all its clients together can be sent, in bits/s, as estimated.
    estimate_bps: u64,
    /// Consumers that are sent nothing for want of bandwidth.
    consumers_stopped: usize,
    turns: u64,
    /// CPU time of its thread.
    cpu_ns: u64,
    /// Datagrams given to the shards that own them.
    handed_off: u64,
    /// Datagrams taken over from other shards.
    taken_over: u64,
    /// Datagrams lost on their way to the shards that own them.
    handoff_dropped: u64,
    /// Datagrams and packets that were let go, for any reason.
    discarded: u64,
    /// Packets not sent because they had waited too long for their turn.
    shed: u64,
    /// Datagrams that the kernel dropped before they were read.
    kernel_dropped: u64,
    forward_latency: ForwardLatency,
}

impl ShardStatus {
    fn new(view: &ShardView, latency: &LatencyView) -> Self {
        let report = view.report.as_deref();
        let gauges = report.map(|report| report.gauges).unwrap_or_default();
        let counters = report.map(|report| report.counters).unwrap_or_default();
        let io = report.map(|report| report.io).unwrap_or_default();
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
            bytes_in: counters.bytes_in,
            bytes_out: counters.bytes_out,
            estimate_bps: gauges.estimate_bps,
            consumers_stopped: gauges.consumers_stopped,
            turns: io.turns,
            cpu_ns: report.map_or(0, |report| nanoseconds(report.cpu)),
            handed_off: io.handed_off,
            taken_over: io.taken_over,
            handoff_dropped: io.handoff_dropped,
            discarded: report.map_or(0, |report| report.discards.iter().map(|(_, n)| n).sum()),
            shed: counters.shed_audio + counters.shed_video,
            kernel_dropped: io.kernel_dropped,
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
    let all = LatencyView::merged(&latencies);
    ok(Status {
        version: node.version,
        time: node.time.clone(),
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
        discards: discards(&node),
        outlets: node.outlets.iter().map(Outlet::from).collect(),
        media: node.media.clone().into(),
        forward_latency: (&all).into(),
        latency_histogram: (&all).into(),
        shards: shards.map(|(view, latency)| ShardStatus::new(view, latency)).collect(),
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Of all shards, by reason.
fn discards(node: &NodeView) -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    for report in node.shards.iter().filter_map(|shard| shard.report.as_deref()) {
        for (reason, count) in report.discards.iter().filter(|(_, count)| *count > 0) {
            *all.entry(reason).or_default() += count;
        }
    }
    all
}
