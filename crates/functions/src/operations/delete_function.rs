//! Deletes a function, or one published version of it. Source: Lambda spec 3.7.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::function::VersionNumber;
use crate::operations::answered;
use crate::resolve::Named;

pub const OPERATION: Operation<Functions> = Operation {
    name: "DeleteFunction",
    route: Route("DELETE", "/2015-03-31/functions/{FunctionName}"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunction.html",
    handle: |functions, call| answered(delete_function(functions, call)),
};

async fn delete_function(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let named = functions.named(&call, "DeleteFunction")?;
    // A missing function is reported without the qualifier, whatever was asked for.
    let missing = functions.not_found(&Named { qualifier: None, ..named.clone() });
    let qualifier = named.qualifier.clone();
    functions
        .inner
        .catalogue
        .change(&named.name, move |_, current| {
            let mut current = current.ok_or(missing)?;
            let Some(qualifier) = qualifier else { return Ok((Next::Delete, ())) };
            let refuse = |text: &str| Err(FunctionError::Parameter(text.into()));
            match VersionNumber::parse(&qualifier) {
                Some(VersionNumber::LATEST) => {
                    refuse("$LATEST version cannot be deleted without deleting the function.")
                }
                None => refuse("Deletion of aliases is not currently supported."),
                // A version that is not there is as good as deleted.
                Some(number) => {
                    current.versions.remove(&number);
                    Ok((Next::Put(current), ()))
                }
            }
        })
        .await?;
    if named.qualifier.is_none() {
        functions.inner.environments.forget_figures(&named.name);
    }
    Ok(Response::empty(StatusCode::NO_CONTENT))
}
