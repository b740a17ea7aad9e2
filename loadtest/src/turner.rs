//! One thread of the generator: it drives its endpoints with one `epoll`, one clock and no locks.
//!
//! `main` hands it endpoints and streams over a queue, asks for a [`Brief`](crate::tally::Brief) now
//! and then, and for its [`Tally`] after each window. A turn:
//! orders, due bursts, due timers, wait, then readable sockets; between any two sockets it looks
//! whether a burst is due, so that receiving delays sending by one socket's batch at most.
//!
//! With the kernel's receive times, nothing is lost by reading late: once a datagram has come, the
//! thread lets others gather for a moment, asleep, and then reads all sockets in one sweep. That
//! makes one wake of many, for it and for the server that would have had to wake it. While any
//! transport joins it reads at once, because the times of those steps are its own clock's.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Receiver;

use crate::clock::{MILLISECOND, SECOND};
use crate::endpoint::{Change, Endpoint, Opening, Surroundings};
use crate::probe::thread_cpu;
use crate::rng::Rng;
use crate::socket::{Batch, Poller, nap};
use crate::tally::Tally;
use crate::worker::{Failure, Order, Progress, Settings};

/// How long a worker sleeps at most before it looks for orders: while transports join, and within a
/// window, when only the end is to come. A wake costs as much as a dozen packets.
const ORDERS_EVERY: u64 = 2 * MILLISECOND;
const ORDERS_EVERY_IN_WINDOW: u64 = 20 * MILLISECOND;

/// Reports and feedback of transports that have joined are sent at multiples of this: each client's
/// own moment would cost a wake of its own, eleven a second.
const TIMER_GRID: u64 = 5 * MILLISECOND;

/// Timers that are due within this time are handled together.
const TIMER_GRAIN: u64 = MILLISECOND / 2;

/// Endpoints of which is read ahead what receiving needs: as many as their misses of the cache overlap.
const READ_AHEAD: usize = 16;

/// A burst that is due: when, endpoint, stream, burst.
type Due = Reverse<(u64, usize, usize, u64)>;

/// A slot for an endpoint, and what the thread remembers of it.
#[derive(Debug)]
struct Place {
    endpoint: Option<Endpoint>,
    /// The timer that counts, of those on the list.
    timer: u64,
    joining: bool,
    /// Messages to ask the socket for.
    slots: usize,
    /// Reads that filled their one slot since there was a look for more.
    filled: u8,
}

/// The state of a worker's thread.
pub(crate) struct Turner {
    orders: Receiver<Order>,
    progress: Arc<Progress>,
    settings: Settings,
    around: Surroundings,
    places: Vec<Place>,
    joining: usize,
    poller: Poller,
    batch: Batch,
    due: BinaryHeap<Due>,
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    waiting_since: Option<u64>,
    closing_at: u64,
    cpu_at: u64,
    unix_at: u64,
}

impl Turner {
    /// The thread's state; to be made on it.
    pub(crate) fn new(
        settings: Settings,
        seed: u64,
        progress: Arc<Progress>,
        orders: Receiver<Order>,
    ) -> Result<Self, String> {
        let around = Surroundings {
            clock: settings.clock,
            unix_origin: settings.clock.unix_origin(),
            tally: Tally::default(),
            window: 0..0,
            rng: Rng::new(seed),
            sample: settings.sample,
            conduct: settings.conduct,
            datagrams: Vec::new(),
            packets: Vec::new(),
            report: Vec::new(),
        };
        Ok(Self {
            orders,
            progress,
            around,
            places: Vec::new(),
            joining: 0,
            poller: Poller::new().map_err(|error| error.to_string())?,
            batch: Batch::new(settings.sockets.gro),
            settings,
            due: BinaryHeap::new(),
            timers: BinaryHeap::new(),
            waiting_since: None,
            closing_at: u64::MAX,
            cpu_at: 0,
            unix_at: 0,
        })
    }

