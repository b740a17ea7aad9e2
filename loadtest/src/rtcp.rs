//! The few RTCP packets that clients send, and those they answer (RFC 3550, 4585, 5104, and the
//! transport-wide congestion control draft).
//!
//! Pure functions over bytes, called by endpoints on their worker's thread. Every packet written is
//! a reduced-size or compound RTCP packet as browsers send it. Lengths in words follow from what was
//! written, so no packet can disagree with its header.

use crate::clock::{MILLISECOND, SECOND};

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

/// Ticks of a transport-wide delta: 250 µs.
const DELTA_TICK: u64 = 250_000;

/// Ticks of the reference time: 64 ms.
const REFERENCE_TICK: u64 = 64 * MILLISECOND;

/// Packets that one feedback packet reports, at most; more are reported in a second one.
const FEEDBACK_PACKETS_MAX: i64 = 512;

/// Appends one RTCP packet: header, then what `body` appends, padded to words by its writer.
fn append(out: &mut Vec<u8>, count: u8, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0x80 | count, kind, 0, 0]);
    body(out);
    let words = u16::try_from((out.len() - start) / 4 - 1).unwrap_or(u16::MAX).to_be_bytes();
    if let Some(length) = out.get_mut(start + 2..start + 4) {
        length.copy_from_slice(&words);
    }
}

/// What a sender report says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SenderInfo {
    /// The stream.
    pub(crate) ssrc: u32,
    /// Nanoseconds since 1970.
    pub(crate) unix: u64,
    /// The RTP time stamp of that moment.
    pub(crate) timestamp: u32,
    /// Packets sent.
    pub(crate) packets: u32,
    /// Payload bytes sent.
    pub(crate) bytes: u32,
}

/// Appends a sender report and its source description.
pub(crate) fn write_sender_report(out: &mut Vec<u8>, info: &SenderInfo, cname: &str) {
    append(out, 0, SENDER_REPORT, |out| {
        out.extend(info.ssrc.to_be_bytes());
        out.extend(ntp(info.unix).to_be_bytes());
        for word in [info.timestamp, info.packets, info.bytes] {
            out.extend(word.to_be_bytes());
        }
    });
    append(out, 1, SOURCE_DESCRIPTION, |out| {
        out.extend(info.ssrc.to_be_bytes());
        let cname = cname.get(..cname.len().min(64)).unwrap_or_default();
        out.extend([1, u8::try_from(cname.len()).unwrap_or(0)]);
        out.extend(cname.as_bytes());
        // At least one zero ends the chunk, and zeros fill it up.
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
    });
}

/// 64-bit NTP time of nanoseconds since 1970.
fn ntp(unix: u64) -> u64 {
    const SECONDS_1900_TO_1970: u64 = 2_208_988_800;
    let fraction = ((unix % SECOND) << 32) / SECOND;
    ((unix / SECOND + SECONDS_1900_TO_1970) << 32) | fraction
}

/// One report block of a receiver report (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReportBlock {
    /// The stream.
    pub(crate) ssrc: u32,
    /// Loss since the last report, of 256.
    pub(crate) fraction_lost: u8,
    /// Packets lost in all.
    pub(crate) lost: u32,
    /// Extended highest sequence number.
    pub(crate) highest: u32,
    /// Interarrival jitter, ticks of the stream's clock.
    pub(crate) jitter: u32,
    /// Middle of the last sender report's NTP time.
    pub(crate) last_report: u32,
    /// Time since then, of 65,536 per second.
    pub(crate) delay: u32,
}

/// Appends receiver reports, thirty-one blocks each at most; one without blocks when there is none.
pub(crate) fn write_receiver_report(out: &mut Vec<u8>, ssrc: u32, blocks: &[ReportBlock]) {
    let mut rest = blocks;
    loop {
        let (now, later) = rest.split_at(rest.len().min(31));
        append(out, u8::try_from(now.len()).unwrap_or(0), RECEIVER_REPORT, |out| {
            out.extend(ssrc.to_be_bytes());
            for block in now {
                out.extend(block.ssrc.to_be_bytes());
                let [_, lost @ ..] = block.lost.min(0x7F_FFFF).to_be_bytes();
                out.push(block.fraction_lost);
                out.extend(lost);
                for word in [block.highest, block.jitter, block.last_report, block.delay] {
                    out.extend(word.to_be_bytes());
                }
            }
        });
        rest = later;
        if rest.is_empty() {
            return;
        }
    }
}

