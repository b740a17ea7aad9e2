//! The part of the command line that says how clients behave: frames, networks, joins, idling.
//!
//! Flattened into [`Args`](crate::args::Args); nothing but parsing.

use std::str::FromStr;

use clap::ValueEnum;
use serde::Serialize;

/// What the frames of a video publisher look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FrameSizes {
    /// `--burst` packets of `--size` bytes, always.
    Fixed,
    /// 20 % around that mean, key frames four times as large, cut as libwebrtc cuts them.
    Libwebrtc,
}

/// A share, written as percent: `2%` or `2`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub(crate) struct Percent(pub(crate) f64);

impl Percent {
    /// The share, 0 to 1.
    pub(crate) fn share(self) -> f64 {
        self.0 / 100.0
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text).trim();
        let percent: f64 = number.parse().map_err(|_| format!("{text:?} is not a percentage"))?;
        if (0.0..=100.0).contains(&percent) {
            Ok(Self(percent))
        } else {
            Err("between 0 % and 100 %".into())
        }
    }
}

/// How clients behave.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Behaviour {
    /// Video bits per second and publisher, such as 2.5M or 800k, instead of --pps.
    #[arg(long, conflicts_with = "pps", value_parser = bits)]
    pub(crate) bitrate: Option<u64>,
    /// How large video frames are.
    #[arg(long, value_enum, default_value_t = FrameSizes::Fixed)]
    pub(crate) frame_sizes: FrameSizes,
    /// Datagrams lost on the way to the server [default: lossy 2%, soak 0.2%, others none].
    #[arg(long)]
    pub(crate) loss_up: Option<Percent>,
    /// Datagrams lost on the way from the server [default: as --loss-up].
    #[arg(long)]
    pub(crate) loss_down: Option<Percent>,
    /// Datagrams lost in a row, on average; 1 is independent loss.
    #[arg(long, default_value_t = 1.0, value_parser = run_length)]
    pub(crate) loss_burst: f64,
    /// Datagrams overtaken by up to three later ones, both ways [default: lossy 0.5%, others none].
    #[arg(long)]
    pub(crate) reorder: Option<Percent>,
    /// Ask for lost packets and send them again [default: lossy, simulcast and soak do].
    #[arg(long)]
    pub(crate) repair: bool,
    /// Transports that join each second, beside the base load [default: churn 20, soak 2].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) joins_per_s: Option<u32>,
    /// Seconds that a joined transport stays, half as long to half as long again.
    #[arg(long, default_value_t = 5.0, value_parser = crate::args::seconds)]
    pub(crate) stay: f64,
    /// Threads that call the API for joins during the run.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) joiners: u32,
    /// Transports of scenario idle.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) transports: u32,
    /// Microseconds that receivers let datagrams gather once one has come, before they read; none
    /// with --reader-stamps.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(0..=20_000))]
    pub(crate) gather_us: u64,
}

/// Bits per second, with `k` or `M`.
fn bits(text: &str) -> Result<u64, String> {
    let (number, times) = match text.as_bytes().last() {
        Some(b'k') => (text.trim_end_matches('k'), 1e3),
        Some(b'M') => (text.trim_end_matches('M'), 1e6),
        _ => (text, 1.0),
    };
    let bits = number.parse::<f64>().map_err(|_| format!("{text:?} is not a bit rate"))? * times;
    if !(1e3..=1e10).contains(&bits) {
        return Err("between 1k and 10000M bits per second".into());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and below 2^53, see above"
    )]
    Ok(bits as u64)
}

fn run_length(text: &str) -> Result<f64, String> {
    let length: f64 = text.parse().map_err(|_| "not a number of datagrams")?;
    if (1.0..=1_000.0).contains(&length) { Ok(length) } else { Err("between 1 and 1000".into()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;

    #[test]
    fn shares_and_rates_are_read_with_their_units() {
        assert_eq!("2%".parse(), Ok(Percent(2.0)));
        assert_eq!("0.5".parse(), Ok(Percent(0.5)));
        for wrong in ["", "%", "-1", "101%", "two", "nan"] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
        }
        assert_eq!(
            (bits("2.5M"), bits("800k"), bits("64000")),
            (Ok(2_500_000), Ok(800_000), Ok(64_000))
        );
        for wrong in ["", "k", "5", "1e99", "M5", "-3M"] {
            assert!(bits(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_value_is_told_with_the_name_of_its_flag() {
        let cases = [
            ("--loss-up", "200%"),
            ("--loss-down", "x"),
            ("--loss-burst", "0"),
            ("--reorder", "-1"),
            ("--joins-per-s", "0"),
            ("--stay", "-1"),
            ("--joiners", "0"),
            ("--transports", "0"),
            ("--gather-us", "99999999"),
            ("--bitrate", "fast"),
            ("--frame-sizes", "huge"),
            ("--rooms", "0"),
            ("--publishers", "0"),
            ("--duration", "5 parsecs"),
            ("--duration", "0.3"),
            ("--pps", "0"),
            ("--burst", "0"),
        ];
        for (flag, value) in cases {
            let value = format!("{flag}={value}");
            let error = Args::try_parse_from(["loadtest", "churn", &value]).unwrap_err();
            assert!(error.to_string().contains(flag), "{error}");
        }
        let both = ["loadtest", "churn", "--pps=5", "--bitrate=1M"];
        let error = Args::try_parse_from(both).unwrap_err().to_string();
        assert!(error.contains("--pps") && error.contains("--bitrate"), "{error}");
    }
}
