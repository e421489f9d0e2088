//! A body on its way out: streamed in pieces, checked against what was stored.
//!
//! A reader belongs to one version: it holds the file open, or pins the files it will open, so that an overwrite or a
//! delete meanwhile changes nothing for it.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use futures::StreamExt;
use futures::stream::BoxStream;
use md5::{Digest as _, Md5};

use crate::blobs::{Blobs, Pinned};
use crate::error::ObjectsError;
use crate::table::{Body, Segment};

/// Bytes read at once, on a blocking thread. One piece is in memory for each reader.
const PIECE: usize = 256 * 1024;

/// Bytes of an object, in order. After an error there is nothing more.
pub type ObjectStream = BoxStream<'static, Result<Bytes, ObjectsError>>;

/// A body held fast: whatever happens to its object, these bytes can be read.
#[derive(Debug)]
pub enum Held {
    Inline(Bytes),
    File { file: Arc<File>, path: PathBuf, crc64: u64 },
    Parts { segments: Vec<Segment>, pinned: Pinned },
    External { file: Arc<File>, path: PathBuf, mtime_ns: i64 },
}

impl Held {
    /// Opens or pins what `body` names. Blocks. The caller holds a [`crate::blobs::Reading`] from before it read the
    /// record. A local file that has changed since its import is refused.
    pub fn hold(blobs: &Arc<Blobs>, body: Body, size: u64, etag: &str) -> Result<Self, ObjectsError> {
        Ok(match body {
            // SQLite has no checksums of its own; the ETag of what came in one piece is its MD5.
            Body::Inline(bytes)
                if bytes.len() as u64 == size && (etag.contains('-') || hex::encode(Md5::digest(&bytes)) == etag) =>
            {
                Held::Inline(bytes)
            }
            Body::Inline(_) => {
                let told = format!("a body in records.db does not have {size} bytes and the MD5 {etag}");
                return Err(ObjectsError::Damaged(told));
            }
            Body::Blob { id, crc64 } => {
                Held::File { file: Arc::new(blobs.open_file(&id)?), path: blobs.path(&id), crc64 }
            }
            Body::Parts(segments) => {
                let pinned = blobs.pin(segments.iter().map(|s| s.blob.clone()).collect());
                Held::Parts { segments, pinned }
            }
            Body::External { path, mtime_ns } => {
                let file = File::open(&path).map_err(|e| ObjectsError::SourceChanged {
                    path: path.display().to_string(),
                    what: e.to_string(),
                })?;
                check_unchanged(&file, &path, size, mtime_ns)?;
                Held::External { file: Arc::new(file), path, mtime_ns }
            }
        })
    }

    /// Streams `range` of a body of `size` bytes. Whatever is read whole is checked: a body, or a part of one.
    pub fn stream(self, blobs: &Arc<Blobs>, size: u64, range: Range<u64>) -> ObjectStream {
        let len = range.end.saturating_sub(range.start);
        let whole = len == size;
        let mut pieces = VecDeque::new();
        let mut pin = None;
        match self {
            Held::Inline(bytes) => {
                // Bounded by INLINE_MAX, so that the conversion cannot fail.
                let (start, end) = (range.start as usize, range.end as usize);
                let slice = if start <= end && end <= bytes.len() { bytes.slice(start..end) } else { Bytes::new() };
                return futures::stream::iter((!slice.is_empty()).then_some(Ok(slice))).boxed();
            }
            Held::File { file, path, crc64 } => {
                pieces.push_back(Piece::file(Source::Open(file, path), range.start, len, whole.then_some(crc64)));
            }
            Held::External { file, path, mtime_ns } => {
                let mut piece = Piece::file(Source::Open(file, path), range.start, len, None);
                piece.unchanged = Some((size, mtime_ns));
                pieces.push_back(piece);
            }
            Held::Parts { segments, pinned } => {
                pin = Some(pinned);
                let mut at = 0_u64;
                for segment in segments {
                    let from = range.start.clamp(at, at + segment.size) - at;
                    let to = range.end.clamp(at, at + segment.size) - at;
                    at += segment.size;
                    if from < to {
                        let crc64 = (to - from == segment.size).then_some(segment.crc64);
                        pieces.push_back(Piece::file(Source::Blob(segment), from, to - from, crc64));
                    }
                }
            }
        }
        let reader = Reader { blobs: blobs.clone(), pieces, _pin: pin };
        futures::stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            let step = tokio::task::spawn_blocking(move || {
                let step = reader.step();
                (step, reader)
            })
            .await;
            match step {
                Ok((Ok(Some(bytes)), reader)) => Some((Ok(bytes), Some(reader))),
                Ok((Ok(None), _)) => None,
                Ok((Err(error), _)) => Some((Err(error), None)),
                Err(join) => Some((Err(ObjectsError::Io("reading a body".into(), std::io::Error::other(join))), None)),
            }
        })
        .boxed()
    }
}

