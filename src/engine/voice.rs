//! How loud each producer of sound is: gathered per packet where it arrives, handed to the control
//! thread as values a few times a second.
//!
//! A stream owns a [`VoiceMeter`], told by `router` of each packet that a client sent; mirrors have
//! none, so a room hears of a producer once. What a packet's audio-level extension says (RFC 6464)
//! is kept in frames of [`LEVEL_FRAME`], the rhythm of Opus; senders that pack more into a packet
//! speak for the frames before it. Every [`LEVEL_WINDOW`] the frames leave in one
//! [`Event::AudioLevels`]. Silence is told for a second, then nothing until somebody is heard again:
//! muted microphones and paused producers cost nothing.
//!
//! Invariants: a packet allocates nothing (the list of streams keeps its capacity); a window has at
//! most [`LEVEL_FRAMES`] frames however late its timer fires.
//!
//! Not here: who is the speaker. That takes the whole room, which may live on several shards; see
//! [`speakers`](crate::control::speakers).

use std::time::{Duration, Instant};

use crate::control::command::Event;
use crate::engine::stream::Stream;
use crate::engine::{Engine, StreamKey, TimerKey};
use crate::limits::{
    AUDIBLE_LEVEL, LEVEL_AFTERGLOW, LEVEL_FRAME, LEVEL_FRAMES, LEVEL_WINDOW, LEVELS_PER_EVENT_MAX,
};

/// The loudest value of RFC 6464: what its level is taken from to get a loudness.
const LOUDEST: u8 = 127;

/// Frames that one packet may speak for: 60 ms is the longest that browsers pack into one.
const FRAMES_PER_PACKET_MAX: usize = 3;

/// The loudness of one producer over a span of time.
///
/// One value for each [`LEVEL_FRAME`], in order: 0 is silence, 127 the loudest there is; 127 less
/// the value is the level of RFC 6464, in dB below full scale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LevelWindow {
    frames: [u8; LEVEL_FRAMES],
    len: u8,
}

impl LevelWindow {
    /// The frames of a list, as many as there is room for.
    #[must_use]
    pub fn new(loudness: &[u8]) -> Self {
        let mut window = Self::default();
        for (frame, value) in window.frames.iter_mut().zip(loudness) {
            *frame = (*value).min(LOUDEST);
            window.len += 1;
        }
        window
    }

    /// Its values.
    #[must_use]
    pub fn frames(&self) -> &[u8] {
        self.frames.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// True when any frame is worth telling.
    #[must_use]
    pub fn is_audible(&self) -> bool {
        self.frames().iter().any(|loudness| *loudness >= AUDIBLE_LEVEL)
    }
}

/// The frames of one stream since the last window left.
#[derive(Debug, Clone, Copy, Default)]
pub struct VoiceMeter {
    /// One more than the loudness; 0 where nothing was heard.
    frames: [u8; LEVEL_FRAMES],
    /// Among the streams to be asked when the window ends.
    queued: bool,
    /// Windows that are told although they are silent: who chooses among voices must see this one
    /// end.
    afterglow: u8,
}

impl VoiceMeter {
    /// Takes the level of a packet that arrived `offset` into the window (RFC 6464 §3: the V bit,
    /// then dB below full scale).
    fn note(&mut self, offset: Duration, level: u8) {
        let loudness = LOUDEST - (level & LOUDEST);
        let place = frame_of(offset).min(LEVEL_FRAMES - 1);
        if let Some(frame) = self.frames.get_mut(place) {
            *frame = (*frame).max(loudness + 1);
        }
        // What it holds was said before it came.
        let before = self.frames.iter_mut().take(place).rev().take(FRAMES_PER_PACKET_MAX - 1);
        for frame in before.take_while(|frame| **frame == 0) {
            *frame = loudness + 1;
        }
    }

    /// Ends a window of `span`; `None` when nothing was heard in it.
    fn take(&mut self, span: Duration) -> Option<LevelWindow> {
        let mut frames = std::mem::take(&mut self.frames);
        let last = frames.iter().rposition(|frame| *frame > 0)?;
        // What the next packet will hold has been said already.
        let held = frames.get(last).copied().unwrap_or_default();
        for frame in frames.iter_mut().skip(last + 1).take(FRAMES_PER_PACKET_MAX - 1) {
            *frame = held;
        }
        let len = frame_of(span).clamp(last + 1, LEVEL_FRAMES);
        let loudness = frames.map(|frame| frame.saturating_sub(1));
        Some(LevelWindow::new(loudness.get(..len).unwrap_or_default()))
    }
}

impl VoiceMeter {
    /// Ends a window; whether it is to be told.
    fn end_window(&mut self, span: Duration) -> (LevelWindow, bool) {
        let window = self.take(span);
        let is_audible = window.is_some_and(|window| window.is_audible());
        let is_told = is_audible || self.afterglow > 0;
        self.afterglow =
            if is_audible { LEVEL_AFTERGLOW } else { self.afterglow.saturating_sub(1) };
        self.queued = window.is_some() || self.afterglow > 0;
        (window.unwrap_or_default(), is_told)
    }
}

/// How many whole frames a span holds.
fn frame_of(span: Duration) -> usize {
    usize::try_from(span.as_millis() / LEVEL_FRAME.as_millis()).unwrap_or(usize::MAX)
}

/// What an engine keeps for all its streams.
#[derive(Debug, Default)]
pub struct Voices {
    /// Streams that were heard in this window or the last, each once.
    heard: Vec<StreamKey>,
    /// When the window began; `None` while nobody is heard.
    since: Option<Instant>,
}

impl Engine {
    /// Notes the level of the packet that a stream brought last, if it has one.
    pub(super) fn note_voice(&mut self, now: Instant, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some((level, meter)) = newest_level(stream) else { return };
        let voices = &mut self.voices;
        let since = *voices.since.get_or_insert(now);
        meter.note(now.saturating_duration_since(since), level);
        if !meter.queued {
            meter.queued = true;
            voices.heard.push(key);
            self.timers.arm(TimerKey::Voices, since + LEVEL_WINDOW);
        }
    }

