//! Records in SQLite: one writer thread with group commit, a few read-only connections.
//!
//! WAL with `synchronous=FULL`: a write has returned only after its commit was synced. (`NORMAL` lost acknowledged
//! rows in 44 of 100 power cuts when it was measured; `FULL` in none.) Every write is a closure that runs inside a
//! savepoint on the writer thread; those that arrive while a commit is under way share the next one.

mod log;
mod sums;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use self::sums::{Known, Sums};
use crate::failpoint::{self, Place};
use crate::{Fatal, StoreError};

/// Writes that wait for the writer thread. Callers beyond it wait in `write`, so memory stays bounded by what a
/// listener admits; 1,024 is several group commits' worth.
const QUEUE_MAX: usize = 1_024;
/// Writes in one commit. More only makes the first of them wait longer.
const GROUP_MAX: usize = 512;
/// Read connections kept open; a further reader opens one and closes it again.
const READERS_KEPT: usize = 4;
/// Statements that a connection keeps compiled: all rooms' together, some kilobytes each.
const STATEMENTS_KEPT: usize = 256;
/// Pages in the write-ahead log from which they are copied into the database: SQLite's own first value, 4 MiB.
const CHECKPOINT_AT: i32 = 1_000;

/// The tables of one room. `version` counts from 1; `migrations[n]` brings version n to n + 1.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    pub room: &'static str,
    pub migrations: &'static [&'static str],
}

/// Told once what became of the commit.
type Settle = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// One write: runs on the connection, or learns why there is no transaction to run in.
type Work = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Settle + Send>;

/// A handle on the database; cheap to clone.
#[derive(Clone)]
pub struct Records {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    /// `None` is the last: the writer comes to its end.
    queue: mpsc::Sender<Option<Work>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    idle_readers: Mutex<Vec<Connection>>,
    fatal: Fatal,
    /// Counted up when a commit begins and when it has ended: odd while one is under way.
    commits: Arc<AtomicU64>,
}

impl Drop for Shared {
    /// As [`Records::close`], for those who could not wait there.
    fn drop(&mut self) {
        // The writer ends when nobody can ask it for anything any more.
        self.queue = mpsc::channel(1).0;
        let writer = self.writer.get_mut().unwrap_or_else(|e| e.into_inner()).take();
        // The last handle may go in a write of its own.
        if let Some(writer) = writer.filter(|writer| writer.thread().id() != std::thread::current().id()) {
            let _ = writer.join();
        }
    }
}

/// A stretch of time in which nothing was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calm(u64);

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").field("path", &self.shared.path).finish()
    }
}

