//! A node that drains: what it refuses, what goes on, and how that ends.

use axum::body::Body;
use axum::http::{Method, Request, header};
use axum::response::Response;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use ringcast::control::{After, DrainRequest};
use serde_json::{Value, json};

use super::harness::{Node, bare, json_post, json_request, settle};

async fn joined(node: &Node, room: &str, peer: &str) {
    node.room(room).await;
    node.transport(room, peer).await;
}

async fn drained_by(node: &Node, body: Value) -> Value {
    let answer = node.post("/admin/drain", body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.data().clone()
}

async fn state(node: &Node) -> Value {
    node.get("/admin/status").await.data()["drain"].clone()
}

/// Seconds from the begin of a drain to its deadline, both of one day.
fn length(drain: &Value) -> f64 {
    let seconds = |name: &str| -> f64 {
        let time = drain[name].as_str().unwrap().trim_end_matches('Z').split_once('T').unwrap().1;
        time.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
    };
    (seconds("deadline") - seconds("since")).round()
}

/// A body as it is once it ends.
async fn read_to_end(reader: Response) -> String {
    let bytes = reader.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn text_of(node: &Node, path: &str) -> String {
    read_to_end(node.send(bare(Method::GET, path)).await).await
}

#[tokio::test]
async fn a_draining_node_refuses_new_rooms_and_nothing_else() {
    let node = Node::start(1);
    node.reports(0, 0.1);
    joined(&node, "old", "alice").await;
    assert_eq!(
        state(&node).await,
        json!({
            "state": "serving", "exits": false, "signalled": false, "rooms": 1, "peers": 1,
        })
    );
    let told = node.send(bare(Method::POST, "/admin/drain")).await;
    assert_eq!(told.status(), 201, "a body is not needed");
    let now = state(&node).await;
    assert_eq!((&now["state"], length(&now)), (&json!("draining"), 600.0));
    assert_eq!(
        (&now["exits"], &now["rooms"], &now["peers"]),
        (&json!(false), &json!(1), &json!(1))
    );

    let refused = node.send(json_post("/media/room", json!({ "roomId": "new" }).to_string())).await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    assert_eq!(node.room("new").await.code(), "draining");
    let ready = node.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), ready.code()), (503, "draining"));
    assert_eq!(node.get("/healthz").await.status, 200, "it is alive");
    assert!(text_of(&node, "/metrics").await.contains("\nringcast_draining 1\n"));

    assert_eq!(node.room("old").await.status, 201, "who reloads finds the room");
    let send = node.transport("old", "alice").await;
    let producer = node.producer("old", "alice", &send).await;
    let receive = node.transport("old", "bob").await;
    let consumed = node.consume(("old", "bob"), &receive, &producer).await;
    assert_eq!(consumed.status, 201, "who comes late takes part: {consumed:?}");

    let off = node.delete("/admin/drain").await;
    assert_eq!(off.data()["state"], "serving");
    assert_eq!(node.delete("/admin/drain").await.data()["state"], "serving", "twice is no error");
    assert_eq!(node.get("/readyz").await.status, 200);
    assert_eq!(node.room("new").await.status, 201);
    assert!(text_of(&node, "/metrics").await.contains("\nringcast_draining 0\n"));
}

