//! Where versions are run: the function host, seen from the API.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use longshore_core::histogram::Histogram;

use crate::host::figures::FunctionStats;
use crate::host::log_pages::{Begin, Cursor, Page};
use crate::host::{Call, Deployment, Host, Outcome, Provisioning, Terms};

/// The host's side of an operation. Two of them: the host itself, and in tests a scripted one, since what the API
/// answers must not depend on which interpreters a machine has.
#[async_trait::async_trait]
pub(crate) trait Environments: Send + Sync + 'static {
    async fn invoke(&self, deployment: Arc<Deployment>, call: Call) -> Outcome;
    fn slots(&self, deployment: &Deployment) -> u32;
    /// How many calls of `name` at once are of use now, whatever may run.
    fn of_use(&self, name: &str) -> u32;
    /// Lets go of the environments of a deployment that is no more, and answers its calls that wait with
    /// [`Outcome::Gone`].
    fn retire(&self, deployment_id: &str);
    /// Says what of the concurrency is the function's own.
    fn set_terms(&self, name: &str, terms: &Terms);
    /// How far the provisioned concurrency of a deployment is.
    fn provisioning(&self, deployment_id: &str) -> Provisioning;
    /// How many environments may be provisioned, of all functions together.
    fn provisioned_max(&self) -> u32;
    /// Says that calls are about to come, so many at once.
    fn prepare(&self, deployment: &Arc<Deployment>, wanted: u32);
    /// The version of what runs `runtime` on this machine, empty for a `bootstrap`; if nothing does, what would change
    /// that. May look for programs: blocks shortly.
    fn check_runtime(&self, runtime: &str) -> Result<String, String>;
    /// A page of what `name` printed. Blocks shortly.
    fn log_page(&self, name: &str, begin: Begin) -> io::Result<Page>;
    /// What was counted of each function since [`Environments::counted_since_ms`], milliseconds since 1970.
    fn stats(&self) -> BTreeMap<String, FunctionStats>;
    fn counted_since_ms(&self) -> i64;
    /// A call of `name` was refused, by whomever.
    fn count_throttle(&self, name: &str, reason: &'static str);
    /// Events of `name` that had been accepted were dropped, so many.
    fn count_dropped_events(&self, name: &str, events: u64, reason: &'static str);
    /// How long environments of `name` took to become ready, since [`Environments::counted_since_ms`].
    fn cold_starts(&self, name: &str) -> Histogram;
    /// `name` is deleted: what was counted of it is not of a later function with this name.
    fn forget_figures(&self, name: &str);
}

#[async_trait::async_trait]
impl Environments for Host {
    async fn invoke(&self, deployment: Arc<Deployment>, call: Call) -> Outcome {
        Host::invoke(self, deployment, call).await
    }

    fn slots(&self, deployment: &Deployment) -> u32 {
        Host::slots(self, deployment)
    }

    fn retire(&self, deployment_id: &str) {
        Host::retire(self, deployment_id);
    }

    fn of_use(&self, name: &str) -> u32 {
        Host::of_use(self, name)
    }

    fn set_terms(&self, name: &str, terms: &Terms) {
        Host::set_terms(self, name, terms);
    }

    fn provisioning(&self, deployment_id: &str) -> Provisioning {
        Host::provisioning(self, deployment_id)
    }

    fn provisioned_max(&self) -> u32 {
        Host::provisioned_max(self)
    }

    fn prepare(&self, deployment: &Arc<Deployment>, wanted: u32) {
        Host::prepare(self, deployment, wanted);
    }

    fn check_runtime(&self, runtime: &str) -> Result<String, String> {
        Host::check_runtime(self, runtime).map(|found| found.version)
    }

    fn log_page(&self, name: &str, begin: Begin) -> io::Result<Page> {
        Host::log_page(self, name, begin)
    }

    fn stats(&self) -> BTreeMap<String, FunctionStats> {
        Host::stats(self)
    }

    fn counted_since_ms(&self) -> i64 {
        Host::counted_since_ms(self)
    }

    fn count_throttle(&self, name: &str, reason: &'static str) {
        Host::count_throttle(self, name, reason);
    }

    fn count_dropped_events(&self, name: &str, events: u64, reason: &'static str) {
        Host::count_dropped_events(self, name, events, reason);
    }

    fn cold_starts(&self, name: &str) -> Histogram {
        Host::cold_starts(self, name)
    }

    fn forget_figures(&self, name: &str) {
        Host::forget_figures(self, name);
    }
}

/// No host at all: functions are kept and shown, and each call of one is refused.
pub(crate) struct Nowhere;

#[async_trait::async_trait]
impl Environments for Nowhere {
    async fn invoke(&self, _: Arc<Deployment>, _: Call) -> Outcome {
        Outcome::Fault("there is no host here that functions could run on".into())
    }

    fn slots(&self, _: &Deployment) -> u32 {
        1
    }

    fn of_use(&self, _: &str) -> u32 {
        1
    }

    fn retire(&self, _: &str) {}

    fn set_terms(&self, _: &str, _: &Terms) {}

    fn provisioning(&self, _: &str) -> Provisioning {
        Provisioning::default()
    }

    fn provisioned_max(&self) -> u32 {
        1_000
    }

    fn prepare(&self, _: &Arc<Deployment>, _: u32) {}

    fn check_runtime(&self, _: &str) -> Result<String, String> {
        Ok(String::new())
    }

    fn log_page(&self, _: &str, _: Begin) -> io::Result<Page> {
        let next = Cursor::parse("0-0").ok_or(io::ErrorKind::InvalidData)?;
        Ok(Page { lines: Vec::new(), next, more: false, missed: false })
    }

    fn stats(&self) -> BTreeMap<String, FunctionStats> {
        BTreeMap::new()
    }

    fn counted_since_ms(&self) -> i64 {
        0
    }

    fn count_throttle(&self, _: &str, _: &'static str) {}

    fn count_dropped_events(&self, _: &str, _: u64, _: &'static str) {}

    fn cold_starts(&self, _: &str) -> Histogram {
        Histogram::default()
    }

    fn forget_figures(&self, _: &str) {}
}
