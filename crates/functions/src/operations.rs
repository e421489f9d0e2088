//! The operations of the Lambda API, one file each, and what they share.

mod add_layer_version_permission;
mod add_permission;
mod asks;
mod create_alias;
mod create_function;
mod delete_alias;
mod delete_function;
mod delete_function_code_signing_config;
mod delete_function_concurrency;
mod delete_function_event_invoke_config;
mod delete_layer_version;
mod delete_provisioned_concurrency_config;
mod function_logs;
mod function_stats;
mod get_account_settings;
mod get_alias;
mod get_function;
mod get_function_code_signing_config;
mod get_function_concurrency;
mod get_function_configuration;
mod get_function_event_invoke_config;
mod get_function_recursion_config;
mod get_function_url_config;
mod get_layer_version;
mod get_layer_version_by_arn;
mod get_layer_version_policy;
mod get_policy;
mod get_provisioned_concurrency_config;
mod get_runtime_management_config;
mod invoke;
mod list_aliases;
mod list_event_source_mappings;
mod list_function_event_invoke_configs;
mod list_function_url_configs;
mod list_functions;
mod list_layer_versions;
mod list_layers;
mod list_provisioned_concurrency_configs;
mod list_tags;
mod list_versions_by_function;
mod publish_layer_version;
mod publish_version;
mod put_function_concurrency;
mod put_function_event_invoke_config;
mod put_function_recursion_config;
mod put_provisioned_concurrency_config;
mod put_runtime_management_config;
mod remove_layer_version_permission;
mod remove_permission;
mod tag_resource;
mod untag_resource;
mod update_alias;
mod update_function_code;
mod update_function_configuration;
mod update_function_event_invoke_config;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use longshore_wire::arn::Arn;
use longshore_wire::operation::{self, BoxFuture, Routed};
use longshore_wire::{ApiError, Call, Operation, Query, Response, Route};
use serde_json::Value;

use crate::catalogue::Snapshot;
use crate::error::FunctionError;
use crate::function::Function;
use crate::invocation::PAYLOAD_BYTES_MAX;
use crate::layer;
use crate::resolve::Named;
use crate::validate::Violations;
use crate::{Functions, Settings};

/// Everything that is offered. The router, metrics and the compatibility page come from here.
pub const OPERATIONS: &[Operation<Functions>] = &[
    add_layer_version_permission::OPERATION,
    add_permission::OPERATION,
    create_alias::OPERATION,
    create_function::OPERATION,
    delete_alias::OPERATION,
    delete_function::OPERATION,
    delete_function_code_signing_config::OPERATION,
    delete_function_concurrency::OPERATION,
    delete_function_event_invoke_config::OPERATION,
    delete_layer_version::OPERATION,
    delete_provisioned_concurrency_config::OPERATION,
    get_account_settings::OPERATION,
    get_alias::OPERATION,
    get_function::OPERATION,
    get_function_code_signing_config::OPERATION,
    get_function_concurrency::OPERATION,
    get_function_configuration::OPERATION,
    get_function_event_invoke_config::OPERATION,
    get_function_recursion_config::OPERATION,
    get_function_url_config::OPERATION,
    get_layer_version::OPERATION,
    get_layer_version_policy::OPERATION,
    get_policy::OPERATION,
    get_provisioned_concurrency_config::OPERATION,
    get_runtime_management_config::OPERATION,
    invoke::OPERATION,
    list_aliases::OPERATION,
    list_event_source_mappings::OPERATION,
    list_function_event_invoke_configs::OPERATION,
    list_function_url_configs::OPERATION,
    list_functions::OPERATION,
    list_layer_versions::OPERATION,
    list_layers::OPERATION,
    // Behind the one whose path it shares, which hands its requests on.
    get_layer_version_by_arn::OPERATION,
    list_provisioned_concurrency_configs::OPERATION,
    list_tags::OPERATION,
    list_versions_by_function::OPERATION,
    publish_layer_version::OPERATION,
    publish_version::OPERATION,
    put_function_concurrency::OPERATION,
    put_function_event_invoke_config::OPERATION,
    put_function_recursion_config::OPERATION,
    put_provisioned_concurrency_config::OPERATION,
    put_runtime_management_config::OPERATION,
    remove_layer_version_permission::OPERATION,
    remove_permission::OPERATION,
    tag_resource::OPERATION,
    untag_resource::OPERATION,
    update_alias::OPERATION,
    update_function_code::OPERATION,
    update_function_configuration::OPERATION,
    update_function_event_invoke_config::OPERATION,
];

