//! A receiver as a browser is one, with installed keys: transport-wide feedback, reports, requests
//! for what is missing, wishes for key frames, and a screen for each picture.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringcast::engine::rtcp::{Arrival, FeedbackHead, RtcpItem, RtcpWriter, parse};
use ringcast::engine::rtp::{RtpView, unpadded_payload};
use ringcast::engine::srtp::Opened;
use ringcast::engine::twcc::TwccReceiver;

use super::super::raw::{Opening, RawClient};
use super::encoder::Mark;
use super::incoming::Incoming;

const OWN_SSRC: u32 = 77;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// libwebrtc's NACK timer.
const REQUEST_INTERVAL: Duration = Duration::from_millis(20);
/// libwebrtc asks for a key frame when its decoder had nothing for this long…
const STUCK: Duration = Duration::from_secs(3);
/// … and for the first one sooner.
const WAITING: Duration = Duration::from_millis(200);
/// Ticks of 250 µs in 64 ms.
const REFERENCE_TICKS: i64 = 256;

/// How it tells what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    TransportCc,
    /// The receiver's own estimate: always this many bits/s.
    Remb(u64),
}

/// What it sends of what it receives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    pub(crate) answer: Answer,
    /// It asks for what is missing; else it wants a key frame for each gap, at once and once.
    pub(crate) nack: bool,
}

pub(crate) struct Viewer {
    pub(crate) client: RawClient,
    /// Extension id of transport-wide numbers.
    number_id: u8,
    habits: Habits,
    twcc: TwccReceiver,
    feedback_count: u8,
    pub(crate) streams: BTreeMap<u32, Incoming>,
    /// From the SSRC of repairs to that of the media.
    repairs: BTreeMap<u32, u32>,
    next_report: Instant,
    next_request: Option<Instant>,
    /// Datagrams of padding only, and their bytes.
    pub(crate) padding: (u64, u64),
}

impl Viewer {
    pub(crate) fn new(now: Instant, client: RawClient, number_id: u8, habits: Habits) -> Self {
        Self {
            client,
            number_id,
            habits,
            twcc: TwccReceiver::new(now),
            feedback_count: 0,
            streams: BTreeMap::new(),
            repairs: BTreeMap::new(),
            next_report: now + REPORT_INTERVAL,
            next_request: None,
            padding: (0, 0),
        }
    }

    pub(crate) fn expect_stream(&mut self, is_video: bool, ssrc: u32, rtx_ssrc: Option<u32>) {
        self.streams.insert(ssrc, Incoming::new(is_video));
        self.repairs.extend(rtx_ssrc.map(|rtx| (rtx, ssrc)));
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let agent = self.client.poll_timeout();
        let feedback = self.twcc.next_deadline();
        [agent, feedback, Some(self.next_report), self.next_request].into_iter().flatten().min()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.client.poll_transmit()
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        let mut plain = [0; 1600];
        match self.client.open(bytes, &mut plain) {
            Some(Opening::Rtp(view, opened)) => {
                self.handle_rtp(now, &view, opened, &plain[..opened.len]);
            }
            Some(Opening::Rtcp(len)) => {
                for item in parse(&plain[..len]) {
                    if let RtcpItem::SenderReport(report) = item
                        && let Some(stream) = self.streams.get_mut(&report.info.ssrc)
                    {
                        stream.note_sender_report(now, report.info.ntp.middle());
                    }
                }
            }
            None => {}
        }
    }

