//! Datagrams that leave: per transport, all that is due, sealed straight into the lent batch.
//!
//! Called by the shard, through [`poll_transmit`](super::machine::Machine::poll_transmit), after
//! each batch and timeout. Fan-out goes
//! receiver by receiver, so that consecutive packets for one receiver form a train. Nothing is
//! allocated per packet; what finds no room in the batch stays where it is and goes into the next.

use std::time::Instant;

use slotmap::SlotMap;

use crate::engine::bwe::ProbeCluster;
use crate::engine::consumer::{Consumer, Cursor};
use crate::engine::io::{Path, TransmitBatch};
use crate::engine::outgoing::Outgoing;
use crate::engine::packet::PacketMeta;
use crate::engine::padding::send_probes;
use crate::engine::report::{Counters, Discard};
use crate::engine::ring::Padded;
use crate::engine::rtp::{EGRESS_HEADER_BYTES_MAX, EgressFields};
use crate::engine::select::{Edit, LayerTarget};
use crate::engine::sent::{Sent, Verbatim, low_16};
use crate::engine::srtp::{RtpBody, SrtpSealer};
use crate::engine::stream::Stream;
use crate::engine::transport::Transport;
use crate::engine::{Engine, ProducerKey, StreamKey, TimerKey, TransportKey};
use crate::limits::{MEDIA_DATAGRAM_BYTES_MAX, TRANSPORT_SHARE};
use crate::ortc::types::MediaKind;

/// Room asked of the batch for one packet.
const SLOT: usize = MEDIA_DATAGRAM_BYTES_MAX + EGRESS_HEADER_BYTES_MAX;
/// Padding of the packet that fills a number left free: the least that says "padding".
const FILL_PADDING: u8 = 4;

/// Why the work of a transport ends before it is done.
pub(super) enum Stop {
    /// The batch is full; the same work is to be offered again.
    Full,
    /// The transport had its share; it is the others' turn.
    Share,
    /// A slow link is to carry what was sent first; the consumer is held until then.
    Paced,
}

/// What one packet is sealed with.
pub(super) struct Way<'a> {
    pub(super) now: Instant,
    abs_send_time: u32,
    path: Path,
    sealer: &'a SrtpSealer,
    pub(super) transport_seq: &'a mut u16,
    served: &'a mut usize,
    pub(super) counters: &'a mut Counters,
    batch: &'a mut TransmitBatch,
    /// Producers of which a consumer took, or waits for, another stream than before.
    moved: &'a mut Vec<ProducerKey>,
    pub(super) outgoing: Option<&'a mut Outgoing>,
    /// Its link is slow: what leaves is counted, and pictures may have to wait.
    pub(super) is_paced: bool,
    /// What is sent now is sent for a probe.
    pub(super) probe: Option<ProbeCluster>,
    /// Bytes of the packet sealed last.
    pub(super) sealed: usize,
    /// The same before protection.
    pub(super) packet: usize,
}

impl Engine {
    /// Fills `batch` with datagrams that are due; true while more is waiting.
    pub(super) fn fill(&mut self, now: Instant, batch: &mut TransmitBatch) -> bool {
        let more = self.fill_batch(now, batch);
        self.follow_moves();
        more
    }

    /// What consumers went over to, or have to wait for, while they were served: streams that
    /// nobody takes any more are not asked for key frames, others in time, even if they rest.
    fn follow_moves(&mut self) {
        let mut moved = std::mem::take(&mut self.relaying.moved);
        moved.sort_unstable();
        moved.dedup();
        for producer in moved.drain(..) {
            self.note_demand(producer);
            self.cancel_unwanted_key_frames(producer);
            self.arm_streams_of(producer);
        }
        self.relaying.moved = moved;
    }

    fn fill_batch(&mut self, now: Instant, batch: &mut TransmitBatch) -> bool {
        while let Some((path, farewell)) = self.farewells.front() {
            let Some(space) = batch.slot(farewell.len()) else { return true };
            space.copy_from_slice(farewell);
            batch.commit(*path, farewell.len());
            self.farewells.pop_front();
        }
        while !self.due.is_empty() {
            self.warm_next();
            let Some(key) = self.due.pop_front() else { break };
            let filled = self.fill_transport(now, key, batch);
            if matches!(filled, Err(Stop::Full)) {
                self.due.push_front(key);
                return true;
            }
            let Some(transport) = self.transports.get_mut(key) else { continue };
            transport.served = 0;
            if filled.is_ok() {
                transport.due = false;
            } else {
                // Not always the same of its consumers is to be interrupted.
                let interrupted = transport.due_consumers.pop_front();
                transport.due_consumers.extend(interrupted);
                self.due.push_back(key);
            }
        }
        false
    }

