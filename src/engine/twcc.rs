//! Transport-wide congestion control, the receiving end: when which packet arrived
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! One [`TwccReceiver`] per transport that receives media, called on the shard's thread. Pure: the
//! wire format of feedback is RTCP's business.
//!
//! Invariants: at most [`TWCC_ARRIVALS_MAX`] arrivals are held; nothing is allocated once they have
//! grown; every packet that arrives less than [`TWCC_ARRIVALS_MAX`] numbers late is reported; a
//! feedback never holds more than [`TWCC_FEEDBACK_PACKETS_MAX`] and always fits the wire's 16-bit
//! deltas.
//!
//! Not here: remembering what was sent, and estimating bandwidth from any of it.

use std::collections::VecDeque;
use std::time::Instant;

use crate::limits::{TWCC_ARRIVALS_MAX, TWCC_FEEDBACK_PACKETS_MAX, TWCC_INTERVAL, TWCC_REPEAT};

/// Microseconds of a receive delta's tick.
const TICK_US: i64 = 250;

/// Ticks of one unit of reference time (64 ms).
const REFERENCE_TICKS: i64 = 256;

/// Reference time has 24 bits on the wire.
const REFERENCE_MASK: i64 = 0xff_ffff;

/// One feedback message, ready to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwccFeedback<'a> {
    /// The transport-wide sequence number of the first packet.
    pub base_seq: u16,
    /// Counts feedback messages, so that the sender sees lost ones.
    pub feedback_count: u8,
    /// 24 bits: the reference time in units of 64 ms.
    pub reference_time: u32,
    /// Every packet from `base_seq` on, without gaps, the last one received: its number and, if it
    /// was received, its arrival in ticks of 250 µs after the reference time. Consecutive arrivals
    /// (and the first and zero) differ by what an `i16` holds.
    pub packets: &'a [(u16, Option<i64>)],
}

/// Collects arrivals and says when to report them.
#[derive(Debug)]
pub struct TwccReceiver {
    epoch: Instant,
    /// Arrival ticks since the epoch by sequence number, from `first` to the newest.
    arrivals: VecDeque<Option<i64>>,
    /// The extended sequence number of the front of `arrivals`.
    first: u64,
    /// The extended sequence number from which on nothing was reported yet.
    unreported: u64,
    /// When the next feedback is due; set while something is unreported.
    deadline: Option<Instant>,
    /// When the last feedback was given.
    given: Option<Instant>,
    feedback_count: u8,
    /// The last feedback's packets; its memory is kept.
    packets: Vec<(u16, Option<i64>)>,
}

