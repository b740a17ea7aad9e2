//! A server with keys, over real sockets: strangers, keys, tokens, and what its log tells of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::secure::{Files, now};
use super::servers::{PATIENCE, Process, clock};

const SECRET: &str = "a-secret-of-the-backend-0123456789";

fn token(key: &str, claims: &Value) -> String {
    let header = Header { kid: Some(key.to_owned()), ..Header::new(Algorithm::HS256) };
    encode(&header, claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

fn alice(exp: u64) -> Value {
    json!({ "sub": "alice", "room": "tea", "exp": exp, "join": true, "publish": true })
}

/// Status and text of a request with these header lines.
fn ask(api: SocketAddr, request: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(api).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {text}")), text)
}

#[test]
fn who_has_a_key_or_a_token_is_let_in_and_no_log_shows_either() {
    let file = std::env::temp_dir().join(format!("ringcast-strangers-{}", std::process::id()));
    std::fs::write(&file, format!("# of the backend\nbackend:{SECRET}\n")).unwrap();
    let flag = format!("--api-keys-file={}", file.display());
    let mut process = Process::start(&["--shards=1", "--log=trace", "--drain-timeout=0", &flag]);
    let api = process.api().0;
    std::fs::remove_file(&file).unwrap();

    let room = r#"{"roomId":"tea","initiatorId":"alice"}"#;
    let bearer = |text: &str| format!("authorization: Bearer {text}\r\n");
    let later = now().as_secs() + 900;
    let good = token("backend", &alice(later));
    let expired = token("backend", &alice(1_000_000_000));
    let foreign = token("stranger", &alice(later));
    for (headers, status) in [
        (String::new(), 401),
        (bearer("x"), 401),
        (bearer(&format!("{SECRET}x")), 401),
        (bearer(&expired), 401),
        (bearer(&foreign), 401),
        (bearer(SECRET), 201),
        (bearer(&good), 201),
    ] {
        let (answered, text) = ask(api, "POST /media/room", &headers, room);
        assert_eq!(answered, status, "{headers}: {text}");
        assert_eq!(status == 401, text.contains("www-authenticate: Bearer"), "{text}");
    }
    let words = ["token", "--room=tea", "--peer=bob", "--subscribe", "--ttl=15m"];
    let keys = format!("other:{SECRET}-,backend:{SECRET}");
    let made = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
        command.args(words).args(more).env("RINGCAST_API_KEYS", &keys).output().unwrap()
    };
    let which = made(&[]);
    let said = String::from_utf8(which.stderr).unwrap();
    assert_eq!(which.status.code(), Some(64), "{said}");
    assert!(said.contains("--key must say which: other, backend"), "{said}");
    let made = made(&["--key=backend"]);
    let made = String::from_utf8(made.stdout).unwrap();
    let bobs = made.strip_suffix('\n').unwrap();
    let join = r#"{"peerId":"bob","direction":"recv"}"#;
    let (status, text) = ask(api, "POST /media/transport/tea", &bearer(bobs), join);
    assert_eq!(status, 201, "{text}");
    let (status, text) = ask(api, "POST /media/producer", &bearer(bobs), "{}");
    assert!(status == 403 && text.contains("`publish`"), "{text}");

    let (status, text) = ask(api, "GET /media/rooms", &bearer(&good), "");
    assert_eq!(status, 403, "{text}");
    let join = r#"{"peerId":"alice","direction":"send"}"#;
    let (status, _) = ask(api, "POST /media/transport/tea", &bearer(&good), join);
    assert_eq!(status, 201);
    let mut reader = TcpStream::connect(api).unwrap();
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    let query =
        format!("GET /media/room/tea/events?access_token={good} HTTP/1.1\r\nhost: x\r\n\r\n");
    reader.write_all(query.as_bytes()).unwrap();
    let mut first = [0; 12];
    reader.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    process.terminate();
    let (log, status) = process.ended(PATIENCE);
    assert_eq!(status.code(), Some(0), "{log:#?}");
    for line in &log {
        let shown = [SECRET, &good, &expired, &foreign].iter().any(|text| line.contains(*text));
        assert!(!shown, "{line}");
    }
}

#[test]
fn a_public_address_needs_keys_or_a_word() {
    let run =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_ringcast")).args(args).output().unwrap();
    let refused = run(&["--api-listen=0.0.0.0:0", "--media-port=0"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(64), "{said}");
    assert!(said.contains("--api-keys-file") && said.contains("--allow-anonymous"), "{said}");
    let weak = run(&["--api-keys=backend:sesame"]);
    let said = String::from_utf8(weak.stderr).unwrap();
    assert_eq!(weak.status.code(), Some(64), "{said}");
    assert!(said.contains("32 to 256 characters") && !said.contains("sesame"), "{said}");
}

#[test]
fn keys_change_at_sighup_and_a_file_of_no_use_changes_nothing() {
    let files = Files::new("keys-renewed");
    let [old, new] = ["o", "n"].map(|letter| letter.repeat(32));
    let path = files.write("keys", &format!("backend:{old}\n"));
    let mut process = Process::start(&["--shards=1", &format!("--api-keys-file={path}")]);
    let api = process.api().0;
    let status = |secret: &str| {
        let bearer = format!("authorization: Bearer {secret}\r\n");
        ask(api, "GET /media/rooms", &bearer, "").0
    };
    assert_eq!((status(&old), status(&new)), (200, 401));
    files.write("keys", &format!("backend:{new}\nmore:{}\n", "m".repeat(32)));
    process.hangup();
    process.line_with(&["API keys read again", "backend, more"]);
    assert_eq!((status(&old), status(&new)), (401, 200));
    for (text, why) in [("# none", "no key"), ("backend:short", "line 1")] {
        files.write("keys", text);
        process.hangup();
        process.line_with(&["ERROR", "old API keys stay in use", why]);
        assert_eq!((status(&old), status(&new)), (401, 200));
    }
    // Whoever writes the file is done at last, and says nothing.
    files.write("keys", &format!("backend:{old}\n"));
    let deadline = clock() + PATIENCE;
    while status(&old) != 200 {
        assert!(clock() < deadline, "a file that was of no use is not read again");
    }
    let (log, _) = {
        process.interrupt();
        process.ended(PATIENCE)
    };
    assert!(!log.join("\n").contains(&old) && !log.join("\n").contains(&new), "{log:#?}");
}

#[test]
fn turn_servers_change_at_sighup_and_a_file_of_no_use_changes_nothing() {
    let files = Files::new("turn-renewed");
    let turn =
        |secret: &str| format!(r#"[{{"urls":"turn:{secret}.example","secret":"{secret}"}}]"#);
    let path = files.write("ice", &turn("winter"));
    let mut process = Process::start(&[
        "--shards=1",
        "--ice-servers=stun:stun.example",
        &format!("--ice-servers-file={path}"),
    ]);
    let api = process.api();
    let told = || -> Vec<Value> {
        let body = json!({ "peerId": "alice", "direction": "send" });
        let data = api.post("/media/transport/tea", &body).data();
        data["iceServers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|server| server["urls"][0].clone())
            .collect()
    };
    api.post("/media/room", &json!({ "roomId": "tea" }));
    let of = |turn: &str| vec![json!("stun:stun.example"), json!(turn)];
    assert_eq!(told(), of("turn:winter.example"));
    files.write("ice", &turn("summer"));
    process.hangup();
    process.line_with(&["STUN and TURN servers read again", "servers=2"]);
    assert_eq!(told(), of("turn:summer.example"));
    files.write("ice", r#"[{"urls":"turn:t","secret":"autumn""#);
    process.hangup();
    process.line_with(&["ERROR", "old STUN and TURN servers stay in use", "line 1"]);
    assert_eq!(told(), of("turn:summer.example"));
    process.interrupt();
    let log = process.ended(PATIENCE).0.join("\n");
    assert!(["winter", "summer", "autumn"].iter().all(|secret| !log.contains(secret)), "{log}");
}

#[test]
fn keys_in_the_clear_on_a_public_address_are_warned_of() {
    let keys = format!("--api-keys=backend:{}", "k".repeat(32));
    let mut process = Process::start(&["--api-listen=0.0.0.0:0", &keys, "--shards=1"]);
    process.line_with(&["WARN", "without TLS", "--tls-cert"]);
    let mut process = Process::start(&[&keys, "--shards=1"]);
    process.line_with(&["API open"]);
    process.interrupt();
    let (log, _) = process.ended(PATIENCE);
    assert!(!log.join("\n").contains("without TLS"), "{log:#?}");
}