impl Records {
    /// Opens or creates the database and brings every room's tables up to date. Blocks; call it at start only.
    /// A database written by a newer version is refused, unharmed. `Err(Damaged)`: a page of it, or a transaction in its
    /// log that was acknowledged, does not have its checksum any more; file and place are named (promise D6).
    pub fn open(path: &Path, schemas: &[Schema], fatal: Fatal) -> Result<Self, StoreError> {
        let known = sums::check(path)?;
        let mut writer = Connection::open(path)?;
        keep_log_on_close(&writer)?;
        if known == Known::Nothing {
            tracing::warn!(
                file = %path.display(),
                "the records have no checksums: they are believed as they are, and have them from now on"
            );
            sums::check_form(path, &writer)?;
        }
        keep_a_log(path, &writer)?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        writer.pragma_update(None, "foreign_keys", "ON")?;
        writer.busy_timeout(std::time::Duration::from_secs(5))?;
        writer.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        // In the place of SQLite's own hook, which checkpoints within the commit and keeps a failed sync to itself.
        let in_log = Arc::new(AtomicI32::new(0));
        let counted = Arc::clone(&in_log);
        writer.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            counted.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        migrate(&mut writer, schemas)?;
        // Also in the place of SQLite's own sync of the directory, whose failure it keeps to itself.
        sync_directory_of(path, &fatal)?;
        let page_size: u32 = writer.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let mut sums = Sums::open(path, page_size as usize, fatal.clone())?;
        sums.committed(in_log.load(Ordering::Relaxed).unsigned_abs());
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        let thread_fatal = fatal.clone();
        let commits = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&commits);
        let writer = std::thread::Builder::new()
            .name("records".into())
            .spawn(move || write_loop(&writer, receiver, &thread_fatal, (&in_log, &mut sums), &counting))
            .map_err(StoreError::Io)?;
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                queue,
                writer: Mutex::new(Some(writer)),
                idle_readers: Mutex::default(),
                fatal,
                commits,
            }),
        })
    }

    /// The switch that this database throws, for rooms that sync files of their own.
    pub fn fatal(&self) -> &Fatal {
        &self.shared.fatal
    }

    /// Writes that wait for the writer thread now.
    pub fn waiting(&self) -> usize {
        self.shared.queue.max_capacity() - self.shared.queue.capacity()
    }

    /// The present stretch of time without a commit; `None` while one is under way. What a read finds that began in it is what
    /// the database has as long as this is the same: that needs no disk and no other thread.
    pub fn calm(&self) -> Option<Calm> {
        let commits = self.shared.commits.load(Ordering::SeqCst);
        commits.is_multiple_of(2).then_some(Calm(commits))
    }

    /// Runs `work` in a transaction and returns once it is durable.
    ///
    /// An `Err` from `work` undoes what it did and nothing else. `Err(Full)`: nothing happened, try again later.
    /// `Err(Broken)`: unknown whether it happened; the process is about to end.
    pub async fn write<T, E>(&self, work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + From<rusqlite::Error> + Send + 'static,
    {
        self.shared.fatal.check()?;
        let (answer, answered) = oneshot::channel::<Result<T, E>>();
        let job: Work = Box::new(move |connection| {
            let outcome = connection.map_err(E::from).and_then(|connection| in_savepoint(connection, work));
            Box::new(move |committed| {
                // The caller may have gone; what it asked for has happened all the same.
                let _ = answer.send(match committed {
                    Ok(()) => outcome,
                    Err(error) => outcome.and_then(|_| Err(error.into())),
                });
            })
        });
        let gone = || StoreError::Broken("the writer thread has ended".into());
        self.shared.queue.send(Some(job)).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone().into()))
    }

    /// Writes what was asked for, copies the log into the database as far as no reader is in the way, and lets go of both.
    /// Returns once that is done: whoever opens the database next finds it whole, with nobody else at work in it. Writes
    /// that come later are refused.
    pub async fn close(&self) {
        self.shared.idle_readers.lock().unwrap_or_else(|e| e.into_inner()).clear();
        // Fails only if the writer has ended already.
        let _ = self.shared.queue.send(None).await;
        let writer = self.shared.writer.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(writer) = writer {
            // It catches the panics of writes; after another one there is nothing left to wait for.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }

    /// Runs `work` on a read-only connection, off the async threads. It sees every write that has returned.
    pub async fn read<T, E>(&self, work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + From<rusqlite::Error> + Send + 'static,
    {
        let records = self.clone();
        tokio::task::spawn_blocking(move || records.read_blocking(work))
            .await
            .unwrap_or_else(|join| Err(StoreError::Damaged(format!("a read panicked: {join}")).into()))
    }

    /// [`Records::read`] for callers that may block: start-up, tests, threads of their own.
    pub fn read_blocking<T, E>(&self, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StoreError> + From<rusqlite::Error>,
    {
        let idle = self.shared.idle_readers.lock().unwrap_or_else(|e| e.into_inner()).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags(&self.shared.path, flags)?;
                connection.busy_timeout(std::time::Duration::from_secs(5))?;
                connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
                connection
            }
        };
        let result = work(&connection);
        let mut idle = self.shared.idle_readers.lock().unwrap_or_else(|e| e.into_inner());
        if idle.len() < READERS_KEPT {
            idle.push(connection);
        }
        result
    }
}

fn in_savepoint<T, E: From<rusqlite::Error>>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    connection.execute_batch("SAVEPOINT work")?;
    // A panic in one write must not take the writer thread, and with it every later write, down.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(connection)))
        .unwrap_or_else(|_| Err(rusqlite::Error::InvalidQuery.into()));
    // SQLite undoes the whole transaction by itself when a statement finds no space (or cannot read or write): then
    // there is no savepoint any more, and why that happened matters more than that it is missing.
    if !connection.is_autocommit() {
        let end = if outcome.is_ok() { "RELEASE work" } else { "ROLLBACK TO work; RELEASE work" };
        connection.execute_batch(end)?;
    }
    outcome
}

