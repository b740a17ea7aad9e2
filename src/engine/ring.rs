//! The packets of one producer stream, in plaintext, in the order they arrived: every consumer on the
//! shard reads from here, at once and again when asked.
//!
//! Owned by a producer stream, called on its shard's thread. SRTP opens straight into a slot; a slot
//! that is not committed was never there.
//!
//! Invariants:
//! * Indices only grow; a packet is either whole under its index, or gone.
//! * It grows by doubling while it would overwrite packets younger than [`RING_SPAN`], up to the slots
//!   given at construction. Payload bytes are allocated by chunks when first needed and never moved;
//!   at a steady rate nothing is allocated.
//!
//! Not here: what a packet means (the metadata is the caller's), and sequence numbers.

use std::ops::Range;
use std::time::Instant;

use crate::limits::{MEDIA_DATAGRAM_BYTES_MAX, RING_SPAN};

/// Bytes of a slot: the largest media datagram, in whole cache lines.
pub const SLOT_BYTES: usize = MEDIA_DATAGRAM_BYTES_MAX.next_multiple_of(64);

/// First bytes of a payload that may be rewritten for one reader: the numbers of VP8's and VP9's
/// descriptors end with the fifth.
pub const HEAD_BYTES: usize = 8;

/// Slots of one allocation: 46 KiB, too little to notice when it happens between two packets.
const CHUNK_SLOTS: usize = 32;

/// The place of a packet in its ring's history: the first has 0, and none has it twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketIndex(u64);

impl PacketIndex {
    /// The index with this number.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// The index of the packet that arrived after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Where a packet's bytes are, and what is known of it.
#[derive(Debug, Clone, Copy)]
struct Entry<M> {
    /// Which slot, over all chunks.
    slot: usize,
    /// The packet, once committed.
    packet: Option<Packet<M>>,
}

/// A committed packet.
#[derive(Debug, Clone, Copy)]
struct Packet<M> {
    meta: M,
    arrival: Instant,
    start: u16,
    end: u16,
    /// Bytes of RTP padding behind the payload.
    padding: u8,
}

/// A payload and the RTP padding behind it, whose last byte tells its length (RFC 3550 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Padded<'a> {
    /// Payload and padding.
    pub bytes: &'a [u8],
    /// How many of them are padding.
    pub padding: u8,
    /// When the packet arrived.
    pub arrival: Instant,
}

/// Packets of one stream with metadata `M`.
#[derive(Debug)]
pub struct PacketRing<M> {
    /// A power of two of entries (or none); a packet's is its index modulo their number.
    entries: Vec<Entry<M>>,
    /// `CHUNK_SLOTS` slots each (fewer in a smaller ring), allocated when first needed.
    chunks: Vec<Box<[u8]>>,
    slots_max: usize,
    head: u64,
    oldest: u64,
}

impl<M: Copy> PacketRing<M> {
    /// An empty ring that allocates nothing yet and grows to at most `slots_max` packets, rounded up
    /// to a power of two.
    #[must_use]
    pub fn new(slots_max: usize) -> Self {
        Self {
            entries: Vec::new(),
            chunks: Vec::new(),
            slots_max: slots_max.next_power_of_two(),
            head: 0,
            oldest: 0,
        }
    }

