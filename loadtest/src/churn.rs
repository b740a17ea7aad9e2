//! Transports that join and leave while a run goes on.
//!
//! A few threads call the API: join `k` is due at a fixed rate from the start on, whatever became of
//! those before it, and belongs to the thread `k mod threads`. A join is one receiving transport:
//! create, connect, consume everything in its room; the worker sees the rest, to the first packet.
//! It leaves by the API after a seeded stay. The threads end, and take all they joined out, with
//! [`Churning::end`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::api::Api;
use crate::clock::{Clock, SECOND};
use crate::endpoint::Opening;
use crate::homes::{Home, Homes};
use crate::join::Joined;
use crate::marks::Marks;
use crate::rng::Rng;
use crate::stream::Subscription;
use crate::tally::{Stage, Tally};
use crate::worker::Order;

/// What all threads of a churn share.
pub(crate) struct Churner<'a> {
    /// The server.
    pub(crate) api: &'a Api,
    /// The run's time axis.
    pub(crate) clock: Clock,
    /// Where endpoints live.
    pub(crate) homes: &'a Homes,
    /// SHA-256 of the clients' certificate.
    pub(crate) fingerprint: &'a str,
    /// The rooms to join; never empty.
    pub(crate) rooms: &'a [Joined],
    /// The measured window, ns of the run.
    pub(crate) window: &'a Marks,
    /// When join 0 is due, ns of the run.
    pub(crate) starts: u64,
    /// Joins per second.
    pub(crate) joins_per_s: u64,
    /// Average stay, ns.
    pub(crate) stay: u64,
    /// Threads.
    pub(crate) threads: u64,
    /// Stays follow from it.
    pub(crate) seed: u64,
}

impl<'a> Churner<'a> {
    /// When a join is due, ns of the run.
    fn due(&self, number: u64) -> u64 {
        let since = u128::from(number) * u128::from(SECOND) / u128::from(self.joins_per_s.max(1));
        self.starts.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// How long it stays: half the average to half as long again.
    fn stay(&self, number: u64) -> u64 {
        let mut rng = Rng::new(self.seed ^ number.wrapping_mul(0xD134_2543_DE82_EF95));
        self.stay / 2 + rng.below(self.stay.max(1))
    }

    /// One thread's joins and leaves, until `stop` has no sender any more.
    pub(crate) fn run(&self, thread: u64, stop: &Receiver<()>) -> Tally {
        let mut tally = Tally::default();
        let mut leaves: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
        let mut homes = HashMap::new();
        let mut next = thread;
        loop {
            let leave_at = leaves.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            let at = self.due(next).min(leave_at);
            let left = Duration::from_nanos(at.saturating_sub(self.clock.now()));
            if !matches!(stop.recv_timeout(left), Err(RecvTimeoutError::Timeout)) {
                break;
            }
            if leave_at <= at {
                let gone = leaves.pop().and_then(|Reverse((_, number))| {
                    homes.remove(&number).map(|home| (number, home))
                });
                if let Some((number, home)) = gone {
                    self.leave(number, home);
                }
                continue;
            }
            match self.join(next, &mut tally) {
                Ok(home) => {
                    leaves.push(Reverse((self.clock.now() + self.stay(next), next)));
                    homes.insert(next, home);
                }
                Err(_) if self.window.contains(self.due(next)) => {
                    tally.counts.joins_begun += 1;
                    tally.counts.joins_failed += 1;
                }
                Err(_) => {}
            }
            next += self.threads;
        }
        for (number, home) in homes {
            self.leave(number, home);
        }
        tally
    }

    fn room(&self, number: u64) -> Option<&'a Joined> {
        let count = u64::try_from(self.rooms.len()).ok()?;
        self.rooms.get(usize::try_from(number.checked_rem(count)?).ok()?)
    }

