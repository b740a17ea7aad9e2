//! What a run counts: packets, latencies, lateness, join stages.
//!
//! Each worker owns one [`Tally`] and hands it over by value at the end; `main` adds them up.

use hdrhistogram::Histogram;

/// Longest value that is told apart from longer ones, ns: a minute.
const LONGEST: u64 = 60_000_000_000;

/// A histogram of nanoseconds with three significant digits (0.1 %), 1 ns to a minute, with a small
/// one beside it of what was counted lately.
#[derive(Debug, Clone)]
pub(crate) struct Times(Histogram<u64>, Recent);

impl Default for Times {
    fn default() -> Self {
        let whole = Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are constants");
        Self(whole, Recent::default())
    }
}

/// A histogram of microseconds with two significant digits (1 %), 1 µs to a minute: small enough to
/// be handed over each second without disturbing what is measured.
#[derive(Debug, Clone)]
pub(crate) struct Recent(Histogram<u64>);

impl Default for Recent {
    fn default() -> Self {
        let most = LONGEST / 1_000;
        Self(Histogram::new_with_bounds(1, most, 2).expect("the bounds are constants"))
    }
}

impl Recent {
    /// Adds what another counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// The value at a quantile of 0 to 1, µs; none when nothing was counted.
    #[expect(clippy::cast_precision_loss, reason = "values have two digits")]
    pub(crate) fn quantile_us(&self, quantile: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(quantile) as f64)
    }
}

impl Times {
    /// Counts one duration; longer ones than a minute as a minute.
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
        self.1.0.saturating_record(nanoseconds / 1_000);
    }

    /// What was counted since this was last asked.
    pub(crate) fn take_recent(&mut self) -> Recent {
        std::mem::take(&mut self.1)
    }

    /// Adds what another counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many were counted.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value at a quantile of 0 to 1, µs.
    #[expect(clippy::cast_precision_loss, reason = "values have three digits")]
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    /// The highest value, µs.
    #[expect(clippy::cast_precision_loss, reason = "values have three digits")]
    pub(crate) fn max_us(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }
}

/// A step of joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// `POST /media/transport`.
    Transport,
    /// `POST …/connect`.
    Connect,
    /// `POST /media/producer`.
    Produce,
    /// `POST /media/consumer`.
    Consume,
    /// From the first binding request to a working pair.
    Ice,
    /// From there to SRTP keys.
    Dtls,
    /// From the consumer's reply to its first packet; includes the wait for a key frame.
    FirstPacket,
    /// Joins during the run, from the time each was due to its transport's first packet.
    Join,
}

impl Stage {
    /// All stages in their order.
    pub(crate) const ALL: [Self; 8] = [
        Self::Transport,
        Self::Connect,
        Self::Produce,
        Self::Consume,
        Self::Ice,
        Self::Dtls,
        Self::FirstPacket,
        Self::Join,
    ];

    /// Its name in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Transport => "transport",
            Self::Connect => "connect",
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::Ice => "ice",
            Self::Dtls => "dtls",
            Self::FirstPacket => "first_packet",
            Self::Join => "join",
        }
    }
}

/// How long each stage took, over all joins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stages(Vec<(Stage, Times)>);

impl Stages {
    /// Counts one stage of one join.
    pub(crate) fn record(&mut self, stage: Stage, nanoseconds: u64) {
        if let Some((_, times)) = self.0.iter_mut().find(|(known, _)| *known == stage) {
            times.record(nanoseconds);
        } else {
            let mut times = Times::default();
            times.record(nanoseconds);
            self.0.push((stage, times));
        }
    }

    /// Adds what another counted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (stage, times) in &other.0 {
            match self.0.iter_mut().find(|(known, _)| known == stage) {
                Some((_, own)) => own.add(times),
                None => self.0.push((*stage, times.clone())),
            }
        }
    }

    /// One stage's times; `None` when none was counted.
    pub(crate) fn of(&self, stage: Stage) -> Option<&Times> {
        self.0.iter().find(|(known, _)| *known == stage).map(|(_, times)| times)
    }
}

