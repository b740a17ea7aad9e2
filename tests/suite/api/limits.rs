//! How much there may be of what, and how often anybody may ask: each limit, reached over HTTP.

use std::cell::Cell;
use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::{Method, header};
use http_body_util::BodyExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ringcast::access::ApiKeys;
use ringcast::api::ApiOptions;
use ringcast::config::Proxies;
use ringcast::control::command::{CloseReason, Event};
use ringcast::limits::{Limit, Limits, RATE_BURST, Scope};
use serde_json::{Value, json};

use super::harness::{Answered, Node, bare, json_post, opus, simulcast};

const SECRET: &str = "a-secret-of-the-backend-0123456789";

fn limits(settings: &str) -> Limits {
    let mut limits = Limits::default();
    settings.split(',').for_each(|setting| limits.set(setting.parse().unwrap()));
    limits
}

fn node(settings: &str) -> Node {
    Node::start_with(1, &ApiOptions { limits: limits(settings), ..ApiOptions::default() })
}

/// A node with one key, called with a token for alice of room r.
fn guarded(settings: &str) -> Node {
    let keys = ApiKeys::new(vec![format!("backend:{SECRET}").parse().unwrap()]).unwrap().into();
    let limits = limits(settings);
    Node::start_with(1, &ApiOptions { keys, limits, ..ApiOptions::default() })
}

