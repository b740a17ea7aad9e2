//! Messages on disk: first in, first out, bounded.
//!
//! Owned by one outlet's thread. A folder holds numbered files (segments) and a lock that keeps
//! other processes out. Invariants: messages come back in the order in which they were appended,
//! also after a restart; a segment is deleted only when everything that was read from it is done
//! with, so that a process that dies repeats messages rather than losing them. Nothing is synced:
//! what the kernel was given survives the process, not a power cut.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::message::Message;
use crate::limits::{SPOOL_BYTES_MAX, SPOOL_KEPT_SEGMENT_BYTES, SPOOL_SEGMENT_BYTES};

/// Names a file of the spool, in order.
pub(super) type SegmentNumber = u64;

/// Why a message is not on disk.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The spool holds [`SPOOL_BYTES_MAX`].
    #[error("the spool is full")]
    Full,
    /// There is none, and memory holds [`OUTLET_WINDOW`](crate::limits::OUTLET_WINDOW) messages, or
    /// the process ends.
    #[error("there is no spool for what memory cannot keep")]
    Absent,
    /// The disk.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

#[derive(Debug)]
struct Segment {
    number: SegmentNumber,
    messages: usize,
    bytes: u64,
}

/// A queue on disk.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// Kept open: it holds the lock.
    _lock: File,
    /// Not yet read, oldest first.
    unread: VecDeque<Segment>,
    /// The end of the last unread segment, while it takes more.
    tail: Option<File>,
    /// What was read from the segment `reading` and not yet taken.
    head: VecDeque<Message>,
    /// Read or kept, and not yet done with, oldest first; the last one is where `head` comes from.
    read: VecDeque<Segment>,
    /// The end of the last read segment, while it keeps more of what is in memory.
    kept: Option<(SegmentNumber, File)>,
    next: SegmentNumber,
    bytes_max: u64,
}

