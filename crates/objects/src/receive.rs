//! A body on its way in: hashed and spooled as it arrives, in memory up to [`INLINE_MAX`], else in a file.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use tokio::task::JoinHandle;

use crate::blobs::{BlobWriter, Blobs, Pending};
use crate::checksum::{Algorithm, Digests, Hasher};
use crate::error::ObjectsError;

/// Bodies up to this size live in the database: reading one is then one query, writing one is one commit.
pub const INLINE_MAX: usize = 16 * 1024;

/// Bytes that are hashed and written in one go on a blocking thread. Twice this much is in memory for each upload: one
/// piece being written while the next arrives.
const PIECE: usize = 512 * 1024;

/// A body that has arrived whole and is durable, though no record names it yet.
#[derive(Debug)]
pub struct Received {
    pub size: u64,
    pub digests: Digests,
    pub stored: Stored,
}

#[derive(Debug)]
pub enum Stored {
    Inline(Bytes),
    Blob(Pending),
}

/// How a body is received.
#[derive(Debug, Clone, Copy)]
pub struct Receiving {
    /// More bytes than this are refused as soon as they arrive.
    pub size_max: u64,
    /// `false`: a file, however small (parts of uploads, which become files of an object).
    pub inline: bool,
    /// A checksum to compute besides MD5 and CRC64NVME.
    pub algorithm: Option<Algorithm>,
}

/// Reads `body` to its end. On an error, or if the future is dropped, nothing is left behind.
pub async fn receive<S>(blobs: &Arc<Blobs>, body: S, how: Receiving) -> Result<Received, ObjectsError>
where
    S: Stream<Item = Result<Bytes, ObjectsError>>,
{
    let mut body = std::pin::pin!(body);
    let mut size = 0_u64;
    let mut buffer = BytesMut::new();
    let mut spool = Spool { hasher: Hasher::new(how.algorithm), writer: None };
    let mut writing: Option<JoinHandle<Result<Spool, ObjectsError>>> = None;
    let inline_max = if how.inline { INLINE_MAX } else { 0 };
    while let Some(bytes) = body.next().await {
        let bytes = bytes?;
        size += bytes.len() as u64;
        if size > how.size_max {
            return Err(ObjectsError::EntityTooLarge(how.size_max));
        }
        buffer.extend_from_slice(&bytes);
        if buffer.len() >= PIECE {
            if let Some(before) = writing.take() {
                spool = joined(before).await?;
            }
            let piece = buffer.split().freeze();
            let blobs = blobs.clone();
            let moved = std::mem::replace(&mut spool, Spool { hasher: Hasher::new(None), writer: None });
            writing = Some(tokio::task::spawn_blocking(move || moved.write(&blobs, &piece)));
        }
    }
    if let Some(before) = writing.take() {
        spool = joined(before).await?;
    }
    if spool.writer.is_none() && buffer.len() <= inline_max {
        spool.hasher.update(&buffer);
        return Ok(Received { size, digests: spool.hasher.finish(), stored: Stored::Inline(buffer.freeze()) });
    }
    let rest = buffer.freeze();
    let blobs = blobs.clone();
    let (digests, pending) = joined(tokio::task::spawn_blocking(move || {
        let Spool { hasher, writer } = spool.write(&blobs, &rest)?;
        let writer = match writer {
            Some(writer) => writer,
            None => blobs.create()?,
        };
        Ok((hasher.finish(), writer.finish()?))
    }))
    .await?;
    Ok(Received { size, digests, stored: Stored::Blob(pending) })
}

struct Spool {
    hasher: Hasher,
    writer: Option<BlobWriter>,
}

impl Spool {
    fn write(mut self, blobs: &Arc<Blobs>, piece: &[u8]) -> Result<Self, ObjectsError> {
        self.hasher.update(piece);
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => blobs.create()?,
        };
        writer.write(piece)?;
        self.writer = Some(writer);
        Ok(self)
    }
}

async fn joined<T>(task: JoinHandle<Result<T, ObjectsError>>) -> Result<T, ObjectsError> {
    task.await.unwrap_or_else(|e| Err(ObjectsError::Io("writing a body".into(), std::io::Error::other(e))))
}
