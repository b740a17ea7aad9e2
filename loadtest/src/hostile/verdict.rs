//! What a comparison with strangers says: figures of each half, what changed in the median of the
//! pairs, and whether that is harm. Pure.

use std::fmt::Write;

use serde::Serialize;

use super::caller::Calls;
use super::kernel::KernelDrops;
use super::strangers::{Crowd, Treatment};
use crate::outcome::{Head, Outcome, Percentiles};
use crate::rank::median;

/// Percentage points of loss that strangers may add.
const LOSS_TOLERANCE: f64 = 0.1;

/// One half of a pair.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Half {
    /// Media, µs.
    pub(crate) latency_p50_us: f64,
    /// The same.
    pub(crate) latency_p99_us: f64,
    /// Of media, percent.
    pub(crate) loss_percent: f64,
    /// From when a call of the API was due to its answer, µs.
    pub(crate) call_p50_us: f64,
    /// The same.
    pub(crate) call_p99_us: f64,
    /// Calls that were answered.
    pub(crate) calls: u64,
    /// Calls that were refused or not answered.
    pub(crate) calls_failed: u64,
    /// CPU of the server per packet delivered; none when it was not measured.
    pub(crate) server_ns_per_packet: Option<f64>,
    /// Packets that the server left out because it was late, as it says.
    pub(crate) shed: Option<u64>,
    /// Datagrams that were dropped because its socket was full, as it says.
    pub(crate) kernel_dropped: Option<u64>,
    /// What this host's kernel let go meanwhile.
    pub(crate) kernel: KernelDrops,
    /// What it did with the strangers; none without them.
    pub(crate) strangers: Option<Treatment>,
    /// What the server gave up: itself, or transports.
    pub(crate) lost: Vec<String>,
    /// Why it says more about the generator than about the server.
    pub(crate) invalid_because: Vec<String>,
}

impl Half {
    pub(super) fn new(
        outcome: &Outcome,
        calls: &Calls,
        kernel: KernelDrops,
        strangers: Option<Treatment>,
    ) -> Self {
        let (latency, says) = (&outcome.latency_us, outcome.server_says.as_ref());
        // What was not measured is null in JSON, and no ratio of it is within any tolerance.
        let known = |us: Option<f64>| us.unwrap_or(f64::NAN);
        let call = Percentiles::from(&calls.times);
        Self {
            latency_p50_us: known(latency.p50),
            latency_p99_us: known(latency.p99),
            loss_percent: outcome.loss_percent,
            call_p50_us: known(call.p50),
            call_p99_us: known(call.p99),
            calls: call.count,
            calls_failed: calls.failed,
            server_ns_per_packet: outcome.server.as_ref().and_then(|s| s.cpu_ns_per_packet),
            shed: says.map(|says| says.shed),
            kernel_dropped: says.map(|says| says.kernel_dropped),
            kernel,
            strangers,
            lost: outcome.lost().cloned().collect(),
            invalid_because: outcome.invalid_because.clone(),
        }
    }

    /// Where packets were lost, and how many, as far as anybody tells.
    fn let_go(&self) -> impl Iterator<Item = (u64, &'static str)> {
        let KernelDrops { backlog, udp_receive, udp_send } = self.kernel;
        [
            (self.shed.unwrap_or(0), "packets left out because they were late, says the server"),
            (self.kernel_dropped.unwrap_or(0), "datagrams beyond the server's sockets, it says"),
            (backlog, "packets beyond net.core.netdev_max_backlog of this host"),
            (udp_receive, "datagrams beyond receivers' sockets on this host"),
            (udp_send, "datagrams beyond senders' sockets on this host"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
    }
}

/// The same load twice.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Pair {
    /// Without strangers.
    pub(crate) without: Half,
    /// With them.
    pub(crate) with: Half,
}

/// What changed from without to with, in the median of the pairs: ratios, and of loss the difference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Change {
    latency_p50: f64,
    latency_p99: f64,
    loss_points: f64,
    call_p50: f64,
    call_p99: f64,
    server_ns_per_packet: Option<f64>,
}

impl Change {
    fn of(pairs: &[Pair]) -> Self {
        let ratio = |of: fn(&Half) -> f64| {
            let ratios: Vec<f64> =
                pairs.iter().map(|pair| of(&pair.with) / of(&pair.without)).collect();
            median(&ratios)
        };
        let costs: Option<Vec<f64>> = pairs
            .iter()
            .map(|pair| Some(pair.with.server_ns_per_packet? / pair.without.server_ns_per_packet?))
            .collect();
        let added: Vec<f64> =
            pairs.iter().map(|pair| pair.with.loss_percent - pair.without.loss_percent).collect();
        Self {
            latency_p50: ratio(|half| half.latency_p50_us),
            latency_p99: ratio(|half| half.latency_p99_us),
            loss_points: median(&added),
            call_p50: ratio(|half| half.call_p50_us),
            call_p99: ratio(|half| half.call_p99_us),
            server_ns_per_packet: costs.map(|costs| median(&costs)),
        }
    }

