//! One stream at a receiver: which packets are missing, what is asked for again, what is reported.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringcast::engine::rtcp::ReportBlock;

use super::screen::Screen;

/// Between two requests for one packet: libwebrtc's round trip while it has measured none.
const REQUEST_INTERVAL: Duration = Duration::from_millis(100);
/// Requests for one packet, then it is given up (libwebrtc).
const REQUESTS_MAX: u8 = 10;

#[derive(Debug)]
struct Missing {
    since: Instant,
    asked: Option<Instant>,
    requests: u8,
}

/// A stream.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Asks for what is missing, and shows pictures.
    pub(crate) is_video: bool,
    pub(crate) screen: Screen,
    /// The first number, and the highest.
    span: Option<(u64, u64)>,
    missing: BTreeMap<u64, Missing>,
    /// Packets that came in the first place.
    came: u64,
    /// Expected and come, as last reported.
    reported: (u64, u64),
    /// The last sender report: the middle of its time, and when it came.
    sender: Option<(u32, Instant)>,
    /// Packets found missing, whether they came later or not.
    pub(crate) gaps: u64,
    /// Something is missing that is not asked for: it needs a key frame.
    pub(crate) is_broken: bool,
    /// When the last wish for a key frame left.
    pub(crate) wished: Option<Instant>,
    /// When each datagram came, and its bytes.
    heard: Vec<(Instant, usize)>,
}

impl Incoming {
    pub(crate) fn new(is_video: bool) -> Self {
        Self {
            is_video,
            screen: Screen::default(),
            span: None,
            missing: BTreeMap::new(),
            came: 0,
            reported: (0, 0),
            sender: None,
            gaps: 0,
            is_broken: false,
            wished: None,
            heard: Vec::new(),
        }
    }

    /// A datagram of the stream or of its repairs came.
    pub(crate) fn hear(&mut self, now: Instant, bytes: usize) {
        self.heard.push((now, bytes));
    }

    /// Bytes of datagrams that came since.
    pub(crate) fn bytes_since(&self, from: Instant) -> u64 {
        let since = self.heard.iter().rev().take_while(|(at, _)| *at >= from);
        since.map(|(_, bytes)| *bytes as u64).sum()
    }

    /// A packet of that extended number came; false when it came before.
    pub(crate) fn arrive(&mut self, now: Instant, number: u64, repaired: bool) -> bool {
        self.came += u64::from(!repaired);
        let Some((first, highest)) = self.span else {
            self.span = Some((number, number));
            return true;
        };
        if number > highest {
            let missing = || Missing { since: now, asked: None, requests: 0 };
            self.gaps += number - highest - 1;
            self.missing.extend((highest + 1..number).map(|number| (number, missing())));
            self.span = Some((first, number));
            return true;
        }
        self.missing.remove(&number).is_some()
    }

    /// Which extended number the low 16 bits mean; `None` before the first packet.
    pub(crate) fn extend(&self, low: u16) -> Option<u64> {
        let (_, highest) = self.span?;
        let ahead = low.wrapping_sub(u16::try_from(highest & 0xffff).unwrap()).cast_signed();
        highest.checked_add_signed(ahead.into())
    }

    /// Below it nothing is missing.
    pub(crate) fn whole_below(&self) -> u64 {
        let missing = self.missing.first_key_value().map(|(number, _)| *number);
        missing.unwrap_or_else(|| self.span.map_or(0, |(_, highest)| highest + 1))
    }

    pub(crate) fn is_anything_missing(&self) -> bool {
        self.is_video && !self.missing.is_empty()
    }

    /// A stream that is silent for longer is taken for stopped (libwebrtc).
    pub(crate) fn is_flowing(&self, now: Instant) -> bool {
        self.heard.last().is_some_and(|(heard, _)| now < *heard + Duration::from_secs(5))
    }

    /// Packets found missing between two moments that have not come.
    pub(crate) fn lost_between(&self, from: Instant, to: Instant) -> usize {
        let within = |missing: &&Missing| (from..to).contains(&missing.since);
        self.missing.values().filter(within).count()
    }

    /// What to ask for now.
    pub(crate) fn poll_requests(&mut self, now: Instant) -> Vec<u16> {
        self.missing.retain(|_, missing| {
            let is_due = missing.asked.is_none_or(|asked| now >= asked + REQUEST_INTERVAL);
            !is_due || missing.requests < REQUESTS_MAX
        });
        let due = self.missing.iter_mut().filter(|(_, missing)| {
            missing.asked.is_none_or(|asked| now >= asked + REQUEST_INTERVAL)
        });
        due.map(|(number, missing)| {
            missing.asked = Some(now);
            missing.requests += 1;
            u16::try_from(number & 0xffff).unwrap()
        })
        .collect()
    }

    pub(crate) fn note_sender_report(&mut self, now: Instant, middle: u32) {
        self.sender = Some((middle, now));
    }

    /// A report block, once something came.
    pub(crate) fn report(&mut self, now: Instant, ssrc: u32) -> Option<ReportBlock> {
        let (first, highest) = self.span?;
        let expected = highest - first + 1;
        let (expected_before, came_before) = self.reported;
        let (expected_now, came_now) = (expected - expected_before, self.came - came_before);
        self.reported = (expected, self.came);
        let lost_now = expected_now.saturating_sub(came_now);
        let since = |at: Instant| (now - at).as_micros() * 65_536 / 1_000_000;
        Some(ReportBlock {
            ssrc,
            fraction_lost: u8::try_from((lost_now * 256) / expected_now.max(1)).unwrap_or(255),
            cumulative_lost: i32::try_from(expected.cast_signed() - self.came.cast_signed())
                .unwrap(),
            highest_seq: u32::try_from(highest).unwrap(),
            jitter: 0,
            lsr: self.sender.map_or(0, |(middle, _)| middle),
            dlsr: self.sender.map_or(0, |(_, at)| u32::try_from(since(at)).unwrap()),
        })
    }
}
