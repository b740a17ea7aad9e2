//! The API's connections: taken, secured, bounded in number and time, served, ended.
//!
//! Runs on the control thread, but for event streams, which go on where readers are;
//! [`serve`](super::serve) calls [`Serving::run`]. Invariants: each connection has a
//! [`Place`](admission::Place) and a [`Course`], and is closed when its client takes too long over
//! anything but an event stream that it reads; no failure to accept makes the loop spin; no handler
//! runs but on the control thread. HTTP/1.1 alone: a WebSocket needs a connection of its own, and
//! what HTTP/2 would save a page are a few connections.

pub mod admission;
mod body;
mod connection;
mod course;
mod handshakes;
mod patience;
pub mod tls;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use self::admission::{Admission, ConnectionLimits};
pub(super) use self::body::BodyLate;
use self::course::{Course, Patience};
use self::handshakes::Handshakes;
use self::tls::Certificate;
use crate::config::Proxies;
use crate::limits::{API_ACCEPT_PAUSE, API_EVICTIONS_PER_PAUSE};
use crate::metrics::connections::{ConnectionCounts, Refused};

/// Between two log lines about connections that the system refuses.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// What every connection is served with.
pub(super) struct Serving {
    /// One for all connections, its state given: a copy is a reference.
    pub(super) routes: Router,
    /// `None` speaks plain HTTP.
    pub(super) tls: Option<Certificate>,
    pub(super) counts: Arc<ConnectionCounts>,
    pub(super) limits: ConnectionLimits,
    /// Who brings others, as whoever is on loopback does.
    pub(super) proxies: Proxies,
    /// Where connections go on whose answer has no end.
    pub(super) streams: Handle,
}

/// The same, shared by the connections.
struct Shared {
    routes: Router,
    tls: Option<Certificate>,
    counts: Arc<ConnectionCounts>,
    admission: Admission,
    proxies: Proxies,
    handshakes: Handshakes,
    patience: Patience,
    streams: Handle,
    /// Becomes true when requests under way are the last.
    stopping: watch::Receiver<bool>,
}

impl Serving {
    /// Takes connections until `shutdown` completes, then lets requests under way finish.
    pub(super) async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let Self { routes, tls, counts, limits, proxies, streams } = self;
        let (stop, stopping) = watch::channel(false);
        let (admission, patience) = (Admission::new(limits), Patience::default());
        let handshakes = Handshakes::default();
        let shared = Shared {
            routes,
            tls,
            counts,
            admission,
            proxies,
            handshakes,
            patience,
            streams,
            stopping,
        };
        tokio::select! {
            () = accept(listener, Arc::new(shared)) => {}
            () = shutdown => {}
        }
        stop.send_replace(true);
        // Every connection holds the other end until it is over.
        stop.closed().await;
    }
}

impl Shared {
    /// The address that a connection is counted as. Trusted proxies bring everyone, and are not
    /// counted, as loopback is not.
    fn counts_as(&self, address: IpAddr) -> IpAddr {
        if self.proxies.trust(address) { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address }
    }
}

/// Takes connections for ever.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut complained: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => admit(stream, address, &shared),
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                shared.counts.refused(Refused::System);
                // Their descriptors are free for the next ones.
                let evict = || shared.admission.evict();
                let gave_way = (0..API_EVICTIONS_PER_PAUSE).take_while(|_| evict()).count();
                if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
                    complained = Some(Instant::now());
                    tracing::error!(%error, gave_way, "cannot take connections to the API");
                }
                tokio::time::sleep(API_ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What ended before it was taken says nothing about the next one (accept(2)).
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn admit(stream: TcpStream, address: SocketAddr, shared: &Arc<Shared>) {
    let counts = &shared.counts;
    match shared.admission.admit(shared.counts_as(address.ip())) {
        Ok((place, evicted)) => {
            if evicted {
                counts.refused(Refused::Evicted);
            }
            let leave = place.leave();
            let course = Course::new(place, shared.patience, Arc::clone(&shared.counts));
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                let serving = connection::serve(stream, address, &shared, Arc::new(course));
                let streams = tokio::select! {
                    () = leave.notified() => None,
                    rest = serving => rest,
                };
                // An event stream never gives way.
                if let Some(rest) = streams {
                    shared.streams.spawn(rest);
                }
            });
        }
        Err(why) => {
            counts.refused(why);
            if shared.tls.is_none() {
                connection::refuse(&stream, &connection::too_many());
            }
        }
    }
}

#[cfg(test)]
mod tests;
