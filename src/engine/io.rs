//! What goes into an engine and what comes out: datagrams with their paths, and the batch that the
//! caller lends for output.
//!
//! Owned by the shard, filled by the engine, on the shard's thread. Nothing here does I/O.

use std::net::{IpAddr, SocketAddr};

/// How a datagram travels. ICE-TCP frames (RFC 4571) are datagrams too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// A frame of a passive ICE-TCP connection.
    Tcp,
}

/// One way between a client and this node. Equal paths are the same ICE tuple.
///
/// Addresses are in their own family: IPv4 never appears mapped into IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// UDP or TCP; a TCP connection is named by its remote address.
    pub protocol: Protocol,
    /// The client's address.
    pub remote: SocketAddr,
    /// The address of this host at which the datagram arrived (`IP_PKTINFO`), and from which
    /// answers go out.
    pub local: IpAddr,
}

/// What became of a UDP path, for whoever steers datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathChange {
    /// ICE validated it: what comes over it is for this shard from now on.
    Added(Path),
    /// No transport of this shard has it any longer.
    Removed(Path),
}

/// One datagram as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Where from and where at.
    pub path: Path,
    /// The datagram (for TCP: the frame without its length).
    pub bytes: &'a [u8],
}

/// A train: consecutive datagrams for one receiver, all of `segment` bytes but the last, which may
/// be shorter. One message of `sendmmsg` (with `UDP_SEGMENT` when it has more than one segment).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Train {
    /// Where to.
    pub path: Path,
    /// First byte in the batch's buffer.
    start: usize,
    /// Bytes of all segments.
    len: usize,
    /// Bytes of each segment but the last.
    segment: usize,
    /// How many segments.
    segments: usize,
}

impl Train {
    /// Bytes of each segment but the last.
    #[must_use]
    pub fn segment(&self) -> usize {
        self.segment
    }

    /// How many datagrams the train holds.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments
    }
}

/// Output space lent to the engine: a buffer that stays in L2 and the trains in it.
#[derive(Debug)]
pub struct TransmitBatch {
    buffer: Box<[u8]>,
    used: usize,
    trains: Vec<Train>,
    trains_max: usize,
    segments_max: usize,
}

/// Bytes of a UDP payload at most (IPv4: 65,535 − 20 − 8), also for a whole train.
pub const TRAIN_BYTES_MAX: usize = 65_507;

impl TransmitBatch {
    /// Space for `bytes` of datagrams in at most `trains_max` messages, each of at most
    /// `segments_max` segments (1 where the kernel has no `UDP_SEGMENT`).
    #[must_use]
    pub fn new(bytes: usize, trains_max: usize, segments_max: usize) -> Self {
        Self {
            buffer: vec![0; bytes].into_boxed_slice(),
            used: 0,
            trains: Vec::with_capacity(trains_max),
            trains_max,
            segments_max: segments_max.max(1),
        }
    }

    /// Space for a datagram of at most `bytes`; `None` when the batch must be sent first.
    pub fn slot(&mut self, bytes: usize) -> Option<&mut [u8]> {
        if self.trains.len() == self.trains_max {
            return None;
        }
        self.buffer.get_mut(self.used..)?.get_mut(..bytes)
    }

    /// Makes the first `len` bytes of the last [`slot`](Self::slot) a datagram for `path`, joined to
    /// the train before it where the kernel's rules allow.
    pub fn commit(&mut self, path: Path, len: usize) {
        let start = self.used;
        self.used += len;
        if let Some(train) = self.trains.last_mut() {
            // All segments equal, only the last shorter: a shorter one ends the train.
            let open = train.len == train.segment * train.segments;
            if train.path == path
                && path.protocol == Protocol::Udp
                && open
                && len <= train.segment
                && train.segments < self.segments_max
                && train.len + len <= TRAIN_BYTES_MAX
            {
                train.len += len;
                train.segments += 1;
                return;
            }
        }
        self.trains.push(Train { path, start, len, segment: len, segments: 1 });
    }

    /// True when consecutive datagrams over `path` can be joined at all.
    #[must_use]
    pub fn joins(&self, path: &Path) -> bool {
        self.segments_max > 1 && path.protocol == Protocol::Udp
    }

    /// The trains to send, in order.
    #[must_use]
    pub fn trains(&self) -> &[Train] {
        &self.trains
    }

    /// The bytes of one train.
    #[must_use]
    pub fn bytes(&self, train: &Train) -> &[u8] {
        self.buffer.get(train.start..train.start + train.len).unwrap_or_default()
    }

    /// True when nothing waits to be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    /// Forgets what was sent.
    pub fn clear(&mut self) {
        self.used = 0;
        self.trains.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(port: u16) -> Path {
        Path {
            protocol: Protocol::Udp,
            remote: SocketAddr::from(([127, 0, 0, 1], port)),
            local: IpAddr::from([127, 0, 0, 1]),
        }
    }

    fn shape(batch: &TransmitBatch) -> Vec<(u16, usize, usize)> {
        batch
            .trains()
            .iter()
            .map(|t| (t.path.remote.port(), t.segments(), batch.bytes(t).len()))
            .collect()
    }

    #[test]
    fn equal_datagrams_for_one_receiver_form_a_train_that_a_shorter_one_ends() {
        let mut batch = TransmitBatch::new(10_000, 8, 16);
        for (port, len) in [(1, 100), (1, 100), (1, 60), (1, 60), (2, 60), (2, 61)] {
            assert!(batch.slot(len).is_some());
            batch.commit(path(port), len);
        }
        assert_eq!(shape(&batch), [(1, 3, 260), (1, 1, 60), (2, 1, 60), (2, 1, 61)]);
    }

    #[test]
    fn a_batch_refuses_more_than_its_space_and_its_trains() {
        let mut batch = TransmitBatch::new(250, 2, 1);
        for _ in 0..2 {
            assert!(batch.slot(100).is_some());
            batch.commit(path(1), 100);
        }
        assert!(batch.slot(10).is_none(), "two trains of one segment are all it may hold");
        batch.clear();
        assert!(batch.slot(251).is_none());
        assert!(batch.slot(250).is_some());
    }
}
