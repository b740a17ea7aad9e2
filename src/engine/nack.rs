//! Asks a publisher again for what got lost, soon, patiently and within bounds.
//!
//! One [`NackGenerator`] per incoming media stream, owned by its producer stream, called on its
//! shard's thread: for every packet, and when [`NackGenerator::next_deadline`] has come. Pure.
//!
//! Invariants:
//! * A packet that is merely reordered by less than [`NACK_DELAY`] is never asked for.
//! * A packet is asked for at most [`NACK_RETRIES_MAX`] times, no faster than the round trip and
//!   [`NACK_INTERVAL_MIN`]; at most [`NACK_ITEMS_MAX`] are missing at a time, none older than
//!   [`NACK_AGE_MAX`]. More loss than that asks for a key frame instead.
//! * What a key frame makes unnecessary is not asked for.
//!
//! Not here: writing the RTCP, and duplicates of originals (SRTP refuses those as replays).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::{
    NACK_AGE_MAX, NACK_DELAY, NACK_INTERVAL_MAX, NACK_INTERVAL_MIN, NACK_ITEMS_MAX,
    NACK_RETRIES_MAX,
};

/// What a packet meant for repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NackOutcome {
    /// The newest so far, next in sequence or with a gap that may yet be filled.
    Newest,
    /// The newest so far, behind more loss than is worth repairing: ask for a key frame.
    Overflow,
    /// It filled a gap; `asked` tells whether we had asked for it (else it was reordered).
    Filled {
        /// True when it was asked for at least once.
        asked: bool,
    },
    /// It was not missing: a second copy, or given up. An RTX copy is of no use; an original was
    /// not seen before (SRTP refuses replays) and may still be passed on.
    Unlisted,
}

/// A missing packet.
#[derive(Debug, Clone, Copy)]
struct Item {
    /// Its extended sequence number.
    seq: u64,
    /// When it is asked for (again), or given up.
    due: Instant,
    /// How often it was asked for.
    asked: u8,
}

/// Finds gaps in one stream and says when to ask for what.
#[derive(Debug, Clone, Default)]
pub struct NackGenerator {
    /// The newest packet's extended sequence number (from 2^16, so that older ones exist).
    newest: Option<u64>,
    /// What is missing, in sequence.
    items: VecDeque<Item>,
    /// No item is due before this; set while there are items.
    deadline: Option<Instant>,
}

impl NackGenerator {
    /// A generator that has heard nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of a packet with the media stream's sequence number `seq` (of an RTX packet, the
    /// original one), and whether it begins a key frame.
    pub fn handle_packet(&mut self, now: Instant, seq: u16, is_key_frame: bool) -> NackOutcome {
        let Some(newest) = self.newest else {
            self.newest = Some(1 << 16 | u64::from(seq));
            return NackOutcome::Newest;
        };
        let distance = distance(newest, seq);
        let Some(seq) = newest.checked_add_signed(distance) else { return NackOutcome::Unlisted };
        if distance <= 0 {
            let outcome = self.fill(seq);
            if is_key_frame {
                self.forget_before(seq);
            }
            return outcome;
        }
        self.newest = Some(seq);
        self.forget_before(seq.saturating_sub(NACK_AGE_MAX));
        if is_key_frame {
            // What lies between belongs to frames nobody needs any more.
            self.items.clear();
            self.deadline = None;
            return NackOutcome::Newest;
        }
        let missing = usize::try_from(seq - newest - 1).unwrap_or(usize::MAX);
        if missing.saturating_add(self.items.len()) > NACK_ITEMS_MAX {
            self.items.clear();
            self.deadline = None;
            return NackOutcome::Overflow;
        }
        if missing > 0 {
            let due = now + NACK_DELAY;
            self.items.extend((newest + 1..seq).map(|seq| Item { seq, due, asked: 0 }));
            self.deadline = Some(self.deadline.map_or(due, |deadline| deadline.min(due)));
        }
        NackOutcome::Newest
    }

