//! The pinned manifest: the rows as they were read in Preparing, on our disk, with an index of chunks.
//!
//! Later changes to the manifest object do not matter (rule E-6). Two files in the job's folder: `manifest.csv`, the
//! lines as they came, each ended by LF; `manifest.idx`, frames of the segment format. The first frame's payload names the
//! columns, a byte each ([`Column::code`]); those of the others are 16 bytes a chunk: end offset (u64), CRC32C of the chunk
//! (u32), rows (u32). A chunk is [`CHUNK_ROWS`] rows, the last one fewer.
//!
//! The index is written last, so a manifest that has one is whole. A job that starts early reads the chunks that are
//! checked while the others are written ([`Growing`]); a crash in between costs the whole reading, and no row.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use longshore_core::manifest::{CHUNK_ROWS, Column, RowFormat};
use longshore_core::task::Task;
use longshore_store::failpoint::{self, Place};
use longshore_store::files::Onward;
use longshore_store::{Files, Ground, Open, OpenFile, StoreError, segment};
use tokio::sync::{OwnedMutexGuard, watch};

use super::tasks::Tasks;

const ENTRY_BYTES: usize = 16;
/// Lines gather to so many bytes before they are written: a write of 64 KiB costs the kernel half as much again a byte as one
/// of 128 KiB.
const WRITE_BYTES: usize = 256 << 10;
/// Chunks in one frame of the index: 1 MiB.
const ENTRIES_PER_FRAME: usize = 65_536;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk {
    end: u64,
    checksum: u32,
    rows: u32,
}

fn paths(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("manifest.csv"), dir.join("manifest.idx"))
}

/// Says what was being done when the disk refused, and whether it was full.
pub(super) fn io(context: &'static str) -> impl Fn(std::io::Error) -> StoreError {
    move |e| match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            StoreError::Full(format!("{context}: {e}"))
        }
        _ => StoreError::Io(std::io::Error::new(e.kind(), format!("{context}: {e}"))),
    }
}

/// A sync that failed is the end of this process, whatever the reason: the agent throws the switch.
fn unsynced(error: std::io::Error) -> StoreError {
    StoreError::Broken(format!("syncing the pinned manifest failed: {error}"))
}

/// A manifest being pinned. Nothing of it counts until [`Writer::finish`] has returned.
pub(super) struct Writer {
    ground: Ground,
    dir: PathBuf,
    format: RowFormat,
    file: BufWriter<Onward>,
    chunks: Vec<Chunk>,
    open: Chunk,
    rows: u64,
    growth: Option<Growth>,
}

impl Writer {
    /// Starts afresh; what an earlier, interrupted preparation left is overwritten. With `growth` each chunk can be read
    /// as soon as it is full. Blocks, as all here.
    pub fn create(ground: &Ground, dir: &Path, format: RowFormat, growth: Option<Growth>) -> Result<Self, StoreError> {
        let failed = io("pinning the manifest");
        let file = match &growth {
            None => {
                ground.files().make_folder(dir).map_err(&failed)?;
                ground.files().open(&paths(dir).0, Open::Empty).map_err(&failed)?
            }
            Some(growth) => growth.begin(ground.files(), &format)?,
        };
        let open = Chunk { end: 0, checksum: 0, rows: 0 };
        Ok(Self {
            ground: ground.clone(),
            dir: dir.to_owned(),
            format,
            file: BufWriter::with_capacity(WRITE_BYTES, Onward::new(file)),
            chunks: Vec::new(),
            open,
            rows: 0,
            growth,
        })
    }

