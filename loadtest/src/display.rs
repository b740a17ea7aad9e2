//! Live progress on stderr: bars on a terminal, one line per second elsewhere, or nothing.
//!
//! Owned by `main`; while `main` joins, a thread of its own draws. What is drawn is made by pure
//! functions; it assumes 80 columns and a terminal that knows four ANSI sequences.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::clock::{Clock, SECOND};
use crate::series::{Moment, float};
use crate::worker::Progress;

/// How often a bar moves.
pub(crate) const DRAW_EVERY: u64 = SECOND / 5;

/// Characters of a bar.
const BAR: usize = 24;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Not at all.
    Silent,
    /// A line per second.
    Lines,
    /// Bars that are drawn over.
    Bars,
}

/// Shows progress.
#[derive(Debug)]
pub(crate) struct Display {
    mode: Mode,
    /// Lines of the picture that the next one replaces.
    drawn: usize,
}

/// What is known while a window is measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Live {
    /// Nanoseconds since the window began.
    pub(crate) elapsed: u64,
    /// Nanoseconds of the window.
    pub(crate) window: u64,
    /// The last whole second.
    pub(crate) last: Option<Moment>,
    /// Server CPU per packet since the window began, ns.
    pub(crate) server_ns_per_packet: Option<f64>,
}

impl Display {
    /// As the command line and stderr have it: bars on a terminal, lines where they are asked for.
    pub(crate) fn new(progress: bool, no_progress: bool) -> Self {
        let mode = mode(progress, no_progress, std::io::stderr().is_terminal());
        Self { mode, drawn: 0 }
    }

    /// True when anything is shown at all.
    pub(crate) fn shows(&self) -> bool {
        self.mode != Mode::Silent
    }

    /// A line that stays.
    pub(crate) fn note(&mut self, line: &str) {
        if self.mode != Mode::Silent {
            self.draw(&[]);
            self.write(&format!("{line}\n"));
        }
    }

    /// Shows a phase that only lasts.
    pub(crate) fn wait(&mut self, name: &str, elapsed: u64, whole: u64) {
        if self.mode == Mode::Bars {
            let left = float(whole.saturating_sub(elapsed)) / float(SECOND);
            self.draw(&[format!("{name:<8}{} {left:.1} s left", bar(elapsed, whole))]);
        }
    }

    /// Shows the measured window.
    pub(crate) fn window(&mut self, live: &Live) {
        if self.mode == Mode::Bars {
            self.draw(&window_lines(live));
        }
    }

    /// A second of the window has passed.
    pub(crate) fn second(&mut self, live: &Live) {
        match (self.mode, live.last) {
            (Mode::Lines, Some(moment)) => {
                self.write(&format!("{}\n", second_line(&moment, live.server_ns_per_packet)));
            }
            _ => self.window(live),
        }
    }

    /// Takes away what is drawn over.
    pub(crate) fn clear(&mut self) {
        self.draw(&[]);
    }

    /// Shows joining from a thread of its own until told to stop.
    pub(crate) fn joining(
        mut self,
        clock: Clock,
        progress: Arc<Progress>,
        whole: (usize, usize),
    ) -> Joining {
        let (stop, stopped) = bounded::<()>(0);
        let since = clock.now();
        let run = move || {
            let mut lines = 0;
            loop {
                let ended = stopped.recv_timeout(Duration::from_nanos(DRAW_EVERY))
                    != Err(RecvTimeoutError::Timeout);
                let counts = [&progress.connected, &progress.begun]
                    .map(|count| usize::try_from(count.load(Ordering::Relaxed)).unwrap_or(0));
                let elapsed = clock.now() - since;
                let line = join_line(counts, whole, elapsed);
                match self.mode {
                    Mode::Bars => self.draw(&[line]),
                    Mode::Lines if ended || elapsed >= (lines + 1) * SECOND => {
                        lines += 1;
                        self.write(&format!("{line}\n"));
                    }
                    _ => {}
                }
                if ended {
                    return self;
                }
            }
        };
        let thread = std::thread::Builder::new().name("progress".into()).spawn(run).ok();
        Joining { stop, thread }
    }

