//! Takes away what no function has here. Source: Lambda spec 0, 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "DeleteFunctionCodeSigningConfig",
    route: Route("DELETE", "/2020-06-30/functions/{FunctionName}/code-signing-config"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunctionCodeSigningConfig.html",
    asks: asks!(whole, "DeleteFunctionCodeSigningConfig"),
    handle: |functions, call| answered(delete_function_code_signing_config(functions, call)),
};

async fn delete_function_code_signing_config(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named_unqualified(&call, "DeleteFunctionCodeSigningConfig")?;
    functions.find(&named).await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}
