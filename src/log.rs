//! Log lines: text for people or one JSON object each, to standard error, filtered.
//!
//! Called once by `main`, before any thread is made. Fields are named alike everywhere: `room.id`,
//! `peer.id`, `transport.id`, `shard.id`. Nothing logs at a sender's rate. A thread of its own
//! writes, so that a log whose reader has stopped (a pipe that is full, a journal that hangs) holds
//! up neither media nor the API. A line that cannot be written, or that finds [`LOG_LINES_WAITING_MAX`]
//! before it, is let go: the server serves on, and the metrics tell how many.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, LogFormat};
use crate::limits::LOG_LINES_WAITING_MAX;

static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Ends the log when dropped: what waits is written, for a second at most.
#[must_use = "the last lines are written when it is dropped"]
pub struct LogGuard {
    _writing: WorkerGuard,
}

/// Starts logging as configured. Changes nothing where a subscriber is installed already (tests).
pub fn start(config: &Config) -> LogGuard {
    // The filter was checked with the configuration; the default is for library users who were not.
    let filter = EnvFilter::try_new(&config.log_filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let (lines, writing) = written_behind(std::io::stderr());
    let lost = lines.error_counter();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // Else a line that cannot be written is complained of with `eprintln!`, which panics: on
        // whatever thread had something to say.
        .log_internal_errors(false);
    let started = match config.log_format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    if started.is_ok() {
        let _ = LOST.set(lost);
    }
    LogGuard { _writing: writing }
}

/// Log lines let go because the log's reader did not keep up, since the start.
pub(crate) fn lines_lost() -> u64 {
    LOST.get().map_or(0, |lost| lost.dropped_lines() as u64)
}

fn written_behind(writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LOG_LINES_WAITING_MAX)
        .thread_name("log")
        .finish(writer)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Tells of each line, and then waits until it is let go on.
    struct Slow {
        told: Sender<Vec<u8>>,
        go_on: Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.told.send(line.to_vec()).map_err(io::Error::other)?;
            // When nobody holds it up any more, it does not wait.
            let _ = self.go_on.recv();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_has_something_to_say_waits_for_no_reader_and_what_is_lost_is_counted() {
        let ((told, lines), (free, go_on)) = (channel(), channel());
        let (mut log, writing) = written_behind(Slow { told, go_on });
        let lost = log.error_counter();
        log.write_all(b"first").unwrap();
        assert_eq!(lines.recv().unwrap(), b"first", "which is now being written");
        for number in 0..LOG_LINES_WAITING_MAX + 7 {
            log.write_all(number.to_string().as_bytes()).unwrap();
        }
        assert_eq!(lost.dropped_lines(), 7);
        drop(free);
        drop((log, writing));
        let written: Vec<_> = lines.iter().collect();
        let last = (LOG_LINES_WAITING_MAX - 1).to_string();
        assert_eq!(written.len(), LOG_LINES_WAITING_MAX);
        assert_eq!(written.last().unwrap(), last.as_bytes());
    }
}
