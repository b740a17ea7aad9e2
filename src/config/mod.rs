//! Flags + environment + file → checked [`Config`]; nothing else reads the environment.
//!
//! Owns every setting: its names, default and rules. Called once by `main` before any thread is
//! made; a [`Config`] never changes afterwards. Invariants: what is in a [`Config`] was parsed, so no
//! reader checks it again; flags win over the environment, the environment over the file; an error
//! names the setting and where it came from. An environment variable that is empty counts as absent.
//!
//! The environment is an argument, so that tests need no process. Not here: whether a port is free,
//! which addresses the host has, how many cores are usable. The node finds out.

mod access;
mod connections;
mod flags;
mod ice;
mod outlets;
mod proxies;
mod shown;
mod sources;
mod values;

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser as _;
use serde_json::{Map, Value};

pub use self::access::KeysFile;
pub use self::connections::{ConnectionsConfig, TlsConfig};
pub(crate) use self::flags::{AFTER_HELP, Flags};
pub use self::ice::{IceConfig, IceCredentials, IceServer};
pub use self::outlets::{
    KafkaConfig, KafkaMechanism, KafkaSecurity, OutletsConfig, Secret, WebhookConfig,
};
pub use self::proxies::{NoNetwork, Proxies};
pub use self::sources::Origin;
use self::sources::Sources;
pub(crate) use self::sources::unknown_variables;
pub(crate) use self::values::docs_path;
use crate::access::ApiKeys;
use crate::limits::Limits;
use crate::ortc::VideoCodec;

/// Port of the API when nothing else is said: the replaced service's.
const API_PORT: u16 = 6040;

/// Media port when nothing else is said: the first of the replaced service's range.
const MEDIA_PORT: u16 = 10_000;

/// How long datagrams may gather when nothing else is said. CPU per delivered packet and median
/// latency of `rooms`, the work of many small wakes, one shard, runs of the load test by turns on a
/// shared machine: with 0, 500 and 1,000 µs 8.5, 6.6 and 5.4 µs at 0.14, 0.44 and 0.76 ms; on another
/// day with 500, 750 and 1,000 µs 6.4, 5.9 and 5.8 µs at 0.44, 0.59 and 0.75 ms. `audio`, which waits
/// two thirds longer, takes 8 % less CPU with 750 than with 500 where it waited twice as long, and
/// stays below 2 ms at the 99th percentile. `livestream` is the same with each.
const COALESCE: Duration = Duration::from_micros(750);

/// How long calls may go on after the first SIGTERM when nothing else is said: nearly all end by
/// themselves within an hour. Supervisors that kill earlier must be told to wait longer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Variables of the replaced service. Any of them means that this server stands in its place, where
/// clients reach the API from outside.
const REPLACED_SERVICE: [&str; 7] = [
    "FILES_SERVICE_APP_PORT",
    "MEDIASOUP_ANNOUNCED_IP",
    "MEDIASOUP_LISTEN_IP",
    "MEDIASOUP_NUM_WORKERS",
    "MEDIASOUP_RTC_MAX_PORT",
    "MEDIASOUP_RTC_MIN_PORT",
    "SWAGGER_PATH",
];

/// What the server was told to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the API listens; port 0 takes any free one. When it is `[::]` only because of the
    /// replaced service's variables and the host has no IPv6, `0.0.0.0` means the same.
    pub api_listen: SocketAddr,
    /// UDP and TCP port of all media; 0 takes any free one.
    pub media_port: u16,
    /// Addresses that media is received on, without repetition; never empty.
    pub media_listen: Vec<IpAddr>,
    /// IP addresses or host names told to clients; empty is the host's own addresses.
    pub announce: Vec<String>,
    /// Shards, 1–[`crate::limits::SHARDS_MAX`]; `None` is one per usable core.
    pub shards: Option<usize>,
    /// Whether shards are bound to cores.
    pub pin: bool,
    /// What shards run on.
    pub runtime: Runtime,
    /// Whether the kernel gives datagrams to their shard.
    pub steer: Steer,
    /// How long media may gather that comes close together, up to
    /// [`crate::limits::COALESCE_MAX`]; zero: all of it wakes its shard.
    pub coalesce: Duration,
    /// Media over UDP; this or `media_tcp` is true.
    pub media_udp: bool,
    /// Media over TCP (RFC 6544).
    pub media_tcp: bool,
    /// What rooms carry of pictures, the one that clients should send first; never empty.
    pub video_codecs: Vec<VideoCodec>,
    /// Path of the Swagger UI, without slashes at the ends.
    pub docs_path: String,
    /// Origins allowed by CORS; empty reflects the request's.
    pub cors_origins: Vec<String>,
    /// How long rooms may go on when the node drains, up to [`crate::limits::DRAIN_TIMEOUT_MAX`].
    pub drain_timeout: Duration,
    /// The API may be reached from outside without credentials.
    pub allow_anonymous: bool,
    /// Who may call the API; none: everybody.
    pub api_keys: ApiKeys,
    /// The file that some of them came from.
    pub api_keys_file: Option<KeysFile>,
    /// `/metrics` needs no key.
    pub open_metrics: bool,
    /// How much there may be of everything.
    pub limits: Limits,
    /// How the API is connected to.
    pub connections: ConnectionsConfig,
    /// STUN and TURN servers that clients are told of.
    pub ice: IceConfig,
    /// Where room events go beside their readers.
    pub outlets: OutletsConfig,
    /// Form of log lines.
    pub log_format: LogFormat,
    /// Which log lines, in the filter language of `tracing-subscriber`.
    pub log_filter: String,
    /// Sentences to log at start.
    pub warnings: Vec<String>,
}

