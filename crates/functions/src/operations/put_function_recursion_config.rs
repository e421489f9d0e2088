//! Takes AWS's default for loops of functions, and refuses the other. Source: Lambda spec 0, 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde::Deserialize;
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::members::{parse, unsupported};
use crate::operations::answered;
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "PutFunctionRecursionConfig",
    route: Route("PUT", "/2024-08-31/functions/{FunctionName}/recursion-config"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionRecursionConfig.html",
    asks: asks!(whole, "PutFunctionRecursionConfig"),
    handle: |functions, call| answered(put_function_recursion_config(functions, call)),
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Put {
    recursive_loop: Option<String>,
}

async fn put_function_recursion_config(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let request: Put = parse(call.request.body.clone()).await?;
    let mut v = Violations::default();
    match &request.recursive_loop {
        None => v.missing("recursiveLoop"),
        Some(on) => v.one_of(on, "recursiveLoop", &["Allow", "Terminate"]),
    }
    v.finish()?;
    let named = functions.named_unqualified(&call, "PutFunctionRecursionConfig")?;
    functions.find(&named).await?;
    if request.recursive_loop.as_deref() != Some("Terminate") {
        return Err(unsupported("RecursiveLoop other than Terminate"));
    }
    Ok(Response::json(StatusCode::OK, &json!({"RecursiveLoop": "Terminate"})))
}
