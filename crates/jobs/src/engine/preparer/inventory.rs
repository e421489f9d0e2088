//! An S3 Inventory: its `manifest.json` names data files, whose rows are brought into one form (decision 0035).
//!
//! Several files are fetched and read at once; each row is checked once, where it is read, and written as it is pinned. The
//! file whose turn it is feeds the pinning directly, so that its first rows are known while the rest is still being
//! fetched; those behind it spool their lines in the job's folder. So rows have the order of the `manifest.json`.

mod outlet;
mod text;

use std::collections::VecDeque;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use longshore_core::inventory::{self, DataFile, FileFormat, Inventory};
use longshore_core::manifest::{Fault, FaultKind, RowFormat, check_row, write_row};
use longshore_store::StoreError;
use longshore_wire::arn;
use md5::{Digest, Md5};
use tokio::sync::{mpsc, oneshot, watch};

use self::outlet::Outlet;
use self::text::{NoText, Text};
use super::super::role::JobObjects;
use super::pinning::Feed;
use super::{TOO_MANY_ROWS, Unprepared, bad, check_whole, content, pinning, unreadable};
use crate::engine::{Engine, pinned, spool_dir};
use crate::ports::{Columnar, ObjectBody, ObjectError, TableFormat, TableRow};
use crate::shape::{Manifest, bare_etag};

/// Data files that are fetched and read at once. Each takes a connection, a thread and some MB; more than the cores of a
/// usual machine would only take space on its disk.
const FILES_AT_ONCE: usize = 4;
/// Pieces of a data file between the store and the thread that reads them: with the 256 KiB of our own storage 1 MiB, which
/// is some 4 MiB of text, so that neither waits for each piece of the other.
const PIECES_MAX: usize = 4;
/// So much of a piece is hashed and then read, while it is in the cache; and the first rows do not wait for more of the MD5.
const PART_BYTES: usize = 32 << 10;
/// A data file may grow to this when it is inflated, and when its rows are written as lines, whatever its size was…
const INFLATED_FREE: u64 = 16 << 20;
/// … and beyond that by this factor. Rows of an inventory, which differ at least in their keys, shrink 10 to 60 times;
/// what shrinks hundreds of times was made to fill a disk.
const INFLATED_RATIO_MAX: u64 = 100;

/// What a data file of so many stored bytes may grow to.
fn inflated_max(stored: u64) -> u64 {
    INFLATED_FREE.saturating_add(stored.saturating_mul(INFLATED_RATIO_MAX))
}

pub(super) async fn pin(
    engine: &Engine,
    objects: &JobObjects,
    job_id: &str,
    manifest: &Manifest,
    object: ObjectBody,
    growth: Option<pinned::Growth>,
) -> Result<u64, Unprepared> {
    let inventory = Inventory::parse(&collect(object).await?).map_err(|fault| content(fault.reason()))?;
    let unusable = || content("Invalid Manifest Content");
    let own = arn::object_of(&manifest.object_arn).ok_or_else(unusable)?.0;
    let format = RowFormat::new(inventory.pinned_columns()).ok_or_else(unusable)?;
    let world = &engine.shared.world;
    let reading = Arc::new(Reading {
        engine: engine.clone(),
        objects: objects.clone(),
        bucket: inventory.bucket.clone().unwrap_or_else(|| own.to_owned()),
        columns: RowFormat::new(inventory.columns.clone()).ok_or_else(unusable)?,
        format: inventory.format,
        versions: inventory.has_versions(),
        rows_max: world.settings.rows_max,
        early: growth.is_some(),
        // Of this try alone: a thread of an earlier one may still be about to notice that nobody waits for it.
        dir: spool_dir(&world.job_dir(job_id)).join(world.settings.new_id().to_string()),
    });
    let tasks = &engine.shared.tasks;
    let (ground, dir, made) = (tasks.ground().clone(), reading.dir.clone(), reading.dir.clone());
    let folder = ground.clone();
    tasks.blocking(move || folder.files().make_folder(&made).map_err(spooling)).await?;
    let pinned =
        pinning::pin(engine, job_id, format, growth, |feed| async move {
            let (turn, turns) = watch::channel(0);
            let mut files = inventory.files.into_iter().enumerate();
            let mut ahead = VecDeque::new();
            loop {
                let wanted = FILES_AT_ONCE - ahead.len();
                ahead.extend(files.by_ref().take(wanted).map(|(number, file)| {
                    (number, Arc::clone(&reading).start(number, file, feed.clone(), turns.clone()))
                }));
                let Some((number, read)) = ahead.pop_front() else { return Ok(()) };
                turn.send_replace(number);
                let broke_off = || Err(StoreError::Damaged("reading a data file broke off".into()).into());
                read.await.ok().flatten().unwrap_or_else(broke_off)?;
            }
        })
        .await;
    // What cannot be removed now is removed when the job is over.
    let _ = tasks.blocking(move || ground.files().remove_folder(&dir).map_err(spooling)).await;
    pinned
}

