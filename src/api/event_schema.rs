//! What the entries of a room's log look like, for the OpenAPI document: the same over SSE, over
//! WebSocket and in a webhook's `events`.

use utoipa::openapi::schema::{ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{KnownFormat, Ref, RefOr, SchemaFormat};

/// The schema's name.
pub(super) const NAME: &str = "RoomEntry";

/// What an event's `data` has.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// The name that the server gave it.
    Id,
    /// A name or a word.
    Text,
    Flag,
    Integer,
    /// JSON of the client's own.
    Any,
    /// One as the schema of that name says.
    One(&'static str),
    /// That, or null.
    Maybe(&'static str),
    /// Many as the schema of that name says.
    Several(&'static str),
    /// Many objects with these fields.
    Many(&'static [(&'static str, Shape)]),
}

use Shape::{Any, Flag, Id, Integer, Many, Maybe, One, Several, Text};

type Fields = &'static [(&'static str, Shape)];

const PRODUCER: Fields = &[("producerId", Id), ("peerId", Text)];
const TRANSPORT_STATE: Fields = &[("transportId", Id), ("peerId", Text), ("state", Text)];

/// Each type of event, what it means, and the fields of its `data`.
const EVENTS: &[(&str, &str, Fields)] = &[
    ("room-created", "The room was made.", &[("initiatorId", Text)]),
    ("room-closed", "The room ended, and its log with it.", &[("reason", Text)]),
    ("peer-joined", "A peer has its first transport.", &[("peerId", Text)]),
    (
        "peer-left",
        "A peer left, with all it had: `left` or `idle`.",
        &[("peerId", Text), ("reason", Text)],
    ),
    (
        "producer-added",
        "A peer sends something new.",
        &[
            ("producerId", Id),
            ("peerId", Text),
            ("kind", Text),
            ("source", Text),
            ("type", Text),
            ("paused", Flag),
            ("appData", Any),
        ],
    ),
    (
        "producer-closed",
        "A producer ended, and its consumers with it: `closed`, `replaced`, `transport_closed` or \
         `lost`.",
        &[("producerId", Id), ("peerId", Text), ("kind", Text), ("source", Text), ("reason", Text)],
    ),
    ("producer-paused", "A producer was paused.", PRODUCER),
    ("producer-resumed", "A producer was resumed.", PRODUCER),
    (
        "producer-score",
        "How well a producer's encodings arrive has changed: 0 to 10 each.",
        &[("producerId", Id), ("peerId", Text), ("score", Several("EncodingScore"))],
    ),
    (
        "producer-demand",
        "Which encodings of a producer of video anybody wants, the lowest first. What nobody wants \
         its application may switch off, and must switch on when told so.",
        &[
            ("producerId", Id),
            ("peerId", Text),
            (
                "encodings",
                Many(&[("wanted", Flag), ("spatialLayer", Integer), ("temporalLayer", Integer)]),
            ),
        ],
    ),
    (
        "consumer-closed",
        "A consumer was closed by itself: `closed` or `lost`.",
        &[("consumerId", Id), ("producerId", Id), ("peerId", Text), ("reason", Text)],
    ),
    (
        "consumer-layers",
        "A consumer is sent other layers than before; null is nothing.",
        &[("consumerId", Id), ("producerId", Id), ("peerId", Text), ("layers", Maybe("Layers"))],
    ),
    (
        "consumer-score",
        "How well a consumer's stream arrives has changed: 0 to 10.",
        &[("consumerId", Id), ("producerId", Id), ("peerId", Text), ("score", One("Score"))],
    ),
    (
        "bandwidth",
        "What a client can be sent has changed noticeably: bits/s.",
        &[("transportId", Id), ("peerId", Text), ("availableOutgoingBitrate", Integer)],
    ),
    ("transport-ice-state", "ICE of a transport: `connected`, `completed` …", TRANSPORT_STATE),
    ("transport-dtls-state", "DTLS of a transport: `connecting`, `connected` …", TRANSPORT_STATE),
    (
        "transport-closed",
        "A transport ended, with all it carried: `closed`, `peer_left`, `consent_lost` …",
        &[("transportId", Id), ("peerId", Text), ("reason", Text)],
    ),
    ("active-speaker", "Somebody else speaks now; in silence the last one stays it.", PRODUCER),
    (
        "audio-levels",
        "The loudest producers, loudest first, while somebody reads the log: at most twice a second, \
         in dB relative to overload (-127 to 0). Nobody: the room fell silent.",
        &[("levels", Many(&[("producerId", Id), ("peerId", Text), ("level", Integer)]))],
    ),
];

