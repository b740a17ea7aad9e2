//! Requests by route and class of status.

use std::collections::BTreeMap;

use super::connections::ConnectionCounts;
use crate::control::guarded::Guarded;

/// Requests since start, and their connections. Routes are templates (`/media/room/{id}`), so there
/// are few.
#[derive(Debug, Default)]
pub struct HttpCounts {
    requests: Guarded<BTreeMap<(String, u16), u64>>,
    /// What carries the requests.
    pub connections: ConnectionCounts,
}

impl HttpCounts {
    /// Counts one request with its status.
    pub fn add(&self, route: &str, status: u16) {
        self.requests.with(|counts| {
            *counts.entry((route.to_owned(), status / 100)).or_default() += 1;
        });
    }

    /// Every route with its class of status (`2` for 2xx) and how often it was that.
    #[must_use]
    pub fn all(&self) -> Vec<(String, u16, u64)> {
        self.requests.with(|counts| {
            counts.iter().map(|((route, class), count)| (route.clone(), *class, *count)).collect()
        })
    }
}