    fn join(&self, number: u64, tally: &mut Tally) -> Result<Home<'a>, String> {
        let room = self.room(number).ok_or("no room to join")?;
        let peer = format!("joiner-{number}");
        let timed = |stage, tally: &mut Tally, from: u64| {
            tally.stages.record(stage, self.clock.now() - from);
        };
        let from = self.clock.now();
        let (transport, remote) = self.api.create_transport(&room.id, &peer, "recv")?;
        timed(Stage::Transport, tally, from);
        let from = self.clock.now();
        if let Err(reason) = self.api.connect(&transport, self.fingerprint) {
            // The peer has joined; the server may not know how to let it go either.
            let _ = self.api.leave(&room.id, &peer);
            return Err(reason);
        }
        timed(Stage::Connect, tally, from);
        let home = self.homes.take()?;
        let opening = Opening { remote, cname: peer.clone(), join_due: Some(self.due(number)) };
        home.order(Order::Open { place: home.place, opening });
        for produced in &room.produced {
            let from = self.clock.now();
            let (producer, capabilities) = (&produced.producer, &room.capabilities);
            // A transport without streams stays silent, and is counted as failed when it leaves.
            let Ok(received) =
                self.api.consume(&room.id, &peer, &transport, producer, capabilities)
            else {
                break;
            };
            timed(Stage::Consume, tally, from);
            let subscription = Subscription {
                received,
                numbers: produced.numbers.clone(),
                kind: produced.kind,
                marks: None,
                transient: true,
                since: self.clock.now(),
            };
            home.order(Order::Subscribe { place: home.place, subscription });
        }
        Ok(home)
    }

    fn leave(&self, number: u64, home: Home<'_>) {
        home.order(Order::Retire { place: home.place });
        if let Some(room) = self.room(number) {
            let _ = self.api.leave(&room.id, &format!("joiner-{number}"));
        }
        home.order(Order::Close { place: home.place });
        self.homes.give_back(home);
    }
}

/// The threads of joins during a run.
pub(crate) struct Churning<'scope> {
    stop: Sender<()>,
    threads: Vec<ScopedJoinHandle<'scope, Tally>>,
}

impl<'scope> Churning<'scope> {
    /// Starts them.
    pub(crate) fn start(scope: &'scope Scope<'scope, '_>, churner: &'scope Churner<'_>) -> Self {
        let (stop, stopped) = bounded(0);
        let threads = (0..churner.threads)
            .map(|thread| {
                let stopped = stopped.clone();
                scope.spawn(move || churner.run(thread, &stopped))
            })
            .collect();
        Self { stop, threads }
    }

    /// Ends them; what they counted.
    pub(crate) fn end(self) -> Result<Tally, String> {
        drop(self.stop);
        let mut tally = Tally::default();
        for thread in self.threads {
            tally.add(&thread.join().map_err(|_| "a joining thread panicked")?);
        }
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLISECOND;

    #[test]
    fn joins_are_due_at_an_even_rate_and_stays_are_around_their_average() {
        let (api, window) = (Api::new("http://127.0.0.1:1", None), Marks::default());
        let homes = Homes::new(&[]);
        let churner = Churner {
            api: &api,
            clock: Clock::start(),
            homes: &homes,
            fingerprint: "",
            rooms: &[],
            window: &window,
            starts: 7,
            joins_per_s: 40,
            stay: SECOND,
            threads: 1,
            seed: 3,
        };
        assert_eq!((churner.due(0), churner.due(1)), (7, 7 + 25 * MILLISECOND));
        assert_eq!(churner.due(40 * 3_600), 7 + 3_600 * SECOND);
        let stays: Vec<_> = (0..1_000).map(|number| churner.stay(number)).collect();
        assert!(stays.iter().all(|stay| (SECOND / 2..SECOND * 3 / 2).contains(stay)));
        let mean = stays.iter().sum::<u64>() / 1_000;
        assert!(mean.abs_diff(SECOND) < SECOND / 20);
        assert_eq!(churner.stay(9), churner.stay(9));
    }

    #[test]
    fn a_server_that_refuses_makes_joins_fail_and_nothing_else() {
        let (api, window) = (Api::new("http://127.0.0.1:1", None), Marks::default());
        let homes = Homes::new(&[]);
        let room = Joined {
            id: "room".into(),
            capabilities: serde_json::Value::Null,
            produced: Vec::new(),
        };
        let clock = Clock::start();
        window.begin(0);
        window.end(u64::MAX - 1);
        let churner = Churner {
            api: &api,
            clock,
            homes: &homes,
            fingerprint: "",
            rooms: &[room],
            window: &window,
            starts: 0,
            joins_per_s: 10_000,
            stay: SECOND,
            threads: 1,
            seed: 3,
        };
        let (stop, stopped) = bounded(0);
        let tally = std::thread::scope(|scope| {
            let run = scope.spawn(|| churner.run(0, &stopped));
            crate::join::wait_until(&clock, clock.now() + 50 * MILLISECOND);
            drop(stop);
            run.join().unwrap()
        });
        let counts = tally.counts;
        assert!(counts.joins_begun > 0);
        assert_eq!((counts.joins_begun, counts.joins_done), (counts.joins_failed, 0));
    }
}
