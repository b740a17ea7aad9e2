//! Brings the plan's peers into their rooms, as browsers would: transport, connect, produce, consume.
//!
//! Runs on `main`'s thread, one blocking call after another, at absolute times over the ramp. All
//! publishers join before the first subscriber, so that every subscriber finds all producers.

use std::collections::HashMap;
use std::time::Duration;

use crossbeam_channel::never;
use serde_json::Value;

use crate::api::Api;
use crate::clock::Clock;
use crate::parameters;
use crate::plan::{Peer, Plan, Publication};
use crate::stream::Subscription;
use crate::tally::{Stage, Stages};
use crate::worker::{Order, Worker};

/// Waits until a time of the run; nothing can wake it earlier.
pub(crate) fn wait_until(clock: &Clock, at: u64) {
    let left = at.saturating_sub(clock.now());
    if left > 0 {
        let _ = never::<()>().recv_timeout(Duration::from_nanos(left));
    }
}

/// The state of joining.
pub(crate) struct Joiner<'a> {
    /// The server.
    pub(crate) api: &'a Api,
    /// The run's time axis.
    pub(crate) clock: Clock,
    /// Who drives the endpoints.
    pub(crate) workers: &'a [Worker],
    /// SHA-256 of the clients' certificate.
    pub(crate) fingerprint: &'a str,
    /// How long each stage took.
    pub(crate) stages: Stages,
    opened: usize,
    starts: u64,
    ramp: u64,
    transports: usize,
}

/// Where an endpoint lives.
#[derive(Debug, Clone, Copy)]
struct Home<'a> {
    worker: &'a Worker,
    place: usize,
}

impl<'a> Joiner<'a> {
    /// Joins will be spread evenly over `ramp` nanoseconds from now.
    pub(crate) fn new(
        api: &'a Api,
        clock: Clock,
        workers: &'a [Worker],
        fingerprint: &'a str,
        ramp: u64,
    ) -> Self {
        let starts = clock.now();
        let stages = Stages::default();
        Self { api, clock, workers, fingerprint, stages, opened: 0, starts, ramp, transports: 0 }
    }

    /// Plays the plan's joins.
    pub(crate) fn join(&mut self, plan: &Plan) -> Result<(), String> {
        self.transports = plan.transports();
        let mut routers = Vec::new();
        for room in &plan.rooms {
            let initiator = room.peers.first().map_or("nobody", |peer| &peer.id);
            routers.push(self.api.create_room(&room.id, initiator)?);
        }
        let mut producers = HashMap::new();
        for room in &plan.rooms {
            for peer in room.peers.iter().filter(|peer| !peer.publications.is_empty()) {
                self.publish(&room.id, peer, &mut producers)?;
            }
        }
        for (room, router) in plan.rooms.iter().zip(&routers) {
            let capabilities = parameters::of_subscriber(router);
            for peer in room.peers.iter().filter(|peer| peer.subscribes) {
                self.subscribe(&room.id, peer, &producers, &capabilities)?;
            }
        }
        Ok(())
    }

    fn publish<'p>(
        &mut self,
        room: &str,
        peer: &'p Peer,
        producers: &mut HashMap<String, &'p Publication>,
    ) -> Result<(), String> {
        let (transport, home) = self.open(room, peer, "send")?;
        for publication in &peer.publications {
            let api = self.api;
            let produce = || api.produce(room, &peer.id, &transport, publication);
            let producer = self.timed(Stage::Produce, produce)?;
            producers.insert(producer, publication);
            home.worker
                .order(Order::Publish { place: home.place, publication: publication.clone() });
        }
        Ok(())
    }

    fn subscribe(
        &mut self,
        room: &str,
        peer: &Peer,
        producers: &HashMap<String, &Publication>,
        capabilities: &Value,
    ) -> Result<(), String> {
        let (transport, home) = self.open(room, peer, "recv")?;
        for listed in self.api.producers(room, &peer.id)? {
            // A stranger's producer has no stamps to measure by.
            let Some(publication) = producers.get(&listed.producer) else { continue };
            let api = self.api;
            let producer = &listed.producer;
            let consume = || api.consume(room, &peer.id, &transport, producer, capabilities);
            let received = self.timed(Stage::Consume, consume)?;
            let subscription = Subscription {
                received,
                number: publication.number,
                kind: publication.kind,
                schedule: publication.schedule,
                since: self.clock.now(),
            };
            home.worker.order(Order::Subscribe { place: home.place, subscription });
        }
        Ok(())
    }

    /// Creates and connects a transport when its time has come.
    fn open(&mut self, room: &str, peer: &Peer, way: &str) -> Result<(String, Home<'a>), String> {
        let count = u64::try_from(self.transports.max(1)).unwrap_or(u64::MAX);
        let number = u64::try_from(self.opened).unwrap_or(u64::MAX);
        wait_until(&self.clock, self.starts + self.ramp / count * number);
        let api = self.api;
        let create = || api.create_transport(room, &peer.id, way);
        let (transport, remote) = self.timed(Stage::Transport, create)?;
        let workers = self.workers.len().max(1);
        let (turn, place) = (self.opened % workers, self.opened / workers);
        let worker = self.workers.get(turn).ok_or("no generator threads")?;
        self.opened += 1;
        let fingerprint = self.fingerprint;
        self.timed(Stage::Connect, || api.connect(&transport, fingerprint))?;
        worker.order(Order::Open { remote, cname: peer.id.clone() });
        Ok((transport, Home { worker, place }))
    }

    fn timed<T>(&mut self, stage: Stage, call: impl FnOnce() -> T) -> T {
        let from = self.clock.now();
        let result = call();
        self.stages.record(stage, self.clock.now() - from);
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
