//! Deadlines, commands and events of a shard.

use super::*;
use crate::metrics::latency::LatencyCounts;

#[test]
fn a_deadline_of_the_machine_is_met_without_traffic() {
    for runtime in [Runtime::Plain, Runtime::Glommio] {
        let rig = rig(NodeSetup { runtime, ..setup(1) });
        let client = rig.udp();
        ask(&client, &[0, 0]);
        assert_eq!(ask(&client, &[LATER]), [LATER, 0], "late perhaps, early never");
        rig.stop();
    }
}

#[test]
fn a_shard_with_always_more_to_send_still_hears_and_reports() {
    for runtime in [Runtime::Plain, Runtime::Glommio] {
        let rig = rig(NodeSetup { runtime, ..setup(1) });
        let (deaf, client) = (rig.udp(), rig.udp());
        ask(&deaf, &[0, 0]);
        deaf.send(&[FLOOD]).unwrap();
        ask(&client, &[0, 0]);
        for n in 0..20 {
            assert_eq!(ask(&client, &[ECHO, n]), [0, ECHO, n]);
        }
        assert!(rig.report(0).busy > 0.0);
        rig.stop();
    }
}

#[test]
fn datagrams_that_are_waited_for_together_are_all_answered() {
    for runtime in [Runtime::Plain, Runtime::Glommio] {
        let coalesce = Duration::from_millis(2);
        let rig = rig(NodeSetup { runtime, coalesce, ..setup(2) });
        let clients = [rig.udp(), rig.udp(), rig.udp()];
        for (client, owner) in clients.iter().zip([0, 1, 0]) {
            ask(client, &stun(owner, 1));
        }
        for n in 0..20 {
            for client in &clients {
                client.send(&[ECHO, n]).unwrap();
            }
            let heard = clients.each_ref().map(listen);
            assert_eq!(heard, [[0, ECHO, n], [1, ECHO, n], [0, ECHO, n]]);
        }
        rig.stop();
    }
}

#[test]
fn what_one_sends_to_many_waits_for_the_next_and_reaches_all() {
    for runtime in [Runtime::Plain, Runtime::Glommio] {
        let coalesce = Duration::from_millis(2);
        let rig = rig(NodeSetup { runtime, coalesce, ..setup(1) });
        let clients = [(); 10].map(|()| rig.udp());
        for client in &clients {
            ask(client, &stun(0, 1));
        }
        let is_heard = |client: &UdpSocket| {
            let within = Timespec { tv_sec: 0, tv_nsec: 2_600_000 };
            poll(&mut [PollFd::new(client, PollFlags::IN)], Some(&within)) == Ok(1)
        };
        // Two who speak 2.6 ms apart, longer than datagrams gather: the second after the answer to the
        // first, until the shard knows that they go to many. A machine that stands still makes them
        // come together now and then, too.
        let rounds = (0..400).filter(|_| {
            assert!(!is_heard(&clients[0]), "nothing is left over");
            clients[0].send(&[FAN]).unwrap();
            is_heard(&clients[0]);
            clients[1].send(&[FAN]).unwrap();
            let heard = clients.each_ref().map(|client| [listen(client), listen(client)]);
            let [first, second] = &heard[0];
            assert_eq!((first.as_slice(), &second[..2]), (&[0, FAN, 0][..], &[0, FAN][..]));
            assert!(heard.iter().all(|other| *other == heard[0]), "{heard:?}");
            second[2] == 1
        });
        assert_eq!(rounds.take(20).count(), 20, "they left together");
        rig.stop();
    }
}

#[test]
fn what_is_forwarded_is_counted_once_with_its_latency() {
    for (runtime, steer) in [(Runtime::Plain, true), (Runtime::Glommio, false)] {
        let rig = rig(NodeSetup { runtime, steer, ..setup(2) });
        let (udp, mut tcp) = (rig.udp(), rig.tcp());
        ask(&udp, &stun(1, 1));
        write_frame(&mut tcp, &stun(1, 2));
        read_frame(&mut tcp);
        for _ in 0..20 {
            ask(&udp, &[ECHO]);
            write_frame(&mut tcp, &[ECHO]);
            read_frame(&mut tcp);
        }
        let mut told = LatencyCounts::default();
        while told.count() < 40 {
            if let FromShard::Report(report) = rig.next(1) {
                told.add(&report.latency);
            }
        }
        let summary = told.summary();
        assert_eq!(summary.count, 40, "what is not forwarded is not counted");
        assert!(0 < summary.p50_us && summary.p50_us <= summary.max_us, "{summary:?}");
        assert_eq!(rig.report(0).latency.count(), 0, "handed over, and counted by its owner");
        rig.stop();
    }
}

#[test]
fn commands_are_answered_in_order_with_the_number_of_their_call() {
    for runtime in [Runtime::Plain, Runtime::Glommio] {
        let rig = rig(NodeSetup { runtime, ..setup(2) });
        for call in 0..200 {
            let command = if call % 2 == 0 {
                Command::CloseProducer(ProducerId(uuid::Uuid::nil()))
            } else {
                Command::RequestKeyFrame(ConsumerId(uuid::Uuid::nil()))
            };
            let message = ShardMessage { call: CallId(call), command };
            assert!(rig.links.senders[1].try_send(message).is_ok());
        }
        let mut call = 0;
        while call < 200 {
            if let FromShard::Answer(id, answer) = rig.next(1) {
                assert_eq!(id, CallId(call));
                assert_eq!(answer.is_ok(), call % 2 == 0);
                call += 1;
            }
        }
        rig.stop();
    }
}

#[test]
fn events_that_find_the_lane_full_are_counted_and_told() {
    let rig = rig(setup(1));
    let client = rig.udp();
    ask(&client, &[0, 0]);
    let extra = 1000_u64;
    let events = u16::try_from(EVENT_LANE_CAPACITY).unwrap() + 1000;
    let [high, low] = events.to_be_bytes();
    assert_eq!(ask(&client, &[EVENTS, high, low]), [0, EVENTS]);
    // The answer leaves before the events are told: another round lets them be.
    ask(&client, &[ECHO]);
    let (mut told, mut lost) = (0, 0);
    while told + lost < u64::from(events) {
        match rig.next(0) {
            FromShard::Event(Event::Lost(count)) => lost += count,
            FromShard::Event(_) => told += 1,
            _ => {}
        }
    }
    assert_eq!(told + lost, u64::from(events));
    assert!(lost >= extra.saturating_sub(1), "{lost} lost of {events}");
    let report = rig.report(0);
    assert_eq!(report.counters.events_lost, lost);
    rig.stop();
}
