//! How all benches measure: how long, and whether at all.
//!
//! All of `cargo bench` is to end within six minutes on two cores. In test mode (`cargo test`)
//! criterion calls each case once, to see that it still runs; what only warms up is left out then.

use std::time::Duration;

use criterion::Criterion;

/// Ten samples within a second, for each case.
pub(crate) fn settings() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}
