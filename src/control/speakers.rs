//! Who speaks in a room, and how loud everybody is.
//!
//! The dominant speaker is chosen in the way of Volfin and Cohen ("Dominant speaker identification
//! for multipoint videoconferencing", Computer Speech & Language 27, 2013), which Jitsi and
//! mediasoup use, too: each voice is rated over a short, a medium and a long span, and another one
//! takes over only when it is better by a threshold in all three. The short span says that the
//! speaker has paused and the other has not, the medium one that the other's sound lasts longer
//! than a knock, the long one that it has spoken more of late. So a cough does not take over, and a
//! pause for breath gives nothing away.
//!
//! Owned by the control plane's state, one for each room in which somebody was heard. Pure: levels
//! and times are arguments, what is to be told comes out. Invariants: no more than
//! [`VOICES_PER_ROOM_MAX`] voices; who was never audible takes no place; an evaluation costs a few
//! hundred steps for each voice. In silence the last speaker stays the speaker.
//!
//! Not here: gathering levels ([`voice`](crate::engine::voice)), and who is told.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::engine::voice::LevelWindow;
use crate::id::ProducerId;
use crate::limits::{
    AUDIBLE_LEVEL, AUDIO_LEVELS_INTERVAL, AUDIO_LEVELS_TOLD_MAX, LEVEL_FRAME, SPEAKER_INTERVAL,
    VOICE_FORGOTTEN, VOICES_PER_ROOM_MAX,
};

/// Frames of the long span: one second.
const LONG_FRAMES: usize = 50;

/// Frames of one block, of which the longer spans are made: 100 ms, a syllable.
const BLOCK_FRAMES: usize = 5;

/// Blocks of the long span.
const BLOCKS: usize = LONG_FRAMES / BLOCK_FRAMES;

/// The same numbers for arithmetic.
const BLOCK: u32 = 5;
const LONG: u32 = 10;

/// Steps of loudness that the short span tells apart.
const STEPS: u8 = 13;

/// dB of one step: four of them are a voice, thirteen a loud one next to the microphone.
const STEP_DB: u8 = 3;

/// Steps above the noise from which a frame counts as speech.
const SPEECH_STEPS: u8 = 4;

/// Frames of speech in a block that make it one of speech: more than half.
const SPEECH_FRAMES: u32 = 3;

/// What each span's rating must exceed the dominant speaker's by, as logarithm of their ratio
/// (C1, C2 and C3 of the paper).
const SHORT_LEAD: f64 = 3.0;
const MEDIUM_LEAD: f64 = 2.0;
const LONG_LEAD: f64 = 0.0;

/// Rates of the exponential distributions of the spans' activity without speech (as in Jitsi).
const SHORT_RATE: f64 = 0.78;
const MEDIUM_RATE: f64 = 24.0;
const LONG_RATE: f64 = 47.0;

/// The least rating, so that ratios exist.
const RATING_MIN: f64 = 1e-10;

/// Frames after which the noise of a voice is believed to be one step louder: two seconds, so that
/// a sentence does not pass for noise.
const NOISE_RISE_FRAMES: u32 = 100;

/// Loudness that is never taken for noise: −52 dB, as loud as a fan next to the microphone.
const NOISE_MAX: u8 = 75;

/// dB by which a level must have changed to be told again.
const TOLD_STEP_DB: u8 = 3;

/// One voice's last second.
#[derive(Debug)]
struct Voice {
    /// Steps above the noise, the newest frame last.
    frames: VecDeque<u8>,
    /// Loudness of its background.
    noise: u8,
    /// Frames since the noise was last believed louder.
    noise_age: u32,
    /// The last time it was heard of, and the last time it was audible.
    heard: Instant,
    audible: Instant,
    /// Sum and number of loudness values since levels were told last.
    sum: u32,
    count: u32,
    /// Their mean then.
    mean: u8,
}

impl Voice {
    fn new(now: Instant) -> Self {
        Self {
            frames: VecDeque::with_capacity(LONG_FRAMES),
            noise: AUDIBLE_LEVEL,
            noise_age: 0,
            heard: now,
            audible: now,
            sum: 0,
            count: 0,
            mean: 0,
        }
    }

    fn hear(&mut self, now: Instant, window: &LevelWindow) {
        self.heard = now;
        if window.is_audible() {
            self.audible = now;
        }
        for loudness in window.frames() {
            self.sum += u32::from(*loudness);
            self.count += 1;
            self.push(*loudness);
        }
        if window.frames().is_empty() {
            self.silence(LONG_FRAMES);
        }
    }

