//! The results of one job: append-only, synced by group commit on a thread of its own.
//!
//! The thread takes what is queued, writes it as one frame, syncs it, and answers: while one sync runs the next frame
//! gathers. What a payload means is the caller's business. Files: `<dir>/00000001.seg`, a new one from [`ROLL_AT`] on.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::failpoint::{self, Place};
use crate::segment::{self, HEADER, PAYLOAD_MAX};
use crate::syncs::SyncTimes;
use crate::{Fatal, StoreError};

/// A segment is closed when it has grown to this many bytes; the next append starts another.
pub const ROLL_AT: u64 = 64 << 20;
/// Appends waiting for the thread. The engine has one under way per job; a few more are room for a commit's length.
const QUEUE_MAX: usize = 16;

type Answer = oneshot::Sender<Result<(), StoreError>>;

/// The open log of one job.
#[derive(Debug)]
pub struct ResultLog {
    queue: mpsc::Sender<(Vec<u8>, Answer)>,
}

impl ResultLog {
    /// Opens (or creates) the log in `dir`, hands every payload on disk to `each` in the order it was appended, and
    /// cuts a torn tail. Blocks. Memory: one segment at a time.
    pub fn open(dir: &Path, fatal: Fatal, each: impl FnMut(&[u8])) -> Result<Self, StoreError> {
        failpoint::pass(Place::ResultsOpenBefore);
        std::fs::create_dir_all(dir).map_err(|e| StoreError::from_io("creating a result log", e))?;
        sync_directory_of(dir, &fatal)?;
        let mut appender = Appender::recover(dir, &fatal, each)?;
        failpoint::pass(Place::ResultsOpenAfter);
        let (queue, mut receiver) = mpsc::channel::<(Vec<u8>, Answer)>(QUEUE_MAX);
        std::thread::Builder::new()
            .name("results".into())
            .spawn(move || {
                while let Some((payload, answer)) = receiver.blocking_recv() {
                    let outcome = fatal.check().and_then(|()| appender.append(&payload, &fatal.syncs().results));
                    if let Err(StoreError::Broken(reason)) = &outcome {
                        fatal.throw(reason.clone());
                    }
                    // A caller that has gone does not need to know.
                    let _ = answer.send(outcome);
                }
            })
            .map_err(StoreError::Io)?;
        Ok(Self { queue })
    }

