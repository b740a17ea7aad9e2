//! librdkafka's mock of a Kafka cluster, and a reader of its topics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{Offset, TopicPartitionList};
use ringcast::config::{KafkaConfig, KafkaSecurity};

use super::calls::{PATIENCE, Told, clock};

pub(crate) const CHAT: &str = "emit_to_chat";
pub(crate) const ROOMS: &str = "rooms";
/// More than one, so that the order is the key's doing.
const PARTITIONS: i32 = 3;
/// How long the reader waits for a message before it looks at the condition again.
const LOOK: Duration = Duration::from_millis(50);

/// One broker with both topics.
pub(crate) struct Cluster {
    pub(crate) mock: MockCluster<'static, DefaultProducerContext>,
}

/// Reads both topics from their beginnings.
pub(crate) struct Reader {
    consumer: BaseConsumer,
    pub(crate) chat: Vec<(String, Told)>,
    pub(crate) rooms: Vec<(String, Told)>,
    /// Partitions in which each room was found.
    pub(crate) partitions: BTreeMap<String, i32>,
    /// Ids in each topic.
    different: [BTreeSet<(String, String)>; 2],
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let mock = MockCluster::new(1).unwrap();
        for topic in [CHAT, ROOMS] {
            mock.create_topic(topic, PARTITIONS, 1).unwrap();
        }
        Self { mock }
    }

    pub(crate) fn config(&self) -> KafkaConfig {
        KafkaConfig {
            brokers: vec![self.mock.bootstrap_servers()],
            credentials: None,
            security: KafkaSecurity::default(),
            room_events_topic: Some(ROOMS.to_owned()),
        }
    }

    pub(crate) fn reader(&self) -> Reader {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.mock.bootstrap_servers())
            .set("group.id", "reader")
            .set("reconnect.backoff.max.ms", "500")
            .create()
            .unwrap();
        let mut all = TopicPartitionList::new();
        for topic in [CHAT, ROOMS] {
            for partition in 0..PARTITIONS {
                all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
            }
        }
        consumer.assign(&all).unwrap();
        Reader {
            consumer,
            chat: vec![],
            rooms: vec![],
            partitions: BTreeMap::new(),
            different: Default::default(),
        }
    }
}

impl Reader {
    /// Reads until the condition holds.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = clock() + PATIENCE;
        while !holds(self) {
            let (chat, rooms) = (self.chat.len(), self.rooms.len());
            assert!(clock() < end, "{what}: {chat} to the chat, {rooms} of rooms");
            // An error is one of a broker that is away for the moment.
            let Some(Ok(message)) = self.consumer.poll(LOOK) else { continue };
            let id = message.headers().unwrap().get(0);
            assert_eq!(id.key, "ringcast-id");
            let id = String::from_utf8(id.value.unwrap().to_vec()).unwrap();
            let room = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
            let value = serde_json::from_slice(message.payload().unwrap()).unwrap();
            let found = message.partition();
            assert_eq!(*self.partitions.entry(room.clone()).or_insert(found), found, "{room}");
            assert!(message.timestamp().to_millis() >= Some(1_700_000_000_000));
            let [chat, rooms] = &mut self.different;
            let (to, ids) = match message.topic() {
                CHAT => (&mut self.chat, chat),
                _ => (&mut self.rooms, rooms),
            };
            ids.insert((room.clone(), id.clone()));
            to.push((room, Told { id, value }));
        }
    }

    /// Reads until both topics have so many different messages.
    pub(crate) fn until_different(&mut self, count: usize) {
        self.until(&format!("{count} messages"), |reader| {
            reader.different.iter().all(|ids| ids.len() >= count)
        });
    }
}
