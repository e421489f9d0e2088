//! The provisioned concurrency of a function's aliases and versions.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::{Page, answered};

/// Has its route together with GetProvisionedConcurrencyConfig, which comes first and hands over.
pub const OPERATION: Operation<Functions> = Operation {
    name: "ListProvisionedConcurrencyConfigs",
    route: Route("GET", "/2019-09-30/functions/{FunctionName}/provisioned-concurrency"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_ListProvisionedConcurrencyConfigs.html",
    asks: asks!(whole, "ListProvisionedConcurrencyConfigs"),
    handle: |functions, call| answered(list_provisioned_concurrency_configs(functions, call)),
};

pub(super) async fn list_provisioned_concurrency_configs(
    functions: &Functions,
    call: Call,
) -> Result<Response, FunctionError> {
    let named = functions.named_unqualified(&call, "ListProvisionedConcurrencyConfigs")?;
    let page = Page::read(&call.request.query)?;
    let (entry, _) = functions.find(&named).await?;
    let arn = functions.inner.settings.function_arn(&named.name);
    let (entry, arn) = (&entry, &arn);
    let listed = entry.function.provisioned.iter().map(|(qualifier, provisioned)| {
        let shape = move || {
            let mut shape = functions.provisioned_shape(entry, qualifier, provisioned);
            shape["FunctionArn"] = format!("{arn}:{qualifier}").into();
            shape
        };
        (qualifier.clone(), shape)
    });
    let (shapes, next) = page.cut(listed);
    let mut answer = json!({"ProvisionedConcurrencyConfigs": shapes});
    if let Some(next) = next {
        answer["NextMarker"] = next.into();
    }
    Ok(Response::json(StatusCode::OK, &answer))
}
