//! Room tokens: JSON Web Tokens (RFC 7519) that say who may do what in which room, until when.

use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, dangerous, decode, decode_header, encode};
use serde_json::{Map, Value, json};

use super::key::{ApiKey, ApiKeys};
use crate::id::{PeerId, RoomId};
use crate::limits::{TOKEN_BYTES_MAX, TOKEN_EXPIRES_MAX, TOKEN_LEEWAY};

/// Why a token is not taken. Nothing of it is told but the name of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Neither a key nor three parts with dots between them that say something.
    #[error("the credentials are neither a known key nor a well-formed token")]
    Malformed,
    /// Unsigned, or signed in another way.
    #[error("the token must be signed with HS256")]
    Algorithm,
    /// It names extensions that must be understood (RFC 7515 §4.1.11).
    #[error("the token has critical header parameters that are not known here")]
    Critical,
    /// Neither `kid` nor `iss` names a key, and there are several.
    #[error("the token names no key that is known here: `kid` or `iss` must be a key's id")]
    UnknownKey,
    /// Not signed with that key.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim that must be there is not.
    #[error("the token has no `{0}`")]
    Missing(&'static str),
    /// A claim of another type or range.
    #[error("the token's `{0}` is malformed")]
    Claim(&'static str),
    /// An `exp` that a clock in milliseconds would say.
    #[error("the token's `exp` is thousands of years ahead: it is in seconds since 1970")]
    Endless,
    /// After `exp`.
    #[error("the token has expired")]
    Expired,
    /// Before `nbf`.
    #[error("the token is not valid yet")]
    NotYet,
    /// For the node and for a room.
    #[error("a token that grants `node` is for all rooms: it has no `room`")]
    Bounded,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a claim of its own")]
pub struct Grants {
    /// To be in the room.
    pub join: bool,
    /// To send.
    pub publish: bool,
    /// To receive.
    pub subscribe: bool,
    /// Everything in the room, whoever's it is.
    pub admin: bool,
    /// Everything in all rooms and on the node. A claim of its own, so that a backend that leaves
    /// out `room` by mistake gives nobody the node.
    pub node: bool,
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomToken {
    /// The id of the key that signed it.
    pub key: String,
    /// Where; `None` is everywhere, for operators of the node only.
    pub room: Option<RoomId>,
    /// Who; `None` is nobody, for administrators and operators only.
    pub peer: Option<PeerId>,
    /// What.
    pub grants: Grants,
}

impl RoomToken {
    /// Reads a token and checks everything of it that does not depend on what is asked for.
    ///
    /// The key is the one that `kid` names, or else `iss`, or else the only one there is. Clocks may
    /// differ by [`TOKEN_LEEWAY`].
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(token: &str, keys: &ApiKeys, now: SystemTime) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        if token.split('.').count() != 3 {
            return Err(TokenError::Malformed);
        }
        let header = decode_header(token).map_err(|error| match error.kind() {
            // An algorithm without a name here, among them `none`.
            ErrorKind::Json(error) if error.is_data() => TokenError::Algorithm,
            _ => TokenError::Malformed,
        })?;
        if header.alg != Algorithm::HS256 {
            return Err(TokenError::Algorithm);
        }
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let key = key_of(token, header.kid.as_deref(), keys)?;
        // Times are checked below, with the caller's clock.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let decoded = decode::<Map<String, Value>>(token, &key.decoding(), &validation);
        let claims = decoded.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenError::Signature,
            ErrorKind::InvalidAlgorithm => TokenError::Algorithm,
            _ => TokenError::Malformed,
        })?;
        of_claims(key.id(), &claims.claims, now)
    }

    /// Signs a token that is valid until `expires`.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] when the library refuses, which it has no reason to.
    pub fn sign(&self, key: &ApiKey, expires: SystemTime) -> Result<String, TokenError> {
        let since = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let mut claims = Map::new();
        let mut claim = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        if let Some(peer) = &self.peer {
            claim("sub", json!(peer.to_string()));
        }
        if let Some(room) = &self.room {
            claim("room", json!(room.to_string()));
        }
        claim("exp", json!(since.as_secs()));
        let Grants { join, publish, subscribe, admin, node } = self.grants;
        for (name, granted) in [
            ("join", join),
            ("publish", publish),
            ("subscribe", subscribe),
            ("admin", admin),
            ("node", node),
        ] {
            if granted {
                claim(name, json!(true));
            }
        }
        let header = Header { kid: Some(key.id().to_owned()), ..Header::new(Algorithm::HS256) };
        encode(&header, &claims, &key.encoding()).map_err(|_| TokenError::Malformed)
    }
}

/// Whose signature a token claims to have: read before that is known to be true.
fn key_of<'a>(token: &str, kid: Option<&str>, keys: &'a ApiKeys) -> Result<&'a ApiKey, TokenError> {
    if let Some(kid) = kid {
        return keys.named(kid).ok_or(TokenError::UnknownKey);
    }
    let claims = dangerous::insecure_decode::<Map<String, Value>>(token);
    let claims = claims.map_err(|_| TokenError::Malformed)?.claims;
    let named = claims.get("iss").and_then(Value::as_str).and_then(|issuer| keys.named(issuer));
    named.or_else(|| keys.only()).ok_or(TokenError::UnknownKey)
}

fn of_claims(
    key: &str,
    claims: &Map<String, Value>,
    now: SystemTime,
) -> Result<RoomToken, TokenError> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let expires = time(claims, "exp")?.ok_or(TokenError::Missing("exp"))?;
    if expires + TOKEN_LEEWAY.as_secs_f64() <= since.as_secs_f64() {
        return Err(TokenError::Expired);
    }
    if expires >= TOKEN_EXPIRES_MAX {
        return Err(TokenError::Endless);
    }
    let begins = time(claims, "nbf")?;
    if begins.is_some_and(|begins| begins > since.as_secs_f64() + TOKEN_LEEWAY.as_secs_f64()) {
        return Err(TokenError::NotYet);
    }
    let grant = |name| match claims.get(name) {
        None => Ok(false),
        Some(Value::Bool(granted)) => Ok(*granted),
        Some(_) => Err(TokenError::Claim(name)),
    };
    let grants = Grants {
        join: grant("join")?,
        publish: grant("publish")?,
        subscribe: grant("subscribe")?,
        admin: grant("admin")?,
        node: grant("node")?,
    };
    let room = name(claims, "room")?.map(RoomId::try_from).transpose();
    let room = room.map_err(|_| TokenError::Claim("room"))?;
    let peer = name(claims, "sub")?.map(PeerId::try_from).transpose();
    let peer = peer.map_err(|_| TokenError::Claim("sub"))?;
    match &room {
        None if !grants.node => return Err(TokenError::Missing("room")),
        Some(_) if grants.node => return Err(TokenError::Bounded),
        _ => {}
    }
    if peer.is_none() && !grants.admin && !grants.node {
        return Err(TokenError::Missing("sub"));
    }
    Ok(RoomToken { key: key.to_owned(), room, peer, grants })
}

fn name<'a>(
    claims: &'a Map<String, Value>,
    claim: &'static str,
) -> Result<Option<&'a str>, TokenError> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(name)) => Ok(Some(name)),
        Some(_) => Err(TokenError::Claim(claim)),
    }
}

/// A `NumericDate` (RFC 7519 §2), which may have a fraction.
fn time(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<f64>, TokenError> {
    match claims.get(claim) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(TokenError::Claim(claim)),
    }
}
