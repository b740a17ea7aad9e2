//! A process that is told to end while there are calls, and one that drains without ending.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver as Channel, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::call::Call;
use super::secure::{Files, Issued, now};
use super::servers::{PATIENCE, Process, quiet_port};
use super::stock::Net;
use crate::outlets::receiver::{Receiver, SECRET};

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
    let (log, status) = process.ended(PATIENCE);
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
    let (log, status) = process.ended(PATIENCE);
    assert_eq!(status.code(), Some(0), "{log:#?}");
}

/// The next event of a type, waiting for it.
fn next_of(events: &Channel<Value>, kind: &str) -> Value {
    loop {
        let event = events.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {kind}"));
        if event["type"] == kind {
            return event;
        }
    }
}

#[test]
fn at_the_deadline_the_outlets_are_told_that_rooms_end_and_the_process_ends() {
    let receiver = Receiver::start();
    let url = format!("--webhook-url={}", receiver.url());
    let secret = format!("--webhook-secret={SECRET}");
    let events = receiver.take_all();
    let mut process = Process::start(&["--shards=1", "--drain-timeout=1", &url, &secret]);
    let mut call = Call::pair(process.api(), "cut");
    call.all_media_arrives(5);
    process.terminate();
    let closed = next_of(&events, "room-closed");
    assert_eq!((&closed["roomId"], &closed["data"]["reason"]), (&json!("cut"), &json!("draining")));
    let (log, status) = process.ended(PATIENCE);
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

#[test]
fn who_is_ended_at_once_tells_readers_and_outlets_that_the_rooms_are_over() {
    let receiver = Receiver::start();
    let url = format!("--webhook-url={}", receiver.url());
    let secret = format!("--webhook-secret={SECRET}");
    let events = receiver.take_all();
    let mut process = Process::start(&["--shards=2", &url, &secret]);
    let api = process.api();
    let mut call = Call::pair(api, "cut");
    call.all_media_arrives(5);
    assert_eq!(api.post("/media/room", &json!({ "roomId": "other" })).status, 201);
    let mut reader = TcpStream::connect(api.0).unwrap();
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    reader.write_all(b"GET /media/room/cut/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut heard = vec![0; 12];
    reader.read_exact(&mut heard).unwrap();
    assert_eq!(heard, b"HTTP/1.1 200");
    while next_of(&events, "room-created")["roomId"] != "other" {}
    process.interrupt();
    let mut ended = [(); 2].map(|()| {
        let event = next_of(&events, "room-closed");
        (event["roomId"].clone(), event["data"].clone())
    });
    ended.sort_by_key(|(room, _)| room.to_string());
    let stopping = json!({ "reason": "stopping" });
    assert_eq!(ended, [(json!("cut"), stopping.clone()), (json!("other"), stopping)]);
    reader.read_to_end(&mut heard).unwrap();
    let heard = String::from_utf8(heard).unwrap();
    let last = heard.rsplit_once("event: ").unwrap().1;
    assert!(last.starts_with("room-closed") && last.contains("stopping"), "{heard}");
    let (log, status) = process.ended(PATIENCE);
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains("events lost")), "{log:#?}");
}

