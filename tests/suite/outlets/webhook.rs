//! Events to a webhook whose receiver fails, hangs and recovers.

use ringcast::events::outlet::OutletCounts;
use ringcast::limits::WEBHOOK_BATCH;

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
