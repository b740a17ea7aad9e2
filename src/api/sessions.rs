//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): SDP in, SDP out, on the same rooms, producers
//! and consumers as the ORTC routes.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::caller::Caller;
use super::cors::ACCEPT_PATCH;
use super::error::{ApiError, Failure};
use super::fields;
use super::gate::Gate;
use super::ice_servers::IceServers;
use super::path::{Of, Parameters, SessionId};
use super::reply::{Answer, Done, Success, ok};
use super::sdp_body::{FRAGMENT, FragmentBody, IfMatch, OfferBody, SDP};
use crate::control::registry::SdpProtocol;
use crate::control::{
    Control, DtlsRequest, Patched, PeerCertificate, PlayRequest, Played, PublishRequest,
    TransportReply,
};
use crate::id::{PeerId, RoomId};
use crate::sdp::play::{Receiving, receivings};
use crate::sdp::publish::{Sending, sendings};
use crate::sdp::{self, Line, Offer, Session};

/// What may be sent to POST.
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// Publishes by WHIP; makes the room if there is none. A `peerId` that is not given is made up;
/// `source` names the producers, as in `POST /media/producer`. The answer's `a=label` (RFC 4574) is
/// the id of each m-section's producer.
#[utoipa::path(post, path = "/whip/{roomId}",
    operation_id = "whip", tag = "sdp",
    request_body(content = String, content_type = "application/sdp"),
    params(("roomId" = String, Path), ("peerId" = Option<String>, Query),
    ("source" = Option<String>, Query)), responses(
    (status = 201, content_type = "application/sdp", body = String, headers(
    ("Location" = String), ("ETag" = String), ("Accept-Patch" = String), ("Link" = String,
    description = "A STUN or TURN server (RFC 9725 §4.6); one header each, if any"))),
    (status = "4XX", body = Failure), (status = 503, body = Failure)))]
pub(super) async fn publish(
    State(control): State<Control>,
    State(ice_servers): State<IceServers>,
    caller: Caller,
    Of(room): Of<RoomId>,
    query: Parameters,
    OfferBody { offer, prefix }: OfferBody,
) -> Answer {
    let (peer, source) = (caller.acting_as(peer(&query, "peerId")?)?, source(&query)?);
    let sendings = sendings(&offer, control.capabilities())?;
    let live: Vec<bool> = sendings.iter().map(|it| !matches!(it, Sending::Refused)).collect();
    let session = Session::new(&offer, &live);
    let publications = sendings.iter().filter_map(|sending| match sending {
        Sending::Producer(publication) => Some((**publication).clone()),
        Sending::Refused | Sending::Idle => None,
    });
    let request = PublishRequest {
        room,
        peer,
        source,
        dtls: dtls(&offer),
        publications: publications.collect(),
        session: session.clone(),
    };
    let (transport, producers) = control.publish(request).await?;
    let labels: Vec<String> = producers.iter().map(ToString::to_string).collect();
    let mut labels = labels.iter();
    let lines = sendings.iter().map(|sending| match sending {
        Sending::Refused => Line::Refused,
        Sending::Idle => Line::Idle,
        Sending::Producer(publication) => {
            labels.next().map_or(Line::Idle, |label| Line::Takes { rtp: &publication.rtp, label })
        }
    });
    let lines = lines.collect();
    let answer = sdp::Answer { offer: &offer, session: &session, lines, transport: &transport };
    Ok(created((&prefix, "whip"), &transport, &ice_servers, answer.write()))
}

/// Plays by WHEP: the k-th m-section of a kind gets the k-th producer that the client decodes, of the
/// room or of the peer that `peerId` names; what is left over is inactive. `viewerId` is who plays; a
/// name that is not given is made up. What is published later needs a new session. The answer's `a=label` (RFC 4574)
/// is the id of each m-section's consumer, its `a=msid` ends with that of the producer.
#[utoipa::path(post, path = "/whep/{roomId}",
    operation_id = "whep", tag = "sdp",
    request_body(content = String, content_type = "application/sdp"),
    params(("roomId" = String, Path), ("peerId" = Option<String>, Query),
    ("viewerId" = Option<String>, Query)), responses(
    (status = 201, content_type = "application/sdp", body = String, headers(
    ("Location" = String), ("ETag" = String), ("Accept-Patch" = String), ("Link" = String,
    description = "A STUN or TURN server (RFC 9725 §4.6); one header each, if any"))),
    (status = "4XX", body = Failure), (status = 503, body = Failure)))]
