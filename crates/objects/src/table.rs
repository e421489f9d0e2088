//! The embedded S3's tables, and all SQL on them.
//!
//! One row in `object_version` is one version of one key, delete markers included; a bucket without versioning has one
//! version a key, with the ID `null`. Keys are text, compared byte by byte, which is S3's order (UTF-8 binary).
//!
//! Functions that drop the last mention of a body return its ID: the caller removes the file once the write is
//! committed ([`crate::blobs::Blobs::discard`]).

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use bytes::Bytes;
use longshore_store::Schema;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use serde::{Deserialize, Serialize};

use crate::blobs::BlobId;
use crate::checksum::{Algorithm, Checksum, Kind};
use crate::error::ObjectsError;

/// The version ID of what was written while the bucket had no versioning.
pub const NULL_VERSION: &str = "null";

pub const SCHEMA: Schema = Schema {
    room: "objects",
    migrations: &["
CREATE TABLE bucket (
    name        TEXT PRIMARY KEY,
    created_ms  INTEGER NOT NULL,
    region      TEXT NOT NULL,
    -- NULL: never set; else 'Enabled' or 'Suspended'
    versioning  TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE object_version (
    -- grows with every write, so that a key's versions sort by it
    seq                 INTEGER PRIMARY KEY,
    bucket              TEXT NOT NULL,
    key                 TEXT NOT NULL,
    version_id          TEXT NOT NULL,
    is_latest           INTEGER NOT NULL,
    is_delete_marker    INTEGER NOT NULL,
    modified_ms         INTEGER NOT NULL,
    -- without quotes
    etag                TEXT NOT NULL,
    size                INTEGER NOT NULL,
    -- JSON: headers, user metadata, tags, storage class
    attributes          TEXT NOT NULL,
    checksum_algorithm  TEXT,
    checksum_type       TEXT,
    checksum            TEXT,
    -- the multipart upload it came from, and how many parts it has
    upload_id           TEXT,
    part_count          INTEGER,
    -- where the body is: one of blob, object_inline, object_part, external_path
    blob                TEXT,
    crc64               INTEGER,
    external_path       BLOB,
    external_mtime_ns   INTEGER
) STRICT;
CREATE UNIQUE INDEX object_current ON object_version (bucket, key) WHERE is_latest = 1;
CREATE UNIQUE INDEX object_by_version ON object_version (bucket, key, version_id);
CREATE INDEX object_blob ON object_version (blob) WHERE blob IS NOT NULL;

-- Small bodies, apart from the rows that a listing walks over.
CREATE TABLE object_inline (seq INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;

CREATE TABLE object_part (
    seq       INTEGER NOT NULL,
    number    INTEGER NOT NULL,
    size      INTEGER NOT NULL,
    blob      TEXT NOT NULL,
    crc64     INTEGER NOT NULL,
    checksum  TEXT,
    PRIMARY KEY (seq, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX object_part_blob ON object_part (blob);

CREATE TABLE upload (
    id                  TEXT PRIMARY KEY,
    bucket              TEXT NOT NULL,
    key                 TEXT NOT NULL,
    initiated_ms        INTEGER NOT NULL,
    attributes          TEXT NOT NULL,
    checksum_algorithm  TEXT NOT NULL,
    checksum_type       TEXT NOT NULL,
    -- whether the client chose the algorithm, or we did
    checksum_chosen     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX upload_by_key ON upload (bucket, key, id);

CREATE TABLE upload_part (
    upload_id    TEXT NOT NULL,
    number       INTEGER NOT NULL,
    size         INTEGER NOT NULL,
    modified_ms  INTEGER NOT NULL,
    etag         TEXT NOT NULL,
    checksum     TEXT NOT NULL,
    blob         TEXT NOT NULL,
    crc64        INTEGER NOT NULL,
    PRIMARY KEY (upload_id, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX upload_part_blob ON upload_part (blob);
"],
};

/// What a client said about an object and gets back with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// Unix time in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<i64>,
    /// `None` is STANDARD. A label only: every class is stored alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// `x-amz-meta-…`, names in lower case.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioning {
    Enabled,
    Suspended,
}

impl Versioning {
    pub fn name(self) -> &'static str {
        match self {
            Versioning::Enabled => "Enabled",
            Versioning::Suspended => "Suspended",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub name: String,
    pub created_ms: i64,
    pub region: String,
    /// `None` until it is set for the first time.
    pub versioning: Option<Versioning>,
}

/// Where the bytes of a version are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Inline(Bytes),
    Blob {
        id: BlobId,
        crc64: u64,
    },
    Parts(Vec<Segment>),
    /// A local file that is read through. Its modification time is in nanoseconds since 1970.
    External {
        path: PathBuf,
        mtime_ns: i64,
    },
}

/// One part of a multipart object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub number: u32,
    pub size: u64,
    pub blob: BlobId,
    pub crc64: u64,
    pub checksum: Option<String>,
}

/// One version, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub seq: i64,
    pub key: String,
    pub version_id: String,
    pub is_latest: bool,
    pub is_delete_marker: bool,
    pub modified_ms: i64,
    /// Without quotes.
    pub etag: String,
    pub size: u64,
    pub attributes: Attributes,
    pub checksum: Option<Checksum>,
    pub part_count: Option<u32>,
    pub upload_id: Option<String>,
    /// Whether the bucket has ever had versioning: then answers name the version.
    pub versioned: bool,
}

/// What is to be written.
#[derive(Debug)]
pub struct NewVersion {
    pub key: String,
    pub modified_ms: i64,
    pub etag: String,
    pub size: u64,
    pub attributes: Attributes,
    pub checksum: Option<Checksum>,
    pub upload_id: Option<String>,
    pub body: Body,
}

/// What must hold for a write to happen. Decided inside the write, so that two writers cannot both find it true.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteCondition {
    /// `If-None-Match: *`
    pub must_not_exist: bool,
    /// `If-Match`: an ETag without quotes, or `*`.
    pub must_match: Option<String>,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// `None` in a bucket that never had versioning.
    pub version_id: Option<String>,
    /// Whether what was written, or removed, is a delete marker.
    pub delete_marker: bool,
    /// Bodies that nothing names any more.
    pub dropped: Vec<BlobId>,
}

impl ToSql for BlobId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.as_str()))
    }
}

