//! What machines relay to each other.

use super::*;

/// Waits until a shard has told so many events.
fn events(rig: &Rig, shard: usize, count: usize) {
    for _ in 0..count {
        while !matches!(rig.next(shard), FromShard::Event(_)) {}
    }
}

#[test]
fn relayed_packets_reach_a_shard_without_traffic_and_their_boxes_come_back() {
    const ROUNDS: u64 = 20;
    for runtime in [Runtime::Plain, Runtime::Glommio] {
        let rig = rig(NodeSetup { runtime, ..setup(3) });
        let client = rig.udp();
        assert_eq!(ask(&client, &[0, 0])[0], 0, "the path is shard 0's");
        for _ in 0..ROUNDS {
            client.send(&[RELAY, 2, 0, 100]).unwrap();
            events(&rig, 2, 100);
        }
        let (sender, taker, other) = (rig.report(0), rig.report(2), rig.report(1));
        assert_eq!(sender.counters.relayed_out, 100 * ROUNDS);
        assert_eq!(taker.counters.relayed_in, 100 * ROUNDS);
        assert_eq!(other.counters.relayed_in, 0);
        assert!((100..=50 * ROUNDS).contains(&sender.io.relay_boxes), "{:?}", sender.io);
        rig.stop();
    }
}

#[test]
fn a_shard_that_does_not_exist_is_sent_nothing() {
    let rig = rig(setup(2));
    let client = rig.udp();
    assert_eq!(ask(&client, &[0, 0])[0], 0);
    client.send(&[RELAY, 9, 0, 7]).unwrap();
    client.send(&[RELAY, 1, 0, 1]).unwrap();
    events(&rig, 1, 1);
    let sender = rig.report(0).counters;
    assert_eq!((sender.relayed_out, sender.relay_dropped), (1, 7));
    rig.stop();
}