    fn push(&mut self, loudness: u8) {
        self.follow_noise(loudness);
        if self.frames.len() >= LONG_FRAMES {
            self.frames.pop_front();
        }
        let above = loudness.saturating_sub(self.noise.max(AUDIBLE_LEVEL));
        self.frames.push_back((above / STEP_DB).min(STEPS));
    }

    /// The background is the least that is heard, but what is never quieter becomes it in time.
    /// Digital silence is no background: a gate or DTX closed the microphone.
    fn follow_noise(&mut self, loudness: u8) {
        if loudness == 0 {
            return;
        }
        if loudness <= self.noise {
            (self.noise, self.noise_age) = (loudness, 0);
            return;
        }
        self.noise_age += 1;
        if self.noise_age >= NOISE_RISE_FRAMES {
            self.noise_age = 0;
            self.noise = (self.noise + STEP_DB).min(NOISE_MAX).min(loudness);
        }
    }

    /// Frames of which nothing was heard.
    fn silence(&mut self, frames: usize) {
        (self.sum, self.count, self.mean) = (0, 0, 0);
        for _ in 0..frames.min(LONG_FRAMES) {
            self.push(0);
        }
    }

    /// Catches up with the time that passed without a word of it.
    fn age(&mut self, now: Instant) {
        let missing = now.saturating_duration_since(self.heard).as_millis();
        let frames = usize::try_from(missing / LEVEL_FRAME.as_millis()).unwrap_or(usize::MAX);
        // Less may be a window that is on its way from another shard.
        if frames > LONG_FRAMES / 2 {
            self.silence(frames);
            self.heard = now;
        }
    }

    /// Frames of speech in a block, the newest block is 0.
    fn block(&self, number: usize) -> u32 {
        let frames = self.frames.iter().rev().skip(number * BLOCK_FRAMES).take(BLOCK_FRAMES);
        frames.map(|steps| u32::from(*steps >= SPEECH_STEPS)).sum()
    }

    fn rating(&self) -> Rating {
        let newest = self.frames.iter().rev().take(BLOCK_FRAMES);
        let short = newest.map(|steps| u32::from(*steps)).sum::<u32>() / BLOCK;
        let medium = self.block(0).max(self.block(1));
        let long = (0..BLOCKS).map(|block| u32::from(self.block(block) >= SPEECH_FRAMES)).sum();
        Rating {
            short: rate(short, u32::from(STEPS), SHORT_RATE),
            medium: rate(medium, BLOCK, MEDIUM_RATE),
            long: rate(long, LONG, LONG_RATE),
        }
    }

    /// The mean loudness since it was last asked for; as it was then, if nothing was heard since.
    fn take_mean(&mut self) -> u8 {
        if let Some(mean) = self.sum.checked_div(self.count) {
            self.mean = u8::try_from(mean).unwrap_or(u8::MAX);
        }
        (self.sum, self.count) = (0, 0);
        self.mean
    }
}

/// How active a voice is over each span.
#[derive(Debug, Clone, Copy)]
struct Rating {
    short: f64,
    medium: f64,
    long: f64,
}

impl Rating {
    /// Of nobody.
    const SILENCE: Self = Self { short: RATING_MIN, medium: RATING_MIN, long: RATING_MIN };

    /// By how much it leads another in the medium span, if it leads in all.
    fn lead_over(&self, other: &Self) -> Option<f64> {
        let lead = |mine: f64, others: f64| (mine / others).ln();
        let medium = lead(self.medium, other.medium);
        let leads = lead(self.short, other.short) > SHORT_LEAD
            && medium > MEDIUM_LEAD
            && lead(self.long, other.long) > LONG_LEAD;
        leads.then_some(medium)
    }
}

/// The paper's score of a span in which `active` of `of` parts are active: the logarithm of how much
/// likelier that is with speech (binomial, one in two) than without (exponential of `rate`).
fn rate(active: u32, of: u32, rate: f64) -> f64 {
    let active = active.min(of);
    // The number of ways to choose `active` of `of`.
    let ways: f64 = (0..active).map(|i| (f64::from(of - i) / f64::from(i + 1)).ln()).sum();
    let speech = ways + f64::from(of) * 0.5_f64.ln();
    let none = rate.ln() - rate * f64::from(active);
    (speech - none).max(RATING_MIN)
}

/// How loud a producer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Which one.
    pub producer: ProducerId,
    /// dB below full scale, negative: −127 is silence, 0 the loudest.
    pub level: i8,
}

