//! How far the provisioned concurrency of an alias or version is.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::answered;
use crate::operations::list_provisioned_concurrency_configs::list_provisioned_concurrency_configs;

/// Of two operations with one route: `?List=ALL` asks for the other.
pub const OPERATION: Operation<Functions> = Operation {
    name: "GetProvisionedConcurrencyConfig",
    route: Route("GET", "/2019-09-30/functions/{FunctionName}/provisioned-concurrency"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetProvisionedConcurrencyConfig.html",
    asks: asks!(provisioned, "GetProvisionedConcurrencyConfig"),
    handle: |functions, call| match call.request.query.get("List") {
        Some(_) => answered(list_provisioned_concurrency_configs(functions, call)),
        None => answered(get_provisioned_concurrency_config(functions, call)),
    },
};

/// What is said to `$LATEST`, here and where it is to be deleted.
pub(super) const NOT_QUALIFIED: &str = "The function resource provided must be an alias or a published version.";

async fn get_provisioned_concurrency_config(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let (named, qualifier) = functions.named_provisioned(&call, "GetProvisionedConcurrencyConfig", NOT_QUALIFIED)?;
    let entry = functions.inner.catalogue.get(&named.name).await?;
    let entry = entry.filter(|entry| entry.function.has_qualifier(&qualifier));
    let entry = entry.ok_or_else(|| functions.missing_provisioned(&named, &qualifier))?;
    let provisioned = entry.function.provisioned.get(&qualifier).ok_or(FunctionError::NotProvisioned)?;
    Ok(Response::json(StatusCode::OK, &functions.provisioned_shape(&entry, &qualifier, provisioned)))
}
