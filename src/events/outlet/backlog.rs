//! What an outlet has been given and not yet delivered, in order.
//!
//! Owned by one outlet's thread. A window in memory holds the oldest messages, sent or about to be;
//! what does not fit goes to the spool behind it, where there is one, and what stays in the window
//! for a while is kept there too, for the next process should this one be killed. Invariants: messages are
//! taken in the order in which they were pushed; one that was taken stays until it is done with;
//! window and spool are bounded.

use std::collections::VecDeque;

use super::message::Message;
use super::spool::{SegmentNumber, Spool, SpoolError};
use crate::limits::{OUTLET_WINDOW, OUTLET_WINDOW_BYTES_MAX};

/// Names a message of the backlog, in order.
pub type Number = u64;

#[derive(Debug)]
struct Slot {
    message: Message,
    /// What keeps it on disk.
    segment: Option<SegmentNumber>,
    done: bool,
}

/// Messages between acceptance and delivery.
#[derive(Debug, Default)]
pub struct Backlog {
    window: VecDeque<Slot>,
    /// Number of the first message of the window.
    first: Number,
    /// Position in the window of the first message that was not taken.
    next: usize,
    done: usize,
    bytes: usize,
    /// Number of the first message that was not there when the window was last kept.
    seen: Number,
    spool: Option<Spool>,
}

impl Backlog {
    /// What a spool holds from earlier, or nothing.
    #[must_use]
    pub fn new(spool: Option<Spool>) -> Self {
        Self { spool, ..Self::default() }
    }

    /// Messages not done with.
    #[must_use]
    pub fn len(&self) -> usize {
        self.window.len() - self.done + self.spool.as_ref().map_or(0, Spool::len)
    }

    /// True when everything is done with.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Messages taken and not done with.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.window.iter().take(self.next).filter(|slot| !slot.done).count()
    }

    /// Whether a message that is pushed is kept, as far as that is known without a look at the disk.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.spool.is_some() || has_room(&self.window, self.bytes)
    }

    /// Bytes on disk.
    #[must_use]
    pub fn spooled_bytes(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::bytes)
    }

    /// Puts a message behind all others.
    ///
    /// # Errors
    /// When window and spool are full, or the disk refuses: the message is lost.
    pub fn push(&mut self, message: Message) -> Result<(), SpoolError> {
        if !has_room(&self.window, self.bytes) {
            // Before what follows it on disk; where that fails it is still in memory.
            let _ = self.keep_before(self.end());
        }
        match &mut self.spool {
            Some(spool) if !spool.is_empty() || !has_room(&self.window, self.bytes) => {
                spool.append(&message)
            }
            None if !has_room(&self.window, self.bytes) => Err(SpoolError::Absent),
            _ => {
                self.admit(message, None);
                Ok(())
            }
        }
    }

    /// Keeps on disk what was in the window at the last call already and is not done with; without
    /// a spool nothing.
    ///
    /// # Errors
    /// When the disk refuses: what it did not take is in memory alone, and tried again.
    pub fn keep(&mut self) -> Result<(), SpoolError> {
        let end = self.end();
        let before = std::mem::replace(&mut self.seen, end);
        self.keep_before(before)
    }

    fn keep_before(&mut self, number: Number) -> Result<(), SpoolError> {
        let Some(spool) = self.spool.as_mut().filter(|spool| spool.is_empty()) else {
            return Ok(());
        };
        let old = number.saturating_sub(self.first);
        let old = usize::try_from(old).unwrap_or(usize::MAX);
        let slots = self.window.iter_mut().take(old);
        for slot in slots.filter(|slot| !slot.done && slot.segment.is_none()) {
            slot.segment = Some(spool.keep(&slot.message)?);
        }
        Ok(())
    }

    /// Number of the message that comes next into the window.
    fn end(&self) -> Number {
        self.first + u64::try_from(self.window.len()).unwrap_or(u64::MAX)
    }

    fn admit(&mut self, message: Message, segment: Option<SegmentNumber>) {
        self.bytes += message.size();
        self.window.push_back(Slot { message, segment, done: false });
    }

    /// The oldest message that was not taken yet.
    pub fn take(&mut self) -> Option<(Number, Message)> {
        self.refill();
        while self.window.get(self.next)?.done {
            self.next += 1;
        }
        let slot = self.window.get(self.next)?;
        let number = self.first + u64::try_from(self.next).unwrap_or(u64::MAX);
        self.next += 1;
        Some((number, slot.message.clone()))
    }

    /// Gives back the message that was taken last.
    pub fn untake(&mut self) {
        self.next = self.next.saturating_sub(1);
    }

    /// Everything that was taken and is not done with will be taken again.
    pub fn rewind(&mut self) {
        self.next = 0;
    }

    fn refill(&mut self) {
        while has_room(&self.window, self.bytes) {
            let Some((message, segment)) = self.spool.as_mut().and_then(Spool::take) else {
                return;
            };
            self.admit(message, Some(segment));
        }
    }

    /// A message that was taken is delivered, or given up. What is done already stays so.
    pub fn done(&mut self, number: Number) {
        let position = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let slot = position.and_then(|at| self.window.get_mut(at));
        let Some(slot) = slot.filter(|slot| !slot.done) else { return };
        slot.done = true;
        self.done += 1;
        let mut released = false;
        while self.window.front().is_some_and(|slot| slot.done) {
            if let Some(slot) = self.window.pop_front() {
                self.bytes -= slot.message.size();
                released |= slot.segment.is_some();
            }
            self.done -= 1;
            self.first += 1;
            self.next = self.next.saturating_sub(1);
        }
        if let (true, Some(spool)) = (released, &mut self.spool) {
            spool.release_before(self.window.iter().find_map(|slot| slot.segment));
        }
    }

    /// Ends: what is not done goes to disk.
    ///
    /// # Errors
    /// How many messages are lost, and why, because there is no spool or the disk refuses.
    pub fn close(self) -> Result<(), (usize, SpoolError)> {
        let left = self.window.iter().filter(|slot| !slot.done).map(|slot| &slot.message);
        let in_memory = left.clone().count();
        match self.spool {
            Some(spool) => spool.restore(left).map_err(|error| (in_memory, error.into())),
            None if in_memory > 0 => Err((in_memory, SpoolError::Absent)),
            None => Ok(()),
        }
    }
}

