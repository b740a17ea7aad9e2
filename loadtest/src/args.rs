//! The command line, and nothing else.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::behaviour::Behaviour;
use crate::slo::Slo;

/// What kind of call is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scenario {
    /// Video publishers, and subscribers who only watch.
    Livestream,
    /// Rooms whose peers all publish audio and video and receive all the others.
    Meeting,
    /// Audio publishers, and subscribers who only listen.
    Audio,
    /// Meetings of four.
    Rooms,
    /// Transports that join and leave all the time, over a base load of video.
    Churn,
    /// Video over networks that lose and reorder, with repair both ways.
    Lossy,
    /// Video publishers with three encodings each.
    Simulcast,
    /// A meeting with joins, leaves and a little loss, to be played for hours.
    Soak,
    /// Connected transports without any media.
    Idle,
}

impl Scenario {
    /// Raised whenever the same arguments and seed would play something else.
    pub(crate) fn version(self) -> u32 {
        match self {
            Self::Livestream
            | Self::Meeting
            | Self::Audio
            | Self::Rooms
            | Self::Churn
            | Self::Lossy
            | Self::Simulcast
            | Self::Soak
            | Self::Idle => 1,
        }
    }
}

/// Black-box load test for a WebRTC SFU with the seven routes of the call service.
///
/// Exit status: 0 the run is valid and keeps its --slo; 1 it breaks it, the server ended or lost
/// transports, no rate keeps the --limit, or compare found a regression; 2 the command line is wrong; 3 it could not be run; 4 it is INVALID
/// because the generator, not the server, fell short.
///
/// `loadtest compare --help` tells how results are compared, `loadtest hostile --help` how a scenario is
/// played with strangers before the server.
#[derive(Debug, Clone, Parser, Serialize)]
#[command(name = "loadtest", version)]
pub(crate) struct Args {
    /// What to play.
    #[arg(value_enum)]
    pub(crate) scenario: Scenario,
    /// The server's API, http or https.
    #[arg(long, default_value = "http://127.0.0.1:6040")]
    pub(crate) url: String,
    /// `Authorization: Bearer` of every request.
    #[arg(long, env = "LOADTEST_TOKEN", hide_env_values = true)]
    #[serde(skip)]
    pub(crate) token: Option<String>,
    /// PEM file with the certificates to trust behind an https --url, instead of those of the web.
    #[arg(long, conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,
    /// Take any certificate behind an https --url.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Rooms [default: 1; rooms: 25; idle: one per 100 transports].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rooms: Option<u32>,
    /// Publishers per room [default: 1; audio 10, meeting 8, soak 4; rooms: always 4].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) publishers: Option<u32>,
    /// Subscribers per room [default: livestream 100, audio 50, churn and lossy 20, simulcast 10;
    /// none in meetings].
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) subscribers: Option<u32>,
    /// Video packets per second and publisher [default: livestream 500, others 125; simulcast has
    /// its own].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) pps: Option<u64>,
    /// Bytes of a video RTP packet, without SRTP's tag.
    #[arg(long, default_value_t = 1_200, value_parser = clap::value_parser!(u64).range(96..=1_400))]
    pub(crate) size: u64,
    /// Video packets per frame, sent together.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) burst: u64,
    /// Bytes of an audio RTP packet, without SRTP's tag; one every 20 ms.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(80..=1_400))]
    pub(crate) audio_size: u64,
    /// Time that is measured, a second at least: seconds, or with unit as in 90s, 15m, 1h.
    #[arg(long, default_value_t = 10.0, value_parser = window)]
    pub(crate) duration: f64,
    /// Seconds over which the transports join.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) ramp: f64,
    /// Seconds between the last join and the measured window.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) settle: f64,
    /// The server's process, to measure its CPU and memory.
    #[arg(long)]
    pub(crate) server_pid: Option<u32>,
    /// Phases, SSRCs and sampling follow from it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Generator threads [default: one per usable core].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: Option<u32>,
    /// Receivers open every n-th packet on average.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) sample: u64,
    /// Receive without UDP_GRO.
    #[arg(long)]
    pub(crate) no_gro: bool,
    /// Let a packet arrive when a thread of ours has read it, not when the kernel received it.
    #[arg(long)]
    pub(crate) reader_stamps: bool,
    /// How clients behave.
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) behaviour: Behaviour,
    /// Search the highest rate that keeps the --limit: ramp, then bisection, in the same rooms.
    ///
    /// Only the rate of video changes (of audio where there is no video), from the scenario's own;
    /// sizes and bursts stay. --duration and --settle are those of one step. Not for scenarios whose
    /// load is more than a rate: churn, soak, simulcast, idle.
    #[arg(long, conflicts_with = "slo")]
    pub(crate) find_limit: bool,
    /// What a rate must keep to count, with --find-limit.
    #[arg(long, default_value = "loss<=0.1%,p99<=20ms", requires = "find_limit")]
    pub(crate) limit: Slo,
    /// Write the results to a file as JSON.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
    /// Write the results to a file as one self-contained page with plots.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) html: Option<PathBuf>,
    /// What the run must keep, such as `loss<=0.1%,p99<=5ms,rss<=200MiB,delivered>=49000pps`.
    ///
    /// Figures: loss; p50, p90, p99, p99.9, max (latency); cpu, user, system (per packet); cores,
    /// rss, switches (server); delivered, bits; reordered, duplicates; silent, stopped (streams);
    /// frozen (% of the time), frames (/s and video stream); joins_failed (%), joins (/s); and the
    /// 99th percentiles of jitter and of joining: transport, connect, produce, consume, ice, dtls,
    /// first_packet, join.
    #[arg(long)]
    pub(crate) slo: Option<Slo>,
    /// Show progress line by line where stderr is no terminal.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) progress: bool,
    /// Show no progress on a terminal.
    #[arg(long, conflicts_with = "progress")]
    #[serde(skip)]
    pub(crate) no_progress: bool,
}

