//! Asks a running server how it is, as the settings say where it listens.
//!
//! Called by `ringcast health` and `ringcast doctor`, never by the server. Invariant: it answers
//! within [`HEALTH_TIMEOUT`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ureq::tls::{TlsConfig, TlsProvider};

use crate::config::Config;
use crate::limits::HEALTH_TIMEOUT;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Does every shard turn (`/healthz`)?
    Alive,
    /// Does it take new calls (`/readyz`)?
    Ready,
}

/// The sentence of a server that says yes.
///
/// # Errors
/// The sentence of one that says no, or why there is no answer.
pub(crate) fn ask(config: &Config, question: Question) -> Result<String, String> {
    let path = match question {
        Question::Alive => "healthz",
        Question::Ready => "readyz",
    };
    let scheme = if config.connections.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}/{path}", reachable(config.api_listen));
    // It asks its own host by address, which no certificate names, and tells no secret.
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .disable_verification(true)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .tls_config(tls)
        .timeout_global(Some(HEALTH_TIMEOUT))
        .build()
        .into();
    let answer = agent.get(&url).call().map_err(|error| format!("{url}: {error}"))?;
    let status = answer.status();
    let says = format!("{url}: {status}");
    if status.is_success() { Ok(says) } else { Err(says) }
}

/// An address to connect to for one that is listened on.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        // It takes IPv4 as well, which a host without IPv6 has alone.
        IpAddr::V6(ip) if ip == Ipv6Addr::UNSPECIFIED => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_asked_on_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "127.0.0.1:1"),
            ("127.0.0.9:1", "127.0.0.9:1"),
            ("[::1]:1", "[::1]:1"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        }
    }
}
