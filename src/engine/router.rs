//! Who gets what: from streams that brought something to the consumers that take it.
//!
//! Called by the engine at the end of each batch, and when something that matters to the choice
//! changed. Invariants: a consumer that takes a stream with new packets is in its transport's due
//! list, that transport in the engine's, each once; a consumer plays only what its producer, its
//! pause flags and its transport allow.

use std::time::Instant;

use crate::control::command::Event;
use crate::engine::consumer::Cursor;
use crate::engine::ingress::Arrived;
use crate::engine::layer;
use crate::engine::stream::Stream;
use crate::engine::{ConsumerKey, Engine, ProducerKey, StreamKey, TimerKey, TransportKey};
use crate::ortc::types::{MediaKind, ProducerType};

impl Engine {
    /// Notes that a stream brought a packet; its consumers are served when the batch is through.
    pub(super) fn note_arrival(&mut self, now: Instant, arrived: Arrived) {
        let Some(stream) = self.streams.get_mut(arrived.stream) else { return };
        let (producer, is_sound) = (stream.producer, stream.voice.is_some());
        if !stream.dirty {
            stream.dirty = true;
            self.dirty.push(arrived.stream);
        }
        if is_sound {
            self.note_voice(now, arrived.stream);
        }
        if arrived.awoke {
            self.handle_stream_awake(now, producer, arrived);
        }
    }

    fn handle_stream_awake(&mut self, now: Instant, key: ProducerKey, arrived: Arrived) {
        if arrived.restarted {
            self.restart_consumers_of(now, key, arrived.stream);
            self.restart_taps(now, arrived.stream);
        }
        let Some(producer) = self.producers.get_mut(key) else { return };
        if !producer.started {
            producer.started = true;
            let event = Event::ProducerStarted { producer: producer.id };
            self.tell(event);
        }
        self.begin_score(key, arrived.stream);
        self.choose_layers(now, key);
        // A producer is there before its first packet: consumers may have been waiting for it.
        self.arm_stream(arrived.stream);
    }

    /// The sender took another SSRC: what follows has nothing to do with what came before.
    fn restart_consumers_of(&mut self, now: Instant, key: ProducerKey, stream: StreamKey) {
        let consumers = self.producers.get(key).map(|p| p.consumers.clone()).unwrap_or_default();
        for consumer in consumers {
            if self.consumers.get(consumer).is_some_and(|c| c.takes(stream)) {
                self.start_consumer(now, consumer);
                self.begin_with_oldest(consumer);
            }
        }
    }

    /// The ring was cleared when the sender began anew: all that is in it is the new one's, also the
    /// packet that told of it. Audio goes on with that one, as video does if it is a key frame.
    fn begin_with_oldest(&mut self, key: ConsumerKey) {
        if let Some(consumer) = self.consumers.get_mut(key)
            && let Some(playing) = &mut consumer.playing
            && let Some(stream) = self.streams.get(playing.stream)
        {
            playing.next = stream.ring.oldest();
            consumer.live_from = playing.next;
        }
    }

    /// Marks every consumer of the streams that brought something as due.
    pub(super) fn route_dirty(&mut self, now: Instant) {
        self.warm_routes();
        while let Some(key) = self.dirty.pop() {
            let Some(stream) = self.streams.get_mut(key) else { continue };
            stream.dirty = false;
            stream.equalise();
            let deadline = stream.next_deadline();
            if let Some(deadline) = deadline {
                self.timers.arm(TimerKey::Stream(key), deadline);
            }
            let Some(producer) = self.producers.get(stream.producer) else { continue };
            if !producer.relays.is_empty() && !stream.relay_due {
                stream.relay_due = true;
                self.relaying.due.push_back(key);
            }
            for consumer_key in &producer.consumers {
                let Some(consumer) = self.consumers.get_mut(*consumer_key) else { continue };
                if consumer.due || !consumer.takes(key) {
                    continue;
                }
                consumer.due = true;
                consumer.due_since = Some(now);
                let Some(transport) = self.transports.get_mut(consumer.transport) else { continue };
                transport.due_consumers.push_back(*consumer_key);
                if !transport.due {
                    transport.due = true;
                    self.due.push_back(consumer.transport);
                }
            }
        }
    }