impl Spool {
    /// Opens the folder, made if there is none, with what an earlier process left in it.
    ///
    /// # Errors
    /// When the folder cannot be used, or another process uses it.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(folder.join("lock"))?;
        lock.try_lock().map_err(|_| io::Error::other("another process uses it"))?;
        let mut numbers: Vec<SegmentNumber> =
            fs::read_dir(folder)?.filter_map(|file| number_of(&file.ok()?.path())).collect();
        numbers.sort_unstable();
        let mut spool = Self {
            folder: folder.to_owned(),
            _lock: lock,
            unread: VecDeque::new(),
            tail: None,
            head: VecDeque::new(),
            read: VecDeque::new(),
            kept: None,
            next: numbers.last().map_or(1, |last| last + 1),
            bytes_max: SPOOL_BYTES_MAX,
        };
        for number in numbers {
            let messages = spool.messages_of(number)?;
            let bytes = fs::metadata(spool.path(number))?.len();
            spool.unread.push_back(Segment { number, messages: messages.len(), bytes });
        }
        Ok(spool)
    }

    /// Messages not yet taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.unread.iter().map(|segment| segment.messages).sum::<usize>()
    }

    /// True when there is nothing to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.read.iter().chain(&self.unread).map(|segment| segment.bytes).sum()
    }

    /// Puts a message behind all others.
    ///
    /// # Errors
    /// [`SpoolError`]; then nothing has changed but that a torn record may be skipped later.
    pub fn append(&mut self, message: &Message) -> Result<(), SpoolError> {
        let (record, size) = self.record(message)?;
        let is_long = |segment: &Segment| segment.bytes >= SPOOL_SEGMENT_BYTES;
        if self.tail.is_none() || self.unread.back().is_none_or(is_long) {
            self.begin_segment()?;
        }
        let (Some(tail), Some(segment)) = (&mut self.tail, self.unread.back_mut()) else {
            return Err(SpoolError::Full);
        };
        if let Err(error) = tail.write_all(&record) {
            // What is behind a torn record would not be found: go on in another file.
            self.tail = None;
            return Err(error.into());
        }
        segment.messages += 1;
        segment.bytes += size;
        Ok(())
    }

    /// Writes a message that stays in memory as well, for the next process should this one die: as
    /// if it had been taken from the segment answered. Only where there is nothing to take, since
    /// it belongs before that.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub(super) fn keep(&mut self, message: &Message) -> Result<SegmentNumber, SpoolError> {
        let (record, size) = self.record(message)?;
        let goes_on =
            |last: &Segment, kept| last.number == kept && last.bytes < SPOOL_KEPT_SEGMENT_BYTES;
        let kept = self.kept.as_ref().map(|(number, _)| *number);
        if !self.read.back().zip(kept).is_some_and(|(last, kept)| goes_on(last, kept)) {
            let number = self.next;
            self.next += 1;
            self.kept = Some((number, create(&self.path(number))?));
            self.read.push_back(Segment { number, messages: 0, bytes: 0 });
        }
        let (Some((number, file)), Some(segment)) = (&mut self.kept, self.read.back_mut()) else {
            return Err(SpoolError::Full);
        };
        let number = *number;
        if let Err(error) = file.write_all(&record) {
            // As in `append`.
            self.kept = None;
            return Err(error.into());
        }
        segment.messages += 1;
        segment.bytes += size;
        Ok(number)
    }

    /// A message as it is written, if there is room for it.
    fn record(&self, message: &Message) -> Result<(Vec<u8>, u64), SpoolError> {
        let mut record = Vec::with_capacity(message.size() + 8);
        message.write(&mut record);
        let size = u64::try_from(record.len()).unwrap_or(u64::MAX);
        if self.bytes().saturating_add(size) > self.bytes_max {
            return Err(SpoolError::Full);
        }
        Ok((record, size))
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let number = self.next;
        self.next += 1;
        self.tail = Some(create(&self.path(number))?);
        self.unread.push_back(Segment { number, messages: 0, bytes: 0 });
        Ok(())
    }

    /// The oldest message, and the segment that keeps it until
    /// [`release_before`](Self::release_before).
    pub(super) fn take(&mut self) -> Option<(Message, SegmentNumber)> {
        while self.head.is_empty() {
            let segment = self.unread.pop_front()?;
            if self.unread.is_empty() {
                self.tail = None;
            }
            match self.messages_of(segment.number) {
                Ok(messages) => self.head = messages,
                Err(error) => {
                    let path = self.path(segment.number);
                    tracing::error!(%error, path = %path.display(), "spooled events cannot be read");
                }
            }
            self.read.push_back(segment);
        }
        Some((self.head.pop_front()?, self.read.back()?.number))
    }

    /// Deletes read segments before `number`; without one, all that have been taken whole.
    pub(super) fn release_before(&mut self, number: Option<SegmentNumber>) {
        while let Some(oldest) = self.read.front() {
            let whole = self.read.len() > 1 || self.head.is_empty();
            if !whole || number.is_some_and(|number| oldest.number >= number) {
                return;
            }
            let path = self.path(oldest.number);
            if let Err(error) = fs::remove_file(&path) {
                tracing::error!(%error, path = %path.display(), "a spool's file cannot be deleted");
            }
            self.read.pop_front();
        }
    }

    /// Puts messages that were taken, or never were on disk, before all others, for the next
    /// process. Nothing else may follow.
    ///
    /// # Errors
    /// When the disk refuses; what was on disk before still is.
    pub(super) fn restore<'a>(
        mut self,
        messages: impl Iterator<Item = &'a Message>,
    ) -> io::Result<()> {
        let head = std::mem::take(&mut self.head);
        let mut records = Vec::new();
        messages.for_each(|message| message.write(&mut records));
        head.iter().for_each(|message| message.write(&mut records));
        if !records.is_empty() {
            // In place of the last file that was read; before all unread ones in any case.
            let before =
                self.unread.front().map_or(self.next, |segment| segment.number.saturating_sub(1));
            let number = self.read.back().map_or(before, |segment| segment.number);
            self.read.retain(|segment| segment.number != number);
            let draft = self.folder.join("draft");
            let mut file = create(&draft)?;
            file.write_all(&records)?;
            fs::rename(draft, self.path(number))?;
        }
        self.release_before(None);
        Ok(())
    }

    fn messages_of(&self, number: SegmentNumber) -> io::Result<VecDeque<Message>> {
        let mut rest = Bytes::from(fs::read(self.path(number))?);
        let mut messages = VecDeque::new();
        while let Some((message, after)) = Message::read(&rest) {
            messages.push_back(message);
            rest = after;
        }
        if !rest.is_empty() {
            let path = self.path(number);
            let (path, bytes) = (path.display(), rest.len());
            tracing::warn!(%path, bytes, "the end of a spool's file is no event");
        }
        Ok(messages)
    }

    fn path(&self, number: SegmentNumber) -> PathBuf {
        self.folder.join(format!("{number:020}.events"))
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)
}

