//! Says that no code is signed, which Terraform asks at every refresh. Source: Lambda spec 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetFunctionCodeSigningConfig",
    route: Route("GET", "/2020-06-30/functions/{FunctionName}/code-signing-config"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionCodeSigningConfig.html",
    asks: asks!(whole, "GetFunctionCodeSigningConfig"),
    handle: |functions, call| answered(get_function_code_signing_config(functions, call)),
};

async fn get_function_code_signing_config(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named_unqualified(&call, "GetFunctionCodeSigningConfig")?;
    functions.find(&named).await?;
    Ok(Response::json(StatusCode::OK, &json!({"FunctionName": named.name})))
}
