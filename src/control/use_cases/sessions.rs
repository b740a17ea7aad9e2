//! WHIP and WHEP sessions: a transport with all that one SDP offer asked for, made and ended whole.
//!
//! The steps are those of the ORTC routes, in the same order; nothing is negotiated here.

use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::transports::{DtlsRequest, IceParameters, TransportReply, TransportRequest};
use super::{ConsumerRequest, ProducerRequest};
use crate::control::addresses::IceCandidate;
use crate::control::error::ControlError;
use crate::control::registry::{Direction, SdpProtocol, SdpSession};
use crate::control::service::{Control, State, now, whole};
use crate::id::{ConsumerId, PeerId, ProducerId, RoomId, TransportId};
use crate::ortc;
use crate::ortc::types::{RtpCapabilities, RtpParameters};
use crate::sdp::Session;
use crate::sdp::play::Wish;
use crate::sdp::publish::Publication;

/// What a WHIP client publishes.
#[derive(Debug)]
pub struct PublishRequest {
    /// Where; made if there is none.
    pub room: RoomId,
    /// Who; a name is made up for one that has none.
    pub peer: Option<PeerId>,
    /// What the producers are called; by default their kind. The second of a kind gets `-2`.
    pub source: Option<String>,
    /// The client's part of DTLS.
    pub dtls: DtlsRequest,
    /// One per m-section that sends.
    pub publications: Vec<Publication>,
    /// For its fragments.
    pub session: Session,
}

/// What a WHEP client wants to play.
#[derive(Debug)]
pub struct PlayRequest {
    /// Where.
    pub room: RoomId,
    /// Who plays; a name is made up for one that has none. Its own producers are left out.
    pub viewer: Option<PeerId>,
    /// Whose producers only.
    pub of: Option<PeerId>,
    /// The client's part of DTLS.
    pub dtls: DtlsRequest,
    /// One per m-section that receives.
    pub wishes: Vec<Wish>,
    /// For its fragments.
    pub session: Session,
}

/// A consumer that fulfils a wish.
#[derive(Debug, Clone)]
pub struct Played {
    /// Its name.
    pub consumer: ConsumerId,
    /// In the client's numbers.
    pub rtp: RtpParameters,
    /// What it copies.
    pub producer: ProducerId,
    /// Where that arrives: equal for what is to be played in sync.
    pub from: TransportId,
}

/// Which ICE session a client means (RFC 9110 §13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// It does not say.
    Missing,
    /// Whichever there is.
    Any,
    /// One of these.
    Tags(Vec<String>),
}

/// What became of a fragment.
#[derive(Debug)]
pub enum Patched {
    /// A client's candidates, which it will show by using them.
    Noted,
    /// The ICE session is another from now on.
    Restarted {
        /// Our part of it.
        ice: IceParameters,
        /// Where the server is reached.
        candidates: Vec<IceCandidate>,
        /// For the answering fragment.
        sdp: Session,
    },
}

impl Control {
    /// What every room can carry.
    #[must_use]
    pub fn capabilities(&self) -> &RtpCapabilities {
        &self.inner.capabilities
    }

    /// Makes a transport with its producers, one for each publication, all of them or nothing.
    ///
    /// # Errors
    /// What making the room, the transport or a producer may be refused with.
    pub async fn publish(
        &self,
        request: PublishRequest,
    ) -> Result<(TransportReply, Vec<ProducerId>), ControlError> {
        let control = self.clone();
        whole(async move {
            let peer = named(request.peer.clone(), "whip")?;
            control.create_room(&request.room, None)?;
            let (room, direction) = (request.room.clone(), Direction::Send);
            let new = TransportRequest { room, peer: peer.clone(), direction };
            let transport = control.create_transport(new).await?;
            let begun = control.publish_on(&transport, &peer, request).await;
            let producers = control.whole_or_nothing(&transport, begun).await?;
            Ok((transport, producers))
        })
        .await
    }

