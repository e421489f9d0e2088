//! Takes the one way in which runtimes are updated here, and refuses the others. Source: Lambda spec 0, 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde::Deserialize;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::members::{parse, unsupported};
use crate::operations::answered;
use crate::operations::get_runtime_management_config::shape;
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "PutRuntimeManagementConfig",
    route: Route("PUT", "/2021-07-20/functions/{FunctionName}/runtime-management-config"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_PutRuntimeManagementConfig.html",
    asks: asks!(function, "PutRuntimeManagementConfig"),
    handle: |functions, call| answered(put_runtime_management_config(functions, call)),
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Put {
    update_runtime_on: Option<String>,
    runtime_version_arn: Option<String>,
}

async fn put_runtime_management_config(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let request: Put = parse(call.request.body.clone()).await?;
    let mut v = Violations::default();
    match &request.update_runtime_on {
        None => v.missing("updateRuntimeOn"),
        Some(on) => v.one_of(on, "updateRuntimeOn", &["Auto", "Manual", "FunctionUpdate"]),
    }
    v.finish()?;
    let named = functions.named(&call, "PutRuntimeManagementConfig")?;
    functions.find(&named).await?;
    // A function runs on the interpreters that the server finds, also when those are updated.
    if request.update_runtime_on.as_deref() != Some("Auto") {
        return Err(unsupported("UpdateRuntimeOn other than Auto"));
    }
    if request.runtime_version_arn.is_some_and(|arn| !arn.is_empty()) {
        return Err(unsupported("RuntimeVersionArn"));
    }
    Ok(Response::json(StatusCode::OK, &shape(functions, &named)))
}
