//! Lists the URLs of a function: there are none here. Source: Lambda spec 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::layers::PAGE_MAX;
use crate::operations::{Page, answered};

pub const OPERATION: Operation<Functions> = Operation {
    name: "ListFunctionUrlConfigs",
    route: Route("GET", "/2021-10-31/functions/{FunctionName}/urls"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctionUrlConfigs.html",
    asks: asks!(whole, "ListFunctionUrlConfigs"),
    handle: |functions, call| answered(list_function_url_configs(functions, call)),
};

async fn list_function_url_configs(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    Page::read_up_to(&call.request.query, PAGE_MAX)?;
    let named = functions.named_unqualified(&call, "ListFunctionUrlConfigs")?;
    if functions.inner.catalogue.get(&named.name).await?.is_none() {
        return Err(FunctionError::Missing("Function does not exist".into()));
    }
    Ok(Response::json(StatusCode::OK, &json!({"FunctionUrlConfigs": []})))
}
