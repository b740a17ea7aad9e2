//! The text form of metrics: families with their help and type, lines with their labels.

use std::fmt::{Display, Write};

use super::buckets::{Buckets, Scale};

/// Prometheus text that grows (exposition format 0.0.4). Names are without `ringcast_`, which
/// [`family`](Self::family) adds; a family is begun before its lines are written.
#[derive(Debug, Default)]
pub(super) struct Text {
    text: String,
    /// Of the family that was begun last.
    name: String,
}

impl Text {
    pub(super) fn into_string(self) -> String {
        self.text
    }

    /// Begins a family of this program's own.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.begin(format!("ringcast_{name}"), kind, help);
    }

    /// Begins a family whose name every program uses.
    pub(super) fn begin(&mut self, name: String, kind: &str, help: &str) {
        let help = help.trim();
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        self.name = name;
    }

    /// A family of one line.
    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.line(&[], value);
    }

    /// One line of the family.
    pub(super) fn line(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.sample("", labels, None, value);
    }

    /// The lines of one histogram of the family.
    pub(super) fn histogram<S: Scale>(&mut self, labels: &[(&str, &str)], of: &Buckets<S>) {
        self.buckets(labels, of.cumulative(), of.count(), of.sum());
    }

    /// The same of a histogram told by its bounds, each with how many values were not above it.
    pub(super) fn buckets<B: Display>(
        &mut self,
        labels: &[(&str, &str)],
        buckets: impl Iterator<Item = (B, u64)>,
        count: u64,
        sum: impl Display,
    ) {
        for (bound, count) in buckets {
            self.sample("_bucket", labels, Some(&bound), count);
        }
        self.sample("_bucket", labels, Some(&"+Inf"), count);
        self.sample("_sum", labels, None, sum);
        self.sample("_count", labels, None, count);
    }

    fn sample(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<&dyn Display>,
        value: impl Display,
    ) {
        self.text.push_str(&self.name);
        self.text.push_str(suffix);
        let mut open = '{';
        for (label, text) in labels {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.write(format_args!("{open}{label}=\"{text}\""));
            open = ',';
        }
        if let Some(bound) = bound {
            self.write(format_args!("{open}le=\"{bound}\""));
            open = ',';
        }
        let close = if open == ',' { "}" } else { "" };
        self.write(format_args!("{close} {value}\n"));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into a string does not fail.
        let _ = self.text.write_fmt(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::buckets::Estimate;

    #[test]
    fn lines_carry_their_familys_name_and_escaped_labels() {
        let mut text = Text::default();
        text.single("rooms", "gauge", " Rooms.", 2);
        text.family("odd", "counter", "Odd.");
        text.line(&[("a", "x\"y\\z\n"), ("b", "")], 0.5);
        let mut buckets = Buckets::<Estimate>::default();
        buckets.record(9_000);
        text.family("wide", "histogram", "Wide.");
        text.histogram(&[("shard", "0")], &buckets);
        let text = text.into_string();
        assert!(text.starts_with("# HELP ringcast_rooms Rooms.\n# TYPE ringcast_rooms gauge\n"));
        for line in [
            "ringcast_rooms 2",
            r#"ringcast_odd{a="x\"y\\z\n",b=""} 0.5"#,
            r#"ringcast_wide_bucket{shard="0",le="8000"} 0"#,
            r#"ringcast_wide_bucket{shard="0",le="16000"} 1"#,
            r#"ringcast_wide_bucket{shard="0",le="+Inf"} 1"#,
            r#"ringcast_wide_sum{shard="0"} 9000"#,
            r#"ringcast_wide_count{shard="0"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
