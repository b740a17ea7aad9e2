//! `--find-limit`: the highest rate that keeps the objectives, and what ran out above it.
//!
//! Runs on the main thread. Each step is a measured window in the same rooms at another rate. A step
//! that keeps its objectives counts even when the generator was late: lateness is inside the latency
//! and what was not sent is lost, so the rate was truly carried. A step that breaks them counts
//! against the server only as far as the generator is innocent; where it is not, the answer is a
//! lower bound and says so.

use serde::Serialize;

use crate::clock::SECOND;
use crate::display::{Display, grouped};
use crate::outcome::{Head, Judged, LATENESS_P99_US_MAX, Outcome};
use crate::search::{Phase, Search};
use crate::series::float;
use crate::session::{Session, nanoseconds};

/// Share of a core from which a thread's CPU counts as used up.
const BUSY: f64 = 0.95;

/// What a rate needed more of than there was.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub(crate) enum RanOut {
    /// The server itself: it ended.
    ServerEnded {
        /// How that is known.
        reason: String,
    },
    /// The server's patience, or ours: transports were lost.
    TransportsLost {
        /// How many and why.
        reason: String,
    },
    /// A thread of the server ran, or waited for its core, all the time.
    ServerThread {
        /// Its name.
        name: String,
        /// Share of a core that it ran.
        cores: f64,
        /// Share of the time that others had its core.
        waited: f64,
    },
    /// The server used all CPUs that it may use.
    ServerCpus {
        /// So many.
        cores: f64,
    },
    /// The server's socket was full.
    ServerSocket {
        /// Datagrams dropped.
        datagrams: u64,
    },
    /// The generator used its CPUs up.
    GeneratorCpu {
        /// So many.
        cores: f64,
    },
    /// The generator sent too late.
    GeneratorLate {
        /// 99th percentile, µs.
        p99_us: f64,
    },
    /// The kernel took less from the generator than it was to send.
    GeneratorSending {
        /// Packets that were not sent.
        packets: u64,
    },
    /// The generator's sockets were full.
    ClientSockets {
        /// Datagrams dropped.
        datagrams: u64,
    },
    /// The hypervisor gave the host's time to others.
    Host {
        /// Percent of it.
        stolen_percent: f64,
    },
    /// None of these: an objective was missed with all of them to spare.
    Nothing {
        /// Whether the server's CPU was seen at all (`--server-pid`).
        server_seen: bool,
    },
}

impl RanOut {
    /// True where it says more about the generator than about the server.
    fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::GeneratorCpu { .. }
                | Self::GeneratorLate { .. }
                | Self::GeneratorSending { .. }
                | Self::ClientSockets { .. }
        )
    }

    /// In words.
    pub(crate) fn words(&self) -> String {
        let percent = |share: f64| 100.0 * share;
        match self {
            Self::ServerEnded { reason } => format!("the SERVER ENDED: {reason}"),
            Self::TransportsLost { reason } => reason.clone(),
            Self::ServerThread { name, cores, waited } => format!(
                "server CPU: thread {name} ran {:.0} % of the time and waited {:.0} % for its core",
                percent(*cores),
                percent(*waited),
            ),
            Self::ServerCpus { cores } => format!("server CPU: it used all its {cores:.2} cores"),
            Self::ServerSocket { datagrams } => {
                format!("server socket: its kernel dropped {datagrams} datagrams on receive")
            }
            Self::GeneratorCpu { cores } => format!("generator CPU: it used {cores:.2} cores"),
            Self::GeneratorLate { p99_us } => {
                format!("generator: late by {:.1} ms at p99", p99_us / 1e3)
            }
            Self::GeneratorSending { packets } => {
                format!("generator: {packets} packets were not sent")
            }
            Self::ClientSockets { datagrams } => {
                format!("client sockets: the kernel dropped {datagrams} datagrams on receive")
            }
            Self::Host { stolen_percent } => {
                format!("host: the hypervisor gave {stolen_percent:.1} % of its time to others")
            }
            Self::Nothing { server_seen: true } => "no resource that was watched".to_owned(),
            Self::Nothing { server_seen: false } => {
                "nothing that was seen; name --server-pid to see the server's CPU".to_owned()
            }
        }
    }
}

