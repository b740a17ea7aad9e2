//! What a run shows beside packets, latency and CPU: joins, repair, pictures, idling, growth.
//!
//! Pure: made from what the workers counted and what was seen of the server. Part of `--json`
//! (flattened into it) and of the table.

use std::fmt::Write;

use serde::Serialize;

use crate::args::Scenario;
use crate::growth::{Grown, Growth};
use crate::outcome::Percentiles;
use crate::probe::Usage;
use crate::tally::Tally;

/// Server CPU of the joins before the run from which on a figure is told, ns: the kernel counts in
/// ticks of 10 ms, and less than 30 of them say little.
const RAMP_CPU_MIN: u64 = 300_000_000;

/// Joins during the run, of those that were due within the window.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Joins {
    /// Due.
    pub(crate) begun: u64,
    /// That received a packet.
    pub(crate) done: u64,
    /// That were refused, or left or were given up without a packet.
    pub(crate) failed: u64,
    /// These, percent of those due; none when none was.
    pub(crate) failed_percent: Option<f64>,
    /// That no thread of ours was free to begin in time.
    pub(crate) unstarted: u64,
    /// Transports that left within the window.
    pub(crate) left: u64,
    /// Done, per second.
    pub(crate) per_s: f64,
    /// Done, per second of server CPU: all it used in the window, media and leaving included.
    pub(crate) per_cpu_s: Option<f64>,
    /// The same without what the base load used before the first join; the media of those that
    /// joined is still in it.
    pub(crate) per_cpu_s_above_base: Option<f64>,
    /// Share of a core that the base load used.
    pub(crate) base_cores: Option<f64>,
}

/// Loss and repair.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Repair {
    /// Packets that the way down lost or held too long before any repair, percent of those expected.
    pub(crate) loss_before_percent: f64,
    /// What was missing in the end, percent.
    pub(crate) loss_after_percent: f64,
    /// Since a packet was missed until a repair brought it, µs.
    pub(crate) repair_us: Percentiles,
}

/// What viewers would have noticed, over all video streams.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Picture {
    /// Frames per second and stream.
    pub(crate) frames_per_s: f64,
    /// Freezes in the window, also those that it ended.
    pub(crate) freezes: u64,
    /// Share of the time that streams stood still, percent.
    pub(crate) frozen_percent: f64,
    /// Packets of the smallest, middle and largest encoding, percent; simulcast only.
    pub(crate) layers_percent: Option<[f64; 3]>,
    /// Changes of the encoding; simulcast only.
    pub(crate) switches: Option<u64>,
}

/// The price of transports that do nothing.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Idle {
    /// How many.
    pub(crate) transports: usize,
    /// Server CPU, percent of a core.
    pub(crate) server_cpu_percent: Option<f64>,
    /// Resident memory of the server, each one's share of what came since before the first joined,
    /// bytes.
    pub(crate) bytes_per_transport: Option<f64>,
}

/// The price of joining, without leaving.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Ramp {
    /// Transports that joined before the run, one after the other.
    pub(crate) transports: usize,
    /// Of these per second of the server's CPU until the last one's first packet, with all that was
    /// forwarded meanwhile.
    pub(crate) per_cpu_s: f64,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Findings {
    /// Interarrival jitter (RFC 3550) over the received streams, µs.
    pub(crate) jitter_us: Percentiles,
    /// With joins during the run.
    pub(crate) joins: Option<Joins>,
    /// When the joins before the run took long enough to be measured.
    pub(crate) ramp: Option<Ramp>,
    /// With repair.
    pub(crate) repair: Option<Repair>,
    /// With video.
    pub(crate) picture: Option<Picture>,
    /// With nothing else.
    pub(crate) idle: Option<Idle>,
    /// The server's size over the window.
    pub(crate) server_growth: Option<Grown>,
    /// Our own.
    pub(crate) generator_growth: Option<Grown>,
}

