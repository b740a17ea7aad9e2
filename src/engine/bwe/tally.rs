//! What was lost: of the packets of some time, and at which rate. Pure; of fixed size.

use super::whole;

/// Fewer packets say nothing.
const PACKETS_MIN: u32 = 10;
/// So much time since the first loss and packets that passed in it say what passes.
const LOSSY_US: u64 = 100_000;
const LOSSY_PACKETS: u32 = 10;
/// Between losses fewer do: what a policer had in its bucket is no part of it.
const BETWEEN_US: u64 = 60_000;
const BETWEEN_PACKETS: u32 = 5;
/// It is not waited for longer than this.
const LOSSY_US_MAX: u64 = 500_000;

/// Rates by half octaves from 32 kbit/s on, to compare losses of.
const BANDS: usize = 22;
/// What is remembered of a band fades by this part in this time.
const FADE: f32 = 0.8;
const FADE_US: u64 = 10_000_000;

/// What became of the packets of a window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) packets: u32,
    pub(super) lost: u32,
    /// Losses without a packet between them are one.
    pub(super) runs: u32,
    pub(super) bytes: u32,
    /// Of these, what arrived; and what had arrived by the first loss, and by the last.
    pub(super) arrived: u32,
    pub(super) by_first_loss: u32,
    pub(super) by_last_loss: u32,
    pub(super) first_us: u64,
    pub(super) last_us: u64,
    /// The first loss and the last; 0 = none.
    pub(super) first_loss_us: u64,
    pub(super) last_loss_us: u64,
}

impl Count {
    /// Packets that left at one moment: what became of them comes behind this.
    fn note(&mut self, at_us: u64, bytes: u32, packets: u32) {
        if self.packets == 0 {
            self.first_us = at_us;
        }
        self.last_us = self.last_us.max(at_us);
        self.packets += packets;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Packets of one moment arrived.
    pub(super) fn add_arrived(&mut self, at_us: u64, bytes: u32, packets: u32) {
        self.note(at_us, bytes, packets);
        self.arrived = self.arrived.saturating_add(bytes);
    }

    pub(super) fn add(&mut self, at_us: u64, bytes: u32, lost: bool, in_run: bool) {
        if !lost {
            return self.add_arrived(at_us, bytes, 1);
        }
        self.note(at_us, bytes, 1);
        self.lost += 1;
        self.runs += u32::from(!in_run);
        if self.first_loss_us == 0 {
            self.first_loss_us = at_us;
            self.by_first_loss = self.arrived;
        }
        self.last_loss_us = at_us;
        self.by_last_loss = self.arrived;
    }

    pub(super) fn with(&self, other: &Self) -> Self {
        if other.packets == 0 {
            return *self;
        }
        let (is_first, is_last) = (other.first_loss_us == 0, self.last_loss_us > 0);
        let behind = |bytes: u32| bytes.saturating_add(other.arrived);
        Self {
            packets: self.packets + other.packets,
            lost: self.lost + other.lost,
            runs: self.runs + other.runs,
            bytes: self.bytes.saturating_add(other.bytes),
            first_us: other.first_us,
            last_us: self.last_us.max(other.last_us),
            arrived: behind(self.arrived),
            by_first_loss: if is_first { behind(self.by_first_loss) } else { other.by_first_loss },
            by_last_loss: if is_last { behind(self.by_last_loss) } else { other.by_last_loss },
            first_loss_us: if is_first { self.first_loss_us } else { other.first_loss_us },
            last_loss_us: if is_last { self.last_loss_us } else { other.last_loss_us },
        }
    }

    /// What passes since the first loss is not known yet.
    pub(super) fn is_new(&self) -> bool {
        let span_us = self.last_us.saturating_sub(self.first_loss_us);
        self.first_loss_us > 0 && span_us < LOSSY_US_MAX && self.lossy_bps().is_none()
    }

    /// What passes since the first loss: before it a burst may have passed that is no rate. Behind
    /// the last one perhaps less was sent than would pass.
    pub(super) fn lossy_bps(&self) -> Option<f64> {
        let needed = (LOSSY_US, LOSSY_PACKETS);
        let to_last_loss = self.passed_bps(self.last_loss_us, self.earned(), needed);
        let to_end = self.passed_bps(self.last_us, f64::from(self.arrived), needed);
        to_last_loss.into_iter().chain(to_end).reduce(f64::max)
    }

    /// What passes from the first loss to the last: what a policer earns meanwhile, and less than a
    /// packet that it had before.
    pub(super) fn between_losses_bps(&self) -> Option<f64> {
        self.passed_bps(self.last_loss_us, self.earned(), (BETWEEN_US, BETWEEN_PACKETS))
    }

    fn earned(&self) -> f64 {
        f64::from(self.by_last_loss) - self.packet_bytes()
    }

    fn passed_bps(&self, until_us: u64, arrived: f64, needed: (u64, u32)) -> Option<f64> {
        let span_us = until_us.saturating_sub(self.first_loss_us);
        let bytes = arrived - f64::from(self.by_first_loss);
        let is_known = span_us >= needed.0 && bytes >= self.packet_bytes() * f64::from(needed.1);
        (self.first_loss_us > 0 && is_known).then(|| bytes * 8e6 / span_us as f64)
    }

    fn packet_bytes(&self) -> f64 {
        f64::from(self.bytes) / f64::from(self.packets.max(1))
    }

    pub(super) fn ratio(&self) -> f64 {
        f64::from(self.lost) / f64::from(self.packets.max(1))
    }

    /// Losses come in runs of this length, which makes chance coarser.
    pub(super) fn run_length(&self) -> f64 {
        (f64::from(self.lost) / f64::from(self.runs.max(1))).max(1.0)
    }

    /// Loses more than `ratio` of its packets, by what chance does not explain.
    pub(super) fn exceeds(&self, ratio: f64, deviations: f64) -> bool {
        let packets = f64::from(self.packets);
        let spread = packets * ratio * (1.0 - ratio) * self.run_length();
        let most = packets * ratio + deviations * spread.sqrt() + 1.0;
        self.packets >= PACKETS_MIN && f64::from(self.lost) > most
    }

    pub(super) fn span_us(&self) -> Option<f64> {
        let span_us = self.last_us.saturating_sub(self.first_us);
        (span_us >= 100_000).then_some(span_us as f64)
    }

    pub(super) fn sent_bps(&self) -> Option<f64> {
        self.span_us().map(|span_us| f64::from(self.bytes) * 8e6 / span_us)
    }
}

/// What was lost at which rate, fading.
#[derive(Debug)]
pub(super) struct Bands {
    /// Packets and losses.
    bands: [(f32, f32); BANDS],
    faded_us: u64,
}

impl Bands {
    pub(super) fn new() -> Self {
        Self { bands: [(0.0, 0.0); BANDS], faded_us: 0 }
    }

