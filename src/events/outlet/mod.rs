//! The ways of room events out of the node: to Kafka, and to a webhook.
//!
//! [`Outlets`] belongs to the control thread: it puts each event into the bounded queue of each
//! outlet and goes on; what finds it full is refused and counted. Behind the queue, each outlet has
//! a thread of its own with a [`Backlog`]: a window in memory, then a [`Spool`] on disk where a
//! folder was named. Invariants: nothing here waits for a destination but its own thread; every
//! message accepted is delivered (at least once, in order per room), failed for good, waiting or
//! lost, and counted as that: `accepted = delivered + failed + lost + waiting`. A message that is
//! delivered twice has the same [`id`](Message::id). With a spool, a process that is killed loses
//! what happened in its last two [`OUTLET_KEEP_PERIOD`]s and was not delivered; without one, all
//! that waited.

mod backlog;
mod counts;
mod message;
mod spool;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError, Sender, bounded, never, tick};

pub use self::backlog::{Backlog, Number};
pub use self::counts::OutletCounts;
pub(crate) use self::counts::is_worth_a_line;
pub use self::message::{Message, Topic};
pub use self::spool::{Spool, SpoolError};
use super::{Entry, RoomEvent, chat, kafka, webhook};
use crate::config::{KafkaConfig, WebhookConfig};
use crate::id::{PeerId, RoomId};
use crate::limits::{
    OUTLET_KEEP_PERIOD, OUTLET_QUEUE, OUTLET_QUEUE_BYTES_MAX, OUTLET_STOP_TIMEOUT, OUTLET_TURN,
};

/// Where events go beside their readers. Clones share it; the default has no outlets.
#[derive(Debug, Clone, Default)]
pub struct Outlets {
    kafka: Option<KafkaTap>,
    webhook: Option<Tap>,
}

#[derive(Debug, Clone)]
struct KafkaTap {
    tap: Tap,
    whole_log: bool,
}

/// The control thread's end of an outlet.
#[derive(Debug, Clone)]
struct Tap {
    name: &'static str,
    queue: Sender<Message>,
    queued_bytes: Arc<AtomicUsize>,
    counts: Arc<OutletCounts>,
}

/// One outlet, as metrics tell it.
#[derive(Debug, Clone)]
pub struct OutletView {
    /// `kafka` or `webhook`.
    pub name: &'static str,
    /// What became of its messages.
    pub counts: Arc<OutletCounts>,
}

/// The threads behind the outlets.
#[derive(Debug, Default)]
pub struct OutletThreads(Vec<Running>);

