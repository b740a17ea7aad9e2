//! One thread of the generator: it drives its endpoints with one `epoll`, one clock and no locks.
//!
//! `main` hands it endpoints and streams over a queue, and asks for a [`Brief`] each second and its [`Tally`] at the end. A turn:
//! orders, due bursts, due timers, wait, then readable sockets; between any two sockets it looks
//! whether a burst is due, so that receiving delays sending by one socket's batch at most.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::agent::Remote;
use crate::clock::{Clock, MILLISECOND, SECOND};
use crate::dtls::Identity;
use crate::endpoint::{Change, Endpoint, Surroundings};
use crate::plan::Publication;
use crate::probe::thread_cpu;
use crate::rng::Rng;
use crate::schedule::Pace;
use crate::socket::{Batch, Poller, SocketOptions};
use crate::stream::Subscription;
use crate::tally::{Brief, Tally};

/// How long a worker sleeps at most before it looks for orders.
const ORDERS_EVERY: u64 = 2 * MILLISECOND;

/// Timers that are due within this time are handled together.
const TIMER_GRAIN: u64 = MILLISECOND / 2;

/// What `main` tells a worker. Places number a worker's endpoints in the order of their opening.
#[derive(Debug)]
pub(crate) enum Order {
    /// Connect to a transport.
    Open {
        /// The server's end.
        remote: Remote,
        /// The peer's canonical name.
        cname: String,
    },
    /// Send a stream once connected.
    Publish {
        /// Over which endpoint.
        place: usize,
        /// What.
        publication: Publication,
    },
    /// Expect a stream.
    Subscribe {
        /// Over which endpoint.
        place: usize,
        /// What.
        subscription: Subscription,
    },
    /// Measure what is due in a window, ns of the run.
    Measure {
        /// From.
        from: u64,
        /// Until.
        until: u64,
    },
    /// From a time of the run on, send streams of a kind at another rate.
    Pace(Pace),
    /// Tell briefly what was counted since the last time.
    Brief(Sender<Brief>),
    /// Close the books of the window (silent streams, drops, protections) and hand over everything
    /// counted since the last time.
    Close(Sender<Box<Tally>>),
    /// End.
    Stop,
}

/// What all workers tell while they run.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Endpoints that are connected.
    pub(crate) connected: AtomicU32,
    /// Streams that have begun to arrive.
    pub(crate) begun: AtomicU32,
    /// Why endpoints failed.
    pub(crate) failures: Sender<String>,
}

/// What a worker is made with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The run's time axis.
    pub(crate) clock: Clock,
    /// The clients' certificate.
    pub(crate) identity: Identity,
    /// How sockets are opened.
    pub(crate) sockets: SocketOptions,
    /// One of how many packets is opened.
    pub(crate) sample: u64,
}

/// The handle to a worker's thread.
#[derive(Debug)]
pub(crate) struct Worker {
    orders: Sender<Order>,
    thread: JoinHandle<Result<Tally, String>>,
}

impl Worker {
    /// Starts a thread.
    pub(crate) fn start(
        settings: Settings,
        seed: u64,
        progress: Arc<Progress>,
    ) -> std::io::Result<Self> {
        let (orders, received) = unbounded();
        let run = move || Turner::new(settings, seed, progress, received)?.run();
        let thread = std::thread::Builder::new().name("load".into()).spawn(run)?;
        Ok(Self { orders, thread })
    }

    /// Hands over an order; without effect on a worker that has ended.
    pub(crate) fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Ends it and returns what it counted since it last handed over.
    pub(crate) fn finish(self) -> Result<Tally, String> {
        self.order(Order::Stop);
        self.thread.join().map_err(|_| "a generator thread panicked")?
    }
}

/// A burst that is due: when, endpoint, stream, burst.
type Due = Reverse<(u64, usize, usize, u64)>;

/// The state of a worker's thread.
struct Turner {
    orders: Receiver<Order>,
    progress: Arc<Progress>,
    settings: Settings,
    around: Surroundings,
    endpoints: Vec<Option<Endpoint>>,
    poller: Poller,
    batch: Batch,
    due: BinaryHeap<Due>,
    timers_at: u64,
    cpu_at: u64,
    unix_at: u64,
}

