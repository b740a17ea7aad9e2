//! Service level objectives: what a run must keep for its exit status to be zero.
//!
//! Parsed from `--slo`, judged over the run's figures by name. Pure.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::tally::Stage;

/// A figure that an objective may bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Lost packets, percent of those expected.
    Loss,
    /// A latency percentile, µs.
    P50,
    /// The same.
    P90,
    /// The same.
    P99,
    /// The same.
    P999,
    /// The highest latency, µs.
    Max,
    /// Server CPU per forwarded packet, ns.
    Cpu,
    /// Of it in user space, ns.
    User,
    /// Of it in the kernel, ns.
    System,
    /// Server CPU, cores.
    Cores,
    /// Server memory, MiB.
    Rss,
    /// Server context switches per second, all threads.
    Switches,
    /// Packets per second that arrived.
    Delivered,
    /// Mbit/s that arrived.
    Bits,
    /// Packets that came after a later one of their stream.
    Reordered,
    /// Packets that came twice.
    Duplicates,
    /// Streams of which nothing arrived.
    Silent,
    /// Streams of which nothing arrived any more at the end.
    Stopped,
    /// Time that video stood still, percent.
    Frozen,
    /// Frames per second and stream.
    Frames,
    /// Joins during the run that failed, percent of those that were due.
    JoinsFailed,
    /// Joins during the run that were done, per second.
    Joins,
    /// 99th percentile over the streams of their interarrival jitter, µs.
    Jitter,
    /// 99th percentile of a join stage, µs.
    Stage(Stage),
}

/// Units with the factors that lead to the figure's own, which is the first.
type Units = &'static [(&'static str, f64)];

/// All figures with their names and units; a unit's factor leads to the figure's own.
const FIGURES: [(&str, Figure, Units); 31] = [
    ("loss", Figure::Loss, PERCENT),
    ("p50", Figure::P50, TIME),
    ("p90", Figure::P90, TIME),
    ("p99", Figure::P99, TIME),
    ("p99.9", Figure::P999, TIME),
    ("max", Figure::Max, TIME),
    ("cpu", Figure::Cpu, COST),
    ("user", Figure::User, COST),
    ("system", Figure::System, COST),
    ("cores", Figure::Cores, NUMBER),
    ("rss", Figure::Rss, &[("MiB", 1.0), ("GiB", 1_024.0), ("KiB", 1.0 / 1_024.0)]),
    ("switches", Figure::Switches, &[("/s", 1.0)]),
    ("delivered", Figure::Delivered, &[("pps", 1.0)]),
    ("bits", Figure::Bits, &[("Mbps", 1.0), ("Gbps", 1e3)]),
    ("reordered", Figure::Reordered, NUMBER),
    ("duplicates", Figure::Duplicates, NUMBER),
    ("silent", Figure::Silent, NUMBER),
    ("stopped", Figure::Stopped, NUMBER),
    ("frozen", Figure::Frozen, PERCENT),
    ("frames", Figure::Frames, &[("/s", 1.0)]),
    ("joins_failed", Figure::JoinsFailed, PERCENT),
    ("joins", Figure::Joins, &[("/s", 1.0)]),
    ("jitter", Figure::Jitter, TIME),
    ("transport", Figure::Stage(Stage::Transport), TIME),
    ("connect", Figure::Stage(Stage::Connect), TIME),
    ("produce", Figure::Stage(Stage::Produce), TIME),
    ("consume", Figure::Stage(Stage::Consume), TIME),
    ("ice", Figure::Stage(Stage::Ice), TIME),
    ("dtls", Figure::Stage(Stage::Dtls), TIME),
    ("first_packet", Figure::Stage(Stage::FirstPacket), TIME),
    ("join", Figure::Stage(Stage::Join), TIME),
];

const PERCENT: Units = &[("%", 1.0)];
const TIME: Units = &[("us", 1.0), ("µs", 1.0), ("ms", 1e3), ("s", 1e6)];
const COST: Units = &[("ns", 1.0), ("us", 1e3), ("µs", 1e3)];
const NUMBER: Units = &[("", 1.0)];

