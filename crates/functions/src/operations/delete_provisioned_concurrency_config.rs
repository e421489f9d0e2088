//! Keeps no environments ready any more for an alias or version. What runs in them is finished.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::operations::answered;
use crate::operations::get_provisioned_concurrency_config::NOT_QUALIFIED;

pub const OPERATION: Operation<Functions> = Operation {
    name: "DeleteProvisionedConcurrencyConfig",
    route: Route("DELETE", "/2019-09-30/functions/{FunctionName}/provisioned-concurrency"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_DeleteProvisionedConcurrencyConfig.html",
    asks: asks!(function, "DeleteProvisionedConcurrencyConfig"),
    handle: |functions, call| answered(delete_provisioned_concurrency_config(functions, call)),
};

async fn delete_provisioned_concurrency_config(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let (named, qualifier) = functions.named_provisioned(&call, "DeleteProvisionedConcurrencyConfig", NOT_QUALIFIED)?;
    let missing = functions.missing_provisioned(&named, &qualifier);
    functions
        .inner
        .catalogue
        .change(&named.name, move |_, current| {
            let Some(mut function) = current.filter(|function| function.has_qualifier(&qualifier)) else {
                return Err(missing);
            };
            // One that is not there is as good as deleted.
            Ok(match function.provisioned.remove(&qualifier) {
                Some(_) => (Next::Put(function), ()),
                None => (Next::Keep, ()),
            })
        })
        .await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}
