//! The seven routes of the REST contract, as a browser's application calls them.
//!
//! Used by the joining thread only; blocking, with kept-alive connections. It reads no more of an
//! answer than clients need, so that any server with these routes will do. Over https it trusts what
//! the web trusts, or `--ca` alone, or with `--insecure` anybody.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::agent::Remote;
use crate::args::Args;
use crate::parameters::{self, Received};
use crate::plan::Publication;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections that wait for the next call: ureq's default, and more than a thread uses.
const KEPT_ALIVE: usize = 10;

/// The server's API.
pub(crate) struct Api {
    agent: ureq::Agent,
    base: String,
    authorization: Option<String>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("base", &self.base).finish_non_exhaustive()
    }
}

/// A producer as the list of a room names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// `producerId`.
    pub(crate) producer: String,
}

impl Api {
    /// The API that the command line names; refused with the flag that is wrong.
    pub(crate) fn new(args: &Args) -> Result<Self, String> {
        Self::of(args, KEPT_ALIVE)
    }

    /// The same, with a new connection for each call.
    pub(crate) fn without_connections(args: &Args) -> Result<Self, String> {
        Self::of(args, 0)
    }

    fn of(args: &Args, kept_alive: usize) -> Result<Self, String> {
        let base = args.url.trim_end_matches('/');
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(format!("--url: {base:?} begins with neither http:// nor https://"));
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(CALL_TIMEOUT))
            .http_status_as_error(false)
            .max_idle_connections(kept_alive)
            .tls_config(tls(args)?)
            .build();
        let authorization = args.token.as_deref().map(|token| format!("Bearer {token}"));
        Ok(Self { agent: config.into(), base: base.to_owned(), authorization })
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.base);
        let mut request = self.agent.post(&url).header("content-type", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let answer = request.send(body.to_string());
        read(answer).map_err(|reason| format!("POST {path}: {reason}"))
    }

    /// `POST /media/room`: the router's capabilities.
    pub(crate) fn create_room(&self, room: &str, initiator: &str) -> Result<Value, String> {
        let body = json!({ "roomId": room, "initiatorId": initiator });
        let mut data = self.post("/media/room", &body)?;
        let capabilities = data.get_mut("routerRtpCapabilities").map(Value::take);
        capabilities.ok_or_else(|| "POST /media/room: no routerRtpCapabilities".into())
    }

    /// `POST /media/transport/:roomId`: the id, and what to connect to.
    pub(crate) fn create_transport(
        &self,
        room: &str,
        peer: &str,
        direction: &str,
    ) -> Result<(String, Remote), String> {
        let path = format!("/media/transport/{room}");
        let data = self.post(&path, &json!({ "peerId": peer, "direction": direction }))?;
        let id = text(&data, "/id")?;
        let fingerprints = data.pointer("/dtlsParameters/fingerprints").and_then(Value::as_array);
        let fingerprint = fingerprints
            .into_iter()
            .flatten()
            .find(|fingerprint| fingerprint.get("algorithm") == Some(&json!("sha-256")))
            .and_then(|fingerprint| fingerprint.get("value")?.as_str())
            .ok_or("POST /media/transport: no sha-256 fingerprint")?;
        let candidates = data.get("iceCandidates").and_then(Value::as_array);
        let address = candidates
            .into_iter()
            .flatten()
            .filter(|candidate| candidate.get("protocol") == Some(&json!("udp")))
            .find_map(candidate_address)
            .ok_or("POST /media/transport: no UDP candidate that resolves")?;
        let remote = Remote {
            ufrag: text(&data, "/iceParameters/usernameFragment")?,
            password: text(&data, "/iceParameters/password")?,
            address,
            fingerprint: format!("sha-256 {fingerprint}"),
        };
        Ok((id, remote))
    }

    /// `POST /media/transport/:transportId/connect`, as DTLS client.
    pub(crate) fn connect(&self, transport: &str, fingerprint: &str) -> Result<(), String> {
        let fingerprints = json!([{ "algorithm": "sha-256", "value": fingerprint }]);
        let body = json!({ "dtlsParameters": { "role": "client", "fingerprints": fingerprints } });
        self.post(&format!("/media/transport/{transport}/connect"), &body).map(|_| ())
    }

    /// `POST /media/producer`: the producer's id.
    pub(crate) fn produce(
        &self,
        room: &str,
        peer: &str,
        transport: &str,
        publication: &Publication,
    ) -> Result<String, String> {
        let body = json!({
            "roomId": room,
            "peerId": peer,
            "transportId": transport,
            "kind": publication.kind.name(),
            "rtpParameters": parameters::of_publication(publication, peer),
        });
        text(&self.post("/media/producer", &body)?, "/producerId")
    }

    /// `POST /media/consumer`: what to expect on the wire.
    pub(crate) fn consume(
        &self,
        room: &str,
        peer: &str,
        transport: &str,
        producer: &str,
        capabilities: &Value,
    ) -> Result<Received, String> {
        let body = json!({
            "roomId": room,
            "peerId": peer,
            "transportId": transport,
            "producerId": producer,
            "rtpCapabilities": capabilities,
        });
        let data = self.post("/media/consumer", &body)?;
        data.get("rtpParameters")
            .and_then(Received::read)
            .ok_or_else(|| "POST /media/consumer: no usable rtpParameters".into())
    }

    /// `GET /media/room/:roomId/producers`.
    pub(crate) fn producers(&self, room: &str, except: &str) -> Result<Vec<Listed>, String> {
        let path = format!("/media/room/{room}/producers?excludePeerId={except}");
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let data = read(request.call()).map_err(|reason| format!("GET {path}: {reason}"))?;
        let listed = data.get("producers").and_then(Value::as_array).into_iter().flatten();
        listed.map(|one| Ok(Listed { producer: text(one, "/producerId")? })).collect()
    }

    /// `GET /metrics`, which only some servers have: `None` without it.
    pub(crate) fn metrics(&self) -> Option<String> {
        let mut request = self.agent.get(format!("{}/metrics", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let mut answer = request.call().ok()?;
        answer.status().is_success().then_some(())?;
        answer.body_mut().read_to_string().ok()
    }

    /// `POST /media/room/:roomId/leave`.
    pub(crate) fn leave(&self, room: &str, peer: &str) -> Result<(), String> {
        self.post(&format!("/media/room/{room}/leave"), &json!({ "peerId": peer })).map(|_| ())
    }
}

/// Whom to trust over https.
fn tls(args: &Args) -> Result<TlsConfig, String> {
    let crypto = rustls::crypto::aws_lc_rs::default_provider();
    let config = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(crypto))
        .disable_verification(args.insecure);
    let roots = match &args.ca {
        Some(path) => {
            authorities(path).map_err(|error| format!("--ca {}: {error}", path.display()))?
        }
        None => RootCerts::WebPki,
    };
    Ok(config.root_certs(roots).build())
}

