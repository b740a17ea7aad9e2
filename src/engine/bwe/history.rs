//! What left under which transport-wide number, until the receiver tells of it.
//!
//! Owned by the transport's [`Model`](super::model::Model); written once per packet sent, read once
//! per packet told of. Invariants: eight bytes a packet; a number that was not sent is never
//! answered; a packet is told of at most twice, first lost and then received. Grows only while it
//! would forget packets that can still be told of; then nothing is allocated.

use super::Fate;
use crate::engine::rtp::seq_diff;
use crate::limits::{BWE_HISTORY_PACKETS_MAX, BWE_HISTORY_PACKETS_MIN, BWE_HISTORY_SPAN};

/// What is known of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Nothing was sent under this number.
    #[default]
    Unsent,
    InFlight,
    Lost,
    Received,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// In microseconds, wrapping after 71 minutes: only the age is asked for.
    at_us: u32,
    bytes: u16,
    /// The probe it was part of; 0 = none.
    cluster: u8,
    state: State,
}

/// A packet that the receiver told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SentPacket {
    /// When it left.
    pub(super) at_us: u64,
    /// Its bytes on the wire.
    pub(super) bytes: u32,
    /// The probe it was part of; 0 = none.
    pub(super) cluster: u8,
}

/// What one status tells of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It arrived.
    Received(SentPacket),
    /// It has not arrived yet.
    Lost(SentPacket),
    /// It arrived though it was told lost before.
    Late(SentPacket),
}

/// The packets sent lately, by the lower bits of their number.
#[derive(Debug)]
pub(super) struct SentHistory {
    /// A power of two.
    entries: Vec<Entry>,
    /// The newest number; meaningless while nothing was sent.
    newest: u16,
}

impl SentHistory {
    /// A history whose first packet will be number `first`.
    pub(super) fn new(first: u16) -> Self {
        Self {
            entries: vec![Entry::default(); BWE_HISTORY_PACKETS_MIN],
            newest: first.wrapping_sub(1),
        }
    }

    /// A value of the line that the next packet's entry is on, to read it ahead of time.
    pub(super) fn warm(&self, seq: u16) -> usize {
        let place = usize::from(seq) & (self.entries.len() - 1);
        self.entries.get(place).map_or(0, |entry| usize::from(entry.cluster))
    }

    /// Notes a packet sent at `at_us`.
    #[inline]
    pub(super) fn note(&mut self, at_us: u64, seq: u16, bytes: u16, cluster: u8) {
        if seq != self.newest.wrapping_add(1) {
            self.skip_to(seq);
        }
        self.newest = seq;
        let at_us = low_32(at_us);
        let place = usize::from(seq) & (self.entries.len() - 1);
        let Some(entry) = self.entries.get_mut(place) else { return };
        if entry.state == State::InFlight && age(at_us, entry.at_us) < SPAN_US {
            return self.note_grown(seq, Entry { at_us, bytes, cluster, state: State::InFlight });
        }
        *entry = Entry { at_us, bytes, cluster, state: State::InFlight };
    }

    /// What a status for number `seq` tells that was not known before.
    pub(super) fn tell(&mut self, now_us: u64, seq: u16, received: bool) -> Option<Told> {
        let behind = seq_diff(self.newest, seq);
        let place = usize::from(seq) & (self.entries.len() - 1);
        let in_reach = usize::try_from(behind).is_ok_and(|behind| behind < self.entries.len());
        let entry = self.entries.get_mut(place).filter(|_| in_reach)?;
        let packet = SentPacket {
            at_us: now_us.saturating_sub(u64::from(age(low_32(now_us), entry.at_us))),
            bytes: u32::from(entry.bytes),
            cluster: entry.cluster,
        };
        let (state, told) = match (entry.state, received) {
            (State::InFlight, true) => (State::Received, Told::Received(packet)),
            (State::InFlight, false) => (State::Lost, Told::Lost(packet)),
            (State::Lost, true) => (State::Received, Told::Late(packet)),
            _ => return None,
        };
        entry.state = state;
        Some(told)
    }

