//! The STUN and TURN servers that clients are told of: as `Link` headers by WHIP and WHEP
//! (RFC 9725 §4.6), as `iceServers` beside a transport.
//!
//! Invariant: credentials are told only to those who may have what they are for; what needs none is
//! told to everybody.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, HeaderValue, header};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Serialize;
use utoipa::ToSchema;

use super::gate::wall_clock;
use super::keeper::{FileKeeper, Kept, Words, unchanging};
use crate::config::{IceConfig, IceCredentials, IceServer};
use crate::limits::TURN_CREDENTIALS_TTL;

/// Those that are in use now; clones share them.
#[derive(Debug, Clone)]
pub struct IceServers(Kept<Vec<IceServer>>);

/// A STUN or TURN server, as `RTCPeerConnection` takes it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ToldServer {
    /// `stun:…` or `turn:…`.
    urls: Vec<String>,
    /// Of TURN alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// Of TURN alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

impl IceServers {
    /// With those that were read at start, and who looks after their file.
    #[must_use]
    pub fn start(config: IceConfig) -> (FileKeeper<Vec<IceServer>>, Self) {
        let words = Words {
            taken: |servers: &Vec<IceServer>| {
                tracing::info!(servers = servers.len(), "STUN and TURN servers read again");
            },
            stays: "the old STUN and TURN servers stay in use",
        };
        let servers = config.servers.clone();
        let (keeper, kept) = FileKeeper::start(move || config.read(), servers, words);
        (keeper, Self(kept))
    }

    fn current(&self) -> Arc<Vec<IceServer>> {
        Arc::clone(&self.0.borrow())
    }

    /// Whether there is one that not everybody may be told of.
    pub(super) fn have_credentials(&self) -> bool {
        self.current().iter().any(|server| server.credentials.is_some())
    }

    /// For who makes a transport; `None` when there are none.
    pub(super) fn told(&self) -> Option<Vec<ToldServer>> {
        let now = wall_clock();
        let told = |server: &IceServer| {
            let (username, credential) = credentials(server, now).unzip();
            ToldServer { urls: server.urls.clone(), username, credential }
        };
        let all = self.current();
        (!all.is_empty()).then(|| all.iter().map(told).collect())
    }

    /// Adds a link to each of them, but without `all` not to those that ask for credentials.
    pub(super) fn link(&self, headers: &mut HeaderMap, all: bool) {
        let now = wall_clock();
        for server in self.current().iter() {
            let credentials = credentials(server, now);
            let told = server.urls.iter().filter(|url| all || !IceServer::asks(url));
            for url in told {
                let credentials = credentials.as_ref().filter(|_| IceServer::asks(url));
                if let Ok(link) = HeaderValue::from_str(&link(url, credentials)) {
                    headers.append(header::LINK, link);
                }
            }
        }
    }
}

impl From<Vec<IceServer>> for IceServers {
    /// Servers that stay as they are.
    fn from(servers: Vec<IceServer>) -> Self {
        Self(unchanging(servers))
    }
}

impl Default for IceServers {
    fn default() -> Self {
        Vec::new().into()
    }
}

fn link(url: &str, credentials: Option<&(String, String)>) -> String {
    let Some((username, credential)) = credentials else {
        return format!("<{url}>; rel=\"ice-server\"");
    };
    let (username, credential) = (quoted(username), quoted(credential));
    format!(
        "<{url}>; rel=\"ice-server\"; username={username}; credential={credential}; \
         credential-type=\"password\""
    )
}

/// A quoted string (RFC 9110 §5.6.4).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Name and password for now.
fn credentials(server: &IceServer, now: SystemTime) -> Option<(String, String)> {
    match server.credentials.as_ref()? {
        IceCredentials::Fixed { username, credential } => {
            Some((username.clone(), credential.reveal().to_owned()))
        }
        IceCredentials::TimeLimited { username, secret } => {
            Some(time_limited(username.as_deref(), secret.reveal(), now))
        }
    }
}

/// What TURN servers take that share a secret with us (draft-uberti-behave-turn-rest-00 §2.2): a name
/// that says until when, and its signature.
fn time_limited(username: Option<&str>, secret: &str, now: SystemTime) -> (String, String) {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let until = since.saturating_add(TURN_CREDENTIALS_TTL).as_secs();
    let name = match username {
        Some(username) => format!("{until}:{username}"),
        None => until.to_string(),
    };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let signature = hmac::sign(&key, name.as_bytes());
    (name, BASE64_STANDARD.encode(signature.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_for_a_day_is_signed_as_turn_servers_check_it() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        // printf 1700086400:tea | openssl dgst -sha1 -hmac north -binary | base64
        let expected = ("1700086400:tea", "KqF7Ny75qfz9tA/FsjIZEEU+e54=");
        let (name, credential) = time_limited(Some("tea"), "north", now);
        assert_eq!((name.as_str(), credential.as_str()), expected);
        assert_eq!(time_limited(None, "north", now).0, "1700086400");
    }

    #[test]
    fn what_is_quoted_can_be_read_again() {
        assert_eq!(quoted(r#"a "b" \c"#), r#""a \"b\" \\c""#);
    }
}
