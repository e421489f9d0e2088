//! The bodies of requests that are held in memory whole: those of the control APIs, and S3's documents.
//!
//! Without a bound over all connections, whoever can connect often fills the machine. What is proven to be of somebody who is known goes
//! before what is not: of the latter there is never so much that the former find no room.
//! Source: promise S7.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use longshore_store::{Budget, Held, NoRoom};

use crate::listener::RequestBody;

/// All together: seven of the largest packages.
const ALL_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Room for the bodies that a server holds in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bodies {
    /// For those whose signature was verified before.
    pub proven: Budget,
    /// For bodies of control APIs whose signature cannot be verified before they are there, for it is over their hash, which no header
    /// names: 256 MiB.
    pub unproven: Budget,
    /// For documents of clients of S3: lists of keys to delete, of parts to put together. The largest have 4 MiB, for other stores 8; all
    /// together 128 MiB.
    pub documents: Budget,
    /// For the same of functions, all together, so that their code holds the server's memory up to here and no further: 64 MiB. One
    /// environment has a part of it, which its credentials carry.
    pub of_functions: Budget,
}

impl Bodies {
    pub fn new() -> Self {
        Self::of(ALL_BYTES_MAX)
    }

    pub fn of(bytes_max: usize) -> Self {
        let all = Budget::new(bytes_max);
        Self {
            unproven: all.part(bytes_max / 2),
            documents: all.part(bytes_max / 4),
            of_functions: all.part(bytes_max / 8),
            proven: all,
        }
    }
}

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error("it is too large")]
    TooLarge,
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("{0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

/// Reads a body of at most `max` bytes. What it takes is in `held`, which is to live as long as the body does.
pub async fn read_whole(mut body: RequestBody, max: u64, held: &mut Held) -> Result<Bytes, Unread> {
    let mut whole = BytesMut::new();
    while let Some(frame) = held.next(body.frame()).await? {
        if let Ok(data) = frame.map_err(Unread::Broken)?.into_data() {
            let bytes = whole.len() + data.len();
            if bytes as u64 > max {
                return Err(Unread::TooLarge);
            }
            held.grow(bytes).await?;
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}
