//! Freezes `$LATEST` under the next number. Source: Lambda spec 4.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde::Deserialize;

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::function::Standing;
use crate::members::{parse, unsupported};
use crate::operations::{answered, used_code_bytes};
use crate::resolve::{check_at_rest, check_revision};
use crate::shape::{self, View};
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "PublishVersion",
    route: Route("POST", "/2015-03-31/functions/{FunctionName}/versions"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_PublishVersion.html",
    asks: asks!(whole, "PublishVersion"),
    handle: |functions, call| answered(publish_version(functions, call)),
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Publish {
    #[serde(rename = "CodeSha256")]
    code_sha256: Option<String>,
    description: Option<String>,
    revision_id: Option<String>,
    publish_to: Option<String>,
}

async fn publish_version(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let request: Publish = parse(call.request.body.clone()).await?;
    let named = functions.named_unqualified(&call, "PublishVersion")?;
    let mut v = Violations::default();
    if let Some(description) = &request.description {
        v.length(description, "description", 0, 256);
    }
    v.finish()?;
    if request.publish_to.is_some() {
        return Err(unsupported("PublishTo"));
    }
    let (settings, name, missing) = (functions.inner.settings.clone(), named.name.clone(), functions.not_found(&named));
    let shape = functions
        .inner
        .catalogue
        .change(&named.name, move |snapshot, current| {
            let current = current.ok_or(missing)?;
            check_at_rest(&settings, &current)?;
            check_revision(&current, request.revision_id.as_deref())?;
            let code = &current.latest().code;
            let sha256 = code.sha256_base64();
            if let Some(given) = request.code_sha256.filter(|given| !given.is_empty() && *given != sha256) {
                return Err(FunctionError::Parameter(format!(
                    "CodeSHA256 ({given}) is different from current CodeSHA256 in $LATEST ({sha256}). Please try again \
                     with the CodeSHA256 in $LATEST."
                )));
            }
            let (published, number) = current.published(request.description, Standing::Settled);
            if published.last_published != current.last_published
                && used_code_bytes(snapshot).saturating_add(code.size) > settings.code_bytes_max
            {
                return Err(FunctionError::CodeStorage);
            }
            let qualifier = number.to_string();
            let view = View { qualifier: Some(&qualifier), with_state: true };
            let version = published.versions.get(&number).expect("published says so");
            let shape = shape::configuration(&settings, &name, version, view);
            Ok((Next::Put(published), shape))
        })
        .await?;
    Ok(Response::json(StatusCode::CREATED, &shape))
}
