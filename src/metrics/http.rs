//! Requests by route and class of status, and refusals by limit.

use std::collections::BTreeMap;

use crate::control::guarded::Guarded;
use crate::limits::Limit;

/// Requests since start. Routes are templates (`/media/room/{id}`), so there are few.
#[derive(Debug, Default)]
pub struct HttpCounts {
    requests: Guarded<BTreeMap<(String, u16), u64>>,
    refused: Guarded<BTreeMap<&'static str, u64>>,
}

impl HttpCounts {
    /// Counts one request with its status.
    pub fn add(&self, route: &str, status: u16) {
        self.requests.with(|counts| {
            *counts.entry((route.to_owned(), status / 100)).or_default() += 1;
        });
    }

    /// Counts one request that was refused because a limit is reached.
    pub fn refuse(&self, limit: Limit) {
        self.refused.with(|counts| *counts.entry(limit.name()).or_default() += 1);
    }

    /// Every limit with how often requests were refused for it.
    #[must_use]
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        let of = |counts: &BTreeMap<_, _>, name| counts.get(name).copied().unwrap_or_default();
        self.refused.with(|counts| {
            Limit::ALL.iter().map(|limit| (limit.name(), of(counts, limit.name()))).collect()
        })
    }

    /// Every route with its class of status (`2` for 2xx) and how often it was that.
    #[must_use]
    pub fn all(&self) -> Vec<(String, u16, u64)> {
        self.requests.with(|counts| {
            counts.iter().map(|((route, class), count)| (route.clone(), *class, *count)).collect()
        })
    }
}