#[tokio::test]
async fn at_the_deadline_rooms_end_for_their_readers_and_shards() {
    let node = Node::start(1);
    // More than are closed together.
    for room in 0..150 {
        joined(&node, &format!("room-{room}"), "alice").await;
    }
    let reader = node.send(bare(Method::GET, "/media/room/room-149/events?after=0")).await;
    drained_by(&node, json!({ "deadlineSeconds": 0 })).await;
    let text = read_to_end(reader).await;
    assert!(text.contains("event: room-closed"), "{text}");
    assert!(text.contains(r#""reason":"draining""#), "{text}");
    while state(&node).await["rooms"] != 0 {
        settle().await;
    }
    let now = state(&node).await;
    assert_eq!((&now["state"], &now["peers"]), (&json!("draining"), &json!(0)));
    assert_eq!(now["secondsLeft"], 0);
    settle().await;
    assert_eq!(node.shard().count("CloseTransport"), 150);
    assert!(node.control.drained().now_or_never().is_none(), "it stays, for it was not to exit");
}

#[tokio::test]
async fn a_drain_that_exits_is_over_when_the_last_peer_leaves() {
    let node = Node::start(1);
    joined(&node, "a", "alice").await;
    joined(&node, "b", "bob").await;
    assert_eq!(drained_by(&node, json!({ "exit": true })).await["exits"], true);
    assert_eq!(drained_by(&node, json!({})).await["exits"], true, "what is left out is kept");
    node.post("/media/room/a/leave", json!({ "peerId": "alice" })).await;
    settle().await;
    assert!(node.control.drained().now_or_never().is_none());
    node.post("/media/room/b/leave", json!({ "peerId": "bob" })).await;
    node.control.drained().await;
    assert_eq!(state(&node).await["state"], "stopping");
}

#[tokio::test]
async fn rooms_that_nobody_has_joined_do_not_hold_a_drain_up() {
    let node = Node::start(1);
    node.room("waiting").await;
    drained_by(&node, json!({ "exit": true })).await;
    node.control.drained().await;
    let node = Node::start(1);
    node.control.drain(DrainRequest { deadline: None, after: After::Stop });
    node.control.drained().await;
}

#[tokio::test]
async fn a_deadline_counts_from_the_begin_and_may_be_moved() {
    let node = Node::start(1);
    joined(&node, "r", "alice").await;
    let reader = node.send(bare(Method::GET, "/media/room/r/events?after=0")).await;
    let first = drained_by(&node, json!({ "deadlineSeconds": 100 })).await;
    assert_eq!(length(&first), 100.0);
    for same in [json!({ "deadlineSeconds": 100 }), json!({})] {
        let now = drained_by(&node, same).await;
        assert_eq!((&now["since"], &now["deadline"]), (&first["since"], &first["deadline"]));
    }
    assert_eq!(length(&drained_by(&node, json!({ "deadlineSeconds": 50 })).await), 50.0);
    drained_by(&node, json!({ "deadlineSeconds": 0 })).await;
    assert!(read_to_end(reader).await.contains("room-closed"), "at once");
}

#[tokio::test]
async fn what_a_signal_began_is_not_called_off() {
    let node = Node::start(1);
    joined(&node, "r", "alice").await;
    drained_by(&node, json!({ "deadlineSeconds": 100 })).await;
    node.control.drain(DrainRequest { deadline: None, after: After::Stop });
    let refused = node.delete("/admin/drain").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "ending"));
    assert_eq!(drained_by(&node, json!({ "exit": false })).await["exits"], true);
    assert_eq!(length(&state(&node).await), 100.0, "the operator's deadline holds");
}

#[tokio::test]
async fn a_drain_that_is_asked_for_wrongly_is_refused_by_the_name_of_the_field() {
    let node = Node::start(1);
    for (body, field) in [
        (json!({ "deadlineSeconds": -1 }), "deadlineSeconds"),
        (json!({ "deadlineSeconds": 1.5 }), "deadlineSeconds"),
        (json!({ "deadlineSeconds": "soon" }), "deadlineSeconds"),
        (json!({ "deadlineSeconds": 86_401 }), "deadlineSeconds must be 0 to 86400"),
        (json!({ "exit": "yes" }), "exit"),
        (json!([]), "body"),
    ] {
        let refused = node.post("/admin/drain", body).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_parameter"));
        let sentence = refused.body["data"].as_str().unwrap();
        assert!(sentence.contains(field), "{field} is not in: {sentence}");
    }
    assert_eq!(node.ask(json_post("/admin/drain", "{")).await.code(), "malformed_json");
    let plain = Request::post("/admin/drain").body(Body::from("{}")).unwrap();
    assert_eq!(node.ask(plain).await.code(), "not_json");
    let wrong = json_request(Method::PUT, "/admin/drain", "{}");
    assert_eq!(node.ask(wrong).await.code(), "method_not_allowed");
    assert_eq!(state(&node).await["state"], "serving");
}

#[tokio::test]
async fn pages_of_other_sites_cannot_drain_the_node() {
    let node = Node::start(1);
    for method in [Method::POST, Method::DELETE] {
        for (site, status) in [("cross-site", 403), ("same-site", 403), ("same-origin", 200)] {
            let request = Request::builder().method(&method).uri("/admin/drain");
            let request = request.header("sec-fetch-site", site).body(Body::empty()).unwrap();
            let answer = node.send(request).await.status().as_u16();
            assert_eq!(answer.min(status), status, "{method} from {site}");
            assert_eq!(answer >= 400, status >= 400, "{method} from {site}: {answer}");
        }
    }
}