/// What they are made of.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Nanoseconds measured.
    pub(crate) window: u64,
    /// Transports in the plan.
    pub(crate) transports: usize,
    /// What the server used in the window.
    pub(crate) server: Option<Usage>,
    /// What it was before the first transport.
    pub(crate) empty: Option<Usage>,
    /// CPU that it used from the first join to the last of the base load, ns.
    pub(crate) ramp: Option<u64>,
    /// Share of a core that it used between the last join of the base load and what followed.
    pub(crate) base_cores: Option<f64>,
    /// Its size over the window.
    pub(crate) growth: Growth,
    /// Ours.
    pub(crate) own_growth: Growth,
}

impl Findings {
    /// What a run of a scenario shows; `repairs` when lost packets were asked for.
    pub(crate) fn new(scenario: Scenario, repairs: bool, tally: &Tally, seen: &Seen) -> Self {
        let counts = tally.counts;
        let seconds = float(seen.window) / 1e9;
        let share = |part: u64| 100.0 * float(part) / float(counts.expected.max(1));
        let repair = repairs.then(|| {
            let missing = counts.expected.saturating_sub(counts.delivered);
            Repair {
                loss_before_percent: share(missing + counts.repaired),
                loss_after_percent: share(missing),
                repair_us: (&tally.repair).into(),
            }
        });
        let picture = (counts.frames > 0 || counts.freezes > 0).then(|| {
            let streams = float(counts.video_streams.max(1));
            let layers = [counts.layer_0, counts.layer_1, counts.layer_2];
            let all: u64 = layers.iter().sum();
            let layered = all > 0;
            Picture {
                frames_per_s: float(counts.frames) / seconds / streams,
                freezes: counts.freezes,
                frozen_percent: 100.0 * float(counts.frozen_ns) / float(seen.window) / streams,
                layers_percent: layered
                    .then(|| layers.map(|layer| 100.0 * float(layer) / float(all))),
                switches: layered.then_some(counts.switches),
            }
        });
        Self {
            jitter_us: (&tally.jitter).into(),
            joins: joins(scenario, tally, seen),
            ramp: ramp(seen),
            repair,
            picture,
            idle: (scenario == Scenario::Idle).then(|| idle(seen)),
            server_growth: seen.growth.grown(),
            generator_growth: seen.own_growth.grown(),
        }
    }

    /// Lines for the table of a run of a scenario.
    pub(crate) fn write(&self, scenario: Scenario, text: &mut String) -> std::fmt::Result {
        let mut last = "";
        for (name, said) in self.entries(scenario) {
            // A figure of the same group goes without its name.
            let name = if name == std::mem::replace(&mut last, name) { "" } else { name };
            writeln!(text, "{name:<12}{said}")?;
        }
        Ok(())
    }

    /// The same as groups' names and sentences.
    pub(crate) fn entries(&self, scenario: Scenario) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        if let Some(joins) = &self.joins {
            joins.tell(&mut all);
        }
        if let Some(ramp) = &self.ramp {
            let Ramp { transports, per_cpu_s } = ramp;
            let said = format!(
                "{transports:>12} transports before the run, {per_cpu_s:.0} per second of server CPU"
            );
            all.push(("joined", said));
        }
        if let Some(repair) = &self.repair {
            all.push((
                "repair",
                format!(
                    "{:>12.4} % lost before, {:.4} % after; in {} ms p50, {} ms p99",
                    repair.loss_before_percent,
                    repair.loss_after_percent,
                    number(repair.repair_us.p50.map(|us| us / 1e3)),
                    number(repair.repair_us.p99.map(|us| us / 1e3)),
                ),
            ));
        }
        if let Some(picture) = &self.picture {
            picture.tell(&mut all);
        }
        if let Some(idle) = &self.idle {
            let (cpu, kib) = (
                number(idle.server_cpu_percent),
                number(idle.bytes_per_transport.map(|bytes| bytes / 1024.0)),
            );
            let said =
                format!("{:>12} transports, {cpu} % of a core, {kib} KiB each", idle.transports);
            all.push(("idle", said));
        }
        for (name, grown) in [("server", self.server_growth), ("we", self.generator_growth)] {
            let long = scenario == Scenario::Soak;
            if let Some(grown) = grown.filter(|_| long) {
                all.push((
                    "growth",
                    format!(
                        "{name:>12}: {:+.2} MiB/h, {:+.1} descriptors/h",
                        grown.resident_bytes_per_hour / f64::from(1 << 20),
                        grown.descriptors_per_hour,
                    ),
                ));
            }
        }
        all
    }
}

