//! Adds or replaces tags of a function. Source: Lambda spec 3.9.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde::Deserialize;
use std::collections::BTreeMap;

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::members::parse;
use crate::operations::{answered, tagged};
use crate::validate::{self, Violations};

pub const OPERATION: Operation<Functions> = Operation {
    name: "TagResource",
    route: Route("POST", "/2017-03-31/tags/{Resource}"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_TagResource.html",
    asks: asks!(body, tag, "TagResource"),
    handle: |functions, call| answered(tag_resource(functions, call)),
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Tag {
    tags: Option<BTreeMap<String, String>>,
}

async fn tag_resource(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let request: Tag = parse(call.request.body.clone()).await?;
    let named = tagged(functions, &call, "TagResource")?;
    let Some(tags) = request.tags else {
        let mut v = Violations::default();
        v.missing("tags");
        v.finish()?;
        return Ok(Response::empty(StatusCode::NO_CONTENT));
    };
    if tags.is_empty() {
        return Err(FunctionError::Parameter("An error occurred and the request cannot be processed.".into()));
    }
    let missing = functions.not_found(&named);
    functions
        .inner
        .catalogue
        .change(&named.name, move |_, current| {
            let mut function = current.ok_or(missing)?;
            function.tags.extend(tags);
            validate::tags(&function.tags)?;
            Ok((Next::Put(function), ()))
        })
        .await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}
