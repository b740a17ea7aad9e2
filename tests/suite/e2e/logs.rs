//! What an operator reads: one line for each thing that happens to a peer, in both forms.

use serde_json::Value;

use super::call::Call;
use super::servers::Process;

/// Events of a peer's life in order: message, and what its line must hold.
const LIFE: [(&str, &[&str]); 6] = [
    ("room created", &["logged"]),
    ("peer joined", &["alice"]),
    ("peer produces", &["alice", "audio"]),
    ("peer consumes", &["bob", "alice"]),
    ("transport connected", &["127.0.0.1:", "udp", "AES"]),
    ("peer left", &["alice"]),
];

fn live(process: &mut Process) {
    let mut call = Call::pair(process.api(), "logged");
    call.all_media_arrives(5);
    call.leave("alice");
    call.leave("bob");
    process.line_with(&["room closed"]);
}

#[test]
fn each_step_of_a_peers_life_is_one_line_of_text() {
    let mut process = Process::start(&["--shards=1"]);
    live(&mut process);
    for (message, words) in LIFE {
        process.line_with(&[&[message], words].concat());
    }
    process.terminate();
    let (log, _) = process.ended(super::servers::PATIENCE);
    for (message, times) in [
        ("room created", 1),
        ("peer joined", 2),
        ("peer produces", 1),
        ("peer consumes", 1),
        ("transport connected", 2),
        ("peer left", 2),
        ("room closed", 1),
    ] {
        let lines = log.iter().filter(|line| line.contains(message)).count();
        assert_eq!(lines, times, "{message}: {log:#?}");
    }
    assert!(!log.iter().any(|line| line.contains('\u{1b}')), "no colours in a file: {log:#?}");
}

#[test]
fn each_line_of_the_json_log_is_an_object_with_the_same_names() {
    let mut process = Process::start(&["--shards=1", "--log-format=json"]);
    live(&mut process);
    for (message, words) in LIFE {
        let line = process.line_with(&[&[message], words].concat());
        let entry: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(entry["message"], message);
        assert_eq!(entry["room.id"], "logged", "{line}");
        assert_eq!(entry["shard.id"].to_string().trim_matches('"'), "0", "{line}");
        assert!(entry["timestamp"].is_string() && entry["level"] == "INFO", "{line}");
    }
    process.terminate();
    let (log, _) = process.ended(super::servers::PATIENCE);
    for line in &log {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()), "{line}");
    }
}
