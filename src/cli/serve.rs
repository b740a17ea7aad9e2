//! `ringcast` and `ringcast serve`: settings → [`Server`] → wait for a signal → stop.

use std::process::ExitCode;
use std::sync::Arc;

use super::{Environment, refuse};
use crate::config::{Config, Flags};
use crate::server::{Server, ServerError};
use crate::systemd::Notifier;

/// Serves; variables that look like settings and are none are warned of.
pub(super) fn run(settings: Flags, unknown: Vec<String>, env: Environment<'_>) -> ExitCode {
    let config = match Config::from_flags(settings, env) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let _log = crate::log::start(&config);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    for name in unknown {
        tracing::warn!("{name} is no setting and has no effect; --help lists those there are");
    }
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