    /// Turns until it is told to stop; what it counted.
    pub(crate) fn run(mut self) -> Result<Tally, String> {
        let mut tokens = Vec::new();
        loop {
            while let Ok(order) = self.orders.try_recv() {
                if matches!(order, Order::Stop) {
                    return Ok(self.hand_over());
                }
                self.handle_order(order);
            }
            let now = self.around.clock.now();
            self.send_due();
            self.handle_timers(now);
            self.close_window(now);
            tokens.clear();
            self.wait(&mut tokens);
            for part in tokens.chunks(READ_AHEAD) {
                self.read_ahead(part);
                for token in part {
                    self.receive(*token);
                    if self.around.clock.now() >= self.next_burst() {
                        self.send_due();
                    }
                }
            }
        }
    }

    /// Touches what the datagrams of these sockets will need. Between two sweeps other work has
    /// displaced it; missed one behind the other, each line costs the whole way to memory.
    fn read_ahead(&self, tokens: &[u64]) {
        let endpoints = || {
            let places = tokens.iter().filter_map(|token| usize::try_from(*token).ok());
            places.filter_map(|place| self.places.get(place)?.endpoint.as_ref())
        };
        let sum = |values: &mut dyn Iterator<Item = usize>| values.fold(0, usize::wrapping_add);
        let read = sum(&mut endpoints().map(Endpoint::touch))
            + sum(&mut endpoints().map(|endpoint| endpoint.media().touch()))
            + sum(&mut endpoints().map(|endpoint| endpoint.media().touch_stream()));
        black_box(read);
    }

    /// Waits for the next thing to do: sockets to be read, into `tokens`, or a time that has come.
    fn wait(&mut self, tokens: &mut Vec<u64>) {
        let now = self.around.clock.now();
        let timer = self.timers.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        let calm = self.around.window.contains(&now) && !self.around.conduct.churns;
        let orders = if calm { ORDERS_EVERY_IN_WINDOW } else { ORDERS_EVERY };
        let next = self.next_burst().min(timer).min(now + orders);
        if let Some(since) = self.waiting_since {
            let sweep_at = since + self.settings.gather;
            nap(sweep_at.min(next).saturating_sub(now));
            if self.around.clock.now() >= sweep_at {
                self.waiting_since = None;
                tokens.extend(self.poller.wait(0));
            }
            return;
        }
        tokens.extend(self.poller.wait(next.saturating_sub(now)));
        if self.settings.gather > 0 && self.joining == 0 && !tokens.is_empty() {
            self.waiting_since = Some(self.around.clock.now());
            tokens.clear();
        }
    }

    fn next_burst(&self) -> u64 {
        self.due.peek().map_or(u64::MAX, |Reverse((at, ..))| *at)
    }

    fn endpoint(&mut self, place: usize) -> Option<&mut Endpoint> {
        self.places.get_mut(place)?.endpoint.as_mut()
    }

    fn endpoints(&mut self) -> impl Iterator<Item = &mut Endpoint> {
        self.places.iter_mut().filter_map(|place| place.endpoint.as_mut())
    }

    fn handle_order(&mut self, order: Order) {
        match order {
            Order::Open { place, opening } => self.open(place, opening),
            Order::Publish { place, publication, encoding, marks } => {
                let Some(endpoint) = self.endpoint(place) else { return };
                let stream = endpoint.media_mut().publish(&publication, encoding, marks);
                if endpoint.is_connected() {
                    self.begin(place, stream);
                }
            }
            Order::Subscribe { place, subscription } => {
                let measured = !self.around.window.is_empty();
                if let Some(endpoint) = self.endpoint(place) {
                    endpoint.media_mut().subscribe(subscription, measured);
                }
                self.schedule(place, 0);
            }
            Order::Retire { place } => {
                if let Some(Place { endpoint: Some(endpoint), .. }) = self.places.get_mut(place) {
                    endpoint.retire(&mut self.around);
                }
                self.note_joining(place);
            }
            Order::Close { place } => {
                if let Some(place) = self.places.get_mut(place) {
                    place.endpoint = None;
                }
                self.note_joining(place);
            }
            Order::Measure { from, until } => {
                self.around.window = from..until;
                self.closing_at = until;
                self.endpoints().for_each(|endpoint| endpoint.media_mut().measure(from, until));
            }
            Order::Pace(pace) => {
                self.endpoints().for_each(|endpoint| endpoint.media_mut().pace(pace));
            }
            // Whoever asked may have given up.
            Order::Brief(to) => {
                self.close_window(self.around.clock.now());
                let cpu = self.cpu();
                let _ = to.send(self.around.tally.take_brief(cpu));
            }
            Order::HandOver(to) => {
                self.close_books();
                let _ = to.send(Box::new(self.hand_over()));
            }
            Order::Stop => {}
        }
    }

