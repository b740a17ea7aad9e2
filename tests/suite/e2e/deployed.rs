//! The Dockerfile and the files under `.deploy`: they parse, what they name is there, and the server
//! lives under the seccomp profile.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ringcast::limits::BEHIND_CALLS_NICE;
use seccompiler::{BpfProgram, apply_filter, compile_from_json};
use serde_json::{Value, json};
use yaml_rust2::{Yaml, YamlLoader};

use super::call::Call;
use super::servers::{PATIENCE, Process, quiet_port};
use super::stock::Net;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Yaml {
    YamlLoader::load_from_str(&text(path)).unwrap_or_else(|e| panic!("{path}: {e}")).remove(0)
}

/// All files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn deployed() -> Vec<(String, String)> {
    let paths = files(&root().join(".deploy")).into_iter().chain([root().join("Dockerfile")]);
    paths.map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap())).collect()
}

fn ringcast(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

fn help() -> String {
    String::from_utf8(ringcast(&["--help"]).stdout).unwrap()
}

/// What follows a word in the Dockerfile, as the JSON list that it is.
fn list_after(word: &str) -> Vec<String> {
    let file = text("Dockerfile");
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    let line = lines.into_iter().find_map(|line| line.split_once(word)).expect(word).1;
    serde_json::from_str(line.trim()).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The first container of the deployment.
fn container() -> Yaml {
    let deployment = yaml(".deploy/kubernetes/deployment.yaml");
    deployment["spec"]["template"]["spec"]["containers"][0].clone()
}

#[test]
fn every_file_of_data_parses() {
    let mut parsed = 0;
    for (path, text) in deployed() {
        if path.ends_with(".json") {
            serde_json::from_str::<Value>(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
            parsed += 1;
        } else if path.ends_with(".yml") || path.ends_with(".yaml") {
            YamlLoader::load_from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
            parsed += 1;
        }
    }
    assert!(parsed > 6, "only {parsed} files");
}

#[test]
fn every_setting_that_is_named_exists() {
    let help = help();
    let mut seen = BTreeSet::new();
    for (path, text) in deployed() {
        let upper = |c: char| c.is_ascii_uppercase() || c == '_';
        for rest in text.split("RINGCAST_").skip(1) {
            let rest: String = rest.chars().take_while(|c| upper(*c)).collect();
            // `RINGCAST_…` stands for all.
            if !rest.is_empty() {
                let name = format!("RINGCAST_{rest}");
                assert!(help.contains(&name), "{path}: {name} is no setting");
                seen.insert(name);
            }
        }
    }
    assert!(seen.contains("RINGCAST_ANNOUNCE") && seen.len() > 4, "{seen:?}");
}

#[test]
fn every_command_line_is_understood() {
    let unit = text(".deploy/systemd/ringcast.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let unit: Vec<String> = start.split_whitespace().skip(1).map(str::to_owned).collect();
    let args = container()["args"].as_vec().unwrap().clone();
    let kubernetes = args.iter().map(|arg| arg.as_str().unwrap().to_owned()).collect();
    let health = list_after("HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD");
    assert_eq!(
        (health[0].as_str(), list_after("ENTRYPOINT").as_slice()),
        ("ringcast", &health[..1])
    );
    for mut line in [unit, kubernetes, health[1..].to_vec()] {
        line.push("--help".to_owned());
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let output = ringcast(&line);
        assert_eq!(output.status.code(), Some(0), "{line:?} {output:?}");
    }
}

#[test]
fn the_health_check_tells_a_server_that_is_well_from_one_that_is_gone() {
    // When it is gone, nobody else is there.
    let at = format!("--api-listen=127.0.0.1:{}", quiet_port());
    let mut process = Process::start(&["--shards=1", &at]);
    let check = list_after("CMD");
    let check: Vec<&str> = check[1..].iter().map(String::as_str).chain([at.as_str()]).collect();
    process.line_with(&["API open"]);
    // Healthy is who has told so: the shards do within a second.
    let deadline = super::servers::clock() + PATIENCE;
    while ringcast(&check).status.code() != Some(0) {
        assert!(super::servers::clock() < deadline, "{:?}", ringcast(&check));
    }
    let ready: Vec<&str> = check.iter().copied().chain(["--ready"]).collect();
    assert_eq!(ringcast(&ready).status.code(), Some(0));
    let doctor = ringcast(&["doctor", &at, "--media-port=0", "--shards=1"]);
    let says = String::from_utf8(doctor.stdout).unwrap();
    assert!(says.contains("in use by a server that answers"), "{says}");
    process.terminate();
    process.ended(PATIENCE);
    let gone = ringcast(&check);
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
    assert!(String::from_utf8_lossy(&gone.stderr).contains("refused"), "{gone:?}");
}

#[test]
fn probes_ask_for_what_the_server_answers() {
    let mut process = Process::start(&["--shards=1"]);
    let api = process.api();
    let deadline = super::servers::clock() + PATIENCE;
    while api.get("/healthz").status != 200 {
        assert!(super::servers::clock() < deadline, "it never is healthy");
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let path = container()[probe]["httpGet"]["path"].as_str().unwrap().to_owned();
        assert_eq!(api.get(&path).status, 200, "{probe} {path}");
    }
    let monitor = yaml(".deploy/kubernetes/service-monitor.yaml");
    let path = monitor["spec"]["endpoints"][0]["path"].as_str().unwrap().to_owned();
    assert_eq!(api.get(&path).status, 200);
}

/// A file with its comments from a word on made lines, as whoever needs them does.
fn uncommented(path: &str, word: &str) -> Yaml {
    let text = text(path);
    let from = text.find(&format!("# {word}")).unwrap_or_else(|| panic!("{path}: no {word}"));
    let (before, after) = text.split_at(from);
    YamlLoader::load_from_str(&(before.to_owned() + &after.replace("# ", ""))).unwrap().remove(0)
}

#[test]
fn a_server_with_keys_is_scraped_with_the_token_that_the_comments_tell_of() {
    let prometheus = uncommented(".deploy/prometheus/prometheus.yml", "authorization:");
    let job = &prometheus["scrape_configs"][0];
    assert!(job["authorization"]["credentials_file"].as_str().is_some(), "{job:?}");
    let monitor = uncommented(".deploy/kubernetes/service-monitor.yaml", "authorization:");
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert!(endpoint["authorization"]["credentials"]["key"].as_str().is_some(), "{endpoint:?}");

    let keys = format!("--api-keys=ops:{}", "k".repeat(32));
    let told = "token --api-keys-file keys --node --ttl 365d";
    for path in [".deploy/prometheus/prometheus.yml", ".deploy/kubernetes/service-monitor.yaml"] {
        assert!(text(path).contains(&format!("ringcast {told}")), "{path}");
    }
    let line = told.replace("--api-keys-file keys", &keys);
    let token = ringcast(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(token.status.code(), Some(0), "{token:?}");
    let token = String::from_utf8(token.stdout).unwrap();
    let mut process = Process::start(&["--shards=1", &keys]);
    let api = process.api();
    assert_eq!(api.get("/metrics").status, 401);
    let mut stream = TcpStream::connect(api.0).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let bearer = format!("authorization: Bearer {}\r\n", token.trim());
    let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{bearer}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\nringcast_"), "{answer}");
}

#[test]
fn ports_are_those_of_the_defaults_and_nobody_is_root() {
    let help = help();
    assert!(help.contains("[default: 127.0.0.1:6040]") && help.contains("[default: 10000]"));
    let dockerfile = text("Dockerfile");
    assert!(dockerfile.contains("\nEXPOSE 6040/tcp 10000/udp 10000/tcp\n"));
    let user = dockerfile.lines().filter_map(|line| line.strip_prefix("USER ")).next_back();
    let uid: i64 = user.unwrap().split(':').next().unwrap().parse().unwrap();
    assert!(uid > 0 && dockerfile.contains(&format!("--uid {uid} ")), "{uid}");

    let container = container();
    let security = &container["securityContext"];
    assert_eq!(security["runAsUser"].as_i64(), Some(uid));
    assert_eq!(security["runAsNonRoot"].as_bool(), Some(true));
    let ports = container["ports"].as_vec().unwrap();
    let named = |name: &str| ports.iter().find(|port| port["name"].as_str() == Some(name));
    for (name, number) in [("api", 6040), ("media-udp", 10_000), ("media-tcp", 10_000)] {
        assert_eq!(named(name).unwrap()["containerPort"].as_i64(), Some(number), "{name}");
    }
    let policy = yaml(".deploy/kubernetes/network-policy.yaml");
    assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"].as_i64(), Some(10_000));
    assert_eq!(policy["spec"]["ingress"][1]["ports"][0]["port"].as_i64(), Some(6040));
}

#[test]
fn what_compose_and_kustomize_refer_to_is_there() {
    let compose = yaml(".deploy/compose.yml");
    let folder = root().join(".deploy");
    let mut mounts = 0;
    for (name, service) in compose["services"].as_hash().unwrap() {
        let lists = ["volumes", "security_opt"].map(|list| service[list].as_vec());
        let entries = lists.into_iter().flatten().flatten().filter_map(Yaml::as_str);
        for entry in entries.filter_map(|entry| entry.split(':').find(|p| p.starts_with("./"))) {
            assert!(folder.join(entry).exists(), "{name:?}: {entry} is not there");
            mounts += 1;
        }
    }
    assert!(mounts > 3, "only {mounts}");
    let resources = yaml(".deploy/kubernetes/kustomization.yaml")["resources"].clone();
    for resource in resources.as_vec().unwrap() {
        assert!(folder.join("kubernetes").join(resource.as_str().unwrap()).exists());
    }
}

#[test]
fn systemd_understands_the_unit_and_finds_little_exposed() {
    let unit = text(".deploy/systemd/ringcast.service");
    for line in ["Type=notify", "Restart=on-failure", "WatchdogSec=10", "NoNewPrivileges=yes"] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    let installed = unit.replace("/usr/local/bin/ringcast", env!("CARGO_BIN_EXE_ringcast"));
    let folder = std::env::temp_dir().join(format!("ringcast-unit-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("ringcast.service");
    fs::write(&file, installed).unwrap();
    let analyze = |args: &[&str]| Command::new("systemd-analyze").args(args).arg(&file).output();
    // Where systemd is not installed, only its lines above are checked.
    if let Ok(verified) = analyze(&["verify"]) {
        assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
        let judged = analyze(&["security", "--offline=true", "--threshold=25"]).unwrap();
        assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// The calls of a list of systemd's, in which groups stand for what `groups` says of them.
fn calls(list: &str, groups: &str) -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    for name in list.split_whitespace() {
        let Some(start) = groups.find(&format!("\n{name}\n")).filter(|_| name.starts_with('@'))
        else {
            calls.insert(name.to_owned());
            continue;
        };
        let members = groups.split_at(start + name.len() + 2).1.lines();
        let members = members.take_while(|line| line.starts_with(' ') || line.is_empty());
        for member in members.filter(|line| !line.trim_start().starts_with('#')) {
            calls.extend(self::calls(member, groups));
        }
    }
    calls
}

#[test]
fn the_units_filter_lets_through_what_the_seccomp_profile_does() {
    // Where systemd is not installed, nobody knows what its groups hold.
    let Ok(known) = Command::new("systemd-analyze").arg("syscall-filter").output() else { return };
    let groups = format!("\n{}", String::from_utf8(known.stdout).unwrap());
    let unit = text(".deploy/systemd/ringcast.service");
    let lists = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter="));
    let (denied, allowed): (Vec<_>, Vec<_>) = lists.partition(|list| list.starts_with('~'));
    let denied = calls(&denied.join(" ").replace('~', " "), &groups);
    let allowed = calls(&allowed.join(" "), &groups);
    assert!(allowed.contains("io_uring_setup") && denied.contains("setuid"), "{allowed:?}");
    let profile: Value = serde_json::from_str(&text(".deploy/seccomp.json")).unwrap();
    for rule in rules(&profile, "SCMP_ACT_ALLOW") {
        let name = rule["syscall"].as_str().unwrap();
        // What a container's runtime does before it starts the server.
        let before = ["setuid", "setgid", "setgroups"].contains(&name);
        let lets = allowed.contains(name) && !denied.contains(name);
        assert!(lets || before, "SystemCallFilter= refuses {name}");
    }
}

/// One filter that does `action` where any of the rules matches, and `otherwise` elsewhere.
fn filter(action: &Value, otherwise: &Value, rules: &[Value]) -> Result<BpfProgram, String> {
    let filter =
        json!({ "it": { "match_action": action, "mismatch_action": otherwise, "filter": rules } });
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let compiled = compile_from_json(filter.to_string().as_bytes(), arch);
    compiled.map(|mut all| all.remove("it").unwrap()).map_err(|error| error.to_string())
}

/// The rules of the profile that allow, or that refuse with a number of their own.
fn rules(profile: &Value, action: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    for entry in profile["syscalls"].as_array().unwrap().iter().filter(|e| e["action"] == action) {
        for name in entry["names"].as_array().unwrap() {
            let mut rule = json!({ "syscall": name });
            if let Some(masked) = entry["args"].get(0) {
                assert_eq!(masked["op"], "SCMP_CMP_MASKED_EQ");
                let op = json!({ "masked_eq": masked["value"] });
                rule["args"] = json!([{
                    "index": masked["index"], "type": "qword", "op": op, "val": masked["valueTwo"],
                }]);
            }
            // Others have other architectures.
            if filter(&json!("allow"), &json!("trap"), std::slice::from_ref(&rule)).is_ok() {
                rules.push(rule);
            }
        }
    }
    rules
}

/// The folder of that thread in `/proc`.
fn thread_named(process: u32, name: &str) -> String {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut threads = threads.map(|thread| thread.unwrap().path().display().to_string());
    let named =
        |thread: &String| fs::read_to_string(format!("{thread}/comm")).unwrap().trim_end() == name;
    threads.find(|thread| named(thread)).unwrap_or_else(|| panic!("no thread {name}"))
}

/// How much a process or thread gives way: the 19th field of proc(5)'s `stat`, the 17th behind the name.
fn nice(folder: &str) -> i32 {
    let stat = fs::read_to_string(format!("{folder}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split_whitespace().nth(16).unwrap().parse().unwrap()
}

#[test]
fn under_the_seccomp_profile_the_server_serves_a_call_on_io_uring() {
    let profile: Value = serde_json::from_str(&text(".deploy/seccomp.json")).unwrap();
    let allowed = rules(&profile, "SCMP_ACT_ALLOW");
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "sendmmsg"] {
        assert!(allowed.iter().any(|rule| rule["syscall"] == name), "{name}");
    }
    let refused = rules(&profile, "SCMP_ACT_ERRNO");
    assert_eq!((refused.len(), &refused[0]["syscall"]), (1, &json!("clone3")));
    let nothing_else = json!({ "errno": profile["defaultErrnoRet"] });
    let absent = json!({ "errno": 38 });
    // The stricter of two filters holds: what the second refuses, the first lets through.
    let first: Vec<Value> = allowed.into_iter().chain(refused.clone()).collect();
    let first = filter(&json!("allow"), &nothing_else, &first).unwrap();
    let second = filter(&absent, &json!("allow"), &refused).unwrap();
    let start = move || {
        apply_filter(&second).unwrap();
        apply_filter(&first).unwrap();
        // It holds: nobody gets a namespace of his own.
        let unshare = Command::new("unshare").args(["--user", "true"]).output().unwrap();
        assert!(!unshare.status.success(), "{unshare:?}");
        Process::start(&["--shards=2", "--media-tcp=true"])
    };
    let mut process = std::thread::spawn(start).join().unwrap();
    assert!(process.line_with(&["media port open"]).contains("on_glommio=true"));
    let mut call = Call::full(process.api(), "sealed", 4, &[Net::Udp4, Net::Udp6]);
    call.all_media_arrives(20);
    let readers = thread_named(process.id(), "readers");
    let behind = nice(&format!("/proc/{}", process.id())) + BEHIND_CALLS_NICE;
    assert_eq!(nice(&readers), behind.min(19), "readers of events come behind calls");
    process.terminate();
    process.line_with(&["a second time means at once"]);
    process.terminate();
    let (log, status) = process.ended(PATIENCE);
    assert_eq!(status.code(), Some(0), "{log:#?}");
}
