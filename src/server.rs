//! A whole server: the shards of a [`Node`], the control plane over them, and the API.
//!
//! Called by `main` (and by end-to-end tests) on the thread that becomes the control thread: one
//! tokio runtime runs the API, the control plane and the task that empties the shards' lanes.
//! Invariants: when [`Server::start`] returns, media port and API address are open; when
//! [`Server::run`] returns, every shard has ended. It decides nothing about rooms.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rand::TryRngCore;
use rand::rngs::OsRng;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::ice_servers::IceServers;
use crate::api::keys::KeyRing;
use crate::api::serving::admission::ConnectionLimits;
use crate::api::serving::tls::{Certificate, CertificateKeeper, Hangup, TlsError};
use crate::api::{self, ApiOptions};
use crate::config::{Config, ConnectionsConfig, OutletsConfig, Runtime as ConfigRuntime, Steer};
use crate::control::addresses::MediaAddresses;
use crate::control::command::{CallId, Command, FromShard};
use crate::control::dispatcher::{LaneFull, ShardLink};
use crate::control::drain::{After, DrainRequest};
use crate::control::service::{Control, ControlConfig};
use crate::engine::demux::stun_owner;
use crate::engine::dtls::{DtlsIdentity, IdentityError};
use crate::engine::rtp::NtpTime;
use crate::engine::wall::WallClock;
use crate::engine::{Engine, EngineSetup};
use crate::events::ReaderThread;
use crate::events::outlet::{OutletThreads, Outlets};
use crate::events::timestamp::WallAnchor;
use crate::id::ShardId;
use crate::lane::{LaneReceiver, LaneSender, Waker};
use crate::limits::API_DESCRIPTORS_OF_FOUR;
use crate::metrics::connections::ConnectionCounts;
use crate::node::{Node, NodeError, NodeSetup, Runtime, ShardLinks, ShardMessage, usable_cores};

