//! An S3 Inventory: its `manifest.json` names data files, whose rows are brought into one form.
//!
//! Several files are fetched and read at once, each into a spool file of ready lines in the job's folder; the lines are
//! pinned in the order in which the `manifest.json` lists the files.

use std::io::{BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use longshore_core::inventory::{self, DataFile, FileFormat, Inventory};
use longshore_core::manifest::{Fault, FaultKind, LineTooLong, Lines, RowFormat, check_row, write_row};
use longshore_core::task::VersionId;
use longshore_store::StoreError;
use longshore_wire::arn;
use md5::{Digest, Md5};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{TOO_MANY_ROWS, Unprepared, bad, check_whole, content, pinning, unreadable};
use crate::engine::{Engine, pinned, spool_dir};
use crate::ports::{Columnar, ObjectBody, TableFormat, TableRow};
use crate::shape::Manifest;

/// Data files that are fetched and read at once. Each takes a connection, a thread and some MB; more than the cores of a
/// usual machine would only take space on its disk.
const FILES_AT_ONCE: usize = 4;
/// Pieces of a data file between the store and the thread that reads them; as for a CSV manifest.
const PIECES_MAX: usize = 8;
/// Ready lines are pinned in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
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
    job_id: &str,
    manifest: &Manifest,
    object: ObjectBody,
    growth: Option<pinned::Growth>,
) -> Result<u64, Unprepared> {
    let inventory = Inventory::parse(&collect(object).await?).map_err(|fault| content(fault.reason()))?;
    let unusable = || content("Invalid Manifest Content");
    let own = arn::object_of(&manifest.object_arn).ok_or_else(unusable)?.0;
    let format = RowFormat::new(inventory.pinned_columns()).ok_or_else(unusable)?;
    let reading = Reading {
        engine: engine.clone(),
        bucket: inventory.bucket.clone().unwrap_or_else(|| own.to_owned()),
        columns: RowFormat::new(inventory.columns.clone()).ok_or_else(unusable)?,
        format: inventory.format,
        versions: inventory.has_versions(),
        // Of this try alone: a thread of an earlier one may still be about to notice that nobody waits for it.
        dir: spool_dir(&engine.shared.world.job_dir(job_id)).join(engine.shared.world.settings.new_id().to_string()),
    };
    let reading = Arc::new(reading);
    let dir = reading.dir.clone();
    let made = dir.clone();
    engine.shared.tasks.blocking(move || std::fs::create_dir_all(made).map_err(spooling)).await?;
    let pinned = pinning::pin(engine, job_id, format, growth, |feed| async move {
        let mut ahead = futures::stream::iter(inventory.files.into_iter().enumerate())
            .map(|(number, file)| {
                let reading = Arc::clone(&reading);
                // On its own, so that it goes on while an earlier file's lines are being pinned.
                engine.shared.tasks.spawn_while_wanted(async move { reading.read(number, file).await })
            })
            .buffered(FILES_AT_ONCE);
        while let Some(read) = ahead.next().await {
            let broke_off = || Err(StoreError::Damaged("reading a data file broke off".into()).into());
            let lines = read.ok().flatten().unwrap_or_else(broke_off)?;
            let mut file = tokio::fs::File::open(&lines).await.map_err(spooling)?;
            loop {
                let mut piece = BytesMut::with_capacity(PIECE_BYTES);
                if file.read_buf(&mut piece).await.map_err(spooling)? == 0 {
                    break;
                }
                feed.send(piece.freeze()).await?;
            }
            tokio::fs::remove_file(&lines).await.map_err(spooling)?;
        }
        Ok(())
    })
    .await;
    // What cannot be removed now is removed when the job is over.
    let _ = engine.shared.tasks.blocking(move || std::fs::remove_dir_all(dir).map_err(spooling)).await;
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
    /// Where the data files lie.
    bucket: String,
    /// Those of a CSV data file.
    columns: RowFormat,
    format: FileFormat,
    /// Whether lines have a third field.
    versions: bool,
    /// Where spool files are.
    dir: PathBuf,
}

/// Why a data file gave no lines.
enum Unread {
    /// A detail for the job's failure reason.
    Malformed(String),
    Fault(Fault),
    /// A line longer than any row may be.
    LongLine,
    TooManyRows,
    Store(StoreError),
    /// The fetch ended early, and knows why.
    GivenUp,
}

impl From<LineTooLong> for Unread {
    fn from(_: LineTooLong) -> Self {
        Unread::LongLine
    }
}

impl From<std::io::Error> for Unread {
    fn from(error: std::io::Error) -> Self {
        Unread::Store(spooling(error))
    }
}

