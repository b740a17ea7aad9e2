//! Request bodies: bounded, declared as JSON, an object, and then a domain value.

use std::error::Error;

use axum::body::{self, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, header};
use serde_json::Value;

use super::caller::{Caller, Subject};
use super::error::{ApiError, Code};
use super::fields::Fields;
use super::serving::BodyLate;
use crate::limits::{API_BODY_TIMEOUT, BODY_BYTES_MAX};

const NOT_JSON: &str = "Content-Type must be application/json";

/// A value that is made of a JSON object's fields.
pub(super) trait FromFields: Sized {
    /// Takes what it needs.
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError>;

    /// Whom it is about: the caller must be allowed to name them.
    fn subject(&self) -> Subject<'_>;
}

/// A request's body, parsed.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: FromFields, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::new(Code::NotJson, NOT_JSON));
        }
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, &()).await?;
        parsed(&bytes_of(Request::from_parts(parts, body)).await?, &caller).map(Self)
    }
}

/// A request's body, parsed; one that is not there has no fields.
#[derive(Debug)]
pub(super) struct BodyIfAny<T>(pub(super) T);

impl<T: FromFields, S: Send + Sync> FromRequest<S> for BodyIfAny<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let declared = is_json(request.headers());
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, &()).await?;
        let bytes = bytes_of(Request::from_parts(parts, body)).await?;
        if bytes.is_empty() {
            return T::from_fields(&mut Fields::default()).map(Self);
        }
        if !declared {
            return Err(ApiError::new(Code::NotJson, NOT_JSON));
        }
        parsed(&bytes, &caller).map(Self)
    }
}

/// What the bytes say, of whom the caller may say it.
fn parsed<T: FromFields>(bytes: &[u8], caller: &Caller) -> Result<T, ApiError> {
    let read = match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => T::from_fields(&mut Fields::new(map))?,
        Ok(_) => return Err(ApiError::invalid("body", "must be a JSON object")),
        Err(error) => return Err(ApiError::new(Code::MalformedJson, error.to_string())),
    };
    caller.may_name(read.subject())?;
    Ok(read)
}

/// The body, unless it is too large.
pub(super) async fn bytes_of(request: Request) -> Result<Bytes, ApiError> {
    if is_encoded(request.headers()) {
        let message = "Content-Encoding must be identity: the body is not decompressed";
        return Err(ApiError::new(Code::UnsupportedEncoding, message));
    }
    if declared_length(request.headers()).is_some_and(|length| length > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    body::to_bytes(request.into_body(), BODY_BYTES_MAX).await.map_err(|error| {
        if is_late(&error) {
            let message = format!("the body took longer than {} s", API_BODY_TIMEOUT.as_secs());
            return ApiError::new(Code::RequestTimeout, message);
        }
        // Either the limit, or the connection broke and nobody reads the answer.
        tracing::debug!(%error, "body not read");
        too_large()
    })
}

fn is_late(error: &axum::Error) -> bool {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<BodyLate>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn too_large() -> ApiError {
    ApiError::new(Code::BodyTooLarge, format!("body is larger than {BODY_BYTES_MAX} bytes"))
}

/// Whether the body has to be decoded before anything of it can be read (RFC 9110 §8.4).
fn is_encoded(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONTENT_ENCODING).into_iter();
    values
        .map(|value| value.as_bytes().trim_ascii())
        .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What the body is declared as, without parameters and in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}

/// `application/json`, or a type with the suffix `+json`; parameters do not matter.
fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|essence| {
        essence == "application/json"
            || (essence.starts_with("application/") && essence.ends_with("+json"))
    })
}
