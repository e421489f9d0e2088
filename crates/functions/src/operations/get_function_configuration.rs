//! The settings of a function or version.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::answered;
use crate::shape::{self, View};

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetFunctionConfiguration",
    route: Route("GET", "/2015-03-31/functions/{FunctionName}/configuration"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionConfiguration.html",
    asks: asks!(function, "GetFunctionConfiguration"),
    handle: |functions, call| answered(get_function_configuration(functions, call)),
};

async fn get_function_configuration(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named(&call, "GetFunctionConfiguration")?;
    let (_, version) = functions.find(&named).await?;
    let view = View { qualifier: named.qualifier.as_deref(), with_state: true };
    let shape = shape::configuration(&functions.inner.settings, &named.name, &version, view);
    Ok(Response::json(StatusCode::OK, &shape))
}
