//! The built binary: how it starts, what it refuses, how it ends.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::thread::{CapabilitySet, capabilities, remove_capability_from_bounding_set};

use ringcast::limits::API_HEAD_TIMEOUT;
use serde_json::json;

use super::call::Call;
use super::servers::{Hosted, PATIENCE, Process, clock, quiet_port};
use super::stock::Net;
use crate::outlets::calls::Folder;
use crate::outlets::receiver::{Receiver, SECRET};

/// More than a busy machine needs; clients that would hold up the end are given up after it anyway.
const IN_TIME: Duration = API_HEAD_TIMEOUT.saturating_sub(Duration::from_secs(1));

#[test]
fn a_second_sigterm_in_a_call_ends_the_process_in_time_and_its_ports_are_free_at_once() {
    // Nobody else is given them meanwhile.
    let listen = format!("--api-listen=127.0.0.1:{}", quiet_port());
    let media_port = format!("--media-port={}", quiet_port());
    let mut process = Process::start(&["--shards=2", &listen, &media_port]);
    let mut call = Call::full(process.api(), "last", 2, &[Net::Udp4]);
    call.all_media_arrives(5);
    let (api, media) = (process.api(), process.media_port());
    process.terminate();
    process.line_with(&["draining"]);
    process.terminate();
    let (log, status) = process.ended(IN_TIME);
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("stopping signal=\"SIGTERM\"")), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains("ERROR")), "{log:#?}");
    let mut heir = Process::start(&[&listen, &media_port]);
    assert_eq!((heir.api().0, heir.media_port()), (api.0, media));
    Call::pair(api, "first").all_media_arrives(5);
}

#[test]
fn open_connections_to_the_api_do_not_hold_up_the_end() {
    let mut process = Process::start(&[]);
    let api = process.api();
    let call = Call::new(api, "watched");
    let open = |request: &str| {
        let mut stream = TcpStream::connect(api.0).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let mut reader =
        open(&format!("GET /media/room/{}/events HTTP/1.1\r\nhost: x\r\n\r\n", call.room));
    let mut kept = open("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    for stream in [&mut reader, &mut kept] {
        assert!(stream.read(&mut [0; 64]).unwrap() > 0, "answered, and open");
    }
    let silent = open("");
    let half_a_head = open("POST /media/room HTTP/1.1\r\nhost");
    let half_a_body = open("POST /media/room HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{");
    process.interrupt();
    let (log, status) = process.ended(IN_TIME);
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("stopping signal=\"SIGINT\"")), "{log:#?}");
    drop((silent, half_a_head, half_a_body));
}

