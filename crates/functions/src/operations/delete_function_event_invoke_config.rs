//! Has events tried as they are where nothing is set. Source: Lambda spec 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::event_invoke_config::{no_config, removed};
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "DeleteFunctionEventInvokeConfig",
    route: Route("DELETE", "/2019-09-25/functions/{FunctionName}/event-invoke-config"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunctionEventInvokeConfig.html",
    asks: asks!(whole, "DeleteFunctionEventInvokeConfig"),
    handle: |functions, call| answered(delete_function_event_invoke_config(functions, call)),
};

async fn delete_function_event_invoke_config(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named(&call, "DeleteFunctionEventInvokeConfig")?;
    let missing = no_config(functions, &named);
    let name = named.name.clone();
    let change = functions.inner.catalogue.change(&name, move |_, current| {
        let function = current.and_then(|function| removed(function, &named)).ok_or(missing)?;
        Ok((Next::Put(function), ()))
    });
    change.await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}