    /// Replaces the last picture.
    fn draw(&mut self, lines: &[String]) {
        if self.mode != Mode::Bars {
            return;
        }
        let mut text = String::new();
        for _ in 0..self.drawn {
            // Up, and clear that line.
            text.push_str("\x1b[1A\x1b[2K");
        }
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        self.drawn = lines.len();
        self.write(&text);
    }

    /// Who closes stderr does not want to know.
    fn write(&self, text: &str) {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// The thread that shows joining.
#[derive(Debug)]
pub(crate) struct Joining {
    stop: Sender<()>,
    thread: Option<JoinHandle<Display>>,
}

impl Joining {
    /// Ends it and takes the display back.
    pub(crate) fn end(self) -> Display {
        drop(self.stop);
        let display = self.thread.and_then(|thread| thread.join().ok());
        display.unwrap_or(Display { mode: Mode::Silent, drawn: 0 })
    }
}

fn mode(progress: bool, no_progress: bool, terminal: bool) -> Mode {
    match (no_progress, terminal, progress) {
        (true, ..) => Mode::Silent,
        (false, true, _) => Mode::Bars,
        (false, false, true) => Mode::Lines,
        (false, false, false) => Mode::Silent,
    }
}

/// A bar filled as far as `done` of `whole`.
fn bar(done: u64, whole: u64) -> String {
    let width = u64::try_from(BAR).unwrap_or(0);
    let filled = done.saturating_mul(width).checked_div(whole).unwrap_or(width).min(width);
    let filled = usize::try_from(filled).unwrap_or(0);
    format!("[{}{}]", "█".repeat(filled), "░".repeat(BAR - filled))
}

fn join_line([connected, begun]: [usize; 2], whole: (usize, usize), elapsed: u64) -> String {
    let (transports, streams) = whole;
    let done = u64::try_from(connected + begun).unwrap_or(u64::MAX);
    let all = u64::try_from(transports + streams).unwrap_or(u64::MAX);
    format!(
        "join    {} {connected}/{transports} up, {begun}/{streams} streams, {:.1} s",
        bar(done, all),
        float(elapsed) / float(SECOND),
    )
}

fn window_lines(live: &Live) -> Vec<String> {
    let seconds = |nanoseconds| float(nanoseconds) / float(SECOND);
    let left = seconds(live.window.saturating_sub(live.elapsed));
    let head = format!(
        "measure {} {:.1} of {:.1} s, {left:.1} s left",
        bar(live.elapsed, live.window),
        seconds(live.elapsed),
        seconds(live.window),
    );
    let Some(last) = live.last else {
        return vec![head, String::new(), String::new(), String::new()];
    };
    let rate = match last.expected_pps.zip(last.missing_percent) {
        Some((expected, missing)) => format!(
            "  rate    {} of {} packets/s, {:.1} Mbit/s, missing {missing:.3} %",
            grouped(last.delivered_pps),
            grouped(expected),
            last.delivered_bps / 1e6,
        ),
        None => format!(
            "  rate    {} packets/s, {:.1} Mbit/s",
            grouped(last.delivered_pps),
            last.delivered_bps / 1e6,
        ),
    };
    let mut lines = vec![
        head,
        rate,
        format!(
            "  last s  latency p50 {}, p99 {}; generator late {}",
            milliseconds(last.p50_us),
            milliseconds(last.p99_us),
            milliseconds(last.lateness_p99_us),
        ),
        format!("  CPU     {}", cpu(&last, live.server_ns_per_packet)),
    ];
    lines.extend(own_latency(&last).map(|said| format!("  server  {said}")));
    lines
}

/// What the server says of its own latency; `None` when it does not.
fn own_latency(last: &Moment) -> Option<String> {
    let (p50, p99) = (last.server_says_p50_us, last.server_says_p99_us);
    (p50.is_some() || p99.is_some()).then(|| {
        let (p50, p99) = (milliseconds(p50), milliseconds(p99));
        format!("its own latency p50 ≤ {p50}, p99 ≤ {p99}, receive to send")
    })
}

fn second_line(last: &Moment, server_ns_per_packet: Option<f64>) -> String {
    let of = last.expected_pps.map(|expected| format!(" of {expected:.0}")).unwrap_or_default();
    let missing =
        last.missing_percent.map(|missing| format!("missing {missing:.3} %  ")).unwrap_or_default();
    format!(
        "{:>5.0} s  {:.0}{of} packets/s  {:.1} Mbit/s  {missing}p50 {}  p99 {}  {}{}",
        last.at,
        last.delivered_pps,
        last.delivered_bps / 1e6,
        milliseconds(last.p50_us),
        milliseconds(last.p99_us),
        cpu(last, server_ns_per_packet),
        own_latency(last).map(|said| format!("; {said}")).unwrap_or_default(),
    )
}

fn cpu(last: &Moment, server_ns_per_packet: Option<f64>) -> String {
    let server = match (last.server_cores, server_ns_per_packet) {
        (Some(cores), Some(nanoseconds)) => {
            format!("server {:.0} %, {nanoseconds:.0} ns/packet; ", 100.0 * cores)
        }
        _ => String::new(),
    };
    let stolen = match last.stolen_percent {
        stolen if stolen >= 0.1 => format!("; stolen {stolen:.1} %"),
        _ => String::new(),
    };
    format!("{server}generator {:.0} %{stolen}", 100.0 * last.generator_cores)
}

fn milliseconds(us: Option<f64>) -> String {
    us.map_or_else(|| "–".to_owned(), |us| format!("{:.2} ms", us / 1e3))
}

/// Nanoseconds, where they are known.
pub(crate) fn nanoseconds(known: Option<f64>) -> String {
    known.map_or_else(|| "–".to_owned(), |nanoseconds| format!("{nanoseconds:.0}"))
}

/// A whole number with its thousands apart.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_for_terminals_and_lines_for_those_who_ask() {
        let cases = [
            ((false, false, true), Mode::Bars),
            ((true, false, true), Mode::Bars),
            ((true, false, false), Mode::Lines),
            ((false, false, false), Mode::Silent),
            ((false, true, true), Mode::Silent),
            ((true, true, true), Mode::Silent),
        ];
        for ((progress, no_progress, terminal), expected) in cases {
            assert_eq!(mode(progress, no_progress, terminal), expected);
        }
    }

