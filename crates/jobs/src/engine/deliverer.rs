//! Hands events to one sink: at least once, in order for each job, until the sink has them or they are given up.
//!
//! What is owed lies in the table; nothing is kept here but what is on its way. So a restart forgets nothing, and memory
//! does not grow with what waits for a sink that is down. One deliverer a sink: none waits for another.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use longshore_core::delivery::Verdict;
use longshore_core::random::Random;
use longshore_store::StoreError;
use longshore_store::failpoint::{self, Place};
use tokio::time::Instant;

use super::{Engine, agent};
use crate::ledger::{DeliveryState, Due, Duty, Fence, Try};
use crate::ports::{EventSink, SinkError};

/// Events on their way to one sink, each of another job: enough to hide a webhook's way there and back, few enough for
/// any receiver. They are all that a deliverer holds in memory, some kilobytes each.
const UNDER_WAY_MAX: usize = 8;
/// A sink that takes longer has failed this try.
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(30);
/// Besides being told of events, a deliverer looks this often: for retries, and as a net.
const EVERY: Duration = Duration::from_secs(1);
/// How long the table is left alone after it could not be read.
const TABLE_PAUSE: Duration = Duration::from_secs(5);
/// Characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 256;

/// Delivers until the engine stops. What is under way then is handed over again at the next start.
pub(super) async fn run(engine: Engine, sink: Arc<dyn EventSink>, mut random: Random) {
    let (world, stopping) = (&engine.shared.world, &engine.shared.stopping);
    let duty = Duty::Sink(sink.name().to_owned());
    while !stopping.is_cancelled() {
        let ended = match engine.shared.keeper.take(&*world.ledger, &duty).await {
            Ok(Some(held)) => {
                let ended = tokio::select! {
                    biased;
                    () = stopping.cancelled() => None,
                    ended = held.during(deliver_all(&engine, &held.fence, &sink, &mut random)) => ended,
                };
                held.give_back(&*world.ledger).await;
                ended
            }
            // Another server delivers.
            Ok(None) => None,
            Err(error) => Some(error),
        };
        match ended {
            // Stopped, or the lease is another server's: that one hands over again what was under way here.
            None | Some(StoreError::Fenced) => {}
            Some(error @ StoreError::Broken(_)) => {
                tracing::error!(sink = sink.name(), %error, "events are not delivered until the server is started again");
                return;
            }
            Some(error) => tracing::warn!(sink = sink.name(), %error, "events are not delivered, will retry"),
        }
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(TABLE_PAUSE) => {}
        }
    }
}

/// Delivers what is due, under the sink's lease. Returns why it cannot any more.
async fn deliver_all(engine: &Engine, fence: &Fence, sink: &Arc<dyn EventSink>, random: &mut Random) -> StoreError {
    let world = &engine.shared.world;
    let policy = &world.settings.delivery;
    let mut announced = world.ledger.announced();
    let mut under_way = FuturesUnordered::new();
    let mut busy: HashSet<String> = HashSet::new();
    let mut pause = EVERY;
    loop {
        // Before the look: what comes after it is announced again.
        announced.borrow_and_update();
        if under_way.len() < UNDER_WAY_MAX {
            let now = (world.settings.wall_clock)();
            // What is under way is due as well, as the table has it; there is room for the others behind it.
            let due = world.ledger.due(sink.name(), now, policy.backoff.cap_ms, UNDER_WAY_MAX + busy.len()).await;
            match due {
                Ok(due) => {
                    for due in due {
                        if under_way.len() < UNDER_WAY_MAX && busy.insert(due.event.job_id.clone()) {
                            under_way.push(deliver(Arc::clone(sink), due));
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(sink = sink.name(), %error, "the events that are due cannot be read, will retry");
                    tokio::time::sleep(TABLE_PAUSE).await;
                }
            }
        }
        tokio::select! {
            // What came of a try first: it makes room, and at most so many are under way.
            biased;
            Some((due, took, handed)) = under_way.next() => {
                let (tried, delay) = judge(engine, sink.name(), &due, took, handed, random);
                pause = pause.min(delay);
                let noted = agent::persist(engine, || {
                    world.ledger.note_try(fence, &due.event.job_id, due.number, tried.clone())
                });
                let noted = noted.await;
                failpoint::pass(Place::EventNoted);
                match noted {
                    Err(error @ (StoreError::Broken(_) | StoreError::Fenced)) => return error,
                    // It is handed over once more, which a receiver has to bear in any case.
                    Err(error) => {
                        tracing::warn!(sink = sink.name(), %error, "what came of a delivery is not noted");
                        tokio::time::sleep(TABLE_PAUSE).await;
                    }
                    Ok(()) => {}
                }
                busy.remove(&due.event.job_id);
            }
            // Fails only if the table is gone, and with it the engine.
            _ = announced.changed(), if under_way.len() < UNDER_WAY_MAX => {}
            () = tokio::time::sleep(pause), if under_way.len() < UNDER_WAY_MAX => pause = EVERY,
        }
    }
}

async fn deliver(sink: Arc<dyn EventSink>, due: Due) -> (Due, Duration, Result<(), SinkError>) {
    let began = Instant::now();
    failpoint::pass(Place::EventDeliverBefore);
    let handed = tokio::time::timeout(DELIVERY_TIME_MAX, sink.deliver(&due.event)).await;
    failpoint::pass(Place::EventDeliverAfter);
    let too_long = || Err(SinkError(format!("no answer within {} s", DELIVERY_TIME_MAX.as_secs())));
    let handed = handed.unwrap_or_else(|_| too_long());
    (due, began.elapsed(), handed)
}

/// What is to be noted of a try, and when it is worth to look again.
fn judge(
    engine: &Engine,
    sink: &str,
    due: &Due,
    took: Duration,
    handed: Result<(), SinkError>,
    random: &mut Random,
) -> (Try, Duration) {
    let settings = &engine.shared.world.settings;
    let now = (settings.wall_clock)().0;
    let attempts = due.attempts.saturating_add(1);
    let mut tried = Try {
        state: DeliveryState::Delivered,
        attempts,
        tried_ms: due.tried_ms.saturating_add(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        not_before: now,
        error: None,
    };
    let Err(SinkError(error)) = handed else {
        tracing::debug!(sink, job = due.event.job_id, status = due.event.status, "event delivered");
        return (tried, EVERY);
    };
    let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
    let (job, status) = (&due.event.job_id, &due.event.status);
    let delay = match settings.delivery.after_failure(attempts, tried.tried_ms, random) {
        Verdict::Again { delay_ms } => {
            // The first time is worth a line; a sink that is down for hours is not worth one for each job and minute.
            if attempts == 1 {
                tracing::warn!(sink, job, status, error, after_ms = delay_ms, "event not delivered, will retry");
            } else {
                tracing::debug!(sink, job, status, attempts, error, after_ms = delay_ms, "event not delivered");
            }
            tried.state = DeliveryState::Pending;
            tried.tried_ms = tried.tried_ms.saturating_add(delay_ms);
            tried.not_before = now.saturating_add(i64::try_from(delay_ms).unwrap_or(i64::MAX));
            Duration::from_millis(delay_ms)
        }
        Verdict::GiveUp => {
            tracing::warn!(sink, job, status, attempts, error, "event given up: it was not delivered in time");
            tried.state = DeliveryState::GivenUp;
            EVERY
        }
    };
    tried.error = Some(error);
    (tried, delay)
}