    async fn publish_on(
        &self,
        transport: &TransportReply,
        peer: &PeerId,
        request: PublishRequest,
    ) -> Result<Vec<ProducerId>, ControlError> {
        self.connect_transport(transport.id, request.dtls).await?;
        let mut counts = [0_usize; 2];
        let mut producers = Vec::with_capacity(request.publications.len());
        for Publication { kind, rtp } in request.publications {
            let [audio, video] = &mut counts;
            let count = if kind == ortc::types::MediaKind::Audio { audio } else { video };
            *count += 1;
            let base = request.source.as_deref().unwrap_or_else(|| kind.label());
            let source = if *count == 1 { base.to_owned() } else { format!("{base}-{count}") };
            let producer = ProducerRequest {
                room: request.room.clone(),
                peer: peer.clone(),
                transport: transport.id,
                kind,
                source,
                rtp,
                paused: false,
                key_frame_request_delay: Duration::ZERO,
                app_data: Value::Object(Map::new()),
            };
            producers.push(self.create_producer(producer).await?);
        }
        self.begin_session(transport, SdpProtocol::Whip, request.session)?;
        Ok(producers)
    }

    /// Makes a transport with a consumer for each wish: the k-th wish of a kind gets the k-th
    /// producer of that kind that the client decodes, in the order of their making.
    ///
    /// # Errors
    /// [`ControlError::RoomNotFound`], [`ControlError::PeerNotFound`],
    /// [`ControlError::NothingToPlay`], and what making the transport or a consumer may be refused
    /// with.
    pub async fn play(
        &self,
        request: PlayRequest,
    ) -> Result<(TransportReply, Vec<Option<Played>>), ControlError> {
        let control = self.clone();
        whole(async move {
            let viewer = named(request.viewer.clone(), "whep")?;
            let chosen = control.inner.state.with(|state| chosen(state, &request, &viewer))?;
            let (room, direction) = (request.room.clone(), Direction::Recv);
            let new = TransportRequest { room, peer: viewer.clone(), direction };
            let transport = control.create_transport(new).await?;
            let begun = control.play_on(&transport, &viewer, request, chosen).await;
            let played = control.whole_or_nothing(&transport, begun).await?;
            Ok((transport, played))
        })
        .await
    }

    async fn play_on(
        &self,
        transport: &TransportReply,
        viewer: &PeerId,
        request: PlayRequest,
        chosen: Vec<Option<(ProducerId, TransportId)>>,
    ) -> Result<Vec<Option<Played>>, ControlError> {
        self.connect_transport(transport.id, request.dtls).await?;
        let mut played = Vec::with_capacity(chosen.len());
        for (wish, producer) in request.wishes.into_iter().zip(chosen) {
            let Some((producer, from)) = producer else {
                played.push(None);
                continue;
            };
            let consumer = ConsumerRequest {
                room: request.room.clone(),
                peer: viewer.clone(),
                transport: transport.id,
                producer,
                capabilities: wish.capabilities,
                paused: false,
                preferred_layers: None,
                enable_rtx: None,
                ignore_dtx: false,
                numbers: Some(wish.numbers),
            };
            match self.create_consumer(consumer).await {
                Ok(made) => {
                    let (consumer, rtp) = (made.id, made.rtp_parameters);
                    played.push(Some(Played { consumer, rtp, producer, from }));
                }
                // It closed in between.
                Err(ControlError::ProducerNotFound) => played.push(None),
                Err(error) => return Err(error),
            }
        }
        self.begin_session(transport, SdpProtocol::Whep, request.session)?;
        Ok(played)
    }

    fn begin_session(
        &self,
        transport: &TransportReply,
        protocol: SdpProtocol,
        sdp: Session,
    ) -> Result<(), ControlError> {
        let tag = transport.ice_parameters.username_fragment.clone();
        self.inner.state.with(|state| {
            let found = state.registry.transport_mut(transport.id);
            let made = found.ok_or(ControlError::TransportNotFound)?;
            made.session = Some(SdpSession { protocol, tag, sdp, spent_since: None });
            Ok(())
        })
    }

    /// Takes back what was begun when something of it was refused.
    async fn whole_or_nothing<T>(
        &self,
        transport: &TransportReply,
        begun: Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        if begun.is_err() {
            // It may have closed by itself.
            let _gone = self.end_transport(transport.id).await;
        }
        begun
    }

