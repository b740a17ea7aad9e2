//! Statistics and scores: what is told is what happened.

use std::collections::HashMap;
use std::time::Instant;

use ringcast::control::command::{BitrateChange, Command, Event, Layers, Reply};
use ringcast::control::stats::{ConsumerNumbers, StreamNumbers, TransportNumbers};
use ringcast::engine::machine::Machine;
use ringcast::engine::rtcp::{ReportBlock, RtcpWriter};
use ringcast::engine::srtp::SrtpProfile;
use ringcast::limits::BITRATE_LIMIT_MIN_BPS;

use super::media::Codec;
use super::network::Link;
use super::room::{Camera, Feed, Peer, Room, View, ms, secs};

impl Room {
    fn stats_of(&mut self, feed: &Feed) -> Vec<(u8, StreamNumbers)> {
        match self.command(Command::ProducerStats(feed.id)) {
            Reply::ProducerStats(streams) => streams,
            other => panic!("{other:?}"),
        }
    }

    fn stats_of_view(&mut self, view: &View) -> ConsumerNumbers {
        match self.command(Command::ConsumerStats(view.id)) {
            Reply::ConsumerStats(numbers) => *numbers,
            other => panic!("{other:?}"),
        }
    }

    fn stats_of_peer(&mut self, peer: Peer) -> TransportNumbers {
        let transport = self.seats[peer.0].transport;
        match self.command(Command::TransportStats(transport)) {
            Reply::TransportStats(numbers) => *numbers,
            other => panic!("{other:?}"),
        }
    }

    /// Scores of a feed's encodings as they were told, in order.
    fn scores_of(&self, feed: &Feed) -> Vec<(Instant, Vec<Option<u8>>)> {
        let told = self.events.iter().filter_map(|(at, event)| match event {
            Event::ProducerScore { producer, scores } if *producer == feed.id => {
                Some((*at, scores.iter().map(|s| s.map(|(_, score)| score)).collect()))
            }
            _ => None,
        });
        told.collect()
    }

    fn scores_of_view(&self, view: &View) -> Vec<(Instant, u8)> {
        let told = self.events.iter().filter_map(|(at, event)| match event {
            Event::ConsumerScore { consumer, score } if *consumer == view.id => Some((*at, *score)),
            _ => None,
        });
        told.collect()
    }
}

/// Told on changes only, and not more than once a second.
fn assert_sparse<T: PartialEq + std::fmt::Debug>(told: &[(Instant, T)]) {
    for pair in told.windows(2) {
        assert_ne!(pair[0].1, pair[1].1, "{told:?}");
        assert!(pair[1].0 - pair[0].0 >= ms(900), "{told:?}");
    }
}

#[test]
fn what_was_sent_and_heard_is_counted_to_the_packet() {
    for shards in [1, 2] {
        let mut room = Room::with_shards(111, shards);
        let alice = room.publisher();
        room.shard = shards - 1;
        let bob = room.subscriber();
        let camera = room.produce(alice, &Camera::new(Codec::Vp8));
        let picture = room.consume(bob, &camera);
        assert!(room.stats_of(&camera).is_empty(), "nothing has begun");
        assert_eq!(room.stats_of_view(&picture).encoding, None);
        room.start(&camera);
        room.run_for(secs(6));

        // 75 packets of 600 bytes and their headers a second.
        let expected = 75.0 * 612.0 * 8.0;
        let near = |bps: u64| (bps as f64 / expected - 1.0).abs() < 0.1;
        let (_, inbound) = room.stats_of(&camera).remove(0);
        let outbound = room.stats_of_view(&picture).stream;
        assert!(near(inbound.bitrate) && near(outbound.bitrate), "{inbound:?} {outbound:?}");
        let up = room.stats_of_peer(alice).traffic;
        let down = room.stats_of_peer(bob).traffic;
        assert!(near(up.rtp_recv_bitrate) && near(down.rtp_send_bitrate), "{up:?} {down:?}");
        assert!(down.send_bitrate > down.rtp_send_bitrate, "reports are sent too");
        assert!(up.bytes_sent > 0 && up.rtp_bytes_sent == 0);

        room.seat(bob).stock_mut().request_key_frame(picture.ssrc);
        room.run_for(secs(1));
        room.stop(&camera, 0);
        room.run_for(secs(3));
        let (_, inbound) = room.stats_of(&camera).remove(0);
        let sent = &room.source(&camera, 0).sent;
        // Whole packets, with header extensions: some 20 bytes with the fixed header's 12.
        let payloads: usize = sent.iter().map(|packet| packet.payload.len()).sum();
        assert_eq!((inbound.packet_count, inbound.bitrate), (sent.len() as u64, 0));
        let headers = (inbound.byte_count - payloads as u64) / inbound.packet_count;
        assert!((20..=40).contains(&headers), "{headers}");
        assert_eq!(inbound.ssrc, room.source(&camera, 0).setup.ssrc);
        assert_eq!((inbound.packets_lost, inbound.nack_count, inbound.fir_count), (0, 0, 0));
        assert_eq!(inbound.pli_count, 1);

        let told = room.stats_of_view(&picture);
        let outbound = told.stream;
        let heard = room.heard(&picture);
        let bytes: usize = heard.iter().map(|heard| heard.header_len + heard.payload.len()).sum();
        let counted = (outbound.packet_count, outbound.byte_count, outbound.bitrate);
        assert_eq!(counted, (heard.len() as u64, bytes as u64, 0));
        assert_eq!((outbound.ssrc, outbound.rtx_ssrc), (picture.ssrc, picture.rtx_ssrc));
        assert_eq!((outbound.score, outbound.packets_lost), (10, 0));
        assert_eq!((outbound.pli_count, outbound.fir_count), (1, 0));
        let round_trip = outbound.round_trip_time.expect("it reports");
        assert!((round_trip - 20.0).abs() < 2.0, "{round_trip}");
        assert_eq!((told.encoding, told.priority), (Some(0), 1));
        assert_eq!(told.layers, Default::default(), "a single stream has no layers");
        let down = room.stats_of_peer(bob).traffic;
        assert_eq!(down.rtp_bytes_sent, outbound.byte_count);
        assert_eq!(room.stats_of_peer(alice).traffic.rtp_bytes_received, inbound.byte_count);
    }
}