/// Appends a generic NACK (RFC 4585 §6.2.1) for unwrapped sequence numbers in rising order.
pub(crate) fn write_nack(out: &mut Vec<u8>, ssrc: u32, media_ssrc: u32, indexes: &[i64]) {
    append(out, 1, TRANSPORT_FEEDBACK, |out| {
        out.extend(ssrc.to_be_bytes());
        out.extend(media_ssrc.to_be_bytes());
        let mut rest = indexes.iter().copied().peekable();
        while let Some(first) = rest.next() {
            let mut mask = 0_u16;
            while let Some(next) = rest.next_if(|next| (1..=16).contains(&(next - first))) {
                mask |= 1 << (next - first - 1);
            }
            out.extend(low_16(first).to_be_bytes());
            out.extend(mask.to_be_bytes());
        }
    });
}

/// Appends a picture loss indication (RFC 4585 §6.3.1).
pub(crate) fn write_pli(out: &mut Vec<u8>, ssrc: u32, media_ssrc: u32) {
    append(out, 1, PAYLOAD_FEEDBACK, |out| {
        out.extend(ssrc.to_be_bytes());
        out.extend(media_ssrc.to_be_bytes());
    });
}

/// What one transport received since its last feedback: unwrapped transport-wide sequence numbers
/// with arrival times, ns of the run.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    seen: Vec<(i64, u64)>,
    highest: Option<i64>,
    feedback_count: u8,
}

impl Arrivals {
    /// The line that the next packet is noted on, to read it ahead of time.
    pub(crate) fn touch(&self) -> usize {
        self.seen.last().map_or(0, |(_, arrival)| usize::from(*arrival == 0))
    }

    /// Notes a packet.
    pub(crate) fn push(&mut self, sequence: u16, arrival: u64) {
        let unwrapped = match self.highest {
            None => i64::from(sequence),
            Some(highest) => unwrap(highest, sequence),
        };
        self.highest = Some(self.highest.map_or(unwrapped, |highest| highest.max(unwrapped)));
        self.seen.push((unwrapped, arrival));
    }

    /// Appends feedback about all that was noted, and forgets it.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, ssrc: u32, media_ssrc: u32) {
        self.seen.sort_unstable();
        self.seen.dedup_by_key(|(sequence, _)| *sequence);
        let mut rest = self.seen.as_slice();
        while let Some(&(base, arrival)) = rest.first() {
            // Deltas are added up from the reference time in ticks, so that no rounding accumulates.
            let reference = arrival / REFERENCE_TICK;
            let mut ticks = reference * (REFERENCE_TICK / DELTA_TICK);
            let (mut symbols, mut deltas) = (Vec::new(), Vec::new());
            let mut taken = 0;
            for &(sequence, arrival) in rest {
                let now = arrival / DELTA_TICK;
                let delta = i128::from(now) - i128::from(ticks);
                let Ok(delta) = i16::try_from(delta) else { break };
                let Ok(place) = usize::try_from(sequence - base) else { break };
                if sequence - base >= FEEDBACK_PACKETS_MAX {
                    break;
                }
                symbols.resize(place, 0);
                if let Ok(small) = u8::try_from(delta) {
                    symbols.push(1);
                    deltas.push(small);
                } else {
                    symbols.push(2);
                    deltas.extend(delta.to_be_bytes());
                }
                (ticks, taken) = (now, taken + 1);
            }
            let count = self.feedback_count;
            self.feedback_count = count.wrapping_add(1);
            append(out, 15, TRANSPORT_FEEDBACK, |out| {
                out.extend(ssrc.to_be_bytes());
                out.extend(media_ssrc.to_be_bytes());
                out.extend(low_16(base).to_be_bytes());
                out.extend(u16::try_from(symbols.len()).unwrap_or(0).to_be_bytes());
                let [.., a, b, c] = reference.to_be_bytes();
                out.extend([a, b, c, count]);
                write_chunks(out, &symbols);
                out.extend(deltas);
                out.resize(out.len().next_multiple_of(4), 0);
            });
            rest = rest.get(taken.max(1)..).unwrap_or_default();
        }
        self.seen.clear();
    }
}

/// Status chunks: runs of equal symbols where they are long, else seven two-bit symbols each.
fn write_chunks(out: &mut Vec<u8>, symbols: &[u8]) {
    let mut rest = symbols;
    while let Some(&first) = rest.first() {
        let run = rest.iter().take_while(|symbol| **symbol == first).count().min(0x1FFF);
        let (chunk, taken) = if run > 7 || run == rest.len() {
            (u16::from(first) << 13 | u16::try_from(run).unwrap_or(0), run)
        } else {
            let seven = rest.iter().copied().chain(std::iter::repeat(0)).take(7);
            (seven.fold(0b11, |bits, symbol| bits << 2 | u16::from(symbol)), rest.len().min(7))
        };
        out.extend(chunk.to_be_bytes());
        rest = rest.get(taken..).unwrap_or_default();
    }
}

