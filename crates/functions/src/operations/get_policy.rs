//! The policy of a function, a version or an alias: each has its own. Source: Lambda spec 6.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetPolicy",
    route: Route("GET", "/2015-03-31/functions/{FunctionName}/policy"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetPolicy.html",
    asks: asks!(function, "GetPolicy"),
    handle: |functions, call| answered(get_policy(functions, call)),
};

async fn get_policy(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named(&call, "GetPolicy")?;
    let resource = named.resource();
    let entry = functions.inner.catalogue.get(&named.name).await?;
    let found = entry.as_ref().and_then(|entry| {
        let policy = entry.function.policies.get(&resource)?;
        Some((policy, entry.function.revision(&resource)?))
    });
    match found {
        Some((policy, revision)) => {
            let shown = policy.shown(|arn| (functions.inner.settings.means)(arn));
            Ok(Response::json(StatusCode::OK, &json!({"Policy": shown, "RevisionId": revision})))
        }
        // The same answer for a function that is not there.
        None => Err(FunctionError::Missing("The resource you requested does not exist.".into())),
    }
}