impl Args {
    /// Why these arguments cannot go together, where the parser does not see it.
    pub(crate) fn conflict(&self) -> Option<String> {
        self.rare_frames().or_else(|| self.unpaced())
    }

    /// Frames so far apart that a window may not see one, or that streams would not begin in time.
    fn rare_frames(&self) -> Option<String> {
        let video =
            !matches!(self.scenario, Scenario::Audio | Scenario::Simulcast | Scenario::Idle);
        let pps = crate::plan::video_pps(self);
        let apart = f64::from(u32::try_from(self.burst).ok()?) / crate::series::float(pps);
        (video && apart > self.duration.min(FRAMES_APART_MAX)).then(|| {
            format!(
                "--burst {} at {pps} packets per second (--pps, --bitrate) is a frame every \
                 {apart:.1} s: more than --duration, or than {FRAMES_APART_MAX} s",
                self.burst
            )
        })
    }

    /// A search of a rate where there is more than a rate.
    fn unpaced(&self) -> Option<String> {
        let unpaced = match self.scenario {
            Scenario::Churn | Scenario::Soak => "transports that join and leave",
            Scenario::Simulcast => "receivers that change between encodings",
            Scenario::Idle => "transports without media",
            Scenario::Livestream
            | Scenario::Meeting
            | Scenario::Audio
            | Scenario::Rooms
            | Scenario::Lossy => return None,
        };
        let name = format!("{:?}", self.scenario).to_lowercase();
        self.find_limit.then(|| {
            format!(
                "--find-limit searches a rate, and {name} plays {unpaced}: it has no such limit"
            )
        })
    }
}

/// Frames may be apart by so much, s: all streams must begin within twice that.
const FRAMES_APART_MAX: f64 = 10.0;

/// Seconds to measure: one at least, since results are told by the second.
fn window(text: &str) -> Result<f64, String> {
    seconds(text)
        .ok()
        .filter(|seconds| *seconds >= 1.0)
        .ok_or_else(|| "between 1 and 86400 seconds".into())
}

/// Seconds, also written with `s`, `m` or `h`.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let (number, times) = match text.as_bytes().last() {
        Some(b'h') => (text.trim_end_matches('h'), 3_600.0),
        Some(b'm') => (text.trim_end_matches('m'), 60.0),
        _ => (text.trim_end_matches('s'), 1.0),
    };
    let seconds = number.parse::<f64>().map_err(|_| "not a number of seconds")? * times;
    if (0.0..=86_400.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("between 0 and 86400 seconds".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_refused_where_more_than_a_rate_is_played() {
        for scenario in Scenario::value_variants() {
            let name = scenario.to_possible_value().unwrap();
            let line = ["loadtest", name.get_name(), "--find-limit"];
            let conflict = Args::parse_from(line).conflict();
            let refused = ["churn", "soak", "simulcast", "idle"].contains(&name.get_name());
            assert_eq!(conflict.is_some(), refused, "{conflict:?}");
            assert!(conflict.is_none_or(|reason| reason.contains("--find-limit")));
            assert_eq!(Args::parse_from(&line[..2]).conflict(), None);
        }
    }

    #[test]
    fn a_window_is_a_second_at_least_and_sees_frames() {
        for short in ["0", "0.3", "-1", "x"] {
            let flag = format!("--duration={short}");
            let error = Args::try_parse_from(["loadtest", "audio", &flag]).unwrap_err();
            assert!(error.to_string().contains("--duration"), "{error}");
        }
        for (line, refused) in [
            ("livestream --pps 1 --burst 256", true),
            ("livestream --pps 1 --burst 9 --duration 5", true),
            ("livestream --pps 1 --burst 20 --duration 60", true),
            ("livestream --pps 1 --burst 9", false),
            ("livestream --pps 5 --burst 5 --duration 1", false),
            ("churn --bitrate 1k --burst 200", true),
            ("simulcast --pps 1 --burst 256", false),
            ("audio --pps 1 --burst 256", false),
        ] {
            let words = ["loadtest"].into_iter().chain(line.split(' '));
            let conflict = Args::parse_from(words).conflict();
            assert_eq!(conflict.is_some(), refused, "{line}: {conflict:?}");
            assert!(conflict.is_none_or(|reason| reason.contains("--burst")));
        }
    }

    #[test]
    fn times_are_read_with_their_units() {
        let cases = [("10", 10.0), ("0.5", 0.5), ("90s", 90.0), ("15m", 900.0), ("1h", 3_600.0)];
        for (text, expected) in cases {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for wrong in ["", "h", "-1", "25h", "1d", "nan", "inf"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
