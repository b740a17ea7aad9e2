//! Rooms on several shards: where transports go, and who is told what.

use std::collections::BTreeMap;

use ringcast::control::command::{CloseReason, Command, Event, Inventory, Mirror, Refusal};
use ringcast::id::{ConsumerId, ProducerId, ShardId, TransportId};
use serde_json::{Value, json};

use super::harness::{Node, opus, settle};

/// A room whose publisher lives on shard 0 and whose subscriber lives on shard 1.
struct Split {
    node: Node,
    /// Of alice, on shard 0.
    send: String,
    producer: String,
    /// Of bob, on shard 1.
    recv: String,
}

impl Split {
    async fn new() -> Self {
        let node = Node::start(3);
        node.room("r").await;
        let send = node.transport("r", "alice").await;
        let producer = node.producer("r", "alice", &send).await;
        // Whoever comes now goes to the least busy shard.
        node.reports(0, 0.9);
        node.reports(2, 0.8);
        let recv = node.transport("r", "bob").await;
        assert_eq!(node.shards[1].told(), ["CreateTransport"]);
        Self { node, send, producer, recv }
    }

    async fn consume(&self) -> String {
        let made = self.node.consume(("r", "bob"), &self.recv, &self.producer).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.id("id")
    }

    async fn pause(&self, how: &str) {
        let path = format!("/media/producer/{}/{how}", self.producer);
        let done = self.node.post(&path, json!({})).await;
        assert!(done.status.is_success(), "{done:?}");
        settle().await;
    }

    /// What shard 1 was told of the producer besides making consumers, in order.
    fn told_there(&self) -> Vec<String> {
        self.node.shards[1].with(|script| {
            let commands = script.commands.iter().filter_map(|command| match command {
                Command::PauseProducer(_, true) => Some("pause".to_owned()),
                Command::PauseProducer(_, false) => Some("resume".to_owned()),
                Command::CloseProducer(id) => Some(format!("close {id}")),
                _ => None,
            });
            commands.collect()
        })
    }

    fn closes_there(&self) -> [String; 1] {
        [format!("close {}", self.producer)]
    }
}

/// The mirrors that the shard's consumers came with.
fn mirrors(node: &Node, shard: usize) -> Vec<Option<Mirror>> {
    node.shards[shard].with(|script| {
        let commands = script.commands.iter().filter_map(|command| match command {
            Command::CreateConsumer(consumer) => Some(consumer.mirror.clone()),
            _ => None,
        });
        commands.collect()
    })
}

