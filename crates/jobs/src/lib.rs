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

use longshore_core::run;
use longshore_core::time::Timestamp;
use longshore_store::{Fatal, Records};
use longshore_wire::{Operation, Request, Response};

use crate::error::JobError;

pub use operations::OPERATIONS;
pub use table::SCHEMA;

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
    /// What reads inventories in Parquet and ORC.
    pub columnar: Arc<dyn ports::Columnar>,
    /// What the wall clock says; it decides nothing but the dates that are shown, and the 30 days.
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
            confirmation_ms_max: 30 * 24 * 60 * 60 * 1_000,
            columnar: Arc::new(ports::NoTables),
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

    /// Stops starting tasks, lets those in flight finish and records them. Jobs go on at the next start.
    pub async fn shutdown(&self) {
        self.engine.shutdown().await;
    }
}

/// The operations this room serves; for the router's inventory and the compatibility page.
pub fn operations() -> &'static [Operation<Jobs>] {
    OPERATIONS
}
