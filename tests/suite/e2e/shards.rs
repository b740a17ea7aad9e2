//! One room on several shards: media crosses once for each, and nothing of it stays behind.

use serde_json::json;

use super::call::{Call, Seat};
use super::http::Api;
use super::leaks::rest;
use super::media::Kind;
use super::servers::{Hosted, Process};
use super::stock::Net;

/// More transports than any node here needs to use all of its shards.
const CROWD_MAX: usize = 400;

/// A call whose publisher is heard on every shard.
struct Stage {
    call: Call,
    star: Seat,
    /// Producers with the SSRCs of their sources.
    published: Vec<(String, u32)>,
    /// Seats of its subscribers, by shard.
    fans: Vec<Vec<Seat>>,
    crowd: usize,
}

impl Stage {
    /// A room with a publisher of some kinds, and so many subscribers on each shard.
    fn new(api: Api, room: &str, shards: usize, fans_each: usize, kinds: &[Kind]) -> Self {
        let mut call = Call::new(api, room);
        let star = call.open("star", "send", Net::Udp4);
        let publish = |kind: &Kind| {
            let producer = call.publish(star, *kind);
            (producer, call.clients[star].sources.last().unwrap().ssrc)
        };
        let published = kinds.iter().map(publish).collect();
        let mut stage = Self { call, star, published, fans: vec![Vec::new(); shards], crowd: 0 };
        while let Some(missing) = stage.fans.iter().position(|fans| fans.len() < fans_each) {
            // Where the last one went, the next one goes too, as long as there is room.
            if stage.add_idle() == missing {
                stage.add_fan();
            }
        }
        stage.call.all_connect();
        stage
    }

    fn shard_of(&self, transport: &str) -> usize {
        let view = self.call.api.get(&format!("/media/room/{}", self.call.room)).data();
        let peers = view["peers"].as_array().unwrap().iter();
        let mut transports = peers.flat_map(|peer| peer["transports"].as_array().unwrap());
        let found = transports.find(|found| found["id"] == transport).unwrap();
        usize::try_from(found["shard"].as_u64().unwrap()).unwrap()
    }

    /// A peer that has a transport and never connects it; where that is.
    fn add_idle(&mut self) -> usize {
        self.crowd += 1;
        assert!(self.crowd < CROWD_MAX, "no room for all: {:?}", self.fans);
        let body = json!({ "peerId": format!("idle-{}", self.crowd), "direction": "recv" });
        let made = self.call.api.post(&format!("/media/transport/{}", self.call.room), &body);
        let id = super::stock::text(&made.data()["id"]);
        self.shard_of(&id)
    }

    /// A peer that consumes everything.
    fn add_fan(&mut self) {
        let name = format!("fan-{}", self.call.clients.len());
        let seat = self.call.open(&name, "recv", Net::Udp4);
        for (producer, ssrc) in self.published.clone() {
            self.call.consume(seat, &producer, ssrc);
        }
        let shard = self.shard_of(&self.call.clients[seat].transport);
        self.fans[shard].push(seat);
    }

    /// The shard of the publisher.
    fn origin(&self) -> usize {
        self.shard_of(&self.call.clients[self.star].transport)
    }

