//! The gate before every route: who calls, and whether they may.
//!
//! A layer over all routes, on the control thread. Invariants: a handler runs only for a caller who
//! fulfils the route's [`Rule`], apart from what only a body or a query names, which
//! [`Body`](super::body::Body) and the handler check; a secret or token is never shown; who asks too
//! often is refused before anything is looked up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::caller::{Caller, Subject};
use super::error::{ApiError, Code};
use super::keys::KeyRing;
use super::path::{Of, Parameters, Segment, SessionId};
use super::rates::Rates;
use super::rule::{self, Kind, Rule};
use crate::access::RoomToken;
use crate::config::Proxies;
use crate::control::{Control, Owned};
use crate::id::{ConsumerId, ProducerId, RoomId, TransportId};

/// Whom proxies ask for, the last one's client last.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What proxies add to what they pass on.
const PASSED_ON: [HeaderName; 5] = [
    FORWARDED_FOR,
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
    header::FORWARDED,
    header::VIA,
];

/// What the gate knows.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    pub(super) control: Control,
    pub(super) keys: KeyRing,
    /// `/metrics` needs no credentials.
    pub(super) open_metrics: bool,
    /// Where Swagger UI is, with its slash.
    pub(super) docs: Arc<str>,
    /// Whose word is taken for who asks.
    pub(super) proxies: Proxies,
    pub(super) rates: Arc<Rates>,
}

/// Lets a request in or refuses it.
pub(super) async fn admit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match gate.caller(&mut parts).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refused) => refused.into_response(),
    }
}

impl Gate {
    /// What is not there asks nothing of who asks for it.
    fn rule(&self, parts: &Parts) -> Rule {
        let route = parts.extensions.get::<MatchedPath>();
        match route.map(|route| rule::of_route(&parts.method, route.as_str(), &self.docs)) {
            None => Rule::Open,
            Some(Rule::Metrics) if self.open_metrics => Rule::Open,
            Some(rule) => rule,
        }
    }

    /// Whether who asks what a route takes may use it by `method`. A question that names nobody,
    /// such as a browser's before every call, is nobody's to pay for.
    ///
    /// # Errors
    /// When they ask too often, which says nothing of what they may.
    pub(super) async fn would_admit(
        &self,
        method: Method,
        parts: &Parts,
    ) -> Result<bool, ApiError> {
        let is_named = parts.headers.contains_key(header::AUTHORIZATION);
        if !is_named && !self.keys.current().is_empty() {
            return Ok(false);
        }
        let mut parts = parts.clone();
        parts.method = method;
        match self.caller(&mut parts).await {
            Err(refused) if refused.code == Code::TooManyRequests => Err(refused),
            judged => Ok(judged.is_ok()),
        }
    }

    async fn caller(&self, parts: &mut Parts) -> Result<Caller, ApiError> {
        let rule = self.rule(parts);
        if rule == Rule::Probe {
            return Ok(Caller::Anyone);
        }
        if self.keys.current().is_empty() || rule == Rule::Open {
            self.count_stranger(parts)?;
            if rule == Rule::Node && ends_calls(parts) && !from_here(parts) {
                let why = "without API keys a drain is begun and called off on the host itself";
                return Err(ApiError::new(Code::Forbidden, why));
            }
            return Ok(Caller::Anyone);
        }
        let in_query = matches!(rule, Rule::Events(_));
        let given = match bearer(parts) {
            None if in_query => query_token(parts).await,
            given => given,
        };
        let needed = || ApiError::new(Code::Unauthorized, "an API key or a room token is needed");
        let caller = match given.ok_or_else(needed).and_then(|given| self.identify(&given)) {
            Ok(caller) => caller,
            Err(refused) => {
                self.count_stranger(parts)?;
                return Err(refused);
            }
        };
        self.rates.count_caller(&caller, Instant::now()).map_err(ApiError::limited)?;
        self.judge(rule, &caller, parts).await?;
        Ok(caller)
    }