    #[test]
    fn a_bar_is_always_as_wide() {
        for (done, whole, filled) in
            [(0, 10, 0), (5, 10, 12), (10, 10, 24), (99, 10, 24), (0, 0, 24)]
        {
            let bar = bar(done, whole);
            assert_eq!(bar.chars().count(), BAR + 2);
            assert_eq!(bar.matches('█').count(), filled);
        }
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let last = Moment {
            delivered_pps: 300_000.0,
            expected_pps: Some(300_000.0),
            delivered_bps: 2.88e9,
            missing_percent: Some(99.999),
            server_says_p50_us: Some(100_000.0),
            server_says_p99_us: Some(1_000_000.0),
            p50_us: Some(20_000.0),
            p99_us: Some(200_000.0),
            lateness_p99_us: Some(9_999.0),
            server_cores: Some(2.0),
            generator_cores: 2.0,
            stolen_percent: 10.0,
            ..Moment::default()
        };
        let (elapsed, window) = (3_599 * SECOND, 3_600 * SECOND);
        let live = Live { elapsed, window, last: Some(last), server_ns_per_packet: Some(2_800.0) };
        let mut lines = window_lines(&live);
        assert_eq!(lines.len(), 5, "with the server's own words");
        lines.push(join_line([1_000, 1_000], (1_001, 1_000), 20 * SECOND));
        for line in lines {
            assert!(line.chars().count() < 80, "{line}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_out_of_the_line() {
        let line = second_line(&Moment { at: 3.0, delivered_pps: 70.0, ..Moment::default() }, None);
        assert!(line.contains("70 packets/s") && !line.contains("missing"), "{line}");
        assert!(!line.contains("its own latency"), "{line}");
        let told = Moment { server_says_p99_us: Some(500.0), ..Moment::default() };
        let line = second_line(&told, None);
        assert!(
            line.ends_with("its own latency p50 ≤ –, p99 ≤ 0.50 ms, receive to send"),
            "{line}"
        );
    }

    #[test]
    fn thousands_stand_apart() {
        let cases = [(0.0, "0"), (999.4, "999"), (1_000.0, "1,000"), (-1_234_567.0, "-1,234,567")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(-123.0), "-123");
    }
}
