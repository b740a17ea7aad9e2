//! Statistics: counts become rates and scores once a report, and values when somebody asks.
//!
//! Called by the engine at a transport's report and by `commands`. What is asked for is read from
//! what is there: one transport, one producer's streams or one consumer, never all of something, so
//! that no answer holds up media.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::control::command::{Event, Layers, Refusal, Reply};
use crate::control::stats::{ConsumerNumbers, LayersNow, StreamNumbers, Traffic, TransportNumbers};
use crate::engine::consumer::Consumer;
use crate::engine::io::Protocol;
use crate::engine::listener::Role;
use crate::engine::producer::Producer;
use crate::engine::score::Totals;
use crate::engine::select::{LayerRates, LayerTarget};
use crate::engine::stream::Stream;
use crate::engine::tally::{Reported, SentBytes, TransportTally};
use crate::engine::transport::Transport;
use crate::engine::{ConsumerKey, Engine, ProducerKey, StreamKey, TransportKey};
use crate::limits::REPORT_INTERVAL;
use crate::ortc::types::ProducerType;

impl Engine {
    /// Looks at what a transport carried since its last report, and works out the scores of what
    /// arrives and is sent there.
    pub(super) fn tally_transport(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let span = transport.tally.look(now, REPORT_INTERVAL);
        let mut received = (0, 0);
        for index in 0.. {
            let producer = self.transports.get(key).and_then(|t| t.producers.get(index).copied());
            let Some(producer) = producer else { break };
            self.tally_producer(now, span, producer, &mut received);
        }
        let mut sent = SentBytes::default();
        let mut stopped = 0;
        // Who shares what there is tells of layers as often as that.
        let shares = self.transports.get(key).is_some_and(|t| t.outgoing.is_some());
        for index in 0.. {
            let consumer = self.transports.get(key).and_then(|t| t.consumers.get(index).copied());
            let Some(consumer) = consumer else { break };
            stopped += usize::from(self.tally_consumer(span, consumer, &mut sent));
            if !shares {
                self.tell_layers(now, consumer);
            }
        }
        if let Some(transport) = self.transports.get_mut(key) {
            let probed_bytes = transport.outgoing.as_ref().map_or(0, |o| o.probed_bytes());
            sent.probes = probed_bytes.saturating_sub(transport.tally.probes.bytes);
            transport.tally.advance(received, sent, span);
            if let Some(bps) = transport.available_bps() {
                self.estimates.record(bps / 8);
            }
            transport.tally.stopped = stopped;
        }
    }

    fn tally_producer(
        &mut self,
        now: Instant,
        span: Duration,
        key: ProducerKey,
        received: &mut (u64, u64),
    ) {
        let Some(producer) = self.producers.get(key) else { return };
        for stream in &producer.streams {
            let Some(stream) = self.streams.get_mut(*stream) else { continue };
            let (media, rtx) = stream.tally.take_bytes(span);
            self.counters.packets_lost_in += stream.tally.note_lost(stream.reception.totals().1);
            *received = (received.0 + media, received.1 + rtx);
            if !stream.paused {
                stream.score(now);
            }
        }
        self.tell_scores(key);
    }

    /// True when it is sent nothing for want of bandwidth.
    fn tally_consumer(&mut self, span: Duration, key: ConsumerKey, sent: &mut SentBytes) -> bool {
        let Some(consumer) = self.consumers.get_mut(key) else { return false };
        let (media, rtx) = consumer.tally.tick(consumer.packets, consumer.bytes, span);
        sent.media += media;
        sent.rtx += rtx;
        let stopped = consumer.share.stopped.is_some();
        if let Some(score) = consumer.tally.new_score() {
            let consumer = consumer.id;
            self.tell(Event::ConsumerScore { consumer, score });
        }
        stopped
    }

    /// A stream arrives that did not.
    pub(super) fn begin_score(&mut self, producer: ProducerKey, stream: StreamKey) {
        let Some(stream) = self.streams.get_mut(stream) else { return };
        // A mirror's streams are scored where they arrive.
        if stream.source.transport().is_some() {
            stream.tally.score.begin();
            self.tell_scores(producer);
        }
    }

    /// Tells a producer's scores if they have changed.
    fn tell_scores(&mut self, key: ProducerKey) {
        let Some(producer) = self.producers.get_mut(key) else { return };
        let mut changed = false;
        for (stream, told) in producer.streams.iter().zip(&mut producer.scores_told) {
            let stream = self.streams.get(*stream);
            let score = stream.and_then(|stream| Some((stream.ssrc?, stream.tally.score.score())));
            changed |= std::mem::replace(told, score) != score;
        }
        if changed {
            let (producer, scores) = (producer.id, producer.scores_told.clone());
            self.tell(Event::ProducerScore { producer, scores });
        }
    }

