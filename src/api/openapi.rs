//! The OpenAPI document, made from the handlers.

use axum::http::Method;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{Object, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, Ref, Required, ResponseBuilder};

use super::rule::{self, Rule};
use super::{
    consumers, drain, error, event_schema, events, health, overview, pages, producers, rooms,
    sessions, status, transports,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "ringcast",
        description = "Rooms, transports, producers and consumers of a WebRTC SFU. Every success \
                       is `{success: true, data}`; every failure is `{success: false, data, code}` \
                       with a sentence and a stable code."
    ),
    paths(
        rooms::create,
        transports::create,
        transports::connect,
        producers::create,
        consumers::create,
        rooms::producers,
        rooms::leave,
        producers::pause,
        producers::resume,
        producers::delete,
        consumers::pause,
        consumers::resume,
        consumers::key_frame,
        consumers::choose_layers,
        consumers::set_priority,
        consumers::delete,
        transports::restart_ice,
        transports::patch,
        transports::delete,
        transports::stats,
        producers::stats,
        consumers::stats,
        rooms::stats,
        rooms::list,
        rooms::show,
        rooms::delete,
        events::follow,
        events::follow_over_web_socket,
        sessions::publish,
        sessions::patch_published,
        sessions::end_published,
        sessions::play,
        sessions::patch_played,
        sessions::end_played,
        pages::call,
        pages::admin,
        health::healthy,
        health::ready,
        health::metrics,
        status::status,
        overview::rooms,
        drain::begin,
        drain::cancel,
    ),
    components(schemas(error::Failure, error::Code))
)]
struct Document;

/// An API key or a room token in the header.
const BEARER: &str = "bearer";

/// A room token in the query, for what cannot send headers.
const ACCESS_TOKEN: &str = "accessToken";

/// The document of every route.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_default();
    let about = "An API key, or a room token: a JSON Web Token signed with HS256 by the secret of \
                 the key that `kid` or `iss` names, with the claims `sub` (peerId), `room`, `exp`, \
                 `nbf` and the grants `join`, `publish`, `subscribe` and `admin`; or without \
                 `room` and with the grant `node`, for operators. Only where the server has keys.";
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
    let bearer = SecurityScheme::Http(bearer.description(Some(about)).build());
    components.add_security_scheme(BEARER, bearer);
    components.schemas.insert(event_schema::NAME.to_owned(), event_schema::schema());
    let about = "The same, for `EventSource` and `WebSocket`, which send no headers.";
    let in_query = ApiKeyValue::with_description("access_token", about);
    components.add_security_scheme(ACCESS_TOKEN, SecurityScheme::ApiKey(ApiKey::Query(in_query)));
    for (path, item) in &mut document.paths.paths {
        match path.as_str() {
            "/whip/{roomId}" => item.options = Some(asked_before("askWhip")),
            "/whep/{roomId}" => item.options = Some(asked_before("askWhep")),
            _ => {}
        }
        for (method, operation) in operations(item) {
            secure(operation, rule::of_route(&method, &as_routed(path), "/docs"));
        }
    }
    document
}

/// OPTIONS of a WHIP or WHEP endpoint, which no handler answers: a layer does.
fn asked_before(operation_id: &str) -> Operation {
    let room = ParameterBuilder::new()
        .name("roomId")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(Object::with_type(Type::String)));
    let header = |about: &str| HeaderBuilder::new().description(Some(about)).build();
    let answer = ResponseBuilder::new()
        .description("What may be sent")
        .header("Accept-Post", header("`application/sdp`"))
        .header("Accept-Patch", header("`application/trickle-ice-sdpfrag`, of sessions"))
        .header("Link", header("A STUN or TURN server; one header each, if any"));
    let about = "Tells what POST takes, and the STUN and TURN servers, for clients that must know \
                 them before their offer (RFC 9725 §4.2, §4.6). TURN servers only to who may POST.";
    OperationBuilder::new()
        .operation_id(Some(operation_id))
        .tag("sdp")
        .summary(Some(about))
        .parameter(room)
        .response("200", answer)
        .build()
}

/// `/media/room/{roomId}` as `/media/room/{id}`: routes call every parameter the same.
fn as_routed(path: &str) -> String {
    let segments = path.split('/').map(|part| if part.starts_with('{') { "{id}" } else { part });
    segments.collect::<Vec<_>>().join("/")
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    let all = [
        (Method::GET, get),
        (Method::PUT, put),
        (Method::POST, post),
        (Method::DELETE, delete),
        (Method::PATCH, patch),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Says what an operation asks of its caller, and with what it may be refused for that: also that
/// the caller asks too often, or that there are too many callers.
fn secure(operation: &mut Operation, rule: Rule) {
    let by = |scheme: &str| SecurityRequirement::new(scheme, Vec::<String>::new());
    const ALL: &[&str] = &["401", "403", "429", "503"];
    // Nothing is needed where the server has no keys.
    let nothing = SecurityRequirement::default();
    let (schemes, refusals) = match rule {
        Rule::Probe => return,
        Rule::Open => (None, &["429", "503"][..]),
        Rule::Events(_) => (Some(vec![nothing, by(BEARER), by(ACCESS_TOKEN)]), ALL),
        _ => (Some(vec![nothing, by(BEARER)]), ALL),
    };
    operation.security = schemes;
    let responses = &mut operation.responses.responses;
    let told = |status: &str| {
        responses.contains_key(status) || (status != "503" && responses.contains_key("4XX"))
    };
    let untold: Vec<&str> = refusals.iter().copied().filter(|status| !told(status)).collect();
    for status in untold {
        let failure = ContentBuilder::new().schema(Some(Ref::from_schema_name("Failure"))).build();
        let response = ResponseBuilder::new().content("application/json", failure).build();
        responses.insert(status.to_owned(), response.into());
    }
}