impl Joins {
    fn tell(&self, all: &mut Vec<(&'static str, String)>) {
        let Self { begun, done, failed, left, per_s, .. } = self;
        let said = format!("{done:>12} of {begun}, {failed} failed, {per_s:.1}/s, {left} left");
        all.push(("joins", said));
        if let Some((whole, above)) = self.per_cpu_s.zip(self.per_cpu_s_above_base) {
            let said =
                format!("{whole:>12.0} per second of server CPU, {above:.0} above the base load");
            all.push(("joins", said));
        }
    }
}

impl Picture {
    fn tell(&self, all: &mut Vec<(&'static str, String)>) {
        let (frames, freezes, frozen) = (self.frames_per_s, self.freezes, self.frozen_percent);
        let said = format!(
            "{frames:>12.1} frames/s a stream, {freezes} freezes, {frozen:.2} % of the time"
        );
        all.push(("picture", said));
        if let Some(([small, middle, large], switches)) = self.layers_percent.zip(self.switches) {
            all.push((
                "layers",
                format!(
                    "{small:>10.1} % {middle:.1} % {large:.1} % of packets from small to large, \
                     {switches} switches"
                ),
            ));
        }
    }
}

fn joins(scenario: Scenario, tally: &Tally, seen: &Seen) -> Option<Joins> {
    if !matches!(scenario, Scenario::Churn | Scenario::Soak) {
        return None;
    }
    let counts = tally.counts;
    let seconds = float(seen.window) / 1e9;
    let done = float(counts.joins_done);
    let used = seen.server.map(|usage| float(usage.cpu_ns()) / 1e9);
    let above = used.zip(seen.base_cores).map(|(used, base)| used - base * seconds);
    Some(Joins {
        begun: counts.joins_begun,
        done: counts.joins_done,
        failed: counts.joins_failed,
        failed_percent: (counts.joins_begun > 0)
            .then(|| 100.0 * float(counts.joins_failed) / float(counts.joins_begun)),
        unstarted: counts.joins_unstarted,
        left: counts.leaves,
        per_s: done / seconds,
        per_cpu_s: used.filter(|used| *used > 0.0).map(|used| done / used),
        per_cpu_s_above_base: above.filter(|above| *above > 0.0).map(|above| done / above),
        base_cores: seen.base_cores,
    })
}

fn ramp(seen: &Seen) -> Option<Ramp> {
    let transports = float(u64::try_from(seen.transports).ok()?);
    let used = seen.ramp.filter(|used| *used >= RAMP_CPU_MIN)?;
    Some(Ramp { transports: seen.transports, per_cpu_s: transports * 1e9 / float(used) })
}

fn idle(seen: &Seen) -> Idle {
    let transports = float(u64::try_from(seen.transports.max(1)).unwrap_or(1));
    let grown = seen.server.zip(seen.empty).map(|(now, empty)| {
        float(now.resident_bytes.saturating_sub(empty.resident_bytes)) / transports
    });
    Idle {
        transports: seen.transports,
        server_cpu_percent: seen
            .server
            .map(|usage| 100.0 * float(usage.cpu_ns()) / float(seen.window.max(1))),
        bytes_per_transport: grown,
    }
}

/// To one digit; `?` when it is not known.
fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "?".into(), |value| format!("{value:.1}"))
}

