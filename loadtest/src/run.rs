//! One run from arguments to outcome: start workers, join, settle, measure, collect.
//!
//! Runs on the main thread, which sleeps while the workers measure. Joins during the run have
//! threads of their own ([`Churner`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::api::Api;
use crate::args::Args;
use crate::churn::Churner;
use crate::clock::{Clock, MILLISECOND, SECOND};
use crate::dtls::Identity;
use crate::findings::Seen;
use crate::growth::{Growth, Size};
use crate::homes::Homes;
use crate::join::{Joined, Joiner, leave, wait_until};
use crate::marks::Marks;
use crate::outcome::{Observed, Outcome};
use crate::plan::Plan;
use crate::probe::{Host, Usage};
use crate::socket::{SocketOptions, raise_descriptors};
use crate::tally::Tally;
use crate::worker::{Order, Progress, Settings, Worker};

/// How long everything may take to connect and begin after the last join.
const BEGIN_TIMEOUT: u64 = 20 * SECOND;

/// How long packets of the window may still arrive after it.
const GRACE: u64 = SECOND / 2;

/// Between sending the order to measure and the window, so that all threads know in time.
const NOTICE: u64 = 50 * MILLISECOND;

/// Joins during the run go on for this long at most before the window.
const CHURN_LEAD_MAX: u64 = 10 * SECOND;

/// Looks at the size of processes, at most, over a window.
const LOOKS_MAX: u64 = 600;

/// Descriptors that are not clients' sockets, at most.
const DESCRIPTORS_SPARE: usize = 200;

