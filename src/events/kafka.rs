//! Room events to Kafka: the replaced service's messages to its topic, and the whole log of every
//! room to another, where one is named.
//!
//! Owns one thread and librdkafka's own. The key of a message is its room, so that a room's events
//! are in one partition and in order; the header `ringcast-id` is the event's id. An idempotent
//! producer without a message time-out keeps order over outages by itself: what is under way stays
//! with librdkafka until a broker is back (up to a full window), and what follows waits in the
//! backlog. Only after an error that a producer cannot survive is it made anew, and then everything
//! unacknowledged is sent again: in order, under the same ids, some of it perhaps twice.
//!
//! | Setting | Why |
//! |---|---|
//! | `acks=all`, `enable.idempotence` | an acknowledged event survives a broker; retries neither repeat nor reorder |
//! | `message.timeout.ms=0` | a time-out would fail one event and let later ones pass |
//! | `partitioner=murmur2_random` | rooms go to the partitions to which Java and JavaScript clients send them |
//! | `linger.ms=20`, `compression.type=lz4` | few, small requests |
//! | `reconnect.backoff.max.ms=1000` | the default of 10 s delays recovery by as much |
//!
//! TLS is the system's OpenSSL, and checks the names of brokers, to whom it may show a certificate.
//! With a user, SASL.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, never, select, unbounded};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig,
};

use super::chat;
use super::outlet::{Intake, Message, Number, OutletCounts, Topic};
use crate::config::{KafkaConfig, KafkaSecurity};
use crate::limits::{
    KAFKA_RETRY, OUTLET_FLUSH_TIMEOUT, OUTLET_IDLE_POLL, OUTLET_POLL, OUTLET_WINDOW,
    OUTLET_WINDOW_BYTES_MAX,
};

/// What became of one message.
type Outcome = (usize, Option<RDKafkaErrorCode>);

/// The outlet to Kafka.
pub(crate) struct Kafka {
    config: ClientConfig,
    room_events_topic: Option<String>,
    outcomes: (Sender<Outcome>, Receiver<Outcome>),
    state: Arc<ClusterState>,
}

#[derive(Debug, Default)]
struct ClusterState {
    /// No broker can be reached, as librdkafka said last.
    down: AtomicBool,
}

/// What librdkafka calls back.
struct Context {
    outcomes: Sender<Outcome>,
    state: Arc<ClusterState>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // Its warnings come with every attempt to reconnect; the outlet tells the change itself.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "librdkafka: {text}");
            }
            _ => tracing::debug!(facility, "librdkafka: {text}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if matches!(code, Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Authentication))
            && !self.state.down.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(reason, "no Kafka broker can be reached");
        }
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let code = match result {
            Ok(_) => None,
            Err((error, _)) => Some(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        // The receiver lives as long as the producer.
        let _ = self.outcomes.send((number, code));
    }
}

type RoomProducer = BaseProducer<Context>;

