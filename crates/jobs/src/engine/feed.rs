//! Pins the manifest of a job that has started already, and tells its run how far it is checked.

use std::sync::Arc;

use longshore_store::StoreError;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::keeper::Held;
use super::pinned::Growing;
use super::preparer::{Prepared, Unprepared};
use super::{Engine, agent};
use crate::error::FailureReason;
use crate::ledger::JobRow;

/// One manifest under way.
pub(super) struct Feed {
    growing: Arc<Growing>,
    known: watch::Receiver<u64>,
    /// Without a verdict when it was stopped, when the server is about to end, and after a panic.
    pinning: oneshot::Receiver<Option<Option<Result<Prepared, Unprepared>>>>,
    /// Stops it as well when the run is dropped where it stands.
    stopped: DropGuard,
}

/// What becomes known of the manifest. Nothing follows on a whole one, a failed one or a broken one.
#[derive(Debug)]
pub(super) enum News {
    Known {
        rows: u64,
        whole: bool,
    },
    /// A bad row, or an object that is gone or another.
    Failed(FailureReason),
    Broken(StoreError),
}

impl Feed {
    /// Begins with the manifest's first row: the rows that were known in an earlier turn are known again soon.
    pub fn start(engine: &Engine, held: &Held, job: &JobRow, growing: Arc<Growing>) -> Self {
        let (known, stopped) = (growing.known(), CancellationToken::new());
        let job = job.clone();
        let (pinned, until) = (Arc::clone(&growing), stopped.clone());
        let (own, held) = (engine.clone(), held.clone());
        let pinning = engine.shared.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = until.cancelled() => None,
                // A task of its own, so it minds the lease itself.
                pinned = held.during(agent::pin(&own, &job, Some(&pinned))) => pinned,
            }
        });
        Self { growing, known, pinning, stopped: stopped.drop_guard() }
    }

    /// Waits for news. May be given up and asked for again.
    pub async fn next(&mut self) -> News {
        let pinned = tokio::select! {
            biased;
            Ok(()) = self.known.changed() => {
                return News::Known { rows: *self.known.borrow_and_update(), whole: false };
            }
            pinned = &mut self.pinning => pinned,
        };
        match pinned.ok().flatten().flatten() {
            Some(Ok(Prepared { rows, .. })) => News::Known { rows, whole: true },
            Some(Err(Unprepared::Failed(reason))) => News::Failed(reason),
            Some(Err(Unprepared::Store(error) | Unprepared::NoSpace(error))) => News::Broken(error),
            Some(Err(Unprepared::Unavailable(error))) => News::Broken(StoreError::Io(std::io::Error::other(error))),
            None | Some(Err(Unprepared::NotTaken)) => {
                News::Broken(StoreError::Damaged("a manifest's reading ended without a verdict".into()))
            }
        }
    }

    /// Gives the rest of the manifest up; returns once nothing writes to it any more.
    pub async fn stop(self) {
        drop(self.stopped);
        // The thread that checks the rows holds the turn until it has noticed.
        self.growing.turn().await;
    }
}
