//! Joined rooms that can be measured, once or again and again at other rates.
//!
//! Runs on the main thread: it starts the workers, joins, settles, and changes rates; [`window`]
//! measures. Everything else sleeps.

mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

pub(crate) use self::window::Observed;
use crate::api::Api;
use crate::args::Args;
use crate::clock::{Clock, MILLISECOND, SECOND};
use crate::display::{DRAW_EVERY, Display};
use crate::dtls::Identity;
use crate::flows::Flows;
use crate::homes::Homes;
use crate::join::{Joined, Joiner, leave, wait_until};
use crate::payload::Kind;
use crate::plan::Plan;
use crate::probe::Usage;
use crate::schedule::Pace;
use crate::series::float;
use crate::socket::{SocketOptions, raise_descriptors};
use crate::tally::{Brief, Stages, Tally};
use crate::worker::{Failure, Order, Progress, Settings, Worker};

/// How long everything may take to connect and begin after the last join.
const BEGIN_TIMEOUT: u64 = 20 * SECOND;

/// Between sending an order and the time it speaks of, so that all threads know in time.
const NOTICE: u64 = 50 * MILLISECOND;

/// How long a worker may take to hand over what it counted.
const HAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Descriptors that are not clients' sockets, at most.
const DESCRIPTORS_SPARE: usize = 200;

/// Rooms with all their peers in them.
pub(crate) struct Session {
    args: Args,
    clock: Clock,
    plan: Plan,
    api: Api,
    workers: Vec<Worker>,
    homes: Homes,
    joined: Vec<Joined>,
    fingerprint: String,
    failed: Receiver<Failure>,
    flows: Flows,
    stages: Stages,
    gro_refused: bool,
    measured: bool,
    /// The server's process before the first transport.
    empty: Option<Usage>,
    /// CPU that it used until all of the plan had joined, ns.
    ramp: Option<u64>,
    /// Share of a core that it used while nothing but the base load was there.
    base_cores: Option<f64>,
}

