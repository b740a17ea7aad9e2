//! Arguments → [`Config`] → [`Server`] → wait for a signal → stop → exit code.

use std::io::Write;
use std::process::ExitCode;

use ringcast::config::Config;
use ringcast::server::{Server, ServerError};

/// Exit code for wrong usage (sysexits' `EX_USAGE`).
const USAGE: u8 = 64;

#[expect(clippy::disallowed_methods, reason = "the environment enters here, for config to read")]
fn main() -> ExitCode {
    let config = match Config::from_args(std::env::args_os(), |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(answer) if answer.is_answer() => {
            // `print!` would panic where nobody reads.
            let mut out = std::io::stdout();
            let told = write!(out, "{answer}").and_then(|()| out.flush());
            return if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(error) => {
            // The parser of flags begins with a word of its own and ends with an empty line.
            let text = error.to_string();
            let text = text.trim_start_matches("error: ").trim_end();
            // Where nobody reads, the exit code still says it.
            let _ = writeln!(std::io::stderr(), "ringcast: {text}");
            return ExitCode::from(USAGE);
        }
    };
    ringcast::log::start(&config);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match serve(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot serve");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: &Config) -> Result<(), ServerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::start(config).await?;
        let shutdown = server.stop_signal()?;
        server.run(shutdown).await
    })
}
