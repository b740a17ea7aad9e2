//! What a real server refuses, and how.

use serde_json::json;

use super::call::Call;
use super::servers::Hosted;
use super::stock::Net;

#[test]
fn a_transport_is_connected_once() {
    let server = Hosted::start(&["--shards=2"]);
    let mut call = Call::new(server.api, "once");
    let seat = call.open("alice", "send", Net::Udp4);
    let (path, body) = (call.clients[seat].connect_path(), call.clients[seat].connect_body());
    let again = server.api.post(&path, &body);
    assert_eq!(again.refusal().0, 409, "{again:?}");
    call.all_connect();
    assert_eq!(server.api.post(&path, &body).refusal().0, 409, "connected by now");
    server.stop();
}

#[test]
fn what_does_not_exist_is_not_found() {
    let server = Hosted::start(&["--shards=2"]);
    let mut call = Call::new(server.api, "known");
    let seat = call.open("alice", "send", Net::Udp4);
    let connect = call.clients[seat].connect_body();
    let nobody = "00000000-0000-4000-8000-000000000000";
    let (alices, rtp) = (&call.clients[seat].transport, json!({ "codecs": [], "encodings": [] }));
    let send = json!({ "peerId": "alice", "direction": "send" });
    let produce = |transport: &str, peer: &str| {
        json!({ "roomId": "known", "peerId": peer, "transportId": transport, "kind": "audio",
                "rtpParameters": rtp })
    };
    let consume = json!({ "roomId": "known", "peerId": "alice", "transportId": alices,
        "producerId": nobody, "rtpCapabilities": call.capabilities });
    for (path, body, code) in [
        ("/media/transport/unknown", &send, "room_not_found"),
        (&format!("/media/transport/{nobody}/connect"), &connect, "transport_not_found"),
        ("/media/producer", &produce(nobody, "alice"), "transport_not_found"),
        ("/media/producer", &produce(alices, "mallory"), "peer_not_found"),
        ("/media/consumer", &consume, "producer_not_found"),
    ] {
        let answer = server.api.post(path, body);
        assert_eq!(answer.refusal(), (404, code.to_owned()), "{path} {body}");
    }
    let missing = server.api.get("/media/nothing/here");
    assert_eq!(missing.status, 404);
    server.stop();
}

#[test]
fn a_body_of_a_mebibyte_is_too_large() {
    let server = Hosted::start(&["--shards=1"]);
    let body = json!({ "roomId": "x".repeat(1024 * 1024) }).to_string();
    let answer = server.api.ask("POST", "/media/room", &body);
    assert_eq!(answer.refusal().0, 413, "{answer:?}");
    assert_eq!(server.api.post("/media/room", &json!({ "roomId": "still here" })).status, 201);
    server.stop();
}
