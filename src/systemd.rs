//! What a service manager is told over `NOTIFY_SOCKET` (systemd's `sd_notify(3)`): ready, status,
//! stopping, and that the watchdog need not bite.
//!
//! Made by the serving command from the environment; its task lives on the control thread.
//! Invariants: ready means that the ports are open and every shard turns; the watchdog is fed only
//! while every shard turns, and by the control thread, so that it is not fed when that is stuck.
//! Nothing here waits for the manager: what it does not take is told again, or let go.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};

use crate::control::drain::Phase;
use crate::control::{Control, NodeView};
use crate::limits::{NOTIFY_EXTENSION, NOTIFY_PERIOD, REPORT_AGE_MAX};

/// Why a service manager that is there cannot be told anything.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The address is of no kind that is known here.
    #[error("NOTIFY_SOCKET: {0:?} is neither a path nor an abstract address")]
    Address(String),
    /// The watchdog's period is no number.
    #[error("WATCHDOG_USEC: {0:?} is no number of microseconds")]
    Watchdog(String),
    /// No socket.
    #[error("NOTIFY_SOCKET: {0}")]
    Socket(#[from] io::Error),
}

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    manager: SocketAddr,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The manager that the environment names; `None` without one.
    ///
    /// # Errors
    /// [`NotifyError`] for variables that make no sense.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, NotifyError> {
        let Some(name) = env("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let manager = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None if name.starts_with('/') => SocketAddr::from_pathname(Path::new(&name))?,
            None => return Err(NotifyError::Address(name)),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Some(Self { socket, manager, watchdog: watchdog(env)? }))
    }

    /// Tells the manager; false when it did not take it now.
    fn tell(&self, lines: &str) -> bool {
        self.socket.send_to_addr(lines.as_bytes(), &self.manager).is_ok()
    }

    /// The node has begun to stop, for whatever reason: from now on nobody feeds the watchdog.
    pub fn stopping(&self) {
        let extension = NOTIFY_EXTENSION.as_micros();
        self.tell(&format!("STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC={extension}"));
    }

    /// The node reads again what it can; ready is told when it has.
    fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = now.tv_sec.saturating_mul(1_000_000);
        let microseconds = seconds.saturating_add(now.tv_nsec / 1000);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// Tells of the node for as long as the runtime lives.
    pub async fn follow(&self, control: Control) {
        let mut told = Told::default();
        // Twice as often as the manager asks, so that one may come late.
        let period = self.watchdog.map_or(NOTIFY_PERIOD, |all| NOTIFY_PERIOD.min(all / 4));
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Whoever re-reads the files hears it as well; that takes less than a period.
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let reload = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = ticks.tick() => {}
                Some(()) = reload => {
                    self.reloading();
                    told.ready = false;
                    ticks.reset();
                    continue;
                }
            }
            let node = control.node();
            told = self.tell_of(&node, control.silence(), told);
        }
    }

    fn tell_of(&self, node: &NodeView, silence: Option<Duration>, told: Told) -> Told {
        let Told { mut ready, mut status, mut starved } = told;
        ready = ready || (node.is_healthy() && self.tell("READY=1"));
        // Once it was told to stop, a manager feeds on this alone: who does not turn gets no more
        // time. Not before the drain is over is it told that the node stops, because that would put
        // an end to the watchdog where the manager did not ask for the drain.
        let turns = silence.is_some_and(|silence| silence <= REPORT_AGE_MAX);
        if node.drain.signalled && turns {
            self.tell(&format!("EXTEND_TIMEOUT_USEC={}", NOTIFY_EXTENSION.as_micros()));
        }
        let now = status_of(node);
        if now != status && self.tell(&format!("STATUS={now}")) {
            status = now;
        }
        if let Some(watchdog) = self.watchdog {
            // Shards report once a second: less than three tell nothing.
            let patience = (watchdog / 2).max(REPORT_AGE_MAX);
            let turning = silence.is_some_and(|silence| silence <= patience);
            if turning {
                self.tell("WATCHDOG=1");
            } else if ready && !starved {
                tracing::error!(?silence, "a shard does not turn: the watchdog is not fed");
            }
            starved = !turning;
        }
        Told { ready, status, starved }
    }
}

/// What the manager knows.
#[derive(Debug, Default)]
struct Told {
    ready: bool,
    status: String,
    starved: bool,
}

fn status_of(node: &NodeView) -> String {
    let turning = node.shards.iter().filter(|shard| shard.alive).count();
    let phase = match node.drain.state {
        Phase::Serving => "",
        Phase::Draining => "draining: ",
        Phase::Stopping => "stopping: ",
    };
    format!(
        "{phase}{} rooms, {} peers; {turning} of {} shards turn",
        node.totals.rooms,
        node.totals.peers,
        node.shards.len(),
    )
}

/// The watchdog's period, if it is meant for this process.
fn watchdog(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Duration>, NotifyError> {
    let ours = std::process::id().to_string();
    if env("WATCHDOG_PID").is_some_and(|pid| !pid.is_empty() && pid != ours) {
        return Ok(None);
    }
    let Some(text) = env("WATCHDOG_USEC").filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse() {
        Ok(0) | Err(_) => Err(NotifyError::Watchdog(text)),
        Ok(microseconds) => Ok(Some(Duration::from_micros(microseconds))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notifier(pairs: &[(&str, &str)]) -> Result<Option<Notifier>, NotifyError> {
        let value = |name: &str| pairs.iter().find(|(known, _)| *known == name);
        Notifier::from_env(&|name| value(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_environment_says_whether_there_is_a_manager_and_a_watchdog() {
        assert!(notifier(&[]).unwrap().is_none());
        assert!(notifier(&[("NOTIFY_SOCKET", "")]).unwrap().is_none());
        let own = std::process::id().to_string();
        for (pairs, watchdog) in [
            (&[("NOTIFY_SOCKET", "/run/notify")][..], None),
            (&[("NOTIFY_SOCKET", "@notify"), ("WATCHDOG_USEC", "5000000")], Some(5)),
            (
                &[("NOTIFY_SOCKET", "/n"), ("WATCHDOG_USEC", "7000000"), ("WATCHDOG_PID", &own)],
                Some(7),
            ),
            (&[("NOTIFY_SOCKET", "/n"), ("WATCHDOG_USEC", "7"), ("WATCHDOG_PID", "1")], None),
        ] {
            let made = notifier(pairs).unwrap().unwrap();
            assert_eq!(made.watchdog, watchdog.map(Duration::from_secs), "{pairs:?}");
        }
        for (name, value) in
            [("NOTIFY_SOCKET", "vsock:2:1"), ("WATCHDOG_USEC", "soon"), ("WATCHDOG_USEC", "0")]
        {
            let error = notifier(&[(name, value), ("NOTIFY_SOCKET", "/n")]).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn an_abstract_address_is_reached_too() {
        let name = format!("ringcast-notify-{}", std::process::id());
        let manager = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&manager).unwrap();
        notifier(&[("NOTIFY_SOCKET", &format!("@{name}"))]).unwrap().unwrap().stopping();
        let mut bytes = [0; 128];
        let length = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=30000000");
    }
}
