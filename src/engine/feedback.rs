//! RTCP both ways: what clients report and ask for, what we report to and ask of them.
//!
//! Called by the engine for each RTCP datagram and at deadlines. Reports are composed into the
//! transport's queue in plaintext, and sealed when it is its turn to send.

use std::time::{Duration, Instant};

use slotmap::SlotMap;

use crate::engine::listener::Role;
use crate::engine::producer::Source;
use crate::engine::report::{Counters, Discard, DiscardCounts};
use crate::engine::ring::SLOT_BYTES;
use crate::engine::rtcp::{
    self, Arrival, DlrrEntry, FeedbackHead, FirEntry, ReportBlock, RtcpItem, RtcpWriter, XrBlock,
};
use crate::engine::rtcp::{SenderInfo, SenderReport};
use crate::engine::rtcp_queue::COMPOUND_BYTES_MAX;
use crate::engine::source_clock::ClockPoint;
use crate::engine::stream::Stream;
use crate::engine::tally::{OutgoingTally, Reported};
use crate::engine::transport::Transport;
use crate::engine::{ConsumerKey, Engine, StreamKey, TimerKey, TransportKey};
use crate::limits::REPORT_INTERVAL;

/// Ticks of 250 µs in a unit of reference time (64 ms).
const TICKS_PER_REFERENCE: i64 = 256;

impl Engine {
    /// Takes one RTCP datagram of a transport.
    pub(super) fn handle_rtcp(
        &mut self,
        now: Instant,
        key: TransportKey,
        bytes: &[u8],
    ) -> Result<(), Discard> {
        let transport = self.transports.get_mut(key).ok_or(Discard::UnknownAddress)?;
        let srtp = transport.srtp.as_mut().ok_or(Discard::NoKeys)?;
        let mut plain = [0; SLOT_BYTES];
        let len = srtp.opener.open_rtcp(bytes, &mut plain).map_err(|error| match error.into() {
            Discard::RtpMalformed => Discard::RtcpMalformed,
            other => other,
        })?;
        self.counters.rtcp_in += 1;
        transport.tally.rtcp.0 += bytes.len() as u64;
        let mut compound = rtcp::parse(plain.get(..len).ok_or(Discard::TooLarge)?);
        for item in compound.by_ref() {
            self.handle_rtcp_item(now, key, &item);
        }
        if compound.is_malformed() { Err(Discard::RtcpMalformed) } else { Ok(()) }
    }

    fn handle_rtcp_item(&mut self, now: Instant, key: TransportKey, item: &RtcpItem<'_>) {
        match item {
            RtcpItem::SenderReport(report) => {
                self.handle_sender_report(now, key, report);
                for block in report.reports.clone() {
                    self.handle_report_block(now, key, &block);
                }
                self.handle_losses(now, key, report.reports.clone());
            }
            RtcpItem::ReceiverReport(report) => {
                for block in report.reports.clone() {
                    self.handle_report_block(now, key, &block);
                }
                self.handle_losses(now, key, report.reports.clone());
            }
            RtcpItem::Nack(nack) => {
                let Some(consumer) = self.consumer_at(key, nack.media_ssrc) else { return };
                if let Some(consumer) = self.consumers.get_mut(consumer) {
                    // A datagram can name thousands; what finds no room is asked for again.
                    let taken = nack.seqs().take_while(|seq| consumer.ask_repair(*seq)).count();
                    self.counters.nacks_received += taken as u64;
                    consumer.tally.nacks += 1;
                    consumer.tally.nacked += taken as u64;
                }
                self.mark_consumer_due(now, consumer);
            }
            RtcpItem::Pli { media_ssrc, .. } => {
                if let Some(tally) = self.handle_key_frame_wish(now, key, *media_ssrc) {
                    tally.plis += 1;
                    self.counters.plis_received += 1;
                }
            }
            RtcpItem::Fir(fir) => {
                for entry in fir.entries.clone() {
                    if let Some(tally) = self.handle_key_frame_wish(now, key, entry.ssrc) {
                        tally.firs += 1;
                        self.counters.firs_received += 1;
                    }
                }
            }
            RtcpItem::TransportCc(feedback) => self.handle_arrivals(now, key, feedback),
            RtcpItem::Remb(remb) => self.handle_remb(now, key, remb.bitrate_bps),
            RtcpItem::Xr(xr) => {
                for block in xr.blocks.clone() {
                    self.handle_extended_report(now, key, xr.ssrc, block);
                }
            }
            _ => {}
        }
    }

