//! Draining the node: begin, change, call off. How far it is stands in `/admin/status` too.

use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use utoipa::ToSchema;

use super::body::{BodyIfAny, FromFields};
use super::caller::Subject;
use super::error::{ApiError, Code, Failure};
use super::fields::Fields;
use super::reply::{Answer, Success, created, ok};
use crate::control::{After, Control, DrainRequest, DrainView};
use crate::limits::DRAIN_TIMEOUT_MAX;

/// Not sent by a page of another site: a browser on the server's own host reaches the API of a node
/// without credentials, whoever's page it shows. Browsers say so themselves (Fetch Metadata §2.4),
/// on origins without TLS by `Origin` alone (RFC 6454 §7).
#[derive(Debug)]
pub(super) struct FromHere;

impl<S: Send + Sync> FromRequestParts<S> for FromHere {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let said = |name: &str| parts.headers.get(name).map(|value| value.as_bytes());
        let is_here = match said("sec-fetch-site") {
            Some(site) => matches!(site, b"same-origin" | b"none"),
            None => said("origin").is_none_or(|origin| {
                let authority = origin.windows(3).position(|at| at == b"://");
                authority.and_then(|at| origin.get(at + 3..)) == said("host")
            }),
        };
        if is_here {
            Ok(Self)
        } else {
            Err(ApiError::new(Code::CrossSite, "not from a page of another site"))
        }
    }
}

/// Body of `POST /admin/drain`; each field, and the body, may be absent.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct BeginDrain {
    /// How long rooms may go on, counted from the begin of the drain: 0–86,400. Absent: as the
    /// drain under way has it, else `--drain-timeout`.
    #[schema(maximum = 86_400)]
    deadline_seconds: Option<u64>,
    /// True: the process ends with the drain. Absent or false: it stays, without rooms.
    exit: Option<bool>,
}

impl FromFields for BeginDrain {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        let deadline_seconds = fields.optional_u64("deadlineSeconds")?;
        let longest = DRAIN_TIMEOUT_MAX.as_secs();
        if deadline_seconds.is_some_and(|seconds| seconds > longest) {
            let must = format!("must be 0 to {longest}");
            return Err(ApiError::invalid("deadlineSeconds", &must));
        }
        Ok(Self { deadline_seconds, exit: fields.optional_bool("exit")? })
    }

    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }
}

/// Drains the node: no new rooms, and those there are go on until they end or the deadline. Asked
/// again it changes what the body names.
#[utoipa::path(post, path = "/admin/drain",
    operation_id = "beginDrain", tag = "operators", request_body = Option<BeginDrain>, responses(
    (status = 201, body = Success<DrainView>), (status = "4XX", body = Failure)))]
pub(super) async fn begin(
    State(control): State<Control>,
    _: FromHere,
    BodyIfAny(body): BodyIfAny<BeginDrain>,
) -> Answer {
    let deadline = body.deadline_seconds.map(Duration::from_secs);
    let after = if body.exit == Some(true) { After::Exit } else { After::Stay };
    created(control.drain(DrainRequest { deadline, after }))
}

/// Calls a drain off: new rooms begin again. Not after a signal: then the process ends for good.
#[utoipa::path(delete, path = "/admin/drain",
    operation_id = "cancelDrain", tag = "operators", responses(
    (status = 200, body = Success<DrainView>), (status = "4XX", body = Failure)))]
pub(super) async fn cancel(State(control): State<Control>, _: FromHere) -> Answer {
    ok(control.cancel_drain()?)
}
