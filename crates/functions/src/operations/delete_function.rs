//! Deletes a function, or one published version of it. Source: Lambda spec 3.7.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::function::{Resource, VersionNumber};
use crate::operations::answered;
use crate::resolve::Named;

pub const OPERATION: Operation<Functions> = Operation {
    name: "DeleteFunction",
    route: Route("DELETE", "/2015-03-31/functions/{FunctionName}"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunction.html",
    asks: asks!(function, "DeleteFunction"),
    handle: |functions, call| answered(delete_function(functions, call)),
};

async fn delete_function(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named(&call, "DeleteFunction")?;
    let resource = named.resource();
    // Before whether the function is there, as on AWS.
    if resource == Resource::Version(VersionNumber::LATEST) {
        return Err(FunctionError::Parameter(
            "$LATEST version cannot be deleted without deleting the function.".into(),
        ));
    }
    // A missing function is reported without the qualifier, whatever was asked for.
    let missing = functions.not_found(&Named { qualifier: None, ..named.clone() });
    functions
        .inner
        .catalogue
        .change(&named.name, move |_, current| {
            let mut function = current.ok_or(missing)?;
            match resource {
                Resource::Function => Ok((Next::Delete, ())),
                Resource::Alias(_) => {
                    Err(FunctionError::Parameter("Deletion of aliases is not currently supported.".into()))
                }
                Resource::Version(number) => {
                    let aliases: Vec<&str> = function.aliases_of(number).collect();
                    if !aliases.is_empty() {
                        return Err(FunctionError::Conflict(format!(
                            "Unable to delete version because the following aliases reference it: [{}]",
                            aliases.join(", ")
                        )));
                    }
                    // A version that is not there is as good as deleted.
                    function.remove_version(number);
                    Ok((Next::Put(function), ()))
                }
            }
        })
        .await?;
    if named.qualifier.is_none() {
        functions.inner.environments.forget_figures(&named.name);
    }
    Ok(Response::empty(StatusCode::NO_CONTENT))
}
