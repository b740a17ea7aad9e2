//! Hostility during a call: datagrams and connections that nobody asked for.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ringcast::limits::TCP_STRANGERS_PER_SHARD_MAX;

use super::call::Call;
use super::servers::Process;
use super::stock::Net;

const DATAGRAMS: usize = 100_000;

/// Between two looks whether the call lives: as many as a socket's buffer holds with media.
const BURST: usize = 100;

/// Random bytes, or what was said before: cut, lengthened or with some bytes changed.
fn noise(rng: &mut StdRng, said: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes: Vec<u8> = if said.is_empty() || rng.random_bool(0.3) {
        // First bytes of STUN, DTLS, TURN, RTP and RTCP more often than chance brings them.
        let first = [0, 1, 20, 22, 23, 25, 64, 128, 144, 200][rng.random_range(0..10)];
        let length = rng.random_range(0..1400);
        std::iter::once(first).chain((0..length).map(|_| rng.random())).collect()
    } else {
        said[rng.random_range(0..said.len())].clone()
    };
    match rng.random_range(0..4) {
        0 => bytes.truncate(rng.random_range(0..=bytes.len())),
        1 => bytes.extend((0..rng.random_range(0..64)).map(|_| rng.random::<u8>())),
        _ => {}
    }
    for _ in 0..rng.random_range(1..4) {
        if let Some(index) = bytes.len().checked_sub(1).map(|last| rng.random_range(0..=last)) {
            bytes[index] ^= rng.random_range(1..=255);
        }
    }
    bytes
}

#[test]
fn a_call_outlives_a_hundred_thousand_hostile_datagrams() {
    let mut process = Process::start(&["--shards=2"]);
    let api = process.api();
    let mut call = Call::full(api, "flooded", 2, &[Net::Udp4]);
    call.all_media_arrives(5);
    let server = SocketAddr::from(([127, 0, 0, 1], process.media_port()));
    let strangers: Vec<UdpSocket> = (0..8)
        .map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(server).unwrap();
            socket
        })
        .collect();
    let mut rng = StdRng::seed_from_u64(7);
    for burst in 0..DATAGRAMS / BURST {
        let heard = call.heard(2);
        for n in 0..BURST {
            let seat = rng.random_range(0..call.clients.len());
            let said: Vec<Vec<u8>> = call.clients[seat].said.iter().cloned().collect();
            let bytes = noise(&mut rng, &said);
            if n % 2 == 0 {
                call.clients[seat].babble(&bytes);
            } else {
                // The answer to a refusal by the kernel is somebody's else.
                let _ = strangers[burst % strangers.len()].send(&bytes);
            }
        }
        // The flood is as fast as the call goes on under it.
        call.until("media arrives under the flood", |call| call.heard(2) > heard);
    }
    call.all_media_arrives(50);
    call.until("the discards are reported", |_| {
        api.metric("shard_discards_total") > 0.9 * DATAGRAMS as f64
    });
    assert!(process.is_running());
    assert!(call.clients.iter().all(|client| client.connected && !client.closed));
    assert_eq!(api.metric_where("shard_transports", "state=\"connected\""), 4.0);
}

#[test]
fn hostile_tcp_keeps_nobody_out_and_holds_no_more_than_its_share() {
    let mut process = Process::start(&["--shards=2"]);
    let api = process.api();
    let server = SocketAddr::from(([127, 0, 0, 1], process.media_port()));
    let mut call = Call::full(api, "tcp", 2, &[Net::Tcp4]);
    call.all_media_arrives(5);
    let before = process.descriptors();
    let mut hostile = Vec::new();
    for n in 0..1200_usize {
        let Ok(mut stream) = TcpStream::connect(server) else { continue };
        let opening: &[u8] = match n % 4 {
            // Says nothing at all.
            0 => &[],
            // Announces a frame and sends one byte of it.
            1 => &[0, 100, 0],
            // Announces a frame beyond every bound.
            2 => &[0xff, 0xff, 0, 1, 2, 3],
            // Speaks another protocol.
            _ => b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        };
        // Some are closed by then.
        let _ = stream.write_all(opening);
        hostile.push(stream);
        if n % 50 == 0 {
            // Byte by byte, never whole.
            for stream in hostile.iter_mut().skip(1).step_by(4) {
                let _ = stream.write_all(&[0]);
            }
            let heard = call.heard(2);
            call.until("media arrives meanwhile", |call| call.heard(2) > heard);
        }
    }
    call.all_media_arrives(20);
    let held = process.descriptors() - before;
    assert!(held <= 2 * TCP_STRANGERS_PER_SHARD_MAX + 2, "{held} connections of strangers");
    Call::full(api, "newcomers", 2, &[Net::Tcp4]).all_media_arrives(5);
    drop(hostile);
    call.until("strangers that left are forgotten", |_| process.descriptors() <= before);
    call.all_media_arrives(20);
}
