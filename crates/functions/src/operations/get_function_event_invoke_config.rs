//! How events are tried, if that was set. Source: Lambda spec 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::event_invoke_config::{find, qualifier, shape};
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetFunctionEventInvokeConfig",
    route: Route("GET", "/2019-09-25/functions/{FunctionName}/event-invoke-config"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionEventInvokeConfig.html",
    asks: asks!(whole, "GetFunctionEventInvokeConfig"),
    handle: |functions, call| answered(get_function_event_invoke_config(functions, call)),
};

async fn get_function_event_invoke_config(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named(&call, "GetFunctionEventInvokeConfig")?;
    let config = find(functions, &named).await?;
    Ok(Response::json(StatusCode::OK, &shape(functions, &named.name, qualifier(&named), config)))
}