/// What ran out in a window, most telling first; [`RanOut::Nothing`] alone when nothing did.
fn ran_out(outcome: &Outcome) -> Vec<RanOut> {
    let (counts, generator) = (&outcome.counts, &outcome.generator);
    let host = &outcome.head.host;
    let mut all = Vec::new();
    all.extend(outcome.server_ended.clone().map(|reason| RanOut::ServerEnded { reason }));
    let lost = outcome.transports_lost.iter().cloned();
    all.extend(lost.map(|reason| RanOut::TransportsLost { reason }));
    if let Some(server) = &outcome.server {
        if let Some(thread) = &server.busiest_thread
            && thread.cores + thread.waited >= BUSY
        {
            let (name, cores, waited) = (thread.name.clone(), thread.cores, thread.waited);
            all.push(RanOut::ServerThread { name, cores, waited });
        }
        let allowed = host.server_cpus.as_deref().map_or(0, cpus_of_list);
        if allowed > 1 && server.cores >= BUSY * float(allowed) {
            all.push(RanOut::ServerCpus { cores: server.cores });
        }
    }
    if let Some(says) = outcome.server_says.as_ref().filter(|says| says.kernel_dropped > 0) {
        all.push(RanOut::ServerSocket { datagrams: says.kernel_dropped });
    }
    if outcome.generator_is_busy() {
        all.push(RanOut::GeneratorCpu { cores: generator.cores });
    }
    if let Some(p99_us) = generator.lateness_us.p99.filter(|p99| *p99 > LATENESS_P99_US_MAX) {
        all.push(RanOut::GeneratorLate { p99_us });
    }
    let unsent = counts.offered.saturating_sub(counts.sent);
    if unsent > 0 {
        all.push(RanOut::GeneratorSending { packets: unsent });
    }
    if counts.receive_drops > 0 {
        all.push(RanOut::ClientSockets { datagrams: counts.receive_drops });
    }
    if outcome.stolen_percent >= 5.0 {
        all.push(RanOut::Host { stolen_percent: outcome.stolen_percent });
    }
    if all.is_empty() {
        all.push(RanOut::Nothing { server_seen: outcome.server.is_some() });
    }
    all
}

/// How many CPUs a list such as `0-3,8` names.
fn cpus_of_list(list: &str) -> u64 {
    let ranges = list.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        Some(last.saturating_sub(first) + 1)
    });
    ranges.sum()
}

/// One measured step.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    /// Why this rate.
    pub(crate) phase: Phase,
    /// The rate as a multiple of the plan's.
    pub(crate) multiple: f64,
    /// Packets per second that subscribers should have received.
    pub(crate) expected_pps: f64,
    /// Packets per second that they received.
    pub(crate) delivered_pps: f64,
    /// RTP bits per second that they received.
    pub(crate) delivered_bps: f64,
    /// Lost, percent.
    pub(crate) loss_percent: f64,
    /// Median latency, µs; none when nothing arrived.
    pub(crate) p50_us: Option<f64>,
    /// 99th percentile, µs.
    pub(crate) p99_us: Option<f64>,
    /// Server CPU, cores.
    pub(crate) server_cores: Option<f64>,
    /// Server CPU per delivered packet, ns.
    pub(crate) server_ns_per_packet: Option<f64>,
    /// Generator CPU, cores.
    pub(crate) generator_cores: f64,
    /// How late bursts were handed to the kernel at the 99th percentile, µs.
    pub(crate) lateness_p99_us: Option<f64>,
    /// Whether all objectives were kept.
    pub(crate) holds: bool,
    /// The objectives.
    pub(crate) judged: Vec<Judged>,
    /// What ran out, when they were not kept.
    pub(crate) ran_out: Vec<RanOut>,
}

