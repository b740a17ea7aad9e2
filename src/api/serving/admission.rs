//! How many connections there may be, of the node and of one address, and who makes room.
//!
//! Owned by the accept loop. Invariants: a [`Place`] is counted from [`Admission::admit`] until it
//! is dropped, whatever became of its connection; a connection that waits for its client (for a
//! handshake, a head, a body, or the next request) gives way to a newer one once the node is full,
//! or to a newer one of its address once that has its share, the one that has waited longest first.
//! So those who open connections and say nothing keep nobody out, not even behind the same address.
//! What is being answered, and event streams, never give way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use tokio::sync::Notify;

use crate::control::guarded::Guarded;
use crate::limits::{API_CONNECTIONS, API_CONNECTIONS_PER_ADDRESS};
use crate::metrics::connections::Refused;

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Of all together; at least 1.
    pub node: usize,
    /// Of one address but loopback; `None` is no limit.
    pub address: Option<usize>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { node: API_CONNECTIONS, address: Some(API_CONNECTIONS_PER_ADDRESS) }
    }
}

/// Everyone who is connected.
#[derive(Debug, Clone)]
pub(super) struct Admission(Arc<Guarded<Table>>);

#[derive(Debug)]
struct Table {
    limits: ConnectionLimits,
    open: usize,
    of_address: HashMap<IpAddr, OfAddress>,
    /// Who waits for their clients, by when they began to.
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
}

/// The connections of one address.
#[derive(Debug, Default)]
struct OfAddress {
    open: usize,
    /// Those of them that wait for their clients, by when they began to.
    waiting: BTreeSet<u64>,
}

#[derive(Debug)]
struct Waiting {
    /// What ends it.
    leave: Arc<Notify>,
    counted: Option<IpAddr>,
}

impl Table {
    fn begins_to_wait(&mut self, leave: &Arc<Notify>, counted: Option<IpAddr>) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, Waiting { leave: Arc::clone(leave), counted });
        if let Some(of_address) = counted.and_then(|address| self.of_address.get_mut(&address)) {
            of_address.waiting.insert(self.next);
        }
        self.next
    }

    /// It does not wait any more; nothing happens to one that gave way already.
    fn ends_to_wait(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        let of_address = waiting.counted.and_then(|address| self.of_address.get_mut(&address));
        if let Some(of_address) = of_address {
            of_address.waiting.remove(&number);
        }
        Some(waiting)
    }

    /// True when someone was there to end, of all or of one address.
    fn evict(&mut self, address: Option<IpAddr>) -> bool {
        let oldest = match address {
            Some(address) => {
                self.of_address.get(&address).and_then(|it| it.waiting.first()).copied()
            }
            None => self.waiting.keys().next().copied(),
        };
        let oldest = oldest.and_then(|number| self.ends_to_wait(number));
        oldest.map(|waiting| waiting.leave.notify_one()).is_some()
    }

    /// True when an older one gave way.
    fn make_room(&mut self, counted: Option<IpAddr>) -> Result<bool, Refused> {
        if let (Some(address), Some(most)) = (counted, self.limits.address)
            && self.of_address.get(&address).is_some_and(|it| it.open >= most)
        {
            // Its place on the node is free as well.
            return if self.evict(counted) { Ok(true) } else { Err(Refused::AddressLimit) };
        }
        if self.open < self.limits.node {
            return Ok(false);
        }
        if self.evict(None) { Ok(true) } else { Err(Refused::NodeLimit) }
    }
}

impl Admission {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        let (of_address, waiting) = (HashMap::new(), BTreeMap::new());
        Self(Arc::new(Guarded::new(Table { limits, open: 0, of_address, waiting, next: 0 })))
    }

    /// A place for a new connection, which waits for its client; `true` when an older one gave way.
    pub(super) fn admit(&self, address: IpAddr) -> Result<(Place, bool), Refused> {
        let counted = counted(address);
        let leave = Arc::new(Notify::new());
        let (waits, evicted) = self.0.with(|table| {
            let evicted = table.make_room(counted)?;
            table.open += 1;
            if let Some(address) = counted {
                table.of_address.entry(address).or_default().open += 1;
            }
            Ok((table.begins_to_wait(&leave, counted), evicted))
        })?;
        let waits = Guarded::new(Some(waits));
        Ok((Place { admission: self.clone(), counted, leave, waits }, evicted))
    }

    /// Ends the connection that has waited longest for its client; false when none waits.
    pub(super) fn evict(&self) -> bool {
        self.0.with(|table| table.evict(None))
    }
}

