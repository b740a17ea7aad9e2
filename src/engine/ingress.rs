//! RTP that arrives: opened once, straight into its stream's ring, and looked into.
//!
//! Called by the engine for each media datagram of a batch. Which consumers get it is decided when
//! the batch is through (see `router`).

use std::time::Instant;

use slotmap::SlotMap;

use crate::engine::codec::dependency_descriptor::TemplateStructure;
use crate::engine::codec::red::Primary;
use crate::engine::codec::{self, PayloadInfo, red};
use crate::engine::codec_table::{CodecEntry, CodecTable};
use crate::engine::io::Received;
use crate::engine::listener::{Hints, Role, Route};
use crate::engine::nack::{NackGenerator, NackOutcome};
use crate::engine::packet::PacketMeta;
use crate::engine::report::{Counters, Discard};
use crate::engine::ring::{PacketIndex, SLOT_BYTES};
use crate::engine::rtp::{Extensions, RtpView, Token, unpadded_payload};
use crate::engine::srtp::{OpenError, Opened};
use crate::engine::stream::Stream;
use crate::engine::tally::RTP_HEADER_BYTES;
use crate::engine::transport::{Incoming, Transport};
use crate::engine::{Engine, StreamKey, TimerKey, TransportKey};
use crate::limits::STRAGGLERS_MAX;
use crate::ortc::codec::Codec;

/// Half of the sequence numbers that 16 bits tell apart.
const HALF_A_TURN: u64 = 0x8000;

impl From<OpenError> for Discard {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Authentication => Self::Authentication,
            OpenError::Replayed => Self::Replayed,
            OpenError::TooShort => Self::RtpMalformed,
            OpenError::OutputTooSmall => Self::TooLarge,
        }
    }
}

/// What an accepted packet changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived {
    /// The stream it belongs to.
    pub(super) stream: StreamKey,
    /// The stream was silent (or new, or begins anew) before it.
    pub(super) awoke: bool,
    /// Its sender began anew: consumers must, too.
    pub(super) restarted: bool,
}

/// A packet on its way into a ring.
struct Packet<'a> {
    now: Instant,
    /// When the kernel received it: what is told of the network must not hold our own delay.
    arrival: Instant,
    view: RtpView<'a>,
    bytes: &'a [u8],
    extensions: Extensions,
}

impl Engine {
    /// Takes one RTP datagram of a transport.
    pub(super) fn handle_rtp(
        &mut self,
        now: Instant,
        key: TransportKey,
        received: &Received<'_>,
    ) -> Result<Arrived, Discard> {
        let Received { arrival, bytes, .. } = *received;
        let view = RtpView::parse(bytes).ok_or(Discard::RtpMalformed)?;
        let transport = self.transports.get_mut(key).ok_or(Discard::UnknownAddress)?;
        if transport.srtp.is_none() {
            return Err(Discard::NoKeys);
        }
        let mut extensions = Extensions::parse(&view, &transport.receive_ids);
        if let Some(captured) = &mut extensions.abs_capture_time {
            transport.clock.relate(captured);
        }
        let packet = Packet { now, arrival, view, bytes, extensions };
        let known = transport.incoming.entry(view.ssrc).and_then(|incoming| incoming.route);
        let current = known
            .filter(|route| route.role == Role::Media)
            .and_then(|route| Some((route.stream, self.streams.get_mut(route.stream)?)))
            .filter(|(_, stream)| stream.ssrc == Some(view.ssrc));
        let outcome = match current {
            Some((stream, state)) => {
                accept_media(&mut self.counters, transport, stream, state, &packet)
            }
            None => {
                let scratch = &mut self.scratch;
                accept_other(&mut self.counters, transport, &mut self.streams, scratch, &packet)
            }
        };
        if let (Err(discard), Some(route)) = (&outcome, known)
            && *discard != Discard::Paused
            && let Some(stream) = self.streams.get_mut(route.stream)
        {
            stream.tally.discarded += u64::from(route.role == Role::Media);
        }
        // A packet that was authenticated counts for feedback, whatever became of it.
        if is_authentic(&outcome)
            && let Some(feedback) = &mut transport.feedback
            && let Some(seq) = packet.extensions.transport_cc
        {
            let before = feedback.next_deadline();
            feedback.handle_packet(now, arrival, seq);
            if let Some(deadline) = feedback.next_deadline().filter(|at| Some(*at) != before) {
                self.timers.arm(TimerKey::Transport(key), deadline);
            }
        }
        outcome
    }
}

/// True when the packet passed authentication, whatever became of it then.
pub(super) fn is_authentic(outcome: &Result<Arrived, Discard>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(discard) => matches!(
            discard,
            Discard::Paused
                | Discard::Padding
                | Discard::UnknownStream
                | Discard::UnknownPayloadType
                | Discard::TooManyStreams
        ),
    }
}

