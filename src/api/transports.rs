//! Transports: create, connect, close.

use axum::extract::State;
use utoipa::ToSchema;

use super::body::{Body, FromFields};
use super::dtls;
use super::error::{ApiError, Failure};
use super::fields::Fields;
use super::path::Of;
use super::reply::{Answer, Done, Success, created, ok};
use crate::control::registry::Direction;
use crate::control::{Control, DtlsRequest, TransportReply, TransportRequest};
use crate::id::{PeerId, RoomId, TransportId};

/// Body of `POST /media/transport/{roomId}`.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct CreateTransport {
    /// Who gets it; joins the room if new there.
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    peer_id: PeerId,
    /// What it is for.
    direction: Direction,
}

impl FromFields for CreateTransport {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        let peer_id = fields.peer()?;
        let direction = match fields.string("direction")?.as_str() {
            "send" => Direction::Send,
            "recv" => Direction::Recv,
            _ => return Err(ApiError::invalid("direction", "must be send or recv")),
        };
        Ok(Self { peer_id, direction })
    }
}

/// Creates a WebRTC transport; with its first one a peer joins the room.
#[utoipa::path(post, path = "/media/transport/{roomId}",
    operation_id = "createTransport", tag = "calls",
    request_body = CreateTransport, params(("roomId" = String, Path)), responses(
    (status = 201, body = Success<TransportReply>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn create(
    State(control): State<Control>,
    Of(room): Of<RoomId>,
    Body(body): Body<CreateTransport>,
) -> Answer {
    let CreateTransport { peer_id: peer, direction } = body;
    created(control.create_transport(TransportRequest { room, peer, direction }).await?)
}

/// Body of `POST /media/transport/{transportId}/connect`.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Connect {
    /// `{role?, fingerprints: [{algorithm, value}]}` of the client.
    #[schema(value_type = Object)]
    dtls_parameters: DtlsRequest,
}

impl FromFields for Connect {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self { dtls_parameters: dtls::read(&fields.required("dtlsParameters")?)? })
    }
}

/// Gives a transport its client's DTLS parameters, once.
#[utoipa::path(post, path = "/media/transport/{transportId}/connect",
    operation_id = "connectTransport", tag = "calls",
    request_body = Connect, params(("transportId" = String, Path)), responses(
    (status = 201, body = Success<Done>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn connect(
    State(control): State<Control>,
    Of(transport): Of<TransportId>,
    Body(body): Body<Connect>,
) -> Answer {
    control.connect_transport(transport, body.dtls_parameters).await?;
    created(Done::YES)
}

/// Closes a transport with all it carries.
#[utoipa::path(delete, path = "/media/transport/{transportId}",
    operation_id = "closeTransport", tag = "calls",
    params(("transportId" = String, Path)), responses(
    (status = 200, body = Success<Done>), (status = "4XX", body = Failure)))]
pub(super) async fn delete(
    State(control): State<Control>,
    Of(transport): Of<TransportId>,
) -> Answer {
    control.close_transport(transport).await?;
    ok(Done::YES)
}
