//! Numbers that wrap: 16-bit sequence numbers and 32-bit timestamps.

/// How far `a` is ahead of `b`, the short way round (RFC 1982's serial arithmetic).
#[must_use]
pub const fn seq_diff(a: u16, b: u16) -> i16 {
    a.wrapping_sub(b).cast_signed()
}

/// True when `a` comes after `b`. Exactly half a turn apart, neither does.
#[must_use]
pub const fn seq_is_newer(a: u16, b: u16) -> bool {
    seq_diff(a, b) > 0
}

/// How far `a` is ahead of `b`, the short way round, in the clock of both.
#[must_use]
pub const fn timestamp_diff(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

/// True when `a` is later than `b`. Exactly half a turn apart, neither is.
#[must_use]
pub const fn timestamp_is_newer(a: u32, b: u32) -> bool {
    timestamp_diff(a, b) > 0
}

/// Turns 16-bit sequence numbers into ones that do not wrap.
///
/// Counting starts one turn above zero, so that packets older than the first have numbers too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeqExtender {
    highest: Option<u64>,
}

/// What the first sequence number is raised by.
const FIRST_TURN: u64 = 1 << 16;

impl SeqExtender {
    /// The number that `seq` would have, without noting that it arrived.
    #[must_use]
    pub fn peek(&self, seq: u16) -> u64 {
        match self.highest {
            None => FIRST_TURN + u64::from(seq),
            Some(highest) => {
                let [.., a, b] = highest.to_be_bytes();
                let ahead = seq_diff(seq, u16::from_be_bytes([a, b]));
                highest.wrapping_add_signed(i64::from(ahead))
            }
        }
    }

    /// The number of `seq`, which becomes the highest if it is.
    pub fn extend(&mut self, seq: u16) -> u64 {
        let extended = self.peek(seq);
        if self.highest.is_none_or(|highest| extended > highest) {
            self.highest = Some(extended);
        }
        extended
    }

    /// The highest number seen.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// The highest number as a report block has it: turns since the first packet, then 16 bits
    /// (RFC 3550 §6.4.1). Zero before the first packet.
    #[must_use]
    pub fn highest_reported(&self) -> u32 {
        let turns = self.highest.unwrap_or(FIRST_TURN).wrapping_sub(FIRST_TURN);
        let [_, _, _, _, a, b, c, d] = turns.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn comparisons_go_the_short_way_round() {
        for (a, b, diff, newer) in [
            (1u16, 0u16, 1i16, true),
            (0, 1, -1, false),
            (0, 65_535, 1, true),
            (65_535, 0, -1, false),
            (0x8000, 0, i16::MIN, false),
            (0, 0x8000, i16::MIN, false),
            (5, 5, 0, false),
        ] {
            assert_eq!((seq_diff(a, b), seq_is_newer(a, b)), (diff, newer), "{a} {b}");
        }
        assert!(timestamp_is_newer(3, u32::MAX) && !timestamp_is_newer(u32::MAX, 3));
        assert_eq!(timestamp_diff(3, u32::MAX), 4);
    }

    #[test]
    fn a_stream_that_starts_before_the_wrap_and_is_reordered_keeps_its_order() {
        let mut extender = SeqExtender::default();
        assert_eq!(extender.highest_reported(), 0);
        let seqs = [65_534u16, 65_533, 0, 65_535, 1];
        let wanted = [131_070u64, 131_069, 131_072, 131_071, 131_073];
        assert_eq!(seqs.map(|seq| extender.extend(seq)), wanted);
        assert_eq!(extender.highest_reported(), 0x1_0001);
        assert_eq!(extender.peek(3), 131_075);
        assert_eq!(extender.highest(), Some(131_073));
    }

    #[test]
    fn a_packet_older_than_the_first_has_a_number() {
        let mut extender = SeqExtender::default();
        assert_eq!(extender.extend(0), 65_536);
        assert_eq!(extender.extend(65_535), 65_535);
        assert_eq!(extender.highest_reported(), 0);
    }

    proptest! {
        #[test]
        fn extended_numbers_follow_steps_below_half_a_turn(
            start in any::<u16>(),
            steps in proptest::collection::vec(-3_000i64..4_000, 1..200),
        ) {
            let mut extender = SeqExtender::default();
            let first = extender.extend(start);
            let mut highest = first.cast_signed();
            for step in steps {
                let real = highest + step;
                let seq = u16::try_from(real.rem_euclid(65_536)).unwrap();
                prop_assert_eq!(extender.extend(seq).cast_signed(), real);
                highest = highest.max(real);
            }
        }
    }
}
