//! What operators and their machines see.

use std::collections::HashSet;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, header};
use http_body_util::BodyExt;
use ringcast::api::{ApiOptions, openapi, serve};
use ringcast::control::command::{CloseReason, DtlsState, Event, IceState, Refusal};
use ringcast::id::TransportId;
use ringcast::metrics::latency::LatencyRecorder;
use serde_json::{Value, json};

use super::harness::{Node, bare, simulcast};

pub(super) async fn text_of(node: &Node, path: &str) -> String {
    let response = node.send(bare(Method::GET, path)).await;
    assert_eq!(response.status(), 200, "{path}");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn rooms_are_listed_by_name_page_by_page() {
    let node = Node::start(1);
    for room in ["c", "a", "b", "e", "d"] {
        node.room(room).await;
    }
    let mut seen = Vec::new();
    let mut path = "/media/rooms?limit=2".to_owned();
    loop {
        let page = node.get(&path).await;
        let rooms = page.data()["rooms"].as_array().unwrap().clone();
        seen.push(rooms.iter().map(|r| r["roomId"].as_str().unwrap().to_owned()).collect());
        match page.data()["nextCursor"].as_str() {
            Some(cursor) => path = format!("/media/rooms?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    let expected: [Vec<&str>; 3] = [vec!["a", "b"], vec!["c", "d"], vec!["e"]];
    let seen: Vec<Vec<String>> = seen;
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_node_is_healthy_while_all_shards_report_and_ready_while_one_has_room() {
    let node = Node::start(2);
    assert_eq!(node.get("/healthz").await.status, 503);
    node.reports(0, 0.1);
    assert_eq!(node.get("/healthz").await.code(), "overloaded");
    node.reports(1, 0.99);
    assert_eq!(node.get("/healthz").await.status, 200);
    assert_eq!(node.get("/readyz").await.status, 200);
    node.reports(0, 0.99);
    assert_eq!(node.get("/readyz").await.status, 503);
    node.reports(0, 0.1);
    node.control.end_event_streams();
    assert_eq!(node.get("/readyz").await.status, 503, "a stopping node is not ready");
}

#[tokio::test]
async fn metrics_name_shards_counters_discards_and_requests() {
    let node = Node::start(2);
    node.reports(0, 0.25);
    node.room("r").await;
    node.get("/no/such/route").await;
    let strange = Method::from_bytes(b"BREW").unwrap();
    assert_eq!(node.send(bare(strange, "/no/such/route")).await.status(), 404);
    let text = text_of(&node, "/metrics").await;
    for line in [
        "ringcast_rooms 1",
        "ringcast_shard_up{shard=\"0\"} 1",
        "ringcast_shard_up{shard=\"1\"} 0",
        "ringcast_shard_busy_ratio{shard=\"0\"} 0.25",
        "ringcast_shard_packets_in_total{shard=\"0\"} 7",
        "ringcast_shard_train_segments_bucket{shard=\"0\",le=\"1\"} 1",
        "ringcast_shard_train_segments_bucket{shard=\"0\",le=\"4\"} 1",
        "ringcast_shard_train_segments_bucket{shard=\"0\",le=\"8\"} 2",
        "ringcast_shard_train_segments_bucket{shard=\"0\",le=\"+Inf\"} 2",
        "ringcast_shard_train_segments_sum{shard=\"0\"} 6",
        "ringcast_shard_trains_refused_total{shard=\"0\"} 0",
        "ringcast_shard_estimated_bytes_per_second{shard=\"0\"} 75000",
        "ringcast_shard_transport_estimate_bytes_per_second_bucket{shard=\"0\",le=\"64000\"} 0",
        "ringcast_shard_transport_estimate_bytes_per_second_bucket{shard=\"0\",le=\"125000\"} 1",
        "ringcast_shard_transport_estimate_bytes_per_second_sum{shard=\"0\"} 75000",
        "ringcast_shard_turn_seconds_bucket{shard=\"0\",le=\"0.00002\"} 0",
        "ringcast_shard_turn_seconds_bucket{shard=\"0\",le=\"0.00005\"} 1",
        "ringcast_shard_turn_seconds_sum{shard=\"0\"} 0.00003",
        "ringcast_shard_cpu_seconds_total{shard=\"0\"} 1.5",
        "ringcast_shard_transports{shard=\"0\",state=\"connected\"} 2",
        "ringcast_shard_transports{shard=\"0\",state=\"new\"} 0",
        "ringcast_healthy 0",
        "ringcast_ready 0",
        "ringcast_shard_consumers_stopped{shard=\"0\"} 0",
        "ringcast_shard_probe_bytes_total{shard=\"0\"} 0",
        "ringcast_shard_discards_total{shard=\"0\",reason=\"replayed\"} 0",
        "ringcast_http_requests_total{route=\"/media/room\",method=\"POST\",status=\"2xx\"} 1",
        "ringcast_http_requests_total{route=\"/media/room\",method=\"POST\",status=\"5xx\"} 0",
        "ringcast_http_requests_total{route=\"unmatched\",method=\"GET\",status=\"4xx\"} 1",
        "ringcast_http_requests_total{route=\"unmatched\",method=\"other\",status=\"4xx\"} 1",
        "ringcast_http_request_duration_seconds_count{route=\"/media/room\",method=\"POST\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let lines: Vec<&str> = text.lines().collect();
    let mut families = HashSet::new();
    for (place, line) in lines.iter().enumerate() {
        let Some((family, _)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) else {
            continue;
        };
        assert!(families.insert(family), "{family} is told twice");
        let help = lines[place - 1].strip_prefix(&format!("# HELP {family} ")).unwrap_or_default();
        let is_sentence =
            help.starts_with(|c: char| c.is_ascii_alphanumeric()) && help.ends_with('.');
        assert!(is_sentence && !help.contains('\\'), "{family}: {help:?}");
    }
    assert!(families.contains("ringcast_shard_padding_bytes_total"));
}

#[tokio::test]
async fn joins_are_counted_by_stage_and_what_ends_them_by_reason() {
    let node = Node::start(1);
    node.reports(0, 0.1);
    node.room("r").await;
    let id = |text: &str| text.parse::<TransportId>().unwrap();
    let alice = node.transport("r", "alice").await;
    let sound = node.producer("r", "alice", &alice).await;
    let transport = id(&alice);
    let ice = |state| Event::IceState { transport, state, remote: None, tcp: false };
    let dtls = |state| Event::DtlsState { transport, state, cipher: None };
    let steps = [
        ice(IceState::Connected),
        ice(IceState::Completed),
        dtls(DtlsState::Connecting),
        dtls(DtlsState::Connected),
        // Twice, as a shard that mirrors it would.
        Event::ProducerStarted { producer: sound.parse().unwrap() },
        Event::ProducerStarted { producer: sound.parse().unwrap() },
        Event::TransportClosed { transport, reason: CloseReason::ConsentLost },
    ];
    steps.into_iter().for_each(|step| node.happens(step));
    let bob = id(&node.transport("r", "bob").await);
    node.happens(Event::TransportClosed { transport: bob, reason: CloseReason::NeverConnected });
    let carol = id(&node.transport("r", "carol").await);
    let reached = IceState::Connected;
    node.happens(Event::IceState { transport: carol, state: reached, remote: None, tcp: false });
    node.happens(Event::TransportClosed { transport: carol, reason: CloseReason::DtlsFailed });
    node.shard().refuses(Refusal::Overloaded);
    let body = json!({ "peerId": "dave", "direction": "send" });
    assert_eq!(node.post("/media/transport/r", body).await.status, 503);
    let text = text_of(&node, "/metrics").await;
    for line in [
        "ringcast_join_stage_seconds_count{stage=\"transport\"} 3",
        "ringcast_join_stage_seconds_count{stage=\"ice\"} 2",
        "ringcast_join_stage_seconds_count{stage=\"dtls\"} 1",
        "ringcast_join_stage_seconds_count{stage=\"first_packet\"} 1",
        "ringcast_join_failures_total{stage=\"transport\"} 1",
        "ringcast_join_failures_total{stage=\"ice\"} 1",
        "ringcast_join_failures_total{stage=\"dtls\"} 1",
        "ringcast_join_failures_total{stage=\"first_packet\"} 0",
        "ringcast_transports_closed_total{reason=\"consent_lost\"} 1",
        "ringcast_transports_closed_total{reason=\"never_connected\"} 1",
        "ringcast_transports_closed_total{reason=\"dtls_failed\"} 1",
        "ringcast_transports_closed_total{reason=\"fault\"} 0",
        "ringcast_room_events_total{type=\"peer-joined\"} 3",
        "ringcast_room_events_total{type=\"producer-closed\"} 1",
        "ringcast_producers{kind=\"audio\"} 0",
        "ringcast_producers{kind=\"video\"} 0",
        "ringcast_commands_refused_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn what_is_alive_is_counted_by_kind() {
    let node = Node::start(1);
    node.room("r").await;
    let (alice, bob) = (node.transport("r", "alice").await, node.transport("r", "bob").await);
    let camera =
        node.post("/media/producer", simulcast("r", "alice", &alice)).await.id("producerId");
    let sound = node.producer("r", "alice", &alice).await;
    for producer in [&camera, &sound] {
        assert_eq!(node.consume(("r", "bob"), &bob, producer).await.status, 201);
    }
    let lines = |kinds: [(&str, &str, usize); 4]| {
        kinds.map(|(what, kind, count)| format!("ringcast_{what}{{kind=\"{kind}\"}} {count}"))
    };
    let all = [
        ("producers", "audio", 1),
        ("producers", "video", 1),
        ("consumers", "audio", 1),
        ("consumers", "video", 1),
    ];
    let text = text_of(&node, "/metrics").await;
    for line in lines(all) {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    node.delete(&format!("/media/producer/{sound}")).await;
    let text = text_of(&node, "/metrics").await;
    for line in lines(all.map(|(what, kind, _)| (what, kind, usize::from(kind == "video")))) {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    node.delete("/media/room/r").await;
    let text = text_of(&node, "/metrics").await;
    for line in lines(all.map(|(what, kind, _)| (what, kind, 0))) {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn the_status_shows_shards_and_what_is_alive() {
    let node = Node::start(1);
    node.reports(0, 0.5);
    node.room("r").await;
    node.transport("r", "alice").await;
    let status = node.get("/admin/status").await;
    let data = status.data();
    assert_eq!(data["rooms"], 1);
    assert_eq!(data["peers"], 1);
    assert_eq!(data["shards"][0]["busy"], 0.5);
    assert_eq!(data["shards"][0]["transports"], 1);
    assert_eq!(data["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn latencies_are_shown_by_shard_and_node_of_late_and_since_the_start() {
    let node = Node::start(2);
    let us = Duration::from_micros;
    let mut recorder = LatencyRecorder::default();
    recorder.record(us(40), 90);
    recorder.record(us(1_500), 10);
    node.reports_latencies(0, 0.1, &mut recorder);
    // A report a second: the first is ten seconds old by then.
    for _ in 0..9 {
        node.reports(0, 0.1);
    }
    recorder.record(us(100), 100);
    node.reports_latencies(0, 0.1, &mut recorder);
    recorder.record(us(70), 300);
    node.reports_latencies(1, 0.1, &mut recorder);

    let told = |of: &Value, span: &str| {
        let of = &of["forwardLatency"][span];
        ["count", "p50Us", "p90Us", "p99Us", "p999Us", "maxUs"].map(|name| of[name].as_u64())
    };
    let status = node.get("/admin/status").await;
    let data = status.data();
    let is = |numbers: [u64; 6]| numbers.map(Some);
    assert_eq!(told(data, "last10Seconds"), is([400, 70, 100, 100, 100, 100]));
    assert_eq!(told(&data["shards"][0], "last10Seconds"), is([100; 6]));
    assert_eq!(told(&data["shards"][1], "sinceStart"), is([300, 70, 70, 70, 70, 70]));
    let [count, p50, p90, p99, _, max] = told(&data["shards"][0], "sinceStart");
    assert_eq!([count, p50, p90, max], [200, 100, 100, 1_500].map(Some));
    assert!(p99.is_some_and(|p99| p99.abs_diff(1_500) <= 12), "{p99:?}");
    assert_eq!(data["shards"][0]["streams"], 3);

    let text = text_of(&node, "/metrics").await;
    for line in [
        "# TYPE ringcast_forward_latency_seconds histogram",
        "ringcast_forward_latency_seconds_bucket{shard=\"0\",le=\"0.00005\"} 90",
        "ringcast_forward_latency_seconds_bucket{shard=\"0\",le=\"0.001\"} 190",
        "ringcast_forward_latency_seconds_bucket{shard=\"0\",le=\"0.002\"} 200",
        "ringcast_forward_latency_seconds_bucket{shard=\"0\",le=\"1\"} 200",
        "ringcast_forward_latency_seconds_bucket{shard=\"0\",le=\"+Inf\"} 200",
        "ringcast_forward_latency_seconds_sum{shard=\"0\"} 0.0286",
        "ringcast_forward_latency_seconds_count{shard=\"1\"} 300",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn origins_are_reflected_with_credentials_unless_configured() {
    let listed =
        ApiOptions { cors_origins: vec!["https://a.example".to_owned()], ..ApiOptions::default() };
    for (options, origin, allowed) in [
        (ApiOptions::default(), "https://any.example", true),
        (listed.clone(), "https://a.example", true),
        (listed, "https://b.example", false),
    ] {
        let node = Node::start_with(1, &options);
        let preflight = Request::builder()
            .method(Method::OPTIONS)
            .uri("/media/room")
            .header(header::ORIGIN, origin)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "content-type")
            .body(Body::empty())
            .unwrap();
        let response = node.send(preflight).await;
        assert_eq!(response.status(), 200);
        let found = response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        assert_eq!(found.map(|value| value.to_str().unwrap()), allowed.then_some(origin));
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_MAX_AGE], "7200");
    }
}

#[tokio::test]
async fn the_docs_are_served_where_configured() {
    let node = Node::start(1);
    assert_eq!(node.send(bare(Method::GET, "/docs")).await.status(), 303);
    assert!(text_of(&node, "/docs/").await.contains("swagger"));
    for path in ["/docs-json", "/api/swagger.json"] {
        let document: Value = serde_json::from_str(&text_of(&node, path).await).unwrap();
        assert!(document["paths"]["/media/producer"]["post"].is_object(), "{path}");
    }
    for path in ["help", "api", "api/docs"] {
        let options = ApiOptions { docs_path: path.to_owned(), ..ApiOptions::default() };
        let node = Node::start_with(1, &options);
        assert!(text_of(&node, &format!("/{path}/")).await.contains("swagger"));
        assert!(text_of(&node, "/api/swagger.json").await.contains("createRoom"));
        assert_eq!(node.get("/docs").await.code(), "route_not_found");
    }
}

#[tokio::test]
async fn the_docs_page_asks_no_other_host_for_anything() {
    let node = Node::start(1);
    let page = text_of(&node, "/docs/").await;
    let settings = text_of(&node, "/docs/swagger-initializer.js").await;
    for text in [&page, &settings] {
        assert!(!text.contains("http:") && !text.contains("https:"), "{text}");
    }
    assert!(settings.contains("\"url\": \"/docs-json\""), "{settings}");
    // Without this setting the page sends the document's address to validator.swagger.io.
    assert!(settings.contains("\"validatorUrl\": \"none\""), "{settings}");
}

#[test]
fn every_operation_has_its_own_name() {
    let document = serde_json::to_value(openapi::document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let names = paths.values().flat_map(|path| path.as_object().unwrap().values());
    let mut names: Vec<_> = names.map(|operation| operation["operationId"].to_string()).collect();
    assert_eq!(names.len(), 45);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 45);
}

#[test]
fn the_openapi_document_is_the_committed_one() {
    let document = openapi::document().to_pretty_json().unwrap() + "\n";
    let committed_at = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/openapi.json");
    let committed = std::fs::read_to_string(committed_at).unwrap_or_default();
    if document == committed {
        return;
    }
    let current_at = concat!(env!("CARGO_TARGET_TMPDIR"), "/openapi.json");
    std::fs::write(current_at, &document).unwrap();
    panic!(
        "the API changed: look at `diff {committed_at} {current_at}`, and if it is meant, \
            `cp {current_at} {committed_at}`"
    );
}

#[tokio::test]
async fn a_served_api_answers_over_a_socket_and_stops_when_told_even_with_open_streams() {
    let node = Node::start(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let options = ApiOptions::default();
    let serving = tokio::spawn(serve(listener, node.control.clone(), options, async {
        let _ = stopped.await;
    }));
    node.room("r").await;
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "GET /media/room/r/events HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.writable().await.unwrap();
    assert_eq!(stream.try_write(request.as_bytes()).unwrap(), request.len());
    let mut first = [0; 12];
    stream.readable().await.unwrap();
    assert_eq!(stream.try_read(&mut first).unwrap(), first.len());
    assert_eq!(&first, b"HTTP/1.1 200");
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert_eq!(node.get("/readyz").await.body["success"], json!(false));
}