impl FromSql for BlobId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        BlobId::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

fn size_column(size: u64) -> Result<i64, ObjectsError> {
    i64::try_from(size).map_err(|_| ObjectsError::EntityTooLarge(crate::OBJECT_SIZE_MAX))
}

fn damaged(what: &str) -> ObjectsError {
    ObjectsError::Damaged(format!("a column of object_version does not read: {what}"))
}

// ---------------------------------------------------------------------------------------------------------- buckets

pub fn create_bucket(c: &Connection, bucket: &Bucket) -> Result<(), ObjectsError> {
    let inserted = c
        .prepare_cached("INSERT OR IGNORE INTO bucket (name, created_ms, region) VALUES (?1, ?2, ?3)")?
        .execute(params![bucket.name, bucket.created_ms, bucket.region])?;
    if inserted == 0 { Err(ObjectsError::BucketAlreadyOwnedByYou(bucket.name.clone())) } else { Ok(()) }
}

pub fn bucket(c: &Connection, name: &str) -> Result<Bucket, ObjectsError> {
    c.prepare_cached("SELECT name, created_ms, region, versioning FROM bucket WHERE name = ?1")?
        .query_row([name], read_bucket)
        .optional()?
        .ok_or_else(|| ObjectsError::NoSuchBucket(name.to_owned()))
}

fn read_bucket(row: &Row<'_>) -> rusqlite::Result<Bucket> {
    let versioning: Option<String> = row.get(3)?;
    Ok(Bucket {
        name: row.get(0)?,
        created_ms: row.get(1)?,
        region: row.get(2)?,
        versioning: versioning.map(|v| if v == "Enabled" { Versioning::Enabled } else { Versioning::Suspended }),
    })
}

/// Buckets in order of name, after `after`, whose names start with `prefix`.
pub fn buckets(c: &Connection, prefix: &str, after: &str, max: usize) -> Result<Vec<Bucket>, ObjectsError> {
    let mut statement = c.prepare_cached(
        "SELECT name, created_ms, region, versioning FROM bucket WHERE name > ?1 AND name >= ?2 ORDER BY name",
    )?;
    let mut rows = statement.query([after, prefix])?;
    let mut buckets = Vec::new();
    while buckets.len() < max
        && let Some(row) = rows.next()?
    {
        let bucket = read_bucket(row)?;
        if !bucket.name.starts_with(prefix) {
            break;
        }
        buckets.push(bucket);
    }
    Ok(buckets)
}

pub fn set_versioning(c: &Connection, name: &str, versioning: Versioning) -> Result<(), ObjectsError> {
    match c.execute("UPDATE bucket SET versioning = ?2 WHERE name = ?1", [name, versioning.name()])? {
        0 => Err(ObjectsError::NoSuchBucket(name.to_owned())),
        _ => Ok(()),
    }
}

/// Removes an empty bucket; uploads under way go with it.
pub fn delete_bucket(c: &Connection, name: &str) -> Result<Written, ObjectsError> {
    bucket(c, name)?;
    let used: bool =
        c.query_row("SELECT EXISTS (SELECT 1 FROM object_version WHERE bucket = ?1)", [name], |r| r.get(0))?;
    if used {
        return Err(ObjectsError::BucketNotEmpty(name.to_owned()));
    }
    let uploads: Vec<String> = c
        .prepare_cached("SELECT id FROM upload WHERE bucket = ?1")?
        .query_map([name], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    let mut written = Written::default();
    for id in uploads {
        written.dropped.extend(remove_upload(c, &id)?);
    }
    c.execute("DELETE FROM bucket WHERE name = ?1", [name])?;
    Ok(written)
}

// ---------------------------------------------------------------------------------------------------------- objects

const VERSION_COLUMNS: &str = "v.seq, v.key, v.version_id, v.is_latest, v.is_delete_marker, v.modified_ms, v.etag, v.size, \
     v.attributes, v.checksum_algorithm, v.checksum_type, v.checksum, v.part_count, v.upload_id";

fn read_version(row: &Row<'_>, versioned: bool) -> Result<Version, ObjectsError> {
    let size: i64 = row.get(7)?;
    let attributes = row.get_ref(8)?.as_str().map_err(rusqlite::Error::from)?;
    let algorithm: Option<String> = row.get(9)?;
    let kind: Option<String> = row.get(10)?;
    let checksum = match (algorithm, kind, row.get(11)?) {
        (Some(algorithm), Some(kind), Some(value)) => Some(Checksum {
            algorithm: Algorithm::parse(&algorithm).ok_or_else(|| damaged("checksum_algorithm"))?,
            kind: Kind::parse(&kind).ok_or_else(|| damaged("checksum_type"))?,
            value,
        }),
        _ => None,
    };
    Ok(Version {
        seq: row.get(0)?,
        key: row.get(1)?,
        version_id: row.get(2)?,
        is_latest: row.get(3)?,
        is_delete_marker: row.get(4)?,
        modified_ms: row.get(5)?,
        etag: row.get(6)?,
        size: u64::try_from(size).map_err(|_| damaged("size"))?,
        attributes: serde_json::from_str(attributes).map_err(|_| damaged("attributes"))?,
        checksum,
        part_count: row.get(12)?,
        upload_id: row.get(13)?,
        versioned,
    })
}

/// Finds a version, the current one by default, and where its body is. A delete marker is an error.
///
/// One statement, unless the object has parts: then a read transaction, so that row and parts belong together.
pub fn find(
    c: &Connection,
    bucket_name: &str,
    key: &str,
    version: Option<&str>,
) -> Result<(Version, Body), ObjectsError> {
    let select = |condition: &str| {
        format!(
            "SELECT {VERSION_COLUMNS}, v.blob, v.crc64, v.external_path, v.external_mtime_ns, i.body, \
             (SELECT versioning FROM bucket WHERE name = v.bucket) IS NOT NULL \
             FROM object_version v LEFT JOIN object_inline i ON i.seq = v.seq \
             WHERE v.bucket = :bucket AND v.key = :key AND {condition}"
        )
    };
    let look = || -> Result<Option<(Version, Option<Body>)>, ObjectsError> {
        let read = |row: &Row<'_>| -> Result<(Version, Option<Body>), ObjectsError> {
            let version = read_version(row, row.get(19)?)?;
            let blob: Option<BlobId> = row.get(14)?;
            let external: Option<Vec<u8>> = row.get(16)?;
            let body = if version.part_count.is_some() {
                None
            } else if let Some(id) = blob {
                Some(Body::Blob { id, crc64: row.get::<_, i64>(15)?.cast_unsigned() })
            } else if let Some(path) = external {
                use std::os::unix::ffi::OsStringExt;
                Some(Body::External { path: std::ffi::OsString::from_vec(path).into(), mtime_ns: row.get(17)? })
            } else {
                Some(Body::Inline(row.get::<_, Option<Vec<u8>>>(18)?.unwrap_or_default().into()))
            };
            Ok((version, body))
        };
        match version {
            None => {
                let mut statement = c.prepare_cached(&select("v.is_latest = 1"))?;
                let mut rows = statement.query(named_params! {":bucket": bucket_name, ":key": key})?;
                rows.next()?.map(read).transpose()
            }
            Some(id) => {
                let mut statement = c.prepare_cached(&select("v.version_id = :version"))?;
                let mut rows = statement.query(named_params! {":bucket": bucket_name, ":key": key, ":version": id})?;
                rows.next()?.map(read).transpose()
            }
        }
    };
    let missing = || -> ObjectsError {
        match (bucket(c, bucket_name), version) {
            (Err(error), _) => error,
            (Ok(_), None) => ObjectsError::NoSuchKey(key.to_owned()),
            (Ok(_), Some(v)) => ObjectsError::NoSuchVersion { key: key.to_owned(), version: v.to_owned() },
        }
    };
    let (found, body) = look()?.ok_or_else(missing)?;
    if found.is_delete_marker {
        return Err(ObjectsError::DeleteMarker { key: found.key, version: found.version_id, named: version.is_some() });
    }
    match body {
        Some(body) => Ok((found, body)),
        None => {
            // Inside a write there is a transaction already.
            let _snapshot = if c.is_autocommit() { Some(c.unchecked_transaction()?) } else { None };
            match look()?.ok_or_else(missing)? {
                (found, None) => {
                    let parts = segments(c, found.seq)?;
                    Ok((found, Body::Parts(parts)))
                }
                (found, Some(body)) => Ok((found, body)),
            }
        }
    }
}

