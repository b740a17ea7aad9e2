//! The addresses of one client that ICE has validated, and which of them is selected.
//!
//! Owned by [`ice`](super::ice). Invariants: at most [`TUPLES_PER_TRANSPORT_MAX`] tuples; the
//! selected one is among them; the selected one is never evicted for another. Deliberately not
//! here: whether a request is authentic (`ice` asks only for those that are).

use std::time::Instant;

use crate::engine::io::Path;
use crate::limits::{CONSENT_TIMEOUT, TUPLES_PER_TRANSPORT_MAX};

#[derive(Debug, Clone, Copy)]
struct Tuple {
    path: Path,
    /// The last verified request over it.
    verified: Instant,
    /// The last verified request or media packet over it.
    heard: Instant,
}

/// Validated addresses, the selected one, and what changed since the last look.
#[derive(Debug, Default)]
pub struct Tuples {
    live: Vec<Tuple>,
    selected: Option<Path>,
}

/// What a verified request did to the tuples.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TupleChanges {
    /// The request came over an address not known before.
    pub added: Option<Path>,
    /// Addresses given up for it.
    pub removed: Vec<Path>,
}

impl Tuples {
    /// The address that output goes to.
    #[must_use]
    pub fn selected(&self) -> Option<Path> {
        self.selected
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// True when the client can be reached nowhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Path> + '_ {
        self.live.iter().map(|tuple| tuple.path)
    }

    /// True when ICE validated `path`.
    #[must_use]
    pub fn contains(&self, path: &Path) -> bool {
        self.selected.as_ref() == Some(path) || self.live.iter().any(|t| t.path == *path)
    }

    /// Notes a verified request over `path`. Room is made by giving up the address that was
    /// verified longest ago; addresses without consent go too (RFC 7675).
    pub fn verified(&mut self, now: Instant, path: Path) -> TupleChanges {
        let mut changes = TupleChanges::default();
        if let Some(tuple) = self.live.iter_mut().find(|tuple| tuple.path == path) {
            tuple.verified = now;
            tuple.heard = now;
        } else {
            if self.live.len() >= TUPLES_PER_TRANSPORT_MAX {
                changes.removed.extend(self.evict());
            }
            self.live.push(Tuple { path, verified: now, heard: now });
            changes.added = Some(path);
        }
        let selected = self.selected;
        self.live.retain(|tuple| {
            let lapsed = now.saturating_duration_since(tuple.verified) >= CONSENT_TIMEOUT;
            let stays = !lapsed || Some(tuple.path) == selected;
            if !stays {
                changes.removed.push(tuple.path);
            }
            stays
        });
        changes
    }

    fn evict(&mut self) -> Option<Path> {
        let selected = self.selected;
        let oldest = self
            .live
            .iter()
            .enumerate()
            .filter(|(_, tuple)| Some(tuple.path) != selected)
            .min_by_key(|(_, tuple)| tuple.verified)?
            .0;
        Some(self.live.remove(oldest).path)
    }

    /// Notes an authentic media or DTLS packet over `path`; `false` when ICE has not validated it.
    pub fn heard(&mut self, now: Instant, path: &Path) -> bool {
        let tuple = self.live.iter_mut().find(|tuple| tuple.path == *path);
        tuple.map(|tuple| tuple.heard = now).is_some()
    }

    /// When the selected address was last heard.
    #[must_use]
    pub fn selected_heard(&self) -> Option<Instant> {
        self.live.iter().find(|t| Some(t.path) == self.selected).map(|tuple| tuple.heard)
    }

    /// Selects `path`, which must be validated; `true` when it was not selected before.
    pub fn select(&mut self, path: Path) -> bool {
        if self.selected == Some(path) || !self.contains(&path) {
            return false;
        }
        self.selected = Some(path);
        true
    }

    /// Forgets `path`; when it was selected, the address verified last takes its place.
    pub fn remove(&mut self, path: &Path) -> bool {
        let before = self.live.len();
        self.live.retain(|tuple| tuple.path != *path);
        if self.selected.as_ref() == Some(path) {
            self.selected = self.live.iter().max_by_key(|t| t.verified).map(|tuple| tuple.path);
        }
        self.live.len() != before
    }
}
