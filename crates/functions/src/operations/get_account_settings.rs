//! Limits and usage. Source: Lambda spec 3.10.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::code::ZIPPED_BYTES_MAX;
use crate::code::archive::UNZIPPED_BYTES_LIMIT;
use crate::error::FunctionError;
use crate::operations::{answered, held_concurrency, used_code_bytes};

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetAccountSettings",
    route: Route("GET", "/2016-08-19/account-settings"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetAccountSettings.html",
    asks: asks!(anywhere, "GetAccountSettings"),
    handle: |functions, call| answered(get_account_settings(functions, call)),
};

async fn get_account_settings(functions: &Functions, _: Call) -> Result<Response, FunctionError> {
    let settings = &functions.inner.settings;
    let snapshot = functions.inner.catalogue.snapshot();
    let unreserved = u64::from(settings.account_concurrency).saturating_sub(held_concurrency(&snapshot, None));
    Ok(Response::json(
        StatusCode::OK,
        &json!({
            "AccountLimit": {
                "TotalCodeSize": settings.code_bytes_max,
                "CodeSizeUnzipped": UNZIPPED_BYTES_LIMIT,
                "CodeSizeZipped": ZIPPED_BYTES_MAX,
                "ConcurrentExecutions": settings.account_concurrency,
                "UnreservedConcurrentExecutions": unreserved,
            },
            "AccountUsage": {"TotalCodeSize": used_code_bytes(&snapshot), "FunctionCount": snapshot.len()},
        }),
    ))
}
