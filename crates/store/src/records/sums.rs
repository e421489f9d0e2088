//! A checksum of each page of the database, in a file beside it, and how far its write-ahead log has come.
//!
//! SQLite has no checksum on a page of its database, and takes the first bad frame of its log for the log's end: one
//! flipped bit changed what a job says, or took back what was acknowledged, and nobody was told (promise D6). Decision 0040.
//!
//! The database file changes in one place only, when the writer copies the log into it ([`Sums::copied`]); the log is
//! written over only by the next commit behind a copy that was whole. So the sums are brought up to date between the two, and
//! whenever that is broken off, all pages that may differ are still in the log, which has checksums of its own.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::log::{self, Log, Salts};
use super::sync_directory_of;
use crate::failpoint::{self, Place};
use crate::{Fatal, StoreError};

/// The head: these bytes, the page size, the CRC of both.
const MAGIC: &[u8; 8] = b"LSSUMS\0\x01";
const HEAD: usize = 16;
/// Where the note lies; in a sector together with the head.
const NOTE_AT: u64 = 64;
const NOTE: usize = 20;
/// Where the sum of page 1 lies; those of the others follow, four bytes each.
const SUMS_AT: u64 = 128;
/// Of the database, what is read at once.
const PIECE: usize = 1 << 20;

/// How far the log had come with the last commit that was acknowledged.
///
/// It is written behind the sync of that commit and not synced itself: so a log that ends before it has lost something,
/// and one that goes further has not.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Note {
    salts: Salts,
    frames: u32,
    /// Whether all of it is in the database, so that the log may be written over, or be gone.
    copied: bool,
}

impl Note {
    fn bytes(self) -> [u8; NOTE] {
        let mut bytes = [0; NOTE];
        bytes[..8].copy_from_slice(&self.salts);
        bytes[8..12].copy_from_slice(&self.frames.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(self.copied).to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..16]);
        bytes[16..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// `None`: it was torn by a power cut; then it tells nothing.
    fn parse(bytes: &[u8; NOTE]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut salts = Salts::default();
        salts.copy_from_slice(&bytes[..8]);
        (word(16) == crc32c::crc32c(&bytes[..16])).then(|| Self { salts, frames: word(8), copied: word(12) != 0 })
    }
}

/// The sums of an open database. Only its writer has them.
pub(super) struct Sums {
    path: PathBuf,
    /// Open for as long as this is there: to close it would take away the locks that SQLite has on the file in this process.
    database: File,
    page_size: usize,
    /// `None` once they could not be kept up: then the next start makes them anew.
    files: Option<Files>,
    fatal: Fatal,
}

struct Files {
    sums: File,
    log: File,
    /// Of which filling of the log so many frames are in the sums.
    summed: (Salts, u32),
}

fn path_of(database: &Path) -> PathBuf {
    database.with_extension("sums")
}

fn log_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// What a database is known by before SQLite opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// There is none yet.
    New,
    /// It and its log have the checksums that they were written with.
    Sums,
    /// It has none: it was written before there were any, or they have been removed.
    Nothing,
}

/// Checks a database and its log before SQLite opens them. `Err(Damaged)` names the file and the place.
pub(super) fn check(database: &Path) -> Result<Known, StoreError> {
    let path = path_of(database);
    let sums = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // SQLite makes an empty file of one that is not there, and throws away a log that belongs to none.
            let there = |path: &Path| path.metadata().is_ok_and(|metadata| metadata.len() > 0);
            return match (there(database), there(&log_of(database))) {
                (true, _) => Ok(Known::Nothing),
                (false, false) => Ok(Known::New),
                (false, true) => Err(gone(database)),
            };
        }
        file => file?,
    };
    let page_size = page_size_in(&sums).ok_or_else(|| damaged(&path, 0, "it is no file of checksums"))?;
    let log_path = log_of(database);
    let log = log::read(&log_path)?;
    let mut note = [0; NOTE];
    if let Err(error) = sums.read_exact_at(&mut note, NOTE_AT) {
        return Err(match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(&path, NOTE_AT, "it ends before that"),
            _ => error.into(),
        });
    }
    if let Some(note) = Note::parse(&note) {
        match &log {
            Some(log) if log.salts == note.salts => {
                if log.pages.len() < note.frames as usize {
                    return Err(damaged(&log_path, log.end, "a transaction that was acknowledged does not read"));
                }
            }
            _ if note.copied => {}
            _ => return Err(damaged(&log_path, 0, "it is not the log of the last transaction, or is gone")),
        }
    }
    check_pages(database, &sums, page_size, log.as_ref()).map(|()| Known::Sums)
}