    /// A value of it, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        self.entry(self.head).map_or(0, |entry| entry.slot)
    }

    /// The index that the next packet will have.
    #[must_use]
    pub fn head(&self) -> PacketIndex {
        PacketIndex(self.head)
    }

    /// The index of the oldest packet still held; [`head`](Self::head) when there is none.
    #[must_use]
    pub fn oldest(&self) -> PacketIndex {
        PacketIndex(self.oldest)
    }

    /// Bytes allocated.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.len()).sum();
        chunks + self.entries.capacity() * size_of::<Entry<M>>()
    }

    /// How many packets it can hold now.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.entries.len()
    }

    /// The packet with `index`: metadata and payload. `None` when it is not yet, or no longer, held.
    #[must_use]
    pub fn get(&self, index: PacketIndex) -> Option<(&M, &[u8])> {
        let (entry, packet) = self.packet(index)?;
        let range = usize::from(packet.start)..usize::from(packet.end);
        Some((&packet.meta, self.slot_bytes(entry.slot)?.get(range)?))
    }

    /// What is known of the packet added last.
    #[must_use]
    pub fn newest(&self) -> Option<&M> {
        let (_, packet) = self.packet(PacketIndex(self.head.checked_sub(1)?))?;
        Some(&packet.meta)
    }

    /// As [`get`](Self::get), with the padding that [`pad`](Self::pad) put behind the payload.
    #[must_use]
    pub fn padded(&self, index: PacketIndex) -> Option<(&M, Padded<'_>)> {
        let (entry, packet) = self.packet(index)?;
        let end = usize::from(packet.end) + usize::from(packet.padding);
        let bytes = self.slot_bytes(entry.slot)?.get(usize::from(packet.start)..end)?;
        let Packet { arrival, padding, .. } = *packet;
        Some((&packet.meta, Padded { bytes, padding, arrival }))
    }

    /// Hands the packet to `read` while its first [`HEAD_BYTES`] are what `rewrite` makes of them;
    /// then they are again what they were. `None` when it is not held.
    pub fn rewritten<R>(
        &mut self,
        index: PacketIndex,
        rewrite: impl FnOnce(&mut [u8]),
        read: impl FnOnce(&M, Padded<'_>) -> R,
    ) -> Option<R> {
        let (slot, packet) = self.packet(index).map(|(entry, packet)| (entry.slot, *packet))?;
        let Packet { meta, arrival, start, end, padding } = packet;
        let range = usize::from(start)..usize::from(end) + usize::from(padding);
        let bytes = self.slot_bytes_mut(slot)?.get_mut(range)?;
        let len = HEAD_BYTES.min(usize::from(end - start));
        let mut kept = [0; HEAD_BYTES];
        kept.get_mut(..len)?.copy_from_slice(bytes.get(..len)?);
        rewrite(bytes.get_mut(..len)?);
        let outcome = read(&meta, Padded { bytes, padding, arrival });
        bytes.get_mut(..len)?.copy_from_slice(kept.get(..len)?);
        Some(outcome)
    }

    /// Puts `padding` bytes behind the payload of a packet, written once for all who send it. False,
    /// and nothing changed, when it is not held, has padding already, or its slot has no room. To be
    /// called before anybody sends the packet: one number must not go out with different bytes.
    pub fn pad(&mut self, index: PacketIndex, padding: u8) -> bool {
        let Some((entry, packet)) = self.packet(index) else { return false };
        let (slot, end) = (entry.slot, usize::from(packet.end));
        if packet.padding > 0 {
            return false;
        }
        let space = self.slot_bytes_mut(slot).and_then(|bytes| {
            let space = bytes.get_mut(end..)?.get_mut(..usize::from(padding))?;
            space.fill(0);
            space.last_mut()
        });
        let Some(last) = space else { return false };
        *last = padding;
        let at = position(index.0, self.entries.len());
        let entry = at.and_then(|at| self.entries.get_mut(at));
        let Some(packet) = entry.and_then(|entry| entry.packet.as_mut()) else { return false };
        packet.padding = padding;
        true
    }

    /// When the packet with `index` arrived.
    #[must_use]
    pub fn arrival(&self, index: PacketIndex) -> Option<Instant> {
        Some(self.packet(index)?.1.arrival)
    }

    /// The slot of the next packet, which came at `arrival`, to be written and committed. The oldest
    /// packet gives up its place when the ring is full and may not grow, whether the slot is
    /// committed or not.
    pub fn push_slot(&mut self, arrival: Instant) -> RingSlot<'_, M> {
        if self.is_full() && self.may_grow(arrival) {
            self.grow();
        }
        if self.is_full() {
            self.oldest += 1;
        }
        let slot = self.entry(self.head).map_or(0, |entry| entry.slot);
        self.allocate(slot);
        RingSlot { ring: self, slot, arrival }
    }

    /// Forgets all packets and frees their memory; indices go on from where they were.
    pub fn clear(&mut self) {
        self.entries = Vec::new();
        self.chunks = Vec::new();
        self.oldest = self.head;
    }

    fn is_full(&self) -> bool {
        usize::try_from(self.head - self.oldest).is_ok_and(|held| held >= self.entries.len())
    }

    fn may_grow(&self, now: Instant) -> bool {
        self.entries.len() < self.slots_max
            && self
                .arrival(self.oldest())
                .is_none_or(|arrival| now.saturating_duration_since(arrival) < RING_SPAN)
    }

    /// Doubles the entries. The packets keep their slots and go to where their index now belongs.
    fn grow(&mut self) {
        let len = (self.entries.len() * 2).max(CHUNK_SLOTS).min(self.slots_max);
        // The slots in use, oldest packet first, then the new ones; in a full ring that is an order
        // of all slots from the entry of the oldest packet on.
        let mut entries: Vec<Entry<M>> = Vec::with_capacity(len);
        entries.extend((self.oldest..self.head).filter_map(|index| self.entry(index)));
        entries.extend((entries.len()..len).map(|slot| Entry { slot, packet: None }));
        let offset = position(self.oldest, len).unwrap_or_default();
        entries.rotate_right(offset);
        self.entries = entries;
    }

    /// Makes sure that `slot` has bytes.
    fn allocate(&mut self, slot: usize) {
        let chunk_slots = CHUNK_SLOTS.min(self.slots_max);
        while self.chunks.len() <= slot / CHUNK_SLOTS {
            self.chunks.push(vec![0; chunk_slots * SLOT_BYTES].into_boxed_slice());
        }
    }

    fn entry(&self, index: u64) -> Option<Entry<M>> {
        self.entries.get(position(index, self.entries.len())?).copied()
    }

    fn packet(&self, index: PacketIndex) -> Option<(&Entry<M>, &Packet<M>)> {
        if !(self.oldest..self.head).contains(&index.0) {
            return None;
        }
        let entry = self.entries.get(position(index.0, self.entries.len())?)?;
        Some((entry, entry.packet.as_ref()?))
    }

    fn slot_bytes(&self, slot: usize) -> Option<&[u8]> {
        let start = slot % CHUNK_SLOTS * SLOT_BYTES;
        self.chunks.get(slot / CHUNK_SLOTS)?.get(start..start + SLOT_BYTES)
    }

    fn slot_bytes_mut(&mut self, slot: usize) -> Option<&mut [u8]> {
        let start = slot % CHUNK_SLOTS * SLOT_BYTES;
        self.chunks.get_mut(slot / CHUNK_SLOTS)?.get_mut(start..start + SLOT_BYTES)
    }
}

