//! The data directory: mode 0700, ours, and one server at a time.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// An opened data directory. The lock is held as long as this value lives; the kernel drops it with the process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be used: one line for the user.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("the data directory {path} is in use by another server{pid}")]
    InUse { path: String, pid: String },
    #[error("the data directory {path} cannot be used: {reason}")]
    Unusable { path: String, reason: String },
}

impl DataDir {
    /// Creates the directory if needed, checks owner and mode, takes the lock.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |reason: String| DataDirError::Unusable { path: path.display().to_string(), reason };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| unusable(e.to_string()))?;
        let path = path.canonicalize().map_err(|e| unusable(e.to_string()))?;
        let metadata = path.metadata().map_err(|e| unusable(e.to_string()))?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(unusable("it belongs to another user".into()));
        }
        if metadata.permissions().mode() & 0o022 != 0 {
            return Err(unusable("others may write into it: chmod 700 it if that is not meant".into()));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            let empty = path.read_dir().map_err(|e| unusable(e.to_string()))?.next().is_none();
            if !empty {
                return Err(unusable("others may enter it: chmod 700 it if that is not meant".into()));
            }
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))
                .map_err(|e| unusable(e.to_string()))?;
        }
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| unusable(e.to_string()))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = std::fs::read_to_string(&lock_path).unwrap_or_default();
                let pid =
                    if holder.trim().is_empty() { String::new() } else { format!(" (process {})", holder.trim()) };
                return Err(DataDirError::InUse { path: path.display().to_string(), pid });
            }
            Err(e) => return Err(unusable(format!("it cannot be locked: {e}"))),
        }
        // Only so that the next one can say who holds it; the lock itself is the kernel's.
        let _ = std::fs::write(&lock_path, std::process::id().to_string());
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A sub-directory, made with mode 0700 if it is not there. Durable when this returns.
    pub fn sub(&self, name: &str) -> std::io::Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        File::open(&self.path)?.sync_all()?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_is_told_who_holds_the_directory() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let held = DataDir::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains("in use by another server (process "), "{error}");
        drop(held);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("x"), "").unwrap();
        std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(DataDir::open(temp.path()).unwrap_err().to_string().contains("chmod 700"));
    }

    #[test]
    fn an_empty_directory_is_closed_to_others_unless_they_could_have_written_into_it() {
        let temp = tempfile::tempdir().unwrap();
        let mode = |mode| std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o777);
        assert!(DataDir::open(temp.path()).unwrap_err().to_string().contains("chmod 700"));
        mode(0o755);
        DataDir::open(temp.path()).unwrap();
        assert_eq!(temp.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