/// A packet of the SSRC that a stream has now: the path of nearly all.
fn accept_media(
    counters: &mut Counters,
    transport: &mut Transport,
    key: StreamKey,
    stream: &mut Stream,
    packet: &Packet<'_>,
) -> Result<Arrived, Discard> {
    let srtp = transport.srtp.as_ref().ok_or(Discard::NoKeys)?;
    let incoming = transport.incoming.entry(packet.view.ssrc).ok_or(Discard::UnknownStream)?;
    let codec = media_codec(stream, packet.view.payload_type);
    let before = incoming.context.highest();
    let mut slot = stream.ring.push_slot(packet.arrival);
    let opened = srtp.opener.open_rtp(
        &mut incoming.context,
        packet.bytes,
        packet.view.header_len(),
        slot.bytes_mut(),
    )?;
    counters.packets_in += 1;
    counters.bytes_in += packet.bytes.len() as u64;
    let codec = codec?;
    if before.is_some_and(|before| opened.index.saturating_sub(before) >= HALF_A_TURN) {
        // By 16 bits what comes now would be old, and nothing that is lost be missed.
        stream.nack.iter_mut().for_each(NackGenerator::reset);
        stream.key_frames.request(packet.now);
    }
    let bytes = packet.view.header_len() + opened.len;
    let seq = stream.seq_base + opened.index;
    stream.reception.handle_packet(packet.arrival, opened.index, packet.view.timestamp);
    stream.highest = stream.highest.max(Some(seq));
    if stream.paused {
        note_seq(stream, packet, false);
        return Err(Discard::Paused);
    }
    let plain = slot.bytes().get(..opened.len).ok_or(Discard::TooLarge)?;
    let payload = unpadded_payload(plain, packet.view.has_padding).ok_or(Discard::RtpMalformed)?;
    let len = payload.len();
    let info = look_into(&mut stream.templates, packet, codec.codec, payload);
    let inside = slot.bytes_mut().get_mut(..len);
    let primary = enter_room(&mut stream.red, &stream.codecs, codec.codec, inside);
    // Padding alone is no sign of life: it would awake the stream with each packet.
    let awoke = len > 0 && !stream.activity.is_active(packet.now);
    slot.commit(PacketMeta { primary, ..meta(packet, seq, codec.room_payload_type, info) }, len);
    note_seq(stream, packet, info.key_frame);
    note_media(stream, (packet.now, packet.view.timestamp), len, bytes, info);
    Ok(Arrived { stream: key, awoke, restarted: false })
}

/// What an original's payload and dependency descriptor tell; nothing where there is only padding.
fn look_into(
    templates: &mut Option<Box<TemplateStructure>>,
    packet: &Packet<'_>,
    codec: Codec,
    payload: &[u8],
) -> PayloadInfo {
    let descriptor = packet.extensions.dependency_descriptor.and_then(|s| s.of(packet.bytes));
    let descriptor = descriptor.and_then(|bytes| templates.get_or_insert_default().read(bytes));
    if payload.is_empty() {
        return PayloadInfo::default();
    }
    codec::inspect(codec, payload, descriptor.as_ref())
}

/// Tells the NACK generator of an original; too much loss asks for a key frame instead.
fn note_seq(stream: &mut Stream, packet: &Packet<'_>, key_frame: bool) {
    let Some(nack) = &mut stream.nack else { return };
    let outcome = nack.handle_packet(packet.now, packet.view.seq, key_frame);
    if outcome == NackOutcome::Overflow {
        stream.key_frames.request(packet.now);
    }
}

/// What every media packet in a ring changes in its stream: one of `bytes`, of which `len` are payload.
pub(super) fn note_media(
    stream: &mut Stream,
    (now, timestamp): (Instant, u32),
    len: usize,
    bytes: usize,
    info: PayloadInfo,
) {
    if len == 0 {
        return;
    }
    stream.rate.add(now, len + RTP_HEADER_BYTES);
    stream.slow_rate.add(now, len + RTP_HEADER_BYTES);
    stream.tally.media.add(bytes);
    stream.layers.handle_packet(now, timestamp, len + RTP_HEADER_BYTES, &info);
    stream.activity.handle_packet(now);
    stream.key_frames.handle_packet();
    if info.key_frame {
        stream.key_frames.handle_key_frame();
    }
}

fn meta(packet: &Packet<'_>, seq: u64, payload_type: u8, info: PayloadInfo) -> PacketMeta {
    PacketMeta {
        seq,
        timestamp: packet.view.timestamp,
        payload_type,
        marker: packet.view.marker,
        info,
        extensions: packet.extensions,
        primary: None,
    }
}

