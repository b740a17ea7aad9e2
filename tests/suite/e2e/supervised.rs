//! The built binary under a service manager, which a test plays, and the commands beside serving.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::call::Call;
use super::secure::{Files, Issued};
use super::servers::{PATIENCE, Process};

/// Datagrams to `NOTIFY_SOCKET` until one has the line.
fn hear(manager: &UnixDatagram, line: &str) -> String {
    let mut seen = Vec::new();
    loop {
        let mut bytes = [0; 1024];
        let length = manager.recv(&mut bytes).unwrap_or_else(|error| {
            panic!("no {line:?} ({error}) in {seen:#?}");
        });
        let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
        if text.lines().any(|heard| heard.starts_with(line)) {
            return text;
        }
        seen.push(text);
    }
}

#[test]
fn the_service_manager_hears_ready_when_calls_are_taken_then_status_watchdog_and_the_end() {
    let path = std::env::temp_dir().join(format!("ringcast-manager-{}", std::process::id()));
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
    command
        .args(["serve", "--api-listen=127.0.0.1:0", "--media-port=0", "--announce=127.0.0.1"])
        .args(["--shards=2", "--pin=false"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "2000000");
    let mut process = Process::spawn(&mut command);
    hear(&manager, "READY=1");
    let api = process.api();
    assert_eq!((api.get("/healthz").status, api.get("/readyz").status), (200, 200));
    hear(&manager, "STATUS=0 rooms");
    hear(&manager, "WATCHDOG=1");
    hear(&manager, "WATCHDOG=1");
    Call::pair(api, "watched").all_media_arrives(5);
    hear(&manager, "STATUS=1 rooms, 2 peers; 2 of 2 shards turn");
    process.terminate();
    hear(&manager, "EXTEND_TIMEOUT_USEC=");
    hear(&manager, "STATUS=draining: 1 rooms, 2 peers");
    process.terminate();
    let last = hear(&manager, "STOPPING=1");
    assert!(last.contains("STATUS=stopping") && last.contains("EXTEND_TIMEOUT_USEC="), "{last}");
    let (log, status) = process.ended(PATIENCE);
    assert_eq!(status.code(), Some(0), "{log:#?}");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_hangup_is_a_reload_and_health_is_asked_over_tls() {
    let path = std::env::temp_dir().join(format!("ringcast-reloads-{}", std::process::id()));
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let files = Files::of("reloads", &Issued::new());
    let [cert, key] = files.flags();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
    command
        .args(["--api-listen=127.0.0.1:0", "--media-port=0", "--announce=127.0.0.1", "--shards=1"])
        .args([&cert, &key])
        .env("NOTIFY_SOCKET", &path);
    let mut process = Process::spawn(&mut command);
    hear(&manager, "READY=1");
    let listen = format!("--api-listen={}", process.api().0);
    let asked = ringcast(&["health", &listen, &cert, &key]);
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    assert!(String::from_utf8_lossy(&asked.stdout).starts_with("https://"), "{asked:?}");
    let plain = ringcast(&["health", &listen]);
    assert_eq!(plain.status.code(), Some(1), "{plain:?}");
    process.hangup();
    assert!(hear(&manager, "RELOADING=1").contains("MONOTONIC_USEC="));
    hear(&manager, "READY=1");
    process.line_with(&["read again"]);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_service_manager_that_cannot_be_told_harms_nothing() {
    for socket in ["/nonexistent/notify", "vsock:2:1"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
        command
            .args(["--api-listen=127.0.0.1:0", "--media-port=0", "--announce=127.0.0.1"])
            .env("NOTIFY_SOCKET", socket);
        let mut process = Process::spawn(&mut command);
        let answer = process.api().post("/media/room", &json!({ "roomId": "alone" }));
        assert_eq!(answer.status, 201);
        process.terminate();
        let (log, status) = process.ended(PATIENCE);
        assert_eq!(status.code(), Some(0), "{log:#?}");
    }
}

fn ringcast(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_printed_configuration_starts_the_server_that_it_describes() {
    let printed = ringcast(&[
        "config",
        "--api-listen=127.0.0.1:0",
        "--media-port=0",
        "--announce=127.0.0.1",
        "--shards=3",
    ]);
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");
    let shown: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!((&shown["shards"], &shown["//"]["from"]["shards"]), (&json!(3), &json!("--shards")));
    let file = std::env::temp_dir().join(format!("ringcast-printed-{}.json", std::process::id()));
    std::fs::write(&file, &printed.stdout).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
    let mut process = Process::spawn(command.args(["serve", "--config"]).arg(&file));
    assert!(process.line_with(&["media port open"]).contains("shards=3"));
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_configuration_that_is_wrong_is_refused_with_the_settings_name() {
    let refused = ringcast(&["config", "--media-port=99999"]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(64), 0));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--media-port"), "{refused:?}");
}

/// What the doctor says of each check, and its exit status.
fn examined(command: &mut Command) -> (Value, Option<i32>) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (report, output.status.code())
}

/// One of its findings.
fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let mut checks = report["checks"].as_array().unwrap().iter();
    checks.find(|found| found["check"] == check).unwrap_or_else(|| panic!("{check}: {report:#}"))
}

#[test]
fn the_doctor_finds_what_is_missing_and_says_how_to_mend_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--api-listen={}", taken.local_addr().unwrap());
    let program = env!("CARGO_BIN_EXE_ringcast");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -l 64; exec \"$0\" doctor --json --media-port=0 \"$@\"", program]);
    let (report, status) = examined(shell.args([&listen, "--announce=10.0.0.7", "--shards=1"]));
    assert_eq!((status, &report["worst"]), (Some(2), &json!("fail")), "{report:#}");
    for (check, level, mend) in [
        ("io_uring", "warn", "LimitMEMLOCK"),
        ("memlock", "warn", "--ulimit memlock"),
        ("announce", "warn", "--announce"),
        ("api-port", "fail", "ss -lntp"),
    ] {
        let found = finding(&report, check);
        assert_eq!(found["level"], level, "{found:#}");
        assert!(found["mend"].as_str().unwrap().contains(mend), "{found:#}");
    }
    assert_eq!(finding(&report, "media-port")["level"], "ok");

    let mut command = Command::new(program);
    command.args(["doctor", "--json", "--api-listen=127.0.0.1:0", "--media-port=0"]);
    let (report, status) = examined(command.args(["--announce=203.0.113.7", "--shards=1"]));
    assert!(matches!(status, Some(0 | 1)), "nothing is in the way of a start: {report:#}");
    let mut lines = Command::new(program);
    lines.args(["doctor", "--api-listen=127.0.0.1:0", "--media-port=0"]);
    let lines = lines.args(["--announce=203.0.113.7", "--shards=1"]).output().unwrap();
    let lines = String::from_utf8(lines.stdout).unwrap();
    assert_eq!(lines.lines().count(), report["checks"].as_array().unwrap().len(), "{lines}");
    let levels = ["ok    ", "?     ", "warn  ", "fail  "];
    assert!(lines.lines().all(|line| levels.iter().any(|level| line.starts_with(level))));
}

#[test]
fn settings_stand_behind_their_command() {
    let refused = ringcast(&["--media-port=1", "config"]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("config"), "{refused:?}");
    let help = ringcast(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for command in ["serve", "config", "doctor", "drain", "health", "token"] {
        assert!(text.contains(&format!("\n  {command} ")), "{command} in {text}");
    }
}
