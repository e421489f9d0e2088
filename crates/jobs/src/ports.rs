//! The engine's two doors to the world. Either may be ours (embedded) or a real AWS endpoint; both are wired in `server`.

use std::path::PathBuf;

use bytes::Bytes;
use futures::stream::BoxStream;
use longshore_core::invocation::Reply;

/// Where manifests are read from and reports are written to.
#[async_trait::async_trait]
pub trait Objects: Send + Sync + 'static {
    /// Opens one object for reading. The body is streamed and belongs to the ETag that is returned with it: a store
    /// must never mix two versions of an object in one body.
    async fn get(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<ObjectBody, ObjectError>;

    /// Writes one object, whole or not at all. Safe to repeat.
    async fn put(&self, bucket: &str, key: &str, content_type: &str, body: PutBody) -> Result<(), ObjectError>;
}

/// An object being read.
pub struct ObjectBody {
    /// As the store gives it, with or without surrounding quotes.
    pub etag: String,
    /// Bytes; `None` where the store does not say.
    pub size: Option<u64>,
    pub stream: BoxStream<'static, Result<Bytes, ObjectError>>,
}

/// What is written: small documents from memory, report parts from a spool file.
#[derive(Debug, Clone)]
pub enum PutBody {
    Bytes(Bytes),
    /// A local file and its length in bytes.
    File(PathBuf, u64),
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

/// Where functions are called.
#[async_trait::async_trait]
pub trait Invoker: Send + Sync + 'static {
    /// Calls `function` (the ARN, partial ARN or name of the job, qualifier included, resolved anew at each call)
    /// synchronously with `payload`. Never fails: what goes wrong is a kind of [`Reply`]. It waits for a free
    /// environment as long as it takes; dropping the future gives the call up, the function may still run on.
    async fn invoke(&self, function: &str, payload: Bytes) -> Reply;

    /// How many invocations of `function` can run at once now; `None` if only trying tells (a remote endpoint).
    fn slots(&self, function: &str) -> Option<u32>;
}
