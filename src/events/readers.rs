//! The readers of a node, and the thread on which they are written to.
//!
//! An event wakes every reader of its room, and each write is a system call of some ten microseconds:
//! of a thousand readers, some ten milliseconds in which nobody else's request would be answered. So
//! readers have a thread of their own ([`ReaderThread`]), which comes after all others in priority.
//! The control thread gives each event to it once per room (a [`Feed`]), whoever reads there.
//! Invariants: the control thread waits for no reader, nor for a lock that one holds while it writes; a reader gets all that is
//! put into its room's feed after its [`Seat`] was taken, in that order, or its lane ends.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use rustix::process::nice;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::log::Entry;
use crate::limits::{BEHIND_CALLS_NICE, EVENT_READER_QUEUE};

/// All readers of a node.
#[derive(Debug)]
pub struct Readers {
    runtime: Handle,
    seated: AtomicUsize,
    /// Readers disconnected because they were too slow.
    dropped: AtomicU64,
}

impl Readers {
    /// Readers that are written to on `runtime`; nobody yet.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, seated: AtomicUsize::new(0), dropped: AtomicU64::new(0) }
    }

    /// Where they are written to.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seated.load(Ordering::Relaxed)
    }

    /// How many were disconnected because they were too slow, since start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn drop_some(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// A reader's place, in its room and on the node; free again when dropped.
#[derive(Debug)]
pub struct Seat {
    readers: Arc<Readers>,
    room: Arc<AtomicUsize>,
}

impl Seat {
    /// Takes one more; `room` counts those of its room.
    pub(super) fn take(readers: &Arc<Readers>, room: &Arc<AtomicUsize>) -> Arc<Self> {
        readers.seated.fetch_add(1, Ordering::Relaxed);
        room.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { readers: Arc::clone(readers), room: Arc::clone(room) })
    }

    /// Whether whoever took it is still there.
    pub(super) fn is_taken(seat: &Weak<Self>) -> bool {
        seat.strong_count() > 0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.readers.seated.fetch_sub(1, Ordering::Relaxed);
        self.room.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One reader's queue.
type Lane = mpsc::Sender<Arc<Entry>>;

/// What goes through a feed.
#[derive(Debug)]
enum Word {
    /// To everybody there.
    Entry(Arc<Entry>),
    /// One more, who gets what comes behind.
    Reader(Lane),
}

/// The control thread's way to the readers of one room. When it is dropped they end, once they have
/// read what they were given.
#[derive(Debug)]
pub(super) struct Feed {
    words: mpsc::Sender<Word>,
    readers: Arc<Readers>,
}

impl Feed {
    /// One without readers.
    pub(super) fn open(readers: &Arc<Readers>) -> Self {
        let (words, feed) = mpsc::channel(EVENT_READER_QUEUE);
        readers.runtime.spawn(hand_on(feed, Arc::clone(readers)));
        Self { words, readers: Arc::clone(readers) }
    }

    /// One more reads.
    ///
    /// # Errors
    /// Its lane, when so much waits that those before it have to be cut off.
    pub(super) fn seat(&self, lane: Lane) -> Result<(), Lane> {
        match self.words.try_send(Word::Reader(lane)) {
            Err(
                TrySendError::Full(Word::Reader(lane)) | TrySendError::Closed(Word::Reader(lane)),
            ) => Err(lane),
            _ => Ok(()),
        }
    }

    /// Tells its readers; false in the same case.
    pub(super) fn tell(&self, entry: &Arc<Entry>) -> bool {
        self.words.try_send(Word::Entry(Arc::clone(entry))).is_ok()
    }

    /// Ends its readers, so many, because their thread does not keep up.
    pub(super) fn cut_off(self, count: usize) {
        tracing::warn!(readers = count, "readers of events disconnected: their thread is behind");
        self.readers.drop_some(count);
    }
}

/// Gives what comes to each reader's lane; a reader whose lane is full is let go of.
async fn hand_on(mut feed: mpsc::Receiver<Word>, readers: Arc<Readers>) {
    let mut lanes: Vec<Lane> = Vec::new();
    while let Some(word) = feed.recv().await {
        match word {
            Word::Reader(lane) => {
                if lanes.len() == lanes.capacity() {
                    lanes.retain(|lane| !lane.is_closed());
                }
                lanes.push(lane);
            }
            Word::Entry(entry) => lanes.retain(|lane| match lane.try_send(Arc::clone(&entry)) {
                Ok(()) => true,
                Err(TrySendError::Closed(_)) => false,
                Err(TrySendError::Full(_)) => {
                    tracing::debug!("slow event reader disconnected");
                    readers.drop_some(1);
                    false
                }
            }),
        }
    }
}

/// The thread on which a node's readers are written to.
#[derive(Debug)]
pub struct ReaderThread {
    runtime: Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ReaderThread {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread or no descriptors.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("readers".to_owned()).spawn(move || {
            // On Linux, of this thread alone.
            if let Err(error) = nice(BEHIND_CALLS_NICE) {
                tracing::warn!(%error, "readers of events do not come after calls in priority");
            }
            // Told to stop, or whoever would tell is gone.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { runtime: handle, stop, thread })
    }

    /// Where tasks of readers are put.
    #[must_use]
    pub fn runtime(&self) -> Handle {
        self.runtime.clone()
    }

    /// Ends it, and with it all who still read.
    pub fn stop(self) {
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("panic on the readers' thread");
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn readers_have_a_thread_that_comes_after_all_others() {
        let thread = ReaderThread::start().unwrap();
        let (told, tell) = std::sync::mpsc::channel();
        thread.runtime().spawn(async move {
            let name = std::thread::current().name().map(str::to_owned);
            told.send((name, getpriority_process(None).unwrap())).unwrap();
        });
        let (name, priority) = tell.recv().unwrap();
        assert_eq!(name.as_deref(), Some("readers"));
        let own = getpriority_process(None).unwrap();
        assert_eq!(priority, (own + BEHIND_CALLS_NICE).min(19), "{own} here");
        thread.stop();
    }
}