fn segments(c: &Connection, seq: i64) -> Result<Vec<Segment>, ObjectsError> {
    let segments = c
        .prepare_cached("SELECT number, size, blob, crc64, checksum FROM object_part WHERE seq = ?1 ORDER BY number")?
        .query_map([seq], |row| {
            Ok(Segment {
                number: row.get(0)?,
                size: row.get::<_, i64>(1)?.cast_unsigned(),
                blob: row.get(2)?,
                crc64: row.get::<_, i64>(3)?.cast_unsigned(),
                checksum: row.get(4)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(segments)
}

/// The current version's sequence number, ETag and modification time; `None` if there is none or it is a delete marker.
fn current(c: &Connection, bucket: &str, key: &str) -> Result<Option<String>, ObjectsError> {
    let found: Option<(String, bool)> = c
        .prepare_cached(
            "SELECT etag, is_delete_marker FROM object_version WHERE bucket = ?1 AND key = ?2 AND is_latest = 1",
        )?
        .query_row([bucket, key], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    Ok(found.filter(|(_, marker)| !marker).map(|(etag, _)| etag))
}

fn check(c: &Connection, bucket: &str, key: &str, condition: &WriteCondition) -> Result<(), ObjectsError> {
    if !condition.must_not_exist && condition.must_match.is_none() {
        return Ok(());
    }
    let current = current(c, bucket, key)?;
    if condition.must_not_exist && current.is_some() {
        return Err(ObjectsError::PreconditionFailed("If-None-Match"));
    }
    match (&condition.must_match, current) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(ObjectsError::NoSuchKey(key.to_owned())),
        (Some(wanted), Some(etag)) if wanted == "*" || *wanted == etag => Ok(()),
        (Some(_), Some(_)) => Err(ObjectsError::PreconditionFailed("If-Match")),
    }
}

fn new_version_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Writes a version and makes it the current one. Without versioning it takes the place of the one before.
pub fn put(
    c: &Connection,
    bucket_name: &str,
    new: NewVersion,
    condition: &WriteCondition,
) -> Result<Written, ObjectsError> {
    let bucket = bucket(c, bucket_name)?;
    check(c, bucket_name, &new.key, condition)?;
    insert(c, &bucket, new, false)
}

fn insert(c: &Connection, bucket: &Bucket, new: NewVersion, marker: bool) -> Result<Written, ObjectsError> {
    let mut written = Written { delete_marker: marker, ..Written::default() };
    let version_id = match bucket.versioning {
        Some(Versioning::Enabled) => new_version_id(),
        Some(Versioning::Suspended) | None => NULL_VERSION.to_owned(),
    };
    let mut candidates = Vec::new();
    if version_id == NULL_VERSION
        && let Some(seq) = seq_of(c, &bucket.name, &new.key, NULL_VERSION)?
    {
        candidates = remove_row(c, seq)?;
    }
    c.prepare_cached("UPDATE object_version SET is_latest = 0 WHERE bucket = ?1 AND key = ?2 AND is_latest = 1")?
        .execute([&bucket.name, &new.key])?;
    let (blob, crc64) = match &new.body {
        Body::Blob { id, crc64 } => (Some(id), Some(crc64.cast_signed())),
        _ => (None, None),
    };
    let (external_path, external_mtime_ns) = match &new.body {
        Body::External { path, mtime_ns } => {
            use std::os::unix::ffi::OsStrExt;
            (Some(path.as_os_str().as_bytes()), Some(mtime_ns))
        }
        _ => (None, None),
    };
    let part_count = match &new.body {
        Body::Parts(parts) => Some(parts.len() as i64),
        _ => None,
    };
    let attributes = serde_json::to_string(&new.attributes)
        .map_err(|e| ObjectsError::InvalidArgument(format!("the attributes cannot be stored: {e}")))?;
    c.prepare_cached(
        "INSERT INTO object_version (bucket, key, version_id, is_latest, is_delete_marker, modified_ms, etag, size, \
         attributes, checksum_algorithm, checksum_type, checksum, upload_id, part_count, blob, crc64, external_path, \
         external_mtime_ns) VALUES (:bucket, :key, :version_id, 1, :marker, :modified_ms, :etag, :size, :attributes, \
         :checksum_algorithm, :checksum_type, :checksum, :upload_id, :part_count, :blob, :crc64, :external_path, \
         :external_mtime_ns)",
    )?
    .execute(named_params! {
        ":bucket": bucket.name,
        ":key": new.key,
        ":version_id": version_id,
        ":marker": marker,
        ":modified_ms": new.modified_ms,
        ":etag": new.etag,
        ":size": size_column(new.size)?,
        ":attributes": attributes,
        ":checksum_algorithm": new.checksum.as_ref().map(|s| s.algorithm.name()),
        ":checksum_type": new.checksum.as_ref().map(|s| s.kind.name()),
        ":checksum": new.checksum.as_ref().map(|s| s.value.as_str()),
        ":upload_id": new.upload_id,
        ":part_count": part_count,
        ":blob": blob,
        ":crc64": crc64,
        ":external_path": external_path,
        ":external_mtime_ns": external_mtime_ns,
    })?;
    let seq = c.last_insert_rowid();
    match &new.body {
        Body::Inline(body) if !body.is_empty() => {
            c.prepare_cached("INSERT INTO object_inline (seq, body) VALUES (?1, ?2)")?
                .execute(params![seq, &body[..]])?;
        }
        Body::Parts(parts) => {
            let mut statement = c.prepare_cached(
                "INSERT INTO object_part (seq, number, size, blob, crc64, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for part in parts {
                let size = size_column(part.size)?;
                statement.execute(params![
                    seq,
                    part.number,
                    size,
                    part.blob,
                    part.crc64.cast_signed(),
                    part.checksum
                ])?;
            }
        }
        _ => {}
    }
    if bucket.versioning.is_some() {
        written.version_id = Some(version_id);
    }
    written.dropped = unnamed(c, candidates)?;
    Ok(written)
}

fn seq_of(c: &Connection, bucket: &str, key: &str, version: &str) -> Result<Option<i64>, ObjectsError> {
    Ok(c.prepare_cached("SELECT seq FROM object_version WHERE bucket = ?1 AND key = ?2 AND version_id = ?3")?
        .query_row([bucket, key, version], |r| r.get(0))
        .optional()?)
}

/// Removes one row with everything that hangs on it; returns the bodies it named.
fn remove_row(c: &Connection, seq: i64) -> Result<Vec<BlobId>, ObjectsError> {
    let mut bodies: Vec<BlobId> = c
        .prepare_cached("SELECT blob FROM object_part WHERE seq = ?1")?
        .query_map([seq], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    let own: Option<BlobId> = c
        .prepare_cached("DELETE FROM object_version WHERE seq = ?1 RETURNING blob")?
        .query_row([seq], |r| r.get(0))
        .optional()?
        .flatten();
    if !bodies.is_empty() {
        c.prepare_cached("DELETE FROM object_part WHERE seq = ?1")?.execute([seq])?;
    }
    c.prepare_cached("DELETE FROM object_inline WHERE seq = ?1")?.execute([seq])?;
    bodies.extend(own);
    Ok(bodies)
}

/// Those of the bodies that no row names: copies share theirs.
fn unnamed(c: &Connection, mut ids: Vec<BlobId>) -> Result<Vec<BlobId>, ObjectsError> {
    ids.sort();
    ids.dedup();
    let named = named(c, &ids)?;
    ids.retain(|id| !named.contains(id));
    Ok(ids)
}

/// Those of the bodies that some row names.
pub fn named(c: &Connection, ids: &[BlobId]) -> Result<HashSet<BlobId>, ObjectsError> {
    let mut found = HashSet::new();
    if ids.is_empty() {
        return Ok(found);
    }
    let mut statement = c.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM object_version WHERE blob = ?1) \
         OR EXISTS (SELECT 1 FROM object_part WHERE blob = ?1) \
         OR EXISTS (SELECT 1 FROM upload_part WHERE blob = ?1)",
    )?;
    for id in ids {
        if statement.query_row([id], |r| r.get::<_, bool>(0))? {
            found.insert(id.clone());
        }
    }
    Ok(found)
}

/// Deletes a key: without versioning its one version; with versioning it puts a delete marker on top. Deleting what
/// is not there succeeds, as in S3. `if_match` is an ETag without quotes, or `*`.
pub fn delete(
    c: &Connection,
    bucket_name: &str,
    key: &str,
    if_match: Option<&str>,
    now_ms: i64,
) -> Result<Written, ObjectsError> {
    let bucket = bucket(c, bucket_name)?;
    if let Some(wanted) = if_match
        && let Some(etag) = current(c, bucket_name, key)?
        && wanted != "*"
        && wanted != etag
    {
        return Err(ObjectsError::PreconditionFailed("If-Match"));
    }
    if bucket.versioning.is_none() {
        let Some(seq) = seq_of(c, bucket_name, key, NULL_VERSION)? else { return Ok(Written::default()) };
        let bodies = remove_row(c, seq)?;
        return Ok(Written { dropped: unnamed(c, bodies)?, ..Written::default() });
    }
    let marker = NewVersion {
        key: key.to_owned(),
        modified_ms: now_ms,
        etag: String::new(),
        size: 0,
        attributes: Attributes::default(),
        checksum: None,
        upload_id: None,
        body: Body::Inline(Bytes::new()),
    };
    insert(c, &bucket, marker, true)
}

/// Removes one version for good. If it was the current one, the one before it becomes current.
pub fn delete_version(c: &Connection, bucket_name: &str, key: &str, version: &str) -> Result<Written, ObjectsError> {
    let bucket = bucket(c, bucket_name)?;
    let found: Option<(i64, bool, bool)> = c
        .prepare_cached(
            "SELECT seq, is_latest, is_delete_marker FROM object_version \
             WHERE bucket = ?1 AND key = ?2 AND version_id = ?3",
        )?
        .query_row([bucket_name, key, version], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .optional()?;
    let version_id = bucket.versioning.map(|_| version.to_owned());
    let Some((seq, was_latest, delete_marker)) = found else {
        return Ok(Written { version_id, ..Written::default() });
    };
    let bodies = remove_row(c, seq)?;
    if was_latest {
        c.execute(
            "UPDATE object_version SET is_latest = 1 WHERE seq = \
             (SELECT max(seq) FROM object_version WHERE bucket = ?1 AND key = ?2)",
            [bucket_name, key],
        )?;
    }
    Ok(Written { version_id, delete_marker, dropped: unnamed(c, bodies)? })
}

/// Changes the tags of a version, the current one by default; returns that version.
pub fn set_tags(
    c: &Connection,
    bucket: &str,
    key: &str,
    version: Option<&str>,
    tags: Vec<(String, String)>,
) -> Result<Version, ObjectsError> {
    let (mut found, _) = find(c, bucket, key, version)?;
    found.attributes.tags = tags;
    let attributes = serde_json::to_string(&found.attributes)
        .map_err(|e| ObjectsError::InvalidArgument(format!("the tags cannot be stored: {e}")))?;
    c.execute("UPDATE object_version SET attributes = ?2 WHERE seq = ?1", params![found.seq, attributes])?;
    Ok(found)
}

// ---------------------------------------------------------------------------------------------------------- listing

/// What is listed, and from where.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    pub prefix: String,
    /// Keys that have it after the prefix are rolled up into one common prefix.
    pub delimiter: Option<String>,
    /// Entries (keys and common prefixes) up to and including this one are left out.
    pub after: Option<String>,
    pub max: usize,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub common_prefixes: Vec<String>,
    /// The last entry of a page that is not the last.
    pub next_after: Option<String>,
}

/// Lists current versions in the order of their keys' bytes.
pub fn list(c: &Connection, bucket_name: &str, query: &ListQuery) -> Result<Page<Version>, ObjectsError> {
    let _snapshot = if c.is_autocommit() { Some(c.unchecked_transaction()?) } else { None };
    let versioned = bucket(c, bucket_name)?.versioning.is_some();
    let sql = |comparison: &str| {
        format!(
            "SELECT {VERSION_COLUMNS} FROM object_version v \
             WHERE v.bucket = ?1 AND v.key {comparison} ?2 AND v.is_latest = 1 ORDER BY v.key"
        )
    };
    walk(query, |seek, visit| {
        let mut statement = c.prepare_cached(&sql(seek.comparison()))?;
        let mut rows = statement.query([bucket_name, seek.key()])?;
        while let Some(row) = rows.next()? {
            // Delete markers are current versions, but not objects.
            if row.get::<_, bool>(4)? {
                continue;
            }
            let key = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
            if !visit(key, &mut || read_version(row, versioned)) {
                return Ok(());
            }
        }
        Ok(())
    })
}

/// Lists uploads under way in the order of their keys, then of their IDs. `after_upload` is the last ID seen of the
/// key `query.after`; without it that whole key is left out.
pub fn list_uploads(
    c: &Connection,
    bucket_name: &str,
    query: &ListQuery,
    after_upload: Option<&str>,
) -> Result<(Page<Upload>, Option<String>), ObjectsError> {
    let _snapshot = if c.is_autocommit() { Some(c.unchecked_transaction()?) } else { None };
    bucket(c, bucket_name)?;
    let mut page = Page { items: Vec::new(), common_prefixes: Vec::new(), next_after: None };
    let mut last: Option<(String, String)> = None;
    let mut statement = c.prepare_cached(&format!(
        "SELECT {UPLOAD_COLUMNS} FROM upload WHERE bucket = ?1 AND key >= ?2 ORDER BY key, id"
    ))?;
    let mut rows = statement.query([bucket_name, query.prefix.as_str()])?;
    while let Some(row) = rows.next()? {
        let upload = read_upload(row)?;
        if !upload.key.starts_with(&query.prefix) {
            break;
        }
        let (entry, rolled_up) = entry_of(&upload.key, query);
        if let Some(after) = &query.after {
            let seen = match after_upload {
                Some(id) if *after == upload.key && !rolled_up => upload.id.as_str() <= id,
                _ => entry <= after.as_str(),
            };
            if seen {
                continue;
            }
        }
        if rolled_up && page.common_prefixes.last().is_some_and(|p| p == entry) {
            continue;
        }
        if page.items.len() + page.common_prefixes.len() == query.max {
            page.next_after = last.as_ref().map(|(key, _)| key.clone());
            break;
        }
        last = Some((entry.to_owned(), upload.id.clone()));
        if rolled_up {
            page.common_prefixes.push(entry.to_owned());
        } else {
            page.items.push(upload);
        }
    }
    let next_upload = if page.next_after.is_some() { last.map(|(_, id)| id) } else { None };
    Ok((page, next_upload))
}

/// Lists every version and delete marker: keys ascending, of one key the newest first. `after_version` continues
/// inside the key `query.after`.
pub fn list_versions(
    c: &Connection,
    bucket_name: &str,
    query: &ListQuery,
    after_version: Option<&str>,
) -> Result<(Page<Version>, Option<String>), ObjectsError> {
    let _snapshot = if c.is_autocommit() { Some(c.unchecked_transaction()?) } else { None };
    let versioned = bucket(c, bucket_name)?.versioning.is_some();
    let after_seq = match (&query.after, after_version) {
        (Some(key), Some(version)) => Some(seq_of(c, bucket_name, key, version)?.unwrap_or(0)),
        _ => None,
    };
    let mut page = Page { items: Vec::new(), common_prefixes: Vec::new(), next_after: None };
    let mut last: Option<(String, Option<String>)> = None;
    let mut seek =
        Seek::From(query.after.clone().filter(|a| *a > query.prefix).unwrap_or_else(|| query.prefix.clone()));
    // Sorting a key's few versions is cheaper than an index for it on every write.
    let sql = format!(
        "SELECT {VERSION_COLUMNS} FROM object_version v INDEXED BY object_by_version \
         WHERE v.bucket = ?1 AND v.key >= ?2 ORDER BY v.key, v.seq DESC"
    );
    'seek: loop {
        let mut statement = c.prepare_cached(&sql)?;
        let mut rows = statement.query([bucket_name, seek.key()])?;
        while let Some(row) = rows.next()? {
            let key = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
            if !key.starts_with(&query.prefix) {
                break 'seek;
            }
            let (entry, rolled_up) = entry_of(key, query);
            if let Some(after) = &query.after {
                let seen = match after_seq {
                    Some(seq) if after == key && !rolled_up => row.get::<_, i64>(0)? >= seq,
                    _ => entry <= after.as_str(),
                };
                if seen {
                    continue;
                }
            }
            if page.items.len() + page.common_prefixes.len() == query.max {
                page.next_after = last.as_ref().map(|(key, _)| key.clone());
                break 'seek;
            }
            if rolled_up {
                page.common_prefixes.push(entry.to_owned());
                last = Some((entry.to_owned(), None));
                match successor(entry) {
                    Some(next) => seek = Seek::From(next),
                    None => break 'seek,
                }
                continue 'seek;
            }
            let version = read_version(row, versioned)?;
            last = Some((version.key.clone(), Some(version.version_id.clone())));
            page.items.push(version);
        }
        break;
    }
    let next_version = if page.next_after.is_some() { last.and_then(|(_, id)| id) } else { None };
    Ok((page, next_version))
}

/// Where a scan of keys begins.
enum Seek {
    From(String),
    After(String),
}

impl Seek {
    fn comparison(&self) -> &'static str {
        match self {
            Seek::From(_) => ">=",
            Seek::After(_) => ">",
        }
    }

    fn key(&self) -> &str {
        match self {
            Seek::From(key) | Seek::After(key) => key,
        }
    }
}

/// The entry a key shows up as: itself, or the common prefix it is rolled up into.
fn entry_of<'k>(key: &'k str, query: &ListQuery) -> (&'k str, bool) {
    let delimiter = query.delimiter.as_deref().filter(|d| !d.is_empty());
    match delimiter.and_then(|d| key[query.prefix.len()..].find(d).map(|at| query.prefix.len() + at + d.len())) {
        Some(end) => (&key[..end], true),
        None => (key, false),
    }
}

