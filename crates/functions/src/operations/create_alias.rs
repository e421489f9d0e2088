//! Makes a name for one version, or for two of which each gets its share. Source: Lambda spec 4.2.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde::Deserialize;

use super::asks::asks;
use crate::Functions;
use crate::alias::{self, Routing};
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::function::{Alias, new_id};
use crate::members::parse;
use crate::operations::answered;
use crate::resolve::Named;
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "CreateAlias",
    route: Route("POST", "/2015-03-31/functions/{FunctionName}/aliases"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_CreateAlias.html",
    asks: asks!(whole, "CreateAlias"),
    handle: |functions, call| answered(create_alias(functions, call)),
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Create {
    name: Option<String>,
    function_version: Option<String>,
    description: Option<String>,
    routing_config: Option<Routing>,
}

async fn create_alias(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let request: Create = parse(call.request.body.clone()).await?;
    let mut v = Violations::default();
    match &request.name {
        Some(name) => alias::name_violations(&mut v, name),
        None => v.missing("name"),
    }
    match &request.function_version {
        Some(version) => alias::version_violations(&mut v, version),
        None => v.missing("functionVersion"),
    }
    if let Some(description) = &request.description {
        alias::description_violations(&mut v, description);
    }
    if let Some(routing) = &request.routing_config {
        routing.violations(&mut v);
    }
    v.finish()?;
    let (name, version) = (request.name.unwrap_or_default(), request.function_version.unwrap_or_default());
    let named = functions.named_unqualified(&call, "CreateAlias")?;
    // Of a function that is not there AWS names the version that was asked for.
    let missing = functions.not_found(&Named { qualifier: Some(version.clone()), ..named.clone() });
    let settings = functions.inner.settings.clone();
    let shape = functions
        .inner
        .catalogue
        .change(&named.name, move |_, current| {
            let mut function = current.ok_or(missing)?;
            let version = alias::find_version(&settings, &function, &version)?;
            if function.aliases.contains_key(&name) {
                let arn = settings.function_arn(&function.name);
                return Err(FunctionError::Conflict(format!("Alias already exists: {arn}:{name}")));
            }
            let alias = Alias {
                name,
                version,
                additional: request.routing_config.unwrap_or_default().additional(&settings, &function, version)?,
                description: request.description.unwrap_or_default(),
                revision_id: new_id(),
            };
            let shape = alias::shape(&settings, &function.name, &alias);
            function.put_alias(alias);
            Ok((Next::Put(function), shape))
        })
        .await?;
    Ok(Response::json(StatusCode::CREATED, &shape))
}