/// What is to be told of a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpeakerNews {
    /// Somebody else is the speaker now.
    pub speaker: Option<ProducerId>,
    /// Levels that changed: the loudest first; nobody when the room fell silent.
    pub levels: Option<Vec<Level>>,
}

/// The voices of one room.
#[derive(Debug, Default)]
pub struct Speakers {
    voices: BTreeMap<ProducerId, Voice>,
    dominant: Option<ProducerId>,
    evaluated: Option<Instant>,
    /// The levels told last, and when.
    told: Vec<Level>,
    told_at: Option<Instant>,
}

impl Speakers {
    /// Takes what was heard of a producer since the last time; an empty window is silence.
    pub fn hear(&mut self, now: Instant, producer: ProducerId, window: &LevelWindow) {
        if !self.voices.contains_key(&producer) {
            if !window.is_audible() || !self.has_room(now) {
                return;
            }
            self.voices.insert(producer, Voice::new(now));
        }
        if let Some(voice) = self.voices.get_mut(&producer) {
            voice.hear(now, window);
        }
    }

    /// Forgets a producer that was closed or paused; its part as the speaker ends with its voice.
    pub fn forget(&mut self, producer: ProducerId) {
        self.voices.remove(&producer);
        if self.dominant == Some(producer) {
            self.dominant = None;
        }
    }

    /// The speaker, if somebody has spoken.
    #[must_use]
    pub fn dominant(&self) -> Option<ProducerId> {
        self.dominant
    }

    /// What there is to tell at `now`; levels only when `levels_wanted`. To be called when something
    /// was heard; does nothing more often than it has to.
    pub fn poll(&mut self, now: Instant, levels_wanted: bool) -> SpeakerNews {
        let due = |last: Option<Instant>, interval| last.is_none_or(|at| now >= at + interval);
        let mut news = SpeakerNews::default();
        if due(self.evaluated, SPEAKER_INTERVAL) {
            self.evaluated = Some(now);
            self.voices.values_mut().for_each(|voice| voice.age(now));
            news.speaker = self.evaluate();
            self.forget_quiet(now);
        }
        if !levels_wanted {
            self.told.clear();
            self.voices.values_mut().for_each(|voice| _ = voice.take_mean());
        } else if due(self.told_at, AUDIO_LEVELS_INTERVAL) {
            news.levels = self.levels(now);
            if news.levels.is_some() {
                self.told_at = Some(now);
            }
        }
        news
    }

    /// The voice that takes over from the dominant one, if any does.
    fn evaluate(&mut self) -> Option<ProducerId> {
        let current = self.dominant.and_then(|id| self.voices.get(&id));
        let current = current.map_or(Rating::SILENCE, Voice::rating);
        let others = self.voices.iter().filter(|(id, _)| Some(**id) != self.dominant);
        let leads = others.filter_map(|(id, voice)| {
            let rating = voice.rating();
            Some((*id, rating.lead_over(&current)?, rating.long))
        });
        let best = leads.max_by(|a, b| a.1.total_cmp(&b.1).then(a.2.total_cmp(&b.2)));
        let (next, ..) = best?;
        self.dominant = Some(next);
        Some(next)
    }

    /// The levels to tell, if they are others than those told.
    fn levels(&mut self, now: Instant) -> Option<Vec<Level>> {
        let mut levels: Vec<(u8, ProducerId)> = self
            .voices
            .iter_mut()
            .map(|(id, voice)| (voice.take_mean(), *id))
            .filter(|(loudness, _)| *loudness >= AUDIBLE_LEVEL)
            .collect();
        levels.sort_by(|(a, one), (b, other)| b.cmp(a).then(one.cmp(other)));
        levels.truncate(AUDIO_LEVELS_TOLD_MAX);
        // One may have ended before what the next one says has come from another shard.
        let spoke =
            |voice: &Voice| now.saturating_duration_since(voice.audible) < AUDIO_LEVELS_INTERVAL;
        if levels.is_empty() && self.voices.values().any(spoke) {
            return None;
        }
        let level = |loudness: u8| i8::try_from(i16::from(loudness) - 127).unwrap_or(i8::MIN);
        let levels: Vec<Level> = levels
            .into_iter()
            .map(|(loudness, producer)| Level { producer, level: level(loudness) })
            .collect();
        let changed = levels.len() != self.told.len()
            || levels.iter().any(|new| {
                let old = self.told.iter().find(|old| old.producer == new.producer);
                old.is_none_or(|old| old.level.abs_diff(new.level) >= TOLD_STEP_DB)
            });
        changed.then(|| {
            self.told.clone_from(&levels);
            levels
        })
    }

