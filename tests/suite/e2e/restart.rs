//! ICE restarts and statistics over real sockets, on several shards.

use serde_json::{Value, json};

use super::call::Call;
use super::media::Kind;
use super::servers::Hosted;
use super::stock::Net;

fn stats(call: &Call, kind: &str, id: &str) -> Value {
    call.api.get(&format!("/media/{kind}/{id}/stats")).data()
}

/// Asks for new ICE parameters of all seats' transports, and sees that they lead to the same places.
fn restart_all(call: &mut Call) {
    for client in &mut call.clients {
        let path = format!("/media/transport/{}/restart-ice", client.transport);
        let told = call.api.post(&path, &json!({}));
        assert_eq!(told.status, 201, "{told:?}");
        client.restart(&told.data()["iceParameters"]);
    }
    for seat in 0..call.clients.len() {
        call.until("the server sends to the new address", |call| {
            let client = &call.clients[seat];
            let told = stats(call, "transport", &client.transport);
            told["iceSelectedTuple"]["remotePort"] == client.port()
        });
    }
}

#[test]
fn clients_restart_ice_from_another_address_on_every_shard_however_they_are_steered() {
    for steer in ["auto", "off"] {
        let server = Hosted::start(&["--shards=3", &format!("--steer={steer}")]);
        // Small rooms stay on one shard, and each starts where there is least.
        let mut calls: Vec<Call> =
            (0..3).map(|n| Call::full(server.api, &format!("room-{n}"), 2, &[Net::Udp4])).collect();
        for call in &mut calls {
            call.all_media_arrives(30);
            restart_all(call);
            call.all_media_arrives(60);
            assert!(call.clients.iter().all(|client| !client.closed));
        }
        server.stop();
    }
}

#[test]
fn statistics_of_a_call_are_told_over_the_api() {
    let server = Hosted::start(&["--shards=2"]);
    let mut call = Call::new(server.api, "lounge");
    let alice = call.open("alice", "send", Net::Udp4);
    let producer = call.publish(alice, Kind::Video);
    let ssrc = call.clients[alice].sources[0].ssrc;
    let bob = call.open("bob", "recv", Net::Udp4);
    let consumer = call.consume(bob, &producer, ssrc);
    call.all_connect();
    call.all_media_arrives(60);
    call.until("rates are known", |call| {
        stats(call, "consumer", &consumer)["stats"][0]["bitrate"].as_u64() > Some(0)
    });
    let inbound = stats(&call, "producer", &producer)["stats"][0].clone();
    assert_eq!((&inbound["ssrc"], &inbound["score"]), (&json!(ssrc), &json!(10)));
    assert!(inbound["packetCount"].as_u64() >= Some(60), "{inbound}");
    let told = stats(&call, "consumer", &consumer);
    assert_eq!(told["stats"][1]["ssrc"], json!(ssrc), "what it is fed with");
    assert!(told["stats"][0]["packetCount"].as_u64() >= Some(60), "{told}");
    for seat in [alice, bob] {
        let told = stats(&call, "transport", &call.clients[seat].transport);
        assert_eq!(told["dtlsState"], "connected");
        assert_eq!(told["iceSelectedTuple"]["remotePort"], json!(call.clients[seat].port()));
        assert_eq!(told["iceSelectedTuple"]["localPort"], json!(server.media.port()));
    }
    let room = call.api.get("/media/room/lounge/stats").data();
    for (list, count) in [("transports", 2), ("producers", 1), ("consumers", 1)] {
        assert_eq!(room[list].as_array().unwrap().len(), count, "{room}");
    }
    server.stop();
}
