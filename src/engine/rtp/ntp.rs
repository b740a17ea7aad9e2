//! Wall-clock time as RTP and RTCP carry it.

use std::ops::{Add, Sub};
use std::time::{Duration, Instant};

/// Seconds from the NTP era (1900) to the Unix epoch (1970).
const UNIX_EPOCH_SECS: u64 = 2_208_988_800;
const NANOS_PER_SEC: u128 = 1_000_000_000;

/// NTP time: seconds since 1900 in the upper, fractions in the lower 32 bits (RFC 3550 §4).
///
/// Wraps in 2036, so only differences mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NtpTime(u64);

impl NtpTime {
    /// From the 64 bits on the wire.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits on the wire.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// From the time since the Unix epoch.
    #[must_use]
    pub fn from_unix(since_epoch: Duration) -> Self {
        Self(UNIX_EPOCH_SECS << 32) + since_epoch
    }

    /// The time at `now`, given that it was `anchor_ntp` at `anchor`. `now` may be earlier.
    #[must_use]
    pub fn at(anchor_ntp: Self, anchor: Instant, now: Instant) -> Self {
        match now.checked_duration_since(anchor) {
            Some(after) => anchor_ntp + after,
            None => anchor_ntp - anchor.saturating_duration_since(now),
        }
    }

    /// The middle 32 bits, in 1/65,536 s: what LSR and LRR hold (RFC 3550 §6.4.1).
    #[must_use]
    pub fn middle(self) -> u32 {
        let [_, _, a, b, c, d, _, _] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// The abs-send-time extension's 24 bits: 6 of seconds, 18 of fractions.
    #[must_use]
    pub fn abs_send_time(self) -> u32 {
        let [.., a, b, c] = (self.0 >> 14).to_be_bytes();
        u32::from_be_bytes([0, a, b, c])
    }

    /// The round trip that a report block proves (RFC 3550 §6.4.1): this moment less LSR and DLSR.
    ///
    /// `None` when the peer had no sender report yet (`lsr` 0) or its delay exceeds what passed.
    #[must_use]
    pub fn round_trip(self, lsr: u32, dlsr: u32) -> Option<Duration> {
        let passed = self.middle().wrapping_sub(lsr).wrapping_sub(dlsr);
        (lsr != 0 && passed.cast_signed() >= 0).then(|| short_to_duration(passed))
    }
}

impl Add<Duration> for NtpTime {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.wrapping_add(from_duration(duration)))
    }
}

impl Sub<Duration> for NtpTime {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.wrapping_sub(from_duration(duration)))
    }
}

/// A time in 1/65,536 s (DLSR, DLRR) as a duration.
fn short_to_duration(short: u32) -> Duration {
    to_duration(u64::from(short) << 16)
}

fn from_duration(duration: Duration) -> u64 {
    let nanos = u64::from(duration.subsec_nanos());
    // Rounded, so that a conversion there and back is exact to the nanosecond.
    let fraction = ((nanos << 32) + 500_000_000) / 1_000_000_000;
    (duration.as_secs() << 32).wrapping_add(fraction)
}

fn to_duration(bits: u64) -> Duration {
    let nanos = (u128::from(bits & 0xffff_ffff) * NANOS_PER_SEC + (1 << 31)) >> 32;
    Duration::from_secs(bits >> 32) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_unix_epoch_is_2208988800_seconds_into_the_ntp_era() {
        assert_eq!(NtpTime::from_unix(Duration::ZERO).bits(), 2_208_988_800 << 32);
        let half = NtpTime::from_unix(Duration::from_millis(1_500));
        assert_eq!(half.bits(), (2_208_988_801 << 32) | 0x8000_0000);
        assert_eq!(half.middle(), 0x7e81_8000, "2,208,988,801 = 0x83AA7E81");
    }

    #[test]
    fn abs_send_time_has_six_bits_of_seconds_and_eighteen_of_fractions() {
        let time = NtpTime::from_bits((65 << 32) | 0x4000_0000);
        assert_eq!(time.abs_send_time(), (1 << 18) | (1 << 16));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an Instant can only be had from the clock")]
    fn time_runs_both_ways_from_the_anchor() {
        let anchor = Instant::now() + Duration::from_secs(10);
        let ntp = NtpTime::from_unix(Duration::from_secs(1_700_000_000));
        let step = Duration::from_millis(2_250);
        let later = NtpTime::at(ntp, anchor, anchor + step);
        assert_eq!(later.bits(), ntp.bits() + (9 << 30));
        let earlier = NtpTime::at(ntp, anchor, anchor - step);
        assert_eq!(earlier.bits(), ntp.bits() - (9 << 30));
    }

    #[test]
    fn a_round_trip_is_now_less_lsr_less_dlsr() {
        // The example of RFC 3550 §6.4.1, figure 2: A = 0xb710:8000, LSR 0xb705:2000, DLSR
        // 0x0005:4000, hence 6.125 s.
        let now = NtpTime::from_bits(0xb710_8000 << 16);
        assert_eq!(now.round_trip(0xb705_2000, 0x0005_4000), Some(Duration::from_millis(6_125)));
        assert_eq!(now.round_trip(0, 0x0005_4000), None);
        assert_eq!(now.round_trip(0xb705_2000, 0x00ff_0000), None);
        assert_eq!(short_to_duration(0x0005_4000), Duration::from_millis(5_250));
    }

    proptest! {
        #[test]
        fn durations_survive_the_conversion(
            start in any::<u64>(), secs in 0u64..1 << 31, nanos in 0u32..1_000_000_000,
        ) {
            let step = Duration::new(secs, nanos);
            let start = NtpTime::from_bits(start);
            let passed = (start + step).bits().wrapping_sub(start.bits());
            prop_assert_eq!(to_duration(passed), step);
            prop_assert_eq!((start + step) - step, start);
        }
    }
}
