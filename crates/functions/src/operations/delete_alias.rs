//! Removes an alias with its policy; one that is not there is as good as removed. Source: Lambda spec 4.2.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "DeleteAlias",
    route: Route("DELETE", "/2015-03-31/functions/{FunctionName}/aliases/{Name}"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_DeleteAlias.html",
    asks: asks!(whole, "DeleteAlias"),
    handle: |functions, call| answered(delete_alias(functions, call)),
};

async fn delete_alias(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let (named, name) = functions.named_alias(&call, "DeleteAlias")?;
    let missing = functions.not_found(&named);
    functions
        .inner
        .catalogue
        .change(&named.name, move |_, current| {
            let mut function = current.ok_or(missing)?;
            function.remove_alias(&name);
            Ok((Next::Put(function), ()))
        })
        .await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}
