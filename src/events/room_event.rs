//! What can happen in a room.

use serde_json::{Value, json};

use crate::control::command::{DtlsState, IceState, Layers};
use crate::control::stats::{EncodingScore, Score};

use crate::id::{ConsumerId, PeerId, ProducerId, TransportId};
use crate::ortc::types::{MediaKind, ProducerType};

/// One thing that happened in a room; each variant is one event type of the REST contract.
///
/// What follows from an event is not told again: with `transport-closed` go its producers'
/// consumers, with `producer-closed` its consumers, with `room-closed` everything.
#[derive(Debug, Clone, PartialEq)]
pub enum RoomEvent {
    /// The room was made.
    RoomCreated {
        /// Who asked for it, if told.
        initiator: Option<PeerId>,
    },
    /// The room ended; the log ends with it.
    RoomClosed {
        /// `empty`, `deleted`, `idle`, or `draining` at the deadline of a drain.
        reason: &'static str,
    },
    /// A peer has its first transport.
    PeerJoined {
        /// Who.
        peer: PeerId,
    },
    /// A peer left, with all it had.
    PeerLeft {
        /// Who.
        peer: PeerId,
        /// `left` or `idle`.
        reason: &'static str,
    },
    /// A peer sends something new.
    ProducerAdded {
        /// Which producer.
        producer: ProducerId,
        /// Whose.
        peer: PeerId,
        /// Audio or video.
        kind: MediaKind,
        /// Camera, screen …: the client's word.
        source: String,
        /// How its encodings relate.
        producer_type: ProducerType,
        /// Starts paused.
        paused: bool,
        /// The client's own data.
        app_data: Value,
    },
    /// A producer ended, and all its consumers with it.
    ProducerClosed {
        /// Which producer.
        producer: ProducerId,
        /// Whose.
        peer: PeerId,
        /// Audio or video.
        kind: MediaKind,
        /// Camera, screen …: the client's word.
        source: String,
        /// `closed`, `replaced`, `transport_closed` or `lost`.
        reason: &'static str,
    },
    /// A producer was paused or resumed.
    ProducerPaused {
        /// Which producer.
        producer: ProducerId,
        /// Whose.
        peer: PeerId,
        /// False when it was resumed.
        paused: bool,
    },
    /// How well a producer's encodings arrive has changed.
    ProducerScore {
        /// Which producer.
        producer: ProducerId,
        /// Whose.
        peer: PeerId,
        /// Of the encodings that have begun.
        scores: Vec<EncodingScore>,
    },
    /// One consumer was closed by itself.
    ConsumerClosed {
        /// Which consumer.
        consumer: ConsumerId,
        /// What it copied.
        producer: ProducerId,
        /// Whose consumer.
        peer: PeerId,
        /// `closed` or `lost`.
        reason: &'static str,
    },
    /// A consumer is sent other layers than before.
    ConsumerLayers {
        /// Which consumer.
        consumer: ConsumerId,
        /// What it copies.
        producer: ProducerId,
        /// Whose consumer.
        peer: PeerId,
        /// What it is sent; `None` is nothing.
        layers: Option<Layers>,
    },
    /// How well a consumer's stream arrives at its client has changed. What follows from its
    /// producer's score alone is not told.
    ConsumerScore {
        /// Which consumer.
        consumer: ConsumerId,
        /// What it copies.
        producer: ProducerId,
        /// Whose consumer.
        peer: PeerId,
        /// The scores now.
        score: Score,
    },
    /// What a client can be sent has changed noticeably.
    Bandwidth {
        /// Over which transport.
        transport: TransportId,
        /// Whose.
        peer: PeerId,
        /// The estimate, in bits/s.
        estimate_bps: u64,
    },
    /// ICE of a transport.
    TransportIceState {
        /// Which transport.
        transport: TransportId,
        /// Whose.
        peer: PeerId,
        /// The state now.
        state: IceState,
    },
    /// DTLS of a transport.
    TransportDtlsState {
        /// Which transport.
        transport: TransportId,
        /// Whose.
        peer: PeerId,
        /// The state now.
        state: DtlsState,
    },
    /// A transport ended, with all it carried.
    TransportClosed {
        /// Which transport.
        transport: TransportId,
        /// Whose.
        peer: PeerId,
        /// `closed`, `peer_left`, `idle` (nothing left to play), `lost` or the shard's reason.
        reason: &'static str,
    },
    /// Somebody else speaks now; in silence the last speaker stays it.
    ActiveSpeaker {
        /// What is heard.
        producer: ProducerId,
        /// Who speaks.
        peer: PeerId,
    },
    /// How loud the loudest producers are, told while the room's events are read: at most twice a
    /// second, and only what changed.
    AudioLevels {
        /// The loudest first; nobody when the room fell silent.
        levels: Vec<(ProducerId, PeerId, i8)>,
    },
    /// The layers of a producer of video that anybody wants: what nobody does (`wanted: false`, or
    /// layers above those named) its application may switch off, and must switch on when told so.
    ProducerDemand {
        /// Which producer.
        producer: ProducerId,
        /// Whose.
        peer: PeerId,
        /// The highest layers wanted of each encoding, lowest encoding first.
        encodings: Vec<Option<Layers>>,
    },
}

