//! A call from the first room to the last leave.

use ringcast::api::ApiOptions;
use ringcast::control::command::{Command, Refusal};
use ringcast::ortc::VideoCodec;
use serde_json::{Value, json};

use super::harness::{Node, dtls, opus, simulcast};

#[tokio::test]
async fn the_seven_routes_carry_a_call() {
    let node = Node::start(1);
    let room = node.room("lobby").await;
    assert_eq!(room.status, 201);
    assert_eq!(room.data()["roomId"], "lobby");
    assert!(!room.data()["routerRtpCapabilities"]["codecs"].as_array().unwrap().is_empty());

    let body = json!({ "peerId": "alice", "direction": "send" });
    let made = node.post("/media/transport/lobby", body).await;
    assert_eq!(made.status, 201);
    let data = made.data();
    assert_eq!(
        data["iceParameters"],
        json!({ "usernameFragment": "aaufrag", "password": "password", "iceLite": true })
    );
    let candidates = data["iceCandidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 2, "one for UDP, one for TCP");
    assert_eq!(candidates[0]["ip"], "192.0.2.7");
    assert_eq!(candidates[0]["address"], "192.0.2.7");
    assert_eq!(candidates[1]["tcpType"], "passive");
    assert_eq!(data["dtlsParameters"]["role"], "auto");
    let value = data["dtlsParameters"]["fingerprints"][0]["value"].as_str().unwrap();
    assert_eq!(value, vec!["AB"; 32].join(":"));
    let sends = made.id("id");

    let connected = node.post(&format!("/media/transport/{sends}/connect"), dtls()).await;
    assert_eq!((connected.status.as_u16(), connected.data()), (201, &json!({ "success": true })));
    let producer = node.producer("lobby", "alice", &sends).await;

    let receives = node.transport("lobby", "bob").await;
    let listed = node.get("/media/room/lobby/producers?excludePeerId=bob").await;
    assert_eq!(listed.status, 200);
    assert_eq!(
        listed.data()["producers"],
        json!([{
            "producerId": producer, "peerId": "alice", "kind": "audio", "source": "audio",
            "type": "simple", "paused": false, "appData": {},
        }])
    );
    let own = node.get("/media/room/lobby/producers?excludePeerId=alice").await;
    assert_eq!(own.data()["producers"], json!([]));

    let consumed = node.consume(("lobby", "bob"), &receives, &producer).await;
    assert_eq!(consumed.status, 201);
    let data = consumed.data();
    assert_eq!(data["producerId"], json!(producer));
    assert_eq!(data["kind"], "audio");
    assert_eq!(data["paused"], false);
    assert_eq!(data["producerPaused"], false);
    let score = json!({ "score": 10, "producerScore": 0, "producerScores": [0] });
    assert_eq!(data["score"], score, "nothing has arrived yet");
    assert_eq!(data["rtpParameters"]["mid"], "0");
    assert_eq!(data["rtpParameters"]["rtcp"]["cname"], "alice-cname");
    assert!(data.get("preferredLayers").is_none(), "a single stream has no layers");

    let left = node.post("/media/room/lobby/leave", json!({ "peerId": "alice" })).await;
    assert_eq!((left.status.as_u16(), &left.data()["success"]), (201, &json!(true)));
    assert_eq!(node.get("/media/room/lobby/producers").await.data()["producers"], json!([]));
    node.post("/media/room/lobby/leave", json!({ "peerId": "bob" })).await;
    assert_eq!(node.get("/media/room/lobby").await.code(), "room_not_found");
    assert_eq!(
        node.shard().told(),
        [
            "CreateTransport",
            "ConnectTransport",
            "CreateProducer",
            "CreateTransport",
            "CreateConsumer",
            "CloseTransport",
            "CloseTransport",
        ]
    );
}

#[tokio::test]
async fn producing_the_same_source_twice_gives_the_same_producer() {
    let node = Node::start(1);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    let first = node.producer("r", "alice", &transport).await;
    assert_eq!(node.producer("r", "alice", &transport).await, first);
    assert_eq!(node.shard().count("CreateProducer"), 1);

    let mut screen = opus("r", "alice", &transport);
    screen["source"] = json!("screen");
    screen["appData"] = json!(["any", { "json": 1 }]);
    let second = node.post("/media/producer", screen).await.id("producerId");
    assert_ne!(first, second, "another source is another producer");
    let listed = node.get("/media/room/r/producers").await;
    assert_eq!(listed.data()["producers"][1]["appData"], json!(["any", { "json": 1 }]));
    assert_eq!(listed.data()["producers"][1]["source"], "screen");
}

#[tokio::test]
async fn producing_on_another_transport_replaces_the_old_producer() {
    let node = Node::start(1);
    node.room("r").await;
    let before = node.transport("r", "alice").await;
    let old = node.producer("r", "alice", &before).await;
    let after = node.transport("r", "alice").await;
    node.shard().refuses(Refusal::StreamInUse("ssrc"));
    let refused = node.post("/media/producer", opus("r", "alice", &after)).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "already_exists"));
    let listed = node.get("/media/room/r/producers").await;
    assert_eq!(listed.data()["producers"][0]["producerId"], json!(old), "kept when refused");

    let new = node.producer("r", "alice", &after).await;
    let listed = node.get("/media/room/r/producers").await;
    assert_eq!(listed.data()["producers"].as_array().unwrap().len(), 1);
    assert_eq!(listed.data()["producers"][0]["producerId"], json!(new));
    assert_eq!(node.shard().count("CloseProducer"), 1);
}