    fn fill_transport(
        &mut self,
        now: Instant,
        key: TransportKey,
        batch: &mut TransmitBatch,
    ) -> Result<(), Stop> {
        let Some(transport) = self.transports.get_mut(key) else { return Ok(()) };
        send_connection(transport, batch)?;
        if !transport.can_send() {
            return Ok(());
        }
        let outgoing = transport.outgoing.as_mut();
        let is_paced = outgoing.is_some_and(|it| it.release(now, &mut transport.due_consumers));
        send_rtcp(transport, &mut self.counters, &mut self.discards, batch)?;
        let abs_send_time = self.wall.ntp_at(now).abs_send_time();
        let (Some(srtp), Some(path)) = (&transport.srtp, transport.connection.selected()) else {
            return Ok(());
        };
        let mut way = Way {
            now,
            abs_send_time,
            path,
            sealer: &srtp.sealer,
            transport_seq: &mut transport.transport_seq,
            served: &mut transport.served,
            counters: &mut self.counters,
            batch,
            moved: &mut self.relaying.moved,
            is_paced,
            outgoing: transport.outgoing.as_deref_mut(),
            probe: None,
            sealed: 0,
            packet: 0,
        };
        while let Some(consumer_key) = transport.due_consumers.front().copied() {
            if let Some(consumer) = self.consumers.get_mut(consumer_key) {
                match consumer.serve(&mut self.streams, &mut way) {
                    Err(Stop::Paced) => way.hold(consumer_key),
                    served => served?,
                }
            }
            transport.due_consumers.pop_front();
        }
        let probed =
            send_probes(&transport.consumers, &mut self.consumers, &mut self.streams, &mut way)?;
        if let Some(at) = way.outgoing.as_ref().and_then(|outgoing| outgoing.releases_at()) {
            self.timers.arm(TimerKey::Pace(key), at);
        }
        // Pictures that left for a probe may have used up what it asked for.
        if probed || is_paced {
            self.arm_outgoing(key);
        }
        Ok(())
    }
}

/// STUN answers and DTLS flights.
fn send_connection(transport: &mut Transport, batch: &mut TransmitBatch) -> Result<(), Stop> {
    loop {
        // Room first: what is taken out of the connection must not be lost.
        if batch.slot(SLOT).is_none() {
            return Err(Stop::Full);
        }
        let Some((path, datagram)) = transport.connection.poll_transmit() else { return Ok(()) };
        let space = batch.slot(datagram.len()).ok_or(Stop::Full)?;
        space.copy_from_slice(&datagram);
        batch.commit(path, datagram.len());
    }
}

fn send_rtcp(
    transport: &mut Transport,
    counters: &mut Counters,
    discards: &mut crate::engine::report::DiscardCounts,
    batch: &mut TransmitBatch,
) -> Result<(), Stop> {
    let (Some(srtp), Some(path)) = (&mut transport.srtp, transport.connection.selected()) else {
        return Ok(());
    };
    while let Some(packet) = transport.rtcp.front() {
        let space = batch.slot(SLOT).ok_or(Stop::Full)?;
        match srtp.sealer.seal_rtcp(packet, space) {
            Some(len) => {
                batch.commit(path, len);
                counters.rtcp_out += 1;
                transport.tally.rtcp.1 += len as u64;
            }
            None => discards.add(Discard::TooLarge),
        }
        transport.rtcp.pop();
    }
    Ok(())
}

impl Consumer {
    /// Its turn: sends all that it has to, as far as batch and link allow.
    fn serve(
        &mut self,
        streams: &mut SlotMap<StreamKey, Stream>,
        way: &mut Way<'_>,
    ) -> Result<(), Stop> {
        if std::mem::take(&mut self.hold.is_on) {
            self.go_on(way.now, streams);
        }
        self.repair(streams, way)?;
        if self.shed(way.now, streams, way.counters) {
            way.note_move(self.producer);
        }
        let forwarded = self.forward(streams, way);
        if matches!(forwarded, Err(Stop::Paced)) || (forwarded.is_ok() && !self.repairs.is_empty())
        {
            self.hold.since.get_or_insert(way.now);
            self.hold.is_on = true;
            return Err(Stop::Paced);
        }
        forwarded?;
        self.hold.since = None;
        self.due = false;
        Ok(())
    }

