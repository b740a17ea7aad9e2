//! RTCP: reports, clocks, feedback.

use std::time::{Duration, Instant, SystemTime};

use ringcast::engine::report::Discard;
use str0m::rtp::rtcp::{Rtcp, SenderInfo};

use super::media::{Codec, Packet, picture_of};
use super::room::{Camera, Feed, Peer, Room, View, ms, secs};

fn sender_reports(room: &Room, view: &View) -> Vec<SenderInfo> {
    let told = room.seats[view.peer.0].stock().rtcp.iter();
    told.filter_map(|(_, rtcp)| match rtcp {
        Rtcp::SenderReport(report) if *report.sender_info.ssrc == view.ssrc => {
            Some(report.sender_info)
        }
        _ => None,
    })
    .collect()
}

/// For each report: when it was written, and by how much the moment of capture that it gives for a
/// packet differs from the real one, least and most, in seconds.
fn clock_errors(room: &Room, view: &View, feed: &Feed, encoding: usize) -> Vec<(f64, f64, f64)> {
    let rate = f64::from(feed.codec.clock_rate());
    let sent = &room.source(feed, encoding).sent;
    let heard = room.heard(view);
    let pairs: Vec<(u32, Instant)> = heard
        .iter()
        .rev()
        .step_by(17)
        .filter_map(|heard| {
            let of = |packet: &&Packet| picture_of(&packet.payload) == picture_of(&heard.payload);
            let packet = sent.iter().find(of)?;
            Some((heard.timestamp, packet.at))
        })
        .collect();
    assert!(pairs.len() > 10);
    let mut errors = Vec::new();
    for info in sender_reports(room, view) {
        let since_epoch = info.ntp_time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let reported = since_epoch.as_secs_f64() - 1_790_000_000.0;
        let [.., a, b, c, d] = info.rtp_time.numer().to_be_bytes();
        let reported_rtp = u32::from_be_bytes([a, b, c, d]);
        let of_packets = pairs.iter().map(|(timestamp, captured)| {
            let ticks = timestamp.wrapping_sub(reported_rtp).cast_signed();
            let calculated = reported + f64::from(ticks) / rate;
            calculated - (*captured - room.start).as_secs_f64()
        });
        let (least, most) =
            of_packets.fold((f64::MAX, f64::MIN), |(l, m), error| (l.min(error), m.max(error)));
        errors.push((reported, least, most));
    }
    errors
}

/// Half a minute of a camera and a microphone of one peer, which `way` after capture reach the server:
/// the reports of both let the other peer put them together to a millisecond.
pub(super) fn assert_together(room: &mut Room, alice: Peer, bob: Peer, way: f64) {
    let camera = room.produce(alice, &Camera::new(Codec::Vp8));
    let microphone = room.produce(alice, &Camera::new(Codec::Opus));
    let picture = room.consume(bob, &camera);
    let sound = room.consume(bob, &microphone);
    room.start(&microphone);
    room.run_for(ms(333));
    room.start(&camera);
    room.run_for(secs(30));
    let of_picture = clock_errors(room, &picture, &camera, 0);
    let of_sound = clock_errors(room, &sound, &microphone, 0);
    assert!(of_picture.len() > 20 && of_sound.len() > 20, "reports arrive");
    for (at, least, most) in &of_picture {
        // What a receiver puts beside it: the newest report of the sound.
        let Some(beside) = of_sound.iter().rev().find(|(other, ..)| other <= at) else {
            continue;
        };
        let spread = most.max(beside.2) - least.min(beside.1);
        assert!(spread < 0.001, "{spread} s apart at {at}");
        // What is common to both is the way to the server.
        assert!(*least > 0.009 && *most < way + 0.001, "{least} to {most}");
    }
}

#[test]
fn sound_and_picture_are_captured_at_the_same_time_to_a_millisecond_for_every_viewer() {
    for (seed, up_jitter, down_delay) in [(61, 0, 10), (62, 40, 10), (63, 20, 150)] {
        let mut room = Room::new(seed);
        let alice = room.publisher();
        room.seat(alice).up.jitter = ms(up_jitter);
        let bob = room.subscriber();
        room.seat(bob).down.delay = ms(down_delay);
        assert_together(&mut room, alice, bob, ms(10 + up_jitter).as_secs_f64());
    }
}

#[test]
fn reports_stay_exact_over_a_change_of_encodings() {
    let mut room = Room::new(64);
    let alice = room.publisher();
    let bob = room.subscriber();
    let camera = Camera { rids: vec!["q", "f"], ..Camera::new(Codec::Vp8) };
    let camera = room.produce(alice, &camera);
    let picture = room.consume(bob, &camera);
    room.start(&camera);
    room.run_for(secs(15));
    let before = sender_reports(&room, &picture).len();
    assert!(before > 3);
    // All that was heard of the highest encoding, by the newest report.
    let (_, least, most) = *clock_errors(&room, &picture, &camera, 1).last().unwrap();
    assert!(most - least < 0.001, "{least} to {most}");
    assert!(least > 0.009 && most < 0.090, "{least} to {most}");
}

/// The middle 32 bits of an NTP time.
fn middle(time: SystemTime) -> u32 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seconds = since.as_secs() + 2_208_988_800;
    let fraction = (u64::from(since.subsec_nanos()) << 16) / 1_000_000_000;
    u32::try_from((seconds & 0xffff) << 16 | fraction).unwrap()
}

