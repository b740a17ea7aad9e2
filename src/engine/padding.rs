//! What is sent for no other reason than to see whether more would pass: probes. And payloads with
//! the padding that makes trains, or without it.
//!
//! Called by `egress` behind a transport's media, on the shard's thread. A probe is best made of
//! packets that were sent a moment ago, repeated over RTX: one that was lost is repaired by that
//! (libwebrtc). Where there are none yet, packets of padding only go out on the RTX stream. Media
//! streams are never padded: their numbers stay those of media. A receiver without RTX is therefore
//! not probed; its estimate grows with what it is sent.
//!
//! Nothing is allocated.

use slotmap::SlotMap;

use crate::engine::bwe::Probe;
use crate::engine::consumer::Consumer;
use crate::engine::egress::{Stop, Way};
use crate::engine::packet::PacketMeta;
use crate::engine::ring::Padded;
use crate::engine::srtp::RtpBody;
use crate::engine::stream::Stream;
use crate::engine::{ConsumerKey, StreamKey};
use crate::limits::{PADDING_LOOKBACK, PADDING_PAYLOAD_MIN};

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
    /// Its RTX stream may carry what nobody asked for: the receiver knows the stream already. Also
    /// while it is stopped: when all are, only a probe shows that there is room again.
    fn carries_padding(&self) -> bool {
        self.numbered && self.packets > 0 && self.rtx.is_some()
    }

    /// Sends one packet of about `wanted` bytes or less over RTX; its bytes, 0 if there was none.
    fn pad(
        &mut self,
        streams: &mut SlotMap<StreamKey, Stream>,
        wanted: usize,
        way: &mut Way<'_>,
    ) -> usize {
        let turn = self.rtx.as_ref().map_or(0, |rtx| rtx.next);
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
