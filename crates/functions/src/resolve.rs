//! From what a caller wrote to the function it means. Source: Lambda spec 2.5, 2.6 steps 3 to 5 and 7.

use std::sync::Arc;

use longshore_wire::Call;
use longshore_wire::arn::{FunctionName, NameShape};

use crate::catalogue::Entry;
use crate::error::FunctionError;
use crate::function::{Function, Resource, Standing, Version};
use crate::operations::update_in_progress;
use crate::validate::Violations;
use crate::{Functions, Settings};

/// The operations whose name is of the shape `FunctionName`; all others take the wider one. Source: the API model.
const NARROW: &[&str] = &[
    "CreateAlias",
    "CreateFunction",
    "CreateFunctionUrlConfig",
    "DeleteAlias",
    "DeleteFunctionConcurrency",
    "DeleteFunctionUrlConfig",
    "DeleteProvisionedConcurrencyConfig",
    "GetAlias",
    "GetFunctionConcurrency",
    "GetFunctionUrlConfig",
    "GetProvisionedConcurrencyConfig",
    "ListAliases",
    "ListFunctionUrlConfigs",
    "ListProvisionedConcurrencyConfigs",
    "PublishVersion",
    "PutFunctionConcurrency",
    "PutProvisionedConcurrencyConfig",
    "UpdateAlias",
    "UpdateFunctionCode",
    "UpdateFunctionConfiguration",
    "UpdateFunctionUrlConfig",
];

/// What keeps a function that was just made from being used. Source: Lambda spec 2.4, 3.5.
pub(crate) const PENDING: &str =
    "The operation cannot be performed at this time. The function is currently in the following state: Pending";

/// A function of this server as the caller named it; whether it exists is another question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub name: String,
    /// From the name or from `?Qualifier=`, which agree if both are there.
    pub qualifier: Option<String>,
}

impl Named {
    /// What the name and the qualifier mean together, whether it is there or not.
    pub fn resource(&self) -> Resource {
        Resource::of(self.qualifier.as_deref())
    }
}

impl Functions {
    /// Reads the name in the path and the qualifier in the query.
    pub(crate) fn named(&self, call: &Call, action: &str) -> Result<Named, FunctionError> {
        self.named_with(call, action, Violations::default())
    }

    /// As [`Functions::named`], where other parts of the request breach the model's constraints perhaps: one answer names
    /// all.
    pub(crate) fn named_with(&self, call: &Call, action: &str, others: Violations) -> Result<Named, FunctionError> {
        let qualifier = call.request.query.get("Qualifier");
        self.name_with(call.label("FunctionName"), qualifier, call.request.caller.account(), action, others)
    }

    /// As [`Functions::named`], for operations that concern the whole function only.
    pub(crate) fn named_unqualified(&self, call: &Call, action: &str) -> Result<Named, FunctionError> {
        let named = self.named(call, action)?;
        if named.qualifier.as_deref().is_some_and(|q| q != "$LATEST") {
            return Err(FunctionError::Parameter(
                "This operation is permitted on Lambda functions only. Aliases and versions do not support this \
                 operation. Please specify either a function name or an unqualified function ARN."
                    .into(),
            ));
        }
        Ok(named)
    }

    /// Checks form, then region and account. `caller` is the account that asks; `action` as in `lambda:GetFunction`.
    pub(crate) fn name(
        &self,
        text: &str,
        qualifier: Option<&str>,
        caller: &str,
        action: &str,
    ) -> Result<Named, FunctionError> {
        self.name_with(text, qualifier, caller, action, Violations::default())
    }

