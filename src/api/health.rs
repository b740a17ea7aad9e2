//! What machines ask: health, readiness, metrics.

use std::sync::Arc;
use std::thread::Builder;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rustix::process::nice;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::error::{ApiError, Code, Failure};
use super::observe::Observed;
use super::reply::{Answer, Done, Success, ok};
use crate::control::{Control, Phase};
use crate::limits::{BEHIND_CALLS_NICE, METRICS_REST, METRICS_REST_MAX};
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

/// Healthy, neither draining nor stopping, not overloaded.
#[utoipa::path(get, path = "/readyz",
    operation_id = "readyz", tag = "operators", responses(
    (status = 200, body = Success<Done>), (status = 503, body = Failure)))]
pub(super) async fn ready(State(control): State<Control>) -> Answer {
    let node = control.node();
    if node.is_ready() {
        return ok(Done::YES);
    }
    match node.drain.state {
        Phase::Serving => Err(ApiError::new(Code::Overloaded, "not ready for more")),
        Phase::Draining => Err(ApiError::new(Code::Draining, "draining: no new rooms")),
        Phase::Stopping => Err(ApiError::new(Code::Draining, "stopping")),
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
    // Never closed: whoever asks while another is answered waits.
    let turn = Arc::clone(&observed.scrapes).acquire_owned().await;
    let (node, latencies) = (control.node(), control.latency_totals());
    let (http, refusals) = (observed.http.all(), observed.refusals.all());
    let connections = Arc::clone(&observed.connections);
    let (tell, told) = oneshot::channel();
    let runtime = Handle::current();
    let started = Builder::new().name("metrics".to_owned()).spawn(move || {
        // Refused, it is as urgent as calls are.
        let _ = nice(BEHIND_CALLS_NICE);
        let begun = Instant::now();
        let text = prometheus::text(&node, &latencies, &http, &refusals)
            + &prometheus::connections(&connections);
        let rest = (begun.elapsed() * METRICS_REST).min(METRICS_REST_MAX);
        // Whoever asked may be gone.
        let _ = tell.send(text);
        // One who asks without end has a share of a core that media can spare.
        runtime.spawn(async move {
            sleep(rest).await;
            drop(turn);
        });
    });
    let written = match started {
        Ok(_) => told.await.ok(),
        Err(error) => {
            tracing::warn!(%error, "no thread to write metrics");
            None
        }
    };
    match written {
        Some(text) => (StatusCode::OK, [(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], text)
            .into_response(),
        None => ApiError::new(Code::Overloaded, "not now").into_response(),
    }
}
