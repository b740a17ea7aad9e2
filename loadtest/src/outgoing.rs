//! One published encoding: what it sends, when, and what it can send again.
//!
//! Owned by an endpoint, used on its worker's thread; no I/O. It writes into [`Marks`] which of its
//! packets belong to the measured window.

use std::ops::Range;
use std::sync::Arc;

use crate::clock::SECOND;
use crate::marks::Marks;
use crate::parameters;
use crate::payload::{self, Kind, Place, Stamp};
use crate::plan::{Encoding, Publication};
use crate::repair::{History, Sent, low_16};
use crate::rtcp::SenderInfo;
use crate::rtp::{self, Extra, Fields, HEADER_BYTES};
use crate::schedule::{Pace, Timetable};
use crate::srtp::{Srtp, TAG_BYTES};
use crate::tally::Tally;

/// Bytes of the original sequence number in a repair (RFC 4588 §4).
const ORIGINAL_BYTES: usize = 2;

/// Voice at -20 dBov.
const VOICE_LEVEL: u8 = 0x80 | 20;

/// An encoding that a client publishes.
#[derive(Debug)]
pub(crate) struct Outgoing {
    kind: Kind,
    timetable: Timetable,
    planned_pps: u64,
    mid: u8,
    encoding: Encoding,
    marks: Arc<Marks>,
    history: Option<History>,
    index: u64,
    repair_index: u64,
    next_burst: Option<u64>,
    packets: u32,
    bytes: u32,
    key_frame: bool,
    window: Range<u64>,
    sizes: Vec<usize>,
}

impl Outgoing {
    /// An encoding of a publication that begins with a key frame. With `repair` it remembers what
    /// it sent.
    pub(crate) fn new(
        publication: &Publication,
        encoding: Encoding,
        marks: Arc<Marks>,
        repair: bool,
    ) -> Self {
        let index = u64::from(encoding.sequence);
        Self {
            kind: publication.kind,
            timetable: publication.schedule.into(),
            planned_pps: publication.schedule.pps,
            mid: publication.mid,
            encoding,
            marks,
            history: (repair && publication.kind == Kind::Video).then(History::default),
            index,
            repair_index: index,
            next_burst: None,
            packets: 0,
            bytes: 0,
            key_frame: true,
            window: 0..0,
            sizes: Vec::new(),
        }
    }

    /// When its frames are due.
    pub(crate) fn schedule(&self) -> Timetable {
        self.timetable
    }

    /// Changes its rate, when it is meant; not within a window.
    pub(crate) fn pace(&mut self, pace: Pace) {
        if pace.kind == self.kind {
            self.timetable = self.timetable.paced(pace, self.planned_pps);
        }
    }

    /// Its RTP synchronisation source.
    pub(crate) fn ssrc(&self) -> u32 {
        self.encoding.ssrc
    }

    /// The number of the next packet among all of the encoding.
    fn counter(&self) -> u64 {
        self.index - u64::from(self.encoding.sequence)
    }

    /// Sets the measured window, ns of the run.
    pub(crate) fn measure(&mut self, from: u64, until: u64) {
        self.marks.reset();
        self.window = from..until;
    }

    /// True when the burst belongs to the measured window.
    pub(crate) fn measures(&self, burst: u64) -> bool {
        self.window.contains(&self.timetable.burst_due(burst))
    }

    /// Makes the next frame a key frame.
    pub(crate) fn request_key_frame(&mut self) {
        self.key_frame = true;
    }

    /// The window is over: no frame of it is sent any more.
    pub(crate) fn close_window(&self) {
        if !self.window.is_empty() {
            self.marks.end(self.counter());
        }
    }

    /// Closes the books of the window: what was due within it, sent or not.
    pub(crate) fn finish(&mut self, tally: &mut Tally) {
        if self.window.is_empty() {
            return;
        }
        self.close_window();
        let after = self.timetable.burst_from(self.window.end);
        let unsent = self.next_burst.map_or(0, |next| after.saturating_sub(next));
        tally.counts.offered += self.marks.count() + unsent * self.encoding.frames.packets_mean();
        self.window = 0..0;
    }

    /// Writes and seals a frame into `packets`, reusing their memory; returns how many.
    pub(crate) fn write_burst(
        &mut self,
        burst: u64,
        srtp: &Srtp,
        transport_sequence: &mut u16,
        packets: &mut Vec<Vec<u8>>,
    ) {
        let due = self.timetable.burst_due(burst);
        if !self.window.is_empty() {
            if due >= self.window.end {
                self.marks.end(self.counter());
            } else if due >= self.window.start {
                self.marks.begin(self.counter());
            }
        }
        self.next_burst = Some(burst + 1);
        let key_frame = std::mem::take(&mut self.key_frame);
        let mut sizes = std::mem::take(&mut self.sizes);
        self.encoding.frames.split(burst, key_frame, &mut sizes);
        packets.resize_with(sizes.len(), Vec::new);
        for (place, (packet, bytes)) in packets.iter_mut().zip(&sizes).enumerate() {
            let sent = Sent {
                index: self.index,
                burst,
                counter: self.counter(),
                bytes: *bytes,
                first: place == 0,
                last: place + 1 == sizes.len(),
                key_frame,
            };
            let written = self.write(&sent, srtp, *transport_sequence, packet);
            debug_assert!(written.is_some(), "the command line bounds packet sizes");
            *transport_sequence = transport_sequence.wrapping_add(1);
            if let Some(history) = &mut self.history {
                history.push(sent);
            }
            self.index += 1;
            self.packets = self.packets.wrapping_add(1);
            let payload = bytes.saturating_sub(HEADER_BYTES);
            self.bytes = self.bytes.wrapping_add(u32::try_from(payload).unwrap_or(0));
        }
        self.sizes = sizes;
    }

