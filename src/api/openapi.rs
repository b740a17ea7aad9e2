//! The OpenAPI document, made from the handlers.

use utoipa::OpenApi;

use super::{
    consumers, drain, error, events, health, overview, pages, producers, rooms, sessions, status,
    transports,
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

/// The document of every route.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
