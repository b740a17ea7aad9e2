//! Synthetic media: packets that look like a codec's to whoever reads their descriptors, and are
//! told apart by the bytes behind them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringcast::ortc::types::MediaKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Opus,
    Vp8,
    Vp9,
    /// VP8 with three temporal layers.
    Vp8T3,
    /// VP9 with three spatial layers in one stream.
    Vp9Svc,
    /// VP9 with three spatial and three temporal layers (`L3T3`).
    Vp9L3T3,
    /// The same, where spatial layers refer to each other in key pictures only (`L3T3_KEY`).
    Vp9L3T3Key,
    H264,
    /// Its layers are an encoder's.
    Av1,
}

impl Codec {
    pub(crate) fn kind(self) -> MediaKind {
        if self == Self::Opus { MediaKind::Audio } else { MediaKind::Video }
    }

    /// Its scalability mode, where it has layers by itself.
    pub(crate) fn mode(self) -> Option<&'static str> {
        match self {
            Self::Vp8T3 => Some("L1T3"),
            Self::Vp9Svc => Some("L3T1"),
            Self::Vp9L3T3 => Some("L3T3"),
            Self::Vp9L3T3Key => Some("L3T3_KEY"),
            _ => None,
        }
    }

    pub(crate) fn clock_rate(self) -> u32 {
        if self == Self::Opus { 48_000 } else { 90_000 }
    }
}

/// One packet as it was given to the client.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) seq: u64,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) payload: Arc<[u8]>,
    /// A key frame begins with it.
    pub(crate) key: bool,
    pub(crate) at: Instant,
    /// Its dependency descriptor; empty without one.
    pub(crate) descriptor: Vec<u8>,
}

/// What of a payload is the same for whoever receives it: behind the longest descriptor, whose
/// picture numbers go on over a change of the stream.
pub(crate) fn picture_of(payload: &[u8]) -> &[u8] {
    payload.get(5..).unwrap_or_default()
}

/// What one RTP stream of a publisher is.
#[derive(Debug, Clone)]
pub(crate) struct SourceSetup {
    pub(crate) codec: Codec,
    pub(crate) payload_type: u8,
    pub(crate) ssrc: u32,
    pub(crate) mid: String,
    pub(crate) rid: Option<String>,
    pub(crate) first_seq: u64,
}

/// Makes the payloads of pictures whose sizes follow a rate.
pub(crate) trait Encode: std::fmt::Debug {
    /// Between two pictures.
    fn interval(&self) -> Duration;

    /// The payloads of the next picture, in order; the marker goes on the last.
    fn picture(&mut self, key: bool) -> Vec<Vec<u8>>;

    /// The dependency descriptors of the packets of that picture, where they have some.
    fn take_descriptors(&mut self) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

/// A camera or microphone: one RTP stream.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) setup: SourceSetup,
    /// Makes its pictures, instead of packets of one size that are all kept in `sent`.
    pub(crate) encoder: Option<Box<dyn Encode>>,
    /// Between frames.
    pub(crate) interval: Duration,
    pub(crate) packets_per_frame: usize,
    pub(crate) packets_per_key_frame: usize,
    pub(crate) payload_bytes: usize,
    /// `None` while it is off.
    pub(crate) next_at: Option<Instant>,
    /// The next frame is to be a key frame.
    pub(crate) wants_key: bool,
    /// So many key-frame requests are not heard.
    pub(crate) deaf_for: usize,
    /// A header extension of a raw client's packets: id and value.
    pub(crate) extension: Option<(u8, Vec<u8>)>,
    /// Everything given to the client.
    pub(crate) sent: Vec<Packet>,
    pub(crate) next_seq: u64,
    timestamp: u32,
    frames: u32,
    /// Pictures since the last key frame.
    since_key: usize,
    tl0: u8,
    /// First picture of an encoder, and the clock then.
    began: Option<(Instant, u32)>,
    reported: Option<Instant>,
}

/// Temporal layers of four pictures; the first of the highest refers to the lowest only, the other
/// to both.
pub(crate) const TEMPORAL_PATTERN: [u8; 4] = [0, 2, 1, 2];

