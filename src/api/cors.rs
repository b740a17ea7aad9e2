//! Who may call from a browser.

use std::io;

use axum::http::header::{ETAG, LINK, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use crate::limits::CORS_MAX_AGE;

/// What may be sent to PATCH (RFC 5789 §3.1).
pub(super) const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// Credentials are allowed; the origin is reflected when it is one of `origins`, or when none is
/// configured (as the replaced service does). Scripts may read the headers that WHIP answers with.
///
/// # Errors
/// When an origin cannot stand in a header.
pub fn layer(origins: &[String]) -> io::Result<CorsLayer> {
    let allowed = if origins.is_empty() {
        AllowOrigin::mirror_request()
    } else {
        let list: Result<Vec<HeaderValue>, _> =
            origins.iter().map(|origin| origin.trim_end_matches('/').parse()).collect();
        AllowOrigin::list(list.map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "a CORS origin is no header value")
        })?)
    };
    Ok(CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([LOCATION, ETAG, LINK, ACCEPT_PATCH, RETRY_AFTER, WWW_AUTHENTICATE])
        .max_age(CORS_MAX_AGE)
        .allow_credentials(true))
}
