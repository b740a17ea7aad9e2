//! What the control thread asks of an engine, one function per command.
//!
//! Each either happens whole or is refused with nothing changed. Commands name objects by id; ids
//! become keys here and nowhere else.

use std::time::Instant;

use rand::Rng;

use crate::control::command::{
    Command, ConnectTransport, CreateConsumer, CreateProducer, CreateTransport, Inventory, Refusal,
    Reply, TransportCreated,
};
use crate::engine::codec_table::CodecTable;
use crate::engine::consumer::Consumer;
use crate::engine::demand::DemandNews;
use crate::engine::producer::{Producer, Source};
use crate::engine::relay::{Mirrored, MirroredStream};
use crate::engine::rtp::{Extension, ExtensionIds};
use crate::engine::stream::{Stream, StreamSetup};
use crate::engine::transport::Transport;
use crate::engine::transport::connection::{Connection, ConnectionSetup};
use crate::engine::transport::ice::IceCredentials;
use crate::engine::twcc::TwccReceiver;
use crate::engine::{ConsumerKey, Engine, ProducerKey, StreamKey, TransportKey};
use crate::id::{ConsumerId, ProducerId, TransportId};
use crate::limits::{
    CONSUMERS_PER_TRANSPORT_MAX, FAREWELLS_QUEUED_MAX, PRODUCERS_PER_TRANSPORT_MAX,
    REPORT_INTERVAL, TRANSPORTS_PER_SHARD_MAX,
};
use crate::ortc::scalability::Scalability;
use crate::ortc::types::{MediaKind, RtpCodecParameters, RtpEncodingParameters};