impl Step {
    fn new(phase: Phase, multiple: f64, outcome: &Outcome) -> Self {
        let judged = outcome.judged(&outcome.head.arguments.limit);
        let holds = judged.iter().all(|judged| judged.kept) && outcome.lost().count() == 0;
        Self {
            phase,
            multiple,
            expected_pps: outcome.expected_pps,
            delivered_pps: outcome.delivered_pps,
            delivered_bps: outcome.delivered_bps,
            loss_percent: outcome.loss_percent,
            p50_us: outcome.latency_us.p50,
            p99_us: outcome.latency_us.p99,
            server_cores: outcome.server.as_ref().map(|server| server.cores),
            server_ns_per_packet: outcome.server.as_ref().and_then(|s| s.cpu_ns_per_packet),
            generator_cores: outcome.generator.cores,
            lateness_p99_us: outcome.generator.lateness_us.p99,
            holds,
            judged,
            ran_out: if holds { Vec::new() } else { ran_out(outcome) },
        }
    }

    /// True when it broke and nothing but the generator can be blamed.
    fn is_our_fault(&self) -> bool {
        !self.holds && self.ran_out.iter().all(RanOut::is_ours)
    }
}

/// The results of a search.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Limit {
    /// Who, what, when, where.
    #[serde(flatten)]
    pub(crate) head: Head,
    /// What a rate had to keep.
    pub(crate) objectives: String,
    /// Streams that were to be delivered.
    pub(crate) subscriptions: usize,
    /// Protections agreed on.
    pub(crate) protection: Vec<&'static str>,
    /// Packets per second that subscribers received at the highest rate that held.
    pub(crate) limit_pps: Option<f64>,
    /// The same in RTP bits per second.
    pub(crate) limit_bps: Option<f64>,
    /// That rate as a multiple of the plan's.
    pub(crate) limit_multiple: Option<f64>,
    /// Whether it held twice, with a rate at most 5 % above that broke.
    pub(crate) confirmed: bool,
    /// True when the generator fell short above it, so that the server may be able to do more.
    pub(crate) lower_bound: bool,
    /// What ran out at the lowest rate that broke.
    pub(crate) ran_out: Vec<RanOut>,
    /// Why the search ended early.
    pub(crate) ended_because: Option<String>,
    /// All steps in their order.
    pub(crate) steps: Vec<Step>,
}

impl Limit {
    /// The exit status: 0 a rate holds, 1 none does or the server ended, 4 the generator was the
    /// limit all along.
    pub(crate) fn status(&self) -> u8 {
        let ended = |what: &RanOut| matches!(what, RanOut::ServerEnded { .. });
        if self.steps.iter().any(|step| step.ran_out.iter().any(ended)) {
            return 1;
        }
        match (self.limit_pps.is_some(), self.lower_bound) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 4,
        }
    }

    /// The lowest rate above the best that broke: by the last window at each rate, since an earlier
    /// one was taken back when it was repeated.
    fn lowest_broken(&self, best: Option<f64>) -> Option<&Step> {
        let is_last = |place: usize, step: &Step| {
            let later = self.steps.iter().skip(place + 1);
            later.into_iter().all(|other| other.multiple.total_cmp(&step.multiple).is_ne())
        };
        let broken = self.steps.iter().enumerate().filter(|(place, step)| {
            !step.holds && best.is_none_or(|best| step.multiple > best) && is_last(*place, step)
        });
        broken.map(|(_, step)| step).min_by(|a, b| a.multiple.total_cmp(&b.multiple))
    }

    fn conclude(&mut self, search: &Search) {
        let holds = |step: &&Step| {
            step.holds && search.best().is_some_and(|best| step.multiple.total_cmp(&best).is_eq())
        };
        // Of two windows at the same rate the later one, as a rule the confirmation.
        let best = self.steps.iter().rev().find(holds);
        self.limit_pps = best.map(|step| step.delivered_pps);
        self.limit_bps = best.map(|step| step.delivered_bps);
        self.limit_multiple = best.map(|step| step.multiple);
        self.confirmed = search.is_confirmed();
        let has_best = best.is_some();
        let lowest = self.lowest_broken(search.best()).map(|step| step.ran_out.clone());
        let all_held = lowest.is_none() && has_best;
        self.ran_out = lowest.unwrap_or_default();
        let ended = matches!(self.ran_out.first(), Some(RanOut::ServerEnded { .. }));
        let ours = !ended && self.ran_out.iter().any(RanOut::is_ours);
        self.lower_bound = ours || all_held;
    }
}

