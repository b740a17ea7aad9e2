//! Sound: levels, redundancy, silence.

use ringcast::control::command::{Command, Event, Reply};
use ringcast::engine::rtcp::RtcpWriter;
use ringcast::engine::voice::LevelWindow;
use ringcast::limits::RED_READ_MIN;
use ringcast::ortc::types::{MediaKind, RtpCapabilities};

use super::room::{Room, ms, secs};
use super::studio::{OPUS, RED, Studio, Take, assert_no_gap, extended, sound};

/// The room's payload types.
const ROOM_OPUS: u8 = 100;
const ROOM_RED: u8 = 109;

fn studio(seed: u64) -> Studio {
    Studio::new(seed, MediaKind::Audio, sound())
}

/// What the shards told of levels, in order: the shard does not matter.
fn levels(room: &Room) -> Vec<LevelWindow> {
    let told = room.events.iter().filter_map(|(_, event)| match event {
        Event::AudioLevels(levels) => Some(levels.iter().map(|(_, window)| *window)),
        _ => None,
    });
    told.flatten().collect()
}

fn without_red() -> RtpCapabilities {
    let mut capabilities = extended();
    capabilities.codecs.retain(|codec| codec.mime_type != "audio/red");
    capabilities
}

/// RED of one copy and a newest block, both of the publisher's Opus.
fn red(copy: &[u8], newest: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (960_u32 << 10 | u32::try_from(copy.len()).unwrap()).to_be_bytes();
    [&[0x80 | OPUS, a, b, c, OPUS], copy, newest].concat()
}

#[test]
fn levels_leave_five_times_a_second_from_where_they_arrive_and_end_with_silence() {
    let mut studio = studio(601);
    // A mirror on another shard tells nothing of its own.
    studio.receiver(1, &extended(), |_| ());
    for _ in 0..50 {
        studio.speak(OPUS, &[0x78; 60], 0x80 | 30);
    }
    let loud = levels(&studio.room);
    assert!((4..=5).contains(&loud.len()), "{}", loud.len());
    assert!(loud.iter().all(|window| window.frames().iter().all(|loudness| *loudness == 97)));
    for _ in 0..200 {
        studio.speak(OPUS, &[0x78; 60], 127);
    }
    let silent = levels(&studio.room).split_off(loud.len());
    let silent: Vec<_> = silent.iter().filter(|window| !window.is_audible()).collect();
    assert_eq!(silent.len(), 5, "a second of silence, then nothing");
}

#[test]
fn a_paused_producer_is_not_heard_and_one_that_stops_falls_silent() {
    for pauses in [true, false] {
        let mut studio = studio(602);
        for _ in 0..50 {
            studio.speak(OPUS, &[0x78; 60], 30);
        }
        if pauses {
            studio.room.command(Command::PauseProducer(studio.producer, true));
        }
        let before = levels(&studio.room).len();
        for _ in 0..200 {
            if pauses {
                studio.speak(OPUS, &[0x78; 60], 30);
            } else {
                studio.pass(ms(20));
            }
        }
        let after = levels(&studio.room).split_off(before);
        let audible = after.iter().filter(|window| window.is_audible()).count();
        assert!(audible <= 1, "the rest of the last window");
        assert_eq!(after.len() - audible, 5);
    }
}

#[test]
fn redundancy_reaches_who_knows_it_in_the_rooms_numbers_and_others_get_the_newest_block() {
    let mut studio = studio(603);
    let knows = [studio.receiver(0, &extended(), |_| ()), studio.receiver(1, &extended(), |_| ())];
    let plain = [0, 1].map(|shard| studio.receiver(shard, &without_red(), |_| ()));
    let block = |n: u8| vec![n; 40 + usize::from(n % 7)];
    for n in 0..100_u8 {
        // Sometimes the sender has nothing to repeat.
        if n % 10 == 0 {
            studio.speak(OPUS, &block(n), 40);
        } else {
            studio.speak(RED, &red(&block(n - 1), &block(n)), 40);
        }
    }
    studio.room.run_for(secs(1));
    for receiver in knows {
        let heard = studio.heard(receiver);
        assert!(heard.len() >= 99, "{}", heard.len());
        assert_no_gap(&heard);
        let wrapped = heard.iter().filter(|heard| heard.payload_type == ROOM_RED);
        for heard in wrapped.clone() {
            assert_eq!([heard.payload[0], heard.payload[4]], [0x80 | ROOM_OPUS, ROOM_OPUS]);
        }
        assert!(wrapped.count() >= 89);
    }
    for receiver in plain {
        let heard = studio.heard(receiver);
        assert!(heard.len() >= 99, "{}", heard.len());
        assert_no_gap(&heard);
        let first = 100 - u8::try_from(heard.len()).unwrap();
        for (n, heard) in (first..).zip(&heard) {
            assert_eq!((heard.payload_type, &heard.payload), (ROOM_OPUS, &block(n)));
        }
    }
}