/// The entry of `index` among `len`, a power of two.
fn position(index: u64, len: usize) -> Option<usize> {
    let mask = u64::try_from(len).ok()?.checked_sub(1)?;
    usize::try_from(index & mask).ok()
}

/// The slot of a packet about to be; dropped without [`commit`](Self::commit), nothing was added.
#[derive(Debug)]
pub struct RingSlot<'a, M> {
    ring: &'a mut PacketRing<M>,
    slot: usize,
    arrival: Instant,
}

impl<M: Copy> RingSlot<'_, M> {
    /// Its [`SLOT_BYTES`] bytes, holding what an older packet left.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.ring.slot_bytes(self.slot).unwrap_or_default()
    }

    /// Its [`SLOT_BYTES`] bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.ring.slot_bytes_mut(self.slot).unwrap_or_default()
    }

    /// Adds the packet whose payload is the first `len` bytes.
    pub fn commit(self, meta: M, len: usize) -> PacketIndex {
        self.commit_range(meta, 0..len)
    }

    /// Adds the packet whose payload is `range` of the bytes (RTX: behind the original sequence
    /// number), cut to the slot.
    pub fn commit_range(self, meta: M, range: Range<usize>) -> PacketIndex {
        let bound = |at: usize| u16::try_from(at.min(SLOT_BYTES)).unwrap_or(u16::MAX);
        let (start, end) = (bound(range.start), bound(range.end));
        let (arrival, start) = (self.arrival, start.min(end));
        let packet = Packet { meta, arrival, start, end, padding: 0 };
        let head = self.ring.head;
        if let Some(at) = position(head, self.ring.entries.len())
            && let Some(entry) = self.ring.entries.get_mut(at)
        {
            entry.packet = Some(packet);
        }
        self.ring.head += 1;
        PacketIndex(head)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::test_instant as epoch;

    fn push(ring: &mut PacketRing<u64>, now: Instant, number: u64) -> PacketIndex {
        let mut slot = ring.push_slot(now);
        slot.bytes_mut()[..8].copy_from_slice(&number.to_be_bytes());
        slot.commit(number, 8)
    }

    #[test]
    fn a_packet_is_rewritten_for_one_reader_only() {
        let mut ring = PacketRing::new(64);
        let mut indices = Vec::new();
        for len in [3, 20] {
            let mut slot = ring.push_slot(epoch());
            slot.bytes_mut()[..len].fill(7);
            indices.push(slot.commit(len, len));
        }
        ring.pad(indices[1], 2);
        for index in indices {
            let padded = ring.padded(index).unwrap().1.bytes.to_vec();
            let seen = ring.rewritten(
                index,
                |head| head.fill(9),
                |len, payload| (*len, payload.bytes.to_vec(), payload.padding),
            );
            let (len, bytes, padding) = seen.unwrap();
            let head = len.min(HEAD_BYTES);
            assert_eq!((&bytes[..head], &bytes[head..]), (&[9; 8][..head], &padded[head..]));
            assert_eq!(bytes.len(), len + usize::from(padding));
            assert_eq!(ring.padded(index).unwrap().1.bytes, padded, "as it was");
        }
        assert!(ring.rewritten(PacketIndex::new(2), |_| (), |_, _| ()).is_none());
    }

    #[test]
    fn a_slot_holds_the_largest_datagram_in_whole_cache_lines() {
        assert_eq!(SLOT_BYTES, 1472);
        let mut ring = PacketRing::new(64);
        let slot = ring.push_slot(epoch());
        assert_eq!(slot.bytes().len(), SLOT_BYTES);
        let index = slot.commit((), SLOT_BYTES);
        assert_eq!(ring.get(index).unwrap().1.len(), SLOT_BYTES);
    }

    #[test]
    fn a_new_ring_has_no_memory_and_no_packet() {
        let ring = PacketRing::<u64>::new(1024);
        assert_eq!((ring.bytes(), ring.slots()), (0, 0));
        assert_eq!(ring.head(), ring.oldest());
        assert!(ring.get(ring.head()).is_none());
        assert!(ring.get(PacketIndex::new(u64::MAX)).is_none());
    }

    #[test]
    fn it_grows_to_a_second_of_packets_and_no_further() {
        for (interval_ms, slots_max, slots) in [
            (40, 1024, 32),
            (20, 64, 64),
            (20, 1024, 64),
            (10, 1024, 128),
            (1, 1024, 1024),
            (1, 64, 64),
        ] {
            let mut ring = PacketRing::new(slots_max);
            let epoch = epoch();
            let mut grown = 0;
            for number in 0..5_000 {
                let now = epoch + Duration::from_millis(number * interval_ms);
                push(&mut ring, now, number);
                if number == 2_100 {
                    grown = ring.bytes();
                }
            }
            assert_eq!(ring.slots(), slots, "a packet every {interval_ms} ms");
            assert_eq!(ring.bytes(), grown, "nothing allocated at a steady rate");
            assert!(ring.bytes() >= slots * SLOT_BYTES);
            assert!(ring.bytes() < slots * (SLOT_BYTES + 128));
            let held = ring.head().number() - ring.oldest().number();
            assert_eq!(held, slots as u64);
        }
    }

    #[test]
    fn a_slot_that_is_not_committed_costs_at_most_the_oldest_packet() {
        let mut ring = PacketRing::new(32);
        let now = epoch();
        for number in 0..40 {
            push(&mut ring, now, number);
        }
        let head = ring.head();
        for _ in 0..100 {
            ring.push_slot(now).bytes_mut().fill(0xff);
        }
        assert_eq!(ring.head(), head);
        assert_eq!(ring.oldest(), PacketIndex::new(9));
        for number in 9..40 {
            let (meta, payload) = ring.get(PacketIndex::new(number)).unwrap();
            assert_eq!((*meta, payload), (number, &number.to_be_bytes()[..]));
        }
        assert_eq!(push(&mut ring, now, 40), head);
        assert_eq!(*ring.get(head).unwrap().0, 40);
    }

    #[test]
    fn a_payload_may_begin_behind_a_prefix_and_is_cut_to_the_slot() {
        let mut ring = PacketRing::new(8);
        let now = epoch();
        for (range, payload) in
            [(2..5, 2..5), (3..3, 3..3), (1470..1480, 1470..1472), (9000..9001, 1472..1472)]
        {
            let mut slot = ring.push_slot(now);
            let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(SLOT_BYTES).collect();
            slot.bytes_mut().copy_from_slice(&bytes);
            let index = slot.commit_range((), range);
            assert_eq!(ring.get(index).unwrap().1, &bytes[payload]);
            assert_eq!(ring.arrival(index), Some(now));
        }
    }

    #[test]
    fn a_cleared_ring_has_no_memory_and_goes_on_counting() {
        let mut ring = PacketRing::new(64);
        for number in 0..100 {
            push(&mut ring, epoch(), number);
        }
        ring.clear();
        assert_eq!(
            (ring.bytes(), ring.head(), ring.oldest()),
            (0, PacketIndex(100), PacketIndex(100))
        );
        assert!(ring.get(PacketIndex::new(99)).is_none());
        assert_eq!(push(&mut ring, epoch(), 100).number(), 100);
        assert_eq!(*ring.get(PacketIndex::new(100)).unwrap().0, 100);
    }

    proptest! {
        #[test]
        fn every_packet_held_is_whole_whatever_the_rate(
            slots_max in prop::sample::select(vec![1usize, 2, 16, 32, 64, 256]),
            steps in prop::collection::vec((0u64..60, 1usize..40, any::<bool>()), 1..60),
        ) {
            let mut ring = PacketRing::new(slots_max);
            let epoch = epoch();
            let (mut now, mut number) = (epoch, 0);
            for (interval_ms, packets, forged) in steps {
                for _ in 0..packets {
                    now += Duration::from_millis(interval_ms);
                    if forged {
                        ring.push_slot(now).bytes_mut().fill(0xee);
                    }
                    prop_assert_eq!(push(&mut ring, now, number).number(), number);
                    number += 1;
                }
                let (oldest, head) = (ring.oldest().number(), ring.head().number());
                prop_assert_eq!(head, number);
                prop_assert!(ring.slots() <= slots_max);
                prop_assert!(head - oldest <= ring.slots() as u64);
                prop_assert!(head > oldest);
                for index in oldest..head {
                    let (meta, payload) = ring.get(PacketIndex::new(index)).unwrap();
                    prop_assert_eq!(*meta, index);
                    prop_assert_eq!(payload, &index.to_be_bytes());
                }
                prop_assert!(oldest == 0 || ring.get(PacketIndex::new(oldest - 1)).is_none());
                prop_assert!(ring.get(ring.head()).is_none());
                // What was given up was old, or the ring is as large as it may be.
                if ring.slots() < slots_max && oldest > 0 && !forged {
                    prop_assert!(now.duration_since(epoch) >= Duration::from_secs(1));
                }
            }
        }
    }
}