    fn open(&mut self, place: usize, opening: Opening) {
        let (identity, sockets) = (&self.settings.identity, self.settings.sockets);
        let opened = Endpoint::open(opening, identity, sockets, &mut self.around);
        let token = u64::try_from(place).unwrap_or(u64::MAX);
        let added = opened.and_then(|endpoint| {
            let added = self.poller.add(endpoint.socket(), token);
            added.map(|()| endpoint).map_err(|error| error.to_string())
        });
        if let Err(reason) = &added {
            let _ = self.progress.failures.send(Failure::Ours(reason.clone()));
        }
        let empty =
            || Place { endpoint: None, timer: u64::MAX, joining: false, slots: 1, filled: 0 };
        if place >= self.places.len() {
            self.places.resize_with(place + 1, empty);
        }
        if let Some(place) = self.places.get_mut(place) {
            (place.endpoint, place.timer) = (added.ok(), u64::MAX);
        }
        self.note_joining(place);
        self.schedule(place, 0);
    }

    /// Keeps count of the endpoints whose joining is being measured.
    fn note_joining(&mut self, place: usize) {
        let Some(place) = self.places.get_mut(place) else { return };
        let joins = place.endpoint.as_ref().is_some_and(Endpoint::is_joining);
        match (std::mem::replace(&mut place.joining, joins), joins) {
            (false, true) => self.joining += 1,
            (true, false) => self.joining = self.joining.saturating_sub(1),
            _ => {}
        }
        if joins {
            // What is waiting is read now.
            self.waiting_since = None;
        }
    }

    /// Puts a stream's next burst on the list.
    fn begin(&mut self, place: usize, stream: usize) {
        let now = self.around.clock.now();
        let Some(endpoint) = self.endpoint(place) else { return };
        let Some(outgoing) = endpoint.media().outgoing().get(stream) else { return };
        let schedule = outgoing.schedule();
        let burst = schedule.burst_from(now);
        self.due.push(Reverse((schedule.burst_due(burst), place, stream, burst)));
    }

    /// Sends all bursts that are due, however late.
    fn send_due(&mut self) {
        loop {
            let now = self.around.clock.now();
            let Some(Reverse((at, place, stream, burst))) = self.due.peek().copied() else {
                return;
            };
            if at > now {
                return;
            }
            self.due.pop();
            let Some(Place { endpoint: Some(endpoint), .. }) = self.places.get_mut(place) else {
                continue;
            };
            endpoint.send_burst((stream, burst), now, &mut self.around);
            if let Some(outgoing) = endpoint.media().outgoing().get(stream) {
                let next = burst + 1;
                self.due.push(Reverse((outgoing.schedule().burst_due(next), place, stream, next)));
            }
        }
    }

    /// Puts an endpoint's next timer on the list, unless an earlier one is there.
    fn schedule(&mut self, place: usize, not_before: u64) {
        let clock = self.around.clock;
        let Some(slot) = self.places.get_mut(place) else { return };
        let Some(endpoint) = &slot.endpoint else { return };
        let mut at = endpoint.poll_timeout(&clock).max(not_before);
        if self.settings.gather > 0 && !slot.joining && !self.settings.conduct.repair {
            at = at.checked_next_multiple_of(TIMER_GRID).unwrap_or(at);
        }
        if at < slot.timer {
            slot.timer = at;
            self.timers.push(Reverse((at, place)));
        }
    }

    fn handle_timers(&mut self, now: u64) {
        if now >= self.unix_at {
            self.unix_at = now + SECOND;
            self.around.unix_origin = self.around.clock.unix_origin();
        }
        while let Some(Reverse((at, place))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(slot) = self.places.get_mut(place) else { continue };
            if slot.timer != at {
                // An earlier one came in between.
                continue;
            }
            slot.timer = u64::MAX;
            let Some(endpoint) = &mut slot.endpoint else { continue };
            if endpoint.poll_timeout(&self.around.clock) <= now {
                let change = endpoint.handle_timeout(now, &mut self.around);
                self.handle_change(place, change);
            }
            self.schedule(place, now + TIMER_GRAIN);
            if self.around.clock.now() >= self.next_burst() {
                self.send_due();
            }
        }
    }

