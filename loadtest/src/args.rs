//! The command line, and nothing else.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::Serialize;

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
}

/// Black-box load test for a WebRTC SFU with the seven routes of the call service.
///
/// Exit status: 0 the run is valid and keeps its --slo; 1 it breaks it, or no rate keeps the --limit,
/// or compare found a regression; 2 the command line is wrong; 3 it could not be run; 4 it is INVALID
/// because the generator, not the server, fell short.
///
/// `loadtest compare --help` tells how results are compared.
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
    /// Rooms [default: 1; rooms: 25].
    #[arg(long)]
    pub(crate) rooms: Option<u32>,
    /// Publishers per room [default: livestream 1, audio 10, meeting 8; rooms: always 4].
    #[arg(long)]
    pub(crate) publishers: Option<u32>,
    /// Subscribers per room [default: livestream 100, audio 50; none in meetings].
    #[arg(long)]
    pub(crate) subscribers: Option<u32>,
    /// Video packets per second and publisher [default: livestream 500, others 125].
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
    /// Seconds that are measured.
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
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) sample: u64,
    /// Receive without UDP_GRO.
    #[arg(long)]
    pub(crate) no_gro: bool,
    /// Take arrival times from the kernel instead of the reading thread's clock.
    #[arg(long)]
    pub(crate) kernel_stamps: bool,
    /// Search the highest rate that keeps the --limit: ramp, then bisection, in the same rooms.
    ///
    /// Only the rate of video changes (of audio where there is no video), from the scenario's own;
    /// sizes and bursts stay. --duration and --settle are those of one step.
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
    /// rss, switches (server); delivered, bits; reordered, duplicates, silent (streams); and the
    /// 99th percentiles of joining: transport, connect, produce, consume, ice, dtls, first_packet.
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

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    if (0.0..=86_400.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("between 0 and 86400 seconds".into())
    }
}
