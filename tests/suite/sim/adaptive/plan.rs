//! What a plan is: who shows what to whom over which link.

use super::super::media::Codec;
use super::encoder::{Encoding, Format};
use super::viewer::Answer;

/// A camera's encodings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Show {
    pub(crate) name: &'static str,
    /// As the publisher states it of each encoding.
    pub(crate) mode: Option<&'static str>,
    pub(crate) encodings: &'static [Encoding],
}

const fn vp8(bps: &'static [u32], fps: u32, temporal: u8) -> Encoding {
    Encoding { bps, fps, temporal, format: Format::Vp8 }
}

const fn vp9(key_only: bool) -> Encoding {
    let format = Format::Vp9 { key_only };
    Encoding { bps: &[150_000, 350_000, 1_000_000], fps: 30, temporal: 3, format }
}

/// Simulcast of three sizes, two temporal layers each.
pub(crate) const SIMULCAST: Show = Show {
    name: "vp8 3xT2",
    mode: Some("L1T2"),
    encodings: &[vp8(&[150_000], 15, 2), vp8(&[500_000], 30, 2), vp8(&[1_700_000], 30, 2)],
};

pub(crate) const SIMULCAST_T3: Show = Show {
    name: "vp8 3xT3",
    mode: Some("L1T3"),
    encodings: &[vp8(&[150_000], 30, 3), vp8(&[500_000], 30, 3), vp8(&[1_700_000], 30, 3)],
};

pub(crate) const SIMULCAST_T1: Show = Show {
    name: "vp8 3xT1",
    mode: None,
    encodings: &[vp8(&[150_000], 15, 1), vp8(&[500_000], 30, 1), vp8(&[1_700_000], 30, 1)],
};

pub(crate) const SCALABLE: Show =
    Show { name: "vp9 L3T3", mode: Some("L3T3"), encodings: &[vp9(false)] };

pub(crate) const SCALABLE_KEY: Show =
    Show { name: "vp9 L3T3_KEY", mode: Some("L3T3_KEY"), encodings: &[vp9(true)] };

const fn av1(bps: &'static [u32], key_only: bool) -> Encoding {
    Encoding { bps, fps: 30, temporal: 3, format: Format::Av1 { key_only } }
}

pub(crate) const AV1_TEMPORAL: Show =
    Show { name: "av1 L1T3", mode: Some("L1T3"), encodings: &[av1(&[900_000], false)] };

pub(crate) const AV1_SCALABLE: Show = Show {
    name: "av1 L3T3",
    mode: Some("L3T3"),
    encodings: &[av1(&[150_000, 350_000, 1_000_000], false)],
};

pub(crate) const AV1_SCALABLE_KEY: Show = Show {
    name: "av1 L3T3_KEY",
    mode: Some("L3T3_KEY"),
    encodings: &[av1(&[150_000, 350_000, 1_000_000], true)],
};

/// A layer: spatial, temporal.
pub(crate) type Layer = (u8, u8);

impl Show {
    pub(crate) fn codec(&self) -> Codec {
        match self.encodings[0].format {
            Format::Vp8 => Codec::Vp8,
            Format::Vp9 { .. } => Codec::Vp9,
            Format::Av1 { .. } => Codec::Av1,
        }
    }

    /// What can be sent, from the least to the most, with the bits/s on the wire that a receiver of
    /// it needs. A larger size is worth it only with at least half of its pictures a second.
    pub(crate) fn needs(&self) -> Vec<(Layer, u64)> {
        let mut needs = Vec::new();
        let is_simulcast = self.encodings.len() > 1;
        let spatials =
            if is_simulcast { self.encodings.len() } else { self.encodings[0].bps.len() };
        for spatial in 0..spatials {
            let encoding = &self.encodings[if is_simulcast { spatial } else { 0 }];
            let least = if spatial == 0 { 0 } else { encoding.temporal.saturating_sub(2) };
            for temporal in least..encoding.temporal {
                let within = if is_simulcast { 0 } else { spatial };
                // Headers, extensions and the tag are some 40 bytes of 1,200, more of small packets.
                let mut bps = encoding.rate_up_to(within, temporal);
                if encoding.format.is_key_only() && within > 0 {
                    // Between key pictures nothing refers to the layers below.
                    bps -= encoding.rate_up_to(within - 1, temporal);
                }
                let bps = bps * 104 / 100;
                needs.push(((u8::try_from(spatial).unwrap(), temporal), bps));
            }
        }
        needs
    }
}