/// What shards run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Runtime {
    /// glommio where `io_uring` is permitted, a plain thread elsewhere.
    #[default]
    Auto,
    /// glommio, or no start at all.
    Glommio,
    /// A plain thread.
    Thread,
}

/// Who brings a datagram to the shard that owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Steer {
    /// The kernel where BPF is permitted, the shards elsewhere.
    #[default]
    Auto,
    /// The shards, by handing datagrams to each other.
    Off,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no [`Config`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Flags that do not parse, or `--help` or `--version`, whose text this is.
    #[error("{0}")]
    Flags(#[from] clap::Error),
    /// A setting with a value that it cannot have.
    #[error("{origin}: {reason}")]
    Invalid {
        /// Where the value came from.
        origin: Origin,
        /// What is wrong with it.
        reason: String,
    },
    /// The file of settings cannot be read.
    #[error("cannot read the settings in {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An API open to others without credentials, which nobody asked for.
    #[error(
        "the API has no credentials, so it listens on loopback addresses only; {0} is not one \
         (from {1}): listen on 127.0.0.1, set --api-keys-file or --api-keys, or add \
         --allow-anonymous if everyone who reaches that address may use it"
    )]
    Exposed(SocketAddr, Origin),
    /// Keys, and a setting that says that nobody needs one.
    #[error("{0} says that nobody needs an API key, and there are some: leave out one of the two")]
    NobodyNeedsKeys(Origin),
    /// A setting without another that it needs.
    #[error("{0} needs {1} as well")]
    Missing(&'static str, &'static str),
    /// Neither UDP nor TCP.
    #[error("media needs a way in: --media-udp and --media-tcp cannot both be false")]
    NoProtocol,
}

impl ConfigError {
    /// True for `--help` and `--version`: print to standard output and leave with success.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Flags(error) if !error.use_stderr())
    }
}

/// A command line of settings alone.
#[derive(Debug, clap::Parser)]
#[command(name = "ringcast", version, after_help = AFTER_HELP)]
struct Serve {
    #[command(flatten)]
    settings: Flags,
}

impl Config {
    /// The configuration that arguments (the program's name first), environment and, if one is
    /// named, file say.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that is wrong, and for `--help` and `--version`.
    pub fn from_args(
        args: impl IntoIterator<Item = OsString>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        Self::from_flags(Serve::try_parse_from(args)?.settings, &env)
    }

    /// The same, from flags that are parsed already.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that is wrong.
    pub(crate) fn from_flags(
        flags: Flags,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        Self::of(&Sources::new(flags, env)?)
    }

