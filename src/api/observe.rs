//! Counts every request by route and status.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::limits::Limit;
use crate::metrics::HttpCounts;

/// What the API counts about itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed {
    pub(super) http: Arc<HttpCounts>,
}

/// Counts one request, and the limit that it was refused for; what matches no route is one route, so that strangers add no labels.
pub(super) async fn observe(
    State(observed): State<Observed>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    if let Some(limit) = response.extensions().get::<Limit>() {
        observed.http.refuse(*limit);
    }
    observed.http.add(route, response.status().as_u16());
    response
}
