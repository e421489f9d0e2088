//! The S3 Control job API and the engine behind it.
//!
//! `operations/*` answer requests, `table` keeps jobs, `engine` runs them through the two doors in `ports`.

mod engine;
mod error;
mod operations;
pub mod ports;
mod shape;
mod table;

use std::path::PathBuf;
use std::sync::Arc;

use longshore_core::time::Timestamp;
use longshore_core::{delivery, run};
use longshore_store::{Fatal, Records};
use longshore_wire::{Operation, Request, Response};

use crate::error::JobError;

pub use operations::{OPERATIONS, OWN_OPERATIONS};
pub use table::SCHEMA;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// What holds for all jobs. Times in milliseconds.
#[derive(Clone)]
pub struct Settings {
    /// The account that jobs belong to, 12 digits, and the region in their ARNs.
    pub account: String,
    pub region: String,
    /// Jobs Active (or Pausing) at once; the rest wait in Ready. AWS: 6.
    pub active_slots: usize,
    /// Jobs whose manifests are read at once.
    pub preparing_slots: usize,
    /// Invocations at once over all jobs. Lambda's default account limit: 1,000.
    pub concurrency_total_max: u32,
    /// Rows in a manifest, at most.
    pub rows_max: u64,
    /// Ramp-up, retries, threshold, W.
    pub run: run::Settings,
    /// How long a job may wait for its confirmation. AWS: 30 days.
    pub confirmation_ms_max: i64,
    /// How long a job is kept after its end. AWS: 90 days.
    pub retention_ms: i64,
    /// Jobs kept at most; beyond, the earliest ended go before their time. 0: any number.
    pub retained_max: usize,
    /// Where events of jobs go, and how long one is tried.
    pub event_sinks: Vec<Arc<dyn ports::EventSink>>,
    pub delivery: delivery::Policy,
    /// What the wall clock says; it decides nothing but the dates that are shown, the 30 and the 90 days, and when an
    /// event is handed over again.
    pub wall_clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Settings {
    pub fn new(account: &str, region: &str) -> Self {
        Self {
            account: account.to_owned(),
            region: region.to_owned(),
            active_slots: 6,
            preparing_slots: 2,
            concurrency_total_max: 1_000,
            rows_max: 100_000_000,
            run: run::Settings::default(),
            confirmation_ms_max: 30 * DAY_MS,
            retention_ms: 90 * DAY_MS,
            retained_max: 0,
            event_sinks: Vec::new(),
            delivery: delivery::Policy::default(),
            wall_clock: Arc::new(|| Timestamp(jiff::Timestamp::now().as_millisecond())),
        }
    }
}

/// The service: cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    table: table::Table,
    settings: Arc<Settings>,
    engine: engine::Engine,
}

impl Jobs {
    /// Opens the jobs of a data directory and goes on with those that are not over. `dir` holds pinned manifests,
    /// result logs and report spools, one folder a job. Must be called inside a Tokio runtime.
    pub async fn open(
        records: Records,
        dir: PathBuf,
        fatal: Fatal,
        settings: Settings,
        objects: Arc<dyn ports::Objects>,
        invoker: Arc<dyn ports::Invoker>,
    ) -> Result<Self, longshore_store::StoreError> {
        let settings = Arc::new(settings);
        let table = table::Table::new(records, Arc::clone(&settings));
        let world =
            engine::World { table: table.clone(), dir, fatal, settings: Arc::clone(&settings), objects, invoker };
        let engine = engine::Engine::start(world).await?;
        Ok(Self { table, settings, engine })
    }

    /// Answers one request of the S3 Control API, errors included.
    pub async fn serve(&self, request: Request) -> Response {
        let id = request.request_id.clone();
        let account = request.header("x-amz-account-id").map(str::to_owned);
        let answer = match operations::check_account(account.as_deref(), request.caller.account()) {
            Ok(()) => {
                let (not_found, wrong_method) = (JobError::NoSuchResource.told(), JobError::MethodNotAllowed.told());
                longshore_wire::operation::serve(OPERATIONS, self, request, not_found, wrong_method).await
            }
            Err(error) => Err(error.told()),
        };
        answer.unwrap_or_else(|error| error.s3_control(&id))
    }

    /// Answers one request of our own API below `/_longshore/v1/`, in JSON, errors included. It may name its account as
    /// S3 Control's do, and then it must be the caller's.
    pub async fn serve_own(&self, request: Request) -> Response {
        let id = request.request_id.clone();
        let account = request.header("x-amz-account-id").map_or(request.caller.account(), |named| named).to_owned();
        let answer = match operations::check_account(Some(&account), request.caller.account()) {
            Ok(()) => {
                let (not_found, wrong_method) = (JobError::NoSuchResource.told(), JobError::MethodNotAllowed.told());
                longshore_wire::operation::serve(OWN_OPERATIONS, self, request, not_found, wrong_method).await
            }
            Err(error) => Err(error.told()),
        };
        answer.unwrap_or_else(|error| error.json(&id))
    }

    /// Stops starting tasks, lets those in flight finish and records them. Jobs go on at the next start.
    pub async fn shutdown(&self) {
        self.engine.shutdown().await;
    }
}

/// The operations this room serves; for the router's inventory and the compatibility page.
pub fn operations() -> &'static [Operation<Jobs>] {
    OPERATIONS
}
