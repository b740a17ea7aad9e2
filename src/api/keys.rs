//! The API keys of the moment, for the gate to ask at each request.

use std::sync::Arc;

use super::keeper::{FileKeeper, Kept, Words, unchanging};
use crate::access::ApiKeys;
use crate::config::KeysFile;

/// The keys that are in use now; clones share them.
#[derive(Debug, Clone)]
pub struct KeyRing(Kept<ApiKeys>);

impl KeyRing {
    /// With the keys that were read at start, and who looks after their file.
    #[must_use]
    pub fn start(file: KeysFile, keys: ApiKeys) -> (FileKeeper<ApiKeys>, Self) {
        let words = Words {
            taken: |keys: &ApiKeys| {
                let ids: Vec<&str> = keys.iter().map(|key| key.id()).collect();
                tracing::info!(keys = %ids.join(", "), "API keys read again");
            },
            stays: "the old API keys stay in use",
        };
        let (keeper, kept) = FileKeeper::start(move || file.read(), keys, words);
        (keeper, Self(kept))
    }

    /// As they are now.
    pub(super) fn current(&self) -> Arc<ApiKeys> {
        Arc::clone(&self.0.borrow())
    }
}

impl From<ApiKeys> for KeyRing {
    /// Keys that stay as they are.
    fn from(keys: ApiKeys) -> Self {
        Self(unchanging(keys))
    }
}

impl Default for KeyRing {
    fn default() -> Self {
        ApiKeys::default().into()
    }
}
