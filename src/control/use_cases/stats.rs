//! Asking shards how transports, producers and consumers do.
//!
//! Each question is one small call of one shard. A room is many of them: a page of them, of which all
//! pages together have at most [`ROOM_STATS_CALLS_MAX`] under way.

use std::fmt;
use std::str::FromStr;

use futures_util::{StreamExt, stream};

use crate::control::command::{Command, Refusal, Reply};
use crate::control::error::ControlError;
use crate::control::registry::{Consumer, Producer, Registry, Transport};
use crate::control::service::{Control, now};
use crate::control::stats::{
    ConsumerNumbers, ConsumerStats, ProducerStats, RoomStats, RtpStreamStats, SelectedTuple,
    StreamNumbers, TransportNumbers, TransportStats,
};
use crate::control::view::RoomSummary;
use crate::id::{ConsumerId, ProducerId, RoomId, TransportId};
use crate::limits::{ROOM_STATS_CALLS_MAX, ROOM_STATS_PAGE_MAX};

/// Something in a room that has statistics. In this order pages tell of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatsCursor {
    /// A transport.
    Transport(TransportId),
    /// A producer.
    Producer(ProducerId),
    /// A consumer.
    Consumer(ConsumerId),
}

impl fmt::Display for StatsCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(id) => write!(f, "t{id}"),
            Self::Producer(id) => write!(f, "p{id}"),
            Self::Consumer(id) => write!(f, "c{id}"),
        }
    }
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be one that was given as nextCursor")]
pub struct NoCursor;

impl FromStr for StatsCursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let (kind, id) = text.split_at_checked(1).ok_or(NoCursor)?;
        let parsed = match kind {
            "t" => id.parse().map(Self::Transport),
            "p" => id.parse().map(Self::Producer),
            "c" => id.parse().map(Self::Consumer),
            _ => return Err(NoCursor),
        };
        parsed.map_err(|_| NoCursor)
    }
}

/// Statistics of one thing in a room.
enum Told {
    Transport(Box<TransportStats>),
    Producer(ProducerStats),
    Consumer(ConsumerStats),
}

impl Control {
    /// How a transport does.
    ///
    /// # Errors
    /// [`ControlError::TransportNotFound`], [`ControlError::Overloaded`].
    pub async fn transport_stats(&self, id: TransportId) -> Result<TransportStats, ControlError> {
        let Reply::TransportStats(numbers) =
            self.ask_transport(id, Command::TransportStats(id)).await?
        else {
            return Err(ControlError::Overloaded);
        };
        self.inner.state.with(|state| {
            let transport = state.registry.transport(id)?;
            Ok(self.transport_told(id, transport, *numbers))
        })
    }

    fn transport_told(
        &self,
        id: TransportId,
        transport: &Transport,
        numbers: TransportNumbers,
    ) -> TransportStats {
        let TransportNumbers { traffic, limits, .. } = numbers;
        TransportStats {
            kind: "webrtc-transport",
            transport_id: id,
            peer_id: transport.peer.clone(),
            direction: transport.direction,
            shard: transport.shard,
            timestamp: self.inner.clock.unix_ms(now()),
            ice_role: "controlled",
            ice_state: numbers.ice.label(),
            ice_selected_tuple: numbers.selected.map(|(local, remote, tcp)| SelectedTuple {
                local_address: local,
                local_port: self.inner.media.port,
                remote_ip: remote.ip(),
                remote_port: remote.port(),
                protocol: if tcp { "tcp" } else { "udp" },
            }),
            dtls_state: numbers.dtls.label(),
            traffic,
            available_outgoing_bitrate: numbers.available_outgoing_bps,
            available_incoming_bitrate: numbers.available_incoming_bps,
            limits,
        }
    }

    /// How a producer's streams arrive.
    ///
    /// # Errors
    /// [`ControlError::ProducerNotFound`], [`ControlError::Overloaded`].
    pub async fn producer_stats(&self, id: ProducerId) -> Result<ProducerStats, ControlError> {
        let pending = self.inner.state.with(|state| {
            let shard = state.registry.producer(id)?.shard;
            Ok::<_, ControlError>(self.inner.dispatcher.submit(shard, Command::ProducerStats(id)))
        })?;
        let Reply::ProducerStats(streams) = pending.answer().await? else {
            return Err(ControlError::Overloaded);
        };
        let timestamp = self.inner.clock.unix_ms(now());
        self.inner.state.with(|state| {
            let producer = state.registry.producer(id)?;
            let told = streams.into_iter();
            Ok(ProducerStats {
                producer_id: id,
                peer_id: producer.peer.clone(),
                transport_id: producer.transport,
                kind: producer.kind,
                source: producer.source.clone(),
                producer_type: producer.producer_type,
                paused: producer.paused,
                score: producer.encoding_scores(),
                stats: told.map(|(place, n)| inbound(producer, place, n, timestamp)).collect(),
            })
        })
    }

