//! Readers of room events over real sockets, and outlets whose destination is of no help.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use ringcast::limits::EVENT_READER_PINGS_MAX;
use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket, client};

use super::http::Api;
use super::servers::{Hosted, PATIENCE, Process};

fn connect(api: Api) -> TcpStream {
    let stream = TcpStream::connect(api.0).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn follow(api: Api, path: &str) -> WebSocket<TcpStream> {
    let url = format!("ws://{}/media/room/{path}", api.0);
    client(url, connect(api)).unwrap().0
}

/// The next event; pings in between are the client library's business.
fn event(socket: &mut WebSocket<TcpStream>) -> Value {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn end(socket: &mut WebSocket<TcpStream>) -> CloseCode {
    loop {
        match socket.read().unwrap() {
            Message::Close(frame) => return frame.unwrap().code,
            Message::Ping(_) | Message::Text(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn join(api: Api, room: &str, peer: &str) {
    let body = json!({ "peerId": peer, "direction": "send" });
    assert_eq!(api.post(&format!("/media/transport/{room}"), &body).status, 201);
}

#[test]
fn a_web_socket_tells_the_log_goes_on_where_it_was_and_ends_with_the_room() {
    let server = Hosted::start(&["--shards=1"]);
    let api = server.api;
    api.post("/media/room", &json!({ "roomId": "tea", "initiatorId": "alice" }));
    let mut first = follow(api, "tea/ws?after=0");
    let mut late = follow(api, "tea/ws");
    join(api, "tea", "alice");
    let told: Vec<Value> = (0..2).map(|_| event(&mut first)).collect();
    assert_eq!(told[0]["type"], "room-created");
    assert_eq!(told[1]["type"], "peer-joined");
    assert_eq!(told[1]["seq"], 2);
    let snapshot = event(&mut late);
    assert_eq!((&snapshot["type"], &snapshot["seq"]), (&json!("snapshot"), &json!(1)));
    assert_eq!(event(&mut late), told[1]);
    let position = told[0]["id"].as_str().unwrap();
    let mut again = follow(api, &format!("tea/ws?after={position}"));
    assert_eq!(event(&mut again), told[1]);
    // Who talks is shown the door.
    again.send(Message::text("hello")).unwrap();
    assert_eq!(end(&mut again), CloseCode::Policy);
    api.ask("DELETE", "/media/room/tea", "");
    assert_eq!(event(&mut first)["type"], "room-closed");
    assert_eq!(end(&mut first), CloseCode::Away);
    // The same name, another room: its beginning is not missed.
    api.post("/media/room", &json!({ "roomId": "tea" }));
    join(api, "tea", "bob");
    let mut later = follow(api, &format!("tea/ws?after={position}"));
    let snapshot = event(&mut later);
    assert_eq!(snapshot["type"], "snapshot");
    assert_eq!(snapshot["data"]["peers"][0]["peerId"], "bob");
    drop((late, later));
    server.stop();
}

#[test]
fn pings_are_answered_and_a_flood_of_them_ends_the_reader_alone() {
    let server = Hosted::start(&["--shards=1"]);
    let api = server.api;
    api.post("/media/room", &json!({ "roomId": "tea" }));
    let [mut quiet, mut loud] = [0; 2].map(|_| follow(api, "tea/ws?after=0"));
    for socket in [&mut quiet, &mut loud] {
        assert_eq!(event(socket)["type"], "room-created");
        socket.send(Message::Ping("marco".into())).unwrap();
        assert_eq!(socket.read().unwrap(), Message::Pong("marco".into()));
    }
    for _ in 1..=EVENT_READER_PINGS_MAX {
        loud.send(Message::Ping("marco".into())).unwrap();
    }
    let code = loop {
        match loud.read().unwrap() {
            Message::Close(frame) => break frame.unwrap().code,
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, CloseCode::Policy);
    join(api, "tea", "alice");
    assert_eq!(event(&mut quiet)["type"], "peer-joined");
    server.stop();
}

#[test]
fn what_is_no_web_socket_or_no_room_is_refused_in_the_envelope() {
    let server = Hosted::start(&["--shards=1"]);
    let api = server.api;
    api.post("/media/room", &json!({ "roomId": "tea" }));
    let refused = api.get("/media/room/tea/ws").refusal();
    assert_eq!(refused, (400, "invalid_parameter".to_owned()));
    let unknown = client(format!("ws://{}/media/room/none/ws", api.0), connect(api));
    assert!(unknown.unwrap_err().to_string().contains("404"));
    for after in ["x", "-1", "1-2-3"] {
        let path = format!("ws://{}/media/room/tea/ws?after={after}", api.0);
        assert!(client(path, connect(api)).unwrap_err().to_string().contains("400"), "{after}");
    }
    server.stop();
}

#[test]
fn as_many_readers_as_there_may_be_that_never_read_cost_little_and_hold_up_nobody() {
    let mut process = Process::start(&["--shards=1", "--limits=room-event-readers=1024"]);
    let api = process.api();
    api.post("/media/room", &json!({ "roomId": "tea" }));
    let mut quick = follow(api, "tea/ws?after=0");
    let before = process.resident_kib();
    let mut hostile = Vec::new();
    for number in 1..1024 {
        let mut stream = connect(api);
        let how = if number % 2 == 0 { "events" } else { "ws" };
        let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let upgrade = if how == "ws" { upgrade } else { "" };
        let head = format!("GET /media/room/tea/{how} HTTP/1.1\r\nhost: x\r\n{upgrade}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // Answered, so that it is a reader; from now on it takes nothing.
        assert!(stream.read(&mut [0; 12]).unwrap() > 0);
        hostile.push(stream);
    }
    let refused = api.get("/media/room/tea/events").refusal();
    assert_eq!(refused.0, 429);
    for number in 0..100 {
        join(api, "tea", &format!("peer-{number}"));
        let body = json!({ "peerId": format!("peer-{number}") });
        if number > 0 {
            assert_eq!(api.post("/media/room/tea/leave", &body).status, 201);
        }
    }
    let seen = std::iter::from_fn(|| Some(event(&mut quick)));
    let left = seen.filter(|event| event["type"] == "peer-left").take(99).count();
    assert_eq!(left, 99, "whoever reads misses nothing");
    let grown = process.resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for {} readers", hostile.len());
    drop(hostile);
    process.interrupt();
    assert_eq!(process.ended(PATIENCE).1.code(), Some(0));
}

#[test]
fn destinations_that_accept_and_never_answer_hold_up_neither_calls_nor_the_end() {
    let [kafka, webhook] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let brokers = format!("--kafka-brokers={}", kafka.local_addr().unwrap());
    let url = format!("--webhook-url=http://{}/", webhook.local_addr().unwrap());
    let mut process = Process::start(&[
        "--shards=1",
        &brokers,
        "--kafka-room-events-topic=rooms",
        &url,
        "--webhook-secret=sesame",
    ]);
    let api = process.api();
    for number in 0..50 {
        let room = format!("room-{number}");
        let body = json!({ "roomId": room, "initiatorId": "alice" });
        assert_eq!(api.post("/media/room", &body).status, 201);
        join(api, &room, "alice");
    }
    let metrics = api.get("/metrics").text;
    for line in [
        "ringcast_kafka_accepted_total 200",
        "ringcast_kafka_refused_total 0",
        "ringcast_kafka_up 0",
        "ringcast_webhook_accepted_total 100",
        "# HELP ringcast_webhook_retries_total",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    process.interrupt();
    let (log, status) = process.ended(PATIENCE);
    let log = log.join("\n");
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("events lost") && log.contains("--spool-dir"), "{log}");
    assert!(!log.contains("sesame"), "{log}");
}
