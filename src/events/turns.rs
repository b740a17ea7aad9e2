//! Turns of readers to write.
//!
//! All readers of a node share them, on the control thread. An event wakes every reader of its room at
//! once, and each write takes some microseconds of the thread on which requests are answered, too: of
//! thousands of readers in a row, some ten milliseconds. Invariant: between two looks at what else
//! there is to do, no more than [`EVENT_TURN_WRITES`] readers write.

use tokio::sync::Semaphore;
use tokio::task::yield_now;

use crate::limits::EVENT_TURN_WRITES;

/// The turns of all readers. Each reader holds it, and so is counted.
#[derive(Debug)]
pub struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(EVENT_TURN_WRITES))
    }
}

impl Turns {
    /// Waits for one's turn: who comes back from here writes at once, and waits for nothing before.
    ///
    /// The place in the turn is given on only behind what came in meanwhile, and before the write:
    /// a reader whose connection takes nothing holds up nobody.
    pub async fn mine(&self) {
        // Never closed.
        let place = self.0.acquire().await;
        yield_now().await;
        drop(place);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::Poll;

    use tokio::sync::Notify;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    const READERS: usize = 1_000;

    /// Readers that are woken at once, and a request that comes in when the first of them writes: how
    /// many write before it is answered, and how many in all.
    async fn written_before_a_request(turns: Option<Rc<Turns>>) -> (usize, usize) {
        let happened = Rc::new(Notify::new());
        let [waiting, written] = [0, 0].map(|count| Rc::new(Cell::new(count)));
        let before = Rc::new(Cell::new(None));
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let (happened, waiting) = (Rc::clone(&happened), Rc::clone(&waiting));
                let (turns, written) = (turns.clone(), Rc::clone(&written));
                let before = Rc::clone(&before);
                spawn_local(async move {
                    waiting.set(waiting.get() + 1);
                    happened.notified().await;
                    if let Some(turns) = turns {
                        turns.mine().await;
                    }
                    if written.replace(written.get() + 1) == 0 {
                        spawn_local(async move { before.set(Some(written.get())) });
                    }
                })
            })
            .collect();
        while waiting.get() < READERS {
            yield_now().await;
        }
        happened.notify_waiters();
        for reader in readers {
            reader.await.unwrap();
        }
        (before.get().unwrap(), written.get())
    }

    #[tokio::test]
    async fn a_request_waits_for_one_turn_of_readers_and_not_for_all_of_them() {
        let (before, all) = LocalSet::new().run_until(written_before_a_request(None)).await;
        assert_eq!((before, all), (READERS, READERS), "without turns");
        let turns = Some(Rc::new(Turns::default()));
        let (before, all) = LocalSet::new().run_until(written_before_a_request(turns)).await;
        assert!(before <= 2 * EVENT_TURN_WRITES, "{before} readers wrote before the request");
        assert_eq!(all, READERS);
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_while_it_waits_keeps_no_place() {
        let turns = Turns::default();
        for _ in 0..10 * EVENT_TURN_WRITES {
            let mut waits = pin!(turns.mine());
            let is_pending = poll_fn(|context| Poll::Ready(waits.as_mut().poll(context)));
            assert!(is_pending.await.is_pending());
        }
        turns.mine().await;
    }
}
