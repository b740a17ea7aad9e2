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
/// Exit status: 0 the run is valid and keeps its --slo; 1 it breaks it; 3 it could not be run;
/// 4 it is INVALID because the generator, not the server, fell short.
#[derive(Debug, Clone, Parser, Serialize)]
#[command(name = "loadtest", version)]
pub(crate) struct Args {
    /// What to play.
    #[arg(value_enum)]
    pub(crate) scenario: Scenario,
    /// The server's API.
    #[arg(long, default_value = "http://127.0.0.1:6040")]
    pub(crate) url: String,
    /// `Authorization: Bearer` of every request.
    #[arg(long, env = "LOADTEST_TOKEN", hide_env_values = true)]
    #[serde(skip)]
    pub(crate) token: Option<String>,
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
    /// Time that is measured: seconds, or with unit as in 90s, 15m, 1h.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
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
    /// Write the results to a file as JSON.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
    /// What the run must keep, such as `loss<=0.1%,p99<=5ms`.
    #[arg(long)]
    pub(crate) slo: Option<Slo>,
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
