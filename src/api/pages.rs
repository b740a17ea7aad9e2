//! Pages for people, embedded in the binary: they load nothing from anywhere else.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// Scripts, styles and connections from here only; nothing inline, nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// What a page of a call may use of its device.
const PERMISSIONS: &str = "camera=(self), microphone=(self), display-capture=(self), \
    speaker-selection=(self)";

fn page(media_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version of the server has another page.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    let permissions = [("permissions-policy", PERMISSIONS)];
    (headers, permissions, text).into_response()
}

/// A page to call others from: type a room and a name.
#[utoipa::path(get, path = "/",
    operation_id = "callPage", tag = "pages", responses(
    (status = 200, content_type = "text/html", body = String)))]
pub(super) async fn call() -> Response {
    page("text/html; charset=utf-8", include_str!("../pages/call.html"))
}

/// How that page looks.
pub(super) async fn call_style() -> Response {
    page("text/css; charset=utf-8", include_str!("../pages/call.css"))
}

/// What that page does.
pub(super) async fn call_script() -> Response {
    page("text/javascript; charset=utf-8", include_str!("../pages/call.js"))
}

/// A dashboard for operators.
#[utoipa::path(get, path = "/admin",
    operation_id = "adminPage", tag = "pages", responses(
    (status = 200, content_type = "text/html", body = String)))]
pub(super) async fn admin() -> Response {
    page("text/html; charset=utf-8", include_str!("../pages/admin.html"))
}

/// How it looks.
pub(super) async fn admin_style() -> Response {
    page("text/css; charset=utf-8", include_str!("../pages/admin.css"))
}

/// What it does.
pub(super) async fn admin_script() -> Response {
    page("text/javascript; charset=utf-8", include_str!("../pages/admin.js"))
}