    /// What became of the packets `first` to `last`, when something that left at `told_until_us` was
    /// told of. What is too long ago to be remembered is not known to have arrived.
    pub(super) fn fate(&self, first: u16, last: u16, told_until_us: u64) -> Fate {
        let mut is_under_way = false;
        for ahead in 0..=last.wrapping_sub(first) {
            let seq = first.wrapping_add(ahead);
            let behind = usize::try_from(seq_diff(self.newest, seq)).unwrap_or(usize::MAX);
            let place = usize::from(seq) & (self.entries.len() - 1);
            let entry = self.entries.get(place).filter(|_| behind < self.entries.len());
            match entry.map(|entry| (entry.state, age(low_32(told_until_us), entry.at_us))) {
                Some((State::Received | State::Unsent, _)) => {}
                // Told of is what left later.
                Some((State::InFlight, later_us)) if !(1..=SPAN_US).contains(&later_us) => {
                    is_under_way = true;
                }
                _ => return Fate::Lost,
            }
        }
        if is_under_way { Fate::UnderWay } else { Fate::Arrived }
    }

    /// Numbers were left out: nothing was sent under them.
    #[cold]
    fn skip_to(&mut self, seq: u16) {
        let ahead = seq.wrapping_sub(self.newest.wrapping_add(1));
        let skipped = usize::from(ahead).min(self.entries.len());
        let mask = self.entries.len() - 1;
        for back in 1..=skipped {
            let place = usize::from(seq).wrapping_sub(back) & mask;
            if let Some(entry) = self.entries.get_mut(place) {
                entry.state = State::Unsent;
            }
        }
    }

    /// Notes a packet whose place belongs to one that can still be told of.
    #[cold]
    fn note_grown(&mut self, seq: u16, new: Entry) {
        let old_mask = self.entries.len() - 1;
        if self.entries.len() < BWE_HISTORY_PACKETS_MAX {
            let len = 2 * self.entries.len();
            let fewer = std::mem::replace(&mut self.entries, vec![Entry::default(); len]);
            for back in 1..=fewer.len() {
                let seq = usize::from(seq).wrapping_sub(back);
                let old = fewer.get(seq & old_mask).copied().unwrap_or_default();
                if let Some(entry) = self.entries.get_mut(seq & (len - 1)) {
                    *entry = old;
                }
            }
        }
        let place = usize::from(seq) & (self.entries.len() - 1);
        if let Some(entry) = self.entries.get_mut(place) {
            *entry = new;
        }
    }
}

/// [`BWE_HISTORY_SPAN`] in microseconds.
#[expect(clippy::cast_possible_truncation, reason = "asserted below")]
const SPAN_US: u32 = BWE_HISTORY_SPAN.as_micros() as u32;

const _: () = assert!(BWE_HISTORY_SPAN.as_secs() < 60);
const _: () = assert!(BWE_HISTORY_PACKETS_MIN.is_power_of_two());
const _: () = assert!(BWE_HISTORY_PACKETS_MAX.is_power_of_two());
const _: () = assert!(BWE_HISTORY_PACKETS_MAX <= 1 << 15);
const _: () = assert!(size_of::<Entry>() == 8);

fn age(now_us: u32, at_us: u32) -> u32 {
    now_us.wrapping_sub(at_us)
}

