//! One incoming RTP stream: an encoding of a producer, with the packets it brought lately.
//!
//! Owned by the engine, on the shard's thread. Invariants: the ring holds plaintext in the room's
//! payload types; what is in it was authenticated, was not seen before, and belongs to the SSRC that
//! the stream has now (a sender that takes another SSRC begins anew, and so do its consumers).
//! Who gets the packets is the router's and the consumers' business.

use std::time::{Duration, Instant};

use crate::engine::ProducerKey;
use crate::engine::codec::dependency_descriptor::TemplateStructure;
use crate::engine::codec::red;
use crate::engine::codec_table::CodecTable;
use crate::engine::equalise::{RUN_MAX, equalise};
use crate::engine::incoming_rate::RateMeter;
use crate::engine::keyframe::KeyFrameThrottle;
use crate::engine::layer::{Activity, Candidate};
use crate::engine::nack::NackGenerator;
use crate::engine::packet::PacketMeta;
use crate::engine::producer::Source;
use crate::engine::reception::Reception;
use crate::engine::relay::{MirroredStream, Tap};
use crate::engine::ring::{PacketIndex, PacketRing};
use crate::engine::select::{LayerRates, StreamLayers};
use crate::engine::slow_rate::SlowMeter;
use crate::engine::source_clock::StreamClock;
use crate::engine::tally::IncomingTally;
use crate::engine::voice::VoiceMeter;
use crate::limits::{
    AUDIO_RING_SLOTS_MAX, KEY_FRAME_AGE_MAX, KEY_FRAME_LOOKBACK, SEGMENTS_PER_TRAIN_MAX,
    STREAM_RESTART_GAP, VIDEO_RING_SLOTS_MAX,
};
use crate::ortc::types::MediaKind;

/// A stream.
#[derive(Debug)]
pub struct Stream {
    /// Whose it is.
    pub producer: ProducerKey,
    /// Where it arrives.
    pub source: Source<MirroredStream>,
    /// Which of the producer's encodings, 0 is the lowest.
    pub encoding: usize,
    /// Its SSRC, once known.
    pub ssrc: Option<u32>,
    /// The producer's payload types.
    pub codecs: CodecTable,
    /// Hz of the codec in use.
    pub clock_rate: u32,
    /// What it brought.
    pub ring: PacketRing<PacketMeta>,
    /// Added to sequence numbers, so that they never fall when the sender takes another SSRC; a
    /// multiple of 2^16.
    pub seq_base: u64,
    /// The highest extended sequence number, base included.
    pub highest: Option<u64>,
    /// Lost packets to ask for; `None` where that was not negotiated.
    pub nack: Option<NackGenerator>,
    /// Key frames to ask for.
    pub key_frames: KeyFrameThrottle,
    /// Statistics for receiver reports.
    pub reception: Reception,
    /// NTP time of its timestamps.
    pub clock: StreamClock,
    /// Whether it is arriving.
    pub activity: Activity,
    /// bits/s, headers included.
    pub rate: RateMeter,
    /// The same where few pictures come.
    pub slow_rate: SlowMeter,
    /// The layers inside it.
    pub layers: StreamLayers,
    /// What is counted for statistics.
    pub tally: IncomingTally,
    /// Templates of the dependency descriptor, once one came.
    pub templates: Option<Box<TemplateStructure>>,
    /// Whether its redundant packets can be looked into.
    pub red: red::Sight,
    /// How loud it is; only of sound, and only where a client sends it.
    pub voice: Option<VoiceMeter>,
    /// Its producer is paused: packets are opened (the rollover counter goes on) and let go.
    pub paused: bool,
    /// Among the streams that brought something in this turn.
    pub dirty: bool,
    /// Nobody begins with a packet before this one: between those and what follows is a hole.
    pub floor: PacketIndex,
    /// The shards it is relayed to.
    pub taps: Vec<Tap>,
    /// Among the streams that have something for other shards.
    pub relay_due: bool,
    /// The first packet that may still be padded: nobody has sent it.
    pub unsent: PacketIndex,
}

/// What a stream is made of.
#[derive(Debug)]
pub struct StreamSetup<'a> {
    /// When it is made.
    pub now: Instant,
    /// Whose it is.
    pub producer: ProducerKey,
    /// Where it arrives.
    pub source: Source<MirroredStream>,
    /// Which encoding.
    pub encoding: usize,
    /// The producer's payload types.
    pub codecs: &'a CodecTable,
    /// Audio or video.
    pub kind: MediaKind,
    /// The encoding has discontinuous transmission.
    pub dtx: bool,
    /// Least time between two key-frame requests.
    pub key_frame_request_delay: Duration,
    /// Starts paused.
    pub paused: bool,
}