/// Every operation of our own API on functions, below `/_longshore/v1/`: what AWS has other services for. AWS's clients never
/// notice them.
pub const OWN_OPERATIONS: &[Operation<Functions>] =
    &[function_logs::OPERATION, function_stats::OF_ALL, function_stats::OF_ONE];

macro_rules! not_offered {
    ($name:literal, $method:literal, $path:literal) => {
        not_offered!($name, $method, $path, $name)
    };
    // Where the permission is called otherwise.
    ($name:literal, $method:literal, $path:literal, $action:literal) => {
        Operation {
            name: $name,
            route: Route($method, $path),
            spec: concat!("https://docs.aws.amazon.com/lambda/latest/api/API_", $name, ".html"),
            asks: asks::asks!(anywhere, $action),
            handle: |_, _| {
                answered(async {
                    Err(FunctionError::UnknownOperation(format!(
                        "The operation {} is not offered by this server.",
                        $name
                    )))
                })
            },
        }
    };
}

/// The rest of the API model: known by name, so that a caller is told which operation is missing.
pub const NOT_OFFERED: &[Operation<Functions>] = &[
    not_offered!(
        "CheckpointDurableExecution",
        "POST",
        "/2025-12-01/durable-executions/{DurableExecutionArn}/checkpoint"
    ),
    not_offered!("CreateCapacityProvider", "POST", "/2025-11-30/capacity-providers"),
    not_offered!("CreateCodeSigningConfig", "POST", "/2020-04-22/code-signing-configs"),
    not_offered!("CreateEventSourceMapping", "POST", "/2015-03-31/event-source-mappings"),
    not_offered!("CreateFunctionUrlConfig", "POST", "/2021-10-31/functions/{FunctionName}/url"),
    not_offered!("DeleteCapacityProvider", "DELETE", "/2025-11-30/capacity-providers/{CapacityProviderName}"),
    not_offered!("DeleteCodeSigningConfig", "DELETE", "/2020-04-22/code-signing-configs/{CodeSigningConfigArn}"),
    not_offered!("DeleteEventSourceMapping", "DELETE", "/2015-03-31/event-source-mappings/{UUID}"),
    not_offered!("DeleteFunctionUrlConfig", "DELETE", "/2021-10-31/functions/{FunctionName}/url"),
    not_offered!("GetCapacityProvider", "GET", "/2025-11-30/capacity-providers/{CapacityProviderName}"),
    not_offered!("GetCodeSigningConfig", "GET", "/2020-04-22/code-signing-configs/{CodeSigningConfigArn}"),
    not_offered!("GetDurableExecution", "GET", "/2025-12-01/durable-executions/{DurableExecutionArn}"),
    not_offered!("GetDurableExecutionHistory", "GET", "/2025-12-01/durable-executions/{DurableExecutionArn}/history"),
    not_offered!("GetDurableExecutionState", "GET", "/2025-12-01/durable-executions/{DurableExecutionArn}/state"),
    not_offered!("GetEventSourceMapping", "GET", "/2015-03-31/event-source-mappings/{UUID}"),
    not_offered!("GetFunctionScalingConfig", "GET", "/2025-11-30/functions/{FunctionName}/function-scaling-config"),
    not_offered!("InvokeAsync", "POST", "/2014-11-13/functions/{FunctionName}/invoke-async"),
    not_offered!(
        "InvokeWithResponseStream",
        "POST",
        "/2021-11-15/functions/{FunctionName}/response-streaming-invocations",
        "InvokeFunction"
    ),
    not_offered!("ListCapacityProviders", "GET", "/2025-11-30/capacity-providers"),
    not_offered!("ListCodeSigningConfigs", "GET", "/2020-04-22/code-signing-configs"),
    not_offered!("ListDurableExecutionsByFunction", "GET", "/2025-12-01/functions/{FunctionName}/durable-executions"),
    not_offered!(
        "ListFunctionVersionsByCapacityProvider",
        "GET",
        "/2025-11-30/capacity-providers/{CapacityProviderName}/function-versions"
    ),
    not_offered!(
        "ListFunctionsByCodeSigningConfig",
        "GET",
        "/2020-04-22/code-signing-configs/{CodeSigningConfigArn}/functions"
    ),
    not_offered!("PutFunctionCodeSigningConfig", "PUT", "/2020-06-30/functions/{FunctionName}/code-signing-config"),
    not_offered!("PutFunctionScalingConfig", "PUT", "/2025-11-30/functions/{FunctionName}/function-scaling-config"),
    not_offered!(
        "SendDurableExecutionCallbackFailure",
        "POST",
        "/2025-12-01/durable-execution-callbacks/{CallbackId}/fail"
    ),
    not_offered!(
        "SendDurableExecutionCallbackHeartbeat",
        "POST",
        "/2025-12-01/durable-execution-callbacks/{CallbackId}/heartbeat"
    ),
    not_offered!(
        "SendDurableExecutionCallbackSuccess",
        "POST",
        "/2025-12-01/durable-execution-callbacks/{CallbackId}/succeed"
    ),
    not_offered!("StopDurableExecution", "POST", "/2025-12-01/durable-executions/{DurableExecutionArn}/stop"),
    not_offered!("UpdateCapacityProvider", "PUT", "/2025-11-30/capacity-providers/{CapacityProviderName}"),
    not_offered!("UpdateCodeSigningConfig", "PUT", "/2020-04-22/code-signing-configs/{CodeSigningConfigArn}"),
    not_offered!("UpdateEventSourceMapping", "PUT", "/2015-03-31/event-source-mappings/{UUID}"),
    not_offered!("UpdateFunctionUrlConfig", "PUT", "/2021-10-31/functions/{FunctionName}/url"),
];

