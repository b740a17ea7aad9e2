//! Who may call what: keys, room tokens, and everything that is no token.

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, header};
use http_body_util::BodyExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ringcast::access::ApiKeys;
use ringcast::api::{ApiOptions, openapi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{Answered, Node, bare, dtls, json_request, opus};
use super::sdp::{offer, patch, restart, sdp};

/// In the year 2033, and in 2001.
pub(super) const LATER: u64 = 2_000_000_000;
pub(super) const BEFORE: u64 = 1_000_000_000;

pub(super) const SECRET: &str = "a-secret-of-the-backend-0123456789";
pub(super) const OTHER: &str = "another-secret-of-somebody-0123456";

/// What needs no credentials.
const OPEN: [&str; 4] = ["GET /", "GET /admin", "GET /healthz", "GET /readyz"];

pub(super) fn guarded() -> Node {
    guarded_with(|_| {})
}

pub(super) fn guarded_with(change: impl FnOnce(&mut ApiOptions)) -> Node {
    let keys = [format!("backend:{SECRET}"), format!("spare:{OTHER}")];
    let keys = keys.map(|key| key.parse().unwrap()).to_vec();
    let mut options =
        ApiOptions { keys: ApiKeys::new(keys).unwrap().into(), ..ApiOptions::default() };
    change(&mut options);
    Node::start_with(1, &options)
}

fn is_open(method: impl std::fmt::Display, path: &str) -> bool {
    // Browsers send no credentials with OPTIONS.
    let operation = format!("{method} {path}");
    OPEN.contains(&operation.as_str()) || operation.starts_with("OPTIONS ")
}

/// What a backend gives to alice of room r.
pub(super) fn claims() -> Value {
    json!({
        "sub": "alice", "room": "r", "exp": LATER,
        "join": true, "publish": true, "subscribe": true,
    })
}

/// The claims with some of them changed; null takes one away.
pub(super) fn claims_but(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

pub(super) fn signed(claims: &Value) -> String {
    signed_by("backend", SECRET, Algorithm::HS256, claims)
}

pub(super) fn signed_by(kid: &str, secret: &str, algorithm: Algorithm, claims: &Value) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
    encode(&header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn token_of(peer: &str) -> String {
    signed(&claims_but(json!({ "sub": peer })))
}

/// Method and path of every operation, with something in place of each parameter.
fn operations(room: &str) -> Vec<(Method, String)> {
    let document = serde_json::to_value(openapi::document()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.replace("{roomId}", room);
        let path: Vec<String> =
            path.split('/')
                .map(|part| {
                    if part.starts_with('{') { Uuid::new_v4().to_string() } else { part.to_owned() }
                })
                .collect();
        for method in item.as_object().unwrap().keys() {
            operations.push((method.to_uppercase().parse().unwrap(), path.join("/")));
        }
    }
    assert!(operations.len() >= 39, "{operations:?}");
    operations
}

/// Status and headers of a bare request.
async fn knock(node: &Node, method: &Method, path: &str) -> (u16, HeaderMap, String) {
    let response = node.send(bare(method.clone(), path)).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let streams = headers.get(header::CONTENT_TYPE).is_some_and(|it| it == "text/event-stream");
    let bytes = if streams {
        Vec::new()
    } else {
        response.into_body().collect().await.unwrap().to_bytes().to_vec()
    };
    (status, headers, String::from_utf8(bytes).unwrap())
}

#[tokio::test]
async fn every_operation_but_the_open_ones_wants_credentials() {
    let node = guarded();
    node.called_with(SECRET).room("r").await;
    for (method, path) in operations("r") {
        let (status, headers, text) = knock(&node, &method, &path).await;
        if is_open(&method, &path) {
            assert_ne!(status, 401, "{method} {path} is open");
            continue;
        }
        assert_eq!(status, 401, "{method} {path} let a stranger in: {text}");
        assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer", "{method} {path}");
        assert!(text.contains("\"unauthorized\""), "{method} {path}: {text}");
    }
    for path in ["/docs/", "/docs-json", "/api/swagger.json", "/pages/call.js", "/pages/call.css"] {
        assert_eq!(knock(&node, &Method::GET, path).await.0, 200, "{path}");
    }
    assert_eq!(node.get("/no/such/route").await.code(), "route_not_found");
}

#[tokio::test]
async fn the_document_says_of_every_operation_whether_it_wants_credentials() {
    let document = serde_json::to_value(openapi::document()).unwrap();
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{} {path}", method.to_uppercase());
            let open = is_open(method.to_uppercase(), path);
            assert_eq!(operation["security"].is_null(), open, "{name}");
            let responses = &operation["responses"];
            let probes = matches!(path.as_str(), "/healthz" | "/readyz") || method == "options";
            let limits = ["4XX", "429"].iter().any(|it| responses[it].is_object());
            assert!(probes || (limits && responses["503"].is_object()), "{name}: {responses}");
            let refuses = ["4XX", "401"].iter().any(|it| operation["responses"][it].is_object());
            assert!(refuses || open, "{name} does not tell of its refusals");
        }
    }
}

#[tokio::test]
async fn a_key_may_do_everything() {
    let node = guarded().called_with(SECRET);
    assert_eq!(node.called_with(OTHER).room("r").await.status, 201);
    for (method, path) in operations("r") {
        let (status, _, text) = knock(&node, &method, &path).await;
        assert!(![401, 403].contains(&status), "{method} {path}: {text}");
    }
}

#[tokio::test]
async fn a_token_of_one_room_opens_nothing_of_another_and_nothing_of_the_node() {
    let node = guarded();
    node.called_with(SECRET).room("elsewhere").await;
    for admin in [false, true] {
        let caller = node.called_with(&signed(&claims_but(json!({ "admin": admin }))));
        for (method, path) in operations("elsewhere") {
            if is_open(&method, &path) {
                continue;
            }
            let (status, _, text) = knock(&caller, &method, &path).await;
            // What is not there is not there; a body that is not there is refused as ever.
            let expected = if path.contains("elsewhere") || !path.starts_with("/media") {
                if path.contains("/session/") { 404 } else { 403 }
            } else {
                match path.as_str() {
                    "/media/rooms" => 403,
                    // Limits are for administrators, of whatever room.
                    _ if method == Method::PATCH && !admin && path.contains("/transport/") => 403,
                    "/media/room" | "/media/producer" | "/media/consumer" => 415,
                    _ => 404,
                }
            };
            assert_eq!(status, expected, "{method} {path}: {text}");
        }
    }
}

/// What is refused for want of a grant, or because it names somebody else.
async fn is_forbidden(answered: Answered, word: &str) {
    assert_eq!((answered.status.as_u16(), answered.code()), (403, "forbidden"), "{answered:?}");
    let sentence = answered.body["data"].as_str().unwrap();
    assert!(sentence.contains(word), "{word:?} is not in {sentence:?}");
}

#[tokio::test]
async fn a_body_must_name_the_tokens_room_and_peer() {
    let node = guarded();
    let alice = node.called_with(&token_of("alice"));
    is_forbidden(alice.room("s").await, "another room").await;
    let body = json!({ "roomId": "r", "initiatorId": "bob" });
    is_forbidden(alice.post("/media/room", body).await, "another peer").await;
    assert_eq!(alice.room("r").await.status, 201);
    let send = |peer: &str| json!({ "peerId": peer, "direction": "send" });
    is_forbidden(alice.post("/media/transport/r", send("bob")).await, "another peer").await;
    is_forbidden(alice.post("/media/transport/s", send("alice")).await, "another room").await;
    let transport = alice.transport("r", "alice").await;
    for (room, peer, word) in [("r", "bob", "another peer"), ("s", "alice", "another room")] {
        let body = opus(room, peer, &transport);
        is_forbidden(alice.post("/media/producer", body).await, word).await;
    }
    let producer = alice.producer("r", "alice", &transport).await;
    let bob = node.called_with(&token_of("bob"));
    let receive = bob.transport("r", "bob").await;
    let capabilities = bob.room("r").await.data()["routerRtpCapabilities"].clone();
    let consume = |room: &str, peer: &str| {
        json!({
            "roomId": room, "peerId": peer, "transportId": receive, "producerId": producer,
            "rtpCapabilities": capabilities,
        })
    };
    is_forbidden(bob.post("/media/consumer", consume("r", "alice")).await, "another peer").await;
    is_forbidden(bob.post("/media/consumer", consume("s", "bob")).await, "another room").await;
    assert_eq!(bob.post("/media/consumer", consume("r", "bob")).await.status, 201);
    let leave = "/media/room/r/leave";
    is_forbidden(bob.post(leave, json!({ "peerId": "alice" })).await, "another peer").await;
    assert_eq!(bob.post(leave, json!({ "peerId": "bob" })).await.status, 201);
}

#[tokio::test]
async fn nothing_of_another_room_can_be_consumed() {
    let node = guarded();
    let eve = node.called_with(&signed(&claims_but(json!({ "sub": "eve", "room": "s" }))));
    eve.room("s").await;
    let transport = eve.transport("s", "eve").await;
    let foreign = eve.producer("s", "eve", &transport).await;
    let alice = node.called_with(&token_of("alice"));
    alice.room("r").await;
    let receive = alice.transport("r", "alice").await;
    let refused = alice.consume(("r", "alice"), &receive, &foreign).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (404, "producer_not_found"));
    let refused = alice.consume(("r", "alice"), &transport, &foreign).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (404, "transport_not_found"));
}

