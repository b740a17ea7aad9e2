//! What a link can carry: so many bits a second with a queue in front of them, or with none
//! (a policer), changing at given moments.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What becomes of packets that come faster than they can leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// They wait, and behind so many bytes they are dropped (tail drop).
    Queued(usize),
    /// They are dropped at once, but for bursts of so many bytes (a token bucket without a queue).
    Policed(usize),
}

/// A bottleneck. Bytes are those of datagrams, without IP and UDP.
#[derive(Debug)]
pub(crate) struct Bottleneck {
    /// Bits/s from each moment on, in order; the first since ever.
    rates: Vec<(Instant, u64)>,
    excess: Excess,
    /// What is queued: when it leaves, and its bytes.
    queue: VecDeque<(Instant, usize)>,
    queued: usize,
    /// When the last packet queued has left.
    busy_until: Option<Instant>,
    /// Bytes that a policer lets pass, and when that was so.
    tokens: (f64, Option<Instant>),
    /// When each packet came that passed, how long it took (its own bits included), and its bytes.
    pub(crate) passed: Vec<(Instant, Duration, usize)>,
    /// When each packet came that was dropped.
    pub(crate) dropped: Vec<Instant>,
}

impl Bottleneck {
    /// A steady one. `now` is any moment before the first packet.
    pub(crate) fn new(now: Instant, bps: u64, excess: Excess) -> Self {
        Self::stepped(vec![(now, bps)], excess)
    }

    /// One whose rate changes; not empty.
    pub(crate) fn stepped(rates: Vec<(Instant, u64)>, excess: Excess) -> Self {
        let tokens = match excess {
            Excess::Policed(burst) => burst as f64,
            Excess::Queued(_) => 0.0,
        };
        Self {
            rates,
            excess,
            queue: VecDeque::new(),
            queued: 0,
            busy_until: None,
            tokens: (tokens, None),
            passed: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// When a packet that comes now has left; `None` when it is dropped.
    pub(crate) fn pass(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let leaves = match self.excess {
            Excess::Queued(limit) => self.queue_up(now, bytes, limit),
            Excess::Policed(burst) => self.police(now, bytes, burst).then_some(now),
        };
        match leaves {
            Some(leaves) => self.passed.push((now, leaves - now, bytes)),
            None => self.dropped.push(now),
        }
        leaves
    }

    fn queue_up(&mut self, now: Instant, bytes: usize, limit: usize) -> Option<Instant> {
        while let Some((_, left)) = self.queue.front().filter(|(leaves, _)| *leaves <= now) {
            self.queued -= left;
            self.queue.pop_front();
        }
        if self.queued + bytes > limit {
            return None;
        }
        let begins = self.busy_until.map_or(now, |busy| busy.max(now));
        let leaves = self.sent_at(begins, bytes);
        self.queue.push_back((leaves, bytes));
        self.queued += bytes;
        self.busy_until = Some(leaves);
        Some(leaves)
    }

    fn police(&mut self, now: Instant, bytes: usize, burst: usize) -> bool {
        let (tokens, since) = self.tokens;
        let passed = since.map_or(Duration::ZERO, |since| now - since);
        let earned = self.rate_at(now) as f64 / 8.0 * passed.as_secs_f64();
        let tokens = (tokens + earned).min(burst as f64);
        let passes = tokens >= bytes as f64;
        self.tokens = (if passes { tokens - bytes as f64 } else { tokens }, Some(now));
        passes
    }

    fn rate_at(&self, now: Instant) -> u64 {
        let begun = self.rates.iter().rev().find(|(at, _)| *at <= now);
        begun.or_else(|| self.rates.first()).expect("a rate").1
    }

    /// When a packet whose first bit goes at `begins` has gone, over all changes of the rate.
    fn sent_at(&self, begins: Instant, bytes: usize) -> Instant {
        let mut bits = bytes as f64 * 8.0;
        let mut at = begins;
        for (change, _) in self.rates.iter().filter(|(change, _)| *change > begins) {
            let until = (*change - at).as_secs_f64() * self.rate_at(at) as f64;
            if until >= bits {
                break;
            }
            bits -= until;
            at = *change;
        }
        at + Duration::from_secs_f64(bits / self.rate_at(at) as f64)
    }
}
