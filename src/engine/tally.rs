//! What is counted of streams, consumers and transports for those who ask for statistics.
//!
//! Owned by what it tells of, on the shard's thread. Packets cost two additions where they arrive and
//! nothing where they leave: what a consumer sends is counted for its sender reports anyway, and
//! looked at once a second, when reports are written ([`OutgoingTally::tick`]). All else is counted
//! where it happens, which is seldom. Rates are therefore those of the last whole second.

use std::time::{Duration, Instant};

use crate::engine::score::{ScoreKeeper, Totals};
use crate::engine::sent::Repeat;

/// Bytes of an RTP header without what differs.
pub const RTP_HEADER_BYTES: usize = 12;

/// Packets and their bytes: of whole RTP packets as they are before protection, with their header
/// extensions and padding (mediasoup's `byteCount`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Tally {
    /// A value of it, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        usize::from(self.packets == 0)
    }

    /// Counts one packet of so many bytes.
    pub fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// bits/s of what came during `span`.
fn rate_bps(bytes: u64, span: Duration) -> u64 {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    bytes.saturating_mul(8_000_000).checked_div(micros).unwrap_or(0)
}

/// Bytes so far and their rate, looked at from time to time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes so far.
    pub bytes: u64,
    /// bits/s between the last two looks.
    pub bps: u64,
}

impl Flow {
    /// Takes what came during `span`.
    fn advance(&mut self, bytes: u64, span: Duration) {
        self.bytes += bytes;
        self.bps = rate_bps(bytes, span);
    }
}

/// What came of one incoming stream, besides what its reception knows.
#[derive(Debug, Clone, Default)]
pub struct IncomingTally {
    /// Packets that went into the ring, repaired ones included.
    pub media: Tally,
    /// bits/s of `media` between the last two reports.
    pub bitrate_bps: u64,
    /// Retransmissions, padding and useless ones too.
    pub rtx: Tally,
    /// Lost packets that retransmissions made up for.
    pub repaired: u64,
    /// Retransmissions that nobody needed.
    pub rtx_useless: u64,
    /// Packets of its SSRC that were let go.
    pub discarded: u64,
    /// Requests for lost packets sent.
    pub nacks: u64,
    /// Packets that they named.
    pub nacked: u64,
    /// Key frames asked for by PLI.
    pub plis: u64,
    /// Key frames asked for by FIR, where nothing else was negotiated.
    pub firs: u64,
    /// Most packets that were ever missing.
    most_lost: i64,
    /// How well it arrives.
    pub score: ScoreKeeper,
    /// `media.bytes` and `rtx.bytes` when the transport's flows were last advanced.
    seen: (u64, u64),
}

impl IncomingTally {
    /// Bytes of media and of retransmissions since the last call, `span` ago.
    pub fn take_bytes(&mut self, span: Duration) -> (u64, u64) {
        let now = (self.media.bytes, self.rtx.bytes);
        let before = std::mem::replace(&mut self.seen, now);
        let (media, rtx) = (now.0 - before.0, now.1 - before.1);
        self.bitrate_bps = rate_bps(media, span);
        (media, rtx)
    }

    /// How many more packets than ever before are missing, now that `lost` are.
    pub fn note_lost(&mut self, lost: i64) -> u64 {
        grown(&mut self.most_lost, lost)
    }
}

/// By how much `now` is above everything before: late and repeated packets make a loss smaller
/// again, and a counter must not fall.
fn grown(most: &mut i64, now: i64) -> u64 {
    let more = u64::try_from(now.saturating_sub(*most)).unwrap_or(0);
    *most = now.max(*most);
    more
}

/// What the last report block of a consumer's receiver said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reported {
    /// Packets lost since the beginning.
    pub lost: i32,
    /// Part of the packets lost between its last two reports, in 1/256.
    pub fraction: u8,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
}

