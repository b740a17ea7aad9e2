//! Reads ahead: what sealing for a receiver touches is brought into the cache for several receivers
//! at once.
//!
//! Between two bursts the kernel's send path and other work displace what a shard knows of its
//! receivers, and a receiver's state lies on some thirty cache lines. Met one behind the other, each
//! costs the whole way to memory (230 ns on a shared machine, most of what forwarding cost there
//! outside of ciphers and kernel); loads that do not wait for each other overlap. So each pass here
//! reads, of every receiver that is next, what can be found without a miss that the pass before has
//! not paid for. It changes nothing, and nothing but time depends on it.
//!
//! Called on the shard's thread: before a batch of datagrams is taken, before the consumers of what
//! it brought become due, and before a part of the due transports is filled.

use std::array;
use std::hint::black_box;

use crate::engine::consumer::Consumer;
use crate::engine::demux::PacketClass;
use crate::engine::io::Received;
use crate::engine::producer::Producer;
use crate::engine::rtp::RtpView;
use crate::engine::stream::Stream;
use crate::engine::transport::Transport;
use crate::engine::{ConsumerKey, Engine, StreamKey, TransportKey};
use crate::limits::{WARM_CONSUMERS, WARM_STREAMS, WARM_TRANSPORTS};

/// A media datagram that will be taken in a moment.
#[derive(Debug, Clone, Copy)]
struct Coming {
    transport: TransportKey,
    /// Of an RTP packet; `None` is RTCP.
    ssrc: Option<u32>,
    stream: Option<StreamKey>,
}

/// Adds values up; what they are does not matter.
fn sum(values: impl Iterator<Item = usize>) -> usize {
    values.fold(0, usize::wrapping_add)
}

impl Engine {
    /// Reads what the first of these datagrams need, if they come from more than one client.
    pub(super) fn warm_arrivals<'a>(&self, batch: &mut dyn Iterator<Item = Received<'a>>) {
        let mut coming: [Option<Coming>; WARM_TRANSPORTS] =
            array::from_fn(|_| self.coming(&batch.next()?));
        let first = coming.iter().flatten().next().map(|first| first.transport);
        if coming.iter().flatten().all(|coming| Some(coming.transport) == first) {
            return;
        }
        let transport = |coming: &Coming| self.transports.get(coming.transport);
        let of = |read: fn(&Transport) -> usize| {
            sum(coming.iter().flatten().filter_map(transport).map(read))
        };
        let mut read = of(Transport::warm_reception) + of(Transport::warm_tuples);
        for coming in coming.iter_mut().flatten() {
            let Some(transport) = self.transports.get(coming.transport) else { continue };
            match coming.ssrc {
                Some(ssrc) => coming.stream = transport.incoming.stream_of(ssrc),
                None => read = read.wrapping_add(transport.warm_outgoing()),
            }
        }
        let streams = || coming.iter().flatten().filter_map(|coming| coming.stream);
        let streams = || streams().filter_map(|key| self.streams.get(key));
        read = read.wrapping_add(sum(streams().map(Stream::warm)));
        read = read.wrapping_add(sum(streams().map(|stream| stream.ring.warm())));
        black_box(read);
    }

    fn coming(&self, received: &Received<'_>) -> Option<Coming> {
        let ssrc = match PacketClass::of(received.bytes) {
            PacketClass::Rtp => Some(RtpView::parse(received.bytes)?.ssrc),
            PacketClass::Rtcp => None,
            PacketClass::Stun | PacketClass::Dtls | PacketClass::Other => return None,
        };
        let transport = self.demux.transport_at(&received.path)?;
        Some(Coming { transport, ssrc, stream: None })
    }

    /// Reads what makes the consumers of the streams due that brought something.
    pub(super) fn warm_routes(&self) {
        let dirty = || self.dirty.iter().rev().take(WARM_STREAMS);
        let producer = |key: &StreamKey| self.producers.get(self.streams.get(*key)?.producer);
        let consumers = || {
            let keys = dirty().filter_map(producer).flat_map(Producer::first_consumers);
            keys.filter_map(|key| self.consumers.get(*key))
        };
        let transports = || consumers().filter_map(|c| self.transports.get(c.transport));
        let read = sum(dirty().filter_map(producer).map(|producer| producer.consumers.len()))
            + sum(consumers().map(Consumer::warm_due))
            + sum(transports().map(Transport::warm_due));
        black_box(read);
    }

    /// Reads what the next due transports need, unless that was done for them already.
    pub(super) fn warm_next(&mut self) {
        if self.warm > 0 {
            self.warm -= 1;
            return;
        }
        self.warm = self.due.len().min(WARM_TRANSPORTS);
        // One alone is sealed for as fast as it is read ahead of.
        if self.warm > 1 {
            let of = |read: fn(&Transport) -> usize| self.sum_due(read);
            let read = of(Transport::warm)
                + self.sum_due(|transport| self.sum_consumers(transport, Consumer::warm))
                + of(Transport::warm_outgoing)
                + self.sum_due(|transport| self.sum_consumers(transport, Consumer::warm_codecs))
                + of(Transport::warm_estimator)
                + of(Transport::warm_history);
            black_box(read);
        }
        self.warm = self.warm.saturating_sub(1);
    }

    fn sum_due(&self, read: impl Fn(&Transport) -> usize) -> usize {
        let next = self.due.iter().take(self.warm);
        sum(next.filter_map(|key| self.transports.get(*key)).map(read))
    }

    fn sum_consumers(&self, transport: &Transport, read: fn(&Consumer) -> usize) -> usize {
        let keys = transport.due_consumers.iter().take(WARM_CONSUMERS);
        sum(keys.filter_map(|key| self.consumers.get(*key)).map(read))
    }
}

