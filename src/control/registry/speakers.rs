//! Who is heard in a room, and which layers of whose video are wanted: what shards tell of it, as
//! the room's events.

use std::time::Instant;

use super::{Effects, Registry};

use crate::control::command::Layers;
use crate::engine::voice::LevelWindow;
use crate::events::RoomEvent;
use crate::id::{ProducerId, RoomId};

impl Registry {
    /// Takes what was heard of a producer; returns its room. What a paused one said before does not
    /// count.
    pub fn hear(&mut self, now: Instant, id: ProducerId, window: &LevelWindow) -> Option<RoomId> {
        let producer = self.producers.get(&id).filter(|producer| producer.ready)?;
        let room = self.rooms.get_mut(&producer.room)?;
        if !producer.paused {
            room.speakers.hear(now, id, window);
        }
        Some(producer.room.clone())
    }

    /// What there is to tell of a room's voices; levels only when somebody listens.
    pub fn tell_speakers(&mut self, now: Instant, id: &RoomId, is_followed: bool) -> Effects {
        let mut effects = Effects::default();
        let Some(room) = self.rooms.get_mut(id) else { return effects };
        let shard = room.shard;
        let news = room.speakers.poll(now, is_followed);
        let peer_of = |id| self.producers.get(&id).map(|producer| producer.peer.clone());
        if let Some(producer) = news.speaker
            && let Some(peer) = peer_of(producer)
        {
            effects.append(Effects::event(id, shard, RoomEvent::ActiveSpeaker { producer, peer }));
        }
        if let Some(levels) = news.levels {
            let levels = levels
                .into_iter()
                .filter_map(|told| Some((told.producer, peer_of(told.producer)?, told.level)))
                .collect();
            effects.append(Effects::event(id, shard, RoomEvent::AudioLevels { levels }));
        }
        effects
    }

    /// Notes which layers of a producer are wanted; tells its room if they are others than before.
    pub fn note_demand(&mut self, id: ProducerId, encodings: Vec<Option<Layers>>) -> Effects {
        let Some(producer) = self.producers.get_mut(&id) else { return Effects::default() };
        if producer.demand == encodings {
            // Told again, for events were lost; this one was not.
            return Effects::default();
        }
        producer.demand.clone_from(&encodings);
        let event =
            RoomEvent::ProducerDemand { producer: id, peer: producer.peer.clone(), encodings };
        Effects::event(&producer.room, producer.shard, event)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::super::{Direction, NewProducer, NewTransport};
    use super::*;
    use crate::control::command::CreateProducer;
    use crate::engine::test_instant;
    use crate::id::{PeerId, ShardId, TransportId};
    use crate::ortc::parse_rtp_parameters;
    use crate::ortc::types::{MediaKind, ProducerType, RtpMapping};

    fn room() -> RoomId {
        RoomId::try_from("room").unwrap()
    }

    /// A microphone of a new peer.
    fn microphone(registry: &mut Registry, peer: &str) -> ProducerId {
        let (transport, producer) = (TransportId::random(), ProducerId::random());
        let peer = PeerId::try_from(peer).unwrap();
        let new = NewTransport { room: room(), peer, direction: Direction::Send };
        registry.reserve_transport(transport, new, ShardId(0)).unwrap();
        let _ = registry.commit_transport(transport).unwrap();
        let rtp = json!({"codecs": [], "encodings": []});
        let rtp = parse_rtp_parameters(rtp).unwrap();
        let made_of = CreateProducer {
            transport,
            producer,
            kind: MediaKind::Audio,
            producer_type: ProducerType::Simple,
            rtp: rtp.clone(),
            mapping: RtpMapping::default(),
            consumable: rtp,
            paused: false,
            key_frame_request_delay: Duration::ZERO,
        };
        let made_of = Arc::new(made_of);
        let new = NewProducer {
            made_of,
            source: "audio".to_owned(),
            app_data: Value::Null,
            replaces_one: false,
        };
        registry.reserve_producer(producer, new).unwrap();
        let _ = registry.commit_producer(producer).unwrap();
        producer
    }

    #[test]
    fn a_room_hears_of_its_speakers_and_levels_in_turn_and_of_silence_once() {
        let mut now = test_instant();
        let mut registry = Registry::default();
        let _ = registry.add_room(&room(), ShardId(0), None, now).unwrap();
        let alice = microphone(&mut registry, "alice");
        let bob = microphone(&mut registry, "bob");
        let mut told = Vec::new();
        for window in 0..60 {
            now += Duration::from_millis(200);
            // One after the other, then nobody.
            let loudness = match window {
                0..20 => [100, 40],
                20..40 => [40, 100],
                _ => [30, 30],
            };
            // They live on two shards, which tell one after the other.
            for (producer, loudness) in [alice, bob].into_iter().zip(loudness) {
                let window = LevelWindow::new(&[loudness; 10]);
                assert_eq!(registry.hear(now, producer, &window), Some(room()));
                let effects = registry.tell_speakers(now, &room(), true);
                assert!(effects.closes.is_empty());
                told.extend(effects.events.into_iter().map(|happening| happening.event));
            }
        }
        let of = |name: &str| -> Vec<Value> {
            told.iter().filter(|event| event.name() == name).map(RoomEvent::data).collect()
        };
        let speaker = |id: ProducerId, peer: &str| json!({ "producerId": id, "peerId": peer });
        assert_eq!(of("active-speaker"), [speaker(alice, "alice"), speaker(bob, "bob")]);
        let alone = |id: ProducerId, peer: &str| json!({ "levels": [{ "producerId": id, "peerId": peer, "level": -27 }] });
        let levels = of("audio-levels");
        assert_eq!(levels.first(), Some(&alone(alice, "alice")));
        assert!(levels.contains(&alone(bob, "bob")), "{levels:?}");
        let silence = json!({ "levels": [] });
        assert_eq!(levels.last(), Some(&silence));
        assert_eq!(levels.iter().filter(|told| **told == silence).count(), 1);
        assert!(levels.len() <= 8, "only what changed: {levels:?}");
        assert_eq!(registry.room(&room()).unwrap().speaker(), Some(bob));
        let _ = registry.close_producer(bob, "closed").unwrap();
        assert_eq!(registry.room(&room()).unwrap().speaker(), None);
    }

    #[test]
    fn what_is_told_of_unknown_producers_and_rooms_is_nothing() {
        let now = test_instant();
        let mut registry = Registry::default();
        let _ = registry.add_room(&room(), ShardId(0), None, now).unwrap();
        let nobody = ProducerId::random();
        assert_eq!(registry.hear(now, nobody, &LevelWindow::new(&[100; 10])), None);
        assert!(registry.note_demand(nobody, vec![None]).events.is_empty());
        let elsewhere = RoomId::try_from("elsewhere").unwrap();
        assert!(registry.tell_speakers(now, &elsewhere, true).events.is_empty());
    }
}
