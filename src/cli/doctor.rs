//! `ringcast doctor`: what this host lacks, in lines for people or as JSON for machines.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::json;

use super::{Environment, answer, refuse};
use crate::config::{Config, Flags};
use crate::doctor::{Finding, Level, examine};

#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Flags,
}

/// Leaves with 0 when all is well, 1 with warnings, 2 when something fails.
pub(super) fn run(args: DoctorArgs, env: Environment<'_>) -> ExitCode {
    let config = match Config::from_flags(args.settings, env) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let findings = examine(&config);
    let worst = findings.iter().map(|finding| finding.level).max();
    let worst = worst.filter(|level| *level > Level::Unknown).unwrap_or(Level::Ok);
    let status = ExitCode::from(match worst {
        Level::Ok | Level::Unknown => 0,
        Level::Warn => 1,
        Level::Fail => 2,
    });
    if args.json {
        let report = json!({ "worst": worst, "checks": findings });
        return answer(format_args!("{report:#}\n"), status);
    }
    answer(lines(&findings), status)
}

fn lines(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { check, level, says, mend } in findings {
        let level = match level {
            Level::Ok => "ok",
            Level::Unknown => "?",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        // Writing to a string does not fail.
        let _ = write!(text, "{level:4}  {check:10}  {says}");
        let _ = mend.as_ref().map(|mend| write!(text, " → {mend}"));
        text.push('\n');
    }
    text
}