/// Messages taken from one shard before the others (and the API) have their turn.
const MESSAGES_PER_TURN: usize = 256;

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No certificate for DTLS.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The shards.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The system gave no randomness.
    #[error("no randomness from the system: {0}")]
    Random(#[from] rand::rand_core::OsError),
    /// The API's address cannot be had.
    #[error("cannot listen on {0} for the API: {1}")]
    Api(SocketAddr, io::Error),
    /// The API's certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A setting that this host cannot fulfil.
    #[error("{0}")]
    Setting(String),
    /// The control thread's own descriptors.
    #[error("control thread: {0}")]
    Control(#[from] io::Error),
}

/// A server that is listening.
#[derive(Debug)]
pub struct Server {
    node: Node,
    control: Control,
    listener: TcpListener,
    options: ApiOptions,
    outlets: OutletThreads,
    readers: ReaderThread,
}

struct LaneLink(LaneSender<ShardMessage>);

impl ShardLink for LaneLink {
    fn send(&self, call: CallId, command: Command) -> Result<(), LaneFull> {
        self.0.try_send(ShardMessage { call, command }).map_err(|_| LaneFull)
    }
}

impl Server {
    /// Opens the media port and the API's address, and starts the shards.
    ///
    /// # Errors
    /// [`ServerError`]; nothing is left running.
    pub async fn start(config: &Config) -> Result<Self, ServerError> {
        let (at, wall) = anchor();
        let clock = WallAnchor { wall, at };
        // Before anything is open, so that a wrong file costs nothing.
        let options = api_options(config, clock)?;
        let listener = bind_api(config.api_listen)
            .await
            .map_err(|error| ServerError::Api(config.api_listen, error))?;
        let (node, links) = start_shards(config, wall_clock(at, wall))?;
        let port = node.media_address().port();
        let media = MediaAddresses {
            addresses: announced(config),
            port,
            udp: config.media_udp,
            tcp: config.media_tcp,
        };
        tracing::info!(
            announced = %media.addresses.join(", "),
            media.port = port,
            udp = media.udp,
            tcp = media.tcp,
            "clients are told to send media to these addresses"
        );
        let ShardLinks { senders, from_shards, waker } = links;
        let links = senders.into_iter().map(|sender| Box::new(LaneLink(sender)) as _).collect();
        look_up(&media.addresses)?;
        let OutletsConfig { kafka, webhook, spool_dir, .. } = &config.outlets;
        let (outlets, threads) =
            Outlets::start(kafka.as_ref(), webhook.as_ref(), spool_dir.as_deref())
                .map_err(|error| ServerError::Setting(error.to_string()))?;
        let (drain_timeout, limits) = (config.drain_timeout, config.limits.clone());
        let thread = ReaderThread::start()?;
        let readers = thread.runtime();
        let video_codecs = config.video_codecs.clone();
        let setup =
            ControlConfig { media, clock, outlets, limits, readers, video_codecs, drain_timeout };
        let control = Control::start(links, setup)
            .map_err(|error| ServerError::Setting(error.to_string()))?;
        tokio::spawn(empty_lanes(control.clone(), from_shards, waker));
        let server = Self { node, control, listener, options, outlets: threads, readers: thread };
        let address = server.api_address()?;
        let scheme = if config.connections.tls.is_some() { "https" } else { "http" };
        let docs = format_args!("{scheme}://{address}/{}", config.docs_path);
        tracing::info!(%address, %docs, "API open");
        Ok(server)
    }

    /// Where the API listens.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn api_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where media arrives.
    #[must_use]
    pub fn media_address(&self) -> SocketAddr {
        self.node.media_address()
    }

    /// The rooms, for whoever tells others of them.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Completes when a signal says that the process ends at once: SIGINT or a second SIGTERM. The
    /// first SIGTERM begins a drain, at whose end [`run`](Self::run) returns by itself.
    ///
    /// # Errors
    /// When the runtime cannot watch signals.
    pub fn stop_signal(&self) -> io::Result<impl Future<Output = ()> + Send + 'static> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let control = self.control.clone();
        Ok(async move {
            let told_twice = async {
                terminate.recv().await;
                tracing::info!(signal = "SIGTERM", "told to stop; a second time means at once");
                control.drain(DrainRequest { deadline: None, after: After::Stop });
                terminate.recv().await;
            };
            let name = tokio::select! {
                () = told_twice => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "stopping");
        })
    }

    /// Serves until `shutdown` completes or a drain is over that the process is to end with, then
    /// stops API and shards.
    ///
    /// # Errors
    /// When the API's listener fails or shards do not stop in time.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServerError> {
        let Self { node, control, listener, options, outlets, readers } = self;
        let drained = control.clone();
        let shutdown = async move {
            tokio::select! {
                () = shutdown => {}
                () = drained.drained() => tracing::info!("drained: stopping"),
            }
        };
        let served = api::serve(listener, control.clone(), options, shutdown).await;
        control.stop();
        let stopped = node.stop();
        readers.stop();
        // Last, so that they also tell of the rooms that ended with the API.
        outlets.stop();
        stopped?;
        served?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// How the API presents itself; from here on SIGHUP ends nothing.
fn api_options(config: &Config, clock: WallAnchor) -> Result<ApiOptions, ServerError> {
    let counts = Arc::default();
    let tls = certificate(config, clock, &counts)?;
    let keys = keys(config)?;
    let ice_servers = ice_servers(config)?;
    if tls.is_none() && config.api_keys_file.is_none() && !config.ice.has_file() {
        tokio::spawn(Hangup::watch()?.ignore());
    }
    let ConnectionsConfig { node, address, ref proxies, .. } = config.connections;
    Ok(ApiOptions {
        cors_origins: config.cors_origins.clone(),
        docs_path: config.docs_path.clone(),
        keys,
        open_metrics: config.open_metrics,
        limits: config.limits.clone(),
        tls,
        connections: ConnectionLimits { node: affordable(node), address },
        proxies: proxies.clone(),
        counts,
        ice_servers,
    })
}

/// The certificate of the API, if it has one, and who looks after it.
fn certificate(
    config: &Config,
    clock: WallAnchor,
    counts: &Arc<ConnectionCounts>,
) -> Result<Option<Certificate>, ServerError> {
    let Some(files) = &config.connections.tls else { return Ok(None) };
    let hangup = Hangup::watch()?;
    let (keeper, certificate) = CertificateKeeper::start(files.clone(), clock, Arc::clone(counts))?;
    tokio::spawn(keeper.keep(hangup));
    Ok(Some(certificate))
}

/// The keys of the API, and who looks after their file, if there is one.
fn keys(config: &Config) -> Result<KeyRing, ServerError> {
    let keys = config.api_keys.clone();
    let Some(file) = &config.api_keys_file else { return Ok(keys.into()) };
    let (keeper, ring) = KeyRing::start(file.clone(), keys);
    tokio::spawn(keeper.keep(Hangup::watch()?));
    Ok(ring)
}

/// The servers that clients are told of, and who looks after their file, if there is one.
fn ice_servers(config: &Config) -> Result<IceServers, ServerError> {
    let ice = config.ice.clone();
    if !ice.has_file() {
        return Ok(ice.servers.into());
    }
    let (keeper, servers) = IceServers::start(ice);
    tokio::spawn(keeper.keep(Hangup::watch()?));
    Ok(servers)
}

/// So many of the connections wanted as there are descriptors for, once the process has as many of
/// these as it may have: the usual limit of 1,024 is there for select(2), which nothing here calls.
fn affordable(connections: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let (Ok(()), Some(descriptors)) = (setrlimit(Resource::Nofile, raised), limit.maximum) else {
        return connections;
    };
    let share = descriptors / 4 * API_DESCRIPTORS_OF_FOUR;
    let share = usize::try_from(share).unwrap_or(usize::MAX).max(1);
    if share < connections {
        tracing::warn!(
            descriptors,
            connections = share,
            "fewer connections to the API than --api-connections: raise the limit of open files"
        );
    }
    share.min(connections)
}

/// The node's one look at both clocks.
#[expect(clippy::disallowed_methods, reason = "the one wall-clock anchor of the process")]
fn anchor() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

fn wall_clock(anchor: Instant, wall: SystemTime) -> WallClock {
    let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallClock { anchor, ntp: NtpTime::from_unix(since_epoch) }
}

fn start_shards(config: &Config, wall: WallClock) -> Result<(Node, ShardLinks), ServerError> {
    let identity = Arc::new(DtlsIdentity::generate()?);
    let mut seed = [0; 32];
    OsRng.try_fill_bytes(&mut seed)?;
    let runtime = match config.runtime {
        ConfigRuntime::Auto | ConfigRuntime::Glommio => Runtime::Glommio,
        ConfigRuntime::Thread => Runtime::Plain,
    };
    let (node, links) = Node::start(NodeSetup {
        shards: config.shards.unwrap_or_else(|| usable_cores().len().max(1)),
        listen: listen_address(&config.media_listen)?,
        media_port: config.media_port,
        tcp: config.media_tcp,
        pin: config.pin,
        runtime,
        steer: config.steer == Steer::Auto,
        coalesce: config.coalesce,
        stun_owner,
        machine: move |shard: ShardId| {
            Engine::new(EngineSetup {
                shard,
                identity: Arc::clone(&identity),
                wall,
                seed: seed_of(seed, shard),
            })
        },
    })?;
    if config.runtime == ConfigRuntime::Glommio && !node.is_on_glommio() {
        let reason = "io_uring is refused here: permit it, or use --runtime auto";
        return Err(ServerError::Setting(reason.to_owned()));
    }
    Ok((node, links))
}

/// Each shard draws from its own sequence.
fn seed_of(mut seed: [u8; 32], shard: ShardId) -> [u8; 32] {
    for (byte, shard) in seed.iter_mut().zip(shard.0.to_be_bytes()) {
        *byte ^= shard;
    }
    seed
}

/// What a node listens on: one address, or all.
fn listen_address(listen: &[IpAddr]) -> Result<Option<IpAddr>, ServerError> {
    match listen {
        [only] if *only != IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ok(Some(*only)),
        some if some.contains(&IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ok(None),
        _ => Err(ServerError::Setting(
            "media-listen: one address, or 0.0.0.0 and :: for all, is what a node can listen on"
                .to_owned(),
        )),
    }
}

/// `[::]` means 0.0.0.0 on a host without IPv6.
async fn bind_api(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            let without = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            TcpListener::bind(without).await.map_err(|_| error)
        }
        bound => bound,
    }
}