fn write_loop(
    connection: &Connection,
    mut queue: mpsc::Receiver<Option<Work>>,
    fatal: &Fatal,
    (in_log, sums): (&AtomicI32, &mut Sums),
    commits: &AtomicU64,
) {
    let mut last = false;
    while !last && let Some(Some(first)) = queue.blocking_recv() {
        let begun = fatal.check().and_then(|()| Ok(connection.execute_batch("BEGIN IMMEDIATE")?));
        if let Err(error) = begun {
            // Nothing was touched, so nothing is lost: only this one write is refused.
            first(Err(error))(Ok(()));
            continue;
        }
        let mut settle = vec![first(Ok(connection))];
        // Behind a transaction that is gone a further write would be one of its own, and told that it never happened.
        while settle.len() < GROUP_MAX
            && !connection.is_autocommit()
            && let Ok(next) = queue.try_recv()
        {
            match next {
                Some(next) => settle.push(next(Ok(connection))),
                None => {
                    last = true;
                    break;
                }
            }
        }
        let outcome = if connection.is_autocommit() {
            Err(StoreError::Full("the transaction was rolled back".into()))
        } else {
            failpoint::pass(Place::CommitBefore);
            let began = Instant::now();
            // Before it is seen by the first reader, and again before its writers are told.
            commits.fetch_add(1, Ordering::SeqCst);
            // What was synced beside a sync that failed is not believed either.
            let committed = connection.execute_batch("COMMIT").map_err(sort).and_then(|()| fatal.check());
            commits.fetch_add(1, Ordering::SeqCst);
            fatal.syncs().records.add(began.elapsed());
            failpoint::pass(Place::CommitAfter);
            if committed.is_ok() {
                sums.committed(in_log.load(Ordering::Relaxed).unsigned_abs());
            }
            committed.and_then(|()| fatal.check())
        };
        if let Err(error) = &outcome {
            if !connection.is_autocommit() {
                // Fails only if SQLite has rolled back by itself, which is what is wanted.
                let _ = connection.execute_batch("ROLLBACK");
            }
            if let StoreError::Broken(reason) = error {
                fatal.throw(reason.clone());
            }
        }
        for done in settle {
            done(match &outcome {
                Ok(()) => Ok(()),
                Err(StoreError::Full(reason)) => Err(StoreError::Full(reason.clone())),
                Err(error) => Err(StoreError::Broken(error.to_string())),
            });
        }
        // Nobody waits for it, and what fails here is tried again with the next commit, but for a sync.
        if in_log.load(Ordering::Relaxed) >= CHECKPOINT_AT && fatal.check().is_ok() {
            checkpoint(connection, fatal, sums);
        }
    }
    if fatal.check().is_ok() && checkpoint(connection, fatal, sums) {
        // There is nothing left to be copied: the log goes. Otherwise it stays, and whoever opens the database next reads it.
        let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    }
}

/// Has the database keep a write-ahead log. The statement is run to its end: SQLite gives its answer before it makes the change
/// durable, and where that fails it goes back to what was, which is seen by nobody who has only read the answer.
fn keep_a_log(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let mut statement = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = statement.query([])?;
    let mut mode = String::new();
    while let Some(row) = rows.next()? {
        mode = row.get(0)?;
    }
    if mode == "wal" {
        return Ok(());
    }
    Err(StoreError::Broken(format!(
        "{}: SQLite could not go over to a write-ahead log, and stays with the mode {mode:?}",
        path.display()
    )))
}

/// The last one to close a database syncs its log once more and copies it: behind a failed sync that would take for written
/// what the kernel has dropped. So nobody does it but a writer that has come to its end with all its syncs done.
fn keep_log_on_close(connection: &Connection) -> Result<(), StoreError> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}

/// Copies what the write-ahead log has into the database, as far as no reader is in the way. Returns whether that is all.
fn checkpoint(connection: &Connection, fatal: &Fatal, sums: &mut Sums) -> bool {
    failpoint::pass(Place::CheckpointBefore);
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let done = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], row);
    failpoint::pass(Place::CheckpointAfter);
    let error = match done {
        Ok((frames, copied)) => {
            // Both are -1 where there is no log.
            let count = |frames: i64| u32::try_from(frames).unwrap_or(0);
            if copied > 0 {
                sums.copied(count(frames), count(copied));
            }
            return frames == copied && fatal.check().is_ok();
        }
        Err(error) => error,
    };
    match error.sqlite_error().map(|error| error.extended_code) {
        // What the kernel dropped of the database would be taken for written by the next try.
        Some(rusqlite::ffi::SQLITE_IOERR_FSYNC | rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC) => {
            fatal.throw(format!("syncing the database failed: {error}"));
        }
        _ => tracing::warn!(%error, "the write-ahead log waits to be copied into the database"),
    }
    false
}

/// A failed commit, unlike a failed begin, is either a full disk, which passes, or the end.
fn sort(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full(error.to_string()),
        _ => StoreError::Broken(format!("commit failed: {error}")),
    }
}

