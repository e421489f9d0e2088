//! Provisioned concurrency as the API shows it: what may have it, and how far it is. Source: Lambda spec 5.1.

use longshore_wire::Call;
use serde_json::{Value, json};

use crate::Functions;
use crate::catalogue::Entry;
use crate::error::FunctionError;
use crate::function::{Function, ProvisionedConcurrency, VersionNumber};
use crate::resolve::Named;
use crate::shape::last_modified;
use crate::validate::Violations;

impl Functions {
    /// The alias or published version that a call names. `refusal` is what is said to `$LATEST`.
    pub(crate) fn named_provisioned(
        &self,
        call: &Call,
        action: &str,
        refusal: &str,
    ) -> Result<(Named, String), FunctionError> {
        let named = self.named(call, action)?;
        let Some(qualifier) = named.qualifier.clone() else {
            let mut v = Violations::default();
            v.missing("qualifier");
            v.finish()?;
            return Err(FunctionError::Parameter(refusal.into()));
        };
        if VersionNumber::parse(&qualifier) == Some(VersionNumber::LATEST) {
            return Err(FunctionError::Parameter(refusal.into()));
        }
        Ok((named, qualifier))
    }

    /// The error for an alias or version that is not there, be it for want of the whole function.
    pub(crate) fn missing_provisioned(&self, named: &Named, qualifier: &str) -> FunctionError {
        match VersionNumber::parse(qualifier) {
            Some(_) => self.not_found(named),
            None => {
                let arn = self.inner.settings.function_arn(&named.name);
                FunctionError::Missing(format!("Cannot find alias arn: {arn}:{qualifier}"))
            }
        }
    }

    /// One configuration, with what has become of it.
    pub(crate) fn provisioned_shape(
        &self,
        entry: &Entry,
        qualifier: &str,
        provisioned: &ProvisionedConcurrency,
    ) -> Value {
        let (mut ready, mut complete, mut failed_by_function) = (0, true, None);
        for (number, share) in entry.function.provisioned_of(qualifier, provisioned) {
            let Some(deployment) = entry.deployments.get(&number) else { continue };
            let is = self.inner.environments.provisioning(&deployment.id);
            ready += is.ready.min(share);
            complete &= is.complete || share == 0;
            failed_by_function = failed_by_function.or(is.failed_by_function);
        }
        let (status, reason) = match (failed_by_function, complete) {
            (Some(true), _) => ("FAILED", Some("FUNCTION_ERROR_INIT_FAILURE")),
            (Some(false), _) => ("FAILED", Some("The server could not start the environments; its log says why.")),
            (None, true) => ("READY", None),
            (None, false) => ("IN_PROGRESS", None),
        };
        let mut shape = shape(provisioned, ready, status);
        if let Some(reason) = reason {
            shape["StatusReason"] = reason.into();
        }
        shape
    }
}

/// A configuration of whose environments so many are ready.
pub(crate) fn shape(provisioned: &ProvisionedConcurrency, ready: u32, status: &str) -> Value {
    json!({
        "RequestedProvisionedConcurrentExecutions": provisioned.requested,
        "AvailableProvisionedConcurrentExecutions": ready,
        "AllocatedProvisionedConcurrentExecutions": ready,
        "Status": status,
        "LastModified": last_modified(provisioned.modified_ms),
    })
}

/// Refuses a second configuration of a version, be it by its number or by an alias of it.
pub(crate) fn check_alone(function: &Function, qualifier: &str) -> Result<(), FunctionError> {
    let own: Vec<VersionNumber> = function.versions_behind(qualifier).into_iter().map(|(number, _)| number).collect();
    let by_number = VersionNumber::parse(qualifier).is_some();
    for other in function.provisioned.keys().filter(|other| *other != qualifier) {
        if function.versions_behind(other).iter().any(|(number, _)| own.contains(number)) {
            return Err(FunctionError::Conflict(if by_number {
                "Version is pointed by a Provisioned Concurrency alias".into()
            } else {
                "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version".into()
            }));
        }
    }
    Ok(())
}
