//! The built load test against the built server: every scenario for a second, judged by its counts.
//!
//! The server is found beside the load test, where `cargo test --workspace` puts it, and is built
//! there when it is missing. Nothing here depends on how fast the machine is: a run that is INVALID
//! because its generator was late has counted all the same.

#[cfg(test)]
mod scenarios {
    use std::io::{BufRead, BufReader};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};

    use serde_json::Value;

    /// Where cargo put both programs.
    fn programs() -> &'static Path {
        Path::new(env!("CARGO_BIN_EXE_loadtest")).parent().unwrap()
    }

    /// The server's binary.
    fn server_binary() -> PathBuf {
        let path = programs().join("ringcast");
        if !path.exists() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--locked", "--package", "ringcast", "--bin", "ringcast"]);
            build.arg("--target-dir").arg(programs().parent().unwrap());
            assert!(build.current_dir("..").status().unwrap().success());
        }
        path
    }

    /// A server on any ports of loopback; killed when dropped.
    struct Server {
        child: Child,
        url: String,
    }

    impl Server {
        fn start() -> Self {
            Self::start_with(&[])
        }

        fn start_with(more: &[String]) -> Self {
            let arguments = ["--api-listen=127.0.0.1:0", "--media-port=0", "--announce=127.0.0.1"];
            let mut child = Command::new(server_binary())
                .args(arguments)
                .args(more)
                .args(["--pin=false", "--shards=1", "--log=info"])
                .env_remove("RINGCAST_CONFIG")
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut log =
                BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
            let line = log.find(|line| line.contains("API open")).unwrap();
            let (_, rest) = line.split_once("127.0.0.1:").unwrap();
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            // A full pipe must not stop the server.
            std::thread::spawn(move || log.for_each(drop));
            Self { child, url: format!("http://127.0.0.1:{port}") }
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            // Already gone, where the server failed.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// Plays a scenario for a second, and asks that no packet was other than it should be; its
    /// results.
    fn play(name: &str, arguments: &str) -> Value {
        let (outcome, told) = try_out(name, arguments);
        for fault in ["undecryptable", "unstamped", "renumbered", "unknown_streams"] {
            assert_eq!(count(&outcome, fault), 0, "{fault}: {told}");
        }
        outcome
    }

    /// Plays a scenario for a second; its results, and what it printed.
    fn try_out(name: &str, arguments: &str) -> (Value, String) {
        let server = Server::start();
        let json = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(arguments.split(' '))
            .args(["--url", &server.url, "--server-pid", &server.child.id().to_string()])
            .args(["--duration=1", "--ramp=0.1", "--settle=0.6", "--threads=1", "--json"])
            .arg(&json)
            .output()
            .unwrap();
        let told = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(matches!(output.status.code(), Some(0 | 4)), "{told}");
        let outcome: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
        assert_eq!(outcome["arguments"]["scenario"], arguments.split(' ').next().unwrap());
        assert!(outcome["scenario_version"].as_u64().unwrap() > 0);
        (outcome, told)
    }

    fn count(outcome: &Value, name: &str) -> u64 {
        outcome["counts"][name].as_u64().unwrap()
    }

    #[test]
    fn a_livestream_of_uneven_frames_arrives_whole() {
        let line = "livestream --subscribers 5 --frame-sizes libwebrtc --bitrate 1M";
        let outcome = play("livestream", line);
        assert_eq!(count(&outcome, "expected"), 5 * count(&outcome, "offered"));
        assert_eq!(count(&outcome, "delivered"), count(&outcome, "expected"));
        assert_eq!((count(&outcome, "duplicates"), count(&outcome, "reordered")), (0, 0));
        assert_eq!(outcome["jitter_us"]["count"], 5);
        assert!(count(&outcome, "frames") > 0 && outcome["picture"]["layers_percent"].is_null());
    }

    #[test]
    fn in_a_churn_transports_join_receive_and_leave() {
        let outcome = play("churn", "churn --subscribers 2 --joins-per-s 20 --stay 1");
        let [begun, done, failed] =
            ["joins_begun", "joins_done", "joins_failed"].map(|name| count(&outcome, name));
        assert!(begun.abs_diff(20) <= 1, "{begun}");
        let unstarted = count(&outcome, "joins_unstarted");
        assert!(done > 0, "{failed} of {begun} failed");
        assert_eq!(done + failed + unstarted, begun, "{done} {failed} {unstarted}");
        assert!(count(&outcome, "leaves") > 0);
        let stages: Vec<_> = outcome["join"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stage| stage["stage"].clone())
            .collect();
        let all = ["transport", "connect", "consume", "ice", "dtls", "first_packet", "join"];
        assert_eq!(stages, all);
    }

    #[test]
    fn joins_that_come_faster_than_they_can_be_begun_are_all_due_and_make_the_run_invalid() {
        let line = "churn --subscribers 1 --joins-per-s 5000 --joiners 1 --stay 0.2";
        let (outcome, _) = try_out("backlog", line);
        let begun = count(&outcome, "joins_begun");
        assert!(begun.abs_diff(5_000) <= 1, "{begun}");
        assert!(count(&outcome, "joins_unstarted") > 0);
        let reasons = outcome["invalid_because"].as_array().unwrap();
        let told = |reason: &Value| reason.as_str().unwrap().contains("more --joiners");
        assert!(reasons.iter().any(told), "{reasons:?}");
    }

    #[test]
    fn over_lossy_networks_repair_brings_back_what_was_lost_both_ways() {
        let line = "lossy --subscribers 3 --pps 500 --loss-up 3% --loss-down 5% --loss-burst 2";
        let outcome = play("lossy", line);
        let [up, down] = ["lost_up", "lost_down"].map(|name| count(&outcome, name));
        // A packet held back for long enough arrives behind its own repair: duplicates are right.
        assert!(up > 0 && down > 0);
        assert!(count(&outcome, "nacked") > 0 && count(&outcome, "resent") > 0);
        assert!(count(&outcome, "asked") > 0 && count(&outcome, "repaired") > 0);
        assert!(count(&outcome, "repairs") >= count(&outcome, "repaired"));
        let missing = count(&outcome, "expected") - count(&outcome, "delivered");
        assert!(missing < down, "{missing} of {down} lost on the way down are still missing");
    }

    #[test]
    fn of_three_encodings_each_receiver_sees_which_it_gets() {
        let outcome = play("simulcast", "simulcast --subscribers 2");
        let layers: u64 =
            ["layer_0", "layer_1", "layer_2"].map(|name| count(&outcome, name)).iter().sum();
        assert_eq!(layers, count(&outcome, "delivered"));
        assert_eq!(count(&outcome, "silent_streams"), 0);
        assert!(count(&outcome, "frames") > 0 && outcome["picture"]["switches"].is_u64());
    }

    #[test]
    fn a_server_that_is_killed_in_the_window_is_said_to_have_ended() {
        let mut server = Server::start();
        let json = Path::new(env!("CARGO_TARGET_TMPDIR")).join("killed.json");
        let mut run = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(["livestream", "--subscribers=4", "--progress", "--threads=1", "--ramp=0.1"])
            .args(["--duration=4", "--url", &server.url])
            .args(["--server-pid", &server.child.id().to_string(), "--json"])
            .arg(&json)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut shown = BufReader::new(run.stderr.take().unwrap()).lines().map_while(Result::ok);
        shown.find(|line| line.contains("packets/s")).unwrap();
        server.child.kill().unwrap();
        std::thread::spawn(move || shown.for_each(drop));
        let output = run.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{told}");
        let outcome: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
        assert_eq!(outcome["server_ended"], "the server's process ended");
        for reason in outcome["invalid_because"].as_array().unwrap() {
            assert!(!reason.as_str().unwrap().contains("sent"), "{reason}");
        }
        assert_eq!(count(&outcome, "stopped_streams"), 4);
        assert!(count(&outcome, "freezes") >= 4);
        assert!(count(&outcome, "expected") > count(&outcome, "delivered"));
    }

    #[test]
    fn over_https_the_certificate_must_be_trusted_or_nobody_asks_for_it() {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let files = ["cert", "key"].map(|name| directory.join(format!("https-{name}.pem")));
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        for (path, pem) in files.iter().zip([made.cert.pem(), made.signing_key.serialize_pem()]) {
            std::fs::write(path, pem).unwrap();
        }
        let [cert, key] = files.map(|path| path.display().to_string());
        let server =
            Server::start_with(&[format!("--tls-cert={cert}"), format!("--tls-key={key}")]);
        let url = server.url.replace("http://", "https://");
        let play = |trust: &str| {
            let mut run = Command::new(env!("CARGO_BIN_EXE_loadtest"));
            run.args(["idle", "--transports=2", "--duration=1", "--ramp=0", "--settle=0"]);
            run.args(["--url", &url, trust]).output().unwrap()
        };
        for trust in [format!("--ca={cert}"), "--insecure".to_owned()] {
            let output = play(&trust);
            assert_eq!(output.status.code(), Some(0), "{trust}: {output:?}");
        }
        let refused = play("--no-progress");
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("certificate"), "{refused:?}");
    }

    #[test]
    fn idle_transports_connect_and_stay_without_a_packet() {
        let outcome = play("idle", "idle --transports 40");
        assert_eq!(outcome["idle"]["transports"], 40);
        assert_eq!((count(&outcome, "expected"), count(&outcome, "delivered")), (0, 0));
        assert_eq!(outcome["invalid_because"], serde_json::json!([]));
    }

    #[test]
    fn a_soak_is_a_lossy_meeting_with_joins_and_tells_growth() {
        let outcome = play("soak", "soak --publishers 2 --joins-per-s 5 --stay 0.5");
        assert!(count(&outcome, "delivered") > 0 && count(&outcome, "joins_begun") > 0);
        for who in ["server_growth", "generator_growth"] {
            assert!(outcome[who]["resident_bytes_per_hour"].is_f64(), "{who}");
            assert!(outcome[who]["descriptors"][0].as_f64().unwrap() > 0.0, "{who}");
        }
    }
}
