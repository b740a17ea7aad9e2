//! What a consumer sent lately: from its own sequence number back to the packet in the ring.
//!
//! Owned by a consumer; filled once per packet sent, read when a receiver asks again. Invariants: an
//! entry answers only for the number it was made for; no payload is kept here (the stream's ring
//! has it, or it is gone). Grown with the stream's ring and never beyond it: an idle consumer costs
//! nothing, and one of a slow stream little (an entry has 56 bytes).

use std::time::{Duration, Instant};

use crate::engine::StreamKey;
use crate::engine::ring::PacketIndex;
use crate::engine::select::Edit;
use crate::limits::REPAIR_INTERVAL_MIN;

/// One packet sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// The consumer's extended sequence number.
    pub seq: u64,
    /// Which stream's ring has the packet.
    pub stream: StreamKey,
    /// Where in the ring.
    pub index: PacketIndex,
    /// The timestamp it was sent with.
    pub timestamp: u32,
    /// The abs-send-time it was first sent with.
    pub abs_send_time: u32,
    /// The transport-wide number it was first sent with.
    pub transport_seq: u16,
    /// When it was last sent.
    pub at: Instant,
    /// It was sent again.
    pub repeated: bool,
    /// It was sent with the padding that makes trains.
    pub padded: bool,
    /// What was changed in it.
    pub edit: Edit,
}

/// The last packets sent, by the lower bits of their number.
#[derive(Debug, Default)]
pub struct SentLog {
    entries: Vec<Option<Sent>>,
    highest: u64,
}

impl SentLog {
    /// Makes room for the last `slots` packets, a power of two; never less than before.
    pub fn grow(&mut self, slots: usize) {
        if slots <= self.entries.len() {
            return;
        }
        let fewer = std::mem::replace(&mut self.entries, vec![None; slots]);
        fewer.into_iter().flatten().for_each(|sent| self.put(sent));
    }

    /// Notes a packet, forgetting the one whose place it takes.
    pub fn note(&mut self, sent: Sent) {
        self.highest = self.highest.max(sent.seq);
        self.put(sent);
    }

    fn put(&mut self, sent: Sent) {
        if let Some(entry) =
            Self::place(sent.seq, self.entries.len()).and_then(|place| self.entries.get_mut(place))
        {
            *entry = Some(sent);
        }
    }

    /// The packet that a receiver names with 16 bits, if it may be sent again at `now`: not older
    /// than `age_max`, and not repeated within the last round trip (or [`REPAIR_INTERVAL_MIN`]: what
    /// round trip a receiver reports must not make us repeat without bound). The first repeat is
    /// never early: a round trip that has just become shorter must not cost one. It then counts as
    /// sent at `now`.
    pub fn take_for_repair(
        &mut self,
        seq: u16,
        now: Instant,
        age_max: Duration,
        round_trip: Duration,
    ) -> Option<Sent> {
        let behind = crate::engine::rtp::seq_diff(low_16(self.highest), seq);
        let seq = self.highest.checked_sub(u64::try_from(behind).ok()?)?;
        let place = Self::place(seq, self.entries.len())?;
        let sent = self.entries.get_mut(place)?.as_mut().filter(|sent| sent.seq == seq)?;
        let since = now.saturating_duration_since(sent.at);
        let early = sent.repeated && since < round_trip.max(REPAIR_INTERVAL_MIN);
        if early || since > age_max {
            return None;
        }
        let found = *sent;
        sent.at = now;
        sent.repeated = true;
        Some(found)
    }

    fn place(seq: u64, slots: usize) -> Option<usize> {
        let mask = u64::try_from(slots).ok()?.checked_sub(1)?;
        usize::try_from(seq & mask).ok()
    }
}

/// The lower 16 bits: what travels of an extended sequence number.
#[must_use]
pub fn low_16(seq: u64) -> u16 {
    let [.., a, b] = seq.to_be_bytes();
    u16::from_be_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn a_packet_is_found_by_its_number_until_another_takes_its_place() {
        let mut streams: SlotMap<StreamKey, ()> = SlotMap::with_key();
        let stream = streams.insert(());
        let start = crate::engine::test_instant();
        let mut log = SentLog::default();
        let second = Duration::from_secs(1);
        assert!(log.take_for_repair(1, start, second, Duration::ZERO).is_none());
        log.grow(8);
        let numbers = 65_530..65_546_u64;
        for seq in numbers {
            let index = PacketIndex::new(seq + 7);
            let (timestamp, abs_send_time, transport_seq, at) = (0, 0, 0, start);
            let (repeated, padded) = (false, false);
            let sent = Sent {
                seq,
                stream,
                index,
                timestamp,
                abs_send_time,
                transport_seq,
                at,
                repeated,
                padded,
                edit: Edit::default(),
            };
            log.note(sent);
        }
        let mut ask = |seq: u64, ms| {
            let now = start + Duration::from_millis(ms);
            log.take_for_repair(low_16(seq), now, second, Duration::from_millis(30))
                .map(|sent| sent.index.number())
        };
        assert_eq!(ask(65_537, 40), None, "eight later, its place is taken");
        assert_eq!(ask(65_538, 40), Some(65_545));
        assert_eq!(ask(65_538, 60), None, "repeated 20 ms ago");
        assert_eq!(ask(65_538, 80), Some(65_545));
        assert_eq!(ask(65_541, 5), Some(65_548), "the round trip has become shorter");
        assert_eq!(ask(65_545, 1_001), None, "too old to be of use");
        assert_eq!(ask(65_546, 40), None, "not sent yet");
        log.grow(32);
        log.grow(16);
        assert_eq!(log.entries.len(), 32);
        for (seq, index) in [(65_537, None), (65_539, Some(65_546)), (65_544, Some(65_551))] {
            let found = log.take_for_repair(low_16(seq), start, second, Duration::ZERO);
            assert_eq!(found.map(|sent| sent.index.number()), index, "grown, {seq}");
        }
    }
}
