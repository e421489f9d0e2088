//! The engine's doors to the world: where objects are, where functions are called, and where events go. Each may be ours
//! (embedded) or somebody else's. Besides them its reader of tables by column, a guest too heavy to live here. They are wired
//! in `server`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use longshore_core::histogram::Histogram;
use longshore_core::invocation::Reply;
use longshore_core::start::Start;
use longshore_wire::event::JobEvent;

/// Where manifests are read from and reports are written to.
#[async_trait::async_trait]
pub trait Objects: Send + Sync + 'static {
    /// Opens one object for reading. The body is streamed and belongs to the ETag that is returned with it: a store
    /// must never mix two versions of an object in one body.
    async fn get(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<ObjectBody, ObjectError>;

    /// Writes one object, whole or not at all. Safe to repeat. Returns its ETag, as the store gives it. An encryption
    /// that is asked for and that the store does not confirm is an error.
    async fn put(&self, bucket: &str, key: &str, terms: PutTerms<'_>, body: PutBody) -> Result<String, ObjectError>;

    /// With which encryption completion reports are put into the bucket: a setting of its store.
    fn report_encryption(&self, _bucket: &str) -> Encryption {
        Encryption::Unasked
    }

    /// One page of a bucket's objects in the store's order: current ones, or every version with its delete markers.
    async fn list(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError>;

    /// What a listing does not say of one object.
    async fn facts(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<ObjectFacts, ObjectError>;

    /// The tags that an object has now, for policies that ask for them; none where there is no such object. `None`: nobody here knows
    /// them, for its store is not asked.
    async fn tags(&self, _bucket: &str, _key: &str, _version_id: Option<&str>) -> Result<Option<Tags>, ObjectError> {
        Ok(None)
    }

    /// Whether the bucket belongs to `account`, 12 digits: `AccessDenied` if not, as S3 answers to
    /// `x-amz-expected-bucket-owner`. A store that knows no accounts agrees.
    async fn check_owner(&self, bucket: &str, account: &str) -> Result<(), ObjectError>;
}

/// The tags of an object: names and values.
pub type Tags = Vec<(String, String)>;

/// What is to be listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Keys that start with it; empty for all.
    pub prefix: String,
    /// Every version and delete marker, not only what is current.
    pub versions: bool,
    /// [`ListPage::next`] of the page before; `None` for the first.
    pub after: Option<String>,
}

/// One page of a listing: at most 1,000 entries, possibly none although more follow.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    pub objects: Vec<Listed>,
    /// What the next page is asked with; opaque, the store's own. `None` at the end.
    pub next: Option<String>,
}

/// One object, or one version of it, in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Decoded, as the object is named.
    pub key: String,
    /// Only where versions were asked for; `null` is a version too.
    pub version_id: Option<String>,
    pub is_latest: bool,
    pub is_delete_marker: bool,
    /// Bytes; 0 for a delete marker.
    pub size: u64,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
    /// `STANDARD` where the store does not say.
    pub storage_class: String,
}

/// What HeadObject says of an object and a listing does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectFacts {
    /// `x-amz-server-side-encryption`: `AES256`, `aws:kms`, `aws:kms:dsse`; `None` without.
    pub encryption: Option<String>,
    pub kms_key_arn: Option<String>,
    pub bucket_key_enabled: bool,
    /// Whether the object is encrypted with a key of the customer's (SSE-C).
    pub customer_key: bool,
    /// `x-amz-replication-status`: `COMPLETED`, `PENDING`, `FAILED`, `REPLICA`; `None` without.
    pub replication_status: Option<String>,
}

/// An object being read.
pub struct ObjectBody {
    /// As the store gives it, with or without surrounding quotes.
    pub etag: String,
    /// Bytes; `None` where the store does not say.
    pub size: Option<u64>,
    /// As [`Objects::tags`], of what was opened: it may be another object than the one that was there before.
    pub tags: Option<Tags>,
    pub stream: BoxStream<'static, Result<Bytes, ObjectError>>,
}

/// What is written: small documents from memory, report parts from a spool file.
#[derive(Debug, Clone)]
pub enum PutBody {
    Bytes(Bytes),
    /// A local file and its length in bytes.
    File(PathBuf, u64),
}

/// What is asked of the store for an object, beside keeping its bytes.
#[derive(Debug, Clone, Copy)]
pub struct PutTerms<'a> {
    pub content_type: &'a str,
    pub encryption: &'a Encryption,
}

/// Server-side encryption that a store is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Encryption {
    /// Nothing is asked: the store does as its bucket is set.
    #[default]
    Unasked,
    /// `AES256`: with keys of the store's own.
    SseS3,
    /// `aws:kms`: with a key of KMS; `None` for the one that the store takes by itself.
    SseKms { key_id: Option<String> },
}

/// Why a store did not do it. `code` and `message` as S3 names them (`NoSuchKey`, `AccessDenied`).
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ObjectError {
    pub code: String,
    pub message: String,
    /// Whether the same call may succeed later (5xx, throttling, a broken connection, a full disk).
    pub passing: bool,
}

impl ObjectError {
    /// The code of a refusal because our own disk is full: waited for without end, for it is no reason for a job to fail
    /// (promise D5). No store of somebody else has it, whose own full disk is a failure like any other.
    pub const DISK_FULL: &str = "LongshoreDiskFull";

    pub fn is_disk_full(&self) -> bool {
        self.code == Self::DISK_FULL
    }

    /// The code of a refusal because what our own disk has of an object is not what was stored. Its message names the object
    /// and the file.
    pub const DAMAGED: &str = "LongshoreObjectDamaged";
}