impl Producer {
    fn first_consumers(&self) -> impl Iterator<Item = &ConsumerKey> {
        self.consumers.iter().take(WARM_CONSUMERS)
    }
}

// Of each struct a value of every cache line that is needed, as far as the compiler's order of the
// fields lets one tell.

impl Transport {
    /// For a datagram that arrives.
    fn warm_reception(&self) -> usize {
        let srtp = self.srtp.as_ref().map_or(0, |srtp| srtp.opener.warm());
        let feedback = self.feedback.as_ref().map_or(0, |feedback| feedback.warm());
        srtp + feedback
            + self.incoming.len()
            + self.out_ssrcs.len()
            + usize::from(self.connection.selected().is_some())
            + usize::from(self.connected)
            + usize::from(self.outgoing.is_some())
    }

    /// What lies behind that.
    fn warm_tuples(&self) -> usize {
        self.connection.warm()
    }

    /// For becoming due.
    fn warm_due(&self) -> usize {
        usize::from(self.due) + self.due_consumers.len()
    }

    /// For sealing.
    fn warm(&self) -> usize {
        let path = self.connection.selected().map_or(0, |path| path.remote.port());
        let srtp = self.srtp.as_ref().map_or(0, |srtp| srtp.sealer.warm());
        self.due_consumers.len()
            + self.consumers.len()
            + usize::from(self.rtcp.front().is_some())
            + usize::from(self.connection.has_output())
            + usize::from(self.outgoing.is_some())
            + usize::from(self.transport_seq)
            + usize::from(path)
            + srtp
    }

    fn warm_outgoing(&self) -> usize {
        self.outgoing.as_ref().map_or(0, |outgoing| outgoing.warm())
    }

    fn warm_estimator(&self) -> usize {
        self.outgoing.as_ref().map_or(0, |outgoing| outgoing.estimator().warm())
    }

    fn warm_history(&self) -> usize {
        self.outgoing
            .as_ref()
            .map_or(0, |outgoing| outgoing.estimator().warm_history(self.transport_seq))
    }
}

impl Stream {
    /// For a packet that arrives.
    fn warm(&self) -> usize {
        usize::from(self.ssrc.is_some())
            + usize::from(self.highest.is_some())
            + usize::from(self.nack.is_some())
            + usize::from(self.key_frames.next_deadline().is_some())
            + usize::from(self.templates.is_some())
            + usize::from(self.paused)
            + self.tally.media.warm()
            + self.reception.warm()
            + self.activity.warm()
            + self.rate.warm()
    }
}

impl Consumer {
    /// For becoming due.
    fn warm_due(&self) -> usize {
        usize::from(self.due)
            + usize::from(self.due_since.is_some())
            + usize::from(self.playing.is_some())
    }

    /// For sealing.
    fn warm(&self) -> usize {
        usize::from(self.left.is_some())
            + self.seq.warm()
            + self.codecs.len()
            + self.sent.warm()
            + self.repairs.len()
            + usize::from(self.due_since.is_some())
            + self.header.warm()
            + usize::from(self.playing.is_some())
            + usize::from(self.numbered)
            + usize::from(self.fresh)
    }

    fn warm_codecs(&self) -> usize {
        self.codecs.first().map_or(0, |codec| usize::from(codec.sent_as))
    }
}
