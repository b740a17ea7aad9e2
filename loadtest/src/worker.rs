//! The handle to one thread of the generator, and what it is told.
//!
//! What the thread does is [`Turner`]'s.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};

use crate::clock::Clock;
use crate::dtls::Identity;
use crate::endpoint::Opening;
use crate::marks::Marks;
use crate::plan::{Conduct, Encoding, Publication};
use crate::schedule::Pace;
use crate::socket::SocketOptions;
use crate::stream::Subscription;
use crate::tally::{Brief, Tally};
use crate::turner::Turner;

/// What a worker is told. Places number its endpoints.
#[derive(Debug)]
pub(crate) enum Order {
    /// Connect to a transport.
    Open {
        /// Where it will live; empty by now.
        place: usize,
        /// To what.
        opening: Opening,
    },
    /// Send an encoding once connected.
    Publish {
        /// Over which endpoint.
        place: usize,
        /// Of what.
        publication: Publication,
        /// Which.
        encoding: Encoding,
        /// Where to tell the window.
        marks: Arc<Marks>,
    },
    /// Expect a stream.
    Subscribe {
        /// Over which endpoint.
        place: usize,
        /// What.
        subscription: Subscription,
    },
    /// Close an endpoint's books: it is about to leave.
    Retire {
        /// Which.
        place: usize,
    },
    /// Close an endpoint's socket; its place may be used again by a later order.
    Close {
        /// Which.
        place: usize,
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
    /// Tell briefly what was counted since the last time. Once a window is over, its ends are
    /// written for all who receive before this is answered.
    Brief(Sender<Brief>),
    /// Close the books of the window (what was due, silent streams, drops, protections) and hand
    /// over everything counted since the last time. Every worker must have answered
    /// [`Brief`](Self::Brief) since the window was over: receivers count against its ends.
    HandOver(Sender<Box<Tally>>),
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
    pub(crate) failures: Sender<Failure>,
}

/// Why an endpoint failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It could not be opened here.
    Ours(String),
    /// Its server said nothing for too long, or what it said was wrong.
    Lost(String),
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
    /// How clients behave.
    pub(crate) conduct: Conduct,
    /// How long datagrams may gather, ns; zero reads at once.
    pub(crate) gather: u64,
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

    /// A way to hand it orders.
    pub(crate) fn orders(&self) -> Sender<Order> {
        self.orders.clone()
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