    /// In what strangers do harm.
    fn harms(&self, tolerance: f64, pairs: &[Pair]) -> Vec<String> {
        let longest = 1.0 + tolerance;
        let times = |name: &str, ratio: f64| {
            // What cannot be compared is not unharmed.
            let kept = ratio <= longest;
            (!kept).then(|| format!("the p99 of {name} is {ratio:.2} times as long"))
        };
        let failed = |of: fn(&Pair) -> &Half| -> u64 {
            pairs.iter().map(|pair| of(pair).calls_failed).sum()
        };
        let (before, after) = (failed(|pair| &pair.without), failed(|pair| &pair.with));
        [
            times("media", self.latency_p99),
            times("the API", self.call_p99),
            (self.loss_points > LOSS_TOLERANCE)
                .then(|| format!("{:.2} % more of the packets are lost", self.loss_points)),
            (after > before).then(|| format!("{after} calls of the API failed, {before} without")),
        ]
        .into_iter()
        .flatten()
        .chain(pairs.iter().flat_map(|pair| pair.with.lost.iter().cloned()))
        .chain(pairs.iter().flat_map(|pair| {
            pair.without.lost.iter().map(|reason| format!("without strangers: {reason}"))
        }))
        .collect()
    }
}

/// The whole comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    #[serde(flatten)]
    head: Head,
    subscriptions: usize,
    protection: Vec<&'static str>,
    strangers: Crowd,
    calls_per_s: u32,
    tolerance_percent: f64,
    pairs: Vec<Pair>,
    change: Change,
    harms: Vec<String>,
    valid: bool,
}

impl Comparison {
    pub(super) fn new(last: Box<Outcome>, args: &super::Args, pairs: Vec<Pair>) -> Self {
        let change = Change::of(&pairs);
        let is_valid = |half: &Half| half.invalid_because.is_empty();
        let valid = pairs.iter().all(|pair| is_valid(&pair.without) && is_valid(&pair.with));
        let mut head = last.head;
        head.kind = "hostile";
        head.arguments = args.load.clone();
        Self {
            head,
            subscriptions: last.subscriptions,
            protection: last.protection,
            strangers: args.crowd,
            calls_per_s: args.calls_per_s,
            tolerance_percent: args.tolerance.share() * 100.0,
            harms: change.harms(args.tolerance.share(), &pairs),
            change,
            pairs,
            valid,
        }
    }

    /// The exit status: 0 unharmed, 1 harmed, 4 invalid.
    pub(crate) fn status(&self) -> u8 {
        match (self.valid, self.harms.is_empty()) {
            (false, _) => 4,
            (true, false) => 1,
            (true, true) => 0,
        }
    }

    /// The table that a person reads.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Crowd { readers, half_open, scrapers } = self.strangers;
        writeln!(
            text,
            "{:?}, {} streams, {:.1} s a run; {} calls of the API each second\n\
             strangers: {readers} readers of events that never read, {half_open} half-open \
             connections, {scrapers} scrapers\n",
            self.head.arguments.scenario,
            self.subscriptions,
            self.head.arguments.duration,
            self.calls_per_s,
        )?;
        writeln!(
            text,
            "{:<12}{:>14}{:>8}{:>8}{:>12}{:>8}{:>8}{:>11}",
            "", "media p50 ms", "p99", "loss %", "API p50 ms", "p99", "failed", "ns/packet",
        )?;
        for (number, pair) in (1..).zip(&self.pairs) {
            for (name, half) in [("without", &pair.without), ("with", &pair.with)] {
                write_half(text, &format!("{number} {name}"), half)?;
            }
        }
        let change = &self.change;
        writeln!(
            text,
            "{:<12}{:>13.2}×{:>7.2}×{:>+8.3}{:>11.2}×{:>7.2}×{:>8}{:>11}\n",
            "median",
            change.latency_p50,
            change.latency_p99,
            change.loss_points,
            change.call_p50,
            change.call_p99,
            "",
            change.server_ns_per_packet.map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}×")),
        )?;
        self.write_treatment(text)?;
        self.write_verdict(text)
    }

    fn write_treatment(&self, text: &mut String) -> std::fmt::Result {
        for (number, pair) in (1..).zip(&self.pairs) {
            let Some(done) = pair.with.strangers else { continue };
            writeln!(
                text,
                "{number} cut off {} readers and {} half-open connections, refused {}, answered {} \
                 scrapes",
                done.readers_cut, done.half_open_cut, done.refused, done.scrapes,
            )?;
        }
        for (number, pair) in (1..).zip(&self.pairs) {
            for (name, half) in [("without", &pair.without), ("with", &pair.with)] {
                for (count, what) in half.let_go() {
                    writeln!(text, "{number} {name}: {count} {what}")?;
                }
            }
        }
        writeln!(text)
    }

    fn write_verdict(&self, text: &mut String) -> std::fmt::Result {
        for (number, pair) in (1..).zip(&self.pairs) {
            for (name, half) in [("without", &pair.without), ("with", &pair.with)] {
                for reason in &half.invalid_because {
                    writeln!(text, "INVALID  {number} {name}: {reason}")?;
                }
            }
        }
        for harm in &self.harms {
            writeln!(text, "HARMED   {harm}")?;
        }
        if self.valid && self.harms.is_empty() {
            writeln!(text, "unharmed within {:.0} %", self.tolerance_percent)?;
        }
        Ok(())
    }
}