pub(super) async fn play(
    State(control): State<Control>,
    State(ice_servers): State<IceServers>,
    caller: Caller,
    Of(room): Of<RoomId>,
    query: Parameters,
    OfferBody { offer, prefix }: OfferBody,
) -> Answer {
    let (of, viewer) = (peer(&query, "peerId")?, caller.acting_as(peer(&query, "viewerId")?)?);
    let receivings = receivings(&offer, control.capabilities())?;
    let live: Vec<bool> = receivings.iter().map(|it| !matches!(it, Receiving::Refused)).collect();
    let session = Session::new(&offer, &live);
    let wishes = receivings.iter().filter_map(|receiving| match receiving {
        Receiving::Wish(wish) => Some((**wish).clone()),
        Receiving::Refused | Receiving::Idle => None,
    });
    let request = PlayRequest {
        room,
        viewer,
        of,
        dtls: dtls(&offer),
        wishes: wishes.collect(),
        session: session.clone(),
    };
    let (transport, played) = control.play(request).await?;
    let named = played.iter().map(|played| played.as_ref().map(Named::of));
    let named: Vec<Option<Named<'_>>> = named.collect();
    let mut given = named.iter();
    let lines = receivings.iter().map(|receiving| match receiving {
        Receiving::Refused => Line::Refused,
        Receiving::Idle => Line::Idle,
        Receiving::Wish(_) => given.next().and_then(Option::as_ref).map_or(Line::Idle, Named::line),
    });
    let lines = lines.collect();
    let answer = sdp::Answer { offer: &offer, session: &session, lines, transport: &transport };
    Ok(created((&prefix, "whep"), &transport, &ice_servers, answer.write()))
}

/// A consumer with the words of its `msid`: the producer's transport, whose media are played in
/// sync, and the producer.
struct Named<'a> {
    played: &'a Played,
    stream: String,
    track: String,
    label: String,
}

impl<'a> Named<'a> {
    fn of(played: &'a Played) -> Self {
        let (stream, track) = (played.from.to_string(), played.producer.to_string());
        Self { played, stream, track, label: played.consumer.to_string() }
    }

    fn line(&self) -> Line<'_> {
        let Self { played, stream, track, label } = self;
        Line::Gives { rtp: &played.rtp, stream, track, label }
    }
}

fn dtls(offer: &Offer) -> DtlsRequest {
    let remote_is_client = offer.setup.client_begins();
    DtlsRequest {
        fingerprint: offer.fingerprint,
        remote_is_client,
        certificate: PeerCertificate::Any,
    }
}

fn peer(query: &Parameters, name: &str) -> Result<Option<PeerId>, ApiError> {
    query.text(name).map(|text| fields::peer_id(name, text)).transpose()
}

fn source(query: &Parameters) -> Result<Option<String>, ApiError> {
    query.text("source").map(|text| fields::source(text.to_owned())).transpose()
}

fn created(
    (prefix, endpoint): (&str, &str),
    transport: &TransportReply,
    ice_servers: &IceServers,
    answer: String,
) -> Response {
    let tag = &transport.ice_parameters.username_fragment;
    let headers = [
        (header::CONTENT_TYPE, SDP.to_owned()),
        (header::LOCATION, format!("{prefix}/{endpoint}/session/{}", transport.id)),
        (header::ETAG, format!("\"{tag}\"")),
        (ACCEPT_PATCH, FRAGMENT.to_owned()),
    ];
    let mut response = (StatusCode::CREATED, headers, answer).into_response();
    ice_servers.link(response.headers_mut(), true);
    response
}

/// Restarts ICE of a WHIP session (`If-Match: *`, answered with new parameters), or takes note of
/// candidates (`If-Match` with the session's entity tag).
#[utoipa::path(patch, path = "/whip/session/{sessionId}",
    operation_id = "patchWhip", tag = "sdp",
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag"),
    params(("sessionId" = String, Path), ("If-Match" = Option<String>, Header)), responses(
    (status = 200, content_type = "application/trickle-ice-sdpfrag", body = String, headers(
    ("ETag" = String))), (status = 204), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn patch_published(
    control: State<Control>,
    of: Of<SessionId>,
    precondition: IfMatch,
    body: FragmentBody,
) -> Answer {
    patch(control, (SdpProtocol::Whip, of), precondition, body).await
}

/// Restarts ICE of a WHEP session, or takes note of candidates, as in WHIP.
#[utoipa::path(patch, path = "/whep/session/{sessionId}",
    operation_id = "patchWhep", tag = "sdp",
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag"),
    params(("sessionId" = String, Path), ("If-Match" = Option<String>, Header)), responses(
    (status = 200, content_type = "application/trickle-ice-sdpfrag", body = String, headers(
    ("ETag" = String))), (status = 204), (status = "4XX", body = Failure),
    (status = 503, body = Failure)))]
