//! All functions by name, in pages. Source: Lambda spec 3.8.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::members::unsupported;
use crate::operations::{Page, answered};
use crate::shape::{self, View};
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "ListFunctions",
    route: Route("GET", "/2015-03-31/functions"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctions.html",
    asks: asks!(anywhere, "ListFunctions"),
    handle: |functions, call| answered(list_functions(functions, call)),
};

async fn list_functions(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let query = &call.request.query;
    let page = Page::read(query)?;
    let all = match query.get("FunctionVersion") {
        None => false,
        Some(value) => {
            let mut v = Violations::default();
            v.one_of(value, "functionVersion", &["ALL"]);
            v.finish()?;
            true
        }
    };
    if query.contains("MasterRegion") {
        return Err(unsupported("MasterRegion"));
    }
    let snapshot = functions.inner.catalogue.snapshot();
    let listed = snapshot.values().flat_map(|entry| {
        let function = &entry.function;
        function.versions.values().take(if all { usize::MAX } else { 1 }).map(move |version| {
            // NUL comes before all that a name may have, so that `f` stands before `f-1`, with its versions.
            let key = format!("{}\0{:010}", function.name, version.number.stored());
            let shape = move || {
                let number = version.number.to_string();
                let view = View { qualifier: all.then_some(number.as_str()), with_state: false };
                shape::configuration(&functions.inner.settings, &function.name, version, view)
            };
            (key, shape)
        })
    });
    let (shapes, next) = page.cut(listed);
    let mut answer = json!({"Functions": shapes});
    if let Some(next) = next {
        answer["NextMarker"] = next.into();
    }
    Ok(Response::json(StatusCode::OK, &answer))
}
