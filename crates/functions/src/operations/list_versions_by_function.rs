//! `$LATEST` and the published versions, ascending. Source: Lambda spec 3.8.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::{Page, answered};
use crate::shape::{self, View};

pub const OPERATION: Operation<Functions> = Operation {
    name: "ListVersionsByFunction",
    route: Route("GET", "/2015-03-31/functions/{FunctionName}/versions"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_ListVersionsByFunction.html",
    asks: asks!(whole, "ListVersionsByFunction"),
    handle: |functions, call| answered(list_versions_by_function(functions, call)),
};

async fn list_versions_by_function(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named_unqualified(&call, "ListVersionsByFunction")?;
    let page = Page::read(&call.request.query)?;
    let (entry, _) = functions.find(&named).await?;
    let listed = entry.function.versions.values().map(|version| {
        let shape = || {
            let number = version.number.to_string();
            let view = View { qualifier: Some(&number), with_state: false };
            shape::configuration(&functions.inner.settings, &named.name, version, view)
        };
        (format!("{:010}", version.number.stored()), shape)
    });
    let (shapes, next) = page.cut(listed);
    let mut answer = json!({"Versions": shapes});
    if let Some(next) = next {
        answer["NextMarker"] = next.into();
    }
    Ok(Response::json(StatusCode::OK, &answer))
}
