//! What the server says about itself: its `/metrics`, read before and after the measured window.
//!
//! Optional in every part: a server without the route, or with other names, is measured from outside
//! only. The names are ringcast's; all shards are summed. Reading is outside the window, so that
//! answering costs the server nothing that is measured. Pure: the caller fetches.

use serde::Serialize;

/// The histogram of kernel receive time to send, seconds.
const LATENCY_BUCKET: &str = "ringcast_forward_latency_seconds_bucket";

/// One reading of a server's metrics, as far as they are of use here.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reading {
    version: Option<String>,
    /// Upper bound, seconds, and how many were below or at it, all shards together; by bound.
    buckets: Vec<(f64, u64)>,
    datagrams_out: u64,
    messages_out: u64,
    kernel_dropped: u64,
    shed: u64,
}

/// What the server says of the measured window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ServerSays {
    /// Its version.
    pub(crate) version: Option<String>,
    /// Its own forward latency, µs: the upper bounds of the buckets that hold these quantiles.
    pub(crate) latency_us: Option<ServerLatency>,
    /// Datagrams that it sent.
    pub(crate) datagrams_out: u64,
    /// Messages (trains) that it handed to the kernel for them.
    pub(crate) messages_out: u64,
    /// Datagrams per message; none when it does not tell.
    pub(crate) segments_per_message: Option<f64>,
    /// Datagrams that its kernel dropped because its socket was full.
    pub(crate) kernel_dropped: u64,
    /// Packets that it left out because they had waited for too long.
    pub(crate) shed: u64,
}

/// Quantiles of the server's own histogram, µs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct ServerLatency {
    /// How many packets it counted.
    pub(crate) count: u64,
    /// Median; none when it lies beyond the last bound.
    pub(crate) p50: Option<f64>,
    /// 90th percentile.
    pub(crate) p90: Option<f64>,
    /// 99th percentile.
    pub(crate) p99: Option<f64>,
}

impl Reading {
    /// Reads Prometheus text (exposition format 0.0.4); `None` when nothing in it is ringcast's.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut reading = Self::default();
        let mut known = false;
        for line in text.lines().filter(|line| line.starts_with("ringcast_")) {
            known = true;
            // A label's value may hold blanks; the sample's value follows the last one.
            let Some((series, value)) = line.trim_end().rsplit_once(' ') else { continue };
            let name = series.split('{').next().unwrap_or_default();
            let count = || value.parse::<u64>().unwrap_or(0);
            match name {
                LATENCY_BUCKET => reading.add_bucket(series, count()),
                "ringcast_shard_datagrams_out_total" => reading.datagrams_out += count(),
                "ringcast_shard_messages_out_total" => reading.messages_out += count(),
                "ringcast_shard_kernel_dropped_total" => reading.kernel_dropped += count(),
                "ringcast_shard_shed_audio_total" | "ringcast_shard_shed_video_total" => {
                    reading.shed += count();
                }
                "ringcast_build_info" => reading.version = label(series, "version"),
                _ => {}
            }
        }
        known.then_some(reading)
    }

    fn add_bucket(&mut self, series: &str, count: u64) {
        let bound = label(series, "le").and_then(|bound| match bound.as_str() {
            "+Inf" => Some(f64::INFINITY),
            number => number.parse().ok(),
        });
        let Some(bound) = bound else { return };
        match self.buckets.binary_search_by(|(known, _)| known.total_cmp(&bound)) {
            Ok(place) => {
                if let Some((_, sum)) = self.buckets.get_mut(place) {
                    *sum += count;
                }
            }
            Err(place) => self.buckets.insert(place, (bound, count)),
        }
    }

    /// What happened since an earlier reading.
    pub(crate) fn since(&self, before: &Self) -> ServerSays {
        let datagrams_out = self.datagrams_out.saturating_sub(before.datagrams_out);
        let messages_out = self.messages_out.saturating_sub(before.messages_out);
        #[expect(clippy::cast_precision_loss, reason = "a ratio is read to a few digits")]
        let ratio = datagrams_out as f64 / messages_out as f64;
        ServerSays {
            version: self.version.clone(),
            latency_us: self.latency_since(before),
            datagrams_out,
            messages_out,
            segments_per_message: (messages_out > 0).then_some(ratio),
            kernel_dropped: self.kernel_dropped.saturating_sub(before.kernel_dropped),
            shed: self.shed.saturating_sub(before.shed),
        }
    }

    fn latency_since(&self, before: &Self) -> Option<ServerLatency> {
        // Buckets that the earlier reading did not have began at zero.
        let earlier = |bound: f64| {
            let same = before.buckets.iter().find(|(known, _)| known.total_cmp(&bound).is_eq());
            same.map_or(0, |(_, count)| *count)
        };
        let new = |&(bound, count): &(f64, u64)| (bound, count.saturating_sub(earlier(bound)));
        let buckets: Vec<_> = self.buckets.iter().map(new).collect();
        let count = buckets.last().map_or(0, |(_, count)| *count);
        let quantile = |hundredths: u64| {
            let rank = (count * hundredths).div_ceil(100).max(1);
            let (bound, _) = buckets.iter().find(|(_, below)| *below >= rank)?;
            bound.is_finite().then_some(bound * 1e6)
        };
        let (p50, p90, p99) = (quantile(50), quantile(90), quantile(99));
        (count > 0).then_some(ServerLatency { count, p50, p90, p99 })
    }
}

