//! One measured window of joined rooms: what is looked at, when, and what is counted of it.
//!
//! Runs on the main thread. Each second it takes what the workers counted and looks at the server's
//! process. Threads of their own play joins during the run ([`Churner`]) and listen to the server
//! ([`Listening`]); they end with the window.

use std::sync::atomic::AtomicU64;

use super::{NOTICE, Session, nanoseconds, show};
use crate::churn::{Churner, Churning, JOIN_GRACE};
use crate::clock::SECOND;
use crate::display::{DRAW_EVERY, Display, Live};
use crate::findings::Seen;
use crate::growth::{Growth, Size};
use crate::join::wait_until;
use crate::listen::Listening;
use crate::marks::{GRACE, Marks};
use crate::probe::{
    Busiest, HostTicks, ThreadTime, Usage, busiest, cpu_of, process_cpu, threads_of,
};
use crate::scrape::{Reading, ServerSays};
use crate::series::{Moment, Surrounding, float};
use crate::tally::{Counts, Tally};
use crate::worker::{Failure, Order};

/// Joins during the run go on for this long at most before the window.
const CHURN_LEAD_MAX: u64 = 10 * SECOND;

/// Moments of a series at most: beyond so many seconds each covers several.
const MOMENTS_MAX: u64 = 600;

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
    /// What this process used, ns.
    pub(crate) own_cpu: u64,
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
    /// Lost packets were asked for.
    pub(crate) repairs: bool,
    /// What [`Findings`](crate::findings::Findings) need besides.
    pub(crate) seen: Seen,
    /// The server's process ended.
    pub(crate) process_ended: bool,
    /// What failed on our side while it ran.
    pub(crate) failures: Vec<String>,
    /// Why transports were lost while it ran.
    pub(crate) lost: Vec<String>,
}

/// What a window showed until its last packets were given up.
struct Watched {
    whole: Tally,
    first: Look,
    last: Look,
    says: Option<ServerSays>,
    series: Vec<Moment>,
    growth: Growth,
    own_growth: Growth,
}

/// One look at the server's process and at the host.
#[derive(Clone)]
struct Look {
    usage: Option<Usage>,
    threads: Vec<ThreadTime>,
    ticks: HostTicks,
    own_cpu: u64,
}

impl Session {
    /// Measures a window that begins now, or, with joins during the run, when the first of them
    /// have stayed their time.
    pub(crate) fn measure(
        &mut self,
        window: u64,
        display: &mut Option<Display>,
    ) -> Result<Observed, String> {
        let early = self.early()?;
        let marks = Marks::default();
        let churner = self.churner(&marks);
        let (watched, joins) = std::thread::scope(|scope| {
            let churning = churner.as_ref().map(|churner| Churning::start(scope, churner));
            if let Some(churner) = &churner {
                self.pass("joins", churner.stay.min(CHURN_LEAD_MAX), display);
            }
            let said = self.says();
            let shows = display.as_ref().is_some_and(Display::shows);
            let listening =
                said.clone().filter(|_| shows).map(|said| Listening::start(scope, &self.api, said));
            let mut watched = self.watch(window, &marks, (said, listening), display)?;
            if let (Some(churner), Some(window)) = (&churner, marks.range()) {
                self.await_joins(churner, window.end + JOIN_GRACE, &mut watched.whole)?;
            }
            let joins = churning.map(Churning::end).transpose()?;
            Ok::<_, String>((watched, joins.unwrap_or_default()))
        })?;
        let Watched { mut whole, first, last, says, series, growth, own_growth } = watched;
        whole.counts.add(&early);
        whole.add(&joins);
        // All workers have written the window's ends before any counts against them.
        whole.counts.add(&self.brief()?.counts);
        whole.add(&Tally { cpu: 0, ..self.hand_over()? });
        whole.stages.add(&self.stages);
        whole.gro_refused |= self.gro_refused;
        let server = used(&first, &last);
        let process_ended = self.args.server_pid.is_some() && server.is_none();
        let (mut failures, mut lost) = (Vec::new(), Vec::new());
        for failure in self.failed.try_iter() {
            match failure {
                Failure::Ours(reason) => failures.push(reason),
                Failure::Lost(reason) => lost.push(reason),
            }
        }
        let (subscriptions, transports) = (self.plan.subscriptions(), self.plan.transports());
        let (empty, ramp, base_cores) = (self.empty, self.ramp, self.base_cores);
        let seen = Seen { window, transports, server, empty, ramp, base_cores, growth, own_growth };
        Ok(Observed {
            window,
            subscriptions,
            threads: self.workers.len(),
            tally: whole,
            own_cpu: last.own_cpu.saturating_sub(first.own_cpu),
            server,
            busiest: busiest(&first.threads, &last.threads, window),
            says,
            series,
            stolen_percent: last.ticks.stolen_percent_since(&first.ticks),
            repairs: self.plan.conduct.repair,
            seen,
            process_ended,
            failures,
            lost,
        })
    }

