//! What an alias points to. Source: Lambda spec 4.2.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::alias;
use crate::error::FunctionError;
use crate::function::Resource;
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetAlias",
    route: Route("GET", "/2015-03-31/functions/{FunctionName}/aliases/{Name}"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetAlias.html",
    asks: asks!(whole, "GetAlias"),
    handle: |functions, call| answered(get_alias(functions, call)),
};

async fn get_alias(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let (named, name) = functions.named_alias(&call, "GetAlias")?;
    let (entry, _) = functions.find(&named).await?;
    let missing = || functions.resource_not_found(&named.name, &Resource::Alias(name.clone()));
    let alias = entry.function.aliases.get(&name).ok_or_else(missing)?;
    Ok(Response::json(StatusCode::OK, &alias::shape(&functions.inner.settings, &named.name, alias)))
}