    /// Adds so many rows: whole lines of the format, each with its line break. `edges` are the places in them where chunks
    /// end, as [`RowFormat::check`] gives them.
    pub fn push(&mut self, lines: &[u8], rows: u64, edges: &[usize]) -> Result<(), StoreError> {
        self.file.write_all(lines).map_err(io("pinning the manifest"))?;
        let (start, mut from) = (self.open.end, 0);
        self.rows += rows;
        let mut rest = rows;
        for edge in edges {
            self.open.checksum = crc32c::crc32c_append(self.open.checksum, &lines[from..*edge]);
            self.open.end = start + *edge as u64;
            rest -= CHUNK_ROWS - u64::from(self.open.rows);
            self.open.rows = CHUNK_ROWS as u32;
            from = *edge;
            self.close_chunk()?;
        }
        self.open.checksum = crc32c::crc32c_append(self.open.checksum, &lines[from..]);
        self.open.end = start + lines.len() as u64;
        self.open.rows += rest as u32;
        Ok(())
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn close_chunk(&mut self) -> Result<(), StoreError> {
        if let Some(growth) = &self.growth {
            self.file.flush().map_err(io("pinning the manifest"))?;
            growth.publish(self.chunks.len(), self.open)?;
        }
        self.chunks.push(self.open);
        self.open = Chunk { checksum: 0, rows: 0, ..self.open };
        Ok(())
    }

    /// Makes both files durable.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let failed = io("pinning the manifest");
        if self.open.rows > 0 {
            self.close_chunk()?;
        }
        let files = self.ground.files();
        let file = self.file.into_inner().map_err(|e| failed(e.into_error()))?.into_inner();
        if self.growth.is_some() {
            // Written over what an earlier reading had left, which may have been longer by a piece.
            file.set_length(self.open.end).map_err(&failed)?;
        }
        failpoint::pass(Place::ManifestSyncBefore);
        file.sync_all().map_err(unsynced)?;
        failpoint::pass(Place::ManifestIndexBefore);
        let mut bytes = segment::HEADER.to_vec();
        let columns: Vec<u8> = self.format.columns().iter().map(|c| c.code()).collect();
        segment::push_frame(&mut bytes, &columns);
        for frame in self.chunks.chunks(ENTRIES_PER_FRAME) {
            let mut payload = Vec::with_capacity(frame.len() * ENTRY_BYTES);
            for chunk in frame {
                payload.extend_from_slice(&chunk.end.to_le_bytes());
                payload.extend_from_slice(&chunk.checksum.to_le_bytes());
                payload.extend_from_slice(&chunk.rows.to_le_bytes());
            }
            segment::push_frame(&mut bytes, &payload);
        }
        // Under another name first: an index that is there says that the manifest is whole.
        let unfinished = self.dir.join("manifest.idx.new");
        let index = files.open(&unfinished, Open::Empty).map_err(&failed)?;
        index.write_all_at(&bytes, 0).map_err(&failed)?;
        index.sync_all().map_err(unsynced)?;
        failpoint::pass(Place::ManifestRenameBefore);
        files.rename(&unfinished, &paths(&self.dir).1).map_err(&failed)?;
        failpoint::pass(Place::ManifestRenameAfter);
        // Both the files' names and the folder's own: a power cut must not leave a Ready job without them.
        let folders = [Some(self.dir.as_path()), self.dir.parent()];
        for folder in folders.into_iter().flatten() {
            files.open(folder, Open::Folder).map_err(&failed)?.sync_all().map_err(unsynced)?;
        }
        failpoint::pass(Place::ManifestPinned);
        Ok(())
    }

    /// Gives up what was written so far.
    pub fn discard(self) {
        if self.growth.is_some() {
            // It is being read, and written over by the next try.
            return;
        }
        // What cannot be removed is overwritten by the next try, or removed when the job is over.
        let _ = self.ground.files().remove(&paths(&self.dir).0);
    }
}

/// A pinned manifest, open for reading. In memory: the index, 24 bytes for 1,024 rows.
#[derive(Debug)]
pub(super) struct Pinned {
    file: Box<dyn OpenFile>,
    path: PathBuf,
    chunks: RwLock<Vec<Chunk>>,
    /// Unknown only while nothing is written yet.
    format: OnceLock<RowFormat>,
}

