//! How long a store that refuses for passing reasons is asked again.

use std::time::Duration;

use longshore_store::StoreError;

use super::{Engine, agent};
use crate::ports::ObjectError;

/// How often a call that failed for a passing reason is tried, and the longest wait between: about 15 minutes in all.
const TRIES_MAX: u32 = 20;
const WAIT_FIRST: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How often it is tried for a request, whose client waits, in a place of which there are few: about 3 seconds in all.
const TRIES_OF_REQUEST_MAX: u32 = 5;

/// For whom a call is made, and so how long it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// An agent, which has nothing to do but this.
    Agent,
    /// A request, which is told what is in the way, and can be sent again.
    Request,
}

/// Why a call was given up.
#[derive(Debug)]
pub(super) enum GaveUp {
    /// The store refused for good, or for too long.
    Refused(ObjectError),
    /// The server stops, and the same step is taken again at the next start; or our own disk is full, and a request does not wait.
    NotNow(StoreError),
}

/// Repeats a call to a store until it is served, is refused for good, or was refused for too long. A full disk of our own
/// is waited for without end, by an agent. `what` names the call in the log.
pub(super) async fn patiently<T, F: Future<Output = Result<T, ObjectError>>>(
    engine: &Engine,
    patience: Patience,
    what: &str,
    mut call: impl FnMut() -> F,
) -> Result<T, GaveUp> {
    let mut wait = WAIT_FIRST;
    let mut tries = 0;
    let mut wait_for_space = WAIT_FIRST;
    loop {
        let error = match call().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if error.is_disk_full() && patience == Patience::Request {
            return Err(GaveUp::NotNow(StoreError::Full(error.to_string())));
        }
        // Time that the disk is full is none that the store was asked in.
        tries += u32::from(!error.is_disk_full());
        let tries_max = if patience == Patience::Request { TRIES_OF_REQUEST_MAX } else { TRIES_MAX };
        if !error.passing || tries >= tries_max {
            return Err(GaveUp::Refused(error));
        }
        tracing::warn!(what, tries, %error, "a store refuses for the moment, will retry");
        let waited = if error.is_disk_full() { &mut wait_for_space } else { &mut wait };
        tokio::select! {
            biased;
            () = engine.shared.stopping.cancelled() => {
                return Err(GaveUp::NotNow(StoreError::Io(std::io::Error::other(error))));
            }
            () = tokio::time::sleep(*waited) => {}
        }
        *waited = (*waited * 2).min(if error.is_disk_full() { agent::PAUSE_MAX } else { WAIT_MAX });
    }
}