/// The whole `manifest.json`.
async fn collect(mut object: ObjectBody) -> Result<Vec<u8>, Unprepared> {
    let mut json = Vec::new();
    while let Some(piece) = object.stream.next().await {
        let piece = piece.map_err(unreadable)?;
        if json.len() + piece.len() > inventory::JSON_BYTES_MAX {
            return Err(content("Invalid Manifest Content: the manifest.json is longer than 16 MiB"));
        }
        json.extend_from_slice(&piece);
    }
    check_whole(object.size, json.len() as u64)?;
    Ok(json)
}

/// What reading any data file of one inventory takes.
struct Reading {
    engine: Engine,
    objects: JobObjects,
    /// Where the data files lie.
    bucket: String,
    /// Those of a CSV data file.
    columns: RowFormat,
    format: FileFormat,
    /// Whether lines have a third field.
    versions: bool,
    rows_max: u64,
    /// Whether rows run while others are still being read.
    early: bool,
    /// Where spool files are.
    dir: PathBuf,
}

/// Nobody waits for the lines any more, or the fetch ended early: whoever gave it up knows why.
struct GivenUp;

/// Why a data file gave no lines.
enum Unread {
    /// A detail for the job's failure reason.
    Malformed(String),
    Fault(Fault),
    /// A line longer than any row may be.
    LongLine,
    TooManyRows,
    /// It is another file than the `manifest.json` means.
    OtherMd5,
    Store(StoreError),
    GivenUp,
}

impl From<NoText> for Unread {
    fn from(why: NoText) -> Self {
        match why {
            NoText::NotInflated(what) => Unread::Malformed(format!("cannot be inflated: {what}")),
            NoText::LongLine => Unread::LongLine,
        }
    }
}

impl From<GivenUp> for Unread {
    fn from(_: GivenUp) -> Self {
        Unread::GivenUp
    }
}

impl From<std::io::Error> for Unread {
    fn from(error: std::io::Error) -> Self {
        Unread::Store(spooling(error))
    }
}

impl Reading {
    /// Begins with a data file, on its own, so that it goes on while those before it are being pinned. Ends when all of its
    /// lines are handed over, which is when it was its turn; and where it stands, once nobody waits for that any more.
    fn start(
        self: Arc<Self>,
        number: usize,
        file: DataFile,
        feed: Feed,
        turn: watch::Receiver<usize>,
    ) -> oneshot::Receiver<Option<Result<(), Unprepared>>> {
        let engine = self.engine.clone();
        engine.shared.tasks.spawn_while_wanted(self.read(number, file, feed, turn))
    }