/// A manifest that is read while it is being pinned. Several readings may be made of it, one after the other, when a
/// store fails on the way: they write the same bytes over one another, since the object has the same ETag.
#[derive(Debug)]
pub(super) struct Growing {
    pub pinned: Arc<Pinned>,
    known: watch::Sender<u64>,
    /// Held by whoever writes.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The right to write to a [`Growing`] manifest, for one reading of its object.
#[derive(Debug)]
pub(super) struct Growth {
    growing: Arc<Growing>,
    _turn: OwnedMutexGuard<()>,
}

impl Growing {
    /// Begins with nothing known. What a reading before a crash has left is written over.
    pub async fn create(tasks: &Tasks, dir: &Path) -> Result<Arc<Self>, StoreError> {
        let (ground, dir, path) = (tasks.ground().clone(), dir.to_owned(), paths(dir).0);
        let pinned = tasks.blocking(move || {
            let failed = io("pinning the manifest");
            ground.files().make_folder(&dir).map_err(&failed)?;
            // Results are kept in it before the manifest is, and so before anything else makes its name durable.
            if let Some(jobs) = dir.parent() {
                ground.files().open(jobs, Open::Folder).map_err(&failed)?.sync_all().map_err(unsynced)?;
            }
            let file = ground.files().open(&path, Open::Make).map_err(&failed)?;
            Ok(Pinned { file, path, chunks: RwLock::default(), format: OnceLock::new() })
        });
        let known = watch::Sender::new(0);
        Ok(Arc::new(Self { pinned: Arc::new(pinned.await?), known, turn: Arc::default() }))
    }

    /// How many rows can be read; only grows.
    pub fn known(&self) -> watch::Receiver<u64> {
        self.known.subscribe()
    }

    /// Waits until nobody writes, and takes the turn.
    pub async fn turn(self: &Arc<Self>) -> Growth {
        Growth { growing: Arc::clone(self), _turn: Arc::clone(&self.turn).lock_owned().await }
    }
}

impl Growth {
    fn begin(&self, files: &dyn Files, format: &RowFormat) -> Result<Box<dyn OpenFile>, StoreError> {
        let pinned = &self.growing.pinned;
        if pinned.format.get_or_init(|| format.clone()).columns() != format.columns() {
            return Err(self.other_bytes());
        }
        // A handle of its own, which begins at the first byte.
        files.open(&pinned.path, Open::Write).map_err(io("pinning the manifest"))
    }

    /// Makes a chunk known, or, at a second reading, compares it with the first.
    fn publish(&self, number: usize, chunk: Chunk) -> Result<(), StoreError> {
        let mut chunks = self.growing.pinned.chunks.write().unwrap_or_else(PoisonError::into_inner);
        match chunks.get(number) {
            Some(known) if *known == chunk => return Ok(()),
            Some(_) => return Err(self.other_bytes()),
            None => chunks.push(chunk),
        }
        drop(chunks);
        self.growing.known.send_modify(|rows| *rows += u64::from(chunk.rows));
        Ok(())
    }

    fn other_bytes(&self) -> StoreError {
        let path = self.growing.pinned.path.display();
        StoreError::Damaged(format!("{path}: the manifest's object has other bytes now, under the same ETag"))
    }
}

impl Pinned {
    /// Whether the manifest of this folder is pinned whole.
    pub fn is_whole(files: &dyn Files, dir: &Path) -> bool {
        files.is_there(&paths(dir).1)
    }

