//! Forwarding allocates nothing: a counting allocator under an engine in the steady state.
//!
//! Alone in its binary, because the allocator counts for the whole process.

use std::time::Duration;

use ringcast::control::command::Event;
use ringcast::engine::machine::Machine;
use ringcast::engine::srtp::SrtpProfile;

#[path = "suite/sim/counting.rs"]
mod counting;
#[cfg(test)]
#[path = "suite/sim/media.rs"]
#[expect(dead_code, reason = "the simulator uses more of it")]
mod media;
#[cfg(test)]
#[path = "suite/sim/params.rs"]
mod params;
#[cfg(test)]
#[path = "suite/sim/raw.rs"]
#[expect(dead_code, reason = "the simulator uses more of it")]
mod raw;
#[cfg(test)]
#[path = "suite/sim/relay_stage.rs"]
mod relay_stage;
#[cfg(test)]
#[path = "suite/sim/stage.rs"]
#[expect(dead_code, reason = "the bench uses more of it")]
mod stage;

use counting::{Counting, allocations};
use media::Codec;
use relay_stage::RelayStage;
use stage::Stage;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn forwarding_allocates_nothing_from_receive_to_send() {
    for profile in SrtpProfile::ALL {
        let receivers = 50;
        let mut stage = Stage::new(profile, receivers);
        let turns = 500;
        let burst = 5;
        let bursts = stage.prepare(2 * turns, burst, 1_200);
        // Until rings and logs have grown to what they will be.
        for datagrams in &bursts[..turns] {
            stage.forward(datagrams, Duration::from_millis(5));
        }
        let before = allocations();
        let mut forwarded = 0;
        for datagrams in &bursts[turns..] {
            forwarded += stage.forward(datagrams, Duration::from_millis(5));
        }
        let allocated = allocations() - before;
        assert_eq!(forwarded, turns * burst * receivers, "everything was forwarded");
        assert_eq!(allocated, 0, "allocations in {forwarded} packets of {profile:?}");
    }
}

#[test]
fn pictures_that_wait_for_slow_links_allocate_nothing() {
    let receivers = 20;
    let mut stage = Stage::new(SrtpProfile::AeadAes128Gcm, receivers);
    let (frames, packets, turn) = (100, 6, Duration::from_millis(5));
    let pictures = stage.prepare(2 * frames, packets, 1_200);
    let (mut at_once, mut later, mut allocated) = (0, 0, 0);
    for (place, datagrams) in pictures.iter().enumerate() {
        stage.keep_alive();
        if place % 10 == 0 {
            stage.tell(400_000);
        }
        let before = allocations();
        let first = stage.forward(datagrams, turn);
        let rest = (0..39).map(|_| stage.wait(turn)).sum::<usize>();
        if place >= frames {
            (at_once, later) = (at_once + first, later + rest);
            allocated += allocations() - before;
        }
    }
    assert!(at_once < later, "{at_once} of {} packets left at once", at_once + later);
    assert!(at_once + later >= frames * packets * receivers, "everything was forwarded");
    assert_eq!(allocated, 0, "allocations in {} packets", at_once + later);
}

#[test]
fn sound_and_its_levels_allocate_nothing_for_a_packet() {
    let receivers = 20;
    let mut stage = Stage::playing(Codec::Opus, SrtpProfile::AeadAes128Gcm, receivers);
    let packets = stage.prepare_sound(1_000);
    let (mut forwarded, mut allocated) = (0, 0);
    for (place, datagram) in packets.iter().enumerate() {
        let before = allocations();
        let media = stage.forward(std::slice::from_ref(datagram), Duration::from_millis(20));
        if place >= 500 {
            forwarded += media;
            allocated += allocations() - before;
        }
        // Levels leave between packets, once for all who speak.
        stage.keep_alive();
    }
    assert_eq!(forwarded, 500 * receivers, "everything was forwarded");
    assert_eq!(allocated, 0, "allocations in {forwarded} packets");
    let told = std::iter::from_fn(|| stage.engine.poll_event());
    let levels = told.filter(|event| matches!(event, Event::AudioLevels(_))).count();
    assert!((90..=110).contains(&levels), "five times a second: {levels}");
}

#[test]
fn relaying_allocates_nothing_but_a_pulse_four_times_a_second() {
    let receivers = 20;
    let mut stage = RelayStage::new(SrtpProfile::AeadAes128Gcm, receivers);
    let turns = 500;
    let bursts = stage.prepare(2 * turns);
    let mut pulsed = 0;
    for datagrams in &bursts[..turns] {
        pulsed = stage.forward(datagrams, Duration::from_millis(5)).1;
    }
    let before = allocations();
    let (mut forwarded, mut pulses) = (0, 0);
    for datagrams in &bursts[turns..] {
        let (media, so_far) = stage.forward(datagrams, Duration::from_millis(5));
        forwarded += media;
        pulses = so_far - pulsed;
    }
    let allocated = allocations() - before;
    assert_eq!(forwarded, turns * 5 * receivers, "everything was forwarded");
    assert_eq!(pulses, 10, "four a second");
    assert_eq!(allocated, pulses, "allocations in {forwarded} packets");
}

#[test]
fn the_counter_counts() {
    let before = allocations();
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert_eq!(allocations() - before, 1);
}