/// Numbers here are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "figures are read to a few digits")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;
    use crate::tally::Counts;

    fn usage(cpu_ms: u64, resident_bytes: u64) -> Option<Usage> {
        Some(Usage { user_ns: cpu_ms * 1_000_000, resident_bytes, ..Usage::default() })
    }

    #[test]
    fn joins_before_the_run_are_told_once_their_cpu_can_be_measured() {
        let price = |ms: Option<u64>| {
            let ramp = ms.map(|ms| ms * 1_000_000);
            let seen = Seen { window: SECOND, transports: 501, ramp, ..Seen::default() };
            Findings::new(Scenario::Livestream, false, &Tally::default(), &seen)
        };
        assert!(price(None).ramp.is_none() && price(Some(290)).ramp.is_none());
        let findings = price(Some(600));
        assert_eq!(findings.ramp.unwrap().per_cpu_s.round(), 835.0);
        let told = findings.entries(Scenario::Livestream);
        let line = told.iter().find(|(name, _)| *name == "joined").unwrap();
        assert!(line.1.ends_with("501 transports before the run, 835 per second of server CPU"));
    }

    #[test]
    fn joins_are_told_per_second_of_the_servers_cpu_with_and_without_its_base_load() {
        let counts = Counts { joins_begun: 1_010, joins_done: 1_000, ..Counts::default() };
        let tally = Tally { counts, ..Tally::default() };
        let window = 10 * SECOND;
        let (server, base_cores) = (usage(2_000, 0), Some(0.1));
        let seen = Seen { window, server, base_cores, ..Seen::default() };
        let joins = Findings::new(Scenario::Churn, false, &tally, &seen).joins.unwrap();
        assert!((joins.per_s - 100.0).abs() < 1e-9);
        assert!((joins.per_cpu_s.unwrap() - 500.0).abs() < 1e-9);
        assert!((joins.per_cpu_s_above_base.unwrap() - 1_000.0).abs() < 1e-6);
    }

    #[test]
    fn a_picture_that_is_frozen_from_end_to_end_is_told() {
        let counts = Counts {
            expected: 1_000,
            video_streams: 2,
            freezes: 2,
            frozen_ns: 2 * SECOND,
            ..Counts::default()
        };
        let tally = Tally { counts, ..Tally::default() };
        let seen = Seen { window: SECOND, ..Seen::default() };
        let findings = Findings::new(Scenario::Livestream, false, &tally, &seen);
        let picture = findings.picture.unwrap();
        assert_eq!((picture.freezes, picture.frames_per_s), (2, 0.0));
        assert!((picture.frozen_percent - 100.0).abs() < 1e-9);
    }

    #[test]
    fn loss_is_told_before_and_after_repair() {
        let counts = Counts { expected: 1_000, delivered: 995, repaired: 20, ..Counts::default() };
        let tally = Tally { counts, ..Tally::default() };
        let findings = Findings::new(Scenario::Lossy, true, &tally, &Seen::default());
        let repair = findings.repair.unwrap();
        assert!((repair.loss_before_percent - 2.5).abs() < 1e-9);
        assert!((repair.loss_after_percent - 0.5).abs() < 1e-9);
    }

    #[test]
    fn an_idle_transport_costs_its_share_of_what_came_since_before_the_first() {
        let seen = Seen {
            window: 10 * SECOND,
            transports: 1_000,
            server: usage(500, 60 << 20),
            empty: usage(90, 20 << 20),
            ..Seen::default()
        };
        let findings = Findings::new(Scenario::Idle, false, &Tally::default(), &seen);
        let idle = findings.idle.unwrap();
        assert!((idle.server_cpu_percent.unwrap() - 5.0).abs() < 1e-9);
        assert!((idle.bytes_per_transport.unwrap() - 41_943.04).abs() < 1e-6);
        let mut text = String::new();
        findings.write(Scenario::Idle, &mut text).unwrap();
        assert!(text.contains("1000 transports, 5.0 % of a core, 41.0 KiB each"), "{text}");
    }
}