fn has_room(window: &VecDeque<Slot>, bytes: usize) -> bool {
    window.len() < OUTLET_WINDOW && bytes < OUTLET_WINDOW_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::message;
    use super::super::spool::tests::Folder;
    use super::*;

    fn push(backlog: &mut Backlog, numbers: std::ops::RangeInclusive<u64>) {
        numbers.for_each(|seq| backlog.push(message(seq, "{}")).unwrap());
    }

    /// Takes all that can be taken.
    fn take(backlog: &mut Backlog) -> Vec<(Number, u64)> {
        std::iter::from_fn(|| backlog.take()).map(|(number, m)| (number, m.id.seq)).collect()
    }

    fn seqs(taken: &[(Number, u64)]) -> Vec<u64> {
        taken.iter().map(|(_, seq)| *seq).collect()
    }

    #[test]
    fn messages_are_taken_in_order_and_again_after_a_failure_unless_done() {
        let mut backlog = Backlog::default();
        push(&mut backlog, 1..=5);
        let taken = take(&mut backlog);
        assert_eq!(seqs(&taken), [1, 2, 3, 4, 5]);
        for position in [0, 2, 2] {
            backlog.done(taken[position].0);
        }
        assert_eq!((backlog.len(), backlog.under_way()), (3, 3));
        backlog.rewind();
        push(&mut backlog, 6..=6);
        assert_eq!(seqs(&take(&mut backlog)), [2, 4, 5, 6]);
        backlog.untake();
        assert_eq!(seqs(&take(&mut backlog)), [6]);
    }

    #[test]
    fn what_does_not_fit_into_memory_goes_to_disk_and_comes_back_in_order() {
        let folder = Folder::new("backlog-order");
        let mut backlog = Backlog::new(Some(folder.open()));
        let all = u64::try_from(OUTLET_WINDOW).unwrap() * 2 + 7;
        push(&mut backlog, 1..=all);
        assert_eq!(backlog.len(), usize::try_from(all).unwrap());
        assert!(backlog.spooled_bytes() > 0);
        let mut seen = Vec::new();
        loop {
            let taken = take(&mut backlog);
            if taken.is_empty() {
                break;
            }
            // The second half first, to have holes.
            let (early, late) = taken.split_at(taken.len() / 2);
            late.iter().chain(early).for_each(|(number, _)| backlog.done(*number));
            seen.extend(seqs(&taken));
        }
        assert_eq!(seen, (1..=all).collect::<Vec<_>>());
        assert!(backlog.is_empty());
        assert_eq!(backlog.spooled_bytes(), 0, "files are gone");
    }

    #[test]
    fn without_a_spool_it_is_full_at_its_bounds() {
        let mut backlog = Backlog::default();
        push(&mut backlog, 1..=u64::try_from(OUTLET_WINDOW).unwrap());
        assert!(backlog.push(message(0, "{}")).is_err());
        let (number, _) = backlog.take().unwrap();
        backlog.done(number);
        push(&mut backlog, 1..=1);
        let long: &'static str = "x".repeat(OUTLET_WINDOW_BYTES_MAX).leak();
        let mut backlog = Backlog::default();
        backlog.push(message(1, long)).unwrap();
        assert!(backlog.push(message(2, "{}")).is_err());
        assert_eq!(backlog.close().unwrap_err().0, 1, "told as lost");
    }

    #[test]
    fn what_waits_is_on_disk_for_a_process_that_is_killed() {
        let folder = Folder::new("backlog-killed");
        let mut backlog = Backlog::new(Some(folder.open()));
        push(&mut backlog, 1..=3);
        backlog.keep().unwrap();
        assert_eq!(backlog.spooled_bytes(), 0, "it has not waited for long");
        push(&mut backlog, 4..=5);
        let taken = take(&mut backlog);
        backlog.done(taken[1].0);
        backlog.keep().unwrap();
        backlog.keep().unwrap();
        backlog.keep().unwrap();
        push(&mut backlog, 6..=6);
        assert_eq!(backlog.len(), 5);
        // Killed: nothing is closed. What was taken was perhaps not delivered.
        drop(backlog);
        let mut backlog = Backlog::new(Some(folder.open()));
        assert_eq!(seqs(&take(&mut backlog)), [1, 3, 4, 5]);
    }

    #[test]
    fn what_is_kept_goes_with_its_delivery_and_an_end_writes_none_of_it_twice() {
        let folder = Folder::new("backlog-kept");
        let mut backlog = Backlog::new(Some(folder.open()));
        for round in 0..3 {
            push(&mut backlog, round * 10 + 1..=round * 10 + 10);
            backlog.keep().unwrap();
            backlog.keep().unwrap();
            assert!(backlog.spooled_bytes() > 0);
            let taken = take(&mut backlog);
            let (last, others) = taken.split_last().unwrap();
            others.iter().for_each(|(number, _)| backlog.done(*number));
            assert!(backlog.spooled_bytes() > 0);
            backlog.done(last.0);
            assert_eq!(backlog.spooled_bytes(), 0, "files are gone");
        }
        push(&mut backlog, 31..=34);
        backlog.keep().unwrap();
        backlog.keep().unwrap();
        push(&mut backlog, 35..=35);
        let (number, _) = backlog.take().unwrap();
        backlog.done(number);
        backlog.close().unwrap();
        assert_eq!(seqs(&take(&mut Backlog::new(Some(folder.open())))), [32, 33, 34, 35]);
    }

    #[test]
    fn a_killed_process_loses_nothing_of_a_full_window_and_keeps_its_order() {
        let folder = Folder::new("backlog-full");
        let mut backlog = Backlog::new(Some(folder.open()));
        let all = u64::try_from(OUTLET_WINDOW).unwrap() + 20;
        push(&mut backlog, 1..=all);
        for (number, _) in take(&mut backlog).into_iter().take(30) {
            backlog.done(number);
        }
        // What comes from the disk now is kept by the file that it was in.
        assert_eq!(seqs(&take(&mut backlog)), (all - 19..=all).collect::<Vec<_>>());
        push(&mut backlog, all + 1..=all + 5);
        backlog.keep().unwrap();
        backlog.keep().unwrap();
        drop(backlog);
        let mut backlog = Backlog::new(Some(folder.open()));
        let mut seen = Vec::new();
        while let Some((number, message)) = backlog.take() {
            backlog.done(number);
            seen.push(message.id.seq);
        }
        // A file is kept whole until all of it is done with: some come again.
        assert!(seen[0] <= 31, "{}", seen[0]);
        assert_eq!(seen, (seen[0]..=all + 5).collect::<Vec<_>>());
        assert_eq!(backlog.spooled_bytes(), 0);
    }

    #[test]
    fn the_next_process_goes_on_where_this_one_ended() {
        let folder = Folder::new("backlog-close");
        let mut expected = Vec::new();
        let mut next = 1;
        for round in 0..4 {
            let mut backlog = Backlog::new(Some(folder.open()));
            let more = u64::try_from(OUTLET_WINDOW).unwrap() / 2 + round;
            push(&mut backlog, next..=next + more);
            expected.extend(next..=next + more);
            next += more + 1;
            let some: Vec<_> = (0..100).map_while(|_| backlog.take()).collect();
            for (number, message) in some.iter().take(40) {
                backlog.done(*number);
                assert_eq!(message.id.seq, expected.remove(0));
            }
            backlog.close().unwrap();
        }
        let mut backlog = Backlog::new(Some(folder.open()));
        let mut seen = Vec::new();
        while let Some((number, message)) = backlog.take() {
            backlog.done(number);
            seen.push(message.id.seq);
        }
        assert_eq!(seen, expected);
    }
}