    fn name_with(
        &self,
        text: &str,
        qualifier: Option<&str>,
        caller: &str,
        action: &str,
        mut violations: Violations,
    ) -> Result<Named, FunctionError> {
        let shape = if NARROW.contains(&action) { NameShape::Function } else { NameShape::Namespaced };
        let parsed = FunctionName::parse_as(text, shape);
        violations.length(text, "functionName", 1, shape.chars_max());
        violations.pattern(text, "functionName", parsed.is_some(), shape.pattern());
        if let Some(qualifier) = qualifier {
            violations.qualifier(qualifier);
        }
        violations.finish()?;
        let Some(FunctionName { region, account, name, qualifier: embedded }) = parsed else {
            return Err(FunctionError::Parameter("The function name does not read.".into()));
        };
        if let (Some(embedded), Some(given)) = (&embedded, qualifier)
            && embedded != given
        {
            return Err(FunctionError::Parameter(
                "The derived qualifier from the function name does not match the specified qualifier.".into(),
            ));
        }
        let settings = &self.inner.settings;
        if let Some(region) = region.filter(|region| *region != settings.region) {
            return Err(FunctionError::Missing(format!(
                "Functions from '{region}' are not reachable in this region ('{}')",
                settings.region
            )));
        }
        let owner = account.as_deref().unwrap_or(caller);
        if owner != settings.account || caller != settings.account {
            let mut arn = format!("arn:aws:lambda:{}:{owner}:function:{name}", settings.region);
            if let Some(qualifier) = embedded.as_deref().or(qualifier) {
                arn = format!("{arn}:{qualifier}");
            }
            return Err(FunctionError::Denied(format!(
                "User: arn:aws:iam::{caller}:root is not authorized to perform: lambda:{action} on resource: {arn} \
                 because no resource-based policy allows the lambda:{action} action"
            )));
        }
        Ok(Named { name, qualifier: embedded.or_else(|| qualifier.map(str::to_owned)) })
    }

    /// The function, settled, and the version that the qualifier leads to.
    pub(crate) async fn find(&self, named: &Named) -> Result<(Arc<Entry>, Arc<Version>), FunctionError> {
        let entry = self.inner.catalogue.get(&named.name).await?.ok_or_else(|| self.not_found(named))?;
        let version = entry.function.version(named.qualifier.as_deref()).ok_or_else(|| self.not_found(named))?.clone();
        Ok((entry, version))
    }

    /// The function as it stands, for whoever wants to change it: nothing is settled by that.
    pub(crate) async fn stand(&self, named: &Named) -> Result<Arc<Entry>, FunctionError> {
        self.inner.catalogue.stand(&named.name).await?.ok_or_else(|| self.not_found(named))
    }

    /// The ARN of a function, a version or an alias.
    pub(crate) fn resource_arn(&self, name: &str, resource: &Resource) -> String {
        let arn = self.inner.settings.function_arn(name);
        match resource.qualifier() {
            Some(qualifier) => format!("{arn}:{qualifier}"),
            None => arn,
        }
    }

    /// The error for a version or an alias that a function does not have, where AWS tells the two apart.
    pub(crate) fn resource_not_found(&self, name: &str, resource: &Resource) -> FunctionError {
        let arn = self.resource_arn(name, resource);
        match resource {
            Resource::Alias(_) => FunctionError::Missing(format!("Cannot find alias arn: {arn}")),
            Resource::Function | Resource::Version(_) => FunctionError::NotFound(arn),
        }
    }

    /// The error for a function, version or alias that is not there: the ARN as asked for.
    pub(crate) fn not_found(&self, named: &Named) -> FunctionError {
        let arn = self.inner.settings.function_arn(&named.name);
        FunctionError::NotFound(match &named.qualifier {
            Some(qualifier) => format!("{arn}:{qualifier}"),
            None => arn,
        })
    }

    /// As [`Functions::not_found`] where AWS names `$LATEST` although nobody asked for it: Invoke, concurrency.
    pub(crate) fn latest_not_found(&self, named: &Named) -> FunctionError {
        let qualifier = named.qualifier.clone().or(Some("$LATEST".into()));
        self.not_found(&Named { name: named.name.clone(), qualifier })
    }
}

/// Refuses a change by someone who has not seen the last one. Source: Lambda spec 3.6.
pub(crate) fn check_revision(function: &Function, given: Option<&str>) -> Result<(), FunctionError> {
    match given {
        Some(given) if given != function.latest().revision_id => Err(FunctionError::Revision),
        _ => Ok(()),
    }
}

/// As [`check_revision`], of a call on the policy of what has this revision.
pub(crate) fn check_policy_revision(revision: &str, given: Option<&str>) -> Result<(), FunctionError> {
    match given {
        Some(given) if given != revision => Err(FunctionError::PolicyRevision),
        _ => Ok(()),
    }
}

/// Refuses a change while the last one is in progress. Source: Lambda spec 3.5.
pub(crate) fn check_at_rest(settings: &Settings, function: &Function) -> Result<(), FunctionError> {
    match function.latest().standing {
        Standing::Settled => Ok(()),
        Standing::Creating => Err(FunctionError::Conflict(PENDING.into())),
        Standing::Updating => Err(update_in_progress(settings, &function.name)),
    }
}