    /// How a consumer's stream is sent, and how what it is fed with arrives.
    ///
    /// # Errors
    /// [`ControlError::ConsumerNotFound`], [`ControlError::Overloaded`].
    pub async fn consumer_stats(&self, id: ConsumerId) -> Result<ConsumerStats, ControlError> {
        let (mut stats, encoding) = self.outbound_stats(id).await?;
        // It may live on another shard, and close meanwhile.
        if let Some(encoding) = encoding {
            let pending = self.inner.state.with(|state| {
                let shard = state.registry.producer(stats.producer_id).ok()?.shard;
                let command = Command::ProducerStats(stats.producer_id);
                Some(self.inner.dispatcher.submit(shard, command))
            });
            let answer = match pending {
                Some(pending) => pending.answer().await,
                None => Err(Refusal::NoProducer),
            };
            let streams = match answer {
                Ok(Reply::ProducerStats(streams)) => streams,
                Ok(_) | Err(Refusal::NoProducer) => return Err(ControlError::ConsumerNotFound),
                Err(refusal) => return Err(refusal.into()),
            };
            let timestamp = self.inner.clock.unix_ms(now());
            let fed = streams.into_iter().find(|(place, _)| *place == encoding);
            stats.stats.extend(self.inner.state.with(|state| {
                let producer = state.registry.producer(stats.producer_id).ok()?;
                fed.map(|(place, numbers)| inbound(producer, place, numbers, timestamp))
            }));
        }
        Ok(stats)
    }

    /// A consumer without its producer's stream; which of its encodings that is.
    async fn outbound_stats(
        &self,
        id: ConsumerId,
    ) -> Result<(ConsumerStats, Option<u8>), ControlError> {
        let Reply::ConsumerStats(numbers) =
            self.ask_consumer(id, Command::ConsumerStats(id)).await?
        else {
            return Err(ControlError::Overloaded);
        };
        let encoding = numbers.encoding;
        let timestamp = self.inner.clock.unix_ms(now());
        let stats = self
            .inner
            .state
            .with(|state| consumer_told(&state.registry, id, *numbers, timestamp))?;
        Ok((stats, encoding))
    }

    /// A page of everything in a room, beginning after `cursor`. What closes meanwhile is left out.
    ///
    /// # Errors
    /// [`ControlError::RoomNotFound`], [`ControlError::Overloaded`].
    pub async fn room_stats(
        &self,
        room: &RoomId,
        cursor: Option<StatsCursor>,
        limit: usize,
    ) -> Result<RoomStats, ControlError> {
        let limit = limit.clamp(1, ROOM_STATS_PAGE_MAX);
        let (mut page, summary, speaker) = self.inner.state.with(|state| {
            let found = state.registry.room(room)?;
            let summary = RoomSummary::of(room, found, self.inner.clock);
            let speaker = found.speaker().and_then(|id| state.registry.producer(id).ok());
            let speaker = speaker.map(|producer| producer.peer.clone());
            let page = following(&state.registry, room, cursor)?;
            Ok::<_, ControlError>((page, summary, speaker))
        })?;
        let more = page.len() > limit;
        if more {
            // Only what is told has to be in order.
            page.select_nth_unstable(limit - 1);
            page.truncate(limit);
        }
        page.sort_unstable();
        let last = page.last().filter(|_| more).map(ToString::to_string);
        let mut stats = RoomStats {
            room_id: room.clone(),
            room: summary,
            speaker,
            transports: Vec::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            next_cursor: last,
        };
        let asked = stream::iter(page).map(|object| self.told_of(object));
        let mut told = std::pin::pin!(asked.buffered(ROOM_STATS_CALLS_MAX));
        while let Some(told) = told.next().await {
            match told? {
                Some(Told::Transport(transport)) => stats.transports.push(*transport),
                Some(Told::Producer(producer)) => stats.producers.push(producer),
                Some(Told::Consumer(consumer)) => stats.consumers.push(consumer),
                None => {}
            }
        }
        Ok(stats)
    }

