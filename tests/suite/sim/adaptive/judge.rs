//! What a viewer saw and a link bore, measured between two moments, and what must be true of it.

use std::fmt;
use std::time::{Duration, Instant};

use super::super::room::secs;
use super::plan::{Buffer, Layer, Plan};
use super::scene::{Scene, Watched};
use super::screen::Shown;

/// Pictures over which the highest temporal layer is looked for: two patterns of four.
const PATTERN: usize = 8;
/// A step up may take this long, anything else the shorter one.
const RISE: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_secs(10);
/// What is measured as steady begins this long after the estimate has to be there.
const CALM: Duration = Duration::from_secs(5);
const QUEUE_MAX: Duration = Duration::from_millis(200);
const FREEZE_MAX: Duration = Duration::from_millis(500);

/// One part of a plan: the link is the same from its begin to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    pub(crate) bps: u64,
    /// The link became wider.
    pub(crate) rises: bool,
}

impl Phase {
    /// The phases of a plan that began then.
    pub(crate) fn of(plan: &Plan, began: Instant) -> Vec<Self> {
        let ends = plan.steps.iter().skip(1).map(|(at, _)| *at).chain([plan.secs]);
        let mut before = u64::MAX;
        let phase = |((from, kbps), to): (&(u64, u64), u64)| {
            let rises = *kbps > before;
            before = *kbps;
            Self { from: began + secs(*from), to: began + secs(to), bps: kbps * 1_000, rises }
        };
        plan.steps.iter().zip(ends).map(phase).collect()
    }

    fn deadline(&self) -> Instant {
        self.from + if self.rises { RISE } else { SETTLE }
    }

    fn steady(&self) -> Instant {
        self.deadline() + CALM
    }
}

/// What one phase was like.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) kbps: u64,
    /// Median of the steady part, the lowest of all transports', in kbit/s.
    pub(crate) estimate: Option<u64>,
    /// Seconds until what is due was reached, by the last transport.
    pub(crate) reached: Option<f64>,
    /// The layer seen longest in the steady part, of each picture.
    pub(crate) layers: Vec<Option<Layer>>,
    /// Between these each should be.
    pub(crate) fitting: (Option<Layer>, Option<Layer>),
    /// Layer changes of the steady part, of the picture with the most.
    pub(crate) changes: usize,
    /// Pictures/s of the steady part, of the slowest.
    pub(crate) rate: f64,
    pub(crate) longest_gap: Duration,
    pub(crate) queue_p95: Duration,
    /// Percent of the audio packets that never came.
    pub(crate) audio_lost: f64,
    /// What is not as it should be.
    pub(crate) faults: Vec<&'static str>,
}

/// The layer at each picture shown: with the highest temporal layer among those that follow it.
fn layers_of(shown: &[Shown]) -> Vec<(Instant, Layer)> {
    let level = |place: usize| {
        let now = shown[place];
        let follow = shown[place..].iter().take(PATTERN).take_while(|it| it.spatial == now.spatial);
        (now.at, (now.spatial, follow.map(|it| it.temporal).max().unwrap_or(0)))
    };
    (0..shown.len()).map(level).collect()
}

fn within(at: Instant, from: Instant, to: Instant) -> bool {
    (from..to).contains(&at)
}

/// The longest time without a new picture; before the very first one nothing is missed.
pub(crate) fn longest_gap(shown: &[Shown], from: Instant, to: Instant) -> Duration {
    let before = shown.iter().rev().find(|it| it.at < from).map(|_| from);
    let inside = shown.iter().map(|it| it.at).filter(|at| within(*at, from, to));
    let moments: Vec<_> = before.into_iter().chain(inside).chain([to]).collect();
    let gaps = moments.windows(2).map(|pair| pair[1] - pair[0]);
    if moments.len() == 1 { to - from } else { gaps.max().unwrap_or_default() }
}

