//! Brings the plan's peers into their rooms, as browsers would: transport, connect, produce, consume.
//!
//! Runs on `main`'s thread, one blocking call after another, at absolute times over the ramp. All
//! publishers join before the first subscriber, so that every subscriber finds all producers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::never;
use serde_json::Value;

use crate::api::Api;
use crate::clock::Clock;
use crate::endpoint::Opening;
use crate::homes::{Home, Homes};
use crate::marks::Marks;
use crate::parameters;
use crate::payload::Kind;
use crate::plan::{Peer, Plan};
use crate::stream::Subscription;
use crate::tally::{Stage, Stages};
use crate::worker::Order;

/// Waits until a time of the run; nothing can wake it earlier.
pub(crate) fn wait_until(clock: &Clock, at: u64) {
    let left = at.saturating_sub(clock.now());
    if left > 0 {
        let _ = never::<()>().recv_timeout(Duration::from_nanos(left));
    }
}

/// A producer of ours.
#[derive(Debug, Clone)]
pub(crate) struct Produced {
    /// `producerId`.
    pub(crate) producer: String,
    /// The numbers of its encodings.
    pub(crate) numbers: Range<u32>,
    /// Their kind.
    pub(crate) kind: Kind,
    /// The window of its one encoding; none when it has several.
    pub(crate) marks: Option<Arc<Marks>>,
}

/// A room that is in use.
#[derive(Debug)]
pub(crate) struct Joined {
    /// `roomId`.
    pub(crate) id: String,
    /// What our subscribers can receive.
    pub(crate) capabilities: Value,
    /// What is published in it.
    pub(crate) produced: Vec<Produced>,
}

/// The state of joining.
pub(crate) struct Joiner<'a> {
    /// The server.
    pub(crate) api: &'a Api,
    /// The run's time axis.
    pub(crate) clock: Clock,
    /// Where endpoints live.
    pub(crate) homes: &'a Homes,
    /// SHA-256 of the clients' certificate.
    pub(crate) fingerprint: &'a str,
    /// How long each stage took; empty when joins during the run are what is measured.
    pub(crate) stages: Stages,
    starts: u64,
    ramp: u64,
    opened: u64,
    transports: usize,
    records: bool,
}

impl<'a> Joiner<'a> {
    /// Joins will be spread evenly over `ramp` nanoseconds from now.
    pub(crate) fn new(
        api: &'a Api,
        clock: Clock,
        homes: &'a Homes,
        fingerprint: &'a str,
        ramp: u64,
    ) -> Self {
        let starts = clock.now();
        let stages = Stages::default();
        let (opened, transports, records) = (0, 0, true);
        Self { api, clock, homes, fingerprint, stages, starts, ramp, opened, transports, records }
    }

    /// Plays the plan's joins.
    pub(crate) fn join(&mut self, plan: &Plan) -> Result<Vec<Joined>, String> {
        self.transports = plan.transports();
        self.records = plan.churn.is_none();
        let mut joined = Vec::new();
        for room in &plan.rooms {
            let initiator = room.peers.first().map_or("nobody", |peer| &peer.id);
            let router = self.api.create_room(&room.id, initiator)?;
            let capabilities = parameters::of_subscriber(&router);
            joined.push(Joined { id: room.id.clone(), capabilities, produced: Vec::new() });
        }
        for (room, joined) in plan.rooms.iter().zip(&mut joined) {
            for peer in room.peers.iter().filter(|peer| !peer.publications.is_empty()) {
                self.publish(peer, joined)?;
            }
        }
        for (room, joined) in plan.rooms.iter().zip(&joined) {
            for peer in room.peers.iter().filter(|peer| peer.subscribes) {
                self.subscribe(peer, joined)?;
            }
        }
        Ok(joined)
    }

    fn publish(&mut self, peer: &Peer, room: &mut Joined) -> Result<(), String> {
        let (transport, home) = self.open(&room.id, peer, "send")?;
        for publication in &peer.publications {
            let api = self.api;
            let produce = || api.produce(&room.id, &peer.id, &transport, publication);
            let producer = self.timed(Stage::Produce, produce)?;
            let numbers = publication.numbers();
            let mut windows = Vec::new();
            for encoding in &publication.encodings {
                let marks = Arc::new(Marks::default());
                windows.push(Arc::clone(&marks));
                home.order(Order::Publish {
                    place: home.place,
                    publication: publication.clone(),
                    encoding: encoding.clone(),
                    marks,
                });
            }
            let marks = if windows.len() == 1 { windows.pop() } else { None };
            room.produced.push(Produced { producer, numbers, kind: publication.kind, marks });
        }
        Ok(())
    }

    fn subscribe(&mut self, peer: &Peer, room: &Joined) -> Result<(), String> {
        let (transport, home) = self.open(&room.id, peer, "recv")?;
        if room.produced.is_empty() {
            return Ok(());
        }
        let produced: HashMap<&str, &Produced> =
            room.produced.iter().map(|produced| (produced.producer.as_str(), produced)).collect();
        for listed in self.api.producers(&room.id, &peer.id)? {
            // A stranger's producer has no stamps to measure by.
            let Some(produced) = produced.get(listed.producer.as_str()) else { continue };
            let (api, producer) = (self.api, &listed.producer);
            let capabilities = &room.capabilities;
            let consume = || api.consume(&room.id, &peer.id, &transport, producer, capabilities);
            let received = self.timed(Stage::Consume, consume)?;
            let subscription = Subscription {
                received,
                numbers: produced.numbers.clone(),
                kind: produced.kind,
                marks: produced.marks.clone(),
                transient: false,
                since: self.clock.now(),
            };
            home.order(Order::Subscribe { place: home.place, subscription });
        }
        Ok(())
    }

    /// Creates and connects a transport when its time has come.
    fn open(&mut self, room: &str, peer: &Peer, way: &str) -> Result<(String, Home<'a>), String> {
        let count = u64::try_from(self.transports.max(1)).unwrap_or(u64::MAX);
        wait_until(&self.clock, self.starts + self.ramp / count * self.opened);
        self.opened += 1;
        let api = self.api;
        let create = || api.create_transport(room, &peer.id, way);
        let (transport, remote) = self.timed(Stage::Transport, create)?;
        let home = self.homes.take()?;
        let fingerprint = self.fingerprint;
        self.timed(Stage::Connect, || api.connect(&transport, fingerprint))?;
        let opening = Opening { remote, cname: peer.id.clone(), join_due: None };
        home.order(Order::Open { place: home.place, opening });
        Ok((transport, home))
    }

    fn timed<T>(&mut self, stage: Stage, call: impl FnOnce() -> T) -> T {
        let from = self.clock.now();
        let result = call();
        if self.records {
            self.stages.record(stage, self.clock.now() - from);
        }
        result
    }
}

/// Takes the peers out of their rooms; the server may be gone, so nothing is asked of it.
pub(crate) fn leave(api: &Api, plan: &Plan) {
    for room in &plan.rooms {
        for peer in &room.peers {
            if api.leave(&room.id, &peer.id).is_err() {
                return;
            }
        }
    }
}