    fn handle_extended_report(
        &mut self,
        now: Instant,
        key: TransportKey,
        ssrc: u32,
        block: XrBlock<'_>,
    ) {
        let local = self.wall.ntp_at(now);
        let Some(transport) = self.transports.get_mut(key) else { return };
        match block {
            XrBlock::Rrtr { ntp } => transport.reference_time = Some((ssrc, ntp.middle(), now)),
            XrBlock::Dlrr(mut entries) => {
                let ours = entries.find(|entry| entry.ssrc == transport.rtcp_ssrc);
                if let Some(way) = ours.and_then(|e| local.round_trip(e.lrr, e.dlrr)) {
                    transport.round_trip = way;
                }
            }
            XrBlock::Unknown { .. } => {}
        }
    }

    fn consumer_at(&self, key: TransportKey, ssrc: u32) -> Option<ConsumerKey> {
        self.transports.get(key)?.out_ssrcs.get(&ssrc).copied()
    }

    /// Asks for a key frame of what a receiver names; where that is counted.
    fn handle_key_frame_wish(
        &mut self,
        now: Instant,
        key: TransportKey,
        ssrc: u32,
    ) -> Option<&mut OutgoingTally> {
        let consumer = self.consumer_at(key, ssrc)?;
        self.answer_key_frame_wish(now, consumer);
        Some(&mut *self.consumers.get_mut(consumer)?.tally)
    }

    fn handle_sender_report(&mut self, now: Instant, key: TransportKey, report: &SenderReport<'_>) {
        let local = self.wall.ntp_at(now).bits();
        let Some(transport) = self.transports.get_mut(key) else { return };
        let SenderInfo { ssrc, ntp, rtp_timestamp, .. } = report.info;
        let route = transport.incoming.entry(ssrc).and_then(|incoming| incoming.route);
        let Some(route) = route.filter(|route| route.role == Role::Media) else { return };
        transport.clock.handle_sender_report(now, local, ntp.bits());
        // The peer's clock is one; the timestamps of an SSRC that was left are another's.
        if let Some(stream) = self.streams.get_mut(route.stream).filter(|s| s.ssrc == Some(ssrc)) {
            stream.clock.handle_sender_report(ClockPoint { ntp: ntp.bits(), rtp: rtp_timestamp });
            stream.reception.handle_sender_report(now, ntp.bits());
        }
    }

    fn handle_report_block(&mut self, now: Instant, key: TransportKey, block: &ReportBlock) {
        let round_trip = self.wall.ntp_at(now).round_trip(block.lsr, block.dlsr);
        let Some(consumer_key) = self.consumer_at(key, block.ssrc) else { return };
        let Some(consumer) = self.consumers.get_mut(consumer_key) else { return };
        if consumer.ssrc != block.ssrc {
            return;
        }
        consumer.round_trip = round_trip.unwrap_or(consumer.round_trip);
        self.counters.packets_lost_out += consumer.tally.handle_report(Reported {
            lost: block.cumulative_lost,
            fraction: block.fraction_lost,
            jitter: block.jitter,
        });
        self.settle_reported_wish(now, consumer_key, block);
    }