    /// Puts a transport into the list of those with something to send.
    pub(super) fn mark_due(&mut self, key: TransportKey) {
        if let Some(transport) = self.transports.get_mut(key)
            && !transport.due
        {
            transport.due = true;
            self.due.push_back(key);
        }
    }

    /// Puts a consumer into its transport's turn.
    pub(super) fn mark_consumer_due(&mut self, now: Instant, key: ConsumerKey) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        let transport_key = consumer.transport;
        if !consumer.due {
            consumer.due = true;
            consumer.due_since = Some(now);
            if let Some(transport) = self.transports.get_mut(transport_key) {
                transport.due_consumers.push_back(key);
            }
        }
        self.mark_due(transport_key);
    }

    /// Feeds a consumer from now on, if everything allows it: audio with the next packet, video
    /// with the next key frame, which is asked for. Otherwise it stops.
    pub(super) fn start_consumer(&mut self, now: Instant, key: ConsumerKey) {
        self.reset_consumer(key);
        self.feed_consumer(now, key);
    }

    fn reset_consumer(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        consumer.stop();
        consumer.fresh = true;
        consumer.allowed = None;
        consumer.share.stopped = None;
        let producer_key = consumer.producer;
        self.note_demand(producer_key);
    }

    fn feed_consumer(&mut self, now: Instant, key: ConsumerKey) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        let producer_key = consumer.producer;
        let can_send = self.transports.get(consumer.transport).is_some_and(|t| t.can_send());
        let Some(producer) = self.producers.get(producer_key) else { return };
        if consumer.paused || producer.paused || !can_send {
            return;
        }
        if consumer.kind == MediaKind::Audio {
            let stream = producer.streams.first().copied();
            consumer.playing = stream.and_then(|stream| {
                let next = self.streams.get(stream)?.ring.head();
                Some(Cursor { stream, next })
            });
            consumer.live_from = consumer.playing.map(|c| c.next).unwrap_or_default();
        }
        self.begin_share(now, key);
    }

    /// Starts all consumers of a transport (it can send now) or of a producer (it was resumed).
    pub(super) fn start_consumers(&mut self, now: Instant, keys: &[ConsumerKey]) {
        for key in keys {
            self.reset_consumer(*key);
        }
        for key in keys {
            self.feed_consumer(now, *key);
        }
    }

    /// Looks anew at which stream each consumer of a producer should take.
    pub(super) fn choose_layers(&mut self, now: Instant, key: ProducerKey) {
        let Some(producer) = self.producers.get(key) else { return };
        if producer.kind == MediaKind::Audio {
            return;
        }
        let layered = producer.producer_type == ProducerType::Simulcast;
        if layered {
            self.compare_streams(now, key);
        }
        let Some(producer) = self.producers.get(key) else { return };
        for index in 0..producer.consumers.len() {
            let consumer = self.producers.get(key).and_then(|p| p.consumers.get(index).copied());
            if let Some(consumer) = consumer {
                self.choose_layer(now, key, consumer);
            }
        }
        if layered {
            self.arm_layers(now, key);
        }
    }

    /// Finds out which streams of a producer the others go on without.
    fn compare_streams(&mut self, now: Instant, key: ProducerKey) {
        let Some(producer) = self.producers.get(key) else { return };
        for stream in &producer.streams {
            let Some(mut activity) = self.streams.get(*stream).map(|s| s.activity) else {
                continue;
            };
            let others = producer.streams.iter().filter(|other| *other != stream);
            let others = others.filter_map(|other| self.streams.get(*other));
            activity.compare(now, others.map(|other| other.activity));
            if let Some(stream) = self.streams.get_mut(*stream) {
                stream.activity = activity;
            }
        }
    }

    /// The next moment at which time alone changes the choice.
    fn arm_layers(&mut self, now: Instant, key: ProducerKey) {
        let Some(producer) = self.producers.get(key) else { return };
        let next = producer
            .streams
            .iter()
            .filter_map(|stream| self.streams.get(*stream)?.activity.next_deadline(now))
            .min();
        if let Some(deadline) = next {
            self.timers.arm(TimerKey::Layers(key), deadline);
        }
    }

    /// The same for one consumer.
    pub(super) fn choose_layer(&mut self, now: Instant, producer: ProducerKey, key: ConsumerKey) {
        let Some(producer) = self.producers.get(producer) else { return };
        let Some(consumer) = self.consumers.get(key) else { return };
        let can_send = self.transports.get(consumer.transport).is_some_and(|t| t.can_send());
        if consumer.paused || producer.paused || !can_send {
            return;
        }
        if producer.streams.len() > 1 && producer.source.relayed().is_some_and(|m| !m.informed) {
            // Which streams arrive is not known here yet; it is, a moment from now.
            return;
        }
        let Some(allowed) = consumer.allowed else { return self.hold_back(key) };
        let position = |stream| producer.streams.iter().position(|s| *s == stream);
        let current = consumer.playing.and_then(|playing| position(playing.stream));
        let streams = producer.streams.iter().filter_map(|stream| self.streams.get(*stream));
        let candidates = streams.map(Stream::candidate);
        let highest = producer.streams.len().saturating_sub(1);
        let preferred = consumer.preferred_spatial.min(highest).min(allowed.spatial.into());
        let target = layer::target(now, candidates, preferred, current);
        // Nothing arrives: wait for the lowest, which a sender starts with.
        let target = target.or(current).unwrap_or(0);
        let Some(target) = producer.streams.get(target).copied() else { return };
        self.aim(now, key, target);
    }

    /// Sends a consumer nothing, for want of bandwidth, until it is allowed something.
    fn hold_back(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        if consumer.playing.is_none() && consumer.awaiting.is_none() {
            return;
        }
        consumer.stop();
        let producer = consumer.producer;
        self.note_demand(producer);
        self.cancel_unwanted_key_frames(producer);
    }

    /// Makes a consumer go over to `target` with its next key frame, and asks for that.
    fn aim(&mut self, now: Instant, key: ConsumerKey, target: StreamKey) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        let producer = consumer.producer;
        let left = consumer.awaiting.map(|awaiting| awaiting.stream);
        if left == Some(target) {
            return;
        }
        self.note_demand(producer);
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        if consumer.playing.is_some_and(|playing| playing.stream == target) {
            consumer.awaiting = None;
        } else if let Some(stream) = self.streams.get_mut(target) {
            consumer.aim(target, stream, now);
            self.arm_stream(target);
        }
        if left.is_some() {
            // Else a stream that fell silent would be asked for a key frame for ever, and browsers
            // answer for one encoding with key frames of all.
            self.cancel_unwanted_key_frames(producer);
        }
    }

    /// Makes sure that a stream's requests leave in time.
    pub(super) fn arm_stream(&mut self, key: StreamKey) {
        if let Some(deadline) = self.streams.get(key).and_then(|stream| stream.next_deadline()) {
            self.timers.arm(TimerKey::Stream(key), deadline);
        }
    }

    /// The same for all streams of a producer.
    pub(super) fn arm_streams_of(&mut self, key: ProducerKey) {
        for index in 0..self.producers.get(key).map_or(0, |producer| producer.streams.len()) {
            let stream = self.producers.get(key).and_then(|p| p.streams.get(index).copied());
            if let Some(stream) = stream {
                self.arm_stream(stream);
            }
        }
    }

    /// A receiver's decoder is lost: it needs a key frame of what it is being sent.
    pub(super) fn ask_key_frame(&mut self, now: Instant, key: ConsumerKey) {
        let Some(consumer) = self.consumers.get(key) else { return };
        let stream_key = consumer
            .playing
            .map(|playing| playing.stream)
            .or_else(|| consumer.awaiting.map(|awaiting| awaiting.stream));
        if let Some(stream) = stream_key.and_then(|key| self.streams.get_mut(key)) {
            stream.key_frames.request(now);
        }
        if let Some(stream) = stream_key {
            self.arm_stream(stream);
        }
    }

    /// Takes back a wish for key frames that no consumer has any more.
    pub(super) fn cancel_unwanted_key_frames(&mut self, key: ProducerKey) {
        let Some(producer) = self.producers.get(key) else { return };
        for stream_key in &producer.streams {
            let taken = producer.consumers.iter().any(|consumer| {
                self.consumers.get(*consumer).is_some_and(|c| c.takes(*stream_key))
            });
            if let Some(stream) = self.streams.get_mut(*stream_key)
                && !taken
                && (producer.paused || stream.taps.is_empty())
            {
                stream.key_frames.cancel();
            }
        }
    }
}