    /// Voices that were not audible for long make room.
    fn forget_quiet(&mut self, now: Instant) {
        let dominant = self.dominant;
        self.voices.retain(|id, voice| {
            dominant == Some(*id) || now.saturating_duration_since(voice.audible) < VOICE_FORGOTTEN
        });
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.voices.len() >= VOICES_PER_ROOM_MAX {
            self.forget_quiet(now);
        }
        self.voices.len() < VOICES_PER_ROOM_MAX
    }
}

const _: () = assert!(BLOCK as usize == BLOCK_FRAMES && LONG as usize == BLOCKS);
const _: () = assert!(LONG_FRAMES.is_multiple_of(BLOCK_FRAMES));

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::engine::test_instant;

    /// Loudness of speech and of a quiet room.
    const SPEECH: u8 = 97;
    const NOISE: u8 = 50;

    const ALICE: ProducerId = ProducerId(Uuid::from_u128(1));
    const BOB: ProducerId = ProducerId(Uuid::from_u128(2));

    /// A room whose voices are heard window by window of 200 ms.
    struct Call {
        speakers: Speakers,
        now: Instant,
        /// Who became the speaker, and after how many windows.
        switches: Vec<(u32, ProducerId)>,
        levels: Vec<(u32, Vec<(ProducerId, i8)>)>,
        windows: u32,
    }

    impl Call {
        fn new() -> Self {
            Self {
                speakers: Speakers::default(),
                now: test_instant(),
                switches: Vec::new(),
                levels: Vec::new(),
                windows: 0,
            }
        }

        /// One window of voices, each with the loudness of its ten frames.
        fn hear(&mut self, voices: &[(ProducerId, [u8; 10])]) {
            self.now += Duration::from_millis(200);
            self.windows += 1;
            for (producer, frames) in voices {
                self.speakers.hear(self.now, *producer, &LevelWindow::new(frames));
            }
            let news = self.speakers.poll(self.now, true);
            self.switches.extend(news.speaker.map(|speaker| (self.windows, speaker)));
            let levels = news.levels.map(|levels| {
                levels.iter().map(|told| (told.producer, told.level)).collect::<Vec<_>>()
            });
            self.levels.extend(levels.map(|levels| (self.windows, levels)));
        }

        fn hear_for(&mut self, windows: u32, alice: u8, bob: u8) {
            for _ in 0..windows {
                self.hear(&[(ALICE, [alice; 10]), (BOB, [bob; 10])]);
            }
        }
    }

    #[test]
    fn who_speaks_first_is_the_speaker_at_once_and_stays_it_in_silence() {
        let mut call = Call::new();
        call.hear_for(10, NOISE, NOISE);
        assert_eq!(call.switches, []);
        call.hear_for(5, NOISE, SPEECH);
        assert_eq!(call.switches, [(11, BOB)]);
        call.hear_for(100, NOISE, NOISE);
        assert_eq!(call.switches.len(), 1);
        assert_eq!(call.speakers.dominant(), Some(BOB));
    }

    #[test]
    fn the_next_speaker_takes_over_within_a_second() {
        let mut call = Call::new();
        call.hear_for(20, SPEECH, NOISE);
        call.hear_for(20, NOISE, SPEECH);
        call.hear_for(20, SPEECH, NOISE);
        let [(1, ALICE), (to_bob, BOB), (to_alice, ALICE)] = call.switches[..] else {
            panic!("{:?}", call.switches)
        };
        assert!((22..=25).contains(&to_bob), "{to_bob}");
        assert!((42..=45).contains(&to_alice), "{to_alice}");
    }

    #[test]
    fn neither_a_cough_nor_a_louder_voice_interrupts_and_a_breath_gives_nothing_away() {
        let mut call = Call::new();
        call.hear_for(10, SPEECH, NOISE);
        // Bob coughs for 100 ms while Alice breathes, again and again.
        for _ in 0..10 {
            let mut cough = [NOISE; 10];
            cough[5..].fill(120);
            call.hear(&[(ALICE, [NOISE; 10]), (BOB, cough)]);
            call.hear_for(4, SPEECH, NOISE);
        }
        // He shouts while she goes on.
        call.hear_for(20, SPEECH, 127);
        assert_eq!(call.switches, [(1, ALICE)]);
    }

    #[test]
    fn steady_noise_is_not_speech_for_long() {
        let mut call = Call::new();
        // A fan of −57 dB; then Bob speaks over it, and his own room is quiet.
        call.hear_for(100, 70, NOISE);
        let before = call.switches.len();
        call.hear_for(5, 70, SPEECH);
        assert_eq!(call.speakers.dominant(), Some(BOB));
        call.hear_for(50, 70, NOISE);
        assert_eq!(call.speakers.dominant(), Some(BOB), "the fan takes nothing back");
        assert!(before <= 1);
    }

    #[test]
    fn levels_are_told_twice_a_second_loudest_first_and_silence_once() {
        let mut call = Call::new();
        for window in 0..20 {
            // Both change by more than the step all the time.
            let swing = if window % 2 == 0 { 0 } else { 20 };
            call.hear(&[(ALICE, [80 + swing; 10]), (BOB, [90 + swing; 10])]);
        }
        let told = call.levels.len();
        assert!((3..=8).contains(&told), "{told} in 4 s");
        for (_, levels) in &call.levels {
            assert_eq!(levels.iter().map(|(who, _)| *who).collect::<Vec<_>>(), [BOB, ALICE]);
            assert!(levels.iter().all(|(_, level)| (-50..-10).contains(level)), "{levels:?}");
        }
        call.hear_for(20, NOISE, 0);
        let silence = call.levels.split_off(told);
        let empty = silence.iter().filter(|(_, levels)| levels.is_empty()).count();
        assert_eq!((empty, silence.last().map(|(_, levels)| levels.len())), (1, Some(0)));
        assert!(silence.len() <= 2, "what was under way, then silence: {silence:?}");
    }

    #[test]
    fn steady_levels_are_told_once_and_again_to_whoever_listens_next() {
        let mut call = Call::new();
        call.hear_for(30, SPEECH, NOISE);
        assert_eq!(call.levels.len(), 1);
        let now = call.now + Duration::from_secs(1);
        assert_eq!(call.speakers.poll(now, false).levels, None);
        call.now = now;
        call.hear_for(3, SPEECH, NOISE);
        assert_eq!(call.levels.len(), 2);
    }

    #[test]
    fn a_speaker_who_is_gone_is_nobody_and_the_next_one_who_speaks_takes_over() {
        let mut call = Call::new();
        call.hear_for(10, SPEECH, SPEECH);
        let first = call.speakers.dominant().expect("somebody");
        call.speakers.forget(first);
        assert_eq!(call.speakers.dominant(), None);
        let other = if first == ALICE { BOB } else { ALICE };
        call.hear(&[(other, [SPEECH; 10])]);
        assert_eq!(call.speakers.dominant(), Some(other));
    }

    #[test]
    fn a_voice_of_which_nothing_is_told_any_more_falls_silent() {
        let mut call = Call::new();
        call.hear_for(10, SPEECH, NOISE);
        for _ in 0..10 {
            call.hear(&[(BOB, [SPEECH; 10])]);
        }
        assert_eq!(call.speakers.dominant(), Some(BOB));
        assert_eq!(call.levels.last().map(|(_, levels)| levels.len()), Some(1));
    }

    #[test]
    fn voices_are_bounded_and_the_quiet_make_room() {
        let mut speakers = Speakers::default();
        let start = test_instant();
        let voice = |n: usize| ProducerId(Uuid::from_u128(n as u128));
        for n in 0..VOICES_PER_ROOM_MAX + 10 {
            speakers.hear(start, voice(n), &LevelWindow::new(&[SPEECH; 10]));
        }
        assert_eq!(speakers.voices.len(), VOICES_PER_ROOM_MAX);
        let later = start + VOICE_FORGOTTEN;
        speakers.hear(later, voice(VOICES_PER_ROOM_MAX + 50), &LevelWindow::new(&[NOISE; 10]));
        speakers.hear(later, voice(VOICES_PER_ROOM_MAX + 51), &LevelWindow::new(&[SPEECH; 10]));
        assert_eq!(speakers.voices.len(), 1, "who was never audible takes no place");
        let news = speakers.poll(later, true);
        assert_eq!(news.speaker, Some(voice(VOICES_PER_ROOM_MAX + 51)));
    }

    #[test]
    fn a_span_rates_higher_the_more_of_it_is_active() {
        for (of, span) in [(BLOCK, MEDIUM_RATE), (LONG, LONG_RATE)] {
            let rated: Vec<f64> = (0..=of).map(|active| rate(active, of, span)).collect();
            assert!(rated.is_sorted_by(|a, b| a < b), "{rated:?}");
        }
        // The short span tells only whether somebody speaks at all.
        let speaks = |steps: u32| rate(steps, u32::from(STEPS), SHORT_RATE) > RATING_MIN;
        assert!(!speaks(3) && (4..=13).all(speaks));
    }
}