/// How many transports the node has on each shard.
async fn spread(node: &Node) -> Vec<u64> {
    let status = node.get("/admin/status").await;
    let shards = status.data()["shards"].as_array().unwrap().iter();
    shards.map(|shard| shard["transports"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_consumer_on_another_shard_comes_with_a_mirror_and_one_at_home_without() {
    let split = Split::new().await;
    split.consume().await;
    let here = split.node.consume(("r", "alice"), &split.send, &split.producer).await;
    assert_eq!(here.status, 201);
    assert!(matches!(mirrors(&split.node, 0)[..], [None]));
    let there = mirrors(&split.node, 1);
    let [Some(mirror)] = &there[..] else { panic!("{there:?}") };
    let producer: ProducerId = split.producer.parse().unwrap();
    assert_eq!(
        (mirror.origin, mirror.source.producer, mirror.paused),
        (ShardId(0), producer, false)
    );
    assert_eq!(mirror.source.consumable.encodings.len(), 1);
}

#[tokio::test]
async fn a_mirror_closes_with_its_producer_however_that_ends() {
    for how in ["producer", "transport", "leave", "room", "consent", "lost", "replaced"] {
        let split = Split::new().await;
        split.consume().await;
        let node = &split.node;
        let producer: ProducerId = split.producer.parse().unwrap();
        let transport: TransportId = split.send.parse().unwrap();
        match how {
            "producer" => drop(node.delete(&format!("/media/producer/{producer}")).await),
            "transport" => drop(node.delete(&format!("/media/transport/{transport}")).await),
            "leave" => {
                node.post("/media/room/r/leave", json!({ "peerId": "alice" })).await;
            }
            "room" => drop(node.delete("/media/room/r").await),
            "consent" => {
                node.happens(Event::TransportClosed {
                    transport,
                    reason: CloseReason::ConsentLost,
                });
            }
            "lost" => {
                let transports = vec![transport];
                node.shard().with(|script| {
                    script.inventory = Inventory { transports, ..Inventory::default() };
                });
                node.happens(Event::Lost(1));
            }
            _ => {
                let other = node.transport("r", "alice").await;
                node.producer("r", "alice", &other).await;
            }
        }
        settle().await;
        assert_eq!(split.told_there(), split.closes_there(), "{how}");
        assert_eq!(node.shards[2].count("CloseProducer"), 0, "{how}: it has no mirror");
        let closed_here = node.shard().count("CloseProducer");
        let expected = usize::from(["producer", "lost", "replaced"].contains(&how));
        assert_eq!(closed_here, expected, "{how}: a transport closes what it carries");
        let told_transport = node.shard().count("CloseTransport");
        let expected = usize::from(["transport", "leave", "room"].contains(&how));
        assert_eq!(told_transport, expected, "{how}: who closed it by itself knows");
        assert_eq!(node.control.node().totals.consumers, 0, "{how}");
    }
}

#[tokio::test]
async fn a_mirror_outlives_its_consumers_and_is_closed_once() {
    let split = Split::new().await;
    let consumer = split.consume().await;
    split.node.delete(&format!("/media/consumer/{consumer}")).await;
    split.consume().await;
    split.consume().await;
    split.node.delete(&format!("/media/transport/{}", split.recv)).await;
    assert_eq!(split.told_there(), [""; 0]);
    split.node.delete(&format!("/media/producer/{}", split.producer)).await;
    assert_eq!(split.told_there(), split.closes_there());
}

#[tokio::test]
async fn a_pause_reaches_mirrors_and_those_made_later_begin_with_it() {
    let split = Split::new().await;
    split.consume().await;
    split.pause("pause").await;
    split.pause("resume").await;
    split.pause("pause").await;
    assert_eq!(split.told_there(), ["pause", "resume", "pause"]);
    split.consume().await;
    let paused: Vec<bool> =
        mirrors(&split.node, 1).iter().map(|mirror| mirror.as_ref().unwrap().paused).collect();
    assert_eq!(paused, [false, true]);
    assert_eq!(split.node.shards[2].count("PauseProducer"), 0);
}

#[tokio::test]
async fn a_mirror_whose_lane_was_full_hears_last_what_is_true() {
    let split = Split::new().await;
    split.consume().await;
    split.node.shards[1].with(|script| script.lane_full = true);
    split.pause("pause").await;
    split.pause("resume").await;
    split.pause("pause").await;
    assert_eq!(split.told_there(), [""; 0]);
    split.node.shards[1].with(|script| script.lane_full = false);
    split.node.shards[1].hears("PauseProducer").await;
    settle().await;
    assert_eq!(split.told_there(), ["pause"], "however often it changed");
    split.pause("resume").await;
    assert_eq!(split.told_there(), ["pause", "resume"]);
}

#[tokio::test]
async fn a_producer_that_closes_while_a_mirror_is_made_closes_behind_it() {
    let split = Split::new().await;
    split.node.shards[1].hold();
    let path = format!("/media/producer/{}", split.producer);
    let (consumed, deleted, ()) = tokio::join!(
        split.node.consume(("r", "bob"), &split.recv, &split.producer),
        async {
            settle().await;
            split.node.delete(&path).await
        },
        async {
            settle().await;
            settle().await;
            split.node.shards[1].release(&split.node.control);
        }
    );
    assert_eq!(consumed.code(), "producer_not_found");
    assert_eq!(deleted.status, 200);
    let told = split.node.shards[1].told();
    assert_eq!(told, ["CreateTransport", "CreateConsumer", "CloseProducer"]);
    assert_eq!(split.node.control.node().totals.consumers, 0);
}

#[tokio::test]
async fn a_close_that_finds_the_mirrors_lane_full_is_not_lost() {
    let split = Split::new().await;
    split.consume().await;
    split.node.shards[1].with(|script| script.lane_full = true);
    let transport: TransportId = split.send.parse().unwrap();
    split.node.happens(Event::TransportClosed { transport, reason: CloseReason::DtlsClosed });
    settle().await;
    assert_eq!(split.told_there(), [""; 0]);
    split.node.shards[1].with(|script| script.lane_full = false);
    split.node.shards[1].hears("CloseProducer").await;
    assert_eq!(split.told_there(), split.closes_there());
}

#[tokio::test]
async fn what_the_mirrors_shard_refuses_is_rolled_back_and_may_be_tried_again() {
    let split = Split::new().await;
    for (refusal, status) in [
        (Refusal::Full("mirrors"), 503),
        (Refusal::Unsupported("codec".to_owned()), 422),
        (Refusal::Overloaded, 503),
        (Refusal::NoTransport, 404),
    ] {
        split.node.shards[1].refuses(refusal);
        let refused = split.node.consume(("r", "bob"), &split.recv, &split.producer).await;
        assert_eq!(refused.status, status, "{refused:?}");
        assert_eq!(split.node.control.node().totals.consumers, 0);
    }
    split.consume().await;
    assert!(mirrors(&split.node, 1).iter().all(Option::is_some));
    split.node.delete(&format!("/media/producer/{}", split.producer)).await;
    assert_eq!(split.told_there(), split.closes_there());
}

#[tokio::test]
async fn an_inventory_without_mirrors_closes_nothing_of_them() {
    let split = Split::new().await;
    let consumer: ConsumerId = split.consume().await.parse().unwrap();
    let transport: TransportId = split.recv.parse().unwrap();
    split.node.shards[1].with(|script| {
        script.inventory = Inventory {
            transports: vec![transport],
            consumers: vec![consumer],
            ..Inventory::default()
        };
    });
    split.node.happens_on(1, Event::Lost(1));
    settle().await;
    assert_eq!(split.node.shards[1].count("Inventory"), 1);
    let totals = split.node.control.node().totals;
    assert_eq!((totals.transports, totals.producers, totals.consumers), (2, 1, 1));
    assert_eq!(split.told_there(), [""; 0]);
}

#[tokio::test]
async fn a_room_shows_where_each_of_its_transports_lives() {
    let split = Split::new().await;
    let room = split.node.get("/media/room/r").await;
    assert_eq!(room.data()["shard"], 0, "where it started");
    let peers = room.data()["peers"].as_array().unwrap().clone();
    let shards: BTreeMap<&str, &Value> = peers
        .iter()
        .map(|peer| (peer["peerId"].as_str().unwrap(), &peer["transports"][0]["shard"]))
        .collect();
    assert_eq!(shards, BTreeMap::from([("alice", &json!(0)), ("bob", &json!(1))]));
    assert_eq!(spread(&split.node).await, [1, 1, 0]);
}

#[tokio::test]
async fn commands_go_to_the_shard_of_the_transport_and_not_of_its_room() {
    let split = Split::new().await;
    let consumer = split.consume().await;
    let node = &split.node;
    for path in [
        format!("/media/transport/{}/connect", split.recv),
        format!("/media/consumer/{consumer}/pause"),
        format!("/media/consumer/{consumer}/resume"),
    ] {
        let body = if path.contains("connect") { super::harness::dtls() } else { json!({}) };
        let done = node.post(&path, body).await;
        assert!(done.status.is_success(), "{path}: {done:?}");
    }
    let camera = node.producer("r", "bob", &split.recv).await;
    node.consume(("r", "alice"), &split.send, &camera).await.id("id");
    let told = node.shards[1].told();
    let expected = [
        "CreateTransport",
        "CreateConsumer",
        "ConnectTransport",
        "PauseConsumer",
        "PauseConsumer",
        "CreateProducer",
    ];
    assert_eq!(told, expected);
    let back = mirrors(node, 0);
    assert!(matches!(&back[..], [Some(mirror)] if mirror.origin == ShardId(1)), "{back:?}");
    node.post("/media/room/r/leave", json!({ "peerId": "bob" })).await;
    assert_eq!(node.shard().count("CloseProducer"), 1, "the mirror of bob's");
    assert_eq!(node.shards[1].count("CloseTransport"), 1);
    assert_eq!(node.shards[2].told(), [""; 0]);
}

#[tokio::test]
async fn a_big_room_uses_all_shards_and_small_ones_one_each() {
    for (shards, subscribers) in [(2, 200), (4, 1000)] {
        let node = Node::start(shards);
        node.room("stage").await;
        node.transport("stage", "star").await;
        for n in 0..subscribers {
            node.transport("stage", &format!("fan-{n}")).await;
        }
        let even = subscribers / u64::from(shards);
        let spread = spread(&node).await;
        let fair = even * 4 / 5..=even * 6 / 5;
        assert!(spread.iter().all(|count| fair.contains(count)), "{spread:?}");
    }
    let node = Node::start(2);
    for (room, peers) in [("four", 4), ("twenty", 20)] {
        node.room(room).await;
        for peer in 0..peers {
            for _ in ["send", "recv"] {
                node.transport(room, &format!("peer-{peer}")).await;
            }
        }
    }
    assert_eq!(spread(&node).await, [8, 40]);
}

#[tokio::test]
async fn a_room_that_was_left_is_counted_nowhere() {
    let split = Split::new().await;
    split.consume().await;
    split.node.delete(&format!("/media/transport/{}", split.send)).await;
    assert_eq!(spread(&split.node).await, [0, 1, 0]);
    split.node.shards[1].refuses(Refusal::Overloaded);
    let body = opus("r", "bob", &split.recv);
    assert_eq!(split.node.post("/media/producer", body).await.status, 503);
    for peer in ["alice", "bob"] {
        split.node.post("/media/room/r/leave", json!({ "peerId": peer })).await;
    }
    assert_eq!(spread(&split.node).await, [0, 0, 0]);
    let status = split.node.get("/admin/status").await;
    assert_eq!((&status.data()["rooms"], &status.data()["producers"]), (&json!(0), &json!(0)));
}
