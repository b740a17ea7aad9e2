//! Key frames on their way over a slow link, and wishes for another one that meet them.
//!
//! Called for requests, feedback and reports of receivers, on the shard's thread. A receiver asks for
//! a key frame when it could show nothing for some time (browsers after 200 ms), and asks again while
//! the one that it gets is on its way: another would only come later still. But a wish for want of
//! what that key frame lost on its way comes at the same time, and mostly before the feedback that
//! tells so.
//!
//! * Over any other link a key frame is not under way for long: every wish is passed on.
//! * Who can ask for lost packets again will do so: its wish is answered by the key frame under way.
//! * Who cannot is taken at its word as soon as a packet is known to be lost that left between the
//!   beginning of the key frame and its wish. When all of them have arrived the wish is no more.
//!
//! Which packets arrived is known of transport-wide feedback, else, for a whole second at once, of
//! reports. The throttle of the stream (`keyframe`) comes after all of this.

use std::time::{Duration, Instant};

use crate::engine::bwe::Fate;
use crate::engine::consumer::Consumer;
use crate::engine::packet::PacketMeta;
use crate::engine::rtcp::ReportBlock;
use crate::engine::rtp::seq_diff;
use crate::engine::sent::low_16;
use crate::engine::{ConsumerKey, Engine, TransportKey};
use crate::limits::KEY_FRAME_UNDER_WAY_MAX;
use crate::ortc::types::MediaKind;

/// A key frame that was sent over a slow link, or as much of it as has left.
#[derive(Debug, Clone, Copy)]
pub struct SentKeyFrame {
    /// As it came.
    pub timestamp: u32,
    /// When its last packet left.
    left: Instant,
    /// The number of its first packet: transport-wide where there are such, else its own.
    first: u16,
    /// The number that had left last when another one was asked for.
    wished: Option<u16>,
}

impl SentKeyFrame {
    /// What a report says of all that left until the wish.
    fn fate_in(&self, block: &ReportBlock, wished: u16) -> Fate {
        let highest = low_16(block.highest_seq.into());
        if seq_diff(highest, self.first) < 0 {
            Fate::UnderWay
        } else if block.fraction_lost > 0 {
            Fate::Lost
        } else if seq_diff(highest, wished) < 0 {
            Fate::UnderWay
        } else {
            Fate::Arrived
        }
    }
}

impl Consumer {
    /// A packet left under this number over a link that has to be heeded.
    pub(super) fn note_key_frame(&mut self, meta: &PacketMeta, number: u16, now: Instant) {
        let (timestamp, left) = (meta.timestamp, now);
        match &mut self.key_frame {
            Some(sent) if sent.timestamp == timestamp => sent.left = left,
            _ if self.kind == MediaKind::Video && meta.info.key_frame => {
                self.key_frame =
                    Some(SentKeyFrame { timestamp, left, first: number, wished: None });
            }
            _ => {}
        }
    }
}

impl Engine {
    /// A receiver asks for a key frame.
    pub(super) fn answer_key_frame_wish(&mut self, now: Instant, key: ConsumerKey) {
        if !self.is_key_frame_under_way(now, key) {
            return self.ask_key_frame(now, key);
        }
        let Some(consumer) = self.consumers.get_mut(key).filter(|it| !it.repairable) else {
            return;
        };
        let Some(transport) = self.transports.get_mut(consumer.transport) else { return };
        let newest = match consumer.numbered {
            true => transport.transport_seq.wrapping_sub(1),
            false => low_16(consumer.seq.newest()),
        };
        let (Some(sent), Some(outgoing)) = (&mut consumer.key_frame, &mut transport.outgoing)
        else {
            return;
        };
        sent.wished = Some(newest);
        if consumer.numbered {
            // The loss may be known already.
            let fate = outgoing.estimator().fate(sent.first, newest);
            outgoing.has_wishes = true;
            self.settle_wish(now, key, fate);
        }
    }

    /// True when a key frame is on its way to a receiver, or waits for its link.
    fn is_key_frame_under_way(&self, now: Instant, key: ConsumerKey) -> bool {
        let Some(consumer) = self.consumers.get(key) else { return false };
        let outgoing = self.transports.get(consumer.transport).and_then(|t| t.outgoing.as_ref());
        let Some(outgoing) = outgoing.filter(|outgoing| outgoing.is_paced()) else {
            return false;
        };
        let Some(SentKeyFrame { timestamp, left, .. }) = consumer.key_frame else { return false };
        let waits = consumer.playing.is_some_and(|playing| {
            let stream = self.streams.get(playing.stream);
            let next = stream.and_then(|stream| stream.ring.get(playing.next));
            next.is_some_and(|(meta, _)| meta.timestamp == timestamp)
        });
        let told = outgoing.estimator().told_until();
        let is_recent = now.saturating_duration_since(left) < KEY_FRAME_UNDER_WAY_MAX;
        // Who tells of no packets has it a round trip after the link has carried it. What is told is
        // in whole microseconds.
        let is_on_its_way = match told {
            Some(told) => told + Duration::from_micros(1) < left,
            None => now < outgoing.pacer.clear_at + consumer.round_trip,
        };
        is_recent && (waits || is_on_its_way)
    }

    /// A receiver told of packets: what that says of the wishes that wait for it.
    pub(super) fn settle_wishes(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(outgoing) = transport.outgoing.as_mut().filter(|it| it.has_wishes) else { return };
        outgoing.has_wishes = false;
        for index in 0..transport.consumers.len() {
            let Some(transport) = self.transports.get_mut(key) else { return };
            let Some(outgoing) = &mut transport.outgoing else { return };
            let Some(consumer_key) = transport.consumers.get(index).copied() else { return };
            let sent = self.consumers.get(consumer_key).filter(|consumer| consumer.numbered);
            let sent = sent.and_then(|consumer| consumer.key_frame);
            let Some((first, last)) = sent.and_then(|sent| Some((sent.first, sent.wished?))) else {
                continue;
            };
            let fate = outgoing.estimator().fate(first, last);
            outgoing.has_wishes |= fate == Fate::UnderWay;
            self.settle_wish(now, consumer_key, fate);
        }
    }

    /// The same where a receiver tells of packets by its reports only.
    pub(super) fn settle_reported_wish(
        &mut self,
        now: Instant,
        key: ConsumerKey,
        block: &ReportBlock,
    ) {
        let sent = self.consumers.get(key).filter(|consumer| !consumer.numbered);
        let Some(sent) = sent.and_then(|consumer| consumer.key_frame) else { return };
        if let Some(wished) = sent.wished {
            self.settle_wish(now, key, sent.fate_in(block, wished));
        }
    }

    fn settle_wish(&mut self, now: Instant, key: ConsumerKey, fate: Fate) {
        if fate == Fate::UnderWay {
            return;
        }
        if let Some(sent) = self.consumers.get_mut(key).and_then(|it| it.key_frame.as_mut()) {
            sent.wished = None;
        }
        if fate == Fate::Lost {
            self.ask_key_frame(now, key);
        }
    }
}
