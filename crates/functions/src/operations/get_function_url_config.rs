//! Says that a function has no URL, as none has here. Source: Lambda spec 3.1.

use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetFunctionUrlConfig",
    route: Route("GET", "/2021-10-31/functions/{FunctionName}/url"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionUrlConfig.html",
    asks: asks!(function, "GetFunctionUrlConfig"),
    handle: |functions, call| answered(get_function_url_config(functions, call)),
};

async fn get_function_url_config(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    functions.named(&call, "GetFunctionUrlConfig")?;
    // Also for a function that is not there, as on AWS.
    Err(FunctionError::Missing("The resource you requested does not exist.".into()))
}