    /// Answers [`Command::TransportStats`](crate::control::command::Command::TransportStats).
    pub(super) fn transport_stats(&self, key: TransportKey) -> Result<Reply, Refusal> {
        let transport = self.transports.get(key).ok_or(Refusal::NoTransport)?;
        Ok(Reply::TransportStats(Box::new(transport.numbers())))
    }

    /// Answers [`Command::ProducerStats`](crate::control::command::Command::ProducerStats).
    pub(super) fn producer_stats(&self, now: Instant, key: ProducerKey) -> Result<Reply, Refusal> {
        let producer = self.producers.get(key).ok_or(Refusal::NoProducer)?;
        let transport = producer.source.transport().and_then(|key| self.transports.get(key));
        let streams = producer.streams.iter().zip(0_u8..).filter_map(|(key, encoding)| {
            let stream = self.streams.get(*key)?;
            let mut numbers = stream.numbers(now)?;
            if let Some(transport) = transport {
                let mut routed = transport.incoming.routed();
                let rtx = routed.find(|(_, r)| r.stream == *key && r.role == Role::Rtx);
                numbers.rtx_ssrc = rtx.map(|(ssrc, _)| ssrc);
                numbers.round_trip_time = milliseconds(transport.round_trip);
            }
            Some((encoding, numbers))
        });
        Ok(Reply::ProducerStats(streams.collect()))
    }

    /// Answers [`Command::ConsumerStats`](crate::control::command::Command::ConsumerStats).
    pub(super) fn consumer_stats(&mut self, key: ConsumerKey) -> Result<Reply, Refusal> {
        let why = self.why_layers(key);
        let consumer = self.consumers.get_mut(key).ok_or(Refusal::NoConsumer)?;
        let producer = self.producers.get(consumer.producer).ok_or(Refusal::NoConsumer)?;
        let encoding = |stream: StreamKey| {
            let place = producer.streams.iter().position(|key| *key == stream)?;
            u8::try_from(place).ok()
        };
        let playing = consumer.playing.and_then(|cursor| encoding(cursor.stream));
        let awaiting = consumer.awaiting.and_then(|awaiting| encoding(awaiting.stream));
        let stream = consumer.playing.and_then(|cursor| self.streams.get(cursor.stream));
        let layers = consumer.layers_now(producer, (playing, stream), awaiting);
        let why = why.filter(|_| producer.is_layered());
        let numbers = ConsumerNumbers {
            stream: consumer.numbers(),
            encoding: playing,
            layers: LayersNow { why, ..layers },
            priority: consumer.priority,
        };
        Ok(Reply::ConsumerStats(Box::new(numbers)))
    }
}

impl Stream {
    /// Works out the score of the last second.
    fn score(&mut self, now: Instant) {
        if !self.activity.is_alive(now) {
            return self.tally.score.cease();
        }
        let (received, lost) = self.reception.totals();
        let lost = u64::try_from(lost).unwrap_or(0);
        self.tally.score.handle_report(Totals {
            expected: received + lost,
            lost,
            repaired: self.tally.repaired,
            // Publishers probe with retransmissions that nobody needs: no sign of trouble.
            retransmitted: self.tally.repaired,
        });
    }

    /// What was counted; `None` before its first packet.
    fn numbers(&self, now: Instant) -> Option<StreamNumbers> {
        let tally = &self.tally;
        let (_, lost) = self.reception.totals();
        Some(StreamNumbers {
            ssrc: self.ssrc?,
            packets_lost: lost,
            fraction_lost: self.reception.fraction_lost(),
            packets_discarded: tally.discarded,
            packets_retransmitted: tally.rtx.packets,
            packets_repaired: tally.repaired,
            nack_count: tally.nacks,
            nack_packet_count: tally.nacked,
            pli_count: tally.plis,
            fir_count: tally.firs,
            score: tally.score.score(),
            rtx_packets_discarded: Some(tally.rtx_useless),
            jitter: Some(self.reception.jitter()),
            packet_count: tally.media.packets,
            byte_count: tally.media.bytes,
            bitrate: tally.bitrate_bps,
            bitrate_by_layer: by_layer(&self.layer_rates(now)),
            ..StreamNumbers::default()
        })
    }
}

