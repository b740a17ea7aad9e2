//! Events to Kafka while its broker is killed, hangs and comes back.

use std::io::{self, Read as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use ringcast::config::{KafkaConfig, KafkaSecurity};
use ringcast::events::outlet::OutletCounts;
use ringcast::limits::{OUTLET_QUEUE, OUTLET_WINDOW};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, Stream};
use serde_json::json;

use super::calls::{Calls, Folder, PATIENCE, assert_whole, clock};
use super::cluster::{CHAT, Cluster, Reader};

/// Events of one call.
const CALL: usize = 6;

/// All that was accepted is delivered.
fn assert_settled(calls: &Calls, reader: &mut Reader) {
    let counts = calls.counts();
    reader.until("all settled", |_| {
        let accepted = OutletCounts::of(&counts.accepted);
        accepted == OutletCounts::of(&counts.delivered) + OutletCounts::of(&counts.failed)
            && OutletCounts::of(&counts.waiting) == 0
    });
    for counter in [&counts.failed, &counts.lost, &counts.refused, &counts.spooled_bytes] {
        assert_eq!(OutletCounts::of(counter), 0, "{counts:?}");
    }
    assert!(counts.up.load(Ordering::Relaxed));
}

/// What the reader has is what happened.
fn assert_told(calls: &Calls, reader: &Reader) {
    assert_whole(&calls.log, &reader.rooms);
    for (room, expected) in &calls.log {
        let mut ids: Vec<_> = expected.iter().map(|told| told.id.as_str()).collect();
        for (_, told) in reader.chat.iter().filter(|(of, _)| of == room) {
            if let Some(at) = ids.iter().position(|id| *id == told.id) {
                assert_eq!(ids.remove(at), told.id);
                assert_eq!(at, 0, "{room}: {} came too early", told.id);
            }
        }
        assert_eq!(ids, [""; 0], "{room}: not told to the chat");
    }
}

#[test]
fn a_call_is_told_in_the_replaced_services_words_and_as_a_whole() {
    let cluster = Cluster::start();
    let mut calls = Calls::start(Some(&cluster.config()), None, None);
    let mut reader = cluster.reader();
    calls.call("tea");
    reader.until_different(CALL);
    assert_told(&calls, &reader);
    assert_settled(&calls, &mut reader);
    let of = |name: &str, data: serde_json::Value| json!({ "to": "tea", "event": name, "data": { "success": true, "data": data } });
    let peer = |peer: &str| json!({ "roomId": "tea", "peerId": peer });
    let told: Vec<_> = reader.chat.iter().map(|(_, told)| told.value.clone()).collect();
    let expected = [
        of("video_call_started", json!({ "roomId": "tea", "initiatorId": "alice" })),
        of("video_call_joined", peer("alice")),
        of("video_call_joined", peer("bob")),
        of("video_call_left", peer("alice")),
        of("video_call_left", peer("bob")),
        of("video_call_ended", peer("bob")),
    ];
    assert_eq!(told, expected);
    calls.stop();
}

#[test]
fn calls_that_begin_and_end_while_a_broker_is_killed_and_restarted_are_told_whole() {
    let cluster = Cluster::start();
    let mut calls = Calls::start(Some(&cluster.config()), None, None);
    let mut reader = cluster.reader();
    calls.calls("before", 5);
    reader.until_different(5 * CALL);
    for round in 0..3 {
        cluster.mock.broker_down(1).unwrap();
        calls.calls(&format!("down-{round}"), 20);
        let counts = calls.counts();
        let waiting = |_: &Reader| OutletCounts::of(&counts.waiting) > 0;
        reader.until("the outage to be seen", waiting);
        cluster.mock.broker_up(1).unwrap();
        calls.calls(&format!("up-{round}"), 5);
    }
    reader.until_different(calls.total());
    assert_told(&calls, &reader);
    assert_settled(&calls, &mut reader);
    calls.stop();
}