impl TwccReceiver {
    /// A receiver that measures time from `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            arrivals: VecDeque::new(),
            first: 0,
            unreported: 0,
            deadline: None,
            given: None,
            feedback_count: 0,
            packets: Vec::new(),
        }
    }

    /// A value of it, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        self.arrivals.len() + usize::from(self.deadline.is_some())
    }

    /// Takes note of a packet with transport-wide sequence number `seq` that came at `arrival`, which
    /// need not grow from call to call as `now` does. A second copy changes nothing; a jump out of
    /// the window starts anew.
    pub fn handle_packet(&mut self, now: Instant, arrival: Instant, seq: u16) {
        let tick = self.ticks(arrival);
        if self.arrivals.is_empty() {
            return self.start(now, tick, 1 << 16 | u64::from(seq));
        }
        let len = self.arrivals.len() as u64;
        let newest = self.first + len - 1;
        let ahead = i64::from(seq.wrapping_sub(truncate(newest)));
        let ahead = if ahead < 0x8000 { ahead } else { ahead - 0x1_0000 };
        let Some(seq) = newest.checked_add_signed(ahead) else { return };
        if ahead.unsigned_abs() >= TWCC_ARRIVALS_MAX as u64 {
            // Behind by so much it is either ancient or the sender began anew; the latter goes on.
            return self.start(now, tick, 1 << 16 | (seq & 0xffff));
        }
        if seq > newest {
            (newest + 1..seq).for_each(|_| self.arrivals.push_back(None));
            self.arrivals.push_back(Some(tick));
            self.bound();
        } else {
            while seq < self.first {
                if self.arrivals.len() == TWCC_ARRIVALS_MAX {
                    return;
                }
                self.arrivals.push_front(None);
                self.first -= 1;
            }
            let place = usize::try_from(seq - self.first).unwrap_or(usize::MAX);
            match self.arrivals.get_mut(place) {
                Some(arrival @ None) => *arrival = Some(tick),
                _ => return,
            }
            // Reported as lost before, perhaps: it is reported again, with what follows it.
            self.unreported = self.unreported.min(seq);
        }
        self.schedule(now);
    }

    /// The next feedback, when it is due; to be called until there is none.
    pub fn poll_feedback(&mut self, now: Instant) -> Option<TwccFeedback<'_>> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return None;
        }
        self.collect();
        let Some(first_tick) = self.packets.iter().find_map(|(_, tick)| *tick) else {
            // Unreachable while a deadline is set, since the newest arrival ends every window.
            self.deadline = None;
            return None;
        };
        let reference = first_tick.div_euclid(REFERENCE_TICKS);
        for (_, tick) in &mut self.packets {
            *tick = tick.map(|tick| tick - reference * REFERENCE_TICKS);
        }
        self.unreported += self.packets.len() as u64;
        if self.unreported == self.first + self.arrivals.len() as u64 {
            self.deadline = None;
        }
        self.given = Some(now);
        self.forget(now);
        let feedback_count = self.feedback_count;
        self.feedback_count = feedback_count.wrapping_add(1);
        Some(TwccFeedback {
            base_seq: self.packets.first().map(|(seq, _)| *seq)?,
            feedback_count,
            reference_time: u32::try_from(reference & REFERENCE_MASK).unwrap_or_default(),
            packets: &self.packets,
        })
    }

    /// When [`poll_feedback`](Self::poll_feedback) is to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn start(&mut self, now: Instant, tick: i64, seq: u64) {
        self.arrivals.clear();
        self.arrivals.push_back(Some(tick));
        self.first = seq;
        self.unreported = seq;
        self.deadline = None;
        self.schedule(now);
    }

    /// Due an interval after the last feedback while packets flow, an interval after this packet
    /// when it is the first or follows a silence, or at once when there is enough for a whole message.
    fn schedule(&mut self, now: Instant) {
        let waiting = (self.first + self.arrivals.len() as u64).saturating_sub(self.unreported);
        if waiting >= TWCC_FEEDBACK_PACKETS_MAX as u64 {
            self.deadline = Some(now);
        } else if self.deadline.is_none() {
            let flowing = self.given.map(|given| given + TWCC_INTERVAL).filter(|at| *at > now);
            self.deadline = Some(flowing.unwrap_or(now + TWCC_INTERVAL));
        }
    }

    /// Drops the oldest arrivals beyond the bound; what was unreported of them stays so.
    fn bound(&mut self) {
        while self.arrivals.len() > TWCC_ARRIVALS_MAX {
            self.arrivals.pop_front();
            self.first += 1;
        }
        self.unreported = self.unreported.max(self.first);
    }

    /// Fills `packets` with what one message may hold, up to a received packet.
    fn collect(&mut self) {
        self.packets.clear();
        let skip = usize::try_from(self.unreported - self.first).unwrap_or(usize::MAX);
        let window = self.arrivals.iter().skip(skip).take(TWCC_FEEDBACK_PACKETS_MAX);
        let mut previous: Option<i64> = None;
        let mut whole = 0;
        for (seq, tick) in (self.unreported..).zip(window) {
            if let Some(tick) = *tick {
                // The first counts from its reference time, at most 255 ticks before it.
                let delta = previous.map_or(0, |previous| tick - previous);
                if i16::try_from(delta).is_err() {
                    break;
                }
                previous = Some(tick);
            }
            self.packets.push((truncate(seq), *tick));
            if tick.is_some() {
                whole = self.packets.len();
            }
        }
        if whole == 0 {
            // A gap longer than a message: nothing in it to report, so begin behind it.
            let gap = self.arrivals.iter().skip(skip).take_while(|tick| tick.is_none()).count();
            self.unreported += gap as u64;
            if self.unreported < self.first + self.arrivals.len() as u64 {
                return self.collect();
            }
        }
        self.packets.truncate(whole);
    }

    /// Drops what was reported and is too old to be repeated.
    fn forget(&mut self, now: Instant) {
        let repeat = i64::try_from(TWCC_REPEAT.as_micros()).unwrap_or(i64::MAX) / TICK_US;
        let horizon = self.ticks(now) - repeat;
        // The newest stays: later numbers are told by it.
        while self.arrivals.len() > 1
            && self.first < self.unreported
            && self.arrivals.front().is_some_and(|tick| tick.is_none_or(|tick| tick < horizon))
        {
            self.arrivals.pop_front();
            self.first += 1;
        }
    }

    fn ticks(&self, now: Instant) -> i64 {
        let us = now.saturating_duration_since(self.epoch).as_micros();
        i64::try_from(us).unwrap_or(i64::MAX) / TICK_US
    }
}

