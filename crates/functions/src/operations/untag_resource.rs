//! Removes tags of a function. Source: Lambda spec 3.9.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::operations::{answered, tagged};
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "UntagResource",
    route: Route("DELETE", "/2017-03-31/tags/{Resource}"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_UntagResource.html",
    asks: asks!(untag, "UntagResource"),
    handle: |functions, call| answered(untag_resource(functions, call)),
};

async fn untag_resource(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let keys: Vec<String> = call.request.query.all("tagKeys").map(str::to_owned).collect();
    let mut v = Violations::default();
    if keys.is_empty() {
        v.missing("tagKeys");
    }
    v.finish()?;
    let named = tagged(functions, &call, "UntagResource")?;
    let missing = functions.not_found(&named);
    functions
        .inner
        .catalogue
        .change(&named.name, move |_, current| {
            let mut function = current.ok_or(missing)?;
            function.tags.retain(|key, _| !keys.contains(key));
            Ok((Next::Put(function), ()))
        })
        .await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}
