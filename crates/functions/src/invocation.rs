//! One synchronous invocation, from a name to an answer: for Invoke and, without HTTP, for the batch engine.
//!
//! The order of checks is that of Lambda spec 2.6: name, existence, state, payload, then the host's admission.

use std::sync::Arc;

use bytes::Bytes;
use longshore_core::histogram::Histogram;
use longshore_core::start::Start;
use longshore_wire::ApiError;

use crate::Functions;
use crate::catalogue::Entry;
use crate::error::FunctionError;
use crate::event_queue;
use crate::function::{Resource, Standing, VersionNumber};
use crate::host::{self, Deployment, Outcome, Patience};
use crate::random;
use crate::resolve::{Named, PENDING};

/// Bytes of a synchronous payload. Source: Lambda spec 7.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 6_291_456;

/// What became of an invocation that did not come by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invoked {
    /// The function was run: HTTP 200. `function_error` is the header `X-Amz-Function-Error`: an exception, a timeout,
    /// an exit; the payload tells which.
    Answered { payload: Bytes, function_error: bool, executed_version: String },
    /// It was not run, or the host failed: the status, code and message that Invoke would have answered with. A
    /// throttle (429) has its `Reason` among the members.
    Refused(ApiError),
}

/// A version ready to be run.
pub(crate) struct Resolved {
    /// The function, which tells it from a later one of its name.
    pub entry: Arc<Entry>,
    pub deployment: Arc<Deployment>,
    pub version: VersionNumber,
    /// As the function sees it: with the qualifier the caller used, without one if there was none.
    pub invoked_arn: String,
}

/// One random number for an alias's weight.
fn draw() -> Result<u64, FunctionError> {
    getrandom::u64().map_err(|e| FunctionError::Fault(format!("the system has no random numbers: {e}")))
}

impl Functions {
    /// Invokes a function synchronously from inside the server: same names, checks and errors as the Invoke operation,
    /// no HTTP and no signature. `patience` says how long to wait for a free environment; `start` is asked in the moment
    /// in which the function is handed the call, which can be called off until then.
    ///
    /// Dropping the future gives the call up; the function may run on.
    pub async fn invoke(&self, function: &str, payload: Bytes, patience: Patience, start: Option<&Start>) -> Invoked {
        let outcome = async {
            let named = self.name(function, None, &self.inner.settings.account, "InvokeFunction")?;
            // A job may start as soon as its function is made: that it asks counts as a look.
            self.inner.catalogue.get(&named.name).await?;
            let mut resolved = self.resolve(&named).await?;
            let payload = check_payload(payload, "RequestResponse")?;
            let call = host::Call {
                request_id: random::uuid().to_string(),
                invoked_arn: resolved.invoked_arn.clone(),
                payload,
                client_context: None,
                trace_id: None,
                want_log_tail: false,
                patience,
                start: start.cloned(),
            };
            let (payload, function_error, _) = self.dispatch(&named, &mut resolved, call).await?;
            Ok(Invoked::Answered { payload, function_error, executed_version: resolved.version.to_string() })
        };
        outcome.await.unwrap_or_else(|error: FunctionError| Invoked::Refused(error.told()))
    }

    /// How many invocations of `function` the host can run at once now, as far as that is of use, at least 1: one that cannot run at all
    /// (missing, switched off) is for the caller to find out by trying, or nobody would see the error.
    pub fn slots(&self, function: &str) -> u32 {
        let environments = &self.inner.environments;
        let deployments = self.deployments(function);
        let Some((first, others)) = deployments.split_first() else { return 1 };
        // What is provisioned for an alias's other version serves its calls as well.
        let others: u32 = others.iter().map(|other| environments.provisioning(&other.id).wanted).sum();
        let machine = environments.provisioned_max().saturating_add(1);
        let may_run = environments.slots(first).saturating_add(others).min(machine);
        may_run.min(environments.of_use(&first.name)).max(1)
    }

    /// Says that invocations of `function` are about to come, so many at once: environments are started for them where that
    /// takes nothing from anybody. One that is not there is for the invocations to find out.
    pub fn prepare(&self, function: &str, wanted: u32) {
        if let Some(deployment) = self.deployments(function).first() {
            self.inner.environments.prepare(deployment, wanted);
        }
    }

    /// How long environments of `function`, of any of its versions, took to become ready since the server began.
    pub fn cold_starts(&self, function: &str) -> Histogram {
        let named = self.name(function, None, &self.inner.settings.account, "InvokeFunction");
        named.map_or_else(|_| Histogram::default(), |named| self.inner.environments.cold_starts(&named.name))
    }

    /// What an invocation may run now: of an alias its first version, then the other one. None if it is not there.
    fn deployments(&self, function: &str) -> Vec<Arc<Deployment>> {
        let Ok(named) = self.name(function, None, &self.inner.settings.account, "InvokeFunction") else {
            return Vec::new();
        };
        let snapshot = self.inner.catalogue.snapshot();
        let Some(entry) = snapshot.get(&named.name) else { return Vec::new() };
        let numbers = match named.resource() {
            Resource::Function => vec![VersionNumber::LATEST],
            Resource::Version(number) => vec![number],
            Resource::Alias(name) => entry.function.aliases.get(&name).map_or_else(Vec::new, |alias| {
                [Some(alias.version), alias.additional.map(|other| other.version)].into_iter().flatten().collect()
            }),
        };
        numbers.iter().filter_map(|number| entry.deployments.get(number).cloned()).collect()
    }

