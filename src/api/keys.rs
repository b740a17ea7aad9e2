//! The API keys of the moment, and who reads their file again.
//!
//! [`KeysKeeper`] runs on the control thread; the gate asks the [`KeyRing`] at each request.
//! Invariant: what is in use was whole, and is never without a key once there was one: a file that is
//! of no use changes nothing.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::serving::tls::{Hangup, Renewal};
use crate::access::ApiKeys;
use crate::config::KeysFile;

/// The keys that are in use now; clones share them.
#[derive(Debug, Clone)]
pub struct KeyRing(watch::Receiver<Arc<ApiKeys>>);

impl KeyRing {
    /// As they are now.
    pub(super) fn current(&self) -> Arc<ApiKeys> {
        Arc::clone(&self.0.borrow())
    }
}

impl From<ApiKeys> for KeyRing {
    /// Keys that stay as they are.
    fn from(keys: ApiKeys) -> Self {
        Self(watch::channel(Arc::new(keys)).1)
    }
}

impl Default for KeyRing {
    fn default() -> Self {
        ApiKeys::default().into()
    }
}

/// Keeps the keys up to date with their file.
#[derive(Debug)]
pub struct KeysKeeper {
    file: KeysFile,
    current: watch::Sender<Arc<ApiKeys>>,
}

impl KeysKeeper {
    /// With the keys that were read at start.
    #[must_use]
    pub fn start(file: KeysFile, keys: ApiKeys) -> (Self, KeyRing) {
        let (current, ring) = watch::channel(Arc::new(keys));
        (Self { file, current }, KeyRing(ring))
    }

    /// Reads the file again whenever `hangup` says so, for as long as it is polled; one that is of
    /// no use again and again for a while, because whoever writes it may not be done; and one that
    /// is of use until it is the same twice, because half a file may be of use too.
    pub async fn keep(self, mut hangup: Hangup) {
        let mut renewal = Renewal::default();
        let mut is_taken = false;
        loop {
            if !renewal.wait(&mut hangup, None).await {
                continue;
            }
            let file = self.file.clone();
            match spawn_blocking(move || file.read()).await {
                Ok(Ok(keys)) if is_taken && keys == **self.current.borrow() => {
                    is_taken = false;
                    renewal.succeeded();
                }
                Ok(Ok(keys)) => {
                    is_taken = true;
                    renewal.once_more();
                    let ids: Vec<&str> = keys.iter().map(|key| key.id()).collect();
                    tracing::info!(keys = %ids.join(", "), "API keys read again");
                    self.current.send_replace(Arc::new(keys));
                }
                Ok(Err(error)) => renewal.failed(&error, "the old API keys stay in use"),
                Err(error) => renewal.failed(&error, "the old API keys stay in use"),
            }
        }
    }
}
