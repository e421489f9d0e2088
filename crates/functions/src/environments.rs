//! Where versions are run: the function host, seen from the API.

use std::sync::Arc;

use crate::host::{Call, Deployment, Host, Outcome};

/// The host's side of an operation. Two of them: the host itself, and in tests a scripted one, since what the API
/// answers must not depend on which interpreters a machine has.
#[async_trait::async_trait]
pub(crate) trait Environments: Send + Sync + 'static {
    async fn invoke(&self, deployment: Arc<Deployment>, call: Call) -> Outcome;
    fn slots(&self, deployment: &Deployment) -> u32;
    /// Lets go of environments of `name` that no current deployment names.
    fn retire(&self, name: &str);
    /// Answers the calls of a deployment that still wait with [`Outcome::Gone`]: its version was deleted. What runs is
    /// finished.
    fn refuse(&self, deployment: &Deployment);
    /// Whether this machine can run `runtime`; if not, what would change that. May look for programs: blocks shortly.
    fn check_runtime(&self, runtime: &str) -> Result<(), String>;
}

#[async_trait::async_trait]
impl Environments for Host {
    async fn invoke(&self, deployment: Arc<Deployment>, call: Call) -> Outcome {
        Host::invoke(self, deployment, call).await
    }

    fn slots(&self, deployment: &Deployment) -> u32 {
        Host::slots(self, deployment)
    }

    fn retire(&self, name: &str) {
        Host::retire(self, name);
    }

    fn refuse(&self, deployment: &Deployment) {
        Host::refuse(self, deployment);
    }

    fn check_runtime(&self, runtime: &str) -> Result<(), String> {
        Host::check_runtime(self, runtime).map(|_| ())
    }
}