    /// Appends one payload (1 byte to [`PAYLOAD_MAX`]) and returns once it is durable.
    ///
    /// `Err(Full)`: it is not there, and may be tried again. `Err(Broken)`: unknown, and nothing more is accepted.
    pub async fn append(&self, payload: Vec<u8>) -> Result<(), StoreError> {
        let gone = || StoreError::Broken("the result log's thread has ended".into());
        let (answer, answered) = oneshot::channel();
        self.queue.send((payload, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Reads a closed or open log from its start without touching it: for reports. A torn tail is passed over.
    /// Blocks; one segment is in memory at a time.
    pub fn read(dir: &Path, each: impl FnMut(&[u8])) -> Result<(), StoreError> {
        Self::read_on(dir, Position::default(), each).map(drop)
    }

    /// As [`ResultLog::read`], from where an earlier reading of the same log ended; returns where this one did. Good for
    /// as long as the process lives: a log that is open only grows behind its whole frames.
    pub fn read_on(dir: &Path, from: Position, mut each: impl FnMut(&[u8])) -> Result<Position, StoreError> {
        let paths = segments_in(dir)?;
        let mut to = from;
        for (index, path) in paths.iter().enumerate().skip(from.segments_before) {
            let start = if index == from.segments_before { from.bytes } else { 0 };
            let (valid, on_disk) = read_segment(path, start, &mut each)?;
            if index + 1 < paths.len() && valid != on_disk {
                return Err(damaged(path, valid));
            }
            to = Position { segments_before: index, bytes: valid };
        }
        Ok(to)
    }
}

/// How far a log has been read. The first value is its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Segments that were read to their end, for another followed.
    pub segments_before: usize,
    /// Whole bytes of the segment behind those.
    pub bytes: u64,
}

struct Appender {
    dir: PathBuf,
    file: Option<File>,
    /// Number of the current file, counted from 1.
    number: u32,
    /// Bytes of the current file that are whole and synced.
    len: u64,
}

impl Appender {
    fn recover(dir: &Path, fatal: &Fatal, mut each: impl FnMut(&[u8])) -> Result<Self, StoreError> {
        let mut appender = Self { dir: dir.to_owned(), file: None, number: 0, len: 0 };
        let paths = segments_in(dir)?;
        for (index, path) in paths.iter().enumerate() {
            let (valid, on_disk) = read_segment(path, 0, &mut each)?;
            let last = index + 1 == paths.len();
            if !last && valid != on_disk {
                return Err(damaged(path, valid));
            }
            if last {
                let io = |e| StoreError::from_io("opening a result segment", e);
                let file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
                if valid != on_disk {
                    tracing::warn!(path = %path.display(), valid, on_disk, "cut a torn tail off a result segment");
                    file.set_len(valid).map_err(io)?;
                    fatal.sync(&file, "a result segment")?;
                }
                appender.number = number_of(path).unwrap_or(0);
                appender.len = valid;
                appender.file = Some(file);
            }
        }
        Ok(appender)
    }

    fn append(&mut self, payload: &[u8], syncs: &SyncTimes) -> Result<(), StoreError> {
        if payload.is_empty() || payload.len() > PAYLOAD_MAX {
            return Err(StoreError::Damaged(format!("a result frame of {} bytes", payload.len())));
        }
        let mut bytes = Vec::with_capacity(HEADER.len() + payload.len() + 16);
        if self.file.is_none() || self.len >= ROLL_AT {
            self.roll()?;
        }
        if self.len == 0 {
            bytes.extend_from_slice(HEADER);
        }
        segment::push_frame(&mut bytes, payload);
        let Some(file) = self.file.as_mut() else {
            return Err(StoreError::Broken("no open result segment".into()));
        };
        failpoint::pass(Place::ResultsAppendBefore);
        let written =
            file.seek(SeekFrom::Start(self.len)).and_then(|_| match failpoint::is_set(Place::ResultsAppendTorn) {
                false => file.write_all(&bytes),
                // As a crash in the middle would have it.
                true => {
                    let (first, rest) = bytes.split_at(bytes.len() / 2);
                    file.write_all(first)?;
                    failpoint::pass(Place::ResultsAppendTorn);
                    file.write_all(rest)
                }
            });
        if let Err(error) = written {
            let error = StoreError::from_io("appending results", error);
            // What was written of the frame goes again, so that the next append starts behind whole frames. If even
            // that fails the file is in an unknown state and nothing may be added to it.
            return Err(match (file.set_len(self.len), error) {
                (Ok(()), full @ StoreError::Full(_)) => full,
                (_, other) => StoreError::Broken(other.to_string()),
            });
        }
        failpoint::pass(Place::ResultsSyncBefore);
        let began = Instant::now();
        let synced = file.sync_data();
        syncs.add(began.elapsed());
        // A failed sync is final, full disk or not: what the kernel dropped cannot be known.
        synced.map_err(|e| StoreError::Broken(format!("syncing results failed: {e}")))?;
        failpoint::pass(Place::ResultsSyncAfter);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn roll(&mut self) -> Result<(), StoreError> {
        let number = self.number + 1;
        let path = self.dir.join(format!("{number:08}.seg"));
        failpoint::pass(Place::ResultsRollBefore);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|e| StoreError::from_io("starting a result segment", e))?;
        failpoint::pass(Place::ResultsRollAfter);
        crate::records::sync_directory_of(&path).map_err(|e| StoreError::Broken(e.to_string()))?;
        *self = Self { dir: std::mem::take(&mut self.dir), file: Some(file), number, len: 0 };
        Ok(())
    }
}

/// Reads what stands behind the first `start` bytes, which are whole frames. Returns (whole bytes, bytes on disk), both
/// from the file's start.
fn read_segment(path: &Path, start: u64, each: &mut impl FnMut(&[u8])) -> Result<(u64, u64), StoreError> {
    let io = |e| StoreError::from_io("reading a result segment", e);
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(io)?;
    file.seek(SeekFrom::Start(start)).and_then(|_| file.read_to_end(&mut bytes)).map_err(io)?;
    let recovered = if start == 0 { segment::recover(&bytes, each) } else { segment::recover_behind(&bytes, each) };
    let recovered = recovered.map_err(|at| damaged(path, start + at as u64))?;
    Ok((start + recovered.valid_len as u64, start + bytes.len() as u64))
}

/// A log that a job has begun is found after a power cut only if its folder's name was synced as well.
fn sync_directory_of(dir: &Path, fatal: &Fatal) -> Result<(), StoreError> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let opened = File::open(parent).map_err(|e| StoreError::from_io("opening a directory", e))?;
    fatal.sync(&opened, "the folder of a result log")
}

fn damaged(path: &Path, at: u64) -> StoreError {
    StoreError::Damaged(format!("{} is damaged at byte {at}: a frame fails its checksum", path.display()))
}

fn segments_in(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let io = |e| StoreError::from_io("listing result segments", e);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io(e)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "seg") {
            if number_of(&path).is_none() {
                return Err(StoreError::Damaged(format!("{} is not a result segment of ours", path.display())));
            }
            paths.push(path);
        }
    }
    paths.sort();
    for (index, path) in paths.iter().enumerate() {
        if number_of(path) != u32::try_from(index + 1).ok() {
            return Err(StoreError::Damaged(format!("a result segment before {} is missing", path.display())));
        }
    }
    Ok(paths)
}

