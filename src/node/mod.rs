//! Builds threads and lanes, starts and stops them; the only module naming both runtimes.
//!
//! Called by `main` and by tests, on the thread that will hold the [`Node`]. It binds one UDP
//! socket and one TCP listener per shard to the one media port, pins each shard's thread to a
//! usable core, and hands out the control side of the lanes ([`ShardLinks`]). Invariants: after
//! [`Node::start`] returns, every shard runs; after [`Node::stop`] none does. A panic on a shard's
//! thread is logged and ends the process: half a node must not look alive. It knows no room and no
//! packet.

mod lanes;
mod ports;
pub(crate) mod probe;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use glommio::{LocalExecutorBuilder, Placement};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::control::command::FromShard;
use crate::engine::machine::Machine;
use crate::id::ShardId;
use crate::lane::{LaneReceiver, LaneSender, Waker};
use crate::limits::{SHARDS_MAX, START_TIMEOUT, STOP_TIMEOUT};
pub use crate::shard::ShardMessage;
pub use crate::shard::handoff::StunOwner;
use crate::shard::run::clock;
use crate::shard::{Shard, ShardSetup};

/// Bytes of a glommio executor's buffers and entries of its rings: a shard only parks in it (the
/// defaults would take 10 MiB of locked memory).
const GLOMMIO_BUFFER_BYTES: usize = 64 * 1024;
const GLOMMIO_RING_DEPTH: usize = 32;

/// What runs a shard's loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// glommio, or a plain thread where io_uring is refused.
    Glommio,
    /// A plain thread.
    Plain,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct NodeSetup<F> {
    /// Shards, 1 to [`SHARDS_MAX`]; more than cores is allowed.
    pub shards: usize,
    /// The one address to listen on; `None` is all, of both families where the host has IPv6.
    pub listen: Option<IpAddr>,
    /// UDP and TCP port; 0 takes a free one.
    pub media_port: u16,
    /// Accept ICE-TCP connections on the same port number.
    pub tcp: bool,
    /// Pin each shard to a core, round robin over the usable ones.
    pub pin: bool,
    /// What runs the shards.
    pub runtime: Runtime,
    /// Have the kernel steer datagrams to their shard, where it is permitted; it reads STUN as
    /// [`crate::engine::demux::stun_owner`] does. Shards hand over what reaches the wrong one
    /// either way.
    pub steer: bool,
    /// How long datagrams may gather that come close together; zero: each wakes its shard.
    pub coalesce: Duration,
    /// Reads the owning shard out of a STUN request.
    pub stun_owner: StunOwner,
    /// Makes a shard's machine; called on the shard's thread.
    pub machine: F,
}

/// Why a node did not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The number of shards is zero or beyond [`SHARDS_MAX`].
    #[error("{0} shards: must be 1 to {SHARDS_MAX}")]
    Shards(usize),
    /// The media port cannot be had.
    #[error("cannot listen on {address} for media: {error}")]
    Bind {
        /// Which address and port.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// A shard's thread or descriptors could not be made.
    #[error("cannot start shard {shard}: {error}")]
    Start {
        /// Which shard.
        shard: ShardId,
        /// What the kernel said.
        error: io::Error,
    },
    /// Shards did not end within [`STOP_TIMEOUT`].
    #[error("{0} shards did not stop in time")]
    Stop(usize),
}

/// The control thread's ends of the lanes.
#[derive(Debug)]
pub struct ShardLinks {
    /// Into each shard, by its id. A full lane is a [`Refusal::Overloaded`].
    ///
    /// [`Refusal::Overloaded`]: crate::control::command::Refusal::Overloaded
    pub senders: Vec<LaneSender<ShardMessage>>,
    /// From each shard, by its id. One lane each, so that an answer always finds the room that was
    /// seen before its command was taken, and lost events tell whose they were.
    pub from_shards: Vec<LaneReceiver<FromShard>>,
    /// Wakes the control thread when something came from a shard.
    pub waker: Waker,
}

/// The running shards.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<ShardThread>,
    on_glommio: bool,
    steering: bool,
}

#[derive(Debug)]
struct ShardThread {
    waker: Waker,
    handle: JoinHandle<()>,
    /// Disconnected when the thread ends.
    ended: Receiver<()>,
}

/// What a shard's thread tells its starter: whether it runs on glommio.
type Started = Result<bool, io::Error>;

impl Node {
    /// Binds the media port and starts every shard.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is left running.
    pub fn start<M, F>(setup: NodeSetup<F>) -> Result<(Self, ShardLinks), NodeError>
    where
        M: Machine,
        F: Fn(ShardId) -> M + Clone + Send + 'static,
    {
        if !(1..=SHARDS_MAX).contains(&setup.shards) {
            return Err(NodeError::Shards(setup.shards));
        }
        let ids = (0..=u16::MAX).map(ShardId).take(setup.shards);
        let (address, sockets) = ports::bind_group(&setup)?;
        let stop = Arc::new(AtomicBool::new(false));
        let flows = ports::steer(&setup, &sockets);
        let steering = flows.is_some();
        let (links, setups) = lanes::connect(&setup, sockets, flows.as_ref(), &stop)
            .map_err(|error| NodeError::Start { shard: ShardId(0), error })?;
        let mut node = Self { address, stop, threads: Vec::new(), on_glommio: true, steering };
        let cores = if setup.pin { usable_cores() } else { Vec::new() };
        for ((shard, shard_setup), core) in ids.zip(setups).zip(cores_for(&cores)) {
            // On an error `node` is dropped, which ends those that run.
            let on_glommio = node
                .start_shard(shard_setup, core, setup.runtime, setup.machine.clone())
                .map_err(|error| NodeError::Start { shard, error })?;
            node.on_glommio &= on_glommio;
        }
        tracing::info!(
            address = %node.address,
            shards = setup.shards,
            on_glommio = node.on_glommio,
            steering = node.steering,
            "media port open"
        );
        Ok((node, links))
    }