/// What was done for one consumer, besides what every packet counts.
#[derive(Debug, Clone)]
pub struct OutgoingTally {
    /// Packets and their bytes, as far as looked at.
    media: Tally,
    /// The packets that the consumer had counted then, in 32 bits that wrap (RFC 3550 §6.4.1).
    seen: u32,
    /// bits/s between the last two ticks, retransmissions included.
    pub bitrate_bps: u64,
    /// Retransmissions.
    pub rtx: Tally,
    /// Bytes of media and of retransmissions at the last tick.
    ticked: (u64, u64),
    /// Packets that were sent again, each once.
    pub repaired: u64,
    /// Packets that waited too long for their turn.
    pub shed: u64,
    /// Requests for lost packets received.
    pub nacks: u64,
    /// Packets that they named.
    pub nacked: u64,
    /// Key frames asked for by PLI.
    pub plis: u64,
    /// Key frames asked for by FIR.
    pub firs: u64,
    /// What its receiver last told; `None` before the first time.
    pub reported: Option<Reported>,
    /// Most packets that it told to be lost.
    most_lost: i64,
    /// The receiver told something since the score was last worked out.
    pub fresh: bool,
    /// How well it arrives.
    pub score: ScoreKeeper,
    /// The score that the control thread knows.
    pub score_told: u8,
}

impl Default for OutgoingTally {
    fn default() -> Self {
        let score = ScoreKeeper::begun();
        Self {
            media: Tally::default(),
            seen: 0,
            bitrate_bps: 0,
            rtx: Tally::default(),
            ticked: (0, 0),
            repaired: 0,
            shed: 0,
            nacks: 0,
            nacked: 0,
            plis: 0,
            firs: 0,
            reported: None,
            most_lost: 0,
            fresh: false,
            score_told: score.score(),
            score,
        }
    }
}

impl OutgoingTally {
    /// Takes what the consumer counted so far: its media so far.
    pub fn count(&mut self, packets: u32, bytes: u64) -> Tally {
        let seen = std::mem::replace(&mut self.seen, packets);
        self.media.packets += u64::from(packets.wrapping_sub(seen));
        self.media.bytes = bytes;
        self.media
    }

    /// The same once a report, `span` after the one before; the bytes of media and of
    /// retransmissions in between.
    pub fn tick(&mut self, packets: u32, bytes: u64, span: Duration) -> (u64, u64) {
        let sums = (self.count(packets, bytes).bytes, self.rtx.bytes);
        let before = std::mem::replace(&mut self.ticked, sums);
        let (media, rtx) = (sums.0 - before.0, sums.1 - before.1);
        self.bitrate_bps = rate_bps(media + rtx, span);
        (media, rtx)
    }

    /// Counts a packet of so many bytes sent again.
    pub fn count_repair(&mut self, bytes: usize, repeat: Repeat) {
        self.rtx.add(bytes);
        self.repaired += u64::from(repeat == Repeat::First);
    }

    /// Takes a report block; how many more packets than ever before it tells to be lost.
    pub fn handle_report(&mut self, reported: Reported) -> u64 {
        self.reported = Some(reported);
        self.fresh = true;
        grown(&mut self.most_lost, reported.lost.into())
    }

    /// Works out the score if the receiver told something new; `Some` when it has changed.
    pub fn new_score(&mut self) -> Option<u8> {
        let reported = self.reported.filter(|_| std::mem::take(&mut self.fresh))?;
        self.score.handle_report(Totals {
            expected: self.media.packets,
            lost: u64::try_from(reported.lost).unwrap_or(0),
            repaired: self.repaired,
            retransmitted: self.rtx.packets,
        });
        let score = self.score.score();
        (std::mem::replace(&mut self.score_told, score) != score).then_some(score)
    }
}

/// What a transport carried, as far as looked at: once a report.
#[derive(Debug, Clone, Copy, Default)]
pub struct TransportTally {
    /// Media received.
    pub rtp_in: Flow,
    /// Retransmissions received.
    pub rtx_in: Flow,
    /// RTCP received.
    pub rtcp_in: Flow,
    /// Media sent.
    pub rtp_out: Flow,
    /// Retransmissions sent.
    pub rtx_out: Flow,
    /// RTCP sent.
    pub rtcp_out: Flow,
    /// Probes sent.
    pub probes: Flow,
    /// Bytes of RTCP received and sent since the last look.
    pub rtcp: (u64, u64),
    /// Consumers that were sent nothing for want of bandwidth, at the last look.
    pub stopped: usize,
    /// When it was last looked at.
    looked: Option<Instant>,
}

