//! Plots as inline SVG, drawn by our own few lines. Pure.
//!
//! Colours are classes that the page's style sheet fills, so one drawing serves light and dark.

use std::fmt::Write;

/// Size of a drawing in its own units; the page scales it.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 280.0;
/// Room for labels: left, right, top, bottom.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;

/// How an axis maps values to places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Evenly, from zero.
    Linear,
    /// By decades.
    Logarithmic,
    /// Percent by the decades of what is missing to 100, as HDR histograms are drawn.
    Percentile,
}

/// One line of a plot.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Its name in the legend.
    pub(crate) name: String,
    /// Which of the page's colours, from 1.
    pub(crate) colour: u8,
    /// Its points; unknown values are left out and break nothing.
    pub(crate) points: Vec<(f64, f64)>,
    /// Dots only, for points without an order.
    pub(crate) dots: bool,
    /// Drawn broken: what should have been.
    pub(crate) dashed: bool,
}

impl Line {
    /// A line through points.
    pub(crate) fn new(name: &str, colour: u8, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), colour, points, dots: false, dashed: false }
    }

    /// The same, broken.
    pub(crate) fn dashed(self) -> Self {
        Self { dashed: true, ..self }
    }

    /// The same, as dots.
    pub(crate) fn dots(self) -> Self {
        Self { dots: true, ..self }
    }
}

/// A plot.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    /// What the horizontal axis shows, with its unit.
    pub(crate) across: &'static str,
    /// What the vertical axis shows, with its unit.
    pub(crate) up: &'static str,
    /// Horizontal scale.
    pub(crate) across_scale: Scale,
    /// Vertical scale.
    pub(crate) up_scale: Scale,
    /// Lines, later ones above earlier ones.
    pub(crate) lines: Vec<Line>,
    /// A horizontal line: the limit that an objective sets.
    pub(crate) limit: Option<f64>,
}

/// An axis: scale, ends in scaled values, and ticks with their labels.
struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    fn over(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let most = values.clone().fold(0.0, f64::max);
        let least = values.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
        match scale {
            Scale::Linear => {
                let step = nice(most / 5.0);
                let count = (most / step).ceil().max(1.0);
                let ticks = whole(0.0, count).map(|n| (n * step, short(n * step))).collect();
                Self { scale, from: 0.0, to: count * step, ticks }
            }
            Scale::Logarithmic => {
                let least = if least.is_finite() { least } else { 1.0 };
                let from = least.log10().floor();
                let to = most.max(least).log10().ceil().max(from + 1.0);
                let ticks = whole(from, to).map(|n| 10_f64.powf(n)).map(|v| (v, short(v)));
                Self { scale, from, to, ticks: ticks.collect() }
            }
            Scale::Percentile => {
                let to = missing_decades(most).max(2.0);
                let marks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
                let shown = marks.into_iter().filter(|mark| missing_decades(*mark) <= to);
                let ticks = shown.map(|mark| (mark, format!("{mark}"))).collect();
                Self { scale, from: 0.0, to, ticks }
            }
        }
    }

    /// 0 at the axis' begin to 1 at its end.
    fn place(&self, value: f64) -> f64 {
        let scaled = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(1e-12).log10(),
            Scale::Percentile => missing_decades(value),
        };
        ((scaled - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }
}

/// Decades of what a percentage lacks to 100: 90 is 1, 99 is 2. Never beyond seven.
fn missing_decades(percent: f64) -> f64 {
    -((100.0 - percent) / 100.0).max(1e-7).log10()
}

/// The whole numbers from one to another, both included.
fn whole(from: f64, to: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(from), |n| Some(n + 1.0)).take_while(move |n| *n <= to + 1e-9)
}

/// The next of 1, 2, 2.5, 5 times a power of ten that is not smaller.
fn nice(step: f64) -> f64 {
    if step <= 0.0 || !step.is_finite() {
        return 1.0;
    }
    let decade = 10_f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 2.5, 5.0, 10.0];
    let factor = factors.into_iter().find(|factor| factor * decade >= step * 0.999_999);
    factor.unwrap_or(10.0) * decade
}

/// A number as short as it can be read.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    // Six digits at most, and none of the noise behind them.
    let text = format!("{:.4}", value);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

/// Text inside XML.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not allowed in XML.
            control if control.is_control() && control != '\n' && control != '\t' => {
                out.push('\u{FFFD}');
            }
            other => out.push(other),
        }
    }
    out
}

impl Plot {
    /// The drawing, one `<svg>` element.
    pub(crate) fn svg(&self) -> String {
        let mut out = String::new();
        // Writing into a string cannot fail.
        let _ = self.draw(&mut out);
        out
    }