fn check_pages(database: &Path, sums: &File, page_size: usize, log: Option<&Log>) -> Result<(), StoreError> {
    let mut sum_bytes = Vec::new();
    let mut rest = sums;
    io::Seek::seek(&mut rest, io::SeekFrom::Start(SUMS_AT))?;
    rest.read_to_end(&mut sum_bytes)?;
    let sum_of = |page: u32| {
        let sum = sum_bytes.as_chunks::<4>().0.get(page as usize - 1)?;
        Some(u32::from_le_bytes(*sum))
    };
    // What the log has is read from there, and the copy of it may have been broken off.
    let in_log: BTreeSet<u32> = log.iter().flat_map(|log| &log.pages).copied().collect();
    let mut file = match File::open(database) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone(database)),
        file => file?,
    };
    // How many pages there have to be: as the last transaction says, or the first page, once that is checked.
    let mut pages = log.map_or(0, |log| log.database_pages);
    let (mut page, mut piece) = (1, vec![0; PIECE.max(page_size)]);
    loop {
        let read = read_up_to(&mut file, &mut piece)?;
        for bytes in piece[..read].chunks_exact(page_size) {
            if !in_log.contains(&page) {
                if sum_of(page) != Some(sum(page, bytes)) && (pages == 0 || page <= pages) {
                    let at = place_of(page, page_size);
                    return Err(damaged(database, at, "a page does not have the checksum that records.sums has of it"));
                }
                if page == 1 && pages == 0 {
                    pages = u32::from_be_bytes([bytes[28], bytes[29], bytes[30], bytes[31]]);
                }
            }
            page += 1;
        }
        if read < piece.len() {
            break;
        }
    }
    if pages == 0 || (page..=pages).any(|missing| !in_log.contains(&missing)) {
        return Err(damaged(database, place_of(page, page_size), "it ends here, and should not"));
    }
    Ok(())
}

/// Where a page begins in the database.
fn place_of(page: u32, page_size: usize) -> u64 {
    u64::from(page - 1) * page_size as u64
}

/// What SQLite itself finds wrong with a database that has no sums: the tables' own form, not what stands in them.
pub(super) fn check_form(database: &Path, connection: &Connection) -> Result<(), StoreError> {
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    match found.as_str() {
        "ok" => Ok(()),
        _ => Err(StoreError::Damaged(format!(
            "{} is damaged: {}. Restore the data directory from a backup",
            database.display(),
            found.replace('\n', " ")
        ))),
    }
}

fn gone(database: &Path) -> StoreError {
    let database = database.display();
    StoreError::Damaged(format!(
        "{database} is gone, of which other files are there. Restore the data directory from a backup"
    ))
}

fn damaged(path: &Path, at: u64, what: &str) -> StoreError {
    StoreError::Damaged(format!(
        "{} is damaged at byte {at}: {what}. Restore the data directory from a backup; if another program has changed \
         the database on purpose, remove the .sums file beside it, and what is there is believed",
        path.display()
    ))
}

/// The checksum of a page: with its number, so that two that were swapped are noticed.
fn sum(page: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&page.to_le_bytes()), bytes)
}

fn head(page_size: usize) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&(page_size as u32).to_le_bytes());
    let sum = crc32c::crc32c(&head[..12]);
    head[12..].copy_from_slice(&sum.to_le_bytes());
    head
}

