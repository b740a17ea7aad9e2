//! The process: its arguments and its environment, for [`ringcast::cli`] to act on.

use std::process::ExitCode;

#[expect(clippy::disallowed_methods, reason = "the environment enters here, for config to read")]
fn main() -> ExitCode {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    ringcast::cli::run(std::env::args_os(), names, &|name| std::env::var(name).ok())
}
