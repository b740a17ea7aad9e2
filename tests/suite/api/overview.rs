//! What operators look through: the rooms as a table, the node's numbers, the dashboard.

use axum::http::{Method, header};
use http_body_util::BodyExt;
use serde_json::json;

use super::harness::{Answered, Node, bare};

fn names(answer: &Answered) -> Vec<String> {
    let rooms = answer.data()["rooms"].as_array().unwrap();
    rooms.iter().map(|room| room["roomId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn rooms_are_found_by_a_part_of_their_names_and_sorted_by_their_load() {
    let node = Node::start(2);
    for (room, peers) in [("Tea", 3), ("coffee", 1), ("teapot", 2), ("x", 0)] {
        node.room(room).await;
        for peer in 0..peers {
            node.transport(room, &format!("peer-{peer}")).await;
        }
    }
    let send = node.transport("coffee", "alice").await;
    let producer = node.producer("coffee", "alice", &send).await;
    let receive = node.transport("coffee", "bob").await;
    assert_eq!(node.consume(("coffee", "bob"), &receive, &producer).await.status, 201);
    for (query, expected, total) in [
        ("", &["Tea", "coffee", "teapot", "x"][..], 4),
        ("?order=desc", &["x", "teapot", "coffee", "Tea"], 4),
        ("?sort=peers&order=desc", &["Tea", "coffee", "teapot", "x"], 4),
        ("?sort=peers", &["x", "teapot", "Tea", "coffee"], 4),
        ("?sort=producers&order=desc&limit=1", &["coffee"], 4),
        ("?sort=consumers&order=desc&limit=2", &["coffee", "Tea"], 4),
        ("?sort=age&order=desc", &["Tea", "coffee", "teapot", "x"], 4),
        ("?sort=age&limit=2&offset=1", &["teapot", "coffee"], 4),
        ("?query=TEA", &["Tea", "teapot"], 2),
        ("?query=tea&offset=1", &["teapot"], 2),
        ("?offset=4", &[], 4),
        ("?query=nothing", &[], 0),
    ] {
        let answer = node.get(&format!("/admin/rooms{query}")).await;
        assert_eq!(
            (names(&answer), &answer.data()["total"]),
            (expected.iter().map(|name| (*name).to_owned()).collect(), &json!(total),),
            "{query}"
        );
    }
    let coffee = &node.get("/admin/rooms?query=coffee").await.data()["rooms"][0].clone();
    assert_eq!((&coffee["peers"], &coffee["producers"]), (&json!(3), &json!(1)));
    assert_eq!(coffee["consumers"], 1);
    assert!(coffee["ageSeconds"].is_u64());
    assert!(coffee["shards"].as_array().is_some_and(|shards| !shards.is_empty()));
    assert!(coffee["recvBitrate"].is_u64() && coffee["sendBitrate"].is_u64(), "{coffee}");
}

#[tokio::test]
async fn a_wish_for_rooms_that_makes_no_sense_is_refused_by_name() {
    let node = Node::start(1);
    for (query, field) in [
        ("sort=colour", "sort"),
        ("order=up", "order"),
        ("offset=-1", "offset"),
        ("limit=many", "limit"),
        (&format!("query={}", "a".repeat(129)), "query"),
    ] {
        let refused = node.get(&format!("/admin/rooms?{query}")).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_parameter"));
        assert!(refused.body["data"].as_str().unwrap().starts_with(field), "{refused:?}");
    }
}

#[tokio::test]
async fn answers_stay_small_with_ten_thousand_rooms_and_shards_that_do_not_answer() {
    let node = Node::start(1);
    for room in 0..10_000 {
        node.room(&format!("room-{room}")).await;
    }
    for peer in 0..3 {
        node.transport("room-77", &format!("peer-{peer}")).await;
    }
    node.shard().hold();
    for path in ["/admin/rooms?sort=peers&order=desc&limit=5000", "/admin/status"] {
        let response = node.send(bare(Method::GET, path)).await;
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.len() < 32 * 1024, "{path}: {} bytes", bytes.len());
    }
    let first = node.get("/admin/rooms?sort=peers&order=desc&limit=5000").await;
    assert_eq!((names(&first).len(), &first.data()["total"]), (100, &json!(10_000)));
    let busiest = &first.data()["rooms"][0];
    assert_eq!((&busiest["roomId"], &busiest["peers"]), (&json!("room-77"), &json!(3)));
    assert!(busiest.get("recvBitrate").is_none(), "nobody answered: {busiest}");
}

#[tokio::test]
async fn the_status_has_what_the_dashboard_shows() {
    let node = Node::start(1);
    node.reports(0, 0.5);
    let status = node.get("/admin/status").await;
    let data = status.data();
    assert_eq!(
        data["media"],
        json!({
            "addresses": ["192.0.2.7"], "port": 10_000, "udp": true, "tcp": true,
        })
    );
    assert!(data["time"].as_str().is_some_and(|time| time.starts_with("2023-11-14T22:13:")));
    assert_eq!((&data["outlets"], &data["discards"]), (&json!([]), &json!({})));
    let histogram = &data["latencyHistogram"];
    let bounds = histogram["boundsUs"].as_array().unwrap().len();
    for counts in ["last10Seconds", "sinceStart"] {
        assert_eq!(histogram[counts].as_array().unwrap().len(), bounds + 1);
    }
    let shard = data["shards"][0].as_object().unwrap();
    for name in [
        "bytesIn",
        "bytesOut",
        "turns",
        "cpuNs",
        "handedOff",
        "takenOver",
        "handoffDropped",
        "discarded",
        "shed",
        "kernelDropped",
        "estimateBps",
        "consumersStopped",
    ] {
        assert!(shard.get(name).is_some_and(serde_json::Value::is_u64), "{name}: {shard:?}");
    }
}

#[tokio::test]
async fn statistics_of_a_room_name_the_transports_of_its_streams() {
    let node = Node::start(1);
    node.room("r").await;
    let send = node.transport("r", "alice").await;
    let producer = node.producer("r", "alice", &send).await;
    let receive = node.transport("r", "bob").await;
    assert_eq!(node.consume(("r", "bob"), &receive, &producer).await.status, 201);
    let stats = node.get("/media/room/r/stats").await;
    assert_eq!(stats.data()["producers"][0]["transportId"], json!(send));
    assert_eq!(stats.data()["consumers"][0]["transportId"], json!(receive));
}

#[tokio::test]
async fn the_dashboard_comes_with_a_policy_that_lets_nothing_else_in() {
    let node = Node::start(1);
    for (path, kind, part) in [
        ("/admin", "text/html", "pages/admin.js"),
        ("/pages/admin.js", "text/javascript", "admin/status"),
        ("/pages/admin.css", "text/css", "prefers-color-scheme: dark"),
    ] {
        let response = node.send(bare(Method::GET, path)).await;
        assert_eq!(response.status(), 200, "{path}");
        let header = |name| response.headers()[name].to_str().unwrap().to_owned();
        assert!(header(header::CONTENT_TYPE).starts_with(kind), "{path}");
        let policy = header(header::CONTENT_SECURITY_POLICY);
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text.contains(part), "{part} is not in {path}");
        assert!(!text.contains("https://") && !text.contains(" style="), "{path}");
    }
}
