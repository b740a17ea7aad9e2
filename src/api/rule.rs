//! What each route asks of its caller, on one screen.
//!
//! A route that is not named here is for operators of the node: what is added later is closed to
//! everybody else until it is named.

use axum::http::Method;

use super::caller::Grant;
use Grant::{Admin, Join, Publish, Subscribe};

/// What something of a peer is, which a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Transport,
    Session,
    Producer,
    Consumer,
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Nothing, and it is not counted: machines look whether we live.
    Probe,
    /// Nothing.
    Open,
    /// Nothing, if metrics are open; else the node.
    Metrics,
    /// An API key, or the token of an operator of the node.
    Node,
    /// Grants for the room in the path.
    Room(&'static [Grant]),
    /// The same; the token may also stand in the query, because a browser's `EventSource` and
    /// `WebSocket` cannot send headers.
    Events(&'static [Grant]),
    /// Grants for the room in the body, which is read with the body.
    Body(&'static [Grant]),
    /// Grants for what the path names, in whose room and by whom it was made.
    Own(Kind, &'static [Grant]),
}

/// The rule of a route; `docs` is where Swagger UI is, with its slash.
pub(super) fn of_route(method: &Method, route: &str, docs: &str) -> Rule {
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let below = |path: &str| {
        route.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match (method, route) {
        ("GET", "/healthz" | "/readyz") => Rule::Probe,
        ("GET", "/" | "/admin" | "/docs-json" | "/api/swagger.json") => Rule::Open,
        ("GET", _) if below("/pages") || below(docs) => Rule::Open,
        ("GET", "/metrics") => Rule::Metrics,
        ("POST", "/media/room") => Rule::Body(&[Join]),
        ("GET", "/media/room/{id}/producers") => Rule::Room(&[Join]),
        ("POST", "/media/room/{id}/leave") => Rule::Room(&[Join]),
        ("GET", "/media/room/{id}/events" | "/media/room/{id}/ws") => Rule::Events(&[Join]),
        (_, _) if below("/media/room/{id}") => Rule::Room(&[Admin]),
        ("POST", "/media/transport/{id}") => Rule::Room(&[Join]),
        // What a backend limits, the peer whom it limits must not set free.
        ("PATCH", "/media/transport/{id}") => Rule::Own(Kind::Transport, &[Admin]),
        (_, _) if below("/media/transport/{id}") => Rule::Own(Kind::Transport, &[Join]),
        ("POST", "/media/producer") => Rule::Body(&[Publish]),
        (_, _) if below("/media/producer/{id}") => Rule::Own(Kind::Producer, &[Publish]),
        ("POST", "/media/consumer") => Rule::Body(&[Subscribe]),
        (_, _) if below("/media/consumer/{id}") => Rule::Own(Kind::Consumer, &[Subscribe]),
        ("POST", "/whip/{id}") => Rule::Room(&[Join, Publish]),
        (_, "/whip/session/{id}") => Rule::Own(Kind::Session, &[Publish]),
        ("POST", "/whep/{id}") => Rule::Room(&[Join, Subscribe]),
        (_, "/whep/session/{id}") => Rule::Own(Kind::Session, &[Subscribe]),
        _ => Rule::Node,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_thought_of_is_for_operators_of_the_node() {
        for (method, route) in [
            (Method::GET, "/media/rooms"),
            (Method::GET, "/admin/status"),
            (Method::POST, "/admin/drain"),
            (Method::POST, "/admin"),
            (Method::POST, "/"),
            (Method::GET, "/later"),
            (Method::DELETE, "/media/producer"),
            (Method::GET, "/docsy"),
            (Method::GET, "/pagesy"),
        ] {
            assert_eq!(of_route(&method, route, "/docs"), Rule::Node, "{method} {route}");
        }
    }

    #[test]
    fn heads_are_as_open_as_what_they_head() {
        for route in ["/", "/docs/{*rest}", "/docs", "/pages/call.js"] {
            assert_eq!(of_route(&Method::HEAD, route, "/docs"), Rule::Open, "{route}");
        }
        assert_eq!(of_route(&Method::HEAD, "/media/rooms", "/docs"), Rule::Node);
    }
}
