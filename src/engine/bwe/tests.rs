//! The estimator as a whole, by itself and on simulated paths.

mod call;
mod link;
mod plans;

use self::call::{Call, Input};
use self::link::Path;
use super::*;
use crate::engine::rtcp::{RtcpItem, parse};
use crate::engine::test_instant as epoch;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_transport_that_numbers_nothing_has_a_start_value_and_nothing_to_wait_for() {
    let t = epoch();
    let mut estimator = Estimator::new(t);
    estimator.set_demand(t, 5_000_000);
    estimator.handle_timeout(t + s(60));
    assert_eq!(estimator.estimate_bps(), BWE_START_BPS);
    assert_eq!((estimator.next_deadline(), estimator.poll_probe(t + s(60))), (None, None));
    assert_eq!(estimator.snapshot().basis, Basis::Start);
    assert!(estimator.model.is_none());
}

#[test]
fn limits_hold_from_the_beginning_and_the_upper_one_wins() {
    let t = epoch();
    let mut estimator = Estimator::new(t);
    for (min, max, bps) in [
        (0, 300_000, 300_000),
        (1_000_000, u64::MAX, 1_000_000),
        (1_000_000, 200_000, 200_000),
        (0, 0, BWE_LEAST_BPS),
        (0, u64::MAX, BWE_START_BPS),
    ] {
        estimator.set_limits(t, min, max);
        assert_eq!(estimator.estimate_bps(), bps, "{min} {max}");
    }
    let mut call = Call::new(Path::of(5e3), &[8], 3);
    let now = call.now();
    call.estimator.set_limits(now, 0, 900_000);
    call.run(20);
    let most = call.record.seconds.iter().map(|second| second.estimate_bps).fold(0.0, f64::max);
    assert_eq!(most, 9e5);
    assert!(call.record.padding_bytes < 10_000, "{}", call.record.padding_bytes);
}

#[test]
fn receivers_without_transport_wide_feedback_are_believed() {
    let t = epoch();
    let mut estimator = Estimator::new(t);
    estimator.handle_receiver_report(t, 128, Some(Duration::from_millis(80)));
    assert_eq!(estimator.estimate_bps(), 450_000);
    assert_eq!(estimator.snapshot().round_trip, Some(Duration::from_millis(80)));
    assert_eq!(estimator.snapshot().loss, 0.5);
    estimator.handle_remb(t, 250_000);
    assert_eq!(estimator.estimate_bps(), 250_000);
    assert_eq!(estimator.snapshot().basis, Basis::Reported);
}

#[test]
fn a_receivers_limit_holds_for_some_seconds_next_to_transport_wide_feedback() {
    let mut call = Call::new(Path::of(3e3), &[8], 3);
    call.run(15);
    assert!(call.estimator.estimate_bps() > 2_000_000);
    assert_eq!(call.estimator.snapshot().basis, Basis::Delay);
    let now = call.now();
    call.estimator.handle_remb(now, 400_000);
    call.run(5);
    assert_eq!(call.estimator.estimate_bps(), 400_000);
    assert_eq!(call.estimator.snapshot().basis, Basis::Reported);
    call.run(20);
    assert!(call.estimator.estimate_bps() > 2_000_000);
}

#[test]
fn the_same_inputs_give_the_same_estimate() {
    let mut call = Call::new(Path::of(1e3), &[8], 3);
    call.keeps_inputs = true;
    let mut again = Estimator::new(call.now());
    call.run(10);
    for (now, input) in std::mem::take(&mut call.record.inputs) {
        match input {
            Input::Demand(bps) => again.set_demand(now, bps),
            Input::Sent(seq, bytes, probe) => again.note_sent(now, seq, bytes, probe),
            Input::Timeout => again.handle_timeout(now),
            Input::PollProbe => drop(again.poll_probe(now)),
            Input::Feedback(bytes) => {
                let Some(RtcpItem::TransportCc(feedback)) = parse(&bytes).next() else {
                    panic!("a feedback");
                };
                again.handle_feedback(now, &feedback);
            }
        }
    }
    assert_eq!(again.snapshot(), call.estimator.snapshot());
    assert_ne!(again.estimate_bps(), BWE_START_BPS);
}

#[test]
fn when_feedback_ceases_the_rate_falls_and_comes_back_with_it() {
    let mut call = Call::new(Path::of(3e3), &[8], 3);
    call.run(15);
    let before = call.estimator.estimate_bps();
    call.loses_feedback = true;
    call.run(5);
    assert!(call.estimator.estimate_bps() < before / 4);
    assert!(call.estimator.estimate_bps() >= BWE_LEAST_BPS);
    call.loses_feedback = false;
    call.run(15);
    assert!(call.estimator.estimate_bps() > before * 3 / 4);
}

#[test]
fn a_path_that_becomes_longer_costs_little_and_not_for_long() {
    let mut call = Call::new(Path::of(3e3), &[8], 3);
    call.run(20);
    call.lengthen(300);
    call.run(20);
    assert!(call.estimator.estimate_bps() > 2_000_000, "{}", call.estimator.estimate_bps());
}

#[test]
fn a_silent_transport_keeps_its_estimate_and_is_not_woken() {
    let mut call = Call::new(Path::of(3e3), &[8], 3);
    call.run(15);
    let before = call.estimator.estimate_bps();
    let now = call.now();
    call.estimator.set_demand(now, 0);
    call.estimator.handle_timeout(now + s(1));
    assert!(call.estimator.estimate_bps() >= before * 7 / 10, "one feedback may be missed");
    call.run(1);
    let mut idle = Call::new(Path::of(3e3), &[], 3);
    idle.run(30);
    assert_eq!(idle.record.padding_bytes, 0);
    assert_eq!(idle.estimator.estimate_bps(), BWE_START_BPS);
}

#[test]
fn after_a_timeout_and_the_probes_of_it_the_next_deadline_lies_ahead() {
    for (seed, kbps) in [(3, 300.0), (4, 1e3), (5, 100.0)] {
        let mut call = Call::new(Path::of(kbps), &[8], seed);
        // Now and then the call halts as it is: with a queue, a probe on its way, or neither.
        for round in 0..40 {
            call.run(1);
            call.loses_feedback = round % 7 == 3;
            let mut now = call.now();
            let mut alone = Vec::new();
            for _ in 0..50 {
                call.estimator.handle_timeout(now);
                while call.estimator.poll_probe(now).is_some() {}
                let Some(next) = call.estimator.next_deadline() else { break };
                assert!(next > now, "{round}: {:?}", call.estimator.snapshot());
                alone.push(next - now);
                now = next;
            }
            let mean = alone.iter().sum::<Duration>() / u32::try_from(alone.len().max(1)).unwrap();
            assert!(alone.len() < 50 || mean >= Duration::from_millis(5), "{round}: {alone:?}");
            call.estimator.handle_timeout(call.now());
        }
    }
}
