//! Service level objectives: what a run must keep for its exit status to be zero.
//!
//! Parsed from `--slo`, judged over the run's figures by name. Pure.

use std::str::FromStr;

use serde::{Serialize, Serializer};

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
}

const FIGURES: [(&str, Figure); 7] = [
    ("loss", Figure::Loss),
    ("p50", Figure::P50),
    ("p90", Figure::P90),
    ("p99", Figure::P99),
    ("p99.9", Figure::P999),
    ("max", Figure::Max),
    ("cpu", Figure::Cpu),
];

/// `figure <= limit`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Objective {
    /// What is bounded.
    pub(crate) figure: Figure,
    /// By what, in the figure's unit.
    pub(crate) limit: f64,
}

impl Objective {
    /// The name of its figure.
    pub(crate) fn name(self) -> &'static str {
        FIGURES.iter().find(|(_, figure)| *figure == self.figure).map_or("", |(name, _)| name)
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

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let objectives = text.split(',').map(objective).collect::<Result<_, _>>()?;
        Ok(Self { objectives, text: text.into() })
    }
}

fn objective(text: &str) -> Result<Objective, String> {
    let (name, limit) =
        text.split_once("<=").ok_or_else(|| format!("{text:?} is not `figure<=limit`"))?;
    let (_, figure) =
        *FIGURES.iter().find(|(known, _)| *known == name.trim()).ok_or_else(|| {
            format!("{:?} is none of {}", name.trim(), FIGURES.map(|f| f.0).join(", "))
        })?;
    let limit = limit.trim();
    let digits = limit.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = limit.strip_prefix(digits).unwrap_or_default().trim();
    let number: f64 =
        digits.parse().map_err(|_| format!("{limit:?} is not a number with a unit"))?;
    let factor = match (figure, unit) {
        (Figure::Loss, "%") | (Figure::Cpu, "ns") => 1.0,
        (Figure::Cpu, "us" | "µs") => 1e3,
        (Figure::Loss | Figure::Cpu, _) => return Err(unknown_unit(unit, name)),
        (_, "ms") => 1e3,
        (_, "us" | "µs") => 1.0,
        (_, "s") => 1e6,
        _ => return Err(unknown_unit(unit, name)),
    };
    Ok(Objective { figure, limit: number * factor })
}

fn unknown_unit(unit: &str, name: &str) -> String {
    format!("{unit:?} is no unit of {name}: loss in %, latency in us, ms or s, cpu in ns or us")
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
            assert_eq!(text.parse::<Slo>().unwrap().objectives, [Objective { figure, limit }]);
        }
        assert_eq!("loss<=0.1%,p99<=5ms".parse::<Slo>().unwrap().objectives.len(), 2);
    }

    #[test]
    fn what_is_no_objective_is_refused_with_a_sentence() {
        for text in ["", "p99", "p99<5ms", "p99<=5", "p99<=ms", "loss<=1ms", "p98<=1ms", "cpu<=1%"]
        {
            assert!(text.parse::<Slo>().is_err(), "{text}");
        }
    }
}
