//! What a publisher sends, frame by frame, and the turns of an engine under it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::cpu::cpu_time;
use super::sim::media::Codec;
use super::sim::stage::Stage;

/// Frames sealed at a time, outside of what is measured.
const PREPARED: u64 = 64;
/// Payload of a video packet at most, descriptor included, as Chromium sends: 1,200 bytes without a
/// fixed header, 20 bytes of extensions, what RTX puts in front, and the VP8 descriptor's reserve.
const VIDEO_PAYLOAD_MAX: usize = 1_160;

/// One stream.
pub(crate) struct Traffic {
    /// As the case is called.
    pub(crate) name: String,
    pub(crate) codec: Codec,
    /// Between frames.
    pub(crate) step: Duration,
    shape: Shape,
    rng: StdRng,
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    /// So many packets of so many bytes.
    Equal(usize, usize),
    /// A packet between these sizes.
    Single(usize, usize),
    /// Frames of half to one and a half times the mean.
    Split(usize),
}

impl Traffic {
    fn new(name: String, codec: Codec, step_us: u64, shape: Shape) -> Self {
        let rng = StdRng::seed_from_u64(11);
        Self { name, codec, step: Duration::from_micros(step_us), shape, rng }
    }

    /// Bursts of equal packets, one every millisecond.
    pub(crate) fn equal(burst: usize, bytes: usize) -> Self {
        let name = format!("burst {burst} of {bytes} B");
        Self::new(name, Codec::Vp8, 1_000, Shape::Equal(burst, bytes))
    }

    /// Video at 30 frames/s, split as libwebrtc does. A frame comes in one burst: libwebrtc's pacer
    /// lets up to 40 ms of its rate go at once.
    pub(crate) fn video(bits_per_second: usize) -> Self {
        let name = format!("video {} kbit/s", bits_per_second / 1_000);
        Self::new(name, Codec::Vp8, 33_333, Shape::Split(bits_per_second / 8 / 30))
    }

    /// The same under a longer name.
    pub(crate) fn named(mut self, more: &str) -> Self {
        self.name = format!("{}, {more}", self.name);
        self
    }

    /// Opus, 20 ms a packet.
    pub(crate) fn audio() -> Self {
        Self::new("audio".into(), Codec::Opus, 20_000, Shape::Single(80, 160))
    }

    /// Sizes of the payloads of the next frame.
    pub(crate) fn frame(&mut self) -> Vec<usize> {
        match self.shape {
            Shape::Equal(burst, bytes) => vec![bytes; burst],
            Shape::Single(least, most) => vec![self.rng.random_range(least..=most)],
            Shape::Split(mean) => {
                split_about_equally(self.rng.random_range(mean / 2..=mean + mean / 2))
            }
        }
    }

    /// So many frames hold about that many packets.
    pub(crate) fn frames_of(&self, packets: u64) -> u64 {
        let mut same = Self { name: String::new(), rng: StdRng::seed_from_u64(11), ..*self };
        let sampled = 1_000;
        let held: usize = (0..sampled).map(|_| same.frame().len()).sum();
        (packets * sampled).div_ceil(held as u64)
    }
}

/// As few packets as hold the frame, of sizes that differ by one byte at most, the smaller ones
/// first (libwebrtc's `RtpPacketizer::SplitAboutEqually`).
fn split_about_equally(bytes: usize) -> Vec<usize> {
    let packets = bytes.div_ceil(VIDEO_PAYLOAD_MAX).max(1);
    let larger = bytes % packets;
    (0..packets).map(|place| bytes / packets + usize::from(place >= packets - larger)).collect()
}

/// What some turns of an engine cost and did.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// CPU time.
    pub(crate) spent: Duration,
    /// Datagrams in.
    pub(crate) arrived: u64,
    /// Datagrams out.
    pub(crate) left: u64,
    /// Messages out: each holds datagrams for one receiver.
    pub(crate) trains: u64,
}

/// So many frames, a turn each; what passes besides media is not in it.
pub(crate) fn turns(stage: &mut Stage, traffic: &mut Traffic, frames: u64) -> Turns {
    let mut sum = Turns::default();
    let mut missing = frames;
    while missing > 0 {
        let count = missing.min(PREPARED);
        let prepared: Vec<_> = (0..count).map(|_| stage.prepare_frame(&traffic.frame())).collect();
        stage.keep_alive();
        let (trains, begun) = (stage.trains, cpu_time());
        // What it takes to make answers is the receivers' business.
        let mut apart = Duration::ZERO;
        for datagrams in &prepared {
            sum.left += stage.forward(datagrams, traffic.step) as u64;
            let paused = cpu_time();
            let answers = stage.answers();
            if !answers.is_empty() {
                apart += cpu_time() - paused;
                stage.hear(&answers);
            }
        }
        sum.spent += cpu_time() - begun - apart;
        sum.trains += stage.trains - trains;
        sum.arrived += prepared.iter().map(|datagrams| datagrams.len() as u64).sum::<u64>();
        missing -= count;
    }
    sum
}

/// False in test mode. Benches are built without the standard harness, so cargo's own flag tells.
pub(crate) fn is_measured() -> bool {
    let is_given = |flag: &str| std::env::args().any(|argument| argument == flag);
    is_given("--bench") && !is_given("--test")
}
