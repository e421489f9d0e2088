//! Makes a function. Source: Lambda spec 3.3, whose order of checks this follows.

use std::collections::BTreeMap;

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::function::{Configuration, Function, LayerReference, Standing, Version, VersionNumber, new_id};
use crate::members::{
    FunctionMembers, LookedUp, check_architectures, check_variables, own_architecture, parse, unsupported,
};
use crate::operations::{answered, now_ms, used_code_bytes};
use crate::shape::{self, View};
use crate::validate::{self, FUNCTION_NAME_PATTERN, Violations};

pub const OPERATION: Operation<Functions> = Operation {
    name: "CreateFunction",
    route: Route("POST", "/2015-03-31/functions"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html",
    asks: asks!(body, create_function, "CreateFunction"),
    handle: |functions, call| answered(create_function(functions, call)),
};

async fn create_function(functions: &Functions, mut call: Call) -> Result<Response, FunctionError> {
    let mut request: FunctionMembers = parse(std::mem::take(&mut call.request.body)).await?;
    let mut v = request.violations();
    required(&request, &mut v);
    v.finish()?;
    if request.revision_id.is_some() {
        return Err(FunctionError::Parameter("The member RevisionId is not known here.".into()));
    }

    let written_name = request.function_name.take().unwrap_or_default();
    let named = functions.name(&written_name, None, call.request.caller.account(), "CreateFunction")?;
    if named.qualifier.is_some() {
        return Err(FunctionError::Parameter("A function is created without a qualifier.".into()));
    }
    let name = named.name;
    if name.len() > NAME_CHARS_MAX {
        // AWS gives this one breach as a parameter error, though it reads like a constraint.
        return Err(FunctionError::Parameter(format!(
            "1 validation error detected: Value '{name}' at 'functionName' failed to satisfy constraint: Member must \
             have length less than or equal to {NAME_CHARS_MAX}"
        )));
    }
    request.refuse_unsupported()?;
    let (Some(runtime), Some(handler), Some(role)) = (&request.runtime, &request.handler, &request.role) else {
        return Err(FunctionError::Parameter(
            "Runtime and Handler are mandatory parameters for functions created with deployment packages.".into(),
        ));
    };
    let interpreter = functions.check_runtime(runtime).await?;
    if functions.inner.catalogue.snapshot().contains_key(&name) {
        return Err(exists(&name));
    }
    functions.check_role(role, &name, &call.request.request_id.0)?;
    check_architectures(request.architectures.as_deref())?;
    let mut configuration = Configuration {
        runtime: runtime.clone(),
        handler: handler.clone(),
        role: role.clone(),
        description: String::new(),
        timeout_s: 3,
        memory_mib: 128,
        ephemeral_storage_mib: 512,
        architecture: own_architecture().to_owned(),
        variables: None,
        layers: Vec::new(),
        logging: Default::default(),
        interpreter: String::new(),
    };

    let publish = request.publish;
    let source = request.code.take().ok_or_else(|| unsupported("A function without Code"))?;
    let zip = functions.fetch(&source).await?;
    let tags = request.tags.take().unwrap_or_default();
    // What is wrong with the package is told first, and a package is kept only if nothing else is wrong.
    let code = match checked_after_code(functions, &request, &tags, &call) {
        Ok(layers) => {
            let code = functions.inner.code.put(zip).await?;
            functions.check_with_layers(&code, &layers).await?;
            let looked_up = LookedUp { layers: Some(layers), interpreter: Some(interpreter) };
            request.apply(looked_up, &mut configuration)?;
            code
        }
        Err(error) => {
            functions.inner.code.check(zip).await?;
            return Err(error);
        }
    };
    let publish = publish == Some(true);
    let mut function = Function {
        id: new_id(),
        name: name.clone(),
        last_published: VersionNumber::LATEST,
        reserved_concurrency: None,
        provisioned: Default::default(),
        tags,
        event_invoke_configs: Default::default(),
        versions: Default::default(),
        aliases: Default::default(),
        policies: Default::default(),
    };
    function.put(Version {
        number: VersionNumber::LATEST,
        revision_id: new_id(),
        deployment_id: new_id(),
        standing: Standing::Creating,
        code,
        modified_ms: now_ms(),
        configuration,
        latest_description: None,
    });
    let mut shown = VersionNumber::LATEST;
    if publish {
        (function, shown) = function.published(None, Standing::Creating);
    }

    let code_bytes_max = functions.inner.settings.code_bytes_max;
    let made = function.clone();
    functions
        .inner
        .catalogue
        .change(&name, move |snapshot, current| {
            if current.is_some() {
                return Err(exists(&made.name));
            }
            if used_code_bytes(snapshot).saturating_add(made.code_bytes()) > code_bytes_max {
                return Err(FunctionError::CodeStorage);
            }
            Ok((Next::Put(made), ()))
        })
        .await?;
    let version = function.versions.get(&shown).expect("just put there");
    // The ARN stays unqualified even where the version shown is number 1.
    let view = View { qualifier: None, with_state: true };
    Ok(Response::json(StatusCode::CREATED, &shape::configuration(&functions.inner.settings, &name, version, view)))
}

/// Characters of a bare name. Longer ones, up to 140, are for ARNs.
const NAME_CHARS_MAX: usize = 64;

/// Steps 8 to 10: layers, environment variables, tags.
fn checked_after_code(
    functions: &Functions,
    request: &FunctionMembers,
    tags: &BTreeMap<String, String>,
    call: &Call,
) -> Result<Vec<LayerReference>, FunctionError> {
    let layers = functions.layers(request.layers.as_deref().unwrap_or_default(), call)?;
    check_variables(request)?;
    validate::tags(tags)?;
    Ok(layers)
}

fn required(request: &FunctionMembers, v: &mut Violations) {
    match &request.function_name {
        None => v.missing("functionName"),
        Some(name) => {
            v.length(name, "functionName", 1, 140);
            let matches = longshore_wire::arn::FunctionName::parse(name).is_some();
            v.pattern(name, "functionName", matches, FUNCTION_NAME_PATTERN);
        }
    }
    if request.role.is_none() {
        v.missing("role");
    }
    if request.code.is_none() {
        v.missing("code");
    }
}

fn exists(name: &str) -> FunctionError {
    // Sic, without the "s".
    FunctionError::Conflict(format!("Function already exist: {name}"))
}