#[test]
fn a_publisher_learns_its_round_trip_and_its_losses_from_receiver_reports() {
    for (seed, up, down, loss) in [(65, 10, 10, 0.0), (66, 70, 30, 0.0), (67, 20, 20, 0.08)] {
        let mut room = Room::new(seed);
        let alice = room.publisher();
        let camera = room.produce(alice, &Camera::new(Codec::Vp8));
        room.seat(alice).up.delay = ms(up);
        room.seat(alice).down.delay = ms(down);
        room.start(&camera);
        room.run_for(secs(1));
        room.seat(alice).up.loss = loss;
        room.run_for(secs(15));
        let ssrc = room.source(&camera, 0).setup.ssrc;
        let client = room.seats[alice.0].stock();
        let mut round_trips = Vec::new();
        let mut lost = Vec::new();
        for (at, rtcp) in &client.rtcp {
            let Rtcp::ReceiverReport(report) = rtcp else { continue };
            for block in report.reports.iter().filter(|block| *block.ssrc == ssrc) {
                lost.push(block.packets_lost);
                if block.last_sr_time == 0 {
                    continue;
                }
                let sent = client
                    .reported
                    .iter()
                    .find(|(_, info)| middle(info.ntp_time).abs_diff(block.last_sr_time) <= 1);
                let (sent_at, _) = sent.expect("names a report that was sent");
                let delay = Duration::from_secs_f64(f64::from(block.last_sr_delay) / 65_536.0);
                round_trips.push((*at - *sent_at).saturating_sub(delay));
            }
        }
        assert!(round_trips.len() >= 8, "{}", round_trips.len());
        for round_trip in round_trips {
            let error = round_trip.as_secs_f64() - ms(up + down).as_secs_f64();
            assert!(error.abs() < 0.001, "{round_trip:?} for {up} + {down}");
        }
        let total = f64::from(*lost.last().unwrap());
        let sent = room.source(&camera, 0).sent.len() as f64;
        if loss > 0.0 {
            assert!((total / sent - loss).abs() < 0.04, "{total} of {sent}");
        } else {
            assert_eq!(total, 0.0);
        }
    }
}

fn feedback_times(room: &Room, peer: Peer) -> Vec<(Instant, u16, u16)> {
    let told = room.seats[peer.0].stock().rtcp.iter();
    told.filter_map(|(at, rtcp)| match rtcp {
        Rtcp::Twcc(twcc) => Some((*at, twcc.base_seq, twcc.status_count)),
        _ => None,
    })
    .collect()
}

#[test]
fn transport_wide_feedback_comes_every_100_ms_and_speaks_of_every_packet() {
    for (seed, loss) in [(68, 0.0), (69, 0.05)] {
        let mut room = Room::new(seed);
        let alice = room.publisher();
        let camera = room.produce(alice, &Camera::new(Codec::Vp8));
        let microphone = room.produce(alice, &Camera::new(Codec::Opus));
        room.start(&camera);
        room.start(&microphone);
        room.run_for(secs(1));
        room.seat(alice).up.loss = loss;
        let begun = room.now;
        room.run_for(secs(10));
        let feedback = feedback_times(&room, alice);
        let recent: Vec<_> = feedback.iter().filter(|(at, ..)| *at > begun).collect();
        for pair in recent.windows(2) {
            assert!(pair[1].0 - pair[0].0 <= ms(101), "{:?}", pair[1].0 - pair[0].0);
        }
        assert!(recent.last().unwrap().0 + ms(111) > room.now);
        // Without holes between one feedback and the next.
        for pair in feedback.windows(2) {
            let next = pair[0].1.wrapping_add(pair[0].2);
            let skipped = pair[1].1.wrapping_sub(next).cast_signed();
            assert!(skipped <= 0, "numbers {next} to {} are not spoken of", pair[1].1);
        }
        let remb = room.seats[alice.0].stock().rtcp.iter();
        assert_eq!(remb.filter(|(_, rtcp)| matches!(rtcp, Rtcp::Remb(_))).count(), 0);
    }
}

#[test]
fn a_publisher_without_transport_wide_numbers_is_told_an_estimate_by_remb() {
    let mut room = Room::new(70);
    let alice = room.publisher();
    let camera = Camera { transport_cc: false, ..Camera::new(Codec::Vp8) };
    let camera = room.produce(alice, &camera);
    room.start(&camera);
    room.run_for(secs(20));
    assert!(feedback_times(&room, alice).is_empty());
    let estimates: Vec<f32> = room.seats[alice.0]
        .stock()
        .rtcp
        .iter()
        .filter_map(|(_, rtcp)| match rtcp {
            Rtcp::Remb(remb) => Some(remb.bitrate),
            _ => None,
        })
        .collect();
    assert!(estimates.len() >= 15, "one a second");
    // 75 packets of 600 bytes a second.
    let rate_bps = 75.0 * 600.0 * 8.0;
    assert!(estimates.last().unwrap() > &rate_bps, "room to grow: {estimates:?}");
    assert!(estimates.windows(2).all(|pair| pair[1] >= pair[0] * 0.99), "{estimates:?}");
}

#[test]
fn every_consumer_of_a_large_call_gets_sender_reports() {
    let mut room = Room::new(71);
    let alice = room.publisher();
    let microphone = room.produce(alice, &Camera::new(Codec::Opus));
    let bob = room.subscriber();
    let views: Vec<View> = (0..400).map(|_| room.consume(bob, &microphone)).collect();
    room.start(&microphone);
    room.run_for(secs(14));
    let mut least = usize::MAX;
    for view in &views {
        let told = sender_reports(&room, view);
        least = least.min(told.len());
        for pair in told.windows(2) {
            let apart = pair[1].ntp_time.duration_since(pair[0].ntp_time).unwrap();
            assert!((ms(500)..ms(1_600)).contains(&apart), "{apart:?} between two reports");
        }
    }
    assert!(least >= 9, "one of {} had {least} in 14 s", views.len());
    assert_eq!(room.discarded(Discard::OutputFull), 0);
}
