//! In place of the service that is replaced: its environment file as it is and nothing else, and the
//! way that its pages take through the seven routes.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::Command;

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
use serde_json::{Value, json};

use super::call::Call;
use super::http::Api;
use super::media::Kind;
use super::secure::exchange;
use super::servers::{PATIENCE, Process, clock, quiet_port};
use super::stock::Net;

/// That file; tests change its ports, which others may have, and whether Kafka is asked.
const FILE: &str = include_str!("../../data/replaced-service.env");
const PASSWORD: &str = "open-barley-field";

/// A port at which nobody answers for as long as its socket is kept: it is bound and does not listen.
fn nobodys_port() -> (u16, OwnedFd) {
    let held = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&held, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let bound = SocketAddr::try_from(getsockname(&held).unwrap()).unwrap();
    (bound.port(), held)
}

/// The variables of the file, some with other values.
fn environment(changed: &[(&str, String)]) -> Vec<(String, String)> {
    let lines = FILE.lines().filter(|line| !line.starts_with('#'));
    let mut variables: Vec<(String, String)> = lines
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (name, value) in changed {
        let known = variables.iter_mut().find(|(known, _)| known == name);
        value.clone_into(&mut known.unwrap().1);
    }
    variables
}

/// The server, with nothing but that environment.
struct InPlace {
    process: Process,
    api: Api,
    media: u16,
    /// At the broker's address.
    _nobody: OwnedFd,
}

impl InPlace {
    fn start(kafka: &str) -> Self {
        // Somebody else may look for such ports in the same moment: once.
        let started = Self::try_start(kafka).or_else(|_| Self::try_start(kafka));
        started.unwrap_or_else(|log| panic!("{log:#?}"))
    }

