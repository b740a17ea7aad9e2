//! `ringcast drain`: a running server takes no new calls, and whoever asked sees how those there are
//! end. Also as the flag `--drain`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::token::{signer, wall_clock};
use super::{Environment, USAGE, answer, complain, refuse};
use crate::access::{ApiKey, Grants, RoomToken};
use crate::config::{Config, Flags};
use crate::limits::{
    DRAIN_ASK_PERIOD, DRAIN_ASKS_MISSED_MAX, DRAIN_REFUSALS, DRAIN_TIMEOUT_MAX, DRAIN_TOKEN_TTL,
};
use crate::remote::{Remote, RemoteError, base};

#[derive(Debug, clap::Args)]
pub(super) struct DrainArgs {
    /// Where the server's API is [default: on this host, as these settings say]
    #[arg(long, value_name = "URL", value_parser = base)]
    url: Option<String>,
    /// Certificates to trust for that URL, instead of the public ones (PEM file)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Id of the API key to ask with [default: the only one there is]
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// Seconds that calls may go on, counted from the begin of the drain [default: the server's
    /// --drain-timeout]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64)
        .range(0..=DRAIN_TIMEOUT_MAX.as_secs()))]
    deadline: Option<u64>,
    /// Let the server end once it is empty
    #[arg(long)]
    exit: bool,
    /// Begin the drain, and do not wait until the server is empty
    #[arg(long)]
    no_wait: bool,
    /// Call the drain off: new rooms begin again
    #[arg(long, conflicts_with_all = ["deadline", "exit", "no_wait"])]
    cancel: bool,
    #[command(flatten)]
    settings: Flags,
}

impl DrainArgs {
    /// What `--drain` means beside the server's settings.
    pub(super) fn of(settings: Flags) -> Self {
        Self {
            url: None,
            ca: None,
            key: None,
            deadline: None,
            exit: false,
            no_wait: false,
            cancel: false,
            settings,
        }
    }
}

/// How far a drain is, as the server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    rooms: u64,
    peers: u64,
    seconds: u64,
    exits: bool,
    serving: bool,
}

impl Left {
    fn of(drain: &Value) -> Self {
        let number = |name: &str| drain.get(name).and_then(Value::as_u64).unwrap_or_default();
        Self {
            rooms: number("rooms"),
            peers: number("peers"),
            seconds: number("secondsLeft"),
            exits: drain.get("exits") == Some(&json!(true)),
            serving: drain.get("state") == Some(&json!("serving")),
        }
    }

    /// Two that say the same to whoever waits.
    fn is_as(&self, other: &Self) -> bool {
        (self.rooms, self.peers) == (other.rooms, other.peers)
    }
}

/// One server, and by which key it is asked.
struct Asked {
    remote: Remote,
    key: Option<ApiKey>,
}

pub(super) fn run(args: DrainArgs, env: Environment<'_>) -> ExitCode {
    let DrainArgs { url, ca, key, deadline, exit, no_wait, cancel, settings } = args;
    let config = match Config::from_flags(settings, env) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    // Without keys here the server may have none either; else it says so.
    let key = match signer(&config.api_keys, key.as_deref()) {
        Ok(key) => Some(key.clone()),
        Err(_) if config.api_keys.is_empty() && key.is_none() => None,
        Err(lacking) => {
            complain(lacking);
            return ExitCode::from(USAGE);
        }
    };
    let remote = match Remote::new(&config, url, ca.as_deref()) {
        Ok(remote) => remote,
        Err(error) => {
            complain(error);
            return ExitCode::from(USAGE);
        }
    };
    let asked = Asked { remote, key };
    let done = if cancel { asked.cancel() } else { asked.drain(deadline, exit, no_wait) };
    done.unwrap_or_else(|error| {
        complain(error);
        ExitCode::FAILURE
    })
}

impl Asked {
    /// What the server knows the key by, for a while: the key itself stays here.
    fn bearer(&self) -> Option<String> {
        let key = self.key.as_ref()?;
        let grants = Grants { node: true, ..Grants::default() };
        let token = RoomToken { key: key.id().to_owned(), room: None, peer: None, grants };
        token.sign(key, wall_clock() + DRAIN_TOKEN_TTL).ok()
    }

    fn cancel(&self) -> Result<ExitCode, RemoteError> {
        self.remote.delete("/admin/drain", self.bearer().as_deref())?;
        let text = format_args!("{}: new rooms begin again\n", self.remote.base());
        Ok(answer(text, ExitCode::SUCCESS))
    }

    fn drain(
        &self,
        deadline: Option<u64>,
        exit: bool,
        no_wait: bool,
    ) -> Result<ExitCode, RemoteError> {
        let mut wish = Map::new();
        if let Some(deadline) = deadline {
            wish.insert("deadlineSeconds".to_owned(), deadline.into());
        }
        if exit {
            wish.insert("exit".to_owned(), true.into());
        }
        let bearer = self.bearer();
        let drain = self.remote.post("/admin/drain", bearer.as_deref(), &wish.into())?;
        let left = Left::of(&drain);
        if no_wait {
            return Ok(self.tell(left, ExitCode::SUCCESS));
        }
        self.wait(left)
    }

    /// Tells of every change until nobody is left.
    fn wait(&self, mut left: Left) -> Result<ExitCode, RemoteError> {
        self.tell(left, ExitCode::SUCCESS);
        let (mut missed, mut refusals) = (0, 0);
        while left.rooms > 0 {
            pause(DRAIN_ASK_PERIOD);
            let now = match self.remote.get("/admin/status", self.bearer().as_deref()) {
                Ok(status) => Left::of(status.get("drain").unwrap_or(&Value::Null)),
                // It was to end with its last room.
                Err(error) if left.exits && error.is_nobody() => {
                    refusals += 1;
                    if refusals < DRAIN_REFUSALS {
                        continue;
                    }
                    let text = format_args!("{}: the server has ended\n", self.remote.base());
                    return Ok(answer(text, ExitCode::SUCCESS));
                }
                Err(error) if error.may_pass() && missed < DRAIN_ASKS_MISSED_MAX => {
                    (missed, refusals) = (missed + 1, 0);
                    continue;
                }
                Err(error) => return Err(error),
            };
            (missed, refusals) = (0, 0);
            if now.serving {
                let why = format!("{}: the drain was called off", self.remote.base());
                return Err(RemoteError::Refused(why));
            }
            if !now.is_as(&left) {
                self.tell(now, ExitCode::SUCCESS);
            }
            left = now;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn tell(&self, left: Left, status: ExitCode) -> ExitCode {
        let base = self.remote.base();
        let Left { rooms, peers, seconds, exits, .. } = left;
        match (rooms, exits) {
            (0, true) => answer(format_args!("{base}: empty; the server ends\n"), status),
            (0, false) => answer(format_args!("{base}: empty\n"), status),
            _ => {
                let left = format_args!("{rooms} rooms, {peers} peers left");
                let text = format_args!("{base}: draining: {left}, closed in {seconds} s\n");
                answer(text, status)
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this command has one thread, which only waits")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
