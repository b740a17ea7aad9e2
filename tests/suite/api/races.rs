//! What happens between a request and its shard's answer.

use std::time::Duration;

use ringcast::control::command::{CloseReason, Event, Inventory, Refusal};
use ringcast::id::TransportId;
use serde_json::{Value, json};

use super::harness::{Node, json_post, opus, settle};

fn creation() -> Value {
    json!({ "peerId": "alice", "direction": "send" })
}

#[tokio::test]
async fn a_peer_that_leaves_while_its_transport_is_made_leaves_nothing_behind() {
    let node = Node::start(1);
    node.room("r").await;
    node.shard().hold();
    let making = tokio::spawn({
        let app = node.clone();
        async move { app.post("/media/transport/r", creation()).await }
    });
    settle().await;
    let leaving = tokio::spawn({
        let app = node.clone();
        async move { app.post("/media/room/r/leave", json!({ "peerId": "alice" })).await }
    });
    settle().await;
    node.shard().release(&node.control);
    assert_eq!(making.await.unwrap().code(), "peer_not_found");
    assert_eq!(leaving.await.unwrap().status, 201);
    assert_eq!(node.shard().told(), ["CreateTransport", "CloseTransport"]);
    assert_eq!(node.control.node().totals.transports, 0);
    assert_eq!(node.control.node().totals.peers, 0);
}

#[tokio::test]
async fn a_request_whose_client_goes_away_is_done_to_its_end() {
    let node = Node::start(1);
    node.room("r").await;
    node.shard().hold();
    let request = node.send(json_post("/media/transport/r", creation().to_string()));
    let gave_up = tokio::time::timeout(Duration::from_millis(1), request).await;
    assert!(gave_up.is_err());
    settle().await;
    node.shard().release(&node.control);
    settle().await;
    let room = node.get("/media/room/r").await;
    assert_eq!(room.data()["peers"][0]["peerId"], "alice");
}

#[tokio::test]
async fn two_equal_produce_requests_at_once_make_one_producer() {
    let node = Node::start(1);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    let body = opus("r", "alice", &transport);
    let (one, two) = tokio::join!(
        node.post("/media/producer", body.clone()),
        node.post("/media/producer", body.clone())
    );
    assert_eq!(one.id("producerId"), two.id("producerId"));
    assert_eq!(node.shard().count("CreateProducer"), 1);
}

#[tokio::test]
async fn a_producer_that_closes_while_it_is_being_consumed_takes_the_consumer_with_it() {
    let node = Node::start(1);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    let producer = node.producer("r", "alice", &transport).await;
    node.shard().hold();
    let path = format!("/media/producer/{producer}");
    let (consumed, deleted, ()) = tokio::join!(
        node.consume(("r", "alice"), &transport, &producer),
        async {
            settle().await;
            node.delete(&path).await
        },
        async {
            settle().await;
            settle().await;
            node.shard().release(&node.control);
        }
    );
    assert_eq!(consumed.code(), "producer_not_found");
    assert_eq!(deleted.status, 200);
    assert_eq!(node.control.node().totals.consumers, 0);
}

#[tokio::test]
async fn what_a_shard_refuses_is_rolled_back() {
    let node = Node::start(1);
    node.room("r").await;
    node.shard().refuses(Refusal::Full("transports"));
    let refused = node.post("/media/transport/r", creation()).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "node_full"));
    assert_eq!(node.control.node().totals.peers, 0, "who has no transport did not join");

    let transport = node.transport("r", "alice").await;
    node.shard().refuses(Refusal::Unsupported("codec".to_owned()));
    let refused = node.post("/media/producer", opus("r", "alice", &transport)).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "not_supported"));
    assert_eq!(node.get("/media/room/r/producers").await.data()["producers"], json!([]));
    let producer = node.producer("r", "alice", &transport).await;
    node.shard().refuses(Refusal::Overloaded);
    let refused = node.consume(("r", "alice"), &transport, &producer).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "overloaded"));
    assert_eq!(node.control.node().totals.consumers, 0);
}

#[tokio::test]
async fn a_full_lane_is_answered_503_with_retry_after_and_a_close_is_not_lost() {
    let node = Node::start(1);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    node.shard().with(|script| script.lane_full = true);
    let request = json_post("/media/transport/r", creation().to_string());
    let response = node.send(request).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");

    assert_eq!(node.delete(&format!("/media/transport/{transport}")).await.status, 200);
    assert_eq!(node.shard().count("CloseTransport"), 0);
    node.shard().with(|script| script.lane_full = false);
    node.shard().hears("CloseTransport").await;
}

