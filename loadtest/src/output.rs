//! Files that results are written to: opened before a run, so that a place that cannot be written to
//! is known before and not after it. Used by `main`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file that waits for results. What it held before stays until they are written.
#[derive(Debug)]
pub(crate) struct Output {
    flag: &'static str,
    path: PathBuf,
    file: File,
    /// There was none before.
    is_new: bool,
}

impl Output {
    /// Opens the file that a flag names, if it names one.
    pub(crate) fn open(flag: &'static str, path: Option<&Path>) -> Result<Option<Self>, String> {
        let Some(path) = path else { return Ok(None) };
        let is_new = !path.exists();
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(|error| format!("{flag} {}: {error}", path.display()))?;
        Ok(Some(Self { flag, path: path.into(), file, is_new }))
    }

    /// Writes the results.
    pub(crate) fn write(mut self, text: &str) -> Result<(), String> {
        let is_file = self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        let emptied = if is_file { self.file.set_len(0) } else { Ok(()) };
        let written = emptied.and_then(|()| self.file.write_all(text.as_bytes()));
        written.map_err(|error| format!("{} {}: {error}", self.flag, self.path.display()))
    }

    /// There are no results: what was made for them goes.
    pub(crate) fn discard(self) {
        if self.is_new {
            // An empty file that stays is no harm.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_opened_before_and_keeps_what_it_held_until_it_is_written() {
        let name = format!("loadtest-output-{}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        let open = || Output::open("--json", Some(&path)).unwrap().unwrap();
        open().discard();
        assert!(!path.exists());
        std::fs::write(&path, "a longer text of before").unwrap();
        let waiting = open();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a longer text of before");
        waiting.discard();
        open().write("new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        std::fs::remove_file(&path).unwrap();
        let refused = Output::open("--html", Some(Path::new("/nowhere/a.html"))).unwrap_err();
        assert!(refused.starts_with("--html /nowhere/a.html: "), "{refused}");
        assert!(Output::open("--html", None).unwrap().is_none());
    }
}