fn low_32(us: u64) -> u32 {
    let [.., a, b, c, d] = us.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(at_us: u64, bytes: u32) -> SentPacket {
        SentPacket { at_us, bytes, cluster: 0 }
    }

    fn bytes(history: &SentHistory) -> usize {
        history.entries.capacity() * size_of::<Entry>()
    }

    #[test]
    fn a_packet_is_told_of_once_and_once_more_if_it_was_only_late() {
        let mut history = SentHistory::new(65_535);
        history.note(1_000, 65_535, 1_200, 0);
        history.note(2_000, 0, 800, 0);
        for (seq, received, told) in [
            (65_535, true, Some(Told::Received(packet(1_000, 1_200)))),
            (65_535, true, None),
            (65_535, false, None),
            (0, false, Some(Told::Lost(packet(2_000, 800)))),
            (0, false, None),
            (0, true, Some(Told::Late(packet(2_000, 800)))),
            (0, true, None),
            (1, true, None),
            (65_534, true, None),
        ] {
            assert_eq!(history.tell(9_000, seq, received), told, "{seq} {received}");
        }
    }

    #[test]
    fn it_grows_while_packets_can_still_be_told_of_and_never_beyond_its_bound() {
        let mut history = SentHistory::new(60_000);
        let small = bytes(&history);
        let mut at_us = 0;
        let mut send = |history: &mut SentHistory, from: u16, count: u16, gap_us: u64| {
            for seq in (0..count).map(|n| from.wrapping_add(n)) {
                at_us += gap_us;
                history.note(at_us, seq, 100, 0);
            }
            at_us
        };
        // 20 packets a second: whatever is older than the span may go.
        let now = send(&mut history, 60_000, 2_000, 50_000);
        assert_eq!(bytes(&history), small);
        assert!(history.tell(now, 61_990, true).is_some());
        // 1,000 a second: the span's packets are kept, across the growth and the wrap.
        let now = send(&mut history, 62_000, 4_000, 1_000);
        assert!(bytes(&history) > small);
        assert_eq!(bytes(&history), 8 * 2_048);
        let told = history.tell(now, 62_000u16.wrapping_add(2_100), true);
        assert_eq!(told, Some(Told::Received(packet(now - 1_899_000, 100))));
        // All at once: the bound holds, and the newest is known.
        let now = send(&mut history, 62_000u16.wrapping_add(4_000), 30_000, 0);
        assert_eq!(bytes(&history), 8 * BWE_HISTORY_PACKETS_MAX);
        assert!(history.tell(now, 62_000u16.wrapping_add(33_999), true).is_some());
    }

    #[test]
    fn some_packets_are_there_when_all_are_and_lost_when_one_is_or_is_passed_over() {
        let mut history = SentHistory::new(65_534);
        for (at_us, seq) in [(1_000, 65_534), (1_000, 65_535), (2_000, 0), (3_000, 1)] {
            history.note(at_us, seq, 1_200, 0);
        }
        let fate = |history: &SentHistory, told| history.fate(65_534, 0, told);
        assert_eq!(fate(&history, 0), Fate::UnderWay);
        for seq in [65_534, 65_535] {
            let _ = history.tell(9_000, seq, true);
            assert_eq!(fate(&history, 1_000), Fate::UnderWay, "{seq}");
        }
        assert_eq!(history.fate(65_534, 65_535, 1_000), Fate::Arrived);
        // What left later is told of, this was not: its feedback is lost.
        assert_eq!(fate(&history, 3_000), Fate::Lost);
        let _ = history.tell(9_000, 0, false);
        assert_eq!(fate(&history, 2_000), Fate::Lost);
        let _ = history.tell(9_000, 0, true);
        assert_eq!(fate(&history, 2_000), Fate::Arrived);
        assert_eq!(history.fate(64_000, 0, 3_000), Fate::Lost, "long ago");
    }

    #[test]
    fn numbers_left_out_are_not_known_even_where_older_ones_had_their_place() {
        let mut history = SentHistory::new(0);
        (0..100).for_each(|seq| history.note(u64::from(seq), seq, 50, 0));
        history.note(5_000_000, 160, 50, 0);
        assert_eq!(history.tell(5_000_000, 130, true), None);
        assert!(history.tell(5_000_000, 160, true).is_some());
        history.note(5_000_000, 40_000, 50, 0);
        assert_eq!(history.tell(5_000_000, 39_999, true), None);
    }
}
