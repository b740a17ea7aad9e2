//! What machines and operators ask: health, readiness, metrics, status.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, Code, Failure};
use super::observe::Observed;
use super::reply::{Answer, Done, Success, ok};
use crate::control::{Control, ShardView};
use crate::metrics::prometheus;

/// Every shard turned within 2 seconds.
#[utoipa::path(get, path = "/healthz",
    operation_id = "healthz", tag = "operators", responses(
    (status = 200, body = Success<Done>), (status = 503, body = Failure)))]
pub(super) async fn healthy(State(control): State<Control>) -> Answer {
    if control.node().is_healthy() {
        ok(Done::YES)
    } else {
        Err(ApiError::new(Code::Overloaded, "a shard does not turn"))
    }
}

/// Healthy, not stopping, not overloaded.
#[utoipa::path(get, path = "/readyz",
    operation_id = "readyz", tag = "operators", responses(
    (status = 200, body = Success<Done>), (status = 503, body = Failure)))]
pub(super) async fn ready(State(control): State<Control>) -> Answer {
    if control.node().is_ready() {
        ok(Done::YES)
    } else {
        Err(ApiError::new(Code::Overloaded, "not ready for more"))
    }
}

/// Prometheus text.
#[utoipa::path(get, path = "/metrics",
    operation_id = "metrics", tag = "operators", responses(
    (status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn metrics(
    State(control): State<Control>,
    State(observed): State<Observed>,
) -> Response {
    let text = prometheus::text(&control.node(), &observed.http);
    (StatusCode::OK, [(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], text).into_response()
}

/// The node, its shards and their load.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    version: &'static str,
    uptime_seconds: u64,
    healthy: bool,
    ready: bool,
    rooms: usize,
    peers: usize,
    transports: usize,
    producers: usize,
    consumers: usize,
    event_readers: usize,
    shards: Vec<ShardStatus>,
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
    /// Mirrors of producers of other shards.
    mirrors: usize,
    consumers: usize,
    packets_in: u64,
    packets_out: u64,
}

impl From<&ShardView> for ShardStatus {
    fn from(view: &ShardView) -> Self {
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
            mirrors: gauges.mirrors,
            consumers: gauges.consumers,
            packets_in: counters.packets_in,
            packets_out: counters.packets_out,
        }
    }
}

/// The node, its shards and their load.
#[utoipa::path(get, path = "/admin/status",
    operation_id = "adminStatus", tag = "operators", responses(
    (status = 200, body = Success<Status>)))]
pub(super) async fn status(State(control): State<Control>) -> Answer {
    let node = control.node();
    ok(Status {
        version: node.version,
        uptime_seconds: node.uptime.as_secs(),
        healthy: node.is_healthy(),
        ready: node.is_ready(),
        rooms: node.totals.rooms,
        peers: node.totals.peers,
        transports: node.totals.transports,
        producers: node.totals.producers,
        consumers: node.totals.consumers,
        event_readers: node.event_readers,
        shards: node.shards.iter().map(ShardStatus::from).collect(),
    })
}