/// Any entry of a room's log.
pub(super) fn schema() -> RefOr<Schema> {
    let snapshot = Ref::from_schema_name("RoomView");
    let about = "The room as it is: what a reader without a position begins with, and one whose \
                 position the log no longer has.";
    let mut entries = OneOfBuilder::new()
        .description(Some(
            "One entry of a room's log. Entries are numbered without gaps; `id` is the position \
             to go on from (`Last-Event-ID`, `after`).",
        ))
        .item(entry("snapshot", about, snapshot.into()));
    for (name, about, fields) in EVENTS {
        entries = entries.item(entry(name, about, object(fields)));
    }
    RefOr::T(Schema::OneOf(entries.build()))
}

fn entry(name: &str, about: &str, data: RefOr<Schema>) -> RefOr<Schema> {
    let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([name]));
    let time = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let mut entry = ObjectBuilder::new()
        .title(Some(name))
        .description(Some(about))
        .property("id", Object::with_type(Type::String))
        .property("seq", Object::with_type(Type::Integer))
        .property("time", time)
        .property("roomId", Object::with_type(Type::String))
        .property("type", kind)
        .property("data", data);
    for name in ["id", "seq", "time", "roomId", "type", "data"] {
        entry = entry.required(name);
    }
    RefOr::T(Schema::Object(entry.build()))
}

fn object(fields: Fields) -> RefOr<Schema> {
    let each = |object: ObjectBuilder, (name, shape): &(&str, Shape)| {
        object.property(*name, property(*shape))
    };
    RefOr::T(Schema::Object(fields.iter().fold(ObjectBuilder::new(), each).build()))
}

fn property(shape: Shape) -> RefOr<Schema> {
    let plain = |of| RefOr::T(Schema::Object(Object::with_type(of)));
    match shape {
        Id => {
            let uuid = SchemaFormat::Custom("uuid".to_owned());
            let id = ObjectBuilder::new().schema_type(Type::String).format(Some(uuid));
            RefOr::T(Schema::Object(id.build()))
        }
        Text => plain(Type::String),
        Flag => plain(Type::Boolean),
        Integer => plain(Type::Integer),
        Any => plain(Type::Object),
        One(schema) => Ref::from_schema_name(schema).into(),
        Maybe(schema) => {
            let maybe = OneOfBuilder::new()
                .item(Object::with_type(Type::Null))
                .item(Ref::from_schema_name(schema));
            RefOr::T(Schema::OneOf(maybe.build()))
        }
        Several(schema) => many(Ref::from_schema_name(schema).into()),
        Many(fields) => many(object(fields)),
    }
}

