//! Where endpoints live: which worker, and which place of it. Places are used again.
//!
//! Shared by the threads that join and leave; a number goes back only after the order to close its
//! endpoint has been sent, so the order that opens the next one comes behind it.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::worker::{Order, Worker};

/// All homes of a run.
#[derive(Debug)]
pub(crate) struct Homes {
    workers: Vec<Sender<Order>>,
    next: AtomicUsize,
    give: Sender<usize>,
    given: Receiver<usize>,
}

/// One home.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Home<'a> {
    number: usize,
    worker: &'a Sender<Order>,
    /// The place at its worker.
    pub(crate) place: usize,
}

impl Home<'_> {
    /// Hands its worker an order; without effect on a worker that has ended.
    pub(crate) fn order(&self, order: Order) {
        let _ = self.worker.send(order);
    }
}

impl Homes {
    /// Homes at some workers.
    pub(crate) fn new(workers: &[Worker]) -> Self {
        let (give, given) = unbounded();
        let workers = workers.iter().map(Worker::orders).collect();
        Self { workers, next: 0.into(), give, given }
    }

    /// An empty home, at the workers in turn.
    pub(crate) fn take(&self) -> Result<Home<'_>, String> {
        let number =
            self.given.try_recv().unwrap_or_else(|_| self.next.fetch_add(1, Ordering::Relaxed));
        let workers = self.workers.len().max(1);
        let worker = self.workers.get(number % workers).ok_or("no generator threads")?;
        Ok(Home { number, worker, place: number / workers })
    }

    /// Takes a home back whose endpoint has been ordered to close.
    pub(crate) fn give_back(&self, home: Home<'_>) {
        let _ = self.give.send(home.number);
    }
}
