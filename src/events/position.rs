//! Where in which log: the number that a reader gives back when it reconnects.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Names one entry of all logs there ever were: `1700000000000-12` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryId {
    /// Tells its log from those of other rooms, also earlier and later ones of the same name; it
    /// grows from room to room, also over restarts (milliseconds since 1970, or more).
    pub epoch: u64,
    /// Its number in the log, from 1 without gaps.
    pub seq: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl Serialize for EntryId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The last entry that a reader knows: an [`EntryId`] as text, or a number alone, for a reader that
/// is sure which room it means (`0` is before all).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Of the log, if told.
    pub epoch: Option<u64>,
    /// The number.
    pub seq: u64,
}

impl From<EntryId> for Position {
    fn from(id: EntryId) -> Self {
        Self { epoch: Some(id.epoch), seq: id.seq }
    }
}

/// The text is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the id of an event, or a number")]
pub struct NoPosition;

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().ok_or(NoPosition)
        };
        match text.split_once('-') {
            Some((epoch, seq)) => Ok(Self { epoch: Some(number(epoch)?), seq: number(seq)? }),
            None => Ok(Self { epoch: None, seq: number(text)? }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_an_id_or_a_number() {
        let id = EntryId { epoch: 17, seq: 4 };
        assert_eq!(id.to_string().parse(), Ok(Position::from(id)));
        assert_eq!("12".parse(), Ok(Position { epoch: None, seq: 12 }));
        for text in ["", "-", "-1", "1-", "+1", "1-2-3", "x", "1-x", "99999999999999999999"] {
            assert_eq!(text.parse::<Position>(), Err(NoPosition), "{text:?}");
        }
    }
}