    /// What a stream has to ask of its sender: lost packets and key frames.
    pub(super) fn handle_stream_deadline(&mut self, now: Instant, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Source::Local(transport_key) = stream.source else {
            return self.handle_mirror_deadline(now, key);
        };
        let Some(ssrc) = stream.ssrc else { return };
        let Some(transport) = self.transports.get_mut(transport_key) else { return };
        if stream.paused {
            stream.key_frames.cancel();
        }
        let mut space = [0; COMPOUND_BYTES_MAX];
        let mut writer = RtcpWriter::new(&mut space);
        if let Some(nack) = &mut stream.nack {
            self.nack_list.clear();
            nack.poll(now, transport.round_trip, |seq| self.nack_list.push(seq));
            let asked = writer.nack(transport.rtcp_ssrc, ssrc, &self.nack_list);
            self.counters.nacks_sent += asked as u64;
            stream.tally.nacks += u64::from(asked > 0);
            stream.tally.nacked += asked as u64;
        }
        if transport.round_trip > Duration::ZERO {
            stream.key_frames.handle_round_trip(transport.round_trip);
        }
        if stream.key_frames.poll(now) {
            stream.ask_key_frame(transport.rtcp_ssrc, &mut writer, &mut self.counters);
        }
        if let Some(deadline) = stream.next_deadline() {
            self.timers.arm(TimerKey::Stream(key), deadline);
        }
        if !writer.is_empty() && transport.rtcp.push(writer.as_bytes()) {
            self.mark_due(transport_key);
        }
    }

    /// Transport-wide feedback and the reports of the second, where they are due.
    pub(super) fn handle_transport_reports(&mut self, now: Instant, key: TransportKey) {
        self.write_feedback(now, key);
        let Some(transport) = self.transports.get_mut(key) else { return };
        if transport.next_report.is_some_and(|due| due <= now) {
            transport.next_report = Some(now + REPORT_INTERVAL);
            if transport.srtp.is_some() {
                self.write_reports(now, key);
                self.tally_transport(now, key);
            }
        } else if transport.reports.next_deadline().is_some_and(|due| due <= now) {
            transport.reports.resume();
            let mut space = [0; COMPOUND_BYTES_MAX];
            self.write_sender_reports(now, key, RtcpWriter::new(&mut space));
        }
        if self.transports.get(key).is_some_and(|transport| !transport.rtcp.is_empty()) {
            self.mark_due(key);
        }
    }

    fn write_feedback(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(feedback) = &mut transport.feedback else { return };
        let media_ssrc = transport.incoming.routed().map(|(ssrc, _)| ssrc).next().unwrap_or(0);
        while let Some(due) = feedback.poll_feedback(now) {
            let reference = i64::from(due.reference_time) * TICKS_PER_REFERENCE;
            self.arrivals.clear();
            self.arrivals.extend(due.packets.iter().filter_map(|(seq, ticks)| {
                let ticks = u64::try_from(reference + (*ticks)?).ok()?;
                Some(Arrival { seq: *seq, ticks })
            }));
            let mut base_seq = due.base_seq;
            let mut rest = self.arrivals.as_slice();
            while !rest.is_empty() {
                let mut space = [0; COMPOUND_BYTES_MAX];
                let mut writer = RtcpWriter::new(&mut space);
                let head = FeedbackHead {
                    sender_ssrc: transport.rtcp_ssrc,
                    media_ssrc,
                    base_seq,
                    feedback_count: transport.feedback_count,
                };
                let told = writer.transport_cc(&head, rest);
                if told == 0 || !transport.rtcp.push(writer.as_bytes()) {
                    return;
                }
                transport.feedback_count = transport.feedback_count.wrapping_add(1);
                let (done, more) = rest.split_at_checked(told).unwrap_or((rest, &[]));
                base_seq = done.last().map_or(base_seq, |last| last.seq.wrapping_add(1));
                rest = more;
            }
        }
    }

    fn write_reports(&mut self, now: Instant, key: TransportKey) {
        let mut space = [0; COMPOUND_BYTES_MAX];
        let mut writer = RtcpWriter::new(&mut space);
        self.collect_blocks(now, key);
        let ours = self.transports.get(key).map_or(0, |transport| transport.rtcp_ssrc);
        for blocks in self.blocks.chunks(rtcp::BLOCKS_MAX) {
            if !writer.receiver_report(ours, blocks) {
                push_rtcp(&mut self.transports, &mut self.discards, key, writer.as_bytes());
                writer = RtcpWriter::new(&mut space);
                let _ = writer.receiver_report(ours, blocks);
            }
        }
        self.write_extras(now, key, &mut writer);
        if let Some(transport) = self.transports.get_mut(key) {
            transport.reports.begin(transport.consumers.len());
        }
        self.write_sender_reports(now, key, writer);
    }