    /// Sends what its streams brought since its last turn.
    fn forward(
        &mut self,
        streams: &mut SlotMap<StreamKey, Stream>,
        way: &mut Way<'_>,
    ) -> Result<(), Stop> {
        loop {
            let forwarded = self.forward_playing(streams, way);
            // What is left of larger pictures would only keep the smaller ones waiting.
            let is_left = || self.goes_over() && self.goes_down;
            if forwarded.is_err() && !(matches!(forwarded, Err(Stop::Paced)) && is_left()) {
                return forwarded;
            }
            if !self.switch(streams, way) {
                return forwarded;
            }
        }
    }

    fn forward_playing(
        &mut self,
        streams: &mut SlotMap<StreamKey, Stream>,
        way: &mut Way<'_>,
    ) -> Result<(), Stop> {
        let Some(mut cursor) = self.playing else { return Ok(()) };
        let Some(stream) = streams.get_mut(cursor.stream) else {
            self.playing = None;
            return Ok(());
        };
        if cursor.next < stream.ring.oldest() {
            // The shard was so late that the ring went round: a decoder needs a new start.
            way.counters.ring_overruns += stream.ring.oldest().number() - cursor.next.number();
            if self.kind == MediaKind::Video {
                way.note_move(self.producer);
                self.await_key_frame(cursor.stream, stream, way.now);
                return Ok(());
            }
            cursor.next = stream.ring.oldest();
            self.playing = Some(cursor);
            self.closes_up = true;
        }
        if self.repeats_verbatim {
            // What the ring no longer has cannot be sent again.
            self.sent.keep_verbatim(stream.ring.slots());
        }
        let wanted = self.wanted();
        let ends = self.goes_over() && self.goes_down;
        while cursor.next < stream.ring.head() {
            if ends && stream.ring.get(cursor.next).is_some_and(|(meta, _)| meta.info.key_frame) {
                // A link that became narrower is not to carry a large key frame before the small one
                // (browsers make them of all encodings at once).
                self.playing = None;
                way.note_move(self.producer);
                return Ok(());
            }
            if way.is_paced && self.is_ahead(cursor, stream, way) {
                return Err(Stop::Paced);
            }
            self.send_next(cursor, stream, wanted, way)?;
            cursor.next = cursor.next.next();
            self.playing = Some(cursor);
        }
        if self.select.take_key_frame_wish() {
            stream.key_frames.request(way.now);
            way.note_move(self.producer);
        }
        Ok(())
    }

    /// Sends the packet at `cursor` if it is among what is wanted.
    fn send_next(
        &mut self,
        cursor: Cursor,
        stream: &mut Stream,
        wanted: LayerTarget,
        way: &mut Way<'_>,
    ) -> Result<(), Stop> {
        // First: a picture is not to be decided upon for a packet that has to wait.
        way.has_room()?;
        let Some((meta, payload)) = stream.ring.padded(cursor.next) else { return Ok(()) };
        let arrival = payload.arrival;
        let verdict = match self.kind {
            MediaKind::Audio => Some(Edit::default()),
            // Padding belongs to no picture.
            MediaKind::Video if payload.unpadded().is_empty() => None,
            MediaKind::Video => self.select.verdict(meta, wanted, &stream.layers),
        };
        let numbers = verdict.and_then(|edit| edit.numbers(&meta.info));
        let sent = match numbers {
            None => self.send(cursor, meta, payload, verdict, way),
            Some(numbers) => {
                let rewrite = |head: &mut [u8]| numbers.write(head);
                let send =
                    |meta: &_, payload: Padded<'_>| self.send(cursor, meta, payload, verdict, way);
                stream.ring.rewritten(cursor.next, rewrite, send).unwrap_or(false)
            }
        };
        if sent && cursor.next >= self.live_from {
            way.batch.note_forwarded(arrival);
        }
        Ok(())
    }