impl Kafka {
    /// Checks that librdkafka takes the settings.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn new(config: &KafkaConfig) -> io::Result<Self> {
        let kafka = Self {
            config: settings(config),
            room_events_topic: config.room_events_topic.clone(),
            outcomes: unbounded(),
            state: Arc::default(),
        };
        kafka.config.create_native_config().map_err(io::Error::other)?;
        Ok(kafka)
    }

    /// Delivers until told to stop.
    pub(crate) fn run(self, mut intake: Intake) {
        let mut producer = None;
        let (mut wait, longest) = KAFKA_RETRY;
        let mut due = after(Duration::ZERO);
        loop {
            let idle = intake.backlog.is_empty();
            let pause = if idle { OUTLET_IDLE_POLL } else { OUTLET_POLL };
            select! {
                recv(intake.queue) -> given => if !intake.take(given) { break },
                recv(intake.stop) -> _ => break,
                recv(intake.keep) -> _ => intake.keep(),
                recv(due) -> _ => {
                    due = never();
                    producer = self.producer();
                    if producer.is_none() {
                        due = after(longest);
                    }
                }
                default(pause) => {}
            }
            let lost = match &producer {
                Some(producer) => self.turn(producer, &mut intake).is_err(),
                None => false,
            };
            if lost {
                if let Some(producer) = producer.take() {
                    self.abandon(producer, &mut intake);
                }
                OutletCounts::add(&intake.counts.retries, 1);
                due = after(wait);
                wait = longest.min(wait * 2);
            } else if intake.counts.up.load(Ordering::Relaxed) {
                wait = KAFKA_RETRY.0;
            }
            intake.tell_backlog();
        }
        while intake.fill() {}
        if let Some(producer) = producer {
            self.finish(producer, &mut intake);
        }
        intake.close();
    }

    fn producer(&self) -> Option<RoomProducer> {
        let context = Context { outcomes: self.outcomes.0.clone(), state: Arc::clone(&self.state) };
        match RoomProducer::from_config_and_context(&self.config, context) {
            Ok(producer) => Some(producer),
            Err(error) => {
                tracing::error!(%error, "no Kafka producer can be made");
                None
            }
        }
    }

    /// Hands over what waits and hears what was delivered.
    fn turn(&self, producer: &RoomProducer, intake: &mut Intake) -> Result<(), Broken> {
        while let Some((number, message)) = intake.backlog.take() {
            match self.send(producer, number, &message) {
                Ok(()) => {}
                Err(RDKafkaErrorCode::QueueFull) => {
                    intake.backlog.untake();
                    break;
                }
                Err(code) if is_permanent(code) => intake.failed(number, &code.to_string()),
                Err(_) => return Err(Broken),
            }
        }
        producer.poll(Duration::ZERO);
        self.hear(intake)?;
        if self.state.down.load(Ordering::Relaxed) {
            intake.is_up(false, "no broker can be reached");
        }
        match producer.client().fatal_error() {
            None => Ok(()),
            Some((code, reason)) => {
                tracing::error!(%code, reason, "the Kafka producer must be made anew");
                Err(Broken)
            }
        }
    }

    fn send(
        &self,
        producer: &RoomProducer,
        number: Number,
        message: &Message,
    ) -> Result<(), RDKafkaErrorCode> {
        let topic = match message.topic {
            Topic::Chat => chat::TOPIC,
            // Of a spool from when events of rooms went somewhere.
            Topic::RoomEvents => {
                self.room_events_topic.as_deref().ok_or(RDKafkaErrorCode::InvalidTopic)?
            }
        };
        let id = message.id.to_string();
        let headers =
            OwnedHeaders::new().insert(Header { key: "ringcast-id", value: Some(id.as_str()) });
        let opaque = usize::try_from(number).map_err(|_| RDKafkaErrorCode::Fail)?;
        let record = BaseRecord::with_opaque_to(topic, opaque)
            .key(message.room.as_str())
            .payload(&message.body[..])
            .timestamp(i64::try_from(message.unix_ms).unwrap_or(i64::MAX))
            .headers(headers);
        producer
            .send(record)
            .map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
    }

    /// Takes delivery reports.
    fn hear(&self, intake: &mut Intake) -> Result<(), Broken> {
        let mut broken = Ok(());
        while let Ok((number, code)) = self.outcomes.1.try_recv() {
            let number = u64::try_from(number).unwrap_or(u64::MAX);
            match code {
                None => {
                    self.state.down.store(false, Ordering::Relaxed);
                    intake.delivered(number);
                    intake.is_up(true, "");
                }
                Some(code) if is_permanent(code) => intake.failed(number, &code.to_string()),
                // It stays in the backlog.
                Some(code) => {
                    if is_missing(code) {
                        // Not told again while it stays away.
                        intake.is_up(false, "a topic does not exist");
                    }
                    broken = Err(Broken);
                }
            }
        }
        broken
    }

    /// Takes back everything that a producer has not delivered.
    fn abandon(&self, producer: RoomProducer, intake: &mut Intake) {
        producer.purge(PurgeConfig::default().queue().inflight());
        let _ = producer.flush(OUTLET_POLL);
        drop(producer);
        // What was delivered is done; the rest is sent again, in order.
        let _ = self.hear(intake);
        intake.backlog.rewind();
        intake.is_up(false, "the producer is made anew");
    }

    fn finish(&self, producer: RoomProducer, intake: &mut Intake) {
        let sent = self.turn(&producer, intake);
        if sent.is_ok() && producer.flush(OUTLET_FLUSH_TIMEOUT).is_err() {
            tracing::warn!("Kafka did not take all events in time");
        }
        self.abandon(producer, intake);
    }
}

/// The producer has failed and must be made anew.
struct Broken;

/// Refusals that no retry changes.
fn is_permanent(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

/// Refusals that end when somebody creates the topic.
fn is_missing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
    )
}

fn settings(config: &KafkaConfig) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", config.brokers.join(","))
        .set("client.id", "ringcast")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", (OUTLET_WINDOW * 2).to_string())
        .set("queue.buffering.max.kbytes", (OUTLET_WINDOW_BYTES_MAX / 512).to_string())
        .set("message.timeout.ms", "0")
        // For how long a topic that a broker does not know may be on its way; then it is missing.
        .set("topic.metadata.propagation.max.ms", "10000")
        .set("partitioner", "murmur2_random")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.timeout.ms", "10000")
        .set("socket.connection.setup.timeout.ms", "10000")
        .set("socket.keepalive.enable", "true")
        .set("enable.metrics.push", "false");
    let KafkaSecurity { tls, ca, identity, mechanism } = &config.security;
    settings.set(
        "security.protocol",
        match (tls, &config.credentials) {
            (false, None) => "PLAINTEXT",
            (false, Some(_)) => "SASL_PLAINTEXT",
            (true, None) => "SSL",
            (true, Some(_)) => "SASL_SSL",
        },
    );
    if let Some(ca) = ca {
        settings.set("ssl.ca.location", ca.display().to_string());
    }
    if let Some((cert, key)) = identity {
        settings
            .set("ssl.certificate.location", cert.display().to_string())
            .set("ssl.key.location", key.display().to_string());
    }
    if let Some((user, password)) = &config.credentials {
        settings
            .set("sasl.mechanism", mechanism.name())
            .set("sasl.username", user)
            .set("sasl.password", password.reveal());
    }
    settings
}