/// A path and method that are not Lambda's at all.
pub(crate) fn unknown(method: &Method, path: &str) -> FunctionError {
    FunctionError::UnknownOperation(format!("There is no operation {method} {path}."))
}

/// Runs an operation's body; what only we should know goes to the log.
pub(crate) fn answered<'a>(
    work: impl Future<Output = Result<Response, FunctionError>> + Send + 'a,
) -> BoxFuture<'a, Result<Response, ApiError>> {
    Box::pin(async move {
        work.await.map_err(|error| {
            let told = error.told();
            if told.status.is_server_error() {
                tracing::error!(error = &error as &dyn std::error::Error, "request failed");
            }
            told
        })
    })
}

/// How long a body the listener may read, and what to answer to a longer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimit {
    pub bytes: usize,
    operation: &'static str,
    /// What the message says: AWS's limit, where ours is more generous.
    told: usize,
}

impl BodyLimit {
    pub fn too_large(&self) -> ApiError {
        FunctionError::TooLarge(format!(
            "Request must be smaller than {} bytes for the {} operation",
            self.told, self.operation
        ))
        .told()
    }
}

/// The limit for a request, to be asked before its body is read. Source: Lambda spec 2.4, 3.3, 7.
pub fn body_limit(method: &Method, path: &str) -> BodyLimit {
    /// Base64 of the largest package, and some room for the rest.
    const PACKAGE: usize = 70_167_211;
    /// Everything else is a small document.
    const DOCUMENT: usize = 1_048_576;
    match operation::route(OPERATIONS, method, path) {
        Routed::Found(operation, _) => match operation.name {
            name @ ("CreateFunction" | "UpdateFunctionCode" | "PublishLayerVersion") => {
                BodyLimit { bytes: PACKAGE, operation: name, told: PACKAGE }
            }
            // Read a little past the limit, so that Invoke itself can say by how much it was missed.
            "Invoke" => {
                BodyLimit { bytes: PAYLOAD_BYTES_MAX + DOCUMENT, operation: "InvokeFunction", told: PAYLOAD_BYTES_MAX }
            }
            name => BodyLimit { bytes: DOCUMENT, operation: name, told: DOCUMENT },
        },
        Routed::WrongMethod | Routed::NotFound => BodyLimit { bytes: DOCUMENT, operation: "requested", told: DOCUMENT },
    }
}

pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Bytes of the packages of all versions of functions and layers; two versions with one package count twice, as on AWS.
pub(crate) fn used_code_bytes(snapshot: &Snapshot) -> u64 {
    let functions = snapshot.values().map(|entry| entry.function.code_bytes());
    functions.sum::<u64>() + layer::code_bytes(&snapshot.layers)
}

