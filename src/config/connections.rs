//! Settings of the API's connections: TLS, and how many there may be.

use std::path::PathBuf;

use super::proxies::Proxies;
use super::sources::{Parsed, Sources};
use super::{ConfigError, NoNetwork};
use crate::limits::{API_CONNECTIONS, API_CONNECTIONS_MAX, API_CONNECTIONS_PER_ADDRESS};

/// PEM files of the API's certificate chain and private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, and those that lead to a root.
    pub cert: PathBuf,
    /// The key of the first one.
    pub key: PathBuf,
}

/// How the API is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionsConfig {
    /// TLS, if wanted; then nothing else is spoken.
    pub tls: Option<TlsConfig>,
    /// Connections at once, 1–[`API_CONNECTIONS_MAX`].
    pub node: usize,
    /// Connections at once from one address but loopback; `None` is no limit.
    pub address: Option<usize>,
    /// Whose word is taken for who a request is from.
    pub proxies: Proxies,
}

impl ConnectionsConfig {
    pub(super) fn of(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let path = |text: &str| Ok(PathBuf::from(text));
        let (cert, key) = (sources.one("tls-cert", path)?, sources.one("tls-key", path)?);
        let tls = match (cert, key) {
            (Some(cert), Some(key)) => Some(TlsConfig { cert, key }),
            (None, None) => None,
            (Some(_), None) => return Err(ConfigError::Missing("tls-cert", "tls-key")),
            (None, Some(_)) => return Err(ConfigError::Missing("tls-key", "tls-cert")),
        };
        let node = sources.one("api-connections", node)?.unwrap_or(API_CONNECTIONS);
        let address = sources.one("api-connections-per-address", address)?;
        let address = address.unwrap_or(Some(API_CONNECTIONS_PER_ADDRESS));
        let network = |text: &str| match Proxies::of([text]) {
            Ok(_) => Ok(text.to_owned()),
            Err(NoNetwork) => Err(format!("{text:?} {NoNetwork}")),
        };
        let proxies = sources.many("trusted-proxies", network)?.unwrap_or_default();
        // Each was read before.
        let proxies = Proxies::of(proxies.iter().map(String::as_str)).unwrap_or_default();
        Ok(Self { tls, node, address, proxies })
    }
}

fn node(text: &str) -> Parsed<usize> {
    match text.parse() {
        Ok(number) if (1..=API_CONNECTIONS_MAX).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is no number from 1 to {API_CONNECTIONS_MAX}")),
    }
}

/// 0 is no limit.
fn address(text: &str) -> Parsed<Option<usize>> {
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(number) if number <= API_CONNECTIONS_MAX => Ok(Some(number)),
        _ => Err(format!("{text:?} is no number from 0 to {API_CONNECTIONS_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{config, refusal};

    #[test]
    fn flags_tell_how_the_api_is_connected_to() {
        let told = config(
            &[
                "--tls-cert=/etc/cert.pem",
                "--tls-key=/etc/key.pem",
                "--api-connections=500",
                "--api-connections-per-address=0",
                "--trusted-proxies=10.0.0.0/8,::1",
            ],
            &[],
        );
        let pair = TlsConfig { cert: "/etc/cert.pem".into(), key: "/etc/key.pem".into() };
        let proxies = Proxies::of(["10.0.0.0/8", "::1"]).unwrap();
        let expected = ConnectionsConfig { tls: Some(pair), node: 500, address: None, proxies };
        assert_eq!(told.connections, expected);
        for (flag, words) in [
            ("--tls-cert=/etc/cert.pem", "tls-key"),
            ("--tls-key=/etc/key.pem", "tls-cert"),
            ("--api-connections=0", "--api-connections"),
            ("--api-connections=1000001", "--api-connections"),
            ("--api-connections-per-address=-1", "--api-connections-per-address"),
            (
                "--trusted-proxies=::1,nginx",
                "--trusted-proxies: \"nginx\" is no IP address or network",
            ),
        ] {
            let error = refusal(&[flag], &[]);
            assert!(error.contains(words), "{error}");
        }
    }
}