struct Reader {
    blobs: Arc<Blobs>,
    pieces: VecDeque<Piece>,
    /// Dropped with the reader: only then may the files of its parts go.
    _pin: Option<Pinned>,
}

struct Piece {
    source: Source,
    offset: u64,
    left: u64,
    /// What the bytes must hash to, where they are read whole.
    check: Option<(Digest, u64)>,
    /// Size and modification time that a local file must still have when its last byte is read.
    unchanged: Option<(u64, i64)>,
}

enum Source {
    /// With its path, for whoever has to be told of it.
    Open(Arc<File>, PathBuf),
    /// Opened when it is its turn, so that an object of 10,000 parts does not hold 10,000 files open.
    Blob(Segment),
}

impl Piece {
    fn file(source: Source, offset: u64, left: u64, crc64: Option<u64>) -> Self {
        let check = crc64.map(|crc64| (Digest::new(CrcAlgorithm::Crc64Nvme), crc64));
        Self { source, offset, left, check, unchanged: None }
    }
}

impl Reader {
    /// The next bytes; `None` at the end. The last bytes of a body that fails its check are not handed out, so that
    /// what the client received is too short and cannot be taken for the object.
    fn step(&mut self) -> Result<Option<Bytes>, ObjectsError> {
        loop {
            let Some(piece) = self.pieces.front_mut() else { return Ok(None) };
            if piece.left == 0 {
                self.pieces.pop_front();
                continue;
            }
            let (file, path) = match &piece.source {
                Source::Open(file, path) => (file.clone(), path.clone()),
                Source::Blob(segment) => {
                    let path = self.blobs.path(&segment.blob);
                    let file = Arc::new(self.blobs.open_file(&segment.blob)?);
                    piece.source = Source::Open(file.clone(), path.clone());
                    (file, path)
                }
            };
            let want = usize::try_from(piece.left).unwrap_or(PIECE).min(PIECE);
            let mut buffer = vec![0; want];
            file.read_exact_at(&mut buffer, piece.offset).map_err(|e| match (e.kind(), &piece.unchanged) {
                (std::io::ErrorKind::UnexpectedEof, Some(_)) => ObjectsError::SourceChanged {
                    path: path.display().to_string(),
                    what: "it became shorter while it was read".into(),
                },
                (std::io::ErrorKind::UnexpectedEof, None) => {
                    ObjectsError::Damaged(format!("the body {} is too short", path.display()))
                }
                _ => ObjectsError::io(format!("reading the body {}", path.display()), e),
            })?;
            piece.offset += want as u64;
            piece.left -= want as u64;
            if let Some((digest, _)) = &mut piece.check {
                digest.update(&buffer);
            }
            if piece.left == 0 {
                if let Some((digest, expected)) = &piece.check
                    && digest.finalize() != *expected
                {
                    return Err(ObjectsError::Damaged(format!("the body {} fails its checksum", path.display())));
                }
                if let Some((size, mtime_ns)) = &piece.unchanged {
                    check_unchanged(&file, &path, *size, *mtime_ns)?;
                }
            }
            return Ok(Some(buffer.into()));
        }
    }
}

/// The modification time of a file in nanoseconds since 1970.
pub fn mtime_ns(metadata: &std::fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

fn check_unchanged(file: &File, path: &Path, size: u64, mtime: i64) -> Result<(), ObjectsError> {
    let changed = |what: String| ObjectsError::SourceChanged { path: path.display().to_string(), what };
    let metadata = file.metadata().map_err(|e| changed(e.to_string()))?;
    if metadata.len() != size {
        return Err(changed(format!("it had {size} bytes and has {}", metadata.len())));
    }
    if mtime_ns(&metadata) != mtime {
        return Err(changed("its modification time is another one".into()));
    }
    Ok(())
}
