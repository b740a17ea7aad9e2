//! Layers, priorities, limits, ICE restarts and statistics: what goes to shards, what comes back.

use axum::http::{Method, StatusCode};
use ringcast::control::command::{BitrateChange, Command, Event, Layers, Refusal};
use ringcast::limits::ROOM_STATS_CALLS_MAX;
use serde_json::{Value, json};

use super::harness::{Answered, Node, bare, json_post, settle, simulcast};

const NO_ID: &str = "00000000-0000-4000-8000-000000000000";

/// A room `r` in which bob consumes alice's microphone and her camera of three encodings.
struct Stage {
    node: Node,
    send: String,
    recv: String,
    microphone: String,
    camera: String,
    sound: String,
    picture: String,
}

impl Stage {
    async fn set() -> Self {
        let node = Node::start(1);
        node.room("r").await;
        let send = node.transport("r", "alice").await;
        let microphone = node.producer("r", "alice", &send).await;
        let camera = node.post("/media/producer", simulcast("r", "alice", &send)).await;
        let camera = camera.id("producerId");
        let recv = node.transport("r", "bob").await;
        let sound = node.consume(("r", "bob"), &recv, &microphone).await.id("id");
        let made = node.consume(("r", "bob"), &recv, &camera).await;
        let highest = json!({ "spatialLayer": 2, "temporalLayer": 2 });
        assert_eq!(made.data()["preferredLayers"], highest);
        let picture = made.id("id");
        Self { node, send, recv, microphone, camera, sound, picture }
    }

    /// What the shard was told last.
    fn last(&self) -> String {
        self.node.shard().with(|script| format!("{:?}", script.commands.last().unwrap()))
    }
}

fn refused(answered: &Answered, status: u16, code: &str, names: &str) {
    assert_eq!((answered.status.as_u16(), answered.code()), (status, code), "{answered:?}");
    assert!(answered.body["data"].as_str().unwrap().contains(names), "{answered:?}");
}

#[tokio::test]
async fn preferred_layers_are_those_asked_for_or_the_highest_there_are() {
    let stage = Stage::set().await;
    let path = format!("/media/consumer/{}/layers", stage.picture);
    for (body, spatial, temporal) in [
        (json!({ "spatialLayer": 0, "temporalLayer": 1 }), 0, 1),
        (json!({ "spatialLayer": 1 }), 1, 2),
        (json!({ "spatialLayer": 1, "temporalLayer": null }), 1, 2),
        (json!({ "spatialLayer": 9, "temporalLayer": 9 }), 2, 2),
        (json!({ "spatialLayer": u64::MAX, "temporalLayer": 0 }), 2, 0),
    ] {
        let answered = stage.node.put(&path, body.clone()).await;
        assert_eq!(answered.status, 200, "{body}");
        let layers = json!({ "spatialLayer": spatial, "temporalLayer": temporal });
        assert_eq!(answered.data()["preferredLayers"], layers, "{body}");
        let command = Command::SetPreferredLayers(
            stage.picture.parse().unwrap(),
            Layers { spatial, temporal },
        );
        assert_eq!(stage.last(), format!("{command:?}"));
    }
    let before = stage.node.shard().told().len();
    let path = format!("/media/consumer/{}/layers", stage.sound);
    let answered = stage.node.put(&path, json!({ "spatialLayer": 0 })).await;
    assert_eq!(answered.data(), &json!({}), "one layer is all there is");
    assert_eq!(stage.node.shard().told().len(), before);
}

#[tokio::test]
async fn a_priority_is_a_number_from_1_to_255() {
    let stage = Stage::set().await;
    let path = format!("/media/consumer/{}/priority", stage.sound);
    for priority in [1, 100, 255] {
        let answered = stage.node.put(&path, json!({ "priority": priority })).await;
        assert_eq!((answered.status.as_u16(), answered.data()), (200, &json!({ "success": true })));
        let command = Command::SetPriority(stage.sound.parse().unwrap(), priority);
        assert_eq!(stage.last(), format!("{command:?}"));
    }
    let before = stage.node.shard().told().len();
    for wrong in [json!(0), json!(256), json!(-1), json!(1.5), json!("7"), json!([1])] {
        let answered = stage.node.put(&path, json!({ "priority": wrong })).await;
        refused(&answered, 400, "invalid_parameter", "priority must be an integer from 1 to 255");
    }
    refused(&stage.node.put(&path, json!({})).await, 400, "missing_parameter", "priority");
    assert_eq!(stage.node.shard().told().len(), before);
}

