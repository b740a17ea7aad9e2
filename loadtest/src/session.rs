//! Joined rooms that can be measured, once or again and again at other rates.
//!
//! Runs on the main thread: it starts the workers, joins, and each second of a window takes what the
//! workers counted and looks at the server's process. Everything else sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::api::Api;
use crate::args::Args;
use crate::clock::{Clock, MILLISECOND, SECOND};
use crate::display::{DRAW_EVERY, Display, Live};
use crate::dtls::Identity;
use crate::join::{Joiner, leave, wait_until};
use crate::payload::Kind;
use crate::plan::Plan;
use crate::probe::{Busiest, HostTicks, ThreadTime, Usage, busiest, cpu_of, threads_of};
use crate::schedule::{Pace, Timetable};
use crate::scrape::{Reading, ServerSays};
use crate::series::{Moment, Surrounding, float};
use crate::socket::SocketOptions;
use crate::tally::{Brief, Counts, Stages, Tally};
use crate::worker::{Order, Progress, Settings, Worker};

/// How long everything may take to connect and begin after the last join.
const BEGIN_TIMEOUT: u64 = 20 * SECOND;

/// How long packets of a window may still arrive after it.
const GRACE: u64 = SECOND / 2;

/// Between sending an order and the time it speaks of, so that all threads know in time.
const NOTICE: u64 = 50 * MILLISECOND;

/// How long a worker may take to hand over what it counted.
const HAND_TIMEOUT: Duration = Duration::from_secs(10);

/// One publication as `main` follows it.
#[derive(Debug)]
struct Flow {
    timetable: Timetable,
    kind: Kind,
    planned_pps: u64,
    receivers: u64,
}

/// Rooms with all their peers in them.
pub(crate) struct Session {
    clock: Clock,
    plan: Plan,
    api: Api,
    workers: Vec<Worker>,
    failed: Receiver<String>,
    flows: Vec<Flow>,
    stages: Stages,
    gro_refused: bool,
    measured: bool,
    server_pid: Option<u32>,
}

/// What one measured window left to be judged.
#[derive(Debug)]
pub(crate) struct Observed {
    /// Nanoseconds measured.
    pub(crate) window: u64,
    /// Streams in the plan.
    pub(crate) subscriptions: usize,
    /// Generator threads.
    pub(crate) threads: usize,
    /// What all workers counted.
    pub(crate) tally: Tally,
    /// What the server used.
    pub(crate) server: Option<Usage>,
    /// The server's busiest thread.
    pub(crate) busiest: Option<Busiest>,
    /// What the server says about itself.
    pub(crate) says: Option<ServerSays>,
    /// Second by second.
    pub(crate) series: Vec<Moment>,
    /// Percent of the host's time that the hypervisor gave to others.
    pub(crate) stolen_percent: f64,
    /// What failed while it ran.
    pub(crate) failures: Vec<String>,
}

