//! The mirror's side: packets and pulses that come, demand and key-frame requests that go.
//!
//! Demand is worked out once a turn, from what the consumers of a mirror take then, for mirrors of
//! which something changed; it is told when it differs from what the origin was told last.

use std::time::Instant;

use crate::control::command::{Layers, Mirror, Refusal};
use crate::engine::consumer::{Awaiting, Cursor};

use crate::engine::ingress::{Arrived, note_media, push_copy};
use crate::engine::producer::{Producer, Source};
use crate::engine::relay::{Continuity, RelayItem, RelayLanes, RelayPacket, RelayPulse, Relaying};
use crate::engine::report::Discard;
use crate::engine::ring::PacketIndex;
use crate::engine::source_clock::SenderClock;
use crate::engine::tally::RTP_HEADER_BYTES;
use crate::engine::{Engine, ProducerKey, StreamKey, TimerKey};
use crate::id::{ProducerId, ShardId};
use crate::limits::{MIRRORS_PER_SHARD_MAX, REPAIR_AGE_VIDEO_MAX};
use crate::ortc::types::MediaKind;

/// What a mirror keeps besides what every producer does.
#[derive(Debug)]
pub struct Mirrored {
    /// Where the producer lives.
    pub origin: ShardId,
    /// Something of its streams is known: a choice among them has a sense.
    pub informed: bool,
    /// The demand that the origin was told last, and what consumers preferred then.
    told: Option<u8>,
    told_preferred: Option<Layers>,
    /// A bit for each encoding of which a key frame is to be asked for.
    asks: u8,
    /// Among the mirrors with something to tell.
    queued: bool,
}

/// What a mirror's stream keeps besides what every stream does.
#[derive(Debug, Default)]
pub struct MirroredStream {
    /// Its sender's wall clock against ours.
    pub sender: SenderClock,
    /// The origin was told that it is wanted.
    wanted: bool,
    /// It is wanted and a packet came.
    fed: bool,
    /// Since when it is not wanted any more; its packets may still have to be repeated.
    left: Option<Instant>,
}

impl Relaying {
    /// A mirror is removed: its origin must not go on with it.
    pub fn forget_mirror(&mut self, producer: ProducerId, mirrored: &Mirrored) {
        self.mirrors = self.mirrors.saturating_sub(1);
        // Beyond that its packets are let go as they come.
        if mirrored.told.is_some() && self.partings.len() < MIRRORS_PER_SHARD_MAX {
            self.partings.push((mirrored.origin, producer));
        }
    }
}

/// The bit of an encoding in a demand.
fn bit(encoding: usize) -> u8 {
    u32::try_from(encoding).ok().and_then(|place| 1_u8.checked_shl(place)).unwrap_or(0)
}

impl Engine {
    /// Makes a mirror without consumers.
    ///
    /// # Errors
    /// [`Refusal::NoProducer`] when it would mirror a producer of this shard or another one than
    /// asked for, [`Refusal::Full`], [`Refusal::Unsupported`].
    pub(in crate::engine) fn insert_mirror(
        &mut self,
        now: Instant,
        id: ProducerId,
        mirror: &Mirror,
    ) -> Result<ProducerKey, Refusal> {
        if mirror.origin == self.shard || mirror.source.producer != id {
            return Err(Refusal::NoProducer);
        }
        if self.relaying.mirrors >= MIRRORS_PER_SHARD_MAX {
            return Err(Refusal::Full("mirror"));
        }
        let mirrored = Mirrored {
            origin: mirror.origin,
            informed: false,
            told: None,
            told_preferred: None,
            asks: 0,
            queued: false,
        };
        let source = Source::Relayed(mirrored);
        let (key, _) = self.insert_producer(now, &mirror.source, source, mirror.paused)?;
        self.relaying.mirrors += 1;
        // Its demand replaces the parting of the one before.
        self.relaying.partings.retain(|(_, gone)| *gone != id);
        Ok(key)
    }

    /// The mirror and its stream to which something of shard `from` belongs.
    fn mirrored(
        &self,
        from: ShardId,
        id: ProducerId,
        encoding: u8,
    ) -> Option<(ProducerKey, StreamKey)> {
        let key = self.producer_ids.get(&id).copied()?;
        let producer = self.producers.get(key)?;
        producer.source.relayed().filter(|mirrored| mirrored.origin == from)?;
        Some((key, producer.streams.get(usize::from(encoding)).copied()?))
    }