fn write_half(text: &mut String, name: &str, half: &Half) -> std::fmt::Result {
    writeln!(
        text,
        "{name:<12}{:>14.3}{:>8.2}{:>8.3}{:>12.3}{:>8.2}{:>8}{:>11}",
        half.latency_p50_us / 1e3,
        half.latency_p99_us / 1e3,
        half.loss_percent,
        half.call_p50_us / 1e3,
        half.call_p99_us / 1e3,
        half.calls_failed,
        half.server_ns_per_packet.map_or_else(|| "–".into(), |cost| format!("{cost:.0}")),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;
    use crate::outcome::tests::{measured, outcome_of};

    fn half(factor: f64, strangers: Option<Treatment>) -> Half {
        let mut half = Half::new(
            &outcome_of(measured(), |_| {}),
            &Calls::default(),
            KernelDrops::default(),
            strangers,
        );
        half.latency_p50_us = 100.0 * factor;
        half.latency_p99_us = 1_000.0 * factor;
        half.call_p50_us = 300.0 * factor;
        half.call_p99_us = 2_000.0 * factor;
        half
    }

    /// A comparison of pairs whose halves with strangers were that much slower.
    pub(crate) fn compared(factors: &[f64], change: impl Fn(&mut Half)) -> Comparison {
        let pair = |factor: &f64| {
            let mut with = half(*factor, Some(Treatment::default()));
            change(&mut with);
            Pair { without: half(1.0, None), with }
        };
        let args = super::super::Args::parse_from(["hostile", "livestream"]);
        let last = Box::new(outcome_of(measured(), |_| {}));
        Comparison::new(last, &args, factors.iter().map(pair).collect())
    }

    #[test]
    fn the_median_of_the_pairs_decides() {
        let cases: [(&[f64], u8); 4] =
            [(&[1.0], 0), (&[1.4, 9.0, 1.1], 0), (&[1.4, 1.6, 1.6], 1), (&[0.5, 1.6], 0)];
        for (factors, status) in cases {
            let compared = compared(factors, |_| {});
            assert_eq!(compared.status(), status, "{}", compared.table());
        }
        let slow = compared(&[1.6], |_| {});
        assert_eq!(slow.harms.len(), 2, "media and API: {:?}", slow.harms);
        assert!(slow.table().contains("HARMED   the p99 of media is 1.60 times as long"));
        assert!(compared(&[1.0], |_| {}).table().ends_with("unharmed within 50 %\n"));
    }

    #[test]
    fn loss_and_failed_calls_are_harm_whatever_the_latency() {
        for (change, harm) in [
            ((|half| half.loss_percent += 0.2) as fn(&mut Half), "0.20 % more of the packets"),
            (|half| half.lost.push("the server ended".into()), "the server ended"),
            (|half| half.calls_failed = 1, "1 calls of the API failed, 0 without"),
            (|half| half.call_p99_us = f64::NAN, "the p99 of the API"),
        ] {
            let compared = compared(&[1.0], change);
            assert_eq!(compared.status(), 1);
            let [found] = compared.harms.as_slice() else { panic!("{:?}", compared.harms) };
            assert!(found.contains(harm), "{found}");
        }
    }

    #[test]
    fn a_generator_that_fell_short_makes_the_comparison_invalid() {
        let late = compared(&[1.0], |half| half.invalid_because.push("it was late".into()));
        assert_eq!(late.status(), 4);
        assert!(late.table().contains("INVALID  1 with: it was late"));
    }

    #[test]
    fn where_packets_were_lost_is_told() {
        let table = compared(&[1.0], |half| {
            half.shed = Some(7);
            half.kernel.backlog = 8;
        })
        .table();
        assert!(table.contains("1 with: 7 packets left out because they were late"), "{table}");
        assert!(table.contains("1 with: 8 packets beyond net.core.netdev_max_backlog"), "{table}");
    }
}
