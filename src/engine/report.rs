//! What a shard reports by value once a second: counters that only grow, gauges that are now.
//!
//! The engine owns its [`Counters`] and increments them as plain integers; the shard adds what only
//! it sees ([`IoCounters`]). Nothing here is shared between threads.

use std::time::Duration;

use crate::id::ShardId;
use crate::limits::SEGMENTS_PER_TRAIN_MAX;
use crate::metrics::buckets::{Buckets, Estimate, TurnLength};
use crate::metrics::latency::LatencyInterval;

/// Declares a struct of `u64` counters with their metric names.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $(#[doc = $help:literal] $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name { $(#[doc = $help] pub $field: u64,)* }

        impl $name {
            /// Every counter with its name and, for operators, what it counts: its own line of
            /// documentation.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + use<> {
                [$((stringify!($field), $help, self.$field)),*].into_iter()
            }
        }
    };
}

counters! {
    /// What an engine counts.
    Counters {
        /// Media packets accepted (after SRTP).
        packets_in,
        /// Bytes of media datagrams accepted.
        bytes_in,
        /// Media packets sealed for receivers, retransmissions included.
        packets_out,
        /// Bytes of media datagrams sealed for receivers.
        bytes_out,
        /// Bytes of RTP padding sent that made packets equal, so that they form trains.
        padding_bytes,
        /// Bytes sent to see whether more would pass.
        probe_bytes,
        /// RTCP datagrams accepted.
        rtcp_in,
        /// RTCP datagrams sealed.
        rtcp_out,
        /// STUN requests answered with success.
        stun_in,
        /// DTLS datagrams accepted.
        dtls_in,
        /// DTLS handshakes completed.
        dtls_connected,
        /// Packets asked of publishers again.
        nacks_sent,
        /// Packets asked of us again.
        nacks_received,
        /// Packets sent again.
        retransmitted,
        /// Packets asked of us again that the ring no longer held.
        retransmit_missed,
        /// Key frames asked of publishers (PLI).
        plis_sent,
        /// Key frames asked of publishers by FIR, where no PLI was negotiated.
        firs_sent,
        /// Key frames asked of us by PLI.
        plis_received,
        /// Key frames asked of us by FIR.
        firs_received,
        /// Packets of publishers that did not arrive, repaired ones included.
        packets_lost_in,
        /// Packets that receivers told to have lost, repaired ones included.
        packets_lost_out,
        /// Packets overwritten in a ring before a consumer took them.
        ring_overruns,
        /// Audio packets not sent because they had waited too long for their turn: overload.
        shed_audio,
        /// Video packets that had waited too long, up to the next key frame sent: overload.
        shed_video,
        /// Consumers switched between streams of a simulcast producer.
        layer_switches,
        /// Media packets given to other shards.
        relayed_out,
        /// Media packets taken from other shards.
        relayed_in,
        /// Media packets for other shards that found the lane full.
        relay_dropped,
        /// Times a stream to another shard stopped until its next key frame.
        relay_cuts,
        /// Transports closed by a fault inside their `Rtc`.
        faults,
        /// Events that found the event lane full.
        events_lost,
    }
}

counters! {
    /// What a shard's I/O counts.
    IoCounters {
        /// Turns of the driver loop.
        turns,
        /// Times the shard slept.
        sleeps,
        /// Datagrams received.
        datagrams_in,
        /// Datagrams sent.
        datagrams_out,
        /// Messages given to the kernel (trains).
        messages_out,
        /// Trains that went datagram by datagram, because the kernel refused to segment them.
        trains_refused,
        /// Datagrams the kernel refused to take.
        send_failed,
        /// Datagrams dropped by the kernel before we read them (`SO_RXQ_OVFL`).
        kernel_dropped,
        /// Datagrams handed to the shard that owns them.
        handed_off,
        /// Datagrams taken over from another shard.
        taken_over,
        /// Hand-offs that found the owner's lane full.
        handoff_dropped,
        /// Demands, key-frame requests and pulses for other shards that found the lane full.
        relay_refused,
        /// Boxes for relayed packets made because none had come back.
        relay_boxes,
    }
}

