//! The one id in a path, and the parameters of a query.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::request::Parts;

use super::error::{ApiError, Code};
use super::fields;
use crate::id::{ConsumerId, ProducerId, RoomId, TransportId};

/// Something that a path names.
pub(super) trait Segment: Sized {
    /// Reads the segment, percent-decoded.
    fn read(text: &str) -> Result<Self, ApiError>;
}

impl Segment for RoomId {
    fn read(text: &str) -> Result<Self, ApiError> {
        fields::room_id("roomId", text)
    }
}

macro_rules! server_named {
    ($($id:ident, $code:ident, $what:literal;)*) => {$(
        impl Segment for $id {
            /// What is no UUID is nobody's id.
            fn read(text: &str) -> Result<Self, ApiError> {
                text.parse().map_err(|_| ApiError::new(Code::$code, $what))
            }
        }
    )*};
}

server_named! {
    TransportId, TransportNotFound, "transport not found";
    ProducerId, ProducerNotFound, "producer not found";
    ConsumerId, ConsumerNotFound, "consumer not found";
}

/// The session in the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct SessionId(pub(super) TransportId);

impl Segment for SessionId {
    fn read(text: &str) -> Result<Self, ApiError> {
        let id = text.parse().map(Self);
        id.map_err(|_| ApiError::new(Code::SessionNotFound, "session not found"))
    }
}

/// The id in the path.
#[derive(Debug)]
pub(super) struct Of<T>(pub(super) T);

impl<T: Segment, S: Send + Sync> FromRequestParts<S> for Of<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::invalid("path", "must be UTF-8"))?;
        let (_, text) = params.iter().next().ok_or_else(|| ApiError::missing("path parameter"))?;
        T::read(text).map(Self)
    }
}

/// The parameters of the query; an empty one is absent.
#[derive(Debug)]
pub(super) struct Parameters(HashMap<String, String>);

impl Parameters {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|_| ApiError::invalid(name, "must be an integer, 0 or more"))
            })
            .transpose()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(parameters) = Query::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::invalid("query", "is malformed"))?;
        Ok(Self(parameters))
    }
}
