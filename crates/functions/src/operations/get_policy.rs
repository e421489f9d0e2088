//! Says that a function has no resource policy: none can be given yet. Source: Lambda spec 6.1.

use longshore_wire::{Call, Operation, Response, Route};

use crate::Functions;
use crate::error::FunctionError;
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetPolicy",
    route: Route("GET", "/2015-03-31/functions/{FunctionName}/policy"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetPolicy.html",
    handle: |functions, call| answered(get_policy(functions, call)),
};

async fn get_policy(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    functions.named(&call, "GetPolicy")?;
    // The same answer for a function that is not there.
    Err(FunctionError::Missing("The resource you requested does not exist.".into()))
}
