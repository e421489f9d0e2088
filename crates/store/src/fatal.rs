//! The one-way switch that a failed sync throws.
//!
//! After a failed `fsync` the kernel may have dropped the dirty pages, and a second, successful `fsync` would prove
//! nothing. So nobody retries: the switch is thrown, every later write is refused, and the server exits.
//! Source: promise D4.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::Syncs;

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

    /// `Err(Broken)` once thrown: the guard in front of every write.
    pub(crate) fn check(&self) -> Result<(), crate::StoreError> {
        match self.reason() {
            None => Ok(()),
            Some(reason) => Err(crate::StoreError::Broken(reason.to_owned())),
        }
    }
}
