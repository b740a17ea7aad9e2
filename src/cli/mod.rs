//! The program's commands: what the words after `ringcast` do, and with which exit status.
//!
//! Called once by `main`, on the thread that becomes the control thread. A command without a file
//! of its own here does not exist; each takes the server's settings, in the same three ways.
//! Invariants: standard output has answers only, standard error all else; whatever cannot be
//! written changes nothing but the exit status.

mod config;
mod doctor;
mod drain;
mod health;
mod serve;
mod token;

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser as _;

use self::drain::DrainArgs;
use crate::config::{AFTER_HELP, ConfigError, Flags, unknown_variables};

/// Exit status for wrong usage and wrong settings (sysexits' `EX_USAGE`).
const USAGE: u8 = 64;

/// The environment: a variable's value by its name.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A WebRTC selective forwarding unit: one binary, one UDP port, every core.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ringcast",
    version,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Subcommand>,
    /// Drain the running server with these settings, as `ringcast drain` does: no new rooms, and 0
    /// once those there are have ended
    #[arg(long)]
    drain: bool,
    #[command(flatten)]
    settings: Flags,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Run the server, as without any command
    Serve(Flags),
    /// Print the checked settings as a file for --config, and where each came from
    Config(Flags),
    /// Check whether this host gives the server what it needs; 0: all well, 1: warnings, 2: failures
    Doctor(doctor::DoctorArgs),
    /// Let the running server take no new calls, and wait until those it has have ended; 0: it is
    /// empty, 1: it is not
    Drain(DrainArgs),
    /// Ask the server with these settings whether it is well; 0: yes, 1: no
    Health(health::HealthArgs),
    /// Print a room token for a peer, signed with one of the server's API keys
    Token(token::TokenArgs),
}

/// Does what the arguments (the program's name first) say; `variables` are the names that the
/// environment has.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = String>,
    env: Environment<'_>,
) -> ExitCode {
    let CommandLine { command, drain, settings } = match CommandLine::try_parse_from(args) {
        Ok(line) => line,
        Err(error) => return refuse(&error.into()),
    };
    match command {
        None if drain => drain::run(DrainArgs::of(settings), env),
        None => serve::run(settings, unknown_variables(variables, env), env),
        Some(Subcommand::Serve(settings)) => {
            serve::run(settings, unknown_variables(variables, env), env)
        }
        Some(Subcommand::Config(settings)) => config::run(settings, env),
        Some(Subcommand::Doctor(args)) => doctor::run(args, env),
        Some(Subcommand::Drain(args)) => drain::run(args, env),
        Some(Subcommand::Health(args)) => health::run(args, env),
        Some(Subcommand::Token(args)) => token::run(args, env),
    }
}

/// Tells why there are no settings to work with; `--help` and `--version` are answers.
fn refuse(error: &ConfigError) -> ExitCode {
    if error.is_answer() {
        return answer(error, ExitCode::SUCCESS);
    }
    // The parser of flags begins with a word of its own and ends with an empty line.
    let text = error.to_string();
    complain(text.trim_start_matches("error: ").trim_end());
    ExitCode::from(USAGE)
}

/// Writes an answer; the status is the given one where somebody reads it.
fn answer(text: impl fmt::Display, status: ExitCode) -> ExitCode {
    // `print!` would panic where nobody reads.
    let mut out = std::io::stdout();
    let told = write!(out, "{text}").and_then(|()| out.flush());
    if told.is_ok() { status } else { ExitCode::FAILURE }
}

/// Writes a complaint; where nobody reads, the exit status still says it.
fn complain(text: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "ringcast: {text}");
}