    /// Sends one packet of the stream being played, whose head is rewritten already; false when it
    /// is not to be sent.
    fn send(
        &mut self,
        cursor: Cursor,
        meta: &PacketMeta,
        payload: Padded<'_>,
        verdict: Option<Edit>,
        way: &mut Way<'_>,
    ) -> bool {
        if std::mem::take(&mut self.closes_up) {
            self.seq.sync(meta.seq);
        }
        if self.fresh && self.kind == MediaKind::Audio {
            self.seq.sync(meta.seq);
            // Without a switch before: it can only be accepted.
            let _ = self.time.switch(way.now, meta.timestamp, None, None);
        }
        let readable = self.readable(meta, payload);
        let octets = readable.map_or(0, |(_, payload)| payload.unpadded().len());
        let readable = readable.filter(|_| octets > 0);
        let Some((edit, (codec, payload))) = verdict.zip(readable) else {
            if let Some(seq) = self.seq.drop(meta.seq) {
                self.send_fill(seq, meta, way);
            }
            return false;
        };
        let body = way.body(payload);
        let Some(seq) = self.seq.forward(meta.seq) else { return false };
        self.fresh = false;
        let timestamp = self.time.rewrite(way.now, meta.timestamp);
        let mut fields = way.fields(meta, codec.sent_as, seq, timestamp);
        fields.marker = edit.marker(meta);
        let (abs_send_time, transport_seq) = (fields.abs_send_time, fields.transport_cc);
        let sealed = way.seal(&self.header, seq, &fields, &body);
        if sealed {
            way.count_number(self.numbered);
            if way.is_paced {
                let number = if self.numbered { transport_seq } else { fields.seq };
                self.note_key_frame(meta, number, way.now);
            }
            self.packets = self.packets.wrapping_add(1);
            self.octets = self.octets.wrapping_add(u32::try_from(octets).unwrap_or_default());
            self.bytes += way.packet as u64;
            if body.padded {
                way.counters.padding_bytes += u64::from(payload.padding);
            }
            if self.repairable {
                let (stream, index) = (cursor.stream, cursor.next);
                let timestamp_offset = timestamp.wrapping_sub(meta.timestamp);
                self.sent.note(Sent { seq, stream, index, timestamp_offset, edit });
                if self.repeats_verbatim {
                    let padded = body.padded;
                    let looked = Verbatim { abs_send_time, transport_seq, padded };
                    self.sent.note_verbatim(seq, looked);
                }
            }
        }
        sealed
    }

    /// Padding in place of a packet that came too late to close its gap.
    fn send_fill(&mut self, seq: u64, meta: &PacketMeta, way: &mut Way<'_>) {
        let Some(codec) = self.codecs.first() else { return };
        let timestamp = self.time.rewrite(way.now, meta.timestamp);
        let body = RtpBody { padding: FILL_PADDING, ..RtpBody::default() };
        let mut fields = way.fields(meta, codec.sent_as, seq, timestamp);
        fields.marker = false;
        if way.seal(&self.header, seq, &fields, &body) {
            way.count_number(self.numbered);
        }
    }
}

impl Way<'_> {
    /// One packet more may be sealed.
    pub(super) fn has_room(&mut self) -> Result<(), Stop> {
        if *self.served >= TRANSPORT_SHARE {
            return Err(Stop::Share);
        }
        if self.batch.slot(SLOT).is_some() { Ok(()) } else { Err(Stop::Full) }
    }

    /// A consumer goes over to another stream, or waits for a key frame: see `follow_moves`.
    pub(super) fn note_move(&mut self, producer: ProducerKey) {
        if self.moved.last() != Some(&producer) {
            self.moved.push(producer);
        }
    }

    pub(super) fn fields<'m>(
        &self,
        meta: &'m PacketMeta,
        payload_type: u8,
        seq: u64,
        timestamp: u32,
    ) -> EgressFields<'m> {
        EgressFields {
            payload_type,
            marker: meta.marker,
            seq: low_16(seq),
            timestamp,
            abs_send_time: self.abs_send_time,
            transport_cc: *self.transport_seq,
            carried: &meta.extensions,
            dependency_descriptor: &[],
        }
    }

    /// A payload as it goes this way: with its padding where that makes trains.
    fn body<'p>(&self, payload: Padded<'p>) -> RtpBody<'p> {
        payload.body(self.batch.joins(&self.path))
    }

    /// The packet just sealed carried the transport-wide number.
    pub(super) fn count_number(&mut self, numbered: bool) {
        if self.is_paced {
            self.note_paced(numbered);
        }
        if !numbered {
            return;
        }
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.note_sent(self.now, *self.transport_seq, self.sealed, self.probe);
        }
        *self.transport_seq = self.transport_seq.wrapping_add(1);
    }

    /// Writes and seals one packet into the batch; false when it cannot be written.
    pub(super) fn seal(
        &mut self,
        header: &crate::engine::rtp::EgressHeader,
        seq: u64,
        fields: &EgressFields<'_>,
        body: &RtpBody<'_>,
    ) -> bool {
        let Some(space) = self.batch.slot(SLOT) else { return false };
        let Some(header_len) = header.write(space, fields) else { return false };
        let Some(len) = self.sealer.seal_rtp(seq, header_len, body, space) else { return false };
        self.batch.commit(self.path, len);
        (self.sealed, self.packet) = (len, header_len + body.len());
        *self.served += 1;
        self.counters.packets_out += 1;
        self.counters.bytes_out += len as u64;
        true
    }
}