/// Puts the room's payload types into a payload that names others (RED), once for all consumers.
fn enter_room(
    sight: &mut red::Sight,
    codecs: &CodecTable,
    codec: Codec,
    payload: Option<&mut [u8]>,
) -> Option<Primary> {
    let payload = payload.filter(|bytes| codec == Codec::Red && !bytes.is_empty())?;
    let room = |payload_type| {
        let entry = codecs.entry(payload_type).filter(|entry| entry.codec.is_media());
        entry.map(|entry| entry.room_payload_type)
    };
    sight.enter(payload, room)
}

fn media_codec(stream: &Stream, payload_type: u8) -> Result<CodecEntry, Discard> {
    let entry = stream.codecs.entry(payload_type).ok_or(Discard::UnknownPayloadType)?;
    if entry.codec == Codec::Rtx { Err(Discard::UnknownPayloadType) } else { Ok(*entry) }
}

/// A packet of an SSRC that is new, unclaimed, left, or repair: opened into scratch space first.
fn accept_other(
    counters: &mut Counters,
    transport: &mut Transport,
    streams: &mut SlotMap<StreamKey, Stream>,
    scratch: &mut [u8; SLOT_BYTES],
    packet: &Packet<'_>,
) -> Result<Arrived, Discard> {
    let opened = open_aside(transport, scratch, packet)?;
    counters.packets_in += 1;
    counters.bytes_in += packet.bytes.len() as u64;
    let plain = scratch.get(..opened.len).ok_or(Discard::TooLarge)?;
    let payload = unpadded_payload(plain, packet.view.has_padding).ok_or(Discard::RtpMalformed)?;
    let incoming = transport.incoming.entry(packet.view.ssrc).ok_or(Discard::TooManyStreams)?;
    note_hints(incoming, &packet.extensions);
    let known = incoming.route;
    let route = match known {
        Some(route) => route,
        None => resolve(transport, packet).ok_or(Discard::UnknownStream)?,
    };
    let stream = streams.get_mut(route.stream).ok_or(Discard::UnknownStream)?;
    // Late packets of an SSRC that the sender has left: only when the other one fell silent has it
    // come back.
    let left = known.is_some() && stream.ssrc.is_some_and(|ssrc| ssrc != packet.view.ssrc);
    if route.role == Role::Media && left && stream.activity.is_active(packet.now) {
        return Err(Discard::UnknownStream);
    }
    match route.role {
        Role::Media => accept_first(transport, route, stream, packet, (opened.index, payload)),
        Role::Rtx => {
            stream.tally.rtx.add(packet.view.header_len() + opened.len);
            if is_straggler(transport, packet) {
                return Err(Discard::UnknownStream);
            }
            accept_repair(route, stream, packet, payload)
        }
    }
}

/// True for repairs that were under way when the sender took another SSRC: the numbers in them are
/// the old one's. Those that still come after [`STRAGGLERS_MAX`] are the new one's.
fn is_straggler(transport: &mut Transport, packet: &Packet<'_>) -> bool {
    let Some(incoming) = transport.incoming.entry(packet.view.ssrc) else { return false };
    let Some(at) = incoming.left else { return false };
    let late = packet.now.saturating_duration_since(at) < STRAGGLERS_MAX;
    incoming.left = Some(at).filter(|_| late);
    late
}

/// Opens a packet into scratch space; an SSRC that is authentic is remembered from then on.
fn open_aside(
    transport: &mut Transport,
    scratch: &mut [u8; SLOT_BYTES],
    packet: &Packet<'_>,
) -> Result<Opened, Discard> {
    let srtp = transport.srtp.as_ref().ok_or(Discard::NoKeys)?;
    let header_len = packet.view.header_len();
    let ssrc = packet.view.ssrc;
    if let Some(incoming) = transport.incoming.entry(ssrc) {
        incoming.heard = packet.now;
        let context = &mut incoming.context;
        return Ok(srtp.opener.open_rtp(context, packet.bytes, header_len, scratch)?);
    }
    let mut incoming = Incoming::new(packet.now);
    let context = &mut incoming.context;
    let opened = srtp.opener.open_rtp(context, packet.bytes, header_len, scratch)?;
    if transport.incoming.insert(ssrc, incoming) {
        Ok(opened)
    } else {
        Err(Discard::TooManyStreams)
    }
}

fn note_hints(incoming: &mut Incoming, extensions: &Extensions) {
    incoming.mid = extensions.mid.or(incoming.mid);
    incoming.rid = extensions.rid.or(incoming.rid);
    incoming.repaired_rid = extensions.repaired_rid.or(incoming.repaired_rid);
}