    fn write(
        &self,
        sent: &Sent,
        srtp: &Srtp,
        transport_sequence: u16,
        packet: &mut Vec<u8>,
    ) -> Option<()> {
        let level = (self.kind == Kind::Audio).then_some(Extra::Level(VOICE_LEVEL));
        let fields = Fields {
            payload_type: parameters::payload_type(self.kind),
            sequence: low_16(sent.index),
            ssrc: self.encoding.ssrc,
            extra: self.encoding.rid.map(Extra::Rid).or(level),
            ..self.fields(sent, transport_sequence)
        };
        packet.resize(sent.bytes + TAG_BYTES, 0);
        rtp::write(&fields, packet)?;
        let (header, body) = packet.split_at_mut_checked(HEADER_BYTES)?;
        let room = body.len().checked_sub(TAG_BYTES)?;
        self.write_payload(sent, body.get_mut(..room)?)?;
        srtp.seal_rtp(fields.ssrc, sent.index, header, body).ok()
    }

    /// Writes and seals a packet again, as its repair stream does it (RFC 4588); `None` when it is
    /// not remembered.
    pub(crate) fn write_repair(
        &mut self,
        sequence: u16,
        srtp: &Srtp,
        transport_sequence: u16,
        packet: &mut Vec<u8>,
    ) -> Option<()> {
        let sent = self.history.as_ref()?.find(sequence)?;
        let fields = Fields {
            payload_type: parameters::repair_payload_type(self.kind),
            sequence: low_16(self.repair_index),
            ssrc: self.encoding.repair_ssrc(),
            extra: self.encoding.rid.map(Extra::RepairedRid),
            ..self.fields(&sent, transport_sequence)
        };
        packet.resize(sent.bytes + ORIGINAL_BYTES + TAG_BYTES, 0);
        rtp::write(&fields, packet)?;
        let (header, body) = packet.split_at_mut_checked(HEADER_BYTES)?;
        let (original, payload) = body.split_first_chunk_mut::<ORIGINAL_BYTES>()?;
        *original = sequence.to_be_bytes();
        let room = payload.len().checked_sub(TAG_BYTES)?;
        self.write_payload(&sent, payload.get_mut(..room)?)?;
        srtp.seal_rtp(fields.ssrc, self.repair_index, header, body).ok()?;
        self.repair_index += 1;
        Some(())
    }

    /// What a packet and its repair say alike.
    fn fields(&self, sent: &Sent, transport_sequence: u16) -> Fields {
        let due = self.timetable.burst_due(sent.burst);
        Fields {
            marker: self.kind == Kind::Video && sent.last,
            payload_type: 0,
            sequence: 0,
            timestamp: timestamp(self.kind, due),
            ssrc: 0,
            mid: self.mid,
            sent: due,
            transport_sequence,
            extra: None,
        }
    }

    fn write_payload(&self, sent: &Sent, out: &mut [u8]) -> Option<()> {
        let place = Place {
            key_frame: sent.key_frame,
            first: sent.first,
            picture: sent.burst,
            height: self.encoding.height,
        };
        let stamp = Stamp {
            publication: self.encoding.number,
            counter: sent.counter,
            due: self.timetable.burst_due(sent.burst),
        };
        payload::write(self.kind, place, stamp, out).then_some(())
    }

    /// Its sender report at a time.
    pub(crate) fn report(&self, now: u64, unix: u64) -> SenderInfo {
        SenderInfo {
            ssrc: self.encoding.ssrc,
            unix,
            timestamp: timestamp(self.kind, now),
            packets: self.packets,
            bytes: self.bytes,
        }
    }
}

