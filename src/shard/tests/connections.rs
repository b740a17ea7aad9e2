//! ICE-TCP connections.

use super::*;

#[test]
fn a_tcp_connection_goes_to_the_shard_its_first_frame_names() {
    for (shards, runtime) in [(1, Runtime::Plain), (4, Runtime::Plain), (2, Runtime::Glommio)] {
        let rig = rig(NodeSetup { runtime, ..setup(shards) });
        for n in 0..12_u8 {
            let owner = n % u8::try_from(shards).unwrap();
            let mut stream = rig.tcp();
            // Both in one segment: the second must not be lost on the way to the owner.
            stream.write_all(&[0, 3, 0, owner, n, 0, 2, ECHO, n]).unwrap();
            assert_eq!(read_frame(&mut stream), [owner, 0, owner, n]);
            assert_eq!(read_frame(&mut stream), [owner, ECHO, n]);
            // One byte at a time.
            for byte in [0, 3, ECHO, 7, 8] {
                stream.write_all(&[byte]).unwrap();
            }
            assert_eq!(read_frame(&mut stream), [owner, ECHO, 7, 8]);
        }
        rig.stop();
    }
}

#[test]
fn a_dual_stack_listener_takes_tcp_over_both_families() {
    let rig = rig(NodeSetup { listen: None, ..setup(2) });
    let port = rig.node.media_address().port();
    for ip in ["127.0.0.1", "::1"] {
        let mut stream = TcpStream::connect((ip.parse::<IpAddr>().unwrap(), port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write_frame(&mut stream, &[0, 1, 5]);
        assert_eq!(read_frame(&mut stream), [1, 0, 1, 5]);
    }
    rig.stop();
}

#[test]
fn a_connection_whose_first_frame_is_no_stun_for_a_shard_of_ours_is_closed() {
    let rig = rig(setup(2));
    let long = [&[0xff, 0xff][..], &[0; 100]].concat();
    for first in [&[0, 2, ECHO, 1][..], &[0, 2, 0, 77], b"GET / HTTP/1.1\r\n\r\n", &long] {
        let mut stream = rig.tcp();
        stream.write_all(first).unwrap();
        assert!(is_closed(&mut stream), "{first:?}");
    }
    rig.stop();
}

#[test]
fn an_overlong_frame_ends_its_connection_and_the_machine_is_told() {
    let rig = rig(setup(1));
    let mut stream = rig.tcp();
    write_frame(&mut stream, &[0, 0]);
    assert_eq!(read_frame(&mut stream), [0, 0, 0]);
    stream.write_all(&[0xff, 0xff]).unwrap();
    assert!(is_closed(&mut stream));
    while !matches!(rig.next(0), FromShard::Event(Event::TransportClosed { .. })) {}
    rig.stop();
}

#[test]
fn a_tcp_client_that_does_not_read_loses_whole_frames_and_nothing_else() {
    let rig = rig(setup(1));
    let mut stream = rig.tcp();
    write_frame(&mut stream, &[0, 0]);
    assert_eq!(read_frame(&mut stream), [0, 0, 0]);
    let asked = 40 * 255;
    for _ in 0..40 {
        write_frame(&mut stream, &[TRAIN, 255]);
    }
    // A datagram client is served meanwhile: the shard does not block.
    let client = rig.udp();
    ask(&client, &[0, 0]);
    let failed = loop {
        let io = rig.report(0).io;
        if io.datagrams_out + io.send_failed >= asked + 2 {
            break io.send_failed;
        }
    };
    assert!(failed > 0, "more than buffers hold: {} and the kernel's", TCP_WRITE_BYTES_MAX);
    for _ in 0..asked - failed {
        let frame = read_frame(&mut stream);
        assert_eq!(frame.len(), 1000, "no frame is cut");
        assert!(frame[1] == frame[2] && frame[2] == frame[999]);
    }
    write_frame(&mut stream, &[ECHO, 5]);
    assert_eq!(read_frame(&mut stream), [0, ECHO, 5]);
    rig.stop();
}

#[test]
fn many_strangers_do_not_keep_others_out() {
    let rig = rig(setup(1));
    let strangers: Vec<_> = (0..300).map(|_| rig.tcp()).collect();
    let mut stream = rig.tcp();
    write_frame(&mut stream, &[0, 0, 1]);
    assert_eq!(read_frame(&mut stream), [0, 0, 0, 1]);
    drop(strangers);
    rig.stop();
}