impl Turner {
    fn new(
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
            datagrams: Vec::new(),
            packets: Vec::new(),
            report: Vec::new(),
        };
        Ok(Self {
            orders,
            progress,
            around,
            endpoints: Vec::new(),
            poller: Poller::new().map_err(|error| error.to_string())?,
            batch: Batch::new(settings.sockets.gro),
            settings,
            due: BinaryHeap::new(),
            timers_at: 0,
            cpu_at: 0,
            unix_at: 0,
        })
    }

    fn run(mut self) -> Result<Tally, String> {
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
            if now >= self.timers_at {
                self.handle_timers(now);
            }
            let now = self.around.clock.now();
            let next = self.next_burst().min(self.timers_at).min(now + ORDERS_EVERY);
            tokens.clear();
            tokens.extend(self.poller.wait(next.saturating_sub(now)));
            for token in &tokens {
                self.receive(*token);
                if self.around.clock.now() >= self.next_burst() {
                    self.send_due();
                }
            }
        }
    }

    fn next_burst(&self) -> u64 {
        self.due.peek().map_or(u64::MAX, |Reverse((at, ..))| *at)
    }

    fn handle_order(&mut self, order: Order) {
        self.timers_at = 0;
        match order {
            Order::Open { remote, cname } => {
                let opened = Endpoint::open(
                    &remote,
                    cname,
                    &self.settings.identity,
                    self.settings.sockets,
                    &mut self.around,
                );
                let token = u64::try_from(self.endpoints.len()).unwrap_or(u64::MAX);
                let added = opened.and_then(|endpoint| {
                    let added = self.poller.add(endpoint.socket(), token);
                    added.map(|()| endpoint).map_err(|error| error.to_string())
                });
                if let Err(reason) = &added {
                    let _ = self.progress.failures.send(reason.clone());
                }
                self.endpoints.push(added.ok());
            }
            Order::Publish { place, publication } => {
                let Some(Some(endpoint)) = self.endpoints.get_mut(place) else { return };
                let stream = endpoint.publish(publication);
                if endpoint.is_connected() {
                    self.begin(place, stream);
                }
            }
            Order::Subscribe { place, subscription } => {
                if let Some(Some(endpoint)) = self.endpoints.get_mut(place) {
                    endpoint.subscribe(subscription);
                }
            }
            Order::Measure { from, until } => {
                self.around.window = from..until;
                for endpoint in self.endpoints.iter_mut().flatten() {
                    endpoint.measure(from, until, &mut self.around.tally);
                }
            }
            Order::Pace(pace) => {
                self.endpoints.iter_mut().flatten().for_each(|endpoint| endpoint.pace(pace));
            }
            // Whoever asked may have given up.
            Order::Brief(to) => {
                let cpu = self.cpu();
                let _ = to.send(self.around.tally.take_brief(cpu));
            }
            Order::Close(to) => {
                self.close();
                let _ = to.send(Box::new(self.hand_over()));
            }
            Order::Stop => {}
        }
    }

    /// Puts a stream's next burst on the list.
    fn begin(&mut self, place: usize, stream: usize) {
        let Some(Some(endpoint)) = self.endpoints.get(place) else { return };
        let Some(outgoing) = endpoint.outgoing().get(stream) else { return };
        let schedule = outgoing.schedule();
        let burst = schedule.burst_from(self.around.clock.now());
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
            let Some(Some(endpoint)) = self.endpoints.get_mut(place) else { continue };
            endpoint.send_burst(stream, burst, now, &mut self.around);
            if let Some(outgoing) = endpoint.outgoing().get(stream) {
                let next = burst + 1;
                self.due.push(Reverse((outgoing.schedule().burst_due(next), place, stream, next)));
            }
        }
    }

    fn handle_timers(&mut self, now: u64) {
        if now >= self.unix_at {
            self.unix_at = now + SECOND;
            self.around.unix_origin = self.around.clock.unix_origin();
        }
        let mut next = now + SECOND;
        for place in 0..self.endpoints.len() {
            let Some(Some(endpoint)) = self.endpoints.get_mut(place) else { continue };
            if endpoint.poll_timeout(&self.around.clock) <= now {
                let change = endpoint.handle_timeout(now, &mut self.around);
                next = next.min(endpoint.poll_timeout(&self.around.clock));
                self.handle_change(place, change);
                if self.around.clock.now() >= self.next_burst() {
                    self.send_due();
                }
            } else {
                next = next.min(endpoint.poll_timeout(&self.around.clock));
            }
        }
        self.timers_at = next.max(now + TIMER_GRAIN);
    }

    fn handle_change(&mut self, place: usize, change: Option<Change>) {
        match change {
            None => {}
            Some(Change::Connected) => {
                self.progress.connected.fetch_add(1, Ordering::Relaxed);
                let streams = match self.endpoints.get(place) {
                    Some(Some(endpoint)) => endpoint.outgoing().len(),
                    _ => 0,
                };
                (0..streams).for_each(|stream| self.begin(place, stream));
            }
            Some(Change::Failed(reason)) => {
                let _ = self.progress.failures.send(reason);
            }
        }
    }

    fn receive(&mut self, token: u64) {
        let Ok(place) = usize::try_from(token) else { return };
        loop {
            let Some(Some(endpoint)) = self.endpoints.get_mut(place) else { return };
            let received = endpoint.socket().receive(&mut self.batch);
            let now = self.around.clock.now();
            let mut changes = None;
            let was_connected = endpoint.is_connected();
            for message in self.batch.messages() {
                let (change, begun) = endpoint.handle_message(message, now, &mut self.around);
                changes = change.or(changes);
                if begun > 0 {
                    self.progress.begun.fetch_add(begun, Ordering::Relaxed);
                }
            }
            if !was_connected || changes.is_some() {
                // Handshakes move their own deadlines.
                self.timers_at = self.timers_at.min(endpoint.poll_timeout(&self.around.clock));
            }
            self.handle_change(place, changes);
            if received < self.batch.capacity() || now >= self.next_burst() {
                return;
            }
        }
    }

    /// Closes the books of the window.
    fn close(&mut self) {
        for endpoint in self.endpoints.iter_mut().flatten() {
            endpoint.finish(&mut self.around.tally);
        }
    }

    /// What was counted since the last time, with the thread's CPU since then.
    fn hand_over(&mut self) -> Tally {
        let mut tally = std::mem::take(&mut self.around.tally);
        tally.cpu = self.cpu();
        tally
    }

    /// The thread's CPU since this was last asked.
    fn cpu(&mut self) -> u64 {
        let cpu = thread_cpu().unwrap_or(self.cpu_at);
        cpu.saturating_sub(std::mem::replace(&mut self.cpu_at, cpu))
    }
}
