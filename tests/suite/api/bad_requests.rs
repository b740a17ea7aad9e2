//! Everything a client can get wrong has its status and code, and harms nobody.

use std::fmt::Write;

use axum::body::Body;
use axum::http::{Method, Request, header};
use ringcast::limits::Limit;
use serde_json::{Value, json};

use super::harness::{Node, bare, dtls, json_post, opus};

const NO_ID: &str = "00000000-0000-4000-8000-000000000000";

/// A node with a room `r`, and alice's transport and producer in it.
struct Stage {
    node: Node,
    transport: String,
    producer: String,
}

impl Stage {
    async fn set() -> Self {
        let node = Node::start(1);
        node.room("r").await;
        let transport = node.transport("r", "alice").await;
        let producer = node.producer("r", "alice", &transport).await;
        Self { node, transport, producer }
    }

    /// A produce request with one field changed, or taken out.
    fn produce(&self, field: &str, value: Option<Value>) -> Value {
        changed(opus("r", "alice", &self.transport), field, value)
    }

    fn consume(&self, field: &str, value: Option<Value>) -> Value {
        let body = json!({
            "roomId": "r", "peerId": "alice", "transportId": self.transport,
            "producerId": self.producer, "rtpCapabilities": { "codecs": [] },
        });
        changed(body, field, value)
    }

    async fn refuses(&self, path: &str, body: Value, status: u16, code: &str, names: &str) {
        let answered = self.node.post(path, body.clone()).await;
        let what = format!("POST {path} {body}: {answered:?}");
        assert_eq!(answered.status.as_u16(), status, "{what}");
        assert_eq!(answered.code(), code, "{what}");
        assert!(answered.body["data"].as_str().unwrap().contains(names), "{what}");
    }

    async fn still_serves(&self) {
        let made = self.node.transport("r", "late").await;
        let connected = self.node.post(&format!("/media/transport/{made}/connect"), dtls()).await;
        assert_eq!(connected.status, 201);
    }
}

fn changed(mut body: Value, field: &str, value: Option<Value>) -> Value {
    let object = body.as_object_mut().unwrap();
    match value {
        Some(value) => object.insert(field.to_owned(), value),
        None => object.remove(field),
    };
    body
}

#[tokio::test]
async fn missing_and_mistyped_fields_are_refused_by_name() {
    let stage = Stage::set().await;
    let path = "/media/producer";
    for field in ["roomId", "peerId", "transportId", "kind", "rtpParameters"] {
        let body = stage.produce(field, None);
        stage.refuses(path, body, 400, "missing_parameter", field).await;
        let body = stage.produce(field, Some(Value::Null));
        stage.refuses(path, body, 400, "missing_parameter", field).await;
        for wrong in [json!(7), json!([1]), json!(true)] {
            let body = stage.produce(field, Some(wrong));
            stage.refuses(path, body, 400, "invalid_parameter", field).await;
        }
    }
    for (field, wrong) in [
        ("kind", json!("smell")),
        ("source", json!(5)),
        ("source", json!("")),
        ("source", json!("a\u{7}b")),
        ("source", json!("x".repeat(65))),
        ("paused", json!("yes")),
        ("keyFrameRequestDelay", json!(-1)),
        ("keyFrameRequestDelay", json!(1.5)),
        ("keyFrameRequestDelay", json!(u64::MAX)),
        ("appData", json!(["x".repeat(4096)])),
        ("appData", json!("alice's camera")),
        ("appData", json!(7)),
        ("appData", json!(false)),
        ("rtpParameters", json!({})),
        ("rtpParameters", json!({ "codecs": "opus" })),
        ("rtpParameters", json!({ "codecs": [{ "mimeType": 4 }] })),
    ] {
        let body = stage.produce(field, Some(wrong));
        stage.refuses(path, body, 400, "invalid_parameter", field).await;
    }
    for (field, wrong) in [
        ("rtpCapabilities", json!("all")),
        ("paused", json!(1)),
        ("enableRtx", json!("no")),
        ("ignoreDtx", json!(0)),
        ("preferredLayers", json!(2)),
        ("preferredLayers", json!({ "spatialLayer": "top" })),
    ] {
        let body = stage.consume(field, Some(wrong));
        stage.refuses("/media/consumer", body, 400, "invalid_parameter", field).await;
    }
    for (path, body, code, names) in [
        ("/media/room", json!({}), "missing_parameter", "roomId"),
        ("/media/room", json!({ "roomId": 5 }), "invalid_parameter", "roomId"),
        ("/media/room", json!({ "roomId": "" }), "invalid_parameter", "roomId"),
        (
            "/media/room",
            json!({ "roomId": "r", "initiatorId": [] }),
            "invalid_parameter",
            "initiatorId",
        ),
        ("/media/transport/r", json!({ "peerId": "a" }), "missing_parameter", "direction"),
        (
            "/media/transport/r",
            json!({ "peerId": "a", "direction": "up" }),
            "invalid_parameter",
            "direction",
        ),
        ("/media/transport/r", json!({ "direction": "send" }), "missing_parameter", "peerId"),
        ("/media/room/r/leave", json!({}), "missing_parameter", "peerId"),
        ("/media/room", json!([]), "invalid_parameter", "body"),
        ("/media/room", json!("r"), "invalid_parameter", "body"),
    ] {
        stage.refuses(path, body, 400, code, names).await;
    }
    stage.still_serves().await;
}