fn token(peer: &str) -> String {
    let claims = json!({
        "sub": peer, "room": "r", "exp": 2_000_000_000_u64,
        "join": true, "publish": true, "subscribe": true,
    });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

/// The refusal that goes with a limit, which is counted.
async fn is_refused(node: &Node, answered: &Answered, limit: Limit) {
    let (status, code) = match limit.scope() {
        Scope::Node => (503, "node_full"),
        Scope::Room => (429, "room_full"),
        Scope::Peer => (429, "limit_reached"),
        Scope::Rate => (429, "too_many_requests"),
    };
    assert_eq!((answered.status.as_u16(), answered.code()), (status, code), "{answered:?}");
    let sentence = answered.body["data"].as_str().unwrap();
    assert!(sentence.contains(limit.name()), "{sentence}");
    assert!(refusals(node, limit).await > 0, "{limit:?} is not counted");
}

/// How often requests were refused for a limit, as the metrics tell.
async fn refusals(node: &Node, limit: Limit) -> u64 {
    let asked = Node { bearer: Some(SECRET.to_owned()), ..node.clone() };
    let response = asked.send(bare(Method::GET, "/metrics")).await;
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let line = format!("ringcast_api_refused_total{{limit=\"{}\"}} ", limit.name());
    let count = text.lines().find_map(|found| found.strip_prefix(&line));
    count.unwrap_or_else(|| panic!("no {line}")).parse().unwrap()
}

async fn transport(node: &Node, room: &str, peer: &str) -> Answered {
    let body = json!({ "peerId": peer, "direction": "send" });
    node.post(&format!("/media/transport/{room}"), body).await
}

#[tokio::test]
async fn rooms_are_limited_and_one_that_ends_makes_place() {
    let node = node("rooms=2");
    for room in ["a", "b", "a"] {
        assert_eq!(node.room(room).await.status, 201);
    }
    is_refused(&node, &node.room("c").await, Limit::Rooms).await;
    assert_eq!(node.delete("/media/room/a").await.status, 200);
    assert_eq!(node.room("c").await.status, 201);
    is_refused(&node, &node.room("a").await, Limit::Rooms).await;
}

#[tokio::test]
async fn peers_and_transports_are_limited_by_node_room_and_peer() {
    for (setting, limit, taken, refused, still) in [
        ("peers=2", Limit::Peers, [("r", "a"), ("r", "b")], ("s", "a"), Some(("r", "a"))),
        ("room-peers=2", Limit::RoomPeers, [("r", "a"), ("r", "b")], ("r", "c"), Some(("s", "c"))),
        ("transports=2", Limit::Transports, [("r", "a"), ("s", "b")], ("r", "a"), None),
        (
            "room-transports=2",
            Limit::RoomTransports,
            [("r", "a"), ("r", "b")],
            ("r", "a"),
            Some(("s", "a")),
        ),
        (
            "peer-transports=2",
            Limit::PeerTransports,
            [("r", "a"), ("r", "a")],
            ("r", "a"),
            Some(("r", "b")),
        ),
    ] {
        let node = node(setting);
        for room in ["r", "s"] {
            node.room(room).await;
        }
        let mut made = Vec::new();
        for (room, peer) in taken {
            made.push(node.transport(room, peer).await);
        }
        let before = node.control.node().totals;
        is_refused(&node, &transport(&node, refused.0, refused.1).await, limit).await;
        assert_eq!(node.control.node().totals, before, "{setting}: a refusal takes no place");
        if let Some((room, peer)) = still {
            assert_eq!(transport(&node, room, peer).await.status, 201, "{setting}");
        }
        // Whoever leaves makes place.
        let (room, peer) = taken[1];
        let leave = format!("/media/room/{room}/leave");
        node.post(&leave, json!({ "peerId": peer })).await;
        node.room(room).await;
        if still.is_none() || limit == Limit::PeerTransports {
            let answered = transport(&node, refused.0, refused.1).await;
            assert_eq!(answered.status, 201, "{setting}: {answered:?}");
        }
    }
}

/// A node with alice and bob, who have a transport each.
async fn pair(settings: &str) -> (Node, String, String) {
    let node = node(settings);
    node.room("r").await;
    let (alice, bob) = (node.transport("r", "alice").await, node.transport("r", "bob").await);
    (node, alice, bob)
}

async fn produce(node: &Node, body: Value) -> Answered {
    node.post("/media/producer", body).await
}

#[tokio::test]
async fn producers_are_limited_by_node_room_and_peer_and_do_not_leak() {
    for (setting, limit) in [
        ("producers=1", Limit::Producers),
        ("room-producers=1", Limit::RoomProducers),
        ("peer-producers=1", Limit::PeerProducers),
    ] {
        let (node, alice, bob) = pair(setting).await;
        for _ in 0..3 {
            let first = node.producer("r", "alice", &alice).await;
            let again = produce(&node, opus("r", "alice", &alice)).await;
            assert_eq!(again.id("producerId"), first, "the same is no second one");
            let second = produce(&node, simulcast("r", "alice", &alice)).await;
            is_refused(&node, &second, limit).await;
            let others = produce(&node, opus("r", "bob", &bob)).await;
            if limit == Limit::PeerProducers {
                let made = others.id("producerId");
                assert_eq!(node.delete(&format!("/media/producer/{made}")).await.status, 200);
            } else {
                is_refused(&node, &others, limit).await;
            }
            assert_eq!(node.delete(&format!("/media/producer/{first}")).await.status, 200);
        }
        assert_eq!(refusals(&node, limit).await % 3, 0);
    }
}

#[tokio::test]
async fn a_page_that_is_loaded_again_replaces_its_producer_also_where_no_other_may_be() {
    for setting in ["producers=1", "room-producers=1", "peer-producers=1"] {
        let (node, before, _) = pair(setting).await;
        let mut old = node.producer("r", "alice", &before).await;
        for _ in 0..3 {
            let reloaded = node.transport("r", "alice").await;
            let new = produce(&node, opus("r", "alice", &reloaded)).await.id("producerId");
            assert_ne!(new, old, "{setting}");
            let listed = node.get("/media/room/r/producers").await;
            assert_eq!(listed.data()["producers"][0]["producerId"], json!(new));
            assert_eq!(listed.data()["producers"].as_array().unwrap().len(), 1);
            let second = produce(&node, simulcast("r", "alice", &reloaded)).await;
            assert!(second.status == 429 || second.status == 503, "{setting}: {}", second.status);
            old = new;
        }
    }
}

#[tokio::test]
async fn consumers_are_limited_by_node_room_and_peer_and_do_not_leak() {
    for (setting, limit) in [
        ("consumers=1", Limit::Consumers),
        ("room-consumers=1", Limit::RoomConsumers),
        ("peer-consumers=1", Limit::PeerConsumers),
    ] {
        let (node, alice, bob) = pair(setting).await;
        for way in ["consumer", "producer", "transport", "leave", "lost"] {
            let producer = node.producer("r", "alice", &alice).await;
            let receive = node.transport("r", "carol").await;
            let consume = async || node.consume(("r", "carol"), &receive, &producer).await;
            let consumer = consume().await.id("id");
            is_refused(&node, &consume().await, limit).await;
            let bobs = node.consume(("r", "bob"), &bob, &producer).await;
            assert_eq!(bobs.status.is_success(), limit == Limit::PeerConsumers);
            if bobs.status.is_success() {
                node.delete(&format!("/media/consumer/{}", bobs.id("id"))).await;
            }
            // However it ends, its place is free.
            match way {
                "consumer" => node.delete(&format!("/media/consumer/{consumer}")).await.status,
                "producer" => node.delete(&format!("/media/producer/{producer}")).await.status,
                "transport" => node.delete(&format!("/media/transport/{receive}")).await.status,
                "leave" => {
                    let body = json!({ "peerId": "carol" });
                    node.post("/media/room/r/leave", body).await.status
                }
                _ => {
                    let transport = receive.parse().unwrap();
                    let reason = CloseReason::DtlsClosed;
                    node.happens(Event::TransportClosed { transport, reason });
                    axum::http::StatusCode::OK
                }
            };
            assert_eq!(node.control.node().totals.consumers, 0, "{setting} {way}");
        }
        let producer = node.producer("r", "alice", &alice).await;
        let last = node.consume(("r", "bob"), &bob, &producer).await;
        assert_eq!(last.status, 201, "{setting}: {last:?}");
    }
}

#[tokio::test]
async fn event_readers_are_limited_by_node_room_and_peer_and_make_place() {
    for (setting, limit) in [
        ("event-readers=2", Limit::EventReaders),
        ("room-event-readers=2", Limit::RoomEventReaders),
        ("peer-event-readers=2", Limit::PeerEventReaders),
    ] {
        let node = guarded(setting);
        let alice = node.called_with(&token("alice"));
        alice.room("r").await;
        let read = async || alice.send(bare(Method::GET, "/media/room/r/events")).await;
        let (first, _second) = (read().await, read().await);
        let refused = alice.get("/media/room/r/events").await;
        is_refused(&node, &refused, limit).await;
        if limit == Limit::PeerEventReaders {
            let bob = node.called_with(&token("bob"));
            let bobs = bob.send(bare(Method::GET, "/media/room/r/events")).await;
            assert_eq!(bobs.status(), 200);
        }
        drop(first);
        assert_eq!(read().await.status(), 200, "{setting}");
    }
}

/// Asks until it is refused: what was let through, and the refusal.
async fn ask_until_refused(ask: impl AsyncFn() -> Answered) -> (u64, Answered) {
    for through in 0.. {
        let answered = ask().await;
        if answered.status != 200 {
            return (through, answered);
        }
        assert!(through < 1000 * RATE_BURST.as_secs(), "it is never refused");
    }
    unreachable!()
}

#[tokio::test]
async fn a_token_that_asks_without_end_is_slowed_down_and_nobody_else() {
    let node = guarded("token-requests=1");
    let alice = node.called_with(&token("alice"));
    let path = "/media/room/r/producers";
    let (through, refused) = ask_until_refused(async || alice.get(path).await).await;
    assert!(through >= RATE_BURST.as_secs(), "a burst of {through}");
    is_refused(&node, &refused, Limit::TokenRequests).await;
    let another = node.called_with(&token("bob"));
    assert_eq!(another.get(path).await.status, 200);
    let backend = node.called_with(SECRET);
    for _ in 0..2 * through {
        assert_eq!(backend.get(path).await.status, 200);
    }
}

#[tokio::test]
async fn a_key_may_be_slowed_down_too_and_health_is_always_told() {
    let node = guarded("key-requests=1");
    let backend = node.called_with(SECRET);
    let ask = async || backend.get("/media/rooms").await;
    let (through, refused) = ask_until_refused(ask).await;
    assert!(through >= RATE_BURST.as_secs(), "a burst of {through}");
    assert_eq!((refused.status.as_u16(), refused.code()), (429, "too_many_requests"));
    for _ in 0..2 * through {
        assert_ne!(backend.get("/healthz").await.status, 429);
    }
}

#[tokio::test]
async fn an_address_that_asks_without_end_is_slowed_down_and_no_other() {
    let node = node("address-requests=1");
    let ask = async |from: &str, path: &str| {
        let mut request = bare(Method::GET, path);
        let from = ConnectInfo(SocketAddr::new(from.parse().unwrap(), 5000));
        request.extensions_mut().insert(from);
        node.ask(request).await
    };
    let again = async || ask("::ffff:192.0.2.1", "/media/rooms").await;
    let (through, refused) = ask_until_refused(again).await;
    assert!(through >= RATE_BURST.as_secs(), "a burst of {through}");
    is_refused(&node, &refused, Limit::AddressRequests).await;
    for _ in 0..2 * through {
        assert_ne!(ask("192.0.2.1", "/healthz").await.status, 429);
        assert_eq!(ask("::1", "/media/rooms").await.status, 200);
    }
    assert_eq!(ask("192.0.2.2", "/media/rooms").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn behind_a_trusted_proxy_each_client_has_its_own_bucket_and_cannot_leave_it() {
    let proxies = Proxies::of(["10.0.0.0/8"]).unwrap();
    let limits = limits("address-requests=1");
    let node = Node::start_with(1, &ApiOptions { limits, proxies, ..ApiOptions::default() });
    let ask = async |from: &str, told: &str| {
        let mut request = bare(Method::GET, "/media/rooms");
        let from = ConnectInfo(SocketAddr::new(from.parse().unwrap(), 5000));
        request.extensions_mut().insert(from);
        request.headers_mut().insert("x-forwarded-for", told.parse().unwrap());
        node.ask(request).await
    };
    let claimed = Cell::new(0);
    let again = async || {
        claimed.set((claimed.get() + 1) % 200);
        ask("10.0.0.1", &format!("203.0.113.{}, 192.0.2.1", claimed.get())).await
    };
    let (_, refused) = ask_until_refused(again).await;
    assert_eq!(refused.code(), "too_many_requests");
    for (from, told, status) in [
        ("10.0.0.2", "192.0.2.1", 429),
        ("10.0.0.2", "192.0.2.1, 10.0.0.1", 429),
        ("10.0.0.1", "192.0.2.2", 200),
        ("192.0.2.1", "192.0.2.3", 429),
        ("192.0.2.4", "192.0.2.1", 200),
    ] {
        assert_eq!(ask(from, told).await.status, status, "{from} for {told}");
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_cannot_use_up_what_a_key_at_their_address_may_ask() {
    let node = guarded("address-requests=1");
    let from = ConnectInfo(SocketAddr::new("192.0.2.1".parse().unwrap(), 5000));
    let ask = async |key: Option<&str>| {
        let mut request = bare(Method::GET, "/media/rooms");
        request.extensions_mut().insert(from);
        if let Some(key) = key {
            let value = format!("Bearer {key}").parse().unwrap();
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        node.ask(request).await.status
    };
    let mut asked = 0;
    while ask(None).await == 401 {
        asked += 1;
        assert!(asked < 1000 * RATE_BURST.as_secs(), "they are never refused");
    }
    assert_eq!(ask(Some("wrong-secret-of-nobody-0123456789")).await, 429);
    for _ in 0..2 * asked {
        assert_eq!(ask(Some(SECRET)).await, 200);
    }
}

#[tokio::test]
async fn without_keys_the_node_is_drained_from_its_own_host_alone() {
    let node = Node::start(1);
    for (from, status) in
        [("192.0.2.1", 403), ("2001:db8::1", 403), ("127.0.0.1", 201), ("::1", 201)]
    {
        let mut request = bare(Method::POST, "/admin/drain");
        let from = SocketAddr::new(from.parse().unwrap(), 5000);
        request.extensions_mut().insert(ConnectInfo(from));
        assert_eq!(node.send(request).await.status(), status, "{from}");
    }
}

#[tokio::test]
async fn who_asks_through_a_proxy_on_the_nodes_host_is_not_on_that_host() {
    let node = Node::start(1);
    for (header, value) in [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "127.0.0.1"),
        ("forwarded", "for=192.0.2.1"),
        ("via", "1.1 proxy"),
    ] {
        for method in [Method::POST, Method::DELETE] {
            let mut request = bare(method, "/admin/drain");
            let from = SocketAddr::new("127.0.0.1".parse().unwrap(), 5000);
            request.extensions_mut().insert(ConnectInfo(from));
            request.headers_mut().insert(header, value.parse().unwrap());
            let refused = node.ask(request).await;
            assert_eq!((refused.status.as_u16(), refused.code()), (403, "forbidden"), "{header}");
        }
    }
    assert_eq!(node.room("r").await.status, 201, "nothing is being drained");
}

#[tokio::test]
async fn a_refusal_that_time_heals_says_when_to_try_again() {
    let node = node("rooms=1,address-requests=1");
    node.room("r").await;
    for (request, status) in [
        (json_post("/media/room", json!({ "roomId": "s" }).to_string()), 503),
        (bare(Method::GET, "/media/rooms"), 200),
    ] {
        let response = node.send(request).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().contains_key(header::RETRY_AFTER), status == 503);
    }
    let from = ConnectInfo(SocketAddr::new("192.0.2.1".parse().unwrap(), 5000));
    for asked in 0.. {
        let mut request = bare(Method::GET, "/media/rooms");
        request.extensions_mut().insert(from);
        let response = node.send(request).await;
        if response.status() == 429 {
            assert_eq!(response.headers()[header::RETRY_AFTER], "1");
            return;
        }
        assert!(asked < 1000 * RATE_BURST.as_secs(), "it is never refused");
    }
}

#[tokio::test]
async fn loopback_is_not_limited_by_address() {
    let node = node("address-requests=1");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = ApiOptions { limits: limits("address-requests=1"), ..ApiOptions::default() };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving =
        tokio::spawn(ringcast::api::serve(listener, node.control.clone(), options, async {
            let _ = stopped.await;
        }));
    for _ in 0..2 * RATE_BURST.as_secs() {
        let status = ask_over_socket(address).await;
        assert_eq!(status, "HTTP/1.1 200");
    }
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

async fn ask_over_socket(address: SocketAddr) -> String {
    use tokio::io::Interest;
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "GET /media/rooms HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.ready(Interest::WRITABLE).await.unwrap();
    assert_eq!(stream.try_write(request.as_bytes()).unwrap(), request.len());
    let mut first = [0; 12];
    loop {
        stream.ready(Interest::READABLE).await.unwrap();
        match stream.try_read(&mut first) {
            Ok(read) => return String::from_utf8(first[..read].to_vec()).unwrap(),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}