/// Where functions are called.
#[async_trait::async_trait]
pub trait Invoker: Send + Sync + 'static {
    /// Calls `function` (the ARN, partial ARN or name of the job, qualifier included, resolved anew at each call)
    /// synchronously with `payload`. Never fails: what goes wrong is a kind of [`Reply`]. It waits for a free
    /// environment as long as it takes; dropping the future gives the call up, the function may still run on.
    async fn invoke(&self, function: &str, payload: Bytes) -> Reply;

    /// As [`Invoker::invoke`], unless the call is called off before it begins: an invoker that lets calls wait asks
    /// [`Start::begin`] where it hands one to its function, and nowhere earlier. Whoever called one off drops the future, and
    /// [`Reply::NotStarted`] is nothing that he sees.
    async fn invoke_unless_called_off(&self, function: &str, payload: Bytes, start: &Start) -> Reply {
        match start.begin() {
            true => self.invoke(function, payload).await,
            false => Reply::NotStarted,
        }
    }

    /// How many invocations of `function` can run at once now; `None` if only trying tells (a remote endpoint).
    fn slots(&self, function: &str) -> Option<u32>;

    /// Says that invocations of `function` are about to come, so many at once. What can be made ready for them is, if that
    /// takes nothing from anybody; nothing depends on it.
    fn prepare(&self, _function: &str, _wanted: u32) {}

    /// The thread on which whoever calls `function` often should run, next to what it calls; `None` for any. Source:
    /// decision 0029.
    fn thread_of(&self, _function: &str) -> Option<tokio::runtime::Handle> {
        None
    }

    /// How long environments of `function` took to become ready, since counting began; `None` where nobody counts them.
    fn cold_starts(&self, _function: &str) -> Option<Histogram> {
        None
    }
}

/// What the roles of jobs allow.
pub trait Roles: Send + Sync + 'static {
    /// The work of a job under its role, whether there is such a role or not.
    fn session(&self, role_arn: &str, job_id: &str) -> Arc<dyn Session>;
}

/// One job's work under its role. What was changed of the role since the last call counts in the next.
pub trait Session: Send + Sync + 'static {
    /// Whether the role can be taken on: it exists, and trusts the service for this job.
    fn assume(&self) -> Result<(), NotAssumed>;

    /// Whether the role may do this. Asked before each call of a function, so it has to be quick. `Err`: why not, in a sentence.
    fn may(&self, access: Access<'_>) -> Result<(), String>;
}

/// A role that cannot be taken on. Both are told to whoever may see the job, who need not be one who may see the role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAssumed {
    /// In a sentence.
    pub reason: String,
    /// How those who may see the role find out more.
    pub hint: Option<String>,
}

/// What the engine does with a job's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access<'a> {
    /// Also to look at what is known of it.
    GetObject {
        bucket: &'a str,
        key: &'a str,
        version_id: Option<&'a str>,
        /// As [`Objects::tags`].
        tags: Option<&'a [(String, String)]>,
    },
    PutObject {
        bucket: &'a str,
        key: &'a str,
        encryption: &'a Encryption,
        /// As [`Objects::tags`], of the object whose place it takes.
        tags: Option<&'a [(String, String)]>,
    },
    /// Pages of at most 1,000 entries, without a delimiter.
    List {
        bucket: &'a str,
        /// Empty for all keys.
        prefix: &'a str,
        versions: bool,
    },
    /// A function as the job names it.
    Invoke { function: &'a str },
}

/// Stands where nobody asks what a role may do: each may do everything.
pub struct AnyRole;

impl Roles for AnyRole {
    fn session(&self, _: &str, _: &str) -> Arc<dyn Session> {
        Arc::new(AnyRole)
    }
}

impl Session for AnyRole {
    fn assume(&self) -> Result<(), NotAssumed> {
        Ok(())
    }

    fn may(&self, _: Access<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// How the data files of an inventory may lie by column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFormat {
    Parquet,
    Orc,
}

/// One row of a table, in the columns `bucket`, `key` and `version_id`.
#[derive(Debug, Clone, Copy)]
pub struct TableRow<'a> {
    pub bucket: &'a str,
    /// Decoded.
    pub key: &'a str,
    /// `None` where the table has a null.
    pub version: Option<&'a str>,
}

/// Reads the data files of inventories that lie by column.
pub trait Columnar: Send + Sync + 'static {
    /// Calls `each` with the rows of a local file in their order, until it breaks. Blocks. `versions` says whether the
    /// column `version_id` is wanted, which then has to be there.
    ///
    /// The file may hold anything: what is no such table is told in words, without a panic, and memory is bounded by
    /// limits of the reader's own, never by what the file says of itself.
    fn read(
        &self,
        format: TableFormat,
        file: &Path,
        versions: bool,
        each: &mut dyn FnMut(TableRow<'_>) -> ControlFlow<()>,
    ) -> Result<(), String>;
}

/// Stands where no reader of tables is wired.
pub struct NoTables;

impl Columnar for NoTables {
    fn read(
        &self,
        format: TableFormat,
        _: &Path,
        _: bool,
        _: &mut dyn FnMut(TableRow<'_>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        Err(format!("this server has no reader for {format:?}"))
    }
}

/// Where events of jobs go.
#[async_trait::async_trait]
pub trait EventSink: Send + Sync + 'static {
    /// What it is called in the settings, and in what is kept of its deliveries; no two have one name.
    fn name(&self) -> &str;

    /// Hands one event over, and returns once it is the sink's: it is not handed over again. May be called for several
    /// jobs at once, never for two events of one job. It may take as long as it likes; the engine gives it up.
    async fn deliver(&self, event: &JobEvent) -> Result<(), SinkError>;
}

/// Why an event was not taken, in words for whoever set the sink up; without secrets.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SinkError(pub String);