    /// The server, or the log of one whose ports were taken.
    fn try_start(kafka: &str) -> Result<Self, Vec<String>> {
        let (port, media) = (quiet_port(), quiet_port());
        let (broker, nobody) = nobodys_port();
        let variables = environment(&[
            ("FILES_SERVICE_APP_PORT", port.to_string()),
            ("MEDIASOUP_RTC_MIN_PORT", media.to_string()),
            ("KAFKA_EXTERNAL_PORT", broker.to_string()),
            ("KAFKA_IS_CONNECT", kafka.to_owned()),
        ]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
        let mut process = Process::spawn(command.env_clear().envs(variables));
        if process.find_line(&["API open", &format!(":{port}")]).is_err() {
            let (log, _) = process.ended(PATIENCE);
            assert!(log.iter().any(|line| line.contains("in use")), "{log:#?}");
            return Err(log);
        }
        assert_eq!(process.media_port(), media);
        let api = Api(SocketAddr::from(([127, 0, 0, 1], port)));
        Ok(Self { process, api, media, _nobody: nobody })
    }
}

/// The names of an object's fields, sorted.
fn fields(value: &Value) -> Vec<&str> {
    let mut names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Room, transports, connect, produce, list, consume, media, leave: with the fields that the replaced
/// service answers, and maybe more.
fn walk(server: &InPlace) {
    let api = server.api;
    let room = api.post("/media/room", &json!({ "roomId": "tea", "initiatorId": "alice" }));
    assert_eq!((room.status, fields(&room.data())), (201, vec!["roomId", "routerRtpCapabilities"]));
    let body = json!({ "peerId": "alice", "direction": "send" });
    let transport = api.post("/media/transport/tea", &body);
    assert_eq!(transport.status, 201);
    let transport = transport.data();
    let told = fields(&transport);
    for name in ["dtlsParameters", "iceCandidates", "iceParameters", "id"] {
        assert!(told.contains(&name), "{name} is not in {told:?}");
    }
    let candidates = transport["iceCandidates"].as_array().unwrap();
    assert!(candidates.len() >= 2, "UDP and TCP: {candidates:?}");
    for candidate in candidates {
        assert_eq!(candidate["ip"], "127.0.0.1", "{candidate}");
        assert_eq!(candidate["port"], server.media, "{candidate}");
    }
    let mut call = Call::new(api, "tea");
    let alice = call.open("alice", "send", Net::Udp4);
    let producer = call.publish(alice, Kind::Video);
    let ssrc = call.clients[alice].sources[0].ssrc;
    let listed = api.get("/media/room/tea/producers?excludePeerId=bob").data();
    let [entry] = listed["producers"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert_eq!(
        (&entry["producerId"], &entry["peerId"], &entry["kind"]),
        (&json!(producer), &json!("alice"), &json!("video"))
    );
    let own = api.get("/media/room/tea/producers?excludePeerId=alice").data();
    assert_eq!(own["producers"], json!([]));
    let bob = call.open("bob", "recv", Net::Udp4);
    call.consume(bob, &producer, ssrc);
    call.all_connect();
    call.all_media_arrives(5);
    for peer in ["alice", "bob"] {
        let left = api.post("/media/room/tea/leave", &json!({ "peerId": peer })).data();
        assert!(left["success"] == true && left["message"].is_string(), "{left}");
    }
    let gone = api.get("/media/room/tea/producers").data();
    assert_eq!(gone["producers"], json!([]), "an unknown room has none");
}

/// Swagger and its document are where that service had them, and name the seven routes.
fn swagger(api: Api) {
    let page = api.get("/swagger/");
    assert!(page.status == 200 && page.text.contains("swagger-ui"), "{page:?}");
    let document = api.get("/api/swagger.json").json();
    for (path, method) in [
        ("/media/room", "post"),
        ("/media/transport/{roomId}", "post"),
        ("/media/transport/{transportId}/connect", "post"),
        ("/media/producer", "post"),
        ("/media/consumer", "post"),
        ("/media/room/{roomId}/producers", "get"),
        ("/media/room/{roomId}/leave", "post"),
    ] {
        assert!(document["paths"][path][method].is_object(), "{method} {path}");
    }
    assert_eq!(api.get("/docs/").status, 404, "it is where that file says");
}

#[test]
fn the_replaced_services_environment_file_and_the_way_of_its_pages_go_on_as_they_are() {
    let mut server = InPlace::start("true");
    server.process.line_with(&["media port open", "shards=2"]);
    server.process.line_with(&["MEDIASOUP_RTC_MAX_PORT has no effect"]);
    server.process.line_with(&["without credentials", "FILES_SERVICE_APP_PORT"]);
    walk(&server);
    swagger(server.api);
    // A page of any origin may call, with its cookies, as it could there.
    let mut stream = std::net::TcpStream::connect(server.api.0).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = "OPTIONS /media/room HTTP/1.1\r\nhost: x\r\norigin: https://calls.example\r\n\
                 access-control-request-method: POST\r\n\
                 access-control-request-headers: content-type\r\n\r\n";
    let answer = exchange(&mut stream, asked).to_lowercase();
    assert!(answer.contains("access-control-allow-origin: https://calls.example"), "{answer}");
    assert!(answer.contains("access-control-allow-credentials: true"), "{answer}");
    // Kafka is away: nobody waited for it, and what is for it is kept until it is back.
    server.process.line_with(&["no Kafka broker can be reached"]);
    assert_eq!(server.api.metric("kafka_up"), 0.0);
    let deadline = clock() + PATIENCE;
    loop {
        let waiting = server.api.metric("kafka_waiting");
        if waiting == 6.0 {
            break;
        }
        assert!(clock() < deadline, "{waiting} events wait");
    }
    server.process.terminate();
    let (log, status) = server.process.ended(PATIENCE);
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains(PASSWORD)), "{log:#?}");
}

#[test]
fn with_kafka_off_in_that_file_nothing_is_kept_for_it() {
    let server = InPlace::start("false");
    walk(&server);
    assert!(server.api.metric("kafka_up").is_nan(), "no metrics of Kafka");
    server.process.terminate();
    let (log, status) = server.process.ended(PATIENCE);
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains("Kafka")), "{log:#?}");
}
