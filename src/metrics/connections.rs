//! What became of the connections to the API.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! reasons {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $of:literal])* $case:ident = $text:literal,)* }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $of])* $case,)* }

        impl $name {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$case,)*];

            /// The word of the metric's label.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$case => $text,)* }
            }
        }
    };
}

reasons! {
    /// Why a connection was closed before the client wanted it.
    Refused {
        /// The node had as many as it may have, and none that waited for its client.
        NodeLimit = "node_limit",
        /// The client's address had as many as it may have, and none that waited for its client.
        AddressLimit = "address_limit",
        /// It waited longest for its client when a newer one needed its place.
        Evicted = "evicted",
        /// The system gave no descriptor or no memory for it.
        System = "system",
        /// The TLS handshake failed.
        Handshake = "handshake",
        /// It did not speak TLS where that is spoken.
        Plaintext = "plaintext",
    }
}

reasons! {
    /// What a client took too long over.
    TimedOut {
        /// The TLS handshake.
        Handshake = "handshake",
        /// The head of a request.
        Head = "head",
        /// The body of a request.
        Body = "body",
        /// An answer that it did not read to its end.
        Answer = "answer",
        /// Nothing: it had asked nothing more.
        Idle = "idle",
        /// An event stream that it did not read, or any other byte.
        Silence = "silence",
    }
}

/// Since start, but for those open now.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    open: AtomicU64,
    accepted: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
    timed_out: [AtomicU64; TimedOut::ALL.len()],
    expires: AtomicU64,
}

impl ConnectionCounts {
    /// A connection was taken.
    pub fn opened(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection that was taken is gone.
    pub fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection was closed before the client wanted it.
    pub fn refused(&self, why: Refused) {
        if let Some(count) = self.refused.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A client took too long.
    pub fn timed_out(&self, over: TimedOut) {
        if let Some(count) = self.timed_out.get(over as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The certificate in use ends then, in seconds since 1970.
    pub fn certificate_expires(&self, unix_seconds: u64) {
        self.expires.store(unix_seconds, Ordering::Relaxed);
    }

    /// Connections open now, and taken since start.
    #[must_use]
    pub fn open_and_accepted(&self) -> (u64, u64) {
        (self.open.load(Ordering::Relaxed), self.accepted.load(Ordering::Relaxed))
    }

    /// Every reason with how many connections it ended.
    pub fn all_refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refused::ALL.iter().map(|why| why.text()).zip(values(&self.refused))
    }

    /// Everything that clients took too long over, and how often.
    pub fn all_timed_out(&self) -> impl Iterator<Item = (&'static str, u64)> {
        TimedOut::ALL.iter().map(|over| over.text()).zip(values(&self.timed_out))
    }

    /// When the certificate in use ends, in seconds since 1970; `None` without TLS.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        Some(self.expires.load(Ordering::Relaxed)).filter(|seconds| *seconds > 0)
    }
}

fn values(counts: &[AtomicU64]) -> impl Iterator<Item = u64> {
    counts.iter().map(|count| count.load(Ordering::Relaxed))
}
