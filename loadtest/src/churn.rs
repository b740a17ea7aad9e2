//! Transports that join and leave while a run goes on.
//!
//! A few threads call the API: join `k` is due at a fixed rate from the start on, whatever became of
//! those before it, and belongs to the thread `k mod threads`. A join is one receiving transport:
//! create, connect, consume everything in its room; the worker sees the rest, to the first packet.
//! It leaves by the API after a seeded stay.
//!
//! Nothing begins that is due after the window, and what was due within it and found no thread free
//! until shortly after is told ([`Churner::unstarted`]): a backlog is never dropped in silence. The
//! last joins of a window are given time for their first packet ([`Churner::is_settled`]); then the
//! threads end, and take all they joined out, with [`Churning::end`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// How long after the window a join that was due within it may still begin.
const START_GRACE: u64 = SECOND / 2;

/// How long after the window a join may wait for its first packet, for a key frame most of it.
pub(crate) const JOIN_GRACE: u64 = 2 * SECOND;

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
    /// Joins due within the window that a thread has begun.
    pub(crate) begun: AtomicU64,
    /// Of these, those that the API refused.
    pub(crate) refused: AtomicU64,
}

impl<'a> Churner<'a> {
    /// When a join is due, ns of the run.
    fn due(&self, number: u64) -> u64 {
        let since = u128::from(number) * u128::from(SECOND) / u128::from(self.joins_per_s.max(1));
        self.starts.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// The first join that is due at `at` or later.
    fn due_from(&self, at: u64) -> u64 {
        let since = u128::from(at.saturating_sub(self.starts)) * u128::from(self.joins_per_s);
        u64::try_from(since.div_ceil(u128::from(SECOND))).unwrap_or(u64::MAX)
    }

    /// Joins due within the window, by the schedule alone; none before its ends are known.
    fn due_in_window(&self) -> u64 {
        let count = |window: Range<u64>| self.due_from(window.end) - self.due_from(window.start);
        self.window.range().map_or(0, count)
    }

    /// Of these, those for which no thread was free in time.
    fn unstarted(&self) -> u64 {
        self.due_in_window().saturating_sub(self.begun.load(Ordering::Relaxed))
    }

    /// True when it is known of all joins of the window what became of them; `known` are those of
    /// which the workers know.
    pub(crate) fn is_settled(&self, known: u64) -> bool {
        known + self.refused.load(Ordering::Relaxed) >= self.due_in_window()
    }

    /// When join `next` is to be begun: never, beyond the window or too long after it.
    fn begins(&self, next: u64) -> u64 {
        let due = self.due(next);
        let Some(window) = self.window.range() else { return due };
        let late = self.clock.now() > window.end.saturating_add(START_GRACE);
        if due >= window.end || late { u64::MAX } else { due }
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
            let at = self.begins(next).min(leave_at);
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
            let counts = u64::from(self.window.contains(self.due(next)));
            self.begun.fetch_add(counts, Ordering::Relaxed);
            match self.join(next, &mut tally) {
                Ok(home) => {
                    leaves.push(Reverse((self.clock.now() + self.stay(next), next)));
                    homes.insert(next, home);
                }
                Err(_) => {
                    tally.counts.joins_failed += counts;
                    self.refused.fetch_add(counts, Ordering::Relaxed);
                }
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
    churner: &'scope Churner<'scope>,
    stop: Sender<()>,
    threads: Vec<ScopedJoinHandle<'scope, Tally>>,
}

impl<'scope> Churning<'scope> {
    /// Starts them.
    pub(crate) fn start(
        scope: &'scope Scope<'scope, '_>,
        churner: &'scope Churner<'scope>,
    ) -> Self {
        let (stop, stopped) = bounded(0);
        let threads = (0..churner.threads)
            .map(|thread| {
                let stopped = stopped.clone();
                scope.spawn(move || churner.run(thread, &stopped))
            })
            .collect();
        Self { churner, stop, threads }
    }

    /// Ends them; what they counted.
    pub(crate) fn end(self) -> Result<Tally, String> {
        drop(self.stop);
        let mut tally = Tally::default();
        for thread in self.threads {
            tally.add(&thread.join().map_err(|_| "a joining thread panicked")?);
        }
        tally.counts.joins_begun = self.churner.due_in_window();
        tally.counts.joins_unstarted = self.churner.unstarted();
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;
    use crate::clock::MILLISECOND;

    /// A room that nobody serves, and what joins it needs.
    struct Scene {
        api: Api,
        window: Marks,
        homes: Homes,
        rooms: [Joined; 1],
        clock: Clock,
    }

    impl Scene {
        fn new(window: Range<u64>) -> Self {
            let args = Args::parse_from(["loadtest", "churn", "--url=http://127.0.0.1:1"]);
            let scene = Self {
                api: Api::new(&args).unwrap(),
                window: Marks::default(),
                homes: Homes::new(&[]),
                rooms: [Joined {
                    id: "room".into(),
                    capabilities: serde_json::Value::Null,
                    produced: Vec::new(),
                }],
                clock: Clock::start(),
            };
            scene.window.begin(window.start);
            scene.window.end(window.end);
            scene
        }

        fn churner(&self, starts: u64, joins_per_s: u64) -> Churner<'_> {
            Churner {
                api: &self.api,
                clock: self.clock,
                homes: &self.homes,
                fingerprint: "",
                rooms: &self.rooms,
                window: &self.window,
                starts,
                joins_per_s,
                stay: SECOND,
                threads: 1,
                seed: 3,
                begun: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            }
        }
    }

    #[test]
    fn joins_are_due_at_an_even_rate_and_stays_are_around_their_average() {
        let scene = Scene::new(0..SECOND);
        let churner = scene.churner(7, 40);
        assert_eq!((churner.due(0), churner.due(1)), (7, 7 + 25 * MILLISECOND));
        assert_eq!(churner.due(40 * 3_600), 7 + 3_600 * SECOND);
        let stays: Vec<_> = (0..1_000).map(|number| churner.stay(number)).collect();
        assert!(stays.iter().all(|stay| (SECOND / 2..SECOND * 3 / 2).contains(stay)));
        let mean = stays.iter().sum::<u64>() / 1_000;
        assert!(mean.abs_diff(SECOND) < SECOND / 20);
        assert_eq!(churner.stay(9), churner.stay(9));
    }

    #[test]
    fn how_many_joins_are_due_in_a_window_follows_from_the_schedule_alone() {
        for (window, rate) in [(0..SECOND, 40), (333..7 * SECOND + 1, 600), (9..10, 10_000)] {
            let scene = Scene::new(window.clone());
            let churner = scene.churner(7, rate);
            let due = (0..10_000).filter(|number| window.contains(&churner.due(*number))).count();
            assert_eq!(churner.due_in_window(), u64::try_from(due).unwrap(), "{window:?} {rate}");
        }
    }

    #[test]
    fn joins_for_which_no_thread_was_free_in_time_are_told() {
        let scene = Scene::new(SECOND..2 * SECOND);
        let churner = scene.churner(0, 1_500);
        let (stop, stopped) = bounded(0);
        drop(stop);
        let tally = churner.run(0, &stopped);
        assert_eq!(tally.counts.joins_failed, 0);
        assert_eq!((churner.due_in_window(), churner.unstarted()), (1_500, 1_500));
        churner.begun.store(1_400, Ordering::Relaxed);
        assert_eq!(churner.unstarted(), 100);
    }

    #[test]
    fn a_server_that_refuses_makes_joins_fail_and_nothing_else() {
        let scene = Scene::new(0..20 * MILLISECOND);
        let churner = scene.churner(0, 100);
        let (stop, stopped) = bounded(0);
        let tally = std::thread::scope(|scope| {
            let run = scope.spawn(|| churner.run(0, &stopped));
            while !churner.is_settled(0) {
                std::thread::yield_now();
            }
            drop(stop);
            run.join().unwrap()
        });
        let counts = tally.counts;
        assert_eq!((counts.joins_failed, counts.joins_done), (2, 0));
        assert_eq!((churner.due_in_window(), churner.unstarted()), (2, 0));
    }
}
