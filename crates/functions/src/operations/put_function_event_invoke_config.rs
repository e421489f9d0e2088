//! Sets how events are tried, whatever was set before. Source: Lambda spec 3.1, 2.7.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::event_invoke_config::{Change, change};
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "PutFunctionEventInvokeConfig",
    route: Route("PUT", "/2019-09-25/functions/{FunctionName}/event-invoke-config"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionEventInvokeConfig.html",
    asks: asks!(whole, "PutFunctionEventInvokeConfig"),
    handle: |functions, call| answered(put_function_event_invoke_config(functions, call)),
};

async fn put_function_event_invoke_config(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    Ok(Response::json(StatusCode::OK, &change(functions, &call, Change::Put).await?))
}