    fn handle_rtp(&mut self, now: Instant, view: &RtpView<'_>, opened: Opened, plain: &[u8]) {
        let mut elements = view.extension_block().elements();
        let number = elements.find(|element| element.id == self.number_id);
        if let Some([high, low]) = number.map(|element| element.data) {
            self.twcc.handle_packet(now, now, u16::from_be_bytes([*high, *low]));
        }
        let bytes = (view.header_len() + plain.len()) as u64;
        let payload = unpadded_payload(plain, view.has_padding).expect("padding as it should be");
        let original = self.repairs.get(&view.ssrc).copied();
        let Some(stream) = self.streams.get_mut(&original.unwrap_or(view.ssrc)) else {
            panic!("SSRC {} was not announced", view.ssrc)
        };
        stream.hear(now, view.header_len() + plain.len());
        if payload.is_empty() {
            self.padding.0 += 1;
            self.padding.1 += bytes;
        }
        let (number, payload) = match (original, payload) {
            (None, payload) => (Some(opened.index), payload),
            (Some(_), [high, low, payload @ ..]) => {
                (stream.extend(u16::from_be_bytes([*high, *low])), payload)
            }
            (Some(_), _) => (None, payload),
        };
        let Some(number) = number else { return };
        let gaps = stream.gaps;
        let is_new = stream.arrive(now, number, original.is_some());
        stream.is_broken |= stream.is_video && stream.gaps > gaps && !self.habits.nack;
        if stream.is_video && is_new && !payload.is_empty() {
            let mark = Mark::read(payload).expect("a payload as it was sent");
            let whole = stream.whole_below();
            stream.screen.handle_packet(now, (number, view.timestamp, view.marker), mark, whole);
        }
        let asks = self.habits.nack && stream.is_anything_missing();
        if (asks || stream.is_broken) && self.next_request.is_none() {
            self.next_request = Some(now);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
        if self.habits.answer == Answer::TransportCc {
            self.write_feedback(now);
        }
        if self.next_request.is_some_and(|at| at <= now) {
            self.write_requests(now);
        }
        if self.next_report <= now {
            self.next_report = now + REPORT_INTERVAL;
            self.write_report(now);
        }
        self.wish_key_frames(now);
    }

    fn write_feedback(&mut self, now: Instant) {
        let Some(media_ssrc) = self.streams.keys().next().copied() else { return };
        let mut written = Vec::new();
        while let Some(due) = self.twcc.poll_feedback(now) {
            let reference = i64::from(due.reference_time) * REFERENCE_TICKS;
            let arrivals = due.packets.iter().filter_map(|(seq, ticks)| {
                Some(Arrival { seq: *seq, ticks: (reference + (*ticks)?).cast_unsigned() })
            });
            let arrivals: Vec<_> = arrivals.collect();
            let mut base_seq = due.base_seq;
            let mut rest = arrivals.as_slice();
            while !rest.is_empty() {
                let mut space = [0; 1200];
                let mut writer = RtcpWriter::new(&mut space);
                let feedback_count = self.feedback_count;
                let head =
                    FeedbackHead { sender_ssrc: OWN_SSRC, media_ssrc, base_seq, feedback_count };
                let told = writer.transport_cc(&head, rest);
                assert!(told > 0, "a feedback tells of something");
                self.feedback_count = feedback_count.wrapping_add(1);
                base_seq = rest[told - 1].seq.wrapping_add(1);
                rest = &rest[told..];
                written.push(writer.as_bytes().to_vec());
            }
        }
        for packet in written {
            self.send(&packet);
        }
    }

    fn write_requests(&mut self, now: Instant) {
        if !self.habits.nack {
            self.next_request = None;
            let is_broken = |stream: &mut Incoming| std::mem::take(&mut stream.is_broken);
            let streams = self.streams.iter_mut();
            let broken: Vec<_> =
                streams.filter_map(|(at, it)| is_broken(it).then_some(*at)).collect();
            broken.into_iter().for_each(|ssrc| self.wish_key_frame(now, ssrc));
            return;
        }
        let mut space = [0; 1200];
        let mut writer = RtcpWriter::new(&mut space);
        for (ssrc, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.is_video) {
            let due = stream.poll_requests(now);
            if !due.is_empty() {
                let _ = writer.nack(OWN_SSRC, *ssrc, &due);
            }
        }
        let packet = writer.as_bytes().to_vec();
        self.send(&packet);
        let more = self.streams.values().any(Incoming::is_anything_missing);
        self.next_request = more.then_some(now + REQUEST_INTERVAL);
    }

    fn write_report(&mut self, now: Instant) {
        let streams = self.streams.iter_mut();
        let blocks: Vec<_> = streams.filter_map(|(ssrc, it)| it.report(now, *ssrc)).collect();
        let mut space = [0; 1200];
        let mut writer = RtcpWriter::new(&mut space);
        assert!(writer.receiver_report(OWN_SSRC, &blocks));
        if let Answer::Remb(bps) = self.habits.answer {
            let ssrcs: Vec<_> = self.streams.keys().copied().collect();
            assert!(writer.remb(OWN_SSRC, bps, &ssrcs));
        }
        let packet = writer.as_bytes().to_vec();
        self.send(&packet);
    }

    /// Looked at whenever something else is due, at the latest with the next report.
    fn wish_key_frames(&mut self, now: Instant) {
        let mut wishes = Vec::new();
        for (ssrc, stream) in &mut self.streams {
            if !stream.is_video || !stream.is_flowing(now) {
                continue;
            }
            let shown = stream.screen.shown.last().map(|shown| shown.at);
            let patience = if shown.is_some() { STUCK } else { WAITING };
            let since = shown.max(stream.wished);
            if since.is_none_or(|since| now >= since + patience) {
                stream.wished = Some(now);
                // The first is on its way anyway: the server asks for it.
                wishes.extend(since.map(|_| *ssrc));
            }
        }
        wishes.into_iter().for_each(|ssrc| self.wish_key_frame(now, ssrc));
    }

    /// A PLI.
    pub(crate) fn wish_key_frame(&mut self, now: Instant, ssrc: u32) {
        if let Some(stream) = self.streams.get_mut(&ssrc) {
            stream.wished = Some(now);
        }
        let mut space = [0; 32];
        let mut writer = RtcpWriter::new(&mut space);
        assert!(writer.pli(OWN_SSRC, ssrc));
        let packet = writer.as_bytes().to_vec();
        self.send(&packet);
    }

    fn send(&mut self, packet: &[u8]) {
        if !packet.is_empty() {
            let sealed = self.client.seal_rtcp(packet);
            self.client.send(sealed);
        }
    }
}
