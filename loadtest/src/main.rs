//! Black-box load test: speaks the REST contract and real ICE/DTLS/SRTP; never links the server.
//!
//! It drives any server with the seven routes. `main` joins peers over HTTP ([`join`]) and hands their
//! transports to generator threads ([`turner`]); each transport ([`endpoint`]) is one connected UDP
//! socket, one ICE/DTLS agent ([`agent`]), our own SRTP ([`srtp`]) and its streams ([`media`]).
//! Scenarios are made in [`plan`]; joins during a run have threads of their own ([`churn`]).
//!
//! # How the numbers are taken
//!
//! * **Open loop.** Each frame has a due time that no answer of the server can move ([`schedule`]).
//!   It travels inside the encrypted payload ([`payload`]). *Latency* is arrival minus due time, on one
//!   monotonic clock, so a stalled server or generator shows up in it. Arrival is the kernel's receive
//!   time: latency contains the publisher's send, the server, and the kernel's way to the receiver's
//!   socket, but not the wait until a thread of ours reads it (`--reader-stamps` includes that, and
//!   then nothing is left to gather). A random one of `--sample` packets is opened for it. What was due
//!   before its receiver asked for it, as a server may keep since a key frame, has none.
//! * **Loss** is exact: every packet counts, by its readable sequence number, against what its
//!   publisher sent in the window ([`marks`], [`stream`]). Only packets due within the measured
//!   window count; those that take longer than half a second after its end count as lost. Streams of
//!   several encodings, and those that come and go, are counted by the gaps in their numbers.
//! * **Repair** is off but where the scenario is about it ([`repair`]): then lost packets are asked for
//!   and sent again as libwebrtc does it, and loss is told before and after.
//! * **Server CPU** is user and system time of all its threads between the two ends of the window,
//!   divided by the packets delivered from that window. It includes everything the server does.
//! * **Joins** per second of server CPU: `loadtest churn --subscribers 0 --pps 50 --burst 1 --size 200
//!   --joins-per-s 100 --stay 1 --server-pid PID` keeps the server busy with joins and little else; a
//!   join is one receiving transport from its due time to its first packet. All that are due in the
//!   window by their schedule count. Those without a packet two seconds after it have failed; those
//!   that none of `--joiners` was free to begin make the run INVALID.
//! * **Idle** transports: `loadtest idle --transports 10000 --server-pid PID`, against a server that
//!   was just started, since memory once used may not be given back.
//! * A run is **INVALID** when the generator fell short: p99 lateness over 2 ms, a packet not sent, a
//!   datagram dropped in its own sockets, its CPU used up. That the server ended, or transports were
//!   lost, is no fault of the generator: the run is valid, and its exit status is 1.
//!
//! # Traps
//!
//! * On loopback the kernel's receive path of *all clients* runs inside the server's send calls, and
//!   is charged to the server, with the wake-up of a sleeping receiver. Compare servers only with the
//!   same generator settings; `UDP_GRO` (the default here) makes that receive path cheaper for servers
//!   that send with `UDP_SEGMENT`, so take the numbers once with `--no-gro` too.
//! * Pin server and generator to different cores (`taskset`), or they measure each other.
//! * `/proc/PID/stat` counts in 10 ms: windows under a few seconds are coarse. The split into user
//!   and system is sampled by the kernel, so coarsely that one run may show all of it on one side; only
//!   the sum is worth comparing.
//! * `first_packet` begins with the consumer's reply. What a server sends before its reply has been
//!   read is not seen, so a very fast start is reported a burst too late.
//! * Latency tails on a shared or virtual machine are its scheduler's: look at `lateness` in the same
//!   table, which passes through the same scheduler without any server.
//! * While progress is shown, the server is asked for its own latency once a second ([`listen`]), and
//!   the answers are in its CPU: some 0.1 % of a core. Use `--no-progress` for the last digit.
//! * Publishers send each packet of a burst as a datagram of its own, as browsers do.
//!
//! # Results
//!
//! A table on stdout, `--json` ([`schema`] explains every key), `--html` ([`page`]), live progress on
//! stderr ([`display`]). `--find-limit` ([`limit`], [`search`]) measures one set of rooms at many
//! rates. `loadtest compare` ([`compare`], [`rank`]) holds results of `--json` against each other.
//! `loadtest hostile` ([`mod@hostile`]) plays a scenario by turns without and with strangers before the
//! server, who never read, never finish and never pause.
//!
//! Exit status: 0 fine; 1 an objective is broken, no rate holds, the server ended or lost transports,
//! or there is a regression; 2 the command line is wrong; 3 it could not be run or read; 4 INVALID: the generator fell short.