impl Consumer {
    /// What was counted.
    fn numbers(&mut self) -> StreamNumbers {
        let media = self.tally.count(self.packets, self.bytes);
        let tally = &self.tally;
        let Reported { lost, fraction, jitter } = tally.reported.unwrap_or_default();
        StreamNumbers {
            ssrc: self.ssrc,
            rtx_ssrc: self.rtx.as_ref().map(|rtx| rtx.ssrc),
            packets_lost: i64::from(lost),
            fraction_lost: fraction,
            packets_discarded: tally.shed,
            packets_retransmitted: tally.rtx.packets,
            packets_repaired: tally.repaired,
            nack_count: tally.nacks,
            nack_packet_count: tally.nacked,
            pli_count: tally.plis,
            fir_count: tally.firs,
            score: tally.score.score(),
            round_trip_time: milliseconds(self.round_trip),
            rtx_packets_discarded: None,
            jitter: tally.reported.map(|_| jitter),
            packet_count: media.packets + tally.rtx.packets,
            byte_count: media.bytes + tally.rtx.bytes,
            bitrate: tally.bitrate_bps,
            bitrate_by_layer: BTreeMap::new(),
        }
    }

    /// The layers it is sent and goes over to, of the encodings that it is fed with and waits for.
    fn layers_now(
        &self,
        producer: &Producer,
        (playing, stream): (Option<u8>, Option<&Stream>),
        next: Option<u8>,
    ) -> LayersNow {
        if producer.producer_type == ProducerType::Simple {
            return LayersNow::default();
        }
        let preferred = Layers {
            spatial: u8::try_from(self.preferred_spatial)
                .map_or(self.highest.spatial, |spatial| spatial.min(self.highest.spatial)),
            temporal: self.preferred_temporal.min(self.highest.temporal),
        };
        let sent = stream.map(|stream| self.select.layers(&stream.layers));
        let of = |encoding: u8, inside: LayerTarget| {
            let spatial = if self.simulcast { encoding } else { inside.spatial };
            Layers { spatial, temporal: inside.temporal }
        };
        let aimed = self.target.min_each(LayerTarget {
            spatial: self.highest.spatial,
            temporal: self.highest.temporal,
        });
        LayersNow {
            current_layers: playing.zip(sent).map(|(encoding, sent)| of(encoding, sent)),
            target_layers: next.or(playing).map(|encoding| of(encoding, aimed)),
            preferred_layers: Some(preferred),
            why: None,
        }
    }
}

impl Transport {
    /// What was counted.
    fn numbers(&self) -> TransportNumbers {
        let selected = self.connection.selected();
        let estimate_bps = Some(self.remb_bps).filter(|bps| *bps > 0);
        let told_bps = [estimate_bps, self.limits.max_incoming_bps].into_iter().flatten().min();
        TransportNumbers {
            ice: self.connection.ice_state(),
            dtls: self.connection.dtls_state(),
            selected: selected.map(|p| (p.local, p.remote, p.protocol == Protocol::Tcp)),
            traffic: self.tally.traffic(),
            available_outgoing_bps: self.available_bps(),
            available_incoming_bps: told_bps,
            limits: self.limits,
        }
    }
}

impl TransportTally {
    fn traffic(&self) -> Traffic {
        let Self { rtp_in, rtx_in, rtcp_in, rtp_out, rtx_out, rtcp_out, probes, .. } = self;
        Traffic {
            bytes_received: rtp_in.bytes + rtx_in.bytes + rtcp_in.bytes,
            recv_bitrate: rtp_in.bps + rtx_in.bps + rtcp_in.bps,
            bytes_sent: rtp_out.bytes + rtx_out.bytes + rtcp_out.bytes + probes.bytes,
            send_bitrate: rtp_out.bps + rtx_out.bps + rtcp_out.bps + probes.bps,
            rtp_bytes_received: rtp_in.bytes,
            rtp_recv_bitrate: rtp_in.bps,
            rtp_bytes_sent: rtp_out.bytes,
            rtp_send_bitrate: rtp_out.bps,
            rtx_bytes_received: rtx_in.bytes,
            rtx_recv_bitrate: rtx_in.bps,
            rtx_bytes_sent: rtx_out.bytes,
            rtx_send_bitrate: rtx_out.bps,
            probation_bytes_sent: probes.bytes,
            probation_send_bitrate: probes.bps,
        }
    }
}

/// Nothing for a stream without layers.
fn by_layer(rates: &LayerRates) -> BTreeMap<String, u64> {
    let highest = rates.highest();
    if highest == LayerTarget::default() {
        return BTreeMap::new();
    }
    let layers = (0..=highest.spatial).flat_map(|spatial| {
        (0..=highest.temporal).map(move |temporal| LayerTarget { spatial, temporal })
    });
    layers
        .map(|layers| (format!("{}.{}", layers.spatial, layers.temporal), rates.bps(layers)))
        .collect()
}

/// A span in milliseconds; `None` while it is not known.
fn milliseconds(span: Duration) -> Option<f64> {
    (span > Duration::ZERO).then_some(span.as_secs_f64() * 1000.0)
}