#[tokio::test]
async fn fields_that_are_wrong_are_refused_by_name() {
    let stage = Stage::set().await;
    let layers = format!("/media/consumer/{}/layers", stage.picture);
    for (body, code, names) in [
        (json!({}), "missing_parameter", "spatialLayer"),
        (json!({ "temporalLayer": 1 }), "missing_parameter", "spatialLayer"),
        (json!({ "spatialLayer": -1 }), "invalid_parameter", "spatialLayer"),
        (json!({ "spatialLayer": "top" }), "invalid_parameter", "spatialLayer"),
        (json!({ "spatialLayer": 1, "temporalLayer": 0.5 }), "invalid_parameter", "temporalLayer"),
        (json!([1]), "invalid_parameter", "body"),
    ] {
        refused(&stage.node.put(&layers, body).await, 400, code, names);
    }
    let limits = format!("/media/transport/{}", stage.recv);
    for field in ["maxIncomingBitrate", "maxOutgoingBitrate", "minOutgoingBitrate"] {
        for wrong in [json!(-1), json!("1M"), json!(0.5), json!(true)] {
            let answered = stage.node.patch(&limits, json!({ field: wrong })).await;
            refused(&answered, 400, "invalid_parameter", field);
        }
    }
    let what = "minOutgoingBitrate must not be above maxOutgoingBitrate";
    stage.node.shard().refuses(Refusal::Contradiction(what));
    let body = json!({ "minOutgoingBitrate": 2, "maxOutgoingBitrate": 1 });
    refused(&stage.node.patch(&limits, body).await, 400, "invalid_parameter", what);
    for wrong in ["cursor=x", "cursor=t1", "limit=all"] {
        let answered = stage.node.get(&format!("/media/room/r/stats?{wrong}")).await;
        refused(&answered, 400, "invalid_parameter", wrong.split('=').next().unwrap());
    }
}

#[tokio::test]
async fn limits_are_changed_one_by_one_and_answered_whole() {
    let stage = Stage::set().await;
    let path = format!("/media/transport/{}", stage.recv);
    let body = json!({ "maxOutgoingBitrate": 1_000_000, "minOutgoingBitrate": null });
    let answered = stage.node.patch(&path, body).await;
    let limits = json!({ "maxOutgoingBitrate": 1_000_000 });
    assert_eq!((answered.status.as_u16(), answered.data()), (200, &limits));
    let change = BitrateChange { max_outgoing_bps: Some(1_000_000), ..BitrateChange::default() };
    let command = Command::SetBitrates(stage.recv.parse().unwrap(), change);
    assert_eq!(stage.last(), format!("{command:?}"));
    let nothing = stage.node.patch(&path, json!({})).await;
    assert_eq!((nothing.status.as_u16(), nothing.data()), (200, &json!({})));
}

#[tokio::test]
async fn an_ice_restart_gives_new_credentials() {
    let stage = Stage::set().await;
    let path = format!("/media/transport/{}/restart-ice", stage.send);
    for request in [bare(Method::POST, &path), json_post(&path, "{}")] {
        let answered = stage.node.ask(request).await;
        let ice = json!({ "usernameFragment": "aafresh", "password": "new", "iceLite": true });
        let expected = json!({ "iceParameters": ice });
        assert_eq!((answered.status.as_u16(), answered.data()), (201, &expected));
    }
    assert_eq!(stage.node.shard().count("RestartIce"), 2);
}

#[tokio::test]
async fn what_is_not_there_is_404_with_its_own_code() {
    let stage = Stage::set().await;
    for id in [NO_ID, "x"] {
        for (kind, what) in [("layers", "spatialLayer"), ("priority", "priority")] {
            let path = format!("/media/consumer/{id}/{kind}");
            let answered = stage.node.put(&path, json!({ what: 1 })).await;
            refused(&answered, 404, "consumer_not_found", "");
        }
        let answered = stage.node.patch(&format!("/media/transport/{id}"), json!({})).await;
        refused(&answered, 404, "transport_not_found", "");
        let path = format!("/media/transport/{id}/restart-ice");
        refused(&stage.node.post(&path, json!({})).await, 404, "transport_not_found", "");
        for kind in ["transport", "producer", "consumer"] {
            let answered = stage.node.get(&format!("/media/{kind}/{id}/stats")).await;
            refused(&answered, 404, &format!("{kind}_not_found"), "");
        }
    }
    refused(&stage.node.get("/media/room/nowhere/stats").await, 404, "room_not_found", "");
    // Its own is no other kind's.
    let answered = stage.node.get(&format!("/media/consumer/{}/stats", stage.camera)).await;
    refused(&answered, 404, "consumer_not_found", "");
}