impl Session {
    /// Starts the workers and joins all rooms of the plan. `run` tells these rooms from those of
    /// other runs on the same server.
    pub(crate) fn open(
        args: &Args,
        threads: usize,
        run: &str,
        display: &mut Option<Display>,
    ) -> Result<Self, String> {
        let clock = Clock::start();
        let plan = Plan::new(args, run);
        check_descriptors(&plan)?;
        let empty = match args.server_pid {
            Some(pid) => {
                let usage = Usage::of(pid);
                Some(usage.ok_or_else(|| format!("--server-pid: there is no process {pid}"))?)
            }
            None => None,
        };
        let identity = Identity::generate()?;
        let fingerprint = identity.fingerprint().to_owned();
        let (failures, failed) = unbounded();
        let progress = Arc::new(Progress { connected: 0.into(), begun: 0.into(), failures });
        let settings = settings(args, &plan, clock, identity);
        let workers = (0..threads)
            .zip(args.seed..)
            .map(|(_, seed)| Worker::start(settings.clone(), seed, Arc::clone(&progress)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        let api = Api::new(args)?;
        let shown = display.take().map(|display| {
            let whole = (plan.transports(), plan.subscriptions());
            display.joining(clock, Arc::clone(&progress), whole)
        });
        let homes = Homes::new(&workers);
        let mut joiner = Joiner::new(&api, clock, &homes, &fingerprint, nanoseconds(args.ramp));
        let joined = joiner.join(&plan);
        let stages = std::mem::take(&mut joiner.stages);
        let begun = joined.and_then(|joined| {
            await_begin(&clock, &plan, &progress, &failed)?;
            Ok(joined)
        });
        *display = shown.map(crate::display::Joining::end);
        let joined = begun?;
        let full = args.server_pid.and_then(Usage::of);
        let ramp = empty.as_ref().zip(full).map(|(empty, full)| full.since(empty).cpu_ns());
        let (flows, args) = (Flows::new(&plan), args.clone());
        let (gro_refused, measured, base_cores) = (false, false, None);
        Ok(Self {
            args,
            clock,
            plan,
            api,
            workers,
            homes,
            joined,
            fingerprint,
            failed,
            flows,
            stages,
            gro_refused,
            measured,
            empty,
            ramp,
            base_cores,
        })
    }

    /// Lets things calm down, and looks what the server uses meanwhile.
    pub(crate) fn settle(&mut self, name: &str, whole: u64, display: &mut Option<Display>) {
        let (from, before) = (self.clock.now(), self.usage());
        self.pass(name, whole, display);
        let (after, elapsed) = (self.usage(), self.clock.now() - from);
        let used = before.zip(after).map(|(before, after)| after.since(&before).cpu_ns());
        // Clock ticks say nothing over less.
        let known = used.filter(|_| elapsed >= SECOND / 2);
        self.base_cores = known.map(|used| float(used) / float(elapsed));
    }

    /// Lets time pass.
    fn pass(&self, name: &str, whole: u64, display: &mut Option<Display>) {
        let from = self.clock.now();
        loop {
            let elapsed = self.clock.now() - from;
            if elapsed >= whole {
                return;
            }
            show(display, |display| display.wait(name, elapsed, whole));
            wait_until(&self.clock, from + (elapsed + DRAW_EVERY).min(whole));
        }
    }

    /// The publications as the plan has them.
    pub(crate) fn flows(&self) -> &Flows {
        &self.flows
    }

    /// Changes the rate of all streams of a kind, in millionths of the plan's.
    pub(crate) fn pace(&mut self, kind: Kind, millionths: u64) {
        let pace = Pace { at: self.clock.now() + NOTICE, kind, millionths };
        for worker in &self.workers {
            worker.order(Order::Pace(pace));
        }
        self.flows.pace(pace);
        wait_until(&self.clock, pace.at);
    }

    /// Takes all peers out of their rooms and ends the workers.
    pub(crate) fn close(self) -> Result<(), String> {
        for worker in self.workers {
            worker.finish()?;
        }
        leave(&self.api, &self.plan);
        Ok(())
    }

    /// What all workers counted since the last time, briefly: it is asked for while they measure,
    /// often on the same core.
    fn brief(&self) -> Result<Brief, String> {
        let mut sum = Brief::default();
        self.ask(Order::Brief, |brief| sum.add(&brief))?;
        Ok(sum)
    }

    /// Closes the books of a window and takes everything that all workers counted.
    fn hand_over(&self) -> Result<Tally, String> {
        let mut sum = Tally::default();
        self.ask(Order::HandOver, |tally| sum.add(&tally))?;
        Ok(sum)
    }

    /// Asks all workers and takes their answers.
    fn ask<T>(
        &self,
        order: impl Fn(Sender<T>) -> Order,
        mut take: impl FnMut(T),
    ) -> Result<(), String> {
        let (to, from) = bounded(self.workers.len());
        for worker in &self.workers {
            worker.order(order(to.clone()));
        }
        drop(to);
        for _ in &self.workers {
            let answer = from.recv_timeout(HAND_TIMEOUT);
            take(answer.map_err(|_| "a generator thread no longer answers")?);
        }
        Ok(())
    }

    fn usage(&self) -> Option<Usage> {
        self.args.server_pid.and_then(Usage::of)
    }
}

fn show(display: &mut Option<Display>, how: impl FnOnce(&mut Display)) {
    if let Some(display) = display {
        how(display);
    }
}

/// Makes room for the plan's sockets, or says what is in the way.
fn check_descriptors(plan: &Plan) -> Result<(), String> {
    let descriptors = usize::try_from(raise_descriptors()).unwrap_or(usize::MAX);
    let transports = plan.transports();
    if transports + DESCRIPTORS_SPARE <= descriptors {
        return Ok(());
    }
    // A server tells transports by their addresses, so they cannot share a socket.
    Err(format!(
        "{transports} transports need as many sockets, and `ulimit -Hn` allows {descriptors}"
    ))
}

fn settings(args: &Args, plan: &Plan, clock: Clock, identity: Identity) -> Settings {
    let kernel_stamps = !args.reader_stamps;
    Settings {
        clock,
        identity,
        sockets: SocketOptions { gro: !args.no_gro, kernel_stamps },
        sample: args.sample,
        conduct: plan.conduct,
        gather: if kernel_stamps { args.behaviour.gather_us * 1_000 } else { 0 },
    }
}

/// Waits until every transport is connected and every stream has begun.
fn await_begin(
    clock: &Clock,
    plan: &Plan,
    progress: &Progress,
    failed: &Receiver<Failure>,
) -> Result<(), String> {
    let (transports, streams) = (plan.transports(), plan.subscriptions());
    let deadline = clock.now() + BEGIN_TIMEOUT;
    loop {
        let now = |count: &AtomicU32| {
            usize::try_from(count.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
        };
        let (connected, begun) = (now(&progress.connected), now(&progress.begun));
        if connected >= transports && begun >= streams {
            return Ok(());
        }
        if clock.now() > deadline {
            return Err(format!(
                "{connected} of {transports} transports connected and {begun} of {streams} streams \
                 began within {} s",
                BEGIN_TIMEOUT / SECOND,
            ));
        }
        if let Ok(Failure::Ours(reason) | Failure::Lost(reason)) =
            failed.recv_timeout(Duration::from_millis(5))
        {
            return Err(format!("a transport failed: {reason}"));
        }
    }
}

/// Seconds of the command line, which bounds them, as nanoseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 86,400 seconds, as the command line checks"
)]
pub(crate) fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
