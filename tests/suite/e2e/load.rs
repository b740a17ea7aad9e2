//! The load test against a server: it joins, measures, searches, writes and compares.
//!
//! What it measured is not judged here: this machine may be too busy for valid numbers.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

use super::servers::{Hosted, PATIENCE, clock};

/// The built load test: a package of its own, so that cargo is asked to build it. It is asked as for the
/// tests of the whole workspace, which have built it so: alone it would have fewer features of its
/// dependencies, and they would be built again.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let build = Command::new(env!("CARGO"))
            .args(["test", "--locked", "--workspace", "--no-run", "--test", "scenarios"])
            .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
            .args(["--message-format", "json-render-diagnostics"])
            .output()
            .unwrap();
        assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
        let text = String::from_utf8(build.stdout).unwrap();
        let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut executables = messages
            .filter(|message| message["target"]["name"] == "loadtest")
            .filter_map(|message| message["executable"].as_str().map(PathBuf::from));
        executables.next_back().expect("cargo names what it built")
    })
}

fn play(server: &Hosted, files: &Path, arguments: &str) -> (Output, Value, String) {
    let url = format!("http://{}", server.api.0);
    let (json, html) = (files.join("result.json"), files.join("result.html"));
    let output = Command::new(built())
        .args(arguments.split(' '))
        .args(["--url", &url, "--ramp", "0", "--settle", "0.1", "--threads", "1"])
        .args(["--server-pid", &std::process::id().to_string()])
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = std::fs::read_to_string(json).unwrap_or_else(|error| panic!("{error}: {shown}"));
    (output, serde_json::from_str(&text).unwrap(), std::fs::read_to_string(html).unwrap())
}

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ringcast-load-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn the_load_test_measures_a_server_and_compares_what_it_wrote() {
    let (server, files) = (Hosted::start(&["--shards=1"]), folder("run"));
    let arguments = "livestream --subscribers 3 --pps 50 --duration 2 --progress";
    let (output, result, page) = play(&server, &files, arguments);
    let status = output.status.code().unwrap();
    assert_eq!(status, if result["valid"] == true { 0 } else { 4 }, "{result:#}");
    assert_eq!((&result["kind"], &result["subscriptions"]), (&"run".into(), &3.into()));
    assert!(result["counts"]["delivered"].as_u64().unwrap() > 0);
    assert_eq!(result["series"].as_array().unwrap().len(), 2);
    assert!(result["server_says"]["datagrams_out"].is_u64(), "{result:#}");
    assert!(page.contains("<svg ") && page.ends_with("</html>\n"));
    let progress = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(progress.contains("3/3 streams") && progress.contains("packets/s"), "{progress}");
    let file = files.join("result.json");
    let compared = Command::new(built()).arg("compare").args([&file, &file]).output().unwrap();
    assert_eq!(compared.status.code(), Some(status), "equal to itself, or INVALID");
    server.stop();
    std::fs::remove_dir_all(files).unwrap();
}

#[test]
fn the_load_test_calls_with_a_key() {
    let key = "a-secret-of-the-backend-0123456789";
    let keys = format!("--api-keys=backend:{key}");
    let (server, files) = (Hosted::start(&["--shards=1", &keys]), folder("key"));
    let arguments = format!("livestream --subscribers 2 --pps 50 --duration 1 --token {key}");
    let (_, result, page) = play(&server, &files, &arguments);
    assert!(result["counts"]["delivered"].as_u64().unwrap() > 0, "{result:#}");
    assert!(result["server_says"]["datagrams_out"].is_u64(), "metrics too: {result:#}");
    assert!(!result.to_string().contains(key) && !page.contains(key));
    server.stop();
    std::fs::remove_dir_all(files).unwrap();
}

#[test]
fn the_load_test_searches_a_limit_in_the_same_rooms() {
    let (server, files) = (Hosted::start(&["--shards=1"]), folder("limit"));
    // A limit that no machine is too slow or too fast for: the rate itself.
    let arguments = "livestream --subscribers 2 --pps 40 --burst 1 --duration 1 --find-limit \
                     --limit delivered<=100pps";
    let (output, result, page) = play(&server, &files, arguments);
    assert_eq!(result["kind"], "limit");
    let steps = result["steps"].as_array().unwrap();
    let asked: Vec<f64> = steps.iter().map(|s| s["expected_pps"].as_f64().unwrap()).collect();
    // 80 packets per second at first, then half as much again.
    assert!((asked[0] - 80.0).abs() <= 4.0 && (asked[1] - 120.0).abs() <= 4.0, "{asked:?}");
    assert!(steps.iter().any(|step| step["holds"] == false), "{result:#}");
    assert!(page.contains("Latency against rate"));
    assert!([Some(0), Some(1)].contains(&output.status.code()), "{result:#}");
    server.stop();
    std::fs::remove_dir_all(files).unwrap();
}

