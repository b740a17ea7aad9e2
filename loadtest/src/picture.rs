//! What a viewer would notice of a received stream: jitter, frames that came late, freezes.
//!
//! Pure; fed by a received stream with what its readable headers say. Times are ns of the run.

use std::collections::VecDeque;
use std::ops::Range;

use crate::clock::{MILLISECOND, SECOND};

/// Frames whose packets are not all there; older ones are let go.
const WAITING_MAX: usize = 256;

/// Interarrival jitter (RFC 3550 §6.4.1), once per RTP time stamp, as libwebrtc takes it.
#[derive(Debug, Default)]
pub(crate) struct Jitter {
    last: Option<(u32, u32)>,
    sixteenths: u64,
}

impl Jitter {
    /// Notes a packet that arrived in order. `clock_rate` is the stream's, Hz.
    pub(crate) fn note(&mut self, timestamp: u32, arrival: u64, clock_rate: u64) {
        if self.last.is_some_and(|(known, _)| known == timestamp) {
            return;
        }
        // Fine enough for any clock rate, and no overflow for a century.
        let [.., a, b, c, d] = (arrival / 1_000 * (clock_rate / 1_000) / 1_000).to_be_bytes();
        let ticks = u32::from_be_bytes([a, b, c, d]);
        if let Some((known, at)) = self.last {
            let difference = ticks.wrapping_sub(at).wrapping_sub(timestamp.wrapping_sub(known));
            let distance = u64::from(difference.cast_signed().unsigned_abs());
            // J += (|D| - J) / 16, kept in sixteenths.
            self.sixteenths += distance;
            self.sixteenths -= (self.sixteenths - distance + 8) / 16;
        }
        self.last = Some((timestamp, ticks));
    }

    /// In ticks of the stream's clock, as a report block wants it.
    pub(crate) fn ticks(&self) -> u32 {
        u32::try_from(self.sixteenths / 16).unwrap_or(u32::MAX)
    }

    /// In nanoseconds.
    pub(crate) fn nanoseconds(&self, clock_rate: u64) -> u64 {
        self.sixteenths * SECOND / 16 / clock_rate.max(1)
    }
}

/// When the frames of a stream were complete, and for how long there was none.
///
/// A freeze is what W3C's webrtc-stats calls one: an interval between frames of at least three
/// times the average and 150 ms more than it.
#[derive(Debug, Default)]
pub(crate) struct FrameClock {
    waiting: VecDeque<i64>,
    last: Option<u64>,
    mean: u64,
    complete: u64,
}

/// What the completion of frames showed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Frames completed.
    pub(crate) frames: u64,
    /// Freezes.
    pub(crate) freezes: u64,
    /// Their time, ns.
    pub(crate) frozen: u64,
}

