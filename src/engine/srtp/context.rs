//! Which packet index a sequence number means, and whether that packet was seen before.
//!
//! One [`OpenContext`] per incoming SSRC, held by the transport; one window per RTCP sender, held by
//! the opener. Pure, on the shard's thread. Invariant: only authenticated packets change a context.

use crate::limits::SRTP_REPLAY_PACKETS;

/// Which of the last `WORDS` × 64 indices were seen (RFC 3711 §3.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReplayWindow<const WORDS: usize> {
    /// The highest index seen.
    highest: Option<u64>,
    /// Bit `index % bits` tells of the one index with that remainder inside the window.
    words: [u64; WORDS],
}

impl<const WORDS: usize> Default for ReplayWindow<WORDS> {
    fn default() -> Self {
        Self { highest: None, words: [0; WORDS] }
    }
}

impl<const WORDS: usize> ReplayWindow<WORDS> {
    const BITS: u64 = 64 * WORDS as u64;

    /// The highest index seen.
    pub(super) fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// False for an index that was seen, or is too old to tell.
    pub(super) fn is_fresh(&self, index: u64) -> bool {
        let Some(highest) = self.highest else { return true };
        if index > highest {
            return true;
        }
        highest - index < Self::BITS && self.bit(index).is_some_and(|(word, bit)| word & bit == 0)
    }

    /// Notes an authenticated index that [`is_fresh`](Self::is_fresh).
    pub(super) fn accept(&mut self, index: u64) {
        match self.highest {
            Some(highest) if index <= highest => {}
            Some(highest) if index - highest < Self::BITS => {
                // What falls out of the window makes room for the indices skipped.
                (highest + 1..=index).for_each(|skipped| self.set(skipped, false));
                self.highest = Some(index);
            }
            _ => {
                self.words = [0; WORDS];
                self.highest = Some(index);
            }
        }
        self.set(index, true);
    }

    fn bit(&self, index: u64) -> Option<(u64, u64)> {
        let (word, bit) = Self::place(index)?;
        Some((*self.words.get(word)?, bit))
    }

    fn set(&mut self, index: u64, seen: bool) {
        let Some((word, bit)) = Self::place(index) else { return };
        if let Some(word) = self.words.get_mut(word) {
            *word = if seen { *word | bit } else { *word & !bit };
        }
    }

    fn place(index: u64) -> Option<(usize, u64)> {
        let bit = index % Self::BITS;
        Some((usize::try_from(bit / 64).ok()?, 1 << (bit % 64)))
    }
}

/// The state of one incoming SSRC: its highest packet index and what was seen below it.
///
/// A sender starts with rollover counter 0 (RFC 3711 §3.3.1); its first packets may be lost or
/// reordered around a wrap of the sequence number, so until the first packet is authenticated a low
/// sequence number may also mean counter 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenContext {
    pub(super) window: ReplayWindow<{ SRTP_REPLAY_PACKETS / 64 }>,
}

impl OpenContext {
    /// The extended sequence number (rollover counter, sequence number) of the newest packet opened.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.window.highest()
    }

    /// The index that `seq` most probably means (RFC 3711 appendix A), and the second guess: that of
    /// the next turn, for a stream that was not heard yet, and where the first is too old to be
    /// taken. Who loses more than half a turn of a fast stream hears what seems to be old.
    pub(super) fn guess(&self, seq: u16) -> (u64, Option<u64>) {
        const HALF: u64 = 0x8000;
        let seq = u64::from(seq);
        let Some(highest) = self.window.highest() else {
            return (seq, (seq < HALF).then_some(1 << 16 | seq));
        };
        let (rollover, newest) = (highest >> 16, highest & 0xffff);
        let rollover = if newest < HALF {
            // Before counter 0 there is nothing: then it is a jump ahead.
            if seq > newest + HALF { rollover.saturating_sub(1) } else { rollover }
        } else if newest > seq + HALF {
            rollover + 1
        } else {
            rollover
        };
        let index = rollover << 16 | seq;
        let is_old = highest.saturating_sub(index) >= SRTP_REPLAY_PACKETS as u64;
        (index, is_old.then_some(index + (1 << 16)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn context(highest: u64) -> OpenContext {
        let mut context = OpenContext::default();
        context.window.accept(highest);
        context
    }

    #[test]
    fn a_sequence_number_means_the_nearest_index() {
        for (highest, seq, index) in [
            (0, 1, 1),
            (0xfffe, 0xffff, 0xffff),
            (0xffff, 0, 0x1_0000),
            (0xffff, 0x7ffe, 0x1_7ffe),
            (0xffff, 0x7fff, 0x7fff),
            (0xfff0, 0xffe0, 0xffe0),
            (0x1_0000, 0xffff, 0xffff),
            (0x1_0005, 0xfff0, 0xfff0),
            (0x1_7fff, 0xffff, 0x1_ffff),
            (0x1_7ffe, 0xffff, 0xffff),
            (0x1_8000, 0, 0x1_0000),
            (0x1_8001, 0, 0x2_0000),
            (5, 0xffff, 0xffff),
            (0x1234_ffff, 3, 0x1235_0003),
        ] {
            let (first, second) = context(highest).guess(seq);
            assert_eq!(first, index, "{highest:#x} then {seq:#x}");
            let is_old = highest.saturating_sub(index) >= 1024;
            assert_eq!(second, is_old.then_some(index + 0x1_0000));
        }
    }

    #[test]
    fn a_stream_that_was_not_heard_yet_may_have_wrapped_just_now() {
        let context = OpenContext::default();
        assert_eq!(context.guess(0xfff0), (0xfff0, None));
        assert_eq!(context.guess(3), (3, Some(0x1_0003)));
    }

    #[test]
    fn indices_older_than_the_window_are_refused() {
        let mut window = ReplayWindow::<2>::default();
        window.accept(1000);
        for (index, fresh) in [(1000, false), (999, true), (873, true), (872, false), (0, false)] {
            assert_eq!(window.is_fresh(index), fresh, "{index}");
        }
    }

    proptest! {
        #[test]
        fn a_window_agrees_with_a_set_of_all_indices(
            indices in prop::collection::vec(
                prop_oneof![0u64..300, 0u64..3000, 65_000u64..66_000], 1..300
            )
        ) {
            let mut window = ReplayWindow::<2>::default();
            let mut seen = BTreeSet::new();
            for index in indices {
                let fresh = match seen.last() {
                    None => true,
                    Some(&highest) => {
                        index + 128 > highest && !seen.contains(&index)
                    }
                };
                prop_assert_eq!(window.is_fresh(index), fresh);
                if fresh {
                    window.accept(index);
                    seen.insert(index);
                    prop_assert_eq!(window.highest(), seen.last().copied());
                }
            }
        }

        #[test]
        fn a_packet_less_than_half_a_turn_away_is_understood(
            highest in 0u64..1 << 40, distance in -32_767i64..=32_767
        ) {
            let Some(index) = highest.checked_add_signed(distance) else { return Ok(()) };
            let seq = u16::try_from(index & 0xffff).unwrap();
            prop_assert_eq!(context(highest).guess(seq).0, index);
        }
    }
}