/// Plays one run.
pub(crate) fn run(args: Args) -> Result<Outcome, String> {
    let clock = Clock::start();
    let began_unix = clock.unix_origin() / SECOND;
    let host = Host::look(args.server_pid);
    // Rooms of other runs on the same server must not be met.
    let plan = Plan::new(&args, &format!("{began_unix}-{}", std::process::id()));
    check_descriptors(&plan)?;
    let empty = match args.server_pid {
        Some(pid) => Some(Usage::of(pid).ok_or_else(|| format!("--server-pid: no process {pid}"))?),
        None => None,
    };
    let identity = Identity::generate()?;
    let fingerprint = identity.fingerprint().to_owned();
    let (failures, failed) = unbounded();
    let progress = Arc::new(Progress { connected: 0.into(), begun: 0.into(), failures });
    let settings = settings(&args, &plan, clock, identity);
    let threads =
        args.threads.map_or(host.usable_cpus, |threads| usize::try_from(threads).unwrap_or(1));
    let workers = (0..threads)
        .zip(args.seed..)
        .map(|(_, seed)| Worker::start(settings.clone(), seed, Arc::clone(&progress)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    let api = Api::new(&args.url, args.token.as_deref());
    let homes = Homes::new(&workers);
    let mut joiner = Joiner::new(&api, clock, &homes, &fingerprint, nanoseconds(args.ramp));
    let joined = joiner.join(&plan)?;
    let mut tally = Tally { stages: std::mem::take(&mut joiner.stages), ..Tally::default() };
    await_begin(&clock, &plan, &progress, &failed)?;
    let base_cores = settle(&clock, &args);
    let ground = Ground { args: &args, clock, api: &api, homes: &homes, workers: &workers };
    let measured = play(&ground, &plan, &joined, &fingerprint)?;
    tally.add(&measured.joins);
    for worker in workers {
        tally.add(&worker.finish()?);
    }
    leave(&api, &plan);
    let mut failures: Vec<_> = failed.try_iter().collect();
    if args.server_pid.is_some() && measured.server.is_none() {
        failures.push("the server's process ended".into());
    }
    let (window, server, subscriptions) = (measured.window, measured.server, plan.subscriptions());
    let (growth, own_growth) = (measured.growth, measured.own_growth);
    let transports = plan.transports();
    let seen =
        Seen { window, subscriptions, transports, server, empty, base_cores, growth, own_growth };
    let repairs = plan.conduct.repair;
    let observed = Observed {
        began_unix,
        window,
        subscriptions,
        threads,
        tally,
        server,
        repairs,
        seen,
        failures,
    };
    Ok(Outcome::new(args, host, &observed))
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

/// What a window is played on.
struct Ground<'a> {
    args: &'a Args,
    clock: Clock,
    api: &'a Api,
    homes: &'a Homes<'a>,
    workers: &'a [Worker],
}

/// Plays the window, with joins if the plan has any.
fn play(
    ground: &Ground<'_>,
    plan: &Plan,
    joined: &[Joined],
    fingerprint: &str,
) -> Result<Measured, String> {
    let Ground { args, clock, api, homes, .. } = *ground;
    let churn = plan.churn.filter(|_| !joined.is_empty());
    let lead = churn.map_or(0, |churn| nanoseconds(churn.stay).min(CHURN_LEAD_MAX));
    let window = Marks::default();
    let churner = churn.map(|churn| Churner {
        api,
        clock,
        homes,
        fingerprint,
        rooms: joined,
        window: &window,
        starts: clock.now(),
        joins_per_s: churn.joins_per_s.into(),
        stay: nanoseconds(churn.stay),
        threads: args.behaviour.joiners.into(),
        seed: args.seed,
    });
    std::thread::scope(|scope| {
        let churning = churner.as_ref().map(|churner| Churning::start(scope, churner));
        wait_until(&clock, clock.now() + lead);
        let mut measured = measure(ground, &window);
        if let Some(churning) = churning {
            measured.joins = churning.end()?;
        }
        Ok(measured)
    })
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

/// Lets things calm down; returns what share of a core the server uses meanwhile.
fn settle(clock: &Clock, args: &Args) -> Option<f64> {
    let usage = || args.server_pid.and_then(Usage::of);
    let (from, before) = (clock.now(), usage());
    wait_until(clock, from + nanoseconds(args.settle));
    let used = usage()?.since(&before?).cpu_ns();
    let elapsed = clock.now() - from;
    (elapsed >= SECOND / 2).then(|| float(used) / float(elapsed))
}

/// What the measured window showed from outside.
struct Measured {
    window: u64,
    server: Option<Usage>,
    growth: Growth,
    own_growth: Growth,
    joins: Tally,
}

/// Measures the window.
fn measure(ground: &Ground<'_>, window: &Marks) -> Measured {
    let Ground { args, clock, workers, .. } = ground;
    let from = clock.now() + NOTICE;
    let until = from + nanoseconds(args.duration).max(SECOND);
    window.begin(from);
    window.end(until);
    for worker in *workers {
        worker.order(Order::Measure { from, until });
    }
    let usage = |at| {
        wait_until(clock, at);
        args.server_pid.and_then(Usage::of)
    };
    let before = usage(from);
    let (mut growth, mut own_growth) = (Growth::default(), Growth::default());
    let every = ((until - from) / LOOKS_MAX).max(SECOND);
    let mut at = from;
    while at < until {
        wait_until(clock, at);
        let seconds = float(at - from) / float(SECOND);
        if let Some(size) = args.server_pid.and_then(Size::of) {
            growth.note(seconds, size);
        }
        if let Some(size) = Size::of(std::process::id()) {
            own_growth.note(seconds, size);
        }
        at += every;
    }
    let after = usage(until);
    let server = before.zip(after).map(|(before, after)| after.since(&before));
    wait_until(clock, until + GRACE);
    let joins = Tally::default();
    Measured { window: until - from, server, growth, own_growth, joins }
}

/// The threads of joins during the run.
struct Churning<'scope> {
    stop: Sender<()>,
    threads: Vec<ScopedJoinHandle<'scope, Tally>>,
}

impl<'scope> Churning<'scope> {
    fn start<'env>(scope: &'scope Scope<'scope, 'env>, churner: &'scope Churner<'_>) -> Self {
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
    fn end(self) -> Result<Tally, String> {
        drop(self.stop);
        let mut tally = Tally::default();
        for thread in self.threads {
            tally.add(&thread.join().map_err(|_| "a joining thread panicked")?);
        }
        Ok(tally)
    }
}

/// Waits until every transport is connected and every stream has begun.
fn await_begin(
    clock: &Clock,
    plan: &Plan,
    progress: &Progress,
    failed: &Receiver<String>,
) -> Result<(), String> {
    let (transports, streams) = (plan.transports(), plan.subscriptions());
    let deadline = clock.now() + BEGIN_TIMEOUT;
    loop {
        let now = |count: &std::sync::atomic::AtomicU32| {
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
        if let Ok(reason) = failed.recv_timeout(Duration::from_millis(5)) {
            return Err(format!("a transport failed: {reason}"));
        }
    }
}

/// Numbers here are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "figures are read to a few digits")]
fn float(number: u64) -> f64 {
    number as f64
}

/// Seconds of the command line, which bounds them, as nanoseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 86,400 seconds, as the command line checks"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
