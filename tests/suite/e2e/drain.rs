//! A process that is told to end while there are calls, and one that drains without ending.

use ringcast::limits::{OUTLET_STOP_TIMEOUT, STOP_TIMEOUT};
use serde_json::json;

use super::call::Call;
use super::servers::{PATIENCE, Process};
use super::stock::Net;
use crate::outlets::receiver::{Answer, Receiver, SECRET};

#[test]
fn the_first_sigterm_ends_no_call_and_its_last_peer_ends_the_process() {
    let mut process = Process::start(&["--shards=2"]);
    let mut call = Call::pair(process.api(), "last");
    call.all_media_arrives(5);
    let api = process.api();
    call.until("the shards report", |call| call.api.get("/readyz").status == 200);
    process.terminate();
    process.line_with(&["draining: no new rooms", "rooms=1", "peers=2", "exits=true"]);
    let body = json!({ "roomId": "another" });
    assert_eq!(api.post("/media/room", &body).refusal(), (503, "draining".to_owned()));
    assert_eq!(api.get("/readyz").refusal(), (503, "draining".to_owned()));
    assert_eq!(api.get("/healthz").status, 200);
    assert_eq!(api.metric("draining"), 1.0);
    call.all_media_arrives(20);

    let producer = &api.get("/media/room/last/producers").data()["producers"][0]["producerId"];
    let carol = call.open("carol", "recv", Net::Udp4);
    let ssrc = call.clients[0].sources[0].ssrc;
    call.consume(carol, producer.as_str().unwrap(), ssrc);
    call.all_connect();
    call.all_media_arrives(5);
    let drain = api.get("/admin/status").data()["drain"].take();
    assert_eq!((&drain["state"], &drain["exits"]), (&json!("draining"), &json!(true)));
    assert_eq!((&drain["rooms"], &drain["peers"]), (&json!(1), &json!(3)));
    assert_eq!(api.ask("DELETE", "/admin/drain", "").refusal(), (409, "ending".to_owned()));

    for peer in ["alice", "bob", "carol"] {
        call.leave(peer);
    }
    let (log, status) = process.ended(STOP_TIMEOUT);
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("drained: stopping")), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains("ERROR")), "{log:#?}");
}

#[test]
fn without_calls_the_first_sigterm_ends_the_process_at_once() {
    let mut process = Process::start(&["--shards=1"]);
    let made = process.api().post("/media/room", &json!({ "roomId": "nobody came" }));
    assert_eq!(made.status, 201);
    process.terminate();
    let (log, status) = process.ended(STOP_TIMEOUT);
    assert_eq!(status.code(), Some(0), "{log:#?}");
}

#[test]
fn at_the_deadline_the_outlets_are_told_that_rooms_end_and_the_process_ends() {
    let receiver = Receiver::start();
    let url = format!("--webhook-url={}", receiver.url());
    let secret = format!("--webhook-secret={SECRET}");
    let mut process = Process::start(&["--shards=1", "--drain-timeout=1", &url, &secret]);
    let mut call = Call::pair(process.api(), "cut");
    call.all_media_arrives(5);
    process.terminate();
    let mut told = Vec::new();
    while !told.iter().any(|(kind, _)| kind == "room-closed") {
        let delivery = receiver.next();
        let events = delivery.events.iter().map(|(_, told)| &told.value);
        told.extend(events.map(|event| {
            (event["type"].as_str().unwrap().to_owned(), event["data"]["reason"].clone())
        }));
        delivery.answer(Answer::Status(204));
    }
    assert_eq!(told.last(), Some(&("room-closed".to_owned(), json!("draining"))), "{told:?}");
    let (log, status) = process.ended(STOP_TIMEOUT + OUTLET_STOP_TIMEOUT);
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains("events lost")), "{log:#?}");
}

#[test]
fn an_operators_drain_stays_until_it_is_called_off_or_told_to_exit() {
    let mut process = Process::start(&["--shards=1"]);
    let api = process.api();
    let begun = api.post("/admin/drain", &json!({ "deadlineSeconds": 3600 }));
    assert_eq!((begun.status, &begun.data()["state"]), (201, &json!("draining")));
    process.line_with(&["draining: no new rooms", "exits=false"]);
    let room = json!({ "roomId": "tea" });
    assert_eq!(api.post("/media/room", &room).status, 503);
    assert_eq!(api.ask("DELETE", "/admin/drain", "").data()["state"], "serving");
    process.line_with(&["drain called off"]);
    let mut call = Call::pair(api, "tea");
    call.all_media_arrives(5);
    let asked = api.post("/admin/drain", &json!({ "exit": true, "deadlineSeconds": 0 }));
    assert_eq!(asked.status, 201);
    let (log, status) = process.ended(PATIENCE);
    assert_eq!(status.code(), Some(0), "{log:#?}");
    let closed = ["room closed", "reason=\"draining\""];
    assert!(log.iter().any(|line| closed.iter().all(|word| line.contains(word))), "{log:#?}");
}