    /// Fetches, checks and reads one data file.
    async fn read(
        self: Arc<Self>,
        number: usize,
        file: DataFile,
        feed: Feed,
        turn: watch::Receiver<usize>,
    ) -> Result<(), Unprepared> {
        let detail = |what: &str| content(format!("Invalid Manifest Content: {} {what}", file.key));
        let mut object = match self.objects.get(&self.bucket, &file.key, None).await {
            Err(error) if !error.passing && !matches!(&*error.code, "AccessDenied" | ObjectError::DAMAGED) => {
                return Err(detail(&format!("cannot be read: {}", error.code)));
            }
            opened => opened.map_err(unreadable)?,
        };
        // What a store keeps as it came in one piece has its MD5 for an ETag, so that it is known before the first byte
        // to be the file that is meant. Of any other no row may run before the last byte has shown it: after a restart
        // rows of another file would stand beside those that ran before.
        let named = |md5: &[u8; 16]| hex::encode(md5) == bare_etag(&object.etag);
        let held = self.early && file.md5.as_ref().is_some_and(|md5| !named(md5));
        let held = held || self.format != FileFormat::Csv;
        let tasks = &self.engine.shared.tasks;
        let path = self.dir.join(number.to_string());
        let outlet = Outlet::new(tasks.ground().clone(), feed, number, turn, held, path);
        let (sender, incoming) = mpsc::channel(PIECES_MAX);
        let pieces = Pieces { incoming, piece: Bytes::new(), md5: Md5::new(), stored: 0, ended: false };
        let (this, wanted) = (Arc::clone(&self), file.md5);
        let reading = tasks.blocking_on(async move { Ok(this.lines(pieces, wanted, outlet).await) });
        let fetching = async move {
            let mut fetched = 0;
            while let Some(piece) = object.stream.next().await {
                let piece = piece.map_err(unreadable)?;
                fetched += piece.len() as u64;
                if sender.send(Some(piece)).await.is_err() {
                    return Ok(());
                }
            }
            check_whole(object.size, fetched)?;
            // Refused only by a reader that has failed already, which decides.
            let _ = sender.send(None).await;
            Ok(())
        };
        let (read, fetched) = tokio::join!(reading, fetching);
        match read? {
            Ok(()) => Ok(()),
            // What is wrong with half a file may be right in the whole one.
            Err(_) if fetched.is_err() => fetched,
            Err(Unread::Malformed(what)) => Err(detail(&what)),
            Err(Unread::OtherMd5) => Err(detail("has another MD5 than the manifest.json says")),
            Err(Unread::Fault(fault)) => Err(bad(fault.kind(), format!("{}: {fault}", file.key))),
            Err(Unread::LongLine) => {
                Err(bad(FaultKind::Malformed, format!("{}: a line is longer than 65,536 bytes", file.key)))
            }
            Err(Unread::TooManyRows) => Err(content(TOO_MANY_ROWS)),
            Err(Unread::Store(error)) => Err(error.into()),
            // By the pinning, whose verdict it is: the fetch has not given it up.
            Err(Unread::GivenUp) => Err(Unprepared::NotTaken),
        }
    }

    /// Reads the pieces of one data file. Blocks, but for waiting for its pieces, its turn and the pinning.
    async fn lines(&self, mut pieces: Pieces, md5: Option<[u8; 16]>, mut outlet: Outlet) -> Result<(), Unread> {
        match self.format {
            FileFormat::Csv => self.csv(&mut pieces, &mut outlet).await?,
            FileFormat::Parquet => self.table(&mut pieces, TableFormat::Parquet, &mut outlet).await?,
            FileFormat::Orc => self.table(&mut pieces, TableFormat::Orc, &mut outlet).await?,
        }
        let found: [u8; 16] = pieces.md5.finalize().into();
        if md5.is_some_and(|wanted| wanted != found) {
            return Err(Unread::OtherMd5);
        }
        outlet.finish().await
    }

    async fn csv(&self, pieces: &mut Pieces, outlet: &mut Outlet) -> Result<(), Unread> {
        let mut rows = 0;
        let mut written = |lines: &[u8]| {
            let mut written = Vec::new();
            match self.columns.rewrite(rows, lines, &mut written) {
                Ok(more) if rows + more <= self.rows_max => {
                    rows += more;
                    Ok(written)
                }
                Err(fault) if fault.row < self.rows_max => Err(Unread::Fault(fault)),
                // Whatever is wrong behind the last row that there may be is not looked at.
                Ok(_) | Err(_) => Err(Unread::TooManyRows),
            }
        };
        let mut text = None;
        while let Some(piece) = outlet.while_waiting_for(pieces.next()).await?? {
            let text = text.get_or_insert_with(|| Text::new(&piece));
            let mut rest = &piece[..];
            loop {
                let more = text.take(&mut rest)?;
                if text.bytes() > inflated_max(pieces.stored) {
                    return Err(Unread::Malformed("inflates to more than an inventory can".into()));
                }
                // A window as a whole, unless what follows is waited for.
                if (text.is_half_full() || (!more && !pieces.is_there()))
                    && let Some(lines) = text.lines(&mut written)?
                {
                    outlet.push(lines).await?;
                }
                if !more {
                    break;
                }
            }
        }
        if let Some(mut text) = text {
            if let Some(lines) = text.lines(&mut written)? {
                outlet.push(lines).await?;
            }
            if let Some(last) = text.end(&mut written)? {
                outlet.push(last).await?;
            }
        }
        Ok(())
    }