    /// Numbers of a source that a seat has heard, lowest first.
    fn heard(&self, seat: Seat, ssrc: u32) -> Vec<u64> {
        let heard = self.call.clients[seat].heard.iter();
        let mut numbers: Vec<u64> =
            heard.filter(|(source, _)| *source == ssrc).map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The publisher sends nothing any more.
    fn silence(&mut self) {
        for source in &mut self.call.clients[self.star].sources {
            source.next_at = None;
        }
    }

    fn everyone_leaves(&self) {
        let view = self.call.api.get(&format!("/media/room/{}", self.call.room)).data();
        for peer in view["peers"].as_array().unwrap() {
            self.call.leave(peer["peerId"].as_str().unwrap());
        }
    }
}

fn counter(api: Api, name: &str, shard: usize) -> f64 {
    api.metric_of(&format!("shard_{name}_total"), shard)
}

#[test]
fn a_publisher_is_heard_on_every_shard_and_crosses_to_each_once() {
    for (shards, steer) in [(2, "auto"), (4, "auto"), (2, "off"), (4, "off")] {
        let args = [format!("--shards={shards}"), format!("--steer={steer}")];
        let server = Hosted::start(&args.each_ref().map(String::as_str));
        let kinds = [Kind::Audio, Kind::Video];
        let mut stage = Stage::new(server.api, "stage", shards, 3, &kinds);
        stage.call.all_media_arrives(60);
        stage.silence();
        let (api, origin) = (server.api, stage.origin());
        let others: Vec<usize> = (0..shards).filter(|shard| *shard != origin).collect();
        stage.call.until("all that was relayed is reported", |_| {
            let taken = others.iter().map(|shard| counter(api, "relayed_in", *shard));
            let taken: Vec<f64> = taken.collect();
            let given = counter(api, "relayed_out", origin);
            taken.iter().all(|copies| *copies >= 120.0) && taken.iter().sum::<f64>() == given
        });
        for shard in &others {
            let copies = counter(api, "relayed_in", *shard);
            let came = counter(api, "packets_in", origin);
            assert!(copies >= 120.0 && copies <= came, "{shard}: {copies} of {came}, for 3 each");
            let sent = counter(api, "packets_out", *shard);
            assert!(sent >= 3.0 * 120.0, "{shard}: {sent} to its own subscribers");
            assert_eq!(counter(api, "relayed_out", *shard), 0.0, "a mirror relays nothing");
            assert_eq!(api.metric_of("shard_mirrors", *shard), 2.0);
            assert_eq!(api.metric_of("shard_producers", *shard), 0.0);
        }
        assert_eq!(counter(api, "relayed_in", origin), 0.0);
        assert_eq!(api.metric_of("shard_mirrors", origin), 0.0);
        assert_eq!(api.metric("shard_relay_dropped_total"), 0.0);
        assert!(api.metric("shard_relay_boxes_total") < counter(api, "relayed_out", origin));
        server.stop();
    }
}

#[test]
fn what_is_lost_behind_a_mirror_is_repaired_by_its_own_shard() {
    let server = Hosted::start(&["--shards=2"]);
    let mut stage = Stage::new(server.api, "lossy", 2, 2, &[Kind::Video]);
    let origin = stage.origin();
    let (lossy, ssrc) = (stage.fans[1 - origin][0], stage.published[0].1);
    let whole = stage.fans[1 - origin][1];
    stage.call.all_media_arrives(10);
    stage.call.clients[lossy].loses_in = Some(5);
    let from = stage.call.clients[stage.star].sources[0].next;
    let is_all = |heard: &[u64]| (from..from + 100).all(|n| heard.binary_search(&n).is_ok());
    stage.call.until("all that was lost is repaired", |call| {
        let of = |seat: Seat| {
            let heard = call.clients[seat].heard.iter().filter(|(source, _)| *source == ssrc);
            let mut numbers: Vec<u64> = heard.map(|(_, number)| *number).collect();
            numbers.sort_unstable();
            numbers
        };
        is_all(&of(lossy)) && is_all(&of(whole))
    });
    let api = server.api;
    stage
        .call
        .until("the repair is reported", |_| counter(api, "retransmitted", 1 - origin) >= 20.0);
    assert_eq!(counter(api, "nacks_received", origin), 0.0, "it never crosses");
    assert_eq!(counter(api, "nacks_sent", origin), 0.0, "nor goes on to the publisher");
    server.stop();
}

#[test]
fn what_a_publisher_sends_again_reaches_mirrors_too() {
    let server = Hosted::start(&["--shards=2"]);
    let mut stage = Stage::new(server.api, "late", 2, 1, &[Kind::Video]);
    let ssrc = stage.published[0].1;
    stage.call.all_media_arrives(10);
    let from = stage.call.clients[stage.star].sources[0].next;
    stage.call.clients[stage.star].loses_out = Some(7);
    let seats: Vec<Seat> = stage.fans.concat();
    stage.call.until("everyone gets what came late", |call| {
        seats.iter().all(|seat| {
            let heard = &call.clients[*seat].heard;
            (from..from + 100).all(|number| heard.contains(&(ssrc, number)))
        })
    });
    assert!(seats.iter().all(|seat| stage.heard(*seat, ssrc).len() >= 100));
    server.stop();
}

#[test]
fn a_pause_is_a_pause_on_every_shard_and_video_goes_on_with_a_key_frame() {
    let server = Hosted::start(&["--shards=2"]);
    let mut stage = Stage::new(server.api, "paused", 2, 1, &[Kind::Video]);
    let (api, producer) = (server.api, stage.published[0].0.clone());
    stage.call.all_media_arrives(10);
    let done = api.post(&format!("/media/producer/{producer}/pause"), &json!({}));
    assert_eq!(done.data()["success"], true);
    // What was under way arrives; then packets come in, and none of them goes out.
    let stage_fans: Vec<Seat> = stage.fans.concat();
    let paused_at = stage.call.clients[stage.star].sources[0].next;
    stage.call.until("the publisher goes on in vain", |call| {
        call.clients[0].sources[0].next >= paused_at + 50
    });
    let last = |call: &Call, seat: Seat| call.clients[seat].heard.last().unwrap().1;
    for seat in &stage_fans {
        assert!(last(&stage.call, *seat) <= paused_at, "{seat} heard on");
    }
    let done = api.post(&format!("/media/producer/{producer}/resume"), &json!({}));
    assert_eq!(done.data()["success"], true);
    stage.call.all_media_arrives(20);
    let done = api.ask("DELETE", &format!("/media/producer/{producer}"), "");
    assert_eq!(done.data()["success"], true);
    stage.call.until("the mirror is gone", |_| {
        api.metric("shard_mirrors") == 0.0 && api.metric("shard_consumers") == 0.0
    });
    server.stop();
}

#[test]
fn rooms_on_several_shards_leave_nothing_behind() {
    let mut process = Process::start(&["--shards=2"]);
    let api = process.api();
    let idle = process.descriptors();
    for (n, end) in ["star first", "fans first", "room", "transport", "all at once"]
        .into_iter()
        .cycle()
        .take(10)
        .enumerate()
    {
        let kinds = [Kind::Audio, Kind::Video];
        let mut stage = Stage::new(api, &format!("room-{n}"), 2, 1, &kinds);
        stage.call.all_media_arrives(5);
        stage.call.until("its mirrors are reported", |_| api.metric("shard_mirrors") == 2.0);
        match end {
            "star first" => stage.call.leave("star"),
            "fans first" => {
                for seat in stage.fans.concat() {
                    stage.call.leave(&stage.call.clients[seat].peer);
                }
            }
            "room" => {
                let path = format!("/media/room/{}", stage.call.room);
                assert_eq!(api.ask("DELETE", &path, "").data()["success"], true);
                continue;
            }
            "transport" => {
                let path = format!("/media/transport/{}", stage.call.clients[0].transport);
                assert_eq!(api.ask("DELETE", &path, "").data()["success"], true);
            }
            _ => {}
        }
        stage.everyone_leaves();
    }
    rest(api, &process, idle);
}
