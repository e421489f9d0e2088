//! Reserves concurrency for a function, which is also its ceiling. Source: Lambda spec 5.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde::Deserialize;
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::members::parse;
use crate::operations::{UNRESERVED_MIN, answered, held_concurrency};
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "PutFunctionConcurrency",
    route: Route("PUT", "/2017-10-31/functions/{FunctionName}/concurrency"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionConcurrency.html",
    asks: asks!(whole, "PutFunctionConcurrency"),
    handle: |functions, call| answered(put_function_concurrency(functions, call)),
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Put {
    reserved_concurrent_executions: Option<i64>,
}

async fn put_function_concurrency(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let request: Put = parse(call.request.body.clone()).await?;
    let named = functions.named_unqualified(&call, "PutFunctionConcurrency")?;
    // A function that is not there is told before a number that is not in range: so it was recorded.
    if functions.inner.catalogue.get(&named.name).await?.is_none() {
        return Err(functions.latest_not_found(&named));
    }
    let mut v = Violations::default();
    let wanted = match request.reserved_concurrent_executions {
        Some(wanted) => v.range(wanted, "reservedConcurrentExecutions", 0, u32::MAX),
        None => {
            v.missing("reservedConcurrentExecutions");
            None
        }
    };
    v.finish()?;
    let missing = functions.latest_not_found(&named);
    let account = functions.inner.settings.account_concurrency;
    let name = named.name.clone();
    let reserved = functions
        .inner
        .catalogue
        .change(&named.name, move |snapshot, current| {
            let mut function = current.ok_or(missing)?;
            let wanted = wanted.unwrap_or(0);
            let others = held_concurrency(snapshot, Some(&name));
            // A small account keeps less than 100, and may still switch a function off.
            let floor = UNRESERVED_MIN.min(account);
            let provisioned: u64 = function.provisioned.values().map(|p| u64::from(p.requested)).sum();
            if u64::from(wanted) < provisioned {
                // The blanks are AWS's.
                return Err(FunctionError::Parameter(format!(
                    " ReservedConcurrentExecutions  {wanted} should not be lower than function's total provisioned \
                     concurrency [{provisioned}]."
                )));
            }
            if wanted > 0 && u64::from(account) < others + u64::from(wanted) + u64::from(floor) {
                return Err(FunctionError::Parameter(format!(
                    "Specified ReservedConcurrentExecutions for function decreases account's \
                     UnreservedConcurrentExecution below its minimum value of [{floor}]."
                )));
            }
            function.reserved_concurrency = Some(wanted);
            Ok((Next::Put(function), wanted))
        })
        .await?;
    Ok(Response::json(StatusCode::OK, &json!({"ReservedConcurrentExecutions": reserved})))
}