fn number_of(path: &Path) -> Option<SegmentNumber> {
    path.file_name()?.to_str()?.strip_suffix(".events")?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::message::tests::message;
    use super::*;

    /// A folder that goes when the test ends.
    pub(crate) struct Folder(PathBuf);

    impl Folder {
        pub(crate) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ringcast-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        pub(crate) fn open(&self) -> Spool {
            Spool::open(&self.0).unwrap()
        }

        fn files(&self) -> usize {
            let names = fs::read_dir(&self.0).unwrap();
            names.filter(|file| number_of(&file.as_ref().unwrap().path()).is_some()).count()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn fill(spool: &mut Spool, numbers: std::ops::RangeInclusive<u64>) {
        numbers.for_each(|seq| spool.append(&message(seq, "{}")).unwrap());
    }

    fn drain(spool: &mut Spool) -> Vec<u64> {
        std::iter::from_fn(|| spool.take()).map(|(message, _)| message.id.seq).collect()
    }

    #[test]
    fn messages_come_back_in_order_while_more_are_put_in() {
        let folder = Folder::new("spool-order");
        let mut spool = folder.open();
        fill(&mut spool, 1..=3);
        assert_eq!(spool.take().unwrap().0.id.seq, 1);
        fill(&mut spool, 4..=5);
        assert_eq!(spool.len(), 4);
        assert_eq!(drain(&mut spool), [2, 3, 4, 5]);
        assert!(spool.is_empty() && spool.bytes() > 0, "taken is not done");
        spool.release_before(None);
        assert_eq!((spool.bytes(), folder.files()), (0, 0));
    }

    #[test]
    fn what_was_not_released_is_there_after_a_crash() {
        let folder = Folder::new("spool-crash");
        let mut spool = folder.open();
        fill(&mut spool, 1..=3);
        assert_eq!(drain(&mut spool), [1, 2, 3]);
        fill(&mut spool, 4..=4);
        drop(spool);
        assert_eq!(drain(&mut folder.open()), [1, 2, 3, 4]);
    }

    #[test]
    fn what_was_taken_and_not_done_comes_first_in_the_next_process() {
        let folder = Folder::new("spool-restore");
        let mut spool = folder.open();
        fill(&mut spool, 1..=4);
        let (first, _) = spool.take().unwrap();
        spool.take().unwrap();
        fill(&mut spool, 5..=6);
        let memory = message(9, "{}");
        spool.restore([&first, &memory].into_iter()).unwrap();
        let mut spool = folder.open();
        assert_eq!(drain(&mut spool), [1, 9, 3, 4, 5, 6]);
        spool.release_before(None);
        assert_eq!(folder.files(), 0);
    }

    #[test]
    fn it_is_bounded_in_bytes_and_lets_others_in_when_some_are_done() {
        let folder = Folder::new("spool-bound");
        let mut spool = folder.open();
        fill(&mut spool, 1..=1);
        spool.bytes_max = spool.bytes() * 3;
        fill(&mut spool, 2..=3);
        assert!(matches!(spool.append(&message(4, "{}")), Err(SpoolError::Full)));
        assert_eq!(drain(&mut spool), [1, 2, 3]);
        assert!(spool.append(&message(4, "{}")).is_err(), "still on disk");
        spool.release_before(None);
        fill(&mut spool, 5..=5);
    }

    #[test]
    fn long_spools_have_several_files_and_a_torn_end_harms_one_of_them() {
        let folder = Folder::new("spool-files");
        let mut spool = folder.open();
        let body: &'static str = "x".repeat(1024 * 1024).leak();
        for seq in 1..=6 {
            spool.append(&message(seq, body)).unwrap();
        }
        assert_eq!(folder.files(), 2);
        let first = spool.path(1);
        drop(spool);
        let torn = fs::metadata(&first).unwrap().len() - 5;
        OpenOptions::new().write(true).open(first).unwrap().set_len(torn).unwrap();
        let mut spool = folder.open();
        assert_eq!(spool.len(), 5);
        assert_eq!(drain(&mut spool), [1, 2, 3, 5, 6]);
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let folder = Folder::new("spool-lock");
        let spool = folder.open();
        let error = Spool::open(&folder.0).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
        drop(spool);
        folder.open();
    }
}
