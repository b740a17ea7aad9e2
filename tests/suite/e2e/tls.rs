//! The API under TLS: whom it serves, which files it takes, and how they are renewed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use super::secure::{Files, Issued, exchange, secured};
use super::servers::{PATIENCE, Process, clock};

const ROOM: &str = "POST /media/room HTTP/1.1\r\nhost: call.example\r\ncontent-length: 16\r\n\
                    content-type: application/json\r\n\r\n{\"roomId\":\"tea\"}";
const ROOMS: &str = "GET /media/rooms HTTP/1.1\r\nhost: call.example\r\n\r\n";

fn start(files: &Files) -> Process {
    let [cert, key] = files.flags();
    Process::start(&["--shards=1", &cert, &key])
}

#[test]
fn a_browser_calls_over_tls_and_nothing_else_is_spoken_there() {
    let issued = Issued::new();
    let files = Files::of("tls-call", &issued);
    let mut process = start(&files);
    let api = process.api();
    assert!(process.line_with(&["API open"]).contains("https://"));
    for version in [&TLS12, &TLS13] {
        let mut stream = secured(api, &issued, &[version]).unwrap();
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(stream.conn.protocol_version(), Some(version.version));
        let answer = exchange(&mut stream, ROOM);
        assert!(answer.starts_with("HTTP/1.1 201 Created"), "{answer}");
        // The same connection takes another request.
        assert!(exchange(&mut stream, ROOMS).contains("success"));
    }
    // Events, both ways.
    let mut events = secured(api, &issued, &[&TLS13]).unwrap();
    events.write_all(b"GET /media/room/tea/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    while !text.contains("snapshot") {
        let mut bytes = [0; 1024];
        let read = events.read(&mut bytes).unwrap();
        assert!(read > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    let stream = secured(api, &issued, &[&TLS13]).unwrap();
    let url = "wss://call.example/media/room/tea/ws";
    let mut socket = tungstenite::client(url, stream).unwrap().0;
    let told: Value = serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap();
    assert_eq!(told["type"], "snapshot");
    // Without TLS.
    let mut bare = TcpStream::connect(api.0).unwrap();
    bare.set_read_timeout(Some(PATIENCE)).unwrap();
    let answer = exchange(&mut bare, ROOM);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("https") && answer.contains("needs_tls"), "{answer}");
    assert_eq!(bare.read(&mut [0; 16]).unwrap_or(0), 0, "and it is closed");
    let mut stream = secured(api, &issued, &[&TLS13]).unwrap();
    let metrics = exchange(&mut stream, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    let refused = "ringcast_api_connections_refused_total{reason=\"plaintext\"} 1\n";
    assert!(metrics.contains(refused), "{metrics}");
    assert!(metrics.contains("ringcast_tls_certificate_expires_timestamp_seconds "), "{metrics}");
    // Whom nobody trusts.
    assert!(secured(api, &Issued::new(), &[&TLS13]).is_err());
    process.terminate();
    assert_eq!(process.ended(PATIENCE).1.code(), Some(0));
}

#[test]
fn a_wrong_file_is_told_with_its_name_and_what_is_wrong_with_it() {
    let (issued, other) = (Issued::new(), Issued::new());
    let files = Files::of("tls-wrong", &issued);
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| files.path(name));
    let written = |name: &str, text: &str| files.write(name, text);
    let empty = written("empty.pem", "");
    let half: Vec<&str> = issued.cert.lines().take(4).collect();
    let torn = written("torn.pem", &half.join("\n"));
    let odd = written("odd.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let strange = written("other.pem", &other.key);
    let large = written("large.pem", &"x".repeat(2 * 1024 * 1024));
    let sealed = written("sealed.pem", &issued.key.replace("PRIVATE", "ENCRYPTED PRIVATE"));
    for (cert, key, words) in [
        ("/nowhere/cert.pem", key.as_str(), &["--tls-cert", "/nowhere/cert.pem", "No such"][..]),
        (&cert, "/nowhere/key.pem", &["--tls-key", "/nowhere/key.pem", "No such"]),
        (&empty, &key, &["--tls-cert", &empty, "no certificate"]),
        (&torn, &key, &["--tls-cert", &torn, "no PEM"]),
        (&odd, &key, &["--tls-cert", &odd, "not readable"]),
        (&key, &key, &["--tls-cert", &key, "no certificate"]),
        (&cert, &cert, &["--tls-key", &cert, "no private key"]),
        (&cert, &sealed, &["--tls-key", &sealed, "decrypted"]),
        (&cert, &strange, &["--tls-cert", &cert, "--tls-key", &strange, "does not belong"]),
        (&cert, "/dev", &["--tls-key", "/dev", "no file"]),
        (&cert, "/dev/zero", &["--tls-key", "/dev/zero", "no file"]),
        (&large, &key, &["--tls-cert", &large, "larger than 1 MiB"]),
    ] {
        let args = [format!("--tls-cert={cert}"), format!("--tls-key={key}")];
        let (log, status) = Process::start(&[&args[0], &args[1]]).ended(PATIENCE);
        let log = log.join("\n");
        assert_eq!(status.code(), Some(1), "{log}");
        for word in words {
            assert!(log.contains(word), "{word:?} is not in: {log}");
        }
        assert!(!log.contains("PRIVATE"), "{log}");
    }
    for args in [[format!("--tls-cert={cert}")], [format!("--tls-key={key}")]] {
        let (log, status) = Process::start(&[&args[0]]).ended(PATIENCE);
        assert_eq!(status.code(), Some(64), "{log:?}");
        assert!(log.concat().contains("tls-cert") && log.concat().contains("tls-key"), "{log:?}");
    }
}

#[test]
fn a_renewed_certificate_is_used_at_sighup_and_open_connections_go_on() {
    let first = Issued::ending_after(Duration::from_secs(3 * 24 * 3600));
    let files = Files::of("tls-renewed", &first);
    let mut process = start(&files);
    let api = process.api();
    assert!(process.line_with(&["WARN", "expires soon"]).contains("cert.pem"));
    let mut open = secured(api, &first, &[&TLS13]).unwrap();
    assert!(exchange(&mut open, ROOM).contains("201 Created"));

    let second = Issued::new();
    files.replace(&second);
    process.hangup();
    process.line_with(&["certificate and key read again"]);
    assert!(exchange(&mut open, ROOMS).contains("200 OK"), "an open connection goes on");
    let mut newer = secured(api, &second, &[&TLS13]).unwrap();
    assert!(exchange(&mut newer, ROOMS).contains("200 OK"));
    assert!(secured(api, &first, &[&TLS13]).is_err(), "the old one is no longer shown");

    // Files that are of no use change nothing.
    let ended = Issued::ended_before(Duration::from_secs(60));
    let early = Issued::beginning_after(Duration::from_secs(3600));
    for (cert, key, why) in [
        (&second.cert, &first.key, "does not belong"),
        (&"torn".to_owned(), &first.key, "no certificate"),
        (&ended.cert, &ended.key, "has expired"),
        (&early.cert, &early.key, "is not valid before"),
    ] {
        files.write("cert.pem", cert);
        files.write("key.pem", key);
        process.hangup();
        let line = process.line_with(&["ERROR", "old TLS pair stays in use", why]);
        assert!(line.contains("cert.pem"), "{line}");
        let mut newest = secured(api, &second, &[&TLS13]).unwrap();
        assert!(exchange(&mut newest, ROOMS).contains("200 OK"));
    }
    for stream in [&mut open, &mut newer] {
        assert!(exchange(stream, ROOMS).contains("200 OK"));
    }
    // Whoever writes them is done at last, and says nothing.
    let third = Issued::new();
    files.replace(&third);
    let deadline = clock() + PATIENCE;
    while secured(api, &third, &[&TLS13]).is_err() {
        assert!(clock() < deadline, "files that were of no use are not read again");
    }
}

#[test]
fn a_certificate_that_is_not_valid_yet_serves_with_an_error_in_the_log() {
    let early = Issued::beginning_after(Duration::from_secs(3600));
    let files = Files::of("tls-early", &early);
    let mut process = start(&files);
    process.line_with(&["ERROR", "is not valid yet"]);
    process.line_with(&["API open"]);
}

#[test]
fn a_certificate_that_has_expired_serves_with_an_error_in_the_log() {
    let ended = Issued::ended_before(Duration::from_secs(60));
    let files = Files::of("tls-expired", &ended);
    let mut process = start(&files);
    process.line_with(&["ERROR", "has expired"]);
    process.line_with(&["API open"]);
}

#[test]
fn sighup_without_tls_ends_nothing() {
    let mut process = Process::start(&["--shards=1"]);
    let api = process.api();
    process.hangup();
    process.line_with(&["SIGHUP", "no TLS certificate"]);
    assert_eq!(api.post("/media/room", &json!({ "roomId": "tea" })).status, 201);
}

#[test]
fn who_connects_and_does_not_shake_hands_is_given_up_while_others_are_served() {
    let issued = Issued::new();
    let files = Files::of("tls-half", &issued);
    let mut process = start(&files);
    let api = process.api();
    // Nothing, a record's first byte, a record that announces more than it brings, noise.
    let openings: [&[u8]; 4] = [&[], &[22], &[22, 3, 1, 2, 0, 1], &[22; 600]];
    let half: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = TcpStream::connect(api.0).unwrap();
            stream.write_all(openings[number % openings.len()]).unwrap();
            stream
        })
        .collect();
    let deadline = clock() + PATIENCE;
    let mut stream = secured(api, &issued, &[&TLS13]).unwrap();
    loop {
        let metrics = exchange(&mut stream, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
        if metrics.contains("\nringcast_api_connections 1\n") {
            let late = "ringcast_api_timeouts_total{over=\"handshake\"} 150\n";
            assert!(metrics.contains(late), "{metrics}");
            break;
        }
        assert!(clock() < deadline, "{metrics}");
    }
    drop(half);
}
