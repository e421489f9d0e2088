//! The embedded S3: buckets and objects in a data directory, spoken to over HTTP ([`Objects::serve`]) or in process.
//!
//! Metadata is in SQLite ([`table`]), bodies are files named by random IDs ([`blobs`]) or, up to 16 KiB, inline. Keys are
//! text in a column and never become paths. What is acknowledged is durable. A reader never sees a mixture of two
//! versions. The wire is parsed and written by `s3s`; who the caller is was verified before ([`Caller`]).

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod blobs;
pub mod checksum;
mod error;
mod operations;
mod read;
mod receive;
mod serve;
pub mod table;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use longshore_store::failpoint::{self, Place};
use longshore_store::{Records, StoreError};

use crate::blobs::Blobs;
use crate::checksum::{Checksum, Expected, Kind};
pub use crate::error::ObjectsError;
use crate::operations::Grants;
pub use crate::operations::OPERATIONS;
use crate::read::Held;
pub use crate::read::ObjectStream;
use crate::receive::{Received, Receiving, Stored};
pub use crate::serve::{RequestBody, ResponseBody, Trailers, Whole};
pub use crate::table::{Attributes, Bucket, ListQuery, Page, SCHEMA, Version, WriteCondition, Written};
use crate::table::{Body, NewVersion, Segment};

/// Bytes of one upload, or of one part: 5 GiB, as S3.
pub const BODY_SIZE_MAX: u64 = 5 * 1024 * 1024 * 1024;
/// Bytes of an object of many parts: 5 TiB, as S3.
pub const OBJECT_SIZE_MAX: u64 = 5 * 1024 * 1024 * 1024 * 1024;
/// Bytes of every part but the last: 5 MiB, as S3.
pub const PART_SIZE_MIN: u64 = 5 * 1024 * 1024;
/// Bytes of a key in UTF-8, as S3.
pub const KEY_MAX: usize = 1024;
/// Files that one commit of [`Objects::import_files`] takes up: the writer is busy for some milliseconds with them.
const IMPORT_BATCH: usize = 1_000;

/// What the embedded S3 is told about its place.
#[derive(Debug, Clone)]
pub struct Settings {
    pub region: String,
    /// The 12-digit account that owns every bucket.
    pub account: String,
}

/// The embedded S3; cheap to clone.
#[derive(Clone)]
pub struct Objects {
    inner: Arc<Inner>,
    service: s3s::service::S3Service,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    records: Records,
    blobs: Arc<Blobs>,
    settings: Settings,
}

/// An object opened for reading: its bytes belong to this version, whatever is written meanwhile.
pub struct Opened {
    pub version: Version,
    /// The bytes that the stream will give.
    pub range: Range<u64>,
    pub stream: ObjectStream,
}

impl Opened {
    /// With the quotes that HTTP has around it.
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.version.etag)
    }

    /// Bytes of the whole object.
    pub fn size(&self) -> u64 {
        self.version.size
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("version", &self.version).field("range", &self.range).finish_non_exhaustive()
    }
}

/// What became of an object that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Without quotes.
    pub etag: String,
    pub size: u64,
    pub checksum: Checksum,
    /// `None` in a bucket that never had versioning.
    pub version_id: Option<String>,
}

impl Objects {
    /// Opens the embedded S3 on tables that [`SCHEMA`] has made and a directory of its own for bodies, which is created.
    /// Bodies that a crash left behind are removed: unfinished ones now, the rest in the background. Blocks shortly;
    /// call it inside a Tokio runtime.
    pub fn open(records: Records, blob_dir: PathBuf, settings: Settings) -> Result<Self, ObjectsError> {
        let blobs = Blobs::open(&blob_dir, records.fatal().clone())?;
        let inner = Arc::new(Inner { records, blobs, settings });
        let service = serve::service(inner.clone());
        let sweeping = inner.clone();
        tokio::task::spawn_blocking(move || match sweeping.sweep() {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed bodies that no object refers to"),
            Err(error) => tracing::warn!(%error, "could not look for bodies that no object refers to"),
        });
        Ok(Self { inner, service })
    }

    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Creates a bucket. `BucketAlreadyOwnedByYou` if it is there.
    pub async fn create_bucket(&self, name: &str) -> Result<(), ObjectsError> {
        self.inner.create_bucket(name).await
    }

    /// The bucket's record, or `NoSuchBucket`.
    pub async fn bucket(&self, name: &str) -> Result<Bucket, ObjectsError> {
        let name = name.to_owned();
        self.inner.records.read(move |c| table::bucket(c, &name)).await
    }

    /// The names of all buckets, in order.
    pub async fn bucket_names(&self) -> Result<Vec<String>, ObjectsError> {
        let buckets = self.inner.records.read(|c| table::buckets(c, "", "", usize::MAX)).await?;
        Ok(buckets.into_iter().map(|bucket| bucket.name).collect())
    }