impl Source {
    pub(crate) fn new(setup: SourceSetup) -> Self {
        let audio = setup.codec == Codec::Opus;
        Self {
            interval: Duration::from_millis(if audio { 20 } else { 40 }),
            packets_per_frame: if audio { 1 } else { 3 },
            packets_per_key_frame: if audio { 1 } else { 6 },
            payload_bytes: if audio { 80 } else { 600 },
            next_at: None,
            wants_key: true,
            deaf_for: 0,
            extension: None,
            sent: Vec::new(),
            next_seq: setup.first_seq,
            timestamp: setup.ssrc.wrapping_mul(77_777),
            frames: 0,
            since_key: 0,
            tl0: 0,
            began: None,
            reported: None,
            setup,
            encoder: None,
        }
    }

    /// The clock of a raw client's camera is told once a second, with a picture.
    pub(crate) fn is_report_due(&mut self, now: Instant) -> bool {
        let is_due = self.reported.is_none_or(|at| now >= at + Duration::from_secs(1));
        let is_due = is_due && (self.encoder.is_some() || self.extension.is_some());
        self.reported = if is_due { Some(now) } else { self.reported };
        is_due
    }

    /// What the clock of its media shows at the picture that was taken last.
    pub(crate) fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// A key-frame request came.
    pub(crate) fn hear_request(&mut self) {
        match self.deaf_for.checked_sub(1) {
            Some(rest) => self.deaf_for = rest,
            None => self.wants_key = true,
        }
    }

    /// Takes the picture that is due at `now`.
    pub(crate) fn take_frame(&mut self, now: Instant) -> Vec<Packet> {
        if let Some(encoder) = self.encoder.take() {
            return self.take_encoded(now, encoder);
        }
        let key = std::mem::take(&mut self.wants_key);
        self.since_key = if key { 0 } else { self.since_key + 1 };
        self.tl0 = self.tl0.wrapping_add(u8::from(self.temporal() == 0));
        let count = if key { self.packets_per_key_frame } else { self.packets_per_frame };
        let mut packets = Vec::new();
        for index in 0..count {
            let mut payload = self.head(key, index, count);
            let begins_key = key && index == 0 && self.setup.codec.kind() == MediaKind::Video;
            payload.extend_from_slice(&self.setup.ssrc.to_be_bytes());
            payload.extend_from_slice(&self.next_seq.to_be_bytes());
            while payload.len() < self.payload_bytes {
                payload.push(u8::try_from(payload.len() % 251).unwrap());
            }
            packets.push(Packet {
                seq: self.next_seq,
                timestamp: self.timestamp,
                marker: index + 1 == count,
                payload: payload.into(),
                key: begins_key,
                at: now,
                descriptor: Vec::new(),
            });
            self.next_seq += 1;
        }
        self.frames += 1;
        let ticks = self.interval.as_micros() * u128::from(self.setup.codec.clock_rate());
        self.timestamp = self.timestamp.wrapping_add(u32::try_from(ticks / 1_000_000).unwrap());
        self.next_at = Some(now + self.interval);
        self.sent.extend(packets.iter().cloned());
        packets
    }

    /// Temporal layer of the picture being taken, where it has one.
    fn temporal(&self) -> u8 {
        TEMPORAL_PATTERN[self.since_key % TEMPORAL_PATTERN.len()]
    }

    fn take_encoded(&mut self, now: Instant, mut encoder: Box<dyn Encode>) -> Vec<Packet> {
        let (since, clock) = *self.began.get_or_insert((now, self.timestamp));
        let ticks = (now - since).as_micros() * u128::from(self.setup.codec.clock_rate());
        self.timestamp = clock.wrapping_add(u32::try_from(ticks / 1_000_000).unwrap());
        let key = std::mem::take(&mut self.wants_key);
        let payloads = encoder.picture(key);
        let count = payloads.len();
        let mut descriptors = encoder.take_descriptors().into_iter();
        let packets = (0..count).zip(payloads).map(|(index, payload)| Packet {
            seq: self.next_seq + index as u64,
            timestamp: self.timestamp,
            marker: index + 1 == count,
            payload: payload.into(),
            key: key && index == 0,
            at: now,
            descriptor: descriptors.next().unwrap_or_default(),
        });
        let packets = packets.collect();
        self.next_seq += count as u64;
        self.frames += 1;
        let next = since + encoder.interval() * self.frames;
        // It was off in between.
        self.next_at = Some(if next <= now { now + encoder.interval() } else { next });
        self.encoder = Some(encoder);
        packets
    }

