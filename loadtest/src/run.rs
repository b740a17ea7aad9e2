//! One run from arguments to result: join, settle, measure, leave.
//!
//! Runs on the main thread, which sleeps while the workers measure.

use crate::args::Args;
use crate::clock::{Clock, SECOND};
use crate::display::Display;
use crate::host::Host;
use crate::limit::{self, Limit};
use crate::outcome::{Head, Outcome};
use crate::session::{Session, nanoseconds};

/// What a run results in.
#[derive(Debug, serde::Serialize)]
#[serde(untagged)]
pub(crate) enum Results {
    /// Of one load.
    Run(Box<Outcome>),
    /// Of a search.
    Limit(Box<Limit>),
}

impl Results {
    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Run(outcome) => outcome.status(),
            Self::Limit(limit) => limit.status(),
        }
    }
}

/// Plays one run.
pub(crate) fn run(args: Args) -> Result<Results, String> {
    let began_unix = Clock::start().unix_origin() / SECOND;
    let host = Host::look(args.server_pid);
    let threads =
        args.threads.map_or(host.usable_cpus, |threads| usize::try_from(threads).unwrap_or(1));
    // Rooms of other runs on the same server must not be met.
    let name = format!("{began_unix}-{}", std::process::id());
    let mut display = Some(Display::new(args.progress, args.no_progress));
    let mut session = Session::open(&args, threads, &name, &mut display)?;
    let kind = if args.find_limit { "limit" } else { "run" };
    let head = Head::new(kind, args, host, began_unix);
    let found = if head.arguments.find_limit {
        limit::search(head, &mut session, &mut display).map(Box::new).map(Results::Limit)
    } else {
        session.settle("settle", nanoseconds(head.arguments.settle), &mut display);
        let window = nanoseconds(head.arguments.duration).max(SECOND);
        let observed = session.measure(window, &mut display);
        observed.map(|observed| Results::Run(Box::new(Outcome::new(head, &observed))))
    };
    session.close()?;
    found
}