    /// Takes a relayed packet into its stream's ring.
    pub(super) fn take_packet(
        &mut self,
        now: Instant,
        from: ShardId,
        packet: &RelayPacket,
    ) -> Result<(), Discard> {
        let (producer, key) =
            self.mirrored(from, packet.producer, packet.encoding).ok_or(Discard::RelayUnknown)?;
        let stream = self.streams.get_mut(key).ok_or(Discard::RelayUnknown)?;
        let relayed = stream.source.relayed_mut().ok_or(Discard::RelayUnknown)?;
        let opens = packet.continuity != Continuity::Continues;
        if !relayed.wanted || !(relayed.fed || opens) {
            // It was under way when the demand ended, or is a rest of what was demanded before.
            return Ok(());
        }
        // Also of what is let go: the origin goes on behind it, and tells no second beginning.
        relayed.fed = true;
        if stream.paused {
            return Err(Discard::Paused);
        }
        let payload = packet.payload();
        if packet.continuity == Continuity::Restarted {
            stream.ring.clear();
            stream.layers.reset();
            stream.slow_rate.reset();
        }
        let awoke = !payload.is_empty() && !stream.activity.is_active(now);
        let at = push_copy(stream, packet.meta, packet.arrival, payload)?;
        let known = stream.highest;
        stream.highest = stream.highest.max(Some(packet.meta.seq));
        let (moment, len) = ((now, packet.meta.timestamp), payload.len());
        note_media(stream, moment, len, len + RTP_HEADER_BYTES, packet.meta.info);
        self.counters.relayed_in += 1;
        if opens {
            stream.floor = at;
            // It is here, or just behind.
            stream.key_frames.handle_key_frame();
        }
        let mut restarted = false;
        match packet.continuity {
            Continuity::Continues => {}
            // It was demanded twice in a moment, and began twice with one key frame: who plays has
            // no hole to close, and what comes again is known by its number.
            Continuity::Cut { from } if known.is_some_and(|known| from <= known) => {}
            Continuity::Cut { from } => self.resume_consumers(producer, key, from, at),
            Continuity::Restarted => {
                restarted = true;
                self.restart_consumers_at(producer, key, at);
            }
        }
        let awoke = awoke || restarted;
        self.note_arrival(now, Arrived { stream: key, awoke, restarted: false });
        Ok(())
    }

    /// Behind a hole of the relay's making, consumers go on without one: with the number `from`, at
    /// the packet `at`. Their time goes on as the stream's does.
    fn resume_consumers(
        &mut self,
        producer: ProducerKey,
        stream: StreamKey,
        from: u64,
        at: PacketIndex,
    ) {
        let Some(producer) = self.producers.get(producer) else { return };
        for consumer in &producer.consumers {
            if let Some(consumer) = self.consumers.get_mut(*consumer)
                && let Some(playing) = consumer.playing.as_mut().filter(|p| p.stream == stream)
            {
                playing.next = at;
                consumer.seq.sync(from);
            }
        }
    }

    /// The sender began anew: so does who was fed with it, at the packet `at`.
    fn restart_consumers_at(&mut self, producer: ProducerKey, stream: StreamKey, at: PacketIndex) {
        let Some(producer) = self.producers.get(producer) else { return };
        for consumer in &producer.consumers {
            let Some(consumer) = self.consumers.get_mut(*consumer) else { continue };
            if consumer.playing.is_none_or(|playing| playing.stream != stream) {
                continue;
            }
            consumer.stop();
            consumer.fresh = true;
            match consumer.kind {
                MediaKind::Audio => consumer.playing = Some(Cursor { stream, next: at }),
                MediaKind::Video => {
                    consumer.awaiting = Some(Awaiting { stream, next: at, since: at });
                }
            }
        }
    }

    /// Takes what the origin tells of a stream.
    pub(super) fn take_pulse(&mut self, now: Instant, from: ShardId, pulse: &RelayPulse) {
        let Some((key, stream)) = self.mirrored(from, pulse.producer, pulse.encoding) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(stream) else { return };
        let was_active = stream.activity.is_active(now);
        stream.activity.adopt(&pulse.activity);
        stream.clock = pulse.clock;
        stream.layers.adopt(&pulse.rates);
        let awoke = !was_active && stream.activity.is_active(now);
        if let Some(relayed) = stream.source.relayed_mut() {
            relayed.sender = pulse.sender;
        }
        if let Some(mirrored) = self.producers.get_mut(key).and_then(|p| p.source.relayed_mut()) {
            mirrored.informed = true;
        }
        if awoke {
            self.choose_layers(now, key);
        }
    }

    /// Something that a mirror's demand, or what a producer's application is told, follows from may
    /// have changed.
    pub(in crate::engine) fn note_demand(&mut self, key: ProducerKey) {
        if self.producers.get_mut(key).is_some_and(Producer::queue_demand) {
            self.demands.push(key);
        }
        if let Some(mirrored) = self.producers.get_mut(key).and_then(|p| p.source.relayed_mut())
            && !mirrored.queued
        {
            mirrored.queued = true;
            self.relaying.wishes.push(key);
        }
    }