    /// Who plays joins during the run, if the plan has any.
    fn churner<'a>(&'a self, window: &'a Marks) -> Option<Churner<'a>> {
        let churn = self.plan.churn.filter(|_| !self.joined.is_empty())?;
        Some(Churner {
            api: &self.api,
            clock: self.clock,
            homes: &self.homes,
            fingerprint: &self.fingerprint,
            rooms: &self.joined,
            window,
            starts: self.clock.now(),
            joins_per_s: churn.joins_per_s.into(),
            stay: nanoseconds(churn.stay),
            threads: self.args.behaviour.joiners.into(),
            seed: self.args.seed,
            begun: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Waits for the first packets of joins that were due in the window; those without one by
    /// `until` have failed.
    fn await_joins(
        &self,
        churner: &Churner<'_>,
        until: u64,
        whole: &mut Tally,
    ) -> Result<(), String> {
        loop {
            whole.counts.add(&self.brief()?.counts);
            let now = self.clock.now();
            if now >= until
                || churner.is_settled(whole.counts.joins_done + whole.counts.joins_failed)
            {
                return Ok(());
            }
            wait_until(&self.clock, (now + DRAW_EVERY).min(until));
        }
    }

    /// Watches a window from just before it until its last packets are given up.
    fn watch(
        &self,
        window: u64,
        marks: &Marks,
        (said, mut listening): (Option<Reading>, Option<Listening>),
        display: &mut Option<Display>,
    ) -> Result<Watched, String> {
        let from = self.clock.now() + NOTICE;
        let until = from + window;
        marks.begin(from);
        marks.end(until);
        for worker in &self.workers {
            worker.order(Order::Measure { from, until });
        }
        wait_until(&self.clock, from);
        let first = self.look();
        let (mut growth, mut own_growth) = (Growth::default(), Growth::default());
        self.note_sizes(0, &mut growth, &mut own_growth);
        let mut whole = Tally::default();
        whole.counts.add(&self.brief()?.counts);
        let (mut before, mut begins, mut series) = (first.clone(), from, Vec::new());
        let mut live = Live { window, ..Live::default() };
        while begins < until {
            let ends = (begins + moment_length(window)).min(until);
            self.wait_and_show(from, ends, &mut live, display);
            let now = self.look();
            let brief = self.brief()?;
            whole.counts.add(&brief.counts);
            whole.cpu += brief.cpu;
            let around = Surrounding {
                says: listening.as_mut().and_then(Listening::latency),
                ..self.surrounding(from, begins..ends, &whole, (&before, &now))
            };
            let moment = Moment::new(&brief, &around);
            live.last = Some(moment);
            live.elapsed = ends - from;
            live.server_ns_per_packet = used(&first, &now)
                .filter(|_| whole.counts.delivered > 0)
                .map(|usage| float(usage.cpu_ns()) / float(whole.counts.delivered));
            show(display, |display| display.second(&live));
            series.push(moment);
            self.note_sizes(ends - from, &mut growth, &mut own_growth);
            (before, begins) = (now, ends);
        }
        let says = self.says().zip(said).map(|(after, before)| after.since(&before));
        wait_until(&self.clock, until + GRACE);
        show(display, Display::clear);
        Ok(Watched { whole, first, last: before, says, series, growth, own_growth })
    }

    fn note_sizes(&self, elapsed: u64, server: &mut Growth, own: &mut Growth) {
        let seconds = float(elapsed) / float(SECOND);
        if let Some(size) = self.args.server_pid.and_then(Size::of) {
            server.note(seconds, size);
        }
        if let Some(size) = Size::of(std::process::id()) {
            own.note(seconds, size);
        }
    }

    /// Takes what was counted before a window: join stages, and before the first window also what
    /// is counted over the whole run. Faults of an earlier window are not this one's.
    fn early(&mut self) -> Result<Counts, String> {
        let tally = self.hand_over()?;
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
                refused: counts.refused,
                receive_drops: counts.receive_drops,
                key_frame_requests: counts.key_frame_requests,
                nacked: counts.nacked,
                resent: counts.resent,
                ..Counts::default()
            }
        })
    }

    /// Waits until a time and shows what is known.
    fn wait_and_show(&self, from: u64, until: u64, live: &mut Live, display: &mut Option<Display>) {
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

    fn says(&self) -> Option<Reading> {
        Reading::read(&self.api.metrics()?)
    }

    fn look(&self) -> Look {
        Look {
            usage: self.usage(),
            threads: self.args.server_pid.map(threads_of).unwrap_or_default(),
            ticks: HostTicks::now(),
            own_cpu: process_cpu(),
        }
    }

    fn surrounding(
        &self,
        from: u64,
        second: std::ops::Range<u64>,
        whole: &Tally,
        (before, now): (&Look, &Look),
    ) -> Surrounding {
        let due = self.flows.due(second.start, second.end);
        let due_so_far = self.flows.due(from, second.end);
        let usage = used(before, now);
        Surrounding {
            at: second.end - from,
            elapsed: second.end - second.start,
            due,
            expected_so_far: due_so_far.map(|due| due.expected),
            delivered_so_far: whole.counts.delivered,
            // Finer than clock ticks, which a second has only a hundred of.
            server_cpu: usage.map(|usage| match (cpu_of(&before.threads), cpu_of(&now.threads)) {
                (0, _) | (_, 0) => usage.cpu_ns(),
                (before, now) => now.saturating_sub(before),
            }),
            own_cpu: now.own_cpu.saturating_sub(before.own_cpu),
            server_resident: usage.map(|usage| usage.resident_bytes),
            stolen_percent: now.ticks.stolen_percent_since(&before.ticks),
            says: None,
        }
    }
}

/// What the server used between two looks.
fn used(before: &Look, after: &Look) -> Option<Usage> {
    Some(after.usage?.since(&before.usage?))
}

/// How long a moment of a window is, ns: whole seconds.
fn moment_length(window: u64) -> u64 {
    window.div_ceil(MOMENTS_MAX * SECOND).max(1) * SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_second_until_there_would_be_too_many() {
        for (seconds, length) in [(1, 1), (600, 1), (601, 2), (3_600, 6), (86_400, 144)] {
            assert_eq!(moment_length(seconds * SECOND), length * SECOND);
            assert!(seconds.div_ceil(length) <= MOMENTS_MAX);
        }
    }
}