impl Stream {
    /// A stream that brought nothing yet; it costs no slot.
    #[must_use]
    pub fn new(setup: StreamSetup<'_>) -> Self {
        let first = setup.codecs.first_media();
        let clock_rate = first.map_or(90_000, |codec| codec.clock_rate);
        // What is missing in a mirror the origin asks for.
        let mirrored = setup.source.relayed().is_some();
        let nack = first.is_some_and(|codec| codec.nack && !mirrored).then(NackGenerator::new);
        let slots = match setup.kind {
            MediaKind::Audio => AUDIO_RING_SLOTS_MAX,
            MediaKind::Video => VIDEO_RING_SLOTS_MAX,
        };
        Self {
            producer: setup.producer,
            source: setup.source,
            encoding: setup.encoding,
            ssrc: None,
            codecs: setup.codecs.clone(),
            clock_rate,
            ring: PacketRing::new(slots),
            seq_base: 0,
            highest: None,
            nack,
            key_frames: KeyFrameThrottle::new(setup.key_frame_request_delay),
            reception: Reception::new(clock_rate),
            clock: StreamClock::new(clock_rate),
            activity: if mirrored {
                Activity::mirrored(setup.dtx)
            } else {
                Activity::new(setup.dtx)
            },
            rate: RateMeter::new(setup.now),
            slow_rate: SlowMeter::default(),
            layers: StreamLayers::default(),
            tally: IncomingTally::default(),
            templates: None,
            red: red::Sight::default(),
            voice: (setup.kind == MediaKind::Audio && !mirrored).then(VoiceMeter::default),
            paused: setup.paused,
            dirty: false,
            floor: PacketIndex::default(),
            taps: Vec::new(),
            relay_due: false,
            unsent: PacketIndex::default(),
        }
    }

    /// Takes the SSRC of its first packet, or another one: then what was known of the old is void.
    /// True when it is another one.
    pub fn adopt(&mut self, ssrc: u32) -> bool {
        let begins_anew = self.ssrc.is_some_and(|old| old != ssrc);
        if begins_anew {
            // The lowest 16 bits stay those of the wire: repairs and reports are found by them.
            self.seq_base =
                self.highest.map_or(0, |highest| (highest + STREAM_RESTART_GAP) & !0xffff);
            self.nack = self.nack.as_ref().map(|_| NackGenerator::new());
            self.reception = Reception::new(self.clock_rate);
            self.clock = StreamClock::new(self.clock_rate);
            self.activity.reset();
            self.templates = None;
            self.red = red::Sight::default();
            self.layers.reset();
            self.slow_rate.reset();
            // No consumer may begin anew with a key frame of the old one.
            self.ring.clear();
        }
        self.ssrc = Some(ssrc);
        begins_anew
    }

    /// Makes the packets that came since the last call equal in size, where that makes trains of
    /// them. To be called before any consumer sends them.
    pub fn equalise(&mut self) {
        let head = self.ring.head();
        let mut at = self.unsent.max(self.ring.oldest());
        self.unsent = head;
        // Most batches bring one packet of a stream.
        while at.next() < head {
            let (mut sizes, mut padding) = ([0; RUN_MAX], [0; RUN_MAX]);
            let indices = (at.number()..head.number()).take(RUN_MAX).map(PacketIndex::new);
            let run = indices.clone().count();
            for (size, index) in sizes.iter_mut().zip(indices.clone()) {
                *size = self
                    .ring
                    .get(index)
                    .map_or(0, |(meta, payload)| payload.len() + meta.extensions.carried_bytes());
            }
            let sizes = sizes.get(..run).unwrap_or_default();
            equalise(sizes, SEGMENTS_PER_TRAIN_MAX, &mut padding);
            for (index, padding) in indices.zip(padding).filter(|(_, padding)| *padding > 0) {
                self.ring.pad(index, padding);
            }
            at = PacketIndex::new(at.number() + run as u64);
        }
    }

    /// The extended number that a 16-bit one of this stream means, the nearest to the highest.
    #[must_use]
    pub fn extend(&self, seq: u16) -> Option<u64> {
        let highest = self.highest?;
        let ahead = crate::engine::rtp::seq_diff(seq, crate::engine::sent::low_16(highest));
        highest.checked_add_signed(i64::from(ahead)).filter(|seq| *seq >= self.seq_base)
    }