mod agent;
mod api;
mod args;
mod behaviour;
mod churn;
mod clock;
mod compare;
mod consent;
mod display;
mod dtls;
mod endpoint;
mod findings;
mod flows;
mod frames;
mod growth;
mod homes;
mod host;
mod hostile;
mod join;
mod limit;
mod listen;
mod marks;
mod media;
mod outcome;
mod outgoing;
mod output;
mod page;
mod parameters;
mod payload;
mod picture;
mod plan;
mod plot;
mod probe;
mod rank;
mod repair;
mod report;
mod rng;
mod rtcp;
mod rtp;
mod run;
mod schedule;
mod schema;
mod scrape;
mod search;
mod series;
mod session;
mod shim;
mod slo;
mod socket;
mod srtp;
mod stream;
mod tally;
mod turner;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::output::Output;

#[expect(clippy::print_stdout, reason = "the results are what this program is for")]
fn main() -> ExitCode {
    // Words of their own beside the scenarios, with other arguments.
    let told = match std::env::args().nth(1).as_deref() {
        Some("compare") => Some(compare::run(&compare::Args::parse_from(words()))),
        Some("hostile") => Some(with_strangers()),
        _ => None,
    };
    if let Some(told) = told {
        let (table, status) = told.unwrap_or_else(|(status, reason)| {
            eprintln!("loadtest: {reason}");
            (String::new(), status)
        });
        print!("{table}");
        return ExitCode::from(status);
    }
    let args = Args::parse();
    if let Some(reason) = args.conflict() {
        eprintln!("loadtest: {reason}");
        return ExitCode::from(2);
    }
    let opened = Output::open("--json", args.json.as_deref())
        .and_then(|json| Ok((json, Output::open("--html", args.html.as_deref())?)));
    let (json, html) = match opened {
        Ok(opened) => opened,
        Err(reason) => {
            eprintln!("loadtest: {reason}");
            return ExitCode::from(3);
        }
    };
    let results = match run::run(args) {
        Ok(results) => results,
        Err(reason) => {
            [json, html].into_iter().flatten().for_each(Output::discard);
            eprintln!("loadtest: {reason}");
            return ExitCode::from(3);
        }
    };
    print!("{}", report::table(&results));
    // One that fails must not cost the other.
    let json = json.map(|file| as_json(&results).and_then(|text| file.write(&text)));
    let html = html.map(|file| file.write(&page::page(&results)));
    let mut status = results.status();
    for reason in [json, html].into_iter().flatten().filter_map(Result::err) {
        eprintln!("loadtest: {reason}");
        status = 3;
    }
    ExitCode::from(status)
}

/// Results as `--json` has them.
fn as_json(results: &impl serde::Serialize) -> Result<String, String> {
    let text = serde_json::to_string_pretty(results);
    text.map(|text| text + "\n").map_err(|error| format!("--json: {error}"))
}

/// The command line from the first word on.
fn words() -> impl Iterator<Item = String> {
    std::env::args().skip(1)
}

/// Compares with and without strangers; the table and the exit status.
fn with_strangers() -> Result<(String, u8), (u8, String)> {
    let args = hostile::Args::parse_from(words());
    let file = Output::open("--json", args.json()).map_err(|reason| (3, reason))?;
    let compared = match hostile::run(&args) {
        Ok(compared) => compared,
        Err(refused) => {
            file.into_iter().for_each(Output::discard);
            return Err(refused);
        }
    };
    if let Some(file) = file {
        let written = as_json(&compared).and_then(|text| file.write(&text));
        written.map_err(|reason| (3, reason))?;
    }
    Ok((compared.table(), compared.status()))
}