#[tokio::test]
async fn the_first_cname_of_a_transport_is_that_of_all_its_producers() {
    let node = Node::start(1);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    node.producer("r", "alice", &transport).await;
    let mut other = opus("r", "alice", &transport);
    other["source"] = json!("other");
    other["rtpParameters"]["rtcp"]["cname"] = json!("different");
    node.post("/media/producer", other).await;
    let cnames = node.shard().with(|script| {
        let cname = |command: &Command| match command {
            Command::CreateProducer(create) => create.consumable.rtcp.cname.clone(),
            _ => None,
        };
        script.commands.iter().filter_map(cname).collect::<Vec<_>>()
    });
    assert_eq!(cnames, ["alice-cname", "alice-cname"]);
}

#[tokio::test]
async fn consumers_of_a_transport_have_their_own_mids_and_ssrcs() {
    let node = Node::start(1);
    node.room("r").await;
    let sends = node.transport("r", "alice").await;
    let producer = node.producer("r", "alice", &sends).await;
    let receives = node.transport("r", "bob").await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let consumed = node.consume(("r", "bob"), &receives, &producer).await;
        let rtp = &consumed.data()["rtpParameters"];
        seen.push((rtp["mid"].clone(), rtp["encodings"][0]["ssrc"].as_u64().unwrap()));
    }
    let mids: Vec<_> = seen.iter().map(|(mid, _)| mid.clone()).collect();
    assert_eq!(mids, ["0", "1", "2"]);
    let mut ssrcs: Vec<_> = seen.iter().map(|(_, ssrc)| *ssrc).collect();
    ssrcs.sort_unstable();
    ssrcs.dedup();
    assert_eq!(ssrcs.len(), 3);
}

#[tokio::test]
async fn pausing_resuming_and_asking_for_key_frames_reach_the_shard() {
    let node = Node::start(1);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    let producer = node.producer("r", "alice", &transport).await;
    let consumer = node.consume(("r", "alice"), &transport, &producer).await.id("id");
    for (path, command) in [
        (format!("/media/producer/{producer}/pause"), "PauseProducer"),
        (format!("/media/producer/{producer}/pause"), "PauseProducer"),
        (format!("/media/consumer/{consumer}/pause"), "PauseConsumer"),
        (format!("/media/consumer/{consumer}/resume"), "PauseConsumer"),
        (format!("/media/consumer/{consumer}/keyframe"), "RequestKeyFrame"),
    ] {
        let answered = node.post(&path, json!({})).await;
        assert_eq!(answered.status, 201, "{path}");
        assert_eq!(node.shard().told().last().unwrap(), command, "{path}");
    }
    let listed = node.get("/media/room/r/producers").await;
    assert_eq!(listed.data()["producers"][0]["paused"], true);
    let consumed = node.consume(("r", "alice"), &transport, &producer).await;
    assert_eq!(consumed.data()["producerPaused"], true);
}

