//! Forwarding allocates nothing: a counting allocator under an engine in the steady state.
//!
//! Alone in its binary, because the allocator counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use ringcast::engine::srtp::SrtpProfile;

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

use relay_stage::RelayStage;
use stage::Stage;

struct Counting;

thread_local! {
    /// Allocations of this thread: the test harness has others.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // At the end of a thread the counter may be gone.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

#[expect(unsafe_code, reason = "the trait is unsafe; every call goes to the system's allocator")]
// SAFETY: all calls are passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

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
        let before = COUNT.get();
        let mut forwarded = 0;
        for datagrams in &bursts[turns..] {
            forwarded += stage.forward(datagrams, Duration::from_millis(5));
        }
        let allocated = COUNT.get() - before;
        assert_eq!(forwarded, turns * burst * receivers, "everything was forwarded");
        assert_eq!(allocated, 0, "allocations in {forwarded} packets of {profile:?}");
    }
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
    let before = COUNT.get();
    let (mut forwarded, mut pulses) = (0, 0);
    for datagrams in &bursts[turns..] {
        let (media, so_far) = stage.forward(datagrams, Duration::from_millis(5));
        forwarded += media;
        pulses = so_far - pulsed;
    }
    let allocated = COUNT.get() - before;
    assert_eq!(forwarded, turns * 5 * receivers, "everything was forwarded");
    assert_eq!(pulses, 10, "four a second");
    assert_eq!(allocated, pulses, "allocations in {forwarded} packets");
}

#[test]
fn the_counter_counts() {
    let before = COUNT.get();
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert_eq!(COUNT.get() - before, 1);
}
