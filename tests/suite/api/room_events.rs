//! A room's log as its readers get it.

use axum::body::Body;
use axum::http::{Request, header};
use axum::response::Response;
use http_body_util::BodyExt;
use ringcast::control::command::{Command, DtlsState, Event, IceState, Layers};

use ringcast::engine::voice::LevelWindow;
use ringcast::id::{ConsumerId, ProducerId, TransportId};
use ringcast::limits::EVENT_READER_QUEUE;
use serde_json::{Value, json};

use super::harness::{Node, opus, settle, simulcast};

struct Message {
    epoch: u64,
    id: u64,
    kind: String,
    data: Value,
}

/// All messages until the stream ends.
async fn read_to_end(response: Response) -> Vec<Message> {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.split("\n\n").filter(|block| block.contains("data:")).map(message).collect()
}

/// The first message of a stream that goes on.
async fn read_first(response: Response) -> Message {
    let frame = response.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    message(str::from_utf8(&frame).unwrap())
}

fn message(block: &str) -> Message {
    let field = |name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {block}")).trim().to_owned()
    };
    Message {
        id: field("id:").split_once('-').unwrap().1.parse().unwrap(),
        epoch: field("id:").split_once('-').unwrap().0.parse().unwrap(),
        kind: field("event:"),
        data: serde_json::from_str(&field("data:")).unwrap(),
    }
}

async fn follow(node: &Node, path: &str, last: Option<&str>) -> Response {
    let mut request = Request::get(path);
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    node.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_reader_sees_everything_in_order_and_the_stream_ends_with_the_room() {
    let node = Node::start(1);
    node.post("/media/room", json!({ "roomId": "r", "initiatorId": "alice" })).await;
    let id = node.transport("r", "alice").await;
    let reader = follow(&node, "/media/room/r/events?after=0", None).await;
    let transport: TransportId = id.parse().unwrap();
    let remote = Some("198.51.100.4:5000".parse().unwrap());
    for _ in 0..2 {
        node.happens(Event::IceState { transport, state: IceState::Completed, remote, tcp: false });
    }
    let cipher = Some("AEAD_AES_128_GCM");
    node.happens(Event::DtlsState { transport, state: DtlsState::Connected, cipher });
    let producer = node.producer("r", "alice", &id).await;
    for action in ["pause", "pause", "resume"] {
        node.post(&format!("/media/producer/{producer}/{action}"), json!({})).await;
    }
    let consumer = node.consume(("r", "alice"), &id, &producer).await.id("id");
    node.delete(&format!("/media/consumer/{consumer}")).await;
    node.post("/media/room/r/leave", json!({ "peerId": "alice" })).await;

    let messages = read_to_end(reader).await;
    let kinds: Vec<_> = messages.iter().map(|message| message.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "room-created",
            "peer-joined",
            "transport-ice-state",
            "transport-dtls-state",
            "producer-added",
            "producer-paused",
            "producer-resumed",
            "consumer-closed",
            "producer-closed",
            "transport-closed",
            "peer-left",
            "room-closed",
        ]
    );
    let ids: Vec<_> = messages.iter().map(|message| message.id).collect();
    assert_eq!(ids, (1..=12).collect::<Vec<u64>>());
    assert!(messages.iter().all(|m| m.data["seq"] == m.id && m.data["type"] == m.kind.as_str()));
    assert_eq!(messages[0].data["data"], json!({ "initiatorId": "alice" }));
    assert_eq!(messages[0].data["roomId"], "r");
    assert!(messages[0].data["time"].as_str().unwrap().starts_with("2023-11-14T22:13:2"));
    assert_eq!(messages[4].data["data"]["producerId"], json!(producer));
    assert_eq!(messages[8].data["data"]["reason"], "transport_closed");
}