/// Defines [`Counts`] with an addition that cannot forget a field.
macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Plain counters; all concern the measured window unless they say otherwise.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
        pub(crate) struct Counts { $($(#[$doc])* pub(crate) $name: u64,)* }

        impl Counts {
            /// Adds what another counted.
            pub(crate) fn add(&mut self, other: &Self) { $(self.$name += other.$name;)* }
        }
    };
}

counts! {
    /// Packets that publications were due to send.
    offered,
    /// Packets that the kernel took from publishers.
    sent,
    /// Packets that subscribers should have received.
    expected,
    /// Different packets that they did receive.
    delivered,
    /// RTP bytes of these, without SRTP's tag.
    delivered_bytes,
    /// Packets that came twice.
    duplicates,
    /// Packets that came after a later one of their stream.
    reordered,
    /// Packets too old to tell from duplicates; counted as lost.
    too_old,
    /// Packets opened, of those delivered that were due after their receiver had asked for them.
    sampled,
    /// Streams of which nothing arrived in the window.
    silent_streams,
    /// Streams of which something arrived in the window, but nothing in its last second.
    stopped_streams,
    /// Received streams of video that were there for the whole window.
    video_streams,
    /// Whole run: packets that did not open with the keys of their transport.
    undecryptable,
    /// Whole run: opened packets without our stamp.
    unstamped,
    /// Whole run: how often a stream's numbering moved against the publisher's.
    renumbered,
    /// RTP of streams that nobody subscribed to.
    unknown_streams,
    /// Whole run: datagrams that the kernel did not take from the generator.
    send_failures,
    /// Whole run: datagrams of which came back that the server's port is closed.
    refused,
    /// Whole run: datagrams dropped because a socket of the generator was full.
    receive_drops,
    /// Whole run: key-frame requests that publishers answered.
    key_frame_requests,
    /// Whole run: packets that the server asked publishers for again.
    nacked,
    /// Whole run: of these, sent again.
    resent,
    /// RTP that the lossy way to the server lost, repairs included.
    lost_up,
    /// RTP that the lossy way from the server lost, repairs included.
    lost_down,
    /// Packets that receivers asked for again, each time counted.
    asked,
    /// Repairs that arrived, whether still of use or not.
    repairs,
    /// Of the packets delivered, those that only a repair brought.
    repaired,
    /// Packets that receivers no longer ask for.
    given_up,
    /// Frames of video whose last packet arrived, and all before it with `--repair`.
    frames,
    /// Times that a picture stood still, to the end of the window too, and for how long, ns.
    freezes,
    /// See `freezes`.
    frozen_ns,
    /// Times that a received stream went over to another encoding.
    switches,
    /// Packets of the smallest, middle and largest of several encodings.
    layer_0,
    /// See `layer_0`.
    layer_1,
    /// See `layer_0`.
    layer_2,
    /// Transports that were due to join within the window.
    joins_begun,
    /// Of these, those that received a packet.
    joins_done,
    /// Of these, those that the API refused, or that left or were given up without a packet.
    joins_failed,
    /// Of these, those that no thread of the generator was free to begin in time.
    joins_unstarted,
    /// Transports that left within the window.
    leaves,
}

/// Everything one worker counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Counters.
    pub(crate) counts: Counts,
    /// Due time to arrival, of sampled packets in the window.
    pub(crate) latency: Times,
    /// How late each burst in the window was handed to the kernel.
    pub(crate) lateness: Times,
    /// Since a packet was missed until a repair brought it.
    pub(crate) repair: Times,
    /// Interarrival jitter of each received stream at its end.
    pub(crate) jitter: Times,
    /// Join stages.
    pub(crate) stages: Stages,
    /// CPU of the worker's thread during the window, ns.
    pub(crate) cpu: u64,
    /// Names of the protections agreed on.
    pub(crate) profiles: Vec<&'static str>,
    /// True when a socket that asked for `UDP_GRO` was refused it.
    pub(crate) gro_refused: bool,
}

/// What a worker counted since it was last asked, small enough to be asked for each second.
#[derive(Debug, Clone, Default)]
pub(crate) struct Brief {
    /// Counters, which the worker then begins anew.
    pub(crate) counts: Counts,
    /// As [`Tally::latency`], of lately.
    pub(crate) latency: Recent,
    /// As [`Tally::lateness`], of lately.
    pub(crate) lateness: Recent,
    /// CPU of the worker's thread, ns.
    pub(crate) cpu: u64,
}

impl Brief {
    /// Adds what another worker counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.latency.add(&other.latency);
        self.lateness.add(&other.lateness);
        self.cpu += other.cpu;
    }
}

impl Tally {
    /// Takes the counters and a copy in small of the times since the last taking; the whole times
    /// stay.
    pub(crate) fn take_brief(&mut self, cpu: u64) -> Brief {
        Brief {
            counts: std::mem::take(&mut self.counts),
            latency: self.latency.take_recent(),
            lateness: self.lateness.take_recent(),
            cpu,
        }
    }

    /// Adds what another worker counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.latency.add(&other.latency);
        self.lateness.add(&other.lateness);
        self.repair.add(&other.repair);
        self.jitter.add(&other.jitter);
        self.stages.add(&other.stages);
        self.cpu += other.cpu;
        self.profiles.extend(&other.profiles);
        self.profiles.sort_unstable();
        self.profiles.dedup();
        self.gro_refused |= other.gro_refused;
    }
}

