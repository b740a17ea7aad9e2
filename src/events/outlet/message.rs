//! What an outlet carries, in memory and on disk.

use bytes::Bytes;

use crate::events::EntryId;
use crate::id::RoomId;

/// Where a message belongs at its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// What the replaced service told: when a call begins, ends, and who joins and leaves it.
    Chat,
    /// The whole log of the room.
    RoomEvents,
}

/// One event on its way out of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it belongs.
    pub topic: Topic,
    /// Whose event; messages of one room arrive in order.
    pub room: RoomId,
    /// The event: a reader that knows it already drops the message.
    pub id: EntryId,
    /// When it happened, in milliseconds since 1970.
    pub unix_ms: u64,
    /// JSON.
    pub body: Bytes,
}

/// Length and checksum before each record.
const HEAD: usize = 8;

impl Message {
    /// Bytes that it takes in memory and on disk, about.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len() + self.room.as_str().len() + 35
    }

    /// Appends its record: length and checksum of what follows (32 bits each, little-endian), then
    /// topic, epoch, number, time, length of the room's name, name and body.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut record = Vec::with_capacity(self.size());
        record.push(match self.topic {
            Topic::Chat => 0,
            Topic::RoomEvents => 1,
        });
        for number in [self.id.epoch, self.id.seq, self.unix_ms] {
            record.extend(number.to_le_bytes());
        }
        let room = self.room.as_str().as_bytes();
        // At most 128 characters of at most 4 bytes.
        record.extend(u16::try_from(room.len()).unwrap_or(u16::MAX).to_le_bytes());
        record.extend(room);
        record.extend(&self.body);
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        out.extend(length.to_le_bytes());
        out.extend(checksum(&record).to_le_bytes());
        out.extend(record);
    }

    /// The first record of `bytes` and what follows it; `None` where no whole record begins, as
    /// after the last one, or where a write was torn.
    pub(super) fn read(bytes: &Bytes) -> Option<(Self, Bytes)> {
        let mut head = bytes.get(..HEAD)?.chunks_exact(4).map(|word| {
            word.iter().rev().fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
        });
        let (length, sum) = (usize::try_from(head.next()?).ok()?, head.next()?);
        let end = HEAD.checked_add(length).filter(|end| *end <= bytes.len())?;
        let record = bytes.slice(HEAD..end);
        if checksum(&record) != sum {
            return None;
        }
        Some((Self::of_record(&record)?, bytes.slice(end..)))
    }

    fn of_record(record: &Bytes) -> Option<Self> {
        const NUMBERS: usize = 1;
        const ROOM: usize = NUMBERS + 3 * 8 + 2;
        let topic = match record.first()? {
            0 => Topic::Chat,
            1 => Topic::RoomEvents,
            _ => return None,
        };
        let number = |at: usize| {
            let bytes = record.get(NUMBERS + at * 8..NUMBERS + (at + 1) * 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let room_length = record.get(ROOM - 2..ROOM)?;
        let body = ROOM + usize::from(u16::from_le_bytes(room_length.try_into().ok()?));
        let room = str::from_utf8(record.get(ROOM..body)?).ok()?;
        Some(Self {
            topic,
            room: RoomId::try_from(room).ok()?,
            id: EntryId { epoch: number(0)?, seq: number(1)? },
            unix_ms: number(2)?,
            body: record.slice(body..),
        })
    }
}

/// FNV-1a, 32 bits: finds torn writes, not forgeries.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn message(seq: u64, body: &'static str) -> Message {
        Message {
            topic: Topic::RoomEvents,
            room: RoomId::try_from("room").unwrap(),
            id: EntryId { epoch: 7, seq },
            unix_ms: 1_700_000_000_000,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut out = Vec::new();
        let odd = Message {
            topic: Topic::Chat,
            room: RoomId::try_from("Zimmer ☕").unwrap(),
            ..message(u64::MAX, "")
        };
        let messages = [message(1, "{}"), odd, message(2, "{\"a\":1}")];
        messages.iter().for_each(|message| message.write(&mut out));
        let mut rest = Bytes::from(out);
        for expected in messages {
            let (read, after) = Message::read(&rest).unwrap();
            assert_eq!(read, expected);
            rest = after;
        }
        assert_eq!(Message::read(&rest), None);
    }

    proptest! {
        #[test]
        fn a_torn_or_altered_record_is_none(cut in 0usize..60, flip in 0usize..60, bit in 0u8..8) {
            let mut out = Vec::new();
            message(9, "{\"type\":\"peer-joined\"}").write(&mut out);
            let torn = Bytes::copy_from_slice(&out[..cut.min(out.len() - 1)]);
            prop_assert_eq!(Message::read(&torn), None);
            let at = flip % out.len();
            out[at] ^= 1 << bit;
            prop_assert_eq!(Message::read(&Bytes::from(out)), None);
        }

        #[test]
        fn any_bytes_are_read_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            if let Some((_, rest)) = Message::read(&bytes) {
                prop_assert!(rest.len() < bytes.len());
            }
        }
    }
}
