//! Ways that media takes: right and wrong shards, both families, TCP, both runtimes.

use rustix::thread::{CapabilitySet, capabilities};

use super::call::Call;
use super::http::Api;
use super::servers::Hosted;
use super::stock::Net;

/// Reports of shards come once a second: what the traffic so far did stands in a later one.
fn settled(call: &mut Call, what: &str, holds: impl Fn(Api) -> bool) {
    let api = call.api;
    call.until(what, |_| holds(api));
}

/// True when a server started by this thread may load BPF programs.
fn may_steer() -> bool {
    let effective = capabilities(None).unwrap().effective;
    effective.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN)
}

#[test]
fn media_arrives_whichever_shard_the_kernel_gives_it_to() {
    for (shards, runtime) in [("1", "auto"), ("3", "auto"), ("7", "auto"), ("3", "thread")] {
        let shards = format!("--shards={shards}");
        let runtime = format!("--runtime={runtime}");
        for steer in ["--steer=auto", "--steer=off"] {
            let server = Hosted::start(&[&shards, &runtime, steer]);
            let mut call = Call::full(server.api, "wide", 5, &[Net::Udp4, Net::Udp6]);
            call.all_media_arrives(40);
            settled(&mut call, "the shards report", |api| {
                api.metric("shard_packets_in_total") > 400.0
            });
            let steering = server.api.metric("shard_steering");
            let wanted = steer == "--steer=auto" && shards != "--shards=1" && may_steer();
            assert_eq!(steering > 0.0, wanted, "{shards} {steer}");
            if shards == "--shards=1" || wanted {
                assert_eq!(server.api.metric("shard_handed_off_total"), 0.0, "{shards} {steer}");
                assert_eq!(server.api.metric("shard_taken_over_total"), 0.0, "{shards} {steer}");
            } else {
                // Ten sockets do not all fall to the shard of their transport.
                settled(&mut call, "datagrams change shards", |api| {
                    api.metric("shard_handed_off_total") > 0.0
                        && api.metric("shard_taken_over_total") > 0.0
                });
            }
            assert_eq!(server.api.metric("shard_handoff_dropped_total"), 0.0);
            if runtime == "--runtime=thread" {
                assert_eq!(server.api.metric("shard_on_glommio"), 0.0);
            }
            server.stop();
        }
    }
}

#[test]
fn every_packet_that_a_receiver_gets_first_counts_with_its_latency() {
    let server = Hosted::start(&["--shards=2"]);
    let mut call = Call::full(server.api, "timed", 3, &[Net::Udp4, Net::Udp6, Net::Tcp4]);
    call.all_media_arrives(40);
    // Three peers with sound and picture for two others each; some of it was caught up with.
    let forwarded = 3.0 * 2.0 * 2.0 * 30.0;
    settled(&mut call, "the shards report", |api| {
        api.metric("forward_latency_seconds_count") >= forwarded
    });
    assert!(server.api.metric("forward_latency_seconds_sum") > 0.0);
    let status = server.api.get("/admin/status").data();
    let told = &status["forwardLatency"]["last10Seconds"];
    let [count, p50, max] = ["count", "p50Us", "maxUs"].map(|name| told[name].as_u64().unwrap());
    assert!(count > 0 && 0 < p50 && p50 <= max, "{told}");
    let counted = status["forwardLatency"]["sinceStart"]["count"].as_f64().unwrap();
    assert!(counted >= forwarded, "{counted}");
    // One on its way out while the other is asked for.
    assert!(counted <= server.api.metric("shard_packets_out_total"));
    server.stop();
}

#[test]
fn both_families_and_tcp_meet_in_one_room() {
    let server = Hosted::start(&["--shards=2"]);
    let nets = [Net::Udp4, Net::Udp6, Net::Tcp4];
    let mut call = Call::full(server.api, "mixed", 3, &nets);
    call.all_media_arrives(40);
    server.stop();
}

#[test]
fn a_call_over_tcp_alone_arrives_from_any_shard() {
    let server = Hosted::start(&["--shards=3", "--media-udp=false"]);
    let mut call = Call::full(server.api, "tcp", 4, &[Net::Tcp4]);
    call.all_media_arrives(40);
    server.stop();
}
