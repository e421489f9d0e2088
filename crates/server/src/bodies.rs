//! The bodies of requests that are held in memory whole: those of the control APIs, and S3's documents.
//!
//! Without a bound over all connections, whoever can connect often fills the machine. What is proven to be of somebody who is known goes
//! before what is not: of the latter there is never so much that the former find no room.
//! Source: promise S7.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use longshore_store::{Budget, Held, NoRoom};

use crate::listener::RequestBody;

/// All together.
const ALL_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Room for the bodies that a server holds in memory. Each kind has its own, so that those of one are in no other's way: who fills that of
/// packages, which anybody with a key can begin to send, keeps nobody from taking that key away. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bodies {
    /// Forms and documents of the control APIs, of a mebibyte at most.
    small: Room,
    /// What functions are invoked with: held until the function has answered.
    payloads: Room,
    /// Packages of functions and layers: three of the largest.
    packages: Room,
    /// Documents of clients of S3: lists of keys to delete, of parts to put together. The largest have 4 MiB, for other stores 8 MiB.
    pub documents: Budget,
    /// The same of functions, all together, so that their code holds the server's memory up to here and no further. One environment has a
    /// part of it, which its credentials carry.
    pub of_functions: Budget,
}

/// Room for one kind of bodies.
#[derive(Debug, Clone)]
struct Room {
    proven: Budget,
    /// A part, for those whose signature cannot be verified before they are there: it is over their hash, which no header names. Of the
    /// AWS CLI's and boto3's there are no others but in S3.
    unproven: Budget,
}

impl Room {
    fn new(bytes: usize) -> Self {
        let proven = Budget::new(bytes);
        Self { unproven: proven.part(bytes / 4 * 3), proven }
    }
}

impl Bodies {
    pub fn new() -> Self {
        Self::of(ALL_BYTES_MAX)
    }

    /// With so many bytes for all together.
    pub fn of(bytes: usize) -> Self {
        let eighth = bytes / 8;
        Self {
            small: Room::new(eighth),
            payloads: Room::new(eighth * 3 / 2),
            packages: Room::new(eighth * 7 / 2),
            documents: Budget::new(eighth),
            of_functions: Budget::new(eighth),
        }
    }

    /// For a body that has at most `bytes`. `proven`: whether its signature was verified.
    pub fn room(&self, bytes: u64, proven: bool) -> &Budget {
        let room = if bytes <= SMALL_BYTES_MAX {
            &self.small
        } else if bytes <= PAYLOAD_BYTES_MAX {
            &self.payloads
        } else {
            &self.packages
        };
        if proven { &room.proven } else { &room.unproven }
    }
}

/// What an operation may take that takes no payload and no package.
const SMALL_BYTES_MAX: u64 = 1024 * 1024;
/// What is read of an invocation's payload at most.
const PAYLOAD_BYTES_MAX: u64 = 8 * 1024 * 1024;

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
