//! Answers AWS's default for loops of functions. Source: Lambda spec 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetFunctionRecursionConfig",
    route: Route("GET", "/2024-08-31/functions/{FunctionName}/recursion-config"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionRecursionConfig.html",
    asks: asks!(whole, "GetFunctionRecursionConfig"),
    handle: |functions, call| answered(get_function_recursion_config(functions, call)),
};

async fn get_function_recursion_config(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named_unqualified(&call, "GetFunctionRecursionConfig")?;
    functions.find(&named).await?;
    Ok(Response::json(StatusCode::OK, &json!({"RecursiveLoop": "Terminate"})))
}