    /// Opens an object, its current version by default.
    pub async fn get(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<Opened, ObjectsError> {
        let (version, held) = self.inner.open(bucket, key, version).await?;
        let range = 0..version.size;
        Ok(self.inner.opened(bucket, version, held, range))
    }

    /// Opens `range` of an object, which must lie inside of it.
    pub async fn get_range(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
        range: Range<u64>,
    ) -> Result<Opened, ObjectsError> {
        let (version, held) = self.inner.open(bucket, key, version).await?;
        if range.start > range.end || range.end > version.size {
            return Err(ObjectsError::InvalidRange { size: version.size });
        }
        Ok(self.inner.opened(bucket, version, held, range))
    }

    /// What is known of an object, its current version by default.
    pub async fn head(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<Version, ObjectsError> {
        self.inner.head(bucket, key, version).await
    }

    /// Writes an object from memory.
    pub async fn put_bytes(
        &self,
        bucket: &str,
        key: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Put, ObjectsError> {
        let stream = futures::stream::once(std::future::ready(Ok(body)));
        self.put_stream(bucket, key, content_type, stream).await
    }

    /// Writes an object from a local file, which is copied.
    pub async fn put_file(
        &self,
        bucket: &str,
        key: &str,
        content_type: Option<&str>,
        path: &Path,
    ) -> Result<Put, ObjectsError> {
        let file = tokio::fs::File::open(path)
            .await
            .map_err(|e| ObjectsError::Io(format!("opening {}", path.display()), e))?;
        let context = format!("reading {}", path.display());
        let stream = tokio_util::io::ReaderStream::with_capacity(file, 256 * 1024)
            .map(move |piece| piece.map_err(|e| ObjectsError::Io(context.clone(), e)));
        self.put_stream(bucket, key, content_type, stream).await
    }

    /// Writes an object from a stream, whole or not at all.
    pub async fn put_stream(
        &self,
        bucket: &str,
        key: &str,
        content_type: Option<&str>,
        body: impl Stream<Item = Result<Bytes, ObjectsError>>,
    ) -> Result<Put, ObjectsError> {
        let attributes = Attributes { content_type: content_type.map(str::to_owned), ..Attributes::default() };
        let upload = Incoming::default();
        self.inner.put(bucket, key, attributes, body, upload, WriteCondition::default()).await
    }

    /// Makes a local file an object without copying it: it is read through, and refused once its size or modification
    /// time is another one. Its ETag is made up from these and its path, so that it is stable but no MD5.
    pub async fn import_file(&self, bucket: &str, key: &str, path: &Path) -> Result<(), ObjectsError> {
        self.import_files(bucket, vec![(key.to_owned(), path.to_owned())]).await
    }

    /// [`Objects::import_file`] for many, a thousand in a commit. Stops at the first that fails; those of earlier commits
    /// stay.
    pub async fn import_files(&self, bucket: &str, files: Vec<(String, PathBuf)>) -> Result<(), ObjectsError> {
        let mut files = files.into_iter();
        loop {
            let batch: Vec<(String, PathBuf)> = files.by_ref().take(IMPORT_BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            for (key, _) in &batch {
                check_key(key)?;
            }
            let versions = tokio::task::spawn_blocking(move || {
                batch.into_iter().map(|(key, path)| external(key, &path)).collect::<Result<Vec<_>, _>>()
            })
            .await
            .unwrap_or_else(|e| Err(ObjectsError::Io("importing".into(), std::io::Error::other(e))))?;
            let bucket = bucket.to_owned();
            self.inner
                .write(None, move |c| {
                    let mut dropped = Vec::new();
                    for version in versions {
                        let written = table::put(c, &bucket, version, &WriteCondition::default())?;
                        dropped.extend(written.dropped);
                    }
                    Ok(Written { dropped, ..Written::default() })
                })
                .await?;
        }
    }

    /// Deletes a key, as S3's DeleteObject without a version.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<Written, ObjectsError> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.inner.write(None, move |c| table::delete(c, &bucket, &key, None, now_ms())).await
    }

    /// One page of current objects in the order of their keys.
    pub async fn list(&self, bucket: &str, query: ListQuery) -> Result<Page<Version>, ObjectsError> {
        let bucket = bucket.to_owned();
        self.inner.records.read(move |c| table::list(c, &bucket, &query)).await
    }

    /// One page of all versions and delete markers, keys ascending, the newest of a key first. `after_version`
    /// continues inside the key `query.after`. The version returned is what the next page is asked with.
    pub async fn list_versions(
        &self,
        bucket: &str,
        query: ListQuery,
        after_version: Option<String>,
    ) -> Result<(Page<Version>, Option<String>), ObjectsError> {
        let bucket = bucket.to_owned();
        self.inner.records.read(move |c| table::list_versions(c, &bucket, &query, after_version.as_deref())).await
    }
}

/// What came with a body, besides the body.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    pub expected: Expected,
    pub trailers: Option<Trailers>,
    /// Bytes that were announced.
    pub announced: Option<u64>,
    /// What its sender was allowed, which is asked again as the object is put in the place of another: the body may have come for an
    /// hour. `None`: nobody asks.
    pub grants: Option<Arc<Grants>>,
}

impl Inner {
    pub async fn create_bucket(&self, name: &str) -> Result<(), ObjectsError> {
        if !s3s::path::check_bucket_name(name) {
            return Err(ObjectsError::InvalidBucketName(name.to_owned()));
        }
        let bucket = Bucket {
            name: name.to_owned(),
            created_ms: now_ms(),
            region: self.settings.region.clone(),
            versioning: None,
        };
        self.records.write(move |c| table::create_bucket(c, &bucket)).await
    }

    pub async fn head(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<Version, ObjectsError> {
        let (bucket, key, version) = (bucket.to_owned(), key.to_owned(), version.map(str::to_owned));
        self.records.read(move |c| Ok(table::find(c, &bucket, &key, version.as_deref())?.0)).await
    }

    /// Finds a version and holds its body, in one go on a blocking thread.
    pub async fn open(&self, bucket: &str, key: &str, version: Option<&str>) -> Result<(Version, Held), ObjectsError> {
        let (bucket, key, version) = (bucket.to_owned(), key.to_owned(), version.map(str::to_owned));
        let blobs = self.blobs.clone();
        self.records
            .read(move |c| {
                let _reading = blobs.reading();
                let (version, body) = table::find(c, &bucket, &key, version.as_deref())?;
                let held = Held::hold(&blobs, body, version.size, &version.etag).map_err(|e| e.of(&bucket, &key))?;
                Ok((version, held))
            })
            .await
    }

    pub fn opened(&self, bucket: &str, version: Version, held: Held, range: Range<u64>) -> Opened {
        let stream = self.stream(bucket, &version, held, range.clone());
        Opened { version, range, stream }
    }

    /// The bytes of `range` of a version that is held. What goes wrong names the object.
    pub fn stream(&self, bucket: &str, version: &Version, held: Held, range: Range<u64>) -> ObjectStream {
        let (bucket, key) = (bucket.to_owned(), version.key.clone());
        let stream = held.stream(&self.blobs, version.size, range);
        stream.map(move |piece| piece.map_err(|e| e.of(&bucket, &key))).boxed()
    }

    /// Receives a body and checks it against everything that was said about it. Nothing is recorded yet.
    pub async fn receive(
        &self,
        body: impl Stream<Item = Result<Bytes, ObjectsError>>,
        incoming: &Incoming,
        how: Receiving,
    ) -> Result<Received, ObjectsError> {
        if let Some(announced) = incoming.announced
            && announced > how.size_max
        {
            return Err(ObjectsError::EntityTooLarge(how.size_max));
        }
        let received = receive::receive(&self.blobs, body, how).await?;
        if let Some(announced) = incoming.announced
            && announced != received.size
        {
            return Err(ObjectsError::IncompleteBody { received: received.size, announced });
        }
        incoming.expected.check(&received.digests, |name| incoming.trailers.as_ref()?.get(name))?;
        Ok(received)
    }

    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        attributes: Attributes,
        body: impl Stream<Item = Result<Bytes, ObjectsError>>,
        incoming: Incoming,
        condition: WriteCondition,
    ) -> Result<Put, ObjectsError> {
        check_key(key)?;
        if incoming.announced.is_none_or(|size| size > receive::INLINE_MAX as u64) {
            // Before the body is taken in, so that a client need not send 5 GiB to learn that its bucket is not there.
            // The write looks again.
            let name = bucket.to_owned();
            self.records.read::<_, ObjectsError>(move |c| table::bucket(c, &name)).await?;
        }
        let how = Receiving { size_max: BODY_SIZE_MAX, inline: true, algorithm: incoming.expected.algorithm() };
        let received = self.receive(body, &incoming, how).await?;
        let (algorithm, value) = received.digests.stored();
        let checksum = Checksum { algorithm, kind: Kind::FullObject, value };
        let etag = hex::encode(&received.digests.md5);
        let size = received.size;
        let (body, pending) = match received.stored {
            Stored::Inline(bytes) => (Body::Inline(bytes), None),
            Stored::Blob(pending) => {
                (Body::Blob { id: pending.id().clone(), crc64: received.digests.crc64 }, Some(pending))
            }
        };
        let new = NewVersion {
            key: key.to_owned(),
            modified_ms: now_ms(),
            etag: etag.clone(),
            size,
            attributes,
            checksum: Some(checksum.clone()),
            upload_id: None,
            body,
        };
        let bucket = bucket.to_owned();
        let write = move |c: &rusqlite::Connection| {
            if let Some(grants) = incoming.grants {
                grants.stand_in(c, &bucket, &new.key, None)?;
            }
            table::put(c, &bucket, new, &condition)
        };
        let written = self.write(pending, write).await?;
        Ok(Put { etag, size, checksum, version_id: written.version_id })
    }

    /// Commits a write, then keeps the new body and removes those that it dropped. Once begun it runs to its end even
    /// if the caller goes away: a body must not be removed while the commit that names it is under way.
    pub async fn write<W: Drops>(
        &self,
        pending: Option<blobs::Pending>,
        work: impl FnOnce(&rusqlite::Connection) -> Result<W, ObjectsError> + Send + 'static,
    ) -> Result<W, ObjectsError> {
        let (records, blobs) = (self.records.clone(), self.blobs.clone());
        let commit = tokio::spawn(async move {
            failpoint::pass(Place::ObjectCommitBefore);
            let outcome = records.write(work).await;
            failpoint::pass(Place::ObjectCommitAfter);
            match outcome {
                Ok(mut written) => {
                    if let Some(pending) = pending {
                        pending.keep();
                    }
                    blobs.discard(written.dropped());
                    Ok(written)
                }
                Err(error) => {
                    // Whether that commit happened is unknown; the sweep of the next start will know.
                    if let ObjectsError::Store(StoreError::Broken(_)) = &error
                        && let Some(pending) = pending
                    {
                        pending.keep();
                    }
                    Err(error)
                }
            }
        });
        commit.await.unwrap_or_else(|e| Err(ObjectsError::Io("committing".into(), std::io::Error::other(e))))
    }

    fn sweep(&self) -> Result<u64, ObjectsError> {
        self.blobs.sweep(|ids| self.records.read_blocking(|c| table::named(c, ids)))
    }
}

/// What a write returns: something that may have dropped bodies.
pub(crate) trait Drops: Send + 'static {
    fn dropped(&mut self) -> Vec<blobs::BlobId>;
}

impl Drops for Written {
    fn dropped(&mut self) -> Vec<blobs::BlobId> {
        std::mem::take(&mut self.dropped)
    }
}

impl Drops for Vec<blobs::BlobId> {
    fn dropped(&mut self) -> Vec<blobs::BlobId> {
        std::mem::take(self)
    }
}

impl<T: Send + 'static> Drops for (T, Vec<blobs::BlobId>) {
    fn dropped(&mut self) -> Vec<blobs::BlobId> {
        std::mem::take(&mut self.1)
    }
}