#[tokio::test]
async fn statistics_have_mediasoups_names() {
    let stage = Stage::set().await;
    let told = stage.node.get(&format!("/media/transport/{}/stats", stage.recv)).await;
    let told = told.data();
    for (name, value) in [
        ("type", json!("webrtc-transport")),
        ("transportId", json!(stage.recv)),
        ("peerId", json!("bob")),
        ("iceRole", json!("controlled")),
        ("iceState", json!("completed")),
        ("dtlsState", json!("connected")),
        ("bytesReceived", json!(1000)),
        ("rtpSendBitrate", json!(64_000)),
        ("rtxBytesSent", json!(0)),
        ("availableOutgoingBitrate", json!(600_000)),
        ("maxIncomingBitrate", json!(9)),
    ] {
        assert_eq!(told[name], value, "{name} of {told}");
    }
    let tuple = json!({ "localAddress": "192.0.2.7", "localPort": 10_000, "protocol": "udp",
        "remoteIp": "198.51.100.4", "remotePort": 5000 });
    assert_eq!(told["iceSelectedTuple"], tuple);
    assert!(told["timestamp"].as_u64().unwrap() >= 1_700_000_000_000);
    for absent in ["availableIncomingBitrate", "minOutgoingBitrate"] {
        assert!(told.get(absent).is_none(), "{absent}");
    }

    let told = stage.node.get(&format!("/media/producer/{}/stats", stage.camera)).await;
    let stream = &told.data()["stats"][0];
    for (name, value) in [
        ("type", json!("inbound-rtp")),
        ("kind", json!("video")),
        ("mimeType", json!("video/VP8")),
        ("rid", json!("r0")),
        ("ssrc", json!(1_111_111)),
        ("packetCount", json!(50)),
        ("score", json!(7)),
        ("fractionLost", json!(0)),
    ] {
        assert_eq!(stream[name], value, "{name} of {stream}");
    }
    assert_eq!(told.data()["paused"], false);
}

#[tokio::test]
async fn a_consumers_statistics_tell_its_layers_and_what_it_is_fed_with() {
    let stage = Stage::set().await;
    let producer = stage.camera.parse().unwrap();
    let scores = vec![Some((11, 4)), None, None];
    stage.node.happens(Event::ProducerScore { producer, scores });
    let told = stage.node.get(&format!("/media/consumer/{}/stats", stage.picture)).await;
    let told = told.data();
    assert_eq!(told["currentLayers"], json!({ "spatialLayer": 0, "temporalLayer": 1 }));
    assert_eq!(told["priority"], 3);
    let score = json!({ "score": 8, "producerScore": 4, "producerScores": [4, 0, 0] });
    assert_eq!(told["score"], score);
    assert_eq!(told["producerId"], json!(stage.camera));
    let kinds: Vec<&Value> =
        told["stats"].as_array().unwrap().iter().map(|stream| &stream["type"]).collect();
    assert_eq!(kinds, ["outbound-rtp", "inbound-rtp"]);
    assert_eq!(told["stats"][0]["mimeType"], "video/VP8");
    assert_eq!(told["stats"][1]["rid"], "r0");
}

#[tokio::test]
async fn a_consumer_begins_with_its_producers_scores() {
    let stage = Stage::set().await;
    let producer = stage.camera.parse().unwrap();
    let scores = vec![Some((11, 10)), Some((12, 7)), None];
    stage.node.happens(Event::ProducerScore { producer, scores });
    let made = stage.node.consume(("r", "bob"), &stage.recv, &stage.camera).await;
    let score = json!({ "score": 10, "producerScore": 10, "producerScores": [10, 7, 0] });
    assert_eq!(made.data()["score"], score);
}