    /// What the codec puts before the bytes of the picture.
    fn head(&self, key: bool, index: usize, count: usize) -> Vec<u8> {
        let [.., high, low] = self.frames.to_be_bytes();
        let first = index == 0;
        match self.setup.codec {
            Codec::Opus => vec![0x78],
            Codec::Vp8 => {
                let start = if first { 0x90 } else { 0x80 };
                let frame = if key && first { 0x10 } else { 0x11 };
                vec![start, 0x80, high | 0x80, low, frame]
            }
            Codec::Vp9 => {
                let mut flags = 0x80;
                flags |= if key { 0 } else { 0x40 };
                flags |= if first { 0x08 } else { 0 };
                flags |= if index + 1 == count { 0x04 } else { 0 };
                vec![flags, high | 0x80, low]
            }
            // I, L and T; upper layers refer to the lowest only but for every second of the highest.
            Codec::Vp8T3 => {
                let start = if first { 0x90 } else { 0x80 };
                let frame = if key && first { 0x10 } else { 0x11 };
                let temporal = self.temporal();
                let sync = u8::from(temporal > 0 && self.since_key % 4 != 3) << 5;
                vec![start, 0xe0, high | 0x80, low, self.tl0, temporal << 6 | sync, frame]
            }
            Codec::Vp9L3T3 | Codec::Vp9L3T3Key => self.svc_head(key, index, count / 3),
            // A picture of three layers, `count / 3` packets each.
            Codec::Vp9Svc => {
                let each = count / 3;
                let layer = u8::try_from(index / each).unwrap();
                let mut flags = 0xa0;
                flags |= if key { 0 } else { 0x40 };
                flags |= if index.is_multiple_of(each) { 0x08 } else { 0 };
                flags |= if index % each + 1 == each { 0x04 } else { 0 };
                let depends = u8::from(layer > 0);
                vec![flags, high | 0x80, low, layer << 1 | depends, low]
            }
            // One element in each packet, which may continue that of the one before.
            Codec::Av1 => {
                let continues = u8::from(!first) << 7 | u8::from(index + 1 < count) << 6;
                vec![continues | 0x10 | u8::from(key && first) << 3, 0x32, 0, 0, 0]
            }
            // Parameter sets in one aggregate, then a fragmented slice.
            Codec::H264 if key && first => {
                let sets = [24, 0, 4, 0x67, 0x42, 0xe0, 0x1f, 0, 2, 0x68, 0xce];
                let mut aggregate = sets.to_vec();
                // The rest of the packet is a third unit (filler data).
                let rest = self.payload_bytes.saturating_sub(sets.len() + 2);
                aggregate.extend(u16::try_from(rest).unwrap().to_be_bytes());
                aggregate.push(12);
                aggregate
            }
            Codec::H264 => {
                let slice = if key { 5 } else { 1 };
                let begins = if index == usize::from(key) { 0x80 } else { 0 };
                let ends = if index + 1 == count { 0x40 } else { 0 };
                vec![0x7c, begins | ends | slice, 0x88]
            }
        }
    }

    /// Non-flexible mode; a picture of three spatial layers, `each` packets a layer.
    fn svc_head(&self, key: bool, index: usize, each: usize) -> Vec<u8> {
        let [.., high, low] = self.frames.to_be_bytes();
        let layer = u8::try_from(index / each).unwrap();
        let linked = key || self.setup.codec == Codec::Vp9L3T3;
        let mut flags = 0xa0;
        flags |= if key { 0 } else { 0x40 };
        flags |= if index.is_multiple_of(each) { 0x08 } else { 0 };
        flags |= if index % each + 1 == each { 0x04 } else { 0 };
        flags |= if layer < 2 && linked { 0 } else { 0x01 };
        let temporal = self.temporal();
        let switches = u8::from(temporal > 0) << 4;
        let depends = u8::from(layer > 0 && linked);
        let indices = temporal << 5 | switches | layer << 1 | depends;
        vec![flags, high | 0x80, low, indices, self.tl0]
    }
}
