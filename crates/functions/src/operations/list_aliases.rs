//! The aliases of a function by name, or those of them that may run one version. Source: Lambda spec 4.2.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::alias;
use crate::error::FunctionError;
use crate::function::VersionNumber;
use crate::operations::{Page, answered};
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "ListAliases",
    route: Route("GET", "/2015-03-31/functions/{FunctionName}/aliases"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_ListAliases.html",
    asks: asks!(whole, "ListAliases"),
    handle: |functions, call| answered(list_aliases(functions, call)),
};

async fn list_aliases(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let query = &call.request.query;
    let page = Page::read(query)?;
    let version = query.get("FunctionVersion");
    if let Some(version) = version {
        let mut v = Violations::default();
        alias::version_violations(&mut v, version);
        v.finish()?;
    }
    let named = functions.named_unqualified(&call, "ListAliases")?;
    let (entry, _) = functions.find(&named).await?;
    let wanted = version.map(VersionNumber::parse);
    let listed = entry
        .function
        .aliases
        .values()
        .filter(|alias| wanted.is_none_or(|number| number.is_some_and(|number| alias.invokes(number))))
        .map(|alias| (alias.name.clone(), || alias::shape(&functions.inner.settings, &named.name, alias)));
    let (shapes, next) = page.cut(listed);
    let mut answer = json!({"Aliases": shapes});
    if let Some(next) = next {
        answer["NextMarker"] = next.into();
    }
    Ok(Response::json(StatusCode::OK, &answer))
}
