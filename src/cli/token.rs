//! `ringcast token`: a room token, signed with one of the server's keys.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::{Environment, USAGE, answer, complain, refuse};
use crate::access::{ApiKey, ApiKeys, Grants, RoomToken};
use crate::config::{Config, Flags};
use crate::id::{NameError, PeerId, RoomId};
use crate::limits::TOKEN_TTL_MAX;

#[derive(Debug, clap::Args)]
pub(super) struct TokenArgs {
    /// Id of the key to sign with [default: the only one there is]
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// The room that it is for
    #[arg(long, value_name = "ROOM", required_unless_present = "node", value_parser = room)]
    room: Option<RoomId>,
    /// The peer that it is for, who may join the room
    #[arg(
        long, value_name = "PEER", required_unless_present_any = ["admin", "node"],
        value_parser = peer
    )]
    peer: Option<PeerId>,
    /// Let the peer send
    #[arg(long)]
    publish: bool,
    /// Let the peer receive
    #[arg(long)]
    subscribe: bool,
    /// Allow everything in the room
    #[arg(long)]
    admin: bool,
    /// Allow everything in all rooms and on the node, as /admin and /metrics want
    #[arg(long, conflicts_with = "room")]
    node: bool,
    /// How long it is valid, such as 90s, 15m, 1h or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl)]
    ttl: Duration,
    #[command(flatten)]
    settings: Flags,
}

fn room(text: &str) -> Result<RoomId, NameError> {
    RoomId::try_from(text)
}

fn peer(text: &str) -> Result<PeerId, NameError> {
    PeerId::try_from(text)
}

fn ttl(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time from 1s to 3650d, such as 90s, 15m, 1h or 7d");
    let unit = match text.chars().next_back() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 60 * 60,
        Some('d') => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number = text.trim_end_matches(char::is_alphabetic).parse::<u32>().map_err(|_| wrong())?;
    let ttl = Duration::from_secs(u64::from(number) * unit);
    let lasts = !ttl.is_zero() && ttl <= TOKEN_TTL_MAX;
    let one_unit = text.chars().filter(|it| it.is_alphabetic()).count() == 1;
    if lasts && one_unit { Ok(ttl) } else { Err(wrong()) }
}

/// Writes the token alone, so that it can be taken by a script.
pub(super) fn run(args: TokenArgs, env: Environment<'_>) -> ExitCode {
    let TokenArgs { key, room, peer, publish, subscribe, admin, node, ttl, settings } = args;
    let keys = match Config::from_flags(settings, env) {
        Ok(config) => config.api_keys,
        Err(error) => return refuse(&error),
    };
    let key = match signer(&keys, key.as_deref()) {
        Ok(key) => key,
        Err(lacking) => {
            complain(lacking);
            return ExitCode::from(USAGE);
        }
    };
    let grants = Grants { join: peer.is_some(), publish, subscribe, admin, node };
    let token = RoomToken { key: key.id().to_owned(), room, peer, grants };
    match token.sign(key, wall_clock() + ttl) {
        Ok(token) => answer(format_args!("{token}\n"), ExitCode::SUCCESS),
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

pub(super) fn signer<'a>(keys: &'a ApiKeys, id: Option<&str>) -> Result<&'a ApiKey, String> {
    let known = || keys.iter().map(ApiKey::id).collect::<Vec<_>>().join(", ");
    if keys.is_empty() {
        return Err("there is no key to sign with: name them with --api-keys-file".to_owned());
    }
    match id {
        Some(id) => keys.named(id).ok_or_else(|| format!("no key {id:?}; there are {}", known())),
        None => keys.only().ok_or_else(|| format!("--key must say which: {}", known())),
    }
}

#[expect(clippy::disallowed_methods, reason = "a token ends by the clock of the server's host")]
pub(super) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_one_unit_and_are_bounded() {
        for (text, seconds) in [
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("1h", Some(3600)),
            ("7d", Some(604_800)),
            ("3650d", Some(315_360_000)),
            ("3651d", None),
            ("0s", None),
            ("1", None),
            ("h", None),
            ("1hm", None),
            ("-1h", None),
            ("", None),
        ] {
            assert_eq!(ttl(text).ok(), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