fn many(item: RefOr<Schema>) -> RefOr<Schema> {
    RefOr::T(Schema::Array(ArrayBuilder::new().items(item).build()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::control::command::{DtlsState, IceState, Layers};
    use crate::control::stats::{EncodingScore, Score};
    use crate::events::RoomEvent;
    use crate::id::{ConsumerId, PeerId, ProducerId, TransportId};
    use crate::ortc::types::{MediaKind, ProducerType};

    /// One of each type, with all that it may have.
    fn samples() -> Vec<RoomEvent> {
        let peer = PeerId::try_from("alice").unwrap();
        let [producer, consumer, transport] =
            [ProducerId::random(), ProducerId::random(), ProducerId::random()];
        let consumer: ConsumerId = consumer.to_string().parse().unwrap();
        let transport: TransportId = transport.to_string().parse().unwrap();
        let (kind, source) = (MediaKind::Video, "screen".to_owned());
        let layers = Layers { spatial: 1, temporal: 2 };
        let score = EncodingScore { encoding_idx: 0, ssrc: 1, rid: Some("r0".into()), score: 10 };
        let of = |peer: &PeerId| peer.clone();
        vec![
            RoomEvent::RoomCreated { initiator: Some(of(&peer)) },
            RoomEvent::RoomClosed { reason: "empty" },
            RoomEvent::PeerJoined { peer: of(&peer) },
            RoomEvent::PeerLeft { peer: of(&peer), reason: "left" },
            RoomEvent::ProducerAdded {
                producer,
                peer: of(&peer),
                kind,
                source: source.clone(),
                producer_type: ProducerType::Simulcast,
                paused: false,
                app_data: json!({ "any": ["thing"] }),
            },
            RoomEvent::ProducerClosed { producer, peer: of(&peer), kind, source, reason: "closed" },
            RoomEvent::ProducerPaused { producer, peer: of(&peer), paused: true },
            RoomEvent::ProducerPaused { producer, peer: of(&peer), paused: false },
            RoomEvent::ProducerScore { producer, peer: of(&peer), scores: vec![score] },
            RoomEvent::ProducerDemand {
                producer,
                peer: of(&peer),
                encodings: vec![Some(layers), None],
            },
            RoomEvent::ConsumerClosed { consumer, producer, peer: of(&peer), reason: "closed" },
            RoomEvent::ConsumerLayers { consumer, producer, peer: of(&peer), layers: Some(layers) },
            RoomEvent::ConsumerScore {
                consumer,
                producer,
                peer: of(&peer),
                score: Score::default(),
            },
            RoomEvent::Bandwidth { transport, peer: of(&peer), estimate_bps: 1 },
            RoomEvent::TransportIceState { transport, peer: of(&peer), state: IceState::Completed },
            RoomEvent::TransportDtlsState {
                transport,
                peer: of(&peer),
                state: DtlsState::Connected,
            },
            RoomEvent::TransportClosed { transport, peer: of(&peer), reason: "closed" },
            RoomEvent::ActiveSpeaker { producer, peer: of(&peer) },
            RoomEvent::AudioLevels { levels: vec![(producer, peer, -27)] },
        ]
    }

    /// That a value has the fields that are told, all of them, and of what kind.
    fn fits(value: &Value, fields: Fields) {
        let object = value.as_object().unwrap();
        let mut told: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        told.sort_unstable();
        assert!(object.keys().map(String::as_str).eq(told), "{value}");
        for (name, shape) in fields {
            let value = &value[name];
            let is_so = match shape {
                Id | Text => value.is_string(),
                Flag => value.is_boolean(),
                Integer => value.is_i64(),
                Any | One(_) | Maybe(_) => value.is_object(),
                Several(_) => value.as_array().is_some_and(|all| all.iter().all(Value::is_object)),
                Many(fields) => {
                    // What is not wanted has no layers.
                    let all = value.as_array().unwrap();
                    all.iter().filter(|it| it["wanted"] != false).for_each(|it| fits(it, fields));
                    !all.is_empty()
                }
            };
            assert!(is_so, "{name} of {value}");
        }
    }

    #[test]
    fn every_event_is_as_the_document_says() {
        let samples = samples();
        let mut told: Vec<_> = samples.iter().map(RoomEvent::name).collect();
        let mut known: Vec<_> = EVENTS.iter().map(|(name, ..)| *name).collect();
        told.sort_unstable();
        known.sort_unstable();
        assert_eq!(told, known);
        for sample in samples {
            let (_, _, fields) = EVENTS.iter().find(|(name, ..)| *name == sample.name()).unwrap();
            fits(&sample.data(), fields);
        }
    }
}
