//! What a shard at its limit lets go: packets that waited too long for their turn to be sent.
//!
//! Called by `egress` when a consumer's turn has come, on the shard's thread. The turns go round, so
//! when there is more to send than the shard can, all consumers fall behind alike, whatever their
//! room. What waited for more than [`FORWARD_AGE_MAX`] is left out: audio goes on with the first
//! packet that did not, video with the first key frame that did not, or the next one to come. The
//! rest is sent in the same turn, which brings the consumer to the head; and who waits for a key
//! frame costs nothing, so the round gets shorter until it is in time.
//!
//! Invariants: what goes out has no gap in its numbers, so that nobody asks for what was shed; only
//! waiting counts, that is the time since the packet came and the consumer became due: neither the
//! age of what a late joiner catches up with, nor of a late repair, nor what the kernel held back
//! while the whole shard stood still. Key frames that this asks for are limited as all are
//! ([`KeyFrameThrottle`](super::keyframe::KeyFrameThrottle)): one a second for a stream, however
//! many wait for it.

use std::time::Instant;

use slotmap::SlotMap;

use crate::engine::StreamKey;
use crate::engine::consumer::{Awaiting, Consumer};
use crate::engine::report::Counters;
use crate::engine::ring::PacketIndex;
use crate::engine::stream::Stream;
use crate::limits::FORWARD_AGE_MAX;
use crate::ortc::types::MediaKind;

impl Consumer {
    /// Leaves out what waited too long; true when it now waits for a key frame. To be called when
    /// the consumer's turn begins, or goes on.
    pub(super) fn shed(
        &mut self,
        now: Instant,
        streams: &mut SlotMap<StreamKey, Stream>,
        counters: &mut Counters,
    ) -> bool {
        let Some(cursor) = &mut self.playing else { return false };
        let Some(stream) = streams.get_mut(cursor.stream) else { return false };
        let due_since = self.due_since;
        let is_late = |index: PacketIndex, stream: &Stream| {
            // What the ring no longer has came before the rest.
            let arrival = stream.ring.arrival(index.max(stream.ring.oldest()));
            let since = arrival.map(|arrival| due_since.map_or(arrival, |due| due.max(arrival)));
            since.is_some_and(|since| now.saturating_duration_since(since) > FORWARD_AGE_MAX)
        };
        if !is_late(cursor.next, stream) {
            return false;
        }
        let (from, head) = (cursor.next, stream.ring.head());
        let mut next = from.max(stream.ring.oldest());
        while next < head && is_late(next, stream) {
            next = next.next();
        }
        if self.kind == MediaKind::Audio {
            cursor.next = next;
            self.closes_up = true;
            counters.shed_audio += next.number() - from.number();
            self.tally.shed += next.number() - from.number();
            return false;
        }
        let key_frame = first_key_frame(stream, next);
        let shed = key_frame.unwrap_or(head).number() - from.number();
        counters.shed_video += shed;
        self.tally.shed += shed;
        // It comes back to the same stream: its timestamps are to go on as they were.
        self.left = stream.clock.point().or(self.left);
        self.awaiting = Some(Awaiting { stream: cursor.stream, next, since: next });
        self.playing = None;
        if key_frame.is_none() {
            stream.key_frames.request(now);
        }
        true
    }
}

/// The first packet from `from` on that begins a key frame.
fn first_key_frame(stream: &Stream, from: PacketIndex) -> Option<PacketIndex> {
    let behind = (from.number()..stream.ring.head().number()).map(PacketIndex::new);
    let is_key =
        |index: &PacketIndex| stream.ring.get(*index).is_some_and(|(meta, _)| meta.info.key_frame);
    behind.into_iter().find(is_key)
}