#[test]
fn redundancy_that_is_encrypted_end_to_end_reaches_who_knows_it_as_it_was() {
    let mut studio = studio(606);
    let knows = [studio.receiver(0, &extended(), |_| ()), studio.receiver(1, &extended(), |_| ())];
    let plain = [0, 1].map(|shard| studio.receiver(shard, &without_red(), |_| ()));
    let mut sent = Vec::new();
    for n in 0..50_u8 {
        // Now and then what is encrypted looks like blocks by chance.
        let seems = if n % 10 == 9 { red(&[n; 30], &[n; 40]) } else { vec![0xa5 ^ n; 70] };
        studio.speak(RED, &seems, 40);
        sent.push(seems);
    }
    // And then it ends.
    let clear: Vec<_> = (0..20_u8).map(|n| red(&[n; 30], &[n; 40])).collect();
    for sound in &clear {
        studio.speak(RED, sound, 40);
    }
    studio.pass(ms(100));
    for receiver in knows {
        let heard = studio.heard(receiver);
        assert_no_gap(&heard);
        let missed = sent.len() + clear.len() - heard.len();
        assert!(missed <= 1, "{missed}");
        for (heard, sent) in heard.iter().zip(&sent[missed..]) {
            assert_eq!((heard.payload_type, &heard.payload), (ROOM_RED, sent));
        }
    }
    for receiver in plain {
        let heard = studio.heard(receiver);
        assert_no_gap(&heard);
        // The last of what was encrypted looked like blocks, too.
        let newest: Vec<_> = (RED_READ_MIN - 1..20).map(|n| vec![n; 40]).collect();
        assert!(heard.iter().map(|heard| &heard.payload).eq(&newest), "{}", heard.len());
    }
}

#[test]
fn a_redundant_packet_that_comes_late_takes_its_place_for_who_gets_the_newest_block() {
    let mut studio = studio(607);
    let bob = studio.receiver(0, &without_red(), |_| ());
    let mut late = Vec::new();
    for n in 0..20_u8 {
        let payload = red(&[n; 33], &[n; 44]);
        let take = Take { payload_type: RED, payload: &payload, extensions: &[], marker: false };
        let sealed = studio.seal(&take);
        match n {
            8 => late = sealed,
            _ => studio.arrive(&sealed),
        }
        if n == 11 {
            studio.arrive(&late);
        }
        studio.pass(ms(20));
    }
    studio.pass(ms(100));
    let mut heard = studio.heard(bob);
    let place = heard.iter().position(|heard| heard.payload == [8; 44]).expect("it came");
    assert_eq!(heard[place - 1].payload, [11; 44], "late");
    heard.sort_by_key(|heard| heard.index);
    assert_no_gap(&heard);
    let blocks: Vec<_> = heard.iter().map(|heard| heard.payload[0]).collect();
    assert!(blocks.iter().copied().eq(0..20), "{blocks:?}");
    assert!(heard.iter().all(|heard| heard.payload_type == ROOM_OPUS));
}

#[test]
fn a_newest_block_that_is_asked_for_again_has_the_bytes_that_were_sent() {
    let mut studio = studio(604);
    let bob = studio.receiver(0, &without_red(), |_| ());
    for n in 0..20_u8 {
        studio.speak(RED, &red(&[n; 33], &[n; 44]), 40);
    }
    let wanted = studio.heard(bob)[12].clone();
    let mut space = [0; 64];
    let mut writer = RtcpWriter::new(&mut space);
    assert_eq!(writer.nack(1, bob.1, &[wanted.seq]), 1);
    let len = writer.len();
    let client = studio.room.seat(bob.0).raw_mut();
    let sealed = client.seal_rtcp(&space[..len]);
    client.send(sealed);
    studio.pass(ms(100));
    // The receiver's SRTP takes it for a replay: byte for byte the same.
    assert_eq!(studio.room.seat(bob.0).raw().refused, 1);
    assert_eq!(studio.room.counters().retransmitted, 1);
}

#[test]
fn silence_is_left_out_without_a_gap_for_who_does_not_want_it() {
    let mut studio = studio(605);
    let all = studio.receiver(0, &extended(), |_| ());
    let quiet = [0, 1].map(|shard| studio.receiver(shard, &extended(), |c| c.ignore_dtx = true));
    let mut sounds = 0;
    for n in 0..200_u32 {
        match n % 20 {
            // A word, then a packet of silence every 400 ms and now and then between.
            0..10 => {
                studio.speak(OPUS, &[0x78; 60], 40);
                sounds += usize::from(n > 20);
            }
            10 => studio.speak(OPUS, &[0x78], 127),
            11 => studio.speak(OPUS, &[0x7b, 2], 127),
            12 => studio.speak(RED, &red(&[7; 30], &[0x78]), 127),
            _ => studio.pass(ms(20)),
        }
    }
    studio.pass(ms(100));
    let everything = studio.heard(all);
    assert!(everything.iter().any(|heard| heard.payload.len() <= 2), "silence is passed on");
    assert_no_gap(&everything);
    for receiver in quiet {
        let heard = studio.heard(receiver);
        assert_no_gap(&heard);
        assert!(heard.iter().all(|heard| heard.payload.len() == 60));
        assert!(heard.len() >= sounds, "{} of {sounds}", heard.len());
    }
}

#[test]
fn bytes_are_counted_of_whole_packets_and_rates_agree_with_them() {
    let mut studio = studio(608);
    let bob = studio.receiver(0, &extended(), |_| ());
    for _ in 0..150 {
        studio.speak(OPUS, &[0x78; 60], 40);
    }
    let Reply::ProducerStats(told) = studio.room.command(Command::ProducerStats(studio.producer))
    else {
        panic!("no statistics")
    };
    let (_, inbound) = &told[0];
    // The fixed header, one word that begins the extensions and one of the level.
    assert_eq!((inbound.packet_count, inbound.byte_count), (150, 150 * (12 + 4 + 4 + 60)));
    assert_eq!(inbound.bitrate, 50 * 80 * 8);
    let consumer = studio.consumer(bob);
    let Reply::ConsumerStats(told) = studio.room.command(Command::ConsumerStats(consumer)) else {
        panic!("no statistics")
    };
    let heard = studio.heard(bob);
    // GCM's tag is no part of the packet.
    let bytes: usize = heard.iter().map(|heard| heard.wire.len() - 16).sum();
    let counted = (told.stream.packet_count, told.stream.byte_count);
    assert_eq!(counted, (heard.len() as u64, bytes as u64));
}