type Visit<'v, T> = dyn FnMut(&str, &mut dyn FnMut() -> Result<T, ObjectsError>) -> bool + 'v;

/// Walks over keys, jumping over each common prefix, until the page is full. `scan` calls its visitor with the keys
/// from `Seek` on, in order, until the visitor says no.
fn walk<T>(
    query: &ListQuery,
    mut scan: impl FnMut(&Seek, &mut Visit<'_, T>) -> Result<(), ObjectsError>,
) -> Result<Page<T>, ObjectsError> {
    let mut page = Page { items: Vec::new(), common_prefixes: Vec::new(), next_after: None };
    let mut last: Option<String> = None;
    let mut seek = match &query.after {
        Some(after) if *after >= query.prefix => Seek::After(after.clone()),
        _ => Seek::From(query.prefix.clone()),
    };
    if query.max == 0 {
        return Ok(page);
    }
    loop {
        let mut jump = None;
        let mut failed = None;
        scan(&seek, &mut |key, read| {
            if !key.starts_with(&query.prefix) {
                return false;
            }
            let (entry, rolled_up) = entry_of(key, query);
            let seen = query.after.as_deref().is_some_and(|after| entry <= after);
            if !seen {
                if page.items.len() + page.common_prefixes.len() == query.max {
                    page.next_after = last.clone();
                    return false;
                }
                last = Some(entry.to_owned());
                if rolled_up {
                    page.common_prefixes.push(entry.to_owned());
                } else {
                    match read() {
                        Ok(item) => page.items.push(item),
                        Err(error) => {
                            failed = Some(error);
                            return false;
                        }
                    }
                }
            }
            if rolled_up {
                jump = successor(entry);
                return false;
            }
            true
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        match jump {
            Some(next) => seek = Seek::From(next),
            None => return Ok(page),
        }
    }
}

/// The smallest text greater than every text that starts with `prefix`; `None` if there is none.
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(c) = text.pop() {
        let next = match c {
            '\u{D7FF}' => Some('\u{E000}'),
            c => char::from_u32(c as u32 + 1),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

// ---------------------------------------------------------------------------------------------------------- uploads

/// A multipart upload under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    pub id: String,
    pub bucket: String,
    pub key: String,
    pub initiated_ms: i64,
    pub attributes: Attributes,
    pub algorithm: Algorithm,
    pub kind: Kind,
    /// Whether the client asked for that algorithm; answers name it only then.
    pub chosen: bool,
}

/// One part of an upload under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPart {
    pub number: u32,
    pub size: u64,
    pub modified_ms: i64,
    /// The MD5 in hexadecimal.
    pub etag: String,
    /// Of the upload's algorithm, in base64.
    pub checksum: String,
    pub blob: BlobId,
    pub crc64: u64,
}

const UPLOAD_COLUMNS: &str =
    "id, bucket, key, initiated_ms, attributes, checksum_algorithm, checksum_type, checksum_chosen";

fn read_upload(row: &Row<'_>) -> Result<Upload, ObjectsError> {
    let attributes = row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?;
    let algorithm: String = row.get(5)?;
    let kind: String = row.get(6)?;
    Ok(Upload {
        id: row.get(0)?,
        bucket: row.get(1)?,
        key: row.get(2)?,
        initiated_ms: row.get(3)?,
        attributes: serde_json::from_str(attributes).map_err(|_| damaged("attributes of an upload"))?,
        algorithm: Algorithm::parse(&algorithm).ok_or_else(|| damaged("checksum_algorithm of an upload"))?,
        kind: Kind::parse(&kind).ok_or_else(|| damaged("checksum_type of an upload"))?,
        chosen: row.get(7)?,
    })
}

pub fn create_upload(c: &Connection, upload: &Upload) -> Result<(), ObjectsError> {
    bucket(c, &upload.bucket)?;
    let attributes = serde_json::to_string(&upload.attributes)
        .map_err(|e| ObjectsError::InvalidArgument(format!("the attributes cannot be stored: {e}")))?;
    c.execute(
        "INSERT INTO upload (id, bucket, key, initiated_ms, attributes, checksum_algorithm, checksum_type, \
         checksum_chosen) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            upload.id,
            upload.bucket,
            upload.key,
            upload.initiated_ms,
            attributes,
            upload.algorithm.name(),
            upload.kind.name(),
            upload.chosen
        ],
    )?;
    Ok(())
}

pub fn upload(c: &Connection, bucket_name: &str, key: &str, id: &str) -> Result<Upload, ObjectsError> {
    let mut statement = c.prepare_cached(&format!("SELECT {UPLOAD_COLUMNS} FROM upload WHERE id = ?1"))?;
    let mut rows = statement.query([id])?;
    let found = rows.next()?.map(read_upload).transpose()?;
    // An ID is good for its own key only.
    match found {
        Some(upload) if upload.bucket == bucket_name && upload.key == key => Ok(upload),
        _ => {
            bucket(c, bucket_name)?;
            Err(ObjectsError::NoSuchUpload(id.to_owned()))
        }
    }
}

/// Stores a part, in place of an earlier one of that number; returns bodies that nothing names any more.
pub fn put_part(
    c: &Connection,
    bucket: &str,
    key: &str,
    id: &str,
    part: &UploadPart,
) -> Result<Vec<BlobId>, ObjectsError> {
    upload(c, bucket, key, id)?;
    let before: Option<BlobId> = c
        .prepare_cached("DELETE FROM upload_part WHERE upload_id = ?1 AND number = ?2 RETURNING blob")?
        .query_row(params![id, part.number], |r| r.get(0))
        .optional()?;
    c.prepare_cached(
        "INSERT INTO upload_part (upload_id, number, size, modified_ms, etag, checksum, blob, crc64) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        id,
        part.number,
        size_column(part.size)?,
        part.modified_ms,
        part.etag,
        part.checksum,
        part.blob,
        part.crc64.cast_signed()
    ])?;
    unnamed(c, before.into_iter().collect())
}

/// Parts with numbers above `after`, in order, at most `max`.
pub fn parts(c: &Connection, id: &str, after: u32, max: usize) -> Result<Vec<UploadPart>, ObjectsError> {
    let parts = c
        .prepare_cached(
            "SELECT number, size, modified_ms, etag, checksum, blob, crc64 FROM upload_part \
             WHERE upload_id = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
        )?
        .query_map(params![id, after, i64::try_from(max).unwrap_or(i64::MAX)], |row| {
            Ok(UploadPart {
                number: row.get(0)?,
                size: row.get::<_, i64>(1)?.cast_unsigned(),
                modified_ms: row.get(2)?,
                etag: row.get(3)?,
                checksum: row.get(4)?,
                blob: row.get(5)?,
                crc64: row.get::<_, i64>(6)?.cast_unsigned(),
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(parts)
}

/// Removes an upload and its parts; returns bodies that nothing names any more.
pub fn remove_upload(c: &Connection, id: &str) -> Result<Vec<BlobId>, ObjectsError> {
    let bodies = c
        .prepare_cached("DELETE FROM upload_part WHERE upload_id = ?1 RETURNING blob")?
        .query_map([id], |r| r.get(0))?
        .collect::<Result<Vec<_>, _>>()?;
    c.execute("DELETE FROM upload WHERE id = ?1", [id])?;
    unnamed(c, bodies)
}

/// The version that an upload became, if it is completed and the version is still there.
pub fn completed(c: &Connection, bucket_name: &str, key: &str, id: &str) -> Result<Option<Version>, ObjectsError> {
    let versioned = bucket(c, bucket_name)?.versioning.is_some();
    let mut statement = c.prepare_cached(&format!(
        "SELECT {VERSION_COLUMNS} FROM object_version v WHERE v.bucket = ?1 AND v.key = ?2 AND v.upload_id = ?3"
    ))?;
    let mut rows = statement.query([bucket_name, key, id])?;
    rows.next()?.map(|row| read_version(row, versioned)).transpose()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn database() -> Connection {
        let c = Connection::open_in_memory().unwrap();
        for migration in SCHEMA.migrations {
            c.execute_batch(migration).unwrap();
        }
        create_bucket(&c, &Bucket { name: "b".into(), created_ms: 0, region: "r".into(), versioning: None }).unwrap();
        c
    }

    fn new(key: &str, body: Body) -> NewVersion {
        NewVersion {
            key: key.to_owned(),
            modified_ms: 1,
            etag: "e".into(),
            size: 0,
            attributes: Attributes::default(),
            checksum: None,
            upload_id: None,
            body,
        }
    }

    fn write(c: &Connection, key: &str) -> Written {
        put(c, "b", new(key, Body::Inline(Bytes::new())), &WriteCondition::default()).unwrap()
    }

    /// What S3's documentation says a listing is, word for word and slowly.
    fn naive(keys: &BTreeSet<String>, query: &ListQuery) -> Vec<String> {
        let mut entries = BTreeSet::new();
        for key in keys.iter().filter(|k| k.starts_with(&query.prefix)) {
            let rest = &key[query.prefix.len()..];
            let entry = match query.delimiter.as_deref().and_then(|d| rest.find(d).map(|at| at + d.len())) {
                Some(end) => format!("{}{}", query.prefix, &rest[..end]),
                None => key.clone(),
            };
            entries.insert(entry);
        }
        entries.into_iter().filter(|e| query.after.as_ref().is_none_or(|after| e > after)).collect()
    }

    /// Keys that collide: few letters, delimiters, and the ends of Unicode's ranges.
    fn key() -> impl Strategy<Value = String> {
        let letters = prop::sample::select(vec!["a", "b", "/", "//", "0", "\u{D7FF}", "\u{E000}", "\u{10FFFF}", "é"]);
        prop::collection::vec(letters, 1..6).prop_map(|letters| letters.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn a_listing_is_that_of_a_naive_model_page_by_page(
            keys in prop::collection::btree_set(key(), 0..40),
            deleted in prop::collection::vec(key(), 0..10),
            prefix in prop_oneof![Just(String::new()), key()],
            delimiter in prop::option::of(prop::sample::select(vec!["/", "a", "//", "\u{10FFFF}"])),
            after in prop::option::of(key()),
            max in 1_usize..6,
            versioned in any::<bool>(),
        ) {
            let c = database();
            if versioned {
                set_versioning(&c, "b", Versioning::Enabled).unwrap();
            }
            for key in &keys {
                write(&c, key);
            }
            let mut left = keys.clone();
            for key in &deleted {
                delete(&c, "b", key, None, 2).unwrap();
                left.remove(key);
            }
            let mut query = ListQuery { prefix, delimiter: delimiter.map(str::to_owned), after, max };
            let expected = naive(&left, &query);
            let versions_query = ListQuery { max: 1_000, ..query.clone() };
            let mut listed = Vec::new();
            loop {
                let page = list(&c, "b", &query).unwrap();
                let mut entries: Vec<String> = page.items.iter().map(|v| v.key.clone()).collect();
                entries.extend(page.common_prefixes);
                entries.sort();
                prop_assert!(entries.len() <= max);
                listed.extend(entries);
                match page.next_after {
                    Some(next) => query.after = Some(next),
                    None => break,
                }
            }
            prop_assert_eq!(&listed, &expected);
            // Without delete markers, the versions are the objects.
            if !versioned {
                let (page, _) = list_versions(&c, "b", &versions_query, None).unwrap();
                let mut entries: Vec<String> = page.items.iter().map(|v| v.key.clone()).collect();
                entries.extend(page.common_prefixes);
                entries.sort();
                prop_assert_eq!(&entries, &expected);
            }
        }
    }

    #[test]
    fn the_successor_of_a_prefix_is_above_all_that_starts_with_it_and_valid() {
        assert_eq!(successor("a/").as_deref(), Some("a0"));
        assert_eq!(successor("a\u{D7FF}").as_deref(), Some("a\u{E000}"));
        assert_eq!(successor("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(successor("\u{10FFFF}"), None);
    }

    #[test]
    fn a_body_that_two_versions_share_is_dropped_with_the_last() {
        let c = database();
        let id = BlobId::parse(&"ab".repeat(16)).unwrap();
        let body = Body::Blob { id: id.clone(), crc64: u64::MAX };
        put(&c, "b", new("one", body.clone()), &WriteCondition::default()).unwrap();
        put(&c, "b", new("two", body.clone()), &WriteCondition::default()).unwrap();
        assert_eq!(find(&c, "b", "two", None).unwrap().1, body);
        assert_eq!(delete(&c, "b", "one", None, 0).unwrap().dropped, []);
        assert_eq!(write(&c, "two").dropped, [id]);
    }

    #[test]
    fn suspending_keeps_old_versions_and_replaces_the_null_version() {
        let c = database();
        set_versioning(&c, "b", Versioning::Enabled).unwrap();
        let kept = write(&c, "k").version_id.unwrap();
        set_versioning(&c, "b", Versioning::Suspended).unwrap();
        assert_eq!(write(&c, "k").version_id.as_deref(), Some("null"));
        assert_eq!(write(&c, "k").version_id.as_deref(), Some("null"));
        let gone = delete(&c, "b", "k", None, 5).unwrap();
        assert_eq!((gone.version_id.as_deref(), gone.delete_marker), (Some("null"), true));
        let query = ListQuery { max: 10, ..ListQuery::default() };
        let (page, _) = list_versions(&c, "b", &query, None).unwrap();
        let ids: Vec<_> = page.items.iter().map(|v| (v.version_id.as_str(), v.is_latest)).collect();
        assert_eq!(ids, [("null", true), (&kept, false)]);
        delete_version(&c, "b", "k", "null").unwrap();
        assert_eq!(find(&c, "b", "k", None).unwrap().0.version_id, kept);
    }

    #[test]
    fn uploads_are_listed_by_key_and_id_page_by_page() {
        let c = database();
        let mut all = Vec::new();
        for key in ["a", "a", "b/1", "b/2", "c"] {
            let upload = Upload {
                id: uuid::Uuid::new_v4().simple().to_string(),
                bucket: "b".into(),
                key: key.into(),
                initiated_ms: 0,
                attributes: Attributes::default(),
                algorithm: Algorithm::Crc64Nvme,
                kind: Kind::FullObject,
                chosen: false,
            };
            create_upload(&c, &upload).unwrap();
            all.push((upload.key, upload.id));
        }
        all.sort();
        let mut query = ListQuery { max: 1, ..ListQuery::default() };
        let mut after_upload: Option<String> = None;
        let mut listed = Vec::new();
        loop {
            let (page, next_upload) = list_uploads(&c, "b", &query, after_upload.as_deref()).unwrap();
            listed.extend(page.items.into_iter().map(|u| (u.key, u.id)));
            let Some(next) = page.next_after else { break };
            query.after = Some(next);
            after_upload = next_upload;
        }
        assert_eq!(listed, all);
        let query = ListQuery { delimiter: Some("/".into()), max: 10, ..ListQuery::default() };
        let (page, _) = list_uploads(&c, "b", &query, None).unwrap();
        assert_eq!((page.items.len(), page.common_prefixes), (3, vec!["b/".to_owned()]));
    }
}