    /// What a mirror's stream waits for: a key frame that is missing, the end of its packets' use.
    pub(in crate::engine) fn handle_mirror_deadline(&mut self, now: Instant, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(relayed) = stream.source.relayed_mut() else { return };
        if stream.paused {
            stream.key_frames.cancel();
        }
        if relayed.left.is_some_and(|left| left + REPAIR_AGE_VIDEO_MAX <= now) {
            relayed.left = None;
            stream.ring.clear();
        }
        let mut next = relayed.left.map(|left| left + REPAIR_AGE_VIDEO_MAX);
        // One that is not fed yet begins with a key frame: its origin sees to that.
        let asks = relayed.fed && stream.key_frames.poll(now);
        if relayed.fed {
            next = next.into_iter().chain(stream.key_frames.next_deadline()).min();
        }
        let (producer, encoding) = (stream.producer, stream.encoding);
        if let Some(deadline) = next {
            self.timers.arm(TimerKey::Stream(key), deadline);
        }
        if asks {
            if let Some(m) = self.producers.get_mut(producer).and_then(|p| p.source.relayed_mut()) {
                m.asks |= bit(encoding);
            }
            self.note_demand(producer);
        }
    }

    /// Tells origins what their mirrors want; false when a lane was full.
    pub(super) fn send_wishes(&mut self, now: Instant, lanes: &mut dyn RelayLanes) -> bool {
        self.relaying.partings.retain(|(origin, producer)| {
            let item = RelayItem::Demand { producer: *producer, encodings: None, preferred: None };
            lanes.send(*origin, item).is_err()
        });
        let mut wishes = std::mem::take(&mut self.relaying.wishes);
        wishes.retain(|key| {
            let told = self.send_wishes_of(now, *key, lanes);
            if told
                && let Some(m) = self.producers.get_mut(*key).and_then(|p| p.source.relayed_mut())
            {
                m.queued = false;
            }
            !told
        });
        self.relaying.wishes = wishes;
        self.relaying.wishes.is_empty() && self.relaying.partings.is_empty()
    }

    /// Tells the origin of one mirror; false when the lane was full before all was told.
    fn send_wishes_of(
        &mut self,
        now: Instant,
        key: ProducerKey,
        lanes: &mut dyn RelayLanes,
    ) -> bool {
        let Some(producer) = self.producers.get(key) else { return true };
        let Some(mirrored) = producer.source.relayed() else { return true };
        let (origin, id, told) = (mirrored.origin, producer.id, mirrored.told);
        let told_preferred = mirrored.told_preferred;
        let encodings = self.demand_of(producer);
        let preferred = self.preferred_of(producer);
        if (encodings, preferred) != (told, told_preferred) {
            let item = RelayItem::Demand { producer: id, encodings, preferred };
            if lanes.send(origin, item).is_err() {
                return false;
            }
            self.note_told(now, key, encodings);
            if let Some(m) = self.producers.get_mut(key).and_then(|p| p.source.relayed_mut()) {
                m.told_preferred = preferred;
            }
        }
        let Some(producer) = self.producers.get_mut(key) else { return true };
        let Some(mirrored) = producer.source.relayed_mut() else { return true };
        // What is not wanted any more needs no key frame.
        mirrored.asks &= encodings.unwrap_or(0);
        for encoding in 0..8_u8 {
            let bit = bit(usize::from(encoding));
            if mirrored.asks & bit == 0 {
                continue;
            }
            if lanes.send(origin, RelayItem::KeyFrame { producer: id, encoding }).is_err() {
                return false;
            }
            mirrored.asks &= !bit;
        }
        true
    }

    /// What the consumers of a producer on this shard take: a bit for each encoding; `None` without
    /// any.
    pub(in crate::engine) fn demand_of(&self, producer: &Producer) -> Option<u8> {
        let taken = |stream: StreamKey| {
            let mut consumers = producer.consumers.iter().filter_map(|c| self.consumers.get(*c));
            consumers.any(|consumer| consumer.takes(stream))
        };
        let streams = producer.streams.iter().enumerate();
        let encodings = streams.filter(|(_, stream)| taken(**stream));
        let encodings = encodings.fold(0, |all, (encoding, _)| all | bit(encoding));
        (!producer.consumers.is_empty()).then_some(encodings)
    }

    /// The origin will know of a demand.
    fn note_told(&mut self, now: Instant, key: ProducerKey, encodings: Option<u8>) {
        let Some(producer) = self.producers.get_mut(key) else { return };
        let Some(mirrored) = producer.source.relayed_mut() else { return };
        mirrored.told = encodings;
        // Without pulses what is known of the streams grows old.
        mirrored.informed &= encodings.is_some();
        for (encoding, stream_key) in producer.streams.iter().enumerate() {
            let Some(stream) = self.streams.get_mut(*stream_key) else { continue };
            let Some(relayed) = stream.source.relayed_mut() else { continue };
            let wanted = encodings.is_some_and(|all| all & bit(encoding) != 0);
            if wanted {
                relayed.left = None;
            } else {
                relayed.fed = false;
                if relayed.wanted {
                    relayed.left = Some(now);
                    // Kept for repeats only. Wanted again, the origin chooses where to begin, maybe
                    // with the very key frame that is here: it must not be sent before that, too.
                    stream.floor = stream.ring.head();
                    let deadline = now + REPAIR_AGE_VIDEO_MAX;
                    self.timers.arm(TimerKey::Stream(*stream_key), deadline);
                }
            }
            relayed.wanted = wanted;
            if encodings.is_none() {
                relayed.left = None;
                stream.ring.clear();
            }
        }
    }
}
