//! The S3 Control job API and the engine behind it.
//!
//! `operations/*` answer requests, `ledger` keeps jobs, `engine` runs them through the two doors in `ports`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod engine;
mod error;
pub mod ledger;
mod operations;
pub mod ports;
mod shape;
mod table;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use longshore_core::job::Status;
use longshore_core::rate::{Limiter, Rate};
use longshore_core::time::{Tick, Timestamp};
use longshore_core::{delivery, run};
use longshore_store::{Fatal, Records};
use longshore_wire::{ApiError, Denied, Operation, Request, Response};
use tokio::time::Instant;

use crate::ledger::{Census, Embedded, Ledger};

pub use engine::{Boxed, Ground, Pretend, Totals};
pub use error::{Dialect, JobError};
pub use operations::{OPERATIONS, OWN_OPERATIONS};
/// What can be done to objects, typed: those that do not run here yet are read in full all the same.
pub use shape::operation;
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
    /// Whether a job is to be confirmed that does not say (C-18).
    pub confirmation_default: bool,
    /// How long a job may wait for its confirmation. AWS: 30 days.
    pub confirmation_ms_max: i64,
    /// How long a job is kept after its end. AWS: 90 days.
    pub retention_ms: i64,
    /// Jobs kept at most; beyond, the earliest ended go before their time. 0: any number.
    pub retained_max: usize,
    /// Where events of jobs go, and how long one is tried.
    pub event_sinks: Vec<Arc<dyn ports::EventSink>>,
    pub delivery: delivery::Policy,
    /// The names of errors.
    pub dialect: Dialect,
    /// Requests that one account may make; `None`: any number.
    pub rate: Option<Rate>,
    /// What the roles of jobs allow.
    pub roles: Arc<dyn ports::Roles>,
    /// What reads inventories in Parquet and ORC.
    pub columnar: Arc<dyn ports::Columnar>,
    /// Where 128 random bits come from: of them IDs and seeds are made. They have to be distinct, not secret.
    pub random: Arc<dyn Fn() -> u128 + Send + Sync>,
    /// What the engine's tasks run on.
    pub ground: Ground,
    /// What the wall clock says; it decides nothing but the dates that are shown, and when an event is handed over again.
    pub wall_clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// How long this server has run, from a start that means nothing: the 30 and the 90 days are reckoned in it.
    pub running: Arc<dyn Fn() -> Tick + Send + Sync>,
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
            confirmation_default: true,
            confirmation_ms_max: 30 * DAY_MS,
            roles: Arc::new(ports::AnyRole),
            columnar: Arc::new(ports::NoTables),
            retention_ms: 90 * DAY_MS,
            retained_max: 0,
            event_sinks: Vec::new(),
            delivery: delivery::Policy::default(),
            dialect: Dialect::default(),
            rate: None,
            random: Arc::new(|| uuid::Uuid::new_v4().as_u128()),
            ground: Ground::default(),
            wall_clock: Arc::new(|| Timestamp(jiff::Timestamp::now().as_millisecond())),
            running: {
                let started = tokio::time::Instant::now();
                Arc::new(move || Tick(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)))
            },
        }
    }
}

/// What there is of jobs, and what was counted since the server began.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Jobs by status, of every status there is.
    pub jobs: Vec<(Status, u64)>,
    pub totals: Totals,
    /// Of all jobs that run.
    pub depths: run::Depths,
    /// Calls that wait for room among those in flight.
    pub waiting_at_gate: u64,
    /// Events that a sink does not have yet.
    pub deliveries_owed: u64,
}

impl Settings {
    /// An ID that nothing else has.
    pub(crate) fn new_id(&self) -> uuid::Uuid {
        uuid::Builder::from_random_bytes((self.random)().to_be_bytes()).into_uuid()
    }

    /// What a source of random numbers starts from.
    pub(crate) fn seed(&self) -> u64 {
        // Of a UUID the second half has two bits that are always the same, the first half six.
        (self.random)() as u64
    }
}

/// The service: cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    ledger: Arc<dyn Ledger>,
    settings: Arc<Settings>,
    engine: engine::Engine,
    limiter: Option<Arc<Mutex<Limiter>>>,
    /// Where the limiter's clock starts.
    opened: Instant,
}

/// The roles that jobs in the database name which are not over: before [`Jobs::open`], which goes on with them. Blocks.
pub fn roles_of_stored_jobs(
    records: &Records,
) -> Result<std::collections::BTreeSet<String>, longshore_store::StoreError> {
    records.read_blocking(table::roles)
}

