//! The clients of one room, driven together until something has happened.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::http::Api;
use super::media::{Kind, Source};
use super::servers::{PATIENCE, clock};
use super::stock::{Net, Numbers, OWN_NUMBERS, Stock, text};

/// A client of the call, by its place.
pub(crate) type Seat = usize;

pub(crate) struct Call {
    pub(crate) api: Api,
    pub(crate) room: String,
    pub(crate) capabilities: Value,
    pub(crate) clients: Vec<Stock>,
    /// What each seat consumes: SSRC of the source.
    consumed: Vec<(Seat, u32)>,
    next_ssrc: u32,
}

impl Call {
    pub(crate) fn new(api: Api, room: &str) -> Self {
        let made = api.post("/media/room", &json!({ "roomId": room }));
        assert_eq!(made.status, 201, "{made:?}");
        Self {
            api,
            room: room.to_owned(),
            capabilities: made.data()["routerRtpCapabilities"].take(),
            clients: Vec::new(),
            consumed: Vec::new(),
            next_ssrc: 5_000_000,
        }
    }

    /// A peer's transport in one direction, on its way to be connected.
    pub(crate) fn open(&mut self, peer: &str, direction: &str, net: Net) -> Seat {
        let path = format!("/media/transport/{}", self.room);
        let made = self.api.post(&path, &json!({ "peerId": peer, "direction": direction }));
        assert_eq!(made.status, 201, "{made:?}");
        let made = made.data();
        let own = direction == "send";
        let numbers = if own { OWN_NUMBERS } else { Numbers::of_room(&self.capabilities) };
        let mut client = Stock::new(net, peer, &made, &numbers);
        let connected = self.api.post(&client.connect_path(), &client.connect_body());
        assert_eq!(connected.status, 201, "{connected:?}");
        client.call(&made);
        self.clients.push(client);
        self.clients.len() - 1
    }

    /// Publishes a source; its producer's id.
    pub(crate) fn publish(&mut self, seat: Seat, kind: Kind) -> String {
        let client = &mut self.clients[seat];
        let ssrc = self.next_ssrc;
        self.next_ssrc += 10;
        let source = Source::new(kind, ssrc, &client.sources.len().to_string(), clock());
        let made = self.api.post(
            "/media/producer",
            &json!({
                "roomId": self.room, "peerId": client.peer, "transportId": client.transport,
                "kind": kind.name(), "rtpParameters": source.rtp_parameters(),
            }),
        );
        assert_eq!(made.status, 201, "{made:?}");
        client.send(source);
        text(&made.data()["producerId"])
    }

    /// Consumes a producer whose source has that SSRC.
    pub(crate) fn consume(&mut self, seat: Seat, producer: &str, ssrc: u32) -> String {
        let client = &mut self.clients[seat];
        let made = self.api.post(
            "/media/consumer",
            &json!({
                "roomId": self.room, "peerId": client.peer, "transportId": client.transport,
                "producerId": producer, "rtpCapabilities": self.capabilities,
            }),
        );
        assert_eq!(made.status, 201, "{made:?}");
        client.expect(&made.data());
        self.consumed.push((seat, ssrc));
        text(&made.data()["id"])
    }

    /// Everyone publishes audio and video over the nets in turn, and consumes everyone else's.
    pub(crate) fn full(api: Api, room: &str, peers: usize, nets: &[Net]) -> Self {
        let mut call = Self::new(api, room);
        let mut published = Vec::new();
        for (n, net) in (0..peers).zip(nets.iter().cycle()) {
            let seat = call.open(&format!("peer-{n}"), "send", *net);
            for kind in [Kind::Audio, Kind::Video] {
                let producer = call.publish(seat, kind);
                let ssrc = call.clients[seat].sources.last().unwrap().ssrc;
                published.push((n, producer, ssrc));
            }
        }
        for (n, net) in (0..peers).zip(nets.iter().cycle()) {
            let seat = call.open(&format!("peer-{n}"), "recv", *net);
            for (_, producer, ssrc) in published.iter().filter(|(owner, ..)| *owner != n) {
                call.consume(seat, producer, *ssrc);
            }
        }
        call.all_connect();
        call
    }

