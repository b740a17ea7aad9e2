//! What was lost: of the packets of some time, and at which rate. Pure; of fixed size.

use super::whole;

/// Fewer packets say nothing.
const PACKETS_MIN: u32 = 10;
/// So much time since the first loss and packets that passed in it say what passes.
const LOSSY_US: u64 = 100_000;
const LOSSY_PACKETS: u32 = 10;
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
    /// Of these, what arrived; and what arrived behind the first loss.
    pub(super) arrived: u32,
    pub(super) arrived_lossy: u32,
    pub(super) first_us: u64,
    pub(super) last_us: u64,
    /// The first loss; 0 = none.
    pub(super) lossy_us: u64,
}

impl Count {
    pub(super) fn add(&mut self, at_us: u64, bytes: u32, lost: bool, in_run: bool) {
        if self.packets == 0 {
            self.first_us = at_us;
        }
        self.last_us = self.last_us.max(at_us);
        self.packets += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if lost {
            self.lost += 1;
            self.runs += u32::from(!in_run);
            if self.lossy_us == 0 {
                self.lossy_us = at_us;
            }
        } else {
            self.arrived = self.arrived.saturating_add(bytes);
            if self.lossy_us > 0 {
                self.arrived_lossy = self.arrived_lossy.saturating_add(bytes);
            }
        }
    }

    pub(super) fn with(&self, other: &Self) -> Self {
        if other.packets == 0 {
            return *self;
        }
        Self {
            packets: self.packets + other.packets,
            lost: self.lost + other.lost,
            runs: self.runs + other.runs,
            bytes: self.bytes.saturating_add(other.bytes),
            first_us: other.first_us,
            last_us: self.last_us.max(other.last_us),
            arrived: self.arrived.saturating_add(other.arrived),
            arrived_lossy: match other.lossy_us {
                0 => self.arrived_lossy,
                _ => other.arrived_lossy.saturating_add(self.arrived),
            },
            lossy_us: if other.lossy_us > 0 { other.lossy_us } else { self.lossy_us },
        }
    }

    /// What passes since the first loss is not known yet.
    pub(super) fn is_new(&self) -> bool {
        let span_us = self.last_us.saturating_sub(self.lossy_us);
        self.lossy_us > 0 && span_us < LOSSY_US_MAX && self.lossy_bps().is_none()
    }

    /// What passes since the first loss: before it a burst may have passed that is no rate.
    pub(super) fn lossy_bps(&self) -> Option<f64> {
        let span_us = self.last_us.saturating_sub(self.lossy_us);
        let enough =
            f64::from(self.bytes) / f64::from(self.packets.max(1)) * f64::from(LOSSY_PACKETS);
        let is_known = span_us >= LOSSY_US && f64::from(self.arrived_lossy) >= enough;
        (self.lossy_us > 0 && is_known)
            .then(|| f64::from(self.arrived_lossy) * 8e6 / span_us as f64)
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
