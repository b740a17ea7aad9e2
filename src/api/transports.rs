//! Transports: create, connect, restart, limit, look at, close.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::{Body, FromFields};
use super::caller::Subject;
use super::dtls;
use super::error::{ApiError, Failure};
use super::fields::Fields;
use super::ice_servers::{IceServers, ToldServer};
use super::path::Of;
use super::reply::{Answer, Done, Success, created, ok};
use crate::control::command::{BitrateChange, BitrateLimits};
use crate::control::registry::Direction;
use crate::control::stats::TransportStats;
use crate::control::{Control, DtlsRequest, IceReply, TransportReply, TransportRequest};
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

    fn subject(&self) -> Subject<'_> {
        Subject { room: None, peer: Some(&self.peer_id) }
    }
}

/// A new transport, as mediasoup-client's `createSendTransport` and `createRecvTransport` take it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatedTransport {
    #[serde(flatten)]
    transport: TransportReply,
    /// STUN and TURN servers for the client, where the server has been told of some.
    #[serde(skip_serializing_if = "Option::is_none")]
    ice_servers: Option<Vec<ToldServer>>,
}

/// Creates a WebRTC transport; with its first one a peer joins the room.
#[utoipa::path(post, path = "/media/transport/{roomId}",
    operation_id = "createTransport", tag = "calls",
    request_body = CreateTransport, params(("roomId" = String, Path)), responses(
    (status = 201, body = Success<CreatedTransport>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn create(
    State(control): State<Control>,
    State(ice_servers): State<IceServers>,
    Of(room): Of<RoomId>,
    Body(body): Body<CreateTransport>,
) -> Answer {
    let CreateTransport { peer_id: peer, direction } = body;
    let transport = control.create_transport(TransportRequest { room, peer, direction }).await?;
    created(CreatedTransport { transport, ice_servers: ice_servers.told() })
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

    fn subject(&self) -> Subject<'_> {
        Subject::default()
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

/// Gives new ICE parameters, for a client whose network changed: media goes on over the old addresses
/// until the client uses the new parameters.
#[utoipa::path(post, path = "/media/transport/{transportId}/restart-ice",
    operation_id = "restartIce", tag = "calls",
    params(("transportId" = String, Path)), responses(
    (status = 201, body = Success<IceReply>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn restart_ice(
    State(control): State<Control>,
    Of(transport): Of<TransportId>,
) -> Answer {
    created(control.restart_ice(transport).await?)
}

/// Body of `PATCH /media/transport/{transportId}`; in bits/s. What is absent stays, 0 ends a limit.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct SetBitrates {
    /// What the client may send: it is told so.
    max_incoming_bitrate: Option<u64>,
    /// What the client is sent at most, whatever is estimated.
    max_outgoing_bitrate: Option<u64>,
    /// What is estimated at least.
    min_outgoing_bitrate: Option<u64>,
}

impl FromFields for SetBitrates {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self {
            max_incoming_bitrate: fields.optional_u64("maxIncomingBitrate")?,
            max_outgoing_bitrate: fields.optional_u64("maxOutgoingBitrate")?,
            min_outgoing_bitrate: fields.optional_u64("minOutgoingBitrate")?,
        })
    }

    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }
}

/// Limits what a transport carries; answers with its limits.
#[utoipa::path(patch, path = "/media/transport/{transportId}",
    operation_id = "setBitrates", tag = "calls", request_body = SetBitrates,
    params(("transportId" = String, Path)), responses(
    (status = 200, body = Success<BitrateLimits>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn patch(
    State(control): State<Control>,
    Of(transport): Of<TransportId>,
    Body(body): Body<SetBitrates>,
) -> Answer {
    let change = BitrateChange {
        max_incoming_bps: body.max_incoming_bitrate,
        max_outgoing_bps: body.max_outgoing_bitrate,
        min_outgoing_bps: body.min_outgoing_bitrate,
    };
    ok(control.set_bitrates(transport, change).await?)
}

/// Tells what a transport carries.
#[utoipa::path(get, path = "/media/transport/{transportId}/stats",
    operation_id = "transportStats", tag = "statistics",
    params(("transportId" = String, Path)), responses(
    (status = 200, body = Success<TransportStats>), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn stats(
    State(control): State<Control>,
    Of(transport): Of<TransportId>,
) -> Answer {
    ok(control.transport_stats(transport).await?)
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
