//! The Lambda API, and the host that runs functions.
//!
//! [`Functions`] is the API: [`operations`] answer requests, [`table`] and `catalogue` keep functions, [`code`] keeps
//! what they run, `invocation` leads a call to a version and the version to [`host`]. The host knows nothing of names,
//! versions or HTTP errors: it runs a [`host::Deployment`].

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod alias;
mod catalogue;
pub mod code;
mod download;
mod environments;
pub mod error;
mod event_invoke_config;
mod event_queue;
pub mod function;
pub mod host;
mod invocation;
mod layer;
mod layers;
mod members;
pub mod operations;
mod provisioned;
mod random;
mod resolve;
mod shape;
pub mod table;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::StatusCode;
use longshore_core::permission::{Meant, Principal, Statement};
use longshore_store::Records;
use longshore_wire::operation::{self, Routed};
use longshore_wire::{ApiError, Denied, Request, Response};

use crate::catalogue::Catalogue;
use crate::code::CodeStore;
use crate::environments::Environments;
use crate::error::FunctionError;
use crate::event_queue::EventQueue;
use crate::host::Host;
use crate::host::figures::FunctionStats;

pub use crate::download::Download;
pub use crate::event_queue::{Clock, EventFigures, EventSettings};
pub use crate::invocation::Invoked;
pub use crate::members::runtimes;
pub use crate::operations::{BodyLimit, NOT_OFFERED, OPERATIONS, OWN_OPERATIONS, body_limit};
pub use crate::table::SCHEMA;
pub use crate::validate::{VARIABLES_BYTES_MAX, is_reserved_variable, is_variable_name, variables_bytes};

/// How often code is looked at that nothing names any more; it is a listing of one folder.
const SWEPT_EVERY: Duration = Duration::from_secs(10 * 60);

/// Whether Lambda can take on an execution role (its ARN) for a function (its name), for a request (its ID).
pub type Assumable = Arc<dyn Fn(&str, &str, &str) -> bool + Send + Sync>;

/// Whom an ARN of IAM means now.
pub type Means = Arc<dyn Fn(&str) -> Meant + Send + Sync>;

/// What the API needs to know about the server it is part of.
#[derive(Clone)]
pub struct Settings {
    /// `us-east-1` by default; must look like a region, since clients parse ARNs.
    pub region: String,
    /// Twelve digits.
    pub account: String,
    /// Invocations in flight that the account may have, for GetAccountSettings and for what reserving leaves; how many
    /// environments the machine really runs is the host's setting. AWS's default: 1,000.
    pub account_concurrency: u32,
    /// Bytes of all packages of all versions together. AWS's default: 75 GiB.
    pub code_bytes_max: u64,
    /// How long Invoke waits for a free environment before it answers 429; zero to answer at once, as AWS does, which
    /// has more machines. First value: 1 s. The batch engine waits as long as it likes.
    pub queue_wait: Duration,
    /// The file with the key that seals environment variables; made if it is not there. `None`: `variables.key` beside
    /// the folder of code, outside the database and inside the data directory.
    pub variables_key: Option<PathBuf>,
    /// First value: any role, for nobody asks.
    pub assumable: Assumable,
    /// First value: nobody knows.
    pub means: Means,
    /// Whether the API is served over TLS, so that links to code begin with `https`. First value: no.
    pub tls: bool,
    /// Invocations of the type `Event`.
    pub events: EventSettings,
    /// How long a new or an updated function stays `Pending` or `InProgress` if nobody looks at it. First value: 500 ms.
    /// Source: `docs/decisions/0018-a-function-settles-when-it-is-looked-at.md`.
    pub settle: Duration,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("region", &self.region).field("account", &self.account).finish_non_exhaustive()
    }
}

impl Settings {
    /// AWS's default limits.
    pub fn new(region: impl Into<String>, account: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            account: account.into(),
            account_concurrency: 1_000,
            code_bytes_max: 80_530_636_800,
            queue_wait: Duration::from_secs(1),
            variables_key: None,
            assumable: Arc::new(|_, _, _| true),
            means: Arc::new(|_| Meant::Unknown),
            tls: false,
            events: EventSettings::default(),
            settle: Duration::from_millis(500),
        }
    }

    /// The unqualified ARN of a function of ours.
    pub(crate) fn function_arn(&self, name: &str) -> String {
        format!("arn:aws:lambda:{}:{}:function:{name}", self.region, self.account)
    }
}

/// Where CreateFunction and UpdateFunctionCode find a package named by bucket and key.
#[async_trait::async_trait]
pub trait CodeSource: Send + Sync + 'static {
    /// Reads one object whole. More than `bytes_max` bytes is [`SourceError::TooLarge`], found without reading on.
    async fn fetch(
        &self,
        bucket: &str,
        key: &str,
        version_id: Option<&str>,
        bytes_max: usize,
    ) -> Result<bytes::Bytes, SourceError>;
}

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// S3's own code and message: `NoSuchBucket`, `NoSuchKey`, `AccessDenied`.
    #[error("{code}: {message}")]
    S3 { code: String, message: String },
    #[error("the object is larger than asked for")]
    TooLarge,
}

/// The Lambda API of one server. Cheap to clone.
#[derive(Clone)]
pub struct Functions {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    catalogue: Arc<Catalogue>,
    code: CodeStore,
    source: Arc<dyn CodeSource>,
    environments: Arc<dyn Environments>,
    events: Arc<EventQueue>,
    /// Signs download links. New at every start: a link outlives its ten minutes in no case.
    link_key: [u8; 32],
}