#[tokio::test]
async fn a_transport_that_its_shard_closed_takes_its_producers_with_it() {
    let node = Node::start(1);
    node.room("r").await;
    let id = node.transport("r", "alice").await;
    node.producer("r", "alice", &id).await;
    let transport: TransportId = id.parse().unwrap();
    node.happens(Event::TransportClosed { transport, reason: CloseReason::ConsentLost });
    assert_eq!(node.get("/media/room/r/producers").await.data()["producers"], json!([]));
    assert_eq!(node.shard().count("CloseTransport"), 0, "the shard knows");
    let gone = node.post("/media/producer", opus("r", "alice", &id)).await;
    assert_eq!(gone.code(), "transport_not_found");
}

#[tokio::test]
async fn lost_events_are_made_up_for_by_an_inventory() {
    let node = Node::start(1);
    node.room("r").await;
    let kept: TransportId = node.transport("r", "alice").await.parse().unwrap();
    let lost: TransportId = node.transport("r", "alice").await.parse().unwrap();
    let stray = TransportId::random();
    let transports = vec![kept, stray];
    node.shard().with(|script| {
        script.inventory = Inventory { transports, ..Inventory::default() };
    });
    node.happens(Event::Lost(3));
    settle().await;
    let room = node.get("/media/room/r").await;
    let left = room.data()["peers"][0]["transports"].as_array().unwrap().clone();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["id"], json!(kept));
    let told = node.shard().with(|script| format!("{:?}", script.commands));
    assert!(told.contains(&format!("CloseTransport({stray})")), "{told}");
    assert!(told.contains(&format!("CloseTransport({lost})")), "{told}");
}

#[tokio::test]
async fn lost_events_are_made_up_for_when_the_lane_has_room_again() {
    let node = Node::start(1);
    node.room("r").await;
    node.transport("r", "alice").await;
    node.shard().with(|script| script.lane_full = true);
    node.happens(Event::Lost(1));
    node.happens(Event::Lost(2));
    settle().await;
    assert_eq!(node.shard().count("Inventory"), 0);
    node.shard().with(|script| script.lane_full = false);
    node.shard().hears("Inventory").await;
    settle().await;
    assert_eq!(node.control.node().totals.transports, 0, "the shard has none");
    assert_eq!(node.shard().count("Inventory"), 1);
}

#[tokio::test]
async fn a_pause_whose_answer_is_late_holds_and_one_that_never_left_does_not() {
    let node = Node::start(1);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    let producer = node.producer("r", "alice", &transport).await;
    let consumer = node.consume(("r", "alice"), &transport, &producer).await.id("id");
    for (kind, id) in [("producer", producer), ("consumer", consumer)] {
        let stats = format!("/media/{kind}/{id}/stats");
        let told = |how: &'static str| {
            let path = format!("/media/{kind}/{id}/{how}");
            let node = &node;
            async move { node.post(&path, json!({})).await }
        };
        let is_paused = || async { node.get(&stats).await.data()["paused"].clone() };
        // The shard has it in its lane, and will carry it out.
        node.shard().refuses(Refusal::NoAnswer);
        let answered = told("pause").await;
        assert_eq!((answered.status.as_u16(), answered.code()), (503, "overloaded"), "{kind}");
        assert_eq!(is_paused().await, true, "{kind}");
        node.shard().with(|script| script.lane_full = true);
        assert_eq!(told("resume").await.status, 503, "{kind}");
        node.shard().with(|script| script.lane_full = false);
        assert_eq!(is_paused().await, true, "{kind}: nothing was told");
        assert_eq!(told("resume").await.status, 201, "{kind}");
        assert_eq!(is_paused().await, false, "{kind}");
    }
}

#[tokio::test]
async fn of_two_opposite_requests_the_later_one_holds_here_and_there() {
    let node = Node::start(1);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    let producer = node.producer("r", "alice", &transport).await;
    let told = |how: &str| {
        let path = format!("/media/producer/{producer}/{how}");
        let app = node.clone();
        tokio::spawn(async move { app.post(&path, json!({})).await })
    };
    node.shard().hold();
    let pause = told("pause");
    settle().await;
    let resume = told("resume");
    settle().await;
    node.shard().release(&node.control);
    assert_eq!(pause.await.unwrap().status, 201);
    assert_eq!(resume.await.unwrap().status, 201);
    let told = node.shard().with(|script| format!("{:?}", script.commands.last().unwrap()));
    assert!(told.starts_with("PauseProducer") && told.ends_with("false)"), "{told}");
    let listed = node.get("/media/room/r/producers").await;
    assert_eq!(listed.data()["producers"].as_array().unwrap().len(), 1);
    let stats = node.get(&format!("/media/producer/{producer}/stats")).await;
    assert_eq!(stats.data()["paused"], false);
}
