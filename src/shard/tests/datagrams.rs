//! Datagrams: who gets them, whoever received them, and whoever brought them there.

use super::*;

#[test]
fn every_client_reaches_the_shard_its_stun_names_whatever_socket_the_kernel_chose() {
    for (shards, runtime, listen) in [
        (1, Runtime::Plain, Some("127.0.0.1")),
        (2, Runtime::Plain, Some("::1")),
        (5, Runtime::Plain, None),
        (3, Runtime::Glommio, Some("127.0.0.1")),
    ] {
        for steer in [true, false] {
            let listen = listen.map(|ip| ip.parse().unwrap());
            let rig = rig(NodeSetup { runtime, listen, steer, ..setup(shards) });
            assert_eq!(rig.node.is_steering(), steer && shards > 1 && may_steer());
            let clients: Vec<_> = (0..32_u8).map(|_| rig.udp()).collect();
            for (n, client) in (0_u8..).zip(&clients) {
                let owner = n % u8::try_from(shards).unwrap();
                let hello = stun(owner, n);
                assert_eq!(ask(client, &hello), [&[owner][..], &hello].concat());
                for round in 0..3 {
                    assert_eq!(ask(client, &[ECHO, n, round]), [owner, ECHO, n, round], "{shards}");
                }
            }
            let reports: Vec<_> = (0..shards).map(|shard| rig.report(shard)).collect();
            let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
            assert!(reports.iter().all(|r| r.steering == rig.node.is_steering()));
            assert_eq!(sum(|r| r.io.handed_off), sum(|r| r.io.taken_over));
            // 32 clients do not all fall right by themselves.
            let falls_wrong = shards > 1 && !rig.node.is_steering();
            assert_eq!(sum(|r| r.io.handed_off) > 0, falls_wrong, "{shards}, {steer}");
            assert_eq!(sum(|r| r.io.datagrams_in), 32 * 4);
            assert_eq!(sum(|r| r.io.datagrams_out), 32 * 4);
            assert_eq!(sum(|r| r.discards.count(Discard::UnknownAddress)), 0);
            rig.stop();
        }
    }
}

#[test]
fn what_the_kernel_cannot_read_is_handed_over_once_and_steered_from_then_on() {
    for steer in [true, false] {
        let rig = rig(NodeSetup { steer, ..setup(4) });
        let clients: Vec<_> = (0..32_u8).map(|_| rig.udp()).collect();
        for (n, client) in (0_u8..).zip(&clients) {
            let owner = n % 4;
            assert_eq!(ask(client, &[0, owner, n]), [owner, 0, owner, n]);
            for round in 0..9 {
                assert_eq!(ask(client, &[ECHO, n, round]), [owner, ECHO, n, round]);
            }
        }
        let handed_off: u64 = (0..4).map(|shard| rig.report(shard).io.handed_off).sum();
        let (once, always) = (1..=32, 33..=320);
        let expected = if rig.node.is_steering() { once } else { always };
        assert!(expected.contains(&handed_off), "{handed_off}, {steer}");
        rig.stop();
    }
}

#[test]
fn a_client_that_moves_to_another_shard_is_followed_from_the_same_address() {
    for steer in [true, false] {
        let rig = rig(NodeSetup { steer, ..setup(4) });
        let client = rig.udp();
        for (n, owner) in (0..).zip([0, 1, 2, 3, 2, 0]) {
            let hello = stun(owner, n);
            assert_eq!(ask(&client, &hello), [&[owner][..], &hello].concat());
            let answer = ask(&client, &[ECHO, 1]);
            assert_eq!(&answer[1..], [ECHO, 1]);
            // Where the kernel steers nobody tells an echo that it lost a path, and it does not
            // tell of one that it has already.
            if !rig.node.is_steering() || n < 4 {
                assert_eq!(answer[0], owner, "whoever validated it last");
            }
        }
        rig.stop();
    }
}

#[test]
fn strangers_are_discarded_and_not_remembered() {
    for steer in [true, false] {
        let rig = rig(NodeSetup { steer, ..setup(2) });
        for n in 0..20 {
            rig.udp().send(&[ECHO, n]).unwrap();
        }
        let known = rig.udp();
        assert_eq!(ask(&known, &[0, 1, 1]), [1, 0, 1, 1]);
        let reports = [rig.report(0), rig.report(1)];
        let discards = reports.iter().map(|r| r.discards.count(Discard::UnknownAddress));
        assert_eq!(discards.sum::<u64>(), 20);
        assert!(reports.iter().map(|r| r.io.handed_off).sum::<u64>() <= 1);
        rig.stop();
    }
}

#[test]
fn a_train_arrives_as_separate_datagrams_in_order() {
    let rig = rig(setup(2));
    let client = rig.udp();
    ask(&client, &[0, 1]);
    client.send(&[TRAIN, 50]).unwrap();
    for n in 0..50 {
        let datagram = listen(&client);
        assert_eq!((datagram.len(), &datagram[..3]), (1000, &[1, n, n][..]));
    }
    let report = rig.report(1);
    assert_eq!(report.io.datagrams_out, 51);
    // One answer and 50 datagrams in trains of at most 8; one by one where there is no GSO.
    assert!([8, 51].contains(&report.io.messages_out), "{:?}", report.io);
    let trains: Vec<u64> = report.trains.iter().map(|(_, messages)| messages).collect();
    let expected = if report.io.messages_out == 8 {
        [1, 1, 0, 0, 0, 0, 0, 6]
    } else {
        [51, 0, 0, 0, 0, 0, 0, 0]
    };
    assert_eq!(trains, expected);
    rig.stop();
}