impl FrameClock {
    /// Notes the arrival of a frame's last packet.
    pub(crate) fn note_last(&mut self, index: i64) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        let place = self.waiting.partition_point(|known| *known < index);
        self.waiting.insert(place, index);
    }

    /// Completes the frames before `oldest`, the first packet that is missing, if any is.
    pub(crate) fn complete(&mut self, oldest: Option<i64>, now: u64) -> Shown {
        let mut shown = Shown::default();
        while let Some(&index) = self.waiting.front()
            && oldest.is_none_or(|oldest| index < oldest)
        {
            self.waiting.pop_front();
            shown.frames += 1;
            let interval = self.last.map(|last| now.saturating_sub(last));
            self.last = Some(now);
            let Some(interval) = interval else { continue };
            self.complete += 1;
            // The first intervals say what is usual.
            if self.complete > 5 && interval >= self.freezes_from() {
                shown.freezes += 1;
                shown.frozen += interval;
            }
            self.mean = (self.mean * self.complete.min(30).saturating_sub(1) + interval)
                / self.complete.min(30);
        }
        shown
    }

    /// The stillness that no frame has ended by the end of a window, as far as it lies within: what
    /// a picture shows whose stream has stopped.
    pub(crate) fn still(&self, window: &Range<u64>) -> Shown {
        let last = self.last.unwrap_or(window.start);
        let usual = match self.complete {
            // Nobody knows what is usual; a window without any frame is not.
            0 if self.last.is_some_and(|last| last >= window.start) => return Shown::default(),
            0..=5 => self.freezes_from().max(SECOND),
            _ => self.freezes_from(),
        };
        if window.end.saturating_sub(last) < usual {
            return Shown::default();
        }
        Shown { freezes: 1, frozen: window.end - last.max(window.start), ..Shown::default() }
    }

    /// The average interval between frames, ns; zero when none is known.
    pub(crate) fn mean(&self) -> u64 {
        self.mean
    }

    /// How long an interval is that counts as a freeze.
    fn freezes_from(&self) -> u64 {
        self.mean.saturating_mul(3).max(self.mean + 150 * MILLISECOND)
    }

    /// True when a frame waits for a packet.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_stream_has_no_jitter_and_an_uneven_one_tends_to_its_unevenness() {
        let mut even = Jitter::default();
        let mut uneven = Jitter::default();
        for frame in 0..2_000_u32 {
            let due = u64::from(frame) * 20 * MILLISECOND;
            let timestamp = u32::MAX.wrapping_add(frame * 1_800);
            even.note(timestamp, due, 90_000);
            even.note(timestamp, due + MILLISECOND, 90_000);
            let late = if frame % 2 == 0 { 0 } else { 4 * MILLISECOND };
            uneven.note(timestamp, due + late, 90_000);
        }
        assert_eq!(even.ticks(), 0);
        let expected = 4 * MILLISECOND;
        assert!(uneven.nanoseconds(90_000).abs_diff(expected) < expected / 20);
        assert!(uneven.ticks().abs_diff(360) <= 18);
    }

    #[test]
    fn a_pause_between_frames_is_a_freeze_and_usual_intervals_are_none() {
        let mut frames = FrameClock::default();
        let mut all = Shown::default();
        let mut now = 0;
        for frame in 0..100 {
            now += if frame == 50 { 400 * MILLISECOND } else { 33 * MILLISECOND };
            frames.note_last(frame);
            let shown = frames.complete(None, now);
            all.frames += shown.frames;
            all.freezes += shown.freezes;
            all.frozen += shown.frozen;
        }
        assert_eq!(all, Shown { frames: 100, freezes: 1, frozen: 400 * MILLISECOND });
    }

    #[test]
    fn a_picture_that_stays_still_is_frozen_until_the_end_of_the_window() {
        let mut frames = FrameClock::default();
        let window = SECOND..5 * SECOND;
        let whole = Shown { freezes: 1, frozen: 4 * SECOND, ..Shown::default() };
        assert_eq!(frames.still(&window), whole, "no frame at all");
        for frame in 0..60 {
            frames.note_last(frame);
            frames.complete(None, u64::try_from(frame).unwrap() * 33 * MILLISECOND);
        }
        let last = 59 * 33 * MILLISECOND;
        let rest = Shown { freezes: 1, frozen: 5 * SECOND - last, ..Shown::default() };
        assert_eq!(frames.still(&window), rest);
        assert_eq!(frames.still(&(5 * SECOND..9 * SECOND)), whole, "since before the window");
        assert_eq!(frames.still(&(0..last + 170 * MILLISECOND)), Shown::default(), "as usual");
    }

    #[test]
    fn a_frame_waits_for_its_missing_packet_and_those_behind_it_wait_too() {
        let mut frames = FrameClock::default();
        for index in [4, 14, 9] {
            frames.note_last(index);
        }
        assert_eq!(frames.complete(Some(3), 1).frames, 0);
        assert_eq!(frames.complete(Some(10), 2).frames, 2);
        assert!(frames.is_waiting());
        assert_eq!(frames.complete(None, 3).frames, 1);
        assert!(!frames.is_waiting());
    }
}