#[test]
fn repairs_for_a_viewer_are_counted() {
    let mut room = Room::new(112);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    room.run_for(secs(5));
    room.seat(bob).down = Link { loss: 0.15, ..Link::new(10) };
    room.run_for(secs(15));
    let told = room.stats_of_view(&picture).stream;
    assert!(told.nack_count > 5 && told.nack_packet_count >= told.nack_count, "{told:?}");
    assert!(told.packets_repaired > 50, "{told:?}");
    assert!(told.packets_retransmitted >= told.packets_repaired, "{told:?}");
    assert_eq!(told.packets_retransmitted, room.counters().retransmitted);
    let traffic = room.stats_of_peer(bob).traffic;
    assert!(traffic.rtx_bytes_sent > 50 * 600 && traffic.rtx_send_bitrate > 0, "{traffic:?}");
    assert!(told.byte_count > traffic.rtp_bytes_sent, "with what was sent again");
}

/// Half a minute and more in which a viewer tells once a second how much of a hundred it lost.
fn tell_losses(room: &mut Room, view: &View, losses: impl IntoIterator<Item = i32>) {
    for cumulative_lost in losses {
        let mut space = [0; 200];
        let mut writer = RtcpWriter::new(&mut space);
        let block = ReportBlock {
            ssrc: view.ssrc,
            fraction_lost: 40,
            cumulative_lost,
            jitter: 7,
            ..ReportBlock::default()
        };
        assert!(writer.receiver_report(77, &[block]));
        let raw = room.seat(view.peer).raw_mut();
        let sealed = raw.seal_rtcp(writer.as_bytes());
        raw.send(sealed);
        room.run_for(secs(1));
    }
}

#[test]
fn losses_that_a_viewer_tells_of_show_in_its_score_and_pass() {
    let mut room = Room::new(117);
    let alice = room.publisher();
    let bob = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let carol = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let picture = room.consume(bob, &camera);
    let other = room.consume(carol, &camera);
    room.start(&camera);
    tell_losses(&mut room, &picture, [0; 5]);
    assert_eq!(room.scores_of_view(&picture), []);
    // 15 of 75 packets each second.
    tell_losses(&mut room, &picture, (1..=15).map(|second| 15 * second));
    let told = room.stats_of_view(&picture).stream;
    assert_eq!((told.packets_lost, told.fraction_lost, told.jitter), (225, 40, Some(7)));
    let (_, worst) = *room.scores_of_view(&picture).last().expect("a score is told");
    assert!(worst == told.score && (3..7).contains(&worst), "{worst} {told:?}");
    tell_losses(&mut room, &picture, [225; 30]);
    assert_eq!(room.scores_of_view(&picture).last().unwrap().1, 10, "it is forgotten");
    assert_sparse(&room.scores_of_view(&picture));
    let last = *room.scores_of_view(&picture).last().unwrap();
    room.run_for(secs(10));
    assert_eq!(room.scores_of_view(&picture).last(), Some(&last), "nothing new was told");
    assert_eq!(room.scores_of_view(&other), [], "another viewer's link is its own");
    assert_eq!(room.scores_of(&camera).len(), 1, "and not the publisher's fault");
}