/// The layer seen longest; pictures that follow each other count for the time between them.
pub(crate) fn usual_layer(shown: &[Shown], from: Instant, to: Instant) -> Option<Layer> {
    let layers = layers_of(shown);
    let inside: Vec<_> = layers.iter().filter(|(at, _)| within(*at, from, to)).collect();
    let mut spans: Vec<(Layer, Duration)> = Vec::new();
    let mut dark = to - from;
    for (place, (at, layer)) in inside.iter().enumerate() {
        let until = inside.get(place + 1).map_or(to, |next| next.0);
        let span = (until - *at).min(Duration::from_secs(1));
        dark -= span;
        match spans.iter_mut().find(|(known, _)| known == layer) {
            Some((_, sum)) => *sum += span,
            None => spans.push((*layer, span)),
        }
    }
    let longest = spans.into_iter().max_by_key(|(_, span)| *span)?;
    (longest.1 >= dark).then_some(longest.0)
}

/// How often the layer changed.
pub(crate) fn changes(shown: &[Shown], from: Instant, to: Instant) -> usize {
    let layers = layers_of(shown);
    let inside: Vec<_> = layers.iter().filter(|(at, _)| within(*at, from, to)).collect();
    inside.windows(2).filter(|pair| pair[0].1 != pair[1].1).count()
}

/// The value that so many percent do not exceed; zero of nothing.
fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort_unstable();
    let place = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(place).copied().unwrap_or_default()
}

pub(crate) fn queue_p95(scene: &Scene, from: Instant, to: Instant) -> Duration {
    let link = scene.link.borrow();
    let waits = link.passed.iter().filter(|(at, ..)| within(*at, from, to));
    percentile(waits.map(|(_, wait, _)| *wait).collect(), 95)
}

fn lost_sound(scene: &Scene, watched: &Watched, from: Instant, to: Instant) -> f64 {
    let Some(sound) = &watched.sound else { return 0.0 };
    let sent = (to - from).as_secs_f64() * 50.0;
    scene.incoming(sound).lost_between(from, to) as f64 * 100.0 / sent
}

/// Seconds after the phase began at which the estimate was first so high.
fn reached(series: &[(Instant, u64)], phase: &Phase, due: u64) -> Option<f64> {
    let mut inside = series.iter().filter(|(at, _)| within(*at, phase.from, phase.to));
    let first = inside.find(|(_, bps)| *bps >= due)?;
    Some((first.0 - phase.from).as_secs_f64())
}

fn median(series: &[(Instant, u64)], from: Instant, to: Instant) -> Option<u64> {
    let mut inside: Vec<_> =
        series.iter().filter(|(at, _)| within(*at, from, to)).map(|(_, bps)| *bps).collect();
    inside.sort_unstable();
    inside.get(inside.len() / 2).copied()
}

impl Outcome {
    /// Of a phase that has been played.
    pub(crate) fn of(scene: &Scene, phase: &Phase) -> Self {
        let Phase { from, to, bps, .. } = *phase;
        let steady = phase.steady();
        let plan = &scene.plan;
        let pictures: Vec<&[Shown]> =
            scene.watched.iter().map(|it| &*scene.incoming(&it.picture).screen.shown).collect();
        let (estimate, reached) = estimates(scene, phase);
        let shown_in = |shown: &[Shown]| {
            shown.iter().filter(|it| within(it.at, steady, to)).count() as f64
                / (to - steady).as_secs_f64()
        };
        let mut outcome = Self {
            kbps: bps / 1_000,
            estimate: estimate.map(|bps| bps / 1_000),
            reached,
            layers: pictures.iter().map(|shown| usual_layer(shown, steady, to)).collect(),
            fitting: plan.fitting(bps),
            changes: pictures.iter().map(|it| changes(it, steady, to)).max().unwrap_or(0),
            rate: pictures.iter().map(|it| shown_in(it)).fold(f64::INFINITY, f64::min),
            longest_gap: pictures
                .iter()
                .map(|shown| longest_gap(shown, from, to))
                .max()
                .unwrap_or_default(),
            queue_p95: queue_p95(scene, from, to),
            audio_lost: scene
                .watched
                .iter()
                .map(|watched| lost_sound(scene, watched, from, to))
                .fold(0.0, f64::max),
            faults: Vec::new(),
        };
        outcome.judge(scene, phase);
        outcome
    }