#[tokio::test]
async fn every_route_asks_for_its_grant() {
    let node = guarded();
    let all = node.called_with(&token_of("alice"));
    all.room("r").await;
    let transport = all.transport("r", "alice").await;
    let producer = all.producer("r", "alice", &transport).await;
    let consumer = all.consume(("r", "alice"), &transport, &producer).await.id("id");
    let json_body = |method: &str, path: String, body: Value| {
        json_request(method.parse().unwrap(), &path, body.to_string())
    };
    let requests = |grant: &str| match grant {
        "join" => vec![
            json_body("POST", "/media/room".to_owned(), json!({ "roomId": "r" })),
            bare(Method::GET, "/media/room/r/producers"),
            bare(Method::GET, "/media/room/r/events"),
            bare(Method::GET, &format!("/media/transport/{transport}/stats")),
            bare(Method::POST, "/whip/r"),
            bare(Method::POST, "/whep/r"),
        ],
        "publish" => vec![
            json_body("POST", "/media/producer".to_owned(), opus("r", "alice", &transport)),
            bare(Method::POST, &format!("/media/producer/{producer}/pause")),
            bare(Method::POST, "/whip/r"),
        ],
        "subscribe" => vec![
            json_body("POST", "/media/consumer".to_owned(), json!({})),
            bare(Method::POST, &format!("/media/consumer/{consumer}/pause")),
            bare(Method::POST, "/whep/r"),
        ],
        _ => vec![
            bare(Method::GET, "/media/room/r"),
            bare(Method::GET, "/media/room/r/stats"),
            bare(Method::DELETE, "/media/room/r"),
        ],
    };
    for grant in ["join", "publish", "subscribe", "admin"] {
        let without = node.called_with(&signed(&claims_but(json!({ grant: false }))));
        for request in requests(grant) {
            let name = format!("{} {}", request.method(), request.uri());
            let refused = without.ask(request).await;
            assert_eq!(refused.status, 403, "{name} without {grant}: {refused:?}");
            is_forbidden(refused, &format!("`{grant}`")).await;
        }
    }
}

