//! One version of a layer by its ARN. Source: Lambda spec 3.1, 8.2.
//!
//! On the wire it is `GET /2018-10-31/layers?find=LayerVersion&Arn=...`, the path of ListLayers.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::operations::answered;
use crate::operations::list_layers::by_query;
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "GetLayerVersionByArn",
    route: Route("GET", "/2018-10-31/layers"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_GetLayerVersionByArn.html",
    asks: asks!(layers, "GetLayerVersion"),
    handle: |functions, call| answered(by_query(functions, call)),
};

pub(super) async fn get_layer_version_by_arn(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let Some(arn) = call.request.query.get("Arn") else {
        let mut v = Violations::default();
        v.missing("arn");
        v.finish()?;
        return Err(FunctionError::Parameter("The member Arn is missing.".into()));
    };
    let (name, number) = functions.layer_version_named(arn, &call)?;
    let version = functions.layer_version(&name, number)?;
    Ok(Response::json(StatusCode::OK, &functions.layer_with_content(&name, &version, &call)))
}
