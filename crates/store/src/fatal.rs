//! The one-way switch that a failed sync throws.
//!
//! After a failed `fsync` the kernel may have dropped the dirty pages, and a second, successful `fsync` would prove
//! nothing. So nobody retries: the switch is thrown, every later write is refused, and the server exits.
//! Source: promise D4.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::Syncs;
use crate::files::OpenFile;

/// Shared by all stores of one data directory.
#[derive(Debug, Clone, Default)]
pub struct Fatal(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    reason: OnceLock<String>,
    thrown: Notify,
    syncs: Syncs,
}

impl Fatal {
    pub fn new() -> Self {
        Self::default()
    }

    /// Throws the switch. The first reason stays.
    pub fn throw(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.0.reason.set(reason.clone()).is_ok() {
            tracing::error!(reason, "state could not be made durable, stopping");
        }
        self.0.thrown.notify_waiters();
        self.0.thrown.notify_one();
    }

    pub fn reason(&self) -> Option<&str> {
        self.0.reason.get().map(String::as_str)
    }

    /// What the syncs took that have not thrown it: everybody who syncs has this switch.
    pub fn syncs(&self) -> &Syncs {
        &self.0.syncs
    }

    /// Waits until the switch is thrown; the server then exits.
    pub async fn thrown(&self) -> String {
        loop {
            let notified = self.0.thrown.notified();
            if let Some(reason) = self.reason() {
                return reason.to_owned();
            }
            notified.await;
        }
    }

    /// Makes a file, or the names in a directory, durable. A sync that fails throws the switch, whatever the reason: of a
    /// disk that is full, too, the kernel may have dropped what it could not write. `Err(Broken)` without a try once thrown.
    pub fn sync(&self, file: &dyn OpenFile, what: &str) -> Result<(), crate::StoreError> {
        self.check()?;
        self.settle(what, file.sync_all())
    }

    /// As [`Fatal::sync`], for a sync that somebody else has tried. One that came to a good end beside another that failed
    /// is not believed: of a directory, or of one file system, the kernel tells its error only once.
    pub fn settle(&self, what: &str, synced: std::io::Result<()>) -> Result<(), crate::StoreError> {
        match synced {
            Ok(()) => self.check(),
            Err(error) => {
                let reason = format!("syncing {what} failed: {error}");
                self.throw(reason.clone());
                Err(crate::StoreError::Broken(reason))
            }
        }
    }

    /// `Err(Broken)` once thrown: the guard in front of every write.
    pub(crate) fn check(&self) -> Result<(), crate::StoreError> {
        match self.reason() {
            None => Ok(()),
            Some(reason) => Err(crate::StoreError::Broken(reason.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn a_sync_that_fails_throws_the_switch_whatever_the_reason_and_the_first_reason_stays() {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::Other] {
            let fatal = Fatal::new();
            fatal.settle("a file", Ok(())).unwrap();
            fatal.check().unwrap();
            let broken = fatal.settle("a file", Err(Error::from(kind))).unwrap_err();
            assert!(matches!(broken, crate::StoreError::Broken(_)), "{broken:?}");
            assert!(fatal.settle("another", Err(Error::from(kind))).is_err());
            assert!(fatal.reason().is_some_and(|reason| reason.starts_with("syncing a file failed: ")), "{fatal:?}");
            assert!(matches!(fatal.check(), Err(crate::StoreError::Broken(_))));
            assert!(fatal.settle("one that ended well meanwhile", Ok(())).is_err());
        }
    }
}
