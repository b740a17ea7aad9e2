//! `loadtest hostile`: whether strangers harm calls. The same load again and again by turns, without
//! strangers and with them: readers of events that never read, half-open connections, scrapers
//! without a pause.
//!
//! Runs on the main thread; [`strangers`] and [`caller`] have threads of their own. Both halves of a
//! pair are the same runs with the same calls of the API, so that the strangers are the only
//! difference, or, with `--hostile-url`, the strangers and what ails that other server.

mod caller;
mod kernel;
mod strangers;
mod verdict;

use clap::Parser;
use crossbeam_channel::bounded;

use self::caller::Caller;
use self::kernel::KernelDrops;
use self::strangers::{Crowd, Strangers, Target, scrape};
pub(crate) use self::verdict::Comparison;
use self::verdict::{Half, Pair};
use crate::api::Api;
use crate::clock::{Clock, SECOND};
use crate::outcome::Outcome;
use crate::run::{self, Results};
use crate::socket::raise_descriptors;

/// Descriptors that are neither clients' sockets nor strangers', at most.
const DESCRIPTORS_SPARE: u64 = 400;

/// Plays a scenario by turns without and with strangers before the server, and compares.
///
/// Strangers are readers of room events that never read, half-open connections, and scrapers without
/// a pause; whoever of them the server cuts off is replaced. In both halves an application calls the
/// API at a steady rate, in a room that the readers follow.
///
/// Exit status: 0 strangers harm nobody; 1 they do, beyond --tolerance; 2 the command line is wrong; 3
/// it could not be run; 4 a run is INVALID because the generator, not the server, fell short.
#[derive(Debug, Clone, Parser)]
#[command(name = "loadtest hostile", version)]
#[group(id = "hostile")]
pub(crate) struct Args {
    #[command(flatten)]
    load: crate::args::Args,
    #[command(flatten)]
    crowd: Crowd,
    /// Calls of the API each second in both halves, each on a new connection.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    calls_per_s: u32,
    /// Pairs of runs.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
    /// Another server for the halves with strangers, such as one whose Kafka and webhook are dead.
    #[arg(long)]
    hostile_url: Option<String>,
    /// That server's process.
    #[arg(long, requires = "hostile_url")]
    hostile_pid: Option<u32>,
    /// By how much the 99th percentiles of media and API may be longer with strangers, in the median of
    /// the pairs. Loss may grow by 0.1 percentage points.
    #[arg(long, default_value = "50%")]
    tolerance: crate::behaviour::Percent,
}

impl Args {
    /// Why these arguments cannot go together, where the parser does not see it.
    fn conflict(&self) -> Option<&'static str> {
        let load = &self.load;
        let elsewhere = self.hostile_url.is_some();
        [
            (load.find_limit, "--find-limit changes the load, which must stay the same"),
            (load.html.is_some(), "--html is the page of one run"),
            (load.slo.is_some(), "--slo is of one run; see --tolerance"),
            (
                elsewhere && load.server_pid.is_some() != self.hostile_pid.is_some(),
                "--server-pid and --hostile-pid are told together or not at all",
            ),
        ]
        .into_iter()
        .find_map(|(conflicts, reason)| conflicts.then_some(reason))
    }

    /// Where `--json` goes.
    pub(crate) fn json(&self) -> Option<&std::path::Path> {
        self.load.json.as_deref()
    }

    /// The load of a half.
    fn load(&self, hostile: bool) -> crate::args::Args {
        let mut load = self.load.clone();
        if let Some(url) = self.hostile_url.as_ref().filter(|_| hostile) {
            url.clone_into(&mut load.url);
            load.server_pid = self.hostile_pid;
        }
        load
    }
}