pub(super) async fn patch_played(
    control: State<Control>,
    of: Of<SessionId>,
    precondition: IfMatch,
    body: FragmentBody,
) -> Answer {
    patch(control, (SdpProtocol::Whep, of), precondition, body).await
}

async fn patch(
    State(control): State<Control>,
    (protocol, Of(SessionId(id))): (SdpProtocol, Of<SessionId>),
    IfMatch(precondition): IfMatch,
    FragmentBody(fragment): FragmentBody,
) -> Answer {
    match control.patch_session((protocol, id), precondition, fragment.ice_ufrag).await? {
        Patched::Noted => Ok(StatusCode::NO_CONTENT.into_response()),
        Patched::Restarted { ice, candidates, sdp } => {
            let headers = [
                (header::CONTENT_TYPE, FRAGMENT.to_owned()),
                (header::ETAG, format!("\"{}\"", ice.username_fragment)),
            ];
            Ok((StatusCode::OK, headers, sdp.restarted(&ice, &candidates)).into_response())
        }
    }
}

/// Ends a WHIP session. A peer that has nothing else leaves with it.
#[utoipa::path(delete, path = "/whip/session/{sessionId}",
    operation_id = "endWhip", tag = "sdp",
    params(("sessionId" = String, Path)), responses(
    (status = 200, body = Success<Done>), (status = "4XX", body = Failure)))]
pub(super) async fn end_published(
    State(control): State<Control>,
    Of(SessionId(id)): Of<SessionId>,
) -> Answer {
    control.end_session(SdpProtocol::Whip, id).await?;
    ok(Done::YES)
}

/// Ends a WHEP session. A peer that has nothing else leaves with it.
#[utoipa::path(delete, path = "/whep/session/{sessionId}",
    operation_id = "endWhep", tag = "sdp",
    params(("sessionId" = String, Path)), responses(
    (status = 200, body = Success<Done>), (status = "4XX", body = Failure)))]
pub(super) async fn end_played(
    State(control): State<Control>,
    Of(SessionId(id)): Of<SessionId>,
) -> Answer {
    control.end_session(SdpProtocol::Whep, id).await?;
    ok(Done::YES)
}

/// What the answer of OPTIONS is made of.
#[derive(Debug, Clone)]
pub(super) struct Advice {
    pub(super) gate: Gate,
    pub(super) ice_servers: IceServers,
}

/// Adds to the answer of OPTIONS what a WHIP or WHEP endpoint and session take (RFC 9725 §4.2), and
/// the STUN and TURN servers, for clients that must know them before their offer (§4.6).
/// Credentials are for who may POST there; who asks for them too often is told so.
pub(super) async fn tell_what_is_accepted(
    State(Advice { gate, ice_servers }): State<Advice>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let of_sessions = path.starts_with("/whip/") || path.starts_with("/whep/");
    if request.method() != Method::OPTIONS || !of_sessions {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let route = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let is_endpoint = matches!(route, Some("/whip/{id}" | "/whep/{id}"));
    // A browser's own question, whose answer no script sees.
    let is_preflight = parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let all = if is_endpoint && !is_preflight && ice_servers.have_credentials() {
        gate.would_admit(Method::POST, &parts).await
    } else {
        Ok(false)
    };
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let all = match all {
        Ok(all) => all,
        // Without TURN it would look like all that there is, and be kept.
        Err(refused) => return as_scripts_see_it(refused, response.headers()),
    };
    let headers = response.headers_mut();
    headers.insert(ACCEPT_POST, HeaderValue::from_static(SDP));
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    if is_endpoint {
        ice_servers.link(headers, all);
    }
    response
}

/// A refusal, to whichever pages the answer of OPTIONS is shown.
fn as_scripts_see_it(refused: ApiError, answer: &HeaderMap) -> Response {
    let mut refused = refused.into_response();
    for name in [
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        header::VARY,
    ] {
        for value in answer.get_all(&name) {
            refused.headers_mut().append(name.clone(), value.clone());
        }
    }
    refused
}