impl Functions {
    /// Reads the functions and sweeps code that none of them names. Blocks; for start-up, on a tokio runtime.
    ///
    /// `records` must have been opened with [`SCHEMA`]; `code_dir` must exist and be ours alone.
    pub fn open(
        records: Records,
        host: Host,
        source: Arc<dyn CodeSource>,
        code_dir: &Path,
        settings: Settings,
    ) -> Result<Self, FunctionError> {
        Self::with_environments(records, Arc::new(host), source, code_dir, settings)
    }

    /// As [`Functions::open`], without a host: functions are kept and shown, and each call of one is refused. For tests of what stands
    /// before the API.
    pub fn without_host(
        records: Records,
        source: Arc<dyn CodeSource>,
        code_dir: &Path,
        settings: Settings,
    ) -> Result<Self, FunctionError> {
        Self::with_environments(records, Arc::new(environments::Nowhere), source, code_dir, settings)
    }

    pub(crate) fn with_environments(
        records: Records,
        environments: Arc<dyn Environments>,
        source: Arc<dyn CodeSource>,
        code_dir: &Path,
        settings: Settings,
    ) -> Result<Self, FunctionError> {
        let code = CodeStore::open(code_dir, records.fatal().clone())?;
        let events = Arc::new(EventQueue::open(records.clone(), &settings.events)?);
        let beside = || code_dir.parent().unwrap_or(code_dir).join("variables.key");
        let key = settings.variables_key.clone().unwrap_or_else(beside);
        let host = environments.clone();
        let catalogue = Arc::new(Catalogue::open(records, code.clone(), host, &key, settings.settle)?);
        code.sweep(&catalogue.code_in_use()).map_err(code::CodeError::Io)?;
        catalogue.merge_layers()?;
        // Not waited for: what it changes is where values lie, and no reader sees a difference.
        tokio::spawn(catalogue.clone().seal_rows());
        let mut link_key = [0; 32];
        getrandom::fill(&mut link_key)
            .map_err(|e| FunctionError::Fault(format!("the system has no random numbers: {e}")))?;
        let inner = Arc::new(Inner { settings, catalogue, code, source, environments, events, link_key });
        tokio::spawn(sweep(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// Answers one request of the Lambda API. Never fails: errors are answers.
    pub async fn serve(&self, request: Request) -> Response {
        let id = request.request_id.clone();
        let offered = matches!(operation::route(OPERATIONS, &request.method, &request.path), Routed::Found(..));
        let operations = if offered { OPERATIONS } else { operations::NOT_OFFERED };
        let unknown = operations::unknown(&request.method, &request.path).told();
        let denied = |why: &Denied| FunctionError::Denied(why.to_string()).told();
        let answer = operation::serve(operations, self, request, unknown.clone(), unknown, denied).await;
        answer.unwrap_or_else(|told| told.lambda()).with_header("x-amzn-requestid", &id.0)
    }

    /// Answers one request of our own API below [`Functions::OWN_PREFIX`], in JSON, errors included.
    pub async fn serve_own(&self, request: Request) -> Response {
        let id = request.request_id.clone();
        let refused = |status, code: &'static str, message: &str| ApiError::new(status, code, message);
        let unknown = refused(StatusCode::NOT_FOUND, "NoSuchResource", "There is nothing at this path.");
        let wrong_method = refused(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "The specified method is not allowed against this resource.",
        );
        let denied = |why: &Denied| refused(StatusCode::FORBIDDEN, "AccessDenied", &why.to_string());
        let answer = operation::serve(OWN_OPERATIONS, self, request, unknown, wrong_method, denied).await;
        answer.unwrap_or_else(|told| told.json(&id))
    }

    /// Changes whenever a function, an alias, a version or a policy of one does.
    pub fn generation(&self) -> u64 {
        self.inner.catalogue.generation()
    }

    /// The execution roles that versions of functions name.
    pub fn role_arns(&self) -> std::collections::BTreeSet<String> {
        let snapshot = self.inner.catalogue.snapshot();
        let versions = snapshot.values().flat_map(|entry| entry.function.versions.values());
        versions.map(|version| version.configuration.role.clone()).collect()
    }

    /// The statements of policies of functions, versions and aliases that let users or roles do more than invoke.
    pub fn statements_beyond_invoke(&self) -> Vec<Statement> {
        let snapshot = self.inner.catalogue.snapshot();
        let policies = snapshot.values().flat_map(|entry| entry.function.policies.values());
        let beyond = |statement: &&Statement| {
            let service = matches!(statement.principal, Principal::Service(_));
            // InvokeFunction, InvokeFunctionUrl, and what else begins so.
            !service && !statement.action.to_ascii_lowercase().starts_with("lambda:invoke")
        };
        policies.flat_map(|policy| &policy.statements).filter(beyond).cloned().collect()
    }

    /// What was counted of functions since the server began, by their names, and what the queue of events holds.
    pub fn metrics(&self) -> (BTreeMap<String, FunctionStats>, EventFigures) {
        (self.inner.environments.stats(), *self.inner.events.figures().borrow())
    }

    /// What the paths of our own API on functions begin with.
    pub const OWN_PREFIX: &str = "/_longshore/v1/functions/";
}

/// Removes code that nothing names any more, now and then, as long as there is an API.
async fn sweep(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(SWEPT_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        // Asked first: what is named from here on was put from here on, and is kept for that.
        let wanted = inner.catalogue.code_in_use();
        let swept = tokio::task::spawn_blocking(move || inner.code.sweep_unused(&wanted, Instant::now())).await;
        if let Ok(Err(error)) = swept {
            tracing::warn!(error = &error as &dyn std::error::Error, "code that nothing names could not be removed");
        }
    }
}
