//! Requests refused because a limit is reached, by limit.

use crate::control::guarded::Guarded;
use crate::limits::Limit;

/// Refusals since start.
#[derive(Debug, Default)]
pub struct Refusals(Guarded<[u64; Limit::ALL.len()]>);

impl Refusals {
    /// Counts one.
    pub fn add(&self, limit: Limit) {
        self.0.with(|counts| {
            if let Some(count) = counts.get_mut(limit as usize) {
                *count += 1;
            }
        });
    }

    /// Every limit's name with how often it refused, also where it never did: a rate needs a
    /// beginning.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.with(|counts| *counts);
        Limit::ALL.iter().map(|limit| limit.name()).zip(counts).collect()
    }
}