fn page_size_in(sums: &File) -> Option<usize> {
    let mut bytes = [0; HEAD];
    sums.read_exact_at(&mut bytes, 0).ok()?;
    let page_size = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
    (bytes == head(page_size) && page_size.is_power_of_two() && (512..=65_536).contains(&page_size))
        .then_some(page_size)
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl Sums {
    /// Of a database that was checked, and that SQLite has open since. Makes the sums where there are none.
    pub fn open(database: &Path, page_size: usize, fatal: Fatal) -> Result<Self, StoreError> {
        let (path, log_path) = (path_of(database), log_of(database));
        let mut sums = Self { path, database: File::open(database)?, page_size, files: None, fatal };
        match sums.files(&log_path) {
            Ok(files) => sums.files = Some(files),
            Err(error @ StoreError::Broken(_)) => return Err(error),
            Err(error) => sums.forget(&error)?,
        }
        Ok(sums)
    }

    fn files(&self, log: &Path) -> Result<Files, StoreError> {
        let log = File::open(log)?;
        if !self.path.exists() {
            self.make()?;
        }
        let sums = OpenOptions::new().read(true).write(true).open(&self.path)?;
        Ok(Files { sums, log, summed: (Salts::default(), 0) })
    }

    /// Makes the sums of a database as it is. It may be broken off at any point: the file has its name once it is durable.
    fn make(&self) -> Result<(), StoreError> {
        let unwritten = |error| StoreError::from_io("writing the checksums of the records", error);
        let mut bytes = vec![0; SUMS_AT as usize];
        bytes[..HEAD].copy_from_slice(&head(self.page_size));
        let mut text = vec![0; self.page_size];
        for page in 1.. {
            match self.database.read_exact_at(&mut text, place_of(page, self.page_size)) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                read => read?,
            }
            bytes.extend_from_slice(&sum(page, &text).to_le_bytes());
        }
        let new = self.path.with_extension("sums-new");
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
        let written = written.map_err(unwritten)?;
        written.write_all_at(&bytes, 0).map_err(unwritten)?;
        self.fatal.settle("the checksums of the records", written.sync_all())?;
        std::fs::rename(&new, &self.path).map_err(unwritten)?;
        sync_directory_of(&self.path, &self.fatal)
    }

    /// A commit is durable and about to be acknowledged; the log has so many frames with it, and none if nothing has been
    /// written since this program opened it.
    pub fn committed(&mut self, frames: u32) {
        let Some(files) = self.files.as_ref().filter(|_| frames > 0) else { return };
        if let Err(error) = files.note(frames, false) {
            self.lost(&error);
        }
    }

    /// So many frames of the log are in the database now, of so many that it has. Nothing is committed before this returns.
    pub fn copied(&mut self, frames: u32, copied: u32) {
        let Some(files) = &mut self.files else { return };
        match files
            .sum_up_to(copied, (&self.database, self.page_size))
            .and_then(|()| files.note(frames, frames == copied))
        {
            Ok(()) => {
                failpoint::pass(Place::CheckpointSums);
                // One that fails throws the switch, and nothing more is committed.
                let _ = self.fatal.settle("the checksums of the records", files.sums.sync_data());
            }
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&mut self, error: &io::Error) {
        // Where that fails, too, the switch is thrown.
        let _ = self.forget(error);
    }

    /// Does without sums: those on the disk would be wrong with the next copy of the log.
    fn forget(&mut self, error: &dyn std::fmt::Display) -> Result<(), StoreError> {
        tracing::warn!(%error, "the records have no checksums until the next start");
        self.files = None;
        let removed = match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::Io(error)),
            _ => sync_directory_of(&self.path, &self.fatal),
        };
        removed.map_err(|error| {
            let reason = format!("the checksums of the records are out of date, and cannot be removed: {error}");
            self.fatal.throw(reason.clone());
            StoreError::Broken(reason)
        })
    }
}

impl Files {
    /// Notes how far the log has come; `copied`: whether all of it is in the database.
    fn note(&self, frames: u32, copied: bool) -> io::Result<()> {
        let note = Note { salts: log::salts_of(&self.log)?, frames, copied };
        self.sums.write_all_at(&note.bytes(), NOTE_AT)
    }

