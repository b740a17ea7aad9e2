//! Events to a webhook whose receiver fails, hangs and recovers.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ringcast::config::WebhookConfig;
use ringcast::events::outlet::OutletCounts;
use ringcast::limits::WEBHOOK_BATCH;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use super::calls::{Calls, Folder, PATIENCE, assert_whole, clock};
use super::receiver::{Answer, Receiver};

fn assert_settled(calls: &Calls, failed: u64) {
    let counts = calls.counts();
    let of = OutletCounts::of;
    let end = clock() + PATIENCE;
    while of(&counts.delivered) + failed != of(&counts.accepted) || of(&counts.waiting) > 0 {
        assert!(clock() < end, "{counts:?}");
        std::thread::yield_now();
    }
    assert_eq!((of(&counts.failed), of(&counts.lost), of(&counts.refused)), (failed, 0, 0));
}

#[test]
fn a_receiver_that_fails_hangs_and_recovers_is_told_everything_in_order() {
    let receiver = Receiver::start();
    let mut calls = Calls::start(None, Some(&receiver.config()), None);
    let mut got = Vec::new();
    calls.calls("first", 1);
    receiver.take_different(&mut got, calls.total());
    for (round, answer) in [Answer::Status(500), Answer::HangUp, Answer::Status(302), Answer::Hang]
        .into_iter()
        .enumerate()
    {
        calls.calls(&format!("failing-{round}"), 30);
        let failing = receiver.next();
        got.extend(failing.events.iter().cloned());
        failing.answer(answer);
        calls.calls(&format!("recovering-{round}"), 30);
        receiver.take_different(&mut got, calls.total());
    }
    assert_whole(&calls.log, &got);
    assert_settled(&calls, 0);
    assert!(OutletCounts::of(&calls.counts().retries) >= 4);
    calls.stop();
}

#[test]
fn an_event_that_is_refused_for_good_is_found_and_given_up_alone() {
    let receiver = Receiver::start();
    let mut calls = Calls::start(None, Some(&receiver.config()), None);
    calls.calls("good", WEBHOOK_BATCH / 6 + 1);
    calls.call("bad");
    calls.calls("better", 20);
    let bad = |id: &str, room: &str| room == "bad" && id.ends_with("-3");
    let mut got = Vec::new();
    let mut expected = std::mem::take(&mut calls.log);
    expected.get_mut("bad").unwrap().remove(2);
    let total: usize = expected.values().map(Vec::len).sum();
    while got.len() < total {
        let delivery = receiver.next();
        if delivery.events.iter().any(|(room, told)| bad(&told.id, room)) {
            delivery.answer(Answer::Status(400));
        } else {
            got.extend(delivery.events.iter().cloned());
            delivery.answer(Answer::Status(200));
        }
    }
    assert_whole(&expected, &got);
    assert_eq!(got.len(), total, "nothing twice");
    assert_settled(&calls, 1);
    calls.stop();
}

#[test]
fn what_a_receiver_did_not_take_is_told_after_a_restart() {
    let receiver = Receiver::start();
    let folder = Folder::new("webhook-restart");
    let mut calls = Calls::start(None, Some(&receiver.config()), Some(&folder));
    let mut got = Vec::new();
    calls.calls("before", 3);
    receiver.take_different(&mut got, calls.total());
    calls.calls("during", 100);
    let ending = std::thread::scope(|scope| {
        let stopping = scope.spawn(|| calls.stop());
        // Whatever is tried at the end fails.
        while !stopping.is_finished() {
            if let Some(delivery) = receiver.try_next() {
                delivery.answer(Answer::Status(503));
            }
        }
        stopping.join().unwrap()
    });
    let calls = Calls::start(None, Some(&receiver.config()), Some(&folder));
    receiver.take_different(&mut got, ending.values().map(Vec::len).sum());
    assert_whole(&ending, &got);
    assert_settled(&calls, 0);
    calls.stop();
}

/// What a receiver in a company's own network shows, and the file of the authority behind it.
fn certified(folder: &Folder) -> (Arc<ServerConfig>, PathBuf) {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&ca_key).unwrap();
    std::fs::create_dir_all(folder.path()).unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let issuer = Issuer::new(authority, ca_key);
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (Arc::new(tls), file)
}

#[test]
fn a_receiver_with_a_certificate_of_its_own_authority_is_told_where_that_is_trusted() {
    let folder = Folder::new("webhook-ca");
    let (tls, ca) = certified(&folder);
    let receiver = Receiver::start_secured(Arc::clone(&tls));
    let mut calls = Calls::start(None, Some(&receiver.config()), None);
    calls.calls("untrusted", 1);
    let counts = calls.counts();
    let end = clock() + PATIENCE;
    while OutletCounts::of(&counts.retries) == 0 {
        assert!(clock() < end, "{counts:?}");
        std::thread::yield_now();
    }
    assert_eq!(OutletCounts::of(&counts.delivered), 0);
    assert!(receiver.try_next().is_none(), "who is not trusted is told nothing");
    calls.stop();

    let receiver = Receiver::start_secured(tls);
    let mut calls = Calls::start(None, Some(&trusting(&receiver, ca)), None);
    let mut got = Vec::new();
    calls.calls("trusted", 20);
    receiver.take_different(&mut got, calls.total());
    assert_whole(&calls.log, &got);
    assert_settled(&calls, 0);
    calls.stop();
}

fn trusting(receiver: &Receiver, ca: PathBuf) -> WebhookConfig {
    WebhookConfig { ca: Some(ca), ..receiver.config() }
}