/// One look at the server's process and at the host.
struct Look {
    usage: Option<Usage>,
    threads: Vec<ThreadTime>,
    ticks: HostTicks,
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
        if let Some(pid) = args.server_pid {
            Usage::of(pid).ok_or_else(|| format!("--server-pid: there is no process {pid}"))?;
        }
        let identity = Identity::generate()?;
        let fingerprint = identity.fingerprint().to_owned();
        let (failures, failed) = unbounded();
        let progress = Arc::new(Progress { connected: 0.into(), begun: 0.into(), failures });
        let sockets = SocketOptions { gro: !args.no_gro, kernel_stamps: args.kernel_stamps };
        let settings = Settings { clock, identity, sockets, sample: args.sample };
        let workers = (0..threads)
            .zip(args.seed..)
            .map(|(_, seed)| Worker::start(settings.clone(), seed, Arc::clone(&progress)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        let api = Api::new(&args.url, args.token.as_deref());
        let shown = display.take().map(|display| {
            let whole = (plan.transports(), plan.subscriptions());
            display.joining(clock, Arc::clone(&progress), whole)
        });
        let mut joiner = Joiner::new(&api, clock, &workers, &fingerprint, nanoseconds(args.ramp));
        let joined = joiner.join(&plan);
        let stages = std::mem::take(&mut joiner.stages);
        let begun = joined.and_then(|()| await_begin(&clock, &plan, &progress, &failed));
        *display = shown.map(crate::display::Joining::end);
        begun?;
        let flows = flows(&plan);
        let server_pid = args.server_pid;
        let (gro_refused, measured) = (false, false);
        Ok(Self {
            clock,
            plan,
            api,
            workers,
            failed,
            flows,
            stages,
            gro_refused,
            measured,
            server_pid,
        })
    }

    /// Lets time pass.
    pub(crate) fn settle(&self, name: &str, whole: u64, display: &mut Option<Display>) {
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

    /// The kind of media whose rate [`pace`](Self::pace) changes: video, where there is any.
    pub(crate) fn paced_kind(&self) -> Kind {
        let video = self.flows.iter().any(|flow| flow.kind == Kind::Video);
        if video { Kind::Video } else { Kind::Audio }
    }

    /// Packets per second that subscribers should receive of a kind when everything is at the
    /// plan's rates.
    pub(crate) fn planned_pps(&self, kind: Kind) -> u64 {
        let of_kind = self.flows.iter().filter(|flow| flow.kind == kind);
        of_kind.map(|flow| flow.planned_pps * flow.receivers).sum()
    }

    /// Changes the rate of all streams of a kind, in millionths of the plan's.
    pub(crate) fn pace(&mut self, kind: Kind, millionths: u64) {
        let pace = Pace { at: self.clock.now() + NOTICE, kind, millionths };
        for worker in &self.workers {
            worker.order(Order::Pace(pace));
        }
        for flow in self.flows.iter_mut().filter(|flow| flow.kind == kind) {
            flow.timetable = flow.timetable.paced(pace, flow.planned_pps);
        }
        wait_until(&self.clock, pace.at);
    }

    /// Measures a window that begins now.
    pub(crate) fn measure(
        &mut self,
        window: u64,
        display: &mut Option<Display>,
    ) -> Result<Observed, String> {
        let early = self.early()?;
        let said = self.says();
        let from = self.clock.now() + NOTICE;
        let until = from + window;
        for worker in &self.workers {
            worker.order(Order::Measure { from, until });
        }
        wait_until(&self.clock, from);
        let first = self.look();
        let mut whole = Tally::default();
        whole.counts.add(&self.brief()?.counts);
        whole.counts.add(&early);
        let (mut before, mut begins, mut series) = (self.look(), from, Vec::new());
        let mut live = Live { window, ..Live::default() };
        while begins < until {
            let ends = (begins + SECOND).min(until);
            self.watch(from, ends, &mut live, display);
            let now = self.look();
            let brief = self.brief()?;
            whole.counts.add(&brief.counts);
            whole.cpu += brief.cpu;
            let around = self.surrounding(from, begins..ends, &whole, (&before, &now));
            let moment = Moment::new(&brief, &around);
            live.last = Some(moment);
            live.elapsed = ends - from;
            live.server_ns_per_packet = used(&first, &now)
                .filter(|_| whole.counts.delivered > 0)
                .map(|usage| float(usage.cpu_ns()) / float(whole.counts.delivered));
            show(display, |display| display.second(&live));
            series.push(moment);
            (before, begins) = (now, ends);
        }
        let says = self.says().zip(said).map(|(after, before)| after.since(&before));
        wait_until(&self.clock, until + GRACE);
        whole.add(&Tally { cpu: 0, ..self.hand()? });
        show(display, Display::clear);
        whole.stages.add(&self.stages);
        whole.gro_refused |= self.gro_refused;
        let server = used(&first, &before);
        let mut failures: Vec<_> = self.failed.try_iter().collect();
        if self.server_pid.is_some() && server.is_none() {
            failures.push("the server's process ended".into());
        }
        Ok(Observed {
            window,
            subscriptions: self.plan.subscriptions(),
            threads: self.workers.len(),
            tally: whole,
            server,
            busiest: busiest(&first.threads, &before.threads, window),
            says,
            series,
            stolen_percent: before.ticks.stolen_percent_since(&first.ticks),
            failures,
        })
    }

    /// Takes what was counted before a window: join stages, and before the first window also what
    /// is counted over the whole run. Faults of an earlier window are not this one's.
    fn early(&mut self) -> Result<Counts, String> {
        let tally = self.hand()?;
        self.stages.add(&tally.stages);
        self.gro_refused |= tally.gro_refused;
        let counts = tally.counts;
        Ok(if std::mem::replace(&mut self.measured, true) {
            Counts::default()
        } else {
            Counts {
                undecryptable: counts.undecryptable,
                unstamped: counts.unstamped,
                renumbered: counts.renumbered,
                send_failures: counts.send_failures,
                receive_drops: counts.receive_drops,
                key_frame_requests: counts.key_frame_requests,
                nacked: counts.nacked,
                ..Counts::default()
            }
        })
    }

    /// Takes all peers out of their rooms and ends the workers.
    pub(crate) fn close(self) -> Result<(), String> {
        for worker in self.workers {
            worker.finish()?;
        }
        leave(&self.api, &self.plan);
        Ok(())
    }

    /// Waits until a time and shows what is known.
    fn watch(&self, from: u64, until: u64, live: &mut Live, display: &mut Option<Display>) {
        loop {
            let now = self.clock.now();
            if now >= until {
                return;
            }
            live.elapsed = now.saturating_sub(from);
            show(display, |display| display.window(live));
            wait_until(&self.clock, (now + DRAW_EVERY).min(until));
        }
    }

    /// What all workers counted since the last time, briefly: it is asked for while they measure,
    /// often on the same core.
    fn brief(&self) -> Result<Brief, String> {
        let mut sum = Brief::default();
        self.ask(Order::Brief, |brief| sum.add(&brief))?;
        Ok(sum)
    }

    /// Closes the books of a window and takes everything that all workers counted.
    fn hand(&self) -> Result<Tally, String> {
        let mut sum = Tally::default();
        self.ask(Order::Close, |tally| sum.add(&tally))?;
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

    fn says(&self) -> Option<Reading> {
        Reading::read(&self.api.metrics()?)
    }

    fn look(&self) -> Look {
        Look {
            usage: self.server_pid.and_then(Usage::of),
            threads: self.server_pid.map(threads_of).unwrap_or_default(),
            ticks: HostTicks::now(),
        }
    }

    fn surrounding(
        &self,
        from: u64,
        second: std::ops::Range<u64>,
        whole: &Tally,
        (before, now): (&Look, &Look),
    ) -> Surrounding {
        let due = |from, until, receivers: fn(&Flow) -> u64| {
            let counters = |flow: &Flow| {
                let counters = flow.timetable.counters(from, until);
                (counters.end - counters.start) * receivers(flow)
            };
            self.flows.iter().map(counters).sum()
        };
        let usage = used(before, now);
        Surrounding {
            at: second.end - from,
            elapsed: second.end - second.start,
            offered: due(second.start, second.end, |_| 1),
            expected: due(second.start, second.end, |flow| flow.receivers),
            expected_so_far: due(from, second.end, |flow| flow.receivers),
            delivered_so_far: whole.counts.delivered,
            // Finer than clock ticks, which a second has only a hundred of.
            server_cpu: usage.map(|usage| match (cpu_of(&before.threads), cpu_of(&now.threads)) {
                (0, _) | (_, 0) => usage.cpu_ns(),
                (before, now) => now.saturating_sub(before),
            }),
            server_resident: usage.map(|usage| usage.resident_bytes),
            stolen_percent: now.ticks.stolen_percent_since(&before.ticks),
        }
    }
}

/// What the server used between two looks.
fn used(before: &Look, after: &Look) -> Option<Usage> {
    Some(after.usage?.since(&before.usage?))
}

fn show(display: &mut Option<Display>, how: impl FnOnce(&mut Display)) {
    if let Some(display) = display {
        how(display);
    }
}

/// The publications of a plan and how many receive each.
fn flows(plan: &Plan) -> Vec<Flow> {
    let mut flows = Vec::new();
    for room in &plan.rooms {
        let subscribers = room.peers.iter().filter(|peer| peer.subscribes).count();
        for peer in &room.peers {
            let others = subscribers - usize::from(peer.subscribes);
            flows.extend(peer.publications.iter().map(|publication| Flow {
                timetable: publication.schedule.into(),
                kind: publication.kind,
                planned_pps: publication.schedule.pps,
                receivers: u64::try_from(others).unwrap_or(u64::MAX),
            }));
        }
    }
    flows
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
pub(crate) fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn what_main_expects_is_what_the_plan_promises() {
        for line in ["loadtest livestream", "loadtest rooms", "loadtest audio --publishers 3"] {
            let plan = Plan::new(&Args::parse_from(line.split(' ')), "x");
            let streams: u64 = flows(&plan).iter().map(|flow| flow.receivers).sum();
            assert_eq!(usize::try_from(streams).unwrap(), plan.subscriptions(), "{line}");
        }
    }
}
