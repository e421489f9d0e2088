//! Removes a statement from a layer version's policy. Source: Lambda spec 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::function::new_id;
use crate::layer::{LayerVersion, Permissions};
use crate::layers::{check_permissions_revision, version_number};
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "RemoveLayerVersionPermission",
    route: Route("DELETE", "/2018-10-31/layers/{LayerName}/versions/{VersionNumber}/policy/{StatementId}"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_RemoveLayerVersionPermission.html",
    asks: asks!(layer, "RemoveLayerVersionPermission"),
    handle: |functions, call| answered(remove_layer_version_permission(functions, call)),
};

async fn remove_layer_version_permission(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let name = functions.layer_name(call.label("LayerName"), &call, "RemoveLayerVersionPermission")?;
    let number = version_number(&call)?;
    let sid = call.label("StatementId").to_owned();
    let missing = format!("Layer version {}:{number} does not exist.", functions.layer_arn(&name));
    let revision = call.request.query.get("RevisionId").map(str::to_owned);
    functions
        .inner
        .catalogue
        .change_layer(&name, move |_, mut layer| {
            let version = layer.find(number).ok_or(FunctionError::Missing(missing))?;
            let permissions = version.permissions.clone().unwrap_or_default();
            check_permissions_revision(&permissions, revision.as_deref())?;
            let policy = permissions
                .policy
                .without(&sid)
                .ok_or_else(|| FunctionError::Missing(format!("Statement {sid} is not found in resource policy.")))?;
            let permissions = Permissions { revision_id: new_id(), policy };
            let permissions = Some(permissions).filter(|permissions| !permissions.policy.statements.is_empty());
            layer.put(LayerVersion { permissions, ..(*version).clone() });
            Ok((Some(layer), ()))
        })
        .await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}