#[tokio::test]
async fn what_another_peer_has_is_not_there() {
    let node = guarded();
    let alice = node.called_with(&token_of("alice"));
    alice.room("r").await;
    let transport = alice.transport("r", "alice").await;
    let producer = alice.producer("r", "alice", &transport).await;
    let consumer = alice.consume(("r", "alice"), &transport, &producer).await.id("id");
    let requests = || {
        let of = |kind: &str, id: &str, rest: &str| format!("/media/{kind}/{id}{rest}");
        let json = |method: Method, path: String, body: Value| {
            json_request(method, &path, body.to_string())
        };
        let (put, post) = (Method::PUT, Method::POST);
        vec![
            bare(Method::GET, &of("consumer", &consumer, "/stats")),
            bare(Method::POST, &of("consumer", &consumer, "/pause")),
            bare(Method::POST, &of("consumer", &consumer, "/resume")),
            bare(Method::POST, &of("consumer", &consumer, "/keyframe")),
            json(put.clone(), of("consumer", &consumer, "/priority"), json!({ "priority": 9 })),
            json(put, of("consumer", &consumer, "/layers"), json!({ "spatialLayer": 0 })),
            bare(Method::DELETE, &of("consumer", &consumer, "")),
            bare(Method::GET, &of("producer", &producer, "/stats")),
            bare(Method::POST, &of("producer", &producer, "/pause")),
            bare(Method::POST, &of("producer", &producer, "/resume")),
            bare(Method::DELETE, &of("producer", &producer, "")),
            bare(Method::GET, &of("transport", &transport, "/stats")),
            json(post, of("transport", &transport, "/connect"), dtls()),
            bare(Method::POST, &of("transport", &transport, "/restart-ice")),
            bare(Method::DELETE, &of("transport", &transport, "")),
        ]
    };
    let bob = token_of("bob");
    let neighbour = signed(&claims_but(json!({ "sub": "alice", "room": "s" })));
    let warden = signed(&claims_but(json!({ "room": "s", "admin": true })));
    for stranger in [bob, neighbour, warden] {
        for request in requests() {
            let name = format!("{} {}", request.method(), request.uri());
            let refused = node.called_with(&stranger).ask(request).await;
            assert_eq!(refused.status, 404, "{name}: {refused:?}");
            assert!(refused.code().ends_with("_not_found"), "{refused:?}");
        }
    }
    for request in requests() {
        let name = format!("{} {}", request.method(), request.uri());
        let answered = alice.ask(request).await;
        assert!(answered.status.is_success(), "{name}: {answered:?}");
    }
}

