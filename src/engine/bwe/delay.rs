//! From arrivals to queueing delay: groups of packets, the least delay lately, and its trend.
//!
//! Packets that leave within 5 ms are one group (draft-ietf-rmcat-gcc-02 §5.2), and so is whatever
//! a receiver's network hands over in one go. A group counts with the *least* one-way delay of its
//! packets: we send whole trains, whose later packets wait for the earlier ones, and that is no
//! queue that stands. Pure. One-way delays contain the clocks' unknown offset; only differences
//! are used.

use super::Usage;
use super::spacing::Spacing;
use super::trend::Trendline;

/// Departures this close belong together (libwebrtc's burst time).
const BURST_US: u64 = 5_000;

/// What arrives this close behind its predecessor, although it left later, came in one go.
const ARRIVAL_BURST_US: i64 = 5_000;

/// The longest group of what came in one go (libwebrtc).
const GROUP_SPAN_MAX_US: i64 = 100_000;

/// The least delay is remembered for one to two of these: long enough to have seen the path
/// empty, short enough for a path that became longer and for clocks that drift (1 ms in 10 s).
const BASE_WINDOW_US: i64 = 10_000_000;

/// A queue that was never empty for one to two of these stands: longer than a frame of a slow
/// camera.
const STANDING_WINDOW_US: i64 = 120_000;

/// A group that took so much longer than the fastest met a queue, and for so long that is lately.
const QUEUED_MIN_US: i64 = 20_000;
const QUEUED_LATELY_US: i64 = 1_000_000;

/// A jump of the arrival clock against ours beyond this is a new clock.
const CLOCK_JUMP_US: i64 = 10_000_000;

/// The least of what was seen in the last one to two windows.
#[derive(Debug, Clone)]
struct Least {
    window_us: i64,
    since_us: i64,
    current: Option<i64>,
    before: Option<i64>,
}

impl Least {
    fn new(window_us: i64) -> Self {
        Self { window_us, since_us: 0, current: None, before: None }
    }

    fn add(&mut self, at_us: i64, value: i64) {
        if self.current.is_none() || at_us - self.since_us >= self.window_us {
            let stale = at_us - self.since_us >= 2 * self.window_us;
            self.before = self.current.filter(|_| !stale);
            self.current = Some(value);
            self.since_us = at_us;
        }
        self.current = self.current.map(|current| current.min(value));
    }

    fn value(&self) -> Option<i64> {
        self.current.map(|current| self.before.map_or(current, |before| before.min(current)))
    }
}

#[derive(Debug, Clone, Copy)]
struct Group {
    first_sent_us: u64,
    last_sent_us: u64,
    first_arrival_us: i64,
    last_arrival_us: i64,
    least_us: i64,
    /// Behind its first packet.
    bytes: u32,
}

/// Follows the delay of one path.
#[derive(Debug)]
pub(super) struct Delay {
    group: Option<Group>,
    base: Least,
    standing: Least,
    trend: Trendline,
    /// How its groups arrive.
    pub(super) spacing: Spacing,
    newest_us: i64,
    queue_us: i64,
    /// Since then no group passed without a queue.
    queued_since_us: Option<i64>,
    /// The longest wait since then.
    peak_us: i64,
    /// When a group last met a queue.
    queued_us: Option<i64>,
}

impl Delay {
    pub(super) fn new() -> Self {
        Self {
            group: None,
            base: Least::new(BASE_WINDOW_US),
            standing: Least::new(STANDING_WINDOW_US),
            trend: Trendline::new(),
            spacing: Spacing::default(),
            newest_us: 0,
            queue_us: 0,
            queued_since_us: None,
            peak_us: 0,
            queued_us: None,
        }
    }

    /// A packet arrived; in order of departure, others are left out. Returns whether the receiver's
    /// clock jumped: what was known before is forgotten.
    pub(super) fn handle_packet(&mut self, sent_us: u64, arrival_us: i64, bytes: u32) -> bool {
        let delay_us = arrival_us - i64::try_from(sent_us).unwrap_or(i64::MAX);
        let jumped = self.base.value().is_some_and(|base| (delay_us - base).abs() > CLOCK_JUMP_US);
        if jumped {
            *self = Self::new();
        }
        let Some(group) = &mut self.group else {
            self.open(sent_us, arrival_us, delay_us);
            return jumped;
        };
        if sent_us < group.first_sent_us {
            return false;
        }
        let apart = sent_us - group.first_sent_us;
        let close = apart <= BURST_US;
        let follows = arrival_us - group.last_arrival_us;
        let left = i64::try_from(sent_us.saturating_sub(group.last_sent_us)).unwrap_or(i64::MAX);
        let in_one_go = follows <= ARRIVAL_BURST_US
            && follows < left
            && arrival_us - group.first_arrival_us < GROUP_SPAN_MAX_US;
        if close || in_one_go {
            group.last_sent_us = group.last_sent_us.max(sent_us);
            group.last_arrival_us = group.last_arrival_us.max(arrival_us);
            group.least_us = group.least_us.min(delay_us);
            group.bytes = group.bytes.saturating_add(bytes);
            return false;
        }
        let done = *group;
        self.open(sent_us, arrival_us, delay_us);
        self.close(done);
        false
    }

    /// Whether a packet that left then is one of the burst that the newest group began with.
    pub(super) fn is_in_burst(&self, sent_us: u64) -> bool {
        let first_us = self.group.map(|group| group.first_sent_us);
        let apart = first_us.and_then(|first_us| sent_us.checked_sub(first_us));
        apart.is_some_and(|apart| apart <= BURST_US)
    }

