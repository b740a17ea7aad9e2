//! Identifiers that cross the process boundary, parsed once.
//!
//! Rooms and peers are named by clients; everything else is named by the server with a UUID.
//! Slot-map keys (`…Key`) never leave their shard and are defined in `engine`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::NAME_CHARS_MAX;

/// Why a client-given name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("must not be empty")]
    Empty,
    /// The name has more than [`NAME_CHARS_MAX`] characters.
    #[error("must have at most {NAME_CHARS_MAX} characters")]
    TooLong,
    /// The name is a dot segment (RFC 3986 §3.3), which no URL can carry as a name: whoever reads one
    /// takes it out, however it is encoded.
    #[error("must not be . or .., which no URL can carry")]
    Dots,
    /// The name contains a control character.
    #[error("must not contain control characters")]
    Control,
}

fn parse_name(text: &str) -> Result<Arc<str>, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.chars().nth(NAME_CHARS_MAX).is_some() {
        return Err(NameError::TooLong);
    }
    if matches!(text, "." | "..") {
        return Err(NameError::Dots);
    }
    if text.chars().any(is_unprintable) {
        return Err(NameError::Control);
    }
    Ok(Arc::from(text))
}

/// Control characters, line separators and the invisible characters that reorder a log line.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

macro_rules! client_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as the client wrote it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(text: &str) -> Result<Self, NameError> {
                parse_name(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

client_name! {
    /// A room's name: 1–128 printable Unicode characters, given by the client.
    RoomId
}
client_name! {
    /// A peer's name inside its room: 1–128 printable Unicode characters, given by the client.
    PeerId
}

macro_rules! server_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh random identifier. Control plane only: the engine is handed its identifiers.
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

server_id! {
    /// A WebRTC transport.
    TransportId
}
server_id! {
    /// One media source of a peer.
    ProducerId
}
server_id! {
    /// One copy of a producer's media for one receiver.
    ConsumerId
}

/// The index of a shard, `0..shards`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard's position in arrays indexed by shard.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_to_128_printable_characters() {
        let longest = "é".repeat(NAME_CHARS_MAX);
        for good in ["a", "...", ".a", "комната 5", "room/with?odd&chars", longest.as_str()]
        {
            assert_eq!(RoomId::try_from(good).map(|r| r.to_string()), Ok(good.to_owned()));
        }
        let too_long = "é".repeat(NAME_CHARS_MAX + 1);
        for (bad, why) in [
            ("", NameError::Empty),
            (".", NameError::Dots),
            ("..", NameError::Dots),
            (too_long.as_str(), NameError::TooLong),
            ("a\nb", NameError::Control),
            ("a\u{0}", NameError::Control),
            ("\u{202e}abc", NameError::Control),
        ] {
            assert_eq!(RoomId::try_from(bad), Err(why), "{bad:?}");
        }
    }
}