    /// Writes the sums of all pages that the first `copied` frames of the log have, as they are in the database now.
    fn sum_up_to(&mut self, copied: u32, (database, page_size): (&File, usize)) -> io::Result<()> {
        let salts = log::salts_of(&self.log)?;
        let from = if self.summed.0 == salts { self.summed.1 } else { 0 };
        let mut pages = BTreeSet::new();
        for frame in from + 1..=copied {
            pages.insert(log::page_of(&self.log, frame, page_size)?);
        }
        let mut bytes = vec![0; page_size];
        for page in pages {
            match database.read_exact_at(&mut bytes, place_of(page, page_size)) {
                // It was given back since.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                read => read?,
            }
            self.sums.write_all_at(&sum(page, &bytes).to_le_bytes(), SUMS_AT + 4 * u64::from(page - 1))?;
        }
        self.summed = (salts, copied);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::{Records, Schema};

    const SCHEMA: Schema =
        Schema { room: "test", migrations: &["CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT NOT NULL) STRICT"] };
    const FILES: [&str; 3] = ["records.db", "records.db-wal", "records.sums"];

    fn open(dir: &Path) -> Result<Records, StoreError> {
        Records::open(&dir.join("records.db"), &[SCHEMA], Fatal::new())
    }

    async fn put(records: &Records, rows: std::ops::Range<i64>) {
        for k in rows {
            let v = format!("{k} ").repeat(100 + k as usize % 300);
            let sql = "INSERT INTO t VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = ?2 || 'again'";
            records.write::<_, StoreError>(move |c| Ok(c.execute(sql, (k, v))?)).await.unwrap();
        }
    }

    fn rows(dir: &Path) -> Result<Vec<(i64, String)>, StoreError> {
        let records = open(dir)?;
        records.read_blocking(|c| {
            let mut statement = c.prepare("SELECT k, v FROM t ORDER BY k")?;
            Ok(statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
        })
    }

    /// What a process leaves that is killed now.
    fn killed(dir: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for name in FILES {
            if dir.join(name).exists() {
                std::fs::copy(dir.join(name), copy.path().join(name)).unwrap();
            }
        }
        copy
    }

    fn change(dir: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(dir.join(name)).unwrap();
        change(&mut bytes);
        std::fs::write(dir.join(name), bytes).unwrap();
    }

    /// Data directories at all points of a log's life, with the rows that each must have.
    async fn directories() -> Vec<(&'static str, tempfile::TempDir)> {
        let dir = tempfile::tempdir().unwrap();
        let records = open(dir.path()).unwrap();
        put(&records, 0..40).await;
        let mut found = vec![("all in the log", killed(dir.path()))];
        // Past 1,000 frames the log is copied, and then written over.
        put(&records, 0..700).await;
        found.push(("after a copy", killed(dir.path())));
        {
            let held = Connection::open(dir.path().join("records.db")).unwrap();
            held.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
            put(&records, 0..700).await;
            found.push(("while a reader is in the way of the copies", killed(dir.path())));
        }
        put(&records, 300..500).await;
        found.push(("after one that was not", killed(dir.path())));
        records.close().await;
        drop(records);
        assert!(!dir.path().join("records.db-wal").exists());
        found.push(("closed", dir));
        found
    }

    #[tokio::test]
    async fn a_flipped_bit_a_file_cut_short_and_one_that_is_gone_are_noticed_or_change_nothing() {
        let mut dice = 0x9E37_79B9_7F4A_7C15_u64;
        let mut roll = |below: usize| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            (dice % below as u64) as usize
        };
        let mut noticed = std::collections::BTreeMap::new();
        for (what, dir) in directories().await {
            let whole = rows(killed(dir.path()).path()).unwrap();
            assert!(whole.len() >= 40, "{what}");
            for name in FILES {
                if !dir.path().join(name).exists() {
                    continue;
                }
                for turn in 0..60 {
                    let copy = killed(dir.path());
                    let mut told = String::new();
                    match turn {
                        0 => std::fs::remove_file(copy.path().join(name)).unwrap(),
                        1..20 => change(copy.path(), name, |bytes| {
                            let length = roll(bytes.len());
                            told = format!("cut at {length} of {}", bytes.len());
                            bytes.truncate(length);
                        }),
                        20..30 => change(copy.path(), name, |bytes| {
                            let at = roll(bytes.len()) & !4_095;
                            told = format!("4 KiB of zeros at {at}");
                            bytes.iter_mut().skip(at).take(4_096).for_each(|byte| *byte = 0);
                        }),
                        _ => change(copy.path(), name, |bytes| {
                            // Every second one near the beginning or the end, where there are heads and last commits.
                            let (at, bit) = match turn % 4 {
                                0 => (roll(bytes.len().min(100)), roll(8)),
                                2 => (bytes.len() - 1 - roll(bytes.len().min(5_000)), roll(8)),
                                _ => (roll(bytes.len()), roll(8)),
                            };
                            told = format!("bit {bit} of byte {at}");
                            bytes[at] ^= 1 << bit;
                        }),
                    }
                    match rows(copy.path()) {
                        Ok(rows) => assert!(rows == whole, "{what}, {name}: {told}: other rows, and nobody was told"),
                        Err(StoreError::Damaged(why)) => {
                            let gone = name == "records.db" && turn == 0;
                            assert!(why.contains(if gone { " is gone" } else { " is damaged at byte " }), "{why}");
                            *noticed.entry(name).or_insert(0) += 1;
                        }
                        Err(error) => panic!("{what}, {name}: {told}: {error}"),
                    }
                }
            }
        }
        assert!(FILES.iter().all(|name| noticed[name] > 40), "{noticed:?}");
    }

    #[tokio::test]
    async fn two_pages_that_were_swapped_are_noticed_with_file_and_place() {
        let (_, dir) = directories().await.pop().unwrap();
        change(dir.path(), "records.db", |bytes| {
            let (four, five) = bytes.split_at_mut(4 * 4_096);
            four[3 * 4_096..].swap_with_slice(&mut five[..4_096]);
        });
        let told = rows(dir.path()).map_err(|error| error.to_string()).unwrap_err();
        assert!(told.starts_with(&format!("{}/records.db is damaged at byte 12288: ", dir.path().display())), "{told}");
    }

    #[tokio::test]
    async fn a_database_that_is_gone_and_left_a_log_is_not_begun_anew() {
        for sums in [true, false] {
            let (what, dir) = directories().await.swap_remove(0);
            std::fs::remove_file(dir.path().join("records.db")).unwrap();
            if !sums {
                std::fs::remove_file(dir.path().join("records.sums")).unwrap();
            }
            for _ in 0..2 {
                let told = rows(dir.path()).map_err(|error| error.to_string()).unwrap_err();
                assert!(told.contains("records.db is gone") && told.contains("from a backup"), "{what}: {told}");
            }
        }
    }

    #[tokio::test]
    async fn of_a_database_without_sums_its_form_is_checked() {
        let (_, dir) = directories().await.pop().unwrap();
        std::fs::remove_file(dir.path().join("records.sums")).unwrap();
        let copy = killed(dir.path());
        assert_eq!(rows(copy.path()).unwrap().len(), 700);
        // The kind of a page of the table.
        change(dir.path(), "records.db", |bytes| bytes[3 * 4_096] ^= 8);
        let told = rows(dir.path()).map_err(|error| error.to_string()).unwrap_err();
        assert!(told.contains("records.db is damaged: ") && told.contains("from a backup"), "{told}");
    }

    #[tokio::test]
    async fn a_database_without_sums_is_believed_and_has_them_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(dir.path()).unwrap();
        put(&records, 0..700).await;
        let copy = killed(dir.path());
        std::fs::remove_file(copy.path().join("records.sums")).unwrap();
        assert_eq!(rows(copy.path()).unwrap().len(), 700);
        change(copy.path(), "records.db", |bytes| bytes[5_000] ^= 1);
        assert!(matches!(rows(copy.path()), Err(StoreError::Damaged(_))));
    }

    #[tokio::test]
    async fn sums_that_cannot_be_kept_are_removed_and_nothing_else_is_harmed() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(dir.path()).unwrap();
        put(&records, 0..10).await;
        let mut sums = Sums::open(&dir.path().join("records.db"), 4_096, Fatal::new()).unwrap();
        let files = sums.files.as_mut().unwrap();
        // No writing in it, as on a disk that takes nothing.
        files.sums = File::open(dir.path().join("records.sums")).unwrap();
        sums.committed(1);
        assert!(sums.files.is_none() && !dir.path().join("records.sums").exists());
        sums.committed(2);
        sums.copied(2, 2);
        assert_eq!(sums.fatal.reason(), None);
        assert_eq!(rows(killed(dir.path()).path()).unwrap().len(), 10);
        // Where they cannot be removed either, they would be wrong at the next start.
        let mut sums = Sums::open(&dir.path().join("records.db"), 4_096, Fatal::new()).unwrap();
        std::fs::remove_file(dir.path().join("records.sums")).unwrap();
        std::fs::create_dir(dir.path().join("records.sums")).unwrap();
        sums.lost(&io::Error::other("a test says so"));
        assert!(sums.fatal.reason().is_some());
    }
}