#[test]
fn a_publishers_score_follows_its_link_and_ends_with_its_stream() {
    let mut room = Room::new(113);
    let alice = room.publisher();
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    room.run_for(secs(3));
    assert_eq!(room.scores_of(&camera), [], "nothing has begun");
    let begun = room.now;
    room.start(&camera);
    room.run_for(secs(4));
    let told = room.scores_of(&camera);
    assert_eq!(told.iter().map(|(_, scores)| scores.clone()).collect::<Vec<_>>(), [[Some(10)]]);
    assert!(told[0].0 - begun < ms(100), "with its first packet");
    room.seat(alice).up = Link { loss: 0.15, ..Link::new(10) };
    room.run_for(secs(15));
    let (_, inbound) = room.stats_of(&camera).remove(0);
    assert!(inbound.packets_lost > 50 && inbound.packets_repaired > 50, "{inbound:?}");
    assert!(inbound.nack_count > 5 && inbound.nack_packet_count > 50, "{inbound:?}");
    assert!(inbound.rtx_ssrc.is_some() && inbound.score < 9, "{inbound:?}");
    assert_eq!(room.scores_of(&camera).last().unwrap().1, [Some(inbound.score)]);

    room.seat(alice).up = Link::new(10);
    room.run_for(secs(30));
    assert_eq!(room.scores_of(&camera).last().unwrap().1, [Some(10)]);
    room.stop(&camera, 0);
    room.run_for(secs(4));
    assert_eq!(room.scores_of(&camera).last().unwrap().1, [Some(0)]);
    room.start(&camera);
    room.run_for(secs(4));
    assert_eq!(room.scores_of(&camera).last().unwrap().1, [Some(10)]);
    assert_sparse(&room.scores_of(&camera));
}

#[test]
fn each_encoding_has_its_own_numbers_and_a_paused_one_keeps_its_score() {
    let mut room = Room::new(114);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = Camera { rids: vec!["q", "h", "f"], ..Camera::new(Codec::Vp8) };
    let camera = room.produce(alice, &camera);
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    room.run_for(secs(8));
    room.stop(&camera, 1);
    room.run_for(secs(4));
    let told = room.stats_of(&camera);
    let scores: HashMap<u8, u8> = told.iter().map(|(place, n)| (*place, n.score)).collect();
    assert_eq!(scores, HashMap::from([(0, 10), (1, 0), (2, 10)]));
    assert_eq!(room.scores_of(&camera).last().unwrap().1, [Some(10), Some(0), Some(10)]);
    for (place, numbers) in &told {
        let source = room.source(&camera, usize::from(*place));
        assert_eq!(numbers.ssrc, source.setup.ssrc, "in the order of its encodings");
    }
    let view = room.stats_of_view(&picture);
    assert_eq!(view.encoding, Some(2));
    assert_eq!(view.layers.current_layers.map(|layers| layers.spatial), Some(2));
    assert_eq!(view.layers.preferred_layers.map(|layers| layers.spatial), Some(2));
    room.command(Command::PauseProducer(camera.id, true));
    let before = room.scores_of(&camera).len();
    room.run_for(secs(4));
    assert_eq!(room.scores_of(&camera).len(), before);
}

#[test]
fn preferred_layers_are_gone_over_to_within_a_second() {
    let mut room = Room::new(115);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = Camera { rids: vec!["q", "h", "f"], ..Camera::new(Codec::Vp8) };
    let camera = room.produce(alice, &camera);
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    room.run_for(secs(8));
    for spatial in [0, 2, 1] {
        let layers = Layers { spatial, temporal: 0 };
        room.command(Command::SetPreferredLayers(picture.id, layers));
        room.run_for(secs(1));
        let told = room.stats_of_view(&picture);
        assert_eq!(told.encoding, Some(spatial));
        assert_eq!(told.layers.preferred_layers, Some(layers));
        room.run_for(secs(2));
    }
    room.command(Command::SetPriority(picture.id, 200));
    assert_eq!(room.stats_of_view(&picture).priority, 200);
}