#[tokio::test]
async fn unknown_names_are_404_with_their_own_code() {
    let stage = Stage::set().await;
    let other = stage.node.transport("r", "bob").await;
    stage.node.room("elsewhere").await;
    let elsewhere = stage.node.transport("elsewhere", "alice").await;
    let send = json!({ "peerId": "a", "direction": "send" });
    stage.refuses("/media/transport/nowhere", send, 404, "room_not_found", "").await;
    for (field, value, code) in [
        ("roomId", "nowhere", "room_not_found"),
        ("peerId", "nobody", "peer_not_found"),
        ("transportId", NO_ID, "transport_not_found"),
        ("transportId", "no-uuid", "transport_not_found"),
        ("transportId", other.as_str(), "transport_not_found"),
        ("transportId", elsewhere.as_str(), "transport_not_found"),
    ] {
        let body = stage.produce(field, Some(json!(value)));
        stage.refuses("/media/producer", body, 404, code, "").await;
        let body = stage.consume(field, Some(json!(value)));
        stage.refuses("/media/consumer", body, 404, code, "").await;
    }
    for value in [NO_ID, "no-uuid", ""] {
        let body = stage.consume("producerId", Some(json!(value)));
        stage.refuses("/media/consumer", body, 404, "producer_not_found", "").await;
    }
    let body = json!({
        "roomId": "elsewhere", "peerId": "alice", "transportId": elsewhere,
        "producerId": stage.producer, "rtpCapabilities": { "codecs": [] },
    });
    stage.refuses("/media/consumer", body, 404, "producer_not_found", "").await;
    for (kind, id) in [("transport", NO_ID), ("producer", "x"), ("consumer", "%00%ff")] {
        let deleted = stage.node.delete(&format!("/media/{kind}/{id}")).await;
        assert_eq!(deleted.status.as_u16() / 100, 4, "{kind} {id}");
        assert!(!deleted.code().is_empty());
    }
    let path = format!("/media/transport/{NO_ID}/connect");
    stage.refuses(&path, dtls(), 404, "transport_not_found", "").await;
    for path in ["pause", "resume"] {
        let path = format!("/media/producer/{NO_ID}/{path}");
        stage.refuses(&path, json!({}), 404, "producer_not_found", "").await;
    }
    for path in ["pause", "resume", "keyframe"] {
        let path = format!("/media/consumer/{NO_ID}/{path}");
        stage.refuses(&path, json!({}), 404, "consumer_not_found", "").await;
    }
    assert_eq!(stage.node.get("/media/room/nowhere").await.code(), "room_not_found");
    assert_eq!(stage.node.get("/media/room/nowhere/events").await.code(), "room_not_found");
    let nothing = stage.node.get("/media/room/nowhere/producers").await;
    assert_eq!(nothing.data()["producers"], json!([]), "an unknown room has no producers");
    stage.still_serves().await;
}

#[tokio::test]
async fn hostile_names_are_refused_and_odd_ones_are_served() {
    let stage = Stage::set().await;
    let long = "é".repeat(129);
    for bad in ["a\u{0}b", "a\nb", "\u{202e}r", "\u{7f}", long.as_str(), ".", ".."] {
        stage
            .refuses("/media/room", json!({ "roomId": bad }), 400, "invalid_parameter", "roomId")
            .await;
        let body = json!({ "peerId": bad, "direction": "send" });
        stage.refuses("/media/transport/r", body, 400, "invalid_parameter", "peerId").await;
    }
    for path in ["/media/room/a%00b", "/media/room/%0a", "/media/room/%ff", "/media/room/%2e%2e"] {
        assert_eq!(stage.node.get(path).await.code(), "invalid_parameter", "{path}");
    }
    for odd in ["😀", "комната 5", "a/b?c#d", "...", "__proto__"] {
        assert_eq!(stage.node.room(odd).await.status, 201, "{odd}");
        let escaped = odd.bytes().fold(String::new(), |mut text, byte| {
            write!(text, "%{byte:02x}").unwrap();
            text
        });
        let made = stage.node.transport(&escaped, "😀").await;
        assert!(!made.is_empty());
        let shown = stage.node.get(&format!("/media/room/{escaped}")).await;
        assert_eq!(shown.data()["roomId"], json!(odd));
    }
    stage.still_serves().await;
}

