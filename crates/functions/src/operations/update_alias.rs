//! Points an alias elsewhere; what is absent stays. From the next invocation on it runs what it now points to. Source:
//! Lambda spec 4.2, 4.3.

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
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "UpdateAlias",
    route: Route("PUT", "/2015-03-31/functions/{FunctionName}/aliases/{Name}"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_UpdateAlias.html",
    asks: asks!(whole, "UpdateAlias"),
    handle: |functions, call| answered(update_alias(functions, call)),
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Update {
    function_version: Option<String>,
    description: Option<String>,
    routing_config: Option<Routing>,
    revision_id: Option<String>,
}

async fn update_alias(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let request: Update = parse(call.request.body.clone()).await?;
    let mut v = Violations::default();
    if let Some(version) = &request.function_version {
        alias::version_violations(&mut v, version);
    }
    if let Some(description) = &request.description {
        alias::description_violations(&mut v, description);
    }
    if let Some(routing) = &request.routing_config {
        routing.violations(&mut v);
    }
    v.finish()?;
    let (named, name) = functions.named_alias(&call, "UpdateAlias")?;
    let missing = functions.not_found(&named);
    let settings = functions.inner.settings.clone();
    let shape = functions
        .inner
        .catalogue
        .change(&named.name, move |_, current| {
            let mut function = current.ok_or(missing)?;
            let before = function.aliases.get(&name).ok_or_else(|| {
                FunctionError::Missing(format!("Alias not found: {}:{name}", settings.function_arn(&function.name)))
            })?;
            if request.revision_id.is_some_and(|given| given != before.revision_id) {
                return Err(FunctionError::Revision);
            }
            let version = match &request.function_version {
                Some(version) => alias::find_version(&settings, &function, version)?,
                None => before.version,
            };
            let additional = match (request.routing_config, before.additional) {
                // One without weights clears the routing.
                (Some(routing), _) => routing.additional(&settings, &function, version)?,
                // The usual end of a shift: the alias moves on to the version that it had beside its own.
                (None, Some(kept)) if kept.version == version => None,
                (None, Some(kept)) => {
                    alias::check_pair(&settings, &function, version, kept)?;
                    Some(kept)
                }
                (None, None) => None,
            };
            let alias = Alias {
                version,
                additional,
                description: request.description.unwrap_or_else(|| before.description.clone()),
                revision_id: new_id(),
                name,
            };
            let shape = alias::shape(&settings, &function.name, &alias);
            function.put_alias(alias);
            Ok((Next::Put(function), shape))
        })
        .await?;
    Ok(Response::json(StatusCode::OK, &shape))
}
