//! Black-box load test: speaks the REST contract and real ICE/DTLS/SRTP; never links the server.
//!
//! It drives any server with the seven routes. `main` joins peers over HTTP ([`join`]) and hands their
//! transports to generator threads ([`worker`]); each transport ([`endpoint`]) is one connected UDP
//! socket, one ICE/DTLS agent ([`agent`]) and our own SRTP ([`srtp`]).
//!
//! # How the numbers are taken
//!
//! * **Open loop.** Each packet has a due time that no answer of the server can move ([`schedule`]).
//!   It travels inside the encrypted payload ([`payload`]). *Latency* is arrival minus due time, on one
//!   monotonic clock, so a stalled server or generator shows up in it. It contains the publisher's send,
//!   the server, and the wait in the receiver's socket until its thread reads (`--kernel-stamps` takes
//!   the kernel's receive time instead). A random one of `--sample` packets is opened for it.
//! * **Loss** is exact: every packet counts, by its readable sequence number, against the schedule of
//!   its publication ([`stream`]). Nothing is asked for again. Only packets due within the measured
//!   window count; those that take longer than half a second after its end count as lost.
//! * **Server CPU** is user and system time of all its threads between the two ends of the window,
//!   divided by the packets delivered from that window. It includes everything the server does.
//! * A run is **INVALID** when the generator fell short: p99 lateness over 2 ms, a packet not sent, a
//!   datagram dropped in its own sockets, its CPU used up, a transport lost.
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
//! * Publishers send each packet of a burst as a datagram of its own, as browsers do.
//!
//! # Results
//!
//! A table on stdout, `--json` ([`schema`] explains every key), `--html` ([`page`]), live progress on
//! stderr ([`display`]). `--find-limit` ([`limit`], [`search`]) measures one set of rooms at many
//! rates. `loadtest compare` ([`compare`], [`rank`]) holds results of `--json` against each other.
//!
//! Exit status: 0 fine; 1 an objective is broken, no rate holds, or there is a regression; 2 the
//! command line is wrong; 3 it could not be run or read; 4 INVALID: the generator fell short.

mod agent;
mod api;
mod args;
mod clock;
mod compare;
mod display;
mod dtls;
mod endpoint;
mod host;
mod join;
mod limit;
mod outcome;
mod page;
mod parameters;
mod payload;
mod plan;
mod plot;
mod probe;
mod rank;
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
mod slo;
mod socket;
mod srtp;
mod stream;
mod tally;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;

#[expect(clippy::print_stdout, reason = "the results are what this program is for")]
fn main() -> ExitCode {
    // A word of its own beside the scenarios, with other arguments.
    if std::env::args().nth(1).as_deref() == Some("compare") {
        return match compare::run(&compare::Args::parse_from(std::env::args().skip(1))) {
            Ok((table, status)) => {
                print!("{table}");
                ExitCode::from(status)
            }
            Err((status, reason)) => {
                eprintln!("loadtest compare: {reason}");
                ExitCode::from(status)
            }
        };
    }
    let args = Args::parse();
    let (json, html) = (args.json.clone(), args.html.clone());
    let results = match run::run(args) {
        Ok(results) => results,
        Err(reason) => {
            eprintln!("loadtest: {reason}");
            return ExitCode::from(3);
        }
    };
    print!("{}", report::table(&results));
    let as_json = || serde_json::to_string_pretty(&results).map(|text| text + "\n");
    let written = [
        ("--json", json, as_json().map_err(std::io::Error::from)),
        ("--html", html, Ok(page::page(&results))),
    ];
    for (flag, path, text) in written {
        let Some(path) = path else { continue };
        if let Err(error) = text.and_then(|text| std::fs::write(&path, text)) {
            eprintln!("loadtest: {flag} {}: {error}", path.display());
            return ExitCode::from(3);
        }
    }
    ExitCode::from(results.status())
}
