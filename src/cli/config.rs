//! `ringcast config`: the settings that a server would have, without starting one.

use std::process::ExitCode;

use serde_json::Value;

use super::{Environment, answer, refuse};
use crate::config::{Config, Flags};

pub(super) fn run(settings: Flags, env: Environment<'_>) -> ExitCode {
    match Config::shown(settings, env) {
        Ok(shown) => answer(format_args!("{:#}\n", Value::from(shown)), ExitCode::SUCCESS),
        Err(error) => refuse(&error),
    }
}