#[tokio::test]
async fn deleting_cascades() {
    let node = Node::start(1);
    node.room("r").await;
    let sends = node.transport("r", "alice").await;
    let receives = node.transport("r", "bob").await;
    let producer = node.producer("r", "alice", &sends).await;
    let consumer = node.consume(("r", "bob"), &receives, &producer).await.id("id");
    assert_eq!(node.delete(&format!("/media/consumer/{consumer}")).await.status, 200);
    assert_eq!(
        node.delete(&format!("/media/consumer/{consumer}")).await.code(),
        "consumer_not_found"
    );

    let consumer = node.consume(("r", "bob"), &receives, &producer).await.id("id");
    assert_eq!(node.delete(&format!("/media/producer/{producer}")).await.status, 200);
    let gone = node.post(&format!("/media/consumer/{consumer}/resume"), json!({})).await;
    assert_eq!(gone.code(), "consumer_not_found", "it closed with its producer");

    let producer = node.producer("r", "alice", &sends).await;
    assert_eq!(node.delete(&format!("/media/transport/{sends}")).await.status, 200);
    let gone = node.post(&format!("/media/producer/{producer}/pause"), json!({})).await;
    assert_eq!(gone.code(), "producer_not_found", "it closed with its transport");

    assert_eq!(node.delete("/media/room/r").await.status, 200);
    assert_eq!(
        node.delete(&format!("/media/transport/{receives}")).await.code(),
        "transport_not_found"
    );
    assert_eq!(node.delete("/media/room/r").await.code(), "room_not_found");
    assert_eq!(node.room("r").await.status, 201, "the name can be used again");
}

#[tokio::test]
async fn rooms_spread_over_shards_by_load() {
    let node = Node::start(2);
    node.reports(0, 0.9);
    node.reports(1, 0.1);
    node.room("first").await;
    assert_eq!(node.get("/media/room/first").await.data()["shard"], 1);
    node.reports(1, 0.95);
    node.room("second").await;
    assert_eq!(node.get("/media/room/second").await.data()["shard"], 0);
}

#[tokio::test]
async fn leaving_what_is_unknown_is_success() {
    let node = Node::start(1);
    let left = node.post("/media/room/nowhere/leave", json!({ "peerId": "nobody" })).await;
    assert_eq!(left.status, 201);
    node.room("r").await;
    let left = node.post("/media/room/r/leave", json!({ "peerId": "nobody" })).await;
    assert_eq!(left.status, 201);
    assert_eq!(node.get("/media/room/r").await.status, 200, "the room stays");
}

#[tokio::test]
async fn a_slash_at_the_end_of_a_path_means_nothing() {
    let node = Node::start(1);
    let room = json!({ "roomId": "a/b" });
    assert_eq!(node.post("/media/room/", room).await.status, 201);
    let body = json!({ "peerId": "alice", "direction": "send" });
    let send = node.post("/media/transport/a%2Fb/", body).await.id("id");
    let produced = node.post("/media/producer/", opus("a/b", "alice", &send)).await;
    let producer = produced.id("producerId");
    let path = "/media/room/a%2Fb/producers/?excludePeerId=bob";
    let listed = node.get(path).await;
    assert_eq!(listed.data()["producers"][0]["producerId"], json!(producer));
    let hers = node.get("/media/room/a%2Fb/producers/?excludePeerId=alice").await;
    assert_eq!(hers.data()["producers"], json!([]));
    let left = node.post("/media/room/a%2Fb/leave/", json!({ "peerId": "alice" })).await;
    assert_eq!(left.status, 201);
    for (path, status) in [("/media/", 404), ("/media/rooms//", 404), ("/media/rooms/", 200)] {
        assert_eq!(node.get(path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn rooms_carry_the_videos_that_the_operator_names_the_preferred_one_first() {
    let videos = [VideoCodec::H264, VideoCodec::Vp9];
    let node = Node::start_carrying(&videos, 1, &ApiOptions::default());
    let made = node.room("r").await;
    let codecs = made.data()["routerRtpCapabilities"]["codecs"].as_array().unwrap();
    let is_video =
        |codec: &&Value| codec["kind"] == json!("video") && codec["mimeType"] != json!("video/rtx");
    let told: Vec<(&str, u64)> = codecs
        .iter()
        .filter(is_video)
        .map(|codec| {
            let number = codec["preferredPayloadType"].as_u64().unwrap();
            (codec["mimeType"].as_str().unwrap(), number)
        })
        .collect();
    assert_eq!(told[..2], [("video/H264", 101), ("video/VP9", 103)]);
    assert!(told[2..].iter().all(|(mime, _)| *mime == "video/H264"), "{told:?}");
    let sound = codecs.iter().filter(|codec| codec["kind"] == json!("audio"));
    assert_eq!(sound.count(), 2, "Opus and its redundancy");
    let send = node.transport("r", "alice").await;
    let refused = node.post("/media/producer", simulcast("r", "alice", &send)).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "not_supported"), "VP8");
    let mut camera = simulcast("r", "alice", &send);
    camera["rtpParameters"]["codecs"][0]["mimeType"] = json!("video/VP9");
    assert_eq!(node.post("/media/producer", camera).await.status, 201);
}