/// The unwrapped number nearest to `highest` that ends in `sequence`.
pub(crate) fn unwrap(highest: i64, sequence: u16) -> i64 {
    let distance = sequence.wrapping_sub(low_16(highest));
    highest + i64::from(distance.cast_signed())
}

/// The low sixteen bits.
pub(crate) fn low_16(number: i64) -> u16 {
    let [.., a, b] = number.to_be_bytes();
    u16::from_be_bytes([a, b])
}

/// What a client cares about in received RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item {
    /// PLI or FIR for a stream of ours.
    KeyFrameRequest {
        /// The stream.
        ssrc: u32,
    },
    /// Generic NACK: a packet is asked for again, and of the sixteen behind it those in the mask.
    Nack {
        /// The stream.
        ssrc: u32,
        /// The first packet's sequence number.
        sequence: u16,
        /// Bit 0 is the packet behind it.
        mask: u16,
    },
    /// A sender report: the middle 32 bits of its NTP time.
    SenderReport {
        /// The stream.
        ssrc: u32,
        /// What a report block gives back as `last_report`.
        ntp_middle: u32,
    },
}

/// Calls `found` for each item of an opened compound packet; stops at what is malformed.
pub(crate) fn read(compound: &[u8], mut found: impl FnMut(Item)) {
    let mut rest = compound;
    while let Some((&[first, kind, high, low], _)) = rest.split_first_chunk::<4>() {
        let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        let Some((packet, after)) = rest.split_at_checked(length) else { return };
        rest = after;
        let word = |place: usize| {
            packet
                .get(4 * place..)
                .and_then(|at| at.first_chunk())
                .map(|at| u32::from_be_bytes(*at))
        };
        if (kind, first & 0x1F) == (TRANSPORT_FEEDBACK, 1) {
            for item in (3..).map_while(word) {
                let [a, b, c, d] = item.to_be_bytes();
                let (sequence, mask) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                found(Item::Nack { ssrc: word(2).unwrap_or(0), sequence, mask });
            }
        }
        let item = match (kind, first & 0x1F) {
            (SENDER_REPORT, _) => word(1).zip(word(2).zip(word(3))).map(|(ssrc, (high, low))| {
                Item::SenderReport { ssrc, ntp_middle: high << 16 | low >> 16 }
            }),
            (PAYLOAD_FEEDBACK, 1) => word(2).map(|ssrc| Item::KeyFrameRequest { ssrc }),
            (PAYLOAD_FEEDBACK, 4) => word(3).map(|ssrc| Item::KeyFrameRequest { ssrc }),
            _ => None,
        };
        if let Some(item) = item {
            found(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(compound: &[u8]) -> Vec<Item> {
        let mut items = Vec::new();
        read(compound, |item| items.push(item));
        items
    }

    #[test]
    fn requests_and_reports_of_a_compound_packet_are_found() {
        let mut packet = Vec::new();
        let info = SenderInfo { ssrc: 5, unix: SECOND / 2, timestamp: 1, packets: 2, bytes: 3 };
        write_sender_report(&mut packet, &info, "name");
        assert_eq!(packet.len() % 4, 0);
        packet.extend([0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9]);
        packet.extend([0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0]);
        packet.extend([0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 9, 0, 7, 0, 0b11]);
        let ntp_middle = (2_208_988_800_u64 << 16 & 0xFFFF_0000) as u32 | 0x8000;
        assert_eq!(
            items(&packet),
            [
                Item::SenderReport { ssrc: 5, ntp_middle },
                Item::KeyFrameRequest { ssrc: 9 },
                Item::KeyFrameRequest { ssrc: 8 },
                Item::Nack { ssrc: 9, sequence: 7, mask: 0b11 },
            ]
        );
        for cut in 0..packet.len() {
            assert!(items(&packet[..cut]).len() <= 4);
        }
    }

    #[test]
    fn what_is_asked_for_again_is_what_the_other_side_reads() {
        let indexes = [65_530, 65_531, 65_546, 65_547, 70_000];
        let mut packet = Vec::new();
        write_nack(&mut packet, 1, 2, &indexes);
        write_pli(&mut packet, 1, 3);
        let mut asked = Vec::new();
        for item in items(&packet) {
            match item {
                Item::Nack { ssrc: 2, sequence, mask } => {
                    asked.push(sequence);
                    let behind = (0..16_u16).filter(|bit| mask >> bit & 1 == 1);
                    asked.extend(behind.map(|bit| sequence.wrapping_add(bit + 1)));
                }
                item => assert_eq!(item, Item::KeyFrameRequest { ssrc: 3 }),
            }
        }
        assert_eq!(asked, indexes.map(low_16));
        assert_eq!(packet.len(), 12 + 3 * 4 + 12, "65,530 and 65,531 and 65,546 share an item");
    }

    #[test]
    fn receiver_reports_hold_thirty_one_blocks_each() {
        for (blocks, reports) in [(0, 1), (1, 1), (31, 1), (32, 2), (63, 3)] {
            let mut packet = Vec::new();
            write_receiver_report(&mut packet, 1, &vec![ReportBlock::default(); blocks]);
            assert_eq!(packet.len(), reports * 8 + blocks * 24);
        }
    }

    /// Reads feedback back into sequence numbers and arrival times in ticks.
    fn decode(packet: &[u8]) -> Vec<(u16, u64)> {
        let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let (base, count) = (word(12), usize::from(word(14)));
        let mut ticks =
            256 * u64::from(u32::from_be_bytes([0, packet[16], packet[17], packet[18]]));
        let (mut at, mut symbols) = (20, Vec::new());
        while symbols.len() < count {
            let chunk = word(at);
            at += 2;
            if chunk >> 15 == 0 {
                let run = usize::from(chunk & 0x1FFF);
                symbols.extend(vec![chunk >> 13; run]);
            } else {
                symbols.extend((0..7).rev().map(|place| chunk >> (2 * place) & 3));
            }
        }
        symbols.truncate(count);
        let mut received = Vec::new();
        for (place, symbol) in symbols.into_iter().enumerate() {
            match symbol {
                0 => continue,
                1 => {
                    ticks += u64::from(packet[at]);
                    at += 1;
                }
                _ => {
                    ticks = ticks.wrapping_add_signed(i64::from(word(at).cast_signed()));
                    at += 2;
                }
            }
            received.push((base.wrapping_add(u16::try_from(place).unwrap()), ticks));
        }
        assert!(packet.len() - at < 4, "only padding is left");
        received
    }

    #[test]
    fn transport_feedback_tells_what_arrived_and_when() {
        let ms = MILLISECOND;
        let cases: [&[(u16, u64)]; 6] = [
            &[(0, 64 * ms)],
            &[(65_533, 3 * ms), (65_534, 3 * ms), (65_535, 4 * ms), (0, 5 * ms), (1, 90 * ms)],
            &[(10, 900 * ms), (12, 890 * ms), (30, 1_000 * ms)],
            &[(7, ms), (8, 200 * ms), (9, 200 * ms), (100, 201 * ms), (101, 300 * ms)],
            &[(5, ms), (6, ms), (7, ms), (8, ms), (9, ms), (10, ms), (11, ms), (12, ms), (14, ms)],
            &[(3, 10 * ms), (2, 11 * ms), (1, 12 * ms)],
        ];
        for case in cases {
            let mut arrivals = Arrivals::default();
            for &(sequence, at) in case {
                arrivals.push(sequence, at);
            }
            let mut packet = Vec::new();
            arrivals.write(&mut packet, 1, 2);
            assert_eq!(packet.len(), 4 * (1 + usize::from(packet[3])), "one packet");
            let mut expected: Vec<_> =
                case.iter().map(|(sequence, at)| (*sequence, at / DELTA_TICK)).collect();
            expected.sort_by_key(|(sequence, _)| sequence.wrapping_add(1_000));
            assert_eq!(decode(&packet), expected);
            let written = packet.len();
            arrivals.write(&mut packet, 1, 2);
            assert_eq!(packet.len(), written, "nothing is reported twice");
        }
    }

    #[test]
    fn a_gap_too_long_for_one_feedback_packet_starts_another() {
        let mut arrivals = Arrivals::default();
        for (sequence, at) in [(0, 0), (600, MILLISECOND), (601, 100 * SECOND)] {
            arrivals.push(sequence, at);
        }
        let mut packets = Vec::new();
        arrivals.write(&mut packets, 1, 2);
        let mut decoded = Vec::new();
        let mut rest = packets.as_slice();
        while !rest.is_empty() {
            let (packet, after) = rest.split_at(4 * (1 + usize::from(rest[3])));
            decoded.extend(decode(packet));
            rest = after;
        }
        assert_eq!(decoded, [(0, 0), (600, 4), (601, 400_000)]);
    }

    #[test]
    fn sequence_numbers_unwrap_to_the_nearest() {
        for (highest, sequence, expected) in
            [(0, 1, 1), (0, 0xFFFF, -1), (0xFFFF, 0, 0x1_0000), (0x1_0005, 0xFFFE, 0xFFFE)]
        {
            assert_eq!(unwrap(highest, sequence), expected);
        }
    }
}