    /// Statistics of one thing in a room; `None` when it is gone.
    async fn told_of(&self, object: StatsCursor) -> Result<Option<Told>, ControlError> {
        let _turn = self.inner.stats_turns.acquire().await;
        let told = match object {
            StatsCursor::Transport(id) => {
                self.transport_stats(id).await.map(|stats| Told::Transport(Box::new(stats)))
            }
            StatsCursor::Producer(id) => self.producer_stats(id).await.map(Told::Producer),
            StatsCursor::Consumer(id) => {
                self.outbound_stats(id).await.map(|(stats, _)| Told::Consumer(stats))
            }
        };
        match told {
            Ok(told) => Ok(Some(told)),
            Err(ControlError::Overloaded) => Err(ControlError::Overloaded),
            Err(_) => Ok(None),
        }
    }
}

/// Everything in a room that comes after `cursor`, in no order.
fn following(
    registry: &Registry,
    room: &RoomId,
    cursor: Option<StatsCursor>,
) -> Result<Vec<StatsCursor>, ControlError> {
    let peers = registry.room(room)?.peers.values();
    let mut found = Vec::new();
    for id in peers.flat_map(|peer| &peer.transports) {
        let Ok(transport) = registry.transport(*id) else { continue };
        found.push(StatsCursor::Transport(*id));
        found.extend(transport.producers().map(StatsCursor::Producer));
        found.extend(transport.consumers().map(StatsCursor::Consumer));
    }
    found.retain(|object| Some(*object) > cursor);
    Ok(found)
}

fn consumer_told(
    registry: &Registry,
    id: ConsumerId,
    numbers: ConsumerNumbers,
    timestamp: u64,
) -> Result<ConsumerStats, ControlError> {
    let consumer = registry.consumer(id)?;
    let producer = registry.producer(consumer.producer)?;
    let transport = registry.transport(consumer.transport)?;
    let mut score = registry.score_of(id)?;
    score.score = numbers.stream.score;
    if let Some(encoding) = numbers.encoding {
        let fed = score.producer_scores.get(usize::from(encoding)).copied();
        score.producer_score = fed.unwrap_or_default();
    }
    Ok(ConsumerStats {
        consumer_id: id,
        producer_id: consumer.producer,
        producer_peer_id: producer.peer.clone(),
        source: producer.source.clone(),
        peer_id: transport.peer.clone(),
        transport_id: consumer.transport,
        paused: consumer.paused,
        producer_paused: producer.paused,
        layers: numbers.layers,
        priority: numbers.priority,
        score,
        stats: vec![outbound(consumer, producer, numbers.stream, timestamp)],
    })
}

fn outbound(
    consumer: &Consumer,
    producer: &Producer,
    numbers: StreamNumbers,
    timestamp: u64,
) -> RtpStreamStats {
    let mime_type = consumer.mime_type.clone();
    let (direction, kind, rid) = ("outbound-rtp", producer.kind, None);
    RtpStreamStats { direction, timestamp, kind, mime_type, rid, numbers }
}

fn inbound(
    producer: &Producer,
    encoding: u8,
    numbers: StreamNumbers,
    timestamp: u64,
) -> RtpStreamStats {
    let codec = producer.consumable().codecs.first();
    let encoding = producer.made_of.rtp.encodings.get(usize::from(encoding));
    RtpStreamStats {
        direction: "inbound-rtp",
        timestamp,
        kind: producer.kind,
        mime_type: codec.map(|codec| codec.mime_type.clone()).unwrap_or_default(),
        rid: encoding.and_then(|encoding| encoding.rid.clone()),
        numbers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let (t, p, c) = (TransportId::random(), ProducerId::random(), ConsumerId::random());
        let all = [StatsCursor::Transport(t), StatsCursor::Producer(p), StatsCursor::Consumer(c)];
        assert!(all.is_sorted(), "transports, then producers, then consumers");
        for cursor in all {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for wrong in ["", "t", "é", "x0", &t.to_string(), &format!("t{t}0")] {
            assert_eq!(wrong.parse::<StatsCursor>(), Err(NoCursor), "{wrong:?}");
        }
    }
}