/// What `loadtest hostile` says of a server, or of two: of its one pair, when its exit status and
/// strangers are as they should be.
fn play_hostile(server: &Hosted, files: &Path, more: &[&str]) -> (Value, String) {
    let json = files.join("result.json");
    let arguments = "hostile livestream --subscribers 2 --pps 50 --duration 1 --ramp 0 --settle 0.1 \
                     --threads 1 --pairs 1 --readers 30 --half-open 20 --calls-per-s 50";
    let output = Command::new(built())
        .args(arguments.split_whitespace())
        .args(["--url", &format!("http://{}", server.api.0), "--json"])
        .arg(&json)
        .args(more)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = std::fs::read_to_string(json)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let result: Value = serde_json::from_str(&text).unwrap();
    let [pair] = result["pairs"].as_array().unwrap().as_slice() else { panic!("{result:#}") };
    assert!(pair["without"]["strangers"].is_null(), "{result:#}");
    let strangers = &pair["with"]["strangers"];
    // Cut off before it had to be, or refused: no stranger of these does enough wrong.
    assert_eq!((&strangers["readers_cut"], &strangers["refused"]), (&0.into(), &0.into()));
    assert!(strangers["scrapes"].as_u64().unwrap() > 0, "{result:#}");
    for half in ["without", "with"] {
        assert!(pair[half]["calls"].as_u64().unwrap() > 0, "{result:#}");
        assert_eq!(pair[half]["calls_failed"], 0, "{result:#}");
        assert!(pair[half]["latency_p99_us"].as_f64().unwrap() > 0.0, "{result:#}");
    }
    let expected = match (result["valid"] == true, result["harms"].as_array().unwrap().is_empty()) {
        (false, _) => 4,
        (true, harmless) => i32::from(!harmless),
    };
    assert_eq!(output.status.code(), Some(expected), "{told}");
    (result, told)
}

/// Waits until the strangers are gone.
fn is_left_by_strangers(server: &Hosted) {
    let deadline = clock() + PATIENCE;
    while server.api.metric("event_readers") > 0.0 {
        assert!(clock() < deadline, "the strangers are still there");
    }
}

#[test]
fn the_load_test_compares_a_server_without_and_with_strangers_before_it() {
    let (server, files) = (Hosted::start(&["--shards=1"]), folder("hostile"));
    let (result, told) = play_hostile(&server, &files, &[]);
    assert_eq!((&result["kind"], &result["strangers"]["readers"]), (&"hostile".into(), &30.into()));
    assert!(told.contains("30 readers of events that never read"), "{told}");
    is_left_by_strangers(&server);
    server.stop();
    std::fs::remove_dir_all(files).unwrap();
}

#[test]
fn strangers_before_a_server_whose_kafka_and_webhook_never_answer_fail_no_call() {
    let (server, files) = (Hosted::start(&["--shards=1"]), folder("outlets"));
    // The kernel takes connections for them, and nobody ever says a word.
    let [kafka, webhook] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let brokers = format!("--kafka-brokers={}", kafka.local_addr().unwrap());
    let url = format!("--webhook-url=http://{}/", webhook.local_addr().unwrap());
    let ailing = Hosted::start(&[
        "--shards=1",
        &brokers,
        "--kafka-room-events-topic=rooms",
        &url,
        "--webhook-secret=sesame",
    ]);
    let elsewhere = format!("http://{}", ailing.api.0);
    play_hostile(&server, &files, &["--hostile-url", &elsewhere]);
    is_left_by_strangers(&ailing);
    for outlet in ["kafka", "webhook"] {
        let count = |name: &str| ailing.api.metric(&format!("{outlet}_{name}"));
        assert!(count("accepted_total") > 0.0 && count("waiting") > 0.0, "{outlet}");
        for none in ["up", "delivered_total", "refused_total", "lost_total"] {
            assert!(count(none) == 0.0, "{outlet}_{none} is {}", count(none));
        }
    }
    server.stop();
    ailing.stop();
    std::fs::remove_dir_all(files).unwrap();
}

#[test]
fn what_is_passed_wrongly_is_named() {
    let run = |arguments: &str| {
        let output = Command::new(built()).args(arguments.split(' ')).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (arguments, flag) in [
        ("livestream --slo p98<=1ms", "--slo"),
        ("livestream --find-limit --limit loss<=1ms", "--limit"),
        ("livestream --limit loss<=1%", "--find-limit"),
        ("livestream --progress --no-progress", "--no-progress"),
        ("livestream --duration x", "--duration"),
        ("compare a b --tolerance 5", "--tolerance"),
        ("hostile livestream --find-limit", "--find-limit"),
        ("hostile livestream --tolerance x", "--tolerance"),
    ] {
        let (status, said) = run(arguments);
        assert!(status == Some(2) && said.contains(flag), "{arguments}: {status:?} {said}");
    }
    let (status, said) = run("livestream --server-pid 4294967295");
    assert!(status == Some(3) && said.contains("--server-pid"), "{said}");
}
