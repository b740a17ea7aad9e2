//! Every refusal of the API: one code, one status, one sentence.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::control::ControlError;
use crate::limits::{Limit, Scope};
use crate::ortc::OrtcError;
use crate::sdp::SdpError;

/// Seconds after which a refusal for overload is worth another try.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $status:ident;)*) => {
        /// A stable word per kind of refusal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Code { $($(#[doc = $doc])* $name,)* }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word in the envelope.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status it goes with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }
        }
    };
}

codes! {
    /// The body is not JSON; the sentence says where.
    MalformedJson = "malformed_json", BAD_REQUEST;
    /// A field that must be there is not; the sentence names it.
    MissingParameter = "missing_parameter", BAD_REQUEST;
    /// A field or parameter is of the wrong type or value; the sentence names it.
    InvalidParameter = "invalid_parameter", BAD_REQUEST;
    /// Neither an API key nor a room token was given.
    Unauthorized = "unauthorized", UNAUTHORIZED;
    /// The key or token that was given is not taken; the sentence says why.
    InvalidToken = "invalid_token", UNAUTHORIZED;
    /// The token does not allow this; the sentence says what it lacks.
    Forbidden = "forbidden", FORBIDDEN;
    /// No such route.
    RouteNotFound = "route_not_found", NOT_FOUND;
    /// No such room.
    RoomNotFound = "room_not_found", NOT_FOUND;
    /// No such peer in the room.
    PeerNotFound = "peer_not_found", NOT_FOUND;
    /// No such transport, or not this peer's.
    TransportNotFound = "transport_not_found", NOT_FOUND;
    /// No such producer, or not in this room.
    ProducerNotFound = "producer_not_found", NOT_FOUND;
    /// No such consumer.
    ConsumerNotFound = "consumer_not_found", NOT_FOUND;
    /// No such WHIP or WHEP session.
    SessionNotFound = "session_not_found", NOT_FOUND;
    /// The route exists, but not with this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    /// `connect` was called before.
    AlreadyConnected = "already_connected", CONFLICT;
    /// A name, SSRC, MID or RID is in use.
    AlreadyExists = "already_exists", CONFLICT;
    /// Nothing is sent yet that could be played; try again after `Retry-After` seconds.
    NothingToPlay = "nothing_to_play", CONFLICT;
    /// The answer is SDP, and `Accept` does not allow that.
    NotAcceptable = "not_acceptable", NOT_ACCEPTABLE;
    /// `If-Match` names another ICE session than the present one.
    PreconditionFailed = "precondition_failed", PRECONDITION_FAILED;
    /// `If-Match` is missing: `*` restarts ICE, the session's entity tag goes with candidates.
    PreconditionRequired = "precondition_required", PRECONDITION_REQUIRED;
    /// The body did not arrive in time.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT;
    /// The body is larger than 256 KiB.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE;
    /// The body is not declared as JSON.
    NotJson = "not_json", UNSUPPORTED_MEDIA_TYPE;
    /// The body is compressed (`Content-Encoding`), which is not read here.
    UnsupportedEncoding = "unsupported_encoding", UNSUPPORTED_MEDIA_TYPE;
    /// The body is not declared as SDP, or as a fragment of it.
    NotSdp = "not_sdp", UNSUPPORTED_MEDIA_TYPE;
    /// The body is no SDP; the sentence says where.
    MalformedSdp = "malformed_sdp", BAD_REQUEST;
    /// A codec or capability that this server does not carry.
    NotSupported = "not_supported", UNPROCESSABLE_ENTITY;
    /// The peer, or one of its transports, has as much as it may; the sentence says of what.
    LimitReached = "limit_reached", TOO_MANY_REQUESTS;
    /// The room has as much as it may; the sentence says of what.
    RoomFull = "room_full", TOO_MANY_REQUESTS;
    /// Asked too often; try again after `Retry-After` seconds.
    TooManyRequests = "too_many_requests", TOO_MANY_REQUESTS;
    /// The node has as much as it may; the sentence says of what. Try again after `Retry-After`
    /// seconds, or elsewhere.
    NodeFull = "node_full", SERVICE_UNAVAILABLE;
    /// A page of another site asked for what only operators may do.
    CrossSite = "cross_site", FORBIDDEN;
    /// The process is to end, which cannot be called off.
    Ending = "ending", CONFLICT;
    /// No new rooms begin here: try again on another server, or after `Retry-After` seconds.
    Draining = "draining", SERVICE_UNAVAILABLE;
    /// Try again after `Retry-After` seconds.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE;
}

