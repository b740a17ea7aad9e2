//! Bodies and headers of WHIP and WHEP: SDP in either form, and which ICE session is meant.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};

use super::body::{bytes_of, media_type};
use super::error::{ApiError, Code};
use crate::control::Precondition;
use crate::limits::PROXY_PREFIX_BYTES_MAX;
use crate::sdp::{Fragment, Offer};

/// An offer or an answer.
pub(super) const SDP: &str = "application/sdp";

/// A part of one that is about ICE (RFC 8840 §9).
pub(super) const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// What a proxy took off the path before it passed the request on. No standard says so, but proxies
/// do, some without being asked to.
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// An offer, from a client that takes an answer.
#[derive(Debug)]
pub(super) struct OfferBody {
    pub(super) offer: Offer,
    /// What stands before this server's paths where the client is; mostly nothing.
    pub(super) prefix: String,
}

impl<S: Send + Sync> FromRequest<S> for OfferBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if !accepts_sdp(request.headers()) {
            return Err(ApiError::new(Code::NotAcceptable, "the answer is application/sdp"));
        }
        let prefix = prefix(request.headers());
        Ok(Self { offer: Offer::parse(&text_of(request, SDP).await?)?, prefix })
    }
}

/// What is no plain path is not believed: it must not lead to another host.
fn prefix(headers: &HeaderMap) -> String {
    let told = headers.get(X_FORWARDED_PREFIX).and_then(|value| value.to_str().ok());
    let told = told.unwrap_or_default().trim_end_matches('/');
    let is_plain = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
        !part.is_empty() && part.bytes().all(is_plain)
    };
    let is_path = told.strip_prefix('/').is_some_and(|path| path.split('/').all(is_plain));
    if is_path && told.len() <= PROXY_PREFIX_BYTES_MAX { told.to_owned() } else { String::new() }
}

/// A client's fragment.
#[derive(Debug)]
pub(super) struct FragmentBody(pub(super) Fragment);

impl<S: Send + Sync> FromRequest<S> for FragmentBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        Ok(Self(Fragment::parse(&text_of(request, FRAGMENT).await?)?))
    }
}

async fn text_of(request: Request, expected: &str) -> Result<String, ApiError> {
    if media_type(request.headers()).as_deref() != Some(expected) {
        let message = format!("Content-Type must be {expected}");
        return Err(ApiError::new(Code::NotSdp, message));
    }
    let bytes = bytes_of(request).await?;
    let text = String::from_utf8(bytes.into());
    text.map_err(|_| ApiError::new(Code::MalformedSdp, "the body is not UTF-8"))
}

/// All the members of a header that is a list.
fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Who says nothing accepts everything.
fn accepts_sdp(headers: &HeaderMap) -> bool {
    let ranges = || members(headers, header::ACCEPT).map(|range| range.split(';').next());
    let is_sdp = |range: &str| {
        let range = range.trim().to_ascii_lowercase();
        ["*/*", "application/*", SDP].contains(&range.as_str())
    };
    ranges().next().is_none() || ranges().flatten().any(is_sdp)
}

/// The ICE session that a client means.
#[derive(Debug)]
pub(super) struct IfMatch(pub(super) Precondition);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // The RFC's examples put the asterisk in quotes. Tags have no commas.
        let tags: Vec<String> = members(&parts.headers, header::IF_MATCH)
            .map(|tag| tag.trim_matches('"').to_owned())
            .collect();
        Ok(Self(if tags.is_empty() {
            Precondition::Missing
        } else if tags.iter().any(|tag| tag == "*") {
            Precondition::Any
        } else {
            Precondition::Tags(tags)
        }))
    }
}
