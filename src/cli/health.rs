//! `ringcast health`: whether a server with the same settings is well; what containers ask.

use std::process::ExitCode;

use super::{Environment, answer, complain, refuse};
use crate::config::{Config, Flags};
use crate::health::{Question, ask};

#[derive(Debug, clap::Args)]
pub(super) struct HealthArgs {
    /// Ask whether it takes new calls (/readyz), instead of whether it is alive (/healthz)
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    settings: Flags,
}

pub(super) fn run(args: HealthArgs, env: Environment<'_>) -> ExitCode {
    let config = match Config::from_flags(args.settings, env) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let question = if args.ready { Question::Ready } else { Question::Alive };
    match ask(&config, question) {
        Ok(says) => answer(format_args!("{says}\n"), ExitCode::SUCCESS),
        Err(says) => {
            complain(says);
            ExitCode::FAILURE
        }
    }
}