/// The value of a label, with its escapes undone.
fn label(series: &str, name: &str) -> Option<String> {
    let (_, labels) = series.split_once('{')?;
    let wanted = format!("{name}=\"");
    // A label begins the list or follows a comma.
    let at = labels.match_indices(&wanted).map(|(at, _)| at).find(|at| {
        at.checked_sub(1).is_none_or(|before| labels.as_bytes().get(before) == Some(&b','))
    })?;
    let mut characters = labels.get(at + wanted.len()..)?.chars();
    let mut value = String::new();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            '\\' => match characters.next()? {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(scale: u64) -> String {
        let line = |le: &str, shard: u8, count: u64| {
            format!("{LATENCY_BUCKET}{{shard=\"{shard}\",le=\"{le}\"}} {}\n", count * scale)
        };
        [
            "# TYPE ringcast_build_info gauge\n".to_owned(),
            "ringcast_build_info{version=\"1.2 \\\"x\\\"\"} 1\n".to_owned(),
            line("0.001", 0, 60),
            line("0.01", 0, 98),
            line("+Inf", 0, 100),
            line("0.001", 1, 40),
            line("0.01", 1, 100),
            line("+Inf", 1, 100),
            format!("ringcast_shard_datagrams_out_total{{shard=\"0\"}} {}\n", 800 * scale),
            format!("ringcast_shard_messages_out_total{{shard=\"0\"}} {}\n", 100 * scale),
            format!("ringcast_shard_shed_audio_total{{shard=\"0\"}} {}\n", 2 * scale),
            format!("ringcast_shard_shed_video_total{{shard=\"0\"}} {}\n", 3 * scale),
            "process_cpu_seconds_total 3\n".to_owned(),
        ]
        .concat()
    }

    #[test]
    fn the_difference_of_two_readings_is_the_window() {
        let [before, after] = [1, 3].map(|scale| Reading::read(&text(scale)).unwrap());
        let says = after.since(&before);
        assert_eq!(says.version.as_deref(), Some("1.2 \"x\""));
        let (p50, p90, p99) = (Some(1_000.0), Some(10_000.0), Some(10_000.0));
        let expected = ServerLatency { count: 400, p50, p90, p99 };
        assert_eq!(says.latency_us, Some(expected));
        assert_eq!((says.datagrams_out, says.messages_out, says.shed), (1_600, 200, 10));
        assert_eq!(says.segments_per_message, Some(8.0));
    }

    #[test]
    fn what_lies_beyond_the_last_bound_is_not_given_a_number() {
        let beyond = text(1).replace("0.01", "0.002").replace("} 98", "} 70");
        let says = Reading::read(&beyond).unwrap().since(&Reading::default());
        let latency = says.latency_us.unwrap();
        assert_eq!((latency.p50, latency.p99), (Some(1_000.0), None));
    }

    #[test]
    fn a_server_that_says_nothing_is_asked_nothing() {
        assert_eq!(Reading::read("process_cpu_seconds_total 3\n"), None);
        assert_eq!(Reading::read("<html>"), None);
        let reading = Reading::read("ringcast_rooms 1\n").unwrap();
        let says = reading.since(&reading);
        assert_eq!((says.latency_us, says.segments_per_message), (None, None));
    }
}