    /// `before` is the format of an index that does not name its columns: those were written before it did.
    pub async fn open(tasks: &Tasks, dir: &Path, before: Option<RowFormat>) -> Result<Self, StoreError> {
        let (ground, (path, index)) = (tasks.ground().clone(), paths(dir));
        let opened = tasks.blocking(move || {
            let lost = |path: &Path, error: std::io::Error| match error.kind() {
                // It was there when the job left Preparing, and no waiting brings it back.
                std::io::ErrorKind::NotFound => StoreError::Damaged(format!("{} is missing", path.display())),
                _ => io("opening the pinned manifest")(error),
            };
            let files = ground.files();
            let file = files.open(&path, Open::Read).map_err(|e| lost(&path, e))?;
            let bytes =
                files.open(&index, Open::Read).and_then(|index| index.read_whole()).map_err(|e| lost(&index, e))?;
            let mut format = None;
            let mut chunks = Vec::new();
            let recovered = segment::recover(&bytes, |payload| {
                if format.is_none() {
                    let columns: Option<Vec<Column>> = payload.iter().map(|code| Column::of_code(*code)).collect();
                    let named = columns.and_then(RowFormat::new);
                    let is_named = named.is_some();
                    format = Some(named.or_else(|| before.clone()));
                    if is_named {
                        return;
                    }
                }
                for entry in payload.chunks_exact(ENTRY_BYTES) {
                    let (end, rest) = entry.split_at(8);
                    let (checksum, rows) = rest.split_at(4);
                    chunks.push(Chunk {
                        end: u64::from_le_bytes(end.try_into().expect("8 of 16 bytes")),
                        checksum: u32::from_le_bytes(checksum.try_into().expect("4 of 16 bytes")),
                        rows: u32::from_le_bytes(rows.try_into().expect("4 of 16 bytes")),
                    });
                }
            });
            // The index was synced before the job left Preparing: unlike a log it has no tail that a crash may tear.
            if !recovered.is_ok_and(|r| r.valid_len == bytes.len()) {
                return Err(StoreError::Damaged(format!("{} fails its checksum", index.display())));
            }
            let Some(format) = format.flatten() else {
                return Err(StoreError::Damaged(format!("{} names no columns", index.display())));
            };
            Ok(Self { file, path, chunks: RwLock::new(chunks), format: OnceLock::from(format) })
        });
        opened.await
    }

    pub fn rows(&self) -> u64 {
        self.chunks().iter().map(|c| u64::from(c.rows)).sum()
    }

    fn chunks(&self) -> std::sync::RwLockReadGuard<'_, Vec<Chunk>> {
        self.chunks.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows from `first_row` to the end of its chunk; none behind the last. Blocks.
    pub fn read_from(&self, first_row: u64) -> Result<Vec<Task>, StoreError> {
        let number = (first_row / CHUNK_ROWS) as usize;
        let (chunk, start) = {
            let chunks = self.chunks();
            let Some(chunk) = chunks.get(number) else { return Ok(Vec::new()) };
            (*chunk, if number == 0 { 0 } else { chunks[number - 1].end })
        };
        let Some(format) = self.format.get() else { return Ok(Vec::new()) };
        let damaged = |what: &str| StoreError::Damaged(format!("{} at byte {start}: {what}", self.path.display()));
        let length = chunk.end.checked_sub(start).ok_or_else(|| damaged("the index does not ascend"))?;
        let mut bytes = vec![0; length as usize];
        self.file.read_all_at(&mut bytes, start).map_err(|e| damaged(&e.to_string()))?;
        if crc32c::crc32c(&bytes) != chunk.checksum {
            return Err(damaged("a chunk fails its checksum"));
        }
        let first_of_chunk = number as u64 * CHUNK_ROWS;
        let tasks = format.parse_chunk(first_of_chunk, first_row, &bytes).map_err(|f| damaged(&f.to_string()))?;
        if tasks.len() as u64 != u64::from(chunk.rows).saturating_sub(first_row - first_of_chunk) {
            return Err(damaged("a chunk has other rows than its index says"));
        }
        Ok(tasks)
    }
}

#[cfg(test)]
mod tests {
    use longshore_store::Os;

    use super::*;

    fn format() -> RowFormat {
        RowFormat::new(vec![Column::Bucket, Column::Key]).unwrap()
    }

    fn threads() -> Tasks {
        Tasks::new(crate::Ground::Threads)
    }

    async fn open(dir: &Path, before: Option<RowFormat>) -> Result<Pinned, StoreError> {
        Pinned::open(&threads(), dir, before).await
    }

    fn write(dir: &Path, rows: u64) {
        let mut writer = Writer::create(&Ground::Threads, dir, format(), None).unwrap();
        push(&mut writer, 0..rows).unwrap();
        assert_eq!(writer.rows(), rows);
        writer.finish().unwrap();
    }

