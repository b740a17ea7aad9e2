//! A server that sends what fits of some cameras to one receiver, as the engine does: layers as
//! the estimate allows, frames as trains at the pace of their publisher, audio always.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::{Estimator, ProbeCluster};
use super::link::{Link, Path};
use crate::engine::rtcp::{Arrival, FeedbackHead, RtcpItem, RtcpWriter, parse};
use crate::engine::twcc::TwccReceiver;

/// Bits per second of a camera's layers, one above the other, and frames per second: three sizes
/// with three frame rates each.
const LAYERS: [(f64, u64); 9] = [
    (50e3, 8),
    (85e3, 15),
    (130e3, 30),
    (250e3, 8),
    (350e3, 15),
    (500e3, 30),
    (1.2e6, 8),
    (1.7e6, 15),
    (2.5e6, 30),
];

const AUDIO_BYTES: usize = 100;
const AUDIO_EVERY_US: u64 = 20_000;
const AUDIO_BPS: f64 = 40e3;
const PACKET_BYTES: usize = 1_200;
const PADDING_BYTES: usize = 280;
/// A turn of the shard, and what a publisher's pacer lets pass in it.
const TRAIN_EVERY_US: u64 = 5_000;
const PACE: f64 = 2.5;
/// How much bigger a key frame is than a frame of its size at full rate, and how much smaller those
/// after it are until it is paid for.
const KEY_FRAME: f64 = 6.0;
const AFTER_KEY_FRAME: f64 = 0.6;

struct Camera {
    /// The layer sent, if any, and the best there is.
    layer: Option<usize>,
    top: usize,
    next_frame_us: u64,
    needs_key_frame: bool,
    owed_bytes: f64,
    unsent_bytes: usize,
    paced_bytes: f64,
}

/// What a second was like.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Second {
    pub(super) estimate_bps: f64,
    pub(super) capacity_bps: f64,
    pub(super) demand_bps: f64,
    pub(super) changes: usize,
}

/// One input of an estimator, to be given again.
#[derive(Debug, Clone)]
pub(super) enum Input {
    Demand(u64),
    Sent(u16, usize, Option<ProbeCluster>),
    Feedback(Vec<u8>),
    Timeout,
    PollProbe,
}

/// What happened.
#[derive(Default)]
pub(super) struct Record {
    pub(super) seconds: Vec<Second>,
    pub(super) queued_us: Vec<u64>,
    pub(super) sent: usize,
    pub(super) lost: usize,
    pub(super) padding_bytes: usize,
    pub(super) bytes: usize,
    pub(super) inputs: Vec<(Instant, Input)>,
}

/// The call itself.
pub(super) struct Call {
    epoch: Instant,
    now_us: u64,
    pub(super) estimator: Estimator,
    link: Link,
    cameras: Vec<Camera>,
    rng: StdRng,
    seq: u16,
    in_flight: BTreeMap<(u64, u16), ()>,
    receiver: TwccReceiver,
    feedback: VecDeque<(u64, Vec<u8>)>,
    changes: usize,
    demand: u64,
    /// The estimate and the demand that layers were chosen for.
    allocated: (u64, u64),
    pub(super) keeps_inputs: bool,
    pub(super) loses_feedback: bool,
    pub(super) record: Record,
}

impl Call {
    /// A call with one camera per entry, whose best layer it is.
    pub(super) fn new(path: Path, tops: &[usize], seed: u64) -> Self {
        let epoch = crate::engine::test_instant();
        let camera = |(n, top): (usize, &usize)| Camera {
            layer: None,
            top: *top,
            next_frame_us: n as u64 * 7_000,
            needs_key_frame: true,
            owed_bytes: 0.0,
            unsent_bytes: 0,
            paced_bytes: 0.0,
        };
        Self {
            epoch,
            now_us: 0,
            estimator: Estimator::new(epoch),
            link: Link::new(path, seed),
            cameras: tops.iter().enumerate().map(camera).collect(),
            rng: StdRng::seed_from_u64(seed ^ 0x5eed),
            seq: 65_000,
            in_flight: BTreeMap::new(),
            receiver: TwccReceiver::new(epoch),
            feedback: VecDeque::new(),
            changes: 0,
            demand: 0,
            allocated: (0, 0),
            keeps_inputs: false,
            loses_feedback: false,
            record: Record::default(),
        }
    }

