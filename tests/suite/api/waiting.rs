//! Clients that make their transports when they come and connect them when there is something to send
//! or to receive, as those of mediasoup-client do.

use std::time::Duration;

use ringcast::api::ApiOptions;
use ringcast::control::command::{CloseReason, DtlsState, Event, IceState, Inventory};
use ringcast::limits::{
    CONNECT_TIMEOUT, HOUSEKEEPING_PERIOD, Limits, PEER_GRACE, UNUSED_TRANSPORT_MAX,
};
use serde_json::json;
use tokio::time::sleep;

use super::harness::{Node, dtls};
use super::operators::text_of;

/// After so long whatever is due has been done.
const MARGIN: Duration = HOUSEKEEPING_PERIOD.saturating_mul(2);

impl Node {
    async fn connect(&self, transport: &str) -> u16 {
        self.post(&format!("/media/transport/{transport}/connect"), dtls()).await.status.as_u16()
    }

    /// Its client has come.
    async fn comes(&self, transport: &str) {
        assert_eq!(self.connect(transport).await, 201);
        let transport = transport.parse().unwrap();
        let state = IceState::Completed;
        self.happens(Event::IceState { transport, state, remote: None, tcp: false });
        let state = DtlsState::Connected;
        self.happens(Event::DtlsState { transport, state, cipher: None });
    }

    async fn has(&self, transport: &str) -> bool {
        self.get(&format!("/media/transport/{transport}/stats")).await.status == 200
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_alone_can_receive_when_somebody_comes_however_late_that_is() {
    let node = Node::start(1);
    node.room("r").await;
    let [send, receive] = [node.transport("r", "alice").await, node.transport("r", "alice").await];
    node.comes(&send).await;
    sleep(UNUSED_TRANSPORT_MAX * 3).await;
    let theirs = node.transport("r", "bob").await;
    node.comes(&theirs).await;
    let sound = node.producer("r", "bob", &theirs).await;
    assert_eq!(node.consume(("r", "alice"), &receive, &sound).await.status, 201);
    assert_eq!(node.connect(&receive).await, 201);
}

#[tokio::test(start_paused = true)]
async fn who_only_listens_waits_in_an_empty_room_and_is_given_up_at_the_end_of_the_day() {
    let node = Node::start(1);
    node.room("r").await;
    let receive = node.transport("r", "alice").await;
    sleep(UNUSED_TRANSPORT_MAX.saturating_sub(MARGIN)).await;
    assert!(node.has(&receive).await);
    sleep(MARGIN * 2).await;
    assert!(!node.has(&receive).await);
    assert_eq!(node.connect(&receive).await, 404);
    let closed = "ringcast_transports_closed_total{reason=\"never_connected\"} 1\n";
    assert!(text_of(&node, "/metrics").await.contains(closed));
}

#[tokio::test(start_paused = true)]
async fn who_is_lost_leaves_although_a_transport_still_waits() {
    for returns in [false, true] {
        let node = Node::start(1);
        node.room("r").await;
        let [send, receive] =
            [node.transport("r", "alice").await, node.transport("r", "alice").await];
        node.comes(&send).await;
        let (transport, reason) = (send.parse().unwrap(), CloseReason::ConsentLost);
        node.happens(Event::TransportClosed { transport, reason });
        sleep(PEER_GRACE.saturating_sub(MARGIN)).await;
        assert!(node.has(&receive).await, "a page that reloads takes less");
        if returns {
            assert_eq!(node.connect(&receive).await, 201);
        }
        sleep(MARGIN * 2).await;
        assert_eq!(node.has(&receive).await, returns);
    }
}

/// A node with that limit, and the transport that alice uses in its room.
async fn limited(setting: &str) -> (Node, String) {
    let mut limits = Limits::default();
    limits.set(setting.parse().unwrap());
    let node = Node::start_with(1, &ApiOptions { limits, ..ApiOptions::default() });
    node.room("r").await;
    let used = node.transport("r", "alice").await;
    node.comes(&used).await;
    (node, used)
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_gives_way_where_a_limit_is_reached() {
    for setting in ["transports=3", "room-transports=3", "peer-transports=3"] {
        let (node, used) = limited(setting).await;
        let old = node.transport("r", "alice").await;
        sleep(CONNECT_TIMEOUT.saturating_sub(MARGIN)).await;
        let young = node.transport("r", "alice").await;
        let refused = async || {
            let body = json!({ "peerId": "alice", "direction": "send" });
            node.post("/media/transport/r", body).await.status != 201
        };
        assert!(refused().await, "{setting}");
        sleep(MARGIN * 2).await;
        let left = [&used, &old, &young].map(|it| node.has(it));
        let [used, old, young] = left;
        assert_eq!((used.await, old.await, young.await), (true, false, true), "{setting}");
        assert!(!refused().await, "{setting}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_uses_nothing_keeps_nobody_out_of_rooms() {
    for setting in ["room-peers=2", "peers=2", "rooms=1"] {
        let (node, _used) = limited(setting).await;
        let waits = node.transport("r", "alice").await;
        let ghost = node.transport("r", "ghost").await;
        sleep(CONNECT_TIMEOUT + MARGIN).await;
        assert!(!node.has(&ghost).await, "{setting}");
        assert!(node.has(&waits).await, "{setting}: she is there");
        sleep(PEER_GRACE + MARGIN).await;
        let peers = node.get("/media/room/r").await.data()["peers"].as_array().unwrap().len();
        assert_eq!(peers, 1, "{setting}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_lost_while_events_are_leaves_all_the_same() {
    let node = Node::start(1);
    node.room("r").await;
    let [send, receive] = [node.transport("r", "alice").await, node.transport("r", "alice").await];
    node.comes(&send).await;
    let transports = vec![receive.parse().unwrap()];
    node.shard().with(|script| {
        script.inventory = Inventory { transports, ..Inventory::default() };
    });
    node.happens(Event::Lost(1));
    sleep(PEER_GRACE + MARGIN).await;
    assert!(!node.has(&receive).await);
}

#[tokio::test(start_paused = true)]
async fn who_never_connected_does_not_hold_up_a_drain() {
    let node = Node::start(1);
    node.room("r").await;
    let ghost = node.transport("r", "alice").await;
    sleep(CONNECT_TIMEOUT).await;
    node.post("/admin/drain", json!({})).await;
    sleep(MARGIN).await;
    assert!(!node.has(&ghost).await);
}