    /// One atomic read: name and qualifier to deployment. An alias is resolved anew for every invocation, and its weight
    /// drawn. Source: Lambda spec 4.2, 4.3.
    pub(crate) async fn resolve(&self, named: &Named) -> Result<Resolved, FunctionError> {
        let entry = self.inner.catalogue.stand(&named.name).await?.ok_or_else(|| self.latest_not_found(named))?;
        let number = match Resource::of(named.qualifier.as_deref()) {
            Resource::Function => VersionNumber::LATEST,
            Resource::Version(number) => number,
            Resource::Alias(name) => {
                let alias = entry.function.aliases.get(&name).ok_or_else(|| self.latest_not_found(named))?;
                // Most aliases have one version: they cost no random number.
                match alias.additional {
                    None => alias.version,
                    Some(_) => alias.route(draw()?),
                }
            }
        };
        let version = entry.function.versions.get(&number).ok_or_else(|| self.latest_not_found(named))?;
        if version.standing == Standing::Creating {
            return Err(FunctionError::Conflict(PENDING.into()));
        }
        let deployment = entry.deployments.get(&number).expect("made with the entry").clone();
        let mut invoked_arn = self.inner.settings.function_arn(&named.name);
        if let Some(qualifier) = &named.qualifier {
            invoked_arn = format!("{invoked_arn}:{qualifier}");
        }
        Ok(Resolved { entry, deployment, version: number, invoked_arn })
    }

    /// Runs it: payload, whether the function failed, and the end of its log. A call whose version is changed or deleted
    /// while it waits for an environment is resolved again, as `named`; `resolved` is then what ran in the end.
    pub(crate) async fn dispatch(
        &self,
        named: &Named,
        resolved: &mut Resolved,
        mut call: host::Call,
    ) -> Result<(Bytes, bool, Option<Vec<u8>>), FunctionError> {
        let throttled = |reason| {
            self.inner.environments.count_throttle(&named.name, reason);
            Err(FunctionError::Throttled(reason))
        };
        loop {
            if resolved.deployment.concurrency == Some(0) {
                let reason = "ReservedFunctionConcurrentInvocationLimitExceeded";
                self.inner.environments.count_throttle(&named.name, reason);
                return Err(FunctionError::SwitchedOff);
            }
            match self.inner.environments.invoke(resolved.deployment.clone(), call).await {
                Outcome::Answered { payload, function_error, log_tail } => {
                    return Ok((payload, function_error, log_tail));
                }
                Outcome::Throttled { reason } => return throttled(reason),
                Outcome::Gone { call: waited } => {
                    let again = self.resolve(named).await?;
                    // What was made meanwhile under the name is another function, and nobody has called that.
                    if again.entry.function.id != resolved.entry.function.id {
                        return Err(self.latest_not_found(named));
                    }
                    *resolved = again;
                    call = *waited;
                }
                Outcome::Fault(reason) => return Err(self.fault(&resolved.deployment, reason).await),
            }
        }
    }

    /// What a fault of the host is told as: CreateFunction has made sure of code and interpreter, but both may be gone
    /// by now. Asked after the fact, for it costs more than a call. Source: Lambda spec 2.4.
    async fn fault(&self, deployment: &Arc<Deployment>, reason: String) -> FunctionError {
        let (environments, deployment) = (self.inner.environments.clone(), deployment.clone());
        let found = tokio::task::spawn_blocking(move || {
            if !deployment.code_dir.is_dir() {
                return Some(FunctionError::InvalidZipFile(
                    "The function's code is not on this machine any more.".into(),
                ));
            }
            environments.check_runtime(&deployment.runtime).err().map(FunctionError::InvalidRuntime)
        });
        found.await.ok().flatten().unwrap_or(FunctionError::Fault(reason))
    }
}

/// Size, UTF-8, JSON. No payload at all is an empty object, as on AWS. `kind` is the invocation type.
pub(crate) fn check_payload(payload: Bytes, kind: &str) -> Result<Bytes, FunctionError> {
    let bytes_max = if kind == "Event" { event_queue::PAYLOAD_BYTES_MAX } else { PAYLOAD_BYTES_MAX };
    if payload.len() > bytes_max {
        return Err(FunctionError::TooLarge(format!(
            "{} byte payload is too large for the {kind} invocation type (limit {bytes_max} bytes)",
            payload.len()
        )));
    }
    if payload.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    let unread = |reason: String| {
        FunctionError::Content(format!(
            "Could not parse request body into json: Could not parse payload into json: {reason}"
        ))
    };
    // Apart from the parser, which does not look into strings that it skips.
    let text = std::str::from_utf8(&payload).map_err(|e| {
        let at = payload.get(e.valid_up_to()).copied().unwrap_or_default();
        unread(format!("Invalid UTF-8 start byte 0x{at:02x}"))
    })?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|e| unread(e.to_string()))?;
    Ok(payload)
}
