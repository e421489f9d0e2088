//! Gives reserved concurrency back.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "DeleteFunctionConcurrency",
    route: Route("DELETE", "/2017-10-31/functions/{FunctionName}/concurrency"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunctionConcurrency.html",
    asks: asks!(whole, "DeleteFunctionConcurrency"),
    handle: |functions, call| answered(delete_function_concurrency(functions, call)),
};

async fn delete_function_concurrency(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named_unqualified(&call, "DeleteFunctionConcurrency")?;
    let missing = functions.latest_not_found(&named);
    functions
        .inner
        .catalogue
        .change(&named.name, move |_, current| {
            let mut function = current.ok_or(missing)?;
            function.reserved_concurrency = None;
            Ok((Next::Put(function), ()))
        })
        .await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}