    /// Takes in a client's fragment: an ICE restart when it names another ICE session than the
    /// client's present one, else candidates.
    ///
    /// # Errors
    /// [`ControlError::SessionNotFound`], [`ControlError::PreconditionRequired`],
    /// [`ControlError::PreconditionFailed`], [`ControlError::Overloaded`].
    pub async fn patch_session(
        &self,
        (protocol, id): (SdpProtocol, TransportId),
        precondition: Precondition,
        ice_ufrag: Option<String>,
    ) -> Result<Patched, ControlError> {
        let present = self.inner.state.with(|state| session(state, protocol, id).cloned())?;
        match precondition {
            Precondition::Missing => return Err(ControlError::PreconditionRequired),
            Precondition::Tags(tags) if !tags.contains(&present.tag) => {
                return Err(ControlError::PreconditionFailed);
            }
            Precondition::Any | Precondition::Tags(_) => {}
        }
        let Some(fresh) = ice_ufrag.filter(|ufrag| *ufrag != present.sdp.client_ufrag) else {
            return Ok(Patched::Noted);
        };
        let ice = self.restart_ice(id).await?.ice_parameters;
        self.inner.state.with(|state| {
            let found = state.registry.transport_mut(id).and_then(|made| made.session.as_mut());
            let session = found.ok_or(ControlError::SessionNotFound)?;
            session.tag.clone_from(&ice.username_fragment);
            session.sdp.client_ufrag = fresh;
            let (sdp, candidates) = (session.sdp.clone(), self.inner.media.candidates());
            Ok(Patched::Restarted { ice, candidates, sdp })
        })
    }

    /// Ends a session. A peer that has nothing else leaves with it.
    ///
    /// # Errors
    /// [`ControlError::SessionNotFound`].
    pub async fn end_session(
        &self,
        protocol: SdpProtocol,
        id: TransportId,
    ) -> Result<(), ControlError> {
        self.inner.state.with(|state| session(state, protocol, id).map(drop))?;
        self.end_transport(id).await.map_err(|_| ControlError::SessionNotFound)
    }

    async fn end_transport(&self, id: TransportId) -> Result<(), ControlError> {
        let control = self.clone();
        whole(async move {
            let closing = control.inner.state.with(|state| {
                let transport = state.registry.transport(id)?;
                let (room, peer) = (transport.room.clone(), transport.peer.clone());
                let mut effects = state.registry.close_transport(id, "closed", now())?;
                effects.append(state.registry.leave_if_idle(&room, &peer));
                Ok::<_, ControlError>(control.settle(state, effects))
            })?;
            closing.finish().await;
            Ok(())
        })
        .await
    }
}

fn session(
    state: &State,
    protocol: SdpProtocol,
    id: TransportId,
) -> Result<&SdpSession, ControlError> {
    let transport = state.registry.transport(id).map_err(|_| ControlError::SessionNotFound)?;
    let session = transport.session.as_ref().filter(|session| session.protocol == protocol);
    session.ok_or(ControlError::SessionNotFound)
}

/// Which producer fulfils each wish, and where it arrives.
fn chosen(
    state: &State,
    request: &PlayRequest,
    viewer: &PeerId,
) -> Result<Vec<Option<(ProducerId, TransportId)>>, ControlError> {
    let room = state.registry.room(&request.room)?;
    if let Some(of) = &request.of
        && !room.peers.get(of).is_some_and(|peer| peer.joined)
    {
        return Err(ControlError::PeerNotFound);
    }
    let mut producers: Vec<_> = room
        .producers()
        .filter_map(|id| Some((id, state.registry.producer(id).ok()?)))
        .filter(|(_, producer)| producer.peer != *viewer)
        .filter(|(_, producer)| request.of.as_ref().is_none_or(|of| producer.peer == *of))
        .collect();
    let mut fulfil = |wish: &Wish| {
        let at = producers.iter().position(|(_, producer)| {
            producer.kind == wish.kind
                && ortc::can_consume(producer.consumable(), &wish.capabilities)
        })?;
        let (id, producer) = producers.remove(at);
        Some((id, producer.transport))
    };
    let chosen: Vec<_> = request.wishes.iter().map(&mut fulfil).collect();
    if chosen.iter().all(Option::is_none) {
        return Err(ControlError::NothingToPlay);
    }
    Ok(chosen)
}

/// The given name, or one made up.
fn named(given: Option<PeerId>, prefix: &str) -> Result<PeerId, ControlError> {
    let made_up = || PeerId::try_from(format!("{prefix}-{}", Uuid::new_v4()).as_str());
    match given {
        Some(given) => Ok(given),
        None => made_up().map_err(|error| ControlError::Invalid(error.to_string())),
    }
}
