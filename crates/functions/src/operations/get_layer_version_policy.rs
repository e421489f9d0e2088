//! The policy of a layer version. Source: Lambda spec 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::layers::version_number;
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetLayerVersionPolicy",
    route: Route("GET", "/2018-10-31/layers/{LayerName}/versions/{VersionNumber}/policy"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetLayerVersionPolicy.html",
    asks: asks!(layer, "GetLayerVersionPolicy"),
    handle: |functions, call| answered(get_layer_version_policy(functions, call)),
};

async fn get_layer_version_policy(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let name = functions.layer_name(call.label("LayerName"), &call, "GetLayerVersionPolicy")?;
    let number = version_number(&call)?;
    let arn = format!("{}:{number}", functions.layer_arn(&name));
    let snapshot = functions.inner.catalogue.snapshot();
    let version = snapshot.layers.get(&name).and_then(|layer| layer.find(number));
    let version = version.ok_or_else(|| FunctionError::Missing(format!("Layer version {arn} does not exist.")))?;
    let Some(permissions) = &version.permissions else {
        return Err(FunctionError::Missing("No policy is associated with the given resource.".into()));
    };
    let answer = json!({"Policy": permissions.policy.document(), "RevisionId": permissions.revision_id});
    Ok(Response::json(StatusCode::OK, &answer))
}
