//! `ringcast` and `ringcast serve`: settings → [`Server`] → wait for a signal → stop.

use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Environment, refuse};
use crate::config::{Config, Flags};
use crate::server::{Server, ServerError};
use crate::systemd::Notifier;

pub(super) fn run(settings: Flags, env: Environment<'_>) -> ExitCode {
    let config = match Config::from_flags(settings, env) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    crate::log::start(&config);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let notifier = Notifier::from_env(env).unwrap_or_else(|error| {
        tracing::warn!(%error, "the service manager is not told anything");
        None
    });
    match serve(&config, notifier.map(Arc::new)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot serve");
            ExitCode::FAILURE
        }
    }
}

/// Takes all the descriptors that the hard limit permits: the soft one is 1,024 nearly everywhere,
/// for the sake of programs that call `select`.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Refused, it stays as it was, and connections beyond it are.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn serve(config: &Config, notifier: Option<Arc<Notifier>>) -> Result<(), ServerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::start(config).await?;
        let shutdown = server.stop_signal()?;
        let Some(notifier) = notifier else { return server.run(shutdown).await };
        let (control, follower) = (server.control(), Arc::clone(&notifier));
        let drained = control.clone();
        tokio::spawn(async move { follower.follow(control).await });
        let shutdown = async move {
            tokio::select! {
                () = shutdown => {}
                () = drained.drained() => {}
            }
            notifier.stopping();
        };
        server.run(shutdown).await
    })
}
