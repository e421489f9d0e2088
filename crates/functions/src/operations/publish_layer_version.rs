//! Makes the next version of a layer. Source: Lambda spec 3.1, 8.2.

use http::StatusCode;
use longshore_wire::{Call, Operation, Response, Route};
use serde::Deserialize;
use std::sync::Arc;

use super::asks::asks;
use crate::Functions;
use crate::error::FunctionError;
use crate::layer::{About, LayerVersion};
use crate::members::{ARCHITECTURES, CodeMembers, known_runtimes, parse};
use crate::operations::{answered, now_ms, used_code_bytes};
use crate::validate::Violations;

pub const OPERATION: Operation<Functions> = Operation {
    name: "PublishLayerVersion",
    route: Route("POST", "/2018-10-31/layers/{LayerName}/versions"),
    spec: "https://docs.aws.amazon.com/lambda/latest/api/API_PublishLayerVersion.html",
    asks: asks!(body, publish_layer, "PublishLayerVersion"),
    handle: |functions, call| answered(publish_layer_version(functions, call)),
};

/// Runtimes that one version may name. Source: API model.
const RUNTIMES_MAX: usize = 15;
const ARCHITECTURES_MAX: usize = 2;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Publish {
    content: Option<CodeMembers>,
    description: Option<String>,
    license_info: Option<String>,
    compatible_runtimes: Option<Vec<String>>,
    compatible_architectures: Option<Vec<String>>,
}

async fn publish_layer_version(functions: &Functions, mut call: Call) -> Result<Response, FunctionError> {
    let request: Publish = parse(std::mem::take(&mut call.request.body)).await?;
    let mut v = Violations::default();
    if request.content.is_none() {
        v.missing("content");
    }
    if let Some(description) = &request.description {
        v.length(description, "description", 0, 256);
    }
    if let Some(license) = &request.license_info {
        v.length(license, "licenseInfo", 0, 512);
    }
    let runtimes = request.compatible_runtimes.as_deref().unwrap_or_default();
    v.at_most(runtimes, "compatibleRuntimes", RUNTIMES_MAX);
    v.each_one_of(runtimes, "compatibleRuntimes", &known_runtimes().collect::<Vec<_>>());
    let architectures = request.compatible_architectures.as_deref().unwrap_or_default();
    v.at_most(architectures, "compatibleArchitectures", ARCHITECTURES_MAX);
    v.each_one_of(architectures, "compatibleArchitectures", ARCHITECTURES);
    v.finish()?;
    let name = functions.layer_name(call.label("LayerName"), &call, "PublishLayerVersion")?;

    let code = functions.inner.code.put(functions.fetch(&request.content.unwrap_or_default()).await?).await?;
    let about = About {
        description: request.description.unwrap_or_default(),
        license_info: request.license_info,
        compatible_runtimes: request.compatible_runtimes,
        compatible_architectures: request.compatible_architectures,
    };
    let code_bytes_max = functions.inner.settings.code_bytes_max;
    let created_ms = now_ms();
    let version = functions
        .inner
        .catalogue
        .change_layer(&name, move |snapshot, mut layer| {
            if used_code_bytes(snapshot).saturating_add(code.size) > code_bytes_max {
                return Err(FunctionError::CodeStorage);
            }
            layer.last_published += 1;
            let number = layer.last_published;
            let version = Arc::new(LayerVersion { number, code, created_ms, about, permissions: None });
            layer.versions.insert(number, version.clone());
            Ok((Some(layer), version))
        })
        .await?;
    Ok(Response::json(StatusCode::CREATED, &functions.layer_with_content(&name, &version, &call)))
}
