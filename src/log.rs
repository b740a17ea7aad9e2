//! Log lines: text for people or one JSON object each, to standard error, filtered.
//!
//! Called once by `main`, before any thread is made. Fields are named alike everywhere: `room.id`,
//! `peer.id`, `transport.id`, `shard.id`. Nothing logs at a sender's rate. A line that cannot be
//! written is let go: the server serves on.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, LogFormat};

/// Starts logging as configured. Does nothing where a subscriber is installed already (tests).
pub fn start(config: &Config) {
    // The filter was checked with the configuration; the default is for library users who were not.
    let filter = EnvFilter::try_new(&config.log_filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // Else a line that cannot be written (a full disk, a pipe whose reader is gone) is complained
        // of with `eprintln!`, which panics: on whatever thread had something to say.
        .log_internal_errors(false);
    let _ = match config.log_format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
}
