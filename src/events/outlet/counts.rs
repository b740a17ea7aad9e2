//! What became of the messages of one outlet, told to metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident, $help:literal;)*) => {
        /// Counters of one outlet, written by both of its sides.
        #[derive(Debug, Default)]
        pub struct OutletCounts {
            $($(#[$doc])* pub $name: AtomicU64,)*
            /// Messages accepted and neither delivered nor given up.
            pub waiting: AtomicU64,
            /// Bytes of the spool on disk.
            pub spooled_bytes: AtomicU64,
            /// The destination takes messages, as far as is known.
            pub up: AtomicBool,
        }

        impl OutletCounts {
            /// Name, help and value of each counter.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $help, self.$name.load(Ordering::Relaxed)),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Taken over: from the room's log, or from the spool of an earlier process.
    accepted, "Messages taken over, from rooms or from the spool of an earlier process.";
    /// Acknowledged by the destination.
    delivered, "Messages that the destination has acknowledged.";
    /// Refused by the destination for good.
    failed, "Messages that the destination has refused for good.";
    /// Accepted, and lost because no memory or disk was left for them, or at the end.
    lost, "Accepted messages lost because window and spool were full, or no spool was there at the end.";
    /// Not even accepted.
    refused, "Messages not accepted because the outlet's queue was full.";
    /// Attempts made again.
    retries, "Deliveries attempted again.";
}

impl OutletCounts {
    /// Adds to one of the counters.
    pub(crate) fn add(counter: &AtomicU64, more: usize) -> u64 {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        counter.fetch_add(more, Ordering::Relaxed) + more
    }

    /// Value of one of them.
    #[must_use]
    pub fn of(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// Sets what is told of the backlog.
    pub(crate) fn tell_backlog(&self, waiting: usize, spooled_bytes: u64) {
        self.waiting.store(u64::try_from(waiting).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.spooled_bytes.store(spooled_bytes, Ordering::Relaxed);
    }
}

/// True for the 1st, 2nd, 4th, 8th … time: what may happen at any rate is logged that often.
#[must_use]
pub(crate) fn is_worth_a_line(times: u64) -> bool {
    times.is_power_of_two()
}