    /// Ends the window: tells who was heard, and who fell silent.
    pub(super) fn tell_voices(&mut self, now: Instant) {
        let Some(since) = self.voices.since.take() else { return };
        let span = now.saturating_duration_since(since);
        let mut told = Vec::new();
        let (streams, producers) = (&mut self.streams, &self.producers);
        self.voices.heard.retain(|key| {
            let Some(stream) = streams.get_mut(*key) else { return false };
            let Some(meter) = &mut stream.voice else { return false };
            let (window, is_told) = meter.end_window(span);
            if is_told && let Some(producer) = producers.get(stream.producer) {
                told.push((producer.id, window));
            }
            meter.queued
        });
        if !self.voices.heard.is_empty() {
            self.voices.since = Some(now);
            self.timers.arm(TimerKey::Voices, now + LEVEL_WINDOW);
        }
        for levels in told.chunks(LEVELS_PER_EVENT_MAX) {
            self.tell(Event::AudioLevels(levels.into()));
        }
    }
}

/// The level of the newest packet of a stream that is metered.
fn newest_level(stream: &mut Stream) -> Option<(u8, &mut VoiceMeter)> {
    let meter = stream.voice.as_mut()?;
    let newest = stream.ring.newest()?;
    Some((newest.extensions.audio_level?, meter))
}

const _: () = assert!(LEVEL_FRAMES as u128 * LEVEL_FRAME.as_millis() == LEVEL_WINDOW.as_millis());
const _: () = assert!(LEVEL_FRAMES <= u8::MAX as usize);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The loudness of a window in which packets of these levels came.
    fn window(packets: &[(u64, u8)], span: u64) -> Option<Vec<u8>> {
        let mut meter = VoiceMeter::default();
        for (at, level) in packets {
            meter.note(ms(*at), *level);
        }
        let window = meter.take(ms(span));
        assert_eq!(meter.take(ms(span)), None, "a window leaves once");
        window.map(|window| window.frames().to_vec())
    }

    #[test]
    fn a_level_is_the_loudness_of_its_frame_and_of_gaps_before_it() {
        let mut steady = [0; 10];
        steady.fill(87);
        let every_20: Vec<_> = (0..10).map(|n| (n * 20 + 3, 40)).collect();
        let every_60: Vec<_> = [40, 100, 160].map(|at| (at, 40)).to_vec();
        assert_eq!(window(&every_20, 200), Some(steady.to_vec()));
        assert_eq!(window(&every_60, 200), Some(steady.to_vec()), "60 ms in a packet");
        assert_eq!(window(&[], 200), None);
        // The voice bit is no loudness; of two packets of one frame the louder counts.
        assert_eq!(window(&[(5, 0x80 | 20), (15, 30)], 20), Some(vec![107]));
        // DTX: one packet of silence in a while.
        assert_eq!(window(&[(100, 127)], 200), Some(vec![0; 10]));
    }

    #[test]
    fn a_pause_longer_than_a_packet_is_silence() {
        let heard = window(&[(0, 27), (160, 27)], 200);
        assert_eq!(heard, Some(vec![100, 0, 0, 0, 0, 0, 100, 100, 100, 100]));
    }

    #[test]
    fn a_late_or_early_timer_bounds_the_window() {
        assert_eq!(window(&[(900, 27)], 1000).map(|frames| frames.len()), Some(LEVEL_FRAMES));
        assert_eq!(window(&[(50, 27)], 60).map(|frames| frames.len()), Some(3));
    }

    #[test]
    fn silence_is_told_for_a_second_and_then_nothing() {
        let mut meter = VoiceMeter::default();
        let mut told = Vec::new();
        for (window, level) in [100, 100, 30, 100, 100, 100, 100, 100, 100, 100].iter().enumerate()
        {
            meter.note(ms(0), *level);
            let (_, is_told) = meter.end_window(LEVEL_WINDOW);
            told.extend(is_told.then_some(window));
            assert!(meter.queued, "packets come");
        }
        assert_eq!(told, [2, 3, 4, 5, 6, 7]);
        let (_, is_told) = meter.end_window(LEVEL_WINDOW);
        assert!(!is_told && !meter.queued);
    }

    proptest! {
        #[test]
        fn no_packet_is_lost_and_none_is_louder_than_it_was(
            packets in prop::collection::vec((0u64..200, any::<u8>()), 1..40),
        ) {
            let heard = window(&packets, 200).expect("packets came");
            let loudest = packets.iter().map(|(_, level)| 127 - (level & 127)).max();
            prop_assert_eq!(heard.iter().max().copied(), loudest);
            for (at, level) in &packets {
                let place = usize::try_from(at / 20).unwrap();
                prop_assert!(heard[place] >= 127 - (level & 127));
            }
        }
    }
}