#[test]
fn calls_while_a_broker_hangs_are_told_whole_when_it_answers_again() {
    let cluster = Cluster::start();
    let mut calls = Calls::start(Some(&cluster.config()), None, None);
    let mut reader = cluster.reader();
    calls.calls("before", 2);
    reader.until_different(2 * CALL);
    // Longer than it takes until a request is given up, so that it is sent again.
    cluster.mock.broker_round_trip_time(1, Duration::from_secs(12)).unwrap();
    calls.calls("hung", 50);
    let end = clock() + Duration::from_secs(11);
    let counts = calls.counts();
    reader.until("a time-out of a request", |_| clock() > end);
    assert!(OutletCounts::of(&counts.waiting) > 0, "{counts:?}");
    cluster.mock.broker_round_trip_time(1, Duration::ZERO).unwrap();
    calls.calls("after", 5);
    reader.until_different(calls.total());
    assert_told(&calls, &reader);
    assert_settled(&calls, &mut reader);
    calls.stop();
}

#[test]
fn errors_of_the_cluster_are_tried_again_and_a_fatal_one_takes_a_new_producer() {
    let cluster = Cluster::start();
    let mut calls = Calls::start(Some(&cluster.config()), None, None);
    let mut reader = cluster.reader();
    calls.calls("before", 2);
    reader.until_different(2 * CALL);
    let transient = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    ];
    cluster.mock.request_errors(RDKafkaApiKey::Produce, &transient);
    calls.calls("transient", 10);
    reader.until_different(12 * CALL);
    let fatal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH; 3];
    cluster.mock.request_errors(RDKafkaApiKey::Produce, &fatal);
    calls.calls("fatal", 10);
    let fatal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER; 1];
    cluster.mock.request_errors(RDKafkaApiKey::Produce, &fatal);
    calls.calls("fatal-again", 10);
    reader.until_different(calls.total());
    assert_told(&calls, &reader);
    assert_settled(&calls, &mut reader);
    calls.stop();
}

#[test]
fn what_a_topic_refuses_for_good_is_counted_and_holds_up_nothing() {
    let cluster = Cluster::start();
    let mut calls = Calls::start(Some(&cluster.config()), None, None);
    let mut reader = cluster.reader();
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.mock.topic_error(CHAT, refused).unwrap();
    calls.calls("refused", 3);
    let counts = calls.counts();
    let events = u64::try_from(calls.total()).unwrap();
    reader.until("three refused calls", |reader| {
        reader.rooms.len() == 3 * CALL && OutletCounts::of(&counts.failed) == events
    });
    assert_whole(&calls.log, &reader.rooms);
    assert_eq!(reader.chat.len(), 0);
    assert_eq!(OutletCounts::of(&counts.accepted), 2 * events);
    assert_eq!(OutletCounts::of(&counts.delivered), events);
    calls.stop();
}

#[test]
fn what_goes_to_a_topic_that_is_not_there_yet_is_told_when_it_is() {
    let cluster = Cluster::start();
    let mut calls = Calls::start(Some(&cluster.config()), None, None);
    let mut reader = cluster.reader();
    let missing = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.mock.topic_error(CHAT, missing).unwrap();
    calls.calls("early", 3);
    let counts = calls.counts();
    reader.until("the other topic's events, and a second try", |reader| {
        reader.rooms.len() >= 3 * CALL && OutletCounts::of(&counts.retries) > 0
    });
    assert_eq!(reader.chat.len(), 0);
    cluster.mock.topic_error(CHAT, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    calls.calls("late", 2);
    reader.until_different(calls.total());
    assert_told(&calls, &reader);
    assert_settled(&calls, &mut reader);
    calls.stop();
}

#[test]
fn what_an_outage_leaves_is_told_after_a_restart_in_order() {
    let cluster = Cluster::start();
    let folder = Folder::new("kafka-restart");
    let mut calls = Calls::start(Some(&cluster.config()), None, Some(&folder));
    let mut reader = cluster.reader();
    calls.calls("before", 2);
    reader.until_different(2 * CALL);
    cluster.mock.broker_down(1).unwrap();
    // More than memory takes.
    let count = OUTLET_WINDOW / CALL / 2 + 100;
    calls.calls("outage", count);
    let mut expected = calls.stop();
    cluster.mock.broker_up(1).unwrap();
    let mut calls = Calls::start(Some(&cluster.config()), None, Some(&folder));
    let restored = u64::try_from(2 * count * CALL).unwrap();
    assert_eq!(OutletCounts::of(&calls.counts().accepted), restored);
    calls.calls("later", 2);
    expected.extend(std::mem::take(&mut calls.log));
    calls.log = expected;
    reader.until_different(calls.total());
    assert_told(&calls, &reader);
    assert_settled(&calls, &mut reader);
    calls.stop();
}

#[test]
fn a_kafka_that_is_not_there_costs_bounded_memory_and_every_loss_is_counted() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    // It accepts and never answers: what a hung broker is to those who come new.
    let nowhere = KafkaConfig {
        brokers: vec![taken.local_addr().unwrap().to_string()],
        credentials: None,
        security: KafkaSecurity::default(),
        room_events_topic: None,
    };
    let mut calls = Calls::start(Some(&nowhere), None, None);
    let events = OUTLET_WINDOW + OUTLET_QUEUE + 10 * CALL;
    calls.calls("lost", events / CALL + 1);
    let (counts, offered) = (calls.counts(), u64::try_from(calls.total()).unwrap());
    let window = u64::try_from(OUTLET_WINDOW).unwrap();
    let end = clock() + PATIENCE;
    loop {
        let of = OutletCounts::of;
        let (accepted, refused) = (of(&counts.accepted), of(&counts.refused));
        assert_eq!(accepted + refused, offered);
        if of(&counts.lost) + window == accepted && of(&counts.waiting) == window {
            break;
        }
        assert!(clock() < end, "{counts:?}");
        std::thread::yield_now();
    }
    calls.stop();
    let of = OutletCounts::of;
    assert_eq!(of(&counts.lost), of(&counts.accepted), "told as lost at the end");
}

