//! Whether this host lets the server do all that it can: every check tries the very thing that a
//! start would need, and says how to mend what does not work.
//!
//! Called by `ringcast doctor` on its one thread, before any server. Invariants: a check changes
//! nothing on the host and ends within [`DOCTOR_PATIENCE`] for each thing that it asks of others;
//! `Fail` means that a server would not start or that clients could not reach it, `Warn` that it
//! works less well than it could; a secret is never part of a finding.

mod host;
mod kernel;
mod network;
mod storage;

use std::time::Duration;

use serde::Serialize;

use crate::config::Config;
use crate::limits::DOCTOR_PATIENCE;
use crate::node::usable_cores;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Nothing here tells; no reason to warn.
    Unknown,
    /// It works, less well.
    Warn,
    /// It does not work.
    Fail,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The check's name.
    pub(crate) check: &'static str,
    /// How much it matters.
    pub(crate) level: Level,
    /// What is so, and what follows from it.
    pub(crate) says: String,
    /// What to run or set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, says: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, says: says.into(), mend: None }
    }

    fn unknown(check: &'static str, says: impl Into<String>) -> Self {
        Self { level: Level::Unknown, ..Self::ok(check, says) }
    }

    fn warn(check: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, says: says.into(), mend: Some(mend.into()) }
    }

    fn fail(check: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { level: Level::Fail, ..Self::warn(check, says, mend) }
    }
}

/// Everything that is to be said about a start with this configuration on this host.
pub(crate) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        kernel::io_uring(config),
        kernel::steering(config),
        kernel::locked_memory(config),
        kernel::buffers(config),
        kernel::offload(config),
        host::clock(),
        host::wall_clock(),
        host::cores(config),
        host::files(config),
    ];
    findings.extend(network::announced(config));
    findings.extend(network::ports(config));
    findings.extend(storage::tls(config));
    findings.extend(storage::spool(config));
    findings.extend(network::kafka(config));
    findings.extend(network::webhook(config));
    findings
}

/// As many shards as a server would have.
fn shards(config: &Config) -> usize {
    config.shards.unwrap_or_else(|| usable_cores().len().max(1))
}

/// What `ask` answers, unless it takes longer than [`DOCTOR_PATIENCE`].
fn in_time<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, told) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || {
        // Nobody listens any more when it took too long.
        let _ = tell.send(ask());
    });
    // A little longer, for those that keep the time themselves.
    told.recv_timeout(DOCTOR_PATIENCE + Duration::from_millis(500)).ok()
}

/// A small file of the kernel's, without the space around.
fn kernel_says(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