fn migrate(connection: &mut Connection, schemas: &[Schema]) -> Result<(), StoreError> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS room_version (room TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT",
    )?;
    for schema in schemas {
        let transaction = connection.transaction()?;
        let have: u32 = transaction
            .query_row("SELECT version FROM room_version WHERE room = ?1", [schema.room], |r| r.get(0))
            .or_else(|e| if e == rusqlite::Error::QueryReturnedNoRows { Ok(0) } else { Err(e) })?;
        let known = u32::try_from(schema.migrations.len()).unwrap_or(u32::MAX);
        if have > known {
            return Err(StoreError::Damaged(format!(
                "the {} tables are of version {have}; this program knows up to {known}",
                schema.room
            )));
        }
        for migration in &schema.migrations[have as usize..] {
            transaction.execute_batch(migration)?;
        }
        transaction.execute(
            "INSERT INTO room_version VALUES (?1, ?2) ON CONFLICT (room) DO UPDATE SET version = ?2",
            rusqlite::params![schema.room, known],
        )?;
        transaction.commit()?;
    }
    Ok(())
}

/// A new file survives a power cut only if its directory was synced as well.
fn sync_directory_of(path: &Path, fatal: &Fatal) -> Result<(), StoreError> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = std::fs::File::open(parent).map_err(|e| StoreError::from_io("opening a directory", e))?;
    fatal.settle("the names in the data directory", directory.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: Schema = Schema {
        room: "test",
        migrations: &[
            "CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER NOT NULL) STRICT",
            "ALTER TABLE t ADD COLUMN w TEXT",
        ],
    };

    fn open(dir: &Path) -> Records {
        Records::open(&dir.join("records.db"), &[SCHEMA], Fatal::new()).unwrap()
    }

    async fn put(records: &Records, key: &'static str, value: i64) -> Result<usize, StoreError> {
        records.write(move |c| Ok(c.execute("INSERT INTO t (k, v) VALUES (?1, ?2)", (key, value))?)).await
    }

    async fn count(records: &Records) -> i64 {
        records.read::<_, StoreError>(|c| Ok(c.query_row("SELECT count(*) FROM t", [], |r| r.get(0))?)).await.unwrap()
    }

    #[tokio::test]
    async fn a_write_that_has_returned_is_seen_by_the_next_read_and_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(dir.path());
        put(&records, "a", 1).await.unwrap();
        assert_eq!(count(&records).await, 1);
        assert_eq!((records.fatal().syncs().records.read().count, records.waiting()), (1, 0));
        drop(records);
        assert_eq!(count(&open(dir.path())).await, 1);
    }

    #[tokio::test]
    async fn a_calm_lasts_until_a_commit_begins_and_the_next_is_there_before_the_writer_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(dir.path());
        let before = records.calm().expect("nothing is being committed");
        assert_eq!(count(&records).await, 0);
        assert_eq!(records.calm(), Some(before), "a read changes nothing");
        put(&records, "a", 1).await.unwrap();
        let after = records.calm().expect("the commit has ended");
        assert_ne!(after, before);
        put(&records, "a", 2).await.unwrap_err();
        assert_ne!(records.calm(), Some(before));
    }

    #[test]
    fn while_a_commit_is_under_way_nobody_knows_what_a_reader_would_see() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watched.db");
        let mut connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.execute_batch(SCHEMA.migrations[0]).unwrap();
        let fatal = Fatal::new();
        let mut sums = Sums::open(&path, 4_096, fatal.clone()).unwrap();
        let commits = Arc::new(AtomicU64::new(0));
        let (counted, at_commit) = (Arc::clone(&commits), Arc::new(AtomicU64::new(0)));
        let seen = Arc::clone(&at_commit);
        let look = move || {
            seen.store(counted.load(Ordering::SeqCst), Ordering::SeqCst);
            false
        };
        connection.commit_hook(Some(look)).unwrap();
        let (queue, receiver) = mpsc::channel(1);
        let told = Arc::new(AtomicU64::new(0));
        let (counted, telling) = (Arc::clone(&commits), Arc::clone(&told));
        let work: Work = Box::new(move |db| {
            db.unwrap().execute_batch(SCHEMA.migrations[1]).unwrap();
            Box::new(move |_| telling.store(counted.load(Ordering::SeqCst), Ordering::SeqCst))
        });
        queue.try_send(Some(work)).unwrap_or_else(|_| panic!("there is room for one"));
        drop(queue);
        write_loop(&connection, receiver, &fatal, (&AtomicI32::new(0), &mut sums), &commits);
        assert_eq!((at_commit.load(Ordering::SeqCst), told.load(Ordering::SeqCst)), (1, 2));

        let records = open(dir.path());
        records.shared.commits.store(1, Ordering::SeqCst);
        assert_eq!(records.calm(), None);
    }

    #[tokio::test]
    async fn a_failed_write_undoes_itself_and_not_its_neighbours() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(dir.path());
        put(&records, "taken", 0).await.unwrap();
        let results =
            futures::future::join_all([put(&records, "a", 1), put(&records, "taken", 2), put(&records, "b", 3)]).await;
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(count(&records).await, 3);
    }

    #[tokio::test]
    async fn a_panic_in_one_write_leaves_the_writer_alive() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(dir.path());
        let outcome = records.write::<(), StoreError>(|_| panic!("a bug")).await;
        assert!(outcome.is_err());
        put(&records, "a", 1).await.unwrap();
        assert_eq!(count(&records).await, 1);
    }

    #[tokio::test]
    async fn a_write_that_finds_no_space_is_told_so_and_its_neighbours_either_happened_or_were_told_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(dir.path());
        let small = |records: &Records, key: String| {
            let records = records.clone();
            async move {
                records
                    .write::<_, StoreError>(move |c| Ok(c.execute("INSERT INTO t (k, v) VALUES (?1, 1)", [key])?))
                    .await
            }
        };
        // A file that may not grow is how a disk without space looks to SQLite.
        let grown =
            |pages: &'static str| records.write::<_, StoreError>(move |c| Ok(c.query_row(pages, [], |_| Ok(()))?));
        grown("PRAGMA max_page_count = 8").await.unwrap();
        let large = records.write::<_, StoreError>(|c| {
            // Long enough for the others to be in the queue, and so in the same commit.
            std::thread::sleep(std::time::Duration::from_millis(50));
            Ok(c.execute("INSERT INTO t (k, v) VALUES (?1, 1)", ["x".repeat(1 << 20)])?)
        });
        let before = small(&records, "before".into());
        let after: Vec<_> = (0..5).map(|n| small(&records, format!("after-{n}"))).collect();
        let (before, large, after) = futures::join!(before, large, futures::future::join_all(after));
        assert!(large.as_ref().is_err_and(StoreError::is_full), "{large:?}");
        let happened = after.iter().chain([&before]).filter(|r| r.is_ok()).count() as i64;
        assert!(after.iter().chain([&before]).all(|r| r.is_ok() || r.as_ref().is_err_and(StoreError::is_full)));
        assert_eq!(count(&records).await, happened, "{before:?} {after:?}");
        grown("PRAGMA max_page_count = 100000").await.unwrap();
        small(&records, "later".into()).await.unwrap();
    }

    #[tokio::test]
    async fn another_program_that_holds_the_database_delays_a_write_and_ends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(dir.path());
        records.write::<_, StoreError>(|c| Ok(c.busy_timeout(std::time::Duration::from_millis(10))?)).await.unwrap();
        let other = Connection::open(dir.path().join("records.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let refused = put(&records, "a", 1).await.unwrap_err();
        assert!(refused.is_full(), "an error that passes: {refused:?}");
        other.execute_batch("ROLLBACK").unwrap();
        put(&records, "a", 1).await.unwrap();
        assert_eq!(records.fatal().reason(), None);
    }

    #[test]
    fn the_log_is_copied_into_the_database_at_the_end_but_not_after_a_failed_sync() {
        for failed in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let connection = Connection::open(dir.path().join("records.db")).unwrap();
            keep_log_on_close(&connection).unwrap();
            connection.pragma_update(None, "journal_mode", "WAL").unwrap();
            connection.execute_batch(SCHEMA.migrations[0]).unwrap();
            let fatal = Fatal::new();
            let mut sums = Sums::open(&dir.path().join("records.db"), 4_096, fatal.clone()).unwrap();
            if failed {
                fatal.throw("a test says so");
            }
            let (queue, receiver) = mpsc::channel(1);
            drop(queue);
            write_loop(&connection, receiver, &fatal, (&AtomicI32::new(0), &mut sums), &AtomicU64::new(0));
            drop(connection);
            assert_eq!(dir.path().join("records.db-wal").exists(), failed);
        }
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let older = Schema { room: "test", migrations: &SCHEMA.migrations[..1] };
        let error = Records::open(&dir.path().join("records.db"), &[older], Fatal::new()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    }
}