/// `ringcast` with these arguments, as an operator starts it.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Its exit status and what it said.
fn said(args: &[&str]) -> (Option<i32>, String) {
    let output = command(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn a_command_drains_shows_how_many_are_left_and_ends_with_the_last_of_them() {
    // When it is gone, nobody else is there.
    let listen = format!("--api-listen=127.0.0.1:{}", quiet_port());
    let mut process = Process::start(&["--shards=1", &listen]);
    let api = process.api();
    let mut call = Call::pair(api, "tea");
    call.all_media_arrives(5);
    let mut waiting = command(&["drain", &listen, "--deadline=3000"]).spawn().unwrap();
    let stdout = BufReader::new(waiting.stdout.take().unwrap());
    let (tell, lines) = channel();
    std::thread::spawn(move || {
        // A test that has failed reads no more.
        stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
    });
    let next_line = || lines.recv_timeout(PATIENCE).unwrap();
    let first = next_line();
    assert!(first.contains("draining: 1 rooms, 2 peers left, closed in "), "{first}");
    let drain = api.get("/admin/status").data()["drain"].take();
    assert_eq!((&drain["state"], &drain["exits"]), (&json!("draining"), &json!(false)));
    assert!(drain["secondsLeft"].as_u64().unwrap() <= 3000, "{drain}");
    let (status, text) = said(&["drain", &listen, "--no-wait"]);
    assert!(status == Some(0) && text.contains("1 rooms, 2 peers"), "{status:?} {text}");
    call.leave("alice");
    let second = next_line();
    assert!(second.contains("draining: 1 rooms, 1 peers left"), "{second}");
    call.leave("bob");
    assert!(next_line().ends_with(": empty"));
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
    assert_eq!(api.get("/readyz").status, 503, "the server stays, without rooms");
    let (status, text) = said(&["drain", &listen, "--cancel"]);
    assert!(status == Some(0) && text.contains("new rooms begin again"), "{status:?} {text}");
    assert_eq!(api.post("/media/room", &json!({ "roomId": "tea" })).status, 201);
    let (status, text) = said(&["--drain", &listen]);
    assert!(status == Some(0) && text.ends_with(": empty\n"), "{status:?} {text}");
    let (status, text) = said(&["drain", "--exit", "--url", &format!("http://{}/", api.0)]);
    assert!(status == Some(0) && text.contains("the server ends"), "{status:?} {text}");
    let (log, status) = process.ended(PATIENCE);
    assert_eq!(status.code(), Some(0), "{log:#?}");
    let (status, text) = said(&["drain", &listen]);
    assert!(status == Some(1) && text.contains("refused"), "{status:?} {text}");
    assert!(text.contains("is it running?"), "{text}");
}

#[test]
fn a_drain_over_tls_takes_a_key_and_a_certificate_that_is_trusted() {
    let issued = Issued::new();
    let files = Files::of("drained", &issued);
    let keys = files.write("keys", "ops:0123456789abcdef0123456789abcdef\n");
    let keys = format!("--api-keys-file={keys}");
    let [cert, key] = files.flags();
    let mut process = Process::start(&["--shards=1", &keys, &cert, &key]);
    let listen = format!("--api-listen={}", process.api().0);
    let (status, text) = said(&["drain", &listen, &cert, &key]);
    assert!(status == Some(1) && text.contains("API key"), "{status:?} {text}");
    let url = format!("--url=https://{}", process.api().0);
    let (status, text) = said(&["drain", &url, &keys]);
    assert_eq!(status, Some(1), "a certificate that nobody vouches for: {text}");
    assert!(text.contains("--ca names"), "{text}");
    let ca = format!("--ca={}", files.path("cert.pem"));
    let (status, text) = said(&["drain", &url, &keys, &ca]);
    assert!(status == Some(1) && text.contains("certificate"), "of another name: {text}");
    process.line_with(&["API open"]);
    let (status, text) = said(&["drain", &listen, &keys, &cert, &key]);
    assert!(status == Some(0) && text.ends_with(": empty\n"), "{status:?} {text}");
    process.line_with(&["draining: no new rooms"]);
}

#[test]
fn a_certificate_that_openssl_makes_vouches_for_the_server_that_shows_it_and_nobody_else() {
    let drained = |name: &str, issued: &Issued, trusted: &Issued| {
        let files = Files::of(name, issued);
        let [cert, key] = files.flags();
        let ca = format!("--ca={}", files.write("ca.pem", &trusted.cert));
        let keys = files.write("keys", "ops:0123456789abcdef0123456789abcdef\n");
        let keys = format!("--api-keys-file={keys}");
        let mut process = Process::start(&["--shards=1", &keys, &cert, &key]);
        said(&["drain", &format!("--url=https://{}", process.api().0), &keys, &ca])
    };
    let issued = Issued::by_openssl();
    let (status, text) = drained("itself", &issued, &issued);
    assert!(status == Some(0) && text.ends_with(": empty\n"), "{status:?} {text}");
    let (status, text) = drained("another", &issued, &Issued::by_openssl());
    assert!(status == Some(1) && text.contains("certificate"), "{status:?} {text}");
    let elsewhere = Issued::of_authority("call.example", now() + Duration::from_secs(3600));
    let (status, text) = drained("elsewhere", &elsewhere, &elsewhere);
    assert!(status == Some(1) && text.contains("not valid for name"), "{status:?} {text}");
}

/// A server that says it drains, gives these answers to who asks how far it is, and is gone.
fn ending(answers: &'static [&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--url=http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let begun = r#"{"data":{"state":"draining","rooms":1,"peers":2,"exits":true}}"#;
        let begun = format!("201 Created\r\ncontent-length: {}\r\n\r\n{begun}", begun.len());
        for answer in std::iter::once(begun.as_str()).chain(answers.iter().copied()) {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (mut asked, mut bytes) = (Vec::new(), [0; 1024]);
            let is_whole = |asked: &[u8]| match asked.starts_with(b"GET") {
                true => asked.ends_with(b"\r\n\r\n"),
                false => asked.ends_with(b"}"),
            };
            while !is_whole(&asked) {
                let read = stream.read(&mut bytes).unwrap();
                assert!(read > 0, "who asks hung up");
                asked.extend_from_slice(&bytes[..read]);
            }
            if !answer.is_empty() {
                write!(stream, "HTTP/1.1 {}", answer.replacen("\r\n", CLOSES, 1)).unwrap();
            }
        }
    });
    url
}

const CLOSES: &str = "\r\nconnection: close\r\n";

#[test]
fn a_server_has_ended_when_nobody_is_there_and_not_when_it_is_too_busy_to_say() {
    const BUSY: &str = "503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    const OFTEN: &str = "429 Too Many Requests\r\ncontent-length: 0\r\n\r\n";
    let asked = |answers| said(&["drain", "--exit", &ending(answers)]);
    let (status, text) = asked(&[BUSY, OFTEN, ""]);
    assert!(status == Some(0) && text.contains("the server has ended"), "{status:?} {text}");
    let (status, text) = asked(&["", BUSY, BUSY, "", OFTEN, BUSY]);
    assert!(status == Some(1) && text.contains("503"), "{status:?} {text}");
    assert!(!text.contains("has ended"), "{text}");
}