#[tokio::test]
async fn bodies_that_are_no_json_too_large_or_undeclared_are_refused() {
    let stage = Stage::set().await;
    let large = format!("{{\"roomId\":\"{}\"}}", "x".repeat(1024 * 1024));
    let deep = "[".repeat(100_000);
    for (body, status, code, names) in [
        ("", 400, "malformed_json", "line 1 column 0"),
        ("{\"roomId\": \"r\",}", 400, "malformed_json", "line 1 column 16"),
        ("{\"roomId\": \"r\"", 400, "malformed_json", "EOF"),
        ("{\"roomId\": \"\u{1}\"}", 400, "malformed_json", "control character"),
        (deep.as_str(), 400, "malformed_json", "recursion limit"),
        (large.as_str(), 413, "body_too_large", "262144"),
    ] {
        let answered = stage.node.ask(json_post("/media/room", body.to_owned())).await;
        assert_eq!((answered.status.as_u16(), answered.code()), (status, code), "{answered:?}");
        assert!(answered.body["data"].as_str().unwrap().contains(names), "{answered:?}");
    }
    let not_utf8 = json_post("/media/room", b"{\"roomId\":\"\xff\"}".to_vec());
    assert_eq!(stage.node.ask(not_utf8).await.code(), "malformed_json");
    for content_type in [None, Some("text/plain"), Some("multipart/form-data"), Some("x/json")] {
        let mut request = Request::post("/media/room");
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Body::from("{\"roomId\":\"r\"}")).unwrap();
        let answered = stage.node.ask(request).await;
        assert_eq!((answered.status.as_u16(), answered.code()), (415, "not_json"));
    }
    for (coding, status) in [("gzip", 415), ("br, gzip", 415), ("Identity", 201), ("", 201)] {
        let mut request = json_post("/media/room", r#"{"roomId":"r"}"#);
        request.headers_mut().insert(header::CONTENT_ENCODING, coding.parse().unwrap());
        let response = stage.node.send(request).await;
        assert_eq!(response.status(), status, "{coding}");
        let accepted = response.headers().get(header::ACCEPT_ENCODING);
        assert_eq!(accepted.is_some_and(|it| it == "identity"), status == 415, "{coding}");
    }
    let request = Request::post("/media/room")
        .header(header::CONTENT_TYPE, "Application/JSON; charset=utf-8")
        .header(header::CONTENT_LENGTH, "999999999")
        .body(Body::empty())
        .unwrap();
    assert_eq!(stage.node.ask(request).await.code(), "body_too_large");
    stage.still_serves().await;
}

#[tokio::test]
async fn unknown_routes_methods_and_queries_are_refused_in_the_envelope() {
    let stage = Stage::set().await;
    for (method, path, status, code) in [
        (Method::GET, "/media", 404, "route_not_found"),
        (Method::POST, "/media/room/r/unknown", 404, "route_not_found"),
        (Method::GET, "/media/../etc/passwd", 404, "route_not_found"),
        (Method::PUT, "/media/room", 405, "method_not_allowed"),
        (Method::GET, "/media/producer", 405, "method_not_allowed"),
        (Method::POST, "/healthz", 405, "method_not_allowed"),
        (Method::GET, "/media/rooms?limit=many", 400, "invalid_parameter"),
        (Method::GET, "/media/rooms?cursor=%00", 400, "invalid_parameter"),
        (Method::GET, "/media/room/r/events?after=-1", 400, "invalid_parameter"),
        (Method::GET, "/media/room/r/producers?excludePeerId=%07", 400, "invalid_parameter"),
    ] {
        let answered = stage.node.ask(bare(method.clone(), path)).await;
        assert_eq!(answered.status.as_u16(), status, "{method} {path} {answered:?}");
        assert_eq!(answered.code(), code, "{method} {path}");
    }
    stage.still_serves().await;
}

#[tokio::test]
async fn what_this_server_does_not_carry_is_422() {
    let stage = Stage::set().await;
    let mut body = opus("r", "alice", &stage.transport);
    body["source"] = json!("tape");
    body["rtpParameters"]["codecs"][0]["mimeType"] = json!("audio/cassette");
    stage.refuses("/media/producer", body, 422, "not_supported", "audio/cassette").await;
    let body =
        stage.consume("rtpCapabilities", Some(json!({ "codecs": [], "headerExtensions": [] })));
    stage.refuses("/media/consumer", body, 422, "not_supported", "rtpCapabilities").await;
    let body = json!({ "dtlsParameters": {
        "fingerprints": [{ "algorithm": "sha-1", "value": "AA:BB" }],
    }});
    let path = format!("/media/transport/{}/connect", stage.transport);
    stage.refuses(&path, body, 422, "not_supported", "sha-256").await;
    stage.still_serves().await;
}

#[tokio::test]
async fn connecting_twice_is_409() {
    use ringcast::control::command::Refusal;
    let stage = Stage::set().await;
    let path = format!("/media/transport/{}/connect", stage.transport);
    assert_eq!(stage.node.post(&path, dtls()).await.status, 201);
    stage.node.shard().refuses(Refusal::AlreadyConnected);
    stage.refuses(&path, dtls(), 409, "already_connected", "connect() already called").await;
    stage.still_serves().await;
}

#[tokio::test]
async fn a_peer_has_a_bounded_number_of_transports() {
    let stage = Stage::set().await;
    for _ in 1..Limit::PeerTransports.default_value() {
        stage.node.transport("r", "alice").await;
    }
    let body = json!({ "peerId": "alice", "direction": "recv" });
    stage.refuses("/media/transport/r", body, 429, "limit_reached", "transports").await;
    stage.still_serves().await;
}