#[derive(Debug)]
struct Running {
    name: &'static str,
    stop: Sender<()>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Outlets {
    /// Starts what is configured. With a folder, each outlet has its spool in it.
    ///
    /// # Errors
    /// When a spool or a thread cannot be had, or librdkafka refuses a setting. A destination that
    /// is not there is no error.
    pub fn start(
        kafka: Option<&KafkaConfig>,
        webhook: Option<&WebhookConfig>,
        spool: Option<&Path>,
    ) -> io::Result<(Self, OutletThreads)> {
        let mut threads = OutletThreads::default();
        let mut outlets = Self::default();
        if let Some(config) = kafka {
            let carrier = kafka::Kafka::new(config)?;
            let tap = threads.start("kafka", spool, |intake| carrier.run(intake))?;
            let whole_log = config.room_events_topic.is_some();
            outlets.kafka = Some(KafkaTap { tap, whole_log });
        }
        if let Some(config) = webhook {
            let carrier = webhook::Webhook::new(config)?;
            let tap = threads.start("webhook", spool, |intake| carrier.run(intake))?;
            outlets.webhook = Some(tap);
        }
        Ok((outlets, threads))
    }

    /// Passes on what happened in a room; `leaver` is who left it last.
    pub fn offer(&self, room: &RoomId, entry: &Entry, event: &RoomEvent, leaver: Option<&PeerId>) {
        let message = |topic, body| Message {
            topic,
            room: room.clone(),
            id: entry.id,
            unix_ms: entry.unix_ms,
            body,
        };
        if let Some(KafkaTap { tap, whole_log }) = &self.kafka {
            if let Some(body) = chat::message(room, event, leaver) {
                tap.offer(message(Topic::Chat, body));
            }
            if *whole_log {
                tap.offer(message(Topic::RoomEvents, entry.text()));
            }
        }
        if let Some(tap) = &self.webhook {
            tap.offer(message(Topic::RoomEvents, entry.text()));
        }
    }

    /// The queue of some outlet is more than half full: who can wait with more events had better.
    #[must_use]
    pub fn are_behind(&self) -> bool {
        let mut taps = self.kafka.iter().map(|kafka| &kafka.tap).chain(&self.webhook);
        taps.any(|tap| {
            tap.queue.len() > OUTLET_QUEUE / 2
                || tap.queued_bytes.load(Ordering::Relaxed) > OUTLET_QUEUE_BYTES_MAX / 2
        })
    }

    /// The outlets there are.
    #[must_use]
    pub fn views(&self) -> Vec<OutletView> {
        let taps = self.kafka.iter().map(|kafka| &kafka.tap).chain(&self.webhook);
        taps.map(|tap| OutletView { name: tap.name, counts: Arc::clone(&tap.counts) }).collect()
    }
}

impl Tap {
    fn offer(&self, message: Message) {
        let size = message.size();
        let queued = self.queued_bytes.fetch_add(size, Ordering::Relaxed);
        if queued <= OUTLET_QUEUE_BYTES_MAX && self.queue.try_send(message).is_ok() {
            OutletCounts::add(&self.counts.accepted, 1);
            return;
        }
        self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
        let times = OutletCounts::add(&self.counts.refused, 1);
        if is_worth_a_line(times) {
            tracing::error!(outlet = self.name, times, "events refused: the queue is full");
        }
    }
}

/// An outlet's own end: what it is given, and what it still has.
#[derive(Debug)]
pub(crate) struct Intake {
    name: &'static str,
    pub(crate) queue: Receiver<Message>,
    pub(crate) stop: Receiver<()>,
    /// When to [`keep`](Self::keep).
    pub(crate) keep: Receiver<Instant>,
    /// The disk did not take what it should keep, and that was told.
    keeps_badly: bool,
    pub(crate) backlog: Backlog,
    pub(crate) counts: Arc<OutletCounts>,
    queued_bytes: Arc<AtomicUsize>,
    // Tells by its end that the thread has ended.
    _running: Sender<()>,
}

impl Intake {
    /// Takes over what came from the queue, and what else is in it; false when nobody is left who
    /// could give more.
    pub(crate) fn take(&mut self, given: Result<Message, RecvError>) -> bool {
        let Ok(message) = given else { return false };
        self.push(message);
        self.fill();
        true
    }

    /// Takes a message over into the backlog.
    fn push(&mut self, message: Message) {
        self.queued_bytes.fetch_sub(message.size(), Ordering::Relaxed);
        if let Err(error) = self.backlog.push(message) {
            self.lose(1, &error);
        }
    }

    fn lose(&self, messages: usize, error: &SpoolError) {
        let times = OutletCounts::add(&self.counts.lost, messages);
        if messages > 1 || is_worth_a_line(times) {
            tracing::error!(outlet = self.name, times, %error, "events lost");
        }
    }

    /// Takes over what else is in the queue, at most a turn's worth; false when it is empty.
    pub(crate) fn fill(&mut self) -> bool {
        for _ in 0..OUTLET_TURN {
            match self.queue.try_recv() {
                Ok(message) => self.push(message),
                Err(_) => return false,
            }
        }
        true
    }

    /// Puts on disk what has waited for a while, for the next process should this one be killed.
    pub(crate) fn keep(&mut self) {
        let kept = self.backlog.keep();
        if let (Err(error), false) = (&kept, self.keeps_badly) {
            tracing::error!(outlet = self.name, %error, "what waits is in memory alone");
        }
        self.keeps_badly = kept.is_err();
    }

    /// Counts messages as delivered.
    pub(crate) fn delivered(&mut self, number: Number) {
        self.backlog.done(number);
        OutletCounts::add(&self.counts.delivered, 1);
    }

    /// Gives a message up that its destination will never take.
    pub(crate) fn failed(&mut self, number: Number, reason: &str) {
        self.backlog.done(number);
        let times = OutletCounts::add(&self.counts.failed, 1);
        if is_worth_a_line(times) {
            tracing::error!(outlet = self.name, times, reason, "an event was refused for good");
        }
    }

