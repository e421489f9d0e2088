//! State at rest: records in SQLite, results in append-only segments, the data directory around both; and what the rooms share
//! of the machine's memory.
//!
//! Acknowledged means durable: every method that says so returns after `fdatasync`. After the first failed sync
//! nothing more is acknowledged ([`Fatal`]); a full disk is an ordinary, passing error ([`StoreError::Full`]).

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod budget;
pub mod checkpoint;
pub mod data_dir;
pub mod failpoint;
pub mod fatal;
pub mod files;
pub mod ground;
pub mod records;
pub mod result_log;
pub mod seal;
pub mod segment;
pub mod syncs;

pub use budget::{Budget, Held, NoRoom};
pub use data_dir::DataDir;
pub use fatal::Fatal;
pub use files::{Files, Open, OpenFile, Os};
pub use ground::Ground;
pub use records::{Calm, Records, Schema};
pub use result_log::{Mark, Position, ResultLog};
pub use seal::{Seal, SealError, Secret};
pub use syncs::Syncs;

/// Why state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space, no inodes, over quota. Nothing was written; the same call may succeed later.
    #[error("the disk is full: {0}")]
    Full(String),
    /// A sync or a commit failed once; this process must not acknowledge anything any more.
    #[error("state could not be made durable: {0}")]
    Broken(String),
    /// The answer never came: it may have happened or not, and the same call can be repeated to find out.
    #[error("no answer from where state is kept: {0}")]
    Unknown(String),
    /// Another server works on this by now, or nobody may: nothing was written, and nothing will be.
    #[error("the lease is lost: another server has taken it")]
    Fenced,
    /// Bytes that fail their checksum, a record that does not read, a newer format.
    #[error("{0}")]
    Damaged(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
}

impl StoreError {
    /// Whether it passes by itself once there is space again, or once another program lets go of the database.
    pub fn is_full(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
        match self {
            StoreError::Full(_) => true,
            StoreError::Sql(error) => {
                matches!(error.sqlite_error_code(), Some(DiskFull | DatabaseBusy | DatabaseLocked))
            }
            _ => false,
        }
    }

    /// Whether a write has not happened, for a reason that may pass: no space, too many open files, a folder that is away.
    pub fn is_not_written(&self) -> bool {
        self.is_full() || matches!(self, StoreError::Io(_))
    }

    /// Whether what was asked for may have happened all the same. Otherwise it has not, for sure.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, StoreError::Broken(_) | StoreError::Unknown(_))
    }

    /// Sorts an I/O error: out of space apart from the rest.
    pub(crate) fn from_io(context: &str, error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                StoreError::Full(format!("{context}: {error}"))
            }
            _ => StoreError::Io(std::io::Error::new(error.kind(), format!("{context}: {error}"))),
        }
    }
}