    fn handle_change(&mut self, place: usize, change: Option<Change>) {
        let Some(change) = change else { return };
        let Some(endpoint) = self.endpoint(place) else { return };
        let (streams, transient) = (endpoint.media().outgoing().len(), endpoint.is_transient());
        match change {
            Change::Connected => {
                self.progress.connected.fetch_add(1, Ordering::Relaxed);
                (0..streams).for_each(|stream| self.begin(place, stream));
            }
            // A join during the run that fails is counted when it leaves.
            Change::Failed(_) if transient => {}
            Change::Failed(reason) => {
                let _ = self.progress.failures.send(Failure::Lost(reason));
            }
        }
        self.note_joining(place);
    }

    fn receive(&mut self, token: u64) {
        let Ok(place) = usize::try_from(token) else { return };
        loop {
            let Some(slot) = self.places.get_mut(place) else { return };
            let Some(endpoint) = &mut slot.endpoint else { return };
            let asked = slot.slots;
            let received = endpoint.socket().receive(&mut self.batch, asked);
            (slot.slots, slot.filled) =
                slots_next(asked, slot.filled, received, self.batch.capacity());
            let now = self.around.clock.now();
            let mut changes = None;
            for message in self.batch.messages() {
                let (change, begun) = endpoint.handle_message(message, now, &mut self.around);
                changes = change.or(changes);
                if begun > 0 {
                    self.progress.begun.fetch_add(begun, Ordering::Relaxed);
                }
            }
            let joining = slot.joining;
            self.handle_change(place, changes);
            if joining {
                self.note_joining(place);
            }
            self.schedule(place, 0);
            if asked == 1 || received < asked || now >= self.next_burst() {
                // Whatever is left is seen by the next wait.
                return;
            }
        }
    }

    /// Writes the end of a window that is over, once.
    fn close_window(&mut self, now: u64) {
        if now >= self.closing_at {
            self.closing_at = u64::MAX;
            self.send_due();
            self.endpoints().for_each(|endpoint| endpoint.media().close_window());
        }
    }

    /// Closes the books of the window.
    fn close_books(&mut self) {
        for place in &mut self.places {
            if let Some(endpoint) = &mut place.endpoint {
                endpoint.finish(&mut self.around);
            }
        }
    }

    /// What was counted since the last time, with the thread's CPU since then.
    fn hand_over(&mut self) -> Tally {
        let mut tally = std::mem::take(&mut self.around.tally);
        tally.cpu = self.cpu();
        tally
    }

    /// The thread's CPU since this was last asked, ns.
    fn cpu(&mut self) -> u64 {
        let cpu = thread_cpu().unwrap_or(self.cpu_at);
        cpu.saturating_sub(std::mem::replace(&mut self.cpu_at, cpu))
    }
}

/// How many messages to ask a socket for next time, after a read of `asked` that brought `received`.
///
/// Asking for one more than there is costs a failed attempt in the kernel, so sockets that have one
/// message at a time are asked for one, and only now and then for all they may have.
fn slots_next(asked: usize, filled: u8, received: usize, capacity: usize) -> (usize, u8) {
    const LOOK_EVERY: u8 = 8;
    match (asked, received) {
        (1, 1) if filled + 1 < LOOK_EVERY => (1, filled + 1),
        (1, 1) => (capacity, 0),
        (1, _) => (1, filled),
        (_, 0 | 1) => (1, 0),
        _ => (capacity, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::slots_next;

    #[test]
    fn a_socket_with_one_message_at_a_time_is_seldom_asked_for_more() {
        let (mut slots, mut filled, mut more) = (1, 0, 0);
        for _ in 0..800 {
            more += usize::from(slots > 1);
            (slots, filled) = slots_next(slots, filled, 1, 4);
        }
        assert!((80..=100).contains(&more), "{more}");
    }

    #[test]
    fn a_socket_with_many_is_asked_for_all_it_may_have_until_it_has_one() {
        let (mut slots, mut filled) = (1, 0);
        for _ in 0..20 {
            (slots, filled) = slots_next(slots, filled, slots.min(3), 4);
        }
        assert_eq!(slots, 4);
        assert_eq!(slots_next(4, 0, 1, 4), (1, 0));
    }
}