    pub(super) fn add(&mut self, now_us: u64, count: &Count) {
        if now_us.saturating_sub(self.faded_us) >= FADE_US {
            self.faded_us = now_us;
            for (packets, lost) in &mut self.bands {
                *packets *= FADE;
                *lost *= FADE;
            }
        }
        let Some(bps) = count.sent_bps() else { return };
        if let Some((packets, lost)) = self.bands.get_mut(band(bps)) {
            *packets += count.packets as f32;
            *lost += count.lost as f32;
        }
    }

    /// Packets and the part of them lost at rates clearly below `bps`.
    pub(super) fn below(&self, bps: f64) -> (f64, f64) {
        let below = self.bands.iter().take(band(bps));
        let (packets, lost) = below.fold((0.0, 0.0), |(packets, lost), band| {
            (packets + f64::from(band.0), lost + f64::from(band.1))
        });
        (packets, lost / packets.max(1.0))
    }
}

fn band(bps: f64) -> usize {
    let unit = (whole(bps) >> 15).max(1);
    let octave = unit.ilog2();
    // The bit behind the first one halves the octave.
    let upper = octave > 0 && unit >> (octave - 1) & 1 == 1;
    usize::try_from(2 * octave + u32::from(upper)).unwrap_or(BANDS).min(BANDS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 1,000 bytes, one a millisecond; `lost` of them from `from_ms` to `to_ms`.
    fn add(count: &mut Count, from_ms: u64, to_ms: u64, every: u64, lost: impl Fn(u64) -> bool) {
        for at_ms in (from_ms..to_ms).step_by(usize::try_from(every).unwrap()) {
            count.add(1_000 * at_ms, 1_000, lost(at_ms), false);
        }
    }

    #[test]
    fn what_passes_is_measured_between_losses_also_over_two_windows() {
        let mut before = Count::default();
        // A burst passes, then every second packet.
        add(&mut before, 0, 200, 1, |_| false);
        add(&mut before, 200, 300, 1, |at_ms| at_ms % 2 == 0);
        assert!(before.is_new() && before.lossy_bps().is_none());
        let mut current = Count::default();
        add(&mut current, 300, 501, 1, |at_ms| at_ms % 2 == 0);
        // Then much less is sent than would pass.
        add(&mut current, 501, 901, 10, |_| false);
        let both = current.with(&before);
        assert_eq!((both.packets, both.lost, both.first_us, both.last_us), (541, 151, 0, 891_000));
        let bps = both.lossy_bps().unwrap();
        assert!((3.95e6..4.05e6).contains(&bps), "{bps}");
        assert!(!both.is_new());
        // Nothing lost in the newer window.
        let mut quiet = Count::default();
        add(&mut quiet, 901, 1_000, 1, |_| false);
        let all = quiet.with(&both);
        assert_eq!((all.first_loss_us, all.last_loss_us), (200_000, 500_000));
        assert_eq!(all.by_last_loss, both.by_last_loss);
    }
}