    /// The first packet of the newest key frame, if it arrived within [`KEY_FRAME_AGE_MAX`].
    #[must_use]
    pub fn recent_key_frame(&self, now: Instant) -> Option<PacketIndex> {
        let head = self.ring.head().number();
        let oldest = self.oldest().number().max(head.saturating_sub(KEY_FRAME_LOOKBACK));
        let mut found = None;
        for index in (oldest..head).rev().map(PacketIndex::new) {
            let arrival = self.ring.arrival(index)?;
            if now.saturating_duration_since(arrival) > KEY_FRAME_AGE_MAX {
                break;
            }
            let (meta, _) = self.ring.get(index)?;
            match found {
                None if meta.info.key_frame => found = Some((index, meta.timestamp)),
                // All packets of one key frame may say so: its first one is wanted.
                Some((_, timestamp)) if meta.info.key_frame && meta.timestamp == timestamp => {
                    found = Some((index, timestamp));
                }
                Some(_) if !meta.info.key_frame => break,
                _ => {}
            }
        }
        found.map(|(index, _)| index)
    }

    /// Where to begin in the ring so that no packet of the key frame beginning with `seq`, found at
    /// `found`, is missed: packets behind its first one may have arrived before it, and before it
    /// was waited for.
    #[must_use]
    pub fn first_of_key_frame(&self, found: PacketIndex, seq: u64) -> PacketIndex {
        let lookback = PacketIndex::new(found.number().saturating_sub(KEY_FRAME_LOOKBACK));
        let mut at = lookback.max(self.oldest());
        while at < found {
            if self.ring.get(at).is_some_and(|(meta, _)| meta.seq >= seq) {
                return at;
            }
            at = at.next();
        }
        found
    }

    /// The oldest packet with which somebody may begin.
    #[must_use]
    pub fn oldest(&self) -> PacketIndex {
        self.ring.oldest().max(self.floor)
    }

    /// bits/s of each of its layers; one layer where it has none inside. A mirror's as its origin
    /// tells.
    #[must_use]
    pub fn layer_rates(&self, now: Instant) -> LayerRates {
        let slow = self.slow_rate.bitrate_bps(now).filter(|_| self.source.relayed().is_none());
        let layered = match slow {
            Some(bps) => self.layers.rates_of(bps),
            None => self.layers.rates(now),
        };
        layered.unwrap_or_else(|| LayerRates::single(self.price_bps(now)))
    }

    /// bits/s that have to be reckoned with: of the last second, or, where that brings few pictures,
    /// of the last ones.
    #[must_use]
    pub fn price_bps(&self, now: Instant) -> u64 {
        self.slow_rate.bitrate_bps(now).unwrap_or_else(|| self.rate.bitrate_bps(now))
    }

    /// True while it brings pictures, and has for long enough since it last did not.
    #[must_use]
    pub fn can_be_priced(&self, now: Instant) -> bool {
        self.activity.is_alive(now) && !self.activity.resumes(now)
    }

    /// What a consumer's choice among streams has to know of it.
    #[must_use]
    pub fn candidate(&self) -> Candidate {
        let has_sender_report = self.clock.point().is_some();
        Candidate { activity: self.activity, has_sender_report }
    }

    /// When it next has something to ask its sender.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let nack = self.nack.as_ref().and_then(NackGenerator::next_deadline);
        [nack, self.key_frames.next_deadline()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::codec::PayloadInfo;
    use crate::engine::ingress::push_copy;
    use crate::engine::{TransportKey, test_instant};

    #[test]
    fn nobody_begins_before_a_hole() {
        let now = test_instant();
        let mut stream = Stream::new(StreamSetup {
            now,
            producer: ProducerKey::default(),
            source: Source::Local(TransportKey::default()),
            encoding: 0,
            codecs: &CodecTable::default(),
            kind: MediaKind::Video,
            dtx: false,
            key_frame_request_delay: Duration::ZERO,
            paused: false,
        });
        for (seq, key_frame) in [(10, true), (11, false), (14, false), (13, false), (12, true)] {
            let info = PayloadInfo { key_frame, ..PayloadInfo::default() };
            let meta = PacketMeta { seq, info, ..PacketMeta::default() };
            push_copy(&mut stream, meta, now, &[]).unwrap();
        }
        let at = PacketIndex::new;
        // (floor, the newest key frame, where the one with number 12 begins)
        for (floor, recent, first) in
            [(0, Some(4), 2), (3, Some(4), 3), (4, Some(4), 4), (5, None, 4)]
        {
            stream.floor = at(floor);
            assert_eq!(stream.recent_key_frame(now), recent.map(at), "{floor}");
            assert_eq!(stream.first_of_key_frame(at(4), 12), at(first), "{floor}");
        }
        stream.floor = at(0);
        let later = now + KEY_FRAME_AGE_MAX + Duration::from_millis(1);
        assert_eq!(stream.recent_key_frame(later), None);
    }
}
