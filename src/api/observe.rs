//! Counts every request by route, method and status, and times it.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::limits::Limit;
use crate::metrics::connections::ConnectionCounts;
use crate::metrics::{HttpCounts, Refusals};

/// What the API counts about itself.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) http: Arc<HttpCounts>,
    pub(super) refusals: Arc<Refusals>,
    pub(super) connections: Arc<ConnectionCounts>,
    /// Metrics are written by one request at a time: each takes some milliseconds of a core.
    pub(super) scrapes: Arc<Semaphore>,
}

impl Observed {
    pub(super) fn new(connections: Arc<ConnectionCounts>) -> Self {
        Self {
            http: Arc::default(),
            refusals: Arc::default(),
            connections,
            scrapes: Arc::new(Semaphore::new(1)),
        }
    }
}

/// Counts one request, and the limit that it was refused for; what matches no route is one route,
/// so that strangers add no labels.
pub(super) async fn observe(
    State(observed): State<Observed>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let begun = Instant::now();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    if let Some(limit) = response.extensions().get::<Limit>() {
        observed.refusals.add(*limit);
    }
    observed.http.add(route, method.as_str(), response.status().as_u16(), begun.elapsed());
    response
}
