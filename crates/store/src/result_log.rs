//! The results of one job: append-only, synced by group commit on a thread of its own.
//!
//! The thread takes what is queued, writes it as one frame, syncs it, and answers: while one sync runs the next frame
//! gathers. What a payload means is the caller's business. Files: `<dir>/00000001.seg`, a new one from [`ROLL_AT`] on.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot};

use crate::segment::{self, HEADER, PAYLOAD_MAX};
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
        std::fs::create_dir_all(dir).map_err(|e| StoreError::from_io("creating a result log", e))?;
        crate::records::sync_directory_of(dir)?;
        let mut appender = Appender::recover(dir, each)?;
        let (queue, mut receiver) = mpsc::channel::<(Vec<u8>, Answer)>(QUEUE_MAX);
        std::thread::Builder::new()
            .name("results".into())
            .spawn(move || {
                while let Some((payload, answer)) = receiver.blocking_recv() {
                    let outcome = fatal.check().and_then(|()| appender.append(&payload));
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
    pub fn read(dir: &Path, mut each: impl FnMut(&[u8])) -> Result<(), StoreError> {
        let paths = segments_in(dir)?;
        for (index, path) in paths.iter().enumerate() {
            let (valid, on_disk) = read_segment(path, &mut each)?;
            if index + 1 < paths.len() && valid != on_disk {
                return Err(damaged(path, valid));
            }
        }
        Ok(())
    }
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
    fn recover(dir: &Path, mut each: impl FnMut(&[u8])) -> Result<Self, StoreError> {
        let mut appender = Self { dir: dir.to_owned(), file: None, number: 0, len: 0 };
        let paths = segments_in(dir)?;
        for (index, path) in paths.iter().enumerate() {
            let (valid, on_disk) = read_segment(path, &mut each)?;
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
                    file.sync_all().map_err(io)?;
                }
                appender.number = number_of(path).unwrap_or(0);
                appender.len = valid;
                appender.file = Some(file);
            }
        }
        Ok(appender)
    }

    fn append(&mut self, payload: &[u8]) -> Result<(), StoreError> {
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
        if let Err(error) = file.seek(SeekFrom::Start(self.len)).and_then(|_| file.write_all(&bytes)) {
            let error = StoreError::from_io("appending results", error);
            // What was written of the frame goes again, so that the next append starts behind whole frames. If even
            // that fails the file is in an unknown state and nothing may be added to it.
            return Err(match (file.set_len(self.len), error) {
                (Ok(()), full @ StoreError::Full(_)) => full,
                (_, other) => StoreError::Broken(other.to_string()),
            });
        }
        // A failed sync is final, full disk or not: what the kernel dropped cannot be known.
        file.sync_data().map_err(|e| StoreError::Broken(format!("syncing results failed: {e}")))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn roll(&mut self) -> Result<(), StoreError> {
        let number = self.number + 1;
        let path = self.dir.join(format!("{number:08}.seg"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|e| StoreError::from_io("starting a result segment", e))?;
        crate::records::sync_directory_of(&path).map_err(|e| StoreError::Broken(e.to_string()))?;
        *self = Self { dir: std::mem::take(&mut self.dir), file: Some(file), number, len: 0 };
        Ok(())
    }
}

/// Returns (whole bytes, bytes on disk).
fn read_segment(path: &Path, each: &mut impl FnMut(&[u8])) -> Result<(u64, u64), StoreError> {
    let io = |e| StoreError::from_io("reading a result segment", e);
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut f| f.read_to_end(&mut bytes)).map_err(io)?;
    let recovered = segment::recover(&bytes, each).map_err(|at| damaged(path, at as u64))?;
    Ok((recovered.valid_len as u64, bytes.len() as u64))
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
        let log = ResultLog::open(dir.path(), Fatal::new(), |_| panic!("a new log is empty")).unwrap();
        log.append(b"first".to_vec()).await.unwrap();
        log.append(b"second".to_vec()).await.unwrap();
        drop(log);
        let mut seen = Vec::new();
        let log = ResultLog::open(dir.path(), Fatal::new(), |p| seen.push(p.to_vec())).unwrap();
        assert_eq!(seen, [b"first".to_vec(), b"second".to_vec()]);
        log.append(b"third".to_vec()).await.unwrap();
        assert_eq!(payloads(dir.path()).len(), 3);
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