/// Declares the reasons for which a datagram is let go, with their labels.
macro_rules! discards {
    ($($(#[$doc:meta])* $variant:ident => $label:literal,)*) => {
        /// Why a datagram or packet was let go; the label is a metric label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Discard { $($(#[$doc])* $variant,)* }

        impl Discard {
            /// All reasons, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The label in metrics and logs.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

discards! {
    /// First byte of no protocol (RFC 7983).
    UnknownProtocol => "unknown_protocol",
    /// Not STUN from an address that ICE has not validated.
    UnknownAddress => "unknown_address",
    /// A STUN message that is malformed.
    StunMalformed => "stun_malformed",
    /// A STUN request for a ufrag that is not alive.
    StunUnknownUfrag => "stun_unknown_ufrag",
    /// A STUN request refused with an error response.
    StunRefused => "stun_refused",
    /// A STUN message that is no binding request.
    StunUnexpected => "stun_unexpected",
    /// DTLS before `connect`, or refused by the handshake.
    Dtls => "dtls",
    /// Media before the DTLS handshake gave keys.
    NoKeys => "no_keys",
    /// RTP that does not parse.
    RtpMalformed => "rtp_malformed",
    /// RTCP that does not parse.
    RtcpMalformed => "rtcp_malformed",
    /// SRTP authentication failed.
    Authentication => "authentication",
    /// A packet seen before, or too old to tell.
    Replayed => "replayed",
    /// No producer claims the packet's SSRC, MID or RID.
    UnknownStream => "unknown_stream",
    /// A payload type the producer did not negotiate.
    UnknownPayloadType => "unknown_payload_type",
    /// No room for another SRTP context on the transport.
    TooManyStreams => "too_many_streams",
    /// The producer is paused.
    Paused => "paused",
    /// Larger than a ring slot.
    TooLarge => "too_large",
    /// An RTX packet without an original, or a padding-only probe.
    Padding => "padding",
    /// A relayed packet of a producer that has no mirror here.
    RelayUnknown => "relay_unknown",
    /// An output queue of a transport was full.
    OutputFull => "output_full",
}

/// Discards by reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscardCounts([u64; Discard::ALL.len()]);

impl Default for DiscardCounts {
    fn default() -> Self {
        Self([0; Discard::ALL.len()])
    }
}

impl DiscardCounts {
    /// Counts one discard.
    pub fn add(&mut self, reason: Discard) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count += 1;
        }
    }

    /// How many were let go for `reason`.
    #[must_use]
    pub fn count(&self, reason: Discard) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or_default()
    }

    /// Every reason's label with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Discard::ALL.iter().map(|reason| (reason.label(), self.count(*reason)))
    }
}

/// How many messages went to the kernel by their number of segments: from 1 on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrainSizes([u64; SEGMENTS_PER_TRAIN_MAX]);

impl TrainSizes {
    /// Counts one message; one of more than [`SEGMENTS_PER_TRAIN_MAX`] segments as one of those.
    pub fn add(&mut self, segments: usize) {
        let place = segments.clamp(1, SEGMENTS_PER_TRAIN_MAX) - 1;
        if let Some(count) = self.0.get_mut(place) {
            *count += 1;
        }
    }

    /// Each number of segments with its messages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        (1..).zip(self.0)
    }
}

impl std::ops::AddAssign for TrainSizes {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }
}

/// What is alive in an engine now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Transports.
    pub transports: usize,
    /// Transports that no client has reached yet.
    pub transports_new: usize,
    /// Transports that a client has reached and whose DTLS is not connected.
    pub transports_connecting: usize,
    /// Transports whose DTLS is connected.
    pub transports_connected: usize,
    /// Transports whose client has no address left: its TCP connection is gone, or consent.
    pub transports_disconnected: usize,
    /// Producers, without mirrors.
    pub producers: usize,
    /// Mirrors of other shards' producers.
    pub mirrors: usize,
    /// Streams that arrive here, without mirrors'.
    pub streams: usize,
    /// Consumers.
    pub consumers: usize,
    /// Consumers that are sent nothing for want of bandwidth, as of their last reports.
    pub consumers_stopped: usize,
    /// What all clients together can be sent, bits/s, as estimated.
    pub estimate_bps: u64,
    /// Estimates of all transports that have one, each once a second since the start.
    pub estimates: Estimates,
    /// Validated addresses.
    pub tuples: usize,
    /// Bytes of packet rings.
    pub ring_bytes: usize,
}

/// What transports' clients can be sent, looked at once a second.
pub type Estimates = Buckets<Estimate>;

/// How long turns lasted.
pub type TurnLengths = Buckets<TurnLength>;

/// One shard's report.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which shard.
    pub shard: ShardId,
    /// The engine's counters.
    pub counters: Counters,
    /// The shard's I/O counters.
    pub io: IoCounters,
    /// Messages sent, by their number of segments.
    pub trains: TrainSizes,
    /// How long its turns lasted, from their beginning to the next wait or turn.
    pub turns: TurnLengths,
    /// Discards by reason.
    pub discards: DiscardCounts,
    /// What is alive.
    pub gauges: Gauges,
    /// Latencies of what was forwarded since the last report.
    pub latency: LatencyInterval,
    /// CPU time of its thread.
    pub cpu: Duration,
    /// Part of the last second that the shard was not waiting, 0–1.
    pub busy: f64,
    /// True when the shard runs on glommio, false on a plain thread (io_uring refused).
    pub on_glommio: bool,
    /// True when the kernel steers datagrams to their shards, false when shards hand them over.
    pub steering: bool,
}