/// The refusal of a change that another one has overtaken.
pub(crate) fn update_in_progress(settings: &Settings, name: &str) -> FunctionError {
    FunctionError::Conflict(format!(
        "The operation cannot be performed at this time. An update is in progress for resource: {}",
        settings.function_arn(name)
    ))
}

/// What must stay for all functions without a reservation.
pub(crate) const UNRESERVED_MIN: u32 = 100;

/// The concurrency that functions hold for themselves, reserved or provisioned, but for one function's.
pub(crate) fn held_concurrency(snapshot: &Snapshot, without: Option<&str>) -> u64 {
    let functions = snapshot.values().map(|entry| &entry.function);
    functions.filter(|function| Some(function.name.as_str()) != without).map(Function::held_concurrency).sum()
}

/// The function that a tag operation names: by its full ARN, without a qualifier. Source: Lambda spec 3.9.
fn tagged(functions: &Functions, call: &Call, action: &str) -> Result<Named, FunctionError> {
    let text = call.label("Resource");
    let function = Arn::parse(text).filter(|arn| arn.service == "lambda" && arn.resource.starts_with("function:"));
    if function.is_none() {
        let mut v = Violations::default();
        v.pattern(text, "resource", false, "arn:(aws[a-zA-Z-]*):lambda:<region>:<account>:function:<name>");
        v.finish()?;
    }
    let named = functions.name(text, None, call.request.caller.account(), action)?;
    if named.qualifier.is_some() {
        return Err(FunctionError::Parameter(
            "Tags on function aliases and versions are not supported. Please specify a function ARN.".into(),
        ));
    }
    Ok(named)
}

/// A parameter of our own API's queries, which has one value.
pub(crate) fn own_parameter<'q>(query: &'q Query, name: &'static str) -> Result<Option<&'q str>, FunctionError> {
    let mut values = query.all(name);
    let first = values.next();
    match values.next() {
        None => Ok(first),
        Some(_) => Err(FunctionError::Parameter(format!("{name} stands twice."))),
    }
}

/// One page of a list.
pub(crate) struct Page {
    size: usize,
    /// Entries up to and with this key were listed before.
    after: Option<String>,
}

impl Page {
    /// AWS never lists more on a page, whatever `MaxItems` says.
    pub const SIZE_MAX: u32 = 50;

    pub fn read(query: &Query) -> Result<Self, FunctionError> {
        Self::read_up_to(query, 10_000)
    }

    /// As [`Page::read`] where `MaxItems` may be no more than `items_max`.
    pub fn read_up_to(query: &Query, items_max: u32) -> Result<Self, FunctionError> {
        let mut v = Violations::default();
        let mut size = Self::SIZE_MAX;
        if let Some(text) = query.get("MaxItems") {
            match text.parse::<i64>() {
                Ok(number) => size = v.range(number, "maxItems", 1, items_max).unwrap_or(size).min(Self::SIZE_MAX),
                Err(_) => v.add(text, "maxItems", "Member must be a number"),
            }
        }
        v.finish()?;
        let after = match query.get("Marker").filter(|marker| !marker.is_empty()) {
            None => None,
            Some(marker) => {
                let key = URL_SAFE_NO_PAD.decode(marker).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                Some(key.ok_or_else(|| FunctionError::Parameter("The Marker is not one that was given out.".into()))?)
            }
        };
        Ok(Self { size: size as usize, after })
    }

    /// Takes one page from entries with keys, makes their shapes, and says what the next page starts from, if there is
    /// one. Sorts, so keys may come in any order.
    pub fn cut<F: FnOnce() -> Value>(
        &self,
        entries: impl Iterator<Item = (String, F)>,
    ) -> (Vec<Value>, Option<String>) {
        let rest: BTreeMap<String, F> =
            entries.filter(|(key, _)| self.after.as_ref().is_none_or(|after| key > after)).collect();
        let more = rest.len() > self.size;
        let mut last = None;
        let mut shapes = Vec::new();
        for (key, shape) in rest.into_iter().take(self.size) {
            shapes.push(shape());
            last = Some(key);
        }
        (shapes, last.filter(|_| more).map(|key| URL_SAFE_NO_PAD.encode(key)))
    }
}