/// Which of the last 2,048 counters of a stream have arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    highest: Option<u64>,
    bits: [u64; Self::WORDS],
}

/// What the arrival of a counter means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The highest so far.
    Next,
    /// New, but after a higher one.
    Reordered,
    /// Not the first time.
    Duplicate,
    /// Too far behind to tell.
    TooOld,
}

impl Default for Seen {
    fn default() -> Self {
        Self { highest: None, bits: [0; Self::WORDS] }
    }
}

impl Seen {
    const WORDS: usize = 32;
    const SPAN: u64 = 2_048;

    /// A value of the line that the next counter is noted on, to read it ahead of time.
    pub(crate) fn touch(&self) -> usize {
        let next = self.highest.map_or(0, |highest| highest + 1);
        let word = self.bits.get(usize::try_from(next / 64 % 32).unwrap_or(0));
        usize::from(word == Some(&0))
    }

    /// Notes a counter.
    pub(crate) fn insert(&mut self, counter: u64) -> Arrival {
        let highest = self.highest.unwrap_or(counter);
        if counter + Self::SPAN <= highest {
            return Arrival::TooOld;
        }
        if counter > highest {
            // What lies between has not arrived; a jump beyond the span clears it all.
            for missing in highest + 1..=counter.min(highest + Self::SPAN) {
                self.set(missing, false);
            }
        }
        if self.set(counter, true) {
            return Arrival::Duplicate;
        }
        self.highest = Some(highest.max(counter));
        if counter < highest { Arrival::Reordered } else { Arrival::Next }
    }

    /// Sets the bit of a counter and returns what it was.
    fn set(&mut self, counter: u64, value: bool) -> bool {
        let place = usize::try_from(counter / 64 % 32).unwrap_or(0);
        let Some(word) = self.bits.get_mut(place) else { return false };
        let mask = 1 << (counter % 64);
        let was = *word & mask != 0;
        *word = if value { *word | mask } else { *word & !mask };
        was
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_told_apart() {
        use Arrival::{Duplicate, Next, Reordered, TooOld};
        let mut seen = Seen::default();
        let cases = [
            (10, Next),
            (10, Duplicate),
            (11, Next),
            (14, Next),
            (12, Reordered),
            (12, Duplicate),
            (9, Reordered),
            (14 + 2_047, Next),
            (14, Duplicate),
            (13, TooOld),
            (15, Reordered),
            (1_000_000, Next),
            (1_000_000 - 2_047, Reordered),
            (1_000_000 - 2_047, Duplicate),
            (1_000_000 - 2_048, TooOld),
        ];
        for (counter, arrival) in cases {
            assert_eq!(seen.insert(counter), arrival, "{counter}");
        }
    }

    #[test]
    fn any_order_of_arrival_counts_each_packet_once() {
        let mut rng = crate::rng::Rng::new(3);
        let mut seen = Seen::default();
        let (mut fresh, mut again) = (0, 0);
        for block in 0..100_u64 {
            let mut counters: Vec<_> = (block * 500..(block + 1) * 500).collect();
            counters.extend(counters.clone());
            counters.sort_by_cached_key(|_| rng.next_u64());
            for counter in counters {
                match seen.insert(counter) {
                    Arrival::Next | Arrival::Reordered => fresh += 1,
                    Arrival::Duplicate => again += 1,
                    Arrival::TooOld => panic!("within the span"),
                }
            }
        }
        assert_eq!((fresh, again), (50_000, 50_000));
    }

    #[test]
    fn quantiles_are_right_to_three_digits() {
        let mut times = Times::default();
        (1..=10_000_u64).for_each(|n| times.record(n * 1_000));
        for (quantile, expected) in [(0.5, 5_000.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let error = (times.quantile_us(quantile) - expected).abs() / expected;
            assert!(error < 0.001, "{quantile}");
        }
        let (mut twice, recent) = (times.clone(), times.take_recent());
        for (quantile, expected) in [(0.5, 5_000.0), (0.99, 9_900.0)] {
            let error = (recent.quantile_us(quantile).unwrap() - expected).abs() / expected;
            assert!(error < 0.01, "{quantile}");
        }
        assert_eq!(times.take_recent().quantile_us(0.5), None);
        twice.add(&times);
        assert_eq!(twice.count(), 20_000);
    }

    #[test]
    fn stages_add_up() {
        let (mut a, mut b) = (Stages::default(), Stages::default());
        a.record(Stage::Ice, 1_000);
        b.record(Stage::Ice, 2_000);
        b.record(Stage::Dtls, 3_000);
        a.add(&b);
        assert_eq!(a.of(Stage::Ice).unwrap().count(), 2);
        assert_eq!(a.of(Stage::Dtls).unwrap().count(), 1);
        assert!(a.of(Stage::Connect).is_none());
    }
}