/// What becomes of what the link cannot carry at once.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Buffer {
    /// It waits: so many ms at the first rate, or 24 KB if that is more.
    Ms(u64),
    /// It is dropped, beyond bursts of so many bytes.
    Policer(usize),
}

/// One plan; each seed is a run of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) show: Show,
    /// Cameras, all of them watched by every viewer.
    pub(crate) cameras: usize,
    pub(crate) audio: bool,
    /// Viewers behind the one link, each with a transport of its own.
    pub(crate) viewers: usize,
    /// From these seconds on the link carries so many kbit/s.
    pub(crate) steps: &'static [(u64, u64)],
    pub(crate) buffer: Buffer,
    pub(crate) round_trip_ms: u64,
    pub(crate) jitter_ms: u64,
    /// Share of packets to the viewer lost at random.
    pub(crate) loss: f64,
    /// Share lost in bursts, and packets of a burst.
    pub(crate) bursts: Option<(f64, f64)>,
    /// Share of packets from the viewer lost at random.
    pub(crate) feedback_loss: f64,
    pub(crate) answer: Answer,
    /// Viewers understand RTX.
    pub(crate) rtx: bool,
    /// They ask for what is missing; else they want a key frame for each gap, at once and once.
    pub(crate) nack: bool,
    pub(crate) secs: u64,
    pub(crate) seeds: &'static [u64],
}

/// One camera and its sound over 50 ms.
pub(crate) const PLAIN: Plan = Plan {
    name: "",
    show: SIMULCAST,
    cameras: 1,
    audio: true,
    viewers: 1,
    steps: &[],
    buffer: Buffer::Ms(300),
    round_trip_ms: 50,
    jitter_ms: 0,
    loss: 0.0,
    bursts: None,
    feedback_loss: 0.0,
    answer: Answer::TransportCc,
    rtx: true,
    nack: true,
    secs: 40,
    seeds: &[1],
};

const SEEDS: &[u64] = &[1, 2, 3];

/// Steady links.
const STEADY: &[Plan] = &[
    Plan { name: "100k, no sound", steps: &[(0, 100)], audio: false, ..PLAIN },
    Plan { name: "100k", steps: &[(0, 100)], ..PLAIN },
    Plan { name: "200k", steps: &[(0, 200)], ..PLAIN },
    Plan { name: "300k", steps: &[(0, 300)], seeds: SEEDS, ..PLAIN },
    Plan { name: "600k", steps: &[(0, 600)], ..PLAIN },
    Plan { name: "1M", steps: &[(0, 1_000)], seeds: SEEDS, ..PLAIN },
    Plan { name: "2M", steps: &[(0, 2_000)], ..PLAIN },
    Plan { name: "3M", steps: &[(0, 3_000)], ..PLAIN },
    Plan { name: "20M", steps: &[(0, 20_000)], ..PLAIN },
    Plan { name: "1M, 20 ms", steps: &[(0, 1_000)], round_trip_ms: 20, ..PLAIN },
    Plan { name: "1M, 150 ms", steps: &[(0, 1_000)], round_trip_ms: 150, ..PLAIN },
    Plan { name: "1M, 300 ms", steps: &[(0, 1_000)], round_trip_ms: 300, ..PLAIN },
    Plan { name: "3M, 300 ms", steps: &[(0, 3_000)], round_trip_ms: 300, ..PLAIN },
    Plan { name: "1M, jitter 20 ms", steps: &[(0, 1_000)], jitter_ms: 20, ..PLAIN },
];

