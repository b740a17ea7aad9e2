//! Packets that leave again: what a receiver asked for, over RTX, or as it was where there is none.
//!
//! Called by `egress` and `padding` when a transport's turn to send has come. Invariant: one number
//! of an SSRC never goes out with other bytes than before. Nothing is allocated.

use slotmap::SlotMap;

use crate::engine::StreamKey;
use crate::engine::consumer::Consumer;
use crate::engine::egress::{Stop, Way};
use crate::engine::packet::PacketMeta;
use crate::engine::ring::Padded;
use crate::engine::sent::{Sent, low_16};
use crate::engine::srtp::RtpBody;
use crate::engine::stream::Stream;
use crate::limits::{REPAIR_AGE_AUDIO_MAX, REPAIR_AGE_VIDEO_MAX};
use crate::ortc::types::MediaKind;

impl Consumer {
    /// Sends again what the receiver asked for.
    pub(super) fn repair(
        &mut self,
        streams: &mut SlotMap<StreamKey, Stream>,
        way: &mut Way<'_>,
    ) -> Result<(), Stop> {
        let age_max = match self.kind {
            MediaKind::Audio => REPAIR_AGE_AUDIO_MAX,
            MediaKind::Video => REPAIR_AGE_VIDEO_MAX,
        };
        while let Some(asked) = self.repairs.front().copied() {
            if way.is_paced && self.holds_repair(way) {
                return Ok(());
            }
            way.has_room()?;
            self.repairs.pop_front();
            let Some(sent) = self.sent.find(asked) else {
                self.repeat_fill(asked, way);
                continue;
            };
            if self.is_left(&sent) || !way.may_repair(self.kind) {
                continue;
            }
            let ring = streams.get(sent.stream).map(|stream| &stream.ring);
            let Some((arrival, slots)) =
                ring.and_then(|r| Some((r.arrival(sent.index)?, r.slots())))
            else {
                way.counters.retransmit_missed += 1;
                continue;
            };
            if way.now.saturating_duration_since(arrival) > age_max {
                continue;
            }
            let repeat = self.sent.take_repeat(sent.seq, way.now, self.round_trip, slots);
            let Some(repeat) = repeat else { continue };
            if let Some(octets) = self.repeat(&sent, streams, way) {
                way.counters.retransmitted += 1;
                way.note_repair(self.kind, octets);
                self.tally.count_repair(way.packet, repeat);
            }
        }
        Ok(())
    }

    /// True for a packet of a stream that was left since, or is being left for a smaller one: its
    /// receiver goes on from the key frame of the other one, or from the next if it is sent nothing
    /// for want of bandwidth. Over a full link the two would only be in each other's way.
    fn is_left(&self, sent: &Sent) -> bool {
        let is_elsewhere = self.playing.is_some_and(|it| it.stream != sent.stream);
        let goes_down = self.goes_down && self.awaiting.is_some_and(|it| it.stream != sent.stream);
        let is_left = is_elsewhere || goes_down || self.share.stopped.is_some();
        self.kind == MediaKind::Video && is_left
    }

    /// Sends a packet once more; the bytes of its payload, `None` when it cannot be.
    pub(super) fn repeat(
        &mut self,
        sent: &Sent,
        streams: &mut SlotMap<StreamKey, Stream>,
        way: &mut Way<'_>,
    ) -> Option<usize> {
        let ring = &mut streams.get_mut(sent.stream)?.ring;
        let (meta, payload) = ring.padded(sent.index)?;
        let mut send = |meta: &_, payload: Padded<'_>| {
            let done = self.send_repair(sent, meta, payload, way);
            done.then(|| payload.unpadded().len())
        };
        match sent.edit.numbers(&meta.info) {
            None => send(meta, payload),
            Some(numbers) => {
                let rewrite = |head: &mut [u8]| numbers.write(head);
                ring.rewritten(sent.index, rewrite, send).flatten()
            }
        }
    }

    fn send_repair(
        &mut self,
        sent: &Sent,
        meta: &PacketMeta,
        payload: Padded<'_>,
        way: &mut Way<'_>,
    ) -> bool {
        let Some((codec, payload)) = self.readable(meta, payload) else { return false };
        let timestamp = meta.timestamp.wrapping_add(sent.timestamp_offset);
        match (&mut self.rtx, codec.rtx_payload_type) {
            (Some(rtx), Some(rtx_payload_type)) => {
                let seq = rtx.next;
                rtx.next += 1;
                let original = low_16(sent.seq).to_be_bytes();
                let payload = payload.unpadded();
                let body = RtpBody { prefix: &original, payload, ..RtpBody::default() };
                let mut fields = way.fields(meta, rtx_payload_type, seq, timestamp);
                fields.marker = sent.edit.marker(meta);
                let done = way.seal(&rtx.header, seq, &fields, &body);
                way.count_number(done && self.numbered);
                done
            }
            // Byte for byte what was sent before: another header under the same number would
            // repeat a GCM nonce (RFC 7714 §8.4).
            _ => {
                let Some(looked) = self.sent.verbatim(sent.seq) else { return false };
                let body = payload.body(looked.padded);
                let mut fields = way.fields(meta, codec.sent_as, sent.seq, timestamp);
                fields.marker = sent.edit.marker(meta);
                fields.abs_send_time = looked.abs_send_time;
                fields.transport_cc = looked.transport_seq;
                let done = way.seal(&self.header, sent.seq, &fields, &body);
                if done && way.is_paced {
                    way.note_paced(self.numbered);
                }
                done
            }
        }
    }
}

impl Way<'_> {
    /// Sound is always repaired; pictures as long as that leaves room for what is new.
    pub(super) fn may_repair(&mut self, kind: MediaKind) -> bool {
        let now = self.now;
        kind == MediaKind::Audio || self.outgoing.as_mut().is_none_or(|it| it.may_repair(now))
    }

    fn note_repair(&mut self, kind: MediaKind, bytes: usize) {
        if let Some(outgoing) = self.outgoing.as_mut().filter(|_| kind == MediaKind::Video) {
            outgoing.note_repair(bytes);
        }
    }
}