#[test]
fn a_port_in_use_is_told_with_its_number_and_what_it_is_for() {
    let first = Hosted::start(&["--shards=1"]);
    let media = format!("--media-port={}", first.media.port());
    let api = format!("--api-listen={}", first.api.0);
    for (taken, port, what) in
        [(&media, first.media.port(), "for media"), (&api, first.api.0.port(), "for the API")]
    {
        let (log, status) = Process::start(&[taken]).ended(PATIENCE);
        assert_eq!(status.code(), Some(1), "{log:#?}");
        let text = log.join("\n");
        for word in [&format!(":{port}"), what, "in use", "cannot listen"] {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    }
    first.stop();
}

#[test]
fn wrong_usage_is_told_in_a_sentence_and_with_its_own_exit_code() {
    for (args, words) in [
        (&["--shards=0"][..], &["--shards", "1 to 1024"][..]),
        (&["--media-port=99999"], &["--media-port", "0 to 65535"]),
        (&["--api-listen=0.0.0.0:0"], &["--allow-anonymous"]),
        (&["--media-udp=false", "--media-tcp=false"], &["--media-udp", "--media-tcp"]),
        (&["--annouce=1.2.3.4"], &["--annouce", "--announce"]),
        (&["--log-format=xml"], &["--log-format", "json"]),
        (&["--config=/nowhere.json"], &["/nowhere.json"]),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
        let (log, status) = Process::spawn(command.args(args)).ended(PATIENCE);
        assert_eq!(status.code(), Some(64), "{args:?}: {log:#?}");
        let text = log.join("\n");
        assert!(text.starts_with("ringcast: "), "{text}");
        assert!(!text.contains("error: "), "said twice: {text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    }
}

#[test]
fn help_and_version_are_answers_and_not_errors() {
    for (flag, words) in [
        ("--help", &["--media-port", "RINGCAST_MEDIA_PORT", "MEDIASOUP_ANNOUNCED_IP"][..]),
        ("--version", &[env!("CARGO_PKG_VERSION")]),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringcast")).arg(flag).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure_and_no_panic() {
    let full = std::fs::File::create("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
    let output = command.arg("--help").stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0));
}

#[test]
fn a_log_that_cannot_be_written_harms_no_call_and_no_end() {
    let mut process = Process::start(&[]);
    let api = process.api();
    let room = |name: &str| api.post("/media/room", &json!({ "roomId": name })).status;
    process.lose_log_reader(|| assert_eq!(room("told"), 201));
    assert_eq!(room("untold"), 201);
    Call::pair(api, "unseen").all_media_arrives(5);
    process.interrupt();
    let (_, status) = process.ended(IN_TIME);
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_on_stops_no_call_and_no_end() {
    let mut process = Process::start(&["--log=debug"]);
    let api = process.api();
    let room = |name: &str| api.post("/media/room", &json!({ "roomId": name })).status;
    process.leave_log_unread(|| assert_eq!(room("read"), 201));
    // More lines than a pipe holds, which are 64 KiB.
    for number in 0..1500 {
        assert_eq!(room(&number.to_string()), 201);
    }
    Call::pair(api, "unread").all_media_arrives(5);
    process.interrupt();
    let (_, status) = process.ended(IN_TIME);
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_environment_configures_the_server_as_it_did_the_replaced_one() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
    command
        .envs([
            ("RINGCAST_API_LISTEN", "127.0.0.1:0"),
            ("RINGCAST_MEDIA_PORT", "0"),
            ("MEDIASOUP_ANNOUNCED_IP", "127.0.0.1"),
            ("MEDIASOUP_NUM_WORKERS", "3"),
            ("MEDIASOUP_RTC_MAX_PORT", "10100"),
        ])
        .env_remove("RINGCAST_SHARDS");
    let mut process = Process::spawn(&mut command);
    assert!(process.line_with(&["MEDIASOUP_RTC_MAX_PORT"]).contains("no effect"));
    assert!(process.line_with(&["media port open"]).contains("shards=3"));
    Call::pair(process.api(), "env").all_media_arrives(5);
}

#[test]
fn little_locked_memory_means_plain_threads_and_the_same_call() {
    let script = "ulimit -l 64; exec \"$0\" --api-listen=127.0.0.1:0 --media-port=0 \
                  --announce=127.0.0.1 --shards=2 \"$@\"";
    let start = |extra: &[&str]| {
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", script, env!("CARGO_BIN_EXE_ringcast")]);
        Process::spawn(shell.args(extra))
    };
    let mut process = start(&[]);
    assert!(process.line_with(&["media port open"]).contains("on_glommio=false"));
    Call::pair(process.api(), "plain").all_media_arrives(5);
    let (log, status) = start(&["--runtime=glommio"]).ended(PATIENCE);
    assert_eq!(status.code(), Some(1), "{log:#?}");
    assert!(log.join("\n").contains("--runtime auto"), "{log:#?}");
}

/// Starts the server from a thread whose children cannot have `CAP_BPF`.
fn without_bpf(args: &'static [&'static str]) -> Process {
    let start = move || {
        if capabilities(None).unwrap().effective.contains(CapabilitySet::SETPCAP) {
            for capability in [CapabilitySet::BPF, CapabilitySet::SYS_ADMIN] {
                remove_capability_from_bounding_set(capability).unwrap();
            }
        }
        Process::start(args)
    };
    std::thread::spawn(start).join().unwrap()
}

#[test]
fn without_bpf_the_log_says_so_and_the_call_is_the_same() {
    let mut process = without_bpf(&["--shards=3"]);
    assert!(process.line_with(&["not steered by the kernel"]).contains("refuses BPF maps"));
    assert!(process.line_with(&["media port open"]).contains("steering=false"));
    let mut call = Call::full(process.api(), "alone", 4, &[Net::Udp4, Net::Udp6]);
    call.all_media_arrives(20);
    call.until("the shards report", |call| call.api.metric("shard_steering") == 0.0);
    let status = call.api.get("/admin/status").data();
    assert_eq!(status["shards"][2]["steering"], false);

    let mut off = Process::start(&["--shards=3", "--steer=off"]);
    assert!(off.line_with(&["media port open"]).contains("steering=false"));
}

#[test]
fn what_a_killed_process_could_not_deliver_its_successor_does() {
    let folder = Folder::new("killed");
    let spool = format!("--spool-dir={}", folder.path().display());
    let secret = format!("--webhook-secret={SECRET}");
    let gone = format!("--webhook-url=http://127.0.0.1:{}/hook?token=1", quiet_port());
    let mut process = Process::start(&["--shards=1", &spool, &secret, &gone]);
    let api = process.api();
    let rooms: BTreeSet<String> = (0..5).map(|number| format!("room-{number}")).collect();
    for room in &rooms {
        assert_eq!(api.post("/media/room", &json!({ "roomId": room })).status, 201);
    }
    let end = clock() + PATIENCE;
    let is_kept = |room: &String| {
        let files = std::fs::read_dir(folder.path().join("webhook")).unwrap();
        let texts = files.filter_map(|file| std::fs::read(file.ok()?.path()).ok());
        texts.into_iter().any(|text| String::from_utf8_lossy(&text).contains(room.as_str()))
    };
    while !rooms.iter().all(is_kept) {
        assert!(clock() < end, "what waits does not come to the disk");
        std::thread::yield_now();
    }
    // SIGKILL.
    drop(process);
    let receiver = Receiver::start();
    let url = format!("--webhook-url={}", receiver.url());
    let heir = Process::start(&["--shards=1", &spool, &secret, &url]);
    let mut told = Vec::new();
    receiver.take_different(&mut told, rooms.len());
    let told: Vec<String> = told.into_iter().map(|(room, _)| room).collect();
    assert_eq!(told, rooms.into_iter().collect::<Vec<_>>(), "each once, in order");
    drop(heir);
}
