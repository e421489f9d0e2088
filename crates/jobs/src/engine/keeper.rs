//! Keeps the leases of this server: takes them, renews them on a timer, and ends the work under one that is lost.
//!
//! Where no other server can take a lease there is no term, and all this costs nothing.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use longshore_store::StoreError;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Engine;
use crate::ledger::{ALL_ROWS, Duty, Fence, Ledger};

/// Renewals in one term. A lease outlives all but the last of them failing, or a ledger that is away for most of a term.
const RENEWALS_IN_TERM: u32 = 6;

/// The leases that are to be renewed. Those of work that is over fall out by themselves.
#[derive(Default)]
pub(super) struct Keeper {
    kept: Mutex<Vec<(Fence, Weak<Tenure>)>>,
    /// Told when there is one less.
    freed: Arc<Notify>,
}

/// A lease of ours, which is renewed as long as this or a copy of it lives.
#[derive(Clone)]
pub(super) struct Held {
    pub fence: Fence,
    tenure: Option<Arc<Tenure>>,
}

/// When a lease runs out by our own clock, reckoned from before we asked for it, so never later than by the ledger's.
struct Tenure {
    ends: watch::Sender<Instant>,
    freed: Arc<Notify>,
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.freed.notify_one();
    }
}

impl Keeper {
    /// Takes a duty. `None`: another server has it.
    pub async fn take(&self, ledger: &dyn Ledger, duty: &Duty) -> Result<Option<Held>, StoreError> {
        let asked = Instant::now();
        let Some(lease) = ledger.lease(duty).await? else { return Ok(None) };
        if lease.rows != ALL_ROWS {
            // There is no ledger yet that leases parts; one that comes brings the engine along that runs them.
            return Err(StoreError::Damaged(format!("a lease on the rows {:?} of {duty:?} alone", lease.rows)));
        }
        let tenure = ledger
            .term()
            .map(|term| Arc::new(Tenure { ends: watch::Sender::new(asked + term), freed: Arc::clone(&self.freed) }));
        if let Some(tenure) = &tenure {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|(_, tenure)| tenure.strong_count() > 0);
            kept.push((lease.fence.clone(), Arc::downgrade(tenure)));
        }
        Ok(Some(Held { fence: lease.fence, tenure }))
    }

    fn kept(&self) -> Vec<(Fence, Arc<Tenure>)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter_map(|(fence, tenure)| Some((fence.clone(), tenure.upgrade()?))).collect()
    }

    pub async fn renew(&self, ledger: &dyn Ledger, term: Duration) {
        let kept = self.kept();
        if kept.is_empty() {
            return;
        }
        let (fences, tenures): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
        let asked = Instant::now();
        match ledger.renew(&fences).await {
            Ok(renewed) => {
                for ((fence, tenure), holds) in fences.iter().zip(tenures).zip(renewed) {
                    if !holds {
                        tracing::warn!(duty = ?fence.duty, "a lease is lost, its work ends here");
                    }
                    tenure.ends.send_replace(if holds { asked + term } else { asked });
                }
            }
            // They run out by themselves, unless the next time is in time.
            Err(error) => tracing::warn!(%error, "leases are not renewed, will retry"),
        }
    }
}

impl Held {
    /// Frees the duty for others, at once instead of when the lease runs out. Failing costs that wait alone.
    pub async fn give_back(self, ledger: &dyn Ledger) {
        if let Err(error) = ledger.give_back(&self.fence).await {
            tracing::warn!(duty = ?self.fence.duty, %error, "a lease is not given back, and runs out by itself");
        }
    }

    /// Goes on with `work` while the lease holds. `None`: it does not, and the work was dropped where it stood.
    ///
    /// The clock is looked at each time before the work goes on, so that a server that stood still for a while starts
    /// nothing under a lease that has run out meanwhile.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let Some(tenure) = &self.tenure else { return Some(work.await) };
        let mut ends = tenure.ends.subscribe();
        let over = async {
            loop {
                let at = *ends.borrow_and_update();
                if at <= Instant::now() {
                    return;
                }
                tokio::select! {
                    biased;
                    // Fails only if the sender is gone, and that we hold.
                    _ = ends.changed() => {}
                    () = tokio::time::sleep_until(at) => {}
                }
            }
        };
        let (mut over, mut work) = (pin!(over), pin!(work));
        poll_fn(|context| {
            if *tenure.ends.borrow() <= Instant::now() || over.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }
}

/// Renews the leases of this server until the engine has stopped.
pub(super) async fn run(engine: Engine, term: Duration) {
    let (keeper, stopping) = (&engine.shared.keeper, &engine.shared.stopping);
    let mut due = Instant::now() + term / RENEWALS_IN_TERM;
    // What winds down once the server stops goes on under its leases.
    while !stopping.is_cancelled() || !keeper.kept().is_empty() {
        tokio::select! {
            biased;
            () = stopping.cancelled(), if !stopping.is_cancelled() => {}
            () = keeper.freed.notified() => {}
            () = tokio::time::sleep_until(due) => {
                keeper.renew(&*engine.shared.world.ledger, term).await;
                due = Instant::now() + term / RENEWALS_IN_TERM;
            }
        }
    }
}