/// The ETag of an object of many parts: the MD5 of the parts' MD5s, and their number.
pub(crate) fn etag_of_parts<'p>(parts: impl Iterator<Item = &'p str>) -> Result<String, ObjectsError> {
    use md5::Digest;
    let mut digest = md5::Md5::new();
    let mut count = 0;
    for etag in parts {
        digest.update(hex::decode(etag).map_err(|_| ObjectsError::Damaged("the ETag of a part".into()))?);
        count += 1;
    }
    Ok(format!("{}-{count}", hex::encode(digest.finalize())))
}

fn external(key: String, path: &Path) -> Result<NewVersion, ObjectsError> {
    use md5::Digest;
    use std::os::unix::ffi::OsStrExt;
    let io = |e| ObjectsError::Io(format!("importing {}", path.display()), e);
    let path = path.canonicalize().map_err(io)?;
    let metadata = path.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(ObjectsError::InvalidArgument(format!("{} is not a regular file", path.display())));
    }
    let mtime_ns = read::mtime_ns(&metadata);
    let mut digest = md5::Md5::new();
    digest.update(path.as_os_str().as_bytes());
    digest.update(format!("\0{}\0{mtime_ns}", metadata.len()));
    Ok(NewVersion {
        key,
        modified_ms: mtime_ns.div_euclid(1_000_000),
        // The suffix tells clients, as for an object of many parts, that this is not the MD5 of the bytes.
        etag: format!("{}-1", hex::encode(digest.finalize())),
        size: metadata.len(),
        attributes: Attributes::default(),
        checksum: None,
        upload_id: None,
        body: Body::External { path, mtime_ns },
    })
}

pub(crate) fn check_key(key: &str) -> Result<(), ObjectsError> {
    match key.len() {
        0 => Err(ObjectsError::InvalidArgument("A key must not be empty.".into())),
        1..=KEY_MAX => Ok(()),
        _ => Err(ObjectsError::KeyTooLong),
    }
}

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Where one numbered part of an object lies.
pub(crate) fn part_range(segments: &[Segment], number: u32) -> Option<Range<u64>> {
    let mut at = 0;
    for segment in segments {
        if segment.number == number {
            return Some(at..at + segment.size);
        }
        at += segment.size;
    }
    None
}