    #[tokio::test]
    async fn rows_are_read_back_from_anywhere() {
        let dir = tempfile::tempdir().unwrap();
        for rows in [0, 1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 3 * CHUNK_ROWS + 7] {
            write(dir.path(), rows);
            let pinned = open(dir.path(), None).await.unwrap();
            assert_eq!(pinned.rows(), rows);
            let mut next = 0;
            loop {
                let tasks = pinned.read_from(next).unwrap();
                let Some(last) = tasks.last() else { break };
                assert_eq!((tasks[0].row, &*tasks[0].key), (next, format!("key-{next}").as_str()));
                next = last.row + 1;
            }
            assert_eq!(next, rows);
        }
        let pinned = open(dir.path(), None).await.unwrap();
        assert_eq!(pinned.read_from(CHUNK_ROWS + 5).unwrap()[0].row, CHUNK_ROWS + 5);
    }

    fn push(writer: &mut Writer, rows: std::ops::Range<u64>) -> Result<(), StoreError> {
        // In pieces that have nothing to do with chunks.
        let rows: Vec<u64> = rows.collect();
        rows.chunks(700).try_for_each(|rows| {
            let lines: String = rows.iter().map(|row| format!("b,key-{row}\n")).collect();
            let mut edges = Vec::new();
            let found = format().check(writer.rows(), lines.as_bytes(), &mut edges).unwrap();
            writer.push(lines.as_bytes(), found, &edges)
        })
    }

    #[tokio::test]
    async fn a_manifest_that_grows_is_read_a_chunk_behind_and_is_whole_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let growing = Growing::create(&threads(), dir.path()).await.unwrap();
        let (pinned, known) = (Arc::clone(&growing.pinned), growing.known());
        assert!(pinned.read_from(0).unwrap().is_empty());
        let mut writer = Writer::create(&Ground::Threads, dir.path(), format(), Some(growing.turn().await)).unwrap();
        push(&mut writer, 0..CHUNK_ROWS + 3).unwrap();
        assert_eq!((*known.borrow(), pinned.rows()), (CHUNK_ROWS, CHUNK_ROWS), "the open chunk is not known yet");
        assert_eq!(pinned.read_from(5).unwrap().len() as u64, CHUNK_ROWS - 5);
        assert!(pinned.read_from(CHUNK_ROWS).unwrap().is_empty() && !Pinned::is_whole(&Os, dir.path()));
        writer.finish().unwrap();
        assert_eq!((*known.borrow(), pinned.read_from(CHUNK_ROWS).unwrap().len()), (CHUNK_ROWS + 3, 3));
        assert_eq!(open(dir.path(), None).await.unwrap().rows(), CHUNK_ROWS + 3);
    }

