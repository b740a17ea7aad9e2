//! What the text of a setting means. Pure functions from one text to one value or a sentence that
//! quotes it; where the text came from is added by the caller.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::sources::Parsed;
use super::{LogFormat, Runtime, Steer};
use crate::limits::{COALESCE_MAX, DRAIN_TIMEOUT_MAX, SHARDS_MAX};
use crate::ortc::VideoCodec;

/// First segments of paths that the API itself answers.
const TAKEN_PATHS: [&str; 9] =
    ["admin", "docs-json", "healthz", "media", "metrics", "pages", "readyz", "whep", "whip"];

/// Where the API also shows its document, as the replaced service did; beside it there is room.
const TAKEN_PATH: &str = "api/swagger.json";

pub(super) fn boolean(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

pub(super) fn port(text: &str) -> Parsed<u16> {
    text.parse().map_err(|_| format!("{text:?} is no port (0 to 65535)"))
}

pub(super) fn socket_address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| {
        format!("{text:?} is no address and port, such as 127.0.0.1:6040 or [::1]:6040")
    })
}

pub(super) fn ip(text: &str) -> Parsed<IpAddr> {
    bare_ip(text).ok_or_else(|| format!("{text:?} is no IP address"))
}

/// With or without the brackets that IPv6 addresses wear in URLs.
fn bare_ip(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match bracketed {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// An IP address that a client could reach, or a host name (RFC 1123 §2.1).
pub(super) fn announced(text: &str) -> Parsed<String> {
    match bare_ip(text) {
        Some(ip) if ip.is_unspecified() => {
            Err(format!("{text:?} is no address that a client could reach"))
        }
        Some(ip) if ip.is_multicast() => Err(format!("{text:?} is a multicast address")),
        Some(ip) => Ok(ip.to_string()),
        None if is_host_name(text) => Ok(text.to_ascii_lowercase()),
        None => Err(format!("{text:?} is neither an IP address nor a host name")),
    }
}

fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label of digits is a mistyped IP address: no top-level domain is a number.
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 253
        && text.split('.').all(label)
        && text.rsplit('.').next().is_some_and(|last| !numeric(last))
}

pub(super) fn video_codec(text: &str) -> Parsed<VideoCodec> {
    VideoCodec::named(text).ok_or_else(|| {
        let names = VideoCodec::ALL.map(VideoCodec::name).join(", ");
        format!("{text:?} is none of {names}")
    })
}

/// `None` for `auto`.
pub(super) fn shards(text: &str) -> Parsed<Option<usize>> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    match text.parse() {
        Ok(number) if (1..=SHARDS_MAX).contains(&number) => Ok(Some(number)),
        _ => Err(format!("{text:?} is no number from 1 to {SHARDS_MAX}, and not auto")),
    }
}

/// Whole microseconds up to [`COALESCE_MAX`].
pub(super) fn coalesce(text: &str) -> Parsed<Duration> {
    let longest = COALESCE_MAX.as_micros();
    match text.parse().map(Duration::from_micros) {
        Ok(wait) if wait <= COALESCE_MAX => Ok(wait),
        _ => Err(format!("{text:?} is no number of microseconds from 0 to {longest}")),
    }
}

/// Whole seconds up to [`DRAIN_TIMEOUT_MAX`].
pub(super) fn drain_timeout(text: &str) -> Parsed<Duration> {
    let longest = DRAIN_TIMEOUT_MAX.as_secs();
    match text.parse().map(Duration::from_secs) {
        Ok(wait) if wait <= DRAIN_TIMEOUT_MAX => Ok(wait),
        _ => Err(format!("{text:?} is no number of seconds from 0 to {longest}")),
    }
}

pub(super) fn runtime(text: &str) -> Parsed<Runtime> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(Runtime::Auto),
        "glommio" => Ok(Runtime::Glommio),
        "thread" => Ok(Runtime::Thread),
        _ => Err(format!("{text:?} is none of auto, glommio and thread")),
    }
}

pub(super) fn steer(text: &str) -> Parsed<Steer> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(Steer::Auto),
        "off" => Ok(Steer::Off),
        _ => Err(format!("{text:?} is neither auto nor off")),
    }
}

pub(super) fn log_format(text: &str) -> Parsed<LogFormat> {
    match text.to_ascii_lowercase().as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is neither text nor json")),
    }
}

pub(super) fn log_filter(text: &str) -> Parsed<String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{text:?} is no log filter: {error}")),
    }
}

/// Segments of unreserved characters (RFC 3986 §2.3), clear of the API's own paths.
///
/// The API asks it too, about options that were not read from a configuration: what is good here
/// must be good there.
pub(crate) fn docs_path(text: &str) -> Parsed<String> {
    let path = text.trim_matches('/');
    let segment = |segment: &str| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    if !path.split('/').all(segment) {
        return Err(format!("{text:?} is no path of letters, digits, - . _ ~ and /"));
    }
    match path.split('/').next() {
        Some(first) if TAKEN_PATHS.contains(&first) => {
            Err(format!("{text:?} is taken: the API answers under /{first}"))
        }
        _ if path == TAKEN_PATH => {
            Err(format!("{text:?} is taken: the API answers under /{TAKEN_PATH}"))
        }
        _ => Ok(path.to_owned()),
    }
}

/// Scheme, host and maybe port, as browsers write the `Origin` header (RFC 6454 §6.2).
pub(super) fn web_origin(text: &str) -> Parsed<String> {
    let origin = text.to_ascii_lowercase();
    let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    match host {
        Some(host) if is_authority(host) => Ok(origin),
        _ => Err(format!(
            "{text:?} is no origin such as https://example.org; leave it out to allow any"
        )),
    }
}

pub(super) fn is_authority(text: &str) -> bool {
    let (host, port_is_good) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse::<u16>().is_ok_and(|port| port > 0))
        }
        _ => (text, true),
    };
    let host_is_good = if host.contains(':') {
        host.starts_with('[') && bare_ip(host).is_some()
    } else {
        host.parse::<IpAddr>().is_ok() || is_host_name(host)
    };
    port_is_good && host_is_good
}