/// The RTP time stamp of a time of the run.
fn timestamp(kind: Kind, at: u64) -> u32 {
    let ticks = u128::from(at) * u128::from(kind.clock_rate()) / u128::from(SECOND);
    let [.., a, b, c, d] = ticks.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;
    use crate::plan::Plan;
    use crate::rtp::{Header, extension_id};
    use crate::srtp::Profile;

    fn sides() -> (Srtp, Srtp) {
        let material: Vec<u8> = (0..56).collect();
        let [us, them] =
            [true, false].map(|side| Srtp::new(Profile::Gcm128, &material, side).unwrap());
        (us, them)
    }

    fn outgoing(line: &str, layer: usize) -> (Outgoing, Arc<Marks>) {
        let plan = Plan::new(&Args::parse_from(line.split(' ')), "x");
        let (_, _, publication) = plan.publications().next().unwrap();
        let marks = Arc::new(Marks::default());
        let encoding = publication.encodings[layer].clone();
        (Outgoing::new(publication, encoding, Arc::clone(&marks), true), marks)
    }

    #[test]
    fn a_repair_opens_to_the_same_payload_behind_its_old_number() {
        for (line, layer) in
            [("loadtest lossy --frame-sizes libwebrtc", 0), ("loadtest simulcast", 2)]
        {
            let (us, them) = sides();
            let (mut stream, _) = outgoing(line, layer);
            let (mut packets, mut transport) = (Vec::new(), 7);
            stream.write_burst(3, &us, &mut transport, &mut packets);
            assert_eq!(usize::from(transport), 7 + packets.len());
            let mut old = packets[1].clone();
            let header = Header::read(&old).unwrap();
            let (ssrc, sequence, bytes) = (header.ssrc, header.sequence, header.bytes);
            let (head, body) = old.split_at_mut(bytes);
            let payload = them.open_rtp(ssrc, sequence.into(), head, body).unwrap().to_vec();
            let mut again = Vec::new();
            stream.write_repair(sequence, &us, 99, &mut again).unwrap();
            let header = Header::read(&again).unwrap();
            assert_eq!(header.ssrc, ssrc | 0x8000_0000);
            let rid = header.extension(extension_id::REPAIRED_RID);
            assert_eq!(rid.is_some(), layer == 2);
            let (ssrc, index) = (header.ssrc, header.sequence);
            let bytes = header.bytes;
            let (head, body) = again.split_at_mut(bytes);
            let body = them.open_rtp(ssrc, index.into(), head, body).unwrap();
            assert_eq!(body[..2], sequence.to_be_bytes());
            // Filler is not repeated: nothing reads it.
            assert_eq!(body[2..40], payload[..38]);
            assert_eq!(body.len(), payload.len() + 2);
            assert!(stream.write_repair(sequence.wrapping_add(500), &us, 1, &mut again).is_none());
        }
    }

    #[test]
    fn the_marks_are_the_counters_that_were_due_within_the_window() {
        let (us, _) = sides();
        let (mut stream, marks) = outgoing("loadtest livestream --frame-sizes libwebrtc", 0);
        let schedule = stream.schedule();
        stream.measure(schedule.burst_due(10), schedule.burst_due(20));
        let (mut packets, mut transport, mut inside) = (Vec::new(), 0, 0);
        for burst in 0..25 {
            assert_eq!(stream.measures(burst), (10..20).contains(&burst));
            if burst == 12 {
                stream.request_key_frame();
            }
            stream.write_burst(burst, &us, &mut transport, &mut packets);
            inside += if (10..20).contains(&burst) { packets.len() as u64 } else { 0 };
        }
        assert_eq!(marks.count(), inside);
        assert!(inside >= 10 * 4 + 16, "a key frame is larger: {inside}");
        let mut tally = Tally::default();
        stream.finish(&mut tally);
        assert_eq!(tally.counts.offered, inside);
    }

    #[test]
    fn another_pace_leaves_no_gap_in_the_numbers_and_windows_have_the_new_rate() {
        let (us, _) = sides();
        let (mut stream, marks) = outgoing("loadtest livestream", 0);
        let (mut packets, mut transport) = (Vec::new(), 0);
        let mut burst = stream.schedule().burst_from(0);
        for (second, millionths, pps) in [(1, 1_000_000, 500), (3, 2_000_000, 1_000)] {
            let at = second * SECOND;
            stream.pace(Pace { at, kind: Kind::Audio, millionths: 1 });
            stream.pace(Pace { at, kind: Kind::Video, millionths });
            stream.measure(at + SECOND / 2, at + 3 * SECOND / 2);
            while stream.schedule().burst_due(burst) < at + 2 * SECOND {
                let counter = stream.counter();
                assert_eq!(counter, burst * 5, "in step with the bursts");
                stream.write_burst(burst, &us, &mut transport, &mut packets);
                burst += 1;
            }
            assert_eq!(marks.count(), pps);
            let mut tally = Tally::default();
            stream.finish(&mut tally);
            assert_eq!(tally.counts.offered, pps);
        }
    }

    #[test]
    fn what_was_due_and_not_sent_is_still_offered() {
        let (us, _) = sides();
        let (mut stream, _) = outgoing("loadtest livestream", 0);
        let schedule = stream.schedule();
        stream.measure(schedule.burst_due(0), schedule.burst_due(10));
        let (mut packets, mut transport, mut tally) = (Vec::new(), 0, Tally::default());
        for burst in 0..7 {
            stream.write_burst(burst, &us, &mut transport, &mut packets);
        }
        stream.finish(&mut tally);
        assert_eq!(tally.counts.offered, 50);
    }
}
