//! Environments made ahead: all is there but what is one function's own, and each waits for its program.
//!
//! Most of what the sandbox adds to a cold start is waiting for the kernel, to enter a control group above all; none of it
//! depends on the function. Each of these is used once, by one function, and is its own from the first process on: nothing in
//! one has run but this program. Source: decision 0038.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_sandbox::Spec;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::process::{self, Anew, Laid, NotStarted};
use super::sandbox::{Sandbox, Views};

/// Kept ready at most. One is about a megabyte of the kernel's, a user and a control group; a start takes longer than making
/// the next one, so more than start at once would lie idle.
const AHEAD_MAX: usize = 4;
/// For how long no start may have begun or come up before the next ones are made: making one takes processor time from
/// nobody's start, nor from the first invocation behind it.
const QUIET: Duration = Duration::from_millis(50);

/// Those of one host.
pub(super) struct Ahead {
    sandbox: Arc<Sandbox>,
    environments_dir: PathBuf,
    /// Where they are made.
    runtime: tokio::runtime::Handle,
    /// 0 where none can be made.
    wanted: usize,
    state: Mutex<State>,
    /// One that was not needed is gone, or the one that makes them is done.
    fewer: Notify,
}

struct State {
    ready: Vec<Ready>,
    /// Those that are on their way to their end.
    ending: usize,
    last_start: Instant,
    /// Whether somebody makes some.
    making: bool,
    closed: bool,
}

struct Ready {
    laid: Laid,
    views: Views,
}

impl Ahead {
    /// None is made before the first start: a server whose functions nobody calls has none.
    pub fn new(
        sandbox: Arc<Sandbox>,
        environments_dir: PathBuf,
        runtime: tokio::runtime::Handle,
        starts_at_once: u32,
    ) -> Self {
        let wanted = (starts_at_once as usize).min(AHEAD_MAX);
        let wanted = if sandbox.makes_ahead(wanted) { wanted } else { 0 };
        let state = State { ready: Vec::new(), ending: 0, last_start: Instant::now(), making: false, closed: false };
        Self { sandbox, environments_dir, runtime, wanted, state: Mutex::new(state), fewer: Notify::new() }
    }

    /// One for a start that begins now, if there is one that looks as one that is made now would. Blocking, for some ten
    /// microseconds.
    pub fn take(self: &Arc<Self>) -> Option<Laid> {
        loop {
            let Ready { laid, views } = {
                let mut state = self.lock();
                state.last_start = Instant::now();
                state.ready.pop()?
            };
            if laid.is_alive() && views.hold() {
                return Some(laid);
            }
            tracing::debug!(marker = laid.marker(), "an environment that was made ahead is of no use any more");
            self.let_go(laid);
        }
    }

    /// A start has come to its end, well or not: others are made when it is quiet.
    pub fn replenish(self: &Arc<Self>) {
        {
            let mut state = self.lock();
            state.last_start = Instant::now();
            if state.closed || state.making || state.ready.len() >= self.wanted {
                return;
            }
            state.making = true;
        }
        let this = self.clone();
        self.runtime.spawn(async move { this.make_all().await });
    }

    async fn make_all(self: &Arc<Self>) {
        loop {
            let quiet_at = {
                let mut state = self.lock();
                if state.closed || state.ready.len() >= self.wanted {
                    state.making = false;
                    self.fewer.notify_waiters();
                    return;
                }
                state.last_start + QUIET
            };
            if quiet_at > Instant::now() {
                tokio::time::sleep_until(quiet_at).await;
                continue;
            }
            match self.make().await {
                Ok(ready) => {
                    let unneeded = {
                        let mut state = self.lock();
                        if state.closed {
                            Some(ready.laid)
                        } else {
                            state.ready.push(ready);
                            None
                        }
                    };
                    if let Some(laid) = unneeded {
                        self.let_go(laid);
                    }
                }
                // The next start makes its own, and says to its caller why it cannot.
                Err(error) => {
                    tracing::warn!(?error, "an environment could not be made ahead");
                    self.lock().making = false;
                    self.fewer.notify_waiters();
                    return;
                }
            }
        }
    }

    async fn make(&self) -> Result<Ready, NotStarted> {
        let marker = uuid::Uuid::new_v4().simple().to_string();
        let dir = self.environments_dir.join(&marker);
        let sandbox = self.sandbox.clone();
        let begun = {
            let (marker, dir) = (marker.clone(), dir.clone());
            tokio::task::spawn_blocking(move || {
                let views = sandbox.views().map_err(|error| NotStarted::Host(format!("the mounts: {error}")))?;
                let lease = sandbox.lease().map_err(NotStarted::Host)?;
                let ground = sandbox.ground_ahead(&marker, &dir, lease.as_ref());
                let anew = Anew { spec: Spec { ground, program: None }, lease, dir, tmp: None, marker };
                Ok((views, anew))
            })
        };
        let (views, anew) = begun.await.map_err(|_| NotStarted::Host("it was broken off".into()))??;
        match process::lay(self.sandbox.clone(), anew).await {
            Ok(laid) => Ok(Ready { laid, views }),
            Err(error) => {
                let removed = tokio::task::spawn_blocking(move || process::remove_dir(&dir)).await;
                if let Ok(Err(error)) = removed {
                    tracing::warn!(%error, "the folder of an environment that was not made could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Ends one, without waiting for it.
    pub fn let_go(self: &Arc<Self>, laid: Laid) {
        self.lock().ending += 1;
        let this = self.clone();
        self.runtime.spawn(async move {
            laid.end().await;
            this.lock().ending -= 1;
            this.fewer.notify_waiters();
        });
    }

    /// Makes no more, and ends those that there are.
    pub fn close(self: &Arc<Self>) {
        let ready = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.ready)
        };
        for Ready { laid, .. } in ready {
            self.let_go(laid);
        }
    }

    /// After [`Ahead::close`]: waits until none is left.
    pub async fn gone(&self) {
        loop {
            let fewer = self.fewer.notified();
            tokio::pin!(fewer);
            fewer.as_mut().enable();
            {
                let state = self.lock();
                if state.ending == 0 && !state.making {
                    return;
                }
            }
            fewer.await;
        }
    }

    /// How many are ready, and how many are to be.
    pub fn count(&self) -> (usize, usize) {
        (self.lock().ready.len(), self.wanted)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