#[tokio::test]
async fn what_closes_while_its_statistics_are_gathered_is_404() {
    let stage = Stage::set().await;
    for (kind, id) in
        [("consumer", &stage.picture), ("producer", &stage.camera), ("transport", &stage.recv)]
    {
        stage.node.shard().hold();
        let (told, closed) = (format!("/media/{kind}/{id}/stats"), format!("/media/{kind}/{id}"));
        let (told, closed, ()) = tokio::join!(
            stage.node.get(&told),
            async {
                settle().await;
                stage.node.delete(&closed).await
            },
            async {
                settle().await;
                settle().await;
                stage.node.shard().release(&stage.node.control);
            }
        );
        refused(&told, 404, &format!("{kind}_not_found"), "");
        assert_eq!(closed.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_consumer_whose_producer_closes_between_the_two_answers_is_gone() {
    let stage = Stage::set().await;
    stage
        .node
        .shard()
        .with(|script| script.refuse_name = Some(("ProducerStats", Refusal::NoProducer)));
    let told = stage.node.get(&format!("/media/consumer/{}/stats", stage.picture)).await;
    refused(&told, 404, "consumer_not_found", "");
}

#[tokio::test]
async fn a_room_is_told_page_by_page_and_nothing_twice() {
    let stage = Stage::set().await;
    let mut path = "/media/room/r/stats?limit=2".to_owned();
    let mut seen: Vec<String> = Vec::new();
    let mut pages = 0;
    loop {
        let page = stage.node.get(&path).await;
        pages += 1;
        for (list, id) in [
            ("transports", "transportId"),
            ("producers", "producerId"),
            ("consumers", "consumerId"),
        ] {
            let told = page.data()[list].as_array().unwrap().iter();
            seen.extend(told.map(|one| one[id].as_str().unwrap().to_owned()));
        }
        match page.data()["nextCursor"].as_str() {
            Some(cursor) => path = format!("/media/room/r/stats?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    let mut expected = [
        [&stage.send, &stage.recv],
        [&stage.microphone, &stage.camera],
        [&stage.sound, &stage.picture],
    ];
    expected.iter_mut().for_each(|kind| kind.sort());
    assert_eq!(seen.iter().collect::<Vec<_>>(), expected.concat());
    assert_eq!(stage.node.shard().count("ProducerStats"), 2, "once for each producer");
}

#[tokio::test]
async fn a_rooms_statistics_never_flood_a_shard() {
    let stage = Stage::set().await;
    for peer in 0..40 {
        stage.node.transport("r", &format!("peer-{peer}")).await;
    }
    stage.node.shard().hold();
    let one = stage.node.get("/media/room/r/stats?limit=1000");
    let two = stage.node.get("/media/room/r/stats");
    let ((one, two), ()) = tokio::join!(async { tokio::join!(one, two) }, async {
        settle().await;
        assert_eq!(stage.node.shard().count("TransportStats"), ROOM_STATS_CALLS_MAX);
        stage.node.shard().release(&stage.node.control);
    });
    for told in [one, two] {
        assert_eq!(told.data()["transports"].as_array().unwrap().len(), 42);
        assert_eq!(told.data()["consumers"].as_array().unwrap().len(), 2);
        assert!(told.data().get("nextCursor").is_none());
    }
}

#[tokio::test]
async fn what_a_room_loses_while_it_is_looked_at_is_left_out_and_overload_is_503() {
    let stage = Stage::set().await;
    let refuse = |name, refusal| {
        stage.node.shard().with(|script| script.refuse_name = Some((name, refusal)));
    };
    refuse("ConsumerStats", Refusal::NoConsumer);
    let told = stage.node.get("/media/room/r/stats").await;
    assert_eq!(told.data()["consumers"], json!([]));
    assert_eq!(told.data()["producers"].as_array().unwrap().len(), 2);
    refuse("ProducerStats", Refusal::NoAnswer);
    refused(&stage.node.get("/media/room/r/stats").await, 503, "overloaded", "");
    let told = stage.node.get(&format!("/media/producer/{}/stats", stage.camera)).await;
    refused(&told, 503, "overloaded", "");
}

#[tokio::test]
async fn what_a_shard_may_still_make_though_it_did_not_answer_is_closed() {
    let stage = Stage::set().await;
    stage.node.shard().refuses(Refusal::NoAnswer);
    let body = json!({ "peerId": "carol", "direction": "send" });
    refused(&stage.node.post("/media/transport/r", body).await, 503, "overloaded", "");
    stage.node.shard().hears("CloseTransport").await;
    stage.node.shard().refuses(Refusal::NoAnswer);
    let mut screen = simulcast("r", "alice", &stage.send);
    screen["source"] = json!("screen");
    refused(&stage.node.post("/media/producer", screen).await, 503, "overloaded", "");
    stage.node.shard().hears("CloseProducer").await;
    stage.node.shard().refuses(Refusal::NoAnswer);
    let answered = stage.node.consume(("r", "bob"), &stage.recv, &stage.camera).await;
    refused(&answered, 503, "overloaded", "");
    stage.node.shard().hears("CloseConsumer").await;
    let totals = stage.node.control.node().totals;
    assert_eq!((totals.transports, totals.producers, totals.consumers), (2, 2, 2));
}