    /// Calls `ask` with each sequence number to be asked for now, in sequence, and gives up those
    /// that were asked for often enough. `rtt` is the last measured round trip to the publisher.
    pub fn poll(&mut self, now: Instant, rtt: Duration, mut ask: impl FnMut(u16)) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        let again = now + rtt.clamp(NACK_INTERVAL_MIN, NACK_INTERVAL_MAX);
        let mut deadline: Option<Instant> = None;
        self.items.retain_mut(|item| {
            if item.due <= now {
                if item.asked == NACK_RETRIES_MAX {
                    return false;
                }
                item.asked += 1;
                item.due = again;
                ask(truncate(item.seq));
            }
            deadline = Some(deadline.map_or(item.due, |deadline| deadline.min(item.due)));
            true
        });
        self.deadline = deadline;
    }

    /// When [`poll`](Self::poll) is to be called next; never later than something is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Forgets everything: the stream was paused, or begins anew.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Takes `seq` off the list.
    fn fill(&mut self, seq: u64) -> NackOutcome {
        let Ok(at) = self.items.binary_search_by_key(&seq, |item| item.seq) else {
            return NackOutcome::Unlisted;
        };
        let asked = self.items.remove(at).is_some_and(|item| item.asked > 0);
        self.settle();
        NackOutcome::Filled { asked }
    }

    /// Gives up everything older than `seq`.
    fn forget_before(&mut self, seq: u64) {
        let old = self.items.partition_point(|item| item.seq < seq);
        self.items.drain(..old);
        self.settle();
    }

    /// Without items there is nothing to wait for.
    fn settle(&mut self) {
        if self.items.is_empty() {
            self.deadline = None;
        }
    }
}

/// How far `seq` is ahead of the extended `newest`, the nearer way round.
fn distance(newest: u64, seq: u16) -> i64 {
    let ahead = seq.wrapping_sub(truncate(newest));
    if ahead < 0x8000 { i64::from(ahead) } else { i64::from(ahead) - 0x1_0000 }
}

