//! What clients do about lost packets, as libwebrtc does it: receivers ask again, senders answer.
//!
//! A [`Missing`] belongs to a received stream: each gap in its numbering is asked for at once and
//! again every 100 ms (libwebrtc's round-trip time of a client that only receives), ten times at
//! most. A [`History`] belongs to a sent stream: enough of each of the last packets to write it
//! again, since their payloads follow from their numbers. Pure; times are ns of the run.

use std::collections::VecDeque;

use crate::clock::{MILLISECOND, SECOND};

/// Between two requests for the same packet.
const ASK_EVERY: u64 = 100 * MILLISECOND;

/// How often a packet is asked for, at most.
const ASKS_MAX: u8 = 10;

/// Packets that may be missing at a time; more, and a key frame is asked for instead.
const MISSING_MAX: usize = 1_000;

/// A packet missing for longer is given up.
const MISSING_AGE_MAX: u64 = 2 * SECOND;

/// Sent packets that can be sent again.
const HISTORY_PACKETS: usize = 1_024;

/// One missing packet.
#[derive(Debug, Clone, Copy)]
struct Gap {
    index: i64,
    noted: u64,
    asked: u64,
    asks: u8,
}

/// The missing packets of a received stream, by their unwrapped sequence numbers.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    gaps: VecDeque<Gap>,
}

/// What looking through the missing packets found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Packets that have been given up: only a key frame helps.
    pub(crate) given_up: u64,
}

impl Missing {
    /// Notes that packets from `from` up to `until`, not included, were passed over. Returns how
    /// many older ones were given up for lack of room.
    pub(crate) fn note(&mut self, from: i64, until: i64, now: u64) -> u64 {
        let most = i64::try_from(MISSING_MAX).unwrap_or(i64::MAX);
        let skipped = u64::try_from((until - from - most).max(0)).unwrap_or(0);
        for index in from.max(until - most)..until {
            self.gaps.push_back(Gap { index, noted: now, asked: 0, asks: 0 });
        }
        let beyond = self.gaps.len().saturating_sub(MISSING_MAX);
        self.gaps.drain(..beyond);
        skipped + u64::try_from(beyond).unwrap_or(0)
    }

    /// Notes an arrival out of order; the time since when it was missed, and whether it had been
    /// asked for.
    pub(crate) fn fill(&mut self, index: i64) -> Option<(u64, bool)> {
        let place = self.gaps.binary_search_by_key(&index, |gap| gap.index).ok()?;
        self.gaps.remove(place).map(|gap| (gap.noted, gap.asks > 0))
    }

    /// The oldest missing packet.
    pub(crate) fn oldest(&self) -> Option<i64> {
        self.gaps.front().map(|gap| gap.index)
    }

    /// True when there is something to ask for, now or later.
    pub(crate) fn is_empty(&self) -> bool {
        self.gaps.is_empty()
    }

    /// Appends the packets to ask for now, and gives up those that were asked for often enough.
    pub(crate) fn ask(&mut self, now: u64, indexes: &mut Vec<i64>) -> Asked {
        let before = self.gaps.len();
        self.gaps.retain(|gap| {
            let often = gap.asks >= ASKS_MAX && now >= gap.asked + ASK_EVERY;
            !often && now < gap.noted + MISSING_AGE_MAX
        });
        for gap in &mut self.gaps {
            if gap.asks == 0 || now >= gap.asked + ASK_EVERY {
                indexes.push(gap.index);
                (gap.asked, gap.asks) = (now, gap.asks.saturating_add(1));
            }
        }
        Asked { given_up: u64::try_from(before - self.gaps.len()).unwrap_or(0) }
    }
}

/// What must be known of a sent packet to write it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Its SRTP index; the low sixteen bits are its sequence number.
    pub(crate) index: u64,
    /// Its frame.
    pub(crate) burst: u64,
    /// Its number among all packets of its encoding.
    pub(crate) counter: u64,
    /// RTP bytes.
    pub(crate) bytes: usize,
    /// First packet of its frame.
    pub(crate) first: bool,
    /// Last packet of its frame.
    pub(crate) last: bool,
    /// Of a key frame.
    pub(crate) key_frame: bool,
}

/// The last packets of a sent stream.
#[derive(Debug, Default)]
pub(crate) struct History {
    sent: VecDeque<Sent>,
}

impl History {
    /// Notes a packet; the oldest is forgotten when there is no more room.
    pub(crate) fn push(&mut self, sent: Sent) {
        if self.sent.len() >= HISTORY_PACKETS {
            self.sent.pop_front();
        }
        self.sent.push_back(sent);
    }

    /// The newest packet with a sequence number.
    pub(crate) fn find(&self, sequence: u16) -> Option<Sent> {
        let newest = self.sent.back()?;
        let back = low_16(newest.index).wrapping_sub(sequence);
        let place = self.sent.len().checked_sub(1 + usize::from(back))?;
        self.sent.get(place).copied()
    }
}

/// The sequence number of an SRTP index.
pub(crate) fn low_16(number: u64) -> u16 {
    let [.., a, b] = number.to_be_bytes();
    u16::from_be_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(missing: &mut Missing, now: u64) -> Vec<i64> {
        let mut indexes = Vec::new();
        missing.ask(now, &mut indexes);
        indexes
    }

    #[test]
    fn a_gap_is_asked_for_at_once_and_then_every_hundred_milliseconds() {
        let mut missing = Missing::default();
        assert_eq!(missing.note(10, 13, 0), 0);
        assert_eq!(asked(&mut missing, 0), [10, 11, 12]);
        assert!(asked(&mut missing, ASK_EVERY - 1).is_empty());
        assert_eq!(missing.fill(11), Some((0, true)));
        assert_eq!(missing.fill(11), None);
        assert_eq!(missing.oldest(), Some(10));
        missing.note(20, 21, ASK_EVERY - 1);
        assert_eq!(asked(&mut missing, ASK_EVERY), [10, 12, 20]);
        assert_eq!(missing.fill(20), Some((ASK_EVERY - 1, true)));
    }

    #[test]
    fn what_never_comes_is_given_up_after_ten_requests() {
        let mut missing = Missing::default();
        missing.note(5, 6, 0);
        let mut requests = 0;
        let mut given_up = 0;
        for tick in 0..200 {
            let mut indexes = Vec::new();
            given_up += missing.ask(tick * 20 * MILLISECOND, &mut indexes).given_up;
            requests += indexes.len();
        }
        assert_eq!((requests, given_up), (10, 1));
        assert!(missing.is_empty());
    }

    #[test]
    fn what_is_missing_is_bounded() {
        let mut missing = Missing::default();
        assert_eq!(missing.note(0, 5_000, 0), 4_000);
        assert_eq!(missing.oldest(), Some(4_000));
        assert_eq!(missing.note(5_001, 5_003, 0), 2);
        assert_eq!(asked(&mut missing, 0).len(), MISSING_MAX);
    }

    #[test]
    fn a_sent_packet_is_found_by_its_sequence_number_across_the_wrap() {
        let mut history = History::default();
        assert_eq!(history.find(0), None);
        let sent = |index| Sent {
            index,
            burst: index / 3,
            counter: index,
            bytes: 100,
            first: false,
            last: false,
            key_frame: false,
        };
        (64_000..66_000).for_each(|index| history.push(sent(index)));
        for index in [66_000 - 1, 65_536, 65_535, 66_000 - 1_024] {
            assert_eq!(history.find(low_16(index)), Some(sent(index)));
        }
        assert_eq!(history.find(low_16(66_000 - 1_025)), None);
        assert_eq!(history.find(low_16(66_000)), None, "not sent yet");
    }
}
