//! What a publisher is told that it may send at most.
//!
//! Owned by a transport, asked once a second when reports are written. A publisher that offers
//! REMB only is told our estimate, cut to the limit. One with transport-wide feedback estimates by
//! itself, and is told a limit by REMB all the same: browsers never send more than the last REMB
//! said, whatever their own estimate (libwebrtc's `GoogCcNetworkController`, and what mediasoup
//! relies on, too). A limit that was taken away is withdrawn by telling one that nobody reaches, a
//! few times, because a REMB may be lost.

/// Repeats of a withdrawal (mediasoup's 4).
const WITHDRAWALS: u8 = 4;

/// More than any publisher sends, bits/s; not 0, which some take for "nothing".
const UNLIMITED_BPS: u64 = 1 << 32;

/// The limit of one publisher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IncomingLimit {
    /// The last one was set: its end will have to be told.
    limited: bool,
    withdrawals: u8,
}

impl IncomingLimit {
    /// The bit rate to tell now, if any: with this limit set, and this estimate where that is told.
    pub fn told(&mut self, limit_bps: Option<u64>, estimate_bps: Option<u64>) -> Option<u64> {
        if std::mem::replace(&mut self.limited, limit_bps.is_some()) && limit_bps.is_none() {
            self.withdrawals = WITHDRAWALS;
        }
        let told = [limit_bps, estimate_bps].into_iter().flatten().min();
        if told.is_some() {
            self.withdrawals = 0;
            return told;
        }
        self.withdrawals = self.withdrawals.checked_sub(1)?;
        Some(UNLIMITED_BPS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_while_it_is_set_and_its_end_four_times() {
        let mut limit = IncomingLimit::default();
        let mut told = Vec::new();
        for set in [None, Some(500), Some(500), None, None, None, None, None, Some(7), None] {
            told.push(limit.told(set, None));
        }
        let end = Some(UNLIMITED_BPS);
        assert_eq!(told, [None, Some(500), Some(500), end, end, end, end, None, Some(7), end]);
    }

    #[test]
    fn an_estimate_is_told_up_to_the_limit_and_withdraws_it() {
        let mut limit = IncomingLimit::default();
        let told = [(None, Some(900)), (Some(500), Some(900)), (Some(500), Some(300))]
            .map(|(set, estimate)| limit.told(set, estimate));
        assert_eq!(told, [Some(900), Some(500), Some(300)]);
        assert_eq!(limit.told(None, Some(900)), Some(900));
        assert_eq!(limit.told(None, None), None);
    }
}
