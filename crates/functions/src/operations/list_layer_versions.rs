//! The versions of a layer, newest first, in pages. Source: Lambda spec 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::layers::{Fits, PAGE_MAX};
use crate::operations::{Page, answered};

pub const OPERATION: Operation<Functions> = Operation {
    name: "ListLayerVersions",
    route: Route("GET", "/2018-10-31/layers/{LayerName}/versions"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_ListLayerVersions.html",
    asks: asks!(layer, "ListLayerVersions"),
    handle: |functions, call| answered(list_layer_versions(functions, call)),
};

async fn list_layer_versions(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let fits = Fits::read(&call.request.query)?;
    let page = Page::read_up_to(&call.request.query, PAGE_MAX)?;
    let name = functions.layer_name(call.label("LayerName"), &call, "ListLayerVersions")?;
    let snapshot = functions.inner.catalogue.snapshot();
    let versions = snapshot.layers.get(&name).into_iter().flat_map(|layer| layer.versions.values());
    let listed = versions.filter(|version| fits.takes(version)).map(|version| {
        // Pages go upwards by their keys, and versions downwards.
        (format!("{:010}", u32::MAX - version.number), || functions.layer_shape(&name, version))
    });
    let (shapes, next) = page.cut(listed);
    let mut answer = json!({"LayerVersions": shapes});
    if let Some(next) = next {
        answer["NextMarker"] = next.into();
    }
    Ok(Response::json(StatusCode::OK, &answer))
}