    /// More packets of that burst, of so many bytes, arrived: the last of them no sooner than those
    /// before it.
    pub(super) fn extend_burst(&mut self, arrival_us: i64, bytes: u32) {
        if let Some(group) = &mut self.group {
            group.last_arrival_us = group.last_arrival_us.max(arrival_us);
            group.bytes = group.bytes.saturating_add(bytes);
        }
    }

    /// Whether the queue grows.
    pub(super) fn usage(&self) -> Usage {
        self.trend.usage()
    }

    /// The queue that stands: how much longer than the least delay of the last seconds every packet
    /// of the last moments took.
    pub(super) fn standing_us(&self) -> i64 {
        match (self.standing.value(), self.base.value()) {
            (Some(standing), Some(base)) => (standing - base).max(0),
            _ => 0,
        }
    }

    /// When the queue that stands now began to.
    pub(super) fn queued_since_us(&self) -> Option<i64> {
        self.queued_since_us
    }

    /// When the newest group arrived.
    pub(super) fn newest_us(&self) -> i64 {
        self.newest_us
    }

    /// What the newest group waited.
    pub(super) fn queue_us(&self) -> i64 {
        self.queue_us
    }

    /// Whether the newest group waited as long as any since the queue began.
    pub(super) fn is_at_peak(&self) -> bool {
        self.queue_us >= self.peak_us
    }

    /// Whether a packet met a queue within the last second: what is lost is lost there.
    pub(super) fn was_queued(&self) -> bool {
        self.queued_us.is_some_and(|at| self.newest_us - at < QUEUED_LATELY_US)
    }

    /// Whether the delay falls: a queue empties.
    pub(super) fn is_falling(&self) -> bool {
        self.trend.slope() < 0.0
    }

    /// The path became longer: what stands now is no queue.
    pub(super) fn accept_standing(&mut self) {
        let standing = self.standing.value();
        self.base = Least::new(BASE_WINDOW_US);
        if let Some(standing) = standing {
            self.base.add(self.newest_us, standing);
        }
    }

    fn open(&mut self, sent_us: u64, arrival_us: i64, delay_us: i64) {
        self.group = Some(Group {
            first_sent_us: sent_us,
            last_sent_us: sent_us,
            first_arrival_us: arrival_us,
            last_arrival_us: arrival_us,
            least_us: delay_us,
            bytes: 0,
        });
    }

    fn close(&mut self, group: Group) {
        let at_us = group.last_arrival_us.max(self.newest_us);
        self.newest_us = at_us;
        self.base.add(at_us, group.least_us);
        self.standing.add(at_us, group.least_us);
        self.queue_us = self.base.value().map_or(0, |base| group.least_us - base);
        let is_queued = self.queue_us > QUEUED_MIN_US;
        self.peak_us = if is_queued { self.peak_us.max(self.queue_us) } else { 0 };
        self.queued_since_us = is_queued.then(|| self.queued_since_us.unwrap_or(at_us));
        self.queued_us = if is_queued { Some(at_us) } else { self.queued_us };
        self.trend.add(at_us, group.least_us);
        self.spacing.add(group.bytes, group.last_arrival_us - group.first_arrival_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trains of `packets` every 20 ms over a path that takes 1 ms a packet, 30 ms and `extra`.
    fn run(
        delay: &mut Delay,
        trains: std::ops::Range<u64>,
        packets: i64,
        extra: impl Fn(u64) -> i64,
    ) {
        for n in trains {
            let sent_us = n * 20_000;
            for packet in 0..packets {
                let arrival_us = sent_us.cast_signed() + 30_000 + extra(n) + packet * 1_000;
                delay.handle_packet(sent_us, arrival_us, 1_000);
            }
        }
    }

    #[test]
    fn a_long_train_is_no_queue() {
        let mut delay = Delay::new();
        run(&mut delay, 0..100, 2, |_| 0);
        run(&mut delay, 100..200, 16, |_| 0);
        assert_eq!((delay.standing_us(), delay.usage()), (0, Usage::Normal));
    }

    #[test]
    fn a_queue_stands_when_no_packet_passes_without_it() {
        let mut delay = Delay::new();
        run(&mut delay, 0..100, 2, |_| 0);
        run(&mut delay, 100..150, 2, |n| if n % 5 == 0 { 0 } else { 60_000 });
        assert_eq!(delay.standing_us(), 0);
        run(&mut delay, 150..170, 2, |_| 60_000);
        assert_eq!((delay.standing_us(), delay.queue_us()), (60_000, 60_000));
        let since = delay.queued_since_us().unwrap();
        assert!((2_980_000..3_120_000).contains(&since), "{since}");
        run(&mut delay, 170..1_300, 2, |_| 60_000);
        assert_eq!(delay.standing_us(), 0, "after some time it is the path");
    }

    #[test]
    fn a_longer_path_is_accepted_when_told_and_a_new_clock_at_once() {
        let mut delay = Delay::new();
        run(&mut delay, 0..100, 2, |_| 0);
        run(&mut delay, 100..120, 2, |_| 90_000);
        delay.accept_standing();
        run(&mut delay, 120..130, 2, |_| 90_000);
        assert_eq!(delay.standing_us(), 0);
        run(&mut delay, 130..150, 2, |_| 3_600_000_000);
        assert_eq!((delay.standing_us(), delay.usage()), (0, Usage::Normal));
    }

    #[test]
    fn growth_is_overuse_and_what_was_overtaken_says_nothing() {
        let mut delay = Delay::new();
        run(&mut delay, 0..100, 2, |_| 0);
        delay.handle_packet(100, 5_000_000, 1_000);
        assert_eq!(delay.usage(), Usage::Normal);
        run(&mut delay, 100..130, 2, |n| (n.cast_signed() - 100) * 4_000);
        assert_eq!(delay.usage(), Usage::Over);
    }
}