/// A broker as far as its TLS goes: the key of the first request that it is sent, or how the
/// handshake failed. It lets in everybody, or only who shows a certificate of `members`.
fn secured_broker(
    cert: &CertifiedKey<KeyPair>,
    members: Option<&CertifiedKey<KeyPair>>,
) -> (u16, JoinHandle<io::Result<i16>>) {
    let key = PrivatePkcs8KeyDer::from(cert.signing_key.serialize_der());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match members {
        None => config.with_no_client_auth(),
        Some(members) => {
            let mut roots = RootCertStore::empty();
            roots.add(members.cert.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let config = config.with_single_cert(vec![cert.cert.der().clone()], key.into()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let first = move || {
        let within = Timespec::try_from(PATIENCE).unwrap();
        let asked = poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&within));
        assert_eq!(asked, Ok(1), "nobody came");
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut secured = ServerConnection::new(Arc::new(config)).unwrap();
        let mut head = [0; 6];
        Stream::new(&mut secured, &mut stream).read_exact(&mut head)?;
        Ok(i16::from_be_bytes([head[4], head[5]]))
    };
    (port, std::thread::spawn(first))
}

#[test]
fn over_tls_brokers_are_asked_when_their_name_and_root_are_right() {
    // https://kafka.apache.org/protocol: what a client asks first.
    const API_VERSIONS: i16 = 18;
    let named = |name: &str| generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (ours, stranger, elsewhere) =
        (named("localhost"), named("localhost"), named("kafka.example"));
    for (shown, trusted, (members, member), asked) in [
        (&ours, &ours, (None, None), true),
        (&ours, &stranger, (None, None), false),
        (&elsewhere, &elsewhere, (None, None), false),
        (&ours, &ours, (Some(&elsewhere), Some(&elsewhere)), true),
        (&ours, &ours, (Some(&elsewhere), Some(&stranger)), false),
        (&ours, &ours, (Some(&elsewhere), None), false),
    ] {
        let (port, broker) = secured_broker(shown, members);
        let folder = Folder::new("kafka-tls");
        std::fs::create_dir_all(folder.path()).unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, trusted.cert.pem()).unwrap();
        let identity = member.map(|member| {
            let files = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
            std::fs::write(&files[0], member.cert.pem()).unwrap();
            std::fs::write(&files[1], member.signing_key.serialize_pem()).unwrap();
            files.into()
        });
        let security =
            KafkaSecurity { tls: true, ca: Some(ca), identity, ..KafkaSecurity::default() };
        let config = KafkaConfig {
            brokers: vec![format!("localhost:{port}")],
            credentials: None,
            security,
            room_events_topic: None,
        };
        let calls = Calls::start(Some(&config), None, None);
        match broker.join().unwrap() {
            Ok(key) => assert_eq!((key, asked), (API_VERSIONS, true)),
            Err(error) => assert!(!asked, "{error}"),
        }
        calls.stop();
    }
}
