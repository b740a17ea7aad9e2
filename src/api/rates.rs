//! How often a caller may ask: a bucket of requests for each address, token and key.
//!
//! Owned by the gate, on the control thread. Invariants: what is kept is bounded, whatever strangers
//! do: when there is no room for another bucket, those beyond share one; a bucket that is full
//! again is forgotten. Requests from loopback are not counted by address: whoever is there is the
//! operator's own, a proxy that speaks for everybody or a load test.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use tokio::time::Instant;

use super::caller::Caller;
use crate::control::guarded::Guarded;
use crate::limits::{Limit, Limits, RATE_BUCKETS_MAX, RATE_BURST, RATE_SWEEP_PERIOD};

/// All buckets.
#[derive(Debug)]
pub(super) struct Rates {
    hasher: RandomState,
    addresses: Guarded<Buckets<IpAddr>>,
    /// By room and peer, so that another token for the same does not help.
    tokens: Guarded<Buckets<u64>>,
    keys: Guarded<Buckets<Arc<str>>>,
}

impl Rates {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let rate = |limit| u32::try_from(limits.get(limit)).unwrap_or(u32::MAX);
        Self {
            hasher: RandomState::new(),
            addresses: Guarded::new(Buckets::new(rate(Limit::AddressRequests), now)),
            tokens: Guarded::new(Buckets::new(rate(Limit::TokenRequests), now)),
            keys: Guarded::new(Buckets::new(rate(Limit::KeyRequests), now)),
        }
    }

    /// Counts a request of an address.
    pub(super) fn count_address(&self, address: IpAddr, now: Instant) -> Result<(), Limit> {
        let network = network(address);
        if network.is_loopback() || self.addresses.with(|all| all.take(network, now)) {
            return Ok(());
        }
        Err(Limit::AddressRequests)
    }

    /// Counts a request of a key or token.
    pub(super) fn count_caller(&self, caller: &Caller, now: Instant) -> Result<(), Limit> {
        let (within, limit) = match caller {
            Caller::Anyone => return Ok(()),
            Caller::Key(id) => {
                (self.keys.with(|all| all.take(Arc::clone(id), now)), Limit::KeyRequests)
            }
            Caller::Token(token) => {
                let who = self.hasher.hash_one((&token.key, &token.room, &token.peer));
                (self.tokens.with(|all| all.take(who, now)), Limit::TokenRequests)
            }
        };
        if within { Ok(()) } else { Err(limit) }
    }
}

/// An IPv4 address, or the /64 that an IPv6 host chooses its addresses from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        other => other,
    }
}

/// What is left of a caller's requests, as of then.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

#[derive(Debug)]
struct Buckets<K> {
    /// Per second; 0 is any number.
    rate: u32,
    known: HashMap<K, Bucket>,
    /// Of all who are too many to be known.
    others: Bucket,
    swept: Instant,
}

impl<K: Hash + Eq> Buckets<K> {
    fn new(rate: u32, now: Instant) -> Self {
        let others = Bucket { left: f64::from(rate) * RATE_BURST.as_secs_f64(), at: now };
        Self { rate, known: HashMap::new(), others, swept: now }
    }

    fn most(&self) -> f64 {
        f64::from(self.rate) * RATE_BURST.as_secs_f64()
    }

    fn left(&self, bucket: Bucket, now: Instant) -> f64 {
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + since * f64::from(self.rate)).min(self.most())
    }

    /// Takes one request out of a caller's bucket; false when there is none.
    fn take(&mut self, who: K, now: Instant) -> bool {
        if self.rate == 0 {
            return true;
        }
        self.sweep(now);
        let full = Bucket { left: self.most(), at: now };
        let is_known = self.known.contains_key(&who);
        let bucket = match self.known.get(&who) {
            Some(bucket) => *bucket,
            None if self.known.len() < RATE_BUCKETS_MAX => full,
            None => self.others,
        };
        let left = self.left(bucket, now) - 1.0;
        if left < 0.0 {
            return false;
        }
        let bucket = Bucket { left, at: now };
        if is_known || self.known.len() < RATE_BUCKETS_MAX {
            self.known.insert(who, bucket);
        } else {
            self.others = bucket;
        }
        true
    }

    /// Forgets who has as much as a stranger.
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) < RATE_SWEEP_PERIOD {
            return;
        }
        self.swept = now;
        let mut known = std::mem::take(&mut self.known);
        known.retain(|_, bucket| self.left(*bucket, now) < self.most());
        self.known = known;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn burst(rate: u32) -> u32 {
        rate * u32::try_from(RATE_BURST.as_secs()).unwrap()
    }

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        let start = Instant::now();
        let mut buckets = Buckets::new(5, start);
        let taken = |buckets: &mut Buckets<u8>, who, now| {
            (0..1000).take_while(|_| buckets.take(who, now)).count()
        };
        assert_eq!(taken(&mut buckets, 1, start), burst(5) as usize);
        assert_eq!(taken(&mut buckets, 2, start), burst(5) as usize, "others have their own");
        assert_eq!(taken(&mut buckets, 1, start + Duration::from_millis(1500)), 7);
        assert_eq!(taken(&mut buckets, 1, start + Duration::from_millis(3500)), 10);
        let later = start + Duration::from_secs(3600);
        assert_eq!(taken(&mut buckets, 1, later), burst(5) as usize, "no more than a burst");
    }

    #[test]
    fn no_rate_is_no_limit_and_keeps_nothing() {
        let now = Instant::now();
        let mut buckets = Buckets::new(0, now);
        assert!((0..10_000_u32).all(|who| buckets.take(who % 7, now)));
        assert!(buckets.known.is_empty());
    }

    #[test]
    fn strangers_without_number_share_a_bucket_and_are_forgotten_once_it_is_full() {
        let start = Instant::now();
        let mut buckets = Buckets::new(1, start);
        for who in 0..RATE_BUCKETS_MAX {
            assert!(buckets.take(who, start));
        }
        let strangers = RATE_BUCKETS_MAX..;
        let through = strangers.take_while(|who| buckets.take(*who, start)).count();
        assert_eq!(through, burst(1) as usize);
        assert_eq!(buckets.known.len(), RATE_BUCKETS_MAX);
        assert!(buckets.take(0, start), "who is known has what is left");
        let later = start + RATE_BURST + RATE_SWEEP_PERIOD;
        assert!(buckets.take(RATE_BUCKETS_MAX, later));
        assert_eq!(buckets.known.len(), 1);
    }

    #[test]
    fn an_ipv6_host_is_its_network_and_a_mapped_address_is_ipv4() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1:2:3:4"), of("2001:db8::9"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert!(of("::ffff:127.0.0.1").is_loopback() && of("::1").is_loopback());
    }
}
