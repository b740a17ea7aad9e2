//! One run from arguments to outcome: start workers, join, settle, measure, collect.
//!
//! Runs on the main thread, which sleeps while the workers measure.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};

use crate::api::Api;
use crate::args::Args;
use crate::clock::{Clock, MILLISECOND, SECOND};
use crate::dtls::Identity;
use crate::join::{Joiner, leave, wait_until};
use crate::outcome::{Observed, Outcome};
use crate::plan::Plan;
use crate::probe::{Host, Usage};
use crate::socket::SocketOptions;
use crate::tally::Tally;
use crate::worker::{Order, Progress, Settings, Worker};

/// How long everything may take to connect and begin after the last join.
const BEGIN_TIMEOUT: u64 = 20 * SECOND;

/// How long packets of the window may still arrive after it.
const GRACE: u64 = SECOND / 2;

/// Between sending the order to measure and the window, so that all threads know in time.
const NOTICE: u64 = 50 * MILLISECOND;

/// Plays one run.
pub(crate) fn run(args: Args) -> Result<Outcome, String> {
    let clock = Clock::start();
    let began_unix = clock.unix_origin() / SECOND;
    let host = Host::look(args.server_pid);
    // Rooms of other runs on the same server must not be met.
    let plan = Plan::new(&args, &format!("{began_unix}-{}", std::process::id()));
    if let Some(pid) = args.server_pid {
        Usage::of(pid).ok_or_else(|| format!("there is no process {pid}"))?;
    }
    let identity = Identity::generate()?;
    let fingerprint = identity.fingerprint().to_owned();
    let (failures, failed) = unbounded();
    let progress = Arc::new(Progress { connected: 0.into(), begun: 0.into(), failures });
    let sockets = SocketOptions { gro: !args.no_gro, kernel_stamps: args.kernel_stamps };
    let settings = Settings { clock, identity, sockets, sample: args.sample };
    let threads =
        args.threads.map_or(host.usable_cpus, |threads| usize::try_from(threads).unwrap_or(1));
    let workers = (0..threads)
        .zip(args.seed..)
        .map(|(_, seed)| Worker::start(settings.clone(), seed, Arc::clone(&progress)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    let api = Api::new(&args.url, args.token.as_deref());
    let mut joiner = Joiner::new(&api, clock, &workers, &fingerprint, nanoseconds(args.ramp));
    joiner.join(&plan)?;
    let stages = std::mem::take(&mut joiner.stages);
    await_begin(&clock, &plan, &progress, &failed)?;
    wait_until(&clock, clock.now() + nanoseconds(args.settle));

    let from = clock.now() + NOTICE;
    let until = from + nanoseconds(args.duration).max(SECOND);
    for worker in &workers {
        worker.order(Order::Measure { from, until });
    }
    let usage = |at| {
        wait_until(&clock, at);
        args.server_pid.and_then(Usage::of)
    };
    let (before, after) = (usage(from), usage(until));
    let server = before.zip(after).map(|(before, after)| after.since(&before));
    wait_until(&clock, until + GRACE);

    let mut tally = Tally::default();
    let threads = workers.len();
    for worker in workers {
        tally.add(&worker.finish()?);
    }
    tally.stages.add(&stages);
    leave(&api, &plan);
    let mut failures: Vec<_> = failed.try_iter().collect();
    if args.server_pid.is_some() && server.is_none() {
        failures.push("the server's process ended".into());
    }
    let window = until - from;
    let subscriptions = plan.subscriptions();
    let observed = Observed { began_unix, window, subscriptions, threads, tally, server, failures };
    Ok(Outcome::new(args, host, &observed))
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

/// Seconds of the command line, which bounds them, as nanoseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 86,400 seconds, as the command line checks"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
