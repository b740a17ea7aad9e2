//! How close behind each other packets arrive: a path that was opened shows so before it is probed.
//!
//! What leaves together arrives, over a path with one bottleneck, no faster than that carries it.
//! Where most of it suddenly arrives far faster than the estimate, a probe is due, however many were
//! in vain before. This is a hint and no measure: many a path hands over in one go what it carried
//! slowly. How packets arrive while a probe is in vain is therefore how they usually do. Pure.

/// Trains that are remembered: half a second to a second of small pictures.
const TRAINS: usize = 8;
const TRAINS_U8: u8 = 8;

const _: () = assert!(TRAINS == TRAINS_U8 as usize);

/// Fewer bytes behind a train's first packet say nothing: arrivals are told in ticks of 250 µs.
const BYTES_MIN: u32 = 400;

/// A train that arrives so many times faster than the estimate is fast, and so many more of them
/// than usual tell of another path.
const FAST: f64 = 2.0;
const MORE: u8 = 5;

/// The last trains.
#[derive(Debug, Default)]
pub(super) struct Spacing {
    /// Their rates in kbit/s, the oldest at `next` once there are so many.
    kbps: [u32; TRAINS],
    next: u8,
    known: u8,
    /// How many of them were fast when a probe was last in vain.
    usual: Option<u8>,
}

impl Spacing {
    /// A train arrived: so many bytes behind its first packet, within so long.
    pub(super) fn add(&mut self, bytes: u32, span_us: i64) {
        if bytes < BYTES_MIN {
            return;
        }
        let span_us = u64::try_from(span_us).unwrap_or_default().max(1);
        let kbps = u64::from(bytes) * 8_000 / span_us;
        if let Some(place) = self.kbps.get_mut(usize::from(self.next)) {
            *place = u32::try_from(kbps).unwrap_or(u32::MAX);
        }
        self.next = (self.next + 1) % TRAINS_U8;
        self.known = (self.known + 1).min(TRAINS_U8);
    }

    /// A probe found no more than the estimate: as packets arrive now they usually do, if enough have.
    pub(super) fn note_found(&mut self, estimate_bps: f64) {
        if self.known == TRAINS_U8 {
            self.usual = Some(self.fast(estimate_bps));
            self.known = 0;
        }
    }

    /// The estimate fell: what arrives is not faster for that.
    pub(super) fn note_drop(&mut self, estimate_bps: f64) {
        let fast = self.fast(estimate_bps);
        self.usual = self.usual.map(|usual| usual.max(fast));
        self.known = 0;
    }

    /// The path is another one: nothing is known of how packets usually arrive.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether packets arrive so close behind each other as they did not when a probe was in vain;
    /// over a path that others share, whether all do where none did.
    pub(super) fn is_close(&self, estimate_bps: f64, is_shared: bool) -> bool {
        let more = if is_shared { TRAINS_U8 } else { MORE };
        let most = self.usual.map(|usual| usual + more);
        self.known == TRAINS_U8 && most.is_some_and(|most| self.fast(estimate_bps) >= most)
    }

    fn fast(&self, estimate_bps: f64) -> u8 {
        let known = self.kbps.iter().take(self.known.into());
        let fast = known.filter(|kbps| f64::from(**kbps) * 1e3 > FAST * estimate_bps);
        u8::try_from(fast.count()).unwrap_or(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trains of so many bytes behind the first packet, over a path of so many kbit/s.
    fn trains(spacing: &mut Spacing, count: usize, kbps: i64) {
        (0..count).for_each(|_| spacing.add(1_000, 8_000_000 / kbps));
    }

    #[test]
    fn an_opened_path_shows_by_most_of_some_trains() {
        let mut spacing = Spacing::default();
        trains(&mut spacing, 20, 300);
        assert!(!spacing.is_close(3e5, false));
        spacing.note_found(3e5);
        trains(&mut spacing, 20, 300);
        assert!(!spacing.is_close(3e5, false));
        trains(&mut spacing, 4, 3_000);
        assert!(!spacing.is_close(3e5, false), "four may be chance");
        spacing.add(100, 1);
        assert!(!spacing.is_close(3e5, false), "small ones do not count");
        trains(&mut spacing, 1, 3_000);
        assert!(spacing.is_close(3e5, false));
        assert!(!spacing.is_close(3e5, true), "others may have been silent");
        assert!(!spacing.is_close(2e6, false), "it is what the estimate says already");
        spacing.note_found(3e5);
        trains(&mut spacing, 20, 3_000);
        assert!(!spacing.is_close(3e5, false), "they came so while a probe was in vain");
    }

    #[test]
    fn a_lower_estimate_makes_no_other_path_and_too_few_trains_are_no_custom() {
        let mut spacing = Spacing::default();
        trains(&mut spacing, 7, 300);
        spacing.note_found(3e5);
        trains(&mut spacing, 8, 3_000);
        assert!(!spacing.is_close(3e5, false), "seven were too few");
        trains(&mut spacing, 8, 1_000);
        spacing.note_found(9e5);
        trains(&mut spacing, 8, 1_000);
        spacing.note_drop(4e5);
        trains(&mut spacing, 8, 1_000);
        assert!(!spacing.is_close(4e5, false));
    }

    #[test]
    fn a_path_that_hands_over_in_one_go_says_nothing() {
        let mut spacing = Spacing::default();
        (0..8).for_each(|_| spacing.add(1_200, 0));
        assert!(!spacing.is_close(3e5, false), "nothing was probed yet");
        spacing.note_found(3e5);
        (0..8).for_each(|_| spacing.add(1_200, 0));
        assert!(!spacing.is_close(3e5, false));
        spacing.forget();
        assert!(!spacing.is_close(3e5, false));
    }
}
