//! Making, connecting and closing transports.

use serde::Serialize;
use utoipa::ToSchema;

use crate::control::addresses::IceCandidate;
use crate::control::command::{
    BitrateChange, BitrateLimits, Command, ConnectTransport, CreateTransport, Refusal, Reply,
    TransportCreated,
};
use crate::control::counts::Stage;
use crate::control::error::ControlError;
use crate::control::registry::{Close, Direction, NewTransport};
use crate::control::service::{Control, now, whole};
use crate::engine::dtls::PeerCertificate;
use crate::engine::transport::rtc::RemoteDtls;
use crate::id::{PeerId, RoomId, TransportId};

/// A transport to make.
#[derive(Debug, Clone)]
pub struct TransportRequest {
    /// Where.
    pub room: RoomId,
    /// For whom; joins the room if it is new there.
    pub peer: PeerId,
    /// What the client means to do with it.
    pub direction: Direction,
}

/// The server's part of ICE.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IceParameters {
    /// ICE user name fragment.
    pub username_fragment: String,
    /// ICE password.
    pub password: String,
    /// Always true.
    pub ice_lite: bool,
}

/// What a client must use from now on.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IceReply {
    /// The server's part of ICE; what was used before holds until the client uses this.
    pub ice_parameters: IceParameters,
}

/// A certificate's hash.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DtlsFingerprint {
    /// `sha-256`.
    pub algorithm: &'static str,
    /// Upper-case hexadecimal pairs with colons between them.
    pub value: String,
}

/// The server's part of DTLS.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DtlsParameters {
    /// Always `auto`: the client chooses.
    pub role: &'static str,
    /// One fingerprint.
    pub fingerprints: Vec<DtlsFingerprint>,
}

/// What a client needs to reach its new transport.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransportReply {
    /// Its name.
    #[schema(value_type = String, format = "uuid")]
    pub id: TransportId,
    /// The server's part of ICE.
    pub ice_parameters: IceParameters,
    /// Where the server is reached.
    pub ice_candidates: Vec<IceCandidate>,
    /// The server's part of DTLS.
    pub dtls_parameters: DtlsParameters,
}

/// The client's part of DTLS, reduced to what counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DtlsRequest {
    /// SHA-256 of the client's certificate.
    pub fingerprint: [u8; 32],
    /// True when the client starts the handshake.
    pub remote_is_client: bool,
    /// Of which kinds its certificate may be.
    pub certificate: PeerCertificate,
}

impl Control {
    /// Makes a transport; with its first one a peer joins the room.
    ///
    /// # Errors
    /// [`ControlError::RoomNotFound`], [`ControlError::PeerNotFound`] when the peer left in
    /// between, [`ControlError::LimitReached`], [`ControlError::Overloaded`].
    pub async fn create_transport(
        &self,
        request: TransportRequest,
    ) -> Result<TransportReply, ControlError> {
        let control = self.clone();
        whole(async move { control.create_transport_whole(request).await }).await
    }

    async fn create_transport_whole(
        &self,
        request: TransportRequest,
    ) -> Result<TransportReply, ControlError> {
        let TransportRequest { room, peer, direction } = request;
        let id = TransportId::random();
        let asked = now();
        let (shard, pending) = self.inner.state.with(|state| {
            let new = NewTransport { room: room.clone(), peer: peer.clone(), direction };
            let shard = state.place_transport(id, new)?;
            let create = CreateTransport { transport: id, room: room.clone(), peer: peer.clone() };
            let create = Command::CreateTransport(create);
            Ok::<_, ControlError>((shard, self.inner.dispatcher.submit(shard, create)))
        })?;
        let created = match pending.answer().await {
            Ok(Reply::TransportCreated(created)) => Ok(created),
            Ok(_) => Err(Refusal::Overloaded),
            Err(refusal) => Err(refusal),
        };
        self.inner.state.with(|state| match created {
            Ok(created) => {
                // When the peer left in between, its transport was closed with it.
                let effects = state.registry.commit_transport(id)?;
                let made = now();
                state.counts.pass(Stage::Transport, asked, made);
                if let Some(transport) = state.registry.transport_mut(id) {
                    transport.since = Some(made);
                }
                self.settle(state, effects).finish_later();
                Ok(self.transport_reply(id, &created))
            }
            Err(refusal) => {
                state.registry.abandon_transport(id, now());
                state.counts.fail(Stage::Transport);
                Err(self.give_up(state, refusal, (shard, Close::Transport(id))))
            }
        })
    }