/// Asks the listener, and remembers its answer.
fn resolve(transport: &mut Transport, packet: &Packet<'_>) -> Option<Route> {
    let incoming = transport.incoming.entry(packet.view.ssrc)?;
    let (mid, rid, repaired) = (incoming.mid, incoming.rid, incoming.repaired_rid);
    let hints = Hints {
        ssrc: packet.view.ssrc,
        payload_type: packet.view.payload_type,
        mid: mid.as_ref().and_then(Token::as_str),
        rid: rid.as_ref().and_then(Token::as_str),
        repaired_rid: repaired.as_ref().and_then(Token::as_str),
    };
    let route = transport.listener.resolve(&hints)?;
    transport.incoming.entry(packet.view.ssrc)?.route = Some(route);
    Some(route)
}

/// The first packet of an SSRC that its stream takes.
fn accept_first(
    transport: &mut Transport,
    route: Route,
    stream: &mut Stream,
    packet: &Packet<'_>,
    (index, payload): (u64, &[u8]),
) -> Result<Arrived, Discard> {
    let codec = media_codec(stream, packet.view.payload_type)?;
    let restarted = stream.adopt(packet.view.ssrc);
    if restarted {
        transport.incoming.leave_others(packet.now, route.stream, packet.view.ssrc);
    }
    let seq = stream.seq_base + index;
    stream.reception.handle_packet(packet.arrival, index, packet.view.timestamp);
    stream.highest = stream.highest.max(Some(seq));
    if stream.paused {
        note_seq(stream, packet, false);
        return Err(Discard::Paused);
    }
    let info = push(stream, packet, seq, codec, payload)?;
    note_seq(stream, packet, info.key_frame);
    let bytes = packet.view.header_len() + payload.len();
    note_media(stream, (packet.now, packet.view.timestamp), payload.len(), bytes, info);
    Ok(Arrived { stream: route.stream, awoke: true, restarted })
}

/// A retransmission (RFC 4588 §4): the original number, then the original payload.
fn accept_repair(
    route: Route,
    stream: &mut Stream,
    packet: &Packet<'_>,
    payload: &[u8],
) -> Result<Arrived, Discard> {
    let (seq, payload) = payload.split_first_chunk::<2>().ok_or(Discard::Padding)?;
    let rtx = stream.codecs.entry(packet.view.payload_type).ok_or(Discard::UnknownPayloadType)?;
    let repeats = rtx.repeats.ok_or(Discard::UnknownPayloadType)?;
    let codec = media_codec(stream, repeats)?;
    let original = u16::from_be_bytes(*seq);
    let seq = stream.extend(original).ok_or(Discard::Padding)?;
    let nack = stream.nack.as_mut().ok_or(Discard::Padding)?;
    match nack.handle_packet(packet.now, original, false) {
        // Senders probe with repeated packets that nobody asked for: those we have already.
        NackOutcome::Unlisted => {
            stream.tally.rtx_useless += 1;
            return Err(Discard::Padding);
        }
        // Or have not: the original was lost a moment ago, and nothing behind it told us yet. It
        // counts as heard from now on, and would never be asked for.
        NackOutcome::Newest | NackOutcome::Filled { .. } => {}
        NackOutcome::Overflow => stream.key_frames.request(packet.now),
    }
    stream.tally.repaired += 1;
    stream.highest = stream.highest.max(Some(seq));
    if stream.paused {
        return Err(Discard::Paused);
    }
    let info = push(stream, packet, seq, codec, payload)?;
    let bytes = packet.view.header_len() + payload.len();
    note_media(stream, (packet.now, packet.view.timestamp), payload.len(), bytes, info);
    Ok(Arrived { stream: route.stream, awoke: false, restarted: false })
}

/// Looks into a payload that was opened aside, and puts a copy of it into the ring.
fn push(
    stream: &mut Stream,
    packet: &Packet<'_>,
    seq: u64,
    codec: CodecEntry,
    payload: &[u8],
) -> Result<PayloadInfo, Discard> {
    let info = look_into(&mut stream.templates, packet, codec.codec, payload);
    let mut slot = stream.ring.push_slot(packet.arrival);
    let space = slot.bytes_mut().get_mut(..payload.len()).ok_or(Discard::TooLarge)?;
    space.copy_from_slice(payload);
    let primary = enter_room(&mut stream.red, &stream.codecs, codec.codec, Some(space));
    let meta = PacketMeta { primary, ..meta(packet, seq, codec.room_payload_type, info) };
    slot.commit(meta, payload.len());
    Ok(info)
}

/// Adds a packet whose payload lies elsewhere.
pub(super) fn push_copy(
    stream: &mut Stream,
    meta: PacketMeta,
    arrival: Instant,
    payload: &[u8],
) -> Result<PacketIndex, Discard> {
    let mut slot = stream.ring.push_slot(arrival);
    let space = slot.bytes_mut().get_mut(..payload.len()).ok_or(Discard::TooLarge)?;
    space.copy_from_slice(payload);
    Ok(slot.commit(meta, payload.len()))
}