    /// Reads a table by column, which has to lie on our disk as a whole: its directory is at its end.
    async fn table(&self, pieces: &mut Pieces, format: TableFormat, outlet: &mut Outlet) -> Result<(), Unread> {
        let stored = Stored(outlet.path().with_extension("stored"));
        let mut file = std::fs::File::create(&stored.0)?;
        while let Some(piece) = pieces.next().await? {
            file.write_all(&piece)?;
        }
        drop(file);
        // A dictionary's one entry and a run's one length stand for as many rows as anyone likes.
        let bytes_max = inflated_max(pieces.stored);
        let (mut rows, mut bytes) = (0, 0);
        let mut stopped = None;
        let (mut encoded, mut line) = (String::new(), Vec::new());
        let mut push = |row: TableRow<'_>| {
            encoded.clear();
            // Only inventories in CSV have their keys encoded; a manifest's rows always have.
            inventory::encode_key(row.key, &mut encoded);
            check_row(row.bucket, &encoded, row.version).map_err(|flaw| Unread::Fault(Fault { row: rows, flaw }))?;
            if rows == self.rows_max {
                return Err(Unread::TooManyRows);
            }
            rows += 1;
            line.clear();
            write_row(&mut line, row.bucket, &encoded, self.versions.then_some(row.version.unwrap_or("")));
            bytes += line.len() as u64;
            if bytes > bytes_max {
                return Err(Unread::Malformed("holds more rows than an inventory of its size can".into()));
            }
            outlet.spool(&line)
        };
        let mut each = |row: TableRow<'_>| match push(row) {
            Ok(()) => ControlFlow::Continue(()),
            Err(stop) => {
                stopped = Some(stop);
                ControlFlow::Break(())
            }
        };
        let columnar: &dyn Columnar = &*self.engine.shared.world.settings.columnar;
        let read = columnar.read(format, &stored.0, self.versions, &mut each);
        match (stopped, read) {
            (Some(stop), _) => Err(stop),
            (None, Err(error)) => Err(Unread::Malformed(format!("cannot be read: {error}"))),
            (None, Ok(())) => Ok(()),
        }
    }
}

fn spooling(error: std::io::Error) -> StoreError {
    pinned::io("spooling the inventory")(error)
}

/// A table on our disk, for as long as it is read.
struct Stored(PathBuf);

impl Drop for Stored {
    fn drop(&mut self) {
        // What cannot be removed now goes with its folder.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The stored bytes of a data file as they come in, hashed.
struct Pieces {
    /// `None` says that all has come; a channel that merely closes is a fetch that was given up.
    incoming: mpsc::Receiver<Option<Bytes>>,
    /// What is left of the last one.
    piece: Bytes,
    md5: Md5,
    /// Bytes taken in so far.
    stored: u64,
    ended: bool,
}

impl Pieces {
    /// Whether there is more by now.
    fn is_there(&self) -> bool {
        !self.piece.is_empty() || !self.incoming.is_empty()
    }

    /// The next part of a piece, never an empty one; `None` at the end. The first one has two bytes, unless the file has not.
    async fn next(&mut self) -> Result<Option<Bytes>, GivenUp> {
        let mut start = Vec::new();
        loop {
            if self.piece.is_empty() {
                if self.ended {
                    break;
                }
                match self.incoming.recv().await.ok_or(GivenUp)? {
                    None => self.ended = true,
                    Some(piece) => self.piece = piece,
                }
                continue;
            }
            let part = self.piece.split_to(self.piece.len().min(PART_BYTES));
            self.md5.update(&part);
            self.stored += part.len() as u64;
            if self.stored >= 2 && start.is_empty() {
                return Ok(Some(part));
            }
            start.extend_from_slice(&part);
            if self.stored >= 2 {
                break;
            }
        }
        Ok((!start.is_empty()).then(|| start.into()))
    }
}