/// Plays all pairs, and says on stderr how far it is.
pub(crate) fn run(args: &Args) -> Result<Comparison, (u8, String)> {
    let conflict = args.conflict().map(str::to_owned);
    if let Some(reason) = conflict.or_else(|| args.load.conflict()) {
        return Err((2, reason));
    }
    let needed = u64::from(args.crowd.readers + args.crowd.half_open) + DESCRIPTORS_SPARE;
    if raise_descriptors() < needed {
        let reason = format!("these strangers need {needed} descriptors: see `ulimit -Hn`");
        return Err((3, reason));
    }
    let mut pairs = Vec::new();
    let mut last = None;
    for number in 1..=args.pairs {
        let mut half = |hostile| {
            let with = if hostile { "with" } else { "without" };
            eprintln!("pair {number} of {}, {with} strangers", args.pairs);
            let (half, outcome) = half(args, hostile, number).map_err(|reason| (3, reason))?;
            last = Some(outcome);
            Ok(half)
        };
        pairs.push(Pair { without: half(false)?, with: half(true)? });
    }
    let last = last.ok_or_else(|| (3, "no pair was played".to_owned()))?;
    Ok(Comparison::new(last, args, pairs))
}

/// One run, its calls, and with strangers what became of them.
fn half(args: &Args, hostile: bool, number: u32) -> Result<(Half, Box<Outcome>), String> {
    let load = args.load(hostile);
    let token = load.token.clone();
    let target = Target::of(&load.url, token.as_deref())?;
    let began = Clock::start().unix_origin() / SECOND;
    let side = if hostile { "with" } else { "without" };
    let room = format!("calls-{began}-{}-{number}-{side}", std::process::id());
    let api = Api::without_connections(&load)?;
    let caller = Caller::enter(api, room, args.calls_per_s)?;
    let crowd = hostile.then_some(args.crowd);
    let (stop, stopped) = bounded::<()>(0);
    let before = KernelDrops::look();
    let (results, calls, treatment) = std::thread::scope(|scope| {
        let gathered = crowd.map(|crowd| Strangers::gather(&target, &caller.room, crowd));
        let strangers = gathered.transpose()?;
        let stopped = &stopped;
        let kept = strangers.map(|strangers| scope.spawn(move || strangers.keep(stopped)));
        let scrapers: Vec<_> = (0..crowd.map_or(0, |crowd| crowd.scrapers))
            .map(|_| Ok(scrape(scope, Api::new(&load)?, stopped.clone())))
            .collect::<Result<_, String>>()?;
        let calling = scope.spawn(|| caller.call(stopped));
        let results = run::run(load.clone());
        drop(stop);
        let died = |_| "a thread panicked".to_owned();
        let calls = calling.join().map_err(died)?;
        let mut treatment = kept.map(|kept| kept.join().map_err(died)).transpose()?;
        for scraper in scrapers {
            let scrapes = scraper.join().map_err(died)?;
            if let Some(treatment) = &mut treatment {
                treatment.scrapes += scrapes;
            }
        }
        Ok::<_, String>((results?, calls, treatment))
    })?;
    let Results::Run(outcome) = results else { return Err("a search is no run".into()) };
    let kernel = KernelDrops::look().since(before);
    Ok((Half::new(&outcome, &calls, kernel, treatment), outcome))
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::verdict::tests::compared;
    use super::*;

    fn args(line: &str) -> Args {
        Args::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn a_half_is_the_load_as_told_but_for_the_server() {
        let one = args("hostile livestream --url http://a:1 --server-pid 7 --pairs 2");
        assert_eq!(
            (one.load(true).url.as_str(), one.load(true).server_pid),
            ("http://a:1", Some(7))
        );
        assert_eq!(one.crowd, Crowd { readers: 1_000, half_open: 1_000, scrapers: 1 });
        let two = args("hostile audio --url http://a:1 --hostile-url http://b:1 --readers 5");
        assert_eq!(
            (two.load(false).url, two.load(true).url),
            ("http://a:1".into(), "http://b:1".into())
        );
        assert_eq!(two.conflict(), None);
    }

    #[test]
    fn what_cannot_be_compared_is_refused_naming_its_flag() {
        for (line, flag) in [
            ("hostile livestream --find-limit", "--find-limit"),
            ("hostile livestream --html a.html", "--html"),
            ("hostile livestream --slo loss<=1%", "--slo"),
            ("hostile livestream --server-pid 1 --hostile-url http://b:1", "--hostile-pid"),
        ] {
            let (status, reason) = run(&args(line)).unwrap_err();
            assert!(status == 2 && reason.contains(flag), "{line}: {reason}");
        }
        for line in ["hostile", "hostile livestream --readers x", "hostile livestream --pairs 0"] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