impl Reading {
    /// Fetches, checks and reads one data file; returns the spool file with its lines.
    async fn read(self: Arc<Self>, number: usize, file: DataFile) -> Result<PathBuf, Unprepared> {
        let world = &self.engine.shared.world;
        let detail = |what: &str| content(format!("Invalid Manifest Content: {} {what}", file.key));
        let mut object = match world.objects.get(&self.bucket, &file.key, None).await {
            Err(error) if !error.passing && error.code != "AccessDenied" => {
                return Err(detail(&format!("cannot be read: {}", error.code)));
            }
            opened => opened.map_err(unreadable)?,
        };
        let (sender, incoming) = mpsc::channel(PIECES_MAX);
        let lines = self.dir.join(number.to_string());
        let this = Arc::clone(&self);
        let (columnar, rows_max) = (Arc::clone(&world.settings.columnar), world.settings.rows_max);
        let into = lines.clone();
        // The thread cannot be stopped from outside: it looks at this, which is set when this call ends or is dropped.
        let given_up = CancellationToken::new();
        let _waiting = given_up.clone().drop_guard();
        let reading = self.engine.shared.tasks.on_thread(move || {
            let pieces = Pieces { incoming, current: Bytes::new(), ended: false, md5: Md5::new(), stored: 0 };
            let (file, versions) = (create(&into)?, this.versions);
            let mut spool =
                Spool { file, line: Vec::new(), rows: 0, bytes: 0, rows_max, bytes_max: None, versions, given_up };
            let md5 = match this.format {
                FileFormat::Csv => read_csv(pieces, &this.columns, &mut spool)?,
                FileFormat::Parquet => read_table(pieces, TableFormat::Parquet, &into, &*columnar, &mut spool)?,
                FileFormat::Orc => read_table(pieces, TableFormat::Orc, &into, &*columnar, &mut spool)?,
            };
            spool.file.flush()?;
            Ok::<_, Unread>(md5)
        });
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
        let read = read.unwrap_or_else(|panic| {
            Err(Unread::Store(StoreError::Damaged(format!("reading a data file panicked: {panic}"))))
        });
        match read {
            Ok(md5) if file.md5.is_none_or(|wanted| wanted == md5) => Ok(lines),
            Ok(_) => Err(detail("has another MD5 than the manifest.json says")),
            // What is wrong with half a file may be right in the whole one.
            Err(_) if fetched.is_err() => fetched.map(|()| lines),
            Err(Unread::Malformed(what)) => Err(detail(&what)),
            Err(Unread::Fault(fault)) => Err(bad(fault.kind(), format!("{}: {fault}", file.key))),
            Err(Unread::LongLine) => {
                Err(bad(FaultKind::Malformed, format!("{}: a line is longer than 65,536 bytes", file.key)))
            }
            Err(Unread::TooManyRows) => Err(content(TOO_MANY_ROWS)),
            Err(Unread::Store(error)) => Err(error.into()),
            Err(Unread::GivenUp) => Err(StoreError::Damaged("a data file's reader lost its fetch".into()).into()),
        }
    }
}

fn spooling(error: std::io::Error) -> StoreError {
    crate::engine::pinned::io("spooling the inventory")(error)
}

fn create(path: &Path) -> Result<BufWriter<std::fs::File>, Unread> {
    Ok(BufWriter::with_capacity(PIECE_BYTES, std::fs::File::create(path)?))
}

/// The lines of one data file on their way to its spool file.
struct Spool {
    file: BufWriter<std::fs::File>,
    line: Vec<u8>,
    rows: u64,
    /// Of the lines so far.
    bytes: u64,
    rows_max: u64,
    /// What the lines may take together; `None` where what they are read from is held to it.
    bytes_max: Option<u64>,
    versions: bool,
    /// Set once nobody waits for the lines any more.
    given_up: CancellationToken,
}

impl Spool {
    fn push(&mut self, bucket: &str, key: &str, version: Option<&str>) -> Result<(), Unread> {
        if self.given_up.is_cancelled() {
            return Err(Unread::GivenUp);
        }
        if self.rows == self.rows_max {
            return Err(Unread::TooManyRows);
        }
        self.rows += 1;
        self.line.clear();
        write_row(&mut self.line, bucket, key, self.versions.then_some(version.unwrap_or("")));
        self.bytes += self.line.len() as u64;
        if self.bytes_max.is_some_and(|max| self.bytes > max) {
            return Err(Unread::Malformed("holds more rows than an inventory of its size can".into()));
        }
        Ok(self.file.write_all(&self.line)?)
    }
}

/// The stored bytes of a data file as they come in, hashed.
struct Pieces {
    /// `None` says that all has come; a channel that merely closes is a fetch that was given up.
    incoming: mpsc::Receiver<Option<Bytes>>,
    current: Bytes,
    ended: bool,
    md5: Md5,
    /// Bytes taken in so far.
    stored: u64,
}

