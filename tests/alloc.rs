//! Forwarding allocates nothing: a counting allocator under an engine in the steady state.
//!
//! Alone in its binary, because the allocator counts for the whole process.

use std::time::Duration;

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
#[path = "suite/sim/stage.rs"]
#[expect(dead_code, reason = "the bench uses more of it")]
mod stage;

use counting::{Counting, allocations};
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
fn the_counter_counts() {
    let before = allocations();
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert_eq!(allocations() - before, 1);
}