/// Bytes that a transport sent between two looks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SentBytes {
    /// Media.
    pub media: u64,
    /// Retransmissions.
    pub rtx: u64,
    /// Probes.
    pub probes: u64,
}

impl TransportTally {
    /// Time since the last look, which this is; the first begins `otherwise` ago.
    pub fn look(&mut self, now: Instant, otherwise: Duration) -> Duration {
        let before = self.looked.replace(now);
        before.map_or(otherwise, |before| now.saturating_duration_since(before))
    }

    /// Takes what was received (media, retransmissions) and what was sent during `span`.
    pub fn advance(&mut self, received: (u64, u64), sent: SentBytes, span: Duration) {
        let (rtcp_in, rtcp_out) = std::mem::take(&mut self.rtcp);
        for (flow, bytes) in [
            (&mut self.rtp_in, received.0),
            (&mut self.rtx_in, received.1),
            (&mut self.rtcp_in, rtcp_in),
            (&mut self.rtp_out, sent.media),
            (&mut self.rtx_out, sent.rtx),
            (&mut self.probes, sent.probes),
            (&mut self.rtcp_out, rtcp_out),
        ] {
            flow.advance(bytes, span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_a_consumer_counted_is_taken_over_wraps() {
        let mut tally = OutgoingTally::default();
        tally.tick(u32::MAX, 9_000, SECOND);
        let before = tally.media;
        tally.count(0, 9_100);
        assert_eq!(tally.tick(4, 9_500, 2 * SECOND), (500, 0));
        assert_eq!(tally.media.packets, before.packets + 5);
        assert_eq!(tally.bitrate_bps, 500 * 4);
        tally.rtx.add(100);
        assert_eq!(tally.tick(4, 9_500, SECOND), (0, 100));
        assert_eq!((tally.bitrate_bps, tally.tick(4, 9_500, SECOND)), (800, (0, 0)));
    }

    #[test]
    fn a_loss_counts_once_also_when_it_was_smaller_in_between() {
        let mut tally = IncomingTally::default();
        let noted = [3, 1, 4, -2, 4, 10].map(|lost| tally.note_lost(lost));
        assert_eq!(noted, [3, 0, 1, 0, 0, 6]);
        let mut tally = OutgoingTally::default();
        let told = |lost| Reported { lost, ..Reported::default() };
        let noted = [-1, 5, 5, 2, 6].map(|lost| tally.handle_report(told(lost)));
        assert_eq!(noted, [0, 5, 0, 0, 1]);
    }

    #[test]
    fn a_score_is_told_when_it_changed_and_not_without_a_new_report() {
        let mut tally = OutgoingTally::default();
        assert_eq!(tally.new_score(), None);
        tally.count(100, 0);
        let told = |lost| Reported { lost, ..Reported::default() };
        tally.handle_report(told(0));
        assert_eq!(tally.new_score(), None, "the best as before");
        tally.count(200, 0);
        tally.handle_report(told(80));
        assert_eq!(tally.new_score(), Some(3));
        assert_eq!(tally.new_score(), None);
        tally.handle_report(told(-1));
        assert_eq!(tally.new_score(), Some(7), "nothing was sent since");
    }

    #[test]
    fn flows_are_of_the_time_between_two_looks() {
        let start = crate::engine::test_instant();
        let mut tally = TransportTally::default();
        assert_eq!(tally.look(start, SECOND), SECOND);
        let span = tally.look(start + SECOND / 2, SECOND);
        tally.rtcp = (50, 60);
        let sent = SentBytes { media: 10, rtx: 1, probes: 25 };
        tally.advance((1000, 100), sent, span);
        assert_eq!(tally.rtp_in, Flow { bytes: 1000, bps: 16_000 });
        assert_eq!(tally.rtx_in, Flow { bytes: 100, bps: 1600 });
        assert_eq!((tally.rtcp_in.bytes, tally.rtcp_out.bytes), (50, 60));
        assert_eq!(tally.probes, Flow { bytes: 25, bps: 400 });
        tally.advance((0, 0), SentBytes::default(), Duration::ZERO);
        assert_eq!(tally.rtp_in, Flow { bytes: 1000, bps: 0 });
    }
}
