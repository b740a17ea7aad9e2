//! Deadlines, commands and events of a shard.

use super::*;

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
