//! Lists how events are tried, for each qualifier for which that was set. Source: Lambda spec 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::event_invoke_config::{no_function, shape};
use crate::operations::{Page, answered};

pub const OPERATION: Operation<Functions> = Operation {
    name: "ListFunctionEventInvokeConfigs",
    route: Route("GET", "/2019-09-25/functions/{FunctionName}/event-invoke-config/list"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctionEventInvokeConfigs.html",
    asks: asks!(whole, "ListFunctionEventInvokeConfigs"),
    handle: |functions, call| answered(list_function_event_invoke_configs(functions, call)),
};

async fn list_function_event_invoke_configs(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let page = Page::read_up_to(&call.request.query, Page::SIZE_MAX)?;
    let named = functions.named_unqualified(&call, "ListFunctionEventInvokeConfigs")?;
    let entry = functions.inner.catalogue.stand(&named.name).await?.ok_or_else(no_function)?;
    let configs = entry.function.event_invoke_configs.iter();
    let (shapes, next) = page.cut(
        configs.map(|(qualifier, config)| (qualifier.clone(), || shape(functions, &named.name, qualifier, *config))),
    );
    let mut answer = json!({"FunctionEventInvokeConfigs": shapes});
    if let Some(next) = next {
        answer["NextMarker"] = next.into();
    }
    Ok(Response::json(StatusCode::OK, &answer))
}
