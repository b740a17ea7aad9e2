//! The rooms of the node as operators look through them.

use axum::extract::State;

use super::error::{ApiError, Failure};
use super::path::Parameters;
use super::reply::{Answer, Success, ok};
use crate::control::{Control, RoomsBy, RoomsOverview, RoomsQuery};
use crate::limits::{NAME_CHARS_MAX, OVERVIEW_ROOMS_MAX};

/// Rooms told when the request does not say how many.
const LIMIT_DEFAULT: u64 = 25;

/// Lists rooms with their load, found by a part of their names, sorted, page by page.
#[utoipa::path(get, path = "/admin/rooms",
    operation_id = "adminRooms", tag = "operators", params(
    ("query" = Option<String>, Query, description = "A part of the name, in any case"),
    ("sort" = Option<String>, Query,
        description = "`name`, `peers`, `producers`, `consumers` or `age`; by default `name`"),
    ("order" = Option<String>, Query, description = "`asc` or `desc`; by default `asc`"),
    ("offset" = Option<u64>, Query), ("limit" = Option<u64>, Query, description = "At most 100")),
    responses((status = 200, body = Success<RoomsOverview>), (status = "4XX", body = Failure)))]
pub(super) async fn rooms(State(control): State<Control>, query: Parameters) -> Answer {
    let contains = query.text("query");
    if contains.is_some_and(|text| text.chars().nth(NAME_CHARS_MAX).is_some()) {
        let must = format!("must be at most {NAME_CHARS_MAX} characters");
        return Err(ApiError::invalid("query", &must));
    }
    let by = match query.text("sort") {
        None | Some("name") => RoomsBy::Name,
        Some("peers") => RoomsBy::Peers,
        Some("producers") => RoomsBy::Producers,
        Some("consumers") => RoomsBy::Consumers,
        Some("age") => RoomsBy::Age,
        Some(_) => {
            let must = "must be name, peers, producers, consumers or age";
            return Err(ApiError::invalid("sort", must));
        }
    };
    let descending = match query.text("order") {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(_) => return Err(ApiError::invalid("order", "must be asc or desc")),
    };
    let size = |number: u64, most| usize::try_from(number).unwrap_or(most);
    let wanted = RoomsQuery {
        contains: contains.map(str::to_owned),
        by,
        descending,
        offset: size(query.number("offset")?.unwrap_or(0), usize::MAX),
        limit: size(query.number("limit")?.unwrap_or(LIMIT_DEFAULT), OVERVIEW_ROOMS_MAX),
    };
    ok(control.rooms_overview(&wanted).await)
}