    fn transport_reply(&self, id: TransportId, created: &TransportCreated) -> TransportReply {
        TransportReply {
            id,
            ice_parameters: ice_parameters(&created.ice_ufrag, &created.ice_password),
            ice_candidates: self.inner.media.candidates(),
            dtls_parameters: DtlsParameters {
                role: "auto",
                fingerprints: vec![DtlsFingerprint {
                    algorithm: "sha-256",
                    value: hex_pairs(&created.fingerprint),
                }],
            },
        }
    }

    /// Gives a transport its client's DTLS parameters, once.
    ///
    /// # Errors
    /// [`ControlError::TransportNotFound`], [`ControlError::AlreadyConnected`],
    /// [`ControlError::Overloaded`].
    pub async fn connect_transport(
        &self,
        id: TransportId,
        dtls: DtlsRequest,
    ) -> Result<(), ControlError> {
        let control = self.clone();
        whole(async move {
            let asked = now();
            let pending = control.inner.state.with(|state| {
                let shard = state.registry.transport(id)?.shard;
                let connect = ConnectTransport {
                    transport: id,
                    remote: RemoteDtls {
                        fingerprint: dtls.fingerprint,
                        is_client: dtls.remote_is_client,
                        certificate: dtls.certificate,
                    },
                };
                Ok::<_, ControlError>(
                    control.inner.dispatcher.submit(shard, Command::ConnectTransport(connect)),
                )
            })?;
            let connected = pending.answer().await;
            if connected.is_ok() {
                control.inner.state.with(|state| state.registry.expect_client(id, asked));
            }
            connected.map(drop).map_err(Refusal::into)
        })
        .await
    }

    /// Gives a transport further ICE credentials. Media goes on over the old addresses until the
    /// client uses the new credentials.
    ///
    /// # Errors
    /// [`ControlError::TransportNotFound`], [`ControlError::Overloaded`].
    pub async fn restart_ice(&self, id: TransportId) -> Result<IceReply, ControlError> {
        match self.ask_transport(id, Command::RestartIce(id)).await? {
            Reply::IceRestarted { ufrag, password } => {
                Ok(IceReply { ice_parameters: ice_parameters(&ufrag, &password) })
            }
            _ => Err(ControlError::Overloaded),
        }
    }

    /// Changes some of a transport's limits; all of them as they are then.
    ///
    /// # Errors
    /// [`ControlError::TransportNotFound`], [`ControlError::Invalid`] when the least would be above
    /// the most, [`ControlError::Overloaded`].
    pub async fn set_bitrates(
        &self,
        id: TransportId,
        change: BitrateChange,
    ) -> Result<BitrateLimits, ControlError> {
        match self.ask_transport(id, Command::SetBitrates(id, change)).await? {
            Reply::Bitrates(limits) => Ok(limits),
            _ => Err(ControlError::Overloaded),
        }
    }

    /// Asks the shard of a transport.
    pub(super) async fn ask_transport(
        &self,
        id: TransportId,
        command: Command,
    ) -> Result<Reply, ControlError> {
        let pending = self.inner.state.with(|state| {
            let shard = state.registry.transport(id)?.shard;
            Ok::<_, ControlError>(self.inner.dispatcher.submit(shard, command))
        })?;
        pending.answer().await.map_err(Refusal::into)
    }

    /// Closes a transport with all it carries.
    ///
    /// # Errors
    /// [`ControlError::TransportNotFound`].
    pub async fn close_transport(&self, id: TransportId) -> Result<(), ControlError> {
        let control = self.clone();
        whole(async move {
            let closing = control.inner.state.with(|state| {
                state.registry.transport(id)?;
                let effects = state.registry.close_transport(id, "closed", now())?;
                Ok::<_, ControlError>(control.settle(state, effects))
            })?;
            closing.finish().await;
            Ok(())
        })
        .await
    }
}

fn ice_parameters(ufrag: &str, password: &str) -> IceParameters {
    IceParameters {
        username_fragment: ufrag.to_owned(),
        password: password.to_owned(),
        ice_lite: true,
    }
}

fn hex_pairs(bytes: &[u8; 32]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_upper_case_pairs_with_colons() {
        let mut bytes = [0; 32];
        bytes[0] = 0xab;
        bytes[31] = 7;
        let text = hex_pairs(&bytes);
        assert!(text.starts_with("AB:00:"), "{text}");
        assert!(text.ends_with(":00:07"), "{text}");
        assert_eq!(text.len(), 95);
    }
}
