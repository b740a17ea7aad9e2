//! RTCP packets that wait for their transport's turn to send, in plaintext.
//!
//! Owned by a transport. One buffer, kept for its capacity; sealed packet by packet when the shard
//! lends a batch, so the SRTCP index is taken in the order of sending. Bounded: what does not fit
//! is not sent, and the next report says it anew. Sender reports wait instead, in [`ReportTurns`].

use std::time::Instant;

use crate::engine::ConsumerKey;
use crate::limits::{REPORT_PAUSE, RTCP_QUEUE_BYTES_MAX};

/// Bytes of one compound packet before SRTCP: below every path's MTU with all overheads.
pub const COMPOUND_BYTES_MAX: usize = 1_140;

/// Packets in a row, each behind its length.
#[derive(Debug, Default)]
pub struct RtcpQueue {
    bytes: Vec<u8>,
    taken: usize,
}

impl RtcpQueue {
    /// Adds a packet; false when there is no room.
    pub fn push(&mut self, packet: &[u8]) -> bool {
        let Ok(len) = u16::try_from(packet.len()) else { return false };
        if packet.is_empty() || self.bytes.len() + packet.len() + 2 > RTCP_QUEUE_BYTES_MAX {
            return packet.is_empty();
        }
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(packet);
        true
    }

    /// True as long as reports leave half of the room to what cannot wait for their next turn.
    #[must_use]
    pub fn has_room_for_reports(&self) -> bool {
        self.bytes.len() + COMPOUND_BYTES_MAX + 2 <= RTCP_QUEUE_BYTES_MAX / 2
    }

    /// The packet that has waited longest.
    #[must_use]
    pub fn front(&self) -> Option<&[u8]> {
        let (len, rest) = self.bytes.get(self.taken..)?.split_first_chunk::<2>()?;
        rest.get(..usize::from(u16::from_be_bytes(*len)))
    }

    /// Forgets the front packet.
    pub fn pop(&mut self) {
        let Some(len) = self.front().map(<[u8]>::len) else { return };
        self.taken += len + 2;
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        }
    }

    /// True when nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Whose sender report is next. A transport may have more consumers than the queue takes reports of
/// at once: each round goes on where the last one stopped, so that none waits longer than the others.
#[derive(Debug, Default)]
pub struct ReportTurns {
    /// Its place among the consumers.
    next: usize,
    /// How many are still to be written in this round.
    left: usize,
    /// When the round goes on.
    due: Option<Instant>,
}

impl ReportTurns {
    /// A new second: each of so many consumers has one turn.
    pub fn begin(&mut self, consumers: usize) {
        self.left = consumers;
        self.due = None;
    }

    /// The round goes on.
    pub fn resume(&mut self) {
        self.due = None;
    }

    /// Whose turn it is.
    #[must_use]
    pub fn front(&mut self, consumers: &[ConsumerKey]) -> Option<ConsumerKey> {
        if self.next >= consumers.len() {
            self.next = 0;
        }
        consumers.get(self.next).copied().filter(|_| self.left > 0)
    }

    /// It had its turn.
    pub fn pop(&mut self) {
        self.next += 1;
        self.left = self.left.saturating_sub(1);
    }

    /// There is no room for it now.
    pub fn wait(&mut self, now: Instant) {
        self.due = Some(now + REPORT_PAUSE);
    }

    /// When there may be room again for those that wait.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_in_the_order_they_came_until_the_room_is_used_up() {
        let mut queue = RtcpQueue::default();
        assert!(queue.push(&[1; 8]) && queue.push(&[2; 12]));
        assert_eq!(queue.front(), Some(&[1; 8][..]));
        queue.pop();
        assert!(queue.push(&[3; 4]));
        assert_eq!(queue.front(), Some(&[2; 12][..]));
        queue.pop();
        assert_eq!(queue.front(), Some(&[3; 4][..]));
        queue.pop();
        assert!(queue.is_empty() && queue.front().is_none());
        assert!(queue.has_room_for_reports());
        let fitting = (0..).take_while(|_| queue.push(&[0; 1_000])).count();
        assert_eq!(fitting, RTCP_QUEUE_BYTES_MAX / 1_002);
        assert!(!queue.has_room_for_reports());
    }
}