#[tokio::test]
async fn a_reader_that_reconnects_goes_on_where_it_was() {
    let node = Node::start(1);
    node.room("r").await;
    node.transport("r", "alice").await;
    node.transport("r", "bob").await;
    let reader = follow(&node, "/media/room/r/events?after=0", Some("2")).await;
    node.delete("/media/room/r").await;
    let ids: Vec<_> = read_to_end(reader).await.iter().map(|message| message.id).collect();
    assert_eq!(ids, [3, 4]);
}

#[tokio::test]
async fn a_reader_that_comes_back_to_a_later_room_of_that_name_is_told_its_state() {
    let node = Node::start(1);
    node.room("r").await;
    node.transport("r", "alice").await;
    let reader = follow(&node, "/media/room/r/events?after=0", None).await;
    node.delete("/media/room/r").await;
    let seen = read_to_end(reader).await;
    let last = seen.last().unwrap();
    node.room("r").await;
    for peer in ["bob", "carol", "dora"] {
        node.transport("r", peer).await;
    }
    let position = format!("{}-{}", last.epoch, last.id);
    for (path, header) in [
        ("/media/room/r/events".to_owned(), Some(position.as_str())),
        (format!("/media/room/r/events?after={position}"), None),
    ] {
        let reader = follow(&node, &path, header).await;
        let told = read_first(reader).await;
        assert_eq!(told.kind, "snapshot", "{path}");
        assert!(told.epoch > last.epoch, "also within one millisecond");
        assert_eq!(told.id, 4);
        assert_eq!(told.data["data"]["peers"].as_array().unwrap().len(), 3);
        assert_eq!(told.data["id"], format!("{}-4", told.epoch));
    }
}

#[tokio::test]
async fn a_thousand_readers_that_never_read_cost_others_nothing_and_are_let_go() {
    let node = Node::start(1);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    let producer = node.producer("r", "alice", &transport).await;
    let mut hostile = Vec::new();
    for _ in 0..1000 {
        hostile.push(follow(&node, "/media/room/r/events", None).await);
    }
    let mut quick = follow(&node, "/media/room/r/events?after=3", None).await.into_body();
    let mut seen = 0;
    for turn in 0..EVENT_READER_QUEUE + 100 {
        let action = if turn % 2 == 0 { "pause" } else { "resume" };
        node.post(&format!("/media/producer/{producer}/{action}"), json!({})).await;
        let frame = quick.frame().await.unwrap().unwrap().into_data().unwrap();
        seen += usize::from(frame.starts_with(b"id: "));
    }
    assert_eq!(seen, EVENT_READER_QUEUE + 100, "whoever reads misses nothing");
    // They were given a snapshot, what fitted into their queues, and their end.
    let mut snapshots = Vec::new();
    for reader in hostile {
        let mut body = reader.into_body();
        let snapshot = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let mut rest = 0;
        while body.frame().await.is_some() {
            rest += 1;
        }
        assert_eq!(rest, EVENT_READER_QUEUE);
        snapshots.push(snapshot);
    }
    let first = snapshots[0].as_ptr();
    assert!(snapshots.iter().all(|one| one.as_ptr() == first), "one copy for all");
}

#[tokio::test]
async fn a_new_reader_or_one_from_another_time_starts_with_a_snapshot() {
    let node = Node::start(1);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    node.producer("r", "alice", &transport).await;
    for last in [None, Some("9999")] {
        let room = if last.is_none() { "r" } else { "r2" };
        if room == "r2" {
            node.room("r2").await;
        }
        let reader = follow(&node, &format!("/media/room/{room}/events"), last).await;
        node.delete(&format!("/media/room/{room}")).await;
        let messages = read_to_end(reader).await;
        assert_eq!(messages[0].kind, "snapshot");
        assert_eq!(messages[0].data["data"]["roomId"], room);
        let fields = messages[0].data.as_object().unwrap().keys();
        assert!(fields.eq(messages[1].data.as_object().unwrap().keys()), "the shape of all events");
        assert_eq!(messages[0].id + 1, messages[1].id);
        assert_eq!(messages[1].kind, "room-closed");
        if room == "r" {
            assert_eq!(messages[0].data["data"]["peers"][0]["peerId"], "alice");
            assert_eq!(messages[0].data["data"]["producers"].as_array().unwrap().len(), 1);
        }
    }
}

