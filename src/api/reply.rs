//! The envelope of success.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;

/// What every handler answers.
pub(super) type Answer = Result<Response, ApiError>;

/// The body of every success.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Success<T> {
    /// Always true.
    success: bool,
    /// What was asked for.
    data: T,
}

/// Nothing but success.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    /// Always true.
    success: bool,
    /// For a human.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

impl Done {
    pub(super) const YES: Self = Self { success: true, message: None };

    pub(super) fn saying(message: &'static str) -> Self {
        Self { success: true, message: Some(message) }
    }
}

/// 201 with `data`: what a POST answers.
pub(super) fn created(data: impl Serialize) -> Answer {
    Ok((StatusCode::CREATED, Json(Success { success: true, data })).into_response())
}

/// 200 with `data`.
pub(super) fn ok(data: impl Serialize) -> Answer {
    Ok(Json(Success { success: true, data }).into_response())
}
