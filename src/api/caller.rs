//! Who calls, and what they may touch.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::{ApiError, Code};
use crate::access::{Grants, RoomToken};
use crate::id::{PeerId, RoomId};

/// A claim of a room token that a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant {
    Join,
    Publish,
    Subscribe,
    Admin,
}

impl Grant {
    fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Admin => "admin",
        }
    }

    fn is_in(self, grants: Grants) -> bool {
        match self {
            Self::Join => grants.join,
            Self::Publish => grants.publish,
            Self::Subscribe => grants.subscribe,
            Self::Admin => grants.admin,
        }
    }
}

/// Who calls. An administrator's token does everything that its room allows, for everybody in it.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// Nobody needs credentials here.
    Anyone,
    /// Of an API key; its id.
    Key(Arc<str>),
    /// Of a room token.
    Token(Arc<RoomToken>),
}

/// Whom a request's body is about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Subject<'a> {
    pub(super) room: Option<&'a RoomId>,
    pub(super) peer: Option<&'a PeerId>,
}

fn forbidden(message: impl Into<String>) -> ApiError {
    ApiError::new(Code::Forbidden, message)
}

impl Caller {
    /// The token of a caller who may not do everything everywhere.
    fn bounds(&self) -> Option<&RoomToken> {
        match self {
            Self::Anyone | Self::Key(_) => None,
            Self::Token(token) => Some(&**token).filter(|token| !token.grants.node),
        }
    }

    /// What concerns the whole node.
    pub(super) fn rules_node(&self) -> Result<(), ApiError> {
        match self.bounds() {
            None => Ok(()),
            Some(_) => Err(forbidden("this needs an API key, or a token that grants `node`")),
        }
    }

    /// All of these grants.
    pub(super) fn has(&self, needs: &[Grant]) -> Result<(), ApiError> {
        let Some(token) = self.bounds().filter(|token| !token.grants.admin) else { return Ok(()) };
        match needs.iter().find(|need| !need.is_in(token.grants)) {
            None => Ok(()),
            Some(missing) => {
                Err(forbidden(format!("the token does not grant `{}`", missing.name())))
            }
        }
    }

    /// This room and this peer, as far as a request names them.
    pub(super) fn may_name(&self, subject: Subject<'_>) -> Result<(), ApiError> {
        let Some(token) = self.bounds() else { return Ok(()) };
        if subject.room.is_some_and(|room| token.room.as_ref() != Some(room)) {
            return Err(forbidden("the token is for another room"));
        }
        let foreign = subject.peer.is_some_and(|peer| token.peer.as_ref() != Some(peer));
        if foreign && !token.grants.admin {
            return Err(forbidden("the token is for another peer"));
        }
        Ok(())
    }

    /// True when it may touch what that peer has in that room.
    pub(super) fn reaches(&self, room: &RoomId, peer: &PeerId) -> bool {
        self.may_name(Subject { room: Some(room), peer: Some(peer) }).is_ok()
    }

    /// True when it may touch everything, so that nobody needs to ask whose it is.
    pub(super) fn is_unbounded(&self) -> bool {
        self.bounds().is_none()
    }

    /// The name that a client goes by, who may have given one: a token's own, if it has one.
    pub(super) fn acting_as(&self, given: Option<PeerId>) -> Result<Option<PeerId>, ApiError> {
        self.may_name(Subject { room: None, peer: given.as_ref() })?;
        Ok(given.or_else(|| self.peer()))
    }

    /// Who it is, where a token says so.
    pub(super) fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Anyone | Self::Key(_) => None,
            Self::Token(token) => token.peer.clone(),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    /// As the gate found out.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| ApiError::new(Code::Unauthorized, "credentials were not looked at"))
    }
}