/// The sequence number on the wire.
fn truncate(seq: u64) -> u16 {
    let [.., high, low] = seq.to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::engine::test_instant as epoch;

    const RTT: Duration = Duration::from_millis(50);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn asked(nack: &mut NackGenerator, now: Instant, rtt: Duration) -> Vec<u16> {
        let mut asked = Vec::new();
        nack.poll(now, rtt, |seq| asked.push(seq));
        asked
    }

    fn heard(now: Instant, seqs: &[u16]) -> NackGenerator {
        let mut nack = NackGenerator::new();
        for &seq in seqs {
            nack.handle_packet(now, seq, false);
        }
        nack
    }

    #[test]
    fn a_gap_is_asked_for_after_the_delay_and_again_after_the_round_trip() {
        let t = epoch();
        for (rtt, again) in [(ms(0), 40), (ms(50), 50), (ms(5000), 1000)] {
            let mut nack = heard(t, &[10, 13]);
            assert_eq!(nack.next_deadline(), Some(t + ms(10)));
            assert_eq!(asked(&mut nack, t + ms(9), rtt), [0u16; 0]);
            assert_eq!(asked(&mut nack, t + ms(10), rtt), [11, 12]);
            assert_eq!(nack.next_deadline(), Some(t + ms(10 + again)));
            assert_eq!(asked(&mut nack, t + ms(9 + again), rtt), [0u16; 0]);
            assert_eq!(nack.handle_packet(t, 11, false), NackOutcome::Filled { asked: true });
            assert_eq!(asked(&mut nack, t + ms(10 + again), rtt), [12]);
            assert_eq!(nack.handle_packet(t, 12, false), NackOutcome::Filled { asked: true });
            assert_eq!(nack.handle_packet(t, 12, false), NackOutcome::Unlisted);
            assert_eq!((nack.next_deadline(), nack.items.len()), (None, 0));
        }
    }

    #[test]
    fn reordered_packets_are_never_asked_for() {
        let t = epoch();
        let mut nack = NackGenerator::new();
        for (at, seq, outcome) in [
            (0, 65_534, NackOutcome::Newest),
            (1, 1, NackOutcome::Newest),
            (5, 65_535, NackOutcome::Filled { asked: false }),
            (9, 0, NackOutcome::Filled { asked: false }),
            (9, 65_000, NackOutcome::Unlisted),
        ] {
            assert_eq!(nack.handle_packet(t + ms(at), seq, false), outcome, "{seq}");
            assert_eq!(asked(&mut nack, t + ms(at), RTT), [0u16; 0]);
        }
        assert_eq!(asked(&mut nack, t + ms(1000), RTT), [0u16; 0]);
    }

    #[test]
    fn the_first_packet_leaves_nothing_missing_before_it() {
        let mut nack = heard(epoch(), &[0]);
        assert_eq!(nack.handle_packet(epoch(), 65_535, false), NackOutcome::Unlisted);
        assert_eq!(nack.items.len(), 0);
    }

    #[test]
    fn a_packet_is_given_up_after_ten_requests() {
        let t = epoch();
        let mut nack = heard(t, &[1, 3]);
        let mut requests = 0;
        for at in 0..5000 {
            requests += asked(&mut nack, t + ms(at), RTT).len();
        }
        assert_eq!(requests, 10);
        assert_eq!((nack.items.len(), nack.next_deadline()), (0, None));
        assert_eq!(nack.handle_packet(t + ms(5000), 2, false), NackOutcome::Unlisted);
    }

    #[test]
    fn a_key_frame_ends_the_search_for_what_lies_before_it() {
        let t = epoch();
        let mut nack = heard(t, &[1, 5]);
        assert_eq!(nack.handle_packet(t, 8, true), NackOutcome::Newest);
        assert_eq!((nack.items.len(), nack.next_deadline()), (0, None));

        let mut nack = heard(t, &[1, 5, 10]);
        assert_eq!(nack.handle_packet(t, 7, true), NackOutcome::Filled { asked: false });
        assert_eq!(asked(&mut nack, t + ms(10), RTT), [8, 9]);
    }

    #[test]
    fn more_loss_than_is_worth_repairing_asks_for_a_key_frame() {
        let t = epoch();
        let mut nack = heard(t, &[0]);
        assert_eq!(nack.handle_packet(t, 1001, false), NackOutcome::Newest);
        assert_eq!(nack.items.len(), 1000);
        assert_eq!(nack.handle_packet(t, 1003, false), NackOutcome::Overflow);
        assert_eq!((nack.items.len(), nack.next_deadline()), (0, None));
        assert_eq!(nack.handle_packet(t, 1005, false), NackOutcome::Newest);
        assert_eq!(asked(&mut nack, t + ms(10), RTT), [1004]);
        assert_eq!(nack.handle_packet(t, 1004 + 0x7000, false), NackOutcome::Overflow);
    }

    #[test]
    fn packets_ten_thousand_behind_are_given_up() {
        let t = epoch();
        let mut nack = heard(t, &[0, 2]);
        for seq in 3..=10_001 {
            nack.handle_packet(t, seq, false);
        }
        assert_eq!(nack.items.len(), 1);
        nack.handle_packet(t, 10_002, false);
        assert_eq!((nack.items.len(), nack.next_deadline()), (0, None));
    }

    #[test]
    fn a_reset_generator_starts_where_the_stream_goes_on() {
        let mut nack = heard(epoch(), &[1, 5]);
        nack.reset();
        assert_eq!(nack.handle_packet(epoch(), 900, false), NackOutcome::Newest);
        assert_eq!(nack.items.len(), 0);
    }

    proptest! {
        #[test]
        fn any_arrivals_keep_the_bounds(
            seqs in prop::collection::vec((any::<u16>(), any::<bool>(), 0u64..200), 1..200)
        ) {
            let mut nack = NackGenerator::new();
            let mut now = epoch();
            for (seq, is_key_frame, pause) in seqs {
                now += ms(pause);
                nack.handle_packet(now, seq, is_key_frame);
                prop_assert!(nack.items.len() <= NACK_ITEMS_MAX);
                prop_assert_eq!(nack.next_deadline().is_some(), !nack.items.is_empty());
                asked(&mut nack, now, RTT);
                prop_assert!(nack.next_deadline().is_none_or(|deadline| deadline > now));
            }
        }

        #[test]
        fn exactly_what_is_lost_is_asked_for_and_each_packet_in_bounds(
            first in any::<u16>(),
            fates in prop::collection::vec(0u8..10, 50..600),
        ) {
            let t = epoch();
            let mut nack = NackGenerator::new();
            let mut asks: BTreeMap<u16, Vec<Instant>> = BTreeMap::new();
            let mut lost = BTreeSet::new();
            // One packet per ms: fate 0 is lost, 1 comes 8 ms late. First and last arrive.
            let last = fates.len() - 1;
            let mut arrivals = Vec::new();
            for (at, fate) in fates.iter().enumerate() {
                let seq = first.wrapping_add(u16::try_from(at).unwrap());
                match fate {
                    0 if at != 0 && at != last => drop(lost.insert(seq)),
                    1 if at != 0 => arrivals.push((at + 8, seq)),
                    _ => arrivals.push((at, seq)),
                }
            }
            arrivals.sort_by_key(|(at, _)| *at);
            let mut arrivals = arrivals.into_iter().peekable();
            for at in 0..last + 1000 {
                let now = t + ms(at as u64);
                while let Some((_, seq)) = arrivals.next_if(|(due, _)| *due <= at) {
                    nack.handle_packet(now, seq, false);
                }
                nack.poll(now, RTT, |seq| asks.entry(seq).or_default().push(now));
            }
            prop_assert_eq!(asks.keys().copied().collect::<BTreeSet<_>>(), lost);
            for times in asks.values() {
                prop_assert_eq!(times.len(), usize::from(NACK_RETRIES_MAX));
                prop_assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= RTT));
            }
        }
    }
}