    fn draw(&self, out: &mut String) -> std::fmt::Result {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let across = Axis::over(self.across_scale, points().map(|(x, _)| x));
        let up = Axis::over(self.up_scale, points().map(|(_, y)| y).chain(self.limit));
        let x = |value| LEFT + across.place(value) * (WIDTH - LEFT - RIGHT);
        let y = |value| HEIGHT - BOTTOM - up.place(value) * (HEIGHT - TOP - BOTTOM);
        let (floor, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let label = escaped(&format!("{} against {}", self.up, self.across));
        writeln!(out, r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">"#)?;
        for (value, text) in &up.ticks {
            let at = y(*value);
            writeln!(
                out,
                r#"<path class="grid" d="M{LEFT} {at:.1}H{right}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{text}</text>"#,
                LEFT - 7.0,
                at + 3.5,
            )?;
        }
        for (value, text) in &across.ticks {
            let at = x(*value);
            writeln!(
                out,
                r#"<path class="grid" d="M{at:.1} {TOP}V{floor}"/><text class="tick" x="{at:.1}" y="{:.1}" text-anchor="middle">{text}</text>"#,
                floor + 15.0,
            )?;
        }
        writeln!(out, r#"<path class="axis" d="M{LEFT} {TOP}V{floor}H{right}"/>"#)?;
        if let Some(limit) = self.limit {
            let at = y(limit);
            writeln!(out, r#"<path class="limit" d="M{LEFT} {at:.1}H{right}"/>"#)?;
        }
        for line in &self.lines {
            line.draw(out, x, y)?;
        }
        let (middle, centre) = ((LEFT + right) / 2.0, (TOP + floor) / 2.0);
        writeln!(
            out,
            r#"<text class="name" x="{middle:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            HEIGHT - 8.0,
            escaped(self.across),
        )?;
        writeln!(
            out,
            r#"<text class="name" transform="translate(14 {centre:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
            escaped(self.up),
        )?;
        writeln!(out, "</svg>")
    }

    /// Names and colours of the lines, as HTML.
    pub(crate) fn legend(&self) -> String {
        let entry = |line: &Line| {
            let broken = if line.dashed { " broken" } else { "" };
            format!(
                r#"<span class="key"><i class="c{}{broken}"></i>{}</span>"#,
                line.colour,
                escaped(&line.name),
            )
        };
        let mut all: Vec<_> = self.lines.iter().map(entry).collect();
        if self.limit.is_some() {
            all.push(r#"<span class="key"><i class="bound"></i>objective</span>"#.to_owned());
        }
        all.concat()
    }
}

impl Line {
    fn draw(
        &self,
        out: &mut String,
        x: impl Fn(f64) -> f64,
        y: impl Fn(f64) -> f64,
    ) -> std::fmt::Result {
        let colour = self.colour;
        if !self.dots {
            let mut path = String::new();
            for (place, (across, up)) in self.points.iter().enumerate() {
                let pen = if place == 0 { 'M' } else { 'L' };
                write!(path, "{pen}{:.1} {:.1}", x(*across), y(*up))?;
            }
            let broken = if self.dashed { " broken" } else { "" };
            writeln!(out, r#"<path class="line s{colour}{broken}" d="{path}"/>"#)?;
        }
        // Beyond that they would be a smear.
        if self.dots || (self.points.len() <= 60 && !self.dashed) {
            for (across, up) in &self.points {
                writeln!(
                    out,
                    r#"<circle class="c{colour}" cx="{:.1}" cy="{:.1}" r="{}"><title>{}: {} at {}</title></circle>"#,
                    x(*across),
                    y(*up),
                    if self.dots { 4 } else { 2 },
                    escaped(&self.name),
                    short(*up),
                    short(*across),
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_can_leave_it() {
        let escaped = escaped("a<b>&\"c\"'\u{0}\u{1b}[1m é\n");
        assert_eq!(escaped, "a&lt;b&gt;&amp;&quot;c&quot;&#39;\u{FFFD}\u{FFFD}[1m é\n");
    }

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        for most in [0.0, 0.003, 0.7, 1.0, 9.9, 49_980.0, 3e9] {
            let axis = Axis::over(Scale::Linear, [most].into_iter());
            assert!(axis.to >= most && axis.ticks.len() <= 7, "{most}");
            assert!((axis.place(0.0)).abs() < 1e-9 && axis.place(most) <= 1.0);
        }
        for (value, text) in [(0.25, "0.25"), (50_000.0, "50k"), (2.5e6, "2.5M"), (900.0, "900")] {
            assert_eq!(short(value), text);
        }
        let axis = Axis::over(Scale::Logarithmic, [0.3, 45.0].into_iter());
        let labels: Vec<_> = axis.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(labels, ["0.1", "1", "10", "100"]);
    }

    #[test]
    fn each_nine_of_a_percentile_is_as_wide() {
        let axis = Axis::over(Scale::Percentile, [0.0, 99.99].into_iter());
        for (percent, place) in [(0.0, 0.0), (90.0, 0.25), (99.0, 0.5), (99.9, 0.75), (100.0, 1.0)]
        {
            assert!((axis.place(percent) - place).abs() < 1e-6, "{percent}");
        }
    }

    #[test]
    fn a_drawing_is_whole_whatever_its_points() {
        for points in [vec![], vec![(1.0, 0.0)], vec![(0.0, 1.0), (1.0, 5.0)]] {
            let line = Line::new("<p99>", 1, points);
            let plot = Plot {
                across: "time & space",
                up: "ms",
                across_scale: Scale::Linear,
                up_scale: Scale::Logarithmic,
                lines: vec![line.clone(), line.clone().dashed(), line.dots()],
                limit: Some(20.0),
            };
            let svg = plot.svg();
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
            assert!(svg.contains("time &amp; space") && !svg.contains("<p99>"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(plot.legend().contains("&lt;p99&gt;"));
        }
    }
}
