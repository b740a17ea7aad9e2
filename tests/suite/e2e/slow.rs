//! Clients of the API that connect and are of no further use, in numbers.

use std::io::{Read, Write};
use std::net::TcpStream;

use ringcast::limits::{API_ACCEPT_PAUSE, API_BODY_TIMEOUT};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use super::call::Call;
use super::http::Api;
use super::secure::exchange;
use super::servers::{PATIENCE, Process, clock};
use super::stock::Net;

const HALF_OPEN: usize = 1000;
const SLOW_BODIES: usize = 100;
const NEVER_READ: usize = 50;

const READY: &str = "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";

fn says(api: Api, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(api.0).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    stream
}

/// Nothing, or part of a head.
fn half_open(api: Api, number: usize) -> TcpStream {
    let heads = ["", "P", "POST /media/room HTTP/1.1\r\nhost: x\r\n", "GET /readyz HTTP/1.1\r\nx:"];
    says(api, heads[number % heads.len()])
}

fn connections(api: Api) -> f64 {
    api.metric("api_connections")
}

#[test]
fn a_thousand_half_open_connections_and_slow_bodies_keep_nobody_from_calling() {
    let mut process = Process::start(&["--shards=1"]);
    let api = process.api();
    let mut call = Call::full(api, "before", 2, &[Net::Udp4]);
    let before = process.descriptors();
    let silent: Vec<_> = (0..HALF_OPEN).map(|number| half_open(api, number)).collect();
    let slow = "POST /media/room HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 5000\r\n\r\n{";
    let mut slow: Vec<_> = (0..SLOW_BODIES).map(|_| says(api, slow)).collect();
    // Answers of 1.5 MB each that nobody takes.
    let large = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n".repeat(4);
    let deaf: Vec<_> = (0..NEVER_READ).map(|_| says(api, &large)).collect();
    assert!(connections(api) > (HALF_OPEN + SLOW_BODIES) as f64);
    // Meanwhile others meet and talk.
    call.all_media_arrives(5);
    Call::full(api, "meanwhile", 2, &[Net::Udp4]).all_media_arrives(5);
    // The slow ones go on, a byte at a time, until they are refused.
    call.until("all that wait for their clients are given up", |call| {
        for stream in &mut slow {
            let _ = stream.write_all(b" ");
        }
        call.heard(2);
        connections(api) <= (NEVER_READ + 1) as f64
    });
    let answer = exchange(&mut slow[0], "");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("request_timeout"), "{answer}");
    let over = |what: &str| {
        let line = format!("ringcast_api_timeouts_total{{over=\"{what}\"}} ");
        let metrics = api.get("/metrics").text;
        metrics.lines().find_map(|found| found.strip_prefix(&line)).unwrap().parse::<usize>()
    };
    assert_eq!(over("head"), Ok(HALF_OPEN));
    assert_eq!(over("body"), Ok(SLOW_BODIES), "after {API_BODY_TIMEOUT:?}");
    call.all_media_arrives(5);
    drop((silent, slow, deaf));
    call.until("everything is given back", |_| {
        connections(api) <= 1.0 && process.descriptors() <= before + 1
    });
}

#[test]
fn when_the_node_is_full_whoever_keeps_it_waiting_gives_way() {
    let mut process = Process::start(&["--shards=1", "--api-connections=40"]);
    let api = process.api();
    api.post("/media/room", &json!({ "roomId": "tea" }));
    let mut reader = says(api, "GET /media/room/tea/events HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(reader.read(&mut [0; 512]).unwrap() > 0);
    let held: Vec<_> = (0..200).map(|number| half_open(api, number)).collect();
    for number in 0..20 {
        let body = json!({ "roomId": format!("room-{number}") });
        assert_eq!(api.post("/media/room", &body).status, 201);
    }
    assert!(connections(api) <= 42.0, "{}", connections(api));
    // Who is served stays.
    let body = json!({ "peerId": "alice", "direction": "send" });
    assert_eq!(api.post("/media/transport/tea", &body).status, 201);
    let mut told = String::new();
    while !told.contains("peer-joined") {
        let mut bytes = [0; 1024];
        let read = reader.read(&mut bytes).unwrap();
        assert!(read > 0, "{told}");
        told.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    // Readers alone, as many as there may be: nobody is left to give way.
    drop(held);
    let request = "GET /media/room/tea/events HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut readers = Vec::new();
    for _ in 0..39 {
        let mut reader = says(api, request);
        assert!(reader.read(&mut [0; 512]).unwrap() > 0);
        readers.push(reader);
    }
    let mut refused = TcpStream::connect(api.0).unwrap();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    refused.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("overloaded"), "{answer}");
    drop(readers);
    let deadline = clock() + PATIENCE;
    loop {
        let Ok(mut stream) = TcpStream::connect(api.0) else { continue };
        let request = READY.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        let asked = stream.write_all(request.as_bytes());
        if asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains("200 OK")
        {
            break;
        }
        assert!(clock() < deadline, "{answer}");
    }
}

#[test]
fn without_descriptors_the_api_waits_and_does_not_spin() {
    let mut process = Process::start(&["--shards=1"]);
    let api = process.api();
    // As if the host had no more than 20 left for it.
    let most = u64::try_from(process.descriptors() + 20).unwrap();
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap());
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    prlimit(pid, Resource::Nofile, limit).unwrap();
    let began = clock();
    let held: Vec<_> = (0..100).map(|number| half_open(api, number)).collect();
    let refused = || {
        let line = "ringcast_api_connections_refused_total{reason=\"system\"} ";
        let metrics = api.get("/metrics").text;
        let count = metrics.lines().find_map(|found| found.strip_prefix(line));
        count.unwrap().parse::<u128>().unwrap()
    };
    while refused() == 0 {
        assert!(began.elapsed() < PATIENCE);
    }
    // Whoever waits for its client gives way.
    let body = json!({ "roomId": "tea" });
    assert_eq!(api.post("/media/room", &body).status, 201);
    let most = began.elapsed().as_millis() / API_ACCEPT_PAUSE.as_millis() + 1;
    let refused = refused();
    assert!(refused <= most, "{refused} refusals, {most} at most");
    drop(held);
    assert_eq!(api.post("/media/room", &body).status, 201);
}
