//! What is sent for no other reason than to see whether more would pass: probes. And payloads with
//! the padding that makes trains, or without it.
//!
//! Called by `egress` behind a transport's media, on the shard's thread. A probe is best made of
//! packets that were sent a moment ago, repeated over RTX: one that was lost is repaired by that
//! (libwebrtc). Where there are none yet, packets of padding only go out on the RTX stream. For a
//! receiver without RTX they are *fills* in the media stream itself: between two pictures, where
//! nothing is missing that may still come (libwebrtc), and repeated byte for byte when they are asked
//! for, because some decoders wait for every number.
//!
//! Nothing is allocated but, once, the memory of fills.

use std::time::Instant;

use slotmap::SlotMap;

use crate::engine::bwe::Probe;
use crate::engine::consumer::Consumer;
use crate::engine::egress::{Stop, Way};
use crate::engine::packet::PacketMeta;
use crate::engine::ring::{PacketIndex, Padded};
use crate::engine::sent::low_16;
use crate::engine::srtp::RtpBody;
use crate::engine::stream::Stream;
use crate::engine::{ConsumerKey, StreamKey};
use crate::limits::{
    FILLS_REMEMBERED, PADDING_LOOKBACK, PADDING_PAYLOAD_MIN, REPAIR_AGE_VIDEO_MAX,
};
use crate::ortc::types::MediaKind;

/// Sends what the estimator wants to see pass now, on the video streams of a transport in turn. True
/// when it wanted something, and may want more in a moment.
pub(super) fn send_probes(
    carriers: &[ConsumerKey],
    consumers: &mut SlotMap<ConsumerKey, Consumer>,
    streams: &mut SlotMap<StreamKey, Stream>,
    way: &mut Way<'_>,
) -> Result<bool, Stop> {
    let mut probed = false;
    while let Some(probe) = way.poll_probe() {
        way.has_room()?;
        way.probe = Some(probe.cluster);
        let turn = usize::from(*way.transport_seq);
        let carrier = (0..carriers.len())
            .filter_map(|place| carriers.get((turn + place) % carriers.len()))
            .find(|key| consumers.get(**key).is_some_and(Consumer::carries_padding));
        let carrier = carrier.and_then(|key| consumers.get_mut(*key));
        let sent = carrier.map_or(0, |consumer| consumer.pad(streams, probe.bytes, way));
        way.note_probe(sent);
        way.probe = None;
        probed = true;
    }
    Ok(probed)
}

impl Way<'_> {
    fn poll_probe(&mut self) -> Option<Probe> {
        self.outgoing.as_mut()?.poll_probe(self.now)
    }

    fn note_probe(&mut self, bytes: usize) {
        self.counters.probe_bytes += bytes as u64;
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.note_probe(bytes);
        }
    }
}

impl Consumer {
    /// It may carry what nobody asked for: the receiver knows the stream already, or nothing but a
    /// probe can find the bits that the video was stopped for want of.
    fn carries_padding(&self) -> bool {
        let is_fed = self.packets > 0 && self.playing.is_some();
        let is_stopped = self.share.stopped.is_some() && !self.paused;
        self.numbered && self.kind == MediaKind::Video && (is_fed || is_stopped)
    }

    /// Sends one packet of about `wanted` bytes or less; its bytes, 0 if there was none.
    fn pad(
        &mut self,
        streams: &mut SlotMap<StreamKey, Stream>,
        wanted: usize,
        way: &mut Way<'_>,
    ) -> usize {
        let Some(turn) = self.rtx.as_ref().map(|rtx| rtx.next) else {
            return if self.fill(streams, wanted, way) { way.sealed } else { 0 };
        };
        let recent = (0..PADDING_LOOKBACK).find_map(|place| {
            let sent = self.sent.recent((turn + place) % PADDING_LOOKBACK)?;
            let (_, payload) = streams.get(sent.stream)?.ring.get(sent.index)?;
            (PADDING_PAYLOAD_MIN..=wanted).contains(&payload.len()).then_some(sent)
        });
        let done = match recent {
            Some(sent) => self.repeat(&sent, streams, way).is_some(),
            None => self.send_padding(wanted, way),
        };
        if done { way.sealed } else { 0 }
    }