    fn start_shard<M, F>(
        &mut self,
        setup: ShardSetup,
        core: Option<usize>,
        runtime: Runtime,
        machine: F,
    ) -> Started
    where
        M: Machine,
        F: Fn(ShardId) -> M + Send + 'static,
    {
        let (started, has_started) = crossbeam_channel::bounded(1);
        let (running, ended) = crossbeam_channel::bounded(0);
        let waker = setup.waker.clone();
        let handle =
            std::thread::Builder::new().name(format!("shard-{}", setup.id)).spawn(move || {
                let _alive = Alive { shard: setup.id, _running: running };
                run_shard(setup, core, runtime, machine, &started);
            })?;
        self.threads.push(ShardThread { waker, handle, ended });
        has_started.recv_timeout(START_TIMEOUT).unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    }

    /// The address all shards receive media at; its port is the real one.
    #[must_use]
    pub fn media_address(&self) -> SocketAddr {
        self.address
    }

    /// True when every shard runs on glommio.
    #[must_use]
    pub fn is_on_glommio(&self) -> bool {
        self.on_glommio
    }

    /// True when the kernel steers datagrams to their shards.
    #[must_use]
    pub fn is_steering(&self) -> bool {
        self.steering
    }

    /// Ends every shard and waits for its thread, [`STOP_TIMEOUT`] for all together.
    ///
    /// # Errors
    /// [`NodeError::Stop`] when threads are left.
    pub fn stop(mut self) -> Result<(), NodeError> {
        self.signal_stop();
        let deadline = clock() + STOP_TIMEOUT;
        let mut left = 0;
        for thread in self.threads.drain(..) {
            // Nothing is ever sent: the wait ends when the thread drops its end, or in time-out.
            let _ = thread.ended.recv_deadline(deadline);
            if has_ended(&thread) {
                let _ = thread.handle.join();
            } else {
                left += 1;
            }
        }
        if left == 0 { Ok(()) } else { Err(NodeError::Stop(left)) }
    }

    fn signal_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in &self.threads {
            thread.waker.wake();
        }
    }
}

/// True when the thread dropped its end (it may be a few instructions from its end).
fn has_ended(thread: &ShardThread) -> bool {
    thread.handle.is_finished()
        || thread.ended.try_recv() == Err(crossbeam_channel::TryRecvError::Disconnected)
}

impl Drop for Node {
    fn drop(&mut self) {
        self.signal_stop();
    }
}

/// Held by a shard's thread while it lives.
struct Alive {
    shard: ShardId,
    _running: Sender<()>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(shard.id = %self.shard, "panic on a shard: ending the process");
            // A node with a dead shard must not look alive.
            std::process::exit(70);
        }
    }
}

/// The body of a shard's thread.
fn run_shard<M, F>(
    setup: ShardSetup,
    core: Option<usize>,
    runtime: Runtime,
    machine: F,
    started: &Sender<Started>,
) where
    M: Machine,
    F: Fn(ShardId) -> M,
{
    let id = setup.id;
    if let Some(core) = core {
        let mut set = CpuSet::new();
        set.set(core);
        if let Err(error) = sched_setaffinity(None, &set) {
            tracing::warn!(shard.id = %id, core, %error, "cannot pin the shard");
        }
    }
    let executor = match runtime {
        Runtime::Glommio => executor(id),
        Runtime::Plain => None,
    };
    let shard = match Shard::new(setup, machine(id), clock()) {
        Ok(shard) => shard,
        Err(error) => return tell(started, Err(error)),
    };
    let Some(executor) = executor else {
        tell(started, Ok(false));
        return shard.run_plain();
    };
    tell(started, Ok(true));
    let ran = executor.run(shard.run_on_glommio());
    assert!(ran.is_ok(), "a shard's descriptors were made at its start: {ran:?}");
}

fn tell(started: &Sender<Started>, what: Started) {
    // The starter has given up waiting: it stops the node.
    let _ = started.send(what);
}

/// A glommio executor on this thread, or `None` where io_uring is refused (a container's seccomp
/// profile, `kernel.io_uring_disabled`, a small memlock limit).
fn executor(shard: ShardId) -> Option<glommio::LocalExecutor> {
    match executor_named(&format!("shard-{shard}")) {
        Ok(executor) => Some(executor),
        Err(error) => {
            tracing::warn!(shard.id = %shard, %error, "io_uring refused: plain thread");
            None
        }
    }
}

fn executor_named(name: &str) -> glommio::Result<glommio::LocalExecutor, ()> {
    // Unbound: the thread is pinned already, and then in the same way with and without glommio.
    // Made here and not spawned, because a spawned executor panics where it cannot be made.
    LocalExecutorBuilder::new(Placement::Unbound)
        .name(name)
        .io_memory(GLOMMIO_BUFFER_BYTES)
        .ring_depth(GLOMMIO_RING_DEPTH)
        .make()
}

/// The cores this process may run on, no more of them than its CPU quota pays for.
#[must_use]
pub fn usable_cores() -> Vec<usize> {
    // Counts affinity and cgroup quotas (v1 and v2).
    let paid = std::thread::available_parallelism().map_or(1, usize::from);
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).take(paid).collect()
}

/// A core for each shard, round robin; without cores, none.
fn cores_for(cores: &[usize]) -> impl Iterator<Item = Option<usize>> {
    let pinned = cores.iter().copied().map(Some).cycle();
    pinned.chain(std::iter::repeat(None))
}