impl Figure {
    /// Its name on the command line and in results.
    pub(crate) fn name(self) -> &'static str {
        FIGURES.iter().find(|(_, figure, _)| *figure == self).map_or("", |(name, ..)| name)
    }

    /// The unit that limits and measurements are given in: the first of its units.
    pub(crate) fn unit(self) -> &'static str {
        let units = FIGURES.iter().find(|(_, figure, _)| *figure == self).map(|(.., units)| units);
        units.and_then(|units| units.first()).map_or("", |(unit, _)| unit)
    }
}

/// `figure <= limit`, or `figure >= limit`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Objective {
    /// What is bounded.
    pub(crate) figure: Figure,
    /// By what, in the figure's unit.
    pub(crate) limit: f64,
    /// True when it is bounded from below.
    pub(crate) at_least: bool,
}

impl Objective {
    /// Whether a measurement keeps it.
    pub(crate) fn is_kept_by(self, measured: f64) -> bool {
        if self.at_least { measured >= self.limit } else { measured <= self.limit }
    }

    /// How measurement and limit are compared.
    pub(crate) fn sign(self) -> &'static str {
        if self.at_least { ">=" } else { "<=" }
    }
}

/// Several objectives, all to be kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slo {
    /// In the order given.
    pub(crate) objectives: Vec<Objective>,
    text: String,
}

impl Serialize for Slo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl Display for Slo {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let objectives = text.split(',').map(objective).collect::<Result<_, _>>()?;
        Ok(Self { objectives, text: text.into() })
    }
}

fn objective(text: &str) -> Result<Objective, String> {
    let (at_least, split) = match text.split_once("<=") {
        Some(split) => (false, Some(split)),
        None => (true, text.split_once(">=")),
    };
    let (name, limit) =
        split.ok_or_else(|| format!("{text:?} is not `figure<=limit` or `figure>=limit`"))?;
    let (name, limit) = (name.trim(), limit.trim());
    let (_, figure, units) =
        *FIGURES.iter().find(|(known, ..)| *known == name).ok_or_else(|| {
            format!("{name:?} is none of {}", FIGURES.map(|(known, ..)| known).join(", "))
        })?;
    let digits = limit.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = limit.strip_prefix(digits).unwrap_or_default().trim();
    let number: f64 =
        digits.parse().map_err(|_| format!("{limit:?} is not a number with a unit"))?;
    let (_, factor) = *units.iter().find(|(known, _)| *known == unit).ok_or_else(|| {
        let known: Vec<_> = units.iter().map(|(known, _)| format!("{known:?}")).collect();
        format!("{unit:?} is no unit of {name}, which has {}", known.join(", "))
    })?;
    Ok(Objective { figure, limit: number * factor, at_least })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_in_their_units() {
        let cases = [
            ("loss<=0.1%", Figure::Loss, 0.1),
            ("p99<=5ms", Figure::P99, 5_000.0),
            ("p99.9 <= 250 us", Figure::P999, 250.0),
            ("max<=1s", Figure::Max, 1e6),
            ("cpu<=2300ns", Figure::Cpu, 2_300.0),
            ("cpu<=2.3us", Figure::Cpu, 2_300.0),
        ];
        for (text, figure, limit) in cases {
            let objective = Objective { figure, limit, at_least: false };
            assert_eq!(text.parse::<Slo>().unwrap().objectives, [objective]);
        }
        assert_eq!("loss<=0.1%,p99<=5ms".parse::<Slo>().unwrap().objectives.len(), 2);
    }

    #[test]
    fn every_figure_can_be_bounded_in_its_first_unit_from_either_side() {
        for (name, figure, _) in FIGURES {
            let unit = figure.unit();
            let slo: Slo = format!("{name}<=7{unit},{name} >= 5 {unit}").parse().unwrap();
            let [most, least] = slo.objectives[..] else { panic!("two objectives") };
            assert_eq!((most.figure.name(), most.sign(), least.sign()), (name, "<=", ">="));
            let kept = |value| most.is_kept_by(value) && least.is_kept_by(value);
            assert_eq!([4.0, 5.0, 6.0, 7.0, 8.0].map(kept), [false, true, true, true, false]);
        }
    }

    #[test]
    fn what_is_no_objective_is_refused_with_a_sentence() {
        for text in [
            "",
            "p99",
            "p99<5ms",
            "p99<=5",
            "p99<=ms",
            "loss<=1ms",
            "p98<=1ms",
            "cpu<=1%",
            "silent<=1ms",
        ] {
            assert!(text.parse::<Slo>().is_err(), "{text}");
        }
    }
}
