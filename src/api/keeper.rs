//! What is read from a file again while the server runs: API keys, STUN and TURN servers.
//!
//! A [`FileKeeper`] runs on the control thread; handlers ask for what is in use at each request.
//! Invariant: what is in use was whole: a file that is of no use changes nothing, and neither does one
//! that still changes, because half a file may be of use too.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::serving::tls::{Hangup, Renewal};

/// What is in use now; clones share it.
pub type Kept<T> = watch::Receiver<Arc<T>>;

/// Something that stays as it is.
pub(super) fn unchanging<T>(it: T) -> Kept<T> {
    watch::channel(Arc::new(it)).1
}

/// How it is read, as at a start; what fails is one sentence without a secret.
type Read<T> = Arc<dyn Fn() -> Result<T, String> + Send + Sync>;

/// What is said of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<T> {
    /// That it was read again; without a secret.
    pub(super) taken: fn(&T),
    /// What stays, when the file is of no use.
    pub(super) stays: &'static str,
}

/// Keeps something up to date with its file.
pub struct FileKeeper<T> {
    read: Read<T>,
    current: watch::Sender<Arc<T>>,
    words: Words<T>,
}

impl<T> fmt::Debug for FileKeeper<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKeeper").field("words", &self.words.stays).finish_non_exhaustive()
    }
}

impl<T: PartialEq + Send + Sync + 'static> FileKeeper<T> {
    /// With what was read at start.
    pub(super) fn start(
        read: impl Fn() -> Result<T, String> + Send + Sync + 'static,
        first: T,
        words: Words<T>,
    ) -> (Self, Kept<T>) {
        let (current, kept) = watch::channel(Arc::new(first));
        (Self { read: Arc::new(read), current, words }, kept)
    }

    /// Reads the file again whenever `hangup` says so, for as long as it is polled: until it is the
    /// same twice; and one that is of no use for a while, because whoever writes it may not be done.
    pub async fn keep(self, mut hangup: Hangup) {
        let mut renewal = Renewal::default();
        let mut seen: Option<T> = None;
        loop {
            if !renewal.wait(&mut hangup, None).await {
                continue;
            }
            let read = Arc::clone(&self.read);
            match spawn_blocking(move || read()).await {
                Ok(Ok(it)) if seen.as_ref() == Some(&it) => {
                    seen = None;
                    renewal.succeeded();
                    if it != **self.current.borrow() {
                        (self.words.taken)(&it);
                        self.current.send_replace(Arc::new(it));
                    }
                }
                Ok(Ok(it)) => {
                    seen = Some(it);
                    renewal.once_more(self.words.stays);
                }
                Ok(Err(error)) => {
                    seen = None;
                    renewal.failed(&error, self.words.stays);
                }
                Err(error) => renewal.failed(&error, self.words.stays),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    /// What is taken of a file that says this, one after the other, after one SIGHUP.
    async fn taken(says: &'static [Result<&'static str, &'static str>]) -> Vec<&'static str> {
        let reads = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reads);
        let read = move || {
            let said = says.get(count.fetch_add(1, Ordering::Relaxed)).or_else(|| says.last());
            said.copied().unwrap_or(Err("nothing")).map_err(str::to_owned)
        };
        let words = Words { taken: |_| {}, stays: "it stays" };
        let (keeper, mut kept) = FileKeeper::start(read, "old", words);
        let keeping = tokio::spawn(keeper.keep(Hangup::watch().unwrap()));
        kill_process(getpid(), Signal::HUP).unwrap();
        // Before time can go on by itself, it is heard.
        while reads.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let mut seen = vec![*kept.borrow_and_update().as_ref()];
        // Virtual: longer than anything is tried for.
        let end = tokio::time::sleep(crate::limits::RELOAD_RETRY * 1_000);
        tokio::pin!(end);
        loop {
            tokio::select! {
                changed = kept.changed() => {
                    changed.unwrap();
                    seen.push(*kept.borrow_and_update().as_ref());
                }
                () = &mut end => break,
            }
        }
        keeping.abort();
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_file_is_never_in_use_even_if_it_could_be() {
        assert_eq!(taken(&[Ok("half"), Ok("whole")]).await, ["old", "whole"]);
        assert_eq!(taken(&[Ok("half"), Err("torn"), Ok("half"), Ok("all")]).await, ["old", "all"]);
        assert_eq!(taken(&[Ok("old"), Ok("new")]).await, ["old", "new"], "SIGHUP came too early");
        assert_eq!(taken(&[Err("torn")]).await, ["old"]);
        assert_eq!(taken(&[Ok("old")]).await, ["old"]);
    }
}