    /// Sender reports of the consumers whose turn it is, behind what the writer holds already, for
    /// as long as the queue has room for them; the others' turn comes a moment later.
    fn write_sender_reports(&mut self, now: Instant, key: TransportKey, first: RtcpWriter<'_>) {
        let mut space = [0; COMPOUND_BYTES_MAX];
        let mut writer = first;
        while let Some(transport) = self.transports.get_mut(key)
            && let Some(consumer) = transport.reports.front(&transport.consumers)
        {
            if writer.is_empty() && !transport.rtcp.has_room_for_reports() {
                transport.reports.wait(now);
                break;
            }
            if self.write_sender_report(now, consumer, &mut writer) || writer.is_empty() {
                if let Some(transport) = self.transports.get_mut(key) {
                    transport.reports.pop();
                }
                continue;
            }
            self.queue_rtcp(key, writer.as_bytes());
            writer = RtcpWriter::new(&mut space);
        }
        self.queue_rtcp(key, writer.as_bytes());
    }

    fn queue_rtcp(&mut self, key: TransportKey, packet: &[u8]) {
        push_rtcp(&mut self.transports, &mut self.discards, key, packet);
    }

    /// One block for each media stream received on a transport.
    fn collect_blocks(&mut self, now: Instant, key: TransportKey) {
        self.blocks.clear();
        let Some(transport) = self.transports.get(key) else { return };
        for (ssrc, route) in transport.incoming.routed() {
            let Some(stream) = self.streams.get_mut(route.stream) else { continue };
            if route.role != Role::Media || stream.ssrc != Some(ssrc) {
                continue;
            }
            let Some(block) = stream.reception.report(now) else { continue };
            self.blocks.push(ReportBlock {
                ssrc,
                fraction_lost: block.fraction_lost,
                cumulative_lost: block.cumulative_lost,
                highest_seq: block.highest_seq,
                jitter: block.jitter,
                lsr: block.last_sender_report,
                dlsr: block.delay_since_last_sender_report,
            });
        }
    }

    /// What a publisher may send, where that is told, and the answer to its reference time.
    fn write_extras(&mut self, now: Instant, key: TransportKey, writer: &mut RtcpWriter<'_>) {
        self.write_remb(now, key, writer);
        let Some(transport) = self.transports.get_mut(key) else { return };
        // A publisher reports nothing about us, so its way is measured by asking.
        if !self.blocks.is_empty() {
            let _ = writer.xr_rrtr(transport.rtcp_ssrc, self.wall.ntp_at(now));
        }
        if let Some((ssrc, lrr, at)) = transport.reference_time.take() {
            let delay = (now.saturating_duration_since(at).as_nanos() << 16) / 1_000_000_000;
            let dlrr = u32::try_from(delay).unwrap_or(u32::MAX);
            let _ = writer.xr_dlrr(transport.rtcp_ssrc, &[DlrrEntry { ssrc, lrr, dlrr }]);
        }
    }

    /// The estimate where the client wants it by REMB, and the limit of what it may send.
    fn write_remb(&mut self, now: Instant, key: TransportKey, writer: &mut RtcpWriter<'_>) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(first) = self.blocks.first() else { return };
        let mut estimate_bps = None;
        if transport.wants_remb {
            let streams = &mut self.streams;
            let rate_bps: u64 = transport
                .incoming
                .routed()
                .filter(|(_, route)| route.role == Role::Media)
                .filter_map(|(_, r)| Some(streams.get_mut(r.stream)?.rate.bitrate_bps(now)))
                .sum();
            let lost = self.blocks.iter().map(|block| block.fraction_lost).max().unwrap_or(0);
            if rate_bps > 0 {
                transport.remb_bps = next_estimate(transport.remb_bps, rate_bps, lost);
                estimate_bps = Some(transport.remb_bps);
            }
        } else if transport.feedback.is_none() {
            // It was never asked whether it understands one.
            return;
        }
        let limit_bps = transport.limits.max_incoming_bps;
        if let Some(told_bps) = transport.incoming_limit.told(limit_bps, estimate_bps) {
            let _ = writer.remb(transport.rtcp_ssrc, told_bps, &[first.ssrc]);
        }
    }