#[tokio::test]
async fn readers_who_come_while_others_join_get_a_snapshot_and_all_that_it_lacks() {
    let node = Node::start(1);
    node.room("r").await;
    let mut readers = Vec::new();
    for peer in 0..40 {
        node.transport("r", &format!("peer-{peer}")).await;
        readers.push(follow(&node, "/media/room/r/events", None).await);
    }
    node.delete("/media/room/r").await;
    for reader in readers {
        let messages = read_to_end(reader).await;
        let [snapshot, rest @ ..] = messages.as_slice() else { panic!("a snapshot") };
        assert_eq!(snapshot.kind, "snapshot");
        let ids: Vec<_> = rest.iter().map(|message| message.id).collect();
        assert_eq!(ids, (snapshot.id + 1..=42).collect::<Vec<_>>(), "no gap, no repetition");
        let peers = snapshot.data["data"]["peers"].as_array().unwrap();
        let joined = rest.iter().filter(|message| message.kind == "peer-joined");
        assert_eq!(peers.len() + joined.count(), 40);
    }
}

#[tokio::test]
async fn stopping_the_node_ends_event_streams() {
    let node = Node::start(1);
    node.room("r").await;
    let reader = follow(&node, "/media/room/r/events", None).await;
    node.control.end_event_streams();
    assert_eq!(read_to_end(reader).await.len(), 1);
    assert_eq!(node.get("/media/room/r/events").await.code(), "overloaded");
}

/// What shards tell of levels: each producer with its loudness in every frame.
fn heard(voices: &[(&str, u8)]) -> Event {
    let window = |loudness: u8| LevelWindow::new(&[loudness; 10]);
    let levels = voices.iter().map(|(id, loudness)| (id.parse().unwrap(), window(*loudness)));
    Event::AudioLevels(levels.collect())
}

#[tokio::test]
async fn a_room_is_told_who_speaks_and_its_readers_how_loud() {
    let node = Node::start(2);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    let alice = node.producer("r", "alice", &transport).await;
    let transport = node.transport("r", "bob").await;
    let bob = node.producer("r", "bob", &transport).await;
    let reader = follow(&node, "/media/room/r/events", None).await;
    node.happens_on(1, heard(&[(&alice, 40), (&bob, 100)]));
    assert_eq!(node.get("/media/room/r").await.data()["activeSpeaker"], json!(bob));
    node.delete("/media/room/r").await;
    let messages = read_to_end(reader).await;
    let told: Vec<_> = messages.iter().map(|m| (m.kind.as_str(), &m.data["data"])).collect();
    let speaker = json!({ "producerId": bob, "peerId": "bob" });
    let levels = json!({ "levels": [{ "producerId": bob, "peerId": "bob", "level": -27 }] });
    assert_eq!(told[1..3], [("active-speaker", &speaker), ("audio-levels", &levels)]);
    assert_eq!(told[3].0, "room-closed");
}

#[tokio::test]
async fn levels_are_logged_for_readers_only_and_a_paused_producer_is_nobody() {
    let node = Node::start(1);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    let alice = node.producer("r", "alice", &transport).await;
    node.happens(heard(&[(&alice, 100)]));
    node.post(&format!("/media/producer/{alice}/pause"), json!({})).await;
    assert_eq!(node.get("/media/room/r").await.data().get("activeSpeaker"), None);
    node.happens(heard(&[(&alice, 100)]));
    let reader = follow(&node, "/media/room/r/events?after=0", None).await;
    node.delete("/media/room/r").await;
    let kinds: Vec<_> = read_to_end(reader).await.into_iter().map(|m| m.kind).collect();
    assert_eq!(kinds[3..], ["active-speaker", "producer-paused", "room-closed"]);
}

