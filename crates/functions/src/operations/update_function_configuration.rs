//! Changes settings of `$LATEST`; what is absent stays. Source: Lambda spec 3.7.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::catalogue::Next;
use crate::error::FunctionError;
use crate::members::{FunctionMembers, LookedUp, check_variables, parse};
use crate::operations::{answered, now_ms, update_in_progress};
use crate::resolve::{check_at_rest, check_revision};
use crate::shape::{self, View};

pub const OPERATION: Operation<Functions> = Operation {
    name: "UpdateFunctionConfiguration",
    route: Route("PUT", "/2015-03-31/functions/{FunctionName}/configuration"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionConfiguration.html",
    asks: asks!(body, update_configuration, "UpdateFunctionConfiguration"),
    handle: |functions, call| answered(update_function_configuration(functions, call)),
};

async fn update_function_configuration(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let request: FunctionMembers = parse(call.request.body.clone()).await?;
    let named = functions.named_unqualified(&call, "UpdateFunctionConfiguration")?;
    // The type is shared with CreateFunction, which has more.
    let foreign = [
        ("FunctionName", request.function_name.is_some()),
        ("Code", request.code.is_some()),
        ("Publish", request.publish.is_some()),
        ("PackageType", request.package_type.is_some()),
        ("Tags", request.tags.is_some()),
        ("Architectures", request.architectures.is_some()),
        ("CodeSigningConfigArn", request.code_signing_config_arn.is_some()),
        ("PublishTo", request.publish_to.is_some()),
        ("TenancyConfig", request.tenancy_config.is_some()),
    ];
    if let Some((member, _)) = foreign.iter().find(|(_, given)| *given) {
        return Err(FunctionError::Parameter(format!("The member {member} is not known here.")));
    }
    request.violations().finish()?;
    request.refuse_unsupported()?;
    let entry = functions.stand(&named).await?;
    check_at_rest(&functions.inner.settings, &entry.function)?;
    check_revision(&entry.function, request.revision_id.as_deref())?;
    let (latest, mut looked_up) = (entry.function.latest(), LookedUp::default());
    if let Some(runtime) = &request.runtime {
        looked_up.interpreter = Some(functions.check_runtime(runtime).await?);
    }
    if let Some(role) = &request.role {
        functions.check_role(role, &named.name, &call.request.request_id.0)?;
    }
    if let Some(layers) = &request.layers {
        let layers = functions.layers(layers, &call)?;
        functions.check_with_layers(&latest.code, &layers).await?;
        looked_up.layers = Some(layers);
    }
    check_variables(&request)?;

    let code = latest.code.clone();
    let (settings, name, missing) = (functions.inner.settings.clone(), named.name.clone(), functions.not_found(&named));
    let shape = functions
        .inner
        .catalogue
        .change(&named.name, move |_, current| {
            let current = current.ok_or(missing)?;
            check_at_rest(&settings, &current)?;
            check_revision(&current, request.revision_id.as_deref())?;
            // The layers were checked together with the code that was there.
            if looked_up.layers.is_some() && current.latest().code != code {
                return Err(update_in_progress(&settings, &name));
            }
            let mut configuration = current.latest().configuration.clone();
            // Here, to what is there now, so that two updates of different members both count.
            request.apply(looked_up, &mut configuration)?;
            let updated = current.updated(current.latest().code.clone(), configuration, now_ms());
            let view = View { qualifier: None, with_state: true };
            let shape = shape::configuration(&settings, &name, updated.latest(), view);
            Ok((Next::Put(updated), shape))
        })
        .await?;
    Ok(Response::json(StatusCode::OK, &shape))
}