impl Pieces {
    /// Makes sure that there is a byte to be read, unless the end has come.
    fn fill(&mut self) -> std::io::Result<()> {
        while self.current.is_empty() && !self.ended {
            match self.incoming.blocking_recv() {
                Some(Some(piece)) => {
                    self.md5.update(&piece);
                    self.stored += piece.len() as u64;
                    self.current = piece;
                }
                Some(None) => self.ended = true,
                None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(())
    }

    /// Takes in what nobody reads, and returns the MD5 of everything.
    fn finish(mut self) -> Result<[u8; 16], Unread> {
        while !self.ended {
            self.current = Bytes::new();
            self.fill().map_err(|_| Unread::GivenUp)?;
        }
        Ok(self.md5.finalize().into())
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.fill()?;
        let length = self.current.len().min(into.len());
        self.current.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

/// Two bytes with which every gzip member begins.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Reads CSV, inflated if its first bytes say so (rule INV-3): 0x8B starts no character of UTF-8.
fn read_csv(mut pieces: Pieces, columns: &RowFormat, spool: &mut Spool) -> Result<[u8; 16], Unread> {
    let mut start = [0; 2];
    let mut known = 0;
    while known < start.len() {
        match pieces.read(&mut start[known..]).map_err(|_| Unread::GivenUp)? {
            0 => break,
            read => known += read,
        }
    }
    let whole = Read::chain(std::io::Cursor::new(start[..known].to_vec()), pieces);
    if start[..known] != GZIP_MAGIC {
        let mut whole = whole;
        each_row(&mut whole, |_, _| Ok(()), columns, spool)?;
        return whole.into_inner().1.finish();
    }
    let mut inflating = flate2::read::MultiGzDecoder::new(whole);
    let bounded = |inflating: &flate2::read::MultiGzDecoder<std::io::Chain<_, Pieces>>, inflated: u64| {
        let stored = inflating.get_ref().get_ref().1.stored;
        if inflated > inflated_max(stored) {
            return Err(Unread::Malformed("inflates to more than an inventory can".into()));
        }
        Ok(())
    };
    each_row(&mut inflating, bounded, columns, spool)?;
    inflating.into_inner().into_inner().1.finish()
}

fn each_row<R: Read>(
    from: &mut R,
    bounded: impl Fn(&R, u64) -> Result<(), Unread>,
    columns: &RowFormat,
    spool: &mut Spool,
) -> Result<(), Unread> {
    let mut row = |line: &[u8]| {
        let task = columns.parse(spool.rows, line).map_err(Unread::Fault)?;
        let version = match &task.version {
            VersionId::Given(version) => Some(&**version),
            VersionId::NoColumn | VersionId::Missing => None,
        };
        spool.push(&task.bucket, &task.key, version)
    };
    let mut lines = Lines::default();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut total = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // Of a fetch that was given up, or of a file that was cut: whoever fetched knows which.
            Err(error) => return Err(Unread::Malformed(format!("cannot be inflated: {error}"))),
        };
        total += read as u64;
        bounded(from, total)?;
        lines.push(&buffer[..read], &mut row)?;
    }
    lines.finish().map_or(Ok(()), |last| row(&last))
}

/// Reads a table by column, which has to lie on our disk as a whole: its directory is at its end.
fn read_table(
    mut pieces: Pieces,
    format: TableFormat,
    lines: &Path,
    columnar: &dyn Columnar,
    spool: &mut Spool,
) -> Result<[u8; 16], Unread> {
    let stored = lines.with_extension("stored");
    let mut file = create(&stored)?;
    loop {
        pieces.fill().map_err(|_| Unread::GivenUp)?;
        if pieces.current.is_empty() {
            break;
        }
        file.write_all(&std::mem::take(&mut pieces.current))?;
    }
    file.flush()?;
    drop(file);
    // A dictionary's one entry and a run's one length stand for as many rows as anyone likes.
    spool.bytes_max = Some(inflated_max(pieces.stored));
    let versions = spool.versions;
    let mut stopped = None;
    let mut encoded = String::new();
    let mut each = |row: TableRow<'_>| {
        encoded.clear();
        // Only inventories in CSV have their keys encoded; a manifest's rows always have.
        inventory::encode_key(row.key, &mut encoded);
        let number = spool.rows;
        let checked =
            check_row(row.bucket, &encoded, row.version).map_err(|flaw| Unread::Fault(Fault { row: number, flaw }));
        match checked.and_then(|()| spool.push(row.bucket, &encoded, row.version)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(stop) => {
                stopped = Some(stop);
                ControlFlow::Break(())
            }
        }
    };
    let read = columnar.read(format, &stored, versions, &mut each);
    std::fs::remove_file(&stored)?;
    match (stopped, read) {
        (Some(stop), _) => Err(stop),
        (None, Err(error)) => Err(Unread::Malformed(format!("cannot be read: {error}"))),
        (None, Ok(())) => pieces.finish(),
    }
}
