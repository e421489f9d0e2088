//! Removes a statement from the policy of a function, a version or an alias; with the last one the policy is gone.
//! Source: Lambda spec 6.2.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::operations::answered;
use crate::resolve::check_policy_revision;
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "RemovePermission",
    route: Route("DELETE", "/2015-03-31/functions/{FunctionName}/policy/{StatementId}"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_RemovePermission.html",
    asks: asks!(remove_permission, "RemovePermission"),
    handle: |functions, call| answered(remove_permission(functions, call)),
};

async fn remove_permission(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let sid = call.label("StatementId").to_owned();
    let mut v = Violations::default();
    v.statement_id(&sid, true);
    v.finish()?;
    let given = call.request.query.get("RevisionId").map(str::to_owned);
    let named = functions.named(&call, "RemovePermission")?;
    let resource = named.resource();
    let arn = functions.inner.settings.function_arn(&named.name);
    let resource_missing = functions.resource_not_found(&named.name, &resource);
    functions
        .inner
        .catalogue
        .change(&named.name, move |_, current| {
            let missing = |text: String| FunctionError::Missing(text);
            let mut function = current.ok_or_else(|| missing(format!("No policy found for: {arn}")))?;
            let revision = function.revision(&resource).ok_or(resource_missing)?;
            let none = || missing("No policy is associated with the given resource.".into());
            let policy = function.policies.get(&resource).ok_or_else(none)?;
            let without = policy
                .without(&sid)
                .ok_or_else(|| missing(format!("Statement {sid} is not found in resource policy.")))?;
            check_policy_revision(revision, given.as_deref())?;
            function.put_policy(&resource, without);
            Ok((Next::Put(function), ()))
        })
        .await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}
