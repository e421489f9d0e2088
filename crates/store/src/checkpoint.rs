//! A checkpoint beside a result log: what its caller made of the log up to a mark, so that opening it does not read it all.
//!
//! It saves time and holds nothing that the log does not. One that is damaged, or not of this log, is as good as none.
//! File: `<log>/checkpoint`: [`HEADER`], CRC32C over all that follows (u32, little-endian, as the rest), length of the
//! payload (u64), the mark (segment u32, bytes of it u64, bytes before it u64, its last frame's place u64 and checksum
//! u32), payload.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::failpoint::{self, Place};
use crate::files::{Files, Open};
use crate::result_log::{LastFrame, Mark};
use crate::{Fatal, StoreError};

/// Eight bytes at the start: name and format version.
const HEADER: &[u8; 8] = b"LSCKPv1\n";
const MARK_BYTES: usize = 32;
const HEAD_BYTES: usize = HEADER.len() + 4 + 8 + MARK_BYTES;

/// One is written at a time, over all jobs: they share the disk, and each is a copy in memory.
static WRITING: Mutex<()> = Mutex::new(());

fn path_in(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

fn unfinished_in(dir: &Path) -> PathBuf {
    dir.join("checkpoint.new")
}

/// Puts a checkpoint in the place of the last one; durable when it returns. A crash leaves the one or the other. Blocks.
///
/// `Err(Full)`: the last one stays. A sync that fails throws the switch, as any does.
pub fn write(files: &dyn Files, dir: &Path, mark: &Mark, payload: &[u8], fatal: &Fatal) -> Result<(), StoreError> {
    let mut body = Vec::with_capacity(8 + MARK_BYTES);
    body.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    body.extend_from_slice(&mark.number.to_le_bytes());
    body.extend_from_slice(&mark.len.to_le_bytes());
    body.extend_from_slice(&mark.before.to_le_bytes());
    body.extend_from_slice(&mark.last.at.to_le_bytes());
    body.extend_from_slice(&mark.last.checksum.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&body), payload).to_le_bytes();

    let _one = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    fatal.check()?;
    let io = |e| StoreError::from_io("writing a checkpoint", e);
    let unfinished = unfinished_in(dir);
    let written = files.open(&unfinished, Open::Empty).and_then(|file| {
        let mut at = 0;
        for part in [&HEADER[..], &checksum, &body, payload] {
            file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(file)
    });
    let file = written.map_err(|error| {
        // It must not hold the space that others wait for.
        let _ = files.remove(&unfinished);
        io(error)
    })?;
    fatal.sync(&*file, "a checkpoint")?;
    failpoint::pass(Place::ResultsCheckpointBefore);
    files.rename(&unfinished, &path_in(dir)).map_err(io)?;
    failpoint::pass(Place::ResultsCheckpointAfter);
    fatal.sync(&*files.open(dir, Open::Folder).map_err(io)?, "the folder of a checkpoint")
}

/// What is found in the place of a checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// It is whole. Whether the log reaches its mark is another question.
    Whole(Mark, Vec<u8>),
    None,
    /// Not ours, of another version, or damaged.
    Unreadable,
}

/// Reads the checkpoint of a log. Blocks.
pub fn read(files: &dyn Files, dir: &Path) -> Result<Found, StoreError> {
    match files.open(&path_in(dir), Open::Read).and_then(|file| file.read_whole()) {
        Ok(bytes) => Ok(parse(&bytes).unwrap_or(Found::Unreadable)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Found::None),
        Err(error) => Err(StoreError::from_io("reading a checkpoint", error)),
    }
}

fn parse(bytes: &[u8]) -> Option<Found> {
    let (head, payload) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let u32_at = |at: usize| head[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let u64_at = |at: usize| head[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let fits = head.starts_with(HEADER)
        && u32_at(8)? == crc32c::crc32c(&bytes[HEADER.len() + 4..])
        && u64_at(12)? == payload.len() as u64;
    let last = LastFrame { at: u64_at(40)?, checksum: u32_at(48)? };
    let mark = Mark { number: u32_at(20)?, len: u64_at(24)?, before: u64_at(32)?, last };
    fits.then(|| Found::Whole(mark, payload.to_vec()))
}

/// Removes the checkpoint of a log that will not be appended to any more. Safe to repeat.
pub fn remove(files: &dyn Files, dir: &Path) -> std::io::Result<()> {
    for path in [path_in(dir), unfinished_in(dir)] {
        match files.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Os;

    fn mark(number: u32) -> Mark {
        Mark { number, len: 1_000, before: 5, last: LastFrame { at: 900, checksum: 77 } }
    }

    #[test]
    fn the_last_checkpoint_is_read_back_and_no_part_of_one_ever_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&Os, dir.path()).unwrap(), Found::None);
        write(&Os, dir.path(), &mark(1), b"first", &Fatal::new()).unwrap();
        write(&Os, dir.path(), &mark(2), b"second", &Fatal::new()).unwrap();
        assert_eq!(read(&Os, dir.path()).unwrap(), Found::Whole(mark(2), b"second".to_vec()));
        // What a crash has left of a third.
        std::fs::write(unfinished_in(dir.path()), b"LSCK").unwrap();
        assert_eq!(read(&Os, dir.path()).unwrap(), Found::Whole(mark(2), b"second".to_vec()));
        let good = std::fs::read(path_in(dir.path())).unwrap();
        for at in 0..good.len() {
            std::fs::write(path_in(dir.path()), &good[..at]).unwrap();
            assert_eq!(read(&Os, dir.path()).unwrap(), Found::Unreadable, "cut at {at}");
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                std::fs::write(path_in(dir.path()), bad).unwrap();
                assert_eq!(read(&Os, dir.path()).unwrap(), Found::Unreadable, "byte {at}, bit {bit}");
            }
        }
        remove(&Os, dir.path()).unwrap();
        remove(&Os, dir.path()).unwrap();
        assert_eq!((read(&Os, dir.path()).unwrap(), std::fs::read_dir(dir.path()).unwrap().count()), (Found::None, 0));
    }

    #[test]
    fn after_a_failed_sync_none_is_written() {
        let (dir, fatal) = (tempfile::tempdir().unwrap(), Fatal::new());
        fatal.throw("a sync failed");
        assert!(matches!(write(&Os, dir.path(), &mark(1), b"x", &fatal), Err(StoreError::Broken(_))));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
