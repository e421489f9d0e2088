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
use std::sync::{Arc, Mutex, PoisonError};

use longshore_core::rate::{Limiter, Rate};
use longshore_core::run;
use longshore_core::time::{Tick, Timestamp};
use longshore_store::{Fatal, Records};
use longshore_wire::{ApiError, Operation, Request, Response};
use tokio::time::Instant;

pub use error::{Dialect, JobError};
pub use operations::OPERATIONS;
/// What can be done to objects, typed: those that do not run here yet are read in full all the same.
pub use shape::operation;
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
    /// Whether a job waits for its confirmation where the request does not say (rule L-3, C-18).
    pub confirmation_default: bool,
    /// The names of errors.
    pub dialect: Dialect,
    /// Requests that one account may make; `None`: any number.
    pub rate: Option<Rate>,
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
            confirmation_default: true,
            dialect: Dialect::default(),
            rate: None,
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
    limiter: Option<Arc<Mutex<Limiter>>>,
    /// Where the limiter's clock starts.
    opened: Instant,
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
        let limiter = settings.rate.map(|rate| Arc::new(Mutex::new(Limiter::new(rate))));
        Ok(Self { table, settings, engine, limiter, opened: Instant::now() })
    }

    /// Answers one request of the S3 Control API, errors included. `host_account` is the account that the host names.
    pub async fn serve(&self, request: Request, host_account: Option<&str>) -> Response {
        let id = request.request_id.clone();
        let answer = match self.admit(&request, host_account) {
            Ok(()) => {
                let not_found = self.tell(&JobError::NoSuchResource);
                let wrong_method = self.tell(&JobError::MethodNotAllowed);
                longshore_wire::operation::serve(OPERATIONS, self, request, not_found, wrong_method).await
            }
            Err(error) => Err(self.tell(&error)),
        };
        answer.unwrap_or_else(|error| error.s3_control(&id))
    }

    fn admit(&self, request: &Request, host_account: Option<&str>) -> Result<(), JobError> {
        let caller = request.caller.account();
        if let Some(limiter) = &self.limiter {
            let now = Tick(u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX));
            // A panic between two counts leaves counts behind all the same.
            if !limiter.lock().unwrap_or_else(PoisonError::into_inner).admit(caller, now) {
                return Err(JobError::TooManyRequests);
            }
        }
        operations::check_account(operations::account_header(request), host_account, caller)
    }

    /// What the caller is told of an error, in the dialect of this server.
    pub fn tell(&self, error: &JobError) -> ApiError {
        error.told_in(self.settings.dialect)
    }

    fn told(&self, result: Result<Response, JobError>) -> Result<Response, ApiError> {
        result.map_err(|error| self.tell(&error))
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
