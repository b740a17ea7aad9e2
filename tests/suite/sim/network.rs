//! A network with delay, jitter (and so reordering), loss and duplication, per direction.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use ringcast::engine::io::Path;

/// One direction between a client and the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) delay: Duration,
    /// Up to this is added at random: above the distance of packets it reorders them.
    pub(crate) jitter: Duration,
    /// 0–1.
    pub(crate) loss: f64,
    /// 0–1.
    pub(crate) duplication: f64,
    /// Bits/s; a packet waits for those before it.
    pub(crate) capacity_bps: Option<u32>,
    pub(crate) busy_until: Option<Instant>,
}

impl Link {
    pub(crate) fn new(delay_ms: u64) -> Self {
        Self {
            delay: Duration::from_millis(delay_ms),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
            capacity_bps: None,
            busy_until: None,
        }
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
            if rng.random_bool(link.loss) {
                continue;
            }
            let mut leaves = now;
            if let Some(bps) = link.capacity_bps {
                let takes = bytes.len() as f64 * 8.0 / f64::from(bps);
                leaves = link.busy_until.map_or(now, |busy| busy.max(now))
                    + Duration::from_secs_f64(takes);
                link.busy_until = Some(leaves);
            }
            let jitter = link.jitter.mul_f64(rng.random::<f64>());
            self.deliver_at(leaves + link.delay + jitter, goal, bytes);
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