/// What clients are told: as configured, else the addresses that the node listens on.
pub(crate) fn announced_addresses(config: &Config) -> Vec<String> {
    if !config.announce.is_empty() {
        return config.announce.clone();
    }
    let own = listening(&config.media_listen, own_addresses());
    own.iter().map(IpAddr::to_string).collect()
}

fn announced(config: &Config) -> Vec<String> {
    let addresses = announced_addresses(config);
    let private = |told: &String| told.parse().is_ok_and(|ip| is_private(&ip));
    if config.announce.is_empty() && addresses.iter().all(private) {
        tracing::warn!(
            "only private addresses are announced; clients elsewhere need --announce with the \
             address or name under which they reach this host"
        );
    }
    addresses
}

/// Warns of announced names that lead nowhere, when that is known: nobody waits for the DNS.
fn look_up(announced: &[String]) -> io::Result<()> {
    let is_name = |told: &&String| told.parse::<IpAddr>().is_err();
    let names: Vec<String> = announced.iter().filter(is_name).cloned().collect();
    if names.is_empty() {
        return Ok(());
    }
    // Not a task of the runtime's, which would wait for it at its end.
    std::thread::Builder::new().name("announced".to_owned()).spawn(move || {
        for name in names {
            let found = (name.as_str(), 0).to_socket_addrs();
            if !found.is_ok_and(|mut addresses| addresses.next().is_some()) {
                tracing::warn!(
                    name,
                    "the announced name has no address in the DNS: as long as clients find none \
                     either, no media arrives"
                );
            }
        }
    })?;
    Ok(())
}

