//! Requests by route, method and class of status, and how long they took.

use std::collections::BTreeMap;
use std::time::Duration;

use super::buckets::{Buckets, RequestTime};
use crate::control::guarded::Guarded;

/// Methods that have a label of their own; a stranger's invention is `other`.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Requests since start. Routes are templates (`/media/room/{id}`) and methods are known ones, so
/// there are few of both.
#[derive(Debug, Default)]
pub struct HttpCounts(Guarded<BTreeMap<String, BTreeMap<&'static str, RouteCounts>>>);

/// Requests of one route and method.
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteCounts {
    /// By class of status: 1xx to 5xx.
    classes: [u64; 5],
    /// Until the head of the answer was ready: event streams go on after it.
    pub(super) time: Buckets<RequestTime>,
}

impl RouteCounts {
    /// Classes of status (`2` for 2xx), and how often each was answered. Success and failure are
    /// told also when they have not occurred: a rate needs a beginning.
    pub(super) fn classes(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        (1..).zip(self.classes).filter(|(class, count)| [2, 4, 5].contains(class) || *count > 0)
    }
}

impl HttpCounts {
    /// Counts one request with its status and how long its answer took.
    pub fn add(&self, route: &str, method: &str, status: u16, took: Duration) {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        self.0.with(|routes| {
            if !routes.contains_key(route) {
                routes.insert(route.to_owned(), BTreeMap::new());
            }
            let Some(methods) = routes.get_mut(route) else { return };
            let counts = methods.entry(method).or_default();
            let class = usize::from(status / 100).saturating_sub(1);
            if let Some(count) = counts.classes.get_mut(class) {
                *count += 1;
            }
            counts.time.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        });
    }

    /// Everything that was counted, by route and method.
    #[must_use]
    pub fn all(&self) -> Vec<(String, &'static str, RouteCounts)> {
        let all = |routes: &mut BTreeMap<String, BTreeMap<_, _>>| {
            let each = routes.iter().flat_map(|(route, methods)| {
                methods.iter().map(|(method, counts)| (route.clone(), *method, *counts))
            });
            each.collect()
        };
        self.0.with(all)
    }
}