#[tokio::test]
async fn what_is_wanted_of_a_producer_is_told_and_part_of_the_view() {
    let node = Node::start(1);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    let producer = node.producer("r", "alice", &transport).await;
    let reader = follow(&node, "/media/room/r/events", None).await;
    let wanted = Some(Layers { spatial: 0, temporal: 2 });
    let id = producer.parse().unwrap();
    node.happens(Event::ProducerDemand { producer: id, encodings: vec![wanted, None] });
    let demand = json!([{ "wanted": true, "spatialLayer": 0, "temporalLayer": 2 },
                        { "wanted": false }]);
    let view = node.get("/media/room/r").await;
    assert_eq!(view.data()["producers"][0]["demand"], demand);
    node.delete("/media/room/r").await;
    let messages = read_to_end(reader).await;
    assert_eq!(messages[1].kind, "producer-demand");
    assert_eq!(
        messages[1].data["data"],
        json!({ "producerId": producer, "peerId": "alice", "encodings": demand })
    );
}

#[tokio::test]
async fn scores_layers_and_bandwidth_are_told_to_the_room() {
    let node = Node::start(1);
    node.room("r").await;
    let send = node.transport("r", "alice").await;
    let camera = node.post("/media/producer", simulcast("r", "alice", &send)).await;
    let camera = camera.id("producerId");
    let recv = node.transport("r", "bob").await;
    let picture = node.consume(("r", "bob"), &recv, &camera).await.id("id");
    let reader = follow(&node, "/media/room/r/events?after=4", None).await;
    let producer = camera.parse().unwrap();
    let consumer = picture.parse().unwrap();
    let scores = vec![Some((11, 10)), None, Some((13, 6))];
    node.happens(Event::ProducerScore { producer, scores });
    node.happens(Event::ConsumerScore { consumer, score: 9 });
    let layers = Some(Layers { spatial: 2, temporal: 1 });
    node.happens(Event::ConsumerLayers { consumer, layers });
    node.happens(Event::ConsumerScore { consumer, score: 8 });
    node.happens(Event::ConsumerLayers { consumer, layers: None });
    let transport = recv.parse().unwrap();
    node.happens(Event::Bandwidth { transport, estimate_bps: 300_000 });
    // Of what is not known (any more) nothing is told.
    let (producer, consumer) = (ProducerId::random(), ConsumerId::random());
    node.happens(Event::ProducerScore { producer, scores: vec![Some((1, 1))] });
    node.happens(Event::ConsumerScore { consumer, score: 1 });
    node.happens(Event::ConsumerLayers { consumer, layers: None });
    let transport = TransportId::random();
    node.happens(Event::Bandwidth { transport, estimate_bps: 1 });
    node.delete("/media/room/r").await;

    let of_camera = json!({ "consumerId": picture, "producerId": camera, "peerId": "bob" });
    let with = |name: &str, value: Value| {
        let mut data = of_camera.clone();
        data[name] = value;
        data
    };
    let score = |score: u8, producer_score: u8| json!({ "score": score, "producerScore": producer_score, "producerScores": [10, 0, 6] });
    let expected = [
        (
            "producer-score",
            json!({ "producerId": camera, "peerId": "alice", "score": [
                { "encodingIdx": 0, "ssrc": 11, "rid": "r0", "score": 10 },
                { "encodingIdx": 2, "ssrc": 13, "rid": "r2", "score": 6 },
            ]}),
        ),
        ("consumer-score", with("score", score(9, 10))),
        ("consumer-layers", with("layers", json!({ "spatialLayer": 2, "temporalLayer": 1 }))),
        ("consumer-score", with("score", score(8, 6))),
        ("consumer-layers", with("layers", Value::Null)),
        (
            "bandwidth",
            json!({
                "transportId": recv, "peerId": "bob", "availableOutgoingBitrate": 300_000,
            }),
        ),
        ("room-closed", json!({ "reason": "deleted" })),
    ];
    let told = read_to_end(reader).await;
    let told: Vec<_> = told.iter().map(|m| (m.kind.as_str(), m.data["data"].clone())).collect();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_score_that_overtakes_its_producer_is_told_behind_it() {
    let node = Node::start(1);
    node.room("r").await;
    let send = node.transport("r", "alice").await;
    node.shard().hold();
    let body = opus("r", "alice", &send);
    let (made, ()) = tokio::join!(node.post("/media/producer", body), async {
        settle().await;
        let producer = node.shard().with(|script| match script.commands.last() {
            Some(Command::CreateProducer(create)) => create.producer,
            other => panic!("{other:?}"),
        });
        node.happens(Event::ProducerScore { producer, scores: vec![Some((1, 10))] });
        node.shard().release(&node.control);
    });
    assert_eq!(made.status, 201);
    let reader = follow(&node, "/media/room/r/events?after=2", None).await;
    node.delete("/media/room/r").await;
    let told = read_to_end(reader).await;
    let kinds: Vec<_> = told.iter().map(|message| message.kind.as_str()).collect();
    assert_eq!(kinds, ["producer-added", "producer-score", "room-closed"]);
}

#[tokio::test]
async fn layers_that_overtake_their_consumer_are_told_behind_it() {
    let node = Node::start(1);
    node.room("r").await;
    let send = node.transport("r", "alice").await;
    let camera = node.post("/media/producer", simulcast("r", "alice", &send)).await;
    let camera = camera.id("producerId");
    node.shard().hold();
    let (made, ()) = tokio::join!(node.consume(("r", "alice"), &send, &camera), async {
        settle().await;
        let made = node.shard().with(|script| match script.commands.last() {
            Some(Command::CreateConsumer(made)) => made.consumer,
            other => panic!("{other:?}"),
        });
        let layers = Some(Layers { spatial: 1, temporal: 2 });
        node.happens(Event::ConsumerLayers { consumer: made, layers });
        node.shard().release(&node.control);
    });
    let reader = follow(&node, "/media/room/r/events?after=3", None).await;
    node.delete("/media/room/r").await;
    let told = read_to_end(reader).await;
    assert_eq!(told[0].kind, "consumer-layers");
    assert_eq!(told[0].data["data"]["consumerId"], json!(made.id("id")));
    let layers = json!({ "spatialLayer": 1, "temporalLayer": 2 });
    assert_eq!(told[0].data["data"]["layers"], layers);
}

#[tokio::test]
async fn of_many_bandwidths_some_are_told_at_once_and_the_newest_of_the_rest_soon() {
    let node = Node::start(1);
    node.room("r").await;
    let mut transports = Vec::new();
    for number in 0..30 {
        transports.push(node.transport("r", &format!("peer{number}")).await);
    }
    let reader = follow(&node, "/media/room/r/events", None).await;
    for estimate_bps in [100_000, 200_000] {
        for transport in &transports {
            let transport = transport.parse().unwrap();
            node.happens(Event::Bandwidth { transport, estimate_bps });
        }
    }
    // Of one that is gone before its turn nothing is told.
    let gone = transports.pop().unwrap();
    node.delete(&format!("/media/transport/{gone}")).await;
    let told_in_time = async {
        let mut body = reader.into_body();
        let mut told = std::collections::BTreeMap::new();
        while told.values().filter(|bps| **bps == 200_000).count() < 29 {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            for block in str::from_utf8(&frame).unwrap().split("\n\n").filter(|b| !b.is_empty()) {
                let message = message(block);
                let data = &message.data["data"];
                if message.kind == "bandwidth" {
                    let transport = data["transportId"].as_str().unwrap().to_owned();
                    told.insert(transport, data["availableOutgoingBitrate"].as_u64().unwrap());
                }
            }
        }
        told
    };
    let reports = async {
        let mut turns = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            turns.tick().await;
            node.reports(0, 0.1);
        }
    };
    let told = tokio::select! {
        told = told_in_time => told,
        () = reports => unreachable!(),
    };
    assert!(!told.contains_key(&gone), "{told:?}");
    assert_eq!(told.len(), 29, "all others' last word");
}