    #[tokio::test]
    async fn an_index_from_before_it_named_its_columns_is_read_with_those_of_the_job() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), CHUNK_ROWS + 10);
        let (mut frames, mut old) = (Vec::new(), segment::HEADER.to_vec());
        let index = std::fs::read(dir.path().join("manifest.idx")).unwrap();
        segment::recover(&index, |payload| frames.push(payload.to_vec())).unwrap();
        frames[1..].iter().for_each(|frame| segment::push_frame(&mut old, frame));
        std::fs::write(dir.path().join("manifest.idx"), old).unwrap();
        let pinned = open(dir.path(), Some(format())).await.unwrap();
        assert_eq!((pinned.rows(), pinned.read_from(CHUNK_ROWS).unwrap().len()), (CHUNK_ROWS + 10, 10));
        assert!(matches!(open(dir.path(), None).await, Err(StoreError::Damaged(_))));
    }

    #[tokio::test]
    async fn an_index_that_a_crash_has_left_half_written_makes_no_manifest_whole() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 10);
        let index = std::fs::read(dir.path().join("manifest.idx")).unwrap();
        std::fs::remove_file(dir.path().join("manifest.idx")).unwrap();
        std::fs::write(dir.path().join("manifest.idx.new"), &index[..index.len() / 2]).unwrap();
        assert!(!Pinned::is_whole(&Os, dir.path()));
        write(dir.path(), 20);
        assert_eq!(open(dir.path(), None).await.unwrap().rows(), 20);
        assert!(!dir.path().join("manifest.idx.new").exists());
    }

    #[tokio::test]
    async fn a_second_reading_writes_the_same_bytes_or_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        // What a server that died has left: longer, and of other bytes.
        std::fs::write(dir.path().join("manifest.csv"), vec![b'x'; 1 << 20]).unwrap();
        let growing = Growing::create(&threads(), dir.path()).await.unwrap();
        let mut writer = Writer::create(&Ground::Threads, dir.path(), format(), Some(growing.turn().await)).unwrap();
        push(&mut writer, 0..CHUNK_ROWS + 3).unwrap();
        writer.discard();
        let mut writer = Writer::create(&Ground::Threads, dir.path(), format(), Some(growing.turn().await)).unwrap();
        push(&mut writer, 0..2 * CHUNK_ROWS).unwrap();
        assert_eq!(growing.pinned.read_from(CHUNK_ROWS).unwrap()[0].row, CHUNK_ROWS);
        drop(writer);
        let mut writer = Writer::create(&Ground::Threads, dir.path(), format(), Some(growing.turn().await)).unwrap();
        assert!(matches!(push(&mut writer, 1..CHUNK_ROWS + 1), Err(StoreError::Damaged(_))));
        drop(writer);
        let mut writer = Writer::create(&Ground::Threads, dir.path(), format(), Some(growing.turn().await)).unwrap();
        push(&mut writer, 0..3 * CHUNK_ROWS).unwrap();
        writer.finish().unwrap();
        assert_eq!(open(dir.path(), None).await.unwrap().read_from(2 * CHUNK_ROWS).unwrap().len(), 1_024);
    }

    #[tokio::test]
    async fn a_flipped_bit_is_noticed_and_no_row_is_made_from_it() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 10);
        for name in ["manifest.csv", "manifest.idx"] {
            let path = dir.path().join(name);
            let good = std::fs::read(&path).unwrap();
            let mut bad = good.clone();
            bad[good.len() / 2] ^= 1;
            std::fs::write(&path, bad).unwrap();
            let read = match open(dir.path(), None).await {
                Ok(pinned) => pinned.read_from(0),
                Err(error) => Err(error),
            };
            assert!(matches!(read, Err(StoreError::Damaged(_))), "{name}");
            std::fs::write(&path, good).unwrap();
        }
    }

    #[tokio::test]
    async fn whatever_is_done_to_a_pinned_manifest_no_row_is_read_that_it_did_not_have() {
        let (dir, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let rows = 2 * CHUNK_ROWS + 77;
        write(foreign.path(), rows - 1);
        let mut refused = 0;
        for round in 0..48_usize {
            write(dir.path(), rows);
            let name = ["manifest.csv", "manifest.idx"][round % 2];
            let path = dir.path().join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = round * 7_919 % bytes.len();
            match round / 2 % 4 {
                0 => bytes[at] ^= 1 << (round % 8),
                1 => bytes.truncate(at),
                2 => bytes[at..].iter_mut().take(64).for_each(|byte| *byte = 0),
                _ => bytes = std::fs::read(foreign.path().join(name)).unwrap(),
            }
            std::fs::write(&path, bytes).unwrap();
            let read = async {
                let pinned = open(dir.path(), None).await?;
                let mut next = 0;
                while next < rows {
                    let tasks = pinned.read_from(next)?;
                    for task in &tasks {
                        assert_eq!(*task.key, *format!("key-{}", task.row), "round {round}");
                    }
                    next = tasks.last().map_or(rows, |last| last.row + 1);
                }
                Ok::<_, StoreError>(pinned.rows())
            };
            match read.await {
                Err(StoreError::Damaged(told)) => {
                    refused += 1;
                    assert!(told.contains("manifest."), "{told}");
                }
                Err(error) => panic!("round {round}: {error}"),
                // Zeros over zeros; an index of fewer rows is noticed by the job, which knows how many there were.
                Ok(_) => {}
            }
        }
        assert!(refused >= 40, "{refused} of 48 were refused");
    }
}