    fn judge(&mut self, scene: &Scene, phase: &Phase) {
        let plan = &scene.plan;
        let (least, most) = self.fitting;
        let steady = (phase.to - phase.steady()).as_secs_f64();
        let due = phase.deadline() - phase.from;
        let in_time = self.reached.is_some_and(|at| at <= due.as_secs_f64());
        let holds = self.estimate.is_some_and(|kbps| kbps * 1_000 >= due_estimate(plan, phase));
        let lost_anyway = 100.0 * (plan.loss + plan.bursts.map_or(0.0, |(share, _)| share));
        let tests = [
            ("estimate", in_time && holds && !self.believes_a_policer(plan, phase)),
            ("layer", self.layers.iter().all(|it| *it >= least && *it <= most)),
            ("changes", self.changes as f64 <= (steady / 30.0).ceil()),
            ("freeze", least.is_none() || self.longest_gap <= FREEZE_MAX),
            // Of the plan so far: for a moment a link that became narrower holds too much.
            ("queue", queue_p95(scene, scene.began, phase.to) <= QUEUE_MAX),
            ("sound", self.audio_lost <= lost_anyway * 1.5 + 0.5),
        ];
        self.faults = tests.iter().filter(|(_, holds)| !holds).map(|(name, _)| *name).collect();
    }
}

/// An estimate so much above what a policer lets pass is one of its bursts taken for its rate. A link
/// with a queue shows itself; and where less is wanted than it carries nobody can know.
const POLICED_PERCENT_MAX: u64 = 130;

impl Outcome {
    fn believes_a_policer(&self, plan: &Plan, phase: &Phase) -> bool {
        let is_policed = matches!(plan.buffer, Buffer::Policer(_)) && phase.bps < plan.demand();
        let most = phase.bps * POLICED_PERCENT_MAX / 100;
        is_policed && self.estimate.is_some_and(|kbps| kbps * 1_000 > most)
    }
}

/// What each transport's estimate has to reach.
fn due_estimate(plan: &Plan, phase: &Phase) -> u64 {
    let share = plan.known(phase.bps) / plan.viewers as u64;
    let due = share.min(plan.demand() * 13 / 10);
    // Neighbours need not share to the bit.
    if plan.viewers > 1 { due / 2 } else { due * 8 / 10 }
}

fn estimates(scene: &Scene, phase: &Phase) -> (Option<u64>, Option<f64>) {
    let due = due_estimate(&scene.plan, phase);
    let series = || scene.estimates.iter();
    let medians: Option<Vec<_>> = series().map(|it| median(it, phase.steady(), phase.to)).collect();
    let reached: Option<Vec<_>> = series().map(|it| reached(it, phase, due)).collect();
    let estimate = medians.and_then(|all| all.into_iter().min());
    (estimate, reached.map(|all| all.into_iter().fold(0.0, f64::max)))
}

fn layer(layer: &Option<Layer>) -> String {
    layer.map_or("none".into(), |(spatial, temporal)| format!("{spatial}.{temporal}"))
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers: Vec<_> = self.layers.iter().map(layer).collect();
        let (least, most) = &self.fitting;
        let fits = if least == most { layer(least) } else { layer(least) + "-" + &layer(most) };
        write!(
            out,
            "{:>6} {:>8} {:>6} {:>16} {:>9} {:>7} {:>5.1} {:>6} {:>5} {:>5.1}  {}",
            self.kbps,
            self.estimate.map_or_else(|| "-".into(), |kbps| kbps.to_string()),
            self.reached.map_or_else(|| "-".into(), |at| format!("{at:.1}")),
            layers.join(" "),
            fits,
            self.changes,
            self.rate,
            self.longest_gap.as_millis(),
            self.queue_p95.as_millis(),
            self.audio_lost,
            if self.faults.is_empty() { "ok".into() } else { self.faults.join(", ") },
        )
    }
}

/// The head of a table of outcomes.
pub(crate) const HEAD: &str =
    "kbit/s estimate  after           layers      fits changes  fr/s    gap queue sound";