#[tokio::test]
async fn an_administrator_rules_a_room_and_an_operator_the_node() {
    let node = guarded();
    let alice = node.called_with(&token_of("alice"));
    alice.room("r").await;
    let transport = alice.transport("r", "alice").await;
    let producer = alice.producer("r", "alice", &transport).await;
    let grants = json!({
        "admin": true, "sub": null, "join": false, "publish": false, "subscribe": false,
    });
    let warden = node.called_with(&signed(&claims_but(grants.clone())));
    assert_eq!(warden.get("/media/room/r").await.status, 200);
    assert_eq!(warden.get("/media/room/r/stats").await.status, 200);
    assert_eq!(warden.delete(&format!("/media/producer/{producer}")).await.status, 200);
    let kicked = warden.post("/media/room/r/leave", json!({ "peerId": "alice" })).await;
    assert_eq!(kicked.status, 201);
    is_forbidden(warden.get("/media/rooms").await, "grants `node`").await;
    is_forbidden(warden.get("/admin/status").await, "grants `node`").await;
    let mut everywhere = grants;
    everywhere["room"] = Value::Null;
    let forgetful = node.called_with(&signed(&claims_but(everywhere.clone())));
    let refused = forgetful.get("/media/rooms").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (401, "invalid_token"));
    everywhere["admin"] = json!(false);
    everywhere["node"] = json!(true);
    let operator = node.called_with(&signed(&claims_but(everywhere)));
    for path in ["/media/rooms", "/admin/status"] {
        assert_eq!(operator.get(path).await.status, 200, "{path}");
    }
    assert_eq!(operator.room("s").await.status, 201);
    assert_eq!(operator.delete("/media/room/s").await.status, 200);
}

#[tokio::test]
async fn a_peer_cannot_undo_the_bitrate_limits_of_its_backend() {
    let node = guarded();
    let alice = node.called_with(&token_of("alice"));
    alice.room("r").await;
    let path = format!("/media/transport/{}", alice.transport("r", "alice").await);
    let limit = json!({ "maxOutgoingBitrate": 500_000 });
    assert_eq!(node.called_with(SECRET).patch(&path, limit).await.status, 200);
    let free = json!({ "maxOutgoingBitrate": 0 });
    is_forbidden(alice.patch(&path, free.clone()).await, "`admin`").await;
    let warden = node.called_with(&signed(&claims_but(json!({ "admin": true }))));
    assert_eq!(warden.patch(&path, free).await.status, 200);
}

