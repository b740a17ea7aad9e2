//! Every route on one screen.

use std::io;
use std::sync::Arc;

use axum::extract::{FromRef, Request};
use axum::http::Uri;
use axum::routing::{delete, get, patch, post, put};
use axum::{Json, Router, middleware};
use tokio::time::Instant;
use utoipa_swagger_ui::{Config as SwaggerConfig, SwaggerUi};

use super::error::{ApiError, Code};
use super::gate::{Gate, admit};
use super::ice_servers::IceServers;
use super::observe::{Observed, observe};
use super::rates::Rates;
use super::{
    ApiOptions, consumers, cors, drain, events, health, openapi, overview, pages, producers, rooms,
    sessions, status, transports,
};
use crate::config;
use crate::control::Control;

#[derive(Debug, Clone)]
struct App {
    control: Control,
    observed: Observed,
    ice_servers: IceServers,
}

impl FromRef<App> for Control {
    fn from_ref(app: &App) -> Self {
        app.control.clone()
    }
}

impl FromRef<App> for Observed {
    fn from_ref(app: &App) -> Self {
        app.observed.clone()
    }
}

impl FromRef<App> for IceServers {
    fn from_ref(app: &App) -> Self {
        app.ice_servers.clone()
    }
}

/// All routes over one control plane.
///
/// # Errors
/// When the options contradict the routes.
pub fn router(control: Control, options: &ApiOptions) -> io::Result<Router> {
    let ice_servers = options.ice_servers.clone();
    let observed = Observed::new(Arc::clone(&options.counts));
    let app = App { control, observed, ice_servers: ice_servers.clone() };
    let document = openapi::document();
    let docs_path = docs_path(&options.docs_path)?;
    let gate = gate(app.control.clone(), options, &docs_path);
    let advice = sessions::Advice { gate: gate.clone(), ice_servers };
    let docs = SwaggerUi::new(docs_path)
        .url("/docs-json", document.clone())
        // By default the page shows this server's document to swagger.io, for a badge.
        .config(SwaggerConfig::default().validator_url("none"));
    let routes = Router::new()
        .route("/media/room", post(rooms::create))
        .route("/media/rooms", get(rooms::list))
        .route("/media/room/{id}", get(rooms::show).delete(rooms::delete))
        .route("/media/room/{id}/producers", get(rooms::producers))
        .route("/media/room/{id}/leave", post(rooms::leave))
        .route("/media/room/{id}/stats", get(rooms::stats))
        .route("/media/room/{id}/events", get(events::follow))
        .route("/media/room/{id}/ws", get(events::follow_over_web_socket))
        .route(
            "/media/transport/{id}",
            post(transports::create).patch(transports::patch).delete(transports::delete),
        )
        .route("/media/transport/{id}/connect", post(transports::connect))
        .route("/media/transport/{id}/restart-ice", post(transports::restart_ice))
        .route("/media/transport/{id}/stats", get(transports::stats))
        .route("/media/producer", post(producers::create))
        .route("/media/producer/{id}", delete(producers::delete))
        .route("/media/producer/{id}/pause", post(producers::pause))
        .route("/media/producer/{id}/resume", post(producers::resume))
        .route("/media/producer/{id}/stats", get(producers::stats))
        .route("/media/consumer", post(consumers::create))
        .route("/media/consumer/{id}", delete(consumers::delete))
        .route("/media/consumer/{id}/pause", post(consumers::pause))
        .route("/media/consumer/{id}/resume", post(consumers::resume))
        .route("/media/consumer/{id}/keyframe", post(consumers::key_frame))
        .route("/media/consumer/{id}/layers", put(consumers::choose_layers))
        .route("/media/consumer/{id}/priority", put(consumers::set_priority))
        .route("/media/consumer/{id}/stats", get(consumers::stats))
        .route("/whip/{id}", post(sessions::publish))
        .route(
            "/whip/session/{id}",
            patch(sessions::patch_published).delete(sessions::end_published),
        )
        .route("/whep/{id}", post(sessions::play))
        .route("/whep/session/{id}", patch(sessions::patch_played).delete(sessions::end_played))
        .route("/", get(pages::call))
        .route("/pages/call.css", get(pages::call_style))
        .route("/pages/call.js", get(pages::call_script))
        .route("/healthz", get(health::healthy))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/admin", get(pages::admin))
        .route("/pages/admin.css", get(pages::admin_style))
        .route("/pages/admin.js", get(pages::admin_script))
        .route("/admin/rooms", get(overview::rooms))
        .route("/admin/status", get(status::status))
        .route("/admin/drain", post(drain::begin).delete(drain::cancel))
        .route("/api/swagger.json", get(|| async move { Json(document) }))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .merge(docs)
        .layer(middleware::from_fn_with_state(gate, admit))
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .layer(cors::layer(&options.cors_origins)?)
        // Outside of CORS, which answers every OPTIONS.
        .layer(middleware::from_fn_with_state(advice, sessions::tell_what_is_accepted))
        .with_state(app);
    // Before routes are looked for, as layers of them are not.
    Ok(Router::new().fallback_service(routes).layer(middleware::map_request(without_last_slash)))
}

fn gate(control: Control, options: &ApiOptions, docs_path: &str) -> Gate {
    Gate {
        control,
        keys: options.keys.clone(),
        open_metrics: options.open_metrics,
        docs: docs_path.into(),
        proxies: options.proxies.clone(),
        rates: Arc::new(Rates::new(&options.limits, Instant::now())),
    }
}

/// A slash at the end means nothing below `/media`, where the replaced service did not mind it.
async fn without_last_slash(mut request: Request) -> Request {
    let path = request.uri().path();
    let Some(bare) = path.strip_suffix('/').filter(|bare| bare.starts_with("/media/")) else {
        return request;
    };
    let bare = match request.uri().query() {
        Some(query) => format!("{bare}?{query}").try_into(),
        None => bare.try_into(),
    };
    let mut parts = request.uri().clone().into_parts();
    // What is left of a path and query is one.
    parts.path_and_query = bare.ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// The Swagger path with its slash.
fn docs_path(path: &str) -> io::Result<String> {
    match config::docs_path(path) {
        Ok(path) => Ok(format!("/{path}")),
        Err(reason) => Err(io::Error::new(io::ErrorKind::InvalidInput, reason)),
    }
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::new(Code::RouteNotFound, format!("no route {}", uri.path()))
}

async fn no_method(uri: Uri) -> ApiError {
    ApiError::new(Code::MethodNotAllowed, format!("not with this method: {}", uri.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_swagger_path_must_not_hide_a_route() {
        for (path, expected) in [
            ("docs", Some("/docs")),
            ("/docs/", Some("/docs")),
            ("help/http_api", Some("/help/http_api")),
            ("", None),
            ("/", None),
            ("media", None),
            ("api/docs", Some("/api/docs")),
            ("help/v1.0~a", Some("/help/v1.0~a")),
            ("api/swagger.json", None),
            ("docs-json", None),
            ("{id}", None),
            ("a//b", None),
            ("do cs", None),
        ] {
            assert_eq!(docs_path(path).ok().as_deref(), expected, "{path:?}");
        }
    }
}