/// Losses that are nobody's queue.
const LOSSY: &[Plan] = &[
    Plan { name: "3M, loss 1 %", steps: &[(0, 3_000)], loss: 0.01, ..PLAIN },
    Plan { name: "3M, loss 2 %", steps: &[(0, 3_000)], loss: 0.02, seeds: SEEDS, ..PLAIN },
    Plan { name: "3M, loss 5 %", steps: &[(0, 3_000)], loss: 0.05, seeds: SEEDS, ..PLAIN },
    Plan { name: "3M, loss 10 %", steps: &[(0, 3_000)], loss: 0.1, seeds: SEEDS, ..PLAIN },
    Plan { name: "600k, loss 2 %", steps: &[(0, 600)], loss: 0.02, ..PLAIN },
    Plan { name: "600k, loss 5 %", steps: &[(0, 600)], loss: 0.05, ..PLAIN },
    Plan {
        name: "1M, 300 ms, loss 1 %",
        steps: &[(0, 1_000)],
        round_trip_ms: 300,
        loss: 0.01,
        ..PLAIN
    },
    Plan { name: "3M, bursts 2 %", steps: &[(0, 3_000)], bursts: Some((0.02, 5.0)), ..PLAIN },
    Plan { name: "600k, bursts 2 %", steps: &[(0, 600)], bursts: Some((0.02, 5.0)), ..PLAIN },
    Plan { name: "1M, feedback 20 % lost", steps: &[(0, 1_000)], feedback_loss: 0.2, ..PLAIN },
];

/// Links that change.
const STEPPED: &[Plan] = &[
    Plan { name: "3M to 600k", steps: &[(0, 3_000), (30, 600)], secs: 70, seeds: SEEDS, ..PLAIN },
    Plan { name: "2M to 300k", steps: &[(0, 2_000), (30, 300)], secs: 70, ..PLAIN },
    Plan { name: "600k to 200k", steps: &[(0, 600), (30, 200)], secs: 70, ..PLAIN },
    Plan { name: "300k to 3M", steps: &[(0, 300), (30, 3_000)], secs: 90, seeds: SEEDS, ..PLAIN },
    Plan { name: "600k to 20M", steps: &[(0, 600), (30, 20_000)], secs: 90, ..PLAIN },
    Plan { name: "200k to 1M", steps: &[(0, 200), (30, 1_000)], secs: 90, ..PLAIN },
    Plan {
        name: "3M to 300k and back",
        steps: &[(0, 3_000), (30, 300), (60, 3_000)],
        secs: 120,
        seeds: SEEDS,
        ..PLAIN
    },
];

/// Other buffers than a fair one.
const BUFFERS: &[Plan] = &[
    Plan { name: "600k, policed", steps: &[(0, 600)], buffer: Buffer::Policer(30_000), ..PLAIN },
    Plan {
        name: "1M, policed",
        steps: &[(0, 1_000)],
        buffer: Buffer::Policer(30_000),
        seeds: SEEDS,
        ..PLAIN
    },
    Plan { name: "3M, policed", steps: &[(0, 3_000)], buffer: Buffer::Policer(60_000), ..PLAIN },
    Plan { name: "300k, deep", steps: &[(0, 300)], buffer: Buffer::Ms(3_000), ..PLAIN },
    Plan { name: "1M, deep", steps: &[(0, 1_000)], buffer: Buffer::Ms(3_000), ..PLAIN },
    Plan {
        name: "2M to 600k, deep",
        steps: &[(0, 2_000), (30, 600)],
        buffer: Buffer::Ms(3_000),
        secs: 70,
        ..PLAIN
    },
    Plan { name: "1M, shallow", steps: &[(0, 1_000)], buffer: Buffer::Ms(80), ..PLAIN },
];

