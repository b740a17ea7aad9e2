//! The HTTP face of the control plane.
//!
//! Called by the node: [`serve`] runs on the control thread until told to stop. Every handler
//! parses its request into domain types, calls one method of [`Control`],
//! and maps one result. Invariants: every refusal wears the envelope of [`error`]; nothing a client
//! sends leads to a 500; no body over 256 KiB is read. It knows no shard and no engine.

mod body;
mod caller;
mod consumers;
pub mod cors;
mod drain;
mod dtls;
pub mod error;
mod event_schema;
mod events;
mod fields;
mod gate;
mod health;
pub mod ice_servers;
pub mod keeper;
pub mod keys;
mod observe;
pub mod openapi;
mod overview;
mod pages;
mod path;
mod producers;
mod rates;
mod reply;
mod rooms;
pub mod router;
mod rule;
mod sdp_body;
pub mod serving;
mod sessions;
mod status;
mod transports;

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use self::ice_servers::IceServers;
use self::keys::KeyRing;
use self::serving::Serving;
use self::serving::admission::ConnectionLimits;
use self::serving::tls::Certificate;
use crate::config::Proxies;
use crate::control::Control;
use crate::limits::{API_STOP_TIMEOUT, Limits, ROOMS_STOP_TIMEOUT};
use crate::metrics::connections::ConnectionCounts;

/// How the API presents itself.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// Origins that may call it from a browser; empty: any, by reflection.
    pub cors_origins: Vec<String>,
    /// Where Swagger UI is, without slash: `docs`.
    pub docs_path: String,
    /// Who may call; none: everybody.
    pub keys: KeyRing,
    /// `/metrics` needs no key.
    pub open_metrics: bool,
    /// How often callers may ask.
    pub limits: Limits,
    /// What its connections are secured with; `None`: nothing.
    pub tls: Option<Certificate>,
    /// How many connections there may be.
    pub connections: ConnectionLimits,
    /// Whose word is taken for who a request is from.
    pub proxies: Proxies,
    /// Where its connections are counted.
    pub counts: Arc<ConnectionCounts>,
    /// STUN and TURN servers that clients are told of.
    pub ice_servers: IceServers,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            cors_origins: Vec::new(),
            docs_path: "docs".to_owned(),
            keys: KeyRing::default(),
            open_metrics: false,
            limits: Limits::default(),
            tls: None,
            connections: ConnectionLimits::default(),
            proxies: Proxies::default(),
            counts: Arc::default(),
            ice_servers: IceServers::default(),
        }
    }
}

/// Serves until `shutdown` completes, then ends the rooms that are left, tells readers so, and lets
/// requests under way finish for at most [`API_STOP_TIMEOUT`].
///
/// # Errors
/// When the options contradict the routes.
pub async fn serve(
    listener: TcpListener,
    control: Control,
    options: ApiOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let routes = router::router(control.clone(), &options)?;
    let ApiOptions { tls, connections: limits, proxies, counts, .. } = options;
    let streams = control.readers_runtime();
    let (stopping, stopped) = oneshot::channel();
    let graceful = async move {
        shutdown.await;
        control.end_rooms(ROOMS_STOP_TIMEOUT).await;
        control.end_event_streams();
        let _ = stopping.send(());
    };
    let deadline = async move {
        match stopped.await {
            Ok(()) => tokio::time::sleep(API_STOP_TIMEOUT).await,
            Err(_) => std::future::pending().await,
        }
    };
    let serving = Serving { routes, tls, counts, limits, proxies, streams };
    tokio::select! {
        () = serving.run(listener, graceful) => {}
        () = deadline => {}
    }
    Ok(())
}