#[test]
fn layers_inside_a_stream_are_told_and_chosen_too() {
    let mut room = Room::new(118);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = room.produce(alice, &Camera::new(Codec::Vp9Svc));
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    room.run_for(secs(4));
    let (_, inbound) = room.stats_of(&camera).remove(0);
    let layers: Vec<&str> = inbound.bitrate_by_layer.keys().map(String::as_str).collect();
    assert_eq!(layers, ["0.0", "1.0", "2.0"]);
    assert!(inbound.bitrate_by_layer.values().is_sorted(), "each with those below");
    let all = inbound.bitrate_by_layer["2.0"] as f64 / inbound.bitrate as f64;
    assert!((all - 1.0).abs() < 0.1, "{inbound:?}");
    for spatial in [2, 0] {
        let layers = Layers { spatial, temporal: 0 };
        room.command(Command::SetPreferredLayers(picture.id, layers));
        room.run_for(secs(1));
        let told = room.stats_of_view(&picture).layers;
        assert_eq!(told.current_layers, Some(layers));
        assert_eq!(told.target_layers, Some(layers));
    }
}

#[test]
fn a_consumer_without_room_is_told_to_be_stopped_and_why_until_there_is_room() {
    let mut room = Room::new(119);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = Camera { rids: vec!["q", "h", "f"], ..Camera::new(Codec::Vp8) };
    let camera = room.produce(alice, &camera);
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    room.run_for(secs(8));
    let why = room.stats_of_view(&picture).layers.why.expect("it has layers");
    assert!(why.granted_bitrate > 300_000, "{why:?}");
    let transport = room.stats_of_peer(bob);
    assert!(transport.available_outgoing_bps.is_some_and(|bps| bps > 300_000), "{transport:?}");
    let gauges = room.gauges();
    assert_eq!(Some(gauges.estimate_bps), transport.available_outgoing_bps);
    assert_eq!(gauges.consumers_stopped, 0);

    // Each encoding takes more than that.
    let id = room.seats[bob.0].transport;
    let limit = |bps| BitrateChange { max_outgoing_bps: Some(bps), ..BitrateChange::default() };
    room.command(Command::SetBitrates(id, limit(100_000)));
    room.run_for(secs(4));
    let told = room.stats_of_view(&picture);
    let why = told.layers.why.expect("it has layers");
    assert_eq!((why.reason, why.granted_bitrate), ("bandwidth", 0));
    assert!(why.needed_bitrate > why.available_bitrate, "{why:?}");
    assert_eq!((told.encoding, told.layers.current_layers), (None, None));
    assert_eq!(room.gauges().consumers_stopped, 1);
    let layers_told = |room: &Room| {
        let mut told = room.events.iter().rev().filter_map(|(_, event)| match event {
            Event::ConsumerLayers { consumer, layers } if *consumer == picture.id => Some(*layers),
            _ => None,
        });
        told.next().expect("told")
    };
    assert_eq!(layers_told(&room), None);
    room.command(Command::SetBitrates(id, limit(0)));
    room.run_for(secs(15));
    let told = room.stats_of_view(&picture).layers;
    assert!(told.current_layers.is_some(), "{told:?}");
    assert_eq!(layers_told(&room), told.current_layers);
    assert_eq!(room.gauges().consumers_stopped, 0);
    let probed_bytes = room.stats_of_peer(bob).traffic.probation_bytes_sent;
    assert!(probed_bytes > 0 && probed_bytes <= room.counters().probe_bytes, "{probed_bytes}");
}

#[test]
fn limits_are_kept_with_the_transport() {
    let mut room = Room::new(116);
    let bob = room.subscriber();
    let transport = room.seats[bob.0].transport;
    let mut change = |min, max| {
        let change =
            BitrateChange { max_incoming_bps: None, max_outgoing_bps: max, min_outgoing_bps: min };
        room.shards
            .engine_of(transport)
            .handle_command(super::room::beginning(), Command::SetBitrates(transport, change))
    };
    assert!(change(Some(100_000), Some(500_000)).is_ok());
    assert!(change(Some(600_000), None).is_err(), "the most stays as it was");
    assert!(change(None, Some(1)).is_err(), "as does the least");
    assert!(change(Some(0), Some(1)).is_ok());
    let limits = room.stats_of_peer(bob).limits;
    assert_eq!(limits.max_outgoing_bps, Some(BITRATE_LIMIT_MIN_BPS));
    assert_eq!((limits.min_outgoing_bps, limits.max_incoming_bps), (None, None));
}