/// The sequence number on the wire.
fn truncate(seq: u64) -> u16 {
    let [.., high, low] = seq.to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::test_instant as epoch;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Base, count, reference time and the packets as in a [`TwccFeedback`].
    type Told = (u16, u8, u32, Vec<(u16, Option<i64>)>);

    fn polled(receiver: &mut TwccReceiver, now: Instant) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some(f) = receiver.poll_feedback(now) {
            told.push((f.base_seq, f.feedback_count, f.reference_time, f.packets.to_vec()));
        }
        told
    }

    #[test]
    fn arrivals_are_reported_in_quarter_milliseconds_after_a_reference_of_64() {
        let t = epoch();
        let mut receiver = TwccReceiver::new(t);
        assert_eq!(receiver.next_deadline(), None);
        for (at, seq) in [(130, 65_534), (131, 65_535), (140, 1), (135, 0), (150, 4), (150, 4)] {
            receiver.handle_packet(t + ms(at), t + ms(at), seq);
        }
        assert_eq!(receiver.next_deadline(), Some(t + ms(230)));
        assert_eq!(polled(&mut receiver, t + ms(229)), []);
        let packets = vec![
            (65_534, Some(8)),
            (65_535, Some(12)),
            (0, Some(28)),
            (1, Some(48)),
            (2, None),
            (3, None),
            (4, Some(88)),
        ];
        assert_eq!(polled(&mut receiver, t + ms(230)), [(65_534, 0, 2, packets)]);
        assert_eq!(receiver.next_deadline(), None);

        receiver.handle_packet(t + ms(300), t + ms(300), 5);
        let told = polled(&mut receiver, t + ms(400));
        assert_eq!(told, [(5, 1, 4, vec![(5, Some(176))])]);
    }

    #[test]
    fn what_is_reported_is_when_packets_came_and_not_when_they_were_read() {
        let t = epoch();
        let mut receiver = TwccReceiver::new(t);
        // Read together; a late reader also sees them out of order.
        for (came, seq) in [(5, 1), (15, 3), (10, 2)] {
            receiver.handle_packet(t + ms(20), t + ms(came), seq);
        }
        assert_eq!(receiver.next_deadline(), Some(t + ms(120)));
        let packets = vec![(1, Some(20)), (2, Some(40)), (3, Some(60))];
        assert_eq!(polled(&mut receiver, t + ms(120)), [(1, 0, 0, packets)]);
    }

    #[test]
    fn a_packet_reported_lost_that_comes_late_is_reported_with_what_follows() {
        let t = epoch();
        let mut receiver = TwccReceiver::new(t);
        for seq in [10, 12, 13] {
            receiver.handle_packet(t, t, seq);
        }
        let lost = vec![(10, Some(0)), (11, None), (12, Some(0)), (13, Some(0))];
        assert_eq!(polled(&mut receiver, t + ms(100)), [(10, 0, 0, lost)]);
        receiver.handle_packet(t + ms(110), t + ms(110), 11);
        let late = vec![(11, Some(440)), (12, Some(0)), (13, Some(0))];
        assert_eq!(
            polled(&mut receiver, t + ms(210)),
            [(11, 1, 1, {
                // The reference is that of the first packet: what came earlier lies before it.
                late.into_iter().map(|(seq, tick)| (seq, tick.map(|tick| tick - 256))).collect()
            })]
        );
        receiver.handle_packet(t + ms(220), t + ms(220), 11);
        receiver.handle_packet(t + ms(220), t + ms(220), 13);
        assert_eq!(receiver.next_deadline(), None, "copies are no news");
    }

    #[test]
    fn many_packets_are_reported_at_once_in_messages_of_bounded_size() {
        let t = epoch();
        let mut receiver = TwccReceiver::new(t);
        for seq in 0..399 {
            receiver.handle_packet(t, t, seq);
        }
        assert_eq!(polled(&mut receiver, t), []);
        receiver.handle_packet(t, t, 399);
        let told = polled(&mut receiver, t);
        assert_eq!(told.iter().map(|told| told.3.len()).collect::<Vec<_>>(), [400]);
        for seq in 400..1300 {
            receiver.handle_packet(t, t, seq);
        }
        let told = polled(&mut receiver, t);
        assert_eq!(told.iter().map(|told| told.3.len()).collect::<Vec<_>>(), [400, 400, 100]);
        assert_eq!(told.iter().map(|told| told.1).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_jump_in_the_numbers_starts_anew() {
        let t = epoch();
        for (first, jump) in [(0u16, 2048u16), (100, 40_000), (5000, 2952), (30_000, 60_000)] {
            let mut receiver = TwccReceiver::new(t);
            receiver.handle_packet(t, t, first);
            receiver.handle_packet(t + ms(10), t + ms(10), jump);
            assert_eq!(polled(&mut receiver, t + ms(110)), [(jump, 0, 0, vec![(jump, Some(40))])]);
        }
        // A long gap within the window is skipped rather than told in several messages.
        let mut receiver = TwccReceiver::new(t);
        receiver.handle_packet(t, t, 0);
        assert_eq!(polled(&mut receiver, t + ms(100)).len(), 1);
        receiver.handle_packet(t + ms(200), t + ms(200), 2000);
        assert_eq!(polled(&mut receiver, t + ms(300)), [(2000, 1, 3, vec![(2000, Some(32))])]);
    }

    #[test]
    fn arrivals_too_far_apart_for_a_delta_go_into_two_messages() {
        let t = epoch();
        let mut receiver = TwccReceiver::new(t);
        receiver.handle_packet(t, t, 1);
        receiver.handle_packet(t + ms(8300), t + ms(8300), 2);
        let told = polled(&mut receiver, t + ms(8300));
        assert_eq!(told, [(1, 0, 0, vec![(1, Some(0))]), (2, 1, 129, vec![(2, Some(176))])]);
    }

    proptest! {
        #[test]
        fn feedback_is_whole_and_bounded_for_any_arrivals(
            packets in prop::collection::vec(
                (prop_oneof![8 => 0u16..5, 2 => 0u16..600, 1 => any::<u16>()], 0u64..30, any::<bool>()),
                1..300
            )
        ) {
            let t = epoch();
            let mut receiver = TwccReceiver::new(t);
            let (mut now, mut seq) = (t, 0u16);
            for (step, pause, back) in packets {
                now += ms(pause);
                seq = if back { seq.wrapping_sub(step) } else { seq.wrapping_add(step) };
                receiver.handle_packet(now, now, seq);
                prop_assert!(receiver.arrivals.len() <= TWCC_ARRIVALS_MAX);
                for (base, _, _, packets) in polled(&mut receiver, now) {
                    prop_assert!((1..=TWCC_FEEDBACK_PACKETS_MAX).contains(&packets.len()));
                    prop_assert!(packets.last().unwrap().1.is_some());
                    let mut previous = 0;
                    for (at, (seq, tick)) in (0u16..).zip(&packets) {
                        prop_assert_eq!(*seq, base.wrapping_add(at));
                        if let Some(tick) = tick {
                            prop_assert!(i16::try_from(tick - previous).is_ok());
                            previous = *tick;
                        }
                    }
                }
                prop_assert!(receiver.next_deadline().is_none_or(|deadline| deadline > now));
            }
        }

        #[test]
        fn every_packet_is_told_with_its_arrival_whatever_is_lost_or_reordered(
            first in any::<u16>(),
            fates in prop::collection::vec(0u64..10, 1..500),
        ) {
            let t = epoch();
            let mut arrivals: Vec<(u64, u16)> = fates
                .iter()
                .enumerate()
                .filter(|(at, fate)| *at == 0 || **fate != 0)
                .map(|(at, fate)| {
                    let late = if *fate == 1 && at > 0 { 150 } else { 0 };
                    (at as u64 + late, first.wrapping_add(u16::try_from(at).unwrap()))
                })
                .collect();
            arrivals.sort_unstable();
            let mut receiver = TwccReceiver::new(t);
            let mut told: BTreeMap<u16, i64> = BTreeMap::new();
            let mut pending = arrivals.iter().peekable();
            for at in 0..fates.len() as u64 + 300 {
                while let Some((_, seq)) = pending.next_if(|(due, _)| *due <= at) {
                    receiver.handle_packet(t + ms(at), t + ms(at), *seq);
                }
                for (_, _, reference, packets) in polled(&mut receiver, t + ms(at)) {
                    for (seq, tick) in packets {
                        if let Some(tick) = tick {
                            let tick = i64::from(reference) * REFERENCE_TICKS + tick;
                            prop_assert!(*told.entry(seq).or_insert(tick) == tick);
                        }
                    }
                }
            }
            let expected: BTreeMap<u16, i64> =
                arrivals.iter().map(|(at, seq)| (*seq, i64::try_from(*at).unwrap() * 4)).collect();
            prop_assert_eq!(told, expected);
        }
    }
}