/// Searches in joined rooms.
pub(crate) fn search(
    head: Head,
    session: &mut Session,
    display: &mut Option<Display>,
) -> Result<Limit, String> {
    let kind = session.flows().paced_kind();
    let (settle, window) = (head.arguments.settle, head.arguments.duration);
    let (settle, window) = (nanoseconds(settle), nanoseconds(window).max(SECOND));
    let mut limit = Limit {
        objectives: head.arguments.limit.to_string(),
        head,
        subscriptions: 0,
        protection: Vec::new(),
        limit_pps: None,
        limit_bps: None,
        limit_multiple: None,
        confirmed: false,
        lower_bound: false,
        ran_out: Vec::new(),
        ended_because: None,
        steps: Vec::new(),
    };
    let mut search = Search::from(1.0);
    let mut repeated = false;
    while let Some((phase, multiple)) = search.next() {
        let pps = float(session.flows().planned_pps(kind)) * multiple;
        let name = format!("{} at {} packets/s", phase.name(), grouped(pps));
        session.pace(kind, millionths(multiple));
        session.settle(&name, settle, display);
        let observed = session.measure(window, display)?;
        let outcome = Outcome::new(limit.head.clone(), &observed);
        let step = Step::new(phase, multiple, &outcome);
        if let Some(display) = display {
            display.note(&crate::report::step(limit.steps.len() + 1, &step));
        }
        // One window in which only the generator stumbled may be this machine's bad luck.
        let again = step.is_our_fault() && !repeated;
        repeated = again;
        if !again {
            search.note(step.holds);
        }
        limit.subscriptions = outcome.subscriptions;
        limit.protection.clone_from(&outcome.protection);
        limit.steps.push(step);
        let reasons: Vec<_> = observed.failures.iter().chain(outcome.lost()).cloned().collect();
        if !reasons.is_empty() {
            let reasons = reasons.join("; ");
            limit.ended_because = Some(format!("at {name}: {reasons}"));
            break;
        }
    }
    limit.conclude(&search);
    Ok(limit)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the search's rates are positive and below 1.5 to the 40th, about 10^7"
)]
fn millionths(multiple: f64) -> u64 {
    (multiple * 1e6).round() as u64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::outcome::tests::{measured, outcome_of};
    use crate::probe::Busiest;

    fn names(change: impl FnOnce(&mut crate::session::Observed)) -> Vec<RanOut> {
        ran_out(&outcome_of(measured(), change))
    }

    #[test]
    fn what_ran_out_is_named_and_blame_falls_where_it_belongs() {
        let busy = |cores, waited| Some(Busiest { name: "shard-0".into(), cores, waited });
        let thread = names(|o| o.busiest = busy(0.7, 0.28));
        assert!(matches!(&thread[..], [RanOut::ServerThread { name, .. }] if name == "shard-0"));
        assert!(!thread[0].is_ours());
        let both = names(|o| {
            o.busiest = busy(0.99, 0.0);
            o.tally.cpu = o.window;
        });
        assert!(matches!(both[..], [RanOut::ServerThread { .. }, RanOut::GeneratorCpu { .. }]));
        assert!(both[1].is_ours());
        let late = names(|o| (0..9).for_each(|_| o.tally.lateness.record(3_000_000)));
        assert!(matches!(late[..], [RanOut::GeneratorLate { .. }]));
        let sockets = names(|o| o.tally.counts.receive_drops = 7);
        assert_eq!(sockets, [RanOut::ClientSockets { datagrams: 7 }]);
        let unsent = names(|o| o.tally.counts.sent -= 3);
        assert_eq!(unsent, [RanOut::GeneratorSending { packets: 3 }]);
        let none = names(|o| o.busiest = busy(0.5, 0.1));
        assert_eq!(none, [RanOut::Nothing { server_seen: true }]);
        let unseen = names(|o| o.server = None);
        assert_eq!(unseen, [RanOut::Nothing { server_seen: false }]);
    }

    #[test]
    fn a_server_that_ended_comes_first_and_is_not_our_fault() {
        let change = |o: &mut crate::session::Observed| {
            o.tally.counts.refused = 9;
            o.tally.counts.sent -= 3;
        };
        let ended = names(change);
        assert!(matches!(ended[0], RanOut::ServerEnded { .. }) && !ended[0].is_ours());
        let step = Step::new(Phase::Ramp, 1.5, &outcome_of(measured(), change));
        assert!(!step.holds && !step.is_our_fault());
        let mut limit = concluded(&[(1.0, true, false)]);
        limit.steps.push(step);
        let mut search = Search::from(1.0);
        [true, false].into_iter().for_each(|holds| search.note(holds));
        limit.conclude(&search);
        assert_eq!((limit.status(), limit.lower_bound), (1, false));
        assert!(matches!(limit.ran_out[0], RanOut::ServerEnded { .. }));
        let lost = names(|o| o.lost.push("ICE disconnected".into()));
        assert!(matches!(&lost[..], [RanOut::TransportsLost { .. }]));
    }

    #[test]
    fn a_window_that_was_repeated_no_longer_says_what_ran_out() {
        let server = vec![RanOut::ServerCpus { cores: 2.0 }];
        let late = vec![RanOut::GeneratorLate { p99_us: 9_000.0 }];
        // The first is taken back, and so not told to the search.
        let mut limit = concluded(&[(1.0, true, false), (1.5, true, false), (2.25, false, false)]);
        let outcome = outcome_of(measured(), |_| {});
        let mut hiccup = Step::new(Phase::Ramp, 1.0, &outcome);
        (hiccup.holds, hiccup.ran_out) = (false, late.clone());
        limit.steps.insert(0, hiccup);
        limit.steps[3].ran_out.clone_from(&server);
        let mut search = Search::from(1.0);
        [true, true, false].into_iter().for_each(|holds| search.note(holds));
        limit.conclude(&search);
        assert_eq!((&limit.ran_out, limit.lower_bound), (&server, false));
        // The same above the best: the later window at that rate counts.
        let mut again = limit.steps[3].clone();
        again.ran_out.clone_from(&late);
        limit.steps.insert(3, again);
        limit.conclude(&search);
        assert_eq!((&limit.ran_out, limit.lower_bound), (&server, false));
    }

    #[test]
    fn cpu_lists_are_counted() {
        for (list, count) in [("0", 1), ("0-1", 2), ("0-3,8,10-11", 7), ("", 0)] {
            assert_eq!(cpus_of_list(list), count, "{list}");
        }
    }

    /// Concludes from steps given as multiple, held, generator's fault.
    pub(crate) fn concluded(steps: &[(f64, bool, bool)]) -> Limit {
        let outcome = outcome_of(measured(), |_| {});
        let mut limit = Limit {
            head: outcome.head.clone(),
            objectives: String::new(),
            subscriptions: 0,
            protection: vec![],
            limit_pps: None,
            limit_bps: None,
            limit_multiple: None,
            confirmed: false,
            lower_bound: false,
            ran_out: vec![],
            ended_because: None,
            steps: vec![],
        };
        let mut search = Search::from(1.0);
        for &(multiple, holds, ours) in steps {
            search.note(holds);
            let mut step = Step::new(Phase::Ramp, multiple, &outcome);
            step.holds = holds;
            step.ran_out = match (holds, ours) {
                (true, _) => vec![],
                (false, true) => vec![RanOut::GeneratorCpu { cores: 1.0 }],
                (false, false) => vec![RanOut::ServerSocket { datagrams: 1 }],
            };
            limit.steps.push(step);
        }
        limit.conclude(&search);
        limit
    }

    #[test]
    fn the_lowest_rate_that_broke_says_whose_limit_it_is() {
        let server = concluded(&[(1.0, true, false), (1.5, false, false)]);
        assert!(!server.lower_bound && server.status() == 0 && !server.confirmed);
        assert_eq!(server.limit_multiple, Some(1.0));
        let generator = concluded(&[(1.0, true, false), (1.5, false, true)]);
        assert!(generator.lower_bound && generator.status() == 0);
        let none = concluded(&[(1.0, false, false)]);
        assert_eq!((none.limit_pps, none.status()), (None, 1));
        let blind = concluded(&[(1.0, false, true)]);
        assert_eq!((blind.limit_pps, blind.status()), (None, 4));
    }
}