impl RoomEvent {
    /// One encoding of `producer-demand`: the highest layers wanted of it, if any.
    #[must_use]
    pub fn demand(encoding: &Option<Layers>) -> Value {
        match encoding {
            None => json!({ "wanted": false }),
            Some(Layers { spatial, temporal }) => {
                json!({ "wanted": true, "spatialLayer": spatial, "temporalLayer": temporal })
            }
        }
    }

    /// The event's type in the log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RoomCreated { .. } => "room-created",
            Self::RoomClosed { .. } => "room-closed",
            Self::PeerJoined { .. } => "peer-joined",
            Self::PeerLeft { .. } => "peer-left",
            Self::ProducerAdded { .. } => "producer-added",
            Self::ProducerClosed { .. } => "producer-closed",
            Self::ProducerPaused { paused: true, .. } => "producer-paused",
            Self::ProducerPaused { paused: false, .. } => "producer-resumed",
            Self::ProducerScore { .. } => "producer-score",
            Self::ConsumerClosed { .. } => "consumer-closed",
            Self::ConsumerLayers { .. } => "consumer-layers",
            Self::ConsumerScore { .. } => "consumer-score",
            Self::Bandwidth { .. } => "bandwidth",
            Self::TransportIceState { .. } => "transport-ice-state",
            Self::TransportDtlsState { .. } => "transport-dtls-state",
            Self::TransportClosed { .. } => "transport-closed",
            Self::ActiveSpeaker { .. } => "active-speaker",
            Self::AudioLevels { .. } => "audio-levels",
            Self::ProducerDemand { .. } => "producer-demand",
        }
    }

    /// The event's `data` in the log.
    #[must_use]
    pub fn data(&self) -> Value {
        match self {
            Self::RoomCreated { initiator: None } => json!({}),
            Self::RoomCreated { initiator } => json!({ "initiatorId": initiator }),
            Self::RoomClosed { reason } => json!({ "reason": reason }),
            Self::PeerJoined { peer } => json!({ "peerId": peer }),
            Self::PeerLeft { peer, reason } => json!({ "peerId": peer, "reason": reason }),
            Self::ProducerAdded {
                producer,
                peer,
                kind,
                source,
                producer_type,
                paused,
                app_data,
            } => json!({
                "producerId": producer, "peerId": peer, "kind": kind, "source": source,
                "type": producer_type, "paused": paused, "appData": app_data,
            }),
            Self::ProducerClosed { producer, peer, kind, source, reason } => json!({
                "producerId": producer, "peerId": peer, "kind": kind, "source": source,
                "reason": reason,
            }),
            Self::ProducerPaused { producer, peer, .. } => {
                json!({ "producerId": producer, "peerId": peer })
            }
            Self::ProducerScore { producer, peer, scores } => {
                json!({ "producerId": producer, "peerId": peer, "score": scores })
            }
            Self::ConsumerLayers { consumer, producer, peer, layers } => json!({
                "consumerId": consumer, "producerId": producer, "peerId": peer, "layers": layers,
            }),
            Self::ConsumerScore { consumer, producer, peer, score } => json!({
                "consumerId": consumer, "producerId": producer, "peerId": peer, "score": score,
            }),
            Self::Bandwidth { transport, peer, estimate_bps } => json!({
                "transportId": transport, "peerId": peer,
                "availableOutgoingBitrate": estimate_bps,
            }),
            Self::ConsumerClosed { consumer, producer, peer, reason } => json!({
                "consumerId": consumer, "producerId": producer, "peerId": peer, "reason": reason,
            }),
            Self::TransportIceState { transport, peer, state } => json!({
                "transportId": transport, "peerId": peer, "state": state.label(),
            }),
            Self::TransportDtlsState { transport, peer, state } => json!({
                "transportId": transport, "peerId": peer, "state": state.label(),
            }),
            Self::TransportClosed { transport, peer, reason } => json!({
                "transportId": transport, "peerId": peer, "reason": reason,
            }),
            Self::ActiveSpeaker { producer, peer } => {
                json!({ "producerId": producer, "peerId": peer })
            }
            Self::AudioLevels { levels } => {
                let level = |(producer, peer, level): &(ProducerId, PeerId, i8)| json!({ "producerId": producer, "peerId": peer, "level": level });
                json!({ "levels": levels.iter().map(level).collect::<Vec<_>>() })
            }
            Self::ProducerDemand { producer, peer, encodings } => json!({
                "producerId": producer, "peerId": peer,
                "encodings": encodings.iter().map(Self::demand).collect::<Vec<_>>(),
            }),
        }
    }
}