/// Who shares a link, and what is shown over it.
const SHARED: &[Plan] = &[
    Plan { name: "two cameras, 1M", steps: &[(0, 1_000)], cameras: 2, ..PLAIN },
    Plan { name: "two cameras, 3M", steps: &[(0, 3_000)], cameras: 2, ..PLAIN },
    Plan { name: "four cameras, 2M", steps: &[(0, 2_000)], cameras: 4, ..PLAIN },
    Plan { name: "two viewers, 1M", steps: &[(0, 1_000)], viewers: 2, secs: 60, ..PLAIN },
    Plan { name: "two viewers, 3M", steps: &[(0, 3_000)], viewers: 2, secs: 60, ..PLAIN },
    Plan { name: "REMB 800k", steps: &[(0, 1_000)], answer: Answer::Remb(800_000), ..PLAIN },
    Plan { name: "REMB 250k", steps: &[(0, 1_000)], answer: Answer::Remb(250_000), ..PLAIN },
    Plan { name: "no RTX, 3M", steps: &[(0, 3_000)], rtx: false, ..PLAIN },
    Plan { name: "no RTX, 3M, loss 2 %", steps: &[(0, 3_000)], rtx: false, loss: 0.02, ..PLAIN },
    Plan {
        name: "no RTX, 300k to 3M",
        steps: &[(0, 300), (30, 3_000)],
        rtx: false,
        secs: 90,
        ..PLAIN
    },
    Plan { name: "no layers, 300k", steps: &[(0, 300)], show: SIMULCAST_T1, ..PLAIN },
    Plan { name: "no layers, 1M", steps: &[(0, 1_000)], show: SIMULCAST_T1, ..PLAIN },
    Plan { name: "three layers, 300k", steps: &[(0, 300)], show: SIMULCAST_T3, ..PLAIN },
    Plan { name: "three layers, 1M", steps: &[(0, 1_000)], show: SIMULCAST_T3, ..PLAIN },
    Plan { name: "scalable, 300k", steps: &[(0, 300)], show: SCALABLE, ..PLAIN },
    Plan { name: "scalable, 1M", steps: &[(0, 1_000)], show: SCALABLE, ..PLAIN },
    Plan { name: "scalable, 3M", steps: &[(0, 3_000)], show: SCALABLE, ..PLAIN },
    Plan { name: "scalable key, 300k", steps: &[(0, 300)], show: SCALABLE_KEY, ..PLAIN },
    Plan {
        name: "scalable key, 1M to 3M",
        steps: &[(0, 1_000), (30, 3_000)],
        show: SCALABLE_KEY,
        secs: 90,
        seeds: SEEDS,
        ..PLAIN
    },
];

pub(crate) const PLANS: [&[Plan]; 5] = [STEADY, LOSSY, STEPPED, BUFFERS, SHARED];

/// Audio's bits/s on the wire: 50 packets/s of 80 bytes and their headers.
pub(crate) const AUDIO_BPS: u64 = 46_000;

impl Plan {
    /// The layers that each camera should be seen in on a link of so many bits/s: at least the first
    /// (the highest that leaves a quarter of the link free when all take the same), at most the
    /// second. `None` is no picture.
    pub(crate) fn fitting(&self, bps: u64) -> (Option<Layer>, Option<Layer>) {
        let bps = self.known(bps);
        let takers = (self.cameras * self.viewers) as u64;
        let audio = if self.audio { AUDIO_BPS * takers } else { 0 };
        let highest = |budget: u64, takers: u64| {
            let video = budget.saturating_sub(audio) / takers;
            self.show.needs().iter().rev().find(|(_, need)| *need <= video).map(|(it, _)| *it)
        };
        (highest(bps * 3 / 4, takers), highest(bps, 1))
    }

    /// What can be known of a link of so many bits/s.
    pub(crate) fn known(&self, bps: u64) -> u64 {
        match self.answer {
            Answer::TransportCc => bps,
            Answer::Remb(told) => told,
        }
    }

    /// What one transport asks for at most, in bits/s.
    pub(crate) fn demand(&self) -> u64 {
        let (_, video) = self.show.needs().last().copied().expect("layers");
        let audio = if self.audio { AUDIO_BPS } else { 0 };
        (video + audio) * self.cameras as u64
    }
}