fn number_of(path: &Path) -> Option<u32> {
    let stem = path.file_stem()?.to_str()?;
    (stem.len() == 8).then(|| stem.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payloads(dir: &Path) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        ResultLog::read(dir, |p| all.push(p.to_vec())).unwrap();
        all
    }

    #[tokio::test]
    async fn what_was_appended_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let fatal = Fatal::new();
        let log = ResultLog::open(dir.path(), fatal.clone(), |_| panic!("a new log is empty")).unwrap();
        log.append(b"first".to_vec()).await.unwrap();
        log.append(b"second".to_vec()).await.unwrap();
        assert_eq!(fatal.syncs().results.read().count, 2);
        drop(log);
        let mut seen = Vec::new();
        let log = ResultLog::open(dir.path(), Fatal::new(), |p| seen.push(p.to_vec())).unwrap();
        assert_eq!(seen, [b"first".to_vec(), b"second".to_vec()]);
        log.append(b"third".to_vec()).await.unwrap();
        assert_eq!(payloads(dir.path()).len(), 3);
    }

    #[tokio::test]
    async fn a_log_is_read_on_from_where_reading_ended_across_segments_and_up_to_a_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let mut appender = Appender::recover(dir.path(), &Fatal::new(), |_| {}).unwrap();
        let mut read = Position::default();
        let mut more = |dir: &Path| {
            let mut new = Vec::new();
            read = ResultLog::read_on(dir, read, |p| new.push(String::from_utf8(p.to_vec()).unwrap())).unwrap();
            new
        };
        assert!(more(dir.path()).is_empty(), "there is no segment yet");
        appender.append(b"a", &SyncTimes::default()).unwrap();
        appender.append(b"b", &SyncTimes::default()).unwrap();
        assert_eq!(more(dir.path()), ["a", "b"]);
        assert!(more(dir.path()).is_empty());
        appender.append(b"c", &SyncTimes::default()).unwrap();
        appender.roll().unwrap();
        assert_eq!(more(dir.path()), ["c"], "the new segment is empty");
        appender.append(b"d", &SyncTimes::default()).unwrap();
        appender.roll().unwrap();
        appender.append(b"e", &SyncTimes::default()).unwrap();
        assert_eq!(more(dir.path()), ["d", "e"]);
        // Half a frame, as a reader may find one that is being written.
        let path = dir.path().join("00000003.seg");
        let whole = std::fs::read(&path).unwrap();
        let mut torn = whole.clone();
        segment::push_frame(&mut torn, b"f");
        std::fs::write(&path, &torn[..torn.len() - 1]).unwrap();
        assert!(more(dir.path()).is_empty());
        std::fs::write(&path, &torn).unwrap();
        assert_eq!(more(dir.path()), ["f"]);
        // Damage in what is read on is named by its place in the file.
        segment::push_frame(&mut torn, b"g");
        let at = torn.len() - 1;
        segment::push_frame(&mut torn, b"h");
        torn[at] ^= 1;
        std::fs::write(&path, &torn).unwrap();
        let error = ResultLog::read_on(dir.path(), read, |_| {}).unwrap_err().to_string();
        assert!(error.contains(&format!("00000003.seg is damaged at byte {}", whole.len() + 13)), "{error}");
    }

    #[tokio::test]
    async fn a_torn_tail_is_cut_and_appending_goes_on_behind_whole_frames() {
        let dir = tempfile::tempdir().unwrap();
        let log = ResultLog::open(dir.path(), Fatal::new(), |_| {}).unwrap();
        log.append(b"kept".to_vec()).await.unwrap();
        log.append(b"torn in the middle".to_vec()).await.unwrap();
        drop(log);
        let path = dir.path().join("00000001.seg");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 5).unwrap();
        let log = ResultLog::open(dir.path(), Fatal::new(), |_| {}).unwrap();
        log.append(b"after".to_vec()).await.unwrap();
        assert_eq!(payloads(dir.path()), [b"kept".to_vec(), b"after".to_vec()]);
    }

    #[tokio::test]
    async fn damage_in_the_middle_is_refused_with_file_and_offset() {
        let dir = tempfile::tempdir().unwrap();
        let log = ResultLog::open(dir.path(), Fatal::new(), |_| {}).unwrap();
        log.append(b"one".to_vec()).await.unwrap();
        log.append(b"two".to_vec()).await.unwrap();
        drop(log);
        let path = dir.path().join("00000001.seg");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[21] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        let error = ResultLog::open(dir.path(), Fatal::new(), |_| {}).unwrap_err().to_string();
        assert!(error.contains("00000001.seg is damaged at byte 8"), "{error}");
    }
}