/// The certificates of a PEM file.
fn authorities(path: &Path) -> Result<RootCerts, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let items = parse_pem(&pem).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    let certificate = |item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    };
    let all: Vec<Certificate<'static>> = items.into_iter().filter_map(certificate).collect();
    if all.is_empty() { Err("no certificate in it".into()) } else { Ok(all.into()) }
}

/// The `data` of an answer's envelope, or why there is none.
fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, String> {
    let mut answer = answer.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("{status}: {}", body.chars().take(200).collect::<String>()));
    }
    let mut envelope: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
    match envelope.get_mut("data") {
        Some(data) => Ok(data.take()),
        None => Err("an answer without data".into()),
    }
}

fn text(data: &Value, pointer: &str) -> Result<String, String> {
    let found = data.pointer(pointer).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| format!("an answer without {pointer}"))
}

/// The address of a candidate (`address`, or `ip` in older servers), resolving names.
fn candidate_address(candidate: &Value) -> Option<SocketAddr> {
    let host = candidate.get("address").or_else(|| candidate.get("ip"))?.as_str()?;
    let port = u16::try_from(candidate.get("port")?.as_u64()?).ok()?;
    (host, port).to_socket_addrs().ok()?.next()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn whom_to_call_and_whom_to_trust_are_refused_naming_the_flag() {
        let words = |flag: &str| Args::parse_from(["loadtest", "audio", flag]);
        assert!(Api::new(&words("--url=https://127.0.0.1:1")).is_ok());
        assert!(Api::new(&words("--insecure")).is_ok());
        let source = concat!("--ca=", file!()).replace("loadtest/", "");
        for (flag, reason) in [
            ("--url=127.0.0.1:6040", "--url"),
            ("--ca=/nowhere/ca.pem", "--ca /nowhere/ca.pem"),
            (&source, "no certificate in it"),
        ] {
            let refused = Api::new(&words(flag)).unwrap_err();
            assert!(refused.contains(reason), "{flag}: {refused}");
        }
    }

    #[test]
    fn candidates_of_new_and_old_servers_are_read() {
        let cases = [
            (json!({ "address": "127.0.0.1", "port": 7 }), Some("127.0.0.1:7")),
            (json!({ "ip": "127.0.0.1", "port": 7 }), Some("127.0.0.1:7")),
            (json!({ "address": "::1", "ip": "1.2.3.4", "port": 7 }), Some("[::1]:7")),
            (json!({ "address": "127.0.0.1" }), None),
            (json!({ "address": "127.0.0.1", "port": 70_000 }), None),
        ];
        for (candidate, expected) in cases {
            assert_eq!(candidate_address(&candidate), expected.map(|a| a.parse().unwrap()));
        }
    }
}
