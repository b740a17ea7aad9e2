//! Asks a running server how it is, as the settings say where it listens.
//!
//! Called by `ringcast health` and `ringcast doctor`, never by the server. Invariant: it answers
//! within [`HEALTH_TIMEOUT`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use serde_json::Value;
use ureq::tls::{TlsConfig, TlsProvider};

use crate::config::Config;
use crate::limits::{HEALTH_TIMEOUT, REMOTE_ANSWER_BYTES_MAX};
use crate::remote::hint;

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
    let answer = agent.get(&url).call();
    let mut answer = answer.map_err(|error| format!("{url}: {error}{}", hint(&error)))?;
    let status = answer.status();
    let says = format!("{url}: {status}");
    if status.is_success() {
        return Ok(says);
    }
    let body = answer.body_mut().with_config().limit(REMOTE_ANSWER_BYTES_MAX).read_to_string();
    Err(match body.as_deref().map(sentence) {
        Ok(Some(why)) => format!("{says}: {why}"),
        _ => says,
    })
}

/// What a body says in one line of printable text, or in its `data`.
fn sentence(body: &str) -> Option<String> {
    let json: Option<Value> = serde_json::from_str(body).ok();
    let data = json.as_ref().map(|json| json.get("data").and_then(Value::as_str));
    let line = data.unwrap_or_else(|| body.trim().lines().next())?;
    let is_text = !line.is_empty() && !line.starts_with('<') && !line.contains(char::is_control);
    is_text.then(|| line.to_owned())
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
    fn a_server_that_says_no_is_quoted() {
        for (body, expected) in [
            ("This API speaks HTTPS.\n", Some("This API speaks HTTPS.")),
            (r#"{"data": "shard 1 is stuck", "x": 1}"#, Some("shard 1 is stuck")),
            (r#"{"error": "no"}"#, None),
            ("<html>", None),
            ("a\u{1b}[2J", None),
            ("", None),
        ] {
            assert_eq!(sentence(body).as_deref(), expected, "{body}");
        }
    }

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