impl Engine {
    /// Carries out one command.
    pub(super) fn carry_out(&mut self, now: Instant, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::CreateTransport(command) => self.create_transport(&command),
            Command::ConnectTransport(command) => self.connect_transport(now, &command),
            Command::CloseTransport(id) => {
                if let Some(key) = self.transport_ids.get(&id).copied() {
                    self.remove_transport(now, key);
                }
                Ok(Reply::Done)
            }
            Command::CreateProducer(command) => self.create_producer(now, &command),
            Command::PauseProducer(id, paused) => self.pause_producer(now, id, paused),
            Command::CloseProducer(id) => {
                if let Some(key) = self.producer_ids.get(&id).copied() {
                    self.remove_producer(now, key);
                }
                Ok(Reply::Done)
            }
            Command::CreateConsumer(command) => self.create_consumer(now, &command),
            Command::PauseConsumer(id, paused) => self.pause_consumer(now, id, paused),
            Command::RequestKeyFrame(id) => {
                let key = self.consumer_key(id)?;
                self.ask_key_frame(now, key);
                Ok(Reply::Done)
            }
            Command::SetPreferredLayers(id, layers) => self.set_preferred_layers(now, id, layers),
            Command::SetPriority(id, priority) => self.set_priority(now, id, priority),
            Command::SetBitrates(id, change) => self.set_bitrates(now, id, change),
            Command::RestartIce(id) => self.restart_ice(id),
            Command::TransportStats(id) => self.transport_stats(self.transport_key(id)?),
            Command::ProducerStats(id) => self.producer_stats(now, self.producer_key(id)?),
            Command::ConsumerStats(id) => self.consumer_stats(self.consumer_key(id)?),
            Command::CloseConsumer(id) => {
                if let Some(key) = self.consumer_ids.get(&id).copied() {
                    self.remove_consumer(key);
                }
                Ok(Reply::Done)
            }
            Command::Inventory => {
                self.tell_demands_again();
                Ok(Reply::Inventory(self.inventory()))
            }
            Command::InjectPanic(id) => {
                let key = self.transport_key(id)?;
                if let Some(transport) = self.transports.get_mut(key) {
                    transport.connection.inject_panic();
                }
                Ok(Reply::Done)
            }
        }
    }

    pub(super) fn transport_key(&self, id: TransportId) -> Result<TransportKey, Refusal> {
        self.transport_ids.get(&id).copied().ok_or(Refusal::NoTransport)
    }

    fn producer_key(&self, id: ProducerId) -> Result<ProducerKey, Refusal> {
        self.producer_ids.get(&id).copied().ok_or(Refusal::NoProducer)
    }

    pub(super) fn consumer_key(&self, id: ConsumerId) -> Result<ConsumerKey, Refusal> {
        self.consumer_ids.get(&id).copied().ok_or(Refusal::NoConsumer)
    }

    fn inventory(&self) -> Inventory {
        Inventory {
            transports: self.transport_ids.keys().copied().collect(),
            producers: {
                let own = self.producers.values().filter(|p| p.source.transport().is_some());
                own.map(|producer| producer.id).collect()
            },
            consumers: self.consumer_ids.keys().copied().collect(),
        }
    }

    fn create_transport(&mut self, command: &CreateTransport) -> Result<Reply, Refusal> {
        if self.transport_ids.contains_key(&command.transport) {
            return Err(Refusal::AlreadyExists);
        }
        if self.transports.len() >= TRANSPORTS_PER_SHARD_MAX {
            return Err(Refusal::Full("transport"));
        }
        let rtcp_ssrc = self.rng.random_range(1..=u32::MAX);
        let (demux, rng, identity) = (&mut self.demux, &mut self.rng, &self.identity);
        let mut credentials = None;
        let key = self.transports.try_insert_with_key(|key| {
            let ufrag = demux.claim(key, rng).ok_or(Refusal::Full("transport"))?;
            let fresh = IceCredentials::new(ufrag, rng);
            credentials = Some(fresh.clone());
            let identity = std::sync::Arc::clone(identity);
            let setup = ConnectionSetup { credentials: fresh, identity };
            let connection = Connection::new(setup);
            Ok(Transport::new(command.transport, connection, rtcp_ssrc))
        });
        let key = match (key, &credentials) {
            (Ok(key), _) => key,
            (Err(refusal), Some(credentials)) => {
                self.demux.release(credentials.ufrag());
                return Err(refusal);
            }
            (Err(refusal), None) => return Err(refusal),
        };
        self.transport_ids.insert(command.transport, key);
        self.arm_transport(key);
        let credentials = credentials.ok_or(Refusal::Overloaded)?;
        Ok(Reply::TransportCreated(TransportCreated {
            ice_ufrag: credentials.ufrag().as_str().to_owned(),
            ice_password: credentials.password().to_owned(),
            fingerprint: self.identity.fingerprint(),
        }))
    }

    fn connect_transport(
        &mut self,
        now: Instant,
        command: &ConnectTransport,
    ) -> Result<Reply, Refusal> {
        let key = self.transport_key(command.transport)?;
        let transport = self.transports.get_mut(key).ok_or(Refusal::NoTransport)?;
        transport.connection.connect(now, command.remote)?;
        self.settle_transport(now, key);
        Ok(Reply::Done)
    }

    fn create_producer(
        &mut self,
        now: Instant,
        command: &CreateProducer,
    ) -> Result<Reply, Refusal> {
        if self.producer_ids.contains_key(&command.producer) {
            return Err(Refusal::AlreadyExists);
        }
        let key = self.transport_key(command.transport)?;
        let transport = self.transports.get_mut(key).ok_or(Refusal::NoTransport)?;
        if transport.producers.len() >= PRODUCERS_PER_TRANSPORT_MAX {
            return Err(Refusal::Full("producer"));
        }
        transport.listener.check(&command.rtp)?;
        let (producer_key, streams) =
            self.insert_producer(now, command, Source::Local(key), command.paused)?;
        let transport = self.transports.get_mut(key).ok_or(Refusal::NoTransport)?;
        transport.listener.add(producer_key, &command.rtp, &streams)?;
        transport.producers.push(producer_key);
        transport.next_report.get_or_insert(now + REPORT_INTERVAL);
        learn_feedback(now, transport, command);
        self.arm_transport(key);
        Ok(Reply::Done)
    }

    /// Adds a producer, or a mirror of one, with its streams; nothing arrives by that.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] when the parameters have no media codec.
    pub(super) fn insert_producer(
        &mut self,
        now: Instant,
        command: &CreateProducer,
        source: Source<Mirrored>,
        paused: bool,
    ) -> Result<(ProducerKey, Vec<StreamKey>), Refusal> {
        let codecs = CodecTable::new(&command.rtp, &command.mapping);
        if codecs.first_media().is_none() {
            return Err(Refusal::Unsupported("rtpParameters.codecs: no media codec".into()));
        }
        let transport = source.transport();
        let started = transport.is_none();
        let key = self.producers.insert(Producer {
            id: command.producer,
            source,
            kind: command.kind,
            producer_type: command.producer_type,
            streams: Vec::new(),
            consumers: Vec::new(),
            codecs: codecs.clone(),
            paused,
            key_frame_request_delay: command.key_frame_request_delay,
            started,
            relays: Vec::new(),
            demand: (command.kind == MediaKind::Video && !started)
                .then(|| Box::new(DemandNews::new(&layers_of(command)))),
            scores_told: vec![None; command.rtp.encodings.len()],
        });
        let encodings = command.rtp.encodings.iter().enumerate();
        let streams: Vec<StreamKey> = encodings
            .map(|(encoding, parameters)| {
                self.streams.insert(Stream::new(StreamSetup {
                    now,
                    producer: key,
                    source: transport
                        .map_or_else(|| Source::Relayed(MirroredStream::default()), Source::Local),
                    encoding,
                    codecs: &codecs,
                    kind: command.kind,
                    dtx: parameters.dtx.unwrap_or(false) || uses_dtx(command),
                    key_frame_request_delay: command.key_frame_request_delay,
                    paused,
                }))
            })
            .collect();
        if let Some(producer) = self.producers.get_mut(key) {
            producer.streams.clone_from(&streams);
        }
        self.producer_ids.insert(command.producer, key);
        self.note_demand(key);
        Ok((key, streams))
    }

    fn pause_producer(
        &mut self,
        now: Instant,
        id: ProducerId,
        paused: bool,
    ) -> Result<Reply, Refusal> {
        let key = self.producer_key(id)?;
        let producer = self.producers.get_mut(key).ok_or(Refusal::NoProducer)?;
        if producer.paused != paused {
            producer.paused = paused;
            let consumers = producer.consumers.clone();
            for stream in &producer.streams {
                if let Some(stream) = self.streams.get_mut(*stream) {
                    stream.paused = paused;
                    // What arrives during the pause is missing behind it.
                    stream.ring.clear();
                }
            }
            self.start_consumers(now, &consumers);
            for consumer in consumers {
                self.tell_layers(now, consumer);
            }
            self.restart_taps_of(now, key);
            self.cancel_unwanted_key_frames(key);
        }
        Ok(Reply::Done)
    }

    fn create_consumer(
        &mut self,
        now: Instant,
        command: &CreateConsumer,
    ) -> Result<Reply, Refusal> {
        if self.consumer_ids.contains_key(&command.consumer) {
            return Err(Refusal::AlreadyExists);
        }
        self.transport_key(command.transport)?;
        if let Ok(producer) = self.producer_key(command.producer) {
            return self.insert_consumer(now, command, producer);
        }
        let mirror = command.mirror.as_ref().ok_or(Refusal::NoProducer)?;
        let producer = self.insert_mirror(now, command.producer, mirror)?;
        let inserted = self.insert_consumer(now, command, producer);
        if inserted.is_err() {
            self.remove_producer(now, producer);
        }
        inserted
    }

    fn insert_consumer(
        &mut self,
        now: Instant,
        command: &CreateConsumer,
        producer_key: ProducerKey,
    ) -> Result<Reply, Refusal> {
        let key = self.transport_key(command.transport)?;
        let first = (self.rng.random(), self.rng.random());
        let transport = self.transports.get_mut(key).ok_or(Refusal::NoTransport)?;
        if transport.consumers.len() >= CONSUMERS_PER_TRANSPORT_MAX {
            return Err(Refusal::Full("consumer"));
        }
        let mut consumer = Consumer::new(command, producer_key, key, first)?;
        consumer.simulcast =
            self.producers.get(producer_key).is_some_and(|producer| producer.streams.len() > 1);
        let rtx = consumer.rtx.as_ref().map(|rtx| rtx.ssrc);
        let ssrcs = [Some(consumer.ssrc), rtx];
        if ssrcs.iter().flatten().any(|ssrc| transport.out_ssrcs.contains_key(ssrc)) {
            return Err(Refusal::StreamInUse("ssrc"));
        }
        let consumer_key = self.consumers.insert(consumer);
        for ssrc in ssrcs.into_iter().flatten() {
            transport.out_ssrcs.insert(ssrc, consumer_key);
        }
        transport.consumers.push(consumer_key);
        transport.next_report.get_or_insert(now + REPORT_INTERVAL);
        self.consumer_ids.insert(command.consumer, consumer_key);
        if let Some(producer) = self.producers.get_mut(producer_key) {
            producer.consumers.push(consumer_key);
        }
        self.arm_transport(key);
        self.start_consumer(now, consumer_key);
        self.mark_consumer_due(now, consumer_key);
        Ok(Reply::Done)
    }

    fn pause_consumer(
        &mut self,
        now: Instant,
        id: ConsumerId,
        paused: bool,
    ) -> Result<Reply, Refusal> {
        let key = self.consumer_key(id)?;
        let consumer = self.consumers.get_mut(key).ok_or(Refusal::NoConsumer)?;
        let producer = consumer.producer;
        if consumer.paused != paused {
            consumer.paused = paused;
            self.start_consumer(now, key);
            self.cancel_unwanted_key_frames(producer);
            self.mark_consumer_due(now, key);
            self.tell_layers(now, key);
        }
        Ok(Reply::Done)
    }

    /// Closes a transport with all it carries.
    pub(super) fn remove_transport(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get(key) else { return };
        let (producers, consumers) = (transport.producers.clone(), transport.consumers.clone());
        for producer in producers {
            self.remove_producer(now, producer);
        }
        for consumer in consumers {
            self.remove_consumer(consumer);
        }
        let Some(mut transport) = self.transports.remove(key) else { return };
        transport.connection.close();
        while let Some(farewell) = transport.connection.poll_transmit() {
            if self.farewells.len() < FAREWELLS_QUEUED_MAX {
                self.farewells.push_back(farewell);
            }
        }
        self.transport_ids.remove(&transport.id);
        self.demux.release(transport.connection.credentials().ufrag());
        for path in transport.connection.paths() {
            self.forget_path(path, key);
        }
        self.timers.disarm(&crate::engine::TimerKey::Transport(key));
        self.timers.disarm(&crate::engine::TimerKey::Outgoing(key));
        self.timers.disarm(&crate::engine::TimerKey::Pace(key));
    }

    fn remove_producer(&mut self, now: Instant, key: ProducerKey) {
        let Some(producer) = self.producers.remove(key) else { return };
        self.producer_ids.remove(&producer.id);
        for consumer in &producer.consumers {
            self.remove_consumer(*consumer);
        }
        for stream in &producer.streams {
            self.streams.remove(*stream);
            self.timers.disarm(&crate::engine::TimerKey::Stream(*stream));
        }
        self.timers.disarm(&crate::engine::TimerKey::Layers(key));
        self.timers.disarm(&crate::engine::TimerKey::Demand(key));
        match &producer.source {
            Source::Local(transport) => {
                let Some(transport) = self.transports.get_mut(*transport) else { return };
                transport.listener.remove(key);
                transport.producers.retain(|other| *other != key);
                transport.incoming.unroute(now, |route| producer.streams.contains(&route.stream));
            }
            Source::Relayed(mirrored) => self.relaying.forget_mirror(producer.id, mirrored),
        }
    }

    fn remove_consumer(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.remove(key) else { return };
        self.consumer_ids.remove(&consumer.id);
        if let Some(producer) = self.producers.get_mut(consumer.producer) {
            producer.consumers.retain(|other| *other != key);
        }
        if let Some(transport) = self.transports.get_mut(consumer.transport) {
            transport.consumers.retain(|other| *other != key);
            transport.due_consumers.retain(|other| *other != key);
            if let Some(outgoing) = &mut transport.outgoing {
                outgoing.forget(key);
            }
            transport.out_ssrcs.retain(|_, other| *other != key);
        }
        self.cancel_unwanted_key_frames(consumer.producer);
        self.note_demand(consumer.producer);
    }
}