    /// Counts a request of somebody who is known by their address alone. Who is known otherwise
    /// has a bucket of their own, which strangers at the same address cannot empty.
    fn count_stranger(&self, parts: &Parts) -> Result<(), ApiError> {
        let Some(ConnectInfo(from)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else {
            return Ok(());
        };
        let told = parts.headers.get_all(FORWARDED_FOR).into_iter();
        let client = self.proxies.client(from.ip(), told.map(HeaderValue::as_bytes));
        self.rates.count_address(client, Instant::now()).map_err(ApiError::limited)
    }

    fn identify(&self, given: &str) -> Result<Caller, ApiError> {
        let keys = self.keys.current();
        if let Some(key) = keys.with_secret(given) {
            return Ok(Caller::Key(key.id().into()));
        }
        let token = RoomToken::read(given, &keys, wall_clock());
        let token = token.map_err(|why| ApiError::new(Code::InvalidToken, why.to_string()))?;
        Ok(Caller::Token(Arc::new(token)))
    }

    async fn judge(&self, rule: Rule, caller: &Caller, parts: &mut Parts) -> Result<(), ApiError> {
        if caller.is_unbounded() {
            return Ok(());
        }
        match rule {
            Rule::Probe | Rule::Open => Ok(()),
            Rule::Metrics | Rule::Node => caller.rules_node(),
            Rule::Body(needs) => caller.has(needs),
            Rule::Room(needs) | Rule::Events(needs) => {
                caller.has(needs)?;
                let Of(room) = Of::<RoomId>::from_request_parts(parts, &()).await?;
                caller.may_name(Subject { room: Some(&room), peer: None })
            }
            Rule::Own(kind, needs) => {
                caller.has(needs)?;
                let owned = named(kind, parts).await?;
                let (room, peer) = self.control.owner(owned)?;
                if caller.reaches(&room, &peer) { Ok(()) } else { Err(owned.not_found().into()) }
            }
        }
    }
}

/// What the path names.
async fn named(kind: Kind, parts: &mut Parts) -> Result<Owned, ApiError> {
    async fn id<T: Segment>(parts: &mut Parts) -> Result<T, ApiError> {
        Of::<T>::from_request_parts(parts, &()).await.map(|Of(id)| id)
    }
    Ok(match kind {
        Kind::Transport => Owned::Transport(id::<TransportId>(parts).await?),
        Kind::Session => Owned::Session(id::<SessionId>(parts).await?.0),
        Kind::Producer => Owned::Producer(id::<ProducerId>(parts).await?),
        Kind::Consumer => Owned::Consumer(id::<ConsumerId>(parts).await?),
    })
}

/// Whether a request changes the drain, by which anybody could end the node.
fn ends_calls(parts: &Parts) -> bool {
    let route = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    route == Some("/admin/drain")
}

/// Whether whoever asks is on this host, and not somebody for whom a proxy on it asks: most proxies
/// say so, if they are told to, and who says so of itself gains nothing.
fn from_here(parts: &Parts) -> bool {
    let is_passed_on = PASSED_ON.iter().any(|header| parts.headers.contains_key(header));
    let from = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    !is_passed_on && from.is_none_or(|ConnectInfo(from)| from.ip().to_canonical().is_loopback())
}

/// What stands behind `Authorization: Bearer` (RFC 6750 §2.1).
fn bearer(parts: &Parts) -> Option<String> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim().to_owned())
}

/// `access_token` in the query (RFC 6750 §2.3).
async fn query_token(parts: &mut Parts) -> Option<String> {
    let query = Parameters::from_request_parts(parts, &()).await.ok()?;
    query.text("access_token").map(str::to_owned)
}

#[expect(clippy::disallowed_methods, reason = "tokens end by the clock of whoever signs them")]
pub(super) fn wall_clock() -> SystemTime {
    SystemTime::now()
}