/// A refusal on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Which kind.
    pub code: Code,
    /// For a human.
    pub message: String,
    /// The limit that is reached, where that is why.
    pub limit: Option<Limit>,
}

impl ApiError {
    /// A refusal with its sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), limit: None }
    }

    /// There is as much of something as there may be.
    #[must_use]
    pub fn limited(limit: Limit) -> Self {
        let code = match limit.scope() {
            Scope::Node => Code::NodeFull,
            Scope::Room => Code::RoomFull,
            Scope::Peer => Code::LimitReached,
            Scope::Rate => Code::TooManyRequests,
        };
        let message = match limit.scope() {
            Scope::Rate => format!("too many {} ({})", limit.what(), limit.name()),
            _ => ControlError::LimitReached(limit).to_string(),
        };
        Self { limit: Some(limit), ..Self::new(code, message) }
    }

    /// `field` is of the wrong type or value.
    #[must_use]
    pub fn invalid(field: &str, must: &str) -> Self {
        Self::new(Code::InvalidParameter, format!("{field} {must}"))
    }

    /// `field` is not there.
    #[must_use]
    pub fn missing(field: &str) -> Self {
        Self::new(Code::MissingParameter, format!("{field} is missing"))
    }
}

/// The body of every refusal.
#[derive(Debug, Serialize, ToSchema)]
pub struct Failure {
    /// Always false.
    pub success: bool,
    /// A sentence for a human.
    pub data: String,
    /// A stable word per kind of refusal.
    pub code: Code,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let body = Failure { success: false, data: self.message, code: self.code };
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE
            || matches!(self.code, Code::NothingToPlay | Code::TooManyRequests)
        {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if let Some(limit) = self.limit {
            // For whoever counts refusals.
            response.extensions_mut().insert(limit);
        }
        if self.code == Code::UnsupportedEncoding {
            // What would be read (RFC 9110 §12.5.3).
            let plain = HeaderValue::from_static("identity");
            response.headers_mut().insert(header::ACCEPT_ENCODING, plain);
        }
        if let Some(challenge) = challenge(self.code) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// What a refusal says of the credentials that it wants (RFC 6750 §3).
fn challenge(code: Code) -> Option<HeaderValue> {
    match code {
        Code::Unauthorized => Some(HeaderValue::from_static("Bearer")),
        Code::InvalidToken => Some(HeaderValue::from_static("Bearer error=\"invalid_token\"")),
        Code::Forbidden => Some(HeaderValue::from_static("Bearer error=\"insufficient_scope\"")),
        _ => None,
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let code = match &error {
            ControlError::RoomNotFound => Code::RoomNotFound,
            ControlError::PeerNotFound => Code::PeerNotFound,
            ControlError::TransportNotFound => Code::TransportNotFound,
            ControlError::ProducerNotFound => Code::ProducerNotFound,
            ControlError::ConsumerNotFound => Code::ConsumerNotFound,
            ControlError::SessionNotFound => Code::SessionNotFound,
            ControlError::NothingToPlay => Code::NothingToPlay,
            ControlError::PreconditionRequired => Code::PreconditionRequired,
            ControlError::PreconditionFailed => Code::PreconditionFailed,
            ControlError::AlreadyConnected => Code::AlreadyConnected,
            ControlError::AlreadyExists(_) => Code::AlreadyExists,
            ControlError::Invalid(_) => Code::InvalidParameter,
            ControlError::Unsupported(_) => Code::NotSupported,
            ControlError::LimitReached(limit) => return Self::limited(*limit),
            ControlError::Draining => Code::Draining,
            ControlError::Ending => Code::Ending,
            ControlError::Overloaded => Code::Overloaded,
        };
        Self::new(code, error.to_string())
    }
}

impl From<SdpError> for ApiError {
    fn from(error: SdpError) -> Self {
        match error {
            SdpError::Malformed(what) => Self::new(Code::MalformedSdp, what),
            SdpError::Unsupported(what) => Self::new(Code::NotSupported, what),
        }
    }
}

impl From<OrtcError> for ApiError {
    fn from(error: OrtcError) -> Self {
        Self::from(ControlError::from(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_written_as_its_word() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.text());
            let busy = matches!(code, Code::Draining | Code::Overloaded | Code::NodeFull);
            assert!(code.status().is_client_error() || busy);
        }
    }
}