/// What an address is counted as: an IPv6 customer has a /64 at least. `None` is loopback, where a
/// proxy on this host brings everyone.
pub(super) fn counted(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            Some(IpAddr::V6(Ipv6Addr::from(network)))
        }
        v4 => Some(v4),
    }
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Admission,
    counted: Option<IpAddr>,
    leave: Arc<Notify>,
    /// Since when it waits for its client, if it does.
    waits: Guarded<Option<u64>>,
}

impl Place {
    /// What completes when the connection has to give way.
    pub(super) fn leave(&self) -> Arc<Notify> {
        Arc::clone(&self.leave)
    }

    /// From now on it waits for its client.
    pub(super) fn waits(&self) {
        self.waits.with(|waits| {
            if waits.is_none() {
                let begins = |table: &mut Table| table.begins_to_wait(&self.leave, self.counted);
                *waits = Some(self.admission.0.with(begins));
            }
        });
    }

    /// From now on its client waits for it.
    pub(super) fn is_busy(&self) {
        if let Some(number) = self.waits.with(Option::take) {
            self.admission.0.with(|table| table.ends_to_wait(number));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.is_busy();
        self.admission.0.with(|table| {
            table.open = table.open.saturating_sub(1);
            let Some(address) = self.counted else { return };
            if let Some(of_address) = table.of_address.get_mut(&address) {
                of_address.open -= 1;
                if of_address.open == 0 {
                    table.of_address.remove(&address);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_told_to_leave(place: &Place) -> bool {
        let leave = place.leave();
        polled_once(leave.notified()).is_some()
    }

    /// One poll of a future, without a runtime.
    fn polled_once<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn when_the_node_is_full_whoever_has_waited_longest_gives_way_and_the_busy_stay() {
        let admission = Admission::new(ConnectionLimits { node: 3, address: None });
        let address = "192.0.2.1".parse().unwrap();
        let admit = || admission.admit(address);
        let [first, second, third] = [0; 3].map(|_| admit().unwrap().0);
        first.is_busy();
        let (fourth, evicted) = admit().unwrap();
        assert!(evicted && is_told_to_leave(&second));
        drop(second);
        // Waiting anew is waiting from now.
        first.waits();
        let (fifth, _) = admit().unwrap();
        assert!(is_told_to_leave(&third) && !is_told_to_leave(&first));
        drop(third);
        for place in [&first, &fourth, &fifth] {
            place.is_busy();
        }
        assert_eq!(admit().unwrap_err(), Refused::NodeLimit);
        drop(first);
        assert!(!admit().unwrap().1);
    }

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let admission = Admission::new(ConnectionLimits { node: 100, address: Some(2) });
        let admit = |address: &str| {
            let admitted = admission.admit(address.parse().unwrap());
            admitted.map(|(place, evicted)| {
                assert!(!evicted);
                place.is_busy();
                place
            })
        };
        let held = [admit("192.0.2.1").unwrap(), admit("::ffff:192.0.2.1").unwrap()];
        assert_eq!(admit("192.0.2.1").unwrap_err(), Refused::AddressLimit);
        assert!(admit("192.0.2.2").is_ok());
        let network = [admit("2001:db8::1").unwrap(), admit("2001:db8::2:1").unwrap()];
        assert_eq!(admit("2001:db8::3").unwrap_err(), Refused::AddressLimit);
        assert!(admit("2001:db8:0:1::3").is_ok());
        let local: Vec<Place> = (0..10).map(|_| admit("127.0.0.1").unwrap()).collect();
        drop((held, network, local));
        assert!(admit("192.0.2.1").is_ok());
        assert_eq!(admission.0.with(|table| (table.open, table.of_address.len())), (0, 0));
        assert!(admission.0.with(|table| table.waiting.is_empty()));
    }

    #[test]
    fn an_address_with_its_share_makes_room_among_its_own_alone() {
        let admission = Admission::new(ConnectionLimits { node: 100, address: Some(2) });
        let admit = |address: &str| admission.admit(address.parse().unwrap()).unwrap();
        let (stranger, _) = admit("192.0.2.9");
        let [(first, _), (second, _)] = [(); 2].map(|()| admit("192.0.2.1"));
        first.is_busy();
        let (third, evicted) = admit("192.0.2.1");
        assert!(evicted && is_told_to_leave(&second) && !is_told_to_leave(&stranger));
        drop(second);
        first.waits();
        let (fourth, evicted) = admit("192.0.2.1");
        assert!(evicted && is_told_to_leave(&third) && !is_told_to_leave(&first));
        // Who gave way may still be on its way out.
        let (fifth, evicted) = admit("192.0.2.1");
        assert!(evicted && is_told_to_leave(&first));
        drop((first, third, fourth, fifth, stranger));
        assert_eq!(admission.0.with(|table| (table.open, table.of_address.len())), (0, 0));
        assert!(admission.0.with(|table| table.waiting.is_empty()));
    }
}