    /// One peer that publishes audio and one that consumes it, connected.
    pub(crate) fn pair(api: Api, room: &str) -> Self {
        let mut call = Self::new(api, room);
        let alice = call.open("alice", "send", Net::Udp4);
        let producer = call.publish(alice, Kind::Audio);
        let bob = call.open("bob", "recv", Net::Udp4);
        let ssrc = call.clients[alice].sources[0].ssrc;
        call.consume(bob, &producer, ssrc);
        call.all_connect();
        call
    }

    pub(crate) fn all_connect(&mut self) {
        self.until("all are connected", |call| call.clients.iter().all(|c| c.connected));
    }

    /// Waits until everyone has heard what it consumes, then sees that from there on every packet
    /// arrives, once and in order.
    pub(crate) fn all_media_arrives(&mut self, packets: u64) {
        let consumed = self.consumed.clone();
        let last = |call: &Self, seat: Seat, ssrc: u32| {
            let heard = call.clients[seat].heard.iter().rev();
            heard.clone().find(|(source, _)| *source == ssrc).map(|(_, number)| *number)
        };
        self.until("all have heard something", |call| {
            consumed.iter().all(|(seat, ssrc)| last(call, *seat, *ssrc).is_some())
        });
        let sources = self.clients.iter().flat_map(|client| &client.sources);
        let first: Vec<(u32, u64)> = sources.map(|source| (source.ssrc, source.next)).collect();
        let first_of = |ssrc: u32| first.iter().find(|(of, _)| *of == ssrc).unwrap().1;
        self.until("all have heard all", |call| {
            let reached = |(seat, ssrc): &(Seat, u32)| {
                last(call, *seat, *ssrc).is_some_and(|at| at >= first_of(*ssrc) + packets)
            };
            consumed.iter().all(reached)
        });
        for (seat, ssrc) in consumed {
            let range = first_of(ssrc)..first_of(ssrc) + packets;
            let heard = self.clients[seat].heard.iter();
            let of_source = heard.filter(|(source, n)| *source == ssrc && range.contains(n));
            let numbers: Vec<u64> = of_source.map(|(_, number)| *number).collect();
            assert_eq!(numbers, range.collect::<Vec<_>>(), "seat {seat}, source {ssrc}");
        }
    }

    /// Drives all clients until the condition holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = clock() + PATIENCE;
        while !holds(self) {
            assert!(clock() < deadline, "in vain: {what}");
            self.turn();
        }
    }

    /// Waits for the next datagram or deadline, and lets every client act.
    pub(crate) fn turn(&mut self) {
        for client in &mut self.clients {
            client.turn();
        }
        let due = self.clients.iter().filter_map(Stock::next_deadline).min();
        let wait = due.map_or(PATIENCE, |due| due.saturating_duration_since(clock()));
        let timeout = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap(),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let mut sockets: Vec<_> =
            self.clients.iter().map(|client| PollFd::new(client, PollFlags::IN)).collect();
        poll(&mut sockets, Some(&timeout)).unwrap();
    }

    pub(crate) fn leave(&self, peer: &str) {
        let path = format!("/media/room/{}/leave", self.room);
        let left = self.api.post(&path, &json!({ "peerId": peer }));
        assert_eq!(left.data()["success"], true);
    }

    pub(crate) fn heard(&self, seat: Seat) -> usize {
        self.clients[seat].heard.len()
    }
}

impl Stock {
    pub(crate) fn connect_path(&self) -> String {
        format!("/media/transport/{}/connect", self.transport)
    }

    pub(crate) fn connect_body(&mut self) -> Value {
        json!({ "dtlsParameters": {
            "role": "client",
            "fingerprints": [{ "algorithm": "sha-256", "value": self.fingerprint() }],
        }})
    }
}
