//! What receivers report without transport-wide feedback: REMB and the loss of receiver reports.
//!
//! A receiver that estimates by itself (REMB) is believed; loss lowers that as in the days before
//! transport-wide feedback (draft-ietf-rmcat-gcc-02 §6). Pure.

use std::time::{Duration, Instant};

use crate::limits::BWE_START_BPS;

/// Loss above this lowers the rate, below that lets it grow (draft §6).
const LOSS_HIGH: f64 = 0.1;
const LOSS_LOW: f64 = 0.02;

/// Growth a second: unproven, and below what the receiver itself estimated.
const GROWTH: f64 = 1.08;
const GROWTH_ESTIMATED: f64 = 1.5;

/// Next to transport-wide feedback an estimate of the receiver is a limit while it is this young.
const REMB_AGE: Duration = Duration::from_secs(10);

/// What was reported.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported {
    remb: Option<(f64, Instant)>,
    bps: f64,
    reported_at: Option<Instant>,
    pub(super) round_trip: Option<Duration>,
    pub(super) loss: f64,
}

impl Reported {
    pub(super) fn new() -> Self {
        Self {
            remb: None,
            bps: BWE_START_BPS as f64,
            reported_at: None,
            round_trip: None,
            loss: 0.0,
        }
    }

    /// The receiver's own estimate.
    pub(super) fn handle_remb(&mut self, now: Instant, bps: f64) {
        self.remb = Some((bps, now));
    }

    /// One report of a receiver; `most_bps` is what could be needed.
    pub(super) fn handle_report(&mut self, now: Instant, loss: f64, most_bps: f64) {
        let passed = self
            .reported_at
            .map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64().min(5.0));
        self.reported_at = Some(now);
        self.loss = loss;
        if loss > LOSS_HIGH {
            self.bps = self.bps() * (1.0 - 0.5 * loss);
        } else if loss < LOSS_LOW {
            let growth = if self.remb.is_some() { GROWTH_ESTIMATED } else { GROWTH };
            let most = self.remb.map_or(most_bps, |(bps, _)| bps);
            let grown = self.bps * (1.0 + (growth - 1.0) * passed);
            self.bps = grown.min(most).max(self.bps.min(most));
        }
    }

    /// Nothing was reported.
    pub(super) fn is_empty(&self) -> bool {
        self.remb.is_none() && self.reported_at.is_none()
    }

    /// It says what the path carries, not only that nothing is amiss.
    pub(super) fn is_bounded(&self) -> bool {
        self.remb.is_some() || self.bps < BWE_START_BPS as f64
    }

    /// The rate that reports alone allow.
    pub(super) fn bps(&self) -> f64 {
        self.remb.map_or(
            self.bps,
            |(bps, _)| {
                if self.reported_at.is_some() { bps.min(self.bps) } else { bps }
            },
        )
    }

    /// The limit that reports set next to transport-wide feedback.
    pub(super) fn limit_bps(&self, now: Instant) -> Option<f64> {
        let young = |at: Instant| now.saturating_duration_since(at) < REMB_AGE;
        self.remb.filter(|(_, at)| young(*at)).map(|(bps, _)| bps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::test_instant as epoch;

    #[test]
    fn the_receivers_own_estimate_is_taken_and_loss_lowers_it() {
        let t = epoch();
        let mut reported = Reported::new();
        assert!(reported.is_empty());
        reported.handle_remb(t, 2e6);
        assert_eq!(reported.bps(), 2e6);
        for second in 1..10 {
            reported.handle_report(t + Duration::from_secs(second), 0.0, 3e6);
        }
        assert_eq!(reported.bps(), 2e6);
        reported.handle_report(t + Duration::from_secs(10), 0.2, 3e6);
        assert_eq!(reported.bps(), 1.8e6);
        reported.handle_report(t + Duration::from_secs(11), 0.05, 3e6);
        assert_eq!(reported.bps(), 1.8e6);
        reported.handle_remb(t + Duration::from_secs(11), 1e6);
        assert_eq!(reported.bps(), 1e6);
        assert_eq!(reported.limit_bps(t + Duration::from_secs(12)), Some(1e6));
        assert_eq!(reported.limit_bps(t + Duration::from_secs(22)), None);
    }

    #[test]
    fn loss_alone_moves_the_rate_slowly_up_and_quickly_down() {
        let t = epoch();
        let mut reported = Reported::new();
        for second in 0..=10 {
            reported.handle_report(t + Duration::from_secs(second), 0.0, 1e6);
        }
        assert_eq!(reported.bps(), 1e6);
        for second in 11..=13 {
            reported.handle_report(t + Duration::from_secs(second), 0.5, 1e6);
        }
        assert!((4e5..4.3e5).contains(&reported.bps()), "{}", reported.bps());
    }
}