#[tokio::test]
async fn metrics_are_for_operators_unless_they_are_open() {
    let node = guarded();
    let status = async |node: &Node| knock(node, &Method::GET, "/metrics").await.0;
    assert_eq!(status(&node).await, 401);
    assert_eq!(status(&node.called_with(&token_of("alice"))).await, 403);
    assert_eq!(status(&node.called_with(SECRET)).await, 200);
    let open = guarded_with(|options| options.open_metrics = true);
    assert_eq!(status(&open).await, 200);
    assert_eq!(open.get("/admin/status").await.code(), "unauthorized");
}

#[tokio::test]
async fn only_event_readers_may_have_their_token_in_the_query() {
    let node = guarded();
    node.called_with(SECRET).room("r").await;
    let token = token_of("alice");
    for (path, expected) in [
        (format!("/media/room/r/events?access_token={token}"), 200),
        (format!("/media/room/r/events?access_token={SECRET}"), 200),
        ("/media/room/r/events?access_token=x.y.z".to_owned(), 401),
        ("/media/room/r/events?access_token=".to_owned(), 401),
        (format!("/media/room/s/events?access_token={token}"), 403),
        // Not a WebSocket, but let in so far.
        (format!("/media/room/r/ws?access_token={token}"), 400),
        (format!("/media/room/s/ws?access_token={token}"), 403),
        (format!("/media/room/r/producers?access_token={token}"), 401),
        (format!("/media/rooms?access_token={SECRET}"), 401),
    ] {
        let (status, _, text) = knock(&node, &Method::GET, &path).await;
        assert_eq!(status, expected, "{path}: {text}");
    }
}

#[tokio::test]
async fn whip_and_whep_go_by_the_tokens_name_and_keep_to_its_sessions() {
    let node = guarded();
    let alice = node.called_with(&token_of("alice"));
    let bob = node.called_with(&token_of("bob"));
    let sending = sdp("sendonly", &["audio"]);
    let named = offer(&alice, "/whip/r?peerId=bob", &sending).await;
    assert_eq!(named.code(), (403, "forbidden".to_owned()));
    let made = offer(&alice, "/whip/r", &sending).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let published = made.header("location").to_owned();
    let producers = bob.get("/media/room/r/producers").await;
    assert_eq!(producers.data()["producers"][0]["peerId"], "alice");

    let receiving = sdp("recvonly", &["audio"]);
    let named = offer(&bob, "/whep/r?viewerId=alice", &receiving).await;
    assert_eq!(named.code(), (403, "forbidden".to_owned()));
    let made = offer(&bob, "/whep/r?peerId=alice", &receiving).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let played = made.header("location").to_owned();

    for (caller, session) in [(&bob, &published), (&alice, &played)] {
        let refused = patch(caller, session, Some("*"), &restart("fresh")).await;
        assert_eq!(refused.code(), (404, "session_not_found".to_owned()));
        let refused = caller.delete(session).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (404, "session_not_found"));
    }
    for (caller, session) in [(&alice, &published), (&bob, &played)] {
        assert_eq!(patch(caller, session, Some("*"), &restart("fresh")).await.status, 200);
        assert_eq!(caller.delete(session).await.status, 200);
    }
}

#[tokio::test]
async fn a_browser_of_another_origin_may_ask_first_and_read_what_it_lacks() {
    let node = guarded();
    let origin = (header::ORIGIN, "https://app.example");
    let preflight = Request::builder()
        .method(Method::OPTIONS)
        .uri("/media/room")
        .header(origin.0.clone(), origin.1)
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type");
    let allowed = node.send(preflight.body(Body::empty()).unwrap()).await;
    assert_eq!(allowed.status(), 200);
    let named = allowed.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
    assert!(named.contains("authorization"), "{named}");
    let request = Request::builder().uri("/media/rooms").header(origin.0, origin.1);
    let refused = node.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
}

#[tokio::test]
async fn without_keys_credentials_are_not_looked_at() {
    let node = Node::start(1);
    assert_eq!(node.called_with("whatever").room("r").await.status, 201);
    assert_eq!(node.called_with(&token_of("alice")).room("s").await.status, 201);
}
