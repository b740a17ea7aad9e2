//! Asks a running server, here or elsewhere, to do something, as an operator's commands do.
//!
//! Called by commands, never by the server. Invariants: each question ends within
//! [`REMOTE_TIMEOUT`]; what is sent is secured as the URL says, and only a server on this host is
//! taken without looking at its certificate, which names no address.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use ureq::http::{Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

use crate::config::Config;
use crate::health::reachable;
use crate::limits::{REMOTE_ANSWER_BYTES_MAX, REMOTE_TIMEOUT};
use crate::roots;
use crate::server::own_addresses;

/// Why there is no answer to work with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// Nobody answered.
    #[error("{0}: {1}{more}", more = hint(.1))]
    Unreachable(String, ureq::Error),
    /// It answered no.
    #[error("{0}")]
    Refused(String),
    /// It, or what stands before it, answered not now.
    #[error("{0}")]
    Busy(String),
    /// There is nobody to ask.
    #[error("{0}")]
    Unknown(&'static str),
    /// The certificates to trust.
    #[error("--ca {0}")]
    Roots(String),
}

impl RemoteError {
    /// Whether nobody listens there.
    pub(crate) fn is_nobody(&self) -> bool {
        matches!(self, Self::Unreachable(_, error) if is_refused(error))
    }

    /// Whether asking again may help.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable(..) | Self::Busy(_))
    }
}

fn is_refused(error: &ureq::Error) -> bool {
    let ureq::Error::Io(error) = error else { return false };
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// What to add to an error of who asks a server, from `: ` on.
pub(crate) fn hint(error: &ureq::Error) -> &'static str {
    let ureq::Error::Io(inner) = error else { return "" };
    let tls = inner.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => ": --ca names certificates of your own",
        _ if is_refused(error) => ": is it running?",
        _ => "",
    }
}

/// A server that is asked.
#[derive(Debug)]
pub(crate) struct Remote {
    agent: Agent,
    base: String,
}

impl Remote {
    /// The server at `url`, else the one with these settings on this host. Its certificate is
    /// checked against the public roots, or must be in `ca` or come from what is.
    ///
    /// # Errors
    /// [`RemoteError::Unknown`], [`RemoteError::Roots`].
    pub(crate) fn new(
        config: &Config,
        url: Option<String>,
        ca: Option<&Path>,
    ) -> Result<Self, RemoteError> {
        let (base, is_here) = match url {
            Some(url) => (url, false),
            None => here(config)?,
        };
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .disable_verification(is_here)
            .root_certs(RootCerts::WebPki)
            .unversioned_rustls_crypto_provider(crypto)
            .build();
        let settings = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("ringcast/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .timeout_global(Some(REMOTE_TIMEOUT))
            .build();
        let agent = roots::agent(settings, ca).map_err(RemoteError::Roots)?;
        Ok(Self { agent, base })
    }

    /// Where it is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The data of the answer to GET.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`], [`RemoteError::Refused`].
    pub(crate) fn get(&self, path: &str, bearer: Option<&str>) -> Result<Value, RemoteError> {
        let request = self.agent.get(self.url(path));
        self.data(path, authorised(request, bearer).call())
    }

    /// The same of DELETE.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn delete(&self, path: &str, bearer: Option<&str>) -> Result<Value, RemoteError> {
        let request = self.agent.delete(self.url(path));
        self.data(path, authorised(request, bearer).call())
    }

    /// The same of POST.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn post(
        &self,
        path: &str,
        bearer: Option<&str>,
        body: &Value,
    ) -> Result<Value, RemoteError> {
        let request = self.agent.post(self.url(path)).content_type("application/json");
        self.data(path, authorised(request, bearer).send(body.to_string()))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn data(
        &self,
        path: &str,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> Result<Value, RemoteError> {
        let unreachable = |error| RemoteError::Unreachable(self.base.clone(), error);
        let mut answer = answer.map_err(unreachable)?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(REMOTE_ANSWER_BYTES_MAX);
        let text = body.read_to_string().map_err(unreachable)?;
        let mut said: Value = serde_json::from_str(&text).unwrap_or_default();
        let data = said.get_mut("data").map(Value::take).unwrap_or_default();
        if status.is_success() && data.is_object() {
            return Ok(data);
        }
        let url = self.url(path);
        let why = match data.as_str() {
            Some(sentence) => format!("{url}: {status}: {sentence}"),
            None => format!("{url}: {status}, which is no answer of ringcast"),
        };
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => RemoteError::Busy(why),
            _ => RemoteError::Refused(why),
        })
    }
}

fn authorised<B>(
    request: ureq::RequestBuilder<B>,
    bearer: Option<&str>,
) -> ureq::RequestBuilder<B> {
    match bearer {
        Some(bearer) => request.header("authorization", format!("Bearer {bearer}")),
        None => request,
    }
}

/// Where a server with these settings is, and whether that is on this host.
fn here(config: &Config) -> Result<(String, bool), RemoteError> {
    let address = reachable(config.api_listen);
    if address.port() == 0 {
        return Err(RemoteError::Unknown("--api-listen has port 0: --url must say which"));
    }
    let is_ours = |ip: IpAddr| ip.is_loopback() || own_addresses().contains(&ip);
    let scheme = if config.connections.tls.is_some() { "https" } else { "http" };
    Ok((format!("{scheme}://{address}"), is_ours(address.ip())))
}

/// The URL of an API, without the slash at its end.
///
/// # Errors
/// One sentence, for a text that is none.
pub(crate) fn base(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let good = !authority.is_empty()
        && !text.contains(['@', '?', '#'])
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    let wrong = || format!("{text:?} is no URL such as https://calls.example.org");
    if good { Ok(text.trim_end_matches('/').to_owned()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_scheme_host_and_maybe_a_path() {
        for (text, expected) in [
            ("https://calls.example.org", Some("https://calls.example.org")),
            ("http://127.0.0.1:6040/", Some("http://127.0.0.1:6040")),
            ("https://example.org/calls/", Some("https://example.org/calls")),
            ("calls.example.org", None),
            ("https://", None),
            ("https:///x", None),
            ("https://me:sesame@example.org", None),
            ("https://example.org/?a", None),
            ("ftp://example.org", None),
        ] {
            assert_eq!(base(text).ok().as_deref(), expected, "{text}");
        }
    }
}
