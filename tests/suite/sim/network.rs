//! A network with delay, jitter (and so reordering), loss and duplication, per direction, and with
//! bottlenecks.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use ringcast::engine::io::Path;

use super::bottleneck::Bottleneck;

/// Losses that come together (Gilbert's model): between bursts nothing is lost, within one all is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bursts {
    /// Chance of a packet to begin a burst, 0–1.
    begin: f64,
    /// Chance of the next packet to be behind the burst, 0–1.
    end: f64,
    within: bool,
}

impl Bursts {
    /// Loses that share of the packets, so many on average one after the other.
    pub(crate) fn new(share: f64, length: f64) -> Self {
        let end = 1.0 / length;
        Self { begin: end * share / (1.0 - share), end, within: false }
    }

    fn is_lost(&mut self, rng: &mut StdRng) -> bool {
        let turn = rng.random_bool(if self.within { self.end } else { self.begin });
        self.within ^= turn;
        self.within
    }
}

/// One direction between a client and the server.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) delay: Duration,
    /// Up to this is added at random: above the distance of packets it reorders them.
    pub(crate) jitter: Duration,
    /// 0–1.
    pub(crate) loss: f64,
    pub(crate) bursts: Option<Bursts>,
    /// 0–1.
    pub(crate) duplication: f64,
    /// What it can carry. Clones share it, as neighbours share their street's cable.
    pub(crate) bottleneck: Option<Rc<RefCell<Bottleneck>>>,
}

impl Link {
    pub(crate) fn new(delay_ms: u64) -> Self {
        Self {
            delay: Duration::from_millis(delay_ms),
            jitter: Duration::ZERO,
            loss: 0.0,
            bursts: None,
            duplication: 0.0,
            bottleneck: None,
        }
    }

    /// The same through a bottleneck.
    pub(crate) fn through(self, bottleneck: Bottleneck) -> Self {
        Self { bottleneck: Some(Rc::new(RefCell::new(bottleneck))), ..self }
    }

    /// When a datagram that is sent now arrives; `None` when it is lost.
    fn carry(&mut self, now: Instant, rng: &mut StdRng, bytes: usize) -> Option<Instant> {
        let is_burst = self.bursts.as_mut().is_some_and(|bursts| bursts.is_lost(rng));
        if rng.random_bool(self.loss) || is_burst {
            return None;
        }
        let leaves = match &self.bottleneck {
            Some(bottleneck) => bottleneck.borrow_mut().pass(now, bytes)?,
            None => now,
        };
        Some(leaves + self.delay + self.jitter.mul_f64(rng.random::<f64>()))
    }
}

/// Where a datagram is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// To the server, over this path.
    Server(Path),
    /// To the client of that seat.
    Seat(usize),
}

#[derive(Debug)]
pub(crate) struct Flight {
    /// When it arrives.
    pub(crate) at: Instant,
    pub(crate) goal: Goal,
    pub(crate) bytes: Vec<u8>,
}

/// All datagrams under way.
#[derive(Debug, Default)]
pub(crate) struct Network {
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
    flights: std::collections::HashMap<u64, Flight>,
    count: u64,
}

impl Network {
    pub(crate) fn send(
        &mut self,
        now: Instant,
        rng: &mut StdRng,
        link: &mut Link,
        goal: Goal,
        bytes: &[u8],
    ) {
        let copies = 1 + usize::from(rng.random_bool(link.duplication));
        for _ in 0..copies {
            if let Some(at) = link.carry(now, rng, bytes.len()) {
                self.deliver_at(at, goal, bytes);
            }
        }
    }

    pub(crate) fn deliver_at(&mut self, at: Instant, goal: Goal, bytes: &[u8]) {
        self.count += 1;
        self.heap.push(Reverse((at, self.count)));
        self.flights.insert(self.count, Flight { at, goal, bytes: bytes.to_vec() });
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next datagram that has arrived by `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Flight> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, number)) = self.heap.pop()?;
        self.flights.remove(&number)
    }
}