    /// The best layer of every camera from now on.
    pub(super) fn want(&mut self, top: usize) {
        self.cameras.iter_mut().for_each(|camera| camera.top = top);
    }

    /// The path's round trip from now on.
    pub(super) fn lengthen(&mut self, round_trip_ms: u64) {
        self.link.path.round_trip_ms = round_trip_ms;
    }

    /// Goes on for so long.
    pub(super) fn run(&mut self, seconds: u64) {
        let until_us = self.now_us + seconds * 1_000_000;
        while self.now_us < until_us {
            self.step();
            self.now_us += 1_000;
            if self.now_us.is_multiple_of(1_000_000) {
                self.record.seconds.push(Second {
                    estimate_bps: self.estimator.estimate_bps() as f64,
                    capacity_bps: self.link.path.capacity_at(self.now_us - 1_000),
                    demand_bps: self.demand_bps(),
                    changes: std::mem::take(&mut self.changes),
                });
            }
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.epoch + Duration::from_micros(self.now_us)
    }

    fn demand_bps(&self) -> f64 {
        AUDIO_BPS + self.cameras.iter().map(|camera| LAYERS[camera.top].0).sum::<f64>()
    }

    fn keep(&mut self, input: Input) {
        if self.keeps_inputs {
            self.record.inputs.push((self.now(), input));
        }
    }

    fn step(&mut self) {
        let now = self.now();
        self.arrive();
        while self.feedback.front().is_some_and(|(at_us, _)| *at_us <= self.now_us) {
            let (_, bytes) = self.feedback.pop_front().unwrap();
            let Some(RtcpItem::TransportCc(feedback)) = parse(&bytes).next() else {
                panic!("a feedback");
            };
            self.estimator.handle_feedback(now, &feedback);
            self.keep(Input::Feedback(bytes));
        }
        let demand = super::super::whole(self.demand_bps());
        if demand != self.demand {
            self.demand = demand;
            self.estimator.set_demand(now, demand);
            self.keep(Input::Demand(demand));
        }
        if self.estimator.next_deadline().is_some_and(|at| at <= now) {
            self.estimator.handle_timeout(now);
            self.keep(Input::Timeout);
        }
        let wish = (self.estimator.estimate_bps(), demand);
        if self.allocated != wish {
            self.allocated = wish;
            self.allocate();
        }
        if self.now_us.is_multiple_of(AUDIO_EVERY_US) {
            self.send(AUDIO_BYTES, None);
        }
        self.make_frames();
        if self.now_us.is_multiple_of(TRAIN_EVERY_US) {
            self.send_trains();
        }
        self.send_probes();
    }

    fn arrive(&mut self) {
        let now = self.now();
        while let Some(((at_us, seq), ())) = self.in_flight.first_key_value() {
            let (at_us, seq) = (*at_us, *seq);
            if at_us > self.now_us {
                break;
            }
            self.in_flight.pop_first();
            let at = self.epoch + Duration::from_micros(at_us);
            self.receiver.handle_packet(now, at, seq);
        }
        while let Some(told) = self.receiver.poll_feedback(now) {
            let reference = u64::from(told.reference_time) * 256;
            let ticks = |tick: i64| reference.checked_add_signed(tick).unwrap();
            let arrivals: Vec<Arrival> = told
                .packets
                .iter()
                .filter_map(|(seq, tick)| Some(Arrival { seq: *seq, ticks: ticks((*tick)?) }))
                .collect();
            let head = FeedbackHead {
                sender_ssrc: 1,
                media_ssrc: 2,
                base_seq: told.base_seq,
                feedback_count: told.feedback_count,
            };
            let mut bytes = [0; 2_000];
            let mut writer = RtcpWriter::new(&mut bytes);
            assert_eq!(writer.transport_cc(&head, &arrivals), arrivals.len());
            if self.loses_feedback {
                continue;
            }
            let arrives_us = self.now_us + self.link.path.round_trip_ms * 500;
            self.feedback.push_back((arrives_us, writer.as_bytes().to_vec()));
        }
    }

    /// The best that fits, all cameras in turn from the lowest layer on; upwards with a margin.
    fn allocate(&mut self) {
        let estimate = self.estimator.estimate_bps() as f64;
        let before: Vec<Option<usize>> = self.cameras.iter().map(|camera| camera.layer).collect();
        let mut layers: Vec<Option<usize>> = vec![None; before.len()];
        let mut used = AUDIO_BPS;
        let mut grew = true;
        while grew {
            grew = false;
            for (n, camera) in self.cameras.iter().enumerate() {
                let next = layers[n].map_or(0, |layer| layer + 1);
                if next > camera.top {
                    continue;
                }
                let now = layers[n].map_or(0.0, |layer| LAYERS[layer].0);
                let more = LAYERS[next].0 - now;
                let margin = if before[n] < Some(next) { 1.08 } else { 1.0 };
                if (used + more) * margin <= estimate {
                    layers[n] = Some(next);
                    used += more;
                    grew = true;
                }
            }
        }
        for (camera, layer) in self.cameras.iter_mut().zip(layers) {
            if camera.layer == layer {
                continue;
            }
            let size = |layer: Option<usize>| layer.map(|layer| layer / 3);
            camera.needs_key_frame |= size(layer) != size(camera.layer);
            camera.layer = layer;
            self.changes += 1;
        }
    }

    fn make_frames(&mut self) {
        for camera in &mut self.cameras {
            let Some((bps, rate)) = camera.layer.map(|layer| LAYERS[layer]) else {
                camera.next_frame_us = camera.next_frame_us.max(self.now_us);
                continue;
            };
            if camera.next_frame_us > self.now_us {
                continue;
            }
            camera.next_frame_us = self.now_us + 1_000_000 / rate;
            let usual = bps / 8.0 / rate as f64 * self.rng.random_range(0.75..1.25);
            let bytes = if std::mem::take(&mut camera.needs_key_frame) {
                let (full_bps, full_rate) = LAYERS[camera.layer.unwrap() / 3 * 3 + 2];
                let bytes = KEY_FRAME * full_bps / 8.0 / full_rate as f64;
                camera.owed_bytes = (bytes - usual).max(0.0);
                bytes
            } else if camera.owed_bytes > 0.0 {
                camera.owed_bytes -= (1.0 - AFTER_KEY_FRAME) * usual;
                AFTER_KEY_FRAME * usual
            } else {
                usual
            };
            camera.unsent_bytes += usize::try_from(super::super::whole(bytes)).unwrap();
        }
    }

    fn send_trains(&mut self) {
        for n in 0..self.cameras.len() {
            let camera = &mut self.cameras[n];
            let bps = camera.layer.map_or(0.0, |layer| LAYERS[layer].0);
            let most = PACE * bps * TRAIN_EVERY_US as f64 / 8e6;
            camera.paced_bytes = (camera.paced_bytes + most).min(most.max(PACKET_BYTES as f64));
            while self.cameras[n].unsent_bytes > 0 && self.cameras[n].paced_bytes > 0.0 {
                let camera = &mut self.cameras[n];
                let bytes = camera.unsent_bytes.min(PACKET_BYTES);
                camera.unsent_bytes -= bytes;
                camera.paced_bytes -= bytes as f64;
                self.send(bytes, None);
            }
            if self.cameras[n].layer.is_none() {
                self.cameras[n].unsent_bytes = 0;
            }
        }
    }

    fn send_probes(&mut self) {
        let now = self.now();
        loop {
            let probe = self.estimator.poll_probe(now);
            self.keep(Input::PollProbe);
            let Some(probe) = probe else { break };
            let mut left = probe.bytes;
            while left > 0 {
                let bytes = PADDING_BYTES.min(left).max(60);
                left = left.saturating_sub(bytes);
                self.record.padding_bytes += bytes;
                self.send(bytes, Some(probe.cluster));
            }
        }
    }

    fn send(&mut self, bytes: usize, probe: Option<ProbeCluster>) {
        let now = self.now();
        self.estimator.note_sent(now, self.seq, bytes, probe);
        self.keep(Input::Sent(self.seq, bytes, probe));
        let passage = self.link.send(self.now_us, bytes);
        self.record.sent += 1;
        self.record.bytes += bytes;
        self.record.queued_us.push(passage.queued_us);
        match passage.arrival_us {
            Some(at_us) => {
                self.in_flight.insert((at_us, self.seq), ());
            }
            None => self.record.lost += 1,
        }
        self.seq = self.seq.wrapping_add(1);
    }
}