    /// A sender report with the consumer's name; false when it does not fit.
    fn write_sender_report(
        &self,
        now: Instant,
        key: ConsumerKey,
        writer: &mut RtcpWriter<'_>,
    ) -> bool {
        let Some(consumer) = self.consumers.get(key) else { return true };
        let Some(playing) = consumer.playing.filter(|_| consumer.packets > 0) else { return true };
        let Some(stream) = self.streams.get(playing.stream) else { return true };
        let sender = match &stream.source {
            Source::Local(transport) => self.transports.get(*transport).map(|t| &t.clock),
            Source::Relayed(relayed) => Some(&relayed.sender),
        };
        let Some(sender) = sender else { return true };
        let ntp = self.wall.ntp_at(now);
        // Without a report of the source there is no mapping to tell.
        let Some(rtp) = stream.clock.rtp_at_local(sender, ntp.bits()) else { return true };
        let info = SenderInfo {
            ssrc: consumer.ssrc,
            ntp,
            rtp_timestamp: rtp.wrapping_add(consumer.time.offset()),
            packets: consumer.packets,
            octets: consumer.octets,
        };
        // Both or neither: a name without its report is of no use.
        let needed = 28 + 4 + 4 + 2 + consumer.cname.len() + 4;
        writer.room() >= needed
            && writer.sender_report(&info, &[])
            && writer.sdes_cname(consumer.ssrc, consumer.cname.as_bytes())
    }
}

impl Stream {
    /// Writes the wish for a key frame, in the way that its sender negotiated.
    fn ask_key_frame(&mut self, ours: u32, writer: &mut RtcpWriter<'_>, counters: &mut Counters) {
        let Some(ssrc) = self.ssrc else { return };
        if self.codecs.wants_fir() {
            // A new number each time, also where nothing came: a sender that heard the last one
            // takes a repeat of it for the same wish, and its key frame was lost.
            let [.., seq] = self.tally.firs.to_be_bytes();
            let asked = writer.fir(ours, &[FirEntry { ssrc, seq }]);
            self.tally.firs += u64::from(asked);
            counters.firs_sent += u64::from(asked);
        } else {
            let asked = writer.pli(ours, ssrc);
            self.tally.plis += u64::from(asked);
            counters.plis_sent += u64::from(asked);
        }
    }
}

fn push_rtcp(
    transports: &mut SlotMap<TransportKey, Transport>,
    discards: &mut DiscardCounts,
    key: TransportKey,
    packet: &[u8],
) {
    if let Some(transport) = transports.get_mut(key)
        && !transport.rtcp.push(packet)
    {
        discards.add(Discard::OutputFull);
    }
}

/// The loss-based estimate of Google congestion control (draft-ietf-rmcat-gcc-02 §6) at the
/// receiver, for publishers that offer nothing better: grows by 8 % each second while losses are
/// below 2 %, shrinks with them above 10 %, and follows what arrives from above.
fn next_estimate(last_bps: u64, rate_bps: u64, fraction_lost: u8) -> u64 {
    const FLOOR_BPS: u64 = 300_000;
    const CEILING_BPS: u64 = 100_000_000;
    let base = last_bps.max(rate_bps).max(FLOOR_BPS);
    let next = match fraction_lost {
        0..=5 => base + base / 12,
        6..=25 => base,
        lost => base - base * u64::from(lost) / 512,
    };
    next.clamp(FLOOR_BPS, (rate_bps * 2).max(1_000_000)).min(CEILING_BPS)
}

#[cfg(test)]
mod tests {
    use super::next_estimate;

    #[test]
    fn the_estimate_rises_without_loss_holds_with_some_and_falls_with_much() {
        let cases = [
            (1_000_000, 1_000_000, 0, 1_083_333),
            (1_000_000, 1_000_000, 12, 1_000_000),
            (1_000_000, 1_000_000, 128, 750_000),
            (0, 10_000, 0, 325_000),
            (9_000_000, 1_000_000, 0, 2_000_000),
        ];
        for (last, rate, lost, expected) in cases {
            assert_eq!(next_estimate(last, rate, lost), expected, "{last} {rate} {lost}");
        }
    }
}
