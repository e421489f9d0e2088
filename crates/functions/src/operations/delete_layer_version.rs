//! Deletes a version of a layer; functions that have it keep it. Source: Lambda spec 8.2.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::layers::version_number;
use crate::operations::answered;

pub const OPERATION: Operation<Functions> = Operation {
    name: "DeleteLayerVersion",
    route: Route("DELETE", "/2018-10-31/layers/{LayerName}/versions/{VersionNumber}"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_DeleteLayerVersion.html",
    asks: asks!(layer, "DeleteLayerVersion"),
    handle: |functions, call| answered(delete_layer_version(functions, call)),
};

async fn delete_layer_version(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let name = functions.layer_name(call.label("LayerName"), &call, "DeleteLayerVersion")?;
    let number = version_number(&call)?;
    functions
        .inner
        .catalogue
        .change_layer(&name, move |_, mut layer| {
            // One that is not there is as good as deleted.
            let deleted = u32::try_from(number).ok().and_then(|number| layer.versions.remove(&number));
            Ok((deleted.map(|_| layer), ()))
        })
        .await?;
    Ok(Response::empty(StatusCode::NO_CONTENT))
}