/// An Opus sender says in its codec's parameters that it may fall silent (RFC 7587 §6.1).
fn uses_dtx(command: &CreateProducer) -> bool {
    let asks = |codec: &RtpCodecParameters| codec.parameters.get("usedtx").is_some_and(|v| v == 1);
    command.rtp.codecs.iter().any(asks)
}

/// The layers of each of a producer's encodings.
fn layers_of(command: &CreateProducer) -> Vec<Scalability> {
    command.rtp.encodings.iter().map(RtpEncodingParameters::scalability).collect()
}

/// What a new producer means for the feedback of its transport.
fn learn_feedback(now: Instant, transport: &mut Transport, command: &CreateProducer) {
    let ids = ExtensionIds::new(&command.rtp.header_extensions);
    for extension in Extension::ALL {
        transport.receive_ids = transport.receive_ids.with(extension, ids.id_of(extension));
    }
    let offers = |kind: &str| {
        command.rtp.codecs.iter().any(|c| c.rtcp_feedback.iter().any(|f| f.kind == kind))
    };
    if ids.has(Extension::TransportCc) && offers("transport-cc") {
        transport.feedback.get_or_insert_with(|| TwccReceiver::new(now));
        transport.wants_remb = false;
    } else if offers("goog-remb") && transport.feedback.is_none() {
        transport.wants_remb = true;
    }
}