    /// Says whether the destination takes messages; a change is logged.
    pub(crate) fn is_up(&self, up: bool, reason: &str) {
        if self.counts.up.swap(up, Ordering::Relaxed) == up {
            return;
        }
        if up {
            tracing::info!(outlet = self.name, "events are delivered");
        } else {
            tracing::warn!(outlet = self.name, reason, "events are not delivered, and wait");
        }
    }

    pub(crate) fn tell_backlog(&self) {
        let waiting = self.backlog.len() + self.queue.len();
        self.counts.tell_backlog(waiting, self.backlog.spooled_bytes());
    }

    /// Ends: what is left goes to disk, or is lost.
    pub(crate) fn close(mut self) {
        while self.fill() {}
        let backlog = std::mem::take(&mut self.backlog);
        let left = backlog.len();
        match backlog.close() {
            Ok(()) if left > 0 => {
                tracing::info!(outlet = self.name, left, "events wait on disk for the next start");
            }
            Ok(()) => {}
            Err((lost, error)) => self.lose(lost, &error),
        }
    }
}

impl OutletThreads {
    fn start(
        &mut self,
        name: &'static str,
        spool: Option<&Path>,
        run: impl FnOnce(Intake) + Send + 'static,
    ) -> io::Result<Tap> {
        let spool = spool.map(|folder| open(&folder.join(name))).transpose()?;
        let keep = if spool.is_some() { tick(OUTLET_KEEP_PERIOD) } else { never() };
        let backlog = Backlog::new(spool);
        let (queue, taken) = bounded(OUTLET_QUEUE);
        let (stop, stopping) = bounded(1);
        let (running, ended) = bounded(0);
        let counts = Arc::new(OutletCounts::default());
        OutletCounts::add(&counts.accepted, backlog.len());
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let intake = Intake {
            name,
            queue: taken,
            stop: stopping,
            keep,
            keeps_badly: false,
            backlog,
            counts: Arc::clone(&counts),
            queued_bytes: Arc::clone(&queued_bytes),
            _running: running,
        };
        intake.tell_backlog();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(|| run(intake))?;
        self.0.push(Running { name, stop, ended, thread });
        Ok(Tap { name, queue, queued_bytes, counts })
    }

    /// Lets the outlets deliver what they can within
    /// [`OUTLET_FLUSH_TIMEOUT`](crate::limits::OUTLET_FLUSH_TIMEOUT) and put the rest on disk; waits
    /// for at most [`OUTLET_STOP_TIMEOUT`] each.
    pub fn stop(self) {
        for outlet in &self.0 {
            // Who has ended by itself is told nothing.
            let _ = outlet.stop.try_send(());
        }
        for Running { name, ended, thread, .. } in self.0 {
            // Nothing is ever sent: it ends with its sender, which the thread owns.
            match ended.recv_timeout(OUTLET_STOP_TIMEOUT) {
                Err(RecvTimeoutError::Timeout) => {
                    tracing::error!(outlet = name, "the outlet does not end");
                }
                _ if thread.join().is_err() => {
                    tracing::error!(outlet = name, "the outlet's thread has panicked");
                }
                _ => {}
            }
        }
    }
}

fn open(folder: &Path) -> io::Result<Spool> {
    let because = |error| {
        io::Error::other(format!("the spool in {} cannot be used: {error}", folder.display()))
    };
    Spool::open(folder).map_err(because)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A webhook's outlet whose thread is the test.
    pub(crate) fn played() -> (Outlets, Intake) {
        let (tell, told) = bounded(1);
        let run = move |intake| tell.send(intake).unwrap();
        let tap = OutletThreads::default().start("webhook", None, run).unwrap();
        (Outlets { kafka: None, webhook: Some(tap) }, told.recv().unwrap())
    }

    /// A webhook's outlet whose thread runs this.
    pub(crate) fn running(run: impl FnOnce(Intake) + Send + 'static) -> (Outlets, OutletThreads) {
        let mut threads = OutletThreads::default();
        let tap = threads.start("webhook", None, run).unwrap();
        (Outlets { kafka: None, webhook: Some(tap) }, threads)
    }

    impl Intake {
        /// Takes what is in the queue, and is done with it; how much that was.
        pub(crate) fn discard(&self) -> usize {
            let taken = self.queue.try_iter();
            taken
                .inspect(|message| {
                    self.queued_bytes.fetch_sub(message.size(), Ordering::Relaxed);
                })
                .count()
        }
    }
}