/// The addresses that media is received on: those named, or `own` ones of the families listened to.
fn listening(listen: &[IpAddr], own: Vec<IpAddr>) -> Vec<IpAddr> {
    let named: Vec<IpAddr> = listen.iter().copied().filter(|ip| !ip.is_unspecified()).collect();
    if !named.is_empty() {
        return named;
    }
    // `::` takes both families.
    let both = listen.iter().any(IpAddr::is_ipv6);
    own.into_iter().filter(|ip| both || ip.is_ipv4()).collect()
}

/// This host's addresses, IPv4 first; loopback only where there is nothing else.
pub(crate) fn own_addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut addresses: Vec<IpAddr> =
        interfaces.iter().filter(|i| !i.is_link_local()).map(if_addrs::Interface::ip).collect();
    if addresses.iter().any(|ip| !ip.is_loopback()) {
        addresses.retain(|ip| !ip.is_loopback());
    }
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.dedup();
    addresses
}

/// True for an address that only neighbours can reach: this host, its link, its site, or what stands
/// behind the same carrier's translation (100.64.0.0/10, RFC 6598).
pub(crate) fn is_private(ip: &IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let is_shared = matches!(v4.octets(), [100, 64..=127, ..]);
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Hands what the shards say to the control plane, for as long as the runtime lives.
async fn empty_lanes(control: Control, lanes: Vec<LaneReceiver<FromShard>>, waker: Waker) {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of descriptors that close early; the waker \
                  keeps its own open for as long as it lives"
    )]
    let registered = AsyncFd::with_interest(waker.clone(), Interest::READABLE);
    let readable = match registered {
        Ok(readable) => readable,
        Err(error) => {
            tracing::error!(%error, "the shards cannot be heard");
            return;
        }
    };
    loop {
        let mut more = false;
        for (lane, shard) in lanes.iter().zip(0_u16..) {
            for _ in 0..MESSAGES_PER_TURN {
                let Some(message) = lane.try_recv() else { break };
                control.handle_from_shard(ShardId(shard), message);
            }
            more |= !lane.is_empty();
        }
        if more {
            tokio::task::yield_now().await;
            continue;
        }
        waker.prepare_sleep();
        if lanes.iter().any(|lane| !lane.is_empty()) {
            waker.awake();
            continue;
        }
        let Ok(mut guard) = readable.readable().await else { return };
        waker.awake();
        waker.drain();
        guard.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_only_neighbours_reach_are_known() {
        for (ips, expected) in [
            ("10.0.0.7 172.16.0.1 192.168.1.2 127.0.0.1 169.254.0.1 ::ffff:10.0.0.7", true),
            ("100.64.0.1 100.127.255.254", true),
            ("::1 fd00::1 fe80::1", true),
            ("100.63.255.255 100.128.0.1 172.32.0.1 192.0.2.1 203.0.113.7 2001:db8::1", false),
        ] {
            for ip in ips.split(' ') {
                assert_eq!(is_private(&ip.parse().unwrap()), expected, "{ip}");
            }
        }
    }

    #[test]
    fn only_addresses_that_are_listened_on_are_announced() {
        let ips = |text: &str| -> Vec<IpAddr> {
            text.split_whitespace().map(|ip| ip.parse().unwrap()).collect()
        };
        for (listen, announced) in [
            ("0.0.0.0 ::", "192.0.2.1 2001:db8::1"),
            ("::", "192.0.2.1 2001:db8::1"),
            ("0.0.0.0", "192.0.2.1"),
            ("198.51.100.7", "198.51.100.7"),
            ("2001:db8::7", "2001:db8::7"),
        ] {
            let own = ips("192.0.2.1 2001:db8::1");
            assert_eq!(listening(&ips(listen), own), ips(announced), "{listen}");
        }
    }
}
