//! Every layer with its newest version that fits, in pages. Source: Lambda spec 3.1.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde_json::json;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::layers::{Fits, PAGE_MAX};
use crate::operations::get_layer_version_by_arn::get_layer_version_by_arn;
use crate::operations::{Page, answered};

pub const OPERATION: Operation<Functions> = Operation {
    name: "ListLayers",
    route: Route("GET", "/2018-10-31/layers"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_ListLayers.html",
    asks: asks!(layers, "ListLayers"),
    handle: |functions, call| answered(by_query(functions, call)),
};

/// Serves the one path of ListLayers and GetLayerVersionByArn, which the router, a reader of paths, cannot tell apart.
pub(super) async fn by_query(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    match call.request.query.get("find") {
        Some("LayerVersion") => get_layer_version_by_arn(functions, call).await,
        _ => list_layers(functions, call).await,
    }
}

async fn list_layers(functions: &Functions, call: Call) -> Result<Response, FunctionError> {
    let fits = Fits::read(&call.request.query)?;
    let page = Page::read_up_to(&call.request.query, PAGE_MAX)?;
    let snapshot = functions.inner.catalogue.snapshot();
    let listed = snapshot.layers.iter().filter_map(|(name, layer)| {
        // A layer whose versions are deleted is not there; its number goes on all the same.
        let version = layer.versions.values().rev().find(|version| fits.takes(version))?;
        let shape = move || {
            json!({
                "LayerName": name,
                "LayerArn": functions.layer_arn(name),
                "LatestMatchingVersion": functions.layer_shape(name, version),
            })
        };
        Some((name.clone(), shape))
    });
    let (shapes, next) = page.cut(listed);
    let mut answer = json!({"Layers": shapes});
    if let Some(next) = next {
        answer["NextMarker"] = next.into();
    }
    Ok(Response::json(StatusCode::OK, &answer))
}