    /// Sends padding only, on the RTX stream.
    fn send_padding(&mut self, wanted: usize, way: &mut Way<'_>) -> bool {
        let payload_type = self.codecs.iter().find_map(|codec| codec.rtx_payload_type);
        let (Some(rtx), Some(payload_type)) = (&mut self.rtx, payload_type) else { return false };
        let seq = rtx.next;
        rtx.next += 1;
        let padding = u8::try_from(wanted).unwrap_or(u8::MAX).max(1);
        let body = RtpBody { padding, ..RtpBody::default() };
        let meta = PacketMeta::default();
        let fields = way.fields(&meta, payload_type, seq, self.time.latest());
        let done = way.seal(&rtx.header, seq, &fields, &body);
        way.count_number(done && self.numbered);
        done
    }
}

/// A padding packet of a media stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fill {
    /// When it first left.
    at: Instant,
    /// The consumer's extended sequence number.
    seq: u64,
    timestamp: u32,
    payload_type: u8,
    padding: u8,
    abs_send_time: u32,
    transport_seq: u16,
}

impl Consumer {
    /// Sends padding only, in the media stream, if a picture has just ended there.
    fn fill(
        &mut self,
        streams: &SlotMap<StreamKey, Stream>,
        wanted: usize,
        way: &mut Way<'_>,
    ) -> bool {
        let is_within = self.playing.is_some_and(|cursor| {
            let before = cursor.next.number().checked_sub(1).map(PacketIndex::new);
            let ring = streams.get(cursor.stream).map(|stream| &stream.ring);
            let last = before.zip(ring).and_then(|(before, ring)| ring.get(before));
            !last.is_some_and(|(meta, _)| meta.marker)
        });
        let Some(codec) = self.codecs.first().filter(|_| !is_within) else { return false };
        let payload_type = codec.sent_as;
        let Some(seq) = self.seq.insert() else { return false };
        let padding = u8::try_from(wanted).unwrap_or(u8::MAX).max(1);
        let timestamp = self.time.latest();
        let meta = PacketMeta::default();
        let fields = way.fields(&meta, payload_type, seq, timestamp);
        let (abs_send_time, transport_seq) = (fields.abs_send_time, fields.transport_cc);
        let at = way.now;
        let fill = Fill { at, seq, timestamp, payload_type, padding, abs_send_time, transport_seq };
        let done = self.send_fill_packet(&fill, way);
        way.count_number(done);
        if done && self.repairable {
            let fills = &mut self.share.fills;
            if fills.len() >= FILLS_REMEMBERED {
                fills.pop_front();
            }
            fills.push_back(fill);
        }
        done
    }

    /// Sends a fill again that the receiver asks for, unless that was done a moment ago.
    pub(super) fn repeat_fill(&mut self, asked: u16, way: &mut Way<'_>) {
        // Later the number that is asked for is perhaps another one, with the same low bits.
        let is_young =
            |fill: &&Fill| way.now.saturating_duration_since(fill.at) <= REPAIR_AGE_VIDEO_MAX;
        let fill = self.share.fills.iter().rev().find(|fill| low_16(fill.seq) == asked);
        let Some(fill) = fill.filter(is_young).copied() else { return };
        if !way.may_repair(self.kind) {
            return;
        }
        let repeat = self.sent.take_repeat(fill.seq, way.now, self.round_trip, FILLS_REMEMBERED);
        if repeat.is_some() && self.send_fill_packet(&fill, way) && way.is_paced {
            way.note_paced(true);
        }
    }

    fn send_fill_packet(&self, fill: &Fill, way: &mut Way<'_>) -> bool {
        let body = RtpBody { padding: fill.padding, ..RtpBody::default() };
        let meta = PacketMeta::default();
        let mut fields = way.fields(&meta, fill.payload_type, fill.seq, fill.timestamp);
        fields.abs_send_time = fill.abs_send_time;
        fields.transport_cc = fill.transport_seq;
        way.seal(&self.header, fill.seq, &fields, &body)
    }
}

impl<'a> Padded<'a> {
    pub(super) fn unpadded(self) -> &'a [u8] {
        let len = self.bytes.len().saturating_sub(usize::from(self.padding));
        self.bytes.get(..len).unwrap_or_default()
    }

    /// What follows the header, with the padding or without it.
    pub(super) fn body(self, padded: bool) -> RtpBody<'a> {
        let padded = padded && self.padding > 0;
        let payload = if padded { self.bytes } else { self.unpadded() };
        RtpBody { payload, padded, ..RtpBody::default() }
    }
}
