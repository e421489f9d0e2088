//! Keeps environments of a version ready, by its number or by an alias of it. Source: Lambda spec 5.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde::Deserialize;

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::function::ProvisionedConcurrency;
use crate::members::parse;
use crate::operations::{UNRESERVED_MIN, answered, held_concurrency, now_ms};
use crate::provisioned::{check_alone, shape};
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "PutProvisionedConcurrencyConfig",
    route: Route("PUT", "/2019-09-30/functions/{FunctionName}/provisioned-concurrency"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_PutProvisionedConcurrencyConfig.html",
    asks: asks!(function, "PutProvisionedConcurrencyConfig"),
    handle: |functions, call| answered(put_provisioned_concurrency_config(functions, call)),
};

const UNPUBLISHED: &str = "Provisioned Concurrency Configs cannot be applied to unpublished function versions.";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Put {
    provisioned_concurrent_executions: Option<i64>,
}

async fn put_provisioned_concurrency_config(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let request: Put = parse(call.request.body.clone()).await?;
    let mut v = Violations::default();
    let requested = match request.provisioned_concurrent_executions {
        Some(requested) => v.range(requested, "provisionedConcurrentExecutions", 1, u32::MAX),
        None => {
            v.missing("provisionedConcurrentExecutions");
            None
        }
    };
    v.finish()?;
    let requested = requested.unwrap_or(1);
    let (named, qualifier) = functions.named_provisioned(&call, "PutProvisionedConcurrencyConfig", UNPUBLISHED)?;
    let (missing, missing_too) =
        (functions.missing_provisioned(&named, &qualifier), functions.missing_provisioned(&named, &qualifier));
    let account = functions.inner.settings.account_concurrency;
    let machine = functions.inner.environments.provisioned_max();
    let name = named.name.clone();
    let put = functions
        .inner
        .catalogue
        .change(&named.name, move |snapshot, current| {
            let mut function = current.ok_or(missing)?;
            if !function.has_qualifier(&qualifier) {
                return Err(missing_too);
            }
            if function.versions_behind(&qualifier).is_empty() {
                // An alias of $LATEST.
                return Err(FunctionError::Parameter(UNPUBLISHED.into()));
            }
            check_alone(&function, &qualifier)?;
            let put = ProvisionedConcurrency { requested, modified_ms: now_ms() };
            function.provisioned.insert(qualifier, put.clone());
            let total: u64 = function.provisioned.values().map(|p| u64::from(p.requested)).sum();
            let others = held_concurrency(snapshot, Some(&name));
            let (account, floor) = (u64::from(account), u64::from(UNRESERVED_MIN.min(account)));
            let refuse = |text: String| Err(FunctionError::Parameter(text));
            match function.reserved_concurrency {
                Some(reserved) if total > u64::from(reserved) => {
                    return refuse(
                        "Requested Provisioned Concurrency should not be greater than the \
                         reservedConcurrentExecution for function"
                            .into(),
                    );
                }
                Some(_) => {}
                None if u64::from(requested) > account.saturating_sub(others) => {
                    let unreserved = account.saturating_sub(others);
                    return refuse(format!(
                        "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency \
                         [{unreserved}]."
                    ));
                }
                None if account < others + total + floor => {
                    return refuse(format!(
                        "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution \
                         below its minimum value of [{floor}]."
                    ));
                }
                None => {}
            }
            // AWS has more machines; what cannot be had is refused here, and not IN_PROGRESS for ever.
            let everywhere: u64 = snapshot
                .values()
                .filter(|entry| entry.function.name != name)
                .flat_map(|entry| entry.function.provisioned.values())
                .map(|provisioned| u64::from(provisioned.requested))
                .sum();
            if everywhere + total > u64::from(machine) {
                return refuse(format!(
                    "This server keeps at most {machine} environments provisioned, all functions together: one less than \
                     functions.environments_max."
                ));
            }
            Ok((Next::Put(function), put))
        })
        .await?;
    Ok(Response::json(StatusCode::ACCEPTED, &shape(&put, 0, "IN_PROGRESS")))
}