    /// Every setting as a file would say it, without secrets; where each came from, and what is
    /// to be warned of, as that file's comment.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that is wrong.
    pub(crate) fn shown(
        flags: Flags,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Map<String, Value>, ConfigError> {
        let sources = Sources::new(flags, env)?;
        shown::shown(&Self::of(&sources)?, &sources)
    }

    fn of(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let replaced: Vec<&str> =
            REPLACED_SERVICE.into_iter().filter(|name| sources.has_variable(name)).collect();
        let api_keys = access::keys(sources)?;
        let allow_anonymous = access::allows_anonymous(sources, &api_keys)?;
        let anywhere = allow_anonymous || !api_keys.is_empty();
        let api_listen = api_listen(sources, anywhere, &replaced)?;
        let media_udp = sources.one("media-udp", values::boolean)?.unwrap_or(true);
        let media_tcp = sources.one("media-tcp", values::boolean)?.unwrap_or(true);
        if !media_udp && !media_tcp {
            return Err(ConfigError::NoProtocol);
        }
        let outlets = OutletsConfig::of(sources)?;
        let connections = ConnectionsConfig::of(sources)?;
        let mut warnings = warnings(api_listen, &api_keys, &replaced);
        if !api_keys.is_empty() && connections.tls.is_none() {
            warnings.extend(in_the_clear(api_listen));
        }
        warnings.extend(access::open_keys(sources)?);
        warnings.extend(outlets.warnings.iter().cloned());
        Ok(Self {
            api_listen,
            media_port: sources.one("media-port", values::port)?.unwrap_or(MEDIA_PORT),
            media_listen: sources.many("media-listen", values::ip)?.unwrap_or_else(|| {
                vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
            }),
            announce: sources.many("announce", values::announced)?.unwrap_or_default(),
            shards: sources.one("shards", values::shards)?.flatten(),
            pin: sources.one("pin", values::boolean)?.unwrap_or(true),
            runtime: sources.one("runtime", values::runtime)?.unwrap_or_default(),
            steer: sources.one("steer", values::steer)?.unwrap_or_default(),
            coalesce: sources.one("coalesce-us", values::coalesce)?.unwrap_or(COALESCE),
            media_udp,
            media_tcp,
            video_codecs: sources
                .many("video-codecs", values::video_codec)?
                .filter(|codecs| !codecs.is_empty())
                .unwrap_or_else(|| VideoCodec::ALL.to_vec()),
            docs_path: sources.one("docs-path", docs_path)?.unwrap_or_else(|| "docs".to_owned()),
            cors_origins: sources.many("cors-origins", values::web_origin)?.unwrap_or_default(),
            drain_timeout: sources
                .one("drain-timeout", values::drain_timeout)?
                .unwrap_or(DRAIN_TIMEOUT),
            allow_anonymous,
            api_keys,
            api_keys_file: access::keys_file(sources)?,
            open_metrics: sources.one("open-metrics", values::boolean)?.unwrap_or_default(),
            log_format: sources.one("log-format", values::log_format)?.unwrap_or_default(),
            log_filter: sources
                .one("log", values::log_filter)?
                .unwrap_or_else(|| "info".to_owned()),
            limits: access::limits(sources)?,
            connections,
            ice: IceConfig::of(sources)?,
            outlets,
            warnings,
        })
    }
}

/// Why a file was not read; of a refusal, whose it was.
pub(crate) fn unread(error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error.to_string();
    }
    let user = rustix::process::geteuid().as_raw();
    format!("{error}: the user that this runs as ({user}) may not read it")
}

/// The API's address: as told; all addresses in place of the replaced service; else loopback.
fn api_listen(
    sources: &Sources<'_>,
    anywhere: bool,
    replaced: &[&str],
) -> Result<SocketAddr, ConfigError> {
    let given = sources.one_with_origin("api-listen", values::socket_address)?;
    let port = sources.variable("FILES_SERVICE_APP_PORT", values::port)?.unwrap_or(API_PORT);
    match given {
        Some((address, origin)) => {
            let permitted = address.ip().is_loopback() || anywhere || !replaced.is_empty();
            if permitted { Ok(address) } else { Err(ConfigError::Exposed(address, origin)) }
        }
        None if replaced.is_empty() => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
    }
}

fn warnings(api_listen: SocketAddr, keys: &ApiKeys, replaced: &[&str]) -> Vec<String> {
    let mut warnings = Vec::new();
    if !api_listen.ip().is_loopback() && keys.is_empty() {
        let why = if replaced.is_empty() {
            "--allow-anonymous".to_owned()
        } else {
            format!("the environment of the replaced service ({})", replaced.join(", "))
        };
        warnings.push(format!(
            "the API listens on {api_listen} without credentials because of {why}: everyone who \
             reaches it may use it"
        ));
    }
    if replaced.contains(&"MEDIASOUP_RTC_MAX_PORT") {
        warnings.push(
            "MEDIASOUP_RTC_MAX_PORT has no effect: all media uses one port, UDP and TCP".to_owned(),
        );
    }
    warnings
}

/// What is to be said of keys on an address that strangers may reach.
fn in_the_clear(api_listen: SocketAddr) -> Option<String> {
    let ip = api_listen.ip();
    // Not 100.64.0.0/10 (RFC 6598): a carrier's other customers are no neighbours.
    let is_near = match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    (!is_near).then(|| {
        format!(
            "the API listens on {api_listen} without TLS: API keys and tokens can be read on their \
             way, unless a proxy on this host speaks TLS; see --tls-cert"
        )
    })
}

#[cfg(test)]
mod tests;
