//! How a consumer goes over to another stream, or begins: with a key frame that has begun to arrive.
//!
//! Called by `egress` when a consumer's turn has come, on the shard's thread. Invariants: what goes
//! out goes on without a gap in its numbers, in picture ids where the payload has them, and with
//! timestamps that keep to the capture times as far as sender reports tell them. Which stream to go
//! over to is the router's choice.

use std::time::Instant;

use slotmap::SlotMap;

use crate::engine::StreamKey;
use crate::engine::consumer::{Consumer, Cursor};
use crate::engine::egress::Way;
use crate::engine::rewrite::Switch;
use crate::engine::stream::Stream;

impl Consumer {
    /// Waits for the next key frame of `stream` instead of going on.
    pub(super) fn await_key_frame(&mut self, key: StreamKey, stream: &mut Stream, now: Instant) {
        if self.playing.is_some_and(|playing| playing.stream == key) {
            self.left = stream.clock.point().or(self.left);
        }
        self.playing = None;
        self.aim(key, stream, now);
    }

    /// Goes over to the awaited stream if its key frame has begun to arrive.
    pub(super) fn switch(
        &mut self,
        streams: &mut SlotMap<StreamKey, Stream>,
        way: &mut Way<'_>,
    ) -> bool {
        let Some(mut awaiting) = self.awaiting else { return false };
        let left = self.playing.and_then(|playing| streams.get(playing.stream)?.clock.point());
        let left = left.or(self.left);
        let Some(stream) = streams.get_mut(awaiting.stream) else {
            self.awaiting = None;
            return false;
        };
        awaiting.next = awaiting.next.max(stream.oldest());
        while awaiting.next < stream.ring.head() {
            let at = awaiting.next;
            awaiting.next = at.next();
            let Some((meta, _)) = stream.ring.get(at) else { continue };
            if !meta.info.key_frame || self.codec(meta.payload_type).is_none() {
                continue;
            }
            let (seq, timestamp) = (meta.seq, meta.timestamp);
            let entered = stream.clock.point();
            match self.time.switch(way.now, timestamp, left, entered) {
                Switch::AskAgain => {
                    stream.key_frames.request(way.now);
                    way.note_move(self.producer);
                    continue;
                }
                Switch::Accepted => {}
            }
            self.seq.sync(seq);
            let next = stream.first_of_key_frame(at, seq);
            if self.playing.is_some() {
                way.counters.layer_switches += 1;
                way.note_move(self.producer);
            }
            self.left = entered;
            self.select.start(awaiting.stream, meta);
            self.playing = Some(Cursor { stream: awaiting.stream, next });
            self.live_from = awaiting.since;
            self.awaiting = None;
            if let Some(outgoing) = &mut way.outgoing {
                outgoing.renew_repairs();
            }
            return true;
        }
        self.awaiting = Some(awaiting);
        false
    }
}
