//! Wall-clock time inside an engine: one anchor, taken by the node and handed to every engine.

use std::time::Instant;

use crate::engine::rtp::NtpTime;

/// What the wall clock showed at one instant. All shards share one, so that their sender reports
/// and capture times agree.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    /// The instant.
    pub anchor: Instant,
    /// The wall clock then.
    pub ntp: NtpTime,
}

impl WallClock {
    /// The wall clock at `now`.
    #[must_use]
    pub fn ntp_at(&self, now: Instant) -> NtpTime {
        NtpTime::at(self.ntp, self.anchor, now)
    }
}
