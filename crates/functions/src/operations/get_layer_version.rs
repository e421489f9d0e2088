//! One version of a layer, with a link to its content. Source: Lambda spec 3.1, 8.2.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::layers::version_number;
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetLayerVersion",
    route: Route("GET", "/2018-10-31/layers/{LayerName}/versions/{VersionNumber}"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetLayerVersion.html",
    asks: asks!(layer, "GetLayerVersion"),
    handle: |functions, call| answered(get_layer_version(functions, call)),
};

async fn get_layer_version(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let name = functions.layer_name(call.label("LayerName"), &call, "GetLayerVersion")?;
    let version = functions.layer_version(&name, version_number(&call)?)?;
    Ok(Response::json(StatusCode::OK, &functions.layer_with_content(&name, &version, &call)))
}
