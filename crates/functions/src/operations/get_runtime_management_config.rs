//! How a version's runtime is updated: always with the server's interpreters. Source: Lambda spec 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::{Value, json};

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::answered;
use crate::resolve::Named;

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetRuntimeManagementConfig",
    route: Route("GET", "/2021-07-20/functions/{FunctionName}/runtime-management-config"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetRuntimeManagementConfig.html",
    asks: asks!(function, "GetRuntimeManagementConfig"),
    handle: |functions, call| answered(get_runtime_management_config(functions, call)),
};

async fn get_runtime_management_config(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named(&call, "GetRuntimeManagementConfig")?;
    functions.find(&named).await?;
    Ok(Response::json(StatusCode::OK, &shape(functions, &named)))
}

/// What Get and Put answer.
pub(super) fn shape(functions: &Functions, named: &Named) -> Value {
    let arn = functions.inner.settings.function_arn(&named.name);
    let arn = named.qualifier.as_ref().map_or_else(|| arn.clone(), |qualifier| format!("{arn}:{qualifier}"));
    json!({"UpdateRuntimeOn": "Auto", "FunctionArn": arn})
}