impl Jobs {
    /// Opens the jobs of a data directory and goes on with those that are not over. `dir` holds pinned manifests,
    /// results and report spools, one folder a job. Must be called inside a Tokio runtime.
    pub async fn open(
        records: Records,
        dir: PathBuf,
        fatal: Fatal,
        settings: Settings,
        objects: Arc<dyn ports::Objects>,
        invoker: Arc<dyn ports::Invoker>,
    ) -> Result<Self, longshore_store::StoreError> {
        let settings = Arc::new(settings);
        let ledger = Embedded::open(records, dir.clone(), fatal.clone(), Arc::clone(&settings)).await?;
        Self::start(Arc::new(ledger), dir, fatal, settings, objects, invoker).await
    }

    /// Starts one server on a ledger, and goes on with the jobs that are not over and that no other server has. `dir` holds
    /// pinned manifests and report spools; servers that share a ledger share it, too. `fatal` is the switch that the
    /// ledger throws. Must be called inside a Tokio runtime.
    pub async fn start(
        ledger: Arc<dyn Ledger>,
        dir: PathBuf,
        fatal: Fatal,
        settings: Arc<Settings>,
        objects: Arc<dyn ports::Objects>,
        invoker: Arc<dyn ports::Invoker>,
    ) -> Result<Self, longshore_store::StoreError> {
        let world = engine::World {
            ledger: Arc::clone(&ledger),
            dir,
            fatal,
            doors: engine::Doors::new(objects, invoker, Arc::clone(&settings.roles)),
            settings: Arc::clone(&settings),
        };
        let engine = engine::Engine::start(world).await?;
        let limiter = settings.rate.map(|rate| Arc::new(Mutex::new(Limiter::new(rate))));
        Ok(Self { ledger, settings, engine, limiter, opened: Instant::now() })
    }

    /// Answers one request of the S3 Control API, errors included. `host_account` is the account that the host names.
    pub async fn serve(&self, request: Request, host_account: Option<&str>) -> Response {
        let id = request.request_id.clone();
        let caller = request.caller.account();
        let admitted = self
            .admit(caller)
            .and_then(|()| operations::check_account(operations::account_header(&request), host_account, caller));
        let answer = match admitted {
            Ok(()) => {
                let not_found = self.tell(&JobError::NoSuchResource);
                let wrong_method = self.tell(&JobError::MethodNotAllowed);
                let denied = |why: &Denied| self.tell(&JobError::Denied(Box::new(why.clone())));
                longshore_wire::operation::serve(OPERATIONS, self, request, not_found, wrong_method, denied).await
            }
            Err(error) => Err(self.tell(&error)),
        };
        answer.unwrap_or_else(|error| error.s3_control(&id))
    }

    pub(crate) fn job_arn(&self, id: &str) -> String {
        format!("arn:aws:s3:{}:{}:job/{id}", self.settings.region, self.settings.account)
    }

    /// What there is and what was counted since the server began.
    pub async fn metrics(&self) -> Result<Metrics, longshore_store::StoreError> {
        let Census { jobs, deliveries_owed } = self.ledger.census().await?;
        let (totals, depths, waiting_at_gate) = self.engine.total();
        let of = |status| jobs.iter().find(|(found, _)| *found == status).map_or(0, |(_, jobs)| *jobs);
        let jobs = Status::ALL.into_iter().map(|status| (status, of(status))).collect();
        Ok(Metrics { jobs, totals, depths, waiting_at_gate, deliveries_owed })
    }

    /// Answers one request of our own API below `/_longshore/v1/`, in JSON, errors included. It may name its account as
    /// S3 Control's do, and then it must be the caller's.
    pub async fn serve_own(&self, request: Request, host_account: Option<&str>) -> Response {
        let id = request.request_id.clone();
        let caller = request.caller.account();
        let named = if request.headers.contains_key("x-amz-account-id") {
            operations::account_header(&request)
        } else {
            Some(caller)
        };
        let admitted = self.admit(caller).and_then(|()| operations::check_account(named, host_account, caller));
        let answer = match admitted {
            Ok(()) => {
                let (not_found, wrong_method) =
                    (self.tell(&JobError::NoSuchResource), self.tell(&JobError::MethodNotAllowed));
                let denied = |why: &Denied| self.tell(&JobError::Denied(Box::new(why.clone())));
                longshore_wire::operation::serve(OWN_OPERATIONS, self, request, not_found, wrong_method, denied).await
            }
            Err(error) => Err(self.tell(&error)),
        };
        answer.unwrap_or_else(|error| error.json(&id))
    }

    /// Counts a request of this account against its rate.
    fn admit(&self, caller: &str) -> Result<(), JobError> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        let now = Tick(u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX));
        // A panic between two counts leaves counts behind all the same.
        match limiter.lock().unwrap_or_else(PoisonError::into_inner).admit(caller, now) {
            true => Ok(()),
            false => Err(JobError::TooManyRequests),
        }
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
