//! Bounded lock-free queues between threads, with one eventfd per receiving thread to wake it.
//!
//! Owned by the node, which makes the lanes; senders live on any thread, each receiver on one. The
//! only cross-thread primitive of our own. Invariants: a lane never holds more than its capacity; a
//! send never blocks; a receiver that follows [`Waker::prepare_sleep`] never sleeps over an item.
//! It names no runtime: a shard polls the waker's descriptor beside its socket, the control thread
//! gives it to its reactor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rustix::event::{EventfdFlags, eventfd};

/// Wakes one receiving thread, and costs a system call only when that thread sleeps.
///
/// One per receiving thread, shared by all lanes into it. The receiver's loop:
///
/// 1. empty every lane;
/// 2. [`prepare_sleep`](Self::prepare_sleep);
/// 3. look at every lane once more; if one has an item: [`awake`](Self::awake), and to 1;
/// 4. wait until the descriptor is readable (or something else happens);
/// 5. [`awake`](Self::awake), [`drain`](Self::drain) if the descriptor was readable, and to 1.
#[derive(Debug, Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    eventfd: OwnedFd,
    sleeping: AtomicBool,
}

impl Waker {
    /// A waker for one receiving thread.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { shared: Arc::new(Shared { eventfd, sleeping: AtomicBool::new(false) }) })
    }

    /// Ends the receiver's sleep if it sleeps (15–28 µs), else costs a fence.
    pub fn wake(&self) {
        // Pairs with the fence in `prepare_sleep`: either we see that it sleeps, or its second look
        // at the lanes sees what was pushed before this call.
        fence(Ordering::SeqCst);
        if self.shared.sleeping.load(Ordering::Relaxed)
            && self.shared.sleeping.swap(false, Ordering::Relaxed)
        {
            // The counter cannot overflow (one write per sleep), so the only failure is a signal,
            // and an eventfd write that would not block is not interrupted.
            let _ = rustix::io::write(&self.shared.eventfd, &1_u64.to_ne_bytes());
        }
    }

    /// Receiver: announces sleep. Look at every lane once more before waiting.
    pub fn prepare_sleep(&self) {
        self.shared.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Receiver: ends the announced sleep. Never blocks.
    pub fn awake(&self) {
        self.shared.sleeping.store(false, Ordering::Relaxed);
    }

    /// Receiver: makes the descriptor unreadable, after a wait that found it readable.
    ///
    /// Apart from [`awake`](Self::awake), because the flag does not tell whether the descriptor is
    /// readable: a sender that took the flag may write only after the receiver woke for another
    /// reason, and that late write must be taken by the wait that sees it.
    pub fn drain(&self) {
        // Fails only with "would block", when there is nothing to drain.
        let _ = rustix::io::read(&self.shared.eventfd, &mut [0_u8; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.eventfd.as_fd()
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.eventfd.as_raw_fd()
    }
}

/// A lane of at most `capacity` items into the thread of `waker`.
///
/// Promise: items of one sender arrive in order, each once; a full lane refuses at once and gives
/// the item back; memory for all slots is taken here.
#[must_use]
pub fn lane<T>(capacity: usize, waker: &Waker) -> (LaneSender<T>, LaneReceiver<T>) {
    let (sender, receiver) = crossbeam_channel::bounded(capacity.max(1));
    (LaneSender { sender, waker: waker.clone() }, LaneReceiver { receiver })
}

/// The sending end: any thread, any number of clones.
#[derive(Debug)]
pub struct LaneSender<T> {
    sender: Sender<T>,
    waker: Waker,
}

impl<T> Clone for LaneSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), waker: self.waker.clone() }
    }
}

impl<T> LaneSender<T> {
    /// Sends and wakes the receiver if it sleeps.
    ///
    /// # Errors
    /// The item, when the lane is full or its receiver is gone.
    pub fn try_send(&self, item: T) -> Result<(), T> {
        self.push(item)?;
        self.wake();
        Ok(())
    }

    /// Sends without waking: for bursts, of which the last is followed by [`wake`](Self::wake).
    ///
    /// # Errors
    /// The item, when the lane is full or its receiver is gone.
    pub fn push(&self, item: T) -> Result<(), T> {
        self.sender.try_send(item).map_err(|error| match error {
            TrySendError::Full(item) | TrySendError::Disconnected(item) => item,
        })
    }

    /// True while more than half of the lane is free.
    #[must_use]
    pub fn has_much_room(&self) -> bool {
        self.sender.capacity().is_some_and(|capacity| self.sender.len() < capacity.div_ceil(2))
    }

    /// Wakes the receiver if it sleeps.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Items for which there is room. Only the sole sender of a lane may rely on it.
    #[must_use]
    pub fn room(&self) -> usize {
        self.sender.capacity().unwrap_or(usize::MAX).saturating_sub(self.sender.len())
    }
}

/// The receiving end: one thread.
#[derive(Debug)]
pub struct LaneReceiver<T> {
    receiver: Receiver<T>,
}

impl<T> LaneReceiver<T> {
    /// The oldest item, if there is one.
    #[must_use]
    pub fn try_recv(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// True when no item waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn readable(waker: &Waker, milliseconds: i64) -> bool {
        let timeout = Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
        let mut fds = [PollFd::new(waker, PollFlags::IN)];
        poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready == 1)
    }

    #[test]
    fn a_full_lane_gives_the_item_back() {
        let waker = Waker::new().unwrap();
        let (sender, receiver) = lane(2, &waker);
        assert_eq!(sender.room(), 2);
        assert_eq!(
            [sender.try_send(1), sender.try_send(2), sender.try_send(3)],
            [Ok(()), Ok(()), Err(3)]
        );
        assert_eq!((receiver.try_recv(), sender.room()), (Some(1), 1));
        assert_eq!(sender.try_send(4), Ok(()));
        assert_eq!(
            [receiver.try_recv(), receiver.try_recv(), receiver.try_recv()],
            [Some(2), Some(4), None]
        );
    }

    #[test]
    fn a_lane_without_receiver_gives_the_item_back() {
        let waker = Waker::new().unwrap();
        let (sender, receiver) = lane(2, &waker);
        drop(receiver);
        assert_eq!(sender.try_send(1), Err(1));
    }

    #[test]
    fn only_a_sleeping_receiver_is_written_to() {
        let waker = Waker::new().unwrap();
        let (sender, receiver) = lane(8, &waker);
        sender.try_send(1).unwrap();
        assert!(!readable(&waker, 0), "it is awake");

        waker.prepare_sleep();
        assert!(!receiver.is_empty(), "the second look finds what came before");
        sender.try_send(2).unwrap();
        sender.try_send(3).unwrap();
        assert!(readable(&waker, 0));
        waker.awake();
        waker.drain();
        assert!(!readable(&waker, 0));
    }

    #[test]
    fn a_receiver_never_sleeps_over_an_item() {
        const ITEMS: u32 = 20_000;
        let waker = Waker::new().unwrap();
        let (sender, receiver) = lane(4, &waker);
        let other = lane::<u32>(4, &waker);
        let producer = std::thread::spawn(move || {
            for n in 0..ITEMS {
                let mut item = n;
                while let Err(back) = sender.try_send(item) {
                    item = back;
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < ITEMS {
            while let Some(item) = receiver.try_recv() {
                assert_eq!(item, next);
                next += 1;
            }
            waker.prepare_sleep();
            if receiver.is_empty() && other.1.is_empty() && next < ITEMS {
                assert!(readable(&waker, 999), "slept over an item after {next}");
            }
            waker.awake();
            waker.drain();
        }
        producer.join().unwrap();
    }
}
